"""The server end that runs an aiohttp.web application: aiohttp's server protocol does the work.

Each request is answered in a task of its own, in the context of its caller, as a request to an ASGI app is.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from typing import cast

from aiohttp import StreamReader, web

from asgi_connector._aiohttp.close_frames import SERVICE_RESTART
from asgi_connector._aiohttp.web_protocol import Answer, WebProtocol, is_whole
from asgi_connector._exceptions import LifespanError
from asgi_connector._services.address import Address
from asgi_connector._services.in_flight import InFlight
from asgi_connector._services.mounted import MountedApp
from asgi_connector._services.server_end import ClientCall, ClientEnd, RequestProgress, ServerEnd, progress_of
from asgi_connector._tasks import discard_silently

from .exchange import WebExchange
from .instead import SubstituteExchange
from .outgoing import Outgoing
from .service import WebService
from .watch import ExchangeWatch


class WebServerEnd(ServerEnd):
    """Serves one aiohttp.web application on one connection."""

    __slots__ = (
        "_arriving",
        "_begun",
        "_current",
        "_exchange",
        "_failed",
        "_protocol",
        "_unread",
        "in_flight",
        "outgoing",
    )

    outgoing: Outgoing

    def __init__(
        self, client: ClientEnd, mounted: MountedApp, address: Address, in_flight: InFlight, server: web.Server
    ) -> None:
        super().__init__(client, mounted, address, in_flight.connections)
        self.in_flight = in_flight
        self._protocol = WebProtocol(server, self)
        self._begun = False  # bytes of the request have arrived for which the connection was handed out
        self._arriving: ExchangeWatch | None = None  # of the request that arrives
        self._exchange: WebExchange | None = None  # the current one
        self._failed: WebExchange | None = None  # whose exception is on its way to the client
        self._current: ClientCall | None = None  # as long as its response is not delivered
        self._unread: StreamReader | None = None  # the body of the last request

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    # The contract of a server end.

    @property
    def busy(self) -> bool:
        if self._answering or self._protocol.has_unanswered or self.outgoing.upgraded:
            return True
        unread = self._unread is not None and not self._unread.is_eof()
        return unread or self.transport.get_write_buffer_size() > 0

    @property
    def _answering(self) -> bool:
        """Whether the handler of a request runs."""
        return self._exchange is not None and not self._exchange.ended

    @property
    def receiving(self) -> bool:
        return self.outgoing.upgraded and self._answering and not self.outgoing.closed

    def progress(self) -> RequestProgress | None:
        call = self._expected if self._expected is not None else self._current if self.busy else None
        if call is None:
            return None
        if call is self._expected:
            return progress_of(call, self._begun, self._protocol.has_unanswered, False, False)
        outgoing = self.outgoing
        return progress_of(call, True, True, outgoing.started, outgoing.started and not outgoing.head_waits)

    def end_websocket(self) -> None:
        if self.receiving:
            self.outgoing.write(SERVICE_RESTART)

    def client_left(self) -> None:
        if self._exchange is not None and self._answering:
            self._exchange.disconnect()
        self.transport.resume_reading()  # or a handler that does not read would never learn of it

    def failure_undelivered(self, exc: BaseException, *, client_gone: bool) -> None:
        assert self._failed is not None
        self._failed.report(exc, client_gone=client_gone)

    # asyncio's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.outgoing = Outgoing(self.transport, {"sslcontext": _ssl_context()} if self.address.secure else {})
        self._protocol.connection_made(self.outgoing)
        task = self._protocol.task
        assert task is not None
        discard_silently(task)
        self.in_flight.serve_by(task, self.mounted)

    def data_received(self, data: bytes) -> None:
        call = self._expected
        if call is not None and not self._begun:
            self._begun = True
            self._arriving = None if call.observer is None else ExchangeWatch(call.observer, self.in_flight.loop)
        if self._arriving is not None:
            self._arriving.arrived(data)
        self._protocol.data_received(data)

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        task = self._protocol.task
        if self._exchange is not None and self._answering and not self.outgoing.closed:
            self._exchange.disconnect()
        self._protocol.connection_lost(exc)
        if task is not None and not self._answering:
            task.cancel()  # it may wait for the rest of a body that the handler has not read
        self._arriving = self._current = None
        self.outgoing.begin(None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    # What aiohttp's protocol asks for.

    async def answer(self, request: web.BaseRequest, handle: Callable[[], Awaitable[Answer]]) -> Answer:
        """Run the application, or what answers in its place, in the context of the caller."""
        call = self._begin()
        if call is None:
            # aiohttp's client sends one request each time that it has been handed the connection. This is the rest of a
            # request whose framing was false.
            raise ConnectionAbortedError("There must be nothing after the end of a request")
        self._unread = request.content
        observer = call.observer
        exchange: WebExchange
        if observer is not None and observer.app is not None:
            app, exchange = observer.app, SubstituteExchange(self, request, call, handle)
        else:
            exchange = WebExchange(self, request, call, handle)
            app = exchange.handle
            if observer is not None:
                observer.app_called()
        self._exchange = exchange
        try:
            self.in_flight.start(exchange, app, call.context, call.caller)
            if (task := exchange.task) is not None:
                await task
            return exchange.result()
        finally:
            self._exchange = None

    def refused(self) -> None:
        self._begin()
        self._unread = None

    def _begin(self) -> ClientCall | None:
        """Take the request that was expected."""
        call, self._expected, self._begun = self._expected, None, False
        self._current = call
        self.outgoing.begin(self._arriving)
        return call

    def app_failed(self, exc: BaseException) -> bool:
        exchange = self._exchange
        if exchange is None or exchange.ended:
            return False  # a request that was refused
        if self.mounted.raise_app_exceptions:
            return True
        exchange.tell_observer(exc)
        return False

    # What the exchange asks for.

    def raise_from_client(self, exchange: WebExchange, exc: BaseException) -> bool:
        outgoing = self.outgoing
        before_head = outgoing.head_waits or not outgoing.started
        if not before_head and not self.transport.get_write_buffer_size() and is_whole(exchange.request):
            return False
        if not self.client.connected:
            exchange.report(exc, client_gone=True)
        elif before_head:
            self.client.raise_from_request(exc, exchange.origin)
        else:
            self._failed = exchange
            self.client.raise_from_body(exc)
        if before_head:
            outgoing.abort()  # nothing of a head that is still here may arrive
        else:
            outgoing.close()
        return True

    def raise_from_frames(self, exc: BaseException) -> None:
        self.client.raise_from_frames(exc)
        self.outgoing.stays_open = True
        self.transport.write_eof()
        self.mounted.end_use(self)


def open_web_server_end(client: ClientEnd, mounted: MountedApp, address: Address, in_flight: InFlight) -> ServerEnd:
    """Return the server end of a new connection to an application that has started."""
    service = cast(WebService, mounted.lifespan.source.lifespan_app)
    try:
        server = service.server
    except RuntimeError as exc:
        raise LifespanError(f"The app at {mounted.pattern!r} cannot be served: {exc}") from exc
    return WebServerEnd(client, mounted, address, in_flight, server)


@cache
def _ssl_context() -> ssl.SSLContext:
    """What ``request.scheme`` and ``request.secure`` are told by."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
