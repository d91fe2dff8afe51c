"""What an aiohttp.web application and a client see of each other: in process the same as over a `web.TCPSite`."""

import asyncio
import gzip
import io
import logging
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from multidict import CIMultiDict

from tests.conftest import AIOHTTP
from tests.support.flow import KIB, MIB, until_it_stops
from tests.support.raw import raw_connection
from tests.support.web_servers import DIFFERENCES, IN_PROCESS, ServeWeb, page_table, serving_and_closing

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "frameworks" / "aiohttp-web.md"


def app_of(handler: Any, method: str = "*", **settings: Any) -> web.Application:
    app = web.Application(**settings)
    app.router.add_route(method, "/{tail:.*}", handler)
    return app


async def ok(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), content_type="application/x-echo")


@pytest.fixture
def expected(way: str, request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """What to expect: what is given, or in the other way what the table of differences has."""

    def expected(here: Any) -> Any:
        instead = DIFFERENCES[request.node.originalname].instead
        assert instead != here
        return here if way == IN_PROCESS else instead

    return expected


# The request.


async def test_the_request_says_what_was_asked(serve: ServeWeb) -> None:
    seen: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.Response:
        seen.update(
            method=request.method,
            path=request.path,
            raw_path=request.raw_path,
            query=list(request.query.items()),
            version=request.version,
            scheme=request.scheme,
            secure=request.secure,
            remote=request.remote,
            keep_alive=request.keep_alive,
            names=[name.decode() for name, _ in request.raw_headers if name != b"User-Agent"],
            who=request.headers.getall("X-Who"),
            cookies=dict(request.cookies),
            body_exists=request.body_exists,
            matched=dict(request.match_info),
            port=request.url.port,
            host=request.host,
            sslcontext=request.transport is not None and request.transport.get_extra_info("sslcontext"),
        )
        return web.Response()

    headers = CIMultiDict([("X-Who", "ann"), ("X-Who", "bob"), ("X-Empty", "")])
    async with serve(app_of(handler), cookies={"a": "1"}) as session:
        async with session.get("/a%20b/ü?x=1&x=2&y=", headers=headers) as response:
            assert response.status == 200
        base = session._base_url
        assert base is not None
    host = base.host if base.is_default_port() else f"{base.host}:{base.port}"
    assert seen == {
        "method": "GET",
        "path": "/a b/ü",
        "raw_path": "/a%20b/%C3%BC?x=1&x=2&y=",
        "query": [("x", "1"), ("x", "2"), ("y", "")],
        "version": aiohttp.HttpVersion11,
        "scheme": "http",
        "secure": False,
        "remote": "127.0.0.1",
        "keep_alive": True,
        "names": ["Host", "X-Who", "X-Who", "X-Empty", "Accept", "Accept-Encoding", "Cookie"],
        "who": ["ann", "bob"],
        "cookies": {"a": "1"},
        "body_exists": False,
        "matched": {"tail": "a b/ü"},
        "port": base.port,
        "host": host,
        "sslcontext": None,
    }


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_any_method_is_answered(serve: ServeWeb, method: str) -> None:
    async with serve(app_of(ok)) as session, session.request(method, "/") as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == "2"
        assert await response.text() == ("" if method == "HEAD" else "ok")


@pytest.mark.parametrize("size", [0, 1, 100, 64 * KIB, 3 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_arrives_whole_and_comes_back(serve: ServeWeb, size: int, chunked: bool) -> None:
    data = b"x" * size

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, size, 10_000):
            yield data[at : at + 10_000]

    async with (
        serve(app_of(echo, client_max_size=4 * MIB)) as session,
        session.post("/", data=pieces() if chunked else io.BytesIO(data)) as response,
    ):
        assert response.content_type == "application/x-echo"
        assert await response.read() == data


async def test_a_body_that_is_too_large_is_refused(serve: ServeWeb) -> None:
    async with (
        serve(app_of(echo, client_max_size=1000)) as session,
        session.post("/", data=b"x" * 1001) as response,
    ):
        assert response.status == 413


async def test_a_compressed_body_is_decompressed(serve: ServeWeb) -> None:
    async with (
        serve(app_of(echo)) as session,
        session.post("/", data=b"x" * 5000, compress="deflate") as response,
    ):
        assert await response.read() == b"x" * 5000


async def test_a_form_with_a_file_is_read(serve: ServeWeb) -> None:
    async def handler(request: web.Request) -> web.Response:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        return web.json_response([form["name"], file.filename, file.file.read().decode()])

    form = aiohttp.FormData({"name": "ann"})
    form.add_field("file", b"content", filename="a.txt")
    async with serve(app_of(handler)) as session, session.post("/", data=form) as response:
        assert await response.json() == ["ann", "a.txt", "content"]


async def test_a_body_that_the_handler_does_not_read_is_read_past(serve: ServeWeb) -> None:
    async with serve(app_of(ok)) as session:
        for _ in range(2):
            async with session.post("/", data=io.BytesIO(b"x" * MIB)) as response:
                assert await response.text() == "ok"


async def test_a_request_that_is_none_is_answered_400(serve: ServeWeb) -> None:
    async with serve(app_of(ok)) as session:
        async with raw_connection(session, str(session._base_url)) as connection:
            await connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n")
            status, _, _ = await connection.response()
            assert status == 400
            await connection.end()
        async with session.get("/") as response:
            assert response.status == 200


async def test_headers_that_are_too_long_are_answered_400(serve: ServeWeb) -> None:
    async with serve(app_of(ok)) as session, session.get("/", headers={"X-Long": "x" * 9000}) as response:
        assert response.status == 400


async def test_an_application_may_change_the_limits(serve: ServeWeb) -> None:
    app = app_of(ok, handler_args={"max_field_size": 20_000})
    async with serve(app) as session, session.get("/", headers={"X-Long": "x" * 9000}) as response:
        assert response.status == 200


async def test_arguments_that_aiohttp_does_not_know_are_left_out_with_a_warning(
    serve: ServeWeb, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of(ok, handler_args={"no_such_argument": 1})
    async with serve(app) as session, session.get("/") as response:
        assert response.status == 200
    if AIOHTTP >= (3, 14):
        assert "Failed to create request handler with custom kwargs" in caplog.text


async def test_an_http_1_0_request_is_answered_in_kind(serve: ServeWeb) -> None:
    async with serve(app_of(ok), version=aiohttp.HttpVersion10) as session, session.get("/") as response:
        assert await response.text() == "ok"
        assert response.version == aiohttp.HttpVersion10


# The response.


async def test_the_headers_are_aiohttps_own(serve: ServeWeb) -> None:
    async with serve(app_of(ok)) as session, session.get("/") as response:
        assert list(response.headers) == ["Content-Type", "Content-Length", "Date", "Server"]
        assert response.reason == "OK"


async def test_on_response_prepare_is_called(serve: ServeWeb) -> None:
    async def add(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Prepared"] = request.path

    app = app_of(ok)
    app.on_response_prepare.append(add)
    async with serve(app) as session, session.get("/here") as response:
        assert response.headers["X-Prepared"] == "/here"


@pytest.mark.parametrize("length", [None, 9])
async def test_a_response_in_pieces_arrives_as_it_is_written(serve: ServeWeb, length: int | None) -> None:
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if length is not None:
            response.content_length = length
        await response.prepare(request)
        for piece in (b"one", b"two", b"six"):
            await response.write(piece)
            await go_on.wait()
            go_on.clear()
        return response

    async with serve(app_of(handler)) as session, session.get("/") as response:
        assert response.headers.get("Content-Length") == (None if length is None else str(length))
        for piece in (b"one", b"two", b"six"):
            assert await response.content.readany() == piece
            go_on.set()
        assert await response.read() == b""


@pytest.mark.parametrize("encoding", list(web.ContentCoding))
@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_is_compressed(serve: ServeWeb, encoding: web.ContentCoding, stream: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse() if stream else web.Response(body=b"x" * 5000)
        response.enable_compression(encoding)
        if stream:
            await response.prepare(request)
            await response.write(b"x" * 5000)
        return response

    async with serve(app_of(handler), auto_decompress=False) as session, session.get("/") as response:
        data = await response.read()
    if encoding is web.ContentCoding.gzip:
        data = gzip.decompress(data)
    elif encoding is web.ContentCoding.deflate:
        data = zlib.decompress(data)
    assert data == b"x" * 5000


async def test_errors_that_are_responses(serve: ServeWeb) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/redirect":
            raise web.HTTPFound("/")
        if request.path == "/teapot":
            raise web.HTTPForbidden(text="no tea", headers={"X-Tea": "none"})
        return web.Response(text="ok")

    async with serve(app_of(handler, "GET")) as session:
        async with session.get("/redirect") as response:
            assert (response.status, len(response.history)) == (200, 1)
        async with session.get("/teapot") as response:
            assert (response.status, await response.text(), response.headers["X-Tea"]) == (403, "no tea", "none")
        async with session.post("/") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("failure", "status", "text"),
    [
        (LookupError("no such user"), 500, "500 Internal Server Error\n\nServer got itself in trouble"),
        (TimeoutError(), 504, ""),
        (ConnectionResetError(), 500, "500 Internal Server Error\n\nServer got itself in trouble"),
    ],
)
async def test_what_a_handler_raises_is_answered(
    serve: ServeWeb, failure: Exception, status: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: web.Request) -> web.Response:
        raise failure

    async with serve(app_of(handler)) as session, session.get("/") as response:
        assert response.status == status
        assert (await response.text()).startswith(text)
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.name for record in logged] == ["aiohttp.server"]


async def test_a_handler_that_returns_nothing_is_answered_500(
    serve: ServeWeb, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: web.Request) -> Any:
        pass

    async with serve(app_of(handler)) as session, session.get("/") as response:
        assert response.status == 500
    assert "Missing return statement on request handler" in caplog.text


async def test_a_handler_that_fails_in_its_response_cuts_it_off(serve: ServeWeb) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"abc")
        raise LookupError("no such user")

    async with serve(app_of(handler)) as session, session.get("/") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_body_that_fails_cuts_the_response_off(serve: ServeWeb, caplog: pytest.LogCaptureFixture) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        raise LookupError("no such user")

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=pieces())

    async with serve(app_of(handler)) as session, session.get("/") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert "Unhandled exception" in caplog.text


async def test_a_handler_that_is_cancelled_from_within_ends_the_connection(serve: ServeWeb) -> None:
    async def handler(request: web.Request) -> web.Response:
        raise asyncio.CancelledError

    async with serve(app_of(handler)) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post("/")


# Expect: 100-continue.


async def test_the_body_is_sent_when_it_is_asked_for(serve: ServeWeb) -> None:
    async with serve(app_of(echo)) as session, session.post("/", data=b"data", expect100=True) as response:
        assert await response.read() == b"data"


async def test_the_body_may_be_refused_before_it_is_sent(serve: ServeWeb) -> None:
    async def refuse(request: web.Request) -> None:
        raise web.HTTPRequestEntityTooLarge(max_size=1, actual_size=4)

    app = web.Application()
    app.router.add_post("/", echo, expect_handler=refuse)
    async with serve(app) as session, session.post("/", data=b"data", expect100=True) as response:
        assert response.status == 413


# Files.


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "large.bin").write_bytes(bytes(range(256)) * 4096 * 2)
    (tmp_path / "page.html").write_text("<p>page</p>")
    (tmp_path / "page.html.gz").write_bytes(gzip.compress(b"<p>page</p>"))
    (tmp_path / "empty.txt").write_bytes(b"")
    return tmp_path


