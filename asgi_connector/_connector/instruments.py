"""`Instruments`: the recordings and the injected faults of a connector."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from aiohttp import ClientRequest, ClientTimeout
from aiohttp.connector import Connection

from asgi_connector._aiohttp.requests import address_of
from asgi_connector._injection.blocks import OpenBlocks
from asgi_connector._injection.effects import choose
from asgi_connector._injection.faults import Fault
from asgi_connector._injection.injections import Injection, Odds
from asgi_connector._journal.journal import Journal
from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.recorder import Recorder
from asgi_connector._journal.selector import Selector
from asgi_connector._numbers import is_int
from asgi_connector._services.services import Services


class Instruments:
    """The recordings and injections of one connector."""

    def __init__(self, services: Services) -> None:
        self.recorder = Recorder(services.loop)
        """The recorder. It also records while only an injection is open."""
        self._table = services.table
        self.blocks = OpenBlocks(self.recorder, services)

    def record(self, bodies: bool, max_body_size: int) -> AbstractContextManager[Journal]:
        if not isinstance(bodies, bool):
            raise TypeError(f"bodies must be a bool, not {bodies!r}")
        if not is_int(max_body_size):
            raise TypeError(f"max_body_size must be an int, a number of bytes, not {max_body_size!r}")
        if max_body_size < 0:
            raise ValueError(f"max_body_size must not be negative, but is {max_body_size}")
        return self.recorder.record(max_body_size if bodies else None)

    def inject(self, selector: Selector, fault: Fault, odds: Odds, allow_unused: bool) -> Injection:
        return Injection(self.blocks, selector, fault, odds, allow_unused)

    @property
    def injecting(self) -> bool:
        return bool(self.blocks.open)

    async def connect(
        self,
        exchange: LiveExchange,
        req: ClientRequest,
        timeout: ClientTimeout,
        dispatch: Callable[[LiveExchange], Awaitable[Connection]],
    ) -> Connection:
        """Connect, and apply the faults that affect the request."""
        mounted = self._table.find(address_of(req))
        if mounted is None:
            return await dispatch(exchange)
        exchange.service = mounted.pattern
        effects = choose(reversed(self.blocks.open), exchange)
        try:
            await effects.before_connection(req, timeout)
        except BaseException as exc:
            exchange.not_connected(exc)
            raise
        connection = await dispatch(exchange)
        if exchange.via != "fallback":
            effects.act_on(connection)
        return connection

    def end_all(self) -> None:
        """Stop every fault and conclude the exchanges, because the connector closes."""
        self.blocks.end_all()
        self.recorder.conclude()
