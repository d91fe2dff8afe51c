"""A tap on a client connection to a server: it sees the bodies and messages that pass, and changes nothing.

It is between the transport and aiohttp's protocol. To the transport it is the protocol (`set_protocol()`, asyncio's
public way), and to the protocol it is the transport. It passes bytes on before it reads them. It reads those of a small
exchange only when it is asked, because reading them takes longer than passing them on.
"""

# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpResponseParser

from asgi_connector._http1.request import BadRequest, BodyReader, ChunkedReader, LengthReader, parse_fields
from asgi_connector._types import Bytes

from .frame_watch import FrameWatch

_SWITCHING_PROTOCOLS: Final = 101
_MAX_KEPT: Final = 2**16  # bytes of one exchange
_NO_CODE: Final = 1005  # a close frame without a code (RFC 6455, 7.1.5)


class TapObserver(Protocol):
    """The recipient of what a tap sees."""

    def request_body(self, data: bytes) -> None:
        """A piece of the request's body was sent, without the framing of HTTP/1.1."""

    def response_body(self, data: Bytes, time: float) -> None:
        """A piece of the response's body has arrived at *time*, without the framing of HTTP/1.1."""

    def message(self, data: str | bytes, *, from_client: bool) -> None:
        """A WebSocket message has passed."""

    def websocket_closed(self, code: int) -> None:
        """A close frame of the server has arrived."""


class Tap:
    """One observer of one exchange on a connection, until `remove()`.

    It keeps what passes until `read()` is called, or until much has passed. From then on it reads what passes at once.
    With *upgrade* the request asks for a WebSocket: the observer is told of each message when it passes.
    """

    def __init__(self, connection: Connection, method: str, observer: TapObserver, *, upgrade: bool) -> None:
        protocol, transport = connection.protocol, connection.transport
        assert protocol is not None
        assert transport is not None
        self._kept: Kept | None = Kept(protocol._loop, method)
        self._observer = observer
        # A connector and its fallback may both record the exchange.
        found: object = transport
        self._junction = found.junction if isinstance(found, _TappedTransport) else _Junction(protocol, transport)
        self._junction.taps.append(self)
        if upgrade:
            self.read()

    def data_written(self, data: Bytes) -> None:
        if self._kept is None:
            self._written.feed(data)
        elif self._kept.add_written(data):
            self.read()

    def data_received(self, data: bytes, time: float) -> None:
        if self._kept is None:
            self._arrived.time = time
            self._arrived.feed(data)
        elif self._kept.add_arrived(data, time):
            self.read()

    def read(self) -> None:
        """Tell the observer what has passed; from now on, when it passes."""
        if self._kept is not None:
            self._written, self._arrived = self._kept.read(self._observer)
            self._kept = None

    def remove(self) -> "Kept | None":
        """The exchange is over. Returns what was not read.

        The last tap leaves the transport and the protocol to each other.
        """
        self._junction.taps.remove(self)
        if not self._junction.taps:
            self._junction.remove()
        return self._kept


