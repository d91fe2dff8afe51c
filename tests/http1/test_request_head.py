"""The reader of request heads and bodies: each of its rules, and the same bytes in aiohttp's own server parser."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_connector._http1.request import (
    BadRequest,
    BodyReader,
    ChunkedReader,
    LengthReader,
    connection_options,
    parse_fields,
    parse_request_line,
)
from tests.support.effort import examples

TOKEN_BYTES = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
EVERY_BYTE = [bytes([value]) for value in range(256)]


def accepted(read: Callable[[bytes], object], data: bytes) -> bool:
    try:
        read(data)
    except BadRequest:
        return False
    return True


def refusal(read: Callable[[bytes], object], data: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(data)
    assert str(caught.value) == caught.value.reason != ""
    return caught.value


# The request line.


@pytest.mark.parametrize(
    ("line", "method", "target", "version"),
    [
        (b"GET / HTTP/1.1", "GET", b"/", "1.1"),
        (b"GET / HTTP/1.0", "GET", b"/", "1.0"),
        (b"DELETE /a/b?c=d&e=%20 HTTP/1.1", "DELETE", b"/a/b?c=d&e=%20", "1.1"),
        (b"get / HTTP/1.1", "get", b"/", "1.1"),
        (b"MADE-UP!#$%&'*+.^_`|~09 / HTTP/1.1", "MADE-UP!#$%&'*+.^_`|~09", b"/", "1.1"),
        (b"GET //evil.example/ HTTP/1.1", "GET", b"//evil.example/", "1.1"),
        (b"GET /? HTTP/1.1", "GET", b"/?", "1.1"),
        (b"GET /?a?b HTTP/1.1", "GET", b"/?a?b", "1.1"),
    ],
)
def test_a_request_line_is_read_as_it_is_written(line: bytes, method: str, target: bytes, version: str) -> None:
    read = parse_request_line(line)
    assert (read.method, read.target, read.http_version) == (method, target, version)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "three parts"),
        (b"GET", "three parts"),
        (b"GET /", "three parts"),
        (b"GET HTTP/1.1", "three parts"),
        (b"GET /a b HTTP/1.1", "three parts"),
        (b"GET  / HTTP/1.1", "three parts"),
        (b"GET /  HTTP/1.1", "three parts"),
        (b" GET / HTTP/1.1", "three parts"),
        (b"GET / HTTP/1.1 ", "three parts"),
        (b"GET\t/\tHTTP/1.1", "three parts"),
        (b" / HTTP/1.1", "method"),
        (b"GET: / HTTP/1.1", "method"),
        ("GÉT / HTTP/1.1".encode(), "method"),
        (b"\r\nGET / HTTP/1.1", "method"),
        (b"GET  HTTP/1.1", "target"),
        (b"GET a HTTP/1.1", "target"),
        (b"GET * HTTP/1.1", "target"),
        (b"OPTIONS * HTTP/1.1", "target"),
        (b"GET ?a=b HTTP/1.1", "target"),
        (b"GET http://app.internal/ HTTP/1.1", "target"),
        (b"GET app.internal:80 HTTP/1.1", "target"),
        ("GET /ü HTTP/1.1".encode(), "target"),
        ("GET /?ü HTTP/1.1".encode(), "target"),
        (b"GET / HTTP/0.9", "version"),
        (b"GET / HTTP/1.2", "version"),
        (b"GET / HTTP/2.0", "version"),
        (b"GET / HTTP/1", "version"),
        (b"GET / HTTP/1.", "version"),
        (b"GET / HTTP/1.10", "version"),
        (b"GET / HTTP/01.1", "version"),
        (b"GET / http/1.1", "version"),
        (b"GET / HTTPS/1.1", "version"),
        (b"GET / HTTP/1.1\r", "version"),
        (b"GET / ", "version"),
    ],
)
def test_a_malformed_request_line_is_refused(line: bytes, reason: str) -> None:
    problem = refusal(parse_request_line, line)
    assert problem.status == 400
    assert reason in problem.reason


@pytest.mark.parametrize("line", [b"CONNECT app.internal:80 HTTP/1.1", b"CONNECT / HTTP/1.0"])
def test_connect_is_not_implemented(line: bytes) -> None:
    assert refusal(parse_request_line, line).status == 501


def test_only_the_bytes_of_a_token_make_a_method() -> None:
    served = {byte for byte in EVERY_BYTE if accepted(parse_request_line, b"A" + byte + b"Z / HTTP/1.1")}
    assert served == {bytes([value]) for value in TOKEN_BYTES}


@pytest.mark.parametrize("target", [b"/a%sz", b"/?a%sz"], ids=["path", "query"])
def test_only_visible_ascii_makes_a_target(target: bytes) -> None:
    served = {byte for byte in EVERY_BYTE if accepted(parse_request_line, b"GET " + target % byte + b" HTTP/1.1")}
    assert served == {bytes([value]) for value in range(0x21, 0x7F)}


# The header fields.


def test_no_header_at_all_is_a_request_without_a_body() -> None:
    fields = parse_fields(b"")
    assert fields.headers == []
    assert (fields.content_length, fields.chunked, fields.close, fields.expect_continue) == (0, False, False, False)


def test_header_names_are_lower_case_in_order_and_duplicates_are_kept() -> None:
    fields = parse_fields(b"X-Two: 2\r\nx-one: 1\r\nX-TWO: 3\r\nAccept: a, b")
    assert fields.headers == [(b"x-two", b"2"), (b"x-one", b"1"), (b"x-two", b"3"), (b"accept", b"a, b")]


@pytest.mark.parametrize("value", [b"", b":", b"a: b", b"a\tb", b"\xff\x80", "ü€".encode(), b'"quoted, \\" text"'])
def test_a_header_value_is_kept_byte_for_byte(value: bytes) -> None:
    assert parse_fields(b"X: " + value + b"\r\nY: z").headers == [(b"x", value), (b"y", b"z")]


@pytest.mark.parametrize("value", [b" v", b"\tv", b"v ", b"v\t", b" \t v \t "])
def test_whitespace_around_a_value_is_not_part_of_it(value: bytes) -> None:
    """RFC 9110, 5.5. Users write it by accident, and every server removes it."""
    assert parse_fields(b"X: " + value).headers == [(b"x", b"v")]


@pytest.mark.parametrize(
    "block",
    [
        b"X",
        b"X:",
        b"X:v",
        b"X v",
        b"X:\tv",
        b": v",
        b"\r\nX: v",
        b"X: v\r\n",
        b"X: v\r\n\r\nY: w",
        b" X: v",
        b"\tX: v",
        b"X : v",
        b"X\t: v",
        b"X:Y: v",
        b"X Y: v",
        b"X: v\r\n continued",
        b"X: v\r\n\tcontinued",
        b"X: v\r\n Y: w",
        b"X: v\r\n: w",
        "Ü: v".encode(),
        "X\u2003: v".encode(),
        b"X: v\rY: w",
        b"X: v\nY: w",
        b"X: v\n\rY: w",
        b"X: v\r\r\nY: w",
        b"X: v\n\nY: w",
        b"X: v\r",
        b"X: v\n",
        b"\rX: v",
        b"\nX: v",
    ],
)
def test_a_malformed_header_is_refused(block: bytes) -> None:
    assert refusal(parse_fields, block).status == 400


@pytest.mark.parametrize("place", [b"%sX: v", b"X%sY: v", b"X%s: v"], ids=["first", "within", "last"])
def test_only_the_bytes_of_a_token_make_a_header_name(place: bytes) -> None:
    served = {byte for byte in EVERY_BYTE if accepted(parse_fields, place % byte)}
    assert served == {bytes([value]) for value in TOKEN_BYTES}


@pytest.mark.parametrize("place", [b"X: v%sw", b"A: b\r\nX: v%sw\r\nC: d"], ids=["alone", "among others"])
def test_no_control_byte_but_tab_is_in_a_header_value(place: bytes) -> None:
    served = {byte for byte in EVERY_BYTE if accepted(parse_fields, place % byte)}
    assert served == {b"\t"} | {bytes([value]) for value in range(0x20, 0x100) if value != 0x7F}


@pytest.mark.parametrize(
    ("value", "length"), [(b"0", 0), (b"5", 5), (b"005", 5), (b"9999999999999999999", 9999999999999999999)]
)
def test_content_length_is_the_length_of_the_body(value: bytes, length: int) -> None:
    fields = parse_fields(b"A: b\r\nContent-Length: " + value)
    assert fields.content_length == length
    assert not fields.chunked


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"-1",
        b"+1",
        b"1.0",
        b"1e3",
        b"0x10",
        b"1_0",
        b"1 0",
        b"1,1",
        b"1, 1",
        b"ten",
        "\u0661".encode(),
        "\uff11".encode(),
        b"\xb2",
        b"9" * 20,
        b"9" * 5000,
    ],
)
def test_a_content_length_that_is_no_number_is_refused(value: bytes) -> None:
    assert "Content-Length" in refusal(parse_fields, b"Content-Length: " + value).reason


@pytest.mark.parametrize("other", [b"5", b"6", b"0"])
def test_two_content_lengths_are_refused_even_if_they_agree(other: bytes) -> None:
    problem = refusal(parse_fields, b"Content-Length: 5\r\nX: y\r\ncontent-length: " + other)
    assert "more than one Content-Length" in problem.reason


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED"])
def test_transfer_encoding_chunked_is_read(value: bytes) -> None:
    assert parse_fields(b"Transfer-Encoding: " + value).chunked


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"identity",
        b"gzip",
        b"gzip, chunked",
        b"chunked, gzip",
        b"chunked, chunked",
        b"chunked,",
        b",chunked",
        b"xchunked",
        b"chunkedx",
        b"chunked;q=1",
        b'"chunked"',
        "chun\u212aed".encode(),  # the kelvin sign, whose lower case is a k
    ],
)
def test_a_transfer_encoding_other_than_chunked_is_refused(value: bytes) -> None:
    assert "Transfer-Encoding" in refusal(parse_fields, b"Transfer-Encoding: " + value).reason


def test_two_transfer_encodings_are_refused() -> None:
    assert refusal(parse_fields, b"Transfer-Encoding: chunked\r\ntransfer-encoding: chunked").status == 400


@pytest.mark.parametrize(
    "block",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"transfer-encoding: chunked\r\nX: y\r\ncontent-length: 0",
    ],
)
def test_transfer_encoding_beside_content_length_is_refused(block: bytes) -> None:
    assert "both Content-Length and Transfer-Encoding" in refusal(parse_fields, block).reason


@pytest.mark.parametrize(
    ("block", "close"),
    [
        (b"Connection: close", True),
        (b"connection: CLOSE", True),
        (b"Connection: keep-alive, close", True),
        (b"Connection: keep-alive,close\t,x", True),
        (b"Connection: close\r\nConnection: keep-alive", True),
        (b"Connection: keep-alive\r\nConnection: close", True),
        (b"Connection: keep-alive", False),
        (b"Connection: closed", False),
        (b"Connection: not close", False),
        (b"Connection: ", False),
        (b"X-Connection: close", False),
    ],
)
def test_connection_close_is_one_of_the_options(block: bytes, close: bool) -> None:
    assert parse_fields(block).close is close


def test_connection_options_are_split_at_commas() -> None:
    assert connection_options(b"Keep-Alive,\t Upgrade ,close") == [b"keep-alive", b"upgrade", b"close"]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"Expect: 100-continue", True),
        (b"expect: 100-Continue", True),
        (b"Expect: something else", False),
        (b"Expect: ", False),
        (b"X-Expect: 100-continue", False),
    ],
)
def test_expect_100_continue_is_noted(block: bytes, expected: bool) -> None:
    assert parse_fields(block).expect_continue is expected


# Bodies. Each case is read at once, byte by byte, and with bytes after the body.


Feed = Callable[[BodyReader, bytes], tuple[bytes, bytes]]


def feed_pieces(reader: BodyReader, pieces: Iterable[bytes]) -> tuple[bytes, bytes]:
    """As the server does: when the body is complete, its reader gets no more bytes."""
    body = rest = b""
    for piece in pieces:
        if reader.complete:
            rest += piece
            continue
        more, rest = reader.feed(piece)
        body += more
        assert not rest or reader.complete
    return body, rest


def feed_whole(reader: BodyReader, data: bytes) -> tuple[bytes, bytes]:
    return feed_pieces(reader, [data])


def feed_byte_by_byte(reader: BodyReader, data: bytes) -> tuple[bytes, bytes]:
    return feed_pieces(reader, (data[at : at + 1] for at in range(len(data))))


ways = pytest.mark.parametrize("feed", [feed_whole, feed_byte_by_byte])
followers = pytest.mark.parametrize(
    "follower", [b"", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"], ids=repr
)


@ways
@followers
@pytest.mark.parametrize("body", [b"a", b"hello", b"\r\n\r\n", b"0\r\n\r\n", bytes(range(256))], ids=repr)
def test_a_body_of_a_known_length_ends_after_its_last_byte(feed: Feed, follower: bytes, body: bytes) -> None:
    reader = LengthReader(len(body))
    assert not reader.complete
    assert feed(reader, body + follower) == (body, follower)
    assert reader.complete


@ways
def test_a_body_of_a_known_length_is_incomplete_before_its_last_byte(feed: Feed) -> None:
    reader = LengthReader(6)
    assert feed(reader, b"hello") == (b"hello", b"")
    assert not reader.complete


def test_a_body_of_length_zero_is_complete_from_the_start() -> None:
    assert LengthReader(0).complete


def in_chunks(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@ways
@followers
@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"0005\r\nhello\r\n0000\r\n\r\n", b"hello"),
        (b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"hello"),
        (in_chunks(b"\r\n", b"\r", b"\n", b"\r\n\r\n"), b"\r\n\r\n\r\n\r\n"),
        (in_chunks(b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"), b"0\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        (in_chunks(bytes(range(256))), bytes(range(256))),
    ],
    ids=repr,
)
def test_a_body_in_chunks_is_decoded(feed: Feed, follower: bytes, wire: bytes, body: bytes) -> None:
    reader = ChunkedReader()
    assert not reader.complete
    assert feed(reader, wire + follower) == (body, follower)
    assert reader.complete


@ways
def test_a_body_in_chunks_is_incomplete_before_its_last_byte(feed: Feed) -> None:
    wire = in_chunks(b"hello", b"!")
    for size in range(len(wire)):
        reader = ChunkedReader()
        body, rest = feed(reader, wire[:size])
        assert b"hello!".startswith(body)
        assert rest == b""
        assert not reader.complete


@ways
@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"1\t\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b"1;\r\n",
        b"1;extension=1\r\n",
        b"1\na\r\n",
        b"1\ra\r\n",
        b"1\r\r\n",
        b"00000000000000001\r\n",
        b"fffffffffffffffff\r\n",
        "\u0661\r\n".encode(),
        b"1\r\nab\r\n",
        b"1\r\na0\r\n",
        b"1\r\na\n\r\n",
        b"1\r\na\r\n\r\n",
        b"0\r\nTrailer: field\r\n\r\n",
        b"0\r\n0\r\n\r\n",
        b"0\r\n \r\n",
        b"1\r\na\r\nGET / HTTP/1.1\r\n\r\n",
    ],
    ids=repr,
)
def test_malformed_chunks_are_refused(feed: Feed, wire: bytes) -> None:
    assert refusal(lambda data: feed(ChunkedReader(), data), wire).status == 400


@pytest.mark.parametrize("start", [b"", b"1\r\na", b"0\r\n"], ids=["size", "chunk end", "last line"])
def test_a_line_between_chunks_that_does_not_end_is_refused_before_it_grows(start: bytes) -> None:
    reader = ChunkedReader()
    reader.feed(start)
    assert refusal(lambda data: feed_byte_by_byte(reader, data), b"1" * 100).status == 400


@st.composite
def cut_up(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """*data* in pieces, some of which may be empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(st.data(), st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.binary(max_size=20))
@settings(max_examples=examples(200), deadline=None)
def test_chunks_are_decoded_wherever_they_are_cut(data: st.DataObject, chunks: list[bytes], follower: bytes) -> None:
    reader = ChunkedReader()
    pieces = data.draw(cut_up(in_chunks(*chunks) + follower))
    assert feed_pieces(reader, pieces) == (b"".join(chunks), follower)
    assert reader.complete


