"""What a journal tells of calls to an aiohttp.web application, and of those that it makes itself."""

import asyncio
import contextlib
import contextvars
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from asgi_connector import ASGIRoutingConnector, Exchange, Journal, Mount
from tests.conftest import session_to
from tests.support.flow import KIB
from tests.support.raw import raw_connection
from tests.support.sessions import connector_of, fetch

CHUNKS: Final = (b"one", b"", b"two" * 30 * KIB, b"six")


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    if "gzip" in request.query:
        response.enable_compression(web.ContentCoding.gzip)
    if "length" in request.query:
        response.content_length = sum(map(len, CHUNKS))
    if request.version == aiohttp.HttpVersion10:
        response.force_close()
    await response.prepare(request)
    for chunk in CHUNKS:
        await response.write(chunk)
    return response


async def fail(request: web.Request) -> web.Response:
    raise LookupError("no such user")


async def answers_twice(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b"one")
    raise web.HTTPNotFound


@pytest.mark.parametrize("bodies", [None, False, True])
async def test_a_second_response_in_the_middle_of_one_is_as_without_a_recording(bodies: bool | None) -> None:
    application = web.Application()
    application.router.add_get("/", answers_twice)
    async with session_to(application) as session:
        recording = contextlib.nullcontext() if bodies is None else connector_of(session).record(bodies=bodies)
        with recording as journal, pytest.raises(aiohttp.ClientResponseError) as caught:
            await fetch(session)
        assert caught.value.status == 400
        if journal is not None and bodies:
            assert journal[0].response is None or journal[0].response.body == b"one"


async def chat(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        if message.data == "close":
            await ws.close(code=3001)
        elif message.data == "fail":
            raise LookupError("no such room")
        elif message.type is WSMsgType.TEXT:
            await ws.send_str(message.data * 2)
        else:
            await ws.send_bytes(message.data * 2)
    return ws


def app(**settings: Any) -> web.Application:
    app = web.Application(**settings)
    app.router.add_post("/echo", echo)
    app.router.add_get("/stream", stream)
    app.router.add_get("/fail", fail)
    app.router.add_get("/chat", chat)
    return app


@asynccontextmanager
async def recorded(mounted: web.Application | Mount, **settings: Any) -> AsyncIterator[tuple[Any, Journal]]:
    async with session_to({"app.internal": mounted}, **settings) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        with connector.record(bodies=True) as journal:
            yield session, journal


def only(journal: Journal) -> Exchange:
    (exchange,) = journal
    return exchange


@pytest.mark.parametrize("size", [0, 5, 200 * KIB])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_are_told(size: int, chunked: bool) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, size, 3000):
            yield data[at : at + 3000]

    async with (
        recorded(app()) as (session, journal),
        session.post("/echo", data=pieces() if chunked else data) as response,
    ):
        assert await response.read() == data
    exchange = only(journal)
    assert (exchange.via, exchange.service, exchange.status) == ("app", "app.internal", 200)
    assert exchange.state == "done"
    assert exchange.request.body == data
    assert exchange.response is not None
    assert exchange.response.body == data
    assert exchange.waited is not None


@pytest.mark.parametrize("query", ["", "length", "gzip"])
async def test_a_stream_is_told_in_the_content_encoding_that_it_has(query: str) -> None:
    async with (
        recorded(app(), session_auto_decompress=False) as (session, journal),
        session.get(f"/stream?{query}") as response,
    ):
        data = await response.read()
    response = only(journal).response
    assert response is not None
    assert response.body == data
    assert query == "gzip" or data == b"".join(CHUNKS)


async def test_a_body_that_ends_with_its_connection_is_told() -> None:
    async with (
        recorded(app(), session_version=aiohttp.HttpVersion10) as (session, journal),
        session.get("/stream") as response,
    ):
        assert await response.read() == b"".join(CHUNKS)
    response = only(journal).response
    assert response is not None
    assert response.body == b"".join(CHUNKS)


async def test_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 300 * KIB)
    files = web.Application()
    files.router.add_static("/", tmp_path)
    async with recorded(files) as (session, journal):
        async with session.get("/file") as response:
            await response.read()
        async with session.head("/file") as response:
            assert response.content_length == 300 * KIB
    get, head = journal
    assert get.response is not None
    assert get.response.size == 300 * KIB
    assert head.response is not None
    assert head.response.size == 0


