"""The scenarios. The result is always a cost: less is better."""

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter

from aiohttp.client_proto import ResponseHandler

from .contenders import Client, Contender, Sizes, Stage, check


@dataclass(frozen=True, kw_only=True)
class Scenario:
    title: Callable[[Sizes], str]
    contenders: tuple[str, ...]
    """The names of the contenders that can run it. The others are compared with the first."""
    measure: Callable[[Contender, Stage], Awaitable[float]]
    unit: str
    show: Callable[[float, Sizes], str]
    """A cost, in the unit."""


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


async def download(contender: Contender, stage: Stage) -> float:
    async with contender.connect(stage) as client:
        await client.download(1)
        gc.collect()
        started = perf_counter()
        await client.download(stage.sizes.mib)
        return perf_counter() - started


async def upload(contender: Contender, stage: Stage) -> float:
    async with contender.connect(stage) as client:
        await client.upload(1)
        gc.collect()
        started = perf_counter()
        await client.upload(stage.sizes.mib)
        return perf_counter() - started


async def echoes(contender: Contender, stage: Stage) -> float:
    messages = stage.sizes.requests
    async with contender.connect(stage) as client:
        await client.echo(max(1, messages // 10))
        gc.collect()
        started = perf_counter()
        await client.echo(messages)
        return (perf_counter() - started) / messages


async def idle_memory(contender: Contender, stage: Stage) -> float:
    """The memory in use after as many concurrent requests, when all their connections are in the pool."""
    connections = stage.sizes.connections
    async with contender.connect(stage) as client:
        await client.get()
        gc.collect()
        tracemalloc.start()
        try:
            # Each of them connects before the first response.
            await asyncio.gather(*(client.get() for _ in range(connections)))
            gc.collect()
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        check(sum(isinstance(found, ResponseHandler) for found in gc.get_objects()), connections)
        return size


def microseconds(cost: float, sizes: Sizes) -> str:
    return f"{cost * 1e6:.1f}"


def mib_per_second(cost: float, sizes: Sizes) -> str:
    return f"{sizes.mib / cost:.0f}"


def mib(cost: float, sizes: Sizes) -> str:
    return f"{cost / 2**20:.2f}"


_ALL = ("floor", "ours", "predecessor", "httpx2", "httpx", "uvicorn")

SCENARIOS = {
    "get": Scenario(
        title=lambda sizes: f"{sizes.requests:,} small GETs, one after another",
        contenders=_ALL,
        measure=sequential_gets,
        unit="µs a request",
        show=microseconds,
    ),
    "concurrent": Scenario(
        title=lambda sizes: f"{sizes.requests:,} small GETs, {sizes.concurrency} at a time",
        contenders=_ALL,
        measure=concurrent_gets,
        unit="µs a request",
        show=microseconds,
    ),
    "download": Scenario(
        title=lambda sizes: f"{sizes.mib:,} MiB streamed down in chunks of 64 KiB",
        contenders=("uvicorn", "ours", "predecessor", "httpx2", "httpx"),
        measure=download,
        unit="MiB/s",
        show=mib_per_second,
    ),
    "upload": Scenario(
        title=lambda sizes: f"{sizes.mib:,} MiB streamed up in chunks of 64 KiB",
        contenders=("uvicorn", "ours", "httpx2", "httpx"),  # aiohttp-asgi-connector garbles a chunked upload
        measure=upload,
        unit="MiB/s",
        show=mib_per_second,
    ),
    "echo": Scenario(
        title=lambda sizes: f"{sizes.requests:,} small messages to and fro over a WebSocket, one after another",
        contenders=("uvicorn", "ours"),
        measure=echoes,
        unit="µs a round trip",
        show=microseconds,
    ),
    "mounts": Scenario(
        title=lambda sizes: f"{sizes.requests:,} small GETs, with 1 mount and with {sizes.mounts:,}",
        contenders=("ours", "crowded"),
        measure=sequential_gets,
        unit="µs a request",
        show=microseconds,
    ),
    "recording": Scenario(
        title=lambda sizes: f"{sizes.requests:,} small GETs, recorded and not",
        contenders=("ours", "recorded", "recorded-whole"),
        measure=sequential_gets,
        unit="µs a request",
        show=microseconds,
    ),
    "intercept": Scenario(
        title=lambda sizes: f"{sizes.requests:,} small GETs, through a session with the connector and a plain session",
        contenders=("ours", "intercepted"),
        measure=sequential_gets,
        unit="µs a request",
        show=microseconds,
    ),
    "memory": Scenario(
        title=lambda sizes: f"Memory of a pool of {sizes.connections:,} idle connections",
        contenders=("floor", "ours"),
        measure=idle_memory,
        unit="MiB",
        show=mib,
    ),
}
