"""`FaultBlock`: an open block that lets something fail. It counts what it affects, and fails if it affects nothing."""

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, NamedTuple, Self
from weakref import WeakValueDictionary

from aiohttp import ClientConnectionError, ClientRequest, ClientTimeout

from asgi_connector._blocks import Block
from asgi_connector._journal.explanation import explain
from asgi_connector._journal.journal import Journal, RecentJournal
from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.recorder import Recorder, Recording
from asgi_connector._journal.selector import Call, Selector
from asgi_connector._network.impairments import Stage
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._notices import Notice
from asgi_connector._services.patterns import Pattern
from asgi_connector._services.services import Services

from .faults import Fault, Held, Silence

_ANYTHING: Final = Selector()


class Effect(NamedTuple):
    """One fault that affects one request; *delay* is the seconds of a `Latency`, else 0."""

    block: "FaultBlock"
    fault: Fault | Silence | Held
    delay: float = 0.0


class Calls:
    """The latest calls during a block, for its error message."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._journal = RecentJournal()
        self._recording = Recording(self._journal)

    def begin(self) -> None:
        self._recorder.begin_recording(self._recording)

    def end(self) -> None:
        self._recorder.end_recording(self._recording)

    def explain(self, text: str, selector: Selector = _ANYTHING) -> str:
        """Return *text*, the calls that *selector* selects, and the other calls."""
        found = Journal(each for each in self._journal if each.service is not None and selector.matches(each))
        return explain(text, selector, self._journal, found)

    def explain_unused(self, problem: str, selector: Selector = _ANYTHING) -> str:
        """Return the message of the error for a block that has affected nothing, which *problem* says."""
        text = self.explain(problem, selector)
        return f"{text}\nA block that affects nothing has tested nothing; allow_unused=True permits it."


class OpenBlocks:
    """The open blocks of one connector, and what they act on.

    `has_idle` tells whether a request will use an idle connection of the pool.
    """

    def __init__(self, recorder: Recorder, services: Services, has_idle: Callable[[ClientRequest], bool]) -> None:
        self.recorder = recorder
        self.notices = services.notices
        self.has_idle = has_idle
        self.open: list[FaultBlock] = []  # the innermost last
        self.loop = services.loop
        self.table = services.table
        self.connections = services.in_flight.connections

    def check_host(self, selector: Selector) -> Pattern:
        """Return the host of *selector*. Raises `TypeError` or `ValueError` unless an app is mounted for it."""
        if selector.host is None:
            raise TypeError("host must be a host pattern, not None")
        if not self.table.answers(selector.host):
            mounted = self.table.describe(selector.host.host)
            raise ValueError(f"{str(selector.host)!r} is not mounted, and the fallback cannot be shaken. {mounted}")
        return selector.host

    def end_all(self) -> None:
        """Stop every fault, because the connector closes."""
        for block in self.open:
            block.end_fault(ClientConnectionError("Connector is closed"))


class FaultBlock(Block):
    """An open block that affects requests.

    Attributes:
        matched: the number of requests that have matched its criteria.
        affected: the number of them that it has affected.
    """

    def __init__(self, blocks: OpenBlocks, call: str, allow_unused: bool) -> None:
        self.matched: int = 0
        self.affected: int = 0
        self.over = False
        self._blocks = blocks
        self._allow_unused = allow_unused
        self._calls: Calls | None = None  # made when the block begins
        self._stages: WeakValueDictionary[int, Stage] = WeakValueDictionary()  # in order of creation
        self._numbers = itertools.count()
        super().__init__(call, "with")

    def __enter__(self) -> Self:
        self._enter()
        self._calls = calls = Calls(self._blocks.recorder)
        calls.begin()
        self._blocks.open.append(self)
        self.affect_open_connections()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True  # pytest shows the block
        assert self._calls is not None
        self._blocks.open.remove(self)
        self._calls.end()
        self.end_fault()
        problem = self.problem()
        if problem is None:
            return
        if exc_type is None:
            raise AssertionError(self._explain_unused(self._calls, problem))
        self._blocks.notices.tell(Notice(problem, unused=True))

    def end_fault(self, error: ClientConnectionError | None = None) -> None:
        """Stop the fault. Bytes that it held back are passed on.

        The connector passes an *error* when it closes. Then held bytes are lost.
        """
        self.over = True
        if error is None:
            for stage in list(self._stages.values()):
                stage.end_fault()

    def add_stage(self, stage: Stage) -> None:
        """Register *stage*, so that `end_fault()` ends it."""
        self._stages[next(self._numbers)] = stage

    @abstractmethod
    def effect_on(self, call: Call, exchange: LiveExchange | None) -> Effect | None:
        """Decide, once, whether *call* is affected, and how. It has no *exchange* if it started before any block."""
        ...

    async def before_connection(self, effect: Effect, req: ClientRequest, timeout: ClientTimeout) -> None:
        """Act before *req* has a connection. Raises what aiohttp raises if it gets none."""

    def keeps_late(self, call: Call, exchange: LiveExchange | None) -> bool:
        """Whether *call*, which has waited for its connection since before the block began, must not have one."""
        return False

    async def wait_late(self, req: ClientRequest, timeout: ClientTimeout) -> None:
        """Wait until *req*, which `keeps_late()`, may have a connection. Raises as `before_connection()` does."""

    @abstractmethod
    def stages(
        self, effect: Effect, exchange: LiveExchange, client: MemoryTransport
    ) -> Iterable[tuple[MemoryTransport, Stage]]:
        """Make the stages for the connection with the end *client*, each with the end whose bytes it takes."""
        ...

    @abstractmethod
    def affect_open_connections(self) -> None:
        """Act on the connections that are open when the block begins."""
        ...

    def problem(self) -> str | None:
        """What is wrong with the block: it has affected nothing, though it should. `None` if nothing is wrong."""
        return None if self._allow_unused or not self._is_unused() else self._describe_unused()

    def _is_unused(self) -> bool:
        return not self.affected

    @abstractmethod
    def _describe_unused(self) -> str:
        """Say, as a sentence, that the block has affected nothing, and why."""
        ...

    def _explain_unused(self, calls: Calls, problem: str) -> str:
        """The message of the error for a block that has affected nothing, which *problem* says."""
        return calls.explain_unused(problem)
