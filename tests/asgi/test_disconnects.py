"""The client disconnects: what its app receives, what happens to its later calls, and what the next request gets."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, TypeVar

import aiohttp
import pytest
from aiohttp import ClientSession, ClientTimeout, TraceConfig
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from asgi_connector._types import ASGIApp, Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.reports import collect_reports
from tests.support.sessions import fetch
from tests.support.waiting import at_once, run_turns, settle

DISCONNECT = {"type": "http.disconnect"}
START = {"type": "http.response.start", "status": 200, "headers": []}
CHUNK = {"type": "http.response.body", "body": b"chunk", "more_body": True}
LAST = {"type": "http.response.body", "body": b"last"}
SHORT = 0.05  # seconds until a client of these tests times out; no result depends on the number

ENOUGH = 100_000  # events that no client reads, far larger than any buffer

T = TypeVar("T")
Then = Callable[[Receive, Send], Awaitable[None]]


async def nothing(receive: Receive, send: Send) -> None:
    pass


class App:
    """Serves a request until its client has disconnected, and then does what the test wants. Only answers ``/next``."""

    def __init__(self, then: Then = nothing, *, answers: bool = False) -> None:
        self.then = then
        self.answers = answers
        self.started = asyncio.Event()
        self.told = asyncio.Event()
        self.ended = asyncio.Event()
        self.message: Message = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/next":
            await send(START)
            await send(LAST)
            return
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        if self.answers:
            await send(START)
            await send(CHUNK)
        self.started.set()
        self.message = await receive()
        self.told.set()
        try:
            await self.then(receive, send)
        finally:
            self.ended.set()


# The ways in which a client disconnects: before it has the head of the response, or in the middle of the body.

Leave = Callable[[ClientSession, asyncio.Event], Awaitable[None]]


async def timed_out_before_the_head(session: ClientSession, started: asyncio.Event) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await session.get("/", timeout=ClientTimeout(total=SHORT))


async def read_timed_out_before_the_head(session: ClientSession, started: asyncio.Event) -> None:
    with pytest.raises(aiohttp.ServerTimeoutError):
        await session.get("/", timeout=ClientTimeout(sock_read=SHORT))


async def cancelled_before_the_head(session: ClientSession, started: asyncio.Event) -> None:
    task = asyncio.create_task(fetch(session, "/"))
    await started.wait()
    await cancel(task)


async def timed_out_in_the_body(session: ClientSession, started: asyncio.Event) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await fetch(session, "/", timeout=ClientTimeout(total=SHORT))


async def read_timed_out_in_the_body(session: ClientSession, started: asyncio.Event) -> None:
    with pytest.raises(aiohttp.ServerTimeoutError):
        await fetch(session, "/", timeout=ClientTimeout(sock_read=SHORT))


async def cancelled_in_the_body(session: ClientSession, started: asyncio.Event) -> None:
    reading = asyncio.Event()

    async def read() -> None:
        async with session.get("/") as response:
            assert await response.content.readany() == b"chunk"
            reading.set()
            await response.read()

    task = asyncio.create_task(read())
    await reading.wait()
    await cancel(task)


async def closed_the_response(session: ClientSession, started: asyncio.Event) -> None:
    response = await session.get("/")
    response.close()


async def released_the_response(session: ClientSession, started: asyncio.Event) -> None:
    response = await session.get("/")
    response.release()


async def left_the_block(session: ClientSession, started: asyncio.Event) -> None:
    async with session.get("/") as response:
        assert await response.content.readany() == b"chunk"


async def left_the_block_by_an_exception(session: ClientSession, started: asyncio.Event) -> None:
    with pytest.raises(KeyError):
        async with session.get("/"):
            raise KeyError


BEFORE_THE_HEAD: list[Leave] = [
    timed_out_before_the_head,
    read_timed_out_before_the_head,
    cancelled_before_the_head,
]
IN_THE_BODY: list[Leave] = [
    timed_out_in_the_body,
    read_timed_out_in_the_body,
    cancelled_in_the_body,
    closed_the_response,
    released_the_response,
    left_the_block,
    left_the_block_by_an_exception,
]
EVERY_WAY = BEFORE_THE_HEAD + IN_THE_BODY

in_every_way = pytest.mark.parametrize("leave", EVERY_WAY, ids=lambda leave: leave.__name__)
before_and_after_the_head = pytest.mark.parametrize(
    "leave", [cancelled_before_the_head, closed_the_response], ids=lambda leave: leave.__name__
)


async def cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Connections:
    """Counts the connections that a session makes, and those that it takes from the pool."""

    def __init__(self) -> None:
        self.created = 0
        self.reused = 0
        self.trace = TraceConfig()
        self.trace.on_connection_create_end.append(self._create)
        self.trace.on_connection_reuseconn.append(self._reuse)

    async def _create(self, *_: object) -> None:
        self.created += 1

    async def _reuse(self, *_: object) -> None:
        self.reused += 1


def own(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The package's own log records from WARNING on."""
    return [record for record in caplog.records if record.name == "asgi_connector"]


