"""Closing: who sees it, what it waits for and how long, and that nothing is left."""

import asyncio
import gc
import itertools
import logging
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientConnectionError, ClientError, ClientSession, ClientTimeout, TraceConfig

from asgi_connector import ASGIApplicationConnector, ASGIConnectorError, ASGIRoutingConnector
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import LOOPS, session_to
from tests.support.raw import request_for
from tests.support.reports import logged
from tests.support.sessions import connector_of, fetch
from tests.support.waiting import run_turns, settle

ENOUGH = 10.0
"""A `shutdown_timeout` for apps that end by themselves. A test that waits for it sees its app cancelled."""

NEVER = 3600.0
"""A `shutdown_timeout` that must not be used up: it is longer than the test's own timeout."""

every_loop = pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)


async def answer(send: Send, body: bytes = b"", *, more: bool = False) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"hello")


class Lingering:
    """An app that ignores the disconnect, and continues until the test lets it end, or until it is cancelled."""

    def __init__(self, first: Callable[[Send], Awaitable[None]] | None = None) -> None:
        self.first = first
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = asyncio.Event()
        self.was_cancelled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.first is not None:
            await self.first(send)
        self.started.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        finally:
            self.ended.set()


async def in_flight(session: ClientSession, app: Lingering, url: str = "/") -> "asyncio.Task[bytes]":
    """A request whose app has started. Some tests do not check how it ends."""
    task = asyncio.create_task(fetch(session, url))
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await app.started.wait()
    return task


def closing(it: ClientSession | ASGIRoutingConnector) -> "asyncio.Future[None]":
    """Begin to close *it*."""
    return asyncio.ensure_future(it.close())


def is_closed(it: ClientSession | ASGIRoutingConnector) -> bool:
    return it.closed


def others() -> set["asyncio.Task[Any]"]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


# What a running app sees, and what its client gets.


async def test_a_running_app_sees_the_disconnect_and_ends_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    steps: list[object] = []
    started = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        started.set()
        steps.append(await receive())
        await run_turns(20)
        await answer(send, b"to nobody")
        steps.append("committed")

    async with session_to(app, shutdown_timeout=ENOUGH) as session:
        request = asyncio.create_task(fetch(session))
        await started.wait()
        await session.close()
        assert steps == [{"type": "http.disconnect"}, "committed"]
        with pytest.raises(ClientConnectionError):
            await request
    assert logged(caplog) == []


async def test_an_app_that_is_blocked_in_send_wakes_up() -> None:
    sent: list[str] = []
    blocked = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, bytes(1024 * 1024), more=True)
        blocked.set()
        await send({"type": "http.response.body", "body": b"x"})
        sent.append("the rest")

    async with session_to(app, shutdown_timeout=ENOUGH) as session, session.get("/"):
        await blocked.wait()
        await settle()
        assert sent == []
        await session.close()
        assert sent == ["the rest"]


async def test_a_client_that_waits_for_the_head_gets_a_connection_error() -> None:
    app = Lingering()
    async with session_to(app, shutdown_timeout=0) as session:
        request = await in_flight(session, app)
        await session.close()
        with pytest.raises(ClientConnectionError):
            await request


@pytest.mark.parametrize("reads", ["already", "afterwards"])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"100")]], ids=["chunked", "with a length"])
async def test_a_client_that_reads_the_body_gets_an_error(headers: list[tuple[bytes, bytes]], reads: str) -> None:
    """Otherwise it would wait for the rest until its own timeout, five minutes by default."""

    async def first_part(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})

    app = Lingering(first_part)
    async with session_to(app, shutdown_timeout=0) as session:
        response = await session.get("/")
        assert await response.content.read(4) == b"part"
        if reads == "already":
            reading = asyncio.create_task(response.read())
            await settle()
            await session.close()
        else:
            await session.close()
            reading = asyncio.create_task(response.read())
        with pytest.raises(ClientError):
            await asyncio.wait_for(reading, 5)
        response.close()


async def test_what_an_app_raises_while_closing_is_logged_and_goes_nowhere_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        started.set()
        await receive()
        raise LookupError("no client")

    async with session_to(app) as session:
        request = asyncio.create_task(fetch(session, "/orders?id=1"))
        await started.wait()
        await session.close()
        with pytest.raises(ClientConnectionError):
            await request
    [(level, message)] = logged(caplog)
    assert level == logging.ERROR
    assert "GET http://app.internal/orders?id=1" in message
    assert caplog.records[-1].exc_info is not None
    assert isinstance(caplog.records[-1].exc_info[1], LookupError)


