"""The startup and the shutdown of an aiohttp.web application, and factories that make a new app for each start."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from asgi_connector import ASGIApplicationConnector, ASGIRoutingConnector, LifespanError, Mount
from asgi_connector._types import App, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.programs import run_python
from tests.support.reports import records


class Events(list[str]):
    """What an application has lived through."""

    def app(self, name: str = "") -> web.Application:
        async def context(app: web.Application) -> AsyncIterator[None]:
            self.append(f"{name}enter")
            yield
            self.append(f"{name}exit")

        async def handler(request: web.Request) -> web.Response:
            self.append(f"{name}request")
            return web.Response(text=str(id(request.app)))

        app = web.Application()
        app.cleanup_ctx.append(context)
        for signal in ("startup", "shutdown", "cleanup"):
            getattr(app, f"on_{signal}").append(self._note(f"{name}{signal}"))
        app.router.add_get("/", handler)
        return app

    def _note(self, event: str) -> Any:
        async def note(app: web.Application) -> None:
            self.append(event)

        return note


async def get(session: aiohttp.ClientSession, url: str = "/") -> str:
    async with session.get(url) as response:
        assert response.status == 200
        return await response.text()


@pytest.mark.parametrize("lifespan", ["auto", "on"])
async def test_an_application_starts_before_its_first_request_and_ends_with_the_connector(lifespan: str) -> None:
    events = Events()
    async with session_to(events.app(), lifespan=lifespan) as session:
        assert events == []
        await get(session)
        await get(session)
    assert events == ["enter", "startup", "request", "request", "shutdown", "exit", "cleanup"]


async def test_entering_the_connector_starts_it() -> None:
    events = Events()
    async with ASGIApplicationConnector(events.app()):
        assert events == ["enter", "startup"]
    assert events[2:] == ["shutdown", "exit", "cleanup"]


async def test_an_application_without_its_lifespan() -> None:
    events = Events()
    async with session_to(events.app(), lifespan="off") as session:
        await get(session)
        await get(session, "https://app.internal/")
    assert events == ["request", "request"]


async def test_an_application_that_another_runner_has_started() -> None:
    events = Events()
    app = events.app()
    runner = web.AppRunner(app)
    await runner.setup()
    async with session_to(app, lifespan="off") as session:
        await get(session)
    await runner.cleanup()
    assert events == ["enter", "startup", "request", "shutdown", "exit", "cleanup"]


async def test_a_startup_that_fails_is_a_lifespan_error() -> None:
    failure = LookupError("no database")
    events = Events()
    app = events.app()

    async def fail(app: web.Application) -> None:
        raise failure

    app.on_startup.append(fail)
    async with session_to(app, lifespan="auto") as session:
        for _ in range(2):
            with pytest.raises(LifespanError, match=r"'app\.internal' failed to start: LookupError") as caught:
                await session.get("/")
            assert caught.value.__cause__ is failure
    assert events == ["enter", "startup", "exit"]


async def test_a_startup_that_fails_and_then_does_not_clean_up(caplog: pytest.LogCaptureFixture) -> None:
    failure = LookupError("no database")

    async def context(app: web.Application) -> AsyncIterator[None]:
        yield
        raise ValueError("not clean")

    async def fail(app: web.Application) -> None:
        raise failure

    app = web.Application()
    app.cleanup_ctx.append(context)
    app.on_startup.append(fail)
    with pytest.raises(LifespanError) as caught:
        async with ASGIApplicationConnector(app):
            pass
    assert caught.value.__cause__ is failure
    (record,) = records(caplog)
    assert "has failed to start, and then to clean up" in record.getMessage()


async def test_a_shutdown_that_fails_is_a_lifespan_error() -> None:
    failure = LookupError("still open")

    async def fail(app: web.Application) -> None:
        raise failure

    app = web.Application()
    app.on_cleanup.append(fail)
    connector = ASGIApplicationConnector(app)
    await connector.__aenter__()
    with pytest.raises(LifespanError, match="failed to shut down") as caught:
        await connector.close()
    assert caught.value.__cause__ is failure


async def test_a_startup_that_is_cancelled_cleans_up() -> None:
    events = Events()
    app = events.app()
    waiting = asyncio.Event()

    async def wait(app: web.Application) -> None:
        waiting.set()
        await asyncio.Event().wait()

    app.on_startup.append(wait)
    connector = ASGIApplicationConnector(app, shutdown_timeout=0.01)
    entering = asyncio.ensure_future(connector.__aenter__())
    await waiting.wait()
    entering.cancel()
    await asyncio.wait([entering])
    assert events == ["enter", "startup", "exit"]


@pytest.mark.parametrize("lifespan", ["auto", "off"])
def test_an_application_lives_in_one_event_loop(lifespan: str) -> None:
    app = Events().app()

    async def main() -> None:
        async with session_to(app, lifespan=lifespan) as session:
            await get(session)

    asyncio.run(main())
    with pytest.raises(LifespanError, match=r"another event loop.* write Mount\(factory=create_app\)"):
        asyncio.run(main())


async def test_an_application_is_one_however_often_it_is_mounted() -> None:
    events = Events()
    app = events.app()
    async with session_to({"a.internal": app, "b.internal": Mount(app)}, lifespan="auto") as session:
        assert await get(session, "http://a.internal/") == await get(session, "http://b.internal/")
    assert events.count("startup") == events.count("shutdown") == 1


async def test_an_application_that_is_unmounted_shuts_down_when_its_requests_have_ended() -> None:
    events = Events()
    app = events.app()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        begun.set()
        await go_on.wait()
        events.append("slow")
        return web.Response(text="slow")

    app.router.add_get("/slow", slow)
    async with (
        ASGIRoutingConnector({"app.internal": app}) as connector,
        aiohttp.ClientSession("http://app.internal", connector=connector, connector_owner=False) as session,
    ):
        await get(session)
        call = asyncio.ensure_future(get(session, "/slow"))
        await begun.wait()
        unmounting = asyncio.ensure_future(connector.unmount("app.internal"))
        await asyncio.sleep(0)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("/")
        go_on.set()
        assert await call == "slow"
        await unmounting
        assert events == ["enter", "startup", "request", "slow", "shutdown", "exit", "cleanup"]


async def test_unmounting_right_after_a_response_does_not_wait() -> None:
    async with (
        ASGIRoutingConnector({"app.internal": Events().app()}) as connector,
        aiohttp.ClientSession("http://app.internal", connector=connector, connector_owner=False) as session,
    ):
        await get(session)
        async with asyncio.timeout(1):
            await connector.unmount("app.internal")


async def test_another_application_takes_its_place() -> None:
    events = Events()
    async with (
        ASGIRoutingConnector({"app.internal": events.app("old ")}) as connector,
        aiohttp.ClientSession("http://app.internal", connector=connector, connector_owner=False) as session,
    ):
        await get(session)
        async with connector.mounted("app.internal", events.app("new ")):
            await get(session)
        await get(session)
    assert [event for event in events if event.endswith("request")] == ["old request", "new request", "old request"]
    assert events.index("new cleanup") < events.index("old shutdown")


async def test_an_application_may_be_started_again_in_its_loop() -> None:
    events = Events()
    app = events.app()
    async with (
        ASGIRoutingConnector({"app.internal": app}) as connector,
        aiohttp.ClientSession("http://app.internal", connector=connector, connector_owner=False) as session,
    ):
        await get(session)
        await connector.unmount("app.internal")
        connector.mount("app.internal", app)
        await get(session)
    assert events.count("startup") == events.count("request") == events.count("shutdown") == 2


async def test_services_shut_down_in_the_reverse_order_and_may_still_call_each_other() -> None:
    events = Events()
    inner, outer = events.app("inner "), events.app("outer ")

    async def call(app: web.Application) -> None:
        await get(session, "http://inner.internal/")

    outer.on_startup.append(call)
    outer.on_cleanup.append(call)
    connector = ASGIRoutingConnector({"outer.internal": outer, "inner.internal": inner})
    async with aiohttp.ClientSession(connector=connector, connector_owner=False) as session:
        async with connector:
            await get(session, "http://outer.internal/")
        assert events.count("inner request") == 2
        assert events.index("outer cleanup") < events.index("inner shutdown")


async def test_a_handler_that_does_not_end_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    async with session_to(app, lifespan="auto", shutdown_timeout=0.01) as session:
        call = asyncio.ensure_future(session.get("/"))
        await begun.wait()
    assert ended.is_set()
    with pytest.raises(aiohttp.ClientConnectionError):
        await call
    (record,) = records(caplog)
    assert record.levelno == logging.WARNING
    assert "still running when the connector closed: GET http://app.internal/" in record.getMessage()


# Factories.


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["started"] = True
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(scope["state"]).encode()})


def new_asgi_app() -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asgi_app(scope, receive, send)

    return app


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("lifespan", ["auto", "on", "off"])
async def test_a_factory_makes_an_app_for_each_start(is_async: bool, lifespan: str) -> None:
    made: list[App] = []

    def create() -> App:
        made.append(new_asgi_app())
        return made[-1]

    async def create_later() -> App:
        await asyncio.sleep(0)
        return create()

    mount = Mount(factory=create_later if is_async else create)
    async with (
        ASGIRoutingConnector({"app.internal": mount}, lifespan=lifespan) as connector,  # type: ignore[arg-type]
        aiohttp.ClientSession("http://app.internal", connector=connector, connector_owner=False) as session,
    ):
        assert len(made) == 1
        assert await get(session) == ("{}" if lifespan == "off" else "{'started': True}")
        await get(session)
        assert len(made) == 1
        await connector.unmount("app.internal")
        connector.mount("app.internal", mount)
        await get(session)
        assert len(made) == 2


@pytest.mark.parametrize("lifespan", ["auto", "off"])
def test_a_factory_makes_an_application_for_each_event_loop(lifespan: str) -> None:
    events = Events()
    mount = Mount(factory=events.app)

    async def main() -> str:
        async with session_to({"app.internal": mount}, lifespan=lifespan) as session:
            return await get(session)

    assert asyncio.run(main()) != asyncio.run(main())
    assert events.count("request") == 2


async def test_two_mounts_with_one_factory_are_two_apps_and_one_mount_is_one() -> None:
    events = Events()
    one, other = Mount(factory=events.app), Mount(factory=events.app)
    apps = {"a.internal": one, "b.internal": one, "c.internal": other}
    async with session_to(apps, lifespan="auto") as session:
        a, b, c = [await get(session, f"http://{host}/") for host in apps]
    assert a == b != c
    assert events.count("startup") == 2


@pytest.mark.parametrize("lifespan", ["auto", "on", "off"])
async def test_a_factory_that_fails_is_a_failed_startup(lifespan: str) -> None:
    failure = LookupError("no settings")

    def create() -> App:
        raise failure

    async with session_to({"app.internal": Mount(factory=create)}, lifespan=lifespan) as session:
        with pytest.raises(LifespanError, match="failed to start: LookupError") as caught:
            await session.get("/")
    assert caught.value.__cause__ is failure


async def test_a_factory_that_makes_no_app() -> None:
    mount: Any = Mount(factory=lambda: 42)  # type: ignore[arg-type,return-value]
    async with session_to({"app.internal": mount}) as session:
        with pytest.raises(LifespanError, match=r"the factory .* has not returned an app: 42 is not an ASGI applic"):
            await session.get("/")


async def test_an_app_of_a_factory_that_does_not_support_lifespan(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asgi_connector")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await asgi_app(scope, receive, send)

    mount = Mount(factory=lambda: app)
    for lifespan, says in [("auto", True), ("off", False)]:
        caplog.clear()
        async with session_to({"app.internal": mount}, lifespan=lifespan) as session:
            assert await get(session) == "{}"
        assert ("does not support lifespan" in caplog.text) is says


async def create_app() -> App:
    return asgi_app


mount: Any = Mount
routing: Any = ASGIRoutingConnector


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mount(asgi_app, factory=new_asgi_app), "an app or a factory, but not both"),
        (lambda: mount(factory=asgi_app), r"callable without arguments, but .* takes \(scope, receive, send\)"),
        (lambda: mount(factory=create_app()), "not <coroutine .*, the call of one"),
        (lambda: mount(factory=web.Application()), "to mount <Application .* itself, leave it out"),
        (lambda: mount(factory=42), "callable without arguments, not 42"),
        (lambda: mount(), "None is not an ASGI application"),
        (lambda: mount(web.Application), r"it is a class; write Application\(\)"),
        (lambda: routing(web.Application()), "apps must be a mapping"),
    ],
)
async def test_what_cannot_be_mounted(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_an_application_has_no_root_path() -> None:
    with pytest.raises(ValueError, match=r"root_path='/v1' for <Application .*>: there is none in aiohttp.web"):
        Mount(web.Application(), root_path="/v1")
    assert Mount(web.Application(), root_path="").root_path == ""


async def test_a_factory_of_a_web_application_has_no_root_path() -> None:
    connector = ASGIRoutingConnector({"app.internal": Mount(factory=web.Application, root_path="/v1")})
    async with aiohttp.ClientSession("http://app.internal", connector=connector) as session:
        with pytest.raises(LifespanError, match=r"root_path='/v1' for .*: there is none in aiohttp\.web"):
            await session.get("/")


async def test_a_mount_with_a_factory_has_one_setting() -> None:
    mount = Mount(factory=new_asgi_app)
    connector = ASGIRoutingConnector({"a.internal": mount})
    with pytest.raises(ValueError, match="one app has one lifespan"):
        ASGIRoutingConnector({"a.internal": Mount(asgi_app), "b.internal": Mount(asgi_app, lifespan="on")})
    await connector.close()


async def test_what_is_mounted_says_what_makes_it() -> None:
    mount = Mount(factory=new_asgi_app)
    async with ASGIRoutingConnector({"a.internal": mount}) as connector:
        assert connector.mounts["a.internal"].factory is new_asgi_app
        assert "new_asgi_app" in repr(next(iter(connector._services.table)))


async def test_what_is_sent_before_leaving_is_received_by_a_slow_handler() -> None:
    go_on, received = asyncio.Event(), asyncio.Queue[int]()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await go_on.wait()
        number = 0
        try:
            async for _ in ws:
                number += 1
        finally:  # aiohttp before 3.14 raises a ConnectionError at the end
            received.put_nowait(number)
        return ws

    app = web.Application()
    app.router.add_get("/", handler)
    async with (
        ASGIRoutingConnector({"app.internal": app}) as connector,
        aiohttp.ClientSession("http://app.internal", connector=connector, connector_owner=False) as session,
    ):
        ws = await session.ws_connect("/", compress=0)
        for _ in range(8):  # more than the server reads, and less than makes the client wait
            await ws.send_bytes(b"x" * 20_000)
        ws._response.close()
        unmounting = asyncio.ensure_future(connector.unmount("app.internal"))
        await asyncio.sleep(0)
        go_on.set()
        assert await received.get() == 8
        await unmounting


@pytest.mark.programs
async def test_an_asgi_app_does_not_cost_the_import_of_aiohttp_web() -> None:
    program = """
import asyncio, sys, aiohttp
from asgi_connector import ASGIApplicationConnector

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})

async def main():
    connector = ASGIApplicationConnector(app, lifespan="off")
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://a/") as response:
        assert response.status == 200

asyncio.run(main())
print("aiohttp.web" in sys.modules)
"""
    assert run_python("-c", program) == "False\n"


@pytest.mark.usefixtures("little_patience")
async def test_a_handler_that_goes_on_though_it_is_cancelled_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()
        ended.set()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    async with session_to(app, lifespan="off", shutdown_timeout=0.01) as session:
        call = asyncio.ensure_future(session.get("/"))
        await begun.wait()
    with pytest.raises(aiohttp.ClientConnectionError):
        await call
    assert "An app went on though it was cancelled: GET http://app.internal/" in caplog.text
    go_on.set()
    await ended.wait()
    for _ in range(5):
        await asyncio.sleep(0)
