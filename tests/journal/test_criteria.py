"""The criteria `query`, `json`, `json_contains` and `where`: what they select, and what they say when they cannot."""

import asyncio
import gzip
import re
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from asgi_connector import Exchange, Journal, faults
from asgi_connector._exchange.queries import parse_query
from asgi_connector._journal.selector import Call, Selector
from asgi_connector._services.address import Address
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import session_to
from tests.support.messages import read_body, respond
from tests.support.outside import tcp_server
from tests.support.sessions import connector_of, fetch
from tests.support.waiting import settle, until

RECORD: Final = "write record(bodies=True); or, with the plugin for pytest, mark the test "


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await read_body(receive)
    await respond(send, status=404 if scope["path"] == "/missing" else 200)


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with session_to({"*.internal": app}) as session:
        yield session


def numbers(journal: Journal) -> list[int]:
    return [exchange.number for exchange in journal]


def failure_of(question: Callable[[], object], kind: type[BaseException] = AssertionError) -> str:
    with pytest.raises(kind) as caught:
        question()
    assert type(caught.value) is kind
    return str(caught.value)


async def recorded(session: aiohttp.ClientSession, *bodies: Any, **settings: Any) -> Journal:
    """A journal of one POST for each of *bodies*: JSON values, or `bytes` that are sent as they are."""
    with connector_of(session).record(**{"bodies": True} | settings) as journal:
        for body in bodies:
            await fetch(session, "/", "POST", **({"data": body} if isinstance(body, bytes) else {"json": body}))
    return journal


# The query.

QUERIES: Final = ["", "?a=1", "?a=1&b=2", "?b=2&a=1", "?a=1&a=2", "?a=2&a=1", "?a", "?a=", "?q=%C3%A9+x", "?q=%ff"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (None, list(range(10))),
        ("", [0]),
        ({}, [0]),
        ("a=1", [1]),
        ({"a": 1}, [1]),
        ({"a": "1"}, [1]),
        ({"b": "2", "a": 1}, [2, 3]),
        ("b=2&a=1", [2, 3]),
        ({"a": [1, 2]}, [4, 5]),
        ("a=2&a=1", [4, 5]),
        ("a", [6, 7]),
        ({"a": ""}, [6, 7]),
        ({"q": "é x"}, [8]),
        ("q=%C3%A9%20x", [8]),
        ("q=%FF", [9]),
        ({"b": 2}, []),
    ],
)
async def test_a_query_is_the_whole_query_in_any_order(
    session: aiohttp.ClientSession, query: Any, expected: list[int]
) -> None:
    with connector_of(session).record() as journal:
        for each in QUERIES:
            await fetch(session, URL(f"http://app.internal/{each}", encoded=True))
    assert numbers(journal.select(query=query)) == expected
    assert numbers(journal.assert_called(query=query, times=len(expected))) == expected
    assert numbers(await journal.wait_for(query=query, times=len(expected))) == expected


VALUES = st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(), VALUES | st.lists(VALUES, max_size=3), max_size=4))
def test_a_query_means_the_same_as_for_a_stub(params: dict[str, Any]) -> None:
    sent = URL("http://app.internal/").extend_query(params).raw_query_string
    assert Selector(query=params)._query == parse_query(sent)


async def test_a_query_that_differs_is_shown_without_secrets(session: aiohttp.ClientSession) -> None:
    with connector_of(session).record() as journal:
        await fetch(session, "/?page=1&token=s3cret")
    assert failure_of(lambda: journal.assert_called(query={"token": "an0ther"})) == (
        "Expected a call of query='token=%5Bredacted%5D', but there was none.\n"
        "The calls there were, the nearest first:\n"
        "  GET http://app.internal/?page=1&token=%5Bredacted%5D: 200\n"
        "    query is 'page=1&token=%5Bredacted%5D'"
    )


async def test_a_query_that_differs_only_in_a_secret_says_so(session: aiohttp.ClientSession) -> None:
    with connector_of(session).record() as journal:
        await fetch(session, "/?token=s3cret")
    message = failure_of(lambda: journal.assert_called(query={"token": "an0ther"}))
    assert message.endswith("\n    query is 'token=%5Bredacted%5D', with another secret")


# The body.

