"""The client reads what the app sends: streaming, framing, statuses, headers, and the end of a response."""

import array
import asyncio
import copy
import http
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import MappingProxyType, SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import HttpVersion10, HttpVersion11

from asgi_connector import ASGIProtocolError, ASGIRoutingConnector
from asgi_connector._types import ASGIApp, Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.messages import body, start
from tests.support.sessions import fetch
from tests.support.waiting import run_turns, settle

TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VALUE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])

CHUNKED = (b"transfer-encoding", b"chunked")
CLOSE = (b"connection", b"close")


def app_that_sends(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


class Connections:
    """Counts the connections that a session makes."""

    def __init__(self) -> None:
        self.made = 0
        self.trace = aiohttp.TraceConfig()
        self.trace.on_connection_create_end.append(self.count)

    async def count(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceConnectionCreateEndParams
    ) -> None:
        self.made += 1


def without_suspending(call: Callable[[], Awaitable[Message]]) -> Message:
    """The result of a coroutine that does not wait."""
    try:
        call().__await__().__next__()
    except StopIteration as stop:
        message: Message = stop.value
        return message
    raise AssertionError("it suspended")


# Framing: how a body of three pieces of three bytes is delimited.
FRAMINGS = [
    pytest.param(HttpVersion11, [], id="chunked"),
    pytest.param(HttpVersion11, [(b"content-length", b"9")], id="content-length"),
    pytest.param(HttpVersion10, [], id="close-delimited"),
    pytest.param(HttpVersion10, [(b"content-length", b"9")], id="content-length-in-1.0"),
]


@pytest.mark.parametrize(("version", "headers"), FRAMINGS)
async def test_a_chunk_is_read_while_the_app_waits_for_the_next_step(
    version: aiohttp.HttpVersion, headers: list[tuple[bytes, bytes]]
) -> None:
    steps: asyncio.Queue[Message] = asyncio.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, headers))
        more = True
        while more:
            message = await steps.get()
            await send(message)
            more = message["more_body"]

    async with session_to(app, session_version=version) as session, session.get("/") as response:
        assert response.status == 200
        for piece in (b"one", b"two", b"six"):
            assert not response.content.at_eof()
            steps.put_nowait(body(piece, more=True))
            assert await response.content.readany() == piece
        # A length tells the client that the body is complete. Without one, the last message does.
        assert response.content.at_eof() == bool(headers)
        steps.put_nowait(body())
        assert await response.content.readany() == b""
        assert response.content.at_eof()


@pytest.mark.parametrize(("version", "headers"), FRAMINGS)
async def test_pieces_sent_in_one_step_arrive_as_one_body(
    version: aiohttp.HttpVersion, headers: list[tuple[bytes, bytes]]
) -> None:
    app = app_that_sends(start(200, headers), body(b"one", more=True), body(b"two", more=True), body(b"six"))
    async with session_to(app, session_version=version) as session, session.get("/") as response:
        assert await response.read() == b"onetwosix"


async def test_each_piece_of_any_size_is_one_chunk() -> None:
    """RFC 9112, 7.1. A small chunk is written in one piece, and a large one is not copied."""
    pieces = [bytes([size % 251]) * size for size in (1, 15, 16, 4095, 4096, 4097, 70_000, 2)]
    app = app_that_sends(start(200), *(body(piece, more=True) for piece in pieces), body(b"end"))
    chunks = [b""]
    async with session_to(app) as session, session.get("/") as response:
        async for data, ended in response.content.iter_chunks():
            chunks[-1] += data
            if ended:
                chunks.append(b"")
    assert chunks == [*pieces, b"end", b""]


@pytest.mark.parametrize(("version", "headers"), FRAMINGS)
async def test_an_empty_piece_in_the_middle_does_not_end_the_body(
    version: aiohttp.HttpVersion, headers: list[tuple[bytes, bytes]]
) -> None:
    app = app_that_sends(
        start(200, headers),
        body(more=True),
        body(b"one", more=True),
        body(more=True),
        body(b"twosix", more=True),
        body(),
    )
    async with session_to(app, session_version=version) as session, session.get("/") as response:
        assert await response.read() == b"onetwosix"


