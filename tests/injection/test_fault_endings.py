"""An app can be unmounted after any fault, in whatever way its connection has ended.

`unmount()`, the end of `mounted()`, and a `mount()` that replaces an app wait for the connections of that app. So each
connection must end, even if the app reads nothing, writes to a client that has disconnected, or has already answered.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout

from asgi_connector import ASGIRoutingConnector, faults
from asgi_connector._injection.faults import Part
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.support.flow import KIB, MIB, new_piece, until_it_stops

HOST = "app.internal"
URL = f"http://{HOST}/"

Cut = type[faults.Reset] | type[faults.Close]
TakeAway = Callable[[ASGIRoutingConnector, AsyncExitStack], Awaitable[object]]

cuts = pytest.mark.parametrize("cut", [faults.Reset, faults.Close])


async def unmount(connector: ASGIRoutingConnector, _: AsyncExitStack) -> None:
    await connector.unmount(HOST)


async def end_mounted(_: ASGIRoutingConnector, mounted: AsyncExitStack) -> None:
    await mounted.aclose()


async def replace(connector: ASGIRoutingConnector, _: AsyncExitStack) -> None:
    connector.mount(HOST, small)
    await asyncio.gather(*connector._services._leaving)


@pytest.fixture(params=[unmount, end_mounted, replace])
def take_away(request: pytest.FixtureRequest) -> TakeAway:
    way: TakeAway = request.param
    return way


class Served:
    """A session to one app, which is mounted by a `mounted()` block."""

    def __init__(self, connector: ASGIRoutingConnector, session: ClientSession, mounted: AsyncExitStack) -> None:
        self.connector = connector
        self.session = session
        self._mounted = mounted

    async def take_away(self, way: TakeAway) -> None:
        async with asyncio.timeout(5):
            await way(self.connector, self._mounted)
        assert not self.connector._services.in_flight.connections
        assert self.connector._services.in_flight.is_idle()


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[Served]:
    async with AsyncExitStack() as mounted:
        connector = ASGIRoutingConnector(lifespan="off")
        async with ClientSession(connector=connector) as session:
            await mounted.enter_async_context(connector.mounted(HOST, app))
            yield Served(connector, session, mounted)


class App:
    """Does what a test needs, and counts the bytes that it has sent."""

    def __init__(self) -> None:
        self.sent = 0
        self.started = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def large_and_last(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 1 MB, after which the connection is closed."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"x" * 1_000_000})

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 16 MiB in pieces, and reads nothing."""
        await send({"type": "http.response.start", "status": 200})
        for _ in range(256):
            await send({"type": "http.response.body", "body": new_piece(), "more_body": True})
            self.sent += 1
        await send({"type": "http.response.body"})

    async def stream_messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends messages until its client has disconnected, and reads none."""
        await receive()
        await send({"type": "websocket.accept"})
        with suppress(OSError):
            while True:
                await send({"type": "websocket.send", "bytes": new_piece()})
                self.sent += 1

    async def refuse_unread(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 413 when the test lets it, and reads nothing."""
        self.started.set()
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 413})
        await send({"type": "http.response.body", "body": b"too large"})


async def small(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"small"})


async def upload(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 16 * KIB):
        yield bytes(16 * KIB)


async def read(session: ClientSession, *, size: int = 0, timeout: float | None = None) -> bytes | None:
    """Send a body of *size* bytes. Returns the body of the response, or `None` if there is none."""
    with suppress(ClientError, TimeoutError):
        async with session.post(URL, data=upload(size), timeout=ClientTimeout(timeout)) as response:
            return await response.read()
    return None


async def read_nothing(session: ClientSession) -> None:
    """Send a body, read the head of the response, and stay connected."""
    async with session.post(URL, data=upload(2 * MIB)):
        await asyncio.Event().wait()


