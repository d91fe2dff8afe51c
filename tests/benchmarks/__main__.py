"""The command: which scenarios and contenders, the sizes, and the tables of results."""

import argparse
import asyncio
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from statistics import median

from .contenders import CONTENDERS, Contender, Sizes, Stage
from .scenarios import SCENARIOS, Scenario
from .server import running_server

FULL = Sizes(requests=1000, concurrency=50, mib=256, mounts=10_000, connections=1000)
QUICK = Sizes(requests=20, concurrency=5, mib=2, mounts=100, connections=20)


@dataclass(frozen=True)
class Plan:
    scenarios: Mapping[str, Scenario]
    contenders: Mapping[str, Contender]
    rounds: int
    sizes: Sizes
    loop: str


@dataclass
class Costs:
    """The times of one contender in one scenario, one for each round."""

    contender: Contender
    rounds: list[float] = field(default_factory=list)

    def ratios(self, baseline: "Costs") -> list[float]:
        return [cost / base for cost, base in zip(self.rounds, baseline.rounds, strict=True)]


def main(arguments: Sequence[str] | None = None) -> None:
    plan = read_plan(arguments)
    print(describe(plan))
    plan = without_missing(plan)
    with asyncio.Runner(loop_factory=loop_factories()[plan.loop]) as runner:
        runner.run(run(plan))


def read_plan(arguments: Sequence[str] | None) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated")
    parser.add_argument("--contender", action="append", choices=CONTENDERS, help="only this one; may be repeated")
    parser.add_argument("--loop", choices=loop_factories(), default="asyncio", help="for all, uvicorn included")
    parser.add_argument("--quick", action="store_true", help="see that it works: the numbers mean nothing")
    parser.add_argument("--rounds", type=positive, help="in which the contenders take turns (21)")
    for name in Sizes.__dataclass_fields__:
        parser.add_argument(f"--{name}", type=positive, help=f"({getattr(FULL, name)})")
    options = parser.parse_args(arguments)
    default = QUICK if options.quick else FULL
    sizes = {name: getattr(options, name) or getattr(default, name) for name in Sizes.__dataclass_fields__}
    return Plan(
        scenarios={name: SCENARIOS[name] for name in options.scenario or SCENARIOS},
        contenders={name: CONTENDERS[name] for name in options.contender or CONTENDERS},
        rounds=options.rounds or (2 if options.quick else 21),
        sizes=Sizes(**sizes),
        loop=options.loop,
    )


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories = {"asyncio": asyncio.new_event_loop}
    if find_spec("uvloop"):
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


def describe(plan: Plan) -> str:
    distributions = ["aiohttp", *(name for c in plan.contenders.values() for name in c.distributions if not c.missing)]
    if plan.loop == "uvloop":
        distributions.append("uvloop")
    versions = ", ".join(f"{name} {version(name)}" for name in dict.fromkeys(distributions))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return f"{python} on {machine}; {plan.loop}, {versions}; rounds: {plan.rounds}"


def without_missing(plan: Plan) -> Plan:
    for contender in plan.contenders.values():
        if contender.missing:
            print(f"Skipped: {contender.title}, for want of {' and '.join(contender.missing)}", flush=True)
    return replace(plan, contenders={name: found for name, found in plan.contenders.items() if not found.missing})


async def run(plan: Plan) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(running_server(plan.loop)) if "uvicorn" in plan.contenders else None
        stage = Stage(sizes=plan.sizes, server_url=url)
        for scenario in plan.scenarios.values():
            entrants = [plan.contenders[name] for name in scenario.contenders if name in plan.contenders]
            print(f"\n### {scenario.title(plan.sizes)}\n", flush=True)
            print(table(scenario, await compete(scenario, entrants, stage, plan.rounds), plan.sizes), flush=True)


async def compete(scenario: Scenario, entrants: Sequence[Contender], stage: Stage, rounds: int) -> list[Costs]:
    results = [Costs(contender) for contender in entrants]
    for number in range(rounds):
        # Back and forth, so that no contender always follows the same one.
        for result in results if number % 2 == 0 else reversed(results):
            result.rounds.append(await scenario.measure(result.contender, stage))
    return results


def table(scenario: Scenario, results: Sequence[Costs], sizes: Sizes) -> str:
    first = scenario.contenders[0]
    baseline = next((costs for costs in results if costs.contender is CONTENDERS[first]), None)
    lines = [f"| | {scenario.unit} | cost / {first} | from ... to |", "|---|---:|---:|---:|"]
    for costs in results:
        cells = [costs.contender.title, scenario.show(median(costs.rounds), sizes)]
        if baseline is None:
            cells += ["-", "-"]
        else:
            ratios = costs.ratios(baseline)
            cells += [f"{median(ratios):.3f}", f"{min(ratios):.3f} ... {max(ratios):.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
