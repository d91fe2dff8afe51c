"""The benchmark command works. Its results are not asserted, because times vary."""

import importlib
import re
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import page, results
from tests.benchmarks.__main__ import main
from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.hidden import hidden
from tests.benchmarks.machine import describe_build, python_version
from tests.benchmarks.page import NOT_MEASURED, PAGE, filled, measured, names_of_blocks
from tests.benchmarks.results import (
    LossError,
    Results,
    Row,
    Setup,
    Table,
    check_that_nothing_is_lost,
    load,
    load_all,
    save,
)
from tests.benchmarks.scenarios import SCENARIOS
from tests.support.programs import run_python

pytestmark = pytest.mark.docs

ROW = re.compile(r"\| (?P<title>[^|]+) \| [\d.]+ \| (?P<ratio>[\d.]+|-) \| [^|]+ \|")


def rows(output: str) -> list[tuple[str, str]]:
    return [(match["title"], match["ratio"]) for line in output.splitlines() if (match := ROW.fullmatch(line))]


def test_the_command_runs_and_says_with_what() -> None:
    output = run_python("-m", "tests.benchmarks", "--quick", "--scenario", "mounts")
    assert output.startswith(f"CPython {python_version()}, {describe_build()}; ")
    assert output.count("\n### ") == 1


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_measures_everybody_who_is_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--rounds", "1", "--scenario", name])
    assert [title for title, _ in rows(capsys.readouterr().out)] == [
        entrant.title for entrant in SCENARIOS[name].entrants.values() if not entrant.missing
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
    assert "Skipped: httpx2 `ASGITransport` (with sniffio), for want of httpx2" in output
    assert [title for title, _ in rows(output)] == [CONTENDERS["ours"].title]


@pytest.mark.parametrize("arguments", [["--scenario", "fetch"], ["--contender", "theirs"], ["--rounds", "0"]])
def test_what_it_does_not_know_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert arguments[1] in capsys.readouterr().err


# The page.


def test_the_tables_of_the_page_are_what_the_command_writes_from_the_results() -> None:
    written = PAGE.read_text("utf-8")
    assert filled(written, load_all()) == written, "write it with python -m tests.benchmarks --page"


def test_the_page_has_a_table_of_each_scenario() -> None:
    names = names_of_blocks(PAGE.read_text("utf-8"))
    assert sorted(names) == sorted({"runs", "ahead", *SCENARIOS})


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_measured(name: str) -> None:
    assert measured(name, load_all()) != NOT_MEASURED


def run_of(python: str, ratios: Mapping[str, float], *, absolute: bool = False, loop: str = "asyncio") -> Results:
    """A run of the scenario ``get``, in which each row has cost 7 µs."""
    setup = Setup(python=python, build="a build", machine="Linux", loop=loop, packages="aiohttp 3", sizes={"apps": 1})
    rows = [
        Row(name=name, title=name.capitalize(), cost="7", ratio=ratio, lowest=ratio, highest=ratio)
        for name, ratio in ratios.items()
    ]
    table = Table(
        title="9 GETs", unit="µs", is_absolute=absolute, baseline="floor", rounds=3, date="2026-01-02", rows=rows
    )
    return Results(setup=setup, tables={"get": table})


def block(name: str, *found: Results) -> list[str]:
    text = filled(f"<!-- measured: {name} -->\nold\n<!-- end -->\n", found)
    assert text.startswith(f"<!-- measured: {name} -->\n\n")
    assert text.endswith("\n\n<!-- end -->\n")
    return text.splitlines()[2:-2]


def test_each_python_has_a_column() -> None:
    old = run_of("3.11.1", {"floor": 1.0, "ours": 1.234})
    new = run_of("3.15.0", {"floor": 1.0, "ours": 1.5, "httpx2": 1.25}, loop="uvloop")
    assert block("get", old, new) == [
        "| 9 GETs | CPython 3.11.1 | CPython 3.15.0, uvloop |",
        "|---|---:|---:|",
        "| Floor | 1.00 | 1.00 |",
        "| **Ours** | **1.23** | **1.50** |",
        "| Httpx2 | - | 1.25 |",
    ]


def test_a_table_shows_the_costs_where_the_ratios_say_little() -> None:
    assert block("get", run_of("3.13.0", {"floor": 1.0}, absolute=True))[-1] == "| Floor | 1.00 (7 µs) |"


def test_what_was_not_measured_is_said() -> None:
    assert block("memory", run_of("3.13.0", {"floor": 1.0})) == [NOT_MEASURED]
    assert block("get", without_a_ratio(run_of("3.13.0", {"ours": 1.0})))[-1] == "| **Ours** | **-** |"


def without_a_ratio(found: Results) -> Results:
    table = found.tables["get"]
    return replace(found, tables={"get": replace(table, rows=[replace(row, ratio=None) for row in table.rows])})


def test_a_run_is_described() -> None:
    assert block("runs", run_of("3.13.0", {})) == [
        "- CPython 3.13.0: a build; 3 rounds on 2026-01-02.",
        "",
        "All on Linux, with aiohttp 3.",
    ]


def test_tables_of_several_days_are_described_together() -> None:
    run = run_of("3.13.0", {})
    later = replace(run.tables["get"], rounds=21, date="2026-01-03")
    (line, *_) = block("runs", replace(run, tables={**run.tables, "concurrent": later}))
    assert line == "- CPython 3.13.0: a build; 3 to 21 rounds on 2026-01-02 to 2026-01-03."


def test_runs_with_other_packages_are_described_apart() -> None:
    old = run_of("3.13.0", {})
    new = replace(old, setup=replace(old.setup, packages="aiohttp 4"))
    assert block("runs", old, new)[3:] == ["Measured on Linux, with aiohttp 3; or on Linux, with aiohttp 4."]


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ({"floor": 1, "ours": 1.2, "httpx2": 1.5, "httpx": 2}, "Ours is ahead of Httpx2, which takes 25 % longer"),
        ({"floor": 1, "ours": 1.5, "httpx": 2, "httpx2": 1.2}, "Httpx2 is ahead of Ours, which takes 25 % longer"),
        ({"floor": 1, "ours": 1.51, "httpx2": 1.5}, "Httpx2 and Ours are equally fast"),
    ],
)
def test_it_says_who_is_ahead(ratios: Mapping[str, float], said: str) -> None:
    assert block("ahead", run_of("3.13.0", ratios)) == [f"- CPython 3.13.0 (a build): one after another, {said}."]


