"""Lifespans: when apps start and stop, how a failure is reported, and that no app waits for itself."""

import asyncio
import contextvars
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

import anyio
import pytest
from aiohttp import ClientConnectionError, ClientSession, ClientTimeout, ConnectionTimeoutError
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

from asgi_connector import ASGIApplicationConnector, ASGIRoutingConnector, LifespanError, Mount
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.messages import respond
from tests.support.reports import logged_messages
from tests.support.sessions import connector_of, fetch
from tests.support.waiting import run_turns, settle, until

NEVER = 3600.0
"""A `shutdown_timeout` that must not be used up."""

Hook = Callable[[], Awaitable[object]]


async def result_of(waiting: Awaitable[object]) -> object:
    """The result of *waiting*, which may be an exception. It has a limit, so that a hang is a failure."""
    async with asyncio.timeout(5):
        try:
            return await waiting
        except Exception as exc:
            return exc


class Service:
    """An app with a lifespan that records what happens to it."""

    def __init__(self, name: str = "app", log: list[str] | None = None) -> None:
        self.name = name
        self.log = [] if log is None else log
        self.at_startup: Hook | None = None
        self.at_shutdown: Hook | None = None
        self.at_request: Hook | None = None
        self.state: dict[str, Any] = {}
        self.scopes: list[Scope] = []
        self.tasks: list[object] = []
        self.starting = asyncio.Event()
        self.stopping = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] != "lifespan":
            if self.at_request is not None:
                await self.at_request()
            await respond(send)
            return
        assert await receive() == {"type": "lifespan.startup"}
        self.tasks.append(asyncio.current_task())
        self.log.append(f"{self.name} starts")
        self.starting.set()
        scope["state"].update(self.state)
        if self.at_startup is not None:
            await self.at_startup()
        self.log.append(f"{self.name} started")
        await send({"type": "lifespan.startup.complete"})
        assert await receive() == {"type": "lifespan.shutdown"}
        self.tasks.append(asyncio.current_task())
        self.log.append(f"{self.name} stops")
        self.stopping.set()
        if self.at_shutdown is not None:
            await self.at_shutdown()
        self.log.append(f"{self.name} stopped")
        await send({"type": "lifespan.shutdown.complete"})

    @property
    def whole_life(self) -> list[str]:
        return [f"{self.name} {step}" for step in ("starts", "started", "stops", "stopped")]


def raising(exc: BaseException) -> Hook:
    async def hook() -> None:
        raise exc

    return hook


@contextmanager
def eager_tasks() -> Iterator[None]:
    """Every task begins immediately, as with `asyncio.eager_task_factory`."""
    loop = asyncio.get_running_loop()
    if sys.version_info < (3, 12):
        pytest.skip("Python has eager tasks from 3.12 on")
    elif not isinstance(loop, asyncio.BaseEventLoop):
        pytest.skip("uvloop hands arguments to the factory that asyncio's own does not take in every version")
    else:
        loop.set_task_factory(asyncio.eager_task_factory)
        try:
            yield
        finally:
            loop.set_task_factory(None)


# Once.


async def test_an_app_starts_before_its_first_request_and_stops_when_the_session_closes() -> None:
    app = Service()
    async with session_to(app, lifespan="auto") as session:
        assert app.log == []
        assert await fetch(session) == b"ok"
        assert await fetch(session) == b"ok"
        assert app.log == ["app starts", "app started"]
    assert app.log == app.whole_life
    assert [scope["type"] for scope in app.scopes] == ["lifespan", "http", "http"]
    assert app.tasks[0] is app.tasks[1]


async def test_the_lifespan_scope_is_that_of_the_spec() -> None:
    app = Service()
    async with session_to(app, lifespan="auto") as session:
        await fetch(session)
    assert app.scopes[0] == {
        "type": "lifespan",
        "asgi": {"version": "3.0", "spec_version": "2.0"},
        "state": {},
    }


async def test_100_concurrent_first_requests_wait_for_one_startup() -> None:
    app = Service()
    may_start = asyncio.Event()
    app.at_startup = may_start.wait
    async with session_to(app, lifespan="auto") as session:
        requests = [asyncio.create_task(fetch(session)) for _ in range(100)]
        await app.starting.wait()
        await settle()
        assert [scope["type"] for scope in app.scopes] == ["lifespan"]
        may_start.set()
        assert await asyncio.gather(*requests) == [b"ok"] * 100
    assert app.log == app.whole_life


@pytest.mark.parametrize("entered", [False, True], ids=["at the first requests", "entered"])
async def test_an_app_at_three_hosts_starts_once(entered: bool) -> None:
    app = Service()
    connector = ASGIRoutingConnector({"a.internal": app, "b.internal": Mount(app, root_path="/v1"), "*.internal": app})
    async with ClientSession(connector=connector) as session:
        if entered:
            await connector.__aenter__()
        urls = [f"http://{host}.internal/" for host in "abc"]
        assert await asyncio.gather(*(fetch(session, url) for url in urls)) == [b"ok"] * 3
        await connector.unmount("a.internal")
        await connector.unmount("b.internal")
        assert app.log == ["app starts", "app started"]
        await connector.unmount("*.internal")
        assert app.log == app.whole_life
    assert app.log == app.whole_life


async def test_a_bound_method_is_the_same_app_each_time() -> None:
    app = Service()
    async with session_to({"a.internal": app.__call__, "b.internal": app.__call__}, lifespan="auto") as session:
        await fetch(session, "http://a.internal/")
        await fetch(session, "http://b.internal/")
    assert app.log == app.whole_life


async def test_an_app_starts_again_after_unmount_and_a_new_mount() -> None:
    app = Service()
    async with session_to(app, lifespan="auto") as session:
        await fetch(session)
        await connector_of(session).unmount("app.internal")
        assert app.log == app.whole_life
        connector_of(session).mount("app.internal", app)
        assert app.log == app.whole_life
        await fetch(session)
    assert app.log == app.whole_life * 2


async def test_an_app_that_is_mounted_while_it_stops_starts_when_it_has_stopped() -> None:
    app = Service()
    may_stop = asyncio.Event()
    app.at_shutdown = may_stop.wait
    async with session_to(app, lifespan="auto") as session:
        await fetch(session)
        unmount = asyncio.create_task(connector_of(session).unmount("app.internal"))
        await app.stopping.wait()
        connector_of(session).mount("app.internal", app)
        request = asyncio.create_task(fetch(session))
        await settle()
        assert app.log == app.whole_life[:3]
        may_stop.set()
        await unmount
        assert await request == b"ok"
    assert app.log == app.whole_life * 2


async def test_an_app_that_nobody_asks_never_starts() -> None:
    asked, not_asked = Service(), Service()
    async with session_to({"a.internal": asked, "b.internal": not_asked}, lifespan="auto") as session:
        await fetch(session, "http://a.internal/")
    assert asked.log == asked.whole_life
    assert not_asked.scopes == []


