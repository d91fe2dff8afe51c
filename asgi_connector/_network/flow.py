"""The base class of the in-memory transport: flow control of writes, and the calls of the protocol."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from typing import Final, TypeAlias, cast

from .states import State

HIGH_WATER: Final = 64 * 1024
"""Bytes that may be undelivered before the writer is paused."""


Extra: TypeAlias = Mapping[str, object] | None
"""The mapping that `get_extra_info()` reads."""


class FlowControlledTransport(asyncio.Transport):
    """A transport that pauses its protocol above a high-water mark, and resumes it below a low-water mark."""

    __slots__ = (
        "_context",
        "_high",
        "_loop",
        "_low",
        "_protocol",
        "_read_paused",
        "_size",
        "_state",
        "_write_paused",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: Context, protocol: asyncio.Protocol, extra: Extra
    ) -> None:
        super().__init__(extra)
        self._state = State.OPEN
        self._read_paused = False
        self._loop = loop
        self._context = context
        self._protocol = protocol
        self._size = 0  # bytes that were written and not yet delivered
        self._high = HIGH_WATER
        self._low = HIGH_WATER // 4
        self._write_paused = False

    def __repr__(self) -> str:
        paused = ", reading paused" if self._read_paused else ""
        return f"<{type(self).__name__} {self._state.value}, {self._size} bytes to deliver{paused}>"

    def is_reading(self) -> bool:
        return self._state is State.OPEN and not self._read_paused

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Send every later event to *protocol*. This may be called in the old protocol's `data_received()`."""
        self._protocol = cast(asyncio.Protocol, protocol)

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
        """Return the number of bytes written at this end and not yet delivered to the peer."""
        return self._size

    def can_write_eof(self) -> bool:
        return True

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def widen(self, by: int) -> None:
        """Raise both limits by *by* bytes, so that more bytes may be undelivered before the writer is paused."""
        self._high += by
        self._low += by

    def _pause_writing(self) -> None:
        if not self._write_paused:
            self._write_paused = True
            self._call(self._protocol.pause_writing)

    def _resume_writing(self) -> None:
        if self._write_paused and self._state is not State.LOST and self._size <= self._low:
            self._write_paused = False
            self._call(self._protocol.resume_writing)

    def _call(self, callback: Callable[..., object], *args: object) -> object:
        """Call the protocol. If it raises, report the exception and end the connection, as asyncio does."""
        try:
            return callback(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fail(getattr(callback, "__name__", repr(callback)), exc)
            return None

    def _schedule_connection_lost(self, exc: BaseException | None) -> None:
        try:
            self._loop.call_soon(self._call_connection_lost, exc, context=self._context)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(cast("Exception | None", exc))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report("connection_lost", error)

    def _fail(self, callback: str, exc: BaseException) -> None:
        self._report(callback, exc)
        self._abort(exc)

    def _abort(self, exc: BaseException | None) -> None:
        """End the connection now. *exc* is the exception that the protocol raised, if any."""
        raise NotImplementedError

    def _report(self, callback: str, exc: BaseException) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"Fatal error: protocol.{callback}() call failed.",
                "exception": exc,
                "transport": self,
                "protocol": self._protocol,
            }
        )
