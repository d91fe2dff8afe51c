"""Existing WebSocket clients and servers. Each works as it would over the network."""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import parse_qs

import django.conf
import pytest
import quart
import socketio
import strawberry
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError
from blacksheep import Application as BlackSheep
from blacksheep import WebSocket as BlackSheepWebSocket
from blacksheep import WebSocketDisconnectError
from blacksheep.server.routing import Router
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path
from fastapi import Depends, FastAPI, WebSocketException
from gql import Client, gql
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.aiohttp_websockets import AIOHTTPWebsocketsTransport
from gql.transport.exceptions import TransportQueryError
from litestar import Litestar, websocket, websocket_listener
from litestar.connection import WebSocket as LitestarWebSocket
from litestar.exceptions import WebSocketDisconnect as LitestarWebSocketDisconnect
from quart import Quart
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from strawberry.asgi import GraphQL

from tests.conftest import session_to

Log = list[Any]

# Socket.IO: python-socketio's client, by long polls and WebSockets, and its server.

ALL = bytes(range(256))
POLLING, WEBSOCKET = ("http", "polling"), ("websocket", "websocket")
TRANSPORTS: dict[str, tuple[list[str] | None, set[tuple[str, str]]]] = {
    "polling, then upgraded": (None, {POLLING, WEBSOCKET}),
    "polling": (["polling"], {POLLING}),
    "websocket": (["websocket"], {WEBSOCKET}),
}
every_transport = pytest.mark.parametrize("transports", [case[0] for case in TRANSPORTS.values()], ids=TRANSPORTS)


def socketio_server(**settings: Any) -> Any:
    return socketio.AsyncServer(async_mode="asgi", **settings)


# A client that polls and disconnects waits for the end of its last poll. The first part of the interval sets this
# time, for both sides, in seconds. The second part is a grace period, which only the client gets.
SHORT_POLLS: dict[str, Any] = {"ping_interval": (0.5, 5), "ping_timeout": 0.5}


