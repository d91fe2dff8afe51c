"""aiohttp's connector and its pool of connections."""

# pyright: reportPrivateUsage=false

import asyncio
import inspect
import math
from collections.abc import Awaitable, Iterable
from time import monotonic

from aiohttp import BaseConnector, ClientRequest, ClientSession, ClientTimeout
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from asgi_connector._services.server_end import ClientEnd

from .client_protocol import ClientProtocol


class PoolingConnector(BaseConnector):
    """aiohttp's connector with its pool. It gives names to the private parts that a subclass needs.

    `BaseConnector` calls `_create_connection()` for a new connection. Third parties call `_close()`, even from
    finalisers and on closed loops.
    """

    @property
    def closed(self) -> bool:
        """Whether the connector is closed."""
        if (self._closed or running_loop() is not self._loop) and _is_read_by_a_request():
            self._refuse_request()
        return self._closed

    def _has_closed(self) -> bool:
        """Return whether the connector is closed, without the cost of `closed`."""
        return self._closed

    def _refuse_request(self) -> None:
        """Raise an error for a request through a connector that is closed, or that belongs to another loop.

        aiohttp's own error would not name the cause.
        """
        raise NotImplementedError

    def _open_connection(self, req: ClientRequest) -> ClientProtocol:
        """Open a new connection for *req*."""
        raise NotImplementedError

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ClientProtocol:
        protocol = self._open_connection(req)
        protocol.acquired = self._acquired
        return protocol

    async def _reuse(self, req: ClientRequest, traces: list[Trace]) -> Connection | None:
        """Return an idle connection from the pool, if there is one. This is only the first step of `connect()`."""
        return await self._get(req.connection_key, traces)

    def _take_idle(self, req: ClientRequest) -> Connection | None:
        """Return an idle connection, if there is one, as `BaseConnector._get()` does in aiohttp 3.13.0 and later.

        `_get()` is a coroutine because of traces. To do without it saves half a percent of a small request.
        """
        key = req.connection_key
        idle = self._conns.get(key)
        if idle is None:
            return None
        oldest = self._oldest_kept()
        while idle:
            protocol, released = idle.popleft()
            if protocol.is_connected() and released >= oldest:
                if not idle:
                    del self._conns[key]
                self._acquired.add(protocol)
                if self._limit_per_host:
                    self._acquired_per_host[key].add(protocol)
                return Connection(self, key, protocol, self._loop)
            protocol.close()
        del self._conns[key]
        return None

    def _has_idle(self, req: ClientRequest) -> bool:
        """Whether `_reuse()` would return a connection for *req*."""
        oldest = self._oldest_kept()
        idle = self._conns.get(req.connection_key, ())
        return any(protocol.is_connected() and returned >= oldest for protocol, returned in idle)

    def _oldest_kept(self) -> float:
        """The time since which an idle connection must have been in the pool at the longest."""
        return monotonic() - (math.inf if self._keepalive_timeout is None else self._keepalive_timeout)

    def _close_forgotten(self, protocols: Iterable[ClientEnd]) -> None:
        """Close connections that the pool has lost: when a trace raises or is cancelled, `connect()` drops its own.

        A connection that another call is just opening may be closed too. That call then takes another connection.
        """
        pooled: set[object] = {protocol for connections in self._conns.values() for protocol, _ in connections}
        for protocol in protocols:
            if protocol not in pooled and not protocol.in_use:
                protocol.close()

    def _close_pool(self, *, abort_ssl: bool = False) -> list[Awaitable[object]]:
        """Close all connections, idle or in use. `closed` is true from now on."""
        return super()._close(abort_ssl=abort_ssl)

    def _close_now(self) -> list[Awaitable[object]]:
        """Close everything without waiting. Returns awaitables for those who want to wait."""
        raise NotImplementedError

    def _close(self, *, abort_ssl: bool = False) -> list[Awaitable[object]]:
        return self._close_now()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _is_read_by_a_request() -> bool:
    """Whether a session's request reads `PoolingConnector.closed`, and not user code.

    `ClientSession._request` first reads `ClientSession.closed`, which reads `closed` of its connector. If that is true,
    it raises "Session is closed", even in a new session whose connector was closed by another session. In another loop
    it continues, and raises "Timeout context manager should be used inside a task". A session that was closed itself
    does not read `closed` of the connector.
    """
    frame = inspect.currentframe()
    for _ in range(3):  # this function, `PoolingConnector.closed`, `ClientSession.closed`
        frame = frame and frame.f_back
    return frame is not None and frame.f_code is ClientSession._request.__code__


def close_now(connector: BaseConnector) -> list[Awaitable[object]]:
    """Close a connector and its connections without waiting. Returns awaitables for those who want to wait."""
    return connector._close()


def loop_of(connector: BaseConnector) -> asyncio.AbstractEventLoop:
    """Return the event loop of *connector*."""
    return connector._loop
