"""What each framework does with an exception that a handler raises, by default and with its switch for raising it.

The pages in docs/frameworks describe it.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, NoReturn

import blacksheep
import fastapi
import litestar
import pytest
import quart
from a2wsgi import WSGIMiddleware
from aiohttp import WSMsgType, WSServerHandshakeError
from blacksheep import Application as BlackSheep
from blacksheep.server.routing import Router
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from fastapi import FastAPI
from fastapi.exceptions import ResponseValidationError
from flask import Flask
from litestar import Litestar, get
from litestar.exceptions import LitestarException, LitestarWarning, NotFoundException
from litestar.response import Stream
from quart import Quart
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import WebSocketException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_connector._types import ASGIApp
from tests.conftest import session_to
from tests.support.django_project import django_app_of
from tests.support.reports import Reports

pytestmark = pytest.mark.frameworks

ERROR = LookupError("no such user")


@pytest.fixture(autouse=True)
def no_frames_of_an_earlier_test() -> Iterator[None]:
    """Each test raises ERROR. Its traceback must not keep the frames of the previous test."""
    yield
    ERROR.__traceback__ = ERROR.__context__ = None


def starlette_app(*, debug: bool = False, handled: type[Exception] | int | None = None) -> ASGIApp:
    async def fail(request: Request) -> Response:
        raise ERROR

    async def fail_before_accept(websocket: WebSocket) -> None:
        raise ERROR

    async def fail_after_accept(websocket: WebSocket) -> None:
        await websocket.accept()
        raise ERROR

    async def answer(request: Request, exc: Exception) -> Response:
        return PlainTextResponse("handled", 500)

    return Starlette(
        debug=debug,
        routes=[
            Route("/", fail),
            WebSocketRoute("/before", fail_before_accept),
            WebSocketRoute("/after", fail_after_accept),
        ],
        exception_handlers={} if handled is None else {handled: answer},
    )


def fastapi_app() -> ASGIApp:
    app = FastAPI()

    @app.get("/")
    async def fail() -> None:
        raise ERROR

    @app.websocket("/before")
    async def fail_before_accept(websocket: fastapi.WebSocket) -> None:
        raise ERROR

    @app.websocket("/after")
    async def fail_after_accept(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        raise ERROR

    return app


def litestar_app(*, told: bool, debug: bool = False) -> ASGIApp:
    @get("/")
    async def fail() -> str:
        raise ERROR

    @get("/missing")
    async def missing() -> str:
        raise NotFoundException

    @litestar.websocket("/before")
    async def fail_before_accept(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        raise ERROR

    @litestar.websocket("/after")
    async def fail_after_accept(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        raise ERROR

    def raise_again(request: Any, exc: Exception) -> NoReturn:
        raise exc

    return Litestar(
        [fail, missing, fail_before_accept, fail_after_accept],
        debug=debug,
        exception_handlers={500: raise_again} if told else {},
        openapi_config=None,
        logging_config=None,
    )


def quart_app(**config: bool) -> ASGIApp:
    app = Quart(__name__)
    app.config.update(config)

    @app.get("/")
    async def fail() -> str:
        raise ERROR

    @app.websocket("/before")
    async def fail_before_accept() -> None:
        raise ERROR

    @app.websocket("/after")
    async def fail_after_accept() -> None:
        await quart.websocket.accept()
        raise ERROR

    return app


class RaisingBlackSheep(BlackSheep):
    async def handle_internal_server_error(self, request: Any, exc: Exception) -> NoReturn:
        raise exc


def blacksheep_app(kind: type[BlackSheep], *, show_error_details: bool = False) -> ASGIApp:
    app = kind(router=Router(), show_error_details=show_error_details)

    @app.router.get("/")
    async def fail() -> str:
        raise ERROR

    @app.router.ws("/before")
    async def fail_before_accept(websocket: blacksheep.WebSocket) -> None:
        raise ERROR

    @app.router.ws("/after")
    async def fail_after_accept(websocket: blacksheep.WebSocket) -> None:
        await websocket.accept()
        raise ERROR

    return app


def blacksheep_app_whose_exception_handler_raises() -> ASGIApp:
    async def raise_again(app: BlackSheep, request: Any, exc: Exception) -> NoReturn:
        raise exc

    app: Any = blacksheep_app(BlackSheep)
    app.exception_handler(LookupError)(raise_again)
    checked: ASGIApp = app
    return checked


def flask_app(**config: bool) -> ASGIApp:
    app = Flask(__name__)
    app.config.update(config)

    @app.get("/")
    def fail() -> str:
        raise ERROR

    return WSGIMiddleware(app)  # type: ignore[arg-type] # its types are its own


RAISES: dict[str, Callable[[], ASGIApp]] = {
    "Starlette": starlette_app,
    "Starlette, debug": lambda: starlette_app(debug=True),
    "Starlette, handler for Exception": lambda: starlette_app(handled=Exception),
    "Starlette, handler for 500": lambda: starlette_app(handled=500),
    "FastAPI": fastapi_app,
    "Litestar, told": lambda: litestar_app(told=True),
    "BlackSheep, told": lambda: blacksheep_app(RaisingBlackSheep),
    "Flask, testing": lambda: flask_app(TESTING=True),
    "Flask, told": lambda: flask_app(PROPAGATE_EXCEPTIONS=True),
}
ANSWERS_500: dict[str, Callable[[], ASGIApp]] = {
    "Starlette, handler for LookupError": lambda: starlette_app(handled=LookupError),
    "Litestar": lambda: litestar_app(told=False),
    "Litestar, debug": lambda: litestar_app(told=False, debug=True),
    "Quart": quart_app,
    "Quart, testing": lambda: quart_app(TESTING=True),
    "Quart, told, testing": lambda: quart_app(PROPAGATE_EXCEPTIONS=True, TESTING=True),
    "Quart, told, debug": lambda: quart_app(PROPAGATE_EXCEPTIONS=True, DEBUG=True),
    "BlackSheep": lambda: blacksheep_app(BlackSheep),
    "BlackSheep, details": lambda: blacksheep_app(BlackSheep, show_error_details=True),
    "BlackSheep, exception handler": blacksheep_app_whose_exception_handler_raises,
    "Flask": flask_app,
}


async def raised_by(app: ASGIApp, url: str = "/") -> BaseException:
    async with session_to(app, lifespan="auto") as session:
        with pytest.raises((LookupError, ExceptionGroup, ResponseValidationError)) as caught:
            await session.get(url)
    return caught.value


async def status_of(app: ASGIApp, url: str = "/") -> int:
    async with session_to(app, lifespan="auto") as session, session.get(url) as response:
        return response.status


@pytest.mark.parametrize("make_app", RAISES.values(), ids=RAISES)
async def test_the_client_raises_what_the_handler_raises(make_app: Callable[[], ASGIApp]) -> None:
    assert await raised_by(make_app()) is ERROR


@pytest.mark.parametrize("make_app", ANSWERS_500.values(), ids=ANSWERS_500)
async def test_a_framework_that_handles_the_exception_answers_500(make_app: Callable[[], ASGIApp]) -> None:
    assert await status_of(make_app()) == 500


def is_raised_by_quart(error: BaseException | None) -> bool:
    """Since 0.23, which needs Python 3.12, Quart raises the exception in a group."""
    if tuple(map(int, version("quart").split(".")[:2])) < (0, 23):
        return error is ERROR
    return isinstance(error, ExceptionGroup) and error.exceptions == (ERROR,)


async def test_quart_that_is_told_raises_a_group() -> None:
    assert is_raised_by_quart(await raised_by(quart_app(PROPAGATE_EXCEPTIONS=True)))


async def test_litestar_that_is_told_still_answers_other_errors() -> None:
    assert await status_of(litestar_app(told=True), "/missing") == 404


async def test_litestar_raises_an_exception_of_its_own_in_the_middle_of_a_stream() -> None:
    @get("/")
    async def stream() -> Stream:
        async def body() -> AsyncIterator[bytes]:
            yield b"begun"
            raise ERROR

        return Stream(body())

    app = Litestar([stream], openapi_config=None, logging_config=None)
    async with session_to(app, lifespan="auto") as session, session.get("/") as response:
        with pytest.raises(LitestarException, match="after response started") as caught:
            await response.read()
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert caught.value.__cause__.exceptions == (ERROR,)


async def test_litestar_answers_500_after_its_debugger() -> None:
    @get("/")
    async def fail() -> str:
        raise ERROR

    calls: list[str] = []
    debugger: Any = SimpleNamespace(post_mortem=lambda: calls.append("post_mortem"))
    with pytest.warns(LitestarWarning, match="Debugger"):
        app = Litestar(
            [fail], pdb_on_exception=True, debugger_module=debugger, openapi_config=None, logging_config=None
        )
    assert await status_of(app) == 500
    assert calls == ["post_mortem"]


@pytest.fixture
def django_app() -> Iterator[ASGIApp]:
    async def fail(request: HttpRequest) -> HttpResponse:
        raise ERROR

    def fail_in_a_thread(request: HttpRequest) -> HttpResponse:
        raise ERROR

    with django_app_of({"": fail, "thread": fail_in_a_thread}) as app:
        yield app


@pytest.mark.parametrize("url", ["/", "/thread"])
async def test_django_answers_500_unless_it_is_told_to_raise(django_app: ASGIApp, url: str) -> None:
    assert await status_of(django_app, url) == 500
    with override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True):
        assert await raised_by(django_app, url) is ERROR


@pytest.mark.usefixtures("django_app")
async def test_django_answers_400_at_a_host_that_is_not_allowed() -> None:
    middleware = ["django.middleware.common.CommonMiddleware"]
    with override_settings(ALLOWED_HOSTS=["other.internal"], MIDDLEWARE=middleware):
        assert await status_of(ASGIHandler()) == 400


async def test_django_does_not_take_websockets(django_app: ASGIApp) -> None:
    async with session_to(django_app, lifespan="auto") as session:
        with pytest.raises(ValueError, match="not websocket"):
            await session.ws_connect("/")


# WebSocket.

WEBSOCKET_RAISES: dict[str, Callable[[], ASGIApp]] = {"Starlette": starlette_app, "FastAPI": fastapi_app}
WEBSOCKET_HANDLED: dict[str, tuple[Callable[[], ASGIApp], int, int]] = {
    "Litestar": (lambda: litestar_app(told=False), 403, 4500),
    "Litestar, told": (lambda: litestar_app(told=True), 403, 4500),
    "Quart": (quart_app, 500, 1000),
    "Quart, told, testing": (lambda: quart_app(PROPAGATE_EXCEPTIONS=True, TESTING=True), 500, 1000),
    "BlackSheep": (lambda: blacksheep_app(BlackSheep), 403, 1011),
    "BlackSheep, told": (lambda: blacksheep_app(RaisingBlackSheep), 403, 1011),
}


async def raised_before_accept(app: ASGIApp) -> BaseException:
    async with session_to(app, lifespan="auto") as session:
        with pytest.raises((LookupError, ExceptionGroup)) as caught:
            await session.ws_connect("/before")
    return caught.value


async def raised_after_accept(app: ASGIApp) -> BaseException | None:
    async with session_to(app, lifespan="auto") as session, session.ws_connect("/after") as ws:
        message = await ws.receive(timeout=5)
        assert message.type is WSMsgType.ERROR
        assert ws.exception() is message.data
        return ws.exception()


@pytest.mark.parametrize("make_app", WEBSOCKET_RAISES.values(), ids=WEBSOCKET_RAISES)
async def test_the_client_of_a_websocket_is_given_what_its_handler_raises(
    make_app: Callable[[], ASGIApp], reports: Reports
) -> None:
    assert await raised_before_accept(make_app()) is ERROR
    assert await raised_after_accept(make_app()) is ERROR
    assert reports.exceptions == [ERROR]


async def test_the_client_of_a_websocket_is_given_the_group_of_quart(reports: Reports) -> None:
    for error in (
        await raised_before_accept(quart_app(PROPAGATE_EXCEPTIONS=True)),
        await raised_after_accept(quart_app(PROPAGATE_EXCEPTIONS=True)),
    ):
        assert is_raised_by_quart(error)
    assert len(reports.all) == 1


@pytest.mark.parametrize(("make_app", "status", "code"), WEBSOCKET_HANDLED.values(), ids=WEBSOCKET_HANDLED)
async def test_a_framework_that_handles_the_exception_refuses_or_closes_the_websocket(
    make_app: Callable[[], ASGIApp], status: int, code: int
) -> None:
    async with session_to(make_app(), lifespan="auto") as session:
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect("/before")
        assert caught.value.status == status
        async with session.ws_connect("/after") as ws:
            message = await ws.receive(timeout=5)
            assert (message.type, message.data) == (WSMsgType.CLOSE, code)


async def test_fastapi_raises_for_a_response_that_does_not_match_its_model() -> None:
    app = FastAPI()

    @app.get("/", response_model=int)
    async def wrong() -> str:
        return "no number"

    assert isinstance(await raised_by(app), ResponseValidationError)


async def test_a_websocket_exception_of_starlette_before_accept_is_a_403() -> None:
    async def refuse(websocket: WebSocket) -> None:
        raise WebSocketException(1008)

    async with session_to(Starlette(routes=[WebSocketRoute("/", refuse)])) as session:
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect("/")
    assert caught.value.status == 403


async def test_an_endpoint_class_of_starlette_is_an_app() -> None:
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("from a class")

    async with session_to(Endpoint) as session, session.get("/") as response:
        assert await response.text() == "from a class"


async def test_blacksheep_without_lifespan_starts_at_its_first_request_and_does_not_stop() -> None:
    log: list[str] = []
    app = BlackSheep(router=Router())

    @app.on_start
    async def start(app: BlackSheep) -> None:
        log.append("start")

    @app.on_stop
    async def stop(app: BlackSheep) -> None:
        log.append("stop")

    @app.router.get("/")
    async def hello() -> str:
        return "hello"

    async with session_to(app, lifespan="off") as session, session.get("/") as response:
        assert await response.text() == "hello"
    assert log == ["start"]


async def test_blacksheep_apps_share_a_router_unless_each_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blacksheep.server.application.default_router", Router())
    first, second, third = BlackSheep(), BlackSheep(), BlackSheep(router=Router())

    @first.router.get("/")
    async def hello() -> str:
        return "from the first"

    assert await status_of(second) == 200
    assert await status_of(third) == 404
