"""The pages of the documentation, and the blocks of code on them."""

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sybil import Document
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from tests.support.programs import ROOT

README: Final = ROOT / "README.md"
DOCS: Final = ROOT / "docs"
PAGES: Final = [README, *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]

RUN: Final = {"python", "toml"}
SHOWN: Final = {"text", "sh", "yaml", "{toctree}", "{eval-rst}"}
"""What does not run here: output, pictures, what is typed into a shell, and what Sphinx and a CI service are told."""

_LEXER: Final = FencedCodeBlockLexer(r"[^\n]*")
_FILE: Final = re.compile(r"# ([a-z_]+\.(?:py|toml))\n")


def name_of(page: Path) -> str:
    return page.relative_to(DOCS if DOCS in page.parents else ROOT).as_posix()


@dataclass(frozen=True)
class Fence:
    """A fenced block on a page."""

    language: str
    source: str
    line: int
    """The line of the page on which the source begins."""
    follows: bool
    """Whether it comes right below the fenced block before it."""


@dataclass(frozen=True)
class Block:
    """A block of code on a page, and what stands in the block of text right below it."""

    page: Path
    number: int
    language: str
    source: str
    line: int
    printed: str

    @property
    def file(self) -> str | None:
        match = _FILE.match(self.source)
        return match and match[1]

    @property
    def id(self) -> str:
        return f"{name_of(self.page)}-{self.number}"


@functools.cache
def fences_of(page: Path) -> list[Fence]:
    found: list[Fence] = []
    end = 0
    document = Document(page.read_text("utf-8"), str(page))
    for region in _LEXER(document):
        follows = bool(found) and not document.text[end : region.start].strip()
        line = document.text.count("\n", 0, region.start) + 2
        found.append(Fence(region.lexemes["language"], str(region.lexemes["source"]), line, follows))
        end = region.end
    return found


def blocks_of(page: Path) -> list[Block]:
    """The blocks of *page* that run."""
    blocks: list[Block] = []
    previous = ""
    for fence in fences_of(page):
        if fence.language in RUN:
            blocks.append(Block(page, len(blocks) + 1, fence.language, fence.source, fence.line, ""))
        elif fence.language == "text" and fence.follows and previous in RUN:
            blocks[-1] = replace(blocks[-1], printed=fence.source)
        previous = fence.language
    return blocks


def contents_of(page: Path) -> list[Path]:
    """The pages that the tables of contents on *page* name, in their order."""
    tables = "".join(fence.source for fence in fences_of(page) if fence.language == "{toctree}")
    return [page.parent / f"{name}.md" for name in re.findall(r"^([a-z0-9/-]+)$", tables, re.MULTILINE)]
