"""Which exchanges a page shows, and what is known of each by its place among the others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from asgi_connector._exchange.exchange import Exchange
from asgi_connector._export.diagram import OUTSIDE, callee_of, path_of

from .markup import cut
from .results import Result, is_failure, result_of

_LONGEST_PATH: Final = 500  # characters; the whole URL is in the details


@dataclass(slots=True, eq=False)
class Entry:
    """An exchange that a page shows. Its number is unique on the page."""

    exchange: Exchange
    number: int
    caller: str
    callee: str
    path: str
    result: Result
    parent: "Entry | None" = None
    calls: "list[Entry]" = field(default_factory=list["Entry"])

    @property
    def depth(self) -> int:
        """How many calls are around it."""
        depth, entry = 0, self.parent
        while entry is not None:
            depth, entry = depth + 1, entry.parent
        return depth

    @property
    def anchor(self) -> str:
        return f"exchange-{self.number}"


@dataclass(frozen=True, slots=True)
class Selection:
    """The entries in their order, and how many exchanges were left out."""

    entries: list[Entry]
    left_out: int
    left_out_failures: int


def select(exchanges: Iterable[Exchange], limit: int) -> Selection:
    """Return at most *limit* entries: those that failed before the others, in the order of the exchanges."""
    everything = list(exchanges)
    shown = everything
    if len(everything) > limit:
        by_importance = sorted(everything, key=lambda exchange: not is_failure(exchange))  # a stable sort
        chosen = set(by_importance[:limit])
        shown = [exchange for exchange in everything if exchange in chosen]
    failures = sum(map(is_failure, everything)) - sum(map(is_failure, shown))
    return Selection(_entries(shown), len(everything) - len(shown), failures)


def _entries(exchanges: Sequence[Exchange]) -> list[Entry]:
    numbers = [exchange.number for exchange in exchanges]
    if len(set(numbers)) < len(numbers):  # several connectors, and each counts from 0
        numbers = list(range(len(exchanges)))
    entries = {
        exchange: Entry(
            exchange,
            number,
            OUTSIDE if exchange.caller is None else exchange.caller,
            callee_of(exchange),
            cut(path_of(exchange), _LONGEST_PATH),
            result_of(exchange),
        )
        for exchange, number in zip(exchanges, numbers, strict=True)
    }
    for exchange, entry in entries.items():
        if exchange.parent is not None and (parent := entries.get(exchange.parent)) is not None:
            entry.parent = parent
            parent.calls.append(entry)
    return list(entries.values())
