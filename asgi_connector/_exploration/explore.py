"""`explore()`: a scenario is run again and again, each time with other faults."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from asgi_connector._injection.faults import Fault
from asgi_connector._numbers import check_int, check_number

from .names import CallName
from .plan import Plan
from .real_time import real_timeout
from .report import Finding, Outcome, Report
from .search import Search
from .shake import Shake

_LEAVES: Final = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)

Scenario = Callable[[Shake], Awaitable[object]]


async def explore(
    scenario: Scenario, faults: Iterable[Fault], *, together: int = 2, runs: int = 1000, seconds: float = 30.0
) -> Report:
    """Run *scenario* without a fault, and then with each fault on each call, to find what it does not survive.

    The scenario makes a fresh system, makes its calls in a ``with shake(connector):`` block, and then checks what must
    hold whatever failed. An exception that leaves the block, other than an `AssertionError`, is what a fault may cause:
    it is kept in ``shake.error``. An exception that leaves the scenario is a finding.

    First comes one fault on one call, once and, if the call is tried again, on every attempt. Then come pairs of
    faults, and so on up to *together*. Calls that exist only because of a fault, such as a retry or a compensation, are
    tried as soon as they are seen. A set of faults that includes a failing set is not tried.

    Parameters:
        scenario: an ``async`` function that takes a `Shake`. It runs in the current task, one run after another.
        faults: what to try on each call to a mounted app, such as ``[faults.Refuse(), faults.Reset()]``.
        together: the greatest number of faults in one run (`int`); 2 by default.
        runs: the greatest number of runs (`int`); 1000 by default.
        seconds: no run begins after so many seconds of real time, and a run that takes longer than that is a finding;
            30 by default.

    Raises what the scenario raises without a fault; `RuntimeError` if the scenario makes no call to a mounted app in a
    ``with shake(connector):`` block; `TypeError` or `ValueError` for an invalid parameter.
    """
    exploration = _Exploration(scenario, _checked(faults), together, runs, seconds)
    return await exploration.run()


class _Exploration:
    def __init__(self, scenario: Scenario, faults: Sequence[Fault], together: int, runs: int, seconds: float) -> None:
        if not callable(scenario):
            raise TypeError(f"scenario must be an async function that takes a Shake, not {scenario!r}")
        check_int("together", together, at_least=1)
        check_int("runs", runs, at_least=1)
        check_number("seconds", seconds)
        self._scenario = scenario
        self._search = Search(faults, together)
        self._max_runs = runs
        self._seconds = seconds
        self._runs = 0
        self._calls: dict[CallName, None] = {}
        self._findings: dict[Outcome, Finding] = {}
        self._diverged: list[Plan] = []

    async def run(self) -> Report:
        started = time.perf_counter()
        await self._run_without_fault()
        while self._runs < self._max_runs and time.perf_counter() - started < self._seconds:
            plan = self._search.next()
            if plan is None:
                break
            await self._try(plan)
        findings = sorted(self._findings.values(), key=lambda finding: len(finding.plan))
        return Report(findings, self._runs, list(self._calls), self._diverged, self._search.remaining())

    async def _run_without_fault(self) -> None:
        shake = Shake(Plan())
        try:
            await self._run_scenario(shake)
        except Exception as exc:
            exc.add_note("explore() has not tried a fault yet: the scenario fails without one")
            raise
        if not shake.calls:
            raise RuntimeError(
                "the scenario has called no mounted app in a shake block: write 'with shake(connector):' around calls"
            )
        self._note_calls(Plan(), shake)

    async def _try(self, plan: Plan) -> None:
        shake = Shake(plan)
        try:
            await self._run_scenario(shake)
        except _LEAVES:
            raise
        except BaseException as exc:  # pytest.fail() raises no Exception
            self._search.failed(plan)
            self._note_failure(plan, exc, shake)
            return
        if shake.unused:
            self._diverged.append(plan)
        else:
            self._note_calls(plan, shake)

    async def _run_scenario(self, shake: Shake) -> None:
        self._runs += 1
        async with real_timeout(self._seconds):
            await self._scenario(shake)

    def _note_calls(self, plan: Plan, shake: Shake) -> None:
        self._calls.update(dict.fromkeys(shake.calls))
        self._search.passed(plan, shake.calls)

    def _note_failure(self, plan: Plan, error: BaseException, shake: Shake) -> None:
        finding = self._findings.setdefault(Outcome.of(error), Finding(plan, error, shake.journal))
        finding.plans.append(plan)
        if len(plan) < len(finding.plan):
            finding.plan, finding.error, finding.journal = plan, error, shake.journal


def _checked(faults: Iterable[Fault]) -> list[Fault]:
    if isinstance(faults, Fault) or not isinstance(faults, Iterable):
        raise TypeError(f"faults must be a list, such as [faults.Refuse(), faults.Reset()], not {faults!r}")
    checked = list(faults)
    for fault in checked:
        if not isinstance(fault, Fault):
            raise TypeError(f"faults must be of asgi_connector.faults, such as faults.Reset(), not {fault!r}")
    if not checked:
        raise ValueError("faults must have a fault at least, such as faults.Reset()")
    return checked
