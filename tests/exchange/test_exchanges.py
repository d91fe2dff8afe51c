"""An exchange: what it contains of a request, of its response and of each kind of end, and when."""

import asyncio
import copy
import gc
import io
import pickle
import re
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import WSMsgType, test_utils, web
from aiohttp.connector import Connection
from yarl import URL

from asgi_connector import (
    ASGIApplicationConnector,
    ASGIConnectorError,
    ASGIProtocolError,
    ASGIRoutingConnector,
    Exchange,
    Journal,
    LifespanError,
    Mount,
    UnmountedHostError,
    faults,
)
from asgi_connector._types import ASGIApp, Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.frames import ACCEPT, CONNECT
from tests.support.messages import body, read_body
from tests.support.outside import Elsewhere, tcp_server
from tests.support.reports import Reports
from tests.support.sessions import connector_of, fetch
from tests.support.waiting import run_turns, settle, until

T = TypeVar("T")

KIB = 1024


class Boom(Exception):
    """An exception of an app."""


Recorded = tuple[aiohttp.ClientSession, Journal]


@asynccontextmanager
async def recording(
    apps: dict[str, ASGIApp | Mount] | ASGIApp, *, bodies: bool = False, **settings: Any
) -> AsyncIterator[Recorded]:
    """A session as of `session_to()`, and the journal of all its requests."""
    async with session_to(apps, **settings) as session:
        with connector_of(session).record(bodies=bodies) as journal:
            yield session, journal


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    data = await read_body(receive)
    await send(start(201, (b"content-length", b"%d" % len(data)), (b"x-app", b"echo"), (b"x-app", b"twice")))
    await send(body(data))


def ending(exchange: Exchange) -> tuple[str, int | None, BaseException | None]:
    return exchange.state, exchange.status, exchange.error


DONE = ("done", 200, None)


# What it contains of a request and its response.


async def test_a_get_is_told() -> None:
    async with recording({"*.internal": echo}) as (session, journal):
        async with session.get("https://app.internal:8443/caf%C3%A9?x=%20", headers={"X-Test": "1"}) as response:
            (exchange,) = journal
        assert isinstance(exchange, Exchange)
        assert exchange.number == 0
        assert (exchange.caller, exchange.parent) == (None, None)
        assert (exchange.host, exchange.port, exchange.secure) == ("app.internal", 8443, True)
        assert (exchange.method, exchange.url) == ("GET", URL("https://app.internal:8443/caf%C3%A9?x=%20"))
        assert exchange.path == "/café"
        assert (exchange.service, exchange.via, exchange.reused) == ("*.internal", "app", False)
        assert (exchange.state, exchange.ended, exchange.status) == ("done", True, 201)
        assert (exchange.error, exchange.fault, exchange.close_code) == (None, None, None)
        assert (len(exchange.messages), exchange.messages_dropped) == (0, 0)
        assert exchange.request.headers == response.request_info.headers
        assert exchange.request.headers["x-test"] == "1"
        assert exchange.request.headers["Host"] == "app.internal:8443"
        assert (exchange.request.size, exchange.request.body, exchange.request.cut) == (0, None, 0)
        assert exchange.response is not None
        assert exchange.response.headers == response.headers
        assert exchange.response.headers.getall("X-App") == ["echo", "twice"]
        assert (exchange.response.size, exchange.response.body, exchange.response.cut) == (0, None, 0)
        assert exchange.waited is not None
        assert 0 <= exchange.waited <= exchange.duration


async def test_a_post_is_told_with_its_bodies() -> None:
    async with recording(echo, bodies=True) as (session, journal):
        async with session.post("/", data=b"some bytes"):
            pass
        (exchange,) = journal
        assert exchange.method == "POST"
        assert ending(exchange) == ("done", 201, None)
        assert exchange.response is not None
        for content in (exchange.request, exchange.response):
            assert (content.size, content.body, content.cut) == (10, b"some bytes", 0)
            assert content.headers["Content-Length"] == "10"
        assert repr(exchange.response) == "<Content 3 headers, 10 bytes>"


async def test_without_bodies_sizes_are_told() -> None:
    async with recording(echo) as (session, journal):
        async with session.post("/", data=b"some bytes"):
            pass
        (exchange,) = journal
        assert exchange.response is not None
        for content in (exchange.request, exchange.response):
            assert (content.size, content.body, content.cut) == (10, None, 0)


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (1, 1), (7, 7), (9, 9), (10, 10), (11, 10)])
async def test_a_body_is_kept_up_to_its_bound(room: int, kept: int) -> None:
    """In pieces of four, four and two bytes, so that one of them is cut."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"0123", b"4567", b"89"):
            yield piece
            await settle()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send(start())
        async for piece in pieces():
            await send(body(piece, more=True))
        await send(body())

    async with session_to(app) as session:
        with connector_of(session).record(bodies=True, max_body_size=room) as journal:
            async with session.post("/", data=pieces()) as response:
                assert await response.read() == b"0123456789"
    (exchange,) = journal
    assert exchange.response is not None
    for content in (exchange.request, exchange.response):
        assert (content.size, content.body, content.cut) == (10, b"0123456789"[:kept], 10 - kept)
        assert (f"{10 - kept} of them cut" in repr(content)) == (kept < 10)


async def test_a_mebibyte_is_kept_by_default() -> None:
    data = bytes(1024 * KIB + 5)
    async with recording(echo, bodies=True) as (session, journal):
        async with session.post("/", data=io.BytesIO(data)) as response:
            assert await response.read() == data
        (exchange,) = journal
        assert exchange.response is not None
        for content in (exchange.request, exchange.response):
            assert content.body == data[:-5]
            assert content.cut == 5


async def test_of_several_recordings_the_largest_bound_is_that_of_a_body() -> None:
    async with session_to(echo) as session:
        connector = connector_of(session)
        with (
            connector.record() as without,
            connector.record(bodies=True, max_body_size=8) as larger,
            connector.record(bodies=True, max_body_size=4) as smaller,
        ):
            async with session.post("/", data=b"0123456789"):
                pass
    assert without[0] is larger[0] is smaller[0]
    assert larger[0].request.body == b"01234567"


async def test_a_body_may_be_changed_once_it_was_sent() -> None:
    """The buffer that an app sends from may change, too."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        data = bytearray(b"first")
        await send(start())
        await send(body(data, more=True))
        data[:] = b"later"
        await send(body(memoryview(data)))

    async with recording(app, bodies=True) as (session, journal):
        async with session.get("/") as response:
            assert await response.read() == b"firstlater"
        assert journal[0].response is not None
        assert journal[0].response.body == b"firstlater"


@pytest.mark.parametrize("bodies", [False, True])
async def test_sizes_of_streams_are_those_of_the_content(bodies: bool) -> None:
    pieces = [bytes([at]) * (at * 1000) for at in range(1, 40)]
    size = sum(map(len, pieces))

    async def upload() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert len(await read_body(receive)) == size
        await send(start())
        for piece in pieces:
            await send(body(piece, more=True))
        await send(body())

    async with recording(app, bodies=bodies) as (session, journal):
        async with session.post("/", data=upload()) as response:
            assert await response.read() == b"".join(pieces)
        (exchange,) = journal
        assert exchange.request.headers["Transfer-Encoding"] == "chunked"
        assert exchange.response is not None
        assert exchange.response.headers["Transfer-Encoding"] == "chunked"
        for content in (exchange.request, exchange.response):
            assert content.size == size
            assert content.body == (b"".join(pieces) if bodies else None)


async def test_a_compressed_body_is_as_it_was_sent() -> None:
    async with recording(echo, bodies=True) as (session, journal):
        async with session.post("/", data=b"x" * 5000, compress="deflate") as response:
            sent = await response.read()
        request = journal[0].request
        assert request.headers["Content-Encoding"] == "deflate"
        assert request.body == sent
        assert request.size == len(sent) < 100


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [("HEAD", 200, [(b"content-length", b"4")]), ("HEAD", 200, []), ("GET", 204, []), ("GET", 304, [])],
)
async def test_a_response_without_a_body_is_done(method: str, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(status, *headers))
        await send(body(b"done" if method == "HEAD" else b""))

    async with recording(app, bodies=True) as (session, journal):
        async with session.request(method, "/"):
            (exchange,) = journal
            assert ending(exchange) == ("done", status, None)
        assert exchange.response is not None
        assert (exchange.response.size, exchange.response.body) == (0, b"")


