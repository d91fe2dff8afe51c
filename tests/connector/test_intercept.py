"""`intercept()`: sessions that services and libraries make themselves reach the apps that are mounted."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from aiohttp.connector import Connection
from yarl import URL

from asgi_connector import (
    ASGIApplicationConnector,
    ASGIRoutingConnector,
    LifespanError,
    Mount,
    Stub,
    UnmatchedRequestError,
    UnmountedHostError,
    faults,
)
from asgi_connector._aiohttp import interception
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.support.sessions import fetch
from tests.support.waiting import settle, until

ORIGINAL = aiohttp.BaseConnector.connect  # a reference from before every block


def answering(text: str = "ok", *headers: tuple[bytes, bytes], status: int = 200) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": text.encode()})

    return app


def calling(call: Callable[[], Awaitable[bytes]]) -> ASGIApp:
    """An app that answers with what *call* returns."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await call()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


async def get(url: str, **settings: Any) -> bytes:
    """Make a session, use it and close it, as a service does."""
    async with ClientSession(**settings) as session:
        return await fetch(session, url)


class Held:
    """An app whose requests wait until they may end."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.may_end = asyncio.Event()
        self.disconnects = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started.put_nowait(scope["path"])
        await receive()
        ended, gone = asyncio.ensure_future(self.may_end.wait()), asyncio.ensure_future(receive())
        done, waiting = await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        if gone in done:
            self.disconnects += 1
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"held"})


def routing(apps: dict[str, ASGIApp] | None = None, **settings: Any) -> ASGIRoutingConnector:
    return ASGIRoutingConnector({"app.internal": answering()} if apps is None else apps, lifespan="off", **settings)


@asynccontextmanager
async def real_server(text: bytes = b"real") -> AsyncIterator[str]:
    """A server on the loopback interface. Returns its URL."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=text)

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(autouse=True)
async def everything_is_restored() -> AsyncIterator[None]:
    """Compare aiohttp's classes before and after each test."""
    classes = [aiohttp.BaseConnector, TCPConnector, aiohttp.UnixConnector, ClientSession]
    before = [(dict(vars(cls)), {name: code_of(value) for name, value in vars(cls).items()}) for cls in classes]
    yield
    gc.collect()
    assert [(dict(vars(cls)), {name: code_of(value) for name, value in vars(cls).items()}) for cls in classes] == before
    assert not interception._interceptors


def code_of(value: object) -> object:
    return getattr(value, "__code__", None)


async def test_a_session_of_a_service_reaches_a_mounted_app() -> None:
    orders = calling(lambda: get("http://payments.internal/charge"))
    async with routing({"orders.internal": orders, "payments.internal": answering("paid")}) as connector:
        with connector.record() as journal, connector.intercept():
            assert await get("http://orders.internal/") == b"paid"
    assert [(each.caller, each.service, each.via) for each in journal] == [
        (None, "orders.internal", "app"),
        ("orders.internal", "payments.internal", "app"),
    ]


async def test_a_session_from_before_the_block_is_intercepted_too() -> None:
    async with routing() as connector, ClientSession() as session:
        with connector.intercept():
            assert await fetch(session, "http://app.internal/") == b"ok"


