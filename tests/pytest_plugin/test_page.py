"""The page about the plugin shows what it prints."""

import re

import pytest

from tests.docs.pages import DOCS, blocks_of, fences_of
from tests.pytest_plugin.conftest import Run

PAGE = DOCS / "howto" / "pytest.md"


def test_the_section_on_the_page_is_the_one_that_is_printed(run: Run, pytester: pytest.Pytester) -> None:
    sources = {block.file: block.source for block in blocks_of(PAGE)}
    pytester.path.joinpath("shop.py").write_text(sources["shop.py"], "utf-8")
    [section] = run(sources["failing_orders.py"]).sections
    [shown] = [fence.source for fence in fences_of(PAGE) if "who called whom" in fence.source]
    assert re.sub(r"\bin \d+ ms", "in 0 s", shown).partition("\n")[2] == section