@pytest.mark.parametrize("complete", [True, False])
async def test_headers_stay_as_they_were_sent(complete: bool) -> None:
    """The user may change the request and send it again, for example with a new token."""
    may_end = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        new = (b"authorization", b"new") in scope["headers"]
        await send(start(200 if new else 401))
        if not new and not complete:
            await send(body(b"half", more=True))
            await may_end.wait()
        await send(body())

    async def refresh(req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await handler(req)
        assert response.status == 401
        req.headers["Authorization"] = "new"
        return await handler(req)

    async with recording(app, shutdown_timeout=0) as (session, journal):
        async with session.get("/", headers={"Authorization": "old"}, middlewares=(refresh,)) as response:
            assert response.status == 200
        may_end.set()
        assert [exchange.request.headers["Authorization"] for exchange in journal] == ["old", "new"]


async def test_what_is_told_is_for_reading() -> None:
    async with recording(echo) as (session, journal):
        async with session.get("/"):
            pass
        exchange: Any = journal[0]
        for name in ("state", "status", "error", "duration", "started", "response", "order"):
            with pytest.raises(AttributeError):
                setattr(exchange, name, None)
        with pytest.raises(TypeError):
            exchange.response.headers["x"] = "y"


async def test_an_exchange_shows_what_it_is() -> None:
    async with recording(echo) as (session, journal):
        async with session.get("/?x=1"):
            pass
        assert str(journal[0]) == "GET http://app.internal/?x=1: 201"
        assert repr(journal[0]) == "<Exchange 0: GET http://app.internal/?x=1: 201>"


async def test_a_second_request_reuses_the_connection() -> None:
    async with recording({"app.internal": echo, "b.internal": echo}) as (session, journal):
        for url in ("/", "/", "http://b.internal/", "/"):
            async with session.get(url) as response:
                await response.read()
        assert [exchange.reused for exchange in journal] == [False, True, False, True]
        assert [exchange.number for exchange in journal] == [0, 1, 2, 3]


async def test_a_connection_from_before_the_recording_is_reused() -> None:
    async with session_to(echo) as session:
        async with session.get("/") as response:
            await response.read()
        with connector_of(session).record() as journal:
            async with session.get("/") as response:
                await response.read()
    assert journal[0].reused is True


# Time.


class Clockwork(asyncio.SelectorEventLoop):
    """A loop whose clock the test sets, so that it knows the time."""

    now = 1000.0

    def time(self) -> float:
        return self.now


def run_on_clockwork(main: Callable[[Clockwork], Awaitable[T]]) -> T:
    async def run() -> T:
        return await main(loop)

    with asyncio.Runner(loop_factory=Clockwork) as runner:
        found = runner.get_loop()
        assert isinstance(found, Clockwork)
        loop = found
        return runner.run(run())


def test_time_is_that_of_the_loop_and_the_wall_clock_is_read_once() -> None:
    async def main(loop: Clockwork) -> Journal:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            loop.now += 2.5
            await send(start())
            loop.now += 0.25
            await send(body(b"x", more=True))
            await run_turns(20)
            loop.now += 10
            await send(body())

        async with recording(app) as (session, journal):
            for _ in range(2):
                async with session.get("/") as response:
                    assert journal[-1].duration == 2.75  # until now
                    await response.read()
                loop.now += 3600  # it ended before
        return journal

    before = datetime.now(UTC)
    first, second = run_on_clockwork(main)
    after = datetime.now(UTC)
    assert first.started.tzinfo is UTC
    assert before <= first.started <= after
    assert second.started - first.started == timedelta(seconds=3612.75)
    assert [each.duration for each in (first, second)] == [12.75, 12.75]
    assert [each.waited for each in (first, second)] == [2.5, 2.5]
    assert [each.connect_time for each in (first, second)] == [0, 0]
    assert [each.pieces for each in (first, second)] == [(2.75,), (2.75,)]


def test_the_time_until_there_is_a_connection_is_that_of_the_startup() -> None:
    async def main(loop: Clockwork) -> Journal:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await receive()
                loop.now += 4
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send(start())
            await send(body(b"x"))

        async with recording(app, lifespan="on") as (session, journal):
            async with session.get("/") as response:
                await response.read()
            with pytest.raises(UnmountedHostError):
                await session.get("http://nowhere.internal/")
        return journal

    answered, refused = run_on_clockwork(main)
    assert (answered.connect_time, answered.waited) == (4, 4)
    assert (refused.connect_time, refused.waited) == (None, None)


async def test_the_times_of_the_first_thousand_pieces_are_kept() -> None:
    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(1_005):
            await send(body(b"x", more=True))
        await send(body())

    async with recording(streaming) as (session, journal), session.get("/") as response:
        assert len(await response.read()) == 1_005
    [exchange] = journal
    assert len(exchange.pieces) == 1_000
    assert list(exchange.pieces) == sorted(exchange.pieces)
    assert 0 <= exchange.pieces[0] <= exchange.pieces[-1] <= exchange.duration


def test_a_nested_recording_has_the_same_clock() -> None:
    async def main(loop: Clockwork) -> tuple[Exchange, Exchange]:
        async with session_to(echo) as session:
            connector = connector_of(session)
            with connector.record() as journal:
                async with session.get("/"):
                    pass
            loop.now += 60
            with connector.record() as later:
                async with session.get("/"):
                    pass
            return journal[0], later[0]

    first, second = run_on_clockwork(main)
    assert second.started - first.started == timedelta(seconds=60)


# While the request runs.


async def test_status_and_headers_are_there_before_the_end() -> None:
    may_start, may_end = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await may_start.wait()
        await send(start(203, (b"x-app", b"1")))
        await send(body(b"half", more=True))
        await may_end.wait()
        await send(body(b"whole"))

    async with recording(app, bodies=True) as (session, journal):
        asking = asyncio.create_task(session.request("GET", "/"))
        await settle()
        (exchange,) = journal
        assert ending(exchange) == ("running", None, None)
        assert not exchange.ended
        assert (exchange.response, exchange.waited, exchange.reused) == (None, None, False)
        assert str(exchange) == "GET http://app.internal/: running"
        may_start.set()
        response = await asking
        assert ending(exchange) == ("running", 203, None)
        assert exchange.response is not None
        assert exchange.response.headers["x-app"] == "1"
        assert (exchange.response.size, exchange.response.body) == (4, b"half")
        assert str(exchange) == "GET http://app.internal/: 203 running"
        may_end.set()
        assert await response.read() == b"halfwhole"
        assert ending(exchange) == ("done", 203, None)
        assert exchange.response.body == b"halfwhole"


# Each kind of end. The journal is read in the step after the client's call, before anything else can happen.


async def test_a_500_of_an_app_that_failed_has_its_exception() -> None:
    problem = Boom("in the app")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise problem

    async with recording(app, raise_app_exceptions=False) as (session, journal):
        async with session.get("/") as response:
            (exchange,) = journal
            assert ending(exchange) == ("done", 500, problem)
            assert exchange.error is problem
            assert response.status == 500
        assert exchange.outcome == "500 (Boom: in the app)"


async def test_a_500_that_an_app_has_sent_has_no_exception() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(500))
        await send(body(b"sorry"))

    async with recording(app) as (session, journal), session.get("/"):
        assert ending(journal[0]) == ("done", 500, None)


@pytest.mark.parametrize(
    "problem",
    [Boom("in the app"), RuntimeError(), ValueError("x" * 101)],
    ids=["its own", "without a text", "with a long text"],
)
async def test_an_exception_before_the_head_is_that_of_the_call(problem: Exception) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise problem

    async with recording(app) as (session, journal):
        with pytest.raises(type(problem)) as caught:
            await session.get("/")
        (exchange,) = journal
        assert ending(exchange) == ("failed", None, problem)
        assert exchange.error is caught.value is problem
        assert exchange.response is None


async def test_an_exception_after_a_500_takes_its_place() -> None:
    problem = Boom()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(500))
        await send(body(b"sorry"))
        raise problem

    async with recording(app) as (session, journal):
        with pytest.raises(Boom) as caught:
            await session.get("/")
        assert ending(journal[0]) == ("failed", None, problem)
        assert journal[0].error is caught.value


async def test_an_exception_in_the_body_is_that_of_reading_it() -> None:
    problem = Boom()
    may_fail = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"half", more=True))
        await may_fail.wait()
        raise problem

    async with recording(app, bodies=True) as (session, journal):
        async with session.get("/") as response:
            (exchange,) = journal
            assert ending(exchange) == ("running", 200, None)
            may_fail.set()
            with pytest.raises(Boom) as caught:
                await response.read()
            assert ending(exchange) == ("failed", 200, problem)
            assert exchange.error is caught.value
        assert exchange.response is not None
        assert exchange.response.body == b"half"
        assert exchange.outcome == "200 failed (Boom)"


async def test_a_body_that_is_cut_off_is_failed_by_the_exception_of_the_app() -> None:
    problem = Boom()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"10")))
        await send(body(b"half", more=True))
        raise problem

    async with recording(app, raise_app_exceptions=False) as (session, journal), session.get("/") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
        assert ending(journal[0]) == ("failed", 200, problem)


