"""Request bodies: the app receives each body byte for byte, as it arrives, however the client sends it."""

import asyncio
import gzip
import hashlib
import io
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import pytest
from fastapi import FastAPI, Form, UploadFile
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.effort import examples
from tests.support.messages import respond
from tests.support.raw import raw_connection

MIB = 1024 * 1024


class Recorder:
    """An app that reads each request completely, keeps it, and answers."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.messages: list[list[Message]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []
        self.scopes.append(scope)
        self.messages.append(messages)
        while not messages or messages[-1].get("more_body", False):
            messages.append(await receive())
        await respond(send)

    @property
    def bodies(self) -> list[bytes]:
        for messages in self.messages:
            assert [message["type"] for message in messages] == ["http.request"] * len(messages)
        return [b"".join(message["body"] for message in messages) for messages in self.messages]

    def header(self, name: bytes, request: int = 0) -> bytes | None:
        return dict(self.scopes[request]["headers"]).get(name)


class Producer:
    """An upload in pieces. It counts the pieces."""

    def __init__(self, pieces: Iterable[bytes], then: Callable[[], object] = lambda: None) -> None:
        self._pieces = pieces
        self._then = then
        self.started = False
        self.sent = 0
        """The number of pieces that the client has taken before it asked for more."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.started = True
        for piece in self._pieces:
            yield piece
            self.sent += 1
            self._then()


async def upload(session: aiohttp.ClientSession, **settings: Any) -> None:
    async with session.post("/upload", **settings) as response:
        assert response.status == 200
        assert await response.read() == b"ok"


