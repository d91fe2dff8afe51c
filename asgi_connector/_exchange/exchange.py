"""`Exchange`: one request on one connection, as the journal shows it."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar
from urllib.parse import unquote

from aiohttp import ClientRequest, HttpVersion
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from asgi_connector._aiohttp.requests import address_of
from asgi_connector._callers import Caller
from asgi_connector._display import printable, text_of
from asgi_connector._types import Bytes

from .bodies import read_json, read_text
from .encodings import decode
from .redaction import redact_text, redact_url

if TYPE_CHECKING:
    from asgi_connector._injection.faults import Incident

Via = Literal["app", "fallback", "refused", "fault"]
State = Literal["running", "done", "failed", "abandoned"]

_MAX_ERROR_LENGTH: Final = 160  # characters
_NOT_RECORDED: Final = (
    "body was not recorded: write record(bodies=True); or, with the plugin for pytest, mark the test "
    "@pytest.mark.asgi_connector(bodies=True)"
)
_T = TypeVar("_T")
NO_HEADERS: Final = CIMultiDictProxy(CIMultiDict[str]())


class Clock:
    """The event loop's time, and numbers that put events in order. The wall clock is read once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time: Callable[[], float] = loop.time
        self._wall = datetime.now(UTC)
        self._origin = loop.time()
        self.next_order: Callable[[], int] = itertools.count().__next__  # the order of the next event
        self.next_number: Callable[[], int] = itertools.count().__next__  # the number of the next exchange
        self.context = Context()  # for callbacks

    def date_of(self, time: float) -> datetime:
        """Convert *time*, which is the event loop's, to a date in UTC."""
        return self._wall + timedelta(seconds=time - self._origin)

    @staticmethod
    def put_in_one_order(clocks: "Sequence[Clock]") -> None:
        """Let the events of several connectors that come from now on be in one order."""
        next_order = itertools.count(max(clock.next_order() for clock in clocks)).__next__
        for clock in clocks:
            clock.next_order = next_order


class Content:
    """One direction of an exchange: its headers, its size, and with ``bodies=True`` its body.

    Attributes:
        headers: the headers that the client sent or received (a `multidict.CIMultiDictProxy`).
        size: the number of body bytes that arrived at the app, or that the app sent. The framing of HTTP/1.1 is not
            counted; a content encoding is not decoded. Without ``bodies=True`` it is 0 for the fallback.
    """

    __module__ = "asgi_connector"

    __slots__ = ("_chunks", "_kept", "_max_body_size", "_version", "_why_no_body", "headers", "size")

    def __init__(
        self, headers: CIMultiDictProxy[str], max_body_size: int | None, version: HttpVersion | None = None
    ) -> None:
        self.headers = headers
        self._version = version
        self.size = 0
        self._chunks: list[bytes] | None = None
        self._kept = 0  # bytes
        self._max_body_size = max_body_size  # None: the body is not kept
        self._why_no_body = _NOT_RECORDED

    def __repr__(self) -> str:
        cut = f", {self.cut} of them cut" if self.cut else ""
        return f"<{type(self).__name__} {len(self.headers)} headers, {self.size} bytes{cut}>"

    @property
    def http_version(self) -> str:
        """The HTTP version that the client sent or received: ``"HTTP/1.1"`` or ``"HTTP/1.0"``; empty if unknown."""
        return "" if self._version is None else f"HTTP/{self._version.major}.{self._version.minor}"

    @property
    def body(self) -> bytes | None:
        """The body, up to ``max_body_size``; `None` if bodies are not recorded."""
        return None if self._max_body_size is None else b"".join(self._chunks or ())

    @property
    def cut(self) -> int:
        """The number of bytes missing at the end of `body`, because the body was larger than ``max_body_size``."""
        return 0 if self._max_body_size is None else self.size - self._kept

    def text(self, encoding: str | None = None) -> str:
        """Return the body as text. It is decoded from a content encoding of gzip or deflate first.

        While the exchange runs, and if it was cut off, this is the part of the body that has arrived.

        Parameters:
            encoding: such as ``"latin-1"``. `None`, the default: the charset of the Content-Type, or else UTF-8.

        Raises `RuntimeError` if the body was not recorded, or only a part of it because of ``max_body_size``, and
        `ValueError` if it cannot be decoded.
        """
        if not (encoding is None or isinstance(encoding, str)):
            raise TypeError(f"encoding must be a str or None, not {encoding!r}")
        return self._read(lambda body, content_type: read_text(body, content_type, encoding))

    def json(self) -> Any:
        """Return the body, parsed as JSON. It is decoded from a content encoding of gzip or deflate first.

        The Content-Type does not matter. While the exchange runs, this is the part of the body that has arrived.

        Raises `RuntimeError` if the body was not recorded, or only a part of it because of ``max_body_size``, and
        `ValueError` if it is empty, or is not JSON.
        """
        return self._read(read_json)

    def _read(self, read: Callable[[bytes, str], _T]) -> _T:
        """Apply *read* to the decoded body and its Content-Type."""
        if (problem := self.why_unreadable) is not None:
            raise RuntimeError(problem)
        try:
            body = decode(self.body or b"", ", ".join(self.headers.getall("Content-Encoding", ())))
            return read(body, self.headers.get("Content-Type", ""))
        except ValueError as exc:
            raise ValueError(f"body {exc}") from None

    @property
    def why_unreadable(self) -> str | None:
        """Why there is no complete body, and what to write; `None` if there is."""
        if self._max_body_size is None:
            return self._why_no_body
        if self.cut:
            kept = f"only the first {self.size - self.cut} of {self.size} bytes were recorded"
            return f"body was cut, {kept}: write record(bodies=True, max_body_size={self.size}) or more"
        return None

    def set_head(self, headers: CIMultiDictProxy[str], version: HttpVersion | None) -> None:
        """Note the head of a response that has arrived."""
        self.headers = headers
        self._version = version

    def keep_no_body(self) -> None:
        """Do not keep the body: it is not sent."""
        self._max_body_size = None
        self._why_no_body = "body was not sent, because the request was refused"

    def add(self, data: Bytes) -> None:
        """Count a piece of the body, and keep as much of it as the limit allows."""
        size = len(data)
        self.size += size
        if self._max_body_size is None or not size:
            return
        allowed = self._max_body_size - self._kept
        if size > allowed:
            data, size = data[:allowed], allowed
        if size:
            if self._chunks is None:
                self._chunks = []
            self._chunks.append(bytes(data))
            self._kept += size


