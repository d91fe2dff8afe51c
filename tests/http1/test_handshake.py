"""The opening handshake of a WebSocket: what is accepted, what is refused and how, and the answer."""

import asyncio
import base64
import os
from collections.abc import Iterable

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_connector import ASGIProtocolError
from asgi_connector._http1.handshake import Handshake, accept_head, read_handshake
from asgi_connector._http1.request import BadRequest, Fields, RequestLine, parse_fields, split_list
from asgi_connector._http1.response import build_upgrade_head
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.effort import examples
from tests.support.flow import KIB, MIB, until_it_stops
from tests.support.frames import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONNECT,
    PING,
    PONG,
    TEXT,
    Frame,
    RawSocket,
    binary,
    close_payload,
    disconnect,
    frame,
    in_pieces,
    text,
)
from tests.support.raw import raw_connection

# RFC 6455, 1.3
SAMPLE_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
SAMPLE_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

GET = RequestLine("GET", b"/", "1.1")
EVERY_PARAMETER = (
    b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
    b"server_max_window_bits=10; client_max_window_bits=10"
)
LONG_NUMBER = b"9" * 5000
"""More digits than Python's int() reads."""


def fields_of(*headers: bytes) -> Fields:
    return parse_fields(b"\r\n".join(headers))


def opening(
    *more: bytes,
    upgrade: bytes | None = b"websocket",
    connection: bytes | None = b"Upgrade",
    version: bytes | None = b"13",
    key: bytes | None = SAMPLE_KEY,
) -> list[bytes]:
    """The headers of a handshake, any of which may be missing, and *more*."""
    named = {
        b"Upgrade": upgrade,
        b"Connection": connection,
        b"Sec-WebSocket-Version": version,
        b"Sec-WebSocket-Key": key,
    }
    return [
        b"Host: app.internal",
        *(b"%b: %b" % (name, value) for name, value in named.items() if value is not None),
        *more,
    ]


def request(headers: Iterable[bytes], line: bytes = b"GET /socket HTTP/1.1") -> bytes:
    return b"\r\n".join([line, *headers, b"", b""])


def offered(*values: bytes) -> Handshake:
    """The result of reading a handshake with these values of Sec-WebSocket-Extensions."""
    return read_handshake(GET, fields_of(*opening(*(b"Sec-WebSocket-Extensions: " + value for value in values))))


class Accepting:
    """An app that accepts a WebSocket, or answers HTTP, and keeps its scopes."""

    def __init__(self, **accept: object) -> None:
        self.accept = {**ACCEPT, **accept}
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            assert await receive() == CONNECT
            await send(self.accept)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"plain HTTP"})


# The fields of a request.


@pytest.mark.parametrize("name", [b"Connection", b"connection", b"CONNECTION"])
@pytest.mark.parametrize(
    ("values", "upgrade"),
    [
        ([], False),
        ([b"Upgrade"], True),
        ([b"upgrade"], True),
        ([b"UPGRADE"], True),
        ([b"keep-alive, Upgrade"], True),
        ([b"Upgrade,keep-alive"], True),
        ([b",,\tupgrade\t ,"], True),
        ([b"keep-alive", b"Upgrade"], True),
        ([b"Upgrade", b"keep-alive"], True),
        ([b"close, upgrade"], True),
        ([b"keep-alive"], False),
        ([b""], False),
        ([b"Upgrade Upgrade"], False),
        ([b"Upgrade;q=1"], False),
        ([b"upgraded"], False),
        ([b'"upgrade"'], False),
    ],
)
def test_upgrade_is_an_option_of_the_connection(name: bytes, values: list[bytes], upgrade: bool) -> None:
    fields = fields_of(*(name + b": " + value for value in values))
    assert fields.upgrade is upgrade
    assert fields.websocket is False
    assert fields.close is any(b"close" in value for value in values)


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE"])
@pytest.mark.parametrize(
    ("values", "websocket"),
    [
        ([], False),
        ([b"websocket"], True),
        ([b"WebSocket"], True),
        ([b"WEBSOCKET"], True),
        ([b"websocket, foo"], True),
        ([b"foo,websocket"], True),
        ([b"h2c", b"websocket"], True),
        ([b"websocket", b"h2c"], True),
        ([b"h2c"], False),
        ([b""], False),
        ([b"websocket/13"], False),
        ([b"websockets"], False),
        ([b"web socket"], False),
    ],
)
def test_websocket_is_a_protocol_to_upgrade_to(name: bytes, values: list[bytes], websocket: bool) -> None:
    fields = fields_of(*(name + b": " + value for value in values))
    assert fields.websocket is websocket
    assert fields.upgrade is False


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        (b"", []),
        (b"one", [b"one"]),
        (b"one,two", [b"one", b"two"]),
        (b" one\t,\t two ", [b"one", b"two"]),
        (b",,one,,two,,", [b"one", b"two"]),
        (b"One Two", [b"One Two"]),
        (b" , ", []),
    ],
)
def test_a_list_is_split_at_its_commas(value: bytes, elements: list[bytes]) -> None:
    assert split_list(value) == elements


