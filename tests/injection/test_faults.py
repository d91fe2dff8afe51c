"""What each fault does: what its client sees, what the app sees and does, what the journal shows, and what is left."""

import asyncio
import contextlib
import errno
import functools
import random
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, ParamSpec

import aiohttp
import looptime
import pytest
from aiohttp import ClientSession, ClientTimeout, WSMsgType

from asgi_connector import ASGIRoutingConnector, Exchange, Mount, faults
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.flow import BOUND, KIB, new_piece, until_it_stops
from tests.support.leaks import no_task_and_no_timer_is_left
from tests.support.sessions import connector_of, fetch

P = ParamSpec("P")


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in its own event loop, whose clock jumps to the next timer, and check what it leaves there.

    These tests always use asyncio's own loop, because the clock of uvloop cannot be moved.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def check() -> None:
            await test(*args, **kwargs)
            no_task_and_no_timer_is_left()

        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            runner.run(check())

    return run


def now() -> float:
    return round(asyncio.get_running_loop().time(), 4)


BODY = b"0123456789"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
LENGTH = [(b"content-length", b"10")]


class App:
    """Reads its request, does its work, and answers; or echoes a WebSocket. Keeps what it receives."""

    def __init__(
        self, *, headers: list[tuple[bytes, bytes]] | None = None, pieces: tuple[bytes, ...] = (BODY,)
    ) -> None:
        self.headers = LENGTH if headers is None else headers
        self.pieces = pieces
        self.calls = 0
        self.started_at = 0.0
        self.received: list[Message] = []
        self.started = asyncio.Event()
        self.worked = asyncio.Event()
        self.gone = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.received)

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.received if message["type"] == "websocket.receive"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        self.started_at = now()
        self.started.set()
        if scope["type"] == "websocket":
            await self.echo(receive, send)
            return
        while True:
            message = await receive()
            self.received.append(message)
            if message["type"] == "http.disconnect":
                self.gone.set()
                return
            if not message["more_body"]:
                break
        self.worked.set()
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        for piece in self.pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await self.may_go_on.wait()
        await send({"type": "http.response.body", "body": self.pieces[-1]})
        if scope["path"] == "/wait":
            message = await receive()
            assert message == {"type": "http.disconnect"}
            self.gone.set()

    async def echo(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            self.received.append(message)
            if message["type"] == "websocket.disconnect":
                self.gone.set()
                return
            with contextlib.suppress(OSError):  # the next message tells the app, too
                await send({"type": "websocket.send", "text": message["text"]})


def inject(session: ClientSession, fault: faults.Fault, **settings: Any) -> Any:
    return connector_of(session).inject("app.internal", fault, **settings)


def transports(of: ClientSession | ASGIRoutingConnector) -> list[MemoryTransport]:
    """Both ends of each open connection."""
    found: list[MemoryTransport] = []
    connector = of if isinstance(of, ASGIRoutingConnector) else connector_of(of)
    for connection in connector._services.in_flight.connections:
        if connection.client.connected:
            found += [connection.transport.peer, connection.transport]
    return found


async def post(session: ClientSession, data: Any = b"abcdef", **settings: Any) -> bytes:
    """aiohttp does not send it a second time."""
    async with session.post("/", data=data, **settings) as response:
        return await response.read()


async def received(response: aiohttp.ClientResponse) -> tuple[bytes, BaseException | None]:
    """The part of a body that arrived, and how it ended."""
    data = b""
    try:
        async for piece in response.content.iter_any():
            data += piece
    except (aiohttp.ClientError, OSError) as exc:
        return data, exc
    return data, None


# Connections that are never made.


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("pooled", [False, True], ids=["new", "pooled"])
async def test_a_connection_is_refused(method: str, pooled: bool) -> None:
    app = App()
    async with session_to(app) as session:
        if pooled:
            await fetch(session)
        with (
            connector_of(session).record() as journal,
            inject(session, faults.Refuse()) as block,
            pytest.raises(aiohttp.ClientConnectorError) as caught,
        ):
            await session.request(method, "/")
        error = caught.value
        assert type(error) is aiohttp.ClientConnectorError
        assert isinstance(error.os_error, ConnectionRefusedError)
        assert error.os_error.errno == errno.ECONNREFUSED
        assert error.__cause__ is error.os_error
        assert str(error.os_error.strerror) in str(error)
        assert (error.host, error.port) == ("app.internal", 80)
        assert app.calls == pooled
        (exchange,) = journal
        assert (exchange.via, exchange.state, exchange.status) == ("fault", "failed", None)
        assert exchange.error is error
        assert exchange.fault == faults.Refuse()
        assert exchange.reused is None
        assert (block.matched, block.affected) == (1, 1)


async def test_there_is_no_such_host() -> None:
    app = App()
    async with session_to(app) as session:
        with (
            connector_of(session).record() as journal,
            inject(session, faults.Unresolvable()),
            pytest.raises(aiohttp.ClientConnectorDNSError) as caught,
        ):
            await fetch(session)
        error = caught.value
        assert isinstance(error.os_error, socket.gaierror)
        assert error.os_error.errno == socket.EAI_NONAME
        assert error.__cause__ is error.os_error
        assert (journal[0].via, journal[0].state) == ("fault", "failed")
        assert journal[0].error is error
        assert app.calls == 0


@pytest.mark.parametrize("fault", [faults.Refuse(), faults.Unresolvable()], ids=repr)
async def test_a_websocket_finds_no_connection(fault: faults.Fault) -> None:
    app = App()
    async with session_to(app) as session:
        with inject(session, fault), pytest.raises(aiohttp.ClientConnectorError):
            await session.ws_connect("/")
        assert app.calls == 0
        async with session.ws_connect("/") as ws:
            await ws.send_str("hello")
            assert await ws.receive_str() == "hello"


NO_CONNECTION = [faults.Refuse(), faults.Unresolvable(), faults.Hang(on="connect")]


@pytest.mark.parametrize("fault", NO_CONNECTION, ids=repr)
async def test_idle_connections_end_when_no_new_one_can_be_had(fault: faults.Fault) -> None:
    async with session_to({"app.internal": App(), "other.internal": App()}) as session:
        await fetch(session)
        await fetch(session, "http://other.internal/")
        connector = connector_of(session)
        with connector.inject("app.internal", fault, allow_unused=True), connector.record() as inside:
            await asyncio.sleep(0)
            assert [connection.address.host for connection in connector._services.in_flight.connections] == [
                "other.internal"
            ]
            await fetch(session, "http://other.internal/")
        with connector.record() as after:
            await fetch(session)
        assert [exchange.reused for exchange in inside] == [True]
        assert [exchange.reused for exchange in after] == [False]


@pytest.mark.parametrize("fault", NO_CONNECTION, ids=repr)
async def test_what_is_under_way_is_not_disturbed_where_only_new_connections_are(fault: faults.Fault) -> None:
    app = App(pieces=(b"01234", b"56789"))
    app.may_go_on.clear()
    async with session_to(app) as session, session.get("/") as response, session.ws_connect("/") as ws:
        with inject(session, fault, allow_unused=True):
            app.may_go_on.set()
            assert await response.read() == BODY
            await ws.send_str("hello")
            assert await ws.receive_str() == "hello"


# A response that is not the app's.


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_the_answer_of_a_proxy(method: str) -> None:
    app = App()
    fault = faults.Respond(
        429,
        [("Retry-After", "7"), (b"x-proxy", b"yes"), ("set-cookie", "a=b")],
        "sl\N{LATIN SMALL LETTER O WITH DIAERESIS}w",
    )
    async with session_to(app) as session:
        with connector_of(session).record(bodies=True) as journal, inject(session, fault) as block:
            data = b"abcdef" if method == "POST" else None
            async with session.request(method, "/", data=data) as response:
                assert response.status == 429
                assert response.headers["Retry-After"] == "7"
                assert response.headers["X-Proxy"] == "yes"
                assert response.headers["Content-Length"] == "5"
                assert await response.read() == (b"" if method == "HEAD" else b"sl\xc3\xb6w")
        assert app.calls == 0
        (exchange,) = journal
        assert (exchange.via, exchange.state, exchange.status, exchange.error) == ("fault", "done", 429, None)
        assert block.affected == 1


async def test_an_app_is_not_started_for_an_answer_that_is_not_its_own() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(scope["type"])
        if scope["type"] == "lifespan":
            for state in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{state}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
        await send({"type": "http.response.body", "body": BODY})

    async with session_to(app, lifespan="on") as session:
        with inject(session, faults.Respond(503)):
            async with session.get("/") as response:
                assert response.status == 503
        assert events == []
        assert await fetch(session) == BODY
        assert events == ["lifespan", "http"]


@pytest.mark.parametrize("fault", [faults.Refuse(), faults.Unresolvable()], ids=repr)
async def test_an_app_is_not_started_where_there_is_no_connection(fault: faults.Fault) -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(scope["type"])

    async with session_to(app, lifespan="auto") as session:
        with inject(session, fault), pytest.raises(aiohttp.ClientConnectorError):
            await fetch(session)
        assert events == []


async def test_a_handshake_is_answered_by_a_proxy() -> None:
    app = App()
    async with session_to(app) as session:
        with (
            connector_of(session).record() as journal,
            inject(session, faults.Respond(403, {"x-why": "no"}, b"no")),
            pytest.raises(aiohttp.WSServerHandshakeError) as caught,
        ):
            await session.ws_connect("/")
        assert caught.value.status == 403
        assert caught.value.headers is not None
        assert caught.value.headers["x-why"] == "no"
        assert app.calls == 0
        assert (journal[0].via, journal[0].status) == ("fault", 403)


async def test_an_upload_is_answered_by_a_proxy_that_does_not_read_it() -> None:
    app = App()
    written = 0

    async def upload() -> AsyncIterator[bytes]:
        nonlocal written
        for _ in range(1000):
            yield new_piece()
            written += 64 * KIB

    async with session_to(app) as session:
        with inject(session, faults.Respond(413)):
            async with session.post("/", data=upload()) as response:
                assert response.status == 413
                await response.read()
        assert app.calls == 0
        assert written < 2 * BOUND
        assert await post(session) == BODY


async def test_an_answer_of_500_is_the_fault_s_and_no_failure_of_the_app() -> None:
    async with session_to(App(), raise_app_exceptions=True) as session:
        with connector_of(session).record() as journal, inject(session, faults.Respond(500, body=b"down")):
            async with session.get("/") as response:
                assert (response.status, await response.read()) == (500, b"down")
        assert (journal[0].state, journal[0].error) == ("done", None)


# Connections that are cut.

CUT = [faults.Reset, faults.Close]


def broken_before_the_head(fault: type[Any]) -> type[BaseException]:
    return aiohttp.ClientOSError if fault is faults.Reset else aiohttp.ServerDisconnectedError


@pytest.mark.parametrize("fault", CUT)
async def test_a_request_that_is_cut_off_never_reaches_the_app(fault: type[Any]) -> None:
    app = App()
    async with session_to(app) as session:
        with (
            connector_of(session).record() as journal,
            inject(session, fault("request")),
            pytest.raises(broken_before_the_head(fault)) as caught,
        ):
            await post(session)
        assert app.calls == 0
        (exchange,) = journal
        assert (exchange.via, exchange.state, exchange.status) == ("fault", "failed", None)
        assert exchange.error is caught.value
        assert exchange.fault == fault("request")
        if fault is faults.Reset:
            assert isinstance(caught.value, OSError)
            assert caught.value.errno == errno.ECONNRESET
        assert await post(session) == BODY


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("fault", CUT)
async def test_an_app_sees_so_much_of_an_upload_and_then_that_its_client_has_gone(
    fault: type[Any], after: int, chunked: bool
) -> None:
    async def upload() -> AsyncIterator[bytes]:
        yield b"abcdef"

    app = App()
    async with session_to(app) as session:
        with connector_of(session).record() as journal, inject(session, fault("request", after)):
            with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
                await post(session, upload() if chunked else b"abcdef")
            await app.gone.wait()
        seen = b"abcdef"[:after] if not chunked else b""  # three bytes are just the size line of the chunk
        assert app.body == seen
        assert app.received[-1] == {"type": "http.disconnect"}
        assert app.calls == 1
        assert not app.worked.is_set()
        assert (journal[0].via, journal[0].state) == ("app", "failed")


@pytest.mark.parametrize("fault", CUT)
async def test_an_answer_that_is_cut_off_is_lost_and_the_work_is_done(fault: type[Any]) -> None:
    app = App()
    async with session_to(app) as session:
        with (
            connector_of(session).record() as journal,
            inject(session, fault()),
            pytest.raises(broken_before_the_head(fault)) as caught,
        ):
            await post(session)
        assert app.body == b"abcdef"
        assert app.worked.is_set()
        (exchange,) = journal
        assert (exchange.via, exchange.state, exchange.status) == ("app", "failed", None)
        assert exchange.error is caught.value


@pytest.mark.parametrize("fault", CUT)
async def test_an_app_whose_answer_is_cut_off_sees_its_client_gone(fault: type[Any]) -> None:
    app = App()
    async with session_to(app) as session:
        with inject(session, fault()), pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            async with session.post("/wait"):
                pass
        await app.gone.wait()


@pytest.mark.parametrize("status", [200, 404, 500, 503])
@pytest.mark.parametrize("fault", CUT)
async def test_an_answer_of_any_status_is_cut_off(fault: type[Any], status: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": LENGTH})
        await send({"type": "http.response.body", "body": BODY})

    async with session_to(app) as session:
        with inject(session, fault()), pytest.raises(broken_before_the_head(fault)):
            async with asyncio.timeout(5):
                await post(session)
        with inject(session, fault(after=4)):
            async with asyncio.timeout(5), session.post("/") as response:
                assert response.status == status
                data, error = await received(response)
        assert data == b"0123"
        assert isinstance(error, aiohttp.ClientError)


Part = tuple[bytes, bool]  # bytes on the wire, and whether they belong to the body

FRAMED: list[tuple[str, list[tuple[bytes, bytes]], tuple[bytes, ...], list[Part]]] = [
    ("length", LENGTH, (BODY,), [(BODY, True)]),
    ("length in pieces", LENGTH, (b"01", b"234", b"56789"), [(BODY, True)]),
    ("chunked", [], (BODY, b""), [(b"a\r\n", False), (BODY, True), (b"\r\n0\r\n\r\n", False)]),
    (
        "chunked in pieces",
        [],
        (b"01234", b"56789", b""),
        [(b"5\r\n", False), (b"01234", True), (b"\r\n5\r\n", False), (b"56789", True), (b"\r\n0\r\n\r\n", False)],
    ),
]


@pytest.mark.parametrize(("headers", "pieces", "parts"), [row[1:] for row in FRAMED], ids=[row[0] for row in FRAMED])
@pytest.mark.parametrize("after", range(0, 11, 2))
@pytest.mark.parametrize("fault", CUT)
async def test_so_much_of_a_body_arrives_and_then_it_fails(
    fault: type[Any], after: int, headers: list[tuple[bytes, bytes]], pieces: tuple[bytes, ...], parts: list[Part]
) -> None:
    marked = [(byte, is_body) for data, is_body in parts for byte in data]
    app = App(headers=headers, pieces=pieces)
    async with session_to(app) as session:
        with connector_of(session).record() as journal, inject(session, fault(after=after)):
            async with session.get("/") as response:
                assert response.status == 200
                data, error = await received(response)
        assert data == bytes(byte for byte, is_body in marked[:after] if is_body)
        (exchange,) = journal
        assert (exchange.via, exchange.status) == ("app", 200)
        if after == len(marked):
            # Everything that the client waits for has arrived.
            assert (error, exchange.state) == (None, "done")
        else:
            assert isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientOSError)
            assert (exchange.state, exchange.error) == ("failed", error)
        assert await fetch(session) == BODY


@pytest.mark.parametrize("fault", CUT)
async def test_a_cut_in_a_body_that_ends_with_its_connection_looks_like_its_end_and_the_journal_knows(
    fault: type[Any],
) -> None:
    app = App(headers=[], pieces=(b"01234", b"56789"))
    async with session_to(app, session_version=aiohttp.HttpVersion10) as session:
        with connector_of(session).record() as journal, inject(session, fault(after=7)):
            async with session.get("/") as response:
                data, error = await received(response)
        assert (data, error) == (b"0123456", None)
        assert journal[0].state == "failed"
        assert isinstance(journal[0].error, OSError)


@pytest.mark.parametrize("fault", CUT)
@pytest.mark.parametrize("on", ["request", "response"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_what_is_struck_once_before_the_response_is_healed_unseen_on_a_pooled_connection(
    method: str, on: Any, fault: type[Any]
) -> None:
    app = App()
    async with session_to(app) as session:
        await fetch(session)
        with connector_of(session).record() as journal, inject(session, fault(on), times=1) as block:
            async with session.request(method, "/") as response:
                assert response.status == 200
                await response.read()
        assert (block.matched, block.affected) == (2, 1)
        assert [(exchange.state, exchange.fault) for exchange in journal] == [("failed", fault(on)), ("done", None)]
        assert app.calls == (3 if on == "response" else 2)


# A WebSocket.


@pytest.mark.parametrize("fault", CUT)
@pytest.mark.parametrize("on", ["request", "response"])
async def test_a_handshake_that_is_cut_off_fails(on: Any, fault: type[Any]) -> None:
    app = App()
    async with session_to(app) as session:
        with (
            connector_of(session).record() as journal,
            inject(session, fault(on)),
            pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)),
        ):
            await session.ws_connect("/")
        assert {(exchange.via, exchange.state) for exchange in journal} == {
            ("fault" if on == "request" else "app", "failed")
        }
        assert app.calls == (0 if on == "request" else len(journal))


@pytest.mark.parametrize("fault", CUT)
@pytest.mark.parametrize(("after", "arrive"), [(0, []), (7, ["hello"]), (10, ["hello"]), (14, ["hello", "world"])])
async def test_a_websocket_that_is_cut_ends_without_a_word(fault: type[Any], after: int, arrive: list[str]) -> None:
    app = App()
    async with session_to(app) as session:
        with connector_of(session).record() as journal, inject(session, fault(after=after)):
            async with session.ws_connect("/", compress=0) as ws:
                for text in ("hello", "world"):
                    try:
                        await ws.send_str(text)
                    except (aiohttp.ClientError, OSError):
                        break
                assert [message.data async for message in ws if message.type is WSMsgType.TEXT] == arrive
                assert ws.close_code == 1006
            await app.gone.wait()
        (exchange,) = journal
        assert app.received[-1]["code"] == 1006
        assert (exchange.state, exchange.status, exchange.close_code) == ("failed", 101, 1006)
        assert isinstance(exchange.error, OSError)


@pytest.mark.parametrize("fault", CUT)
async def test_frames_of_the_client_are_cut_at_their_place(fault: type[Any]) -> None:
    app = App()
    async with session_to(app) as session:
        # Each is 11 bytes on the wire: two, a mask of four, and five of text.
        with inject(session, fault("request", 15)):
            async with session.ws_connect("/", compress=0) as ws:
                await ws.send_str("hello")
                assert await ws.receive_str() == "hello"
                await ws.send_str("world")
                assert (await ws.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR, WSMsgType.CLOSE)
            await app.gone.wait()
        assert app.texts == ["hello"]
        assert app.received[-1]["code"] == 1006


async def test_frames_wait_while_a_websocket_is_silent() -> None:
    app = App()
    async with session_to(app) as session, session.ws_connect("/") as ws:
        with inject(session, faults.Hang()):
            await ws.send_str("one")
            await ws.send_str("two")
            await until_it_stops(lambda: len(app.texts))
            assert app.texts == ["one", "two"]
            with pytest.raises(asyncio.TimeoutError):
                await ws.receive(timeout=0.01)
        assert [await ws.receive_str(), await ws.receive_str()] == ["one", "two"]
        with inject(session, faults.Hang("request")):
            await ws.send_str("three")
            await until_it_stops(lambda: len(app.texts))
            assert app.texts == ["one", "two"]
        assert await ws.receive_str() == "three"
        assert all(transport.medium is None for transport in transports(session))


# Hanging connections.


@pytest.mark.parametrize("after", [None, 0, 3])
async def test_a_request_that_hangs_reaches_the_app_when_the_block_ends(after: int | None) -> None:
    app = App()
    async with session_to(app) as session:
        with connector_of(session).record() as journal:
            with inject(session, faults.Hang("request", after)) as block:
                request = asyncio.create_task(post(session))
                await until_it_stops(lambda: len(app.received))
                assert block.affected == 1
                assert app.calls == (after is not None)
                assert app.body == b"abcdef"[: after or 0]
                assert journal[0].state == "running"
            assert await request == BODY
        assert app.body == b"abcdef"
        assert (journal[0].via, journal[0].state, journal[0].error) == ("app", "done", None)
        assert journal[0].fault == faults.Hang("request", after)
        assert all(transport.medium is None for transport in transports(session))


@pytest.mark.parametrize(("headers", "pieces"), [row[1:3] for row in FRAMED], ids=[row[0] for row in FRAMED])
async def test_an_answer_that_hangs_arrives_when_the_block_ends(
    headers: list[tuple[bytes, bytes]], pieces: tuple[bytes, ...]
) -> None:
    app = App(headers=headers, pieces=pieces)
    async with session_to(app) as session:
        with inject(session, faults.Hang()):
            request = asyncio.create_task(post(session))
            await app.worked.wait()
            await until_it_stops(lambda: request.done())
            assert not request.done()
        assert await request == BODY
        with inject(session, faults.Hang(after=5)):
            response = await session.post("/")
            assert response.status == 200
            reading = asyncio.create_task(response.read())
            await until_it_stops(lambda: reading.done())
            assert not reading.done()
        assert await reading == BODY


@in_virtual_time
async def test_a_client_that_has_given_up_meanwhile_has_still_sent_its_request() -> None:
    app = App()
    async with session_to(app) as session:
        with connector_of(session).record() as journal:
            with inject(session, faults.Hang("request")):
                with pytest.raises(aiohttp.SocketTimeoutError):
                    async with session.post("/wait", data=b"abcdef", timeout=ClientTimeout(sock_read=3)):
                        pass
                assert now() == 3
                assert app.calls == 0
                assert journal[0].via == "fault"
            await app.gone.wait()
        assert app.calls == 1
        assert app.body == b"abcdef"
        assert journal[0].state == "abandoned"
        assert isinstance(journal[0].error, aiohttp.SocketTimeoutError)
        assert await fetch(session) == BODY


@in_virtual_time
async def test_an_app_whose_answer_hangs_is_not_told_that_its_client_has_given_up_before_the_block_ends() -> None:
    """The direction to the app is open, so the app learns of it. What it has sent is lost."""
    app = App()
    async with session_to(app) as session:
        with inject(session, faults.Hang()):
            with pytest.raises(asyncio.TimeoutError):
                async with session.post("/wait", timeout=ClientTimeout(total=2)):
                    pass
            await app.gone.wait()
            assert now() == 2
        assert await fetch(session) == BODY


@in_virtual_time
async def test_a_block_may_begin_while_one_whose_client_has_given_up_is_kept() -> None:
    app = App()
    async with session_to(app) as session:
        with inject(session, faults.Hang("request")):
            with pytest.raises(asyncio.TimeoutError):
                await post(session, timeout=ClientTimeout(total=2))
            for fault in (faults.Latency(1), faults.Reset(), faults.Hang(), faults.Refuse()):
                with inject(session, fault, allow_unused=True):
                    pass
        await app.started.wait()


TIMEOUTS = [
    (ClientTimeout(total=4), 4, asyncio.TimeoutError),
    (ClientTimeout(connect=3), 3, aiohttp.ConnectionTimeoutError),
    (ClientTimeout(sock_connect=2), 2, aiohttp.ConnectionTimeoutError),
    (ClientTimeout(total=4, connect=3, sock_connect=2), 2, aiohttp.ConnectionTimeoutError),
    (ClientTimeout(total=1, connect=3), 1, asyncio.TimeoutError),
]


@pytest.mark.parametrize(("timeout", "seconds", "error"), TIMEOUTS, ids=[str(seconds) for _, seconds, _ in TIMEOUTS])
@in_virtual_time
async def test_a_connection_that_is_not_answered_times_out(
    timeout: ClientTimeout, seconds: float, error: type[Exception]
) -> None:
    app = App()
    async with session_to(app) as session:
        with connector_of(session).record() as journal, inject(session, faults.Hang(on="connect")):
            with pytest.raises(error) as caught:
                await post(session, timeout=timeout)
            assert now() == seconds
        assert app.calls == 0
        (exchange,) = journal
        assert exchange.via == "fault"
        assert exchange.reused is None
        assert round(exchange.duration, 4) == seconds
        assert isinstance(caught.value, asyncio.TimeoutError)
        assert await post(session) == BODY


async def test_a_connection_that_is_not_answered_is_when_the_block_ends() -> None:
    app = App()
    async with session_to(app) as session:
        await fetch(session)
        with connector_of(session).record() as journal:
            with inject(session, faults.Hang(on="connect")):
                request = asyncio.create_task(post(session))
                await until_it_stops(lambda: request.done())
                assert not request.done()
                assert app.calls == 1
            assert await request == BODY
        assert (journal[0].via, journal[0].state, journal[0].reused) == ("app", "done", False)


@pytest.mark.parametrize("on", ["response", "request"])
async def test_a_writer_does_not_go_on_for_ever_while_it_is_silent(on: Any) -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        while (await receive()).get("more_body"):
            pass
        if on == "response":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(100):
                await send({"type": "http.response.body", "body": new_piece(), "more_body": True})
                sent += 64 * KIB
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def upload() -> AsyncIterator[bytes]:
        nonlocal sent
        if on == "request":
            for _ in range(100):
                sent += 64 * KIB
                yield new_piece()

    async with session_to(app) as session:
        with inject(session, faults.Hang(on)):
            request = asyncio.create_task(post(session, upload()))
            assert 0 < await until_it_stops(lambda: sent) <= BOUND
        assert len(await request) == (sent if on == "response" else 0)
        assert sent == 100 * 64 * KIB


@in_virtual_time
async def test_sock_read_does_not_bound_an_upload_that_nobody_reads() -> None:
    async def upload() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield new_piece()

    app = App()
    async with session_to(app) as session:
        with inject(session, faults.Hang("request")), pytest.raises(asyncio.TimeoutError) as caught:
            await post(session, upload(), timeout=ClientTimeout(total=4, sock_read=1))
        assert now() == 4
        assert not isinstance(caught.value, aiohttp.SocketTimeoutError)


# Late and slow connections.


@pytest.mark.parametrize("pieces", [(BODY,), (b"01", b"234", b"56789"), tuple(b"%d" % n for n in range(10))])
@in_virtual_time
async def test_an_answer_is_late_once_however_many_pieces_it_has(pieces: tuple[bytes, ...]) -> None:
    app = App(pieces=pieces)
    async with session_to(app) as session:
        with connector_of(session).record() as journal, inject(session, faults.Latency(0.5)):
            async with session.post("/", data=b"abcdef") as response:
                assert (now(), app.started_at) == (0.5, 0)
                assert await response.read() == BODY
            assert now() == 0.5
            assert await post(session) == BODY
            assert now() == 1.0
        assert [exchange.reused for exchange in journal] == [False, True]
        assert all(transport.medium is None for transport in transports(session))
        assert await post(session) == BODY
        assert now() == 1.0


@in_virtual_time
async def test_an_upload_is_late_once_however_many_pieces_it_has() -> None:
    async def upload() -> AsyncIterator[bytes]:
        for piece in (b"ab", b"cd", b"ef"):
            yield piece
            await asyncio.sleep(1)

    app = App()
    async with session_to(app) as session:
        with inject(session, faults.Latency(0.5, on="request")):
            assert await post(session, upload()) == BODY
        assert app.started_at == 0.5
        assert app.body == b"abcdef"
        assert now() == 3.5


@in_virtual_time
async def test_what_is_sent_later_is_late_later() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(3):
            await send({"type": "http.response.body", "body": b"%d" % n, "more_body": True})
            await asyncio.sleep(1)
        await send({"type": "http.response.body"})

    async with session_to(app) as session:
        with inject(session, faults.Latency(10)):
            async with session.get("/") as response:
                found = [(now(), piece) async for piece in response.content.iter_any()]
                assert found == [(10, b"0"), (11, b"1"), (12, b"2")]
                assert now() == 13


@in_virtual_time
async def test_latency_is_late_and_not_slow() -> None:
    size = 3 * 1024 * KIB  # less than may be in flight

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(size // (64 * KIB)):
            await send({"type": "http.response.body", "body": new_piece(), "more_body": True})
        await send({"type": "http.response.body"})

    async with session_to(app) as session:
        with inject(session, faults.Latency(1)):
            assert len(await fetch(session)) == size
        assert now() == 1


@in_virtual_time
async def test_both_ways_and_both_blocks_add_up() -> None:
    async with session_to(App()) as session:
        with (
            inject(session, faults.Latency(0.25, on="request")),
            inject(session, faults.Latency(0.5)),
            inject(session, faults.Latency(1)),
        ):
            assert await post(session) == BODY
        assert now() == 1.75


@in_virtual_time
async def test_jitter_is_drawn_for_each_request_and_the_same_for_the_same_seed() -> None:
    async def delays(seed: int) -> list[float]:
        found = []
        with inject(session, faults.Latency(1, jitter=0.5), seed=seed):
            for _ in range(8):
                begin = now()
                await post(session)
                found.append(round(now() - begin, 3))
        return found

    async with session_to(App()) as session:
        runs = [await delays(1), await delays(1), await delays(2)]
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) > 1
    assert all(0.5 <= delay <= 1.5 for run in runs for delay in run)


@in_virtual_time
async def test_a_timeout_sees_an_answer_that_is_late() -> None:
    app = App()
    async with session_to(app) as session:
        with connector_of(session).record() as journal, inject(session, faults.Latency(30)):
            with pytest.raises(aiohttp.SocketTimeoutError) as caught:
                await post(session, timeout=ClientTimeout(sock_read=5))
            assert now() == 5
        assert app.worked.is_set()
        assert (journal[0].state, journal[0].via) == ("abandoned", "app")
        assert journal[0].error is caught.value


@in_virtual_time
async def test_what_is_on_its_way_when_the_block_ends_arrives_when_it_would_have() -> None:
    async with session_to(App()) as session:
        with inject(session, faults.Latency(10)):
            request = asyncio.create_task(post(session))
            await asyncio.sleep(4)
        assert await request == BODY
        assert now() == 10
        assert all(transport.medium is None for transport in transports(session))


@in_virtual_time
async def test_a_websocket_is_late_in_order() -> None:
    app = App()
    async with session_to(app) as session:
        with inject(session, faults.Latency(1)), inject(session, faults.Latency(2, on="request")):
            async with session.ws_connect("/") as ws:
                assert now() == 3
                await ws.send_str("one")
                await asyncio.sleep(1)
                await ws.send_str("two")
                assert (await ws.receive_str(), now()) == ("one", 6)
                assert (await ws.receive_str(), now()) == ("two", 7)
            await app.gone.wait()
        assert app.received[-1]["code"] == 1000


@pytest.mark.parametrize("pieces", [(BODY,), (b"01234", b"56789")])
@in_virtual_time
async def test_a_slow_answer_arrives_by_the_schedule_of_its_rate(pieces: tuple[bytes, ...]) -> None:
    async with session_to(App(pieces=pieces)) as session:
        with inject(session, faults.Throttle(10)):
            async with session.post("/") as response:
                assert now() == len(HEAD) / 10
                found = [(now(), piece) async for piece in response.content.iter_any()]
        start = len(HEAD) / 10
        assert found == [(round(start + (n + 1) / 10, 4), b"%d" % n) for n in range(10)]
        assert all(transport.medium is None for transport in transports(session))


@in_virtual_time
async def test_a_slow_link_passes_slices_of_a_twentieth_of_a_second() -> None:
    body = bytes(range(200))
    async with session_to(App(headers=[(b"content-length", b"200")], pieces=(body,))) as session:
        with inject(session, faults.Throttle(1000)):
            async with session.post("/") as response:
                found = [(now(), piece) async for piece in response.content.iter_any()]
        assert b"".join(piece for _, piece in found) == body
        head = len(HEAD) + 1
        assert [(time, len(piece)) for time, piece in found] == [
            # The first slice has the head. The others have the rest.
            (round(head / 1000 + n / 20, 4), size)
            for n, size in enumerate((50, 50, 50, 50), start=1)
        ]


@in_virtual_time
async def test_a_slow_upload_reaches_the_app_by_the_schedule_of_its_rate() -> None:
    app = App()
    async with session_to(app) as session:
        times = []
        for size in (1000, 3000):
            begin = now()
            with inject(session, faults.Throttle(1000, on="request")):
                assert await post(session, b"x" * size) == BODY
            times.append(round(now() - begin, 4))
        assert round(times[1] - times[0], 4) == 2
        assert 1 < times[0] < 1.5


@in_virtual_time
async def test_what_waits_for_a_slow_link_passes_at_once_when_the_block_ends() -> None:
    async with session_to(App()) as session:
        with inject(session, faults.Throttle(1)):
            request = asyncio.create_task(post(session))
            await asyncio.sleep(4)
            assert not request.done()
        assert await request == BODY
        assert now() == 4


EXPECTING = {"expect100": True}


@pytest.mark.parametrize("after", [None, 0])
@pytest.mark.parametrize("fault", CUT)
async def test_an_interim_response_passes_before_the_response_is_cut(fault: type[Any], after: int | None) -> None:
    app = App()
    async with session_to(app) as session:
        with inject(session, fault(after=after)), pytest.raises((aiohttp.ClientError, OSError)):
            await post(session, **EXPECTING)
        assert app.body == b"abcdef"
        assert app.worked.is_set()


async def test_an_interim_response_passes_while_the_response_hangs() -> None:
    app = App()
    async with session_to(app) as session:
        with inject(session, faults.Hang()):
            request = asyncio.create_task(post(session, **EXPECTING))
            await app.worked.wait()
            assert app.body == b"abcdef"
            assert not request.done()
        assert await request == BODY


# Connections that are open when a block begins.


class Stream(App):
    """Sends half of its response, and the rest when the test lets it."""

    def __init__(self, *, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        super().__init__(headers=headers, pieces=(b"01234", b"56789"))
        self.may_go_on.clear()


@pytest.mark.parametrize("fault", CUT)
async def test_a_stream_that_is_open_is_cut_at_once(fault: type[Any]) -> None:
    app = Stream()
    async with session_to(app) as session:
        with connector_of(session).record() as journal:
            async with session.get("/") as response:
                assert await response.content.readexactly(5) == b"01234"
                with inject(session, fault()) as block:
                    data, error = await received(response)
        assert data == b""
        assert isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientOSError)
        assert (block.matched, block.affected) == (1, 1)
        assert (journal[0].state, journal[0].fault) == ("failed", fault())
        app.may_go_on.set()
        assert await fetch(session) == BODY


async def test_a_stream_that_is_open_hangs_until_the_block_ends() -> None:
    app = Stream()
    async with session_to(app) as session, session.get("/") as response:
        assert await response.content.readexactly(5) == b"01234"
        with inject(session, faults.Hang()) as block:
            app.may_go_on.set()
            reading = asyncio.create_task(response.read())
            await until_it_stops(lambda: reading.done())
            assert not reading.done()
        assert await reading == b"56789"
        assert block.affected == 1
        assert all(transport.medium is None for transport in transports(session))


async def test_the_end_of_a_stream_hangs_too_where_it_is_the_end_of_its_connection() -> None:
    may_end = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": BODY, "more_body": True})
        await may_end.wait()
        await send({"type": "http.response.body"})

    async with session_to(app) as session, session.get("/", headers={"connection": "close"}) as response:
        assert await response.content.readexactly(10) == BODY
        with inject(session, faults.Hang()):
            may_end.set()
            reading = asyncio.create_task(response.read())
            await until_it_stops(lambda: reading.done())
            assert not reading.done()
        assert await reading == b""


@in_virtual_time
async def test_a_stream_that_is_open_becomes_late() -> None:
    app = Stream()
    async with session_to(app) as session, session.get("/") as response:
        assert await response.content.readexactly(5) == b"01234"
        with inject(session, faults.Latency(2)):
            app.may_go_on.set()
            assert await response.read() == b"56789"
            assert now() == 2


LEFT_TO_COUNTS: list[dict[str, Any]] = [{"times": 5}, {"skip": 1}, {"probability": 0.9}]


@pytest.mark.parametrize("settings", LEFT_TO_COUNTS, ids=str)
@pytest.mark.parametrize("fault", [faults.Reset(), faults.Close(), faults.Hang(), faults.Throttle(1)], ids=repr)
async def test_what_is_open_is_left_alone_by_what_counts_requests(
    fault: faults.Fault, settings: dict[str, Any]
) -> None:
    app = Stream()
    async with session_to(app) as session, session.get("/") as response, session.ws_connect("/") as ws:
        with inject(session, fault, allow_unused=True, **settings) as block:
            app.may_go_on.set()
            assert await response.read() == BODY
            await ws.send_str("hello")
            assert await ws.receive_str() == "hello"
        assert (block.matched, block.affected) == (0, 0)


@pytest.mark.parametrize("fault", CUT)
@pytest.mark.parametrize("recorded", [False, True])
async def test_a_websocket_that_is_open_is_cut_at_once(fault: type[Any], recorded: bool) -> None:
    app = App()
    async with session_to(app) as session:
        connector = connector_of(session)
        journal: list[Exchange] = []
        if recorded:
            with connector.record() as recording:
                ws = await session.ws_connect("/")
            journal.extend(recording)
        else:
            ws = await session.ws_connect("/")
        await ws.send_str("hello")
        assert await ws.receive_str() == "hello"
        with inject(session, fault()) as block:
            assert [message async for message in ws if message.type is WSMsgType.TEXT] == []
            assert ws.close_code == 1006
            await app.gone.wait()
        assert (block.matched, block.affected) == (1, 1)
        assert app.received[-1]["code"] == 1006
        for exchange in journal:
            assert (exchange.state, exchange.fault, exchange.close_code) == ("failed", fault(), 1006)
        await ws.close()


@pytest.mark.parametrize("fault", CUT)
async def test_a_websocket_that_is_open_is_cut_after_so_many_bytes(fault: type[Any]) -> None:
    app = App()
    async with session_to(app) as session, session.ws_connect("/", compress=0) as ws:
        with inject(session, fault(after=7)):
            await ws.send_str("hello")
            assert await ws.receive_str() == "hello"
            assert (await ws.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR)
            assert ws.close_code == 1006


@pytest.mark.parametrize("fault", CUT)
@pytest.mark.parametrize("after", [None, 0, 4])
async def test_the_answer_to_a_request_that_is_open_is_cut(after: int | None, fault: type[Any]) -> None:
    """Its app is running when the block begins, and has not answered."""
    may_answer = asyncio.Event()
    started = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
        await send({"type": "http.response.body", "body": BODY})

    async with session_to(app) as session:
        request = asyncio.create_task(session.post("/"))
        await started.wait()
        with inject(session, fault(after=after)) as block:
            assert block.affected == 1
            may_answer.set()
            if after is None:
                with pytest.raises(broken_before_the_head(fault)):
                    await request
            else:
                async with await request as response:
                    data, error = await received(response)
                assert data == BODY[:after]
                assert isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientOSError)


