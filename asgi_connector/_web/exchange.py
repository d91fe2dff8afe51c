"""One request to an aiohttp.web application, from the call of its handler to the end of its response."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from asgi_connector._aiohttp.web_protocol import Answer
from asgi_connector._log import logger
from asgi_connector._services.address import Address
from asgi_connector._services.in_flight import AppRequest, InFlight
from asgi_connector._services.mounted import MountedApp
from asgi_connector._services.server_end import ClientCall, Origin
from asgi_connector._tasks import ends_with_loop
from asgi_connector._types import Message, Receive, Scope, Send

from .outgoing import Outgoing


class Connection(Protocol):
    """What an exchange asks of its connection."""

    in_flight: InFlight
    mounted: MountedApp
    address: Address

    @property
    def outgoing(self) -> Outgoing: ...

    def raise_from_client(self, exchange: "WebExchange", exc: BaseException) -> bool:
        """Cut the response off, and raise *exc* from the client's call; `False` if there is no such call."""
        ...

    def raise_from_frames(self, exc: BaseException) -> None:
        """Let the client's `receive()` return *exc*, after what was sent before it."""


class WebExchange(AppRequest):
    """One request, its handler and its response."""

    __slots__ = ("_connection", "_handle", "_outcome", "origin", "request")

    def __init__(
        self,
        connection: Connection,
        request: web.BaseRequest,
        call: ClientCall,
        handle: Callable[[], Awaitable[Answer]],
    ) -> None:
        super().__init__({"type": "http"}, connection.mounted, call.observer)
        self.request = request
        self.origin: Origin = call.origin
        self._connection = connection
        self._handle = handle
        self._outcome: Answer | BaseException | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.url}>"

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def url(self) -> str:
        address = str(self._connection.address)
        scheme = f"ws{address.removeprefix('http')}" if self._is_websocket() else address
        return f"{scheme}{self.request.raw_path}"

    def _is_websocket(self) -> bool:
        return self.request.headers.get("Upgrade", "").lower() == "websocket"

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer."""
        self._outcome = await self._handle()

    async def receive(self) -> Message:
        raise NotImplementedError

    async def send(self, message: Message) -> None:
        raise NotImplementedError

    def disconnect(self) -> None:
        """Note that the client has gone, which aiohttp's protocol tells the application."""
        if self.disconnected_at is None:
            self.disconnected_at = self._connection.in_flight.loop.time()

    def result(self) -> Answer:
        """What aiohttp's protocol goes on with; raises what ends the connection."""
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, BaseException):
            raise outcome
        assert outcome is not None
        return outcome

    # How the application ends.

    def app_returned(self, result: object) -> None:
        pass

    def app_failed(self, exc: BaseException) -> None:
        if isinstance(exc, asyncio.CancelledError) or not self.mounted.raise_app_exceptions:
            self._outcome = exc
        else:
            self._outcome = ConnectionAbortedError("The client has been told of the exception")
        if self.disconnected_at is not None:
            self.report(exc, client_gone=True)
        elif ends_with_loop(exc, self._connection.in_flight.loop) or not self.mounted.raise_app_exceptions:
            self.tell_observer(exc)
        else:
            self._raise(self.raisable(exc))

    def app_interrupted(self, exc: BaseException) -> None:
        self._outcome = exc

    def tell_observer(self, exc: BaseException) -> None:
        if self.observer is not None:
            self.observer.app_failed(exc)

    def _raise(self, exc: BaseException) -> None:
        outgoing = self._connection.outgoing
        if outgoing.closed:
            self.report(exc, client_gone=False)
        elif outgoing.upgraded:
            self._log(exc, "after its WebSocket was accepted")
            self._call_exception_handler(exc)
            self.tell_observer(exc)
            self._connection.raise_from_frames(exc)
        elif self._connection.raise_from_client(self, exc):
            self.tell_observer(exc)
        else:
            self.report(exc, client_gone=False)

    def report(self, exc: BaseException, *, client_gone: bool) -> None:
        """There is no call to raise *exc* from: log it, and tell the event loop if there is still a client."""
        upgraded = self._connection.outgoing.upgraded
        if not client_gone:
            self._log(exc, "after it had closed its WebSocket" if upgraded else "after its response was complete")
            self._call_exception_handler(exc)
        elif upgraded and isinstance(exc, ConnectionError):  # by which aiohttp tells that the client has gone
            logger.debug("An app ended after its client had gone: %s %s", self.method, self.url, exc_info=exc)
        elif not isinstance(exc, asyncio.CancelledError):
            self._log(exc, "after its client had gone")

    def _call_exception_handler(self, exc: BaseException) -> None:
        self._connection.in_flight.loop.call_exception_handler(
            {"message": f"Unhandled exception in an aiohttp.web application: {self!r}", "exception": exc}
        )

    def _log(self, exc: BaseException, when: str) -> None:
        logger.error("Unhandled exception %s: %s %s", when, self.method, self.url, exc_info=exc)
