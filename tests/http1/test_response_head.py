"""The head of a response: what the app sent, and the framing that is added. What would split it is refused."""

import http
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_connector import ASGIProtocolError
from asgi_connector._http1.response import Framing, build_head, plain_response
from tests.support.effort import examples

TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VALUE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])

CHUNKED = b"transfer-encoding: chunked\r\n"
CLOSE = b"connection: close\r\n"
LENGTH_5 = b"content-length: 5\r\n"


class Head(NamedTuple):
    data: bytes
    framing: Framing
    content_length: int | None
    close: bool


def head_of(
    status: int = 200,
    headers: Iterable[Iterable[Any]] = (),
    *,
    method: str = "GET",
    http_version: str = "1.1",
    close: bool = False,
) -> Head:
    return Head(*build_head(status, headers, method, http_version, close))


def test_a_known_status_has_its_phrase() -> None:
    for status in http.HTTPStatus:
        expected = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
        assert head_of(status.value).data.startswith(expected)


def test_an_unknown_status_has_an_empty_phrase() -> None:
    for status in (299, 599, 600, 999):
        # The space before the phrase stays (RFC 9112, 4).
        assert head_of(status).data.startswith(b"HTTP/1.1 %d \r\n" % status)


@pytest.mark.parametrize("http_version", ["1.0", "1.1"])
def test_the_status_line_names_our_version_whatever_the_request_had(http_version: str) -> None:
    assert head_of(http_version=http_version).data.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("method", "http_version", "status", "headers", "close", "added", "expected"),
    [
        pytest.param("GET", "1.1", 200, [], False, CHUNKED, (Framing.CHUNKED, None, False), id="no-length-is-chunked"),
        pytest.param(
            "GET",
            "1.1",
            200,
            [],
            True,
            CHUNKED + CLOSE,
            (Framing.CHUNKED, None, True),
            id="no-length-is-chunked-and-closes",
        ),
        pytest.param(
            "GET",
            "1.0",
            200,
            [],
            True,
            CLOSE,
            (Framing.CLOSE, None, True),
            id="no-length-in-1.0-ends-with-the-connection",
        ),
        pytest.param(
            "GET", "1.0", 200, [], False, CLOSE, (Framing.CLOSE, None, True), id="no-length-in-1.0-closes-unasked"
        ),
        pytest.param(
            "GET", "1.1", 200, [(b"content-length", b"5")], False, b"", (Framing.LENGTH, 5, False), id="length"
        ),
        pytest.param(
            "GET", "1.0", 200, [(b"content-length", b"5")], False, b"", (Framing.LENGTH, 5, False), id="length-in-1.0"
        ),
        pytest.param(
            "GET",
            "1.1",
            200,
            [(b"content-length", b"0")],
            False,
            b"",
            (Framing.LENGTH, 0, False),
            id="length-of-nothing",
        ),
        pytest.param("HEAD", "1.1", 200, [], False, b"", (Framing.NO_BODY, None, False), id="head"),
        pytest.param("HEAD", "1.0", 200, [], False, b"", (Framing.NO_BODY, None, False), id="head-in-1.0"),
        pytest.param("HEAD", "1.1", 200, [], True, CLOSE, (Framing.NO_BODY, None, True), id="head-that-closes"),
        pytest.param(
            "HEAD",
            "1.1",
            200,
            [(b"content-length", b"5")],
            False,
            b"",
            (Framing.NO_BODY, 5, False),
            id="head-with-length",
        ),
        pytest.param("GET", "1.1", 204, [], False, b"", (Framing.NO_BODY, None, False), id="204"),
        pytest.param("GET", "1.1", 304, [], False, b"", (Framing.NO_BODY, None, False), id="304"),
        pytest.param(
            "GET",
            "1.1",
            304,
            [(b"content-length", b"5")],
            False,
            b"",
            (Framing.NO_BODY, 5, False),
            id="304-with-length",
        ),
        pytest.param("GET", "1.0", 304, [], True, CLOSE, (Framing.NO_BODY, None, True), id="304-in-1.0"),
        pytest.param("GET", "1.1", 205, [], False, CHUNKED, (Framing.CHUNKED, None, False), id="205"),
        pytest.param("POST", "1.1", 200, [], False, CHUNKED, (Framing.CHUNKED, None, False), id="post"),
        pytest.param("head", "1.1", 200, [], False, CHUNKED, (Framing.CHUNKED, None, False), id="methods-have-a-case"),
    ],
)
def test_framing_is_all_that_is_added(
    method: str,
    http_version: str,
    status: int,
    headers: list[tuple[bytes, bytes]],
    close: bool,
    added: bytes,
    expected: tuple[Framing, int | None, bool],
) -> None:
    head = head_of(status, headers, method=method, http_version=http_version, close=close)
    line, _, rest = head.data.partition(b"\r\n")
    assert line.startswith(b"HTTP/1.1 %d " % status)
    assert rest == b"".join(b"%s: %s\r\n" % header for header in headers) + added + b"\r\n"
    assert head[1:] == expected


