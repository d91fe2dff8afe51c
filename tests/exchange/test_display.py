"""How text from other sources is shown: on a terminal, in assertions, archives and diagrams."""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from asgi_connector import ASGIConnectorError, Journal, faults
from asgi_connector._display import printable, repr_of, text_of
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.effort import examples
from tests.support.sessions import connector_of

ODD = "\x1b[31mred\x1b[0m \x07\x9b\u202eevil\u2066\u200e\u2028\x85\ud800"


def is_plain(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain caf\u00e9 \U0001f4a9", "plain caf\u00e9 \U0001f4a9"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\r\tc\0", "a\\nb\\r\\tc\\x00"),
        ("\u202a\u202b\u202c\u202d\u202e", "\\u202a\\u202b\\u202c\\u202d\\u202e"),
        ("\u2066\u2067\u2068\u2069\u200e\u200f", "\\u2066\\u2067\\u2068\\u2069\\u200e\\u200f"),
        ("\u2028\u2029\x85\ud800\U000e0001", "\\u2028\\u2029\\x85\\ud800\\U000e0001"),
        ("", ""),
    ],
)
def test_what_a_terminal_could_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@settings(max_examples=examples(100), deadline=None, database=None)
@given(st.text())
def test_any_text_is_printable_then(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


class BadText(str):
    """With methods that fail."""

    __slots__ = ()

    def split(self, *args: Any) -> Any:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError

    def __format__(self, spec: str) -> str:
        raise RuntimeError


def failing(problem: BaseException) -> Callable[[object], str]:
    def fail(self: object) -> str:
        raise problem

    return fail


def returning(text: Any) -> Callable[[object], Any]:
    return lambda self: text


CASES: list[tuple[str, Callable[[object], Any], str]] = [
    ("raises", failing(RuntimeError("of __str__")), ""),
    ("raises what is no Exception", failing(asyncio.CancelledError()), ""),
    ("returns no str", returning(1), ""),
    ("a str of its own", returning(BadText("text")), "text"),
    ("surrogates", returning("a\ud800b"), "a\ud800b"),
    ("long", returning("x" * 1_000_000), "x" * 10_000 + "…"),
]


@pytest.mark.parametrize(("method", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_text_of_an_exception_is_had_whatever_its_methods_do(
    method: Callable[[object], Any], expected: str
) -> None:
    kind = type("Odd", (Exception,), {"__str__": method, "__repr__": method})
    assert text_of(kind()) == expected
    assert len(repr_of(kind())) == (len("<Odd>") if not expected else len(str.__str__(str(kind()))))


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), SystemExit()])
def test_who_ends_the_process_is_not_held_up(problem: BaseException) -> None:
    error = type("Odd", (Exception,), {"__str__": failing(problem), "__repr__": failing(problem)})()
    for ask in (text_of, repr_of):
        with pytest.raises(type(problem)):
            ask(error)


def raising(error: BaseException) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
        raise error

    return app