async def in_pieces(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def each_byte(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app.internal\r\n\r\n"
AWKWARD_BODIES = [
    b"\r\n",
    b"\r\n\r\n",
    b"one\r\n\r\ntwo\r\n\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"ffffffff\r\n",
    SMUGGLED,
    b"0\r\n\r\n" + SMUGGLED,
    b"HTTP/1.1 200 OK\r\n\r\n",
    bytes(range(256)),
    b"\x00",
]
Way = Callable[[bytes], dict[str, Any]]
WAYS: dict[str, Way] = {
    "bytes": lambda body: {"data": body},
    "bytes, chunked": lambda body: {"data": body, "chunked": True},
    "generator": lambda body: {"data": in_pieces([body])},
    "generator of single bytes": lambda body: {"data": in_pieces(each_byte(body))},
    "generator of a known length": lambda body: {
        "data": in_pieces(each_byte(body)),
        "headers": {"Content-Length": str(len(body))},
    },
    "file object": lambda body: {"data": io.BytesIO(body)},
    "file object, chunked": lambda body: {"data": io.BytesIO(body), "chunked": True},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("body", AWKWARD_BODIES, ids=repr)
async def test_a_body_that_looks_like_framing_arrives_intact(
    body: bytes, way: Callable[[bytes], dict[str, Any]]
) -> None:
    app = Recorder()
    async with session_to(app) as session:
        await upload(session, **way(body))
        await upload(session, data=b"and the next")
    assert app.bodies == [body, b"and the next"]
    assert [scope["raw_path"] for scope in app.scopes] == [b"/upload", b"/upload"]


async def test_an_async_generator_is_uploaded_in_chunks() -> None:
    app = Recorder()
    async with session_to(app) as session:
        await upload(session, data=in_pieces([b"one,", b"two,", b"", b"three"]))
    assert app.bodies == [b"one,two,three"]
    assert app.header(b"transfer-encoding") == b"chunked"
    assert app.header(b"content-length") is None


@given(st.lists(st.binary(max_size=200), max_size=8), st.booleans())
@settings(max_examples=examples(60), deadline=None)
async def test_any_bytes_in_any_pieces_arrive_intact(pieces: list[bytes], length_known: bool) -> None:
    app = Recorder()
    body = b"".join(pieces)
    headers = {"Content-Length": str(len(body))} if length_known else {}
    async with session_to(app) as session:
        await upload(session, data=in_pieces(pieces), headers=headers)
        await upload(session, data=body)
    assert app.bodies == [body, body]


@given(st.data(), st.lists(st.binary(min_size=1, max_size=50), max_size=4), st.booleans())
@settings(max_examples=examples(100), deadline=None)
async def test_a_request_is_read_the_same_wherever_the_connection_cuts_it(
    data: st.DataObject, chunks: list[bytes], chunked: bool
) -> None:
    body = b"".join(chunks)
    if chunked:
        framing = b"Transfer-Encoding: chunked"
        on_the_wire = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    else:
        framing = b"Content-Length: %d" % len(body)
        on_the_wire = body
    request = b"POST /upload?a=b HTTP/1.1\r\nHost: app.internal\r\n" + framing + b"\r\nX: y\r\n\r\n" + on_the_wire
    cuts = sorted(data.draw(st.sets(st.integers(1, len(request) - 1), max_size=8)))
    pieces = [request[start:end] for start, end in zip([0, *cuts], [*cuts, len(request)], strict=True)]
    app = Recorder()
    async with session_to(app) as session:
        for _ in range(2):  # the second request finds the connection as the first has left it
            async with raw_connection(session) as connection:
                await connection.send(*pieces)
                status, _, answer = await connection.response()
                assert (status, answer) == (200, b"ok")
    assert app.bodies == [body, body]
    for request_number, scope in enumerate(app.scopes):
        assert (scope["method"], scope["raw_path"], scope["query_string"]) == ("POST", b"/upload", b"a=b")
        assert app.header(b"x", request_number) == b"y"


async def test_a_request_that_comes_byte_by_byte_is_read_like_any_other() -> None:
    app = Recorder()
    request = (
        b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nc\r\nhello\r\n\r\nyou\r\n0\r\n\r\n"
    )
    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(*each_byte(request))
        status, _, _ = await connection.response()
        assert status == 200
    assert app.bodies == [b"hello\r\n\r\nyou"]


# Real frameworks, real files.


def uploads_app() -> FastAPI:
    app = FastAPI()

    @app.post("/files")
    async def receive_files(files: list[UploadFile], note: str = Form()) -> dict[str, Any]:
        return {
            "note": note,
            "files": [
                [file.filename, file.content_type, hashlib.sha256(await file.read()).hexdigest()] for file in files
            ],
        }

    return app


async def test_a_multipart_form_reaches_fastapi_with_its_files() -> None:
    contents = [
        ("plain.txt", "text/plain", b"hello"),
        ("awkward.bin", "application/octet-stream", b"".join(AWKWARD_BODIES)),
        ("empty", "text/csv", b""),
        ("large.bin", "image/png", random.Random(1).randbytes(3 * MIB)),
    ]
    form = aiohttp.FormData()
    form.add_field("note", "ünder\r\n\r\nlined")
    for filename, content_type, content in contents:
        form.add_field("files", io.BytesIO(content), filename=filename, content_type=content_type)
    async with session_to(uploads_app()) as session, session.post("/files", data=form) as response:
        assert response.status == 200
        assert await response.json() == {
            "note": "ünder\r\n\r\nlined",
            "files": [
                [filename, content_type, hashlib.sha256(content).hexdigest()]
                for filename, content_type, content in contents
            ],
        }


@pytest.fixture
def open_file(tmp_path: Path) -> Iterator[BinaryIO]:
    path = tmp_path / "report.bin"
    path.write_bytes(random.Random(2).randbytes(MIB + 7))
    with path.open("rb") as file:
        yield file


async def test_an_open_file_is_uploaded(open_file: BinaryIO, tmp_path: Path) -> None:
    app = Recorder()
    async with session_to(app) as session:
        await upload(session, data=open_file)
    assert app.bodies == [(tmp_path / "report.bin").read_bytes()]
    assert app.header(b"content-length") == str(MIB + 7).encode()


# Large bodies, and streaming.


@pytest.mark.parametrize("length_known", [False, True], ids=["chunked", "content-length"])
async def test_20_mib_go_each_way_unchanged(length_known: bool) -> None:
    size = 20 * MIB
    generator = random.Random(3)
    pieces = [generator.randbytes(piece_size) for piece_size in [size // 2, 1, *[64 * 1024] * 150, MIB // 2]]
    pieces.append(generator.randbytes(size - sum(map(len, pieces))))
    sent = hashlib.sha256()
    for piece in pieces:
        sent.update(piece)
    seen_by_app = hashlib.sha256()

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", str(size).encode())] if length_known else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        more = True
        while more:
            message = await receive()
            seen_by_app.update(message["body"])
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    headers = {"Content-Length": str(size)} if length_known else {}
    received = hashlib.sha256()
    count = 0
    async with session_to(echo) as session, session.post("/", data=in_pieces(pieces), headers=headers) as response:
        async for piece in response.content.iter_any():
            received.update(piece)
            count += len(piece)
    assert count == size
    assert received.digest() == seen_by_app.digest() == sent.digest()


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "12"}], ids=["chunked", "content-length"])
async def test_the_app_sees_a_body_before_the_client_has_sent_all_of_it(headers: dict[str, str]) -> None:
    first_seen = asyncio.Event()
    messages: list[Message] = []

    async def upload_in_steps() -> AsyncIterator[bytes]:
        yield b"first "
        await first_seen.wait()
        yield b"second"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        messages.append(await receive())
        first_seen.set()
        while messages[-1]["more_body"]:
            messages.append(await receive())
        await respond(send)

    async with session_to(app) as session:
        await upload(session, data=upload_in_steps(), headers=headers)
    assert messages[0] == {"type": "http.request", "body": b"first ", "more_body": True}
    assert b"".join(message["body"] for message in messages[1:]) == b"second"


async def test_an_upload_waits_for_an_app_that_does_not_read() -> None:
    """Only a limited amount is sent ahead, however long the app takes."""
    total = 64
    producer = Producer([bytes(64 * 1024)] * total)
    reading = asyncio.Event()
    recorder = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/upload":
            await reading.wait()
        await recorder(scope, receive, send)

    async with session_to(app) as session:
        uploading = asyncio.create_task(upload(session, data=producer))
        for _ in range(100):
            async with session.get("/other") as response:
                await response.read()
        sent_ahead = producer.sent
        reading.set()
        await uploading
    assert 0 < sent_ahead <= 8
    assert producer.sent == total
    assert recorder.bodies[-1] == bytes(total * 64 * 1024)


async def test_an_upload_that_breaks_off_is_a_disconnect_and_not_an_end() -> None:
    class BrokenOffError(Exception):
        pass

    half_seen = asyncio.Event()
    ended = asyncio.Event()
    messages: list[Message] = []

    async def break_off() -> AsyncIterator[bytes]:
        yield b"half of it"
        await half_seen.wait()
        raise BrokenOffError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        messages.append(await receive())
        half_seen.set()
        while messages[-1]["type"] == "http.request":
            messages.append(await receive())
        ended.set()

    async with session_to(app) as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post("/", data=break_off())
        await ended.wait()
    assert messages == [
        {"type": "http.request", "body": b"half of it", "more_body": True},
        {"type": "http.disconnect"},
    ]


# The empty body.


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("GET", {}),
        ("HEAD", {}),
        ("DELETE", {}),
        ("POST", {}),
        ("POST", {"data": b""}),
        pytest.param("PUT", {"data": io.BytesIO(b"")}, id="an empty file"),
        ("POST", {"headers": {"Content-Length": "0"}}),
        ("GET", {"headers": {"Content-Length": "0"}}),
        ("POST", {"chunked": True, "data": b""}),
        ("POST", {"data": None, "expect100": True}),
    ],
    ids=repr,
)
async def test_no_body_is_exactly_one_empty_request_message(method: str, settings: dict[str, Any]) -> None:
    first: list[Message] = []
    second: list[asyncio.Task[Message]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/other":
            await respond(send)
            return
        first.append(await receive())
        second.append(asyncio.ensure_future(receive()))
        async with session.get("/other") as response:
            await response.read()
        assert not second[0].done()
        await respond(send)

    async with session_to(app) as session:
        async with session.request(method, "/", **settings) as response:
            assert response.status == 200
            await response.read()
        assert first == [{"type": "http.request", "body": b"", "more_body": False}]
        assert await second[0] == {"type": "http.disconnect"}


async def test_an_empty_chunked_body_is_exactly_one_empty_request_message() -> None:
    app = Recorder()
    async with session_to(app) as session:
        await upload(session, data=in_pieces([]))
    assert app.header(b"transfer-encoding") == b"chunked"
    assert app.messages == [[{"type": "http.request", "body": b"", "more_body": False}]]


# A cancelled receive().


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "18"}], ids=["chunked", "content-length"])
async def test_a_receive_that_is_cancelled_while_it_waits_loses_nothing(headers: dict[str, str]) -> None:
    pieces = [b"one", b"two", b"six"]
    go_on = [asyncio.Event() for _ in pieces]
    body = b""

    async def upload_in_steps() -> AsyncIterator[bytes]:
        yield b"at first "  # aiohttp sends the head with the first piece
        for event, piece in zip(go_on, pieces, strict=True):
            await event.wait()
            yield piece

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal body
        message = await receive()
        for event in go_on:
            body += message["body"]
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await receive()
            event.set()
            message = await receive()
        body += message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        await respond(send)

    async with session_to(app) as session:
        await upload(session, data=upload_in_steps(), headers=headers)
    assert body == b"at first onetwosix"