@pytest.mark.parametrize("version", [HttpVersion11, HttpVersion10])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")]])
@pytest.mark.parametrize("last", [{"type": "http.response.body"}, body(), body(memoryview(b""))])
async def test_a_body_may_be_empty_and_its_message_may_leave_everything_out(
    version: aiohttp.HttpVersion, headers: list[tuple[bytes, bytes]], last: Message
) -> None:
    app = app_that_sends({"type": "http.response.start", "status": 200, "headers": headers}, last)
    async with session_to(app, session_version=version) as session, session.get("/") as response:
        assert await response.read() == b""


async def test_a_start_without_headers_has_none_but_the_framing() -> None:
    app = app_that_sends({"type": "http.response.start", "status": 200}, body(b"x"))
    async with session_to(app) as session, session.get("/") as response:
        assert response.raw_headers == (CHUNKED,)
        assert await response.read() == b"x"


async def test_request_and_response_overlap() -> None:
    echoes: asyncio.Queue[bytes] = asyncio.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send(body(message["body"], more=True))
        await send(body())

    async def upload() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d" % number
            assert await echoes.get() == b"%d" % number

    async with session_to(app) as session, session.post("/", data=upload()) as response:
        for number in range(5):
            echo = await response.content.readany()
            assert echo == b"%d" % number
            echoes.put_nowait(echo)
        assert await response.read() == b""


async def test_the_head_leaves_at_the_end_of_the_step_that_sent_it() -> None:
    gate = asyncio.Event()
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(202))
        steps.append("the rest of the step")
        await gate.wait()
        steps.append("the next step")
        await send(body(b"x"))

    async with session_to(app) as session, session.get("/") as response:
        assert response.status == 202
        assert steps == ["the rest of the step"]
        gate.set()
        assert await response.read() == b"x"


async def test_the_head_leaves_also_after_a_step_that_no_request_has_woken() -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await first.wait()
        await send(start(202))
        await second.wait()
        await send(body(b"x"))

    async with session_to(app) as session:
        asyncio.get_running_loop().call_soon(first.set)
        async with session.get("/") as response:
            assert response.status == 202
            second.set()
            assert await response.read() == b"x"


BODILESS = [
    pytest.param("HEAD", 200, [], id="head"),
    pytest.param("HEAD", 200, [(b"content-length", b"3")], id="head-with-length"),
    pytest.param("HEAD", 200, [(b"content-length", b"99")], id="head-with-another-length"),
    pytest.param("HEAD", 404, [(b"Content-Type", b"text/plain")], id="head-of-nothing"),
    pytest.param("HEAD", 500, [(b"content-length", b"3")], id="head-500"),
    pytest.param("GET", 204, [], id="204"),
    pytest.param("DELETE", 204, [(b"x-a", b"1")], id="204-to-delete"),
    pytest.param("GET", 304, [(b"etag", b'"x"')], id="304"),
    pytest.param("GET", 304, [(b"content-length", b"3")], id="304-with-length"),
]


