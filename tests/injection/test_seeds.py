"""The same seed gives the same journal and the same diagram: which fault affected which request, in the same order."""

import asyncio
import json

import pytest

from tests.conftest import LOOPS
from tests.support.programs import run_python
from tests.support.shaken import BY_CHANCE, IN_VIRTUAL_TIME, OTHERS, LoopFactory, Scenario, run, run_all, virtual_time

SEED = 8


def name_of(scenario: object) -> str:
    return getattr(scenario, "__name__", str(scenario)).replace("_", " ")


CASES = [
    *(
        pytest.param(scenario, loop, id=f"{name_of(scenario)}, {name}")
        for scenario in [*BY_CHANCE, *OTHERS]
        for name, loop in LOOPS.items()
    ),
    *(pytest.param(scenario, virtual_time, id=name_of(scenario)) for scenario in IN_VIRTUAL_TIME),
]


@pytest.mark.parametrize(("scenario", "loop"), CASES)
def test_the_same_seed_gives_the_same_journal_in_one_process(scenario: Scenario, loop: LoopFactory) -> None:
    assert run(scenario, SEED, loop) == run(scenario, SEED, loop)


@pytest.mark.programs
def test_the_same_seed_gives_the_same_journal_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for hash_seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
        told.append(json.loads(run_python("-m", "tests.support.shaken", str(SEED))))
    assert told[0] == told[1]
    assert told[0] == run_all(SEED)


@pytest.mark.parametrize("scenario", [*BY_CHANCE, *IN_VIRTUAL_TIME], ids=name_of)
def test_another_seed_gives_another_journal(scenario: Scenario) -> None:
    loop = virtual_time if scenario in IN_VIRTUAL_TIME else asyncio.new_event_loop
    assert len({run(scenario, seed, loop) for seed in range(3)}) == 3
