"""The results of a run, and the files that keep them: one for each Python and event loop."""

import json
from collections.abc import Collection, Mapping
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
    rounds: int
    date: str
    rows: list[Row]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What must be equal, so that the tables of two runs may stand in one column."""

    python: str
    build: str
    machine: str
    loop: str
    packages: str
    sizes: Mapping[str, int]

    def describe_other(self, other: "Setup") -> str:
        """Say what the other has that this has not, or nothing if both are equal."""
        ours, others = asdict(self), asdict(other)
        different = [f"{name} {others[name]!r}, not {ours[name]!r}" for name in ours if ours[name] != others[name]]
        return f" (another setup: {'; '.join(different)})" if different else ""


@dataclass(frozen=True)
class Results:
    setup: Setup
    tables: dict[str, Table] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return DIRECTORY / f"cpython-{self.setup.python}-{self.setup.loop}.json"


class LossError(Exception):
    """To save a run would lose results that it does not measure again."""


def check_that_nothing_is_lost(setup: Setup, measured: Mapping[str, Collection[str]]) -> None:
    """Raise `LossError` if the file has results that a run of this setup would remove, and not replace.

    Args:
        setup: The setup of the run.
        measured: The entrants of each scenario that the run measures.
    """
    path = Results(setup).path
    if not path.exists():
        return
    earlier = load(path)
    lost = [] if earlier.setup == setup else [name for name in earlier.tables if name not in measured]
    for name, entrants in measured.items():
        rows = earlier.tables[name].rows if name in earlier.tables else []
        lost += [f"{row.name} in {name}" for row in rows if row.name not in entrants]
    if lost:
        raise LossError(
            f"To save this run would lose {', '.join(lost)} in {path.name}{setup.describe_other(earlier.setup)}. "
            "Measure these too, or delete the file."
        )


def save(results: Results) -> Path:
    """Write the results. Tables that were measured earlier in the same setup are kept."""
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
