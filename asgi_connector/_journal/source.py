"""The source of a function that a user gives as a criterion, to show in a message."""

import ast
import inspect
import warnings
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Final

from asgi_connector._display import printable, repr_of

_SHOWN: Final = 160  # characters

_Place = tuple[int, int]
"""A line, and a column in bytes of UTF-8, as the parser and the compiler count them."""


def shown_function(function: Callable[..., object]) -> str:
    """A lambda, a function of one statement, or the head of a longer one, in one line.

    It is only the name where the source is not there, or is not that of this function any more.
    """
    if isinstance(function, MethodType):
        function = function.__func__
    if not isinstance(function, FunctionType):
        return repr_of(function)
    try:
        text = _source_of(function.__code__)
    except Exception:  # no source, or source that cannot be parsed: a message must not fail for that
        text = None
    text = printable(function.__qualname__ if text is None else text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _source_of(code: CodeType) -> str | None:
    source = "".join(inspect.findsource(code)[0])
    with warnings.catch_warnings(action="ignore"):  # of the source: Python has given them before
        nodes = list(ast.walk(ast.parse(source)))
    if code.co_name == "<lambda>":
        found = _lambda_of(code, [node for node in nodes if isinstance(node, ast.Lambda)])
        return None if found is None else _in_a_line(source, found)
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name and _first_line(node) == code.co_firstlineno:
            return _without_details(node)
    return None


def _lambda_of(code: CodeType, nodes: list[ast.Lambda]) -> ast.Lambda | None:
    """The one of *nodes* that was compiled to *code*: several may begin in the same line."""
    places = list(_places_of(code))
    found = [
        node
        for node in nodes
        if node.lineno == code.co_firstlineno
        and all(_start(node.body) <= start and end <= _end(node.body) for start, end in places)
    ]
    if len(found) > 1 and not places:
        return None  # Python was told to keep no columns: -X no_debug_ranges
    return max(found, key=_start, default=None)  # the innermost


def _places_of(code: CodeType) -> Iterator[tuple[_Place, _Place]]:
    """Where the instructions of *code* begin and end in the source, without those that stand for nothing in it."""
    for line, end_line, column, end_column in code.co_positions():
        if line is None or end_line is None or column is None or end_column is None:
            continue
        if (line, column) != (end_line, end_column):
            yield (line, column), (end_line, end_column)


def _start(node: ast.expr) -> _Place:
    return node.lineno, node.col_offset


def _end(node: ast.expr) -> _Place:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.end_lineno, node.end_col_offset


def _in_a_line(source: str, node: ast.Lambda) -> str:
    text = ast.get_source_segment(source, node)
    return ast.unparse(node) if text is None or "\n" in text else text


def _first_line(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _without_details(node: ast.FunctionDef) -> str:
    """The function without its decorators and docstring; only its head if it has several statements."""
    node.decorator_list = []
    if len(node.body) > 1 and ast.get_docstring(node) is not None:
        del node.body[0]
    head, *body = ast.unparse(node).strip().splitlines()
    return f"{head} {body[0].strip()}" if len(body) == 1 else f"{head} ..."