@asynccontextmanager
async def session_with(server: Any, log: Log, **settings: Any) -> AsyncIterator[ClientSession]:
    """A session to the Socket.IO server at ``sio.internal``. It logs what is sent over which transport."""
    app = socketio.ASGIApp(server, on_shutdown=server.shutdown)

    async def logged(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        transport = parse_qs(scope.get("query_string", b"").decode()).get("transport", [""])[0]

        async def logged_receive() -> Any:
            message = await receive()
            log.append(((scope["type"], transport), message.get("text") or message.get("body")))
            return message

        await app(scope, logged_receive, send)

    try:
        async with session_to({"sio.internal": logged}, **{"lifespan": "on", **settings}) as session:
            yield session
    finally:
        # The server lets the next ping of an ended connection sleep on, and has no call that stops it.
        pings = [task for task in asyncio.all_tasks() if "AsyncSocket._send_ping" in repr(task.get_coro())]
        for ping in pings:
            ping.cancel()
        await asyncio.gather(*pings, return_exceptions=True)


@asynccontextmanager
async def connected(session: ClientSession, client: Any = None, **options: Any) -> AsyncIterator[Any]:
    """A connected Socket.IO client. It disconnects at the end, if the server has not disconnected it."""
    client = client or socketio_client(session)
    await client.connect("http://sio.internal", **options)
    yield client
    await client.disconnect()


def socketio_client(session: ClientSession) -> Any:
    return socketio.AsyncClient(http_session=session, handle_sigint=False, reconnection=False)


@pytest.mark.parametrize(("transports", "used"), TRANSPORTS.values(), ids=TRANSPORTS)
async def test_socketio_sends_events_both_ways_with_acks_and_binary_data(
    transports: list[str] | None, used: set[tuple[str, str]]
) -> None:
    server, log, sids = socketio_server(**SHORT_POLLS), Log(), dict[str, str]()

    async def connect(sid: str, environ: Any, auth: Any) -> None:
        sids[auth["name"]] = sid

    async def add(sid: str, left: int, right: int) -> tuple[int, str]:
        return left + right, sid

    async def reverse(sid: str, data: dict[str, bytes]) -> dict[str, bytes]:
        return {name: blob[::-1] for name, blob in data.items()}

    server.on("connect", connect)
    server.on("add", add)
    server.on("reverse", reverse)

    async with session_with(server, log) as session:
        client = socketio_client(session)

        async def answer(question: bytes) -> bytes:
            return question + b"!"

        client.on("question", answer)
        async with connected(session, client, transports=transports, auth={"name": "Ada"}):
            assert client.transport() == ("polling" if transports == ["polling"] else "websocket")
            assert client.eio.current_transport == client.transport()
            assert await client.call("add", (1, 2)) == (3, sids["Ada"])
            assert await client.call("reverse", {"all": ALL, "big": b"ab" * 200_000}) == {
                "all": ALL[::-1],
                "big": b"ba" * 200_000,
            }
            assert await server.call("question", ALL, to=sids["Ada"]) == ALL + b"!"
            replies = await asyncio.gather(*(client.call("add", (number, 0)) for number in range(10)))
            assert [reply[0] for reply in replies] == list(range(10))
        assert not session.closed
    assert {transport for transport, _ in log if transport[0] != "lifespan"} == used


async def test_socketio_broadcasts_to_a_room_of_clients_that_share_a_session() -> None:
    server, heard = socketio_server(), asyncio.Queue[tuple[str, str]]()

    async def join(sid: str, room: str) -> None:
        await server.enter_room(sid, room)

    async def say(sid: str, room: str, text: str) -> None:
        await server.emit("said", text, room=room, skip_sid=sid)

    server.on("join", join)
    server.on("say", say)

    def listener(session: ClientSession, name: str) -> Any:
        client = socketio_client(session)
        client.on("said", lambda text: heard.put_nowait((name, text)))
        return client

    async with (
        session_with(server, []) as session,
        connected(session, listener(session, "Ada")) as ada,
        connected(session, listener(session, "Grace"), transports=["websocket"]) as grace,
        connected(session, listener(session, "Alan")) as alan,
    ):
        for client, room in [(ada, "compilers"), (grace, "compilers"), (alan, "machines")]:
            await client.call("join", room)
        await ada.call("say", ("compilers", "hello"))
        assert await heard.get() == ("Grace", "hello")
        await grace.call("say", ("compilers", "hello Ada"))
        assert await heard.get() == ("Ada", "hello Ada")
        await server.emit("said", "goodbye")
        assert {await heard.get() for _ in range(3)} == {(name, "goodbye") for name in ["Ada", "Grace", "Alan"]}
        assert heard.empty()


async def test_socketio_keeps_namespaces_on_one_websocket_apart() -> None:
    server, log = socketio_server(), Log()

    async def whoami(sid: str) -> str:
        return "nobody"

    async def whoami_of_admins(sid: str) -> str:
        return "admin"

    async def connect_admin(sid: str, environ: Any, auth: Any) -> None:
        if auth != {"password": "secret"}:
            raise socketio.exceptions.ConnectionRefusedError("wrong password")

    server.on("whoami", whoami)
    server.on("whoami", whoami_of_admins, namespace="/admin")
    server.on("connect", connect_admin, namespace="/admin")
    async with session_with(server, log) as session:
        options = {"transports": ["websocket"], "namespaces": ["/", "/admin"]}
        async with connected(session, auth={"password": "secret"}, **options) as client:
            assert await client.call("whoami") == "nobody"
            assert await client.call("whoami", namespace="/admin") == "admin"
            assert client.get_sid("/") != client.get_sid("/admin")
        with pytest.raises(socketio.exceptions.ConnectionError, match="One or more namespaces failed"):
            await socketio_client(session).connect("http://sio.internal", auth={"password": "?"}, **options)
    assert [message for _, message in log].count('40/admin,{"password":"secret"}') == 1


@every_transport
@pytest.mark.parametrize("who", ["client", "server"])
async def test_socketio_tells_both_sides_who_has_disconnected(transports: list[str] | None, who: str) -> None:
    server, ends = socketio_server(**SHORT_POLLS), asyncio.Queue[tuple[str, str, str]]()
    server.on("disconnect", lambda sid, reason: ends.put_nowait(("server", sid, reason)))
    async with session_with(server, []) as session:
        client = socketio_client(session)
        await client.connect("http://sio.internal", transports=transports)
        sid: str = client.get_sid()
        client.on("disconnect", lambda reason: ends.put_nowait(("client", sid, reason)))
        told = f"{who} disconnect"
        if who == "client" and client.transport() == "websocket" and sys.version_info < (3, 12):
            # The client closes its WebSocket before its own task, slower there, has written the last message to it.
            told = "transport close"
        if who == "client":
            await client.disconnect()
        else:
            await server.disconnect(sid)
        assert {await ends.get(), await ends.get()} == {
            ("client", sid, f"{who} disconnect"),
            ("server", sid, told),
        }
        await client.eio.wait()
        assert not client.connected
        assert ends.empty()


@pytest.mark.parametrize(
    ("transport", "shutdown_timeout", "reason"),
    # A long poll does not check whether its client is still connected, so it is cancelled.
    [("websocket", 2, "transport close"), ("polling", 0, "transport error")],
)
async def test_socketio_that_loses_its_session_is_told_on_both_sides(
    transport: str, shutdown_timeout: float, reason: str
) -> None:
    server, ends = socketio_server(monitor_clients=False), asyncio.Queue[tuple[str, str]]()
    server.on("disconnect", lambda sid, reason: ends.put_nowait(("server", reason)))
    async with session_with(server, [], lifespan="off", shutdown_timeout=shutdown_timeout) as session:
        client = socketio_client(session)
        client.on("disconnect", lambda reason: ends.put_nowait(("client", reason)))
        await client.connect("http://sio.internal", transports=[transport])
        await session.close()
        await client.eio.wait()
        assert {await ends.get(), await ends.get()} == {("client", "transport error"), ("server", reason)}
        if transport == "websocket":
            # aiohttp's client has released the connection. Otherwise it would warn when it is collected.
            assert client.eio.ws.closed
            assert client.eio.ws._response.connection is None


@pytest.mark.parametrize(("transport", "pong"), [("polling", b"3"), ("websocket", "3")])
async def test_socketio_answers_the_pings_of_its_server(transport: str, pong: str | bytes) -> None:
    server, answered = socketio_server(ping_interval=(0.01, 5), ping_timeout=1), asyncio.Event()

    class Pongs(Log):
        def append(self, entry: Any) -> None:
            super().append(entry)
            if [message for _, message in self].count(pong) == 3:
                answered.set()

    log = Pongs()
    server.on("echo", lambda sid, data: data)
    async with session_with(server, log) as session, connected(session, transports=[transport]) as client:
        await answered.wait()
        assert await client.call("echo", "still here") == "still here"


# GraphQL: gql's clients and Strawberry's server.

TRANSPORT_WS, LEGACY_WS = "graphql-transport-ws", "graphql-ws"
every_subprotocol = pytest.mark.parametrize("subprotocol", [TRANSPORT_WS, LEGACY_WS])


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str) -> str:
        return f"hello {name}"

    @strawberry.field
    def failing(self) -> str:
        raise ValueError("no such luck")


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def rename(self, name: str) -> str:
        return name.upper()


