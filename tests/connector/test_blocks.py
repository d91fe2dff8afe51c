"""Blocks that are never entered, and so do nothing: a warning at the line of the call."""

import gc
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_connector import ASGIRoutingConnector, faults
from asgi_connector._injection.injections import Injection
from asgi_connector._types import Receive, Scope, Send
from tests.support.programs import pytest_arguments, try_python

Call = Callable[[ASGIRoutingConnector], object]


def forget(block: object) -> None:
    del block
    gc.collect()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("no request is made here")


def inject(connector: ASGIRoutingConnector) -> object:
    return connector.inject("app.internal", faults.Reset())


def record(connector: ASGIRoutingConnector) -> object:
    return connector.record()


def mounted(connector: ASGIRoutingConnector) -> object:
    return connector.mounted("app.internal", app)


def shake(connector: ASGIRoutingConnector) -> object:
    return faults.Shake(faults.Plan())(connector)


class Shorter(ASGIRoutingConnector):
    def shake(self) -> object:
        return self.inject("app.internal", faults.Reset())


def through_a_subclass(connector: ASGIRoutingConnector) -> object:
    assert isinstance(connector, Shorter)
    return connector.shake()


@pytest.mark.parametrize(
    ("call", "line_of", "name", "example"),
    [
        (inject, inject, "inject('app.internal', Reset(...))", "with connector.inject(...):"),
        (record, record, "record()", "with connector.record(...):"),
        (shake, shake, "shake(connector)", "with shake(connector):"),
        (mounted, mounted, "mounted('app.internal', ...)", "async with connector.mounted(...):"),
        (through_a_subclass, Shorter.shake, "inject('app.internal', Reset(...))", "with connector.inject(...):"),
    ],
)
async def test_a_block_that_is_never_entered_warns_at_the_line_of_the_call(
    call: Call, line_of: Any, name: str, example: str
) -> None:
    async with Shorter({"app.internal": app}, lifespan="off") as connector:
        with pytest.warns(RuntimeWarning) as caught:
            forget(call(connector))
    (warning,) = caught
    place = f"{warning.filename}:{warning.lineno}"
    assert str(warning.message) == f"{name} at {place} was never entered, so it did nothing: write '{example}'"
    assert warning.filename == __file__
    assert warning.source is not None  # for tracemalloc
    lines, first = inspect.getsourcelines(line_of)
    assert warning.lineno == first + next(number for number, line in enumerate(lines) if "return" in line)


async def test_a_block_that_is_entered_does_not_warn() -> None:
    async with ASGIRoutingConnector({"app.internal": app}, lifespan="off") as connector:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with connector.inject("app.internal", faults.Reset(), allow_unused=True), connector.record():
                pass
            async with connector.mounted("app.internal", app):
                pass
            gc.collect()


async def test_a_block_that_could_not_be_made_does_not_warn() -> None:
    async with ASGIRoutingConnector({"app.internal": app}, lifespan="off") as connector:
        with pytest.raises(ValueError, match="not mounted"):
            connector.inject("other.internal", faults.Reset())
        Injection.__new__(Injection)
        gc.collect()


@pytest.mark.parametrize("method", ["record", "shake", "mounted"])
async def test_a_block_is_entered_once(method: str) -> None:
    async with ASGIRoutingConnector({"app.internal": app}, lifespan="off") as connector:
        if method != "mounted":
            plain = connector.record() if method == "record" else faults.Shake(faults.Plan())(connector)
            with plain:
                pass
            with pytest.raises(RuntimeError, match=rf"has been entered before: call {method}\(\) for each block"):
                plain.__enter__()
        else:
            block = connector.mounted("app.internal", app)
            async with block:
                pass
            with pytest.raises(RuntimeError, match=r"has been entered before: call mounted\(\) for each block"):
                await block.__aenter__()


PROGRAM = """
import asyncio
from asgi_connector import ASGIRoutingConnector

async def app(scope, receive, send): ...

async def main():
    async with ASGIRoutingConnector({"app.internal": app}, lifespan="off") as connector:
        connector.record()  # line 9

asyncio.run(main())
"""


@pytest.mark.programs
def test_python_shows_the_warning_by_default(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    finished = try_python(program)
    assert finished.returncode == 0
    assert f"{program}:9: RuntimeWarning: record() at {program}:9 was never entered" in finished.stderr


TEST = """
import pytest
from asgi_connector import ASGIRoutingConnector, faults

async def app(scope, receive, send): ...

@pytest.mark.asyncio
async def test_retries():
    async with ASGIRoutingConnector({"app.internal": app}, lifespan="off") as connector:
        connector.inject("app.internal", faults.Reset())  # line 10
"""


@pytest.mark.programs
@pytest.mark.parametrize(("options", "passes"), [([], True), (["-W", "error"], False)])
def test_pytest_shows_the_warning_and_fails_where_warnings_are_errors(
    options: list[str], passes: bool, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    finished = try_python(*pytest_arguments(tmp_path, *options, tmp_path))
    assert ("1 passed" in finished.stdout) is passes
    assert ("1 failed" in finished.stdout) is not passes
    place = tmp_path / "test_it.py"
    assert f"inject('app.internal', Reset(...)) at {place}:10 was never entered" in finished.stdout
    assert not passes or "test_it.py:10: RuntimeWarning" in finished.stdout
