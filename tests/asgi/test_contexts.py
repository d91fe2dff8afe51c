"""Which context variables an app sees: those of a test that calls it, and none of another service that calls it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
import anyio.from_thread
import pytest
import pytest_asyncio
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_connector import ASGIApplicationConnector, ASGIRoutingConnector, Mount, faults
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.support.django_project import django_app_of
from tests.support.servers import IN_PROCESS, UVICORN, serving

MODES: Final = ("outside", "always", "never")

variable: ContextVar[str] = ContextVar("variable")


class Services:
    """Services that call each other over one session. Each is served in the same way."""

    def __init__(self, way: str = IN_PROCESS) -> None:
        self._way = way
        self._urls: dict[str, str] = {}
        self._loop = asyncio.get_running_loop()
        self.session: aiohttp.ClientSession

    @property
    def connector(self) -> ASGIRoutingConnector:
        connector = self.session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        return connector

    @asynccontextmanager
    async def open(self, apps: dict[str, ASGIApp | Mount], **settings: Any) -> AsyncIterator[None]:
        """Serve *apps*, each at its name. *settings* are those of the connector in process."""
        async with AsyncExitStack() as stack:
            connector = None
            if self._way == IN_PROCESS:
                mounts = {f"{name}.internal": app for name, app in apps.items()}
                connector = ASGIRoutingConnector(mounts, **{"lifespan": "off", **settings})
                self._urls = {name: f"http://{name}.internal" for name in apps}
            else:
                for name, app in apps.items():
                    assert not isinstance(app, Mount)
                    served = await stack.enter_async_context(serving(self._way, app))
                    self._urls[name] = str(served._base_url).rstrip("/")
            self.session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            yield

    async def get(self, name: str) -> str:
        async with self.session.get(f"{self._urls[name]}/{name}") as response:
            assert response.status == 200
            return await response.text()

    def wait_for(self, name: str) -> str:
        """Return the answer of *name*. The calling thread blocks until the answer arrives."""
        return asyncio.run_coroutine_threadsafe(self.get(name), self._loop).result()


Call = Callable[[Services, str], str]

from_a_thread = pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda net, name: async_to_sync(net.get)(name), id="async_to_sync"),
        pytest.param(lambda net, name: net.wait_for(name), id="run_coroutine_threadsafe"),
    ],
)


@pytest.fixture(params=[IN_PROCESS, UVICORN])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def services(way: str) -> Services:
    return Services(way)


async def respond(send: Send, text: str) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


def answering(answer: Callable[[], Awaitable[str]]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, await answer())

    return app


async def seen() -> str:
    """Return the value of the variable that the app sees. Then change it."""
    value = variable.get("nothing")
    variable.set("what was called")
    return value


def calling(net: Services, *names: str) -> ASGIApp:
    """A service that returns the value it sees, and then the values that the services it calls see."""

    async def answer() -> str:
        answers = [variable.get("nothing")]
        variable.set("the caller")
        for name in names:
            answers.append(await net.get(name))
            assert variable.get() == "the caller"
        return ", ".join(answers)

    return answering(answer)


# Compared with real servers.


async def test_a_context_variable_of_a_service_does_not_reach_another_service(way: str, services: Services) -> None:
    variable.set("the start")
    async with services.open({"front": calling(services, "back", "back"), "back": answering(seen)}):
        variable.set("the test")
        # A real server shares no context with its client. In process, a test may set variables for its app.
        outside = "the test" if way == IN_PROCESS else "the start"
        for _ in range(2):  # on new connections, and on pooled ones
            assert await services.get("front") == f"{outside}, the start, the start"
        assert variable.get() == "the test"


@from_a_thread
async def test_services_with_threads_of_asgiref_call_each_other(services: Services, call: Call) -> None:
    """Each in its own thread, as in Django."""

    def in_one_thread(work: Callable[[], str]) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async with ThreadSensitiveContext():
                await respond(send, await sync_to_async(work)())

        return app

    def front() -> str:
        variable.set("the caller")
        return f"front, {call(services, 'middle')}"

    def middle() -> str:
        return f"middle, {variable.get('nothing')}, {call(services, 'back')}"

    apps: dict[str, ASGIApp | Mount] = {
        "front": in_one_thread(front),
        "middle": in_one_thread(middle),
        "back": in_one_thread(lambda: "back"),
    }
    async with services.open(apps):
        for _ in range(2):
            assert await services.get("front") == "front, middle, nothing, back"


async def test_services_with_threads_of_anyio_call_each_other(services: Services) -> None:
    def front(request: Request) -> PlainTextResponse:
        variable.set("the caller")
        return PlainTextResponse(f"front, {anyio.from_thread.run(services.get, 'back')}, {variable.get()}")

    def back(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"back, {variable.get('nothing')}")

    apps: dict[str, ASGIApp | Mount] = {
        "front": starlette_app("/front", front),
        "back": starlette_app("/back", back),
    }
    async with services.open(apps):
        assert await services.get("front") == "front, back, nothing, the caller"


def starlette_app(at: str, endpoint: Callable[[Request], Any]) -> ASGIApp:
    app: Any = Starlette(routes=[Route(at, endpoint)])
    asgi_app: ASGIApp = app
    return asgi_app


@pytest.fixture
def django_app(services: Services, call: Call) -> Iterator[ASGIApp]:
    """Sync views. Two of them call another service."""

    def front(request: HttpRequest) -> HttpResponse:
        variable.set("the caller")
        return HttpResponse(f"front, {call(services, 'middle')}, {variable.get()}")

    def middle(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"middle, {call(services, 'back')}")

    def back(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"back, {variable.get('nothing')}")

    with django_app_of({"front": front, "middle": middle, "back": back}) as app:
        yield app


@from_a_thread
async def test_sync_views_of_django_call_each_other(services: Services, django_app: ASGIApp) -> None:
    handlers: dict[str, ASGIApp | Mount] = {name: ASGIHandler() for name in ("front", "middle", "back")}
    async with services.open(handlers):
        for _ in range(2):
            assert await services.get("front") == "front, middle, back, nothing, the caller"


@from_a_thread
async def test_a_django_app_calls_itself(services: Services, django_app: ASGIApp) -> None:
    async with services.open(dict.fromkeys(("front", "middle", "back"), django_app)):
        assert await services.get("front") == "front, middle, back, nothing, the caller"


# The setting.

SEEN: Final = {
    "outside": "the test, the mount, the mount",
    "always": "the test, the caller, the caller",
    "never": "the mount, the mount, the mount",
}


@pytest.mark.parametrize("mode", MODES)
async def test_the_setting_says_whose_context_is_inherited_and_the_caller_is_known_all_the_same(mode: str) -> None:
    net = Services()
    variable.set("the mount")
    apps = {"front": calling(net, "back", "back"), "back": answering(seen)}
    async with net.open(dict(apps), inherit_context=mode):
        variable.set("the test")
        with net.connector.record() as journal:
            for _ in range(2):
                assert await net.get("front") == SEEN[mode]
    assert [(each.caller, each.service, each.reused) for each in journal] == [
        (None, "front.internal", False),
        ("front.internal", "back.internal", False),
        ("front.internal", "back.internal", True),
        (None, "front.internal", True),
        ("front.internal", "back.internal", True),
        ("front.internal", "back.internal", True),
    ]
    assert [each.parent for each in journal] == [None, journal[0], journal[0], None, journal[3], journal[3]]


@pytest.mark.parametrize("mode", MODES)
async def test_a_mount_has_a_setting_of_its_own(mode: Any) -> None:
    net = Services()
    variable.set("the mount")
    apps: dict[str, ASGIApp | Mount] = {
        "front": calling(net, "back"),
        "back": Mount(answering(seen), inherit_context=mode),
    }
    async with net.open(apps, inherit_context="always" if mode == "never" else "never"):
        variable.set("the test")
        assert await net.get("back") == SEEN[mode].split(", ")[0]
        assert (await net.get("front")).split(", ")[1] == SEEN[mode].split(", ")[1]


@pytest.mark.parametrize("mode", MODES)
async def test_the_only_app_of_a_connector_has_the_setting_too(mode: Any) -> None:
    variable.set("the mount")
    connector = ASGIApplicationConnector(answering(seen), lifespan="off", inherit_context=mode)
    async with aiohttp.ClientSession("http://app.internal", connector=connector) as session:
        variable.set("the test")
        async with session.get("/") as response:
            assert await response.text() == SEEN[mode].split(", ")[0]


@pytest.mark.parametrize("mode", MODES)
async def test_a_websocket_has_the_context_that_a_request_has(mode: str) -> None:
    net = Services()

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        variable.set("the caller")
        async with net.session.ws_connect("http://back.internal/") as websocket:
            await respond(send, await websocket.receive_str())

    async def back(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": variable.get("nothing")})
        await receive()

    variable.set("the mount")
    async with net.open({"front": front, "back": back}, inherit_context=mode):
        variable.set("the test")
        with net.connector.record() as journal:
            assert await net.get("front") == SEEN[mode].split(", ")[1]
            async with net.session.ws_connect("http://back.internal/") as websocket:
                assert await websocket.receive_str() == SEEN[mode].split(", ")[0]
    outside = (None, None)
    assert [(each.caller, each.parent) for each in journal] == [outside, ("front.internal", journal[0]), outside]


@pytest.mark.parametrize("mode", MODES)
async def test_a_fault_for_one_caller_strikes_that_callers_requests(mode: str) -> None:
    net = Services()

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await net.get("back")
        except aiohttp.ClientConnectionError:
            answer = "reset"
        await respond(send, answer)

    async with net.open({"front": front, "back": answering(seen)}, inherit_context=mode):
        assert await net.get("front") != "reset"
        with net.connector.inject("back.internal", faults.Reset(), caller="front.internal"):
            assert await net.get("front") == "reset"
            assert await net.get("back") != "reset"


async def test_each_app_has_the_context_in_which_it_was_mounted() -> None:
    net = Services()
    variable.set("the first mount")
    back = answering(seen)
    async with net.open({"front": calling(net, "back"), "back": back}):
        assert await net.get("front") == "the first mount, the first mount"
        variable.set("the second mount")
        net.connector.mount("back.internal", back)
        variable.set("the block")
        async with net.connector.mounted("back.internal", answering(seen)):
            variable.set("the test")
            assert await net.get("front") == "the test, the block"
        assert await net.get("front") == "the test, the second mount"


async def test_what_an_app_sets_is_not_seen_by_its_next_request() -> None:
    net = Services()
    variable.set("the mount")
    async with net.open({"front": calling(net, "back"), "back": answering(seen)}, inherit_context="never"):
        for _ in range(3):
            assert await net.get("front") == "the mount, the mount"


async def test_a_call_from_a_lifespan_has_the_context_of_the_mount() -> None:
    net = Services()
    answers: list[str] = []

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        variable.set("the lifespan")
        for step in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{step}"
            answers.append(await net.get("back"))
            await send({"type": f"lifespan.{step}.complete"})

    variable.set("the mount")
    async with net.open({"front": Mount(front, lifespan="on"), "back": answering(seen)}):
        variable.set("the test")
        async with net.connector:
            assert answers == ["the mount"]
    assert answers == ["the mount", "the mount"]


async def test_a_call_of_a_task_that_outlives_its_request_is_from_inside() -> None:
    net = Services()
    left_behind: list[asyncio.Task[str]] = []
    may_call = asyncio.Event()

    async def call_later() -> str:
        await may_call.wait()
        return await net.get("back")

    async def front() -> str:
        variable.set("the caller")
        left_behind.append(asyncio.create_task(call_later()))
        return ""

    variable.set("the mount")
    async with net.open({"front": answering(front), "back": answering(seen)}):
        variable.set("the test")
        with net.connector.record() as journal:
            await net.get("front")
            may_call.set()
            assert await left_behind[0] == "the mount"
    assert (journal[1].caller, journal[1].parent) == ("front.internal", journal[0])


async def test_an_app_of_another_connector_is_inside_too() -> None:
    net = Services()
    variable.set("the mount")
    other = ASGIRoutingConnector({"back.internal": answering(seen)}, lifespan="off")
    async with net.open({"front": calling(net, "back")}, fallback=other):
        net._urls["back"] = "http://back.internal"
        variable.set("the test")
        assert await net.get("front") == "the test, the mount"
