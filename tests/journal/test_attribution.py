"""Who made a call: the `caller` and the `parent` of each exchange, for every way in which an app can make a call."""

import asyncio
import contextvars
import random
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import copy_context
from typing import Annotated, Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from a2wsgi import WSGIMiddleware
from aiohttp import ClientSession, ClientWebSocketResponse
from asgiref.sync import async_to_sync, sync_to_async
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount as StarletteMount
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_connector import ASGIApplicationConnector, ASGIRoutingConnector, Exchange, Journal, faults
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.waiting import run_turns

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, None]]


async def respond(send: Send, body: bytes = b"ok", status: int = 200, location: str | None = None) -> None:
    headers = [] if location is None else [(b"location", location.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """A service that calls no other."""
    await respond(send)


def answering(work: Work) -> ASGIApp:
    """An app that does its work, and then answers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await work()
        await respond(send)

    return app


def redirecting(url: str, work: Work | None = None) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if work is not None:
            await work()
        await respond(send, status=302, location=url)

    return app


class Network:
    """Services that call each other over one session."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.left_behind: list[Awaitable[object]] = []  # by apps, when they returned
        self._session: ClientSession | None = None

    @property
    def session(self) -> ClientSession:
        assert self._session is not None
        return self._session

    @property
    def connector(self) -> ASGIRoutingConnector:
        connector = self.session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        return connector

    @asynccontextmanager
    async def open(self, apps: dict[str, ASGIApp], **settings: Any) -> AsyncIterator[Journal]:
        """The services and their names."""
        async with session_to(apps, **settings) as self._session:
            with self.connector.record() as journal:
                yield journal
                await asyncio.gather(*self.left_behind)

    async def get(self, url: str) -> None:
        async with self.session.get(url) as response:
            assert response.status == 200
            await response.read()

    async def call(self) -> None:
        await self.get("http://called.internal/")

    def call_from_thread(self) -> None:
        asyncio.run_coroutine_threadsafe(self.call(), self.loop).result()

    def leave_behind(self, awaitable: Awaitable[object]) -> None:
        self.left_behind.append(awaitable)


def callers_of(journal: Journal) -> list[tuple[str | None, str | None, int | None]]:
    """Each call: the caller, the called service, and the index of its parent in the journal."""
    exchanges = list(journal)
    return [
        (each.caller, each.service, None if each.parent is None else exchanges.index(each.parent)) for each in journal
    ]


# Where the caller is known: everywhere that copies the context.


def a_task(net: Network) -> ASGIApp:
    async def work() -> None:
        await asyncio.create_task(net.call())

    return answering(work)


def a_task_group(net: Network) -> ASGIApp:
    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(net.call())

    return answering(work)


def a_task_group_of_anyio(net: Network) -> ASGIApp:
    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(net.call)

    return answering(work)


def gather(net: Network) -> ASGIApp:
    async def work() -> None:
        await asyncio.gather(net.call())

    return answering(work)


def a_task_that_outlives_the_request(net: Network) -> ASGIApp:
    async def work() -> None:
        net.leave_behind(asyncio.create_task(net.call()))

    return answering(work)


def a_timer(net: Network) -> ASGIApp:
    async def work() -> None:
        done = net.loop.create_future()
        net.loop.call_later(0, lambda: done.set_result(net.loop.create_task(net.call())))
        await (await done)

    return answering(work)


def after_the_response(net: Network) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send)
        await net.call()

    return app


def a_generator(net: Network) -> ASGIApp:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await net.call()
        yield b"two"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for piece in pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return app


def to_thread(net: Network) -> ASGIApp:
    return answering(lambda: asyncio.to_thread(net.call_from_thread))


def a_thread_of_anyio(net: Network) -> ASGIApp:
    async def work() -> None:
        await anyio.to_thread.run_sync(anyio.from_thread.run, net.call)

    return answering(work)


def a_thread_of_starlette(net: Network) -> ASGIApp:
    return answering(lambda: run_in_threadpool(net.call_from_thread))


def a_thread_of_asgiref(net: Network) -> ASGIApp:
    async def work() -> None:
        await sync_to_async(async_to_sync(net.call))()

    return answering(work)


def a_wsgi_app(net: Network) -> ASGIApp:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        net.call_from_thread()
        start_response("200 OK", [])
        return [b"ok"]

    wrapped: Any = WSGIMiddleware(app)
    return answering_app(wrapped)


def answering_app(app: Any) -> ASGIApp:
    """Of a framework, which has its own types."""
    asgi_app: ASGIApp = app
    return asgi_app


def starlette_app(endpoint: Callable[[Request], Any], **settings: Any) -> ASGIApp:
    return answering_app(Starlette(routes=[Route("/", endpoint)], **settings))


def a_route_of_starlette(net: Network) -> ASGIApp:
    async def endpoint(request: Request) -> Response:
        await net.call()
        return PlainTextResponse("ok")

    return starlette_app(endpoint)


def a_def_route_of_starlette(net: Network) -> ASGIApp:
    def endpoint(request: Request) -> Response:
        anyio.from_thread.run(net.call)
        return PlainTextResponse("ok")

    return starlette_app(endpoint)


def a_def_route_of_starlette_with_asyncio(net: Network) -> ASGIApp:
    def endpoint(request: Request) -> Response:
        net.call_from_thread()
        return PlainTextResponse("ok")

    return starlette_app(endpoint)


def a_mounted_app_of_starlette(net: Network) -> ASGIApp:
    return answering_app(Starlette(routes=[StarletteMount("/", a_route_of_starlette(net))]))


def a_background_task(net: Network) -> ASGIApp:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(net.call))

    return starlette_app(endpoint)


