"""The journal: selections, assertions and their messages, waiting, and what a recording covers."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from asgi_connector import Exchange, Journal, faults
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import session_to
from tests.connector.test_loops import in_another_loop
from tests.support.sessions import connector_of
from tests.support.waiting import settle, until


async def answer(send: Send, status: int = 200, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, 404 if scope["path"] == "/missing" else 200)


class Held:
    """An app that records which requests have arrived, and answers each when the test lets it."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[str] = asyncio.Queue()
        self.may_answer: dict[str, asyncio.Event] = {}

    def let_go(self, path: str) -> None:
        self.may_answer.setdefault(path, asyncio.Event()).set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.arrived.put_nowait(path)
        await self.may_answer.setdefault(path, asyncio.Event()).wait()
        await answer(send)


async def ask(session: aiohttp.ClientSession, url: str = "/", method: str = "GET") -> int:
    async with session.request(method, url) as response:
        await response.read()
        return response.status


# Which calls are selected.

CALLS = [
    ("GET", "http://users.internal/users/1?page=2"),
    ("POST", "http://orders.internal/orders"),
    ("GET", "http://users.internal/users/1"),  # inside the previous call
    ("GET", "https://billing.internal/missing"),
    ("PUT", "http://a.tenants.internal:8080/caf%C3%A9/a%2Fb"),
    ("GET", "http://b.a.tenants.internal/"),
    ("GET", "http://bücher.example/"),
    ("GET", "http://[::1]:8080/"),
]


@pytest_asyncio.fixture
async def calls() -> AsyncIterator[Journal]:
    """One journal for all the queries. The numbers of its exchanges are indexes of `CALLS`."""

    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        await ask(session, "http://users.internal/users/1")
        await answer(send, 201)

    apps = {"*": app, "orders.internal": orders}
    async with session_to(apps) as session:
        with connector_of(session).record() as journal:
            for at, (method, url) in enumerate(CALLS):
                if at != 2:
                    await ask(session, url, method)
        assert [(each.method, each.url) for each in journal] == [(method, URL(url)) for method, url in CALLS]
        yield journal


def numbers(journal: Sequence[Exchange]) -> list[int]:
    return [exchange.number for exchange in journal]


ALL = list(range(len(CALLS)))

CRITERIA: list[tuple[dict[str, Any], list[int]]] = [
    ({}, ALL),
    ({"host": None}, ALL),
    ({"host": "*"}, ALL),
    ({"host": "users.internal"}, [0, 2]),
    ({"host": "USERS.internal."}, [0, 2]),
    ({"host": "users.internal:80"}, [0, 2]),
    ({"host": "users.internal:81"}, []),
    ({"host": "http://users.internal"}, [0, 2]),
    ({"host": "ws://users.internal"}, [0, 2]),
    ({"host": "https://users.internal"}, []),
    ({"host": "https://billing.internal"}, [3]),
    ({"host": "https://*"}, [3]),
    ({"host": "*:443"}, [3]),
    ({"host": "*:8080"}, [4, 7]),
    ({"host": "*.internal"}, [0, 1, 2, 3, 4, 5]),
    ({"host": "*.tenants.internal"}, [4, 5]),
    ({"host": "*.tenants.internal:8080"}, [4]),
    ({"host": "*.a.tenants.internal"}, [5]),
    ({"host": "tenants.internal"}, []),
    ({"host": "*.users.internal"}, []),
    ({"host": "bücher.example"}, [6]),
    ({"host": "BÜCHER.example"}, [6]),
    ({"host": "xn--bcher-kva.example"}, [6]),
    ({"host": "[::1]"}, [7]),
    ({"host": "[0:0::1]:8080"}, [7]),
    ({"caller": None}, [0, 1, 3, 4, 5, 6, 7]),
    ({"caller": "orders.internal"}, [2]),
    ({"caller": "ORDERS.internal."}, [2]),
    ({"caller": "users.internal"}, []),
    ({"method": "GET"}, [0, 2, 3, 5, 6, 7]),
    ({"method": "get"}, [0, 2, 3, 5, 6, 7]),
    ({"method": "PATCH"}, []),
    ({"path": "/users/1"}, [0, 2]),
    ({"path": "/users"}, []),
    ({"path": "/"}, [5, 6, 7]),
    ({"path": "/café/a/b"}, [4]),
    ({"path": "/caf%C3%A9/a%2Fb"}, []),
    ({"path": re.compile("/users/[0-9]+")}, [0, 2]),
    ({"path": re.compile("/USERS/.", re.IGNORECASE)}, [0, 2]),
    ({"path": re.compile("/users")}, []),
    ({"path": re.compile("users/1")}, []),
    ({"path": re.compile("/users/1|/orders")}, [0, 1, 2]),
    ({"path": re.compile(r".*\?.*")}, []),
    ({"status": 200}, [0, 2, 4, 5, 6, 7]),
    ({"status": 201}, [1]),
    ({"status": 500}, []),
    ({"where": lambda exchange: exchange.url.query.get("page") == "2"}, [0]),
    ({"where": lambda exchange: exchange.url.query.get("page")}, [0]),
    ({"host": "users.internal", "caller": None}, [0]),
    ({"host": "users.internal", "caller": "orders.internal"}, [2]),
    ({"host": "*.internal", "caller": None, "method": "GET", "status": 404}, [3]),
    ({"host": "*.internal", "method": "PUT", "path": re.compile("/.*/b")}, [4]),
    ({"host": "*.internal", "method": "PUT", "path": "/users/1"}, []),
    (
        {
            "host": "http://users.internal:80",
            "caller": "orders.internal",
            "method": "GET",
            "path": "/users/1",
            "status": 200,
            "where": lambda exchange: exchange.parent is not None,
        },
        [2],
    ),
]

