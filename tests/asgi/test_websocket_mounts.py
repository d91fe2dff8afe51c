"""WebSockets and the rest of the connector: the table, fallbacks, pools, lifespans, mounting, and closing."""

import asyncio
import contextvars
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import (
    ClientConnectionError,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    TCPConnector,
    TraceConfig,
    WSMsgType,
    WSServerHandshakeError,
    web,
)
from yarl import URL

from asgi_connector import ASGIRoutingConnector, LifespanError, Mount, UnmountedHostError
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.leaks import no_task_and_no_timer_is_left
from tests.support.messages import respond
from tests.support.reports import logged
from tests.support.sessions import connector_of
from tests.support.waiting import run_turns, settle, soon, until

MIB = 1024 * 1024

NEVER = 3600.0
"""A `shutdown_timeout` that must not be used up: it is longer than the test's own timeout."""

NO_TIMEOUT = ClientTimeout()
"""A session's timeout, so that no timer of aiohttp is mistaken for one of the package."""

GONE = {"type": "websocket.disconnect", "code": 1006, "reason": ""}

Close = Callable[[ClientWebSocketResponse], Awaitable[None]]


class Named:
    """Sends its name when it has accepted, or in an answer over HTTP, and echoes from then on.

    It closes when it is told to close, and fails when it is told to fail.
    """

    def __init__(self, name: str = "app") -> None:
        self.name = name
        self.scopes: list[Scope] = []
        self.disconnects: list[Message] = []

    def __repr__(self) -> str:
        return f"<app {self.name}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await respond(send, self.name.encode())
            return
        assert scope["type"] == "websocket"
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": self.name})
        while (message := await receive())["type"] == "websocket.receive":
            if message["text"] == "close":
                await send({"type": "websocket.close", "code": 4000})
            elif message["text"] == "fail":
                raise RuntimeError("it was told to")
            else:
                await send({"type": "websocket.send", "text": message["text"]})
        self.disconnects.append(message)


async def opened(session: ClientSession, url: str = "/", name: str = "app", **settings: Any) -> ClientWebSocketResponse:
    """A WebSocket to the app with this name."""
    ws: ClientWebSocketResponse = await session.ws_connect(url, **settings)
    assert await ws.receive_str() == name
    return ws


async def assert_echoes(ws: ClientWebSocketResponse, text: str = "text") -> None:
    await ws.send_str(text)
    assert await ws.receive_str() == text


async def assert_answers(session: ClientSession, url: str = "/", name: str = "app") -> None:
    async with session.get(url) as response:
        assert await response.text() == name


async def closed_by_the_client(ws: ClientWebSocketResponse) -> None:
    await ws.close()


async def closed_by_the_app(ws: ClientWebSocketResponse) -> None:
    await ws.send_str("close")
    assert (await ws.receive()).data == 4000


async def failed_in_the_app(ws: ClientWebSocketResponse) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    await ws.send_str("fail")
    received = await ws.receive()
    assert isinstance(received.data, RuntimeError)


async def dropped_by_the_client(ws: ClientWebSocketResponse) -> None:
    ws._response.close()


every_end = pytest.mark.parametrize(
    "end", [closed_by_the_client, closed_by_the_app, failed_in_the_app, dropped_by_the_client]
)


# The table.


