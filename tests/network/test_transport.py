"""One contract, for our in-memory pair and for asyncio's own transports on a real socket pair.

Both must do what asyncio promises. If the in-memory pair does more than a socket can, or deliberately differs, there is
a separate test whose name begins with ``test_only_in_memory``.
"""

import asyncio
import contextvars
import itertools
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_connector._network.flow import HIGH_WATER
from asgi_connector._network.transport import SLICE, MemoryTransport, connect_pair
from tests.support.effort import examples
from tests.support.reports import collect_reports
from tests.support.waiting import settle, until

KIB = 1024
MIB = 1024 * 1024


class Recorder(asyncio.Protocol):
    """Keeps the calls of its transport, in order. The test's `reactions` run inside the callback."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.calls: list[str] = []  # a run of data_received() counts once, however the bytes are split
        self.pieces: list[bytes] = []
        self.exc: BaseException | None = None
        self.reactions: dict[str, Callable[[], object]] = {}
        self._news = asyncio.Event()

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def flow(self) -> list[str]:
        return [call for call in self.calls if call in ("pause", "resume")]

    @property
    def story(self) -> list[str]:
        """The calls, without those of flow control."""
        return [call for call in self.calls if call not in ("pause", "resume")]

    def _note(self, call: str) -> object:
        if call != "data" or self.calls[-1:] != ["data"]:
            self.calls.append(call)
        self._news.set()
        reaction = self.reactions.get(call)
        return reaction() if reaction else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._note("made")

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self._note("data")

    def eof_received(self) -> bool | None:
        keep_open = self._note("eof")
        assert keep_open is None or isinstance(keep_open, bool)
        return keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.exc = exc
        self._note("lost")

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def until_received(self, size: int) -> None:
        await self.until(lambda: sum(map(len, self.pieces)) >= size)

    async def until_called(self, call: str) -> None:
        await self.until(lambda: call in self.calls)

    def check(self) -> None:
        """What is true for every connection, whatever happened to it."""
        assert self.calls[:1] == ["made"]
        assert self.calls.count("made") == 1
        assert self.calls.count("eof") <= 1
        assert self.calls[-1] == "lost"
        assert self.calls.count("lost") == 1
        assert all(before != after for before, after in itertools.pairwise(self.flow))
        assert self.flow[:1] in ([], ["pause"])
        assert b"" not in self.pieces


@dataclass
class Pair:
    a: Recorder
    b: Recorder
    in_memory: bool


async def connect_in_memory(a: Recorder, b: Recorder) -> None:
    connect_pair(asyncio.get_running_loop(), a, b)


async def connect_sockets(a: Recorder, b: Recorder) -> None:
    loop = asyncio.get_running_loop()
    create = loop.create_connection if sys.platform == "win32" else loop.create_unix_connection
    for protocol, sock in zip((a, b), socket.socketpair(), strict=True):
        sock.setblocking(False)
        await create(partial(_itself, protocol), sock=sock)


def _itself(protocol: Recorder) -> Recorder:
    return protocol


CONNECT: dict[str, Callable[[Recorder, Recorder], Awaitable[None]]] = {
    "memory": connect_in_memory,
    "sockets": connect_sockets,
}


@asynccontextmanager
async def connected(kind: str) -> AsyncIterator[Pair]:
    """A connected pair. At the end both connections are closed, and their callbacks came in the right order."""
    pair = Pair(Recorder(), Recorder(), kind == "memory")
    await CONNECT[kind](pair.a, pair.b)
    yield pair
    await end_all(pair.a, pair.b)


async def end_all(*ends: Recorder) -> None:
    for end in ends:
        if "lost" not in end.calls:  # after it, abort() of CPython's own may raise
            end.transport.abort()
    for end in ends:
        await end.until_called("lost")
    await settle()
    for end in ends:
        end.check()


@pytest_asyncio.fixture(params=list(CONNECT))
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with connected(request.param) as made:
        yield made


@pytest_asyncio.fixture
async def memory() -> AsyncIterator[Pair]:
    async with connected("memory") as made:
        yield made


def end_of(transport: asyncio.BaseTransport) -> MemoryTransport:
    assert isinstance(transport, MemoryTransport)
    return transport


def asyncio_sockets_only(in_memory: bool, reason: str) -> None:
    if not in_memory and not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        pytest.skip(f"the contract is asyncio's, and uvloop's own sockets differ: {reason}")


def fill(end: Recorder) -> int:
    """Write until paused. Returns how many bytes that took."""
    size = 0
    while end.flow[-1:] != ["pause"]:
        end.transport.write(bytes(64 * KIB))
        size += 64 * KIB
    return size


def pattern(size: int, *, seed: int = 0) -> bytes:
    """Bytes in which no part repeats."""
    return random.Random(seed).randbytes(size)


# Ordering.


async def test_bytes_arrive_in_the_order_in_which_they_were_written(pair: Pair) -> None:
    written = [pattern(size, seed=size) for size in (1, 2, 70_000, 3, 300_000, 1, 1_000_001)]
    for data in written:
        pair.a.transport.write(data)
    await pair.b.until_received(sum(map(len, written)))
    assert pair.b.received == b"".join(written)
    assert pair.a.pieces == []


async def test_what_was_written_can_be_delivered_at_once(memory: Pair) -> None:
    """In the context of the connection. What is written later in the same turn follows."""
    variable = contextvars.ContextVar("variable", default="of the connection")
    seen: list[str] = []
    memory.b.reactions["data"] = lambda: seen.append(variable.get())
    variable.set("of the writer")
    writer = end_of(memory.a.transport)
    writer.deliver_now()
    assert memory.b.received == b""
    writer.write(b"one")
    writer.deliver_now()
    assert memory.b.received == b"one"
    writer.write(b"two")
    assert memory.b.received == b"one"
    await settle()
    assert memory.b.received == b"onetwo"
    assert seen == ["of the connection"] * 2


async def test_what_was_written_to_a_paused_reader_is_not_delivered_at_once(memory: Pair) -> None:
    memory.b.transport.pause_reading()
    writer = end_of(memory.a.transport)
    writer.write(b"one")
    writer.deliver_now()
    memory.b.transport.resume_reading()
    writer.write(b"two")
    memory.b.transport.pause_reading()
    writer.deliver_now()
    assert memory.b.received == b""
    memory.b.transport.resume_reading()
    await settle()
    assert memory.b.received == b"onetwo"


async def test_both_directions_carry_bytes_at_the_same_time(pair: Pair) -> None:
    down, up = pattern(500_000, seed=1), pattern(700_000, seed=2)
    pair.a.transport.write(down)
    pair.b.transport.write(up)
    await pair.b.until_received(len(down))
    await pair.a.until_received(len(up))
    assert pair.b.received == down
    assert pair.a.received == up


async def test_writes_and_writelines_arrive_in_one_order(pair: Pair) -> None:
    pair.a.transport.write(b"1")
    pair.a.transport.writelines([b"2", b"", bytearray(b"3"), memoryview(b"4")])
    pair.a.transport.write(b"5")
    await pair.b.until_received(5)
    assert pair.b.received == b"12345"


async def test_writelines_takes_any_iterable(memory: Pair) -> None:
    memory.a.transport.writelines(piece for piece in (b"1", b"2"))
    await memory.b.until_received(2)
    assert memory.b.received == b"12"


@pytest.mark.parametrize("make", [bytearray, lambda data: memoryview(bytearray(data))])
async def test_what_was_written_does_not_change_with_its_owner(
    pair: Pair, make: Callable[[bytes], bytearray | memoryview]
) -> None:
    data = make(b"before")
    pair.a.transport.write(data)
    data[:] = b"after!"
    await pair.b.until_received(6)
    assert pair.b.received == b"before"
    assert type(pair.b.pieces[0]) is bytes


async def test_a_view_of_other_items_than_bytes_counts_its_bytes(memory: Pair) -> None:
    view = memoryview(bytearray(8)).cast("I")
    memory.a.transport.write(view)
    assert memory.a.transport.get_write_buffer_size() == 8
    await memory.b.until_received(8)
    assert memory.b.received == bytes(8)


async def test_an_empty_write_is_not_delivered(pair: Pair) -> None:
    for empty in (b"", bytearray(), memoryview(b"")):
        pair.a.transport.write(empty)
    pair.a.transport.writelines([])
    if pair.in_memory:  # CPython's own asserts that there are bytes
        pair.a.transport.writelines([b"", b""])
    await settle()
    assert pair.b.calls == ["made"]


@pytest.mark.parametrize("data", ["text", None, 1, [b"list"]])
async def test_only_bytes_can_be_written(pair: Pair, data: Any) -> None:
    asyncio_sockets_only(pair.in_memory, "its write(None) does nothing")
    with pytest.raises(TypeError):
        pair.a.transport.write(data)
    await settle()
    assert pair.b.calls == ["made"]
    assert not pair.a.transport.is_closing()


async def test_a_write_never_calls_the_peer(pair: Pair) -> None:
    pair.a.transport.write(b"x")
    pair.a.transport.writelines([b"y"])
    pair.a.transport.write_eof()
    pair.a.transport.close()
    assert pair.b.calls == ["made"]
    assert pair.a.calls == ["made"]
    await pair.b.until_called("lost")
    assert pair.b.calls == ["made", "data", "eof", "lost"]


async def test_an_abort_calls_nobody_before_it_returns(pair: Pair) -> None:
    pair.a.transport.abort()
    assert pair.a.calls == pair.b.calls == ["made"]
    await pair.a.until_called("lost")
    await pair.b.until_called("lost")


async def test_what_is_written_in_one_step_arrives_at_once(pair: Pair) -> None:
    asyncio_sockets_only(pair.in_memory, "its write() may send a first part before the step is over")
    for _ in range(100):
        pair.a.transport.write(b"x")
    await pair.b.until_received(100)
    assert pair.b.pieces == [b"x" * 100]


async def test_bytes_are_delivered_in_bounded_slices(pair: Pair) -> None:
    data = pattern(3 * SLICE + 1)
    pair.a.transport.write(data)
    await pair.b.until_received(len(data))
    assert max(map(len, pair.b.pieces)) <= 256 * KIB
    assert pair.b.received == data


@pytest.mark.parametrize(
    ("sizes", "slices"),
    [
        ([SLICE], [SLICE]),
        ([SLICE + 1], [SLICE, 1]),
        ([4 * SLICE + 1], [SLICE] * 4 + [1]),
        ([SLICE - 1, 2], [SLICE - 1, 2]),
        ([1, SLICE - 1, 1], [SLICE, 1]),
        ([1, SLICE, 1], [1, SLICE, 1]),
        ([1, SLICE + 2], [1, SLICE, 2]),
        ([SLICE + 1, SLICE - 1], [SLICE, SLICE]),
    ],
)
async def test_a_slice_holds_whole_writes_and_is_never_above_its_bound(
    memory: Pair, sizes: list[int], slices: list[int]
) -> None:
    data = pattern(sum(sizes))
    at = 0
    for size in sizes:
        memory.a.transport.write(data[at : at + size])
        at += size
    await memory.b.until_received(len(data))
    assert [len(piece) for piece in memory.b.pieces] == slices
    assert memory.b.received == data


async def test_other_callbacks_run_between_two_slices(memory: Pair) -> None:
    journal: list[str] = []
    loop = asyncio.get_running_loop()

    def delivered() -> None:
        journal.append("slice")
        loop.call_soon(journal.append, "other")

    memory.b.reactions["data"] = delivered
    memory.a.transport.write(bytes(3 * SLICE))
    await memory.b.until_received(3 * SLICE)
    await until(lambda: journal == ["slice", "other"] * 3)


# Flow control.


async def test_a_writer_that_obeys_is_paused_and_resumed_in_strict_alternation(pair: Pair) -> None:
    data = pattern(4 * MIB)
    left = [data[at : at + 32 * KIB] for at in range(0, len(data), 32 * KIB)]

    def write_on() -> None:
        while left and pair.a.flow[-1:] != ["pause"]:
            pair.a.transport.write(left.pop(0))

    pair.a.reactions["resume"] = write_on
    write_on()
    await pair.b.until_received(len(data))
    assert pair.b.received == data
    assert len(pair.a.flow) >= 4
    assert pair.a.flow == ["pause", "resume"] * (len(pair.a.flow) // 2)
    assert pair.b.flow == []


async def test_a_writer_that_does_not_obey_is_told_once(pair: Pair) -> None:
    pair.b.transport.pause_reading()
    size = fill(pair.a)
    for _ in range(20):
        pair.a.transport.write(bytes(64 * KIB))
        size += 64 * KIB
    assert pair.a.flow == ["pause"]
    pair.b.transport.resume_reading()
    await pair.b.until_received(size)
    await pair.a.until_called("resume")
    assert pair.a.flow == ["pause", "resume"]


async def test_a_writer_is_told_to_pause_before_its_write_returns(pair: Pair) -> None:
    pair.b.transport.pause_reading()
    fill(pair.a)
    assert pair.a.calls[-1] == "pause"


async def test_the_high_mark_itself_is_not_above_the_high_mark(pair: Pair) -> None:
    asyncio_sockets_only(pair.in_memory, "it counts what it has not tried to send yet")
    pair.b.transport.pause_reading()
    fill(pair.a)
    pair.b.transport.resume_reading()
    await pair.a.until_called("resume")
    pair.b.transport.pause_reading()
    while not pair.a.transport.get_write_buffer_size():
        pair.a.transport.write(bytes(16 * KIB))
    size = pair.a.transport.get_write_buffer_size()
    assert pair.a.flow == ["pause", "resume"]
    pair.a.transport.set_write_buffer_limits(high=size + 10)
    pair.a.transport.write(bytes(10))
    assert pair.a.flow == ["pause", "resume"]
    pair.a.transport.write(b"!")
    assert pair.a.flow == ["pause", "resume", "pause"]


async def test_a_reader_that_is_paused_gets_nothing_until_it_resumes(pair: Pair) -> None:
    pair.b.transport.pause_reading()
    pair.a.transport.write(b"one")
    await settle()
    pair.a.transport.write(b"two")
    pair.a.transport.write_eof()
    await settle()
    assert pair.b.calls == ["made"]
    pair.b.transport.resume_reading()
    assert pair.b.calls == ["made"]
    await pair.b.until_called("lost")
    assert pair.b.received == b"onetwo"
    assert pair.b.calls == ["made", "data", "eof", "lost"]


async def test_a_reader_that_pauses_while_bytes_are_under_way_does_not_get_them(memory: Pair) -> None:
    memory.a.transport.write(b"x")
    memory.b.transport.pause_reading()
    await settle()
    assert memory.b.calls == ["made"]
    memory.b.transport.resume_reading()
    await memory.b.until_received(1)


@pytest.mark.parametrize("size", [1, 600 * KIB])
async def test_a_reader_that_pauses_in_data_received_gets_no_more_of_it(pair: Pair, size: int) -> None:
    pair.b.reactions["data"] = lambda: pair.b.transport.pause_reading()
    pair.a.transport.write(bytes(size))
    pair.a.transport.write_eof()
    await pair.b.until_received(1)
    await settle()
    assert pair.b.calls == ["made", "data"]
    assert len(pair.b.pieces) == 1
    while not pair.b.transport.is_closing():
        pair.b.transport.resume_reading()
        await settle()
    assert pair.b.received == bytes(size)
    assert pair.b.story == ["made", "data", "eof", "lost"]


async def test_pausing_and_resuming_twice_is_once(pair: Pair) -> None:
    reader = pair.b.transport
    reader.resume_reading()
    reader.pause_reading()
    reader.pause_reading()
    pair.a.transport.write(b"x")
    await settle()
    assert pair.b.pieces == []
    reader.resume_reading()
    reader.resume_reading()
    await pair.b.until_received(1)
    await settle()
    assert pair.b.pieces == [b"x"]


async def test_is_reading_tells_whether_bytes_may_come(pair: Pair) -> None:
    reader = pair.b.transport
    assert reader.is_reading()
    reader.pause_reading()
    assert not reader.is_reading()
    reader.resume_reading()
    assert reader.is_reading()
    reader.close()
    assert not reader.is_reading()


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, (16 * KIB, 64 * KIB)),
        ({"high": 1000}, (250, 1000)),
        ({"low": 1000}, (1000, 4000)),
        ({"high": 1000, "low": 10}, (10, 1000)),
        ({"high": 10, "low": 10}, (10, 10)),
        ({"high": 0}, (0, 0)),
    ],
)
async def test_the_marks_are_what_asyncio_documents(
    pair: Pair, limits: dict[str, int], expected: tuple[int, int]
) -> None:
    asyncio_sockets_only(pair.in_memory, "its low mark is 16 bytes")
    assert pair.a.transport.get_write_buffer_limits() == (HIGH_WATER // 4, HIGH_WATER) == (16 * KIB, 64 * KIB)
    pair.a.transport.set_write_buffer_limits(**limits)
    assert pair.a.transport.get_write_buffer_limits() == expected
    assert pair.b.transport.get_write_buffer_limits() == (16 * KIB, 64 * KIB)


@pytest.mark.parametrize("limits", [{"high": 1, "low": 2}, {"high": -1}, {"low": -1}, {"high": 10, "low": -1}])
async def test_impossible_marks_are_refused_and_change_nothing(pair: Pair, limits: dict[str, int]) -> None:
    asyncio_sockets_only(pair.in_memory, "its low mark is 16 bytes")
    with pytest.raises(ValueError, match=r"high \(.*\) must be >= low"):
        pair.a.transport.set_write_buffer_limits(**limits)
    assert pair.a.transport.get_write_buffer_limits() == (16 * KIB, 64 * KIB)


async def test_a_mark_lowered_below_what_is_buffered_pauses_at_once(pair: Pair) -> None:
    asyncio_sockets_only(pair.in_memory, "it looks at the marks only when it writes")
    pair.b.transport.pause_reading()
    while not pair.a.transport.get_write_buffer_size():
        pair.a.transport.write(bytes(32 * KIB))
    assert pair.a.flow == []
    pair.a.transport.set_write_buffer_limits(high=pair.a.transport.get_write_buffer_size() - 1)
    assert pair.a.flow == ["pause"]


async def test_only_in_memory_a_mark_raised_above_what_is_buffered_resumes_at_once(pair: Pair) -> None:
    """asyncio's own transport checks the low mark only after it has sent something."""
    pair.b.transport.pause_reading()
    fill(pair.a)
    pair.a.transport.set_write_buffer_limits(low=MIB)
    assert pair.a.flow == (["pause", "resume"] if pair.in_memory else ["pause"])


