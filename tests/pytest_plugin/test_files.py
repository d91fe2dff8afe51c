"""The files about a test, their names, and the page that links them."""

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_connector._pytest.files import name_of
from tests.pytest_plugin.conftest import Run

FAILS = """
@pytest.mark.parametrize("number", [1, 404])
async def test(number):
    async with opened() as session:
        assert await get(session, f"http://users.internal/users/{number}?token=s3cret") == 200
"""


def test_the_files_of_a_failed_test_are_where_the_section_says(run: Run, pytester: pytest.Pytester) -> None:
    outcome = run(FAILS, "--asgi-journal-dir=report")
    assert outcome.counts == {"passed": 1, "failed": 1}
    [section] = outcome.sections
    name = name_of("test_it.py::test[404]")
    assert section.endswith(f"page: report/{name}.html\nHAR: report/{name}.har\nMermaid: report/{name}.mmd\n")
    directory = pytester.path / "report"
    assert sorted(path.name for path in directory.iterdir()) == sorted(
        ["index.html", f"{name}.har", f"{name}.html", f"{name}.mmd"]
    )
    page = (directory / f"{name}.html").read_text("utf-8")
    assert "test_it.py::test[404]" in page
    [entry] = json.loads((directory / f"{name}.har").read_text("utf-8"))["log"]["entries"]
    assert entry["response"]["status"] == 404
    assert (directory / f"{name}.mmd").read_text("utf-8").startswith("sequenceDiagram\n")
    index = (directory / "index.html").read_text("utf-8")
    assert re.findall(r'href="([^"]+)"', index) == [f"{name}.html", f"{name}.har", f"{name}.mmd"]
    assert "test_it.py::test[404]" in index
    assert f"Who called whom in 1 test: {directory / 'index.html'}" in outcome.text
    for path in directory.iterdir():
        assert "s3cret" not in path.read_text("utf-8"), path


def test_the_page_shows_the_section(run: Run, pytester: pytest.Pytester) -> None:
    run(FAILS, "--asgi-journal-dir=report")
    page = (pytester.path / "report" / f"{name_of('test_it.py::test[404]')}.html").read_text("utf-8")
    assert "Calls:\n! GET http://users.internal/users/404" in page


def test_always_writes_the_files_of_each_test(run: Run, pytester: pytest.Pytester) -> None:
    outcome = run(FAILS, "--asgi-journal-dir", pytester.path / "deep" / "report", "--asgi-journal=always")
    assert outcome.counts == {"passed": 1, "failed": 1}
    index = (pytester.path / "deep" / "report" / "index.html").read_text("utf-8")
    assert re.findall(r'<td class="(\w+)">', index) == ["passed", "failed"]


def test_off_writes_nothing(run: Run, pytester: pytest.Pytester) -> None:
    run(FAILS, "--asgi-journal-dir=report", "--asgi-journal=off")
    assert not (pytester.path / "report").exists()


def test_nothing_is_written_if_no_test_is_shown(run: Run, pytester: pytest.Pytester) -> None:
    run("def test():\n    pass\n", "--asgi-journal-dir=report")
    assert not (pytester.path / "report").exists()


def test_the_index_of_an_earlier_run_is_replaced(run: Run, pytester: pytest.Pytester) -> None:
    run(FAILS, "--asgi-journal-dir=report")
    run("def test():\n    pass\n", "--asgi-journal-dir=report")
    index = (pytester.path / "report" / "index.html").read_text("utf-8")
    assert "No test of the latest run is shown." in index
    assert "test_it.py" not in index


@pytest.mark.parametrize(("option", "shown"), [("on-failure", "rerun"), ("always", "passed")])
def test_the_index_tells_a_failure_from_an_attempt_that_is_run_again(
    run: Run, pytester: pytest.Pytester, option: str, shown: str
) -> None:
    """As pytest-rerunfailures does it: a report of an attempt that is run again has an outcome of its own."""
    run(
        """
runs = []

async def test():
    async with opened() as session:
        runs.append(1)
        await get(session)
        assert len(runs) == 2
""",
        "--asgi-journal-dir=report",
        f"--asgi-journal={option}",
        conftest="""
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    setup, call, teardown = runtestprotocol(item, nextitem=nextitem, log=False)
    assert call.outcome == "failed"
    call.outcome = "rerun"
    for report in setup, call:
        item.ihook.pytest_runtest_logreport(report=report)
    item._initrequest()
    runtestprotocol(item, nextitem=nextitem)
    return True
""",
    )
    index = (pytester.path / "report" / "index.html").read_text("utf-8")
    assert re.findall(r'<td class="(\w+)">', index) == [shown]


