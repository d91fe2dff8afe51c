"""What an app and a client see over a WebSocket: in process the same as on uvicorn, except for a table."""

import asyncio
import zlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Self

import pytest
from aiohttp import (
    ClientSession,
    ClientWebSocketResponse,
    ClientWSTimeout,
    WSMsgType,
    WSServerHandshakeError,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import WebSocketError
from multidict import CIMultiDict

from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.differences import CODES, Expected, check_that_each_row_was_looked_up
from tests.support.raw import raw_connection
from tests.support.servers import WEBSOCKET_WAYS, App, Part, Serve, waits

CONNECT: Final = {"type": "websocket.connect"}
ACCEPT: Final = {"type": "websocket.accept"}
CLOSE: Final = {"type": "websocket.close"}
CONTINUATION, TEXT, BINARY, CLOSING, PING = 0x0, 0x1, 0x2, 0x8, 0x9
MIB: Final = 1024 * 1024
REASONS: Final = ("", "bye", "tschüß ☕", "x" * 123, "☕" * 41)  # a close frame has space for 123 bytes
UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""A request for a WebSocket, for a client that reads the body of the answer. `ws_connect()` does not read it."""


def disconnect(code: int, reason: str | None = "") -> Message:
    message: Message = {"type": "websocket.disconnect", "code": code}
    return message if reason is None else {**message, "reason": reason}


@pytest.fixture(params=WEBSOCKET_WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def open_to(receive: Receive, send: Send, **fields: Any) -> None:
    assert await receive() == CONNECT
    await send({**ACCEPT, **fields})


async def until_disconnect(receive: Receive) -> Message:
    while (message := await receive())["type"] != "websocket.disconnect":
        pass
    return message


async def listen(scope: Scope, receive: Receive, send: Send) -> None:
    await open_to(receive, send)
    await until_disconnect(receive)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await open_to(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A client's frame, with a mask of zeros."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 2**16:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([opcode | (0x80 if fin else 0)]) + length + bytes(4) + payload


def transport_of(ws: ClientWebSocketResponse) -> asyncio.Transport:
    return ws._writer.transport


class Tap:
    """Takes the bytes that arrive before aiohttp's client sees them."""

    def __init__(self, protocol: ResponseHandler) -> None:
        self._data = bytearray()
        self._arrived = asyncio.Event()
        self._ended = asyncio.Event()
        protocol.set_parser(self, None)

    @classmethod
    def of(cls, ws: ClientWebSocketResponse) -> Self:
        connection = ws._response.connection
        assert connection is not None
        assert connection.protocol is not None
        return cls(connection.protocol)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._data += data
        self._arrived.set()
        return False, b""

    def feed_eof(self) -> None:
        self._ended.set()
        self._arrived.set()

    async def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            assert not self._ended.is_set(), f"nothing follows {self._data!r}"
            self._arrived.clear()
            await self._arrived.wait()
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    async def whole(self) -> bytes:
        """All bytes that arrive before the connection ends."""
        await self._ended.wait()
        return bytes(self._data)

    async def next_frame(self) -> tuple[int, bytes]:
        """The first byte and the payload of the next frame. A server's frame has no mask."""
        first_byte, size = await self._take(2)
        if size > 125:
            size = int.from_bytes(await self._take(2 if size == 126 else 8), "big")
        return first_byte, await self._take(size)


def head_of(ws: ClientWebSocketResponse) -> Any:
    """The headers of the response that accepts the WebSocket."""
    return ws._response.headers


def raises(exc: type[Exception] | None) -> AbstractContextManager[object]:
    return nullcontext() if exc is None else pytest.raises(exc)


async def refusal(session: ClientSession, path: str = "/") -> WSServerHandshakeError:
    with pytest.raises(WSServerHandshakeError) as caught:
        await session.ws_connect(path)
    return caught.value


# The scope.


async def test_the_scope_says_what_was_asked(serve: Serve, expected: Expected) -> None:
    scopes: list[Scope] = []

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await listen(scope, receive, send)

    app = App(room)
    headers = CIMultiDict([("X-Who", "ann"), ("X-Who", "bob"), ("Cookie", "a=1; b=2")])
    async with serve(app) as session:
        base = session._base_url
        assert base is not None
        async with session.ws_connect("/caf%C3%A9/a%2Fb?x=%20y&x=z", headers=headers, origin="http://elsewhere"):
            pass
        await app.end()
    (scope,) = scopes
    assert set(scope) == {
        "type", "asgi", "http_version", "scheme", "server", "client", "root_path", "path", "raw_path", "query_string",
        "headers", "subprotocols", "state", "extensions",
    }  # fmt: skip
    assert scope["type"] == "websocket"
    assert scope["asgi"] == expected({"version": "3.0", "spec_version": "2.4"}, "version")
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == "ws"
    assert tuple(scope["server"]) == (base.host, base.port)
    assert [type(part) for part in scope["client"]] == [str, int]
    assert scope["client"][0] == "127.0.0.1"
    assert scope["root_path"] == ""
    assert scope["path"] == "/café/a/b"
    assert scope["raw_path"] == b"/caf%C3%A9/a%2Fb"
    assert scope["query_string"] == b"x=%20y&x=z"
    assert scope["subprotocols"] == []
    assert scope["state"] == {}
    assert scope["extensions"] == {"websocket.http.response": {}}
    sent = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    assert all(name == name.lower() for name, _ in sent)
    assert [value for name, value in sent if name == b"x-who"] == [b"ann", b"bob"]
    assert {name: value for name, value in sent if name not in (b"x-who", b"sec-websocket-key", b"user-agent")} == {
        b"host": (f"{base.host}" if base.is_default_port() else f"{base.host}:{base.port}").encode(),
        b"cookie": b"a=1; b=2",
        b"origin": b"http://elsewhere",
        b"upgrade": b"websocket",
        b"connection": b"Upgrade",
        b"sec-websocket-version": b"13",
        b"accept": b"*/*",
        b"accept-encoding": dict(sent)[b"accept-encoding"],
    }


async def test_the_root_path_and_the_path(serve: Serve, expected: Expected) -> None:
    scopes: list[Scope] = []

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await listen(scope, receive, send)

    async with serve(App(room), root_path="/api") as session, session.ws_connect("/room"):
        pass
    (scope,) = scopes
    assert scope["root_path"] == "/api"
    assert (scope["path"], scope["raw_path"]) == expected(("/room", b"/room"))


@pytest.mark.parametrize(
    ("lines", "offered"),
    [
        ([], []),
        (["chat"], ["chat"]),
        (["chat,superchat"], ["chat", "superchat"]),
        (["chat , superchat", "v2.chat"], ["chat", "superchat", "v2.chat"]),
    ],
)
async def test_subprotocols_are_those_of_all_the_header_lines(
    serve: Serve, expected: Expected, lines: list[str], offered: list[str]
) -> None:
    scopes: list[Scope] = []

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await open_to(receive, send, subprotocol=offered[-1] if offered else None)
        await until_disconnect(receive)

    headers = [("Sec-WebSocket-Protocol", line) for line in lines]
    async with serve(App(room)) as session, session.ws_connect("/", headers=headers) as ws:
        assert head_of(ws).getall("Sec-WebSocket-Protocol", []) == offered[-1:]
    assert scopes[0]["subprotocols"] == expected(offered, f"{len(lines)} lines")


async def test_the_client_gets_the_subprotocol_that_the_app_takes(serve: Serve) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send, subprotocol=scope["subprotocols"][1])
        await until_disconnect(receive)

    async with serve(App(room)) as session, session.ws_connect("/", protocols=("one", "two", "three")) as ws:
        assert ws.protocol == "two"


