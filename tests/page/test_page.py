"""The page, without a browser: what it shows, what it redacts, and that nothing in it is taken for markup."""

import asyncio
import base64
import gzip
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from asgi_connector import Journal
from asgi_connector._page.page import page
from asgi_connector._page.selection import select
from asgi_connector._page.templates import template
from asgi_connector._page.tracebacks import traceback_of
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.conftest import session_to
from tests.export.recorded import PICTURE, shop_journal
from tests.support.effort import examples
from tests.support.messages import body, read_body, respond, start
from tests.support.sessions import connector_of, fetch

VOID: Final = {"meta", "link", "input", "br"}


class Reader(HTMLParser):
    """Reads a page: the elements and their attributes, the texts, and the exchanges in it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.articles: dict[str, str] = {}
        self._article: str | None = None
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "article":
            self._article = attributes["id"]
            self.articles[self._article] = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "article":
            self._article = None

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._article is not None:
            self.articles[self._article] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return "".join(self.texts)


def page_of(journal: Journal, *, title: str = "A test", note: str = "", sensitive: bool = False) -> Reader:
    return Reader(page(journal, title=title, note=note, sensitive=sensitive))


async def record(app: ASGIApp, *urls: str | URL, method: str = "GET", **settings: Any) -> Journal:
    """The journal of one call to each URL, whether it succeeds or not."""
    recording = {"bodies": True, **settings.pop("recording", {})}
    async with session_to(app, raise_app_exceptions=settings.pop("raise_app_exceptions", True)) as session:
        with connector_of(session).record(**recording) as journal:
            for url in urls or ["/"]:
                with suppress(LookupError, aiohttp.ClientError, ValueError):
                    await fetch(session, url, method, **settings)
    return journal


def answering(data: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send(start(status, headers))
        await send(body(data))

    return app


JSON: Final = (b"content-type", b"application/json")


# What is on the page.


async def test_the_page_allows_its_own_style_and_script_and_nothing_else() -> None:
    text = page(await shop_journal(), title="A test", sensitive=False)
    policy, *_ = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    hashes = {
        tag: base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()
        for tag in ("style", "script")
        for found in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    }
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


async def test_a_page_about_ascii_is_ascii() -> None:
    assert page(await many(2, 1), title="A test", sensitive=False).isascii()


async def test_each_link_leads_to_something_on_the_page() -> None:
    reader = page_of(await shop_journal())
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {attributes["href"] for attributes in reader.all("a")}
    assert targets - {"#-"} <= {f"#{each}" for each in ids}
    assert {attributes["href"] for attributes in reader.all("link")} == {"data:,"}


async def test_each_exchange_is_in_each_view() -> None:
    journal = await shop_journal()
    text = page(journal, title="A test", sensitive=False)
    _, diagram, timeline, table = re.split('aria-labelledby="(?:diagram|timeline|exchanges)">\n<h2', text)
    for exchange in journal:
        link = f'href="#exchange-{exchange.number}"'
        assert link in diagram
        assert link in timeline
        assert link in table.partition('<div class="details">')[0]
    assert list(Reader(text).articles) == [f"exchange-{exchange.number}" for exchange in journal]


async def test_the_heading_the_note_and_the_summary_are_shown() -> None:
    reader = page_of(await shop_journal(), title="test_an_order", note="E  assert 500 == 201\n\tsecond line")
    assert reader.texts.count("test_an_order") == 2  # of the window, too
    assert "\nE  assert 500 == 201\n\tsecond line" in reader.texts
    assert re.search(r"15 calls of 3 services in [\d.]+ ms: 6 failed\.", reader.text)
    assert "Values whose names say that they are secret are redacted" in reader.text


async def test_what_failed_is_listed_once_where_it_was_raised() -> None:
    text = page(await shop_journal(), title="A test", sensitive=False)
    listed = re.findall(r'<li><a href="#exchange-(\d+)">(.*?)</a>', text)
    assert [(number, name.replace("&rarr;", "to")) for number, name in listed] == [
        ("5", "5 orders.internal to stock.internal GET /broken"),
        ("7", "7 orders.internal to ledger.internal:8080 GET /balance"),
        ("11", "11 outside to stock.internal PUT /items"),
        ("12", "12 outside to stock.internal PUT /items"),
        ("13", "13 outside to stock.internal GET /items"),
    ]


async def test_an_exchange_has_its_facts_bodies_messages_and_exception() -> None:
    reader = page_of(await shop_journal())
    order = reader.articles["exchange-0"]
    assert '\n{\n  "item": "book"\n}' in order
    assert '\n{\n  "order": 7,\n  "price": 42.00,\n  "lines": [],\n  "who": {\n    "name": "Ada"\n  }\n}' in order
    assert "201 Created, done" in order
    assert "set-cookie: [redacted]" in order.lower()
    assert "During" not in order
    assert "Its calls1 GET /items (stock.internal)2 GET /none (stock.internal)" in order
    broken = reader.articles["exchange-5"]
    assert "During3 POST /orders (orders.internal)" in broken
    assert "LookupError: no item at http://db.internal/?token=%5Bredacted%5D" in broken
    for part in ("KeyError: 'shelf'", "direct cause", "in broken\n", "raise error from exc", "a note of the app"):
        assert part in broken
    assert "It was raised in 5 GET /broken" in reader.articles["exchange-3"]
    refused = reader.articles["exchange-7"]
    assert "Answered bynothing: the host is not mounted, and there is no fallback" in refused
    assert "FaultReset(on='response', after=None)" in reader.articles["exchange-11"]
    assert "a fault; the app was not called" in reader.articles["exchange-13"]
    chat = reader.articles["exchange-14"]
    assert "client: text of 5 bytes\nhello" in chat
    assert f"app: binary of 6 bytes\n0000  68 65 6c 6c 6f ff{' ' * 31} hello." in chat


async def test_bytes_are_shown_as_numbers_and_text_up_to_a_limit() -> None:
    picture = page_of(await shop_journal()).articles["exchange-9"]
    assert "512 bytes\n0000  00 01 02" in picture
    assert "0040  40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f  @ABCDEFGHIJKLMNO\n" in picture
    assert "00f0  " in picture
    assert "0100  " not in picture
    assert f"{len(PICTURE) - 256} more bytes not shown." in picture


async def test_a_form_is_a_table_of_its_fields() -> None:
    form = aiohttp.FormData({"name": "Ada", "password": "very-secret"})
    form.add_field("file", b"\xff\x00", filename="x.bin", content_type="application/x-thing")
    journal = await record(answering(b""), method="POST", data=form)
    article = page_of(journal).articles["exchange-0"]
    kind = "text/plain; charset=utf-8"
    assert f"name {kind}\nAdapassword {kind}\n[redacted]file x.bin, application/x-thing\n0000  ff 00" in article
    assert f"password {kind}\nvery-secret" in page_of(journal, sensitive=True).articles["exchange-0"]


@pytest.mark.parametrize(
    ("data", "headers", "shown"),
    [
        (b'{"a":1e400,"a":[true,null,"\\u00e9 {,}"],"b":{}}', [JSON], '{\n  "a": 1e400,\n  "a": [\n    true,\n'),
        (b"[1,2]", [], "[\n  1,\n  2\n]"),  # without a type
        (b'{"a": ', [JSON], '{"a": '),  # it is not JSON
        (b"[" * 100_000, [JSON], "[" * 100),  # it is nested too deeply
        (b"[1,2]", [(b"content-type", b"text/plain")], "[1,2]"),
        (b"\n a\r\nb\tc\x1b[31m\xe2\x80\xae", [], "\n a\nb\tc\\x1b[31m\\u202e"),
        (gzip.compress(b"plain"), [(b"content-encoding", b"gzip")], "plain"),
        (b"not gzip", [(b"content-encoding", b"gzip")], "not gzip"),
    ],
    ids=["json", "json without a type", "broken", "too deep", "not called json", "lines", "gzip", "not gzip"],
)
async def test_the_text_of_a_body_is_shown(data: bytes, headers: list[tuple[bytes, bytes]], shown: str) -> None:
    async with session_to(answering(data, *headers), session_auto_decompress=False) as session:
        with connector_of(session).record(bodies=True) as journal:
            await fetch(session)
    assert f"\n{shown}" in page_of(journal).articles["exchange-0"]


async def test_what_a_content_encoding_saved_is_told() -> None:
    journal = await record(answering(gzip.compress(b"x" * 5_000), (b"content-encoding", b"gzip")))
    assert re.search(r"5,000 bytes, decoded from \d+ bytes of gzip\n", page_of(journal).text)


async def test_what_is_not_shown_of_a_body_is_told() -> None:
    journal = await record(answering("é".encode() * 600), recording={"max_body_size": 999})
    article = page_of(journal).articles["exchange-0"]
    assert "The first 999 of 1,200 bytes were recorded\n" + "é" * 499 in article
    long = page_of(await record(answering(b"x" * 20_000))).articles["exchange-0"]
    assert "\n" + "x" * 16_000 + "Only the first 16,000 characters are shown." in long
    data = b'{"numbers": [' + b"1," * 9_000 + b"1]}"
    indented = page_of(await record(answering(data, JSON))).articles["exchange-0"]
    assert 2_000 < indented.count("\n    1,") < 16_000 / 6
    assert "Only the first 16,000 characters are shown." in indented
    unrecorded = page_of(await record(answering(b"x"), recording={"bodies": False})).articles["exchange-0"]
    assert "Body not recorded. record(bodies=True) keeps bodies." in unrecorded
    assert "1 byte not recorded." in unrecorded
    nothing = page_of(await record(answering(b"x"), recording={"max_body_size": 0})).articles["exchange-0"]
    assert "The first 0 of 1 byte were recorded" in nothing


async def test_many_messages_and_many_calls_are_cut_with_a_word() -> None:
    async def chat(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            for _ in range(600):
                await send({"type": "websocket.send", "text": "x"})
            await send({"type": "websocket.close", "code": 4000})
        elif scope["path"] == "/many":
            for _ in range(60):
                await fetch(session)
            await respond(send)
        else:
            await respond(send)

    async with session_to(chat) as session:
        with connector_of(session).record() as journal:
            async with session.ws_connect("/") as ws:
                while (await ws.receive()).type is not aiohttp.WSMsgType.CLOSE:
                    pass
            await fetch(session, "/many")
    reader = page_of(journal)
    assert "100 more messages not shown." in reader.articles["exchange-0"]
    assert "closed 4000" in reader.articles["exchange-0"]
    assert "600 messages, the first 200 marked" in next(
        attributes["title"] for attributes in reader.all("a") if "title" in attributes
    )
    assert "and 10 more" in reader.articles["exchange-1"]


async def test_long_paths_many_headers_fields_and_messages_are_cut_with_a_word() -> None:
    async def chat(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            for _ in range(20):
                await send({"type": "websocket.send", "text": "x" * 10_000})
            await send({"type": "websocket.close"})
        else:
            await read_body(receive)
            await respond(send)

    headers = {"Content-Type": FORM, **{f"X-{number}": "x" * 1_000 for number in range(30)}}
    form = "&".join(f"name{number}=x" for number in range(3_000)).encode()
    async with session_to(chat) as session:
        with connector_of(session).record(bodies=True) as journal:
            await fetch(session, "/path" * 200, "POST", data=form, headers=headers)
            async with session.ws_connect("/") as ws:
                while (await ws.receive()).type is not aiohttp.WSMsgType.CLOSE:
                    pass
    reader = page_of(journal)
    article = reader.articles["exchange-0"]
    assert article.startswith(f"0 POST {'/path' * 100}… 200")
    assert f"URLhttp://app.internal{'/path' * 200}From" in article
    assert re.search(r"X-\d+: x{1000}\n\(and \d+ more\)", article)
    assert re.search(r"name\d+\nx[\d,]+ more fields not shown\.", article)
    assert "13 more messages not shown." in reader.articles["exchange-1"]


async def test_the_pieces_of_a_stream_are_marks_and_one_piece_is_none() -> None:
    journal = await shop_journal()
    assert [len(exchange.pieces) for exchange in journal if exchange.path in ("/events", "/picture")] == [3, 1]
    lanes = re.findall(
        r'<li class="\w+"><a href="#exchange-(\d+)" title="[^"]*">(.*)</li>', page(journal, title="", sensitive=False)
    )
    marks = {int(number): lane.count('class="mark"') for number, lane in lanes}
    assert {number: count for number, count in marks.items() if count} == {8: 3, 14: 2}


async def test_a_running_exchange_goes_on_until_now() -> None:
    called = asyncio.Event()

    async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
        called.set()
        await receive()
        await receive()

    async with session_to(hanging) as session:
        with connector_of(session).record() as journal:
            call = asyncio.create_task(fetch(session))
            await called.wait()
            reader = page_of(journal)
            call.cancel()
            await asyncio.wait([call])
    assert "1 running." in reader.text
    assert re.search(r"ms until now, connected after", reader.articles["exchange-0"])


async def test_a_call_that_its_client_left_is_abandoned() -> None:
    async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    async with session_to(hanging) as session:
        with connector_of(session).record() as journal, pytest.raises(TimeoutError):
            await fetch(session, timeout=aiohttp.ClientTimeout(total=0.001))
    reader = page_of(journal)
    assert "1 abandoned." in reader.text
    assert "What failed" in reader.text
    assert "Resultabandoned" in reader.articles["exchange-0"]


async def test_calls_that_take_no_time_have_a_timeline_too() -> None:
    async with session_to(answering(b"")) as session:
        with connector_of(session).record() as first:
            await fetch(session)
        now = first[0].clock.time()
        first[0].clock.time = lambda: now  # as in virtual time
        with connector_of(session).record() as journal:
            await fetch(session)
    reader = page_of(journal)
    assert reader.all("rect")[-1]["width"] == "0%"
    assert "1 call of 1 service in 0 ms. None failed." in reader.text


async def test_an_exception_of_several_lines_is_one_sentence_of_what_failed() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("2 errors:\n  a\n  b")

    async with session_to(failing) as session:
        with connector_of(session).record() as journal, suppress(ValueError):
            await fetch(session)
    text = page(journal, title="failed", sensitive=False)
    [problems] = re.findall("<h2[^>]*>What failed</h2>.*?</section>", text, re.DOTALL)
    assert "ValueError: 2 errors: a b</li>" in problems


def test_no_call_is_a_page_that_says_so() -> None:
    reader = page_of(Journal())
    assert reader.text.count("There was no call.") == 2
    assert reader.articles == {}
    assert Journal()._repr_html_() == "<p>There was no call.</p>"


async def test_a_page_without_failures_says_so() -> None:
    reader = page_of(await record(answering(b"ok"), "/a", "/b"))
    assert re.search(r"2 calls of 1 service in [\d.]+ ms\. None failed\.", reader.text)
    assert "What failed" not in reader.text


async def test_an_unknown_status_and_a_denied_call_are_shown() -> None:
    journal = await record(answering(b"", status=799), "/")
    assert "799, done" in page_of(journal).articles["exchange-0"]
    reader = page_of(await record(answering(b"", status=404)))
    assert "404 Not Found, done" in reader.articles["exchange-0"]


async def test_the_exchanges_of_two_connectors_have_numbers_of_their_own() -> None:
    one, other = await record(answering(b"1")), await record(answering(b"2"))
    assert list(page_of(Journal([*one, *other])).articles) == ["exchange-0", "exchange-1"]


# What is left out of a page.


async def many(count: int, failing: int) -> Journal:
    """A journal of *count* calls. The last *failing* ones fail."""
    calls = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        if calls > count - failing:
            raise LookupError(calls)
        await respond(send)

    return await record(app, *["/"] * count, recording={"bodies": False})


async def test_of_many_exchanges_those_that_failed_are_shown_first() -> None:
    reader = page_of(await many(1_010, 25))
    assert len(reader.articles) == 1_000
    shown = "1,000 of 1,010 exchanges are shown: all that failed, and the first of the others."
    assert shown in reader.text
    assert list(reader.articles)[-26:] == [f"exchange-{number}" for number in [974, *range(985, 1_010)]]
    assert "And 5 more" in reader.text


async def test_failures_that_are_left_out_are_told_and_so_are_tracebacks() -> None:
    journal = await many(120, 110)
    selection = select(journal, 100)
    assert (len(selection.entries), selection.left_out, selection.left_out_failures) == (100, 20, 10)
    reader = page_of(journal)
    assert "Traceback (most recent call last)" in reader.articles["exchange-109"]
    assert "Only the first 100 exceptions have their tracebacks here." in reader.articles["exchange-110"]


async def test_a_page_of_too_many_failures_says_how_many_are_left_out() -> None:
    reader = page_of(await many(1_005, 1_004))
    assert "the first that failed; 4 that failed too are left out." in reader.text


async def test_a_notebook_gets_an_image_and_a_small_table() -> None:
    journal = await many(60, 1)
    text = journal._repr_html_()
    assert text.count("<tr>") == 51
    assert "<p>10 more calls not shown.</p>" in text
    assert len(text) < 100_000
    [picture] = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)"', text)
    assert base64.b64decode(picture).startswith(b"<svg ")
    assert {tag for tag, _ in Reader(text.replace("<img", "<input")).elements} == {
        *("input", "table", "thead", "tbody", "tr", "th", "td", "p")
    }
    assert "failed, LookupError" in text
    assert "more calls" not in (await many(2, 0))._repr_html_()


# Tracebacks.


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as exc:
        return exc


def test_the_middle_of_a_long_traceback_is_left_out() -> None:
    text = traceback_of(raised(LookupError("x" * 5_000 + "the end")), 1_000, sensitive=False)
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("the end\n")
    assert re.search(r"\n\n\[… 4,\d{3} characters are not shown …\]\n\n", text)


def test_a_long_line_and_a_traceback_without_end_are_cut() -> None:
    error = raised(LookupError("x" * 50_000))
    assert len(traceback_of(error, 100_000, sensitive=False)) < 11_000
    for _ in range(30):
        outer = LookupError("y" * 9_000)
        outer.__cause__ = error
        error = raised(outer)
    assert len(traceback_of(error, 1_000_000, sensitive=False)) < 220_000


def test_the_secrets_of_one_line_do_not_hide_the_lines_below() -> None:
    error = LookupError("http://a.internal/?token=very-secret")
    error.add_note("the note")
    assert traceback_of(error, 1_000, sensitive=False) == (
        "LookupError: http://a.internal/?token=%5Bredacted%5D\nthe note\n"
    )
    assert "very-secret" in traceback_of(error, 1_000, sensitive=True)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_exception_whose_methods_fail_has_no_traceback(failure: type[BaseException]) -> None:
    class Hostile(Exception):
        @property
        def __traceback__(self) -> Any:  # type: ignore[override]
            raise failure

    if issubclass(failure, Exception):
        assert traceback_of(Hostile(), 1_000, sensitive=False) == ""
    else:
        with pytest.raises(failure):
            traceback_of(Hostile(), 1_000, sensitive=False)


# Files.


async def test_the_file_is_the_page_and_secrets_are_in_it_only_if_asked_for(tmp_path: Path) -> None:
    journal = await shop_journal()
    path = tmp_path / "calls.html"
    journal.save_html(path)
    text = path.read_text("utf-8")
    assert "<h1>Who called whom</h1>" in text
    assert "very-secret" not in text
    path.write_text("old")
    journal.save_html(path, sensitive=True)
    assert path.read_text("utf-8").count("very-secret") >= 5
    assert "This page shows secrets" in path.read_text("utf-8")
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["page.html", "page.css", "page.js", "diagram.css"])
def test_the_templates_are_in_the_package(name: str) -> None:
    assert template(name)


# Hostile text.


PIECES: Final = [
    *("<script>alert(1)</script>", "</script><script>alert(1)//", "</style>", "</title>", "</pre>", "</textarea>"),
    *("<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>', "' onmouseover='alert(1)", "<!--", "-->", "]]>"),
    *("<base href=//evil.test>", "<meta http-equiv=refresh content=0>", "&lt;", "&#x3c;", "&amp", "<a", "<![CDATA["),
    *("javascript:alert(1)", "$title", "${title}", "$$", "%s", "{0}", "\\", "`", "\0", "\x1b[2J", "\u202e", "\u2028"),
    *(
        "\ud800",
        "\ufffe",
        "\U0010ffff",
        "\r",
        "\n",
        "\t",
        " ",
        "=",
        "é",
        "<",
        ">",
        "&",
        '"',
        "'",
        "/",
        "#-",
        "?token=x",
    ),
]
HOSTILE: Final = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=5).map("".join)
HARMLESS: Final = "harmless"
FORM: Final = "application/x-www-form-urlencoded"


async def hostile_journal(text: str) -> Journal:
    """A journal with *text* wherever text can come from. It has the same calls for any text."""
    as_header = re.sub(r"[^\x20-\x7e\x80-\xff]", "_", text).strip() or "_"
    as_name = re.sub("[\0\ud800-\udfff]", "_", text)
    as_utf_8 = text.encode(errors="replace").decode()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": as_utf_8})
            await send({"type": "websocket.close", "code": 4000})
        elif scope["path"] == "/fails":
            error = type(as_name or "E", (Exception,), {})(text)
            error.add_note(text)
            raise error
        else:
            await read_body(receive)
            await send(start(200, [(b"content-type", b"text/plain"), (b"x-it", as_header.encode("latin-1"))]))
            await send(body(b"x" + as_utf_8.replace("\0", "_").encode()))

    async with session_to({"*.internal": app}) as session:
        with connector_of(session).record(bodies=True) as journal:
            path = URL("http://a.internal/").with_path(f"/x{as_utf_8}")
            await fetch(session, path, "POST", data=b"y", headers={"X-It": as_header})
            form = {"data": urlencode({f"n{as_utf_8}": as_utf_8.replace("\0", "_")}).encode()}
            await fetch(session, "http://a.internal/", "POST", headers={"Content-Type": FORM}, **form)
            with suppress(Exception):
                await fetch(session, "http://a.internal/fails")
            async with session.ws_connect("http://a.internal/") as ws:
                while (await ws.receive()).type is not aiohttp.WSMsgType.CLOSE:
                    pass
            await asyncio.sleep(0)  # the end of the connection is the server's too
    return journal


def shape_of(text: str) -> Counter[str]:
    """Each element of a page with the names of its attributes, and how often there is one, but for the times."""
    reader = Reader(re.sub(r'<div class="axis".*?</div>', "", text))
    return Counter(f"{tag} {' '.join(attributes)}" for tag, attributes in reader.elements)


@pytest.fixture(scope="module")
def harmless_shape() -> Counter[str]:
    journal = asyncio.run(hostile_journal(HARMLESS))
    return shape_of(page(journal, title=HARMLESS, note=HARMLESS, sensitive=True))


@pytest.mark.timeout(300)  # a failure is shrunk before it is shown
def test_no_text_is_taken_for_markup(
    harmless_shape: Counter[str], record_property: Callable[[str, object], None]
) -> None:
    cases = 0

    @settings(max_examples=examples(150), deadline=None, database=None)
    @given(HOSTILE)
    @example("".join(PIECES))
    def run(text: str) -> None:
        nonlocal cases
        cases += 1
        journal = asyncio.run(hostile_journal(text))
        written = page(journal, title=text, note=text or "x", sensitive=True)
        written.encode()
        assert shape_of(written) == harmless_shape
        notebook = Reader(journal._repr_html_().replace("<img", "<input"))
        assert {tag for tag, _ in notebook.elements} == {"input", "table", "thead", "tbody", "tr", "th", "td"}

    run()
    record_property("hostile cases", cases)


async def test_hostile_text_is_shown_as_it_is() -> None:
    text = '<script>alert(1)</script> & "it\'s" $title'
    reader = page_of(await hostile_journal(text), title=text, note=text)
    assert reader.texts.count(text) == 2
    assert f"\n{text}" in reader.texts
    assert f"x-it: {text}" in reader.articles["exchange-0"]
    assert f"\nx{text}" in reader.articles["exchange-0"]
    assert f"{text}: {text}" in reader.articles["exchange-2"]
    assert f"\n{text}" in reader.articles["exchange-3"]