@given(st.data(), st.binary(min_size=1, max_size=80), st.binary(max_size=20))
@settings(max_examples=examples(100), deadline=None)
def test_a_known_length_is_counted_wherever_the_bytes_are_cut(
    data: st.DataObject, body: bytes, follower: bytes
) -> None:
    reader = LengthReader(len(body))
    assert feed_pieces(reader, data.draw(cut_up(body + follower))) == (body, follower)
    assert reader.complete


@given(st.data(), st.binary(max_size=60))
@settings(max_examples=examples(200), deadline=None)
def test_what_is_refused_does_not_depend_on_where_it_is_cut(data: st.DataObject, noise: bytes) -> None:
    wire = data.draw(st.sampled_from([b"", b"1\r\na", b"1\r\na\r\n", b"0\r\n"])) + noise

    def outcome(pieces: list[bytes]) -> tuple[bytes, bytes] | None:
        reader = ChunkedReader()
        try:
            result = feed_pieces(reader, pieces)
        except BadRequest:
            return None
        return result if reader.complete else None

    assert outcome([wire]) == outcome(data.draw(cut_up(wire)))


# The same bytes, read by this package and by aiohttp's own server.


@dataclass
class Read:
    """What a parser makes of a request."""

    method: str
    target: str
    version: str
    headers: list[tuple[bytes, bytes]]
    chunked: bool
    body: bytes


