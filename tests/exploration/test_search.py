"""Which plans are tried, and in which order: the search alone, on systems that are functions from a plan to calls."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_connector import faults
from asgi_connector._exploration.names import CallName
from asgi_connector._exploration.plan import Failures, Plan, PlannedFault
from asgi_connector._exploration.search import Search
from asgi_connector.faults import Fault
from tests.support.effort import examples

REFUSE, RESET = faults.Refuse(), faults.Reset()


def call(path: str, number: int = 1) -> CallName:
    return CallName(None, None, "a.internal", "GET", path, number)


@dataclass(frozen=True)
class Step:
    """A call that is tried a number of times. If it fails each time, others undo what was done, and it may end there.

    Where `hidden` is set, another call follows if the first attempt fails and a later one does not.
    """

    path: str
    attempts: int = 1
    undo: tuple[str, ...] = ()
    ends: bool = False
    hidden: bool = False


def calls_of(steps: Sequence[Step], plan: Plan) -> list[CallName]:
    """The calls of a system under a plan, in order. What comes before a failure does not depend on it."""
    made: list[CallName] = []
    alike = Counter[str]()

    def succeeds(path: str) -> bool:
        alike[path] += 1
        made.append(call(path, alike[path]))
        return not plan.affects(made[-1])

    for step in steps:
        for attempt in range(step.attempts):
            if succeeds(step.path):
                if attempt and step.hidden:
                    succeeds("/hidden")
                break
        else:
            for path in step.undo:
                succeeds(path)
            if step.ends:
                break
    return made


@dataclass
class Explored:
    """What a search has tried on a system that fails if all of one of the bad sets of failures happen."""

    plans: list[Plan]
    runs: list[Failures]
    failed: list[Failures]

    def covers(self, failures: Failures) -> bool:
        return any(found <= failures for found in self.failed)


def explore(
    steps: Sequence[Step], bad: Sequence[Failures] = (), *, tried: Sequence[Fault] = (REFUSE,), together: int = 2
) -> Explored:
    search = Search(tried, together)
    explored = Explored([], [], [])
    search.passed(Plan(), calls_of(steps, Plan()))
    while (plan := search.next()) is not None:
        calls = calls_of(steps, plan)
        assert all(planned.call in calls for planned in plan.faults), f"{plan} meets no call"
        failures = plan.failures(calls)
        assert len({name for _, name in failures}) == len(failures), f"{plan} affects a call twice"
        explored.plans.append(plan)
        explored.runs.append(failures)
        if any(each <= failures for each in bad):
            explored.failed.append(failures)
            search.failed(plan, calls)
        else:
            search.passed(plan, calls)
        assert len(explored.plans) < 5000
    assert search.remaining() == []
    return explored


def reachable(steps: Sequence[Step], tried: Sequence[Fault], together: int) -> Iterator[Failures]:
    """Every set of failures that can happen, found without a thought: each fault on each call that is made."""
    seen: set[Failures] = set()
    unseen: list[Failures] = [frozenset()]
    while unseen:
        failures = unseen.pop()
        plan = Plan(tuple(PlannedFault(fault, name) for fault, name in failures))
        calls = calls_of(steps, plan)
        if failures in seen or any(name not in calls for _, name in failures):
            continue
        seen.add(failures)
        if failures:
            yield failures
        affected = {name for _, name in failures}
        if len(failures) < together:
            unseen += [failures | {(fault, name)} for name in calls if name not in affected for fault in tried]


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(["/a", "/b", "/c"]),
        attempts=st.integers(1, 3),
        undo=st.lists(st.sampled_from(["/a", "/undo", "/log"]), max_size=2).map(tuple),
        ends=st.booleans(),
        hidden=st.booleans(),
    ),
    min_size=1,
    max_size=3,
)
TRIED = st.sampled_from([(REFUSE,), (REFUSE, RESET)])


@given(STEPS, TRIED, st.integers(1, 3), st.data())
@settings(max_examples=examples(300))
def test_each_smallest_failing_set_is_found(
    steps: list[Step], tried: Sequence[Fault], together: int, data: st.DataObject
) -> None:
    possible = sorted(reachable(steps, tried, together), key=repr)
    bad = data.draw(st.lists(st.sampled_from(possible), max_size=3))
    explored = explore(steps, bad, tried=tried, together=together)
    smallest = [failures for failures in bad if not any(other < failures for other in bad)]
    assert all(explored.covers(failures) for failures in smallest)
    # Nothing else fails: a set that was found includes a bad one, and no smaller set that was tried before did.
    for number, failures in enumerate(explored.failed):
        assert not any(earlier <= failures for earlier in explored.failed[:number])


@given(STEPS, TRIED, st.integers(1, 3))
@settings(max_examples=examples(300))
def test_everything_that_can_happen_is_tried_if_nothing_fails(
    steps: list[Step], tried: Sequence[Fault], together: int
) -> None:
    explored = explore(steps, tried=tried, together=together)
    assert set(reachable(steps, tried, together)) <= set(explored.runs)


@given(STEPS, TRIED, st.integers(1, 3))
@settings(max_examples=examples(300))
def test_nothing_is_tried_twice(steps: list[Step], tried: Sequence[Fault], together: int) -> None:
    explored = explore(steps, tried=tried, together=together)
    assert len({frozenset(plan.faults) for plan in explored.plans}) == len(explored.plans)
    for number, (plan, failures) in enumerate(zip(explored.plans, explored.runs, strict=True)):
        if not any(planned.lasting for planned in plan.faults):  # what a lasting fault does, only its run shows
            assert failures not in explored.runs[:number]
    assert max(map(len, explored.plans)) <= together


@given(STEPS, st.integers(1, 3))
@settings(max_examples=examples(300))
def test_each_call_that_is_tried_again_fails_for_good_too(steps: list[Step], together: int) -> None:
    """A fault on a call and on each later attempt is one fault, so it is tried even if each run has only one."""
    explored = explore(steps, together=together)
    for name in calls_of(steps, Plan()):
        lasting = Plan((PlannedFault(REFUSE, name, lasting=True),))
        once = Plan((PlannedFault(REFUSE, name),))
        if any(name.is_before(other) for other in calls_of(steps, once)):
            assert lasting.failures(calls_of(steps, lasting)) in explored.runs


def test_a_fault_that_only_a_lasting_failure_shows_is_found() -> None:
    """A second attempt heals a single failure."""
    steps = [Step("/a", attempts=2)]
    twice = frozenset({(RESET, call("/a", 1)), (RESET, call("/a", 2))})
    explored = explore(steps, [twice], tried=[RESET], together=1)
    assert explored.plans == [
        Plan((PlannedFault(RESET, call("/a")),)),
        Plan((PlannedFault(RESET, call("/a"), lasting=True),)),
    ]
    assert explored.failed == [twice]


def test_a_lasting_failure_that_is_found_is_not_tried_again_as_a_pair() -> None:
    steps = [Step("/a", attempts=2)]
    twice = frozenset({(RESET, call("/a", 1)), (RESET, call("/a", 2))})
    explored = explore(steps, [twice], tried=[RESET])
    assert len(explored.plans) == 2


def test_three_attempts_fail_in_each_way_once() -> None:
    explored = explore([Step("/a", attempts=3)])
    numbers = [sorted(name.number for _, name in failures) for failures in explored.runs]
    assert numbers == [[1], [1, 2, 3], [1, 2]]


def test_the_first_of_two_faults_may_last_if_the_other_causes_the_second_attempt() -> None:
    """The whole of it is tried again: /a fails and is passed over, then /b fails, and both are called once more."""

    def calls(plan: Plan) -> list[CallName]:
        made = [call("/a"), call("/b")]
        return [*made, call("/a", 2), call("/b", 2)] if plan.affects(call("/b")) else made

    search = Search([REFUSE], 2)
    search.passed(Plan(), calls(Plan()))
    plans: list[Plan] = []
    while (plan := search.next()) is not None:
        plans.append(plan)
        search.passed(plan, calls(plan))
    a, b = PlannedFault(REFUSE, call("/a")), PlannedFault(REFUSE, call("/b"))
    lasting = PlannedFault(REFUSE, call("/a"), lasting=True)
    assert Plan((a, b)) in plans
    assert Plan((lasting, b)) in plans
    assert plans.index(Plan((lasting, b))) == plans.index(Plan((a, b))) + 1


def test_a_fault_follows_on_two_attempts_that_fail_as_well_as_on_a_lasting_failure() -> None:
    """A lasting failure would affect the call that undoes it too."""
    steps = [Step("/a", attempts=2), Step("/b", undo=("/a",))]
    names = [call("/a", 1), call("/a", 2), call("/b")]
    bad = frozenset((REFUSE, name) for name in names)
    explored = explore(steps, [], together=3)
    assert bad in explored.runs
    assert bad | {(REFUSE, call("/a", 3))} in explored.runs


def test_single_faults_come_first_and_in_the_order_of_the_calls() -> None:
    search = Search([REFUSE, RESET], 2)
    search.passed(Plan(), [call("/a"), call("/b")])
    assert [str(plan) for plan in search.remaining()] == [
        "Refuse() on GET a.internal/a",
        "Reset() on GET a.internal/a",
        "Refuse() on GET a.internal/b",
        "Reset() on GET a.internal/b",
    ]


def test_a_call_that_is_seen_for_the_first_time_is_tried_next() -> None:
    search = Search([REFUSE], 2)
    search.passed(Plan(), [call("/a"), call("/b"), call("/c")])
    first = search.next()
    assert first is not None
    search.passed(first, [call("/a"), call("/undo"), call("/b")])
    assert [str(plan) for plan in search.remaining()] == [
        "Refuse() on GET a.internal/a; Refuse() on GET a.internal/undo",
        "Refuse() on GET a.internal/b",
        "Refuse() on GET a.internal/c",
        "Refuse() on GET a.internal/a; Refuse() on GET a.internal/b",
    ]


def test_what_is_left_leaves_out_what_would_not_be_tried() -> None:
    search = Search([REFUSE], 2)
    calls = [call("/a"), call("/b")]
    search.passed(Plan(), calls)
    first, second = search.next(), search.next()
    assert first is not None
    assert second is not None
    search.passed(first, calls)
    assert len(search.remaining()) == 1
    search.failed(second, calls)
    assert search.remaining() == []
    assert search.next() is None


@pytest.mark.parametrize("together", [1, 2, 3])
def test_the_number_of_faults_together_is_bounded(together: int) -> None:
    steps = [Step("/a"), Step("/b"), Step("/c")]
    explored = explore(steps, together=together)
    expected = sum(len(list(combinations("abc", size))) for size in range(1, together + 1))
    assert len(explored.plans) == expected
