"""The faults that `ASGIRoutingConnector.inject` can cause on connections to mounted hosts."""

from ._injection.faults import (
    Close,
    Crashed,
    Dropped,
    Fault,
    Hang,
    Held,
    Incident,
    Latency,
    Refuse,
    Reset,
    Respond,
    Throttle,
    Unresolvable,
)
from ._injection.hold import HeldMessage, Hold
from ._injection.injections import Injection
from ._injection.partition import Partition

__all__ = [
    "Close",
    "Crashed",
    "Dropped",
    "Fault",
    "Hang",
    "Held",
    "HeldMessage",
    "Hold",
    "Incident",
    "Injection",
    "Latency",
    "Partition",
    "Refuse",
    "Reset",
    "Respond",
    "Throttle",
    "Unresolvable",
]


def __dir__() -> list[str]:
    return __all__
