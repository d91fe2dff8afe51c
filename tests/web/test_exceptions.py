"""An exception that an aiohttp.web application does not handle is raised from the client's call, the same object."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientPayloadError, WSMsgType, web

from asgi_connector import ASGIConnectorError, Mount, faults
from asgi_connector._connector.routing import ASGIRoutingConnector
from tests.conftest import session_to
from tests.support.flow import KIB
from tests.support.reports import Reports, assert_logged, records


def app_of(handler: Any, **settings: Any) -> web.Application:
    app = web.Application(**settings)
    app.router.add_route("*", "/{tail:.*}", handler)
    return app


def failing(failure: BaseException) -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        raise failure

    return app_of(handler)


@pytest.mark.parametrize(
    "failure",
    [LookupError("no such user"), TimeoutError("slow"), OSError("disk"), aiohttp.ClientError("far")],
    ids=repr,
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_an_exception_is_raised_from_the_call(
    failure: BaseException, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with session_to(failing(failure)) as session:
        with pytest.raises(type(failure)) as caught:
            await session.request(method, "/")
    # An `OSError` is what a connection fails with, so aiohttp wraps it.
    assert (caught.value.__cause__ if type(failure) is OSError else caught.value) is failure
    assert not caplog.records


async def test_the_handler_runs_once_though_the_exception_looks_like_a_lost_connection() -> None:
    runs = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal runs
        runs += 1
        raise aiohttp.ServerDisconnectedError

    async with session_to(app_of(handler)) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.get("/")
    assert runs == 1


async def test_an_exception_of_a_middleware_is_raised() -> None:
    failure = LookupError("no such user")

    @web.middleware
    async def fail(request: web.Request, handler: Any) -> web.StreamResponse:
        await handler(request)
        raise failure

    async def ok(request: web.Request) -> web.Response:
        return web.Response()

    async with session_to(app_of(ok, middlewares=[fail])) as session:
        with pytest.raises(LookupError) as caught:
            await session.get("/")
    assert caught.value is failure


async def test_an_exception_of_on_response_prepare_is_raised() -> None:
    failure = LookupError("no such header")

    async def fail(request: web.Request, response: web.StreamResponse) -> None:
        raise failure

    async def ok(request: web.Request) -> web.Response:
        return web.Response()

    app = app_of(ok)
    app.on_response_prepare.append(fail)
    async with session_to(app) as session:
        with pytest.raises(LookupError) as caught:
            await session.get("/")
    assert caught.value is failure


async def test_an_exception_while_the_client_uploads_is_raised() -> None:
    failure = LookupError("no room")

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 64 * KIB

    async with session_to(failing(failure)) as session:
        with pytest.raises(LookupError) as caught:
            await session.post("/", data=pieces())
    assert caught.value is failure


@pytest.mark.parametrize("length", [None, 100])
@pytest.mark.parametrize("size", [3, 50 * KIB])
async def test_an_exception_in_the_response_is_raised_from_reading_it(length: int | None, size: int) -> None:
    failure = LookupError("no more")

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if length is not None:
            response.content_length = length * KIB
        await response.prepare(request)
        await response.write(b"x" * size)
        await delivered.wait()
        raise failure

    delivered = asyncio.Event()
    async with session_to(app_of(handler)) as session, session.get("/") as response:
        delivered.set()
        with pytest.raises(LookupError) as caught:
            await response.read()
    assert caught.value is failure


async def test_an_exception_right_after_the_head_is_raised_from_the_call() -> None:
    failure = LookupError("no body")

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        raise failure  # the head is still on its way

    async with session_to(app_of(handler)) as session:
        with pytest.raises(LookupError) as caught:
            await session.get("/")
    assert caught.value is failure


async def test_an_exception_of_a_body_is_raised() -> None:
    failure = LookupError("no more")
    go_on = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        await go_on.wait()
        raise failure

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=pieces())

    async with session_to(app_of(handler)) as session, session.get("/") as response:
        go_on.set()
        with pytest.raises(LookupError) as caught:
            await response.read()
    assert caught.value is failure


@pytest.mark.parametrize("way", ["whole", "length", "head"])
async def test_an_exception_after_the_response_is_reported(
    way: str, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    failure = LookupError("too late")
    delivered = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=b"abc") if way == "head" else web.StreamResponse()
        if way == "length":
            response.content_length = 3
        await response.prepare(request)
        if way != "head":
            await response.write(b"abc")
        if way != "length":
            await response.write_eof()
        await delivered.wait()
        raise failure

    async with session_to(app_of(handler)) as session:
        async with session.request("HEAD" if way == "head" else "GET", "/") as response:
            assert await response.read() == (b"" if way == "head" else b"abc")
        delivered.set()
        report = await reports.one()
    assert report["exception"] is failure
    assert "aiohttp.web" in report["message"]
    assert "http://app.internal/" in report["message"]
    assert_logged(caplog, failure, "/")


async def test_an_exception_whose_client_has_left_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    failure = LookupError("too late")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        await go_on.wait()
        raise failure

    async with session_to(app_of(handler)) as session:
        call = asyncio.ensure_future(session.get("/path"))
        await begun.wait()
        call.cancel()
        await asyncio.wait([call])
        go_on.set()
    assert_logged(caplog, failure, "GET http://app.internal/path")


async def test_a_body_that_its_reader_gives_up_does_not_hide_the_exception(caplog: pytest.LogCaptureFixture) -> None:
    failure = LookupError("no more")
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"abc")
        await go_on.wait()
        raise failure

    async with session_to(app_of(handler)) as session:
        response = await session.get("/")
        go_on.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        response.close()
    assert [record.exc_info and record.exc_info[1] for record in records(caplog)] in ([], [failure])


async def test_a_cancellation_from_within_is_raised_as_an_error() -> None:
    async def handler(request: web.Request) -> web.Response:
        raise asyncio.CancelledError("by itself")

    async with session_to(app_of(handler)) as session:
        with pytest.raises(ASGIConnectorError, match=r"The app was cancelled: GET http://app\.internal/") as caught:
            await session.get("/")
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


async def test_an_http_exception_is_a_response() -> None:
    async with session_to(failing(web.HTTPNotFound(text="none"))) as session, session.get("/") as response:
        assert (response.status, await response.text()) == (404, "none")


@pytest.mark.parametrize("failure", [LookupError("no such user"), TimeoutError()], ids=repr)
async def test_a_mount_may_ask_for_aiohttps_own_answer(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async with session_to(failing(failure), raise_app_exceptions=False) as session, session.get("/") as response:
        assert response.status == (504 if isinstance(failure, TimeoutError) else 500)
        assert response.headers["Connection"] == "close"
    assert [record.name for record in caplog.records if record.levelno == logging.ERROR] == ["aiohttp.server"]


async def test_a_response_is_cut_off_without_the_exception() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"abc")
        raise LookupError("no such user")

    async with session_to(app_of(handler), raise_app_exceptions=False) as session, session.get("/") as response:
        with pytest.raises(ClientPayloadError):
            await response.read()


# WebSockets.


async def test_an_exception_before_the_handshake_is_raised_from_ws_connect() -> None:
    failure = LookupError("no such room")
    async with session_to(failing(failure)) as session:
        with pytest.raises(LookupError) as caught:
            await session.ws_connect("/")
    assert caught.value is failure


async def test_an_exception_in_a_websocket_is_received_after_what_was_sent(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    failure = LookupError("no such room")

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_str("hello")
        raise failure

    async with session_to(app_of(handler)) as session, session.ws_connect("/") as ws:
        assert await ws.receive_str() == "hello"
        message = await ws.receive()
        assert (message.type, message.data) == (WSMsgType.ERROR, failure)
        assert ws.exception() is failure
    assert reports.exceptions == [failure]
    assert_logged(caplog, failure, "GET ws://app.internal/")


@pytest.mark.parametrize("client_stays", [False, True])
async def test_an_exception_after_the_server_has_closed_is_logged(
    client_stays: bool, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    failure = LookupError("too late")

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(timeout=0.05)
        await ws.prepare(request)
        await ws.close()
        ended.set()
        raise failure

    ended = asyncio.Event()
    async with session_to(app_of(handler)) as session, session.ws_connect("/", autoclose=False) as ws:
        assert (await ws.receive()).type is WSMsgType.CLOSE
        if not client_stays:
            await ws.close()
        await ended.wait()
        await asyncio.sleep(0)
    assert reports.exceptions == ([failure] if client_stays else [])
    assert_logged(caplog, failure, "GET ws://app.internal/")


async def test_an_exception_after_the_client_has_left_a_websocket_is_no_error(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "asgi_connector")
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.receive()
        try:
            await ws.send_str("too late")
        finally:
            ended.set()
        return ws

    async with session_to(app_of(handler)) as session:
        ws = await session.ws_connect("/")
        ws._response.close()
        await ended.wait()
    assert not reports.all
    assert not records(caplog)
    assert "An app ended after its client had gone: GET ws://app.internal/" in caplog.text


async def test_unmounting_does_not_wait_for_a_client_that_has_not_read_the_exception(reports: Reports) -> None:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.receive()
        raise LookupError("no such room")

    async with ASGIRoutingConnector({"app.internal": app_of(handler)}) as connector:
        session = aiohttp.ClientSession("http://app.internal", connector=connector, connector_owner=False)
        async with session, session.ws_connect("/") as ws:
            await ws.send_str("fail")
            await reports.one()
            async with asyncio.timeout(1):
                await connector.unmount("app.internal")


@pytest.mark.parametrize("exc", [KeyboardInterrupt, web.GracefulExit])
def test_an_interrupt_ends_the_event_loop(exc: type[BaseException]) -> None:
    async def handler(request: web.Request) -> web.Response:
        raise exc

    async def main() -> None:
        async with session_to(app_of(handler)) as session:
            await session.get("/")

    with pytest.raises(exc):
        asyncio.run(main())


async def test_a_slow_network_does_not_hide_an_exception() -> None:
    failure = LookupError("no more")

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x" * 100)
        await asyncio.sleep(0.02)
        raise failure

    connector = ASGIRoutingConnector({"app.internal": Mount(app_of(handler), lifespan="off")})
    async with aiohttp.ClientSession("http://app.internal", connector=connector) as session:
        with connector.inject("app.internal", faults.Throttle(1000)), pytest.raises(LookupError) as caught:
            await session.get("/")
    assert caught.value is failure