BODIES: Final[list[Any]] = [
    {"id": 1, "tags": ["a", "b"]},
    {"id": 1.0, "tags": ["a", "b"], "more": {"x": None, "y": True}},
    {"id": True},
    [{"id": 1}],
    b"null",
    b"",
    b"{",
    b' {"tags": ["a","b"],\n"id": 1} ',
    {"items": [{"id": 1, "size": 5}, {"id": 2}]},
]


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({"json": {"id": 1, "tags": ["a", "b"]}}, [0, 7]),
        ({"json": {"tags": ("a", "b"), "id": 1}}, [0, 7]),
        ({"json": {"id": True}}, [2]),
        ({"json": {"id": 1}}, []),
        ({"json": [{"id": 1}]}, [3]),
        ({"json": None}, [4]),
        ({"json": ...}, list(range(9))),
        ({"json": ""}, []),
        ({"json_contains": None}, list(range(9))),
        ({"json_contains": {}}, [0, 1, 2, 7, 8]),
        ({"json_contains": {"id": 1}}, [0, 1, 7]),
        ({"json_contains": {"tags": ["a"]}}, []),
        ({"json_contains": {"tags": ["b", "a"]}}, []),
        ({"json_contains": {"more": {"x": None}}}, [1]),
        ({"json_contains": {"more": {"z": None}}}, []),
        ({"json_contains": {"items": [{"id": 1}, {"id": 2}]}}, [8]),
        ({"json_contains": {"items": [{"id": 1}]}}, []),
        ({"json_contains": CIMultiDict(id=1)}, [0, 1, 7]),
        ({"json_contains": {"id": 1}, "where": lambda exchange: exchange.number == 1}, [1]),
        ({"json": None, "path": "/missing"}, []),
    ],
)
async def test_a_body_equals_or_contains_a_json_value(
    session: aiohttp.ClientSession, criteria: dict[str, Any], expected: list[int]
) -> None:
    journal = await recorded(session, *BODIES)
    assert numbers(journal.select(**criteria)) == expected
    assert numbers(journal.assert_called(**criteria, times=len(expected))) == expected
    assert numbers(await journal.wait_for(**criteria, times=len(expected), timeout=0)) == expected
    if expected:
        assert "but there w" in failure_of(lambda: journal.assert_not_called(**criteria))
    else:
        journal.assert_not_called(**criteria)


async def test_a_value_that_is_changed_later_is_the_one_that_was_given(session: aiohttp.ClientSession) -> None:
    value = {"id": 1}
    selector = Selector(json=value)
    value["id"] = 2
    journal = await recorded(session, {"id": 1}, {"id": 2})
    assert [selector.matches(each) for each in journal] == [True, False]


@pytest.mark.parametrize(
    ("encoding", "encode", "matches"),
    [("gzip", gzip.compress, True), ("deflate", zlib.compress, True), ("br", bytes, False)],
)
async def test_a_compressed_body_is_decoded(
    session: aiohttp.ClientSession, encoding: str, encode: Callable[[bytes], bytes], matches: bool
) -> None:
    with connector_of(session).record(bodies=True) as journal:
        body = encode(b'{"id": 1}')
        await fetch(session, "/", "POST", data=body, headers={"Content-Encoding": encoding})
    assert len(journal.select(json={"id": 1})) == matches
    if not matches:
        assert "\n    body has the content encoding 'br', but only gzip and deflate are decoded" in failure_of(
            lambda: journal.assert_called(json={"id": 1})
        )


async def test_a_body_over_the_fallback_is_compared() -> None:
    async with tcp_server() as server, session_to({}, fallback=aiohttp.TCPConnector()) as session:
        with connector_of(session).record(bodies=True) as journal:
            await fetch(session, server.url, "POST", json={"id": 1})
        assert len(journal.assert_called(json={"id": 1})) == 1


async def test_a_call_with_a_body_is_waited_for(session: aiohttp.ClientSession) -> None:
    with connector_of(session).record(bodies=True) as journal:
        waiting = asyncio.create_task(journal.wait_for(json_contains={"id": 2}, timeout=None))
        await fetch(session, "/", "POST", json={"id": 1})
        await settle()
        assert not waiting.done()
        await fetch(session, "/", "POST", json={"id": 2})
        assert numbers(await waiting) == [1]


# Bodies that are not known.


async def test_a_body_that_was_not_recorded_is_an_error_that_says_what_to_write(
    session: aiohttp.ClientSession,
) -> None:
    journal = await recorded(session, {"id": 1}, bodies=False)
    questions: list[Callable[..., object]] = [journal.select, journal.assert_called, journal.assert_not_called]
    for question in questions:
        for name in ("json", "json_contains"):
            assert failure_of(lambda: question(**{name: {"id": 1}}), RuntimeError) == (  # noqa: B023
                f"{name}= needs the body of each call that may match, but of POST http://app.internal/: 200, "
                f"body was not recorded: {RECORD}@pytest.mark.asgi_connector(bodies=True)"
            )
    with pytest.raises(RuntimeError, match="json= needs the body of each call that may match"):
        await journal.wait_for(json={"id": 1}, timeout=None)


