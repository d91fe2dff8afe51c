"""Bodies in many pieces, and messages of a WebSocket."""

import gc
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter

from tests.benchmarks.app import CHUNK
from tests.benchmarks.clients import Client
from tests.benchmarks.contenders import Contender, Stage
from tests.benchmarks.sizes import Sizes

from .scenario import Scenario, contenders, mib_per_second, microseconds, milliseconds

KIB = 1024
PIECE = bytes(KIB)


async def timed(
    run: Callable[[Client, int], Awaitable[None]], contender: Contender, stage: Stage, first: int, size: int
) -> float:
    """The seconds of a run of *size*, after a *first*, smaller one."""
    async with contender.connect(stage) as client:
        await run(client, first)
        gc.collect()
        started = perf_counter()
        await run(client, size)
        return perf_counter() - started


async def download(contender: Contender, stage: Stage) -> float:
    return await timed(lambda client, mib: client.download(mib), contender, stage, 1, stage.sizes.mib)


async def upload(contender: Contender, stage: Stage) -> float:
    return await timed(lambda client, mib: client.upload(mib, CHUNK), contender, stage, 1, stage.sizes.mib)


async def small_pieces(contender: Contender, stage: Stage) -> float:
    async def upload_often(client: Client, uploads: int) -> None:
        for _ in range(uploads):
            await client.upload(1, PIECE)

    uploads = stage.sizes.uploads
    return await timed(upload_often, contender, stage, 1, uploads) / uploads


async def events(contender: Contender, stage: Stage) -> float:
    count = stage.sizes.events
    return await timed(lambda client, some: client.events(some), contender, stage, max(1, count // 10), count) / count


def messages(size: int, sizes: Sizes) -> int:
    """How many messages: fewer of large ones."""
    return max(1, sizes.requests // max(1, size // (4 * KIB)))


async def echoes(size: int, contender: Contender, stage: Stage) -> float:
    times, message = messages(size, stage.sizes), bytes(size)
    run = partial(_echo, message)
    return await timed(run, contender, stage, max(1, times // 10), times) / times


async def _echo(message: bytes, client: Client, times: int) -> None:
    await client.echo(message, times)


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