# What a handshake asks for.


def test_a_plain_handshake_asks_for_nothing_more() -> None:
    assert read_handshake(GET, fields_of(*opening())) == Handshake(SAMPLE_KEY, (), 0, False)


@pytest.mark.parametrize(
    ("values", "subprotocols"),
    [
        ([], ()),
        ([b"chat"], ("chat",)),
        ([b"chat, superchat"], ("chat", "superchat")),
        ([b"chat,superchat"], ("chat", "superchat")),
        ([b"chat", b"superchat"], ("chat", "superchat")),
        ([b"b, a", b"c"], ("b", "a", "c")),
        ([b" ,chat,, ", b""], ("chat",)),
        ([b"Chat, chat"], ("Chat", "chat")),
        ([b"chat, chat"], ("chat", "chat")),
        ([b"v1.chat+json;x"], ("v1.chat+json;x",)),
        ([b"\xfcber"], ("über",)),
    ],
)
async def test_subprotocols_are_read_over_all_lines_in_order(
    values: list[bytes], subprotocols: tuple[str, ...]
) -> None:
    headers = opening(*(b"Sec-WebSocket-Protocol: " + value for value in values))
    assert read_handshake(GET, fields_of(*headers)).subprotocols == subprotocols
    app = Accepting(subprotocol=subprotocols[-1] if subprotocols else None)
    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(request(headers))
        status, answer, _ = await connection.head()
        assert status == 101
        answered = [value.encode(errors="surrogateescape") for value in answer.getall("Sec-WebSocket-Protocol", [])]
        assert answered == [name.encode("latin-1") for name in subprotocols[-1:]]
    assert app.scopes[0]["subprotocols"] == list(subprotocols)


