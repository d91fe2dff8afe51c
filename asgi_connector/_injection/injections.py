"""`inject()` blocks: which requests their faults affect, decided once when a request starts, and how."""

import asyncio
import errno
import itertools
import math
import os
import random
import socket
from contextlib import AbstractContextManager
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self, TypeGuard
from weakref import WeakValueDictionary

import aiohttp.connector
from aiohttp import ClientConnectionError, ClientConnectorDNSError, ClientConnectorError, ClientRequest, ClientTimeout

from asgi_connector._aiohttp.requests import connect_timeout
from asgi_connector._blocks import Block
from asgi_connector._journal.explanation import explain
from asgi_connector._journal.journal import Journal, RecentJournal
from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.recorder import Recorder
from asgi_connector._journal.selector import Call, Selector, call_of
from asgi_connector._network.impairments import (
    Allowance,
    CutStage,
    HangStage,
    Impairments,
    LatencyStage,
    Stage,
    ThrottleStage,
)
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._numbers import check_int, is_number, shown
from asgi_connector._services.patterns import covers
from asgi_connector._services.server_end import RequestProgress, ServerEnd
from asgi_connector._services.services import Services
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from asgi_connector._waiters import Waiters

from .faults import Close, Fault, Hang, Latency, Refuse, Reset, Respond, Throttle, Unresolvable

_ByteFault = Hang | Reset | Close | Latency | Throttle


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


