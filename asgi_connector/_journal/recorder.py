"""`Recorder`: the open recordings of a connector."""

import asyncio
from collections.abc import Set
from dataclasses import dataclass
from types import TracebackType

from aiohttp import ClientRequest

from asgi_connector._blocks import Block
from asgi_connector._callers import current_caller
from asgi_connector._exchange.exchange import Clock, Exchange
from asgi_connector._waiters import Waiters

from .journal import Journal
from .live import LiveExchange


@dataclass(frozen=True, eq=False)
class Recording:
    """One journal that is recorded into.

    Parameters:
        max_body_size: in bytes; `None` if bodies are not kept.
    """

    journal: Journal
    max_body_size: int | None = None


class RecordBlock(Block):
    """A `record()` block."""

    def __init__(self, recorder: "Recorder", recording: Recording) -> None:
        self._recorder = recorder
        self._recording = recording
        super().__init__("record()", "with")

    def __enter__(self) -> Journal:
        self._enter()
        self._recorder.begin_recording(self._recording)
        return self._recording.journal

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._recorder.end_recording(self._recording)


class Recorder:
    """The open recordings of one connector."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.clock = Clock(loop)
        self.recording = False
        self._loop = loop
        self.waiters = Waiters()
        """For the end of an exchange."""
        self._open: list[Recording] = []
        self.max_body_size: int | None = None
        """The largest of the open recordings; `None` if bodies are not kept."""
        self._released: list[LiveExchange] = []  # not concluded yet

    def record(self, max_body_size: int | None) -> RecordBlock:
        """Return a block that records the requests that start in it, without bodies if *max_body_size* is `None`."""
        return RecordBlock(self, Recording(Journal(waiters=self.waiters), max_body_size))

    def begin_recording(self, recording: Recording) -> None:
        self._set([*self._open, recording])

    def end_recording(self, recording: Recording) -> None:
        self._set([other for other in self._open if other is not recording])

    def _set(self, recordings: list[Recording]) -> None:
        self.conclude()
        self._open = recordings
        self.recording = bool(recordings)
        sizes = [recording.max_body_size for recording in recordings if recording.max_body_size is not None]
        self.max_body_size = max(sizes, default=None)

    def begin(self, req: ClientRequest) -> LiveExchange:
        """Create the exchange of a request that starts, and add it to every open recording."""
        if self._released:
            self.conclude()
        exchange = LiveExchange(req, current_caller.get(), self)
        for recording in self._open:
            recording.journal.add(exchange)
        return exchange

    def leave_out(self, explored: Set[Exchange]) -> None:
        """Let the journals of the open recordings leave out the calls of an exploration, if they do so."""
        for recording in self._open:
            recording.journal.leave_out(explored)

    def release(self, exchange: LiveExchange) -> None:
        """Conclude *exchange* later: its result is known from the next turn of the event loop on.

        That turn concludes it if a caller waits for an end, or if no recording is open. Otherwise it is concluded when
        the next request starts, when the set of recordings changes, or when an attribute is read.
        """
        self._released.append(exchange)
        if self.waiters or not self.recording:
            self._loop.call_soon(self.conclude, context=self.clock.context)

    def exchange_failed(self) -> None:
        """Wake those who wait for the end of an exchange: one has ended that has no connection to release."""
        self.waiters.wake()

    def conclude(self) -> None:
        """Conclude the exchanges whose connections were released."""
        released, self._released = self._released, []
        for exchange in released:
            exchange.conclude()
        if released:
            self.waiters.wake()