@pytest.fixture
def site(files: Path) -> web.Application:
    async def large(request: web.Request) -> web.FileResponse:
        return web.FileResponse(files / "large.bin")

    app = web.Application()
    app.router.add_get("/large", large)
    app.router.add_static("/static", files, show_index=True)
    return app


async def test_a_file_is_sent(serve: ServeWeb, site: web.Application, files: Path) -> None:
    async with serve(site) as session:
        for path in ("/large", "/static/large.bin", "/large"):
            async with session.get(path) as response:
                assert response.content_length == 2 * MIB
                assert response.content_type == "application/octet-stream"
                assert await response.read() == (files / "large.bin").read_bytes()
        async with session.head("/large") as response:
            assert response.content_length == 2 * MIB
        async with session.get("/static/empty.txt") as response:
            assert await response.read() == b""


async def test_a_part_of_a_file_is_sent(serve: ServeWeb, site: web.Application) -> None:
    async with serve(site) as session:
        async with session.get("/large", headers={"Range": "bytes=255-257"}) as response:
            assert (response.status, await response.read()) == (206, b"\xff\x00\x01")
            assert response.headers["Content-Range"] == f"bytes 255-257/{2 * MIB}"
        async with session.get("/large", headers={"Range": f"bytes={3 * MIB}-"}) as response:
            assert response.status == 416


