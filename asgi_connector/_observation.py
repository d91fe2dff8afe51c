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
        self._table = table
        self._recorder = Recorder(loop)
        self._injections = Injections(loop, self._recorder, table, connections, is_acquired)

    @property
    def active(self) -> bool:
        """Whether a recording or an injection is open."""
        return self._recorder.recording

    def record(self, bodies: bool, max_body_size: int) -> AbstractContextManager[Journal]:
        if not isinstance(bodies, bool):
            raise TypeError(f"bodies must be a bool, not {bodies!r}")
        if not isinstance(max_body_size, int) or isinstance(max_body_size, bool):
            raise TypeError(f"max_body_size must be an int, a number of bytes, not {max_body_size!r}")
        if max_body_size < 0:
            raise ValueError(f"max_body_size must not be negative, but is {max_body_size}")
        return self._recorder.record(max_body_size if bodies else None)

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

    async def connect(
        self, req: ClientRequest, timeout: ClientTimeout, dispatch: Callable[[LiveExchange], Awaitable[Connection]]
    ) -> Connection:
        """Follow a request from its start, and let what strikes it strike."""
        exchange = self._recorder.begin(req)
        try:
            mounted = self._table.find(exchange.host, exchange.port, exchange.secure)
            strikes = None
            if mounted is not None:
                exchange.service = mounted.pattern
                if self._injections.open:
                    strikes = self._injections.strike(exchange)
                    await strikes.before_connection(req, timeout)
            connection = await dispatch(exchange)
        except BaseException as exc:
            exchange.not_connected(exc)
            raise
        if strikes is not None and exchange.via != "fallback":
            strikes.act_on(connection)
        exchange.connected(connection)
        return connection

    def end(self) -> None:
        """The connector closes: no fault keeps anything any longer."""
        self._injections.end_all()
