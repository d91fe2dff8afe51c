"""Bodies without their content encoding. Imports nothing from the package."""

import zlib
from gzip import GzipFile
from io import BytesIO
from typing import Final

_MAX_DECODED_SIZE: Final = 64 * 1024 * 1024  # bytes: a small body must not become a large file
_MAX_MEMBERS: Final = 1024  # as in aiohttp


def decoded(body: bytes, encoding: str) -> bytes:
    """Decode gzip or deflate. A body that is invalid, or in another encoding, is returned as it was sent."""
    encoding = encoding.strip().lower()
    result: bytes | None = None
    if encoding in ("gzip", "x-gzip"):
        result = _gunzipped(body)
    elif encoding == "deflate":
        result = _inflated(body, zlib.MAX_WBITS)
        if result is None:
            # Some servers leave out zlib's header and checksum (RFC 9110, 8.4.1.2, note).
            result = _inflated(body, -zlib.MAX_WBITS)
    return body if result is None else result


def _gunzipped(body: bytes) -> bytes | None:
    """Decode all members of a gzip file (RFC 1952, 2.2); `None` if it is invalid, incomplete or too large."""
    try:
        with GzipFile(fileobj=BytesIO(body)) as file:
            result = file.read(_MAX_DECODED_SIZE + 1)
    except (OSError, EOFError, zlib.error):
        return None
    return result if len(result) <= _MAX_DECODED_SIZE else None


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
