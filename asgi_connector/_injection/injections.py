"""`inject()` blocks: which requests their faults affect, decided once when a request starts, and how."""

import math
import random
from collections.abc import Iterable
from contextvars import Context
from dataclasses import dataclass
from typing import cast

from aiohttp import ClientConnectionError, ClientRequest, ClientTimeout
from typing_extensions import override

from asgi_connector._aiohttp.requests import connection_refused, host_unknown, wait_to_connect
from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.selector import Call, Selector, call_of
from asgi_connector._network.impairments import Allowance, CutStage, HangStage, LatencyStage, Stage, ThrottleStage
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._numbers import check_int, is_number, shown
from asgi_connector._services.patterns import covers
from asgi_connector._services.server_end import RequestProgress, ServerEnd
from asgi_connector._waiters import Waiters

from .blocks import Calls, Effect, FaultBlock, OpenBlocks
from .effects import ByteFault, acts_on_bytes, cut, put_in_way, reset_error
from .faults import Close, Fault, Hang, Latency, Refuse, Reset, Throttle, Unresolvable


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """Which of the matching requests are affected; see `ASGIRoutingConnector.inject`."""

    times: int | None
    skip: int
    probability: float
    seed: int | float | str | bytes

    def __post_init__(self) -> None:
        if self.times is not None:
            check_int("times", self.times, at_least=1)
        check_int("skip", self.skip, at_least=0)
        if not is_number(self.probability):
            raise TypeError(f"probability must be an int or a float, not {self.probability!r}")
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability must be more than 0, and no more than 1, not {shown(self.probability)}")
        _check_seed(self.seed)

    @property
    def certain(self) -> bool:
        """Whether every matching request is affected."""
        return self.times is None and not self.skip and self.probability == 1


