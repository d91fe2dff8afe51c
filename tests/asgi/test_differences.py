"""The table of differences, and the page that shows it."""

import inspect
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from tests.asgi import test_parity, test_websocket
from tests.support.differences import DIFFERENCES, SAME, page_table, topics
from tests.support.servers import HTTP_WAYS, IN_PROCESS, WEBSOCKET_WAYS

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "parity.md"
WAYS: Final[dict[ModuleType, tuple[str, ...]]] = {test_parity: HTTP_WAYS, test_websocket: WEBSOCKET_WAYS}


def test_the_page_has_the_table() -> None:
    assert page_table() in PAGE.read_text(), "put the output of `python -m tests.support.differences` there"


def test_the_page_has_no_other_table() -> None:
    rows = [line for line in PAGE.read_text().splitlines(keepends=True) if line.startswith("|")]
    assert "".join(rows) == page_table()


def test_the_tests_have_different_names() -> None:
    names = [{name for name in vars(module) if name.startswith("test_")} for module in WAYS]
    assert not set.intersection(*names)


@pytest.mark.parametrize("row", sorted({f"{way}; {test.partition(': ')[0]}" for way, test in DIFFERENCES}))
def test_a_row_is_of_a_test_that_runs_that_way_and_asks_for_what_is_expected(row: str) -> None:
    way, _, test = row.partition("; ")
    [module] = [module for module in WAYS if hasattr(module, test)]
    assert way in WAYS[module]
    assert way != IN_PROCESS
    assert "expected(" in inspect.getsource(getattr(module, test))


@pytest.mark.parametrize("topic", topics(), ids=lambda topic: topic.behaviour)
def test_a_topic_names_the_servers_that_have_a_row(topic: tuple[str, ...]) -> None:
    assert all(topic)
    servers = {way.partition(" ")[0] for (way, _), row in DIFFERENCES.items() if row.topic == topic}
    _, here, uvicorn, hypercorn, _ = topic
    assert here != SAME
    assert {name for name, cell in (("uvicorn", uvicorn), ("hypercorn", hypercorn)) if cell != SAME} == servers
    assert not any("|" in cell or "\n" in cell for cell in topic)