async def test_a_receive_that_is_cancelled_when_the_body_arrives_loses_nothing() -> None:
    """The bytes have arrived, and the task that waits for them has not run yet. A cancellation must lose no bytes."""
    waiting: list[asyncio.Task[Message]] = []
    is_waiting = asyncio.Event()
    body = b""

    async def upload_then_cancel() -> AsyncIterator[bytes]:
        yield b"at first "
        await is_waiting.wait()
        yield b"precious "
        # aiohttp has written it; the delivery to the server is the callback before this one.
        asyncio.get_running_loop().call_soon(waiting[0].cancel)
        await asyncio.wait(waiting)
        yield b"bytes"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal body
        body += (await receive())["body"]
        waiting.append(asyncio.ensure_future(receive()))
        asyncio.get_running_loop().call_soon(is_waiting.set)  # after the first step of that task
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        more = True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        await respond(send)

    async with session_to(app) as session:
        await upload(session, data=upload_then_cancel())
    assert waiting[0].cancelled()
    assert body == b"at first precious bytes"


# Expect: 100-continue.


async def test_an_expect_is_answered_only_when_the_app_asks() -> None:
    producer = Producer([b"what was expected"])
    recorder = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/upload":
            for _ in range(3):  # more turns of the loop than a 100 response would take
                async with session.get("/other") as response:
                    await response.read()
            assert not producer.started
        await recorder(scope, receive, send)

    async with session_to(app) as session:
        await upload(session, data=producer, expect100=True)
    assert producer.started
    assert recorder.bodies == [b"", b"", b"", b"what was expected"]
    assert recorder.header(b"expect", -1) == b"100-continue"


