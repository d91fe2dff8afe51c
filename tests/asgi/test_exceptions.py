"""What happens to an app's exception, and to an app that breaks the protocol."""

import asyncio
import errno
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientOSError, HttpVersion10, HttpVersion11, ServerDisconnectedError
from aiohttp.http_exceptions import BadStatusLine
from aiohttp.streams import EofStream
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from asgi_connector import ASGIConnectorError, ASGIProtocolError, ASGIRoutingConnector
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import LOOPS, session_to
from tests.support.failures import OfTheApp, a_turn_later, base_group, cancel_itself, group, raise_cancelled
from tests.support.messages import body, start
from tests.support.raw import raw_connection
from tests.support.reports import Reports, assert_logged, records
from tests.support.waiting import run_turns, until

LENGTH_3 = [(b"content-length", b"3")]


async def answer_ok(send: Send) -> None:
    await send(start(200, [(b"content-length", b"2")]))
    await send(body(b"ok"))


async def assert_goes_on(session: aiohttp.ClientSession) -> None:
    """The next request of the session succeeds."""
    async with session.get("/ok") as response:
        assert response.status == 200
        assert await response.read() == b"ok"


class Failing:
    """Answers ``/ok``. For any other path it counts a run, does what the test wants, and raises."""

    def __init__(self, exc: BaseException, before: Callable[[Receive, Send], Awaitable[None]] | None = None) -> None:
        self.exc = exc
        self.before = before
        self.runs = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/ok":
            return await answer_ok(send)
        self.runs += 1
        if self.before is not None:
            await self.before(receive, send)
        return self.raise_it()

    def raise_it(self) -> None:
        raise self.exc


# Whatever reads a body takes these for its end.
ENDS_OF_ITERATIONS: list[Callable[[], BaseException]] = [EofStream, StopAsyncIteration]

# Neither aiohttp nor the package replaces these when a request raises them.
UNCHANGED: list[Callable[[], BaseException]] = [
    OfTheApp,
    ValueError,
    KeyError,
    AssertionError,
    RecursionError,
    *ENDS_OF_ITERATIONS,
    GeneratorExit,
    group,
    base_group,
    TimeoutError,
    asyncio.QueueEmpty,
    asyncio.InvalidStateError,
    lambda: asyncio.IncompleteReadError(b"", 1),
    aiohttp.ClientError,
    aiohttp.ClientPayloadError,
    aiohttp.ClientConnectionError,
    aiohttp.ServerTimeoutError,
    aiohttp.ConnectionTimeoutError,
    lambda: aiohttp.ClientConnectionResetError("Cannot write to closing transport"),
    ASGIConnectorError,
    lambda: pytest.fail.Exception("failed on purpose"),
    lambda: pytest.skip.Exception("skipped on purpose"),
]

# aiohttp turns every OSError of its connection into a ClientOSError.
OS_ERRORS: list[Callable[[], BaseException]] = [
    OSError,
    lambda: OSError("just words"),
    lambda: FileNotFoundError(errno.ENOENT, "No such file", "settings.toml"),
    lambda: PermissionError(errno.EACCES, "Denied"),
    lambda: ConnectionResetError(errno.ECONNRESET, "Reset"),
    lambda: BrokenPipeError(errno.EPIPE, "Broken"),
    lambda: TimeoutError(errno.ETIMEDOUT, "Timed out"),
]

# aiohttp sends an idempotent request again if its connection raises one of these.
REPLAYED: list[Callable[[], BaseException]] = [
    ServerDisconnectedError,
    lambda: ServerDisconnectedError("in words"),
    lambda: ClientOSError(errno.EPIPE, "Broken"),
]


async def at_once(receive: Receive, send: Send) -> None:
    pass


async def after_reading(receive: Receive, send: Send) -> None:
    while (await receive())["more_body"]:
        pass


async def with_a_response_on_its_way(receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"never seen", more=True))


async def with_a_large_response_on_its_way(receive: Receive, send: Send) -> None:
    await a_turn_later(receive, send)
    await send(start(200, [(b"x-large", b"x" * 4000)] * 20))


async def after_a_500(receive: Receive, send: Send) -> None:
    await send(start(500))
    await send(body(b"Internal Server Error"))


async def after_a_500_and_some_turns(receive: Receive, send: Send) -> None:
    await after_a_500(receive, send)
    await run_turns(102)


async def amid_a_500(receive: Receive, send: Send) -> None:
    await send(start(500))
    await asyncio.sleep(0)
    await send(body(b"Internal", more=True))
    await asyncio.sleep(0)


BEFORE_HEAD = [
    at_once,
    a_turn_later,
    after_reading,
    with_a_response_on_its_way,
    with_a_large_response_on_its_way,
    after_a_500,
    after_a_500_and_some_turns,
    amid_a_500,
]

REQUESTS = [("GET", None), ("HEAD", None), ("POST", b"data"), ("PUT", b"x" * 1_000_000)]


