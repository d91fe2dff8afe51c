"""A loop that ends while a session is open: the only report is that the session was not closed."""

import asyncio
import gc
import inspect
import logging
import signal
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI, WebSocket

from asgi_connector import ASGIConnectorError, ASGIRoutingConnector, LifespanError
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import LOOPS, session_to
from tests.support.programs import run_until_interrupted
from tests.support.reports import Reports, records
from tests.support.sessions import fetch
from tests.support.waiting import settle

every_loop = pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)

NewLoop = Callable[[], asyncio.AbstractEventLoop]


def framework() -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/hang")
    async def hang() -> None:
        await asyncio.Event().wait()

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()

    return app


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    elif scope["path"] == "/polite":
        await receive()  # the disconnect
        return
    elif scope["path"] in ("/body", "/background"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = scope["path"] == "/body"
        await send({"type": "http.response.body", "body": b"x", "more_body": more})
    await asyncio.Event().wait()


async def open_much(**settings: Any) -> list[Any]:
    """A session that is not closed, with requests of many kinds in flight."""
    connector = ASGIRoutingConnector({"raw.internal": raw, "framework.internal": framework()}, **settings)
    session = aiohttp.ClientSession(connector=connector)
    opened: list[Any] = [session, await fetch(session, "http://raw.internal/background")]
    for host in ("raw.internal", "framework.internal"):
        opened.append(await session.ws_connect(f"http://{host}/chat"))
        opened.append(asyncio.create_task(fetch(session, f"http://{host}/hang")))
    opened.append(await session.get("http://raw.internal/body"))
    opened.append(asyncio.create_task((await session.ws_connect("http://raw.internal/chat")).receive()))
    await settle()
    return opened


def assert_only_the_session_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert records(caplog) == []
    messages = [record.getMessage().splitlines()[0] for record in caplog.records if record.levelno > logging.INFO]
    left = ["client session", "connector", "connection"]
    if sys.flags.dev_mode:
        left.append("response")  # aiohttp reports it in the debug mode of the loop
    assert set(messages) <= {f"Unclosed {what}" for what in left}, messages
    assert messages, "that the session was not closed has to be said"
    assert messages.count("Unclosed client session") <= 1, messages  # none if the connector is collected first


def run_and_forget(run: Callable[[], list[Any]]) -> None:
    """The leftovers are collected here, where aiohttp's `ResourceWarning`s are expected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        opened = run()
        opened.clear()
        gc.collect()


@every_loop
@pytest.mark.parametrize("raise_app_exceptions", [True, False])
def test_a_runner_that_ends_with_a_session_open_reports_the_session_only(
    new_loop: NewLoop, raise_app_exceptions: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def run() -> list[Any]:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(open_much(raise_app_exceptions=raise_app_exceptions))

    run_and_forget(run)
    assert_only_the_session_is_reported(caplog)


@every_loop
def test_a_runner_that_cancels_in_a_way_of_its_own_reports_the_session_only(
    new_loop: NewLoop, caplog: pytest.LogCaptureFixture
) -> None:
    def run() -> list[Any]:
        loop = new_loop()
        opened = loop.run_until_complete(open_much())
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()
        return opened

    run_and_forget(run)
    assert_only_the_session_is_reported(caplog)


@every_loop
@pytest.mark.parametrize("close", [True, False])
def test_a_loop_that_cancels_nothing_reports_the_session_and_the_tasks_of_its_user(
    new_loop: NewLoop, close: bool, caplog: pytest.LogCaptureFixture
) -> None:
    own: list[asyncio.Task[Any]] = []

    async def main() -> list[Any]:
        opened = await open_much()
        own.extend(each for each in opened if isinstance(each, asyncio.Task))
        return opened

    def run() -> list[Any]:
        loop = new_loop()
        opened = loop.run_until_complete(main())
        for task in own:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*own, return_exceptions=True))
        own.clear()
        if close:
            loop.close()
        return opened

    gc.collect()
    run_and_forget(run)
    assert_only_the_session_is_reported(caplog)


@every_loop
def test_what_an_app_sends_when_the_garbage_collector_closes_it_reaches_nobody(new_loop: NewLoop) -> None:
    sent: list[bool] = []
    reported: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x"})
            sent.append(True)

    async def main() -> list[Any]:
        session = aiohttp.ClientSession(connector=ASGIRoutingConnector({"app.internal": app}, lifespan="off"))
        request = asyncio.create_task(fetch(session, "http://app.internal/"))
        await settle()
        return [session, request]

    def run() -> list[Any]:
        loop = new_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
        opened = loop.run_until_complete(main())
        loop.close()
        return opened

    run_and_forget(run)
    assert sent == [True]
    assert set(reported) <= {"Task was destroyed but it is pending!", "Unclosed client session", "Unclosed connector"}


def test_cleaning_up_while_the_loop_ends_reports_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A task closes its session meanwhile. The tasks that this starts are not cancelled, and see no failure either."""
    ends: list[object] = []

    async def worker(started: asyncio.Event) -> None:
        connector = ASGIRoutingConnector({"framework.internal": framework(), "raw.internal": raw})
        async with connector, aiohttp.ClientSession(connector=connector) as session:
            started.set()
            await fetch(session, "http://raw.internal/polite")

    async def main() -> None:
        started = asyncio.Event()
        task = asyncio.create_task(worker(started))
        task.add_done_callback(ends.append)
        await started.wait()
        await settle()

    for _ in range(10):  # the order in which tasks are cancelled varies
        asyncio.run(main())
    assert len(ends) == 10
    assert [task.cancelled() for task in ends if isinstance(task, asyncio.Task)] == 10 * [True]
    assert caplog.records == []


def test_a_request_that_is_made_while_the_loop_ends_is_answered() -> None:
    """By an app that is cancelled too: it must not wait for an answer that never comes."""
    results: list[object] = []

    async def worker(session: aiohttp.ClientSession) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            calls = [fetch(session, "http://raw.internal/late") for _ in range(2)]
            results.extend(await asyncio.gather(*calls, return_exceptions=True))

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    async def main() -> None:
        session = aiohttp.ClientSession(connector=ASGIRoutingConnector({"*": late}, lifespan="off"))
        tasks.append(asyncio.create_task(worker(session)))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []

    def run() -> list[Any]:
        asyncio.run(main())
        return tasks

    run_and_forget(run)
    assert results == [b"Internal Server Error"] * 2


def test_a_startup_that_the_end_of_the_loop_cancels_is_no_failure_of_the_app(caplog: pytest.LogCaptureFixture) -> None:
    results: list[str] = []

    async def starts_slowly(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.Event().wait()

    async def worker(session: aiohttp.ClientSession) -> None:
        starting = asyncio.ensure_future(fetch(session, "http://app.internal/"))
        try:
            await asyncio.Event().wait()
        finally:
            ends = await asyncio.gather(starting, fetch(session, "http://app.internal/"), return_exceptions=True)
            results.extend(map(repr, ends))  # their tracebacks would keep the session

    async def main() -> list[Any]:
        session = aiohttp.ClientSession(connector=ASGIRoutingConnector({"app.internal": starts_slowly}))
        task = asyncio.create_task(worker(session))
        await settle()
        return [session, task]

    run_and_forget(lambda: asyncio.run(main()))
    assert results[0].startswith("CancelledError(")
    assert results[1] == repr(LifespanError("The app at 'app.internal' failed to start: the event loop ends"))
    assert_only_the_session_is_reported(caplog)


async def test_an_app_that_is_forgotten_with_its_session_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """While the loop runs: the garbage collector ends what is no longer reachable."""

    async def leave_behind() -> None:
        connector = ASGIRoutingConnector({"framework.internal": framework(), "raw.internal": raw})
        session = aiohttp.ClientSession(connector=connector)
        await connector.__aenter__()
        session.detach()

    await leave_behind()
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize("exc", [GeneratorExit, asyncio.CancelledError])
async def test_an_app_that_ends_itself_so_is_reported(exc: type[BaseException], reports: Reports) -> None:
    for wait in (False, True):

        async def app(scope: Scope, receive: Receive, send: Send, *, wait: bool = wait) -> None:
            if wait:
                await asyncio.sleep(0)
            raise exc

        async with session_to(app) as session:
            with pytest.raises(ASGIConnectorError if exc is asyncio.CancelledError else exc):
                await session.get("/")


async def test_an_app_that_is_cancelled_by_itself_in_its_websocket_is_reported(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    async with session_to(app) as session, session.ws_connect("/") as ws:
        message = await ws.receive()
        assert isinstance(message.data, ASGIConnectorError)
        report = await reports.one()
        assert isinstance(report["exception"], ASGIConnectorError)
    (record,) = records(caplog)
    assert record.levelno == logging.ERROR


# Ctrl-C.


def interrupted_program(main: Callable[..., Awaitable[object]]) -> str:
    """A program that runs *main*, which may use what this module defines. It interrupts itself."""
    source = inspect.getsource(main).replace("INTERRUPT", "os.kill(os.getpid(), signal.SIGINT)")
    # A shell without job control lets its background jobs ignore SIGINT.
    heeds_interrupts = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    return (
        f"import os\nfrom tests.connector.test_loop_end import *\n{heeds_interrupts}\n"
        f"{source}\nasyncio.run({main.__name__}())\n"
    )


INTERRUPT: object = None


async def leaves_everything_open() -> None:
    opened = await open_much()
    INTERRUPT  # noqa: B018
    await asyncio.Event().wait()
    opened.clear()


async def closes_its_session() -> None:
    connector = ASGIRoutingConnector({"framework.internal": framework(), "raw.internal": raw})
    async with connector, aiohttp.ClientSession(connector=connector) as session:
        asyncio.get_running_loop().call_later(0.05, lambda: INTERRUPT)
        await fetch(session, "http://raw.internal/polite")


async def is_interrupted_twice() -> None:
    connector = ASGIRoutingConnector({"raw.internal": raw}, shutdown_timeout=60)
    async with connector, aiohttp.ClientSession(connector=connector) as session:
        await fetch(session, "http://raw.internal/background")
        asyncio.get_running_loop().call_later(0.05, lambda: INTERRUPT)
        asyncio.get_running_loop().call_later(0.15, lambda: INTERRUPT)
        await asyncio.Event().wait()


@pytest.mark.programs
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT that a process could send to itself alone")
@pytest.mark.parametrize("main", [leaves_everything_open, closes_its_session, is_interrupted_twice])
def test_an_interrupted_program_ends_as_python_does_and_says_nothing_else(
    main: Callable[..., Awaitable[object]],
) -> None:
    finished = run_until_interrupted(interrupted_program(main))
    assert finished.returncode == -signal.SIGINT
    lines = finished.stderr.splitlines()
    unexpected = [line for line in lines if line and not line.startswith(EXPECTED)]
    assert unexpected == [], finished.stderr
    assert lines.count("KeyboardInterrupt") == 1, finished.stderr
    assert "asgi_connector" not in finished.stderr.replace(f"{asyncio.__file__}", ""), finished.stderr


EXPECTED = (
    "Traceback (most recent call last)",
    " ",
    "asyncio.exceptions.CancelledError",
    "KeyboardInterrupt",
    "During handling of the above exception",
    "Unclosed client session",
    "client_session: ",
    "Unclosed connector",
    "connector: ",
    "connections: ",
)
