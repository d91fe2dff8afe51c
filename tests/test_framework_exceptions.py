"""What each framework does with an exception that a handler raises, by default and when it is told to raise it.

The pages in docs/frameworks say so.
"""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from a2wsgi import WSGIMiddleware
from blacksheep import Application as BlackSheep
from blacksheep.server.routing import Router
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from fastapi import FastAPI
from fastapi.exceptions import ResponseValidationError
from flask import Flask
from litestar import Litestar, get
from litestar.exceptions import NotFoundException
from quart import Quart
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from asgi_connector._types import ASGIApp
from tests.conftest import session_to
from tests.django_project import django_app_of

ERROR = LookupError("no such user")


def starlette_app(*, debug: bool = False) -> ASGIApp:
    async def fail(request: Request) -> Response:
        raise ERROR

    return Starlette(debug=debug, routes=[Route("/", fail)])


def fastapi_app() -> ASGIApp:
    app = FastAPI()

    @app.get("/")
    async def fail() -> None:
        raise ERROR

    return app


def litestar_app(*, told: bool, debug: bool = False) -> ASGIApp:
    @get("/")
    async def fail() -> str:
        raise ERROR

    @get("/missing")
    async def missing() -> str:
        raise NotFoundException

    def raise_again(request: Any, exc: Exception) -> NoReturn:
        raise exc

    return Litestar(
        [fail, missing],
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

    return app


class RaisingBlackSheep(BlackSheep):
    async def handle_internal_server_error(self, request: Any, exc: Exception) -> NoReturn:
        raise exc


def blacksheep_app(kind: type[BlackSheep], *, show_error_details: bool = False) -> ASGIApp:
    app = kind(router=Router(), show_error_details=show_error_details)

    @app.router.get("/")
    async def fail() -> str:
        raise ERROR

    return app


def flask_app(*, testing: bool) -> ASGIApp:
    app = Flask(__name__)
    app.testing = testing

    @app.get("/")
    def fail() -> str:
        raise ERROR

    return WSGIMiddleware(app)  # type: ignore[arg-type] # its types are its own


RAISES: dict[str, Callable[[], ASGIApp]] = {
    "Starlette": starlette_app,
    "Starlette, debug": lambda: starlette_app(debug=True),
    "FastAPI": fastapi_app,
    "Litestar, told": lambda: litestar_app(told=True),
    "BlackSheep, told": lambda: blacksheep_app(RaisingBlackSheep),
    "Flask, testing": lambda: flask_app(testing=True),
}
ANSWERS_500: dict[str, Callable[[], ASGIApp]] = {
    "Litestar": lambda: litestar_app(told=False),
    "Litestar, debug": lambda: litestar_app(told=False, debug=True),
    "Quart": quart_app,
    "Quart, testing": lambda: quart_app(TESTING=True),
    "BlackSheep": lambda: blacksheep_app(BlackSheep),
    "BlackSheep, details": lambda: blacksheep_app(BlackSheep, show_error_details=True),
    "Flask": lambda: flask_app(testing=False),
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


async def test_quart_that_is_told_raises_a_group() -> None:
    error = await raised_by(quart_app(PROPAGATE_EXCEPTIONS=True))
    assert isinstance(error, ExceptionGroup)
    assert error.exceptions == (ERROR,)


async def test_litestar_that_is_told_still_answers_other_errors() -> None:
    assert await status_of(litestar_app(told=True), "/missing") == 404


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


async def test_django_answers_400_at_a_host_that_is_not_allowed(django_app: ASGIApp) -> None:
    middleware = ["django.middleware.common.CommonMiddleware"]
    with override_settings(ALLOWED_HOSTS=["other.internal"], MIDDLEWARE=middleware):
        assert await status_of(ASGIHandler()) == 400


async def test_fastapi_raises_for_a_response_that_does_not_match_its_model() -> None:
    app = FastAPI()

    @app.get("/", response_model=int)
    async def wrong() -> str:
        return "no number"

    assert isinstance(await raised_by(app), ResponseValidationError)


async def test_an_endpoint_class_of_starlette_is_an_app() -> None:
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("from a class")

    async with session_to(Endpoint) as session, session.get("/") as response:
        assert await response.text() == "from a class"


async def test_blacksheep_is_started_by_hand_without_lifespan() -> None:
    app = BlackSheep(router=Router())

    @app.router.get("/")
    async def hello() -> str:
        return "hello"

    started: Any = app  # its start() and stop() have no types
    await started.start()
    async with session_to(app) as session, session.get("/") as response:
        assert await response.text() == "hello"
    await started.stop()