async def test_with_a_high_mark_of_zero_each_write_pauses_and_an_empty_pipe_resumes(memory: Pair) -> None:
    memory.a.transport.set_write_buffer_limits(high=0)
    for sent in range(3):
        assert memory.a.flow == ["pause", "resume"] * sent
        memory.a.transport.write(b"x")
        assert memory.a.flow[-1] == "pause"
        await memory.b.until_received(sent + 1)
    assert memory.a.flow == ["pause", "resume"] * 3


async def test_writelines_is_held_against_the_same_marks_as_write(memory: Pair) -> None:
    """asyncio's sockets do not do this: they forgot it in 3.12 and 3.13.0 (python/cpython#127655)."""
    memory.a.transport.writelines([bytes(64 * KIB)])
    assert memory.a.flow == []
    memory.a.transport.writelines([b"x"])
    assert memory.a.flow == ["pause"]


async def test_only_in_memory_the_marks_count_every_byte_that_the_other_end_has_not_been_given(pair: Pair) -> None:
    """The kernel buffer of a socket takes the first bytes, and they are not counted."""
    pair.b.transport.pause_reading()
    pair.a.transport.write(b"12345")
    assert pair.a.transport.get_write_buffer_size() == (5 if pair.in_memory else 0)
    pair.a.transport.write(bytes(64 * KIB - 5))
    assert pair.a.flow == []
    pair.a.transport.write(b"!")
    assert pair.a.flow == (["pause"] if pair.in_memory else [])