class Injection(Block):
    """An open `inject()` block.

    Attributes:
        fault: the fault that it injects.
        matched: the number of requests that have matched its criteria.
        affected: the number of them that the fault has affected.
    """

    __module__ = "asgi_connector.faults"

    def __init__(
        self,
        owner: "Injections",
        selector: Selector,
        fault: Fault,
        odds: Odds,
        allow_unused: bool,
    ) -> None:
        self.fault = fault
        self.matched = 0
        self.affected = 0
        self.selector = selector
        self.odds = odds
        self._owner = owner
        self._random = random.Random(odds.seed)
        self._allow_unused = allow_unused
        self._recording: AbstractContextManager[Journal] | None = None
        self._journal = RecentJournal()
        self._stages: WeakValueDictionary[int, Stage] = WeakValueDictionary()  # in order of creation
        self._numbers = itertools.count()
        self._waiters = Waiters()  # requests that wait for the end of the block
        self.over = False
        super().__init__(f"inject({str(selector.host)!r}, {type(fault).__name__}(...))", "with")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.fault!r}, {self.matched} matched, {self.affected} affected>"

    @property
    def struck(self) -> int:
        """The earlier name of ``affected``."""
        return self.affected

    def __enter__(self) -> Self:
        self._enter()
        self._recording = self._owner.recorder.record(None, self._journal)
        self._recording.__enter__()
        self._owner.open.append(self)
        self._owner.affect_open_connections(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True  # pytest shows the block
        assert self._recording is not None
        self._owner.open.remove(self)
        self._recording.__exit__(None, None, None)
        self.end_fault()
        if exc_type is None and not self._allow_unused and self._is_unused():
            raise AssertionError(self._explain())

    def end_fault(self, error: ClientConnectionError | None = None) -> None:
        """Stop the fault. Bytes that it held back are passed on, and requests that wait for a connection continue.

        The connector passes an *error* when it closes. Then held bytes are lost, and waiting requests fail with it.
        """
        self.over = True
        if error is None:
            for stage in list(self._stages.values()):
                stage.end_fault()
        self._waiters.wake(error)

    def draw(self) -> "Effect | None":
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

    def add_stage(self, stage: Stage) -> None:
        """Register *stage*, so that `end_fault()` ends it."""
        self._stages[next(self._numbers)] = stage

    async def wait_over(self, timeout: ClientTimeout) -> None:
        """Return at the end of the block. Raises `TimeoutError` as for a connection attempt without an answer."""
        async with asyncio.timeout(connect_timeout(timeout)):
            await self._waiters.wait()

    def _is_unused(self) -> bool:
        # With a probability below 1, a block may affect no request.
        return self.matched == 0 or (self.affected == 0 and self.odds.probability == 1)

    def _explain(self) -> str:
        found = Journal(each for each in self._journal if each.service is not None and self.selector.matches(each))
        if self.matched > self.odds.skip:
            reason = f"a block inside of its own has answered the requests to {self.selector}."
        elif self.matched:
            reason = f"it was to skip {self.odds.skip} requests to {self.selector}, and met {self.matched}."
        else:
            reason = f"there was no request to {self.selector} while it was injected."
        text = f"{self.fault!r} has affected no request: {reason}"
        hint = "A fault that met no request has tested nothing; allow_unused=True permits it."
        return f"{explain(text, self.selector, self._journal, found)}\n{hint}"


class Effect(NamedTuple):
    """One fault that affects one request; *delay* is the seconds of a `Latency`, else 0."""

    injection: Injection
    fault: Fault
    delay: float


class Injections:
    """The open `inject()` blocks of one connector."""

    def __init__(self, recorder: Recorder, services: Services) -> None:
        self.recorder = recorder
        self.open: list[Injection] = []  # the innermost last
        self._loop = services.loop
        self._table = services.table
        self._connections = services.in_flight.connections

    def inject(self, selector: Selector, fault: Fault, odds: Odds, allow_unused: bool) -> Injection:
        """Return a block that is not entered yet. Raises `TypeError` or `ValueError` for an invalid parameter."""
        if not isinstance(fault, Fault):
            raise TypeError(f"fault must be one of asgi_connector.faults, such as faults.Reset(), not {fault!r}")
        if selector.host is None:
            raise TypeError("host must be a host pattern, not None")
        if not self._table.answers(selector.host):
            mounted = self._table.describe(selector.host.host)
            raise ValueError(f"{str(selector.host)!r} is not mounted, and the fallback cannot be shaken. {mounted}")
        return Injection(self, selector, fault, odds, allow_unused)

    def end_all(self) -> None:
        """Stop every fault, because the connector closes."""
        for injection in self.open:
            injection.end_fault(ClientConnectionError("Connector is closed"))

    def choose(self, exchange: LiveExchange) -> "Effects":
        """Decide which faults affect a request to an app. Every block that it matches draws once, innermost first."""
        call = call_of(exchange)
        effects: list[Effect] = []
        answered = refused = False
        for injection in reversed(self.open):
            if injection.over or injection.selector.differences_of_call(call):
                continue
            effect = injection.draw()
            if effect is None or refused:
                continue
            if isinstance(effect.fault, Refuse | Unresolvable | Respond):
                if answered:
                    continue  # an inner block answers
                answered = True
            if isinstance(effect.fault, Refuse | Unresolvable):
                refused = True
                effects = [earlier for earlier in effects if not _acts_on_bytes(earlier.fault)]
            effects.append(effect)
        for effect in effects:
            effect.injection.affected += 1
        return Effects(exchange, effects, self._loop)

    def affect_open_connections(self, injection: Injection) -> None:
        """Apply the fault of a block that begins to the connections that are open already."""
        fault = injection.fault
        host = injection.selector.host
        assert host is not None
        for connection in tuple(self._connections):
            if not covers(host, connection.address) or not connection.client.connected:
                continue
            progress = connection.progress()
            if progress is not None:
                if injection.odds.certain and _acts_on_bytes(fault):
                    self._affect_request(injection, fault, connection, progress)
            elif isinstance(fault, Refuse | Unresolvable) or (isinstance(fault, Hang) and fault.on == "connect"):
                connection.retire()
            elif isinstance(fault, Reset | Close) and injection.odds.certain and injection.selector.any_call:
                connection.transport.cut(_reset() if isinstance(fault, Reset) else None)

    def _affect_request(
        self, injection: Injection, fault: Fault, connection: ServerEnd, progress: RequestProgress
    ) -> None:
        assert isinstance(fault, _ByteFault)
        exchange = progress.observer if isinstance(progress.observer, LiveExchange) else None
        call = Call(connection.address, progress.caller, progress.method, progress.path, progress.query)
        if injection.selector.differences_of_call(call if exchange is None else call_of(exchange)):
            return
        effect = injection.draw()
        assert effect is not None  # the odds are certain
        injection.affected += 1
        if exchange is not None:
            exchange.fault = fault
        server = connection.transport
        if fault.on == "request":
            pipe, begun, head_passed = server.peer, progress.request_begun, progress.request_head_passed
        else:
            pipe, begun, head_passed = server, progress.response_begun, progress.response_head_passed
        if isinstance(fault, Reset | Close) and begun and (fault.after is None or (fault.after == 0 and head_passed)):
            _cut(pipe, fault, exchange)
            return
        medium = pipe.medium
        stage = _stage_for(effect, fault, pipe, exchange, self._loop, head_passed=head_passed)
        if isinstance(medium, Impairments):
            medium.add(stage)
        else:
            impairments = Impairments(pipe)
            impairments.add(stage)
            pipe.use_medium(impairments)


class Effects:
    """The faults that affect one request, the innermost first."""

    def __init__(self, exchange: LiveExchange, effects: list[Effect], loop: asyncio.AbstractEventLoop) -> None:
        self._exchange = exchange
        self._effects = effects
        self._loop = loop
        if effects:
            exchange.fault = effects[0].fault
        if any(_keeps_from_app(effect.fault) for effect in effects):
            exchange.via = "fault"

    async def before_connection(self, req: ClientRequest, timeout: ClientTimeout) -> None:
        """Apply the faults that act before there is a connection. Raises what aiohttp raises for them."""
        for injection, fault, _ in self._effects:
            if injection.over:
                continue  # its block ended while the request waited for another block
            if isinstance(fault, Refuse):
                text = f"Connect call failed ({req.host!r}, {req.port})"
                refused = ConnectionRefusedError(errno.ECONNREFUSED, text)
                raise ClientConnectorError(req.connection_key, refused) from refused
            if isinstance(fault, Unresolvable):
                unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
                raise ClientConnectorDNSError(req.connection_key, unknown) from unknown
            if isinstance(fault, Hang) and fault.on == "connect":
                await injection.wait_over(timeout)
        for injection, fault, _ in self._effects:
            if isinstance(fault, Respond) and not injection.over:
                self._exchange.app = _app_for(fault)

    def act_on(self, connection: aiohttp.connector.Connection) -> None:
        """Apply the faults to both directions of the connection. They replace those of an earlier request."""
        client = connection.transport
        assert isinstance(client, MemoryTransport)
        for pipe in (client, client.peer):
            if isinstance(pipe.medium, Impairments):
                pipe.medium.remove()
        impaired: dict[MemoryTransport, Impairments] = {}
        for effect in self._effects:
            fault = effect.fault
            if effect.injection.over or not _acts_on_bytes(fault):
                continue
            pipe = client if fault.on == "request" else client.peer
            impairments = impaired.setdefault(pipe, Impairments(pipe))
            impairments.add(_stage_for(effect, fault, pipe, self._exchange, self._loop, head_passed=False))
        for pipe, impairments in impaired.items():
            pipe.use_medium(impairments)


def _acts_on_bytes(fault: Fault) -> TypeGuard[_ByteFault]:
    return isinstance(fault, _ByteFault) and fault.on != "connect"


def _keeps_from_app(fault: Fault) -> bool:
    """Whether the fault keeps the whole request from the app, for a time or for good."""
    if isinstance(fault, Hang | Reset | Close):
        return fault.on != "response" and fault.after is None
    return isinstance(fault, Refuse | Unresolvable | Respond)


def _reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def _cut(pipe: MemoryTransport, fault: Reset | Close, exchange: LiveExchange | None) -> None:
    reset = _reset() if isinstance(fault, Reset) else None
    if exchange is not None:
        exchange.cut_off(reset or ConnectionAbortedError(errno.ECONNABORTED, "The connection was closed by a fault"))
    if isinstance(pipe.medium, Impairments):
        pipe.medium.release_arrivals()
    pipe.cut(reset)


def _stage_for(
    effect: Effect,
    fault: _ByteFault,
    pipe: MemoryTransport,
    exchange: LiveExchange | None,
    loop: asyncio.AbstractEventLoop,
    *,
    head_passed: bool,
) -> Stage:
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
        stage = CutStage(allowance, lambda: loop.call_soon(_cut, pipe, fault, exchange, context=Context()))
    effect.injection.add_stage(stage)
    return stage


def _app_for(fault: Respond) -> ASGIApp:
    """Return an app that answers every request and every handshake as *fault* says."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
        await send({"type": f"{kind}.start", "status": fault.status, "headers": fault.raw_headers})
        await send({"type": f"{kind}.body", "body": fault.raw_body})

    return respond


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
