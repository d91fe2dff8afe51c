"""What runs at a connector: its open connections and the tasks of its apps, how they start, and how they are ended."""

import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import Context
from typing import Final, NamedTuple, Protocol

from asgi_connector._aiohttp.client_protocol import ClientProtocol
from asgi_connector._callers import Caller, current_caller
from asgi_connector._log import logger
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._observer import Observer
from asgi_connector._services.lifespan import CANCEL_PATIENCE
from asgi_connector._services.table import MountedApp
from asgi_connector._tasks import discard_silently, where_it_waits
from asgi_connector._types import ASGIApp

from .cycle import Cycle
from .scope import Address

NOTICEABLE: Final = 0.5
"""Seconds that an app may go on without its client before what waits for it says so."""

if sys.version_info >= (3, 12):

    def _start_task(
        cycle: Cycle, app: ASGIApp, context: Context, loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        """Run the app; its first step at once, whatever the loop's task factory."""
        return asyncio.Task(cycle.run(app), loop=loop, context=context, eager_start=True)

else:

    def _start_task(
        cycle: Cycle, app: ASGIApp, context: Context, loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        """Run the app from the next turn of the event loop on."""
        task = loop.create_task(cycle.run(app), context=context)
        task.add_done_callback(lambda _: cycle.task_done())
        return task


class Underway(NamedTuple):
    """What is under way on a connection; what is known of an exchange that nobody watched from its start."""

    method: str
    path: str
    caller: str | None
    observer: Observer | None
    request_begun: bool
    request_head_passed: bool
    response_begun: bool
    response_head_passed: bool


class Connection(Protocol):
    """A connection, seen from here."""

    @property
    def address(self) -> Address: ...

    @property
    def mounted(self) -> MountedApp: ...

    @property
    def client(self) -> ClientProtocol: ...

    @property
    def transport(self) -> MemoryTransport:
        """The server's end."""
        ...

    def retire(self, acquired: bool) -> None:
        """Serve no request after the current one, or the one that it has been handed out for."""

    def close_client(self) -> None:
        """End it as its client would: its app sees a disconnect."""

    def underway(self) -> Underway | None:
        """What is under way; `None` if the connection is idle."""
        ...


class Running:
    """The open connections, and the requests whose app has not returned yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # No sets, here and elsewhere: what is done in turn for several must not depend on where they lie in memory.
        self.connections: dict[Connection, None] = {}
        self._cycles: dict[Cycle, None] = {}
        self._hurry = asyncio.Event()

    def start(self, cycle: Cycle, app: ASGIApp, context: Context, caller: Caller | None) -> None:
        """Run *app* in *context*, inside of *caller*; where Python can, its first step at once."""
        cycle.caller = Caller(cycle, cycle.mounted.pattern, cycle.observer, caller)
        context.run(current_caller.set, cycle.caller)
        task = _start_task(cycle, app, context, self.loop)
        if not cycle.ended:
            discard_silently(task)
            cycle.task = task
            cycle.mounted.acquire(cycle)
            self._cycles[cycle] = None

    def ended(self, cycle: Cycle) -> None:
        cycle.task = None  # task, context, cycle, task: without this they would wait for the garbage collector
        self._cycles.pop(cycle, None)
        cycle.mounted.release(cycle)

    def is_idle(self) -> bool:
        """Whether no app is running."""
        return not self._cycles

    def hurry(self) -> None:
        """Cancel at once what `end()` is still waiting for."""
        self._hurry.set()

    @contextmanager
    def reporting_delay(self, mounted: MountedApp | None = None) -> Generator[None, None, None]:
        """Log one warning if the block takes `NOTICEABLE` seconds while an app goes on though its client has left.

        The app is *mounted*, or any.
        """
        timer = self.loop.call_later(NOTICEABLE, self._report_delay, mounted, context=Context())
        try:
            yield
        finally:
            timer.cancel()

    def _report_delay(self, mounted: MountedApp | None) -> None:
        waiting = [
            cycle
            for cycle in self._cycles
            if cycle.disconnected_at is not None and (mounted is None or cycle.mounted is mounted)
        ]
        for cycle in waiting[:1]:
            assert cycle.task is not None
            more = f", and for {len(waiting) - 1} more" if len(waiting) > 1 else ""
            text = "Waiting for an app that goes on though its client has left: %s, which waits %s%s"
            logger.warning(text, _describe(cycle), where_it_waits(cycle.task), more)

    async def end(self, timeout: float) -> None:
        """Disconnect every client, and return when the last app has ended.

        An app has *timeout* seconds from when its client left, which may be long ago. Then it is cancelled, with a
        warning, and has `CANCEL_PATIENCE` to clean up; one that goes on is left alone, with an error in the log.
        """
        for connection in tuple(self.connections):
            connection.close_client()
        for cycle in self._cycles:
            cycle.disconnect()
        with self.reporting_delay():
            cancelled = await self._cancel_overdue(timeout)
        if cancelled:
            _, disobedient = await asyncio.wait(cancelled, timeout=CANCEL_PATIENCE)
            for task in disobedient:
                described = _describe(cancelled[task])
                self.ended(cancelled[task])  # as far as we are concerned
                logger.error("An app went on though it was cancelled: %s, %s", described, where_it_waits(task))

    async def _cancel_overdue(self, timeout: float) -> dict[asyncio.Task[None], Cycle]:
        cancelled: dict[asyncio.Task[None], Cycle] = {}
        hurry = self.loop.create_task(self._hurry.wait())
        try:
            for cycle, task in [(cycle, cycle.task) for cycle in sorted(self._cycles, key=_left_at)]:
                assert task is not None  # it is, as soon as the app's first step is over
                patience = max(_left_at(cycle) + timeout - self.loop.time(), 0)
                await asyncio.wait({task, hurry}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not task.done():
                    text = "Cancelled an app, still running when the connector closed: %s, which waited %s"
                    logger.warning(text, _describe(cycle), where_it_waits(task))
                    task.cancel("The connector was closed")
                    cancelled[task] = cycle
        finally:
            hurry.cancel()
        return cancelled


def _describe(cycle: Cycle) -> str:
    return f"{cycle.method} {cycle.url}, by {cycle.mounted!r}"


def _left_at(cycle: Cycle) -> float:
    assert cycle.disconnected_at is not None
    return cycle.disconnected_at