EACH_CRITERION = pytest.mark.parametrize(
    ("criteria", "expected"),
    CRITERIA,
    ids=[
        ",".join(f"{key}={'…' if callable(value) else value}" for key, value in criteria.items()) or "nothing"
        for criteria, _ in CRITERIA
    ],
)


@EACH_CRITERION
async def test_each_question_means_the_same_calls(
    calls: Journal, criteria: dict[str, Any], expected: list[int]
) -> None:
    selected = calls.select(**criteria)
    assert type(selected) is Journal
    assert numbers(selected) == expected
    assert all(exchange is calls[exchange.number] for exchange in selected)
    assert numbers(calls.assert_called(**criteria, times=len(expected))) == expected
    with pytest.raises(AssertionError):
        calls.assert_called(**criteria, times=len(expected) + 1)
    if expected:
        assert numbers(calls.assert_called(**criteria)) == expected
        assert numbers(await calls.wait_for(**criteria)) == expected
        with pytest.raises(AssertionError):
            calls.assert_not_called(**criteria)
    else:
        assert numbers(calls.assert_not_called(**criteria)) == []
        with pytest.raises(AssertionError):
            calls.assert_called(**criteria)
        with pytest.raises(AssertionError):
            await calls.wait_for(**criteria, timeout=0)


async def test_what_was_selected_may_be_asked_in_turn(calls: Journal) -> None:
    assert numbers(calls.select("users.internal").select(caller=None)) == [0]
    calls.select("users.internal").assert_not_called("orders.internal")


async def test_a_function_is_asked_only_about_what_else_matches(calls: Journal) -> None:
    asked: list[Exchange] = []

    def where(exchange: Exchange) -> bool:
        asked.append(exchange)
        return True

    calls.select("users.internal", caller=None, where=where)
    assert numbers(asked) == [0]


async def test_an_exception_of_a_function_is_the_caller_s(calls: Journal) -> None:
    problem = KeyError("no such header")

    def where(exchange: Exchange) -> bool:
        raise problem

    for question in (calls.select, calls.assert_called, calls.assert_not_called):
        with pytest.raises(KeyError) as caught:
            question(where=where)
        assert caught.value is problem


