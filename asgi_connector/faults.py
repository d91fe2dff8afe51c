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
from ._injection.injections import Injection

__all__ = [
    "Close",
    "Crashed",
    "Dropped",
    "Fault",
    "Hang",
    "Held",
    "Incident",
    "Injection",
    "Latency",
    "Refuse",
    "Reset",
    "Respond",
    "Throttle",
    "Unresolvable",
]


def __dir__() -> list[str]:
    return __all__