@pytest.mark.parametrize(("method", "status", "headers"), BODILESS)
@pytest.mark.parametrize("pieces", [[], [b"a" * 100_000, b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"]])
async def test_a_response_without_a_body_keeps_its_headers_and_the_connection_and_to_head_drops_what_is_sent(
    method: str, status: int, headers: list[tuple[bytes, bytes]], pieces: list[bytes]
) -> None:
    if method != "HEAD":
        pieces = [b"" for _ in pieces]
    connections = Connections()
    app = app_that_sends(start(status, headers), *(body(piece, more=True) for piece in pieces), body())
    async with session_to(app, session_trace_configs=[connections.trace]) as session:
        for _ in range(3):
            async with session.request(method, "/") as response:
                assert response.status == status
                assert response.raw_headers == tuple(headers)
                assert await response.read() == b""
    # After a HEAD without a length, aiohttp's client closes the connection, with any server.
    if method != "HEAD" or b"content-length" in dict(headers):
        assert connections.made == 1


@pytest.mark.parametrize(("method", "status", "headers"), BODILESS)
async def test_a_response_without_a_body_closes_in_http_1_0(
    method: str, status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    app = app_that_sends(start(status, headers), body(b"abc" if method == "HEAD" else b""))
    async with session_to(app, session_version=HttpVersion10) as session:
        for _ in range(2):
            async with session.request(method, "/") as response:
                assert response.status == status
                assert response.raw_headers == (*headers, CLOSE)
                assert await response.read() == b""


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"3")], [(b"transfer-encoding", b"chunked")]])
@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), b"a"])
async def test_a_body_after_a_204_or_a_304_is_an_error_in_the_app(
    method: str, status: int, headers: list[tuple[bytes, bytes]], data: bytes
) -> None:
    caught: list[ASGIProtocolError] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(status, headers))
        await send(body(more=True))  # an empty string is no body
        for more in (True, False):
            with pytest.raises(ASGIProtocolError, match=f"has no body, but {len(data)} bytes were sent") as error:
                await send(body(data, more=more))
            caught.append(error.value)
        await send(body())

    async with session_to(app) as session:
        async with session.request(method, "/") as response:
            assert (response.status, await response.read()) == (status, b"")
        assert len(caught) == 2

        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        connector.mount("failing.internal", app_that_sends(start(status, headers), body(data)))
        with pytest.raises(ASGIProtocolError, match="Response content longer than Content-Length"):
            await session.request(method, "http://failing.internal/")


async def test_every_status_from_200_to_999_arrives_with_its_body() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status = int(scope["path"][1:])
        await send(start(status))
        await send(body(b"" if status in (204, 304) else b"body of " + scope["path"].encode()))

    async with session_to(app) as session:
        for status in range(200, 1000):
            async with session.get(f"/{status}", allow_redirects=False) as response:
                assert response.status == status
                assert response.reason == (
                    http.HTTPStatus(status).phrase if status in http.HTTPStatus.__members__.values() else ""
                )
                assert await response.read() == (b"" if status in (204, 304) else b"body of /%d" % status)


@pytest.mark.parametrize("status", [299, 599, 999])
@pytest.mark.parametrize("version", [HttpVersion11, HttpVersion10])
async def test_a_status_that_nobody_knows_arrives(status: int, version: aiohttp.HttpVersion) -> None:
    app = app_that_sends(start(status, [(b"content-length", b"1")]), body(b"x"))
    async with session_to(app, session_version=version) as session, session.get("/") as response:
        assert (response.status, response.reason) == (status, "")
        assert await response.read() == b"x"


async def test_a_status_may_be_an_enum_member() -> None:
    app = app_that_sends(start(http.HTTPStatus.IM_A_TEAPOT), body(b"x"))
    async with session_to(app) as session, session.get("/") as response:
        assert (response.status, response.reason) == (418, http.HTTPStatus.IM_A_TEAPOT.phrase)
        assert await response.read() == b"x"


async def answer_ok(send: Send) -> None:
    """The response after a refused message contains nothing of that message."""
    await send(start(200, [(b"content-length", b"2")]))
    await send(body(b"ok"))


async def assert_ok(response: aiohttp.ClientResponse) -> None:
    assert response.status == 200
    assert response.raw_headers == ((b"content-length", b"2"),)
    assert await response.read() == b"ok"


class RefusedFirst:
    """An app whose first message to each request must be refused. Then it sends a valid response, or nothing."""

    def __init__(self, message: Message, *, recover: bool) -> None:
        self.message = message
        self.recover = recover
        self.refusals: list[ASGIProtocolError] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/ok":
            return await answer_ok(send)
        with pytest.raises(ASGIProtocolError) as caught:
            await send(self.message)
        self.refusals.append(caught.value)
        if not self.recover:
            raise caught.value
        await answer_ok(send)
        return None


async def assert_refused(message: Message, text: str) -> None:
    """*message* is refused, in the app and in the client's call, and nothing of it is sent."""
    connections = Connections()
    app = RefusedFirst(message, recover=True)
    async with session_to(app, session_trace_configs=[connections.trace]) as session:
        for _ in range(2):
            async with session.get("/") as response:
                await assert_ok(response)
    assert connections.made == 1
    assert [str(refusal) for refusal in app.refusals] == [text, text]

    app = RefusedFirst(message, recover=False)
    async with session_to(app) as session:
        with pytest.raises(ASGIProtocolError) as caught:
            await session.get("/")
        assert caught.value is app.refusals[0]
        assert str(caught.value) == text
        async with session.get("/ok") as response:
            await assert_ok(response)


