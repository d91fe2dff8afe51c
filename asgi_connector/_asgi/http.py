"""ASGI "http": one request and its response, as messages for the app. It does not handle the framing."""

import asyncio
import enum
from typing import Any, Final

from asgi_connector._exceptions import ASGIProtocolError
from asgi_connector._http1.request import RequestLine
from asgi_connector._services.server_end import ClientCall
from asgi_connector._types import Message, Scope

from .cycle import Connection, Cycle, checked_body, checked_status

BODY_HIGH_WATER: Final = 64 * 1024
# How long a 5xx waits for its app to raise, in iterations of the event loop. Frameworks that answer 500 re-raise
# immediately, but each middleware may take some iterations: 16 of Starlette's BaseHTTPMiddleware take 102.
HOLD_TURNS: Final = 256
# How many messages for a disconnected client are dropped before `send()` yields to the event loop once.
DROPPED_PER_YIELD: Final = 64


class _Response(enum.Enum):
    EXPECTED = "http.response.start"  # the message that is expected
    STARTED = "http.response.body"
    HELD = "complete, and held back until the app's task ends"
    COMPLETE = "complete"


_EXPECTED, _STARTED, _HELD, _COMPLETE = _Response.EXPECTED, _Response.STARTED, _Response.HELD, _Response.COMPLETE


class RequestResponseCycle(Cycle):
    """One request and its response."""

    __slots__ = (
        "_chunks",
        "_buffered",
        "_expect_continue",
        "_hold_turns",
        "request_ended",
        "_request_reported",
        "_response",
        "_dropped_messages",
    )

    def __init__(
        self, connection: Connection, line: RequestLine, scope: Scope, call: ClientCall, expect_continue: bool
    ) -> None:
        super().__init__(connection, line, scope, call)
        self._expect_continue = expect_continue
        self._chunks: list[bytes] = []
        self._buffered = 0
        self.request_ended = False
        """Whether the whole request has arrived."""
        self._request_reported = False  # the app has received the end of the request
        self._response = _EXPECTED
        self._dropped_messages = 0
        self._hold_turns = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.url}, response {self._response.name.lower()}>"

    @property
    def response_complete(self) -> bool:
        return self._response is _HELD or self._response is _COMPLETE

    # What the connection reports.

    def feed_body(self, data: bytes) -> bool:
        """Take a piece of the body. Returns whether the connection may read on."""
        self._chunks.append(data)
        self._buffered += len(data)
        self._wake()
        return self._buffered <= BODY_HIGH_WATER

    def feed_end(self) -> None:
        """Note that the whole request has arrived."""
        self.request_ended = True
        self._wake()

    # What the app calls.

    async def receive(self) -> Message:
        """Wait for the next event (ASGI spec, *Request - receive event*, *Disconnect - receive event*)."""
        if self._expect_continue:
            self._expect_continue = False
            self._writer.send_continue()
        while self.disconnected_at is None and not self.response_complete:
            if self._chunks or (self.request_ended and not self._request_reported):
                return self._take_body()
            await self._wait_for_change()
        return {"type": "http.disconnect"}

    def _take_body(self) -> Message:
        body = b""
        if chunks := self._chunks:
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            if self._buffered > BODY_HIGH_WATER:
                self._connection.resume_request()
            self._buffered = 0
        self._request_reported = self.request_ended
        return {"type": "http.request", "body": body, "more_body": not self.request_ended}

    async def send(self, message: Message) -> None:
        """Take the next piece of the response (ASGI spec, *Response Start - send event*, *Response Body*)."""
        response = self._response
        if self._flow.paused and (response is _STARTED or response is _EXPECTED):
            await self._flow.drain()
            response = self._response
        if self.disconnected_at is not None:
            await self._drop_message()
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

    async def _drop_message(self) -> None:
        """Drop a message for a disconnected client without an error, as uvicorn does.

        So the app commits or rolls back as it would in production. An app that sends without end must not starve the
        event loop, so some calls yield to it. Most calls return immediately, because the framework may be about to
        cancel the app. The cancellation must reach the app where it waits itself: only then does its clean-up run.
        """
        self._dropped_messages += 1
        if self._dropped_messages % DROPPED_PER_YIELD == 0:
            await asyncio.sleep(0)

    def _start_response(self, message: Message) -> None:
        status: Any = message.get("status")
        if type(status) is not int or not 200 <= status <= 999:
            status = checked_status(message)
        hold = status >= 500 and self.mounted.raise_app_exceptions
        self._writer.start(status, message.get("headers", ()), hold=hold)
        self._expect_continue = False
        self._response = _STARTED
        if hold:
            self._hold_turns = HOLD_TURNS
            self._loop.call_soon(self._hold_on)

    def _send_body(self, message: Message) -> None:
        body: Any = message.get("body", b"")
        if type(body) is not bytes:
            body = checked_body(message)
        more_body = message.get("more_body", False)
        self._writer.write_body(body, more_body)
        if more_body:
            return
        if self._hold_turns:
            self._response = _HELD
            self._wake()
        else:
            self._complete_response()

    def _complete_response(self) -> None:
        self._response = _COMPLETE
        self._connection.complete_response()
        self._wake()

    # A 5xx is held back, because the app may be about to raise.

    def _hold_on(self) -> None:
        if self._hold_turns > 1:
            self._hold_turns -= 1
            self._loop.call_soon(self._hold_on)
        else:
            self._release_response()

    def _release_response(self) -> None:
        if self._hold_turns:
            self._hold_turns = 0
            self._writer.release()
            if self._response is _HELD:
                self._complete_response()

    # The end of the app's task.

    def _finish(self) -> str | None:
        if self._response is _EXPECTED:
            return "ASGI callable returned without starting response."
        if self._response is _STARTED:
            return "ASGI callable returned without completing response."
        self._release_response()
        return None

    def _cut_off(self, exc: BaseException) -> None:
        if self._response is not _COMPLETE:
            self._response = _COMPLETE
            self._tell_observer(exc)
            self._connection.answer_500()

    def _raise(self, exc: BaseException) -> None:
        if self._response is _COMPLETE:
            self.report(exc, client_gone=False)
            return
        self._hold_turns = 0
        exc = self.raisable(exc)
        if self._connection.raise_from_client(exc):
            self._tell_observer(exc)
        else:
            # The response was complete by its framing, but the app had not completed it yet.
            self._complete_response()
            self.report(exc, client_gone=False)
