"""What an app and a client see over HTTP: in process the same as on uvicorn and hypercorn, except for a table."""

import asyncio
import io
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

import aiohttp
import pytest
from aiohttp import ClientPayloadError, ClientResponseError, ClientSession, ServerDisconnectedError
from multidict import CIMultiDict
from yarl import URL

from asgi_connector._types import Message, Receive, Scope, Send
from tests.support.differences import Expected, check_that_each_row_was_looked_up
from tests.support.messages import body
from tests.support.raw import RawConnection, raw_connection
from tests.support.servers import HTTP_WAYS, App, DidNotStartError, Serve, waits

KIB: Final = 1024
MIB: Final = 1024 * KIB
DISCONNECT: Final = {"type": "http.disconnect"}
LENGTH_2: Final = (b"content-length", b"2")


@pytest.fixture(params=HTTP_WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


async def body_of(receive: Receive) -> bytes:
    """The whole body of the request."""
    whole = bytearray()
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        whole += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(whole)


async def until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await body_of(receive)
    await send(start(200, LENGTH_2))
    await send(body(b"ok"))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    data = await body_of(receive)
    await send(start(200, (b"content-length", b"%d" % len(data))))
    await send(body(data))


class Teller:
    """An app that answers "ok" and keeps the scopes."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await ok(scope, receive, send)


def raw(session: ClientSession) -> AbstractAsyncContextManager[RawConnection]:
    return raw_connection(session, str(session._base_url))


def sever(response: aiohttp.ClientResponse) -> None:
    """End the client's connection without closing it properly."""
    assert response.connection is not None
    assert response.connection.protocol is not None
    transport = response.connection.protocol.transport
    assert transport is not None
    transport.abort()


# The scope.


async def test_the_scope_of_a_request_says_what_was_asked(serve: Serve, expected: Expected) -> None:
    app = Teller()
    headers = CIMultiDict([("X-Who", "ann"), ("X-Who", "bob"), ("Cookie", "a=1; b=2"), ("X-Empty", "")])
    async with serve(app) as session:
        base = session._base_url
        assert base is not None
        url = base.join(URL("/caf%C3%A9/a%2Fb;c?x=%20y&x=z", encoded=True))
        async with session.post(url, headers=headers, data=b"four") as response:
            assert await response.read() == b"ok"
    (scope,) = app.scopes
    assert set(scope) == expected(
        {
            "type", "asgi", "http_version", "scheme", "server", "client", "root_path", "path", "raw_path",
            "query_string", "headers", "method", "state",
        },
        "keys",
    )  # fmt: skip
    assert scope["type"] == "http"
    assert scope["asgi"] == expected({"version": "3.0", "spec_version": "2.3"}, "version")
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == "http"
    assert scope["method"] == "POST"
    assert tuple(scope["server"]) == (base.host, base.port)
    assert [type(part) for part in scope["client"]] == [str, int]
    assert scope["client"][0] == "127.0.0.1"
    assert scope["root_path"] == ""
    assert scope["path"] == "/café/a/b;c"
    assert scope["raw_path"] == b"/caf%C3%A9/a%2Fb;c"
    assert scope["query_string"] == b"x=%20y&x=z"
    assert scope["state"] == {}
    assert not scope.get("extensions")
    assert [(bytes(name), bytes(value)) for name, value in scope["headers"]] == [
        (b"host", (f"{base.host}" if base.is_default_port() else f"{base.host}:{base.port}").encode()),
        (b"x-who", b"ann"),
        (b"x-who", b"bob"),
        (b"cookie", b"a=1; b=2"),
        (b"x-empty", b""),
        (b"accept", b"*/*"),
        (b"accept-encoding", dict(scope["headers"])[b"accept-encoding"]),
        (b"user-agent", dict(scope["headers"])[b"user-agent"]),
        (b"content-length", b"4"),
        (b"content-type", b"application/octet-stream"),
    ]


async def test_the_root_path_and_the_path_of_a_request(serve: Serve, expected: Expected) -> None:
    app = Teller()
    async with serve(app, root_path="/api") as session:
        await (await session.get("/users")).read()
    (scope,) = app.scopes
    assert scope["root_path"] == "/api"
    assert (scope["path"], scope["raw_path"]) == expected(("/users", b"/users"))


@pytest.mark.parametrize("target", ["/", "/a//b", "/a/../b", "/%2e%2e", "/a?", "/a??b", "/a?b#c", "/%e9", "/a%00b"])
async def test_the_target_is_decoded_as_elsewhere(serve: Serve, target: str) -> None:
    app = Teller()
    async with serve(app) as session:
        base = session._base_url
        assert base is not None
        await (await session.get(URL(f"{base.origin()}{target}", encoded=True))).read()
    (scope,) = app.scopes
    path, _, query = target.partition("#")[0].partition("?")
    assert scope["raw_path"] == path.encode()
    assert scope["query_string"] == query.encode()
    decoded = {"/%2e%2e": "/..", "/%e9": "/\N{REPLACEMENT CHARACTER}", "/a%00b": "/a\0b"}
    assert scope["path"] == decoded.get(path, path)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT"])
async def test_every_method_reaches_the_app(serve: Serve, method: str) -> None:
    app = Teller()
    async with serve(app) as session, session.request(method, "/") as response:
        assert await response.read() == b"ok"
    assert [scope["method"] for scope in app.scopes] == [method]


async def test_a_method_that_nobody_knows(serve: Serve, expected: Expected) -> None:
    app = Teller()
    async with serve(app) as session, session.request("FROBNICATE", "/") as response:
        await response.read()
        assert response.status == expected(200)
    assert len(app.scopes) == (1 if response.status == 200 else 0)


async def test_a_request_of_http_1_0_is_answered_and_its_connection_closed(serve: Serve) -> None:
    app = Teller()
    async with serve(app) as session, raw(session) as connection:
        await connection.send(b"GET / HTTP/1.0\r\nHost: app.internal\r\n\r\n")
        status, _, data = await connection.response()
        assert (status, data) == (200, b"ok")
        await connection.end()
    assert app.scopes[0]["http_version"] == "1.0"


async def test_header_values_that_are_not_ascii_arrive_byte_for_byte(serve: Serve) -> None:
    value = "grüße".encode() + b"\t" + bytes(range(0x80, 0x100))
    app = Teller()
    async with serve(app) as session, raw(session) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Raw: " + value + b"\r\n\r\n")
        assert (await connection.response())[0] == 200
    assert bytes(dict(app.scopes[0]["headers"])[b"x-raw"]) == value


# The body of the request.


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3 * MIB])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_of_any_size_arrives_as_it_was_sent(serve: Serve, size: int, chunked: bool) -> None:
    data = noise(size)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 100_000):
            yield data[at : at + 100_000]

    async with serve(echo) as session, session.post("/", data=pieces() if chunked else io.BytesIO(data)) as response:
        assert response.status == 200
        assert await response.read() == data


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"0\r\n\r\n", b"a\r\n\r\nGET / HTTP/1.1\r\n\r\n", bytes(range(256))])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_that_looks_like_framing_is_a_body(serve: Serve, data: bytes, chunked: bool) -> None:
    async with serve(echo) as session:
        for _ in range(2):
            async with session.post("/", data=data, chunked=chunked or None) as response:
                assert await response.read() == data


