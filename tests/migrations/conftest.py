"""What the same tests are written with: aioresponses, aiointercept, and this package."""

import importlib
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from asgi_connector import ASGIRoutingConnector, Stub

HOST: Final = "users.internal"


@pytest_asyncio.fixture
async def plain() -> AsyncIterator[aiohttp.ClientSession]:
    """A session as code under test makes it, for the libraries that patch aiohttp."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(scope="session")
def aioresponses_module() -> Any:
    try:
        return importlib.import_module("aioresponses")
    except ImportError:
        pytest.skip("aioresponses is not installed; pip install 'asgi-connector[migrations]' 'aiohttp<3.14'")


@pytest_asyncio.fixture
async def aioresponses(aioresponses_module: Any) -> Any:
    """The module. Tests with it are skipped if it does not work with this version of aiohttp."""
    with aioresponses_module.aioresponses() as probe:
        probe.get(f"http://{HOST}/")
        async with aiohttp.ClientSession() as session:
            try:
                await session.get(f"http://{HOST}/")
            except TypeError as exc:
                pytest.skip(f"aioresponses does not work with aiohttp {version('aiohttp')}: {exc}")
    return aioresponses_module


@pytest.fixture
def mocked(aioresponses: Any) -> Iterator[Any]:
    with aioresponses.aioresponses() as mocked:
        yield mocked


@pytest.fixture(scope="session")
def aiointercept() -> Any:
    """The module. Tests with it are skipped if it is not installed."""
    try:
        return importlib.import_module("aiointercept")
    except ImportError:
        pytest.skip("aiointercept is not installed; pip install 'asgi-connector[migrations]'")


@pytest_asyncio.fixture
async def intercepted(aiointercept: Any) -> AsyncIterator[Any]:
    async with aiointercept.aiointercept(mock_external_urls=True) as intercepted:
        yield intercepted


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest_asyncio.fixture
async def connector(stub: Stub) -> AsyncIterator[ASGIRoutingConnector]:
    async with ASGIRoutingConnector({HOST: stub}) as connector:
        yield connector


@pytest_asyncio.fixture
async def session(connector: ASGIRoutingConnector) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session
