"""The opening handshake of a WebSocket (RFC 6455, 4.2): the client's request, and the response head that accepts it.

Pure functions. The only extension is permessage-deflate (RFC 7692), which aiohttp implements.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from aiohttp.http import WS_KEY, ws_ext_gen, ws_ext_parse

from asgi_connector._exceptions import ASGIProtocolError
from asgi_connector._types import Headers

from .request import BadRequest, Fields, RequestLine, split_list
from .response import build_upgrade_head

_VERSION: Final = b"13"


@dataclass(frozen=True, slots=True)
class Handshake:
    """The options that the client of a WebSocket asks for."""

    key: bytes
    subprotocols: tuple[str, ...]
    compress: int
    """The window bits of permessage-deflate; 0 for no compression."""
    no_context_takeover: bool
    """Whether the server compresses each message on its own."""


def read_handshake(line: RequestLine, fields: Fields) -> Handshake:
    """Read a WebSocket handshake (RFC 6455, 4.2.1, 4.2.2, 4.4). Raises `BadRequest` if it is not valid."""
    if line.method != "GET":
        raise BadRequest(400, f"the method that opens a WebSocket must be GET, not {line.method}")
    if fields.chunked or fields.content_length:
        raise BadRequest(400, "a request that opens a WebSocket must not have a body")
    versions = _values(fields, b"sec-websocket-version")
    if versions != [_VERSION]:
        raise BadRequest(
            426,
            "the Sec-WebSocket-Version must be 13",
            [(b"upgrade", b"websocket"), (b"sec-websocket-version", _VERSION)],
        )
    keys = _values(fields, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise BadRequest(400, "the Sec-WebSocket-Key must be 16 bytes in base64")
    offers = [name for value in _values(fields, b"sec-websocket-protocol") for name in split_list(value)]
    compress, no_context_takeover = _read_extensions(_values(fields, b"sec-websocket-extensions"))
    return Handshake(keys[0], tuple(name.decode("latin-1") for name in offers), compress, no_context_takeover)


def accept_head(handshake: Handshake, subprotocol: str | None, headers: Iterable[Iterable[bytes]]) -> bytes:
    """Build the head that accepts *handshake* (RFC 6455, 4.2.2). The app's *headers* follow those of the protocol."""
    accept = base64.b64encode(hashlib.sha1(handshake.key + WS_KEY, usedforsecurity=False).digest())
    ours: Headers = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", accept),
    ]
    if subprotocol is not None:
        if subprotocol not in handshake.subprotocols:
            raise ASGIProtocolError(
                f"Expected the 'subprotocol' of 'websocket.accept' to be one of those that the client offers, "
                f"{list(handshake.subprotocols)}, or None, but got {subprotocol!r}."
            )
        ours.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
    if handshake.compress:
        extension = ws_ext_gen(handshake.compress, isserver=True, server_notakeover=handshake.no_context_takeover)
        ours.append((b"Sec-WebSocket-Extensions", extension.encode("ascii")))
    return build_upgrade_head(ours, headers)


def _read_extensions(values: list[bytes]) -> tuple[int, bool]:
    """Return the parameters of the first acceptable offer of permessage-deflate (RFC 7692, 5), or ``(0, False)``."""
    for offer in (offer for value in values for offer in split_list(value)):
        if offer.partition(b";")[0].rstrip() == b"permessage-deflate":
            with suppress(ValueError):  # a parameter that is not a number
                compress, no_context_takeover = ws_ext_parse(offer.decode("latin-1"), isserver=True)
                if compress:
                    return compress, no_context_takeover
    return 0, False


def _values(fields: Fields, name: bytes) -> list[bytes]:
    return [value for other, value in fields.headers if other == name]


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False
