"""One request on one connection, as the journal tells it, and how it is followed from both ends of the connection.

The client's end says what arrived, and when it was over: the same for an app and for the fallback. The server's end, as
an `Observer`, adds what only it can know: bodies, messages, what the app raised.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NoReturn
from urllib.parse import unquote

from aiohttp import ClientRequest, ClientResponse, HttpVersion, ServerTimeoutError
from aiohttp.connector import Connection
from multidict import CIMultiDict, CIMultiDictProxy
from typing_extensions import override
from yarl import URL

from ._aiohttp import ClientProtocol, ServerEnd, is_closed_by_client, response_of
from ._callers import Caller
from ._display import printable, text_of
from ._redaction import redact_text, redact_url
from ._types import ASGIApp, Bytes

if TYPE_CHECKING:
    from ._faults import Fault

Via = Literal["app", "fallback", "refused", "fault"]
State = Literal["running", "done", "failed", "abandoned"]

MESSAGES_KEPT: Final = 10_000  # of one WebSocket
_SHOWN_OF_ERROR: Final = 160  # characters
_SWITCHING_PROTOCOLS: Final = 101
_ABNORMAL_CLOSURE: Final = 1006  # RFC 6455, 7.1.5
NO_HEADERS: Final = CIMultiDictProxy(CIMultiDict[str]())


class Clock:
    """The event loop's time, and the order of all that happens. The wall clock is read once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time: Callable[[], float] = loop.time
        self._wall = datetime.now(UTC)
        self._origin = loop.time()
        self.next_order: Callable[[], int] = itertools.count().__next__  # the place of what happens now among all
        self.next_number: Callable[[], int] = itertools.count().__next__  # of an exchange
        self.context = Context()  # for callbacks

    def date_of(self, time: float) -> datetime:
        """The date of a *time* of the event loop."""
        return self._wall + timedelta(seconds=time - self._origin)


class Content:
    """What went one way in an exchange: headers, size, and with ``bodies=True`` the body.

    Attributes:
        headers: those that the client sent, or got (a `multidict.CIMultiDictProxy`).
        http_version: the version of HTTP that the client sent, or got: ``"HTTP/1.1"`` or ``"HTTP/1.0"``.
        size: how many bytes of a body arrived at the app, or were sent by it: without the framing of HTTP/1.1, in the
            content encoding that they had. Of the fallback's bodies nothing is known.
    """

    __slots__ = ("_chunks", "_kept", "_room", "headers", "http_version", "size")

    def __init__(self, headers: CIMultiDictProxy[str], room: int | None, version: HttpVersion | None = None) -> None:
        self.headers = headers
        self.http_version = name_of(version)
        self.size = 0
        self._chunks: list[bytes] | None = None
        self._kept = 0
        self._room = room  # None if no body is to be kept

    def __repr__(self) -> str:
        cut = f", {self.cut} of them cut" if self.cut else ""
        return f"<{type(self).__name__} {len(self.headers)} headers, {self.size} bytes{cut}>"

    @property
    def body(self) -> bytes | None:
        """The body, up to ``max_body_size``; `None` if bodies are not recorded."""
        return None if self._room is None else b"".join(self._chunks or ())

    @property
    def cut(self) -> int:
        """How many bytes at its end `body` lacks, because it was too large to be kept whole."""
        return 0 if self._room is None else self.size - self._kept

    def keep_no_body(self) -> None:
        """Nothing will be known of it."""
        self._room = None

    def add(self, data: Bytes) -> None:
        """A piece of the body has passed."""
        size = len(data)
        self.size += size
        if self._room is None or not size:
            return
        room = self._room - self._kept
        if size > room:
            data, size = data[:room], room
        if size:
            if self._chunks is None:
                self._chunks = []
            self._chunks.append(bytes(data))
            self._kept += size


@dataclass(frozen=True, slots=True)
class WebSocketMessage:
    """One message of a WebSocket.

    Attributes:
        from_client: who sent it.
        is_text: whether it is text.
        size: its length in bytes.
        data: the text, or the bytes, with ``bodies=True``, as long as all of them together fit ``max_body_size``.
        date: when it was sent, or arrived at the app.
        order: its place among all that happened, as `Exchange.order`.
    """

    from_client: bool
    is_text: bool
    size: int
    data: str | bytes | None
    date: datetime
    order: int