async def test_an_app_cannot_reach_other_services_once_the_connector_closes() -> None:
    outcome: list[object] = []
    started = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        started.set()
        await receive()
        try:
            await fetch(session, "http://other.internal/")
        except ClientConnectionError as exc:
            outcome.append(type(exc))

    async with session_to({"app.internal": app, "other.internal": hello}) as session:
        request = asyncio.create_task(fetch(session))
        await started.wait()
        await session.close()
        assert outcome == [ClientConnectionError]
        with pytest.raises(ClientConnectionError):
            await request


# How much time apps have.


@pytest.mark.parametrize("shutdown_timeout", [0, 0.05])
async def test_an_app_that_ignores_the_disconnect_is_cancelled_with_a_warning_that_names_app_and_path(
    shutdown_timeout: float, caplog: pytest.LogCaptureFixture
) -> None:
    inner = Lingering()

    async def stubborn_app(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)

    async with session_to(stubborn_app, shutdown_timeout=shutdown_timeout) as session:
        request = await in_flight(session, inner, "/reports/7?page=2")
        await session.close()
        assert inner.was_cancelled
        assert others() <= {request}
        with pytest.raises(ClientConnectionError):
            await request
    [(level, message)] = logged(caplog)
    assert level == logging.WARNING
    assert "stubborn_app" in message
    assert "/reports/7?page=2" in message


async def test_an_app_whose_client_left_before_has_as_long() -> None:
    app = Lingering()
    async with session_to(app, shutdown_timeout=ENOUGH) as session:
        request = await in_flight(session, app)
        request.cancel()
        await asyncio.wait({request})
        close = closing(session)
        await settle()
        assert not close.done()
        app.may_end.set()
        await close
        assert not app.was_cancelled


