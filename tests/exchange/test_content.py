"""`Content.text()` and `Content.json()`: what a body says, and why it cannot be read."""

import asyncio
import gzip
import itertools
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from asgi_connector import Content, faults
from tests.conftest import session_to
from tests.exchange.test_exchanges import echo, recording
from tests.support.sessions import connector_of, fetch
from tests.support.waiting import until

NOT_RECORDED = (
    "body was not recorded: write record(bodies=True); or, with the plugin for pytest, mark the test "
    "@pytest.mark.asgi_connector(bodies=True)"
)


def content_of(body: bytes, headers: dict[str, str] | None = None, kept: int | None = 1000) -> Content:
    content = Content(CIMultiDictProxy(CIMultiDict(headers or {})), kept)
    content.add(body)
    return content


def problem_of(content: Content, kind: type[Exception] = ValueError, encoding: str | None = None) -> str:
    with pytest.raises(kind) as caught:
        content.json() if encoding is None else content.text(encoding)
    assert type(caught.value) is kind
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


async def test_a_request_and_a_response_are_read_as_json_and_as_text() -> None:
    async with recording(echo, bodies=True) as (session, journal):
        await fetch(session, "/", "POST", json={"name": "é", "ids": [1, None]})
    (exchange,) = journal
    assert exchange.response is not None
    for content in (exchange.request, exchange.response):
        assert content.json() == {"name": "é", "ids": [1, None]}
        assert content.text() == '{"name": "\\u00e9", "ids": [1, null]}'


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.sampled_from(["8", "16", "32"])
)
def test_json_is_read_in_each_encoding_of_unicode(value: Any, width: str) -> None:
    text = json.dumps(value, ensure_ascii=False)
    try:
        body = text.encode(f"utf-{width}")
    except UnicodeEncodeError:  # a lone surrogate
        body = json.dumps(value).encode(f"utf-{width}")
    assert content_of(body, {"Content-Type": "application/json; charset=latin-1"}, 10_000).json() == value


@pytest.mark.parametrize(
    ("content_type", "encoding", "body"),
    [
        ("", None, "é".encode()),
        ("text/plain", None, "é".encode()),
        ("text/plain; charset=latin-1", None, b"\xe9"),
        ('text/plain; charset="ISO-8859-1"', None, b"\xe9"),
        ("text/plain; charset*=us-ascii'en'latin-1", None, b"\xe9"),
        ("text/plain; charset=latin-1", "utf-8", "é".encode()),
        ("text/plain; charset=nonsense", "utf-8", "é".encode()),
        ("nonsense", "latin-1", b"\xe9"),
    ],
)
def test_text_is_decoded_from_its_charset_or_from_utf_8(content_type: str, encoding: str | None, body: bytes) -> None:
    assert content_of(body, {"Content-Type": content_type}).text(encoding) == "é"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b'"a"')),
        ("X-GZIP", gzip.compress(b'"a"')),
        ("deflate", zlib.compress(b'"a"')),
        ("deflate", zlib.compress(b'"a"', wbits=-15)),
        ("identity", b'"a"'),
        ("", b'"a"'),
    ],
    ids=["gzip", "x-gzip", "deflate", "raw deflate", "identity", "empty"],
)
def test_a_content_encoding_is_decoded(encoding: str, body: bytes) -> None:
    content = content_of(body, {"Content-Encoding": encoding})
    assert (content.json(), content.text(), content.body) == ("a", '"a"', body)


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_an_empty_body_is_an_empty_text_whatever_its_encoding(encoding: str) -> None:
    content = content_of(b"", {"Content-Encoding": encoding})
    assert content.text() == ""
    assert problem_of(content) == "body is empty"


