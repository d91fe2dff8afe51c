"""Dispatching a request to the mounted app or to the fallback, or refusing it."""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from aiohttp import BaseConnector, ClientConnectionError, ClientRequest, ClientTimeout
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from typing_extensions import override
from yarl import URL

from asgi_connector._aiohttp.client_protocol import ClientProtocol
from asgi_connector._aiohttp.interception import connect_as_always
from asgi_connector._aiohttp.pool import PoolingConnector
from asgi_connector._aiohttp.requests import (
    address_of,
    connect_timeout,
    connection_refused,
    take_proxy,
    trace_reuse,
)
from asgi_connector._aiohttp.retries import Retries
from asgi_connector._callers import current_caller, owners
from asgi_connector._display import printable
from asgi_connector._exceptions import UnmountedHostError
from asgi_connector._log import logger
from asgi_connector._network.transport import connect_pair, remove_media
from asgi_connector._services.closing import Closing
from asgi_connector._services.lifespan import Lifespan
from asgi_connector._services.mounted import MountedApp
from asgi_connector._services.server_end import ClientCall
from asgi_connector._services.services import Services

from .elsewhere import Elsewhere, fallback_to
from .kinds import open_server_end
from .loops import check_loop
from .refusals import Refusals

if TYPE_CHECKING:
    from asgi_connector._journal.live import LiveExchange

    from .instruments import Instruments


