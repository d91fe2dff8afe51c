"""The faults that affect one request: decided once, when it starts, then applied to its connection."""

import errno
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeGuard

from aiohttp import ClientRequest, ClientTimeout
from aiohttp.connector import Connection

from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.selector import Call
from asgi_connector._network.impairments import Impairments, Stage
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._types import ASGIApp, Receive, Scope, Send

from .blocks import Effect, FaultBlock
from .faults import (
    Close,
    Fault,
    Hang,
    Held,
    Incident,
    Latency,
    Refuse,
    Reset,
    Respond,
    Silence,
    Throttle,
    Unresolvable,
)

ByteFault = Hang | Reset | Close | Latency | Throttle


def choose(blocks: Iterable[FaultBlock], call: Call, exchange: LiveExchange) -> list[Effect]:
    """Decide which of *blocks* affect a request to an app. Every block that it matches decides once, in their order."""
    effects: list[Effect] = []
    answered = refused = False
    for block in blocks:
        effect = None if block.over else block.effect_on(call, exchange)
        if effect is None or refused:
            continue
        if isinstance(effect.fault, Refuse | Unresolvable | Respond):
            if answered:
                continue  # an inner block answers
            answered = True
        if isinstance(effect.fault, Refuse | Unresolvable):
            refused = True
            effects = [earlier for earlier in effects if not _needs_connection(earlier.fault)]
        effects.append(effect)
    for effect in effects:
        effect.block.affected += 1
    return effects


class Effects:
    """The faults that affect one request, the innermost first; at least one."""

    def __init__(self, exchange: LiveExchange, effects: list[Effect]) -> None:
        self._exchange = exchange
        self._effects = effects
        exchange.fault = shown_as(effects[0].fault)
        if any(_keeps_from_app(effect.fault) for effect in effects):
            exchange.via = "fault"

    async def connect(
        self, req: ClientRequest, timeout: ClientTimeout, dispatch: Callable[[], Awaitable[Connection]]
    ) -> Connection:
        """Connect by *dispatch*, and apply the faults. Raises what aiohttp raises for them."""
        try:
            await self._before_connection(req, timeout)
        except BaseException as exc:
            self._exchange.not_connected(exc)
            raise
        connection = await dispatch()
        if self._exchange.via != "fallback":
            self._act_on(connection)
        return connection

    async def _before_connection(self, req: ClientRequest, timeout: ClientTimeout) -> None:
        for effect in self._effects:
            if not effect.block.over:  # its block may end while the request waits for another block
                await effect.block.before_connection(effect, req, timeout)
        for effect in self._effects:
            if isinstance(effect.fault, Respond) and not effect.block.over:
                self._exchange.app = _app_for(effect.fault)

    def _act_on(self, connection: Connection) -> None:
        """Apply the faults to both directions of the connection."""
        client = connection.transport
        assert isinstance(client, MemoryTransport)
        impaired: dict[MemoryTransport, Impairments] = {}
        for effect in self._effects:
            if effect.block.over:
                continue
            for pipe, stage in effect.block.stages(effect, self._exchange, client):
                impaired.setdefault(pipe, Impairments(pipe)).add(stage)
        for pipe, impairments in impaired.items():
            pipe.use_medium(impairments)


def acts_on_bytes(fault: Fault | Silence | Held) -> TypeGuard[ByteFault]:
    return isinstance(fault, ByteFault) and fault.on != "connect"


def _needs_connection(fault: Fault | Silence | Held) -> bool:
    return isinstance(fault, Held) or acts_on_bytes(fault)


def _keeps_from_app(fault: Fault | Silence | Held) -> bool:
    """Whether the fault keeps the whole request from the app, for a time or for good."""
    if isinstance(fault, Hang | Reset | Close):
        return fault.on != "response" and fault.after is None
    if isinstance(fault, Held):
        return fault.on == "request"
    return isinstance(fault, Refuse | Unresolvable | Respond | Silence)


def shown_as(fault: Fault | Silence | Held) -> Incident:
    """Return what `Exchange.fault` says."""
    return Hang() if isinstance(fault, Silence) else fault


def reset_error() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def cut(pipe: MemoryTransport, fault: Reset | Close, exchange: LiveExchange | None) -> None:
    """End the connection as *fault* says, after the bytes of *pipe* that have arrived."""
    reset = reset_error() if isinstance(fault, Reset) else None
    if exchange is not None:
        exchange.cut_off(reset or ConnectionAbortedError(errno.ECONNABORTED, "The connection was closed by a fault"))
    if isinstance(pipe.medium, Impairments):
        pipe.medium.release_arrivals()
    pipe.cut(reset)


def put_in_way(pipe: MemoryTransport, stage: Stage) -> None:
    """Add *stage* to those that the bytes of *pipe* pass already."""
    medium = pipe.medium
    if isinstance(medium, Impairments):
        medium.add(stage)
    else:
        impairments = Impairments(pipe)
        impairments.add(stage)
        pipe.use_medium(impairments)


def _app_for(fault: Respond) -> ASGIApp:
    """Return an app that answers every request and every handshake as *fault* says."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
        await send({"type": f"{kind}.start", "status": fault.status, "headers": fault.raw_headers})
        await send({"type": f"{kind}.body", "body": fault.raw_body})

    return respond
