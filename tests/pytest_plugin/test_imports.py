"""What the plugin costs a project in which no test makes a connector."""

from pathlib import Path

import pytest

from tests.support.programs import pytest_arguments, run_python, try_python

pytestmark = pytest.mark.programs


def test_pytest_imports_nothing_else_with_the_plugin() -> None:
    printed = run_python(
        "-c",
        """
import sys, pytest
before = set(sys.modules)
import asgi_connector.pytest_plugin
print(sorted(name for name in set(sys.modules) - before if not name.startswith("asgi_connector")))
""",
    )
    assert printed == "[]\n"


def test_a_test_without_a_connector_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        """
import sys

def test_passes():
    pass

def test_is_next():
    assert "asgi_connector.pytest_plugin" in sys.modules
    loaded = sorted(name for name in sys.modules if name.startswith("asgi_connector"))
    assert loaded == [
        "asgi_connector",
        "asgi_connector._made",
        "asgi_connector._pytest",
        "asgi_connector._pytest.settings",
        "asgi_connector.pytest_plugin",
    ]
""",
        "utf-8",
    )
    assert run_python(*arguments_of_run(tmp_path)).splitlines()[-1].startswith("2 passed")


def test_a_report_imports_nothing(tmp_path: Path) -> None:
    """A test may fail because the process can open no more files. Its report shows the calls too."""
    (tmp_path / "conftest.py").write_text(
        """
import sys
import pytest

before = set()

@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    try:
        return (yield)
    finally:
        before.update(sys.modules)

def pytest_runtest_logreport(report):
    if report.when == "call":
        assert sorted(name for name in set(sys.modules) - before if name.startswith("asgi_connector")) == []
""",
        "utf-8",
    )
    (tmp_path / "test_it.py").write_text(
        """
import asyncio
from asgi_connector import ASGIRoutingConnector

async def main():
    async with ASGIRoutingConnector({}):
        pass

def test_fails():
    asyncio.run(main())
    assert False
""",
        "utf-8",
    )
    output = try_python(*arguments_of_run(tmp_path)).stdout
    assert "who called whom" in output
    assert output.splitlines()[-1].startswith("1 failed in"), output


def arguments_of_run(directory: Path) -> list[str | Path]:
    settings = ["-p", "no:looptime_plugin", "-o", "asyncio_default_fixture_loop_scope=function"]
    return pytest_arguments(directory, *settings, directory)