async def test_the_headers_of_the_accept_reach_the_client(serve: Serve) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-room", b"one"), (b"set-cookie", b"seat=7"), (b"x-room", b"two")]
        await open_to(receive, send, subprotocol=None, headers=headers)
        await until_disconnect(receive)

    async with serve(App(room)) as session, session.ws_connect("/") as ws:
        assert head_of(ws).getall("X-Room") == ["one", "two"]
        assert ws._response.cookies["seat"].value == "7"
        assert "Sec-WebSocket-Protocol" not in head_of(ws)
        assert ws.protocol is None


async def test_the_state_of_the_lifespan_is_in_the_scope_as_a_copy_for_each(serve: Serve) -> None:
    pool = object()
    states: list[dict[str, object]] = []

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["pool"] = pool
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        states.append(dict(scope["state"]))
        scope["state"]["mine"] = len(states)
        await listen(scope, receive, send)

    async with serve(service, lifespan="on") as session, session.ws_connect("/"), session.ws_connect("/"):
        pass
    assert states == [{"pool": pool}, {"pool": pool}]


async def test_in_process_alone_the_scheme_may_be_wss() -> None:
    """There it takes no certificate."""
    scopes: list[Scope] = []

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    async with session_to(room) as session, session.ws_connect("wss://app.internal/room") as ws:
        await ws.send_str("safe")
        assert await ws.receive_str() == "safe"
    assert (scopes[0]["scheme"], scopes[0]["server"]) == ("wss", ("app.internal", 443))