class Cleanup:
    """Signals when the generator behind a subscription has been closed."""

    def __init__(self) -> None:
        self.done = asyncio.Event()


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number

    @strawberry.subscription
    async def failing(self) -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("no such luck")

    @strawberry.subscription
    async def endless(self, info: strawberry.Info[Any, None]) -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
            await asyncio.Event().wait()
        finally:
            info.context["cleanup"].done.set()

    @strawberry.subscription
    async def secret(self, info: strawberry.Info[Any, None]) -> AsyncGenerator[str, None]:
        yield info.context["connection_params"]["token"]


class GraphQLApp(GraphQL[Any, None]):
    def __init__(self) -> None:
        super().__init__(strawberry.Schema(Query, mutation=Mutation, subscription=Subscription))
        self.cleanup = Cleanup()

    async def get_context(self, request: Any, response: Any) -> Any:
        return {"request": request, "response": response, "cleanup": self.cleanup}


@asynccontextmanager
async def gql_client(
    app: GraphQLApp, subprotocols: list[str], **settings: Any
) -> AsyncIterator[tuple[Any, AIOHTTPWebsocketsTransport]]:
    """gql's session over a WebSocket to *app*, and its transport."""
    async with session_to(app) as session:
        transport = AIOHTTPWebsocketsTransport(
            "ws://app.internal/graphql", session=session, subprotocols=subprotocols, **settings
        )
        async with Client(transport=transport) as client:
            yield client, transport
        assert not session.closed


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([TRANSPORT_WS], TRANSPORT_WS),
        ([LEGACY_WS], LEGACY_WS),
        ([TRANSPORT_WS, LEGACY_WS], TRANSPORT_WS),
        ([LEGACY_WS, TRANSPORT_WS], LEGACY_WS),
        (["unheard-of", TRANSPORT_WS], TRANSPORT_WS),
    ],
)
async def test_a_graphql_subscription_comes_to_its_end(offered: list[str], chosen: str) -> None:
    async with gql_client(GraphQLApp(), offered) as (client, transport):
        assert transport.subprotocol == chosen
        numbers = [result["count"] async for result in client.subscribe(gql("subscription { count(to: 100) }"))]
        assert numbers == list(range(100))