STANDARD_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"})
NEXT_REQUEST = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"


def read_by_us(data: bytes) -> tuple[Read, bytes] | None:
    """The request and what follows it; `None` if it is refused, or not complete."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    start, _, block = head.partition(b"\r\n")
    try:
        line = parse_request_line(start)
        fields = parse_fields(block)
        reader = ChunkedReader() if fields.chunked else LengthReader(fields.content_length)
        body, rest = (b"", rest) if reader.complete else reader.feed(rest)
    except BadRequest:
        return None
    if not reader.complete:
        return None
    read = Read(line.method, line.target.decode("ascii"), line.http_version, fields.headers, fields.chunked, body)
    return read, rest


def read_by_aiohttp(data: bytes) -> Read | HttpProcessingError:
    """*data* is exactly one request. There are no limits here: ours differ, and have their own tests."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    big = 2**20
    parser = HttpRequestParser(
        protocol, loop, big, max_line_size=big, max_headers=big, max_field_size=big, auto_decompress=False
    )
    try:
        messages, _, rest = parser.feed_data(data)
    except HttpProcessingError as problem:
        return problem
    [(message, payload)] = messages
    assert payload.is_eof()
    assert rest == b""
    return Read(
        message.method,
        message.path,
        f"{message.version.major}.{message.version.minor}",
        [(name.lower(), value.strip(b" \t")) for name, value in message.raw_headers],
        bool(message.chunked),
        payload.read_nowait() if payload.total_bytes else b"",
    )


