"""Helpers to measure how many bytes are between a writer and a reader, and how much memory the process uses.

As a program, ``python -m tests.support.flow MODULE:FUNCTION SIZE``, it prints by how many bytes a transfer of SIZE
bytes raises the peak of memory. FUNCTION is a coroutine function that takes a size, and returns how many bytes arrived.
"""

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
BOUND = MIB
"""The most bytes between a writer and a reader: our own mark (64 KiB), a slice (256 KiB), aiohttp's mark (512 KiB)."""


async def until_it_stops(count: Callable[[], int]) -> int:
    """Run the event loop until *count* has returned the same number for many turns. Return the number."""
    last, same = count(), 0
    while same < 50:
        await asyncio.sleep(0)
        same = same + 1 if count() == last else 0
        last = count()
    return last


def content(number: int, size: int) -> bytes:
    """A body of *size* bytes that differs from the body of every other *number*."""
    word = b"%d;" % number
    return (word * (size // len(word) + 1))[:size]


def new_piece() -> bytes:
    return b"x" * (64 * KIB)  # a new object each time: a shared one would use no memory, wherever it is kept


def peak_memory() -> int:
    """Return the peak memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage() starts with the number of the parent process
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * KIB
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB


async def _transfer(function: Callable[[int], Awaitable[int]], size: int) -> None:
    assert await function(size) == size


def main(name: str, size: int) -> None:
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    asyncio.run(_transfer(function, 16 * MIB))
    before = peak_memory()
    asyncio.run(_transfer(function, size))
    print(peak_memory() - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