@pytest.mark.parametrize("status", [-200, 0, 100, 101, 103, 199, 1000])
async def test_a_status_that_is_not_final_is_refused(status: int) -> None:
    # After a 1xx, aiohttp's client would wait forever for the final response.
    await assert_refused(
        start(status),
        f"Expected the 'status' of 'http.response.start' to be a final one, from 200 to 999, but got {status}.",
    )


@pytest.mark.parametrize("status", [None, "200", 200.0, True, b"200", [200]])
async def test_a_status_that_is_no_number_is_refused(status: Any) -> None:
    await assert_refused(
        start(status), f"Expected the 'status' of 'http.response.start' to be an int, but got {status!r}."
    )


async def test_two_cookies_arrive_as_two() -> None:
    headers = [(b"set-cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2; Path=/"), (b"content-length", b"0")]
    async with session_to(app_that_sends(start(200, headers), body())) as session, session.get("/") as response:
        assert response.headers.getall("set-cookie") == ["a=1; Path=/", "b=2; Path=/"]
        assert {name: morsel.value for name, morsel in response.cookies.items()} == {"a": "1", "b": "2"}
        assert {cookie.key: cookie.value for cookie in session.cookie_jar} == {"a": "1", "b": "2"}


async def test_headers_arrive_in_order_with_their_duplicates_and_their_case_and_none_is_added_but_framing() -> None:
    headers = [(b"X-B", b"1"), (b"x-a", b""), (b"x-b", b"2"), (b"Date", b"never"), (b"SERVER", b"none"), (b"x-a", b"3")]
    async with session_to(app_that_sends(start(200, headers), body())) as session, session.get("/") as response:
        assert response.raw_headers == (*headers, CHUNKED)
    headers.insert(2, (b"Content-Length", b"0"))
    async with session_to(app_that_sends(start(200, headers), body())) as session, session.get("/") as response:
        assert response.raw_headers == tuple(headers)


@pytest.mark.parametrize(
    "make",
    [
        lambda: [(b"x-a", b"1"), (b"x-b", b"2")],
        lambda: [[b"x-a", b"1"], [b"x-b", b"2"]],
        lambda: ([b"x-a", b"1"], [b"x-b", b"2"]),
        lambda: {b"x-a": b"1", b"x-b": b"2"}.items(),
        lambda: iter([(b"x-a", b"1"), (b"x-b", b"2")]),
        lambda: (pair for pair in [(b"x-a", b"1"), (b"x-b", b"2")]),
    ],
    ids=["list", "list-of-lists", "tuple-of-lists", "dict-items", "iterator", "generator"],
)
async def test_headers_may_be_any_iterable_of_pairs(make: Callable[[], Iterable[Iterable[bytes]]]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, make()))
        await send(body(b"x"))

    async with session_to(app) as session, session.get("/") as response:
        assert response.raw_headers == ((b"x-a", b"1"), (b"x-b", b"2"), CHUNKED)
        assert await response.read() == b"x"


@pytest.mark.parametrize("version", [HttpVersion11, HttpVersion10])
async def test_the_apps_own_messages_are_never_changed(version: aiohttp.HttpVersion) -> None:
    messages: list[Message] = [
        start(200, [[b"X-A", b"1"], [b"transfer-encoding", b"chunked"], [b"connection", b"close"]]),
        body(bytearray(b"one"), more=True),
        {"type": "http.response.body", "body": b"two"},
    ]
    before = copy.deepcopy(messages)
    async with session_to(app_that_sends(*messages), session_version=version) as session:
        for _ in range(2):
            async with session.get("/") as response:
                assert await response.read() == b"onetwo"
    assert messages == before


async def test_messages_that_cannot_be_changed_are_served() -> None:
    messages: list[Any] = [
        MappingProxyType(start(200, ((b"x-a", b"1"),))),
        MappingProxyType(body(memoryview(b"one").toreadonly(), more=True)),
        MappingProxyType({"type": "http.response.body"}),
    ]
    async with session_to(app_that_sends(*messages)) as session, session.get("/") as response:
        assert response.raw_headers == ((b"x-a", b"1"), CHUNKED)
        assert await response.read() == b"one"


