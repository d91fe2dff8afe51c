"""The content encodings of a body: gzip and deflate. Pure functions.

The standard library of the oldest supported Python has no brotli and no zstd, so these are not decoded.
"""

import zlib
from gzip import GzipFile
from io import BytesIO
from typing import Final

_MAX_DECODED_SIZE: Final = 64 * 1024 * 1024  # bytes: a small body must not take much memory
_MAX_MEMBERS: Final = 1024  # as in aiohttp


def decode(body: bytes, encoding: str) -> bytes:
    """*body* without *encoding*, the value of its Content-Encoding header.

    Raises `ValueError`, whose text continues a sentence that begins with "body", if that is not possible.
    """
    name = encoding.strip().lower()
    if not body or name in ("", "identity"):
        return body
    decoded: bytes | None
    if name in ("gzip", "x-gzip"):
        decoded = _gunzipped(body)
    elif name == "deflate":
        decoded = _inflated(body, zlib.MAX_WBITS)
        if decoded is None:
            # Some servers leave out zlib's header and checksum (RFC 9110, 8.4.1.2, note).
            decoded = _inflated(body, -zlib.MAX_WBITS)
    else:
        raise ValueError(f"has the content encoding {name!r}, but only gzip and deflate are decoded")
    if decoded is None:
        raise ValueError(f"cannot be decoded from {name}: it is invalid, incomplete, or larger than 64 MiB")
    return decoded


def decoded_or_as_sent(body: bytes, encoding: str) -> bytes:
    """*body* without *encoding*, or *body* itself if it cannot be decoded."""
    try:
        return decode(body, encoding)
    except ValueError:
        return body


def _gunzipped(body: bytes) -> bytes | None:
    """Decode all members of a gzip file (RFC 1952, 2.2); `None` if it is invalid, incomplete or too large."""
    try:
        with GzipFile(fileobj=BytesIO(body)) as file:
            decoded = file.read(_MAX_DECODED_SIZE + 1)
    except (OSError, EOFError, zlib.error):
        return None
    return decoded if len(decoded) <= _MAX_DECODED_SIZE else None


def _inflated(body: bytes, wbits: int) -> bytes | None:
    """Decode deflate streams as aiohttp's client does; `None` if the body is invalid, incomplete or too large."""
    parts: list[bytes] = []
    size = 0
    for _ in range(_MAX_MEMBERS):
        inflating = zlib.decompressobj(wbits)
        try:
            parts.append(inflating.decompress(body, _MAX_DECODED_SIZE + 1 - size))
        except zlib.error:
            return None
        size += len(parts[-1])
        if not inflating.eof or size > _MAX_DECODED_SIZE:
            return None
        body = inflating.unused_data
        if not body:
            return b"".join(parts)
    return None
