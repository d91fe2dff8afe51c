"""The faults that `ASGIRoutingConnector.inject` can cause on connections to mounted hosts, and their exploration."""

from ._exploration.explore import explore
from ._exploration.findings import Finding
from ._exploration.names import CallName
from ._exploration.plan import Plan, PlannedFault
from ._exploration.report import Report
from ._exploration.shake import Shake
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
    "CallName",
    "Close",
    "Crashed",
    "Dropped",
    "Fault",
    "Finding",
    "Hang",
    "Held",
    "HeldMessage",
    "Hold",
    "Incident",
    "Injection",
    "Latency",
    "Partition",
    "Plan",
    "PlannedFault",
    "Refuse",
    "Report",
    "Reset",
    "Respond",
    "Shake",
    "Throttle",
    "Unresolvable",
    "explore",
]


def __dir__() -> list[str]:
    return __all__
