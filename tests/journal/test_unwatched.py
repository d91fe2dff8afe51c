"""A connection that is open when a block begins is recorded correctly, although no block was open until then."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession

from asgi_connector import Journal, faults
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import session_to
from tests.support.flow import MIB
from tests.support.messages import read_body, respond
from tests.support.sessions import connector_of
from tests.support.waiting import settle

LIMIT = 5


def recording(session: ClientSession, recorded: bool) -> contextlib.AbstractContextManager[Journal | None]:
    return connector_of(session).record() if recorded else contextlib.nullcontext()


async def outcome(request: Awaitable[Any]) -> Any:
    """The result of a call, or the type of the exception that it raises."""
    try:
        async with asyncio.timeout(LIMIT):
            return await request
    except aiohttp.ClientError as exc:
        return type(exc)


# On a connection that had another request before.


@pytest.mark.parametrize("recorded", [False, True], ids=["unwatched", "recorded"])
@pytest.mark.parametrize(
    ("criteria", "struck"),
    [
        ({"path": "/first"}, 0),
        ({"path": "/caf\u00e9"}, 1),
        ({"path": "/caf%C3%A9"}, 0),
        ({"method": "POST"}, 0),
        ({"method": "patch"}, 1),
        ({"method": "PATCH", "path": "/first"}, 0),
    ],
    ids=str,
)
async def test_a_request_that_has_sent_nothing_yet_is_not_the_one_before_it(
    criteria: dict[str, Any], struck: int, recorded: bool
) -> None:
    bodies: list[tuple[str, bytes]] = []
    begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        bodies.append((scope["path"], await read_body(receive)))
        await respond(send)

    async def upload() -> AsyncIterator[bytes]:
        begun.set()
        await may_go_on.wait()
        yield b"late"

    async def patch() -> bytes:
        async with session.patch("/caf%C3%A9?x=1", data=upload()) as response:
            return await response.read()

    async with session_to(app) as session:
        async with session.post("/first") as response:
            await response.read()
        with recording(session, recorded):
            request = asyncio.create_task(patch())
            await begun.wait()
            with connector_of(session).inject("*", faults.Reset(), allow_unused=True, **criteria) as injected:
                assert (injected.matched, injected.affected) == (struck, struck)
                may_go_on.set()
                assert await outcome(request) == (aiohttp.ClientOSError if struck else b"ok")
    assert bodies == [("/first", b""), ("/caf\u00e9", b"late")]


@pytest.mark.parametrize("recorded", [False, True], ids=["unwatched", "recorded"])
@pytest.mark.parametrize(("path", "struck"), [("/1", 0), ("/2", 1)])
async def test_a_request_that_waits_for_the_app_of_the_one_before_it_is_cut_when_it_is_answered(
    path: str, struck: int, recorded: bool
) -> None:
    calls: list[str] = []
    may_end = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])
        first = scope["path"] == "/1"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok", "more_body": first})
        if first:
            await may_end.wait()
            await send({"type": "http.response.body"})

    async def post(url: str) -> bytes:
        async with session.post(url) as response:
            return await response.read()

    async with session_to(app) as session:
        with recording(session, recorded):
            assert await post("/1") == b"ok"
            request = asyncio.create_task(post("/2"))
            await settle()
            assert calls == ["/1"]
            with connector_of(session).inject("*", faults.Reset(), path=path, allow_unused=True) as injected:
                assert (injected.matched, injected.affected) == (struck, struck)
                await settle()
                assert (calls, request.done()) == (["/1"], False)
                may_end.set()
                assert await outcome(request) == (aiohttp.ClientOSError if struck else b"ok")
    assert calls == ["/1", "/2"]


# Who made the request.


CALLERS = [(None, 0), ("orders.internal", 1), ("down.internal", 0)]


@pytest.mark.parametrize(("caller", "struck"), CALLERS, ids=str)
async def test_an_answer_that_is_still_being_read_has_the_caller_that_made_the_call(
    caller: str | None, struck: int
) -> None:
    answered, may_read = asyncio.Event(), asyncio.Event()
    size = 3 * MIB

    async def down(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"x" * size)
        answered.set()

    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        async with session.get("http://down.internal/") as response:
            await may_read.wait()
            try:
                text = str(len(await response.read()))
            except aiohttp.ClientPayloadError as exc:
                text = type(exc).__name__
        await respond(send, text.encode())

    async def call() -> bytes:
        async with session.get("http://orders.internal/") as response:
            return await response.read()

    apps = {"down.internal": down, "orders.internal": orders}
    async with session_to(apps, session_read_bufsize=4096) as session:
        request = asyncio.create_task(call())
        await answered.wait()
        await settle()
        fault = faults.Reset()
        with connector_of(session).inject("down.internal", fault, caller=caller, allow_unused=True) as injected:
            assert (injected.matched, injected.affected) == (struck, struck)
            may_read.set()
            assert await outcome(request) == (b"ClientPayloadError" if struck else b"%d" % size)


@pytest.mark.parametrize("called", [True, False], ids=["called", "not yet called"])
async def test_a_call_from_outside_has_no_caller(called: bool) -> None:
    """An app that is being called is not a caller of the request. Nor is an app that called it before."""
    begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def down(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await respond(send)

    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        async with session.get("http://down.internal/") as response:
            await respond(send, await response.read())

    async def upload() -> AsyncIterator[bytes]:
        if called:
            yield b"early"
        begun.set()
        await may_go_on.wait()
        yield b"late"

    async def post() -> bytes:
        async with session.post("http://down.internal/", data=upload()) as response:
            return await response.read()

    async with session_to({"down.internal": down, "orders.internal": orders}) as session:
        async with session.get("http://orders.internal/") as response:
            assert await response.read() == b"ok"
        request = asyncio.create_task(post())
        await begun.wait()
        await settle()
        inject: Callable[..., faults.Injection] = connector_of(session).inject
        with inject("down.internal", faults.Latency(0), caller="orders.internal", allow_unused=True) as not_meant:
            assert not_meant.matched == 0
        with inject("down.internal", faults.Latency(0), caller=None) as meant:
            assert (meant.matched, meant.affected) == (1, 1)
        may_go_on.set()
        assert await outcome(request) == b"ok"


@pytest.mark.parametrize(("caller", "struck"), CALLERS, ids=str)
async def test_a_websocket_whose_app_is_done_has_the_caller_that_opened_it(caller: str | None, struck: int) -> None:
    opened, may_close = asyncio.Event(), asyncio.Event()

    async def down(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})

    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        websocket = await session.ws_connect("http://down.internal/", autoclose=False)
        opened.set()
        await may_close.wait()
        await websocket.close()
        await respond(send)

    async def call() -> bytes:
        async with session.get("http://orders.internal/") as response:
            return await response.read()

    async with session_to({"down.internal": down, "orders.internal": orders}) as session:
        request = asyncio.create_task(call())
        await opened.wait()
        await settle()
        fault = faults.Latency(0)
        with connector_of(session).inject("down.internal", fault, caller=caller, allow_unused=True) as injected:
            assert (injected.matched, injected.affected) == (struck, struck)
        may_close.set()
        assert await outcome(request) == b"ok"


# The fault that affected it before.


async def test_an_exchange_that_is_struck_again_tells_the_fault_of_the_inner_block() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    outer: faults.Fault = faults.Latency(0)
    inner: faults.Fault = faults.Reset()
    async with session_to(app) as session:
        connector = connector_of(session)
        with connector.record() as journal, connector.inject("app.internal", outer):
            async with session.get("/") as response:
                assert await response.content.readexactly(1) == b"o"
                assert journal[0].fault is outer
                with connector.inject("app.internal", inner):
                    assert await outcome(response.read()) is aiohttp.ClientPayloadError
            assert journal[0].fault is inner
            assert journal[0].state == "failed"
