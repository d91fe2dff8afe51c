"""Event loops: the connector's own, another one, none. Also objects that are made, closed, forgotten and named."""

import asyncio
import gc
import importlib.metadata
import importlib.resources
import inspect
import logging
import warnings
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, TypeVar, get_type_hints

import aiohttp
import pytest

import asgi_connector
from asgi_connector import (
    ASGIApplicationConnector,
    ASGIConnectorError,
    ASGIProtocolError,
    ASGIRoutingConnector,
    Mount,
    UnmountedHostError,
)
from asgi_connector._types import App, Receive, Scope, Send
from tests.support.outside import Elsewhere, tcp_server
from tests.support.programs import run_python

T = TypeVar("T")

URL = "http://app.internal/"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"from the app"})


def routing(**settings: Any) -> ASGIRoutingConnector:
    return ASGIRoutingConnector({"app.internal": app}, **settings)


def application(**settings: Any) -> ASGIRoutingConnector:
    return ASGIApplicationConnector(app, **settings)


Make = Callable[..., ASGIRoutingConnector]
EACH_CONNECTOR = pytest.mark.parametrize("make", [routing, application])


async def get(connector: aiohttp.BaseConnector, url: str = URL) -> bytes:
    async with (
        aiohttp.ClientSession(connector=connector, connector_owner=False) as session,
        session.get(url) as resp,
    ):
        return await resp.read()


async def in_another_loop(main: Callable[[], Awaitable[T]]) -> T:
    """Run *main* in a loop of the same kind in another thread, while this one runs on."""
    kind = type(asyncio.get_running_loop())

    async def run() -> T:
        return await main()

    def thread() -> T:
        with asyncio.Runner(loop_factory=kind) as runner:
            return runner.run(run())

    return await asyncio.to_thread(thread)


# No loop.


@EACH_CONNECTOR
def test_a_connector_made_outside_a_loop_says_where_to_make_it(make: Make) -> None:
    with pytest.raises(RuntimeError, match="async fixture") as caught:
        make()
    assert {routing: "ASGIRoutingConnector", application: "ASGIApplicationConnector"}[make] in str(caught.value)
    assert "event loop" in str(caught.value)
    assert caught.value.__suppress_context__
    gc.collect()  # nothing is partly made, so nothing is unclosed


def test_a_subclass_made_outside_a_loop_is_called_by_its_own_name() -> None:
    class MyConnector(ASGIRoutingConnector): ...

    with pytest.raises(RuntimeError, match="MyConnector"):
        MyConnector()


@pytest.mark.parametrize(
    "use",
    [lambda connector: connector.close(), lambda connector: connector.mount("other.internal", app)],
    ids=["close", "mount"],
)
def test_a_connector_used_where_no_loop_runs_says_so_and_names_its_own(
    use: Callable[[ASGIRoutingConnector], object],
) -> None:
    async def make() -> ASGIRoutingConnector:
        return routing()

    async def close() -> None:
        await connector.close()

    with asyncio.Runner() as runner:
        connector = runner.run(make())
        own = runner.get_loop()
        with pytest.raises(RuntimeError) as caught:
            use(connector)
        assert "ASGIRoutingConnector" in str(caught.value)
        assert repr(own) in str(caught.value)
        assert not connector.closed
        assert list(connector.mounts) == ["app.internal"]
        runner.run(close())
    assert connector.closed


# Another loop.


Use = Callable[[ASGIRoutingConnector, aiohttp.ClientSession], Awaitable[object]]


