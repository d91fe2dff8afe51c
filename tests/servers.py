"""One app, several ways to serve it: a test that holds for all of them says that in process is as on a real server."""

import asyncio
import socket
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Literal

import aiohttp
import uvicorn

from asgi_connector import ASGIRoutingConnector, Mount
from asgi_connector._types import ASGIApp

Lifespan = Literal["auto", "on", "off"]

IN_PROCESS: Final = "in process"
UVICORN_WEBSOCKETS: Final = "uvicorn websockets"
UVICORN_WSPROTO: Final = "uvicorn wsproto"

WAYS: Final = (IN_PROCESS, UVICORN_WEBSOCKETS, UVICORN_WSPROTO)
"""The names of the ways to serve an app."""

_PATIENCE: Final = 2.0  # seconds for apps to end when their clients have gone: as the connector's shutdown_timeout


@asynccontextmanager
async def serving(
    way: str, app: ASGIApp, *, lifespan: Lifespan = "off", root_path: str = ""
) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve *app* in one of the `WAYS`, for the block; gives a session whose base URL is the app's.

    What the app raises is logged by every one of them, and the client never sees it.
    """
    if way == IN_PROCESS:
        mount = Mount(app, lifespan=lifespan, root_path=root_path, raise_app_exceptions=False)
        connector = ASGIRoutingConnector({"app.internal": mount})
        async with connector, aiohttp.ClientSession("http://app.internal", connector=connector) as session:
            yield session
        return
    with _deprecated_websockets():
        config = _uvicorn_config(way, app, lifespan, root_path)
        async with _uvicorn(config) as url, aiohttp.ClientSession(url) as session:
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
        ws=way.removeprefix("uvicorn "),
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
        await server.startup([listener])
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
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_PATIENCE)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
    while server.server_state.connections:  # noqa: ASYNC110 (nothing tells, but they are closing)
        await asyncio.sleep(0)