async def test_an_app_that_breaks_the_protocol_is_failed() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async with recording(app) as (session, journal):
        with pytest.raises(ASGIProtocolError) as caught:
            await session.get("/")
        assert journal[0].error is caught.value
        assert journal[0].state == "failed"


async def test_an_app_that_is_cancelled_is_failed() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    async with recording(app) as (session, journal):
        with pytest.raises(ASGIConnectorError) as caught:
            await session.get("/")
        assert ending(journal[0]) == ("failed", None, caught.value)


async def test_what_an_app_raises_after_its_response_is_not_told() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"done"))
        await run_turns(20)
        raise Boom

    loop = asyncio.get_running_loop()
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    async with recording(app) as (session, journal):
        async with session.get("/") as response:
            await response.read()
        await until(lambda: reports)
        assert ending(journal[0]) == DONE
    loop.set_exception_handler(None)


async def test_an_app_that_works_on_after_its_response_is_done() -> None:
    may_end = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"done"))
        await may_end.wait()

    async with recording(app) as (session, journal):
        async with session.get("/"):
            assert ending(journal[0]) == DONE
        may_end.set()


async def test_a_status_that_is_made_an_exception_is_a_response() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(404))
        await send(body(b"not here"))

    async with recording(app, bodies=True) as (session, journal):
        with pytest.raises(aiohttp.ClientResponseError):
            await session.get("/", raise_for_status=True)
        (exchange,) = journal
        assert ending(exchange) == ("done", 404, None)
        assert exchange.response is not None
        assert exchange.response.body == b"not here"


@pytest.mark.parametrize("fails", [False, True])
async def test_a_body_that_ends_with_its_connection_is_told(fails: bool) -> None:
    problem = Boom()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"half", more=True))
        await run_turns(20)
        if fails:
            raise problem
        await send(body(b"whole"))

    async with recording(app, bodies=True, session_version=aiohttp.HttpVersion10) as (session, journal):
        async with session.get("/") as response:
            if fails:
                with pytest.raises(Boom):
                    await response.read()
            else:
                assert await response.read() == b"halfwhole"
            (exchange,) = journal
            assert ending(exchange) == (("failed", 200, problem) if fails else DONE)
        assert exchange.response is not None
        assert "Transfer-Encoding" not in exchange.response.headers
        assert exchange.response.body == (b"half" if fails else b"halfwhole")


