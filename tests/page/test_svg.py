"""The sequence diagram as SVG: what is drawn and where, that it is always the same, and that it is well-formed."""

import asyncio
import re
import xml.etree.ElementTree as ET
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from asgi_connector import Journal
from asgi_connector._page.layout import layout_of
from asgi_connector._page.markup import shortened, width_of
from asgi_connector._page.svg import drawing
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import session_to
from tests.export.recorded import shop_journal
from tests.support.effort import examples
from tests.support.messages import respond
from tests.support.outside import tcp_server
from tests.support.sessions import connector_of, fetch
from tests.support.waiting import until

SVG = "{http://www.w3.org/2000/svg}"


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send)


def texts_of(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


async def test_calls_results_faults_and_exceptions_are_drawn() -> None:
    journal = await shop_journal()
    assert texts_of(journal.to_svg()) == [
        *("outside", "orders.internal", "service", "stock.internal", "service"),
        *("ledger.internal:8080", "not mounted", "chat.internal", "service"),
        *("POST /orders", "GET /items", "200", "GET /none", "404", "201"),
        *("POST /orders", "GET /items", "200", "GET /broken", "failed"),
        "LookupError: no item at http://db.internal/?token=%5Bredact…",
        "failed LookupError",
        *("GET /missing", "GET /balance", "refused: not mounted"),
        "UnmountedHostError: No app is mounted for http://ledger.internal:8080, and there is…",
        "200",
        *("GET /events", "200", "GET /picture", "200", "POST /items", "200"),
        # aiohttp tries a PUT a second time.
        *("PUT /items", "failed", "fault: Reset(on='response', after=None)"),
        "ClientOSError: [Errno 104] Connection reset by peer",
        *("PUT /items", "failed", "fault: Reset(on='response', after=None)"),
        "ClientOSError: [Errno 104] Connection reset by peer",
        *("GET /items", "503", "fault: Respond(status=503)"),
        *("GET /room", "text of 5 bytes", "binary of 6 bytes", "101 closed 1000"),
    ]


async def test_two_runs_give_the_same_text() -> None:
    one, other = await shop_journal(), await shop_journal()
    assert one.to_svg() == one.to_svg() == other.to_svg()


async def test_the_address_of_an_object_is_not_drawn() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError(f"not {object()!r}")

    async with session_to(failing) as session:
        with connector_of(session).record() as journal, suppress(LookupError):
            await fetch(session)
    assert "LookupError: not <object object at 0x…>" in texts_of(journal.to_svg())


async def test_a_picture_has_no_id_no_script_no_link_and_no_reference() -> None:
    svg = (await shop_journal()).to_svg()
    for element in ET.fromstring(svg).iter():
        assert element.tag.removeprefix(SVG) in {"svg", "title", "style", "rect", "g", "text", "path", "circle"}
        assert not {"id", "href", "style", "onload"} & set(element.attrib)
    assert "url(" not in svg


async def test_a_picture_has_a_title_and_the_text_that_is_cut_has_one_too() -> None:
    root = ET.fromstring((await shop_journal()).to_svg())
    assert (root.attrib["role"], root.attrib["aria-label"]) == ("img", "Sequence diagram of 15 calls")
    assert root[0].text == "Sequence diagram of 15 calls"
    titles = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert any("Did you mean" in title for title in titles)
    assert "outside → orders.internal, POST /orders" in titles


def test_no_call_is_an_empty_picture() -> None:
    root = ET.fromstring(Journal().to_svg())
    assert root.attrib["aria-label"] == "Sequence diagram of 0 calls"
    assert texts_of(Journal().to_svg()) == []


async def test_a_call_is_drawn_between_the_bars_of_its_caller_and_of_its_service() -> None:
    layout = layout_of((await shop_journal())[:3])
    orders, *items = layout.bars
    assert all(orders.top < bar.top < (bar.bottom or 0) < (orders.bottom or 0) for bar in items)
    call, inner, *_, last = layout.rows
    assert (call.start, call.end) == (layout.columns[0].x, orders.x)
    assert (inner.start, inner.end) == (orders.edge(right=True), items[0].x)
    assert (last.start, last.end) == (orders.x, layout.columns[0].x)
    assert [row.y for row in layout.rows] == sorted(row.y for row in layout.rows)


async def test_calls_at_once_have_bars_side_by_side_and_running_ones_are_open() -> None:
    gate = asyncio.Event()
    waiting = 0

    async def gated(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal waiting
        waiting += 1
        await gate.wait()
        await respond(send)

    async with session_to(gated) as session:
        with connector_of(session).record() as journal:
            calls = [asyncio.create_task(fetch(session, f"/{number}")) for number in range(9)]
            await until(lambda: waiting == len(calls))
            layout = layout_of(journal)
            assert [bar.level for bar in layout.bars] == list(range(9))
            assert len({bar.x for bar in layout.bars}) == 7  # there is a limit
            assert [bar.bottom for bar in layout.bars] == [None] * 9
            assert texts_of(journal.to_svg()).count("running") == 9
            gate.set()
            await asyncio.gather(*calls)
    assert all(bar.bottom is not None for bar in layout_of(journal).bars)


async def test_a_call_of_a_service_to_itself_is_a_loop() -> None:
    async def calling(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/outer":
            await fetch(session, "/inner")
        await respond(send)

    async with session_to(calling) as session:
        with connector_of(session).record() as journal:
            await fetch(session, "/outer")
    layout = layout_of(journal)
    assert [row.is_loop for row in layout.rows] == [False, True, True, False]
    outer, inner = layout.bars
    assert (outer.level, inner.level) == (0, 1)
    assert layout.width > max(row.start for row in layout.rows) + width_of("GET /inner")
    ET.fromstring(journal.to_svg())


async def test_the_box_of_a_host_says_whether_it_is_mounted() -> None:
    async with tcp_server() as tcp, session_to(answering, fallback=aiohttp.TCPConnector()) as session:
        with connector_of(session).record() as journal:
            await fetch(session, f"{tcp.url}/out")
            await fetch(session)
    columns = layout_of(journal).columns
    assert [(column.name, column.note) for column in columns] == [
        ("outside", ""),
        (f"127.0.0.1:{tcp.port}", "network"),
        ("app.internal", "service"),
    ]


async def test_texts_and_boxes_do_not_overlap_their_neighbours() -> None:
    hosts = ["a.internal", f"{'x' * 60}.internal", "b.internal"]
    async with session_to(dict.fromkeys(hosts, answering)) as session:
        with connector_of(session).record() as journal:
            for host in hosts:
                await fetch(session, f"http://{host}/{'path/' * 100}")
    layout = layout_of(journal)
    for one, other in zip(layout.columns, layout.columns[1:], strict=False):
        assert one.x + one.width // 2 < other.x - other.width // 2
        assert width_of(one.name) <= one.width
    assert sum("path/path/path/" in text and text.endswith("…") for text in texts_of(journal.to_svg())) == 3


@given(st.text(), st.integers(20, 300))
def test_a_shortened_text_is_not_wider_than_its_place(text: str, width: int) -> None:
    short = shortened(text, width)
    assert width_of(short) <= width or short == "…"
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=4), st.text())
def test_a_picture_is_well_formed_whatever_is_in_paths_and_errors(paths: list[str], error: str) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError(error)

    async def run() -> Journal:
        async with session_to(failing) as session:
            with connector_of(session).record() as journal:
                for path in paths:
                    with suppress(LookupError, aiohttp.ClientError, ValueError):
                        await fetch(session, URL("http://app.internal/").with_path(f"/{path}"))
        return journal

    journal = asyncio.run(run())
    root = ET.fromstring(journal.to_svg().encode())
    assert len(root.findall(f"./{SVG}g/{SVG}g/{SVG}title")) == 2 * len(journal)


async def test_a_picture_for_a_page_is_in_blocks_that_fit_together() -> None:
    async with session_to(answering) as session:
        with connector_of(session).record() as journal:
            for number in range(120):
                await fetch(session, f"/{number}")
    picture = drawing(journal, lambda exchange: f"#{exchange.number}")
    boxes = [re.findall(r'viewBox="0 (\d+) \d+ (\d+)"', block)[0] for block in picture.blocks]
    assert len(boxes) == 3
    at = 0
    for top, height in boxes:
        assert int(top) == at
        at += int(height)
    assert at == layout_of(journal).height
    links = re.findall(r'href="#(\d+)"', "".join(picture.blocks))
    assert links == [str(number) for number in range(120) for _ in ("call", "end")]


@pytest.mark.parametrize("kind", ["to_svg", "_repr_html_"])
async def test_no_secret_is_in_a_picture(kind: str) -> None:
    journal: Any = await shop_journal()
    assert "very-secret" not in getattr(journal, kind)()