@pytest.mark.parametrize(("left", "flow"), [(16 * KIB, ["pause", "resume"]), (16 * KIB + 1, ["pause"])])
async def test_writing_resumes_at_the_low_mark_and_not_above_it(memory: Pair, left: int, flow: list[str]) -> None:
    memory.b.reactions["data"] = memory.b.transport.pause_reading
    memory.a.transport.write(bytes(SLICE))
    memory.a.transport.write(bytes(left))
    await memory.b.until_received(SLICE)
    await settle()
    assert memory.a.transport.get_write_buffer_size() == left
    assert memory.a.flow == flow


async def test_nothing_is_paused_or_resumed_after_the_connection_is_lost(pair: Pair) -> None:
    asyncio_sockets_only(pair.in_memory, "it raises when it is used after its end")
    pair.b.transport.pause_reading()
    fill(pair.a)
    pair.a.transport.abort()
    await pair.a.until_called("lost")
    pair.a.transport.set_write_buffer_limits(high=0)
    pair.a.transport.write(bytes(MIB))
    pair.b.transport.resume_reading()
    await settle()
    assert pair.a.calls == ["made", "pause", "lost"]


async def test_a_writer_whose_reader_has_closed_stays_paused_until_its_connection_is_lost(memory: Pair) -> None:
    """Otherwise a writer that waits only for the end of its pause would continue forever."""
    memory.b.transport.pause_reading()
    memory.b.transport.close()
    memory.a.transport.write(b"x")
    assert memory.a.flow == ["pause"]
    assert memory.a.transport.get_write_buffer_size() == 0
    await memory.a.until_called("lost")
    assert memory.a.calls == ["made", "pause", "eof", "lost"]
    assert memory.a.exc is None


# Half-close.


async def test_an_end_that_has_written_its_last_can_still_read(pair: Pair) -> None:
    pair.b.reactions["eof"] = lambda: True
    pair.a.transport.write(b"question")
    pair.a.transport.write_eof()
    await pair.b.until_called("eof")
    await settle()
    assert pair.b.calls == ["made", "data", "eof"]
    assert pair.b.received == b"question"
    answer = pattern(600 * KIB)
    pair.b.transport.write(answer)
    await pair.a.until_received(len(answer))
    assert pair.a.received == answer
    assert not pair.a.transport.is_closing()
    assert not pair.b.transport.is_closing()
    pair.b.transport.close()
    await pair.a.until_called("lost")
    assert pair.a.calls == ["made", "data", "eof", "lost"]
    assert pair.b.story == ["made", "data", "eof", "lost"]
    assert pair.a.exc is pair.b.exc is None


@pytest.mark.parametrize("answer", [False, None])
async def test_an_end_that_does_not_keep_open_closes_at_eof(pair: Pair, answer: bool | None) -> None:
    pair.b.reactions["eof"] = lambda: answer
    pair.a.transport.write_eof()
    await pair.a.until_called("lost")
    await pair.b.until_called("lost")
    assert pair.b.calls == ["made", "eof", "lost"]
    assert pair.a.calls == ["made", "eof", "lost"]
    assert pair.a.exc is pair.b.exc is None


async def test_an_end_that_closes_at_eof_still_delivers_what_it_wrote(pair: Pair) -> None:
    answer = pattern(MIB)
    pair.a.transport.pause_reading()
    pair.b.transport.write(answer)
    pair.a.transport.write_eof()
    await pair.b.until_called("eof")
    pair.a.transport.resume_reading()
    await pair.a.until_called("lost")
    assert pair.a.received == answer
    assert pair.a.story == ["made", "data", "eof", "lost"]


