"""Mounting, unmounting and mounting for a block, with requests in flight, and connections in use and in the pool."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientConnectionError, ClientSession, ClientTimeout, TraceConfig
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from asgi_connector import ASGIRoutingConnector, Mount, UnmountedHostError
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import LOOPS, session_to
from tests.support.effort import examples
from tests.support.raw import request_for
from tests.support.sessions import connector_of, fetch
from tests.support.waiting import settle, soon

SOON = 10.0
"""Seconds after which a test fails because something did not happen."""


class Named:
    """An app that answers with its name. Below ``/held`` it answers only when the test lets it."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.calls = 0
        self.started = asyncio.Event()
        self.may_answer = asyncio.Event()

    def __repr__(self) -> str:
        return f"<app {self.name.decode()}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        self.started.set()
        if scope["path"] == "/held":
            await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.name})


class Caller:
    """An app that does what its test says before it answers."""

    def __init__(self, what: Callable[[], Awaitable[object]]) -> None:
        self.what = what
        self.result: object = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.result = await self.what()
        except Exception as exc:
            self.result = exc
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"caller"})


async def held(session: ClientSession, app: Named, url: str = "/held") -> "asyncio.Task[bytes]":
    """A request that is in flight on *app*."""
    app.started.clear()
    task = asyncio.create_task(fetch(session, url))
    await app.started.wait()
    return task


@asynccontextmanager
async def serving(*apps: Named, **settings: Any) -> AsyncIterator[tuple[ClientSession, ASGIRoutingConnector]]:
    """Each app at ``<name>.internal``, and the first at ``app.internal``, which is the base URL of the session.

    A connection is kept forever, so that its timeout cannot hide a failure in these tests.
    """
    mounts = {f"{app.name.decode()}.internal": app for app in apps}
    mounts["app.internal"] = apps[0]
    async with session_to(mounts, keepalive_timeout=3600, **settings) as session:
        yield session, connector_of(session)


# mount() and unmount().


async def test_a_new_mount_is_reached_by_the_next_request() -> None:
    async with serving(Named("old")) as (session, connector):
        with pytest.raises(UnmountedHostError):
            await fetch(session, "http://new.internal/")
        connector.mount("new.internal", Named("new"))
        assert await fetch(session, "http://new.internal/") == b"new"
        assert await fetch(session) == b"old"


async def test_a_replaced_app_is_not_reached_any_more_not_even_on_a_pooled_connection() -> None:
    old, new = Named("old"), Named("new")
    async with serving(old) as (session, connector):
        assert await asyncio.gather(*(fetch(session) for _ in range(3))) == [b"old"] * 3
        assert sum(map(len, connector._conns.values())) == 3
        connector.mount("app.internal", new)
        assert [await fetch(session) for _ in range(4)] == [b"new"] * 4
        assert old.calls == 3


async def test_other_settings_for_the_same_app_are_a_new_mount() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["root_path"].encode()})

    async with session_to({"app.internal": app}) as session:
        assert await fetch(session) == b""
        connector_of(session).mount("app.internal", Mount(app, root_path="/v2"))
        assert await fetch(session) == b"/v2"


async def test_pooled_connections_of_other_mounts_are_left_alone() -> None:
    async with serving(Named("one"), Named("two")) as (session, connector):
        await fetch(session, "http://one.internal/")
        await fetch(session, "http://two.internal/")
        protocols = {key.host: conns[0][0] for key, conns in connector._conns.items()}
        connector.mount("one.internal", Named("new"))
        assert [protocols[host].is_connected() for host in ("one.internal", "two.internal")] == [False, True]


async def test_a_more_specific_mount_takes_over_what_a_wildcard_served() -> None:
    async with session_to({"*.internal": Named("wildcard")}) as session:
        connector = connector_of(session)
        assert await fetch(session) == b"wildcard"
        connector.mount("app.internal", Named("exact"))
        assert await fetch(session) == b"exact"
        connector.mount("http://app.internal:80", Named("exacter"))
        assert await fetch(session) == b"exacter"
        await connector.unmount("http://app.internal:80")
        assert await fetch(session) == b"exact"
        await connector.unmount("app.internal")
        assert await fetch(session) == b"wildcard"


async def test_an_unmounted_host_is_refused() -> None:
    app = Named("app")
    async with serving(app) as (session, connector):
        assert await fetch(session) == b"app"
        await connector.unmount("app.internal")
        assert list(connector.mounts) == []
        with pytest.raises(UnmountedHostError):
            await fetch(session)
        assert app.calls == 1


async def test_an_unmounted_host_goes_to_the_fallback() -> None:
    fallback = ASGIRoutingConnector({"*": Named("fallback")}, lifespan="off")
    async with serving(Named("app"), fallback=fallback) as (session, connector):
        assert await fetch(session) == b"app"
        await connector.unmount("app.internal")
        assert await fetch(session) == b"fallback"
        connector.mount("app.internal", Named("again"))
        assert await fetch(session) == b"again"