@pytest.mark.parametrize(
    ("url", "name", "server"),
    [
        ("ws://any.internal/", "any", ("any.internal", 80)),
        ("wss://any.internal/", "any", ("any.internal", 443)),
        ("http://any.internal/", "any", ("any.internal", 80)),
        ("https://any.internal/", "any", ("any.internal", 443)),
        ("ws://any.internal:81/", "any", ("any.internal", 81)),
        ("ws://ANY.internal/", "any", ("any.internal", 80)),
        ("ws://port.internal:8080/", "8080", ("port.internal", 8080)),
        ("wss://port.internal:8080/", "8080", ("port.internal", 8080)),
        ("ws://port.internal/", "*", ("port.internal", 80)),
        ("ws://http.internal/", "http", ("http.internal", 80)),
        ("http://http.internal/", "http", ("http.internal", 80)),
        ("wss://http.internal/", "*", ("http.internal", 443)),
        ("ws://ws.internal/", "ws", ("ws.internal", 80)),
        ("http://ws.internal/", "ws", ("ws.internal", 80)),
        ("https://ws.internal/", "*", ("ws.internal", 443)),
        ("wss://https.internal/", "https", ("https.internal", 443)),
        ("ws://https.internal/", "*", ("https.internal", 80)),
        ("wss://wss.internal/", "wss", ("wss.internal", 443)),
        ("https://wss.internal/", "wss", ("wss.internal", 443)),
        ("http://wss.internal/", "*", ("wss.internal", 80)),
        ("wss://a.b.suffix.internal/", "*.suffix", ("a.b.suffix.internal", 443)),
        ("ws://[::1]/", "::1", ("::1", 80)),
    ],
)
async def test_host_port_and_scheme_decide_where_a_websocket_goes(url: str, name: str, server: tuple[str, int]) -> None:
    apps = {
        "any.internal": Named("any"),
        "port.internal:8080": Named("8080"),
        "http://http.internal": Named("http"),
        "ws://ws.internal": Named("ws"),
        "https://https.internal": Named("https"),
        "wss://wss.internal": Named("wss"),
        "*.suffix.internal": Named("*.suffix"),
        "[::1]": Named("::1"),
        "*": Named("*"),
    }
    async with session_to(apps) as session:
        ws = await opened(session, url, name)
        await assert_echoes(ws)
        await ws.close()
    (scope,) = [scope for app in apps.values() for scope in app.scopes]
    assert scope["type"] == "websocket"
    assert scope["scheme"] == ("wss" if url.startswith(("wss", "https")) else "ws")
    assert tuple(scope["server"]) == server


async def test_a_host_that_is_not_mounted_is_refused() -> None:
    async with session_to({"chat.internal": Named()}) as session:
        with pytest.raises(UnmountedHostError) as caught:
            await session.ws_connect("wss://chats.internal/")
    assert "No app is mounted for wss://chats.internal, and" in str(caught.value)
    assert "chat.internal" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "root_path", "client"),
    [
        ({}, "/all", ["10.0.0.1", 7]),
        ({"root_path": "/v1"}, "/v1", ["10.0.0.1", 7]),
        ({"client": ("10.0.0.2", 8)}, "/all", ["10.0.0.2", 8]),
        ({"client": None}, "/all", None),
    ],
)
async def test_the_settings_of_a_mount_are_in_the_scope(
    settings: dict[str, Any], root_path: str, client: list[Any] | None
) -> None:
    app = Named()
    async with session_to(
        {"app.internal": Mount(app, **settings)}, root_path="/all", client=("10.0.0.1", 7)
    ) as session:
        ws = await opened(session, "/a/b?c=d")
        assert ws.get_extra_info("peername") == ("app.internal", 80)
        await ws.close()
    (scope,) = app.scopes
    assert scope["root_path"] == root_path
    assert (None if scope["client"] is None else list(scope["client"])) == client
    assert scope["path"] == "/a/b"
    assert scope["query_string"] == b"c=d"


# Real servers as the fallback.


async def real_echo(request: web.Request) -> web.StreamResponse:
    if request.path == "/from":
        raise web.HTTPFound(request.query["to"])
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    await ws.send_str("real")
    async for message in ws:
        await ws.send_str(message.data)
    return ws


@asynccontextmanager
async def real_server() -> AsyncIterator[str]:
    """A server on the loopback interface. Yields its URL."""
    application = web.Application()
    application.router.add_get("/{path:.*}", real_echo)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        # The tasks of connections that were lost at the end of the test finish one turn later.
        while left := [task for task in asyncio.all_tasks() if "RequestHandler.start" in repr(task)]:
            await asyncio.wait(left)


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_one_session_has_websockets_to_a_real_server_and_to_a_mounted_app(scheme: str) -> None:
    async with (
        real_server() as url,
        session_to(Named(), fallback=TCPConnector()) as session,
        await opened(session, str(URL(url).with_scheme(scheme)), "real") as real,
        await opened(session) as ws,
    ):
        for _ in range(3):
            await assert_echoes(real, "to the server")
            await assert_echoes(ws, "to the app")
        await real.close()
        await assert_echoes(ws)