@pytest.mark.parametrize(
    ("values", "compress", "no_context_takeover", "answer"),
    [
        ([b""], 0, False, None),
        ([b"permessage-deflate"], 15, False, "permessage-deflate"),
        ([b"permessage-deflate; client_max_window_bits"], 15, False, "permessage-deflate"),
        ([b"permessage-deflate;client_max_window_bits"], 15, False, "permessage-deflate"),
        ([b"permessage-deflate; client_max_window_bits=8"], 15, False, "permessage-deflate"),
        ([b"permessage-deflate; client_max_window_bits=15"], 15, False, "permessage-deflate"),
        ([b"permessage-deflate; client_no_context_takeover"], 15, False, "permessage-deflate"),
        (
            [b"permessage-deflate; server_no_context_takeover"],
            15,
            True,
            "permessage-deflate; server_no_context_takeover",
        ),
        ([b"permessage-deflate; server_max_window_bits=9"], 9, False, "permessage-deflate; server_max_window_bits=9"),
        (
            [b"permessage-deflate; server_max_window_bits=14"],
            14,
            False,
            "permessage-deflate; server_max_window_bits=14",
        ),
        ([b"permessage-deflate; server_max_window_bits=15"], 15, False, "permessage-deflate"),
        (
            [EVERY_PARAMETER],
            10,
            True,
            "permessage-deflate; server_max_window_bits=10; server_no_context_takeover",
        ),
        # zlib cannot do a window of 8 bits.
        ([b"permessage-deflate; server_max_window_bits=8"], 0, False, None),
        ([b"permessage-deflate; server_max_window_bits=0"], 0, False, None),
        ([b"permessage-deflate; server_max_window_bits=16"], 0, False, None),
        ([b"permessage-deflate; server_max_window_bits=-9"], 0, False, None),
        ([b"permessage-deflate; server_max_window_bits=x"], 0, False, None),
        ([b"permessage-deflate; server_max_window_bits=" + b"9" * 100], 0, False, None),
        ([b"permessage-deflate; server_max_window_bits=" + LONG_NUMBER], 0, False, None),
        ([b"permessage-deflate; unknown"], 0, False, None),
        ([b"permessage-deflate; server_no_context_takeover=1"], 0, False, None),
        ([b"permessage-deflate; =; ;;"], 0, False, None),
        # The first offer that can be accepted.
        ([b"permessage-deflate; server_max_window_bits=8, permessage-deflate"], 15, False, "permessage-deflate"),
        ([b"permessage-deflate; unknown", b"permessage-deflate"], 15, False, "permessage-deflate"),
        (
            [b"permessage-deflate; server_max_window_bits=" + LONG_NUMBER, b"permessage-deflate"],
            15,
            False,
            "permessage-deflate",
        ),
        (
            [b"permessage-deflate; server_max_window_bits=12, permessage-deflate; server_max_window_bits=13"],
            12,
            False,
            "permessage-deflate; server_max_window_bits=12",
        ),
        ([b"foo; bar=1, permessage-deflate"], 15, False, "permessage-deflate"),
        ([b"foo", b"permessage-deflate", b"bar"], 15, False, "permessage-deflate"),
        # Unknown extensions and parameters.
        ([b"foo"], 0, False, None),
        ([b"deflate-frame, x-webkit-deflate-frame"], 0, False, None),
        ([b"permessage-bzip2"], 0, False, None),
        ([b"permessage-deflated"], 0, False, None),
        ([b"x-permessage-deflate"], 0, False, None),
        ([b"foo; bar=permessage-deflate"], 0, False, None),
        ([b"\xff\xfe;;,,=\"'\\"], 0, False, None),
    ],
)
async def test_of_the_extensions_that_are_offered_permessage_deflate_is_taken_as_it_is_offered(
    values: list[bytes], compress: int, no_context_takeover: bool, answer: str | None
) -> None:
    async with session_to(Accepting()) as session, raw_connection(session) as connection:
        await connection.send(request(opening(*(b"Sec-WebSocket-Extensions: " + value for value in values))))
        status, headers, _ = await connection.head()
        assert (status, headers.get("Sec-WebSocket-Extensions")) == (101, answer)
    handshake = offered(*values)
    assert (handshake.compress, handshake.no_context_takeover) == (compress, no_context_takeover)


# Handshakes that are refused.


BAD_KEYS = [
    b"",
    b"x",
    b"dGhlIHNhbXBsZSBub25jZQ",
    b"dGhlIHNhbXBsZSBub25jZQ=",
    b"dGhlIHNhbXBsZSBub25jZQ===",
    b"dGhlIHNhbXBsZSBub25jZ===",
    b"dGhlIHNhbXBs ZSBub25jZQ==",
    b"dGhlIHNhbXBsZSBub25jZ\xff==",
    b"dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
    b'"dGhlIHNhbXBsZSBub25jZQ=="',
    base64.b64encode(bytes(15)),
    base64.b64encode(bytes(17)),
    base64.b64encode(bytes(32)),
    b"A" * 60_000,
]
KEY = "the Sec-WebSocket-Key must be 16 bytes in base64\n"
VERSION = "the Sec-WebSocket-Version must be 13\n"
BODY = "a request that opens a WebSocket must not have a body\n"
FOR_ANOTHER_VERSION = {"upgrade": "websocket", "sec-websocket-version": "13"}


