"""The frames of an accepted WebSocket (RFC 6455, 5 to 7): messages, pings and the close. Independent of ASGI.

aiohttp's own reader and writer parse and serialise the frames.
"""

import asyncio
import enum
import errno
import struct
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Final, cast

from aiohttp import ClientConnectionResetError, WSCloseCode, WSMessage, WSMsgType
from aiohttp.http import WebSocketError
from aiohttp.streams import EofStream

from asgi_connector._aiohttp.frames import FrameReader, FrameWriter
from asgi_connector._http1.handshake import Handshake
from asgi_connector._observer import Observer

from .flow import WriteFlow

CLOSE_TIMEOUT: Final = 10.0  # seconds, as in uvicorn
MAX_REASON: Final = 123  # bytes that fit into a close frame (RFC 6455, 5.5)
MAX_CODE: Final = 4999  # RFC 6455, 7.4.2
NO_CODE: Final = 1005  # a close frame without a code (RFC 6455, 7.1.5)


class _State(enum.Enum):
    OPEN = "open"
    CLOSING = "this end has sent its last frame, and waits for the client to close"
    CLOSED = "closed by the client"


class Frames:
    """The server's end of a WebSocket.

    After `receive()` has returned `None`, `close_code` and `close_reason` are those of the first close frame. The code
    is 1005 if that frame has none, and 1006 if there was no close frame (RFC 6455, 7.1.5).
    """

    __slots__ = (
        "_client_left",
        "_flow",
        "_loop",
        "_observer",
        "_pong_due",
        "_reader",
        "_receiving",
        "_state",
        "_timer",
        "_transport",
        "_writer",
        "close_code",
        "close_reason",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        flow: WriteFlow,
        handshake: Handshake,
        observer: Observer | None,
        client_left: Callable[[], None],
    ) -> None:
        """*client_left* is called when no message can be received from the client or sent to it any more."""
        self.close_code: int = WSCloseCode.ABNORMAL_CLOSURE
        self.close_reason = ""
        self._flow = flow
        self._client_left = client_left
        self._transport = transport
        self._loop = loop
        self._observer = observer
        self._state = _State.OPEN
        self._pong_due: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._receiving = asyncio.Lock()
        self._reader = FrameReader(self, transport, loop, bool(handshake.compress), observer)
        self._writer = FrameWriter(
            self._reader.flow,
            transport,
            compress=handshake.compress,
            no_context_takeover=handshake.no_context_takeover,
        )

    @property
    def open(self) -> bool:
        """Whether neither end has closed."""
        return self._state is _State.OPEN

    # What the connection reports.

    def feed(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        self._reader.feed(data)

    def writable(self) -> None:
        """Send the delayed pong, if any, because the connection is writable again."""
        if self._pong_due is not None:
            payload, self._pong_due = self._pong_due, None
            self.pinged(payload)

    def read_on(self) -> None:
        """Stop pausing the client, which sends no more messages and need not wait until the app has received them."""
        self._reader.read_on()

    def lost(self) -> None:
        """Note that the connection has ended. Messages that have arrived can still be received."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.read_on()
        self._reader.feed_eof()

    # What the reader reports.

    def pinged(self, payload: bytes) -> None:
        """Answer a ping (RFC 6455, 5.5.3). While writing is paused, only the last ping is kept and answered later."""
        if self._state is not _State.OPEN:
            return
        if self._flow.paused:
            self._pong_due = payload
        else:
            self._write_control(payload, WSMsgType.PONG)

    def closed_by_client(self, code: int, reason: str) -> None:
        """Answer a close frame with the same code (RFC 6455, 5.5.1), unless it is an answer, and disconnect (7.1.1)."""
        if self._state is _State.OPEN and (code == WSCloseCode.ABNORMAL_CLOSURE or code > MAX_CODE):
            # aiohttp's reader accepts these codes, though they are invalid (RFC 6455, 7.4.1 and 7.4.2).
            self.failed(WebSocketError(WSCloseCode.PROTOCOL_ERROR, f"Invalid close code: {code}"))
            return
        if self._state is _State.OPEN:
            self._end(code or NO_CODE, reason)
            self._write_control(_close_payload(code, reason) if code else b"", WSMsgType.CLOSE)
            self._client_left()
        self._state = _State.CLOSED
        self._transport.close()

    def failed(self, exc: BaseException) -> None:
        """Fail the connection (RFC 6455, 7.1.7)."""
        if self._state is _State.OPEN:
            code = exc.code if isinstance(exc, WebSocketError) else WSCloseCode.PROTOCOL_ERROR
            self.close_now(code, str(exc).encode()[:MAX_REASON].decode(errors="ignore"))
            self._client_left()

    def restart(self) -> None:
        """Close, because the server restarts."""
        if self._state is _State.OPEN:
            self.close_now(WSCloseCode.SERVICE_RESTART, "")
            self._client_left()

    # What the cycle asks for.

    async def receive(self) -> WSMessage | None:
        """Return the next message, or `None` after the last one."""
        async with self._receiving:
            try:
                return cast(WSMessage, await self._reader.read())
            except EofStream:
                return None

    async def send(self, payload: bytes, kind: WSMsgType) -> None:
        """Send a message when writing is not paused. Raises `ConnectionResetError` if the client has disconnected."""
        await self._wait_until_writable()
        self._writer.write(payload, kind)
        if self._observer is not None:
            self._observer.message(payload.decode() if kind is WSMsgType.TEXT else payload, from_client=False)

    async def close(self, code: int, reason: str) -> None:
        """Close when writing is not paused. Raises `ConnectionResetError` if the client has disconnected."""
        await self._wait_until_writable()
        self.close_now(code, reason)

    async def _wait_until_writable(self) -> None:
        if self._flow.paused:
            await self._flow.drain()
        if self._transport.is_closing():
            self._client_left()  # connection_lost() will report it only later
            raise client_gone()
        if self._state is not _State.OPEN:
            raise client_gone()

    def close_now(self, code: int, reason: str) -> None:
        """Send a close frame, and give the client `CLOSE_TIMEOUT` seconds to answer with its own (RFC 6455, 7.1.1)."""
        self._write_control(_close_payload(code, reason), WSMsgType.CLOSE)
        self._end(code, reason)

    def end_with_exception(self) -> None:
        """Send no more frames. The client closes when it has received the app's exception."""
        self._state = _State.CLOSING
        self._reader.end_messages()

    def _end(self, code: int, reason: str) -> None:
        self._state = _State.CLOSING
        self.close_code = code
        self.close_reason = reason
        if self._observer is not None:
            self._observer.closed(code, reason)
        if not self._transport.is_closing():  # a close frame may be found after the connection has been lost
            self._timer = self._loop.call_later(CLOSE_TIMEOUT, self._transport.abort, context=Context())
        self._reader.end_messages()

    def _write_control(self, payload: bytes, kind: WSMsgType) -> None:
        with suppress(ClientConnectionResetError):  # the client has disconnected
            self._writer.write(payload, kind)


def _close_payload(code: int, reason: str) -> bytes:
    return struct.pack("!H", code) + reason.encode()


def client_gone() -> ConnectionResetError:
    """Return the error that sending to a disconnected client raises: an `OSError`, as in the ASGI spec since 2.4."""
    return ConnectionResetError(errno.ECONNRESET, "The client has closed the WebSocket; nothing can be sent any more")