def test_nobody_is_ahead_of_nobody() -> None:
    assert block("ahead", run_of("3.13.0", {"floor": 1, "ours": 1.2})) == [""]


# The results.


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results are saved, and the page next to it."""
    monkeypatch.setattr(results, "DIRECTORY", tmp_path / "results")
    monkeypatch.setattr(page, "PAGE", tmp_path / "benchmarks.md")
    (tmp_path / "benchmarks.md").write_text("<!-- measured: get -->\n<!-- end -->\n", "utf-8")
    return tmp_path / "results"


def test_a_run_is_saved_and_written_into_the_page(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--scenario", "get", "--contender", "floor", "--contender", "ours", "--save"])
    (path,) = directory.iterdir()
    assert path.name == f"cpython-{python_version()}-asyncio.json"
    assert f"Saved in {path}\n" in capsys.readouterr().out
    assert load(path).setup.build == describe_build()
    written = (directory.parent / "benchmarks.md").read_text("utf-8")
    assert f"| CPython {python_version()} |" in written
    assert "| **asgi-connector** | **" in written

    (directory.parent / "benchmarks.md").write_text("<!-- measured: get -->\n<!-- end -->\n", "utf-8")
    main(["--page"])
    assert (directory.parent / "benchmarks.md").read_text("utf-8") == written


def test_a_run_of_the_same_setup_keeps_the_other_scenarios(directory: Path) -> None:
    first = run_of("3.13.0", {"floor": 1.0})
    later = replace(first.tables["get"], date="2026-01-03", rounds=21)
    second = replace(first, tables={"concurrent": later})
    save(first)
    check_that_nothing_is_lost(second.setup, {"concurrent": ["floor"]})
    assert load(save(second)) == replace(second, tables={**first.tables, **second.tables})


def test_a_run_of_another_setup_replaces_all(directory: Path) -> None:
    first = run_of("3.13.0", {"floor": 1.0})
    second = replace(first, setup=replace(first.setup, packages="aiohttp 4"))
    save(first)
    check_that_nothing_is_lost(second.setup, {"get": ["floor", "ours"], "concurrent": ["ours"]})
    assert load(save(second)) == second


@pytest.mark.parametrize(
    ("packages", "measured", "said"),
    [
        ("aiohttp 3", {"get": ["floor"]}, "ours in get in cpython-3.13.0-asyncio.json. Measure"),
        ("aiohttp 4", {"get": ["floor"]}, "ours in get in .* setup: packages 'aiohttp 3', not 'aiohttp 4'"),
        ("aiohttp 4", {"concurrent": ["ours"]}, "lose get in cpython-3.13.0-asyncio.json .another setup"),
    ],
)
def test_a_run_that_would_lose_results_is_refused(
    directory: Path, packages: str, measured: Mapping[str, list[str]], said: str
) -> None:
    first = run_of("3.13.0", {"floor": 1.0, "ours": 2.0})
    save(first)
    with pytest.raises(LossError, match=said):
        check_that_nothing_is_lost(replace(first.setup, packages=packages), measured)


def test_the_command_refuses_before_it_measures(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--quick", "--scenario", "get", "--contender", "floor", "--save"]
    main([*options, "--contender", "ours"])
    (path,) = directory.iterdir()
    before = path.read_text("utf-8")
    capsys.readouterr()
    with pytest.raises(SystemExit) as refused:
        main(options)
    assert refused.value.code == 2
    output = capsys.readouterr()
    assert "error: To save this run would lose ours in get" in output.err
    assert (output.out, path.read_text("utf-8")) == ("", before)


def test_results_are_in_the_order_of_versions(directory: Path) -> None:
    for python, loop in [("3.14.0", "asyncio"), ("3.9.2", "asyncio"), ("3.14.0t", "asyncio"), ("3.14.0", "uvloop")]:
        save(run_of(python, {}, loop=loop))
    assert [(each.setup.python, each.setup.loop) for each in load_all()] == [
        ("3.9.2", "asyncio"),
        ("3.14.0", "asyncio"),
        ("3.14.0", "uvloop"),
        ("3.14.0t", "asyncio"),
    ]


# The build of Python.


@pytest.mark.parametrize(
    ("variables", "described"),
    [
        ({}, "no PGO, no LTO"),
        ({"PGO_PROF_USE_FLAG": "-fprofile-use"}, "no PGO, no LTO"),
        ({"CONFIG_ARGS": "'--enable-optimizations' '--with-lto'"}, "PGO, LTO"),
        ({"PY_CFLAGS": "-O2 -fprofile-use"}, "PGO, no LTO"),
        ({"PY_CORE_CFLAGS": "-flto=auto"}, "no PGO, LTO"),
        ({"Py_DEBUG": 1}, "a debug build (--with-pydebug), no PGO, no LTO"),
    ],
)
def test_the_build_is_described(
    variables: Mapping[str, object], described: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", variables.get)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert describe_build() == f"{described}, with the GIL"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says which libraries a process has")
def test_a_record_of_another_build_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    is_shared = "libpython" in Path("/proc/self/maps").read_text("utf-8")
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_ENABLE_SHARED": 1}.get)
    assert describe_build().startswith("no PGO, no LTO" if is_shared else "PGO and LTO unknown")


def test_a_free_threaded_build_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": 1}.get)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert python_version().endswith("t")
    assert describe_build().endswith(", without the GIL")


# A package that is hidden.


def test_a_hidden_package_is_not_found_and_then_it_is_again() -> None:
    before = importlib.import_module("yarl")
    with hidden("yarl"), pytest.raises(ModuleNotFoundError, match="No module named 'yarl'"):
        importlib.import_module("yarl")
    assert importlib.import_module("yarl") is before