async def redirecting(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/from":
        await receive()
        location = scope["query_string"].removeprefix(b"to=")
        await send({"type": "websocket.http.response.start", "status": 302, "headers": [(b"location", location)]})
        await send({"type": "websocket.http.response.body", "body": b"moved"})
    else:
        await Named("mounted")(scope, receive, send)


@pytest.mark.parametrize("start", ["mounted", "real"])
@pytest.mark.parametrize("end", ["mounted", "real"])
async def test_a_redirect_is_followed_as_on_a_real_server(start: str, end: str) -> None:
    async with (
        real_server() as url,
        session_to({"mounted.internal": redirecting}, fallback=TCPConnector()) as session,
    ):
        origins = {"mounted": "http://mounted.internal", "real": url}
        ws = await session.ws_connect(f"{origins[start]}/from?to={origins[end]}/there")
        assert await ws.receive_str() == end
        assert [response.status for response in ws._response.history] == [302]
        assert ws._response.url == URL(f"{origins[end]}/there")
        await assert_echoes(ws)
        await ws.close()


# What a session adds.


async def test_cookies_and_headers_of_the_session_come_along() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"set-cookie", b"b=2"), (b"set-cookie", b"c=3")]})

    async with session_to(app, session_cookies={"a": "1"}, session_headers={"X-Session": "yes"}) as session:
        for _ in range(2):
            async with session.ws_connect("/", headers={"X-Call": "yes"}, origin="https://page.example"):
                pass
        assert {cookie.key: cookie.value for cookie in session.cookie_jar} == {"a": "1", "b": "2", "c": "3"}
    first, second = (dict(scope["headers"]) for scope in scopes)
    assert first[b"cookie"] == b"a=1"
    assert sorted(second[b"cookie"].split(b"; ")) == [b"a=1", b"b=2", b"c=3"]
    for headers in (first, second):
        assert headers[b"host"] == b"app.internal"
        assert headers[b"x-session"] == headers[b"x-call"] == b"yes"
        assert headers[b"origin"] == b"https://page.example"


