"""The journal as an HTTP Archive: it is complete, valid against the schema of HAR 1.2, and without secrets."""

import asyncio
import base64
import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft6Validator
from yarl import URL

from asgi_connector import Journal, faults
from asgi_connector._export.forms import read_form
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.effort import examples
from tests.support.messages import read_body
from tests.support.outside import Elsewhere, tcp_server
from tests.support.sessions import connector_of

SCHEMA: Final = json.loads((Path(__file__).parent / "har-1.2.schema.json").read_text(encoding="utf-8"))
VALIDATOR: Final = Draft6Validator(SCHEMA, format_checker=Draft6Validator.FORMAT_CHECKER)
REDACTED: Final = "[redacted]"

Entry = dict[str, Any]
Headers = Iterable[tuple[bytes, bytes]]


def entries_of(journal: Journal, *, sensitive: bool = False) -> list[Entry]:
    """The entries of the journal's archive. The archive is valid, and does not change when it is saved to a file."""
    archive = journal.to_har(sensitive=sensitive)
    VALIDATOR.validate(archive)
    assert json.loads(json.dumps(archive, ensure_ascii=False, allow_nan=False).encode()) == archive
    entries: list[Entry] = archive["log"]["entries"]
    assert len(entries) == len(journal)
    return entries


def entry_of(journal: Journal, *, sensitive: bool = False) -> Entry:
    (entry,) = entries_of(journal, sensitive=sensitive)
    return entry


def header(part: Entry, name: str) -> list[str]:
    return [each["value"] for each in part["headers"] if each["name"].lower() == name]


def answering(status: int = 200, headers: Headers = (), body: bytes = b"") -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await read_body(receive)
    found = [value for name, value in scope["headers"] if name == b"content-type"]
    headers = [(b"content-type", value) for value in found]
    await answering(200, headers, body)(scope, lambda: asyncio.sleep(0, {"type": "http.request"}), send)


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": (message.get("text") or "").encode() + b"\xff"})


async def record(
    app: ASGIApp,
    url: str | URL = "/",
    method: str = "GET",
    *,
    bodies: bool = True,
    max_body_size: int = 1000,
    decompress: bool = True,
    **request: Any,
) -> Journal:
    """The journal of one call, whether it succeeds or not."""
    request = {"allow_redirects": False, **request}
    settings = {"raise_app_exceptions": False, "session_auto_decompress": decompress}
    async with session_to(app, **settings) as session:
        recording = connector_of(session).record(bodies=bodies, max_body_size=max_body_size)
        with recording as journal, suppress(aiohttp.ClientError, UnicodeError, TypeError):
            async with session.request(method, url, **request) as response:
                await response.read()
    return journal


# The contents of an entry.


async def test_an_archive_names_its_version_and_who_made_it() -> None:
    journal = Journal()
    assert entries_of(journal) == []
    assert journal.to_har() == {
        "log": {
            "version": "1.2",
            "creator": {"name": "asgi-connector", "version": version("asgi-connector")},
            "entries": [],
        }
    }


async def test_a_call_is_an_entry_with_all_that_was_sent_and_got() -> None:
    app = answering(201, [(b"content-type", b"text/plain"), (b"x-twice", b"1"), (b"x-twice", b"2")], "né".encode())
    headers = {"X-Asked": "yes", "Content-Type": "application/json"}
    journal = await record(app, "/a%20b?x=1&y=a+b&x=&z=%C3%A9", "POST", data='{"é": 1}'.encode(), headers=headers)
    (exchange,) = journal
    entry = entry_of(journal)
    assert datetime.fromisoformat(entry["startedDateTime"]) == exchange.started
    assert entry["time"] == round(exchange.duration * 1000, 3)
    assert entry["timings"]["send"] == 0
    assert entry["timings"]["wait"] + entry["timings"]["receive"] == pytest.approx(entry["time"], abs=0.002)
    assert entry["cache"] == {}
    own = {name: value for name, value in entry.items() if name.startswith("_")}
    assert own == {
        "_caller": None,
        "_service": "app.internal",
        "_via": "app",
        "_state": "done",
        "_number": exchange.number,
        "_parent": None,
        "_reused": False,
    }
    request = entry["request"]
    assert request["method"] == "POST"
    assert request["url"] == str(exchange.url)
    assert request["queryString"] == [
        {"name": "x", "value": "1"},
        {"name": "y", "value": "a b"},
        {"name": "x", "value": ""},
        {"name": "z", "value": "é"},
    ]
    assert header(request, "x-asked") == ["yes"]
    assert request["bodySize"] == 9
    assert request["postData"] == {"mimeType": "application/json", "params": [], "text": '{"é": 1}'}
    response = entry["response"]
    assert (response["status"], response["statusText"]) == (201, "Created")
    assert header(response, "x-twice") == ["1", "2"]
    assert response["content"] == {"size": 3, "mimeType": "text/plain", "text": "né"}
    assert response["bodySize"] == 3
    assert response["redirectURL"] == ""
    assert "_error" not in response


@pytest.mark.parametrize(
    ("body", "size", "expected"),
    [
        pytest.param(b"", 10, {"size": 0, "text": ""}, id="empty"),
        pytest.param(b"text", 10, {"size": 4, "text": "text"}, id="text"),
        pytest.param(b"\xff\x00", 10, {"size": 2, "text": "/wA=", "encoding": "base64"}, id="binary"),
        pytest.param(b"0123456789", 4, {"size": 10, "text": "0123", "comment": "the first 4 of 10 bytes"}, id="cut"),
        pytest.param(
            "aé".encode(),
            2,
            {"size": 3, "text": "YcM=", "encoding": "base64", "comment": "the first 2 of 3 bytes"},
            id="cut inside of a character",
        ),
        pytest.param(b"xyz", 0, {"size": 3, "text": "", "comment": "the first 0 of 3 bytes"}, id="cut to nothing"),
    ],
)
async def test_a_body_is_text_or_base64_and_says_what_was_cut(body: bytes, size: int, expected: Entry) -> None:
    journal = await record(answering(body=body), max_body_size=size)
    assert entry_of(journal)["response"]["content"] == {"mimeType": "", **expected}