@pytest.mark.parametrize(
    ("data", "status", "reason", "more_headers"),
    [
        pytest.param(request(opening(key=None)), 400, KEY, {}, id="no key"),
        pytest.param(request(opening(b"Sec-WebSocket-Key: " + SAMPLE_KEY)), 400, KEY, {}, id="the same key twice"),
        pytest.param(request(opening(b"Sec-WebSocket-Key: x")), 400, KEY, {}, id="two keys"),
        *(
            pytest.param(request(opening(key=key)), 400, KEY, {}, id=f"key {number}")
            for number, key in enumerate(BAD_KEYS)
        ),
        pytest.param(request(opening(version=None)), 426, VERSION, FOR_ANOTHER_VERSION, id="no version"),
        pytest.param(
            request(opening(b"Sec-WebSocket-Version: 13")), 426, VERSION, FOR_ANOTHER_VERSION, id="the version twice"
        ),
        *(
            pytest.param(
                request(opening(version=version)), 426, VERSION, FOR_ANOTHER_VERSION, id=f"version {version!r}"
            )
            for version in (b"", b"8", b"12", b"14", b"013", b"13.0", b"+13", b"13, 8", b"thirteen", b"\xb1\xb3")
        ),
        *(
            pytest.param(
                request(opening(), f"{method} /socket HTTP/1.1".encode()),
                400,
                f"the method that opens a WebSocket must be GET, not {method}\n",
                {},
                id=method,
            )
            for method in ("POST", "PUT", "OPTIONS", "get", "MADE-UP")
        ),
        pytest.param(request(opening(b"Content-Length: 3")) + b"abc", 400, BODY, {}, id="a body"),
        pytest.param(request(opening(b"Content-Length: 3")), 400, BODY, {}, id="a body to come"),
        pytest.param(
            request(opening(b"Transfer-Encoding: chunked")) + b"3\r\nabc\r\n0\r\n\r\n", 400, BODY, {}, id="chunks"
        ),
        pytest.param(request(opening(b"Transfer-Encoding: chunked")) + b"0\r\n\r\n", 400, BODY, {}, id="no chunks"),
    ],
)
async def test_what_is_no_handshake_is_refused_and_the_app_not_called(
    data: bytes, status: int, reason: str, more_headers: dict[str, str]
) -> None:
    app = Accepting()
    async with session_to(app) as session:
        async with raw_connection(session) as connection:
            await connection.send(data)
            got_status, headers, body = await connection.response()
            assert (got_status, body.decode()) == (status, reason)
            assert {name.lower(): value for name, value in headers.items()} == {
                "content-type": "text/plain; charset=utf-8",
                "content-length": str(len(reason)),
                **more_headers,
                "connection": "close",
            }
            await connection.end()
        async with session.get("/") as response:
            assert await response.read() == b"plain HTTP"
    assert [scope["type"] for scope in app.scopes] == ["http"]