class Exchange:
    """One request on one connection, and what became of it.

    A redirect's hop, and aiohttp's own second try of an idempotent request, are exchanges of their own. One that is
    still running goes on changing.

    Attributes:
        number: its place among the exchanges of its connector, from 0.
        caller: the pattern at which the app that made this call is mounted; `None` from outside of every app.
        parent: the exchange inside of which this call was made, if it was recorded.
        host, port, secure, method, url: what was asked for; ``url`` is a `yarl.URL`.
        service: the pattern at which the app that is asked is mounted; `None` if none is.
        via: who answers: ``"app"``; ``"fallback"``; ``"refused"``, nobody, for the host is not mounted; ``"fault"``, an
            injected fault, and the app was not called.
        reused: whether the connection had been used before; `None` as long as there is none, and where the fallback
            does not tell.
        fault: the injected fault that struck it, the innermost of several.
        request: headers, size and body.
        messages: those of a WebSocket, of which 10,000 are kept.
        messages_dropped: how many more there were.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_close_code",
        "_end",
        "_end_order",
        "_error",
        "_order",
        "_response",
        "_start",
        "_started_to_answer",
        "_state",
        "_status",
        "caller",
        "fault",
        "host",
        "messages",
        "messages_dropped",
        "method",
        "number",
        "parent",
        "port",
        "request",
        "reused",
        "secure",
        "service",
        "url",
        "via",
    )

    def __init__(self, req: ClientRequest, caller: Caller | None, clock: Clock, room: int | None) -> None:
        observer = None if caller is None else caller.observer
        self.number = clock.next_number()
        self.caller = None if caller is None else caller.name
        self.parent: Exchange | None = observer if isinstance(observer, Exchange) else None
        self.host: str = req.host or ""
        self.port: int | None = req.port
        self.secure: bool = req.is_ssl()
        self.method: str = req.method
        self.url: URL = req.url
        self.service: str | None = None
        self.via: Via = "app"
        self.reused: bool | None = None
        self.fault: Fault | None = None
        self.request = Content(CIMultiDictProxy(req.headers), room, req.version)
        self.messages: Sequence[WebSocketMessage] = ()
        self.messages_dropped = 0
        self._close_code: int | None = None
        self._order = clock.next_order()
        self._end_order: int | None = None
        self._state: State = "running"
        self._error: BaseException | None = None
        self._status: int | None = None
        self._response = Content(NO_HEADERS, room)
        self._clock = clock
        self._start = clock.time()
        self._started_to_answer: float | None = None
        self._end: float | None = None

    @property
    def path(self) -> str:
        """The path of the URL, decoded, without the query."""
        return unquote(self.url.raw_path)

    @property
    def started(self) -> datetime:
        """When it started, in UTC, by the time of the event loop; the wall clock is looked at once."""
        return self._clock.date_of(self._start)

    @property
    def duration(self) -> float:
        """Seconds to its end, which is the last byte of the response, or the end of a WebSocket; or until now."""
        self._settle()
        return (self._clock.time() if self._end is None else self._end) - self._start

    @property
    def waited(self) -> float | None:
        """Seconds until the app, or the server, sent the head of a response; `None` before, and for the fallback.

        What a fault delays on its way is not in it.
        """
        return None if self._started_to_answer is None else self._started_to_answer - self._start

    @property
    def status(self) -> int | None:
        """The status of the response, once its head has arrived."""
        self._settle()
        return self._status

    @property
    def response(self) -> Content | None:
        """Headers, size and body of the response, once its head has arrived."""
        return None if self.status is None else self._response

    @property
    def state(self) -> State:
        """How far it has come.

        ``"running"``; ``"done"``: the response has arrived whole, or the WebSocket was closed; ``"failed"``: it came to
        nothing, or was cut off; ``"abandoned"``: its client left before the end.
        """
        self._settle()
        return self._state

    @property
    def ended(self) -> bool:
        """Whether it is not running any more."""
        return self.state != "running"

    @property
    def error(self) -> BaseException | None:
        """What ended it, be it what the client's call raised, or an app's exception that was answered with a 500."""
        self._settle()
        return self._error

    @property
    def close_code(self) -> int | None:
        """The code that a WebSocket was closed with; 1006 if no close frame reached its client (RFC 6455, 7.1.5)."""
        self._settle()
        return self._close_code

    @property
    def order(self) -> tuple[int, int | None]:
        """Its place among all that happened at its connector, and that of its end, which is `None` until then."""
        self._settle()
        return (self._order, self._end_order)

    def _settle(self) -> None:
        """Bring what is known up to date."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("An Exchange goes on changing, and cannot be copied or pickled: take what you need of it")

    def __repr__(self) -> str:
        return f"<Exchange {self.number}: {self}>"

    def __str__(self) -> str:
        caller = "" if self.caller is None else f"{self.caller} -> "
        return printable(f"{caller}{self.method} {redact_url(str(self.url))}: {self.outcome}")

    @property
    def outcome(self) -> str:
        """What became of it, in a few words, without times and without the secrets of URLs."""
        words = [str(self.status)] if self.status is not None else []
        if self.state != "done":
            words.append(self.state)
        if self.error is not None:
            words.append(f"({_summary(self.error)})")
        if self.close_code is not None:
            words.append(f"closed {self.close_code}")
        if self.via != "app":
            words.append(f"via {self.via}")
        if self.fault is not None:
            words.append(f"[{self.fault!r}]")
        return printable(" ".join(words))


