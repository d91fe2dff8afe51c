"""Single WebSocket frames, written by the test where aiohttp's client would not write them; and backpressure."""

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import Iterable

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_connector._asgi import frames as _frames
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import AIOHTTP, session_to
from tests.support.effort import at_most, examples
from tests.support.flow import BOUND, KIB, MIB, new_piece, until_it_stops
from tests.support.frames import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    DEFLATE,
    MASK,
    PING,
    PONG,
    TEXT,
    Collector,
    Frame,
    binary,
    close_payload,
    deflate,
    disconnect,
    frame,
    in_pieces,
    raw_socket,
    sending,
    text,
)
from tests.support.leaks import no_task_and_no_timer_is_left
from tests.support.programs import run_python
from tests.support.waiting import run_turns

MAX_MESSAGE = 16 * MIB


# Messages.


@pytest.mark.parametrize("byte_by_byte", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("deflated", [False, True], ids=["plain", "deflated"])
@pytest.mark.parametrize(
    ("opcode", "pieces", "message"),
    [
        (TEXT, [b"one"], text("one")),
        (BINARY, [b"one"], binary(b"one")),
        (TEXT, [b""], text("")),
        (BINARY, [b""], binary(b"")),
        (TEXT, [b"o", b"n", b"", b"e"], text("one")),
        (TEXT, [b"", b"one"], text("one")),
        (TEXT, ["é".encode()[:1], "é".encode()[1:]], text("é")),
        (BINARY, [b"\xff", b"", b"\x00", b""], binary(b"\xff\x00")),
        (BINARY, [bytes([value]) for value in range(256)], binary(bytes(range(256)))),
        (TEXT, [b"x" * 125, b"y" * 126, b"z" * 127], text("x" * 125 + "y" * 126 + "z" * 127)),
    ],
)
async def test_a_message_arrives_as_one_however_it_is_cut(
    opcode: int, pieces: list[bytes], message: Message, deflated: bool, byte_by_byte: bool
) -> None:
    if deflated:
        whole = deflate(b"".join(pieces))
        pieces = in_pieces(whole, range(len(pieces)))
    last = len(pieces) - 1
    frames = [
        frame(CONTINUATION if at else opcode, piece, fin=at == last, rsv=4 if deflated and not at else 0)
        for at, piece in enumerate(pieces)
    ]
    data = b"".join(frames)
    app = Collector()
    async with raw_socket(app, headers=DEFLATE) as socket:
        await socket.send(*([bytes([byte]) for byte in data] if byte_by_byte else [data]))
        await app.until_received(1)
        await socket.send(frame(CLOSE, close_payload(1000)))
        await app.ended.wait()
    assert app.received == [message, disconnect(1000)]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 65537, MIB, MAX_MESSAGE])
async def test_a_message_of_any_size_up_to_the_limit_arrives_whole_and_comes_back(size: int) -> None:
    body = os.urandom(size)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send(sending((await receive())["bytes"]))

    async with raw_socket(app) as socket:
        socket.write(frame(BINARY, body))
        echo = await socket.next()
        assert echo == Frame(BINARY, body)
        assert await socket.next() == Frame(CLOSE, close_payload(1000))


async def test_a_ping_between_the_fragments_of_a_message_is_answered_before_the_message_is_whole() -> None:
    app = Collector()
    async with raw_socket(app) as socket:
        await socket.send(frame(TEXT, b"one, ", fin=False), frame(PING, b"ping"))
        assert await socket.next() == Frame(PONG, b"ping")
        assert app.received == []
        await socket.send(frame(PONG, b"nobody asked"), frame(CONTINUATION, b"two"))
        await app.until_received(1)
        assert app.received == [text("one, two")]
        await socket.send(frame(TEXT, b"one, ", fin=False), frame(CLOSE))
        await app.ended.wait()
    assert app.received[1:] == [disconnect(1005)]


async def test_pings_are_answered_in_order_with_what_they_brought_while_the_app_does_not_receive() -> None:
    app = Collector(may_receive=False)
    payloads = [b"", b"x" * 125, *(b"%d" % number for number in range(1000))]
    async with raw_socket(app) as socket:
        socket.write(*(frame(PING, payload) for payload in payloads))
        assert [await socket.next() for _ in payloads] == [Frame(PONG, payload) for payload in payloads]
        app.may_receive.set()
    assert app.received == [] or app.received == [disconnect(1006)]
    await app.ended.wait()


async def test_pongs_that_nobody_asked_for_are_nothing() -> None:
    app = Collector()
    async with raw_socket(app) as socket:
        await socket.send(
            *(frame(PONG, b"%d" % number) for number in range(100)), frame(TEXT, b"message"), frame(CLOSE)
        )
        assert await socket.rest() == [Frame(CLOSE)]
    assert app.received == [text("message"), disconnect(1005)]