async def request(connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> object:
    return await session.get(URL)


async def request_elsewhere(connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> object:
    return await session.get("http://elsewhere.example/")


async def connect_websocket(connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> object:
    return await session.ws_connect(URL)


async def mount(connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> None:
    connector.mount("other.internal", app)


async def mounted(connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> None:
    await connector.mounted("other.internal", app).__aenter__()


async def unmount(connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> None:
    await connector.unmount("app.internal")


async def unmount_nothing(connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> None:
    await connector.unmount("other.internal")


async def enter(connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> None:
    await connector.__aenter__()


async def close(connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> None:
    await connector.close()


async def close_session(connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> None:
    await session.close()


EACH_USE = pytest.mark.parametrize(
    "use", [request, request_elsewhere, mount, mounted, unmount, unmount_nothing, enter, close, close_session]
)


async def wrong_use(use: Use, connector: ASGIRoutingConnector, session: aiohttp.ClientSession) -> tuple[str, str]:
    """Returns the error's text, and the name of the running loop."""
    with pytest.raises(RuntimeError) as caught:
        await use(connector, session)
    assert type(caught.value) is RuntimeError
    return str(caught.value), repr(asyncio.get_running_loop())


@EACH_USE
async def test_a_connector_used_from_another_running_loop_names_both_and_is_unharmed(use: Use) -> None:
    fallback = Elsewhere()
    connector = routing(fallback=fallback)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout()) as session:
        message, other = await in_another_loop(lambda: wrong_use(use, connector, session))
        own = repr(asyncio.get_running_loop())
        assert own in message
        assert other in message
        assert own != other or message.count(own) == 2
        assert fallback.asked == []
        assert not connector.closed
        assert list(connector.mounts) == ["app.internal"]
        assert await get(connector) == b"from the app"
    assert connector.closed


@pytest.mark.parametrize("use", [request, request_elsewhere, connect_websocket])
async def test_a_request_from_another_loop_says_so_before_aiohttp_does(use: Use) -> None:
    """Otherwise, with aiohttp's default timeout, it says "Timeout context manager should be used inside a task"."""
    connector = routing(fallback=Elsewhere())
    async with aiohttp.ClientSession(connector=connector) as session:
        message, other = await in_another_loop(lambda: wrong_use(use, connector, session))
        assert repr(asyncio.get_running_loop()) in message
        assert other in message
        assert '@pytest.mark.asyncio(loop_scope="session")' in message
        assert '@pytest_asyncio.fixture(scope="session", loop_scope="session")' in message

        async def is_closed() -> bool:
            return session.closed or connector.closed

        assert await in_another_loop(is_closed) is False
        assert await asyncio.to_thread(lambda: session.closed) is False
        assert await get(connector) == b"from the app"


@pytest.mark.programs
def test_the_error_for_another_loop_speaks_of_pytest_only_if_pytest_asyncio_is_there() -> None:
    program = """
import asyncio, sys, aiohttp
from asgi_connector import ASGIRoutingConnector

async def make():
    return ASGIRoutingConnector()

async def use():
    try:
        await connector.close()
    except RuntimeError as exc:
        assert "cannot be used from" in str(exc)
        print("loop_scope" in str(exc), "pytest" in sys.modules)

connector = asyncio.run(make())
asyncio.run(use())
connector._close()
"""
    assert run_python("-c", program) == "False False\n"


@EACH_USE
def test_a_connector_used_when_its_loop_is_closed_names_both(use: Use) -> None:
    async def make() -> tuple[ASGIRoutingConnector, aiohttp.ClientSession]:
        connector = routing(fallback=Elsewhere())
        session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout())
        async with session.get(URL) as resp:
            assert await resp.read() == b"from the app"
        return connector, session

    with asyncio.Runner() as runner:
        connector, session = runner.run(make())
        own = runner.get_loop()
    with asyncio.Runner() as runner:
        message, other = runner.run(wrong_use(use, connector, session))
    assert "closed=True" in repr(own)
    assert repr(own) in message
    assert other in message
    assert other != repr(own)
    session.detach()
    connector._close()  # as finalisers do, which have no loop any more
    assert connector.closed


async def test_a_block_that_ends_in_another_loop_names_both() -> None:
    async with routing() as connector:
        block = connector.mounted("other.internal", app)
        await block.__aenter__()

        async def end() -> str:
            with pytest.raises(RuntimeError) as caught:
                await block.__aexit__(None, None, None)
            return str(caught.value)

        message = await in_another_loop(end)
        assert repr(asyncio.get_running_loop()) in message
        assert "ASGIRoutingConnector" in message
        assert await get(connector) == b"from the app"


async def test_a_connector_belongs_to_the_loop_of_whatever_thread_it_is_made_in() -> None:
    async def main() -> bytes:
        async with routing() as connector:
            return await get(connector)

    answers = await asyncio.gather(*(in_another_loop(main) for _ in range(4)), main())
    assert answers == 5 * [b"from the app"]


@pytest.mark.parametrize("kind", [aiohttp.TCPConnector, ASGIRoutingConnector])
async def test_a_fallback_of_another_loop_is_refused_and_left_alone(
    kind: Callable[[], aiohttp.BaseConnector],
) -> None:
    async def make() -> tuple[aiohttp.BaseConnector, asyncio.AbstractEventLoop]:
        return kind(), asyncio.get_running_loop()

    fallback, other = await in_another_loop(make)
    with pytest.raises(RuntimeError) as caught:
        routing(fallback=fallback)
    message = str(caught.value)
    assert "fallback" in message
    assert repr(other) in message
    assert repr(asyncio.get_running_loop()) in message
    assert not fallback.closed
    fallback._close()


# Closed.


async def by_close(connector: ASGIRoutingConnector) -> None:
    await connector.close()


async def by_its_session(connector: ASGIRoutingConnector) -> None:
    async with aiohttp.ClientSession(connector=connector):
        pass


async def by_its_block(connector: ASGIRoutingConnector) -> None:
    async with connector as entered:
        assert entered is connector


async def by_a_finaliser(connector: ASGIRoutingConnector) -> None:
    connector._close()


EACH_WAY_TO_CLOSE = pytest.mark.parametrize("way", [by_close, by_its_session, by_its_block, by_a_finaliser])


@EACH_WAY_TO_CLOSE
@pytest.mark.parametrize("use", [mount, mounted, enter])
async def test_a_closed_connector_refuses(use: Use, way: Callable[[ASGIRoutingConnector], Awaitable[None]]) -> None:
    connector = routing()
    async with aiohttp.ClientSession() as session:
        await way(connector)
        with pytest.raises(aiohttp.ClientConnectionError, match="closed") as caught:
            await use(connector, session)
    assert type(caught.value) is aiohttp.ClientConnectionError
    assert "ASGIRoutingConnector" in str(caught.value)
    assert list(connector.mounts) == ["app.internal"]


@EACH_WAY_TO_CLOSE
@pytest.mark.parametrize("use", [request, request_elsewhere])
async def test_a_request_whose_connector_is_closed_before_it_connects_is_refused(
    use: Use, way: Callable[[ASGIRoutingConnector], Awaitable[None]]
) -> None:
    async def close_first(req: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        await way(connector)
        return await send(req)

    fallback = Elsewhere()
    connector = routing(fallback=fallback, fallback_owner=False)
    async with aiohttp.ClientSession(connector=connector, middlewares=[close_first]) as session:
        with pytest.raises(aiohttp.ClientConnectionError, match="closed") as caught:
            await use(connector, session)
    assert type(caught.value) is aiohttp.ClientConnectionError
    assert fallback.asked == []
    await fallback.close()


@EACH_WAY_TO_CLOSE
async def test_a_closed_connector_may_be_closed_again(way: Callable[[ASGIRoutingConnector], Awaitable[None]]) -> None:
    connector = routing(fallback=aiohttp.TCPConnector())
    assert await get(connector) == b"from the app"
    await way(connector)
    assert connector.closed
    assert "closed" in repr(connector)
    for _ in range(2):
        await connector.close()
        connector._close()
    connector.close()  # nothing waits for it
    await asyncio.gather(connector.close(), connector.close())
    assert connector.closed


@EACH_WAY_TO_CLOSE
@pytest.mark.parametrize("use", [request, request_elsewhere, connect_websocket])
async def test_a_session_whose_connector_is_closed_says_why_and_what_to_write(
    use: Use, way: Callable[[ASGIRoutingConnector], Awaitable[None]]
) -> None:
    connector = routing()
    await way(connector)
    async with aiohttp.ClientSession(connector=connector) as session:
        assert session.closed
        with pytest.raises(RuntimeError, match=r"^Session is closed: its connector") as caught:
            await use(connector, session)
        assert "<ASGIRoutingConnector closed" in str(caught.value)
        assert "connector_owner=False" in str(caught.value)


@pytest.mark.parametrize("owner", [True, False])
async def test_a_session_that_has_been_closed_itself_is_aiohttps_to_name(owner: bool) -> None:
    async with routing() as connector:
        session = aiohttp.ClientSession(connector=connector, connector_owner=owner)
        await session.close()
        with pytest.raises(RuntimeError, match=r"^Session is closed$"):
            await session.get(URL)


# Connectors that cannot be made.


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "says"),
    [
        (["app.internal"], {}, TypeError, "app.internal"),
        ([app], {}, TypeError, "app"),
        ([[("app.internal", app)]], {}, TypeError, "app.internal"),
        ([{"app.internal": "main:app"}], {}, TypeError, "main:app"),
        ([{"app.internal": None}], {}, TypeError, "None"),
        ([{80: app}], {}, TypeError, "80"),
        ([{"app.internal/v1": app}], {}, ValueError, "'app.internal/v1'"),
        ([{"app.internal": app, "APP.internal": app}], {}, ValueError, "'APP.internal'"),
        ([], {"fallback": "http://elsewhere.example"}, TypeError, "http://elsewhere.example"),
        ([], {"fallback": aiohttp.TCPConnector}, TypeError, "TCPConnector"),
        ([], {"shutdown_timeout": -1}, ValueError, "shutdown_timeout"),
        ([], {"shutdown_timeout": float("nan")}, ValueError, "shutdown_timeout"),
        ([], {"shutdown_timeout": float("-inf")}, ValueError, "shutdown_timeout"),
        ([], {"shutdown_timeout": 10**400}, ValueError, "shutdown_timeout"),
        ([], {"shutdown_timeout": Decimal(1)}, TypeError, "shutdown_timeout"),
        ([], {"keepalive_timeout": -1}, ValueError, "keepalive_timeout"),
        ([], {"keepalive_timeout": float("nan")}, ValueError, "keepalive_timeout"),
        ([], {"keepalive_timeout": float("inf")}, ValueError, "keepalive_timeout"),
        ([], {"keepalive_timeout": 10**400}, ValueError, "keepalive_timeout"),
        ([], {"keepalive_timeout": "15"}, TypeError, "keepalive_timeout"),
        ([], {"limit": -1}, ValueError, "limit"),
        ([], {"limit": float("nan")}, TypeError, "limit"),
        ([], {"limit": float("inf")}, TypeError, "limit"),
        ([], {"limit": True}, TypeError, "limit"),
        ([], {"limit_per_host": -1}, ValueError, "limit_per_host"),
        ([], {"limit_per_host": 2.5}, TypeError, "limit_per_host"),
        ([], {"shutdown_timeout": None}, TypeError, "shutdown_timeout"),
        ([], {"shutdown_timeout": "2"}, TypeError, "shutdown_timeout"),
        ([], {"shutdown_timeout": True}, TypeError, "shutdown_timeout"),
        ([], {"root_path": "v1"}, ValueError, "root_path"),
        ([], {"client": "127.0.0.1"}, TypeError, "client"),
        ([], {"force_close": True, "keepalive_timeout": 5}, ValueError, "keepalive_timeout"),
        ([], {"mounts": {}}, TypeError, "mounts"),
        ([{}, None], {}, TypeError, "positional"),
    ],
)
async def test_a_bad_argument_is_an_error_that_shows_it_and_leaves_nothing_behind(
    arguments: list[Any], settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    own_fallback = aiohttp.TCPConnector()
    settings = {"fallback": own_fallback, **settings}
    half_made = ASGIRoutingConnector.__new__(ASGIRoutingConnector)
    with pytest.raises(error) as caught:
        half_made.__init__(*arguments, **settings)  # type: ignore[misc]
    assert says in str(caught.value)
    assert half_made.closed
    assert not own_fallback.closed
    del half_made, caught
    gc.collect()  # there is nothing to warn of
    await own_fallback.close()


@pytest.mark.parametrize("seconds", [0, 0.5, float("inf")])
async def test_a_shutdown_timeout_may_be_nothing_or_without_end(seconds: float) -> None:
    """An app that ends when its client disconnects is never cancelled."""
    left = asyncio.Event()
    entered = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            entered.set()
        left.set()

    connector = ASGIRoutingConnector({"app.internal": waits}, shutdown_timeout=seconds, lifespan="off")
    asking = asyncio.create_task(get(connector))
    await entered.wait()
    await connector.close()
    with pytest.raises(aiohttp.ClientError):
        await asking
    assert connector.closed
    assert left.is_set() or seconds == 0


# Connectors that are forgotten.


def forget(only_reference: list[Any]) -> None:
    only_reference.clear()
    gc.collect()


class Handled:
    """The contexts that the loop's exception handler is called with."""

    def __init__(self) -> None:
        self.contexts: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.contexts.append(context))


async def test_an_unclosed_connector_that_is_forgotten_warns_as_aiohttps_own_do() -> None:
    handled = Handled()
    async with tcp_server() as tcp:
        theirs = [aiohttp.TCPConnector()]
        assert await get(theirs[0], tcp.url) == b"over TCP"
        with pytest.warns(ResourceWarning, match="Unclosed connector <aiohttp.connector.TCPConnector"):
            forget(theirs)
        (expected,) = handled.contexts
        ours = [routing(fallback=aiohttp.TCPConnector())]
        assert await get(ours[0]) == b"from the app"
        with pytest.warns(ResourceWarning, match="Unclosed connector <ASGIRoutingConnector") as caught:
            forget(ours)
        assert len(caught) == 1
        (_, context) = handled.contexts
        assert context.keys() == expected.keys()
        assert context["message"] == expected["message"] == "Unclosed connector"
        assert type(context["connector"]) is ASGIRoutingConnector
        assert len(context["connections"]) == 1
        assert context["connector"].closed
        for known in handled.contexts:
            known.clear()
        await asyncio.sleep(0)  # connection_lost()


@EACH_CONNECTOR
async def test_a_connector_without_connections_is_forgotten_in_silence_as_aiohttps_own_are(make: Make) -> None:
    handled = Handled()
    for used in [False, True]:
        connectors = [make()]
        if used:
            await get(connectors[0])
            await connectors[0].close()
        forget(connectors)
    assert handled.contexts == []


def test_a_connector_that_is_forgotten_after_its_loop_was_closed_warns_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def make() -> ASGIRoutingConnector:
        connector = routing(fallback=aiohttp.TCPConnector())
        await get(connector)
        return connector

    with asyncio.Runner() as runner:
        connectors = [runner.run(make())]
    with pytest.warns(ResourceWarning, match="Unclosed connector") as caught:
        forget(connectors)
    assert len(caught) == 1
    errors = [record.getMessage().splitlines()[0] for record in caplog.records if record.levelno >= logging.WARNING]
    assert errors == ["Unclosed connector"]


# Names.


def test_the_public_names_are_these_and_no_others() -> None:
    public = {
        "ASGIApplicationConnector",
        "ASGIConnectorError",
        "ASGIProtocolError",
        "ASGIRoutingConnector",
        "Content",
        "Exchange",
        "Journal",
        "LifespanError",
        "Mount",
        "Stub",
        "UnmatchedRequestError",
        "UnmountedHostError",
        "WebSocketMessage",
        "faults",
    }
    assert set(asgi_connector.__all__) == public
    assert len(asgi_connector.__all__) == len(public)
    assert {name for name in dir(asgi_connector) if not name.startswith("_")} == public


@pytest.mark.programs
def test_the_version_is_that_of_the_distribution_and_read_when_it_is_asked_for() -> None:
    assert asgi_connector.__version__ == importlib.metadata.version("asgi-connector")
    assert dir(asgi_connector).count("__version__") == 1
    program = """
import asgi_connector, sys
assert "__version__" not in vars(asgi_connector)
print(asgi_connector.__version__)
"""
    assert run_python("-c", program) == f"{asgi_connector.__version__}\n"


def test_what_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example, a copy of the package inside another one."""

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(AttributeError, match="not installed"):
        _ = asgi_connector.__version__
    assert not hasattr(asgi_connector, "__version__")


@pytest.mark.parametrize("settings", [{"limit": None}, {"limit_per_host": None}, {"keepalive_timeout": 0}])
async def test_aiohttps_own_values_of_a_pool_are_taken(settings: dict[str, Any]) -> None:
    connector = ASGIRoutingConnector({"app.internal": app}, lifespan="off", **settings)
    assert await get(connector) == b"from the app"
    await connector.close()


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'asgi_connector' has no attribute 'Connector'"):
        getattr(asgi_connector, "Connector")  # noqa: B009 # the type checkers know it too


@pytest.mark.programs
def test_the_package_imports_nothing_until_a_name_is_used() -> None:
    program = """
import sys, asgi_connector
loaded = {name for name in sys.modules if name.partition(".")[0] in ("aiohttp", "asgi_connector", "asyncio", "yarl")}
assert loaded == {"asgi_connector"}, loaded
"""
    assert run_python("-c", program) == ""


@pytest.mark.programs
def test_journal_and_faults_are_imported_when_they_are_first_used() -> None:
    program = """
import asyncio, sys, asgi_connector
asgi_connector.ASGIRoutingConnector, asgi_connector.Mount, asgi_connector.LifespanError
loaded = {name.removeprefix("asgi_connector.") for name in sys.modules if name.startswith("asgi_connector.")}
later = ("_connector.instruments", "_injection", "_journal", "_network.impairments", "faults")
assert not [name for name in loaded if name.startswith(later)], loaded
asgi_connector.Journal, asgi_connector.Exchange, asgi_connector.Content, asgi_connector.WebSocketMessage

async def record():
    async with asgi_connector.ASGIRoutingConnector({}) as connector:
        with connector.record():
            pass

asyncio.run(record())
loaded = {name.removeprefix("asgi_connector.") for name in sys.modules if name.startswith("asgi_connector.")}
assert not [name for name in loaded if name.startswith(("_injection", "_aiohttp.tap", "_stub", "faults"))], loaded
asgi_connector.faults
assert "asgi_connector._export.har" not in sys.modules and "asgi_connector._export.mermaid" not in sys.modules
"""
    assert run_python("-c", program) == ""


@pytest.mark.parametrize("name", [name for name in asgi_connector.__all__ if name != "faults"])
def test_a_public_name_says_where_users_find_it_and_what_it_is(name: str) -> None:
    public = getattr(asgi_connector, name)
    assert public.__module__ == "asgi_connector"
    assert public.__qualname__ == name
    assert public.__doc__
    members = [getattr(public, attribute) for attribute in vars(public) if not attribute.startswith("_")]
    assert [
        member
        for member in members
        if (inspect.isroutine(member) or isinstance(member, property)) and not inspect.getdoc(member)
    ] == []


def test_a_connector_adds_these_names_to_aiohttps_and_no_others() -> None:
    added = {"inject", "intercept", "mount", "mounted", "mounts", "record", "unmount"}
    added |= {"crashed", "hold", "partition", "restart"}
    for public in [ASGIRoutingConnector, ASGIApplicationConnector]:
        names = {name for name in dir(public) if not name.startswith("_")}
        assert names - set(dir(aiohttp.BaseConnector)) == added


@pytest.mark.parametrize("public", [ASGIRoutingConnector, ASGIApplicationConnector])
def test_the_annotations_of_a_connector_can_be_evaluated(public: type[ASGIRoutingConnector]) -> None:
    for function in [public.__init__, public.mount, public.unmount, public.mounted, public.close]:
        assert "return" in get_type_hints(function)
    assert get_type_hints(Mount)["app"] == App | None


def test_an_application_connector_takes_what_a_routing_connector_takes_but_for_the_fallback() -> None:
    own, general = (inspect.signature(public).parameters for public in [ASGIApplicationConnector, ASGIRoutingConnector])
    assert own.keys() - {"app"} == general.keys() - {"apps", "fallback", "fallback_owner"}
    assert [name for name, parameter in own.items() if parameter.kind is not parameter.KEYWORD_ONLY] == [
        "app",
        "root_path",
    ]
    assert [name for name, parameter in general.items() if parameter.kind is not parameter.KEYWORD_ONLY] == ["apps"]
    assert all(own[name].default == general[name].default for name in own.keys() & general.keys())


def test_the_defaults_of_a_connector_are_these() -> None:
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(ASGIRoutingConnector).parameters.items()
    }
    aiohttps = inspect.signature(aiohttp.BaseConnector).parameters
    assert defaults == {
        "apps": None,
        "fallback": None,
        "fallback_owner": True,
        "root_path": "",
        "client": ("127.0.0.1", 123),
        "raise_app_exceptions": True,
        "lifespan": "auto",
        "inherit_context": "outside",
        "limit": 0,
        "limit_per_host": 0,
        "keepalive_timeout": aiohttps["keepalive_timeout"].default,
        "force_close": False,
        "shutdown_timeout": 2.0,
    }


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (ASGIConnectorError, (Exception,)),
        (UnmountedHostError, (ASGIConnectorError, aiohttp.ClientConnectorError)),
        (ASGIProtocolError, (ASGIConnectorError,)),
    ],
)
def test_an_exception_can_be_caught_by_its_bases(error: type[Exception], bases: tuple[type[Exception], ...]) -> None:
    assert error.__bases__ == bases


def test_the_package_is_typed() -> None:
    assert importlib.resources.files("asgi_connector").joinpath("py.typed").is_file()


def test_importing_the_package_anew_needs_no_loop_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(asgi_connector)
    assert asgi_connector.ASGIRoutingConnector is ASGIRoutingConnector