@pytest.mark.parametrize(
    ("body", "size", "expected"),
    [
        pytest.param(b"", 10, None, id="empty"),
        pytest.param(b"a=b", 10, {"text": "a=b"}, id="text"),
        pytest.param(b"\xff\x00", 10, {"text": "/wA=", "_encoding": "base64"}, id="binary"),
        pytest.param(b"0123456789", 4, {"text": "0123", "comment": "the first 4 of 10 bytes"}, id="cut"),
    ],
)
async def test_the_body_of_a_request_is_its_post_data(body: bytes, size: int, expected: Entry | None) -> None:
    journal = await record(echo, "/", "POST", data=body, headers={"Content-Type": "a/b"}, max_body_size=size)
    request = entry_of(journal)["request"]
    assert request.get("postData") == (expected and {"mimeType": "a/b", "params": [], **expected})
    assert request["bodySize"] == len(body)


async def test_without_bodies_there_are_sizes_only() -> None:
    journal = await record(echo, "/", "POST", data=b"body", headers={"Content-Type": "a/b"}, bodies=False)
    entry = entry_of(journal)
    assert "postData" not in entry["request"]
    assert entry["request"]["bodySize"] == 4
    assert entry["response"]["content"] == {"size": 4, "mimeType": "a/b"}
    assert entry["response"]["bodySize"] == 4


def in_members(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: compress(data[:100]) + compress(data[100:101]) + compress(data[101:])


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        pytest.param("gzip", gzip.compress, id="gzip"),
        pytest.param("deflate", zlib.compress, id="deflate"),
        pytest.param("GZIP", gzip.compress, id="in capitals"),
        pytest.param("x-gzip", gzip.compress, id="x-gzip"),
        pytest.param("gzip", in_members(gzip.compress), id="gzip of several members"),
        pytest.param("gzip", lambda data: gzip.compress(data) + gzip.compress(b""), id="the last member is empty"),
        pytest.param("gzip", lambda data: gzip.compress(data) + bytes(7), id="padded"),
        pytest.param("deflate", lambda data: zlib.compress(data, wbits=-15), id="raw deflate"),
        pytest.param("deflate", in_members(zlib.compress), id="deflate of several streams"),
    ],
)
async def test_a_compressed_body_is_shown_as_its_reader_gets_it(
    encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    text = "é" * 300
    body = encode(text.encode())
    journal = await record(answering(headers=[(b"content-encoding", encoding.encode())], body=body))
    response = entry_of(journal)["response"]
    assert response["content"] == {"size": 600, "compression": 600 - len(body), "mimeType": "", "text": text}
    assert response["bodySize"] == len(body)


@pytest.mark.parametrize(
    ("encoding", "body", "kept"),
    [
        pytest.param("gzip", gzip.compress(b"x" * 100), 20, id="cut"),
        pytest.param("gzip", b"\xffno gzip at all", 1000, id="not what it says"),
        pytest.param("gzip", gzip.compress(b"x" * 100)[:-9], 1000, id="not whole"),
        pytest.param("gzip", gzip.compress(b"x") + gzip.compress(b"y")[:-9], 1000, id="the second member is not whole"),
        pytest.param("gzip", gzip.compress(b"x") + b"\xffgarbage", 1000, id="garbage behind the first member"),
        pytest.param("gzip", gzip.compress(b"x")[:-1] + b"\xff", 1000, id="another length"),
        pytest.param("gzip", gzip.compress(b"x")[:10] + b"\xff\xff", 1000, id="a gzip head only"),
        pytest.param("deflate", zlib.compress(b"x" * 100)[:-1], 1000, id="deflate that is not whole"),
        pytest.param("deflate", zlib.compress(b"x" * 100, wbits=-15)[:-1], 1000, id="raw deflate that is not whole"),
        pytest.param("deflate", b"\xff", 1000, id="no deflate at all"),
        pytest.param("deflate", zlib.compress(b"") * 1025, 10_000, id="too many streams"),
        pytest.param("compress", b"\xff\x01", 1000, id="another encoding"),
    ],
)
async def test_a_body_that_cannot_be_decompressed_is_shown_as_it_was_sent(
    encoding: str, body: bytes, kept: int
) -> None:
    app = answering(headers=[(b"content-encoding", encoding.encode())], body=body)
    journal = await record(app, max_body_size=kept, decompress=False)
    content = entry_of(journal)["response"]["content"]
    assert base64.b64decode(content["text"]) == body[:kept]
    assert (content["size"], content["encoding"], "compression" in content) == (len(body), "base64", False)


@pytest.mark.parametrize(
    ("status", "reason"), [(204, "No Content"), (304, "Not Modified"), (418, "I'm a Teapot"), (599, ""), (999, "")]
)
async def test_an_unusual_status_has_the_reason_that_it_is_known_by(status: int, reason: str) -> None:
    response = entry_of(await record(answering(status)))["response"]
    assert response["status"] == status
    assert response["statusText"].lower() == reason.lower()


async def test_bytes_of_headers_that_are_no_utf_8_are_latin_1() -> None:
    headers = [(b"x-latin", b"caf\xe9"), (b"x-utf", "café".encode()), (b"x-tab", b"a\tb"), (b"content-type", b"a/\xff")]
    response = entry_of(await record(answering(headers=headers)))["response"]
    assert [header(response, name) for name in ("x-latin", "x-utf", "x-tab")] == [["café"], ["café"], ["a\tb"]]
    assert response["content"]["mimeType"] == "a/ÿ"


@pytest.mark.parametrize("value", ["a\ud800b", 1], ids=["surrogate", "number"])
async def test_a_header_that_could_not_be_sent_is_shown_as_well_as_possible(value: Any) -> None:
    journal = await record(answering(), headers={"X-Odd": value})
    for entry in entries_of(journal):
        assert header(entry["request"], "x-odd") == [str(value).replace("\ud800", "\N{REPLACEMENT CHARACTER}")]


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(URL("http://app.internal/%ff?%ff=%zz&&=&a", encoded=True), id="encoded"),
        pytest.param(URL("http://app.internal/\ud800?\udcff=1", encoded=True), id="surrogates"),
        pytest.param(URL("http://app.internal/#fragment?a=b"), id="fragment"),
        pytest.param(URL("http://APP.internal:80/"), id="default port"),
    ],
)
async def test_any_url_is_valid(url: URL) -> None:
    for entry in entries_of(await record(answering(), url)):
        assert entry["request"]["url"].startswith("http://app.internal")