# What the app receives.


@in_every_way
async def test_an_app_is_told_that_its_client_has_gone_and_told_again_without_suspending(leave: Leave) -> None:
    again: list[Message] = []

    async def ask_again(receive: Receive, send: Send) -> None:
        again.extend(at_once(receive()) for _ in range(3))

    app = App(ask_again, answers=leave in IN_THE_BODY)
    async with session_to(app) as session:
        await leave(session, app.started)
        await app.ended.wait()
    assert app.message == DISCONNECT
    assert again == [DISCONNECT] * 3


@in_every_way
async def test_the_next_request_gets_a_new_connection_and_its_answer(leave: Leave) -> None:
    connections = Connections()
    app = App(answers=leave in IN_THE_BODY)
    # With a limit of one, a connection that is not released would make the next request wait forever.
    async with session_to(app, limit=1, session_trace_configs=[connections.trace]) as session:
        assert await fetch(session, "/next") == b"last"
        await leave(session, app.started)
        assert await fetch(session, "/next") == b"last"
        await app.ended.wait()
        assert await fetch(session, "/next") == b"last"
    assert app.message == DISCONNECT
    assert (connections.created, connections.reused) == (2, 2)


async def test_every_receive_that_waits_is_woken() -> None:
    messages: list[Message] = []
    waiting = asyncio.Event()
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_awaited(receive())) for _ in range(3)]
            await run_turns(20)
            waiting.set()
        messages.extend(task.result() for task in tasks)
        ended.set()

    async with session_to(app) as session:
        await cancelled_before_the_head(session, waiting)
        await ended.wait()
    assert messages == [DISCONNECT] * 3


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def test_an_app_that_asks_only_later_is_told_at_once() -> None:
    messages: list[Message] = []
    started, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await go.wait()
        messages.extend(at_once(receive()) for _ in range(2))
        ended.set()

    async with session_to(app) as session:
        await cancelled_before_the_head(session, started)
        await settle()
        go.set()
        await ended.wait()
    assert messages == [DISCONNECT] * 2  # not the request: the app has read nothing of it


async def test_after_the_response_an_app_is_told_that_its_client_has_gone() -> None:
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await send(START)
        await send(LAST)
        messages.extend(at_once(receive()) for _ in range(2))
        messages.append(await waiting)

    async with session_to(app) as session:
        assert await fetch(session, "/") == b"last"
    assert messages == [DISCONNECT] * 3


# What the app still does.


@in_every_way
async def test_what_an_app_sends_to_nobody_does_nothing(leave: Leave, caplog: pytest.LogCaptureFixture) -> None:
    """The message is not even checked, as in uvicorn. So an app commits or rolls back as in production."""
    returned: list[object] = []

    async def send_on(receive: Receive, send: Send) -> None:
        for message in (START, CHUNK, START, LAST, LAST, CHUNK, {"type": "nonsense"}, {}):
            result = await send(message)  # type: ignore[func-returns-value] # that it returns nothing is tested
            returned.append(result)

    reports = collect_reports()
    app = App(send_on, answers=leave in IN_THE_BODY)
    async with session_to(app) as session:
        await leave(session, app.started)
        await app.ended.wait()
        assert await fetch(session, "/next") == b"last"
    assert returned == [None] * 8
    assert own(caplog) == []
    assert reports == []


