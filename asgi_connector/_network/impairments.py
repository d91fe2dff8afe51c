"""The impairments of an in-memory network: one stage for each fault that delays, stops or cuts a stream of bytes.

`Impairments` process bytes between `write()` at one end of a connection and the delivery to the other end. The stages
are in a fixed order: first those that delay, then those that hang, then those that cut.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Final, Generic, Protocol, TypeVar

from .transport import MemoryTransport

# The bytes that a delay may hold: as many as Linux allows a TCP connection to have in flight (tcp_wmem). With fewer,
# latency would also limit the throughput.
DELAY_WINDOW: Final = 4 * 1024 * 1024
_SLICES_A_SECOND: Final = 20
T = TypeVar("T")


class Sink(Protocol):
    """The receiver of the bytes that a stage lets through."""

    def carry(self, data: bytes) -> None: ...

    def carry_eof(self) -> None: ...


class _Arrival:
    """The sink after the last stage. It delivers to the peer."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport
        self._last: list[bytes] | None = None  # bytes that arrive together with a cut

    def carry(self, data: bytes) -> None:
        if self._last is None:
            self._transport.arrive(data)
        else:
            self._last.append(data)

    def hold(self) -> None:
        """Keep all bytes that arrive until `release()`."""
        if self._last is None:
            self._last = []

    def release(self) -> None:
        last, self._last = self._last, None
        for data in last or ():
            self._transport.arrive(data)

    def carry_eof(self) -> None:
        self._transport.arrive_eof()

    def drop(self) -> None:
        if self._last is not None:
            self._last.clear()


class Stage(ABC):
    """The effect of one fault on one direction of one connection, until `end_fault()`."""

    rank: int  # the order of the stages
    window = 0  # bytes that this stage may hold in addition to those that the transport allows

    def __init__(self) -> None:
        self.over = False
        self.impairments: Impairments | None = None  # the object that this stage belongs to
        self.next: Sink | None = None

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether the stage holds no bytes."""
        ...

    @abstractmethod
    def carry(self, data: bytes) -> None: ...

    @abstractmethod
    def carry_eof(self) -> None: ...

    @abstractmethod
    def flush(self) -> None:
        """Pass on all bytes that the stage holds."""

    @abstractmethod
    def drop(self) -> None:
        """Lose all bytes that the stage holds."""

    def end_fault(self) -> None:
        """Let everything through from now on."""
        self.over = True
        self.flush()
        self._tidy()

    def _tidy(self) -> None:
        if self.over and self.idle and self.impairments is not None:
            self.impairments.tidy()

    def _pass(self, data: bytes | None) -> None:
        """Pass on bytes, or the end of file if *data* is `None`."""
        assert self.next is not None
        if data is None:
            self.next.carry_eof()
        else:
            self.next.carry(data)


class _Delay(Stage, Generic[T]):
    """Holds entries in a queue until they are due."""

    rank = 0

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._queue: deque[T] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        return not self._queue

    def drop(self) -> None:
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @abstractmethod
    def _due(self) -> float:
        """Return the time at which the first entry of the queue, or a slice of it, is passed on."""
        ...

    @abstractmethod
    def _pass_first(self) -> None:
        """Pass on the first entry of the queue, or a slice of it."""

    def _keep(self, entry: T) -> None:
        self._queue.append(entry)
        if self._timer is None:
            self._set_timer()

    def _set_timer(self) -> None:
        self._timer = self._loop.call_at(self._due(), self._on_time, context=Context())

    def _on_time(self) -> None:
        self._timer = None
        # A timer may fire early, by less than the resolution of the clock.
        now = max(self._loop.time(), self._due())
        while self._queue and self._due() <= now:
            self._pass_first()
        if self._queue:
            self._set_timer()
        else:
            self._tidy()


class LatencyStage(_Delay[tuple[float, bytes | None]]):
    """Passes on all bytes after a number of seconds."""

    window = DELAY_WINDOW

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        super().__init__(loop)
        self._seconds = seconds
        self._last = 0.0

    def carry(self, data: bytes) -> None:
        self._carry(data)

    def carry_eof(self) -> None:
        self._carry(None)

    def flush(self) -> None:
        waiting = list(self._queue)
        self.drop()
        for _, data in waiting:
            self._pass(data)

    def end_fault(self) -> None:
        self.over = True
        self._seconds = 0.0  # bytes in the queue still arrive at their planned times
        self._tidy()

    def _carry(self, data: bytes | None) -> None:
        if not self._seconds and not self._queue:
            self._pass(data)
        else:
            self._last = max(self._last, self._loop.time() + self._seconds)
            self._keep((self._last, data))

    def _due(self) -> float:
        return self._queue[0][0]

    def _pass_first(self) -> None:
        self._pass(self._queue.popleft()[1])


class ThrottleStage(_Delay[memoryview]):
    """Passes on one slice at a time. A slice is cut off only when it is due, so a large write remains one entry."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bytes_per_second: float) -> None:
        super().__init__(loop)
        self._rate = bytes_per_second
        self._slice = max(1, int(bytes_per_second / _SLICES_A_SECOND))
        self._free_at = 0.0  # the time at which the link has sent the previous slice
        self._ends = False  # the end of file follows immediately after the last slice

    def carry(self, data: bytes) -> None:
        if self.over:
            self._pass(data)
            return
        if not self._queue:
            self._free_at = max(self._free_at, self._loop.time())
        self._keep(memoryview(data))

    def carry_eof(self) -> None:
        if self._queue:
            self._ends = True
        else:
            self._pass(None)

    def flush(self) -> None:
        rest = b"".join(self._queue)
        ends = self._ends
        self.drop()
        if rest:
            self._pass(rest)
        if ends:
            self._pass(None)

    def drop(self) -> None:
        super().drop()
        self._ends = False

    def _due(self) -> float:
        return self._free_at + min(len(self._queue[0]), self._slice) / self._rate

    def _pass_first(self) -> None:
        self._free_at = self._due()
        data = self._queue.popleft()
        if len(data) > self._slice:
            self._queue.appendleft(data[self._slice :])
        self._pass(bytes(data[: self._slice]))
        if self._ends and not self._queue:
            self._ends = False
            self._pass(None)