# Messages.

MESSAGES: Final[list[str | bytes]] = [
    "",
    "hello",
    "grüß dich, 世界 🌍",
    "\0",
    b"",
    b"\x00\xff\xfe",
    "x" * 125,
    b"y" * 126,
    "ü" * 40_000,
]


@pytest.mark.parametrize("compress", [0, 15])
async def test_messages_of_both_kinds_arrive_as_they_were_sent(serve: Serve, expected: Expected, compress: int) -> None:
    app = App(echo)
    async with serve(app) as session, session.ws_connect("/", compress=compress) as ws:
        for message in MESSAGES:
            if isinstance(message, str):
                await ws.send_str(message)
                assert await ws.receive_str() == message
            else:
                await ws.send_bytes(message)
                assert await ws.receive_bytes() == message
        await ws.close()
        told = await app.end()
    received = [
        {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message} for message in MESSAGES
    ]
    assert told == [CONNECT, *received, expected(disconnect(1000))]


async def test_the_keys_of_a_received_message(serve: Serve, expected: Expected) -> None:
    keys: list[set[str]] = []

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        keys.extend([set(await receive()) for _ in range(2)])

    async with serve(room) as session, session.ws_connect("/") as ws:
        await ws.send_str("text")
        await ws.send_bytes(b"bytes")
        await ws.receive()
    assert keys == expected([{"type", "text"}, {"type", "bytes"}])


async def test_a_message_of_the_app_is_bytes_if_it_has_any_and_else_text(serve: Serve) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        await send({"type": "websocket.send", "text": "words", "bytes": None})
        await send({"type": "websocket.send", "text": None, "bytes": b"bytes"})
        await send({"type": "websocket.send", "text": "words", "bytes": b"bytes"})
        await until_disconnect(receive)

    async with serve(App(room)) as session, session.ws_connect("/") as ws:
        assert await ws.receive_str() == "words"
        assert await ws.receive_bytes() == b"bytes"
        assert await ws.receive_bytes() == b"bytes"


@pytest.mark.parametrize("offer", [0, 9, 15])
async def test_permessage_deflate_is_taken_if_it_is_offered(serve: Serve, expected: Expected, offer: int) -> None:
    big = "compressible " * 20_000  # aiohttp compresses in a thread from 16 KiB
    async with serve(App(echo)) as session, session.ws_connect("/", compress=offer, max_msg_size=0) as ws:
        assert ws.compress == expected(15 if offer else 0, f"{offer}")  # the window of the client's messages
        assert ("Sec-WebSocket-Extensions" in head_of(ws)) == bool(ws.compress)
        for message in ("short", big, "", big, "short"):
            await ws.send_str(message)
            await ws.send_bytes(message.encode())
            assert await ws.receive_str() == message
            assert await ws.receive_bytes() == message.encode()


@pytest.mark.parametrize("parameter", ["", "; server_no_context_takeover"])
async def test_a_compressed_message_refers_to_the_ones_before_unless_the_client_asks_that_it_does_not(
    serve: Serve, parameter: str
) -> None:
    """With context takeover, the second of two equal messages takes almost no bytes."""
    text = "".join(f"{n * n} " for n in range(2000))
    headers = {"Sec-WebSocket-Extensions": f"permessage-deflate{parameter}"}
    async with serve(App(echo)) as session, session.ws_connect("/", headers=headers) as ws:
        taken = head_of(ws)["Sec-WebSocket-Extensions"]
        assert taken.startswith("permessage-deflate")
        assert ("server_no_context_takeover" in taken) == bool(parameter)
        tap = Tap.of(ws)
        sizes: list[int] = []
        inflater = zlib.decompressobj(-15)
        for _ in range(2):
            await ws.send_str(text)
            first_byte, payload = await tap.next_frame()
            assert first_byte == 0b1100_0001  # text, the last frame of its message, and compressed
            sizes.append(len(payload))
            assert inflater.decompress(payload + b"\0\0\xff\xff").decode() == text
            if parameter:
                inflater = zlib.decompressobj(-15)
        transport_of(ws).abort()  # close() would wait for the bytes that the tap has taken
    assert sizes[1] == sizes[0] if parameter else sizes[1] < sizes[0] / 5


PIECES: Final = ["grü".encode()[:3], "grü".encode()[3:], b"", b"\xf0\x9f", b"\x8c\x8d!"]