async def test_a_form_with_a_file_arrives(serve: Serve) -> None:
    form = aiohttp.FormData({"name": "ann"})
    form.add_field("file", noise(1000), filename="file.bin")
    async with serve(echo) as session, session.post("/", data=form) as response:
        data = await response.read()
    assert noise(1000) in data
    assert data.count(b"Content-Disposition") == 2


async def test_chunks_of_a_body_are_received_as_they_are_sent(serve: Serve) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            if message["body"]:
                received.put_nowait(message["body"])
        await send(start(204))
        await send(body())

    async def pieces() -> AsyncIterator[bytes]:
        for n in range(5):
            yield b"piece %d" % n
            assert await received.get() == b"piece %d" % n

    async with serve(service) as session, session.post("/", data=pieces()) as response:
        assert response.status == 204
    assert received.empty()


async def test_a_request_without_a_body_gives_one_empty_message(serve: Serve) -> None:
    app = App(ok)
    async with serve(app) as session, session.get("/") as response:
        await response.read()
        assert await app.end() == [{"type": "http.request", "body": b"", "more_body": False}]


async def test_a_request_and_its_response_may_overlap(serve: Serve) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            if message["body"]:
                await send(body(message["body"].upper(), more=True))
        await send(body())

    answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def pieces() -> AsyncIterator[bytes]:
        for word in (b"one", b"two", b"three"):
            yield word
            assert await answers.get() == word.upper()

    async with serve(service) as session, session.post("/", data=pieces()) as response:
        async for chunk in response.content.iter_any():
            answers.put_nowait(chunk)
    assert answers.empty()