def test_the_ini_file_says_where_below_its_own_directory(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = pytester.mkdir("elsewhere")
    monkeypatch.chdir(elsewhere)
    run(FAILS, pytester.path, ini="asgi_journal_dir = report")
    assert (pytester.path / "report" / "index.html").exists()
    assert list(elsewhere.iterdir()) == []


def test_a_test_may_change_its_directory(run: Run, pytester: pytest.Pytester) -> None:
    run(
        """
async def test(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    async with opened() as session:
        await get(session)
        assert 0
""",
        "--asgi-journal-dir=report",
    )
    assert (pytester.path / "report" / "index.html").exists()


def test_the_files_have_the_calls_of_the_teardown_too(run: Run, pytester: pytest.Pytester) -> None:
    run(
        """
@pytest.fixture
async def session():
    async with opened() as session:
        yield session
        await get(session, "http://users.internal/users/2")

async def test(session):
    await get(session, "http://users.internal/users/1")
    assert 0
""",
        "--asgi-journal-dir=report",
    )
    [har] = (pytester.path / "report").glob("*.har")
    urls = [entry["request"]["url"] for entry in json.loads(har.read_text("utf-8"))["log"]["entries"]]
    assert urls == ["http://users.internal/users/1", "http://users.internal/users/2"]
    assert '<td class="failed">failed</td><td>2</td>' in (har.parent / "index.html").read_text("utf-8")


def test_a_directory_that_cannot_be_written_is_told(run: Run, pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("report").write_text("a file", "utf-8")
    outcome = run(FAILS, "--asgi-journal-dir=report")
    assert outcome.counts == {"passed": 1, "failed": 1}
    [section] = outcome.sections
    assert "The files about this test could not be written: [Errno " in section
    assert "The index of who called whom could not be written: [Errno " in outcome.text


HOSTILE = """
VALUES = ["</td><script>alert(1)</script>", "../../up", "é\\u202e\\n", "x" * 999, "X" * 999, "con"]

@pytest.mark.parametrize("value", VALUES)
async def test(value):
    async with opened() as session:
        await get(session)
        assert 0
"""


def test_names_are_safe_and_unique(run: Run, pytester: pytest.Pytester) -> None:
    outcome = run(HOSTILE, "--asgi-journal-dir=report")
    assert outcome.counts == {"failed": 6}
    names = os.listdir(pytester.path / "report")
    assert len({name.lower() for name in names}) == len(names) == 6 * 3 + 1
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}\.(html|har|mmd)", name)] == []
    assert "<script" not in (pytester.path / "report" / "index.html").read_text("utf-8")


@given(st.text(), st.text())
def test_each_node_id_has_a_name_of_its_own(one: str, other: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,200}", name_of(one))
    assert (name_of(one).lower() == name_of(other).lower()) == (one == other)
    assert not name_of(one).startswith("-")


def test_a_name_says_which_test_it_is() -> None:
    name = name_of("tests/test_shop.py::TestOrders::test_pay[card-1]")
    assert re.fullmatch(r"tests-test_shop-py-TestOrders-test_pay-card-1-[0-9a-f]{10}", name)


@pytest.mark.programs
def test_xdist_workers_share_one_index(pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is a process of its own, with two workers. It loads the plugins that it needs."""
    run(FAILS)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugins = ("-p", "xdist", "-p", "asyncio", "-p", "asgi_connector")
    result = pytester.runpytest_subprocess("-n2", *plugins, "--asgi-journal=always", "--asgi-journal-dir=report")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*who called whom*",
            "Calls:",
            "! GET http://users.internal/users/404*",
            "page: report/*",
            "Who called whom in 2 tests: *",
        ]
    )
    index = (pytester.path / "report" / "index.html").read_text("utf-8")
    assert sorted(re.findall(r'<td class="(\w+)">', index)) == ["failed", "passed"]
    linked = re.findall(r'href="([^"]+)"', index)
    assert sorted([*linked, "index.html"]) == sorted(os.listdir(pytester.path / "report"))
