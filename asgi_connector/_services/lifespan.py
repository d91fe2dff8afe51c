"""ASGI "lifespan": one task for each app, from its startup to its shutdown, and the state that it leaves for requests.

See the ASGI spec, *Lifespan Protocol*. Startup and shutdown run in one task, so that task groups and cancel scopes may
be held from one to the other.
"""

import asyncio
import enum
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, Literal, Protocol, get_args

from asgi_connector._callers import Caller, current_caller
from asgi_connector._exceptions import ASGIProtocolError, LifespanError
from asgi_connector._log import logger
from asgi_connector._tasks import discard_silently, ends_with_loop, is_discarded, where_it_waits
from asgi_connector._types import Message
from asgi_connector._waiters import Waiters

from .sources import AppSource
from .startups import Startup

Setting = Literal["auto", "on", "off"]

CANCEL_PATIENCE: Final = 2.0  # seconds that a cancelled app has to clean up
_NO_REASON: Final = "it gives no reason"


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


class LifespanOwner(Protocol):
    """The lifespans of a connector, as one of them sees them."""

    loop: asyncio.AbstractEventLoop
    timeout: float
    """Seconds that a shutdown may take, or a startup that is in the way."""
    started: "list[Lifespan]"
    """Those that run now, in the order in which they started."""