@pytest.mark.parametrize("byte_by_byte", [False, True])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_message_in_fragments_arrives_whole_with_a_ping_between_them(
    serve: Serve, opcode: int, byte_by_byte: bool
) -> None:
    """The fragments split characters in two."""
    app = App(echo)
    frames = [
        frame(opcode if n == 0 else CONTINUATION, piece, fin=n == len(PIECES) - 1) for n, piece in enumerate(PIECES)
    ]
    frames.insert(2, frame(PING, b"are you there?"))
    async with serve(app) as session, session.ws_connect("/", autoping=False) as ws:
        transport = transport_of(ws)
        written = b"".join(frames)
        for n in range(len(written)) if byte_by_byte else ():
            transport.write(written[n : n + 1])
            await asyncio.sleep(0)  # so that each may arrive separately
        if not byte_by_byte:
            transport.write(written)
        assert await ws.receive() == (WSMsgType.PONG, b"are you there?", "")
        whole = b"".join(PIECES)
        message = await ws.receive()
        assert message.data == (whole.decode() if opcode == TEXT else whole)
        await ws.close()
        told = await app.end()
    assert len(told) == 3


async def test_ten_thousand_messages_arrive_in_order_each_way(serve: Serve) -> None:
    count = 10_000
    received: list[str] = []

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        received.extend([(await receive())["text"] for _ in range(count)])
        for n in range(count):
            await send({"type": "websocket.send", "text": f"{n}"})
        await until_disconnect(receive)

    async with serve(App(room)) as session, session.ws_connect("/") as ws:
        for n in range(count):
            await ws.send_str(f"{n}")
        assert [await ws.receive_str() for _ in range(count)] == [f"{n}" for n in range(count)]
    assert received == [f"{n}" for n in range(count)]


