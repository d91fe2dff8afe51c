"""Mounts and unmounts during lifespans, with requests in flight, and a simple model of what must happen."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from aiohttp import ClientConnectionError, ClientSession
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_connector import ASGIRoutingConnector, UnmountedHostError
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import LOOPS
from tests.support.effort import examples
from tests.support.waiting import settle

MAX_EXAMPLES: Final = examples(150)
SOON: Final = 10.0
"""After so many turns of the event loop all has happened that waits for nothing."""

PATTERNS: Final = ["a.internal", "*.internal", "*"]
MATCHING: Final = {"a.internal": PATTERNS, "b.internal": PATTERNS[1:], "other.example": PATTERNS[2:]}
APPS: Final = 4


@dataclass(eq=False)
class Flight:
    """A request that its app has not answered yet."""

    app: "Gated"
    may_answer: asyncio.Event
    client: "asyncio.Task[bytes]"
    abandoned: bool = False


class Gated:
    """An app that answers with its name, below ``/held`` when the test lets it. It records its lifespans."""

    def __init__(self, number: int, events: list[tuple[str, int]], gates: dict[str, asyncio.Event]) -> None:
        self.number = number
        self.events = events
        self.gates = gates

    def __repr__(self) -> str:
        return f"<app {self.number}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                assert await receive() == {"type": f"lifespan.{kind}"}
                self.events.append((kind, self.number))
                await send({"type": f"lifespan.{kind}.complete"})
            return
        _, kind, number = scope["path"].split("/")
        if kind == "held":
            await self.gates[number].wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % self.number})


@dataclass(eq=False)
class Layer:
    """What is mounted at a pattern: at the bottom the permanent mount, above it the blocks."""

    app: Gated | None
    block: AbstractAsyncContextManager[None] | None = None
    own: "Mounted | None" = None
    mounted: "Mounted | None" = None


@dataclass(eq=False)
class Mounted:
    """One mount of an app. Requests that were routed to it are in flight on it, wherever else the app is mounted."""

    app: Gated
    flights: set[Flight] = field(default_factory=set)
    gone: bool = False


@dataclass(eq=False)
class Waiting:
    """An `unmount()`, or the end of a block, and the mounts that it waits for."""

    task: "asyncio.Future[Any]"
    mounts: list[Mounted]


class Model:
    """The model of what must happen. `World` makes it happen, and compares."""

    def __init__(self) -> None:
        self.layers: dict[str, list[Layer]] = {pattern: [Layer(None)] for pattern in PATTERNS}
        self.all_mounts: list[Mounted] = []
        self.flights: list[Flight] = []
        self.events: list[tuple[str, int]] = []
        self.running: list[Gated] = []
        self.closed = False

    def answers(self, host: str) -> Mounted | None:
        return next((top for pattern in MATCHING[host] if (top := self.layers[pattern][-1].mounted)), None)

    def new(self, app: Gated) -> Mounted:
        self.all_mounts.append(Mounted(app))
        return self.all_mounts[-1]

    def needs(self, app: Gated) -> None:
        """A request is about to reach *app*, which has already been started."""
        if app not in self.running:
            self.running.append(app)
            self.events.append(("startup", app.number))

    def settle(self) -> None:
        """An app is shut down when its last mount is gone, and no request is in flight on any of its mounts."""
        for app in list(self.running):
            mounts = [mounted for mounted in self.all_mounts if mounted.app is app]
            if all(mounted.gone and not mounted.flights for mounted in mounts):
                self.running.remove(app)
                self.events.append(("shutdown", app.number))
        self.all_mounts = [mounted for mounted in self.all_mounts if not mounted.gone or mounted.flights]

    def close(self) -> None:
        for app in reversed(self.running):
            self.events.append(("shutdown", app.number))
        self.running.clear()
        self.closed = True


Operation = tuple[str, int, int]

OPERATIONS: Final = st.tuples(
    st.sampled_from(
        ["mount", "mount", "unmount", "enter", "leave", "request", "begin", "begin", "answer", "cancel", "close"]
    ),
    st.integers(0, 11),
    st.integers(0, APPS - 1),
)


class World:
    """A connector, and a model of it."""

    def __init__(self) -> None:
        self.model = Model()
        self.events: list[tuple[str, int]] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.apps = [Gated(number, self.events, self.gates) for number in range(APPS)]
        self.connector = ASGIRoutingConnector(keepalive_timeout=3600, shutdown_timeout=0.5)
        self.session = ClientSession(connector=self.connector, connector_owner=False)
        self.waiting: list[Waiting] = []
        self.requests = 0

    async def fetch(self, url: str) -> bytes:
        async with self.session.get(url) as response:
            return await response.read()

    async def do(self, operation: Operation) -> None:
        kind, where, app = operation
        pattern, host = PATTERNS[where % len(PATTERNS)], sorted(MATCHING)[where % len(MATCHING)]
        if kind in ("mount", "enter"):
            await getattr(self, kind)(pattern, self.apps[app])
        elif kind == "unmount":
            await self.unmount(pattern)
        elif kind in ("request", "begin"):
            await getattr(self, kind)(host)
        elif kind == "leave":
            await self.leave(where)
        elif kind == "close" and where < 3:  # every run ends with a close() in any case
            await self.close()
        elif kind in ("answer", "cancel") and self.model.flights:
            await getattr(self, kind)(self.model.flights[where % len(self.model.flights)])
        await self.settle()

    async def settle(self) -> None:
        await settle()
        self.model.settle()
        self.compare()

    def compare(self) -> None:
        # Apps that shut down at the same time do so in any order, unless close() shuts them down.
        assert self.events == self.model.events or Counter(self.events) == Counter(self.model.events)
        seen = {pattern: top.app for pattern in PATTERNS if (top := self.model.layers[pattern][-1].mounted)}
        assert {pattern: mount.app for pattern, mount in self.connector.mounts.items()} == seen
        for waiting in self.waiting:
            used = any(mounted.flights for mounted in waiting.mounts)
            assert waiting.task.done() is not used, waiting
            if not used:
                assert waiting.task.exception() is None, waiting
        self.waiting = [waiting for waiting in self.waiting if not waiting.task.done()]
        assert len(self.connector._acquired) == sum(not flight.abandoned for flight in self.model.flights)

    async def mount(self, pattern: str, app: Gated) -> None:
        if self.model.closed:
            with pytest.raises(ClientConnectionError):
                self.connector.mount(pattern, app)
            return
        self.connector.mount(pattern, app)
        layer = self.model.layers[pattern][-1]
        new = self.model.new(app)
        if layer.mounted is not None:
            layer.mounted.gone = True
        layer.mounted = new

    async def unmount(self, pattern: str) -> None:
        layer = self.model.layers[pattern][-1]
        if layer.mounted is None:
            with pytest.raises(KeyError):
                await self.connector.unmount(pattern)
            return
        self.waiting.append(Waiting(asyncio.create_task(self.connector.unmount(pattern)), [layer.mounted]))
        layer.mounted.gone = True
        layer.mounted = None

    async def enter(self, pattern: str, app: Gated) -> None:
        block = self.connector.mounted(pattern, app)
        if self.model.closed:
            with pytest.raises(ClientConnectionError):
                await block.__aenter__()
            return
        await block.__aenter__()
        new = self.model.new(app)
        self.model.layers[pattern].append(Layer(app, block, new, new))

    async def leave(self, which: int) -> None:
        blocks = [(pattern, layer) for pattern in PATTERNS for layer in self.model.layers[pattern][1:]]
        if not blocks:
            return
        pattern, layer = blocks[which % len(blocks)]
        assert layer.block is not None
        assert layer.own is not None
        leaving = asyncio.ensure_future(layer.block.__aexit__(None, None, None))
        mounts = [layer.own] if layer.mounted is None else [layer.own, layer.mounted]
        self.waiting.append(Waiting(leaving, mounts))
        if layer.mounted is not None:
            layer.mounted.gone = True
        self.model.layers[pattern].remove(layer)

    async def request(self, host: str) -> None:
        top = self.model.answers(host)
        self.requests += 1
        if self.model.closed:
            with pytest.raises(RuntimeError, match="Session is closed"):
                await self.fetch(f"http://{host}/now/0")
        elif top is None:
            with pytest.raises(UnmountedHostError):
                await self.fetch(f"http://{host}/now/0")
        else:
            async with asyncio.timeout(SOON):
                assert await self.fetch(f"http://{host}/now/0") == b"%d" % top.app.number
            self.model.needs(top.app)

    async def begin(self, host: str) -> None:
        top = self.model.answers(host)
        if self.model.closed or top is None or len(self.model.flights) > 5:
            return
        self.requests += 1
        number = str(self.requests)
        gate = self.gates[number] = asyncio.Event()
        flight = Flight(top.app, gate, asyncio.create_task(self.fetch(f"http://{host}/held/{number}")))
        self.model.needs(top.app)
        self.model.flights.append(flight)
        top.flights.add(flight)

    def forget(self, flight: Flight) -> None:
        self.model.flights.remove(flight)
        for mounted in self.model.all_mounts:
            mounted.flights.discard(flight)

    async def answer(self, flight: Flight) -> None:
        flight.may_answer.set()
        if not flight.abandoned:
            async with asyncio.timeout(SOON):
                assert await flight.client == b"%d" % flight.app.number
        self.forget(flight)

    async def cancel(self, flight: Flight) -> None:
        if not flight.abandoned:
            flight.abandoned = True  # its app ignores the disconnect
            flight.client.cancel()
            await asyncio.wait({flight.client}, timeout=SOON)
            assert flight.client.cancelled()

    async def close(self) -> None:
        flights = list(self.model.flights)
        closing = asyncio.ensure_future(self.connector.close())
        await settle()
        assert closing.done() is (not flights or self.model.closed)
        for flight in flights:
            flight.may_answer.set()  # no client reads the answer
            self.forget(flight)
        async with asyncio.timeout(SOON):
            await closing
        for flight in flights:
            if not flight.abandoned:
                with pytest.raises(ClientConnectionError):
                    await flight.client
        if not self.model.closed:
            self.model.settle()
            self.model.close()
            told = [event for event in self.events if event[0] == "shutdown"]
            assert len(told) == len([event for event in self.events if event[0] == "startup"])


async def run_operations(operations: list[Operation]) -> int:
    world = World()
    try:
        async with asyncio.timeout(3 * SOON):
            for operation in operations:
                await world.do(operation)
            running = list(world.model.running)
            pending = bool(world.model.flights)
            before = len(world.events)
            was_closed = world.model.closed
            await world.close()
            if not pending and not was_closed:
                expected = [("shutdown", app.number) for app in reversed(running)]
                assert world.events[before:] == expected  # in the reverse order of their startup
            await world.settle()
            for layers in list(world.model.layers.values()):
                while len(layers) > 1:
                    await world.leave(0)
                    await world.settle()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            assert not tasks, tasks
            assert not world.connector._services.in_flight.connections
    finally:
        for gate in world.gates.values():
            gate.set()
        await world.connector.close()
        await world.session.close()
    return max(1, world.requests)


@pytest.mark.timeout(300)  # a failure is shrunk before it is shown
@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_any_sequence_of_mounts_blocks_requests_and_a_close_does_what_a_simple_model_says(
    new_loop: Callable[[], asyncio.AbstractEventLoop], record_property: Callable[[str, object], None]
) -> None:
    cases: Counter[str] = Counter()

    @settings(max_examples=MAX_EXAMPLES, deadline=None, database=None)
    @given(st.lists(OPERATIONS, min_size=1, max_size=30))
    def run(operations: list[Operation]) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            cases["run"] += runner.run(run_operations(operations))

    run()
    record_property("hostile cases", cases["run"])
