"""`crashed()`: what ends at once, what callers see, and what starts again."""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientConnectorError, WSMsgType, web

from asgi_connector import ASGIApplicationConnector, ASGIRoutingConnector, LifespanError, Mount, faults
from asgi_connector._types import Receive, Scope, Send
from tests.support.leaks import no_task_and_no_timer_is_left
from tests.support.services import Service, System, running
from tests.support.waiting import settle, soon, until

PAYMENTS, ORDERS = "payments.internal", "orders.internal"
REFUSED = "ClientConnectorError"


async def test_callers_are_refused_in_the_block_and_the_app_starts_again_after_it() -> None:
    async with running("orders", "payments") as system, system.connector:
        payments = system["payments"]
        async with system.connector.crashed(PAYMENTS):
            assert await system.outcome("payments") == REFUSED
            assert await system.outcome("orders", "/via/payments") == REFUSED
            assert await system.outcome("orders") == "orders"
            assert (payments.started, payments.stopped, payments.calls) == (1, 0, 0)
        assert (payments.started, payments.stopped) == (2, 0)
        assert await system.outcome("orders", "/via/payments") == "payments"
        await system.connector.close()
        assert (payments.started, payments.stopped) == (2, 1)


async def test_a_refused_call_is_as_that_of_a_server_that_does_not_listen() -> None:
    async with running("payments") as system:
        with system.connector.record() as journal:
            async with system.connector.crashed(PAYMENTS):
                with pytest.raises(ClientConnectorError, match="Connect call failed") as caught:
                    await system.session.get(f"http://{PAYMENTS}/")
        assert caught.value.os_error is caught.value.__cause__
        assert caught.value.errno == errno.ECONNREFUSED
        [call] = journal
        assert (call.state, call.via, call.service, call.fault) == ("failed", "fault", PAYMENTS, faults.Crashed())
        assert "Crashed#40;#41;" in journal.to_mermaid()


async def test_a_request_in_progress_is_reset_and_cancelled() -> None:
    ends: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await receive()
        except BaseException as exc:
            ends.append(exc)
            raise

    async with running(apps={"payments": app}, lifespan="off") as system:
        with system.connector.record() as journal:
            asking = system.start("payments")
            await settle()
            async with system.connector.crashed(PAYMENTS):
                assert [type(exc) for exc in ends] == [asyncio.CancelledError]
                assert await soon(asking) == "ClientOSError"
        assert journal[0].fault == faults.Crashed()
        assert isinstance(journal[0].error, aiohttp.ClientOSError)
        assert (journal[0].error.errno, journal[0].state) == (errno.ECONNRESET, "failed")


async def test_a_request_that_aiohttp_tries_again_is_refused_the_second_time() -> None:
    async with running("payments") as system:
        with system.connector.record() as journal:
            asking = system.start("payments", "/wait", "GET")
            await system["payments"].waiting.wait()
            async with system.connector.crashed(PAYMENTS):
                assert await soon(asking) == REFUSED
        assert [(each.state, each.via) for each in journal] == [("failed", "app"), ("failed", "fault")]


async def test_a_body_is_cut_off_in_its_middle() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await asyncio.Event().wait()

    async with (
        running(apps={"news": app}, lifespan="off") as system,
        system.session.get("http://news.internal/") as response,
    ):
        assert await response.content.readexactly(3) == b"one"
        async with system.connector.crashed("news.internal"):
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


async def test_an_open_websocket_is_cut() -> None:
    async with running("chat") as system, system.session.ws_connect("http://chat.internal/") as websocket:
        await websocket.send_str("hello")
        assert await websocket.receive_str() == "hello"
        async with system.connector.crashed("chat.internal"):
            assert (await soon(websocket.receive())).type is WSMsgType.CLOSED
            assert websocket.close_code == 1006
            assert system["chat"].ended == 1


async def test_idle_connections_are_cut() -> None:
    async with running("payments") as system:
        assert await system.outcome("payments") == "payments"
        async with system.connector.crashed(PAYMENTS):
            await settle()
            assert not system.connector._services.in_flight.connections
        with system.connector.record() as journal:
            assert await system.outcome("payments") == "payments"
        assert journal[0].reused is False


