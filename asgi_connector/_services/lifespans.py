"""The lifespans of a connector's apps, and the order in which they start and stop."""

import asyncio
from collections.abc import Iterable
from contextvars import Context
from types import MethodType

from asgi_connector._exceptions import LifespanError
from asgi_connector._notices import Notices

from .lifespan import Lifespan, Setting
from .mount import Mount
from .sources import Adapt, AppSource, as_it_is


class Lifespans:
    """The lifespans of a connector's apps: one for each app, from its first mount to the end of its last mount."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
        adapt: Adapt = as_it_is,
        notices: Notices | None = None,
    ) -> None:
        self.loop = loop
        self.timeout = timeout
        self.notices = Notices() if notices is None else notices
        self.started: dict[Lifespan, None] = {}
        """The running lifespans, in the order in which they started."""
        self._adapt = adapt
        self._of_app: dict[object, Lifespan] = {}  # by the key of their app

    def check(self, mount: Mount, setting: Setting) -> None:
        """Raise `ValueError` if the app of *mount* is in use with another setting."""
        lifespan = self._of_app.get(key_of(mount))
        if lifespan is not None and not lifespan.over and lifespan.setting != setting:
            raise ValueError(
                f"lifespan={setting!r} for {mount.app or mount.factory!r}, which is mounted at {lifespan.name!r} with "
                f"lifespan={lifespan.setting!r}: one app has one lifespan"
            )

    def add_mount(self, mount: Mount, setting: Setting, name: str, context: Context) -> Lifespan:
        """Return the lifespan of the app of *mount*, mounted at *name*. A new one starts in a copy of *context*."""
        self.check(mount, setting)
        key = key_of(mount)
        lifespan = self._of_app.get(key)
        if lifespan is None or lifespan.over:
            source = AppSource(key, mount.app, mount.factory, mount.root_path, self._adapt, self.loop)
            predecessor, lifespan = lifespan, Lifespan(source, setting, name, context, self)
            lifespan.predecessor = predecessor
            self._of_app[key] = lifespan
        lifespan.users += 1
        return lifespan

    def renew(self, lifespan: Lifespan) -> Lifespan:
        """Return the lifespan for the next start of the app, which begins when *lifespan* has stopped."""
        source = lifespan.source.anew()
        successor = Lifespan(source, lifespan.setting, lifespan.name, lifespan.context, self)
        successor.ready = False  # also without a lifespan: it waits for its predecessor
        successor.predecessor = lifespan
        successor.restarting = lifespan.restarting
        self._of_app[lifespan.source.key] = successor
        return successor

    async def remove_mount(self, lifespan: Lifespan) -> None:
        """Remove one mount of *lifespan*. After the last one, shut the app down. That may raise `LifespanError`."""
        lifespan.users -= 1
        if lifespan.users == 0:
            lifespan.release_waiters()  # they look up the mounted app again
            try:
                await lifespan.stop()
            finally:
                self._forget(lifespan)

    def _forget(self, lifespan: Lifespan) -> None:
        key = lifespan.source.key
        if self._of_app.get(key) is lifespan:
            del self._of_app[key]

    async def start_all(self) -> None:
        """Start all apps at the same time.

        When one fails, the others have the timeout to end their startup too. Raises the `LifespanError`, or an
        `ExceptionGroup` if several failed.
        """
        tasks = [self.loop.create_task(lifespan.wait_started()) for lifespan in list(self._of_app.values())]
        if not tasks:
            return
        try:
            _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if pending:
                await asyncio.wait(pending, timeout=self.timeout)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        raise_all("Some apps failed to start", results)

    def is_idle(self) -> bool:
        """Whether no lifespan is running."""
        return all(lifespan.ended for lifespan in self._of_app.values())

    def release_waiters(self) -> None:
        for lifespan in self._of_app.values():
            lifespan.release_waiters()

    async def stop_all(self) -> list[Exception]:
        """Shut all apps down, in the reverse order of their startup. Returns the failures."""
        failures: list[Exception] = []
        # An app that shuts down may be the first to call another app, which then starts.
        while lifespan := self._next_to_stop():
            try:
                await lifespan.stop()
            except LifespanError as exc:
                failures.append(exc)
        return failures

    def _next_to_stop(self) -> Lifespan | None:
        if self.started:
            return next(reversed(self.started))
        # Remove those that are over, because skipping them again each time would take quadratic time.
        while self._of_app:
            key, lifespan = self._of_app.popitem()
            if not lifespan.over:
                self._of_app[key] = lifespan
                return lifespan
        return None


def raise_all(message: str, results: Iterable[BaseException | None]) -> None:
    """Raise the one exception in *results*, or a group if there are several."""
    failures = [result for result in results if isinstance(result, Exception)]
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup(message, failures)


def key_of(mount: Mount) -> object:
    """Return a key that is equal for the same app. Each `Mount` with a factory has an app of its own."""
    app = mount.app
    if app is None:
        return id(mount)
    if isinstance(app, MethodType):  # a bound method is a new object each time it is accessed
        return (id(app.__self__), app.__func__)
    return id(app)
