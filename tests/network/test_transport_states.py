"""The states of an in-memory connection: each transition alone, and any order of events at two ends with lines.

The test runs the event loop: a turn runs what is scheduled, and time passes when the test says so.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from asgi_connector._network.impairments import (
    Allowance,
    CutStage,
    HangStage,
    Impairments,
    LatencyStage,
    Stage,
    ThrottleStage,
)
from asgi_connector._network.states import TRANSITIONS, Event, State
from asgi_connector._network.transport import MemoryTransport, connect_pair
from tests.support.effort import examples, sample

KIB = 1024
PATTERN = bytes(range(251)) * 1300  # no two places within a period are the same
RESET = ConnectionResetError("cut by the test")


class ManualLoop(asyncio.BaseEventLoop):
    """The part of an event loop that a connection needs. The test runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.close()  # nothing runs in it
        self.now = 0.0
        self.reports: list[dict[str, Any]] = []
        self._soon: deque[asyncio.Handle] = deque()
        self._later: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()

    @override
    def time(self) -> float:
        return self.now

    @override
    def call_exception_handler(self, context: Any) -> None:
        self.reports.append(context)

    @override
    def call_soon(
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append(handle)
        return handle

    @override
    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._later, (when, next(self._numbers), timer))
        return timer

    @property
    def busy(self) -> bool:
        return bool(self._soon)

    @property
    def timers(self) -> int:
        return sum(not timer.cancelled() for _, _, timer in self._later)

    def turn(self) -> None:
        """Run what is scheduled now."""
        for _ in range(len(self._soon)):
            self._run(self._soon.popleft())

    def settle(self) -> None:
        """Run turns until nothing is scheduled. No time passes."""
        for _ in range(1000):
            if not self._soon:
                return
            self.turn()
        raise AssertionError("the event loop goes on for ever")

    def advance(self, seconds: float) -> None:
        """Let time pass, and settle after each timer."""
        end = self.now + seconds
        self.settle()
        while self._later and self._later[0][0] <= end:
            when, _, timer = heapq.heappop(self._later)
            self.now = max(self.now, when)
            self._run(timer)
            self.settle()
        self.now = end

    def _run(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            handle._run()


class End(asyncio.Protocol):
    """A protocol that checks the order of its callbacks."""

    transport: MemoryTransport

    def __init__(self) -> None:
        self.written = b""
        self.received = b""
        self.eof = False
        self.losses: list[BaseException | None] = []
        self.write_paused = False
        self.keep_open = False
        self.on_data: Callable[[], object] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(MemoryTransport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        assert not self.losses
        assert not self.eof
        assert data
        self.received += data
        if self.on_data is not None:
            self.on_data()

    @override
    def eof_received(self) -> bool:
        assert not self.losses
        assert not self.eof
        self.eof = True
        return self.keep_open

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.losses
        self.losses.append(exc)

    @override
    def pause_writing(self) -> None:
        assert not self.write_paused
        self.write_paused = True

    @override
    def resume_writing(self) -> None:
        assert self.write_paused
        self.write_paused = False

    @property
    def state(self) -> State:
        return self.transport._state

    @property
    def reads(self) -> bool:
        return not self.transport._read_paused

    def write(self, size: int) -> None:
        at = len(self.written) % 251
        data = PATTERN[at : at + size]
        if self.state is State.OPEN and self.transport._peer._state is State.OPEN and size:
            self.written += data
        self.transport.write(data)


class Connection:
    """Two ends on a manual event loop."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.a, self.b = End(), End()
        connect_pair(self.loop, self.a, self.b)

    def other(self, end: End) -> End:
        return self.b if end is self.a else self.a

    def lay(self, end: End, stage: Stage) -> None:
        """Let what *end* writes from now on go through one more stage."""
        medium = end.transport.medium
        if isinstance(medium, Impairments):
            medium.add(stage)
        else:
            impairments = Impairments(end.transport)
            impairments.add(stage)
            end.transport.use_medium(impairments)

    def cut(self, end: End, reset: BaseException | None) -> None:
        """As a fault does: what the line has let through so far arrives with the cut."""
        if isinstance(end.transport.medium, Impairments):
            end.transport.medium.release_arrivals()
        end.transport.cut(reset)

    def end_has_arrived(self, end: End) -> bool:
        """Whether only the peer itself keeps the end of *end* from the peer."""
        transport = end.transport
        return transport._kept is None and (transport.medium is None or transport.medium.idle)


@pytest.fixture
def connection() -> Connection:
    return Connection()


def state_of(connection: Connection) -> tuple[State, State]:
    return connection.a.state, connection.b.state


# Each row of the table, by the shortest way to it. The end that changes is `a`.


def test_close_with_bytes_left_is_closing(connection: Connection) -> None:
    connection.a.write(10)
    connection.a.transport.close()
    assert state_of(connection) == (State.CLOSING, State.OPEN)


def test_an_open_end_that_has_read_its_peers_end_is_lost(connection: Connection) -> None:
    connection.b.write(10)
    connection.b.transport.close()
    connection.loop.turn()
    assert connection.a.received == connection.b.written
    assert state_of(connection) == (State.LOST, State.LOST)


@pytest.mark.parametrize("order", ["pause, write, cut", "write, pause, cut", "cut, pause, write", "cut, write, pause"])
@pytest.mark.parametrize("reset", [RESET, None], ids=["reset", "in order"])
def test_a_writer_that_does_not_read_learns_that_its_peer_is_lost(
    connection: Connection, order: str, reset: BaseException | None
) -> None:
    a, b = connection.a, connection.b
    steps: dict[str, Callable[[], object]] = {
        "pause": a.transport.pause_reading,
        "write": lambda: a.write(65 * KIB),
        "cut": lambda: b.transport.cut(reset),
    }
    for step in order.split(", "):
        steps[step]()
    assert a.state is State.LOST
    connection.loop.settle()
    (loss,) = a.losses
    assert loss is RESET if reset else isinstance(loss, ConnectionResetError)


@pytest.mark.parametrize("deliver", [True, False])
def test_a_writer_that_does_not_read_learns_of_a_client_that_hung_up_when_its_line_lets_the_news_through(
    connection: Connection, deliver: bool
) -> None:
    a, b = connection.a, connection.b
    connection.lay(b, LatencyStage(connection.loop, 1))
    a.transport.pause_reading()
    b.write(100)
    assert b.transport.hang_up(deliver=deliver) is False
    a.write(100)
    connection.loop.advance(0.5)
    assert state_of(connection) == (State.OPEN, State.LOST)
    assert a.transport.peer_lost
    connection.loop.advance(0.5)
    assert state_of(connection) == (State.LOST, State.LOST)


def test_a_client_that_hangs_up_over_a_line_lets_go_of_what_it_held(connection: Connection) -> None:
    a, b = connection.a, connection.b
    connection.lay(b, LatencyStage(connection.loop, 1))
    b.transport.hold_writes()
    b.write(100)
    b.transport.hang_up(deliver=True)
    connection.loop.advance(1)
    assert a.received == b.written
    assert state_of(connection) == (State.LOST, State.LOST)


def test_a_reader_that_is_paused_still_reads_what_arrived_before_its_peer_was_lost(connection: Connection) -> None:
    a, b = connection.a, connection.b
    a.transport.pause_reading()
    b.write(100)
    b.transport.cut(RESET)
    connection.loop.settle()
    assert a.state is State.OPEN  # it has nothing to write, so it cannot know
    a.transport.resume_reading()
    connection.loop.settle()
    assert a.received == b.written
    assert a.losses == [RESET]


@pytest.mark.parametrize("state", [State.OPEN, State.CLOSING])
@pytest.mark.parametrize("who", ["a", "b"])
def test_an_abort_of_either_end_loses_an_end(connection: Connection, state: State, who: str) -> None:
    if state is State.CLOSING:
        connection.a.write(10)
        connection.a.transport.close()
    getattr(connection, who).transport.abort()
    assert state_of(connection) == (State.LOST, State.LOST)


def test_an_end_that_closes_is_lost_when_all_is_delivered(connection: Connection) -> None:
    connection.a.write(10)
    connection.a.transport.close()
    connection.b.transport.pause_reading()
    connection.loop.settle()
    assert connection.a.state is State.CLOSING
    connection.b.transport.resume_reading()
    connection.loop.settle()
    assert connection.b.received == connection.a.written
    assert state_of(connection) == (State.LOST, State.LOST)


def hang_up(end: End) -> None:
    end.transport.hang_up(deliver=True)


def cut_by_reset(end: End) -> None:
    end.transport.cut(RESET)


def cut_in_order(end: End) -> None:
    end.transport.cut(None)


def close(end: End) -> None:
    end.transport.close()


@pytest.mark.parametrize("how", [close, hang_up, cut_by_reset, cut_in_order])
@pytest.mark.parametrize("over_a_line", [True, False])
def test_an_end_that_closes_does_not_wait_for_a_peer_that_has_ended(
    connection: Connection, how: Callable[[End], None], over_a_line: bool
) -> None:
    a, b = connection.a, connection.b
    if over_a_line:
        connection.lay(b, HangStage(Allowance(None, head_passed=False)))
    b.transport.pause_reading()
    a.write(10)
    a.transport.close()
    how(b)
    assert a.state is State.LOST


def test_an_end_that_closes_after_its_peer_has_ended_is_lost_at_once(connection: Connection) -> None:
    a, b = connection.a, connection.b
    connection.lay(b, HangStage(Allowance(None, head_passed=False)))
    b.write(10)
    b.transport.hang_up(deliver=True)
    a.write(10)
    a.transport.close()
    assert state_of(connection) == (State.LOST, State.LOST)


def write(end: End) -> None:
    end.transport.write(b"x")


@pytest.mark.parametrize("how", [write, close, cut_by_reset])
def test_what_an_app_does_after_its_loop_was_closed_does_nothing_and_what_else_the_loop_refuses_is_raised(
    connection: Connection, how: Callable[[End], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> asyncio.Handle:
        raise RuntimeError("as the loop says")

    monkeypatch.setattr(connection.loop, "call_soon", refuse)
    how(connection.a)
    monkeypatch.setattr(connection.loop, "is_closed", lambda: False)
    with pytest.raises(RuntimeError, match="as the loop says"):
        how(connection.b)


def test_every_event_and_state_has_its_place_in_the_table() -> None:
    assert {state for state, _ in TRANSITIONS} == {State.OPEN, State.CLOSING}
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert State.OPEN not in TRANSITIONS.values()  # nothing opens an end again


# Any order of events.

REACHABLE = {(before, after) for (before, _), after in TRANSITIONS.items()} | {(state, state) for state in State}

ends = st.sampled_from(["a", "b"])
resets = st.sampled_from([RESET, None])
SMALL, LARGE = 100, 70 * KIB  # LARGE is above the high-water mark


class TwoEndsAndALine(RuleBasedStateMachine):
    """Whatever happens, in any order: no byte is lost or doubled, and no end waits for an end that is gone."""

    @initialize()
    def connect(self) -> None:
        self.connection = Connection()
        self.stages: list[Stage] = []
        self.last = state_of(self.connection)
        self.bytes_may_be_lost = False

    def end(self, name: str) -> End:
        end: End = getattr(self.connection, name)
        return end

    @rule(name=ends, size=st.sampled_from([1, SMALL, LARGE, LARGE, 300 * KIB]))
    def write(self, name: str, size: int) -> None:
        if not self.end(name).transport._eof:
            self.end(name).write(size)

    @rule(name=ends, what=st.sampled_from(["pause", "pause", "resume"]))
    def read(self, name: str, what: str) -> None:
        getattr(self.end(name).transport, f"{what}_reading")()

    @rule(name=ends)
    def hold_or_release(self, name: str) -> None:
        transport = self.end(name).transport
        if transport._kept is None:
            transport.hold_writes()
        else:
            transport.release_writes()

    @rule(name=ends, reaction=st.sampled_from(["answer", "pause", "close", "abort", "hang up", "keep open"]))
    def react(self, name: str, reaction: str) -> None:
        """What the protocol does inside `data_received()`, or `eof_received()`."""
        end = self.end(name)
        end.keep_open = reaction == "keep open"
        end.on_data = {
            "answer": lambda: None if end.transport._eof else end.write(LARGE),
            "pause": end.transport.pause_reading,
            "close": end.transport.close,
            "abort": lambda: self.abort(name),
            "hang up": lambda: self.hang_up(name, deliver=True, at_once=False),
        }.get(reaction)

    @rule(name=ends, eof=st.booleans())
    def close(self, name: str, eof: bool) -> None:
        if eof:
            self.end(name).transport.write_eof()
        else:
            self.end(name).transport.close()

    def abort(self, name: str) -> None:
        self.bytes_may_be_lost = True
        self.end(name).transport.abort()

    @rule(name=ends, deliver=st.booleans(), at_once=st.booleans())
    def hang_up(self, name: str, deliver: bool, at_once: bool) -> None:
        self.bytes_may_be_lost = self.bytes_may_be_lost or not deliver or at_once
        self.end(name).transport.hang_up(deliver=deliver, at_once=at_once)

    @rule(name=ends, reset=resets)
    def cut(self, name: str, reset: BaseException | None) -> None:
        self.bytes_may_be_lost = True
        self.connection.cut(self.end(name), reset)

    @rule(name=ends, kind=st.sampled_from(["delay", "throttle", "hang", "hang at once", "cut"]), reset=resets)
    def lay(self, name: str, kind: str, reset: BaseException | None) -> None:
        """Add one more stage for what the end writes, including what it has written and was not delivered."""
        end, loop = self.end(name), self.connection.loop
        if end.state is not State.OPEN:
            return  # a fault begins when a request is sent, or while it is in flight
        later = Allowance(SMALL, head_passed=True)
        stages: dict[str, Callable[[], Stage]] = {
            "delay": lambda: LatencyStage(loop, 1.0),
            "throttle": lambda: ThrottleStage(loop, 100_000.0),
            "hang": lambda: HangStage(later),
            "hang at once": lambda: HangStage(Allowance(None, head_passed=True)),
            "cut": lambda: CutStage(later, lambda: loop.call_soon(self.connection.cut, end, reset)),
        }
        self.bytes_may_be_lost = self.bytes_may_be_lost or kind == "cut"
        self.stages.append(stages[kind]())
        self.connection.lay(end, self.stages[-1])

    @precondition(lambda self: self.stages)
    @rule(number=st.integers(0, 3), remove=st.booleans())
    def end_fault(self, number: int, remove: bool) -> None:
        stage = self.stages.pop(number % len(self.stages))
        if remove and stage.impairments is not None:
            stage.impairments.remove()
        else:
            stage.end_fault()

    @rule(what=st.sampled_from(["turn", "settle", "settle", "wait"]))
    def go_on(self, what: str) -> None:
        loop = self.connection.loop
        if what == "wait":
            loop.advance(1.5)
        elif what == "settle":
            loop.settle()
        else:
            loop.turn()

    @invariant()
    def states_follow_the_table(self) -> None:
        now = state_of(self.connection)
        for before, after in zip(self.last, now, strict=True):
            assert (before, after) in REACHABLE
        self.last = now

    @invariant()
    def what_arrives_is_what_was_written_in_order(self) -> None:
        for end in (self.connection.a, self.connection.b):
            assert end.written.startswith(self.connection.other(end).received)
        assert not self.connection.loop.reports

    @invariant()
    def sizes_are_true(self) -> None:
        for end in (self.connection.a, self.connection.b):
            size, peer = end.transport.get_write_buffer_size(), self.connection.other(end)
            if peer.state is not State.OPEN:
                assert size == 0  # no reader will come
            elif end.state is not State.LOST:
                assert size == len(end.written) - len(peer.received)
            elif end.transport.medium is None:
                assert size == sum(map(len, end.transport._chunks))  # what still arrives

    @invariant()
    def no_end_waits_in_vain(self) -> None:
        """When nothing is scheduled any more, an end that has not ended waits for an end that is still open."""
        if self.connection.loop.busy:
            return
        for end in (self.connection.a, self.connection.b):
            peer = self.connection.other(end)
            if end.state is State.CLOSING:
                assert peer.state is State.OPEN
            if end.state is State.OPEN and peer.state is State.LOST and self.connection.end_has_arrived(peer):
                assert not end.reads
                assert not end.write_paused
            assert len(end.losses) == (end.state is State.LOST)

    def teardown(self) -> None:
        """When every fault is over and both ends read: if one end has ended, so has the other."""
        if not hasattr(self, "connection"):
            return
        connection = self.connection
        for end in (connection.a, connection.b):
            end.on_data = None
            end.keep_open = True
            if end.transport._kept is not None:
                end.transport.release_writes()
            end.transport.resume_reading()
        for stage in self.stages:
            stage.end_fault()
        connection.loop.advance(60)
        states = state_of(connection)
        assert states in ((State.OPEN, State.OPEN), (State.LOST, State.LOST)), states
        if not self.bytes_may_be_lost and states == (State.OPEN, State.OPEN):
            for end in (connection.a, connection.b):
                assert connection.other(end).received == end.written
        connection.a.transport.close()
        connection.b.transport.close()
        connection.loop.advance(60)
        assert state_of(connection) == (State.LOST, State.LOST)
        assert all(len(end.losses) == 1 for end in (connection.a, connection.b))
        assert connection.loop.timers == 0
        assert not connection.loop.reports


TestTwoEndsAndALine = TwoEndsAndALine.TestCase
TestTwoEndsAndALine.settings = settings(max_examples=examples(600), stateful_step_count=40, deadline=None)


STEPS: list[Callable[[TwoEndsAndALine, str], None]] = [
    lambda run, name: run.write(name, size=LARGE),
    lambda run, name: run.read(name, what="pause"),
    lambda run, name: run.hold_or_release(name),
    lambda run, name: run.close(name, eof=True),
    lambda run, name: run.close(name, eof=False),
    lambda run, name: run.hang_up(name, deliver=True, at_once=False),
    lambda run, name: run.cut(name, reset=None),
    lambda run, name: run.lay(name, kind="hang at once", reset=None),
]


@pytest.mark.parametrize("settled", [True, False], ids=["each settled", "in one step"])
@pytest.mark.parametrize("first", range(len(STEPS)))
def test_every_order_of_four_events(first: int, settled: bool) -> None:
    """A random search may miss one. Without ``--thorough`` a sample of them."""
    events = list(itertools.product(STEPS, ("a", "b")))
    for sequence in sample(itertools.product([(STEPS[first], "a")], events, events, events)):
        run = TwoEndsAndALine()
        run.connect()
        for step, name in sequence:
            step(run, name)
            if settled:
                run.connection.loop.settle()
        run.connection.loop.settle()
        run.sizes_are_true()
        run.no_end_waits_in_vain()
        run.teardown()