async def test_a_host_name_that_is_not_ascii_is_shown_as_it_was_sent() -> None:
    async with session_to({"bücher.internal": answering()}) as session:
        with connector_of(session).record() as journal:
            await session.get("http://bücher.internal/é")
    entry = entry_of(journal)
    assert entry["request"]["url"] == "http://xn--bcher-kva.internal/%C3%A9"


async def test_a_redirects_hops_are_entries_of_their_own() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first = scope["path"] == "/first"
        await answering(307 if first else 200, [(b"location", b"second?a=b#c")] if first else [])(scope, receive, send)

    first, second = entries_of(await record(app, "/first", "POST", data=b"x", allow_redirects=True))
    assert (first["response"]["status"], first["response"]["redirectURL"]) == (307, "second?a=b#c")
    assert second["request"]["url"].partition("#")[0] == "http://app.internal/second?a=b"
    assert (second["response"]["status"], second["response"]["redirectURL"]) == (200, "")


@pytest.mark.parametrize(
    "location", ["http://[", "//", "http://h:99999/", "a b\\c", "?", "::", "%zz", "http://h/?a=%zz&b", "#", "\xff", ""]
)
async def test_a_location_without_secrets_stays_as_it_is_also_where_it_is_no_url(location: str) -> None:
    journal = await record(answering(302, [(b"location", location.encode("latin-1"))]))
    for sensitive in (False, True):
        response = entry_of(journal, sensitive=sensitive)["response"]
        assert (response["redirectURL"], header(response, "location")) == (location, [location])


async def test_an_entry_has_its_caller_and_its_parent() -> None:
    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        async with session.get("http://users.internal/") as response:
            await answering(response.status)(scope, receive, send)

    async with session_to({"orders.internal": orders, "*.internal": answering(204)}) as session:
        with connector_of(session).record() as journal:
            async with session.get("http://orders.internal/"):
                pass
    outer, inner = entries_of(journal)
    assert [outer[name] for name in ("_caller", "_service", "_number", "_parent")] == [None, "orders.internal", 0, None]
    assert [inner[name] for name in ("_caller", "_service", "_number", "_parent")] == [
        "orders.internal",
        "*.internal",
        1,
        0,
    ]


# Requests that failed, or have not ended.


async def test_a_refused_call_has_status_0_and_the_error() -> None:
    async with session_to(answering()) as session:
        with connector_of(session).record(bodies=True) as journal, pytest.raises(aiohttp.ClientError) as caught:
            await session.post("http://no.internal:8080/", data=b"lost")
    entry = entry_of(journal)
    assert (entry["_via"], entry["_service"], entry["_state"]) == ("refused", None, "failed")
    assert entry["request"]["url"] == "http://no.internal:8080/"
    response = entry["response"]
    assert (response["status"], response["statusText"], response["headers"]) == (0, "", [])
    assert response["_error"] == f"failed: {type(caught.value).__name__}: {caught.value}"


async def test_a_fault_is_named_and_ends_with_status_0() -> None:
    async with session_to(answering()) as session:
        connector = connector_of(session)
        with (
            connector.record() as journal,
            connector.inject("app.internal", faults.Reset()),
            pytest.raises(aiohttp.ClientOSError) as caught,
        ):
            await session.post("/")
    entry = entry_of(journal)
    assert entry["_fault"] == "Reset(on='response', after=None)"
    assert entry["response"]["status"] == 0
    assert entry["response"]["_error"] == f"failed: ClientOSError: {caught.value}"


async def test_a_cut_body_keeps_its_status_beside_the_error() -> None:
    headers = [(b"content-length", b"6")]
    async with session_to(answering(headers=headers, body=b"abcdef")) as session:
        connector = connector_of(session)
        with connector.record(bodies=True) as journal, connector.inject("app.internal", faults.Close(after=3)):
            async with session.get("/") as response:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.read()
    found = entry_of(journal)["response"]
    assert found["status"] == 200
    assert found["_error"].startswith("failed: ClientPayloadError: ")


async def test_an_answer_in_the_place_of_the_app_is_via_the_fault() -> None:
    async with session_to(answering()) as session:
        connector = connector_of(session)
        fault = faults.Respond(503, {"retry-after": "1"}, "busy")
        with connector.record() as journal, connector.inject("app.internal", fault):
            await session.get("/")
    entry = entry_of(journal)
    assert (entry["_via"], entry["response"]["status"]) == ("fault", 503)
    assert header(entry["response"], "retry-after") == ["1"]
    assert "_error" not in entry["response"]


@pytest.mark.parametrize("bodies", [False, True])
async def test_without_bodies_the_sizes_of_the_fallback_are_not_known(bodies: bool) -> None:
    async with tcp_server() as tcp, session_to(answering(), fallback=aiohttp.TCPConnector()) as session:
        with connector_of(session).record(bodies=bodies) as journal:
            async with session.post(tcp.url, data=b"") as response:
                assert await response.read() == b"over TCP"
    entry = entry_of(journal)
    assert (entry["_via"], entry["_service"], entry["_reused"]) == ("fallback", None, False)
    assert entry["request"]["bodySize"] == (0 if bodies else -1)
    assert entry["response"]["status"] == 200
    assert entry["response"]["bodySize"] == (8 if bodies else -1)
    assert ("text" in entry["response"]["content"]) is bodies