def test_headers_go_out_in_order_with_their_duplicates_and_their_case() -> None:
    headers = [
        (b"X-B", b"1"),
        (b"x-a", b""),
        (b"set-cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"Content-Length", b"5"),
    ]
    assert head_of(200, headers).data == (
        b"HTTP/1.1 200 OK\r\nX-B: 1\r\nx-a: \r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 5\r\n\r\n"
    )


@pytest.mark.parametrize("name", [b"transfer-encoding", b"Transfer-Encoding"])
@pytest.mark.parametrize("value", [b"chunked", b"gzip, chunked", b""])
@pytest.mark.parametrize(("length", "framing"), [([], CHUNKED), ([(b"content-length", b"5")], LENGTH_5)])
def test_the_apps_own_transfer_encoding_is_dropped(
    name: bytes, value: bytes, length: list[tuple[bytes, bytes]], framing: bytes
) -> None:
    head = head_of(200, [(name, value), *length, (name, value)])
    assert head.data == b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n"


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close", b"\tclose , foo", b"x" * 99 + b",close"])
@pytest.mark.parametrize("name", [b"connection", b"Connection"])
@pytest.mark.parametrize("close", [False, True])
def test_the_apps_own_connection_close_is_obeyed_and_not_repeated(name: bytes, value: bytes, close: bool) -> None:
    head = head_of(200, [(name, value), (b"content-length", b"5")], close=close)
    assert head.close
    assert head.data == b"HTTP/1.1 200 OK\r\n%s: %s\r\n" % (name, value) + LENGTH_5 + b"\r\n"


def test_any_of_several_connection_headers_may_close() -> None:
    for values in ([b"close", b"keep-alive"], [b"keep-alive", b"close"]):
        assert head_of(200, [(b"connection", value) for value in values]).close


@pytest.mark.parametrize("value", [b"keep-alive", b"", b"closed", b"x-close", b"not close"])
def test_no_other_connection_option_closes(value: bytes) -> None:
    assert not head_of(200, [(b"connection", value), (b"content-length", b"5")]).close


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-a", b"1"), (b"x-b", b"2")],
        [[b"x-a", b"1"], [b"x-b", b"2"]],
        ([b"x-a", b"1"], [b"x-b", b"2"]),
        {b"x-a": b"1", b"x-b": b"2"}.items(),
        iter([(b"x-a", b"1"), (b"x-b", b"2")]),
        (pair for pair in [(b"x-a", b"1"), (b"x-b", b"2")]),
        [iter([b"x-a", b"1"]), iter([b"x-b", b"2"])],
    ],
    ids=["list", "list-of-lists", "tuple-of-lists", "dict-items", "iterator", "generator", "list-of-iterators"],
)
def test_headers_may_be_any_iterable_of_pairs(headers: Iterable[Iterable[bytes]]) -> None:
    assert head_of(204, headers).data == b"HTTP/1.1 204 No Content\r\nx-a: 1\r\nx-b: 2\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        None,
        5,
        [None],
        [b"x"],
        [(b"x-a",)],
        [(b"x-a", b"1", b"2")],
        [()],
        [5],
        [(b"x-ok", b"1"), None],
    ],
)
def test_headers_that_are_no_pairs_are_refused(headers: Any) -> None:
    with pytest.raises(
        ASGIProtocolError, match=r"^Expected the 'headers' of 'http\.response\.start' to be pairs of bytes\b"
    ):
        head_of(200, headers)


@pytest.mark.parametrize("name", ["x-a", None, 5, bytearray(b"x-a"), memoryview(b"x-a"), b"", b"x a", b"x-a ", b" x-a"])
def test_a_header_name_that_is_no_token_in_bytes_is_refused(name: Any) -> None:
    with pytest.raises(ASGIProtocolError, match=r"^Invalid HTTP header name\b") as caught:
        head_of(200, [(name, b"1")])
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("value", ["1", None, 5, bytearray(b"1"), memoryview(b"1")])
def test_a_header_value_that_is_not_bytes_is_refused(value: Any) -> None:
    with pytest.raises(ASGIProtocolError, match=r"^Invalid HTTP header value\b") as caught:
        head_of(200, [(b"x-a", value)])
    assert "b'x-a'" in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("template", [b"%c", b"x%c", b"%cx", b"x%cx"])
def test_a_header_name_has_token_bytes_only(template: bytes) -> None:
    accepted = bytearray()
    for byte in range(256):
        name = template % byte
        try:
            head = head_of(204, [(name, b"1")])
        except ASGIProtocolError:
            continue
        assert head.data == b"HTTP/1.1 204 No Content\r\n" + name + b": 1\r\n\r\n"
        accepted.append(byte)
    assert sorted(accepted) == sorted(TOKEN)


