"""The apps of one connector, from their first mount until the connector is closed."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context, copy_context
from typing import Any, TypeAlias

from asgi_connector._callers import owners
from asgi_connector._exceptions import LifespanError
from asgi_connector._log import logger
from asgi_connector._notices import Notices
from asgi_connector._types import App

from .in_flight import AppRequest, InFlight
from .lifespan import Lifespan
from .lifespans import Lifespans
from .mount import Mount, MountDefaults
from .mounted import MountedApp
from .sources import Adapt
from .table import Layer, Mounts, MountTable

Leaving: TypeAlias = asyncio.Task[LifespanError | None]


class Services:
    """Mounts, starts, replaces and unmounts apps, and closes all of them in order."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        defaults: MountDefaults,
        shutdown_timeout: float,
        apps: Mapping[str, App | Mount],
        adapt: Adapt,
    ) -> None:
        self.loop = loop
        self.notices = Notices()
        self.lifespans = Lifespans(loop, shutdown_timeout, adapt, self.notices)
        self.table = MountTable(defaults, self.lifespans)
        self.mounts = Mounts(self.table)
        self.in_flight = InFlight(loop, self.notices)
        self.on_leaving: list[Callable[[MountedApp], None]] = []
        """What is told of each app that is unmounted or replaced."""
        self._shutdown_timeout = shutdown_timeout
        self._leaving: set[Leaving] = set()  # apps that were unmounted or replaced, and have not shut down yet
        self.table.add_all(apps, copy_context())

    def mount(self, pattern: str, app: App | Mount) -> None:
        """Mount *app* at *pattern*. It replaces the visible app, which is shut down when it is unused."""
        replaced = self.table.mount(pattern, app, copy_context())
        self.in_flight.retire_outdated(self.table, pattern)
        if replaced is not None:
            self.shut_down_when_unused(replaced).add_done_callback(_log_failure)

    async def unmount(self, pattern: str) -> None:
        """Unmount the visible app at *pattern*; return when it has shut down. Raises `KeyError` if there is none."""
        mounted = self.table.visible_at(pattern)
        if mounted is None:
            raise KeyError(f"{pattern!r} is not mounted. {self.table.describe(pattern)}")
        _check_outside(mounted)
        self.table.unmount(pattern)
        self.in_flight.retire_outdated(self.table, pattern)
        await wait_for_shutdown(self.shut_down_when_unused(mounted))

    def cover(self, pattern: str, app: App | Mount) -> tuple[Layer, MountedApp]:
        """Mount *app* above the visible app at *pattern*, until `uncover()`."""
        covering = self.table.push(pattern, app, copy_context())
        self.in_flight.retire_outdated(self.table, pattern)
        return covering

    async def uncover(self, layer: Layer, mounted: MountedApp) -> None:
        """Remove *layer*, where *mounted* was mounted, and return when nothing is in flight on it any more."""
        _check_outside(mounted)
        last = self.table.remove(layer)  # another app, if mount() or unmount() was called in between
        self.in_flight.retire_outdated(self.table, layer.pattern)
        if last is not None:
            await wait_for_shutdown(self.shut_down_when_unused(last))
        await mounted.wait_until_unused()

    def shut_down_when_unused(self, mounted: MountedApp) -> Leaving:
        """Wait until nothing is in flight on *mounted*, which gets no further requests, then shut its app down.

        The app is not shut down if it is mounted elsewhere. The result is the failure of the shutdown, if any.
        """

        for told in self.on_leaving:
            told(mounted)

        async def shut_down() -> LifespanError | None:
            with self.in_flight.reporting_delay(mounted):
                await mounted.wait_until_unused()
            try:
                await self.lifespans.remove_mount(mounted.lifespan)
            except LifespanError as exc:
                return exc
            return None

        return self.run_apart(shut_down())

    def run_apart(self, leave: Coroutine[Any, Any, LifespanError | None]) -> Leaving:
        """Let an app leave in a task of its own, which `close()` waits for, because the caller may be cancelled."""
        task = asyncio.Task(leave, loop=self.loop, context=Context())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    async def close(self) -> list[Exception]:
        """End requests first, then unmounted apps, then lifespans. Returns the failures."""
        self.lifespans.release_waiters()
        await self.in_flight.end_all(self._shutdown_timeout)
        await asyncio.gather(*self._leaving)
        failures = await self.lifespans.stop_all()
        await self.in_flight.end_all(self._shutdown_timeout)  # requests that the apps made while they shut down
        return failures

    def is_idle(self) -> bool:
        """Whether no request and no lifespan runs, and no app waits for its shutdown."""
        return self.in_flight.is_idle() and self.lifespans.is_idle() and not self._leaving

    def owns(self, owner: object) -> bool:
        """Whether `close()` waits for *owner*, a request or a lifespan."""
        if isinstance(owner, AppRequest):
            owner = owner.mounted.lifespan
        return isinstance(owner, Lifespan) and owner.owner is self.lifespans


async def wait_for_shutdown(task: Leaving) -> None:
    try:
        failure = await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_log_failure)
        raise
    if failure is not None:
        raise failure


def _log_failure(task: Leaving) -> None:
    if not task.cancelled() and (failure := task.result()) is not None:
        logger.error("An app that is mounted no more failed to shut down", exc_info=failure)


def _check_outside(mounted: MountedApp) -> None:
    for owner in owners():
        if owner is mounted.lifespan or (isinstance(owner, AppRequest) and owner.mounted is mounted):
            raise RuntimeError(
                f"{mounted!r} cannot be unmounted from inside one of its own requests, or its lifespan: it would have "
                "to wait for itself"
            )
