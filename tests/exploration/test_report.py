"""What the report says, as text and as an object."""

import itertools
from collections.abc import Callable

import pytest

from asgi_connector import Journal
from asgi_connector._exploration.findings import Findings
from asgi_connector._exploration.plan import Plan, PlannedFault
from asgi_connector.faults import CallName, Finding, Refuse, Report
from tests.support.explored import BUGS, explore_in_virtual_time
from tests.support.programs import pytest_arguments, run_python, try_python

CALLS = [CallName(None, None, "a.internal", "GET", f"/{number}") for number in range(10)]
PLANS = [Plan((PlannedFault(Refuse(), call),)) for call in CALLS]
PAIR = Plan((PlannedFault(Refuse(), CALLS[0]), PlannedFault(Refuse(), CALLS[1])))


def finding(plan: Plan, error: BaseException) -> Finding:
    return Finding(plan, error, Journal(), "with ...")


def raised(raising: Callable[[], object]) -> BaseException:
    """What *raising* raises, with its traceback."""
    try:
        raising()
    except BaseException as exc:
        return exc
    raise AssertionError("it has raised nothing")


def fail(text: str) -> None:
    raise LookupError(text)


def fail_elsewhere(text: str) -> None:
    raise LookupError(text)


def fail_together(*raising: Callable[[], object]) -> None:
    raise ExceptionGroup("together", [raised(each) for each in raising])  # type: ignore[type-var]


def found(*errors: BaseException) -> int:
    findings = Findings()
    for plan, error in zip(itertools.cycle(PLANS), errors, strict=False):
        findings.add(finding(plan, error))
    return len(findings.smallest_first())


def test_the_same_exception_of_the_same_line_is_one_finding_whatever_its_text_is() -> None:
    assert found(*(raised(lambda: fail(text)) for text in ("one", "other"))) == 1  # noqa: B023


def test_exceptions_of_different_lines_are_different_findings() -> None:
    assert found(raised(lambda: fail("")), raised(lambda: fail_elsewhere(""))) == 2


def test_a_helper_that_raises_at_one_line_is_told_apart_by_its_callers() -> None:
    """As pytest.fail(), and the assertions of unittest."""
    errors = [
        raised(lambda: fail("")),
        raised(lambda: fail("")),
    ]
    assert found(*errors) == 2


def test_a_group_is_told_apart_by_its_exceptions() -> None:
    def group(*raising: Callable[[], object]) -> BaseException:
        return raised(lambda: fail_together(*raising))

    def one() -> None:
        fail("")

    def other() -> None:
        fail_elsewhere("")

    assert found(group(one), group(one)) == 1
    assert found(group(one), group(other)) == 2
    assert found(group(one), group(one, other)) == 2


def test_an_exception_without_a_traceback_is_a_finding_too() -> None:
    assert found(LookupError(), LookupError(), ValueError()) == 2


def test_the_smallest_plan_is_shown_and_every_plan_is_kept() -> None:
    findings = Findings()
    errors = [raised(lambda: fail("it"))] * 3
    for plan, error in zip([PAIR, PLANS[2], PLANS[3]], errors, strict=True):
        findings.add(finding(plan, error))
    [merged] = findings.smallest_first()
    assert merged.plan == PLANS[2]
    assert merged.plans == [PAIR, PLANS[2], PLANS[3]]
    assert "and in 2 other runs" in str(merged)


def test_the_findings_of_the_smallest_plans_come_first() -> None:
    findings = Findings()
    for plan, error in [(PAIR, KeyError()), (PLANS[1], ValueError()), (PLANS[0], LookupError())]:
        findings.add(finding(plan, error))
    assert [each.plan for each in findings.smallest_first()] == [PLANS[1], PLANS[0], PAIR]


def test_a_report_without_a_finding() -> None:
    report = Report([], 12, CALLS[:3], [], [])
    assert report
    assert str(report) == "no failure in 12 runs, which made 3 different calls"
    assert repr(report) == "<Report: no failure in 12 runs, which made 3 different calls>"


def test_what_was_not_tried_is_no_failure_and_is_shown() -> None:
    report = Report([], 1, CALLS[:1], [], PLANS)
    assert report
    assert str(report).splitlines()[2:] == [
        "10 plans not tried, because a limit was reached:",
        "- Refuse() on GET a.internal/0",
        "- Refuse() on GET a.internal/1",
        "- Refuse() on GET a.internal/2",
        "- Refuse() on GET a.internal/3",
        "- Refuse() on GET a.internal/4",
        "- and 5 more",
    ]


def test_a_divergence_is_a_failure() -> None:
    report = Report([], 2, CALLS[:1], PLANS[:1], [])
    assert not report
    assert str(report).splitlines()[2:] == [
        "1 plan met no call, so the scenario does not make the same calls in every run:",
        "- Refuse() on GET a.internal/0",
    ]


def test_a_long_text_is_cut_and_a_secret_is_not_shown() -> None:
    error = AssertionError("\n".join(["\x1b[1m http://a.internal/?token=secret", *map(str, range(100))]))
    text = str(finding(PLANS[0], error))
    assert text.startswith("AssertionError: \\x1b[1m http://a.internal/?token=")
    assert "secret" not in text
    assert "\n18\n...\nwith Refuse()" in text


def test_an_exception_without_a_text_has_its_name() -> None:
    assert finding(PLANS[0], AssertionError()).summary == "AssertionError"


def test_a_group_is_shown_with_its_exceptions() -> None:
    error = ExceptionGroup("together", [LookupError("one"), ExceptionGroup("inner", [ValueError("two")])])
    assert str(finding(PLANS[0], error)).splitlines()[:4] == [
        "ExceptionGroup: together (2 sub-exceptions)",
        "  LookupError: one",
        "  ExceptionGroup: inner (1 sub-exception)",
        "    ValueError: two",
    ]


def test_the_report_of_a_shop_with_four_bugs() -> None:
    report = explore_in_virtual_time(BUGS)
    assert not report
    assert [each.summary.partition(":")[2].partition(":")[0] for each in report.findings] == [
        " reserved without an order",
        " charged 2 times",
        " 2 available of 1",
        " charged without an order",
    ]
    lines = str(report.findings[1]).splitlines()
    assert (
        lines[1] == "with Reset() on POST payments.internal/charges by orders.internal in POST orders.internal/orders"
    )
    assert lines[-1] == "    ..."
    assert "  orders.internal -> POST http://payments.internal/charges: 200" in lines
    assert "1. AssertionError: reserved without an order" in report
    assert report.findings[1].journal.to_mermaid().startswith("sequenceDiagram\n")


@pytest.mark.programs
def test_the_report_is_the_same_each_time_and_with_every_hash_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = set()
    for hash_seed in ("0", "1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
        printed.add(run_python("-m", "tests.support.explored"))
    first, second = explore_in_virtual_time(BUGS), explore_in_virtual_time(BUGS)
    assert first == second
    assert printed == {f"{first}\n"}


FAILING_TEST = """
import asyncio
from tests.support.explored import BUGS, explore_in_virtual_time

def test_the_shop():
    report = explore_in_virtual_time(BUGS)
    assert report, report
"""


@pytest.mark.programs
def test_pytest_shows_the_whole_report(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("failing")
    (directory / "test_shop.py").write_text(FAILING_TEST, "utf-8")
    output = try_python(*pytest_arguments(directory, directory)).stdout
    assert "AssertionError: 4 failures in" in output
    for finding in explore_in_virtual_time(BUGS).findings:
        for line in finding.source.splitlines():
            assert line in output