class Traced:
    """The events in a session's tracing."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.config = TraceConfig()
        self.config.on_connection_create_end.append(self.note("created"))
        self.config.on_connection_reuseconn.append(self.note("reused"))
        self.config.on_request_start.append(self.start)
        self.config.on_request_end.append(self.end)
        self.config.on_request_exception.append(self.exception)

    def note(self, event: str) -> Callable[[ClientSession, SimpleNamespace, Any], Awaitable[None]]:
        async def noting(session: ClientSession, context: SimpleNamespace, params: Any) -> None:
            self.events.append(event)

        return noting

    async def start(
        self, session: ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams
    ) -> None:
        self.events.append(f"{params.method} {params.url}")

    async def end(
        self, session: ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        self.events.append(str(params.response.status))

    async def exception(
        self, session: ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestExceptionParams
    ) -> None:
        self.events.append(repr(params.exception))

    def take(self) -> list[str]:
        taken, self.events = self.events, []
        return taken


async def test_tracing_sees_the_request_that_opens_a_websocket() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/failed":
            raise RuntimeError("at once")
        await receive()
        await send({"type": "websocket.close" if scope["path"] == "/denied" else "websocket.accept"})

    traced = Traced()
    async with session_to(app, session_trace_configs=[traced.config]) as session:
        async with session.ws_connect("ws://app.internal/opened?a=b"):
            assert traced.take() == ["GET ws://app.internal/opened?a=b", "created", "101"]
        with pytest.raises(WSServerHandshakeError):
            await session.ws_connect("/denied")
        assert traced.take() == ["GET http://app.internal/denied", "created", "403"]
        with pytest.raises(RuntimeError):
            await session.ws_connect("/failed")
        assert traced.take() == ["GET http://app.internal/failed", "created", "RuntimeError('at once')"]


@every_end
async def test_a_pooled_connection_is_taken_for_the_upgrade_and_never_again(end: Close) -> None:
    traced = Traced()
    async with session_to(Named(), session_trace_configs=[traced.config]) as session:
        await assert_answers(session)
        assert traced.take()[1] == "created"
        ws = await opened(session)
        assert traced.take()[1] == "reused"
        await assert_answers(session)
        assert traced.take()[1] == "created"
        other = await opened(session)
        assert traced.take()[1] == "reused"
        await end(ws)
        await end(other)
        await settle()
        assert not connector_of(session)._conns
        await assert_answers(session)
        assert traced.take()[1] == "created"


async def test_a_get_that_upgrades_to_something_else_is_plain_http() -> None:
    app = Named()
    traced = Traced()
    async with session_to(app, session_trace_configs=[traced.config]) as session:
        headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
        for use in ("created", "reused"):
            async with session.get("/", headers=headers) as response:
                assert response.status == 200
                assert await response.text() == "app"
            assert traced.take()[1] == use
        await (await opened(session)).close()
        assert traced.take()[1] == "reused"
    assert [scope["type"] for scope in app.scopes] == ["http", "http", "websocket"]


# Callers.

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")


@pytest.mark.parametrize("pooled", [False, True])
async def test_the_callers_context_variables_are_visible_in_the_app(pooled: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, b"app")
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": tenant.get()})
            tenant.set("of the app")

    async with session_to(app) as session:
        tenant.set("of nobody")
        if pooled:
            await assert_answers(session)
        tenant.set("of the caller")
        ws = await session.ws_connect("/")
        tenant.set("of the caller, later")
        await ws.send_str("")
        assert await ws.receive_str() == "of the caller"
        await ws.send_str("")
        assert await ws.receive_str() == "of the app"
        assert tenant.get() == "of the caller, later"
        await ws.close()


class Relay:
    """Asks the next service for each answer, over its own WebSocket, and answers over HTTP or over a WebSocket."""

    def __init__(self, number: int, session: ClientSession) -> None:
        self.number = number
        self.session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.session.ws_connect(f"ws://{self.number - 1}.internal/") as ws:
            if scope["type"] == "http":
                await ws.send_str(str(self.number))
                await respond(send, (await ws.receive_str()).encode())
                return
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await ws.send_str(f"{message['text']} {self.number}")
                await send({"type": "websocket.send", "text": await ws.receive_str()})


async def just_echo(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{message['text']} 0"})


async def test_services_call_each_other_by_websockets_to_any_depth() -> None:
    async with session_to({"0.internal": just_echo}) as session:
        for number in range(1, 4):
            connector_of(session).mount(f"{number}.internal", Relay(number, session))
        async with asyncio.timeout(10):
            await assert_answers(session, "http://3.internal/", "3 2 1 0")
            async with session.ws_connect("ws://3.internal/") as ws:
                for text in ("a", "b"):
                    await ws.send_str(text)
                    assert await ws.receive_str() == f"{text} 3 2 1 0"
                await assert_answers(session, "http://2.internal/", "2 1 0")
        # Each service closes its own socket when its client has disconnected.
        await soon(connector_of(session).unmount("0.internal"))


async def test_an_exception_of_a_service_passes_through_those_that_call_it_by_websockets() -> None:
    exc = RuntimeError("at the end of the line")

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise exc

    async with session_to({"0.internal": failing}) as session:
        for number in range(1, 4):
            connector_of(session).mount(f"{number}.internal", Relay(number, session))
        with pytest.raises(RuntimeError) as caught:
            await session.ws_connect("ws://3.internal/")
        assert caught.value is exc
        with pytest.raises(RuntimeError) as caught:
            await session.get("http://3.internal/")
        assert caught.value is exc


async def test_a_hundred_sockets_at_once_do_not_touch_each_other() -> None:
    app = Named()
    together = asyncio.Barrier(100)

    async def use(session: ClientSession, number: int) -> None:
        ws = await opened(session, f"/{number}", compress=15 if number % 2 else 0)
        await together.wait()
        for count in range(10):
            await assert_echoes(ws, f"{number} {count}")
        await together.wait()
        assert await ws.close()
        assert ws.close_code == 1000

    async with session_to(app) as session, asyncio.TaskGroup() as tasks:
        for number in range(100):
            tasks.create_task(use(session, number))
    assert {scope["path"] for scope in app.scopes} == {f"/{number}" for number in range(100)}
    assert [(message["code"], message["reason"]) for message in app.disconnects] == [(1000, "")] * 100


@every_end
@pytest.mark.parametrize("limits", [{"limit": 1}, {"limit_per_host": 1}], ids=str)
async def test_a_socket_takes_one_of_a_limited_number_of_connections_until_it_ends(
    end: Close, limits: dict[str, int]
) -> None:
    async with session_to(Named(), **limits) as session:
        ws = await opened(session)
        plain = asyncio.create_task(assert_answers(session))
        socket = asyncio.create_task(opened(session))
        await settle()
        assert not plain.done()
        assert not socket.done()
        await assert_echoes(ws)
        await end(ws)
        async with asyncio.timeout(10):
            await plain
            await (await socket).close()


# Mounting and unmounting while a WebSocket is open.


@every_end
async def test_an_open_socket_goes_on_when_its_app_is_replaced(end: Close) -> None:
    old, new = Named("old"), Named("new")
    async with session_to(old) as session:
        ws = await opened(session, name="old")
        connector_of(session).mount("app.internal", new)
        await assert_echoes(ws)
        async with await opened(session, name="new") as other:
            await assert_echoes(ws)
            await assert_echoes(other)
            await end(ws)
            await assert_echoes(other)
        await (await opened(session, name="new")).close()
        await assert_answers(session, name="new")
    assert len(old.scopes) == 1


@every_end
async def test_unmount_waits_for_an_open_socket(end: Close) -> None:
    async with session_to(Named()) as session:
        ws = await opened(session)
        unmounting = asyncio.create_task(connector_of(session).unmount("app.internal"))
        await settle()
        assert not unmounting.done()
        await assert_echoes(ws)
        with pytest.raises(UnmountedHostError):
            await session.ws_connect("/")
        await end(ws)
        await soon(unmounting)


@every_end
async def test_the_end_of_a_mounted_block_waits_for_an_open_socket(end: Close) -> None:
    may_end = asyncio.Event()
    begun = asyncio.Event()

    async def mount_for_a_while(connector: ASGIRoutingConnector) -> None:
        async with connector.mounted("app.internal", Named("fake")):
            begun.set()
            await may_end.wait()

    async with session_to(Named("real")) as session:
        real = await opened(session, name="real")
        block = asyncio.create_task(mount_for_a_while(connector_of(session)))
        await begun.wait()
        fake = await opened(session, name="fake")
        may_end.set()
        await settle()
        assert not block.done()
        await assert_echoes(fake)
        await assert_echoes(real)
        await (await opened(session, name="real")).close()
        await end(fake)
        await soon(block)
        await assert_echoes(real)
        await real.close()


async def test_the_lifespan_of_a_replaced_app_shuts_down_when_its_last_socket_has_closed() -> None:
    app = WithLifespan()
    async with session_to(app, lifespan="auto") as session:
        ws = await opened(session)
        connector_of(session).mount("app.internal", Named("new"))
        await settle()
        assert app.log == ["starts", "started"]
        await assert_echoes(ws)
        await ws.close()
        await soon(app.stopped.wait())
        assert app.log == ["starts", "started", "stopped"]


@pytest.mark.parametrize("accepted", [False, True])
async def test_unmount_from_inside_a_sockets_own_app_is_an_error_and_changes_nothing(accepted: bool) -> None:
    errors: list[BaseException] = []

    async with session_to({}) as session:
        connector = connector_of(session)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            if accepted:
                await send({"type": "websocket.accept"})
            with pytest.raises(RuntimeError, match="from inside one of its own requests") as caught:
                await connector.unmount("app.internal")
            errors.append(caught.value)
            if not accepted:
                await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "app"})

        connector.mount("app.internal", app)
        for _ in range(2):
            ws = await opened(session)
            assert (await ws.receive()).data == 1000
        assert len(errors) == 2
        await soon(connector.unmount("app.internal"))


# Lifespans.


class WithLifespan:
    """An app with a lifespan that records what happens to it, and fails to start if the test wants it."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem
        self.log: list[str] = []
        self.app = Named()
        self.shared: list[str] = []
        self.stopped = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            assert "started" in self.log
            await self.app(scope, receive, send)
            return
        await receive()
        self.log.append("starts")
        await run_turns(20)
        if self.problem is not None:
            raise self.problem
        scope["state"].update(shared=self.shared, number=1)
        self.log.append("started")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.log.append("stopped")
        self.stopped.set()
        await send({"type": "lifespan.shutdown.complete"})