async def test_100_continue_is_said_before_the_body_is_sent(serve: Serve) -> None:
    async with serve(echo) as session, session.post("/", data=b"at last", expect100=True) as response:
        assert (response.status, await response.read()) == (200, b"at last")


async def test_an_app_that_answers_without_reading_does_not_ask_for_the_body(serve: Serve, expected: Expected) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(413, (b"content-length", b"0")))
        await send(body())

    async with serve(refuse) as session, raw(session) as connection:
        await connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        status, _, _ = await connection.head()
        assert status == expected(413)


# The response.


@pytest.mark.parametrize("size", [0, 1, 65_536, 3 * MIB])
@pytest.mark.parametrize("with_length", [True, False])
async def test_a_response_of_any_size_arrives_as_it_was_sent(serve: Serve, size: int, with_length: bool) -> None:
    data = noise(size)

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, *([(b"content-length", b"%d" % size)] if with_length else [])))
        for at in range(0, size, 100_000):
            await send(body(data[at : at + 100_000], more=True))
        await send(body())

    async with serve(service) as session, session.get("/") as response:
        assert response.headers.get("Content-Length") == (f"{size}" if with_length else None)
        assert response.headers.get("Transfer-Encoding") == (None if with_length else "chunked")
        assert await response.read() == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_the_body_may_be_of_any_bytes_like_type(serve: Serve, kind: type) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send({"type": "http.response.body", "body": kind(b"data")})

    async with serve(service) as session, session.get("/") as response:
        assert await response.read() == b"data"


async def test_chunks_reach_the_client_while_the_app_runs(serve: Serve) -> None:
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for n in range(5):
            await send(body(b"chunk %d" % n, more=True))
            assert await seen.get() == b"chunk %d" % n
        await send(body())

    app = App(service)
    async with serve(app) as session, session.get("/") as response:
        async for chunk, _ in response.content.iter_chunks():
            seen.put_nowait(chunk)
        await app.end()


async def test_the_head_reaches_the_client_before_there_is_a_body(serve: Serve) -> None:
    seen = asyncio.Event()

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(201, (b"x-early", b"yes")))
        await seen.wait()
        await send(body(b"late"))

    async with serve(service) as session, session.get("/") as response:
        assert (response.status, response.headers["X-Early"]) == (201, "yes")
        seen.set()
        assert await response.read() == b"late"


@pytest.mark.parametrize("with_length", [True, False])
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_these_responses_have_no_body_and_the_connection_goes_on(
    serve: Serve, method: str, status: int, with_length: bool
) -> None:
    with_length = with_length and status != 204

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/then":
            await send(start(200, LENGTH_2))
            await send(body(b"ok"))
            return
        await send(start(status, *([(b"content-length", b"0" if status == 304 else b"5")] if with_length else [])))
        await send(body(b"" if status in (204, 304) else b"never"))

    async with serve(service) as session:
        async with session.request(method, "/") as response:
            assert (response.status, await response.read()) == (status, b"")
        async with session.get("/then") as response:
            assert await response.read() == b"ok"


@pytest.mark.parametrize("status", [200, 201, 299, 302, 400, 404, 418, 451, 499, 500, 503, 599, 600, 999])
async def test_every_status_reaches_the_client(serve: Serve, expected: Expected, status: int) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(status, LENGTH_2))
        await send(body(b"ok"))

    async with serve(service) as session:
        try:
            async with session.get("/", allow_redirects=False) as response:
                got: int | None = response.status
        except ServerDisconnectedError:
            got = None
    assert got == expected(status, f"{status}")


