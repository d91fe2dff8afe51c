"""`intercept()`: requests of sessions that others make, answered by the apps that are mounted here."""

# The block is a part of its connector.
# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Iterable, Iterator
from types import TracebackType

from aiohttp import BaseConnector, ClientRequest, ClientTimeout
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from asgi_connector._aiohttp.client_protocol import ClientProtocol
from asgi_connector._aiohttp.interception import (
    Slot,
    add,
    check_not_closed,
    connect_as_always,
    has_free_slot,
    keeps_no_connections,
    remove,
    wait_for_slot,
)
from asgi_connector._blocks import Block
from asgi_connector._services.address import Address
from asgi_connector._services.mounted import MountedApp
from asgi_connector._services.patterns import Pattern, covers, parse_pattern
from asgi_connector._stub.stub import Stub

from .dispatch import DispatchingConnector
from .elsewhere import Elsewhere
from .loops import describe_loop, hint_for_pytest
from .refusals import Refusals, describe_refused

_REFUSED = Elsewhere(
    None,
    reason="and intercept() lets no request to it through; to allow that, name it in passthrough=[...].",
    intercepted=True,
)


class Passthrough:
    """Which hosts are left to the sessions' own connectors, though no app is mounted for them."""

    def __init__(self, passthrough: bool | Iterable[str]) -> None:
        self._all = passthrough is True
        self._patterns: tuple[Pattern, ...] = ()
        if isinstance(passthrough, bool):
            return
        if isinstance(passthrough, str) or not isinstance(passthrough, Iterable):
            instead = f"; write [{passthrough!r}]" if isinstance(passthrough, str) else ""
            raise TypeError(f"passthrough must be a bool or a list of host patterns, not {passthrough!r}{instead}")
        self._patterns = tuple(parse_pattern(pattern) for pattern in passthrough)

    def covers(self, address: Address) -> bool:
        if not self._patterns:
            return self._all
        return any(covers(pattern, address) for pattern in self._patterns)


class Interception(Block):
    """What `intercept()` returns."""

    def __init__(
        self, connector: DispatchingConnector, passthrough: Passthrough, limits: bool, allow_refused: bool
    ) -> None:
        for name, value in [("limits", limits), ("allow_refused", allow_refused)]:
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be a bool, not {value!r}")
        self._refusals = Refusals(allowed=allow_refused)
        self._stubs: dict[Stub, str] = {}  # those that were mounted in the block, with their patterns
        self._connector = connector
        self._services = connector._services
        self._passthrough = passthrough
        self._limits = limits
        super().__init__("intercept()", "with")

    def __enter__(self) -> None:
        self._enter()
        add(self)
        self._connector._refusals.append(self._refusals)
        self._services.on_leaving.append(self._note_stub)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True  # pytest shows the block
        self._connector._refusals.remove(self._refusals)
        self._services.on_leaving.remove(self._note_stub)
        remove(self)
        if exc_type is None and (problems := [*self._refused_calls(), *self._stub_problems()]):
            raise AssertionError("\n".join(problems))

    def _refused_calls(self) -> Iterator[str]:
        if refused := self._refusals.take():
            yield from describe_refused(refused, "in an intercept() block")
            yield "Mount these hosts, or name them in passthrough=[...]; allow_refused=True permits refused calls."

    def _stub_problems(self) -> Iterator[str]:
        """What each `Stub` was never asked for, and what it has not answered; empty while an outer block is open."""
        if self._services.on_leaving:
            return
        for mounted in self._services.table:
            self._note_stub(mounted)
        for stub, pattern in self._stubs.items():
            yield from (f"The Stub at {pattern!r}: {problem}" for problem in stub.problems())

    def _note_stub(self, mounted: MountedApp) -> None:
        app = mounted.lifespan.source.app
        if isinstance(app, Stub):
            self._stubs[app] = mounted.pattern

    def mounts(self, address: Address) -> bool:
        return self._services.table.find(address) is not None

    async def connect(
        self,
        session_connector: BaseConnector,
        address: Address,
        mounted: bool,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,
    ) -> Connection:
        """Get a connection for *req*, which a session has asked *session_connector* for."""
        in_own_loop = asyncio.get_running_loop() is self._services.loop
        if mounted:
            if not in_own_loop:
                raise RuntimeError(self._explain_loop(req.url))
            return await self._connect_to_app(session_connector, address, req, traces, timeout)
        elsewhere = self._elsewhere(session_connector, address)
        if in_own_loop and self._connector._is_usable():
            return await self._connector._connect_or(elsewhere, req, traces, timeout)
        # The journal belongs to the connector's own event loop.
        if elsewhere.connect is None:
            raise self._connector._refusal(req, elsewhere)
        return await elsewhere.connect(req, traces, timeout)

    def _elsewhere(self, session_connector: BaseConnector, address: Address, slot: Slot | None = None) -> Elsewhere:
        """Where a request goes that no app answers. It gives *slot* back, if the app was unmounted meanwhile."""
        if not self._passthrough.covers(address):
            return _REFUSED

        async def connect(req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
            if slot is not None:
                slot.free()
            return await connect_as_always(session_connector, req, traces, timeout)

        return Elsewhere(
            connect, f"the session's own connector, a {type(session_connector).__name__}", intercepted=True
        )

    async def _connect_to_app(
        self,
        session_connector: BaseConnector,
        address: Address,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,
    ) -> Connection:
        key = req.connection_key
        if self._limits and not has_free_slot(session_connector, key):
            await wait_for_slot(session_connector, key, traces, timeout)
        slot = Slot(session_connector, key, limited=self._limits)
        try:
            elsewhere = self._elsewhere(session_connector, address, slot)
            connection = await self._connector._connect_or(elsewhere, req, traces, timeout)
        except BaseException:
            slot.free()
            raise
        protocol = connection.protocol
        if not isinstance(protocol, ClientProtocol):
            slot.free()
            return connection
        if keeps_no_connections(session_connector):
            protocol.force_close()
        slot.hold(connection)
        try:
            check_not_closed(session_connector)
        except BaseException:
            connection.close()
            raise
        return connection

    def _explain_loop(self, url: URL) -> str:
        running, own = asyncio.get_running_loop(), self._services.loop
        return (
            f"{url.origin()} is mounted at {self._connector!r}, which belongs to {describe_loop(own)}, and cannot be "
            f"called from {describe_loop(running)}: an app answers in the event loop of its connector"
            f"{hint_for_pytest()}"
        )