@pytest.mark.parametrize("status", [200, 413, 503])
async def test_a_body_that_the_app_does_not_ask_for_is_never_sent(status: int) -> None:
    producer = Producer([SMUGGLED])
    recorder = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/refuse":
            await respond(send, b"no, thanks", status)
            return
        await recorder(scope, receive, send)

    async with session_to(app) as session:
        async with session.post("/refuse", data=producer, expect100=True) as response:
            assert response.status == status
            assert await response.read() == b"no, thanks"
        await upload(session, data=b"welcome")
    assert not producer.started
    assert recorder.bodies == [b"welcome"]


async def test_an_expect_is_not_answered_after_the_response_has_started() -> None:
    """An interim response after the head of the final one would be part of its body."""
    producer = Producer([b"too late"])
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        asking = asyncio.ensure_future(receive())
        await asyncio.sleep(0)  # its first step: now it asks
        await send({"type": "http.response.body", "body": b"not ", "more_body": True})
        await send({"type": "http.response.body", "body": b"it"})
        messages.append(await asking)

    async with session_to(app) as session, session.post("/", data=producer, expect100=True) as response:
        assert await response.read() == b"not it"
    assert not producer.started
    assert messages == [{"type": "http.disconnect"}]


async def test_an_expect_is_answered_once() -> None:
    app = Recorder()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(head)
        assert (await connection.head())[0] == 100
        await connection.send(*each_byte(b"body"))
        status, _, answer = await connection.response()
        assert (status, answer) == (200, b"ok")
    assert len(app.messages[0]) > 1  # so it has asked more than once
    assert app.bodies == [b"body"]


async def test_an_expect_of_http_1_0_is_not_answered() -> None:
    """RFC 9110, 10.1.1: such a client does not know interim responses."""
    app = Recorder()
    request = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody"
    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(request)
        status, _, answer = await connection.response()
        assert (status, answer) == (200, b"ok")
    assert app.bodies == [b"body"]


# The app handles content encodings.


async def test_a_body_that_aiohttp_compresses_reaches_the_app_compressed() -> None:
    app = Recorder()
    async with session_to(app) as session:
        await upload(session, data=b"again and " * 1000, compress="gzip")
    assert app.header(b"content-encoding") == b"gzip"
    assert len(app.bodies[0]) < 1000
    assert gzip.decompress(app.bodies[0]) == b"again and " * 1000


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "made-up"])
@pytest.mark.parametrize("body", [gzip.compress(b"data", mtime=0), b"not compressed at all"], ids=["gzip", "plain"])
async def test_a_content_encoding_does_not_touch_the_body(encoding: str, body: bytes) -> None:
    app = Recorder()
    async with session_to(app) as session:
        await upload(session, data=body, headers={"Content-Encoding": encoding})
    assert app.header(b"content-encoding") == encoding.encode()
    assert app.bodies == [body]
