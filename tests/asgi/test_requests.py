"""Requests: what the app sees of a request, and what happens to requests that are malformed, too large, or not read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from asgi_connector import Mount
from asgi_connector._aiohttp.client_protocol import ClientProtocol
from asgi_connector._http1.request import MAX_HEAD, MAX_LINE
from asgi_connector._network.transport import SLICE
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.messages import respond
from tests.support.raw import raw_connection


class Recorder:
    """An app that keeps the scope and the body of each request, and answers when it has read the whole body."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await respond(send)

    @property
    def scope(self) -> Scope:
        [scope] = self.scopes
        return scope

    @property
    def paths(self) -> list[str]:
        return [scope["path"] for scope in self.scopes]

    def custom_headers(self) -> list[tuple[bytes, bytes]]:
        return [(name, value) for name, value in self.scope["headers"] if name.startswith(b"x-")]


class Connections(aiohttp.TraceConfig):
    """Counts the connections that a session makes, and uses again."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0
        self.reused = 0
        self.on_connection_create_end.append(self._count_made)
        self.on_connection_reuseconn.append(self._count_reused)

    async def _count_made(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceConnectionCreateEndParams
    ) -> None:
        self.made += 1

    async def _count_reused(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceConnectionReuseconnParams
    ) -> None:
        self.reused += 1


async def fetch(session: aiohttp.ClientSession, url: str | URL = "/", method: str = "GET", **settings: Any) -> None:
    """A request that succeeds."""
    async with session.request(method, url, **settings) as response:
        assert response.status == 200
        assert await response.read() == (b"" if method == "HEAD" else b"ok")


# What the scope contains.


STANDARD_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
OTHER_METHODS = ["PROPFIND", "M-SEARCH", "QUERY", "PRI", "MADE-UP", "!#$%&'*+-.^_`|~1"]


@pytest.mark.parametrize("method", [*STANDARD_METHODS, *OTHER_METHODS])
async def test_any_method_reaches_the_app(method: str) -> None:
    app = Recorder()
    async with session_to(app) as session:
        await fetch(session, method=method)
    assert app.scope["method"] == method


async def test_connect_is_answered_501() -> None:
    app = Recorder()
    connections = Connections()
    async with session_to(app, session_trace_configs=[connections]) as session:
        async with session.request("CONNECT", "/") as response:
            assert response.status == 501
            assert response.headers["connection"] == "close"
        await fetch(session, "/next")
    assert app.paths == ["/next"]
    assert connections.made == 2


@pytest.mark.parametrize(
    ("url", "raw_path", "path"),
    [
        ("/", b"/", "/"),
        ("/a%20b", b"/a%20b", "/a b"),
        ("/bücher", b"/b%C3%BCcher", "/bücher"),
        ("/b%C3%BCcher", b"/b%C3%BCcher", "/bücher"),
        ("/a+b;c=d,e~f", b"/a+b;c=d,e~f", "/a+b;c=d,e~f"),
        (URL("/a%2Fb", encoded=True), b"/a%2Fb", "/a/b"),
        (URL("/100%25", encoded=True), b"/100%25", "/100%"),
        (URL("/%252F", encoded=True), b"/%252F", "/%2F"),
        (URL("/%3Fa%23b", encoded=True), b"/%3Fa%23b", "/?a#b"),
        (URL("/b%c3%bccher", encoded=True), b"/b%c3%bccher", "/bücher"),
        (URL("/%zz%", encoded=True), b"/%zz%", "/%zz%"),
        (URL("/%ff", encoded=True), b"/%ff", "/\ufffd"),
        (URL("/%0d%0aX:%20y", encoded=True), b"/%0d%0aX:%20y", "/\r\nX: y"),
        (URL("/%00", encoded=True), b"/%00", "/\0"),
        (URL("//a//b/", encoded=True), b"//a//b/", "//a//b/"),
        (URL("//evil.internal/a", encoded=True), b"//evil.internal/a", "//evil.internal/a"),
        (URL("/a/./b/../c", encoded=True), b"/a/./b/../c", "/a/./b/../c"),
        (URL('/"<>[]^`{|}\\', encoded=True), b'/"<>[]^`{|}\\', '/"<>[]^`{|}\\'),
    ],
    ids=str,
)
async def test_the_path_is_decoded_and_the_raw_path_is_as_it_was_sent(
    url: str | URL, raw_path: bytes, path: str
) -> None:
    app = Recorder()
    target = url if isinstance(url, str) else URL(f"http://app.internal{url}", encoded=True)
    async with session_to(app) as session:
        await fetch(session, target)
    assert app.scope["raw_path"] == raw_path
    assert app.scope["path"] == path
    assert app.scope["query_string"] == b""


@pytest.mark.parametrize(
    ("query", "query_string"),
    [
        ("", b""),
        ("?a=b&c=d", b"a=b&c=d"),
        ("?b=1&a=2&b=3", b"b=1&a=2&b=3"),
        ("?a=%20+%2B", b"a=%20+%2B"),
        ("?%ff=%00&%zz", b"%ff=%00&%zz"),
        ("?a=b?c=/d:e@f", b"a=b?c=/d:e@f"),
        ("?&&=;", b"&&=;"),
        ("?a[]={}|\\^`\"<>'", b"a[]={}|\\^`\"<>'"),
    ],
)
async def test_the_query_string_is_raw(query: str, query_string: bytes) -> None:
    app = Recorder()
    async with session_to(app) as session:
        await fetch(session, URL(f"http://app.internal/path{query}", encoded=True))
    assert app.scope["query_string"] == query_string
    assert app.scope["raw_path"] == b"/path"


async def test_query_parameters_are_encoded_by_aiohttp() -> None:
    app = Recorder()
    async with session_to(app) as session:
        await fetch(session, "/path#fragment", params={"q": "a b&c", "ü": "€"})
    assert app.scope["query_string"] == b"q=a+b%26c&%C3%BC=%E2%82%AC"
    assert app.scope["path"] == "/path"


async def test_headers_arrive_in_lower_case_in_order_with_their_duplicates() -> None:
    app = Recorder()
    headers = [("X-Two", "a"), ("X-One", "b"), ("X-Two", "c"), ("X-Two", ""), ("x-3", "grün, \x80\t;"), ("X-Two", "a")]
    async with session_to(app) as session:
        await fetch(session, headers=headers)
    assert app.custom_headers() == [
        (b"x-two", b"a"),
        (b"x-one", b"b"),
        (b"x-two", b"c"),
        (b"x-two", b""),
        (b"x-3", "grün, \x80\t;".encode()),
        (b"x-two", b"a"),
    ]


async def test_whitespace_around_a_header_value_does_not_reach_the_app() -> None:
    app = Recorder()
    async with session_to(app) as session:
        await fetch(session, headers={"X-Token": " \tsecret with a space \t"})
    assert app.custom_headers() == [(b"x-token", b"secret with a space")]


@pytest.mark.parametrize(
    ("url", "scheme", "server"),
    [
        ("http://app.internal/", "http", ("app.internal", 80)),
        ("https://app.internal/", "https", ("app.internal", 443)),
        ("http://app.internal:80/", "http", ("app.internal", 80)),
        ("http://app.internal:8080/", "http", ("app.internal", 8080)),
        ("https://app.internal:80/", "https", ("app.internal", 80)),
        ("http://127.0.0.1/", "http", ("127.0.0.1", 80)),
        ("http://[::1]/", "http", ("::1", 80)),
        ("https://[fe80::1]:8443/", "https", ("fe80::1", 8443)),
    ],
)
async def test_server_and_scheme_are_those_of_the_url(url: str, scheme: str, server: tuple[str, int]) -> None:
    app = Recorder()
    async with session_to({"*": app}) as session:
        await fetch(session, url, headers={"Host": "elsewhere.example:1"})
    assert app.scope["scheme"] == scheme
    assert app.scope["server"] == server


async def test_an_ipv6_host_is_written_in_brackets_in_the_host_header() -> None:
    app = Recorder()
    async with session_to({"[::1]": app}) as session:
        await fetch(session, "http://[::1]:8080/")
    assert dict(app.scope["headers"])[b"host"] == b"[::1]:8080"


async def test_the_scope_of_a_request_is_complete() -> None:
    app = Recorder()
    mount = Mount(app, root_path="/v1", client=("192.0.2.1", 4321))
    async with session_to({"app.internal": mount}) as session:
        await fetch(
            session,
            URL("http://app.internal:8080/a%20b?c=d", encoded=True),
            method="PUT",
            data=b"body",
            headers={"User-Agent": "test", "Accept": "text/plain", "Accept-Encoding": "identity"},
        )
    headers = app.scope.pop("headers")
    assert sorted(headers) == [
        (b"accept", b"text/plain"),
        (b"accept-encoding", b"identity"),
        (b"content-length", b"4"),
        (b"content-type", b"application/octet-stream"),
        (b"host", b"app.internal:8080"),
        (b"user-agent", b"test"),
    ]
    assert app.scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c=d",
        "root_path": "/v1",
        "server": ("app.internal", 8080),
        "client": ("192.0.2.1", 4321),
        "state": {},
    }


async def test_an_unknown_client_and_the_defaults_are_in_the_scope() -> None:
    app = Recorder()
    async with session_to({"unknown.internal": Mount(app, client=None), "app.internal": app}) as session:
        await fetch(session)
        await fetch(session, "http://unknown.internal/")
    assert [(scope["client"], scope["root_path"]) for scope in app.scopes] == [(("127.0.0.1", 123), ""), (None, "")]


async def test_what_an_app_changes_in_its_scope_is_in_no_other_request() -> None:
    """Requests that are the same, byte for byte, on one connection."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append({key: value.copy() if hasattr(value, "copy") else value for key, value in scope.items()})
        scope["headers"].append((b"x-added", b"by the app"))
        scope["headers"][0] = (b"x-replaced", b"by the app")
        scope["state"]["added"] = "by the app"
        scope["asgi"]["added"] = "by the app"
        scope["path"] = "/changed"
        scope["added"] = "by the app"
        await respond(send)

    connections = Connections()
    async with session_to(app, session_trace_configs=[connections]) as session:
        for _ in range(3):
            await fetch(session, "/same")
    assert connections.made == 1
    assert seen[0] == seen[1] == seen[2]


