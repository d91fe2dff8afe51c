"""Helpers to measure how many bytes are between a writer and a reader, and how much memory the process uses."""

import asyncio
import sys
from collections.abc import Callable
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