def a_def_background_task(net: Network) -> ASGIApp:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(net.call_from_thread))

    return starlette_app(endpoint)


def a_streaming_response(net: Network) -> ASGIApp:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await net.call()
        yield b"two"

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(pieces())

    return starlette_app(endpoint)


def a_streaming_response_of_a_def_generator(net: Network) -> ASGIApp:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        anyio.from_thread.run(net.call)
        yield b"two"

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(pieces())

    return starlette_app(endpoint)


class CallsBefore:
    """Pure ASGI middleware."""

    def __init__(self, app: Any, net: Network) -> None:
        self.app = app
        self.net = net

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self.net.call()
        await self.app(scope, receive, send)


class CallsAfter(CallsBefore):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)
        if scope["type"] == "http":
            await self.net.call()


class CallsOnSend(CallsBefore):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def call_and_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                await self.net.call()
            await send(message)

        await self.app(scope, receive, call_and_send)


class BaseCallsBefore(BaseHTTPMiddleware):
    def __init__(self, app: Any, net: Network) -> None:
        super().__init__(app)
        self.net = net

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        await self.net.call()
        return await call_next(request)


class BaseCallsAfter(BaseCallsBefore):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        await self.net.call()
        return response


class BaseCallsNothing(BaseCallsBefore):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


def in_middleware(kind: Any) -> Callable[[Network], ASGIApp]:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("ok")

    return lambda net: starlette_app(endpoint, middleware=[Middleware(kind, net=net)])


def a_route_behind_base_middleware(net: Network) -> ASGIApp:
    def endpoint(request: Request) -> Response:
        anyio.from_thread.run(net.call)
        return PlainTextResponse("ok")

    return starlette_app(endpoint, middleware=[Middleware(BaseCallsNothing, net=net)])


def a_background_task_behind_base_middleware(net: Network) -> ASGIApp:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(net.call))

    return starlette_app(endpoint, middleware=[Middleware(BaseCallsNothing, net=net)])


def a_route_of_fastapi(net: Network) -> ASGIApp:
    app = FastAPI()

    @app.get("/")
    async def endpoint() -> str:
        await net.call()
        return "ok"

    return answering_app(app)


def a_def_route_of_fastapi(net: Network) -> ASGIApp:
    app = FastAPI()

    @app.get("/")
    def endpoint() -> str:
        anyio.from_thread.run(net.call)
        return "ok"

    return answering_app(app)


def a_def_route_of_fastapi_with_asyncio(net: Network) -> ASGIApp:
    app = FastAPI()

    @app.get("/")
    def endpoint() -> str:
        net.call_from_thread()
        return "ok"

    return answering_app(app)


def a_def_dependency_of_fastapi(net: Network) -> ASGIApp:
    app = FastAPI()

    def caller() -> str:
        anyio.from_thread.run(net.call)
        return "ok"

    @app.get("/")
    async def endpoint(answer: Annotated[str, Depends(caller)]) -> str:
        return answer

    return answering_app(app)


def the_end_of_a_dependency_of_fastapi(net: Network) -> ASGIApp:
    app = FastAPI()

    def caller() -> Iterator[str]:
        yield "ok"
        anyio.from_thread.run(net.call)

    @app.get("/")
    async def endpoint(answer: Annotated[str, Depends(caller)]) -> str:
        return answer

    return answering_app(app)


def background_tasks_of_fastapi(net: Network) -> ASGIApp:
    app = FastAPI()

    @app.get("/")
    def endpoint(background: BackgroundTasks) -> str:
        background.add_task(net.call)
        return "ok"

    return answering_app(app)


WAYS: dict[str, Callable[[Network], ASGIApp]] = {
    "its handler": lambda net: answering(net.call),
    "wait_for()": lambda net: answering(lambda: asyncio.wait_for(net.call(), 60)),
    "middleware": in_middleware(CallsBefore),
    "middleware, afterwards": in_middleware(CallsAfter),
    "middleware, on send()": in_middleware(CallsOnSend),
    "BaseHTTPMiddleware": in_middleware(BaseCallsBefore),
    "BaseHTTPMiddleware, afterwards": in_middleware(BaseCallsAfter),
    **{
        make_app.__name__.replace("_", " "): make_app
        for make_app in (
            a_task,
            a_task_group,
            a_task_group_of_anyio,
            gather,
            a_task_that_outlives_the_request,
            a_timer,
            after_the_response,
            a_generator,
            to_thread,
            a_thread_of_anyio,
            a_thread_of_starlette,
            a_thread_of_asgiref,
            a_wsgi_app,
            a_route_of_starlette,
            a_def_route_of_starlette,
            a_def_route_of_starlette_with_asyncio,
            a_mounted_app_of_starlette,
            a_background_task,
            a_def_background_task,
            a_streaming_response,
            a_streaming_response_of_a_def_generator,
            a_route_behind_base_middleware,
            a_background_task_behind_base_middleware,
            a_route_of_fastapi,
            a_def_route_of_fastapi,
            a_def_route_of_fastapi_with_asyncio,
            a_def_dependency_of_fastapi,
            the_end_of_a_dependency_of_fastapi,
            background_tasks_of_fastapi,
        )
    },
}


