"""An in-memory connection: two one-way pipes with an asyncio transport at each end, and no socket.

Each `MemoryTransport` owns the pipe that it writes to. Its peer owns the other pipe. Both keep the contract of
`asyncio.Transport`, and make these points exact:

- `write()` never calls the peer. An event-loop callback delivers the bytes, in slices of at most `SLICE` bytes. Each
  pipe has at most one such callback pending.
- Bytes that a protocol writes *during its own `data_received()`* are gathered, and delivered at the end of the same
  callback. So an immediate answer needs no further iteration of the event loop.
- Callbacks run in the connection's own `contextvars.Context`, never in that of the writer.
- A close is visible immediately: as soon as one end has closed and the other has nothing left to read, `is_closing()`
  of the other is true, before its `connection_lost()`.
- When one end aborts, `connection_lost()` of the other end gets a `ConnectionResetError`.
- An end never waits for a peer that no longer reads. `TRANSITIONS` lists every way in which an end ends.
"""

import asyncio
import errno
from collections import deque
from collections.abc import Iterable
from contextvars import Context
from typing import Final, Protocol

from .flow import Extra, FlowControlledTransport
from .states import TRANSITIONS, Event, State

SLICE: Final = 256 * 1024
"""The largest number of bytes that one callback delivers."""


_OPEN, _CLOSING, _LOST = State.OPEN, State.CLOSING, State.LOST


class Medium(Protocol):
    """An imperfect network between `write()` at one end and the delivery to the other.

    It delivers bytes by calling `arrive()` and `arrive_eof()` of the transport that wrote them.
    """

    @property
    def idle(self) -> bool:
        """Whether the medium holds no bytes."""
        ...

    def carry(self, data: bytes) -> None:
        """Take *data*, which was written."""

    def carry_eof(self) -> None:
        """Take the end of file. No bytes will follow."""

    def drop(self) -> None:
        """Lose the bytes that the medium holds."""

    def remove(self) -> None:
        """Let the transport deliver directly again, and pass on what the medium holds."""


class MemoryTransport(FlowControlledTransport):
    """One end of an in-memory connection. `connect_pair` creates both ends."""

    __slots__ = (
        "_chunks",
        "_corked",
        "_eof",
        "_eof_delivered",
        "_eof_due",
        "_gathered",
        "_kept",
        "_peer",
        "_reset",
        "_scheduled",
        "medium",
    )

    _peer: "MemoryTransport"

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: Context, protocol: asyncio.Protocol, extra: Extra
    ) -> None:
        super().__init__(loop, context, protocol, extra)
        # The pipe that this end writes to.
        self._chunks: deque[bytes] = deque()
        self._eof = False
        self._eof_due = False  # the end of file was written and not yet delivered
        self._eof_delivered = False
        # Passed to the peer's connection_lost() after the remaining bytes.
        self._reset: BaseException | None = None
        self.medium: Medium | None = None
        self._scheduled = False  # a _deliver() callback is pending in the event loop
        self._corked = False  # bytes are being delivered to this end, so gather what it writes
        self._kept: list[bytes] | None = None  # the bytes written since hold_writes()
        self._gathered = False  # this end wrote something while corked

    def is_closing(self) -> bool:
        if self._state is not _OPEN:
            return True
        peer = self._peer
        return peer._state is not _OPEN and not peer._size and (peer.medium is None or peer.medium.idle)

    def pause_reading(self) -> None:
        self._read_paused = True
        self._check_writable()

    def resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            peer = self._peer
            if peer._chunks or peer._eof_due:
                peer._schedule()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._eof and self._state is _OPEN:
            raise RuntimeError("Cannot call write() after write_eof()")
        if type(data) is not bytes:
            data = _copy(data)
        # As with a socket, bytes written to a connection that has ended are dropped without an error.
        if not data or self._state is not _OPEN:
            return
        peer = self._peer
        if peer._state is not _OPEN:
            # Pause, or a protocol that writes until it is paused would never stop. connection_lost() ends the pause.
            self._pause_writing()
            return
        self._size += len(data)
        if self._kept is not None:
            self._kept.append(data)
        elif self.medium is not None:
            self.medium.carry(data)
        else:
            self._chunks.append(data)
            if not (self._gathered or self._scheduled):
                self._schedule()
        if self._size > self._high:
            self._pause_writing()

    def write_eof(self) -> None:
        if not self._eof and self._state is _OPEN:
            self._send_eof()

    def _send_eof(self) -> None:
        self._eof = True
        if self._peer._state is not _OPEN:
            return  # the peer has already ended
        if self.medium is not None and self._kept is None:
            self.medium.carry_eof()
        else:
            self.arrive_eof()

    def hold_writes(self) -> None:
        """Keep all bytes that are written from now on, until `release_writes()`."""
        if self._kept is None:
            self._kept = []

    def release_writes(self) -> None:
        """Deliver the bytes written since `hold_writes()`, and all later ones."""
        kept, self._kept = self._kept, None
        if self.medium is not None:
            self._carry(self.medium, kept or ())
        elif kept:
            self._chunks.extend(kept)
        if (self._chunks or self._eof_due) and not self._scheduled:
            self._schedule()

    def close(self) -> None:
        """Deliver the bytes that were written, then end the connection. This end stops reading now."""
        if self._state is _OPEN:
            self._happen(Event.CLOSE)
            self._send_eof()
            if not self._size:
                self._happen(Event.DELIVERED)

    def abort(self) -> None:
        """End the connection now. Undelivered bytes are lost in both directions."""
        self._abort(None)

    def hang_up(self, *, deliver: bool, at_once: bool = False) -> bool:
        """End this end, as a process does that closes its socket. Returns whether the peer may be told immediately.

        With *deliver*, the peer still reads the bytes that were written. Without it, the connection is aborted. With a
        medium, the peer learns of the end after the bytes that the medium holds, unless *at_once* is true.
        """
        if self.medium is not None and not at_once:
            self.close()
            if self._kept is not None:
                self.release_writes()
            self._happen(Event.ABORT)
            return False
        if deliver and self.medium is None:
            self.close()
        else:
            self.abort()
        return True

    @property
    def peer_lost(self) -> bool:
        """Whether the peer has ended. A medium may keep this end from noticing that."""
        return self._peer._state is _LOST

    # The medium between the two ends.

    @property
    def peer(self) -> "MemoryTransport":
        """The other end."""
        return self._peer

    def use_medium(self, medium: Medium | None) -> None:
        """Pass undelivered bytes, and all bytes written at this end from now on, through *medium*."""
        self.medium = medium
        if medium is not None:
            written, self._chunks = self._chunks, deque()
            self._carry(medium, written)

    def _carry(self, medium: Medium, written: Iterable[bytes]) -> None:
        ends = self._eof_due and self._kept is None
        if ends:
            self._eof_due = False
        for data in written:
            medium.carry(data)
        if ends:
            medium.carry_eof()

    def arrive(self, data: bytes) -> None:
        """Deliver *data*, which the medium has let through."""
        self._chunks.append(data)
        if not (self._gathered or self._scheduled):
            self._schedule()

    def arrive_eof(self) -> None:
        self._eof_due = True
        self._schedule()
        self._peer._check_writable()

    def cut(self, reset: BaseException | None) -> None:
        """End the connection as the network does: with the error *reset*, or without an error.

        This end is lost now. The peer first reads the bytes that have arrived. All other bytes are lost.
        """
        self._reset = reset
        medium, self.medium, self._kept = self.medium, None, None
        if medium is not None:
            medium.drop()
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
            # An app that is finalised after its loop was closed may still write. These bytes cannot be delivered.
            if not self._loop.is_closed():
                raise

    def _deliver(self) -> None:
        """Deliver to the peer, then deliver its immediate answer to this end. A callback of the event loop."""
        self._scheduled = False
        peer = self._peer
        peer._corked = True
        try:
            self._hand_over()
        finally:
            peer._corked = False
            if peer._gathered:
                peer._gathered = False
                # Not a second _deliver(): two protocols that answer each other must not block the event loop.
                peer._hand_over()

    def deliver_now(self) -> None:
        """Deliver what was written, instead of in the next iteration of the event loop.

        For a task that is about to end. It must not be called in a callback of this connection.
        """
        if self._scheduled:
            self._context.run(self._hand_over)

    def _hand_over(self) -> None:
        peer = self._peer
        if peer._state is not _OPEN or peer._read_paused:
            return
        chunks = self._chunks
        if chunks:
            data = chunks.popleft() if len(chunks) == 1 and self._size <= SLICE else _take(chunks, self._size)
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
        if self.medium is not None:
            self.medium.drop()
        self._size = 0

    def _happen(self, event: Event, exc: BaseException | None = None) -> None:
        """Enter the state that follows *event*, if any. A lost end gets *exc* in its `connection_lost()`."""
        following = TRANSITIONS.get((self._state, event))
        if following is None:
            return
        self._state = following
        if following is _LOST:
            self._schedule_connection_lost(exc)
        peer = self._peer
        peer._drop()
        peer._happen(Event.PEER_ENDED, self._reset)
        peer._check_writable()

    def _check_writable(self) -> None:
        """End this end if it writes to a lost peer without reading. A socket learns of the loss by a failed write."""
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

    def _pause_writing(self) -> None:
        super()._pause_writing()
        self._check_writable()


