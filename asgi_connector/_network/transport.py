"""An in-memory connection: two one-way pipes, an asyncio transport at either end, no socket.

Each `MemoryTransport` owns the pipe that it writes to; its peer owns the other one. What both promise is the contract
of `asyncio.Transport` with these points made exact:

- `write()` never calls the peer. Bytes are handed over in a callback of the event loop, at most one of which is pending
  for each pipe, in slices of at most `SLICE` bytes.
- What a protocol writes *while bytes are being handed to it* is gathered and handed over at the end of that same
  callback: an answer given at once costs no further turn of the event loop.
- Callbacks run in the connection's own `contextvars.Context`, never in that of whoever wrote.
- Closing is known at once: as soon as one end has closed and the other has nothing left to read, `is_closing()` of the
  other is true, before its `connection_lost()`.
- An aborted connection ends in `ConnectionResetError` at the other end.
- An end never waits for a peer that reads nothing any more. `TRANSITIONS` has every way in which an end ends.

This module imports nothing of the package.
"""

import asyncio
import enum
import errno
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from typing import Final, Protocol, cast

HIGH_WATER = 64 * 1024
SLICE = 256 * 1024


class State(enum.Enum):
    """What one end of a connection still does."""

    OPEN = "open"
    """It reads and writes."""
    CLOSING = "closing"
    """It reads nothing any more. What it wrote before is still on its way."""
    LOST = "lost"
    """Its `connection_lost()` is scheduled, or has been called."""


class Event(enum.Enum):
    """What ends one end of a connection."""

    CLOSE = "close() was called here, or a protocol did not keep its transport open at the peer's EOF"
    DELIVERED = "the peer has read everything that was written here, and its end"
    PEER_ENDED = "the peer reads nothing any more"
    END_READ = "the peer has ended, and everything that it wrote has been read here"
    UNWRITABLE = "the peer is lost, its end has arrived unread, and a write waits here that will never be read"
    ABORT = "abort() was called at either end, the network has cut the connection, or a protocol has failed"


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.OPEN, Event.CLOSE): State.CLOSING,
    (State.OPEN, Event.END_READ): State.LOST,
    (State.OPEN, Event.UNWRITABLE): State.LOST,
    (State.OPEN, Event.ABORT): State.LOST,
    (State.CLOSING, Event.DELIVERED): State.LOST,
    (State.CLOSING, Event.PEER_ENDED): State.LOST,
    (State.CLOSING, Event.ABORT): State.LOST,
}
"""The state that follows. An event that is not listed for a state changes nothing."""

_OPEN, _CLOSING, _LOST = State.OPEN, State.CLOSING, State.LOST


class Line(Protocol):
    """A network that is not perfect: what lies between `write()` at one end, and the delivery to the other.

    What it lets through it gives to `arrive()` and `arrive_eof()` of the transport that was written to.
    """

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        ...

    def carry(self, data: bytes) -> None:
        """Something was written."""

    def carry_eof(self) -> None:
        """There will be nothing more."""

    def drop(self) -> None:
        """What is on its way is lost."""