@pytest.mark.parametrize("make_app", WAYS.values(), ids=WAYS)
async def test_the_caller_is_the_app_and_the_parent_its_exchange(make_app: Callable[[Network], ASGIApp]) -> None:
    net = Network()
    async with net.open({"app.internal": make_app(net), "called.internal": plain}) as journal:
        await net.get("/")
        await journal.wait_for("called.internal")
        outer, inner = journal
    assert (outer.caller, outer.parent, outer.service) == (None, None, "app.internal")
    assert (inner.caller, inner.service, inner.status) == ("app.internal", "called.internal", 200)
    assert inner.parent is outer


@pytest.mark.parametrize("make_app", [a_task, a_task_group, gather], ids=["a task", "a task group", "gather"])
async def test_the_caller_of_an_eager_task_is_the_app(make_app: Callable[[Network], ASGIApp]) -> None:
    net = Network()
    with eager_tasks(net.loop):
        async with net.open({"app.internal": make_app(net), "called.internal": plain}) as journal:
            await net.get("/")
    assert callers_of(journal) == [(None, "app.internal", None), ("app.internal", "called.internal", 0)]


@contextmanager
def eager_tasks(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
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


async def test_a_call_after_the_response_is_a_child_of_an_exchange_that_has_ended() -> None:
    net = Network()
    may_go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send)
        await may_go_on.wait()
        await net.call()

    async with net.open({"app.internal": app, "called.internal": plain}) as journal:
        await net.get("/")
        [outer] = journal
        assert outer.state == "done"
        end = outer.order
        may_go_on.set()
        [inner] = await journal.wait_for("called.internal", caller="app.internal")
        assert (outer.state, outer.order) == ("done", end)
    assert inner.parent is outer


async def test_a_call_after_the_client_has_left_is_a_child_of_the_exchange_it_abandoned() -> None:
    net = Network()
    reached = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        reached.set()
        assert await receive() == {"type": "http.disconnect"}
        await net.call()

    async with net.open({"app.internal": app, "called.internal": plain}) as journal:
        client = asyncio.create_task(net.get("/"))
        await reached.wait()
        client.cancel()
        with suppress(asyncio.CancelledError):
            await client
        [inner] = await journal.wait_for("called.internal")
    assert (journal[0].state, inner.state, inner.caller) == ("abandoned", "done", "app.internal")
    assert inner.parent is journal[0]


@pytest.mark.parametrize("fails", [False, True], ids=["at an end that it expects", "when it fails"])
async def test_a_websocket_is_the_parent_of_what_its_handler_calls(fails: bool) -> None:
    net = Network()

    async def chat(websocket: WebSocket) -> None:
        await net.call()
        await websocket.accept()
        with suppress(WebSocketDisconnect):
            while True:
                await net.call()
                await websocket.send_text(await websocket.receive_text())
        await net.call()
        if fails:
            await websocket.receive_text()

    app = answering_app(Starlette(routes=[WebSocketRoute("/", chat)]))
    async with net.open({"app.internal": app, "called.internal": plain}) as journal:
        async with net.session.ws_connect("/") as websocket:
            await websocket.send_str("hello")
            assert await websocket.receive_str() == "hello"
        await journal.wait_for("called.internal", times=4)
    link = ("app.internal", "called.internal", 0)
    assert callers_of(journal) == [(None, "app.internal", None), link, link, link, link]


