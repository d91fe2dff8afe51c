"""What is kept of a request, an exception or an app when it is over: only what a later call needs."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import ClientOSError, ClientSession, ServerDisconnectedError

from asgi_connector import Mount
from asgi_connector._callers import Caller, current_caller
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.messages import respond
from tests.support.sessions import connector_of
from tests.support.waiting import settle

Ref = weakref.ref[Any]


class Marker:
    """An object that can be referred to weakly."""


async def fetch(session: ClientSession, url: str = "/") -> None:
    async with session.get(url) as response:
        assert await response.read() == b"ok"


def alive(refs: list[Ref]) -> int:
    gc.collect()
    return sum(ref() is not None for ref in refs)


# Of a request.


async def test_a_request_is_not_kept_by_a_task_or_a_context_that_was_made_inside_of_it() -> None:
    refs: list[Ref] = []
    left_behind: list[object] = []
    over = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["marker"] = marker = Marker()
        scope["cycle"] = receive
        refs.append(weakref.ref(marker))
        left_behind.extend([asyncio.create_task(over.wait()), copy_context()])
        if scope["type"] == "http":
            await respond(send)
        else:
            await receive()
            await send({"type": "websocket.accept"})
            await receive()

    async with session_to(app) as session:
        await fetch(session)
        async with session.ws_connect("/"):
            pass
        await settle()
        assert len(refs) == 2
        assert alive(refs) == 0
        over.set()


@pytest.mark.parametrize("failing", [ValueError, ServerDisconnectedError])
async def test_a_request_that_fails_is_not_kept_either(failing: type[Exception]) -> None:
    refs: list[Ref] = []
    left_behind: list[asyncio.Task[bool]] = []
    over = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["marker"] = marker = Marker()
        refs.append(weakref.ref(marker))
        left_behind.append(asyncio.create_task(over.wait()))
        raise failing

    async with session_to(app) as session:
        with suppress(failing):
            await fetch(session)
        await settle()
        assert len(refs) == 1
        assert alive(refs) == 0
        over.set()


LINKS: Final = 1000


class Chain:
    """A service that calls itself, to a given depth."""

    def __init__(self, session: ClientSession, *, returns_first: bool) -> None:
        self.callers: list[Ref] = []
        self.scopes: list[Ref] = []
        self.most = 0
        self.over = asyncio.Event()
        self._session = session
        self._returns_first = returns_first
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["marker"] = marker = Marker()
        self.scopes.append(weakref.ref(marker))
        caller = current_caller.get()
        assert caller is not None
        self.callers.append(weakref.ref(caller))
        if len(self.callers) % 100 == 0:
            self.most = max(self.most, alive(self.callers), alive(self.scopes))
        call = self._call(len(self.callers))
        if self._returns_first:
            task = asyncio.create_task(call)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await respond(send)
        else:
            await respond(send)
            await call

    async def _call(self, number: int) -> None:
        if number == LINKS:
            self.over.set()
        else:
            await fetch(self._session)


@pytest.mark.parametrize("returns_first", [True, False])
@pytest.mark.parametrize("mode", ["outside", "always"])
async def test_a_chain_of_calls_between_services_stays_short(returns_first: bool, mode: str) -> None:
    apps: dict[str, ASGIApp | Mount] = {}
    async with session_to(apps, inherit_context=mode) as session:
        chain = Chain(session, returns_first=returns_first)
        connector_of(session).mount("app.internal", chain)
        await fetch(session)
        await chain.over.wait()
        await settle()
        assert len(chain.callers) == LINKS
        assert 0 < chain.most < 50  # those whose responses have not arrived
        assert alive(chain.scopes) == 0


def test_those_who_have_returned_are_cut_out_of_the_chain_of_callers() -> None:
    def parent_of(caller: Caller) -> Caller | None:
        return caller.parent

    outer = Caller(Marker(), "outer", None, None)
    middle = Caller(Marker(), "middle", None, outer)
    inner = Caller(Marker(), "inner", None, middle)
    assert (parent_of(inner), parent_of(middle), parent_of(outer)) == (middle, outer, None)
    middle.app_returned()
    assert parent_of(inner) is outer
    assert parent_of(Caller(Marker(), "later", None, middle)) is outer
    outer.app_returned()
    assert parent_of(inner) is None
    assert parent_of(Caller(Marker(), "last", None, middle)) is None
    assert middle.name == "middle"


async def test_the_journal_knows_each_parent_of_a_chain_whose_callers_have_returned() -> None:
    left_behind: list[asyncio.Task[None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if len(left_behind) < 20:
            left_behind.append(asyncio.create_task(fetch(session)))
        await respond(send)

    async with session_to(app) as session:
        with connector_of(session).record() as journal:
            await fetch(session)
            for task in left_behind:  # which grows in the meantime
                await task
    assert len(journal) == 21
    assert [each.parent for each in journal] == [None, *journal[:-1]]
    assert [each.caller for each in journal] == [None, *["app.internal"] * 20]


# Of an exception.

Make = Callable[[], Exception]
REPLAYED: Final = [lambda: ClientOSError(104, "reset"), lambda: ServerDisconnectedError()]


class Failing:
    """An app that fails, for example because its own call has failed."""

    def __init__(self, make: Make) -> None:
        self.refs: list[Ref] = []
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/fine":
            await respond(send)
            return
        exc = self._make()
        self.refs.append(weakref.ref(exc))
        try:
            raise exc
        finally:
            del exc

    async def fail(self, session: ClientSession, method: str = "GET") -> None:
        with suppress(ClientOSError, ServerDisconnectedError):
            await session.request(method, "/")


@pytest.mark.parametrize("make", REPLAYED)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "PATCH"])
@pytest.mark.parametrize("total", [None, 30.0])
async def test_an_exception_that_aiohttp_may_repeat_is_not_kept_when_the_call_is_over(
    make: Make, method: str, total: float | None
) -> None:
    app = Failing(make)
    async with session_to(app, session_timeout=aiohttp.ClientTimeout(total=total)) as session:
        await app.fail(session, method)
        await settle()  # the connection ends
        assert alive(app.refs) == 0  # of this task
        await asyncio.gather(*[app.fail(session, method) for _ in range(50)])
        await settle()
        assert len(app.refs) == 51
        assert alive(app.refs) == 0
        assert not connector_of(session)._retries._failed


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_exception_of_a_method_that_aiohttp_does_not_repeat_is_not_remembered(method: str) -> None:
    app = Failing(ServerDisconnectedError)
    async with session_to(app) as session:
        with pytest.raises(ServerDisconnectedError):
            await session.request(method, "/")
        assert not connector_of(session)._retries.expected


async def without_a_second_try(session: ClientSession) -> None:
    session._retry_connection = False


async def with_a_middleware_that_handles_it(session: ClientSession) -> None:
    async def handle(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        with suppress(ServerDisconnectedError):
            return await handler(request)
        raise LookupError

    session._middlewares = (handle,)


@pytest.mark.parametrize("prepare", [without_a_second_try, with_a_middleware_that_handles_it])
async def test_an_exception_that_aiohttp_does_not_ask_for_again_is_kept_until_the_tasks_next_call_or_its_end(
    prepare: Callable[[ClientSession], Awaitable[None]],
) -> None:
    app = Failing(ServerDisconnectedError)

    async def fail() -> None:
        with suppress(LookupError):
            await app.fail(session)

    async with session_to(app) as session:
        await prepare(session)
        retries = connector_of(session)._retries
        for _ in range(3):
            await fail()
            assert len(retries._failed) == 1
            assert alive(app.refs) == 1
        await fetch(session, "/fine")
        assert not retries._failed
        await asyncio.gather(*[fail() for _ in range(50)])
        await asyncio.sleep(0)
        assert not retries._failed
        assert alive(app.refs) == 0
        await fail()
        await session.close()
        assert not retries._failed
        assert alive(app.refs) == 0


# Of an app.


class App:
    """An app that takes part in everything."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{step}"
                await send({"type": f"lifespan.{step}.complete"})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
        elif scope["path"] == "/fail":
            raise LookupError
        else:
            await respond(send)


