"""ASGI "lifespan": one task for each app, from its startup to its shutdown, and the state that requests get from it.

See the ASGI spec, *Lifespan Protocol*. Startup and shutdown run in one task, so that an app can keep task groups and
cancel scopes open from one to the other.
"""

import asyncio
import enum
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, Literal, Protocol, get_args

from asgi_connector._callers import Caller, current_caller
from asgi_connector._exceptions import ASGIProtocolError, LifespanError
from asgi_connector._log import logger
from asgi_connector._notices import Notice, Notices
from asgi_connector._places import where_it_waits
from asgi_connector._tasks import discard_silently, ends_with_loop, is_discarded
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


_FAILURES: Final = (
    (_State.STARTING, "lifespan.startup.failed"),
    (_State.STARTED, "lifespan.shutdown.failed"),  # not asked to shut down, so the app failed while it was running
)


class LifespanOwner(Protocol):
    """The part of a connector's `Lifespans` that each `Lifespan` uses."""

    loop: asyncio.AbstractEventLoop
    timeout: float
    """Seconds that a shutdown may take, or a startup that a shutdown has to wait for."""
    started: "dict[Lifespan, None]"
    """The running lifespans, in the order in which they started."""
    notices: Notices


class Lifespan(Startup):
    """The lifespan of one app, however often it is mounted.

    `ready` says whether requests may be sent to the app. Requests check nothing else.
    """

    def __init__(self, source: AppSource, setting: Setting, name: str, context: Context, owner: LifespanOwner) -> None:
        super().__init__(name)
        self.source = source
        self.setting: Setting = setting
        self.owner = owner
        self.state: dict[str, Any] = {}
        self.ready = setting == "off" and source.app is not None
        self.users = 0  # mounts that need the app
        self.context = context
        self._state = _State.NEW
        self._caller: Caller | None = None  # the caller that the services see which the app calls
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # runs after a reported failure, whose cause may follow
        self._waiters = Waiters()  # for the end of the startup
        self._startup_over = asyncio.Event()
        self._shutdown_requested = asyncio.Event()
        # The progress of the exchange with the app.
        self._startup_received = False
        self._shutdown_received = False
        self._shutdown_completed = False
        self._sent_unknown_message = False
        self._cancel_expected = False  # cancelled by us or with the event loop, which is not the app's failure
        self._failure: str | None = None  # the message of startup.failed or shutdown.failed
        self._failure_reported = False  # it failed while it was running, and that was logged
        self._error: BaseException | None = None  # the exception that the app raised

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
        """Whether the shutdown has begun, so that the app can no longer be used."""
        return self._state is _State.STOPPING or self._state is _State.STOPPED

    # Startup.

    async def wait_started(self) -> None:
        """Start the app if necessary, and return when it has started, or does not support lifespan.

        Returns early if `release_waiters()` is called. Raises `LifespanError` if the startup failed, or if it waits,
        directly or not, for the caller.
        """
        if self.ready or self.outage is not None:
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
        context = self.context.copy()
        self._caller = Caller(self, self.name, None, None)
        context.run(current_caller.set, self._caller)
        # Not the loop's task factory, because an eager task would run before self._task is set.
        self._task = asyncio.Task(self._run(), loop=self.owner.loop, context=context)
        self._task.add_done_callback(self._task_done)
        discard_silently(self._task)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        """Report a task that was cancelled before it called the app. It ends without running `_run()`."""
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
                    self._timer.cancel()  # it would keep this lifespan alive
                return
            if not (self._cancel_expected and isinstance(exc, asyncio.CancelledError)):
                if ends_with_loop(exc, self.owner.loop):
                    self._loop_ends()
                else:
                    self._error = exc
        self._app_returned()

    def _app_returned(self) -> None:
        assert self._caller is not None
        self._caller.app_returned()
        if self._state is _State.STARTING:
            unsupported = self._error is None or not self._startup_received or self._sent_unknown_message
            made = self.source.app is not None
            if made and self._failure is None and unsupported and not self._cancel_expected:
                self._unsupported()
            else:
                self._end_starting(_State.FAILED)
        elif self._state is _State.STARTED and (self._error is not None or self._failure is not None):
            self._report_failure()

    def _loop_ends(self) -> None:
        """Note that the app was cancelled with all other tasks of the loop. The result is not a failure of the app."""
        self._cancel_expected = True
        self._failure = "the event loop ends" if self._state is _State.STARTING else None

    def _report_failure(self) -> None:
        """Log that a running lifespan has failed. Requests are still served, as by uvicorn, and `stop()` will raise."""
        if not self._failure_reported:
            self._failure_reported = True
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
            if state is _State.FAILED:
                self._tell_failure("to start")
            self._startup_over.set()
            self.release_waiters()

    def _cancel_task(self) -> None:
        """Cancel the app's task, because nothing more is expected from it."""
        assert self._task is not None
        self._cancel_expected = True
        self._task.cancel("The lifespan is over")

    async def _receive(self) -> Message:
        if not self._startup_received:
            self._startup_received = True
            return {"type": "lifespan.startup"}
        if self._failure is None:
            await self._shutdown_requested.wait()
        if self._failure is None and not self._shutdown_received:
            self._shutdown_received = True
            return {"type": "lifespan.shutdown"}
        # The app has sent its last message, but waits for another event. There is none.
        self._end_starting(_State.FAILED)
        self._cancel_task()
        never: asyncio.Future[Message] = self.owner.loop.create_future()
        return await never

    async def _send(self, message: Message) -> None:
        if self.owner.loop.is_closed():
            return  # a framework reports a failure while it is finalised
        kind = message["type"]
        if self._failure is None and not self._shutdown_completed:
            if self._state is _State.STARTING and kind == "lifespan.startup.complete":
                self._started()
                return
            if (self._state, kind) in _FAILURES:
                self._failed(message)
                return
            if self._state is _State.STOPPING and kind == "lifespan.shutdown.complete":
                self._shutdown_completed = True
                return
            if self._state is _State.STOPPING and kind == "lifespan.shutdown.failed":
                self._failure = message.get("message", "")
                return
        self._sent_unknown_message = not str(kind).startswith("lifespan.")
        raise ASGIProtocolError(f"Unexpected ASGI message '{kind}' sent, while the lifespan is {self._state.value}.")

    def _started(self) -> None:
        self.ready = True
        self.owner.started[self] = None
        self._end_starting(_State.STARTED)

    def _failed(self, message: Message) -> None:
        """Note a failure, and wait for its cause: frameworks first report a failure, then raise the exception."""
        self._failure = message.get("message", "")
        assert self._task is not None
        self._timer = timer = self.owner.loop.call_later(self.owner.timeout, self._stop_waiting_for_cause)
        self._task.add_done_callback(lambda _: timer.cancel())

    def _stop_waiting_for_cause(self) -> None:
        self._end_starting(_State.FAILED)
        if self._state is _State.STARTED:
            self._report_failure()
        self._cancel_task()

    # Shutdown.

    def kill(self) -> "asyncio.Task[None] | None":
        """Begin to end the app without a shutdown event, as the end of its process does.

        Returns its task, if it has one. `set_stopped()` must be called at its end.
        """
        self.owner.started.pop(self, None)
        self.ready = False
        self._state = _State.STOPPING
        self._startup_over.set()
        if self._task is not None:
            self._cancel_task()
        return self._task

    async def stop(self) -> None:
        """Shut the app down, if it has started. A startup that is running may end first.

        Startup and shutdown each have the owner's timeout, and are cancelled after it. Raises `LifespanError` if the
        shutdown failed.
        """
        if self._state is _State.STARTING:
            await self._await_startup()
        if self._state is _State.STARTED:
            await self._shut_down()
        elif self._state is _State.STOPPING:
            await self.stopped.wait()
        else:
            self.set_stopped()

    async def _await_startup(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.owner.timeout):
                await self._startup_over.wait()
        if self._state is _State.STARTING:
            assert self._task is not None
            text = "Cancelled the startup of the app at %r, which did not end in time, and waited %s"
            logger.warning(text, self.name, where_it_waits(self._task))
            await self._cancel()

    def set_stopped(self) -> None:
        """Note that the app has stopped, or is not waited for any more."""
        self._state = _State.STOPPED
        self.ready = False
        self.stopped.set()
        self.release_waiters()

    async def _shut_down(self) -> None:
        self._state = _State.STOPPING
        self.ready = False
        del self.owner.started[self]
        self._shutdown_requested.set()
        assert self._task is not None
        done, _ = await asyncio.wait({self._task}, timeout=self.owner.timeout)
        if not done:
            await self._cancel_shutdown()
        self.set_stopped()
        if self._failure is not None or self._error is not None:
            when = "while it was up" if self._failure_reported else "to shut down"
            self._tell_failure(when)
            raise LifespanError(self._describe_failure(when)) from self._error

    async def _cancel_shutdown(self) -> None:
        assert self._task is not None
        reported = self._failure is not None
        text = f"it did not end within {self.owner.timeout} seconds, and was cancelled {where_it_waits(self._task)}"
        await self._cancel()
        if not reported and not self._shutdown_completed:
            self._failure = text  # instead of the app's own message about its cancellation

    async def _cancel(self) -> None:
        assert self._task is not None
        self._cancel_task()
        await asyncio.wait({self._task}, timeout=CANCEL_PATIENCE)

    def _tell_failure(self, when: str) -> None:
        text = self._describe_failure(when) if self._error is None else f"The app at {self.name!r} failed {when}"
        self.owner.notices.tell(Notice(text, self._error))

    def _describe_failure(self, when: str) -> str:
        reason = self._failure or (repr(self._error) if self._error is not None else _NO_REASON)
        return f"The app at {self.name!r} failed {when}: {reason}"