@dataclass(frozen=True, slots=True)
class WebSocketMessage:
    """One message of a WebSocket.

    Attributes:
        from_client: whether the client sent it; otherwise the app sent it.
        is_text: whether it is a text message; otherwise it is binary.
        size: its length in bytes.
        data: the text or the bytes, with ``bodies=True``. `None` without, and if it does not fit in ``max_body_size``
            together with the messages that are kept already.
        date: when it arrived at the app, or when the app sent it.
        order: its position among all events of the connector, as in `Exchange.order`.
    """

    __module__ = "asgi_connector"

    from_client: bool
    is_text: bool
    size: int
    data: str | bytes | None
    date: datetime
    order: int


class Exchange:
    """One request on one connection, and its result.

    Each hop of a redirect is an exchange of its own. So is the second attempt that aiohttp makes at an idempotent
    request. An exchange that is still running keeps changing.

    Attributes:
        number: its position among the exchanges of its connector, from 0.
        caller: the pattern at which the calling app is mounted; `None` for a call from outside every app.
        parent: the exchange during which this call was made, if it was recorded.
        method, url: the target of the request; ``url`` is a `yarl.URL`.
        service: the pattern at which the app for the request is mounted; `None` if there is none.
        via: what answers: ``"app"``; ``"fallback"``; ``"refused"``: nothing, because the host is not mounted;
            ``"fault"``: a fault, or an app that is down, and the app was not called.
        reused: whether the connection had been used before. `None` while there is no connection, and if the fallback
            does not report it.
        fault: the fault that affected it, the innermost if there were several; or what a `hold()` or `crashed()` block
            has done to it.
        messages: the messages of a WebSocket; at most 10,000 are kept.
        messages_dropped: the number of messages that were not kept.
    """

    __module__ = "asgi_connector"

    __slots__ = (
        "__weakref__",
        "_clock",
        "_close_code",
        "_connected",
        "_end",
        "_end_order",
        "_error",
        "_order",
        "_pieces",
        "_request",
        "_response",
        "_response_start",
        "_start",
        "_state",
        "_status",
        "address",
        "caller",
        "fault",
        "messages",
        "messages_dropped",
        "method",
        "number",
        "parent",
        "reused",
        "service",
        "url",
        "via",
    )

    def __init__(self, req: ClientRequest, caller: Caller | None, clock: Clock, max_body_size: int | None) -> None:
        observer = None if caller is None else caller.observer
        self.number = clock.next_number()
        self.caller = None if caller is None else caller.name
        self.parent: Exchange | None = observer if isinstance(observer, Exchange) else None
        self.address = address_of(req)
        self.method: str = req.method
        self.url: URL = req.url
        self.service: str | None = None
        self.via: Via = "app"
        self.reused: bool | None = None
        self.fault: Incident | None = None
        self._request = Content(CIMultiDictProxy(req.headers), max_body_size, req.version)
        self.messages: Sequence[WebSocketMessage] = ()
        self.messages_dropped = 0
        self._close_code: int | None = None
        self._order = clock.next_order()
        self._end_order: int | None = None
        self._state: State = "running"
        self._error: BaseException | None = None
        self._status: int | None = None
        self._response = Content(NO_HEADERS, max_body_size)
        self._clock = clock
        self._start = clock.time()
        self._connected: float | None = None
        self._response_start: float | None = None
        self._pieces: list[float] | None = None
        self._end: float | None = None

    @property
    def host(self) -> str:
        """The host that the request is for."""
        return self.address.host

    @property
    def port(self) -> int | None:
        """The port that the request is for: that of the URL, or the default port of its scheme."""
        return self.address.port

    @property
    def secure(self) -> bool:
        """Whether the request is for ``https`` or ``wss``."""
        return self.address.secure

    @property
    def path(self) -> str:
        """The path of the URL, decoded, without the query."""
        return unquote(self.url.raw_path)

    @property
    def started(self) -> datetime:
        """The start, in UTC, from the event loop's time; the wall clock is read only once."""
        return self._clock.date_of(self._start)

    @property
    def duration(self) -> float:
        """The seconds from the start to the end, or until now if there is no end yet.

        The end is the last byte of the response, or the end of a WebSocket.
        """
        self._settle()
        return (self._clock.time() if self._end is None else self._end) - self._start

    @property
    def connect_time(self) -> float | None:
        """The seconds until there was a connection for the request; `None` before, and if there was none.

        This is the time for the startup of the app, for the pool, or for a real connection.
        """
        return None if self._connected is None else self._connected - self._start

    @property
    def waited(self) -> float | None:
        """The seconds until the app, or the server, sent the head of a response; `None` before, and for the fallback.

        The delay that a fault adds on the way is not included.
        """
        return None if self._response_start is None else self._response_start - self._start

    @property
    def pieces(self) -> tuple[float, ...]:
        """The seconds until each piece of the response's body, such as an event of a stream: of the first 1,000.

        It is when the app sent the piece. From the fallback, pieces are known with ``bodies=True`` only.
        """
        self._read_bodies()
        return tuple(each - self._start for each in self._pieces or ())

    @property
    def status(self) -> int | None:
        """The status of the response; `None` until its head has arrived."""
        self._settle()
        return self._status

    @property
    def request(self) -> Content:
        """The headers, size and body of the request."""
        self._read_bodies()
        return self._request

    @property
    def response(self) -> Content | None:
        """The headers, size and body of the response; `None` until its head has arrived."""
        self._read_bodies()
        return None if self.status is None else self._response

    @property
    def state(self) -> State:
        """The state of the exchange.

        ``"running"``; ``"done"``: the complete response has arrived, or the WebSocket was closed; ``"failed"``: there
        was no response, or it was cut off; ``"abandoned"``: the client left before the end.
        """
        self._settle()
        return self._state

    @property
    def ended(self) -> bool:
        """Whether the exchange has ended: its state is not ``"running"``."""
        return self.state != "running"

    @property
    def error(self) -> BaseException | None:
        """The exception that ended it, if any.

        It is what the client's call raised, or an app's exception that was answered with a 500.
        """
        self._settle()
        return self._error

    @property
    def close_code(self) -> int | None:
        """The close code of a WebSocket; 1006 if no close frame reached the client (RFC 6455, 7.1.5)."""
        self._settle()
        return self._close_code

    @property
    def order(self) -> tuple[int, int | None]:
        """The position of its start among all events of the connector, and that of its end (`None` until the end)."""
        self._settle()
        return (self._order, self._end_order)

    @property
    def clock(self) -> Clock:
        """The clock of its connector, by which exchanges of several connectors are told apart."""
        return self._clock

    def _settle(self) -> None:
        """Update the attributes from the client's response."""

    def _read_bodies(self) -> None:
        """Update the bodies from what has passed."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("An Exchange goes on changing, and cannot be copied or pickled: take what you need of it")

    def __repr__(self) -> str:
        return f"<Exchange {self.number}: {self}>"

    def __str__(self) -> str:
        caller = "" if self.caller is None else f"{self.caller} -> "
        return printable(f"{caller}{self.method} {redact_url(str(self.url))}: {self.outcome}")

    @property
    def outcome(self) -> str:
        """The result in a few words, without times and without the secrets in URLs."""
        return self.outcome_with(None if self.error is None else summary(self.error))

    def outcome_with(self, error: str | None) -> str:
        """The result in a few words, with *error* as the words for the exception."""
        words = [str(self.status)] if self.status is not None else []
        if self.state != "done":
            words.append(self.state)
        if error is not None:
            words.append(f"({error})")
        if self.close_code is not None:
            words.append(f"closed {self.close_code}")
        if self.via != "app":
            words.append(f"via {self.via}")
        if self.fault is not None:
            words.append(f"[{self.fault!r}]")
        return printable(" ".join(words))


def summary(error: BaseException, limit: int = _MAX_ERROR_LENGTH) -> str:
    """The type of an exception and its text, in one line, without secrets and without a traceback.

    Of the text, at most *limit* characters are shown.
    """
    text, has_traceback, _ = text_of(error).partition("Traceback (most recent call last):")
    text = " ".join(redact_text(text).split())
    if has_traceback:  # frameworks report one when an app fails to start
        text = text.rstrip(": ")
    if len(text) > limit:
        text = f"{text[:limit]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