class ClockOfItsOwn(asyncio.SelectorEventLoop):
    """An event loop whose clock the test can move forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def test_shutdown_timeout_counts_from_when_the_client_left(caplog: pytest.LogCaptureFixture) -> None:
    """There are two apps. The client of one has left long ago, the other's leaves when the connector closes."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ClockOfItsOwn)
        overdue, in_time = Lingering(), Lingering()
        apps = {"overdue.internal": overdue, "in-time.internal": in_time}
        async with session_to(apps, shutdown_timeout=NEVER, session_timeout=ClientTimeout()) as session:
            gone = await in_flight(session, overdue, "http://overdue.internal/old")
            gone.cancel()
            await asyncio.wait({gone})
            loop.ahead += NEVER - 60
            still_here = await in_flight(session, in_time, "http://in-time.internal/new")
            loop.ahead += 120

            close = closing(session)
            await overdue.ended.wait()
            assert overdue.was_cancelled
            await settle()
            assert not close.done()
            in_time.may_end.set()
            await close
            assert not in_time.was_cancelled
            with pytest.raises(ClientConnectionError):
                await still_here

    with asyncio.Runner(loop_factory=ClockOfItsOwn) as runner:
        runner.run(main())
    [(level, message)] = logged(caplog)
    assert level == logging.WARNING
    assert "/old" in message


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_apps_may_end_in_any_order_while_they_are_waited_for(
    order: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    apps = [Lingering() for _ in range(3)]
    async with session_to({f"{n}.internal": app for n, app in enumerate(apps)}, shutdown_timeout=ENOUGH) as session:
        requests = [await in_flight(session, app, f"http://{n}.internal/") for n, app in enumerate(apps)]
        close = closing(session)
        for n in order:
            await settle()
            assert not close.done()
            apps[n].may_end.set()
            await apps[n].ended.wait()
        await close
        assert not any(app.was_cancelled for app in apps)
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        assert [isinstance(outcome, ClientConnectionError) for outcome in outcomes] == [True] * 3
    assert logged(caplog) == []


@pytest.mark.parametrize("shutdown_timeout", [0, 0.05])
async def test_every_app_that_is_overdue_is_cancelled(
    shutdown_timeout: float, caplog: pytest.LogCaptureFixture
) -> None:
    apps = [Lingering() for _ in range(5)]
    async with session_to(
        {f"{n}.internal": app for n, app in enumerate(apps)}, shutdown_timeout=shutdown_timeout
    ) as session:
        requests = [await in_flight(session, app, f"http://{n}.internal/path-{n}") for n, app in enumerate(apps)]
        await session.close()
        assert [app.was_cancelled for app in apps] == [True] * 5
        await asyncio.gather(*requests, return_exceptions=True)
    records = logged(caplog)
    assert [level for level, _ in records] == [logging.WARNING] * 5
    for n in range(5):
        assert sum(f"/path-{n}" in message for _, message in records) == 1


async def test_a_cancelled_app_is_waited_for_while_it_cleans_up() -> None:
    """However little time was left: its rollback needs the loop too."""
    cleaned_up: list[str] = []
    started = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await run_turns(20)
            cleaned_up.append("rolled back")

    async with session_to(app, shutdown_timeout=0) as session:
        request = asyncio.create_task(fetch(session))
        await started.wait()
        await session.close()
        assert cleaned_up == ["rolled back"]
        assert others() <= {request}
        await asyncio.wait({request})


async def test_an_app_that_swallows_the_cancellation_and_ends_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    steps: list[str] = []
    started = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            steps.append("swallowed")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        steps.append("ended")

    async with session_to(app, shutdown_timeout=0.05) as session:
        request = asyncio.create_task(fetch(session))
        await started.wait()
        await session.close()
        assert steps == ["swallowed", "ended"]
        await asyncio.wait({request})
    assert [level for level, _ in logged(caplog)] == [logging.WARNING]


@pytest.mark.usefixtures("little_patience")
async def test_an_app_that_goes_on_though_it_was_cancelled_does_not_hold_up_closing_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def deaf_app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    async with session_to(deaf_app, shutdown_timeout=0.05) as session:
        request = asyncio.create_task(fetch(session, "/for/ever"))
        await started.wait()
        try:
            await session.close()
            assert not ended.is_set()
            records = logged(caplog)
            assert [level for level, _ in records] == [logging.WARNING, logging.ERROR]
            assert all("/for/ever" in message for _, message in records)
        finally:
            may_end.set()
        await ended.wait()
        await asyncio.wait({request})
        await settle()


# Background tasks, after a complete response.


async def test_closing_waits_for_background_tasks_of_answered_requests(caplog: pytest.LogCaptureFixture) -> None:
    app = Lingering(lambda send: answer(send, b"done"))
    async with session_to(app, shutdown_timeout=ENOUGH) as session:
        assert await fetch(session) == b"done"
        close = closing(session)
        await settle()
        assert not close.done()
        app.may_end.set()
        await close
        assert app.ended.is_set()
        assert not app.was_cancelled
    assert logged(caplog) == []


@pytest.mark.parametrize("shutdown_timeout", [0, 0.05])
async def test_an_overdue_background_task_is_cancelled_with_a_warning(
    shutdown_timeout: float, caplog: pytest.LogCaptureFixture
) -> None:
    app = Lingering(lambda send: answer(send, b"done"))
    async with session_to(app, shutdown_timeout=shutdown_timeout) as session:
        assert await fetch(session, "/mail") == b"done"
        await session.close()
        assert app.was_cancelled
        assert others() == set()
    [(level, message)] = logged(caplog)
    assert level == logging.WARNING
    assert "/mail" in message


async def test_a_background_task_on_a_connection_that_serves_the_next_request_is_waited_for_too() -> None:
    apps = [Lingering(lambda send: answer(send, b"done")), Lingering()]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[int(scope["path"][1:])](scope, receive, send)

    async with session_to(app, shutdown_timeout=ENOUGH) as session:
        assert await fetch(session, "/0") == b"done"
        request = await in_flight(session, apps[1], "/1")
        close = closing(session)
        apps[1].may_end.set()
        await apps[1].ended.wait()
        await settle()
        assert not close.done()
        apps[0].may_end.set()
        await close
        await asyncio.wait({request})


# Closing twice, at the same time, cancelled, from unusual places, or not awaited.


async def test_closing_twice_is_harmless() -> None:
    async with session_to(hello) as session:
        connector = connector_of(session)
        assert await fetch(session) == b"hello"
        await session.close()
        await connector.close()
        await connector.close()
        await session.close()
        assert is_closed(connector)
        assert is_closed(session)


async def test_concurrent_calls_of_close_all_wait_for_the_running_app() -> None:
    app = Lingering()
    async with session_to(app, shutdown_timeout=ENOUGH) as session:
        connector = connector_of(session)
        request = await in_flight(session, app)
        closes = [closing(session), closing(connector), closing(connector)]
        await settle()
        assert [close.done() for close in closes] == [False] * 3
        assert not is_closed(connector)
        app.may_end.set()
        await asyncio.gather(*closes)
        assert app.ended.is_set()
        assert not app.was_cancelled
        assert is_closed(connector)
        await asyncio.wait({request})


async def test_a_cancelled_close_cancels_the_apps_at_once_and_closes_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    apps = [Lingering() for _ in range(3)]
    async with session_to({f"{n}.internal": app for n, app in enumerate(apps)}, shutdown_timeout=NEVER) as session:
        connector = connector_of(session)
        requests = [await in_flight(session, app, f"http://{n}.internal/") for n, app in enumerate(apps)]
        close = closing(session)
        await settle()
        close.cancel()
        with pytest.raises(asyncio.CancelledError):
            await close
        assert [app.was_cancelled for app in apps] == [True] * 3
        assert is_closed(connector)
        assert others() <= set(requests)
        await asyncio.gather(*requests, return_exceptions=True)
        await connector.close()
    assert [level for level, _ in logged(caplog)] == [logging.WARNING] * 3


async def test_a_close_that_runs_into_a_timeout_cancels_the_apps_and_raises_it() -> None:
    app = Lingering()
    async with session_to(app, shutdown_timeout=NEVER) as session:
        request = await in_flight(session, app)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await session.close()
        assert app.was_cancelled
        await asyncio.wait({request})


async def test_cancelling_one_of_two_concurrent_closes_ends_the_other_too() -> None:
    app = Lingering()
    async with session_to(app, shutdown_timeout=NEVER) as session:
        connector = connector_of(session)
        request = await in_flight(session, app)
        first, second = closing(connector), closing(connector)
        await settle()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await second
        assert app.was_cancelled
        assert is_closed(connector)
        await asyncio.wait({request})


async def test_a_close_that_is_cancelled_before_it_has_begun_to_wait_closes_all_the_same() -> None:
    app = Lingering()
    async with session_to(app, shutdown_timeout=0) as session:
        connector = connector_of(session)
        request = await in_flight(session, app)
        close = closing(connector)
        close.cancel()
        with pytest.raises(asyncio.CancelledError):
            await close
        await connector.close()
        assert is_closed(connector)
        assert app.was_cancelled
        await asyncio.wait({request})


CloseFrom = Callable[[ASGIRoutingConnector, ClientSession], Awaitable[None]]


async def close_connector(connector: ASGIRoutingConnector, session: ClientSession) -> None:
    await connector.close()


async def close_session(connector: ASGIRoutingConnector, session: ClientSession) -> None:
    await session.close()


async def close_in_a_child_task(connector: ASGIRoutingConnector, session: ClientSession) -> None:
    await asyncio.create_task(close_connector(connector, session))


async def close_twice(connector: ASGIRoutingConnector, session: ClientSession) -> None:
    await asyncio.gather(connector.close(), connector.close())


async def leave_the_connectors_block(connector: ASGIRoutingConnector, session: ClientSession) -> None:
    await connector.__aexit__(None, None, None)


from_inside = pytest.mark.parametrize(
    "close", [close_connector, close_session, close_in_a_child_task, close_twice, leave_the_connectors_block]
)


@from_inside
async def test_close_from_inside_an_app_starts_the_closing_and_does_not_wait_for_that_app(
    close: CloseFrom, caplog: pytest.LogCaptureFixture
) -> None:
    steps: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await close(connector, session)
        steps.append("went on")
        steps.append(await receive())
        await run_turns(20)
        steps.append("ended")

    async with session_to(app, shutdown_timeout=ENOUGH) as session:
        connector = connector_of(session)
        with pytest.raises(ClientConnectionError):
            await fetch(session, method="POST")
        await connector.close()
        assert steps == ["went on", {"type": "http.disconnect"}, "ended"]
        assert is_closed(connector)
    assert logged(caplog) == []


@from_inside
async def test_close_from_an_app_that_another_app_has_called_waits_for_neither(
    close: CloseFrom, caplog: pytest.LogCaptureFixture
) -> None:
    steps: list[str] = []

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ClientConnectionError):
            await fetch(session, "http://inner.internal/", "POST")
        steps.append("outer ended")

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await close(connector, session)
        await run_turns(20)
        steps.append("inner ended")

    async with session_to({"app.internal": outer, "inner.internal": inner}, shutdown_timeout=ENOUGH) as session:
        connector = connector_of(session)
        with pytest.raises(ClientConnectionError):
            await fetch(session, method="POST")
        await connector.close()
        assert sorted(steps) == ["inner ended", "outer ended"]
    assert logged(caplog) == []


