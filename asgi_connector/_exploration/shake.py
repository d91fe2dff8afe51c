"""`Shake`: what a scenario gets for one run. It names the calls of the run, and causes the planned faults."""

# A shake block is a part of its connector.
# pyright: reportPrivateUsage=false

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Final

from typing_extensions import override

from asgi_connector._blocks import Block
from asgi_connector._connector.routing import ASGIRoutingConnector
from asgi_connector._exchange.exchange import Clock, Exchange
from asgi_connector._injection.blocks import Effect, OpenBlocks
from asgi_connector._injection.injections import Injection, Odds
from asgi_connector._journal.journal import Journal
from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.recorder import Recorder, Recording
from asgi_connector._journal.selector import Call, Selector
from asgi_connector._waiters import Waiters

from .findings import parts_of
from .names import CallName, Namer
from .plan import Plan, PlannedFault
from .source import source_of

_ALWAYS: Final = Odds(times=None, skip=0, probability=1.0, seed=0)


class Shake:
    """One run of a scenario: ``with shake(connector):`` lets the planned calls of that connector fail.

    Attributes:
        plan: the faults of this run; it has a text for the messages of assertions.
        journal: the calls in the blocks of this run so far; a `Journal` that can be asked and waited for.
        error: the exception that the last block has kept, because a fault may have caused it; `None` without one.
    """

    __module__ = "asgi_connector.faults"

    def __init__(self, plan: Plan) -> None:
        self._names = Namer()
        self._met: set[PlannedFault] = set()
        self._connectors: list[ASGIRoutingConnector] = []
        self._recorders: list[Recorder] = []  # of the connectors
        self._open: list[ASGIRoutingConnector] = []
        self._waiters = Waiters()  # for the end of an exchange
        self.plan = plan
        self.journal = Journal(waiters=self._waiters)
        self.error: Exception | None = None

    @property
    def calls(self) -> list[CallName]:
        """The names of the calls to mounted apps, in the order in which they started."""
        return [self._names.name_of(exchange) for exchange in self.journal if exchange.service is not None]

    @property
    def unused(self) -> list[PlannedFault]:
        """The planned faults that have met no call."""
        return [planned for planned in self.plan.faults if planned not in self._met]

    @property
    def source(self) -> str:
        """Python that causes the same faults; see `Finding.source`."""
        return source_of(self.plan, [(self._names.name_of(exchange), exchange) for exchange in self.journal])

    def __call__(self, connector: ASGIRoutingConnector) -> AbstractContextManager[None, bool]:
        """Record the calls in the block, and cause the planned faults.

        An exception that leaves the block after a fault has met a call is kept in `error`, and does not go on. An
        `AssertionError` goes on, also as a part of an exception group.

        Parameters:
            connector: an `ASGIRoutingConnector` or an `ASGIApplicationConnector`. A scenario may have several.

        Raises `TypeError` for another object, and `RuntimeError` if the connector is in such a block already, or if
        nothing is mounted.
        """
        return _ShakeBlock(self._block(connector))

    @contextmanager
    def _block(self, connector: ASGIRoutingConnector) -> Generator[None]:
        self._check(connector)
        instruments = connector._get_instruments()
        recorder, injections = instruments.recorder, instruments.get_injector().blocks
        number = self._number_of(connector, recorder)
        with ExitStack() as blocks:
            self._open.append(connector)
            blocks.callback(self._open.remove, connector)
            recording = Recording(_NamedJournal(self._names, number, self.journal))
            recorder.begin_recording(recording)
            blocks.callback(recorder.end_recording, recording)
            for planned in self.plan.faults:
                blocks.enter_context(_PlannedInjection(injections, planned, self._names, self._met.add))
            try:
                yield
            except Exception as exc:
                if not self._met or _is_or_has_assertion(exc):
                    raise
                self.error = exc

    def leave_out_of_reports(self) -> None:
        """Leave the calls of this run out of the report of a test, because the exploration reports them."""
        explored = frozenset(self.journal)
        for recorder in self._recorders:
            recorder.leave_out(explored)

    def _check(self, connector: ASGIRoutingConnector) -> None:
        if not isinstance(connector, ASGIRoutingConnector):
            raise TypeError(f"shake() takes an ASGIRoutingConnector or an ASGIApplicationConnector, not {connector!r}")
        if any(other is connector for other in self._open):
            raise RuntimeError(f"{connector!r} is in a shake block already")
        if not connector.mounts:
            raise RuntimeError(f"nothing is mounted at {connector!r}: mount the apps before the shake block")

    def _number_of(self, connector: ASGIRoutingConnector, recorder: Recorder) -> int:
        """The number of *connector*, from 1, in the order of the blocks."""
        for number, other in enumerate(self._connectors, 1):
            if other is connector:
                return number
        self._connectors.append(connector)
        self._waiters.follow(recorder.waiters)
        self._recorders.append(recorder)
        Clock.put_in_one_order([each.clock for each in self._recorders])
        return len(self._connectors)


class _ShakeBlock(Block):
    def __init__(self, block: AbstractContextManager[None]) -> None:
        self._block = block
        super().__init__("shake(connector)", "with")

    def __repr__(self) -> str:
        return self._call

    @override
    def _example(self) -> str:
        return f"with {self._call}:"

    def __enter__(self) -> None:
        self._enter()
        self._block.__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        __tracebackhide__ = True  # pytest shows the block
        return bool(self._block.__exit__(exc_type, exc, traceback))


class _NamedJournal(Journal):
    """Names each call of one connector when it starts, and passes it on to the journal of the run."""

    def __init__(self, names: Namer, connector: int, journal: Journal) -> None:
        super().__init__()
        self._names = names
        self._connector = connector
        self._journal = journal

    @override
    def add(self, exchange: Exchange) -> None:
        self._names.name(exchange, self._connector)
        self._journal.add(exchange)


class _PlannedInjection(Injection):
    """Affects the calls that a planned fault names."""

    def __init__(
        self, blocks: OpenBlocks, planned: PlannedFault, names: Namer, note_met: Callable[[PlannedFault], None]
    ) -> None:
        self._planned = planned
        self._names = names
        self._note_met = note_met
        super().__init__(blocks, Selector("*"), planned.fault, _ALWAYS, allow_unused=True)

    @override
    def effect_on(self, call: Call, exchange: LiveExchange | None) -> Effect | None:
        assert exchange is not None  # it affects no call that started before the block
        if not self._planned.affects(self._names.name_of(exchange)):
            return None
        self._note_met(self._planned)
        return self.draw()

    @override
    def affect_open_connections(self) -> None:
        """A call that has started before has no name."""


def _is_or_has_assertion(error: BaseException) -> bool:
    """Whether *error* is an `AssertionError`, or a group that has one."""
    return isinstance(error, AssertionError) or any(map(_is_or_has_assertion, parts_of(error)))
