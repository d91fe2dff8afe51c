"""The benchmark command works. Its results are not asserted, because times vary."""

import re
import sys

import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.scenarios import SCENARIOS
from tests.support.programs import run_python

pytestmark = pytest.mark.docs

ROW = re.compile(r"\| (?P<title>[^|]+) \| [\d.]+ \| (?P<ratio>[\d.]+|-) \| [^|]+ \|")


def rows(output: str) -> list[tuple[str, str]]:
    return [(match["title"], match["ratio"]) for line in output.splitlines() if (match := ROW.fullmatch(line))]


def test_the_quick_command_measures_every_scenario_for_everybody_who_is_there() -> None:
    output = run_python("-m", "tests.benchmarks", "--quick")
    assert output.count("\n### ") == len(SCENARIOS)
    assert [title for title, _ in rows(output)] == [
        CONTENDERS[name].title
        for scenario in SCENARIOS.values()
        for name in scenario.contenders
        if not CONTENDERS[name].missing
    ]


def test_the_soak_runs_and_leaves_nothing_behind() -> None:
    """A short run. A real one takes minutes: ``python -m tests.benchmarks.soak``."""
    output = run_python("-m", "tests.benchmarks.soak", "--requests", "500")
    assert "500 requests" in output
    assert "AppError" in output
    assert "WebSocket closed by 1000" in output


def test_the_first_contender_of_a_scenario_is_what_the_others_are_compared_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--quick", "--scenario", "get", "--contender", "floor", "--contender", "ours"])
    (floor, floor_ratio), (ours, ours_ratio) = rows(capsys.readouterr().out)
    assert (floor, ours) == (CONTENDERS["floor"].title, CONTENDERS["ours"].title)
    assert float(floor_ratio) == 1
    assert float(ours_ratio) > 0


def test_without_the_first_contender_there_are_no_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--scenario", "get", "--contender", "ours", "--rounds", "1", "--requests", "3"])
    output = capsys.readouterr().out
    assert "### 3 small GETs" in output
    assert "rounds: 1\n" in output
    assert rows(output) == [(CONTENDERS["ours"].title, "-")]


def test_a_peer_that_is_not_installed_is_skipped_with_a_line_that_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    main(["--quick", "--scenario", "get", "--contender", "ours", "--contender", "httpx2"])
    output = capsys.readouterr().out
    assert "Skipped: httpx2 ASGITransport, for want of httpx2\n" in output
    assert [title for title, _ in rows(output)] == [CONTENDERS["ours"].title]


@pytest.mark.parametrize("arguments", [["--scenario", "fetch"], ["--contender", "theirs"], ["--rounds", "0"]])
def test_what_it_does_not_know_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert arguments[1] in capsys.readouterr().err