async def test_unmounting_what_is_not_mounted_is_a_key_error_that_says_what_is() -> None:
    async with serving(Named("app")) as (session, connector):
        with pytest.raises(KeyError, match=r"'ap\.internal' is not mounted.*Did you mean 'app\.internal'"):
            await connector.unmount("ap.internal")
        with pytest.raises(KeyError):
            await connector.unmount("app.internal:80")
        with pytest.raises(KeyError):
            await connector.unmount("*")
        assert await fetch(session) == b"app"


@pytest.mark.parametrize("spelling", ["APP.internal", "app.internal.", "App.Internal"])
async def test_a_pattern_is_the_same_in_every_spelling(spelling: str) -> None:
    async with serving(Named("app")) as (session, connector):
        connector.mount(spelling, Named("new"))
        assert await fetch(session) == b"new"
        async with connector.mounted(spelling, Named("temporary")):
            assert await fetch(session) == b"temporary"
        assert await fetch(session) == b"new"
        await connector.unmount(spelling)
        with pytest.raises(KeyError):
            await connector.unmount("app.internal")


@pytest.mark.parametrize("bad", ["http://app.internal/path", "", "app.internal:0", "a*.internal"])
async def test_a_bad_pattern_changes_nothing(bad: str) -> None:
    async with serving(Named("app")) as (session, connector):
        before = dict(connector.mounts)
        with pytest.raises(ValueError, match=r"path|missing|port|wildcard"):
            connector.mount(bad, Named("new"))
        with pytest.raises(ValueError, match=r"path|missing|port|wildcard"):
            await connector.unmount(bad)
        with pytest.raises(ValueError, match=r"path|missing|port|wildcard"):
            async with connector.mounted(bad, Named("new")):
                pytest.fail("entered")
        with pytest.raises(TypeError, match="not an ASGI application"):
            connector.mount("app.internal", "no app")  # type: ignore[arg-type]
        assert dict(connector.mounts) == before
        assert await fetch(session) == b"app"


# In flight.


async def test_what_is_in_flight_on_a_replaced_app_finishes_there() -> None:
    old, new = Named("old"), Named("new")
    async with serving(old) as (session, connector):
        request = await held(session, old)
        connector.mount("app.internal", new)
        assert await fetch(session) == b"new"
        old.may_answer.set()
        assert await request == b"old"
        assert await fetch(session) == b"new"
        assert old.calls == 1


async def test_unmount_returns_when_what_is_in_flight_has_ended() -> None:
    app = Named("app")
    async with serving(app) as (session, connector):
        requests = [await held(session, app) for _ in range(3)]
        unmounting = asyncio.create_task(connector.unmount("app.internal"))
        await settle()
        assert not unmounting.done()
        with pytest.raises(UnmountedHostError):
            await fetch(session)
        app.may_answer.set()
        await soon(unmounting)
        assert await asyncio.gather(*requests) == [b"app"] * 3


async def test_unmount_waits_for_background_tasks_of_answered_requests() -> None:
    may_end, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Named("app")(scope, receive, send)
        await may_end.wait()
        ended.set()

    async with session_to(app) as session:
        assert await fetch(session) == b"app"
        unmounting = asyncio.create_task(connector_of(session).unmount("app.internal"))
        await settle()
        assert not unmounting.done()
        may_end.set()
        await soon(unmounting)
        assert ended.is_set()


async def test_unmount_waits_for_an_app_whose_client_has_gone() -> None:
    app = Named("app")
    async with serving(app) as (session, connector):
        request = await held(session, app)
        request.cancel()
        await asyncio.wait({request})
        unmounting = asyncio.create_task(connector.unmount("app.internal"))
        await settle()
        assert not unmounting.done()
        app.may_answer.set()
        await soon(unmounting)


async def test_unmount_does_not_wait_for_the_same_app_at_another_host() -> None:
    app = Named("app")
    async with session_to({"app.internal": app, "other.internal": app}) as session:
        request = await held(session, app, "http://other.internal/held")
        await soon(connector_of(session).unmount("app.internal"))
        app.may_answer.set()
        assert await request == b"app"


async def test_unmount_does_not_wait_for_what_was_replaced_before() -> None:
    old, new = Named("old"), Named("new")
    async with serving(old) as (session, connector):
        request = await held(session, old)
        connector.mount("app.internal", new)
        await soon(connector.unmount("app.internal"))
        old.may_answer.set()
        assert await request == b"old"


async def test_an_unmount_that_is_cancelled_has_unmounted() -> None:
    app = Named("app")
    async with serving(app) as (session, connector):
        request = await held(session, app)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connector.unmount("app.internal")
        with pytest.raises(UnmountedHostError):
            await fetch(session)
        app.may_answer.set()
        assert await request == b"app"


async def test_unmount_returns_when_its_last_request_fails() -> None:
    started, may_fail = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await may_fail.wait()
        raise LookupError("failed")

    async with session_to(app) as session:
        request = asyncio.create_task(fetch(session))
        await started.wait()
        unmounting = asyncio.create_task(connector_of(session).unmount("app.internal"))
        await settle()
        may_fail.set()
        await soon(unmounting)
        with pytest.raises(LookupError, match="failed"):
            await request


