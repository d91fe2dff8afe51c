"""The fallback: any aiohttp connector, with its own pool, limits and schemes, closed together with ours or not."""

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import (
    BaseConnector,
    ClientConnectionError,
    ClientConnectorError,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    TCPConnector,
    UnixConnector,
    web,
)

from asgi_connector import ASGIRoutingConnector, UnmountedHostError
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import session_to
from tests.support.sessions import connector_of, fetch
from tests.support.waiting import settle


@dataclass
class Service:
    """What answers behind the fallback: a real server, or an app."""

    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    """The transports of a real server."""
    held: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    """The requests below ``/held`` that have arrived."""
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.requests.append(path)
        self.bodies.append(body)
        if path.startswith("/held"):
            self.held.put_nowait(path)
            await self.may_answer.wait()
        if path == "/to-app":
            return 302, {"Location": "http://app.internal/landed"}, b""
        return 200, {}, b"fallback " + path.encode()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.connections.add(request.transport)
        status, headers, body = await self.answer(request.path, await request.read())
        return web.Response(status=status, headers=headers, body=body)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        status, headers, body = await self.answer(scope["path"], body)
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Fallback:
    connector: BaseConnector
    origin: str
    service: Service


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[web.AppRunner]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()
        # The tasks of connections that were lost at the end of the test finish one turn later.
        while left := [task for task in asyncio.all_tasks() if "RequestHandler.start" in repr(task)]:
            await asyncio.wait(left)


@asynccontextmanager
async def make_fallback(kind: str, tmp_path: Path, **settings: Any) -> AsyncIterator[Fallback]:
    """A fallback of each *kind*, with a server or an app behind it."""
    service = Service()
    async with AsyncExitStack() as stack:
        connector: BaseConnector
        if kind == "routing":
            connector = ASGIRoutingConnector({"real.internal": service.app}, lifespan="off", **settings)
            origin = "http://real.internal"
        elif kind == "tcp":
            runner = await stack.enter_async_context(serving(service))
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            connector = TCPConnector(**settings)
            origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        else:
            runner = await stack.enter_async_context(serving(service))
            path = str(tmp_path / "socket")
            await web.UnixSite(runner, path).start()
            connector = UnixConnector(path, **settings)
            origin = "http://any.name"
        try:
            yield Fallback(connector, origin, service)
        finally:
            service.may_answer.set()
            await connector.close()


every_kind = pytest.mark.parametrize("kind", ["tcp", "unix", "routing"])
owned_or_not = pytest.mark.parametrize("owner", [True, False], ids=["owned", "not owned"])


class App:
    """The mounted app. It answers, or redirects to a given URL."""

    def __init__(self, redirect_to: str = "") -> None:
        self.redirect_to = redirect_to
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        if scope["path"] == "/away":
            headers = [(b"location", self.redirect_to.encode())]
            await send({"type": "http.response.start", "status": 307, "headers": headers})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"app " + scope["path"].encode()})


def is_closed(connector: BaseConnector) -> bool:
    return connector.closed


def pooled_hosts(connector: BaseConnector) -> list[str]:
    return sorted(key.host for key, conns in connector._conns.items() for _ in conns)


# Requests to hosts that are not mounted.


@every_kind
async def test_what_is_mounted_stays_here_and_what_is_not_goes_to_the_fallback(kind: str, tmp_path: Path) -> None:
    app = App()
    async with make_fallback(kind, tmp_path) as fallback, session_to(app, fallback=fallback.connector) as session:
        assert await fetch(session, "/here") == b"app /here"
        assert await fetch(session, f"{fallback.origin}/there") == b"fallback /there"
        assert app.paths == ["/here"]
        assert fallback.service.requests == ["/there"]


