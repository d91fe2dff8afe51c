"""`record(bodies=True)` over the fallback and over sessions that pass: every body and message, and nothing changes."""

import asyncio
import base64
import gc
import gzip
import hashlib
import ssl
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
import trustme
from aiohttp import ClientSession, TCPConnector, WSMsgType, web

from asgi_connector import ASGIRoutingConnector, Exchange, Journal
from asgi_connector._aiohttp.tap import TapObserver, _Junction, _TappedTransport, _Written
from tests.conftest import LOOPS
from tests.support.flow import until_it_stops
from tests.support.reports import Reports
from tests.support.sessions import fetch
from tests.support.waiting import settle, until

KIB = 1024


class Server:
    """A real server whose routes are the kinds of bodies that HTTP/1.1 has."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.writing = 0
        self.app = web.Application(client_max_size=64 * KIB * KIB)
        for path, handler in [
            ("/echo", self.echo),
            ("/chunks", self.chunks),
            ("/gzip", self.gzip),
            ("/nothing", self.nothing),
            ("/until-close", self.until_close),
            ("/endless", self.endless),
            ("/ws", self.websocket),
        ]:
            self.app.router.add_route("*", path, handler)

    async def echo(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append(body)
        return web.Response(body=b"got " + body)

    async def chunks(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(3):
            await response.write(b"%d" % number * 100)
        return response

    async def gzip(self, request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b"z" * 1000, mtime=0), headers={"Content-Encoding": "gzip"})

    async def nothing(self, request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def until_close(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.force_close()
        await response.prepare(request)
        await response.write(b"to the end")
        return response

    async def endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(64 * KIB))
            self.writing += 64 * KIB

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        async for message in websocket:
            if message.type is WSMsgType.TEXT:
                await websocket.send_str(message.data * 2)
            elif message.data == b"bye":
                await websocket.close(code=4001, message=b"enough")
            else:
                await websocket.send_bytes(message.data * 2)
        return websocket


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, str]]:
    server = Server()
    runner = web.AppRunner(server.app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield server, f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def serving_raw(answer: Answer) -> AsyncIterator[str]:
    """Let *answer* serve each connection. Returns the URL; waits for all of them at the end."""
    tasks: list[asyncio.Task[None]] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(answer(reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await asyncio.gather(*tasks)


@asynccontextmanager
async def recording(fallback: aiohttp.BaseConnector | None = None) -> AsyncIterator[tuple[ClientSession, Journal]]:
    connector = ASGIRoutingConnector(fallback=fallback or TCPConnector())
    async with ClientSession(connector=connector) as session:
        with connector.record(bodies=True) as journal:
            yield session, journal


def bodies(exchange: Exchange) -> tuple[bytes | None, bytes | None]:
    assert exchange.response is not None
    assert exchange.via == "fallback"
    return exchange.request.body, exchange.response.body


async def pieces() -> AsyncIterator[bytes]:
    for number in range(3):
        yield b"%d" % number * 5000


UPLOADS = {
    "none": (None, b""),
    "bytes": (b"hello", b"hello"),
    "large": (b"x" * 900_000, b"x" * 900_000),
    "chunked": (pieces, b"0" * 5000 + b"1" * 5000 + b"2" * 5000),
}


@pytest.mark.parametrize("kind", UPLOADS)
async def test_uploads_and_their_answers_are_kept(kind: str) -> None:
    data, expected = UPLOADS[kind]
    async with serving() as (server, url), recording() as (session, journal):
        for _ in range(2):
            body = data() if callable(data) else data
            assert await fetch(session, f"{url}/echo", "POST", data=body) == b"got " + expected
        assert server.received == [expected, expected]
    assert [bodies(each) for each in journal] == [(expected, b"got " + expected)] * 2
    assert [each.reused for each in journal] == [False, True]
    assert [each.state for each in journal] == ["done", "done"]


async def test_an_upload_that_expects_100_continue_is_kept() -> None:
    async with serving() as (_, url), recording() as (session, journal):
        await fetch(session, f"{url}/echo", "POST", data=b"hello", expect100=True)
    assert bodies(journal[0]) == (b"hello", b"got hello")


async def test_an_upload_that_the_server_reads_late_is_held_back_and_kept() -> None:
    may_read = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_read.wait()
        await reader.readexactly(16 * KIB * KIB)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nread")
        await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    sent = 0

    async def upload() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(17 * 16):
            yield b"x" * 64 * KIB
            sent += 1

    connector = ASGIRoutingConnector(fallback=TCPConnector())
    async with serving_raw(answer) as url, ClientSession(connector=connector) as session:
        with connector.record(bodies=True, max_body_size=10) as journal:
            request = asyncio.create_task(fetch(session, url, "POST", data=upload()))
            assert await until_it_stops(lambda: sent) < 17 * 16
            may_read.set()
            assert await request == b"read"
    assert journal[0].request.body == b"x" * 10
    assert journal[0].request.size > 10 * KIB * KIB


@pytest.mark.parametrize(
    ("headers", "kept"), [({"a b": "no token"}, b""), ({"Transfer-Encoding": "chunked"}, b"")], ids=["head", "body"]
)
async def test_a_request_that_cannot_be_read_is_passed_on_as_it_is(headers: dict[str, str], kept: bytes) -> None:
    received = asyncio.Queue[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.put_nowait(await reader.readuntil(b"no chunks\r\n"))
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with serving_raw(answer) as url, recording() as (session, journal):
        await fetch(session, url, "POST", data=b"no chunks\r\n", headers=headers)
    assert (await received.get()).endswith(b"no chunks\r\n")
    assert journal[0].request.body == kept


async def test_a_compressed_upload_is_kept_as_it_was_sent() -> None:
    async with serving() as (_, url), recording() as (session, journal):
        await fetch(session, f"{url}/echo", "POST", data=b"x" * 1000, compress="gzip")
    body, _ = bodies(journal[0])
    assert body is not None
    assert gzip.decompress(body) == b"x" * 1000


@pytest.mark.parametrize(
    ("path", "method", "read", "kept"),
    [
        ("/chunks", "GET", b"0" * 100 + b"1" * 100 + b"2" * 100, b"0" * 100 + b"1" * 100 + b"2" * 100),
        ("/gzip", "GET", b"z" * 1000, gzip.compress(b"z" * 1000, mtime=0)),
        ("/echo", "HEAD", b"", b""),
        ("/nothing", "GET", b"", b""),
        ("/until-close", "GET", b"to the end", b"to the end"),
    ],
)
async def test_each_kind_of_response_is_kept_as_it_arrived(path: str, method: str, read: bytes, kept: bytes) -> None:
    async with serving() as (_, url), recording() as (session, journal):
        assert await fetch(session, f"{url}{path}", method) == read
        assert bodies(journal[0]) == (b"", kept)
        assert journal[0].state == "done"


async def test_a_response_without_a_length_over_http_10_is_kept() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nfirst ")
        await writer.drain()
        writer.write(b"second")
        writer.close()
        await writer.wait_closed()

    async with serving_raw(answer) as url, recording() as (session, journal):
        assert await fetch(session, url) == b"first second"
        assert bodies(journal[0]) == (b"", b"first second")


async def test_bytes_that_are_no_response_fail_as_without_a_recording() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"nonsense\r\n\r\n" + b"x" * 100)
        await writer.drain()
        writer.write(b"more nonsense")
        writer.close()
        await writer.wait_closed()

    async with serving_raw(answer) as url, recording() as (session, journal):
        with pytest.raises(aiohttp.ClientError):
            await fetch(session, url)
        assert journal[0].state == "failed"


@pytest.mark.parametrize("end", [b"no size\r\n", b"3\r\nabcXX", b"3\r\nab"])
async def test_a_chunked_body_that_is_broken_fails_as_without_a_recording(end: bytes, reports: Reports) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        await writer.drain()
        await settle()
        writer.write(end)
        writer.close()
        await writer.wait_closed()

    # After some of them aiohttp lets its reader wait until the timeout.
    timeout = aiohttp.ClientTimeout(total=0.2)
    async with serving_raw(answer) as url, recording() as (session, journal), ClientSession(timeout=timeout) as plain:
        failures = []
        for each in (plain, session):
            with pytest.raises((aiohttp.ClientError, TimeoutError)) as caught:
                await fetch(each, url, timeout=timeout)
            failures.append((type(caught.value), str(caught.value)))
        assert failures[0] == failures[1]
        assert journal[0].state in ("failed", "abandoned")
        assert journal[0].response is not None
        assert (journal[0].response.body or b"").startswith(b"ab")
    assert reports.all == []


async def test_bodies_are_read_when_they_are_asked_for_also_in_the_middle_of_an_exchange() -> None:
    go_on = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(3)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\none ")
        await writer.drain()
        await go_on.wait()
        await reader.readexactly(3)
        writer.write(b"three")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def upload() -> AsyncIterator[bytes]:
        yield b"abc"
        await go_on.wait()
        yield b"def"

    async with serving_raw(answer) as url, recording() as (session, journal):
        async with session.post(url, data=upload(), headers={"Content-Length": "6"}) as response:
            await response.content.readexactly(4)
            for _ in range(2):
                assert bodies(journal[0]) == (b"abc", b"one ")
            go_on.set()
            await response.read()
        for _ in range(2):
            assert bodies(journal[0]) == (b"abcdef", b"one three")


@pytest.mark.parametrize("read_early", [False, True])
async def test_the_pieces_have_the_times_at_which_they_arrived(read_early: bool) -> None:
    go_on = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none")
        await writer.drain()
        await go_on.wait()
        writer.write(b"two")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with serving_raw(answer) as url, recording() as (session, journal):
        async with session.get(url) as response:
            await response.content.readexactly(3)
            if read_early:
                assert len(journal[0].pieces) == 1
            between = journal[0].duration
            go_on.set()
            await response.read()
        loop = asyncio.get_running_loop()
        ended = loop.time()
        await until(lambda: loop.time() > ended)  # they may be read later than they arrived
        first, second = journal[0].pieces
        assert first <= between <= second <= journal[0].duration


async def test_what_is_not_asked_for_takes_little_memory() -> None:
    connector = ASGIRoutingConnector(fallback=TCPConnector())
    async with serving() as (_, url), ClientSession(connector=connector) as session:
        with connector.record(bodies=True, max_body_size=10) as journal:
            tracemalloc.start()
            try:
                async with session.get(f"{url}/endless") as response:
                    for _ in range(256):
                        await response.content.readexactly(64 * KIB)
                    allocated, _ = tracemalloc.get_traced_memory()
                    response.close()
            finally:
                tracemalloc.stop()
        assert journal[0].response is not None
        assert journal[0].response.size >= 16 * KIB * KIB
    assert allocated < 4 * KIB * KIB


async def test_an_exchange_that_was_not_asked_about_is_freed_without_the_garbage_collector() -> None:
    async with serving() as (_, url), recording() as (session, journal):
        await fetch(session, f"{url}/echo", "POST", data=b"x")
    exchange = weakref.ref(journal[0])
    gc.disable()
    try:
        del journal
        assert exchange() is None
    finally:
        gc.enable()


async def test_a_body_is_cut_at_the_limit() -> None:
    connector = ASGIRoutingConnector(fallback=TCPConnector())
    async with serving() as (_, url), ClientSession(connector=connector) as session:
        with connector.record(bodies=True, max_body_size=10) as journal:
            await fetch(session, f"{url}/echo", "POST", data=b"x" * 100)
    response = journal[0].response
    assert response is not None
    assert (response.size, response.body, response.cut) == (104, b"got xxxxxx", 94)


async def test_without_bodies_there_is_no_tap() -> None:
    fallback = TCPConnector()
    connector = ASGIRoutingConnector(fallback=fallback)
    async with serving() as (_, url), ClientSession(connector=connector) as session:
        with connector.record() as journal:
            async with session.get(f"{url}/endless") as response:
                assert response.connection is not None
                assert isinstance(response.connection.transport, asyncio.Transport)
                response.close()
        assert journal[0].response is not None
        assert (journal[0].response.size, journal[0].response.body) == (0, None)


async def test_the_tap_is_gone_when_the_connection_is_released() -> None:
    fallback = TCPConnector()
    async with serving() as (_, url), recording(fallback) as (session, journal):
        await fetch(session, f"{url}/echo", "POST", data=b"x")
        [(protocol, _)] = [pooled for connections in fallback._conns.values() for pooled in connections]
        assert isinstance(protocol.transport, asyncio.Transport)
        assert protocol.transport.get_protocol() is protocol
        assert bodies(journal[0]) == (b"x", b"got x")


async def test_a_download_that_is_not_read_still_holds_the_server_back() -> None:
    async with serving() as (server, url), recording() as (session, _), session.get(f"{url}/endless") as response:
        await response.content.readexactly(KIB)
        written = -1
        while written != server.writing:  # until the server is held back
            written = server.writing
            await asyncio.sleep(0.05)
        assert server.writing < 32 * KIB * KIB
        response.close()


async def test_a_response_that_is_left_early_is_abandoned() -> None:
    async with serving() as (_, url), recording() as (session, journal):
        async with session.get(f"{url}/endless") as response:
            await response.content.readexactly(KIB)
        await until(lambda: journal[0].ended)
        assert journal[0].state == "abandoned"
        assert journal[0].response is not None
        assert journal[0].response.size >= KIB


@pytest.mark.parametrize("compress", [0, 15])
async def test_websocket_messages_are_kept(compress: int) -> None:
    async with serving() as (_, url), recording() as (session, journal):
        async with session.ws_connect(f"{url}/ws", compress=compress) as websocket:
            await websocket.send_str("text")
            assert await websocket.receive_str() == "texttext"
            await websocket.send_bytes(b"\x00" * KIB)
            assert await websocket.receive_bytes() == b"\x00" * 2 * KIB
            await websocket.send_bytes(b"bye")
            await websocket.receive()
        exchange = journal[0]
        assert [(each.from_client, each.is_text, each.data) for each in exchange.messages] == [
            (True, True, "text"),
            (False, True, "texttext"),
            (True, False, b"\x00" * KIB),
            (False, False, b"\x00" * 2 * KIB),
            (True, False, b"bye"),
        ]
        assert (exchange.state, exchange.close_code) == ("done", 4001)


async def test_a_websocket_that_is_cut_is_abandoned() -> None:
    async with serving() as (_, url), recording() as (session, journal):
        websocket = await session.ws_connect(f"{url}/ws")
        await websocket.send_str("text")
        await websocket.receive()
        connection = websocket._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()
        await websocket.receive()
        await until(lambda: journal[0].ended)
        assert (journal[0].state, journal[0].close_code) == ("abandoned", 1006)
        await websocket.close()


async def test_frames_that_break_the_protocol_end_the_watching_only() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        accept = _accept(key.partition(b": ")[2])
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n\x81\x02hi" + b"\xff\xff\xff\xff"
        )
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async with serving_raw(answer) as url, recording() as (session, journal):
        async with session.ws_connect(url) as websocket:
            assert await websocket.receive_str() == "hi"
            assert (await websocket.receive()).type is WSMsgType.ERROR
        assert [each.data for each in journal[0].messages] == ["hi"]


def _accept(key: bytes) -> bytes:
    digest = hashlib.sha1(key.strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    return base64.b64encode(digest)


async def test_what_passes_an_intercept_block_is_kept() -> None:
    async with serving() as (_, url), ASGIRoutingConnector({}) as connector:
        with connector.record(bodies=True) as journal, connector.intercept(passthrough=True):
            async with ClientSession() as session:
                await fetch(session, f"{url}/echo", "POST", data=b"x")
    assert bodies(journal[0]) == (b"x", b"got x")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_it_works_over_tls_on_every_loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop], authority: trustme.CA
) -> None:
    served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(served)
    authority.configure_trust(trusted)

    async def main() -> None:
        async with serving(served) as (_, url), recording(TCPConnector(ssl=trusted)) as (session, journal):
            for _ in range(2):
                await fetch(session, f"{url}/echo", "POST", data=b"x" * 100_000)
            async with session.ws_connect(f"{url}/ws") as websocket:
                await websocket.send_str("text")
                await websocket.receive()
        assert [bodies(each) for each in journal[:2]] == [(b"x" * 100_000, b"got " + b"x" * 100_000)] * 2
        assert [each.data for each in journal[2].messages] == ["text", "texttext"]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("order", ["inner first", "outer first"])
async def test_a_connector_and_its_fallback_both_record(order: str) -> None:
    fallback = TCPConnector()
    inner = ASGIRoutingConnector(fallback=fallback)
    outer = ASGIRoutingConnector(fallback=inner)
    async with serving() as (_, url), ClientSession(connector=outer) as session:
        recordings = [inner, outer] if order == "inner first" else [outer, inner]
        for _ in range(3):
            with recordings[0].record(bodies=True) as one, recordings[1].record(bodies=True) as other:
                await fetch(session, f"{url}/echo", "POST", data=b"x")
            assert bodies(one[0]) == bodies(other[0]) == (b"x", b"got x")
            [(protocol, _)] = [pooled for connections in fallback._conns.values() for pooled in connections]
            assert isinstance(protocol.transport, asyncio.Transport)
            assert protocol.transport.get_protocol() is protocol
        with inner.record(bodies=True), outer.record(bodies=True) as journal:
            async with session.ws_connect(f"{url}/ws") as websocket:
                await websocket.send_str("text")
                await websocket.receive()
        assert [each.data for each in journal[0].messages] == ["text", "texttext"]


async def test_a_body_whose_framing_is_broken_is_not_read_on() -> None:
    """aiohttp writes no such body today."""
    seen: list[object] = []

    class Observer:
        def request_body(self, data: bytes) -> None:
            seen.append(data)

    written = _Written(cast(TapObserver, Observer()))
    written.feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
    written.feed(b"no size\r\n")
    written.feed(b"2\r\ncd\r\n")
    assert seen == [b"ab"]


async def test_pieces_that_are_written_together_are_seen_one_by_one() -> None:
    """Not every version of Python and aiohttp calls `writelines()`."""

    class Transport(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[list[bytes]] = []

        def writelines(self, list_of_data: Any) -> None:
            self.lines.append(list(list_of_data))

    transport = Transport()
    seen: list[object] = []

    class Junction:
        data_written = staticmethod(seen.append)

    tapped = _TappedTransport(transport, cast(_Junction, Junction()))
    tapped.writelines(piece for piece in [b"one", b"two"])
    assert transport.lines == [[b"one", b"two"]]
    assert seen == [b"one", b"two"]