async def test_an_app_starts_before_its_first_socket_which_gets_a_copy_of_its_state() -> None:
    app = WithLifespan()
    async with session_to(app, lifespan="auto") as session:
        sockets = await asyncio.gather(*[opened(session) for _ in range(3)])
        assert app.log == ["starts", "started"]
        states = [scope["state"] for scope in app.app.scopes]
        for state in states:
            assert state == {"shared": [], "number": 1}
            assert state["shared"] is app.shared
        states[0]["number"] = 2
        assert states[1]["number"] == 1
        await (await opened(session)).close()
        assert app.app.scopes[3]["state"]["number"] == 1
        for ws in sockets:
            await ws.close()
    assert app.log == ["starts", "started", "stopped"]


async def test_an_app_that_fails_to_start_is_a_lifespan_error_of_ws_connect() -> None:
    app = WithLifespan(RuntimeError("no database"))
    async with session_to(app, lifespan="on") as session:
        for _ in range(2):
            with pytest.raises(LifespanError) as caught:
                await session.ws_connect("/")
            assert caught.value.__cause__ is app.problem
    assert app.app.scopes == []


async def test_an_app_shuts_down_after_the_sockets_that_closing_has_ended() -> None:
    app = WithLifespan()
    async with session_to(app, lifespan="auto", shutdown_timeout=NEVER) as session:
        ws = await opened(session)
        await soon(session.close())
        assert app.app.disconnects == [GONE]
        assert app.log == ["starts", "started", "stopped"]
        await ws.close()


