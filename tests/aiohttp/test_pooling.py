"""The pool is aiohttp's own. It behaves the same for a mounted app as for a `TCPConnector` and a real server."""

import asyncio
import gc
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import (
    BaseConnector,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    HttpVersion10,
    ServerDisconnectedError,
    TCPConnector,
    TraceConfig,
    web,
)
from aiohttp.client_proto import ResponseHandler

from asgi_connector import ASGIApplicationConnector, ASGIRoutingConnector, UnmountedHostError
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import AIOHTTP, session_to
from tests.support.raw import request_for
from tests.support.service import PIECE, Service
from tests.support.sessions import fetch
from tests.support.waiting import settle


@dataclass
class World:
    """A service, and a connector that reaches it: ours, or aiohttp's own."""

    service: Service
    one: str
    """The URL of the service, without a path."""
    other: str
    """Another URL of the service."""
    connector_class: Callable[..., BaseConnector]
    events: list[str] = field(default_factory=list)
    """The events of connections in aiohttp's tracing: made, used again, or waited for."""

    @asynccontextmanager
    async def session(self, *, traced: bool = True, **settings: Any) -> AsyncIterator[ClientSession]:
        """A session. Without a trace, a connector of ours takes an idle connection in another way."""
        trace = TraceConfig()
        for name in ("create_start", "reuseconn", "queued_start"):
            getattr(trace, f"on_connection_{name}").append(self._note(name))
        connector = self.connector_class(**settings)
        async with ClientSession(self.one, connector=connector, trace_configs=[trace] if traced else None) as session:
            try:
                yield session
            finally:
                self.service.may_answer.set()

    def _note(self, name: str) -> Any:
        async def note(*_: object) -> None:
            self.events.append(name.removesuffix("_start"))

        return note


@asynccontextmanager
async def our_world() -> AsyncIterator[World]:
    service = Service()

    def connector(**settings: Any) -> BaseConnector:
        apps = {"one.internal": service.app, "other.internal": service.app}
        return ASGIRoutingConnector(apps, lifespan="off", **settings)

    yield World(service, "http://one.internal", "http://other.internal", connector)


@asynccontextmanager
async def aiohttps_world() -> AsyncIterator[World]:
    service = Service()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    for _ in range(2):
        await web.TCPSite(runner, "127.0.0.1", 0).start()
    one, other = (f"http://127.0.0.1:{address[1]}" for address in runner.addresses)
    try:
        yield World(service, one, other, TCPConnector)
    finally:
        await runner.cleanup()
        # The tasks of connections that were lost at the end of the test finish one turn later.
        while left := [task for task in asyncio.all_tasks() if "RequestHandler.start" in repr(task)]:
            await asyncio.wait(left)