async def test_an_answer_written_at_eof_is_delivered(pair: Pair) -> None:
    pair.b.reactions["eof"] = lambda: pair.b.transport.write(b"bye")
    pair.a.transport.write_eof()
    await pair.a.until_called("lost")
    assert pair.a.received == b"bye"


async def test_both_ends_can_half_close_and_stay_open(pair: Pair) -> None:
    for end in (pair.a, pair.b):
        end.reactions["eof"] = lambda: True
        end.transport.write_eof()
    await pair.a.until_called("eof")
    await pair.b.until_called("eof")
    await settle()
    assert pair.a.calls == pair.b.calls == ["made", "eof"]
    pair.a.transport.close()
    await pair.a.until_called("lost")


async def test_nothing_can_be_written_after_eof(pair: Pair) -> None:
    pair.b.reactions["eof"] = lambda: True
    assert pair.a.transport.can_write_eof()
    pair.a.transport.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        pair.a.transport.write(b"x")
    with pytest.raises(RuntimeError, match="write_eof"):
        pair.a.transport.writelines([b"x"])
    await pair.b.until_called("eof")
    assert pair.b.pieces == []


async def test_a_second_eof_is_none(pair: Pair) -> None:
    pair.b.reactions["eof"] = lambda: True
    pair.a.transport.write_eof()
    pair.a.transport.write_eof()
    await pair.b.until_called("eof")
    pair.a.transport.write_eof()
    await settle()
    assert pair.b.calls == ["made", "eof"]


async def test_a_close_after_eof_brings_no_second_eof(pair: Pair) -> None:
    pair.a.transport.write(b"x")
    pair.a.transport.write_eof()
    pair.a.transport.close()
    await pair.b.until_called("lost")
    assert pair.b.calls == ["made", "data", "eof", "lost"]
    assert pair.b.exc is None


async def test_a_close_long_after_eof_ends_the_other_end_too(memory: Pair) -> None:
    """The other end of a socket pair, which has had its EOF, would notice this at its next write."""
    memory.b.reactions["eof"] = lambda: True
    memory.a.transport.write_eof()
    await memory.b.until_called("eof")
    memory.a.transport.close()
    await memory.b.until_called("lost")
    assert memory.b.calls == ["made", "eof", "lost"]
    assert memory.b.exc is None


# Close.


async def test_a_close_delivers_first_what_was_written(pair: Pair) -> None:
    data = pattern(MIB)
    pair.a.transport.write(data)
    pair.a.transport.close()
    await pair.b.until_called("lost")
    await pair.a.until_called("lost")
    assert pair.b.received == data
    assert pair.b.calls == ["made", "data", "eof", "lost"]
    assert pair.a.story == ["made", "lost"]
    assert pair.a.exc is pair.b.exc is None


async def test_a_close_waits_for_a_paused_reader_to_take_what_was_written(pair: Pair) -> None:
    data = pattern(2 * MIB)
    pair.b.transport.pause_reading()
    pair.a.transport.write(data)
    pair.a.transport.close()
    await settle()
    assert pair.a.story == ["made"]
    pair.b.transport.resume_reading()
    await pair.b.until_called("lost")
    assert pair.b.received == data
    assert pair.a.story == ["made", "lost"]
    assert pair.a.exc is pair.b.exc is None


async def test_only_in_memory_a_close_waits_for_a_paused_reader_however_little_was_written(pair: Pair) -> None:
    """A socket's bytes go to the kernel as soon as they are written, so its transport has nothing to wait for."""
    pair.b.transport.pause_reading()
    pair.a.transport.write(b"x")
    pair.a.transport.close()
    await settle()
    assert pair.a.calls == (["made"] if pair.in_memory else ["made", "lost"])
    assert pair.b.calls == ["made"]
    pair.b.transport.resume_reading()
    await pair.b.until_called("lost")
    assert pair.b.calls == ["made", "data", "eof", "lost"]
    assert pair.a.calls == ["made", "lost"]


async def test_a_close_with_nothing_to_deliver_does_not_wait_for_a_paused_reader(pair: Pair) -> None:
    pair.b.transport.pause_reading()
    pair.a.transport.close()
    await pair.a.until_called("lost")
    assert pair.b.calls == ["made"]
    pair.b.transport.resume_reading()
    await pair.b.until_called("lost")
    assert pair.b.calls == ["made", "eof", "lost"]


async def test_a_writer_that_closes_while_it_is_paused_is_resumed_before_its_connection_is_lost(pair: Pair) -> None:
    pair.b.transport.pause_reading()
    size = fill(pair.a)
    pair.a.transport.close()
    pair.b.transport.resume_reading()
    await pair.b.until_received(size)
    await pair.a.until_called("lost")
    assert pair.a.calls == ["made", "pause", "resume", "lost"]


async def test_closing_twice_is_closing_once(pair: Pair) -> None:
    pair.a.transport.close()
    pair.a.transport.close()
    await pair.a.until_called("lost")
    pair.a.transport.close()
    await pair.b.until_called("lost")
    await settle()
    assert pair.a.calls == ["made", "lost"]
    assert pair.b.calls == ["made", "eof", "lost"]


async def test_both_ends_can_close_at_once(pair: Pair) -> None:
    pair.a.transport.close()
    pair.b.transport.close()
    await pair.a.until_called("lost")
    await pair.b.until_called("lost")
    assert pair.a.calls == pair.b.calls == ["made", "lost"]
    assert pair.a.exc is pair.b.exc is None


async def test_two_ends_that_close_with_bytes_under_way_do_not_wait_for_each_other(memory: Pair) -> None:
    for end in (memory.a, memory.b):
        end.transport.pause_reading()
        fill(end)
    memory.a.transport.close()
    memory.b.transport.close()
    await memory.a.until_called("lost")
    await memory.b.until_called("lost")
    assert memory.a.pieces == memory.b.pieces == []
    assert memory.a.exc is memory.b.exc is None


@pytest.mark.parametrize("late", [False, True])
async def test_what_is_written_after_close_is_dropped_in_silence(pair: Pair, late: bool) -> None:
    asyncio_sockets_only(pair.in_memory, "it raises when it is used after its end")
    pair.a.transport.close()
    if late:
        await pair.a.until_called("lost")
    pair.a.transport.write(b"x")
    pair.a.transport.write(bytes(MIB))
    if pair.in_memory:  # CPython's own raises from 3.12 to 3.13.1, python/cpython#136234
        pair.a.transport.writelines([b"x"])
    pair.a.transport.write_eof()
    await pair.b.until_called("lost")
    assert pair.b.calls == ["made", "eof", "lost"]
    assert pair.a.calls == ["made", "lost"]
    assert pair.a.transport.get_write_buffer_size() == 0


async def test_bytes_for_an_end_that_has_closed_are_dropped(memory: Pair) -> None:
    """The writer of a socket pair would get a broken pipe, and lose unread bytes."""
    memory.b.transport.write(b"the last")
    memory.b.transport.close()
    memory.a.transport.write(b"too late")
    assert memory.a.transport.get_write_buffer_size() == 0
    await memory.a.until_called("lost")
    assert memory.b.pieces == []
    assert memory.a.received == b"the last"
    assert memory.a.exc is None


async def test_an_end_that_has_closed_receives_nothing_more(pair: Pair) -> None:
    pair.b.transport.write(b"x")
    pair.a.transport.close()
    await pair.a.until_called("lost")
    await pair.b.until_called("lost")
    assert pair.a.calls == ["made", "lost"]


async def test_an_end_that_closes_is_closing_at_once(pair: Pair) -> None:
    assert not pair.a.transport.is_closing()
    pair.a.transport.write(bytes(MIB))
    pair.a.transport.close()
    assert pair.a.transport.is_closing()
    await pair.a.until_called("lost")
    assert pair.a.transport.is_closing()