# Closing.


def assert_nothing_is_left(connector: ASGIRoutingConnector) -> None:
    """No task, no connection, and no timer is left."""
    assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()
    assert not connector._conns
    assert not connector._acquired
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.BaseEventLoop):
        timers: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]
        assert [timer for timer in timers if not timer.cancelled()] == []


class Socket:
    """An app that accepts and then does what its test says. It keeps how that ended."""

    def __init__(self, then: Callable[[Receive, Send], Awaitable[object]], *, accepts: bool = True) -> None:
        self.then = then
        self.accepts = accepts
        self.begun = asyncio.Event()
        self.result: object = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if self.accepts:
            await send({"type": "websocket.accept"})
        self.begun.set()
        try:
            self.result = await self.then(receive, send)
        except BaseException as exc:
            self.result = exc
            raise


async def just_receive(receive: Receive, send: Send) -> object:
    received = []
    while (message := await receive())["type"] == "websocket.receive":
        received.append(message["text"])
    return [*received, message]


async def just_send(receive: Receive, send: Send) -> None:
    while True:
        await send({"type": "websocket.send", "bytes": bytes(MIB)})


async def just_close(receive: Receive, send: Send) -> object:
    await send({"type": "websocket.close", "code": 4000, "reason": "bye"})
    return "closed"


async def close_and_wait(receive: Receive, send: Send) -> object:
    await just_close(receive, send)
    await run_turns(20)
    return await receive()


async def just_fail(receive: Receive, send: Send) -> None:
    await send({"type": "websocket.send", "bytes": bytes(MIB)})
    raise RuntimeError("it was told to")


async def test_closing_the_session_ends_an_app_that_is_blocked_in_receive(caplog: pytest.LogCaptureFixture) -> None:
    app = Socket(just_receive)
    async with session_to(app, shutdown_timeout=NEVER, session_timeout=NO_TIMEOUT) as session:
        connector = connector_of(session)
        ws = await session.ws_connect("/")
        for number in range(3):
            await ws.send_str(str(number))
        await soon(session.close())
        assert app.result == ["0", "1", "2", GONE]
        assert (await ws.receive()).type is WSMsgType.CLOSED
        assert_nothing_is_left(connector)
    assert logged(caplog) == []


async def test_closing_the_session_wakes_a_client_that_is_blocked_in_receive() -> None:
    app = Socket(just_receive)
    async with session_to(app, shutdown_timeout=NEVER, session_timeout=NO_TIMEOUT) as session:
        connector = connector_of(session)
        ws = await session.ws_connect("/", heartbeat=NEVER)
        receiving = asyncio.create_task(ws.receive())
        await settle()
        await soon(session.close())
        assert (await receiving).type is WSMsgType.CLOSED
        assert ws.closed
        released = ws._response.connection is None
        ws._response.close()
        assert released  # or it would warn that it is unclosed, which it does not over TCP
        assert app.result == [GONE]
        assert_nothing_is_left(connector)


