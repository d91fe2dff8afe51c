"""What may be mounted as an app, and what is refused, with a message that says what to write instead."""

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack
from types import MethodType
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock, create_autospec

import a2wsgi
import blacksheep
import fastapi
import flask
import litestar
import pytest
import quart
import socketio
import starlette.applications
import starlette.endpoints
import starlette.responses
import strawberry
import strawberry.asgi
import uvicorn.middleware.asgi2
import uvicorn.middleware.proxy_headers
from aiohttp import ClientSession
from asgiref import compatibility
from blacksheep.server.routing import Router
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

from asgi_connector import ASGIApplicationConnector, ASGIRoutingConnector, Mount
from asgi_connector._services import apps as module
from asgi_connector._services.apps import check_app
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import session_to


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def make_app() -> Any:
    return app


def make_configured_app(config: object = None, *, debug: bool = False) -> Any:
    return app


async def make_app_later() -> Any:
    return app


class ASGI2:
    """An application of ASGI 2: it is called with the scope, and its result is called with the other two."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        await app(self.scope, receive, send)


def asgi2_app(scope: Scope) -> ASGI2:
    return ASGI2(scope)


class Router2:
    def __call__(self, scope: Scope) -> ASGI2:
        return ASGI2(scope)


class WSGIClass:
    """PEP 3333 allows a class whose instances are the response."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...


class Middleware:
    def __init__(self, app: Any) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Service:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    def make(self) -> Any: ...


class Factory:
    def __call__(self) -> Any: ...


class WSGIWithMore:
    def __call__(self, environ: Any, start_response: Any, timeout: float = 1.0) -> Any: ...


flask_app = flask.Flask("flask_app")


async def needs_more(scope: Scope, receive: Receive, send: Any, config: object) -> None: ...


async def needs_a_keyword(scope: Scope, receive: Receive, send: Send, *, config: object) -> None: ...


async def view(request: object) -> None: ...


SINGLE_CALLABLE = "asgiref.compatibility.guarantee_single_callable"
single_callable: Any = compatibility.guarantee_single_callable
WSGI = "it takes (environ, start_response), as a WSGI application does; write a2wsgi.WSGIMiddleware(app)"
IS_FACTORY = "it needs no arguments; if it makes the application"
MISTAKES: list[tuple[Any, str]] = [
    (fastapi.FastAPI, "it is a class; write FastAPI()"),
    (starlette.applications.Starlette, "it is a class; write Starlette()"),
    (litestar.Litestar, "it is a class; write Litestar()"),
    (quart.Quart, "it is a class; write Quart(...)"),
    (blacksheep.Application, "it is a class; write Application()"),
    (ASGIHandler, "it is a class; write ASGIHandler()"),
    (Middleware, "it is a class; write Middleware(...)"),
    (Service, "it is a class; write Service()"),
    (AsyncWebsocketConsumer, "it is a class; write AsyncWebsocketConsumer.as_asgi()"),
    (ASGI2, f"it is a class, as an application of ASGI 2 may be; write {SINGLE_CALLABLE}(ASGI2)"),
    (WSGIClass, WSGI.replace("app)", "WSGIClass)")),
    (make_app, f"{IS_FACTORY}, write make_app(), or Mount(factory=make_app)"),
    (make_configured_app, f"{IS_FACTORY}, write make_configured_app(), or Mount(factory=make_configured_app)"),
    (functools.partial(make_app), f"{IS_FACTORY}, write make_app(), or Mount(factory=make_app)"),
    (functools.partial(fastapi.FastAPI, title="x"), "it needs no arguments"),
    (lambda: app, f"{IS_FACTORY}, write make_app(), or Mount(factory=make_app)"),
    (Factory(), "it needs no arguments"),
    (Service().make, f"{IS_FACTORY}, write make(), or Mount(factory=make)"),
    (make_app_later, f"{IS_FACTORY}, write await make_app_later(), or Mount(factory=make_app_later)"),
    (functools.partial(make_app_later), f"{IS_FACTORY}, write await make_app(), or Mount(factory=make_app)"),
    (flask_app, WSGI),
    (flask_app.wsgi_app, WSGI),
    (WSGIHandler.__new__(WSGIHandler), WSGI),
    (WSGIWithMore(), "it takes (environ, start_response, timeout), as a WSGI application does"),
    (lambda environ, start_response: [], WSGI),
    (
        lambda env, start: [],
        "it takes (env, start), and not (scope, receive, send); if it is a WSGI application, write",
    ),
    (asgi2_app, f"it takes (scope), as an application of ASGI 2 does; write {SINGLE_CALLABLE}(app)"),
    (Router2(), "it takes (scope), as an application of ASGI 2 does"),
    (ASGI2({}), "it takes (receive, send), and not (scope, receive, send)"),
    (view, "it takes (request), and not (scope, receive, send)"),
    (needs_more, "it takes (scope, receive, send, config), and not (scope, receive, send)"),
    (needs_a_keyword, "it takes (scope, receive, send, *, config), and not (scope, receive, send)"),
    (functools.partial(app, {}), "it takes (receive, send), and not (scope, receive, send)"),
    (functools.partial(needs_more, send=print), "it takes (scope, receive, config), and not (scope, receive, send)"),
    ("main:app", "it cannot be called with (scope, receive, send)"),
    (sys.modules[__name__], "it cannot be called with (scope, receive, send)"),
    (None, "it cannot be called with (scope, receive, send)"),
]
every_mistake = pytest.mark.parametrize(
    ("mistake", "says"), MISTAKES, ids=[f"{number}-{says[:40]}" for number, (_, says) in enumerate(MISTAKES)]
)