async def test_latin_1_bytes_in_a_header_arrive_as_they_were_sent() -> None:
    value = "größer, ¡ÿ!".encode("latin-1")
    app = app_that_sends(start(200, [(b"x-a", value)]), body())
    async with session_to(app) as session, session.get("/") as response:
        assert response.raw_headers == ((b"x-a", value), CHUNKED)
        # How aiohttp decodes bytes that are not UTF-8.
        assert response.headers["x-a"].encode("utf-8", "surrogateescape") == value


class HeaderOf256:
    """An app that answers with a header that contains the byte in its path, and records which bytes were refused."""

    def __init__(self, name: bytes, value: bytes) -> None:
        self.name = name
        self.value = value
        self.refused: set[int] = set()

    def header(self, byte: int) -> tuple[bytes, bytes]:
        at = bytes([byte])
        return self.name.replace(b"?", at), self.value.replace(b"?", at)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        byte = int(scope["path"][1:])
        try:
            await send(start(201, [(b"x-before", b"1"), self.header(byte), (b"x-after", b"1")]))
        except ASGIProtocolError:
            self.refused.add(byte)
            await answer_ok(send)
        else:
            await send(body(b"it was accepted"))

    async def refused_of_256(self) -> set[int]:
        """Request every byte. It arrives unchanged, or nothing of it arrives."""
        connections = Connections()
        async with session_to(self, session_trace_configs=[connections.trace]) as session:
            for byte in range(256):
                async with session.get(f"/{byte}") as response:
                    if byte in self.refused:
                        await assert_ok(response)
                    else:
                        assert response.status == 201
                        assert response.raw_headers == (
                            (b"x-before", b"1"),
                            self.header(byte),
                            (b"x-after", b"1"),
                            CHUNKED,
                        )
                        assert await response.read() == b"it was accepted"
        assert connections.made == 1
        return self.refused


@pytest.mark.parametrize("name", [b"?", b"?x", b"x?", b"x?x"])
async def test_a_header_name_arrives_if_it_is_a_token_and_is_refused_if_not(name: bytes) -> None:
    assert await HeaderOf256(name, b"1").refused_of_256() == set(range(256)) - set(TOKEN)


async def test_a_header_value_arrives_if_it_has_no_control_characters_and_is_refused_if_it_has() -> None:
    assert await HeaderOf256(b"x-a", b"a?z").refused_of_256() == set(range(256)) - set(VALUE)


@pytest.mark.parametrize(
    "value",
    [
        b"1\r\nset-cookie: admin=1",
        b"1\nset-cookie: admin=1",
        b"1\rset-cookie: admin=1",
        b"1\r\n\r\n<script>",
        b"\r\nx: y",
        b"1\r\n",
        b"1\n",
        b"\r\n folded",
        b"1\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"\x00",
    ],
)
async def test_a_value_that_would_split_the_response_is_refused_and_nothing_of_it_is_sent(value: bytes) -> None:
    await assert_refused(
        start(201, [(b"x-before", b"1"), (b"location", value)]),
        f"Invalid HTTP header value: expected bytes without control characters for b'location', but got {value!r}.",
    )


@pytest.mark.parametrize(
    "name", [b"x-a: 1\r\nx-b", b"x\r\n\r\n", b"x-a\n", b"x-a:", b"x-a ", b" x-a", b"", "x-ä".encode()]
)
async def test_a_name_that_would_split_the_response_is_refused_and_nothing_of_it_is_sent(name: bytes) -> None:
    await assert_refused(
        start(201, [(b"x-before", b"1"), (name, b"1")]),
        f"Invalid HTTP header name: expected a token in bytes, but got {name!r}.",
    )