def may_serve_what_aiohttp_refuses(problem: HttpProcessingError) -> bool:
    """What we accept although aiohttp's server does not. The list is complete. None of it changes the framing.

    The app handles fields that appear twice and should not, and a missing `Host`, as on uvicorn. Two fields for the
    length of the body are refused. The old WebSocket handshake is an ordinary header.
    """
    message = str(problem.message)
    if message.startswith("Duplicate"):
        return not ("Content-Length" in message or "Transfer-Encoding" in message)
    return "Missing 'Host' header" in message or "Sec-WebSocket-Key1" in str(problem)


def compare(data: bytes) -> bytes | None:
    """Check that we accept only what aiohttp's server would accept, with the same result.

    Returns the bytes after the request, and `None` for a request that we do not accept.
    """
    served = read_by_us(data)
    if served is None:
        return None
    ours, rest = served
    request = data[: len(data) - len(rest)]
    method, _, after_method = request.partition(b" ")
    if method not in STANDARD_METHODS:
        # We accept methods that are made up, or unknown to aiohttp. Everything else must be the same.
        assert method.decode() == ours.method
        ours.method = "GET"
        request = b"GET " + after_method
    theirs = read_by_aiohttp(request)
    if isinstance(theirs, HttpProcessingError):
        assert may_serve_what_aiohttp_refuses(theirs), theirs
    else:
        assert ours == theirs
    return rest


token = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=6)
field_value = st.text("".join(map(chr, [*range(0x21, 0x7F), 0x20, 0x09, 0xFC, 0x20AC])), max_size=12).map(
    lambda text: text.strip(" \t")
)


@st.composite
def well_formed(draw: st.DrawFn) -> bytes:
    """A request as aiohttp's client writes it."""
    method = draw(st.sampled_from(sorted(STANDARD_METHODS)))
    target = "/" + draw(st.text("".join(map(chr, range(0x21, 0x7F))), max_size=12))
    headers = [("Host", "app.internal"), *draw(st.lists(st.tuples(token.map("x-{}".format), field_value), max_size=4))]
    chunks = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=3))
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    body = b""
    if framing == "length":
        body = b"".join(chunks)
        headers.append(("Content-Length", str(len(body))))
    elif framing == "chunked":
        body = in_chunks(*chunks)
        headers.append(("Transfer-Encoding", "chunked"))
    headers = draw(st.permutations(headers))
    lines = "\r\n".join(f"{name}: {value}" for name, value in headers).encode()
    return method + f" {target} HTTP/1.1\r\n".encode() + lines + b"\r\n\r\n" + body


@given(well_formed())
@settings(max_examples=examples(200), deadline=None)
async def test_what_aiohttp_writes_is_read_as_aiohttp_reads_it(data: bytes) -> None:
    assert compare(data + NEXT_REQUEST) == NEXT_REQUEST


