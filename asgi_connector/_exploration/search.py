"""`Search`: which plans are tried, and in which order.

It starts with one fault on one call. A plan that passed is extended by a fault on a call that started after the calls
which it affected: another order gives no new run. What a run shows for the first time is tried next, the rest in the
order of its size. There is no random number.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from asgi_connector._injection.faults import Fault

from .names import CallName
from .plan import Plan, PlannedFault


class Search:
    """The plans that are to be tried, and the plans that failed.

    Parameters:
        faults: the faults to try on each call.
        together: the greatest number of faults in a plan.
    """

    def __init__(self, faults: Sequence[Fault], together: int) -> None:
        self._faults = faults
        self._together = together
        self._plans = deque[Plan]()
        self._known: set[CallName] = set()
        self._tried: set[frozenset[PlannedFault]] = set()
        self._failed: list[Plan] = []

    def next(self) -> Plan | None:
        """The next plan to try; `None` if there is none."""
        while self._plans:
            plan = self._plans.popleft()
            if not self._is_known_to_fail(plan):
                return plan
        return None

    def remaining(self) -> list[Plan]:
        """The plans that are still to be tried. Plans that would follow from them are not known."""
        return [plan for plan in self._plans if not self._is_known_to_fail(plan)]

    def failed(self, plan: Plan) -> None:
        """Note that *plan* failed. No plan that includes it is tried."""
        self._failed.append(plan)

    def passed(self, plan: Plan, calls: Sequence[CallName]) -> None:
        """Note that *plan* passed in a run that made *calls*, in this order."""
        known = self._known.copy()
        self._known.update(calls)
        lasting = [self._new(longer) for longer in _lasting(plan, calls)]
        if len(plan) < self._together:
            later = calls[_position_after(plan, calls) :]
            unseen = [call for call in later if call not in known]
            if plan.faults:
                self._plans.extendleft(reversed([*self._extensions(plan, unseen)]))
                later = [call for call in later if call in known]
            self._plans.extend(self._extensions(plan, later))
        self._plans.extendleft(each for each in reversed(lasting) if each is not None)

    def _extensions(self, plan: Plan, calls: Sequence[CallName]) -> Iterator[Plan]:
        for call in calls:
            if any(planned.affects(call) for planned in plan.faults):
                continue
            for fault in self._faults:
                extended = self._new(plan.with_fault(PlannedFault(fault, call)))
                if extended is not None:
                    yield extended

    def _new(self, plan: Plan) -> Plan | None:
        """Return *plan*, unless it was returned before."""
        key = frozenset(plan.faults)
        if key in self._tried:
            return None
        self._tried.add(key)
        return plan

    def _is_known_to_fail(self, plan: Plan) -> bool:
        return any(plan.includes(failed) for failed in self._failed)


def _lasting(plan: Plan, calls: Sequence[CallName]) -> Iterator[Plan]:
    """The plan whose last fault lasts, if a later call was like the one that it affected."""
    if plan.faults and not plan.faults[-1].lasting:
        last = plan.faults[-1]
        if any(last.call.alike(call) and call.number > last.call.number for call in calls):
            yield Plan((*plan.faults[:-1], PlannedFault(last.fault, last.call, lasting=True)))


def _position_after(plan: Plan, calls: Sequence[CallName]) -> int:
    """The position in *calls* after the first call that each fault of *plan* affects."""
    affected = [calls.index(planned.call) for planned in plan.faults if planned.call in calls]
    return max(affected, default=-1) + 1
