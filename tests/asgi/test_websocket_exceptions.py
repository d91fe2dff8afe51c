"""What happens to an exception of a WebSocket's app, and to an app that breaks the protocol."""

import asyncio
import contextlib
import errno
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import (
    ClientOSError,
    ClientSession,
    ClientWebSocketResponse,
    ServerDisconnectedError,
    WSCloseCode,
    WSMessage,
    WSMsgType,
    WSServerHandshakeError,
)
from aiohttp.http import WebSocketError
from aiohttp.streams import EofStream
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException, WebSocketException
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_connector import ASGIConnectorError, ASGIProtocolError, ASGIRoutingConnector, Mount, UnmountedHostError
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import LOOPS, session_to
from tests.support.failures import OfTheApp, a_turn_later, base_group, cancel_itself, group, raise_cancelled
from tests.support.raw import raw_connection
from tests.support.reports import Reports, assert_logged, records
from tests.support.waiting import run_turns, settle

MIB = 1024 * 1024

Make = Callable[[], BaseException]
Step = Callable[[Receive, Send], Awaitable[None]]


def assert_reported(
    reports: Reports, caplog: pytest.LogCaptureFixture, exc: BaseException, url: str = "ws://app.internal/"
) -> None:
    """*exc* was logged once, and the loop's exception handler was called with it once."""
    assert_logged(caplog, exc, f"GET {url}")
    (report,) = reports.all
    assert report["exception"] is exc
    assert url in report["message"]


def assert_unseen(reports: Reports, caplog: pytest.LogCaptureFixture) -> None:
    assert not records(caplog)
    assert not reports.all


def accept(**fields: Any) -> Message:
    return {"type": "websocket.accept", **fields}


def message(content: str | bytes) -> Message:
    return {"type": "websocket.send", "text" if isinstance(content, str) else "bytes": content}


def close(**fields: Any) -> Message:
    return {"type": "websocket.close", **fields}


def deny(status: Any = 403, headers: Any = ()) -> Message:
    return {"type": "websocket.http.response.start", "status": status, "headers": headers}


def denial(body: Any = b"", *, more: bool = False) -> Message:
    return {"type": "websocket.http.response.body", "body": body, "more_body": more}


async def echo(receive: Receive, send: Send) -> Message:
    """Send back each message. Returns the disconnect."""
    while (received := await receive())["type"] == "websocket.receive":
        await send({**received, "type": "websocket.send"})
    return received


async def assert_echoes(ws: ClientWebSocketResponse) -> None:
    await ws.send_str("text")
    assert await ws.receive_str() == "text"
    await ws.send_bytes(b"bytes")
    assert await ws.receive_bytes() == b"bytes"


async def assert_goes_on(session: ClientSession) -> None:
    """The next WebSocket of the session works."""
    async with session.ws_connect("/echo") as ws:
        await assert_echoes(ws)


class Failing:
    """Echoes at ``/echo``. At any other path it counts a run, does what the test wants, and raises."""

    def __init__(self, exc: BaseException, before: Step | None = None) -> None:
        self.exc = exc
        self.before = before
        self.runs = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/echo":
            await receive()
            await send(accept())
            await echo(receive, send)
            return
        self.runs += 1
        if self.before is not None:
            await self.before(receive, send)
        self.raise_it()

    def raise_it(self) -> None:
        raise self.exc


def unmounted() -> BaseException:
    """The exception of an app that calls a service that does not exist."""
    key = aiohttp.client_reqrep.ConnectionKey("no.internal", 80, False, True, None, None, None)
    return UnmountedHostError.at(key, "no app")


# For aiohttp's client these are ordinary errors, whatever was sent before.
ORDINARY: list[Make] = [
    OfTheApp,
    KeyError,
    ValueError,
    TypeError,
    AssertionError,
    RecursionError,
    EOFError,
    group,
    asyncio.QueueEmpty,
    lambda: asyncio.IncompleteReadError(b"", 1),
    ASGIConnectorError,
    ASGIProtocolError,
    lambda: RuntimeError("Concurrent call to receive() is not allowed"),
    lambda: WebSocketDisconnect(1000),
    lambda: aiohttp.WSMessageTypeError("of the app's own client"),
]

# aiohttp turns these into a `ClientOSError` when a request raises them.
OS_ERRORS: list[Make] = [
    OSError,
    lambda: OSError("just words"),
    lambda: FileNotFoundError(errno.ENOENT, "No such file", "settings.toml"),
    lambda: ConnectionResetError(errno.ECONNRESET, "Reset"),
    lambda: BrokenPipeError(errno.EPIPE, "Broken"),
]

# aiohttp sends a GET again if its connection raises one of these.
REPLAYED: list[Make] = [
    ServerDisconnectedError,
    lambda: ServerDisconnectedError("in words"),
    lambda: ClientOSError(errno.EPIPE, "Broken"),
]

# `receive()` treats these as the end, or as its own timeout, or raises them.
SWALLOWED: list[Make] = [
    aiohttp.ClientError,
    aiohttp.ClientPayloadError,
    aiohttp.ClientConnectionError,
    aiohttp.ServerTimeoutError,
    aiohttp.ConnectionTimeoutError,
    lambda: aiohttp.ClientConnectionResetError("Cannot write to closing transport"),
    EofStream,
    TimeoutError,
    StopAsyncIteration,
    GeneratorExit,
    base_group,
    lambda: pytest.fail.Exception("failed on purpose"),
    lambda: pytest.skip.Exception("skipped on purpose"),
]


async def at_once(receive: Receive, send: Send) -> None:
    pass


async def when_connected(receive: Receive, send: Send) -> None:
    assert await receive() == {"type": "websocket.connect"}


async def when_connected_and_some_turns_later(receive: Receive, send: Send) -> None:
    await when_connected(receive, send)
    await run_turns(20)


async def with_a_denial_on_its_way(receive: Receive, send: Send) -> None:
    await when_connected(receive, send)
    await send(deny(404))


async def with_a_body_on_its_way(receive: Receive, send: Send) -> None:
    await with_a_denial_on_its_way(receive, send)
    await send(denial(b"never seen", more=True))


# Before the accept.