@cuts
async def test_a_cut_ends_a_connection_that_the_server_is_closing(cut: Cut, take_away: TakeAway) -> None:
    async with served(App().large_and_last) as each:
        with each.connector.inject(HOST, cut(on="request", after=0)):
            body = await read(each.session)
        assert body is None
        await each.take_away(take_away)


@cuts
async def test_a_cut_ends_a_connection_that_the_server_is_closing_when_the_block_begins(
    cut: Cut, take_away: TakeAway
) -> None:
    async with served(App().large_and_last) as each, each.session.get(URL) as response:
        with each.connector.inject(HOST, cut(on="request")), pytest.raises(ClientError):
            await response.read()
        await each.take_away(take_away)


@cuts
@pytest.mark.parametrize("after", [None, 80_000])
async def test_a_cut_reaches_a_websocket_app_that_only_sends(cut: Cut, after: int | None, take_away: TakeAway) -> None:
    app = App()
    async with served(app.stream_messages) as each:
        async with each.session.ws_connect(URL) as websocket:
            await until_it_stops(lambda: app.sent)
            with (
                each.connector.inject(HOST, cut(on="request", after=after)),
                suppress(ConnectionError),
            ):
                while True:
                    await websocket.send_bytes(bytes(16 * KIB))
        await each.take_away(take_away)


@cuts
@pytest.mark.parametrize("after", [100, 80_000])
async def test_a_cut_reaches_an_app_that_streams_and_reads_nothing(cut: Cut, after: int, take_away: TakeAway) -> None:
    app = App()
    async with served(app.stream) as each:
        with each.connector.inject(HOST, cut(on="request", after=after)):
            assert await read(each.session, size=2 * MIB) is None
        await each.take_away(take_away)
        assert app.sent == 256


@cuts
async def test_a_cut_reaches_an_app_that_waits_for_a_client_that_does_not_read(cut: Cut, take_away: TakeAway) -> None:
    app = App()
    async with served(app.stream) as each, each.session.post(URL, data=upload(2 * MIB)):
        stopped_at = await until_it_stops(lambda: app.sent)
        assert stopped_at < 256
        with each.connector.inject(HOST, cut(on="request")):
            await each.take_away(take_away)


@pytest.mark.parametrize("inside", [True, False], ids=["inside the block", "after the block"])
@pytest.mark.parametrize("fault", [faults.Latency(0.01, on="request"), faults.Throttle(1e7, on="request")], ids=repr)
async def test_an_answer_to_a_client_that_has_left_ends_its_connection(
    fault: faults.Fault, inside: bool, take_away: TakeAway
) -> None:
    app = App()
    async with served(app.refuse_unread) as each:
        with each.connector.inject(HOST, fault):
            assert await read(each.session, size=500_000, timeout=0.1) is None
            app.may_answer.set()
            if inside:
                await each.take_away(take_away)
        if not inside:
            await each.take_away(take_away)


@pytest.mark.parametrize("on", ["request", "response"])
async def test_a_client_that_leaves_a_silent_connection_after_its_app_was_unmounted_ends_it(on: Part) -> None:
    """In this order the app is unmounted first, and waits for the request. The hang must not delay it any longer."""
    app = App()
    async with served(app.stream) as each:
        with each.connector.inject(HOST, faults.Hang(on=on, after=100)):
            client = asyncio.create_task(read_nothing(each.session))
            await until_it_stops(lambda: app.sent)
            unmounting = asyncio.create_task(each.take_away(unmount))
            await until_it_stops(lambda: each.connector._services.in_flight.is_idle())
            assert not unmounting.done()
            client.cancel()
            await asyncio.wait([client])
            await unmounting


async def test_closing_ends_what_a_fault_keeps() -> None:
    app = App()
    async with served(app.stream) as each:
        with each.connector.inject(HOST, faults.Hang(on="request", after=1000)):
            client = asyncio.create_task(read(each.session, size=2 * MIB))
            await until_it_stops(lambda: app.sent)
            async with asyncio.timeout(5):
                await each.session.close()
            await client
        assert not each.connector._services.in_flight.connections