async def test_a_file_that_has_not_changed_is_not_sent(serve: ServeWeb, site: web.Application) -> None:
    async with serve(site) as session:
        async with session.get("/static/page.html") as response:
            assert response.headers["Content-Encoding"] == "gzip"
            assert await response.text() == "<p>page</p>"
            etag = response.headers["ETag"]
        async with session.get("/static/page.html", headers={"If-None-Match": etag}) as response:
            assert (response.status, await response.read()) == (304, b"")
        async with session.get("/static/no-such-file") as response:
            assert response.status == 404
        async with session.get("/static/") as response:
            assert "page.html" in await response.text()


async def test_a_file_waits_for_a_client_that_does_not_read(serve: ServeWeb, files: Path) -> None:
    (files / "huge.bin").write_bytes(b"x" * 64 * MIB)
    sent = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.FileResponse(files / "huge.bin")
        await response.prepare(request)
        sent.set()
        return response

    async with serve(app_of(handler)) as session, session.get("/") as response:
        await response.content.readexactly(MIB)
        await asyncio.sleep(0.05)
        assert not sent.is_set()
        assert len(await response.read()) == 63 * MIB
        await sent.wait()


# WebSockets.


def ws_app(**settings: Any) -> web.Application:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(**settings)
        await ws.prepare(request)
        async for message in ws:
            if message.data == "close":
                await ws.close(code=3001, message=b"as you like")
            elif message.type is WSMsgType.TEXT:
                await ws.send_str(message.data * 2)
            else:
                await ws.send_bytes(message.data * 2)
        return ws

    return app_of(handler)


