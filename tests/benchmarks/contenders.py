"""The contenders: this connector, the floor below it, and other packages. All have the same interface."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import aiohttp

from asgi_connector import ASGIRoutingConnector, faults

from .app import app
from .canned import CannedConnector
from .clients import HOST, URL, AiohttpClient, Client, HttpxClient
from .hidden import hidden
from .sizes import Sizes


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The environment of the contenders."""

    sizes: Sizes
    directory: Path  # for files
    server_url: str | None = None  # of uvicorn, if it runs


@dataclass(frozen=True, kw_only=True)
class Contender:
    title: str
    connect: Callable[[Stage], AbstractAsyncContextManager[Client]]
    distributions: tuple[str, ...] = ()
    """The packages that a contender needs and this package does not. Each has one module, with the same name."""
    needs_server: bool = False


@asynccontextmanager
async def over(connector: aiohttp.BaseConnector, url: str = URL) -> AsyncIterator[AiohttpClient]:
    async with aiohttp.ClientSession(connector=connector) as session:
        yield AiohttpClient(session, url)


def floor(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return over(CannedConnector(limit=0))


def ours(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return over(ASGIRoutingConnector({HOST: app}))


def floor_anew(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return over(CannedConnector(limit=0, force_close=True))


def ours_anew(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return over(ASGIRoutingConnector({HOST: app}, force_close=True))


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


def fault_elsewhere(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return _with_unused_fault("elsewhere.internal", path=None)


def fault_on_another_path(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return _with_unused_fault(HOST, path="/elsewhere")


@asynccontextmanager
async def _with_unused_fault(host: str, *, path: str | None) -> AsyncIterator[AiohttpClient]:
    connector = ASGIRoutingConnector({HOST: app, "elsewhere.internal": app})
    with connector.inject(host, faults.Refuse(), path=path, allow_unused=True):
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


def uvicorn_anew(stage: Stage) -> AbstractAsyncContextManager[Client]:
    assert stage.server_url is not None
    return over(aiohttp.TCPConnector(limit=0, force_close=True), stage.server_url)


def httpx(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return _httpx("httpx")


def httpx2(stage: Stage) -> AbstractAsyncContextManager[Client]:
    return _httpx("httpx2")


@asynccontextmanager
async def httpx2_without_sniffio(stage: Stage) -> AsyncIterator[HttpxClient]:
    """httpx2 imports sniffio at each request. Python searches for it each time if it is not installed."""
    with hidden("sniffio"):
        async with _httpx("httpx2") as client:
            yield client


@asynccontextmanager
async def _httpx(module_name: str) -> AsyncIterator[HttpxClient]:
    module = import_module(module_name)
    async with module.AsyncClient(transport=module.ASGITransport(app=app), timeout=None) as client:
        yield HttpxClient(client)


_SERVER = ("uvicorn", "httptools", "websockets")

CONTENDERS = {
    "floor": Contender(title="the floor: aiohttp and canned bytes", connect=floor),
    "floor-anew": Contender(title="the floor, each request on a new connection", connect=floor_anew),
    "ours": Contender(title="asgi-connector", connect=ours),
    "ours-anew": Contender(title="asgi-connector, each request on a new connection", connect=ours_anew),
    "crowded": Contender(title="asgi-connector, with many mounts", connect=crowded),
    "recorded": Contender(title="asgi-connector, `record()`", connect=recorded),
    "recorded-whole": Contender(title="asgi-connector, `record(bodies=True)`", connect=recorded_whole),
    "fault-elsewhere": Contender(title="asgi-connector, a fault of another host", connect=fault_elsewhere),
    "fault-on-another-path": Contender(
        title="asgi-connector, a fault of another path of the host", connect=fault_on_another_path
    ),
    "intercepted": Contender(title="asgi-connector, `intercept()` and a plain session", connect=intercepted),
    "predecessor": Contender(
        title="aiohttp-asgi-connector", connect=predecessor, distributions=("aiohttp-asgi-connector",)
    ),
    "httpx2": Contender(
        title="httpx2 `ASGITransport` (with sniffio)", connect=httpx2, distributions=("httpx2", "sniffio")
    ),
    "httpx2-without-sniffio": Contender(
        title="httpx2 `ASGITransport` (without sniffio)", connect=httpx2_without_sniffio, distributions=("httpx2",)
    ),
    "httpx": Contender(title="httpx `ASGITransport`", connect=httpx, distributions=("httpx",)),
    "uvicorn": Contender(
        title="aiohttp to uvicorn over loopback", connect=uvicorn, distributions=_SERVER, needs_server=True
    ),
    "uvicorn-anew": Contender(
        title="aiohttp to uvicorn over loopback, each request on a new connection",
        connect=uvicorn_anew,
        distributions=_SERVER,
        needs_server=True,
    ),
}