class Lifespan(Startup):
    """The lifespan of one app, however often it is mounted.

    `ready` says whether requests may be sent to the app; it is all that a request looks at.
    """

    def __init__(self, source: AppSource, setting: Setting, name: str, context: Context, owner: LifespanOwner) -> None:
        super().__init__(name)
        self.source = source
        self.setting = setting
        self.owner = owner
        self.state: dict[str, Any] = {}
        self.ready = setting == "off" and source.app is not None
        self.users = 0  # mounts that need the app
        self._context = context
        self._state = _State.NEW
        self._caller: Caller | None = None  # what it is to those whom its app calls
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # of a failure that was reported, and whose cause may follow
        self._waiters = Waiters()  # for the end of the startup
        self._startup_over = asyncio.Event()
        self._told_to_stop = asyncio.Event()
        # How far the conversation with the app has come.
        self._startup_received = False
        self._shutdown_received = False
        self._shutdown_completed = False
        self._answered_garbage = False
        self._dismissed = False  # cancelled by us or with the event loop, which is no failure of the app
        self._failure: str | None = None  # the message of startup.failed or shutdown.failed
        self._died = False  # it failed while it was up, which has been logged
        self._error: BaseException | None = None  # what the app raised

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.name!r}, {self._state.value}>"

    @property
    def ended(self) -> bool:
        return self._task is None or self._task.done()

    @property
    def changing(self) -> bool:
        """Whether it is starting or shutting down."""
        return self._state is _State.STARTING or self._state is _State.STOPPING

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
            self._begin()
        if self._state is _State.STARTING:
            with self.being_awaited():
                await self._waiters.wait()
        if self._state is _State.FAILED:
            raise LifespanError(self._describe_failure("to start")) from self._error

    def _begin(self) -> None:
        self._state = _State.STARTING
        context = self._context.copy()
        self._caller = Caller(self, self.name, None, None)
        context.run(current_caller.set, self._caller)
        # Not by the loop's task factory: an eager task would run before it is known here.
        self._task = asyncio.Task(self._run(), loop=self.owner.loop, context=context)
        self._task.add_done_callback(self._task_done)
        discard_silently(self._task)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        """A task that was cancelled before it called the app has ended without telling."""
        if self._state is _State.STARTING:
            self._failure = "it was cancelled before it began"
            self._end_starting(_State.FAILED)

    def release_waiters(self) -> None:
        """Wake current waiters; later ones wait as usual."""
        self._waiters.wake()

    # The app's task.

    async def _run(self) -> None:
        if self.predecessor is not None:
            await self.predecessor.stopped.wait()
            self.predecessor = None
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            app = await self.source.get()
            if self.setting != "off":
                await app(scope, self._receive, self._send)
        except (KeyboardInterrupt, SystemExit) as exc:
            self._error = exc
            self._app_returned()
            raise
        except BaseException as exc:
            if is_discarded(exc, self._task, self.owner.loop):
                if self._timer is not None:
                    self._timer.cancel()  # it would keep this lifespan
                return
            if not (self._dismissed and isinstance(exc, asyncio.CancelledError)):
                if ends_with_loop(exc, self.owner.loop):
                    self._loop_ends()
                else:
                    self._error = exc
        self._app_returned()

    def _app_returned(self) -> None:
        assert self._caller is not None
        self._caller.app_returned()
        if self._state is _State.STARTING:
            unsupported = self._error is None or not self._startup_received or self._answered_garbage
            made = self.source.app is not None
            if made and self._failure is None and unsupported and not self._dismissed:
                self._unsupported()
            else:
                self._end_starting(_State.FAILED)
        elif self._state is _State.STARTED and (self._error is not None or self._failure is not None):
            self._report_death()

    def _loop_ends(self) -> None:
        """The app is cancelled with all other tasks of the loop: what it makes of that is no failure."""
        self._dismissed = True
        self._failure = "the event loop ends" if self._state is _State.STARTING else None

    def _report_death(self) -> None:
        """The lifespan has failed while it is up: requests are still served, as by uvicorn, and `stop()` will raise."""
        if not self._died:
            self._died = True
            reason = "" if self._error is not None else f": {self._failure or _NO_REASON}"
            how = "with an exception" if self._error is not None else "with a failure"
            logger.error("The lifespan of the app at %r ended %s%s", self.name, how, reason, exc_info=self._error)

    def _unsupported(self) -> None:
        if self.setting == "on":
            self._failure = "the app does not support lifespan; mount it with lifespan='auto' or 'off'"
            self._end_starting(_State.FAILED)
        else:
            self.ready = True
            self._end_starting(_State.UNSUPPORTED)
            if self.setting == "auto":
                logger.debug("The app at %r does not support lifespan", self.name, exc_info=self._error)

    def _end_starting(self, state: _State) -> None:
        if self._state is _State.STARTING:
            self._state = state
            self._startup_over.set()
            self.release_waiters()

    def _dismiss(self) -> None:
        """End the app's task, from which nothing more is expected."""
        assert self._task is not None
        self._dismissed = True
        self._task.cancel("The lifespan is over")

    async def _receive(self) -> Message:
        if not self._startup_received:
            self._startup_received = True
            return {"type": "lifespan.startup"}
        if self._failure is None:
            await self._told_to_stop.wait()
        if self._failure is None and not self._shutdown_received:
            self._shutdown_received = True
            return {"type": "lifespan.shutdown"}
        # The app has said its last word, and asks for more, which will not come.
        self._end_starting(_State.FAILED)
        self._dismiss()
        never: asyncio.Future[Message] = self.owner.loop.create_future()
        return await never

    async def _send(self, message: Message) -> None:
        if self.owner.loop.is_closed():
            return  # a framework that is finalised reports a failure
        kind = message["type"]
        if self._failure is None and not self._shutdown_completed:
            if self._state is _State.STARTING and kind == "lifespan.startup.complete":
                self._started()
                return
            if self._state is _State.STARTING and kind == "lifespan.startup.failed":
                self._failed(message)
                return
            if self._state is _State.STARTED and kind == "lifespan.shutdown.failed":
                self._failed(message)  # it has not been asked to shut down: it fails while it is up
                return
            if self._state is _State.STOPPING and kind == "lifespan.shutdown.complete":
                self._shutdown_completed = True
                return
            if self._state is _State.STOPPING and kind == "lifespan.shutdown.failed":
                self._failure = message.get("message", "")
                return
        self._answered_garbage = not str(kind).startswith("lifespan.")
        raise ASGIProtocolError(f"Unexpected ASGI message '{kind}' sent, while the lifespan is {self._state.value}.")

    def _started(self) -> None:
        self.ready = True
        self.owner.started.append(self)
        self._end_starting(_State.STARTED)

    def _failed(self, message: Message) -> None:
        """Frameworks report a failure first and raise its cause after it: what the app raises now is awaited."""
        self._failure = message.get("message", "")
        assert self._task is not None
        self._timer = timer = self.owner.loop.call_later(self.owner.timeout, self._failed_long_ago)
        self._task.add_done_callback(lambda _: timer.cancel())

    def _failed_long_ago(self) -> None:
        self._end_starting(_State.FAILED)
        if self._state is _State.STARTED:
            self._report_death()
        self._dismiss()

    # Shutdown.

    async def stop(self) -> None:
        """Shut the app down, if it has started; a startup that is under way is given the time to end.

        Each has the owner's timeout, and is cancelled then. Raises `LifespanError` if the shutdown failed.
        """
        if self._state is _State.STARTING:
            await self._await_startup()
        if self._state is _State.STARTED:
            await self._shut_down()
        elif self._state is _State.STOPPING:
            await self.stopped.wait()
        else:
            self._set_stopped()

    async def _await_startup(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.owner.timeout):
                await self._startup_over.wait()
        if self._state is _State.STARTING:
            assert self._task is not None
            text = "Cancelled the startup of the app at %r, which did not end in time, and waited %s"
            logger.warning(text, self.name, where_it_waits(self._task))
            await self._cancel()

    def _set_stopped(self) -> None:
        self._state = _State.STOPPED
        self.ready = False
        self.stopped.set()
        self.release_waiters()

    async def _shut_down(self) -> None:
        self._state = _State.STOPPING
        self.ready = False
        self.owner.started.remove(self)
        self._told_to_stop.set()
        assert self._task is not None
        done, _ = await asyncio.wait({self._task}, timeout=self.owner.timeout)
        if not done:
            await self._cancel_shutdown()
        self._set_stopped()
        if self._failure is not None or self._error is not None:
            when = "while it was up" if self._died else "to shut down"
            raise LifespanError(self._describe_failure(when)) from self._error

    async def _cancel_shutdown(self) -> None:
        assert self._task is not None
        reported = self._failure is not None
        text = f"it did not end within {self.owner.timeout} seconds, and was cancelled {where_it_waits(self._task)}"
        await self._cancel()
        if not reported and not self._shutdown_completed:
            self._failure = text  # in the place of what the app says of its cancellation

    async def _cancel(self) -> None:
        assert self._task is not None
        self._dismiss()
        await asyncio.wait({self._task}, timeout=CANCEL_PATIENCE)

    def _describe_failure(self, when: str) -> str:
        reason = self._failure or (repr(self._error) if self._error is not None else _NO_REASON)
        return f"The app at {self.name!r} failed {when}: {reason}"
