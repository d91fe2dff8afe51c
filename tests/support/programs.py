"""Run a Python program as a reader of the README would: in a separate process, with warnings as errors."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


# On Python 3.11 Django leaves the body of a request whose view raises to the garbage collector.
_DJANGOS_OWN = ("-W", "ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning")


def run_python(*arguments: str | Path) -> str:
    """Return the output of a program. Assert that it succeeds and writes no errors or warnings."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", *_DJANGOS_OWN, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    # asyncio's debug mode reports slow callbacks, which depend on the machine. A refused host logs a warning, which
    # Python prints if no logging is configured.
    harmless = re.compile("Executing <|[A-Z]+ http[^ ]+ is refused: No app is mounted for ")
    complaints = [line for line in finished.stderr.splitlines() if not harmless.match(line)]
    assert (finished.returncode, complaints) == (0, []), finished.stdout + finished.stderr
    return finished.stdout


_NOT_NEEDED = ("faker", "hypothesispytest", "pytest_cov", "timeout", "xdist", "xdist.looponfail")
"""Plugins that the programs do not use. They make up more than half of the time that pytest takes to start."""


def pytest_arguments(directory: Path, *arguments: str | Path) -> list[str | Path]:
    """Arguments for Python that run pytest on *directory*, as if no project were around it."""
    plugins = [argument for name in _NOT_NEEDED for argument in ("-p", f"no:{name}")]
    return ["-m", "pytest", "-q", *plugins, "-p", "no:cacheprovider", "--rootdir", directory, *arguments]


def run_until_interrupted(program: str) -> subprocess.CompletedProcess[str]:
    """Run the source of a program that sends itself a SIGINT, as Ctrl-C does, and return how it ended."""
    return try_python("-c", program)


def try_python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program with Python's default settings, and return how it ended."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDEVMODE": ""},
        capture_output=True,
        text=True,
        timeout=50,
    )
