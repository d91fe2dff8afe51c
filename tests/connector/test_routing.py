"""Which app, or which other connector, answers a request, as a session sees it."""

import asyncio
import contextlib
import copy
import errno
import logging
import pickle
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import aiohttp
import pytest
from aiohttp import ClientConnectorError, ClientSession, ClientTimeout
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from asgi_connector import (
    ASGIApplicationConnector,
    ASGIConnectorError,
    ASGIRoutingConnector,
    Mount,
    UnmountedHostError,
    faults,
)
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import session_to
from tests.support.outside import Elsewhere, TCPServer, tcp_server
from tests.support.sessions import connector_of

CLIENT_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUR2PXvRvxNwVot/vk1ipvfRZ+wuswCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGY2xpZW50MCAXDTI2MTEyNDA4NDgwN1oYDzIxMjYxMDMxMDg0
ODA3WjARMQ8wDQYDVQQDDAZjbGllbnQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATiu3YVnjMDLBbYGDemY31QgRqWsduoHCYivNT1ghFuHxNkTkviBZIAIHKg2BHY
IM6L09aESXq9KV/jPBt2HfFfo1MwUTAdBgNVHQ4EFgQUxo9Z822dOmWAzqJMSiqO
61zCmzcwHwYDVR0jBBgwFoAUxo9Z822dOmWAzqJMSiqO61zCmzcwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiAJLK57CnwOQXwnIcEzyn/8zgAY5yWE
TJhM4Mdj2eLv+wIhAJhR+KE6hpi+DE1uPbtpcRMPMCW6Pl8wryJ57yC/kh3M
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgd/VX2IFm3dhwxNVQ
BtIRKUxGSmeHdNndwdqwoj9VTJShRANCAATiu3YVnjMDLBbYGDemY31QgRqWsduo
HCYivNT1ghFuHxNkTkviBZIAIHKg2BHYIM6L09aESXq9KV/jPBt2HfFf
-----END PRIVATE KEY-----
"""


class Service:
    """Answers every request with its name, and keeps the scopes."""

    def __init__(self, name: str, *headers: tuple[bytes, bytes], status: int = 200) -> None:
        self.name = name
        self.scopes: list[Scope] = []
        self.status = status
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.name.encode()})

    def cookies(self) -> list[bytes]:
        return [dict(scope["headers"]).get(b"cookie", b"") for scope in self.scopes]


def services(*names: str) -> dict[str, Service]:
    return {name: Service(name) for name in names}


async def text_of(session: aiohttp.ClientSession, url: str, **options: Any) -> str:
    async with session.get(url, **options) as resp:
        return await resp.text()


# Hosts, ports and schemes.


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://users.internal/", "users.internal"),
        ("http://users.internal:9999/", "users.internal"),
        ("http://users.internal:8080/", "users.internal:8080"),
        ("https://users.internal:8080/", "users.internal:8080"),
        ("https://users.internal/", "https://users.internal"),
        ("https://users.internal:8443/", "https://users.internal"),
        ("https://users.internal:443/", "https://users.internal"),
        ("wss://users.internal/", "https://users.internal"),
        ("ws://users.internal/", "users.internal"),
        ("http://users.internal:80/", "users.internal"),
        ("https://users.internal:9443/", "wss://users.internal:9443"),
        ("http://users.internal:9443/", "users.internal"),
        ("http://USERS.Internal/", "users.internal"),
        ("http://users.internal./", "users.internal"),
        ("http://a.b.users.internal/", "*.internal"),
        ("http://bücher.example/", "bücher.example"),
        ("http://xn--bcher-kva.example/", "bücher.example"),
        ("http://[::1]:8080/", "[::1]:8080"),
        ("http://[0:0:0:0:0:0:0:1]:8080/", "[::1]:8080"),
        ("http://[::1]/", "*"),
        ("http://internal/", "*"),
        ("ws://elsewhere.example/", "*"),
        ("https://elsewhere.example/", "https://*"),
    ],
)
async def test_the_most_specific_pattern_answers(url: str, expected: str) -> None:
    apps = services(
        "*",
        "https://*",
        "*.internal",
        "users.internal",
        "https://users.internal",
        "users.internal:8080",
        "wss://users.internal:9443",
        "bücher.example",
        "[::1]:8080",
    )
    async with session_to(apps) as session:
        assert await text_of(session, url) == expected
        assert sum(len(app.scopes) for app in apps.values()) == 1


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("users.internal", "http://evilusers.internal/"),
        ("users.internal", "http://users.internal.evil/"),
        ("users.internal", "http://a.users.internal/"),
        ("users.internal", "http://users.internal@evil.example/"),
        ("*.internal", "http://internal/"),
        ("*.internal", "http://evilinternal/"),
        ("*.internal", "http://users.internal.evil/"),
        ("users.internal:8080", "http://users.internal/"),
        ("users.internal:80", "https://users.internal/"),
        ("https://users.internal", "http://users.internal/"),
        ("https://users.internal", "ws://users.internal/"),
        ("http://users.internal", "https://users.internal:80/"),
        ("[::1]", "http://127.0.0.1/"),
    ],
)
async def test_a_look_alike_reaches_no_app(pattern: str, url: str) -> None:
    apps = services(pattern)
    async with session_to(apps) as session:
        with pytest.raises(UnmountedHostError):
            await session.get(url)
    assert apps[pattern].scopes == []


@pytest.mark.parametrize("host", ["orders.internal", "orders.internal:80", "unmounted.example", "", "*"])
async def test_a_host_header_does_not_change_the_destination(host: str) -> None:
    apps = services("users.internal", "orders.internal")
    async with session_to(apps) as session:
        assert await text_of(session, "http://users.internal/", headers={"Host": host}) == "users.internal"
        with pytest.raises(UnmountedHostError, match=r"elsewhere\.example"):
            await session.get("http://elsewhere.example/", headers={"Host": "users.internal"})
    (scope,) = apps["users.internal"].scopes
    assert (b"host", host.encode()) in scope["headers"]
    assert scope["server"] == ("users.internal", 80)
    assert apps["orders.internal"].scopes == []


async def test_each_host_has_its_own_connections_even_to_the_same_app() -> None:
    app = Service("app")
    urls = ["http://a.internal", "https://a.internal", "http://b.internal", "http://a.internal:8080", "http://[::1]:1"]
    async with session_to({"*": app}) as session:
        for url in urls + urls:
            await text_of(session, url)
    assert [(scope["scheme"], *scope["server"]) for scope in app.scopes] == 2 * [
        ("http", "a.internal", 80),
        ("https", "a.internal", 443),
        ("http", "b.internal", 80),
        ("http", "a.internal", 8080),
        ("http", "::1", 1),
    ]


async def test_ws_and_http_are_one_scheme_and_so_are_wss_and_https() -> None:
    apps = services("http://users.internal", "wss://users.internal")
    async with session_to(apps) as session:
        for scheme in ["http", "ws", "https", "wss"]:
            await text_of(session, f"{scheme}://users.internal/")
    assert [scope["scheme"] for scope in apps["http://users.internal"].scopes] == ["http", "http"]
    assert [scope["scheme"] for scope in apps["wss://users.internal"].scopes] == ["https", "https"]


# No app, and no fallback.


class RefusingResolver(AbstractResolver):
    """A resolver that counts its calls, and knows no name."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        raise OSError("asked to resolve a name")

    async def close(self) -> None:
        pass


