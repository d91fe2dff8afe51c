"""What every exchange with an app has in common, over HTTP or a WebSocket: its task, its end, who learns of a failure.

A cycle stands between an app (`receive()`, `send()`, and how its task ends) and the connection (`Wire`). Every rule
about *messages* is a cycle's, every rule about *bytes* is the wire's.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Protocol

from asgi_connector._callers import Caller
from asgi_connector._exceptions import ASGIConnectorError, ASGIProtocolError
from asgi_connector._http1.request import RequestLine
from asgi_connector._log import logger
from asgi_connector._numbers import is_int
from asgi_connector._observer import Observer
from asgi_connector._services.table import MountedApp
from asgi_connector._tasks import ends_with_loop, is_discarded
from asgi_connector._types import ASGIApp, Bytes, Message, Scope, is_bytes

from .frames import Frames
from .scope import Address


class Wire(Protocol):
    """What a cycle needs of its connection."""

    write_paused: bool

    def send_continue(self) -> None:
        """Answer an ``Expect: 100-continue``."""

    def resume_request(self) -> None:
        """Read on: the app has taken what was buffered of the request's body."""

    def start_response(self, status: int, headers: Iterable[Iterable[bytes]], hold: bool) -> None:
        """Write the head; with *hold*, keep it and what follows back until `release_response()`."""

    def write_body(self, body: Bytes, more_body: bool) -> None:
        """Write a piece of the body, or the last one."""

    def release_response(self) -> None:
        """Let a held response go."""

    def complete_response(self) -> None:
        """The exchange is over; go on with the next one, or close."""

    def upgrade(self, subprotocol: str | None, headers: Iterable[Iterable[bytes]]) -> Frames:
        """Write the head that accepts a WebSocket; what follows it, in both directions, is frames."""
        ...

    def forget_cycle(self) -> None:
        """The app has closed its WebSocket: that the client does the same is no news to it."""

    def raise_from_client(self, exc: BaseException) -> bool:
        """Cut the response off, and raise *exc* from the client's call; `False` if there is none to raise it from."""
        ...

    def raise_from_frames(self, exc: BaseException) -> None:
        """Let the client's `receive()` answer *exc*, after what was sent before it."""

    def answer_500(self) -> None:
        """Do as a real server does when an app failed: a plain 500 if nothing was written yet, else cut it off."""

    def cycle_ended(self, cycle: "Cycle") -> None:
        """The app's task has come to its end."""

    async def drain(self) -> None:
        """Return when `write_paused` is over, or the connection is."""


class Cycle(ABC):
    """One request of a client, from its head to the end of the app's task."""

    __slots__ = (
        "_address",
        "_line",
        "_loop",
        "_news",
        "_wire",
        "caller",
        "disconnected_at",
        "ended",
        "mounted",
        "observer",
        "origin",
        "scope",
        "task",
    )

    def __init__(
        self,
        wire: Wire,
        scope: Scope,
        line: RequestLine,
        address: Address,
        loop: asyncio.AbstractEventLoop,
        mounted: MountedApp,
        origin: object,
        observer: Observer | None,
    ) -> None:
        self.scope = scope
        self.mounted = mounted
        self.task: asyncio.Task[None] | None = None
        self.origin = origin  # what the client knows this request by
        self.observer = observer
        self.caller: Caller | None = None  # what it is to those whom its app calls
        self.ended = False
        self.disconnected_at: float | None = None
        self._wire = wire
        self._line = line
        self._address = address
        self._loop = loop
        self._news: asyncio.Event | None = None  # made when receive() first has to wait

    @property
    def url(self) -> str:
        """The URL of the request, for people to read; the scope is the app's to change."""
        return f"{self._address}{self._line.target.decode('ascii')}"

    @property
    def method(self) -> str:
        return self._line.method

    def disconnect(self) -> None:
        """The client has gone."""
        if self.disconnected_at is None:
            self.disconnected_at = self._loop.time()
            self._wake()

    # What the app calls.

    @abstractmethod
    async def receive(self) -> Message: ...

    @abstractmethod
    async def send(self, message: Message) -> None: ...

    async def _wait_for_news(self) -> None:
        if self._news is None:
            self._news = asyncio.Event()
        self._news.clear()
        await self._news.wait()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()

    # The app's task.

    async def run(self, app: ASGIApp) -> None:
        """Call the app, and see to it that the client learns how it ended."""
        try:
            result = await app(self.scope, self.receive, self.send)
        except (KeyboardInterrupt, SystemExit) as exc:
            if self.disconnected_at is None:
                self._cut_off(exc)
            raise
        except BaseException as exc:
            if is_discarded(exc, self.task, self._loop):
                self.task = None  # the connector is garbage too: there is nothing to tell it
                return
            self._fail(exc)
        else:
            self._check_return(result)
        finally:
            self._end()
            if self.task is not None:
                self._wire.cycle_ended(self)

    def task_done(self) -> None:
        """A task that was cancelled before its first step has ended without `run()`."""
        if not self.ended:
            self._fail(asyncio.CancelledError())
            self._end()
            self._wire.cycle_ended(self)

    def _end(self) -> None:
        self.ended = True
        self.origin = None  # the app may have left something behind that refers to the cycle, by `receive` or `send`
        assert self.caller is not None
        self.caller.end()

    def _check_return(self, result: object) -> None:
        if self.disconnected_at is not None:
            return
        if result is not None:
            problem: str | None = f"ASGI callable should return None, but returned '{result}'."
        else:
            problem = self._finish()
        if problem is not None:
            self._fail(ASGIProtocolError(f"{problem} ({self.method} {self.url})"))

    def _fail(self, exc: BaseException) -> None:
        if self.disconnected_at is not None:
            self.report(exc, client_gone=True)
        elif ends_with_loop(exc, self._loop):
            self._cut_off(exc)
        elif self.mounted.raise_app_exceptions:
            self._raise(exc)
        else:
            self._log(exc, "in an app")
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
    if not is_int(status):
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