@pytest.mark.parametrize(
    ("headers", "body", "problem"),
    [
        ({"Content-Encoding": "br"}, b"x", "body has the content encoding 'br', but only gzip and deflate are decoded"),
        ({"Content-Encoding": "zstd"}, b"x", "body has the content encoding 'zstd', but only gzip and deflate are "),
        ({"Content-Encoding": "gzip, gzip"}, b"x", "body has the content encoding 'gzip, gzip', but only"),
        ({"Content-Encoding": "gzip"}, b"x", "body cannot be decoded from gzip: it is invalid, incomplete, or larger"),
        ({"Content-Encoding": "deflate"}, b"x", "body cannot be decoded from deflate: it is invalid, incomplete, or"),
        ({}, b"{", "body is not JSON, but 1 byte"),
        ({"Content-Type": "application/json"}, b"{'a': 1}", "body is not JSON, but 8 bytes of 'application/json': Ex"),
        (
            {"Content-Type": "application/a+json"},
            b"[1",
            "body is not JSON, but 2 bytes of 'application/a+json': Expect",
        ),
        ({"Content-Type": "application/json"}, b"\xff", "body is not JSON, but 1 byte of 'application/json': 'utf-8'"),
        (
            {"Content-Type": "application/json"},
            b"[" * 200_000,
            "body is not JSON, but 200000 bytes of 'application/json",
        ),
        (
            {"Content-Type": "application/json"},
            b"9" * 5000,
            "body is not JSON, but 5000 bytes of 'application/json': Ex",
        ),
        ({"Content-Type": "text/plain"}, b"No", "body is not JSON, but 2 bytes of 'text/plain', which are 'No'"),
        (
            {"Content-Type": "text/html; charset=utf-8"},
            b"<!DOCTYPE html>" + b"x" * 99,
            (
                "body is not JSON, but 114 bytes of 'text/html; charset=utf-8', "
                f"which begin with '<!DOCTYPE html>{'x' * 45}'"
            ),
        ),
    ],
    ids=itertools.count(),
)
def test_a_body_that_is_not_json_says_what_it_is(headers: dict[str, str], body: bytes, problem: str) -> None:
    assert problem_of(content_of(body, headers, 1_000_000)).startswith(problem)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"password": "s3cret'),
        ("application/x-www-form-urlencoded", b"password=s3cret"),
        ("multipart/form-data; boundary=a", b'--a\r\ncontent-disposition: form-data; name="pin"\r\n\r\ns3cret'),
        ("", b'{"password": "s3cret'),
        ("text/html", b"<a href='https://ada:s3cret@a.internal/?token=s3cret'>"),
    ],
)
def test_an_error_shows_no_secrets(content_type: str, body: bytes) -> None:
    problem = problem_of(content_of(body, {"Content-Type": content_type}))
    assert "body is not JSON" in problem
    assert "s3cret" not in problem


def test_a_text_in_another_encoding_is_an_error_that_says_what_to_write() -> None:
    assert problem_of(content_of(b"\xe9", {"Content-Type": "text/plain; charset=ascii"}), encoding="ascii") == (
        "body is not text in the encoding 'ascii': 'ascii' codec can't decode byte 0xe9 in position 0: "
        "ordinal not in range(128); write text(encoding=...)"
    )
    content = content_of(b"a", {"Content-Type": "text/plain; charset=nonsense"})
    with pytest.raises(ValueError, match="body cannot be decoded from 'nonsense', because Python has no such text enc"):
        content.text()


@pytest.mark.parametrize("encoding", ["nonsense", "hex", "", "utf-8\0"])
def test_an_encoding_that_is_not_one_is_an_error(encoding: str) -> None:
    assert problem_of(content_of(b"a"), encoding=encoding) == (
        f"body cannot be decoded from {encoding!r}, because Python has no such text encoding; "
        "write one that it has, such as text(encoding='utf-8')"
    )


def test_an_encoding_is_a_str() -> None:
    wrong: Any = b"utf-8"
    with pytest.raises(TypeError, match="encoding must be a str or None, not b'utf-8'"):
        content_of(b"a").text(wrong)


def test_a_body_that_was_not_recorded_or_was_cut_is_an_error_that_says_what_to_write() -> None:
    for encoding in (None, "utf-8"):
        assert problem_of(content_of(b"abc", kept=None), RuntimeError, encoding) == NOT_RECORDED
        assert problem_of(content_of(b"abcde", kept=2), RuntimeError, encoding) == (
            "body was cut, only the first 2 of 5 bytes were recorded: "
            "write record(bodies=True, max_body_size=5) or more"
        )
    assert content_of(b"12", kept=2).json() == 12


async def test_a_refused_request_has_sent_no_body() -> None:
    async with recording(echo, bodies=True) as (session, journal):
        with pytest.raises(OSError, match="No app is mounted"):
            await fetch(session, "http://other.internal/", "POST", json=1)
    assert problem_of(journal[0].request, RuntimeError) == "body was not sent, because the request was refused"
    assert journal[0].response is None


async def test_what_has_arrived_of_a_body_is_read_while_the_exchange_runs() -> None:
    async with session_to(echo) as session:
        connector = connector_of(session)
        with connector.record(bodies=True) as journal, connector.inject("app.internal", faults.Hang()):
            asking = asyncio.create_task(fetch(session, "/", "POST", json={"id": 7}))
            await until(lambda: journal and journal[0].request.size == 9)
            assert journal[0].state == "running"
            assert journal[0].request.json() == {"id": 7}
            assert journal[0].response is None
        await asking