# Which client sent a request.

caller: ContextVar[str] = ContextVar("caller", default="nobody")


class ContextRecorder:
    """An app that records who calls it, and answers with its name."""

    def __init__(self) -> None:
        self.callers: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.callers.append(caller.get())
        caller.set("the app")
        await receive()
        self.callers.append(caller.get())
        await respond(send)


async def test_each_request_on_a_pooled_connection_has_the_context_variables_of_its_own_caller() -> None:
    app = ContextRecorder()
    connections = Connections()
    async with session_to(app, session_trace_configs=[connections]) as session:
        for name in ["first", "second", "third"]:
            token = caller.set(name)
            await fetch(session)
            assert caller.get() == name
            caller.reset(token)
        await fetch(session)
        await asyncio.create_task(fetch(session))
    assert (connections.made, connections.reused) == (1, 4)
    assert app.callers[::2] == ["first", "second", "third", "nobody", "nobody"]
    assert app.callers[1::2] == ["the app"] * 5


async def test_concurrent_requests_have_the_context_variables_of_their_own_callers() -> None:
    app = ContextRecorder()

    async def call(name: str) -> None:
        caller.set(name)
        for _ in range(3):
            await fetch(session)
            assert caller.get() == name

    names = [f"caller {number}" for number in range(10)]
    async with session_to(app) as session:
        await asyncio.gather(*map(call, names))
    assert sorted(name for name in app.callers if name != "the app") == sorted(names * 3)


