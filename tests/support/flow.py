"""How much lies between a writer and a reader, and how much memory that takes."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
BOUND = MIB
"""What may lie between a writer and a reader: our mark (64 KiB), a slice (256 KiB), aiohttp's own mark (512 KiB)."""


async def until_it_stops(count: Callable[[], int]) -> int:
    """Let the event loop turn until *count* has been the same for many turns."""
    last, same = count(), 0
    while same < 50:
        await asyncio.sleep(0)
        same = same + 1 if count() == last else 0
        last = count()
    return last


def new_piece() -> bytes:
    return b"x" * (64 * KIB)  # not the same object again and again, which would need no memory wherever it is kept


def peak_memory() -> int:
    """The most memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # there, the number of getrusage() begins with that of the parent process
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * KIB
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB
