"""What the plugin costs a project in which no test makes a connector."""

from pathlib import Path

import pytest

from tests.support.programs import pytest_arguments, run_python

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
    settings = ["-p", "no:looptime_plugin", "-o", "asyncio_default_fixture_loop_scope=function"]
    arguments = pytest_arguments(tmp_path, *settings, tmp_path)
    assert run_python(*arguments).splitlines()[-1].startswith("2 passed")