@before_and_after_the_head
async def test_an_app_that_sends_to_nobody_without_end_starves_nobody(leave: Leave) -> None:
    stop = asyncio.Event()

    async def send_on(receive: Receive, send: Send) -> None:
        while not stop.is_set():
            await send(CHUNK)

    app = App(send_on, answers=leave in IN_THE_BODY)
    async with session_to(app) as session:
        await leave(session, app.started)
        await app.told.wait()
        assert await fetch(session, "/next") == b"last"
        assert not app.ended.is_set()
        stop.set()
        await app.ended.wait()


@pytest.mark.parametrize("answers", [False, True], ids=["before the head", "in the body"])
async def test_an_app_that_sends_in_the_turn_in_which_its_client_leaves_gives_way_to_the_loop(answers: bool) -> None:
    """In this turn neither end knows it yet, and the bytes that are sent no longer count for the marks."""
    gave_way: list[bool] = []
    started, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if answers:
            await send(START)
        started.set()
        await go.wait()
        others = asyncio.Event()
        asyncio.get_running_loop().call_soon(others.set)
        if not answers:
            await send(START)
        for _ in range(100_000):
            await send(CHUNK)
            if others.is_set():
                break
        gave_way.append(others.is_set())
        ended.set()

    async with session_to(app) as session:
        task = asyncio.create_task(fetch(session, "/"))
        await started.wait()
        await settle()
        task.cancel()  # the client's next step comes first, and the app's right after it
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended.wait()
    assert gave_way == [True]


async def test_a_commit_and_a_clean_up_run_after_the_client_has_gone() -> None:
    journal: list[str] = []
    ended = asyncio.Event()
    started = asyncio.Event()
    go = asyncio.Event()

    async def transaction() -> AsyncIterator[list[str]]:
        journal.append("begin")
        try:
            yield journal
        except BaseException:
            journal.append("rollback")
            raise
        else:
            journal.append("commit")
        finally:
            await asyncio.sleep(0)
            journal.append("clean up")
            ended.set()

    app = FastAPI()

    @app.get("/")
    async def order(rows: Annotated[list[str], Depends(transaction)]) -> dict[str, int]:
        started.set()
        await go.wait()
        rows.append("work")
        return {"rows": len(rows)}

    async with session_to(app) as session:
        await cancelled_before_the_head(session, started)
        await settle()
        go.set()
        await ended.wait()
    assert journal == ["begin", "work", "commit", "clean up"]


@before_and_after_the_head
async def test_an_app_that_takes_no_notice_is_not_cancelled(leave: Leave, caplog: pytest.LogCaptureFixture) -> None:
    go, ended = asyncio.Event(), asyncio.Event()
    cancelling: list[int] = []

    async def go_on(receive: Receive, send: Send) -> None:
        await go.wait()
        await send(LAST)
        task = asyncio.current_task()
        assert task is not None
        cancelling.append(task.cancelling())
        ended.set()

    app = App(go_on, answers=leave in IN_THE_BODY)
    async with session_to(app) as session:
        await leave(session, app.started)
        await app.told.wait()
        await settle()
        assert not app.ended.is_set()
        go.set()
        await ended.wait()
    assert cancelling == [0]
    assert own(caplog) == []