async def test_of_the_pings_that_come_while_nobody_reads_the_answers_the_last_one_is_answered() -> None:
    """Otherwise a client that sends many pings and reads nothing would fill the memory. RFC 6455, 5.5.3 allows it."""
    app = Collector()
    body = bytes(BOUND)
    filled = asyncio.Event()

    async def fill_first(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_fill(message: Message) -> None:
            await send(message)
            await send(sending(body))
            filled.set()

        await app(scope, receive, send_and_fill)

    async with raw_socket(fill_first) as socket:
        socket.transport.pause_reading()
        await filled.wait()
        waiting = socket.server.get_write_buffer_size()
        for number in range(10_000):
            socket.write(frame(PING, b"%d" % number))
        await socket.send(frame(TEXT, b"after the pings"))
        await app.until_received(1)
        assert socket.server.get_write_buffer_size() == waiting
        socket.transport.resume_reading()
        assert await socket.next() == Frame(BINARY, body)
        assert await socket.next() == Frame(PONG, b"9999")
        await socket.send(frame(PING, b"next"))
        assert await socket.next() == Frame(PONG, b"next")
        await socket.send(frame(CLOSE))
        assert await socket.rest() == [Frame(CLOSE)]


# Closing.


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", 1005, ""),
        (close_payload(1000), 1000, ""),
        (close_payload(1000, b"bye"), 1000, "bye"),
        (close_payload(1001), 1001, ""),
        (close_payload(1014), 1014, ""),
        (close_payload(3000, "ü".encode()), 3000, "ü"),
        (close_payload(4999, b"x" * 123), 4999, "x" * 123),
    ],
)
async def test_a_close_frame_is_answered_with_the_same_and_ends_the_connection(
    payload: bytes, code: int, reason: str
) -> None:
    app = Collector()
    async with raw_socket(app) as socket:
        await socket.send(frame(CLOSE, payload))
        assert await socket.rest() == [Frame(CLOSE, payload)]
        await app.ended.wait()
    assert app.received == [disconnect(code, reason)]


ZIP_BOMB = deflate(bytes(MAX_MESSAGE + 2))
HALF_OF_A_LETTER = "é".encode()[:1]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="close frame of one byte"),
        pytest.param(frame(CLOSE, close_payload(0)), 1002, id="code 0"),
        pytest.param(frame(CLOSE, close_payload(999)), 1002, id="code 999"),
        pytest.param(frame(CLOSE, close_payload(1004)), 1002, id="code 1004"),
        pytest.param(frame(CLOSE, close_payload(1005)), 1002, id="code 1005"),
        pytest.param(frame(CLOSE, close_payload(1006)), 1002, id="code 1006"),
        pytest.param(frame(CLOSE, close_payload(1015)), 1002, id="code 1015"),
        pytest.param(frame(CLOSE, close_payload(2999)), 1002, id="code 2999"),
        pytest.param(frame(CLOSE, close_payload(5000)), 1002, id="code 5000"),
        pytest.param(frame(CLOSE, close_payload(65535)), 1002, id="code 65535"),
        pytest.param(frame(CLOSE, close_payload(1000, b"\xff")), 1007, id="reason not in UTF-8"),
        pytest.param(frame(CLOSE, close_payload(1000, b"x" * 124)), 1002, id="close frame of 126 bytes"),
        pytest.param(frame(TEXT, b"x", rsv=1), 1002, id="RSV3"),
        pytest.param(frame(TEXT, b"x", rsv=2), 1002, id="RSV2"),
        pytest.param(frame(TEXT, b"x", rsv=4), 1002, id="RSV1 without an extension"),
        *(pytest.param(frame(opcode), 1002, id=f"opcode {opcode}") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        pytest.param(frame(PING, b"x", fin=False), 1002, id="fragment of a ping"),
        pytest.param(frame(PONG, b"x", fin=False), 1002, id="fragment of a pong"),
        pytest.param(frame(CLOSE, close_payload(1000), fin=False), 1002, id="fragment of a close frame"),
        pytest.param(frame(PING, bytes(126)), 1002, id="ping of 126 bytes"),
        pytest.param(frame(PONG, bytes(126)), 1002, id="pong of 126 bytes"),
        pytest.param(frame(CONTINUATION, b"x"), 1002, id="continuation of nothing"),
        pytest.param(frame(CONTINUATION, b"x", fin=False), 1002, id="unfinished continuation of nothing"),
        pytest.param(frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002, id="message within a message"),
        pytest.param(
            frame(TEXT, b"x", fin=False) + frame(BINARY, b"y", fin=False), 1002, id="fragments within fragments"
        ),
        pytest.param(frame(TEXT, b"\xff"), 1007, id="text not in UTF-8"),
        pytest.param(frame(TEXT, HALF_OF_A_LETTER), 1007, id="text that ends in a letter"),
        pytest.param(frame(TEXT, "\ud800".encode(errors="surrogatepass")), 1007, id="text with a surrogate"),
        pytest.param(frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"\xff"), 1007, id="fragment not in UTF-8"),
        pytest.param(frame(BINARY, bytes(MAX_MESSAGE + 1)), 1009, id="message over the limit"),
        pytest.param(
            frame(BINARY, bytes(MAX_MESSAGE + 1))[:14],
            1009,
            id="head of a message over the limit",
            marks=pytest.mark.skipif(AIOHTTP < (3, 14, 1), reason="aiohttp before 3.14.1 looks when it has the whole"),
        ),
        pytest.param(
            b"\x82\xff" + b"\xff" * 8 + MASK,
            1009,
            id="message of 16 EiB",
            marks=pytest.mark.skipif(AIOHTTP < (3, 14, 4), reason="aiohttp before 3.14.4 waits for it"),
        ),
        pytest.param(
            frame(BINARY, bytes(MAX_MESSAGE), fin=False) + frame(CONTINUATION, b"x"),
            1009,
            id="fragments over the limit",
        ),
    ],
)
async def test_a_violation_is_answered_with_its_code_which_is_what_the_app_is_told(wrong: bytes, code: int) -> None:
    await fails_with(code, wrong)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        pytest.param(frame(BINARY, b"\xff" * 100, rsv=4), 1002, id="not deflated"),
        pytest.param(frame(TEXT, deflate(b"\xff"), rsv=4), 1007, id="text not in UTF-8"),
        pytest.param(frame(BINARY, deflate(b"x"), rsv=6), 1002, id="RSV2"),
        pytest.param(
            frame(BINARY, deflate(b"xyz")[:2], rsv=4, fin=False) + frame(CONTINUATION, deflate(b"xyz")[2:], rsv=4),
            1002,
            id="RSV1 on a continuation",
        ),
        pytest.param(frame(BINARY, ZIP_BOMB, rsv=4), 1009, id="zip bomb"),
        pytest.param(frame(BINARY, deflate(bytes(MAX_MESSAGE + 1)), rsv=4), 1009, id="one byte over the limit"),
        pytest.param(frame(BINARY, deflate(b"x" * (64 * MIB)), rsv=4), 1009, id="64 MiB"),
    ],
)
async def test_a_violation_in_deflated_frames_is_answered_with_its_code_too(wrong: bytes, code: int) -> None:
    assert len(wrong) < MIB
    await fails_with(code, wrong, headers=DEFLATE)