async def test_a_service_that_inherits_the_context_has_that_of_the_service_which_calls_it() -> None:
    inner = ContextRecorder()

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        assert caller.get() == "test"
        caller.set("outer")
        await fetch(session, "http://inner.internal/")
        assert caller.get() == "outer"
        await respond(send)

    apps: dict[str, ASGIApp | Mount] = {"app.internal": outer, "inner.internal": Mount(inner, inherit_context="always")}
    async with session_to(apps) as session:
        caller.set("test")
        for _ in range(2):
            await fetch(session)
    assert inner.callers == ["outer", "the app"] * 2
    assert caller.get() == "test"


# The size of a head.


async def test_a_header_of_60_kib_arrives() -> None:
    app = Recorder()
    async with session_to(app) as session:
        await fetch(session, headers={"X-Long": "a" * 60 * 1024})
    assert app.custom_headers() == [(b"x-long", b"a" * 60 * 1024)]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {"X-Long": "a" * 10 * 1024 * 1024}},
        {"headers": {"x" * 10 * 1024 * 1024: "a"}},
        {"url": URL(f"http://app.internal/{'a' * 10 * 1024 * 1024}", encoded=True)},
        {"headers": [(f"X-{number}", "a" * 1024) for number in range(10 * 1024)]},
    ],
    ids=["value", "name", "target", "many headers"],
)
async def test_a_head_of_10_mib_is_answered_431(method: str, settings: dict[str, Any]) -> None:
    app = Recorder()
    connections = Connections()
    async with session_to(app, session_trace_configs=[connections]) as session:
        await fetch(session, "/before")
        async with session.request(method, **{"url": "/", **settings}) as response:
            assert response.status == 431
            assert response.headers["connection"] == "close"
        assert connections.made == 1  # it was answered, and not sent a second time
        await fetch(session, "/after")
    assert app.paths == ["/before", "/after"]