async def test_a_message_of_16_mib_arrives_each_way(serve: Serve) -> None:
    big = bytes(range(256)) * (16 * MIB // 256)
    async with serve(App(echo)) as session, session.ws_connect("/", max_msg_size=0) as ws:
        await ws.send_bytes(big)
        assert await ws.receive_bytes() == big


async def test_several_sockets_of_one_session_are_apart(serve: Serve) -> None:
    members: list[Send] = []

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        members.append(send)
        while (message := await receive())["type"] == "websocket.receive":
            for member in members:
                await member({"type": "websocket.send", "text": f"{scope['path']}: {message['text']}"})

    async with serve(App(room)) as session, session.ws_connect("/ann") as ann, session.ws_connect("/bob") as bob:
        await ann.send_str("hello")
        assert [await ws.receive_str() for ws in (ann, bob)] == ["/ann: hello"] * 2
        await bob.send_str("hi")
        assert [await ws.receive_str() for ws in (ann, bob)] == ["/bob: hi"] * 2
        members.clear()


async def test_the_session_serves_plain_requests_before_and_after(serve: Serve) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serve(service) as session:
        for _ in range(2):
            assert await (await session.get("/")).read() == b"ok"
            async with session.ws_connect("/") as ws:
                await ws.send_str("hello")
                assert await ws.receive_str() == "hello"


# Ping, pong, and what a client may ask for.


async def test_a_ping_is_answered_while_the_app_does_not_receive(serve: Serve) -> None:
    done = asyncio.Event()

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        await done.wait()
        await until_disconnect(receive)

    async with serve(App(room)) as session, session.ws_connect("/", autoping=False) as ws:
        for payload in (b"", b"one", b"x" * 125):
            await ws.ping(payload)
            assert await ws.receive() == (WSMsgType.PONG, payload, "")
        done.set()


async def test_a_pong_that_nobody_asked_for_is_ignored(serve: Serve, expected: Expected) -> None:
    app = App(echo)
    async with serve(app) as session, session.ws_connect("/") as ws:
        await ws.pong(b"unasked")
        await ws.send_str("hello")
        assert await ws.receive_str() == "hello"
        await ws.close()
        assert await app.end() == [CONNECT, {"type": "websocket.receive", "text": "hello"}, expected(disconnect(1000))]


async def test_every_heartbeat_is_answered(serve: Serve) -> None:
    app = App(echo)
    async with serve(app) as session, session.ws_connect("/", heartbeat=0.2, autoping=False) as ws:
        for _ in range(3):
            assert await ws.receive() == (WSMsgType.PONG, b"", "")
        await ws.send_str("alive")
        while (message := await ws.receive()).type is WSMsgType.PONG:
            pass
        assert message.data == "alive"
        await ws.close()
        assert len(await app.end()) == 3  # the app does not see it


async def test_without_autoclose_the_client_answers_a_close_when_it_wants(serve: Serve, expected: Expected) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        await send({**CLOSE, "code": 3000, "reason": "enough"})
        await until_disconnect(receive)

    app = App(room)
    async with serve(app) as session, session.ws_connect("/", autoclose=False) as ws:
        assert await ws.receive() == (WSMsgType.CLOSE, 3000, "enough")
        assert (ws.closed, ws.close_code) == (False, 3000)
        assert await ws.close(code=3000)
        assert (ws.closed, ws.close_code) == (True, 3000)
        assert await app.end() == [CONNECT, expected(disconnect(3000, "enough"))]


async def test_a_message_over_the_clients_own_limit_closes_with_1009(serve: Serve, expected: Expected) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        await send({"type": "websocket.send", "bytes": b"x" * 100})
        await send({"type": "websocket.send", "bytes": b"x" * 1001})
        await until_disconnect(receive)

    app = App(room)
    async with serve(app) as session, session.ws_connect("/", max_msg_size=1000) as ws:
        assert len(await ws.receive_bytes()) == 100
        message = await ws.receive()
        assert message.type is WSMsgType.ERROR
        assert isinstance(message.data, WebSocketError)
        assert (message.data.code, ws.close_code, ws.closed) == (1009, 1009, True)
        assert await app.end() == [CONNECT, expected(disconnect(1009))]


async def test_a_receive_that_times_out_leaves_the_websocket_open(serve: Serve, expected: Expected) -> None:
    app = App(echo)
    timeout = ClientWSTimeout(ws_receive=0.02)
    async with serve(app) as session, session.ws_connect("/", timeout=timeout) as ws:
        with pytest.raises(TimeoutError):
            await ws.receive()
        await ws.send_str("still here")
        assert await ws.receive_str(timeout=10) == "still here"
        await ws.close()
        assert await app.end() == [
            CONNECT,
            {"type": "websocket.receive", "text": "still here"},
            expected(disconnect(1000)),
        ]


# The end, from the client's side.


@pytest.mark.parametrize("code", CODES)
async def test_the_app_is_told_the_code_and_the_reason_with_which_the_client_closes(
    serve: Serve, expected: Expected, code: int
) -> None:
    app = App(listen)
    async with serve(app) as session:
        for reason in REASONS:
            async with session.ws_connect("/") as ws:
                assert await ws.close(code=code, message=reason.encode())
                assert ws.close_code == code
            assert await app.end() == [CONNECT, expected(disconnect(code, reason))]


async def test_a_close_without_a_code_is_1005(serve: Serve, expected: Expected) -> None:
    app = App(listen)
    async with serve(app) as session, session.ws_connect("/") as ws:
        transport_of(ws).write(frame(CLOSING, b""))
        assert await ws.receive() == (WSMsgType.CLOSE, 0, "")
        assert await app.end() == [CONNECT, expected(disconnect(1005))]


async def test_a_client_that_vanishes_is_1006(serve: Serve, expected: Expected) -> None:
    app = App(listen)
    async with serve(app) as session, session.ws_connect("/") as ws:
        transport_of(ws).abort()
        assert await app.end() == [CONNECT, expected(disconnect(1006))]


async def test_a_client_that_ends_the_connection_without_a_close_frame_is_1006(
    serve: Serve, expected: Expected
) -> None:
    app = App(listen)
    async with serve(app) as session, session.ws_connect("/") as ws:
        await ws.send_str("last words")
        transport_of(ws).close()
        last_words = {"type": "websocket.receive", "text": "last words"}
        assert await app.end() == [CONNECT, last_words, expected(disconnect(1006))]


async def test_a_client_that_leaves_before_the_accept_is_1006(serve: Serve, expected: Expected) -> None:
    connected = asyncio.Event()

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        connected.set()
        await until_disconnect(receive)
        with raises(expected(OSError, "accept")):
            await send(ACCEPT)

    app = App(room)
    async with serve(app) as session:
        connecting = asyncio.ensure_future(session.ws_connect("/"))
        await connected.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert await app.end() == [CONNECT, expected(disconnect(1006))]


async def test_a_session_that_closes_with_an_open_socket_disconnects_it(serve: Serve, expected: Expected) -> None:
    app = App(listen)
    async with serve(app) as session, session.ws_connect("/") as ws:
        for n in range(3):
            await ws.send_str(f"{n}")
        await session.close()
        told = await app.end()
        assert told[1:4] == [{"type": "websocket.receive", "text": f"{n}"} for n in range(3)]
        assert told[4:] == [expected(disconnect(1006))]


async def test_messages_sent_before_a_close_are_received_before_the_disconnect(
    serve: Serve, expected: Expected
) -> None:
    sent = asyncio.Event()

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        await sent.wait()
        await until_disconnect(receive)

    app = App(room)
    async with serve(app) as session, session.ws_connect("/") as ws:
        for n in range(20):
            await ws.send_str(f"{n}")
        closing = asyncio.ensure_future(ws.close(code=4999, message=b"done"))
        sent.set()
        messages = [{"type": "websocket.receive", "text": f"{n}"} for n in range(20)]
        assert await app.end() == [CONNECT, *messages, expected(disconnect(4999, "done"))]
        await closing


async def test_after_the_disconnect_each_further_receive_is_told_of_it(serve: Serve, expected: Expected) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await listen(scope, receive, send)
        assert await waits(receive()) == expected(False, "waits")

    app = App(room)
    async with serve(app) as session, session.ws_connect("/") as ws:
        await ws.close(code=3000, message=b"bye")
        connect, first, *further = await app.end()
        assert (connect, first) == (CONNECT, expected(disconnect(3000, "bye"), "first"))
        assert further == expected([disconnect(3000, "bye")], "further")


@pytest.mark.parametrize(
    "message", [{"type": "websocket.send", "text": "late"}, {"type": "websocket.send", "bytes": b""}, CLOSE]
)
@pytest.mark.parametrize("leave", ["close", "abort"])
async def test_sending_after_the_client_has_left_raises_an_oserror(
    serve: Serve, expected: Expected, message: Message, leave: str
) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await listen(scope, receive, send)
        await send(message)

    app = App(room)
    async with serve(app) as session, session.ws_connect("/") as ws:
        if leave == "close":
            await ws.close()
        else:
            transport_of(ws).abort()
        with raises(expected(OSError)):
            await app.end()


@pytest.mark.parametrize("leave", ["close", "abort", "session"])
async def test_an_app_that_is_in_send_when_the_client_leaves_gets_an_oserror(
    serve: Serve, expected: Expected, leave: str
) -> None:
    must_give_way = expected(False, "must give way")
    error = expected(OSError, "error")
    left = asyncio.Event()

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        while error is not None or not left.is_set():
            await send({"type": "websocket.send", "bytes": bytes(MIB)})
            if must_give_way:
                await asyncio.sleep(0)

    app = App(flood)
    async with serve(app) as session, session.ws_connect("/") as ws:
        assert len(await ws.receive_bytes()) == MIB
        if leave == "close":
            await ws.close()
        elif leave == "abort":
            transport_of(ws).abort()
        else:
            await session.close()
        left.set()
        with raises(error):
            await app.end()


# The end, from the app's side.


@pytest.mark.parametrize("code", CODES)
async def test_the_client_gets_the_code_and_the_reason_with_which_the_app_closes(
    serve: Serve, expected: Expected, code: int
) -> None:
    reasons = iter(REASONS)

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        await send({**CLOSE, "code": code, "reason": next(reasons)})
        await until_disconnect(receive)

    app = App(room)
    async with serve(app) as session:
        for reason in REASONS:
            async with session.ws_connect("/") as ws:
                assert await ws.receive() == (WSMsgType.CLOSE, code, reason)
                assert (ws.closed, ws.close_code) == (True, code)
                assert (await ws.receive()).type is WSMsgType.CLOSED
            assert await app.end() == [CONNECT, expected(disconnect(code, reason), str(code))]


@pytest.mark.parametrize("fields", [{}, {"code": 1000, "reason": None}, {"reason": ""}])
async def test_a_close_of_the_app_that_says_nothing_is_1000(serve: Serve, fields: Message) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        await send({**CLOSE, **fields})

    async with serve(App(room)) as session, session.ws_connect("/") as ws:
        assert await ws.receive() == (WSMsgType.CLOSE, 1000, "")


async def test_messages_that_the_app_sent_before_its_close_are_received_first(serve: Serve) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        for n in range(20):
            await send({"type": "websocket.send", "text": f"{n}"})
        await send({**CLOSE, "code": 4000})

    async with serve(App(room)) as session, session.ws_connect("/") as ws:
        assert [await ws.receive_str() for _ in range(20)] == [f"{n}" for n in range(20)]
        assert await ws.receive() == (WSMsgType.CLOSE, 4000, "")


async def test_a_client_that_is_in_send_when_the_app_closes_is_told_of_it(serve: Serve) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        await receive()
        await send({**CLOSE, "code": 3000, "reason": "too much"})
        await until_disconnect(receive)

    app = App(room)

    async def flood(ws: ClientWebSocketResponse) -> None:
        while True:
            await ws.send_bytes(bytes(4 * MIB))

    async with serve(app) as session, session.ws_connect("/") as ws:
        flooding = asyncio.ensure_future(flood(ws))
        assert await ws.receive() == (WSMsgType.CLOSE, 3000, "too much")
        with pytest.raises(ConnectionError):  # the kind depends on whether it was waiting
            await flooding
        await app.end()


async def last_of(ws: ClientWebSocketResponse) -> tuple[WSMsgType, int | None]:
    """How the WebSocket ends for the client, after one message."""
    assert await ws.receive_str() == "before"
    message = await ws.receive()
    assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
    return message.type, ws.close_code


async def test_an_app_that_returns_without_closing_closes_with_1000(serve: Serve, expected: Expected) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        await send({"type": "websocket.send", "text": "before"})

    async with serve(App(room)) as session, session.ws_connect("/") as ws:
        assert await last_of(ws) == expected((WSMsgType.CLOSE, 1000))


async def test_an_app_that_fails_closes_with_1011(serve: Serve, expected: Expected) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        await send({"type": "websocket.send", "text": "before"})
        raise RuntimeError("a bug")

    app = App(room)
    async with serve(app) as session, session.ws_connect("/") as ws:
        assert await last_of(ws) == expected((WSMsgType.CLOSE, 1011))
        with pytest.raises(RuntimeError, match="a bug"):
            await app.end()


# Frames that no client should send.


async def test_text_that_is_not_utf8_is_refused_with_1007(serve: Serve, expected: Expected) -> None:
    app = App(listen)
    async with serve(app) as session, session.ws_connect("/") as ws:
        transport_of(ws).write(frame(TEXT, b"caf\xe9"))
        message = await ws.receive()
        assert (message.type, ws.close_code) == expected((WSMsgType.CLOSE, 1007))
        connect, last = await app.end()
        assert connect == CONNECT
        assert last["code"] == expected(1007, "app")


async def test_a_message_over_16_mib_is_refused_with_1009(serve: Serve, expected: Expected) -> None:
    app = App(listen)
    async with serve(app) as session, session.ws_connect("/") as ws:
        # In two fragments, so that little is left to read when the server refuses the message.
        transport_of(ws).write(frame(BINARY, bytes(16 * MIB), fin=False) + frame(CONTINUATION, b"x"))
        message = await ws.receive()
        assert (message.type, message.data, ws.close_code) == (WSMsgType.CLOSE, 1009, 1009)
        connect, last = await app.end()
        assert connect == CONNECT
        assert last["code"] == expected(1009)


@pytest.mark.parametrize("ended_by", ["app", "refusal"])
async def test_what_is_on_its_way_to_an_ended_websocket_is_not_delivered_after_the_session(ended_by: str) -> None:
    """No app receives it. Only in process: the check for leaks does not see sockets."""

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await open_to(receive, send)
        if ended_by == "app":
            await send(CLOSE)
        else:
            await until_disconnect(receive)

    app = App(room)
    async with session_to(app) as session, session.ws_connect("/") as ws:
        transport_of(ws).write(frame(TEXT, b"\xff" if ended_by == "refusal" else b"") + frame(BINARY, bytes(15 * MIB)))
        message = await ws.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1000 if ended_by == "app" else 1007)
        await app.end()