@every_subprotocol
async def test_graphql_subscriptions_share_a_websocket(subprotocol: str) -> None:
    async with gql_client(GraphQLApp(), [subprotocol]) as (client, _):

        async def count(to: int) -> list[int]:
            query = gql(f"subscription {{ count(to: {to}) }}")
            return [result["count"] async for result in client.subscribe(query)]

        few, many, none = await asyncio.gather(count(3), count(30), count(0))
        assert (few, many, none) == ([0, 1, 2], list(range(30)), [])


@every_subprotocol
async def test_a_graphql_subscription_that_is_left_early_cleans_up(subprotocol: str) -> None:
    app = GraphQLApp()
    async with gql_client(app, [subprotocol]) as (client, _):
        results = client.subscribe(gql("subscription { endless }"))
        assert await anext(results) == {"endless": 1}
        assert await anext(results) == {"endless": 2}
        assert not app.cleanup.done.is_set()
        await results.aclose()
        await app.cleanup.done.wait()
        # The WebSocket stays open.
        assert [result async for result in client.subscribe(gql("subscription { count(to: 1) }"))] == [{"count": 0}]


@every_subprotocol
async def test_a_graphql_subscription_whose_websocket_is_lost_cleans_up(subprotocol: str) -> None:
    app = GraphQLApp()
    async with session_to(app) as session:
        ws = await session.ws_connect("/graphql", protocols=[subprotocol])
        await ws.send_json({"type": "connection_init"})
        assert (await ws.receive_json())["type"] == "connection_ack"
        start = "subscribe" if subprotocol == TRANSPORT_WS else "start"
        await ws.send_json({"type": start, "id": "1", "payload": {"query": "subscription { endless }"}})
        assert (await ws.receive_json())["payload"]["data"] == {"endless": 1}
        assert (await ws.receive_json())["payload"]["data"] == {"endless": 2}
        await session.close()
        await app.cleanup.done.wait()
        await ws.close()


async def test_graphql_queries_and_mutations_go_over_a_websocket() -> None:
    async with gql_client(GraphQLApp(), [TRANSPORT_WS]) as (client, _):
        hello, rename = gql('query { hello(name: "Ada") }'), gql('mutation { rename(name: "Ada") }')
        assert await client.execute(hello) == {"hello": "hello Ada"}
        assert await client.execute(rename) == {"rename": "ADA"}
        renamed, greeted = await asyncio.gather(client.execute(rename), client.execute(hello))
        assert (renamed, greeted) == ({"rename": "ADA"}, {"hello": "hello Ada"})