async def test_only_in_memory_an_end_knows_at_once_that_the_other_has_closed(pair: Pair) -> None:
    """So a pool never returns a connection whose server has left. A socket must be read to notice it."""
    pair.b.transport.close()
    assert pair.a.transport.is_closing() is pair.in_memory
    assert pair.a.calls == ["made"]
    await pair.a.until_called("lost")
    assert pair.a.transport.is_closing()


@pytest.mark.parametrize("paused", [False, True])
async def test_only_in_memory_an_end_is_closing_as_soon_as_it_has_nothing_left_to_read(
    pair: Pair, paused: bool
) -> None:
    pair.b.transport.write(b"x")
    pair.b.transport.close()
    closing: list[bool] = []
    pair.a.reactions["data"] = lambda: closing.append(pair.a.transport.is_closing())
    if paused:
        pair.a.transport.pause_reading()
        await settle()
    assert not pair.a.transport.is_closing()
    pair.a.transport.resume_reading()
    await pair.a.until_received(1)
    assert closing == [pair.in_memory]


async def test_an_end_whose_other_has_only_half_closed_is_not_closing(pair: Pair) -> None:
    pair.a.reactions["eof"] = lambda: True
    pair.b.transport.write_eof()
    assert not pair.a.transport.is_closing()
    await pair.a.until_called("eof")
    assert not pair.a.transport.is_closing()
    assert not pair.b.transport.is_closing()


async def test_only_in_memory_a_close_ends_both_directions_for_an_end_that_would_keep_its_own_open(
    pair: Pair,
) -> None:
    """No reader is left at the other end. With a socket, a failing write would show this."""
    pair.b.reactions["eof"] = lambda: True
    pair.a.transport.close()
    await pair.b.until_called("eof")
    await settle()
    assert pair.b.calls == (["made", "eof", "lost"] if pair.in_memory else ["made", "eof"])
    assert pair.b.exc is None


@pytest.mark.parametrize("kind", list(CONNECT))
async def test_a_protocol_may_close_as_soon_as_it_is_connected(kind: str) -> None:
    asyncio_sockets_only(kind == "memory", "it forgets to close the socket object")
    a, b = Recorder(), Recorder()

    def leave() -> None:
        b.transport.write(b"bye")
        b.transport.close()

    b.reactions["made"] = leave
    await CONNECT[kind](a, b)
    await a.until_called("lost")
    await b.until_called("lost")
    assert a.calls == ["made", "data", "eof", "lost"]
    assert a.received == b"bye"
    assert b.calls == ["made", "lost"]


# Abort.


async def test_an_abort_ends_the_connection_at_once_whatever_is_left_to_deliver(pair: Pair) -> None:
    pair.b.transport.pause_reading()
    fill(pair.a)
    pair.a.transport.abort()
    assert pair.a.transport.is_closing()
    await pair.a.until_called("lost")
    assert pair.a.calls == ["made", "pause", "lost"]
    assert pair.a.exc is None
    assert pair.a.transport.get_write_buffer_size() == 0


async def test_an_abort_ends_a_close_that_is_still_delivering(pair: Pair) -> None:
    pair.b.transport.pause_reading()
    fill(pair.a)
    pair.a.transport.close()
    await settle()
    assert pair.a.story == ["made"]
    pair.a.transport.abort()
    await pair.a.until_called("lost")
    assert pair.a.exc is None


async def test_an_end_that_has_aborted_receives_nothing_more(pair: Pair) -> None:
    pair.b.transport.write(b"x")
    pair.a.transport.abort()
    await pair.a.until_called("lost")
    await pair.b.until_called("lost")
    assert pair.a.calls == ["made", "lost"]


@pytest.mark.parametrize("then", ["abort", "close", "write_eof"])
async def test_what_follows_an_abort_changes_nothing(pair: Pair, then: str) -> None:
    if then == "write_eof":
        asyncio_sockets_only(pair.in_memory, "it raises")
    pair.a.transport.abort()
    getattr(pair.a.transport, then)()
    if then != "write_eof":
        pair.a.transport.write(b"x")
    await pair.a.until_called("lost")
    getattr(pair.a.transport, then)()
    await pair.b.until_called("lost")
    await settle()
    assert pair.a.calls == ["made", "lost"]


async def test_only_in_memory_an_abort_is_a_reset_for_the_other_end(pair: Pair) -> None:
    """A kernel delivers what it holds and then a normal end, so a truncated body would look complete."""
    pair.a.transport.write(b"half of it")
    pair.a.transport.abort()
    await pair.b.until_called("lost")
    if pair.in_memory:
        assert pair.b.calls == ["made", "lost"]
        assert type(pair.b.exc) is ConnectionResetError
        assert isinstance(pair.b.exc.errno, int)
    else:
        assert pair.b.calls == ["made", "data", "eof", "lost"]
        assert pair.b.exc is None


async def test_only_in_memory_an_abort_reaches_an_end_that_is_paused(pair: Pair) -> None:
    """A socket's transport does not look before it reads or writes again."""
    pair.b.transport.pause_reading()
    pair.a.transport.abort()
    assert pair.b.transport.is_closing() is pair.in_memory
    await pair.a.until_called("lost")
    await settle()
    assert pair.b.calls == (["made", "lost"] if pair.in_memory else ["made"])


async def test_an_abort_loses_both_ends_in_the_next_turn(memory: Pair) -> None:
    for end in (memory.a, memory.b):
        end.transport.pause_reading()
        fill(end)
    memory.a.transport.abort()
    await asyncio.sleep(0)
    for end in (memory.a, memory.b):
        assert end.calls == ["made", "pause", "lost"]
        assert end.pieces == []
        assert end.transport.get_write_buffer_size() == 0


async def test_an_abort_after_the_other_end_has_closed_brings_no_reset_to_it(memory: Pair) -> None:
    memory.b.transport.close()
    memory.a.transport.abort()
    await memory.b.until_called("lost")
    assert memory.b.exc is None


# Reentrancy.


async def test_an_echo_answers_from_within_data_received(pair: Pair) -> None:
    pair.b.reactions["data"] = lambda: pair.b.transport.write(pair.b.pieces[-1])
    data = pattern(2 * MIB)
    pair.a.transport.write(data)
    await pair.a.until_received(len(data))
    assert pair.a.received == pair.b.received == data


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_an_end_that_leaves_from_within_data_received_gets_nothing_more(pair: Pair, how: str) -> None:
    pair.b.reactions["data"] = lambda: getattr(pair.b.transport, how)()
    pair.a.transport.write(bytes(MIB))
    pair.a.transport.write_eof()
    await pair.b.until_called("lost")
    await pair.a.until_called("lost")
    assert len(pair.b.pieces) == 1
    assert pair.b.calls == ["made", "data", "lost"]


async def test_an_answer_and_a_close_from_within_data_received_are_both_delivered(pair: Pair) -> None:
    answer = pattern(600 * KIB)

    def answer_and_close() -> None:
        pair.b.transport.write(answer)
        pair.b.transport.close()

    pair.b.reactions["data"] = answer_and_close
    pair.a.transport.write(b"question")
    await pair.a.until_called("lost")
    await pair.b.until_called("lost")
    assert pair.a.received == answer
    assert pair.a.calls == ["made", "data", "eof", "lost"]


async def test_a_resume_never_delivers_from_within_itself(pair: Pair) -> None:
    pair.b.transport.pause_reading()
    pair.a.transport.write(b"x")
    await settle()

    def pause_and_resume() -> None:
        pair.b.transport.pause_reading()
        before = len(pair.b.pieces)
        pair.b.transport.resume_reading()
        assert len(pair.b.pieces) == before

    pair.b.reactions["data"] = pause_and_resume
    pause_and_resume()
    pair.a.transport.write(bytes(600 * KIB))
    await pair.b.until_received(600 * KIB + 1)
    assert pair.b.received == b"x" + bytes(600 * KIB)


