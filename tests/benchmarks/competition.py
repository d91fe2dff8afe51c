"""All entrants of a scenario take turns, in rounds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from statistics import median

from .contenders import Stage
from .results import Row, Table
from .scenarios import Entrant, Scenario
from .sizes import Sizes


@dataclass
class Costs:
    """The costs of one entrant in one scenario, one for each round."""

    name: str
    entrant: Entrant
    rounds: list[float] = field(default_factory=list)

    def ratios(self, baseline: "Costs") -> list[float]:
        return [cost / base for cost, base in zip(self.rounds, baseline.rounds, strict=True)]


async def compete(scenario: Scenario, entrants: Sequence[str], stage: Stage, rounds: int) -> Table:
    results = [Costs(name, scenario.entrants[name]) for name in entrants]
    for number in range(rounds):
        # Back and forth, so that no entrant always follows the same one.
        for result in results if number % 2 == 0 else reversed(results):
            result.rounds.append(await result.entrant.measure(stage))
    baseline = next(iter(scenario.entrants))
    first = next((costs for costs in results if costs.name == baseline), None)
    return Table(
        title=scenario.title(stage.sizes),
        unit=scenario.unit,
        is_absolute=scenario.is_absolute,
        baseline=baseline,
        rounds=rounds,
        date=date.today().isoformat(),
        rows=[_row(costs, first, scenario, stage.sizes) for costs in results],
    )


def _row(costs: Costs, first: Costs | None, scenario: Scenario, sizes: Sizes) -> Row:
    ratios = [] if first is None else [round(ratio, 3) for ratio in costs.ratios(first)]
    return Row(
        name=costs.name,
        title=costs.entrant.title,
        cost=scenario.show(median(costs.rounds), sizes),
        ratio=round(median(ratios), 3) if ratios else None,
        lowest=min(ratios, default=None),
        highest=max(ratios, default=None),
    )


def printed(table: Table) -> str:
    lines = [f"| | {table.unit} | cost / {table.baseline} | from ... to |", "|---|---:|---:|---:|"]
    for row in table.rows:
        ratios = ["-", "-"] if row.ratio is None else [f"{row.ratio:.3f}", f"{row.lowest:.3f} ... {row.highest:.3f}"]
        lines.append(f"| {' | '.join([row.title, row.cost, *ratios])} |")
    return "\n".join(lines)
