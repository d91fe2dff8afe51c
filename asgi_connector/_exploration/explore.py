"""`explore()`: a scenario is run again and again, each time with other faults."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from asgi_connector._injection.faults import Fault
from asgi_connector._numbers import check_int, check_number

from .findings import Finding, Findings, parts_of
from .names import CallName
from .plan import Plan
from .real_time import real_timeout
from .report import Report
from .search import Search
from .shake import Shake

_LEAVES: Final = (GeneratorExit, KeyboardInterrupt, SystemExit)

Scenario = Callable[[Shake], Awaitable[object]]


async def explore(
    scenario: Scenario, faults: Iterable[Fault], *, together: int = 2, runs: int = 1000, seconds: float = 30.0
) -> Report:
    """Run *scenario* without a fault, and then with each fault on each call, to find what it does not survive.

    The scenario makes a fresh system, makes its calls in a ``with shake(connector):`` block, and then checks what must
    hold whatever failed. An exception that leaves the block, other than an `AssertionError`, is what a fault may cause:
    it is kept in ``shake.error``. Any exception that leaves the scenario is a finding.

    First comes one fault on one call, once and, if the call is tried again, on every attempt. Then come pairs of
    faults, and so on up to *together*. Calls that exist only because of a fault, such as a retry or a compensation, are
    tried as soon as they are seen. A set of faults that includes a failing set is not tried.

    Parameters:
        scenario: an ``async`` function that takes a `Shake`. It runs in the current task, one run after another.
        faults: what to try on each call to a mounted app, such as ``[faults.Refuse(), faults.Reset()]``.
        together: the greatest number of faults in one run (`int`); 2 by default.
        runs: the greatest number of runs (`int`); 1000 by default.
        seconds: no run begins after so many seconds of real time. A run that takes longer than that is cancelled, and
            is a finding. 30 by default.

    Raises what the scenario raises without a fault; `RuntimeError` if the scenario makes no call to a mounted app in a
    ``with shake(connector):`` block, or if no event loop of asyncio runs; `TypeError` or `ValueError` for an invalid
    parameter.
    """
    if not callable(scenario):
        raise TypeError(f"scenario must be an async function that takes a Shake, not {scenario!r}")
    checked = _checked(faults)
    check_int("together", together, at_least=1)
    check_int("runs", runs, at_least=1)
    check_number("seconds", seconds)
    if not seconds:
        raise ValueError("seconds must be more than 0")
    return await _Exploration(scenario, Search(checked, together), runs, seconds).run()


class _Exploration:
    def __init__(self, scenario: Scenario, search: Search, runs: int, seconds: float) -> None:
        self._scenario = scenario
        self._search = search
        self._max_runs = runs
        self._seconds = seconds
        self._runs = 0
        self._task = _current_task()
        self._cancelling = self._task.cancelling()
        self._calls: dict[CallName, None] = {}
        self._findings = Findings()
        self._diverged: list[Plan] = []

    async def run(self) -> Report:
        started = time.perf_counter()
        await self._run_without_fault()
        while self._runs < self._max_runs and time.perf_counter() - started < self._seconds:
            plan = self._search.next()
            if plan is None:
                break
            await self._try(plan)
        return Report(
            self._findings.smallest_first(), self._runs, list(self._calls), self._diverged, self._search.remaining()
        )

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
        self._keep_calls(shake)
        self._search.passed(shake.plan, shake.calls)

    async def _try(self, plan: Plan) -> None:
        shake = Shake(plan)
        error: BaseException | None = None
        try:
            await self._run_scenario(shake)
        except BaseException as exc:  # pytest.fail() raises no Exception
            if _is_or_has_leaving(exc) or self._is_cancelled():
                raise
            error = exc
        self._keep_calls(shake)
        if shake.unused:
            self._diverged.append(plan)
        if error is not None:
            self._search.failed(plan, shake.calls)
            self._findings.add(Finding(plan, error, shake.journal, shake.source))
        elif not shake.unused:
            self._search.passed(plan, shake.calls)

    def _keep_calls(self, shake: Shake) -> None:
        self._calls.update(dict.fromkeys(shake.calls))
        shake.leave_out_of_reports()

    async def _run_scenario(self, shake: Shake) -> None:
        self._runs += 1
        async with real_timeout(self._seconds):
            running = self._scenario(shake)
            if not inspect.isawaitable(running):
                raise TypeError(f"scenario must be an async function, but it has returned {running!r}")
            await running
        if self._is_cancelled():
            raise asyncio.CancelledError("explore() was cancelled, and the scenario went on")

    def _is_cancelled(self) -> bool:
        """Whether `explore()` is cancelled. A `CancelledError` may come from a task that the scenario awaits."""
        return self._task.cancelling() > self._cancelling


def _current_task() -> asyncio.Task[object]:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        raise RuntimeError(
            "explore() runs in an event loop of asyncio, and none is running: with anyio, leave out the backend "
            "trio, in which aiohttp does not run"
        ) from None
    assert task is not None
    return task


def _is_or_has_leaving(error: BaseException) -> bool:
    """Whether *error* ends the program, or is a group with an exception that does."""
    return isinstance(error, _LEAVES) or any(map(_is_or_has_leaving, parts_of(error)))


def _checked(faults: Iterable[Fault]) -> Sequence[Fault]:
    if isinstance(faults, Fault) or not isinstance(faults, Iterable):
        raise TypeError(f"faults must be a list, such as [faults.Refuse(), faults.Reset()], not {faults!r}")
    checked = list(faults)
    for fault in checked:
        if not isinstance(fault, Fault):
            raise TypeError(f"faults must be of asgi_connector.faults, such as faults.Reset(), not {fault!r}")
    if not checked:
        raise ValueError("faults must have a fault at least, such as faults.Reset()")
    return checked