@pytest.mark.parametrize(
    "before",
    [
        at_once,
        a_turn_later,
        when_connected,
        when_connected_and_some_turns_later,
        with_a_denial_on_its_way,
        with_a_body_on_its_way,
    ],
)
@pytest.mark.parametrize("compress", [0, 15])
async def test_an_exception_before_the_accept_comes_out_of_ws_connect(
    before: Step, compress: int, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    app = Failing(exc, before)
    async with session_to(app) as session:
        for url in ("/", "ws://app.internal/", "wss://app.internal/"):
            with pytest.raises(OfTheApp) as caught:
                await session.ws_connect(url, compress=compress)
            assert caught.value is exc
            assert "raise_it" in [frame.name for frame in traceback.extract_tb(exc.__traceback__)]
        await assert_goes_on(session)
    assert app.runs == 3
    # The call has raised it, so it is not reported a second time.
    assert_unseen(reports, caplog)


@pytest.mark.parametrize("make", [*ORDINARY, *SWALLOWED, unmounted])
async def test_any_exception_before_the_accept_is_the_same_object(
    make: Make, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = make()
    cause = exc.__cause__
    app = Failing(exc)
    async with session_to(app) as session:
        with pytest.raises(type(exc)) as caught:
            await session.ws_connect("/")
        assert caught.value is exc
        assert exc.__cause__ is cause
        await assert_goes_on(session)
    assert app.runs == 1
    assert_unseen(reports, caplog)


@pytest.mark.parametrize("make", OS_ERRORS)
async def test_an_oserror_before_the_accept_is_the_cause_of_what_aiohttp_makes_of_it(
    make: Make, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = make()
    app = Failing(exc, when_connected)
    async with session_to(app) as session:
        with pytest.raises(ClientOSError) as caught:
            await session.ws_connect("/")
        assert caught.value.__cause__ is exc
        assert caught.value.args == exc.args
        await assert_goes_on(session)
    assert app.runs == 1
    assert_unseen(reports, caplog)


@pytest.mark.parametrize("make", REPLAYED)
@pytest.mark.parametrize("before", [at_once, when_connected_and_some_turns_later])
async def test_an_exception_that_looks_like_a_broken_connection_runs_the_app_once(
    make: Make, before: Step, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = make()
    app = Failing(exc, before)
    async with session_to(app) as session:
        for runs in (1, 2):
            with pytest.raises(type(exc)) as caught:
                await session.ws_connect("/")
            assert caught.value is exc
            assert app.runs == runs
        await assert_goes_on(session)
    assert app.runs == 2
    assert_unseen(reports, caplog)


@pytest.mark.parametrize("cancelled", [raise_cancelled, cancel_itself])
@pytest.mark.parametrize("accepted", [False, True])
async def test_a_cancelled_app_does_not_cancel_its_client(
    cancelled: Callable[[], Awaitable[None]], accepted: bool, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if accepted:
            await send(accept())
        await cancelled()

    async with session_to(app) as session:
        if accepted:
            ws = await session.ws_connect("/")
            received = await ws.receive()
            assert received.type is WSMsgType.ERROR
            exc: Any = received.data
            assert_reported(reports, caplog, exc)
            assert ws.exception() is exc
        else:
            with pytest.raises(ASGIConnectorError) as caught:
                await session.ws_connect("/")
            exc = caught.value
            assert_unseen(reports, caplog)
    assert type(exc) is ASGIConnectorError
    assert str(exc) == "The app was cancelled: GET ws://app.internal/"
    assert isinstance(exc.__cause__, asyncio.CancelledError)
    assert exc.__cause__.args == ("of the app's own",)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_stopiteration_of_an_app_that_is_no_coroutine_does_not_hang(reports: Reports) -> None:
    """In a coroutine, Python itself turns it into a RuntimeError. A plain function may raise it."""
    exc = StopIteration()

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        raise exc

    async with session_to(app) as session:
        with pytest.raises(ASGIConnectorError) as caught:
            async with asyncio.timeout(5):
                await session.ws_connect("/")
        assert caught.value.__cause__ is exc
    assert not reports.all


# After the accept.


async def until_it_fails(ws: ClientWebSocketResponse) -> tuple[list[str | bytes], Any]:
    """The messages that `receive()` returns, up to and with the exception."""
    contents: list[str | bytes] = []
    while (received := await ws.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
        contents.append(received.data)
    assert received.type is WSMsgType.ERROR, received
    assert ws.exception() is received.data
    assert ws.closed
    assert ws.close_code == WSCloseCode.ABNORMAL_CLOSURE
    assert (await ws.receive()).type is WSMsgType.CLOSED
    assert await ws.close() is False
    return contents, received.data


class Sending:
    """Accepts and sends, and yields to the event loop where the test says so."""

    def __init__(self, contents: list[str | bytes], turns: list[int]) -> None:
        self.contents = contents
        self.turns = turns

    async def __call__(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.give_way(0)
        await send(accept())
        await self.give_way(1)
        for content in self.contents:
            await send(message(content))
        await self.give_way(2)

    async def give_way(self, place: int) -> None:
        for _ in range(self.turns[place]):
            await asyncio.sleep(0)


CONTENTS: list[list[str | bytes]] = [
    [],
    ["text"],
    ["text", b"bytes", "", b"", "\N{SNOWMAN}"],
    [b"x" * MIB],
    [bytes([number]) * 20_000 for number in range(50)],
]


@pytest.mark.parametrize("contents", CONTENTS, ids=["nothing", "one", "five", "a large one", "many"])
@pytest.mark.parametrize("turns", [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 2, 2]], ids=str)
@pytest.mark.parametrize("compress", [0, 15])
async def test_an_exception_after_the_accept_is_received_after_all_that_was_sent_before_it(
    contents: list[str | bytes], turns: list[int], compress: int, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    app = Failing(exc, Sending(contents, turns))
    async with session_to(app) as session:
        ws = await session.ws_connect("/a?b=c", compress=compress)
        received, raised = await until_it_fails(ws)
        assert received == contents
        assert raised is exc
        assert "raise_it" in [frame.name for frame in traceback.extract_tb(exc.__traceback__)]
        await assert_goes_on(session)
    assert app.runs == 1
    assert_reported(reports, caplog, exc, "ws://app.internal/a?b=c")


@pytest.mark.parametrize("contents", CONTENTS[:4], ids=["nothing", "one", "five", "a large one"])
async def test_it_is_received_also_by_a_client_that_reads_long_afterwards(
    contents: list[str | bytes], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    async with session_to(Failing(exc, Sending(contents, [0, 0, 0]))) as session:
        ws = await session.ws_connect("wss://app.internal/")
        assert (await reports.one())["exception"] is exc
        await settle()
        assert not ws.closed
        received, raised = await until_it_fails(ws)
        assert received == contents
        assert raised is exc
    assert_reported(reports, caplog, exc, "wss://app.internal/")


@pytest.mark.parametrize("make", [*ORDINARY, *OS_ERRORS])
async def test_an_ordinary_exception_after_the_accept_is_the_same_object(
    make: Make, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = make()
    cause = exc.__cause__
    async with session_to(Failing(exc, Sending(["text"], [0, 0, 0]))) as session:
        ws = await session.ws_connect("/")
        contents, raised = await until_it_fails(ws)
        assert contents == ["text"]
        assert raised is exc
        assert exc.__cause__ is cause
    assert_reported(reports, caplog, exc)


@pytest.mark.parametrize(
    "make",
    [*SWALLOWED, *REPLAYED, unmounted, lambda: WebSocketError(WSCloseCode.PROTOCOL_ERROR, "of the app's client")],
)
async def test_what_the_client_would_swallow_or_raise_is_the_cause_of_an_error(
    make: Make, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = make()
    async with session_to(Failing(exc, Sending(["text"], [0, 0, 0]))) as session:
        ws = await session.ws_connect("/")
        contents, raised = await until_it_fails(ws)
        assert contents == ["text"]
        assert type(raised) is ASGIConnectorError
        assert raised.__cause__ is exc
        assert repr(exc) in str(raised)
    assert_reported(reports, caplog, exc)


async def test_a_stopiteration_after_the_accept_is_the_cause_of_an_error(reports: Reports) -> None:
    exc = StopIteration()

    class App:
        """Raises it outside a coroutine, where Python does not replace it."""

        def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            accepting = cast("Any", send(accept()))
            with pytest.raises(StopIteration):
                accepting.send(None)
            raise exc

    async with session_to(App()) as session:
        ws = await session.ws_connect("/")
        _, raised = await until_it_fails(ws)
        assert type(raised) is ASGIConnectorError
        assert raised.__cause__ is exc
    assert (await reports.one())["exception"] is exc


# What the client does when the app raises.


class Gated:
    """Accepts, sends, and raises when the gate opens."""

    def __init__(self, exc: BaseException, *contents: str | bytes) -> None:
        self.exc = exc
        self.contents = contents
        self.gate = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        for content in self.contents:
            await send(message(content))
        await self.gate.wait()
        raise self.exc


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compress": 15},
        {"heartbeat": 30.0},
        {"autoclose": False},
        {"autoping": False},
        {"timeout": aiohttp.ClientWSTimeout(ws_receive=30.0)},
    ],
    ids=str,
)
async def test_it_wakes_a_client_that_is_blocked_in_receive(
    settings: dict[str, Any], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    app = Gated(exc)
    async with session_to(app) as session:
        ws = await session.ws_connect("/", **settings)
        receiving = asyncio.create_task(until_it_fails(ws))
        await settle()
        assert not receiving.done()
        app.gate.set()
        assert await receiving == ([], exc)
    assert_reported(reports, caplog, exc)


async def test_it_is_received_while_the_heart_beats(reports: Reports, caplog: pytest.LogCaptureFixture) -> None:
    exc = OfTheApp()
    app = Gated(exc)
    async with session_to(app) as session:
        ws = await session.ws_connect("/", heartbeat=0.1, autoping=False)
        for _ in range(2):
            assert (await ws.receive()).type is WSMsgType.PONG
        app.gate.set()
        while (received := await ws.receive()).type is WSMsgType.PONG:
            pass
        assert received.type is WSMsgType.ERROR
        assert received.data is exc
        assert ws.exception() is exc
    assert_reported(reports, caplog, exc)


class Flooding:
    """Sends until the client stops reading. Then another task of its task group raises."""

    def __init__(self, exc: Exception, content: bytes) -> None:
        self.exc = exc
        self.content = content
        self.sent = 0
        self.gate = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.flood(send))
            tasks.create_task(self.fail())

    async def flood(self, send: Send) -> None:
        while True:
            await send(message(self.content))
            self.sent += 1

    async def fail(self) -> None:
        await self.gate.wait()
        raise self.exc


async def blocked(count: Callable[[], int]) -> int:
    """Return the count when it no longer grows."""
    last = -1
    while (now := count()) != last:
        last = now
        await settle()
    return last


@pytest.mark.parametrize(("size", "compress"), [(1, 0), (5000, 0), (300_000, 0), (1000, 15)])
async def test_a_client_that_did_not_read_receives_what_an_app_sent_until_it_failed_in_send(
    size: int, compress: int, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flooding(OfTheApp(), b"x" * size)
    async with session_to(app) as session:
        ws = await session.ws_connect("/", compress=compress)
        sent = await blocked(lambda: app.sent)
        assert sent > 0
        app.gate.set()
        exc = (await reports.one())["exception"]
        assert isinstance(exc, ExceptionGroup)
        assert exc.exceptions == (app.exc,)
        await settle()
        contents, raised = await until_it_fails(ws)
        assert raised is exc
        # What was written when the flood was cancelled has been sent whole. What waited for space has not.
        assert set(contents) == {app.content}
        assert sent <= len(contents) <= sent + 1
    assert_reported(reports, caplog, exc)


class Uploading:
    """The client's side of a flood of messages."""

    def __init__(self, ws: ClientWebSocketResponse) -> None:
        self.ws = ws
        self.sent = 0

    async def __call__(self, mib: int) -> None:
        for _ in range(mib):
            await self.ws.send_bytes(b"x" * MIB)
            self.sent += 1


async def test_it_lets_go_a_client_that_is_blocked_in_send(reports: Reports, caplog: pytest.LogCaptureFixture) -> None:
    exc = OfTheApp()
    app = Gated(exc, "text")
    async with session_to(app) as session:
        ws = await session.ws_connect("/")
        upload = Uploading(ws)
        sending = asyncio.create_task(upload(120))
        assert await blocked(lambda: upload.sent) < 10
        app.gate.set()
        # All the rest is dropped as it arrives, which takes no time. If it were kept, each new piece would copy it.
        try:
            async with asyncio.timeout(10):
                await sending
            assert await until_it_fails(ws) == (["text"], exc)
        finally:
            ws._response.close()
    assert_reported(reports, caplog, exc)


async def test_it_is_received_while_another_task_is_blocked_in_send(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    app = Gated(exc)
    async with session_to(app) as session:
        ws = await session.ws_connect("/")
        upload = Uploading(ws)
        sending = asyncio.create_task(upload(40))
        receiving = asyncio.create_task(until_it_fails(ws))
        assert await blocked(lambda: upload.sent) < 40
        app.gate.set()
        async with asyncio.timeout(10):
            assert await receiving == ([], exc)
            with pytest.raises(ConnectionError):
                await sending
        with pytest.raises(aiohttp.ClientConnectionResetError):
            await ws.send_str("more")
    assert_reported(reports, caplog, exc)


async def test_iterating_gives_the_exception_last(reports: Reports, caplog: pytest.LogCaptureFixture) -> None:
    exc = OfTheApp()
    async with session_to(Failing(exc, Sending(["a", b"b"], [0, 0, 0]))) as session:
        ws = await session.ws_connect("/")
        received: list[WSMessage] = [each async for each in ws]
        assert [(each.type, each.data) for each in received] == [
            (WSMsgType.TEXT, "a"),
            (WSMsgType.BINARY, b"b"),
            (WSMsgType.ERROR, exc),
        ]
        assert ws.exception() is exc
        assert ws.close_code == WSCloseCode.ABNORMAL_CLOSURE
    assert_reported(reports, caplog, exc)


async def receive_str(ws: ClientWebSocketResponse) -> object:
    return await ws.receive_str()


async def receive_bytes(ws: ClientWebSocketResponse) -> object:
    return await ws.receive_bytes()


async def receive_json(ws: ClientWebSocketResponse) -> object:
    return await ws.receive_json()


@pytest.mark.parametrize(
    ("receive_it", "content"),
    [(receive_str, "a"), (receive_bytes, b"b"), (receive_json, '{"c": 1}')],
)
async def test_receiving_a_kind_of_message_says_what_came_instead(
    receive_it: Callable[[ClientWebSocketResponse], Awaitable[object]],
    content: str | bytes,
    reports: Reports,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exc = OfTheApp("what happened")
    async with session_to(Failing(exc, Sending([content], [0, 0, 0]))) as session:
        ws = await session.ws_connect("/")
        await receive_it(ws)
        with pytest.raises(TypeError, match="what happened"):
            await receive_it(ws)
        assert ws.exception() is exc
    assert_reported(reports, caplog, exc)


@pytest.mark.parametrize("contents", CONTENTS[:4], ids=["nothing", "one", "five", "a large one"])
async def test_closing_finds_the_exception_that_was_not_received(
    contents: list[str | bytes], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    async with session_to(Failing(exc, Sending(contents, [0, 0, 0]))) as session:
        ws = await session.ws_connect("/")
        await reports.one()
        async with asyncio.timeout(5):
            assert await ws.close() is True
        assert ws.exception() is exc
        assert ws.close_code == WSCloseCode.ABNORMAL_CLOSURE

        async with asyncio.timeout(5), session.ws_connect("/") as ws:
            pass
        assert ws.exception() is exc
    assert [report["exception"] for report in reports.all] == [exc, exc]
    assert len(records(caplog)) == 2


async def test_leaving_the_block_finds_the_exception_that_was_not_received(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    app = Gated(exc, "text")
    async with session_to(app) as session:
        async with asyncio.timeout(5), session.ws_connect("/") as ws:
            app.gate.set()
            await reports.one()
        assert ws.exception() is exc
        assert ws.closed
    assert_reported(reports, caplog, exc)


async def test_closing_while_another_task_receives_finds_the_exception(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    app = Gated(exc)
    async with session_to(app) as session:
        ws = await session.ws_connect("/")
        receiving = asyncio.create_task(ws.receive())
        await settle()
        app.gate.set()
        async with asyncio.timeout(5):
            await ws.close()
            received = await receiving
        # One of them gets it. Which one does not matter.
        assert ws.exception() is exc
        assert received.type in (WSMsgType.ERROR, WSMsgType.CLOSING)
    assert_reported(reports, caplog, exc)


async def test_a_client_that_never_looks_does_not_hold_up_the_session(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    async with session_to(Failing(exc, Sending([b"x" * MIB], [0, 0, 0])), shutdown_timeout=3600) as session:
        ws = await session.ws_connect("/")
        await reports.one()
        async with asyncio.timeout(5):
            await session.close()
        await ws.close()
    assert_reported(reports, caplog, exc)


# The same as a real server.


@pytest.mark.parametrize("where", ["connector", "mount", "mount, against its connector"])
@pytest.mark.parametrize(
    "make", [OfTheApp, lambda: ClientOSError(errno.EPIPE, "x"), lambda: pytest.fail.Exception("x")]
)
async def test_without_raising_it_is_a_500_before_the_accept_and_1011_after_it(
    where: str, make: Make, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = make()
    before = Failing(exc, when_connected)
    after = Failing(exc, Sending(["text"], [0, 0, 0]))
    off = Mount(before, raise_app_exceptions=False), Mount(after, raise_app_exceptions=False)
    apps = (before, after) if where == "connector" else off
    async with session_to(
        {"before.internal": apps[0], "after.internal": apps[1]}, raise_app_exceptions=where != "connector"
    ) as session:
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect("ws://before.internal/")
        assert caught.value.status == 500
        assert_logged(caplog, exc, "GET ws://before.internal/")
        caplog.clear()

        ws = await session.ws_connect("ws://after.internal/")
        assert await ws.receive_str() == "text"
        received = await ws.receive()
        assert (received.type, received.data, received.extra) == (WSMsgType.CLOSE, 1011, "")
        assert ws.close_code == 1011
        assert ws.exception() is None
        assert_logged(caplog, exc, "GET ws://after.internal/")
    assert before.runs == after.runs == 1
    assert not reports.all


@pytest.mark.parametrize("contents", CONTENTS, ids=["nothing", "one", "five", "a large one", "many"])
async def test_without_raising_all_that_was_sent_before_is_received(contents: list[str | bytes]) -> None:
    app = Failing(OfTheApp(), Sending(contents, [0, 0, 0]))
    async with session_to(app, raise_app_exceptions=False) as session:
        ws = await session.ws_connect("/")
        received = [(await ws.receive()).data for _ in contents]
        assert received == contents
        assert (await ws.receive()).type is WSMsgType.CLOSE
        assert ws.close_code == 1011
        await assert_goes_on(session)


async def test_without_raising_a_denial_that_has_begun_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    exc = OfTheApp()
    async with session_to(Failing(exc, with_a_body_on_its_way), raise_app_exceptions=False) as session:
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect("/")
        assert caught.value.status == 404
        await assert_goes_on(session)
    assert_logged(caplog, exc, "GET ws://app.internal/")


# What the event loop must see.


@pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("make", [lambda: KeyboardInterrupt("of the app"), lambda: SystemExit(3)])
@pytest.mark.parametrize(
    ("before", "outcome"),
    [
        (at_once, 500),
        (when_connected_and_some_turns_later, 500),
        (Sending([], [0, 0, 0]), 1011),
        (Sending(["text"], [1, 1, 1]), 1011),
    ],
    ids=["at once", "some turns later", "accepted", "accepted and sent"],
)
@pytest.mark.parametrize("raising", [True, False])
def test_what_ends_a_program_leaves_through_the_loop(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], make: Make, before: Step, outcome: int, raising: bool
) -> None:
    exc = make()

    async def main() -> object:
        async with session_to(Failing(exc, before), raise_app_exceptions=raising) as session:
            try:
                async with session.ws_connect("/") as ws:
                    async for each in ws:
                        assert each.data == "text"
                    return ws.close_code
            except WSServerHandshakeError as error:
                return error.status

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        call = loop.create_task(main())
        with pytest.raises(type(exc)) as caught:
            loop.run_until_complete(call)
        assert caught.value is exc
        assert not call.done()
        # If the loop runs again, the client sees the same as when a server is killed.
        assert loop.run_until_complete(call) == outcome


# Clients that have disconnected.


class Waiting:
    """Accepts, or not. Waits until it receives the disconnect, then waits for the gate, and fails."""

    def __init__(self, exc: BaseException, *, accepts: bool = True) -> None:
        self.exc = exc
        self.accepts = accepts
        self.begun = asyncio.Event()
        self.disconnect: Message = {}
        self.gate = asyncio.Event()
        self.over = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if self.accepts:
            await send(accept())
        self.begun.set()
        self.disconnect = await receive()
        await self.gate.wait()
        asyncio.get_running_loop().call_soon(self.over.set)
        raise self.exc


async def close_it(session: ClientSession, ws: ClientWebSocketResponse) -> None:
    await ws.close(code=4000, message=b"bye")


async def abort_it(session: ClientSession, ws: ClientWebSocketResponse) -> None:
    connection = ws._response.connection
    assert connection is not None
    assert isinstance(connection.transport, asyncio.Transport)
    connection.transport.abort()


async def drop_it(session: ClientSession, ws: ClientWebSocketResponse) -> None:
    ws._response.close()


@pytest.mark.parametrize(("go", "code", "reason"), [(close_it, 4000, "bye"), (abort_it, 1006, ""), (drop_it, 1006, "")])
@pytest.mark.parametrize("make", [OfTheApp, ServerDisconnectedError, lambda: pytest.fail.Exception("x")])
@pytest.mark.parametrize("raising", [True, False])
async def test_what_an_app_raises_after_its_client_has_gone_is_an_ordinary_end(
    go: Callable[[ClientSession, ClientWebSocketResponse], Awaitable[None]],
    code: int,
    reason: str,
    make: Make,
    raising: bool,
    reports: Reports,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "asgi_connector")
    exc = make()
    app = Waiting(exc)
    async with session_to(app, raise_app_exceptions=raising) as session:
        ws = await session.ws_connect("/a?b=c")
        await go(session, ws)
        app.gate.set()
        await app.over.wait()
        await settle()
        assert app.disconnect == {"type": "websocket.disconnect", "code": code, "reason": reason}
        await ws.close()
    assert_unseen(reports, caplog)
    (record,) = [record for record in caplog.records if record.name == "asgi_connector" and record.exc_info]
    assert record.levelno == logging.DEBUG
    assert record.exc_info is not None
    assert record.exc_info[1] is exc
    assert record.getMessage().endswith("GET ws://app.internal/a?b=c")


async def test_it_is_one_also_when_a_background_task_of_an_earlier_request_has_ended_meanwhile(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    """On the same connection: the end of another request does not end the WebSocket."""
    may_end = asyncio.Event()
    ended = asyncio.Event()
    websocket = Waiting(OfTheApp())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await websocket(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        await may_end.wait()
        ended.set()

    async with session_to(app) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        with connector.record() as journal:
            async with session.get("/"):
                pass
            ws = await session.ws_connect("/")
            assert journal[1].reused
            may_end.set()
            await ended.wait()
            await settle()
            await drop_it(session, ws)
            websocket.gate.set()
            await websocket.over.wait()
            await settle()
            assert websocket.disconnect == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
            await ws.close()
    assert_unseen(reports, caplog)


@pytest.mark.parametrize("raising", [True, False])
async def test_it_is_one_also_when_ws_connect_was_cancelled(
    raising: bool, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = Waiting(OfTheApp(), accepts=False)
    async with session_to(app, raise_app_exceptions=raising) as session:
        connecting = asyncio.ensure_future(session.ws_connect("/"))
        await app.begun.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        app.gate.set()
        await app.over.wait()
        assert app.disconnect == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert_unseen(reports, caplog)


@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize("raising", [True, False])
async def test_it_is_one_also_when_the_session_was_closed(
    accepts: bool, raising: bool, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = Waiting(OfTheApp(), accepts=accepts)
    app.gate.set()
    async with session_to(app, raise_app_exceptions=raising, shutdown_timeout=3600) as session:
        connecting = asyncio.ensure_future(session.ws_connect("/"))
        await app.begun.wait()
        ws = await connecting if accepts else None
        async with asyncio.timeout(5):
            await session.close()
        assert app.over.is_set()
        assert app.disconnect == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        if ws is not None:
            await ws.close()
        else:
            with pytest.raises(aiohttp.ClientConnectionError):
                await connecting
    assert_unseen(reports, caplog)


async def test_what_the_client_leaves_first_is_not_reported_though_the_app_fails_in_the_same_turn(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = Gated(OfTheApp())
    async with session_to(app) as session:
        ws = await session.ws_connect("/")
        ws._response.close()
        app.gate.set()
        await settle()
        assert (await ws.receive()).type is WSMsgType.CLOSED
    assert_unseen(reports, caplog)


async def test_an_app_that_fails_first_is_reported_though_the_client_closes_in_the_same_turn(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    app = Gated(exc)
    async with session_to(app) as session:
        ws = await session.ws_connect("/")
        await settle()
        app.gate.set()
        async with asyncio.timeout(5):
            await ws.close()
        assert ws.exception() is exc
    assert_reported(reports, caplog, exc)


@pytest.mark.parametrize("wrong", [None, {"type": "unknown"}, message("x"), close(code=1)], ids=str)
async def test_an_app_that_returns_anyhow_after_its_client_has_gone_is_no_error(
    wrong: Any, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> object:
        await receive()
        await send(accept())
        await receive()
        with contextlib.suppress(Exception):
            await send(wrong)
        return "something"

    async with session_to(app) as session, session.ws_connect("/"):
        pass
    assert_unseen(reports, caplog)


async def test_an_app_that_is_cancelled_after_its_client_has_gone_is_no_error(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = Waiting(asyncio.CancelledError())
    app.gate.set()
    async with session_to(app) as session:
        async with session.ws_connect("/"):
            pass
        await app.over.wait()
    assert_unseen(reports, caplog)


@pytest.mark.parametrize("go", [close_it, abort_it, drop_it])
@pytest.mark.parametrize("what", ["receives", "sends"])
async def test_the_disconnect_that_a_starlette_endpoint_does_not_handle_is_no_error(
    go: Callable[[ClientSession, ClientWebSocketResponse], Awaitable[None]],
    what: str,
    reports: Reports,
    caplog: pytest.LogCaptureFixture,
) -> None:
    raised: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            if what == "receives":
                await websocket.receive_text()
            while True:
                await websocket.send_text("x" * 10_000)
        except BaseException as exc:
            raised.set_result(exc)
            raise

    async with session_to(Starlette(routes=[WebSocketRoute("/", endpoint)])) as session:
        ws = await session.ws_connect("/")
        await settle()
        await go(session, ws)
        async with asyncio.timeout(5):
            assert type(await raised) is WebSocketDisconnect
        await ws.close()
    assert_unseen(reports, caplog)


# After the app has ended the WebSocket.


async def close_with_4000(receive: Receive, send: Send) -> None:
    await receive()
    await send(accept())
    await send(message("text"))
    await send(close(code=4000, reason="bye"))


async def close_with_4000_and_wait_for_the_client(receive: Receive, send: Send) -> None:
    await close_with_4000(receive, send)
    assert await receive() == {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}


@pytest.mark.parametrize("before", [close_with_4000, close_with_4000_and_wait_for_the_client])
@pytest.mark.parametrize("turns", [0, 1, 2])
@pytest.mark.parametrize("raising", [True, False])
async def test_an_exception_after_the_apps_own_close_is_reported_and_changes_nothing(
    before: Step, turns: int, raising: bool, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait_and_see(receive: Receive, send: Send) -> None:
        await before(receive, send)
        await run_turns(turns)

    exc = OfTheApp()
    async with session_to(Failing(exc, wait_and_see), raise_app_exceptions=raising) as session:
        ws = await session.ws_connect("/")
        assert await ws.receive_str() == "text"
        received = await ws.receive()
        assert (received.type, received.data, received.extra) == (WSMsgType.CLOSE, 4000, "bye")
        await settle()
        assert ws.exception() is None
        assert ws.close_code == 4000
        await assert_goes_on(session)
    if raising:
        assert_reported(reports, caplog, exc)
    else:
        assert_logged(caplog, exc, "GET ws://app.internal/")
        assert not reports.all


async def deny_at_once(receive: Receive, send: Send) -> None:
    await receive()
    await send(close(code=4000))


async def deny_with_a_response(receive: Receive, send: Send) -> None:
    await receive()
    await send(deny(403, [(b"content-length", b"2")]))
    await send(denial(b"no"))


@pytest.mark.parametrize("before", [deny_at_once, deny_with_a_response])
@pytest.mark.parametrize("turns", [0, 1, 5])
@pytest.mark.parametrize("raising", [True, False])
async def test_an_exception_after_a_denial_is_reported_and_changes_nothing(
    before: Step, turns: int, raising: bool, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait_and_see(receive: Receive, send: Send) -> None:
        await before(receive, send)
        await run_turns(turns)

    exc = OfTheApp()
    app = Failing(exc, wait_and_see)
    async with session_to(app, raise_app_exceptions=raising) as session:
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect("/")
        assert caught.value.status == 403
        await settle()
        await assert_goes_on(session)
    assert app.runs == 1
    if raising:
        assert_reported(reports, caplog, exc)
    else:
        assert_logged(caplog, exc, "GET ws://app.internal/")
        assert not reports.all


# Apps that break the protocol.


class BreaksTheProtocol:
    """Reaches some state, and sends a message that must be refused. Then it continues, or fails if nothing is left."""

    def __init__(self, first: list[Any], cases: "list[Case]", then: list[Any] | None) -> None:
        self.first = first
        self.cases = cases
        self.then = then
        self.refused: list[ASGIProtocolError | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for right in self.first:
            await send(right)
        for wrong, _ in self.cases:
            await self.send_wrong(send, wrong)
        for right in self.then or []:
            await send(right)
        if accept() in [*self.first, *(self.then or [])]:
            await echo(receive, send)

    async def send_wrong(self, send: Send, wrong: Any) -> None:
        try:
            await send(wrong)
        except ASGIProtocolError as exc:
            self.refused.append(exc)
            if self.then is None:
                raise
        else:
            self.refused.append(None)

    def assert_all_refused(self) -> None:
        for (wrong, sentence), exc in zip(self.cases, self.refused, strict=True):
            assert type(exc) is ASGIProtocolError, wrong
            assert str(exc).startswith(sentence)


def denied(caught: pytest.ExceptionInfo[WSServerHandshakeError], status: int) -> None:
    assert caught.value.status == status


EXPECTED_ACCEPT = (
    "Expected ASGI message 'websocket.accept', 'websocket.close', or 'websocket.http.response.start' but got '{}'."
)
EXPECTED_SEND = "Expected ASGI message 'websocket.send' or 'websocket.close', but got '{}'."
EXPECTED_BODY = "Expected ASGI message 'websocket.http.response.body' but got '{}'."
OVER = "Unexpected ASGI message '{}', after sending 'websocket.close' or response already completed."
NOT_A_MESSAGE = "Expected an ASGI message, a dict with a 'type', but got {!r}."
NOT_OFFERED = (
    "Expected the 'subprotocol' of 'websocket.accept' to be one of those that the client offers, ['a', 'b'], or None, "
    "but got {!r}."
)
NO_SUBPROTOCOL = "Expected the 'subprotocol' of 'websocket.accept' to be a str or None, but got {!r}."
NOT_A_HEADER = (
    "Expected the 'subprotocol' of 'websocket.accept' to name the subprotocol, but got it in the 'headers': {!r}"
)
NOT_THE_APPS = "Expected headers beside those of the handshake, but got {!r}"
ACCEPT_HEADERS = "Expected the 'headers' of 'websocket.accept' to be pairs of bytes"
DENIAL_HEADERS = "Expected the 'headers' of 'websocket.http.response.start' to be pairs of bytes"
NAME = "Invalid HTTP header name"
VALUE = "Invalid HTTP header value"
NO_STATUS = "Expected the 'status' of 'websocket.http.response.start' to be an int, but got {!r}."
NOT_FINAL = "Expected the 'status' of 'websocket.http.response.start' to be a final one, from 200 to 999, but got {}."
NOT_BYTES = "Expected the 'body' of 'websocket.http.response.body' to be bytes, but got {!r}."
NO_CONTENT = "Expected 'websocket.send' to have 'bytes' in bytes, or 'text' in a str, but got {!r} and {!r}."
NO_CODE = (
    "Expected the 'code' of 'websocket.close' to be an int that may be sent, from 1000 to 1003, from 1007 to 1014 or "
    "from 3000 to 4999 (RFC 6455, 7.4), but got {!r}."
)
NO_REASON = "Expected the 'reason' of 'websocket.close' to be a str of at most 123 bytes, but got {!r}."
LONGER = "Response content longer than Content-Length"
SHORTER = "Response content shorter than Content-Length"

NO_BODIES: list[Any] = ["text", None, 5, [b"x"], {}]
NO_MESSAGES: list[Any] = [None, 5, "websocket.accept", [], {}, {"code": 1000}]
OF_NO_STATE: list[Any] = [
    "websocket.connect",
    "websocket.receive",
    "websocket.disconnect",
    "http.response.start",
    "http.response.body",
    "lifespan.startup.complete",
    "unknown",
    "",
    None,
    5,
]

BAD_HEADERS: list[tuple[Any, str]] = [
    ([("x-a", b"1")], NAME),
    ([(b"x-a", "1")], VALUE),
    ([(b"x a", b"1")], NAME),
    ([(b"", b"1")], NAME),
    ([(b"x-a:", b"1")], NAME),
    ([(b"x-\xe9", b"1")], NAME),
    ([(b"x-a\r\nx-b", b"1")], NAME),
    ([(b"x-a", b"1\r\nx-b: 2")], VALUE),
    ([(b"x-a", b"1\n")], VALUE),
    ([(b"x-a", b"\x00")], VALUE),
    ([(b"x-a", b"\x7f")], VALUE),
    ([(b"x-a", None)], VALUE),
    ([(b"x-b", b"2"), (b"x-a", bytearray(b"1"))], VALUE),
]
BAD_SHAPES: list[Any] = [None, 5, {"x-a": "1"}, [(b"x-a",)], [(b"x-a", b"1", b"2")], [None], b"x-a: 1", "x-a: 1"]

Case = tuple[Any, str]
"""A wrong message, and the beginning of the error about it."""

WRONG_AT_FIRST: list[Case] = [
    *[(wrong, NOT_A_MESSAGE.format(wrong)) for wrong in NO_MESSAGES],
    *[({"type": kind}, EXPECTED_ACCEPT.format(kind)) for kind in OF_NO_STATE],
    (message("too early"), EXPECTED_ACCEPT.format("websocket.send")),
    (denial(), EXPECTED_ACCEPT.format("websocket.http.response.body")),
    *[(accept(subprotocol=name), NOT_OFFERED.format(name)) for name in ("c", "A", "a, b", "", "a\r\nx: y", "\ud800")],
    *[(accept(subprotocol=name), NO_SUBPROTOCOL.format(name)) for name in (b"a", 5, ["a"], False)],
    *[(accept(headers=headers), sentence) for headers, sentence in BAD_HEADERS],
    *[(accept(headers=headers), ACCEPT_HEADERS) for headers in BAD_SHAPES],
    *[
        (accept(headers=[(b"x-a", b"1"), (name, value)]), NOT_THE_APPS.format(name))
        for name, value in [
            (b"upgrade", b"h2c"),
            (b"Upgrade", b"websocket"),
            (b"connection", b"close"),
            (b"content-length", b"0"),
            (b"transfer-encoding", b"chunked"),
            (b"sec-websocket-accept", b"x"),
            (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
        ]
    ],
    *[
        (accept(headers=[(name, b"a")], **fields), NOT_A_HEADER.format(name))
        for name in (b"sec-websocket-protocol", b"Sec-WebSocket-Protocol")
        for fields in ({}, {"subprotocol": "a"})
    ],
    *[(deny(status), NO_STATUS.format(status)) for status in (None, "403", 403.0, True)],
    *[(deny(status), NOT_FINAL.format(status)) for status in (-1, 0, 100, 101, 199, 1000)],
    *[(deny(403, headers), sentence) for headers, sentence in BAD_HEADERS],
    *[(deny(403, headers), DENIAL_HEADERS) for headers in BAD_SHAPES],
    (deny(403, [(b"content-length", b"x")]), "Invalid Content-Length"),
    (deny(403, [(b"content-length", b"1"), (b"content-length", b"1")]), "More than one Content-Length"),
]

WRONG_IN_A_DENIAL: list[Case] = [
    *[(wrong, NOT_A_MESSAGE.format(wrong)) for wrong in NO_MESSAGES],
    *[({"type": kind}, EXPECTED_BODY.format(kind)) for kind in OF_NO_STATE],
    (accept(), EXPECTED_BODY.format("websocket.accept")),
    (message("x"), EXPECTED_BODY.format("websocket.send")),
    (close(), EXPECTED_BODY.format("websocket.close")),
    (deny(404), EXPECTED_BODY.format("websocket.http.response.start")),
    *[(denial(wrong), NOT_BYTES.format(wrong)) for wrong in NO_BODIES],
]

WRONG_WHEN_OPEN: list[Case] = [
    *[(wrong, NOT_A_MESSAGE.format(wrong)) for wrong in NO_MESSAGES],
    *[({"type": kind}, EXPECTED_SEND.format(kind)) for kind in OF_NO_STATE],
    (accept(), EXPECTED_SEND.format("websocket.accept")),
    (deny(), EXPECTED_SEND.format("websocket.http.response.start")),
    (denial(), EXPECTED_SEND.format("websocket.http.response.body")),
    ({"type": "websocket.send"}, NO_CONTENT.format(None, None)),
    ({"type": "websocket.send", "bytes": None, "text": None}, NO_CONTENT.format(None, None)),
    ({"type": "websocket.send", "bytes": "text"}, NO_CONTENT.format("text", None)),
    ({"type": "websocket.send", "bytes": "text", "text": "text"}, NO_CONTENT.format("text", "text")),
    ({"type": "websocket.send", "bytes": [1]}, NO_CONTENT.format([1], None)),
    ({"type": "websocket.send", "bytes": 5}, NO_CONTENT.format(5, None)),
    ({"type": "websocket.send", "text": b"bytes"}, NO_CONTENT.format(None, b"bytes")),
    ({"type": "websocket.send", "text": 5}, NO_CONTENT.format(None, 5)),
    ({"type": "websocket.send", "text": {"a": 1}}, NO_CONTENT.format(None, {"a": 1})),
    (message("a\ud800b"), "Expected the 'text' of 'websocket.send' to be Unicode"),
    (message("\udc80"), "Expected the 'text' of 'websocket.send' to be Unicode"),
    *[
        (close(code=code), NO_CODE.format(code))
        for code in (-1, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65536, 2**70)
    ],
    *[(close(code=code), NO_CODE.format(code)) for code in (None, "1000", "4000", 1000.0, True, b"1000", [1000])],
    *[
        (close(code=4000, reason=reason), NO_REASON.format(reason))
        for reason in ("x" * 124, "é" * 62, "x" * 122 + "é", b"bytes", 5, ["x"], "\ud800")
    ],
]


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[repr(wrong)[:70] for wrong, _ in cases])


@pytest.mark.parametrize("then", [[accept()], [deny(404), denial()], [close()]], ids=["accept", "deny", "close"])
async def test_wrong_messages_before_the_accept_are_refused_in_the_app_which_may_go_on(
    then: list[Message], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = BreaksTheProtocol([], WRONG_AT_FIRST, then)
    async with session_to(app) as session:
        if then == [accept()]:
            async with session.ws_connect("/", protocols=["a", "b"]) as ws:
                assert ws.protocol is None
                await assert_echoes(ws)
        else:
            with pytest.raises(WSServerHandshakeError) as caught:
                await session.ws_connect("/", protocols=["a", "b"])
            denied(caught, 403 if then == [close()] else 404)
    app.assert_all_refused()
    assert_unseen(reports, caplog)


async def test_every_code_that_may_be_sent_reaches_the_client() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        await send(close(code=int(scope["path"][1:])))

    async with session_to(app) as session:
        for code in (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999):
            async with session.ws_connect(f"/{code}") as ws:
                received = await ws.receive()
                assert (received.type, received.data, ws.close_code) == (WSMsgType.CLOSE, code, code)


@each(WRONG_AT_FIRST)
async def test_a_wrong_message_before_the_accept_is_raised_from_ws_connect_unless_the_app_handles_it(
    case: Case, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = BreaksTheProtocol([], [case], None)
    async with session_to(app) as session:
        with pytest.raises(ASGIProtocolError) as caught:
            await session.ws_connect("/", protocols=["a", "b"])
    assert [caught.value] == app.refused
    app.assert_all_refused()
    assert_unseen(reports, caplog)


async def test_wrong_messages_within_a_denial_are_refused_in_the_app_which_may_go_on(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = BreaksTheProtocol([deny(404), denial(b"a", more=True)], WRONG_IN_A_DENIAL, [denial(b"b")])
    async with session_to(app) as session, session.get("/", headers=handshake()) as response:
        # This is a plain request for a WebSocket, because ws_connect() does not read the body.
        assert response.status == 404
        assert await response.read() == b"ab"
    app.assert_all_refused()
    assert_unseen(reports, caplog)


@each(WRONG_IN_A_DENIAL)
async def test_a_wrong_message_within_a_denial_is_raised_from_ws_connect_unless_the_app_handles_it(
    case: Case, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = BreaksTheProtocol([deny(404), denial(b"a", more=True)], [case], None)
    async with session_to(app) as session:
        with pytest.raises(ASGIProtocolError) as caught:
            await session.ws_connect("/")
    assert [caught.value] == app.refused
    app.assert_all_refused()
    assert_unseen(reports, caplog)


@pytest.mark.parametrize(
    ("first", "wrong", "then", "sentence"),
    [
        ([], denial(b"four"), [denial(b"abc")], LONGER),
        ([denial(b"ab", more=True)], denial(b"cd"), [denial(b"c")], LONGER),
        ([], denial(b"ab"), [denial(b"c")], SHORTER),
        ([], denial(), [denial(b"abc")], SHORTER),
        ([denial(b"ab", more=True)], denial(), [denial(b"c")], SHORTER),
    ],
)
async def test_the_body_of_a_denial_is_held_to_its_content_length(
    first: list[Message], wrong: Message, then: list[Message], sentence: str
) -> None:
    start = deny(404, [(b"content-length", b"3")])
    app = BreaksTheProtocol([start, *first], [(wrong, sentence)], then)
    async with session_to(app) as session, session.get("/", headers=handshake()) as response:
        assert response.status == 404
        assert await response.read() == b"abc"
    app.assert_all_refused()

    app = BreaksTheProtocol([start, *first], [(wrong, sentence)], None)
    async with session_to(app) as session:
        with pytest.raises(ASGIProtocolError) as caught:
            await session.ws_connect("/")
    assert [caught.value] == app.refused
    app.assert_all_refused()


def handshake() -> dict[str, str]:
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }


async def test_wrong_messages_after_the_accept_are_refused_in_the_app_which_may_go_on(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = BreaksTheProtocol([accept(), message("before")], WRONG_WHEN_OPEN, [message("after")])
    async with session_to(app) as session, session.ws_connect("/") as ws:
        assert await ws.receive_str() == "before"
        assert await ws.receive_str() == "after"
        await assert_echoes(ws)
    app.assert_all_refused()
    assert_unseen(reports, caplog)


@each(WRONG_WHEN_OPEN)
async def test_a_wrong_message_after_the_accept_is_received_as_an_error_unless_the_app_handles_it(
    case: Case, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = BreaksTheProtocol([accept(), message("before")], [case], None)
    async with session_to(app) as session:
        contents, raised = await until_it_fails(await session.ws_connect("/"))
        assert contents == ["before"]
    assert [raised] == app.refused
    app.assert_all_refused()
    assert_reported(reports, caplog, raised)


@pytest.mark.parametrize(
    "first",
    [[accept(), close(code=4000)], [close()], [deny(404), denial()], [deny(204), denial()]],
    ids=["closed", "refused", "denied", "denied without a body"],
)
@pytest.mark.parametrize(
    "wrong",
    [
        *NO_MESSAGES,
        {"type": "unknown"},
        accept(),
        message("x"),
        message(b"x"),
        {"type": "websocket.send"},
        close(),
        close(code=1),
        deny(),
        denial(),
    ],
    ids=str,
)
async def test_a_message_after_the_end_is_refused_and_reported_and_changes_nothing(
    first: list[Message], wrong: Any, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    has_type = isinstance(wrong, dict) and "type" in wrong
    sentence = OVER.format(wrong["type"]) if has_type else NOT_A_MESSAGE.format(wrong)
    app = BreaksTheProtocol(first, [(wrong, sentence)], None)
    async with session_to(app) as session:
        if first[0] == accept():
            ws = await session.ws_connect("/")
            assert (await ws.receive()).data == 4000
        else:
            with pytest.raises(WSServerHandshakeError) as caught:
                await session.ws_connect("/")
            denied(caught, first[0].get("status", 403))
    app.assert_all_refused()
    (exc,) = app.refused
    assert exc is not None
    assert_reported(reports, caplog, exc)


# Valid messages that look unusual.


@pytest.mark.parametrize(
    ("right", "content"),
    [
        ({"bytes": bytearray(b"abc")}, b"abc"),
        ({"bytes": memoryview(b"abc")}, b"abc"),
        ({"bytes": memoryview(b"a-b-c")[::2]}, b"abc"),
        ({"bytes": b"abc", "text": None}, b"abc"),
        ({"bytes": b"", "text": None}, b""),
        ({"bytes": None, "text": "abc"}, "abc"),
        ({"bytes": None, "text": ""}, ""),
        ({"bytes": b"bytes first", "text": "abc"}, b"bytes first"),
        ({"text": "\N{SNOWMAN}\x00"}, "\N{SNOWMAN}\x00"),
    ],
)
@pytest.mark.parametrize("compress", [0, 15])
async def test_content_may_be_given_in_any_of_these_ways(
    right: dict[str, Any], content: str | bytes, compress: int
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        await send({"type": "websocket.send", **right})

    async with session_to(app) as session, session.ws_connect("/", compress=compress) as ws:
        received = await ws.receive()
        assert received.data == content
        assert received.type is (WSMsgType.TEXT if isinstance(content, str) else WSMsgType.BINARY)


@pytest.mark.parametrize("compress", [0, 15])
async def test_an_app_may_change_its_bytearray_as_soon_as_it_was_sent(compress: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        data = bytearray(b"abc")
        await send({"type": "websocket.send", "bytes": data})
        data[:] = b"xyz"

    async with session_to(app) as session, session.ws_connect("/", compress=compress) as ws:
        assert await ws.receive_bytes() == b"abc"


@pytest.mark.parametrize(
    ("right", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": 1000}, 1000, ""),
        ({"code": 1014}, 1014, ""),
        ({"code": 3000}, 3000, ""),
        ({"code": 4999}, 4999, ""),
        ({"code": WSCloseCode.GOING_AWAY}, 1001, ""),
        ({"reason": "alone"}, 1000, "alone"),
        ({"code": 4000, "reason": None}, 4000, ""),
        ({"code": 4000, "reason": ""}, 4000, ""),
        ({"code": 4000, "reason": "x" * 123}, 4000, "x" * 123),
        ({"code": 4000, "reason": "é" * 61 + "x"}, 4000, "é" * 61 + "x"),
    ],
)
async def test_an_app_may_close_with_any_code_and_reason_that_may_be_sent(
    right: dict[str, Any], code: int, reason: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        await send(close(**right))

    async with session_to(app) as session:
        ws = await session.ws_connect("/")
        received = await ws.receive()
        assert (received.type, received.data, received.extra) == (WSMsgType.CLOSE, code, reason)
        assert ws.close_code == code


@pytest.mark.parametrize(
    "headers",
    [
        lambda: ((name, b"1") for name in (b"X-A", b"x-b")),
        lambda: [[b"X-A", b"1"], [b"x-b", b"1"]],
        lambda: ((b"X-A", b"1"), (b"x-b", b"1")),
        lambda: {b"X-A": b"1", b"x-b": b"1"}.items(),
    ],
    ids=["generator", "lists", "tuples", "items"],
)
async def test_headers_may_be_any_iterable_of_pairs(headers: Callable[[], Any]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/denied":
            await send(deny(404, headers()))
            await send(denial())
        else:
            await send(accept(headers=headers()))

    async with session_to(app) as session:
        async with session.ws_connect("/") as ws:
            assert ws._response.raw_headers[-2:] == ((b"X-A", b"1"), (b"x-b", b"1"))
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect("/denied")
        assert caught.value.headers is not None
        assert caught.value.headers["x-a"] == caught.value.headers["X-B"] == "1"


@pytest.mark.parametrize("body", [b"abc", bytearray(b"abc"), memoryview(b"abc")], ids=["bytes", "bytearray", "view"])
async def test_the_body_of_a_denial_may_be_anything_like_bytes(body: bytes | bytearray | memoryview) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(deny(404))
        await send(denial(body, more=True))
        await send({"type": "websocket.http.response.body"})

    async with session_to(app) as session, session.get("/", headers=handshake()) as response:
        assert response.status == 404
        assert await response.read() == b"abc"


# Apps that end in a wrong way.


@pytest.mark.parametrize("reads", [True, False])
async def test_an_app_that_returns_before_its_handshake_is_an_error(
    reads: bool, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if reads:
            await receive()

    async with session_to(app) as session:
        with pytest.raises(ASGIProtocolError) as caught:
            await session.ws_connect("/a")
        sentence = "ASGI callable returned without sending handshake. (GET ws://app.internal/a)"
        assert str(caught.value) == sentence
    assert_unseen(reports, caplog)

    async with session_to(app, raise_app_exceptions=False) as session:
        with pytest.raises(WSServerHandshakeError) as refused:
            await session.ws_connect("/a")
        denied(refused, 500)
    (record,) = records(caplog)
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == sentence
    assert not reports.all


@pytest.mark.parametrize("messages", [[deny(404)], [deny(404), denial(b"a", more=True)]], ids=["head", "body"])
async def test_an_app_that_returns_within_a_denial_is_an_error(
    messages: list[Message], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for each in messages:
            await send(each)

    async with session_to(app) as session:
        with pytest.raises(ASGIProtocolError) as caught:
            await session.ws_connect("/a")
        assert str(caught.value) == ("ASGI callable returned without completing response. (GET ws://app.internal/a)")
    assert_unseen(reports, caplog)


@pytest.mark.parametrize("result", [0, False, "", "something", [], object], ids=repr)
@pytest.mark.parametrize(
    "messages",
    [[], [accept(), message("text")], [accept(), close(code=4000)], [close()], [deny(403), denial()]],
    ids=["nothing", "open", "closed", "refused", "denied"],
)
async def test_an_app_that_returns_something_is_an_error(
    result: Any, messages: list[Message], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> Any:
        await receive()
        for each in messages:
            await send(each)
        return result

    exc: BaseException | None
    async with session_to(app) as session:
        if not messages:
            with pytest.raises(ASGIProtocolError) as caught:
                await session.ws_connect("/")
            exc = caught.value
            assert_unseen(reports, caplog)
        else:
            if messages[0] != accept():
                with pytest.raises(WSServerHandshakeError) as refused:
                    await session.ws_connect("/")
                denied(refused, 403)
                exc = (await reports.one())["exception"]
            elif messages[-1] == message("text"):
                _, exc = await until_it_fails(await session.ws_connect("/"))
            else:
                ws = await session.ws_connect("/")
                assert (await ws.receive()).data == 4000
                assert ws.exception() is None
                exc = (await reports.one())["exception"]
            assert exc is not None
            assert_reported(reports, caplog, exc)
        assert type(exc) is ASGIProtocolError
        assert str(exc) == f"ASGI callable should return None, but returned '{result}'. (GET ws://app.internal/)"


# Frameworks.


async def fail_at_once(websocket: WebSocket) -> None:
    raise OfTheApp("at once")


async def fail_when_accepted(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("text")
    raise OfTheApp("when accepted")


async def policy_at_once(websocket: WebSocket) -> None:
    raise WebSocketException(1008, "policy")


async def policy_when_accepted(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("text")
    raise WebSocketException(1008, "policy")


async def http_exception(websocket: WebSocket) -> None:
    raise HTTPException(401)


async def close_twice(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close(4000, "bye")
    await websocket.close()


async def deny_politely(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("no", 429, {"Retry-After": "7"}))


async def return_at_once(websocket: WebSocket) -> None:
    pass


async def return_when_accepted(websocket: WebSocket) -> None:
    await websocket.accept()


ENDPOINTS: list[Callable[[WebSocket], Awaitable[None]]] = [
    fail_at_once,
    fail_when_accepted,
    policy_at_once,
    policy_when_accepted,
    http_exception,
    close_twice,
    deny_politely,
    return_at_once,
    return_when_accepted,
]


def starlette_app() -> Starlette:
    return Starlette(routes=[WebSocketRoute(f"/{endpoint.__name__}", endpoint) for endpoint in ENDPOINTS])


def fastapi_app() -> FastAPI:
    app = FastAPI()
    for endpoint in ENDPOINTS:
        app.websocket(f"/{endpoint.__name__}")(endpoint)
    return app


frameworks = pytest.mark.parametrize("framework", [starlette_app, fastapi_app])


@frameworks
async def test_an_endpoint_that_fails_at_once_is_raised_from_ws_connect(
    framework: Callable[[], Starlette], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async with session_to(framework()) as session:
        with pytest.raises(OfTheApp, match="at once") as caught:
            await session.ws_connect("/fail_at_once")
        assert "fail_at_once" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert_unseen(reports, caplog)


@frameworks
async def test_an_endpoint_that_fails_when_accepted_is_received_as_an_error(
    framework: Callable[[], Starlette], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async with session_to(framework()) as session:
        contents, raised = await until_it_fails(await session.ws_connect("/fail_when_accepted"))
        assert contents == ["text"]
        assert isinstance(raised, OfTheApp)
        assert raised.args == ("when accepted",)
        assert "fail_when_accepted" in [frame.name for frame in traceback.extract_tb(raised.__traceback__)]
    assert_reported(reports, caplog, raised, "ws://app.internal/fail_when_accepted")


@frameworks
async def test_a_websocketexception_is_a_refusal_before_the_accept_and_a_code_after_it(
    framework: Callable[[], Starlette], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async with session_to(framework()) as session:
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect("/policy_at_once")
        denied(caught, 403)
        ws = await session.ws_connect("/policy_when_accepted")
        assert await ws.receive_str() == "text"
        received = await ws.receive()
        assert (received.type, received.data, received.extra) == (WSMsgType.CLOSE, 1008, "policy")
    assert_unseen(reports, caplog)


@frameworks
async def test_an_httpexception_is_a_denial(
    framework: Callable[[], Starlette], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async with session_to(framework()) as session:
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect("/http_exception")
        denied(caught, 401)
    assert_unseen(reports, caplog)


@frameworks
async def test_a_path_that_is_not_there_is_refused(
    framework: Callable[[], Starlette], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async with session_to(framework()) as session:
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect("/no/such/path")
        denied(caught, 403)
    assert_unseen(reports, caplog)


@frameworks
async def test_closing_twice_is_what_the_framework_raises(
    framework: Callable[[], Starlette], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async with session_to(framework()) as session:
        ws = await session.ws_connect("/close_twice")
        received = await ws.receive()
        assert (received.type, received.data, received.extra) == (WSMsgType.CLOSE, 4000, "bye")
        exc = (await reports.one())["exception"]
        assert isinstance(exc, RuntimeError)
        assert "once a close message has been sent" in str(exc)
    assert_reported(reports, caplog, exc, "ws://app.internal/close_twice")


@frameworks
async def test_a_denial_response_is_what_the_client_is_told(
    framework: Callable[[], Starlette], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async with session_to(framework()) as session:
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect("/deny_politely")
        denied(caught, 429)
        assert caught.value.headers is not None
        assert caught.value.headers["Retry-After"] == "7"
        async with session.get("/deny_politely", headers=handshake()) as response:
            assert await response.text() == "no"
    assert_unseen(reports, caplog)


@frameworks
async def test_an_endpoint_that_returns_closes_or_has_forgotten_its_handshake(
    framework: Callable[[], Starlette], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async with session_to(framework()) as session:
        ws = await session.ws_connect("/return_when_accepted")
        received = await ws.receive()
        assert (received.type, received.data, received.extra) == (WSMsgType.CLOSE, 1000, "")
        with pytest.raises(ASGIProtocolError, match="ASGI callable returned without sending handshake"):
            await session.ws_connect("/return_at_once")
    assert_unseen(reports, caplog)


async def refuse_the_token(websocket: WebSocket, token: str) -> None:
    if token == "bad":
        raise WebSocketException(1008, "a bad token")
    if token == "error":
        raise OfTheApp(token)


async def test_a_dependency_of_fastapi_may_refuse_or_fail(reports: Reports, caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()

    @app.websocket("/{number}", dependencies=[Depends(refuse_the_token)])
    async def endpoint(websocket: WebSocket, number: int) -> None:
        await websocket.accept()
        await websocket.send_json(number)

    async with session_to(app) as session:
        async with session.ws_connect("/7?token=good") as ws:
            assert await ws.receive_json() == 7
        for url in ("/7?token=bad", "/seven?token=good", "/7"):
            with pytest.raises(WSServerHandshakeError) as caught:
                await session.ws_connect(url)
            denied(caught, 403)
        with pytest.raises(OfTheApp, match="error"):
            await session.ws_connect("/7?token=error")
    assert_unseen(reports, caplog)


async def test_a_dependency_of_fastapi_that_fails_while_it_cleans_up_is_reported(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()

    async def cleaning_up() -> AsyncIterator[None]:
        yield
        raise exc

    app = FastAPI()

    @app.websocket("/", dependencies=[Depends(cleaning_up)])
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4000)

    async with session_to(app) as session:
        ws = await session.ws_connect("/")
        assert (await ws.receive()).data == 4000
        assert (await reports.one())["exception"] is exc
    assert_reported(reports, caplog, exc)


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def test_an_exception_behind_a_denial_that_is_complete_by_its_framing_is_reported(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    may_fail = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
        await may_fail.wait()
        raise exc

    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(UPGRADE)
        status, _, body = await connection.response()
        assert (status, body) == (401, b"no")
        may_fail.set()
        await connection.end()
    assert [report["exception"] for report in reports.all] == [exc]
    assert [record.exc_info[1] for record in records(caplog) if record.exc_info] == [exc]


async def test_a_long_denial_waits_for_a_client_that_does_not_read_it() -> None:
    piece, pieces = bytes(64 * 1024), 40
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        for _ in range(pieces):
            await send({"type": "websocket.http.response.body", "body": piece, "more_body": True})
            sent += 1
        await send({"type": "websocket.http.response.body"})

    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(UPGRADE)
        _, _, body = await connection.head()
        await settle()
        assert 0 < sent < pieces
        assert await body.read() == piece * pieces
        await connection.end()