@every_subprotocol
async def test_an_error_in_a_graphql_subscription_arrives_as_graphql_has_it(subprotocol: str) -> None:
    async with gql_client(GraphQLApp(), [subprotocol]) as (client, _):
        results = client.subscribe(gql("subscription { failing }"))
        assert await anext(results) == {"failing": 1}
        with pytest.raises(TransportQueryError, match="no such luck"):
            await anext(results)
        assert [result async for result in client.subscribe(gql("subscription { count(to: 1) }"))] == [{"count": 0}]


async def test_an_error_in_a_graphql_query_over_a_websocket_leaves_it_open() -> None:
    async with gql_client(GraphQLApp(), [TRANSPORT_WS]) as (client, _):
        with pytest.raises(TransportQueryError, match="no such luck"):
            await client.execute(gql("query { failing }"))
        assert await client.execute(gql('query { hello(name: "Ada") }')) == {"hello": "hello Ada"}


@every_subprotocol
async def test_graphql_reads_the_payload_that_opens_a_connection(subprotocol: str) -> None:
    async with gql_client(GraphQLApp(), [subprotocol], init_payload={"token": "s3cret"}) as (client, _):
        results = [result async for result in client.subscribe(gql("subscription { secret }"))]
        assert results == [{"secret": "s3cret"}]


async def test_gql_shares_a_connector_between_http_and_a_websocket() -> None:
    async with session_to(GraphQLApp()) as session:
        websocket = AIOHTTPWebsocketsTransport("ws://app.internal/", session=session, subprotocols=[TRANSPORT_WS])
        http = AIOHTTPTransport("http://app.internal/", client_session_args={"connector": session.connector})
        query = gql('query { hello(name: "Ada") }')
        async with Client(transport=websocket) as over_websocket:
            assert await over_websocket.execute(query) == {"hello": "hello Ada"}
            # gql closes the connector at the end, after it has searched its pool for connections with TLS.
            async with Client(transport=http) as over_http:
                assert await over_http.execute(query) == {"hello": "hello Ada"}
                with pytest.raises(TransportQueryError, match="no such luck"):
                    await over_http.execute(gql("query { failing }"))
        assert session.closed


# Starlette and FastAPI.


async def test_starlette_iterates_over_texts_until_the_client_closes() -> None:
    texts, ended = Log(), asyncio.Event()

    async def shout(ws: WebSocket) -> None:
        await ws.accept()
        async for text in ws.iter_text():
            texts.append(text)
            await ws.send_text(text.upper())
        ended.set()

    async with session_to(Starlette(routes=[WebSocketRoute("/", shout)])) as session:
        async with session.ws_connect("/") as ws:
            for text in ["grüezi", "", "x" * 100_000]:
                await ws.send_str(text)
                assert await ws.receive_str() == text.upper()
        await ended.wait()
    assert texts == ["grüezi", "", "x" * 100_000]


async def test_a_starlette_endpoint_is_called_for_each_event() -> None:
    log, ended = Log(), asyncio.Event()

    class Endpoint(WebSocketEndpoint):
        encoding = "json"

        async def on_connect(self, websocket: WebSocket) -> None:
            log.append("connect")
            await websocket.accept()

        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            log.append(data)
            await websocket.send_json({"got": data}, mode="binary")

        async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
            log.append(close_code)
            ended.set()

    async with session_to(Starlette(routes=[WebSocketRoute("/", Endpoint)])) as session:
        async with session.ws_connect("/") as ws:
            await ws.send_json([1, 2])
            await ws.send_bytes(b'{"three": 3}')
            assert await ws.receive_bytes() == b'{"got":[1,2]}'
            assert await ws.receive_bytes() == b'{"got":{"three":3}}'
            await ws.close(code=3001)
        await ended.wait()
    assert log == ["connect", [1, 2], {"three": 3}, 3001]