@pytest.mark.parametrize(("size", "status"), [(MAX_LINE, 200), (MAX_LINE + 1, 431)])
@pytest.mark.parametrize("part", ["header", "request line"])
async def test_a_line_of_64_kib_is_read_and_a_longer_one_is_not(part: str, size: int, status: int) -> None:
    assert MAX_LINE == 64 * 1024
    settings: dict[str, Any] = {"url": "/"}
    if part == "header":
        settings["headers"] = {"X-Long": "a" * (size - len("X-Long: "))}
    else:
        path = "/" + "a" * (size - len("GET / HTTP/1.1"))
        settings["url"] = URL(f"http://app.internal{path}", encoded=True)
    async with session_to(Recorder()) as session, session.get(**settings) as response:
        assert response.status == status


async def size_of_plain_head(session: aiohttp.ClientSession, app: Recorder) -> int:
    """The size of the head of a plain GET, up to the end of its last header."""
    await fetch(session)
    headers = app.scopes.pop()["headers"]
    return len("GET / HTTP/1.1\r\n") + sum(len(name) + len(value) + len(": \r\n") for name, value in headers)


@pytest.mark.parametrize("position", [-2, -1, 0, 1])
async def test_a_line_of_64_kib_is_read_wherever_it_is_delivered_in_two(position: int) -> None:
    """Between the header's last byte and CR LF, between CR and LF, after them, and before the last byte."""
    app = Recorder()
    padding = SLICE + position - MAX_LINE - len("GET / HTTP/1.1\r\nHost: app.internal\r\n")
    headers: list[tuple[str, str]] = []
    while padding:
        size = min(padding, MAX_LINE // 2)
        headers.append((f"X-{len(headers)}", "a" * (size - len("X-0: \r\n"))))
        padding -= size
    headers += [("X-Long", "a" * (MAX_LINE - len("X-Long: "))), ("X-Last", "z")]
    async with session_to(app) as session:
        await fetch(session, headers=headers)
    assert app.scope["headers"][0] == (b"host", b"app.internal")  # so the padding has the intended size
    assert app.custom_headers() == [(name.lower().encode(), value.encode()) for name, value in headers]


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
async def test_a_head_of_1_mib_is_read_and_a_larger_one_is_not(more: int, status: int) -> None:
    assert MAX_HEAD == 1024 * 1024
    app = Recorder()
    async with session_to(app) as session:
        missing = MAX_HEAD + more - await size_of_plain_head(session, app) + len("\r\n")
        headers: list[tuple[str, str]] = []
        while missing:
            size = min(missing, MAX_LINE // 2)
            headers.append((f"X-{len(headers):02}", "a" * (size - len("X-00: \r\n"))))
            missing -= size
        async with session.get("/", headers=headers) as response:
            assert response.status == status
    assert len(app.scopes) == (status == 200)


# Malformed requests. aiohttp writes what it is given.


def changing(change: Callable[[aiohttp.ClientRequest], object]) -> dict[str, Any]:
    """A client middleware that changes the request after aiohttp has checked it."""

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        change(request)
        return await handler(request)

    return {"middlewares": [middleware]}


def method_becomes(method: str) -> dict[str, Any]:
    return changing(lambda request: setattr(request, "method", method))


def version_becomes(major: int, minor: int) -> dict[str, Any]:
    return changing(lambda request: setattr(request, "version", aiohttp.HttpVersion(major, minor)))


def target(target_: str) -> dict[str, Any]:
    return {"url": URL(f"http://app.internal{target_}", encoded=True)}


def fields(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"headers": list(pairs)}


MALFORMED: dict[str, dict[str, Any]] = {
    "a name that begins with a space": fields((" X-Folded", "v")),
    "a name that begins with a tab": fields(("\tX-Folded", "v")),
    "a name that begins with a space, after another": fields(("X-First", "v"), (" X-Folded", "v")),
    "a name of spaces": fields(("  ", "v")),
    "a name that ends with a space": fields(("X-Long ", "v")),
    "a name with a space": fields(("X Y", "v")),
    "a name with a colon": fields(("X:y", "v")),
    "a name that is a colon": fields((":", "v")),
    "a pseudo-header": fields((":path", "/other")),
    "a name with a slash": fields(("X/Y", "v")),
    "a quoted name": fields(('"X"', "v")),
    "an empty name": fields(("", "v")),
    "a name that is not ASCII": fields(("Ü", "v")),
    "an empty method": {"method": ""},
    "a method with a space": method_becomes("GET /other"),
    "a method that is not a token": method_becomes("G:T"),
    "a method that is not ASCII": method_becomes("GÉT"),
    "a target with a space": target("/a b"),
    "a target with a version": target("/ HTTP/1.1"),
    "a target that is not ASCII": target("/ü"),
    "a query with a space": target("/?a b"),
    "a query that is not ASCII": target("/?ü"),
    "HTTP/0.9": version_becomes(0, 9),
    "HTTP/1.2": version_becomes(1, 2),
    "HTTP/2.0": version_becomes(2, 0),
    "HTTP/11.1": version_becomes(11, 1),
    "chunked beside an automatic length": {
        "data": b"5\r\nhello\r\n0\r\n\r\n",
        **fields(("Transfer-Encoding", "chunked")),
    },
    "chunked beside a length": fields(("Transfer-Encoding", "chunked"), ("Content-Length", "5")),
    "chunked twice": fields(("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")),
    "gzip, chunked": fields(("Transfer-Encoding", "gzip, chunked")),
    "identity": fields(("Transfer-Encoding", "identity")),
    "almost chunked": fields(("Transfer-Encoding", "xchunked")),
    "two lengths": fields(("Content-Length", "5"), ("Content-Length", "6")),
    "two lengths that agree": {"data": b"hello", **fields(("Content-Length", "5"), ("Content-Length", "5"))},
    "a list of lengths": fields(("Content-Length", "5, 5")),
    "a negative length": fields(("Content-Length", "-5")),
    "a length with a sign": fields(("Content-Length", "+5")),
    "a hexadecimal length": fields(("Content-Length", "0x5")),
    "a length with an underscore": fields(("Content-Length", "1_0")),
    "an empty length": fields(("Content-Length", "")),
    "a length of other digits": fields(("Content-Length", "\u0665")),
    "a length of 20 digits": fields(("Content-Length", "1" * 20)),
    "chunks under an automatic length": {"data": b"hello", "chunked": False},
}


@pytest.mark.parametrize("pooled", [False, True], ids=["new", "pooled"])
@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_is_refused_and_reaches_no_app(malformed: dict[str, Any], pooled: bool) -> None:
    app = Recorder()
    connections = Connections()
    async with session_to(app, session_trace_configs=[connections]) as session:
        if pooled:
            await fetch(session, "/before")
        async with session.request(**{"method": "GET", "url": "/", **malformed}) as response:
            assert response.status == 400
            assert response.headers["connection"] == "close"
            assert await response.read() != b""
        assert connections.made == 1  # it was answered, and not sent a second time
        await fetch(session, "/after")
    assert connections.made == 2
    assert app.paths == (["/before", "/after"] if pooled else ["/after"])


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app.internal\r\n\r\n"


@pytest.mark.parametrize("pooled", [False, True], ids=["new", "pooled"])
async def test_a_body_without_framing_is_not_taken_for_the_next_request(pooled: bool) -> None:
    """aiohttp sends a request when it has received a connection, and never two at the same time."""
    app = Recorder()
    async with session_to(app) as session:
        if pooled:
            await fetch(session, "/before")
        without_length = changing(lambda request: request.headers.popall("Content-Length"))
        async with session.post("/", data=SMUGGLED, **without_length) as response:
            assert response.status == 400
        await fetch(session, "/after")
    assert app.paths == (["/before", "/after"] if pooled else ["/after"])


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
    ids=["no body", "content-length", "chunked"],
)
async def test_bytes_after_the_end_of_a_request_are_no_request(request_: bytes) -> None:
    """They arrive while the app still works on the request. Their answer has no caller."""
    app = Recorder()
    let_go = asyncio.Event()

    async def slow_app(scope: Scope, receive: Receive, send: Send) -> None:
        await let_go.wait()
        await app(scope, receive, send)

    async with session_to(slow_app) as session, raw_connection(session) as connection:
        await connection.send(request_)
        await connection.send(SMUGGLED)
        let_go.set()
        await connection.end()
        await fetch(session, "/next")
    assert "/smuggled" not in app.paths
    assert app.paths[-1] == "/next"


async def test_bytes_that_come_when_no_request_is_due_are_no_request() -> None:
    app = Recorder()
    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await connection.response())[0] == 200
        await connection.send(SMUGGLED)
        await connection.end()
    assert app.paths == ["/first"]


