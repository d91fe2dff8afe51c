"""Raw requests: a test writes their bytes itself, over a connection from aiohttp's pool."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDictProxy
from yarl import URL

from tests.support.waiting import until


class RawConnection:
    """The client's end of a connection: it writes bytes and reads parsed responses."""

    def __init__(self, protocol: ResponseHandler) -> None:
        self._protocol = protocol

    async def send(self, *pieces: bytes) -> None:
        """Write the pieces one after another. The server gets each piece in a separate call."""
        transport = self._protocol.transport
        assert transport is not None
        for piece in pieces:
            transport.write(piece)
            await until(lambda: not transport.get_write_buffer_size())

    async def head(self) -> tuple[int, CIMultiDictProxy[str], aiohttp.StreamReader]:
        """Return the status, headers and body stream of the next response, which may be an interim one."""
        message, payload = await self._protocol.read()
        return message.code, message.headers, payload

    async def response(self) -> tuple[int, CIMultiDictProxy[str], bytes]:
        """Return the next response with its complete body."""
        status, headers, payload = await self.head()
        return status, headers, await payload.read()

    async def end(self) -> None:
        """Return when the server has closed the connection."""
        if (closed := self._protocol.closed) is not None:
            await closed


@asynccontextmanager
async def raw_connection(
    session: aiohttp.ClientSession, url: str = "http://app.internal/"
) -> AsyncIterator[RawConnection]:
    """Take a connection from the session's pool for one request. It goes back if its response has been read."""
    connector = session.connector
    assert connector is not None
    request = aiohttp.ClientRequest("GET", URL(url), loop=asyncio.get_running_loop())
    connection = await connector.connect(request, [], aiohttp.ClientTimeout())
    try:
        assert connection.protocol is not None
        connection.protocol.set_response_params(read_until_eof=True)
        yield RawConnection(connection.protocol)
    except BaseException:
        connection.close()
        raise
    connection.release()


async def request_for(session: aiohttp.ClientSession, url: str = "/") -> aiohttp.ClientRequest:
    """Return a request object, as a client middleware sees it, to call `connect()` with."""
    requests: list[aiohttp.ClientRequest] = []

    async def note(req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        requests.append(req)
        return await handler(req)

    async with session.get(url, middlewares=(note,)) as response:
        await response.read()
    return requests[0]
