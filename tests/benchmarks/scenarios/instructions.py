"""The number of bytecode instructions of a request. It is the same on a busy machine, and it leaves C code out."""

import asyncio
import sys
from types import FrameType
from typing import Any

from tests.benchmarks.contenders import Contender, Stage
from tests.benchmarks.sizes import Sizes

from .requests import warm_up
from .scenario import Scenario, contenders

REQUESTS = 20  # tracing makes them slow, and all are alike


class Counter:
    """Counts what runs in frames that begin while it is the trace function."""

    def __init__(self) -> None:
        self.instructions = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self.instructions += event == "opcode"
        return self


async def instructions(contender: Contender, stage: Stage) -> float:
    async with contender.connect(stage) as client:
        await warm_up(client, stage.sizes)

        async def run() -> None:
            for _ in range(REQUESTS):
                await client.get()

        counter, before = Counter(), sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # CPython 3.12 traces opcodes only if a frame wants it at settrace()
        sys.settrace(counter)
        try:
            await asyncio.get_running_loop().create_task(run())
        finally:
            sys.settrace(before)
        return counter.instructions / REQUESTS


def whole(cost: float, sizes: Sizes) -> str:
    return f"{cost:.0f}"


SCENARIOS = {
    "instructions": Scenario(
        title=lambda sizes: "Bytecode instructions of a small GET",
        entrants=contenders(
            instructions,
            "floor",
            "ours",
            "recorded",
            "recorded-whole",
            "fault-elsewhere",
            "fault-on-another-path",
            "intercepted",
            "httpx2",
            "httpx2-without-sniffio",
            "httpx",
            "floor-anew",
            "ours-anew",
        ),
        unit="instructions",
        show=whole,
        is_absolute=True,
    ),
}