@pytest.mark.parametrize("size", [b"x", b"5;name=value", b" 5", b"-5", b""], ids=repr)
async def test_malformed_chunks_are_refused_and_end_the_request(size: bytes) -> None:
    messages = []
    asking = asyncio.Event()
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        messages.append(await receive())
        asking.set()
        messages.append(await receive())
        ended.set()

    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(head + b"5\r\nhello\r\n")
        await asking.wait()
        await connection.send(size + b"\r\nhello\r\n0\r\n\r\n" + SMUGGLED)
        status, answer_headers, _ = await connection.response()
        assert (status, answer_headers["connection"]) == (400, "close")
        await ended.wait()
    assert messages == [
        {"type": "http.request", "body": b"hello", "more_body": True},
        {"type": "http.disconnect"},
    ]


async def test_the_answer_to_a_malformed_head_request_has_no_body() -> None:
    async with session_to(Recorder()) as session, raw_connection(session) as connection:
        await connection.send(b"HEAD / HTTP/1.1\r\n Folded: v\r\n\r\n")
        status, _, payload = await connection.head()
        assert status == 400
        await connection.end()
        # For this reader, only the length in the head makes the body of a GET.
        assert payload.total_bytes == 0


# A request whose body is not read to the end.


async def endless() -> AsyncIterator[bytes]:
    """Much more than may be in flight. It never yields to the event loop by itself."""
    for _ in range(20_000):
        yield SMUGGLED * 100
    raise AssertionError("nothing stopped the upload")