@contextmanager
def no_network() -> Iterator[list[str]]:
    """Every way to resolve a name or open a socket raises, and is recorded in the list.

    Use it for a block only, because event loops open their own sockets when they start.
    """
    touched: list[str] = []

    def refuse(name: str) -> Callable[..., NoReturn]:
        def touch(*args: object, **kwargs: object) -> NoReturn:
            touched.append(name)
            raise OSError(f"{name} was called")

        return touch

    loop = asyncio.get_running_loop()
    with pytest.MonkeyPatch.context() as patch:
        for name in ["create_connection", "create_unix_connection", "getaddrinfo", "getnameinfo", "sock_connect"]:
            patch.setattr(loop, name, refuse(name))
        for name in ["getaddrinfo", "gethostbyname", "create_connection"]:
            patch.setattr(socket, name, refuse(name))
        for name in ["__init__", "connect", "connect_ex"]:
            patch.setattr(socket.socket, name, refuse(f"socket.{name}"))
        yield touched


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
@pytest.mark.parametrize("host", ["elsewhere.example", "localhost", "127.0.0.1", "[::1]:8080", "users.internal:8080"])
async def test_an_unmounted_host_touches_neither_resolver_nor_socket(scheme: str, host: str) -> None:
    with no_network() as touched:
        async with session_to(services("users.internal:1")) as session:
            with pytest.raises(UnmountedHostError):
                await session.get(f"{scheme}://{host}/")
    assert touched == []


async def test_a_mounted_host_touches_neither_resolver_nor_socket() -> None:
    resolver = RefusingResolver()
    fallback = aiohttp.TCPConnector(resolver=resolver)
    async with session_to(services("users.internal", "127.0.0.1"), fallback=fallback) as session:
        with no_network() as touched:
            assert await text_of(session, "http://users.internal/") == "users.internal"
            assert await text_of(session, "https://127.0.0.1/") == "127.0.0.1"
            assert (resolver.asked, touched) == ([], [])
            # Both would be recorded if they were used:
            with pytest.raises(ClientConnectorError):
                await session.get("http://elsewhere.example/")
            with pytest.raises(ClientConnectorError):
                await session.get("http://127.0.0.2/")
            assert (resolver.asked, touched) == (["elsewhere.example"], ["socket.__init__"])


async def test_the_error_for_an_unmounted_host_says_what_was_asked_for_and_what_there_is() -> None:
    async with session_to(services("users.internal", "orders.internal", "*.tenants.internal")) as session:
        with pytest.raises(UnmountedHostError) as caught:
            await session.get("https://user.internal:8443/a?b=c")
    message = str(caught.value)
    assert "user.internal:8443" in message
    assert "Did you mean 'users.internal'?" in message
    for pattern in ["'users.internal'", "'orders.internal'", "'*.tenants.internal'"]:
        assert pattern in message.partition("?")[2]