@pytest.mark.parametrize("compress", [0, 15])
async def test_messages_go_both_ways(serve: ServeWeb, compress: int) -> None:
    async with serve(ws_app()) as session, session.ws_connect("/", compress=compress) as ws:
        await ws.send_str("ü" * 1000)
        assert await ws.receive_str() == "ü" * 2000
        await ws.send_bytes(b"\0" * 100_000)
        assert await ws.receive_bytes() == b"\0" * 200_000
        assert bool(ws.compress) is bool(compress)


async def test_a_subprotocol_is_agreed_on(serve: ServeWeb) -> None:
    async with (
        serve(ws_app(protocols=("chat", "news"))) as session,
        session.ws_connect("/", protocols=("news",)) as ws,
    ):
        assert ws.protocol == "news"


async def test_the_server_closes_a_websocket(serve: ServeWeb) -> None:
    async with serve(ws_app()) as session, session.ws_connect("/") as ws:
        await ws.send_str("close")
        message = await ws.receive()
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 3001, "as you like")


async def test_the_client_closes_a_websocket(serve: ServeWeb) -> None:
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        assert [message.data async for message in ws] == ["last words"]
        codes.put_nowait(ws.close_code)
        return ws

    async with serve(app_of(handler)) as session:
        async with session.ws_connect("/") as ws:
            await ws.send_str("last words")
            await ws.close(code=3002)
        assert await codes.get() == 3002


async def test_a_client_that_leaves_a_websocket_without_a_word(serve: ServeWeb) -> None:
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        assert [message.data async for message in ws] == ["last words"]
        codes.put_nowait(ws.close_code)
        return ws

    async with serve(app_of(handler)) as session:
        ws = await session.ws_connect("/")
        await ws.send_str("last words")
        ws._response.close()
        assert await codes.get() == 1006


async def test_a_request_that_is_no_handshake_is_answered_400(serve: ServeWeb) -> None:
    async with serve(ws_app()) as session, session.get("/") as response:
        assert response.status == 400


async def test_a_handler_may_refuse_a_websocket(serve: ServeWeb) -> None:
    async def handler(request: web.Request) -> web.Response:
        raise web.HTTPUnauthorized

    async with serve(app_of(handler)) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect("/")
        assert caught.value.status == 401
        async with session.get("/") as response:
            assert response.status == 401


async def test_a_websocket_whose_handler_fails_is_cut(serve: ServeWeb) -> None:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        raise LookupError("no such user")

    async with serve(app_of(handler)) as session, session.ws_connect("/") as ws:
        message = await ws.receive()
        assert (message.type, ws.close_code) == (WSMsgType.CLOSED, 1006)


