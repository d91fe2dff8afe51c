"""aiohttp's reader and writer of WebSocket frames, for the server end."""

# pyright: reportPrivateUsage=false

import asyncio
import sys
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Protocol

import aiohttp.http
from aiohttp import (
    WSCloseCode,
    WSMessage,
    WSMsgType,
)
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
    """What a `WebSocketDataQueue` pauses and resumes; it is the protocol of no transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        super().__init__(loop)
        self.transport = transport
        self._upgraded = True  # since 3.14: there is no parser of HTTP to pause

    def stop_pausing(self) -> None:
        """Read on, and ignore the queue from now on."""
        if self._reading_paused:
            self.resume_reading()
        self.transport = None


class FrameListener(Protocol):
    """Who is told of the frames that are not messages."""

    def pinged(self, payload: bytes) -> None:
        """A ping has arrived."""

    def closed_by_client(self, code: int, reason: str) -> None:
        """A close frame has arrived; *code* is 0 if it has none."""

    def failed(self, exc: BaseException) -> None:
        """What has arrived is not a WebSocket's."""


class FrameReader(WebSocketDataQueue):
    """aiohttp's reader of frames, and the queue of messages that it fills.

    At more than `MESSAGES_HIGH_WATER` bytes of messages it stops reading from *transport*. Control frames do not wait
    in the queue: the *listener* gets them as they arrive.
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
        super().__init__(self.flow, MESSAGES_HIGH_WATER // 2, loop=loop)  # it doubles it
        first_size_too_big = MAX_MESSAGE + 1
        self._parser = WebSocketReader(self, first_size_too_big, compress, **_DECODE_TEXT)

    def feed(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._parser.feed_data(data)

    def read_on(self) -> None:
        """Do not stop reading any more, however much there is: the client has sent all that it will."""
        self.flow.stop_pausing()

    def end_messages(self) -> None:
        """Take no further message; those that have arrived are still to be read.

        They are moved out of aiohttp's way: its reader stops before the client's close frame while it has too many.
        """
        while self._buffer:
            self._kept.append(run_at_once(super().read()))
        self._ended = True
        self.read_on()
        self.feed_eof()

    async def read(self) -> Any:
        """The next message; raises `EofStream` after the last one."""
        if not self._kept:
            try:
                return await super().read()
            except EofStream:
                if not self._kept:  # end_messages() may have come while it waited
                    raise
        return self._kept.popleft()

    def feed_data(self, data: Any, size: int) -> None:
        message: WSMessage = data
        if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
            if size > MAX_MESSAGE:  # inflated, it may be larger by one than aiohttp's reader is told to take
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


_DECODE_TEXT: Final[Any] = {"decode_text": True} if hasattr(aiohttp.http, "WSMessageTextBytes") else {}
"""Since 3.14, where there are text messages in bytes, the reader's C form asks for it, and has no default."""


class FrameWriter(WebSocketWriter):
    """aiohttp's writer of frames, of a server: one that never waits.

    When there is room is asked before. And what is compressed is compressed at once: aiohttp leaves large messages to a
    thread, from where one would follow a close frame, and outlive the app that sent it.
    """

    def __init__(
        self, protocol: BaseProtocol, transport: asyncio.Transport, *, compress: int, no_context_takeover: bool
    ) -> None:
        super().__init__(protocol, transport, limit=sys.maxsize, compress=compress, notakeover=no_context_takeover)
        if compress:
            # The same as its own, which it makes when it has none, without the size from which on a thread is used.
            self._compressobj = ZLibCompressor(
                level=ZLibBackend.Z_BEST_SPEED, wbits=-compress, max_sync_chunk_size=None
            )

    def write(self, payload: bytes, kind: WSMsgType) -> None:
        """Write a frame; raises `aiohttp.ClientConnectionResetError` if there is nobody to read it."""
        if self.compress and kind < WSMsgType.CLOSE and hasattr(self, "_send_compressed_frame_sync"):
            # Since 3.13.3. Before, send_frame() has nothing to wait for; now it has a task for what is large.
            self._send_compressed_frame_sync(payload, kind, None)
        else:
            run_at_once(self.send_frame(payload, kind))


def run_at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} had something to wait for")