async def test_a_response_before_the_end_of_the_upload_is_done() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start(413, (b"content-length", b"0")))
        await send(body())

    async def upload() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    async with recording(app, bodies=True) as (session, journal):
        async with session.post("/", data=upload()) as response:
            assert response.status == 413
        await settle()
        assert ending(journal[0]) == ("done", 413, None)
        assert journal[0].request.body == b"half"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("one\nand two", "one and two"), ("x" * 160, "x" * 160), ("x" * 161, "x" * 160 + "…"), ("", "")],
    ids=["two lines", "as long as is shown", "longer", "none"],
)
async def test_an_exchange_is_shown_in_one_line(text: str, shown: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Boom(text)

    async with recording(app) as (session, journal):
        with pytest.raises(Boom):
            await session.get("/")
        assert journal[0].outcome == (f"failed (Boom: {shown})" if shown else "failed (Boom)")


async def test_an_os_error_of_an_app_is_one_exchange() -> None:
    """The app is not called a second time, although aiohttp would try again."""
    problem = ConnectionResetError("a database's")
    called = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal called
        called += 1
        raise problem

    async with recording(app) as (session, journal):
        with pytest.raises(aiohttp.ClientOSError) as caught:
            await session.get("/")
        assert called == 1
        (exchange,) = journal
        assert (exchange.state, exchange.status) == ("failed", None)
        assert exchange.error is caught.value.__cause__ is problem


class Endless:
    """An app that sends a head (except on ``/silent``) and half a body, and waits until its client disconnects."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.arrived.set()
        await read_body(receive)
        if scope["path"] != "/silent":
            await send(start())
            await send(body(b"half", more=True))
        assert (await receive())["type"] == "http.disconnect"
        self.left.set()


async def test_a_response_that_is_closed_early_is_abandoned() -> None:
    app = Endless()
    async with recording(app) as (session, journal):
        async with session.get("/") as response:
            assert await response.content.readany() == b"half"
            assert ending(journal[0]) == ("running", 200, None)
        assert ending(journal[0]) == ("abandoned", 200, None)
        assert journal[0].outcome == "200 abandoned"
        await app.left.wait()


@pytest.mark.parametrize("how", ["close", "release"])
async def test_a_response_that_is_let_go_is_abandoned(how: str) -> None:
    app = Endless()
    async with recording(app) as (session, journal):
        response = await session.get("/")
        getattr(response, how)()
        assert ending(journal[0]) == ("abandoned", 200, None)
        await app.left.wait()


@pytest.mark.parametrize(("path", "status"), [("/silent", None), ("/", 200)])
async def test_a_call_that_is_cancelled_is_abandoned(path: str, status: int | None) -> None:
    app = Endless()

    async with recording(app) as (session, journal):

        async def ask() -> None:
            async with session.get(path) as response:
                await response.read()

        asking = asyncio.create_task(ask())
        await app.arrived.wait()
        await settle()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert ending(journal[0]) == ("abandoned", status, None)
        await app.left.wait()


@pytest.mark.parametrize("limit", ["total", "sock_read"])
@pytest.mark.parametrize(("path", "status"), [("/silent", None), ("/", 200)])
def test_a_call_that_takes_too_long_is_abandoned(limit: str, path: str, status: int | None) -> None:
    limits: dict[str, float] = {limit: 30}

    async def main(loop: Clockwork) -> None:
        app = Endless()
        async with recording(app, session_timeout=aiohttp.ClientTimeout(**limits)) as (session, journal):

            async def ask() -> None:
                async with session.get(path) as response:
                    await response.read()

            asking = asyncio.create_task(ask())
            await app.arrived.wait()
            await settle()
            loop.now += 30
            with pytest.raises(TimeoutError) as caught:
                await asking
            (exchange,) = journal
            assert (exchange.state, exchange.status, exchange.duration) == ("abandoned", status, 30)
            # aiohttp reports only to its caller that the total timeout is over.
            assert exchange.error is (None if limit == "total" else caught.value)
            await app.left.wait()

    run_on_clockwork(main)


@pytest.mark.parametrize(("path", "status"), [("/silent", None), ("/", 200)])
async def test_a_call_whose_session_closes_is_abandoned(path: str, status: int | None) -> None:
    app = Endless()
    async with recording(app) as (session, journal):

        async def ask() -> None:
            async with session.get(path) as response:
                await response.read()

        asking = asyncio.create_task(ask())
        await app.arrived.wait()
        await settle()
        await session.close()
        with pytest.raises(aiohttp.ClientError):
            await asking
        assert (journal[0].state, journal[0].status) == ("abandoned", status)
        assert app.left.is_set()


async def test_an_upload_that_is_given_up_has_the_bytes_that_arrived() -> None:
    arrived = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"half"
        arrived.set()
        assert (await receive())["type"] == "http.disconnect"

    async def upload() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    async with recording(app, bodies=True) as (session, journal):
        asking = asyncio.create_task(session.request("POST", "/", data=upload()))
        await arrived.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert ending(journal[0]) == ("abandoned", None, None)
        assert (journal[0].request.size, journal[0].request.body) == (4, b"half")


async def test_an_upload_that_fails_by_itself_is_failed() -> None:
    problem = Boom("in the file")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def upload() -> AsyncIterator[bytes]:
        yield b"half"
        raise problem

    async with recording(app) as (session, journal):
        with pytest.raises(aiohttp.ClientConnectionError) as caught:
            await session.post("/", data=upload())
        (exchange,) = journal
        assert (exchange.state, exchange.status) == ("failed", None)
        assert exchange.error is caught.value


async def test_each_hop_of_a_redirect_is_an_exchange() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(302, (b"location", b"http://b.internal/there")))
        await send(body())

    async with recording({"app.internal": app, "b.internal": echo}) as (session, journal):
        async with session.get("/here") as response:
            assert response.status == 201
        assert [str(exchange) for exchange in journal] == [
            "GET http://app.internal/here: 302",
            "GET http://b.internal/there: 201",
        ]
        assert [exchange.state for exchange in journal] == ["done", "done"]
        first = journal[0].response
        assert first is not None
        assert first.headers["Location"] == "http://b.internal/there"


async def test_a_second_try_of_aiohttp_s_is_an_exchange() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        if connections == 2:
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\ndone")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with recording({}, fallback=aiohttp.TCPConnector()) as (session, journal):
            async with session.get(f"http://127.0.0.1:{port}/") as response:
                assert await response.read() == b"done"
            first, second = journal
            assert (first.state, first.status) == ("failed", None)
            assert type(first.error) is aiohttp.ServerDisconnectedError
            assert ending(second) == DONE
            assert [each.via for each in journal] == ["fallback", "fallback"]


async def test_a_host_that_is_not_mounted_is_refused() -> None:
    async with recording(echo) as (session, journal):
        with pytest.raises(UnmountedHostError) as caught:
            await session.get("http://elsewhere.internal:81/x")
        (exchange,) = journal
        assert ending(exchange) == ("failed", None, caught.value)
        assert exchange.error is caught.value
        assert (exchange.via, exchange.service, exchange.reused) == ("refused", None, None)
        assert (exchange.host, exchange.port) == ("elsewhere.internal", 81)
        assert exchange.request.headers["Host"] == "elsewhere.internal:81"
        assert exchange.response is None
        assert exchange.outcome.endswith("via refused")


async def test_a_lifespan_that_fails_is_the_error() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise Boom

    async with recording(app, lifespan="on") as (session, journal):
        with pytest.raises(LifespanError) as caught:
            await session.get("/")
        (exchange,) = journal
        assert ending(exchange) == ("failed", None, caught.value)
        assert exchange.error is caught.value
        assert type(caught.value.__cause__) is Boom
        assert (exchange.via, exchange.service, exchange.reused) == ("app", "app.internal", None)


@pytest.mark.parametrize("limit", ["total", "connect", "sock_connect", None])
def test_a_call_that_leaves_during_a_startup_is_abandoned(limit: str | None) -> None:
    starting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        starting.set()
        await asyncio.Event().wait()

    async def main(loop: Clockwork) -> None:
        timeout = aiohttp.ClientTimeout(**({limit: 5.0} if limit else {}))
        async with recording(app, lifespan="on", shutdown_timeout=0) as (session, journal):
            asking = asyncio.create_task(session.request("GET", "/", timeout=timeout))
            await starting.wait()
            if limit is None:
                asking.cancel()
            loop.now += 10
            with pytest.raises((TimeoutError, asyncio.CancelledError)):
                await asking
            (exchange,) = journal
            assert (exchange.state, exchange.status, exchange.reused) == ("abandoned", None, None)
            assert exchange.duration == 10

    run_on_clockwork(main)


async def test_a_request_that_the_app_never_sees_is_told() -> None:
    async with recording(echo) as (session, journal):
        async with session.get("/", headers={"X-Long": "x" * 70_000}) as response:
            assert response.status == 431
            assert ending(journal[0]) == ("done", 431, None)
        assert (journal[0].service, journal[0].via) == ("app.internal", "app")


async def test_a_call_that_is_cancelled_while_it_waits_for_a_connection_is_abandoned() -> None:
    app = Endless()
    async with recording(app, limit=1) as (session, journal):
        async with session.get("/"):
            asking = asyncio.create_task(session.request("GET", "/"))
            await settle()
            assert [exchange.state for exchange in journal] == ["running", "running"]
            assert journal[1].reused is None
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert ending(journal[1]) == ("abandoned", None, None)
            assert journal[1].reused is None
            assert journal[0].state == "running"
        await app.left.wait()


async def test_the_one_app_of_a_connector_is_the_service() -> None:
    connector = ASGIApplicationConnector(echo, lifespan="off")
    with connector.record() as journal:
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://any.internal/"):
            pass
    assert (journal[0].host, journal[0].service) == ("any.internal", "*")


# The fallback.


@pytest.mark.parametrize("bodies", [False, True])
async def test_an_exchange_with_the_fallback_is_recorded(bodies: bool) -> None:
    async with (
        tcp_server() as tcp,
        recording({"app.internal": echo}, bodies=bodies, fallback=aiohttp.TCPConnector()) as (session, journal),
    ):
        for data in (None, b"some bytes"):
            async with session.post(f"{tcp.url}/x?y", data=data) as response:
                assert await response.read() == b"over TCP"
        assert [exchange.reused for exchange in journal] == [False, True]
        for exchange in journal:
            assert ending(exchange) == DONE
            assert (exchange.via, exchange.service, exchange.waited) == ("fallback", None, None)
            assert exchange.connect_time is not None
            assert 0 <= exchange.connect_time <= exchange.duration
            assert len(exchange.pieces) == bodies
            assert (exchange.host, exchange.port, exchange.path) == ("127.0.0.1", tcp.port, "/x")
            assert exchange.response is not None
            assert exchange.response.headers["content-length"] == "8"
            sent = b"" if exchange is journal[0] else b"some bytes"
            for content, body in ((exchange.request, sent), (exchange.response, b"over TCP")):
                assert (content.body, content.cut) == (body if bodies else None, 0)
                assert content.size == (len(body) if bodies else 0)
        assert str(journal[0]) == f"POST {tcp.url}/x?y: 200 via fallback"


async def test_a_response_of_the_fallback_is_told_as_it_comes() -> None:
    async with (
        tcp_server() as tcp,
        recording({}, fallback=aiohttp.TCPConnector()) as (session, journal),
    ):
        tcp.response = b"HTTP/1.1 202 Accepted\r\ncontent-length: 9\r\n\r\nover TCP"
        async with session.get(tcp.url) as response:
            assert await response.content.readexactly(8) == b"over TCP"
            assert ending(journal[0]) == ("running", 202, None)
        assert ending(journal[0]) == ("abandoned", 202, None)


async def test_a_fallback_that_cannot_connect_is_failed() -> None:
    elsewhere = Elsewhere()
    async with recording({}, fallback=elsewhere) as (session, journal):
        with pytest.raises(aiohttp.ClientConnectionError) as caught:
            await session.get("http://elsewhere.internal/")
        (exchange,) = journal
        assert exchange.error is caught.value is elsewhere.refusal
        assert (exchange.state, exchange.via, exchange.reused) == ("failed", "fallback", None)


@pytest.mark.parametrize("bodies", [False, True])
async def test_a_routing_connector_as_the_fallback_is_the_fallback(bodies: bool) -> None:
    fallback = ASGIRoutingConnector({"app.internal": echo}, lifespan="off")
    async with recording({}, bodies=bodies, fallback=fallback) as (session, journal):
        async with session.get("/") as response:
            await response.read()
        (exchange,) = journal
        assert ending(exchange) == ("done", 201, None)
        assert (exchange.via, exchange.service) == ("fallback", None)


async def test_a_websocket_of_the_fallback_is_told_by_its_handshake() -> None:
    """Without bodies its frames are not observed, and so it is not known how it was closed."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_str(await ws.receive_str())
        await ws.receive()
        return ws

    async with (
        test_utils.RawTestServer(handle) as server,
        recording({}, fallback=aiohttp.TCPConnector()) as (session, journal),
    ):
        async with session.ws_connect(server.make_url("/chat")) as ws:
            await ws.send_str("hello")
            assert await ws.receive_str() == "hello"
            assert ended(journal[0]) == ("running", 101, None, None)
        assert ws.close_code == 1000
        (exchange,) = journal
        assert ended(exchange) == ("done", 101, None, None)
        assert (exchange.via, exchange.reused, len(exchange.messages)) == ("fallback", False, 0)


# Middlewares.


async def test_a_request_that_a_middleware_sends_again_is_an_exchange_each_time() -> None:
    statuses = iter([503, 429, 200])
    requests: list[aiohttp.ClientRequest] = []

    async def again(req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        while True:
            requests.append(req)
            response = await handler(req)
            if response.status == 200:
                return response

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(next(statuses), (b"x-number", b"%d" % len(requests))))
        await send(body(b"%d" % len(requests)))

    async with recording(app, bodies=True) as (session, journal):
        async with session.get("/", middlewares=(again,)) as response:
            assert await response.read() == b"3"
        assert requests[0] is requests[1] is requests[2]
        assert [ending(exchange) for exchange in journal] == [("done", 503, None), ("done", 429, None), DONE]
        responses = [exchange.response for exchange in journal]
        assert [each and (each.body, each.headers["x-number"]) for each in responses] == [
            (b"1", "1"),
            (b"2", "2"),
            (b"3", "3"),
        ]


@pytest.mark.parametrize("finish", ["read", "close"])
async def test_a_response_that_is_open_while_its_request_is_sent_again_is_told(finish: str) -> None:
    may_end = asyncio.Event()
    numbers = iter([1, 2])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        number = next(numbers)
        await send(start(210 + number, (b"x-number", b"%d" % number)))
        await send(body(b"half", more=True))
        await may_end.wait()
        await send(body())

    responses: list[aiohttp.ClientResponse] = []

    async def again(req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        responses.append(await handler(req))
        return await handler(req)

    async with recording(app, shutdown_timeout=0) as (session, journal):
        async with session.get("/", middlewares=(again,)) as response:
            first, second = journal
            assert ending(first) == ("running", 211, None)
            assert ending(second) == ("running", 212, None)
            if finish == "close":
                responses[0].close()
                assert ending(first) == ("abandoned", 211, None)
            may_end.set()
            if finish == "read":
                assert await responses[0].read() == b"half"
                assert ending(first) == ("done", 211, None)
            await response.read()
            assert ending(second) == ("done", 212, None)
        assert first.response is not None
        assert first.response.headers["x-number"] == "1"


async def test_an_exception_of_a_middleware_is_not_told() -> None:
    async def fail(req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        (await handler(req)).release()
        raise Boom

    async with recording(echo) as (session, journal):
        with pytest.raises(Boom):
            await session.get("/", middlewares=(fail,))
        assert ending(journal[0]) == ("done", 201, None)


async def test_a_middleware_that_answers_by_itself_calls_nobody() -> None:
    async def refuse(req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        raise Boom

    async with recording(echo) as (session, journal):
        with pytest.raises(Boom):
            await session.get("/", middlewares=(refuse,))
        assert len(journal) == 0


# WebSockets.

Told = list[tuple[bool, bool, int, str | bytes | None]]


def told(exchange: Exchange) -> Told:
    return [(each.from_client, each.is_text, each.size, each.data) for each in exchange.messages]


async def accept(receive: Receive, send: Send) -> None:
    assert await receive() == CONNECT
    await send(ACCEPT)


async def socket_echo(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def ended(exchange: Exchange) -> tuple[str, int | None, int | None, BaseException | None]:
    return exchange.state, exchange.status, exchange.close_code, exchange.error


async def test_a_websocket_is_told_message_by_message() -> None:
    async with recording(socket_echo, bodies=True) as (session, journal):
        async with session.ws_connect("ws://app.internal/chat?x") as ws:
            (exchange,) = journal
            assert ended(exchange) == ("running", 101, None, None)
            assert (exchange.method, exchange.url) == ("GET", URL("ws://app.internal/chat?x"))
            assert (exchange.path, exchange.service, exchange.secure) == ("/chat", "app.internal", False)
            assert exchange.request.headers["Upgrade"] == "websocket"
            assert exchange.response is not None
            assert exchange.response.headers["Upgrade"] == "websocket"
            await ws.send_str("bücher")
            assert await ws.receive_str() == "bücher"
            assert told(exchange) == [(True, True, 7, "bücher"), (False, True, 7, "bücher")]
            await ws.send_bytes(b"\x00\xff")
            assert await ws.receive_bytes() == b"\x00\xff"
            await ws.send_str("")
            assert await ws.receive_str() == ""
        assert told(exchange)[2:] == [
            (True, False, 2, b"\x00\xff"),
            (False, False, 2, b"\x00\xff"),
            (True, True, 0, ""),
            (False, True, 0, ""),
        ]
        assert ended(exchange) == ("done", 101, 1000, None)
        assert exchange.outcome == "101 closed 1000"
        assert exchange.messages_dropped == 0
        assert (exchange.request.size, exchange.response.size) == (0, 0)


async def test_messages_have_their_time_and_place() -> None:
    async with recording({"app.internal": socket_echo, "b.internal": echo}) as (session, journal):
        async with session.ws_connect("/") as ws:
            await ws.send_str("a")
            await ws.receive_str()
            async with session.get("http://b.internal/"):
                pass
        exchange, other = journal
        first, second = exchange.messages
        begun, closed = exchange.order
        assert closed is not None
        assert other.order[1] is not None
        assert begun < first.order < second.order < other.order[0] < other.order[1] < closed
        assert exchange.started <= first.date <= second.date <= exchange.started + timedelta(seconds=exchange.duration)
        assert first.date.tzinfo is UTC
        message: Any = first
        with pytest.raises(FrozenInstanceError):
            message.size = 2


async def test_without_bodies_messages_have_sizes() -> None:
    async with recording(socket_echo) as (session, journal):
        async with session.ws_connect("/") as ws:
            await ws.send_str("bücher")
            await ws.receive_str()
            await ws.send_bytes(b"\x00")
            await ws.receive_bytes()
        assert told(journal[0]) == [
            (True, True, 7, None),
            (False, True, 7, None),
            (True, False, 1, None),
            (False, False, 1, None),
        ]


async def test_messages_are_kept_up_to_their_bound() -> None:
    """All of them together. A message that does not fit is recorded without its data."""
    async with session_to(socket_echo) as session:
        with connector_of(session).record(bodies=True, max_body_size=10) as journal:
            async with session.ws_connect("/") as ws:
                for text in ("1234", "56789", "12"):
                    await ws.send_str(text)
                    assert await ws.receive_str() == text
    assert told(journal[0])[:4] == [
        (True, True, 4, "1234"),
        (False, True, 4, "1234"),
        (True, True, 5, None),
        (False, True, 5, None),
    ]
    assert sum(len(each.data or "") for each in journal[0].messages) <= 10
    assert [each.size for each in journal[0].messages] == [4, 4, 5, 5, 2, 2]


async def test_ten_thousand_messages_are_kept() -> None:
    count = 10_003

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        for at in range(count):
            await send({"type": "websocket.send", "text": str(at)})

    async with recording(app, bodies=True) as (session, journal):
        async with session.ws_connect("/") as ws:
            assert [message.data async for message in ws] == [str(at) for at in range(count)]
        (exchange,) = journal
        assert [each.data for each in exchange.messages] == [str(at) for at in range(10_000)]
        assert exchange.messages_dropped == 3


async def test_a_message_that_was_compressed_is_told_as_it_was() -> None:
    async with recording(socket_echo, bodies=True) as (session, journal):
        async with session.ws_connect("/", compress=15) as ws:
            await ws.send_str("x" * 5000)
            await ws.receive_str()
            assert ws.compress == 15
        assert told(journal[0]) == [(True, True, 5000, "x" * 5000), (False, True, 5000, "x" * 5000)]


async def test_a_websocket_open_at_the_end_of_the_block_goes_on_filling() -> None:
    async with session_to(socket_echo) as session:
        with connector_of(session).record(bodies=True) as journal:
            ws = await session.ws_connect("/")
        (exchange,) = journal
        assert ended(exchange) == ("running", 101, None, None)
        await ws.send_str("later")
        await ws.receive_str()
        assert told(exchange) == [(True, True, 5, "later"), (False, True, 5, "later")]
        await ws.close(code=3000)
        assert ended(exchange) == ("done", 101, 3000, None)
        async with session.ws_connect("/"):
            pass
        assert len(journal) == 1


async def test_a_stream_open_at_the_end_of_the_block_goes_on_filling() -> None:
    may_end = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"half", more=True))
        await may_end.wait()
        await send(body(b"whole"))

    async with session_to(app) as session:
        with connector_of(session).record(bodies=True) as journal:
            response = await session.get("/")
        (exchange,) = journal
        assert exchange.state == "running"
        may_end.set()
        await response.read()
        assert exchange.response is not None
        assert (exchange.state, exchange.response.body) == ("done", b"halfwhole")


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_a_websocket_that_its_client_closes_is_done(code: int) -> None:
    async with recording(socket_echo) as (session, journal), session.ws_connect("/") as ws:
        await ws.close(code=code)
        assert ended(journal[0]) == ("done", 101, code, None)


@pytest.mark.parametrize("code", [1000, 1011, 3000, 4999])
async def test_a_websocket_that_its_app_closes_is_done(code: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": code, "reason": "enough"})

    async with recording(app) as (session, journal), session.ws_connect("/") as ws:
        assert (await ws.receive()).type is WSMsgType.CLOSE
        assert ws.close_code == code
        assert ended(journal[0]) == ("done", 101, code, None)


async def test_a_websocket_whose_app_returns_is_done() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)

    async with recording(app) as (session, journal):
        async with session.ws_connect("/") as ws:
            await ws.receive()
        assert ended(journal[0]) == ("done", 101, 1000, None)


async def test_a_websocket_whose_app_fails_is_failed() -> None:
    problem = Boom()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await receive()
        raise problem

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: None)
    async with recording(app) as (session, journal):
        async with session.ws_connect("/") as ws:
            await ws.send_str("go")
            message = await ws.receive()
            assert message.type is WSMsgType.ERROR
            assert message.data is problem
            assert ended(journal[0]) == ("failed", 101, 1006, problem)
        assert ended(journal[0]) == ("failed", 101, 1006, problem)
    loop.set_exception_handler(None)


async def test_a_websocket_whose_app_fails_as_on_a_server_is_failed_with_1011() -> None:
    problem = Boom()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        raise problem

    async with recording(app, raise_app_exceptions=False) as (session, journal), session.ws_connect("/") as ws:
        assert (await ws.receive()).type is WSMsgType.CLOSE
        assert ws.close_code == 1011
        assert ended(journal[0]) == ("failed", 101, 1011, problem)


async def test_a_websocket_whose_client_finds_a_fault_is_done_with_its_code() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "too large"})
        assert (await receive())["code"] == 1009

    async with recording(app) as (session, journal):
        async with session.ws_connect("/", max_msg_size=4) as ws:
            assert (await ws.receive()).type is WSMsgType.ERROR
            assert ws.close_code == 1009
        await settle()
        assert journal[0].close_code == 1009