async def test_a_websocket_that_an_app_opens_has_that_app_as_its_caller() -> None:
    net = Network()

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        async with net.session.ws_connect("http://chat.internal/") as websocket:
            assert await websocket.receive_str() == "hello"
        await respond(send)

    async def chat(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await net.call()
        await send({"type": "websocket.send", "text": "hello"})
        await receive()

    apps: dict[str, ASGIApp] = {"app.internal": front, "chat.internal": chat, "called.internal": plain}
    async with net.open(apps) as journal:
        await net.get("/")
        await journal.wait_for("chat.internal")
    assert callers_of(journal) == [
        (None, "app.internal", None),
        ("app.internal", "chat.internal", 0),
        ("chat.internal", "called.internal", 1),
    ]


# Where the caller is not known: code that runs in a context that was made elsewhere.


def as_it_is(work: Callable[[], T]) -> Callable[[], T]:
    return work


def in_this_context(work: Callable[[], T]) -> Callable[[], T]:
    """How to pass the caller on."""
    context = copy_context()
    return lambda: context.run(work)


Wrap = Callable[[Callable[[], None]], Callable[[], None]]


def a_bare_thread(net: Network, wrap: Wrap) -> ASGIApp:
    async def work() -> None:
        done = asyncio.Event()

        def target() -> None:
            net.call_from_thread()
            net.loop.call_soon_threadsafe(done.set)

        thread = threading.Thread(target=wrap(target))
        thread.start()
        await done.wait()
        thread.join()

    return answering(work)


def run_in_executor(net: Network, wrap: Wrap) -> ASGIApp:
    async def work() -> None:
        await net.loop.run_in_executor(None, wrap(net.call_from_thread))

    return answering(work)


def an_executor(net: Network, wrap: Wrap) -> ASGIApp:
    async def work() -> None:
        with ThreadPoolExecutor(1) as executor:
            await asyncio.wrap_future(executor.submit(wrap(net.call_from_thread)))

    return answering(work)


def a_queue(net: Network, wrap: Wrap) -> ASGIApp:
    """Of a consumer that is started where this is called, outside the app."""
    jobs = asyncio.Queue[Callable[[], None]]()
    calls = asyncio.Queue["asyncio.Task[None]"]()

    async def consume() -> None:
        job = await jobs.get()
        job()

    net.leave_behind(asyncio.create_task(consume()))

    async def work() -> None:
        await jobs.put(wrap(lambda: calls.put_nowait(asyncio.create_task(net.call()))))
        await (await calls.get())

    return answering(work)


OTHER_CONTEXTS = [a_bare_thread, run_in_executor, an_executor, a_queue]


@pytest.mark.parametrize("make_app", OTHER_CONTEXTS, ids=lambda make_app: make_app.__name__.replace("_", " "))
@pytest.mark.parametrize(
    ("wrap", "caller", "parent"),
    [pytest.param(as_it_is, None, None, id="as it is"), pytest.param(in_this_context, "app.internal", 0, id="cured")],
)
async def test_a_call_from_another_context_is_from_outside_unless_it_runs_in_a_copy_of_this_one(
    make_app: Callable[[Network, Wrap], ASGIApp], wrap: Wrap, caller: str | None, parent: int | None
) -> None:
    net = Network()
    async with net.open({"app.internal": make_app(net, wrap), "called.internal": plain}) as journal:
        await net.get("/")
    assert callers_of(journal) == [(None, "app.internal", None), (caller, "called.internal", parent)]


async def test_a_task_that_a_job_gets_with_its_context_is_its_apps() -> None:
    net = Network()
    jobs = asyncio.Queue[tuple[contextvars.Context, "asyncio.Future[None]"]]()

    async def consume() -> None:
        context, done = await jobs.get()
        await net.loop.create_task(net.call(), context=context)
        await net.call()
        done.set_result(None)

    async def work() -> None:
        done = net.loop.create_future()
        await jobs.put((copy_context(), done))
        await done

    net.leave_behind(asyncio.create_task(consume()))
    async with net.open({"app.internal": answering(work), "called.internal": plain}) as journal:
        await net.get("/")
    assert callers_of(journal) == [
        (None, "app.internal", None),
        ("app.internal", "called.internal", 0),
        (None, "called.internal", None),
    ]


async def test_a_worker_that_a_request_has_started_stays_that_requests() -> None:
    net = Network()
    jobs = asyncio.Queue["asyncio.Future[None] | None"]()
    workers: list[asyncio.Task[None]] = []

    async def consume() -> None:
        while (done := await jobs.get()) is not None:
            await net.call()
            done.set_result(None)

    async def work() -> None:
        if not workers:
            workers.append(asyncio.create_task(consume()))
        done = net.loop.create_future()
        await jobs.put(done)
        await done

    async with net.open({"app.internal": answering(work), "called.internal": plain}) as journal:
        await net.get("/")
        await net.get("/")
        await jobs.put(None)
        await workers[0]
    link = ("app.internal", "called.internal", 0)
    assert callers_of(journal) == [(None, "app.internal", None), link, (None, "app.internal", None), link]


# Lifespans.

Hook = Callable[[], Awaitable[None]]


async def nothing() -> None:
    pass


def with_lifespan(startup: Hook = nothing, shutdown: Hook = nothing, request: Work = nothing) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await startup()
        yield
        await shutdown()

    async def endpoint(request_: Request) -> Response:
        await request()
        return PlainTextResponse("ok")

    return starlette_app(endpoint, lifespan=lifespan)


@pytest.mark.parametrize("url", ["http://one.internal/", "http://two.internal/"])
async def test_a_lifespan_calls_as_the_first_pattern_of_its_app(url: str) -> None:
    net = Network()
    app = with_lifespan(startup=net.call, shutdown=net.call, request=net.call)
    apps: dict[str, ASGIApp] = {"one.internal": app, "two.internal": app, "called.internal": plain}
    async with net.open(apps, lifespan="auto") as journal:
        await net.get(url)
        await net.session.close()
    pattern = url.removeprefix("http://").removesuffix("/")
    assert callers_of(journal) == [
        (None, pattern, None),
        ("one.internal", "called.internal", None),  # the startup, which the first request waits for
        (pattern, "called.internal", 0),
        ("one.internal", "called.internal", None),
    ]


async def test_a_lifespan_that_is_started_for_another_app_calls_as_its_own() -> None:
    net = Network()

    async def first() -> None:
        await net.get("http://two.internal/")

    apps = {
        "app.internal": with_lifespan(request=first),
        "two.internal": with_lifespan(startup=net.call, request=net.call),
        "called.internal": with_lifespan(),
    }
    async with net.open(apps, lifespan="auto") as journal:
        await net.get("/")
    assert callers_of(journal) == [
        (None, "app.internal", None),
        ("app.internal", "two.internal", 0),
        ("two.internal", "called.internal", None),
        ("two.internal", "called.internal", 1),
    ]


async def test_a_lifespan_of_an_entered_connector_calls_as_its_app() -> None:
    net = Network()
    app = with_lifespan(startup=net.call, shutdown=net.call)
    async with net.open({"app.internal": app, "called.internal": plain}, lifespan="auto") as journal, net.connector:
        pass
    assert callers_of(journal) == [("app.internal", "called.internal", None)] * 2


@pytest.mark.parametrize(
    ("wrap", "parent"), [pytest.param(as_it_is, None, id="as it is"), pytest.param(in_this_context, 0, id="cured")]
)
async def test_a_worker_of_a_lifespan_calls_as_its_app_and_inside_of_no_exchange(
    wrap: Wrap, parent: int | None
) -> None:
    net = Network()
    jobs = asyncio.Queue["Callable[[], None] | None"]()
    workers: list[asyncio.Task[None]] = []
    called = list[asyncio.Task[None]]()

    async def consume() -> None:
        while (job := await jobs.get()) is not None:
            job()
            await called.pop()

    async def startup() -> None:
        workers.append(asyncio.create_task(consume()))

    async def shutdown() -> None:
        await jobs.put(None)
        await workers[0]

    async def enqueue() -> None:
        await jobs.put(wrap(lambda: called.append(asyncio.create_task(net.call()))))

    app = with_lifespan(startup, shutdown, enqueue)
    apps: dict[str, ASGIApp] = {"one.internal": app, "two.internal": app, "called.internal": plain}
    async with net.open(apps, lifespan="auto") as journal:
        await net.get("http://two.internal/")
        await journal.wait_for("called.internal")
    caller = "one.internal" if parent is None else "two.internal"
    assert callers_of(journal) == [(None, "two.internal", None), (caller, "called.internal", parent)]


async def test_a_lifespan_of_an_app_that_another_one_has_mounted_calls_as_its_own() -> None:
    net = Network()

    async def mount_and_call() -> None:
        net.connector.mount("two.internal", with_lifespan(startup=net.call))
        await net.get("http://two.internal/")

    apps: dict[str, ASGIApp] = {"app.internal": with_lifespan(request=mount_and_call), "called.internal": plain}
    async with net.open(apps, lifespan="auto") as journal:
        await net.get("/")
    assert callers_of(journal) == [
        (None, "app.internal", None),
        ("app.internal", "two.internal", 0),
        ("two.internal", "called.internal", None),
    ]


# Patterns.


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("app.internal", "http://app.internal/"),
        ("*.internal", "http://deep.app.internal/"),
        ("*", "http://anything/"),
        ("app.internal:8080", "http://app.internal:8080/"),
        ("https://app.internal", "https://app.internal/"),
        ("[::1]:9000", "http://[::1]:9000/"),
        ("127.0.0.1", "http://127.0.0.1/"),
    ],
)
async def test_the_caller_is_the_pattern_at_which_the_app_is_mounted(pattern: str, url: str) -> None:
    net = Network()
    async with net.open({pattern: answering(net.call), "called.internal": plain}) as journal:
        await net.get(url)
    assert callers_of(journal) == [(None, pattern, None), (pattern, "called.internal", 0)]
    assert list(journal.select(caller=pattern)) == [journal[1]]
    assert list(journal.select(caller=None)) == [journal[0]]


