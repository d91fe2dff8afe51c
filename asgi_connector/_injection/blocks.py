"""`FaultBlock`: an open block that lets something fail. It counts what it affects, and fails if it affects nothing."""

import itertools
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NamedTuple, Self
from weakref import WeakValueDictionary

from aiohttp import ClientConnectionError, ClientRequest, ClientTimeout

from asgi_connector._blocks import Block
from asgi_connector._journal.journal import Journal, RecentJournal
from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.recorder import Recorder
from asgi_connector._journal.selector import Call, Selector
from asgi_connector._network.impairments import Stage
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._services.patterns import Pattern
from asgi_connector._services.services import Services

from .faults import Fault, Held, Silence


class Effect(NamedTuple):
    """One fault that affects one request; *delay* is the seconds of a `Latency`, else 0."""

    block: "FaultBlock"
    fault: Fault | Silence | Held
    delay: float = 0.0


class OpenBlocks:
    """The open blocks of one connector, and what they act on."""

    def __init__(self, recorder: Recorder, services: Services) -> None:
        self.recorder = recorder
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
        self.matched = 0
        self.affected = 0
        self.over = False
        self._blocks = blocks
        self._allow_unused = allow_unused
        self._recording: AbstractContextManager[Journal] | None = None
        self._journal = RecentJournal()
        self._stages: WeakValueDictionary[int, Stage] = WeakValueDictionary()  # in order of creation
        self._numbers = itertools.count()
        super().__init__(call, "with")

    def __enter__(self) -> Self:
        self._enter()
        self._recording = self._blocks.recorder.record(None, self._journal)
        self._recording.__enter__()
        self._blocks.open.append(self)
        self.affect_open_connections()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True  # pytest shows the block
        assert self._recording is not None
        self._blocks.open.remove(self)
        self._recording.__exit__(None, None, None)
        self.end_fault()
        if exc_type is None and not self._allow_unused and self._is_unused():
            raise AssertionError(self._explain())

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

    def _is_unused(self) -> bool:
        return not self.affected

    @abstractmethod
    def _explain(self) -> str:
        """The message of the error for a block that has affected nothing."""
        ...
