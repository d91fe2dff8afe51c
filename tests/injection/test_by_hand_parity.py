"""Partitions, lost messages, crashes and restarts compared with the same on a real network.

Every test runs over both: in memory, and over sockets of the loopback interface, with a relay in front of a real
server. The relay falls silent, resets its connections, or stops to listen.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import ClientSession, ClientTimeout

from asgi_connector import ASGIRoutingConnector, Mount
from asgi_connector._types import Message, Receive, Scope, Send
from tests.support.servers import HYPERCORN, IN_PROCESS, UVICORN_WEBSOCKETS, App, serving, waits
from tests.support.waiting import settle, soon, until

if sys.platform == "linux":
    from tests.support.relay import LOCALHOST, Relay
else:
    pytest.skip("the relay asks Linux what is on its way", allow_module_level=True)

REAL: Final = "real network"
WAYS: Final = (IN_PROCESS, REAL)
HOST: Final = "app.internal"
SHORT: Final = ClientTimeout(sock_read=0.15)  # what it waits for never comes


class Answer(App):
    """Reads the request and answers ``hello``; on ``/wait``, when `go` is set. A WebSocket echoes."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.calls = 0
        self.waiting = asyncio.Event()
        self.go = asyncio.Event()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        if scope["type"] == "websocket":
            await self._echo(receive, send)
            return
        more = True
        while more:
            if (message := await receive())["type"] == "http.disconnect":
                return
            more = message["more_body"]
        if scope["path"] == "/wait":
            self.waiting.set()
            await self.go.wait()
        with suppress(OSError):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
            await send({"type": "http.response.body", "body": b"hello"})
        await receive()

    async def _echo(self, receive: Receive, send: Send) -> None:
        await receive()
        with suppress(OSError):
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})


class Network:
    """A client of one app over a network that falls silent, and whose server crashes."""

    session: ClientSession
    fall_silent: Callable[[], None]
    go_on: Callable[[], None]
    crash: Callable[[], Awaitable[None]]


@asynccontextmanager
async def network(way: str, app: App) -> AsyncIterator[Network]:
    net = Network()
    if way == IN_PROCESS:
        connector = ASGIRoutingConnector({HOST: Mount(app, lifespan="off")})
        async with AsyncExitStack() as crashes, ClientSession(f"http://{HOST}", connector=connector) as net.session:
            with ExitStack() as blocks:

                def fall_silent() -> None:
                    blocks.enter_context(connector.partition({None}, {HOST}, allow_unused=True))

                async def crash() -> None:
                    await crashes.enter_async_context(connector.crashed(HOST))

                net.fall_silent, net.go_on, net.crash = fall_silent, blocks.close, crash
                yield net
        return
    async with serving(HYPERCORN, app) as direct:
        port = direct._base_url.port if direct._base_url is not None else None
        assert port is not None
        relay = Relay(port, None)
        net.fall_silent, net.go_on, net.crash = relay.fall_silent, relay.go_on, relay.crash
        async with (
            relay.listening() as port,
            ClientSession(f"http://{LOCALHOST}:{port}", connector=relay.connector()) as net.session,
        ):
            yield net


def kind_of(exc: BaseException) -> tuple[type[BaseException], type[BaseException] | None]:
    return type(exc), None if exc.__cause__ is None else type(exc.__cause__)


async def outcome_of(net: Network, method: str = "POST", path: str = "/", **settings: Any) -> object:
    try:
        async with net.session.request(method, path, **settings) as response:
            return await response.read()
    except (aiohttp.ClientError, OSError) as exc:
        return kind_of(exc)


SILENT: Final = (aiohttp.SocketTimeoutError, None)
RESET: Final = (aiohttp.ClientOSError, ConnectionResetError)
REFUSED: Final = (aiohttp.ClientConnectorError, ConnectionRefusedError)
GONE: Final[Message] = {"type": "http.disconnect"}


@pytest.mark.parametrize("way", WAYS)
async def test_a_request_on_an_idle_connection_is_lost_to_its_client_and_arrives_when_the_network_heals(
    way: str,
) -> None:
    app = Answer()
    async with network(way, app) as net:
        assert await outcome_of(net) == b"hello"
        await app.end()
        net.fall_silent()
        assert await outcome_of(net, data=b"pay", timeout=SHORT) == SILENT
        assert app.calls == 1
        net.go_on()
        told = await soon(app.end())
        assert b"".join(message.get("body", b"") for message in told) == b"pay"
        assert told[-1] == GONE
        assert app.calls == 2
        assert await outcome_of(net) == b"hello"


@pytest.mark.parametrize("way", WAYS)
async def test_a_response_that_the_silence_holds_up_arrives_late(way: str) -> None:
    app = Answer()
    async with network(way, app) as net:
        asking = asyncio.ensure_future(outcome_of(net, path="/wait"))
        await app.waiting.wait()
        net.fall_silent()
        app.go.set()
        assert await waits(asyncio.shield(asking))
        net.go_on()
        assert await soon(asking) == b"hello"


@pytest.mark.parametrize("way", WAYS)
async def test_an_app_learns_after_the_silence_that_its_client_has_left(way: str) -> None:
    app = Answer()
    app.go.set()
    async with network(way, app) as net, net.session.ws_connect("/") as websocket:
        await websocket.send_str("hello")
        assert await websocket.receive_str() == "hello"
        net.fall_silent()
        ended = asyncio.ensure_future(app.end())
        leaving = asyncio.ensure_future(_leave(websocket))
        assert await waits(asyncio.shield(ended))
        net.go_on()
        assert (await soon(ended))[-1]["type"] == "websocket.disconnect"
        await leaving