@before_and_after_the_head
@pytest.mark.parametrize("raise_app_exceptions", [True, False])
@pytest.mark.parametrize(
    "error",
    [RuntimeError("late"), OSError(5, "late"), TimeoutError("late"), pytest.fail.Exception("late")],
    ids=lambda error: type(error).__name__,
)
async def test_what_an_app_raises_after_its_client_has_gone_is_logged_and_goes_nowhere_else(
    leave: Leave, raise_app_exceptions: bool, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(receive: Receive, send: Send) -> None:
        raise error

    reports = collect_reports()
    app = App(fail, answers=leave in IN_THE_BODY)
    async with session_to(app, raise_app_exceptions=raise_app_exceptions) as session:
        await leave(session, app.started)
        await app.ended.wait()
        await settle()
        assert await fetch(session, "/next") == b"last"
    [record] = own(caplog)
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert "GET http://app.internal/" in record.getMessage()
    assert reports == []


@pytest.mark.parametrize("raise_app_exceptions", [True, False])
@pytest.mark.parametrize("sent", [0, 1, 2], ids=["before the head", "after the head", "in the body"])
async def test_what_an_app_raises_in_the_turn_in_which_its_client_leaves_is_logged_and_goes_nowhere_else(
    raise_app_exceptions: bool, sent: int, caplog: pytest.LogCaptureFixture
) -> None:
    error = RuntimeError("at the same time")
    started, go = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (START, CHUNK)[:sent]:
            await send(message)
        started.set()
        await go.wait()
        raise error

    reports = collect_reports()
    async with session_to(app, raise_app_exceptions=raise_app_exceptions) as session:
        task = asyncio.create_task(fetch(session, "/"))
        await started.wait()
        await settle()
        task.cancel()  # the client's next step comes first, and the app's right after it
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settle()
    [record] = own(caplog)
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert reports == []


@pytest.mark.parametrize("sent", [0, 1, 2], ids=["before the head", "after the head", "in the body"])
async def test_an_app_that_just_returns_in_the_turn_in_which_its_client_leaves_has_done_nothing_wrong(
    sent: int, caplog: pytest.LogCaptureFixture
) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (START, CHUNK)[:sent]:
            await send(message)
        started.set()
        await go.wait()

    reports = collect_reports()
    async with session_to(app) as session:
        task = asyncio.create_task(fetch(session, "/"))
        await started.wait()
        await settle()
        task.cancel()  # the client's next step comes first, and the app's right after it
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settle()
    assert own(caplog) == []
    assert reports == []


@before_and_after_the_head
async def test_an_app_that_just_returns_after_its_client_has_gone_has_done_nothing_wrong(
    leave: Leave, caplog: pytest.LogCaptureFixture
) -> None:
    reports = collect_reports()
    app = App(answers=leave in IN_THE_BODY)
    async with session_to(app) as session:
        await leave(session, app.started)
        await app.ended.wait()
    assert own(caplog) == []
    assert reports == []


@pytest.mark.parametrize("fails", [False, True])
async def test_a_client_may_leave_while_a_503_is_held_back_for_an_exception(
    fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = RuntimeError("late")
    started, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/next":
            await send(START)
            await send(LAST)
            return
        await send({**START, "status": 503})
        await send(LAST)
        started.set()
        await go.wait()
        ended.set()
        if fails:
            raise error

    reports = collect_reports()
    async with session_to(app) as session:
        await cancelled_before_the_head(session, started)
        await settle()
        go.set()
        await ended.wait()
        await settle()  # longer than anything is held back
        assert await fetch(session, "/next") == b"last"
    assert [record.exc_info[1] for record in own(caplog) if record.exc_info] == ([error] if fails else [])
    assert reports == []


# Frameworks.


@pytest.fixture(params=[0, 1], ids=["plain", "behind a middleware"])
def middleware(request: pytest.FixtureRequest) -> list[Middleware]:
    async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)

    return [Middleware(BaseHTTPMiddleware, dispatch=pass_on)] * request.param


def starlette(endpoint: Callable[[Request], Awaitable[Response]], middleware: list[Middleware]) -> ASGIApp:
    return Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])], middleware=middleware)


@pytest.mark.parametrize("pause", [True, False], ids=["yielding to the loop", "as fast as it can"])
async def test_an_endless_event_stream_ends_when_its_client_leaves_after_three_events(
    middleware: list[Middleware], pause: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()
    sent = 0

    async def events() -> AsyncIterator[str]:
        nonlocal sent
        while sent < ENOUGH:
            yield f"data: {sent}\n\n"
            sent += 1
            if pause:
                await asyncio.sleep(0)

    async def stream(request: Request) -> Response:
        return StreamingResponse(events(), media_type="text/event-stream")

    inner = starlette(stream, middleware)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)
        ended.set()

    reports = collect_reports()
    async with session_to(app) as session:
        async with session.get("/") as response:
            assert response.content_type == "text/event-stream"
            for number in range(3):
                assert await response.content.readuntil(b"\n\n") == b"data: %d\n\n" % number
        await ended.wait()
        assert sent < ENOUGH
    assert own(caplog) == []
    assert reports == []