async def test_unmount_returns_when_its_idle_connections_are_closed() -> None:
    async with serving(Named("app")) as (session, connector):
        await asyncio.gather(*(fetch(session) for _ in range(3)))
        protocols = [protocol for conns in connector._conns.values() for protocol, _ in conns]
        assert len(protocols) == 3
        await soon(connector.unmount("app.internal"))
        assert not any(protocol.is_connected() for protocol in protocols)


async def test_unmount_returns_when_a_whole_response_that_was_on_its_way_has_been_read() -> None:
    """The app returned long ago, and its client reads slowly."""
    body = bytes(range(256)) * 4096
    returned = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        returned.set()

    async with session_to(app, keepalive_timeout=3600) as session, session.get("/") as response:
        await returned.wait()
        await settle()
        unmounting = asyncio.create_task(connector_of(session).unmount("app.internal"))
        await settle()
        assert not unmounting.done()
        assert await response.read() == body
        await soon(unmounting)


async def test_unmount_returns_when_a_response_that_was_on_its_way_is_given_up() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(1024 * 1024)})

    async with session_to(app, keepalive_timeout=3600) as session, session.get("/") as response:
        unmounting = asyncio.create_task(connector_of(session).unmount("app.internal"))
        await settle()
        assert not unmounting.done()
        response.close()
        await soon(unmounting)


