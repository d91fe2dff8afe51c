"""How a test waits: for a condition, or until the event loop has nothing left to do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, cast

T = TypeVar("T")

SOON: Final = 10.0
"""Seconds after which a test fails that waits for what must happen. No test takes that long when it passes."""

_MOST_TURNS: Final = 100_000


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds. The timeout of the test ends the wait if it never does."""
    while not condition():  # noqa: ASYNC110 (for conditions that no event announces)
        await asyncio.sleep(0)


async def settle() -> None:
    """Run the event loop until no callback is ready: what happens without a timer or a peer has happened then.

    For a test that shows that something does not happen, and for one that brings its services to a stop first. A
    callback of a socket becomes ready one turn after its data, so the loop must be idle for several turns. uvloop does
    not tell whether a callback is ready, so it runs for a fixed number of turns.
    """
    ready = getattr(asyncio.get_running_loop(), "_ready", None)
    enough = 50 if ready is None else 5
    idle = 0
    for _ in range(_MOST_TURNS):
        await asyncio.sleep(0)
        idle = 0 if ready else idle + 1
        if idle == enough:
            return
    raise AssertionError("The event loop does not settle: something runs again and again. Use until() instead.")


async def run_turns(count: int) -> None:
    """Run the event loop for exactly *count* turns, for tests that try each moment of something."""
    for _ in range(count):
        await asyncio.sleep(0)


async def soon(awaitable: Awaitable[T]) -> T:
    """Its result, which must come soon."""
    async with asyncio.timeout(SOON):
        return await awaitable


def at_once(awaitable: Awaitable[T]) -> T:
    """Its result, which must come without suspending."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise AssertionError("it suspended")
