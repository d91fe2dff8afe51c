"""Every fault has the same effect on calls to an aiohttp.web application as on those to an app of ASGI."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import ClientTimeout, web

from asgi_connector import ASGIRoutingConnector, faults
from asgi_connector._types import App, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.flow import KIB, until_it_stops

BODY = b"hello world"


async def answer(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=BODY)


def web_app(handler: Any = answer) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/", handler)
    return app


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-length", b"%d" % len(BODY)), (b"content-type", b"application/octet-stream")]
    headers += [(b"date", b"Mon, 30 Nov 2026 16:04:12 GMT"), (b"server", b"Python/3.13 aiohttp/3.14.5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


APPS: Final[dict[str, Callable[[], App]]] = {"web": web_app, "asgi": lambda: asgi_app}


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest) -> App:
    return APPS[request.param]()


@asynccontextmanager
async def shaken(app: App, fault: faults.Fault, timeout: float = 10) -> AsyncIterator[aiohttp.ClientSession]:
    async with session_to(app, session_timeout=ClientTimeout(total=timeout)) as session:
        with connector_of(session).inject("app.internal", fault):
            yield session


def connector_of(session: aiohttp.ClientSession) -> ASGIRoutingConnector:
    assert isinstance(session.connector, ASGIRoutingConnector)
    return session.connector


async def outcome(session: aiohttp.ClientSession, **request: Any) -> object:
    try:
        async with session.post("/", **request) as response:
            return response.status, await response.read()
    except Exception as exc:
        return type(exc)


REFUSED = aiohttp.ClientConnectorError
RESET = aiohttp.ClientOSError
GONE = aiohttp.ServerDisconnectedError
CUT = aiohttp.ClientPayloadError


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.Refuse(), REFUSED),
        (faults.Unresolvable(), aiohttp.ClientConnectorDNSError),
        (faults.Respond(503, body=b"busy"), (503, b"busy")),
        (faults.Respond(204), (204, b"")),
        (faults.Hang("connect"), TimeoutError),
        (faults.Hang("request"), TimeoutError),
        (faults.Hang("response"), TimeoutError),
        (faults.Hang("response", after=3), TimeoutError),
        (faults.Reset("request"), RESET),
        (faults.Reset("response"), RESET),
        (faults.Reset("response", after=3), CUT),
        (faults.Close("request"), GONE),
        (faults.Close("response"), GONE),
        (faults.Close("response", after=3), CUT),
        (faults.Latency(0.01), (200, BODY)),
        (faults.Latency(0.01, on="request"), (200, BODY)),
        (faults.Throttle(100_000), (200, BODY)),
        (faults.Throttle(100_000, on="request"), (200, BODY)),
    ],
    ids=repr,
)
async def test_a_fault_affects_a_call(app: App, fault: faults.Fault, expected: object) -> None:
    async with shaken(app, fault, 0.2 if expected is TimeoutError else 10) as session:
        found = await outcome(session, data=b"x" * 10)
    if isinstance(expected, type):
        assert isinstance(found, type)
        assert issubclass(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize("fault", [faults.Respond(503, body=b"busy"), faults.Respond(503, [("X-A", "1")])], ids=repr)
async def test_respond_answers_on_a_connection_that_has_been_used(app: App, fault: faults.Respond) -> None:
    async with session_to(app) as session:
        assert await outcome(session) == (200, BODY)
        with connector_of(session).record(bodies=True) as journal:
            with connector_of(session).inject("app.internal", fault, times=1):
                async with session.post("/", data=b"abc") as response:
                    assert (response.status, await response.read()) == (503, fault.raw_body)
                    assert (b"X-A", b"1") in response.raw_headers or fault.raw_body
                    assert "Date" not in response.headers
            assert await outcome(session) == (200, BODY)
    first, second = journal
    assert (first.via, first.fault, first.status) == ("fault", fault, 503)
    assert first.response is not None
    assert first.response.body == fault.raw_body
    assert (second.via, second.status) == ("app", 200)


async def test_respond_answers_a_handshake(app: App) -> None:
    async with session_to(app) as session:
        assert await outcome(session) == (200, BODY)
        with connector_of(session).inject("app.internal", faults.Respond(503, body=b"busy")):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect("/")
            assert caught.value.status == 503
        assert await outcome(session) == (200, BODY)


async def test_respond_does_not_start_the_application() -> None:
    started: list[str] = []

    async def start(app: web.Application) -> None:
        started.append("started")

    app = web_app()
    app.on_startup.append(start)
    async with session_to(app, lifespan="auto") as session:
        with connector_of(session).inject("app.internal", faults.Respond(503)):
            assert await outcome(session) == (503, b"")
        assert not started
        assert await outcome(session) == (200, BODY)
        assert started


async def test_respond_does_not_read_an_upload(app: App) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 64 * KIB

    async with shaken(app, faults.Respond(503, body=b"busy")) as session:
        assert await outcome(session, data=pieces()) == (503, b"busy")


# Requests that are under way when the block begins.


class Slow:
    """Answers in two halves, and reads the request before, each when it is let."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def read_first(self, request: web.Request) -> web.Response:
        self.reached.set()
        await self.go_on.wait()
        return web.Response(body=BODY)

    async def answer_half(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(BODY)
        await response.prepare(request)
        await response.write(BODY[:5])
        self.reached.set()
        await self.go_on.wait()
        await response.write(BODY[5:])
        return response


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.Reset("response"), RESET),
        (faults.Close("response"), GONE),
        (faults.Latency(0.01), (200, BODY)),
        (faults.Reset("request"), RESET),
    ],
    ids=repr,
)
async def test_a_fault_affects_a_request_whose_response_has_not_begun(fault: faults.Fault, expected: object) -> None:
    slow = Slow()
    async with session_to(web_app(slow.read_first)) as session:
        calling = asyncio.ensure_future(outcome(session))
        await slow.reached.wait()
        with connector_of(session).inject("app.internal", fault) as injection:
            slow.go_on.set()
            assert await calling == expected
    assert injection.affected == 1