async def test_close_from_inside_an_app_of_the_fallback_does_not_wait_for_that_app(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await session.close()
        steps.append("went on")
        steps.append(await receive())

    fallback = ASGIRoutingConnector({"app.internal": app}, lifespan="off", shutdown_timeout=0.05)
    async with session_to({}, fallback=fallback) as session:
        connector = connector_of(session)
        with pytest.raises(ClientConnectionError):
            await fetch(session, method="POST")
        await connector.close()
        assert steps == ["went on", {"type": "http.disconnect"}]
        assert is_closed(fallback)
    assert logged(caplog) == []


async def test_an_app_that_closes_and_then_ignores_the_disconnect_is_cancelled() -> None:
    inner = Lingering()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await connector.close()
        await inner(scope, receive, send)

    async with session_to(app, shutdown_timeout=0.05) as session:
        connector = connector_of(session)
        with pytest.raises(ClientConnectionError):
            await fetch(session)
        await connector.close()
        assert inner.was_cancelled


EAGER_TASKS: Any = getattr(asyncio, "eager_task_factory", None)


@pytest.mark.skipif(EAGER_TASKS is None, reason="Python 3.12 brought eager tasks")
def test_close_in_the_first_step_of_an_app_works_with_eager_tasks_too() -> None:
    steps: list[object] = []

    async def main() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await connector.close()
            await run_turns(20)
            steps.append(await receive())

        async with session_to(app, shutdown_timeout=ENOUGH) as session:
            connector = connector_of(session)
            with pytest.raises(ClientConnectionError):
                await fetch(session, method="POST")
            await connector.close()
            assert is_closed(connector)
            assert steps == [{"type": "http.disconnect"}]

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.get_loop().set_task_factory(EAGER_TASKS)
        runner.run(main())


async def test_a_close_that_nobody_awaits_closes_all_the_same() -> None:
    app = Lingering()
    async with session_to(app, shutdown_timeout=ENOUGH) as session:
        connector = connector_of(session)
        request = await in_flight(session, app)
        connector.close()
        with pytest.raises(ClientConnectionError):
            await request
        app.may_end.set()
        await app.ended.wait()
        await connector.close()
        assert is_closed(connector)


@every_loop
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "with an app running"])
def test_a_close_that_nobody_awaits_leaves_nothing_behind_when_the_loop_ends_at_once(
    new_loop: Callable[[], asyncio.AbstractEventLoop], busy: bool
) -> None:
    """As with aiohttp's own connectors: calling `close()` closes, even without awaiting it."""
    fallbacks: list[aiohttp.TCPConnector] = []
    connectors: list[ASGIRoutingConnector] = []
    app = Lingering()

    async def main() -> None:
        fallback = aiohttp.TCPConnector()
        session = ClientSession(
            connector=ASGIRoutingConnector(
                {"hello.internal": hello, "app.internal": app}, lifespan="off", fallback=fallback
            )
        )
        assert await fetch(session, "http://hello.internal/") == b"hello"
        if busy:
            await in_flight(session, app, "http://app.internal/")
        connector = connector_of(session)
        connector.close()
        fallbacks.append(fallback)
        connectors.append(connector)
        session.detach()

    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
        assert [connector.closed for connector in connectors] == [True]
        assert [fallback.closed for fallback in fallbacks] == [True]
        connectors.clear()
        fallbacks.clear()
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


