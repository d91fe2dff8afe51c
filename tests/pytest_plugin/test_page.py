"""The README and the page about the plugin show what it prints."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, README, blocks_of, fences_of
from tests.docs.pictures import FAILING, failing_test
from tests.pytest_plugin.conftest import Run
from tests.support.pytest_runs import ONLY_NEEDED, outcome_of

PAGE = DOCS / "howto" / "pytest.md"


def section_on(page: Path) -> str:
    """The section that *page* shows, as if all calls had taken no time."""
    [shown] = [fence.source for fence in fences_of(page) if "who called whom" in fence.source]
    return re.sub(r"\bin \d+ ms", "in 0 s", shown).partition("\n")[2]


def test_the_section_on_the_page_is_the_one_that_is_printed(run: Run, pytester: pytest.Pytester) -> None:
    sources = {block.file: block.source for block in blocks_of(PAGE)}
    pytester.path.joinpath("shop.py").write_text(sources["shop.py"], "utf-8")
    [section] = run(sources["failing_orders.py"]).sections
    assert section_on(PAGE) == section


@pytest.mark.usefixtures("run")
def test_the_section_on_the_readme_is_the_one_that_is_printed(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath(FAILING).write_text(failing_test().source, "utf-8")
    settings = ("-o", "asyncio_default_fixture_loop_scope=function")
    outcome = outcome_of(pytester.runpytest_inprocess(*ONLY_NEEDED, *settings, FAILING))
    assert outcome.counts == {"failed": 1}
    assert outcome.sections == [section_on(README)]