# What an attacker would put in place of a part, or what random changes would not find soon.
METHODS = [b"GET", b"POST", b"get", b"MADE-UP", b"", b"G T", b"GET\t", b"CONNECT", b"PRI", b"\r\nGET", b"G\xc3\x89T"]
TARGETS = [b"/", b"/a?b=c", b"//h/p", b"/a b", b"", b"*", b"http://h/p", b"h:80", b"/\xc3\xbc", b"/\t", b"/#f", b"/?#f"]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/1.1 ", b"http/1.1", b"HTTP/1", b""]
FIELDS = [
    b"X: y",
    b"X: ",
    b"X:y",
    b"X:",
    b"X",
    b": y",
    b" X: y",
    b"\tX: y",
    b"X : y",
    b"X:  y ",
    b"X: y\r\n z",
    b"X: a\x00b",
    b"X: a\rb",
    b"X: a\nb",
    b"X:Y: z",
    b"\xc3\x9c: y",
    b"Host: b",
    b"Content-Length: 0",
    b"Content-Length: 3",
    b"Content-Length: 5",
    b"Content-Length: +3",
    b"Content-Length:  3 ",
    b"Content-Length: 3, 3",
    b"Content-Length: 0x3",
    b"Content-Length: ",
    b"Content-Length : 3",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: \tchunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: ",
    b"Connection: keep-alive",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"Content-Type: text/plain",
    b"Content-Encoding: gzip",
    b"Sec-WebSocket-Key1: x",
]
BODIES = [
    b"",
    b"abc",
    b"abcde",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n",
    b"3;x=y\r\nabc\r\n0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n",
    b"3\nabc\n0\n\n",
    b"g\r\n",
]


def mostly(usual: bytes, all_of_them: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(st.just(usual), st.just(usual), st.sampled_from(all_of_them))


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """A request with errors at any place, usually few."""
    parts = [draw(mostly(b"POST", METHODS)), draw(mostly(b"/", TARGETS)), draw(mostly(b"HTTP/1.1", VERSIONS))]
    fields = draw(st.lists(mostly(b"X: y", FIELDS), max_size=3))
    fields = draw(st.permutations([*draw(st.sampled_from([[b"Host: a"], [b"Host: a"], []])), *fields]))
    data = b"\r\n".join([b" ".join(parts), *fields]) + b"\r\n\r\n"
    framed = b"3\r\nabc\r\n0\r\n\r\n" if b"Transfer-Encoding: chunked" in fields else b"abc"
    data += draw(mostly(framed, BODIES))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        removed = draw(st.integers(0, 2))
        inserted = draw(st.one_of(st.binary(max_size=2), st.sampled_from([b" ", b"\r\n", b"\n", b":", b"0", b"\t"])))
        data = data[:at] + inserted + data[at + removed :]
    return data


@given(hostile(), st.sampled_from([b"", NEXT_REQUEST]))
@settings(max_examples=examples(600), deadline=None)
@example(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"")
@example(b"MADE-UP / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", NEXT_REQUEST)
@example(b"GET / HTTP/1.0\r\n\r\n", b"")
@example(b"GET / HTTP/1.1\r\n\r\n", b"")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key1: x\r\n\r\n", b"")
async def test_what_aiohttp_would_refuse_or_read_as_something_else_is_refused(data: bytes, follower: bytes) -> None:
    compare(data + follower)