class DispatchingConnector(PoolingConnector):
    """A connector that sends each request to the app that is mounted for its address, or to the fallback."""

    def __init__(self, services: Services, fallback: BaseConnector | None, fallback_owner: bool, **pool: Any) -> None:
        """*pool* is what `aiohttp.BaseConnector` takes."""
        super().__init__(**pool)
        if fallback is not None:
            self.allowed_protocol_schema_set = self.allowed_protocol_schema_set | fallback.allowed_protocol_schema_set
        self._services = services
        self._fallback = fallback
        self._fallback_owner = fallback_owner
        self._elsewhere = fallback_to(fallback)
        self._retries = Retries()
        self._closing = Closing(services)
        self._instruments: Instruments | None = None  # the recordings and faults, created at their first use
        self._refusals: list[Refusals] = []  # those of a test and of the open intercept() blocks, the innermost last

    @override
    def connect(  # pyright: ignore[reportIncompatibleMethodOverride] # the base returns a CoroutineType
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> Coroutine[Any, Any, Connection]:
        """Get a connection for *req*. aiohttp calls this for each request, and awaits it immediately."""
        return self._connect_or(self._elsewhere, req, traces, timeout)

    async def _connect_or(
        self, elsewhere: Elsewhere, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> Connection:
        """Get a connection for *req* to the app that is mounted for it, or else from *elsewhere*."""
        if (
            asyncio.get_running_loop() is not self._services.loop
            or self._closing.task is not None
            or self._has_closed()
        ):
            check_loop(self)
            self._check_open()
        task = asyncio.current_task()
        if self._retries.expected and task is not None:
            self._retries.answer(req, task)
        instruments, exchange = self._instruments, None
        if instruments is not None and instruments.recorder.recording:
            exchange = instruments.recorder.begin(req)
            injector = instruments.injector
            if injector is not None and (effects := injector.effects_on(exchange)) is not None:
                dispatch = partial(self._dispatch, req, traces, timeout, task, elsewhere, exchange)
                return await effects.connect(req, timeout, dispatch)
        if not traces and self._closing.task is None and (connection := self._take_idle(req)) is not None:
            if _hand_out(cast(ClientProtocol, connection.protocol), req, task, exchange):
                if exchange is not None:
                    exchange.connected(connection)
                return connection
            connection.close()
        return await self._dispatch(req, traces, timeout, task, elsewhere, exchange)

    async def _dispatch(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,
        task: asyncio.Task[Any] | None,
        elsewhere: Elsewhere,
        exchange: "LiveExchange | None",
    ) -> Connection:
        try:
            while True:
                # The pool has only connections to mounted apps: the others are closed when the table changes.
                connection = await self._reuse(req, traces)
                if connection is None:
                    mounted = self._services.table.find(address_of(req))
                    if mounted is None:
                        connection = await self._connect_elsewhere(elsewhere, req, traces, timeout, exchange)
                        break
                    connection = await self._connect(mounted, req, traces, timeout, elsewhere.intercepted, exchange)
                    if connection is None:
                        continue  # the table may have changed during the wait
                injector = None if self._instruments is None else self._instruments.injector
                if injector is not None and await injector.wait_late(connection, exchange, req, timeout):
                    continue  # the network was parted during the wait
                if self._closing.task is not None:
                    self._check_still_open(connection)
                if _hand_out(cast(ClientProtocol, connection.protocol), req, task, exchange):
                    break
                connection.close()  # while a trace ran, the connection was lost or its app was replaced
        except BaseException as exc:
            self._close_forgotten([connection.client for connection in self._services.in_flight.connections])
            if exchange is not None:
                exchange.not_connected(exc)
            raise
        if exchange is not None:
            exchange.connected(connection)
        return connection

    async def _connect(
        self,
        mounted: MountedApp,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,
        intercepted: bool,
        exchange: "LiveExchange | None",
    ) -> Connection | None:
        """Start the app, or connect to it if it has started. Returns `None` if the request must be dispatched again."""
        if exchange is not None:
            exchange.service = mounted.pattern
        if not mounted.lifespan.ready and (exchange is None or exchange.app is None):
            if mounted.lifespan.outage is not None:
                mounted.lifespan.outage.refuse(exchange)
                raise connection_refused(req)
            await self._start(mounted.lifespan, timeout)
            return None
        proxy = take_proxy(req) if req.proxy is not None else None
        try:
            if intercepted:  # a library that has patched connect() has seen the request before
                return await connect_as_always(self, req, traces, timeout)
            return await super().connect(req, traces, timeout)
        except _UnmountedMeanwhile:
            if proxy is not None:
                req.update_proxy(*proxy)
            return None

    async def _start(self, lifespan: Lifespan, timeout: ClientTimeout) -> None:
        """Start an app, within the connect timeout of the request."""
        if lifespan.over:
            raise ClientConnectionError(f"The app at {lifespan.name!r} has been shut down")
        async with asyncio.timeout(connect_timeout(timeout)):
            await lifespan.wait_started()
        self._check_open()

    @override
    def _open_connection(self, req: ClientRequest) -> ClientProtocol:
        address = address_of(req)
        services = self._services
        mounted = services.table.find(address)
        if mounted is None:
            raise _UnmountedMeanwhile
        client = ClientProtocol(services.loop)
        client.on_app_exception = self._retries.remember
        client.server = server = open_server_end(client, mounted, address, services.in_flight)
        peername, sockname = (address.host, address.port), mounted.client
        connect_pair(
            services.loop,
            client,
            server,
            client_extra={"peername": peername, "sockname": sockname},
            server_extra={"peername": sockname, "sockname": peername},
        )
        return client

    async def _connect_elsewhere(
        self,
        elsewhere: Elsewhere,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,
        exchange: "LiveExchange | None",
    ) -> Connection:
        if exchange is not None:
            exchange.goes_elsewhere("refused" if elsewhere.connect is None else "fallback")
            traces = [*traces, trace_reuse(exchange.connection_taken)]
        if elsewhere.connect is None:
            raise self._refusal(req, elsewhere)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s %s goes to %s", req.method, _shown(req.url), elsewhere.name)
        return await elsewhere.connect(req, traces, timeout)

    def _refusal(self, req: ClientRequest, elsewhere: Elsewhere) -> UnmountedHostError:
        """The error for a host that is not mounted. It is logged and noted too, because its caller may catch it."""
        problem = f"No app is mounted for {req.url.origin()}, {elsewhere.reason}"
        text = printable(f"{problem} {self._services.table.describe(req.host)}")
        url = _shown(req.url.with_query(None))
        logger.warning("%s %s is refused: %s", req.method, url, text)
        caller = current_caller.get()
        if caller is not None and self._refusals:
            self._refusals[-1].note(caller.name, req.method, url, text)
        return UnmountedHostError.at(req.connection_key, text)

    def _is_usable(self) -> bool:
        """Whether a request may be made through this connector now."""
        return not self._has_closed() and self._closing.task is None

    @override
    def _refuse_request(self) -> None:
        if self._has_closed():
            raise RuntimeError(
                f"Session is closed: its connector, {self!r}, has been closed, by another session maybe. The end of a "
                "session closes its connector: to share one, make each ClientSession with connector_owner=False, and "
                "close the connector yourself"
            )
        check_loop(self)

    def _check_open(self) -> None:
        if self.closed or (self._closing.task is not None and not self._is_called_by_a_shutdown()):
            raise ClientConnectionError(f"Connector is closed: {self!r}")

    def _check_still_open(self, connection: Connection) -> None:
        if not self._is_called_by_a_shutdown():
            connection.close()
            self._check_open()

    def _is_called_by_a_shutdown(self) -> bool:
        # Or by a startup: an app that shuts down may be the first to call another app, which then starts.
        return any(isinstance(owner, Lifespan) and owner.changing and self._owns(owner) for owner in owners())

    def _is_called_by_an_app(self) -> bool:
        return any(self._owns(owner) for owner in owners())

    def _owns(self, owner: object) -> bool:
        """Whether closing this connector waits for *owner*, a request or a lifespan."""
        if self._services.owns(owner):
            return True
        fallback = self._fallback if self._fallback_owner else None
        return isinstance(fallback, DispatchingConnector) and fallback._owns(owner)


class _UnmountedMeanwhile(Exception):
    """No app is mounted any more for the address of a request: it must be dispatched again."""


def _hand_out(
    protocol: ClientProtocol,
    req: ClientRequest,
    task: asyncio.Task[Any] | None,
    exchange: "LiveExchange | None",
) -> bool:
    """Tell the server end of a connection which request comes. Returns `False` if it accepts no more requests."""
    if protocol.transport is None:
        return False
    server = protocol.server
    if exchange is not None:
        exchange.handed_to(server)
    caller = current_caller.get()
    if not server.hand_out(ClientCall(req, task, caller, server.mounted.context_for(caller), exchange)):
        return False
    if exchange is not None:  # every block of a fault records
        remove_media(server.transport)  # the faults of an earlier request
    if logger.isEnabledFor(logging.DEBUG):
        where = "%s %s is answered in this process, by the app at %r"
        logger.debug(where, req.method, _shown(req.url), server.mounted.pattern)
    return True


def _shown(url: URL) -> str:
    """Return a URL for a log record, without secrets and safe to print."""
    from asgi_connector._exchange.redaction import redact_url

    return printable(redact_url(str(url)))
