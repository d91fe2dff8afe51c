"""A request is cancelled at every possible moment, on both sides. Nothing remains, and the next request succeeds."""

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from functools import partial
from itertools import count
from typing import Any, Generic, TypeVar

import pytest
from aiohttp import ClientSession, TraceConfig

from asgi_connector import ASGIConnectorError
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import AIOHTTP, session_to
from tests.support.leaks import no_task_and_no_timer_is_left

PIECES = [letter * 100_000 for letter in (b"a", b"b", b"c", b"d")]  # each is larger than a buffer
WHOLE = b"".join(PIECES)

T = TypeVar("T")


class Moment(enum.Enum):
    WAITING = "as it begins to wait for the n-th time"
    WOKEN = "when what it waits for the n-th time has come, and it has not learnt so yet"
    TURN = "in the n-th turn of the event loop"


class CancelledAt(Generic[T]):
    """Awaits a coroutine, and cancels its own task at the n-th moment, if there is one."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], moment: Moment, n: int) -> None:
        self.cancelled = False
        self._coroutine = coroutine
        self._moment = moment
        self._n = n
        self._over = False

    def __await__(self) -> Generator[Any, Any, T]:
        task = asyncio.current_task()
        assert task is not None
        if self._moment is Moment.TURN:
            self._count_down(task, self._n)
        resume: Callable[[], Any] = partial(self._coroutine.send, None)
        try:
            for waits in count():
                awaited = resume()
                if self._moment is not Moment.TURN and waits == self._n:
                    self._cancel_at(task, awaited)
                try:
                    value = yield awaited
                except BaseException as exc:
                    resume = partial(self._coroutine.throw, exc)
                else:
                    resume = partial(self._coroutine.send, value)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            self._over = True
        raise AssertionError

    def _cancel_at(self, task: asyncio.Task[Any], awaited: "asyncio.Future[Any] | None") -> None:
        if awaited is None or self._moment is Moment.WAITING:
            self._cancel(task)
        else:
            awaited.add_done_callback(lambda _: self._cancel(task))  # comes before the task's own

    def _count_down(self, task: asyncio.Task[Any], turns: int) -> None:
        if self._over:
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._count_down, task, turns - 1)
        else:
            self._cancel(task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        self.cancelled = True
        task.cancel()


async def run(awaitable: Awaitable[T]) -> T:
    return await awaitable


Call = Callable[[ClientSession], Coroutine[Any, Any, bytes]]


async def get(session: ClientSession) -> bytes:
    async with session.get("/echo") as response:
        return await response.read()


async def upload(session: ClientSession) -> bytes:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in PIECES:
            await asyncio.sleep(0)
            yield piece

    async with session.post("/echo", data=pieces()) as response:
        return await response.read()


async def download(session: ClientSession) -> bytes:
    async with session.get("/download") as response:
        return b"".join([piece async for piece in response.content.iter_any()])


async def upload_that_asks_first(session: ClientSession) -> bytes:
    async with session.post("/echo", data=WHOLE, expect100=True) as response:
        return await response.read()


CALLS = [
    pytest.param(get, b"/echo ", id="get"),
    pytest.param(upload, b"/echo " + WHOLE, id="upload"),
    pytest.param(download, WHOLE, id="download"),
    pytest.param(upload_that_asks_first, b"/echo " + WHOLE, id="100-continue"),
]
every_call = pytest.mark.parametrize(("call", "right"), CALLS)
every_moment = pytest.mark.parametrize("moment", list(Moment), ids=lambda moment: moment.name.lower())


class App:
    """Answers with path and body, or with the pieces. A test may decide how one of its calls runs."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.drive: Callable[[Coroutine[Any, Any, None]], Awaitable[None]] | None = None
        self.answered = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        self.answered = False
        drive, self.drive = self.drive, None
        await (drive or run)(self.answer(scope, receive, send))

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/download":
            for piece in PIECES:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0)
            body = b""
        else:
            body = scope["path"].encode() + b" " + body
        await send({"type": "http.response.body", "body": body})
        self.answered = True
        await asyncio.sleep(0)

    async def live(self, receive: Receive, send: Send) -> None:
        for what in ("startup", "shutdown"):
            assert await receive() == {"type": f"lifespan.{what}"}
            await asyncio.sleep(0)
            await send({"type": f"lifespan.{what}.complete"})

    async def end(self) -> None:
        """Return when the app has ended each of its calls."""
        if self.tasks:
            await asyncio.wait(self.tasks)


def trace_that_waits() -> TraceConfig:
    """Every tracing signal of a request is one more moment at which it can be cancelled."""

    async def wait(*_: object) -> None:
        await asyncio.sleep(0)

    trace = TraceConfig()
    for signal in (name for name in dir(trace) if name.startswith("on_")):
        getattr(trace, signal).append(wait)
    return trace