async def test_a_head_request_for_an_upgrade_is_refused_without_a_body() -> None:
    app = Accepting()
    async with session_to(app) as session, raw_connection(session) as connection:
        connection._protocol.set_response_params(skip_payload=True)
        await connection.send(request(opening(), b"HEAD /socket HTTP/1.1"))
        status, headers, body = await connection.response()
        assert (status, body, headers["connection"]) == (400, b"", "close")
        assert int(headers["content-length"]) > 0
        await connection.end()
        assert type(connection._protocol.exception()) is aiohttp.ServerDisconnectedError  # and no second response
    assert app.scopes == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Content-Length": "0"}, None),
    ],
)
async def test_what_a_user_of_ws_connect_adds_is_checked_too(headers: dict[str, str], status: int | None) -> None:
    app = Accepting()

    async def change(req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        req.headers.update(headers)  # here, because aiohttp itself sets these after it has taken the call's headers
        return await handler(req)

    async with session_to(app, session_middlewares=(change,)) as session:
        if status is None:
            async with session.ws_connect("/socket"):
                pass
        else:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect("/socket")
            assert caught.value.status == status
    assert len(app.scopes) == (status is None)


# Handshakes that are accepted.


@pytest.mark.parametrize("upgrade", [b"websocket", b"WebSocket", b"WEBSOCKET", b"websocket, foo", b"h2c,websocket"])
@pytest.mark.parametrize("connection", [b"Upgrade", b"upgrade", b"keep-alive, Upgrade", b"UPGRADE,close"])
async def test_every_spelling_of_an_upgrade_is_accepted_with_the_answer_of_the_rfc(
    upgrade: bytes, connection: bytes
) -> None:
    app = Accepting(headers=[(b"x-one", b"1"), (b"X-Two", b""), (b"x-one", b"2"), (b"set-cookie", b"a=b")])
    async with session_to(app) as session, raw_connection(session) as raw:
        await raw.send(request(opening(upgrade=upgrade, connection=connection)))
        status, headers, _ = await raw.head()
        socket = RawSocket(raw)
        assert status == 101
        assert [(name.lower(), value) for name, value in headers.items()] == [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-accept", SAMPLE_ACCEPT),
            ("x-one", "1"),
            ("x-two", ""),
            ("x-one", "2"),
            ("set-cookie", "a=b"),
        ]
        assert await socket.next() == Frame(CLOSE, close_payload(1000))
    assert [scope["type"] for scope in app.scopes] == ["websocket"]


@pytest.mark.parametrize("byte_by_byte", [False, True])
async def test_a_handshake_is_read_however_it_is_cut(byte_by_byte: bool) -> None:
    data = request(opening(b"Content-Length: 0", b"Sec-WebSocket-Protocol: a"))
    app = Accepting(subprotocol="a")
    async with session_to(app) as session, raw_connection(session) as raw:
        await raw.send(*([bytes([byte]) for byte in data] if byte_by_byte else [data]))
        status, headers, _ = await raw.head()
        assert (status, headers["sec-websocket-protocol"]) == (101, "a")


@pytest.mark.parametrize(
    "data",
    [
        request(opening(), b"GET /socket HTTP/1.0"),
        request(opening(upgrade=None)),
        request(opening(connection=None)),
        request(opening(upgrade=b"h2c")),
        request(opening(upgrade=b"websocket/13")),
        request(opening(connection=b"keep-alive")),
        request(opening(upgrade=b"h2c"), b"POST /socket HTTP/1.1"),
    ],
    ids=["1.0", "no Upgrade", "no Connection", "h2c", "websocket/13", "keep-alive", "POST and h2c"],
)
async def test_what_asks_for_something_else_is_served_as_http(data: bytes) -> None:
    app = Accepting()
    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(data)
        status, headers, body = await connection.response()
        assert (status, body) == (200, b"plain HTTP")
        assert "upgrade" not in headers
    assert [scope["type"] for scope in app.scopes] == ["http"]


# The head of the answer.


def test_the_head_has_the_sample_of_the_rfc() -> None:
    head = accept_head(Handshake(SAMPLE_KEY, ("chat", "superchat"), 0, False), "chat", [(b"X-App", b"y")])
    assert head == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\nX-App: y\r\n\r\n"
    )


@pytest.mark.parametrize("subprotocol", ["", "Chat", "chat ", "superchat, chat", "x\r\ny: z", "\u20ac"])
def test_a_subprotocol_that_was_not_offered_is_refused(subprotocol: str) -> None:
    with pytest.raises(ASGIProtocolError) as caught:
        accept_head(Handshake(SAMPLE_KEY, ("chat", "superchat"), 0, False), subprotocol, [])
    assert repr(subprotocol) in str(caught.value)
    assert "['chat', 'superchat']" in str(caught.value)


def test_a_head_has_the_headers_of_the_handshake_first_and_then_the_apps_as_they_are() -> None:
    head = build_upgrade_head(
        [(b"upgrade", b"websocket")], ([b"X-A", b"1"], (b"x-a", b""), (b"sec-websocket-version", b"\xff\t"))
    )
    assert head == (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nX-A: 1\r\nx-a: \r\n"
        b"sec-websocket-version: \xff\t\r\n\r\n"
    )