async def test_closing_the_session_ends_an_app_that_is_blocked_in_send(caplog: pytest.LogCaptureFixture) -> None:
    app = Socket(just_send)
    async with session_to(app, shutdown_timeout=NEVER, session_timeout=NO_TIMEOUT) as session:
        connector = connector_of(session)
        ws = await session.ws_connect("/")
        await settle()
        await soon(session.close())
        assert isinstance(app.result, ConnectionResetError)
        assert_nothing_is_left(connector)
        await ws.close()
    assert logged(caplog) == []


@pytest.mark.parametrize("shutdown_timeout", [0, 0.05])
@pytest.mark.parametrize("accepts", [True, False])
async def test_an_app_that_ignores_the_disconnect_is_cancelled_with_a_warning_that_names_app_and_path(
    shutdown_timeout: float, accepts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def ignore(receive: Receive, send: Send) -> None:
        await asyncio.get_running_loop().create_future()

    inner = Socket(ignore, accepts=accepts)

    async def stubborn_app(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)

    async with session_to(stubborn_app, shutdown_timeout=shutdown_timeout, session_timeout=NO_TIMEOUT) as session:
        connector = connector_of(session)
        connecting = asyncio.ensure_future(session.ws_connect("/rooms/7?a=b"))
        await inner.begun.wait()
        ws = await connecting if accepts else None
        await session.close()
        assert isinstance(inner.result, asyncio.CancelledError)
        if ws is not None:
            await ws.close()
        else:
            with pytest.raises(ClientConnectionError):
                await connecting
        assert_nothing_is_left(connector)
    [(level, message)] = logged(caplog)
    assert level == logging.WARNING
    assert "stubborn_app" in message
    assert "GET ws://app.internal/rooms/7?a=b" in message


@pytest.mark.parametrize("then", [just_close, close_and_wait])
async def test_closing_the_session_ends_a_socket_that_only_its_app_has_closed(
    then: Callable[[Receive, Send], Awaitable[object]], caplog: pytest.LogCaptureFixture
) -> None:
    app = Socket(then)
    async with session_to(app, shutdown_timeout=NEVER, session_timeout=NO_TIMEOUT) as session:
        connector = connector_of(session)
        ws = await session.ws_connect("/")
        await until(lambda: app.result is not None)
        await soon(session.close())
        expected = {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}
        assert app.result == ("closed" if then is just_close else expected)
        assert_nothing_is_left(connector)
        await ws.close()
    assert logged(caplog) == []


async def test_closing_the_session_ends_a_socket_whose_app_has_failed() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))
    app = Socket(just_fail)
    async with session_to(app, shutdown_timeout=NEVER, session_timeout=NO_TIMEOUT) as session:
        connector = connector_of(session)
        ws = await session.ws_connect("/")
        await until(lambda: reports)
        await soon(session.close())
        assert_nothing_is_left(connector)
        await ws.close()
    (report,) = reports
    assert report["exception"] is app.result


async def test_closing_the_session_before_the_accept_fails_ws_connect(caplog: pytest.LogCaptureFixture) -> None:
    app = Socket(just_receive, accepts=False)
    async with session_to(app, shutdown_timeout=NEVER, session_timeout=NO_TIMEOUT) as session:
        connector = connector_of(session)
        connecting = asyncio.ensure_future(session.ws_connect("/"))
        await app.begun.wait()
        await soon(session.close())
        with pytest.raises(ClientConnectionError):
            await connecting
        assert app.result == [GONE]
        assert_nothing_is_left(connector)
    assert logged(caplog) == []


@pytest.mark.parametrize("accepts", [True, False])
async def test_close_from_inside_an_app_starts_the_closing_and_does_not_wait_for_that_app(accepts: bool) -> None:
    async with session_to({}, shutdown_timeout=NEVER, session_timeout=NO_TIMEOUT) as session:
        connector = connector_of(session)

        async def close_it(receive: Receive, send: Send) -> object:
            await run_turns(20)
            async with asyncio.timeout(5):
                await connector.close()
            return await receive()

        app = Socket(close_it, accepts=accepts)
        connector.mount("app.internal", app)
        if accepts:
            ws = await session.ws_connect("/")
            assert (await ws.receive()).type is WSMsgType.CLOSED
        else:
            with pytest.raises(ClientConnectionError):
                await session.ws_connect("/")
        await soon(connector.close())
        assert connector.closed
        assert app.result == GONE
        assert_nothing_is_left(connector)


