"""Five services under random partitions, holds, crashes, restarts, remounts and requests.

Afterwards nothing is left, every request has ended in one way, and the journal agrees with what the clients and the
apps have seen. Each call has a path of its own, so that its client, its exchange and its app can be compared.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import ClientSession
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from asgi_connector import ASGIRoutingConnector, Exchange, LifespanError, faults
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import LOOPS
from tests.support.effort import examples
from tests.support.leaks import no_task_and_no_timer_is_left
from tests.support.services import NEVER
from tests.support.waiting import settle, soon

NAMES: Final = ("a", "b", "c", "d", "e")
HOSTS: Final = tuple(f"{name}.internal" for name in NAMES)
CANCELLED: Final = "CancelledError"


class Seen:
    """What clients and apps have seen."""

    def __init__(self) -> None:
        self.outcomes: dict[str, int | str] = {}  # of each call, by its path: the status, or the name of the exception
        self.callers: dict[str, str | None] = {}
        self.called: Counter[str] = Counter()  # the apps, by the path
        self.ended: Counter[str] = Counter()
        self.gates: dict[str, asyncio.Event] = {}  # the requests that wait in their first app


class Hop:
    """An app. The path ``/7/b/c`` is request 7, which this app sends on to ``b.internal``, and that to c."""

    def __init__(self, host: str, seen: Seen, session: Callable[[], ClientSession]) -> None:
        self.host = host
        self.started = 0
        self.stopped = 0
        self.killed = 0
        self._seen = seen
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        path = scope["path"]
        self._seen.called[path] += 1
        try:
            await receive()
            if (gate := self._seen.gates.get(path)) is not None:
                await gate.wait()
            _, number, *hops = path.split("/")
            outcome: int | str = 200
            if hops:
                outcome = await ask(self._session(), self._seen, self.host, hops[0], "/".join(["", number, *hops[1:]]))
            status = 200 if outcome == 200 else 202
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": str(outcome).encode()})
        finally:
            self._seen.ended[path] += 1

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self.started += 1
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        except asyncio.CancelledError:
            self.killed += 1
            raise
        self.stopped += 1
        await send({"type": "lifespan.shutdown.complete"})


async def ask(session: ClientSession, seen: Seen, caller: str | None, name: str, path: str) -> int | str:
    """Call a service, and note how the call ends. A POST is not tried a second time."""
    seen.callers[path] = caller
    outcome: int | str = "not ended"
    try:
        async with session.post(f"http://{name}.internal{path}") as response:
            await response.read()
            outcome = response.status
    except (aiohttp.ClientError, LifespanError) as exc:
        outcome = type(exc).__name__
    except asyncio.CancelledError:
        outcome = CANCELLED
        raise
    finally:
        assert path not in seen.outcomes
        seen.outcomes[path] = outcome
    return outcome


class BrokenSystem(RuleBasedStateMachine):
    """Five services on an event loop of their own."""

    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=type(self).new_loop)
        self.seen = Seen()
        self.apps: list[Hop] = []
        self.numbers = iter(range(10**6))
        self.clients: dict[str, asyncio.Task[int | str]] = {}
        self.restarts: list[asyncio.Task[None]] = []
        self.blocks: list[AbstractContextManager[Any]] = []
        self.holds: list[faults.Hold] = []
        self.crashes: dict[str, AbstractAsyncContextManager[None]] = {}
        self.lost: list[Exchange] = []  # whose messages were dropped
        self.runner.run(self.open())

    async def open(self) -> None:
        self.connector = ASGIRoutingConnector(
            {host: self.new_app(host) for host in HOSTS}, keepalive_timeout=3600, shutdown_timeout=0.01
        )
        self.session = ClientSession(connector=self.connector, timeout=NEVER)
        self.recording = self.connector.record()
        self.journal = self.recording.__enter__()

    def new_app(self, host: str) -> Hop:
        self.apps.append(Hop(host, self.seen, lambda: self.session))
        return self.apps[-1]

    def run(self, step: Awaitable[None]) -> None:
        """Take one step, and everything that follows from it."""

        async def take_it() -> None:
            await soon(step)
            await settle()

        self.runner.run(take_it())

    # Requests.

    @rule(hops=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), waits=st.booleans())
    def begin_a_request(self, hops: list[str], waits: bool) -> None:
        path = "/".join(["", str(next(self.numbers)), *hops[1:]])

        async def step() -> None:
            if waits:
                self.seen.gates[path] = asyncio.Event()
            self.clients[path] = asyncio.ensure_future(ask(self.session, self.seen, None, hops[0], path))

        self.run(step())

    def waiting(self) -> list[str]:
        return [path for path, gate in self.seen.gates.items() if not gate.is_set()]

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def let_it_go_on(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(self.waiting()), label="request")

        async def step() -> None:
            self.seen.gates[path].set()

        self.run(step())

    def in_progress(self) -> list[str]:
        return [path for path, client in self.clients.items() if not client.done()]

    @precondition(lambda self: self.in_progress())
    @rule(data=st.data())
    def cancel_a_client(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(self.in_progress()), label="request")

        async def step() -> None:
            self.clients[path].cancel()
            await asyncio.wait([self.clients[path]])

        self.run(step())

    # The network.

    @precondition(lambda self: len(self.blocks) < 3)
    @rule(
        members=st.permutations([None, *HOSTS]),
        cuts=st.tuples(st.integers(1, 2), st.integers(1, 3)),
        hangs=st.booleans(),
    )
    def part(self, members: list[str | None], cuts: tuple[int, int], hangs: bool) -> None:
        first, second = cuts

        async def step() -> None:
            fault = faults.Hang() if hangs else faults.Refuse()
            groups = (members[:first], members[first : first + second])
            block = self.connector.partition(*groups, fault=fault, allow_unused=True)
            block.__enter__()
            self.blocks.append(block)

        self.run(step())

    @precondition(lambda self: len(self.holds) < 3)
    @rule(host=st.sampled_from(HOSTS), on=st.sampled_from(["request", "response"]))
    def hold(self, host: str, on: Any) -> None:
        async def step() -> None:
            hold = self.connector.hold(host, on=on, allow_unused=True)
            self.holds.append(hold.__enter__())
            self.blocks.append(hold)

        self.run(step())

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), drops=st.booleans())
    def decide_on_a_message(self, data: st.DataObject, drops: bool) -> None:
        hold = data.draw(st.sampled_from(self.holds), label="hold")

        async def step() -> None:
            try:
                [message] = await hold.wait(timeout=0)
            except AssertionError:
                return
            if drops:
                self.lost.append(message.exchange)
                message.drop()
            else:
                message.release()

        self.run(step())

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def end_a_block(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(self.blocks), label="block")

        async def step() -> None:
            self.end(block)

        self.run(step())

    def end(self, block: AbstractContextManager[Any]) -> None:
        block.__exit__(None, None, None)
        self.blocks.remove(block)
        if isinstance(block, faults.Hold):
            self.holds.remove(block)

    # The services.

    @rule(host=st.sampled_from(HOSTS))
    def crash(self, host: str) -> None:
        async def step() -> None:
            block = self.connector.crashed(host, allow_unused=True)
            if self.is_down(host):
                with pytest.raises(RuntimeError, match="the app is down already"):
                    await block.__aenter__()
            else:
                await block.__aenter__()
                self.crashes[host] = block

        self.run(step())

    def is_down(self, host: str) -> bool:
        mounted = self.connector._services.table.visible_at(host)
        assert mounted is not None
        return mounted.lifespan.outage is not None

    @precondition(lambda self: self.crashes)
    @rule(data=st.data())
    def recover(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(sorted(self.crashes)), label="host")

        async def step() -> None:
            await self.crashes.pop(host).__aexit__(None, None, None)

        self.run(step())

    @rule(host=st.sampled_from(HOSTS))
    def restart(self, host: str) -> None:
        async def step() -> None:
            if self.is_down(host):
                with pytest.raises(RuntimeError, match="the app is down already"):
                    await self.connector.restart(host)
            else:
                self.restarts.append(asyncio.ensure_future(self.connector.restart(host)))

        self.run(step())

    @rule(host=st.sampled_from(HOSTS))
    def mount_another_app(self, host: str) -> None:
        async def step() -> None:
            if host not in self.crashes:
                self.connector.mount(host, self.new_app(host))

        self.run(step())

    # The end.

    def teardown(self) -> None:
        async def heal() -> None:
            while self.blocks:
                self.end(self.blocks[-1])
            while self.crashes:
                await self.crashes.popitem()[1].__aexit__(None, None, None)
            for gate in self.seen.gates.values():
                gate.set()
            if not self.lost:  # what waits for a lost message waits on, and so does a restart that waits for that
                await asyncio.gather(*self.clients.values(), *self.restarts, return_exceptions=True)

        async def close() -> None:
            await self.session.close()
            self.recording.__exit__(None, None, None)
            await asyncio.gather(*self.clients.values(), *self.restarts, return_exceptions=True)

        try:
            self.run(heal())
            self.run(close())
            self.nothing_is_left()
            self.the_apps_have_ended()
            self.the_journal_agrees()
        finally:
            self.runner.close()

    def nothing_is_left(self) -> None:
        async def check() -> None:
            no_task_and_no_timer_is_left()

        self.runner.run(check())
        services = self.connector._services
        assert services.is_idle()
        assert not services.in_flight.connections
        assert not services.in_flight._serving
        assert not self.connector._acquired
        instruments = self.connector._instruments
        assert instruments is not None
        assert instruments.injector is None or not instruments.injector.blocks.open
        assert not instruments.recorder.recording
        for restart in self.restarts:
            assert isinstance(restart.exception(), LifespanError | RuntimeError | None), restart

    def the_apps_have_ended(self) -> None:
        assert self.seen.called == self.seen.ended
        assert set(self.seen.called.values()) <= {1}
        for app in self.apps:
            assert app.started == app.stopped + app.killed, app.host

    def the_journal_agrees(self) -> None:
        exchanges = {exchange.path: exchange for exchange in self.journal}
        assert len(exchanges) == len(self.journal)
        assert exchanges.keys() == self.seen.outcomes.keys()
        for path, exchange in exchanges.items():
            outcome = self.seen.outcomes[path]
            assert exchange.caller == self.seen.callers[path]
            assert exchange.ended
            if isinstance(outcome, int):
                assert (exchange.state, exchange.status) == ("done", outcome), exchange
                assert self.seen.called[path] == 1, exchange
            elif outcome == CANCELLED:
                # A crash may end both ends of a call.
                assert exchange.state == "abandoned" or exchange.fault == faults.Crashed(), exchange
            else:
                assert exchange.state in ("failed", "abandoned"), exchange
                assert exchange.error is None or type(exchange.error).__name__ == outcome, (exchange, outcome)
            if exchange.via != "app":
                assert self.seen.called[path] == 0, exchange


@pytest.mark.timeout(300)  # a failure is shrunk before it is shown
@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_whatever_breaks_every_request_ends_once_and_the_journal_is_true(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    machine = type("Machine", (BrokenSystem,), {"new_loop": staticmethod(new_loop)})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples(150), stateful_step_count=25, deadline=None)
    )