async def test_a_request_that_is_about_to_be_sent_is_reset() -> None:
    async with running("payments") as system, system.connector:
        connected = asyncio.Event()
        go_on = asyncio.Event()

        async def connect(*_: object) -> None:
            connected.set()
            await go_on.wait()

        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(connect)
        trace.freeze()
        async with aiohttp.ClientSession(
            connector=system.connector, connector_owner=False, trace_configs=[trace]
        ) as session:
            asking = asyncio.ensure_future(session.post(f"http://{PAYMENTS}/"))
            await connected.wait()
            async with system.connector.crashed(PAYMENTS):
                go_on.set()
                with pytest.raises(ClientConnectorError):  # it takes another connection, and is refused
                    await soon(asking)


async def test_a_request_that_waits_for_a_free_connection_is_refused_when_there_is_one() -> None:
    async with running("payments", limit=1) as system:
        payments = system["payments"]
        first = system.start("payments", "/wait")
        await payments.waiting.wait()
        second = system.start("payments")
        await settle()
        with system.connector.record() as journal:
            async with system.connector.crashed(PAYMENTS):
                assert await soon(first) == "ClientOSError"
                assert await soon(second) == REFUSED
                assert await system.outcome("payments") == REFUSED
        assert (payments.started, payments.calls) == (2, 1)
        assert [call.fault for call in journal] == [faults.Crashed()]
        assert await system.outcome("payments") == "payments"


async def test_the_calls_that_the_app_had_made_end_with_it() -> None:
    async with running("orders", "payments") as system:
        asking = system.start("orders", "/via/payments")
        slow = system["payments"]
        with system.connector.hold(PAYMENTS, on="request") as held:
            asking = system.start("orders", "/via/payments")
            await held.wait()
            async with system.connector.crashed(ORDERS):
                assert await soon(asking) == "ClientOSError"
        await until(lambda: slow.ended == slow.calls)


async def test_a_factory_makes_a_new_app_and_an_object_keeps_what_it_has() -> None:
    made: list[Service] = []
    system = System()

    def create() -> Service:
        made.append(Service(f"number {len(made) + 1}", system))
        return made[-1]

    apps: dict[str, Any] = {PAYMENTS: Mount(factory=create), ORDERS: Service("orders", system)}
    async with aiohttp.ClientSession(connector=ASGIRoutingConnector(apps)) as session:
        system.session = session
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        assert [await system.outcome(name) for name in ("payments", "orders")] == ["number 1", "orders"]
        async with connector.crashed(PAYMENTS), connector.crashed(ORDERS):
            assert len(made) == 1
        assert [await system.outcome(name) for name in ("payments", "orders")] == ["number 2", "orders"]
        assert apps[ORDERS].calls == 2
        assert [(each.started, each.stopped) for each in made] == [(1, 0), (1, 0)]


async def test_one_app_at_two_patterns_is_down_at_both() -> None:
    async with running("orders", "payments") as system:
        system.connector.mount("pay.internal", system["payments"])
        async with system.connector.crashed("pay.internal"):
            assert await system.outcome("payments") == REFUSED
            assert await system.outcome("pay") == REFUSED
        assert await system.outcome("pay") == "payments"
        assert system["payments"].started == 1


async def test_an_app_that_had_not_started_starts_at_the_end() -> None:
    async with running("payments") as system:
        async with system.connector.crashed(PAYMENTS):
            assert await system.outcome("payments") == REFUSED
            assert system["payments"].started == 0
        assert system["payments"].started == 1


async def test_an_app_without_a_lifespan_is_down_too() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    for setting in ("off", "auto"):
        async with running(apps={"payments": app}, lifespan=setting) as system:
            assert await system.outcome("payments") == "ok"
            async with system.connector.crashed(PAYMENTS):
                assert await system.outcome("payments") == REFUSED
            assert await system.outcome("payments") == "ok"


