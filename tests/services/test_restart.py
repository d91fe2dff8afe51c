"""`restart()`: an app ends in order and starts again, and its callers wait."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from asgi_connector import ASGIApplicationConnector, ASGIRoutingConnector, LifespanError, Mount, faults
from asgi_connector._types import App, Receive, Scope, Send
from tests.support.services import Service, System, running
from tests.support.waiting import settle, soon, until

PAYMENTS, ORDERS = "payments.internal", "orders.internal"
RUNNING: Final = web.AppKey("running", list[str])


async def test_requests_in_flight_end_then_the_app_stops_and_starts_and_new_requests_wait_for_that() -> None:
    async with running("payments") as system, system.connector:
        payments = system["payments"]
        earlier = system.start("payments", "/wait")
        await payments.waiting.wait()
        restarting = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        await settle()
        later = system.start("payments")
        await settle()
        assert (payments.started, payments.stopped, payments.calls) == (1, 0, 1)
        assert [each.done() for each in (earlier, later, restarting)] == [False] * 3
        payments.go.set()
        await soon(restarting)
        assert (payments.started, payments.stopped) == (2, 1)
        assert await soon(earlier) == await soon(later) == "payments"
        assert (payments.started, payments.stopped, payments.calls) == (2, 1, 2)


async def test_a_factory_makes_a_new_app_for_each_start() -> None:
    made: list[Service] = []
    system = System()

    async def create() -> Service:
        made.append(Service(f"number {len(made) + 1}", system))
        return made[-1]

    connector = ASGIRoutingConnector({PAYMENTS: Mount(factory=create)})
    async with aiohttp.ClientSession(connector=connector) as system.session:
        assert await system.outcome("payments") == "number 1"
        earlier = system.start("payments", "/wait")
        await made[0].waiting.wait()
        restarting = asyncio.ensure_future(connector.restart(PAYMENTS))
        later = system.start("payments")
        await settle()
        made[0].go.set()
        await soon(restarting)
        assert await soon(earlier) == "number 1"
        assert await soon(later) == "number 2"
        assert [(each.started, each.stopped) for each in made] == [(1, 1), (1, 0)]


def create_payments() -> Service:
    return Service("payments", System())


def create_web_payments() -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        assert request.app[RUNNING] == ["started"]
        return web.Response(text="payments")

    async def run(app: web.Application) -> AsyncIterator[None]:
        app[RUNNING].append("started")
        yield
        app[RUNNING].clear()

    app = web.Application()
    app[RUNNING] = []
    app.router.add_post("/", answer)
    app.cleanup_ctx.append(run)
    return app


@pytest.mark.parametrize("create", [create_payments, create_web_payments])
@pytest.mark.parametrize("how", ["restart", "mount"])
async def test_a_request_that_waits_for_a_free_connection_waits_for_the_start_too(
    create: Callable[[], App], how: str
) -> None:
    """The app that its connection leads to has not started when there is a free one."""
    async with running("mail", apps={"payments": Mount(factory=create)}, limit=1) as system, system.connector:
        first = system.start("mail", "/wait")
        await system["mail"].waiting.wait()
        second = system.start("payments")
        await settle()
        if how == "restart":
            restarting = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        else:
            system.connector.mount(PAYMENTS, Mount(factory=create))
        system["mail"].go.set()
        assert [await soon(first), await soon(second)] == ["mail", "payments"]
        if how == "restart":
            await soon(restarting)


@pytest.mark.parametrize("setting", ["off", "auto"])
async def test_an_app_without_a_lifespan_gets_no_new_request_before_the_others_have_ended(setting: Any) -> None:
    go = asyncio.Event()
    calls: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        calls.append(scope["path"])
        if scope["path"] == "/wait":
            await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async with running(apps={"payments": app}, lifespan=setting) as system:
        earlier = system.start("payments", "/wait")
        await until(lambda: calls)
        restarting = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        later = system.start("payments", "/new")
        await settle()
        assert calls == ["/wait"]
        go.set()
        await soon(restarting)
        assert [await soon(earlier), await soon(later)] == ["ok", "ok"]


async def test_idle_connections_are_closed() -> None:
    async with running("payments") as system:
        assert await system.outcome("payments") == "payments"
        await system.connector.restart(PAYMENTS)
        with system.connector.record() as journal:
            assert await system.outcome("payments") == "payments"
        assert journal[0].reused is False


async def test_an_app_that_had_not_started_starts() -> None:
    async with running("payments") as system:
        await system.connector.restart(PAYMENTS)
        assert (system["payments"].started, system["payments"].stopped) == (1, 0)


async def test_one_app_at_two_patterns_restarts_at_both() -> None:
    async with running("payments") as system, system.connector:
        system.connector.mount("pay.internal", system["payments"])
        earlier = system.start("pay", "/wait")
        await system["payments"].waiting.wait()
        restarting = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        later = [system.start("pay"), system.start("payments")]
        await settle()
        assert system["payments"].calls == 1
        system["payments"].go.set()
        await soon(restarting)
        assert [await soon(each) for each in (earlier, *later)] == ["payments"] * 3
        assert (system["payments"].started, system["payments"].stopped) == (2, 1)


async def test_a_websocket_is_told_that_the_service_restarts() -> None:
    told: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await receive()
        await send({"type": "websocket.accept"})
        told.append(await receive())

    async with running(apps={"chat": app}) as system, system.session.ws_connect("http://chat.internal/") as websocket:
        restarting = asyncio.ensure_future(system.connector.restart("chat.internal"))
        message = await soon(websocket.receive())
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1012)
        await soon(restarting)
        assert told == [{"type": "websocket.disconnect", "code": 1012, "reason": ""}]


async def test_a_websocket_that_its_app_has_closed_is_left_as_it_is() -> None:
    closed = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})
        closed.set()

    async with (
        running(apps={"chat": app}, lifespan="off") as system,
        system.session.ws_connect("http://chat.internal/") as websocket,
    ):
        await closed.wait()
        restarting = asyncio.ensure_future(system.connector.restart("chat.internal"))
        message = await soon(websocket.receive())
        assert (message.type, message.data) == (WSMsgType.CLOSE, 4000)
        await soon(restarting)


async def test_a_websocket_of_aiohttp_web_is_told_that_the_service_restarts() -> None:
    types: list[WSMsgType] = []

    async def echo(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        types.append((await websocket.receive()).type)
        return websocket

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    application = web.Application()
    application.add_routes([web.get("/echo", echo), web.post("/", hello)])
    async with running(apps={"chat": application}) as system:
        assert await system.outcome("chat") == "hello"
        async with system.session.ws_connect("http://chat.internal/echo") as websocket:
            restarting = asyncio.ensure_future(system.connector.restart("chat.internal"))
            message = await soon(websocket.receive())
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1012)
            await soon(restarting)
        assert types == [WSMsgType.CLOSE]
        assert await system.outcome("chat") == "hello"
        await soon(system.connector.restart("chat.internal"))  # with an idle connection, which gets no close frame
        assert await system.outcome("chat") == "hello"


async def test_two_restarts_come_one_after_the_other() -> None:
    async with running("payments") as system, system.connector:
        payments = system["payments"]
        asking = system.start("payments", "/wait")
        await payments.waiting.wait()
        restarts = [asyncio.ensure_future(system.connector.restart(PAYMENTS)) for _ in range(3)]
        await settle()
        payments.go.set()
        for restart in restarts:
            await soon(restart)
        assert await soon(asking) == "payments"
        assert (payments.started, payments.stopped) == (4, 3)
        assert await system.outcome("payments") == "payments"


async def test_a_crash_ends_a_restart_that_waits() -> None:
    async with running("payments") as system, system.connector:
        payments = system["payments"]
        asking = system.start("payments", "/wait")
        await payments.waiting.wait()
        restarting = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        later = system.start("payments")
        await settle()
        async with system.connector.crashed(PAYMENTS):
            assert await soon(asking) == "ClientOSError"
            assert await soon(later) == "ClientConnectorError"
            with pytest.raises(
                LifespanError, match=r"^The app at 'payments.internal' has not restarted: it has crashed"
            ):
                await soon(restarting)
        assert (payments.started, payments.stopped) == (2, 0)


async def test_a_restart_of_an_app_that_is_unmounted_meanwhile_says_so() -> None:
    async with running("payments") as system, system.connector:
        asking = system.start("payments", "/wait")
        await system["payments"].waiting.wait()
        restarting = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        await settle()
        await system.connector.unmount(PAYMENTS)
        system["payments"].go.set()
        with pytest.raises(LifespanError, match="it is not mounted any more, or the connector closes"):
            await soon(restarting)
        assert await soon(asking) == "payments"
        await until(lambda: system["payments"].stopped)
        assert system["payments"].started == 1


async def test_a_restart_that_is_cancelled_goes_on() -> None:
    async with running("payments") as system, system.connector:
        asking = system.start("payments", "/wait")
        await system["payments"].waiting.wait()
        restarting = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        await settle()
        restarting.cancel()
        await asyncio.wait([restarting])
        later = system.start("payments")
        await settle()
        system["payments"].go.set()
        assert [await soon(asking), await soon(later)] == ["payments", "payments"]
        assert (system["payments"].started, system["payments"].stopped) == (2, 1)


async def test_a_restart_after_one_that_was_cancelled_waits_for_the_same_requests() -> None:
    async with running("payments") as system, system.connector:
        asking = system.start("payments", "/wait")
        await system["payments"].waiting.wait()
        first = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        await settle()
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        await settle()
        assert not second.done()
        system["payments"].go.set()
        await soon(second)
        assert await soon(asking) == "payments"
        assert (system["payments"].started, system["payments"].stopped) == (2, 1)


async def test_a_service_may_restart_another_one() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await system.connector.restart(PAYMENTS)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async with running("payments", apps={"orders": app}, lifespan="off") as system:
        assert await system.outcome("orders") == "done"


async def test_closing_the_connector_ends_a_restart() -> None:
    async with running("payments", shutdown_timeout=0.01) as system, system.connector:
        asking = system.start("payments", "/wait")
        await system["payments"].waiting.wait()
        restarting = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        await settle()
        await system.connector.close()
        with pytest.raises(LifespanError, match="has not restarted"):
            await soon(restarting)
        assert await soon(asking) == "ClientConnectionError"
        assert (system["payments"].started, system["payments"].stopped) == (1, 1)


@pytest.mark.parametrize("step", ["shutdown", "startup", "both"])
async def test_a_step_that_fails_is_raised(step: str) -> None:
    starts = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal starts
        await receive()
        starts += 1
        if starts == 2 and step != "shutdown":
            raise ZeroDivisionError
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if starts == 1 and step != "startup":
            raise KeyError
        await send({"type": "lifespan.shutdown.complete"})

    async with running(apps={"payments": app}) as system, system.connector:
        with pytest.raises((LifespanError, ExceptionGroup)) as caught:
            await system.connector.restart(PAYMENTS)
        exc = caught.value
        failures = exc.exceptions if isinstance(exc, ExceptionGroup) else [exc]
        assert [type(each.__cause__) for each in failures] == {
            "shutdown": [KeyError],
            "startup": [ZeroDivisionError],
            "both": [KeyError, ZeroDivisionError],
        }[step]
        assert starts == 2


async def test_a_request_in_flight_that_calls_its_own_app_does_not_wait_for_itself() -> None:
    errors: list[str] = []
    go_on = asyncio.Event()
    asked = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await go_on.wait()
        try:
            await system.session.get(f"http://{PAYMENTS}/")
        except LifespanError as exc:
            errors.append(str(exc))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async with running(apps={"payments": app}, lifespan="off") as system:
        asking = system.start("payments")
        await asked.wait()
        restarting = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        await settle()
        go_on.set()
        assert await soon(asking) == "ok"
        await soon(restarting)
    assert errors == ["The startups wait for each other in a circle: 'payments.internal' waits for 'payments.internal'"]


async def test_two_apps_that_restart_and_call_each_other_do_not_wait_for_ever() -> None:
    errors: list[str] = []
    go_on = asyncio.Event()
    asked: list[str] = []

    async def app(name: str, other: str, scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(name)
        await go_on.wait()
        try:
            await system.session.get(f"http://{other}.internal/")
        except LifespanError as exc:
            errors.append(str(exc))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        await app("orders", "payments", scope, receive, send)

    async def payments(scope: Scope, receive: Receive, send: Send) -> None:
        await app("payments", "orders", scope, receive, send)

    async with running(apps={"orders": orders, "payments": payments}, lifespan="off") as system:
        asking = [system.start("orders"), system.start("payments")]
        await until(lambda: len(asked) == 2)
        restarting = [asyncio.ensure_future(system.connector.restart(host)) for host in (ORDERS, PAYMENTS)]
        await settle()
        go_on.set()
        assert [await soon(each) for each in asking] == ["ok", "ok"]
        for restart in restarting:
            await soon(restart)
    assert errors[0] == (
        "The startups wait for each other in a circle: 'payments.internal' waits for 'orders.internal' waits for "
        "'payments.internal'"
    )


async def test_a_fault_that_answers_in_the_place_of_the_app_answers_during_the_restart() -> None:
    async with running("payments") as system, system.connector:
        asking = system.start("payments", "/wait")
        await system["payments"].waiting.wait()
        restarting = asyncio.ensure_future(system.connector.restart(PAYMENTS))
        with system.connector.inject(PAYMENTS, faults.Respond(503, body="busy")):
            assert await system.outcome("payments") == "busy"
        system["payments"].go.set()
        await soon(restarting)
        assert await soon(asking) == "payments"


async def test_a_held_response_is_a_request_in_flight() -> None:
    async with running("payments") as system, system.connector:
        with system.connector.hold(PAYMENTS) as held:
            asking = system.start("payments")
            [message] = await held.wait()
            restarting = asyncio.ensure_future(system.connector.restart(PAYMENTS))
            await settle()
            assert system["payments"].stopped == 0
            message.release()
            await soon(restarting)
            assert await soon(asking) == "payments"


async def test_an_app_in_a_mounted_block_restarts_and_the_block_ends_as_ever() -> None:
    async with running("payments", "other") as system, system.connector:
        async with system.connector.mounted(PAYMENTS, system["other"]):
            await system.connector.restart(PAYMENTS)
            assert await system.outcome("payments") == "other"
            assert (system["other"].started, system["other"].stopped) == (2, 1)
        assert await system.outcome("payments") == "payments"
        assert system["payments"].started == 1
        assert (system["other"].started, system["other"].stopped) == (2, 1)  # it is mounted at its own host too


async def test_one_app_for_every_host_restarts_too(caplog: pytest.LogCaptureFixture) -> None:
    system = System()
    service = Service("one", system)
    connector = ASGIApplicationConnector(service)
    async with aiohttp.ClientSession(connector=connector) as system.session:
        assert await system.outcome("any") == "one"
        await connector.restart("*")
        assert await system.outcome("any") == "one"
        assert (service.started, service.stopped) == (2, 1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_closed_connector_restarts_nothing() -> None:
    async with running("payments") as system:
        await system.connector.close()
        with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
            await system.connector.restart(PAYMENTS)