# _close(), which finalisers call.


@every_loop
def test_the_finalisers_close_works_when_the_loop_is_dead(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """fsspec's finaliser closes the connector of a session synchronously, on a loop that is closed."""
    fallback: list[ASGIRoutingConnector] = []

    async def main() -> tuple[ClientSession, ASGIRoutingConnector]:
        fallback.append(ASGIRoutingConnector({"*": hello}, lifespan="off"))
        connector = ASGIRoutingConnector({"app.internal": hello}, lifespan="off", fallback=fallback[0])
        session = ClientSession(connector=connector)
        assert await fetch(session, "http://app.internal/") == b"hello"
        assert await fetch(session, "http://elsewhere.internal/") == b"hello"
        return session, connector

    with asyncio.Runner(loop_factory=new_loop) as runner:
        session, connector = runner.run(main())
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert not is_closed(connector)
        assert connector._close() == []
        assert is_closed(connector)
        assert fallback[0].closed
        assert is_closed(session)
        assert not connector._conns
        assert connector._close() == []
        fallback.clear()
        del session, connector
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


@every_loop
def test_a_connector_that_was_forgotten_says_so_as_aiohttps_does(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> ASGIRoutingConnector:
        session = ClientSession(connector=ASGIRoutingConnector({"app.internal": hello}, lifespan="off"))
        assert await fetch(session, "http://app.internal/") == b"hello"
        connector = connector_of(session)
        session.detach()
        return connector

    with asyncio.Runner(loop_factory=new_loop) as runner:
        connector = runner.run(main())
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del connector
        gc.collect()
    [warning] = caught
    assert warning.category is ResourceWarning
    assert "Unclosed connector" in str(warning.message)


async def test_the_finalisers_close_on_a_living_loop_disconnects_everybody() -> None:
    steps: list[Message] = []
    started, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        started.set()
        steps.append(await receive())
        ended.set()

    async with session_to({"app.internal": app, "hello.internal": hello}) as session:
        connector = connector_of(session)
        assert await fetch(session, "http://hello.internal/") == b"hello"
        request = asyncio.create_task(fetch(session))
        await started.wait()
        waiters = connector._close()
        assert is_closed(connector)
        assert not connector._conns
        assert not connector._acquired
        await asyncio.gather(*waiters, return_exceptions=True)
        await ended.wait()
        assert steps == [{"type": "http.disconnect"}]
        with pytest.raises(Exception, match=r"closed|disconnected"):
            await request


async def test_closing_after_the_finalisers_close_waits_for_what_still_runs(caplog: pytest.LogCaptureFixture) -> None:
    """The finaliser cannot wait. A caller that awaits `close()` does not return before everything has ended."""
    app = Lingering()
    async with session_to(app, shutdown_timeout=0.05) as session:
        request = await in_flight(session, app, "/late")
        connector = connector_of(session)
        connector._close()
        await connector.close()
        assert app.was_cancelled
        assert others() <= {request}
        await asyncio.wait({request})
    assert [level for level, _ in logged(caplog)] == [logging.WARNING]


async def test_the_finalisers_close_in_the_middle_of_a_closing_is_harmless() -> None:
    app = Lingering()
    async with session_to(app, shutdown_timeout=ENOUGH) as session:
        connector = connector_of(session)
        request = await in_flight(session, app)
        close = closing(session)
        await settle()
        connector._close()
        assert is_closed(connector)
        await settle()
        assert not close.done()
        app.may_end.set()
        await close
        await asyncio.wait({request})


# Nothing is left, and nothing new starts.


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, bytes(1024 * 1024), more=True)
    await asyncio.Event().wait()


async def linger(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"done")
    await asyncio.Event().wait()


async def only_connect(session: ClientSession) -> None:
    pass


async def a_few_at_once(session: ClientSession) -> None:
    await asyncio.gather(*(fetch(session, "http://hello.internal/") for _ in range(5)))


async def a_failure(session: ClientSession) -> None:
    with pytest.raises(LookupError):
        await fetch(session, "http://fail.internal/")


async def an_abandoned_request(session: ClientSession) -> None:
    with pytest.raises(TimeoutError):
        await session.get("http://hang.internal/", timeout=ClientTimeout(total=0.01))


async def an_abandoned_body(session: ClientSession) -> None:
    async with session.get("http://stream.internal/") as response:
        await response.content.read(1)


async def a_background_task(session: ClientSession) -> None:
    assert await fetch(session, "http://linger.internal/") == b"done"


async def many_of_everything(session: ClientSession) -> None:
    for what in (a_few_at_once, a_failure, an_abandoned_request, an_abandoned_body, a_background_task):
        await what(session)


@pytest.mark.parametrize(
    "use",
    [
        only_connect,
        a_few_at_once,
        a_failure,
        an_abandoned_request,
        an_abandoned_body,
        a_background_task,
        many_of_everything,
    ],
)
async def test_no_task_and_no_timer_is_left_after_the_session_has_closed(
    use: Callable[[ClientSession], Coroutine[Any, Any, None]],
) -> None:
    loop = asyncio.get_running_loop()
    apps = {"hello": hello, "hang": hang, "fail": fail, "stream": stream, "linger": linger}
    async with session_to({f"{name}.internal": app for name, app in apps.items()}, shutdown_timeout=0) as session:
        connector = connector_of(session)
        await use(session)
        await session.close()
        assert others() == set()
        assert not connector._conns
        assert not connector._acquired
        if isinstance(loop, asyncio.BaseEventLoop):
            timers: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]
            assert [timer for timer in timers if not timer.cancelled()] == []