async def test_the_lifespan_is_cancelled_where_it_waits_and_its_finally_runs() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
            events.append("shutdown")
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        finally:
            events.append("finally")
        await send({"type": "lifespan.shutdown.complete"})

    async with running(apps={"payments": app}) as system, system.connector:
        async with system.connector.crashed(PAYMENTS):
            assert events == ["cancelled", "finally"]
        await system.connector.close()
        assert events == ["cancelled", "finally", "shutdown", "finally"]


async def test_a_crash_during_the_startup_cancels_it_and_refuses_those_who_wait_for_it() -> None:
    begun = asyncio.Event()
    starts = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal starts
        await receive()
        begun.set()
        starts += 1
        if starts == 1:
            await asyncio.Event().wait()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async with running(apps={"payments": app}) as system:
        asking = system.start("payments")
        await begun.wait()
        async with system.connector.crashed(PAYMENTS):
            assert await soon(asking) == REFUSED
        assert starts == 2


async def test_a_startup_that_fails_at_the_end_is_raised_by_the_block() -> None:
    starts = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal starts
        await receive()
        starts += 1
        if starts == 2:
            raise ZeroDivisionError
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async with running(apps={"payments": app}) as system, system.connector:
        with pytest.raises(LifespanError, match=r"^The app at 'payments.internal' failed to start: ") as caught:
            async with system.connector.crashed(PAYMENTS):
                pass
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_startup_that_fails_after_an_exception_of_the_block_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    starts = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal starts
        await receive()
        starts += 1
        if starts == 2:
            raise ZeroDivisionError
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async with running(apps={"payments": app}) as system, system.connector:
        with pytest.raises(KeyError):
            async with system.connector.crashed(PAYMENTS):
                raise KeyError
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.message == "The app at 'payments.internal' failed to start after its crash"


async def test_closing_the_connector_in_the_block_starts_nothing() -> None:
    async with running("orders", "payments") as system, system.connector:
        async with system.connector.crashed(PAYMENTS):
            await system.connector.close()
            with pytest.raises(RuntimeError, match="Session is closed"):
                await system.outcome("payments")
        assert (system["payments"].started, system["payments"].stopped) == (1, 0)
        assert (system["orders"].started, system["orders"].stopped) == (1, 1)
        no_task_and_no_timer_is_left()


async def test_unmounting_in_the_block_starts_nothing() -> None:
    async with running("payments") as system, system.connector:
        async with system.connector.crashed(PAYMENTS):
            await system.connector.unmount(PAYMENTS)
            assert await system.outcome("payments") == "UnmountedHostError"
        assert system["payments"].started == 1


async def test_another_app_in_its_place_answers_in_the_block() -> None:
    async with running("payments", "standby") as system, system.connector:
        async with system.connector.crashed(PAYMENTS):
            async with system.connector.mounted(PAYMENTS, system["standby"]):
                assert await system.outcome("payments") == "standby"
            assert await system.outcome("payments") == REFUSED
        assert await system.outcome("payments") == "payments"


async def test_an_app_under_another_one_is_started_again_too() -> None:
    async with running("payments", "standby") as system, system.connector:
        async with system.connector.crashed(PAYMENTS):
            block = system.connector.mounted(PAYMENTS, system["standby"])
            await block.__aenter__()
        assert system["payments"].started == 2
        await block.__aexit__(None, None, None)
        assert await system.outcome("payments") == "payments"
        assert system["payments"].started == 2


async def test_the_same_app_that_is_mounted_again_in_the_block_is_down_as_well() -> None:
    async with running("payments") as system, system.connector:
        async with system.connector.crashed(PAYMENTS):
            async with system.connector.mounted("pay.internal", system["payments"]):
                assert await system.outcome("pay") == REFUSED
            system.connector.mount(PAYMENTS, system["payments"])
            assert await system.outcome("payments") == REFUSED
        assert await system.outcome("payments") == "payments"


async def test_an_unmounted_app_with_a_request_in_progress_is_left_alone() -> None:
    async with running("payments", "other") as system:
        asking = system.start("payments", "/wait")
        await system["payments"].waiting.wait()
        system.connector.mount(PAYMENTS, system["other"])
        async with system.connector.crashed(PAYMENTS, allow_unused=True):
            system["payments"].go.set()
            assert await soon(asking) == "payments"


