"""Raw WebSocket frames: a test writes the client's bytes, and reads the server's frames one by one."""

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp._websocket.reader import WebSocketDataQueue

from asgi_connector._network.transport import MemoryTransport
from asgi_connector._types import ASGIApp, Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.raw import RawConnection, raw_connection

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
MASK = b"\x37\xfa\x21\x3d"
OPENING = (
    b"GET /socket HTTP/1.1\r\nHost: app.internal\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = MASK) -> bytes:
    """Return the bytes of a client's frame (RFC 6455, 5.2)."""
    masked = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0, masked | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0, masked | 126, size)
    else:
        head = struct.pack("!BBQ", 0, masked | 127, size)
    first = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if mask:
        key = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)
    return first + head[1:] + mask + payload


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


def deflate(data: bytes) -> bytes:
    """Compress a message that can be read without the earlier messages (RFC 7692, 7.2.1)."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def in_pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = sorted({cut % len(data) for cut in cuts} - {0}) if data else []
    return [data[start:end] for start, end in zip([0, *edges], [*edges, len(data)], strict=True)]


def text(data: str) -> Message:
    return {"type": "websocket.receive", "text": data}


def binary(data: bytes) -> Message:
    return {"type": "websocket.receive", "bytes": data}


def disconnect(code: int, reason: str = "") -> Message:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def sending(data: bytes | str) -> Message:
    return {"type": "websocket.send", "bytes" if isinstance(data, bytes) else "text": data}


@dataclass(frozen=True)
class Frame:
    """A frame of the server."""

    opcode: int
    payload: bytes = b""
    rsv: int = 0


class RawSocket:
    """The client's end of a WebSocket. It replaces aiohttp's reader: it writes bytes, and reads frames one by one."""

    def __init__(self, connection: RawConnection) -> None:
        protocol = connection._protocol
        assert isinstance(protocol.transport, MemoryTransport)
        self.connection = connection
        self.transport = protocol.transport
        self.server = protocol.transport._peer
        self.ended = False
        self.data = bytearray()
        self._news = asyncio.Event()
        queue = WebSocketDataQueue(protocol, 2**16, loop=asyncio.get_running_loop())
        protocol.set_parser(self, queue)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        self._news.set()
        return False, b""

    def feed_eof(self) -> None:
        self.ended = True
        self._news.set()

    def write(self, *frames: bytes) -> None:
        self.transport.write(b"".join(frames))

    async def send(self, *pieces: bytes) -> None:
        """Send each piece to the server in a separate call. Return when it has received all of them."""
        await self.connection.send(*pieces)

    async def next(self) -> Frame | None:
        """Return the next frame; `None` at the end of the connection."""
        while (found := self._take()) is None:
            if self.ended:
                assert not self.data
                return None
            self._news.clear()
            await self._news.wait()
        return found

    async def rest(self) -> list[Frame]:
        """Return all frames until the end of the connection."""
        frames = []
        while (found := await self.next()) is not None:
            frames.append(found)
        return frames

    def _take(self) -> Frame | None:
        if len(self.data) < 2:
            return None
        first, size = self.data[0], self.data[1]
        assert first & 0x80, "a server has no reason to fragment"
        at = 2
        if size in (126, 127):
            at = 4 if size == 126 else 10
            if len(self.data) < at:
                return None
            size = int.from_bytes(self.data[2:at])
        assert size < 1 << 63, "a server does not mask"
        if len(self.data) < at + size:
            return None
        payload = bytes(self.data[at : at + size])
        del self.data[: at + size]
        return Frame(first & 0xF, payload, first >> 4 & 0x7)


@asynccontextmanager
async def raw_socket(app: ASGIApp, *, headers: bytes = b"", **session_settings: bool) -> AsyncIterator[RawSocket]:
    async with session_to(app, **session_settings) as session, raw_connection(session) as connection:
        await connection.send(OPENING + headers + b"\r\n")
        status, _, _ = await connection.head()
        assert status == 101
        yield RawSocket(connection)


class Collector:
    """An app that keeps all messages up to the disconnect. It waits for `may_receive` before it receives any."""

    def __init__(self, *, may_receive: bool = True) -> None:
        self.received: list[Message] = []
        self.news = asyncio.Event()
        self.may_receive = asyncio.Event()
        self.ended = asyncio.Event()
        if may_receive:
            self.may_receive.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await send(ACCEPT)
        await self.may_receive.wait()
        while not self.received or self.received[-1]["type"] == "websocket.receive":
            self.received.append(await receive())
            self.news.set()
        assert await receive() == self.received[-1]
        self.ended.set()

    async def until_received(self, count: int) -> None:
        while len(self.received) < count:
            self.news.clear()
            await self.news.wait()