async def test_requests_without_a_session_and_websockets_are_intercepted() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answering("plain")(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await receive()

    async with routing({"app.internal": app}) as connector:
        with connector.intercept():
            async with aiohttp.request("GET", "http://app.internal/") as response:
                assert await response.read() == b"plain"
            async with ClientSession() as session, session.ws_connect("ws://app.internal/") as websocket:
                assert await websocket.receive_str() == "hello"


@pytest.mark.parametrize("make", [TCPConnector, lambda: aiohttp.UnixConnector("/nowhere"), lambda: Mine()])
async def test_every_kind_of_connector_is_intercepted(make: Callable[[], aiohttp.BaseConnector]) -> None:
    async with routing() as connector:
        with connector.intercept():
            assert await get("http://app.internal/", connector=make()) == b"ok"


class Mine(TCPConnector):
    """A subclass with its own `connect()`."""

    calls = 0

    async def connect(self, *args: Any, **settings: Any) -> Connection:
        Mine.calls += 1
        return await super().connect(*args, **settings)


class KeepsOld(TCPConnector):
    """A subclass that has kept an old `connect()`."""

    connect = ORIGINAL


async def test_a_subclass_that_keeps_an_old_connect_is_intercepted() -> None:
    async with routing() as connector:
        with connector.intercept():
            assert await get("http://app.internal/", connector=KeepsOld()) == b"ok"
            with pytest.raises(UnmountedHostError):
                await get("http://other.internal/", connector=KeepsOld())


async def test_a_subclass_that_overrides_connect_still_runs() -> None:
    Mine.calls = 0
    async with routing() as connector:
        with connector.intercept():
            assert await get("http://app.internal/", connector=Mine()) == b"ok"
    assert Mine.calls == 1


@pytest.mark.parametrize("cls", [aiohttp.BaseConnector, TCPConnector])
@pytest.mark.parametrize("when", ["before", "in the block"])
async def test_what_a_library_has_patched_keeps_working(
    monkeypatch: pytest.MonkeyPatch, cls: type[aiohttp.BaseConnector], when: str
) -> None:
    seen: list[str] = []
    original = cls.connect

    async def traced(self: Any, req: Any, traces: Any, timeout: Any) -> Any:
        seen.append(str(req.url))
        return await original(self, req, traces, timeout)

    async with routing() as connector:
        if when == "before":
            monkeypatch.setattr(cls, "connect", traced)
        with connector.intercept():
            if when == "in the block":
                monkeypatch.setattr(cls, "connect", traced)
            assert await get("http://app.internal/") == b"ok"
        assert vars(cls)["connect"] is traced
    assert seen == ["http://app.internal/"]
    monkeypatch.undo()


async def test_a_reference_from_inside_a_block_does_nothing_after_it() -> None:
    async with routing() as connector, real_server() as url:
        with connector.intercept():
            kept = aiohttp.BaseConnector.connect
        own = TCPConnector()
        async with ClientSession(connector=own) as session:
            own.connect = kept.__get__(own)  # type: ignore[method-assign]
            assert await fetch(session, url) == b"real"
            del own.connect


async def test_a_host_that_is_not_mounted_is_refused_without_a_resolver() -> None:
    class Resolver(aiohttp.abc.AbstractResolver):
        async def resolve(self, *args: Any, **settings: Any) -> Any:
            raise AssertionError("resolved")

        async def close(self) -> None:
            pass

    async with routing({"payments.internal": answering()}) as connector:
        expected = pytest.raises(UnmountedHostError, match=r"Did you mean 'payments\.internal'\?")
        with connector.record() as journal, connector.intercept(), expected as caught:
            await get("http://payment.internal/", connector=TCPConnector(resolver=Resolver()))
        assert "name it in passthrough=[...]" in str(caught.value)
        assert [(each.host, each.via) for each in journal] == [("payment.internal", "refused")]


@pytest.mark.parametrize("passthrough", [True, ["127.0.0.1"], ("*.internal", "127.0.0.1")])
async def test_hosts_that_pass_are_answered_by_the_sessions_own_connector(passthrough: Any) -> None:
    async with routing() as connector, real_server() as url:
        with connector.record() as journal, connector.intercept(passthrough=passthrough):
            assert await get(url) == b"real"
            assert await get("http://app.internal/") == b"ok"
    assert [each.via for each in journal] == ["fallback", "app"]


@pytest.mark.parametrize("passthrough", [False, [], ["api.github.com", "*.amazonaws.com"]])
async def test_other_hosts_do_not_pass(passthrough: Any) -> None:
    async with routing() as connector, real_server() as url:
        with connector.intercept(passthrough=passthrough), pytest.raises(UnmountedHostError):
            await get(url)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"passthrough": "api.github.com"}, TypeError, r"passthrough must be .*; write \['api.github.com'\]"),
        ({"passthrough": 5}, TypeError, "passthrough must be a bool or a list of host patterns, not 5"),
        ({"passthrough": ["http://x/path"]}, ValueError, "http://x/path"),
        ({"passthrough": [5]}, TypeError, "5"),
        ({"limits": 1}, TypeError, "limits must be a bool, not 1"),
        ({"allow_refused": None}, TypeError, "allow_refused must be a bool, not None"),
    ],
)
async def test_what_makes_no_sense_is_an_error(settings: Any, error: type[Exception], text: str) -> None:
    async with routing() as connector:
        with pytest.raises(error, match=text):
            connector.intercept(**settings)


