"""What watches the requests of a connector, and shakes them: its recordings, and the faults that are injected."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager

from aiohttp import ClientRequest, ClientTimeout
from aiohttp.connector import Connection

from asgi_connector._aiohttp.client_protocol import ClientProtocol
from asgi_connector._asgi.in_flight import Connection as OpenConnection
from asgi_connector._injection.faults import Fault
from asgi_connector._injection.injections import Injection, Injections, Odds
from asgi_connector._journal.journal import Journal
from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.recorder import Recorder
from asgi_connector._journal.selector import Selector
from asgi_connector._numbers import is_int
from asgi_connector._services.table import MountTable


class Observation:
    """The recordings and injections of one connector."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        table: MountTable,
        connections: Iterable[OpenConnection],
        is_acquired: Callable[[ClientProtocol], bool],
    ) -> None:
        self.recorder = Recorder(loop)
        """It also records while only an injection is open."""
        self._table = table
        self._injections = Injections(loop, self.recorder, table, connections, is_acquired)

    def record(self, bodies: bool, max_body_size: int) -> AbstractContextManager[Journal]:
        if not isinstance(bodies, bool):
            raise TypeError(f"bodies must be a bool, not {bodies!r}")
        if not is_int(max_body_size):
            raise TypeError(f"max_body_size must be an int, a number of bytes, not {max_body_size!r}")
        if max_body_size < 0:
            raise ValueError(f"max_body_size must not be negative, but is {max_body_size}")
        return self.recorder.record(max_body_size if bodies else None)

    def inject(self, selector: Selector, fault: Fault, odds: Odds, allow_unused: bool) -> Injection:
        return self._injections.inject(selector, fault, odds, allow_unused)

    @property
    def injecting(self) -> bool:
        return bool(self._injections.open)

    async def connect(
        self,
        exchange: LiveExchange,
        req: ClientRequest,
        timeout: ClientTimeout,
        dispatch: Callable[[LiveExchange], Awaitable[Connection]],
    ) -> Connection:
        """Connect, and let what strikes the request strike."""
        mounted = self._table.find(exchange.host, exchange.port, exchange.secure)
        if mounted is None:
            return await dispatch(exchange)
        exchange.service = mounted.pattern
        strikes = self._injections.strike(exchange)
        try:
            await strikes.before_connection(req, timeout)
        except BaseException as exc:
            exchange.not_connected(exc)
            raise
        connection = await dispatch(exchange)
        if exchange.via != "fallback":
            strikes.act_on(connection)
        return connection

    def end(self) -> None:
        """The connector closes: nothing is kept any longer."""
        self._injections.end_all()
        self.recorder.conclude()
