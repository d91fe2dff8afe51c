"""One app, several ways to serve it: a test that holds for all of them says that in process is as on a real server."""

import asyncio
import logging
import socket
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Final, Literal

import aiohttp
import hypercorn
import uvicorn
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.run import worker_serve
from hypercorn.config import Sockets

from asgi_connector import ASGIRoutingConnector, LifespanError, Mount
from asgi_connector._types import ASGIApp, Message, Receive, Scope, Send
from tests.support.waiting import run_turns, until

Lifespan = Literal["auto", "on", "off"]
Part = Callable[[Scope, Receive, Send], Awaitable[object]]
Serve = Callable[..., AbstractAsyncContextManager[aiohttp.ClientSession]]

IN_PROCESS: Final = "in process"
UVICORN: Final = "uvicorn"
UVICORN_WEBSOCKETS: Final = "uvicorn websockets"
UVICORN_WSPROTO: Final = "uvicorn wsproto"
HYPERCORN: Final = "hypercorn"

HTTP_WAYS: Final = (IN_PROCESS, UVICORN, HYPERCORN)
WEBSOCKET_WAYS: Final = (IN_PROCESS, UVICORN_WEBSOCKETS, UVICORN_WSPROTO, HYPERCORN)

_PATIENCE: Final = 2.0  # seconds for apps to end when their clients have gone: as the connector's shutdown_timeout


class DidNotStartError(Exception):
    """The app is not served, since its startup failed; the cause is what the server raised, if it raises."""


class App:
    """An app that plays a part, and tells the test of each of its runs what it was told and how it ended."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._ends: asyncio.Queue[tuple[list[Message], BaseException | None]] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> object:
        told: list[Message] = []

        async def note() -> Message:
            message = await receive()
            told.append({key: value for key, value in message.items() if value is not None})  # None is as if not there
            return message

        try:
            result = await self._part(scope, note, send)
        except BaseException as exc:
            self._ends.put_nowait((told, exc))
            raise
        self._ends.put_nowait((told, None))
        return result

    async def end(self) -> list[Message]:
        """What the next run that ends was told; raises what the run raised."""
        told, exc = await self._ends.get()
        if exc is not None:
            raise exc
        return told


async def waits(awaitable: Awaitable[object]) -> bool:
    """Whether it has no result after a hundred turns of the event loop; then it is cancelled."""
    task = asyncio.ensure_future(awaitable)
    await run_turns(100)
    waiting = not task.done()
    if waiting:
        task.cancel()
        await asyncio.wait([task])
    else:
        await task
    return waiting


@asynccontextmanager
async def serving(
    way: str, app: ASGIApp, *, lifespan: Lifespan = "off", root_path: str = ""
) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve *app* in one of the ways, for the block; gives a session whose base URL is the app's.

    What the app raises is logged by every one of them, and the client never sees it.
    """
    if way == IN_PROCESS:
        mount = Mount(app, lifespan=lifespan, root_path=root_path, raise_app_exceptions=False)
        async with _in_process(mount) as session:
            yield session
    elif way == HYPERCORN:
        async with _hypercorn(app, lifespan, root_path) as url, aiohttp.ClientSession(url) as session:
            yield session
    else:
        with _deprecated_websockets():
            config = _uvicorn_config(way, app, lifespan, root_path)
            async with _uvicorn(config) as url, aiohttp.ClientSession(url) as session:
                yield session


@asynccontextmanager
async def _in_process(mount: Mount) -> AsyncIterator[aiohttp.ClientSession]:
    connector = ASGIRoutingConnector({"app.internal": mount})
    try:
        await connector.__aenter__()
    except LifespanError as exc:
        raise DidNotStartError from exc
    async with connector, aiohttp.ClientSession("http://app.internal", connector=connector) as session:
        yield session


@contextmanager
def _deprecated_websockets() -> Iterator[None]:
    """uvicorn's implementation on top of websockets' older half is deprecated, but until it is gone apps run on it.

    Both say so when they are imported, and websockets again of each connection, for how uvicorn uses it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"websockets\.legacy is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", r"The `websockets` implementation is deprecated", UserWarning)
        warnings.filterwarnings("ignore", r"remove second argument of ws_handler", DeprecationWarning)
        yield


def _uvicorn_config(way: str, app: ASGIApp, lifespan: Lifespan, root_path: str) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none" if way == UVICORN else way.removeprefix("uvicorn "),
        ws_ping_interval=None,
        lifespan=lifespan,
        root_path=root_path,
        log_config=None,
        access_log=False,
    )
    config.load()
    return config


@asynccontextmanager
async def _uvicorn(config: uvicorn.Config) -> AsyncIterator[str]:
    """Run a server in the loop that runs; gives its URL.

    `Server.serve()` would install signal handlers, and both its main loop and its shutdown sleep for 0.1 s: this does
    in the same order what they do, and waits for what is to be waited for.
    """
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        try:
            await server.startup([listener])
        except SystemExit as exc:
            raise DidNotStartError from exc
        await server.on_tick(0)
        others = asyncio.all_tasks()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            for each in server.servers:
                each.close()
            for connection in list(server.server_state.connections):
                connection.shutdown()
            await _end(server, asyncio.all_tasks() - others)
            for each in server.servers:
                await each.wait_closed()
            await server.lifespan.shutdown()


async def _end(server: uvicorn.Server, tasks: set[asyncio.Task[Any]]) -> None:
    """Wait for the apps, whose clients have gone, and for the tasks that websockets has without uvicorn's knowledge."""
    await _gone(tasks)
    await until(lambda: not server.server_state.connections)


async def _gone(tasks: set[asyncio.Task[Any]]) -> None:
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_PATIENCE)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


@asynccontextmanager
async def _hypercorn(app: ASGIApp, lifespan: Lifespan, root_path: str) -> AsyncIterator[str]:
    """Run a server in the loop that runs; gives its URL."""
    config = hypercorn.Config()
    config.errorlog = logging.getLogger("hypercorn.error")  # it would write to stderr by itself
    config.root_path = root_path
    started = asyncio.get_running_loop().create_future()
    stopped = asyncio.Event()

    async def until_stopped() -> None:  # it is called once the server has been started
        started.set_result(None)
        await stopped.wait()

    others = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        worker = asyncio.ensure_future(
            worker_serve(
                ASGIWrapper(app if lifespan != "off" else _without_lifespan(app)),
                config,
                sockets=Sockets([], [listener], []),
                shutdown_trigger=until_stopped,
            )
        )
        await asyncio.wait([worker, started], return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            raise DidNotStartError from worker.exception()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            stopped.set()
            await _gone(asyncio.all_tasks() - others)
    if not worker.cancelled():
        worker.result()


def _without_lifespan(app: ASGIApp) -> ASGIApp:
    """hypercorn asks each app for a lifespan; one that raises has none."""

    async def without(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await app(scope, receive, send)

    return without