async def test_the_fallback_and_other_connectors_of_ours_are_not_intercepted() -> None:
    async with real_server() as url:
        own = ASGIRoutingConnector({}, fallback=TCPConnector())
        async with routing(fallback=TCPConnector()) as connector, ClientSession(connector=own) as other:
            with connector.intercept(), connector.record() as journal:
                async with ClientSession(connector=connector, connector_owner=False) as session:
                    assert await fetch(session, url) == b"real"
                assert await fetch(other, url) == b"real"
                with pytest.raises(UnmountedHostError):
                    await get(url)
    assert [each.via for each in journal] == ["fallback", "refused"]


# Refused calls of services.


async def swallowing() -> bytes:
    try:
        return await get("http://payment.internal/charge?card=1")
    except aiohttp.ClientError:
        return b"503"


async def test_a_refused_call_of_a_service_fails_the_block() -> None:
    apps = {"orders.internal": calling(swallowing), "payments.internal": answering()}
    async with routing(apps) as connector:
        with pytest.raises(AssertionError) as caught, connector.intercept():
            assert await get("http://orders.internal/") == b"503"
    text = str(caught.value)
    assert text.startswith("1 call of a service was refused in an intercept() block:\n- orders.internal: GET http://")
    assert "Did you mean 'payments.internal'?" in text
    assert "card" not in text
    assert text.endswith("allow_refused=True permits refused calls.")


async def test_several_refused_calls_are_listed() -> None:
    async with routing({"orders.internal": calling(swallowing)}) as connector:
        with pytest.raises(AssertionError, match="2 calls of services were refused"), connector.intercept():
            await asyncio.gather(get("http://orders.internal/"), get("http://orders.internal/"))


async def test_a_refused_call_through_our_own_session_fails_the_block_too() -> None:
    async with routing() as connector, ClientSession(connector=connector, connector_owner=False) as session:

        async def call() -> bytes:
            with pytest.raises(UnmountedHostError):
                await fetch(session, "http://nowhere.internal/")
            return b"swallowed"

        connector.mount("orders.internal", calling(call))
        expected = pytest.raises(AssertionError, match=r"orders\.internal: GET http://nowhere\.internal/")
        with expected, connector.intercept():
            assert await fetch(session, "http://orders.internal/") == b"swallowed"


async def test_refused_calls_may_be_allowed() -> None:
    async with routing({"orders.internal": calling(swallowing)}) as connector:
        with connector.intercept(allow_refused=True):
            assert await get("http://orders.internal/") == b"503"


async def test_a_stub_with_an_answer_that_was_never_asked_for_fails_the_block() -> None:
    stub = Stub()
    stub.get("/asked", text="asked")
    stub.get("/never", text="never")
    async with routing({"stub.internal": stub, "other.internal": stub}) as connector:
        with pytest.raises(AssertionError, match="never asked for: GET '/never'") as caught, connector.intercept():
            assert await get("http://stub.internal/asked") == b"asked"
    assert str(caught.value).count("The Stub at") == 1


async def test_a_stub_of_a_factory_that_was_never_asked_fails_the_block() -> None:
    def create() -> Stub:
        stub = Stub()
        stub.get("/never", text="never")
        return stub

    async with ASGIRoutingConnector({"stub.internal": Mount(factory=create)}) as connector:
        with pytest.raises(AssertionError, match="never asked for: GET '/never'"), connector.intercept():
            pass