async def test_the_caller_is_spelt_as_the_mount_is_and_selected_in_any_case() -> None:
    net = Network()
    async with net.open({"App.Internal": answering(net.call), "called.internal": plain}) as journal:
        await net.get("/")
        [pattern] = set(net.connector.mounts) - {"called.internal"}
    assert journal[1].caller == pattern
    assert list(journal.select(caller="APP.internal")) == [journal[1]]


async def test_an_app_at_two_patterns_calls_as_the_one_that_it_was_reached_at() -> None:
    net = Network()
    app = answering(net.call)
    apps: dict[str, ASGIApp] = {"one.internal": app, "*.two.internal": app, "called.internal": plain}
    async with net.open(apps) as journal:
        await net.get("http://one.internal/")
        await net.get("http://a.two.internal/")
        await net.get("http://one.internal/")
    assert callers_of(journal) == [
        (None, "one.internal", None),
        ("one.internal", "called.internal", 0),
        (None, "*.two.internal", None),
        ("*.two.internal", "called.internal", 2),
        (None, "one.internal", None),
        ("one.internal", "called.internal", 4),
    ]


async def test_an_app_that_calls_itself_is_its_own_caller() -> None:
    net = Network()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if (left := int(scope["path"][1:])) > 0:
            await net.get(f"/{left - 1}")
        await respond(send)

    async with net.open({"app.internal": app}) as journal:
        await net.get("/3")
    link = "app.internal", "app.internal"
    assert callers_of(journal) == [(None, "app.internal", None), (*link, 0), (*link, 1), (*link, 2)]


