"""The journal as a diagram: its exact text, and how Mermaid parses it.

The second part needs node and the npm package mermaid. ``tox run -e mermaid`` installs it beside this file; the
environment variable ``MERMAID_NODE_MODULES`` names another directory ``node_modules`` that has it.
"""

import asyncio
import html
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from asgi_connector import Journal, faults
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.effort import examples
from tests.support.outside import Elsewhere, tcp_server
from tests.support.sessions import connector_of

SCRIPT: Final = Path(__file__).parent / "mermaid" / "read.mjs"
NODE_MODULES: Final = Path(os.environ.get("MERMAID_NODE_MODULES", SCRIPT.parent / "node_modules"))
NODE: Final = shutil.which("node")


def answering(status: int = 200, body: bytes = b"") -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


class Calling:
    """An app that calls others before it answers."""

    def __init__(self, *urls: str, answer: ASGIApp) -> None:
        self.urls = urls
        self.answer = answer
        self.session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.session is not None
        for url in self.urls:
            with suppress(aiohttp.ClientError):
                await get(self.session, url)
        await self.answer(scope, receive, send)


async def get(session: aiohttp.ClientSession, url: str | URL, method: str = "GET", **settings: Any) -> int:
    async with session.request(method, url, **settings) as response:
        await response.read()
        return response.status


def diagram(*lines: str) -> str:
    return "".join(f"{line}\n" for line in ["sequenceDiagram", *(f"    {line}" for line in lines)])


async def three_services(delay: float) -> str:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(delay)
        await answering(201)(scope, receive, send)

    payments = Calling("http://users.internal/u/1", answer=slow)
    orders = Calling("http://payments.internal/charges", "http://users.internal/u/2", answer=answering())
    apps: dict[str, ASGIApp] = {
        "orders.internal": orders,
        "payments.internal": payments,
        "users.internal": answering(404),
    }
    async with session_to(apps) as session:
        orders.session = payments.session = session
        with connector_of(session).record() as journal:
            await get(session, "http://orders.internal/orders?secret=x", "POST")
        return journal.to_mermaid()


NESTED: Final = diagram(
    "actor p0 as outside",
    "participant p1 as orders.internal",
    "participant p2 as payments.internal",
    "participant p3 as users.internal",
    "p0->>p1: POST /orders",
    "p1->>p2: GET /charges",
    "p2->>p3: GET /u/1",
    "p3-->>p2: 404",
    "p2-->>p1: 201",
    "p1->>p3: GET /u/2",
    "p3-->>p1: 404",
    "p1-->>p0: 200",
)


@pytest.mark.parametrize("delay", [0, 0.02])
async def test_a_call_is_drawn_inside_of_the_call_that_it_was_made_for_and_no_time_is(delay: float) -> None:
    assert await three_services(delay) == NESTED


def test_no_calls_are_an_empty_diagram() -> None:
    assert Journal().to_mermaid() == "sequenceDiagram\n"


async def test_the_path_is_shown_decoded_without_the_query_and_what_is_no_name_as_numbers() -> None:
    async with session_to({"*.internal": answering()}) as session:
        with connector_of(session).record() as journal:
            await get(session, URL("http://a.internal/caf%C3%A9%3B%20%23;%0A-._x?a=b", encoded=True))
    assert journal.to_mermaid() == diagram(
        "actor p0 as outside",
        "participant p1 as #42;.internal",
        "p0->>p1: GET /caf#233;#59; #35;#59;#37;0A-._x",
        "p1-->>p0: 200",
    )


async def test_a_failure_ends_in_a_cross_and_a_fault_is_named() -> None:
    async with session_to(answering(), raise_app_exceptions=False) as session:
        connector = connector_of(session)
        with connector.record() as journal:
            with connector.inject("app.internal", faults.Reset()), pytest.raises(aiohttp.ClientOSError):
                await get(session, "/lost", "POST")
            with connector.inject("app.internal", faults.Reset(after=3)), pytest.raises(aiohttp.ClientPayloadError):
                await get(session, "/cut", "POST")
            with connector.inject("app.internal", faults.Refuse()), pytest.raises(aiohttp.ClientConnectorError):
                await get(session, "/refused")
            with connector.inject("app.internal", faults.Respond(503, body="x" * 100_000)):
                assert await get(session, "/proxy") == 503
    ends = [line for line in journal.to_mermaid().splitlines() if line.startswith("    p1-")]
    assert ends == [
        "    p1--xp0: failed ClientOSError Reset#40;on#61;#39;response#39;#44; after#61;None#41;",
        "    p1--xp0: 200 failed ClientPayloadError Reset#40;on#61;#39;response#39;#44; after#61;3#41;",
        "    p1--xp0: failed ClientConnectorError Refuse#40;#41;",
        "    p1-->>p0: 503 Respond#40;status#61;503#41;",
    ]