@every_mistake
def test_what_is_no_app_is_refused_and_the_error_says_what_to_write(mistake: Any, says: str) -> None:
    with pytest.raises(TypeError) as caught:
        Mount(mistake)
    assert str(caught.value).startswith(f"{mistake!r} is not an ASGI application: {says}")


async def test_every_way_to_mount_refuses_it_and_names_the_pattern_before_anything_changes() -> None:
    def problem(caught: pytest.ExceptionInfo[TypeError]) -> str:
        assert repr(make_app) in str(caught.value)
        return str(caught.value).partition(":")[0]

    with pytest.raises(TypeError) as caught:
        ASGIRoutingConnector({"users.internal": app, "orders.internal": make_app})  # type: ignore[dict-item]
    assert problem(caught) == "'orders.internal'"
    with pytest.raises(TypeError) as caught:
        ASGIApplicationConnector(make_app)  # type: ignore[arg-type]
    assert problem(caught) == "'*'"
    async with ASGIRoutingConnector({"users.internal": app}) as connector:
        with pytest.raises(TypeError) as caught:
            connector.mount("users.internal", make_app)  # type: ignore[arg-type]
        assert problem(caught) == "'users.internal'"
        async with AsyncExitStack() as stack:
            with pytest.raises(TypeError) as caught:
                await stack.enter_async_context(connector.mounted("users.internal", make_app))  # type: ignore[arg-type]
        assert problem(caught) == "'users.internal'"
        assert dict(connector.mounts) == {"users.internal": Mount(app)}


# Coroutines. Warnings are errors, also the one of a coroutine that is never awaited.


def test_a_coroutine_is_refused_and_closed() -> None:
    coroutine = make_app_later()
    with pytest.raises(TypeError, match=r"it has to be awaited; write await make_app_later\(\.\.\.\)"):
        Mount(coroutine)  # type: ignore[arg-type]
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def test_no_coroutine_of_a_table_that_is_refused_has_to_be_awaited() -> None:
    coroutines = [make_app_later() for _ in range(3)]
    apps: Any = {f"{number}.internal": coroutine for number, coroutine in enumerate(coroutines)}
    with pytest.raises(TypeError, match=r"'0\.internal'.*has to be awaited"):
        ASGIRoutingConnector(apps)
    assert {inspect.getcoroutinestate(coroutine) for coroutine in coroutines} == {inspect.CORO_CLOSED}