async def test_the_error_for_an_unmounted_host_names_only_the_first_few_of_many_mounts() -> None:
    async with session_to({f"service-{number}.internal": Service("") for number in range(1000)}) as session:
        with pytest.raises(UnmountedHostError) as caught:
            await session.get("http://elsewhere.example/")
    message = str(caught.value)
    assert "'service-0.internal', 'service-1.internal', 'service-2.internal'" in message
    assert "more" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("mounted", "url"),
    [
        ("users.internal", "http://user.internal/"),
        ("users.internal", "https://users.intern/"),
        ("USERS.INTERNAL", "http://user.internal/"),
        ("users.internal:8080", "http://users.internal/"),
        ("https://users.internal", "http://users.internal/"),
        ("https://db", "http://db/"),
        ("db:5432", "http://db/"),
        ("*.tenants.internal", "http://acme.tenant.internal/"),
        ("*.internal", "http://internal/"),
        ("bücher.example", "http://büche.example/"),
        ("[::1]:8080", "http://[::1]/"),
        ("127.0.0.1:8080", "http://127.0.0.1:8081/"),
    ],
)
async def test_the_error_for_an_unmounted_host_names_the_closest_of_what_is_mounted(mounted: str, url: str) -> None:
    others = {f"0000-{number}.zzzzzzzz.test": Service("") for number in range(20)}
    async with session_to({**others, mounted: Service("")}) as session:
        with pytest.raises(UnmountedHostError) as caught:
            await session.get(url)
    assert f"Did you mean {mounted!r}?" in str(caught.value)


async def test_the_error_says_so_where_nothing_is_mounted() -> None:
    async with session_to({}) as session:
        with pytest.raises(UnmountedHostError, match=r"[Nn]othing is mounted"):
            await session.get("http://users.internal/")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://elsewhere.example/", "elsewhere.example", 80),
        ("https://elsewhere.example/", "elsewhere.example", 443),
        ("http://elsewhere.example:8080/", "elsewhere.example", 8080),
        ("http://[::1]:8080/", "::1", 8080),
    ],
)
async def test_an_unmounted_host_is_an_unreachable_one_to_the_code_under_test(url: str, host: str, port: int) -> None:
    async with session_to({}) as session:
        with pytest.raises(ClientConnectorError) as caught:
            await session.get(url, ssl=False)
    error = caught.value
    assert type(error) is UnmountedHostError
    assert isinstance(error, ASGIConnectorError)
    assert isinstance(error, aiohttp.ClientError)
    assert isinstance(error, OSError)
    assert (error.host, error.port, error.ssl) == (host, port, False)
    assert error.errno == error.os_error.errno == errno.EHOSTUNREACH
    assert error.strerror == str(error)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
async def test_the_error_for_an_unmounted_host_survives_a_copy(
    duplicate: Callable[[UnmountedHostError], UnmountedHostError],
) -> None:
    async with session_to(services("users.internal")) as session:
        with pytest.raises(UnmountedHostError) as caught:
            await session.get("http://user.internal:8080/")
    error = caught.value
    twin = duplicate(error)
    assert type(twin) is UnmountedHostError
    assert (str(twin), twin.host, twin.port, twin.ssl, twin.errno) == (
        str(error),
        "user.internal",
        8080,
        True,
        errno.EHOSTUNREACH,
    )
    assert str(error) in repr(twin)
    assert "user.internal" in repr(error)


# The fallback.


async def test_an_unmounted_host_goes_to_the_fallback_as_it_was_asked_for() -> None:
    timeout = ClientTimeout(total=50, connect=40)
    fallback = Elsewhere()
    context = ssl.create_default_context()
    async with session_to(services("users.internal"), fallback=fallback, session_timeout=timeout) as session:
        with pytest.raises(aiohttp.ClientConnectionError) as caught:
            await session.get(
                "https://elsewhere.example:8443/a",
                ssl=context,
                server_hostname="name",
                proxy="http://proxy.example",
                headers={"X-A": "1"},
            )
        assert caught.value is fallback.refusal
        assert await text_of(session, "http://users.internal/") == "users.internal"
    ((req, traces, passed_timeout),) = fallback.asked
    assert (req.method, req.url, req.headers["X-A"]) == ("GET", URL("https://elsewhere.example:8443/a"), "1")
    assert (req.ssl, req.server_hostname, req.proxy) == (context, "name", URL("http://proxy.example"))
    assert passed_timeout == timeout
    assert traces == []


async def test_the_traces_of_a_session_reach_the_fallback() -> None:
    seen: list[str] = []

    async def on_create(session: aiohttp.ClientSession, context: object, params: object) -> None:
        seen.append("created")

    async def on_reuse(session: aiohttp.ClientSession, context: object, params: object) -> None:
        seen.append("reused")

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(on_create)
    trace.on_connection_reuseconn.append(on_reuse)
    async with (
        tcp_server() as tcp,
        session_to({}, fallback=aiohttp.TCPConnector(), session_trace_configs=[trace]) as session,
    ):
        await text_of(session, tcp.url)
        await text_of(session, tcp.url)
    assert seen == ["created", "reused"]
    assert tcp.accepted == 1


async def test_one_session_reaches_an_app_and_the_real_network() -> None:
    apps = services("users.internal")
    async with tcp_server() as tcp, session_to(apps, fallback=aiohttp.TCPConnector()) as session:
        for _ in range(3):
            assert await text_of(session, "http://users.internal/a") == "users.internal"
            assert await text_of(session, f"{tcp.url}/b") == "over TCP"
    assert tcp.request_lines == 3 * ["GET /b HTTP/1.1"]
    assert [scope["path"] for scope in apps["users.internal"].scopes] == 3 * ["/a"]