async def test_a_heartbeat_is_answered(serve: ServeWeb) -> None:
    async with serve(ws_app(heartbeat=0.1)) as session, session.ws_connect("/", autoping=True) as ws:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await ws.receive()
        assert not ws.closed


# Disconnects.


class Left:
    """A handler that waits for ever, and how it has ended."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended: asyncio.Queue[BaseException | str] = asyncio.Queue()

    async def __call__(self, request: web.Request) -> web.Response:
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError as exc:
            self.ended.put_nowait(exc)
            raise
        self.ended.put_nowait("went on")
        return web.Response()

    async def handler(self, request: web.Request) -> web.Response:
        return await self(request)


async def leave(session: aiohttp.ClientSession, begun: asyncio.Event, **request: Any) -> None:
    """Begin a request, and cancel it as soon as the handler runs."""
    call = asyncio.ensure_future(session.post("/", **request))
    await begun.wait()
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call


async def test_a_handler_goes_on_when_its_client_has_left(serve: ServeWeb) -> None:
    left = Left()
    async with serve(app_of(left.handler)) as session:
        await leave(session, left.begun)
        await asyncio.sleep(0.05)
        assert left.ended.empty()
        left.go_on.set()
        assert await left.ended.get() == "went on"


async def test_a_handler_is_cancelled_if_the_application_asks_for_it(serve: ServeWeb) -> None:
    left = Left()
    async with serve(app_of(left.handler, handler_args={"handler_cancellation": True})) as session:
        await leave(session, left.begun)
        assert isinstance(await left.ended.get(), asyncio.CancelledError)


async def test_reading_the_body_of_a_client_that_has_left_fails(serve: ServeWeb) -> None:
    begun, ended = asyncio.Event(), asyncio.Queue[BaseException]()
    never = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        assert await request.content.readany() == b"abc"
        begun.set()
        try:
            await request.content.readany()
        except BaseException as exc:
            ended.put_nowait(exc)
            raise
        return web.Response()

    async def body() -> AsyncIterator[bytes]:
        yield b"abc"
        await never.wait()

    async with serve(app_of(handler)) as session:
        await leave(session, begun, data=body())
        assert isinstance(await ended.get(), ConnectionResetError | web.RequestPayloadError)


async def test_a_writer_that_waits_ends_when_its_client_leaves(serve: ServeWeb) -> None:
    written = 0
    ended: asyncio.Queue[BaseException] = asyncio.Queue()

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 64 * KIB)
                written += 64 * KIB
        except ConnectionError as exc:
            ended.put_nowait(exc)
            raise

    async with serve(app_of(handler)) as session:
        response = await session.get("/")
        await asyncio.sleep(0.02)
        stopped = await until_it_stops(lambda: written)
        assert 0 < stopped < 32 * MIB
        response.close()
        assert isinstance(await ended.get(), ConnectionError)


async def test_an_upload_waits_for_a_handler_that_does_not_read(serve: ServeWeb) -> None:
    uploaded, begun, go_on = 0, asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        await go_on.wait()
        return web.Response(text=str(len(await request.read())))

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal uploaded
        for _ in range(512):
            yield b"x" * 64 * KIB
            uploaded += 64 * KIB

    async with serve(app_of(handler, client_max_size=64 * MIB)) as session:
        call = asyncio.ensure_future(session.post("/", data=pieces()))
        await begun.wait()
        await asyncio.sleep(0.02)
        assert await until_it_stops(lambda: uploaded) < 32 * MIB
        go_on.set()
        async with await call as response:
            assert await response.text() == str(32 * MIB)


# Connections.


async def test_a_connection_is_used_again(serve: ServeWeb) -> None:
    transports: set[object] = set()

    async def handler(request: web.Request) -> web.Response:
        transports.add(request.transport)
        return web.Response(headers={"Connection": "close"} if request.path == "/close" else {})

    async with serve(app_of(handler)) as session:
        for path, connections in [("/", 1), ("/", 1), ("/close", 1), ("/", 2)]:
            async with session.get(path) as response:
                assert response.status == 200
            assert len(transports) == connections


async def test_the_access_log_is_aiohttps_own(serve: ServeWeb, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aiohttp.access")
    async with serve(app_of(ok)) as session, session.get("/path?x=1") as response:
        await response.read()
    (record,) = [record for record in caplog.records if record.name == "aiohttp.access"]
    message = record.getMessage()
    assert message.startswith("127.0.0.1 [")
    assert '"GET /path?x=1 HTTP/1.1" 200' in message


async def test_applications_inside_of_another(serve: ServeWeb) -> None:
    inner, outer = web.Application(), web.Application()
    inner.router.add_get("/here", ok)
    outer.add_subapp("/inner", inner)
    async with serve(outer) as session, session.get("/inner/here") as response:
        assert await response.text() == "ok"


async def test_middlewares_are_run(serve: ServeWeb) -> None:
    @web.middleware
    async def catch(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except LookupError as exc:
            return web.json_response({"error": str(exc)}, status=418)
        return response

    async def handler(request: web.Request) -> web.Response:
        raise LookupError("no such user")

    async with serve(app_of(handler, middlewares=[catch])) as session, session.get("/") as response:
        assert (response.status, await response.json()) == (418, {"error": "no such user"})


# What is not the same.


async def test_the_transport_has_no_socket(serve: ServeWeb, expected: Callable[[Any], Any]) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.json_response(request.transport.get_extra_info("socket") is None)

    async with serve(app_of(handler)) as session, session.get("/") as response:
        assert await response.json() is expected(True)


async def test_the_address_of_the_server(serve: ServeWeb, expected: Callable[[Any], Any]) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.json_response(request.transport.get_extra_info("sockname")[0])

    async with serve(app_of(handler)) as session, session.get("/") as response:
        assert await response.json() == expected("app.internal")


async def test_requests_that_do_not_wait(serve: ServeWeb, expected: Callable[[Any], Any]) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=request.path[1:])

    async with serve(app_of(handler)) as session, raw_connection(session, str(session._base_url)) as connection:
        await connection.send(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n")
        _, _, body = await connection.response()
        assert body == b"first"
        try:
            _, _, body = await connection.response()
        except aiohttp.ServerDisconnectedError:
            body = b""
        assert body == expected(b"")


async def test_the_first_write_after_the_client_has_left(serve: ServeWeb, expected: Callable[[Any], Any]) -> None:
    reading: asyncio.Future[aiohttp.ClientResponse] = asyncio.get_running_loop().create_future()
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        client = await reading
        client.close()
        try:
            await response.write(b"x")
        except ConnectionResetError:
            ended.put_nowait("ConnectionResetError")
            raise
        ended.put_nowait("written")
        return response

    async with serve(app_of(handler)) as session:
        reading.set_result(await session.get("/"))
        assert await ended.get() == expected("ConnectionResetError")


async def test_closing_with_a_request_under_way(way: str, expected: Callable[[Any], Any]) -> None:
    left = Left()

    async def call(session: aiohttp.ClientSession) -> str:
        try:
            async with session.get("/") as response:
                assert response.status == 200
        except aiohttp.ClientConnectionError:
            return "disconnected"
        return "answered"

    async with serving_and_closing(way, app_of(left.handler)) as (session, close):
        calling = asyncio.ensure_future(call(session))
        await left.begun.wait()
        closing = asyncio.ensure_future(close())
        await until_it_stops(lambda: calling.done())
        left.go_on.set()
        await closing
        assert await calling == expected("disconnected")
        assert await left.ended.get() == "went on"


async def test_a_websocket_that_is_open_when_on_shutdown_is_called(way: str, expected: Callable[[Any], Any]) -> None:
    sockets: set[web.WebSocketResponse] = set()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        sockets.add(ws)
        async for _ in ws:
            pass
        sockets.discard(ws)
        return ws

    async def close_all(app: web.Application) -> None:
        for ws in set(sockets):
            await ws.close(code=1001)

    app = app_of(handler)
    app.on_shutdown.append(close_all)
    async with serving_and_closing(way, app) as (session, close):
        ws = await session.ws_connect("/")
        receiving = asyncio.ensure_future(ws.receive())
        await until_it_stops(lambda: len(sockets))
        await close()
        await receiving
        assert ws.close_code == expected(1006)


def test_the_page_has_the_table() -> None:
    rows = [line for line in PAGE.read_text().splitlines(keepends=True) if line.startswith("|")]
    assert "".join(rows).endswith(page_table()), "put the output of `python -m tests.support.web_servers` there"


def test_each_difference_is_asserted_by_a_test_of_its_name() -> None:
    assert all(callable(globals().get(name)) for name in DIFFERENCES)