class Injection(FaultBlock):
    """An open `inject()` block.

    Attributes:
        fault: the fault that it injects.
        matched: the number of requests that have matched its criteria.
        affected: the number of them that the fault has affected.
    """

    __module__ = "asgi_connector.faults"

    def __init__(self, blocks: OpenBlocks, selector: Selector, fault: Fault, odds: Odds, allow_unused: bool) -> None:
        """Raises `TypeError` or `ValueError` for an invalid parameter."""
        if not isinstance(fault, Fault):
            raise TypeError(f"fault must be one of asgi_connector.faults, such as faults.Reset(), not {fault!r}")
        self._host = blocks.check_host(selector)
        self.fault = fault
        self.selector = selector
        self.odds = odds
        self._random = random.Random(odds.seed)
        self._waiters = Waiters()  # requests that wait for the end of the block
        super().__init__(blocks, f"inject({str(selector.host)!r}, {type(fault).__name__}(...))", allow_unused)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.fault!r}, {self.matched} matched, {self.affected} affected>"

    @property
    def struck(self) -> int:
        """The earlier name of ``affected``."""
        return self.affected

    @override
    def end_fault(self, error: ClientConnectionError | None = None) -> None:
        super().end_fault(error)
        self._waiters.wake(error)

    @override
    def effect_on(self, call: Call, exchange: LiveExchange | None) -> Effect | None:
        return self.draw() if self.selector.matches_call(call) else None

    def draw(self) -> Effect | None:
        """Decide whether the fault affects a matching request. Every request draws equally many random numbers."""
        self.matched += 1
        fault, odds = self.fault, self.odds
        drawn = self._random.random() < odds.probability
        delay = 0.0
        if isinstance(fault, Latency):
            delay = fault.seconds + self._random.uniform(-fault.jitter, fault.jitter)
        if drawn and self.matched > odds.skip and (odds.times is None or self.affected < odds.times):
            return Effect(self, fault, delay)
        return None

    @override
    async def before_connection(self, effect: Effect, req: ClientRequest, timeout: ClientTimeout) -> None:
        fault = self.fault
        if isinstance(fault, Refuse):
            raise connection_refused(req)
        if isinstance(fault, Unresolvable):
            raise host_unknown(req)
        if isinstance(fault, Hang) and fault.on == "connect":
            await wait_to_connect(self._waiters.wait(), timeout)

    @override
    def stages(
        self, effect: Effect, exchange: LiveExchange, client: MemoryTransport
    ) -> Iterable[tuple[MemoryTransport, Stage]]:
        fault = self.fault
        if acts_on_bytes(fault):
            pipe = client if fault.on == "request" else client.peer
            yield pipe, self._stage_for(effect, pipe, exchange, head_passed=False)

    @override
    def affect_open_connections(self) -> None:
        fault = self.fault
        for connection in self._blocks.connections:
            if not covers(self._host, connection.address) or not connection.client.connected:
                continue
            progress = connection.progress()
            if progress is not None:
                if self.odds.certain and acts_on_bytes(fault):
                    self._affect_request(fault, connection, progress)
            elif isinstance(fault, Refuse | Unresolvable) or (isinstance(fault, Hang) and fault.on == "connect"):
                connection.retire()
            elif isinstance(fault, Reset | Close) and self.odds.certain and self.selector.any_call:
                connection.transport.cut(reset_error() if isinstance(fault, Reset) else None)

    def _affect_request(self, fault: ByteFault, connection: ServerEnd, progress: RequestProgress) -> None:
        exchange = progress.observer if isinstance(progress.observer, LiveExchange) else None
        call = Call(connection.address, progress.caller, progress.method, progress.path, progress.query)
        effect = self.effect_on(call if exchange is None else call_of(exchange), exchange)
        if effect is None:
            return
        self.affected += 1
        if exchange is not None:
            exchange.fault = fault
        server = connection.transport
        if fault.on == "request":
            pipe, begun, head_passed = server.peer, progress.request_begun, progress.request_head_passed
        else:
            pipe, begun, head_passed = server, progress.response_begun, progress.response_head_passed
        if isinstance(fault, Reset | Close) and begun and (fault.after is None or (fault.after == 0 and head_passed)):
            cut(pipe, fault, exchange)
        else:
            put_in_way(pipe, self._stage_for(effect, pipe, exchange, head_passed=head_passed))

    def _stage_for(
        self, effect: Effect, pipe: MemoryTransport, exchange: LiveExchange | None, *, head_passed: bool
    ) -> Stage:
        fault = cast(ByteFault, self.fault)
        loop = self._blocks.loop
        stage: Stage
        if isinstance(fault, Latency):
            stage = LatencyStage(loop, effect.delay)
        elif isinstance(fault, Throttle):
            stage = ThrottleStage(loop, fault.bytes_per_second)
        elif isinstance(fault, Hang):
            stage = HangStage(Allowance(fault.after, head_passed=head_passed))
        else:
            # Cut in the next turn of the event loop: a network does not act during the call that writes.
            allowance = Allowance(fault.after, head_passed=head_passed)
            stage = CutStage(allowance, lambda: loop.call_soon(cut, pipe, fault, exchange, context=Context()))
        self.add_stage(stage)
        return stage

    @override
    def _is_unused(self) -> bool:
        # With a probability below 1, a block may affect no request.
        return self.matched == 0 or (self.affected == 0 and self.odds.probability == 1)

    @override
    def _describe_unused(self) -> str:
        if self.matched > self.odds.skip:
            reason = f"a block inside of its own has answered the requests to {self.selector}."
        elif self.matched:
            reason = f"it was to skip {self.odds.skip} requests to {self.selector}, and met {self.matched}."
        else:
            reason = f"there was no request to {self.selector} while it was injected."
        return f"{self.fault!r} has affected no request: {reason}"

    @override
    def _explain_unused(self, calls: Calls, problem: str) -> str:
        hint = "A fault that met no request has tested nothing; allow_unused=True permits it."
        return f"{calls.explain(problem, self.selector)}\n{hint}"


def _check_seed(seed: int | float | str | bytes) -> None:
    """Raise if *seed* is not a valid seed of `random.Random`, or gives other numbers in each process."""
    if not isinstance(seed, int | float | str | bytes) or isinstance(seed, bool):
        raise TypeError(f"seed must be an int, a float, a str or bytes, not {seed!r}")
    if isinstance(seed, float) and not math.isfinite(seed):
        raise ValueError(f"seed must be a finite number, not {seed!r}")
    try:
        random.Random(seed)
    except UnicodeEncodeError:
        raise ValueError(f"seed must be text that UTF-8 can encode, not {seed!r}") from None