# Messages that no app should send.

FIRST: Final = "Expected ASGI message 'websocket.accept', 'websocket.close', or 'websocket.http.response.start'"
SENTENCES: Final[dict[str, tuple[list[Message], str]]] = {
    "a second accept": (
        [ACCEPT, ACCEPT],
        "Expected ASGI message 'websocket.send' or 'websocket.close', but got 'websocket.accept'.",
    ),
    "an unknown type once accepted": (
        [ACCEPT, {"type": "websocket.receive", "text": "hm"}],
        "Expected ASGI message 'websocket.send' or 'websocket.close', but got 'websocket.receive'.",
    ),
    "a response once accepted": (
        [ACCEPT, {"type": "websocket.http.response.start", "status": 200, "headers": []}],
        "Expected ASGI message 'websocket.send' or 'websocket.close', but got 'websocket.http.response.start'.",
    ),
    "a message before the accept": (
        [{"type": "websocket.send", "text": "early"}],
        f"{FIRST} but got 'websocket.send'.",
    ),
    "an unknown type before the accept": (
        [{"type": "http.response.start", "status": 200, "headers": []}],
        f"{FIRST} but got 'http.response.start'.",
    ),
    "a message after the close": (
        [ACCEPT, CLOSE, {"type": "websocket.send", "text": "late"}],
        "Unexpected ASGI message 'websocket.send', after sending 'websocket.close' or response already completed.",
    ),
    "a second close": (
        [ACCEPT, CLOSE, CLOSE],
        "Unexpected ASGI message 'websocket.close', after sending 'websocket.close' or response already completed.",
    ),
    "an accept in a denial": (
        [{"type": "websocket.http.response.start", "status": 401, "headers": []}, ACCEPT],
        "Expected ASGI message 'websocket.http.response.body' but got 'websocket.accept'.",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
async def test_a_message_out_of_turn_is_an_error_that_says_what_was_expected(
    serve: Serve, expected: Expected, name: str
) -> None:
    messages, sentence = SENTENCES[name]

    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        for message in messages[:-1]:
            await send(message)
        await send(messages[-1])

    app = App(room)
    async with serve(app) as session:
        if messages[0] is ACCEPT or expected(False, f"{name}, accepts"):
            async with session.ws_connect("/") as ws:
                assert (await ws.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        else:
            denied = messages[0]["type"] == "websocket.http.response.start"
            assert (await refusal(session)).status == (401 if denied else 500)
        error: Exception | None = None
        try:
            await app.end()
        except Exception as exc:
            error = exc
    assert type(error).__name__ == expected("ASGIProtocolError", f"{name}, type")
    assert str(error) == expected(sentence, name)


async def test_an_app_that_catches_the_error_goes_on(serve: Serve, expected: Expected) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        with pytest.raises(Exception, match=expected("Expected ASGI message", "words")):
            await send({"type": "websocket.send", "text": "early"})
        await send(ACCEPT)
        with pytest.raises(Exception, match=expected("Expected ASGI message", "words")):
            await send(ACCEPT)
        await send({"type": "websocket.send", "text": "in time"})
        await until_disconnect(receive)

    app = App(room)
    async with serve(app) as session, session.ws_connect("/") as ws:
        assert await ws.receive_str() == "in time"
        await ws.close()
        assert await app.end() == [CONNECT, expected(disconnect(1000))]


# Apps that do not accept.


async def test_a_close_before_the_accept_is_403(serve: Serve, expected: Expected) -> None:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await send({**CLOSE, "code": 4000, "reason": "no"})
        await receive()

    app = App(room)
    async with serve(app) as session:
        assert (await refusal(session)).status == 403
        assert await app.end() == [CONNECT, expected(disconnect(1006))]


DENIAL: Final = {
    "type": "websocket.http.response.start",
    "status": 401,
    "headers": [(b"www-authenticate", b"Bearer"), (b"x-why", b"one"), (b"x-why", b"two")],
}


async def deny(scope: Scope, receive: Receive, send: Send) -> None:
    assert await receive() == CONNECT
    await send(DENIAL)
    await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"are you?"})
    await receive()


async def test_a_denial_has_its_own_status_headers_and_body(serve: Serve, expected: Expected) -> None:
    app = App(deny)
    async with serve(app) as session:
        async with session.get("/", headers=UPGRADE) as response:
            assert response.status == 401
            assert response.headers.getall("X-Why") == ["one", "two"]
            assert await response.read() == b"who are you?"
        if expected(False, "waits for the client to leave"):
            assert await waits(app.end())
            await session.close()
        assert await app.end() == [CONNECT, expected(disconnect(1006))]


async def test_the_client_of_a_websocket_gets_the_status_and_the_headers_of_a_denial(
    serve: Serve, expected: Expected
) -> None:
    app = App(deny)
    async with serve(app) as session:
        refused = await refusal(session)
        assert refused.status == 401
        assert refused.headers is not None
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        if expected(False, "waits for the client to leave"):
            assert await waits(app.end())
            await session.close()
        await app.end()


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a bug")


async def say_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


async def test_an_app_that_fails_before_it_has_accepted_is_500(serve: Serve) -> None:
    app = App(fail)
    async with serve(app) as session:
        assert (await refusal(session)).status == 500
        with pytest.raises(RuntimeError, match="a bug"):
            await app.end()


@pytest.mark.parametrize("part", [fail, say_nothing])
async def test_all_that_such_a_client_is_sent_is_one_response(serve: Serve, expected: Expected, part: Part) -> None:
    async with serve(part) as session, raw_connection(session, str(session._base_url)) as connection:
        tap = Tap(connection._protocol)
        lines = ["GET / HTTP/1.1", "Host: app.internal", *(f"{name}: {value}" for name, value in UPGRADE.items())]
        await connection.send("\r\n".join([*lines, "", ""]).encode())
        head, _, rest = (await tap.whole()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 500 ")
        assert rest.partition(b"\r\n")[0] == expected(b"Internal Server Error", part.__name__)


def test_every_row_of_the_table_about_websockets_was_looked_up(request: pytest.FixtureRequest) -> None:
    check_that_each_row_was_looked_up(request)