async def test_a_coroutine_that_a_task_runs_is_refused_and_goes_on() -> None:
    """Closing it would end the work of the task."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def make() -> Any:
        entered.set()
        await go_on.wait()
        return app

    coroutine = make()
    task = asyncio.create_task(coroutine)
    await entered.wait()
    for mistake in [coroutine, task]:
        with pytest.raises(TypeError, match="it has to be awaited"):
            Mount(mistake)  # type: ignore[arg-type]
    go_on.set()
    assert await task is app


# What is an app, or may be one.


class Endpoint(starlette.endpoints.HTTPEndpoint):
    async def get(self, request: object) -> Any:
        return starlette.responses.Response(status_code=204)


@strawberry.type
class Query:
    hello: str = "hello"


class Meta(type):
    async def __call__(cls, scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)


class AppByItsMetaclass(metaclass=Meta): ...


class AppByNew:
    def __new__(cls, scope: Scope, receive: Receive, send: Send) -> Any:
        return app(scope, receive, send)


class SyncAwaitable:
    """Its instances can be awaited, and there is no other way to call the app."""

    def __init__(self, *request: Any) -> None:
        self.request = request

    def __await__(self) -> Generator[Any, None, None]:
        scope, receive, send = self.request
        return app(scope, receive, send).__await__()


def returns_what_is_awaited(scope: Scope, receive: Receive, send: Send) -> Any:
    return app(scope, receive, send)


@functools.wraps(make_app)
async def decorated(*arguments: Any, **keywords: Any) -> None:
    """The result of a view decorator: the wrapped function takes other arguments than the wrapper."""
    await app(*arguments, **keywords)


async def with_a_signature_of_its_own(scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


with_a_signature_of_its_own.__signature__ = inspect.Signature()  # type: ignore[attr-defined]


def with_defaults(scope: Any = None, receive: Any = None, send: Any = None) -> Any:
    return app(scope, receive, send)


async def configured(config: object, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def configured_last(scope: Scope, receive: Receive, send: Send, config: object, /) -> None:
    await app(scope, receive, send)


async def configured_by_keyword(scope: Scope, receive: Receive, send: Send, *, config: object) -> None:
    await app(scope, receive, send)


class Static:
    @staticmethod
    async def __call__(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)


class Delegating:
    """Every attribute is that of another object, including those that describe a signature."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("outside of every context")

    async def __call__(self, *arguments: Any) -> None:
        await app(*arguments)


class Partial(functools.partial[Any]): ...


SERVED: dict[str, Any] = {
    "function": app,
    "lambda": lambda scope, receive, send: app(scope, receive, send),
    "lambda of *arguments": lambda *arguments: app(*arguments),
    "function that returns what is awaited": returns_what_is_awaited,
    "defaults": with_defaults,
    "decorated": decorated,
    "__signature__": with_a_signature_of_its_own,
    "object": Service(),
    "bound method": Service().serve,
    "bound partial": MethodType(functools.partial(configured), "config"),
    "static method": Static(),
    "delegating": Delegating(),
    "partial": functools.partial(app),
    "partial by position": functools.partial(configured, "config"),
    "partial by keyword": functools.partial(configured_by_keyword, config="config"),
    "partial of a partial": functools.partial(functools.partial(configured_by_keyword), config="config"),
    "partial of an object": functools.partial(Service()),
    "partial of a method": functools.partial(Service().serve),
    "partial of a class": functools.partial(SyncAwaitable),
    "subclass of partial": Partial(app),
    "HTTPEndpoint": Endpoint,
    "partial of an HTTPEndpoint": functools.partial(Endpoint),
    "class whose instances are awaited": SyncAwaitable,
    "class with a metaclass": AppByItsMetaclass,
    "class with __new__": AppByNew,
    "ASGI 2, wrapped": single_callable(ASGI2),
    "uvicorn's ASGI2Middleware": uvicorn.middleware.asgi2.ASGI2Middleware(ASGI2),  # type: ignore[arg-type]
    "uvicorn's ProxyHeadersMiddleware": uvicorn.middleware.proxy_headers.ProxyHeadersMiddleware(app),  # type: ignore[arg-type]
    "Mock": Mock(side_effect=app),
    "MagicMock": MagicMock(side_effect=app),
    "AsyncMock": AsyncMock(side_effect=app),
    "autospec": create_autospec(app, side_effect=app),
}