@pytest.mark.parametrize("fault", CUT)
async def test_an_upload_that_is_open_is_cut_at_once(fault: type[Any]) -> None:
    may_go_on = asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        yield b"abc"
        await may_go_on.wait()
        yield b"def"

    app = App()
    async with session_to(app) as session:
        request = asyncio.create_task(post(session, upload()))
        await app.started.wait()
        with inject(session, fault("request")) as block:
            with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
                await request
            await app.gone.wait()
        assert block.affected == 1
        assert app.body == b"abc"


@pytest.mark.parametrize(("outer", "inner"), [(faults.Close, faults.Reset), (faults.Reset, faults.Close)])
@pytest.mark.parametrize(("far", "near"), [(8, 4), (4, 8)])
async def test_of_two_cuts_the_nearer_one_is_what_happens(
    outer: type[Any], inner: type[Any], far: int, near: int
) -> None:
    app = App()
    async with session_to(app) as session:
        with (
            connector_of(session).record() as journal,
            inject(session, outer(after=far)),
            inject(session, inner(after=near)),
        ):
            async with session.get("/") as response:
                data, error = await received(response)
        assert data == BODY[:4]
        assert isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientOSError)
        assert (journal[0].state, journal[0].error) == ("failed", error)


@pytest.mark.parametrize("fault", CUT)
async def test_an_idle_connection_is_cut_and_is_not_a_request(fault: type[Any]) -> None:
    app = App()
    async with session_to(app) as session:
        await fetch(session)
        with pytest.raises(AssertionError, match="has affected no request"), inject(session, fault()):
            pass
        await asyncio.sleep(0)
        assert transports(session) == []
        with connector_of(session).record() as journal:
            assert await post(session) == BODY
        assert journal[0].reused is False


