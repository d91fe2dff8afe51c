"""The programs on the pages as type checkers get them. The checkers run in ``python -m tests.docs.types``."""

import ast
from pathlib import Path

from tests.docs.pages import DOCS, PAGES, blocks_of
from tests.docs.types import write_programs


def test_every_program_is_checked_with_the_lines_that_it_has_on_its_page(tmp_path: Path) -> None:
    written = write_programs(tmp_path)
    assert list(written.values()) == [
        block for page in PAGES for block in blocks_of(page) if block.language == "python"
    ]
    for name, block in written.items():
        lines = block.page.read_text("utf-8").splitlines()[block.line - 1 :]
        for line, on_page in zip((tmp_path / f"{name}.py").read_text("utf-8").splitlines(), lines, strict=False):
            assert line == on_page or line.lstrip().startswith(("from page_", "import page_"))


def test_a_program_imports_the_newest_of_the_files_above_it(tmp_path: Path) -> None:
    newest: dict[str, str] = {}
    imports: list[str] = []
    for name, block in write_programs(tmp_path).items():
        if block.page != DOCS / "tutorial.md":
            continue
        for node in ast.walk(ast.parse((tmp_path / f"{name}.py").read_text("utf-8"))):
            for alias in node.names if isinstance(node, ast.Import) else ():
                if alias.asname is not None:
                    assert alias.name == newest[alias.asname]
                    imports.append(alias.asname)
        if block.file is not None:
            newest[block.file.removesuffix(".py")] = name
    assert imports == ["orders", "orders", "payments", "users", "orders", "payments", "users"]