async def test_the_reason_phrase_is_that_of_the_status(serve: Serve, expected: Expected) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(404, LENGTH_2))
        await send(body(b"no"))

    async with serve(service) as session, session.get("/") as response:
        assert response.reason == expected("Not Found")


async def test_a_transfer_encoding_of_the_apps_own_beside_a_content_length(serve: Serve, expected: Expected) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"transfer-encoding", b"chunked"), LENGTH_2))
        await send(body(b"ok"))

    answer: object
    async with serve(service) as session:
        try:
            async with session.get("/") as response:
                names = {"Transfer-Encoding", "Content-Length"} & response.headers.keys()
                answer = (names, await response.read())
        except ClientResponseError as exc:
            answer = exc.status
    assert answer == expected(({"Content-Length"}, b"ok"))


async def test_headers_arrive_in_order_with_their_duplicates(serve: Serve) -> None:
    given = [(b"x-b", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"2"), (b"set-cookie", b"b=2; Path=/"), (b"x-b", b"3")]

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, *given, LENGTH_2, (b"x-latin", b"caf\xe9")))
        await send(body(b"ok"))

    async with serve(service) as session, session.get("/") as response:
        raw_headers = [(name.lower(), value) for name, value in response.raw_headers]
        assert [header for header in raw_headers if header[0] in (b"x-a", b"x-b", b"set-cookie")] == given
        assert dict(raw_headers)[b"x-latin"] == b"caf\xe9"
        assert {name: cookie.value for name, cookie in response.cookies.items()} == {"a": "1", "b": "2"}


async def test_the_headers_that_are_added(serve: Serve, expected: Expected) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, LENGTH_2, (b"x-mine", b"1")))
        await send(body(b"ok"))

    async with serve(service) as session, session.get("/") as response:
        added = {name.lower() for name in response.headers} - {"x-mine", "content-length"}
        assert added == expected(set())


# The connection.


async def test_a_connection_is_kept_for_the_next_request(serve: Serve) -> None:
    pooled: list[object] = []
    async with serve(echo) as session:
        assert session.connector is not None
        for n in range(3):
            async with session.post("/", data=b"%d" % n) as response:
                assert await response.read() == b"%d" % n
            [[(protocol, _)]] = session.connector._conns.values()
            pooled.append(protocol)
    assert pooled == [pooled[0]] * 3


async def test_requests_that_do_not_wait_for_the_answer_to_the_one_before(serve: Serve, expected: Expected) -> None:
    answers: list[tuple[int, bytes]] = []
    async with serve(echo) as session, raw(session) as connection:
        requests = [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n%d" % n for n in range(3)]
        await connection.send(b"".join(requests))
        with suppress(ServerDisconnectedError):
            while len(answers) < len(requests):
                status, _, data = await connection.response()
                answers.append((status, data))
    assert answers == expected([(400, b"there must be nothing after the end of a request\n")])


async def test_a_connection_is_closed_after_a_response_that_says_so(serve: Serve) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, LENGTH_2, (b"connection", b"close")))
        await send(body(b"ok"))

    async with serve(service) as session, raw(session) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        status, headers, data = await connection.response()
        assert (status, headers["Connection"], data) == (200, "close", b"ok")
        await connection.end()


async def test_a_connection_is_closed_after_a_request_that_says_so(serve: Serve) -> None:
    async with serve(ok) as session, raw(session) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        status, headers, data = await connection.response()
        assert (status, headers["Connection"].lower(), data) == (200, "close", b"ok")
        await connection.end()


async def test_an_early_response_reaches_a_client_that_is_uploading(serve: Serve) -> None:
    seen = asyncio.Event()

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/next":
            await ok(scope, receive, send)
            return
        await receive()
        await send(start(413, (b"content-length", b"7")))
        await send(body(b"too big"))

    async def endless() -> AsyncIterator[bytes]:
        while not seen.is_set():
            yield bytes(10)
            await asyncio.sleep(0)

    async with serve(refuse) as session:
        async with session.post("/", data=endless()) as response:
            assert (response.status, await response.read()) == (413, b"too big")
        seen.set()
        async with session.post("/next", data=b"again") as response:
            assert (response.status, await response.read()) == (200, b"ok")


