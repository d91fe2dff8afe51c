"""The command: which scenarios and entrants, the sizes, and the tables of results."""

import argparse
import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from .competition import compete, printed
from .contenders import Stage
from .machine import describe_build, describe_machine, describe_packages, python_version
from .page import PAGE, write_page
from .results import LossError, Results, Setup, check_that_nothing_is_lost, load_all, save
from .scenarios import SCENARIOS, Entrant, Scenario
from .server import running_server
from .sizes import FULL, QUICK, Sizes

ENTRANTS: dict[str, Entrant] = {
    name: entrant for scenario in SCENARIOS.values() for name, entrant in scenario.entrants.items()
}


@dataclass(frozen=True)
class Plan:
    scenarios: Mapping[str, Scenario]
    entrants: Sequence[str]
    rounds: int
    sizes: Sizes
    loop: str
    saves: bool

    def entrants_of(self, scenario: Scenario) -> list[str]:
        return [name for name in scenario.entrants if name in self.entrants]

    def used(self) -> dict[str, Entrant]:
        """The entrants of all scenarios of this run."""
        return {name: ENTRANTS[name] for scenario in self.scenarios.values() for name in self.entrants_of(scenario)}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.page:
        write_page(load_all())
        return
    plan = without_missing(plan_of(options))
    setup = setup_of(plan)
    if plan.saves:
        try:
            check_that_nothing_is_lost(setup, {name: plan.entrants_of(each) for name, each in plan.scenarios.items()})
        except LossError as error:
            parser().error(str(error))
    print(describe(setup, plan.rounds))
    with asyncio.Runner(loop_factory=loop_factories()[plan.loop]) as runner:
        runner.run(run(plan, setup))
    if plan.saves:
        write_page(load_all())


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated")
    parser.add_argument("--contender", action="append", choices=ENTRANTS, help="only this one; may be repeated")
    parser.add_argument("--loop", choices=loop_factories(), default="asyncio", help="for all, uvicorn included")
    parser.add_argument("--quick", action="store_true", help="see that it works: the numbers mean nothing")
    parser.add_argument("--save", action="store_true", help="keep the results in tests/benchmarks/results, and --page")
    parser.add_argument("--page", action="store_true", help=f"measure nothing, write the results into {PAGE.name}")
    parser.add_argument("--rounds", type=positive, help="in which the contenders take turns (21)")
    for name in Sizes.__dataclass_fields__:
        parser.add_argument(f"--{name.replace('_', '-')}", type=positive, help=f"({getattr(FULL, name)})")
    return parser


def plan_of(options: argparse.Namespace) -> Plan:
    default = QUICK if options.quick else FULL
    sizes = {name: getattr(options, name) or getattr(default, name) for name in Sizes.__dataclass_fields__}
    return Plan(
        scenarios={name: SCENARIOS[name] for name in options.scenario or SCENARIOS},
        entrants=options.contender or list(ENTRANTS),
        rounds=options.rounds or (2 if options.quick else 21),
        sizes=Sizes(**sizes),
        loop=options.loop,
        saves=options.save,
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


def without_missing(plan: Plan) -> Plan:
    missing = {name: entrant.missing for name, entrant in plan.used().items() if entrant.missing}
    for name, distributions in missing.items():
        print(f"Skipped: {ENTRANTS[name].title}, for want of {' and '.join(distributions)}", flush=True)
    return replace(plan, entrants=[name for name in plan.entrants if name not in missing])


def setup_of(plan: Plan) -> Setup:
    distributions = {name for entrant in ENTRANTS.values() if not entrant.missing for name in entrant.distributions}
    return Setup(
        python=python_version(),
        build=describe_build(),
        machine=describe_machine(),
        loop=plan.loop,
        packages=describe_packages({"aiohttp", *distributions, *({"uvloop"} & {plan.loop})}),
        sizes=asdict(plan.sizes),
    )


def describe(setup: Setup, rounds: int) -> str:
    return f"CPython {setup.python}, {setup.build}; {setup.machine}; {setup.loop}, {setup.packages}; rounds: {rounds}"


async def run(plan: Plan, setup: Setup) -> None:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        needs_server = any(entrant.needs_server for entrant in plan.used().values())
        url = await stack.enter_async_context(running_server(plan.loop)) if needs_server else None
        stage = Stage(sizes=plan.sizes, directory=directory, server_url=url)
        for name, scenario in plan.scenarios.items():
            if entrants := plan.entrants_of(scenario):
                table = await compete(scenario, entrants, stage, plan.rounds)
                print(f"\n### {table.title}\n\n{printed(table)}", flush=True)
                if plan.saves:  # at once, as a run takes long
                    results = Results(setup=setup, tables={name: table})
                    print(f"\nSaved in {save(results)}", flush=True)


if __name__ == "__main__":
    main()