async def test_an_http_1_0_response_without_a_length_ends_with_the_connection() -> None:
    connections = Connections()
    data = b"0\r\n\r\n" * 50_000
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send(start())
        for at in range(0, len(data), 10_000):
            await send(body(data[at : at + 10_000], more=True))
        await send(body())

    async with session_to(app, session_version=HttpVersion10, session_trace_configs=[connections.trace]) as session:
        for _ in range(2):
            async with session.get("/") as response:
                assert response.raw_headers == (CLOSE,)
                assert await response.read() == data
    assert [scope["http_version"] for scope in scopes] == ["1.0", "1.0"]
    assert connections.made == 2


async def test_an_http_1_0_response_with_a_length_ends_there() -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, [(b"content-length", b"3")]))
        await send(body(b"abc", more=True))
        await gate.wait()
        await send(body())

    async with session_to(app, session_version=HttpVersion10) as session, session.get("/") as response:
        assert response.raw_headers == ((b"content-length", b"3"), CLOSE)
        assert await response.read() == b"abc"
        gate.set()


@pytest.mark.parametrize(
    ("version", "length", "framing"),
    [
        (HttpVersion11, [], (CHUNKED,)),
        (HttpVersion11, [(b"content-length", b"3")], ()),
        (HttpVersion10, [], (CLOSE,)),
        (HttpVersion10, [(b"content-length", b"3")], (CLOSE,)),
    ],
)
@pytest.mark.parametrize(
    ("name", "value"), [(b"transfer-encoding", b"chunked"), (b"Transfer-Encoding", b"gzip, chunked")]
)
async def test_the_apps_own_transfer_encoding_is_dropped(
    version: aiohttp.HttpVersion,
    length: list[tuple[bytes, bytes]],
    framing: tuple[tuple[bytes, bytes], ...],
    name: bytes,
    value: bytes,
) -> None:
    app = app_that_sends(start(200, [(name, value), *length]), body(b"a", more=True), body(b"bc"))
    async with session_to(app, session_version=version) as session, session.get("/") as response:
        assert response.raw_headers == (*length, *framing)
        assert await response.read() == b"abc"


@pytest.mark.parametrize(
    ("value", "closes"),
    [
        (b"close", True),
        (b"Close", True),
        (b"keep-alive, close", True),
        (b"keep-alive", False),
        (b"x-close", False),
        (None, False),
    ],
)
@pytest.mark.parametrize("length", [[], [(b"content-length", b"1")]])
async def test_the_apps_connection_close_is_obeyed(
    value: bytes | None, closes: bool, length: list[tuple[bytes, bytes]]
) -> None:
    connections = Connections()
    headers = length if value is None else [(b"Connection", value), *length]
    app = app_that_sends(start(200, headers), body(b"x"))
    async with session_to(app, session_trace_configs=[connections.trace]) as session:
        for _ in range(3):
            async with session.get("/") as response:
                assert response.raw_headers == tuple(headers if length else [*headers, CHUNKED])
                assert await response.read() == b"x"
    assert connections.made == (3 if closes else 1)


async def test_the_clients_connection_close_is_answered_in_kind() -> None:
    connections = Connections()
    app = app_that_sends(start(200, [(b"content-length", b"1")]), body(b"x"))
    async with session_to(app, session_trace_configs=[connections.trace]) as session:
        for _ in range(2):
            async with session.get("/", headers={"connection": "close"}) as response:
                assert response.raw_headers == ((b"content-length", b"1"), CLOSE)
                assert await response.read() == b"x"
    assert connections.made == 2


@pytest.mark.parametrize(
    "data",
    [
        bytearray(b"abcdef"),
        memoryview(b"abcdef"),
        memoryview(bytearray(b"abcdef")),
        memoryview(b"-abcdef-")[1:-1],
        memoryview(b"a-b-c-d-e-f-")[::2],
        memoryview(array.array("H", [1, 2, 3])),
    ],
    ids=["bytearray", "memoryview", "writable-memoryview", "slice", "stride", "wider-items"],
)
@pytest.mark.parametrize(
    ("version", "headers"),
    [(HttpVersion11, []), (HttpVersion11, [(b"content-length", b"6")]), (HttpVersion10, [])],
)
async def test_a_body_may_be_a_bytearray_or_a_memoryview(
    data: bytearray | memoryview, version: aiohttp.HttpVersion, headers: list[tuple[bytes, bytes]]
) -> None:
    async with session_to(app_that_sends(start(200, headers), body(data)), session_version=version) as session:
        async with session.get("/") as response:
            assert await response.read() == bytes(data)
        async with session.head("/") as response:
            assert await response.read() == b""


