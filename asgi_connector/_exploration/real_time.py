"""A timeout in real time, for code whose event loop may have a virtual clock."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

_LONGEST_WAIT: Final = 1.0  # seconds of the event loop's clock


@asynccontextmanager
async def real_timeout(seconds: float) -> AsyncGenerator[None, None]:
    """Raise `TimeoutError` after *seconds* of real time, which is noticed within a second of the loop's clock.

    It is raised too if the scenario, the code in the block, goes on in spite of its cancellation, and ends later.
    """
    timeout = asyncio.timeout(None)
    message = f"the scenario did not end within {seconds} seconds of real time: give a timeout to all that may wait"
    try:
        async with timeout:
            watch = _Watch(timeout, seconds)
            try:
                yield
            finally:
                watch.stop()
    except TimeoutError as exc:
        if not timeout.expired():
            raise  # one of the code in the block
        raise TimeoutError(message) from exc  # which shows where the code was
    if timeout.expired():
        raise TimeoutError(message)


class _Watch:
    """Looks at the real time again and again, until the deadline."""

    def __init__(self, timeout: asyncio.Timeout, seconds: float) -> None:
        self._timeout = timeout
        self._deadline = time.perf_counter() + seconds
        self._wait = min(_LONGEST_WAIT, seconds)
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(self._wait, self._look)

    def _look(self) -> None:
        if time.perf_counter() < self._deadline:
            self._handle = self._loop.call_later(self._wait, self._look)
        else:
            self._timeout.reschedule(self._loop.time())

    def stop(self) -> None:
        self._handle.cancel()
