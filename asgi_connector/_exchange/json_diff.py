"""Two JSON values, compared line by line, as pytest shows it. Pure functions."""

import json
import re
from difflib import unified_diff
from itertools import islice
from typing import Final

from asgi_connector._display import printable

from .json_values import LEVELS_SHOWN, is_array, is_object, is_same, redacted

_COMPARED: Final = 2000  # lines of each value: the time grows with their square
_SHOWN: Final = 40  # lines
_WIDTH: Final = 160  # characters of a line
_FIRST_LINE: Final = re.compile("@@ -1[ ,]")


def diff_lines(expected: object, actual: object, *, subset: bool) -> list[str]:
    """The lines in which *actual* differs from *expected*, and those near them; none if only secrets differ.

    A line of *expected* alone begins with ``-``, and one of *actual* alone with ``+``. With *subset*, members that only
    *actual* has are left out.
    """
    one, other = _lines(expected), _lines(_as_compared(expected, actual, subset, LEVELS_SHOWN))
    changes = _changes(one, other, near=_SHOWN)
    if len(changes) > _SHOWN:
        changes = _changes(one, other, near=3)
    if len(changes) > _SHOWN:
        return [*changes[:_SHOWN], f"... {len(changes) - _SHOWN} more lines"]
    return changes


def _changes(one: list[str], other: list[str], near: int) -> list[str]:
    """The lines that differ, and *near* lines before and after each of them."""
    lines = islice(unified_diff(one, other, lineterm="", n=near), 2, None)  # without the names of files
    return [_shown(line) for line in lines if not _FIRST_LINE.match(line)]


def _as_compared(expected: object, actual: object, subset: bool, levels: int) -> object:
    """*actual* such that what is the same in both is written the same: the order of members, 1 and 1.0."""
    if levels == 0:
        return actual  # not shown
    if is_object(expected) and is_object(actual):
        compared = {
            name: _as_compared(expected[name], actual[name], subset, levels - 1) for name in expected if name in actual
        }
        return compared if subset else compared | {name: actual[name] for name in actual if name not in expected}
    if is_array(expected) and is_array(actual):
        pairs = zip(expected, actual, strict=False)
        items = [_as_compared(one, other, subset, levels - 1) for one, other in pairs]
        return items + actual[len(items) :]
    return expected if is_same(expected, actual) else actual


def _lines(value: object) -> list[str]:
    return json.dumps(redacted(value), ensure_ascii=False, indent=2).split("\n")[:_COMPARED]


def _shown(line: str) -> str:
    if line.startswith("@@"):
        return "  ..."
    text = printable(f"{line[0]} {line[1:]}")
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"
