"""The floor: aiohttp with a connector that answers with fixed bytes."""

import asyncio
from collections.abc import Iterable

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from .app import SMALL


class CannedTransport(asyncio.Transport):
    """Answers each write with the same bytes, one turn of the event loop later."""

    RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(SMALL), SMALL)

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._loop.call_soon(self._protocol.data_received, self.RESPONSE)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"")

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close


class CannedConnector(aiohttp.BaseConnector):
    """No server and no app: only aiohttp's own time is left. Nothing on top of aiohttp can be faster."""

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        loop = asyncio.get_running_loop()
        protocol = ResponseHandler(loop)
        protocol.connection_made(CannedTransport(loop, protocol))
        return protocol