@pytest.mark.parametrize("fault", [faults.Hang(), faults.Latency(1), faults.Throttle(1)], ids=repr)
async def test_an_idle_connection_stays_where_nothing_is_cut(fault: faults.Fault) -> None:
    async with session_to(App()) as session:
        await fetch(session)
        with inject(session, fault, allow_unused=True):
            pass
        with connector_of(session).record() as journal:
            assert await post(session) == BODY
        assert journal[0].reused is True


@pytest.mark.parametrize("criteria", [{"path": "/other"}, {"method": "PUT"}, {"caller": "x.internal"}], ids=str)
async def test_what_is_open_is_left_alone_where_it_does_not_match(criteria: dict[str, Any]) -> None:
    app = Stream()
    async with session_to(app) as session, session.get("/") as response:
        with inject(session, faults.Reset(), allow_unused=True, **criteria) as block:
            app.may_go_on.set()
            assert await response.read() == BODY
        assert (block.matched, block.affected) == (0, 0)


# The end of the block, of the session and of the connector.

HELD: list[faults.Fault] = [
    faults.Hang(),
    faults.Hang("request"),
    faults.Hang("request", after=3),
    faults.Hang("connect"),
    faults.Latency(30),
    faults.Latency(30, on="request"),
    faults.Throttle(1),
    faults.Throttle(1, on="request"),
]


