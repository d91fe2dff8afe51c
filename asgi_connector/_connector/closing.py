"""How a connector starts and closes: its services, its pool, and its fallback, in order."""

import asyncio
from collections.abc import Awaitable
from typing import Self

from typing_extensions import override

from asgi_connector._aiohttp.pool import close_now
from asgi_connector._exceptions import LifespanError
from asgi_connector._log import logger
from asgi_connector._services.closing import Waiting

from .dispatch import DispatchingConnector
from .loops import check_loop


class ClosingConnector(DispatchingConnector):
    """A connector that starts every app when it is entered, and closes everything in order."""

    _entered = False

    @override
    async def __aenter__(self) -> Self:
        check_loop(self)
        self._check_open()
        self._entered = True
        try:
            await self._services.lifespans.start_all()
            self._check_open()
        except BaseException:
            try:
                await self.close()
            except (LifespanError, ExceptionGroup):
                logger.exception("Some apps failed to shut down, after others had failed to start")
            raise
        return self

    @override
    def close(self, *, abort_ssl: bool = False) -> Awaitable[None]:
        """Close: disconnect every client, let running apps end, shut their lifespans down, close the fallback.

        New connections are refused from now on. Only lifespans that are shutting down may still call other services.
        Running apps see a disconnect. They have ``shutdown_timeout`` seconds to end, from the time their client
        disconnected, and are then cancelled. Lifespans shut down in the reverse order of their startup. It may be
        awaited several times, also concurrently. Cancelling it cancels the apps immediately. From inside a request or
        a lifespan, it starts the closing and does not wait for it.

        Raises `LifespanError`, or an `ExceptionGroup` of several, after everything else has been closed.
        """
        if self._is_over():
            return Waiting(None)
        if self._closing.task is None:
            check_loop(self)
            self._closing.begin(self._close_all(abort_ssl))
        return Waiting(None if self._is_called_by_an_app() else self._wait_closed)

    async def _wait_closed(self) -> None:
        check_loop(self)
        await self._closing.wait()

    def _is_over(self) -> bool:
        """Whether nothing is left to close, or the event loop is closed."""
        if self._closing.task is not None:
            return self._closing.task.done()
        return self.closed and (self._services.loop.is_closed() or self._services.is_idle())

    async def _close_all(self, abort_ssl: bool) -> list[Exception]:
        """Close everything, in order. Returns the errors."""
        try:
            if self._instruments is not None:
                self._instruments.end_all()
            failures = await self._services.close()
        finally:
            waiters = self._close_pool(abort_ssl=abort_ssl)
            self._retries.clear()
            try:
                await asyncio.gather(*waiters, return_exceptions=True)
            finally:
                if self._fallback is not None and self._fallback_owner:
                    await self._fallback.close()
        self._closing.log_unless_awaited(failures)
        return failures

    @override
    def _close_now(self) -> list[Awaitable[object]]:
        if self._instruments is not None:
            self._instruments.end_all()
        waiters = self._close_pool()
        if self._fallback is not None and self._fallback_owner:
            waiters += close_now(self._fallback)
        return waiters