@pytest.mark.parametrize("name", [b"sec-websocket-protocol", b"Sec-WebSocket-Protocol"])
@pytest.mark.parametrize("subprotocol", [None, "chat"])
def test_a_subprotocol_among_the_headers_is_an_error_that_says_where_to_put_it(
    name: bytes, subprotocol: str | None
) -> None:
    with pytest.raises(ASGIProtocolError, match=r"Expected the 'subprotocol' of 'websocket\.accept'") as caught:
        accept_head(Handshake(SAMPLE_KEY, ("chat",), 0, False), subprotocol, [(name, b"chat")])
    assert f"{name!r}: b'chat'" in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "quoted"),
    [
        ([(b"x y", b"z")], "b'x y'"),
        ([(b"", b"z")], "b''"),
        ([(b"x\r\ny", b"z")], r"b'x\r\ny'"),
        ([(b"x", b"y\r\nz: 1")], r"b'y\r\nz: 1'"),
        ([(b"x", b"\x00")], r"b'\x00'"),
        ([("x", b"y")], "'x'"),
        ([(b"x", "y")], "'y'"),
        ([(b"x", None)], "None"),
        ([(b"x", b"y", b"z")], "websocket.accept"),
        ([(b"x",)], "websocket.accept"),
        ([1], "websocket.accept"),
        (None, "websocket.accept"),
        (1, "websocket.accept"),
        *(
            ([(name, b"1")], repr(name))
            for name in (
                b"connection",
                b"Content-Length",
                b"Sec-WebSocket-Accept",
                b"sec-websocket-extensions",
                b"Transfer-Encoding",
                b"UPGRADE",
            )
        ),
    ],
)
async def test_headers_that_are_none_or_that_belong_to_the_handshake_are_refused(headers: object, quoted: str) -> None:
    with pytest.raises(ASGIProtocolError) as caught:
        build_upgrade_head([], headers)  # type: ignore[arg-type]
    assert quoted in str(caught.value)
    async with session_to(Accepting(headers=headers)) as session:
        with pytest.raises(ASGIProtocolError) as raised:
            await session.ws_connect("/")
        assert str(raised.value) == str(caught.value)


# Any bytes.


pieces = st.sampled_from(
    [
        b"Upgrade: ",
        b"Connection: ",
        b"Sec-WebSocket-Version: ",
        b"Sec-WebSocket-Key: ",
        b"Sec-WebSocket-Protocol: ",
        b"Sec-WebSocket-Extensions: ",
        b"Content-Length: ",
        b"Transfer-Encoding: ",
        b"websocket",
        b"upgrade",
        b"13",
        SAMPLE_KEY,
        b"permessage-deflate",
        b"server_max_window_bits=",
        b"client_max_window_bits",
        b"server_no_context_takeover",
        b"chunked",
        b"; ",
        b", ",
        b"\r\n",
        b"\r\n",
    ]
)


@given(st.lists(pieces | st.binary(max_size=8), max_size=30).map(b"".join), st.sampled_from(["GET", "POST", "HEAD"]))
@settings(max_examples=examples(300), deadline=None)
def test_no_bytes_make_anything_but_a_handshake_or_a_refusal(block: bytes, method: str) -> None:
    try:
        handshake = read_handshake(RequestLine(method, b"/", "1.1"), parse_fields(block))
    except BadRequest:
        return
    assert handshake.compress == 0 or 9 <= handshake.compress <= 15
    assert accept_head(handshake, None, []).startswith(b"HTTP/1.1 101 ")


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                (
                    b"permessage-deflate|;|,| |=|server_max_window_bits|client_max_window_bits|"
                    b'server_no_context_takeover|client_no_context_takeover|8|10|15|16|x|"'
                ).split(b"|")
            ),
            max_size=12,
        ).map(b"".join),
        max_size=3,
    )
)
@settings(max_examples=examples(300), deadline=None)
def test_no_offer_of_extensions_keeps_a_handshake_from_being_answered(values: list[bytes]) -> None:
    handshake = offered(*values)
    head = accept_head(handshake, None, [])
    assert (b"Sec-WebSocket-Extensions: permessage-deflate" in head) is bool(handshake.compress)


