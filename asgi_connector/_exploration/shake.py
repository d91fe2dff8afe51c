"""`Shake`: what a scenario gets for one run. It names the calls of the run, and causes the planned faults."""

# A shake block is a part of its connector.
# pyright: reportPrivateUsage=false

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from asgi_connector._exchange.exchange import Exchange
from asgi_connector._injection.blocks import Effect, OpenBlocks
from asgi_connector._injection.injections import Injection, Odds
from asgi_connector._journal.journal import Journal
from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.selector import Call, Selector

from .names import CallName, Namer
from .plan import Plan, PlannedFault

if TYPE_CHECKING:
    from asgi_connector._connector.routing import ASGIRoutingConnector

_ALWAYS: Final = Odds(times=None, skip=0, probability=1.0, seed=0)


class Shake:
    """One run of a scenario: ``with shake(connector):`` lets the planned calls of that connector fail.

    Attributes:
        plan: the faults of this run; it has a text for the messages of assertions.
        journal: the calls of this run so far.
        error: the exception that left the block because of a fault; `None` without one.
    """

    __module__ = "asgi_connector.faults"

    def __init__(self, plan: Plan) -> None:
        self._names = Namer()
        self._affected: set[PlannedFault] = set()
        self._shaken: list[ASGIRoutingConnector] = []
        self.plan = plan
        self.journal: Journal = _NamedJournal(self._names)
        self.error: Exception | None = None

    @property
    def calls(self) -> list[CallName]:
        """The names of the calls to mounted apps, in the order in which they started."""
        return [self._names.name(exchange) for exchange in self.journal if exchange.service is not None]

    @property
    def unused(self) -> list[PlannedFault]:
        """The planned faults that have met no call."""
        return [planned for planned in self.plan.faults if planned not in self._affected]

    @contextmanager
    def __call__(self, connector: "ASGIRoutingConnector") -> Iterator[None]:
        """Record the calls in the block, and cause the planned faults.

        An exception that leaves the block after a fault has affected a call is kept in `error`, and does not go on. An
        `AssertionError` goes on.

        Parameters:
            connector: an `ASGIRoutingConnector` or an `ASGIApplicationConnector`. A scenario may have several.

        Raises `RuntimeError` if the connector is in such a block already.
        """
        if any(other is connector for other in self._shaken):
            raise RuntimeError(f"{connector!r} is in a shake block already")
        instruments = connector._get_instruments()
        self._shaken.append(connector)
        with ExitStack() as blocks:
            blocks.callback(self._shaken.remove, connector)
            blocks.enter_context(instruments.recorder.record(None, self.journal))
            for planned in self.plan.faults:
                blocks.enter_context(_PlannedInjection(instruments.blocks, planned, self._names, self._affected.add))
            try:
                yield
            except AssertionError:
                raise
            except Exception as exc:
                if not self._affected:
                    raise
                self.error = exc


class _NamedJournal(Journal):
    """Names each call when it starts."""

    def __init__(self, names: Namer) -> None:
        super().__init__()
        self._names = names

    @override
    def add(self, exchange: Exchange) -> None:
        super().add(exchange)
        self._names.name(exchange)


class _PlannedInjection(Injection):
    """Affects the calls that a planned fault names."""

    def __init__(
        self, blocks: OpenBlocks, planned: PlannedFault, names: Namer, note_affected: Callable[[PlannedFault], None]
    ) -> None:
        self._planned = planned
        self._names = names
        self._note_affected = note_affected
        super().__init__(blocks, Selector("*"), planned.fault, _ALWAYS, allow_unused=True)

    @override
    def effect_on(self, call: Call, exchange: LiveExchange | None) -> Effect | None:
        if exchange is None or not self._planned.affects(self._names.name(exchange)):
            return None
        self._note_affected(self._planned)
        return self.draw()

    @override
    def affect_open_connections(self) -> None:
        """A call that has started before has no name."""