@pytest.mark.parametrize("events_before", [0, 1, 3])
async def test_the_generator_of_an_idle_stream_is_cancelled_when_its_client_leaves(
    middleware: list[Middleware], events_before: int, caplog: pytest.LogCaptureFixture
) -> None:
    journal: list[str] = []
    idle = asyncio.Event()
    ended = asyncio.Event()

    async def events() -> AsyncIterator[str]:
        for number in range(events_before):
            yield f"data: {number}\n\n"
        idle.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            journal.append("cancelled")
            raise
        finally:
            journal.append("closed")

    async def afterwards() -> None:
        journal.append("background task")
        ended.set()

    async def stream(request: Request) -> Response:
        return StreamingResponse(events(), background=BackgroundTask(afterwards))

    reports = collect_reports()
    async with session_to(starlette(stream, middleware)) as session:
        async with session.get("/") as response:
            for number in range(events_before):
                assert await response.content.readuntil(b"\n\n") == b"data: %d\n\n" % number
            await idle.wait()
        await ended.wait()
    assert journal == ["cancelled", "closed", "background task"]
    assert own(caplog) == []
    assert reports == []


@pytest.mark.parametrize("leave", BEFORE_THE_HEAD, ids=lambda leave: leave.__name__)
async def test_an_endpoint_that_polls_is_disconnected_sees_it(leave: Leave) -> None:
    """Starlette polls with a receive() in a scope that is already cancelled. This receive() must not suspend.

    (Behind a `BaseHTTPMiddleware` Starlette never sees a disconnect, on any server.)
    """
    started, seen = asyncio.Event(), asyncio.Event()
    polls = 0

    async def poll(request: Request) -> Response:
        nonlocal polls
        while not await request.is_disconnected():
            polls += 1
            if polls == 10:
                started.set()
            await asyncio.sleep(0)
        seen.set()
        return PlainTextResponse("for nobody")

    async with session_to(starlette(poll, [])) as session:
        await leave(session, started)
        await seen.wait()
    assert polls >= 10


async def test_polling_is_disconnected_in_a_stream_ends_it() -> None:
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        assert await request.body() == b""
        await send(START)
        sent = 0
        while not await request.is_disconnected():
            await send(CHUNK)
            sent += 1
            await asyncio.sleep(0)
        assert sent
        ended.set()

    async with session_to(app) as session:
        async with session.get("/") as response:
            await response.content.readexactly(15)
        await ended.wait()


# Uploads.


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(64 * 1024)


UPLOADS: dict[str, Callable[[], Any]] = {
    "an endless generator": endless,
    "bytes": lambda: bytes(10 * 1024 * 1024),
    "a file": lambda: io.BytesIO(bytes(10 * 1024 * 1024)),
}
every_upload = pytest.mark.parametrize("make", UPLOADS.values(), ids=UPLOADS)


@every_upload
@pytest.mark.parametrize("reads", [False, True], ids=["nothing read", "one piece read"])
@pytest.mark.filterwarnings("ignore:Sending a large body directly with raw bytes:ResourceWarning")
async def test_a_client_may_leave_an_upload_that_its_app_does_not_read(make: Callable[[], Any], reads: bool) -> None:
    messages: list[Message] = []
    started, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if reads:
            assert (await receive())["more_body"]
        started.set()
        await go.wait()
        messages.append(at_once(receive()))
        ended.set()

    async with session_to(app) as session:
        task = asyncio.create_task(fetch(session, "/", method="POST", data=make()))
        await started.wait()
        await settle()  # until the client can write no more
        await cancel(task)
        await settle()
        go.set()
        await ended.wait()
    assert messages == [DISCONNECT]  # and not the part of the body that has arrived


@every_upload
@pytest.mark.filterwarnings("ignore:Sending a large body directly with raw bytes:ResourceWarning")
async def test_a_session_can_close_in_the_middle_of_an_upload_that_its_app_does_not_read(
    make: Callable[[], Any],
) -> None:
    started, told = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        while await receive() != DISCONNECT:
            await told.wait()  # reads at most one piece, and then no more
        told.set()

    async with session_to(app, shutdown_timeout=0) as session:
        task = asyncio.create_task(fetch(session, "/", method="POST", data=make()))
        await started.wait()
        await settle()
    with pytest.raises(aiohttp.ClientError):
        await task