@pytest.mark.parametrize("what", ["session", "connector"])
@pytest.mark.parametrize("fault", HELD, ids=repr)
@in_virtual_time
async def test_closing_does_not_wait_for_what_is_kept_and_leaves_nothing(fault: faults.Fault, what: str) -> None:
    app = App()
    async with session_to(app) as session:
        connector = connector_of(session)
        with inject(session, fault):
            request = asyncio.create_task(post(session))
            await asyncio.sleep(0.5)
            assert not request.done()
            begin = now()
            await (session.close() if what == "session" else connector.close())
            assert now() == begin
            await asyncio.sleep(0)
            assert transports(connector) == []
            with pytest.raises(aiohttp.ClientConnectionError):
                await request
            no_task_and_no_timer_is_left()
        assert now() == begin


@pytest.mark.parametrize("fault", HELD[:3] + HELD[4:], ids=repr)
@in_virtual_time
async def test_closing_does_not_wait_for_a_websocket_that_is_kept(fault: faults.Fault) -> None:
    app = App()
    async with session_to(app) as session:
        ws = await session.ws_connect("/")
        with inject(session, fault):
            await ws.send_str("hello")
            await asyncio.sleep(0.5)
            begin = now()
            await connector_of(session).close()
            assert now() == begin
            await asyncio.sleep(0)
            assert transports(session) == []
        await app.gone.wait()
        assert (await ws.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR, WSMsgType.CLOSING)


