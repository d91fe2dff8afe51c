"""The text about the calls of a test: what it leaves out when there is much, and how it tells of exceptions."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

import aiohttp
import pytest

from asgi_connector import ASGIRoutingConnector, faults
from asgi_connector._exchange.exchange import Exchange
from asgi_connector._export.section import MAX_LINES, Account, describe
from asgi_connector._notices import Notice
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import session_to
from tests.support.sessions import connector_of, fetch


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the status in its query, and calls the path in the header ``next`` before."""
    headers = dict(scope["headers"])
    if b"next" in headers:
        await fetch(Session.of_apps, headers[b"next"].decode())
    status = int(scope["query_string"] or b"200")
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body"})


E = TypeVar("E", bound=BaseException)


class Session:
    of_apps: aiohttp.ClientSession


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with session_to(app) as session:
        Session.of_apps = session
        yield session


def account_of(exchanges: Sequence[Exchange] = (), **changes: Any) -> Account:
    settings = {"mounts": ["app.internal"], "dropped": 0, "waiting": {}, "notices": [], "unused": []}
    return Account(exchanges=exchanges, **{**settings, **changes})


def text_of(*accounts: Account) -> str:
    return re.sub(r"\bin [0-9.]+ m?s\b", "in 0 s", describe(accounts))


async def test_of_many_calls_those_that_stand_out_are_shown_with_their_callers_and_the_latest(
    session: aiohttp.ClientSession,
) -> None:
    with connector_of(session).record() as journal:
        for number in range(300):
            await fetch(session, f"/{number}", headers={"next": "/below?500"} if number == 50 else {})
    lines = text_of(account_of(journal)).splitlines()
    assert lines[:4] == [
        "Calls:",
        "  (50 more calls)",
        "  GET http://app.internal/50: 200 in 0 s",
        "!   app.internal -> GET http://app.internal/below?500: 500 in 0 s",
    ]
    assert lines[4] == "  (111 more calls)"
    assert lines[5] == "  GET http://app.internal/162: 200 in 0 s"
    assert lines[-1] == "  GET http://app.internal/299: 200 in 0 s"


async def test_more_calls_that_stand_out_than_fit_are_counted(session: aiohttp.ClientSession) -> None:
    with connector_of(session).record() as journal:
        for number in range(200):
            await fetch(session, f"/{number}?404")
    lines = text_of(account_of(journal, dropped=7)).splitlines()
    assert lines[1] == "  (7 earlier calls are not shown)"
    assert lines[2] == "! GET http://app.internal/0?404: 404 in 0 s"
    assert lines[-1] == "  (60 more calls)"


async def test_a_call_with_more_callers_than_fit_is_shown_with_the_nearest() -> None:
    """Such as services that call each other in a circle, until one fails."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        number = int(scope["path"].removeprefix("/"))
        if number:
            await fetch(own, f"/{number - 1}")
        await send({"type": "http.response.start", "status": 200 if number else 500, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    connector = ASGIRoutingConnector({"app.internal": app}, lifespan="off", limit=0)
    async with aiohttp.ClientSession("http://app.internal", connector=connector) as own:
        with connector.record() as journal:
            await fetch(own, "/299")
    lines = text_of(account_of(journal)).splitlines()
    assert lines[:2] == ["Calls:", "  (160 more calls)"]
    assert len(lines) == 142
    assert lines[-1] == f"! {2 * 40 * ' '}app.internal -> GET http://app.internal/0: 500 in 0 s"


async def test_the_whole_text_has_a_limit(session: aiohttp.ClientSession) -> None:
    with connector_of(session).record() as journal:
        for number in range(200):
            await fetch(session, f"/{number}")
    lines = text_of(account_of(journal), account_of(journal)).splitlines()
    assert len(lines) == MAX_LINES + 1
    assert lines[-1] == "(86 more lines)"


async def test_a_long_line_is_cut(session: aiohttp.ClientSession) -> None:
    with connector_of(session).record() as journal:
        await fetch(session, "/" + "x" * 1000)
    line = text_of(account_of(journal)).splitlines()[1]
    assert len(line) == 401
    assert line.endswith("x…")


def test_what_happened_and_what_was_not_used_is_limited() -> None:
    notices = [Notice(f"notice {number}") for number in range(25)]
    text = text_of(account_of(notices=notices, unused=[f"thing {number}\nwith more" for number in range(21)]))
    assert "  notice 19\n  (5 more)\nNot used:\n  thing 0\n    with more\n" in text
    assert text.endswith("  thing 19\n    with more\n  (1 more)")


def test_control_characters_are_escaped() -> None:
    error = ValueError("\x1b[31mred\x1b[0m")
    text = text_of(account_of(notices=[Notice("a\u202eb", error)], unused=["\x07"]))
    assert "  a\\u202eb\n    ValueError: \\x1b[31mred\\x1b[0m\n" in text
    assert text.endswith("  \\x07")


async def test_an_exception_that_no_line_of_the_user_has_raised_has_no_place(session: aiohttp.ClientSession) -> None:
    """aiohttp makes a request anew whose connection was reset, and only the second exception reaches the test."""
    connector = connector_of(session)
    with connector.record() as journal, connector.inject("app.internal", faults.Reset(), times=1):
        await fetch(session, "/")
    lines = text_of(account_of(journal)).splitlines()
    assert lines[2:] == [
        "      caused by ConnectionResetError: [Errno 104] Connection reset by peer",
        "  GET http://app.internal/: 200 in 0 s",
    ]


def fail(error: E) -> E:
    """Return *error* after it was raised here."""
    try:
        raise error
    except BaseException:
        return error


def test_an_exception_is_shown_with_its_causes_and_its_group() -> None:
    inner = fail(KeyError("name"))
    inner.__cause__ = LookupError()
    inner.__cause__.__cause__ = inner  # a circle
    error = fail(ExceptionGroup("two", [inner, fail(ValueError("no number"))]))
    text = text_of(account_of(notices=[Notice("it failed", error), Notice("again", error)]))
    place = r"raised at .*test_section\.py:\d+ in fail: raise error\n"
    assert re.search(
        rf"    ExceptionGroup: two \(2 sub-exceptions\), {place}"
        rf"    in the group: KeyError: 'name', {place}"
        rf"    in the group: ValueError: no number, {place}"
        r"    caused by LookupError\n"
        r"  again$",
        text,
    ), text


def test_a_large_group_is_not_shown_whole() -> None:
    error = ExceptionGroup("many", [ValueError(str(number)) for number in range(10)])
    text = text_of(account_of(notices=[Notice("it failed", error)]))
    assert re.findall(r"in the group: ValueError: (\d)", text) == ["0", "1", "2", "3"]


def test_a_connector_without_an_app_is_named_so() -> None:
    assert text_of(account_of(mounts=[])) == "Calls:\n  There was no call. Mounted: nothing."


async def test_a_refused_call_that_is_cancelled_has_no_error(session: aiohttp.ClientSession) -> None:
    """Nothing is known but its target."""
    with connector_of(session).record() as journal, pytest.raises(aiohttp.ClientConnectorError):
        await fetch(session, "http://other.internal/")
    journal[0]._error = None
    assert text_of(account_of(journal)).startswith(
        "Refused, because no app is mounted:\n  the test -> GET http://other.internal/\nCalls:\n"
    )
