"""A stage that keeps a whole message at the end of its way, until it is released or lost."""

import enum
from collections.abc import Callable
from typing import Final, Protocol

from .impairments import Stage

# The bytes that a held message may have. Without a limit, an app that sends without end would never wait, and would
# stop the event loop.
HOLD_WINDOW: Final = 64 * 1024 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 "
_END_OF_HEAD: Final = b"\r\n\r\n"


class MessageEnd(Protocol):
    """Finds the end of a message in its bytes."""

    def feed(self, data: bytes) -> bool:
        """Take the next bytes. Returns whether the message is complete."""
        ...

    def ends_with_connection(self) -> bool:
        """Whether the message is complete when its connection ends here."""
        ...


class _State(enum.Enum):
    ARRIVING = "its bytes are kept"
    WHOLE = "it has arrived, and is kept"
    PASSED = "everything passes"
    LOST = "nothing passes any more"


class HoldStage(Stage):
    """Keeps the bytes of one message. A message that breaks off is passed on."""

    rank = 3  # the last stage
    window = HOLD_WINDOW

    def __init__(
        self, end: MessageEnd, on_whole: Callable[[], object], on_lost: Callable[[], object], cut: Callable[[], object]
    ) -> None:
        """*on_whole*, *on_lost*: the message has arrived; the connection has ended. *cut* ends the connection."""
        super().__init__()
        self._end = end
        self._on_whole = on_whole
        self._on_lost = on_lost
        self._cut = cut
        self._opening = b""  # the first bytes, as long as they may be those of a 100
        self._kept: list[bytes | None] = []
        self._state = _State.ARRIVING

    @property
    def idle(self) -> bool:
        return not (self._kept or self._opening)

    def carry(self, data: bytes) -> None:
        if self._state is _State.PASSED:
            self._pass(data)
        elif self._state is _State.ARRIVING and not self._kept:
            self._open(self._opening + data)
        elif self._state is not _State.LOST:
            self._keep(data)

    def _open(self, opening: bytes) -> None:
        """Take the first bytes. A 100 is not the response: without it, the request would never be complete."""
        while opening.startswith(_CONTINUE) and _END_OF_HEAD in opening:
            head, end, opening = opening.partition(_END_OF_HEAD)
            self._pass(head + end)
        if opening.startswith(_CONTINUE) or _CONTINUE.startswith(opening):
            self._opening = opening
        else:
            self._opening = b""
            self._keep(opening)

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        if self._state is _State.ARRIVING and self._end.feed(data):
            self._arrived()

    def carry_eof(self) -> None:
        if self._state is _State.LOST:
            self._cut()  # the end of the connection would be lost too, and the other end would wait without a limit
        elif self._state is _State.WHOLE:
            self._kept.append(None)
        elif self._state is _State.ARRIVING and self._kept and self._end.ends_with_connection():
            self._kept.append(None)
            self._arrived()
        else:
            self._state = _State.PASSED
            self.flush()
            self._pass(None)

    def _arrived(self) -> None:
        self._state = _State.WHOLE
        self._on_whole()

    def flush(self) -> None:
        kept: list[bytes | None] = [self._opening] if self._opening else self._kept
        self._opening, self._kept = b"", []
        for data in kept:
            self._pass(data)

    def end_fault(self) -> None:
        self._state = _State.PASSED
        super().end_fault()

    def lose(self) -> None:
        """Lose the message, and all later bytes: a connection delivers no byte before the one that is missing."""
        self._state = _State.LOST
        self._opening = b""
        self._kept.clear()

    def drop(self) -> None:
        self._opening = b""
        self._kept.clear()
        self._on_lost()
