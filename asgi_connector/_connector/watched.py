"""`Watched`: a connector that a plugin of a test runner follows, for the length of a test."""

# It is a part of its connector.
# pyright: reportPrivateUsage=false

import asyncio
import weakref
from collections.abc import Callable, Sequence
from contextvars import Context

from asgi_connector._aiohttp.pool import running_loop
from asgi_connector._exchange.exchange import Exchange
from asgi_connector._export.section import Account
from asgi_connector._journal.journal import Journal
from asgi_connector._journal.recorder import Recording
from asgi_connector._notices import Notice
from asgi_connector._stub.stub import Stub
from asgi_connector._waiters import Waiters

from .refusals import Refusals
from .routing import ASGIRoutingConnector


class Watched:
    """A connector that is watched from outside its event loop. It is not kept alive.

    Parameters:
        connector: it may belong to any event loop, also to one that runs in another thread, or that is closed.
        is_new: whether it was made during the test.
    """

    def __init__(self, connector: ASGIRoutingConnector, *, is_new: bool) -> None:
        self.is_new = is_new
        self._connector = weakref.ref(connector)
        self._services = weakref.ref(connector._services)
        self._mounts: Sequence[str] = list(connector.mounts)
        self._refusals = Refusals()
        self.notices: list[Notice] = []
        """What happened that is in no exchange."""
        self._unused: list[str] = []
        self._waited: dict[object, str] = {}  # where apps waited that were cancelled
        self._recordings: list[Callable[[], None]] = []  # what ends each of them
        connector._refusals.insert(0, self._refusals)  # an intercept() block reports its own
        connector._services.notices.listeners.append(self._note)

    def record(self, journal: Journal, waiters: Waiters, max_body_size: int | None) -> None:
        """Record into *journal* until `end()`, without bodies if *max_body_size* is `None`.

        The end of an exchange wakes *waiters*.
        """
        connector = self._connector()
        if connector is None:
            return
        recorder = connector._own_instruments().recorder
        recording = Recording(journal, max_body_size)

        def begin() -> None:
            recorder.begin_recording(recording)
            waiters.follow(recorder.waiters)

        def end() -> None:
            recorder.end_recording(recording)
            waiters.unfollow(recorder.waiters)

        self._recordings.append(end)
        run_in(connector._services.loop, begin)

    def end(self) -> None:
        """Watch no longer."""
        connector = self._connector()
        if connector is None:
            return
        connector._refusals.remove(self._refusals)
        connector._services.notices.listeners.remove(self._note)
        for end_recording in self._recordings:
            run_in(connector._services.loop, end_recording)

    def refusals(self) -> list[Refusals]:
        """The refused calls of services that were not reported yet, also those of open `intercept()` blocks."""
        connector = self._connector()
        return [self._refusals] if connector is None else list(connector._refusals)

    def stubs(self) -> dict[Stub, str]:
        """The stubs that are mounted, each with its pattern."""
        services = self._services()
        table = [] if services is None else list(services.table)
        apps = [(mounted.lifespan.source.app, mounted.pattern) for mounted in table]
        return {app: pattern for app, pattern in apps if isinstance(app, Stub)}

    def account(self, exchanges: Sequence[Exchange], dropped: int, unused: Sequence[str]) -> Account:
        """Return what there is to tell, of *exchanges* after *dropped* earlier ones and with what else is *unused*."""
        services = self._services()
        if services is not None:
            self._mounts = list(services.mounts)
        waiting = dict(self._waited)
        if services is not None:
            waiting.update((each, f"waits {place}") for each, place in services.in_flight.waiting())
        connector = self._connector()
        instruments = None if connector is None else connector._instruments
        unused_faults = [] if instruments is None else instruments.unused_faults()
        unused_answers = [
            f"The Stub at {pattern!r}: {problem}"
            for stub, pattern in self.stubs().items()
            for problem in stub.problems()
        ]
        return Account(
            mounts=self._mounts,
            exchanges=exchanges,
            dropped=dropped,
            waiting=waiting,
            notices=self.notices,
            unused=[*self._unused, *unused_faults, *unused_answers, *unused],
        )

    def _note(self, notice: Notice) -> None:
        if notice.observer is not None:
            self._waited[notice.observer] = notice.text
        elif notice.unused:
            self._unused.append(notice.text)
        else:
            self.notices.append(notice)


def run_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call *callback* in the thread in which *loop* runs: soon if that is another thread, and otherwise at once."""
    if loop.is_running() and running_loop() is not loop:
        try:
            loop.call_soon_threadsafe(callback, context=Context())
        except RuntimeError:  # it has been closed in between
            callback()
    else:
        callback()
