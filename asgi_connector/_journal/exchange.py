"""One request on one connection, as the journal tells it."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NoReturn
from urllib.parse import unquote

from aiohttp import ClientRequest, HttpVersion
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from asgi_connector._aiohttp.requests import address_of
from asgi_connector._callers import Caller
from asgi_connector._display import printable, text_of
from asgi_connector._types import Bytes

from .redaction import redact_text, redact_url

if TYPE_CHECKING:
    from asgi_connector._injection.faults import Fault

Via = Literal["app", "fallback", "refused", "fault"]
State = Literal["running", "done", "failed", "abandoned"]

_SHOWN_OF_ERROR: Final = 160  # characters
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

    __module__ = "asgi_connector"

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

    __module__ = "asgi_connector"

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
        fault: the injected fault that affected it, the innermost of several.
        request: headers, size and body.
        messages: those of a WebSocket, of which 10,000 are kept.
        messages_dropped: how many more there were.
    """

    __module__ = "asgi_connector"

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
        address = address_of(req)
        self.host = address.host
        self.port = address.port
        self.secure = address.secure
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