async def test_an_app_that_fails_is_named_with_its_exception() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no; such #thing")

    async with session_to(failing, raise_app_exceptions=False) as session:
        with connector_of(session).record() as journal:
            assert await get(session, "/") == 500
    assert journal.to_mermaid() == diagram(
        "actor p0 as outside",
        "participant p1 as app.internal",
        "p0->>p1: GET /",
        "p1-->>p0: 500 LookupError",
    )


async def test_a_host_that_is_not_mounted_has_its_port_where_it_is_not_the_default() -> None:
    urls = [
        "http://no.internal/",
        "http://no.internal:80/",
        "http://no.internal:8080/",
        "https://no.internal/",
        "http://[2001:db8::1]/",
        "http://[2001:db8::1]:8080/",
    ]
    async with session_to(answering()) as session:
        with connector_of(session).record() as journal:
            for url in urls:
                with pytest.raises(aiohttp.ClientConnectorError):
                    await get(session, url)
    lines = journal.to_mermaid().splitlines()
    assert [line.split(" as ")[1] for line in lines if " as " in line] == [
        "outside",
        "no.internal",
        "no.internal#58;8080",
        "#91;2001#58;db8#58;#58;1#93;",
        "#91;2001#58;db8#58;#58;1#93;#58;8080",
    ]
    callees = ["p1", "p1", "p2", "p1", "p3", "p4"]
    assert [line.strip() for line in lines if "->>" in line] == [f"p0->>{callee}: GET /" for callee in callees]
    assert [line.strip().split(": ")[0] for line in lines if "--x" in line] == [f"{callee}--xp0" for callee in callees]


async def test_the_fallback_is_drawn_as_the_host_that_was_asked() -> None:
    async with tcp_server() as tcp, session_to(answering(), fallback=aiohttp.TCPConnector()) as session:
        with connector_of(session).record() as journal:
            await get(session, f"{tcp.url}/out")
    assert journal.to_mermaid() == diagram(
        "actor p0 as outside",
        f"participant p1 as 127.0.0.1#58;{tcp.port}",
        "p0->>p1: GET /out",
        "p1-->>p0: 200",
    )


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": (message.get("text") or "").encode() * 2})


async def test_the_messages_of_a_websocket_stand_between_its_begin_and_its_end() -> None:
    async with session_to(chat) as session:
        with connector_of(session).record() as journal:
            async with session.ws_connect("/chat") as ws:
                await ws.send_str("é;")
                await ws.receive_bytes()
                running = journal.to_mermaid()
            await asyncio.sleep(0)  # the end of the connection is the server's too
    begun = [
        "actor p0 as outside",
        "participant p1 as app.internal",
        "p0->>p1: GET /chat",
        "p0-)p1: text of 3 bytes",
        "p1-)p0: binary of 6 bytes",
    ]
    assert running == diagram(*begun)
    assert journal.to_mermaid() == diagram(*begun, "p1-->>p0: 101 closed 1000")


async def test_a_running_call_has_no_end_and_one_that_was_left_is_abandoned() -> None:
    never = asyncio.Event()
    called = asyncio.Event()

    async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
        called.set()
        await never.wait()

    async with session_to(hanging) as session:
        with connector_of(session).record() as journal:
            call = asyncio.create_task(get(session, "/slow"))
            await called.wait()
            running = journal.to_mermaid()
            call.cancel()
            await asyncio.wait([call])
        never.set()
    begun = ["actor p0 as outside", "participant p1 as app.internal", "p0->>p1: GET /slow"]
    assert running == diagram(*begun)
    assert journal.to_mermaid() == diagram(*begun, "p1--xp0: abandoned")


async def test_two_calls_at_once_are_drawn_in_the_order_of_their_starts_and_ends() -> None:
    gates = {"/one": asyncio.Event(), "/two": asyncio.Event()}
    called = {"/one": asyncio.Event(), "/two": asyncio.Event()}

    async def gated(scope: Scope, receive: Receive, send: Send) -> None:
        called[scope["path"]].set()
        await gates[scope["path"]].wait()
        await answering()(scope, receive, send)

    async with session_to(gated) as session:
        with connector_of(session).record() as journal:
            one = asyncio.create_task(get(session, "/one"))
            await called["/one"].wait()
            two = asyncio.create_task(get(session, "/two"))
            await called["/two"].wait()
            gates["/two"].set()
            await two
            gates["/one"].set()
            await one
    assert journal.to_mermaid() == diagram(
        "actor p0 as outside",
        "participant p1 as app.internal",
        "p0->>p1: GET /one",
        "p0->>p1: GET /two",
        "p1-->>p0: 200",
        "p1-->>p0: 200",
    )
    assert journal[0].order[1] == max(order for exchange in journal for order in exchange.order if order is not None)