class Kept:
    """The bytes of an exchange that were not read yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, method: str) -> None:
        self._written: list[bytes] = []
        self._arrived: list[tuple[bytes, float]] = []
        self._size = 0
        self._loop = loop
        self._method = method

    def add_written(self, data: Bytes) -> bool:
        """Keep *data*. Returns whether there is so much that it must be read."""
        self._written.append(bytes(data))
        self._size += len(data)
        return self._size > _MAX_KEPT

    def add_arrived(self, data: bytes, time: float) -> bool:
        """Keep *data* and the time. Returns whether there is so much that it must be read."""
        self._arrived.append((data, time))
        self._size += len(data)
        return self._size > _MAX_KEPT

    def read(self, observer: TapObserver) -> "tuple[_Written, _Arrived]":
        """Tell *observer* what was kept. Returns the readers of what follows."""
        written = _Written(observer)
        arrived = _Arrived(self._loop, self._method, observer, written.switch_to_frames)
        for data in self._written:
            written.feed(data)
        for data, arrived.time in self._arrived:
            arrived.feed(data)
        return written, arrived


class _Junction(asyncio.Protocol):
    """Stands between the transport and the protocol of one connection, and lets the taps see what passes."""

    def __init__(self, protocol: ResponseHandler, transport: asyncio.Transport) -> None:
        self.taps: list[Tap] = []
        self._protocol = protocol
        self._transport = transport
        self._loop = protocol._loop
        transport.set_protocol(self)
        protocol.transport = cast(asyncio.Transport, _TappedTransport(transport, self))

    def remove(self) -> None:
        if self._protocol.transport is not None:
            self._protocol.transport = self._transport
            self._transport.set_protocol(self._protocol)

    def data_written(self, data: Bytes) -> None:
        for tap in self.taps:
            tap.data_written(data)

    def data_received(self, data: bytes) -> None:
        taps = tuple(self.taps)  # the protocol may release the connection, which removes them
        time = self._loop.time()  # first, because the protocol may end the exchange
        self._protocol.data_received(data)
        for tap in taps:
            tap.data_received(data, time)

    def eof_received(self) -> bool | None:
        self._protocol.eof_received()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class _TappedTransport:
    """The transport, to aiohttp's protocol. It tells *junction* what was written."""

    def __init__(self, transport: asyncio.Transport, junction: _Junction) -> None:
        self.junction = junction
        self._transport = transport

    def write(self, data: Bytes) -> None:
        self._transport.write(data)
        self.junction.data_written(data)

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        pieces = list(list_of_data)
        self._transport.writelines(pieces)
        for data in pieces:
            self.junction.data_written(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Written:
    """The bytes of a request: its head, then its body, or the frames of a WebSocket."""

    def __init__(self, observer: TapObserver) -> None:
        self._observer = observer
        self._feed: Callable[[bytes], None] = self._feed_head
        self._body: BodyReader | None = None

    def feed(self, data: Bytes) -> None:
        self._feed(bytes(data))

    def _feed_head(self, data: bytes) -> None:
        """Read the head, which aiohttp writes as one piece, maybe with the beginning of the body."""
        self._feed = _ignore
        head, _, rest = data.partition(b"\r\n\r\n")
        with suppress(BadRequest):  # only the server can tell what else this is
            fields = parse_fields(head.partition(b"\r\n")[2])
            if fields.chunked or fields.content_length:
                self._body = ChunkedReader() if fields.chunked else LengthReader(fields.content_length)
                self._feed = self._feed_body
        if rest:
            self._feed(rest)

    def _feed_body(self, data: bytes) -> None:
        assert self._body is not None
        try:
            body, _ = self._body.feed(data)
        except BadRequest:
            self._feed = _ignore
            return
        if body:
            self._observer.request_body(body)

    def switch_to_frames(self, frames: FrameWatch) -> None:
        """The server has accepted a WebSocket."""
        self._feed = frames.feed


class _Arrived:
    """The bytes of a response: its head and body, or the frames of a WebSocket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        method: str,
        observer: TapObserver,
        switch_client: Callable[[FrameWatch], None],
    ) -> None:
        self.feed: Callable[[bytes], None] = self._feed_response
        self.time = 0.0  # when the bytes arrived that are fed
        self._loop = loop
        self._observer = observer
        self._switch_client = switch_client
        self._parser = HttpResponseParser(
            _NoFlow(loop), loop, 2**16, response_with_body=method != "HEAD", read_until_eof=True, auto_decompress=False
        )
        self._payload: Any = None

    def _feed_response(self, data: bytes) -> None:
        try:
            rest = self._parse(data)
        except Exception:  # aiohttp's own parser has told the client the same
            self.feed = _ignore
            return
        if rest:
            self.feed(rest)

    def _parse(self, data: bytes) -> bytes:
        """Read the head and the body. Returns the bytes that follow an upgrade. Raises as aiohttp's parser does."""
        messages, upgraded, rest = self._parser.feed_data(data)
        for message, payload in messages:
            self._payload = payload
            if message.code == _SWITCHING_PROTOCOLS:
                self._accept()
        if self._payload is not None and (body := self._payload.read_nowait()):
            self._observer.response_body(body, self.time)
        return rest if upgraded else b""

    def _accept(self) -> None:
        """The server has accepted a WebSocket: frames follow, in both directions."""
        observer = self._observer
        from_server = FrameWatch(
            self._loop,
            lambda data: observer.message(data, from_client=False),
            lambda code, _: observer.websocket_closed(code or _NO_CODE),
        )
        self.feed = from_server.feed
        self._switch_client(
            FrameWatch(self._loop, lambda data: observer.message(data, from_client=True), lambda code, reason: None)
        )


def _ignore(data: bytes) -> None:
    """Nothing more can be read from what passes."""


class _NoFlow(BaseProtocol):
    """What aiohttp's parsers pause and resume; it is the protocol of no transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._upgraded = True  # since 3.14: see `frames.ReadingFlow`
