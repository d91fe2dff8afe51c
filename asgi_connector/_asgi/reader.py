"""A parser of the requests on a connection, one after another. No I/O."""

from asgi_connector._http1.request import (
    MAX_HEAD,
    MAX_LINE,
    BadRequest,
    BodyReader,
    ChunkedReader,
    Fields,
    LengthReader,
    RequestLine,
    parse_fields,
    parse_request_line,
)


class RequestReader:
    """Reads the head of a request, then its body.

    Attributes:
        line, fields: the parsed head of the latest request.
        early: bytes that cannot be used yet: part of a head, the next request, or frames of a WebSocket that the app
            has not accepted.
    """

    __slots__ = ("_body", "_fields_bytes", "_head_bytes", "early", "fields", "line")

    def __init__(self) -> None:
        self.line = RequestLine("", b"", "")
        self.fields = Fields([])
        self.early = b""
        # Requests on one connection are often equal. Bytes that equal those of the previous head are not parsed again.
        self._head_bytes: bytes = b""
        self._fields_bytes: bytes | None = None
        self._body: BodyReader | None = None

    def read_head(self, data: bytes) -> bytes | None:
        """Read the next bytes of a head. Returns the bytes that follow it, or `None` if it is not complete.

        Raises `BadRequest` if the bytes are not a valid request.
        """
        if self.early:
            data, self.early = self.early + data, b""
        if data == self._head_bytes:
            return b""
        end = data.find(b"\r\n\r\n")
        try:
            if end > MAX_LINE or (end < 0 and len(data) > MAX_LINE):
                _check_size(data.removesuffix(b"\r") if end < 0 else data[:end])
            if end < 0:
                self.early = data
                return None
            self._parse(data[:end])
        except BadRequest as exc:
            exc.to_head = data.startswith(b"HEAD ")
            raise
        self._head_bytes = data[: end + 4]
        return data[end + 4 :]

    def _parse(self, head: bytes) -> None:
        start, _, block = head.partition(b"\r\n")
        self.line = parse_request_line(start)
        if block != self._fields_bytes:
            self.fields = parse_fields(block)
            self._fields_bytes = block

    def begin_body(self) -> bool:
        """Expect the body that the head announces (RFC 9112, 6.3). Returns `False` if there is none."""
        fields = self.fields
        if not (fields.chunked or fields.content_length):
            return False
        self._body = ChunkedReader() if fields.chunked else LengthReader(fields.content_length)
        return True

    def read_body(self, data: bytes) -> tuple[bytes, bytes]:
        """Split *data* into the bytes of the body and the bytes after it. Raises `BadRequest` for an invalid chunk."""
        assert self._body is not None
        return self._body.feed(data)

    @property
    def body_complete(self) -> bool:
        return self._body is not None and self._body.complete

    def end_body(self) -> None:
        self._body = None

    def take_early(self) -> bytes:
        """Return and forget the early bytes."""
        early, self.early = self.early, b""
        return early


def _check_size(head: bytes) -> None:
    if len(head) > MAX_HEAD:
        raise BadRequest(431, f"the head of a request must not be larger than {MAX_HEAD} bytes")
    if any(len(line) > MAX_LINE for line in head.split(b"\r\n")):
        raise BadRequest(431, f"a line in the head of a request must not be longer than {MAX_LINE} bytes")