async def test_a_selection_has_a_diagram_of_its_own() -> None:
    async with session_to({"a.internal": answering(), "b.internal": answering(204)}) as session:
        with connector_of(session).record() as journal:
            await get(session, "http://a.internal/")
            await get(session, "http://b.internal/")
    assert journal.select("b.internal").to_mermaid() == diagram(
        "actor p0 as outside",
        "participant p1 as b.internal",
        "p0->>p1: GET /",
        "p1-->>p0: 204",
    )


# What Mermaid reads.


class Mermaid:
    """One node process, which reads one diagram after the other."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def read(self, text: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(text)}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        assert answer.pop("type") == "sequence"
        return answer


@pytest.fixture(scope="module")
def mermaid() -> Iterator[Mermaid]:
    if not (NODE_MODULES / "mermaid").is_dir():
        if "MERMAID_NODE_MODULES" in os.environ:
            pytest.fail(f"there is no mermaid in {NODE_MODULES}, which MERMAID_NODE_MODULES names")
        pytest.skip("Mermaid is not installed: tox run -e mermaid")
    if NODE is None:
        pytest.skip("node is not here, which Mermaid needs")
    with subprocess.Popen(
        [NODE, SCRIPT, NODE_MODULES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        yield Mermaid(process)


def shown(text: str) -> str:
    """Text as in a label: invisible characters are percent-encoded."""
    return "".join(each if each.isprintable() else quote(each, errors="surrogatepass") for each in text)


def labels(read: dict[str, Any], part: str) -> list[str]:
    return [html.unescape(label) for *_, label in read[part]]


def test_mermaid_reads_participants_arrows_and_messages(mermaid: Mermaid) -> None:
    assert mermaid.read(NESTED) == {
        "participants": [
            ["p0", "actor", "outside"],
            ["p1", "participant", "orders.internal"],
            ["p2", "participant", "payments.internal"],
            ["p3", "participant", "users.internal"],
        ],
        "messages": [
            ["p0", "SOLID", "p1", "POST /orders"],
            ["p1", "SOLID", "p2", "GET /charges"],
            ["p2", "SOLID", "p3", "GET /u/1"],
            ["p3", "DOTTED", "p2", "404"],
            ["p2", "DOTTED", "p1", "201"],
            ["p1", "SOLID", "p3", "GET /u/2"],
            ["p3", "DOTTED", "p1", "404"],
            ["p1", "DOTTED", "p0", "200"],
        ],
    }
    arrows = "p0-)p0: text of 3 bytes", "p0--xp0: failed"
    read = mermaid.read(diagram("actor p0 as outside", *arrows))
    assert [arrow for _, arrow, *_ in read["messages"]] == ["SOLID_POINT", "DOTTED_CROSS"]


PIECES: Final = [
    *(
        "end",
        "#",
        ";",
        "%%",
        "%%{init: {}}%%",
        "\n",
        "\r\n",
        "&#35;",
        "#quot;",
        "#35;",
        "&amp;",
        "style:",
        "style x:#;",
    ),
    *("classDef a:#b;", "wrap:", ":wrap:", "nowrap:", "<br/>", "\\", "\\n", '"', "'", "`", " as ", " ", "  "),
    *("\t", "->>", "-->>", "--x", "-)", "()", "{", "}", "@{", "[", "]", "$$x$$", "---", "title: x", "note over p0: x"),
    *("\N{PILE OF POO}", "\N{HEBREW LETTER ALEF}", "\N{RIGHT-TO-LEFT OVERRIDE}", "\N{ZERO WIDTH JOINER}", "\0", "\x85"),
    *("ﬂ°°35¶ß", "\u2028", "\N{NO-BREAK SPACE}", "é", "e\N{COMBINING ACUTE ACCENT}", "<b>", "</script>", "\ud800", "+"),
    *("autonumber", "loop", "accTitle: x", "participant p0 as x", "\ufeff", "\ufffe", "\U0010ffff", "?", "=", ",", "|"),
]
HOSTILE: Final = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=6).map("".join)
METHODS: Final = st.sampled_from(["GET", "POST", "END", "#%%", "WRAP", "M-SEARCH", "$$X$$", "`'*+.^|~", "AS"])
HOSTS: Final = st.sampled_from(
    [
        *("a.internal", "bücher.internal", "\N{PILE OF POO}.internal", "end", "outside", "sub.b.internal", "10.0.0.1"),
        *(
            "[2001:db8::1]",
            "[fe80::1%25eth0]",
            "[fe80::1%25end;#]",
            "as",
            "wrap",
            "style",
            "participant",
            "x_y.internal",
        ),
    ]
)
CALLS: Final = st.tuples(METHODS, HOSTS | HOSTILE, st.none() | st.sampled_from([80, 443, 8080]), HOSTILE, st.booleans())
PATTERNS: Final = ["*.b.internal", "a.internal", "bücher.internal", "https://a.internal:8080", "[2001:db8::1]:8080"]


async def record_calls(calls: list[tuple[str, str, int | None, str, bool]], fallback: bool) -> Journal:
    """The calls, whether they succeed or not. Some go to an app that makes the next one. Others cannot be made."""
    relay = Calling(answer=answering(418))
    apps = dict.fromkeys(PATTERNS, relay)
    settings = {"fallback": Elsewhere()} if fallback else {}
    async with session_to(apps, **settings) as session:
        relay.session = session
        with connector_of(session).record() as journal:
            for method, host, port, path, as_it_is in calls:
                text = f"http://{host}{'' if port is None else f':{port}'}/{path}"
                with suppress(aiohttp.ClientError, ValueError):
                    url = URL(text, encoded=as_it_is)
                    await get(session, url, method, allow_redirects=False)
    return journal


def callee(exchange: Any) -> str:
    if exchange.service is not None:
        return str(exchange.service)
    host = f"[{exchange.host}]" if ":" in exchange.host else exchange.host
    default = 443 if exchange.secure else 80
    return f"{host}" if exchange.port == default else f"{host}:{exchange.port}"


@pytest.mark.timeout(300)  # a failure is shrunk before it is shown
def test_mermaid_gives_back_every_label_whatever_is_in_urls_and_host_names(
    mermaid: Mermaid, record_property: Callable[[str, object], None]
) -> None:
    cases: Counter[str] = Counter()

    @settings(max_examples=examples(80), deadline=None, database=None)
    @given(st.lists(CALLS, min_size=1, max_size=8), st.booleans())
    @example([("GET", "a.internal", None, piece, True) for piece in PIECES], False)
    @example([("GET", "a.internal", None, piece, False) for piece in PIECES], False)
    @example([("GET", f"x{piece}x", None, "", True) for piece in PIECES], True)
    def run(calls: list[tuple[str, str, int | None, str, bool]], fallback: bool) -> None:
        journal = asyncio.run(record_calls(calls, fallback))
        cases["run"] += len(journal)
        text = journal.to_mermaid()
        assert text.isascii()
        assert not set(text) & set("%<&{")  # characters with a meaning in the browser, or before the diagram is parsed
        read = mermaid.read(text)
        callees = {callee(exchange): None for exchange in journal}
        participants = ["outside", *callees] if callees else []
        assert labels(read, "participants") == [shown(label) for label in participants]
        names = dict(zip(callees, [name for name, *_ in read["participants"]][1:], strict=True))
        begins = [each for each in read["messages"] if each[1] == "SOLID"]
        assert [to for *_, to, _ in begins] == [names[callee(exchange)] for exchange in journal]
        sent = [shown(f"{exchange.method} {exchange.path}") for exchange in journal]
        assert [html.unescape(label) for *_, label in begins] == sent
        assert len(read["messages"]) == 2 * len(journal)

    run()
    assert cases["run"] > 2 * examples(80)
    record_property("hostile cases", cases["run"])


def test_mermaid_reads_errors_and_faults_of_any_name(mermaid: Mermaid) -> None:
    async def run() -> Journal:
        async with session_to(answering(), raise_app_exceptions=False) as session:
            connector = connector_of(session)
            with connector.record() as journal, ExitStack() as stack:
                stack.enter_context(connector.inject("app.internal", faults.Latency(0.001, jitter=0.0001)))
                stack.enter_context(connector.inject("app.internal", faults.Reset(on="request", after=2)))
                with suppress(aiohttp.ClientError):
                    await get(session, "/", "POST", data=b"x" * 100)
            return journal

    journal = asyncio.run(run())
    (exchange,) = journal
    read = mermaid.read(journal.to_mermaid())
    outcome = f"failed {type(exchange.error).__name__} {exchange.fault!r}"
    assert labels(read, "messages") == ["POST /", outcome]
    assert exchange.fault == faults.Reset(on="request", after=2)