# Settings.


async def test_off_runs_no_lifespan() -> None:
    app = Service()
    async with session_to({"app.internal": Mount(app, lifespan="off")}, lifespan="auto") as session:
        assert await fetch(session) == b"ok"
    assert [(scope["type"], scope.get("state")) for scope in app.scopes] in ([("http", {})], [("http", None)])


@pytest.mark.parametrize("setting", ["never", "", None, True])
async def test_another_setting_is_a_value_error(setting: Any) -> None:
    with pytest.raises(ValueError, match="lifespan must be one of 'auto', 'on' and 'off'"):
        ASGIRoutingConnector({}, lifespan=setting)
    with pytest.raises(ValueError, match="lifespan must be one of 'auto', 'on' and 'off'"):
        Mount(Service(), lifespan=setting)


async def test_one_app_with_two_settings_is_a_value_error_that_changes_nothing() -> None:
    app = Service()
    with pytest.raises(ValueError, match="one app has one lifespan"):
        ASGIRoutingConnector({"a.internal": app, "b.internal": Mount(app, lifespan="off")})
    async with session_to(app, lifespan="auto") as session:
        connector = connector_of(session)
        for pattern in ("b.internal", "app.internal"):
            with pytest.raises(ValueError, match=r"'app\.internal'"):
                connector.mount(pattern, Mount(app, lifespan="on"))
        with pytest.raises(ValueError, match="one app has one lifespan"):
            async with connector.mounted("b.internal", Mount(app, lifespan="off")):
                pass
        assert list(connector.mounts) == ["app.internal"]
        await fetch(session)
        await connector.unmount("app.internal")
        assert app.log == app.whole_life
        connector.mount("app.internal", Mount(app, lifespan="off"))
        await fetch(session)
    assert app.log == app.whole_life


# State and context.


async def test_each_request_gets_a_shallow_copy_of_the_state() -> None:
    app = Service()
    shared: list[int] = []
    app.state = {"shared": shared, "count": 1}

    async def spoil() -> None:
        app.scopes[-1]["state"]["count"] += 1
        app.scopes[-1]["state"]["shared"].append(len(shared))

    app.at_request = spoil
    async with session_to(app, lifespan="auto") as session:
        await fetch(session)
        await fetch(session)
    lifespan, first, second = (scope["state"] for scope in app.scopes)
    assert lifespan == {"shared": [0, 1], "count": 1}
    assert first == second == {"shared": [0, 1], "count": 2}
    assert lifespan is not first is not second
    assert first["shared"] is second["shared"] is shared


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


@pytest.mark.parametrize("how", ["constructor", "mount", "mounted"])
async def test_a_lifespan_and_its_tasks_have_the_context_of_the_mount_and_a_request_its_own(how: str) -> None:
    app = Service()
    seen: list[str] = []

    async def look() -> None:
        seen.append(variable.get())

    async def look_around() -> None:
        await look()
        await asyncio.create_task(look())
        variable.set("lifespan")

    app.at_startup, app.at_request, app.at_shutdown = look_around, look, look
    variable.set("mounting")
    connector = ASGIRoutingConnector({"app.internal": app} if how == "constructor" else {})
    async with ClientSession("http://app.internal", connector=connector) as session:
        if how == "mount":
            connector.mount("app.internal", app)
        if how == "mounted":
            async with connector.mounted("app.internal", app):
                variable.set("request")
                await fetch(session)
        else:
            variable.set("request")
            await fetch(session)
    assert seen == ["mounting", "mounting", "request", "lifespan"]
    assert variable.get() == "request"


async def test_a_task_group_and_a_cancel_scope_may_be_held_across_the_yield() -> None:
    steps: list[str] = []

    async def worker() -> None:
        steps.append("works")
        try:
            await anyio.sleep_forever()
        finally:
            steps.append("ends")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                group.start_soon(worker)
                yield {"group": group, "scope": scope}
                scope.cancel()
                await anyio.sleep_forever()
            group.cancel_scope.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def read(request: Request) -> bool:
        request.state.group.start_soon(worker)
        return bool(request.state.scope.cancel_called)

    async with session_to(app, lifespan="auto") as session:
        assert await fetch(session) == b"false"
        await settle()
    assert steps == ["works", "works", "ends", "ends"]


# Apps without a lifespan.


async def raises_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await respond(send)


async def returns_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await respond(send)


async def answers_garbage(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send)