async def test_another_port_of_a_mounted_host_is_the_real_one() -> None:
    async with tcp_server() as tcp:
        apps = services(f"127.0.0.1:{tcp.port + 1 if tcp.port < 65535 else 1}")
        (local,) = apps
        async with session_to(apps, fallback=aiohttp.TCPConnector()) as session:
            assert await text_of(session, f"http://{local}") == local
            assert await text_of(session, tcp.url) == "over TCP"


class ToAnotherHost(aiohttp.ClientRequest):
    @property
    def host(self) -> str:
        return "b.internal"


class ToAnotherPort(aiohttp.ClientRequest):
    @property
    def port(self) -> int:
        return 8443


class Secure(aiohttp.ClientRequest):
    def is_ssl(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "expected", "target"),
    [
        (aiohttp.ClientRequest, "a.internal", ("a.internal", 80, False)),
        (ToAnotherHost, "b.internal", ("b.internal", 80, False)),
        (ToAnotherPort, "a.internal:8443", ("a.internal", 8443, False)),
        (Secure, "https://a.internal", ("a.internal", 80, True)),
    ],
)
async def test_a_subclass_of_client_request_decides_where_the_request_goes(
    kind: type[aiohttp.ClientRequest], expected: str, target: tuple[str, int, bool]
) -> None:
    apps = services("a.internal", "b.internal", "a.internal:8443", "https://a.internal")
    async with session_to(apps, session_request_class=kind) as session:
        with connector_of(session).record() as journal:
            assert await text_of(session, "http://a.internal/") == expected
    assert [(each.host, each.port, each.secure) for each in journal] == [target]


async def test_a_routing_connector_may_be_the_fallback_of_another() -> None:
    inner = ASGIRoutingConnector(services("users.internal", "orders.internal"), root_path="/inner", lifespan="off")
    mine = Service("mine")
    async with session_to({"users.internal": mine}, fallback=inner, root_path="/outer") as session:
        assert await text_of(session, "http://users.internal/") == "mine"
        assert await text_of(session, "http://orders.internal/") == "orders.internal"
        assert await text_of(session, "http://orders.internal/") == "orders.internal"
        with pytest.raises(UnmountedHostError, match=r"'orders\.internal'"):
            await session.get("http://payments.internal/")
    assert mine.scopes[0]["root_path"] == "/outer"
    assert inner.closed


async def test_the_schemes_are_those_of_the_connector_and_of_its_fallback() -> None:
    async with AsyncExitStack() as stack:
        own = aiohttp.BaseConnector.allowed_protocol_schema_set
        for fallback in [aiohttp.TCPConnector(), Elsewhere()]:
            connector = await stack.enter_async_context(ASGIRoutingConnector(fallback=fallback))
            assert connector.allowed_protocol_schema_set == own | fallback.allowed_protocol_schema_set
            nested = await stack.enter_async_context(ASGIRoutingConnector(fallback=connector, fallback_owner=False))
            assert nested.allowed_protocol_schema_set == connector.allowed_protocol_schema_set
        without = await stack.enter_async_context(ASGIRoutingConnector())
        assert without.allowed_protocol_schema_set == own


async def test_a_scheme_that_only_the_fallback_knows_goes_to_it() -> None:
    fallback = Elsewhere()
    async with session_to({}, fallback=fallback) as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get("gopher://elsewhere.example/")
    assert [req.url.scheme for req, _, _ in fallback.asked] == ["gopher"]


# Proxies.


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxies of this machine's environment must not affect the tests."""
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "WS_PROXY", "WSS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def proxy(no_proxies: None) -> AsyncIterator[TCPServer]:
    async with tcp_server() as tcp:
        yield tcp


ASKED_FOR = pytest.mark.parametrize("asked_for_by", ["request", "session", "environment"])