async def test_the_rest_of_what_is_delivered_goes_to_the_protocol_set_from_within_data_received(pair: Pair) -> None:
    new = Recorder()
    new.connection_made(pair.b.transport)
    data = pattern(MIB)
    pair.b.reactions["data"] = lambda: pair.b.transport.set_protocol(new)
    pair.a.transport.write(data)
    pair.a.transport.close()
    await new.until_called("lost")
    assert pair.b.transport.get_protocol() is new or not pair.in_memory  # a lost socket's transport has none
    assert len(pair.b.pieces) == 1
    assert pair.b.received + new.received == data
    assert pair.b.calls == ["made", "data"]
    assert new.calls == ["made", "data", "eof", "lost"]
    pair.b.calls.append("lost")  # which the new protocol received


async def test_a_connection_is_lost_for_the_protocol_that_it_has_by_then(pair: Pair) -> None:
    new = Recorder()
    new.connection_made(pair.a.transport)
    pair.a.transport.close()
    pair.a.transport.set_protocol(new)
    await pair.b.until_called("lost")
    await settle()
    told = [pair.a.calls.copy(), new.calls]
    pair.a.calls[:] = ["made", "lost"]
    assert told == [["made"], ["made", "lost"]]


async def test_flow_control_speaks_to_the_protocol_that_is_set(memory: Pair) -> None:
    new = Recorder()
    new.connection_made(memory.a.transport)
    memory.b.transport.pause_reading()
    fill(memory.a)
    memory.a.transport.set_protocol(new)
    memory.b.transport.resume_reading()
    await new.until_called("resume")
    assert memory.a.flow == ["pause"]
    memory.a.transport.set_protocol(memory.a)


@pytest.mark.parametrize("call", ["data", "eof"])
async def test_a_callback_that_raises_is_reported_and_loses_its_connection(pair: Pair, call: str) -> None:
    error = RuntimeError("no")
    reports = collect_reports()

    def fail() -> None:
        raise error

    pair.b.reactions[call] = fail
    pair.a.transport.write(b"x")
    pair.a.transport.write_eof()
    await pair.b.until_called("lost")
    await pair.a.until_called("lost")
    assert [report["exception"] for report in reports] == [error]
    assert reports[0]["exception"] is error
    assert reports[0]["transport"] is pair.b.transport
    assert reports[0]["protocol"] is pair.b
    assert pair.b.calls[-2:] == [call, "lost"]


@pytest.mark.parametrize("call", ["data", "eof"])
async def test_a_protocol_that_raises_loses_its_connection_by_that_exception(pair: Pair, call: str) -> None:
    error = RuntimeError("no")
    collect_reports()

    def fail() -> None:
        raise error

    pair.b.reactions[call] = fail
    pair.a.transport.write(b"x")
    pair.a.transport.write_eof()
    await pair.b.until_called("lost")
    await pair.a.until_called("lost")
    assert pair.b.exc is error


async def test_only_in_memory_the_other_end_of_a_callback_that_raised_is_reset(pair: Pair) -> None:
    def fail() -> None:
        raise RuntimeError("no")

    collect_reports()
    pair.b.reactions["data"] = fail
    pair.a.transport.write(b"x")
    await pair.a.until_called("lost")
    if pair.in_memory:
        assert pair.a.calls == ["made", "lost"]
        assert type(pair.a.exc) is ConnectionResetError
    else:
        assert pair.a.calls == ["made", "eof", "lost"]
        assert pair.a.exc is None


@pytest.mark.parametrize("call", ["pause", "resume"])
async def test_a_flow_control_callback_that_raises_is_reported_and_never_raises_from_write(
    pair: Pair, call: str
) -> None:
    """In memory this ends the connection. asyncio's own transport is left in an undefined state."""
    error = RuntimeError("no")
    reports = collect_reports()

    def fail() -> None:
        raise error

    pair.a.reactions[call] = fail
    pair.b.transport.pause_reading()
    fill(pair.a)
    pair.b.transport.resume_reading()
    await pair.a.until(lambda: bool(reports))
    assert [report["exception"] for report in reports] == [error]
    assert reports[0]["exception"] is error
    assert pair.a.transport.is_closing() is pair.in_memory


@pytest.mark.parametrize("last", [b"", b"bye"])
async def test_a_connection_lost_that_raises_is_reported_and_no_harm_to_the_other_end(pair: Pair, last: bytes) -> None:
    error = RuntimeError("no")
    reports = collect_reports()

    def fail() -> None:
        raise error

    pair.a.reactions["lost"] = fail
    pair.a.transport.write(last)
    pair.a.transport.close()
    await pair.b.until_called("lost")
    await settle()
    assert [report["exception"] for report in reports] == [error]
    assert reports[0]["exception"] is error
    assert pair.b.received == last
    assert pair.b.story[-2:] == ["eof", "lost"]
    assert pair.b.exc is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    ("kind", "callback"),
    # Not the end of what a socket receives, because asyncio then forgets the socket.
    [*((kind, callback) for kind in CONNECT for callback in ("data", "lost")), ("memory", "eof")],
)
def test_an_interrupt_in_a_callback_leaves_through_the_loop(
    kind: str, error: type[BaseException], callback: str
) -> None:
    a, b = Recorder(), Recorder()

    def interrupt() -> None:
        del b.reactions[callback]
        raise error

    async def connect() -> None:
        await CONNECT[kind](a, b)
        b.reactions[callback] = interrupt
        a.transport.write(b"x")
        if callback != "data":
            a.transport.close()
        await a.until_called("lost")

    async def clean_up() -> None:
        a.transport.abort()
        b.transport.abort()
        await b.until_called("lost")

    loop = asyncio.new_event_loop()
    try:
        waiting = loop.create_task(connect())
        with pytest.raises(error):
            loop.run_until_complete(waiting)
        loop.run_until_complete(clean_up())
        loop.run_until_complete(waiting)
    finally:
        loop.close()


# Answers inside a delivery.


@pytest.mark.parametrize("answers", [1, 3])
async def test_only_in_memory_an_answer_is_handed_over_in_the_callback_that_brought_the_question(
    pair: Pair, answers: int
) -> None:
    """With sockets an answer takes at least one more turn of the event loop."""
    journal: list[str] = []

    def answer() -> None:
        asyncio.get_running_loop().call_soon(journal.append, "the next callback")
        for _ in range(answers):
            pair.b.transport.write(b"x")

    pair.b.reactions["data"] = answer
    pair.a.reactions["data"] = lambda: journal.append("the answer")
    pair.a.transport.write(b"question")
    await pair.a.until_received(answers)
    await settle()
    expected = ["the answer", "the next callback"]
    assert journal == (expected if pair.in_memory else expected[::-1])
    assert pair.a.received == b"x" * answers


async def test_an_answer_and_its_end_are_handed_over_in_the_same_callback(memory: Pair) -> None:
    journal: list[str] = []

    def answer() -> None:
        asyncio.get_running_loop().call_soon(journal.append, "the next callback")
        memory.b.transport.write(b"x")
        memory.b.transport.close()

    memory.b.reactions["data"] = answer
    memory.a.reactions["data"] = lambda: journal.append("data")
    memory.a.reactions["eof"] = lambda: journal.append("eof")
    memory.a.transport.write(b"question")
    await memory.a.until_called("lost")
    assert journal == ["data", "eof", "the next callback"]


async def test_an_answer_to_an_eof_is_handed_over_in_the_same_callback(memory: Pair) -> None:
    journal: list[str] = []

    def answer() -> None:
        asyncio.get_running_loop().call_soon(journal.append, "the next callback")
        memory.b.transport.write(b"x")

    memory.b.reactions["eof"] = answer
    memory.a.reactions["data"] = lambda: journal.append("the answer")
    memory.a.transport.write_eof()
    await memory.a.until_called("lost")
    assert journal == ["the answer", "the next callback"]