async def test_requests_on_one_connection_are_told_apart() -> None:
    async with recorded(app()) as (session, journal):
        for text in (b"a", b"bb"):
            async with session.post("/echo", data=text) as response:
                await response.read()
        async with session.post("/echo", data=b"ccc", expect100=True) as response:
            await response.read()
    assert [(each.reused, each.request.body, each.response and each.response.body) for each in journal] == [
        (False, b"a", b"a"),
        (True, b"bb", b"bb"),
        (True, b"ccc", b"ccc"),
    ]


@pytest.mark.parametrize("raise_app_exceptions", [True, False])
async def test_an_exception_is_told(raise_app_exceptions: bool) -> None:
    mount = Mount(app(), raise_app_exceptions=raise_app_exceptions)
    async with recorded(mount) as (session, journal):
        if raise_app_exceptions:
            with pytest.raises(LookupError):
                await session.get("/fail")
        else:
            async with session.get("/fail") as response:
                assert response.status == 500
    exchange = only(journal)
    assert isinstance(exchange.error, LookupError)
    assert exchange.status == (None if raise_app_exceptions else 500)


async def test_what_is_no_request_to_aiohttp_is_told_as_it_is_answered() -> None:
    async with recorded(app()) as (session, journal), session.get("/", headers={"X-Long": "x" * 9000}) as response:
        assert response.status == 400
        text = await response.read()
    exchange = only(journal)
    assert exchange.status == 400
    assert exchange.response is not None
    assert exchange.response.body == text


async def test_a_head_that_only_aiohttp_understands_is_answered_and_its_body_is_not_told() -> None:
    async with (
        recorded(app(handler_args={"max_field_size": 100_000})) as (session, journal),
        session.post("/echo", data=io.BytesIO(b"abc" * 200_000), headers={"X-Long": "x" * 70_000}) as response,
    ):
        assert await response.read() == b"abc" * 200_000
    exchange = only(journal)
    assert exchange.request.size == 0
    assert exchange.response is not None
    assert exchange.response.body == b"abc" * 200_000


@pytest.mark.parametrize("compress", [0, 15])
async def test_messages_are_told(compress: int) -> None:
    async with recorded(app()) as (session, journal), session.ws_connect("/chat", compress=compress) as ws:
        await ws.send_str("ü" * 1000)
        await ws.receive()
        await ws.send_bytes(b"\0" * 30_000)
        await ws.receive()
        await ws.close(code=3000)
        assert ws.close_code == 1000  # aiohttp.web does not answer with the same code
    exchange = only(journal)
    assert [(each.from_client, each.is_text, each.data) for each in exchange.messages] == [
        (True, True, "ü" * 1000),
        (False, True, "ü" * 2000),
        (True, False, b"\0" * 30_000),
        (False, False, b"\0" * 60_000),
    ]
    assert (exchange.status, exchange.state, exchange.close_code) == (101, "done", 1000)


async def test_a_websocket_that_the_application_closes_is_told() -> None:
    async with recorded(app()) as (session, journal), session.ws_connect("/chat") as ws:
        await ws.send_str("close")
        assert (await ws.receive()).type is WSMsgType.CLOSE
    assert (only(journal).state, only(journal).close_code) == ("done", 3001)


async def test_a_websocket_that_fails_is_told() -> None:
    async with recorded(app()) as (session, journal), session.ws_connect("/chat") as ws:
        await ws.send_str("fail")
        assert (await ws.receive()).type is WSMsgType.ERROR
    assert isinstance(only(journal).error, LookupError)


async def test_what_is_no_frame_is_not_told() -> None:
    async with recorded(app()) as (session, journal):
        ws = await session.ws_connect("/chat")
        transport = ws._response.connection.transport
        transport.write(b"\xff" * 10)
        await ws.receive()
        await ws.close()
    assert only(journal).messages == ()


# Who calls whom.

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


async def test_the_calls_of_a_handler_are_its_own() -> None:
    async def front(request: web.Request) -> web.Response:
        async with request.app[SESSION].post("http://back.internal/echo", data=b"x") as response:
            return web.Response(body=await response.read())

    async def prepared(request: web.Request, response: web.StreamResponse) -> None:
        async with request.app[SESSION].post("http://back.internal/echo", data=b"y") as answer:
            response.headers["X-Answer"] = await answer.text()

    frontend = web.Application()
    frontend.router.add_get("/", front)
    frontend.on_response_prepare.append(prepared)
    async with (
        ASGIRoutingConnector({"front.internal": frontend, "back.internal": app()}) as connector,
        aiohttp.ClientSession(connector=connector, connector_owner=False) as session,
    ):
        frontend._state[SESSION] = session
        with connector.record() as journal:
            for _ in range(2):
                async with session.get("http://front.internal/") as response:
                    assert (await response.text(), response.headers["X-Answer"]) == ("x", "y")
    calls = [(each.caller, each.service, each.parent and each.parent.number) for each in journal]
    assert calls == [
        (None, "front.internal", None),
        ("front.internal", "back.internal", 0),
        ("front.internal", "back.internal", 0),
        (None, "front.internal", None),
        ("front.internal", "back.internal", 3),
        ("front.internal", "back.internal", 3),
    ]