async def test_a_timeout_error_of_a_function_is_not_that_of_the_wait(calls: Journal) -> None:
    problem = TimeoutError("of my own")

    def where(exchange: Exchange) -> bool:
        raise problem

    with pytest.raises(TimeoutError) as caught:
        await calls.wait_for(where=where)
    assert caught.value is problem


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"host": 80}, TypeError, "a host pattern must be a str, not 80"),
    ({"host": b"users.internal"}, TypeError, "a host pattern must be a str, not b'users.internal'"),
    ({"host": ""}, ValueError, "''"),
    ({"host": "users.internal/users"}, ValueError, "'users.internal/users': a host pattern has no path"),
    ({"host": "ftp://users.internal"}, ValueError, "the scheme must be one of http, https, ws and wss, not 'ftp'"),
    ({"host": "users.internal:0"}, ValueError, "the port must be a number from 1 to 65535, not '0'"),
    ({"caller": 1}, TypeError, "caller must be a host pattern, None, or left out, not 1"),
    ({"caller": "orders.internal/orders"}, ValueError, "'orders.internal/orders': a host pattern has no path"),
    ({"method": b"GET"}, TypeError, "method must be a str, not b'GET'"),
    ({"path": b"/users"}, TypeError, "path must be a str or a compiled pattern of str, not b'/users'"),
    ({"path": re.compile(b"/users")}, TypeError, "path must be a str or a compiled pattern of str, not re.compile"),
    ({"path": "users"}, ValueError, "path must start with a slash and be without a query, not 'users'"),
    ({"path": ""}, ValueError, "path must start with a slash and be without a query, not ''"),
    ({"path": "/users?page=2"}, ValueError, "path must start with a slash and be without a query, not '/users?page=2'"),
    ({"status": "200"}, TypeError, "status must be an int, not '200'"),
    ({"status": True}, TypeError, "status must be an int, not True"),
    ({"where": "users"}, TypeError, "where must be a function of an Exchange, not 'users'"),
]


@pytest.mark.parametrize(
    ("criteria", "kind", "text"),
    BAD,
    ids=[f"{key}={value!r}" for criteria, _, _ in BAD for key, value in criteria.items()],
)
async def test_a_criterion_that_makes_no_sense_is_an_error(
    criteria: dict[str, Any], kind: type[Exception], text: str
) -> None:
    journal = Journal()
    for question in (journal.select, journal.assert_called, journal.assert_not_called):
        with pytest.raises(kind, match=re.escape(text)):
            question(**criteria)
    with pytest.raises(kind, match=re.escape(text)):
        await journal.wait_for(**criteria)


@pytest.mark.parametrize(
    ("host", "kind", "instead"),
    [
        (
            "http://users.internal/users/1?page=2#top",
            ValueError,
            "host='http://users.internal', path='/users/1', query='page=2'",
        ),
        ("users.internal/caf%C3%A9", ValueError, "host='users.internal', path='/caf\u00e9'"),
        ("https://u:p@users.internal:8080/", ValueError, "host='https://users.internal:8080', path='/'"),
        ("users.internal?page=2", ValueError, "host='users.internal', query='page=2'"),
        ("[::1]:8080/a", ValueError, "host='[::1]:8080', path='/a'"),
        (URL("http://users.internal/users/1"), TypeError, "host='http://users.internal', path='/users/1'"),
    ],
    ids=str,
)
async def test_a_url_is_no_host_and_the_error_says_what_to_write(
    host: Any, kind: type[Exception], instead: str
) -> None:
    journal = Journal()
    async with session_to(app) as session:
        questions: list[Callable[[Any], object]] = [
            journal.select,
            journal.assert_called,
            journal.assert_not_called,
            lambda host: connector_of(session).inject(host, faults.Reset()),
        ]
        for question in questions:
            with pytest.raises(kind, match=re.escape(f"{host!r}") + ".*; write " + re.escape(instead) + "$"):
                question(host)
        with pytest.raises(kind, match=re.escape(instead)):
            await journal.wait_for(host)


@pytest.mark.parametrize("host", ["ftp://users.internal/users", "/users/1", "a b/c", "http:///users", "[::1/a"])
async def test_what_has_no_host_that_could_be_asked_for_is_only_an_error(host: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(host))) as caught:
        Journal().select(host)
    assert "; write " not in str(caught.value)