Use = Callable[[ClientSession], Awaitable[object]]


async def not_at_all(session: ClientSession) -> None:
    pass


async def once(session: ClientSession) -> aiohttp.ClientResponse:
    async with session.get("/") as response:
        await response.read()
    return response


async def at_once(session: ClientSession) -> list[aiohttp.ClientResponse]:
    return await asyncio.gather(*[once(session) for _ in range(5)])


async def with_a_failure(session: ClientSession) -> None:
    with suppress(LookupError):
        await session.get("/fail")


async def with_a_websocket(session: ClientSession) -> aiohttp.ClientWebSocketResponse:
    async with session.ws_connect("/") as websocket:
        pass
    return websocket


async def while_recording(session: ClientSession) -> object:
    with connector_of(session).record() as journal:
        await once(session)
    return journal


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


every_use = pytest.mark.parametrize(
    "use", [not_at_all, once, at_once, with_a_failure, with_a_websocket, while_recording]
)


@every_use
@pytest.mark.parametrize("lifespan", ["auto", "off"])
async def test_an_app_is_freed_when_it_is_unmounted_whatever_of_its_answers_is_kept(use: Use, lifespan: str) -> None:
    async with session_to({}, lifespan=lifespan) as session:
        app = App()
        ref = weakref.ref(app)
        connector_of(session).mount("app.internal", app)
        del app
        kept = await use(session)
        await connector_of(session).unmount("app.internal")
        gc.collect()
        assert ref() is None
        del kept


@every_use
@pytest.mark.parametrize("lifespan", ["auto", "off"])
async def test_an_app_is_freed_at_the_end_of_its_block(use: Use, lifespan: str) -> None:
    async with session_to({"app.internal": App()}, lifespan=lifespan) as session:
        app = App()
        ref = weakref.ref(app)
        block = connector_of(session).mounted("app.internal", app)
        del app
        async with block:
            kept = await use(session)
        del block
        gc.collect()
        assert ref() is None
        del kept


@every_use
@pytest.mark.parametrize("lifespan", ["auto", "off"])
async def test_an_app_is_freed_when_another_one_has_taken_its_place(use: Use, lifespan: str) -> None:
    async with session_to({}, lifespan=lifespan) as session:
        app = App()
        ref = weakref.ref(app)
        connector_of(session).mount("app.internal", app)
        del app
        kept = await use(session)
        connector_of(session).mount("app.internal", App())
        await settle()  # its lifespan shuts down
        gc.collect()
        assert ref() is None
        del kept


async def test_an_app_is_freed_without_a_garbage_collection() -> None:
    async with session_to({}, lifespan="auto") as session:
        with no_garbage_collection():
            app = App()
            ref = weakref.ref(app)
            connector_of(session).mount("app.internal", app)
            del app
            kept = await once(session)
            await connector_of(session).unmount("app.internal")
            assert ref() is None
            del kept