async def test_the_only_app_of_a_connector_is_called_a_star() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/outer":
            async with session.get("http://inner/"):
                pass
        await respond(send)

    connector = ASGIApplicationConnector(app, lifespan="off")
    async with ClientSession(connector=connector) as session:
        with connector.record() as journal:
            async with session.get("http://outer/outer"):
                pass
    assert callers_of(journal) == [(None, "*", None), ("*", "*", 0)]


@pytest.mark.parametrize("how", ["mount", "unmount", "mounted"])
async def test_an_app_that_is_mounted_no_more_calls_as_it_was(how: str) -> None:
    net = Network()
    held = asyncio.Event()
    may_go_on = asyncio.Event()

    async def work() -> None:
        held.set()
        await may_go_on.wait()
        await net.call()

    async def finish(old: "asyncio.Task[None]") -> None:
        may_go_on.set()
        await old

    async with net.open({"app.internal": answering(work), "called.internal": plain}) as journal:
        old = asyncio.create_task(net.get("/"))
        await held.wait()
        if how == "mount":
            net.connector.mount("app.internal", answering(net.call))
            await net.get("/")
            await finish(old)
        elif how == "mounted":
            async with net.connector.mounted("app.internal", answering(net.call)):
                await net.get("/")
                await finish(old)
        else:
            net.connector.mount("*", answering(net.call))
            unmounting = asyncio.create_task(net.connector.unmount("app.internal"))
            await asyncio.sleep(0)  # for its first step
            await net.get("/")
            await finish(old)
            await unmounting
    replacement = "*" if how == "unmount" else "app.internal"
    assert callers_of(journal) == [
        (None, "app.internal", None),
        (None, replacement, None),
        (replacement, "called.internal", 1),
        ("app.internal", "called.internal", 0),
    ]


async def test_one_app_at_two_connectors_calls_as_the_one_where_it_was_reached() -> None:
    here, there = Network(), Network()
    app = answering(here.call)
    async with (
        there.open({"there.internal": app}) as journal_there,
        here.open({"here.internal": app, "called.internal": plain}) as journal,
    ):
        await here.get("http://here.internal/")
        await there.get("http://there.internal/")
    assert [each.caller for each in journal] == [None, "here.internal", "there.internal"]
    assert [each.parent for each in journal] == [None, journal[0], journal_there[0]]


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded there", "not recorded there"])
async def test_the_caller_is_known_at_another_connector_and_the_parent_where_it_was_recorded(recorded: bool) -> None:
    here, there = Network(), Network()

    async def work() -> None:
        await there.get("http://there.internal/")

    async with session_to({"there.internal": answering(here.call)}) as there._session:
        with there.connector.record() if recorded else nullcontext(Journal()) as journal_there:
            async with here.open({"here.internal": answering(work), "called.internal": plain}) as journal:
                await here.get("http://here.internal/")
    assert [each.caller for each in journal] == [None, "there.internal"]
    assert [(each.caller, each.parent) for each in journal_there] == [("here.internal", journal[0])] * recorded
    assert journal[1].parent is (journal_there[0] if recorded else None)


async def test_a_fallback_that_has_apps_of_its_own_knows_them_as_callers() -> None:
    net, inner = Network(), Network()
    async with session_to({"app.internal": answering(net.call)}) as inner._session:
        settings = {"fallback": inner.connector, "fallback_owner": False}
        with inner.connector.record() as journal_of_fallback:
            async with net.open({"called.internal": plain}, **settings) as journal:
                await net.get("/")
    assert [(each.caller, each.service, each.via) for each in journal] == [
        (None, None, "fallback"),
        ("app.internal", "called.internal", "app"),
    ]
    [inside] = journal_of_fallback
    assert (inside.caller, inside.service, inside.via) == (None, "app.internal", "app")
    assert journal[1].parent is inside


# From service to service.


