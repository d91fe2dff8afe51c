"""The stages of a line, and the line itself: what is written arrives whole, in order, and not too early."""

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from asgi_connector._network.impairments import (
    DELAY_WINDOW,
    Allowance,
    CutStage,
    HangStage,
    Impairments,
    LatencyStage,
    Stage,
    ThrottleStage,
)
from asgi_connector._network.transport import Medium, MemoryTransport
from tests.support.effort import examples

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class FakeClock(asyncio.BaseEventLoop):
    """The part of an event loop that a stage needs. The test moves its clock."""

    def __init__(self) -> None:
        super().__init__()
        self.close()  # nothing runs in it
        self.now = 0.0
        self.timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._made = 0

    @override
    def time(self) -> float:
        return self.now

    @override
    def call_exception_handler(self, context: Any) -> None:
        raise AssertionError(context)

    @override
    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heapq.heappush(self.timers, (when, self._made, timer))
        return timer

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled() for _, _, timer in self.timers)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and self.timers[0][0] <= end:
            when, _, timer = heapq.heappop(self.timers)
            if not timer.cancelled():
                self.now = max(self.now, when)
                timer._run()
        self.now = end


class Ground(MemoryTransport):
    """The receiver at the end of the line. It keeps what has arrived, and when."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, Context(), asyncio.Protocol(), None)
        self.clock = clock
        self.arrivals: list[tuple[float, bytes | None]] = []
        self.room = 0

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.arrivals if data is not None)

    @property
    def ends(self) -> int:
        return sum(data is None for _, data in self.arrivals)

    @override
    def use_medium(self, medium: Medium | None) -> None:
        self.medium = medium

    @override
    def arrive(self, data: bytes) -> None:
        assert not self.ends, "bytes behind the end"
        assert data, "nothing is not worth an arrival"
        self.arrivals.append((self.clock.now, data))

    @override
    def arrive_eof(self) -> None:
        self.arrivals.append((self.clock.now, None))

    @override
    def widen(self, by: int) -> None:
        self.room += by


class Way:
    """A line with some stages."""

    def __init__(self, *make: Callable[["Way"], Stage]) -> None:
        self.clock = FakeClock()
        self.ground = Ground(self.clock)
        self.impairments = Impairments(self.ground)
        self.cuts = 0
        self.stages = [each(self) for each in make]
        for stage in self.stages:
            self.impairments.add(stage)
        self.ground.use_medium(self.impairments)

    @property
    def data(self) -> bytes:
        return self.ground.data

    def lies(self) -> bool:
        """Whether the transport still carries by it."""
        return self.ground.medium is self.impairments

    def write(self, data: bytes) -> None:
        """As a transport does: by its line, as long as it has one."""
        if self.ground.medium is None:
            self.ground.arrive(data)
        else:
            self.ground.medium.carry(data)

    def write_eof(self) -> None:
        if self.ground.medium is None:
            self.ground.arrive_eof()
        else:
            self.ground.medium.carry_eof()

    def cut(self) -> None:
        self.cuts += 1
        self.impairments.release_arrivals()
        self.impairments.drop()

    def end(self) -> None:
        for stage in self.stages:
            stage.end_fault()


def latency(seconds: float) -> Callable[[Way], Stage]:
    return lambda way: LatencyStage(way.clock, seconds)


def throttle(rate: float) -> Callable[[Way], Stage]:
    return lambda way: ThrottleStage(way.clock, rate)


def hang(after: int | None, *, head_passed: bool = False) -> Callable[[Way], Stage]:
    return lambda way: HangStage(Allowance(after, head_passed=head_passed))


def cut(after: int | None, *, head_passed: bool = False) -> Callable[[Way], Stage]:
    return lambda way: CutStage(Allowance(after, head_passed=head_passed), way.cut)


def allowed(data: bytes, after: int | None, *, head_passed: bool = False) -> bytes:
    """A head in *data* and the *after* bytes that follow it. Like `Allowance`, for all of the data at once."""
    if after is None:
        return b""
    if head_passed:
        return data[:after]
    end = data.find(b"\r\n\r\n")
    return data if end < 0 else data[: end + 4 + after]


# The stages, one by one.


def test_each_byte_is_late_once_and_by_the_same_time() -> None:
    way = Way(latency(0.5))
    way.write(b"a")
    way.clock.advance(0.25)
    way.write(b"b")
    way.clock.advance(0.125)
    way.write_eof()
    way.clock.advance(10)
    assert way.ground.arrivals == [(0.5, b"a"), (0.75, b"b"), (0.875, None)]
    assert way.clock.pending == 0


def test_a_delay_that_is_over_lets_what_is_on_its_way_arrive_when_it_would_have_and_what_follows_behind_it() -> None:
    way = Way(latency(1.0))
    way.write(b"late")
    way.clock.advance(0.25)
    way.end()
    way.write(b" and behind it")
    assert way.lies()
    way.clock.advance(0.5)
    assert way.data == b""
    way.clock.advance(0.25)
    assert way.ground.arrivals == [(1.0, b"late"), (1.0, b" and behind it")]
    assert not way.lies()
    assert way.ground.room == 0
    way.write(b"!")
    assert way.ground.arrivals[2:] == [(1.0, b"!")]


def test_a_delay_has_room_for_what_is_on_its_way_and_a_slow_link_has_none() -> None:
    assert Way(latency(1)).ground.room == DELAY_WINDOW
    assert Way(throttle(1)).ground.room == 0
    assert Way(hang(None)).ground.room == 0
    assert Way(cut(None)).ground.room == 0


def test_a_slow_link_passes_slices_each_when_its_last_byte_has_passed() -> None:
    way = Way(throttle(80))  # slices of 4 bytes, each of 1/20 s
    way.write(b"abcdefghij")
    way.write_eof()
    way.clock.advance(10)
    times = [round(time, 9) for time, _ in way.ground.arrivals]
    assert [data for _, data in way.ground.arrivals] == [b"abcd", b"efgh", b"ij", None]
    assert times == [0.05, 0.1, 0.125, 0.125]


def test_a_slow_link_does_not_save_up_time_in_which_nothing_was_sent() -> None:
    way = Way(throttle(20))
    way.clock.advance(8)
    way.write(b"ab")
    way.clock.advance(8)
    way.write(b"c")
    way.clock.advance(8)
    assert [(round(time, 9), data) for time, data in way.ground.arrivals] == [(8.05, b"a"), (8.1, b"b"), (16.05, b"c")]


def test_a_link_of_less_than_a_byte_a_second_passes_byte_by_byte() -> None:
    way = Way(throttle(0.5))
    way.write(b"ab")
    way.clock.advance(100)
    assert way.ground.arrivals == [(2.0, b"a"), (4.0, b"b")]


def test_a_slow_link_that_is_over_lets_go_at_once() -> None:
    way = Way(throttle(1))
    way.write(b"abc")
    way.write_eof()
    way.clock.advance(1)
    way.end()
    assert way.ground.arrivals == [(1.0, b"a"), (1.0, b"bc"), (1.0, None)]
    assert way.clock.pending == 0
    assert not way.lies()


@pytest.mark.parametrize("pieces", [1, 2, 3, 1000])
@pytest.mark.parametrize(("after", "arrives"), [(None, b""), (0, HEAD), (3, HEAD + b"012")])
@pytest.mark.parametrize("stage", [hang, cut], ids=["hang", "cut"])
def test_so_much_of_a_part_passes_in_however_many_pieces_it_is_written(
    stage: Callable[[int | None], Callable[[Way], Stage]], after: int | None, arrives: bytes, pieces: int
) -> None:
    way = Way(stage(after))
    data = HEAD + b"0123456789"
    size = max(1, len(data) // pieces)
    for at in range(0, len(data), size):
        way.write(data[at : at + size])
    assert way.data == arrives
    assert way.cuts == (stage is cut)


@pytest.mark.parametrize("after", [None, 0, 3])
def test_an_interim_response_is_no_part_of_the_response(after: int | None) -> None:
    way = Way(hang(after))
    way.write(CONTINUE)
    way.write(HEAD)
    way.write(b"0123456789")
    assert way.data == CONTINUE + allowed(HEAD + b"0123456789", after)


@pytest.mark.parametrize("after", [0, 3])
def test_of_a_part_whose_head_has_passed_so_many_bytes_pass(after: int) -> None:
    way = Way(hang(after, head_passed=True))
    way.write(HEAD)  # what looks like a head is not one
    assert way.data == HEAD[:after]


def test_a_cut_comes_as_soon_as_all_that_may_pass_has_passed() -> None:
    way = Way(cut(3))
    way.write(HEAD + b"01")
    assert way.cuts == 0
    way.write(b"2")
    assert way.cuts == 1
    way.write(b"3")
    way.write_eof()
    assert way.cuts == 1
    assert way.ground.arrivals == [(0, HEAD + b"01"), (0, b"2")]


def test_a_cut_that_is_over_lets_everything_through() -> None:
    way = Way(cut(3))
    way.write(HEAD)
    way.end()
    assert not way.lies()
    way.stages[0].carry(b"0123456789")
    assert way.data == HEAD + b"0123456789"
    assert way.cuts == 0


def test_what_ends_before_the_place_of_the_fault_ends() -> None:
    for stage in (hang, cut):
        way = Way(stage(3))
        way.write(HEAD + b"01")
        way.write_eof()
        assert way.ground.arrivals == [(0, HEAD + b"01"), (0, None)]
        assert way.cuts == 0


@pytest.mark.parametrize("after", [None, 0, 2])
def test_the_end_of_a_part_does_not_pass_a_silence_that_has_begun(after: int | None) -> None:
    way = Way(hang(after, head_passed=True))
    if after:
        way.write(b"01")
    way.write_eof()
    assert way.ground.ends == 0
    way.end()
    assert way.ground.ends == 1
    assert not way.lies()


def test_a_silence_that_is_over_lets_go_of_what_it_kept_in_order() -> None:
    way = Way(hang(1, head_passed=True))
    for data in (b"ab", b"cd", b"ef"):
        way.write(data)
    way.write_eof()
    way.end()
    assert way.ground.arrivals == [(0, b"a"), (0, b"b"), (0, b"cd"), (0, b"ef"), (0, None)]


# Several stages.


def test_what_delays_comes_first_then_what_is_silent_then_what_cuts_whatever_the_order_of_the_blocks() -> None:
    way = Way(cut(2, head_passed=True), hang(None), throttle(100), latency(1))
    way.write(b"abc")
    way.clock.advance(10)
    assert way.data == b""
    way.stages[1].end_fault()
    assert way.data == b"ab"
    assert way.cuts == 1


def test_delays_add_up() -> None:
    way = Way(latency(1), latency(0.5), latency(0.25))
    way.write(b"a")
    way.write_eof()
    way.clock.advance(10)
    assert way.ground.arrivals == [(1.75, b"a"), (1.75, None)]
    assert way.ground.room == 3 * DELAY_WINDOW


def test_the_first_of_two_cuts_is_the_last_thing_that_happens() -> None:
    way = Way(cut(5, head_passed=True), cut(2, head_passed=True))
    way.write(b"abcdefgh")
    assert way.data == b"ab"
    assert way.cuts == 1


def test_a_line_stays_until_the_last_of_its_stages_is_over() -> None:
    way = Way(hang(None), latency(1))
    way.write(b"abc")
    way.stages[1].end_fault()
    way.clock.advance(2)
    assert way.lies()
    way.stages[0].end_fault()
    assert not way.lies()
    assert way.data == b"abc"


def test_a_line_that_is_removed_lets_go_of_all_at_once_in_order() -> None:
    way = Way(latency(1), throttle(1), hang(None))
    for data in (b"a", b"b", b"c"):
        way.write(data)
        way.clock.advance(1)
    way.write_eof()
    way.impairments.remove()
    assert way.data == b"abc"
    assert way.ground.ends == 1
    assert not way.lies()
    assert way.ground.room == 0
    assert way.clock.pending == 0
    way.end()  # its blocks end later, and no longer have any effect
    assert way.data == b"abc"


def test_what_is_dropped_does_not_arrive_and_leaves_no_timer() -> None:
    way = Way(latency(1), throttle(2), hang(1, head_passed=True))
    way.write(b"abcdef")
    way.clock.advance(1.75)
    assert way.data == b"a"
    way.impairments.drop()
    assert way.impairments.idle
    assert way.clock.pending == 0
    way.end()
    way.clock.advance(100)
    assert way.ground.arrivals == [(1.5, b"a")]


def test_what_waits_for_a_cut_is_dropped_too() -> None:
    way = Way(lambda way: CutStage(Allowance(3, head_passed=True), lambda: None))
    way.write(b"abc")
    way.impairments.drop()
    way.impairments.release_arrivals()
    assert way.data == b""


def test_a_slow_link_keeps_a_large_write_in_one_piece_until_its_time_comes() -> None:
    way = Way(throttle(10))
    way.write(bytes(1_000_000))
    stage = way.stages[0]
    assert isinstance(stage, ThrottleStage)
    assert len(stage._queue) == 1
    way.clock.advance(1.0)
    assert len(way.data) == 10
    assert len(stage._queue) == 1


# Any combination of stages.

SECONDS = st.sampled_from([0.0, 0.125, 0.25, 1.0, 7.5])
AFTER = st.none() | st.integers(0, 12)
LETTING = st.one_of(
    st.builds(latency, SECONDS),
    st.builds(throttle, st.sampled_from([0.5, 3, 64, 1000])),
    st.builds(hang, AFTER, head_passed=st.booleans()),
)
INTERIM = b"HTTP/1.1 100 "  # it passes everything, and has its own test
PIECES = st.lists(
    st.binary(min_size=1, max_size=24).filter(lambda data: not data.startswith(INTERIM))
    | st.sampled_from([HEAD, HEAD[:-3], b"\r\n", b"\r"]),
    max_size=10,
)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.binary(min_size=1, max_size=24) | st.sampled_from([HEAD, b"\r\n\r\n", b"\r\n"])),
        st.tuples(st.just("pass"), SECONDS),
        st.tuples(st.just("end"), st.integers(0, 3)),
    ),
    max_size=20,
)


def act(way: Way, actions: list[tuple[str, Any]]) -> bytes:
    """Do what is due. Returns what was written."""
    written = b""
    for name, value in actions:
        if name == "write":
            written += value
            way.write(value)
        elif name == "pass":
            way.clock.advance(value)
        elif value < len(way.stages):
            way.stages[value].end_fault()
        assert way.ground.ends == 0
        assert written.startswith(way.data)
    return written


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(LETTING, max_size=4), ACTIONS, st.booleans())
def test_whatever_is_written_arrives_whole_and_in_order_when_all_is_over(
    stages: list[Callable[[Way], Stage]], actions: list[tuple[str, Any]], ends: bool
) -> None:
    way = Way(*stages)
    written = act(way, actions)
    if ends:
        way.write_eof()
    way.end()
    way.clock.advance(1000)
    assert way.data == written
    assert way.ground.ends == ends
    assert not (way.lies() and stages)
    assert way.ground.room == 0
    assert way.clock.pending == 0


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(LETTING, max_size=3), PIECES, AFTER, st.booleans())
def test_what_is_cut_is_cut_at_its_place_whatever_delays_it(
    stages: list[Callable[[Way], Stage]], pieces: list[bytes], after: int | None, head_passed: bool
) -> None:
    way = Way(cut(after, head_passed=head_passed), *stages)
    for data in pieces:
        way.write(data)
        way.clock.advance(0.25)
    for stage in way.stages[1:]:
        stage.end_fault()
    way.clock.advance(1000)
    written = b"".join(pieces)
    expected = allowed(written, after, head_passed=head_passed)
    assert way.data == expected
    # With no bytes after the place of the cut, the cut comes only if the line knows that the place is reached.
    reached = len(expected) < len(written) or (
        after is not None and expected != b"" and expected == allowed(written + b"x", after, head_passed=head_passed)
    )
    assert way.cuts == reached
    assert way.impairments.idle
    assert way.clock.pending == 0


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(LETTING, max_size=4), ACTIONS, st.sampled_from(["drop", "remove"]), PIECES)
def test_a_line_may_be_dropped_or_removed_at_any_time(
    stages: list[Callable[[Way], Stage]], actions: list[tuple[str, Any]], what: str, more: list[bytes]
) -> None:
    way = Way(*stages)
    written = act(way, actions)
    arrived = way.data
    if what == "drop":
        way.impairments.drop()
        assert way.data == arrived
    else:
        way.impairments.remove()
        assert way.data == written
    assert way.impairments.idle
    assert way.clock.pending == 0
    for data in more:
        way.write(data)
    way.end()
    way.clock.advance(1000)
    before = arrived if what == "drop" else written
    assert way.data == before + b"".join(more)
    assert way.clock.pending == 0


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8), st.sampled_from([0.5, 20, 33, 4000]))
def test_no_byte_of_a_slow_link_comes_sooner_than_its_rate_allows(pieces: list[bytes], rate: float) -> None:
    way = Way(throttle(rate))
    for data in pieces:
        way.write(data)
    way.clock.advance(1e6)
    sizes = list(accumulate(len(data) for _, data in way.ground.arrivals if data is not None))
    assert sizes[-1] == len(b"".join(pieces))
    for (time, _), size in zip(way.ground.arrivals, sizes, strict=True):
        assert time == pytest.approx(size / rate)
