"""Restarts in order, and crashes: an app ends and is started anew, wherever it is mounted."""

import asyncio
from collections.abc import Callable, Sequence

from asgi_connector._callers import owners
from asgi_connector._exceptions import LifespanError
from asgi_connector._log import logger
from asgi_connector._places import where_it_waits

from .lifespan import CANCEL_PATIENCE, Lifespan
from .lifespans import raise_all
from .server_end import ServerEnd
from .services import Services, wait_for_shutdown
from .startups import Outage, UserOfApp


class Restarts:
    """Restarts and crashes the apps of one connector."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def running_at(self, pattern: str, method: str) -> Lifespan:
        """Return the lifespan of the app at *pattern*, for a call of *method*, which ends it.

        Raises `ValueError` if nothing is mounted there. Raises `RuntimeError` if the app is down, and from inside one
        of its own requests or its lifespan.
        """
        mounted = self._services.table.visible_at(pattern)
        if mounted is None:
            raise ValueError(f"{pattern!r} is not mounted. {self._services.table.describe(pattern)}")
        lifespan = mounted.lifespan
        if lifespan.outage is not None:
            raise RuntimeError(f"{method}({pattern!r}): the app is down already, until the end of a crashed() block")
        ending = _unstopped(lifespan)
        for owner in owners():
            if (owner.startup if isinstance(owner, UserOfApp) else owner) in ending:
                raise RuntimeError(
                    f"{method}({pattern!r}) cannot be called from inside one of the app's own requests, or its "
                    "lifespan: it would have to wait for itself"
                )
        return lifespan

    async def restart(self, pattern: str) -> None:
        """Shut the app at *pattern* down when its requests have ended, and start it anew."""
        async with self.running_at(pattern, "restart").restarting:  # one restart after the other
            before = self.running_at(pattern, "restart")
            if before.predecessor is not None:
                await before.predecessor.stopped.wait()
            services = self._services
            successor = services.lifespans.renew(before)
            replaced = services.table.renew(before)
            for connection in services.in_flight.connections:
                if connection.mounted.lifespan is before:
                    connection.end_websocket()
            for mounted in replaced:
                services.in_flight.retire_outdated(services.table, mounted.pattern)
            leaving = [wait_for_shutdown(services.shut_down_when_unused(mounted)) for mounted in replaced]
            results = await asyncio.gather(*leaving, return_exceptions=True)
            try:
                await successor.wait_started()
            except LifespanError as exc:
                results.append(exc)
            raise_all(f"The app at {pattern!r} failed to restart", results)
            if successor.outage is not None or successor.over:
                reason = "it has crashed, it is not mounted any more, or the connector closes"
                raise LifespanError(f"The app at {pattern!r} has not restarted: {reason}")

    async def crash(self, pattern: str, outage: Outage, note: Callable[[ServerEnd], object]) -> Lifespan:
        """Kill the app at *pattern*: reset its connections, cancel its requests and its lifespan.

        Until `recover()`, *outage* refuses its callers. *note* is called with each connection, and cuts it. Returns the
        lifespan of the next start.
        """
        before = self.running_at(pattern, "crashed")
        ending = _unstopped(before)
        successor = self._services.lifespans.renew(before)
        successor.outage = outage
        replaced = self._services.table.renew(before)
        in_flight = self._services.in_flight
        cancelled = in_flight.cancel_all(ending)
        for connection in in_flight.connections:
            if connection.mounted.lifespan in ending:
                note(connection)
        tasks = {lifespan: lifespan.kill() for lifespan in ending}

        async def kill() -> None:
            await in_flight.wait_for_cancelled(cancelled)
            for lifespan, task in tasks.items():
                await _wait_for_killed(lifespan, task)
            for _ in replaced:
                await self._services.lifespans.remove_mount(before)

        try:
            await asyncio.shield(self._services.run_apart(kill()))
        except BaseException:
            successor.outage = None  # there is no block whose end would do it
            raise
        return successor

    async def recover(self, successor: Lifespan) -> None:
        """Start the app anew after `crash()`, unless it is not mounted any more, or the connector closes."""
        successor.outage = None
        if not successor.over:
            await successor.wait_started()


def _unstopped(lifespan: Lifespan) -> Sequence[Lifespan]:
    """The lifespan, and those before it of the same app that have not stopped yet."""
    found = [lifespan]
    while isinstance(before := found[-1].predecessor, Lifespan) and not before.stopped.is_set():
        found.append(before)
    return found


async def _wait_for_killed(lifespan: Lifespan, task: asyncio.Task[None] | None) -> None:
    """Return when a lifespan that was killed has ended. It has `CANCEL_PATIENCE` seconds to clean up."""
    if task is not None:
        await asyncio.wait({task}, timeout=CANCEL_PATIENCE)
        if not task.done():
            text = "The lifespan of the app at %r went on though it was cancelled, %s"
            logger.error(text, lifespan.name, where_it_waits(task))
    lifespan.set_stopped()
