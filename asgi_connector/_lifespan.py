"""ASGI "lifespan": one task for each app, from its startup to its shutdown, and the state that it leaves for requests.

See the ASGI spec, *Lifespan Protocol*. Startup and shutdown run in one task, so that task groups and cancel scopes may
be held from one to the other.
"""

import asyncio
import enum
import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from types import MethodType
from typing import Any, Final, Literal, get_args

from ._callers import callers, current_caller
from ._exceptions import ASGIProtocolError, LifespanError
from ._types import ASGIApp, Message

logger = logging.getLogger("asgi_connector")

Setting = Literal["auto", "on", "off"]


def check_setting(setting: Setting) -> None:
    if setting not in get_args(Setting):
        raise ValueError(f"lifespan must be one of 'auto', 'on' and 'off', not {setting!r}")


class _State(enum.Enum):
    NEW = "not started yet"
    STARTING = "starting"
    STARTED = "started"
    UNSUPPORTED = "not supported by the app"
    FAILED = "failed to start"
    STOPPING = "shutting down"
    STOPPED = "shut down"


class Lifespan:
    """The lifespan of one app, however often it is mounted.

    `ready` says whether requests may be sent to the app; it is all that a request looks at.
    """

    parent: Final = None  # as a caller, it is never inside of another one

    def __init__(self, app: ASGIApp, setting: Setting, name: str, context: Context, owner: "Lifespans") -> None:
        self.app = app
        self.setting = setting
        self.name = name
        self.owner = owner
        self.state: dict[str, Any] = {}
        self.ready = setting == "off"
        self.users = 0  # mounts that need the app
        self.predecessor: Lifespan | None = None  # of the same app; it must have been shut down before this one starts
        self._context = context
        self._state = _State.NEW
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()  # the startup is over, one way or another; or no use waiting for
        self._waits_for: list[Lifespan] = []  # startups that something inside of this lifespan waits for
        self._called_receive = False
        self._answered_garbage = False
        self._told_to_stop = asyncio.Event()
        self._told = False
        self._failure: str | None = None  # the message of startup.failed or shutdown.failed
        self._error: BaseException | None = None  # what the app raised
        self._stopped = asyncio.Event()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.name!r}, {self._state.value}>"

    @property
    def ended(self) -> bool:
        return self._task is None or self._task.done()

    @property
    def stopping(self) -> bool:
        return self._state is _State.STOPPING

    @property
    def over(self) -> bool:
        """Whether the shutdown has begun, so that the app is of no use any more."""
        return self._state is _State.STOPPING or self._state is _State.STOPPED

    # Startup.

    async def wait_started(self) -> None:
        """Start the app if that has not been done, and return when it has started, or does not support lifespan.

        Returns early if `release_waiters()` is called. Raises `LifespanError` if the startup failed, or waits for
        something that waits for it.
        """
        if self.ready:
            return
        if self._state is _State.NEW:
            self._state = _State.STARTING
            context = self._context.copy()
            context.run(current_caller.set, self)
            self._task = self.owner.loop.create_task(self._run(), context=context)
        if self._state is _State.STARTING:
            with self._waiting():
                await self._settled.wait()
        if self._state is _State.FAILED:
            raise LifespanError(self._describe_failure("start")) from self._error

    def release_waiters(self) -> None:
        """Let nobody wait for the startup any longer."""
        self._settled.set()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        inside = [caller for caller in callers() if isinstance(caller, Lifespan)]
        if circle := self._find_circle(inside):
            names = " waits for ".join(repr(lifespan.name) for lifespan in circle)
            raise LifespanError(f"The startups wait for each other in a circle: {names}")
        for lifespan in inside:
            lifespan._waits_for.append(self)
        try:
            yield
        finally:
            for lifespan in inside:
                lifespan._waits_for.remove(self)

    def _find_circle(self, inside: Collection["Lifespan"]) -> list["Lifespan"]:
        """The way from this startup back to one of those that are about to wait for it, if there is one."""
        ways = [[self]]
        seen = {self}
        while ways:
            way = ways.pop()
            if way[-1] in inside:
                return [way[-1], *way]
            for lifespan in way[-1]._waits_for:
                if lifespan not in seen:
                    seen.add(lifespan)
                    ways.append([*way, lifespan])
        return []

    # The app's task.

    async def _run(self) -> None:
        if self.predecessor is not None:
            await self.predecessor._stopped.wait()
            self.predecessor = None
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self.app(scope, self._receive, self._send)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self._error = exc
        finally:
            self._app_returned()

    def _app_returned(self) -> None:
        if self._state is _State.STARTING:
            if self._failure is None and (self._error is None or not self._called_receive or self._answered_garbage):
                self._unsupported()
            else:
                self._state = _State.FAILED
            self._settled.set()
        elif self._state is _State.STARTED and self._error is not None:
            logger.error("The lifespan of %s ended with an exception", self.name, exc_info=self._error)

    def _unsupported(self) -> None:
        if self.setting == "on":
            self._state = _State.FAILED
            self._failure = "the app does not support lifespan; mount it with lifespan='auto' or 'off'"
        else:
            self._state = _State.UNSUPPORTED
            self.ready = True
            logger.debug("%s does not support lifespan", self.name, exc_info=self._error)

    async def _receive(self) -> Message:
        if not self._called_receive:
            self._called_receive = True
            return {"type": "lifespan.startup"}
        await self._told_to_stop.wait()
        if not self._told:
            self._told = True
            return {"type": "lifespan.shutdown"}
        await asyncio.Event().wait()  # nothing more will come
        raise AssertionError

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._state is _State.STARTING and self._failure is None:
            if kind == "lifespan.startup.complete":
                self._started()
                return
            if kind == "lifespan.startup.failed":
                self._startup_failed(message.get("message", ""))
                return
        elif self._state is _State.STOPPING and self._failure is None:
            if kind == "lifespan.shutdown.complete":
                return
            if kind == "lifespan.shutdown.failed":
                self._failure = message.get("message", "")
                return
        self._answered_garbage = not str(kind).startswith("lifespan.")
        raise ASGIProtocolError(f"Unexpected ASGI message '{kind}' sent, while the lifespan is {self._state.value}.")

    def _started(self) -> None:
        self._state = _State.STARTED
        self.ready = True
        self.owner.started.append(self)
        self._settled.set()

    def _startup_failed(self, message: str) -> None:
        """Frameworks report a failure first and raise its cause after it: what the app raises now is awaited."""
        self._failure = message
        assert self._task is not None
        timer = self.owner.loop.call_later(self.owner.timeout, self._task.cancel)
        self._task.add_done_callback(lambda _: timer.cancel())

    # Shutdown.

    async def stop(self) -> None:
        """Shut the app down, if it has started; a startup that is under way is given the time to end.

        Each has the owner's timeout, and is cancelled then. Raises `LifespanError` if the shutdown failed.
        """
        if self._state is _State.STARTING:
            await self._end_startup()
        if self._state is _State.STARTED:
            await self._shut_down()
        elif self._state is _State.STOPPING:
            await self._stopped.wait()
        else:
            self._stop_now()

    async def _end_startup(self) -> None:
        self._settled.clear()  # it may have been set only to release those who waited
        with suppress(TimeoutError):
            async with asyncio.timeout(self.owner.timeout):
                await self._settled.wait()
        if self._state is _State.STARTING:
            logger.warning("Cancelled the startup of the app at %r, which did not end in time", self.name)
            await self._cancel()

    def _stop_now(self) -> None:
        self._state = _State.STOPPED
        self.ready = False
        self._stopped.set()

    async def _shut_down(self) -> None:
        self._state = _State.STOPPING
        self.ready = False
        self.owner.started.remove(self)
        self._told_to_stop.set()
        in_time = await self._task_ends_in_time()
        self._stop_now()
        if not in_time:
            self._failure = f"it did not end within {self.owner.timeout} seconds, and was cancelled"
        if self._failure is not None or self._error is not None:
            raise LifespanError(self._describe_failure("shut down")) from self._error

    async def _task_ends_in_time(self) -> bool:
        """Wait for the app to return, and cancel it when its time is over."""
        assert self._task is not None
        done, _ = await asyncio.wait({self._task}, timeout=self.owner.timeout)
        if not done:
            await self._cancel()
        return bool(done)

    async def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel("The app is to be shut down")
        await asyncio.wait({self._task}, timeout=self.owner.timeout)

    def _describe_failure(self, to_do: str) -> str:
        reason = self._failure or (repr(self._error) if self._error is not None else "it gives no reason")
        return f"The app at {self.name!r} failed to {to_do}: {reason}"


