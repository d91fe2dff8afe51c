"""Real web frameworks: each is started, served and stopped."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession
from asgi_lifespan import LifespanManager
from blacksheep import Application as BlackSheep
from blacksheep.server.routing import Router
from django.http import HttpRequest, HttpResponse
from fastapi import FastAPI, Request
from litestar import Litestar, get
from litestar.datastructures import State
from quart import Quart
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asgi_connector import LifespanError
from tests.conftest import session_to
from tests.support.django_project import django_app_of

pytestmark = pytest.mark.frameworks

Log = list[str]


def fastapi_app(log: Log) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        log.append("startup")
        app.state.greeting = "hel"
        yield {"rest": "lo"}
        log.append("shutdown")

    app = FastAPI(lifespan=lifespan)

    @app.get("/", response_class=PlainTextResponse)
    async def hello(request: Request) -> str:
        log.append("request")
        return f"{request.app.state.greeting}{request.state.rest}"

    return app


def starlette_app(log: Log) -> Any:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        log.append("startup")
        yield {"greeting": "hello"}
        log.append("shutdown")

    async def hello(request: StarletteRequest) -> PlainTextResponse:
        log.append("request")
        return PlainTextResponse(request.state.greeting)

    return Starlette(routes=[Route("/", hello)], lifespan=lifespan)


def litestar_app(log: Log) -> Any:
    async def startup(app: Litestar) -> None:
        log.append("startup")
        app.state.greeting = "hello"

    async def shutdown(app: Litestar) -> None:
        log.append("shutdown")

    @get("/", media_type="text/plain")
    async def hello(state: State) -> str:
        log.append("request")
        return str(state.greeting)

    return Litestar([hello], on_startup=[startup], on_shutdown=[shutdown], openapi_config=None, logging_config=None)


def quart_app(log: Log) -> Any:
    app = Quart(__name__)

    @app.before_serving
    async def startup() -> None:
        log.append("startup")
        app.config["greeting"] = "hello"

    @app.after_serving
    async def shutdown() -> None:
        log.append("shutdown")

    @app.get("/")
    async def hello() -> str:
        log.append("request")
        return str(app.config["greeting"])

    return app


def blacksheep_app(log: Log) -> Any:
    app = BlackSheep(router=Router())
    greeting: Log = []

    @app.on_start
    async def startup(app: BlackSheep) -> None:
        log.append("startup")
        greeting.append("hello")

    @app.on_stop
    async def shutdown(app: BlackSheep) -> None:
        log.append("shutdown")

    @app.router.get("/")
    async def hello() -> str:
        log.append("request")
        return greeting[0]

    return app


FRAMEWORKS = {
    "FastAPI": fastapi_app,
    "Starlette": starlette_app,
    "Litestar": litestar_app,
    "Quart": quart_app,
    "BlackSheep": blacksheep_app,
}
every_framework = pytest.mark.parametrize("make_app", FRAMEWORKS.values(), ids=FRAMEWORKS)


async def fetch(session: ClientSession) -> str:
    async with session.get("/") as response:
        assert response.status == 200
        return await response.text()


@every_framework
@pytest.mark.parametrize("setting", ["auto", "on"])
async def test_a_framework_is_started_served_and_stopped(make_app: Any, setting: str) -> None:
    log: Log = []
    async with session_to(make_app(log), lifespan=setting) as session:
        assert await fetch(session) == "hello"
        assert await fetch(session) == "hello"
        assert log == ["startup", "request", "request"]
    assert log == ["startup", "request", "request", "shutdown"]


@pytest.mark.parametrize("make_app", [fastapi_app, starlette_app], ids=["FastAPI", "Starlette"])
async def test_a_lifespan_manager_does_it_with_lifespan_off(make_app: Any) -> None:
    log: Log = []
    async with (
        LifespanManager(make_app(log)) as manager,
        session_to(manager.app, lifespan="off") as session,
    ):
        assert await fetch(session) == "hello"
        await session.close()
        assert log == ["startup", "request"]
    assert log == ["startup", "request", "shutdown"]


@pytest.fixture
def django_app() -> Iterator[Any]:
    async def hello(request: HttpRequest) -> HttpResponse:
        return HttpResponse("hello")

    with django_app_of({"": hello}) as app:
        yield app


async def test_django_which_has_no_lifespan_is_served(django_app: Any) -> None:
    async with session_to(django_app, lifespan="auto") as session:
        assert await fetch(session) == "hello"
        assert await fetch(session) == "hello"


async def test_django_which_has_no_lifespan_is_an_error_where_one_must_be(django_app: Any) -> None:
    async with session_to(django_app, lifespan="on") as session:
        with pytest.raises(LifespanError, match="does not support lifespan") as caught:
            await fetch(session)
    assert isinstance(caught.value.__cause__, ValueError)


async def test_quart_that_fails_to_start_says_why() -> None:
    app = Quart(__name__)

    @app.before_serving
    async def startup() -> None:
        raise ValueError("no database")

    async with session_to(app, lifespan="auto", shutdown_timeout=0.1) as session:
        with pytest.raises(LifespanError, match="no database"):
            await fetch(session)


async def test_litestar_that_fails_to_start_gives_its_exception_as_the_cause() -> None:
    error = ValueError("no database")

    async def startup() -> None:
        raise error

    app = Litestar([], on_startup=[startup], openapi_config=None, logging_config=None)
    async with session_to(app, lifespan="auto") as session:
        with pytest.raises(LifespanError, match="no database") as caught:
            await fetch(session)
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert caught.value.__cause__.exceptions[0] is error


async def test_blacksheep_that_fails_to_start_is_an_error() -> None:
    app = BlackSheep(router=Router())

    @app.on_start
    async def startup(app: BlackSheep) -> None:
        raise ValueError("no database")

    async with session_to(app, lifespan="auto") as session:
        with pytest.raises(LifespanError, match=r"'app\.internal' failed to start"):
            await fetch(session)
