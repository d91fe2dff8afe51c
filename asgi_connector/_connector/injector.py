"""`Injector`: the injected faults of a connector, and a request's way through them."""

from collections.abc import Callable
from urllib.parse import unquote

from aiohttp import ClientRequest, ClientTimeout
from aiohttp.connector import Connection

from asgi_connector._aiohttp.requests import address_of
from asgi_connector._callers import current_caller, name_of
from asgi_connector._injection.blocks import OpenBlocks
from asgi_connector._injection.crash import Crash
from asgi_connector._injection.effects import Effects, choose
from asgi_connector._injection.faults import Fault, Hang, Part, Refuse
from asgi_connector._injection.hold import Hold
from asgi_connector._injection.injections import Injection, Odds
from asgi_connector._injection.partition import Group, Partition
from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.recorder import Recorder
from asgi_connector._journal.selector import Call, Selector, call_of
from asgi_connector._services.restarts import Restarts
from asgi_connector._services.services import Services


class Injector:
    """The injections of one connector.

    Parameters:
        recorder: records for the blocks, whose errors show the calls.
        has_idle: tells whether a request will use an idle connection of the pool.
    """

    def __init__(self, recorder: Recorder, services: Services, has_idle: Callable[[ClientRequest], bool]) -> None:
        self.blocks = OpenBlocks(recorder, services, has_idle)
        self._services = services

    def inject(self, selector: Selector, fault: Fault, odds: Odds, allow_unused: bool) -> Injection:
        return Injection(self.blocks, selector, fault, odds, allow_unused)

    def partition(self, groups: tuple[Group, ...], fault: Hang | Refuse, allow_unused: bool) -> Partition:
        return Partition(self.blocks, groups, fault, allow_unused)

    def hold(self, selector: Selector, on: Part, allow_unused: bool) -> Hold:
        return Hold(self.blocks, selector, on, allow_unused)

    def crash(self, pattern: str, allow_unused: bool, is_open: Callable[[], bool]) -> Crash:
        return Crash(self.blocks, Restarts(self._services), pattern, allow_unused, is_open)

    def effects_on(self, exchange: LiveExchange) -> Effects | None:
        """Decide which faults affect the request. Returns `None` if none does."""
        if not self.blocks.open:
            return None
        call = call_of(exchange)
        mounted = self._services.table.find(call.address)
        if mounted is None:
            return None
        exchange.service = mounted.pattern
        effects = choose(reversed(self.blocks.open), call, exchange)
        return Effects(exchange, effects) if effects else None

    async def wait_late(
        self, connection: Connection, exchange: LiveExchange | None, req: ClientRequest, timeout: ClientTimeout
    ) -> bool:
        """Close *connection* if the network was parted while *req* waited for it, and wait until it is whole.

        Returns whether *req* needs another connection. Raises what aiohttp raises if it gets none.
        """
        if not self.blocks.open:
            return False
        address, caller = address_of(req), name_of(current_caller.get())
        call = Call(address, caller, req.method, unquote(req.url.raw_path), req.url.raw_query_string)
        for block in reversed(self.blocks.open):
            if block.keeps_late(call, exchange):
                connection.close()
                await block.wait_late(req, timeout)
                return True
        return False

    def unused_faults(self) -> list[str]:
        """What is wrong with the open blocks, a text for each that has affected nothing."""
        return [problem for block in self.blocks.open if (problem := block.problem()) is not None]
