"""A serialiser of the responses on a connection, which tracks how much of each was delivered."""

from collections.abc import Iterable
from typing import Final, TypeAlias

from asgi_connector._exceptions import ASGIProtocolError
from asgi_connector._http1.request import BadRequest, RequestLine
from asgi_connector._http1.response import Framing, build_head, plain_response
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._observer import Observer
from asgi_connector._types import Bytes

_CHUNKED, _NO_BODY = Framing.CHUNKED, Framing.NO_BODY
_Head: TypeAlias = tuple[bytes, Framing, int | None, bool]
_HeadKey: TypeAlias = tuple[int, str, str, bool]
_SMALL_HEAD: Final = 1024  # bytes of a head that is kept
_SMALL_CHUNK: Final = 4096  # bytes of a chunk that is written in one piece


class ResponseWriter:
    """Writes the response to one request after another.

    Attributes:
        keep_alive: whether the connection can serve another request after this one.
        observer: the observer of the current request, if there is one.
    """

    __slots__ = (
        "_body_left",
        "_framing",
        "_head",
        "_head_headers",
        "_head_key",
        "_line",
        "_message",
        "_tail_written",
        "_transport",
        "keep_alive",
        "observer",
    )

    def __init__(self, transport: MemoryTransport) -> None:
        self.keep_alive = True
        self.observer: Observer | None = None
        self._transport = transport
        self._line = RequestLine("", b"", "")
        self._message = ""
        self._framing: Framing | None = None  # None until the response starts
        self._body_left: int | None = None  # bytes of the content-length that the app announced
        self._tail_written = 0  # bytes written after the response's head
        # Responses on one connection often have equal heads. An equal one is not checked and serialised again, which
        # saves 1.5 % of a small request.
        self._head_key: _HeadKey | None = None
        self._head_headers: list[Iterable[bytes]] = []
        self._head: _Head = (b"", _NO_BODY, None, False)

    def begin(self, line: RequestLine, observer: Observer | None, *, keep_alive: bool, message: str) -> None:
        """Expect the response to the request of *line*. It starts with the ASGI message of type *message*."""
        self._line = line
        self._message = message
        self.observer = observer
        self.keep_alive = keep_alive
        self._framing = None
        self._tail_written = 0

    @property
    def started(self) -> bool:
        """Whether the head of the response has been written."""
        return self._framing is not None

    @property
    def head_waits(self) -> bool:
        """Whether bytes of the head are written but not delivered."""
        return self._framing is not None and self._transport.get_write_buffer_size() > self._tail_written

    @property
    def is_whole(self) -> bool:
        """Whether the response is complete by its framing, even if the app has not completed it."""
        return self._framing is _NO_BODY or (self._framing is Framing.LENGTH and self._body_left == 0)

    def send_continue(self) -> None:
        """Answer an ``Expect: 100-continue`` (RFC 9110, 10.1.1)."""
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def start(self, status: int, headers: Iterable[Iterable[bytes]], *, hold: bool) -> None:
        """Write the head. With *hold*, the response is delivered only after `release()`."""
        line = self._line
        key = (status, line.method, line.http_version, not self.keep_alive)
        if key == self._head_key and headers == self._head_headers and _are_bytes(headers):
            head, self._framing, self._body_left, close = self._head
        else:
            built = build_head(status, headers, line.method, line.http_version, not self.keep_alive, self._message)
            head, self._framing, self._body_left, close = built
            if len(head) <= _SMALL_HEAD and type(headers) is list:
                self._keep_head(key, headers, built)  # pyright: ignore[reportUnknownArgumentType]
        self.keep_alive = not close
        if hold:
            self._transport.hold_writes()
        self._transport.write(head)
        if self.observer is not None:
            self.observer.response_started()

    def _keep_head(self, key: _HeadKey, headers: list[Iterable[bytes]], built: _Head) -> None:
        """Keep a head for the next response, unless the app may change a pair of *headers* itself."""
        if all(type(pair) is tuple for pair in headers):
            self._head_key, self._head_headers, self._head = key, headers.copy(), built

    def release(self) -> None:
        """Deliver the bytes that `start()` held back."""
        self._transport.release_writes()

    def write_body(self, body: Bytes, more_body: bool) -> None:
        """Write a piece of the body, the last one unless *more_body*. Raises `ASGIProtocolError` for a wrong length."""
        if type(body) is not bytes:
            body = bytes(body)
        if self._framing is _CHUNKED:
            self._write_chunk(body, more_body)
        elif self._framing is _NO_BODY:
            # RFC 9112, 6.3. As in uvicorn, a body that a GET route sends in response to HEAD is dropped, and a body
            # after a status of 204 or 304 is an error.
            if body and self._line.method != "HEAD":
                raise ASGIProtocolError(
                    "Response content longer than Content-Length: a response with status 204 or 304 has no body, but "
                    f"{len(body)} bytes were sent."
                )
        else:
            self._write_plain(body, more_body)

    def _write_chunk(self, body: bytes, more_body: bool) -> None:
        """Write a chunk (RFC 9112, 7.1)."""
        size = len(body)
        if 0 < size <= _SMALL_CHUNK:
            self._write_tail(b"%x\r\n%b\r\n" % (size, body))  # to copy it takes less time than three writes
        elif size:
            self._write_tail(b"%x\r\n" % size)
            self._write_tail(body)
            self._write_tail(b"\r\n")
        if not more_body:
            self._write_tail(b"0\r\n\r\n")
        if self.observer is not None:
            self.observer.response_body(body)

    def _write_tail(self, data: bytes) -> None:
        """Write bytes that follow the head."""
        self._transport.write(data)
        self._tail_written += len(data)

    def _write_plain(self, body: bytes, more_body: bool) -> None:
        left = self._body_left
        if left is not None:
            if len(body) > left:
                raise ASGIProtocolError(
                    f"Response content longer than Content-Length: {len(body)} bytes were sent when {left} were left."
                )
            self._body_left = left = left - len(body)
        if body:
            self._transport.write(body)
            self._tail_written += len(body)
            if self.observer is not None:
                self.observer.response_body(body)
        if left and not more_body:
            raise ASGIProtocolError(
                f"Response content shorter than Content-Length: it ends when {left} bytes are left."
            )

    def end(self) -> None:
        """End the complete response, so that another request can follow."""
        self._framing = None

    def write_500(self) -> None:
        """Write uvicorn's response for a failed app, unless the app's response has started."""
        if self._framing is None:
            to_head = self._line.method == "HEAD"
            self._write_whole(plain_response(500, "Internal Server Error", to_head=to_head), self.observer)

    def refuse(self, problem: BadRequest, observer: Observer | None) -> None:
        """Write an error response for invalid bytes, unless the app's response has started."""
        if self._framing is None:
            text = f"{problem.reason}\n"
            response = plain_response(problem.status, text, to_head=problem.to_head, headers=problem.headers)
            self._write_whole(response, observer)

    def _write_whole(self, response: bytes, observer: Observer | None) -> None:
        self._transport.write(response)
        if observer is not None:
            observer.response_started()
            observer.response_body(response.partition(b"\r\n\r\n")[2])


def _are_bytes(headers: Iterable[Iterable[bytes]]) -> bool:
    """Whether headers that equal valid ones are valid: a `bytearray` equals `bytes`, but is an error."""
    for name, value in headers:  # noqa: SIM110 # a loop takes half the time of all()
        if type(name) is not bytes or type(value) is not bytes:
            return False
    return True