async def test_nothing_connects_after_close() -> None:
    async with session_to(hello) as session, ClientSession(connector=session.connector, connector_owner=False) as other:
        connector = connector_of(session)
        request = await request_for(session)
        await session.close()
        with pytest.raises(ClientConnectionError, match="closed"):
            await connector.connect(request, [], ClientTimeout())
        with pytest.raises(ClientConnectionError, match="closed"):
            connector.mount("late.internal", hello)
        with pytest.raises(ClientConnectionError, match="closed"):
            async with connector.mounted("late.internal", hello):
                pass
        with pytest.raises(ClientConnectionError, match="closed"):
            async with connector:
                pass
        with pytest.raises(RuntimeError, match="Session is closed"):
            await other.get("http://app.internal/")


async def test_nothing_connects_after_the_finalisers_close_not_even_to_a_fallback_that_stays_open() -> None:
    fallback = ASGIRoutingConnector({"*": hello}, lifespan="off")
    async with fallback, session_to(hello, fallback=fallback, fallback_owner=False) as session:
        connector = connector_of(session)
        requests = [await request_for(session, url) for url in ("http://app.internal/", "http://elsewhere.internal/")]
        connector._close()
        for request in requests:
            with pytest.raises(ClientConnectionError, match="closed"):
                await connector.connect(request, [], ClientTimeout())
        assert not is_closed(fallback)