async def test_a_starlette_endpoint_closes_on_data_of_the_wrong_kind() -> None:
    class Endpoint(WebSocketEndpoint):
        encoding = "bytes"

    async with session_to(Starlette(routes=[WebSocketRoute("/", Endpoint)])) as session:
        async with session.ws_connect("/") as ws:
            # Starlette closes the WebSocket and then raises. Only the loop's exception handler gets the exception.
            errors: asyncio.Queue[Any] = asyncio.Queue()
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.put_nowait(context))
            await ws.send_str("text")
            message = await ws.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1003)
        assert str((await errors.get())["exception"]) == "Expected bytes websocket messages, but got text"


async def test_starlette_sees_the_code_and_the_reason_of_a_close() -> None:
    seen: asyncio.Queue[WebSocketDisconnect] = asyncio.Queue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        ws = WebSocket(scope, receive, send)
        await ws.accept()
        try:
            await ws.receive_text()
        except WebSocketDisconnect as exc:
            seen.put_nowait(exc)

    async with session_to(app) as session:
        async with session.ws_connect("/") as ws:
            await ws.close(code=4001, message="auf Wiedersehen, schönen Tag".encode())
        gone = await seen.get()
        assert (gone.code, gone.reason) == (4001, "auf Wiedersehen, schönen Tag")


async def test_starlette_is_told_by_its_own_exception_that_nobody_listens_any_more() -> None:
    client_has_gone = asyncio.Event()
    seen: asyncio.Queue[WebSocketDisconnect] = asyncio.Queue()

    async def flood(ws: WebSocket) -> None:
        await ws.accept()
        await client_has_gone.wait()
        try:
            while True:
                await ws.send_text("anybody there?")
        except WebSocketDisconnect as exc:
            seen.put_nowait(exc)

    async with session_to(Starlette(routes=[WebSocketRoute("/", flood)])) as session:
        ws = await session.ws_connect("/")
        closing = asyncio.create_task(ws.close())
        client_has_gone.set()
        assert (await seen.get()).code == 1006
        await closing


async def test_starlette_denies_a_websocket_with_a_response() -> None:
    async def deny(ws: WebSocket) -> None:
        await ws.receive()
        await ws.send_denial_response(JSONResponse({"error": "no"}, 401, {"www-authenticate": "Bearer"}))

    async with session_to(Starlette(routes=[WebSocketRoute("/", deny)])) as session:
        with pytest.raises(WSServerHandshakeError) as denied:
            await session.ws_connect("/")
        assert denied.value.status == 401
        assert denied.value.headers is not None
        assert denied.value.headers["www-authenticate"] == "Bearer"
        with pytest.raises(WSServerHandshakeError) as missing:
            await session.ws_connect("/nowhere")
        assert missing.value.status == 403


def fastapi_app(log: Log, ended: asyncio.Event) -> FastAPI:
    app = FastAPI()

    async def user(ws: WebSocket, token: str | None = None) -> AsyncIterator[str]:
        if token is None:
            raise WebSocketException(1008, "who are you?")
        try:
            yield f"user {token}"
        finally:
            log.append("dependency closed")
            ended.set()

    @app.websocket("/rooms/{room_id}/{name}")
    async def room(ws: WebSocket, room_id: int, name: str, user: Annotated[str, Depends(user)]) -> None:
        await ws.accept(subprotocol=ws.scope["subprotocols"][-1], headers=[(b"x-room", b"%d" % room_id)])
        await ws.send_json({"room": room_id, "name": name, "user": user})
        try:
            while True:
                await ws.send_json({"echo": await ws.receive_json()})
        except WebSocketDisconnect as exc:
            log.append((exc.code, exc.reason))

    return app