async def test_a_fallback_that_fails_has_status_0() -> None:
    elsewhere = Elsewhere()
    async with session_to(answering(), fallback=elsewhere) as session:
        with connector_of(session).record() as journal, pytest.raises(aiohttp.ClientConnectionError):
            await session.post("http://out.example/")
    entry = entry_of(journal)
    assert entry["response"]["status"] == 0
    assert entry["response"]["_error"] == "failed: ClientConnectionError: nobody is there"


class Streaming:
    """An app that sends its body in two parts, the second when the test lets it."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await chat(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        await self.may_end.wait()
        await send({"type": "http.response.body", "body": b"second"})


async def test_a_journal_is_saved_while_a_stream_and_a_websocket_are_open_and_again_after(tmp_path: Path) -> None:
    app = Streaming()
    path = tmp_path / "journal.har"
    async with session_to(app) as session:
        with connector_of(session).record(bodies=True) as journal:
            async with session.get("/stream") as response, session.ws_connect("/chat") as ws:
                await ws.send_str("one")
                await ws.receive_bytes()
                assert await response.content.readexactly(6) == b"first "
                journal.save_har(path)
                stream, socket = load(path)
                assert (stream["_state"], stream["response"]["status"]) == ("running", 200)
                assert stream["response"]["content"] == {"size": 6, "mimeType": "text/plain", "text": "first "}
                assert (socket["_state"], socket["response"]["status"]) == ("running", 101)
                assert [message["data"] for message in socket["_webSocketMessages"]] == ["one", "b25l/w=="]
                assert socket["_webSocketCloseCode"] is None
                assert not any("_error" in entry["response"] for entry in (stream, socket))
                await ws.send_str("two")
                await ws.receive_bytes()
                await ws.close()
                app.may_end.set()
                assert await response.content.read() == b"second"
    journal.save_har(str(path))
    stream, socket = load(path)
    assert (stream["_state"], stream["response"]["content"]["text"]) == ("done", "first second")
    assert (socket["_state"], socket["_webSocketCloseCode"]) == ("done", 1000)
    assert [message["data"] for message in socket["_webSocketMessages"]] == ["one", "b25l/w==", "two", "dHdv/w=="]


def load(path: Path) -> list[Entry]:
    archive = json.loads(path.read_bytes().decode("utf-8"))
    VALIDATOR.validate(archive)
    entries: list[Entry] = archive["log"]["entries"]
    return entries


async def test_a_call_without_an_answer_yet_is_running_and_no_failure() -> None:
    called = asyncio.Event()

    async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
        called.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with session_to(hanging) as session:
        with connector_of(session).record() as journal:
            call = asyncio.create_task(session.get("/"))
            await called.wait()
            entry = entry_of(journal)
            assert (entry["_state"], entry["response"]["status"]) == ("running", 0)
            assert "_error" not in entry["response"]
            call.cancel()
            await asyncio.wait([call])
    entry = entry_of(journal)
    assert (entry["_state"], entry["response"]["status"]) == ("abandoned", 0)
    assert entry["response"]["_error"].startswith("abandoned")


async def test_the_messages_of_a_websocket_are_as_chrome_writes_them() -> None:
    async with session_to(chat) as session:
        with connector_of(session).record(bodies=True) as journal:
            async with session.ws_connect("ws://app.internal/chat") as ws:
                await ws.send_str("né")
                await ws.receive_bytes()
    sent, got = journal[0].messages
    entry = entry_of(journal)
    assert entry["_resourceType"] == "websocket"
    assert entry["request"]["url"] == "ws://app.internal/chat"
    assert entry["_webSocketMessages"] == [
        {"type": "send", "time": sent.date.timestamp(), "opcode": 1, "data": "né", "_size": 3},
        {"type": "receive", "time": got.date.timestamp(), "opcode": 2, "data": "bsOp/w==", "_size": 4},
    ]
    assert entry["_webSocketCloseCode"] == 1000
    assert entry["_webSocketMessagesDropped"] == 0


async def test_messages_that_were_too_many_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_connector._journal.live.MESSAGES_KEPT", 1)
    async with session_to(chat) as session:
        with connector_of(session).record(bodies=True) as journal:
            async with session.ws_connect("/chat") as ws:
                await ws.send_str("abcd")
                await ws.receive_bytes()
    entry = entry_of(journal)
    assert ([message["data"] for message in entry["_webSocketMessages"]], entry["_webSocketMessagesDropped"]) == (
        ["abcd"],
        1,
    )


async def test_a_handshake_that_is_refused_is_no_websocket_yet() -> None:
    async def closed(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    async with session_to(closed) as session:
        with connector_of(session).record() as journal, pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect("/chat")
    entry = entry_of(journal)
    assert (entry["response"]["status"], "_webSocketMessages" in entry) == (403, False)


async def test_messages_that_are_not_kept_have_their_sizes() -> None:
    async with session_to(chat) as session:
        with connector_of(session).record(bodies=True, max_body_size=4) as journal:
            async with session.ws_connect("/chat") as ws:
                await ws.send_str("abcd")
                await ws.receive_bytes()
    messages = entry_of(journal)["_webSocketMessages"]
    assert [(message["data"], message["_size"]) for message in messages] == [("abcd", 4), ("", 5)]


# Secrets.

SECRET: Final = "sesame"


@pytest.mark.parametrize(
    "name",
    ["Authorization", "Proxy-Authorization", "X-Api-Key", "Api-Key", "X-AUTH-TOKEN", "X-Amz-Security-Token", "Cookie"],
)
async def test_a_credential_in_a_header_is_redacted(name: str) -> None:
    journal = await record(answering(), headers={name: f"a={SECRET}"})
    assert header(entry_of(journal)["request"], name.lower()) == [REDACTED]
    assert SECRET not in json.dumps(journal.to_har())
    assert header(entry_of(journal, sensitive=True)["request"], name.lower()) == [f"a={SECRET}"]


async def test_cookies_keep_their_names() -> None:
    set_cookies = [
        (b"set-cookie", b"sid=sesame; Path=/; HttpOnly"),
        (b"Set-Cookie", b"other=sesame2; Secure"),
        (b"set-cookie", b"sesame without a name"),
    ]
    journal = await record(answering(headers=set_cookies), headers={"Cookie": 'a=sesame; b="sesame"; ???'})
    entry = entry_of(journal)
    assert entry["request"]["cookies"] == [{"name": name, "value": REDACTED} for name in ("a", "b")]
    assert entry["response"]["cookies"] == [{"name": name, "value": REDACTED} for name in ("sid", "other")]
    assert header(entry["response"], "set-cookie") == [REDACTED] * 3
    assert SECRET not in json.dumps(journal.to_har())
    sensitive = entry_of(journal, sensitive=True)
    assert [each["value"] for each in sensitive["request"]["cookies"]] == ["sesame", '"sesame"']
    assert [each["value"] for each in sensitive["response"]["cookies"]] == ["sesame", "sesame2"]
    assert header(sensitive["response"], "set-cookie") == [value.decode() for _, value in set_cookies]


async def test_a_malformed_cookie_takes_none_of_the_others_with_it() -> None:
    journal = await record(answering(), headers={"Cookie": "a=1; \u00e9; [=]; path=/x; $v=,; a=2"})
    names = [each["name"] for each in entry_of(journal)["request"]["cookies"]]
    assert names == ["a", "[", "path", "$v", "a"]


@pytest.mark.parametrize(
    ("query", "redacted"),
    [
        ("token=sesame", "token=%5Bredacted%5D"),
        ("a=1&API_KEY=sesame&b=2", "a=1&API_KEY=%5Bredacted%5D&b=2"),
        ("password=sesame;still;sesame&b", "password=%5Bredacted%5D&b"),
        ("a=1;token=sesame", "a=1;token=%5Bredacted%5D"),
        ("%74oken=sesame", "%74oken=%5Bredacted%5D"),
        ("%54%4Fken=sesame=sesame", "%54%4Fken=%5Bredacted%5D"),
        ("X-Amz-Signature=sesame&X-Amz-Date=1", "X-Amz-Signature=%5Bredacted%5D&X-Amz-Date=1"),
        ("my_token=sesame&keyboard=3&a=token", "my_token=%5Bredacted%5D&keyboard=3&a=token"),
        ("next=%2Fcb%3Fid_token%3Dsesame%26a%3D1&b=2", "next=%2Fcb%3Fid_token%3D%5Bredacted%5D%26a%3D1&b=2"),
        ("monkey=1&author=2&tokenizer=3", "monkey=1&author=2&tokenizer=3"),
        ("token", "token"),
    ],
)
async def test_a_secret_parameter_is_redacted_and_no_other(query: str, redacted: str) -> None:
    journal = await record(answering(), URL(f"http://app.internal/?{query}", encoded=True))
    request = entry_of(journal)["request"]
    assert request["url"] == f"http://app.internal/?{redacted}"
    assert SECRET not in json.dumps(journal.to_har())
    assert entry_of(journal, sensitive=True)["request"]["url"] == f"http://app.internal/?{query}"


async def test_the_query_string_is_redacted_as_the_url_is() -> None:
    journal = await record(answering(), "/?a=1&token=sesame")
    expected = [{"name": "a", "value": "1"}, {"name": "token", "value": REDACTED}]
    assert entry_of(journal)["request"]["queryString"] == expected
    expected[1]["value"] = SECRET
    assert entry_of(journal, sensitive=True)["request"]["queryString"] == expected


@pytest.mark.parametrize(
    ("location", "redacted"),
    [
        ("http://user:sesame@h/a", "http://h/a"),
        ("http://user:p@sesame@h:99999/a?b=c@d", "http://h:99999/a?b=c@d"),
        ("http://user:sesame@[", "http://["),
        ("//sesame@h", "//h"),
        ("/callback?code=sesame&state=1", "/callback?code=%5Bredacted%5D&state=1"),
        ("?token=sesame", "?token=%5Bredacted%5D"),
        ("/#access_token=sesame&x=1", "/#access_token=%5Bredacted%5D&x=1"),
        ("/users/@name//x?mail=a@b", "/users/@name//x?mail=a@b"),
    ],
)
@pytest.mark.parametrize("name", ["Location", "Content-Location"])
async def test_the_secrets_of_an_url_in_a_header_are_redacted(name: str, location: str, redacted: str) -> None:
    journal = await record(answering(201, [(name.encode(), location.encode())]))
    response = entry_of(journal)["response"]
    assert header(response, name.lower()) == [redacted]
    assert response["redirectURL"] == (redacted if name == "Location" else "")
    assert SECRET not in json.dumps(journal.to_har())
    assert header(entry_of(journal, sensitive=True)["response"], name.lower()) == [location]


async def test_what_the_user_of_an_url_and_a_referer_tell_is_redacted() -> None:
    url = "http://sesame:sesame@app.internal/"
    journal = await record(answering(), url, headers={"Referer": "https://u:sesame@h/?secret=sesame"})
    request = entry_of(journal)["request"]
    assert request["url"] == "http://app.internal/"
    assert header(request, "authorization") == [REDACTED]
    assert header(request, "referer") == ["https://h/?secret=%5Bredacted%5D"]
    assert SECRET not in json.dumps(journal.to_har())
    sensitive = entry_of(journal, sensitive=True)["request"]
    assert header(sensitive, "authorization") == [f"Basic {base64.b64encode(b'sesame:sesame').decode()}"]


async def test_the_text_of_an_error_is_redacted_too() -> None:
    async with session_to(answering(), fallback=(elsewhere := Elsewhere())) as session:
        elsewhere.refusal = aiohttp.ClientConnectionError("no way to http://u:sesame@h/?token=sesame \udcff")
        with connector_of(session).record() as journal, pytest.raises(aiohttp.ClientConnectionError):
            await session.post("http://out.example/")
    assert entry_of(journal)["response"]["_error"] == (
        "failed: ClientConnectionError: no way to http://h/?token=%5Bredacted%5D"
    )
    assert "sesame@h/?token=sesame ÿ" in entry_of(journal, sensitive=True)["response"]["_error"]


async def test_what_a_fault_answers_with_is_redacted_as_an_apps_answer_is() -> None:
    fault = faults.Respond(302, {"set-cookie": "sid=sesame", "location": "/?token=sesame"})
    async with session_to(answering()) as session:
        connector = connector_of(session)
        with connector.record() as journal, connector.inject("app.internal", fault):
            await session.get("/", allow_redirects=False)
    assert entry_of(journal)["response"]["status"] == 302
    assert SECRET not in json.dumps(journal.to_har())


async def test_a_name_that_says_so_is_that_of_a_secret_wherever_it_is() -> None:
    headers = [(b"dd-api-key", b"sesame"), (b"x-url", b"/?accessToken=sesame"), (b"x-monkey", b"banana")]
    url = "/a;jsessionid=sesame/b?user[password]=sesame&redirect_uri=http%3A%2F%2Fh%2F%3FclientSecret%3Dsesame"
    journal = await record(answering(200, headers), url, headers={"X-Session": "sesame", "X-Author": "Ada"})
    request, response = (entry_of(journal)[each] for each in ("request", "response"))
    assert SECRET not in json.dumps(journal.to_har())
    assert [header(request, each) for each in ("x-session", "x-author")] == [[REDACTED], ["Ada"]]
    assert [header(response, each) for each in ("dd-api-key", "x-url", "x-monkey")] == [
        [REDACTED],
        ["/?accessToken=%5Bredacted%5D"],
        ["banana"],
    ]
    assert request["queryString"] == [
        {"name": "user[password]", "value": REDACTED},
        {"name": "redirect_uri", "value": f"http://h/?clientSecret={REDACTED}"},
    ]
    assert json.dumps(journal.to_har(sensitive=True)).count(SECRET) == 8


# Forms.


async def test_a_form_has_its_fields_as_params() -> None:
    data = {"user": "Ada & Bob", "user[password]": SECRET, "next": "/?token=sesame", "empty": "", "n\u00e9": "\u00e9"}
    journal = await record(echo, "/", "POST", data=data)
    post_data = entry_of(journal)["request"]["postData"]
    assert post_data["params"] == [
        {"name": "user", "value": "Ada & Bob"},
        {"name": "user[password]", "value": REDACTED},
        {"name": "next", "value": f"/?token={REDACTED}"},
        {"name": "empty", "value": ""},
        {"name": "n\u00e9", "value": "\u00e9"},
    ]
    assert SECRET not in json.dumps(post_data)
    assert post_data["text"].startswith("user=Ada+%26+Bob&user%5Bpassword%5D=%5Bredacted%5D&next=")
    sensitive = entry_of(journal, sensitive=True)["request"]["postData"]
    assert [(each["name"], each["value"]) for each in sensitive["params"]] == list(data.items())
    assert sensitive["text"].encode() == journal[0].request.body


def upload(*extra: tuple[str, str | bytes, str | None, str | None]) -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
    for name, value, filename, content_type in extra:
        form.add_field(name, value, filename=filename, content_type=content_type)
    return form


async def test_an_upload_has_the_names_and_the_types_of_its_files() -> None:
    form = upload(
        ("user", "Ada \u00e9", None, None),
        ("password", "sesame\r\nsesame", None, None),
        ("next", "/?token=sesame", None, None),
        ("caf\u00e9", "text?token=of a file", "f\u00fcr.txt", "text/plain"),
        ("photo", b"\xff\x00\r\n", "a.png", "image/png"),
        ("secret_file", b"sesame\xff", "secret.bin", "application/octet-stream"),
    )
    journal = await record(echo, "/", "POST", data=form, max_body_size=10_000)
    params = entry_of(journal)["request"]["postData"]["params"]
    assert [(each["name"], each.get("value")) for each in params] == [
        ("user", "Ada \u00e9"),
        ("password", REDACTED),
        ("next", "/?token=%5Bredacted%5D"),
        ("caf\u00e9", "text?token=of a file"),
        ("photo", None),
        ("secret_file", REDACTED),
    ]
    assert [each.get("fileName") for each in params] == [None] * 3 + ["f\u00fcr.txt", "a.png", "secret.bin"]
    assert [each["contentType"].partition(";")[0] for each in params[3:]] == [
        "text/plain",
        "image/png",
        "application/octet-stream",
    ]
    assert params[4]["comment"] == "4 bytes that are no text"
    text = base64.b64decode(entry_of(journal)["request"]["postData"]["text"])
    assert SECRET.encode() not in text
    assert b"\xff\x00\r\n" in text
    sensitive = entry_of(journal, sensitive=True)["request"]["postData"]
    assert sensitive["params"][1]["value"] == "sesame\r\nsesame"
    assert base64.b64decode(sensitive["text"]) == journal[0].request.body


async def test_a_compressed_form_has_its_fields_too() -> None:
    body = gzip.compress(b"a=1&password=sesame")
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}
    journal = await record(echo, "/", "POST", data=body, headers=headers)
    request = entry_of(journal)["request"]
    assert request["postData"]["text"] == "a=1&password=%5Bredacted%5D"
    assert request["postData"]["params"] == [{"name": "a", "value": "1"}, {"name": "password", "value": REDACTED}]
    assert request["bodySize"] == len(body)


async def test_a_form_that_is_cut_has_what_there_is_of_its_fields() -> None:
    body = b"a=1&password=sesame&b=2"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    journal = await record(echo, "/", "POST", data=body, headers=headers, max_body_size=16)
    assert entry_of(journal)["request"]["postData"] == {
        "mimeType": "application/x-www-form-urlencoded",
        "params": [{"name": "a", "value": "1"}, {"name": "password", "value": REDACTED}],
        "text": "a=1&password=%5Bredacted%5D",
        "comment": "the first 16 of 23 bytes",
    }


@pytest.mark.parametrize(
    ("content_type", "body", "params"),
    [
        ("multipart/form-data", b"--x\r\n\r\na\r\n--x--", []),  # no boundary
        ("multipart/form-data; boundary=y", b"--x\r\n\r\na\r\n--x--", []),  # another boundary
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Type: a/b\r\n--x--\r\n", []),  # no end of the headers
        ("multipart/form-data; boundary=x", b"--x\r\n\r\na\r\n--x--", [{"name": "", "value": "a"}]),
        ("multipart/form-data; boundary=x", b"--x\n\na\n--x--\nrest", [{"name": "", "value": "a"}]),
        (
            "multipart/form-data; boundary=x",
            b"preamble\r\n--x \r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--xy\r\n2",
            [{"name": "a", "value": "1\r\n--xy\r\n2"}],  # cut
        ),
        (
            'Multipart/Form-Data; boundary="x"',
            b'--x\r\ncontent-disposition: form-data; name*=utf-8\'\'caf%C3%A9; filename="a\\"b"\r\n\r\n\r\n--x--',
            [{"name": "caf\u00e9", "value": "", "fileName": 'a"b'}],
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\ncontent-disposition: form-data; name="\xe9"\r\n\r\n\xe9\r\n--x--',
            [{"name": "\u00e9", "comment": "1 bytes that are no text"}],
        ),
        (
            "application/x-www-form-urlencoded",
            b"\xff=%ff&&b",
            [{"name": "\ufffd", "value": "\ufffd"}, {"name": "b", "value": ""}],
        ),
        ("application/x-www-form-urlencoded", b"&", []),
    ],
)
async def test_a_malformed_form_is_read_as_well_as_possible(
    content_type: str, body: bytes, params: list[dict[str, str]]
) -> None:
    journal = await record(echo, "/", "POST", data=body, headers={"Content-Type": content_type})
    for sensitive in (False, True):
        post_data = entry_of(journal, sensitive=sensitive)["request"]["postData"]
        assert post_data["params"] == params
        text = base64.b64decode(post_data["text"]) if "_encoding" in post_data else post_data["text"].encode()
        assert text == body


@settings(max_examples=examples(200), deadline=None, database=None)
@given(
    content_type=st.sampled_from(
        [
            "multipart/form-data; boundary=x",
            "multipart/form-data; boundary*=a'b'%ff",
            "application/x-www-form-urlencoded",
        ]
    )
    | st.text(max_size=10),
    parts=st.lists(
        st.sampled_from([b"--x", b"--", b"\r\n", b"\n", b"\xff", b"Content-Disposition: form-data; name=", b"a", b'"'])
        | st.binary(max_size=3),
        max_size=12,
    ),
)
def test_any_body_may_be_called_a_form(content_type: str, parts: list[bytes]) -> None:
    body = b"".join(parts)
    form = read_form(content_type, body, redacted=False)
    assert form is None or form.body == body
    redacted = read_form(content_type, body, redacted=True)
    assert (redacted is None) == (form is None)


# Versions.


@pytest.mark.parametrize("version", [aiohttp.HttpVersion10, aiohttp.HttpVersion11], ids=str)
async def test_the_version_is_the_one_that_was_sent_and_the_one_that_was_got(version: aiohttp.HttpVersion) -> None:
    async with session_to(answering(), session_version=version) as session:
        with connector_of(session).record() as journal:
            async with session.get("/") as response:
                assert response.version == aiohttp.HttpVersion11  # the server answers with its highest version
    entry = entry_of(journal)
    assert entry["request"]["httpVersion"] == f"HTTP/{version.major}.{version.minor}"
    assert entry["response"]["httpVersion"] == "HTTP/1.1"
    assert journal[0].response is not None
    assert (journal[0].request.http_version, journal[0].response.http_version) == (
        entry["request"]["httpVersion"],
        "HTTP/1.1",
    )


async def test_the_version_of_a_real_server_is_its_own() -> None:
    async with tcp_server() as tcp, session_to(answering(), fallback=aiohttp.TCPConnector()) as session:
        tcp.response = tcp.response.replace(b"HTTP/1.1", b"HTTP/1.0")
        with connector_of(session).record() as journal:
            async with session.get(tcp.url) as response:
                await response.read()
    assert entry_of(journal)["response"]["httpVersion"] == "HTTP/1.0"


async def test_there_is_no_version_of_a_response_that_has_not_arrived() -> None:
    async with session_to(answering()) as session:
        with connector_of(session).record() as journal, pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://no.internal/")
    entry = entry_of(journal)
    assert (entry["request"]["httpVersion"], entry["response"]["httpVersion"]) == ("HTTP/1.1", "")


# Files.


@pytest.mark.parametrize("kind", [str, Path])
async def test_a_file_is_utf_8_and_what_to_har_gives(kind: Callable[[Path], str | Path], tmp_path: Path) -> None:
    journal = await record(
        answering(headers=[(b"x-odd", b"\xff")], body="né".encode()), headers={"Cookie": "a=b"}, bodies=True
    )
    path = tmp_path / "nö.har"
    journal.save_har(kind(path))
    text = path.read_bytes().decode("utf-8")
    assert json.loads(text) == journal.to_har()
    assert '"né"' in text
    assert text.endswith("}\n")
    assert json.loads(text)["log"]["entries"][0]["request"]["cookies"][0]["value"] == REDACTED
    journal.save_har(kind(path), sensitive=True)
    assert json.loads(path.read_bytes()) == journal.to_har(sensitive=True) != journal.to_har()


async def test_a_selection_is_an_archive_of_its_own(tmp_path: Path) -> None:
    async with session_to({"a.internal": answering(), "b.internal": answering(204)}) as session:
        with connector_of(session).record() as journal:
            await session.get("http://a.internal/")
            await session.get("http://b.internal/")
    (entry,) = entries_of(journal.select("b.internal"))
    assert entry["response"]["status"] == 204


# Any data.

ODD: Final = st.sampled_from(
    [
        *("", "?", "#", "&", ";", "=", "%", "%zz", "%ff", "%00", "%C3%A9", "token=", "code=", "//", "@", ":", "[", "]"),
        *("\\", '"', "\u00e9", "\ud800", "\udcff", "\0", "\U0001f4a9", "\u202e", "\u2028", "http://u:p@", "<", ">"),
    ]
)
TEXT: Final = st.lists(ODD | st.text(max_size=4), max_size=5).map("".join)
VALUE: Final = st.lists(
    st.sampled_from([b"\xff", b"=", b";", b"//", b"u:p@", b"[", b"?token=x", b'"', "é".encode(), b"a"]),
    max_size=6,
).map(b"".join)
NAMES: Final = st.sampled_from(
    [b"location", b"set-cookie", b"content-type", b"refresh", b"link", b"x-api-key", b"x-odd", b"content-encoding"]
)
STATUSES: Final = st.sampled_from([200, 204, 302, 304, 404, 599, 999])


@pytest.mark.timeout(300)  # a failure is shrunk before it is shown
def test_an_archive_is_valid_whatever_urls_and_headers_have_in_them(
    record_property: Callable[[str, object], None],
) -> None:
    cases = 0

    @settings(max_examples=examples(200), deadline=None, database=None)
    @given(
        host=st.sampled_from(["app.internal", "no.internal", "b\u00fccher.internal", "[::1]"]) | TEXT,
        path=TEXT,
        encoded=st.booleans(),
        asked=st.dictionaries(st.sampled_from(["Cookie", "Referer", "X-Odd", "Content-Type"]), TEXT, max_size=3),
        status=STATUSES,
        headers=st.lists(st.tuples(NAMES, VALUE), max_size=4),
        body=st.binary(max_size=20),
    )
    @example("app.internal", "\ud800?\udcff=\ud800", True, {"X-Odd": "\ud800"}, 200, [(b"x", b"\xff")], b"")
    def run(
        host: str,
        path: str,
        encoded: bool,
        asked: dict[str, str],
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        nonlocal cases
        try:
            url = URL(f"http://{host}/{path}", encoded=encoded)
        except ValueError:
            return
        app = answering(status, headers, body)
        with suppress(ValueError):
            journal = asyncio.run(record(app, url, "POST", headers=asked, data=body, max_body_size=10))
            for sensitive in (False, True):
                cases += len(entries_of(journal, sensitive=sensitive))

    run()
    assert cases > examples(200) // 4
    record_property("hostile cases", cases)


def test_a_secret_parameter_is_redacted_whatever_stands_around_it(
    record_property: Callable[[str, object], None],
) -> None:
    cases = 0

    @settings(max_examples=examples(100), deadline=None, database=None)
    @given(before=TEXT, after=TEXT, name=st.sampled_from(["token", "KEY", "client_secret", "%74oken"]))
    def run(before: str, after: str, name: str) -> None:
        nonlocal cases
        text = f"/{before}&{name}={SECRET}{after}"
        location = text.encode("utf-8", "replace").translate(None, b"\r\n\0")
        for encoded in (False, True):
            app = answering(302, [(b"location", location)])
            with suppress(ValueError):
                journal = asyncio.run(record(app, URL(f"http://app.internal{text}", encoded=encoded)))
                entries_of(journal)
                assert SECRET not in json.dumps(journal.to_har())
                cases += len(journal)

    run()
    assert cases > examples(100)
    record_property("hostile cases", cases)


async def test_a_caller_that_is_not_in_the_archive_is_no_parent() -> None:
    """The numbers are those of one connector. Another connector has an exchange with the same number."""

    async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
        async with inner.get("http://b.internal/inside") as response:
            await response.read()
        await answering()(scope, receive, send)

    async with session_to({"a.internal": gateway}) as outer, session_to({"b.internal": echo}) as inner:
        with connector_of(outer).record() as outer_journal, connector_of(inner).record() as inner_journal:
            await inner.get("http://b.internal/unrelated")
            await outer.get("http://a.internal/")
    caller = outer_journal[0]
    assert [exchange.parent for exchange in inner_journal] == [None, caller]
    assert caller.number == inner_journal[0].number == 0
    entries = entries_of(inner_journal)
    assert [(each["_number"], each["_parent"], each["_caller"]) for each in entries] == [
        (0, None, None),
        (1, None, "a.internal"),
    ]
    together = entries_of(Journal([caller, inner_journal[1]]))
    assert [each["_parent"] for each in together] == [None, 0]


async def test_a_parent_that_is_not_selected_is_not_named() -> None:
    async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
        async with session.get("http://b.internal/") as response:
            await response.read()
        await answering()(scope, receive, send)

    async with session_to({"a.internal": gateway, "b.internal": echo}) as session:
        with connector_of(session).record() as journal:
            await session.get("http://a.internal/")
    assert [each["_parent"] for each in entries_of(journal)] == [None, 0]
    assert [each["_parent"] for each in entries_of(journal.select("b.internal"))] == [None]
