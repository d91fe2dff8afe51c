"""`Finding`: a failure of a scenario, and the plans that led to it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from traceback import walk_tb
from typing import Final, NamedTuple, cast

from asgi_connector._display import printable, text_of
from asgi_connector._exchange.redaction import redact_text
from asgi_connector._exchange.tree import in_tree
from asgi_connector._journal.journal import Journal, count

from .plan import Plan

_MAX_LINES: Final = 20  # of the text of an exception


@dataclass(slots=True)
class Finding:
    """A failure of the scenario.

    Attributes:
        plan: the smallest plan that led to it, and the first of these.
        error: what the scenario raised.
        journal: the calls of that run.
        source: Python that causes the same faults: a ``with`` statement of `inject()` blocks, to paste into a test.
        plans: every plan that led to it, in the order of the runs.
    """

    __module__ = "asgi_connector.faults"

    plan: Plan
    error: BaseException
    journal: Journal
    source: str
    plans: list[Plan] = field(init=False)

    def __post_init__(self) -> None:
        self.plans = [self.plan]

    @property
    def summary(self) -> str:
        """The exception on one line."""
        return printable(next(_lines_of(self.error)))

    def __str__(self) -> str:
        others = len(self.plans) - 1
        parts = [
            *_lines_of(self.error),
            "with " + "\nand  ".join(map(str, self.plan.faults)),
            *([f"and in {count(others, 'other run')}"] if others else []),
            "",
            *(f"{'  ' * depth}{exchange}" for depth, exchange in in_tree(self.journal)),
            "",
            self.source,
        ]
        return "\n".join(parts)


class Findings:
    """The findings so far. Those with the same outcome are one."""

    def __init__(self) -> None:
        self._found: dict[_Outcome, Finding] = {}

    def add(self, finding: Finding) -> None:
        """Note *finding*. If its plan is the smallest with this outcome, it is the one that is shown."""
        outcome = _Outcome.of(finding.error)
        earlier = self._found.get(outcome)
        if earlier is None:
            self._found[outcome] = finding
            return
        earlier.plans.append(finding.plan)
        if len(finding.plan) < len(earlier.plan):
            earlier.plan, earlier.error = finding.plan, finding.error
            earlier.journal, earlier.source = finding.journal, finding.source

    def smallest_first(self) -> list[Finding]:
        """The findings, those of the smallest plans first, and else in the order in which they were found."""
        return sorted(self._found.values(), key=lambda finding: len(finding.plan))


class _Outcome(NamedTuple):
    """Which exception was raised, and the lines of its traceback. Its text may differ from run to run."""

    kind: type[BaseException]
    lines: tuple[tuple[str, int], ...]
    parts: "tuple[_Outcome, ...]"  # of an exception group

    @classmethod
    def of(cls, error: BaseException) -> "_Outcome":
        lines = tuple((frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__))
        return cls(type(error), lines, tuple(map(cls.of, parts_of(error))))


def parts_of(error: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of an exception group; none of another exception."""
    if isinstance(error, BaseExceptionGroup):
        return cast(BaseExceptionGroup[BaseException], error).exceptions
    return ()


def _lines_of(error: BaseException) -> Iterator[str]:
    """The lines of an exception and, indented, those of the exceptions of a group. There is one at least."""
    lines = _text_of(error).splitlines()
    yield from map(printable, map(redact_text, lines[:_MAX_LINES]))
    if len(lines) > _MAX_LINES:
        yield "..."
    for part in parts_of(error):
        yield from (f"  {line}" for line in _lines_of(part))


def _text_of(error: BaseException) -> str:
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