@pytest_asyncio.fixture(params=[our_world, aiohttps_world], ids=["ours", "aiohttps"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with request.param() as world:
        yield world


def pool_of(session: ClientSession) -> BaseConnector:
    assert session.connector is not None
    return session.connector


def pooled(session: ClientSession) -> list[ResponseHandler]:
    return [protocol for conns in pool_of(session)._conns.values() for protocol, _ in conns]


def has_connection(response: aiohttp.ClientResponse) -> bool:
    return response.connection is not None


# One connection after another.


async def test_requests_one_after_another_use_one_connection(world: World) -> None:
    async with world.session() as session:
        for _ in range(5):
            assert await fetch(session) == b"done"
            assert len(pooled(session)) == 1
            assert not pool_of(session)._acquired
        assert world.events == ["create"] + ["reuseconn"] * 4


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
async def test_every_method_leaves_its_connection_for_the_next(world: World, method: str) -> None:
    async with world.session() as session:
        for _ in range(2):
            async with session.request(method, "/", data=b"body" if method == "POST" else None) as response:
                await response.read()
        assert world.events == ["create", "reuseconn"]


async def test_a_streamed_upload_leaves_its_connection_for_the_next(world: World) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield PIECE

    async with world.session() as session:
        for _ in range(2):
            async with session.post("/", data=pieces()) as response:
                assert await response.read() == b"done"
        assert world.events == ["create", "reuseconn"]


async def test_requests_at_the_same_time_have_a_connection_each(world: World) -> None:
    async with world.session() as session:
        requests = [asyncio.create_task(fetch(session, "/held")) for _ in range(10)]
        for _ in range(10):
            await world.service.held.get()
        assert len(pool_of(session)._acquired) == 10
        assert pooled(session) == []
        world.service.may_answer.set()
        await asyncio.gather(*requests)
        assert len(set(map(id, pooled(session)))) == 10
        await asyncio.gather(*(fetch(session) for _ in range(10)))
        assert Counter(world.events) == {"create": 10, "reuseconn": 10}


async def test_each_host_and_port_has_its_own_connections(world: World) -> None:
    async with world.session() as session:
        for _ in range(2):
            for origin in (world.one, world.other):
                await fetch(session, f"{origin}/")
        assert world.events == ["create", "create", "reuseconn", "reuseconn"]


async def test_the_connection_that_was_given_back_first_is_used_first(world: World) -> None:
    async with world.session() as session:
        await asyncio.gather(*(fetch(session) for _ in range(3)))
        first, *others = pooled(session)
        async with session.get("/") as response:
            await response.read()
        assert pooled(session) == [*others, first]


async def test_an_application_connector_pools_as_well() -> None:
    service = Service()
    connector = ASGIApplicationConnector(service.app, lifespan="off")
    async with ClientSession(connector=connector) as session:
        for _ in range(3):
            await fetch(session, "http://any.test/")
            await fetch(session, "http://other.test/")
        assert sorted(key.host for key in connector._conns) == ["any.test", "other.test"]
        assert len(pooled(session)) == 2


# force_close, limit, limit_per_host, keepalive_timeout.


async def test_force_close_gives_every_request_a_connection_of_its_own(world: World) -> None:
    async with world.session(force_close=True) as session:
        for _ in range(3):
            assert await fetch(session) == b"done"
            assert pooled(session) == []
        assert world.events == ["create"] * 3
        assert pool_of(session).force_close


async def test_force_close_and_keepalive_timeout_exclude_each_other(world: World) -> None:
    with pytest.raises(ValueError, match="keepalive_timeout cannot be set if force_close is True"):
        world.connector_class(force_close=True, keepalive_timeout=1)


@pytest.mark.parametrize("setting", ["limit", "limit_per_host"])
async def test_no_more_connections_than_the_limit_are_in_use(world: World, setting: str) -> None:
    settings: dict[str, Any] = {setting: 2}
    async with world.session(**settings) as session:
        assert getattr(pool_of(session), setting) == 2
        requests = [asyncio.create_task(fetch(session, "/held")) for _ in range(6)]
        for _ in range(2):
            await world.service.held.get()
        await settle()
        assert world.service.arrived == 2
        assert len(pool_of(session)._acquired) == 2
        assert Counter(world.events) == {"create": 2, "queued": 4}
        world.service.may_answer.set()
        assert await asyncio.gather(*requests) == [b"done"] * 6
        assert world.service.most == 2
        assert Counter(world.events) == {"create": 2, "queued": 4, "reuseconn": 4}
        assert len(pooled(session)) == 2


async def test_a_limit_is_for_all_hosts_and_a_limit_per_host_for_each(world: World) -> None:
    async with world.session(limit=3, limit_per_host=2) as session:
        requests = [
            asyncio.create_task(fetch(session, f"{origin}/held")) for origin in (world.one, world.other) for _ in "1234"
        ]
        for _ in range(3):
            await world.service.held.get()
        await settle()
        assert Counter(world.events) == {"create": 3, "queued": 5}
        assert sorted(map(len, pool_of(session)._acquired_per_host.values())) == [1, 2]
        world.service.may_answer.set()
        assert await asyncio.gather(*requests) == [b"done"] * 8
        assert world.service.most == 3


async def test_who_waits_for_a_free_connection_runs_into_the_connect_timeout(world: World) -> None:
    async with world.session(limit=1) as session:
        request = asyncio.create_task(fetch(session, "/held"))
        await world.service.held.get()
        with pytest.raises(ConnectionTimeoutError):
            await fetch(session, "/", timeout=ClientTimeout(connect=0.01))
        assert not pool_of(session)._waiters
        world.service.may_answer.set()
        assert await request == b"done"
        assert await fetch(session) == b"done"


async def test_a_failed_request_makes_room_for_the_next(world: World) -> None:
    async with world.session(limit=1) as session:
        request = asyncio.create_task(fetch(session, "/held"))
        await world.service.held.get()
        waiting = asyncio.create_task(fetch(session))
        await settle()
        request.cancel()
        assert await waiting == b"done"
        with pytest.raises(asyncio.CancelledError):
            await request


async def test_there_is_no_limit_by_default() -> None:
    """Services call each other. With a limit, enough calls at the same time would wait for each other forever."""
    service = Service()
    async with session_to(service.app) as session:
        assert (pool_of(session).limit, pool_of(session).limit_per_host) == (0, 0)
        requests = [asyncio.create_task(fetch(session, "/held")) for _ in range(300)]
        for _ in requests:
            await service.held.get()
        assert service.most == 300
        service.may_answer.set()
        assert await asyncio.gather(*requests) == [b"done"] * 300


async def test_an_idle_connection_is_closed_after_its_keepalive_timeout(world: World) -> None:
    async with world.session(keepalive_timeout=0.01) as session:
        await fetch(session)
        [protocol] = pooled(session)
        closed = protocol.closed
        assert closed is not None
        await closed  # by the timer: no request asks for a connection
        assert not protocol.is_connected()
        assert pooled(session) == []
        await fetch(session)
        assert world.events == ["create", "create"]


async def test_a_connection_that_has_been_idle_for_too_long_is_not_used_again(world: World) -> None:
    async with world.session(keepalive_timeout=0) as session:
        for _ in range(3):
            assert await fetch(session) == b"done"
        assert world.events == ["create"] * 3


@pytest.mark.skipif(AIOHTTP < (3, 14, 0), reason="aiohttp 3.13 knows no pool without a keepalive_timeout")
async def test_idle_connections_are_kept_for_ever_where_there_is_no_keepalive_timeout() -> None:
    async with session_to(Service().app, keepalive_timeout=None) as session:
        loop = asyncio.get_running_loop()
        await fetch(session, timeout=ClientTimeout())
        assert len(pooled(session)) == 1
        if isinstance(loop, asyncio.BaseEventLoop):
            timers: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined] # private to asyncio
            assert [timer for timer in timers if not timer.cancelled()] == []


# The same without a trace.


async def test_without_a_trace_an_idle_connection_is_used_again(world: World) -> None:
    async with world.session(traced=False) as session:
        await fetch(session)
        before = pooled(session)
        await fetch(session)
        assert pooled(session) == before != []


async def test_without_a_trace_a_connection_that_was_idle_for_too_long_is_not_used(world: World) -> None:
    async with world.session(traced=False, keepalive_timeout=0) as session:
        await fetch(session)
        before = pooled(session)
        await fetch(session)
        assert [each for each in pooled(session) if each in before] == []


@pytest.mark.parametrize("setting", ["limit", "limit_per_host"])
async def test_without_a_trace_an_idle_connection_that_is_used_again_counts(world: World, setting: str) -> None:
    settings: dict[str, Any] = {setting: 1}
    async with world.session(traced=False, **settings) as session:
        await fetch(session)
        requests = [asyncio.create_task(fetch(session, "/held")) for _ in range(2)]
        await world.service.held.get()
        await settle()
        assert world.service.most == 1
        assert len(pool_of(session)._waiters) == 1
        world.service.may_answer.set()
        assert await asyncio.gather(*requests) == [b"done"] * 2
        assert world.service.most == 1


# What the pool contains.


def create_closed_event(session: ClientSession) -> asyncio.Event:
    """How gql's aiohttp transport waits for the connections of a session to close: it reads `_conns`."""
    ssl_context_lost = asyncio.Event()
    transports = 0
    all_is_lost = asyncio.Event()
    assert session.connector is not None
    for conn in session.connector._conns.values():
        for handler, _ in conn:
            proto = getattr(handler.transport, "_ssl_protocol", None)
            if proto is None:
                continue
            transports += 1
    if transports == 0:
        all_is_lost.set()
    assert not ssl_context_lost.is_set()
    return all_is_lost


async def test_the_pool_holds_what_aiohttps_does(world: World) -> None:
    async with world.session() as session:
        before = asyncio.get_running_loop().time()
        await asyncio.gather(*(fetch(session) for _ in range(2)))
        await fetch(session, f"{world.other}/")
        pool = pool_of(session)
        assert type(pool._conns).__name__ == "defaultdict"
        assert [type(key).__name__ for key in pool._conns] == ["ConnectionKey"] * 2
        assert sorted(len(conns) for conns in pool._conns.values()) == [1, 2]
        for key, conns in pool._conns.items():
            assert f"http://{key.host}:{key.port}".removesuffix(":80") in (world.one, world.other)
            assert not key.is_ssl
            assert isinstance(conns, deque)
            for protocol, since in conns:
                assert isinstance(protocol, ResponseHandler)
                assert protocol.transport is not None
                assert protocol.is_connected()
                assert not protocol.should_close
                assert not protocol.upgraded
                assert since >= before
        assert (pool._acquired, dict(pool._acquired_per_host), dict(pool._waiters)) == (set(), {}, {})


async def test_gql_can_walk_the_pool(world: World) -> None:
    async with world.session() as session:
        await fetch(session)
        closed = create_closed_event(session)
        await session.close()
        await asyncio.wait_for(closed.wait(), 5)


async def test_closing_the_session_closes_the_pooled_connections(world: World) -> None:
    async with world.session() as session:
        await asyncio.gather(*(fetch(session) for _ in range(3)))
        pool, protocols = pool_of(session), pooled(session)
        assert len(protocols) == 3
        await session.close()
        assert not any(protocol.is_connected() for protocol in protocols)
        assert not pool._conns


# Released, or not.


async def test_a_connection_is_given_back_when_the_body_has_been_read_and_not_before(world: World) -> None:
    async with world.session() as session:
        async with session.get("/endless") as response:
            assert len(await response.content.read(10)) == 10
            assert has_connection(response)
            assert pooled(session) == []
            assert len(pool_of(session)._acquired) == 1
            world.service.may_answer.set()
            assert (await response.read()).endswith(b"done")
            assert not has_connection(response)
            assert len(pooled(session)) == 1
        assert len(pooled(session)) == 1
        assert await fetch(session) == b"done"
        assert world.events == ["create", "reuseconn"]


async def leave_the_block(response: aiohttp.ClientResponse) -> None:
    await response.__aexit__(None, None, None)


async def release(response: aiohttp.ClientResponse) -> None:
    response.release()


async def close(response: aiohttp.ClientResponse) -> None:
    response.close()


@pytest.mark.parametrize("give_back", [leave_the_block, release, close])
async def test_a_connection_whose_body_has_not_been_read_to_its_end_is_not_given_back(
    world: World, give_back: Callable[[aiohttp.ClientResponse], Any]
) -> None:
    async with world.session() as session:
        response = await session.get("/endless")
        assert len(await response.content.read(10)) == 10
        assert response.connection is not None
        protocol = response.connection.protocol
        assert protocol is not None
        await give_back(response)
        world.service.may_answer.set()
        assert response.closed
        assert not protocol.is_connected()
        assert pooled(session) == []
        assert not pool_of(session)._acquired
        assert await fetch(session) == b"done"
        assert world.events == ["create", "create"]


@pytest.mark.parametrize("give_back", [leave_the_block, release, close])
async def test_giving_back_twice_is_harmless(world: World, give_back: Callable[[aiohttp.ClientResponse], Any]) -> None:
    async with world.session() as session:
        response = await session.get("/")
        await response.read()
        for _ in range(2):
            await give_back(response)
        assert len(pooled(session)) == 1
        assert await fetch(session) == b"done"
        assert world.events == ["create", "reuseconn"]


async def test_a_connection_that_the_other_end_has_closed_is_not_used_again(world: World) -> None:
    async with world.session() as session:
        for _ in range(2):
            assert await fetch(session, "/close") == b"done"
            assert pooled(session) == []
        assert world.events == ["create", "create"]


async def test_an_http_1_0_request_does_not_keep_its_connection() -> None:
    async with session_to(Service().app, session_version=HttpVersion10) as session:
        for _ in range(2):
            assert await fetch(session) == b"done"
            assert pooled(session) == []


async def test_a_request_that_asks_for_the_connection_to_be_closed_does_not_keep_it(world: World) -> None:
    async with world.session() as session:
        for _ in range(2):
            assert await fetch(session, headers={"Connection": "close"}) == b"done"
            assert pooled(session) == []
        assert world.events == ["create", "create"]


@pytest.mark.parametrize("read", [True, False], ids=["read", "not read"])
async def test_a_connection_is_not_used_again_after_an_answer_that_came_before_the_end_of_the_request(
    read: bool,
) -> None:
    """An early answer. The rest of the request's body must not disturb the next request."""
    service = Service()
    may_end = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield PIECE
        await may_end.wait()
        yield b"GET /smuggled HTTP/1.1\r\nHost: app.internal\r\n\r\n"

    made = TraceConfig()
    events: list[str] = []

    async def note(*_: object) -> None:
        events.append("create")

    made.on_connection_create_start.append(note)
    async with session_to(service.app, session_trace_configs=[made]) as session:
        async with session.post("/early", data=pieces()) as response:
            if read:
                assert await response.read() == b"done"
        may_end.set()
        assert pooled(session) == []
        assert await fetch(session) == b"done"
        assert service.arrived == 2
        assert events == ["create", "create"]


async def test_a_connection_is_not_used_again_after_a_timeout(world: World) -> None:
    async with world.session() as session:
        with pytest.raises(TimeoutError):
            await fetch(session, "/held", timeout=ClientTimeout(total=0.05))
        assert pooled(session) == []
        assert not pool_of(session)._acquired
        world.service.may_answer.set()
        assert await fetch(session) == b"done"
        assert world.events == ["create", "create"]


async def test_a_connection_that_is_given_back_unused_is_used_again(world: World) -> None:
    async with world.session() as session:
        request = await request_for(session)
        connection = await pool_of(session).connect(request, [], ClientTimeout())
        protocol = connection.protocol
        assert protocol is not None
        assert connection.transport is protocol.transport
        assert pool_of(session)._acquired == {protocol}
        connection.release()
        assert connection.closed
        assert pooled(session) == [protocol]
        assert await fetch(session) == b"done"
        assert world.events == ["create", "reuseconn"]
        assert pooled(session) == [protocol]


async def test_a_connection_that_is_closed_unused_is_not_used_again(world: World) -> None:
    async with world.session() as session:
        request = await request_for(session)
        connection = await pool_of(session).connect(request, [], ClientTimeout())
        connection.close()
        assert connection.closed
        assert pooled(session) == []
        assert not pool_of(session)._acquired
        assert await fetch(session) == b"done"
        assert world.events == ["create", "create"]


async def test_a_connection_that_its_app_cut_off_is_not_used_again() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/cut":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            raise LookupError("cut")
        await Service().app(scope, receive, send)

    async with session_to(app) as session:
        with pytest.raises(LookupError, match="cut"):
            await fetch(session, "/cut")
        assert pooled(session) == []
        assert await fetch(session) == b"done"


# Only for our connector.


def open_connections() -> int:
    gc.collect()
    ends = [found for found in gc.get_objects() if type(found) is MemoryTransport and not found.is_closing()]
    return len(ends) // 2


@pytest.mark.parametrize(
    "hook",
    [
        "on_connection_create_start",
        "on_connection_create_end",
        pytest.param(
            "on_connection_reuseconn",
            marks=pytest.mark.skipif(
                AIOHTTP < (3, 14, 4), reason="aiohttp before 3.14.4 takes such a connection for one in use"
            ),
        ),
        "on_request_start",
    ],
)
async def test_a_request_that_is_cancelled_while_a_trace_runs_leaves_no_connection_open(hook: str) -> None:
    """A connection that is neither in use nor in the pool would stay open until the connector is closed."""
    halted = asyncio.Event()
    halt = False

    async def wait(*_: object) -> None:
        if halt:
            halted.set()
            await asyncio.Event().wait()

    trace = TraceConfig()
    getattr(trace, hook).append(wait)
    async with session_to(Service().app, session_trace_configs=[trace], keepalive_timeout=3600) as session:
        for _ in range(3):
            halt = False
            if hook == "on_connection_reuseconn":
                await fetch(session)
            halt = True
            halted.clear()
            request = asyncio.create_task(fetch(session))
            await halted.wait()
            request.cancel()
            await asyncio.wait({request})
            await settle()
            assert not pool_of(session)._acquired
            assert open_connections() == len(pooled(session))


@pytest.mark.parametrize(
    "options",
    [
        {"ssl": False},
        {"ssl": ssl.create_default_context()},
        pytest.param(
            {"server_hostname": "name.test"},
            marks=pytest.mark.skipif(
                AIOHTTP < (3, 14, 2), reason="the key has the server_hostname since aiohttp 3.14.2"
            ),
        ),
        {"ssl": aiohttp.Fingerprint(b"0" * 32)},
    ],
    ids=["ssl=False", "ssl=context", "server_hostname", "fingerprint"],
)
async def test_what_is_said_of_tls_is_part_of_the_key_of_the_pool_as_in_aiohttp(options: dict[str, Any]) -> None:
    async with session_to(Service().app) as session:
        for _ in range(2):
            assert await fetch(session, "https://app.internal/", **options) == b"done"
            assert await fetch(session, "https://app.internal/") == b"done"
        assert len(pooled(session)) == 2
        assert len(pool_of(session)._conns) == 2
        assert all(key.is_ssl for key in pool_of(session)._conns)


async def test_ten_thousand_mounts_are_each_reached() -> None:
    reached: list[str] = []

    def make(name: str) -> Any:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            reached.append(name)
            await Service().app(scope, receive, send)

        return app

    apps = {f"tenant-{n}.internal": make(f"tenant-{n}") for n in range(10_000)}
    async with session_to(apps) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        assert len(connector.mounts) == 10_000
        for n in (0, 4_999, 9_999):
            await fetch(session, f"http://tenant-{n}.internal/")
        assert reached == ["tenant-0", "tenant-4999", "tenant-9999"]

        first, second, third = pooled(session)
        connector.mount("tenant-4999.internal", make("new"))
        assert [protocol.is_connected() for protocol in (first, second, third)] == [True, False, True]
        await fetch(session, "http://tenant-4999.internal/")
        await connector.unmount("tenant-0.internal")
        assert reached[3:] == ["new"]
        assert len(connector.mounts) == 9_999
        with pytest.raises(UnmountedHostError) as caught:
            await fetch(session, "http://tenant-0.internal/")
        assert "and 9994 more" in str(caught.value)
        assert len(str(caught.value)) < 500


async def test_a_thousand_idle_connections_are_all_used_again_and_all_closed() -> None:
    service = Service()
    async with session_to(service.app) as session:
        requests = [asyncio.create_task(fetch(session, "/held")) for _ in range(1000)]
        for _ in requests:
            await service.held.get()
        service.may_answer.set()
        await asyncio.gather(*requests)
        protocols = pooled(session)
        assert len(protocols) == 1000
        await asyncio.gather(*(fetch(session) for _ in range(1000)))
        assert set(map(id, pooled(session))) == set(map(id, protocols))
        await session.close()
        assert not any(protocol.is_connected() for protocol in protocols)


async def test_a_server_that_disconnects_while_a_connection_is_idle_does_not_fail_the_next_request() -> None:
    """The connections of a replaced app end immediately, so that none is returned from the pool."""
    service = Service()
    async with session_to(service.app) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        await fetch(session)
        connector.mount("app.internal", Service().app)
        try:
            async with session.post("/", data=b"not idempotent, so never sent twice") as response:
                assert await response.read() == b"done"
        except ServerDisconnectedError:
            pytest.fail("a connection that had ended was handed out")