async def test_each_hop_of_a_redirect_has_the_caller_of_the_first_and_children_of_its_own() -> None:
    net = Network()

    async def front() -> None:
        await net.get("http://one.internal/")

    apps = {
        "app.internal": answering(front),
        "one.internal": redirecting("http://two.internal/", net.call),
        "two.internal": redirecting("http://three.internal/", net.call),
        "three.internal": answering(net.call),
        "called.internal": plain,
    }
    async with net.open(apps) as journal:
        await net.get("/")
        await net.get("http://one.internal/")
    assert callers_of(journal) == [
        (None, "app.internal", None),
        ("app.internal", "one.internal", 0),
        ("one.internal", "called.internal", 1),
        ("app.internal", "two.internal", 0),
        ("two.internal", "called.internal", 3),
        ("app.internal", "three.internal", 0),
        ("three.internal", "called.internal", 5),
        (None, "one.internal", None),
        ("one.internal", "called.internal", 7),
        (None, "two.internal", None),
        ("two.internal", "called.internal", 9),
        (None, "three.internal", None),
        ("three.internal", "called.internal", 11),
    ]


async def test_a_second_try_has_the_caller_of_the_first_and_children_of_its_own() -> None:
    net = Network()

    async def front() -> None:
        await net.get("http://one.internal/")

    apps: dict[str, ASGIApp] = {
        "app.internal": answering(front),
        "one.internal": answering(net.call),
        "called.internal": plain,
    }
    async with net.open(apps) as journal:
        with net.connector.inject("one.internal", faults.Reset(), times=1):
            await net.get("/")
    assert callers_of(journal) == [
        (None, "app.internal", None),
        ("app.internal", "one.internal", 0),
        ("one.internal", "called.internal", 1),
        ("app.internal", "one.internal", 0),
        ("one.internal", "called.internal", 3),
    ]
    assert [each.state for each in journal] == ["done", "failed", "done", "done", "done"]


# Recordings that begin while requests run.


