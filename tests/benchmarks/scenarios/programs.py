"""What takes a process of its own: imports, and runs of pytest."""

import asyncio
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from tests.benchmarks.contenders import Stage
from tests.support.programs import ROOT

from .scenario import Entrant, Scenario, milliseconds, seconds

IMPORTS = {
    "aiohttp": "import aiohttp",
    "package": "import asgi_connector",
    "both": "import aiohttp, asgi_connector",
    "name": "from asgi_connector import ASGIRoutingConnector",
}

TIMER = """\
from time import perf_counter
started = perf_counter()
{statement}
print(perf_counter() - started)
"""

SETTINGS = """\
[pytest]
asyncio_default_fixture_loop_scope = function
"""

HEAD = """\
import aiohttp
import pytest
from asgi_connector import ASGIRoutingConnector
from tests.benchmarks.app import SMALL, app
"""

WITH_A_CONNECTOR = """

@pytest.mark.asyncio
async def test_{number}():
    async with aiohttp.ClientSession(connector=ASGIRoutingConnector({{"bench.internal": app}})) as session:
        async with session.get("http://bench.internal/") as response:
            assert await response.read() == SMALL
"""

WITHOUT_A_CONNECTOR = """

def test_{number}():
    assert sum(range(10)) == 45
"""

PLUGIN = "asgi_connector.pytest_plugin"


async def run_python(*arguments: str, cwd: Path = ROOT, plugins: Sequence[str] = ()) -> str:
    """Return the output of a program that succeeds. It is given the environment of a user who has only *plugins*.

    pytest's option ``-p`` would search for each plugin in all that is installed, which takes longer than to load it.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": ",".join(plugins),
        "PYTEST_ADDOPTS": "",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # without bytecode, each program compiles all that it imports
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=cwd,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{arguments} exited with {process.returncode}:\n{output.decode()}")
    return output.decode()


async def import_time(statement: str, stage: Stage) -> float:
    return float(await run_python("-c", TIMER.format(statement=statement)))


async def suite(name: str, test: str, stage: Stage) -> Path:
    """Write the tests, and let pytest compile them, once."""
    directory = stage.directory / name
    if not directory.exists():
        directory.mkdir()
        tests = "".join(test.format(number=number) for number in range(stage.sizes.tests))
        (directory / "test_all.py").write_text(HEAD + tests, "utf-8")
        (directory / "pytest.ini").write_text(SETTINGS, "utf-8")
        await run_pytest(directory, "--collect-only")
    return directory


async def run_pytest(directory: Path, *arguments: str, plugins: Sequence[str] = ()) -> str:
    plugins = ("pytest_asyncio.plugin", *plugins)
    return await run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, cwd=directory, plugins=plugins)


async def suite_time(name: str, test: str, plugins: Sequence[str], arguments: Sequence[str], stage: Stage) -> float:
    directory = await suite(name, test, stage)
    started = perf_counter()
    output = await run_pytest(directory, *arguments, plugins=plugins)
    took = perf_counter() - started
    if f"{stage.sizes.tests} passed" not in output:
        raise AssertionError(output)
    return took


def plugin(name: str, test: str, described: str) -> Scenario:
    ways = {
        "no-plugin": ("pytest without the plugin", (), ()),
        "plugin-off": ("pytest with `--asgi-journal=off`", (PLUGIN,), ("--asgi-journal=off",)),
        "plugin": ("pytest with the plugin", (PLUGIN,), ()),
    }
    return Scenario(
        title=lambda sizes: f"A suite of {sizes.tests:,} tests that {described}",
        entrants={
            way: Entrant(
                title=title,
                measure=partial(suite_time, name, test, plugins, arguments),
                distributions=("pytest", "pytest-asyncio"),
            )
            for way, (title, plugins, arguments) in ways.items()
        },
        unit="s",
        show=seconds,
        is_absolute=True,
    )


SCENARIOS = {
    "import": Scenario(
        title=lambda sizes: "An import in a new process",
        entrants={
            name: Entrant(title=f"`{statement}`", measure=partial(import_time, statement))
            for name, statement in IMPORTS.items()
        },
        unit="ms",
        show=milliseconds,
        is_absolute=True,
    ),
    "plugin": plugin("with", WITH_A_CONNECTOR, "each make a connector and a request"),
    "plugin-unused": plugin("without", WITHOUT_A_CONNECTOR, "make no connector"),
}