@pytest.mark.parametrize("inside", [True, False], ids=["inside the block", "after it"])
@pytest.mark.parametrize("fault", HELD, ids=repr)
@in_virtual_time
async def test_closing_leaves_nothing_of_a_client_that_was_cancelled(fault: faults.Fault, inside: bool) -> None:
    async with session_to(App()) as session:
        block = inject(session, fault)
        block.__enter__()
        request = asyncio.create_task(post(session))
        await asyncio.sleep(0.5)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        if not inside:
            block.__exit__(None, None, None)
        connector = connector_of(session)
        begin = now()
        await connector.close()
        assert now() == begin
        assert transports(connector) == []
        no_task_and_no_timer_is_left()
        if inside:
            block.__exit__(None, None, None)


# Exceptions of an app.


class AppError(Exception):
    pass


class Failing:
    """Raises before its response, in the middle of it, or in the middle of one that ends with its connection."""

    def __init__(self, *, pieces: int) -> None:
        self.error = AppError("the app's own")
        self.pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.pieces:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(self.pieces):
                await send({"type": "http.response.body", "body": b"01234", "more_body": True})
            await asyncio.sleep(0)
        raise self.error


LETTING_THROUGH = [
    faults.Latency(1),
    faults.Throttle(20),
    faults.Latency(1, on="request"),
    faults.Reset("request", 10_000),
]