async def test_an_answer_is_not_handed_over_before_data_received_has_returned(memory: Pair) -> None:
    journal: list[str] = []

    def answer() -> None:
        memory.b.transport.write(b"x")
        journal.append("data_received returns")

    memory.b.reactions["data"] = answer
    memory.a.reactions["data"] = lambda: journal.append("the answer")
    memory.a.transport.write(b"question")
    await memory.a.until_received(1)
    assert journal == ["data_received returns", "the answer"]


async def test_two_ends_that_answer_each_other_never_recurse_and_give_way_to_the_loop(pair: Pair) -> None:
    depths: set[int] = set()
    others = 0

    def depth() -> int:
        frame, count = sys._getframe(), 0
        while frame.f_back is not None:
            frame, count = frame.f_back, count + 1
        return count

    def answer(end: Recorder) -> None:
        depths.add(depth())
        if len(pair.a.pieces) < 1500:
            end.transport.write(b"x")

    def other() -> None:
        nonlocal others
        others += 1
        if len(pair.a.pieces) < 1500:
            asyncio.get_running_loop().call_soon(other)

    pair.a.reactions["data"] = lambda: answer(pair.a)
    pair.b.reactions["data"] = lambda: answer(pair.b)
    other()
    pair.a.transport.write(b"x")
    await pair.a.until(lambda: len(pair.a.pieces) == 1500)
    await settle()
    assert max(depths) - min(depths) <= 2  # an answer is one call deeper than a question
    assert others >= 1500


# Contexts.

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


def as_somebody(call: Callable[..., object], *args: object) -> None:
    """Call inside a context in which `who` is set."""
    context = contextvars.copy_context()
    context.run(who.set, "somebody")
    context.run(call, *args)


def expected_context(pair: Pair) -> str:
    """The context of a callback that a method has scheduled for its caller. Since 3.15 it is the connection's."""
    return "nobody" if pair.in_memory or sys.version_info >= (3, 15) else "somebody"


async def test_a_delivery_never_runs_in_the_context_of_the_writer(pair: Pair) -> None:
    seen: list[str] = []
    for call in ("data", "eof", "lost"):
        pair.b.reactions[call] = lambda: seen.append(who.get())
    as_somebody(pair.a.transport.write, b"x")
    as_somebody(pair.a.transport.write_eof)
    await pair.b.until_called("lost")
    assert seen == ["nobody"] * 3


async def test_the_next_slice_does_not_run_in_the_context_of_the_one_before(pair: Pair) -> None:
    """A protocol may set variables in a callback. asyncio's own connection passes them on by accident."""
    seen: list[str] = []
    pair.b.reactions["data"] = lambda: seen.append(who.get())
    as_somebody(pair.a.transport.write, bytes(600 * KIB))
    await pair.b.until_received(600 * KIB)
    assert set(seen) == {"nobody"}


async def test_only_in_memory_a_resume_does_not_lend_its_context_to_what_is_delivered_later(pair: Pair) -> None:
    """Before Python 3.15 asyncio's own transport reads on in the context of the caller (python/cpython#140947)."""
    asyncio_sockets_only(pair.in_memory, "it keeps the context in which the connection was made")
    seen: list[str] = []
    pair.b.transport.pause_reading()
    pair.a.transport.write(b"x")
    pair.b.reactions["data"] = lambda: seen.append(who.get())
    as_somebody(pair.b.transport.resume_reading)
    await pair.b.until_received(1)
    assert seen == [expected_context(pair)]


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_only_in_memory_a_connection_is_not_lost_in_the_context_that_ended_it(pair: Pair, how: str) -> None:
    asyncio_sockets_only(pair.in_memory, "it keeps the context in which the connection was made")
    seen: list[str] = []
    pair.a.reactions["lost"] = lambda: seen.append(who.get())
    as_somebody(getattr(pair.a.transport, how))
    await pair.a.until_called("lost")
    assert seen == [expected_context(pair)]


async def test_a_writer_is_resumed_in_the_context_of_the_connection(memory: Pair) -> None:
    seen: list[str] = []
    memory.a.reactions["resume"] = lambda: seen.append(who.get())
    as_somebody(fill, memory.a)
    await memory.a.until_called("resume")
    assert seen == ["nobody"]


async def test_an_in_memory_connection_inherits_no_context_from_its_maker() -> None:
    seen: list[str] = []
    a, b = Recorder(), Recorder()
    for end in (a, b):
        for call in ("made", "data", "lost"):
            end.reactions[call] = lambda: seen.append(who.get())
    as_somebody(connect_pair, asyncio.get_running_loop(), a, b)
    a.transport.write(b"x")
    a.transport.close()
    await b.until_called("lost")
    assert seen == ["nobody"] * 5


# Features that only our pair has.


async def test_the_server_is_connected_before_its_client() -> None:
    order: list[str] = []
    client, server = Recorder(), Recorder()
    client.reactions["made"] = lambda: order.append("client")
    server.reactions["made"] = lambda: order.append("server")
    ends = connect_pair(asyncio.get_running_loop(), client, server)
    assert order == ["server", "client"]
    assert ends == (client.transport, server.transport)
    client.transport.close()
    await server.until_called("lost")


async def test_each_end_answers_for_its_own_extra_info() -> None:
    client, server = Recorder(), Recorder()
    connect_pair(
        asyncio.get_running_loop(),
        client,
        server,
        client_extra={"peername": ("app.internal", 80)},
        server_extra={"peername": None},
    )
    assert client.transport.get_extra_info("peername") == ("app.internal", 80)
    assert client.transport.get_extra_info("socket") is None
    assert client.transport.get_extra_info("socket", "none") == "none"
    assert server.transport.get_extra_info("peername", "not given") is None
    assert client.transport.get_protocol() is client
    client.transport.close()
    await server.until_called("lost")


async def test_an_end_tells_its_state(memory: Pair) -> None:
    a, b = memory.a.transport, memory.b.transport
    b.pause_reading()
    a.write(b"12345")
    assert repr(a) == "<MemoryTransport open, 5 bytes to deliver>"
    assert repr(b) == "<MemoryTransport open, 0 bytes to deliver, reading paused>"
    a.close()
    assert repr(a) == "<MemoryTransport closing, 5 bytes to deliver>"
    a.abort()
    assert repr(a) == "<MemoryTransport lost, 0 bytes to deliver>"


async def test_what_is_held_is_not_delivered_until_it_is_released(memory: Pair) -> None:
    server = end_of(memory.b.transport)
    server.hold_writes()
    server.write(b"one")
    await settle()
    server.write(b"two")
    await settle()
    assert memory.a.calls == ["made"]
    assert server.get_write_buffer_size() == 6
    server.release_writes()
    assert memory.a.calls == ["made"]
    await memory.a.until_received(6)
    assert memory.a.pieces == [b"onetwo"]
    server.write(b"three")
    await memory.a.until_received(11)


async def test_a_hold_keeps_nothing_of_the_other_direction(memory: Pair) -> None:
    end_of(memory.b.transport).hold_writes()
    memory.a.transport.write(b"x")
    await memory.b.until_received(1)
    end_of(memory.b.transport).release_writes()
    await settle()
    assert memory.a.pieces == []


async def test_what_is_written_after_a_hold_does_not_leave_with_what_was_written_before_it(memory: Pair) -> None:
    server = end_of(memory.b.transport)
    server.write(b"before")
    server.hold_writes()
    server.write(b"after")
    await settle()
    assert b"after" not in memory.a.received
    server.release_writes()
    await memory.a.until_received(11)
    assert memory.a.received == b"beforeafter"


async def test_what_is_held_from_within_a_delivery_stays_held_after_it(memory: Pair) -> None:
    server = end_of(memory.b.transport)

    def answer() -> None:
        server.hold_writes()
        server.write(b"answer")

    memory.b.reactions["data"] = answer
    memory.a.transport.write(b"question")
    await memory.b.until_received(8)
    await settle()
    assert memory.a.pieces == []
    server.release_writes()
    await memory.a.until_received(6)


