"""The bytes of one exchange, in both directions -> what an observer is told of."""

import asyncio
from typing import Final

from asgi_connector._aiohttp.frame_watch import FrameWatch
from asgi_connector._asgi.reader import RequestReader
from asgi_connector._http1.request import BadRequest, BodyReader, ChunkedReader, LengthReader, parse_fields
from asgi_connector._observer import Observer

_NO_CODE: Final = 1005  # a close frame without a code (RFC 6455, 7.1.5)


class ExchangeWatch:
    """Reads what aiohttp's protocol reads and writes, and tells an observer.

    Bodies are told without their framing, and in their content encoding. What cannot be read is not told.
    """

    def __init__(self, observer: Observer, loop: asyncio.AbstractEventLoop) -> None:
        self.observer = observer
        self._loop = loop
        self._request: RequestReader | None = RequestReader()
        self._request_head = True
        self._answered = False  # the head of the response has been written
        self._body: BodyReader | None = None  # of the response
        self._until_close = False  # the response ends with the connection
        self._frames: tuple[FrameWatch, FrameWatch] | None = None
        self._closed = False

    # The request.

    def arrived(self, data: bytes) -> None:
        """The client has sent *data*."""
        if self._frames is not None:
            self._frames[0].feed(data)
        elif self._request is not None:
            try:
                self._read_request(self._request, data)
            except BadRequest:
                self._request = None

    def _read_request(self, reader: RequestReader, data: bytes) -> None:
        if self._request_head:
            rest = reader.read_head(data)
            if rest is None:
                return
            self._request_head = False
            if not reader.begin_body():
                self._request = None
                return
            data = rest
        if data and not reader.body_complete:
            body, _ = reader.read_body(data)
            if body:
                self.observer.request_body(body)

    # The response.

    def sent(self, data: bytes) -> None:
        """The server has sent *data*."""
        if self._frames is not None:
            self._frames[1].feed(data)
        elif self._answered:
            self._read_response(data)
        else:
            head, end, rest = data.partition(b"\r\n\r\n")
            if end and (head.startswith(b"HTTP/1.1 101") or not head.startswith(b"HTTP/1.1 1")):
                self._begin_response(head)
                if rest:
                    self.sent(rest)

    def _begin_response(self, head: bytes) -> None:
        self._answered = True
        self.observer.response_started()
        line, _, block = head.partition(b"\r\n")
        try:
            fields = parse_fields(block)
        except BadRequest:
            return
        if line.startswith(b"HTTP/1.1 101"):
            self._begin_frames()
        elif fields.chunked:
            self._body = ChunkedReader()
        elif any(name == b"content-length" for name, _ in fields.headers):
            self._body = LengthReader(fields.content_length)
        else:
            self._until_close = True

    def _read_response(self, data: bytes) -> None:
        if self._until_close:
            self.observer.response_body(data)
        elif self._body is not None and not self._body.complete:
            try:
                body, _ = self._body.feed(data)
            except BadRequest:  # a second response in the middle of this one: the client cannot read it either
                self._body = None
                return
            if body:
                self.observer.response_body(body)

    # A WebSocket.

    def _begin_frames(self) -> None:
        observer = self.observer
        self._frames = (
            FrameWatch(self._loop, lambda data: observer.message(data, from_client=True), self._close),
            FrameWatch(self._loop, lambda data: observer.message(data, from_client=False), self._close),
        )

    def _close(self, code: int, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self.observer.closed(code or _NO_CODE, reason)