async def fails_with(code: int, wrong: bytes, headers: bytes = b"") -> None:
    app = Collector()
    async with raw_socket(app, headers=headers) as socket:
        socket.write(frame(TEXT, b"before"), wrong, frame(TEXT, b"after"), frame(CLOSE))
        found = await socket.next()
        assert found is not None
        assert (found.opcode, found.payload[:2]) == (CLOSE, close_payload(code))
        reason = found.payload[2:].decode()
        assert reason
        await app.ended.wait()
        socket.write(frame(TEXT, b"later"), frame(PING))
        socket.transport.close()
        assert await socket.rest() == []
    assert app.received == [text("before"), disconnect(code, reason)]


async def test_a_deflated_message_of_the_largest_size_is_received() -> None:
    app = Collector()
    body = bytes(MAX_MESSAGE)
    async with raw_socket(app, headers=DEFLATE) as socket:
        await socket.send(frame(BINARY, deflate(body), rsv=4), frame(CLOSE))
        await app.ended.wait()
    assert app.received == [binary(body), disconnect(1005)]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "after",
    [frame(TEXT, b"too late"), frame(PING, b"too late"), frame(CLOSE, close_payload(4000)), frame(7), frame(TEXT)[:3]],
    ids=["message", "ping", "close frame", "violation", "half of a frame"],
)
async def test_what_follows_a_close_frame_is_ignored(after: bytes, together: bool) -> None:
    app = Collector()
    closing = frame(CLOSE, close_payload(3000, b"bye"))
    async with raw_socket(app) as socket:
        if together:
            socket.write(closing, after)
        else:
            socket.write(closing)
            await app.ended.wait()
            socket.write(after)
        assert await socket.rest() == [Frame(CLOSE, close_payload(3000, b"bye"))]
        await app.ended.wait()
    assert app.received == [disconnect(3000, "bye")]


async def test_a_message_that_comes_after_the_app_has_closed_is_not_received_after_the_disconnect() -> None:
    received: list[Message] = []
    told, may_go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        received.append(await receive())
        told.set()
        await may_go_on.wait()
        received.append(await receive())
        ended.set()

    async with raw_socket(app) as socket:
        assert await socket.next() == Frame(CLOSE, close_payload(4000, b"enough"))
        await told.wait()
        await socket.send(frame(TEXT, b"written before the close frame was read"))
        may_go_on.set()
        await ended.wait()
        await socket.send(frame(CLOSE, close_payload(4000, b"enough")))
        assert await socket.rest() == []
    assert received == [disconnect(4000, "enough")] * 2


@pytest.mark.parametrize(("size", "count"), [(10, 3), (KIB, 150)], ids=["few", "more than are decoded ahead"])
async def test_messages_that_had_arrived_before_the_app_closed_are_received_first(size: int, count: int) -> None:
    received: list[Message] = []
    may_close, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await may_close.wait()
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        while not received or received[-1]["type"] == "websocket.receive":
            received.append(await receive())
        ended.set()

    messages = [b"%d" % number + bytes(size) for number in range(count)]
    async with raw_socket(app) as socket:
        await socket.send(b"".join(frame(BINARY, message) for message in messages))
        may_close.set()
        await ended.wait()
        await socket.send(frame(CLOSE, close_payload(4000, b"enough")))
    assert received == [*map(binary, messages), disconnect(4000, "enough")]


