"""The measured parts of docs/benchmarks.md, each between ``<!-- measured: NAME -->`` and ``<!-- end -->``."""

import re
from collections.abc import Iterable, Sequence

from tests.support.programs import ROOT

from .results import Results, Row, Table

PAGE = ROOT / "docs" / "benchmarks.md"
OURS = "ours"
WITHOUT_AN_APP = "floor"
NOT_MEASURED = "Not measured."
_BLOCK = re.compile(r"(?P<begin><!-- measured: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def write_page(results: Sequence[Results]) -> None:
    PAGE.write_text(filled(PAGE.read_text("utf-8"), results), "utf-8")


def filled(page: str, results: Sequence[Results]) -> str:
    """Return the page with what was measured."""

    def fill(block: re.Match[str]) -> str:
        return f"{block['begin']}\n{measured(block['name'], results)}\n\n{block['end']}"

    return _BLOCK.sub(fill, page)


def names_of_blocks(page: str) -> list[str]:
    return [block["name"] for block in _BLOCK.finditer(page)]


def measured(name: str, results: Sequence[Results]) -> str:
    """Return the block of this name: a list about all runs, or the table of a scenario."""
    if name == "runs":
        return describe_runs(results)
    if name == "ahead":
        return "\n".join(line for each in results if (line := describe_who_is_ahead(each)))
    return table_of(name, [each for each in results if name in each.tables])


def title_of(results: Results) -> str:
    loop = "" if results.setup.loop == "asyncio" else f", {results.setup.loop}"
    return f"CPython {results.setup.python}{loop}"


def describe_runs(results: Sequence[Results]) -> str:
    lines = [f"- {title_of(each)}: {each.setup.build}; {describe_rounds(each)}." for each in results]
    settings = list(dict.fromkeys(f"on {each.setup.machine}, with {each.setup.packages}" for each in results))
    return "\n".join([*lines, "", f"{'All' if len(settings) == 1 else 'Measured'} {'; or '.join(settings)}."])


def describe_rounds(results: Results) -> str:
    """Return how often and when the tables were measured."""
    tables = results.tables.values()
    rounds, dates = {table.rounds for table in tables}, {table.date for table in tables}
    return f"{_from_to(map(str, sorted(rounds)))} rounds on {_from_to(sorted(dates))}"


def _from_to(values: Iterable[str]) -> str:
    first, *others = values
    return f"{first} to {others[-1]}" if others else first


def table_of(name: str, results: Sequence[Results]) -> str:
    if not results:
        return NOT_MEASURED
    first = results[0].tables[name]
    rows = {row.name: row for each in results for row in each.tables[name].rows}
    lines = [
        f"| {first.title} | {' | '.join(title_of(each) for each in results)} |",
        f"|---|{'---:|' * len(results)}",
    ]
    for row in rows.values():
        cells = [cell_of(row.name, each.tables[name]) for each in results]
        lines.append(f"| {' | '.join([shown_title(row), *cells])} |")
    return "\n".join(lines)


def cell_of(name: str, table: Table) -> str:
    row = next((row for row in table.rows if row.name == name), None)
    if row is None:
        return "-"
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    if table.is_absolute:
        ratio += f" ({row.cost} {table.unit})"
    return f"**{ratio}**" if name == OURS else ratio


def shown_title(row: Row) -> str:
    return f"**{row.title}**" if row.name == OURS else row.title


def describe_who_is_ahead(results: Results) -> str:
    """Return who is ahead with small requests, or nothing if that was not measured."""
    ways = {"one after another": "get", "many at a time": "concurrent"}
    found = {way: _ahead(results.tables[name]) for way, name in ways.items() if name in results.tables}
    said = "; ".join(f"{way}, {line}" for way, line in found.items() if line)
    return f"- {title_of(results)} ({results.setup.build}): {said}." if said else ""


def _ahead(table: Table) -> str:
    """Compare this package with the fastest other that runs the app."""
    ratios = {row.name: row for row in table.rows if row.ratio is not None and row.name != WITHOUT_AN_APP}
    ours = ratios.pop(OURS, None)
    other = min(ratios.values(), key=_ratio, default=None)
    if ours is None or other is None:
        return ""
    first, second = sorted([ours, other], key=_ratio)
    difference = round((_ratio(second) / _ratio(first) - 1) * 100)
    if difference < 2:
        return f"{first.title} and {second.title} are equally fast"
    return f"{first.title} is ahead of {second.title}, which takes {difference} % longer"


def _ratio(row: Row) -> float:
    assert row.ratio is not None
    return row.ratio