@pytest.mark.parametrize("served", SERVED.values(), ids=SERVED)
async def test_it_is_mounted_and_served(served: Any) -> None:
    async with session_to(served) as session, session.get("/") as response:
        assert response.status == 204


FRAMEWORKS: dict[str, Callable[[], Any]] = {
    "FastAPI": fastapi.FastAPI,
    "Starlette": starlette.applications.Starlette,
    "Litestar": lambda: litestar.Litestar([], openapi_config=None, logging_config=None),
    "Quart": lambda: quart.Quart("quart"),
    "BlackSheep": lambda: blacksheep.Application(router=Router()),
    "Django": lambda: ASGIHandler.__new__(ASGIHandler),  # whose __init__ wants settings
    "Channels": lambda: ProtocolTypeRouter({"http": app}),
    "Channels, a consumer": AsyncWebsocketConsumer.as_asgi,
    "Socket.IO": lambda: socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi")),
    "Strawberry": lambda: strawberry.asgi.GraphQL(strawberry.Schema(Query)),
    "a2wsgi": lambda: a2wsgi.WSGIMiddleware(flask_app),  # type: ignore[arg-type]
    "WebSocketEndpoint": lambda: starlette.endpoints.WebSocketEndpoint,
    "Quart's current_app": lambda: quart.current_app,  # a proxy for an object that is not known yet
}


@pytest.mark.parametrize("make", FRAMEWORKS.values(), ids=FRAMEWORKS)
def test_a_framework_may_be_mounted(make: Callable[[], Any]) -> None:
    framework = make()
    assert Mount(framework).app is framework


@pytest.mark.parametrize("unknown", [print, dict.get, [].append], ids=["function", "method", "bound method"])
def test_what_is_not_known_for_sure_may_be_mounted(unknown: Any) -> None:
    """For example compiled functions. Whether it is an app shows only when it is called."""
    assert Mount(unknown).app is unknown


def test_a_partial_with_gaps_may_be_mounted() -> None:
    """From Python 3.14 on a partial may skip arguments in the middle: `functools.Placeholder`."""
    gap: Any = getattr(functools, "Placeholder", module._PLACEHOLDER)
    check_app(functools.partial(configured_last, gap, gap, gap, "config"))


async def test_a_session_reaches_what_was_written_as_the_error_says() -> None:
    apps = {
        "made.internal": make_app(),
        "awaited.internal": await make_app_later(),
        "old.internal": single_callable(ASGI2),
        "wsgi.internal": a2wsgi.WSGIMiddleware(flask_app),  # type: ignore[arg-type]
    }
    async with session_to(apps) as session:
        assert [await status(session, host) for host in apps] == [204, 204, 204, 404]


async def status(session: ClientSession, host: str) -> int:
    async with session.get(f"http://{host}/") as response:
        return response.status


@pytest.mark.parametrize("name", ["function", "object", "bound method"])
def test_an_app_of_the_usual_kind_is_known_without_a_look_at_its_parameters(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So mounting thousands of them costs almost nothing."""
    looked_at: list[object] = []
    monkeypatch.setattr(module, "_call_of", looked_at.append)
    Mount(SERVED[name])
    assert looked_at == ([SERVED[name]] if name == "bound method" else [])
