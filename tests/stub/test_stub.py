"""`Stub`: which answer a request gets, what it is on the wire, and what is reported of it."""

import gzip
import json
import re
import zlib
from collections.abc import Callable
from typing import Any, cast

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict
from yarl import URL

from asgi_connector import (
    ASGIApplicationConnector,
    ASGIConnectorError,
    ASGIRoutingConnector,
    Stub,
    UnmatchedRequestError,
    faults,
)
from asgi_connector._exchange.queries import parse_query
from asgi_connector._stub.answers import read_criteria
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.servers import HTTP_WAYS, WEBSOCKET_WAYS, serving


async def text_of(session: aiohttp.ClientSession, path: str = "/", method: str = "GET", **settings: Any) -> str:
    async with session.request(method, path, **settings) as response:
        return await response.text()


async def error_of(session: aiohttp.ClientSession, path: str = "/", method: str = "GET", **settings: Any) -> str:
    with pytest.raises(UnmatchedRequestError) as raised:
        await session.request(method, path, **settings)
    return str(raised.value)


async def called(stub: Stub, receive: Receive, method: str = "GET") -> bytes | None:
    """The body of the response when a server calls the stub for the path "/"; `None` if no answer matches."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "scheme": "http", "path": "/", "query_string": b"", "headers": []}
    try:
        await stub(scope, receive, send)
    except UnmatchedRequestError:
        return None
    body: bytes = sent[1]["body"]
    return body


async def receive_no_body() -> Message:
    return {"type": "http.request"}


# The response.


@pytest.mark.parametrize(
    ("settings", "content_type", "body"),
    [
        ({"json": {"id": "é"}}, "application/json", b'{"id": "\\u00e9"}'),
        ({"json": None}, "application/json", b"null"),
        ({"text": "é"}, "text/plain; charset=utf-8", "é".encode()),
        ({"text": ""}, "text/plain; charset=utf-8", b""),
        ({"body": b"\x00\xff"}, "application/octet-stream", b"\x00\xff"),
        ({}, None, b""),
        ({"text": "<a/>", "headers": {"content-type": "text/xml"}}, "text/xml", b"<a/>"),
        ({"json": 1, "headers": [(b"Content-Type", b"application/hal+json")]}, "application/hal+json", b"1"),
    ],
)
@pytest.mark.parametrize("way", HTTP_WAYS)
async def test_a_response_has_the_content_type_of_its_kind_and_its_length(
    way: str, settings: dict[str, Any], content_type: str | None, body: bytes
) -> None:
    stub = Stub()
    stub.get("/", status=203, **settings)
    async with serving(way, stub) as session, session.get("/") as response:
        assert response.status == 203
        assert response.headers.get("Content-Type") == content_type
        assert response.headers["Content-Length"] == str(len(body))
        assert await response.read() == body


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PROPFIND"])
async def test_each_method_has_its_own_answers(method: str) -> None:
    stub = Stub()
    for each in [stub.get, stub.post, stub.put, stub.patch, stub.delete, stub.options, stub.head]:
        each("/", text=each.__name__.upper())
    stub.on("propfind", "/", text="PROPFIND")
    async with session_to(stub) as session, session.request(method, "/") as response:
        assert response.headers["Content-Length"] == str(len(method))
        assert await response.text() == ("" if method == "HEAD" else method)


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none(status: int) -> None:
    stub = Stub()
    stub.get("/", status=status)
    async with session_to(stub) as session, session.get("/") as response:
        assert (response.status, await response.read()) == (status, b"")
    with pytest.raises(ValueError, match=f"a response of status {status} has no body"):
        stub.get("/", status=status, json={})


async def test_redirects_and_cookies_are_followed_and_kept_by_aiohttp() -> None:
    stub = Stub()
    stub.get("/old", status=302, headers=[("Location", "/new"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    stub.get("/new", text="here")
    async with session_to(stub) as session, session.get("/old") as response:
        assert await response.text() == "here"
        assert [each.status for each in response.history] == [302]
        assert {cookie.key for cookie in session.cookie_jar} == {"a", "b"}


async def test_what_is_given_as_json_is_not_changed_later() -> None:
    stub = Stub()
    payload = {"ids": [1]}
    stub.get("/", json=payload)
    payload["ids"].append(2)
    async with session_to(stub) as session:
        assert json.loads(await text_of(session)) == {"ids": [1]}


# Which answer.


async def test_a_path_is_decoded_and_equal_and_a_pattern_matches_it_whole() -> None:
    stub = Stub()
    stub.get("/a b/é", text="equal")
    stub.get(re.compile(r"/v1/\w+"), text="pattern")
    async with session_to(stub) as session:
        assert await text_of(session, "/a%20b/%C3%A9?x=1") == "equal"
        assert await text_of(session, "/v1/ch_1") == "pattern"
        for path in ["/v1/ch_1/more", "/more/v1/ch_1", "/a%20b", "/a%20b/%C3%A9/"]:
            await error_of(session, path)


@pytest.mark.parametrize(
    "query",
    ["b=2&a=1&b=1", {"a": 1, "b": ["1", 2]}, MultiDict([("b", "1"), ("a", "1"), ("b", "2")])],
    ids=["str", "mapping", "multidict"],
)
async def test_a_query_is_compared_whole_and_in_any_order(query: Any) -> None:
    stub = Stub()
    stub.get("/", query=query, text="this one")
    async with session_to(stub) as session:
        assert await text_of(session, "/?a=1&b=2&b=1") == "this one"
        for other in ["/", "/?a=1&b=2", "/?a=1&b=2&b=1&c=3", "/?a=1&b=2&b=2"]:
            await error_of(session, other)


async def test_an_empty_query_is_not_the_same_as_any_query() -> None:
    stub = Stub()
    stub.get("/", query={}, text="none")
    stub.get("/", text="any")
    stub.get("/flag", query="debug", text="a name without a value")
    async with session_to(stub) as session:
        assert await text_of(session, "/") == "none"
        assert await text_of(session, "/?a=1") == "any"
        assert await text_of(session, "/flag?debug") == "a name without a value"


VALUES = st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(), VALUES | st.lists(VALUES, max_size=3), max_size=4))
def test_a_query_matches_what_aiohttp_sends_for_the_same_params(params: dict[str, Any]) -> None:
    criteria = read_criteria("GET", "/", params, ...)
    sent = URL("http://app.internal/").extend_query(params).raw_query_string
    assert criteria.query == parse_query(sent)


@pytest.mark.parametrize(("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_body_is_decoded(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    stub = Stub()
    stub.post("/", request_json={"a": 1}, text="this one")
    headers = {"Content-Encoding": encoding}
    async with session_to(stub) as session:
        assert await text_of(session, "/", "POST", data=encode(b'{"a": 1}'), headers=headers) == "this one"
        await error_of(session, "/", "POST", data=encode(b'{"a": 2}'), headers=headers)
        await error_of(session, "/", "POST", data=b"not compressed", headers=headers)


async def test_the_body_is_equal_to_a_json_value() -> None:
    stub = Stub()
    stub.post("/", request_json={"b": [1, None], "a": True}, text="this one")
    stub.post("/null", request_json=None, text="null")
    async with session_to(stub) as session:
        assert await text_of(session, "/", "POST", json={"a": True, "b": [1.0, None]}) == "this one"
        assert await text_of(session, "/", "POST", data=b' {"b":[1,null],\n"a":true}') == "this one"
        assert await text_of(session, "/null", "POST", data=b"null") == "null"
        for other in [{"a": 1, "b": [1, None]}, {"a": True, "b": [1]}, {"a": True}, [], None]:
            await error_of(session, "/", "POST", json=other)
        for text in [b"", b"{", b"\xff", b"[" * 200_000]:
            await error_of(session, "/", "POST", data=text)


async def test_a_body_that_comes_in_pieces_is_read_whole() -> None:
    async def pieces() -> Any:
        for each in [b'{"a"', b":", b"1}"]:
            yield each

    stub = Stub()
    stub.post("/", request_json={"a": 1}, text="read")
    async with session_to(stub) as session:
        assert await text_of(session, "/", "POST", data=pieces()) == "read"
        assert await text_of(session, "/", "POST", data=pieces(), expect100=True) == "read"
    messages = iter([b'{"a"', b"", b":1}"])

    async def receive() -> Message:
        body = next(messages)
        return {"type": "http.request", "body": body, "more_body": not body.endswith(b"}")}

    assert await called(stub, receive, method="POST") == b"read"


# Which answer comes when.


async def test_answers_to_the_same_call_come_in_order_and_the_last_one_stays() -> None:
    stub = Stub()
    stub.get("/", status=503, times=2)
    stub.get("/", text="one")
    stub.get("/other", text="other")
    stub.get("/", text="two")
    async with session_to(stub) as session:
        statuses = []
        for _ in range(3):
            async with session.get("/") as response:
                statuses.append(response.status)
        assert statuses == [503, 503, 200]
        assert await text_of(session, "/other") == "other"
        assert [await text_of(session) for _ in range(3)] == ["two", "two", "two"]
    stub.assert_all_used()


async def test_the_last_answer_is_used_up_after_its_times() -> None:
    stub = Stub()
    stub.get("/", text="first")
    stub.get("/", text="second", times=1)
    async with session_to(stub) as session:
        assert [await text_of(session) for _ in range(2)] == ["first", "second"]
        assert (await error_of(session)).endswith("\n  GET '/': used up")


async def test_of_two_kinds_of_calls_that_match_the_first_comes_until_it_is_used_up() -> None:
    stub = Stub()
    stub.get("/users/1", text="specific", times=1)
    stub.get(re.compile("/users/.*"), text="general")
    stub.get("/users/2", text="never")
    async with session_to(stub) as session:
        assert await text_of(session, "/users/1") == "specific"
        assert await text_of(session, "/users/1") == "general"
        assert await text_of(session, "/users/2") == "general"
    assert stub.problems() == ["never asked for: GET '/users/2'"]


@given(st.lists(st.none() | st.integers(1, 3), min_size=1, max_size=5), st.integers(0, 20))
async def test_each_answer_is_given_as_often_as_its_times_say(times: list[int | None], requests: int) -> None:
    stub = Stub()
    for n, each in enumerate(times):
        stub.get("/", text=str(n), times=each)
    expected: list[bytes | None] = [b"%d" % n for n, each in enumerate(times) for _ in range(each or 1)]
    expected += [expected[-1] if times[-1] is None else None] * requests
    got = [await called(stub, receive_no_body) for _ in range(requests)]
    assert got == expected[:requests]
    assert (stub.problems() == []) == (requests >= sum(each or 1 for each in times) and None not in got)


# A request without an answer.


async def test_the_error_says_that_only_a_secret_differs() -> None:
    stub = Stub()
    stub.get("/", query={"api_key": "one"})
    async with session_to({"api.stripe.com": stub}) as session:
        error = await error_of(session, "https://api.stripe.com/?api_key=other", "GET")
    assert error.endswith(": query is 'api_key=%5Bredacted%5D', with another secret")


async def test_the_error_names_the_nearest_answers_and_what_differs() -> None:
    stub = Stub()
    stub.post("/v1/charges", request_json={"amount": 5, "to": ["a"], "odd name": 1}, query={"x": 1})
    stub.get(re.compile(r"/v1/charges/\w+"), times=1)
    stub.get("/v1/customers")
    stub.get("/health")
    async with session_to({"api.stripe.com": stub}) as session:
        url = "https://api.stripe.com/v1/charges"
        error = await error_of(session, url, "POST", json={"amount": 7, "to": [], "more": None})
        assert error == (
            "no answer to POST https://api.stripe.com/v1/charges. "
            "The nearest answers, and what differs in the request:\n"
            "  POST '/v1/charges', query='x=1', "
            'request_json={"amount": 5, "to": ["a"], "odd name": 1}: '
            "query is ''; body: $[\"odd name\"] is missing; body: $.more is not expected; body: $.amount is 7, not 5; "
            "body: $.to has 0 items, not 1\n"
            "  GET re.compile('/v1/charges/\\\\w+'): method is 'POST'; path is '/v1/charges'\n"
            "  GET '/v1/customers': method is 'POST'; path is '/v1/charges'"
        )


async def test_a_stub_without_answers_says_so() -> None:
    async with session_to(Stub()) as session:
        error = await error_of(session, "/a?b=1")
        assert error == "no answer to GET http://app.internal/a?b=1: this stub has no answers"


@pytest.mark.parametrize(
    ("settings", "differs"),
    [
        ({}, "body is empty"),
        ({"data": b"text"}, "body is not JSON, but 4 bytes of 'application/octet-stream'"),
        ({"data": {"a": "b"}}, "body is not JSON, but 3 bytes of 'application/x-www-form-urlencoded'"),
        ({"data": b"text", "skip_auto_headers": ["Content-Type"]}, "body is not JSON, but 4 bytes"),
        (
            {"json": {str(n): n for n in range(9)}},
            "; ".join([*(f'body: $["{n}"] is not expected' for n in range(5)), "body: 4 more"]),
        ),
    ],
)
async def test_the_error_says_what_the_body_is(settings: dict[str, Any], differs: str) -> None:
    stub = Stub()
    stub.post("/", request_json={})
    async with session_to(stub) as session:
        assert (await error_of(session, "/", "POST", **settings)).endswith(f"  POST '/', request_json={{}}: {differs}")


async def test_secrets_are_not_shown() -> None:
    stub = Stub()
    stub.post("/", query={"api_key": "s3cret"}, request_json={"password": "s3cret", "user": {"token": ["s3cret"]}})
    async with session_to(stub) as session:
        body = {"password": "an0ther", "user": {"token": ["an0ther"]}}
        error = await error_of(session, "/?api_key=an0ther", "POST", json=body)
    said = "\n".join([error, repr(stub), *stub.problems()])
    assert "s3cret" not in said
    assert "an0ther" not in said
    assert "body: $.password differs: [redacted]; body: $.user.token[0] differs: [redacted]" in error


async def test_what_a_request_contains_cannot_change_a_terminal() -> None:
    stub = Stub()
    stub.post("/", request_json="a")
    async with session_to(stub) as session:
        error = await error_of(session, "/%1b[31m?q=%1b", "POST", json={"\x1b": 1})
        assert error.replace("\n", "").isprintable()
        error = await error_of(session, "/", "POST", json="\x1b\u202e")
        assert error.replace("\n", "").isprintable()


def test_the_error_is_no_error_of_a_client() -> None:
    assert issubclass(UnmatchedRequestError, ASGIConnectorError)
    assert not issubclass(UnmatchedRequestError, aiohttp.ClientError | OSError | TimeoutError)


async def test_the_error_reaches_the_test_through_a_service_with_a_session_of_its_own() -> None:
    stripe = Stub()
    stripe.get("/v1/charges")

    async def shop(scope: Scope, receive: Receive, send: Send) -> None:
        async with aiohttp.ClientSession(connector=connector, connector_owner=False) as own:
            try:
                await own.post("https://api.stripe.com/v1/charges", json={"amount": 5})
            except (aiohttp.ClientError, OSError, TimeoutError):  # as code that retries does
                raise AssertionError("it looks like a network error") from None

    connector = ASGIRoutingConnector({"shop.internal": shop, "api.stripe.com": stripe}, lifespan="off")
    with connector.record() as journal:
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(UnmatchedRequestError, match=r"no answer to POST https://api\.stripe\.com/v1/charges"):
                await session.post("http://shop.internal/orders")
    (call,) = journal.select("api.stripe.com")
    assert call.caller == "shop.internal"
    assert isinstance(call.error, UnmatchedRequestError)
    assert stripe.problems()[1] == "not answered: POST https://api.stripe.com/v1/charges"


async def test_without_raised_exceptions_it_is_a_500_and_is_still_reported(caplog: pytest.LogCaptureFixture) -> None:
    stub = Stub()
    async with session_to(stub, raise_app_exceptions=False) as session:
        for path in ["/a", "/a", "/b"]:
            async with session.get(path) as response:
                assert response.status == 500
    assert len(caplog.records) == 3
    assert stub.problems() == [
        "not answered: GET http://app.internal/a (2 times)",
        "not answered: GET http://app.internal/b",
    ]


# The end of a test.


async def test_what_was_not_asked_for_and_what_was_not_answered_is_reported() -> None:
    stub = Stub()
    stub.assert_all_used()
    stub.post("/v1/charges", json={}, request_json={"amount": 5})
    stub.get("/v1/charges", times=3)
    stub.get("/v1/customers")
    async with session_to(stub) as session:
        await text_of(session, "/v1/charges")
        await text_of(session, "/v1/customers")
        await error_of(session, "/v1/refunds")
    with pytest.raises(AssertionError) as raised:
        stub.assert_all_used()
    assert str(raised.value) == (
        "<Stub: 3 answers, 2 not used up, 1 request not answered>:\n"
        "  never asked for: POST '/v1/charges', request_json={\"amount\": 5}\n"
        "  asked for 1 of 3 times: GET '/v1/charges'\n"
        "  not answered: GET http://app.internal/v1/refunds"
    )


async def test_repr_counts() -> None:
    stub = Stub()
    assert repr(stub) == "<Stub: 0 answers>"
    stub.get("/")
    assert repr(stub) == "<Stub: 1 answer, 1 not used up>"
    async with session_to(stub) as session:
        await text_of(session)
        assert repr(stub) == "<Stub: 1 answer>"
        for path in ["/a", "/b"]:
            await error_of(session, path)
    assert repr(stub) == "<Stub: 1 answer, 2 requests not answered>"


# Answers that cannot be meant so.


@pytest.mark.parametrize(
    ("method", "path", "settings", "message"),
    [
        (1, "/", {}, "method must be a str, not 1"),
        ("GET /", "/", {}, "method must be one word, such as 'PROPFIND', not 'GET /'"),
        ("GET", None, {}, "path must be a str or a compiled pattern of str, not None"),
        ("GET", re.compile(b"/"), {}, "path must be a str or a compiled pattern of str, not re.compile(b'/')"),
        ("GET", "", {}, "path must start with a slash, but is ''; write '/'"),
        ("GET", "users", {}, "path must start with a slash, but is 'users'; write '/users'"),
        ("GET", "http://a.internal", {}, "path must start with a slash, but is 'http://a.internal'; write '/'"),
        (
            "GET",
            "https://a.internal/%C3%A9?q=1",
            {},
            "path must start with a slash, but is 'https://a.internal/%C3%A9?q=1'; write '/é', query='q=1'",
        ),
        ("GET", "/a?q=1", {}, "path must be without a query, but is '/a?q=1'; write '/a', query='q=1'"),
        ("GET", "/a#b", {}, "path must be without a fragment, but is '/a#b'; write '/a'"),
        ("GET", "/%C3%A9", {}, "path is compared decoded, but '/%C3%A9' is percent-encoded; write '/é'"),
        ("GET", "/", {"query": "?a=1"}, "query must be without the question mark, but is '?a=1'; write 'a=1'"),
        ("GET", "/", {"query": [("a", "1")]}, "query must be a str or a mapping, not [('a', '1')]"),
        ("GET", "/", {"query": {"a": None}}, "query must be such as aiohttp takes for params: "),
        ("GET", "/", {"query": {"a": float("nan")}}, "query must be such as aiohttp takes for params: "),
        ("POST", "/", {"request_json": {1, 2}}, "request_json must be a JSON value: Object of type set"),
        ("POST", "/", {"request_json": float("nan")}, "request_json must be a JSON value: Out of range float"),
        ("GET", "/", {"json": b""}, "json must be a JSON value: Object of type bytes"),
        ("GET", "/", {"json": {}, "text": ""}, "a response has one body: write one of json, text"),
        ("GET", "/", {"json": 1, "text": "", "body": b""}, "a response has one body: write one of json, text, body"),
        ("GET", "/", {"text": b"a"}, "text must be a str, not b'a'; write json= for a JSON value, or body= for bytes"),
        ("GET", "/", {"body": "a"}, "body must be bytes, not 'a'; write text= for a str, or json= for a JSON value"),
        ("GET", "/", {"status": 100}, "status must be an int from 200 to 999, not 100"),
        ("GET", "/", {"status": "200"}, "status must be an int from 200 to 999, not '200'"),
        ("GET", "/", {"headers": "a"}, "headers must be a mapping, or pairs of str or bytes, not 'a'"),
        ("GET", "/", {"headers": {"a": "b\n"}}, "Invalid HTTP header value"),
        ("GET", "/", {"text": "ab", "headers": {"Content-Length": "1"}}, "the Content-Length is 1, but the body has 2"),
        ("GET", "/", {"times": 0}, "times must be 1 or more, not 0"),
        ("GET", "/", {"times": True}, "times must be an int, not True"),
        ("GET", "/", {"payload": {}}, "unexpected keyword argument 'payload'"),
    ],
)
def test_an_answer_that_cannot_be_meant_so_says_what_to_write(
    method: Any, path: Any, settings: dict[str, Any], message: str
) -> None:
    stub = Stub()
    with pytest.raises((TypeError, ValueError)) as raised:
        stub.on(method, path, **settings)
    assert message in str(raised.value)
    assert repr(stub) == "<Stub: 0 answers>"


def test_a_url_says_which_path_to_write() -> None:
    with pytest.raises(TypeError, match=re.escape("URL('http://a.internal/a?q=1'); write '/a', query='q=1'")):
        Stub().get(URL("http://a.internal/a?q=1"))  # type: ignore[arg-type]


def test_json_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="json must be a JSON value: Circular reference detected"):
        Stub().get("/", json=loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="request_json is nested too deeply"):
        Stub().get("/", request_json=deep)


# As an app.


@pytest.mark.parametrize("lifespan", ["auto", "on", "off"])
async def test_a_stub_has_nothing_to_start_and_may_be_mounted_several_times(lifespan: Any) -> None:
    stub = Stub()
    stub.get("/", text="here", times=3)
    async with (
        session_to({"a.internal": stub, "b.internal": stub}, lifespan=lifespan) as session,
        aiohttp.ClientSession(connector=ASGIApplicationConnector(stub, lifespan=lifespan)) as other,
    ):
        assert await text_of(session, "http://a.internal/") == "here"
        assert await text_of(session, "http://b.internal/") == "here"
        assert await text_of(other, "http://c.internal/") == "here"
    stub.assert_all_used()


async def test_a_stub_takes_the_place_of_a_service_for_a_block() -> None:
    usual, full = Stub(), Stub()
    usual.post("/", text="sent")
    full.post("/", status=507)
    connector = ASGIRoutingConnector({"mail.internal": usual})
    async with aiohttp.ClientSession("http://mail.internal", connector=connector) as session:
        assert await text_of(session, "/", "POST") == "sent"
        async with connector.mounted("mail.internal", full), session.post("/") as response:
            assert response.status == 507
        assert await text_of(session, "/", "POST") == "sent"
    full.assert_all_used()


async def test_a_fault_that_answers_in_its_place_is_not_a_use() -> None:
    stub = Stub()
    stub.get("/", text="here")
    connector = ASGIRoutingConnector({"a.internal": stub})
    async with aiohttp.ClientSession("http://a.internal", connector=connector) as session:
        with connector.inject("a.internal", faults.Reset(on="request")), pytest.raises(aiohttp.ClientOSError):
            await session.post("/")
        assert stub.problems() == ["never asked for: GET '/'"]
        assert await text_of(session) == "here"


async def test_a_client_that_disconnects_in_its_request_is_not_a_request() -> None:
    stub = Stub()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError("nothing is sent")

    await stub({"type": "http"}, receive, send)
    assert stub.problems() == []


async def test_a_scope_that_is_not_known_is_refused() -> None:
    async def receive() -> Message:
        raise AssertionError("nothing is received")

    async def send(message: Message) -> None:
        raise AssertionError("nothing is sent")

    with pytest.raises(ValueError, match="a Stub does not know what to do with the ASGI scope 'telnet'"):
        await Stub()({"type": "telnet"}, receive, send)


# WebSockets.


@pytest.mark.parametrize("way", WEBSOCKET_WAYS)
async def test_a_handshake_gets_the_answer_to_its_get_as_a_denial(way: str) -> None:
    stub = Stub()
    stub.get("/ws", status=426, json={"error": "no WebSockets"}, headers={"X-Reason": "none"})
    async with serving(way, stub) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            await session.ws_connect("/ws")
        assert raised.value.status == 426
        assert raised.value.headers is not None
        assert raised.value.headers["X-Reason"] == "none"
    stub.assert_all_used()


async def test_a_handshake_without_an_answer_is_a_request_without_an_answer() -> None:
    stub = Stub()
    async with session_to(stub) as session:
        with pytest.raises(UnmatchedRequestError, match=r"no answer to GET ws://app\.internal/ws"):
            await session.ws_connect("/ws")
    assert stub.problems() == ["not answered: GET ws://app.internal/ws"]


async def test_a_server_without_denial_responses_gets_the_error() -> None:
    stub = Stub()
    stub.get("/")

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        raise AssertionError("nothing is sent")

    scope = {"type": "websocket", "scheme": "ws", "path": "/", "query_string": b"", "headers": [(b"host", b"a")]}
    with pytest.raises(UnmatchedRequestError, match="no answer to GET ws://a/"):
        await stub(scope, receive, send)


def test_allow_unused_must_be_a_bool() -> None:
    with pytest.raises(TypeError, match="allow_unused must be a bool, not 'yes'"):
        Stub(allow_unused=cast(bool, "yes"))
