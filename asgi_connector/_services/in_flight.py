"""Open connections and running requests: the start and the end of an app's task, and the end of all of them."""

import asyncio
import sys
from abc import abstractmethod
from collections.abc import Collection, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Final

from asgi_connector._callers import Caller, current_caller
from asgi_connector._exceptions import ASGIConnectorError
from asgi_connector._log import logger
from asgi_connector._notices import Notice, Notices
from asgi_connector._observer import Observer
from asgi_connector._places import where_it_waits
from asgi_connector._tasks import discard_silently, is_discarded
from asgi_connector._types import ASGIApp, Message, Scope

from .connections import OpenConnections
from .lifespan import CANCEL_PATIENCE, Lifespan
from .mounted import MountedApp
from .patterns import parse_pattern
from .startups import UserOfApp
from .table import MountTable

NOTICEABLE: Final = 0.5
"""Seconds that an app may run on after its client has left, before a warning names it."""


class AppRequest(UserOfApp):
    """One request and the app that answers it, from the call of the app to its return."""

    __slots__ = ("caller", "disconnected_at", "ended", "mounted", "observer", "scope", "task")

    def __init__(self, scope: Scope, mounted: MountedApp, observer: Observer | None) -> None:
        self.scope = scope
        self.mounted = mounted
        self.observer = observer
        self.caller: Caller | None = None
        """The caller that the services see which this app calls."""
        self.task: asyncio.Task[None] | None = None
        """The app's task, as long as `InFlight` lists the request."""
        self.ended = False
        """Whether the app has returned."""
        self.disconnected_at: float | None = None
        """When the client left, by the event loop's clock; `None` if it has not."""

    @property
    def startup(self) -> Lifespan:
        return self.mounted.lifespan

    @property
    @abstractmethod
    def method(self) -> str: ...

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL of the request, for log records and error messages."""
        ...

    @abstractmethod
    async def receive(self) -> Message: ...

    @abstractmethod
    async def send(self, message: Message) -> None: ...

    @abstractmethod
    def disconnect(self) -> None:
        """Tell the app that the client has disconnected."""

    @abstractmethod
    def app_returned(self, result: object) -> None:
        """Called when the app has returned *result*."""

    @abstractmethod
    def app_failed(self, exc: BaseException) -> None:
        """Called when the app has raised *exc*."""

    @abstractmethod
    def app_interrupted(self, exc: BaseException) -> None:
        """Called when the app has raised `KeyboardInterrupt` or `SystemExit`, which then reaches the event loop."""

    def raisable(self, exc: BaseException) -> BaseException:
        """Return *exc*, wrapped if the client would take it for its own cancellation."""
        if not isinstance(exc, asyncio.CancelledError):
            return exc
        cancelled = ASGIConnectorError(f"The app was cancelled: {self.method} {self.url}")
        cancelled.__cause__ = exc
        return cancelled

    def end(self) -> None:
        """Called last, when the app has ended and the client has been told how."""
        self.ended = True
        assert self.caller is not None
        self.caller.app_returned()


if sys.version_info >= (3, 12):

    def _start_task(
        loop: asyncio.AbstractEventLoop, app_run: Coroutine[Any, Any, None], context: Context
    ) -> asyncio.Task[None]:
        """Run the app. Its first step runs immediately, whatever the loop's task factory is."""
        return asyncio.Task(app_run, loop=loop, context=context, eager_start=True)

else:

    def _start_task(
        loop: asyncio.AbstractEventLoop, app_run: Coroutine[Any, Any, None], context: Context
    ) -> asyncio.Task[None]:
        """Run the app from the next iteration of the event loop on."""
        return loop.create_task(app_run, context=context)