# The end of the client.


async def answer_half(scope: Scope, receive: Receive, send: Send) -> None:
    await body_of(receive)
    await send(start())
    await send(body(b"half", more=True))


@pytest.mark.parametrize("leave", ["close", "abort", "session"])
async def test_receive_tells_that_the_client_has_left(serve: Serve, leave: str) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await answer_half(scope, receive, send)
        await receive()

    app = App(service)
    async with serve(app) as session, session.get("/") as response:
        assert await response.content.readany() == b"half"
        if leave == "close":
            response.close()
        elif leave == "abort":
            sever(response)
        else:
            await session.close()
        assert (await app.end())[-1] == DISCONNECT


async def test_receive_tells_that_a_client_that_waits_for_the_head_has_left(serve: Serve) -> None:
    asked = asyncio.Event()

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await body_of(receive)
        asked.set()
        await receive()

    app = App(service)
    async with serve(app) as session:
        request = asyncio.ensure_future(session.get("/"))
        await asked.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (await app.end())[-1] == DISCONNECT


async def test_receive_tells_that_a_client_has_left_in_the_middle_of_its_body(serve: Serve) -> None:
    asked = asyncio.Event()
    never = asyncio.Event()

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"half"
        asked.set()
        await until_disconnect(receive)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        await never.wait()

    app = App(service)
    async with serve(app) as session:
        request = asyncio.ensure_future(session.post("/", data=pieces()))
        await asked.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (await app.end())[-1] == DISCONNECT


async def test_each_further_receive_tells_that_the_client_has_left(serve: Serve, expected: Expected) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await answer_half(scope, receive, send)
        await until_disconnect(receive)
        assert await waits(receive()) == expected(False, "waits")

    app = App(service)
    async with serve(app) as session, session.get("/") as response:
        assert await response.content.readany() == b"half"
        response.close()
        assert (await app.end())[-2:] == expected([DISCONNECT, DISCONNECT], "messages")


async def test_sending_after_the_client_has_left_does_nothing(serve: Serve) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await answer_half(scope, receive, send)
        await until_disconnect(receive)
        for _ in range(3):
            await send(body(bytes(MIB), more=True))
        await send(body())

    app = App(service)
    async with serve(app) as session, session.get("/") as response:
        assert await response.content.readany() == b"half"
        response.close()
        await app.end()


async def test_receive_tells_that_the_response_is_complete(serve: Serve) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await ok(scope, receive, send)
        await receive()

    app = App(service)
    async with serve(app) as session, session.get("/") as response:
        assert await response.read() == b"ok"
        assert (await app.end())[-1] == DISCONNECT


# Backpressure.


async def standstill(count: Callable[[], int]) -> None:
    """Return when the number has first grown, and then has not grown for a hundred turns of the event loop."""
    before, turns = 0, 0
    while before == 0 or turns < 100:
        await asyncio.sleep(0)
        before, turns = (now := count()), turns + 1 if now == before else 0


async def test_an_app_that_floods_is_stopped_and_is_let_go_when_the_client_reads(serve: Serve) -> None:
    sent = 0
    total = 64 * MIB

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        while sent < total:
            await send(body(bytes(MIB), more=True))
            sent += MIB
        await send(body())

    async with serve(flood) as session, session.get("/") as response:
        await standstill(lambda: sent)
        assert sent < total
        received = 0
        async for chunk in response.content.iter_any():
            received += len(chunk)
    assert received == sent == total


async def test_an_app_that_is_in_send_is_let_go_when_the_client_leaves(serve: Serve) -> None:
    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(64):
            await send(body(bytes(MIB), more=True))

    app = App(flood)
    async with serve(app) as session, session.get("/") as response:
        await response.content.readany()
        response.close()
        await app.end()


