"""What may happen to a connection to a mounted host, for `ASGIRoutingConnector.inject`."""

from ._injection.faults import Close, Fault, Hang, Latency, Refuse, Reset, Respond, Throttle, Unresolvable
from ._injection.injections import Injection

__all__ = [
    "Close",
    "Fault",
    "Hang",
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