@pytest.mark.parametrize("on", ["request", "response"])
async def test_a_message_that_is_held_is_lost_with_the_app(on: Any) -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS, on=on) as held:
            asking = system.start("payments")
            [message] = await held.wait()
            async with system.connector.crashed(PAYMENTS):
                assert await soon(asking) == "ClientOSError"
                assert "lost with its connection" in repr(message)
                message.release()
        assert system["payments"].calls == (0 if on == "request" else 1)


async def test_a_client_behind_a_partition_learns_of_the_crash_at_once() -> None:
    async with running("payments") as system:
        asking = system.start("payments", "/wait")
        await system["payments"].waiting.wait()
        with system.connector.partition({None}, {PAYMENTS}):
            async with system.connector.crashed(PAYMENTS):
                assert await soon(asking) == "ClientOSError"
        assert await system.outcome("payments") == "payments"


# An app that does not end.


@pytest.mark.usefixtures("little_patience")
async def test_a_request_and_a_lifespan_that_swallow_their_cancellation_are_not_waited_for_without_a_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go_on = asyncio.Event()
    started = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal started
        if scope["type"] == "lifespan":
            await receive()
            started += 1
            await send({"type": "lifespan.startup.complete"})
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await go_on.wait()

    async with running(apps={"payments": app}, shutdown_timeout=0.01) as system:
        asking = system.start("payments")
        await settle()
        async with system.connector.crashed(PAYMENTS):
            assert await soon(asking) == "ClientOSError"
        assert started == 2
        messages = [record.message for record in caplog.records if record.levelno == logging.ERROR]
        assert [message.partition(",")[0].partition(": ")[0] for message in messages] == [
            "An app went on though it was cancelled",
            "The lifespan of the app at 'payments.internal' went on though it was cancelled",
        ]
        go_on.set()
        await settle()
        with suppress(LifespanError):
            await system.connector.close()


async def test_what_an_app_raises_when_it_is_cancelled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    async with running(apps={"payments": app}, lifespan="off") as system:
        asking = system.start("payments")
        await settle()
        async with system.connector.crashed(PAYMENTS):
            assert await soon(asking) == "ClientOSError"
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "Unhandled exception after its client had gone: POST http://payments.internal/"
    ]


async def test_a_crash_that_is_cancelled_leaves_no_app_down() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        except asyncio.CancelledError:
            await go_on.wait()

    async def crash(connector: ASGIRoutingConnector) -> None:
        async with connector.crashed(PAYMENTS):
            pass

    async with running(apps={"payments": app}) as system:
        assert await system.outcome("payments") == "ok"
        crashing = asyncio.ensure_future(crash(system.connector))
        await settle()
        crashing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await crashing
        asking = system.start("payments")
        await settle()
        assert not asking.done()
        go_on.set()
        assert await soon(asking) == "ok"


# An aiohttp.web.Application.


