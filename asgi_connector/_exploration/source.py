"""A plan as Python: `inject()` blocks to paste into a test."""

import re
from collections.abc import Sequence
from typing import Final

from asgi_connector._exchange.exchange import Exchange

from .names import RANDOM, Namer
from .plan import Plan, PlannedFault, describe

_INDENT: Final = "    "


def source_of(plan: Plan, calls: Sequence[Exchange]) -> str:
    """Return a ``with`` statement that causes the faults of *plan*, whose run made *calls*."""
    blocks = [_inject(planned, calls) for planned in plan.faults]
    if len(blocks) == 1:
        return f"with {blocks[0]}:\n{_INDENT}..."
    return "\n".join(["with (", *(_indented(f"{block},") for block in blocks), "):", f"{_INDENT}..."])


def _inject(planned: PlannedFault, calls: Sequence[Exchange]) -> str:
    call = planned.call
    path = _quoted(call.path) if RANDOM not in call.path else f"re.compile(r{_quoted(_pattern(call.path))})"
    arguments = [
        _quoted(call.host),
        f"faults.{describe(planned.fault)}",
        f"caller={None if call.caller is None else _quoted(call.caller)}",
        f"method={_quoted(call.method)}",
        f"path={path}",
    ]
    if skipped := _calls_before(planned, calls):
        arguments.append(f"skip={skipped}")
    if not planned.lasting:
        arguments.append("times=1")
    return "\n".join(["connector.inject(", *(f"{_INDENT}{argument}," for argument in arguments), ")"])


def _calls_before(planned: PlannedFault, calls: Sequence[Exchange]) -> int:
    """How many calls that match the same arguments of `inject()` started before the one that is affected."""
    namer = Namer()
    names = [namer.name(exchange) for exchange in calls]
    before = names[: names.index(planned.call)]
    return sum(name._replace(parent=planned.call.parent, number=planned.call.number) == planned.call for name in before)


def _pattern(path: str) -> str:
    return "[^/]+".join(re.escape(part) for part in path.split(RANDOM))


def _quoted(text: str) -> str:
    """*text* as a literal, with double quotes if it has none itself."""
    literal = repr(text)
    return literal if '"' in text or literal[0] == '"' else f'"{literal[1:-1]}"'


def _indented(text: str) -> str:
    return "\n".join(f"{_INDENT}{line}" for line in text.splitlines())