def asked_for(by: str, proxy: TCPServer, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """The proxy settings of the session and of the request."""
    url = f"http://me:secret@127.0.0.1:{proxy.port}"
    if by == "request":
        return {}, {"proxy": url, "proxy_headers": {"X-Proxy": "1"}}
    if by == "session":
        return {"session_proxy": url}, {}
    monkeypatch.setenv("HTTP_PROXY", url)
    monkeypatch.setenv("HTTPS_PROXY", url)
    monkeypatch.setenv("WS_PROXY", url)
    monkeypatch.setenv("WSS_PROXY", url)
    return {"session_trust_env": True}, {}


@ASKED_FOR
@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
async def test_a_proxy_never_applies_to_a_mounted_host(
    asked_for_by: str, scheme: str, proxy: TCPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_options, options = asked_for(asked_for_by, proxy, monkeypatch)
    apps = services("users.internal")
    async with session_to(apps, fallback=aiohttp.TCPConnector(), **session_options) as session:
        for _ in range(2):
            assert await text_of(session, f"{scheme}://users.internal/a?b", **options) == "users.internal"
    assert proxy.accepted == 0
    for scope in apps["users.internal"].scopes:
        assert (scope["raw_path"], scope["query_string"]) == (b"/a", b"b")
        names = {name for name, _ in scope["headers"]}
        assert names.isdisjoint({b"x-proxy", b"proxy-authorization", b"proxy-connection"})


@ASKED_FOR
async def test_a_proxy_applies_to_the_fallback(
    asked_for_by: str, proxy: TCPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_options, options = asked_for(asked_for_by, proxy, monkeypatch)
    async with session_to(services("users.internal"), fallback=aiohttp.TCPConnector(), **session_options) as session:
        assert await text_of(session, "http://elsewhere.example/a?b", **options) == "over TCP"
        proxy.response = b"HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n"
        with pytest.raises(aiohttp.ClientHttpProxyError) as caught:
            await session.get("https://elsewhere.example/a?b", **options)
        assert caught.value.status == 502
        assert await text_of(session, "http://users.internal/", **options) == "users.internal"
    assert proxy.request_lines == [
        "GET http://elsewhere.example/a?b HTTP/1.1",
        "CONNECT elsewhere.example:443 HTTP/1.1",
    ]
    for head in proxy.heads:
        assert "Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in head
    assert ("X-Proxy: 1\r\n" in proxy.heads[1]) == (asked_for_by == "request")


async def test_a_proxy_is_no_way_around_a_missing_fallback(proxy: TCPServer) -> None:
    async with session_to({}) as session:
        with pytest.raises(UnmountedHostError):
            await session.get("http://elsewhere.example/", proxy=proxy.url)
    assert proxy.accepted == 0


async def test_a_proxy_applies_again_where_a_redirect_leaves_the_mounted_hosts(proxy: TCPServer) -> None:
    apps = {"users.internal": Service("", (b"location", b"http://elsewhere.example/b"), status=302)}
    async with session_to(apps, fallback=aiohttp.TCPConnector()) as session:
        assert await text_of(session, "http://users.internal/a", proxy=proxy.url) == "over TCP"
    assert proxy.request_lines == ["GET http://elsewhere.example/b HTTP/1.1"]


@asynccontextmanager
async def a_request_that_waits_for_the_pool(
    connector: ASGIRoutingConnector, release: asyncio.Event, **options: Any
) -> AsyncIterator[asyncio.Task[str]]:
    """A second request waits behind one that has the only connection until *release*."""
    queued = asyncio.Event()

    async def on_queued(session: aiohttp.ClientSession, context: object, params: object) -> None:
        queued.set()

    trace = aiohttp.TraceConfig()
    trace.on_connection_queued_start.append(on_queued)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session:
        first = asyncio.create_task(text_of(session, "http://users.internal/first"))
        second = asyncio.create_task(text_of(session, "http://users.internal/second", **options))
        await queued.wait()
        yield second
        release.set()
        assert await first == "old"


async def test_a_request_whose_host_is_unmounted_while_it_waits_keeps_its_proxy(proxy: TCPServer) -> None:
    release = asyncio.Event()

    async def old(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await Service("old")(scope, receive, send)

    connector = ASGIRoutingConnector({"users.internal": old}, fallback=aiohttp.TCPConnector(), limit=1, lifespan="off")
    async with a_request_that_waits_for_the_pool(connector, release, proxy=proxy.url) as second:
        unmounting = asyncio.create_task(connector.unmount("users.internal"))
        await asyncio.sleep(0)
        assert "users.internal" not in connector.mounts
        release.set()
        assert await second == "over TCP"
        await unmounting
    assert proxy.request_lines == ["GET http://users.internal/second HTTP/1.1"]


# From one service to another.


async def test_redirects_lead_from_one_service_to_another_and_cookies_stay_apart() -> None:
    users = Service("users", (b"location", b"http://orders.internal/b"), (b"set-cookie", b"u=1"), status=302)
    orders = Service("orders", (b"location", b"https://pay.internal:8443/c"), (b"set-cookie", b"o=1"), status=307)
    pay = Service("pay", (b"set-cookie", b"p=1"))
    apps = {"users.internal": users, "orders.internal": orders, "https://pay.internal:8443": pay}
    async with session_to(apps) as session:
        for _ in range(2):
            async with session.get("http://users.internal/a") as resp:
                assert await resp.text() == "pay"
                assert [str(past.url) for past in resp.history] == [
                    "http://users.internal/a",
                    "http://orders.internal/b",
                ]
                assert str(resp.url) == "https://pay.internal:8443/c"
    assert users.cookies() == [b"", b"u=1"]
    assert orders.cookies() == [b"", b"o=1"]
    assert pay.cookies() == [b"", b"p=1"]


async def test_credentials_stay_behind_when_a_redirect_leads_to_another_service() -> None:
    users = Service("users", (b"location", b"http://orders.internal/b"), status=302)
    orders = Service("orders")
    async with session_to({"users.internal": users, "orders.internal": orders}) as session:
        await text_of(session, "http://users.internal/a", headers={"Authorization": "Bearer secret"})
    assert (b"authorization", b"Bearer secret") in users.scopes[0]["headers"]
    assert b"authorization" not in dict(orders.scopes[0]["headers"])


async def test_redirects_lead_to_the_real_network_and_back() -> None:
    async with tcp_server() as tcp:
        users = Service("", (b"location", f"{tcp.url}/b".encode()), status=302)
        orders = Service("orders")
        tcp.response = b"HTTP/1.1 302 Found\r\nlocation: http://orders.internal/c\r\ncontent-length: 0\r\n\r\n"
        apps = {"users.internal": users, "orders.internal": orders}
        async with session_to(apps, fallback=aiohttp.TCPConnector()) as session:
            assert await text_of(session, "http://users.internal/a") == "orders"
    assert tcp.request_lines == ["GET /b HTTP/1.1"]
    assert orders.scopes[0]["path"] == "/c"


async def test_a_redirect_to_an_unmounted_host_is_an_unmounted_host() -> None:
    apps = {"users.internal": Service("", (b"location", b"http://elsewhere.example/b"), status=302)}
    async with session_to(apps) as session:
        with pytest.raises(UnmountedHostError, match=r"elsewhere\.example"):
            await session.get("http://users.internal/a")


async def test_150_requests_at_a_time_each_make_their_service_call_another() -> None:
    """All requests, and all calls that they make, are in flight at the same time."""
    number_of_requests = 150

    class Crowd:
        def __init__(self) -> None:
            self.inside = 0
            self.complete = asyncio.Event()

        async def join(self) -> None:
            self.inside += 1
            if self.inside == number_of_requests:
                self.complete.set()
            await self.complete.wait()

    in_orders, in_users = Crowd(), Crowd()

    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        await in_orders.join()
        user = await text_of(session, f"http://users.internal{scope['path']}")
        await Service(f"order of {user}")(scope, receive, send)

    async def users(scope: Scope, receive: Receive, send: Send) -> None:
        await in_users.join()
        await Service(f"user {scope['path'][1:]}")(scope, receive, send)

    async with session_to({"orders.internal": orders, "users.internal": users}) as session:
        texts = await asyncio.gather(
            *(text_of(session, f"http://orders.internal/{number}") for number in range(number_of_requests))
        )
    assert texts == [f"order of user {number}" for number in range(number_of_requests)]


async def test_services_call_each_other_to_any_depth() -> None:
    """Deeper than the interpreter's recursion limit."""
    depth = 1100

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        left = int(scope["path"][1:])
        name = await text_of(session, f"http://{left % 2}.internal/{left - 1}") if left else "bottom"
        await Service(name)(scope, receive, send)

    async with session_to({"0.internal": app, "1.internal": app}) as session:
        assert await text_of(session, f"http://0.internal/{depth}") == "bottom"


# Arguments that are accepted, and mean nothing for a mounted host.


class RefusingContext(ssl.SSLContext):
    """A TLS context that cannot encrypt anything."""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError("TLS was attempted")

    def wrap_bio(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError("TLS was attempted")


def client_certificate(directory: Path) -> ssl.SSLContext:
    file = directory / "client.pem"
    file.write_text(CLIENT_CERTIFICATE)
    context = ssl.create_default_context()
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize(
    "options",
    [
        lambda directory: {"ssl": True},
        lambda directory: {"ssl": False},
        lambda directory: {"ssl": RefusingContext(ssl.PROTOCOL_TLS_CLIENT)},
        lambda directory: {"ssl": client_certificate(directory)},
        lambda directory: {"ssl": aiohttp.Fingerprint(bytes(32))},
        lambda directory: {"server_hostname": "another.example"},
    ],
    ids=["ssl=True", "ssl=False", "a context", "a client certificate", "a fingerprint", "server_hostname"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_what_is_said_of_tls_means_nothing_to_a_mounted_host(
    options: Callable[[Path], dict[str, Any]], scheme: str, tmp_path: Path
) -> None:
    users = Service("users")
    async with session_to({"users.internal": users}) as session:
        request = options(tmp_path)
        for _ in range(2):
            async with session.get(f"{scheme}://users.internal/", **request) as resp:
                assert await resp.text() == "users"
    assert [scope["scheme"] for scope in users.scopes] == [scheme, scheme]
    assert all(scope["extensions"].get("tls") is None for scope in users.scopes if "extensions" in scope)


@pytest.mark.parametrize(
    ("url", "client", "peername"),
    [
        ("http://users.internal/", ("127.0.0.1", 123), ("users.internal", 80)),
        ("https://users.internal/", ("10.0.0.1", 1), ("users.internal", 443)),
        ("http://[::1]:8080/", ("::2", 5), ("::1", 8080)),
        ("http://users.internal/", None, ("users.internal", 80)),
    ],
)
async def test_a_transport_knows_both_of_its_ends(
    url: str, client: tuple[str, int] | None, peername: tuple[str, int]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await read.wait()
        await send({"type": "http.response.body"})

    read = asyncio.Event()
    async with session_to({"*": app}, client=client) as session, session.get(url) as resp:
        assert resp.connection is not None
        transport = resp.connection.transport
        assert transport is not None
        assert transport.get_extra_info("peername") == peername
        assert transport.get_extra_info("sockname") == client
        for name in ["socket", "ssl_object", "sslcontext", "peercert", "no such thing"]:
            assert transport.get_extra_info(name) is None
            assert transport.get_extra_info(name, "default") == "default"
        read.set()
        assert await resp.read() == b"a"


# The scope: the settings of a mount, and the defaults of the connector.


@pytest.mark.parametrize(
    ("settings", "mount_settings", "expected"),
    [
        ({}, {}, (("127.0.0.1", 123), "")),
        ({"client": ("10.0.0.1", 1), "root_path": "/v1"}, {}, (("10.0.0.1", 1), "/v1")),
        ({"client": None}, {}, (None, "")),
        ({"client": ("10.0.0.1", 1)}, {"client": None}, (None, "")),
        ({"client": None}, {"client": ("10.0.0.2", 2)}, (("10.0.0.2", 2), "")),
        ({"root_path": "/v1"}, {"root_path": ""}, (("127.0.0.1", 123), "")),
        ({}, {"root_path": "/v2", "client": ("::1", 2)}, (("::1", 2), "/v2")),
    ],
)
async def test_client_and_root_path_are_the_mounts_and_else_the_connectors(
    settings: Mapping[str, Any], mount_settings: Mapping[str, Any], expected: tuple[object, str]
) -> None:
    app = Service("app")
    async with session_to({"app.internal": Mount(app, **mount_settings)}, **settings) as session:
        await text_of(session, "/a")
    (scope,) = app.scopes
    assert (scope["client"], scope["root_path"]) == expected
    assert (scope["path"], scope["raw_path"]) == ("/a", b"/a")


async def test_one_app_may_be_mounted_with_different_settings() -> None:
    app = Service("app")
    apps: dict[str, Service | Mount] = {"a.internal": Mount(app, root_path="/a"), "c.internal": app}
    apps["b.internal"] = Mount(app, root_path="/b")
    async with session_to(apps, root_path="/c") as session:
        for host in ["a", "b", "c", "a"]:
            await text_of(session, f"http://{host}.internal/")
    assert [scope["root_path"] for scope in app.scopes] == ["/a", "/b", "/c", "/a"]


@pytest.mark.parametrize(
    ("setting", "override", "raised"),
    [(True, None, True), (False, None, False), (True, False, False), (False, True, True)],
)
async def test_a_mount_may_override_whether_exceptions_are_raised(
    setting: bool, override: bool | None, raised: bool
) -> None:
    failure = ValueError("from the app")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise failure

    mount = Mount(app) if override is None else Mount(app, raise_app_exceptions=override)
    async with session_to({"app.internal": mount}, raise_app_exceptions=setting) as session:
        if raised:
            with pytest.raises(ValueError, match="from the app") as caught:
                await session.get("/")
            assert caught.value is failure
        else:
            async with session.get("/") as resp:
                assert resp.status == 500


# One app for every host.


async def test_an_application_connector_answers_every_host() -> None:
    app = Service("app")
    urls = ["http://a.internal/", "https://example.com:8443/", "ws://localhost/", "http://[::1]/", "http://1.2.3.4:5/"]
    async with aiohttp.ClientSession(connector=ASGIApplicationConnector(app, lifespan="off")) as session:
        for url in urls:
            assert await text_of(session, url) == "app"
    assert [scope["server"] for scope in app.scopes] == [(URL(url).host, URL(url).port) for url in urls]
    assert {(scope["client"], scope["root_path"]) for scope in app.scopes} == {(("127.0.0.1", 123), "")}


async def test_an_application_connector_takes_the_root_path_by_position() -> None:
    app = Service("app")
    connector = ASGIApplicationConnector(app, "/v1", client=None, lifespan="off")
    async with aiohttp.ClientSession(connector=connector) as session:
        await text_of(session, "http://app.internal/a")
    (scope,) = app.scopes
    assert (scope["root_path"], scope["path"], scope["client"]) == ("/v1", "/a", None)


async def test_an_application_connector_is_a_routing_connector_with_one_mount() -> None:
    app = Service("app")
    mount = Mount(app, root_path="/v2")
    async with (
        ASGIApplicationConnector(app, lifespan="off") as one,
        ASGIApplicationConnector(mount, "/v1", lifespan="off") as other,
    ):
        assert isinstance(one, ASGIRoutingConnector)
        assert isinstance(one, aiohttp.BaseConnector)
        assert dict(one.mounts) == {"*": Mount(app)}
        assert other.mounts["*"] is mount
        async with aiohttp.ClientSession(connector=other, connector_owner=False) as session:
            await text_of(session, "http://app.internal/")
            async with other.mounted("fake.internal", Service("fake")):
                assert await text_of(session, "http://fake.internal/") == "fake"
            assert await text_of(session, "http://fake.internal/") == "app"
    assert [scope["root_path"] for scope in app.scopes] == ["/v2", "/v2"]


async def test_an_application_connector_has_no_fallback() -> None:
    make: Callable[..., object] = ASGIApplicationConnector
    with pytest.raises(TypeError):
        make(Service("app"), fallback=None)
    with pytest.raises(TypeError):
        make(Service("app"), fallback_owner=False)


# The log.


def records_of(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "asgi_connector"]


async def test_where_each_request_went_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    users, fallback = Service("users"), aiohttp.TCPConnector()
    caplog.set_level(logging.DEBUG, "asgi_connector")
    async with tcp_server() as tcp, session_to({"*.internal": users}, fallback=fallback) as session:
        await text_of(session, "http://users.internal/a%20b?c=%25d")
        await text_of(session, "http://users.internal/again")
        async with session.post(f"{tcp.url}/b") as resp:
            await resp.read()
    (first, second, third) = records_of(caplog)
    assert {first[0], second[0], third[0]} == {logging.DEBUG}
    assert "GET http://users.internal/a%20b?c=%25d" in first[1]
    assert "by the app at '*.internal'" in first[1]
    assert "GET http://users.internal/again" in second[1]
    assert f"POST {tcp.url}/b" in third[1]
    assert "to the fallback, a TCPConnector" in third[1]


async def test_the_log_names_the_app_that_answers_though_another_was_mounted_when_the_request_was_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = asyncio.Event()

    async def old(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await Service("old")(scope, receive, send)

    new = Service("new")
    connector = ASGIRoutingConnector({"users.internal": old}, limit=1, lifespan="off")
    caplog.set_level(logging.DEBUG, "asgi_connector")
    async with a_request_that_waits_for_the_pool(connector, release) as second:
        connector.mount("USERS.internal", new)  # the same pattern in another spelling
        release.set()
        assert await second == "new"
    messages = [message for _, message in records_of(caplog)]
    assert ["by the app at 'USERS.internal'" in message for message in messages if "/second" in message] == [True]


async def test_nothing_of_what_is_answered_is_logged_above_debug_and_nothing_is_printed(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "asgi_connector")
    async with session_to(services("users.internal")) as session:
        await text_of(session, "http://users.internal/")
    assert records_of(caplog) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("scheme", ["http", "wss"])
async def test_a_refused_host_is_a_warning_in_the_log_that_names_the_nearest_mount(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The calling service may swallow the exception. The record has no query, which may contain a secret."""

    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            await session.get(f"{scheme}://user.internal/users/1?token=secret")
        await Service("orders")(scope, receive, send)

    async with session_to({**services("users.internal"), "orders.internal": orders}) as session:
        assert await text_of(session, "http://orders.internal/") == "orders"
    mounted = "Mounted: 'users.internal', 'orders.internal'."
    refused = f"No app is mounted for {scheme}://user.internal, and there is no fallback."
    assert records_of(caplog) == [
        (
            logging.WARNING,
            f"GET {scheme}://user.internal/users/1 is refused: {refused} Did you mean 'users.internal'? {mounted}",
        )
    ]


@pytest.mark.parametrize(
    "origin",
    [
        "http://users.internal",
        "https://users.internal",
        "ws://users.internal",
        "wss://users.internal",
        "http://users.internal:443",
        "https://users.internal:80",
        "ws://users.internal:8080",
        "http://[2001:db8::1]",
        "https://[2001:db8::1]:8443",
        "http://127.1",
    ],
)
async def test_a_url_in_a_message_is_as_the_client_wrote_it(origin: str, caplog: pytest.LogCaptureFixture) -> None:
    """In the record of a refused request, of a request whose app fails, and in the repr of its connection."""

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        connections.append(repr(next(iter(connector._services.in_flight.connections))))
        raise ValueError

    connections: list[str] = []
    connector = ASGIRoutingConnector({"*": failing}, raise_app_exceptions=False, lifespan="off")
    async with ClientSession(connector=connector) as session:
        if origin.startswith("ws"):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(f"{origin}/a?b=c")
        else:
            async with session.get(f"{origin}/a?b=c") as response:
                assert response.status == 500
        await connector.unmount("*")
        with pytest.raises(UnmountedHostError, match=f"No app is mounted for {re.escape(origin)}, and"):
            await session.get(f"{origin}/a?b=c")
    failed, refused = [message for level, message in records_of(caplog) if level >= logging.WARNING]
    assert failed == f"Unhandled exception in an app: GET {origin}/a?b=c"
    assert refused.startswith(f"GET {origin}/a is refused: No app is mounted for {origin}, and there is no fallback.")
    assert f" {origin.replace('ws', 'http', 1)}, expects" in connections[0]


SPELLINGS_OF_LOOPBACK = [
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "0177.1",
    "2130706433",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
]


@pytest.mark.parametrize("mounted", SPELLINGS_OF_LOOPBACK)
async def test_a_mounted_address_answers_in_each_of_its_spellings(mounted: str) -> None:
    """Also if the spelling is a criterion of a recording or of a fault."""
    async with session_to({mounted: Service("local")}) as session:
        connector = cast(ASGIRoutingConnector, session.connector)
        for asked in SPELLINGS_OF_LOOPBACK:
            with connector.record() as journal:
                assert await text_of(session, f"http://{asked}:5000/") == "local"
            for selected in SPELLINGS_OF_LOOPBACK:
                journal.assert_called(f"{selected}:5000", times=1)
            with connector.inject(asked, faults.Respond(418)):
                async with session.get(f"http://{mounted}/") as response:
                    assert response.status == 418
        for other in ["127.0.0.2", "127.0.0.256", "127.0.0.1.internal", "[::1]", "[::127.0.0.1]"]:
            with pytest.raises(UnmountedHostError):
                await session.get(f"http://{other}/")
        await connector.unmount(SPELLINGS_OF_LOOPBACK[-1])
        assert len(connector.mounts) == 0


@pytest.mark.parametrize("pattern", ["http://users.internal/", "users.internal:80/"])
async def test_the_url_of_a_host_is_a_pattern(pattern: str) -> None:
    async with session_to({pattern: Service("users")}) as session:
        assert await text_of(session, pattern.replace("users.internal:80", "http://users.internal")) == "users"
        assert list(cast(ASGIRoutingConnector, session.connector).mounts) == [pattern]


def test_nothing_is_configured_of_the_log() -> None:
    logger = logging.getLogger("asgi_connector")
    assert logger.handlers == []
    assert logger.filters == []
    assert logger.propagate
    below = [name for name in logging.root.manager.loggerDict if name.startswith("asgi_connector.")]
    assert below == []
