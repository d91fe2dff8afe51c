"""Builders of HTTP/1.1 response heads, which also choose the framing of the body. Pure functions.

Values from the app are checked wherever a mistake, or an attacker's value, would change what the client reads.
"""

import enum
import http
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from asgi_connector._exceptions import ASGIProtocolError
from asgi_connector._types import Headers

from .request import connection_options

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_NOT_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110, 5.5
_DIGITS: Final = re.compile(rb"[0-9]{1,19}")

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in http.HTTPStatus
}


class Framing(enum.Enum):
    """How the client finds the end of a response's body (RFC 9112, 6.3)."""

    NO_BODY = "there is none"
    LENGTH = "content-length"
    CHUNKED = "chunked"
    CLOSE = "the end of the connection"


_CHUNKED, _CLOSE, _LENGTH, _NO_BODY = Framing.CHUNKED, Framing.CLOSE, Framing.LENGTH, Framing.NO_BODY


def build_head(
    status: int,
    headers: Iterable[Iterable[bytes]],
    method: str,
    http_version: str,
    close: bool,
    message: str = "http.response.start",
) -> tuple[bytes, Framing, int | None, bool]:
    """Check and serialise a response's head, with the headers of the app's ASGI message *message*.

    The framing (RFC 9112, 6) is added, and with *close* a ``Connection: close``. An app's ``transfer-encoding`` is
    dropped, as the ASGI spec says. Returns the bytes, the framing and length of the body, and whether the connection
    ends. Raises `ASGIProtocolError` if a header is not a pair of bytes, or would split the response.
    """
    content_length: int | None = None
    app_closes = False
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    try:
        for name, value in headers:
            short = type(name) is type(value) is bytes and len(value) <= _SHORT
            line, effect = _short_line(name, value) if short else _line(name, value)
            lines.append(line)
            if effect is None:
                continue
            if effect is _CLOSES:
                app_closes = True
            elif content_length is None:
                content_length = effect
            else:
                raise ASGIProtocolError(f"More than one Content-Length: {value!r} after '{content_length}'.")
    except (TypeError, ValueError) as exc:
        raise ASGIProtocolError(
            f"Expected the 'headers' of '{message}' to be pairs of bytes, name and value: {exc}."
        ) from exc
    framing = _framing_of(status, method, http_version, content_length)
    if framing is _CHUNKED:
        lines.append(b"transfer-encoding: chunked\r\n")
    close = close or framing is _CLOSE
    lines.append(b"connection: close\r\n\r\n" if close and not app_closes else b"\r\n")
    return b"".join(lines), framing, content_length, close or app_closes


def _framing_of(status: int, method: str, http_version: str, content_length: int | None) -> Framing:
    """Return how the body ends (RFC 9112, 6.3). Responses to HEAD, 204 and 304 have no body, whatever their headers."""
    if method == "HEAD" or status == 204 or status == 304:
        return _NO_BODY
    if content_length is not None:
        return _LENGTH
    return _CHUNKED if http_version == "1.1" else _CLOSE


class _Effect(enum.Enum):
    CLOSES = "the connection ends with this response"


_CLOSES: Final = _Effect.CLOSES

_SHORT: Final = 64  # bytes of a value


def _line(name: bytes, value: bytes) -> tuple[bytes, int | _Effect | None]:
    """Check and serialise one header. Returns the line, and the content-length or the `_Effect`, if it has one."""
    if not isinstance(name, bytes) or not _TOKEN.fullmatch(name):
        raise ASGIProtocolError(f"Invalid HTTP header name: expected a token in bytes, but got {name!r}.")
    if not isinstance(value, bytes) or _NOT_IN_VALUE.search(value):
        raise ASGIProtocolError(
            f"Invalid HTTP header value: expected bytes without control characters for {name!r}, but got {value!r}."
        )
    line = b"%b: %b\r\n" % (name, value)
    lower = name.lower()
    if lower == b"transfer-encoding":
        return b"", None
    if lower == b"connection" and b"close" in connection_options(value):
        return line, _CLOSES
    if lower == b"content-length":
        if not _DIGITS.fullmatch(value):
            raise ASGIProtocolError(f"Invalid Content-Length: expected a number, but got {value!r}.")
        return line, int(value)
    return line, None


_short_line = lru_cache(maxsize=1024)(_line)
"""A cached `_line()`, because apps send the same headers again and again. Only short headers are cached."""


_HANDSHAKE: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"transfer-encoding",
        b"upgrade",
    }
)


def build_upgrade_head(handshake: Headers, headers: Iterable[Iterable[bytes]]) -> bytes:
    """Serialise the 101 head that ends HTTP on a connection: the headers of the handshake, then the app's, checked.

    Raises `ASGIProtocolError` as `build_head()` does, and for a header that belongs to the handshake.
    """
    lines = [_STATUS_LINES[101], *(b"%b: %b\r\n" % header for header in handshake)]
    try:
        for name, value in headers:
            line, _ = _line(name, value)
            lower = name.lower()
            if lower == b"sec-websocket-protocol":
                raise ASGIProtocolError(
                    "Expected the 'subprotocol' of 'websocket.accept' to name the subprotocol, but got it in the "
                    f"'headers': {name!r}: {value!r}."
                )
            if lower in _HANDSHAKE:
                raise ASGIProtocolError(f"Expected headers beside those of the handshake, but got {name!r}: {value!r}.")
            lines.append(line)
    except (TypeError, ValueError) as exc:
        raise ASGIProtocolError(
            f"Expected the 'headers' of 'websocket.accept' to be pairs of bytes, name and value: {exc}."
        ) from exc
    return b"".join([*lines, b"\r\n"])


def plain_response(status: int, text: str, *, to_head: bool, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """Build a complete response that the server itself sends before it closes the connection."""
    body = text.encode()
    head, *_ = build_head(
        status,
        [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)), *headers],
        "HEAD" if to_head else "GET",
        "1.1",
        close=True,
    )
    return head if to_head else head + body
