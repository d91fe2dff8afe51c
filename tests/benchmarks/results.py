"""The results of a run, and the files that keep them: one for each Python and event loop."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One entrant of a scenario. All numbers are medians of the rounds, and their range."""

    name: str
    title: str
    cost: str
    ratio: float | None  # to the first entrant's; none if it was not measured
    lowest: float | None
    highest: float | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """The results of one scenario."""

    title: str
    unit: str
    is_absolute: bool
    baseline: str
    rows: list[Row]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What must be equal, so that two runs are one."""

    python: str
    build: str
    machine: str
    loop: str
    packages: str
    rounds: int
    sizes: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Results:
    setup: Setup
    date: str
    tables: dict[str, Table] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return DIRECTORY / f"cpython-{self.setup.python}-{self.setup.loop}.json"


def save(results: Results) -> Path:
    """Write the results. Scenarios that were measured earlier in the same setup are kept."""
    path = results.path
    if path.exists() and (earlier := load(path)).setup == results.setup:
        results = replace(results, tables={**earlier.tables, **results.tables})
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(asdict(results), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


def load(path: Path) -> Results:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return Results(
        setup=Setup(**found["setup"]),
        date=found["date"],
        tables={name: _table(table) for name, table in found["tables"].items()},
    )


def _table(found: dict[str, Any]) -> Table:
    return Table(**{**found, "rows": [Row(**row) for row in found["rows"]]})


def load_all() -> list[Results]:
    """All results, by the version of Python."""
    return sorted((load(path) for path in DIRECTORY.glob("*.json")), key=_order)


def _order(results: Results) -> tuple[list[int], str, str]:
    numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in results.setup.python.split(".")]
    return numbers, results.setup.python, results.setup.loop
