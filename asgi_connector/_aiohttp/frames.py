"""aiohttp's reader and writer of WebSocket frames, for the server end."""

# pyright: reportPrivateUsage=false

import asyncio
import sys
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Protocol

import aiohttp.http
from aiohttp import WSCloseCode, WSMessage, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.compression_utils import ZLibBackend, ZLibCompressor
from aiohttp.http import WebSocketError, WebSocketReader, WebSocketWriter
from aiohttp.streams import EofStream

from asgi_connector._observer import Observer

MAX_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes, as in uvicorn."""
MESSAGES_HIGH_WATER: Final = 64 * 1024
"""Bytes of messages that may wait for the app before reading stops."""


class ReadingFlow(BaseProtocol):
    """The protocol that a `WebSocketDataQueue` pauses and resumes. It is not set on any transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        super().__init__(loop)
        self.transport = transport
        self._upgraded = True  # for aiohttp 3.14: there is no HTTP parser to pause

    def stop_pausing(self) -> None:
        """Read on, and ignore the queue from now on."""
        if self._reading_paused:
            self.resume_reading()
        self.transport = None


class FrameListener(Protocol):
    """The receiver of frames that are not messages."""

    def pinged(self, payload: bytes) -> None:
        """Called when a ping has arrived."""

    def closed_by_client(self, code: int, reason: str) -> None:
        """Called when a close frame has arrived. *code* is 0 if it has none."""

    def failed(self, exc: BaseException) -> None:
        """Called when bytes have arrived that are not valid frames."""


class FrameReader(WebSocketDataQueue):
    """aiohttp's reader of frames, and the queue of messages that it fills.

    When more than `MESSAGES_HIGH_WATER` bytes of messages wait, it pauses reading from *transport*. Control frames do
    not wait in the queue: the *listener* gets them as they arrive.
    """

    def __init__(
        self,
        listener: FrameListener,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        compress: bool,
        observer: Observer | None,
    ) -> None:
        self._listener = listener
        self._observer = observer
        self._kept: deque[WSMessage] = deque()
        self._ended = False
        self.flow = ReadingFlow(loop, transport)
        super().__init__(self.flow, MESSAGES_HIGH_WATER // 2, loop=loop)  # the queue doubles its limit
        first_size_too_big = MAX_MESSAGE + 1
        self._parser = WebSocketReader(self, first_size_too_big, compress, **DECODE_TEXT)

    def feed(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        self._parser.feed_data(data)

    def read_on(self) -> None:
        """Never pause reading from now on, because the client has sent its last message."""
        self.flow.stop_pausing()

    def end_messages(self) -> None:
        """Accept no further messages. Those that have arrived can still be read.

        They leave aiohttp's queue, because its reader stops before the client's close frame while the queue is full.
        """
        while self._buffer:
            self._kept.append(run_at_once(super().read()))
        self._ended = True
        self.read_on()
        self.feed_eof()

    async def read(self) -> Any:
        """Return the next message. Raises `EofStream` after the last one."""
        if not self._kept:
            try:
                return await super().read()
            except EofStream:
                if not self._kept:  # end_messages() may have been called in the meantime
                    raise
        return self._kept.popleft()

    def feed_data(self, data: Any, size: int) -> None:
        message: WSMessage = data
        if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
            if size > MAX_MESSAGE:  # decompressed, it may have one byte more than the limit of aiohttp's reader
                self.set_exception(
                    WebSocketError(WSCloseCode.MESSAGE_TOO_BIG, f"Message size {size} exceeds limit {MAX_MESSAGE}")
                )
            elif not self._ended:
                super().feed_data(message, size)
                if self._observer is not None:
                    self._observer.message(message.data, from_client=True)
        elif message.type is WSMsgType.PING:
            self._listener.pinged(message.data)
        elif message.type is WSMsgType.CLOSE:
            self._listener.closed_by_client(message.data, message.extra or "")

    def set_exception(self, exc: BaseException, *args: Any, **kwargs: Any) -> None:
        self.feed_eof()
        self._listener.failed(exc)


DECODE_TEXT: Final[Any] = {"decode_text": True} if hasattr(aiohttp.http, "WSMessageTextBytes") else {}
"""From aiohttp 3.14 on, text messages may be bytes, and the C version of the reader requires this argument."""


class FrameWriter(WebSocketWriter):
    """aiohttp's writer of frames for a server. It never waits.

    The caller waits until the transport is writable. Messages are compressed immediately. aiohttp compresses large
    messages in a thread: then one could be sent after a close frame, and after the end of the app that sent it.
    """

    def __init__(
        self, protocol: BaseProtocol, transport: asyncio.Transport, *, compress: int, no_context_takeover: bool
    ) -> None:
        super().__init__(protocol, transport, limit=sys.maxsize, compress=compress, notakeover=no_context_takeover)
        if compress:
            # The same compressor as aiohttp creates itself, but without the size above which it uses a thread.
            self._compressobj = ZLibCompressor(
                level=ZLibBackend.Z_BEST_SPEED, wbits=-compress, max_sync_chunk_size=None
            )

    def write(self, payload: bytes, kind: WSMsgType) -> None:
        """Write a frame. Raises `aiohttp.ClientConnectionResetError` if the client has disconnected."""
        if self.compress and kind < WSMsgType.CLOSE and hasattr(self, "_send_compressed_frame_sync"):
            # From aiohttp 3.13.3 on, send_frame() starts a task for large messages. Before, it never waits.
            self._send_compressed_frame_sync(payload, kind, None)
        else:
            run_at_once(self.send_frame(payload, kind))


def run_at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} had something to wait for")
