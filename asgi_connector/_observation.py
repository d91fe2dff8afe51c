"""What watches the requests of a connector, and shakes them: its recordings, and the faults that are injected."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager

from aiohttp import ClientRequest, ClientTimeout
from aiohttp.connector import Connection

from ._aiohttp import ClientProtocol
from ._exchange import LiveExchange
from ._faults import Fault
from ._injection import Injection, Injections
from ._journal import Journal, Recorder
from ._mounts import MountTable
from ._running import Connection as OpenConnection
from ._selector import Caller, Path, Selector


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
        if not isinstance(max_body_size, int) or isinstance(max_body_size, bool):
            raise TypeError(f"max_body_size must be an int, a number of bytes, not {max_body_size!r}")
        if max_body_size < 0:
            raise ValueError(f"max_body_size must not be negative, but is {max_body_size}")
        return self.recorder.record(max_body_size if bodies else None)

    def inject(
        self,
        host: str,
        fault: Fault,
        *,
        caller: Caller,
        method: str | None,
        path: Path,
        times: int | None,
        skip: int,
        probability: float,
        seed: int | float | str | bytes,
        allow_unused: bool,
    ) -> Injection:
        selector = Selector(host, caller=caller, method=method, path=path)
        return self._injections.inject(selector, host, fault, times, skip, probability, seed, allow_unused)

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
