"""`Report`: what came of an exploration, as text and as an object."""

from collections.abc import Iterator, Sequence
from typing import Self

from typing_extensions import override

from asgi_connector._journal.journal import count

from .findings import Finding
from .names import CallName
from .plan import Plan

_SHOWN = 5  # plans of a list in the text


class Report(str):
    """What came of `explore()`. It is true if it has no finding and no divergence.

    It is a `str`, its own text, so that pytest shows all of it for ``assert report, report``.

    Attributes:
        findings: the failures, those of the smallest plans first. Those with the same outcome, which is the same type
            of exception with the same lines of its traceback, are one.
        runs: the number of runs, the first one without a fault included.
        calls: the names of all calls to mounted apps, in the order in which they were first seen.
        diverged: plans in whose run a fault met no call: the scenario does not make the same calls in every run.
        untried: the plans that were left when a limit was reached; those that would follow from them are not known.
    """

    __module__ = "asgi_connector.faults"

    __slots__ = ("calls", "diverged", "findings", "runs", "untried")

    findings: Sequence[Finding]
    runs: int
    calls: Sequence[CallName]
    diverged: Sequence[Plan]
    untried: Sequence[Plan]

    def __new__(
        cls,
        findings: Sequence[Finding],
        runs: int,
        calls: Sequence[CallName],
        diverged: Sequence[Plan],
        untried: Sequence[Plan],
    ) -> Self:
        found = count(len(findings), "failure") if findings else "no failure"
        lines = [f"{found} in {count(runs, 'run')}, which made {count(len(calls), 'different call')}"]
        for number, finding in enumerate(findings, 1):
            first, *rest = str(finding).splitlines()
            lines += ["", f"{number}. {first}", *(f"   {line}".rstrip() for line in rest)]
        lines += _listed("met no call, so the scenario does not make the same calls in every run", diverged)
        lines += _listed("not tried, because a limit was reached", untried)
        report = super().__new__(cls, "\n".join(lines))
        report.findings, report.runs, report.calls = findings, runs, calls
        report.diverged, report.untried = diverged, untried
        return report

    def __bool__(self) -> bool:
        return not self.findings and not self.diverged

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.splitlines()[0]}>"


def _listed(what: str, plans: Sequence[Plan]) -> Iterator[str]:
    if not plans:
        return
    yield from ("", f"{count(len(plans), 'plan')} {what}:")
    yield from (f"- {plan}" for plan in plans[:_SHOWN])
    if len(plans) > _SHOWN:
        yield f"- and {len(plans) - _SHOWN} more"
