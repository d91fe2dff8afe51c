"""The states of one end of an in-memory connection, the events that end it, and the table of transitions."""

import enum
from collections.abc import Mapping
from typing import Final


class State(enum.Enum):
    """The state of one end of a connection."""

    OPEN = "open"
    """It reads and writes."""
    CLOSING = "closing"
    """It no longer reads. Bytes that it wrote before are still being delivered."""
    LOST = "lost"
    """Its `connection_lost()` is scheduled, or has been called."""


class Event(enum.Enum):
    """The events that can end one end of a connection."""

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
"""The next state, by state and event. A pair that is not listed changes nothing."""