@given(
    st.lists(
        st.text(st.characters(codec="latin-1", exclude_categories=["Cc"], exclude_characters=", \xa0")), max_size=5
    )
)
def test_whatever_subprotocols_are_offered_each_can_be_accepted(names: list[str]) -> None:
    value = ", ".join(names).encode("latin-1")
    handshake = read_handshake(GET, fields_of(*opening(b"Sec-WebSocket-Protocol: " + value)))
    assert handshake.subprotocols == tuple(name for name in names if name)
    for name in handshake.subprotocols:
        assert b"\r\nSec-WebSocket-Protocol: %b\r\n" % name.encode("latin-1") in accept_head(handshake, name, [])


# Frames that arrive before the accept.


class Late:
    """An app that accepts when it may, and keeps what it receives."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.may_accept = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        await self.may_accept.wait()
        await send(ACCEPT)
        while not self.received or self.received[-1]["type"] == "websocket.receive":
            self.received.append(await receive())
        self.ended.set()


@pytest.mark.parametrize("at_once", [True, False], ids=["with the head", "after it"])
@pytest.mark.parametrize("size", [0, 10, 64 * KIB, 300 * KIB, 2 * MIB])
@pytest.mark.parametrize("count", [1, 3])
async def test_frames_that_come_before_the_accept_are_received_after_it(size: int, count: int, at_once: bool) -> None:
    app = Late()
    messages = [b"%d" % number + os.urandom(size) for number in range(count)]
    frames = b"".join([*(frame(BINARY, message) for message in messages), frame(TEXT, b"early"), frame(PING, b"ping")])
    async with session_to(app) as session, raw_connection(session) as connection:
        transport = connection._protocol.transport
        assert isinstance(transport, asyncio.Transport)
        if at_once:
            transport.write(request(opening()) + frames)
        else:
            await connection.send(request(opening()))
            for piece in in_pieces(frames, range(1, len(frames), max(len(frames) // 5, 1))):
                transport.write(piece)
                await asyncio.sleep(0)
        waiting = await until_it_stops(transport.get_write_buffer_size)
        # Only a limited amount is taken before the app reads.
        assert waiting >= len(frames) - 512 * KIB
        assert app.received == []
        app.may_accept.set()
        status, _, _ = await connection.head()
        assert status == 101
        socket = RawSocket(connection)
        assert await socket.next() == Frame(PONG, b"ping")
        await socket.send(frame(CLOSE, close_payload(3000)))
        assert await socket.rest() == [Frame(CLOSE, close_payload(3000))]
        await app.ended.wait()
    assert app.received == [*map(binary, messages), text("early"), disconnect(3000)]


async def test_a_half_of_a_frame_that_comes_before_the_accept_is_completed_after_it() -> None:
    app = Late()
    message = frame(TEXT, b"in two halves")
    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(request(opening()) + message[:5])
        app.may_accept.set()
        await connection.head()
        socket = RawSocket(connection)
        await socket.send(message[5:], frame(CLOSE))
        assert await socket.rest() == [Frame(CLOSE)]
        await app.ended.wait()
    assert app.received == [text("in two halves"), disconnect(1005)]


async def test_a_close_frame_that_comes_before_the_accept_is_answered_after_it() -> None:
    app = Late()
    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(request(opening()) + frame(TEXT, b"bye") + frame(CLOSE, close_payload(4000, b"gone")))
        app.may_accept.set()
        status, _, _ = await connection.head()
        assert status == 101
        assert await RawSocket(connection).rest() == [Frame(CLOSE, close_payload(4000, b"gone"))]
        await app.ended.wait()
    assert app.received == [text("bye"), disconnect(4000, "gone")]


async def test_a_violation_that_comes_before_the_accept_is_answered_after_it() -> None:
    app = Late()
    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(request(opening()) + b"GET / HTTP/1.1\r\n\r\n")
        app.may_accept.set()
        status, _, _ = await connection.head()
        assert status == 101
        socket = RawSocket(connection)
        found = await socket.next()
        assert found is not None
        assert (found.opcode, found.payload[:2]) == (CLOSE, close_payload(1002))
        await app.ended.wait()
    assert app.received[0]["code"] == 1002
