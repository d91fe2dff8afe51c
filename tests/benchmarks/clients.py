"""What a scenario does with a contender, over aiohttp and over httpx."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import aiohttp

from .app import SMALL

HOST = "bench.internal"
URL = f"http://{HOST}"


class Client(Protocol):
    """What a scenario does with a contender. Each call checks its result."""

    async def get(self) -> None: ...

    async def download(self, mib: int) -> None: ...

    async def upload(self, mib: int, piece: bytes) -> None: ...

    async def events(self, count: int) -> None: ...

    async def echo(self, message: bytes, times: int) -> None: ...


async def body(mib: int, piece: bytes) -> AsyncIterator[bytes]:
    for _ in range((mib << 20) // len(piece)):
        yield piece


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

    async def upload(self, mib: int, piece: bytes) -> None:
        async with self._session.post(f"{self._url}/upload", data=body(mib, piece)) as response:
            check(int(await response.read()), mib << 20)

    async def events(self, count: int) -> None:
        received = 0
        async with self._session.get(f"{self._url}/events?{count}") as response:
            async for line in response.content:
                received += line.startswith(b"data:")
        check(received, count)

    async def echo(self, message: bytes, times: int) -> None:
        async with self._session.ws_connect(f"{self._url}/echo") as ws:
            for _ in range(times):
                await ws.send_bytes(message)
                check(len(await ws.receive_bytes()), len(message))


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

    async def upload(self, mib: int, piece: bytes) -> None:
        response = await self._client.post(f"{URL}/upload", content=body(mib, piece))
        check(int(response.content), mib << 20)

    async def events(self, count: int) -> None:
        received = 0
        async with self._client.stream("GET", f"{URL}/events?{count}") as response:
            async for line in response.aiter_lines():
                received += line.startswith("data:")
        check(received, count)

    async def echo(self, message: bytes, times: int) -> None:
        raise NotImplementedError("its ASGITransport knows no WebSocket")
