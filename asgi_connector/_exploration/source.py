"""A plan as Python: `inject()` blocks to paste into a test."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from asgi_connector._exchange.exchange import Exchange
from asgi_connector._journal.selector import Selector

from .names import RANDOM, CallName
from .plan import Plan, PlannedFault, python_of

_INDENT: Final = "    "

Calls = Sequence[tuple[CallName, Exchange]]


def source_of(plan: Plan, calls: Calls) -> str:
    """Return a ``with`` statement that causes the faults of *plan*, whose run made *calls*."""
    blocks = [block for planned in plan.faults for block in _blocks(planned, calls)]
    if not blocks:
        return ""
    if len(blocks) == 1:
        return f"with {blocks[0]}:\n{_INDENT}..."
    return "\n".join(["with (", *(_indented(f"{block},") for block in blocks), "):", f"{_INDENT}..."])


def _blocks(planned: PlannedFault, calls: Calls) -> Iterator[str]:
    """Yield an `inject()` block for each row of calls that *planned* has affected, among those that look alike to it.

    `inject()` knows no chain of callers. So calls that are not affected may look like those that are.
    """
    alike = _alike(planned.call, calls)
    position = 0
    for affected, row in groupby(planned.affects(call) for call in alike):
        number = len(list(row))
        if affected:
            is_last = position + number == len(alike)
            yield _inject(planned, position, None if planned.lasting and is_last else number)
        position += number


def _alike(call: CallName, calls: Calls) -> list[CallName]:
    """The calls that match the arguments which `inject()` gets for *call*."""
    path = _pattern(call.path)
    selector = Selector(
        call.host, caller=call.caller, method=call.method, path=call.path if path is None else re.compile(path)
    )
    return [
        name
        for name, exchange in calls
        if name.connector == call.connector and exchange.service is not None and selector.matches(exchange)
    ]


def _inject(planned: PlannedFault, skip: int, times: int | None) -> str:
    call = planned.call
    pattern = _pattern(call.path)
    arguments = [
        _quoted(call.host),
        f"faults.{python_of(planned.fault)}",
        f"caller={None if call.caller is None else _quoted(call.caller)}",
        f"method={_quoted(call.method)}",
        f"path={_quoted(call.path) if pattern is None else f're.compile({_quoted(pattern)})'}",
    ]
    if skip:
        arguments.append(f"skip={skip}")
    if times is not None:
        arguments.append(f"times={times}")
    connector = "connector" if call.connector == 1 else f"connector{call.connector}"
    return "\n".join([f"{connector}.inject(", *(f"{_INDENT}{argument}," for argument in arguments), ")"])


def _pattern(path: str) -> str | None:
    """The pattern for a path that cannot be written as a text; `None` for another one."""
    if RANDOM not in path and "?" not in path:
        return None
    return "[^/]+".join(re.escape(part) for part in path.split(RANDOM))


def _quoted(text: str) -> str:
    """*text* as a literal, with double quotes, and raw if it has backslashes, where that can be."""
    literal = repr(text)
    if '"' in text or literal[0] == '"':
        return literal
    if text.isprintable() and "\\" in text and not text.endswith("\\"):
        return f'r"{text}"'
    return f'"{literal[1:-1]}"'


def _indented(text: str) -> str:
    return "\n".join(f"{_INDENT}{line}" for line in text.splitlines())
