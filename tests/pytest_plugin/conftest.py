"""Fixtures that run pytest with the plugin, on tests of a small system.

The modules are imported here because pytest forgets, after a run in its own process, what that run was the first to
import. A second import would give classes that only look the same.
"""

from collections.abc import Callable
from typing import TypeAlias

import anyio.pytest_plugin
import fastapi
import pytest

import asgi_connector._aiohttp.tap
import asgi_connector._connector.injector
import asgi_connector._connector.instruments
import asgi_connector._connector.interception
import asgi_connector._export.har
import asgi_connector._export.mermaid
import asgi_connector._export.section
import asgi_connector._page.page
import asgi_connector._pytest.files
import asgi_connector._pytest.index
import asgi_connector._pytest.watch
import asgi_connector.pytest_plugin
from asgi_connector import Journal, Stub, faults
from tests.support.pytest_runs import ONLY_NEEDED, Outcome, outcome_of

__all__ = ["Journal", "Stub", "anyio", "asgi_connector", "fastapi", "faults"]

Run: TypeAlias = Callable[..., Outcome]

SYSTEM = """
import asyncio
import aiohttp
import pytest
import pytest_asyncio
from contextlib import asynccontextmanager
from fastapi import FastAPI, HTTPException
from asgi_connector import ASGIRoutingConnector, Stub, faults

users, orders = FastAPI(), FastAPI()

@users.get("/users/{number}")
async def get_user(number: int):
    if number == 404:
        raise HTTPException(404)
    if number == 500:
        raise LookupError("no such user")
    if number == 3600:
        await asyncio.sleep(number)
    return {"name": "Ada"}

@orders.get("/orders/{number}")
async def get_order(number: int, host: str = "users", handled: bool = False):
    try:
        async with aiohttp.ClientSession(connector=orders.connector, connector_owner=False) as session:
            async with session.get(f"http://{host}.internal/users/{number}") as response:
                return {"found": response.status == 200}
    except aiohttp.ClientError:
        if not handled:
            raise
        return {"found": False}

REFUSED = "http://orders.internal/orders/1?host=user&handled=1"

@asynccontextmanager
async def opened(*, intercepting=False, **settings):
    apps = {"users.internal": users, "orders.internal": orders, **settings.pop("apps", {})}
    async with ASGIRoutingConnector(apps, shutdown_timeout=0, **settings) as connector:
        orders.connector = connector
        async with aiohttp.ClientSession(connector=connector, connector_owner=False) as session:
            yield session

async def get(session, path="http://orders.internal/orders/1", **settings):
    async with session.get(path, **settings) as response:
        await response.read()
        return response.status
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Run pytest in this process on a test file, in which everything of `SYSTEM` is at hand."""
    pytester.makepyfile(system=SYSTEM)

    def run(source: str, *arguments: str, ini: str = "", conftest: str = "") -> Outcome:
        settings = "asyncio_default_fixture_loop_scope = function\nasyncio_mode = auto\nfilterwarnings = error"
        pytester.makeini(f"[pytest]\n{settings}\n{ini}")
        pytester.makeconftest(f"from system import *\n{conftest}")
        pytester.makepyfile(test_it=f"from system import *\n{source}")
        result = pytester.runpytest_inprocess(*ONLY_NEEDED, *arguments)
        return outcome_of(result)

    return run
