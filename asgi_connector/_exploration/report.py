"""`Report`: what came of an exploration, as text and as an object."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from traceback import extract_tb
from typing import NamedTuple

from asgi_connector._display import printable, text_of
from asgi_connector._exchange.redaction import redact_text
from asgi_connector._exchange.tree import in_tree
from asgi_connector._journal.journal import Journal, count

from .names import CallName
from .plan import Plan
from .source import source_of

_SHOWN = 5  # plans of a list in the text
_MAX_LINES = 20  # of the text of an exception


class Outcome(NamedTuple):
    """Which exception was raised where: findings with the same outcome are one."""

    kind: type[BaseException]
    file: str
    line: int | None

    @classmethod
    def of(cls, error: BaseException) -> "Outcome":
        frames = extract_tb(error.__traceback__)
        return cls(type(error), frames[-1].filename, frames[-1].lineno) if frames else cls(type(error), "", None)


@dataclass(slots=True)
class Finding:
    """A failure of the scenario.

    Attributes:
        plan: the smallest plan that led to it, and the first of these.
        error: what the scenario raised.
        journal: the calls of that run.
        plans: every plan that led to it, in the order of the runs.
    """

    __module__ = "asgi_connector.faults"

    plan: Plan
    error: BaseException
    journal: Journal
    plans: list[Plan] = field(default_factory=list[Plan])

    @property
    def source(self) -> str:
        """Python that causes the same faults: a ``with`` statement with `inject()` blocks, to paste into a test."""
        return source_of(self.plan, self.journal)

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


@dataclass(frozen=True, slots=True)
class Report:
    """What came of `explore()`. It is true if it has no finding and no divergence.

    Attributes:
        findings: the failures, those of the smallest plans first. Those with the same outcome, which is the same type
            of exception raised at the same line, are one.
        runs: the number of runs, the first one without a fault included.
        calls: the names of all calls to mounted apps, in the order in which they were first seen.
        diverged: plans in whose run a fault met no call: the scenario does not make the same calls in every run.
        untried: the plans that were left when a limit was reached; those that would follow from them are not known.
    """

    __module__ = "asgi_connector.faults"

    findings: Sequence[Finding]
    runs: int
    calls: Sequence[CallName]
    diverged: Sequence[Plan]
    untried: Sequence[Plan]

    def __bool__(self) -> bool:
        return not self.findings and not self.diverged

    def __str__(self) -> str:
        found = count(len(self.findings), "failure") if self.findings else "no failure"
        lines = [f"{found} in {count(self.runs, 'run')} with faults on {count(len(self.calls), 'call')}"]
        for number, finding in enumerate(self.findings, 1):
            first, *rest = str(finding).splitlines()
            lines += ["", f"{number}. {first}", *(f"   {line}".rstrip() for line in rest)]
        lines += _listed("met no call, so the scenario does not make the same calls in every run", self.diverged)
        lines += _listed("not tried, because a limit was reached", self.untried)
        return "\n".join(lines)


def _listed(what: str, plans: Sequence[Plan]) -> Iterator[str]:
    if not plans:
        return
    yield from ("", f"{count(len(plans), 'plan')} {what}:")
    yield from (f"- {plan}" for plan in plans[:_SHOWN])
    if len(plans) > _SHOWN:
        yield f"- and {len(plans) - _SHOWN} more"


def _lines_of(error: BaseException) -> Iterator[str]:
    """The lines of an exception: its type, its text and its notes. There is one at least."""
    text = redact_text(text_of(error))
    lines = (f"{type(error).__name__}: {text}" if text else type(error).__name__).splitlines()
    yield from map(printable, lines[:_MAX_LINES])
    if len(lines) > _MAX_LINES:
        yield "..."
