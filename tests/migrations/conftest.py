"""What the same tests are written with: aioresponses, aiointercept, and this package."""

import importlib
from collections.abc import AsyncIterator
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
def aioresponses() -> Any:
    """The module. The tests with it are skipped if it is not there, or does not work with this aiohttp."""
    try:
        module = importlib.import_module("aioresponses")
    except ImportError:
        pytest.skip("aioresponses is not installed; pip install aioresponses 'aiohttp<3.14'")
    return module


@pytest_asyncio.fixture
async def mocked(aioresponses: Any) -> AsyncIterator[Any]:
    async with aiohttp.ClientSession() as session:
        with aioresponses.aioresponses() as probe:
            probe.get(f"http://{HOST}/")
            try:
                await session.get(f"http://{HOST}/")
            except TypeError as exc:
                pytest.skip(f"aioresponses does not work with aiohttp {version('aiohttp')}: {exc}")
    with aioresponses.aioresponses() as mocked:
        yield mocked


@pytest.fixture(scope="session")
def aiointercept() -> Any:
    """The module. The tests with it are skipped if it is not there."""
    try:
        return importlib.import_module("aiointercept")
    except ImportError:
        pytest.skip("aiointercept is not installed; pip install aiointercept")


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