class Thing:
    """An object that an app keeps in its scope."""


async def the_client_closes(session: ClientSession) -> None:
    async with session.ws_connect("/") as ws:
        await ws.send_str("text")
        assert await ws.receive_str() == "text"


async def the_app_closes(session: ClientSession) -> None:
    ws = await session.ws_connect("/")
    await ws.send_str("close")
    assert (await ws.receive()).data == 4000


async def the_app_fails(session: ClientSession) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    ws = await session.ws_connect("/")
    await ws.send_str("fail")
    assert (await ws.receive()).type is WSMsgType.ERROR


async def the_client_vanishes(session: ClientSession) -> None:
    ws = await session.ws_connect("/")
    ws._response.close()


async def the_app_refuses(session: ClientSession) -> None:
    with pytest.raises(WSServerHandshakeError):
        await session.ws_connect("/refused")


async def the_client_does_not_wait(session: ClientSession) -> None:
    connecting = asyncio.ensure_future(session.ws_connect("/slow"))
    await settle()
    connecting.cancel()
    await asyncio.wait({connecting})


@pytest.mark.parametrize(
    "use",
    [
        the_client_closes,
        the_app_closes,
        the_app_fails,
        the_client_vanishes,
        the_app_refuses,
        the_client_does_not_wait,
    ],
)
async def test_nothing_of_a_socket_is_kept_when_it_is_over(
    use: Callable[[ClientSession], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "asgi_connector")  # a record would keep the frames of its traceback
    things: list[weakref.ref[Thing]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["thing"] = thing = Thing()
        things.append(weakref.ref(thing))
        await receive()
        if scope["path"] == "/refused":
            await send({"type": "websocket.close"})
            return
        if scope["path"] == "/slow":
            assert await receive() == GONE
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if message["text"] == "close":
                await send({"type": "websocket.close", "code": 4000})
            elif message["text"] == "fail":
                raise RuntimeError("it was told to")
            else:
                await send({"type": "websocket.send", "text": message["text"]})

    async with session_to(app) as session:
        for _ in range(3):
            await use(session)
        await settle()
        gc.collect()
        assert len(things) == 3
        assert [thing() for thing in things] == [None] * 3


@pytest.mark.parametrize("ending", ["returns", "closes", "raises"])
@pytest.mark.parametrize("eager", [True, False])
async def test_an_app_that_is_over_is_unmounted_though_its_client_has_not_looked(ending: str, eager: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if not eager:
            await asyncio.sleep(0)
        if ending == "closes":
            await send({"type": "websocket.close"})
        if ending == "raises":
            raise ValueError

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with session_to({}) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        async with connector.mounted("chat.internal", app):
            ws = await session.ws_connect("ws://chat.internal/")
        message = await ws.receive()
        assert message.type is (WSMsgType.ERROR if ending == "raises" else WSMsgType.CLOSE)


async def test_an_app_that_takes_no_notice_of_the_disconnect_does_not_starve_the_loop() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await receive()

    async with session_to(app, shutdown_timeout=0) as session, session.ws_connect("/"):
        pass


async def test_an_app_that_is_told_of_no_accept_again_and_again_does_not_starve_the_loop() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close"})
        while True:
            await receive()

    async with session_to(app, shutdown_timeout=0) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect("/")


async def test_a_close_frame_that_is_found_after_the_connection_was_lost_leaves_no_timer() -> None:
    """The reader stops before the frame while the app has too many messages to receive."""
    received: list[Message] = []
    may_receive, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await may_receive.wait()
        while not received or received[-1]["type"] != "websocket.disconnect":
            received.append(await receive())
        ended.set()

    async with session_to(app) as session:
        ws = await session.ws_connect("/")
        for _ in range(90):
            await ws.send_bytes(bytes(1000))
        close = asyncio.ensure_future(ws.close(code=4000, message=b"bye"))
        await settle()
        close.cancel()
        with pytest.raises(asyncio.CancelledError):
            await close
        await settle()
        may_receive.set()
        await ended.wait()
        assert received[90:] == [{"type": "websocket.disconnect", "code": 4000, "reason": "bye"}]
    no_task_and_no_timer_is_left()
