"""What an aiohttp.web application has in ``request.transport``."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from asgi_connector import ASGIRoutingConnector, Mount, faults
from asgi_connector._network.transport import MemoryTransport
from tests.conftest import session_to
from tests.support.raw import raw_connection
from tests.support.reports import assert_logged


def app_of(handler: Any) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    return app


def transport_of(request: web.BaseRequest) -> asyncio.Transport:
    assert request.transport is not None
    return request.transport


async def test_it_is_a_transport() -> None:
    async def handler(request: web.Request) -> web.Response:
        transport = transport_of(request)
        assert "MemoryTransport open" in repr(transport)
        assert transport.get_extra_info("peername") == ("127.0.0.1", 123)
        assert transport.get_extra_info("sockname") == ("app.internal", 443)
        assert transport.get_extra_info("nothing", 42) == 42
        assert transport.get_extra_info("sslcontext") is not None
        assert "WebServerEnd https://app.internal" in repr(transport.get_protocol())
        assert transport.is_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        transport.resume_reading()
        transport.set_write_buffer_limits(high=100, low=10)
        assert transport.get_write_buffer_limits() == (10, 100)
        assert transport.get_write_buffer_size() == 0
        assert transport.can_write_eof()
        assert not transport.is_closing()
        transport.set_protocol(transport.get_protocol())
        return web.Response(text=request.scheme)

    async with session_to(app_of(handler)) as session, session.get("https://app.internal/") as response:
        assert await response.text() == "https"


async def test_a_handler_may_abort_its_connection() -> None:
    async def handler(request: web.Request) -> web.Response:
        transport_of(request).abort()
        return web.Response()

    async with session_to(app_of(handler)) as session:
        with pytest.raises(aiohttp.ClientOSError):
            await session.post("/")


async def test_a_handler_may_write_to_it_by_itself() -> None:
    async def handler(request: web.Request) -> web.Response:
        transport = transport_of(request)
        transport.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        transport.write(bytearray(b"HTTP/1.1 200 OK\r\n"))
        transport.writelines([b"Content-Length: 2\r\n", b"\r\n", memoryview(b"ok")])
        transport.write_eof()
        raise asyncio.CancelledError

    async with session_to(app_of(handler), raise_app_exceptions=False) as session, session.get("/") as response:
        assert await response.text() == "ok"


async def test_the_client_is_not_known_if_the_mount_says_so() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(request.remote)

    for client in (None, ("10.0.0.1", 80)):
        async with (
            session_to({"app.internal": Mount(app_of(handler), client=client)}) as session,
            session.get("/") as response,
        ):
            assert await response.json() == (client and client[0])


async def test_an_exception_whose_client_leaves_over_a_slow_network_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failure = LookupError("too late")
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        try:
            await go_on.wait()
            raise failure
        finally:
            ended.set()

    async with session_to(app_of(handler)) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        with connector.inject("app.internal", faults.Latency(0.2, on="request")):
            call = asyncio.ensure_future(session.get("/"))
            await begun.wait()
            call.cancel()
            await asyncio.wait([call])
            go_on.set()  # the news that the client has left are still on their way
            await ended.wait()
    assert_logged(caplog, failure, "GET http://app.internal/")


async def test_bytes_without_a_request_end_the_connection() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async with session_to(app_of(handler)) as session, raw_connection(session) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await connection.response())[2] == b"ok"
        await connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await connection.end()


async def test_a_connection_that_is_given_back_unused_is_used_later() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async with session_to(app_of(handler)) as session:
        async with raw_connection(session):
            pass
        async with session.get("/") as response:
            assert await response.text() == "ok"
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        (connection,) = connector._services.in_flight.connections
        assert connection.progress() is None
        assert isinstance(connection.transport, MemoryTransport)