@pytest.mark.parametrize(
    "settings",
    [{"data": endless}, {"data": endless, "headers": {"Content-Length": str(2**40)}}],
    ids=["chunked", "content-length"],
)
@pytest.mark.parametrize("pieces_read", [0, 1, 5])
@pytest.mark.parametrize("status", [200, 503])
async def test_an_answer_before_the_request_was_read_to_its_end_arrives(
    settings: dict[str, Any], pieces_read: int, status: int
) -> None:
    recorder = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/early":
            await recorder(scope, receive, send)
            return
        for _ in range(pieces_read):
            assert (await receive())["more_body"]
        await respond(send, b"that will do", status)
        assert await receive() == {"type": "http.disconnect"}

    connections = Connections()
    async with session_to(app, session_trace_configs=[connections]) as session:
        for _ in range(2):
            async with session.post("/early", **{**settings, "data": settings["data"]()}) as response:
                assert response.status == status
                assert await response.read() == b"that will do"
            await fetch(session, "/next", method="POST", data=b"body")
    assert recorder.paths == ["/next", "/next"]
    assert recorder.bodies == [b"body", b"body"]
    assert connections.made >= 3


async def test_the_rest_of_an_unread_body_is_never_taken_for_a_request() -> None:
    recorder = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/early":
            await respond(send)
            return
        await recorder(scope, receive, send)

    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        assert (await connection.response())[0] == 200
        await connection.send(SMUGGLED, SMUGGLED)
        await connection.end()
        await fetch(session, "/next")
    assert recorder.paths == ["/next"]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("POST", {"data": b"short"}),
        ("POST", {}),
        ("GET", {}),
        ("HEAD", {}),
    ],
    ids=["some", "none", "GET", "HEAD"],
)
async def test_a_content_length_that_promises_too_much_spoils_no_other_request(
    method: str, settings: dict[str, Any]
) -> None:
    """The rest of the body would be read as the next request."""
    seen: list[tuple[str, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        if scope["path"] == "/next" or settings:
            body = (await receive())["body"]
        seen.append((scope["path"], body))
        await respond(send)

    connections = Connections()
    async with session_to(app, session_trace_configs=[connections]) as session:
        for _ in range(2):
            await fetch(session, "/false", method=method, headers={"Content-Length": "1000"}, **settings)
            await fetch(session, "/next", method="POST", data=b"body")
    assert (connections.made, connections.reused) == (3, 1)  # after each invalid one, another
    assert seen == [("/false", settings.get("data", b"")), ("/next", b"body")] * 2


async def test_a_content_length_that_promises_too_little_spoils_no_other_request() -> None:
    """aiohttp cuts the body off there."""
    app = Recorder()
    async with session_to(app) as session:
        for _ in range(2):
            await fetch(session, "/false", method="POST", data=b"hello" + SMUGGLED, headers={"Content-Length": "5"})
            await fetch(session, "/next")
    assert app.paths == ["/false", "/next"] * 2
    assert app.bodies == [b"hello", b""] * 2


@pytest.mark.parametrize("settings", [{"data": SMUGGLED}, {"data": None}], ids=["body", "no body"])
async def test_an_expect_that_is_not_answered_spoils_no_other_request(settings: dict[str, Any]) -> None:
    recorder = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/expect":
            await respond(send)
            return
        await recorder(scope, receive, send)

    async with session_to(app) as session:
        for _ in range(2):
            await fetch(session, "/expect", method="POST", expect100=True, **settings)
            await fetch(session, "/next", method="POST", data=b"body")
    assert recorder.paths == ["/next", "/next"]
    assert recorder.bodies == [b"body", b"body"]


# Other versions, other protocols.


async def test_an_http_1_0_request_is_answered_and_its_connection_closed() -> None:
    app = Recorder()
    connections = Connections()
    version = aiohttp.HttpVersion10
    async with session_to(app, session_version=version, session_trace_configs=[connections]) as session:
        for _ in range(2):
            async with session.post("/", data=b"body", headers={"Connection": "keep-alive"}) as response:
                assert response.status == 200
                assert response.headers["connection"] == "close"
                assert await response.read() == b"ok"
    assert [scope["http_version"] for scope in app.scopes] == ["1.0", "1.0"]
    assert app.bodies == [b"body", b"body"]
    assert (connections.made, connections.reused) == (2, 0)


async def test_an_http_1_0_response_without_a_length_ends_with_its_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    async with session_to(app, session_version=aiohttp.HttpVersion10) as session, session.get("/") as response:
        assert "transfer-encoding" not in response.headers
        assert "content-length" not in response.headers
        assert await response.read() == b"one two"


async def test_connection_close_in_the_request_closes_the_connection() -> None:
    app = Recorder()
    connections = Connections()
    async with session_to(app, session_trace_configs=[connections]) as session:
        async with session.get("/", headers={"Connection": "close"}) as response:
            assert response.headers["connection"] == "close"
            assert await response.read() == b"ok"
        await fetch(session)
    assert (connections.made, connections.reused) == (2, 0)


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.2", "websockets", "web socket", "", "made-up, h2c"])
async def test_an_upgrade_to_anything_but_websocket_is_ignored(upgrade: str) -> None:
    app = Recorder()
    connections = Connections()
    async with session_to(app, session_trace_configs=[connections]) as session:
        for _ in range(2):
            await fetch(
                session, method="POST", data=b"body", headers={"Connection": "Upgrade", "Upgrade": upgrade, "X-Y": "z"}
            )
    assert [scope["type"] for scope in app.scopes] == ["http", "http"]
    assert dict(app.scopes[0]["headers"])[b"upgrade"] == upgrade.encode()
    assert app.bodies == [b"body", b"body"]
    assert (connections.made, connections.reused) == (1, 1)


async def test_malformed_chunks_cut_off_a_response_that_has_begun() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"so far", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with session_to(app) as session, raw_connection(session) as connection:
        await connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        status, _, body = await connection.head()
        assert status == 200
        await connection.send(b"zz\r\n")
        await connection.end()
        with pytest.raises(aiohttp.ClientPayloadError):
            await body.read()


async def test_a_request_that_came_before_its_turn_is_dropped_with_its_connection() -> None:
    """By its framing the first response was complete, so the client has sent the next request. Then it disconnects."""
    paths: list[str] = []
    has_ended, may_end = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok", "more_body": True})
        await may_end.wait()
        clients[-1].abort()
        await send({"type": "http.response.body"})
        has_ended.set()

    clients: list[ResponseHandler] = []
    async with session_to(app) as session:
        async with raw_connection(session) as connection:
            await connection.send(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await connection.response())[2] == b"ok"
        async with raw_connection(session) as connection:
            clients.append(connection._protocol)
            await connection.send(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
            assert isinstance(connection._protocol, ClientProtocol)
            assert repr(connection._protocol.server) == (
                "<ServerProtocol http://app.internal, expects the next request, "
                "before the current one has been answered>"
            )
            may_end.set()
            await has_ended.wait()
            await connection.end()
    assert paths == ["/first"]