@every_kind
async def test_a_streamed_upload_goes_to_the_fallback_whole(kind: str, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for n in range(100):
            yield b"%02d" % n * 1000

    async with make_fallback(kind, tmp_path) as fallback, session_to({}, fallback=fallback.connector) as session:
        async with session.post(f"{fallback.origin}/upload", data=pieces()) as response:
            assert await response.read() == b"fallback /upload"
        assert fallback.service.bodies == [b"".join([piece async for piece in pieces()])]


@every_kind
async def test_redirects_lead_to_the_fallback_and_back(kind: str, tmp_path: Path) -> None:
    app = App()
    async with make_fallback(kind, tmp_path) as fallback, session_to(app, fallback=fallback.connector) as session:
        app.redirect_to = f"{fallback.origin}/to-app"
        async with session.get("/away") as response:
            assert await response.read() == b"app /landed"
            assert [str(hop.url) for hop in response.history] == ["http://app.internal/away", app.redirect_to]
        assert app.paths == ["/away", "/landed"]
        assert fallback.service.requests == ["/to-app"]


async def test_a_fallback_that_cannot_connect_raises_what_it_raises_alone(tmp_path: Path) -> None:
    """No server listens at the socket. The error is aiohttp's own, not the one for unmounted hosts."""
    nowhere = UnixConnector(str(tmp_path / "nobody"))
    async with session_to(App(), fallback=nowhere) as session:
        with pytest.raises(ClientConnectorError) as caught:
            await fetch(session, "http://real.internal/")
        assert not isinstance(caught.value, UnmountedHostError)
        assert isinstance(caught.value.os_error, FileNotFoundError)
        assert await fetch(session, "/") == b"app /"
        assert not nowhere._acquired


async def test_an_exception_of_an_app_in_the_fallback_is_the_same_object() -> None:
    problem = LookupError("deep down")

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise problem

    inner = ASGIRoutingConnector({"failing.internal": failing}, lifespan="off")
    outer = ASGIRoutingConnector({}, fallback=inner)
    async with session_to(App(), fallback=outer) as session:
        with pytest.raises(LookupError) as caught:
            await fetch(session, "http://failing.internal/")
        assert caught.value is problem


async def test_context_variables_reach_an_app_in_the_fallback() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        await App()(scope, receive, send)

    fallback = ASGIRoutingConnector({"*": app}, lifespan="off")
    async with session_to({}, fallback=fallback) as session:
        for value in ("one", "two"):
            variable.set(value)
            await fetch(session, "/")
    assert seen == ["one", "two"]


async def test_routing_connectors_may_be_chained_and_the_last_one_refuses() -> None:
    last = ASGIRoutingConnector({"c.internal": App()}, lifespan="off")
    middle = ASGIRoutingConnector({"b.internal": App()}, lifespan="off", fallback=last)
    async with session_to({"a.internal": App()}, fallback=middle) as session:
        for host in ("a", "b", "c"):
            assert await fetch(session, f"http://{host}.internal/{host}") == f"app /{host}".encode()
        assert [pooled_hosts(c) for c in (connector_of(session), middle, last)] == [
            ["a.internal"],
            ["b.internal"],
            ["c.internal"],
        ]
        with pytest.raises(UnmountedHostError, match=r"http://d\.internal, .*'c\.internal'"):
            await fetch(session, "http://d.internal/")
        await session.close()
        assert is_closed(middle)
        assert is_closed(last)


# Its own pool, limits and schemes.


@every_kind
async def test_the_fallback_keeps_its_own_pool(kind: str, tmp_path: Path) -> None:
    async with make_fallback(kind, tmp_path) as fallback, session_to(App(), fallback=fallback.connector) as session:
        for _ in range(3):
            await fetch(session, "/")
            await fetch(session, f"{fallback.origin}/")
        assert pooled_hosts(connector_of(session)) == ["app.internal"]
        assert len(pooled_hosts(fallback.connector)) == 1
        assert not fallback.connector._acquired
        if kind != "routing":
            assert len(fallback.service.connections) == 1


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_the_fallback_keeps_its_own_settings(kind: str, tmp_path: Path) -> None:
    async with (
        make_fallback(kind, tmp_path, force_close=True) as fallback,
        session_to(App(), fallback=fallback.connector) as session,
    ):
        for _ in range(3):
            await fetch(session, "/")
            await fetch(session, f"{fallback.origin}/")
        assert pooled_hosts(connector_of(session)) == ["app.internal"]
        assert pooled_hosts(fallback.connector) == []
        assert len(fallback.service.connections) == 3


@pytest.mark.parametrize("limits", [{"limit": 1}, {"limit_per_host": 1}], ids=["limit", "limit_per_host"])
@every_kind
async def test_the_limits_of_the_fallback_hold_there_and_not_here(
    kind: str, limits: dict[str, int], tmp_path: Path
) -> None:
    async with (
        make_fallback(kind, tmp_path, **limits) as fallback,
        session_to(App(), fallback=fallback.connector) as session,
    ):
        requests = [asyncio.create_task(fetch(session, f"{fallback.origin}/held/{n}")) for n in range(3)]
        assert await fallback.service.held.get() == "/held/0"
        with pytest.raises(ConnectionTimeoutError):
            await fetch(session, f"{fallback.origin}/", timeout=ClientTimeout(connect=0.01))
        assert await asyncio.gather(*(fetch(session, "/") for _ in range(5))) == [b"app /"] * 5
        assert fallback.service.requests == ["/held/0"]
        fallback.service.may_answer.set()
        assert await asyncio.gather(*requests) == [b"fallback /held/%d" % n for n in range(3)]
        assert fallback.service.requests == ["/held/0", "/held/1", "/held/2"]


@pytest.mark.parametrize("limits", [{"limit": 1}, {"limit_per_host": 1}], ids=["limit", "limit_per_host"])
@every_kind
async def test_our_limits_hold_here_and_not_for_the_fallback(kind: str, limits: dict[str, int], tmp_path: Path) -> None:
    here = Service()
    async with (
        make_fallback(kind, tmp_path) as fallback,
        session_to(here.app, fallback=fallback.connector, **limits) as session,
    ):
        requests = [asyncio.create_task(fetch(session, f"/held/{n}")) for n in range(2)]
        assert await here.held.get() == "/held/0"
        assert await asyncio.gather(*(fetch(session, f"{fallback.origin}/") for _ in range(3))) == [b"fallback /"] * 3
        assert here.requests == ["/held/0"]
        here.may_answer.set()
        assert await asyncio.gather(*requests) == [b"fallback /held/0", b"fallback /held/1"]


@every_kind
async def test_the_schemes_of_the_fallback_are_ours_too(kind: str, tmp_path: Path) -> None:
    async with (
        make_fallback(kind, tmp_path) as fallback,
        session_to(App(), fallback=fallback.connector) as session,
    ):
        own = {"http", "https", "ws", "wss", ""}
        added = {"tcp": {"tcp"}, "unix": {"unix"}, "routing": set()}[kind]
        assert connector_of(session).allowed_protocol_schema_set == own | added
        assert ASGIRoutingConnector({}).allowed_protocol_schema_set == own
        if added:
            url = fallback.origin.replace("http:", f"{kind}:")
            assert await fetch(session, f"{url}/by-its-own-scheme") == b"fallback /by-its-own-scheme"


# Closing.


@every_kind
@owned_or_not
async def test_the_fallback_is_closed_with_us_or_not_as_asked(kind: str, owner: bool, tmp_path: Path) -> None:
    async with make_fallback(kind, tmp_path) as fallback:
        async with session_to(App(), fallback=fallback.connector, fallback_owner=owner) as session:
            assert await fetch(session, f"{fallback.origin}/") == b"fallback /"
            await fetch(session, "/")
        assert is_closed(fallback.connector) == owner
        assert len(pooled_hosts(fallback.connector)) == (0 if owner else 1)
        if not owner:
            async with ClientSession(connector=fallback.connector, connector_owner=False) as alone:
                assert await fetch(alone, f"{fallback.origin}/alone") == b"fallback /alone"
            if kind != "routing":
                assert len(fallback.service.connections) == 1


@every_kind
async def test_the_fallback_is_closed_with_us_by_default(kind: str, tmp_path: Path) -> None:
    async with make_fallback(kind, tmp_path) as fallback:
        connector = ASGIRoutingConnector({}, fallback=fallback.connector)
        await connector.close()
        assert is_closed(fallback.connector)


@every_kind
@owned_or_not
async def test_a_finalisers_close_closes_the_fallback_or_not_as_asked(kind: str, owner: bool, tmp_path: Path) -> None:
    async with (
        make_fallback(kind, tmp_path) as fallback,
        session_to(App(), fallback=fallback.connector, fallback_owner=owner) as session,
    ):
        assert await fetch(session, f"{fallback.origin}/") == b"fallback /"
        waiters = connector_of(session)._close()
        assert is_closed(fallback.connector) == owner
        await asyncio.gather(*waiters, return_exceptions=True)


async def test_a_fallback_may_be_shared_and_closed_twice() -> None:
    fallback = ASGIRoutingConnector({"*": App()}, lifespan="off")
    one = ASGIRoutingConnector({}, fallback=fallback)
    two = ASGIRoutingConnector({}, fallback=fallback)
    await asyncio.gather(one.close(), two.close())
    assert is_closed(fallback)
    await fallback.close()


@every_kind
@owned_or_not
async def test_nothing_goes_to_a_fallback_that_stays_open_once_we_are_closing(
    kind: str, owner: bool, tmp_path: Path
) -> None:
    here = Service()
    async with (
        make_fallback(kind, tmp_path) as fallback,
        session_to(here.app, fallback=fallback.connector, fallback_owner=owner) as session,
    ):
        connector = connector_of(session)
        request = asyncio.create_task(fetch(session, "/held"))
        await here.held.get()
        closing = asyncio.ensure_future(connector.close())
        await settle()
        with pytest.raises(ClientConnectionError, match="Connector is closed"):
            await fetch(session, f"{fallback.origin}/")
        assert fallback.service.requests == []
        here.may_answer.set()
        await closing
        with pytest.raises(ClientConnectionError):
            await request


@every_kind
async def test_the_fallback_is_closed_last_so_that_an_app_can_finish_what_it_gets_from_there(
    kind: str, tmp_path: Path
) -> None:
    copied: list[bytes] = []

    async def copying(scope: Scope, receive: Receive, send: Send) -> None:
        copied.append(await fetch(session, f"{fallback.origin}/held"))

    async with (
        make_fallback(kind, tmp_path) as fallback,
        session_to(copying, fallback=fallback.connector, shutdown_timeout=10) as session,
    ):
        request = asyncio.create_task(fetch(session, "/"))
        await fallback.service.held.get()
        closing = asyncio.create_task(session.close())
        await settle()
        assert not is_closed(fallback.connector)
        fallback.service.may_answer.set()
        await closing
        assert copied == [b"fallback /held"]
        assert is_closed(fallback.connector)
        with pytest.raises(ClientConnectionError):
            await request


@every_kind
async def test_a_request_in_flight_in_the_fallback_ends_with_it(kind: str, tmp_path: Path) -> None:
    async with (
        make_fallback(kind, tmp_path) as fallback,
        session_to(App(), fallback=fallback.connector) as session,
    ):
        request = asyncio.create_task(session.post(f"{fallback.origin}/held"))
        await fallback.service.held.get()
        closing = asyncio.create_task(session.close())
        with pytest.raises(ClientConnectionError):
            await request
        fallback.service.may_answer.set()
        await closing
        assert is_closed(fallback.connector)


@every_kind
async def test_a_close_that_is_cancelled_closes_the_fallback_too(kind: str, tmp_path: Path) -> None:
    here = Service()
    async with (
        make_fallback(kind, tmp_path) as fallback,
        session_to(here.app, fallback=fallback.connector, shutdown_timeout=3600) as session,
    ):
        assert await fetch(session, f"{fallback.origin}/") == b"fallback /"
        request = asyncio.create_task(fetch(session, "/held"))
        await here.held.get()
        closing = asyncio.create_task(session.close())
        await settle()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert is_closed(fallback.connector)
        with pytest.raises(ClientConnectionError):
            await request


async def test_a_fallback_that_fails_to_close_leaves_us_closed() -> None:
    problem = OSError("cannot close")

    class Unclosable(TCPConnector):
        def close(self, *, abort_ssl: bool = False) -> Any:
            super()._close(abort_ssl=abort_ssl)
            raise problem

    connector = ASGIRoutingConnector({"app.internal": App()}, lifespan="off", fallback=Unclosable())
    session = ClientSession(connector=connector)
    assert await fetch(session, "http://app.internal/") == b"app /"
    with pytest.raises(OSError, match="cannot close") as caught:
        await session.close()
    assert caught.value is problem
    assert is_closed(connector)
    assert not connector._conns
    await session.close()
