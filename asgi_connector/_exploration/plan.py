"""`Plan`: which calls of a scenario shall fail, and how."""

from dataclasses import MISSING, dataclass, fields

from asgi_connector._injection.faults import Fault

from .names import CallName


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault, and the call that it affects.

    Attributes:
        fault: one of `asgi_connector.faults`.
        call: the name of the call.
        lasting: whether the fault also affects every later call that differs from ``call`` only in its number, such as
            another attempt.
    """

    __module__ = "asgi_connector.faults"

    fault: Fault
    call: CallName
    lasting: bool = False

    def __str__(self) -> str:
        return f"{describe(self.fault)} on {self.call}{' and on each later one' if self.lasting else ''}"

    def affects(self, call: CallName) -> bool:
        """Whether it affects the call of this name."""
        if self.lasting:
            return self.call.alike(call) and call.number >= self.call.number
        return call == self.call


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults of one run, in the order of the calls that they affect; none in the first run."""

    __module__ = "asgi_connector.faults"

    faults: tuple[PlannedFault, ...] = ()

    def __str__(self) -> str:
        return "; ".join(map(str, self.faults)) or "no fault"

    def __len__(self) -> int:
        return len(self.faults)

    def with_fault(self, fault: PlannedFault) -> "Plan":
        """This plan and one more fault."""
        return Plan((*self.faults, fault))

    def includes(self, other: "Plan") -> bool:
        """Whether every fault of *other* is one of this plan's."""
        return set(other.faults) <= set(self.faults)


def describe(fault: Fault) -> str:
    """*fault* as Python, without the parameters that have their default: ``Reset()``."""
    given: list[str] = []
    for field in fields(fault):
        value = getattr(fault, field.name)
        if field.init and value != field.default:
            given.append(repr(value) if field.default is MISSING else f"{field.name}={value!r}")
    return f"{type(fault).__name__}({', '.join(given)})"
