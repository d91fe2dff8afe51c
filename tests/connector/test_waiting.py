"""Apps that continue without their clients: a warning shows where they are."""

import asyncio
import inspect
import logging
import types
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import ClientSession
from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect

from asgi_connector import ASGIRoutingConnector, LifespanError
from asgi_connector._places import where_it_waits
from asgi_connector._services import in_flight
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import session_to
from tests.support.reports import records
from tests.support.waiting import until

NEVER = 3600.0


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delay is reported almost immediately."""
    monkeypatch.setattr(in_flight, "NOTICEABLE", 0.01)


async def warned(caplog: pytest.LogCaptureFixture) -> str:
    """Wait for a warning, and return its text."""
    async with asyncio.timeout(5):
        await until(lambda: records(caplog))
    (record,) = records(caplog)
    assert record.levelno == logging.WARNING
    return record.getMessage()


def line_of(function: Callable[..., object], source: str) -> str:
    lines, first = inspect.getsourcelines(function)
    number = next(number for number, line in enumerate(lines) if line.strip() == source)
    return f"{__file__}:{first + number} in {function.__name__}: {source}"


class Chat:
    """A WebSocket whose handler waits for a queue, and so does not see that its client disconnects."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.queue: asyncio.Queue[str] = asyncio.Queue()
        self.app.add_api_websocket_route("/chat", self.chat)

    async def chat(self, websocket: WebSocket) -> None:
        await websocket.accept()
        item = await self.queue.get()
        await websocket.send_text(item)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("clients", [1, 3])
async def test_closing_that_waits_for_a_websocket_says_so_once_and_where_it_is(
    clients: int, caplog: pytest.LogCaptureFixture
) -> None:
    chat = Chat()
    async with session_to(chat.app, shutdown_timeout=NEVER) as session:
        for _ in range(clients):
            async with session.ws_connect("/chat"):
                pass
        close = asyncio.ensure_future(session.close())
        message = await warned(caplog)
        for _ in range(clients):
            chat.queue.put_nowait("late")
        await close
    assert message.startswith("Waiting for an app that goes on though its client has left: GET ws://app.internal")
    assert "/chat, by <MountedApp" in message
    assert "at 'app.internal'" in message
    end = ", and for 2 more" if clients == 3 else ""
    assert message.endswith(f"which waits at {line_of(chat.chat, 'item = await self.queue.get()')}{end}")
    assert len(records(caplog)) == 1


@pytest.mark.usefixtures("soon")
async def test_the_way_of_the_docs_ends_with_its_client(caplog: pytest.LogCaptureFixture) -> None:
    queue: asyncio.Queue[str] = asyncio.Queue()
    app = FastAPI()

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()

        async def send() -> None:
            while True:
                await websocket.send_text(await queue.get())

        sending = asyncio.create_task(send())
        try:
            async for _ in websocket.iter_text():
                pass
        except WebSocketDisconnect:
            pass
        finally:
            sending.cancel()

    async with session_to(app, shutdown_timeout=NEVER) as session, session.ws_connect("/chat") as ws:
        queue.put_nowait("hello")
        assert await ws.receive_str() == "hello"
    assert records(caplog) == []


async def test_an_app_that_is_cancelled_is_said_to_have_waited_there(caplog: pytest.LogCaptureFixture) -> None:
    chat = Chat()
    async with session_to(chat.app, shutdown_timeout=0.01) as session, session.ws_connect("/chat"):
        pass
    message = await warned(caplog)
    assert message.startswith("Cancelled an app, still running when the connector closed: GET ws://app.internal")
    assert message.endswith(f"which waited at {line_of(chat.chat, 'item = await self.queue.get()')}")


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("how", ["unmount", "mounted"])
async def test_unmounting_that_waits_for_an_app_without_its_client_says_so(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    chat = Chat()
    async with session_to({}) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)

        async def mount_and_unmount() -> None:
            if how == "mounted":
                async with connector.mounted("app.internal", chat.app), session.ws_connect("/chat"):
                    pass
            else:
                connector.mount("app.internal", chat.app)
                async with session.ws_connect("/chat"):
                    pass
                await connector.unmount("app.internal")

        unmounting = asyncio.create_task(mount_and_unmount())
        message = await warned(caplog)
        chat.queue.put_nowait("late")
        await unmounting
    assert message.endswith(f"which waits at {line_of(chat.chat, 'item = await self.queue.get()')}")


