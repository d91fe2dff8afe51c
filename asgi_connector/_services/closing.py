"""`Closing`: closes a connector in one task, which any number of callers may await."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

from asgi_connector._log import logger

from .lifespans import raise_all
from .services import Services


class Closing:
    """The closing of one connector."""

    def __init__(self, services: Services) -> None:
        self.task: asyncio.Task[list[Exception]] | None = None
        """The task closes everything and returns the errors. It is `None` until the closing begins."""
        self._services = services
        self._awaited = False

    def begin(self, close_all: Coroutine[Any, Any, list[Exception]]) -> None:
        # Not with the loop's task factory: an eager task would run its first step inside a step of an app.
        self.task = asyncio.Task(close_all, loop=self._services.loop, context=Context())

    async def wait(self) -> None:
        """Return when everything is closed. Raises the errors. If cancelled, it cancels the apps immediately."""
        assert self.task is not None
        self._awaited = True
        try:
            raise_all("Some apps failed to shut down", await asyncio.shield(self.task))
        except asyncio.CancelledError:
            if not self.task.done():
                self._services.in_flight.hurry()
                await asyncio.wait([self.task])
            raise

    def log_unless_awaited(self, failures: list[Exception]) -> None:
        if not self._awaited:
            for failure in failures:
                logger.error("An app failed to shut down", exc_info=failure)


class Waiting:
    """The awaitable that `close()` returns. The caller does not have to await it."""

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        """*wait* makes the coroutine that is awaited. With `None`, awaiting returns immediately."""
        self._wait = wait

    def __await__(self) -> Generator[Any, None, None]:
        return (_nothing if self._wait is None else self._wait)().__await__()


async def _nothing() -> None:
    pass