@pytest.mark.parametrize("make", UNCHANGED)
async def test_the_same_exception_comes_out_of_the_request(
    make: Callable[[], BaseException], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = make()
    cause = exc.__cause__
    app = Failing(exc)
    async with session_to(app) as session:
        with pytest.raises(type(exc)) as caught:
            await session.get("/")
        assert caught.value is exc
        assert exc.__cause__ is cause
        assert "raise_it" in [frame.name for frame in traceback.extract_tb(exc.__traceback__)]
        await assert_goes_on(session)
    assert app.runs == 1
    # The call has raised it, so it is not reported a second time.
    assert not reports.all
    assert not records(caplog)


@pytest.mark.parametrize("before", BEFORE_HEAD)
@pytest.mark.parametrize("version", [HttpVersion11, HttpVersion10])
async def test_it_comes_out_of_the_request_whenever_it_is_raised_before_the_response_has_left(
    before: Callable[[Receive, Send], Awaitable[None]],
    version: aiohttp.HttpVersion,
    reports: Reports,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exc = OfTheApp()
    app = Failing(exc, before)
    async with session_to(app, session_version=version) as session:
        for method, data in REQUESTS:
            await assert_goes_on(session)
            with pytest.raises(OfTheApp) as caught:
                await session.request(method, "/", data=data)
            assert caught.value is exc
        await assert_goes_on(session)
    assert app.runs == len(REQUESTS)
    assert not reports.all
    assert not records(caplog)


@pytest.mark.parametrize("make", OS_ERRORS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_oserror_is_the_cause_of_what_aiohttp_makes_of_it(
    make: Callable[[], BaseException], method: str
) -> None:
    exc = make()
    app = Failing(exc)
    async with session_to(app) as session:
        with pytest.raises(ClientOSError) as caught:
            await session.request(method, "/")
        assert caught.value.__cause__ is exc
        assert caught.value.args == exc.args
        await assert_goes_on(session)
    assert app.runs == 1


async def test_an_http_error_of_aiohttp_is_the_cause_of_what_aiohttp_makes_of_it() -> None:
    exc = BadStatusLine("of another server")
    async with session_to(Failing(exc)) as session:
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            await session.get("/")
        assert caught.value.__cause__ is exc
        await assert_goes_on(session)


async def test_an_exception_passes_through_a_chain_of_services() -> None:
    exc = OfTheApp()

    async with session_to({}) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)

        connector.mount("0.internal", Failing(exc))
        for number in range(1, 4):

            async def relay(scope: Scope, receive: Receive, send: Send, number: int = number) -> None:
                async with session.get(f"http://{number - 1}.internal/"):
                    pass

            connector.mount(f"{number}.internal", relay)
        with pytest.raises(OfTheApp) as caught:
            await session.get("http://3.internal/")
        assert caught.value is exc


async def await_something_cancelled() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel("of the app's own")
    await future


@pytest.mark.parametrize("cancelled", [raise_cancelled, cancel_itself, await_something_cancelled])
@pytest.mark.parametrize("later", [False, True])
async def test_a_cancelled_app_does_not_cancel_its_client(
    cancelled: Callable[[], Awaitable[None]], later: bool
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/ok":
            return await answer_ok(send)
        if later:
            await asyncio.sleep(0)
        await cancelled()
        return None

    async with session_to(app) as session:
        with pytest.raises(ASGIConnectorError, match=r"GET http://app\.internal/") as caught:
            await session.get("/")
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert caught.value.__cause__.args == ("of the app's own",)
        await assert_goes_on(session)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


# Frameworks.


def add_ok(app: FastAPI) -> FastAPI:
    @app.get("/ok")
    async def ok() -> Response:
        return Response("ok")

    return app


def add_middlewares(app: FastAPI, number: int) -> None:
    for _ in range(number):

        @app.middleware("http")
        async def passing(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
            return await call_next(request)


def unhandled(exc: Exception, *, middlewares: int = 0, mounted: bool = False) -> FastAPI:
    """A FastAPI app with an endpoint that raises *exc*, in the app itself or in a mounted sub-app."""
    app = add_ok(FastAPI())
    inner = FastAPI() if mounted else app

    @inner.get("/fail")
    async def fail() -> None:
        raise exc

    @inner.get("/fail-in-a-thread")
    def fail_in_a_thread() -> None:
        raise exc

    @inner.get("/503")
    async def unavailable() -> None:
        raise HTTPException(503, "on purpose")

    if mounted:
        add_middlewares(inner, middlewares)
        app.mount("/sub", inner)
    add_middlewares(app, middlewares)
    return app


@pytest.mark.parametrize("middlewares", [0, 1, 3, 16])
@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize("path", ["/fail", "/fail-in-a-thread"])
async def test_an_unhandled_error_of_fastapi_is_raised_and_not_its_500(
    middlewares: int, mounted: bool, path: str, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    if mounted and middlewares == 16:
        middlewares = 8  # there are as many in the sub-app
    exc = OfTheApp()
    async with session_to(unhandled(exc, middlewares=middlewares, mounted=mounted)) as session:
        for _ in range(2):
            with pytest.raises(OfTheApp) as caught:
                await session.get(f"/sub{path}" if mounted else path)
            assert caught.value is exc
            await assert_goes_on(session)
    assert not reports.all
    assert not records(caplog)


@pytest.mark.parametrize("middlewares", [0, 3])
@pytest.mark.parametrize("mounted", [False, True])
async def test_without_raising_an_unhandled_error_of_fastapi_is_its_500(middlewares: int, mounted: bool) -> None:
    app = unhandled(OfTheApp(), middlewares=middlewares, mounted=mounted)
    async with session_to(app, raise_app_exceptions=False) as session:
        async with session.get("/sub/fail" if mounted else "/fail") as response:
            assert response.status == 500
            assert await response.read() == b"Internal Server Error"
        await assert_goes_on(session)


@pytest.mark.parametrize("middlewares", [0, 3])
@pytest.mark.parametrize("mounted", [False, True])
async def test_a_503_that_an_app_means_is_a_503(middlewares: int, mounted: bool) -> None:
    app = unhandled(OfTheApp(), middlewares=middlewares, mounted=mounted)
    async with session_to(app) as session, session.get("/sub/503" if mounted else "/503") as response:
        assert response.status == 503
        assert await response.json() == {"detail": "on purpose"}


async def test_an_error_is_raised_also_where_the_app_answers_it_with_a_500_of_its_own() -> None:
    exc = OfTheApp()
    app = unhandled(exc, middlewares=3)

    @app.exception_handler(Exception)
    async def own_500(request: Request, problem: Exception) -> Response:
        return JSONResponse({"own": "500"}, 500)

    async with session_to(app) as session:
        with pytest.raises(OfTheApp) as caught:
            await session.get("/fail")
        assert caught.value is exc
    async with session_to(app, raise_app_exceptions=False) as session, session.get("/fail") as response:
        assert response.status == 500
        assert await response.json() == {"own": "500"}


async def test_an_error_that_an_app_handles_is_not_raised() -> None:
    app = unhandled(OfTheApp())

    @app.exception_handler(OfTheApp)
    async def handled(request: Request, problem: Exception) -> Response:
        return JSONResponse({"handled": "yes"}, 500)

    async with session_to(app) as session, session.get("/fail") as response:
        assert response.status == 500
        assert await response.json() == {"handled": "yes"}


def streaming(exc: Exception, gate: asyncio.Event, *, middlewares: int) -> FastAPI:
    app = add_ok(FastAPI())

    @app.get("/")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            await gate.wait()
            raise exc

        return StreamingResponse(pieces())

    add_middlewares(app, middlewares)
    return app


async def test_a_streaming_response_of_fastapi_that_fails_is_raised_from_reading_it() -> None:
    gate = asyncio.Event()
    exc = OfTheApp()
    async with session_to(streaming(exc, gate, middlewares=0)) as session:
        async with session.get("/") as response:
            assert await response.content.readany() == b"first"
            gate.set()
            with pytest.raises(OfTheApp) as caught:
                await response.read()
            assert caught.value is exc
        await assert_goes_on(session)


@pytest.mark.parametrize("middlewares", [1, 3])
async def test_a_stream_that_a_middleware_ends_before_it_raises_is_whole_and_reported(
    middlewares: int, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    """Starlette's BaseHTTPMiddleware completes the body, and only then raises the exception that cut it short."""
    gate = asyncio.Event()
    exc = OfTheApp()
    async with session_to(streaming(exc, gate, middlewares=middlewares)) as session:
        async with session.get("/") as response:
            assert await response.content.readany() == b"first"
            gate.set()
            assert await response.read() == b""
        assert (await reports.one())["exception"] is exc
        assert_logged(caplog, exc, "GET http://app.internal/")
        await assert_goes_on(session)


# Without raising: the same as uvicorn.


@pytest.mark.parametrize(
    "make", [OfTheApp, lambda: OSError("x"), asyncio.CancelledError, ServerDisconnectedError, group]
)
@pytest.mark.parametrize(("method", "before"), [("GET", at_once), ("HEAD", a_turn_later), ("POST", after_reading)])
async def test_without_raising_it_is_a_plain_500_and_logged(
    make: Callable[[], BaseException],
    method: str,
    before: Callable[[Receive, Send], Awaitable[None]],
    reports: Reports,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exc = make()
    app = Failing(exc, before)
    async with session_to(app, raise_app_exceptions=False) as session:
        async with session.request(method, "/a?b=c") as response:
            assert response.status == 500
            assert response.raw_headers == (
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"21"),
                (b"connection", b"close"),
            )
            assert await response.read() == (b"" if method == "HEAD" else b"Internal Server Error")
        assert_logged(caplog, exc, f"{method} http://app.internal/a?b=c")
        await assert_goes_on(session)
    assert app.runs == 1
    assert not reports.all


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"99")]])
async def test_without_raising_a_response_that_has_begun_is_cut_off(
    headers: list[tuple[bytes, bytes]], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()

    async def begin(receive: Receive, send: Send) -> None:
        await send(start(200, headers))
        await send(body(b"first", more=True))
        await gate.wait()

    exc = OfTheApp()
    async with session_to(Failing(exc, begin), raise_app_exceptions=False) as session:
        async with session.get("/") as response:
            assert response.status == 200
            assert await response.content.readany() == b"first"
            gate.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        assert_logged(caplog, exc, "GET http://app.internal/")
        await assert_goes_on(session)
    assert not reports.all


async def test_without_raising_a_500_is_not_held_back() -> None:
    gate = asyncio.Event()

    async def answer(receive: Receive, send: Send) -> None:
        await send(start(500, LENGTH_3))
        await send(body(b"own"))
        await gate.wait()

    turns = Turns()
    async with session_to(Failing(OfTheApp(), answer), raise_app_exceptions=False) as session:
        with turns:
            response = await session.get("/")
        assert await response.read() == b"own"
        assert turns.count < 20
        gate.set()


# In the middle of a body.

FRAMINGS = [
    pytest.param(HttpVersion11, [], id="chunked"),
    pytest.param(HttpVersion11, [(b"content-length", b"99")], id="content-length"),
    pytest.param(HttpVersion10, [], id="close-delimited"),
    pytest.param(HttpVersion10, [(b"content-length", b"99")], id="content-length-in-1.0"),
]


class FailingMidStream:
    """Sends a head and a first piece. It raises *exc* when the gate opens."""

    def __init__(self, exc: BaseException, headers: list[tuple[bytes, bytes]], *, last: bytes = b"") -> None:
        self.exc = exc
        self.headers = headers
        self.last = last
        self.gate = asyncio.Event()
        self.runs = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/ok":
            return await answer_ok(send)
        self.runs += 1
        await send(start(200, self.headers))
        await send(body(b"first\n", more=True))
        await self.gate.wait()
        if self.last:
            await send(body(self.last, more=True))
        raise self.exc


async def read(response: aiohttp.ClientResponse) -> object:
    return await response.read()


async def text(response: aiohttp.ClientResponse) -> object:
    return await response.text()


async def iterate_lines(response: aiohttp.ClientResponse) -> object:
    return [line async for line in response.content]


async def iterate_any(response: aiohttp.ClientResponse) -> object:
    return [piece async for piece in response.content.iter_any()]


async def iterate_chunks(response: aiohttp.ClientResponse) -> object:
    return [piece async for piece in response.content.iter_chunks()]


async def iterate_chunked(response: aiohttp.ClientResponse) -> object:
    return [piece async for piece in response.content.iter_chunked(4)]


async def read_exactly(response: aiohttp.ClientResponse) -> object:
    return await response.content.readexactly(99)


READERS = [read, text, iterate_lines, iterate_any, iterate_chunks, iterate_chunked, read_exactly]


@pytest.mark.parametrize(("version", "headers"), FRAMINGS)
@pytest.mark.parametrize("last", [b"", b"last"], ids=["alone", "behind-a-piece"])
@pytest.mark.parametrize("waiting", [True, False], ids=["reader-waits", "reader-comes-later"])
async def test_an_exception_in_mid_stream_comes_out_of_reading_the_body(
    version: aiohttp.HttpVersion,
    headers: list[tuple[bytes, bytes]],
    last: bytes,
    waiting: bool,
    reports: Reports,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exc = OfTheApp()
    app = FailingMidStream(exc, headers, last=last)
    async with session_to(app, session_version=version) as session:
        for reader in READERS:
            app.gate.clear()
            async with session.get("/") as response:
                assert response.status == 200
                assert await response.content.readline() == b"first\n"
                if waiting:
                    asyncio.get_running_loop().call_soon(app.gate.set)
                else:
                    app.gate.set()
                    await until(lambda: response.content.exception() is not None)
                with pytest.raises(OfTheApp) as caught:
                    await reader(response)
                assert caught.value is exc
            await assert_goes_on(session)
    assert app.runs == len(READERS)
    assert not reports.all
    assert not records(caplog)


@pytest.mark.parametrize(("version", "headers"), FRAMINGS)
async def test_any_exception_in_mid_stream_is_the_same_object(
    version: aiohttp.HttpVersion, headers: list[tuple[bytes, bytes]]
) -> None:
    for make in [*UNCHANGED, *OS_ERRORS, *REPLAYED]:
        if make in ENDS_OF_ITERATIONS:
            continue
        exc = make()
        app = FailingMidStream(exc, headers)
        async with session_to(app, session_version=version) as session:
            async with session.get("/") as response:
                app.gate.set()
                with pytest.raises(type(exc)) as caught:
                    await response.read()
                assert caught.value is exc
            await assert_goes_on(session)
        assert app.runs == 1


@pytest.mark.parametrize(("version", "headers"), FRAMINGS)
@pytest.mark.parametrize("make", [*ENDS_OF_ITERATIONS, asyncio.CancelledError])
async def test_what_would_end_an_iteration_or_cancel_the_reader_is_the_cause_of_an_error(
    version: aiohttp.HttpVersion, headers: list[tuple[bytes, bytes]], make: Callable[[], BaseException]
) -> None:
    exc = make()
    app = FailingMidStream(exc, headers)
    async with session_to(app, session_version=version) as session:
        for reader in READERS:
            app.gate.clear()
            async with session.get("/") as response:
                asyncio.get_running_loop().call_soon(app.gate.set)
                with pytest.raises(ASGIConnectorError) as caught:
                    await reader(response)
                assert caught.value.__cause__ is exc
            await assert_goes_on(session)


@pytest.mark.parametrize(("version", "headers"), FRAMINGS)
async def test_a_large_body_that_fails_is_never_taken_for_whole(
    version: aiohttp.HttpVersion, headers: list[tuple[bytes, bytes]]
) -> None:
    """More than fits into any buffer: it is read while it is sent, and the exception comes after it."""
    piece = b"x" * 100_000
    exc = OfTheApp()
    if headers:
        headers = [(b"content-length", b"%d" % (20 * len(piece) + 1))]

    async def send_much(receive: Receive, send: Send) -> None:
        await send(start(200, headers))
        for _ in range(20):
            await send(body(piece, more=True))

    async with session_to(Failing(exc, send_much), session_version=version) as session:
        async with session.get("/") as response:
            with pytest.raises(OfTheApp) as caught:
                await iterate_any(response)
            assert caught.value is exc
        await assert_goes_on(session)


# aiohttp sends a request again when it mistakes an exception for a broken connection.


@pytest.mark.parametrize("make", REPLAYED)
@pytest.mark.parametrize("before", BEFORE_HEAD)
async def test_an_exception_that_looks_like_a_broken_connection_runs_the_app_once(
    make: Callable[[], BaseException], before: Callable[[Receive, Send], Awaitable[None]]
) -> None:
    for total in (None, 30):
        exc = make()
        app = Failing(exc, before)
        runs = 0
        async with session_to(app, session_timeout=aiohttp.ClientTimeout(total=total)) as session:
            for method, data in REQUESTS * 2:  # on a new connection, and from the pool
                with pytest.raises(type(exc)) as caught:
                    await session.request(method, "/", data=data)
                assert caught.value is exc
                runs += 1
                assert app.runs == runs
                await assert_goes_on(session)


@pytest.mark.parametrize("make", REPLAYED)
async def test_it_runs_once_behind_a_redirect_too(make: Callable[[], BaseException]) -> None:
    exc = make()
    failing = Failing(exc)
    visits: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        visits.append(scope["path"])
        if scope["path"] == "/from":
            await send(start(307, [(b"location", b"/to"), (b"content-length", b"0")]))
            await send(body())
        else:
            await failing(scope, receive, send)

    async with session_to(app) as session:
        with pytest.raises(type(exc)) as caught:
            await session.get("/from")
        assert caught.value is exc
    assert visits == ["/from", "/to"]


@pytest.mark.parametrize("make", REPLAYED)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_next_request_of_the_same_task_runs_the_app_again(
    make: Callable[[], BaseException], method: str
) -> None:
    exc = make()
    app = Failing(exc)
    async with session_to(app) as session:
        for run in range(1, 6):
            with pytest.raises(type(exc)) as caught:
                await session.request(method, "/")
            assert caught.value is exc
            assert app.runs == run


@pytest.mark.parametrize("make", REPLAYED)
async def test_the_users_own_retry_in_a_loop_runs_the_app_again(make: Callable[[], BaseException]) -> None:
    app = FailsFirst(make())
    async with session_to(app) as session:
        tries = 0
        while True:
            tries += 1
            try:
                async with session.get("/") as response:
                    assert await response.read() == b"ok"
                break
            except (ServerDisconnectedError, ClientOSError) as exc:
                assert exc is app.exc  # noqa: PT017 (aiohttp decides in which try it is raised)
    assert (tries, app.runs) == (2, 2)


class FailsFirst:
    """Fails in its first run, and answers in the second."""

    def __init__(self, exc: BaseException) -> None:
        self.exc = exc
        self.runs = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.runs += 1
        if self.runs == 1:
            raise self.exc
        await answer_ok(send)


class Retry:
    """A client middleware that tries twice."""

    def __init__(self) -> None:
        self.caught: list[BaseException] = []

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except (ServerDisconnectedError, ClientOSError) as exc:
            self.caught.append(exc)
            return await handler(request)


@pytest.mark.parametrize("make", REPLAYED)
async def test_the_users_own_retry_in_a_middleware_runs_the_app_again(make: Callable[[], BaseException]) -> None:
    app = FailsFirst(make())
    retry = Retry()
    async with session_to(app, session_middlewares=(retry,)) as session, session.get("/") as response:
        assert await response.read() == b"ok"
    assert app.runs == 2
    assert retry.caught == [app.exc]


@pytest.mark.parametrize("make", REPLAYED)
async def test_the_users_own_retry_in_a_middleware_runs_an_app_that_goes_on_failing_twice_and_no_more(
    make: Callable[[], BaseException],
) -> None:
    exc = make()
    app = Failing(exc)
    async with session_to(app, session_middlewares=(Retry(),)) as session:
        with pytest.raises(type(exc)) as caught:
            await session.get("/")
        assert caught.value is exc
        assert app.runs == 2
        await assert_goes_on(session)


@pytest.mark.parametrize("make", REPLAYED)
async def test_it_runs_once_also_where_a_middleware_sends_each_request_in_a_task_of_its_own(
    make: Callable[[], BaseException],
) -> None:
    async def in_a_task(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        async def call() -> aiohttp.ClientResponse:
            return await handler(request)

        return await asyncio.create_task(call())

    exc = make()
    app = Failing(exc)
    async with session_to(app, session_middlewares=(in_a_task,)) as session:
        with pytest.raises(type(exc)) as caught:
            await session.get("/")
        assert caught.value is exc
        assert app.runs == 1
        await assert_goes_on(session)


@pytest.mark.parametrize("make", REPLAYED)
async def test_it_runs_once_for_each_of_150_concurrent_requests(make: Callable[[], BaseException]) -> None:
    runs: dict[str, list[BaseException]] = {}
    all_here = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exc = make()
        runs.setdefault(scope["path"], []).append(exc)
        if len(runs) == 150:
            all_here.set()
        await all_here.wait()
        raise exc

    async with session_to(app) as session:

        async def get(number: int) -> BaseException:
            with pytest.raises((ServerDisconnectedError, ClientOSError)) as caught:
                await session.get(f"/{number}")
            return caught.value

        raised = await asyncio.gather(*map(get, range(150)))
    assert runs == {f"/{number}": [raised[number]] for number in range(150)}
    assert all(runs[f"/{number}"][0] is raised[number] for number in range(150))


@pytest.mark.parametrize("make", REPLAYED)
async def test_the_users_own_retries_of_150_concurrent_requests_run_each_app_twice(
    make: Callable[[], BaseException],
) -> None:
    runs: dict[str, int] = {}
    all_here = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        runs[path] = runs.get(path, 0) + 1
        if len(runs) == 150:
            all_here.set()
        await all_here.wait()
        if runs[path] == 1:
            raise make()
        await answer_ok(send)

    async with session_to(app) as session:

        async def get(number: int) -> bytes:
            for _ in range(2):
                try:
                    async with session.get(f"/{number}") as response:
                        return await response.read()
                except (ServerDisconnectedError, ClientOSError):
                    pass
            raise AssertionError("failed twice")

        assert await asyncio.gather(*map(get, range(150))) == [b"ok"] * 150
    assert runs == {f"/{number}": 2 for number in range(150)}


# An upload that continues while the app fails.


@pytest.mark.parametrize("make", [OfTheApp, REPLAYED[0], REPLAYED[2]])
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("turns", [0, 3])
async def test_an_exception_comes_out_of_a_request_that_is_still_being_sent(
    make: Callable[[], BaseException], method: str, turns: int, reports: Reports
) -> None:
    """The client's next write fails on the connection that the exception has just ended. The exception comes first."""
    exc = make()

    async def upload() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100
            await asyncio.sleep(0)

    async def read_some(receive: Receive, send: Send) -> None:
        for _ in range(3):
            assert (await receive())["more_body"]
        await run_turns(turns)

    app = Failing(exc, read_some)
    async with session_to(app) as session:
        with pytest.raises(type(exc)) as caught:
            await session.request(method, "/", data=upload())
        assert caught.value is exc
        await assert_goes_on(session)
    assert app.runs == 1
    assert not reports.all


async def test_an_exception_comes_out_of_reading_a_body_while_the_request_is_still_being_sent(
    reports: Reports,
) -> None:
    exc = OfTheApp()
    gate = asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100
            await asyncio.sleep(0)

    async def read_and_write(receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"first", more=True))
        while not gate.is_set():
            assert (await receive())["more_body"]

    async with session_to(Failing(exc, read_and_write)) as session:
        async with session.post("/", data=upload()) as response:
            assert await response.content.readany() == b"first"
            gate.set()
            with pytest.raises(OfTheApp) as caught:
                await response.read()
            assert caught.value is exc
        await assert_goes_on(session)
    assert not reports.all


# What the event loop must see.


@pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("make", [lambda: KeyboardInterrupt("of the app"), lambda: SystemExit(3)])
@pytest.mark.parametrize("before", [at_once, a_turn_later, with_a_response_on_its_way, after_a_500])
@pytest.mark.parametrize("raising", [True, False])
def test_what_ends_a_program_leaves_through_the_loop(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    make: Callable[[], BaseException],
    before: Callable[[Receive, Send], Awaitable[None]],
    raising: bool,
) -> None:
    exc = make()

    async def main() -> object:
        async with session_to(Failing(exc, before), raise_app_exceptions=raising) as session:
            try:
                async with session.get("/") as response:
                    await response.read()
                    return response.status
            except aiohttp.ClientError as error:
                return type(error)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        call = loop.create_task(main())
        with pytest.raises(type(exc)) as caught:
            loop.run_until_complete(call)
        assert caught.value is exc
        assert not call.done()
        # If the loop runs again, the client sees the same as when a server is killed.
        assert loop.run_until_complete(call) in (500, aiohttp.ClientPayloadError)


# Apps that break the protocol.


class BreaksTheProtocol:
    """Sends some messages, waits for the gate, and sends more. One of these must be refused."""

    def __init__(self, first: list[Any], then: list[Any], result: Any = None) -> None:
        self.first = first
        self.then = then
        self.result = result
        self.gate = asyncio.Event()
        self.refused: list[BaseException] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["path"] == "/ok":
            return await answer_ok(send)
        for message in self.first:
            await self.send(send, message)
        if self.first:
            await self.gate.wait()
        for message in self.then:
            await self.send(send, message)
        return self.result

    async def send(self, send: Send, message: Any) -> None:
        try:
            await send(message)
        except BaseException as exc:
            self.refused.append(exc)
            raise


EXPECTED_START = "Expected ASGI message 'http.response.start', but got '{}'."
EXPECTED_BODY = "Expected ASGI message 'http.response.body', but got '{}'."
NOT_A_MESSAGE = "Expected an ASGI message, a dict with a 'type', but got {!r}."
NOT_BYTES = "Expected the 'body' of 'http.response.body' to be bytes, but got {!r}."
NAME = "Invalid HTTP header name"
VALUE = "Invalid HTTP header value"
LONGER = "Response content longer than Content-Length"
SHORTER = "Response content shorter than Content-Length"

BODIES: list[Any] = ["text", None, 5, [b"x"], {}]
OTHER_TYPES = [
    "http.response.trailers",
    "http.response.pathsend",
    "http.request",
    "websocket.accept",
    "lifespan.startup.complete",
    "",
    None,
]
NO_MESSAGES: list[Any] = [None, 5, "http.response.start", [], {}, {"status": 200}]


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        pytest.param([body(b"x")], EXPECTED_START.format("http.response.body"), id="body-first"),
        *[pytest.param([{"type": other}], EXPECTED_START.format(other), id=f"type-{other}") for other in OTHER_TYPES],
        *[
            pytest.param([message], NOT_A_MESSAGE.format(message), id=f"message-{number}")
            for number, message in enumerate(NO_MESSAGES)
        ],
        pytest.param(
            [{"type": "http.response.start"}],
            "Expected the 'status' of 'http.response.start' to be an int, but got None.",
            id="no-status",
        ),
        pytest.param(
            [start("200")],
            "Expected the 'status' of 'http.response.start' to be an int, but got '200'.",
            id="str-status",
        ),
        pytest.param([start(200, [("x-a", b"1")])], NAME, id="str-name"),
        pytest.param([start(200, [(b"x-a", "1")])], VALUE, id="str-value"),
        pytest.param([start(200, {"x-a": "1"})], "Expected the 'headers' of 'http.response.start'", id="dict-headers"),
        pytest.param([start(200, None)], "Expected the 'headers' of 'http.response.start'", id="no-headers"),
        pytest.param([start(200, [(b"x-a",)])], "Expected the 'headers' of 'http.response.start'", id="one-part"),
        pytest.param([start(200, [(b"content-length", b"x")])], "Invalid Content-Length", id="no-number"),
        pytest.param([start(200, LENGTH_3 * 2)], "More than one Content-Length", id="two-lengths"),
        pytest.param([start(), start()], EXPECTED_BODY.format("http.response.start"), id="start-twice"),
        *[
            pytest.param([start(), {"type": other}], EXPECTED_BODY.format(other), id=f"start-then-type-{other}")
            for other in OTHER_TYPES
        ],
        *[
            pytest.param([start(), message], NOT_A_MESSAGE.format(message), id=f"start-then-message-{number}")
            for number, message in enumerate(NO_MESSAGES)
        ],
        *[
            pytest.param([start(), body(data)], NOT_BYTES.format(data), id=f"body-of-{type(data).__name__}")
            for data in BODIES
        ],
        pytest.param([start(200, LENGTH_3), body(b"four")], LONGER, id="one-byte-too-many"),
        pytest.param([start(200, LENGTH_3), body(b"abc", more=True), body(b"d")], LONGER, id="too-many-later"),
        pytest.param([start(200, [(b"content-length", b"0")]), body(b"x")], LONGER, id="one-byte-instead-of-none"),
        pytest.param([start(200, LENGTH_3), body(b"ab")], SHORTER, id="one-byte-too-few"),
        pytest.param([start(200, LENGTH_3), body()], SHORTER, id="none-at-all"),
        pytest.param([start(200, LENGTH_3), body(b"ab", more=True), body()], SHORTER, id="too-few-later"),
    ],
)
async def test_a_message_that_breaks_the_protocol_is_refused_in_the_app_and_raised_from_the_request(
    messages: list[Any], sentence: str, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = BreaksTheProtocol([], messages)
    async with session_to(app) as session:
        with pytest.raises(ASGIProtocolError) as caught:
            await session.get("/")
        assert str(caught.value).startswith(sentence)
        assert app.refused == [caught.value]
        await assert_goes_on(session)
    assert not reports.all
    assert not records(caplog)

    # What was sent before the byte too many may be complete.
    whole = sentence == LONGER and messages[-1]["body"] != b"four"
    async with session_to(app, raise_app_exceptions=False) as session:
        if len(messages) == 1:
            async with session.get("/") as response:
                assert response.status == 500
                assert await response.read() == b"Internal Server Error"
        else:
            async with session.get("/") as response:
                assert response.status == 200
                if whole:
                    assert await response.read() == b"abc"[: response.content_length]
                else:
                    with pytest.raises(aiohttp.ClientPayloadError):
                        await response.read()
        assert_logged(caplog, app.refused[1], "GET http://app.internal/")
        await assert_goes_on(session)


@pytest.mark.parametrize(
    ("first", "then", "sentence"),
    [
        pytest.param([start()], [start()], EXPECTED_BODY.format("http.response.start"), id="start-twice"),
        pytest.param([start()], [{"type": "http.response.trailers"}], EXPECTED_BODY.format("http.response.trailers")),
        pytest.param([start(), body(b"a", more=True)], [start()], EXPECTED_BODY.format("http.response.start")),
        pytest.param([start()], [None], NOT_A_MESSAGE.format(None), id="no-message"),
        pytest.param([start(), body(b"a", more=True)], [body("text")], NOT_BYTES.format("text"), id="str-body"),
        pytest.param([start(200, LENGTH_3), body(b"ab", more=True)], [body(b"cd")], LONGER, id="too-many"),
        pytest.param([start(200, LENGTH_3), body(b"ab", more=True)], [body()], SHORTER, id="too-few"),
        pytest.param([start(200, LENGTH_3)], [body(b"abcd")], LONGER, id="too-many-at-once"),
        pytest.param([start(200, LENGTH_3)], [body(b"ab")], SHORTER, id="too-few-at-once"),
    ],
)
@pytest.mark.parametrize("version", [HttpVersion11, HttpVersion10])
async def test_a_message_that_breaks_the_protocol_in_mid_stream_is_raised_from_reading_the_body(
    first: list[Any], then: list[Any], sentence: str, version: aiohttp.HttpVersion
) -> None:
    app = BreaksTheProtocol(first, then)
    async with session_to(app, session_version=version) as session:
        async with session.get("/") as response:
            assert response.status == 200
            app.gate.set()
            with pytest.raises(ASGIProtocolError) as caught:
                await response.read()
        assert str(caught.value).startswith(sentence)
        assert app.refused == [caught.value]
        await assert_goes_on(session)


async def test_an_app_may_go_on_after_a_message_that_was_refused() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for wrong in (body(b"x"), {"type": "x"}, None, start(100)):
            with pytest.raises(ASGIProtocolError):
                await send(wrong)  # type: ignore[arg-type] # not all of them are messages
        await send(start(200, LENGTH_3))
        for wrong in (start(), body("abc"), body(b"abcd"), None):
            with pytest.raises(ASGIProtocolError):
                await send(wrong)  # type: ignore[arg-type]
        await send(body(b"ab", more=True))
        with pytest.raises(ASGIProtocolError):
            await send(body(b"cd"))
        await send(body(b"c"))

    async with session_to(app) as session, session.get("/") as response:
        assert response.raw_headers == tuple(LENGTH_3)
        assert await response.read() == b"abc"


WITHOUT_START = "ASGI callable returned without starting response."
WITHOUT_END = "ASGI callable returned without completing response."


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_an_app_that_returns_without_a_response_is_an_error(method: str) -> None:
    app = BreaksTheProtocol([], [])
    async with session_to(app) as session:
        with pytest.raises(ASGIProtocolError) as caught:
            await session.request(method, "/a?b=c")
        assert str(caught.value) == f"{WITHOUT_START} ({method} http://app.internal/a?b=c)"
        await assert_goes_on(session)


@pytest.mark.parametrize("messages", [[start()], [start(), body(b"x", more=True)], [start(200, LENGTH_3)]])
async def test_an_app_that_returns_without_the_end_of_its_response_is_an_error(messages: list[Any]) -> None:
    at_once = BreaksTheProtocol([], messages)
    async with session_to(at_once) as session:
        with pytest.raises(ASGIProtocolError) as caught:
            await session.get("/")
        assert str(caught.value) == f"{WITHOUT_END} (GET http://app.internal/)"
        await assert_goes_on(session)

    for version in (HttpVersion11, HttpVersion10):
        later = BreaksTheProtocol(messages, [])
        async with session_to(later, session_version=version) as session:
            async with session.get("/") as response:
                later.gate.set()
                with pytest.raises(ASGIProtocolError) as caught:
                    await response.read()
            assert str(caught.value) == f"{WITHOUT_END} (GET http://app.internal/)"
            await assert_goes_on(session)


async def test_without_raising_an_app_that_returns_without_a_response_is_a_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with session_to(BreaksTheProtocol([], []), raise_app_exceptions=False) as session:
        async with session.get("/") as response:
            assert response.status == 500
            assert await response.read() == b"Internal Server Error"
        (record,) = records(caplog)
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ASGIProtocolError)
        assert WITHOUT_START in str(record.exc_info[1])


@pytest.mark.parametrize("result", ["something", True, 0, [1]])
@pytest.mark.parametrize("messages", [[], [start()], [start(), body(b"x", more=True)]])
async def test_an_app_that_returns_something_is_an_error(result: Any, messages: list[Any]) -> None:
    app = BreaksTheProtocol([], messages, result)
    async with session_to(app) as session:
        with pytest.raises(ASGIProtocolError) as caught:
            await session.get("/")
        sentence = f"ASGI callable should return None, but returned '{result}'."
        assert str(caught.value) == f"{sentence} (GET http://app.internal/)"
        await assert_goes_on(session)


async def test_an_app_that_returns_something_after_its_response_is_reported_and_its_response_arrives(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = BreaksTheProtocol([], [start(200, LENGTH_3), body(b"abc")], "something")
    async with session_to(app) as session, session.get("/") as response:
        assert await response.read() == b"abc"
    (exc,) = reports.exceptions
    assert isinstance(exc, ASGIProtocolError)
    assert str(exc).startswith("ASGI callable should return None, but returned 'something'.")
    assert_logged(caplog, exc, "GET http://app.internal/")


@pytest.mark.parametrize("app", [lambda scope, receive, send: None, lambda *arguments: None])
async def test_an_app_that_is_no_asgi_app_raises_what_calling_it_raises(app: Any) -> None:
    async with session_to(app) as session:
        with pytest.raises(TypeError):
            await session.get("/")


@pytest.mark.parametrize("message", [start(), body(b"more"), body(), {"type": "http.response.trailers"}])
async def test_a_message_after_the_end_of_a_response_is_reported_and_the_response_arrives(
    message: Message, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = BreaksTheProtocol([], [start(200, LENGTH_3), body(b"abc"), message])
    async with session_to(app) as session:
        async with session.get("/") as response:
            assert response.raw_headers == tuple(LENGTH_3)
            assert await response.read() == b"abc"
        (exc,) = app.refused
        assert isinstance(exc, ASGIProtocolError)
        assert str(exc) == f"Unexpected ASGI message '{message['type']}' sent, after response already completed."
        assert reports.exceptions == [exc]
        assert_logged(caplog, exc, "GET http://app.internal/")
        await assert_goes_on(session)


@pytest.mark.parametrize("message", NO_MESSAGES)
async def test_no_message_at_all_after_the_end_of_a_response_is_reported_too(message: Any, reports: Reports) -> None:
    app = BreaksTheProtocol([], [start(200, LENGTH_3), body(b"abc"), message])
    async with session_to(app) as session, session.get("/") as response:
        assert await response.read() == b"abc"
    assert [str(exc) for exc in reports.exceptions] == [NOT_A_MESSAGE.format(message)]


# Background tasks, and the responses that are held back for them.


class Turns:
    """Counts the turns of the event loop while it is entered."""

    def __init__(self) -> None:
        self.count = -1
        self._handle: asyncio.Handle | None = None

    def __enter__(self) -> "Turns":
        self._turn()
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._handle is not None
        self._handle.cancel()

    def _turn(self) -> None:
        self.count += 1
        self._handle = asyncio.get_running_loop().call_soon(self._turn)


class Background:
    """A FastAPI app. Its endpoints answer, and start a background task that waits for the gate and then may fail."""

    def __init__(self, status: int, exc: Exception | None = None, *, middlewares: int = 0) -> None:
        self.status = status
        self.exc = exc
        self.gate = asyncio.Event()
        self.thread_gate = threading.Event()
        self.ended: list[str] = []
        self.app = add_ok(FastAPI())
        self.app.add_api_route("/async", self.with_async, methods=["GET"], response_model=None)
        self.app.add_api_route("/sync", self.with_sync, methods=["GET"], response_model=None)
        add_middlewares(self.app, middlewares)

    async def in_the_loop(self) -> None:
        await self.gate.wait()
        self.end("async")

    def in_a_thread(self) -> None:
        self.thread_gate.wait(30)
        self.end("sync")

    def end(self, name: str) -> None:
        self.ended.append(name)
        if self.exc is not None:
            raise self.exc

    async def with_async(self, tasks: BackgroundTasks) -> Response:
        tasks.add_task(self.in_the_loop)
        return JSONResponse({"status": self.status}, self.status, background=tasks)

    def with_sync(self, tasks: BackgroundTasks) -> Response:
        tasks.add_task(self.in_a_thread)
        return JSONResponse({"status": self.status}, self.status, background=tasks)

    def open(self) -> None:
        self.gate.set()
        self.thread_gate.set()


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("status", [200, 404, 499, 500, 503])
async def test_a_slow_background_task_does_not_delay_the_response(kind: str, status: int) -> None:
    background = Background(status)
    async with session_to(background.app) as session:
        async with session.get(f"/{kind}") as response:
            assert response.status == status
            assert await response.json() == {"status": status}
        assert background.ended == []
        await assert_goes_on(session)
        assert background.ended == []
        background.open()
    assert background.ended == [kind]


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("status", [200, 404, 499, 500, 503])
async def test_a_background_task_that_fails_does_not_change_the_response_and_is_reported(
    kind: str, status: int, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    background = Background(status, exc)
    async with session_to(background.app) as session:
        async with session.get(f"/{kind}?a=b") as response:
            assert response.status == status
            assert await response.json() == {"status": status}
        background.open()
        report = await reports.one()
        assert report["exception"] is exc
        assert_logged(caplog, exc, f"GET http://app.internal/{kind}?a=b")
        await assert_goes_on(session)
    assert len(reports.all) == 1


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("status", [200, 404, 499])
@pytest.mark.parametrize("middlewares", [0, 3])
async def test_a_background_task_that_fails_at_once_does_not_change_a_response_below_500(
    kind: str, status: int, middlewares: int, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    background = Background(status, exc, middlewares=middlewares)
    background.open()
    async with session_to(background.app) as session:
        async with session.get(f"/{kind}") as response:
            assert response.status == status
            assert await response.json() == {"status": status}
        assert (await reports.one())["exception"] is exc
        assert_logged(caplog, exc, f"GET http://app.internal/{kind}")
        await assert_goes_on(session)
    assert len(reports.all) == 1


async def test_a_background_task_that_fails_at_once_replaces_a_503(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    background = Background(503, exc)
    background.open()
    async with session_to(background.app) as session:
        with pytest.raises(OfTheApp) as caught:
            await session.get("/async")
        assert caught.value is exc
        await assert_goes_on(session)
    assert not reports.all
    assert not records(caplog)


@pytest.mark.parametrize("status", [500, 503, 599, 999])
async def test_a_deliberate_5xx_is_late_by_256_turns_at_most(status: int) -> None:
    gate = asyncio.Event()
    turns = Turns()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        turns.__enter__()
        await send(start(status, LENGTH_3))
        await send(body(b"abc"))
        await gate.wait()

    async with session_to(app) as session, session.get("/") as response:
        turns.__exit__()
        assert response.status == status
        assert await response.read() == b"abc"
        # And the few turns that any response takes.
        assert turns.count <= 256 + 4
        gate.set()


async def test_a_response_below_500_is_not_held_back() -> None:
    gate = asyncio.Event()
    turns = Turns()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        turns.__enter__()
        await send(start(499, LENGTH_3))
        await send(body(b"abc"))
        await gate.wait()

    async with session_to(app) as session, session.get("/") as response:
        turns.__exit__()
        assert await response.read() == b"abc"
        assert turns.count <= 4
        gate.set()


async def test_a_5xx_is_held_back_no_longer_than_its_app_runs() -> None:
    turns = Turns()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        turns.__enter__()
        await send(start(503, LENGTH_3))
        await send(body(b"abc"))

    async with session_to(app) as session, session.get("/") as response:
        turns.__exit__()
        assert await response.read() == b"abc"
        assert turns.count <= 4


@pytest.mark.parametrize("turns", [0, 1, 102, 250])
@pytest.mark.parametrize("complete", [True, False])
async def test_an_exception_while_a_5xx_is_held_back_replaces_it(
    turns: int, complete: bool, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await send(start(503, LENGTH_3))
        await send(body(b"abc" if complete else b"a", more=not complete))
        await run_turns(turns)

    exc = OfTheApp()
    async with session_to(Failing(exc, answer)) as session:
        with pytest.raises(OfTheApp) as caught:
            await session.get("/")
        assert caught.value is exc
        await assert_goes_on(session)
    assert not reports.all
    assert not records(caplog)


async def test_an_exception_after_a_5xx_has_left_does_not_change_it(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(receive: Receive, send: Send) -> None:
        await send(start(503, LENGTH_3))
        await send(body(b"abc"))
        await run_turns(300)

    exc = OfTheApp()
    async with session_to(Failing(exc, answer)) as session:
        async with session.get("/") as response:
            assert response.status == 503
            assert await response.read() == b"abc"
        assert (await reports.one())["exception"] is exc
        assert_logged(caplog, exc, "GET http://app.internal/")
        await assert_goes_on(session)


async def test_a_5xx_that_streams_arrives_while_its_app_runs() -> None:
    steps: asyncio.Queue[Message] = asyncio.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(503))
        more = True
        while more:
            message = await steps.get()
            await send(message)
            more = message["more_body"]

    async with session_to(app) as session, session.get("/") as response:
        assert response.status == 503
        for piece in (b"one", b"two"):
            steps.put_nowait(body(piece, more=True))
            assert await response.content.readany() == piece
        steps.put_nowait(body())
        assert await response.read() == b""


@pytest.mark.parametrize("fails", [False, True])
async def test_a_5xx_that_is_larger_than_any_buffer_arrives(fails: bool) -> None:
    piece = b"x" * 100_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(503))
        for _ in range(20):
            await send(body(piece, more=True))
        if fails:
            raise OfTheApp
        await send(body())

    async with session_to(app) as session, session.get("/") as response:
        assert response.status == 503
        if fails:
            with pytest.raises(OfTheApp):
                await response.read()
        else:
            assert await response.read() == piece * 20


async def test_a_500_is_held_back_also_behind_a_100_continue_that_has_not_left() -> None:
    exc = OfTheApp()

    async def answer(receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        listener = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        # In the turn in which receive() has asked for the body.
        await send(start(500, LENGTH_3))
        await send(body(b"abc"))
        await run_turns(10)
        await listener

    async with session_to(Failing(exc, answer)) as session:
        with pytest.raises(OfTheApp) as caught:
            await session.post("/", data=b"x", expect100=True)
        assert caught.value is exc
        await assert_goes_on(session)


# Clients that have disconnected.


class Waiting:
    """Begins an answer, or not. Then waits for the gate, and fails."""

    def __init__(self, exc: BaseException, messages: list[Message]) -> None:
        self.exc = exc
        self.messages = messages
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.over = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/ok":
            return await answer_ok(send)
        for message in self.messages:
            await send(message)
        self.begun.set()
        await self.gate.wait()
        asyncio.get_running_loop().call_soon(self.over.set)
        raise self.exc


BEGINNINGS: list[list[Message]] = [[], [start()], [start(), body(b"x", more=True)], [start(200, LENGTH_3)]]


@pytest.mark.parametrize("messages", BEGINNINGS)
@pytest.mark.parametrize("make", [ServerDisconnectedError, lambda: pytest.fail.Exception("x")])
@pytest.mark.parametrize("raising", [True, False])
async def test_what_an_app_raises_after_its_client_has_gone_is_logged_and_goes_nowhere_else(
    messages: list[Message],
    make: Callable[[], BaseException],
    raising: bool,
    reports: Reports,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exc = make()
    app = Waiting(exc, messages)
    async with session_to(app, raise_app_exceptions=raising) as session:
        request = asyncio.ensure_future(session.get("/a?b=c"))
        await app.begun.wait()
        if messages:
            (await request).close()
        else:
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
        await asyncio.sleep(0)
        app.gate.set()
        await app.over.wait()
        await assert_goes_on(session)
    assert_logged(caplog, exc, "GET http://app.internal/a?b=c")
    assert not reports.all


@pytest.mark.parametrize("messages", BEGINNINGS[1:])
async def test_it_goes_nowhere_else_also_in_the_turn_in_which_the_client_goes(
    messages: list[Message], reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    app = Waiting(exc, messages)
    async with session_to(app) as session:
        response = await session.get("/")
        app.gate.set()
        response.close()
        await app.over.wait()
        await assert_goes_on(session)
    assert_logged(caplog, exc, "GET http://app.internal/")
    assert not reports.all


async def test_an_app_that_is_cancelled_after_its_client_has_gone_is_no_error(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = Waiting(asyncio.CancelledError(), [start()])
    async with session_to(app) as session:
        (await session.get("/")).close()
        await asyncio.sleep(0)
        app.gate.set()
        await app.over.wait()
    assert not records(caplog)
    assert not reports.all


async def test_an_app_that_returns_anyhow_after_its_client_has_gone_is_no_error(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    app = BreaksTheProtocol([start()], [body("not even bytes"), {"type": "unknown"}, None, start(100)])
    async with session_to(app) as session:
        (await session.get("/")).close()
        await asyncio.sleep(0)
        app.gate.set()
    assert app.refused == []
    assert not records(caplog)
    assert not reports.all


# Responses that end at their head.


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [("HEAD", 200, LENGTH_3), ("HEAD", 200, []), ("GET", 204, []), ("GET", 304, [])],
)
class TestWithoutABody:
    async def test_an_exception_in_the_step_that_sends_the_head_comes_out_of_the_request(
        self, method: str, status: int, headers: list[tuple[bytes, bytes]], reports: Reports
    ) -> None:
        async def send_head(receive: Receive, send: Send) -> None:
            await send(start(status, headers))

        exc = OfTheApp()
        async with session_to(Failing(exc, send_head)) as session:
            with pytest.raises(OfTheApp) as caught:
                await session.request(method, "/")
            assert caught.value is exc
            await assert_goes_on(session)
        assert not reports.all

    @pytest.mark.parametrize("complete", [True, False])
    async def test_an_exception_after_the_head_has_left_is_reported(
        self,
        method: str,
        status: int,
        headers: list[tuple[bytes, bytes]],
        complete: bool,
        reports: Reports,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        exc = OfTheApp()
        messages = [start(status, headers), body(b"abc" if method == "HEAD" else b"", more=not complete)]
        app = Waiting(exc, messages)
        async with session_to(app) as session:
            async with session.request(method, "/") as response:
                assert response.status == status
                assert await response.read() == b""
                # The client has all that it asked for, so the exception is not raised to it.
                app.gate.set()
            await app.over.wait()
            await assert_goes_on(session)
        assert_logged(caplog, exc, f"{method} http://app.internal/")

    async def test_an_app_that_returns_after_the_head_has_broken_the_protocol(
        self, method: str, status: int, headers: list[tuple[bytes, bytes]]
    ) -> None:
        async with session_to(BreaksTheProtocol([], [start(status, headers)])) as session:
            with pytest.raises(ASGIProtocolError, match=WITHOUT_END):
                await session.request(method, "/")
            await assert_goes_on(session)


async def test_an_exception_after_the_last_byte_that_was_announced_is_reported(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()
    app = Waiting(exc, [start(200, LENGTH_3), body(b"abc", more=True)])
    async with session_to(app) as session:
        async with session.get("/") as response:
            assert await response.read() == b"abc"
        app.gate.set()
        assert (await reports.one())["exception"] is exc
        assert_logged(caplog, exc, "GET http://app.internal/")
        await assert_goes_on(session)


async def test_an_exception_in_the_step_that_sends_the_last_byte_does_not_pass_unseen(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    """The client may have its whole body before the exception. Then the exception is logged, and the loop is told."""
    exc = OfTheApp()
    gate = asyncio.Event()

    async def send_all(receive: Receive, send: Send) -> None:
        await send(start(200, LENGTH_3))
        await gate.wait()
        await send(body(b"abc", more=True))

    async with session_to(Failing(exc, send_all)) as session:
        async with session.get("/") as response:
            gate.set()
            assert await response.read() == b"abc"
        assert (await reports.one())["exception"] is exc
        assert_logged(caplog, exc, "GET http://app.internal/")
        await assert_goes_on(session)


async def test_tracing_sees_the_same_exception() -> None:
    exc = OfTheApp()
    seen: list[BaseException] = []

    async def note(
        session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestExceptionParams
    ) -> None:
        seen.append(params.exception)

    trace = aiohttp.TraceConfig()
    trace.on_request_exception.append(note)
    async with session_to(Failing(exc), session_trace_configs=[trace]) as session:
        with pytest.raises(OfTheApp):
            await session.get("/")
    assert len(seen) == 1
    assert seen[0] is exc


async def test_a_report_names_the_request_though_the_app_has_emptied_its_scope(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    exc = OfTheApp()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope.clear()
        await send(start(200, LENGTH_3))
        await send(body(b"abc"))
        raise exc

    async with session_to(app) as session:
        async with session.get("/a?b=c") as response:
            assert await response.read() == b"abc"
        assert (await reports.one())["exception"] is exc
    assert_logged(caplog, exc, "GET http://app.internal/a?b=c")


@pytest.mark.parametrize("before", [at_once, with_a_response_on_its_way])
async def test_an_exception_of_an_app_whose_client_has_just_aborted_is_logged(
    before: Callable[[Receive, Send], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """aiohttp's `ResponseHandler.abort()` takes the connection away during a request-response cycle."""
    may_fail = asyncio.Event()
    exc = ValueError("of the app")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if before is not at_once:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await may_fail.wait()
        raise exc

    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: app.internal\r\n\r\n")
        may_fail.set()
        connection._protocol.abort()
        await connection.end()
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [exc]


async def test_a_task_of_an_app_that_receives_is_told_when_the_app_has_failed_behind_a_whole_response(
    reports: Reports,
) -> None:
    exc = ValueError("of the app")
    told: list[Message] = []
    may_fail = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def wait() -> None:
            told.append(await receive())

        assert (await receive())["type"] == "http.request"
        tasks.append(asyncio.create_task(wait()))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok", "more_body": True})
        await may_fail.wait()
        raise exc

    async with session_to(app) as session, session.get("/") as response:
        assert await response.read() == b"ok"
        may_fail.set()
        await tasks[0]
    assert told == [{"type": "http.disconnect"}]
    assert [report["exception"] for report in reports.all] == [exc]


@pytest.mark.parametrize("make", [lambda: KeyboardInterrupt("of the app"), lambda: SystemExit(3)])
def test_what_ends_a_program_leaves_through_the_loop_when_the_client_has_gone_too(
    make: Callable[[], BaseException],
) -> None:
    exc = make()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        raise exc

    async def main() -> None:
        async with session_to(app) as session:
            response = await session.get("/")
            response.close()

    with asyncio.Runner() as runner:
        call = runner.get_loop().create_task(main())
        with pytest.raises(type(exc)) as caught:
            runner.get_loop().run_until_complete(call)
        assert caught.value is exc
        runner.get_loop().run_until_complete(call)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="an eager task has taken its first step when it is made")
async def test_an_app_whose_task_is_cancelled_before_its_first_step_is_an_error_for_its_client() -> None:
    called = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal called
        called = True

    def cancel_apps(loop: asyncio.AbstractEventLoop, coro: Any, **settings: Any) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=loop, **settings)
        if getattr(coro, "__qualname__", "") == "InFlight._run":
            task.cancel()
        return task

    loop = asyncio.get_running_loop()
    loop.set_task_factory(cancel_apps)
    try:
        async with session_to(app) as session:
            with pytest.raises(ASGIConnectorError, match="The app was cancelled") as caught:
                await session.get("/")
            assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    finally:
        loop.set_task_factory(None)
    assert not called