async def test_fastapi_takes_parameters_dependencies_and_a_subprotocol() -> None:
    log, ended = Log(), asyncio.Event()
    async with session_to(fastapi_app(log, ended)) as session:
        async with session.ws_connect("/rooms/7/caf%C3%A9?token=ada", protocols=["v1", "v2"]) as ws:
            assert ws.protocol == "v2"
            assert ws.get_extra_info("peername") is not None
            assert ws._response.headers["x-room"] == "7"
            assert await ws.receive_json() == {"room": 7, "name": "café", "user": "user ada"}
            await ws.send_json({"ä": [1, None]})
            assert await ws.receive_json() == {"echo": {"ä": [1, None]}}
            await ws.close(code=4000, message=b"enough")
        await ended.wait()
    assert log == [(4000, "enough"), "dependency closed"]


@pytest.mark.parametrize("url", ["/rooms/7/ada", "/rooms/seven/ada?token=ada"])
async def test_fastapi_that_refuses_a_parameter_or_a_dependency_answers_403(url: str) -> None:
    async with session_to(fastapi_app([], asyncio.Event())) as session:
        with pytest.raises(WSServerHandshakeError) as refused:
            await session.ws_connect(url, protocols=["v1"])
        assert refused.value.status == 403


async def test_fastapi_closes_with_the_code_of_its_own_exception() -> None:
    app = FastAPI()

    @app.websocket("/")
    async def judge(ws: WebSocket) -> None:
        await ws.accept()
        if await ws.receive_text() == "nonsense":
            raise WebSocketException(1008, "I do not want to hear this")

    async with session_to(app) as session, session.ws_connect("/") as ws:
        await ws.send_str("nonsense")
        message = await ws.receive()
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 1008, "I do not want to hear this")
        assert ws.close_code == 1008


# Litestar.


async def test_litestar_handles_a_websocket() -> None:
    seen: asyncio.Queue[int] = asyncio.Queue()

    @websocket("/rooms/{room:int}")
    async def handler(socket: LitestarWebSocket[Any, Any, Any]) -> None:
        room = socket.path_params["room"]
        await socket.accept(subprotocols="v1", headers={"x-room": str(room)})
        try:
            while True:
                await socket.send_json({"room": room, "got": await socket.receive_json()})
        except LitestarWebSocketDisconnect as exc:
            seen.put_nowait(exc.code)

    async with session_to(Litestar([handler], openapi_config=None, logging_config=None)) as session:
        async with session.ws_connect("/rooms/7", protocols=["v1"]) as ws:
            assert ws.protocol == "v1"
            await ws.send_json([1, 2])
            assert await ws.receive_json() == {"room": 7, "got": [1, 2]}
            await ws.close(code=3999)
        assert await seen.get() == 3999


async def test_litestar_listens_to_a_websocket() -> None:
    log, ended = Log(), asyncio.Event()

    async def hello(socket: LitestarWebSocket[Any, Any, Any]) -> None:
        log.append("hello")

    async def goodbye(socket: LitestarWebSocket[Any, Any, Any]) -> None:
        log.append("goodbye")
        ended.set()

    @websocket_listener("/shout", on_accept=hello, on_disconnect=goodbye)
    async def shout(data: str) -> str:
        return data.upper()

    @websocket_listener("/sum", receive_mode="binary", send_mode="binary")
    async def total(data: list[int]) -> dict[str, int]:
        return {"sum": sum(data)}

    async with session_to(Litestar([shout, total], openapi_config=None, logging_config=None)) as session:
        async with session.ws_connect("/shout") as ws:
            await ws.send_str("hello")
            assert await ws.receive_str() == "HELLO"
        await ended.wait()
        async with session.ws_connect("/sum") as ws:
            await ws.send_bytes(b"[1, 2, 3]")
            assert await ws.receive_bytes() == b'{"sum":6}'
    assert log == ["hello", "goodbye"]


# Quart.