async def test_a_websocket_whose_session_closes_has_no_close_frame() -> None:
    codes: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        codes.append((await receive())["code"])

    async with recording(app) as (session, journal):
        ws = await session.ws_connect("/")
        await session.close()
        assert codes == [1006]
        assert ended(journal[0]) == ("abandoned", 101, 1006, None)
        await ws.close()


async def test_a_websocket_whose_connection_its_client_drops_is_abandoned() -> None:
    async with recording(socket_echo) as (session, journal), session.ws_connect("/") as ws:
        ws._response.close()
        assert ended(journal[0]) == ("abandoned", 101, 1006, None)


async def test_a_handshake_that_is_denied_is_a_response() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    async with recording(app) as (session, journal):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect("/")
        (exchange,) = journal
        assert ended(exchange) == ("done", 403, None, None)
        assert len(exchange.messages) == 0


async def test_a_handshake_that_is_denied_with_a_response_has_its_body() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 402, "headers": [(b"content-length", b"4")]})
        await send({"type": "websocket.http.response.body", "body": b"pay!"})

    async with recording(app, bodies=True) as (session, journal):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect("/")
        (exchange,) = journal
        assert ended(exchange) == ("done", 402, None, None)
        assert exchange.response is not None
        assert exchange.response.body == b"pay!"


