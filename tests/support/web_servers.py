"""One aiohttp.web application, two ways to serve it: in process, and by aiohttp's own `web.TCPSite`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, NamedTuple, Protocol

import aiohttp
from aiohttp import web

from asgi_connector import ASGIRoutingConnector, Mount

IN_PROCESS: Final = "in process"
TCP_SITE: Final = "TCPSite"
WAYS: Final = (IN_PROCESS, TCP_SITE)


class ServeWeb(Protocol):
    """Serves an application for a block; gives a session whose base URL is the application's."""

    def __call__(self, app: web.Application, **session: Any) -> AbstractAsyncContextManager[aiohttp.ClientSession]: ...


@asynccontextmanager
async def serving_web(way: str, app: web.Application, **session: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve *app* in one of the ways. What it raises is answered as aiohttp answers it."""
    async with serving_and_closing(way, app, **session) as (client, _):
        yield client


@asynccontextmanager
async def serving_and_closing(
    way: str, app: web.Application, **session: Any
) -> AsyncIterator[tuple[aiohttp.ClientSession, Callable[[], Awaitable[None]]]]:
    """Do the same, and give what shuts the application down while its client is still there."""
    if way == IN_PROCESS:
        mount = Mount(app, raise_app_exceptions=False)
        async with (
            ASGIRoutingConnector({"app.internal": mount}) as connector,
            aiohttp.ClientSession("http://app.internal", connector=connector, **session) as client,
        ):
            yield client, connector.close
        return
    others = asyncio.all_tasks()
    runner = web.AppRunner(app, shutdown_timeout=2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{_port_of(runner)}", **session) as client:
            yield client, runner.cleanup
    finally:
        await runner.cleanup()
        # Those that wait for the rest of a body, whose client has gone, do so for 10 seconds.
        left = asyncio.all_tasks() - others
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


def _port_of(runner: web.AppRunner) -> int:
    """The port of the only site: before aiohttp 3.14 a site does not tell its own."""
    return int(runner.addresses[0][1])


class Difference(NamedTuple):
    """What is not the same in process: a row of docs/frameworks/aiohttp-web.md, and what a test sees of it."""

    behaviour: str
    here: str
    site: str
    why: str
    instead: object
    """What the test sees of a `TCPSite`."""


DIFFERENCES: Final = {
    "test_the_transport_has_no_socket": Difference(
        "`request.transport.get_extra_info()` of `socket`, and of what TLS tells (`ssl_object`, `cipher`, `peercert`)",
        "`None`",
        "the socket; over TLS, what TLS tells",
        "there is no socket",
        False,
    ),
    "test_the_address_of_the_server": Difference(
        "`sockname`, the server's own address",
        "the host and the port of the URL",
        "an IP address and a port",
        "no name is resolved",
        "127.0.0.1",
    ),
    "test_requests_that_do_not_wait": Difference(
        "requests that do not wait for the previous response (pipelining)",
        "the second one ends the connection",
        "are answered in their order",
        "aiohttp's client never does it, so bytes that arrive early are not a request",
        b"second",
    ),
    "test_the_first_write_after_the_client_has_left": Difference(
        "the first write after the client has left",
        "raises `ConnectionResetError`",
        "may go into the buffers of the socket, and a later write raises",
        "the end of the connection is known at once",
        "written",
    ),
    "test_closing_with_a_request_under_way": Difference(
        "a request that is under way when the server, here the connector, closes",
        "its client is disconnected; its handler has `shutdown_timeout` (2 seconds) to end",
        "is answered, if its handler ends within `shutdown_timeout` (60 seconds)",
        "the session closes its own connections, so no client could read the response",
        "answered",
    ),
    "test_a_websocket_that_is_open_when_on_shutdown_is_called": Difference(
        "an open WebSocket, when `on_shutdown` is called",
        "its client has been disconnected before",
        "is open, and may be closed with a code",
        "as above: clients go first",
        1001,
    ),
}
"""By the test that asserts it."""


def page_table() -> str:
    """The table of docs/frameworks/aiohttp-web.md."""
    head = ("behaviour", "asgi-connector", "`web.TCPSite`", "reason")
    lines = [head, ("---",) * len(head), *(difference[:4] for difference in DIFFERENCES.values())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(page_table(), end="")