class Held(Network):
    """An app that waits before each of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = asyncio.Semaphore(0)
        self.waits = asyncio.Queue[None]()

    async def step(self) -> None:
        self.waits.put_nowait(None)
        await self.steps.acquire()

    async def work(self) -> None:
        await self.step()
        await self.get("http://middle.internal/")
        await self.step()
        await self.get("http://middle.internal/")

    def apps(self) -> dict[str, ASGIApp]:
        return {
            "app.internal": answering(self.work),
            "middle.internal": answering(self.call),
            "called.internal": plain,
        }


async def test_a_recording_that_begins_inside_of_a_request_knows_the_caller_and_no_parent() -> None:
    net = Held()
    async with session_to(net.apps()) as net._session:
        request = asyncio.create_task(net.get("/"))
        await net.waits.get()
        with net.connector.record() as journal:
            net.steps.release()
            net.steps.release()
            await request
    assert callers_of(journal) == [
        ("app.internal", "middle.internal", None),
        ("middle.internal", "called.internal", 0),
        ("app.internal", "middle.internal", None),
        ("middle.internal", "called.internal", 2),
    ]


async def test_a_recording_that_begins_inside_of_a_websocket_knows_the_caller_and_no_parent() -> None:
    net = Network()

    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await net.call()
            await websocket.send_text(text)

    async def call_inside(websocket: ClientWebSocketResponse) -> None:
        await websocket.send_str("hello")
        assert await websocket.receive_str() == "hello"

    app = answering_app(Starlette(routes=[WebSocketRoute("/", chat)]))
    async with (
        session_to({"app.internal": app, "called.internal": plain}) as net._session,
        net.session.ws_connect("/") as unrecorded,
    ):
        with net.connector.record() as journal:
            await call_inside(unrecorded)
            async with net.session.ws_connect("/") as recorded:
                await call_inside(recorded)
                await call_inside(unrecorded)
    assert callers_of(journal) == [
        ("app.internal", "called.internal", None),
        (None, "app.internal", None),
        ("app.internal", "called.internal", 1),
        ("app.internal", "called.internal", None),
    ]


async def test_the_parent_is_known_from_another_recording_that_has_ended() -> None:
    net = Held()
    async with session_to(net.apps()) as net._session:
        with net.connector.record() as first:
            request = asyncio.create_task(net.get("/"))
            await net.waits.get()
        net.steps.release()
        await net.waits.get()
        with net.connector.record() as second:
            net.steps.release()
            await request
    [outer] = first
    assert [each.caller for each in second] == ["app.internal", "middle.internal"]
    assert second[0].parent is outer
    assert second[1].parent is second[0]
    assert outer.state == "done"


async def test_a_connection_that_was_recorded_before_does_not_lend_its_parent() -> None:
    net = Network()
    async with session_to({"app.internal": answering(net.call), "called.internal": plain}) as net._session:
        with net.connector.record() as first:
            await net.get("/")
        await net.get("/")  # in between, on the same connections
        with net.connector.record() as second:
            await net.get("/")
    expected = [(None, "app.internal", None), ("app.internal", "called.internal", 0)]
    assert callers_of(first) == callers_of(second) == expected
    assert [each.reused for each in second] == [True, True]


# Many calls at the same time.


class Tree:
    """Three services, and a fourth that is called after the response. Each request has an id in a header."""

    def __init__(self, seed: int) -> None:
        self.session: ClientSession
        self.random = random.Random(seed)
        self.now = 0
        self.most = 0

    async def get(self, host: str, path: str, headers: dict[str, str]) -> None:
        await run_turns(self.random.randrange(8))
        async with self.session.get(f"http://{host}.internal{path}", headers=headers) as response:
            assert await response.text() == headers["x-id"]

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"x-id": dict(scope["headers"])[b"x-id"].decode()}
        service, path = dict(scope["headers"])[b"host"].decode().removesuffix(".internal"), scope["path"]
        if service == "front":
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.gather(self.get("middle", "/left", headers), self.get("middle", "/right", headers))
            self.now -= 1
        elif service == "middle":
            await self.get("back", path, headers)
        await run_turns(self.random.randrange(8))
        await respond(send, headers["x-id"].encode())
        if service == "front":
            await self.get("audit", path, headers)


def id_of(exchange: Exchange) -> str:
    return exchange.request.headers["x-id"]


@pytest.mark.parametrize("limit", [4, 0], ids=["over four connections to each", "all at once"])
async def test_150_interleaved_requests_three_services_deep_have_their_own_chains(limit: int) -> None:
    tree = Tree(seed=limit)
    services = ["front.internal", "middle.internal", "back.internal", "audit.internal"]
    async with session_to(dict.fromkeys(services, tree.app), limit_per_host=limit) as tree.session:
        connector = tree.session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        with connector.record(bodies=True) as journal:
            await asyncio.gather(*(tree.get("front", "/", {"x-id": str(number)}) for number in range(150)))
            await journal.wait_for("audit.internal", times=150, timeout=30)
    assert tree.most == (limit or 150)
    ids = {str(number): 1 for number in range(150)}
    assert Counter(id_of(each) for each in journal.select("front.internal")) == ids
    made = Counter[tuple[str, str | None, str, str | None, str | None]]()
    for each in journal:
        assert (each.state, each.status, each.via) == ("done", 200, "app")
        assert each.response is not None
        assert each.response.body == id_of(each).encode()
        assert each.parent is None or id_of(each.parent) == id_of(each)
        parent = (None, None) if each.parent is None else (each.parent.service, each.parent.path)
        made[id_of(each), each.service, each.path, *parent] += 1
        assert each.caller == parent[0]
    front, middle, back, audit = services
    assert made == {
        (number, *call): 1
        for number in ids
        for call in (
            (front, "/", None, None),
            (middle, "/left", front, "/"),
            (middle, "/right", front, "/"),
            (back, "/left", middle, "/left"),
            (back, "/right", middle, "/right"),
            (audit, "/", front, "/"),
        )
    }
    parents = Counter(each.parent for each in journal if each.parent is not None)
    assert all(parents[each] == {front: 3, middle: 1}.get(each.service or "", 0) for each in journal)
    if limit:
        assert all(sum(not each.reused for each in journal.select(host)) <= limit for host in services)


async def test_chains_are_the_same_where_services_fail_and_clients_leave() -> None:
    session: ClientSession
    turns = random.Random(0)
    reached: dict[str, asyncio.Event] = {}

    class Failure(Exception):
        pass

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        number = scope["path"][1:]
        host = dict(scope["headers"])[b"host"].decode()
        await receive()
        following = {"front.internal": "middle.internal", "middle.internal": "back.internal"}.get(host)
        await run_turns(turns.randrange(8))
        if following is not None:
            call = asyncio.create_task(fetch(number, following))
            gone = asyncio.ensure_future(receive())
            done, pending = await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            if call not in done:
                return
            call.result()
        elif number.startswith("fails"):
            raise Failure(number)
        elif number.startswith("leaves"):
            reached[number].set()
            await receive()
            return
        await respond(send)

    async def fetch(number: str, host: str = "front.internal") -> str:
        async with session.get(f"http://{host}/{number}") as response:
            return str(response.status)

    async def leave(number: str) -> str:
        reached[number] = asyncio.Event()
        client = asyncio.create_task(fetch(number))
        await reached[number].wait()
        client.cancel()
        with suppress(asyncio.CancelledError):
            await client
        return "left"

    async def fail(number: str) -> str:
        with pytest.raises(Failure, match=f"^{number}$"):
            await fetch(number)
        return "failed"

    services = ["front.internal", "middle.internal", "back.internal"]
    async with session_to(dict.fromkeys(services, app), limit_per_host=4) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        with connector.record() as journal:
            kinds = [(fetch, "answers"), (fail, "fails"), (leave, "leaves")]
            results = await asyncio.gather(
                *(client(f"{kind}-{number}") for number in range(50) for client, kind in kinds)
            )
            await journal.wait_for(times=450, timeout=30)
    assert Counter(results) == {"200": 50, "failed": 50, "left": 50}
    states = {"answers": "done", "fails": "failed", "leaves": "abandoned"}
    made = Counter[tuple[str, str | None, str | None, str | None, str]]()
    for each in journal:
        assert each.parent is None or each.parent.path == each.path
        parent = None if each.parent is None else each.parent.service
        made[each.path[1:], each.service, each.caller, parent, each.state] += 1
    assert made == {
        (f"{kind}-{number}", service, caller, caller, state): 1
        for number in range(50)
        for kind, state in states.items()
        for caller, service in zip([None, *services], services, strict=False)
    }