@pytest.mark.parametrize("pieces", [0, 1, 3])
@pytest.mark.parametrize("version", [aiohttp.HttpVersion11, aiohttp.HttpVersion10], ids=["1.1", "1.0"])
@pytest.mark.parametrize("fault", LETTING_THROUGH, ids=repr)
@in_virtual_time
async def test_what_an_app_raises_in_a_struck_request_is_raised(
    fault: faults.Fault, version: aiohttp.HttpVersion, pieces: int
) -> None:
    app = Failing(pieces=pieces)
    async with session_to(app, session_version=version) as session:
        with (
            connector_of(session).record() as journal,
            inject(session, fault) as block,
            pytest.raises(AppError) as caught,
        ):
            async with session.post("/") as response:
                await response.read()
        assert caught.value is app.error
        assert block.affected == 1
        assert (journal[0].state, journal[0].error) == ("failed", app.error)


@in_virtual_time
async def test_an_app_that_fails_without_raising_is_answered_500_late() -> None:
    app = Mount(Failing(pieces=0), raise_app_exceptions=False)
    async with session_to({"app.internal": app}) as session:
        with inject(session, faults.Latency(2)):
            async with session.post("/") as response:
                assert (response.status, now()) == (500, 2)


# Later requests.


@pytest.mark.parametrize(
    "fault",
    [
        faults.Respond(503),
        faults.Latency(0),
        faults.Throttle(1e9),
        faults.Hang(after=10_000),
        faults.Reset(after=10_000),
    ],
    ids=repr,
)
async def test_a_pooled_connection_works_plainly_after_the_block(fault: faults.Fault) -> None:
    app = App()
    async with session_to(app) as session:
        connector = connector_of(session)
        with connector.record() as journal:
            with inject(session, fault):
                async with session.post("/", data=b"abcdef") as response:
                    await response.read()
            assert all(transport.medium is None for transport in transports(session))
            assert await post(session) == BODY
            limits = {transport.get_write_buffer_limits() for transport in transports(session)}
        assert [exchange.reused for exchange in journal] == [False, True]
        assert [exchange.fault for exchange in journal] == [fault, None]
        assert limits == {(16 * KIB, 64 * KIB)}