async def test_only_the_body_of_a_call_that_may_match_is_needed(session: aiohttp.ClientSession) -> None:
    journal = await recorded(session, {"id": 1}, bodies=False)
    assert failure_of(lambda: journal.assert_called(path="/orders", json={"id": 1})) == (
        "Expected a call of path='/orders', json={\"id\": 1}, but there was none.\n"
        "The calls there were, the nearest first:\n"
        "  POST http://app.internal/: 200\n"
        "    path is '/'"
    )
    journal.assert_not_called(status=404, json={"id": 1})


async def test_the_body_is_needed_before_the_function_is_called(session: aiohttp.ClientSession) -> None:
    journal = await recorded(session, {"id": 1}, bodies=False)
    failure_of(lambda: journal.select(json=1, where=lambda exchange: pytest.fail("called")), RuntimeError)


async def test_a_request_without_a_body_needs_no_recorded_one(session: aiohttp.ClientSession) -> None:
    with connector_of(session).record() as journal:
        await fetch(session, "/")
    assert failure_of(lambda: journal.assert_called(json={"id": 1})).endswith(
        "  GET http://app.internal/: 200\n    body is empty"
    )


async def test_over_the_fallback_even_an_empty_body_must_be_recorded() -> None:
    async with tcp_server() as server, session_to({}, fallback=aiohttp.TCPConnector()) as session:
        with connector_of(session).record() as journal:
            await fetch(session, server.url)
        assert "body was not recorded" in failure_of(lambda: journal.select(json=1), RuntimeError)


async def test_a_body_that_was_cut_is_an_error_that_says_what_to_write(session: aiohttp.ClientSession) -> None:
    journal = await recorded(session, {"id": 1}, max_body_size=5)
    assert failure_of(lambda: journal.select(json_contains={}), RuntimeError) == (
        "json_contains= needs the body of each call that may match, but of POST http://app.internal/: 200, "
        "body was cut, only the first 5 of 9 bytes were recorded: write record(bodies=True, max_body_size=9) or more"
    )
    assert "body" not in failure_of(lambda: journal.assert_called(path="/a", json=1)).partition("\n")[2]


@pytest.mark.parametrize("bodies", [False, True])
async def test_a_call_that_got_no_connection_differs(session: aiohttp.ClientSession, bodies: bool) -> None:
    connector = connector_of(session)
    with connector.record(bodies=bodies) as journal, connector.inject("app.internal", faults.Refuse()):
        for host in ("app.internal", "other.example"):
            with pytest.raises(aiohttp.ClientConnectorError):
                await fetch(session, f"http://{host}/", "POST", json={"id": 1})
    text = failure_of(lambda: journal.assert_called(json={"id": 1}))
    assert text.count("\n    no body arrived") == 2
    journal.assert_not_called(json={"id": 1})


# What a failure shows.


async def test_the_nearest_call_is_shown_with_the_lines_that_differ(session: aiohttp.ClientSession) -> None:
    journal = await recorded(
        session,
        b"",
        [],
        {"cents": 1, "currency": "USD", "items": [1, 2, 3], "more": 1, "note": "x", "to": "y"},
        {"cents": 4200, "currency": "USD", "password": "s3cret"},
    )
    assert failure_of(lambda: journal.assert_called(json={"cents": 4200, "currency": "EUR", "password": "a"})) == (
        'Expected a call of json={"cents": 4200, "currency": "EUR", "password": "[redacted]"}, but there was none.\n'
        "The calls there were, the nearest first:\n"
        "  POST http://app.internal/: 200\n"
        '    body: $.currency is "USD", not "EUR"; body: $.password differs: [redacted]\n'
        "    - expected, + in the body:\n"
        "        {\n"
        '          "cents": 4200,\n'
        '      -   "currency": "EUR",\n'
        '      +   "currency": "USD",\n'
        '          "password": "[redacted]"\n'
        "        }\n"
        "  POST http://app.internal/: 200\n"
        "    body: $.password is missing; body: $.items is not expected; body: $.more is not expected; body: 4 more\n"
        "  POST http://app.internal/: 200\n"
        "    body is empty\n"
        "  POST http://app.internal/: 200\n"
        '    body: $ is [], not {"cents": 4200, "currency": "EUR", "password": "[redacted]"}'
    )


