"""What passes on a WebSocket in one direction, read a second time by aiohttp's reader of frames."""

# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiohttp import WSMessage, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import WebSocketReader

from .frames import DECODE_TEXT


class FrameWatch(WebSocketDataQueue):
    """Reads frames, compressed or not, and reports messages and the close frame."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[str | bytes], None],
        on_close: Callable[[int, str], None],
    ) -> None:
        super().__init__(BaseProtocol(loop), 2**16, loop=loop)  # nothing is ever kept in it
        self._on_message = on_message
        self._on_close = on_close
        self._parser = WebSocketReader(self, 0, True, **DECODE_TEXT)

    def feed(self, data: bytes) -> None:
        """Bytes have passed. After those that are no frames, nothing more is reported."""
        self._parser.feed_data(data)

    def feed_data(self, data: Any, size: int) -> None:
        message = cast(WSMessage, data)
        if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
            self._on_message(message.data)
        elif message.type is WSMsgType.CLOSE:
            self._on_close(message.data, message.extra or "")

    def set_exception(self, exc: BaseException, *args: Any, **kwargs: Any) -> None:
        """What has passed is not a WebSocket's."""