async def test_a_request_that_does_not_match_is_unharmed_on_the_connection_of_one_that_did() -> None:
    app = App()
    async with session_to(app) as session:
        with connector_of(session).record() as journal, inject(session, faults.Throttle(1e9), method="POST"):
            assert await post(session) == BODY
            assert await fetch(session) == BODY
            assert all(transport.medium is None for transport in transports(session))
        assert [exchange.fault for exchange in journal] == [faults.Throttle(1e9), None]
        assert [exchange.reused for exchange in journal] == [False, True]


async def test_many_requests_at_once_each_have_what_strikes_them() -> None:
    app = App()
    chance = random.Random(5)
    struck = [chance.random() < 0.5 for _ in range(50)]
    async with session_to(app) as session:
        with inject(session, faults.Reset(), probability=0.5, seed=5) as block:
            found = await asyncio.gather(*(post(session) for _ in struck), return_exceptions=True)
        assert [isinstance(each, aiohttp.ClientOSError) for each in found] == struck
        assert block.affected == sum(struck)
        assert app.calls == 50


@pytest.mark.parametrize("fault", [faults.Reset(), faults.Close()], ids=repr)
async def test_a_5xx_that_is_held_back_when_the_block_begins_is_cut(fault: faults.Fault) -> None:
    held, go_on = asyncio.Event(), asyncio.Event()

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
        held.set()
        await go_on.wait()
        await send({"type": "http.response.body"})

    async with session_to(failing) as session:
        request = asyncio.create_task(session.post("http://app.internal/"))
        await held.wait()
        block = inject(session, fault)
        with block, pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await request
        assert block.affected == 1
        go_on.set()