@pytest.mark.parametrize(
    ("times", "kind", "text"),
    [
        (-1, ValueError, "times must not be negative, but is -1"),
        ("2", TypeError, "times must be an int or None, not '2'"),
        (True, TypeError, "times must be an int or None, not True"),
        (1.0, TypeError, "times must be an int or None, not 1.0"),
    ],
)
async def test_a_number_of_times_that_makes_no_sense_is_an_error(times: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        Journal().assert_called(times=times)
    with pytest.raises(kind, match=text):
        await Journal().wait_for(times=times)


@pytest.mark.parametrize(
    ("timeout", "kind", "text"),
    [
        (-1, ValueError, "timeout must not be negative, but is -1"),
        (float("nan"), ValueError, "timeout must not be negative, but is nan"),
        (10**400, ValueError, f"timeout must be from 0 to 1.8e+308, not {10**400}"),
        ("1", TypeError, "timeout must be an int or a float, not '1'"),
        (True, TypeError, "timeout must be an int or a float, not True"),
    ],
)
async def test_a_timeout_that_makes_no_sense_is_an_error(timeout: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        await Journal().wait_for(timeout=timeout)


@pytest.mark.parametrize("timeout", [None, float("inf"), 60, 0.0])
async def test_a_timeout_may_be_nothing_or_without_end(timeout: float | None) -> None:
    assert list(await Journal().wait_for(times=0, timeout=timeout)) == []


async def test_the_host_is_the_only_criterion_that_needs_no_name() -> None:
    question: Any = Journal().select
    with pytest.raises(TypeError):
        question("users.internal", None)


# What the message of a failed assertion contains.


async def test_too_few_calls_are_shown_and_then_the_others_with_what_differs(calls: Journal) -> None:
    with pytest.raises(AssertionError) as caught:
        calls[:5].assert_called("users.internal", caller=None, method="GET", path="/users/1", times=2)
    assert str(caught.value) == (
        "Expected 2 calls of 'users.internal', caller=None, method='GET', path='/users/1', but there was 1:\n"
        "  GET http://users.internal/users/1?page=2: 200\n"
        "Other calls there were, the nearest first:\n"
        "  orders.internal -> GET http://users.internal/users/1: 200\n"
        "    caller is 'orders.internal'\n"
        "  GET https://billing.internal/missing: 404\n"
        "    host is 'billing.internal', port 443, path is '/missing'\n"
        "  POST http://orders.internal/orders: 201\n"
        "    host is 'orders.internal', port 80, method is 'POST', path is '/orders'\n"
        "  PUT http://a.tenants.internal:8080/caf%C3%A9/a%2Fb: 200\n"
        "    host is 'a.tenants.internal', port 8080, method is 'PUT', path is '/café/a/b'"
    )


@pytest.mark.parametrize(
    ("criteria", "text"),
    [
        (
            {"status": 500},
            (
                "Expected a call of status=500, but there was none.\n"
                "The calls there were, the nearest first:\n"
                "  GET http://users.internal/users/1?page=2: 200\n"
                "    status is 200\n"
                "  POST http://orders.internal/orders: 201\n"
                "    status is 201"
            ),
        ),
        (
            {"host": "users.internal", "status": 201, "times": 3},
            (
                "Expected 3 calls of 'users.internal', status=201, but there was none.\n"
                "The calls there were, the nearest first:\n"
                "  GET http://users.internal/users/1?page=2: 200\n"
                "    status is 200\n"
                "  POST http://orders.internal/orders: 201\n"
                "    host is 'orders.internal', port 80"
            ),
        ),
        (
            {"method": "delete", "times": 1},
            (
                "Expected 1 call of method='delete', but there was none.\n"
                "The calls there were, the nearest first:\n"
                "  GET http://users.internal/users/1?page=2: 200\n"
                "    method is 'GET'\n"
                "  POST http://orders.internal/orders: 201\n"
                "    method is 'POST'"
            ),
        ),
        (
            {"path": re.compile("/order")},
            (
                "Expected a call of path=re.compile('/order'), but there was none.\n"
                "The calls there were, the nearest first:\n"
                "  GET http://users.internal/users/1?page=2: 200\n"
                "    path is '/users/1'\n"
                "  POST http://orders.internal/orders: 201\n"
                "    path is '/orders'"
            ),
        ),
        (
            {"times": 3},
            (
                "Expected 3 calls of anything, but there were 2:\n"
                "  GET http://users.internal/users/1?page=2: 200\n"
                "  POST http://orders.internal/orders: 201"
            ),
        ),
        (
            {"times": 0},
            (
                "Expected 0 calls of anything, but there were 2:\n"
                "  GET http://users.internal/users/1?page=2: 200\n"
                "  POST http://orders.internal/orders: 201"
            ),
        ),
        (
            {"host": "USERS.internal.", "times": 0},
            (
                "Expected 0 calls of 'users.internal', but there was 1:\n"
                "  GET http://users.internal/users/1?page=2: 200\n"
                "Other calls there were, the nearest first:\n"
                "  POST http://orders.internal/orders: 201\n"
                "    host is 'orders.internal', port 80"
            ),
        ),
    ],
    ids=["status", "host and status", "method", "path", "too few", "too many", "none"],
)
async def test_a_failing_assertion_says_what_differs(calls: Journal, criteria: dict[str, Any], text: str) -> None:
    with pytest.raises(AssertionError) as caught:
        calls[:2].assert_called(**criteria)
    assert str(caught.value) == text


async def test_what_a_function_refuses_is_nearest(calls: Journal) -> None:
    class Where:
        def __call__(self, exchange: Exchange) -> bool:
            return False

        def __repr__(self) -> str:
            return "nobody"

    with pytest.raises(AssertionError) as caught:
        calls[:2].assert_called(method="POST", where=Where())
    assert str(caught.value) == (
        "Expected a call of method='POST', where=nobody, but there was none.\n"
        "The calls there were, the nearest first:\n"
        "  GET http://users.internal/users/1?page=2: 200\n"
        "    method is 'GET'\n"
        "  POST http://orders.internal/orders: 201\n"
        "    where() says no"
    )


async def test_calls_that_there_should_not_be_are_shown(calls: Journal) -> None:
    with pytest.raises(AssertionError) as caught:
        calls[:4].assert_not_called("users.internal")
    assert str(caught.value) == (
        "Expected no call of 'users.internal', but there were 2:\n"
        "  GET http://users.internal/users/1?page=2: 200\n"
        "  orders.internal -> GET http://users.internal/users/1: 200\n"
        "Other calls there were, the nearest first:\n"
        "  POST http://orders.internal/orders: 201\n"
        "    host is 'orders.internal', port 80\n"
        "  GET https://billing.internal/missing: 404\n"
        "    host is 'billing.internal', port 443"
    )


async def test_an_empty_journal_says_that_there_was_no_call() -> None:
    with pytest.raises(AssertionError) as caught:
        Journal().assert_called("users.internal", caller="orders.internal")
    assert str(caught.value) == (
        "Expected a call of 'users.internal', caller='orders.internal', but there was none.\nThere was no call at all."
    )
    with pytest.raises(AssertionError) as caught:
        await Journal().wait_for("users.internal", times=2, timeout=0)
    assert str(caught.value) == (
        "Waited 0 s for 2 calls of 'users.internal' to end, but there was none.\nThere was no call at all."
    )
    assert len(Journal().assert_not_called()) == 0


async def test_ten_calls_of_each_kind_are_shown() -> None:
    async with session_to(app) as session:
        with connector_of(session).record() as journal:
            for at in range(12):
                await ask(session, f"/{at}", "PUT")
            for at in range(11):
                await ask(session, f"/{at}")
    with pytest.raises(AssertionError) as caught:
        journal.assert_not_called(method="PUT")
    lines = str(caught.value).splitlines()
    assert lines[0] == "Expected no call of method='PUT', but there were 12:"
    assert lines[1:11] == [f"  PUT http://app.internal/{at}: 200" for at in range(10)]
    assert lines[11:13] == ["  and 2 more", "Other calls there were, the nearest first:"]
    assert lines[13:33:2] == [f"  GET http://app.internal/{at}: 200" for at in range(10)]
    assert set(lines[14:33:2]) == {"    method is 'GET'"}
    assert lines[33:] == ["  and 1 more"]
    with pytest.raises(AssertionError) as caught:
        journal[:10].assert_called(times=2)
    assert len(str(caught.value).splitlines()) == 11  # ten are not cut


# How a journal is printed.


async def test_a_printed_journal_shows_who_called_inside_of_whom(calls: Journal) -> None:
    text = re.sub(r"in [0-9]+ ms", "in … ms", str(calls[:4]))
    assert text == (
        "GET http://users.internal/users/1?page=2: 200 in … ms\n"
        "POST http://orders.internal/orders: 201 in … ms\n"
        "  orders.internal -> GET http://users.internal/users/1: 200 in … ms\n"
        "GET https://billing.internal/missing: 404 in … ms"
    )
    assert str(Journal()) == "(no calls)"


async def test_a_call_whose_parent_was_not_selected_is_not_indented(calls: Journal) -> None:
    assert str(calls.select(caller="orders.internal")).startswith("orders.internal -> GET http://users.internal/users")


async def test_a_journal_in_a_debugger_is_counted(calls: Journal) -> None:
    assert repr(calls) == "<Journal of 8 exchanges>"
    assert repr(calls[:1]) == "<Journal of 1 exchange>"
    assert repr(Journal()) == "<Journal of 0 exchanges>"


async def test_a_journal_is_a_sequence(calls: Journal) -> None:
    assert isinstance(calls, Sequence)
    assert len(calls) == len(CALLS)
    assert calls[-1] is calls[7]
    assert list(reversed(calls)) == list(calls)[::-1]
    assert calls[3] in calls
    assert calls.index(calls[3]) == 3
    assert calls
    assert not Journal()
    for part, expected in ((calls[1:3], [1, 2]), (calls[::-3], [7, 4, 1]), (calls[9:], [])):
        assert type(part) is Journal
        assert numbers(part) == expected
    with pytest.raises(IndexError):
        calls[8]
    by_name: Any = calls
    with pytest.raises(TypeError):
        by_name["users.internal"]


# Waiting.


async def test_a_call_that_has_ended_is_not_waited_for(calls: Journal) -> None:
    assert numbers(await calls.wait_for("users.internal", times=2, timeout=0)) == [0, 2]
    assert numbers(await calls.wait_for("users.internal", times=1, timeout=0)) == [0, 2]
    assert numbers(await calls.wait_for("mail.internal", times=0, timeout=0)) == []


async def test_a_call_made_after_the_response_is_waited_for() -> None:
    mail = Held()
    tasks: list[asyncio.Task[int]] = []

    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        tasks.append(asyncio.create_task(ask(session, "http://mail.internal/send", "POST")))
        await answer(send)

    async with session_to({"mail.internal": mail, "app.internal": orders}) as session:
        with connector_of(session).record() as journal:
            await ask(session)
            waiting = asyncio.create_task(journal.wait_for("mail.internal", path="/send", timeout=None))
            await mail.arrived.get()
            await settle()
            assert not waiting.done()  # it has arrived, and not ended
            assert len(journal.assert_called("mail.internal", path="/send", times=1)) == 1
            mail.let_go("/send")
            (sent,) = await waiting
        assert await tasks[0] == 200
        assert (sent.state, sent.status, sent.caller, sent.parent) == ("done", 200, "app.internal", journal[0])


async def test_a_call_that_fails_has_ended_too() -> None:
    async with session_to(app) as session:
        with connector_of(session).record() as journal:
            waiting = asyncio.create_task(journal.wait_for("elsewhere.internal", timeout=None))
            await settle()
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await ask(session, "http://elsewhere.internal/")
            (refused,) = await waiting
    assert refused.error is caught.value


async def test_as_many_calls_as_asked_for_are_waited_for() -> None:
    held = Held()
    async with session_to(held) as session:
        with connector_of(session).record() as journal:
            asking = [asyncio.create_task(ask(session, path)) for path in ("/0", "/1", "/2")]
            for _ in asking:
                await held.arrived.get()
            waiting = [asyncio.create_task(journal.wait_for(times=times, timeout=None)) for times in (1, 2, 3)]
            for count, path in enumerate(("/2", "/0", "/1")):
                assert [each.done() for each in waiting] == [at < count for at in range(3)]
                held.let_go(path)
                await settle()
            assert [[each.path for each in await found] for found in waiting] == [
                ["/2"],
                ["/0", "/2"],
                ["/0", "/1", "/2"],
            ]
            await asyncio.gather(*asking)


async def test_what_is_not_selected_does_not_end_a_wait() -> None:
    async with session_to(app) as session:
        with connector_of(session).record() as journal:
            waiting = asyncio.create_task(journal.wait_for(status=404, timeout=None))
            await ask(session)
            await settle()
            assert not waiting.done()
            await ask(session, "/missing")
            assert numbers(await waiting) == [1]


async def test_a_wait_that_is_too_long_shows_the_calls_there_were() -> None:
    held = Held()
    async with session_to({"app.internal": held, "mail.internal": app}) as session:
        with connector_of(session).record() as journal:
            asking = asyncio.create_task(ask(session, "/slow", "POST"))
            await held.arrived.get()
            await ask(session, "http://mail.internal/")
            with pytest.raises(AssertionError) as caught:
                await journal.wait_for("app.internal", path="/slow", timeout=0.01)
            assert str(caught.value) == (
                "Waited 0.01 s for 1 call of 'app.internal', path='/slow' to end, but there was 1:\n"
                "  POST http://app.internal/slow: running\n"
                "Other calls there were, the nearest first:\n"
                "  GET http://mail.internal/: 200\n"
                "    host is 'mail.internal', port 80, path is '/'"
            )
            assert caught.value.__suppress_context__
            held.let_go("/slow")
            await asking


async def test_a_wait_that_is_cancelled_is_forgotten() -> None:
    journal = Journal()
    waiting = asyncio.create_task(journal.wait_for(timeout=None))
    await until(lambda: len(journal._waiters._futures) == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not journal._waiters._futures


async def test_a_recording_that_begins_or_ends_wakes_no_waiter() -> None:
    """The waiter may be in another thread, whose journal follows this connector."""
    async with session_to(Held()) as session:
        connector = connector_of(session)
        with connector.record() as journal:
            waiting = asyncio.create_task(journal._waiters.wait())
            await until(lambda: bool(journal._waiters))
            with connector.record():
                pass
            assert journal._waiters
            await settle()
            assert not waiting.done()
            waiting.cancel()


async def test_a_timeout_around_a_wait_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await Journal().wait_for(timeout=None)


async def test_a_selection_waits_for_what_it_has() -> None:
    held = Held()
    async with session_to(held) as session:
        with connector_of(session).record() as journal:
            asking = asyncio.create_task(ask(session, "/0"))
            await held.arrived.get()
            selections = [journal.select("app.internal"), journal[:]]
            waiting = [asyncio.create_task(each.wait_for(timeout=None)) for each in selections]
            await settle()
            held.let_go("/0")
            assert [numbers(each) for each in await asyncio.gather(*waiting)] == [[0], [0]]
            await asking
            held.let_go("/1")
            await ask(session, "/1")
        assert [len(each) for each in selections] == [1, 1]
        with pytest.raises(AssertionError):
            await selections[0].wait_for(times=2, timeout=0)


async def test_what_runs_at_the_end_of_the_block_may_be_waited_for() -> None:
    held = Held()
    async with session_to(held) as session:
        with connector_of(session).record() as journal:
            asking = asyncio.create_task(ask(session, "/0"))
            await held.arrived.get()
        waiting = asyncio.create_task(journal.wait_for(timeout=None))
        await settle()
        assert not waiting.done()
        assert journal[0].state == "running"
        held.let_go("/0")
        assert numbers(await waiting) == [0]
        assert (journal[0].state, journal[0].status) == ("done", 200)
        await asking


# What a recording covers.


async def test_only_what_starts_in_the_block_is_recorded() -> None:
    held = Held()
    async with session_to(held) as session:
        connector = connector_of(session)
        before = asyncio.create_task(ask(session, "/before"))
        await held.arrived.get()
        with connector.record() as journal:
            held.let_go("/before")
            await before
            held.let_go("/inside")
            await ask(session, "/inside")
        held.let_go("/after")
        await ask(session, "/after")
        assert [each.path for each in journal] == ["/inside"]


async def test_calls_are_in_the_order_of_their_start() -> None:
    held = Held()
    async with session_to(held) as session:
        with connector_of(session).record() as journal:
            asking = [asyncio.create_task(ask(session, f"/{at}")) for at in range(4)]
            for _ in asking:
                await held.arrived.get()
            for at in reversed(range(4)):
                held.let_go(f"/{at}")
                await asking[at]
    assert [each.path for each in journal] == ["/0", "/1", "/2", "/3"]
    assert [each.order[0] for each in journal] == [0, 1, 2, 3]
    assert [each.order[1] for each in journal] == [7, 6, 5, 4]


async def test_nested_and_overlapping_recordings_share_exchanges() -> None:
    async with session_to(app) as session:
        connector = connector_of(session)
        outer, inner, late = connector.record(), connector.record(bodies=True), connector.record()
        with outer as first:
            await ask(session, "/0")
            second = inner.__enter__()
            await ask(session, "/1")
            third = late.__enter__()
            await ask(session, "/2")
            inner.__exit__(None, None, None)
            await ask(session, "/3")
        await ask(session, "/4")
        late.__exit__(None, None, None)
    assert [[each.path for each in journal] for journal in (first, second, third)] == [
        ["/0", "/1", "/2", "/3"],
        ["/1", "/2"],
        ["/2", "/3", "/4"],
    ]
    assert first[1] is second[0]
    assert first[2] is second[1] is third[0]
    assert first[3] is third[1]


async def test_the_journal_is_there_after_an_exception_in_the_block() -> None:
    async with session_to(app) as session:
        problem = KeyError()
        try:
            with connector_of(session).record() as journal:
                await ask(session)
                raise problem
        except KeyError as exc:
            assert exc is problem  # noqa: PT017 (raises() would not let the block be seen)
        await ask(session)
    assert numbers(journal) == [0]


async def test_recordings_of_two_connectors_are_apart() -> None:
    async with session_to(app) as one, session_to(app) as other:
        with connector_of(one).record() as first, connector_of(other).record() as second:
            await ask(one, "/one")
            await ask(other, "/other")
    assert [[each.path for each in journal] for journal in (first, second)] == [["/one"], ["/other"]]


@pytest_asyncio.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with session_to(app) as session:
        yield session


@pytest.fixture
def recorded(client: aiohttp.ClientSession) -> Iterator[Journal]:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    with connector_of(client).record() as journal:
        yield journal
    journal.assert_called("app.internal", times=1)


async def test_a_fixture_that_is_no_coroutine_may_record(client: aiohttp.ClientSession, recorded: Journal) -> None:
    await ask(client)
    assert numbers(recorded) == [0]


async def test_a_recording_from_another_loop_is_an_error(client: aiohttp.ClientSession) -> None:
    connector = connector_of(client)

    async def record() -> None:
        with connector.record():
            raise AssertionError("it has begun")

    with pytest.raises(RuntimeError, match="belongs to"):
        await in_another_loop(record)
    with connector.record() as journal:  # it has changed nothing
        await ask(client)
    assert numbers(journal) == [0]


@pytest.mark.parametrize(
    ("size", "kind", "text"),
    [
        (-1, ValueError, "max_body_size must not be negative, but is -1"),
        ("1", TypeError, "max_body_size must be an int, a number of bytes, not '1'"),
        (None, TypeError, "max_body_size must be an int, a number of bytes, not None"),
        (True, TypeError, "max_body_size must be an int, a number of bytes, not True"),
    ],
)
async def test_a_size_that_makes_no_sense_is_an_error(
    client: aiohttp.ClientSession, size: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        connector_of(client).record(bodies=True, max_body_size=size)


async def test_a_recording_may_be_open_while_the_connector_closes() -> None:
    async with session_to(app) as session:
        recording = connector_of(session).record()
        journal = recording.__enter__()
        await ask(session)
    with pytest.raises(RuntimeError, match="Session is closed"):
        await ask(session)
    assert numbers(journal) == [0]
    recording.__exit__(None, None, None)


async def test_a_timeout_of_where_is_its_own() -> None:
    def where(exchange: Exchange) -> bool:
        raise TimeoutError("mine")

    async with session_to(app) as session:
        with connector_of(session).record() as journal:
            waiting = asyncio.create_task(journal.wait_for(where=where))
            await asyncio.sleep(0)
            await ask(session, "http://app.internal/")
            with pytest.raises(TimeoutError, match="mine"):
                await waiting