SESSION: Final = web.AppKey("SESSION", aiohttp.ClientSession)


async def test_the_calls_of_a_startup_are_its_own() -> None:
    async def start(app: web.Application) -> None:
        async with session.post("http://back.internal/echo", data=b"x"):
            pass

    frontend = web.Application()
    frontend.on_startup.append(start)
    connector = ASGIRoutingConnector({"front.internal": frontend, "back.internal": app()})
    async with aiohttp.ClientSession(connector=connector, connector_owner=False) as session:
        with connector.record() as journal:
            async with connector:
                pass
    assert [(each.caller, each.service) for each in journal] == [("front.internal", "back.internal")]


async def tell(request: web.Request) -> web.Response:
    before = user.get()
    user.set("the handler")
    return web.Response(text=before)


@pytest.mark.parametrize("inherit", ["outside", "always", "never"])
async def test_the_context_is_that_of_the_caller_where_it_comes_from_outside(inherit: Any) -> None:
    async def front(request: web.Request) -> web.Response:
        user.set("front")
        async with session.get("http://back.internal/") as response:
            return web.Response(text=await response.text())

    frontend, backend = web.Application(), web.Application()
    frontend.router.add_get("/", front)
    backend.router.add_get("/", tell)
    apps = {"front.internal": frontend, "back.internal": backend}
    async with session_to(apps, inherit_context=inherit) as session:
        user.set("test")
        for name, expected in [("back", "nobody" if inherit == "never" else "test"), ("front", None)] * 2:
            async with session.get(f"http://{name}.internal/") as response:
                text = await response.text()
            if expected is None:
                expected = "front" if inherit == "always" else "nobody"
            assert text == expected
        assert user.get() == "test"


async def test_the_context_is_that_of_the_request_in_what_follows_the_handler() -> None:
    seen: list[str] = []

    async def prepared(request: web.Request, response: web.StreamResponse) -> None:
        seen.append(user.get())

    backend = web.Application()
    backend.router.add_get("/", tell)
    backend.on_response_prepare.append(prepared)
    async with session_to(backend) as session:
        for name in ("ann", "bob"):
            user.set(name)
            async with session.get("/") as response:
                assert await response.text() == name
    assert seen == ["the handler", "the handler"]


async def test_an_application_may_not_wait_for_itself() -> None:
    async def handler(request: web.Request) -> web.Response:
        with pytest.raises(RuntimeError, match="cannot be unmounted from inside one of its own requests"):
            await connector.unmount("app.internal")
        closing = asyncio.ensure_future(connector.close())  # which is begun, and not awaited
        await closing
        return web.Response()

    inside = web.Application()
    inside.router.add_get("/", handler)
    connector = ASGIRoutingConnector({"app.internal": inside})
    async with aiohttp.ClientSession("http://app.internal", connector=connector) as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get("/")


async def test_pings_are_not_told() -> None:
    async with recorded(app()) as (session, journal), session.ws_connect("/chat") as ws:
        await ws.ping(b"")
        await ws.send_str("a")
        await ws.receive()
    assert [each.data for each in only(journal).messages] == ["a", "aa"]


async def test_a_response_head_that_is_none_is_not_read() -> None:
    async def odd(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\nno-space:here\r\nContent-Length: 2\r\n\r\nok")
        raise asyncio.CancelledError

    application = web.Application()
    application.router.add_get("/", odd)
    async with (
        recorded(application, raise_app_exceptions=False) as (session, journal),
        session.get("/") as response,
    ):
        assert await response.text() == "ok"
    exchange = only(journal)
    assert exchange.status == 200
    assert exchange.response is not None
    assert exchange.response.size == 0


async def test_a_head_in_two_pieces_is_told() -> None:
    async with session_to(app()) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        with connector.record(bodies=True) as journal:
            async with raw_connection(session) as connection:
                await connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\n", b"Content-Length: 3\r\n\r\n", b"abc")
                assert (await connection.response())[2] == b"abc"
    assert only(journal).request.body == b"abc"
