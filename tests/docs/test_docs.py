"""What the README and the other pages say is so: each block of code runs, and each link leads somewhere.

A block of Python is a program, run in a process of its own; what it prints stands in the block of text right below it,
and without one it prints nothing. A block whose first line is a comment with a file's name, as in ``# orders.py``, is
that file, in a directory with the files above it on the same page. It runs there; a test file is run by pytest, whose
last line, without the time, is what stands below it.
"""

import functools
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from sybil import Document
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from tests.support.programs import ROOT, run_python

README: Final = ROOT / "README.md"
DOCS: Final = ROOT / "docs"
PAGES: Final = [README, *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]

RUN: Final = {"python", "toml"}
SHOWN: Final = {"text", "sh", "{toctree}", "{eval-rst}"}
"""What does not run here: output, pictures, what is typed into a shell, and what Sphinx is told."""

_LEXER: Final = FencedCodeBlockLexer(r"[^\n]*")
_FILE: Final = re.compile(r"# ([a-z_]+\.(?:py|toml))\n")


def name_of(page: Path) -> str:
    return page.relative_to(DOCS if DOCS in page.parents else ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A block of code on a page, and what stands in the block of text right below it."""

    page: Path
    number: int
    language: str
    source: str
    printed: str

    @property
    def file(self) -> str | None:
        match = _FILE.match(self.source)
        return match and match[1]

    @property
    def id(self) -> str:
        return f"{name_of(self.page)}-{self.number}"


@functools.cache
def fences_of(page: Path) -> list[tuple[str, str, bool]]:
    """Each fenced block of *page*: its language, its source, and whether it comes right below the one before it."""
    found: list[tuple[str, str, bool]] = []
    end = 0
    document = Document(page.read_text("utf-8"), str(page))
    for region in _LEXER(document):
        follows = bool(found) and not document.text[end : region.start].strip()
        found.append((region.lexemes["language"], str(region.lexemes["source"]), follows))
        end = region.end
    return found


def blocks_of(page: Path) -> list[Block]:
    """The blocks of *page* that run."""
    blocks: list[Block] = []
    previous = ""
    for language, source, follows in fences_of(page):
        if language in RUN:
            blocks.append(Block(page, len(blocks) + 1, language, source, ""))
        elif language == "text" and follows and previous in RUN:
            blocks[-1] = replace(blocks[-1], printed=source)
        previous = language
    return blocks


BLOCKS: Final = [block for page in PAGES for block in blocks_of(page)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.id)
def test_the_code_runs_and_prints_what_the_page_shows(
    block: Block, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("doc examples", 1)
    if block.file is None:
        assert block.language == "python"
        assert "def test_" not in block.source, "a test file begins with its name, and is run by pytest then"
        assert run_python("-c", block.source) == block.printed
        return
    for each in blocks_of(block.page)[: block.number]:
        if each.file is not None:
            (tmp_path / each.file).write_text(each.source, "utf-8")
    path = tmp_path / block.file
    if block.language == "toml":
        assert tomllib.loads(block.source)
    elif path.name.startswith("test_"):
        # Which pages that are about something else than fixtures do not repeat.
        settings = (
            [] if (tmp_path / "pyproject.toml").exists() else ["-o", "asyncio_default_fixture_loop_scope=function"]
        )
        output = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, *settings, path)
        assert re.sub(r" in [0-9.]+s$", "", output.splitlines()[-1]) == block.printed.rstrip("\n")
    else:
        assert run_python(path) == block.printed


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_no_code_that_nobody_runs(page: Path) -> None:
    assert {language for language, _, _ in fences_of(page)} <= RUN | SHOWN


def test_the_readme_shows_what_its_code_prints() -> None:
    assert BLOCKS[0].id == "README.md-1"
    assert BLOCKS[0].printed


def test_the_readme_has_two_commands_of_one_line_each() -> None:
    example, tests = [source for language, source, _ in fences_of(README) if language == "sh"]
    assert example.count("\n") == 1
    assert example.endswith("examples/microservices.py\n")
    assert tests.count("\n") == 1
    assert "pytest" in tests


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#\s]+)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).is_file()] == []


def contents_of(page: Path) -> list[Path]:
    """The pages that the tables of contents on *page* name, in their order."""
    tables = "".join(source for language, source, _ in fences_of(page) if language == "{toctree}")
    return [page.parent / f"{name}.md" for name in re.findall(r"^([a-z0-9/-]+)$", tables, re.MULTILINE)]


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
