"""What every exchange with an app has in common, over HTTP or a WebSocket: its end, and who learns of a failure.

A cycle is between an app (`receive()`, `send()`, and how the app ends) and a connection. Every rule about *messages* is
a cycle's. Every rule about *bytes* is the connection's, or that of its reader and its writer.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Iterable
from typing import Protocol

from asgi_connector._exceptions import ASGIConnectorError, ASGIProtocolError
from asgi_connector._http1.request import RequestLine
from asgi_connector._log import logger
from asgi_connector._numbers import is_int
from asgi_connector._services.address import Address
from asgi_connector._services.in_flight import AppRequest, InFlight
from asgi_connector._services.mounted import MountedApp
from asgi_connector._services.server_end import ClientCall, Origin
from asgi_connector._tasks import ends_with_loop
from asgi_connector._types import Bytes, Message, Scope, is_bytes

from .flow import WriteFlow
from .frames import Frames
from .writer import ResponseWriter


class Connection(Protocol):
    """What a cycle asks of its connection, beside what it writes."""

    in_flight: InFlight
    writer: ResponseWriter
    flow: WriteFlow
    mounted: MountedApp
    address: Address

    def resume_request(self) -> None:
        """Read on: the app has taken what was buffered of the request's body."""

    def complete_response(self) -> None:
        """The exchange is over: go on with the next one, or close."""

    def upgrade(self, subprotocol: str | None, headers: Iterable[Iterable[bytes]]) -> Frames:
        """Write the head that accepts a WebSocket. In both directions frames follow it."""
        ...

    def forget_cycle(self) -> None:
        """The app has closed its WebSocket. It need not hear that the client does the same."""

    def websocket_app_ended(self) -> None:
        """The app of a WebSocket has returned."""

    def raise_from_client(self, exc: BaseException) -> bool:
        """Cut the response off, and raise *exc* from the client's call; `False` if there is no such call."""
        ...

    def raise_from_frames(self, exc: BaseException) -> None:
        """Let the client's `receive()` return *exc*, after what was sent before it."""

    def answer_500(self) -> None:
        """Do what a real server does when an app fails: a plain 500 if no response has started, else cut it off."""


class Cycle(AppRequest):
    """One request of a client, from its head to the end of its app."""

    __slots__ = ("_connection", "_flow", "_line", "_loop", "_news", "_writer", "origin")

    def __init__(self, connection: Connection, line: RequestLine, scope: Scope, call: ClientCall) -> None:
        super().__init__(scope, connection.mounted, call.observer)
        self.origin: Origin | None = call.origin
        self._connection = connection
        self._writer = connection.writer
        self._flow = connection.flow
        self._line = line
        self._loop = connection.in_flight.loop
        self._news: asyncio.Event | None = None  # made when receive() first has to wait

    @property
    def url(self) -> str:
        """The URL of the request, for people to read; the scope is the app's to change."""
        return f"{self._connection.address}{self._line.target.decode('ascii')}"

    @property
    def method(self) -> str:
        return self._line.method

    def disconnect(self) -> None:
        """The client has gone."""
        if self.disconnected_at is None:
            self.disconnected_at = self._loop.time()
            self._wake()

    async def _wait_for_news(self) -> None:
        if self._news is None:
            self._news = asyncio.Event()
        self._news.clear()
        await self._news.wait()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()

    # How the app ends.

    def end(self) -> None:
        super().end()
        self.origin = None  # the app may have left something that refers to the cycle, by `receive` or `send`

    def app_returned(self, result: object) -> None:
        if self.disconnected_at is not None:
            return
        if result is not None:
            problem: str | None = f"ASGI callable should return None, but returned '{result}'."
        else:
            problem = self._finish()
        if problem is not None:
            self.app_failed(ASGIProtocolError(f"{problem} ({self.method} {self.url})"))

    def app_failed(self, exc: BaseException) -> None:
        if self.disconnected_at is not None:
            self.report(exc, client_gone=True)
        elif ends_with_loop(exc, self._loop):
            self._cut_off(exc)
        elif self.mounted.raise_app_exceptions:
            self._raise(exc)
        else:
            self._log(exc, "in an app")
            self._cut_off(exc)

    def app_interrupted(self, exc: BaseException) -> None:
        if self.disconnected_at is None:
            self._cut_off(exc)

    @abstractmethod
    def _finish(self) -> str | None:
        """The app has returned: end the exchange, or say what the app has left undone."""
        ...

    @abstractmethod
    def _cut_off(self, exc: BaseException) -> None:
        """The app has failed: end the exchange, if it is not over, as a real server would."""

    @abstractmethod
    def _raise(self, exc: BaseException) -> None:
        """The app has failed: raise *exc* from the client's call, or report it."""

    def _tell_observer(self, exc: BaseException) -> None:
        if self.observer is not None:
            self.observer.app_failed(exc)

    def report(self, exc: BaseException, *, client_gone: bool) -> None:
        """There is no call to raise *exc* from: log it, and if there is still a client, let it not pass unseen."""
        if not client_gone:
            self._log(exc, "after its response was complete")
            self._call_exception_handler(exc)
        elif not isinstance(exc, asyncio.CancelledError):
            self._log(exc, "after its client had gone")

    def _raisable(self, exc: BaseException) -> BaseException:
        """*exc*, unless the client would take it for its own cancellation."""
        if not isinstance(exc, asyncio.CancelledError):
            return exc
        cancelled = ASGIConnectorError(f"The app was cancelled: {self.method} {self.url}")
        cancelled.__cause__ = exc
        return cancelled

    def _call_exception_handler(self, exc: BaseException) -> None:
        self._loop.call_exception_handler(
            {"message": f"Unhandled exception in an ASGI app: {self!r}", "exception": exc}
        )

    def _log(self, exc: BaseException, when: str) -> None:
        logger.error("Unhandled exception %s: %s %s", when, self.method, self.url, exc_info=exc)


def checked_status(message: Message) -> int:
    """The status of a response: a final one, for after another its client would wait on (RFC 9110, 15.2)."""
    status = message.get("status")
    if type(status) is not int and not is_int(status):  # the first test is faster, and nearly always enough
        raise ASGIProtocolError(f"Expected the 'status' of '{message['type']}' to be an int, but got {status!r}.")
    if not 200 <= status <= 999:
        raise ASGIProtocolError(
            f"Expected the 'status' of '{message['type']}' to be a final one, from 200 to 999, but got {status}."
        )
    return status


def checked_body(message: Message) -> Bytes:
    """A piece of a response's body."""
    body = message.get("body", b"")
    if not is_bytes(body):
        raise ASGIProtocolError(f"Expected the 'body' of '{message['type']}' to be bytes, but got {body!r}.")
    return body
