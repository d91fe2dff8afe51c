"""Small requests: one after another, many at the same time, with what a connector can be asked to do meanwhile."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

from tests.benchmarks.clients import Client
from tests.benchmarks.contenders import Contender, Stage
from tests.benchmarks.sizes import Sizes

from .scenario import Scenario, contenders, microseconds


async def warm_up(client: Client, sizes: Sizes) -> None:
    for _ in range(max(1, sizes.requests // 10)):
        await client.get()
    gc.collect()  # no contender pays for the garbage of the one before


async def sequential_gets(contender: Contender, stage: Stage) -> float:
    requests = stage.sizes.requests
    async with contender.connect(stage) as client:
        await warm_up(client, stage.sizes)
        started = perf_counter()
        for _ in range(requests):
            await client.get()
        return (perf_counter() - started) / requests


async def concurrent_gets(contender: Contender, stage: Stage) -> float:
    requests = range(stage.sizes.requests)
    to_do = iter(requests)
    async with contender.connect(stage) as client:

        async def get_until_all_are_done() -> None:
            for _ in to_do:
                await client.get()

        await warm_up(client, stage.sizes)
        started = perf_counter()
        await asyncio.gather(*(get_until_all_are_done() for _ in range(stage.sizes.concurrency)))
        return (perf_counter() - started) / len(requests)


async def gets_at_once(contender: Contender, stage: Stage) -> float:
    requests = stage.sizes.at_once
    async with contender.connect(stage) as client:
        await warm_up(client, stage.sizes)
        started = perf_counter()
        await asyncio.gather(*(client.get() for _ in range(requests)))
        return (perf_counter() - started) / requests


def gets(
    title: Callable[[Sizes], str], measure: Callable[[Contender, Stage], Awaitable[float]], *names: str
) -> Scenario:
    return Scenario(title=title, entrants=contenders(measure, *names), unit="µs a request", show=microseconds)


ALL: Final = ("floor", "ours", "httpx2", "httpx2-without-sniffio", "httpx", "predecessor", "uvicorn")

SCENARIOS = {
    "get": gets(
        lambda sizes: f"{sizes.requests:,} small GETs, one after another",
        sequential_gets,
        *ALL,
    ),
    "concurrent": gets(
        lambda sizes: f"{sizes.requests:,} small GETs, {sizes.concurrency} at a time",
        concurrent_gets,
        *ALL,
    ),
    "at-once": gets(
        lambda sizes: f"{sizes.at_once:,} small GETs, all at the same time, without limit",
        gets_at_once,
        "floor",
        "ours",
        "httpx2",
        "uvicorn",
    ),
    "new-connection": gets(
        lambda sizes: f"{sizes.requests:,} small GETs, each the first on a new connection",
        sequential_gets,
        "floor-anew",
        "ours-anew",
        "uvicorn-anew",
    ),
    "mounts": gets(
        lambda sizes: f"{sizes.requests:,} small GETs, with 1 mount and with {sizes.mounts:,}",
        sequential_gets,
        "ours",
        "crowded",
    ),
    "recording": gets(
        lambda sizes: f"{sizes.requests:,} small GETs, recorded and not",
        sequential_gets,
        "ours",
        "recorded",
        "recorded-whole",
    ),
    "inject": gets(
        lambda sizes: f"{sizes.requests:,} small GETs, in the block of a fault that affects none of them",
        sequential_gets,
        "ours",
        "fault-elsewhere",
        "fault-on-another-path",
    ),
    "intercept": gets(
        lambda sizes: f"{sizes.requests:,} small GETs, through a session with the connector and a plain session",
        sequential_gets,
        "ours",
        "intercepted",
    ),
}