async def test_what_is_released_from_within_the_delivery_that_held_it_is_handed_over_in_it(memory: Pair) -> None:
    server = end_of(memory.b.transport)
    journal: list[str] = []

    def answer() -> None:
        asyncio.get_running_loop().call_soon(journal.append, "the next callback")
        server.hold_writes()
        server.write(b"answer")
        server.release_writes()

    memory.b.reactions["data"] = answer
    memory.a.reactions["data"] = lambda: journal.append("the answer")
    memory.a.transport.write(b"question")
    await memory.a.until_received(6)
    await settle()
    assert journal == ["the answer", "the next callback"]


@pytest.mark.parametrize("end", ["write_eof", "close"])
async def test_an_end_that_comes_while_bytes_are_held_follows_them(memory: Pair, end: str) -> None:
    server = end_of(memory.b.transport)
    server.hold_writes()
    server.write(b"x")
    getattr(server, end)()
    await settle()
    assert memory.a.calls == ["made"]
    assert "lost" not in memory.b.calls
    server.release_writes()
    await memory.a.until_called("lost")
    assert memory.a.calls == ["made", "data", "eof", "lost"]


async def test_an_abort_drops_what_is_held(memory: Pair) -> None:
    server = end_of(memory.b.transport)
    server.hold_writes()
    server.write(b"x")
    server.abort()
    server.release_writes()
    await memory.a.until_called("lost")
    await settle()
    assert memory.a.calls == ["made", "lost"]
    assert memory.b.calls == ["made", "lost"]


async def test_a_client_that_closes_ends_a_connection_of_which_bytes_are_held(memory: Pair) -> None:
    server = end_of(memory.b.transport)
    server.hold_writes()
    server.write(b"x")
    memory.a.transport.close()
    await memory.b.until_called("lost")
    server.release_writes()
    await settle()
    assert memory.a.calls == ["made", "lost"]


async def test_what_is_held_counts_against_the_marks(memory: Pair) -> None:
    server = end_of(memory.b.transport)
    server.hold_writes()
    size = fill(memory.b)
    await settle()
    assert memory.b.flow == ["pause"]
    server.release_writes()
    await memory.a.until_received(size)
    assert memory.b.flow == ["pause", "resume"]


@pytest.mark.parametrize("resumed", ["before the release", "after the release"])
async def test_held_bytes_reach_a_reader_that_was_paused_meanwhile(memory: Pair, resumed: str) -> None:
    server = end_of(memory.b.transport)
    memory.a.transport.pause_reading()
    server.hold_writes()
    server.write(b"x")
    await settle()
    steps = [server.release_writes, memory.a.transport.resume_reading]
    for step in reversed(steps) if resumed == "before the release" else steps:
        assert memory.a.pieces == []
        step()
        await settle()
    assert memory.a.pieces == [b"x"]


async def test_a_second_hold_keeps_what_the_first_one_kept(memory: Pair) -> None:
    server = end_of(memory.b.transport)
    server.hold_writes()
    server.write(b"one")
    server.hold_writes()
    server.write(b"two")
    await settle()
    assert memory.a.pieces == []
    server.release_writes()
    await memory.a.until_received(6)
    assert memory.a.received == b"onetwo"


async def test_a_release_without_a_hold_does_nothing(memory: Pair) -> None:
    server = end_of(memory.b.transport)
    server.release_writes()
    server.write(b"x")
    server.release_writes()
    server.release_writes()
    await memory.a.until_received(1)
    await settle()
    assert memory.a.pieces == [b"x"]


# Any sequence of operations.

OPERATIONS = ["write", "write", "write", "pause", "resume", "turn", "turn", "close", "eof", "abort", "marks", "hold"]
SIZES = [0, 1, 1000, 16 * KIB, HIGH_WATER, HIGH_WATER + 1, SLICE, SLICE + 1, 600 * KIB]
Operation = tuple[str, int]  # and a size, for those that want one
STREAM = pattern(MIB)

operations = st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(SIZES))


class Chaos:
    """One end that receives operations, and what it may then expect of the other."""

    def __init__(self, recorder: Recorder, keep_open: bool, reactions: list[Operation]) -> None:
        self.recorder = recorder
        self.other: Chaos
        self.written: list[bytes] = []
        self.accepted = 0  # bytes that were written before this end was closing
        self.ended = False  # by write_eof()
        self.left = False  # closed or aborted by an operation, not by an EOF
        self.aborted = False
        self.held = False
        self._reactions = reactions
        for call in ("data", "pause", "resume"):
            recorder.reactions[call] = self._react
        recorder.reactions["eof"] = lambda: keep_open

    def _react(self) -> None:
        if self._reactions:
            self.do(*self._reactions.pop())

    def do(self, operation: str, size: int) -> None:
        transport = end_of(self.recorder.transport)
        if operation == "write":
            self.write(size)
        elif operation == "pause":
            transport.pause_reading()
        elif operation == "resume":
            transport.resume_reading()
        elif operation == "close":
            self.left = True
            transport.close()
        elif operation == "abort":
            self.left = self.aborted = True
            transport.abort()
        elif operation == "eof":
            self.ended = True
            transport.write_eof()
        elif operation == "marks":
            transport.set_write_buffer_limits(high=size)
        elif operation == "hold":
            self.held = not self.held
            transport.hold_writes() if self.held else transport.release_writes()

    def write(self, size: int) -> None:
        if self.ended:
            return
        # First, because the write may call pause_writing(), whose reaction may write.
        data = STREAM[len(self.written) :][:size]
        self.written.append(data)
        if not self.recorder.transport.is_closing():
            self.accepted += size
        self.recorder.transport.write(data)

    def settle(self) -> None:
        end_of(self.recorder.transport).resume_reading()
        end_of(self.recorder.transport).release_writes()

    @property
    def progress(self) -> tuple[object, ...]:
        return len(self.recorder.calls), len(self.recorder.pieces), len(self.written)


async def run_chaos(steps: list[tuple[bool, Operation]], a: Chaos, b: Chaos) -> None:
    await connect_in_memory(a.recorder, b.recorder)
    a.other, b.other = b, a
    for at_a, (operation, size) in steps:
        if operation == "turn":
            await asyncio.sleep(0)
        else:
            (a if at_a else b).do(operation, size)
    idle = 0
    while idle < 5:  # a reaction may have paused or held again
        before = a.progress, b.progress
        a.settle()
        b.settle()
        await asyncio.sleep(0)
        idle = idle + 1 if (a.progress, b.progress) == before else 0


def check_bytes(writer: Chaos) -> None:
    reader = writer.other
    received = reader.recorder.received
    assert b"".join(writer.written).startswith(received)
    if not (reader.left or writer.aborted):
        assert len(received) == writer.accepted


@settings(deadline=None, max_examples=examples(150))
@given(
    steps=st.lists(st.tuples(st.booleans(), operations), max_size=25),
    keep_open=st.tuples(st.booleans(), st.booleans()),
    reactions=st.tuples(st.lists(operations, max_size=6), st.lists(operations, max_size=6)),
)
async def test_no_sequence_of_operations_breaks_a_connection(
    steps: list[tuple[bool, Operation]],
    keep_open: tuple[bool, bool],
    reactions: tuple[list[Operation], list[Operation]],
) -> None:
    """Bytes arrive in order, and all of them unless an end has left. A connection is lost once, and nothing follows.

    In memory only: asyncio's own sockets fail here, for example after a close() inside resume_writing().
    """
    a = Chaos(Recorder(), keep_open[0], list(reactions[0]))
    b = Chaos(Recorder(), keep_open[1], list(reactions[1]))
    await run_chaos(steps, a, b)
    check_bytes(a)
    check_bytes(b)
    for end in (a, b):
        if "lost" not in end.recorder.calls:
            assert end.recorder.flow[-1:] != ["pause"], "nothing is left to deliver, and the writer still waits"
            assert not end.left
            assert not end.other.left
        end.recorder.reactions.clear()
    await end_all(a.recorder, b.recorder)