async def test_a_client_may_close_a_response_while_its_upload_is_not_read() -> None:
    started, ended = asyncio.Event(), asyncio.Event()
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(CHUNK)
        started.set()
        await go.wait()
        assert at_once(receive()) == DISCONNECT
        ended.set()

    async with session_to(app) as session:
        response = await session.post("/", data=endless())
        await settle()
        response.close()
        await settle()
        go.set()
        await ended.wait()


class UploadError(Exception):
    pass


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "1000"}], ids=["chunked", "content-length"])
@pytest.mark.parametrize("how", ["cancelled", "the generator raised"])
async def test_an_upload_that_is_cut_off_never_passes_for_whole(headers: dict[str, str], how: str) -> None:
    messages: list[Message] = []
    got, ended, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not messages or messages[-1]["type"] == "http.request":
            messages.append(await receive())
            got.set()
        ended.set()

    async def half() -> AsyncIterator[bytes]:
        yield b"half of it"
        await go.wait()
        raise UploadError

    async with session_to(app) as session:
        task = asyncio.create_task(fetch(session, "/", method="POST", data=half(), headers=headers))
        await got.wait()
        if how == "cancelled":
            await cancel(task)
        else:
            go.set()
            with pytest.raises(aiohttp.ClientConnectionError):
                await task
        await ended.wait()
    assert messages == [{"type": "http.request", "body": b"half of it", "more_body": True}, DISCONNECT]


async def test_a_framework_that_reads_an_upload_that_is_cut_off_gets_its_own_exception(
    middleware: list[Middleware], caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[BaseException] = []
    started, ended = asyncio.Event(), asyncio.Event()

    async def upload(request: Request) -> Response:
        started.set()
        try:
            await request.body()
        except ClientDisconnect as exc:
            raised.append(exc)
            raise
        finally:
            ended.set()
        return PlainTextResponse("whole")

    async def half() -> AsyncIterator[bytes]:
        yield b"half of it"
        await asyncio.Event().wait()

    reports = collect_reports()
    async with session_to(starlette(upload, middleware)) as session:
        task = asyncio.create_task(fetch(session, "/", method="POST", data=half()))
        await started.wait()
        await settle()
        await cancel(task)
        await ended.wait()
        await settle()
    assert len(raised) == 1
    assert [record.exc_info[1] for record in own(caplog) if record.exc_info] == raised
    assert reports == []


async def test_a_client_may_leave_while_it_waits_to_be_told_to_continue() -> None:
    messages: list[Message] = []
    started, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await go.wait()
        messages.append(at_once(receive()))
        ended.set()

    async with session_to(app) as session:
        task = asyncio.create_task(fetch(session, "/", method="POST", data=b"x", expect100=True))
        await started.wait()
        await cancel(task)
        await settle()
        go.set()
        await ended.wait()
    assert messages == [DISCONNECT]


# Many requests at the same time.


async def test_a_client_that_leaves_disturbs_no_other_on_the_same_session() -> None:
    """One in three of a hundred requests is abandoned, each at a different time. The others get their own answers."""
    started: list[int] = []
    told: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        number = int(scope["path"][1:])
        started.append(number)
        await receive()
        await send(START)
        for _ in range(number % 7):
            await send(CHUNK)
            await asyncio.sleep(0)
        if number % 3 == 0:
            assert await receive() == DISCONNECT
            told.append(number)
        await send({"type": "http.response.body", "body": b"%d" % number})

    async with session_to(app) as session:
        tasks = [asyncio.create_task(fetch(session, f"/{number}")) for number in range(100)]
        for number, task in enumerate(tasks):
            if number % 3 == 0:
                await run_turns(number % 5)
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            if number % 3 == 0:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result == b"chunk" * (number % 7) + b"%d" % number
        await settle()
    leavers = {number for number in started if number % 3 == 0}
    assert leavers
    assert set(told) == leavers