async def test_a_handshake_that_is_answered_500_has_the_exception_of_the_app() -> None:
    problem = Boom()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise problem

    async with recording(app, raise_app_exceptions=False) as (session, journal):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect("/")
        assert ended(journal[0]) == ("done", 500, None, problem)


async def test_an_exception_before_a_handshake_is_answered_is_that_of_the_call() -> None:
    problem = Boom()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise problem

    async with recording(app) as (session, journal):
        with pytest.raises(Boom):
            await session.ws_connect("/")
        assert ended(journal[0]) == ("failed", None, None, problem)


# What is kept.


async def ask_and_read(session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
    async with session.get("/") as response:
        await response.read()
    return response


async def ask_and_leave(session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
    async with session.get("/endless") as response:
        pass
    return response


@pytest.mark.parametrize("ask", [ask_and_read, ask_and_leave])
@pytest.mark.parametrize("fallback", [False, True])
async def test_an_exchange_that_has_ended_keeps_nothing_of_the_client(
    ask: Callable[[aiohttp.ClientSession], Awaitable[aiohttp.ClientResponse]], fallback: bool
) -> None:
    gone: list[weakref.ref[object]] = []

    async def note(req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await handler(req)
        gone.extend([weakref.ref(req), weakref.ref(response)])
        return response

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send(start())
        await send(body(b"half", more=True))
        if scope["path"] == "/endless":
            await receive()
        await send(body())

    async with tcp_server() as tcp:
        tcp.response = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nover TCP"
        apps = {} if fallback else {"127.0.0.1": app}
        connector = ASGIRoutingConnector(
            apps, fallback=aiohttp.TCPConnector(force_close=True) if fallback else None, lifespan="off"
        )
        with connector.record(bodies=True) as journal:
            async with aiohttp.ClientSession(tcp.url, connector=connector, middlewares=(note,)) as session:
                await ask(session)
                assert journal[0].ended
                await settle()
                gc.collect()
                assert [ref() for ref in gone] == [None, None]
    assert journal[0].status == 200


async def test_a_forgotten_connector_is_not_kept_by_an_exchange_that_nobody_has_looked_at(reports: Reports) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body())

    async def use_and_forget() -> Journal:
        connector = ASGIRoutingConnector({"app.internal": app}, lifespan="off")
        journal = connector.record().__enter__()
        async with aiohttp.ClientSession(connector=connector, connector_owner=False) as session:
            await fetch(session, "http://app.internal/")
        del connector, session
        gc.collect()
        return journal

    with pytest.warns(ResourceWarning, match="Unclosed connector"):
        journal = await use_and_forget()
    assert journal[0].status == 200


async def test_a_closed_connector_is_not_kept_by_its_journal() -> None:
    async with session_to(echo) as session:
        with connector_of(session).record() as journal:
            await ask_and_read(session)
        gone = weakref.ref(connector_of(session))
    del session
    await settle()
    gc.collect()
    assert gone() is None
    assert journal[0].state == "done"


class Losing(aiohttp.TCPConnector):
    """Its connections have been lost when they are returned from the pool."""

    async def connect(self, *args: Any) -> Connection:
        connection = await super().connect(*args)
        protocol: Any = connection.protocol
        protocol.transport.abort()
        await until(lambda: protocol.transport is None)
        return connection


async def test_a_connection_of_the_fallback_that_was_lost_before_it_was_used_is_failed() -> None:
    async with tcp_server() as tcp, recording({}, fallback=Losing()) as (session, journal):
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(f"{tcp.url}/")
        (exchange,) = journal
        assert (exchange.state, exchange.status) == ("failed", None)


class Impatient(aiohttp.TCPConnector):
    """A connector whose user has waited for the end of its connections, and no longer waits."""

    async def connect(self, *args: Any) -> Connection:
        connection = await super().connect(*args)
        assert connection.protocol is not None
        assert connection.protocol.closed is not None
        asyncio.get_running_loop().call_soon(connection.protocol.closed.cancel)
        return connection


async def test_who_stops_waiting_for_the_end_of_a_connection_does_not_end_the_exchange() -> None:
    async with tcp_server() as tcp, recording({}, fallback=Impatient()) as (session, journal):
        async with session.get(f"{tcp.url}/") as response:
            assert await response.read() == b"over TCP"
        assert ending(journal[0]) == DONE


async def test_what_an_app_raises_when_the_exchange_has_ended_is_not_told() -> None:
    """It does not know yet that its client has disconnected, because the network delivers nothing."""
    called, fail = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called.set()
        await fail.wait()
        raise Boom

    async with recording(app) as (session, journal):
        with connector_of(session).inject("app.internal", faults.Hang("request", after=0)):
            request = asyncio.create_task(session.post("http://app.internal/", data=b"some bytes"))
            await called.wait()
            request.cancel()
            await asyncio.wait([request])
            assert ending(journal[0]) == ("abandoned", None, None)
            fail.set()
            await settle()
        assert ending(journal[0]) == ("abandoned", None, None)


async def test_what_an_app_sends_too_much_is_not_told_of_the_request_after_its_own(reports: Reports) -> None:
    may_send = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first = scope["path"] == "/1"
        await send(start(200, (b"content-length", b"2")))
        await send(body(b"ok", more=first))
        if first:
            await may_send.wait()
            await send(body(b"x" * 1000))

    async def post(url: str) -> bytes:
        async with session.post(url) as response:
            return await response.read()

    async with recording(app, bodies=True) as (session, journal):
        assert await post("/1") == b"ok"
        request = asyncio.create_task(post("/2"))
        await settle()
        assert not request.done()
        may_send.set()
        assert await request == b"ok"
    assert [type(exc) for exc in reports.exceptions] == [ASGIProtocolError]
    assert [(each.path, each.state, each.reused) for each in journal] == [("/1", "done", False), ("/2", "done", True)]
    responses = [each.response for each in journal]
    assert [(each.size, each.body, each.cut) for each in responses if each is not None] == [(2, b"ok", 0)] * 2


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
async def test_bytes_that_are_refused_are_not_counted(chunked: bool) -> None:
    """The first piece has been sent, and the second would be too much. In a chunked response nothing is too much."""
    got_first = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200) if chunked else start(200, (b"content-length", b"2")))
        await send(body(b"o", more=True))
        await got_first.wait()
        await send(body(b"klong"))

    async with recording(app, bodies=True) as (session, journal):
        async with session.get("/") as response:
            assert await response.content.readexactly(1) == b"o"
            got_first.set()
            if chunked:
                assert await response.read() == b"klong"
            else:
                with pytest.raises(ASGIProtocolError, match="longer than Content-Length"):
                    await response.read()
        exchange = journal[0]
        assert exchange.response is not None
        expected = b"oklong" if chunked else b"o"
        assert (exchange.response.size, exchange.response.body, exchange.response.cut) == (len(expected), expected, 0)