async def test_nothing_connects_while_the_connector_closes() -> None:
    app = Lingering()
    async with session_to({"app.internal": app, "hello.internal": hello}, shutdown_timeout=ENOUGH) as session:
        connector = connector_of(session)
        assert await fetch(session, "http://hello.internal/") == b"hello"
        request = await in_flight(session, app)
        close = closing(connector)
        assert not is_closed(connector)
        with pytest.raises(ClientConnectionError, match="Connector is closed"):
            await fetch(session, "http://hello.internal/")
        with pytest.raises(ClientConnectionError, match="Connector is closed"):
            connector.mount("late.internal", hello)
        await settle()
        with pytest.raises(ClientConnectionError, match="Connector is closed"):
            await fetch(session, "http://hello.internal/")
        app.may_end.set()
        await close
        await asyncio.wait({request})


class Halt:
    """Holds a request in one of aiohttp's tracing hooks."""

    def __init__(self, hook: str) -> None:
        self.reached = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.trace = TraceConfig()
        getattr(self.trace, hook).append(self._halt)

    async def _halt(self, *_: object) -> None:
        self.reached.set()
        await self.may_go_on.wait()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "hook", ["on_connection_create_start", "on_connection_create_end", "on_connection_reuseconn", "on_request_start"]
)
async def test_a_request_that_is_connecting_when_the_closing_begins_is_refused(hook: str, method: str) -> None:
    """Whether closing still waits for an app when the request continues, or has ended."""
    calls: list[str] = []
    lingering = Lingering()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])
        await answer(send)

    halt = Halt(hook)
    async with session_to({"app.internal": app, "lingering.internal": lingering}, shutdown_timeout=ENOUGH) as session:
        connector = connector_of(session)
        if hook == "on_connection_reuseconn":
            await fetch(session, "/first")
        busy = await in_flight(session, lingering, "http://lingering.internal/")
        traced = ClientSession(connector=connector, connector_owner=False, trace_configs=[halt.trace])
        async with traced:
            request = asyncio.create_task(traced.request(method, "http://app.internal/refused"))
            await halt.reached.wait()
            close = closing(session)
            await settle()
            halt.may_go_on.set()
            with pytest.raises(ClientConnectionError):
                await request
        assert "/refused" not in calls
        lingering.may_end.set()
        await close
        assert others() <= {busy}
        await asyncio.wait({busy})


