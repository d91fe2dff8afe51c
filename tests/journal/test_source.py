"""The source of a function, as a message shows it."""

import functools
import linecache
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from asgi_connector._journal.source import shown_function
from tests.support.programs import ROOT


def is_large(exchange: Any) -> bool:
    """Not shown."""
    return exchange.size > 10  # type: ignore[no-any-return]


def has_id(exchange: Any) -> bool:
    found = exchange.json()
    return "id" in found


def decorated(function: Callable[..., object]) -> Callable[..., object]:
    return function


@decorated
@decorated
def is_decorated(exchange: Any) -> object:
    return exchange


def only_described(exchange: Any) -> object:
    """Nothing else."""


class Checks:
    def is_small(self, exchange: Any) -> bool:
        return not exchange

    def __call__(self, exchange: Any) -> bool:
        return False

    def __repr__(self) -> str:
        return "checks"


def two_lambdas(limit: int) -> list[Callable[..., object]]:
    return [lambda each: each.size > limit, lambda each: (lambda inner: inner.size)(each)]


class FailingRepr:
    def __call__(self, exchange: Any) -> bool:
        return False

    def __repr__(self) -> str:
        raise KeyError


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (lambda each: each.status == 200, "lambda each: each.status == 200"),
        (lambda each: "é" in each and each["é"], 'lambda each: "é" in each and each["é"]'),
        (two_lambdas(1)[0], "lambda each: each.size > limit"),
        (two_lambdas(1)[1], "lambda each: (lambda inner: inner.size)(each)"),
        ((lambda: lambda each: each.a)(), "lambda each: each.a"),
        (
            lambda each: (
                # a comment
                each.a and each.b
            ),
            "lambda each: each.a and each.b",
        ),
        (is_large, "def is_large(exchange: Any) -> bool: return exchange.size > 10"),
        (has_id, "def has_id(exchange: Any) -> bool: ..."),
        (is_decorated, "def is_decorated(exchange: Any) -> object: return exchange"),
        (only_described, 'def only_described(exchange: Any) -> object: """Nothing else."""'),
        (Checks().is_small, "def is_small(self, exchange: Any) -> bool: return not exchange"),
        (Checks(), "checks"),
        (FailingRepr(), "<FailingRepr>"),
        (print, "<built-in function print>"),
        (functools.partial(print, 1), "functools.partial(<built-in function print>, 1)"),
    ],
)
def test_a_function_is_shown_by_its_source(function: Callable[..., object], shown: str) -> None:
    assert shown_function(function) == shown


def test_a_lambda_in_an_assertion_that_pytest_rewrites_is_shown() -> None:
    assert [shown_function(lambda each: each.b), shown_function(lambda each: each.c)] == [
        "lambda each: each.b",
        "lambda each: each.c",
    ]


def test_a_long_function_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"f = lambda each: {'each + ' * 100}each\n"
    monkeypatch.setitem(linecache.cache, "<long>", (1, None, [program], "<long>"))
    assert shown_function(function_in("<long>", program)) == f"{program[4:164]}…"


def function_in(name: str, program: str) -> Callable[..., object]:
    """The function ``f`` of a *program* that was compiled as the file *name*."""
    namespace: dict[str, Any] = {}
    exec(compile(program, name, "exec"), namespace)
    found: Callable[..., object] = namespace["f"]
    return found


@pytest.mark.parametrize(
    ("program", "name"),
    [("f = lambda each: each.a", "<lambda>"), ("def f(each): return each", "f"), ("async def f(each): pass", "f")],
)
@pytest.mark.parametrize(
    "source",
    [None, "", "f = (\n", "\n\nf = lambda each: each.a\ndef f(each): pass\n", "def g(each): return each\n", "\0"],
    ids=["none", "empty", "invalid", "moved", "other", "null"],
)
def test_a_function_without_its_source_is_shown_by_its_name(
    program: str, name: str, source: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source is not None:
        entry = (len(source), None, source.splitlines(keepends=True), "<changed>")
        monkeypatch.setitem(linecache.cache, "<changed>", entry)
    assert shown_function(function_in("<changed>", program)) == name


def test_a_warning_about_the_source_is_not_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns((SyntaxWarning, DeprecationWarning), match="invalid escape sequence"):
        function = function_in("<escape>", program := "f = lambda each: '\\d' in each\n")
    monkeypatch.setitem(linecache.cache, "<escape>", (1, None, [program], "<escape>"))
    assert shown_function(function) == "lambda each: '\\d' in each"


@pytest.mark.programs
def test_without_columns_a_lambda_is_shown_if_it_is_the_only_one_of_its_line() -> None:
    program = (
        "from asgi_connector._journal.source import shown_function\n"
        "print(shown_function(lambda each: each.a))\n"
        "print(*map(shown_function, [lambda each: each.a, lambda each: each.b]))\n"
    )
    run = (
        f"import linecache; source = {program!r}; "
        "linecache.cache['<program>'] = (1, None, source.splitlines(True), '<program>'); "
        "exec(compile(source, '<program>', 'exec'))"
    )
    finished = subprocess.run(
        [sys.executable, "-X", "no_debug_ranges", "-c", run], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout == "lambda each: each.a\n<lambda> <lambda>\n"
