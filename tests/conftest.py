"""Fixtures for every test, and a check that no task and no connection outlives a test."""

import asyncio
import gc
import platform
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Mapping
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
from asgi_connector._services import in_flight, lifespan, restarts
from asgi_connector._types import App
from tests.support import effort
from tests.support.reports import Reports

pytest_plugins = ["pytester"]  # for the tests of the plugin

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
    parser.addoption(
        "--thorough",
        action="store_true",
        help="try every case of the tests that search or enumerate (default: a share of them)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        _leave_nothing_out(config)
    effort.thorough = config.getoption("--thorough")
    profile = hypothesis.settings.get_profile(hypothesis.settings.get_current_profile_name())
    hypothesis.settings.register_profile(
        "effort", profile, max_examples=effort.examples(profile.max_examples), deadline=None
    )
    hypothesis.settings.load_profile("effort")


def _leave_nothing_out(config: pytest.Config) -> None:
    """Run all tests of the files that the command line names, unless it chooses among them with ``-m``."""
    if not any(argument.startswith("-m") for argument in config.invocation_params.args if isinstance(argument, str)):
        config.option.markexpr = ""


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Let ``-n auto`` mean one process more than there are cores, because some tests wait for a real server."""
    return (yield) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector: it would look again and again at thousands of tests, which all stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of the package first, then those of the frameworks, then other programs and the documentation."""
    last = ("frameworks", "programs", "docs")

    def place(item: pytest.Item) -> int:
        return max((number for number, name in enumerate(last, 1) if item.get_closest_marker(name)), default=0)

    items.sort(key=place)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart() -> None:
    """Let hypothesis register its random generator now.

    It then looks for references to the generator, which `gc.freeze()` hides later.
    """
    hypothesis.find(st.none(), lambda _: True, settings=hypothesis.settings(database=None))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Hide older objects from the garbage collector, so that the check sees only objects that the test makes."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the versions in use, and the sums of the numbers that tests recorded with `record_property()`."""
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
    """Check that no task and no open in-memory transport is left after the test."""
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
    """The calls of the loop's exception handler during the test."""
    found = Reports()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(found.handle)
    yield found
    loop.set_exception_handler(None)


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give an app that goes on though it was cancelled 10 milliseconds instead of seconds."""
    for module in (in_flight, lifespan, restarts):
        monkeypatch.setattr(module, "CANCEL_PATIENCE", 0.01)


Open = Callable[..., AbstractAsyncContextManager[aiohttp.ClientSession]]


@asynccontextmanager
async def session_to(apps: Mapping[str, App | Mount] | App, **settings: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session with a routing connector for *apps*, or for one app at ``app.internal``.

    Lifespans are off by default. Settings that begin with ``session_`` go to the session, the others to the connector.
    """
    if not isinstance(apps, Mapping) or isinstance(apps, aiohttp.web.Application):
        apps = {"app.internal": cast(App, apps)}
    session_settings = {key[8:]: settings.pop(key) for key in list(settings) if key.startswith("session_")}
    connector = ASGIRoutingConnector(apps, **{"lifespan": "off", **settings})
    async with aiohttp.ClientSession("http://app.internal", connector=connector, **session_settings) as session:
        yield session