class Lifespans:
    """The lifespans of a connector's apps: one for each app, from its first mount to the end of its last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self.loop = loop
        self.timeout = timeout
        self.started: list[Lifespan] = []
        """Those that run now, in the order in which they started."""
        self._of_app: dict[object, Lifespan] = {}

    def check(self, app: ASGIApp, setting: Setting) -> None:
        """Raise `ValueError` if *app* is in use with another setting."""
        lifespan = self._of_app.get(_identity(app))
        if lifespan is not None and not lifespan.over and lifespan.setting != setting:
            raise ValueError(
                f"lifespan={setting!r} for {app!r}, which is mounted at {lifespan.name!r} with "
                f"lifespan={lifespan.setting!r}: one app has one lifespan"
            )

    def join(self, app: ASGIApp, setting: Setting, name: str, context: Context) -> Lifespan:
        """The lifespan of *app*, which one more mount needs from now on; a new one starts in a copy of *context*."""
        self.check(app, setting)
        key = _identity(app)
        lifespan = self._of_app.get(key)
        if lifespan is None or lifespan.over:
            predecessor, lifespan = lifespan, Lifespan(app, setting, name, context, self)
            lifespan.predecessor = predecessor
            self._of_app[key] = lifespan
        lifespan.users += 1
        return lifespan

    async def leave(self, lifespan: Lifespan) -> None:
        """A mount does not need *lifespan* any more; the last one shuts it down. May raise `LifespanError`."""
        lifespan.users -= 1
        if lifespan.users == 0:
            try:
                await lifespan.stop()
            finally:
                self._forget(lifespan)

    def _forget(self, lifespan: Lifespan) -> None:
        key = _identity(lifespan.app)
        if self._of_app.get(key) is lifespan:
            del self._of_app[key]

    async def start_all(self) -> None:
        """Start every app, all at the same time.

        When one fails, the others have the timeout to end their startup too. Raises `LifespanError`, or an
        `ExceptionGroup` of several.
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

    def release_waiters(self) -> None:
        for lifespan in self._of_app.values():
            lifespan.release_waiters()

    async def stop_all(self) -> list[Exception]:
        """Shut every app down, in the reverse order of their startup; returns what failed."""
        failures: list[Exception] = []
        # An app may, while it shuts down, be the first to call another one, which starts then.
        while lifespan := self._next_to_stop():
            try:
                await lifespan.stop()
            except LifespanError as exc:
                failures.append(exc)
        return failures

    def _next_to_stop(self) -> Lifespan | None:
        if self.started:
            return self.started[-1]
        return next((lifespan for lifespan in self._of_app.values() if not lifespan.over), None)


def raise_all(message: str, results: Iterable[BaseException | None]) -> None:
    """Raise the one exception in *results*, or a group of several."""
    failures = [result for result in results if isinstance(result, Exception)]
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup(message, failures)


def _identity(app: ASGIApp) -> object:
    """What makes it the same app, also for a bound method, which is a new object each time."""
    if isinstance(app, MethodType):
        return (id(app.__self__), app.__func__)
    return id(app)
