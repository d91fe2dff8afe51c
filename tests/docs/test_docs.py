"""The README and the other pages are correct: each block of code runs, and each link leads to a file.

A block of Python is a program, and runs in its own process. The block of text directly below it is its output. Without
one, the program prints nothing. How long a call took is not compared. If the first line of a block is a comment with a
file name, as in ``# orders.py``, the block is this file. It runs in a directory with the files above it on the same
page. pytest runs a test file, and the block of text below it is pytest's last line, without the time.
"""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import DOCS, PAGES, README, RUN, SHOWN, Block, blocks_of, contents_of, fences_of, name_of
from tests.support.programs import ROOT, pytest_arguments, run_python

pytestmark = pytest.mark.docs

BLOCKS: Final = [block for page in PAGES for block in blocks_of(page)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.id)
def test_the_code_runs_and_prints_what_the_page_shows(
    block: Block, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("doc examples", 1)
    if block.file is None:
        assert block.language == "python"
        assert "def test_" not in block.source, "a test file begins with its name, and is run by pytest then"
        assert without_times(run_python("-c", block.source)) == without_times(block.printed)
        return
    for each in blocks_of(block.page)[: block.number]:
        if each.file is not None:
            (tmp_path / each.file).write_text(each.source, "utf-8")
    path = tmp_path / block.file
    if block.language == "toml":
        assert tomllib.loads(block.source)
    elif path.name.startswith("test_"):
        # Pages that are not about fixtures do not repeat these settings.
        settings = (
            [] if (tmp_path / "pyproject.toml").exists() else ["-o", "asyncio_default_fixture_loop_scope=function"]
        )
        output = run_python(*pytest_arguments(tmp_path, *settings, path))
        assert re.sub(r" in [0-9.]+s$", "", output.splitlines()[-1]) == block.printed.rstrip("\n")
    else:
        assert without_times(run_python(path)) == without_times(block.printed)


def without_times(printed: str) -> str:
    """What a journal has *printed*, as if each call had taken the same time."""
    return re.sub(r" in \d+ ms$", " in 0 ms", printed, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_no_code_that_nobody_runs(page: Path) -> None:
    assert {fence.language for fence in fences_of(page)} <= RUN | SHOWN


def test_the_readme_shows_what_its_code_prints() -> None:
    assert BLOCKS[0].id == "README.md-1"
    assert BLOCKS[0].printed


def test_the_readme_has_two_commands_of_one_line_each() -> None:
    example, tests = [fence.source for fence in fences_of(README) if fence.language == "sh"]
    assert example.count("\n") == 1
    assert example.endswith("examples/microservices.py\n")
    assert tests.count("\n") == 1
    assert "pytest" in tests


@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_no_line_of_code_is_wider_than_a_page(page: Path) -> None:
    """Output is wrapped, and code is not: see ``docs/_static/custom.css``. The README is not among these pages."""
    code = [fence for fence in fences_of(page) if fence.language in RUN | {"sh"}]
    assert [line for fence in code for line in fence.source.splitlines() if len(line) > 88] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#\s]+)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).is_file()] == []


def test_every_page_is_in_one_table_of_contents() -> None:
    listed = sorted(name_of(found) for page in PAGES for found in contents_of(page))
    assert listed == sorted(name_of(page) for page in PAGES[1:] if page != DOCS / "index.md")


def test_the_index_lists_each_page_of_a_group_with_a_line_of_its_own() -> None:
    """The sidebar shows the tables of contents, and the page shows the lists: they say the same."""
    sections = re.split(r"^## ", (DOCS / "index.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    for section in sections:
        title = section.partition("\n")[0]
        captions = re.findall(r"^:caption: (.+)$", section, re.MULTILINE)
        listed = re.findall(r"^- \[[^\]]+\]\(([a-z0-9/-]+)\.md\): [^\n]{10}", section, re.MULTILINE)
        table = re.findall(r"^([a-z0-9/-]+)$", section.partition(":maxdepth: 1")[2], re.MULTILINE)
        assert (captions, listed) == ([title], table)


def test_the_design_names_every_module() -> None:
    design = (DOCS / "design.md").read_text("utf-8")
    modules = [path.stem for path in (ROOT / "asgi_connector").rglob("*.py") if path.stem != "__init__"]
    folders = [
        path.name for path in (ROOT / "asgi_connector").iterdir() if path.is_dir() and path.name != "__pycache__"
    ]
    assert [name for name in modules + folders if f"`{name}`" not in design] == []
