"""The contenders: this connector, the floor below it, and other packages. All have the same interface."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from asgi_connector import ASGIRoutingConnector

from .app import CHUNK, CHUNKS_PER_MIB, SMALL, app

HOST = "bench.internal"
URL = f"http://{HOST}"


class Client(Protocol):
    """What a scenario does with a contender. Each call checks its result."""

    async def get(self) -> None: ...

    async def download(self, mib: int) -> None: ...

    async def upload(self, mib: int) -> None: ...

    async def echo(self, messages: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a run."""

    requests: int
    concurrency: int
    mib: int
    mounts: int
    connections: int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The environment of the contenders."""

    sizes: Sizes
    server_url: str | None = None  # of uvicorn, if it runs


@dataclass(frozen=True, kw_only=True)
class Contender:
    title: str
    connect: Callable[[Stage], AbstractAsyncContextManager[Client]]
    distributions: tuple[str, ...] = ()
    """The packages that a contender needs and this package does not. Each has one module, with the same name."""

    @property
    def missing(self) -> list[str]:
        """The distributions that are not installed."""
        return [name for name in self.distributions if find_spec(name.replace("-", "_")) is None]


async def chunks(mib: int) -> AsyncIterator[bytes]:
    for _ in range(mib * CHUNKS_PER_MIB):
        yield CHUNK


def check(got: object, expected: object) -> None:
    if got != expected:
        raise AssertionError(f"expected {expected!r}, but got {got!r}")


class AiohttpClient:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self) -> None:
        async with self._session.get(f"{self._url}/") as response:
            check(await response.read(), SMALL)

    async def download(self, mib: int) -> None:
        size = 0
        async with self._session.get(f"{self._url}/download?{mib}") as response:
            async for chunk in response.content.iter_any():
                size += len(chunk)
        check(size, mib << 20)

    async def upload(self, mib: int) -> None:
        async with self._session.post(f"{self._url}/upload", data=chunks(mib)) as response:
            check(int(await response.read()), mib << 20)

    async def echo(self, messages: int) -> None:
        async with self._session.ws_connect(f"{self._url}/echo") as ws:
            for _ in range(messages):
                await ws.send_bytes(SMALL)
                check(await ws.receive_bytes(), SMALL)


class HttpxClient:
    """httpx and httpx2 have the same API."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def get(self) -> None:
        check((await self._client.get(f"{URL}/")).content, SMALL)

    async def download(self, mib: int) -> None:
        size = 0
        async with self._client.stream("GET", f"{URL}/download?{mib}") as response:
            async for chunk in response.aiter_raw():
                size += len(chunk)
        check(size, mib << 20)

    async def upload(self, mib: int) -> None:
        response = await self._client.post(f"{URL}/upload", content=chunks(mib))
        check(int(response.content), mib << 20)

    async def echo(self, messages: int) -> None:
        raise NotImplementedError("its ASGITransport knows no WebSocket")


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


@asynccontextmanager
async def over(connector: aiohttp.BaseConnector, url: str = URL) -> AsyncIterator[AiohttpClient]:
    async with aiohttp.ClientSession(connector=connector) as session:
        yield AiohttpClient(session, url)


def floor(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return over(CannedConnector(limit=0))


def ours(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return over(ASGIRoutingConnector({HOST: app}))


def crowded(stage: Stage) -> AbstractAsyncContextManager[Client]:
    others = {f"host-{number}.internal": app for number in range(1, stage.sizes.mounts)}
    return over(ASGIRoutingConnector({**others, HOST: app}))


def recorded(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return _recorded(bodies=False)


def recorded_whole(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return _recorded(bodies=True)


@asynccontextmanager
async def _recorded(*, bodies: bool) -> AsyncIterator[AiohttpClient]:
    connector = ASGIRoutingConnector({HOST: app})
    with connector.record(bodies=bodies):
        async with over(connector) as client:
            yield client


@asynccontextmanager
async def intercepted(stage: Stage) -> AsyncIterator[AiohttpClient]:
    """A session with aiohttp's own connector, as services make it."""
    async with ASGIRoutingConnector({HOST: app}) as connector, aiohttp.ClientSession() as session:
        with connector.intercept():
            yield AiohttpClient(session, URL)


def predecessor(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return over(import_module("aiohttp_asgi_connector").ASGIApplicationConnector(app))


def uvicorn(stage: Stage) -> AbstractAsyncContextManager[Client]:
    assert stage.server_url is not None
    return over(aiohttp.TCPConnector(limit=0), stage.server_url)


def httpx(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return _httpx("httpx")


def httpx2(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return _httpx("httpx2")


@asynccontextmanager
async def _httpx(module_name: str) -> AsyncIterator[HttpxClient]:
    module = import_module(module_name)
    async with module.AsyncClient(transport=module.ASGITransport(app=app), timeout=None) as client:
        yield HttpxClient(client)


CONTENDERS = {
    "floor": Contender(title="the floor: aiohttp and canned bytes", connect=floor),
    "ours": Contender(title="asgi-connector", connect=ours),
    "crowded": Contender(title="asgi-connector, with many mounts", connect=crowded),
    "recorded": Contender(title="asgi-connector, recording", connect=recorded),
    "recorded-whole": Contender(title="asgi-connector, recording with bodies", connect=recorded_whole),
    "intercepted": Contender(title="asgi-connector, intercepting a plain session", connect=intercepted),
    "predecessor": Contender(
        title="aiohttp-asgi-connector", connect=predecessor, distributions=("aiohttp-asgi-connector",)
    ),
    "httpx2": Contender(title="httpx2 ASGITransport", connect=httpx2, distributions=("httpx2",)),
    "httpx": Contender(title="httpx ASGITransport", connect=httpx, distributions=("httpx",)),
    "uvicorn": Contender(
        title="aiohttp to uvicorn over loopback", connect=uvicorn, distributions=("uvicorn", "httptools", "websockets")
    ),
}
