"""ASGI "http": one request and its response, as the app sees them. Knows no bytes of framing.

The cycle stands between an app (`receive()`, `send()`, and how its task ends) and the connection (`Wire`). Every rule
about *messages* is here, every rule about *bytes* is the wire's.
"""

import asyncio
import enum
import logging
from collections.abc import Iterable
from typing import Final, Protocol

from ._callers import Caller
from ._exceptions import ASGIConnectorError, ASGIProtocolError
from ._mounts import MountedApp
from ._parser import RequestLine
from ._scope import Address
from ._types import ASGIApp, Message, Scope

logger = logging.getLogger("asgi_connector")

BODY_HIGH_WATER: Final = 64 * 1024
# How long a 5xx waits for its app to raise, in turns of the event loop. Frameworks that answer 500 re-raise at once,
# but each middleware on the way may cost some turns: 16 of Starlette's BaseHTTPMiddleware take 102.
HOLD_TURNS: Final = 256
# How many sends to a client that has gone may follow each other before the event loop gets a turn.
SENDS_TO_NOBODY: Final = 64


class Wire(Protocol):
    """What a cycle needs of its connection."""

    write_paused: bool

    def send_continue(self) -> None:
        """Answer an ``Expect: 100-continue``."""

    def resume_request(self) -> None:
        """Read on: the app has taken what was buffered of the request's body."""

    def start_response(self, status: int, headers: Iterable[Iterable[bytes]], hold: bool) -> None:
        """Write the head; with *hold*, keep it and what follows back until `release_response()`."""

    def write_body(self, body: bytes | bytearray | memoryview, more_body: bool) -> None:
        """Write a piece of the body, or the last one."""

    def release_response(self) -> None:
        """Let a held response go."""

    def complete_response(self) -> None:
        """The exchange is over; go on with the next one, or close."""

    def raise_from_client(self, exc: BaseException) -> bool:
        """Cut the response off, and raise *exc* from the client's call; `False` if there is none to raise it from."""

    def answer_500(self) -> None:
        """Do as a real server does when an app failed: a plain 500 if nothing was written yet, else cut it off."""

    def cycle_ended(self, cycle: "RequestResponseCycle") -> None:
        """The app's task has come to its end."""

    async def drain(self) -> None:
        """Return when `write_paused` is over, or the connection is."""


class _Response(enum.Enum):
    EXPECTED = "http.response.start"  # the message that is expected
    STARTED = "http.response.body"
    HELD = "complete, and held back until the app's task ends"
    COMPLETE = "complete"


_EXPECTED, _STARTED, _HELD, _COMPLETE = _Response.EXPECTED, _Response.STARTED, _Response.HELD, _Response.COMPLETE