async def test_an_application_of_aiohttp_web_crashes_as_an_asgi_app_does() -> None:
    events: list[str] = []
    waiting = asyncio.Event()

    async def context(app: web.Application) -> AsyncIterator[None]:
        events.append("start")
        try:
            yield
        finally:
            events.append("finally")

    async def note(app: web.Application) -> None:
        events.append("signal")

    async def wait(request: web.Request) -> web.Response:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            events.append("request ended")
        raise AssertionError

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def echo(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        with suppress(asyncio.CancelledError):
            await websocket.receive()
        return websocket

    application = web.Application()
    application.add_routes([web.post("/", hello), web.post("/wait", wait), web.get("/echo", echo)])
    nested = web.Application()
    for each in (application, nested):
        each.cleanup_ctx.append(context)
        each.on_shutdown.append(note)
        each.on_cleanup.append(note)
    application.add_subapp("/nested", nested)
    async with running(apps={"payments": application}) as system, system.connector:
        assert await system.outcome("payments") == "hello"
        asking = system.start("payments", "/wait")
        await waiting.wait()
        async with system.session.ws_connect(f"http://{PAYMENTS}/echo") as websocket:
            events.clear()
            async with system.connector.crashed(PAYMENTS):
                assert events == ["request ended", "finally", "finally"]
                assert await soon(asking) == "ClientOSError"
                assert (await soon(websocket.receive())).type is WSMsgType.CLOSED
                assert await system.outcome("payments") == REFUSED
        assert events[3:] == ["start", "start"]
        assert await system.outcome("payments") == "hello"
        events.clear()
        await system.connector.close()
        assert sorted(events) == ["finally"] * 2 + ["signal"] * 4


async def test_a_cleanup_context_that_fails_when_it_is_cancelled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def context(app: web.Application) -> AsyncIterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            raise ZeroDivisionError from None

    application = web.Application()
    application.cleanup_ctx.append(context)
    async with running(apps={"payments": application}) as system, system.connector:
        async with system.connector.crashed(PAYMENTS):
            [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "has failed when it was cancelled" in record.message
        assert record.exc_info is not None
        assert record.exc_info[0] is ZeroDivisionError


async def test_a_cleanup_context_that_goes_on_after_its_cancellation_ends_as_well() -> None:
    async def context(app: web.Application) -> AsyncIterator[None]:
        with suppress(asyncio.CancelledError):
            yield

    application = web.Application()
    application.cleanup_ctx.append(context)
    async with running(apps={"payments": application}) as system, system.connector:
        async with system.connector.crashed(PAYMENTS):
            assert await system.outcome("payments") == REFUSED
        assert await system.outcome("payments") == "404: Not Found"


# Mistakes.


async def test_an_app_cannot_crash_twice_at_the_same_time() -> None:
    async with running("payments") as system, system.connector:
        async with system.connector.crashed(PAYMENTS):
            for use in (system.connector.crashed(PAYMENTS).__aenter__(), system.connector.restart(PAYMENTS)):
                with pytest.raises(RuntimeError, match=r"'payments.internal'\): the app is down already, until the"):
                    await use
        assert await system.outcome("payments") == "payments"


async def test_an_app_cannot_crash_itself() -> None:
    errors: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for use in (system.connector.crashed(PAYMENTS).__aenter__(), system.connector.restart(PAYMENTS)):
            with pytest.raises(RuntimeError) as caught:
                await use
            errors.append(str(caught.value))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async with running(apps={"payments": app}, lifespan="off") as system:
        assert await system.outcome("payments") == "ok"
    assert errors == [
        f"{method}('payments.internal') cannot be called from inside one of the app's own requests, or its lifespan: "
        "it would have to wait for itself"
        for method in ("crashed", "restart")
    ]


async def test_an_unknown_pattern_is_refused_with_the_nearest_spelling() -> None:
    async with running("payments") as system:
        for use in (
            system.connector.crashed("paymets.internal").__aenter__(),
            system.connector.restart("paymets.internal"),
        ):
            with pytest.raises(
                ValueError, match=r"^'paymets.internal' is not mounted. Did you mean 'payments.internal'"
            ):
                await use


async def test_a_crash_that_affects_nothing_fails() -> None:
    async with running("orders", "payments") as system:
        with pytest.raises(AssertionError) as caught:
            async with system.connector.crashed(PAYMENTS):
                await system.outcome("orders")
        assert str(caught.value) == (
            "crashed('payments.internal') has affected nothing: the app had not started, and there was no request to "
            "it.\n"
            "  POST http://orders.internal/: 200\n"
            "A block that affects nothing has tested nothing; allow_unused=True permits it."
        )
        async with system.connector.crashed("orders.internal"):
            pass  # it had started


async def test_a_crash_that_is_not_entered_does_nothing_and_warns() -> None:
    async with running("payments") as system:
        with pytest.warns(
            RuntimeWarning, match=r"^crashed\('payments.internal'\) at .* write 'async with connector.cra"
        ):
            system.connector.crashed(PAYMENTS)


async def test_one_app_for_every_host_crashes_too() -> None:
    system = System()
    connector = ASGIApplicationConnector(Service("one", system))
    async with aiohttp.ClientSession(connector=connector) as system.session:
        async with connector.crashed("*"):
            assert await system.outcome("any") == REFUSED
        assert await system.outcome("any") == "one"