@pytest.mark.parametrize("template", [b"%c", b"x%c", b"%cx", b"x%cx"])
@pytest.mark.parametrize("name", [b"x-a", b"connection"])
def test_a_header_value_has_no_control_character_but_the_tab(template: bytes, name: bytes) -> None:
    accepted = bytearray()
    for byte in range(256):
        value = template % byte
        try:
            head = head_of(204, [(name, value)])
        except ASGIProtocolError:
            continue
        assert head.data == b"HTTP/1.1 204 No Content\r\n" + name + b": " + value + b"\r\n\r\n"
        accepted.append(byte)
    assert bytes(accepted) == VALUE


def test_a_dropped_transfer_encoding_is_checked_all_the_same() -> None:
    with pytest.raises(ASGIProtocolError, match="Invalid HTTP header value"):
        head_of(200, [(b"transfer-encoding", b"chunked\r\nx-a: 1")])


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" 5",
        b"5 ",
        b"+5",
        b"-5",
        b"5.0",
        b"0x5",
        b"5,5",
        b"5, 5",
        b"five",
        b"1_0",
        "\N{ARABIC-INDIC DIGIT FIVE}".encode(),
        b"9" * 20,
    ],
)
def test_a_content_length_that_is_no_number_is_refused(value: bytes) -> None:
    with pytest.raises(ASGIProtocolError, match=r"^Invalid Content-Length\b") as caught:
        head_of(200, [(b"content-length", value)])
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(("value", "length"), [(b"0", 0), (b"00", 0), (b"007", 7), (b"9" * 19, int("9" * 19))])
def test_a_content_length_is_digits(value: bytes, length: int) -> None:
    assert head_of(200, [(b"content-length", value)]).content_length == length


@pytest.mark.parametrize("second", [b"5", b"6", b"0"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_second_content_length_is_refused(second: bytes, method: str) -> None:
    with pytest.raises(ASGIProtocolError, match=r"^More than one Content-Length: .* after '5'"):
        head_of(200, [(b"content-length", b"5"), (b"Content-Length", second)], method=method)


def test_the_headers_are_not_touched() -> None:
    headers = [[b"X-A", b"1"], [b"transfer-encoding", b"chunked"]]
    head_of(200, headers)
    assert headers == [[b"X-A", b"1"], [b"transfer-encoding", b"chunked"]]


names = st.one_of(
    st.binary(max_size=8),
    st.lists(st.sampled_from(TOKEN), min_size=1, max_size=8).map(bytes),
    st.sampled_from([b"content-length", b"transfer-encoding", b"connection", b"Connection"]),
)
values = st.one_of(
    st.binary(max_size=12), st.sampled_from([b"close", b"5", b"chunked", b"1\r\nx: y", b"a\r\n\r\nb", b"a\nb"])
)


@settings(max_examples=examples(300), deadline=None)
@given(
    headers=st.lists(st.tuples(names, values), max_size=5),
    method=st.sampled_from(["GET", "HEAD"]),
    http_version=st.sampled_from(["1.0", "1.1"]),
    status=st.sampled_from([200, 204, 304, 500, 999]),
    close=st.booleans(),
)
def test_a_head_is_refused_or_has_a_line_for_each_header_and_its_framing_and_no_other(
    headers: list[tuple[bytes, bytes]], method: str, http_version: str, status: int, close: bool
) -> None:
    try:
        head = head_of(status, headers, method=method, http_version=http_version, close=close)
    except ASGIProtocolError:
        return
    block, end, rest = head.data.partition(b"\r\n\r\n")
    assert (end, rest) == (b"\r\n\r\n", b"")
    lines = block.split(b"\r\n")[1:]
    kept = [name + b": " + value for name, value in headers if name.lower() != b"transfer-encoding"]
    assert lines[: len(kept)] == kept
    added = lines[len(kept) :]
    lengths = [int(value) for name, value in headers if name.lower() == b"content-length"]
    assert lengths == ([] if head.content_length is None else [head.content_length])
    # The only way to tell where the body ends (RFC 9112, 6.3).
    if method == "HEAD" or status in (204, 304):
        framing = Framing.NO_BODY
    elif lengths:
        framing = Framing.LENGTH
    else:
        framing = Framing.CHUNKED if http_version == "1.1" else Framing.CLOSE
    assert head.framing is framing
    app_closes = any(
        name.lower() == b"connection" and b"close" in value.lower().replace(b" ", b"").replace(b"\t", b"").split(b",")
        for name, value in headers
    )
    assert head.close == (close or app_closes or framing is Framing.CLOSE)
    says_close = head.close and not app_closes
    assert added == [CHUNKED.strip()] * (framing is Framing.CHUNKED) + [CLOSE.strip()] * says_close


@pytest.mark.parametrize("to_head", [False, True])
def test_a_plain_response_is_whole_and_closes(to_head: bool) -> None:
    body = b"" if to_head else "größer\n".encode()
    assert plain_response(431, "größer\n", to_head=to_head) == (
        b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
        b"content-type: text/plain; charset=utf-8\r\n"
        b"content-length: 9\r\n"
        b"connection: close\r\n"
        b"\r\n" + body
    )