@pytest.mark.parametrize("count_before", [0, 1, 20])
async def test_a_client_that_floods_an_app_that_has_closed_fills_no_memory_and_its_close_frame_is_found(
    count_before: int,
) -> None:
    may_close, closed = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await may_close.wait()
        await send({"type": "websocket.close", "code": 1000})
        closed.set()

    message = frame(BINARY, bytes(64 * KIB))
    async with raw_socket(app) as socket:
        socket.write(*[message] * count_before)
        await until_it_stops(socket.transport.get_write_buffer_size)
        may_close.set()
        await closed.wait()
        tracemalloc.start()
        try:
            for _ in range(200):
                await socket.send(message)
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert used < 2 * BOUND
        await socket.send(frame(CLOSE, close_payload(1000)))
        assert await socket.rest() == [Frame(CLOSE, close_payload(1000))]
        no_task_and_no_timer_is_left()


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("size", [0, 1, 2, 5, 6, 8])
async def test_a_connection_that_ends_within_a_frame_gives_1006(size: int, end: str) -> None:
    app = Collector()
    async with raw_socket(app) as socket:
        await socket.send(frame(TEXT, b"whole"), frame(TEXT, b"half")[:size])
        await app.until_received(1)
        getattr(socket.transport, end)()
        await app.ended.wait()
    assert app.received == [text("whole"), disconnect(1006)]


async def test_a_frame_without_a_mask_is_read_as_aiohttps_own_server_reads_it() -> None:
    """RFC 6455, 5.1, says to refuse it. Here is no proxy that a mask could protect."""
    app = Collector()
    async with raw_socket(app) as socket:
        await socket.send(frame(TEXT, b"plain", mask=b""), frame(CLOSE, mask=b""))
        assert await socket.rest() == [Frame(CLOSE)]
    assert app.received == [text("plain"), disconnect(1005)]


# The time limit for closing.


async def test_a_client_that_does_not_answer_a_close_frame_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frames, "CLOSE_TIMEOUT", 0.0)
    app = Collector()

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 4000})

    async with raw_socket(closing) as socket:
        assert await socket.rest() == [Frame(CLOSE, close_payload(4000))]
        await socket.connection.end()
        no_task_and_no_timer_is_left()
    assert app.received == []


async def test_a_client_that_does_not_even_read_a_close_frame_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frames, "CLOSE_TIMEOUT", 0.0)
    may_close = asyncio.Event()

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await may_close.wait()
        await send({"type": "websocket.close", "code": 4000})

    async with raw_socket(closing) as socket:
        socket.transport.pause_reading()
        may_close.set()
        await until_it_stops(lambda: socket.ended)
        assert socket.ended
        no_task_and_no_timer_is_left()


async def test_a_client_that_violates_the_protocol_and_stays_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frames, "CLOSE_TIMEOUT", 0.0)
    app = Collector()
    async with raw_socket(app) as socket:
        socket.write(frame(7))
        assert [found.payload[:2] for found in await socket.rest()] == [close_payload(1002)]
    assert app.received[0]["code"] == 1002


@pytest.mark.parametrize("returns", [True, False])
async def test_no_timer_is_left_when_the_client_answers_the_close_frame(returns: bool) -> None:
    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        if not returns:
            await send({"type": "websocket.close", "code": 1000})

    async with raw_socket(closing) as socket:
        assert await socket.next() == Frame(CLOSE, close_payload(1000))
        assert not socket.transport.is_closing()
        await socket.send(frame(CLOSE, close_payload(1000)))
        assert await socket.rest() == []
        no_task_and_no_timer_is_left()


# Messages that were sent before the end.


@pytest.mark.parametrize("end", ["close frame", "response", "session"])
async def test_what_the_client_sent_is_received_before_the_disconnect(end: str) -> None:
    app = Collector(may_receive=False)
    size, count = 8 * KIB, 128
    async with session_to(app) as session:
        socket = await session.ws_connect("/")
        assert isinstance(socket, ClientWebSocketResponse)
        transport = connection_of(socket)
        writes = [asyncio.create_task(socket.send_bytes(bytes([number]) * size)) for number in range(count)]
        await until_it_stops(lambda: sum(task.done() for task in writes))
        assert transport.get_write_buffer_size() > MIB // 2
        for task in writes:
            task.cancel()
        await asyncio.wait(writes)
        if end == "close frame":
            closing = asyncio.create_task(socket.close(code=3000, message=b"bye"))
            app.may_receive.set()
            await closing
            assert socket.close_code == 3000
        elif end == "response":
            socket._response.close()
        else:
            ending = asyncio.create_task(session.close())
            app.may_receive.set()
            await ending
        app.may_receive.set()
        await app.ended.wait()
    last = disconnect(3000, "bye") if end == "close frame" else disconnect(1006)
    assert app.received == [*(binary(bytes([number]) * size) for number in range(count)), last]


def connection_of(socket: ClientWebSocketResponse) -> MemoryTransport:
    assert socket._conn is not None
    assert isinstance(socket._conn.transport, MemoryTransport)
    return socket._conn.transport