async def test_a_client_that_floods_is_stopped(serve: Serve) -> None:
    go = asyncio.Event()
    total = 64 * MIB
    yielded = 0

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await go.wait()
        await ok(scope, receive, send)

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal yielded
        while yielded < total:
            yielded += MIB
            yield bytes(MIB)

    async with serve(service) as session:
        request = asyncio.ensure_future(session.post("/", data=pieces()))
        await standstill(lambda: yielded)
        assert yielded < total
        go.set()
        async with await request as response:
            assert await response.read() == b"ok"
    assert yielded == total


# Requests that no client should send.


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
    ],
    ids=["a length that is none", "two lengths", "a space in a name", "a null", "a control in the target", "nonsense"],
)
async def test_a_bad_request_is_refused_and_the_connection_closed(
    serve: Serve, expected: Expected, head: bytes, status: int, request: pytest.FixtureRequest
) -> None:
    app = Teller()
    async with serve(app) as session, raw(session) as connection:
        await connection.send(head)
        got, _, _ = await connection.response()
        case = request.node.callspec.id.partition("-")[2]
        assert got == expected(status, case)
        await connection.end()
    assert not app.scopes


@pytest.mark.parametrize("size", [10 * KIB, 100 * KIB])
async def test_a_large_header_is_read_or_refused(serve: Serve, expected: Expected, size: int) -> None:
    async with serve(ok) as session:
        async with session.get("/", headers={"X-Large": "x" * size}) as response:
            assert response.status == expected(431 if size > 64 * KIB else 200, f"{size // KIB} KiB")
        async with session.get("/") as response:
            assert response.status == 200


# Exceptions of the app.


async def test_an_app_that_fails_before_the_start_is_500(serve: Serve, expected: Expected) -> None:
    error = RuntimeError("a bug")

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    app = App(fail)
    async with serve(app) as session, session.get("/") as response:
        assert response.status == 500
        assert await response.read() == expected(b"Internal Server Error", "body")
        with pytest.raises(RuntimeError) as caught:
            await app.end()
    assert caught.value is error


@pytest.mark.parametrize("with_length", [True, False])
async def test_an_app_that_fails_in_the_middle_cuts_the_response_off(serve: Serve, with_length: bool) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, *([(b"content-length", b"100")] if with_length else [])))
        await send(body(b"half", more=True))
        raise RuntimeError("a bug")

    app = App(fail)
    async with serve(app) as session, session.get("/") as response:
        with pytest.raises(ClientPayloadError):
            await response.read()
        with pytest.raises(RuntimeError, match="a bug"):
            await app.end()


async def test_an_app_that_fails_once_its_response_is_complete_does_no_harm(serve: Serve) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await ok(scope, receive, send)
        raise RuntimeError("a bug")

    app = App(fail)
    async with serve(app) as session:
        for _ in range(2):
            async with session.get("/") as response:
                assert (response.status, await response.read()) == (200, b"ok")
            with pytest.raises(RuntimeError, match="a bug"):
                await app.end()


async def test_what_an_app_raises_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    error = RuntimeError("a bug")

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    async with serve(fail) as session, session.get("/"):
        pass
    logged = [record for record in caplog.records if record.exc_info and record.exc_info[1] is error]
    assert [record.levelno for record in logged] == [logging.ERROR]


@pytest.mark.parametrize("messages", [[], [body(b"early")], [{"type": "http.request"}]], ids=["none", "body", "other"])
async def test_an_app_that_does_not_start_a_response_is_500(serve: Serve, messages: list[Message]) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    async with serve(service) as session, session.get("/") as response:
        assert response.status == 500


async def test_an_app_that_does_not_finish_its_response_cuts_it_off(serve: Serve) -> None:
    async with serve(answer_half) as session, session.get("/") as response:
        with pytest.raises(ClientPayloadError):
            await response.read()