async def test_a_connector_behind_another_one_hears_of_a_cut_as_the_other_does() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"20")))
        await send(body(b"ok", more=True))
        while (await receive())["type"] != "http.disconnect":
            pass

    inner = ASGIRoutingConnector({"x.internal": app}, lifespan="off")
    async with recording({}, fallback=inner) as (session, outer_journal):
        with inner.record() as inner_journal:
            async with session.get("http://x.internal/") as response:
                assert ending(inner_journal[0]) == ending(outer_journal[0]) == ("running", 200, None)
                with inner.inject("x.internal", faults.Reset()) as injected:
                    await settle()
                    error = response.content.exception()  # which the client has not seen yet
                    assert isinstance(error, aiohttp.ClientPayloadError)
                    assert ending(inner_journal[0]) == ending(outer_journal[0]) == ("failed", 200, error)
        assert (outer_journal[0].via, outer_journal[0].service, outer_journal[0].fault) == ("fallback", None, None)
        assert (inner_journal[0].via, inner_journal[0].service) == ("app", "x.internal")
        assert inner_journal[0].fault is injected.fault


@pytest.mark.parametrize(
    ("mounted_then", "service", "ended"),
    [(None, None, ("failed", None)), ("*.internal", "*.internal", ("done", 201)), ("*", "*", ("done", 201))],
)
async def test_a_service_that_is_unmounted_while_a_request_waits_has_not_answered_it(
    mounted_then: str | None, service: str | None, ended: tuple[str, int | None]
) -> None:
    async with recording(echo) as (session, journal):
        connector = connector_of(session)
        with connector.inject("app.internal", faults.Hang(on="connect")):
            request = asyncio.create_task(session.get("http://app.internal/"))
            await settle()
            await connector.unmount("app.internal")
            if mounted_then is not None:
                connector.mount(mounted_then, echo)
        await asyncio.wait([request])
        error = request.exception()
        assert isinstance(error, UnmountedHostError) == (mounted_then is None)
        assert (journal[0].state, journal[0].status) == ended
        assert journal[0].error is error
        assert journal[0].service == service


@pytest.mark.parametrize("bodies", ["no", 1, None, b""], ids=repr)
async def test_bodies_are_kept_or_not(bodies: Any) -> None:
    async with session_to(echo) as session:
        with pytest.raises(TypeError, match=f"^bodies must be a bool, not {bodies!r}$"):
            connector_of(session).record(bodies=bodies)


COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, pickle.dumps]


@pytest.mark.parametrize("duplicate", COPIES, ids=["copy", "deepcopy", "pickle"])
async def test_an_exchange_goes_on_changing_and_cannot_be_copied(duplicate: Callable[[Any], Any]) -> None:
    message = "^An Exchange goes on changing, and cannot be copied or pickled: take what you need of it$"
    async with recording(echo) as (session, journal):
        async with session.get("/"):
            with pytest.raises(TypeError, match=message):
                duplicate(journal[0])
        with pytest.raises(TypeError, match=message):
            duplicate(journal[0])


async def test_a_journal_prints_each_call_below_its_own_caller() -> None:
    """The calls of one app are made while another one runs, and in another order."""
    called = {"/a": asyncio.Event(), "/b": asyncio.Event()}
    go_on = {"/a": asyncio.Event(), "/b": asyncio.Event()}

    async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        called[path].set()
        await go_on[path].wait()
        async with session.get(f"http://middle.internal{path}") as response:
            await response.read()
        await echo(scope, receive, send)

    async def middle(scope: Scope, receive: Receive, send: Send) -> None:
        async with session.get(f"http://down.internal{scope['path']}") as response:
            await response.read()
        await echo(scope, receive, send)

    apps: dict[str, ASGIApp | Mount] = {"gateway.internal": gateway, "middle.internal": middle, "down.internal": echo}
    async with recording(apps) as (session, journal):
        requests = []
        for path in "/a", "/b":
            requests.append(asyncio.create_task(session.get(f"http://gateway.internal{path}")))
            await called[path].wait()
        for path, request in zip(["/b", "/a"], reversed(requests), strict=True):
            go_on[path].set()
            assert (await request).status == 201
        lines = [re.sub(r" in \d+ ms$", "", line) for line in str(journal).splitlines()]
    assert lines == [
        "GET http://gateway.internal/a: 201",
        "  gateway.internal -> GET http://middle.internal/a: 201",
        "    middle.internal -> GET http://down.internal/a: 201",
        "GET http://gateway.internal/b: 201",
        "  gateway.internal -> GET http://middle.internal/b: 201",
        "    middle.internal -> GET http://down.internal/b: 201",
    ]
    inside = [re.sub(r" in \d+ ms$", "", line) for line in str(journal.select(caller="middle.internal")).splitlines()]
    assert inside == [f"middle.internal -> GET http://down.internal{path}: 201" for path in ("/b", "/a")]


async def test_a_waiter_looks_at_each_ended_exchange_once() -> None:
    looked_at: list[int] = []

    def is_meant(exchange: Exchange) -> bool:
        looked_at.append(exchange.number)
        return exchange.path != "/0"

    async with recording(echo) as (session, journal):
        waiting = asyncio.create_task(journal.wait_for(where=is_meant, times=4, timeout=5))
        await settle()
        for number in range(4):
            async with session.get(f"/{number}"):
                pass
            await settle()
            assert looked_at == list(range(number + 1))
        with connector_of(session).inject("app.internal", faults.Hang()):
            running = asyncio.create_task(session.get("/4"))
            await settle()
            assert looked_at == [0, 1, 2, 3]
        assert (await running).status == 201
        assert [exchange.number for exchange in await waiting] == [1, 2, 3, 4]
    # And again for the exchange that is returned, which is then current.
    assert looked_at == [0, 1, 2, 3, 4] * 2


@pytest.mark.parametrize(
    ("value", "found"),
    [(None, 0), ("", 0), (0, 0), ([], 0), ("x", 1), (1, 1), ([None], 1), (object(), 1)],
    ids=["None", "empty str", "zero", "empty list", "str", "one", "list", "object"],
)
async def test_what_says_whether_an_exchange_is_meant_may_return_any_object(value: object, found: int) -> None:
    async with recording(echo) as (session, journal):
        async with session.get("/", headers={"X-Id": "7"}):
            pass
        assert len(journal.select(where=lambda exchange: value)) == found
        assert len(journal.assert_called(where=lambda exchange: exchange.request.headers.get("X-Id"))) == 1
        assert len(journal.assert_not_called(where=lambda exchange: exchange.request.headers.get("X-Other"))) == 0
        assert len(await journal.wait_for(where=lambda exchange: exchange.request.headers.get("X-Id"))) == 1


# What the client of a WebSocket has seen.

CUTS = [faults.Reset, faults.Close]


async def greeting(scope: Scope, receive: Receive, send: Send) -> None:
    """Says hello, in 7 bytes, and closes with 4005, in 10, after it has received a message."""
    await accept(receive, send)
    await send({"type": "websocket.send", "text": "hello"})
    if (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.close", "code": 4005, "reason": "enough"})


async def greeted(session: aiohttp.ClientSession, **settings: Any) -> aiohttp.ClientWebSocketResponse:
    timeout = aiohttp.ClientWSTimeout(ws_close=0.01)
    ws: aiohttp.ClientWebSocketResponse = await session.ws_connect("/", compress=0, timeout=timeout, **settings)
    assert await ws.receive_str() == "hello"
    return ws


def is_cut(exchange: Exchange) -> bool:
    return ended(exchange)[:3] == ("failed", 101, 1006) and isinstance(exchange.error, OSError)


@pytest.mark.parametrize("fault", CUTS)
@pytest.mark.parametrize("after", [8, 9, 11, 12, 16, 17])
async def test_the_close_frame_of_an_app_counts_when_it_has_arrived(fault: type[Any], after: int) -> None:
    async with recording(greeting) as (session, journal):
        with connector_of(session).inject("app.internal", fault(after=after)):
            ws = await greeted(session)
            await ws.send_str("go")
            message = await ws.receive()
            (exchange,) = journal
            if after == 17:
                assert (message.type, message.data) == (WSMsgType.CLOSE, 4005)
                assert ended(exchange) == ("done", 101, 4005, None)
            else:
                assert (message.type, ws.close_code) == (WSMsgType.CLOSED, 1006)
                assert is_cut(exchange)
                assert exchange.outcome.startswith("101 failed (Connection")
        await ws.close()
        await settle()


@pytest.mark.parametrize("fault", CUTS)
@pytest.mark.parametrize("on", ["request", "response"])
async def test_a_client_whose_close_is_not_answered_has_failed(fault: type[Any], on: Any) -> None:
    """Its close frame has 8 bytes, the app's answer 4. Of each, 5 or 3 bytes arrive."""
    codes: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "hello"})
        codes.append((await receive())["code"])

    async with recording(app) as (session, journal):
        with connector_of(session).inject("app.internal", fault(on, 5 if on == "request" else 10)):
            ws = await greeted(session)
            await ws.close(code=4000)
            assert ws.close_code == 1006
            assert is_cut(journal[0])
        await settle()
    assert codes == [1006 if on == "request" else 4000]


