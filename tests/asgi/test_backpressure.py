"""A writer that is faster than its reader waits, in both directions, until the reader reads on or disconnects."""

import asyncio
import hashlib
import random
import sys
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, StreamReader

from asgi_connector import ASGIProtocolError
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.effort import at_most
from tests.support.flow import BOUND, KIB, MIB, new_piece, until_it_stops
from tests.support.programs import run_python
from tests.support.waiting import run_turns

DISCONNECT = {"type": "http.disconnect"}
LAST = {"type": "http.response.body", "body": b"last"}


def start(**headers: str) -> Message:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": 200, "headers": pairs}


def chunk(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


class Numbers:
    """An endless stream of random bytes, the same in each run."""

    def __init__(self) -> None:
        self._random = random.Random(0)

    def take(self, size: int) -> bytes:
        return self._random.randbytes(size)


async def read_exactly(content: StreamReader, size: int) -> bytes:
    """Read in small pieces, because aiohttp raises its own mark to twice the size of a read."""
    got = bytearray()
    while len(got) < size:
        piece = await content.read(min(size - len(got), 64 * KIB))
        assert piece
        got += piece
    return bytes(got)


class Endless:
    """An app that sends without end, and counts the bytes."""

    def __init__(self, size: int, head: Message) -> None:
        self.piece = Numbers().take(size)
        self.head = head
        self.sent = 0
        self.inside_send = False
        self.ended = asyncio.Event()
        self.received: Message = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/next":
            await send(start())
            await send(LAST)
            return
        await receive()
        await send(self.head)
        while not self.received:
            self.inside_send = True
            await send(chunk(self.piece))
            self.inside_send = False
            self.sent += len(self.piece)
            receiving = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            if receiving.done():
                self.received = receiving.result()
            else:
                receiving.cancel()
        self.ended.set()


every_framing = pytest.mark.parametrize(
    "head", [start(), start(content_length=str(1 << 40)), start(connection="close")], ids=["chunked", "length", "close"]
)
every_size = pytest.mark.parametrize("size", [1000, 64 * KIB, MIB])


# Responses.


@every_framing
@every_size
async def test_an_endless_response_that_nobody_reads_stops_in_send(head: Message, size: int) -> None:
    app = Endless(size, head)
    async with session_to(app) as session:
        async with session.get("/"):
            sent = await until_it_stops(lambda: app.sent)
            assert app.inside_send
            assert 0 < sent <= BOUND + size
        await app.ended.wait()


@every_framing
@every_size
async def test_an_endless_response_goes_on_when_it_is_read(head: Message, size: int) -> None:
    app = Endless(size, head)
    async with session_to(app) as session:
        async with session.get("/") as response:
            read = 0
            before = await until_it_stops(lambda: app.sent)
            for _ in range(3):
                wanted = BOUND // size + 1
                for _ in range(wanted):
                    assert await read_exactly(response.content, size) == app.piece
                read += wanted * size
                sent = await until_it_stops(lambda: app.sent)
                assert app.inside_send
                assert before < sent <= read + BOUND + size
                before = sent
        await app.ended.wait()


@every_framing
@every_size
async def test_a_send_that_waits_for_its_client_wakes_when_the_client_leaves(head: Message, size: int) -> None:
    app = Endless(size, head)
    async with session_to(app) as session:
        response = await session.get("/")
        await until_it_stops(lambda: app.sent)
        assert app.inside_send
        response.close()
        await app.ended.wait()
        assert app.received == DISCONNECT


async def test_every_send_that_waits_wakes_when_the_client_leaves() -> None:
    results: list[object] = []
    waiting, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(chunk(bytes(MIB)))
        sending = [asyncio.ensure_future(send(chunk(b"more"))) for _ in range(3)]
        await until_it_stops(lambda: sum(task.done() for task in sending))
        waiting.set()
        results.extend(await asyncio.gather(*sending, return_exceptions=True))
        ended.set()

    async with session_to(app) as session:
        response = await session.get("/")
        await waiting.wait()
        response.close()
        await ended.wait()
    assert results == [None] * 3


async def test_every_send_that_waits_goes_on_in_order_when_the_response_is_read() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(chunk(bytes(MIB)))
        await asyncio.gather(*(send(chunk(b"%d" % number)) for number in range(5)))
        await send(LAST)

    async with session_to(app) as session, session.get("/") as response:
        assert await response.read() == bytes(MIB) + b"01234last"


async def test_a_send_that_waited_while_another_completed_the_response_is_refused() -> None:
    results: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/next":
            await send(start())
            await send(LAST)
            return
        await send(start())
        await send(chunk(bytes(MIB)))
        results.extend(await asyncio.gather(send(LAST), send(chunk(b"too late")), return_exceptions=True))

    async with session_to(app) as session:
        async with session.get("/") as response:
            assert await response.read() == bytes(MIB) + b"last"
        async with session.get("/next") as response:
            assert await response.read() == b"last"
    assert results[0] is None
    assert isinstance(results[1], ASGIProtocolError)
    assert str(results[1]) == "Unexpected ASGI message 'http.response.body' sent, after response already completed."


async def test_a_response_whose_client_does_not_read_hinders_no_other() -> None:
    app = Endless(64 * KIB, start())
    async with session_to(app) as session:
        async with session.get("/"):
            await until_it_stops(lambda: app.sent)
            for _ in range(3):
                async with session.get("/next") as response:
                    assert await response.read() == b"last"
            assert app.inside_send
        await app.ended.wait()


@pytest.mark.parametrize("size", [1, 999, 100_000, 3 * MIB])
async def test_a_response_that_is_read_in_small_pieces_arrives_intact(size: int) -> None:
    body = Numbers().take(3 * MIB + 1 if size > 1 else 300 * KIB)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for at in range(0, len(body), size if size > 1 else 7):
            await send(chunk(body[at : at + (size if size > 1 else 7)]))
        await send({"type": "http.response.body"})

    got = bytearray()
    async with session_to(app) as session, session.get("/") as response:
        while piece := await response.content.read(4096):
            got += piece
            await asyncio.sleep(0)
    assert bytes(got) == body


async def test_a_response_held_back_for_an_exception_stops_in_send_like_any_other() -> None:
    """A 5xx waits for some turns of the event loop. What its app sends in this time is bounded too."""
    app = Endless(64 * KIB, {**start(), "status": 503})
    async with session_to(app) as session:
        async with session.get("/") as response:
            assert response.status == 503
            assert 0 < await until_it_stops(lambda: app.sent) <= BOUND + 64 * KIB
            assert app.inside_send
            assert await read_exactly(response.content, 64 * KIB) == app.piece
        await app.ended.wait()


# Requests.


class Upload:
    """An endless body. It counts how much of it has been read."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        self._numbers = Numbers()

    async def body(self) -> AsyncIterator[bytes]:
        while True:
            self.taken += self.size
            yield self._numbers.take(self.size)


async def post(session: ClientSession, upload: Upload) -> bytes:
    async with session.post("/", data=upload.body()) as response:
        return await response.read()


async def read_some(receive: Receive, wanted: int) -> bytes:
    body = bytearray()
    while len(body) < wanted:
        message = await receive()
        assert message["type"] == "http.request"
        assert message["more_body"]
        assert len(message["body"]) <= BOUND
        body += message["body"]
    return bytes(body)


@every_size
async def test_an_endless_upload_that_nobody_reads_stops_in_the_client(size: int) -> None:
    upload = Upload(size)
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await send(start())
        await send(LAST)

    async with session_to(app) as session:
        task = asyncio.create_task(post(session, upload))
        assert 0 < await until_it_stops(lambda: upload.taken) <= BOUND + size
        go.set()
        assert await task == b"last"  # an answer ends the upload


@every_size
async def test_an_endless_upload_goes_on_when_it_is_read(size: int) -> None:
    upload = Upload(size)
    numbers = Numbers()
    read = 0
    steps = asyncio.Queue[bool]()
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal read
        rest = b""
        while await steps.get():
            rest += await read_some(receive, 2 * BOUND)
            read += len(rest) // size * size
            for at in range(0, len(rest) // size * size, size):
                assert rest[at : at + size] == numbers.take(size)
            rest = rest[len(rest) // size * size :]
            done.set()
        await send(start())
        await send(LAST)

    async with session_to(app) as session:
        task = asyncio.create_task(post(session, upload))
        before = await until_it_stops(lambda: upload.taken)
        for _ in range(3):
            done.clear()
            steps.put_nowait(True)
            await done.wait()
            taken = await until_it_stops(lambda: upload.taken)
            assert before < taken <= read + BOUND + 2 * size
            before = taken
        steps.put_nowait(False)
        assert await task == b"last"


async def test_an_upload_whose_app_reads_slowly_arrives_intact() -> None:
    body = Numbers().take(5 * MIB + 1)
    digest = hashlib.sha256()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            await run_turns(5)
            message = await receive()
            assert len(message["body"]) <= BOUND
            digest.update(message["body"])
            if not message["more_body"]:
                break
        await send(start())
        await send(LAST)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]

    async with session_to(app) as session, session.post("/", data=pieces()) as response:
        assert await response.read() == b"last"
    assert digest.digest() == hashlib.sha256(body).digest()


async def test_an_echo_that_is_not_read_stops_the_upload_too_and_goes_on_when_it_is() -> None:
    upload = Upload(64 * KIB)
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        while (message := await receive())["type"] == "http.request":
            await send(chunk(message["body"]))
        ended.set()

    async with session_to(app) as session:
        async with session.post("/", data=upload.body()) as response:
            numbers, read = Numbers(), 0
            before = 0
            for _ in range(3):
                taken = await until_it_stops(lambda: upload.taken)
                assert before < taken <= read + 2 * BOUND + 2 * upload.size
                before = taken
                for _ in range(30):
                    assert await read_exactly(response.content, upload.size) == numbers.take(upload.size)
                read += 30 * upload.size
        await ended.wait()


# Memory.


async def download(size: int) -> int:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(size // (64 * KIB)):
            await send(chunk(new_piece()))
        await send({"type": "http.response.body"})

    async with session_to(app) as session, session.get("/") as response:
        return sum([len(data) async for data in response.content.iter_any()])


async def upload(size: int) -> int:
    received = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal received
        while (message := await receive())["more_body"]:
            received += len(message["body"])
        received += len(message["body"])
        await send(start())
        await send(LAST)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(size // (64 * KIB)):
            yield new_piece()

    async with session_to(app) as session, session.post("/", data=body()) as response:
        assert await response.read() == b"last"
    return received


@pytest.mark.programs
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage()")
@pytest.mark.parametrize("transfer", ["download", "upload"])
def test_a_large_transfer_runs_in_a_few_mebibytes_of_memory(transfer: str) -> None:
    size = at_most(128 * MIB, 1024 * MIB)
    growth = int(run_python("-m", "tests.support.flow", f"tests.asgi.test_backpressure:{transfer}", str(size)))
    assert growth < 32 * MIB