async def test_of_calls_with_the_same_body_the_first_is_the_nearest(session: aiohttp.ClientSession) -> None:
    journal = await recorded(session, "a", "a")
    assert failure_of(lambda: journal.assert_called(json="b")) == (
        'Expected a call of json="b", but there was none.\n'
        "The calls there were, the nearest first:\n"
        '  POST http://app.internal/: 200\n    body: $ is "a", not "b"\n'
        '  POST http://app.internal/: 200\n    body: $ is "a", not "b"'
    )


async def test_the_diff_is_that_of_the_values_as_compared(session: aiohttp.ClientSession) -> None:
    journal = await recorded(session, {"more": 1, "currency": "USD", "cents": 4200.0})
    assert failure_of(
        lambda: journal.assert_called(method="POST", json_contains={"cents": 4200, "currency": "EUR"})
    ) == (
        'Expected a call of method=\'POST\', json_contains={"cents": 4200, "currency": "EUR"}, '
        "but there was none.\n"
        "The calls there were, the nearest first:\n"
        "  POST http://app.internal/: 200\n"
        '    body: $.currency is "USD", not "EUR"\n'
        "    - expected, + in the body:\n"
        "        {\n"
        '          "cents": 4200,\n'
        '      -   "currency": "EUR"\n'
        '      +   "currency": "USD"\n'
        "        }"
    )


async def test_only_the_nearest_call_has_a_diff_and_only_if_calls_are_missing(session: aiohttp.ClientSession) -> None:
    journal = await recorded(session, {"id": 1}, {"id": 2}, {"id": 3})
    assert failure_of(lambda: journal.assert_called(json={"id": 1}, times=2)).count("- expected, + in") == 1
    with pytest.raises(AssertionError) as caught:
        await journal.wait_for(json={"id": 4}, timeout=0)
    assert str(caught.value).count("- expected, + in") == 1
    assert "- expected" not in failure_of(lambda: journal.assert_called(json={"id": 1}, times=0))
    assert "- expected" not in failure_of(lambda: journal.assert_not_called(json={"id": 1}))


async def test_a_body_that_is_not_json_says_what_it_is(session: aiohttp.ClientSession) -> None:
    journal = await recorded(session, b"{")
    text = failure_of(lambda: journal.assert_called(json={}))
    assert text.endswith(": 200\n    body is not JSON, but 1 byte of 'application/octet-stream'")


async def test_a_failure_of_where_shows_its_source(session: aiohttp.ClientSession) -> None:
    journal = await recorded(session, {"id": 1})
    assert failure_of(lambda: journal.assert_called(where=lambda exchange: exchange.status == 201)) == (
        "Expected a call of where=lambda exchange: exchange.status == 201, but there was none.\n"
        "The calls there were, the nearest first:\n"
        "  POST http://app.internal/: 200\n"
        "    where() says no"
    )


@pytest.mark.parametrize("problem", [KeyError("X-Id"), AssertionError("not this one"), TimeoutError("mine")], ids=repr)
async def test_an_exception_of_where_says_which_exchange_it_is_about(
    session: aiohttp.ClientSession, problem: Exception
) -> None:
    def where(exchange: Exchange) -> bool:
        if exchange.number == 1:
            raise problem
        return True

    journal = await recorded(session, 1, 2, 3)
    questions: list[Callable[..., object]] = [journal.select, journal.assert_called, journal.assert_not_called]
    for number, question in enumerate(questions, 1):
        with pytest.raises(type(problem)) as caught:
            question(where=where)
        assert caught.value is problem
        assert problem.__notes__ == ["where() was called with <Exchange 1: POST http://app.internal/: 200>"] * number
    with pytest.raises(type(problem)) as caught:
        await journal.wait_for(where=where)
    assert caught.value is problem


# Criteria that make no sense.


@pytest.mark.parametrize(
    ("criteria", "kind", "text"),
    [
        ({"query": 1}, TypeError, "query must be a str or a mapping, not 1"),
        ({"query": "?a=1"}, ValueError, "query must be without the question mark, but is '?a=1'; write 'a=1'"),
        ({"query": {"a": None}}, TypeError, "query must be such as aiohttp takes for params: "),
        ({"json": {1, 2}}, TypeError, "json must be a JSON value: "),
        ({"json": float("nan")}, ValueError, "json must be a JSON value: "),
        (
            {"json_contains": [1]},
            TypeError,
            "json_contains must be a dict, not [1]; write json= for any other JSON value",
        ),
        ({"json_contains": "{}"}, TypeError, "json_contains must be a dict, not '{}'; write json="),
        ({"json_contains": {"a": {1}}}, TypeError, "json_contains must be a JSON value: "),
        ({"json": {}, "json_contains": {}}, TypeError, "write either json or json_contains, not both"),
        ({"path": "/a?b=1"}, ValueError, "without a query, not '/a?b=1'; write path='/a', query='b=1'"),
        (
            {"jsn": 1},
            TypeError,
            (
                "there is no criterion 'jsn'; the criteria are host, caller, method, path, query, status, json, "
                "json_contains, where"
            ),
        ),
    ],
)
async def test_a_criterion_that_makes_no_sense_is_an_error(
    criteria: dict[str, Any], kind: type[Exception], text: str
) -> None:
    journal = Journal()
    questions: list[Callable[..., object]] = [journal.select, journal.assert_called, journal.assert_not_called]
    for question in questions:
        with pytest.raises(kind, match=re.escape(text)):
            question(**criteria)
    with pytest.raises(kind, match=re.escape(text)):
        await journal.wait_for(**criteria)