class InFlight:
    """The open connections, and the requests whose apps have not returned yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, notices: Notices) -> None:
        self.loop = loop
        self._notices = notices
        self.connections = OpenConnections()
        self._requests: dict[AppRequest, None] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()

    def start(self, request: AppRequest, app: ASGIApp, context: Context, caller: Caller | None) -> None:
        """Run *app* in *context*, called by *caller*. From Python 3.12 on, its first step runs before this returns."""
        request.caller = Caller(request, request.mounted.pattern, request.observer, caller)
        task = _start_task(self.loop, self._run(request, app), context)
        if request.ended:
            return
        request.task = task
        request.mounted.begin_use(request)
        self._requests[request] = None
        discard_silently(task)
        if sys.version_info < (3, 12):
            task.add_done_callback(lambda _: self._task_done(request))

    def serve_by(self, task: asyncio.Task[None], mounted: MountedApp) -> None:
        """*task* serves a connection to *mounted*, and ends by itself soon after the connection and its last app."""
        self._serving.add(task)
        mounted.begin_use(task)
        task.add_done_callback(self._serving.discard, context=Context())
        task.add_done_callback(mounted.end_use, context=Context())

    async def _run(self, request: AppRequest, app: ASGIApp) -> None:
        """Call the app and report how it ends. The coroutine of the app's task."""
        current_caller.set(request.caller)
        discarded = False
        try:
            result = await app(request.scope, request.receive, request.send)
        except (KeyboardInterrupt, SystemExit) as exc:
            request.app_interrupted(exc)
            raise
        except BaseException as exc:
            discarded = is_discarded(exc, request.task, self.loop)
            if not discarded:
                request.app_failed(exc)
        else:
            request.app_returned(result)
        finally:
            request.end()
            if not discarded:
                self._remove(request)

    def _task_done(self, request: AppRequest) -> None:
        """Report a task that was cancelled before its first step. It ends without running `_run()`."""
        if not request.ended:
            request.app_failed(asyncio.CancelledError())
            request.end()
            self._remove(request)

    def _remove(self, request: AppRequest) -> None:
        if request.task is not None:
            request.task = None  # breaks the reference cycle of task, context and request
            self._requests.pop(request, None)
            request.mounted.end_use(request)

    def retire_outdated(self, table: MountTable, pattern: str) -> None:
        """Retire each connection whose address is now served by another app than when it was opened.

        *pattern* is that of the mount that has changed.
        """
        for connection in self.connections.maybe_covered(parse_pattern(pattern)):
            if table.find(connection.address) is not connection.mounted:
                connection.retire()

    def is_idle(self) -> bool:
        """Whether no app is running."""
        return not self._requests

    def waiting(self) -> Iterator[tuple[Observer, str]]:
        """Yield the observers of the requests whose apps run, each with the place at which its app waits."""
        for request in tuple(self._requests):
            if request.observer is not None and request.task is not None:
                yield request.observer, where_it_waits(request.task)

    def hurry(self) -> None:
        """Immediately cancel the apps that `end_all()` still waits for."""
        self._hurry.set()

    @contextmanager
    def reporting_delay(self, mounted: MountedApp | None = None) -> Generator[None, None, None]:
        """Log one warning if, after `NOTICEABLE` seconds in the block, an app still runs though its client has left.

        With *mounted*, only requests of that app count.
        """
        timer = self.loop.call_later(NOTICEABLE, self._report_delay, mounted, context=Context())
        try:
            yield
        finally:
            timer.cancel()

    def _report_delay(self, mounted: MountedApp | None) -> None:
        waiting = [
            request
            for request in self._requests
            if request.disconnected_at is not None and (mounted is None or request.mounted is mounted)
        ]
        for request in waiting[:1]:
            assert request.task is not None
            more = f", and for {len(waiting) - 1} more" if len(waiting) > 1 else ""
            text = "Waiting for an app that goes on though its client has left: %s, which waits %s%s"
            logger.warning(text, _describe(request), where_it_waits(request.task), more)

    async def end_all(self, timeout: float) -> None:
        """Disconnect every client, and return when the last app has ended.

        An app has *timeout* seconds, counted from when its client left, which may be long ago. Then it is cancelled,
        with a warning. After that it has `CANCEL_PATIENCE` seconds to clean up. If it still runs then, an error is
        logged, and it is not waited for any more.
        """
        for connection in self.connections:
            connection.close_client()
        for request in self._requests:
            request.disconnect()
        with self.reporting_delay():
            cancelled = await self._cancel_overdue(timeout)
        if cancelled and await self._wait_for_cancelled(cancelled):
            self._serving.clear()  # which wait for these apps
        if self._serving:
            await asyncio.wait(self._serving, timeout=CANCEL_PATIENCE)

    async def _wait_for_cancelled(self, cancelled: dict[asyncio.Task[None], AppRequest]) -> bool:
        """Return when they have ended, or after `CANCEL_PATIENCE` seconds; whether some still run."""
        _, still_running = await asyncio.wait(cancelled, timeout=CANCEL_PATIENCE)
        for task in still_running:
            described = _describe(cancelled[task])
            self._remove(cancelled[task])  # it still runs, but is not waited for any more
            logger.error("An app went on though it was cancelled: %s, %s", described, where_it_waits(task))
        return bool(still_running)

    def cancel_all(self, lifespans: Collection[Lifespan]) -> dict[asyncio.Task[None], AppRequest]:
        """Cancel every request to the apps of *lifespans* now. Its client is told nothing of that."""
        cancelled: dict[asyncio.Task[None], AppRequest] = {}
        for request in [request for request in self._requests if request.mounted.lifespan in lifespans]:
            assert request.task is not None
            request.task.cancel("The app has crashed")
            request.disconnect()  # after cancel(), so that the app is cancelled where it waits, and told nothing else
            cancelled[request.task] = request
        return cancelled

    async def wait_for_cancelled(self, cancelled: dict[asyncio.Task[None], AppRequest]) -> None:
        """Wait for the requests that `cancel_all()` has cancelled, within limits, as `end_all()` does."""
        if cancelled:
            await self._wait_for_cancelled(cancelled)

    async def _cancel_overdue(self, timeout: float) -> dict[asyncio.Task[None], AppRequest]:
        cancelled: dict[asyncio.Task[None], AppRequest] = {}
        hurry = self.loop.create_task(self._hurry.wait())
        try:
            for request, task in [(request, request.task) for request in sorted(self._requests, key=_left_at)]:
                assert task is not None  # it is set when the app's first step is over
                patience = max(_left_at(request) + timeout - self.loop.time(), 0)
                await asyncio.wait({task, hurry}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not task.done():
                    text = "Cancelled an app, still running when the connector closed: %s, which waited %s"
                    place = where_it_waits(task)
                    logger.warning(text, _describe(request), place)
                    self._notices.tell(Notice(f"waited {place}, and was cancelled", observer=request.observer))
                    task.cancel("The connector was closed")
                    cancelled[task] = request
        finally:
            hurry.cancel()
        return cancelled


def _describe(request: AppRequest) -> str:
    return f"{request.method} {request.url}, by {request.mounted!r}"


def _left_at(request: AppRequest) -> float:
    assert request.disconnected_at is not None
    return request.disconnected_at