async def _leave(websocket: aiohttp.ClientWebSocketResponse) -> None:
    await websocket.close()


@pytest.mark.parametrize("way", WAYS)
async def test_messages_of_a_websocket_arrive_late_and_in_order(way: str) -> None:
    async with network(way, Answer()) as net, net.session.ws_connect("/") as websocket:
        net.fall_silent()
        for text in ("one", "two"):
            await websocket.send_str(text)
        receiving = asyncio.ensure_future(websocket.receive_str())
        assert await waits(asyncio.shield(receiving))
        net.go_on()
        assert await soon(receiving) == "one"
        assert await websocket.receive_str() == "two"


@pytest.mark.parametrize("way", WAYS)
async def test_a_response_that_is_lost_leaves_its_client_waiting_and_its_app_untold(way: str) -> None:
    app = Answer()
    async with network(way, app) as net:
        asking = asyncio.ensure_future(outcome_of(net, path="/wait", timeout=SHORT))
        await app.waiting.wait()
        if way == IN_PROCESS:
            connector = net.session.connector
            assert isinstance(connector, ASGIRoutingConnector)
            app.go.set()
            assert await soon(asking) == b"hello"
            with connector.hold(HOST) as held:
                asking = asyncio.ensure_future(outcome_of(net, path="/wait", timeout=SHORT))
                [message] = await held.wait()
                message.drop()
                assert await soon(asking) == SILENT
            await app.end()
        else:
            net.fall_silent()
            app.go.set()
            assert await soon(asking) == SILENT
            net.go_on()
        assert GONE in await soon(app.end())


# Crashes.


@pytest.mark.parametrize("way", WAYS)
async def test_a_crash_resets_what_is_in_progress_and_refuses_what_follows(way: str) -> None:
    app = Answer()
    async with network(way, app) as net:
        posting = asyncio.ensure_future(outcome_of(net, "POST", "/wait"))
        await app.waiting.wait()
        app.waiting.clear()
        getting = asyncio.ensure_future(outcome_of(net, "GET", "/wait"))
        await app.waiting.wait()
        await net.crash()
        assert await soon(posting) == RESET
        assert await soon(getting) == REFUSED  # aiohttp tries it a second time
        assert await outcome_of(net, "POST") == REFUSED
        app.go.set()


@pytest.mark.parametrize("way", WAYS)
async def test_a_crash_takes_idle_connections_with_it(way: str) -> None:
    async with network(way, Answer()) as net:
        assert await outcome_of(net) == b"hello"
        await net.crash()
        await settle()
        assert await outcome_of(net) == REFUSED


@pytest.mark.parametrize("way", WAYS)
async def test_a_crash_ends_a_websocket_without_a_close_frame(way: str) -> None:
    async with network(way, Answer()) as net, net.session.ws_connect("/") as websocket:
        await net.crash()
        assert (await soon(websocket.receive())).type is aiohttp.WSMsgType.CLOSED
        assert websocket.close_code == 1006


# Restarts.


class Lived:
    """An app that notes in which order its requests, its WebSocket and its lifespan end."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.waiting = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.events.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            self.events.append((await receive())["code"])
        else:
            self.waiting.set()
            await self.go.wait()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
            await send({"type": "http.response.body", "body": b"hello"})
            self.events.append("request")


async def restart(way: str, app: Lived) -> tuple[list[object], object, object]:
    """Restart the app while it answers a request and has a WebSocket open. A server is only shut down.

    The tasks of the client are older than the server, which waits for all that are younger.
    """
    connected: asyncio.Future[ClientSession] = asyncio.get_running_loop().create_future()
    opened = asyncio.Event()
    over = False

    async def chat() -> tuple[object, object]:
        session = await connected
        async with session.ws_connect("/") as websocket:
            opened.set()
            message = await websocket.receive()
            await until(lambda: app.events)
            assert not over
            app.go.set()
            return message.type, message.data

    async def ask() -> bytes:
        session = await connected
        async with session.post("/") as response:
            return await response.read()

    clients = [asyncio.ensure_future(chat()), asyncio.ensure_future(ask())]
    async with AsyncExitStack() as stack, AsyncExitStack() as server:
        if way == IN_PROCESS:
            connector = ASGIRoutingConnector({HOST: app})
            connected.set_result(await stack.enter_async_context(ClientSession(f"http://{HOST}", connector=connector)))
        else:
            direct = await server.enter_async_context(serving(way, app, lifespan="on"))
            # A session of its own, because that of the server is closed before the server ends.
            connected.set_result(await stack.enter_async_context(ClientSession(direct._base_url)))
        await soon(opened.wait())
        await soon(app.waiting.wait())
        await soon(connector.restart(HOST) if way == IN_PROCESS else server.aclose())
        over = True
        events = list(app.events)
        return events, await soon(clients[0]), await soon(clients[1])


async def test_a_restart_is_in_the_order_of_a_real_server() -> None:
    in_memory = await restart(IN_PROCESS, Lived())
    assert in_memory == await restart(UVICORN_WEBSOCKETS, Lived())
    assert in_memory == ([1012, "request", "shutdown"], (aiohttp.WSMsgType.CLOSE, 1012), b"hello")