@pytest.mark.parametrize(("method", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("raised", [True, False])
async def test_an_exception_is_shown_by_its_type_if_it_has_no_text(
    method: Callable[[object], Any], text: str, raised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("asgi_connector"), "disabled", True)  # pytest-xdist sends no surrogates
    error: BaseException = type("Odd", (Exception,), {"__str__": method, "__repr__": method})()
    async with session_to(raising(error), raise_app_exceptions=raised) as session:
        connector = connector_of(session)
        with connector.record() as journal:
            if raised:
                with pytest.raises(type(error)):
                    await session.get("/a")
            else:
                await session.get("/a")
            with pytest.raises(AssertionError) as caught:
                journal.assert_called("other.internal")
            with pytest.raises(AssertionError) as unused, connector.inject("app.internal", faults.Reset(), skip=1):
                await session.post("/b") if not raised else None
    assert journal[0].error is error
    shown = text.replace("\ud800", "\\ud800")
    shown = f": {shown[:160]}" if shown else ""
    for each in (str(journal), repr(journal[0]), str(caught.value), str(unused.value) if not raised else "(Odd)"):
        assert "(Odd" in each
        assert is_plain(each)
        assert len(each) < 2000
    assert f"(Odd{shown}" in str(journal)
    assert "Odd" in journal.to_mermaid()
    if raised:
        har = journal.to_har()["log"]["entries"][0]["response"]["_error"]
        expected = text.replace("\ud800", "\N{REPLACEMENT CHARACTER}")
        assert har == (f"failed: Odd: {expected}" if text else "failed: Odd")
        json.dumps(journal.to_har(), ensure_ascii=False).encode()


@pytest.mark.parametrize("base", [aiohttp.ClientError, BaseException])
async def test_an_exception_without_a_repr_reaches_the_client_of_a_websocket(base: type[BaseException]) -> None:
    error = type("Odd", (base,), {"__repr__": failing(RuntimeError("of __repr__"))})()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: None)
    async with session_to(raising(error)) as session, session.ws_connect("/") as ws:
        message = await ws.receive()
        assert message.type is WSMsgType.ERROR
        assert isinstance(message.data, ASGIConnectorError)
        assert str(message.data) == "The app raised <Odd> after it had accepted the WebSocket"
        assert message.data.__cause__ is error
    loop.set_exception_handler(None)


async def test_nothing_that_a_terminal_obeys_is_shown() -> None:
    async with session_to(raising(LookupError(ODD))) as session:
        connector = connector_of(session)
        with connector.record() as journal:
            with pytest.raises(LookupError):
                await session.get("/plain")
            with suppress(ValueError, aiohttp.ClientError):  # not sent, or refused by this server
                await session.get(URL(f"http://app.internal/{ODD}?a={ODD}", encoded=True))
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get("http://no.internal/")
            with pytest.raises(AssertionError) as caught:
                journal.assert_called("app.internal", path=f"/{ODD}", method=ODD, status=1)
    for text in (str(journal), str(caught.value), journal.to_mermaid(), *map(str, journal), *map(repr, journal)):
        assert is_plain(text)
    assert "\\x1b[31mred" in str(journal)
    assert "evil" in str(journal)


SECRET_URL = "http://app.internal/a;jsessionid=sesame/b?accessToken=sesame&a=1&next=%2Fcb%3Fkey%3Dsesame"


async def test_no_secret_of_a_url_is_shown() -> None:
    error = LookupError("no way to http://u:sesame@h/?user[password]=sesame")
    async with session_to(raising(error)) as session:
        connector = connector_of(session)
        with connector.record() as journal:
            with pytest.raises(LookupError):
                await session.get(URL(SECRET_URL, encoded=True))
            with pytest.raises(AssertionError) as other:
                journal.assert_called("app.internal", path="/x", times=1)
            with pytest.raises(AssertionError) as found:
                journal.assert_not_called("app.internal")
            with pytest.raises(AssertionError) as waited:
                await journal.wait_for("other.internal", timeout=0)
    (exchange,) = journal
    assert "accessToken=%5Bredacted%5D&a=1" in str(exchange)
    errors = [str(each.value) for each in (other, found, waited)]
    for text in (str(journal), str(exchange), repr(exchange), exchange.outcome, journal.to_mermaid(), *errors):
        assert "sesame" not in text
    assert "path is '/a;jsessionid=%5Bredacted%5D/b'" in str(other.value)
    assert "jsessionid" in journal.to_mermaid()
    assert str(exchange.url) == SECRET_URL  # the attributes of an exchange are what was sent
    assert exchange.path == "/a;jsessionid=sesame/b"


async def test_a_function_without_a_repr_is_shown_by_its_type() -> None:
    class Where:
        def __call__(self, exchange: object) -> bool:
            return False

        __repr__ = failing(RuntimeError("of __repr__"))

    with pytest.raises(AssertionError, match="Expected a call of where=<Where>"):
        Journal().assert_called(where=Where())
