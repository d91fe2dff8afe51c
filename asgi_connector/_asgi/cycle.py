"""The common part of HTTP and WebSocket exchanges: the end of the app, and the report of its failure.

A cycle connects an app with a connection. It provides `receive()` and `send()`, and it handles the end of the app.
Cycles implement all rules about *messages*. The connection, its reader and its writer implement all rules about
*bytes*.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Iterable
from typing import Protocol

from asgi_connector._exceptions import ASGIProtocolError
from asgi_connector._http1.request import RequestLine
from asgi_connector._log import logger
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._numbers import is_int
from asgi_connector._services.address import Address
from asgi_connector._services.in_flight import AppRequest, InFlight
from asgi_connector._services.mounted import MountedApp
from asgi_connector._services.server_end import ClientCall
from asgi_connector._tasks import ends_with_loop
from asgi_connector._types import Bytes, Message, Scope, is_bytes

from .flow import WriteFlow
from .frames import Frames
from .writer import ResponseWriter


class Connection(Protocol):
    """The methods of a connection that a cycle uses, apart from those of its writer."""

    in_flight: InFlight
    transport: MemoryTransport
    writer: ResponseWriter
    flow: WriteFlow
    mounted: MountedApp
    address: Address

    def resume_request(self) -> None:
        """Read on, because the app has received the buffered part of the request's body."""

    def complete_response(self) -> None:
        """End the exchange, and begin the next one or close."""

    def upgrade(self, subprotocol: str | None, headers: Iterable[Iterable[bytes]]) -> Frames:
        """Write the head that accepts a WebSocket. After it, both directions carry frames."""
        ...

    def forget_cycle(self) -> None:
        """Forget the cycle, whose app has closed its WebSocket and need not be told that the client closes it too."""

    def websocket_app_ended(self) -> None:
        """Release the app of a WebSocket, which has returned."""

    def raise_from_client(self, exc: BaseException) -> bool:
        """Cut the response off, and raise *exc* from the client's call. Returns `False` if there is no such call."""
        ...

    def raise_from_frames(self, exc: BaseException) -> None:
        """Make the client's `receive()` return *exc*, after the messages that were sent before."""

    def answer_500(self) -> None:
        """Answer as a real server whose app failed: with a plain 500, or by cutting off a response that has started."""


class Cycle(AppRequest):
    """One request of a client, from its head to the end of its app."""

    __slots__ = ("_connection", "_flow", "_line", "_loop", "_changed", "_writer", "call")

    def __init__(self, connection: Connection, line: RequestLine, scope: Scope, call: ClientCall) -> None:
        super().__init__(scope, connection.mounted, call.observer)
        self.call: ClientCall | None = call
        self._connection = connection
        self._writer = connection.writer
        self._flow = connection.flow
        self._line = line
        self._loop = connection.in_flight.loop
        self._changed: asyncio.Event | None = None  # made when receive() first has to wait

    @property
    def url(self) -> str:
        """The URL of the request, for log records. It is not read from the scope, because the app may change that."""
        return f"{self._connection.address}{self._line.target.decode('ascii')}"

    @property
    def method(self) -> str:
        return self._line.method

    def disconnect(self) -> None:
        """Note that the client has disconnected, and wake the app."""
        if self.disconnected_at is None:
            self.disconnected_at = self._loop.time()
            self._wake()

    async def _wait_for_change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.Event()
        self._changed.clear()
        await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()

    # How the app ends.

    def end(self) -> None:
        super().end()
        self.call = None  # `receive` and `send`, which the app may have kept, refer to the cycle
        # Not in its first step, whose end delivers, and not when the garbage collector closes its coroutine.
        if asyncio.current_task(self._loop) is self.task:
            self._connection.transport.deliver_now()  # saves an iteration of the event loop

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
        """End the exchange after the app has returned, or return a text that says what the app left undone."""
        ...

    @abstractmethod
    def _cut_off(self, exc: BaseException) -> None:
        """End the exchange of a failed app as a real server does, if the exchange is not over."""

    @abstractmethod
    def _raise(self, exc: BaseException) -> None:
        """Raise *exc*, with which the app has failed, from the client's call, or report it."""

    def _tell_observer(self, exc: BaseException) -> None:
        if self.observer is not None:
            self.observer.app_failed(exc)

    def report(self, exc: BaseException, *, client_gone: bool) -> None:
        """Log *exc*, which no call can raise. If the client is still there, call the loop's exception handler too."""
        if not client_gone:
            self._log(exc, "after its response was complete")
            self._call_exception_handler(exc)
        elif not isinstance(exc, asyncio.CancelledError):
            self._log(exc, "after its client had gone")

    def _call_exception_handler(self, exc: BaseException) -> None:
        self._loop.call_exception_handler(
            {"message": f"Unhandled exception in an ASGI app: {self!r}", "exception": exc}
        )

    def _log(self, exc: BaseException, when: str) -> None:
        logger.error("Unhandled exception %s: %s %s", when, self.method, self.url, exc_info=exc)


def checked_status(message: Message) -> int:
    """Return the status of a response. It must be final, or the client would wait for another one (RFC 9110, 15.2)."""
    status = message.get("status")
    if type(status) is not int and not is_int(status):  # the first test is faster, and nearly always enough
        raise ASGIProtocolError(f"Expected the 'status' of '{message['type']}' to be an int, but got {status!r}.")
    if not 200 <= status <= 999:
        raise ASGIProtocolError(
            f"Expected the 'status' of '{message['type']}' to be a final one, from 200 to 999, but got {status}."
        )
    return status


def checked_body(message: Message) -> Bytes:
    """Return the piece of the response's body in *message*."""
    body = message.get("body", b"")
    if not is_bytes(body):
        raise ASGIProtocolError(f"Expected the 'body' of '{message['type']}' to be bytes, but got {body!r}.")
    return body