LONGER: Final = "Response content longer than Content-Length"
SENTENCES: Final[dict[str, tuple[list[Message], str]]] = {
    "a body before the start": (
        [body(b"early")],
        "Expected ASGI message 'http.response.start', but got 'http.response.body'.",
    ),
    "a second start": (
        [start(), start()],
        "Expected ASGI message 'http.response.body', but got 'http.response.start'.",
    ),
    "a message after the end": (
        [start(), body(b"all"), body(b"more")],
        "Unexpected ASGI message 'http.response.body' sent, after response already completed.",
    ),
    "a body that is too long": (
        [start(200, LENGTH_2), body(b"three")],
        f"{LONGER}: 5 bytes were sent when 2 were left.",
    ),
    "a body after a 204": (
        [start(204), body(b"three")],
        f"{LONGER}: a response with status 204 or 304 has no body, but 5 bytes were sent.",
    ),
    "a body after a 304": (
        [start(304), body(b"three", more=True)],
        f"{LONGER}: a response with status 204 or 304 has no body, but 5 bytes were sent.",
    ),
    "a body that is too short": (
        [start(200, LENGTH_2), body(b"1")],
        "Response content shorter than Content-Length: it ends when 1 bytes are left.",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
async def test_an_http_message_out_of_turn_is_an_error_that_says_what_was_expected(
    serve: Serve, expected: Expected, name: str
) -> None:
    messages, sentence = SENTENCES[name]

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    app = App(service)
    async with serve(app) as session:
        with suppress(ClientPayloadError, ServerDisconnectedError):
            async with session.get("/") as response:
                await response.read()
        error: Exception | None = None
        try:
            await app.end()
        except Exception as exc:
            error = exc
    assert type(error).__name__ == expected("ASGIProtocolError", f"{name}, type")
    assert str(error) == expected(sentence, name)


# The lifespan.


class Service:
    """An app with a lifespan. It records what happens."""

    def __init__(self, *, fails: str = "") -> None:
        self.log: list[str] = []
        self.states: list[dict[str, object]] = []
        self.pool = object()
        self._fails = fails

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            if self._fails == "unsupported":
                raise NotImplementedError
            await self._lifespan(scope, receive, send)
            return
        self.log.append("request")
        self.states.append(dict(scope["state"]))
        scope["state"]["mine"] = len(self.states)
        await ok(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        if self._fails == "startup.failed":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        if self._fails == "startup":
            raise RuntimeError("no database")
        scope["state"]["pool"] = self.pool
        self.log.append("startup")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        self.log.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})


@pytest.mark.parametrize("lifespan", ["auto", "on"])
async def test_the_startup_runs_before_the_first_request_and_the_shutdown_after_the_last(
    serve: Serve, lifespan: str
) -> None:
    service = Service()
    async with serve(service, lifespan=lifespan) as session:
        for _ in range(2):
            await (await session.get("/")).read()
        assert service.log == ["startup", "request", "request"]
    assert service.log == ["startup", "request", "request", "shutdown"]


async def test_the_state_is_in_each_requests_scope_as_a_copy_of_its_own(serve: Serve) -> None:
    service = Service()
    async with serve(service, lifespan="on") as session:
        for _ in range(2):
            await (await session.get("/")).read()
    assert service.states == [{"pool": service.pool}] * 2
    assert all(state["pool"] is service.pool for state in service.states)


async def test_an_app_that_does_not_support_a_lifespan_is_served_without(serve: Serve) -> None:
    service = Service(fails="unsupported")
    async with serve(service, lifespan="auto") as session, session.get("/") as response:
        assert response.status == 200
    assert service.log == ["request"]


@pytest.mark.parametrize("fails", ["startup.failed", "startup", "unsupported"])
@pytest.mark.parametrize("lifespan", ["auto", "on"])
async def test_an_app_whose_startup_fails_is_not_served(
    serve: Serve, expected: Expected, lifespan: str, fails: str
) -> None:
    service = Service(fails=fails)
    error = ""
    try:
        async with serve(service, lifespan=lifespan):
            pass
    except DidNotStartError as exc:
        error = type(exc.__cause__).__name__
    usual = "" if (lifespan, fails) == ("auto", "unsupported") else "LifespanError"
    assert error == expected(usual, f"{lifespan}, {fails}")


def test_every_row_of_the_table_about_http_was_looked_up(request: pytest.FixtureRequest) -> None:
    check_that_each_row_was_looked_up(request)
