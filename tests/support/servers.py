"""Several servers for one app: a test that passes on all shows that the connector behaves like a real server."""

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

_PATIENCE: Final = 2.0  # seconds for apps to end after the disconnect, like the connector's shutdown_timeout


class DidNotStartError(Exception):
    """The app is not served because its startup failed. The cause is the server's exception, if it raised one."""


class App:
    """An app that runs *part*, and reports the messages and the result of each run to the test."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._ends: asyncio.Queue[tuple[list[Message], BaseException | None]] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> object:
        told: list[Message] = []

        async def note() -> Message:
            message = await receive()
            told.append({key: value for key, value in message.items() if value is not None})  # None: no key
            return message

        try:
            result = await self._part(scope, note, send)
        except BaseException as exc:
            self._ends.put_nowait((told, exc))
            raise
        self._ends.put_nowait((told, None))
        return result

    async def end(self) -> list[Message]:
        """Wait for the next run to end. Return the messages that it received, or raise its exception."""
        told, exc = await self._ends.get()
        if exc is not None:
            raise exc
        return told


async def waits(awaitable: Awaitable[object]) -> bool:
    """Whether *awaitable* is not done after a hundred turns of the event loop. If so, it is cancelled."""
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
    """Serve *app* on the server *way* for the block. Yields a session whose base URL is the app's.

    Every server logs the app's exceptions. None raises them from the client's call.
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
    """Ignore deprecation warnings: uvicorn's implementation with websockets' legacy API is still in use.

    uvicorn and websockets warn when they are imported. websockets also warns for each connection.
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
    """Run a server in the running loop. Yields its URL.

    `Server.serve()` would install signal handlers, and its main loop and its shutdown sleep for 0.1 s. This function
    does the same steps in the same order, but waits for events instead of sleeping.
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
    """Wait for the apps, whose clients have disconnected, and for websockets' tasks, which uvicorn does not know."""
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
    """Run a server in the running loop. Yields its URL."""
    config = hypercorn.Config()
    config.errorlog = logging.getLogger("hypercorn.error")  # the default writes to stderr
    config.root_path = root_path
    started = asyncio.get_running_loop().create_future()
    stopped = asyncio.Event()

    async def until_stopped() -> None:  # hypercorn calls it after the server has started
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
    """Return *app* without a lifespan: hypercorn starts one for each app, and ignores it if the app raises."""

    async def without(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await app(scope, receive, send)

    return without