class MemoryTransport(asyncio.Transport):
    """One end of an in-memory connection; made in pairs by `connect_pair`."""

    __slots__ = (
        "_chunks",
        "_context",
        "_corked",
        "_eof",
        "_eof_delivered",
        "_eof_due",
        "_gathered",
        "_kept",
        "_high",
        "_loop",
        "_low",
        "_peer",
        "_protocol",
        "_read_paused",
        "_reset",
        "_scheduled",
        "_size",
        "_state",
        "_write_paused",
        "line",
    )

    _peer: "MemoryTransport"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        protocol: asyncio.Protocol,
        extra: Mapping[str, object] | None,
    ) -> None:
        super().__init__(extra)
        self._loop = loop
        self._context = context
        self._protocol = protocol
        self._state = _OPEN
        self._read_paused = False
        # The pipe that this end writes to.
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._eof = False
        self._eof_due = False  # written, and not yet handed over
        self._eof_delivered = False
        # Passed to the peer's connection_lost() after the remaining bytes.
        self._reset: BaseException | None = None
        self.line: Line | None = None
        self._high = HIGH_WATER
        self._low = HIGH_WATER // 4
        self._write_paused = False
        self._scheduled = False  # a hand-over is pending in the event loop
        self._corked = False  # bytes are being handed to this end: gather what it writes
        self._kept: list[bytes] | None = None  # what was written since hold()
        self._gathered = False  # something was written while corked

    def __repr__(self) -> str:
        paused = ", reading paused" if self._read_paused else ""
        return f"<{type(self).__name__} {self._state.value}, {self._size} bytes to deliver{paused}>"

    def attach(self, peer: "MemoryTransport") -> None:
        """The other end is *peer*."""
        self._peer = peer

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Whatever is delivered from now on goes to *protocol*, also from within the old one's `data_received()`."""
        self._protocol = cast(asyncio.Protocol, protocol)

    def is_closing(self) -> bool:
        if self._state is not _OPEN:
            return True
        peer = self._peer
        return peer._state is not _OPEN and not peer._size and (peer.line is None or peer.line.idle)

    def is_reading(self) -> bool:
        return self._state is _OPEN and not self._read_paused

    def pause_reading(self) -> None:
        self._read_paused = True
        self._check_writable()

    def resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            peer = self._peer
            if peer._chunks or peer._eof_due:
                peer._schedule()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high = high
        self._low = low
        if self._size > high:
            self._pause_writing()
        else:
            self._resume_writing()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (self._low, self._high)

    def get_write_buffer_size(self) -> int:
        """Bytes written at this end and not yet handed to the other."""
        return self._size

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._eof and self._state is _OPEN:
            raise RuntimeError("Cannot call write() after write_eof()")
        if type(data) is not bytes:
            # Copied, because its owner may change it before it is delivered.
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"data: expecting a bytes-like instance, got {type(data).__name__}")
            data = bytes(data)
        # Like a socket's: bytes for a connection that has ended are dropped, and that is not an error.
        if not data or self._state is not _OPEN:
            return
        peer = self._peer
        if peer._state is not _OPEN:
            # A writer that never waits must not go on for ever. Its connection_lost() ends the pause.
            self._pause_writing()
            return
        self._size += len(data)
        if self._kept is not None:
            self._kept.append(data)
        elif self.line is not None:
            self.line.carry(data)
        else:
            self._chunks.append(data)
            if not (self._gathered or self._scheduled):
                self._schedule()
        if self._size > self._high:
            self._pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def write_eof(self) -> None:
        if self._eof or self._state is not _OPEN:
            return
        self._send_eof()

    def _send_eof(self) -> None:
        self._eof = True
        if self._peer._state is not _OPEN:
            return  # there is nobody to learn of it
        if self.line is not None and self._kept is None:
            self.line.carry_eof()
        else:
            self.arrive_eof()

    def hold(self) -> None:
        """Deliver nothing of what is written from now on, until `release()`."""
        if self._kept is None:
            self._kept = []

    def release(self) -> None:
        """Deliver what was written since `hold()`, and whatever follows."""
        kept, self._kept = self._kept, None
        if self.line is not None:
            self._carry(self.line, kept or ())
        elif kept:
            self._chunks.extend(kept)
        if (self._chunks or self._eof_due) and not self._scheduled:
            self._schedule()

    def close(self) -> None:
        """Deliver what was written, then end the connection. Nothing more is read at this end."""
        if self._state is _OPEN:
            self._happen(Event.CLOSE)
            self._send_eof()
            if not self._size:
                self._happen(Event.DELIVERED)

    def abort(self) -> None:
        """End the connection now. What is on its way is lost in both directions."""
        self._abort(None)

    def hang_up(self, *, deliver: bool, at_once: bool = False) -> bool:
        """End this end as a process does that closes its socket. Returns whether the peer may be told of it now.

        With *deliver* the peer still reads what was written. Without it, the connection is aborted. Over a line the
        peer learns of the end after the bytes that the line still has, unless *at_once* is true.
        """
        if self.line is not None and not at_once:
            self.close()
            if self._kept is not None:
                self.release()
            self._happen(Event.ABORT)
            return False
        if deliver and self.line is None:
            self.close()
        else:
            self.abort()
        return True

    @property
    def peer_lost(self) -> bool:
        """Whether the peer has ended. This end may be unable to learn of it: a line may keep the news."""
        return self._peer._state is _LOST

    # What stands between the two ends, and what it lets through.

    @property
    def peer(self) -> "MemoryTransport":
        """The other end."""
        return self._peer

    def use_line(self, line: Line | None) -> None:
        """Carry by *line* what is written at this end from now on, and what was written and has not been delivered."""
        self.line = line
        if line is not None:
            written, self._chunks = self._chunks, deque()
            self._carry(line, written)

    def _carry(self, line: Line, written: Iterable[bytes]) -> None:
        ends = self._eof_due and self._kept is None
        if ends:
            self._eof_due = False
        for data in written:
            line.carry(data)
        if ends:
            line.carry_eof()

    def widen(self, by: int) -> None:
        """Let so many bytes more be on their way before the writer is paused."""
        self._high += by
        self._low += by

    def arrive(self, data: bytes) -> None:
        """The line has let *data* through."""
        self._chunks.append(data)
        if not (self._gathered or self._scheduled):
            self._schedule()

    def arrive_eof(self) -> None:
        self._eof_due = True
        self._schedule()
        self._peer._check_writable()

    def cut(self, reset: BaseException | None) -> None:
        """The network ends the connection, by a *reset* or in order: here at once, at the other end behind what came
        through to it. Everything else that was on its way, in either direction, is lost.
        """
        self._reset = reset
        line, self.line, self._kept = self.line, None, None
        if line is not None:
            line.drop()
        self._size = sum(map(len, self._chunks))
        self._happen(Event.ABORT, reset)
        self.arrive_eof()

    def _schedule(self) -> None:
        if self._scheduled or self._peer._read_paused:
            return
        if self._corked:
            self._gathered = True
            return
        self._scheduled = True
        try:
            self._loop.call_soon(self._deliver, context=self._context)
        except RuntimeError:
            # An app that is finalised after its loop has been closed may still write. It cannot be delivered.
            if not self._loop.is_closed():
                raise

    def _deliver(self) -> None:
        """The event loop's callback: hand over to the peer, then hand back what it answered at once."""
        self._scheduled = False
        peer = self._peer
        peer._corked = True
        try:
            self._hand_over()
        finally:
            peer._corked = False
            if peer._gathered:
                peer._gathered = False
                # Not a second _deliver(): two protocols that answer each other must give way to the event loop.
                peer._hand_over()

    def _hand_over(self) -> None:
        peer = self._peer
        if peer._state is not _OPEN or peer._read_paused:
            return
        chunks = self._chunks
        if chunks:
            data = chunks.popleft() if len(chunks) == 1 and self._size <= SLICE else self._take()
            self._size -= len(data)
            try:
                peer._protocol.data_received(data)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                peer._fail("data_received", exc)
                return
            if self._write_paused:
                self._resume_writing()
            if chunks:
                self._schedule()
                return
        if self._eof_due and self._kept is None and peer._state is _OPEN and not peer._read_paused:
            self._deliver_eof()

    def _take(self) -> bytes:
        """All that is waiting, or the first `SLICE` bytes of it."""
        chunks = self._chunks
        if self._size <= SLICE:
            data = b"".join(chunks)
            chunks.clear()
            return data
        taken: list[bytes] = []
        room = SLICE
        while chunks and room >= len(chunks[0]):
            room -= len(chunks[0])
            taken.append(chunks.popleft())
        if not taken:
            # A chunk larger than a slice is cut up once, so that its rest is not copied time and again.
            chunk = memoryview(chunks.popleft())
            chunks.extendleft(bytes(chunk[at : at + SLICE]) for at in reversed(range(0, len(chunk), SLICE)))
            taken.append(chunks.popleft())
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def _deliver_eof(self) -> None:
        self._eof_due = False
        peer = self._peer
        keep_open: object = False
        if not self._eof_delivered and self._reset is None:
            self._eof_delivered = True
            keep_open = peer._call(peer._protocol.eof_received)
        if self._state is not _OPEN:
            self._happen(Event.DELIVERED)
            peer._drop()
            peer._happen(Event.END_READ, self._reset)
        elif not keep_open:
            peer.close()

    def _drop(self) -> None:
        self._chunks.clear()
        if self._kept is not None:
            self._kept.clear()
        if self.line is not None:
            self.line.drop()
        self._size = 0

    def _happen(self, event: Event, exc: BaseException | None = None) -> None:
        """Enter the state that follows *event*, if any. A lost end gets *exc* in its `connection_lost()`."""
        following = TRANSITIONS.get((self._state, event))
        if following is None:
            return
        self._state = following
        if following is _LOST:
            try:
                self._loop.call_soon(self._connection_lost, exc, context=self._context)
            except RuntimeError:
                if not self._loop.is_closed():
                    raise
        peer = self._peer
        peer._drop()
        peer._happen(Event.PEER_ENDED, self._reset)
        peer._check_writable()

    def _check_writable(self) -> None:
        """A socket that does not read learns of its peer's end by a write that fails."""
        peer = self._peer
        if peer._state is _LOST and peer._eof_due and self._read_paused and self._write_paused:
            self._happen(Event.UNWRITABLE, peer._reset or _reset_error())

    def _abort(self, exc: BaseException | None) -> None:
        peer = self._peer
        self._reset = _reset_error()
        self._drop()
        peer._drop()
        self._happen(Event.ABORT, exc)
        peer._happen(Event.ABORT, self._reset)

    def _connection_lost(self, exc: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(cast("Exception | None", exc))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report("connection_lost", error)

    def _pause_writing(self) -> None:
        if not self._write_paused:
            self._write_paused = True
            self._call(self._protocol.pause_writing)
            self._check_writable()

    def _resume_writing(self) -> None:
        if self._write_paused and self._state is not _LOST and self._size <= self._low:
            self._write_paused = False
            self._call(self._protocol.resume_writing)

    def _call(self, callback: Callable[..., object], *args: object) -> object:
        """Call a protocol back; one that raises is reported and loses its connection, as in asyncio."""
        try:
            return callback(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fail(getattr(callback, "__name__", repr(callback)), exc)
            return None

    def _fail(self, callback: str, exc: BaseException) -> None:
        self._report(callback, exc)
        self._abort(exc)

    def _report(self, callback: str, exc: BaseException) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"Fatal error: protocol.{callback}() call failed.",
                "exception": exc,
                "transport": self,
                "protocol": self._protocol,
            }
        )


def _reset_error() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "The other end of the in-memory connection was aborted")


def connect_pair(
    loop: asyncio.AbstractEventLoop,
    client: asyncio.Protocol,
    server: asyncio.Protocol,
    *,
    client_extra: Mapping[str, object] | None = None,
    server_extra: Mapping[str, object] | None = None,
) -> tuple[MemoryTransport, MemoryTransport]:
    """Connect two protocols; returns the client's transport and the server's.

    `connection_made()` of the server has been called first, then that of the client. The extra mappings are what
    `get_extra_info()` answers from.
    """
    context = Context()
    client_end = MemoryTransport(loop, context, client, client_extra)
    server_end = MemoryTransport(loop, context, server, server_extra)
    client_end.attach(server_end)
    server_end.attach(client_end)
    context.run(server.connection_made, server_end)
    context.run(client.connection_made, client_end)
    return client_end, server_end