async def test_a_streamed_upload_in_flight_finishes_on_the_replaced_app() -> None:
    may_go_on = asyncio.Event()
    received = bytearray()
    first = asyncio.Event()

    async def old(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            received.extend(message["body"])
            more = message["more_body"]
            first.set()
        await Named("old")(scope, receive, send)

    async def upload() -> AsyncIterator[bytes]:
        yield b"one "
        await may_go_on.wait()
        yield b"two"

    async with session_to(old) as session:
        request = asyncio.create_task(session.post("/", data=upload()))
        await first.wait()
        connector_of(session).mount("app.internal", Named("new"))
        assert await fetch(session) == b"new"
        may_go_on.set()
        async with await request as response:
            assert await response.read() == b"old"
        assert received == b"one two"


# Connections that have been returned from the pool, and on which nothing has been written yet.


class Hook:
    """Does something once, in one of aiohttp's tracing hooks."""

    def __init__(self, name: str) -> None:
        self.what: Callable[[], Awaitable[object]] | None = None
        self.called = 0
        self.config = TraceConfig()
        getattr(self.config, name).append(self._call)

    async def _call(self, *_: object) -> None:
        if self.what is not None:
            what, self.what = self.what, None
            self.called += 1
            await what()


BEFORE_CONNECT_RETURNS = [
    "on_request_start",
    "on_connection_create_start",
    "on_connection_create_end",
    "on_connection_reuseconn",
]


@pytest.mark.parametrize("hook_name", BEFORE_CONNECT_RETURNS)
async def test_a_request_that_is_still_connecting_reaches_the_new_app(hook_name: str) -> None:
    hook = Hook(hook_name)
    old, new = Named("old"), Named("new")
    async with serving(old, session_trace_configs=[hook.config]) as (session, connector):
        if hook_name == "on_connection_reuseconn":
            assert await fetch(session) == b"old"
        before = old.calls

        async def replace() -> None:
            connector.mount("app.internal", new)

        hook.what = replace
        assert await fetch(session) == b"new"
        assert hook.called == 1
        assert old.calls == before
        assert not connector._acquired


@pytest.mark.parametrize("hook_name", BEFORE_CONNECT_RETURNS)
async def test_a_request_that_is_still_connecting_when_its_host_is_unmounted_is_refused(hook_name: str) -> None:
    hook = Hook(hook_name)
    app = Named("app")
    async with serving(app, session_trace_configs=[hook.config]) as (session, connector):
        if hook_name == "on_connection_reuseconn":
            assert await fetch(session) == b"app"
        before = app.calls

        async def unmount() -> None:
            await soon(connector.unmount("app.internal"))

        hook.what = unmount
        with pytest.raises(UnmountedHostError):
            await fetch(session)
        assert hook.called == 1
        assert app.calls == before
        assert not connector._acquired


@pytest.mark.parametrize("hook_name", BEFORE_CONNECT_RETURNS)
async def test_a_request_that_is_still_connecting_when_its_host_is_unmounted_goes_to_the_fallback(
    hook_name: str,
) -> None:
    hook = Hook(hook_name)
    fallback = ASGIRoutingConnector({"*": Named("fallback")}, lifespan="off")
    async with serving(Named("app"), fallback=fallback, session_trace_configs=[hook.config]) as (session, connector):
        if hook_name == "on_connection_reuseconn":
            assert await fetch(session) == b"app"

        async def unmount() -> None:
            await soon(connector.unmount("app.internal"))

        hook.what = unmount
        assert await fetch(session) == b"fallback"
        assert hook.called == 1


async def test_a_request_that_waited_for_a_free_connection_reaches_the_new_app() -> None:
    hook = Hook("on_connection_queued_start")
    old, new = Named("old"), Named("new")
    queued = asyncio.Event()

    async def note() -> None:
        queued.set()

    hook.what = note
    async with serving(old, limit=1, session_trace_configs=[hook.config]) as (session, connector):
        first = await held(session, old)
        second = asyncio.create_task(fetch(session))
        await queued.wait()
        connector.mount("app.internal", new)
        old.may_answer.set()
        assert await first == b"old"
        assert await second == b"new"
        assert old.calls == 1


@pytest.mark.parametrize("pooled", [False, True], ids=["a new connection", "a pooled connection"])
@pytest.mark.parametrize("hook_name", ["on_request_headers_sent", "on_request_chunk_sent"])
async def test_a_request_whose_connection_was_handed_out_reaches_the_old_app(hook_name: str, pooled: bool) -> None:
    """These hooks run after `connect()`, before anything can have reached the app."""
    hook = Hook(hook_name)
    old, new = Named("old"), Named("new")
    async with serving(old, session_trace_configs=[hook.config]) as (session, connector):
        if pooled:
            assert await fetch(session) == b"old"

        async def replace() -> None:
            connector.mount("app.internal", new)

        hook.what = replace
        async with session.post("/", data=b"body") as response:
            assert await response.read() == b"old"
        assert hook.called == 1
        assert await fetch(session) == b"new"


@pytest.mark.parametrize("pooled", [False, True], ids=["a new connection", "a pooled connection"])
async def test_unmount_waits_for_a_connection_that_was_handed_out(pooled: bool) -> None:
    hook = Hook("on_request_headers_sent")
    app = Named("app")
    unmounting: list[asyncio.Task[None]] = []
    async with serving(app, session_trace_configs=[hook.config]) as (session, connector):
        if pooled:
            assert await fetch(session) == b"app"

        async def unmount() -> None:
            unmounting.append(asyncio.create_task(connector.unmount("app.internal")))
            await settle()
            assert not unmounting[0].done()

        hook.what = unmount
        assert await fetch(session) == b"app"
        assert hook.called == 1
        await soon(unmounting[0])
        with pytest.raises(UnmountedHostError):
            await fetch(session)


@pytest.mark.parametrize("pooled", [False, True], ids=["a new connection", "a pooled connection"])
@pytest.mark.parametrize("give_back", ["release", "close"])
async def test_unmount_returns_when_a_connection_that_was_handed_out_is_given_back_unused(
    give_back: str, pooled: bool
) -> None:
    async with serving(Named("app")) as (session, connector):
        request = await request_for(session)
        if not pooled:
            connector.mount("app.internal", Named("app"))
        connection = await connector.connect(request, [], ClientTimeout())
        unmounting = asyncio.create_task(connector.unmount("app.internal"))
        await settle()
        assert not unmounting.done()
        getattr(connection, give_back)()
        await soon(unmounting)
        assert not connector._acquired


async def test_a_connection_that_was_given_back_unused_is_as_idle_as_any() -> None:
    async with serving(Named("app")) as (session, connector):
        request = await request_for(session)
        connection = await connector.connect(request, [], ClientTimeout())
        protocol = connection.protocol
        assert protocol is not None
        connection.release()
        assert protocol.is_connected()
        await soon(connector.unmount("app.internal"))
        assert not protocol.is_connected()


async def test_a_connection_that_was_given_back_unused_after_its_app_was_replaced_is_not_pooled() -> None:
    async with serving(Named("old")) as (session, connector):
        request = await request_for(session)
        connection = await connector.connect(request, [], ClientTimeout())
        protocol = connection.protocol
        assert protocol is not None
        connector.mount("app.internal", Named("new"))
        assert protocol.is_connected()
        connection.release()
        assert not protocol.is_connected()
        assert await fetch(session) == b"new"


# mounted() blocks.


async def test_a_mounted_block_ends_with_what_was_there_before() -> None:
    usual, fake = Named("usual"), Named("fake")
    async with serving(usual) as (session, connector):
        assert await fetch(session) == b"usual"
        async with connector.mounted("app.internal", fake):
            assert await fetch(session) == b"fake"
            assert connector.mounts["app.internal"].app is fake
        assert await fetch(session) == b"usual"
        assert connector.mounts["app.internal"].app is usual


async def test_a_mounted_block_at_a_new_host_ends_with_nothing_there() -> None:
    async with serving(Named("app")) as (session, connector):
        async with connector.mounted("new.internal", Named("new")):
            assert await fetch(session, "http://new.internal/") == b"new"
        assert list(connector.mounts) == ["app.internal"]
        with pytest.raises(UnmountedHostError):
            await fetch(session, "http://new.internal/")


async def test_an_exception_in_a_mounted_block_unmounts_and_passes() -> None:
    problem = LookupError("in the block")
    async with serving(Named("usual")) as (session, connector):
        with pytest.raises(LookupError) as caught:
            async with connector.mounted("app.internal", Named("fake")):
                raise problem
        assert caught.value is problem
        assert await fetch(session) == b"usual"


async def test_the_end_of_a_mounted_block_waits_for_what_is_in_flight_on_its_app() -> None:
    usual, fake = Named("usual"), Named("fake")
    async with serving(usual) as (session, connector):
        block = connector.mounted("app.internal", fake)
        await block.__aenter__()
        request = await held(session, fake)
        leaving = asyncio.ensure_future(block.__aexit__(None, None, None))
        await settle()
        assert not leaving.done()
        assert await fetch(session) == b"usual"
        fake.may_answer.set()
        await soon(leaving)
        assert await request == b"fake"


async def test_the_beginning_and_the_end_of_a_mounted_block_do_not_wait_for_the_app_that_is_covered() -> None:
    usual, fake = Named("usual"), Named("fake")
    async with serving(usual) as (session, connector):
        request = await held(session, usual)
        async with asyncio.timeout(SOON):
            async with connector.mounted("app.internal", fake):
                assert await fetch(session) == b"fake"
        assert not request.done()
        usual.may_answer.set()
        assert await request == b"usual"


async def test_the_end_of_a_mounted_block_that_is_cancelled_has_unmounted() -> None:
    fake = Named("fake")
    async with serving(Named("usual")) as (session, connector):
        block = connector.mounted("app.internal", fake)
        await block.__aenter__()
        request = await held(session, fake)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await block.__aexit__(None, None, None)
        assert await fetch(session) == b"usual"
        fake.may_answer.set()
        assert await request == b"fake"


async def test_a_mounted_block_outlives_a_connector_that_is_closed_in_it() -> None:
    async with serving(Named("usual")) as (session, connector):
        async with connector.mounted("app.internal", Named("fake")):
            assert await fetch(session) == b"fake"
            await connector.close()
        assert connector.closed


async def test_nested_mounted_blocks_show_the_innermost() -> None:
    async with serving(Named("usual")) as (session, connector):
        async with connector.mounted("app.internal", Named("one")):
            async with connector.mounted("app.internal", Named("two")):
                async with connector.mounted("app.internal", Named("three")):
                    assert await fetch(session) == b"three"
                assert await fetch(session) == b"two"
            assert await fetch(session) == b"one"
        assert await fetch(session) == b"usual"


@pytest.mark.parametrize("base", [None, "usual"])
@pytest.mark.parametrize("order", ["012", "021", "102", "120", "201", "210"])
async def test_mounted_blocks_may_end_in_any_order(order: str, base: str | None) -> None:
    """The block that was entered last, of those that have not ended, is visible. Below it is what was there before."""
    async with session_to({} if base is None else {"app.internal": Named(base)}) as session:
        connector = connector_of(session)
        blocks = [connector.mounted("app.internal", Named(name)) for name in "012"]
        for block in blocks:
            await block.__aenter__()
        left = list("012")
        for name in order:
            assert await fetch(session) == left[-1].encode()
            await soon(blocks[int(name)].__aexit__(None, None, None))
            left.remove(name)
        if base is None:
            assert list(connector.mounts) == []
            with pytest.raises(UnmountedHostError):
                await fetch(session)
        else:
            assert await fetch(session) == base.encode()


async def test_concurrent_mounted_blocks_for_different_hosts_do_not_touch_each_other() -> None:
    async with serving(Named("one"), Named("two")) as (session, connector):
        both = asyncio.Barrier(2)

        async def use(host: str) -> list[bytes]:
            async with connector.mounted(f"{host}.internal", Named(f"fake {host}")):
                await both.wait()
                seen = [await fetch(session, f"http://{host}.internal/")]
                await both.wait()
            return [*seen, await fetch(session, f"http://{host}.internal/")]

        seen = list(await asyncio.gather(use("one"), use("two")))
        assert seen == [[b"fake one", b"one"], [b"fake two", b"two"]]


async def test_mount_within_a_mounted_block_lasts_until_its_end() -> None:
    async with serving(Named("usual")) as (session, connector):
        async with connector.mounted("app.internal", Named("fake")):
            connector.mount("app.internal", Named("other"))
            assert await fetch(session) == b"other"
        assert await fetch(session) == b"usual"


async def test_unmount_within_a_mounted_block_lasts_until_its_end() -> None:
    async with serving(Named("usual")) as (session, connector):
        async with connector.mounted("app.internal", Named("fake")):
            await connector.unmount("app.internal")
            with pytest.raises(UnmountedHostError):
                await fetch(session)
            with pytest.raises(KeyError):
                await connector.unmount("app.internal")
        assert await fetch(session) == b"usual"


async def test_mount_after_an_unmount_within_a_mounted_block_lasts_until_its_end() -> None:
    async with session_to({}) as session:
        connector = connector_of(session)
        async with connector.mounted("app.internal", Named("fake")):
            await connector.unmount("app.internal")
            connector.mount("app.internal", Named("other"))
            assert await fetch(session) == b"other"
        assert list(connector.mounts) == []


async def test_the_end_of_a_mounted_block_waits_for_its_app_though_another_was_mounted_over_it() -> None:
    fake, other = Named("fake"), Named("other")
    async with serving(Named("usual")) as (session, connector):
        block = connector.mounted("app.internal", fake)
        await block.__aenter__()
        request = await held(session, fake)
        connector.mount("app.internal", other)
        leaving = asyncio.ensure_future(block.__aexit__(None, None, None))
        await settle()
        assert not leaving.done()
        fake.may_answer.set()
        await soon(leaving)
        assert await request == b"fake"


# Inside the app itself.


async def in_a_child_task(what: Awaitable[object]) -> object:
    async def run() -> object:
        return await what

    return await asyncio.create_task(run())


async def in_this_task(what: Awaitable[object]) -> object:
    return await what


in_any_task = pytest.mark.parametrize("run", [in_this_task, in_a_child_task])
Run = Callable[[Awaitable[object]], Awaitable[object]]


@in_any_task
async def test_unmount_from_inside_the_app_concerned_is_an_error_and_changes_nothing(run: Run) -> None:
    async with session_to({}) as session:
        connector = connector_of(session)
        app = Caller(lambda: run(connector.unmount("app.internal")))
        connector.mount("app.internal", app)
        assert await fetch(session) == b"caller"
        assert isinstance(app.result, RuntimeError)
        assert "from inside" in str(app.result)
        assert connector.mounts["app.internal"].app is app
        assert await fetch(session) == b"caller"


@in_any_task
async def test_the_end_of_a_mounted_block_from_inside_the_app_concerned_is_an_error_and_changes_nothing(
    run: Run,
) -> None:
    usual = Named("usual")
    async with serving(usual) as (session, connector):
        app = Caller(lambda: run(block.__aexit__(None, None, None)))
        block = connector.mounted("app.internal", app)
        await block.__aenter__()
        assert await fetch(session) == b"caller"
        assert isinstance(app.result, RuntimeError)
        assert connector.mounts["app.internal"].app is app


async def test_the_end_of_a_mounted_block_from_inside_its_app_is_an_error_though_another_was_mounted_over_it() -> None:
    other = Named("other")
    async with serving(Named("usual")) as (session, connector):

        async def replace_and_leave() -> None:
            connector.mount("app.internal", other)
            await block.__aexit__(None, None, None)

        app = Caller(replace_and_leave)
        block = connector.mounted("app.internal", app)
        await block.__aenter__()
        assert await fetch(session) == b"caller"
        assert isinstance(app.result, RuntimeError)
        assert connector.mounts["app.internal"].app is other


@in_any_task
async def test_unmount_from_inside_an_app_that_the_app_concerned_has_called_is_an_error(run: Run) -> None:
    async with session_to({}) as session:
        connector = connector_of(session)
        inner = Caller(lambda: run(connector.unmount("app.internal")))
        middle = Caller(lambda: run(fetch(session, "http://inner.internal/")))
        outer = Caller(lambda: fetch(session, "http://middle.internal/"))
        for name, app in {"app": outer, "middle": middle, "inner": inner}.items():
            connector.mount(f"{name}.internal", app)
        assert await fetch(session) == b"caller"
        assert isinstance(inner.result, RuntimeError)
        assert connector.mounts["app.internal"].app is outer


async def test_an_app_may_unmount_another_and_mount_what_it_likes() -> None:
    async with serving(Named("other")) as (session, connector):

        async def rearrange() -> None:
            await connector.unmount("other.internal")
            connector.mount("caller.internal", Named("new"))
            async with connector.mounted("third.internal", Named("third")):
                assert await fetch(session, "http://third.internal/") == b"third"

        caller = Caller(rearrange)
        connector.mount("caller.internal", caller)
        assert await fetch(session, "http://caller.internal/") == b"caller"
        assert caller.result is None
        assert await fetch(session, "http://caller.internal/") == b"new"
        with pytest.raises(UnmountedHostError):
            await fetch(session, "http://other.internal/")


async def test_an_app_may_unmount_what_has_replaced_it() -> None:
    """It waits for the new app only, so not for itself."""
    async with session_to({}) as session:
        connector = connector_of(session)

        async def replace() -> None:
            connector.mount("app.internal", Named("new"))
            await connector.unmount("app.internal")

        app = Caller(replace)
        connector.mount("app.internal", app)
        assert await fetch(session) == b"caller"
        assert app.result is None
        assert list(connector.mounts) == []


async def test_a_task_that_outlives_its_request_may_unmount_the_app() -> None:
    tasks: list[asyncio.Task[None]] = []
    may_go_on = asyncio.Event()

    async def later() -> None:
        await may_go_on.wait()
        await connector.unmount("app.internal")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks.append(asyncio.create_task(later()))
        await Named("app")(scope, receive, send)

    async with session_to(app) as session:
        connector = connector_of(session)
        assert await fetch(session) == b"app"
        may_go_on.set()
        await soon(tasks[0])
        assert list(connector.mounts) == []


async def test_the_test_itself_may_unmount_from_a_task_that_an_app_knows_nothing_of() -> None:
    """What matters is which app makes the call, not what runs at the time."""
    app = Named("app")
    async with serving(app) as (session, connector):
        request = await held(session, app)
        unmounting = asyncio.create_task(connector.unmount("app.internal"))
        await settle()
        app.may_answer.set()
        await soon(unmounting)
        assert await request == b"app"


# Any sequence of these.

PATTERNS = ["a.internal", "*.internal"]
MATCHING = {"a.internal": ["a.internal", "*.internal"], "b.internal": ["*.internal"]}
HOSTS = sorted(MATCHING)


@dataclass
class Flight:
    """A request that its app has not answered yet."""

    may_answer: "asyncio.Future[None]"
    app: "Modelled | None" = None
    client: "asyncio.Task[bytes] | None" = None
    abandoned: bool = False


class Modelled:
    """An app that answers with its name: immediately, or when the flight in the request's query may end."""

    def __init__(self, number: int, flights: dict[int, Flight]) -> None:
        self.name = f"app {number}".encode()
        self.flights = flights

    def __repr__(self) -> str:
        return f"<{self.name.decode()}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["query_string"]:
            flight = self.flights[int(scope["query_string"])]
            flight.app = self
            await flight.may_answer
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.name})