async def test_a_stub_that_was_mounted_for_a_part_of_the_block_fails_it() -> None:
    def stub_of(path: str) -> Stub:
        stub = Stub()
        stub.get(path, text="never")
        return stub

    async def remount(connector: ASGIRoutingConnector) -> None:
        async with connector.mounted("stub.internal", stub_of("/covering")):
            pass
        await connector.unmount("stub.internal")
        connector.mount("other.internal", stub_of("/replacing"))

    async with routing({"stub.internal": stub_of("/before"), "other.internal": stub_of("/replaced")}) as connector:
        with pytest.raises(AssertionError) as caught, connector.intercept():
            await remount(connector)
        assert str(caught.value).splitlines() == [
            f"The Stub at {pattern!r}: never asked for: GET {path!r}"
            for pattern, path in [
                ("stub.internal", "/covering"),
                ("stub.internal", "/before"),
                ("other.internal", "/replaced"),
                ("other.internal", "/replacing"),
            ]
        ]
        with pytest.raises(AssertionError) as caught, connector.intercept():
            pass
        assert "/replacing" in str(caught.value)
        assert "/covering" not in str(caught.value)


async def test_the_outermost_block_reports_what_a_stub_was_not_asked_for() -> None:
    stub = Stub()
    stub.get("/late", text="asked for late")
    async with routing({"stub.internal": stub}) as connector:
        with connector.intercept():
            with connector.intercept():
                pass
            assert await get("http://stub.internal/late") == b"asked for late"
        expected = pytest.raises(AssertionError, match="never asked for: GET '/never'")
        with expected, connector.intercept(), connector.intercept():
            stub.get("/never", text="never")


async def test_a_stub_whose_answers_may_stay_unused_does_not_fail_the_block() -> None:
    stub = Stub(allow_unused=True)
    stub.get("/never", text="never")
    async with routing({"stub.internal": stub}) as connector:
        with connector.intercept():
            pass
    with pytest.raises(AssertionError, match="never asked for: GET '/never'"):
        stub.assert_all_used()


@pytest.mark.parametrize("allow_unused", [False, True])
async def test_a_request_that_a_stub_did_not_answer_fails_the_block(allow_unused: bool) -> None:
    stub = Stub(allow_unused=allow_unused)

    async def call() -> bytes:
        with pytest.raises(UnmatchedRequestError):
            await get("http://stub.internal/other")
        return b"swallowed"

    async with routing({"stub.internal": stub, "orders.internal": calling(call)}) as connector:
        with pytest.raises(AssertionError, match=r"The Stub at 'stub\.internal': not answered"), connector.intercept():
            assert await get("http://orders.internal/") == b"swallowed"


async def test_an_exception_that_leaves_the_block_is_not_replaced() -> None:
    async def fail() -> None:
        await get("http://orders.internal/")
        raise LookupError("the test's own")

    async with routing({"orders.internal": calling(swallowing)}) as connector:
        with pytest.raises(LookupError, match="the test's own"), connector.intercept():
            await fail()


# The rules of the session's own connector.


async def test_a_limit_of_the_session_holds() -> None:
    held = Held()
    async with routing({"app.internal": held}) as connector, ClientSession(connector=TCPConnector(limit=1)) as session:
        with connector.intercept():
            first = asyncio.create_task(fetch(session, "http://app.internal/1"))
            assert await held.started.get() == "/1"
            second = asyncio.create_task(fetch(session, "http://app.internal/2"))
            await settle()
            assert held.started.empty()
            held.may_end.set()
            assert await first == b"held"
            assert await second == b"held"


@pytest.mark.parametrize("other", ["app.internal", "other.internal"])
async def test_a_limit_for_each_host_holds(other: str) -> None:
    held = Held()
    own = TCPConnector(limit_per_host=1)
    async with routing({"*": held}) as connector, ClientSession(connector=own) as session:
        with connector.intercept():
            first = asyncio.create_task(fetch(session, "http://app.internal/1"))
            assert await held.started.get() == "/1"
            second = asyncio.create_task(fetch(session, f"http://{other}/2"))
            await settle()
            assert held.started.empty() is (other == "app.internal")
            held.may_end.set()
            assert (await first, await second) == (b"held", b"held")
    assert not own._acquired_per_host