async def next_request_is_right(session: ClientSession, path: str) -> None:
    async with session.post(path, data=b"next") as response:
        assert await response.read() == path.encode() + b" next"


def nothing_is_acquired(session: ClientSession) -> None:
    connector = session.connector
    assert connector is not None
    assert not connector._acquired
    assert not connector._acquired_per_host
    for pooled in connector._conns.values():
        assert all(protocol.is_connected() and not protocol.should_close for protocol, _ in pooled)


async def cancel_the_client(
    call: Call, right: bytes, moment: Moment, n: int, *, pooled: bool = False, **settings: Any
) -> bool:
    """Cancel the request at its n-th moment. Returns whether there was one."""
    app = App()
    # With at most one connection, a connection that is not released is noticed.
    async with asyncio.timeout(20), session_to(app, limit=1, limit_per_host=1, **settings) as session:
        if pooled:
            await next_request_is_right(session, "/first")
        driver = CancelledAt(call(session), moment, n)
        task = asyncio.create_task(run(driver))
        await asyncio.wait([task])
        assert task.cancelled() is driver.cancelled
        if not driver.cancelled:
            assert task.result() == right
        nothing_is_acquired(session)
        await app.end()
        await next_request_is_right(session, f"/next/{n}")
        await app.end()
        nothing_is_acquired(session)
    no_task_and_no_timer_is_left()
    return driver.cancelled


async def at_each_moment(cancel: Callable[[int], Awaitable[bool]]) -> None:
    n = 0
    while await cancel(n):
        n += 1
    assert n >= 1


@every_call
@every_moment
async def test_a_client_that_is_cancelled_anywhere_leaves_nothing(call: Call, right: bytes, moment: Moment) -> None:
    await at_each_moment(lambda n: cancel_the_client(call, right, moment, n))


@pytest.mark.skipif(
    AIOHTTP < (3, 14, 0),
    reason="aiohttp 3.13 takes some of these connections for ones in use, and never frees them",
)
@every_call
@every_moment
@pytest.mark.parametrize("pooled", [False, True], ids=["new", "pooled"])
async def test_a_client_that_is_cancelled_while_a_trace_runs_leaves_nothing(
    call: Call, right: bytes, moment: Moment, pooled: bool
) -> None:
    traces = [trace_that_waits()]
    await at_each_moment(
        lambda n: cancel_the_client(call, right, moment, n, pooled=pooled, session_trace_configs=traces)
    )


@every_moment
async def test_a_client_that_is_cancelled_while_its_app_starts_leaves_nothing(moment: Moment) -> None:
    await at_each_moment(lambda n: cancel_the_client(get, b"/echo ", moment, n, lifespan="on"))


@every_moment
async def test_a_client_that_is_cancelled_while_it_waits_for_a_free_connection_leaves_nothing(moment: Moment) -> None:
    async def cancel(n: int) -> bool:
        app = App()
        async with asyncio.timeout(20), session_to(app, limit=1) as session:
            holder = await session.get("/download")  # too large for the buffers
            driver = CancelledAt(get(session), moment, n)
            task = asyncio.create_task(run(driver))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert await holder.read() == WHOLE
            await asyncio.wait([task])
            assert task.cancelled() is driver.cancelled
            if not driver.cancelled:
                assert task.result() == b"/echo "
            nothing_is_acquired(session)
            assert session.connector is not None
            assert not any(session.connector._waiters.values())
            await next_request_is_right(session, f"/next/{n}")
            await app.end()
        no_task_and_no_timer_is_left()
        return driver.cancelled

    await at_each_moment(cancel)


@every_call
@every_moment
async def test_an_app_that_is_cancelled_anywhere_leaves_nothing(call: Call, right: bytes, moment: Moment) -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))

    async def cancel(n: int) -> bool:
        app = App()
        drivers: list[CancelledAt[None]] = []
        unhandled.clear()

        async def drive(answer: Coroutine[Any, Any, None]) -> None:
            drivers.append(CancelledAt(answer, moment, n))
            await drivers[0]

        async with asyncio.timeout(20), session_to(app, limit=1, limit_per_host=1) as session:
            app.drive = drive
            failure: BaseException | None = None
            try:
                assert await call(session) == right
            except ASGIConnectorError as exc:
                failure = exc
            await app.end()
            (driver,) = drivers
            if driver.cancelled and not app.answered:
                assert failure is not None
                assert isinstance(failure.__cause__, asyncio.CancelledError)
                assert not unhandled
            else:  # the client has its answer, so a later exception goes to the loop's handler
                assert failure is None
                assert [type(context["exception"]) for context in unhandled] == (
                    [asyncio.CancelledError] if driver.cancelled else []
                )
            nothing_is_acquired(session)
            await next_request_is_right(session, f"/next/{n}")
            await app.end()
            nothing_is_acquired(session)
        no_task_and_no_timer_is_left()
        return driver.cancelled

    await at_each_moment(cancel)