@pytest.mark.parametrize(("fault", "expected"), [(faults.Reset("response"), CUT), (faults.Close("response"), CUT)])
async def test_a_fault_affects_a_request_whose_response_has_begun(fault: faults.Fault, expected: object) -> None:
    slow = Slow()
    async with session_to(web_app(slow.answer_half)) as session:
        calling = asyncio.ensure_future(outcome(session))
        await slow.reached.wait()
        await until_it_stops(lambda: 0)
        with connector_of(session).inject("app.internal", fault):
            slow.go_on.set()
            assert await calling == expected


async def test_a_fault_affects_a_request_that_is_about_to_be_read() -> None:
    async with session_to(web_app()) as session:
        assert await outcome(session) == (200, BODY)

        async def pieces() -> AsyncIterator[bytes]:
            begun.set()
            await go_on.wait()
            yield b"x"

        begun, go_on = asyncio.Event(), asyncio.Event()
        calling = asyncio.ensure_future(outcome(session, data=pieces()))
        await begun.wait()
        with connector_of(session).inject("app.internal", faults.Reset("request")):
            go_on.set()
            assert await calling == RESET


async def test_an_idle_connection_is_not_in_the_way_of_a_fault() -> None:
    async with session_to(web_app()) as session:
        assert await outcome(session) == (200, BODY)
        with connector_of(session).inject("app.internal", faults.Refuse()):
            assert isinstance(await outcome(session), type)
        assert await outcome(session) == (200, BODY)
        await until_it_stops(lambda: 0)
        with connector_of(session).inject("app.internal", faults.Reset("request"), allow_unused=True):
            pass
        assert await outcome(session) == (200, BODY)
