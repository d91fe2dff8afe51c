"""`Search`: which plans are tried, and in which order.

It starts with one fault on one call. A plan that passed is extended by a fault on a call that started after the calls
which it affected: another order gives no new run. What a run shows for the first time is tried next, the rest in the
order of its size. There is no random number.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from asgi_connector._injection.faults import Fault

from .names import CallName
from .plan import Failures, Plan, PlannedFault


class Search:
    """The plans that are to be tried, and what came of the others.

    Parameters:
        faults: the faults to try on each call.
        together: the greatest number of faults in a plan.
    """

    def __init__(self, faults: Sequence[Fault], together: int) -> None:
        self._faults = faults
        self._together = together
        self._plans = deque[Plan]()
        self._made: set[frozenset[PlannedFault]] = set()
        self._known: set[CallName] = set()
        self._passed: dict[Failures, Sequence[CallName]] = {}
        self._failed: dict[Failures, None] = {}

    def next(self) -> Plan | None:
        """The next plan to try; `None` if there is none."""
        while self._plans:
            plan = self._plans.popleft()
            if self._is_known_to_fail(plan):
                continue
            calls = self._calls_of_same_run(plan)
            if calls is None:
                return plan
            self._extend(plan, calls, frozenset())
        return None

    def remaining(self) -> list[Plan]:
        """The plans that are still to be tried. Plans that would follow from them are not known."""
        return [
            plan for plan in self._plans if not self._is_known_to_fail(plan) and self._calls_of_same_run(plan) is None
        ]

    def failed(self, plan: Plan, calls: Sequence[CallName]) -> None:
        """Note that *plan* failed in a run that made *calls*. No plan that causes the same failures is tried."""
        self._failed[plan.failures(calls)] = None

    def passed(self, plan: Plan, calls: Sequence[CallName]) -> None:
        """Note that *plan* passed in a run that made *calls*, in this order."""
        self._passed[plan.failures(calls)] = calls
        new = frozenset(calls) - self._known
        self._known |= new
        self._extend(plan, calls, new)

    def _extend(self, plan: Plan, calls: Sequence[CallName], new: frozenset[CallName]) -> None:
        """Let the plans follow that have one fault more: those on *new* calls next, the others last."""
        position = _position_after(plan, calls)
        first = list(self._unmade(_lasting(plan, calls[:position], calls[position:])))
        if len(plan) < self._together:
            later = [call for call in calls[position:] if not plan.affects(call)]
            first += self._unmade(self._extensions(plan, [call for call in later if call in new]))
            self._plans.extend(self._unmade(self._extensions(plan, later)))
        self._plans.extendleft(reversed(first))

    def _extensions(self, plan: Plan, calls: Iterable[CallName]) -> Iterator[Plan]:
        return (plan.with_fault(PlannedFault(fault, call)) for call in calls for fault in self._faults)

    def _unmade(self, plans: Iterable[Plan]) -> Iterator[Plan]:
        """Those of *plans* that were not made before, in any order of their faults."""
        for plan in plans:
            key = frozenset(plan.faults)
            if key not in self._made:
                self._made.add(key)
                yield plan

    def _is_known_to_fail(self, plan: Plan) -> bool:
        return any(plan.causes(failures) for failures in self._failed)

    def _calls_of_same_run(self, plan: Plan) -> Sequence[CallName] | None:
        """The calls of the run of another plan that did the same; `None` if there was none.

        What a lasting fault does is not known before its run.
        """
        if any(planned.lasting for planned in plan.faults):
            return None
        return self._passed.get(plan.failures(planned.call for planned in plan.faults))


def _lasting(plan: Plan, before: Sequence[CallName], later: Sequence[CallName]) -> Iterator[Plan]:
    """The plans in which one fault lasts: one on a call that was tried again, but only after all other faults.

    *before* are the calls up to the last fault. They are the same in the runs of these plans.
    """
    for planned in plan.faults:
        tried_again = any(map(planned.call.is_before, later)) and not any(map(planned.call.is_before, before))
        if tried_again and not planned.lasting and not _continues(planned, plan):
            yield plan.with_lasting(planned)


def _continues(planned: PlannedFault, plan: Plan) -> bool:
    """Whether the call before, of those that are alike, fails the same way: then the other fault may last, as well."""
    previous = replace(planned.call, number=planned.call.number - 1)
    return PlannedFault(planned.fault, previous) in plan.faults


def _position_after(plan: Plan, calls: Sequence[CallName]) -> int:
    """The position in *calls* after the first call that each fault of *plan* affects."""
    return max((calls.index(planned.call) + 1 for planned in plan.faults), default=0)