class RequestResponseCycle:
    """One request and its response."""

    __slots__ = (
        "_chunks",
        "_buffered",
        "_expect_continue",
        "_address",
        "_hold_turns",
        "_line",
        "_loop",
        "_news",
        "_request_ended",
        "_request_reported",
        "_response",
        "_sent_to_nobody",
        "_wire",
        "disconnected_at",
        "ended",
        "mounted",
        "origin",
        "parent",
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
        expect_continue: bool,
    ) -> None:
        self.scope = scope
        self._line = line
        self._address = address
        self.mounted = mounted
        self.task: asyncio.Task[None] | None = None
        self.origin = origin  # what the client knows this request by
        self.parent: Caller | None = None  # inside of which this request was made
        self.ended = False
        self.disconnected_at: float | None = None
        self._wire = wire
        self._loop = loop
        self._expect_continue = expect_continue
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._request_ended = False
        self._request_reported = False  # the app has been given the end of the request
        self._response = _EXPECTED
        self._sent_to_nobody = 0
        self._hold_turns = 0
        self._news: asyncio.Event | None = None  # made when receive() first has to wait

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.url}, response {self._response.name.lower()}>"

    @property
    def url(self) -> str:
        """The URL of the request, for people to read; the scope is the app's to change."""
        return f"{self._address}{self._line.target.decode('ascii')}"

    @property
    def method(self) -> str:
        return self._line.method

    @property
    def request_ended(self) -> bool:
        """Whether the whole request has arrived."""
        return self._request_ended

    @property
    def response_complete(self) -> bool:
        return self._response is _HELD or self._response is _COMPLETE

    # What the connection reports.

    def feed_body(self, data: bytes) -> bool:
        """A piece of the body has arrived; returns whether the connection may read on."""
        self._chunks.append(data)
        self._buffered += len(data)
        self._wake()
        return self._buffered <= BODY_HIGH_WATER

    def feed_end(self) -> None:
        """The request has arrived to its end."""
        self._request_ended = True
        self._wake()

    def disconnect(self) -> None:
        """The client has gone."""
        if self.disconnected_at is None:
            self.disconnected_at = self._loop.time()
            self._wake()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()

    # What the app calls.

    async def receive(self) -> Message:
        """Wait for the next event (ASGI spec, *Request - receive event*, *Disconnect - receive event*)."""
        if self._expect_continue:
            self._expect_continue = False
            self._wire.send_continue()
        while self.disconnected_at is None and not self.response_complete:
            if self._chunks or (self._request_ended and not self._request_reported):
                return self._take_body()
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()
        return {"type": "http.disconnect"}

    def _take_body(self) -> Message:
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        if self._buffered > BODY_HIGH_WATER:
            self._wire.resume_request()
        self._buffered = 0
        self._request_reported = self._request_ended
        return {"type": "http.request", "body": body, "more_body": not self._request_ended}

    async def send(self, message: Message) -> None:
        """Take the next piece of the response (ASGI spec, *Response Start - send event*, *Response Body*)."""
        response = self._response
        if self._wire.write_paused and (response is _STARTED or response is _EXPECTED):
            await self._wire.drain()
            response = self._response
        if self.disconnected_at is not None:
            await self._send_to_nobody()
            return
        try:
            kind = message["type"]
        except (TypeError, KeyError, IndexError):
            raise ASGIProtocolError(f"Expected an ASGI message, a dict with a 'type', but got {message!r}.") from None
        if response is _STARTED and kind == "http.response.body":
            self._send_body(message)
        elif response is _EXPECTED and kind == "http.response.start":
            self._start_response(message)
        elif response is _STARTED or response is _EXPECTED:
            raise ASGIProtocolError(f"Expected ASGI message '{response.value}', but got '{kind}'.")
        else:
            raise ASGIProtocolError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")

    async def _send_to_nobody(self) -> None:
        """Do nothing, as uvicorn: an app that is not told commits or rolls back as it would in production.

        An endless sender must not starve the event loop. But most calls return at once, for the framework may be about
        to cancel the app, which has to happen where the app itself waits: only then does its clean-up run.
        """
        self._sent_to_nobody += 1
        if self._sent_to_nobody % SENDS_TO_NOBODY == 0:
            await asyncio.sleep(0)

    def _start_response(self, message: Message) -> None:
        status = message.get("status")
        if type(status) is not int and (not isinstance(status, int) or isinstance(status, bool)):
            raise ASGIProtocolError(f"Expected the 'status' of 'http.response.start' to be an int, but got {status!r}.")
        if not 200 <= status <= 999:
            raise ASGIProtocolError(
                f"Expected the 'status' of 'http.response.start' to be a final one, from 200 to 999, but got {status}."
            )
        hold = status >= 500 and self.mounted.raise_app_exceptions
        self._wire.start_response(status, message.get("headers", ()), hold)
        self._expect_continue = False
        self._response = _STARTED
        if hold:
            self._hold_turns = HOLD_TURNS
            self._loop.call_soon(self._hold_on)

    def _send_body(self, message: Message) -> None:
        body = message.get("body", b"")
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise ASGIProtocolError(f"Expected the 'body' of 'http.response.body' to be bytes, but got {body!r}.")
        more_body = message.get("more_body", False)
        self._wire.write_body(body, more_body)
        if more_body:
            return
        if self._hold_turns:
            self._response = _HELD
        else:
            self._response = _COMPLETE
            self._wire.complete_response()
        if self._news is not None:
            self._news.set()

    def _complete_response(self) -> None:
        self._response = _COMPLETE
        self._wire.complete_response()

    # A 5xx is held back, for the app may be about to raise.

    def _hold_on(self) -> None:
        if self._hold_turns > 1:
            self._hold_turns -= 1
            self._loop.call_soon(self._hold_on)
        else:
            self._release_response()

    def _release_response(self) -> None:
        if self._hold_turns:
            self._hold_turns = 0
            self._wire.release_response()
            if self._response is _HELD:
                self._complete_response()

    # The app's task.

    async def run(self, app: ASGIApp) -> None:
        """Call the app, and see to it that the client learns how it ended."""
        try:
            result = await app(self.scope, self.receive, self.send)
        except (KeyboardInterrupt, SystemExit):
            if self._response is not _COMPLETE:
                self._wire.answer_500()
            raise
        except BaseException as exc:
            self._fail(exc)
        else:
            self._check_return(result)
        finally:
            self.ended = True
            if self.task is not None:
                self._wire.cycle_ended(self)

    def task_done(self) -> None:
        """A task that was cancelled before its first step has ended without `run()`."""
        if not self.ended:
            self._fail(asyncio.CancelledError())
            self.ended = True
            self._wire.cycle_ended(self)

    def _check_return(self, result: object) -> None:
        if self.disconnected_at is not None:
            return
        if result is not None:
            problem = f"ASGI callable should return None, but returned '{result}'."
        elif self._response is _EXPECTED:
            problem = "ASGI callable returned without starting response."
        elif self._response is _STARTED:
            problem = "ASGI callable returned without completing response."
        else:
            self._release_response()
            return
        self._fail(ASGIProtocolError(f"{problem} ({self.method} {self.url})"))

    def _fail(self, exc: BaseException) -> None:
        if self.disconnected_at is not None:
            self.report(exc, client_gone=True)
        elif not self.mounted.raise_app_exceptions:
            self._log(exc, "in an app")
            if not self.response_complete:
                self._response = _COMPLETE
                self._wire.answer_500()
        elif self._response is _COMPLETE:
            self.report(exc, client_gone=False)
        elif not self._raise_from_client(exc):
            # By its framing the response was complete, though the app had not said so.
            self._complete_response()
            self.report(exc, client_gone=False)

    def report(self, exc: BaseException, *, client_gone: bool) -> None:
        """There is no call to raise *exc* from: log it, and if there is still a client, let it not pass unseen."""
        if not client_gone:
            self._log(exc, "after its response was complete")
            self._loop.call_exception_handler(
                {"message": f"Unhandled exception in an ASGI app: {self!r}", "exception": exc}
            )
        elif not isinstance(exc, asyncio.CancelledError):
            self._log(exc, "after its client had gone")

    def _raise_from_client(self, exc: BaseException) -> bool:
        self._hold_turns = 0
        if isinstance(exc, asyncio.CancelledError):
            cancelled = ASGIConnectorError(f"The app was cancelled: {self.method} {self.url}")
            cancelled.__cause__ = exc
            exc = cancelled
        return self._wire.raise_from_client(exc)

    def _log(self, exc: BaseException, when: str) -> None:
        logger.error("Unhandled exception %s: %s %s", when, self.method, self.url, exc_info=exc)