def _copy(data: bytes | bytearray | memoryview) -> bytes:
    """Copy *data*, because its owner may change it before it is delivered."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data: expecting a bytes-like instance, got {type(data).__name__}")
    return bytes(data)


def _take(chunks: deque[bytes], size: int) -> bytes:
    """Remove and return all *chunks*, which have *size* bytes in total, or at most the first `SLICE` bytes."""
    if size <= SLICE:
        data = b"".join(chunks)
        chunks.clear()
        return data
    taken: list[bytes] = []
    left = SLICE
    while chunks and left >= len(chunks[0]):
        left -= len(chunks[0])
        taken.append(chunks.popleft())
    if not taken:
        # Split a chunk larger than a slice only once, so that its rest is not copied again for each slice.
        chunk = memoryview(chunks.popleft())
        chunks.extendleft(bytes(chunk[at : at + SLICE]) for at in reversed(range(0, len(chunk), SLICE)))
        taken.append(chunks.popleft())
    return taken[0] if len(taken) == 1 else b"".join(taken)


def _reset_error() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "The other end of the in-memory connection was aborted")


def remove_media(transport: MemoryTransport) -> None:
    """Deliver directly again, in both directions, what media hold and all that is written from now on."""
    for end in (transport, transport.peer):
        if end.medium is not None:
            end.medium.remove()


def connect_pair(
    loop: asyncio.AbstractEventLoop,
    client: asyncio.Protocol,
    server: asyncio.Protocol,
    *,
    client_extra: Extra = None,
    server_extra: Extra = None,
) -> tuple[MemoryTransport, MemoryTransport]:
    """Connect two protocols. Returns the client's transport and the server's.

    `connection_made()` of the server is called first, then that of the client. `get_extra_info()` reads the extra
    mappings.
    """
    context = Context()
    client_end = MemoryTransport(loop, context, client, client_extra)
    server_end = MemoryTransport(loop, context, server, server_extra)
    client_end._peer, server_end._peer = server_end, client_end  # pyright: ignore[reportPrivateUsage]
    context.run(server.connection_made, server_end)
    context.run(client.connection_made, client_end)
    return client_end, server_end
