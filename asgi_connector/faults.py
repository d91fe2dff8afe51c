"""What may happen to a connection to a mounted host, for `ASGIRoutingConnector.inject`."""

from ._faults import Close, Fault, Hang, Latency, Refuse, Reset, Respond, Throttle, Unresolvable
from ._injection import Injection

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

for _public in (Close, Hang, Injection, Latency, Refuse, Reset, Respond, Throttle, Unresolvable):
    _public.__module__ = __name__


def __dir__() -> list[str]:
    return __all__