@pytest.mark.parametrize("view", [lambda buffer: buffer, memoryview], ids=["bytearray", "memoryview"])
async def test_a_buffer_may_be_used_again_as_soon_as_send_returns(view: Callable[[bytearray], Any]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        buffer = bytearray(3)
        await send(start())
        for piece in (b"one", b"two", b"six"):
            buffer[:] = piece
            await send(body(view(buffer), more=True))
        buffer[:] = b"???"
        await send(body())
        buffer.clear()  # not while another object still has a view of it

    async with session_to(app) as session, session.get("/") as response:
        assert await response.read() == b"onetwosix"


@pytest.mark.parametrize(
    ("method", "status", "version"),
    [
        ("GET", 200, HttpVersion11),
        ("GET", 200, HttpVersion10),
        ("HEAD", 200, HttpVersion11),
        ("POST", 200, HttpVersion11),
        ("GET", 204, HttpVersion11),
        ("GET", 503, HttpVersion11),
    ],
)
async def test_receive_gives_a_disconnect_as_soon_as_the_response_is_complete(
    method: str, status: int, version: aiohttp.HttpVersion
) -> None:
    after: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(status))
        await send(body(b"" if status == 204 else b"x"))
        after.extend(without_suspending(receive) for _ in range(3))

    async with session_to(app, session_version=version) as session, session.request(method, "/") as response:
        assert response.status == status
    assert after == [{"type": "http.disconnect"}] * 3


async def test_a_receive_that_waits_gets_the_disconnect_when_the_response_is_complete_and_the_connection_lives() -> (
    None
):
    connections = Connections()
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        listener = asyncio.ensure_future(receive())
        await send(start())
        await send(body(b"x", more=True))
        await asyncio.sleep(0)
        assert not listener.done()
        await send(body(b"y"))
        heard.append(await listener)

    async with session_to(app, session_trace_configs=[connections.trace]) as session:
        for _ in range(2):
            async with session.get("/") as response:
                assert await response.read() == b"xy"
    assert heard == [{"type": "http.disconnect"}] * 2
    assert connections.made == 1


async def test_a_request_that_was_not_read_is_not_given_after_the_response() -> None:
    after: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"x"))
        after.append(await receive())

    async with session_to(app) as session, session.post("/", data=b"unread") as response:
        assert await response.read() == b"x"
    assert after == [{"type": "http.disconnect"}]


async def test_headers_that_equal_those_before_but_are_no_bytes_are_refused() -> None:
    """A `bytearray` equals `bytes`. The head of the response before must not be used for it."""
    values: list[Any] = [b"1", bytearray(b"1"), b"1"]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-number", values.pop(0)), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    async with session_to(app) as session:
        assert await fetch(session) == b""
        with pytest.raises(ASGIProtocolError, match="Invalid HTTP header value"):
            await fetch(session)
        assert await fetch(session) == b""


async def test_headers_that_the_app_changes_between_two_responses_are_those_of_now() -> None:
    """The pairs are lists, and the same objects in both responses."""
    headers = [[b"x-number", b"1"], [b"content-length", b"0"]]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    async with session_to(app) as session:
        for number in ("1", "2", "3"):
            headers[0][1] = number.encode()
            async with session.get("/") as response:
                assert response.headers["x-number"] == number


async def test_a_response_is_delivered_when_its_app_ends_not_a_turn_later() -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await send(start())
        await send(body(b"x"))

    async with session_to(app) as session:
        request = asyncio.create_task(fetch(session))
        await settle()
        gate.set()
        await run_turns(2)  # the app answers, then the client reads
        assert request.done()
        assert request.result() == b"x"


async def test_a_response_whose_app_goes_on_is_delivered_a_turn_later() -> None:
    gate, closing = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await send(start())
        await send(body(b"x"))
        await closing.wait()

    async with session_to(app) as session:
        request = asyncio.create_task(fetch(session))
        await settle()
        gate.set()
        await run_turns(3)
        assert request.done()
        closing.set()