async def test_nested_calls_through_one_connection_wait_and_say_so() -> None:
    own = TCPConnector(limit=1)
    session = ClientSession(connector=own, timeout=ClientTimeout(connect=0.05))
    async with routing({"inner.internal": answering()}) as connector, session:
        connector.mount("outer.internal", calling(lambda: fetch(session, "http://inner.internal/")))
        with connector.intercept(), pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
            await fetch(session, "http://outer.internal/")
        notes = getattr(caught.value.__cause__, "__notes__", [])
        assert any("limit=1" in note and "all of them were in use" in note for note in notes)


async def test_limits_can_be_lifted() -> None:
    own = TCPConnector(limit=1)
    async with routing({"inner.internal": answering()}) as connector, ClientSession(connector=own) as session:
        connector.mount("outer.internal", calling(lambda: fetch(session, "http://inner.internal/")))
        with connector.intercept(limits=False):
            assert await fetch(session, "http://outer.internal/") == b"ok"


async def test_150_nested_calls_through_one_session() -> None:
    async with routing({}) as connector, ClientSession(connector=TCPConnector(limit=0)) as session:

        async def nested(scope: Scope, receive: Receive, send: Send) -> None:
            depth = int(scope["path"][1:])
            body = b"end" if depth == 0 else await fetch(session, f"http://app.internal/{depth - 1}")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

        connector.mount("app.internal", nested)
        with connector.intercept():
            assert await fetch(session, "http://app.internal/150") == b"end"


@pytest.mark.parametrize("force_close", [True, False])
async def test_force_close_of_the_session_holds(force_close: bool) -> None:
    async with routing() as connector:
        with connector.record() as journal, connector.intercept():
            async with ClientSession(connector=TCPConnector(force_close=force_close)) as session:
                for _ in range(2):
                    await fetch(session, "http://app.internal/")
    assert [each.reused for each in journal] == [False, not force_close]


@pytest.mark.parametrize("limits", [True, False])
async def test_closing_a_session_ends_its_requests(limits: bool) -> None:
    held = Held()
    async with routing({"app.internal": held}) as connector:
        with connector.intercept(limits=limits):
            session = ClientSession()
            request = asyncio.create_task(fetch(session, "http://app.internal/"))
            await held.started.get()
            await session.close()
            with pytest.raises(aiohttp.ClientError):
                await request
            await until(lambda: held.disconnects == 1)


@pytest.mark.parametrize("limits", [True, False])
async def test_a_request_that_runs_when_the_block_ends_finishes(limits: bool) -> None:
    held = Held()
    async with routing({"app.internal": held}) as connector, ClientSession() as session:
        with connector.intercept(limits=limits):
            request = asyncio.create_task(fetch(session, "http://app.internal/"))
            await held.started.get()
        held.may_end.set()
        assert await request == b"held"


@pytest.mark.parametrize("limits", [True, False])
async def test_a_session_that_is_closed_after_the_block_ends_its_requests(limits: bool) -> None:
    held = Held()
    async with routing({"app.internal": held}) as connector:
        session = ClientSession()
        with connector.intercept(limits=limits):
            request = asyncio.create_task(fetch(session, "http://app.internal/"))
            await held.started.get()
        await session.close()
        with pytest.raises(aiohttp.ClientError):
            await request


@pytest.mark.parametrize("limits", [True, False])
async def test_a_session_that_is_closed_during_a_startup_gets_no_connection(limits: bool) -> None:
    may_start = asyncio.Event()
    starting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        starting.set()
        await may_start.wait()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    connector = ASGIRoutingConnector({"app.internal": app})
    with connector.intercept(limits=limits):
        session = ClientSession()
        request = asyncio.create_task(fetch(session, "http://app.internal/"))
        await starting.wait()
        await session.close()
        may_start.set()
        with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
            await request
    await connector.close()