@pytest.mark.parametrize("leave", ["close", "timeout and close", "cancel", "close the session"])
async def test_a_close_frame_that_hangs_until_the_client_leaves_has_not_arrived(leave: str) -> None:
    async with recording(greeting, shutdown_timeout=0) as (session, journal):
        with connector_of(session).inject("app.internal", faults.Hang(after=7)):
            ws = await greeted(session)
            await ws.send_str("go")
            await settle()
            (exchange,) = journal
            assert exchange.state == "running"
            if leave == "timeout and close":
                with pytest.raises(asyncio.TimeoutError):
                    await ws.receive(timeout=0.01)
            if leave == "cancel":
                closing = asyncio.create_task(ws.close())
                await asyncio.sleep(0)
                closing.cancel()
                await asyncio.wait([closing])
            elif leave == "close the session":
                await session.close()
            else:
                await ws.close()
                assert ws.close_code == 1006
            assert ended(exchange) == ("abandoned", 101, 1006, None)
        await ws.close()
        await settle()


@pytest.mark.parametrize("fault", [faults.Hang(after=7), faults.Latency(0.01), faults.Throttle(2000)])
async def test_a_close_frame_that_is_late_arrives(fault: faults.Fault) -> None:
    async with recording(greeting) as (session, journal):
        with connector_of(session).inject("app.internal", fault):
            ws = await greeted(session)
            await ws.send_str("go")
            await settle()
        message = await ws.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, 4005)
        assert ended(journal[0]) == ("done", 101, 4005, None)


async def test_a_close_frame_that_the_client_has_not_read_yet_has_arrived() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        for text in ("hello", "x" * 300, "y"):
            await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close", "code": 4005})

    async with recording(app) as (session, journal):
        ws = await greeted(session, autoclose=False)
        await settle()
        await session.close()
        assert ended(journal[0]) == ("done", 101, 4005, None)
        await ws.close()


async def test_an_app_that_closes_after_its_client_has_left_changes_nothing() -> None:
    """It does not know yet that its client has disconnected, because the network delivers nothing."""
    may_close = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "hello"})
        await may_close.wait()
        await send({"type": "websocket.close", "code": 4005})

    async with recording(app) as (session, journal):
        with connector_of(session).inject("app.internal", faults.Hang("request", after=0)):
            ws = await greeted(session)
            await ws.close()
            assert ended(journal[0]) == ("abandoned", 101, 1006, None)
            may_close.set()
            await settle()
            assert ended(journal[0]) == ("abandoned", 101, 1006, None)


async def test_a_close_frame_without_a_code_is_1005() -> None:
    async with recording(greeting) as (session, journal):
        ws = await greeted(session)
        await ws._writer.send_frame(b"", WSMsgType.CLOSE)
        message = await ws.receive()
        assert message.type is WSMsgType.CLOSE
        assert ended(journal[0]) == ("done", 101, 1005, None)


async def test_an_app_that_has_failed_is_told_by_its_close_frame_only_if_it_arrives() -> None:
    problem = Boom()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "hello"})
        await receive()
        raise problem

    async with recording(app, raise_app_exceptions=False) as (session, journal):
        for after, code in ((8, 1006), (100, 1011)):
            with connector_of(session).inject("app.internal", faults.Close(after=after)):
                ws = await greeted(session)
                await ws.send_str("go")
                await ws.receive()
                assert ws.close_code == code
                assert ended(journal[-1]) == ("failed", 101, code, problem)
            await ws.close()
            await settle()


# Responses of the server itself.


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("bodies", [True, False])
async def test_the_servers_own_500_is_told(method: str, bodies: bool) -> None:
    problem = Boom()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise problem

    async with recording(app, bodies=bodies, raise_app_exceptions=False) as (session, journal):
        async with session.request(method, "/") as response:
            read = await response.read()
        (exchange,) = journal
        assert ending(exchange) == ("done", 500, problem)
        assert exchange.response is not None
        assert exchange.response.size == len(read) == (0 if method == "HEAD" else 21)
        assert exchange.response.body == (read if bodies else None)
        assert exchange.waited is not None
    (entry,) = journal.to_har()["log"]["entries"]
    assert entry["response"]["content"]["size"] == entry["response"]["bodySize"] == len(read)


async def test_the_servers_own_500_to_a_handshake_is_told() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Boom

    async with recording(app, bodies=True, raise_app_exceptions=False) as (session, journal):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect("/")
        assert journal[0].status == 500
        assert journal[0].response is not None
        assert journal[0].response.body == b"Internal Server Error"


async def test_a_response_that_is_cut_off_by_its_app_has_only_what_was_sent() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"10")))
        await send(body(b"half", more=True))
        raise Boom

    async with recording(app, bodies=True, raise_app_exceptions=False) as (session, journal):
        async with session.get("/") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        assert journal[0].response is not None
        assert journal[0].response.body == b"half"


@pytest.mark.parametrize(
    ("method", "settings", "status"),
    [
        pytest.param("CONNECT", {}, 501, id="a method that is not there"),
        pytest.param("GET", {"headers": {"X-Long": "x" * 70_000}}, 431, id="a head that is too large"),
        pytest.param("HEAD", {"headers": {"X-Long": "x" * 70_000}}, 431, id="HEAD"),
        pytest.param("POST", {"headers": {"Content-Length": "x"}}, 400, id="a length that is none"),
        pytest.param(
            "GET",
            {"headers": {"Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Version": "1"}},
            426,
            id="a handshake of another version",
        ),
    ],
)
async def test_what_the_server_refuses_is_told(method: str, settings: dict[str, Any], status: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("it is called")

    async with recording(app, bodies=True) as (session, journal):
        async with session.request(method, "/", **settings) as response:
            assert response.status == status
            read = await response.read()
        (exchange,) = journal
        assert ending(exchange) == ("done", status, None)
        assert exchange.response is not None
        assert exchange.response.body == read
        assert exchange.response.size == len(read)
        assert (len(read) == 0) == (method == "HEAD")


# The fallback's connections outlive their exchanges.


@pytest.mark.parametrize("requests", [1, 3])
async def test_an_idle_connection_of_the_fallback_may_be_reset(requests: int, reports: Reports) -> None:
    fallback = aiohttp.TCPConnector()
    async with resetting_server() as server, session_to(echo, fallback=fallback) as session:
        with connector_of(session).record() as journal:
            for _ in range(requests):
                async with session.get(server.url) as response:
                    await response.read()
        ((protocol, _),) = [each for pooled in fallback._conns.values() for each in pooled]
        closed = protocol.closed
        assert closed is not None
        server.reset()
        await asyncio.wait([closed])
        await settle()
        async with session.get(server.url) as response:  # for which the pool lets go of the connection that is lost
            await response.read()
        # asyncio reports an exception that was not retrieved when its future is freed.
        del protocol, closed, response
        gc.collect()
        assert [each.state for each in journal] == ["done"] * requests
        assert [each.reused for each in journal] == [False, *[True] * (requests - 1)]
    assert reports.all == []


@pytest.mark.parametrize("when", ["head", "body"])
async def test_a_connection_of_the_fallback_may_be_reset_in_a_request(when: str, reports: Reports) -> None:
    async with resetting_server() as server, session_to(echo, fallback=aiohttp.TCPConnector()) as session:
        server.answer = b"" if when == "head" else b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"
        with connector_of(session).record() as journal:
            if when == "head":
                asking = asyncio.create_task(session.post(server.url))
                await server.asked.wait()
                server.reset()
                with pytest.raises(aiohttp.ClientOSError):
                    await asking
            else:
                async with session.post(server.url) as response:
                    server.reset()
                    with pytest.raises(aiohttp.ClientError):
                        await response.read()
                del response
            await settle()
            assert journal[0].state == "failed"
        gc.collect()
    assert reports.all == []


class ResettingServer:
    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        self.asked = asyncio.Event()
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked.set()
                writer.write(self.answer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            if writer in self._writers:
                self._writers.remove(writer)
            writer.close()

    def reset(self) -> None:
        while self._writers:
            writer = self._writers.pop()
            found = writer.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # an RST, not a FIN
            writer.transport.abort()


@asynccontextmanager
async def resetting_server() -> AsyncIterator[ResettingServer]:
    served = ResettingServer()
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield served
    finally:
        served.reset()
        server.close()
        await server.wait_closed()


async def test_the_calls_of_one_app_are_printed_in_the_order_in_which_they_started() -> None:
    async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
        for path in ("/1", "/2", "/3"):
            await fetch(session, f"http://down.internal{path}")
        await echo(scope, receive, send)

    async with recording({"gateway.internal": gateway, "down.internal": echo}) as (session, journal):
        await fetch(session, "http://gateway.internal/")
        assert re.findall(r"http://down\.internal(\S+):", str(journal)) == ["/1", "/2", "/3"]