async def test_quart_cancels_the_handler_of_a_websocket_whose_client_leaves() -> None:
    app, cancelled = Quart(__name__), asyncio.Event()

    @app.websocket("/rooms/<int:room>")
    async def echo(room: int) -> None:
        await quart.websocket.accept(headers={"x-room": str(room)}, subprotocol="v1")
        try:
            while True:
                await quart.websocket.send(await quart.websocket.receive())
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with session_to(app) as session:
        async with session.ws_connect("/rooms/7", protocols=["v1"]) as ws:
            assert ws.protocol == "v1"
            assert ws._response.headers["x-room"] == "7"
            await ws.send_str("text")
            assert await ws.receive_str() == "text"
            await ws.send_bytes(ALL)
            assert await ws.receive_bytes() == ALL
        await cancelled.wait()


async def test_quart_denies_a_websocket_with_a_response_and_closes_another() -> None:
    app = Quart(__name__)

    @app.websocket("/denied")
    async def denied() -> None:
        quart.abort(401)

    @app.websocket("/closed")
    async def closed() -> None:
        await quart.websocket.accept()
        await quart.websocket.close(4002, "not today")

    async with session_to(app) as session:
        with pytest.raises(WSServerHandshakeError) as caught:
            await session.ws_connect("/denied")
        assert caught.value.status == 401
        async with session.ws_connect("/closed") as ws:
            message = await ws.receive()
            assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4002, "not today")


# BlackSheep.


async def test_blacksheep_handles_a_websocket() -> None:
    app = BlackSheep(router=Router())
    seen: asyncio.Queue[int] = asyncio.Queue()

    @app.router.ws("/rooms/{room}")
    async def handler(ws: BlackSheepWebSocket, room: int) -> None:
        await ws.accept(headers=[(b"x-room", b"%d" % room)], subprotocol="v1")
        try:
            while True:
                await ws.send_json({"room": room, "got": await ws.receive_json()})
        except WebSocketDisconnectError as exc:
            seen.put_nowait(exc.code)

    async with session_to(app, lifespan="on") as session:
        async with session.ws_connect("/rooms/7", protocols=["v1"]) as ws:
            assert ws.protocol == "v1"
            assert ws._response.headers["x-room"] == "7"
            await ws.send_json([1, 2])
            assert await ws.receive_json() == {"room": 7, "got": [1, 2]}
            await ws.close(code=4003)
        assert await seen.get() == 4003
        with pytest.raises(WSServerHandshakeError):
            await session.ws_connect("/nowhere")


# Django Channels.


@pytest.fixture
def django_settings() -> Iterator[None]:
    """Django's own settings, for one test. A process can configure them only once, and other tests configure them."""
    settings = django.conf.settings
    configured = settings._wrapped
    settings._wrapped = django.conf.UserSettingsHolder(django.conf.global_settings)
    yield
    settings._wrapped = configured


@pytest.mark.usefixtures("django_settings")
async def test_a_channels_consumer_talks_json() -> None:
    seen: asyncio.Queue[int] = asyncio.Queue()

    class Consumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc] # Channels has no types
        async def connect(self) -> None:
            await self.accept(subprotocol="v1", headers=[(b"x-room", b"7")])

        async def receive_json(self, content: Any, **kwargs: Any) -> None:
            await self.send_json({"room": self.scope["url_route"]["kwargs"]["room"], "got": content})

        async def disconnect(self, code: int) -> None:
            seen.put_nowait(code)

    class Refusing(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
        async def connect(self) -> None:
            await self.close()

    routes = URLRouter([path("rooms/<int:room>", Consumer.as_asgi()), path("refused", Refusing.as_asgi())])
    async with session_to(ProtocolTypeRouter({"websocket": routes})) as session:
        async with session.ws_connect("/rooms/7", protocols=["v1"]) as ws:
            assert ws.protocol == "v1"
            await ws.send_json([1, 2])
            assert await ws.receive_json() == {"room": 7, "got": [1, 2]}
            await ws.close(code=4004)
        assert await seen.get() == 4004
        with pytest.raises(WSServerHandshakeError) as refused:
            await session.ws_connect("/refused")
        assert refused.value.status == 403