# A writer that is faster than its reader.


class Flood:
    """An app that sends numbered messages until sending raises, and keeps the exception."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent = 0
        self.stopped: BaseException | None = None
        self.ended = asyncio.Event()
        self.task: asyncio.Task[object] | None = None

    def message(self, number: int) -> bytes:
        return b"%08d" % number + bytes(self.size - 8)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        self.task = asyncio.current_task()
        try:
            while True:
                await send(sending(self.message(self.sent)))
                self.sent += 1
        except OSError as exc:
            self.stopped = exc
        finally:
            self.ended.set()


@pytest.mark.parametrize("compress", [0, 15])
@pytest.mark.parametrize("size", [1000, 16 * KIB, 64 * KIB, MIB])
async def test_an_app_that_floods_a_client_that_does_not_read_is_stopped_and_goes_on_when_it_does(
    size: int, compress: int
) -> None:
    app = Flood(size)
    if compress:
        app.message = lambda number: b"%08d" % number + os.urandom(size - 8)  # type: ignore[method-assign]
    async with session_to(app) as session, session.ws_connect("/", compress=compress) as socket:
        read = 0
        for _ in range(3):
            sent = await until_it_stops(lambda: app.sent)
            assert read < sent <= read + BOUND // size + 3
            for number in range(read, sent + 1):
                message = await socket.receive()
                assert (message.type, message.data[:8], len(message.data)) == (WSMsgType.BINARY, b"%08d" % number, size)
            read = sent + 1
    await app.ended.wait()
    assert isinstance(app.stopped, ConnectionResetError)


class ClientFlood:
    """A client that sends numbered messages until it is stopped."""

    def __init__(self, socket: ClientWebSocketResponse, size: int) -> None:
        self.sent = 0
        self.size = size
        self.task = asyncio.create_task(self._send(socket))

    async def _send(self, socket: ClientWebSocketResponse) -> None:
        while True:
            await socket.send_bytes(b"%08d" % self.sent + bytes(self.size - 8))
            self.sent += 1

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@pytest.mark.parametrize("size", [8, 1000, 64 * KIB, MIB])
async def test_a_client_that_floods_an_app_that_does_not_receive_is_stopped_and_goes_on_when_it_does(size: int) -> None:
    steps: asyncio.Queue[int] = asyncio.Queue()
    done, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        received = 0
        while step := await steps.get():
            for number in range(received, received + step):
                assert (await receive())["bytes"][:8] == b"%08d" % number
            received += step
            done.set()
        while (await receive())["type"] == "websocket.receive":
            pass
        ended.set()

    async with session_to(app) as session, session.ws_connect("/") as socket:
        flood = ClientFlood(socket, size)
        received = 0
        for _ in range(3):
            sent = await until_it_stops(lambda: flood.sent)
            # Each message counts with its size, and up to 14 bytes for the head of its frame.
            assert received < sent <= received + 2 * BOUND // size + 3
            done.clear()
            steps.put_nowait(sent - received)
            await done.wait()
            received = sent
        assert not flood.task.done()
        await flood.stop()
        steps.put_nowait(0)
    await ended.wait()


async def test_a_flood_in_both_directions_at_once_runs_without_a_deadlock_while_both_sides_read() -> None:
    size, count = 100 * KIB, 300

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        while (message := await receive())["type"] == "websocket.receive":
            await send(sending(message["bytes"]))

    async with session_to(app) as session, session.ws_connect("/") as socket:
        flooding = asyncio.create_task(send_all(socket, [b"%08d" % number + bytes(size) for number in range(count)]))
        for number in range(count):
            assert (await socket.receive_bytes())[:8] == b"%08d" % number
        await flooding


async def send_all(socket: ClientWebSocketResponse, messages: Iterable[bytes]) -> None:
    for message in messages:
        await socket.send_bytes(message)


async def test_two_floods_that_do_not_wait_for_one_another_cross() -> None:
    size, count = 100 * KIB, 300
    received: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def read() -> None:
            received.extend([(await receive())["bytes"][:8] for _ in range(count)])

        await receive()
        await send(ACCEPT)
        reading = asyncio.create_task(read())
        for number in range(count):
            await send(sending(b"%08d" % number + bytes(size)))
        await reading

    numbers = [b"%08d" % number for number in range(count)]
    async with session_to(app) as session, session.ws_connect("/") as socket:
        flooding = asyncio.create_task(send_all(socket, [number + bytes(size) for number in numbers]))
        assert [(await socket.receive_bytes())[:8] for _ in range(count)] == numbers
        await flooding
        assert (await socket.receive()).type is WSMsgType.CLOSE
    assert received == numbers


@pytest.mark.parametrize("end", ["close", "response", "session", "abort"])
async def test_a_send_that_waits_for_its_client_wakes_with_an_error_when_the_client_leaves(end: str) -> None:
    app = Flood(64 * KIB)
    async with session_to(app) as session:
        socket = await session.ws_connect("/")
        sent = await until_it_stops(lambda: app.sent)
        if end == "close":
            await socket.close()
        elif end == "response":
            socket._response.close()
        elif end == "session":
            await session.close()
        else:
            connection_of(socket).abort()
        await app.ended.wait()
        if end != "close":
            assert app.sent == sent
        socket._response.close()
    assert isinstance(app.stopped, ConnectionResetError)


async def test_a_send_that_waits_wakes_when_the_close_frame_of_a_client_comes_that_does_not_read() -> None:
    app = Flood(64 * KIB)
    async with raw_socket(app) as socket:
        socket.transport.pause_reading()
        await until_it_stops(lambda: app.sent)
        await socket.send(frame(CLOSE, close_payload(1000)))
        await until_it_stops(app.ended.is_set)
        assert isinstance(app.stopped, ConnectionResetError)
        socket.transport.resume_reading()
        frames = await socket.rest()
    assert frames[-1] == Frame(CLOSE, close_payload(1000))
    assert frames[:-1] == [Frame(BINARY, app.message(number)) for number in range(app.sent)]


async def test_a_send_that_waits_can_be_cancelled_and_nothing_of_its_message_is_sent() -> None:
    may_send, cancelled = asyncio.Event(), asyncio.Event()
    outcomes: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await may_send.wait()
        await send(sending(bytes(BOUND)))
        waiting = [asyncio.ensure_future(send(sending(b"%d" % number))) for number in range(3)]
        await until_it_stops(lambda: sum(task.done() for task in waiting))
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.wait(waiting[:2])
        outcomes.extend(task.done() for task in waiting)
        cancelled.set()
        await waiting[2]

    async with raw_socket(app) as socket:
        socket.transport.pause_reading()
        may_send.set()
        await cancelled.wait()
        socket.transport.resume_reading()
        assert [await socket.next() for _ in range(3)] == [
            Frame(BINARY, bytes(BOUND)),
            Frame(BINARY, b"2"),
            Frame(CLOSE, close_payload(1000)),
        ]
    assert outcomes == [True, True, False]


@pytest.mark.parametrize("end", ["close", "response", "session", "abort"])
async def test_every_receive_that_waits_wakes_when_the_client_leaves(end: str) -> None:
    results: list[Message] = []
    waiting, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        receiving = [asyncio.ensure_future(receive()) for _ in range(3)]
        await until_it_stops(lambda: sum(task.done() for task in receiving))
        waiting.set()
        results.extend(await asyncio.gather(*receiving))
        ended.set()

    async with session_to(app) as session:
        socket = await session.ws_connect("/")
        await waiting.wait()
        if end == "close":
            await socket.close(code=4000, message=b"bye")
        elif end == "response":
            socket._response.close()
        elif end == "session":
            await session.close()
        else:
            connection_of(socket).abort()
        await ended.wait()
        socket._response.close()
    assert results == [disconnect(4000, "bye") if end == "close" else disconnect(1006)] * 3


async def test_two_receives_at_once_share_the_messages_in_order() -> None:
    results: list[list[str]] = [[], []]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def read(into: list[str]) -> None:
            while (message := await receive())["type"] == "websocket.receive":
                into.append(message["text"])

        await receive()
        await send(ACCEPT)
        await asyncio.gather(*map(read, results))
        await send(sending("not reached"))

    numbers = [str(number) for number in range(200)]
    async with session_to(app) as session, session.ws_connect("/") as socket:
        for number in numbers:
            await socket.send_str(number)
        await socket.close()
    assert sorted(results[0] + results[1], key=int) == numbers
    assert all(result == sorted(result, key=int) != [] for result in results)


@pytest.mark.parametrize("turns", range(1, 5))
async def test_a_receive_that_is_cancelled_loses_no_message(turns: int) -> None:
    received: list[str] = []
    cancelled = 0
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal cancelled
        await receive()
        await send(ACCEPT)
        while len(received) < 200:
            receiving = asyncio.ensure_future(receive())
            await run_turns(turns)
            receiving.cancel()
            try:
                received.append((await receiving)["text"])
            except asyncio.CancelledError:
                cancelled += 1
        ended.set()

    async with session_to(app) as session, session.ws_connect("/") as socket:
        for number in range(200):
            await socket.send_str(str(number))
            for _ in range(number % 3 if number % 7 else 4 * turns):
                await asyncio.sleep(0)
        await ended.wait()
    assert received == [str(number) for number in range(200)]
    assert cancelled


# Several tasks that send; compression.


SIZES = [0, 1, 1000, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 20 * KIB, 100 * KIB, MIB]
"""Above 16 KiB a message is compressed in a thread."""


@pytest.mark.parametrize("compress", [0, 15])
async def test_the_messages_of_several_tasks_do_not_mingle(compress: int) -> None:
    messages = {task: [bytes([task]) + os.urandom(size) for size in SIZES * 3] for task in range(4)}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_these(bodies: list[bytes]) -> None:
            for body in bodies:
                await send(sending(body))

        await receive()
        await send(ACCEPT)
        await asyncio.gather(*map(send_these, messages.values()))

    received: dict[int, list[bytes]] = {task: [] for task in messages}
    async with session_to(app) as session, session.ws_connect("/", compress=compress) as socket:
        assert socket.compress == compress
        async for message in socket:
            assert message.type is WSMsgType.BINARY
            received[message.data[0]].append(message.data)
        assert socket.close_code == 1000
    assert received == messages


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [1000, 16 * KIB, 20 * KIB, 4 * MIB])
async def test_a_send_that_is_cancelled_while_it_compresses_leaves_the_stream_usable(size: int, turns: int) -> None:
    body = bytes(range(256)) * (size // 256)
    outcomes: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        for number in range(5):
            send_it = asyncio.ensure_future(send(sending(b"%d" % number + body)))
            await run_turns(turns)
            send_it.cancel()
            await asyncio.wait([send_it])
            outcomes.append(send_it.cancelled())
            await send(sending(b"whole %d" % number + body))

    async with session_to(app) as session, session.ws_connect("/", compress=15, max_msg_size=0) as socket:
        messages = [message.data async for message in socket]
        assert socket.close_code == 1000
    assert [message for message in messages if message[:5] == b"whole"] == [b"whole %d" % n + body for n in range(5)]
    # A message whose send is cancelled is sent whole or not at all.
    others = [message for message in messages if message[:5] != b"whole"]
    assert all(message[1:] == body for message in others)
    assert len(outcomes) == 5
    assert {int(message[:1]) for message in others} >= {n for n, cancelled in enumerate(outcomes) if not cancelled}


def opcodes(frames: Iterable[Frame | None]) -> list[int]:
    return [found.opcode for found in frames if found is not None]


async def test_no_message_follows_the_close_frame_when_an_app_returns_while_a_task_of_its_is_sending() -> None:
    results: list[BaseException | None] = []
    tasks: list[asyncio.Future[None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_large() -> None:
            try:
                await send(sending(os.urandom(8 * MIB)))
            except OSError as exc:
                results.append(exc)
            else:
                results.append(None)

        await receive()
        await send(ACCEPT)
        tasks.append(asyncio.ensure_future(send_large()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async with raw_socket(app, headers=DEFLATE) as socket:
        frames = [await socket.next()]
        await asyncio.wait(tasks)
        await socket.send(frame(CLOSE, close_payload(1000)))
        frames += await socket.rest()
    assert opcodes(frames) in ([CLOSE], [BINARY, CLOSE])
    assert len(results) == 1
    if results == [None]:
        assert opcodes(frames) == [BINARY, CLOSE]


async def test_no_message_follows_the_close_frame_when_the_client_violates_the_protocol_while_an_app_is_sending() -> (
    None
):
    app = Collector()
    sending_now = asyncio.Event()
    result: list[BaseException] = []

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        sending_now.set()
        try:
            while True:
                await send(sending(os.urandom(8 * MIB)))
        except OSError as exc:
            result.append(exc)
        app.ended.set()

    async with raw_socket(large, headers=DEFLATE) as socket:
        await sending_now.wait()
        await socket.send(frame(7))
        await app.ended.wait()
        while (found := await socket.next()) is not None and found.opcode != CLOSE:
            pass
        assert found is not None
        await until_it_stops(lambda: len(socket.data))
        assert bytes(socket.data[:2]) == b""
    assert isinstance(result[0], ConnectionResetError)


@pytest.mark.parametrize("client", ["reads", "leaves"])
async def test_a_close_waits_for_a_message_that_another_task_is_sending(client: str) -> None:
    may_send, waiting, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    results: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await may_send.wait()
        await send(sending(bytes(BOUND)))
        tasks = [
            asyncio.ensure_future(send(sending(b"last"))),
            asyncio.ensure_future(send({"type": "websocket.close", "code": 4000})),
        ]
        results.append(await until_it_stops(lambda: sum(task.done() for task in tasks)))
        waiting.set()
        results.extend(await asyncio.gather(*tasks, return_exceptions=True))
        results.append(await receive())
        ended.set()

    async with raw_socket(app) as socket:
        socket.transport.pause_reading()
        may_send.set()
        await waiting.wait()
        if client == "reads":
            socket.transport.resume_reading()
            assert [await socket.next() for _ in range(3)] == [
                Frame(BINARY, bytes(BOUND)),
                Frame(BINARY, b"last"),
                Frame(CLOSE, close_payload(4000)),
            ]
        else:
            socket.transport.abort()
        await ended.wait()
    if client == "reads":
        assert results == [0, None, None, disconnect(4000)]
    else:
        assert [type(result) for result in results[1:3]] == [ConnectionResetError] * 2
        assert (results[0], results[3]) == (0, disconnect(1006))


# Any sequence of frames.


payloads = st.one_of(st.binary(max_size=300), st.sampled_from([16 * KIB, 70 * KIB, 200 * KIB]).map(bytes))
client_steps = st.lists(
    st.tuples(
        st.sampled_from(["text", "binary", "ping", "pong"]),
        st.text(max_size=40) | payloads,
        st.lists(st.integers(0, 300), max_size=3),
        st.booleans(),
    ),
    max_size=12,
)


# aiohttp before 3.14.4 loses a deflated message when a ping arrives between its fragments.
@given(
    client_steps,
    st.lists(st.integers(min_value=0), max_size=8),
    st.booleans() if AIOHTTP >= (3, 14, 4) else st.just(False),
)
@settings(max_examples=examples(60), deadline=None)
async def test_whatever_frames_a_client_writes_its_messages_are_received(
    steps: list[tuple[str, str | bytes, list[int], bool]], cuts: list[int], interleave: bool
) -> None:
    data = b""
    expected: list[Message] = []
    pings: list[Frame | None] = []
    for kind, content, fragments, deflated in steps:
        body = content.encode() if isinstance(content, str) else content
        if kind in ("ping", "pong"):
            data += frame(PING if kind == "ping" else PONG, body[:125])
            if kind == "ping":
                pings.append(Frame(PONG, body[:125]))
            continue
        if kind == "text" and isinstance(content, str):
            expected.append(text(content))
            opcode = TEXT
        else:
            expected.append(binary(body))
            opcode = BINARY
        pieces = in_pieces(deflate(body) if deflated else body, fragments)
        for at, piece in enumerate(pieces):
            fin = at == len(pieces) - 1
            data += frame(CONTINUATION if at else opcode, piece, fin=fin, rsv=4 if deflated and not at else 0)
            if interleave and not fin:
                data += frame(PING, b"within")
                pings.append(Frame(PONG, b"within"))
    data += frame(CLOSE, close_payload(4321, b"end"))
    app = Collector()
    async with raw_socket(app, headers=DEFLATE) as socket:
        for piece in in_pieces(data, cuts):
            socket.write(piece)
            await asyncio.sleep(0)
        assert await socket.rest() == [*pings, Frame(CLOSE, close_payload(4321, b"end"))]
        await app.ended.wait()
    assert app.received == [*expected, disconnect(4321, "end")]


@given(st.lists(st.text(max_size=40) | payloads, max_size=15), st.sampled_from([0, 9, 15]), st.booleans())
@settings(max_examples=examples(60), deadline=None)
async def test_whatever_an_app_sends_its_client_receives(
    contents: list[str | bytes], compress: int, at_once: bool
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        if at_once:
            await asyncio.gather(*(send(sending(content)) for content in contents))
        else:
            for content in contents:
                await send(sending(content))

    async with session_to(app) as session, session.ws_connect("/", compress=compress) as socket:
        received = [message.data async for message in socket]
        assert socket.close_code == 1000
    if at_once and compress:
        assert sorted(received, key=repr) == sorted(contents, key=repr)
    else:
        assert received == contents


# Without the C extensions, and memory.


async def echo(compress: int) -> list[object]:
    """A scenario with every kind of frame. Returns what the client has seen, and what the app has seen."""
    app = Collector()

    async def echoing(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_send() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})
            return message

        await app(scope, receive_and_send, send)

    seen: list[object] = []
    async with session_to(echoing) as session, session.ws_connect("/", compress=compress, autoping=False) as socket:
        for content in ("one", b"two", "", b"", "x" * 70_000, bytes(300 * KIB)):
            await (socket.send_str(content) if isinstance(content, str) else socket.send_bytes(content))
            await socket.ping(b"ping")
            answers = [await socket.receive(), await socket.receive()]
            # The pong and the echo of a large message have no fixed order.
            seen.append(sorted((message.type, message.data) for message in answers))
        await socket.close(code=4000, message=b"bye")
        seen.append(socket.close_code)
    await app.ended.wait()
    return [*seen, *app.received]


def print_echo() -> None:
    from aiohttp.http import WebSocketReader

    results = [asyncio.run(echo(compress)) for compress in (0, 15)]
    digest = hashlib.sha256(repr(results).encode()).hexdigest()
    print(WebSocketReader.__module__.rpartition(".")[2], digest)


@pytest.mark.programs
def test_everything_is_the_same_without_aiohttps_extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "from tests.asgi.test_websocket_frames import print_echo; print_echo()"
    module, digest = run_python("-c", program).split()
    monkeypatch.setenv("AIOHTTP_NO_EXTENSIONS", "1")
    assert run_python("-c", program).split() == ["reader_py", digest]
    assert module == "reader_c"


async def download(size: int) -> int:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        for _ in range(size // (64 * KIB)):
            await send(sending(new_piece()))

    async with session_to(app) as session, session.ws_connect("/") as socket:
        return sum([len(message.data) async for message in socket])


async def upload(size: int) -> int:
    received = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal received
        await receive()
        await send(ACCEPT)
        while (message := await receive())["type"] == "websocket.receive":
            received += len(message["bytes"])

    async with session_to(app) as session, session.ws_connect("/") as socket:
        for _ in range(size // (64 * KIB)):
            await socket.send_bytes(new_piece())
        await socket.close()
    return received


@pytest.mark.programs
@pytest.mark.parametrize("transfer", ["download", "upload"])
def test_a_large_transfer_runs_in_a_few_mebibytes_of_memory(transfer: str) -> None:
    size = at_most(64 * MIB, 200 * MIB)
    growth = int(run_python("-m", "tests.support.flow", f"tests.asgi.test_websocket_frames:{transfer}", str(size)))
    assert growth < 16 * MIB