@pytest.mark.parametrize("limits", [True, False])
async def test_a_response_that_is_forgotten_gives_its_place_back(limits: bool) -> None:
    own = TCPConnector(limit=1)
    async with routing() as connector, ClientSession(connector=own) as session:
        with connector.intercept(limits=limits):
            response = await session.get("http://app.internal/")
            kept = weakref.ref(response)
            del response
            gc.collect()
            assert kept() is None
            assert await fetch(session, "http://app.internal/") == b"ok"
    assert not own._acquired


@pytest.mark.parametrize("limits", [True, False])
async def test_a_connection_that_its_user_has_lost_gives_its_place_back(limits: bool) -> None:
    messages: list[str] = []  # and no more of the reports, which have the connection
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: messages.append(context["message"]))
    own = TCPConnector(limit=1)
    async with routing() as connector, ClientSession(connector=own) as session:
        with connector.intercept(limits=limits):
            url = URL("http://app.internal/")
            request = aiohttp.ClientRequest("GET", url, loop=loop)
            connection: Connection | None = await own.connect(request, [], ClientTimeout())
            assert connection is not None
            with pytest.warns(ResourceWarning, match="Unclosed connection"):
                connection = None
            assert await fetch(session, "http://app.internal/") == b"ok"
    assert not own._acquired
    assert messages == ["Unclosed connection"]


async def test_a_request_that_is_cancelled_while_it_waits_leaves_nothing() -> None:
    held = Held()
    own = TCPConnector(limit=1)
    async with routing({"app.internal": held}) as connector, ClientSession(connector=own) as session:
        with connector.intercept():
            first = asyncio.create_task(fetch(session, "http://app.internal/1"))
            await held.started.get()
            second = asyncio.create_task(fetch(session, "http://app.internal/2"))
            await settle()
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            held.may_end.set()
            assert await first == b"held"
    assert not own._acquired
    assert not any(own._waiters.values())


async def test_the_session_keeps_its_cookies_traces_and_settings() -> None:
    traced: list[str] = []
    trace = aiohttp.TraceConfig()

    async def note(*args: Any) -> None:
        traced.append("start")

    trace.on_request_start.append(note)
    apps = {"app.internal": answering("no", (b"set-cookie", b"a=1"), status=404)}
    async with routing(apps) as connector:
        with connector.intercept():
            async with ClientSession(raise_for_status=True, trace_configs=[trace]) as session:
                with pytest.raises(aiohttp.ClientResponseError):
                    await fetch(session, "http://app.internal/")
                assert [cookie.value for cookie in session.cookie_jar] == ["1"]
    assert traced == ["start"]


async def test_proxies_and_ssl_mean_nothing_for_a_mounted_host() -> None:
    async with routing() as connector:
        with connector.intercept():
            async with ClientSession() as session:
                url, proxy = "https://app.internal/", "http://proxy.internal:3128"
                assert await fetch(session, url, ssl=False, proxy=proxy) == b"ok"


