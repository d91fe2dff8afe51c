"""Where a request or a response ends in the bytes of its connection (RFC 9112, 6.3). No I/O."""

from abc import ABC, abstractmethod
from typing import Final

from .request import BadRequest, BodyReader, ChunkedReader, Fields, LengthReader, parse_fields

_NO_BODY: Final = (101, 204, 304)


class MessageReader(ABC):
    """Reads one message. Bytes that cannot be read are the end of it: what follows them is an error of the receiver."""

    def __init__(self) -> None:
        self._head = b""
        self._body: BodyReader | None = None  # None before the head is complete, and for a body that has no end

    def feed(self, data: bytes) -> bool:
        """Take the next bytes. Returns whether the message is complete."""
        try:
            if self._body is None:
                return self._read_head(data)
            self._body.feed(data)
        except BadRequest:
            return True
        return self._body.complete

    def _read_head(self, data: bytes) -> bool:
        if self.ends_with_connection():
            return False
        self._head += data
        head, separator, rest = self._head.partition(b"\r\n\r\n")
        if not separator:
            return False
        line, _, block = head.partition(b"\r\n")
        self._body = self._body_after(line, parse_fields(block))
        if self._body is None:
            return False
        self._body.feed(rest)
        return self._body.complete

    @abstractmethod
    def ends_with_connection(self) -> bool:
        """Whether the message is complete when its connection ends here."""
        ...

    @abstractmethod
    def _body_after(self, line: bytes, fields: Fields) -> BodyReader | None:
        """Return the reader of the body, or `None` if the body ends with the connection."""
        ...


class RequestEnd(MessageReader):
    """Finds the end of a request. Before a body that waits for a ``100 Continue``, the head is the whole message."""

    def ends_with_connection(self) -> bool:
        return False

    def _body_after(self, line: bytes, fields: Fields) -> BodyReader | None:
        if fields.chunked and not fields.expect_continue:
            return ChunkedReader()
        return LengthReader(0 if fields.expect_continue else fields.content_length)


class ResponseEnd(MessageReader):
    """Finds the end of the final response to a request with the *method*. A 101 is its head alone."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self._method = method
        self._until_close = False

    def ends_with_connection(self) -> bool:
        return self._until_close

    def _body_after(self, line: bytes, fields: Fields) -> BodyReader | None:
        status = int(line.split(b" ")[1])
        if self._method == "HEAD" or status in _NO_BODY:
            return LengthReader(0)
        if fields.chunked:
            return ChunkedReader()
        if any(name == b"content-length" for name, _ in fields.headers):
            return LengthReader(fields.content_length)
        self._until_close = True
        return None