@pytest.mark.parametrize("limits", [{"limit": 1}, {"limit_per_host": 1}], ids=str)
async def test_a_request_that_waits_for_a_free_connection_when_the_closing_begins_is_refused(
    limits: dict[str, int],
) -> None:
    apps = [Lingering(), Lingering()]
    calls = iter(apps)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await next(calls)(scope, receive, send)

    waiting = asyncio.Event()
    trace = TraceConfig()

    async def queued(*_: object) -> None:
        waiting.set()

    trace.on_connection_queued_start.append(queued)
    async with session_to(app, shutdown_timeout=ENOUGH, session_trace_configs=[trace], **limits) as session:
        first = await in_flight(session, apps[0])
        second = asyncio.create_task(fetch(session))
        await waiting.wait()
        close = closing(session)
        with pytest.raises(ClientConnectionError):
            await asyncio.wait_for(second, 5)
        assert not apps[1].started.is_set()
        apps[0].may_end.set()
        await close
        assert others() <= {first}
        await asyncio.wait({first})


async def test_a_request_whose_bytes_have_not_been_delivered_never_reaches_its_app() -> None:
    calls: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])
        await answer(send)

    closes: list[asyncio.Future[None]] = []
    trace = TraceConfig()

    async def headers_sent(*_: object) -> None:
        closes.append(closing(connector_of(session)))

    trace.on_request_headers_sent.append(headers_sent)
    async with session_to(app, session_trace_configs=[trace]) as session:
        with pytest.raises(ClientError):
            await session.post("/", data=b"x" * 10)
        await asyncio.gather(*closes)
        assert calls == []


# Who owns the connector.


async def test_a_session_that_does_not_own_the_connector_leaves_it_open() -> None:
    app = Lingering()
    async with session_to({"app.internal": app, "hello.internal": hello}) as session:
        connector = connector_of(session)
        request = await in_flight(session, app)
        async with ClientSession(connector=connector, connector_owner=False) as guest:
            assert await fetch(guest, "http://hello.internal/") == b"hello"
        assert not is_closed(connector)
        assert await fetch(session, "http://hello.internal/") == b"hello"
        app.may_end.set()
        with pytest.raises(ASGIConnectorError, match="returned without starting response"):
            await request


async def test_leaving_the_connectors_block_closes_it() -> None:
    app = Lingering()
    async with ASGIApplicationConnector(app, shutdown_timeout=0, lifespan="off") as connector:
        session = ClientSession(connector=connector, connector_owner=False)
        request = await in_flight(session, app, "http://any.test/")
    assert is_closed(connector)
    assert app.was_cancelled
    with pytest.raises(ClientConnectionError):
        await request
    await session.close()


async def test_a_close_that_is_cancelled_when_all_is_closed_is_cancelled() -> None:
    app = Lingering()
    async with session_to(app, shutdown_timeout=NEVER) as session:
        connector = connector_of(session)
        request = await in_flight(session, app)
        close = closing(connector)
        assert connector._closing.task is not None
        connector._closing.task.add_done_callback(lambda _: close.cancel())
        await settle()
        app.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await close
        assert is_closed(connector)
        assert not app.was_cancelled
        await asyncio.wait({request})


@pytest.mark.parametrize("turns", range(8))
async def test_clients_that_have_just_been_told_to_continue_get_a_connection_error(turns: int) -> None:
    """The interim response has arrived, and the client does not yet wait for the next one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    async with session_to(app) as session:
        requests = [asyncio.create_task(fetch_expecting_to_continue(session)) for _ in range(6)]
        await run_turns(turns)
        await session.close()
        for result in await asyncio.gather(*requests, return_exceptions=True):
            assert isinstance(result, ClientConnectionError) or str(result) == "Session is closed"


async def fetch_expecting_to_continue(session: ClientSession) -> bytes:
    async with session.get("/", expect100=True) as response:
        return await response.read()