@dataclass(eq=False)
class Layer:
    """What the model expects at a pattern: at the bottom the permanent mount, above it the blocks."""

    app: Modelled | None
    block: AbstractAsyncContextManager[None] | None = None
    blocks_own_app: Modelled | None = None


@dataclass(eq=False)
class Waiting:
    """An `unmount()`, or the end of a block, and the apps that it waits for."""

    task: "asyncio.Future[Any]"
    apps: set[Modelled | None]


@dataclass
class Model:
    layers: dict[str, list[Layer]] = field(default_factory=lambda: {pattern: [Layer(None)] for pattern in PATTERNS})
    flights: dict[int, Flight] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)
    closed: bool = False

    def seen(self, pattern: str) -> Modelled | None:
        return self.layers[pattern][-1].app

    def answers(self, host: str) -> Modelled | None:
        return next((app for pattern in MATCHING[host] if (app := self.seen(pattern)) is not None), None)

    def blocks(self) -> list[tuple[str, Layer]]:
        return [(pattern, layer) for pattern, layers in self.layers.items() for layer in layers[1:]]

    def are_used(self, apps: set[Modelled | None]) -> bool:
        return any(flight.app in apps for flight in self.flights.values())


class Remounting(RuleBasedStateMachine):
    """A connector and a simple model of it, on an event loop of their own."""

    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=type(self).new_loop)
        self.model = Model()
        self.numbers = iter(range(10**6))
        self.runner.run(self.open())

    async def open(self) -> None:
        self.connector = ASGIRoutingConnector(keepalive_timeout=3600, shutdown_timeout=0, lifespan="off")
        self.session = ClientSession(connector=self.connector, connector_owner=False)

    def run(self, step: Awaitable[None]) -> None:
        """One step, and then everything that follows from it."""

        async def take_it() -> None:
            await step
            await settle()

        self.runner.run(take_it())

    async def clients_are_told(self) -> None:
        clients = [flight.client for flight in self.model.flights.values() if flight.client is not None]
        for outcome in await asyncio.gather(*clients, return_exceptions=True):
            assert isinstance(outcome, ClientConnectionError | asyncio.CancelledError), outcome

    def new_app(self) -> Modelled:
        return Modelled(next(self.numbers), self.model.flights)

    @property
    def is_open(self) -> bool:
        return not self.model.closed

    @rule(pattern=st.sampled_from(PATTERNS))
    def mount(self, pattern: str) -> None:
        async def step() -> None:
            app = self.new_app()
            if self.model.closed:
                with pytest.raises(ClientConnectionError):
                    self.connector.mount(pattern, app)
            else:
                self.connector.mount(pattern, app)
                self.model.layers[pattern][-1].app = app

        self.run(step())

    @rule(pattern=st.sampled_from(PATTERNS))
    def unmount(self, pattern: str) -> None:
        async def step() -> None:
            seen = self.model.seen(pattern)
            if seen is None:
                with pytest.raises(KeyError):
                    await self.connector.unmount(pattern)
            else:
                self.model.waiting.append(Waiting(asyncio.create_task(self.connector.unmount(pattern)), {seen}))
                self.model.layers[pattern][-1].app = None

        self.run(step())

    @precondition(lambda self: self.is_open and len(self.model.blocks()) < 4)
    @rule(pattern=st.sampled_from(PATTERNS))
    def enter_a_block(self, pattern: str) -> None:
        async def step() -> None:
            app = self.new_app()
            block = self.connector.mounted(pattern, app)
            await block.__aenter__()
            self.model.layers[pattern].append(Layer(app, block, app))

        self.run(step())

    @precondition(lambda self: self.model.blocks())
    @rule(data=st.data())
    def leave_a_block(self, data: st.DataObject) -> None:
        pattern, layer = data.draw(st.sampled_from(self.model.blocks()), label="block")

        async def step() -> None:
            assert layer.block is not None
            leaving = asyncio.ensure_future(layer.block.__aexit__(None, None, None))
            self.model.waiting.append(Waiting(leaving, {layer.app, layer.blocks_own_app}))
            self.model.layers[pattern].remove(layer)

        self.run(step())

    @rule(host=st.sampled_from(HOSTS), repeat=st.integers(1, 3))
    def request(self, host: str, repeat: int) -> None:
        async def step() -> None:
            expected = self.model.answers(host)
            requests = [asyncio.create_task(fetch(self.session, f"http://{host}/")) for _ in range(repeat)]
            for outcome in await asyncio.gather(*requests, return_exceptions=True):
                if self.model.closed:
                    assert isinstance(outcome, RuntimeError), outcome  # aiohttp's "Session is closed"
                elif expected is None:
                    assert isinstance(outcome, UnmountedHostError), outcome
                else:
                    assert outcome == expected.name

        self.run(step())

    @precondition(lambda self: self.is_open and len(self.model.flights) < 6)
    @rule(host=st.sampled_from(HOSTS))
    def begin_a_request(self, host: str) -> None:
        expected = self.model.answers(host)
        if expected is None:
            return
        number = next(self.numbers)

        async def step() -> None:
            flight = self.model.flights[number] = Flight(asyncio.get_running_loop().create_future())
            flight.client = asyncio.create_task(fetch(self.session, f"http://{host}/?{number}"))

        self.run(step())
        assert self.model.flights[number].app is expected

    @precondition(lambda self: self.model.flights)
    @rule(data=st.data())
    def let_it_be_answered(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.flights)), label="request")

        async def step() -> None:
            flight = self.model.flights.pop(number)
            flight.may_answer.set_result(None)
            assert flight.client is not None
            if not flight.abandoned:
                assert flight.app is not None
                assert await flight.client == flight.app.name

        self.run(step())

    @precondition(lambda self: any(not flight.abandoned for flight in self.model.flights.values()))
    @rule(data=st.data())
    def cancel_a_request(self, data: st.DataObject) -> None:
        there = sorted(number for number, flight in self.model.flights.items() if not flight.abandoned)
        number = data.draw(st.sampled_from(there), label="request")

        async def step() -> None:
            flight = self.model.flights[number]
            flight.abandoned = True  # its app ignores the disconnect
            assert flight.client is not None
            flight.client.cancel()
            await asyncio.wait({flight.client})

        self.run(step())

    @precondition(lambda self: self.is_open and len(self.model.flights) > 1)  # every run ends with a close()
    @rule()
    def close(self) -> None:
        async def step() -> None:
            await self.connector.close()
            await self.clients_are_told()
            for flight in self.model.flights.values():
                assert flight.may_answer.cancelled()
            self.model.flights.clear()
            self.model.closed = True

        self.run(step())

    @invariant()
    def the_mounts_are_those_of_the_model(self) -> None:
        seen = {pattern: app for pattern in PATTERNS if (app := self.model.seen(pattern)) is not None}
        assert {pattern: mount.app for pattern, mount in self.connector.mounts.items()} == seen

    @invariant()
    def each_waiter_waits_for_what_is_in_flight_and_for_nothing_else(self) -> None:
        for waiting in self.model.waiting:
            assert waiting.task.done() == (not self.model.are_used(waiting.apps)), waiting
        for waiting in [waiting for waiting in self.model.waiting if waiting.task.done()]:
            assert waiting.task.exception() is None
            self.model.waiting.remove(waiting)

    @invariant()
    def the_pool_has_one_connection_in_use_for_each_client_that_waits(self) -> None:
        clients = sum(not flight.abandoned for flight in self.model.flights.values())
        assert len(self.connector._acquired) == clients
        for conns in self.connector._conns.values():
            assert all(type(since) is float for _, since in conns)

    def teardown(self) -> None:
        async def step() -> None:
            await self.connector.close()
            await self.session.close()
            for _, layer in self.model.blocks():
                assert layer.block is not None
                await soon(layer.block.__aexit__(None, None, None))
            await self.clients_are_told()
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            assert not left, left

        try:
            self.run(step())
        finally:
            self.runner.close()


@pytest.mark.timeout(300)  # a failure is shrunk before it is shown
@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_any_sequence_of_mounts_requests_and_cancellations_does_what_a_simple_model_says(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    machine = type("Machine", (Remounting,), {"new_loop": staticmethod(new_loop)})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples(80), stateful_step_count=20, deadline=None)
    )


async def test_a_pooled_connection_whose_app_has_been_replaced_before_it_had_returned_is_not_used() -> None:
    """Its response was complete by the framing, so the client has given the connection back."""
    go_on = asyncio.Event()

    async def old(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"old", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body"})

    async def new(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"new"})

    async with session_to(old, lifespan="off") as session:
        connector = connector_of(session)
        assert await fetch(session) == b"old"
        connector.mount("app.internal", Mount(new, lifespan="off"))
        assert await fetch(session) == b"new"
        go_on.set()


async def test_a_mount_at_another_port_leaves_a_pooled_connection_alone() -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["client"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with session_to(app, lifespan="off") as session:
        connector = connector_of(session)
        with connector.record() as journal:
            await fetch(session)
            connector.mount("app.internal:8080", Mount(app, lifespan="off"))
            await fetch(session)
        assert [each.reused for each in journal] == [False, True]
