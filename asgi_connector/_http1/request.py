"""Parsers of HTTP/1.1 requests: the head, and the framing of the body. No I/O.

The bytes come from aiohttp's writer. It writes the names, values and targets that its user passes. So the parsers are
simple and strict. They accept the one form in which aiohttp writes a well-formed request and refuse all others (RFC
9112, 2.2, 3 and 5.1), so that an app never gets a different request than the one that was sent.
"""

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from asgi_connector._types import Headers

MAX_LINE: Final = 64 * 1024
MAX_HEAD: Final = 1024 * 1024

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_TARGET: Final = re.compile(rb"/[\x21-\x7e]*")  # RFC 9112, 3.2.1, origin form
_DIGITS: Final = re.compile(rb"[0-9]+")
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,16}")
_CONTROLS: Final = bytes([*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])  # except tab, CR and LF
_VERSIONS: Final = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}


class BadRequest(Exception):
    """The bytes are not a request that can be served. The answer has *status*, *headers*, and *reason* as its body."""

    def __init__(self, status: int, reason: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.to_head = False
        """Whether the method is HEAD, so that the response has no body (RFC 9110, 9.3.2)."""


@dataclass(slots=True)
class RequestLine:
    method: str
    target: bytes
    http_version: str


@dataclass(slots=True)
class Fields:
    """The header fields of a request, and the values that matter for the connection."""

    headers: Headers
    """All fields, in order, with duplicates. Names are in lower case."""
    content_length: int = 0
    chunked: bool = False
    close: bool = False
    """``Connection: close``"""
    expect_continue: bool = False
    """``Expect: 100-continue``"""
    upgrade: bool = False
    """``Connection: upgrade``"""
    websocket: bool = False
    """``Upgrade: websocket``"""


def parse_request_line(line: bytes) -> RequestLine:
    try:
        method, target, version = line.split(b" ")
    except ValueError:
        raise BadRequest(400, "the request line must be three parts with a single space between them") from None
    http_version = _VERSIONS.get(version)
    if http_version is None:
        raise BadRequest(400, "the version must be HTTP/1.1 or HTTP/1.0")
    if method == b"CONNECT":
        raise BadRequest(501, "CONNECT is not implemented")
    if not _TOKEN.fullmatch(method):
        raise BadRequest(400, "the method must be a token")
    if not _TARGET.fullmatch(target):
        raise BadRequest(400, "the target must be a path of visible ASCII characters")
    return RequestLine(method.decode("ascii"), target, http_version)


def parse_fields(block: bytes) -> Fields:
    """Parse the header block: the bytes between the request line and the empty line, without their last CRLF."""
    lines = block.split(b"\r\n") if block else []
    breaks = max(len(lines) - 1, 0)
    # One check of the whole block finds every control byte, and every CR or LF that is not part of a line ending.
    if (
        len(block.translate(None, _CONTROLS)) != len(block)
        or block.count(b"\r") != breaks
        or block.count(b"\n") != breaks
    ):
        raise BadRequest(400, "a header has a control character")
    fields = Fields([])
    for line in lines:
        name, separator, value = line.partition(b": ")
        if not separator:
            raise BadRequest(400, "a header must be a name, a colon, a space and a value")
        name = _lower_name(name)
        value = value.strip(b" \t")  # RFC 9112, 5.1
        fields.headers.append((name, value))
        if name in _MEANINGFUL:
            _note(fields, name, value)
    if fields.chunked and any(name == b"content-length" for name, _ in fields.headers):
        raise BadRequest(400, "there must not be both Content-Length and Transfer-Encoding")
    return fields


@lru_cache(maxsize=1024)
def _lower_name(name: bytes) -> bytes:
    if not _TOKEN.fullmatch(name):
        raise BadRequest(400, "a header name must be a token")
    return name.lower()


_MEANINGFUL: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"})


def _note(fields: Fields, name: bytes, value: bytes) -> None:
    """Set the attribute of *fields* that the header field *name* determines."""
    if name == b"content-length":
        if not _DIGITS.fullmatch(value) or len(value) > _MAX_LENGTH_DIGITS:
            raise BadRequest(400, "the Content-Length must be a number")
        if [other for other, _ in fields.headers].count(name) > 1:
            raise BadRequest(400, "there must not be more than one Content-Length")
        fields.content_length = int(value)
    elif name == b"transfer-encoding":
        if value.lower() != b"chunked" or fields.chunked:
            raise BadRequest(400, "the Transfer-Encoding must be chunked")
        fields.chunked = True
    elif name == b"connection":
        options = connection_options(value)
        fields.close = fields.close or b"close" in options
        fields.upgrade = fields.upgrade or b"upgrade" in options
    elif name == b"upgrade":
        fields.websocket = fields.websocket or b"websocket" in connection_options(value)
    else:
        fields.expect_continue = fields.expect_continue or value.lower() == b"100-continue"


_MAX_LENGTH_DIGITS: Final = 19  # the digits of a 64-bit number


def connection_options(value: bytes) -> list[bytes]:
    """Return the options in the value of a Connection field (RFC 9110, 7.6.1), in lower case."""
    return [option.lower() for option in split_list(value)]


def split_list(value: bytes) -> list[bytes]:
    """Return the elements of a field value that is a list (RFC 9110, 5.6.1)."""
    return [element for element in (part.strip(b" \t") for part in value.split(b",")) if element]


class LengthReader:
    """Reads a body of known length (RFC 9112, 6.2)."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def complete(self) -> bool:
        return not self._left

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Split *data* into the bytes of the body and the bytes after it."""
        if len(data) <= self._left:
            self._left -= len(data)
            return data, b""
        body, rest = data[: self._left], data[self._left :]
        self._left = 0
        return body, rest


class _Expect(enum.Enum):
    SIZE = "the size of a chunk"
    CHUNK_END = "the end of a chunk"
    LAST_LINE = "the line after the last chunk"
    NOTHING = "nothing"


class ChunkedReader:
    """Reads a chunked body (RFC 9112, 7.1) as aiohttp writes it: without extensions and trailers."""

    __slots__ = ("_expect", "_left", "_line")

    def __init__(self) -> None:
        self._expect = _Expect.SIZE
        self._left = 0  # bytes of the current chunk still to come
        self._line = b""  # the beginning of a line whose end has not arrived yet

    @property
    def complete(self) -> bool:
        return self._expect is _Expect.NOTHING

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Split *data* into the bytes of the body, decoded, and the bytes after it."""
        if len(data) <= self._left:
            self._left -= len(data)
            return data, b""
        if self._line:
            data = self._line + data
            self._line = b""
        body: list[bytes] = []
        at = 0
        while not self.complete:
            if self._left:
                piece = data[at : at + self._left]
                body.append(piece)
                at += len(piece)
                self._left -= len(piece)
            if (end := data.find(b"\r\n", at)) < 0:
                self._keep(data[at:])
                at = len(data)
                break
            self._read_line(data[at:end])
            at = end + 2
        return body[0] if len(body) == 1 else b"".join(body), data[at:]

    def _keep(self, line: bytes) -> None:
        if len(line) > _MAX_CHUNK_LINE:
            raise BadRequest(400, f"cannot find {self._expect.value}")
        self._line = line

    def _read_line(self, line: bytes) -> None:
        if self._expect is _Expect.SIZE:
            if not _CHUNK_SIZE.fullmatch(line):
                raise BadRequest(400, "the size of a chunk must be a hexadecimal number")
            self._left = int(line, 16)
            self._expect = _Expect.CHUNK_END if self._left else _Expect.LAST_LINE
        elif line:
            raise BadRequest(400, f"cannot find {self._expect.value}")
        else:
            self._expect = _Expect.SIZE if self._expect is _Expect.CHUNK_END else _Expect.NOTHING


_MAX_CHUNK_LINE: Final = 18  # bytes: 16 digits, CR and LF


BodyReader = LengthReader | ChunkedReader