@pytest.mark.usefixtures("soon")
async def test_unmounting_that_waits_for_an_app_whose_client_is_there_is_usual(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chat, other = Chat(), Chat()
    async with session_to({"app.internal": chat.app, "other.internal": other.app}, shutdown_timeout=NEVER) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        async with session.ws_connect("http://other.internal/chat"):
            pass  # its app continues without its client, but nothing waits for it
        async with session.ws_connect("/chat") as ws:
            unmounting = asyncio.create_task(connector.unmount("app.internal"))
            passed = asyncio.Event()
            asyncio.get_running_loop().call_later(0.05, passed.set)
            await passed.wait()
            chat.queue.put_nowait("still here")
            assert await ws.receive_str() == "still here"
        await unmounting
        other.queue.put_nowait("late")
    assert records(caplog) == []


async def test_a_lifespan_that_does_not_stop_is_said_to_have_waited_there() -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    line = line_of(lifespan.__wrapped__, "await asyncio.Event().wait()")  # type: ignore[attr-defined]
    connector = ASGIRoutingConnector({"app.internal": FastAPI(lifespan=lifespan)}, shutdown_timeout=0.01)
    session = ClientSession(connector=connector)
    await session.get("http://app.internal/")
    with pytest.raises(LifespanError) as caught:
        await session.close()
    text = "it did not end within 0.01 seconds, and was cancelled at"
    assert str(caught.value) == f"The app at 'app.internal' failed to shut down: {text} {line}"


@pytest.mark.usefixtures("little_patience")
async def test_an_app_that_goes_on_though_it_was_cancelled_is_said_to_be_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    may_end = asyncio.Event()
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not may_end.is_set():
            with suppress(asyncio.CancelledError):
                await may_end.wait()
        ended.set()

    async with session_to(app, shutdown_timeout=0) as session:
        request = asyncio.create_task(session.get("/").__aenter__())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    with pytest.raises(Exception, match=r"closed|disconnected"):
        await request
    _, record = records(caplog)
    assert record.getMessage().startswith("An app went on though it was cancelled: GET http://app.internal")
    assert record.getMessage().endswith(line_of(app, "await may_end.wait()"))
    may_end.set()
    await ended.wait()


# Where a task waits.


async def sleeps() -> None:
    await asyncio.sleep(NEVER)


async def through_a_generator() -> None:
    await generator()


@types.coroutine
def generator() -> Generator[Any, Any, None]:
    yield from asyncio.Event().wait().__await__()


async def through_an_async_generator() -> None:
    async for _ in async_generator():
        pass


async def async_generator() -> AsyncIterator[None]:
    await asyncio.sleep(NEVER)
    yield


async def without_source() -> Callable[[], Any]:
    names: dict[str, Any] = {}
    exec("import asyncio\nasync def made():\n    await asyncio.sleep(3600)\n", names)
    made: Callable[[], Any] = names["made"]
    return made


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (sleeps, line_of(sleeps, "await asyncio.sleep(NEVER)")),
        (through_a_generator, line_of(generator, "yield from asyncio.Event().wait().__await__()")),
        (through_an_async_generator, line_of(async_generator, "await asyncio.sleep(NEVER)")),
        (lambda: asyncio.sleep(NEVER), "in sleep: return await future"),
        (asyncio.Event().wait, "in wait: await fut"),
    ],
)
async def test_where_a_task_waits_is_the_innermost_line_of_the_user(function: Any, expected: str) -> None:
    task = asyncio.ensure_future(function())
    await asyncio.sleep(0)
    assert where_it_waits(task).endswith(expected)
    task.cancel()
    await asyncio.wait([task])
    assert where_it_waits(task) == "at an unknown place"


async def test_where_a_task_waits_may_have_no_source() -> None:
    task = asyncio.ensure_future((await without_source())())
    await asyncio.sleep(0)
    assert where_it_waits(task) == "at <string>:3 in made"
    task.cancel()
    await asyncio.wait([task])


async def test_what_is_installed_is_shown_if_there_is_nothing_else() -> None:
    starlette = WebSocket({"type": "websocket"}, asyncio.Event().wait, asyncio.Event().wait)  # type: ignore[arg-type]
    task = asyncio.ensure_future(starlette.receive())
    await asyncio.sleep(0)
    assert "starlette" in where_it_waits(task)
    task.cancel()
    await asyncio.wait([task])