def name_of(version: HttpVersion | None) -> str:
    """As HTTP writes it; empty if there is none."""
    return "" if version is None else f"HTTP/{version.major}.{version.minor}"


def _summary(error: BaseException) -> str:
    text = " ".join(redact_text(text_of(error)).split())  # in one line
    if len(text) > _SHOWN_OF_ERROR:
        text = f"{text[:_SHOWN_OF_ERROR]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class LiveExchange(Exchange):
    """An exchange that is being followed.

    `on_release` is called when its end can soon be looked at, and `on_end` when that was done. `app` is what answers in
    the place of the mounted app.
    """

    __slots__ = (
        "_closed",
        "_closed_at_client",
        "_connection",
        "_cut_off",
        "_kept",
        "_kept_messages",
        "_last_error",
        "_last_response",
        "_released",
        "_req",
        "_room",
        "app",
        "on_end",
        "on_release",
    )

    def __init__(
        self,
        req: ClientRequest,
        caller: Caller | None,
        clock: Clock,
        room: int | None,
        on_release: "Callable[[LiveExchange], None]",
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(req, caller, clock, room)
        self.app: ASGIApp | None = None
        self.on_release = on_release
        self.on_end = on_end
        self._room = room
        self._kept_messages: list[WebSocketMessage] | None = None
        self._kept = 0  # bytes of messages
        self._req: ClientRequest | None = req
        self._connection: Connection | None = None
        self._closed: asyncio.Future[None] | None = None
        # What the client had when it gave the connection back.
        self._released = False
        self._last_response: ClientResponse | None = None
        self._last_error: BaseException | None = None
        self._cut_off: BaseException | None = None
        self._closed_at_client: int | None = None  # the code of the close frame that has arrived there

    # The client's end.

    def not_connected(self, exc: BaseException) -> None:
        """There was no connection to be had."""
        self._note_end()
        if not isinstance(exc, asyncio.CancelledError):
            self._error = exc
        self._keep_request_headers()
        self._finish("abandoned" if isinstance(exc, asyncio.CancelledError | TimeoutError) else "failed")

    def leaves(self, via: Via) -> None:
        """No app is asked, so nothing will be known of its bodies."""
        self.via = via
        self.service = None
        self.request.keep_no_body()
        self._response.keep_no_body()

    def handed_to(self, server: ServerEnd) -> None:
        """An app is asked, on this connection."""
        self.reused = server.used
        self.service = server.mounted.pattern

    def connection_taken(self, reused: bool) -> None:
        self.reused = reused

    def connected(self, connection: Connection) -> None:
        """The request is about to be sent on *connection*."""
        protocol = connection.protocol
        assert protocol is not None
        self._connection = connection
        connection.add_callback(self._release)
        if isinstance(protocol, ClientProtocol) and self.via != "fallback":
            protocol.on_lost = self._release
            protocol.on_websocket_closed = self._websocket_closed
        elif (closed := protocol.closed) is not None:
            # The future is made by asking for it, and it outlives this exchange on a connection that is kept alive.
            closed.remove_done_callback(_retrieve_exception)
            closed.add_done_callback(_retrieve_exception, context=self._clock.context)
            closed.add_done_callback(self._connection_lost, context=self._clock.context)
            self._closed = closed

    def cut_off(self, exc: BaseException) -> None:
        """A fault has ended the connection."""
        self._cut_off = exc

    def _connection_lost(self, closed: "asyncio.Future[None]") -> None:
        if not closed.cancelled():  # by who waited for it
            self._release()

    def _websocket_closed(self, code: int) -> None:
        """The client has got a close frame, or has itself failed the WebSocket."""
        self._closed_at_client = code

    def _release(self) -> None:
        """The client has done with the connection, or it was lost.

        What became of the response is not known before this step of the caller has gone on: a response that arrives at
        once gives the connection back before it tells its status. So it is found out later, or when somebody asks.
        """
        if self._released or self._state != "running":
            return
        self._released = True
        self._last_response = self._client_response()
        if self._started_to_answer is None:
            self._keep_request_headers()
        assert self._connection is not None
        protocol = self._connection.protocol
        assert protocol is not None  # who is told of a release is told before it
        self._last_error = protocol.exception()
        if isinstance(protocol, ClientProtocol) and self.via != "fallback":
            protocol.on_lost = protocol.on_websocket_closed = None
        self._note_end()
        self.on_release(self)

    def _note_end(self) -> None:
        self._end = self._clock.time()
        self._end_order = self._clock.next_order()

    def _client_response(self) -> ClientResponse | None:
        """What the client has of the response; a request that is sent a second time has another one later."""
        if self._last_response is not None:
            return self._last_response
        response = None if self._req is None else response_of(self._req)
        return None if response is None or response.connection is not self._connection else response

    @override
    def _settle(self) -> None:
        if self._state != "running":
            return
        if self._released:
            self.conclude()
        else:
            self._look_at(self._client_response())

    def _look_at(self, response: ClientResponse | None) -> None:
        # Until the head has arrived aiohttp's response has no status.
        status: int | None = None if response is None else response.status
        if self._status is None and response is not None and status is not None:
            self._status = status
            self._response.headers = response.headers
            self._response.http_version = name_of(response.version)

    def conclude(self) -> None:
        """Find out how it has ended."""
        if self._state != "running":
            return
        response, error = self._last_response, self._last_error
        self._look_at(response)
        if self._status == _SWITCHING_PROTOCOLS:
            self._conclude_websocket()
        elif self._is_complete(response):
            self._finish("done")
        else:
            if self._status is not None and response is not None:
                error = response.content.exception() or error
            self._conclude_failure(error)

    def _is_complete(self, response: ClientResponse | None) -> bool:
        if self._status is None or response is None or not response.content.is_eof():
            return False
        failure = response.content.exception()
        if failure is not None and not is_closed_by_client(failure):
            return False
        if self._cut_off is None and self._error is None:
            return True
        # A response that does not itself tell where it ends (RFC 9112, 6.3) only looks whole.
        headers = response.headers
        return "Content-Length" in headers or "Transfer-Encoding" in headers or not self._response.size

    def _conclude_failure(self, error: BaseException | None) -> None:
        given_up = error is None or is_closed_by_client(error)
        if self._error is None and self._cut_off is None and given_up:
            self._finish("abandoned")
            return
        if self._error is None:
            self._error = self._cut_off if given_up else error
        self._finish("abandoned" if isinstance(error, ServerTimeoutError) else "failed")

    def _conclude_websocket(self) -> None:
        if self.via == "fallback":  # what its frames were is not known
            self._finish("done")
            return
        # What counts is what the client got: a close frame of the app, or the app's answer to its own, may be lost.
        self._close_code = self._closed_at_client or _ABNORMAL_CLOSURE
        if self._error is None and self._closed_at_client is not None:
            self._finish("done")
            return
        if self._error is None:
            self._error = self._cut_off
        self._finish("abandoned" if self._error is None else "failed")

    def _finish(self, state: State) -> None:
        self._state = state
        if self._closed is not None:
            self._closed.remove_done_callback(self._connection_lost)
        self._req = self._connection = self._closed = self._last_response = self._last_error = None
        self.on_end()

    # The server's end: see `Observer`.

    def app_called(self) -> None:
        self.via = "app"

    def request_body(self, data: bytes) -> None:
        self.request.add(data)

    def response_started(self) -> None:
        self._started_to_answer = self._clock.time()
        if self._state == "running":
            self._last_response = self._client_response()
            self._keep_request_headers()

    def _keep_request_headers(self) -> None:
        """The request is its user's to change from now on, and to send again."""
        self.request.headers = CIMultiDictProxy(self.request.headers.copy())

    def response_body(self, data: Bytes) -> None:
        self._response.add(data)

    def message(self, data: str | bytes, *, from_client: bool) -> None:
        if self._kept_messages is None:
            self.messages = self._kept_messages = []
        if len(self._kept_messages) == MESSAGES_KEPT:
            self.messages_dropped += 1
            return
        is_text = isinstance(data, str)
        size = len(data.encode()) if isinstance(data, str) else len(data)
        kept = self._room is not None and self._kept + size <= self._room
        if kept:
            self._kept += size
        date = self._clock.date_of(self._clock.time())
        order = self._clock.next_order()
        self._kept_messages.append(WebSocketMessage(from_client, is_text, size, data if kept else None, date, order))

    def closed(self, code: int, reason: str) -> None:
        if self._state == "running":
            self._close_code = code

    def app_failed(self, exc: BaseException) -> None:
        if self._state == "running":
            self._error = exc


def _retrieve_exception(closed: "asyncio.Future[None]") -> None:
    """What a connection was lost with is told elsewhere; asyncio must not log that nobody has asked for it."""
    if not closed.cancelled():
        closed.exception()
