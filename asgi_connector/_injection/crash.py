"""`crashed()` blocks: an app that is down, and starts anew at the end."""

from collections.abc import Callable
from types import TracebackType

from asgi_connector._exceptions import LifespanError
from asgi_connector._journal.live import LiveExchange
from asgi_connector._log import logger
from asgi_connector._observer import Observer
from asgi_connector._services.lifespan import Lifespan
from asgi_connector._services.restarts import Restarts
from asgi_connector._services.server_end import ServerEnd

from .blocks import Calls, OpenBlocks
from .effects import cut
from .faults import Crashed, Reset


class Crash:
    """The time in which an app is down. An async context manager."""

    def __init__(
        self, blocks: OpenBlocks, restarts: Restarts, pattern: str, allow_unused: bool, is_open: Callable[[], bool]
    ) -> None:
        """*is_open* tells whether the connector is open, so that the app may start again."""
        self._restarts = restarts
        self._pattern = pattern
        self._allow_unused = allow_unused
        self._is_open = is_open
        self._calls = Calls(blocks.recorder)
        self._affected = False
        self._successor: Lifespan | None = None

    async def __aenter__(self) -> None:
        self._affected = not self._restarts.running_at(self._pattern, "crashed").ended
        self._calls.begin()
        try:
            self._successor = await self._restarts.crash(self._pattern, self, self._cut)
        except BaseException:
            self._calls.end()
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True  # pytest shows the block
        self._calls.end()
        await self._recover(exc)
        if exc is None and not self._affected and not self._allow_unused:
            reason = "the app had not started, and there was no request to it."
            problem = f"crashed({self._pattern!r}) has affected nothing: {reason}"
            raise AssertionError(self._calls.explain_unused(problem))

    async def _recover(self, exc: BaseException | None) -> None:
        successor = self._successor
        assert successor is not None
        successor.outage = None
        if not self._is_open():
            return
        try:
            await self._restarts.recover(successor)
        except LifespanError:
            if exc is None:
                raise
            logger.exception("The app at %r failed to start after its crash", self._pattern)

    def refuse(self, observer: Observer | None) -> None:
        """Note that a request was refused."""
        self._affected = True
        if isinstance(observer, LiveExchange):
            observer.via = "fault"
            observer.fault = Crashed()

    def _cut(self, connection: ServerEnd) -> None:
        """Reset a connection to the app."""
        self._affected = True
        progress = connection.progress()
        exchange = None if progress is None else progress.observer
        if isinstance(exchange, LiveExchange):
            exchange.fault = Crashed()
            cut(connection.transport, Reset(), exchange)
        else:
            cut(connection.transport, Reset(), None)
