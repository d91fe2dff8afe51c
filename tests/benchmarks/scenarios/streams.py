"""Bodies in many pieces, and messages of a WebSocket."""

import gc
from functools import partial
from time import perf_counter

from tests.benchmarks.contenders import Contender, Stage
from tests.benchmarks.sizes import Sizes

from .scenario import Scenario, contenders, mib_per_second, microseconds, milliseconds

KIB = 1024


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


async def small_pieces(contender: Contender, stage: Stage) -> float:
    uploads = stage.sizes.uploads
    async with contender.connect(stage) as client:
        await client.upload_pieces(1)
        gc.collect()
        started = perf_counter()
        for _ in range(uploads):
            await client.upload_pieces(1)
        return (perf_counter() - started) / uploads


async def events(contender: Contender, stage: Stage) -> float:
    count = stage.sizes.events
    async with contender.connect(stage) as client:
        await client.events(max(1, count // 10))
        gc.collect()
        started = perf_counter()
        await client.events(count)
        return (perf_counter() - started) / count


def messages(size: int, sizes: Sizes) -> int:
    """How many messages: fewer of large ones."""
    return max(1, sizes.requests // max(1, size // (4 * KIB)))


async def echoes(size: int, contender: Contender, stage: Stage) -> float:
    times = messages(size, stage.sizes)
    message = bytes(size)
    async with contender.connect(stage) as client:
        await client.echo(message, max(1, times // 10))
        gc.collect()
        started = perf_counter()
        await client.echo(message, times)
        return (perf_counter() - started) / times


def echo(size: int, named: str) -> Scenario:
    return Scenario(
        title=lambda sizes: f"A WebSocket message of {named} and its echo, {messages(size, sizes):,} times",
        entrants=contenders(partial(echoes, size), "uvicorn", "ours"),
        unit="µs a round trip",
        show=microseconds,
    )


SCENARIOS = {
    "download": Scenario(
        title=lambda sizes: f"{sizes.mib:,} MiB down in chunks of 64 KiB",
        entrants=contenders(download, "uvicorn", "ours", "httpx2", "httpx", "predecessor"),
        unit="MiB/s",
        show=mib_per_second,
    ),
    "upload": Scenario(
        title=lambda sizes: f"{sizes.mib:,} MiB up in chunks of 64 KiB",
        # aiohttp-asgi-connector garbles a chunked upload
        entrants=contenders(upload, "uvicorn", "ours", "httpx2", "httpx"),
        unit="MiB/s",
        show=mib_per_second,
    ),
    "pieces": Scenario(
        title=lambda sizes: "1 MiB up in pieces of 1 KiB",
        entrants=contenders(small_pieces, "uvicorn", "ours", "httpx2"),
        unit="ms",
        show=milliseconds,
    ),
    "events": Scenario(
        title=lambda sizes: f"{sizes.events:,} server-sent events of 100 bytes",
        entrants=contenders(events, "uvicorn", "ours", "httpx2"),
        unit="µs an event",
        show=microseconds,
    ),
    "echo-10b": echo(10, "10 bytes"),
    "echo-1k": echo(KIB, "1 KiB"),
    "echo-64k": echo(64 * KIB, "64 KiB"),
    "echo-1m": echo(KIB * KIB, "1 MiB"),
}
