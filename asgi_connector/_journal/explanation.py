"""Which calls there were, and how they differ from what was expected: the message of a failed assertion."""

from collections.abc import Sequence
from typing import Final

from asgi_connector._exchange.exchange import Exchange

from .selector import Selector

_SHOWN: Final = 10  # calls of each kind


def explain(
    text: str, selector: Selector, exchanges: Sequence[Exchange], found: Sequence[Exchange], *, diff: bool = False
) -> str:
    """Return *text*, the calls *found*, and the other calls, the most similar first, each with its differences.

    With *diff*, the first of the others is shown with the lines in which its body differs.
    """
    if not exchanges:
        return f"{text}\nThere was no call at all."
    others = [(differences, each) for each in exchanges if (differences := selector.differences(each))]
    others.sort(key=lambda other: (len(other[0]), selector.distance_of_body(other[1])))
    lines = [text, *(f"  {each}" for each in found[:_SHOWN]), *_more(len(found))]
    if others:
        lines.append(f"{'Other' if found else 'The'} calls there were, the nearest first:")
    for at, (differences, exchange) in enumerate(others[:_SHOWN]):
        lines += [f"  {exchange}", f"    {', '.join(differences)}"]
        if diff and at == 0:
            lines += _diff(selector.diff_of_body(exchange))
    return "\n".join([*lines, *_more(len(others))])


def _more(number: int) -> list[str]:
    return [f"  and {number - _SHOWN} more"] if number > _SHOWN else []


def _diff(changes: list[str]) -> list[str]:
    if not changes:
        return []
    return ["    - expected, + in the body:", *(f"      {line}" for line in changes)]
