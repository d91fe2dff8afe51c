"""A plan as Python: `inject()` blocks to paste into a test."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields

from asgi_connector._exchange.exchange import Exchange
from asgi_connector._injection.faults import Fault

from .names import Namer, stable_path
from .plan import Plan, PlannedFault

_INDENT = "    "


def source_of(plan: Plan, calls: Sequence[Exchange]) -> str:
    """Return a ``with`` statement that causes the faults of *plan*, which affected *calls* in its run."""
    blocks = [_inject(planned, calls) for planned in plan.faults]
    if len(blocks) == 1:
        return f"with {blocks[0]}:\n{_INDENT}..."
    return "\n".join(["with (", *(_indented(f"{block},") for block in blocks), "):", f"{_INDENT}..."])


def _inject(planned: PlannedFault, calls: Sequence[Exchange]) -> str:
    call = planned.call
    path = repr(call.path) if "*" not in call.path else f"re.compile({_pattern(call.path)!r})"
    arguments = [
        repr(call.host),
        source_of_fault(planned.fault),
        f"caller={call.caller!r}",
        f"method={call.method!r}",
        f"path={path}",
    ]
    if skipped := _calls_before(planned, calls):
        arguments.append(f"skip={skipped}")
    if not planned.lasting:
        arguments.append("times=1")
    return "\n".join(["connector.inject(", *(f"{_INDENT}{argument}," for argument in arguments), ")"])


def _calls_before(planned: PlannedFault, calls: Sequence[Exchange]) -> int:
    """How many calls that match the arguments of `inject()` started before the one that is affected."""
    namer = Namer()
    call = planned.call
    number = 0
    for exchange in calls:
        name = namer.name(exchange)
        if name == call:
            return number
        if name._replace(parent=call.parent, number=call.number) == call:
            number += 1
    return 0


def _pattern(path: str) -> str:
    return "[^/]+".join(re.escape(part) for part in path.split("*"))


def source_of_fault(fault: Fault) -> str:
    """Return the call that makes *fault*, without what is the default."""
    given: list[str] = []
    for field in fields(fault):
        value = getattr(fault, field.name)
        if not field.init or value == field.default:
            continue
        given.append(repr(value) if field.default is MISSING else f"{field.name}={value!r}")
    return f"faults.{type(fault).__name__}({', '.join(given)})"


def _indented(text: str) -> str:
    return "\n".join(f"{_INDENT}{line}" for line in text.splitlines())


def imports_of(sources: Iterable[str]) -> list[str]:
    """The imports that *sources* need."""
    lines = ["import re"] if any("re.compile(" in source for source in sources) else []
    return [*lines, "from asgi_connector import faults"]