@pytest.mark.parametrize("fault", [faults.Reset("request"), faults.Close("request")], ids=repr)
async def test_an_app_that_does_not_read_its_upload_learns_of_a_cut_when_it_answers(fault: faults.Fault) -> None:
    started, go_on, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        answered.set()

    async with session_to(deaf) as session:
        request = asyncio.create_task(session.post("http://app.internal/", data=bytes(70 * KIB)))
        await started.wait()
        await asyncio.sleep(0)  # more than is read ahead has arrived
        with inject(session, fault), pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await request
        go_on.set()
        await answered.wait()
        assert not connector_of(session)._services.in_flight.connections


async def test_what_only_looks_like_a_100_continue_is_kept_back() -> None:
    app = App(pieces=(b"first", b"HTTP/1.1 100 Continue"), headers=[])
    app.may_go_on.clear()
    async with session_to(app) as session, session.get("http://app.internal/") as response:
        with inject(session, faults.Hang()):
            app.may_go_on.set()
            await until_it_stops(lambda: transports(session)[1].get_write_buffer_size())
        assert await response.read() == b"firstHTTP/1.1 100 Continue"


@pytest.mark.parametrize("fault", CUT)
@pytest.mark.parametrize(
    ("method", "data", "after"),
    [("GET", None, 0), ("POST", None, 0), ("POST", b"abc", 3), ("POST", bytes(100_000), 100_000)],
    ids=["GET", "no body", "a body", "a large body"],
)
async def test_a_cut_at_the_very_end_of_a_request_strikes_before_it_is_answered(
    fault: type[Any], method: str, data: bytes | None, after: int
) -> None:
    app = App()
    tries = 2 if method == "GET" else 1  # aiohttp sends it again
    async with session_to(app) as session:
        with connector_of(session).record() as journal, inject(session, fault(on="request", after=after)) as injected:
            with pytest.raises(broken_before_the_head(fault)):
                await session.request(method, "/wait", data=data)
            async with asyncio.timeout(5):
                await app.gone.wait()
            await until_it_stops(lambda: app.calls)
        assert (injected.matched, injected.affected) == (tries, tries)
        endings = [(each.state, each.status, each.via, each.fault) for each in journal]
        assert endings == [("failed", None, "app", injected.fault)] * tries
    assert (app.calls, app.worked.is_set(), app.body) == (tries, True, data or b"")


@pytest.mark.parametrize("respond_first", [False, True], ids=["late outside", "late inside"])
@in_virtual_time
async def test_the_app_is_not_called_for_a_client_that_has_left_the_answer_of_a_proxy(respond_first: bool) -> None:
    app = App()
    shaking: list[faults.Fault] = [faults.Latency(0.1, on="request"), faults.Respond(503)]
    if respond_first:
        shaking.reverse()
    async with session_to(app) as session:
        with connector_of(session).record() as journal, inject(session, shaking[0]), inject(session, shaking[1]):
            with pytest.raises(TimeoutError):
                await session.get("/", timeout=ClientTimeout(total=0.05))
            assert (journal[0].state, journal[0].via) == ("abandoned", "fault")
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.2)
        assert (journal[0].state, journal[0].via, journal[0].status) == ("abandoned", "fault", None)
    assert app.calls == 0


@in_virtual_time
async def test_what_is_drawn_for_a_request_depends_on_its_start_and_not_on_when_it_has_its_connection() -> None:
    found: list[list[tuple[bool, float]]] = []
    for waits in (False, True):
        async with session_to(App()) as session:
            latency = faults.Latency(1, jitter=1)
            with connector_of(session).record() as journal, inject(session, latency, probability=0.5, seed=3):
                with inject(session, faults.Hang(on="connect"), path="/0") as hang:
                    first = asyncio.create_task(fetch(session, "/0"))
                    await until_it_stops(lambda: hang.affected)
                    if waits:
                        for number in range(1, 10):
                            await fetch(session, f"/{number}")
                if not waits:
                    for number in range(1, 10):
                        await fetch(session, f"/{number}")
                assert await first == BODY
        assert [exchange.path for exchange in journal] == [f"/{number}" for number in range(10)]
        found.append([(each.fault is latency, round(each.duration, 4)) for each in journal[1:]])
    assert found[0] == found[1]
    assert {struck for struck, _ in found[0]} == {True, False}
    assert {struck for struck, duration in found[0] if duration} == {True}


@pytest.mark.parametrize(
    "fault",
    [faults.Hang(on="request", after=after) for after in (None, 0, 1)]
    + [faults.Latency(1000, on="request"), faults.Throttle(1, on="request"), faults.Hang(), faults.Hang(after=0)],
    ids=str,
)
async def test_unmounting_in_a_block_does_not_wait_for_a_client_that_has_left(fault: faults.Fault) -> None:
    app, sent = App(), asyncio.Event()
    async with session_to({"other.internal": App()}) as session:
        connector = connector_of(session)

        async def upload() -> AsyncIterator[bytes]:
            yield b"some bytes"
            sent.set()
            if isinstance(fault, faults.Hang) and fault.on == "request":
                await asyncio.Event().wait()

        with connector.inject("*", fault) as injected:
            async with asyncio.timeout(5):
                async with connector.mounted("app.internal", app):
                    request = asyncio.create_task(post(session, upload()))
                    await sent.wait()
                    await until_it_stops(lambda: app.calls)
                    request.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await request
            assert connector.mounts.keys() == {"other.internal"}
        assert injected.affected == 1


@in_virtual_time
async def test_the_end_of_a_connection_whose_client_has_gone_is_not_kept() -> None:
    async with session_to(App()) as session:
        ws = await session.ws_connect("ws://app.internal/")
        with inject(session, faults.Latency(5)):
            with pytest.raises(TimeoutError):
                await ws.receive(timeout=0.01)
            await ws.close()  # a frame, and then immediately the end
            await until_it_stops(lambda: len(transports(session)))
    no_task_and_no_timer_is_left()


async def test_the_end_of_a_connection_that_is_not_delivered_yet_is_silent_too() -> None:
    body = bytes(1024 * KIB)
    closing = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    app = App(headers=closing, pieces=(body,))
    async with session_to(app) as session, session.get("http://app.internal/wait") as response:
        await app.gone.wait()  # the response is complete, and most of it waits until the client reads
        with inject(session, faults.Hang()) as injected:
            assert injected.affected == 1
            assert transports(session)[1].get_write_buffer_size() > 0
        assert await response.read() == body
