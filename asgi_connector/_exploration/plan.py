"""`Plan`: which calls of a scenario shall fail, and how."""

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from enum import Enum

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
        fault = python_of(self.fault, secrets=False)
        return f"{fault} on {self.call}{' and on each later one' if self.lasting else ''}"

    def affects(self, call: CallName) -> bool:
        """Whether it affects the call of this name."""
        return call == self.call or (self.lasting and self.call.is_before(call))


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall fail in one run; its text says so.

    Attributes:
        faults: the planned faults, in the order of the calls that they affect; none in the first run.
    """

    __module__ = "asgi_connector.faults"

    faults: tuple[PlannedFault, ...] = ()

    def __str__(self) -> str:
        return "; ".join(map(str, self.faults)) or "no fault"

    def __len__(self) -> int:
        return len(self.faults)

    def with_fault(self, fault: PlannedFault) -> "Plan":
        """This plan and one more fault."""
        return Plan((*self.faults, fault))

    def with_lasting(self, fault: PlannedFault) -> "Plan":
        """This plan with *fault*, one of its own, as a lasting one."""
        lasting = PlannedFault(fault.fault, fault.call, lasting=True)
        return Plan(tuple(lasting if each == fault else each for each in self.faults))

    def affects(self, call: CallName) -> bool:
        """Whether one of its faults affects the call of this name."""
        return any(planned.affects(call) for planned in self.faults)

    def failures(self, calls: Iterable[CallName]) -> "Failures":
        """Which of *calls* it affects, and how."""
        return frozenset((each.fault, call) for call in calls for each in self.faults if each.affects(call))

    def causes(self, failures: "Failures") -> bool:
        """Whether each of *failures* is among those that it causes, if the calls are made."""
        return all(any(each.fault == fault and each.affects(call) for each in self.faults) for fault, call in failures)


Failures = frozenset[tuple[Fault, CallName]]
"""What faults have done in one run: each call that was affected, with its fault."""


def python_of(fault: Fault, *, secrets: bool = True) -> str:
    """*fault* as Python, without the parameters that have their default: ``Reset()``.

    Without *secrets*, what the text of a fault does not show is left out: a body may be large.
    """
    given: list[str] = []
    for field in fields(fault):
        value = getattr(fault, field.name)
        if not field.init or value == field.default or not (field.repr or secrets):
            continue
        literal = repr(value.value if isinstance(value, Enum) else value)
        given.append(literal if field.default is MISSING else f"{field.name}={literal}")
    return f"{type(fault).__name__}({', '.join(given)})"