# Faults.


async def test_a_fault_affects_only_requests_with_its_query(session: aiohttp.ClientSession) -> None:
    with connector_of(session).inject("app.internal", faults.Refuse(), query={"page": 2}) as injection:
        assert await fetch(session, "/?page=1") == b"ok"
        with pytest.raises(aiohttp.ClientConnectorError):
            await fetch(session, "/?page=2")
    assert injection.affected == 1


async def test_a_fault_that_met_no_request_with_its_query_shows_the_others(session: aiohttp.ClientSession) -> None:
    injection = connector_of(session).inject("app.internal", faults.Refuse(), query="page=2")
    with pytest.raises(AssertionError, match=r"query is 'page=1'"), injection:
        await fetch(session, "/?page=1")


@pytest.mark.parametrize("path", ["/a", "/b"])
@pytest.mark.parametrize("query", ["", "x=1"])
@pytest.mark.parametrize("caller", [None, "orders.internal"])
@pytest.mark.parametrize(
    ("host", "criteria"),
    [
        ("*", {}),
        ("other.internal", {}),
        (None, {"path": "/a"}),
        (None, {"path": re.compile("/[ac]")}),
        (None, {"query": "x=1"}),
        (None, {"query": ""}),
        (None, {"caller": None}),
        (None, {"caller": "ORDERS.internal"}),
        (None, {"method": "get"}),
        (None, {"method": "POST"}),
        ("*.internal", {"method": "get", "path": "/a", "query": {"x": 1}, "caller": None}),
    ],
)
def test_a_call_matches_if_nothing_differs(
    host: str | None, criteria: dict[str, Any], path: str, query: str, caller: str | None
) -> None:
    call = Call(Address("stock.internal", 80, secure=False), caller, "GET", path, query)
    selector = Selector(host, **criteria)
    assert selector.matches_call(call) == (not selector.differences_of_call(call))


async def test_bodies_are_no_criterion_of_a_fault(session: aiohttp.ClientSession) -> None:
    inject: Any = connector_of(session).inject
    for name in ("json", "json_contains", "status", "where"):
        with pytest.raises(TypeError, match=name):
            inject("app.internal", faults.Refuse(), **{name: {}})


class Held:
    """Both kinds of apps; each request is held until the test lets it go."""

    def __init__(self) -> None:
        self.held = 0
        self.may_go_on = asyncio.Event()

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.held += 1
        await self.may_go_on.wait()
        await respond(send)

    async def handle(self, request: web.Request) -> web.Response:
        self.held += 1
        await self.may_go_on.wait()
        return web.Response(text="ok")

    def web(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/", self.handle)
        return app


@pytest.mark.parametrize("kind", ["asgi", "web"])
async def test_a_fault_affects_requests_in_progress_with_its_query(kind: str) -> None:
    held = Held()
    async with session_to(held.web() if kind == "web" else held.asgi) as session:
        first, second = (asyncio.create_task(fetch(session, f"/?page={page}", "POST")) for page in (1, 2))
        await until(lambda: held.held == 2)
        with connector_of(session).inject("app.internal", faults.Reset(), query={"page": 2}) as injection:
            held.may_go_on.set()
            assert await first == b"ok"
            with pytest.raises(aiohttp.ClientOSError):
                await second
        assert (injection.matched, injection.affected) == (1, 1)


async def test_an_idle_connection_is_not_cut_if_only_a_query_is_affected(session: aiohttp.ClientSession) -> None:
    await fetch(session, "/")
    inject = connector_of(session).inject
    with (
        inject("app.internal", faults.Reset(), query="page=2", allow_unused=True),
        connector_of(session).record() as journal,
    ):
        await fetch(session, "/")
    assert journal[0].reused is True