class Allowance:
    """How much of a message may pass: nothing (`None`), or its head and *after* bytes that follow the head.

    A ``100 Continue`` passes too, because it comes before the message.
    """

    def __init__(self, after: int | None, *, head_passed: bool) -> None:
        self._after = after
        self._left = after or 0
        self._head_passed = head_passed
        self._tail = b""  # the last bytes of the head that have passed

    @property
    def used_up(self) -> bool:
        return self._after is not None and self._head_passed and not self._left

    @property
    def silent(self) -> bool:
        """Whether nothing more may pass, not even the end of the message."""
        return self._after is None or self.used_up

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """Split *data* into the bytes that may pass and those that may not."""
        if not self._head_passed and not self._tail and data.startswith(b"HTTP/1.1 100 "):
            return data, b""
        if self._after is None:
            self._head_passed = True
            return b"", data
        at = 0
        if not self._head_passed:
            found = (self._tail + data).find(b"\r\n\r\n")
            if found < 0:
                self._tail = (self._tail + data)[-3:]
                return data, b""
            at = found + 4 - len(self._tail)
            self._head_passed = True
        passes = data[: at + self._left]
        self._left -= len(passes) - at
        return passes, data[len(passes) :]


class HangStage(Stage):
    """Passes on the allowed bytes, and holds all others until the fault ends."""

    rank = 1

    def __init__(self, allowance: Allowance) -> None:
        super().__init__()
        self._allowance = allowance
        self._kept: list[bytes | None] = []

    @property
    def idle(self) -> bool:
        return not self._kept

    def carry(self, data: bytes) -> None:
        if self.over:
            self._pass(data)
            return
        passes, rest = self._allowance.split(data)
        if passes:
            self._pass(passes)
        if rest:
            self._kept.append(rest)

    def carry_eof(self) -> None:
        if not self.over and (self._kept or self._allowance.silent):
            self._kept.append(None)
        else:
            self._pass(None)

    def flush(self) -> None:
        kept, self._kept = self._kept, []
        for data in kept:
            self._pass(data)

    def drop(self) -> None:
        self._kept.clear()


class CutStage(Stage):
    """Passes on the allowed bytes, then calls *cut*."""

    rank = 2

    def __init__(self, allowance: Allowance, cut: Callable[[], object]) -> None:
        super().__init__()
        self._allowance = allowance
        self._cut = cut
        self._reached = False

    @property
    def idle(self) -> bool:
        return True

    def carry(self, data: bytes) -> None:
        if self._reached:
            return
        if self.over:
            self._pass(data)
            return
        impairments = self.impairments
        assert impairments is not None  # set by add(), before any byte is carried
        passes, rest = self._allowance.split(data)
        if rest or self._allowance.used_up:
            self._reached = True
            impairments.hold_arrivals()
        if passes:
            self._pass(passes)
        if self._reached and not impairments.broken:
            impairments.broken = True
            self._cut()

    def carry_eof(self) -> None:
        if not self._reached:
            self._pass(None)

    def flush(self) -> None:
        """Do nothing, because this stage holds no bytes."""

    def drop(self) -> None:
        """Do nothing, because this stage holds no bytes."""


class Impairments:
    """The stages of one direction of a connection, between a write to *transport* and its delivery."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport
        self._arrival = _Arrival(transport)
        self._stages: list[Stage] = []
        self._first: Sink = self._arrival
        self.broken = False  # it is cut, or will be in the next iteration of the event loop

    @property
    def idle(self) -> bool:
        return all(stage.idle for stage in self._stages)

    def add(self, stage: Stage) -> None:
        """Add a stage, after those of the same rank."""
        stage.impairments = self
        self._stages.append(stage)
        self._stages.sort(key=lambda each: each.rank)
        sinks: list[Sink] = [*self._stages, self._arrival]
        for each, following in zip(self._stages, sinks[1:], strict=True):
            each.next = following
        self._first = sinks[0]
        self._transport.widen(stage.window)

    def tidy(self) -> None:
        """Remove all stages if all of them are over."""
        if all(stage.over and stage.idle for stage in self._stages):
            self.remove()

    def remove(self) -> None:
        """Let the transport deliver directly again, and pass on all bytes that the stages hold."""
        stages, self._stages = self._stages, []
        self._transport.use_medium(None)
        for stage in stages:
            stage.impairments = None
            stage.flush()
            self._transport.widen(-stage.window)
        self.release_arrivals()

    def hold_arrivals(self) -> None:
        """Deliver later bytes together with the coming cut, so that they are not answered before it."""
        self._arrival.hold()

    def release_arrivals(self) -> None:
        self._arrival.release()

    def carry(self, data: bytes) -> None:
        self._first.carry(data)

    def carry_eof(self) -> None:
        self._first.carry_eof()

    def drop(self) -> None:
        for stage in self._stages:
            stage.drop()
        self._arrival.drop()
