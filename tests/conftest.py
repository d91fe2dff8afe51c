"""Fixtures for every test, and the check that nothing outlives one."""

import asyncio
import gc
import platform
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any, Final, cast

import aiohttp
import aiohttp.web
import hypothesis
import pytest
import pytest_asyncio
from hypothesis import strategies as st

from asgi_connector import ASGIRoutingConnector, Mount
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._types import App
from tests.support.reports import Reports

AIOHTTP: Final = tuple(map(int, aiohttp.__version__.split(".")[:3]))

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if sys.platform != "win32":
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loops",
        default="asyncio",
        help="the event loops to run each test on, separated by commas: asyncio, uvloop (default: asyncio)",
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {name: LOOPS[name] for name in config.getoption("--loops").split(",")}


@pytest.hookimpl(trylast=True)
def pytest_sessionstart() -> None:
    """Let hypothesis register its random generator now.

    When it does so it looks for what refers to the generator, which `gc.freeze()` hides later.
    """
    hypothesis.find(st.none(), lambda _: True, settings=hypothesis.settings(database=None))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Take what is there before a test out of the garbage collector's sight: the check is for what the test makes."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What has run: with which versions, and what tests have counted with `record_property()`."""
    versions = [f"{name} {version(name)}" for name in ("aiohttp", "multidict", "yarl")]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    terminalreporter.write_line(f"versions: {', '.join([python, *versions])}; on {config.getoption('loops')}")
    counts = Counter[str]()
    for report in [report for reports in terminalreporter.stats.values() for report in reports]:
        if getattr(report, "when", None) == "call":
            counts.update({name: value for name, value in report.user_properties if isinstance(value, int)})
    for name, count in sorted(counts.items()):
        terminalreporter.write_line(f"{name}: {count}")


@pytest_asyncio.fixture(autouse=True)
async def nothing_outlives_the_test() -> AsyncIterator[None]:
    """No task and no open in-memory transport is left when a test is over."""
    yield
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, f"tasks left over: {left}"
    await asyncio.sleep(0)  # connection_lost() comes one turn after a close
    transports = [
        found
        for found in gc.get_objects()
        if type(found) is MemoryTransport and found._loop is asyncio.get_running_loop() and not found.is_closing()
    ]
    assert not transports, f"connections left open: {transports}"


@pytest_asyncio.fixture
async def reports() -> AsyncIterator[Reports]:
    """What the loop's exception handler is called with during the test."""
    found = Reports()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(found.handle)
    yield found
    loop.set_exception_handler(None)


Open = Callable[..., AbstractAsyncContextManager[aiohttp.ClientSession]]


@asynccontextmanager
async def session_to(apps: Mapping[str, App | Mount] | App, **settings: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A session over a routing connector for *apps*, or for one app at ``app.internal``; by default without lifespans.

    Settings that begin with ``session_`` are the session's, the others the connector's.
    """
    if not isinstance(apps, Mapping) or isinstance(apps, aiohttp.web.Application):
        apps = {"app.internal": cast(App, apps)}
    session_settings = {key[8:]: settings.pop(key) for key in list(settings) if key.startswith("session_")}
    connector = ASGIRoutingConnector(apps, **{"lifespan": "off", **settings})
    async with aiohttp.ClientSession("http://app.internal", connector=connector, **session_settings) as session:
        yield session
