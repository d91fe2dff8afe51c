"""No part of the package is so large that a reader cannot keep it in mind."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.architecture import PACKAGE
from tests.support.programs import ROOT

MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))


def sizes(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the name, the number of lines and the limit of the module, and of each class and function in it."""
    source = path.read_text("utf-8")
    yield path.name, source.count("\n"), 450
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1, 300 if isinstance(node, ast.ClassDef) else 40


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / PACKAGE)))
def test_modules_classes_and_functions_are_small(path: Path) -> None:
    assert [(name, lines) for name, lines, limit in sizes(path) if lines > limit] == []
