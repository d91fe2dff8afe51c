"""aiohttp's connector and its pool of connections."""

# pyright: reportPrivateUsage=false

import asyncio
import inspect
from collections.abc import Awaitable, Iterable

from aiohttp import (
    BaseConnector,
    ClientRequest,
    ClientSession,
    ClientTimeout,
)
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from asgi_connector._services.server_end import ClientEnd

from .client_protocol import ClientProtocol


class PoolingConnector(BaseConnector):
    """aiohttp's connector and its pool, whole; what a subclass needs of the private part is named here.

    `BaseConnector` calls `_create_connection()` for a new connection, and third parties call `_close()`, from
    finalisers and on loops that are closed.
    """

    @property
    def closed(self) -> bool:
        """Whether the connector is closed."""
        if (self._closed or running_loop() is not self._loop) and _is_asked_by_a_request():
            self._refuse_request()
        return self._closed

    def _has_closed(self) -> bool:
        """The same, at less cost."""
        return self._closed

    def _refuse_request(self) -> None:
        """A session makes a request through a connector that is closed, or of another loop: raise what is wrong.

        aiohttp would say it in words that do not help.
        """
        raise NotImplementedError

    def _open_connection(self, req: ClientRequest) -> ClientProtocol:
        """Make a new connection for *req*."""
        raise NotImplementedError

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ClientProtocol:
        protocol = self._open_connection(req)
        protocol.acquired = self._acquired
        return protocol

    async def _reuse(self, req: ClientRequest, traces: list[Trace]) -> Connection | None:
        """An idle connection from the pool, if there is one: how `connect()` begins, without the rest of it."""
        return await self._get(req.connection_key, traces)

    def _close_forgotten(self, protocols: Iterable[ClientEnd]) -> None:
        """Close what the pool has lost: when a trace raises or is cancelled, `connect()` drops the connection it has.

        It may be that one which is being connected by another call is closed too; that call takes another one.
        """
        pooled: set[object] = {protocol for connections in self._conns.values() for protocol, _ in connections}
        for protocol in protocols:
            if protocol not in pooled and not protocol.in_use:
                protocol.close()

    def _close_pool(self, *, abort_ssl: bool = False) -> list[Awaitable[object]]:
        """Close every connection that is pooled or in use; `closed` is true from now on."""
        return super()._close(abort_ssl=abort_ssl)

    def _close_now(self) -> list[Awaitable[object]]:
        """Close all that there is to close without waiting; what could be waited for is returned."""
        raise NotImplementedError

    def _close(self, *, abort_ssl: bool = False) -> list[Awaitable[object]]:
        return self._close_now()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs here, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _is_asked_by_a_request() -> bool:
    """Whether it is a session's request that reads `PoolingConnector.closed`, and not a user.

    `ClientSession._request` begins by reading `ClientSession.closed`, which is that of its connector. Then it says
    "Session is closed", of a new session too if another one has closed the connector. In another loop it goes on, and
    says "Timeout context manager should be used inside a task". Of a session that has been closed itself, the connector
    is not asked.
    """
    frame = inspect.currentframe()
    for _ in range(3):  # this function, `PoolingConnector.closed`, `ClientSession.closed`
        frame = frame and frame.f_back
    return frame is not None and frame.f_code is ClientSession._request.__code__


def close_now(connector: BaseConnector) -> list[Awaitable[object]]:
    """Close a connector and its connections without waiting; what could be waited for is returned."""
    return connector._close()


def loop_of(connector: BaseConnector) -> asyncio.AbstractEventLoop:
    return connector._loop