async def test_redirects_are_followed_in_both_directions() -> None:
    async with real_server() as url:
        there = answering("", (b"location", url.encode()), status=302)
        async with routing({"app.internal": answering("back"), "there.internal": there}) as connector:
            with connector.record() as journal, connector.intercept(passthrough=["127.0.0.1"]):
                assert await get("http://there.internal/") == b"real"

    async def redirect(_: web.Request) -> web.Response:
        raise web.HTTPFound("http://app.internal/")

    app = web.Application()
    app.router.add_get("/", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with routing({"app.internal": answering("back")}) as connector:
        with connector.intercept(passthrough=["127.0.0.1"]):
            assert await get(f"http://127.0.0.1:{runner.addresses[0][1]}/") == b"back"
    await runner.cleanup()
    assert [each.via for each in journal] == ["app", "fallback"]


async def test_exceptions_and_faults_are_as_through_our_own_session() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("the app's own")

    async with routing({"fails.internal": fails, "app.internal": answering()}) as connector:
        with connector.intercept():
            with pytest.raises(LookupError, match="the app's own"):
                await get("http://fails.internal/")
            with connector.inject("app.internal", faults.Refuse()), pytest.raises(aiohttp.ClientConnectorError):
                await get("http://app.internal/")


async def test_an_app_that_looks_like_a_broken_connection_runs_once() -> None:
    """aiohttp sends an idempotent request again if its connection breaks."""
    calls = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        raise ConnectionResetError("the app's own")

    async with routing({"app.internal": app}) as connector:
        with connector.intercept(), pytest.raises(aiohttp.ClientOSError, match="the app's own"):
            await get("http://app.internal/")
    assert calls == 1


async def test_a_slot_that_is_freed_while_the_lock_is_held_does_not_wait_for_it() -> None:
    """The garbage collector may do that, in any line."""
    own = TCPConnector()
    slot = interception.Slot(own, "key", limited=False)
    with interception._lock:
        slot.free()
    slot.free()
    assert own not in interception._unlimited
    await own.close()


# Blocks and connectors.


async def test_blocks_nest_and_the_innermost_that_mounts_a_host_answers() -> None:
    async with (
        routing({"app.internal": answering("outer"), "only.internal": answering("outer only")}) as outer,
        ASGIRoutingConnector({"app.internal": answering("inner")}, lifespan="off") as inner,
    ):
        with outer.intercept(), outer.intercept():
            with inner.intercept():
                assert await get("http://app.internal/") == b"inner"
                assert await get("http://only.internal/") == b"outer only"
            assert await get("http://app.internal/") == b"outer"


async def test_the_innermost_block_refuses() -> None:
    async with routing() as outer, routing({}) as inner, real_server() as url:
        with outer.intercept(passthrough=True), inner.intercept(), pytest.raises(UnmountedHostError):
            await get(url)


async def test_blocks_may_end_in_any_order() -> None:
    async with routing() as connector, real_server() as url:
        first: AbstractContextManager[None] = connector.intercept()
        second = connector.intercept(passthrough=True)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert await get(url) == b"real"
        second.__exit__(None, None, None)


async def test_a_block_is_entered_once() -> None:
    async with routing() as connector:
        block = connector.intercept()
        with block:
            pass
        with pytest.raises(RuntimeError, match="has been entered before"), block:
            pass


async def test_a_closed_connector_in_its_block() -> None:
    connector = routing()
    async with real_server() as url:
        with connector.intercept(passthrough=["127.0.0.1"]):
            await connector.close()
            with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
                await get("http://app.internal/")
            with pytest.raises(UnmountedHostError):
                await get("http://other.internal/")
            assert await get(url) == b"real"
    with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
        connector.intercept()


async def test_a_startup_that_fails_reaches_the_caller_and_leaves_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    connector = ASGIRoutingConnector({"app.internal": app})
    own = TCPConnector(limit=1)
    async with ClientSession(connector=own) as session:
        with connector.intercept():
            for _ in range(2):
                with pytest.raises(LifespanError, match="no database"):
                    await fetch(session, "http://app.internal/")
        assert not own._acquired
    await connector.close()


async def test_an_app_that_is_unmounted_while_a_request_is_dispatched() -> None:
    starting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        starting.set()
        await asyncio.get_running_loop().create_future()

    async with real_server() as url:
        connector = ASGIRoutingConnector({"127.0.0.1": app}, shutdown_timeout=0)
        with connector.intercept(passthrough=True):
            own = TCPConnector(limit=1)
            request = asyncio.create_task(get(url, connector=own))
            await starting.wait()
            unmounting = asyncio.create_task(connector.unmount("127.0.0.1"))
            assert await request == b"real"
            await unmounting
        await connector.close()


async def test_a_block_around_the_connector_holds_for_startup_and_shutdown() -> None:
    """As docs/howto/intercept.md says: what an app calls before its first request and after its last one too."""
    bodies: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        for phase in ("startup", "shutdown"):
            await receive()
            bodies.append(await get(f"http://config.internal/{phase}"))
            await send({"type": f"lifespan.{phase}.complete"})

    apps: dict[str, Mount] = {
        "config.internal": Mount(answering("config"), lifespan="off"),
        "orders.internal": Mount(app),
    }
    connector = ASGIRoutingConnector(apps)
    with connector.intercept():
        async with connector:
            assert bodies == [b"config"]
    assert bodies == [b"config", b"config"]


async def test_a_block_around_the_connector_holds_for_an_app_whose_client_has_gone() -> None:
    held, errors = Held(), list[BaseException]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await held(scope, receive, send)
        try:
            await get(url)
        except aiohttp.ClientError as exc:
            errors.append(exc)

    async with real_server() as url:
        connector = routing({"app.internal": app})
        with connector.intercept(allow_refused=True):
            async with connector:
                request = asyncio.create_task(get("http://app.internal/"))
                await held.started.get()
                request.cancel()
            assert held.disconnects == 1
    assert [type(exc) for exc in errors] == [UnmountedHostError]


def test_a_session_of_another_loop_cannot_call_a_mounted_app() -> None:
    async def main() -> None:
        async with routing({"app.internal": answering()}) as connector:
            with connector.intercept(allow_refused=True):
                loop = asyncio.get_running_loop()
                errors = await loop.run_in_executor(None, lambda: asyncio.run(elsewhere()))
        mounted, unmounted = errors
        assert isinstance(mounted, RuntimeError)
        assert str(mounted).count(" at 0x") >= 2
        assert "an app answers in the event loop of its connector" in str(mounted)
        assert isinstance(unmounted, UnmountedHostError)

    async def elsewhere() -> list[Any]:
        urls = ["http://app.internal/", "http://other.internal/"]
        return list(await asyncio.gather(*map(get, urls), return_exceptions=True))

    asyncio.run(main())


def test_a_session_of_another_loop_may_pass() -> None:
    async def main() -> None:
        async with routing() as connector, real_server() as url:
            with connector.intercept(passthrough=True):
                loop = asyncio.get_running_loop()
                assert await loop.run_in_executor(None, lambda: asyncio.run(get(url))) == b"real"

    asyncio.run(main())


def test_threads_open_blocks_at_once() -> None:
    barrier = threading.Barrier(4)
    results: list[bytes] = []

    async def main(name: str) -> None:
        async with routing({f"{name}.internal": answering(name)}) as connector:
            barrier.wait()
            for _ in range(20):
                with connector.intercept():
                    results.append(await get(f"http://{name}.internal/"))
            barrier.wait()

    threads = [threading.Thread(target=asyncio.run, args=(main(name),)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted([name.encode() for name in "abcd"] * 20)


async def test_an_application_connector_answers_every_session() -> None:
    async with ASGIApplicationConnector(answering(), lifespan="off") as connector:
        with connector.intercept():
            assert await get("https://api.github.com/") == b"ok"


async def test_a_block_opens_where_no_task_runs() -> None:
    """As in a fixture that is not async."""
    connector = routing()
    opened: asyncio.Queue[AbstractContextManager[None]] = asyncio.Queue()

    def fixture() -> None:
        block = connector.intercept()
        block.__enter__()
        opened.put_nowait(block)

    asyncio.get_running_loop().call_soon(fixture)
    block = await opened.get()
    assert await get("http://app.internal/") == b"ok"
    block.__exit__(None, None, None)
    await connector.close()


async def test_a_library_that_hides_the_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def replaced() -> None: ...

    patch = interception._Patch(replaced, "BaseConnector.connect", replaced)
    monkeypatch.setattr(interception, "_CONNECT", patch)
    async with routing() as connector:
        expected = pytest.raises(RuntimeError, match=r"cannot find aiohttp's own BaseConnector\.connect")
        with expected, connector.intercept():
            raise AssertionError("entered")
    monkeypatch.undo()
