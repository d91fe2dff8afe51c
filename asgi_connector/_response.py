"""A response's status and headers -> the bytes of its head, and how its body is framed. Pure functions.

Apps are checked where a mistake, or an attacker's value, would become bytes that mean something else to the client.
"""

import http
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ._exceptions import ASGIProtocolError
from ._parser import connection_options

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_NOT_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110, 5.5
_DIGITS: Final = re.compile(rb"[0-9]{1,19}")

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in http.HTTPStatus
}


@dataclass(slots=True)
class ResponseHead:
    """The head of a response, and what it says of its body and its connection."""

    data: bytes
    has_body: bool
    content_length: int | None
    chunked: bool
    close: bool


def build_head(
    status: int, headers: Iterable[Iterable[bytes]], *, method: str, http_version: str, close: bool
) -> ResponseHead:
    """Check and serialise a response's head.

    Headers go out as the app gave them; what is added is the framing (RFC 9112, 6) and, with *close*, the
    ``Connection: close`` that announces it. An app's own ``transfer-encoding`` is dropped, as the ASGI spec says.

    Raises `ASGIProtocolError` if a header is not a pair of bytes, or would split the response.
    """
    # RFC 9112, 6.3: a response to HEAD, and any 204 or 304, ends at its head, whatever its headers say.
    has_body = method != "HEAD" and status != 204 and status != 304
    content_length: int | None = None
    app_closes = False
    lines = [_STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode("ascii")]
    for name, value in _pairs(headers):
        lower = _checked_name(name)
        if not isinstance(value, bytes) or _NOT_IN_VALUE.search(value):
            raise ASGIProtocolError(
                f"Invalid HTTP header value: expected bytes without control characters for {name!r}, but got {value!r}."
            )
        if lower == b"transfer-encoding":
            continue
        if lower == b"content-length":
            content_length = _read_length(value, content_length)
        elif lower == b"connection":
            app_closes = app_closes or b"close" in connection_options(value)
        lines += (name, b": ", value, b"\r\n")
    chunked = has_body and content_length is None and http_version == "1.1"
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    close = close or app_closes or (has_body and content_length is None and not chunked)
    if close and not app_closes:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    return ResponseHead(b"".join(lines), has_body, content_length, chunked, close)


def _pairs(headers: Iterable[Iterable[bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """Any iterable of pairs will do: a list of tuples, a tuple of lists, a generator."""
    try:
        for pair in headers:
            name, value = pair
            yield name, value
    except (TypeError, ValueError) as exc:
        raise ASGIProtocolError(
            f"Expected the 'headers' of 'http.response.start' to be (name, value) pairs of bytes: {exc}."
        ) from exc


def _checked_name(name: bytes) -> bytes:
    if not isinstance(name, bytes) or not _is_token(name):
        raise ASGIProtocolError(f"Invalid HTTP header name: expected a token in bytes, but got {name!r}.")
    return name.lower()


@lru_cache(maxsize=1024)
def _is_token(name: bytes) -> bool:
    return _TOKEN.fullmatch(name) is not None


def _read_length(value: bytes, earlier: int | None) -> int:
    if not _DIGITS.fullmatch(value):
        raise ASGIProtocolError(f"Invalid Content-Length: expected a number, but got {value!r}.")
    if earlier is not None:
        raise ASGIProtocolError(f"More than one Content-Length: {value!r} after '{earlier}'.")
    return int(value)


def plain_response(status: int, text: str, *, to_head: bool) -> bytes:
    """A whole response of the server's own, after which it closes the connection."""
    body = text.encode()
    head = build_head(
        status,
        [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))],
        method="HEAD" if to_head else "GET",
        http_version="1.1",
        close=True,
    )
    return head.data + body if head.has_body else head.data