async def receives_and_answers_garbage(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await respond(send)


async def looks_for_a_path(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, scope["path"][1:].encode() or b"ok")


async def receives_and_returns(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    if message["type"] == "http.request":
        await respond(send)


async def swallows_the_protocol_error(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await respond(send)
    except Exception:
        return


WITHOUT = [
    raises_at_once,
    returns_at_once,
    answers_garbage,
    receives_and_answers_garbage,
    looks_for_a_path,
    receives_and_returns,
    swallows_the_protocol_error,
]
without_lifespan = pytest.mark.parametrize("app", WITHOUT, ids=lambda app: app.__name__)


@without_lifespan
async def test_an_app_without_lifespan_is_served_under_auto(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with session_to(app, lifespan="auto") as session:
        assert await fetch(session) == b"ok"
        assert await fetch(session) == b"ok"
    assert logged_messages(caplog) == []


@without_lifespan
async def test_an_app_without_lifespan_is_an_error_under_on(app: Any) -> None:
    async with session_to(app, lifespan="on") as session:
        for _ in range(2):
            with pytest.raises(LifespanError, match=r"'app\.internal'.*does not support lifespan"):
                await fetch(session)
    with pytest.raises(LifespanError, match="does not support lifespan"):
        async with ASGIApplicationConnector(app, lifespan="on"):
            pytest.fail("entered")


async def test_what_an_app_without_lifespan_raised_is_the_cause_under_on() -> None:
    async with session_to(raises_at_once, lifespan="on") as session:
        with pytest.raises(LifespanError) as caught:
            await fetch(session)
    assert type(caught.value.__cause__) is AssertionError


# Failures.

boom = ValueError("no database")


async def reports_then_raises(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "told why"})
    await run_turns(20)
    raise boom


async def reports_then_returns(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "told why"})


async def reports_without_message(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed"})


async def raises_in_startup(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise boom


@pytest.mark.parametrize("setting", ["auto", "on"])
@pytest.mark.parametrize(
    ("app", "message", "cause"),
    [
        (reports_then_raises, "told why", boom),
        (reports_then_returns, "told why", None),
        (reports_without_message, "it gives no reason", None),
        (raises_in_startup, "ValueError('no database')", boom),
    ],
)
async def test_a_failed_startup_is_a_lifespan_error_with_message_and_cause(
    app: Any, message: str, cause: BaseException | None, setting: str
) -> None:
    started: list[Scope] = []

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        started.append(scope)
        await app(scope, receive, send)

    async with session_to(counted, lifespan=setting, shutdown_timeout=NEVER) as session:
        results = await asyncio.gather(*(result_of(fetch(session)) for _ in range(3)))
        results.append(await result_of(fetch(session)))
    assert len(started) == 1
    for result in results:
        assert type(result) is LifespanError
        assert str(result) == f"The app at 'app.internal' failed to start: {message}"
        assert result.__cause__ is cause


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
async def test_a_framework_that_reports_and_raises_gives_its_exception_as_the_cause(framework: Any) -> None:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        await raising(boom)()
        yield

    async with session_to(framework(lifespan=lifespan), lifespan="auto", shutdown_timeout=NEVER) as session:
        result = await result_of(fetch(session))
    assert type(result) is LifespanError
    assert result.__cause__ is boom
    assert "no database" in str(result)


async def test_an_app_that_reports_its_failure_and_goes_on_fails_with_its_message_and_no_cause() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "told why"})
        await asyncio.Event().wait()

    async with session_to(app, lifespan="auto", shutdown_timeout=0.05) as session:
        result = await result_of(fetch(session))
    assert type(result) is LifespanError
    assert str(result) == "The app at 'app.internal' failed to start: told why"
    assert result.__cause__ is None


async def test_an_app_that_reports_its_failure_and_receives_again_has_no_more_to_say() -> None:
    """Like Quart: it raises nothing afterwards, so there is no cause to wait for."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.failed", "message": "told why"})

    async with session_to(app, lifespan="auto", shutdown_timeout=8) as session:
        result = await result_of(fetch(session))
        assert type(result) is LifespanError
        assert str(result) == "The app at 'app.internal' failed to start: told why"
        assert result.__cause__ is None


async def test_a_failure_lasts_until_the_app_is_mounted_anew() -> None:
    app = Service()
    app.at_startup = raising(boom)
    async with session_to(app, lifespan="auto") as session:
        assert type(await result_of(fetch(session))) is LifespanError
        app.at_startup = None
        assert type(await result_of(fetch(session))) is LifespanError
        await connector_of(session).unmount("app.internal")
        connector_of(session).mount("app.internal", app)
        assert await fetch(session) == b"ok"


async def test_an_exception_after_the_startup_is_logged_and_raised_at_the_end() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise boom

    session = ClientSession("http://app.internal", connector=ASGIApplicationConnector(app))
    assert await fetch(session) == b"ok"
    await settle()
    assert await fetch(session) == b"ok"
    with pytest.raises(LifespanError, match="no database") as caught:
        await session.close()
    assert caught.value.__cause__ is boom
    assert session.closed
    await session.close()


async def test_a_startup_that_is_cancelled_before_it_begins_has_failed_at_once() -> None:
    app = Service()
    async with session_to(app, lifespan="auto", shutdown_timeout=NEVER) as session:
        before = asyncio.all_tasks()
        request = asyncio.create_task(fetch(session))
        await asyncio.sleep(0)
        (startup,) = asyncio.all_tasks() - before - {request}
        startup.cancel()
        result = await result_of(request)
    assert type(result) is LifespanError
    assert str(result) == "The app at 'app.internal' failed to start: it was cancelled before it began"
    assert app.log == []


class WorkerFailed(Exception): ...


def app_with_worker(framework: Any, fails: asyncio.Event) -> Any:
    """An app whose lifespan holds a task group, with a worker that fails when the test wants it."""

    async def work() -> None:
        await fails.wait()
        raise WorkerFailed("the queue is gone")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
            yield

    async def raw(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send)
            return
        async with asyncio.TaskGroup() as group:
            await receive()
            group.create_task(work())
            await send({"type": "lifespan.startup.complete"})
            await receive()

    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    if framework is None:
        return raw
    app = framework(lifespan=lifespan)
    app.add_route("/", endpoint)
    return app


async def a_record(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    """Wait for the first record from WARNING on, and return it."""
    async with asyncio.timeout(5):
        await until(lambda: logged_messages(caplog))
    (record,) = [each for each in caplog.records if each.name == "asgi_connector" and each.levelno > logging.DEBUG]
    return record


@pytest.mark.parametrize("by", ["close", "unmount", "mounted"])
@pytest.mark.parametrize("framework", [None, Starlette, FastAPI])
async def test_a_lifespan_that_dies_while_it_is_up_is_logged_and_raised_at_its_end(
    framework: Any, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    fails = asyncio.Event()
    app = app_with_worker(framework, fails)
    session = ClientSession("http://app.internal", connector=ASGIRoutingConnector({"other.internal": Service()}))
    connector = connector_of(session)

    async def die() -> None:
        assert await fetch(session) == b"ok"
        fails.set()
        record = await a_record(caplog)
        assert record.levelno == logging.ERROR
        assert record.getMessage() == "The lifespan of the app at 'app.internal' ended with an exception"
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ExceptionGroup)
        assert await fetch(session) == b"ok"  # as on uvicorn

    async def live_and_die() -> None:
        if by == "mounted":
            async with connector.mounted("app.internal", app):
                await die()
            return
        connector.mount("app.internal", app)
        await die()
        await (connector.unmount("app.internal") if by == "unmount" else session.close())

    with pytest.raises(LifespanError, match="failed while it was up") as caught:
        await live_and_die()
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert isinstance(caught.value.__cause__.exceptions[0], WorkerFailed)
    assert len(logged_messages(caplog)) == 1
    await session.close()


async def failed_and_raises(receive: Receive, send: Send) -> None:
    await send({"type": "lifespan.shutdown.failed", "message": "told why"})
    await run_turns(20)
    raise boom


async def failed_and_returns(receive: Receive, send: Send) -> None:
    await send({"type": "lifespan.shutdown.failed", "message": "told why"})


async def failed_without_message(receive: Receive, send: Send) -> None:
    await send({"type": "lifespan.shutdown.failed"})


async def failed_and_hangs(receive: Receive, send: Send) -> None:
    await send({"type": "lifespan.shutdown.failed", "message": "told why"})
    await asyncio.Event().wait()


async def failed_and_receives(receive: Receive, send: Send) -> None:
    await send({"type": "lifespan.shutdown.failed", "message": "told why"})
    await receive()


async def failed_hangs_and_raises(receive: Receive, send: Send) -> None:
    try:
        await failed_and_hangs(receive, send)
    finally:
        raise boom


async def cancels_itself(receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("how", "logs", "message", "cause"),
    [
        (failed_and_raises, "an exception", "told why", ValueError),
        (failed_and_returns, "a failure: told why", "told why", None),
        (failed_without_message, "a failure: it gives no reason", "it gives no reason", None),
        (failed_and_hangs, "a failure: told why", "told why", None),
        (failed_and_receives, "a failure: told why", "told why", None),
        (failed_hangs_and_raises, "a failure: told why", "told why", ValueError),
        (cancels_itself, "an exception", "CancelledError()", asyncio.CancelledError),
    ],
)
async def test_a_lifespan_that_fails_while_it_is_up_is_logged_once_and_served_on(
    how: Any, logs: str, message: str, cause: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await how(receive, send)

    timeout = 10 if how is failed_and_raises else 0.05  # a busy machine takes long for the turns until it raises
    session = ClientSession(connector=ASGIRoutingConnector({"app.internal": app}, shutdown_timeout=timeout))
    assert await fetch(session, "http://app.internal/") == b"ok"
    record = await a_record(caplog)
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"The lifespan of the app at 'app.internal' ended with {logs}"
    assert await fetch(session, "http://app.internal/") == b"ok"
    with pytest.raises(LifespanError) as caught:
        await session.close()
    assert str(caught.value).startswith(f"The app at 'app.internal' failed while it was up: {message}")
    assert type(caught.value.__cause__) is (cause or type(None))
    assert len(logged_messages(caplog)) == 1


async def test_a_failure_that_is_reported_while_up_and_not_over_when_the_connector_closes_is_raised() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await failed_and_hangs(receive, send)

    session = ClientSession(connector=ASGIRoutingConnector({"app.internal": app}, shutdown_timeout=0.2))
    await fetch(session, "http://app.internal/")
    with pytest.raises(LifespanError, match="failed to shut down: told why"):
        await session.close()


async def test_an_app_that_returns_after_its_startup_is_served_and_closes_well() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})

    async with session_to(app, lifespan="on") as session:
        assert await fetch(session) == b"ok"


@pytest.mark.parametrize("message", [{"type": "lifespan.startup.complete"}, {"type": "http.response.start"}])
async def test_a_message_out_of_order_is_an_error_in_the_app(message: Message) -> None:
    app = Service()
    caught: list[Exception] = []

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_twice(first: Message) -> None:
            await send(first)
            try:
                await send(message)
            except Exception as exc:
                caught.append(exc)

        await app(scope, receive, send_twice if scope["type"] == "lifespan" else send)

    async with session_to(lifespan, lifespan="auto") as session:
        await fetch(session)
    assert f"Unexpected ASGI message '{message['type']}' sent" in str(caught[0])
    assert app.log == app.whole_life


# Failures to stop.


async def lives(how_it_ends: Callable[[Receive, Send], Awaitable[None]], scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await respond(send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await how_it_ends(receive, send)


async def shutdown_failed(receive: Receive, send: Send) -> None:
    await send({"type": "lifespan.shutdown.failed", "message": "told why"})


async def shutdown_failed_and_raises(receive: Receive, send: Send) -> None:
    await send({"type": "lifespan.shutdown.failed", "message": "told why"})
    raise boom


async def raises_in_shutdown(receive: Receive, send: Send) -> None:
    raise boom


@pytest.mark.parametrize(
    ("how", "message", "cause"),
    [
        (shutdown_failed, "told why", None),
        (shutdown_failed_and_raises, "told why", boom),
        (raises_in_shutdown, "ValueError('no database')", boom),
    ],
)
@pytest.mark.parametrize("by", ["close", "unmount", "mounted"])
async def test_a_failed_shutdown_is_raised_by_what_waits_for_it(
    how: Any, message: str, cause: BaseException | None, by: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await lives(how, scope, receive, send)

    session = ClientSession("http://app.internal", connector=ASGIRoutingConnector({"other.internal": Service()}))
    connector = connector_of(session)

    async def live_and_die() -> None:
        if by == "mounted":
            async with connector.mounted("app.internal", app):
                await fetch(session)
            return
        connector.mount("app.internal", app)
        await fetch(session)
        await (connector.unmount("app.internal") if by == "unmount" else session.close())

    with pytest.raises(LifespanError) as caught:
        await live_and_die()
    assert str(caught.value) == f"The app at 'app.internal' failed to shut down: {message}"
    assert caught.value.__cause__ is cause
    await session.close()


async def test_several_failures_to_stop_are_a_group_after_all_have_stopped_and_the_fallback_has_closed() -> None:
    log: list[str] = []
    apps = {name: Service(name, log) for name in "abc"}
    errors = {name: ValueError(name) for name in "ac"}
    for name, error in errors.items():
        apps[name].at_shutdown = raising(error)
    fallback = ASGIApplicationConnector(Service())
    session = ClientSession(connector=ASGIRoutingConnector(apps, fallback=fallback))
    for name in "abc":
        await fetch(session, f"http://{name}/")
    with pytest.raises(ExceptionGroup) as caught:
        await session.close()
    assert [exc.__cause__ for exc in caught.value.exceptions] == [errors["c"], errors["a"]]
    assert all(type(exc) is LifespanError for exc in caught.value.exceptions)
    assert log[6:] == ["c stops", "b stops", "b stopped", "a stops"]
    assert fallback.closed


async def test_a_failure_to_stop_of_a_replaced_app_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = Service()
    app.at_shutdown = raising(boom)
    async with session_to(app, lifespan="auto") as session:
        await fetch(session)
        connector_of(session).mount("app.internal", Service())
        await app.stopping.wait()
        await until(lambda: logged_messages(caplog) == ["An app that is mounted no more failed to shut down"])


async def test_a_shutdown_that_never_ends_is_cancelled_and_says_so() -> None:
    app = Service()
    cancelled: list[bool] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    app.at_shutdown = forever
    session = ClientSession("http://a", connector=ASGIApplicationConnector(app, shutdown_timeout=0.05))
    await fetch(session)
    result = await result_of(session.close())
    assert type(result) is LifespanError
    assert "did not end within 0.05 seconds" in str(result)
    assert cancelled == [True]


async def test_an_app_that_has_completed_its_shutdown_and_receives_again_has_stopped() -> None:
    """Some apps have a loop around receive() that never ends. Servers treat the message as the app's end."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send)
            return
        while True:
            await send({"type": (await receive())["type"] + ".complete"})

    session = ClientSession("http://a", connector=ASGIApplicationConnector(app, shutdown_timeout=0.1))
    await fetch(session)
    assert await result_of(session.close()) is None


# Waiting for a startup.


@pytest.mark.parametrize("limit", ["connect", "sock_connect"])
@pytest.mark.parametrize("at_session", [True, False])
async def test_a_startup_that_takes_too_long_cuts_the_request_and_a_later_one_joins_it(
    limit: str, at_session: bool
) -> None:
    app = Service()
    may_start = asyncio.Event()
    app.at_startup = may_start.wait
    settings: Any = {limit: 0.01}
    short = ClientTimeout(**settings)
    of_session = short if at_session else ClientTimeout()
    async with session_to(app, lifespan="auto", session_timeout=of_session) as session:
        with pytest.raises(ConnectionTimeoutError):
            await (fetch(session) if at_session else _text_of(session, short))
        later = asyncio.create_task(_text_of(session, ClientTimeout()))
        await settle()
        may_start.set()
        assert await later == b"ok"
    assert app.log == app.whole_life


async def _text_of(session: ClientSession, timeout: ClientTimeout) -> bytes:
    async with session.get("/", timeout=timeout) as response:
        return await response.read()


async def test_total_cuts_a_startup_too() -> None:
    app = Service()
    app.at_startup = asyncio.Event().wait
    async with session_to(app, lifespan="auto", shutdown_timeout=0) as session:
        with pytest.raises(TimeoutError):
            await _text_of(session, ClientTimeout(total=0.01))


@pytest.mark.parametrize("setting", ["auto", "on"])
async def test_a_lifespans_own_timeout_error_is_no_timeout_of_the_connection(setting: str) -> None:
    own = TimeoutError("the database took too long")
    app = Service()
    app.at_startup = raising(own)
    async with session_to(app, lifespan=setting) as session:
        with pytest.raises(LifespanError, match="took too long") as caught:
            await _text_of(session, ClientTimeout(connect=30, sock_connect=30))
    assert not isinstance(caught.value, TimeoutError)
    assert caught.value.__cause__ is own


async def test_an_app_that_uses_a_timeout_of_its_own_in_the_startup_starts() -> None:
    app = Service()

    async def times_out() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()

    app.at_startup = times_out
    async with session_to(app, lifespan="auto") as session:
        assert await _text_of(session, ClientTimeout(connect=30)) == b"ok"


async def test_the_others_go_on_waiting_when_the_first_requester_is_cancelled() -> None:
    app = Service()
    may_start = asyncio.Event()
    app.at_startup = may_start.wait
    async with session_to(app, lifespan="auto") as session:
        first, *others = (asyncio.create_task(fetch(session)) for _ in range(4))
        await app.starting.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        may_start.set()
        assert await asyncio.gather(*others) == [b"ok"] * 3
    assert app.log == app.whole_life


async def test_a_request_that_waits_for_a_startup_is_refused_when_the_connector_closes() -> None:
    app = Service()
    may_start = asyncio.Event()
    app.at_startup = may_start.wait
    session = ClientSession("http://a", connector=ASGIApplicationConnector(app, shutdown_timeout=NEVER))
    request = asyncio.create_task(fetch(session))
    await app.starting.wait()
    closing = asyncio.create_task(session.close())
    result = await result_of(request)
    assert isinstance(result, ClientConnectionError)
    assert not closing.done()
    may_start.set()
    assert await result_of(closing) is None
    assert app.log == app.whole_life


async def test_a_startup_that_never_ends_is_cancelled_with_a_warning_when_the_connector_closes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Service()
    app.at_startup = asyncio.Event().wait
    session = ClientSession("http://a", connector=ASGIApplicationConnector(app, shutdown_timeout=0.01))
    request = asyncio.create_task(fetch(session))
    await app.starting.wait()
    assert await result_of(session.close()) is None
    assert isinstance(await result_of(request), ClientConnectionError)
    (message,) = logged_messages(caplog)
    assert message.startswith("Cancelled the startup of the app at '*', which did not end in time, and waited at ")
    assert message.endswith("in __call__: await self.at_startup()")


async def test_a_request_that_waits_for_the_startup_of_an_app_that_is_replaced_reaches_the_new_app() -> None:
    old, new = Service("old"), Service("new")
    old.at_startup = asyncio.Event().wait
    async with session_to(old, lifespan="auto", shutdown_timeout=0.05) as session:
        request = asyncio.create_task(fetch(session))
        await old.starting.wait()
        connector_of(session).mount("app.internal", new)
        assert await result_of(request) == b"ok"
    assert new.log == new.whole_life


# Entering the connector.


async def test_entering_starts_every_app_at_the_same_time_and_leaving_stops_them_in_reverse_order() -> None:
    log: list[str] = []
    apps = {name: Service(name, log) for name in "abc"}
    turn = {name: asyncio.Event() for name in "abc"}
    turn["c"].set()

    def wait_for_turn(name: str) -> Hook:
        async def hook() -> None:
            await turn[name].wait()
            if name != "a":
                turn[{"c": "b", "b": "a"}[name]].set()

        return hook

    for name, app in apps.items():
        app.at_startup = wait_for_turn(name)
    async with ASGIRoutingConnector(apps) as connector:
        assert log == ["a starts", "b starts", "c starts", "c started", "b started", "a started"]
        async with ClientSession(connector=connector, connector_owner=False) as session:
            assert await fetch(session, "http://a/") == b"ok"
    assert log[6:] == ["a stops", "a stopped", "b stops", "b stopped", "c stops", "c stopped"]
    assert connector.closed


async def test_apps_that_had_started_are_stopped_in_reverse_order_when_another_one_fails() -> None:
    log: list[str] = []
    apps = {name: Service(name, log) for name in "abc"}

    async def fail_last() -> None:
        await settle()
        assert "b started" in log
        raise boom

    apps["c"].at_startup = fail_last
    connector = ASGIRoutingConnector(apps)
    with pytest.raises(LifespanError, match="'c' failed to start: ValueError") as caught:
        async with connector:
            pytest.fail("entered")
    assert caught.value.__cause__ is boom
    assert log[-4:] == ["b stops", "b stopped", "a stops", "a stopped"]
    assert connector.closed


async def test_several_failures_to_start_are_a_group() -> None:
    apps = {name: Service(name) for name in "abc"}
    errors = {name: ValueError(name) for name in "ac"}
    for name, error in errors.items():
        apps[name].at_startup = raising(error)
    with pytest.raises(ExceptionGroup) as caught:
        async with ASGIRoutingConnector(apps):
            pytest.fail("entered")
    assert {exc.__cause__ for exc in caught.value.exceptions} == set(errors.values())
    assert apps["b"].log == apps["b"].whole_life


async def test_failures_to_stop_do_not_hide_the_failure_to_start_and_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[str] = []
    apps = {name: Service(name, log) for name in "abc"}
    apps["a"].at_shutdown = apps["b"].at_shutdown = raising(ValueError("shutdown"))

    async def fail_last() -> None:
        await settle()
        assert "b started" in log
        raise boom

    apps["c"].at_startup = fail_last
    with pytest.raises(LifespanError, match="'c' failed to start") as caught:
        async with ASGIRoutingConnector(apps):
            pytest.fail("entered")
    assert caught.value.__cause__ is boom
    assert logged_messages(caplog)
    assert "'a' failed to shut down" in caplog.text
    assert "'b' failed to shut down" in caplog.text


async def test_entering_that_is_cancelled_closes() -> None:
    app, hanging = Service(), Service()
    hanging.at_startup = asyncio.Event().wait
    connector = ASGIRoutingConnector({"a": app, "b": hanging}, shutdown_timeout=0.01)
    entering = asyncio.create_task(connector.__aenter__())
    await hanging.starting.wait()
    await settle()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert connector.closed
    assert app.log == app.whole_life


async def test_a_mounted_block_in_an_entered_connector_starts_at_once_and_stops_at_its_end() -> None:
    app = Service()
    async with ASGIRoutingConnector({}) as connector:
        async with connector.mounted("a", app):
            assert app.log == ["app starts", "app started"]
        assert app.log == app.whole_life


async def test_a_mounted_block_in_a_connector_that_was_not_entered_starts_at_the_first_request() -> None:
    app = Service()
    async with session_to({}, lifespan="auto") as session:
        async with connector_of(session).mounted("a", app):
            assert app.log == []
            await fetch(session, "http://a/")
        assert app.log == app.whole_life


async def test_a_mounted_block_whose_app_fails_to_start_is_not_entered_and_leaves_nothing_mounted() -> None:
    app = Service()
    app.at_startup = raising(boom)
    async with ASGIRoutingConnector({}) as connector:
        with pytest.raises(LifespanError) as caught:
            async with connector.mounted("a", app):
                pytest.fail("entered")
        assert caught.value.__cause__ is boom
        assert list(connector.mounts) == []


async def test_an_app_mounted_in_an_entered_connector_starts_at_its_first_request() -> None:
    app = Service()
    async with ASGIRoutingConnector({}) as connector:
        connector.mount("a", app)
        await settle()
        assert app.log == []
        async with ClientSession(connector=connector, connector_owner=False) as session:
            await fetch(session, "http://a/")
    assert app.log == app.whole_life


# Circles.


@pytest.mark.parametrize("eager", [False, True], ids=["lazy tasks", "eager tasks"])
@pytest.mark.parametrize("names", ["a", "ab", "abc"])
async def test_startups_in_a_circle_are_an_error_that_names_it(names: str, eager: bool) -> None:
    apps = {name: Service(name) for name in names}
    with eager_tasks() if eager else nullcontext():
        async with session_to(apps, lifespan="auto", shutdown_timeout=0.1) as session:

            def calls(name: str) -> Hook:
                return lambda: fetch(session, f"http://{name}/")

            for name, following in zip(names, names[1:] + names[0], strict=True):
                apps[name].at_startup = calls(following)
            result = await result_of(fetch(session, "http://a/"))
    causes: list[object] = []
    while isinstance(result, BaseException):
        causes.append(result)
        result = result.__cause__
    assert [type(cause) for cause in causes] == [LifespanError] * (len(names) + 1)
    assert "in a circle" in str(causes[-1])
    assert all(repr(name) in str(causes[-1]) for name in names)


async def test_a_circle_through_an_app_that_has_started_is_found() -> None:
    apps = {name: Service(name) for name in "abc"}
    async with session_to(apps, lifespan="auto", shutdown_timeout=0.1) as session:
        await fetch(session, "http://b/")
        apps["a"].at_startup = lambda: fetch(session, "http://b/")
        apps["b"].at_request = lambda: fetch(session, "http://c/")
        apps["c"].at_startup = lambda: fetch(session, "http://a/")
        result = await result_of(fetch(session, "http://a/"))
    assert type(result) is LifespanError
    assert "in a circle" in str(result)


async def test_a_circle_is_found_when_the_connector_is_entered() -> None:
    apps = {name: Service(name) for name in "ab"}
    connector = ASGIRoutingConnector(apps, shutdown_timeout=0.1)
    async with ClientSession(connector=connector, connector_owner=False) as session:
        apps["a"].at_startup = lambda: fetch(session, "http://b/")
        apps["b"].at_startup = lambda: fetch(session, "http://a/")
        result = await result_of(connector.__aenter__())
    failures = result.exceptions if isinstance(result, ExceptionGroup) else [result]
    assert all(type(failure) is LifespanError for failure in failures)
    assert "in a circle" in str(failures[0])


async def test_startups_that_call_one_another_without_a_circle_start_in_the_order_of_their_needs() -> None:
    log: list[str] = []
    apps = {name: Service(name, log) for name in "abc"}
    async with session_to(apps, lifespan="auto") as session:
        apps["a"].at_startup = lambda: asyncio.gather(fetch(session, "http://b/"), fetch(session, "http://c/"))
        apps["b"].at_startup = lambda: fetch(session, "http://c/")
        assert await asyncio.gather(*(fetch(session, f"http://{name}/") for name in "cba")) == [b"ok"] * 3
    assert [step for step in log if step.endswith("started")] == ["c started", "b started", "a started"]
    assert [step for step in log if step.endswith("stopped")] == ["a stopped", "b stopped", "c stopped"]


async def test_an_app_that_is_stopping_and_calls_its_own_next_life_does_not_wait_for_itself() -> None:
    app = Service()
    may_go_on = asyncio.Event()
    result: list[object] = []
    async with session_to(app, lifespan="auto", shutdown_timeout=0.1) as session:

        async def call_myself() -> None:
            app.at_shutdown = None
            await may_go_on.wait()
            result.append(await result_of(fetch(session)))

        app.at_shutdown = call_myself
        await fetch(session)
        unmount = asyncio.create_task(connector_of(session).unmount("app.internal"))
        await app.stopping.wait()
        connector_of(session).mount("app.internal", app)
        may_go_on.set()
        assert await result_of(unmount) is None
    assert type(result[0]) is LifespanError


# Closing.


async def test_a_service_may_call_another_one_while_it_shuts_down() -> None:
    log: list[str] = []
    first, second = Service("first", log), Service("second", log)
    async with session_to({"first": first, "second": second}, lifespan="auto") as session:
        second.at_shutdown = lambda: fetch(session, "http://first/")
        await fetch(session, "http://first/")
        await fetch(session, "http://second/")
    assert log[4:] == ["second stops", "second stopped", "first stops", "first stopped"]
    assert [scope["type"] for scope in first.scopes] == ["lifespan", "http", "http"]


@pytest.mark.timeout(5)
async def test_a_service_that_shuts_down_may_be_the_first_to_call_another_one() -> None:
    app, other = Service("app"), Service("other")
    got: list[object] = []

    async def call() -> None:
        got.append(await result_of(fetch(session, "http://other/")))

    app.at_shutdown = call
    async with session_to({"app": app, "other": other}, lifespan="auto") as session:
        await fetch(session, "http://app/")
    assert got == [b"ok"]
    assert app.log == app.whole_life
    assert other.log == other.whole_life


@pytest.mark.timeout(5)
async def test_a_service_that_shuts_down_may_wait_for_the_startup_of_another_one() -> None:
    app, other = Service("app"), Service("other")
    may_start = asyncio.Event()
    other.at_startup = may_start.wait
    got: list[object] = []

    async def call() -> None:
        request = asyncio.create_task(fetch(session, "http://other/"))
        await settle()
        may_start.set()
        got.append(await result_of(request))

    app.at_shutdown = call
    async with session_to({"app": app, "other": other}, lifespan="auto", shutdown_timeout=NEVER) as session:
        await fetch(session, "http://app/")
        refused = asyncio.create_task(result_of(fetch(session, "http://other/")))
        await other.starting.wait()
    assert isinstance(await refused, ClientConnectionError)
    assert got == [b"ok"]
    assert other.log == other.whole_life


async def test_a_service_that_shuts_down_cannot_call_one_that_has_been_shut_down() -> None:
    first, second = Service("first"), Service("second")
    got: list[object] = []
    async with session_to({"first": first, "second": second}, lifespan="auto") as session:

        async def call() -> None:
            got.append(await result_of(fetch(session, "http://second/")))

        first.at_shutdown = call
        await fetch(session, "http://first/")
        await fetch(session, "http://second/")
    assert isinstance(got[0], ClientConnectionError)
    assert second.log == second.whole_life


@pytest.mark.parametrize("when", ["startup", "shutdown"])
async def test_close_from_inside_a_lifespan_starts_the_closing_and_does_not_wait_for_it(when: str) -> None:
    app = Service()
    connector = ASGIApplicationConnector(app, shutdown_timeout=NEVER)
    session = ClientSession("http://a", connector=connector)

    async def close() -> None:
        await connector.close()
        app.log.append("close returned")

    if when == "startup":
        app.at_startup = close
        assert isinstance(await result_of(fetch(session)), ClientConnectionError)
    else:
        app.at_shutdown = close
        await fetch(session)
    assert await result_of(session.close()) is None
    assert [step for step in app.log if step != "close returned"] == app.whole_life
    assert "close returned" in app.log
    assert connector.closed


async def test_a_lifespan_may_close_its_own_session_on_the_shared_connector() -> None:
    apps = {name: Service(name) for name in "ab"}
    connector = ASGIRoutingConnector(apps, shutdown_timeout=NEVER)
    own = ClientSession(connector=connector)
    apps["a"].at_startup = lambda: fetch(own, "http://b/")
    apps["a"].at_shutdown = own.close
    session = ClientSession(connector=connector)
    await fetch(session, "http://a/")
    assert await result_of(session.close()) is None
    assert own.closed
    assert apps["a"].log == apps["a"].whole_life
    assert apps["b"].log == apps["b"].whole_life


async def test_lifespans_stop_after_the_last_request_has_ended() -> None:
    log: list[str] = []
    app = Service(log=log)
    may_end = asyncio.Event()
    running = asyncio.Event()

    async def linger(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        running.set()
        log.append(str((await receive())["type"]))
        await may_end.wait()
        log.append("request ended")

    session = ClientSession("http://a", connector=ASGIApplicationConnector(linger, shutdown_timeout=NEVER))
    request = asyncio.create_task(fetch(session))
    await running.wait()
    closing = asyncio.create_task(session.close())
    assert isinstance(await result_of(request), ClientConnectionError)
    await settle()
    assert log == ["app starts", "app started", "http.disconnect"]
    may_end.set()
    await closing
    assert log[3:] == ["request ended", "app stops", "app stopped"]


async def test_a_request_that_does_not_end_is_cancelled_before_the_lifespan_stops() -> None:
    log: list[str] = []
    app = Service(log=log)

    running = asyncio.Event()

    async def forever() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            log.append("request cancelled")

    app.at_request = forever
    session = ClientSession("http://a", connector=ASGIApplicationConnector(app, shutdown_timeout=0.01))
    request = asyncio.create_task(fetch(session))
    await running.wait()
    await session.close()
    assert isinstance(await result_of(request), ClientConnectionError)
    assert log == ["app starts", "app started", "request cancelled", "app stops", "app stopped"]


async def test_a_second_close_is_harmless_and_a_concurrent_one_waits_for_the_lifespans_too() -> None:
    app = Service()
    may_stop = asyncio.Event()
    app.at_shutdown = may_stop.wait
    connector = ASGIApplicationConnector(app, shutdown_timeout=NEVER)
    session = ClientSession("http://a", connector=connector)
    await fetch(session)
    closings = [asyncio.create_task(session.close()), asyncio.ensure_future(connector.close())]
    await app.stopping.wait()
    await settle()
    assert not any(closing.done() for closing in closings)
    assert not connector.closed
    assert isinstance(await result_of(fetch(session)), ClientConnectionError)
    may_stop.set()
    await asyncio.gather(*closings)
    await connector.close()
    assert session.closed
    assert app.log == app.whole_life


async def test_close_waits_for_an_app_that_an_unmount_is_shutting_down() -> None:
    app = Service()
    may_stop = asyncio.Event()
    app.at_shutdown = may_stop.wait
    async with session_to(app, lifespan="auto", shutdown_timeout=NEVER) as session:
        await fetch(session)
        unmount = asyncio.create_task(connector_of(session).unmount("app.internal"))
        await app.stopping.wait()
        closing = asyncio.create_task(session.close())
        await settle()
        returned_early = closing.done()
        may_stop.set()
        await asyncio.gather(unmount, closing)
        assert not returned_early


async def test_close_ends_an_app_whose_unmount_was_cancelled_in_its_shutdown() -> None:
    app = Service()
    app.at_shutdown = asyncio.Event().wait
    async with session_to(app, lifespan="auto", shutdown_timeout=0.05) as session:
        await fetch(session)
        unmount = asyncio.create_task(connector_of(session).unmount("app.internal"))
        await app.stopping.wait()
        unmount.cancel()
        with pytest.raises(asyncio.CancelledError):
            await unmount
        await result_of(session.close())
    (task,) = set(app.tasks)
    assert isinstance(task, asyncio.Task)
    was_done = task.done()
    task.cancel()
    assert was_done


async def test_an_app_mounted_anew_starts_though_the_unmount_before_was_cancelled_in_its_shutdown() -> None:
    app = Service()
    may_stop = asyncio.Event()
    app.at_shutdown = may_stop.wait
    async with session_to(app, lifespan="auto", shutdown_timeout=0.1) as session:
        await fetch(session)
        unmount = asyncio.create_task(connector_of(session).unmount("app.internal"))
        await app.stopping.wait()
        connector_of(session).mount("app.internal", app)
        unmount.cancel()
        with pytest.raises(asyncio.CancelledError):
            await unmount
        may_stop.set()
        assert await result_of(fetch(session)) == b"ok"
    assert app.log == app.whole_life * 2


async def test_an_app_stops_when_its_last_request_ends_though_the_unmount_that_waited_was_cancelled() -> None:
    app = Service()
    running, may_end = asyncio.Event(), asyncio.Event()

    async def linger() -> None:
        running.set()
        await may_end.wait()

    app.at_request = linger
    async with session_to(app, lifespan="auto") as session:
        request = asyncio.create_task(fetch(session))
        await running.wait()
        unmount = asyncio.create_task(connector_of(session).unmount("app.internal"))
        await settle()
        unmount.cancel()
        with pytest.raises(asyncio.CancelledError):
            await unmount
        may_end.set()
        assert await request == b"ok"
        await until(lambda: app.log == app.whole_life)


@pytest.mark.usefixtures("little_patience")
async def test_close_does_not_hang_on_a_replaced_app_that_goes_on_though_it_was_cancelled() -> None:
    running, may_end = asyncio.Event(), asyncio.Event()

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        running.set()
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    async with session_to(stubborn, lifespan="off", shutdown_timeout=0) as session:
        request = asyncio.create_task(fetch(session))
        await running.wait()
        connector_of(session).mount("app.internal", Service())
        closing = asyncio.create_task(session.close())
        done, _ = await asyncio.wait([closing], timeout=4)
        may_end.set()
        await asyncio.gather(closing, request, return_exceptions=True)
        await settle()
    assert done == {closing}


async def test_close_stops_the_apps_after_a_finaliser_has_closed_the_pool() -> None:
    app = Service()
    connector = ASGIApplicationConnector(app)
    session = ClientSession("http://a", connector=connector)
    await fetch(session)
    connector._close()
    await connector.close()
    (task,) = set(app.tasks)
    assert isinstance(task, asyncio.Task)
    task.cancel()
    await asyncio.wait([task])
    assert app.log == app.whole_life


async def test_a_reported_failure_has_its_cause_with_eager_tasks_too() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "told why"})
        raise boom

    with eager_tasks():
        async with session_to(app, lifespan="auto") as session:
            result = await result_of(fetch(session))
    assert isinstance(result, LifespanError)
    assert result.__cause__ is boom


async def test_unmount_and_the_end_of_a_mounted_block_from_inside_the_apps_own_lifespan_are_errors() -> None:
    app = Service()
    got: list[object] = []
    async with session_to(app, lifespan="auto") as session:

        async def unmount_myself() -> None:
            got.append(await result_of(connector_of(session).unmount("app.internal")))

        app.at_startup = unmount_myself
        assert await fetch(session) == b"ok"
        assert list(connector_of(session).mounts) == ["app.internal"]
    assert [type(exc) for exc in got] == [RuntimeError]
    assert app.log == app.whole_life


async def test_a_failed_shutdown_of_an_app_that_goes_on_is_told_in_its_own_words() -> None:
    async def fail_and_go_on(receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.shutdown.failed", "message": "told why"})
        await asyncio.Event().wait()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await lives(fail_and_go_on, scope, receive, send)

    session = ClientSession("http://a", connector=ASGIApplicationConnector(app, shutdown_timeout=0.05))
    await fetch(session)
    result = await result_of(session.close())
    assert str(result) == "The app at '*' failed to shut down: told why"


async def test_an_app_is_unmounted_while_close_shuts_it_down() -> None:
    app = Service()
    may_stop = asyncio.Event()
    app.at_shutdown = may_stop.wait
    async with session_to(app, lifespan="auto", shutdown_timeout=NEVER) as session:
        await fetch(session)
        connector = connector_of(session)
        close = asyncio.ensure_future(session.close())
        await app.stopping.wait()
        unmount = asyncio.ensure_future(connector.unmount("app.internal"))
        await settle()
        assert not unmount.done()
        may_stop.set()
        await asyncio.gather(close, unmount)
    assert app.log == app.whole_life


async def test_a_failed_shutdown_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = Service()
    app.at_shutdown = raising(boom)
    async with session_to(app, lifespan="auto") as session:
        await fetch(session)
        connector = connector_of(session)
        connector.close()
        await until(lambda: connector.closed)
        assert logged_messages(caplog) == ["An app failed to shut down"]


async def test_a_startup_that_is_still_under_way_when_another_one_fails_may_end() -> None:
    log: list[str] = []
    slow, failing = Service("slow", log), Service("failing", log)
    may_start = asyncio.Event()
    slow.at_startup = may_start.wait

    async def fail_when_the_other_has_begun() -> None:
        await slow.starting.wait()
        raise boom

    failing.at_startup = fail_when_the_other_has_begun
    connector = ASGIRoutingConnector({"slow": slow, "failing": failing}, shutdown_timeout=NEVER)
    entering = asyncio.ensure_future(connector.__aenter__())
    await slow.starting.wait()
    await settle()
    assert not entering.done()
    may_start.set()
    result = await result_of(entering)
    assert type(result) is LifespanError
    assert result.__cause__ is boom
    assert log == ["slow starts", "failing starts", "slow started", "slow stops", "slow stopped"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_leaves_a_lifespan_through_the_loop(error: type[BaseException]) -> None:
    app = Service()
    app.at_startup = raising(error())

    async def main() -> object:
        async with session_to(app, lifespan="auto") as session:
            return await result_of(fetch(session))

    with asyncio.Runner() as runner:
        call = runner.get_loop().create_task(main())
        with pytest.raises(error):
            runner.get_loop().run_until_complete(call)
        assert isinstance(runner.get_loop().run_until_complete(call), LifespanError)


async def test_the_parts_of_a_lifespan_say_what_they_are() -> None:
    app = Service()
    async with session_to(app, lifespan="auto") as session:
        [mounted] = connector_of(session)._services.table
        assert repr(mounted.lifespan) == "<Lifespan of 'app.internal', not started yet>"
        await fetch(session)
        assert repr(mounted.lifespan) == "<Lifespan of 'app.internal', started>"


async def test_a_startup_that_waits_for_another_one_in_two_calls_is_no_circle() -> None:
    apps = {name: Service(name) for name in "abc"}
    may_start = asyncio.Event()
    apps["b"].at_startup = may_start.wait
    async with session_to(apps, lifespan="auto") as session:

        async def call_b_twice() -> None:
            await asyncio.gather(fetch(session, "http://b/"), fetch(session, "http://b/"))

        apps["a"].at_startup = call_b_twice
        apps["c"].at_startup = lambda: fetch(session, "http://a/")
        first = asyncio.ensure_future(fetch(session, "http://a/"))
        await apps["b"].starting.wait()
        await settle()
        second = asyncio.ensure_future(fetch(session, "http://c/"))
        await apps["c"].starting.wait()
        await settle()
        may_start.set()
        assert [await first, await second] == [b"ok", b"ok"]
