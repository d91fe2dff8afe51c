"""The memory of idle connections."""

import asyncio
import gc
import tracemalloc

from aiohttp.client_proto import ResponseHandler

from tests.benchmarks.clients import check
from tests.benchmarks.contenders import Contender, Stage

from .scenario import Scenario, contenders, mib


async def idle_memory(contender: Contender, stage: Stage) -> float:
    """The memory in use after as many concurrent requests, when all their connections are in the pool."""
    connections = stage.sizes.connections
    before = count_protocols()
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
        check(count_protocols() - before, connections)
        return size


def count_protocols() -> int:
    gc.collect()
    return sum(isinstance(found, ResponseHandler) for found in gc.get_objects())


SCENARIOS = {
    "memory": Scenario(
        title=lambda sizes: f"Memory of a pool of {sizes.connections:,} idle connections",
        entrants=contenders(idle_memory, "floor", "ours"),
        unit="MiB",
        show=mib,
        is_absolute=True,
    ),
}
