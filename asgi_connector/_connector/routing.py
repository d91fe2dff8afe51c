"""The connectors: which app, or which other connector, answers a request; the pool; closing."""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

from aiohttp import BaseConnector, ClientConnectionError, ClientRequest, ClientTimeout
from aiohttp.connector import Connection
from aiohttp.helpers import sentinel
from aiohttp.tracing import Trace
from typing_extensions import override
from yarl import URL

from asgi_connector._aiohttp.client_protocol import ClientProtocol
from asgi_connector._aiohttp.pool import PoolingConnector, close_now, loop_of, running_loop
from asgi_connector._aiohttp.requests import take_proxy, trace_reuse
from asgi_connector._aiohttp.retries import Replays
from asgi_connector._asgi.connection import ServerProtocol
from asgi_connector._asgi.cycle import Cycle
from asgi_connector._asgi.in_flight import Running
from asgi_connector._asgi.scope import Address
from asgi_connector._blocks import Block
from asgi_connector._callers import current_caller, owners
from asgi_connector._display import printable
from asgi_connector._exceptions import LifespanError, UnmountedHostError
from asgi_connector._log import logger
from asgi_connector._network.transport import connect_pair
from asgi_connector._numbers import check_int, check_number
from asgi_connector._services.lifespan import Lifespan, Lifespans, Setting, check_setting, raise_all
from asgi_connector._services.mount import (
    ClientAddress,
    InheritContext,
    Mount,
    MountDefaults,
    check_client,
    check_inherit_context,
    check_raise_app_exceptions,
    check_root_path,
)
from asgi_connector._services.table import MountedApp, Mounts, MountTable
from asgi_connector._types import ASGIApp

if TYPE_CHECKING:
    from asgi_connector._injection.faults import Fault
    from asgi_connector._injection.injections import Injection
    from asgi_connector._journal.journal import Journal
    from asgi_connector._journal.live import LiveExchange
    from asgi_connector._journal.selector import Caller as CallerCriterion
    from asgi_connector._journal.selector import Path

    from .instruments import Observation

_DEFAULT_CLIENT: Final = ("127.0.0.1", 123)
_MAX_BODY_SIZE: Final = 1024 * 1024

_Leaving = asyncio.Task[LifespanError | None]


class ASGIRoutingConnector(PoolingConnector):
    """An aiohttp connector that answers some hosts with in-process ASGI apps, and leaves the others to a fallback.

    ``ClientSession(connector=ASGIRoutingConnector({"users.internal": app}))`` is all that it takes. Each request is
    dispatched by the host, port and scheme of its URL, whatever its ``Host`` header says, over a real HTTP/1.1
    connection that happens to be in memory.

    Parameters:
        apps: host pattern to ASGI app, or to a `Mount`, which is an app with its own settings. A pattern is
            ``[scheme://]host[:port]``, where host is a name, an IP literal (IPv6 in brackets), ``*.suffix`` (any depth
            of subdomain, but not the suffix itself) or ``*``. The most specific pattern wins, whatever the order.
        fallback: the connector (`aiohttp.BaseConnector`) for every other host, with its own pool, limits and TLS. With
            `None`, the default, a request to such a host raises `UnmountedHostError`, with a record at ``WARNING``, and
            nothing touches the network.
        fallback_owner: whether closing this connector closes the fallback; `True` by default.
        root_path: ``scope["root_path"]``; empty by default.
        client: ``scope["client"]``, a ``(host, port)`` pair or `None`; ``("127.0.0.1", 123)`` by default.
        raise_app_exceptions: whether an exception that an app does not handle is raised, the same object, from the
            client's call. `True` by default; with `False` it becomes what a real server makes of it: a 500, or a
            connection that is cut off.
        lifespan: ``"auto"``, the default: an app's startup runs once, before its first request or when the connector is
            entered, whichever comes first, and its shutdown when the connector closes, or when it is mounted nowhere
            any more; an app that does not support lifespan is served without. ``"on"``: such an app is an error.
            ``"off"``: neither is run.
        inherit_context: in which context (`contextvars.Context`) an app answers. ``"outside"``, the default: a call
            from outside every app, such as a test's, runs the app in a copy of the caller's context; a call from inside
            an app or a lifespan runs it in a copy of the context in which it was mounted, as its lifespan does, because
            over a network nothing of the caller's context arrives. ``"always"``: in a copy of the caller's context,
            also from inside an app. ``"never"``: always in a copy of the context in which it was mounted.
        limit: connections in use at the same time; 0, the default, is no limit, for services call each other.
        limit_per_host: the same for each (host, port, scheme); 0, the default, is no limit.
        keepalive_timeout: seconds that an idle connection is kept for; 15 by default, as in aiohttp.
        force_close: close each connection after one request; `False` by default.
        shutdown_timeout: seconds (2 by default) that `close()` gives running apps to end, counted from when their
            client left. Then they are cancelled, with a warning in the log. Each lifespan has as long to shut down.

    ``root_path``, ``client``, ``raise_app_exceptions``, ``lifespan`` and ``inherit_context`` are defaults that a
    `Mount` may override.

    Entered as an async context manager, it starts every app at once, and closes at the end of the block.

    Raises:
        ValueError: for a pattern that cannot be read, two that are the same, or a setting out of its range.
        TypeError: for what is no ASGI application, such as a class, a function that makes an app, a coroutine or a
            WSGI application, or for a setting of the wrong type.
        RuntimeError: made where no event loop runs, or with a fallback of another event loop.
    """

    __module__ = "asgi_connector"

    def __init__(
        self,
        apps: Mapping[str, ASGIApp | Mount] | None = None,
        *,
        fallback: BaseConnector | None = None,
        fallback_owner: bool = True,
        root_path: str = "",
        client: ClientAddress = _DEFAULT_CLIENT,
        raise_app_exceptions: bool = True,
        lifespan: Setting = "auto",
        inherit_context: InheritContext = "outside",
        limit: int = 0,
        limit_per_host: int = 0,
        keepalive_timeout: Any = sentinel,  # the type of aiohttp's default is private
        force_close: bool = False,
        shutdown_timeout: float = 2.0,
    ) -> None:
        check_root_path(root_path)
        check_client(client)
        check_raise_app_exceptions(raise_app_exceptions)
        check_number("shutdown_timeout", shutdown_timeout, unlimited=True)
        _check_pool(limit, limit_per_host, keepalive_timeout)
        check_setting(lifespan)
        check_inherit_context(inherit_context)
        loop = _running_loop(type(self).__name__)
        lifespans = Lifespans(loop, shutdown_timeout)
        defaults = MountDefaults(
            root_path=root_path,
            client=client,
            raise_app_exceptions=raise_app_exceptions,
            lifespan=lifespan,
            inherit_context=inherit_context,
        )
        table = MountTable(defaults, lifespans)
        table.add_all({} if apps is None else apps, copy_context())
        if fallback is not None:
            _check_fallback(fallback, loop)
        super().__init__(
            limit=limit, limit_per_host=limit_per_host, keepalive_timeout=keepalive_timeout, force_close=force_close
        )
        if fallback is not None:
            self.allowed_protocol_schema_set = self.allowed_protocol_schema_set | fallback.allowed_protocol_schema_set
        self._owner = loop
        self._table = table
        self._mounts = Mounts(table)
        self._fallback = fallback
        self._fallback_owner = fallback_owner
        self._shutdown_timeout = shutdown_timeout
        self._running = Running(loop)
        self._lifespans = lifespans
        self._entered = False
        self._leaving: set[_Leaving] = set()  # apps that were unmounted or replaced, and are not shut down yet
        self._closing: asyncio.Task[list[Exception]] | None = None
        self._close_awaited = False
        self._replays = Replays()
        self._observation: Observation | None = None  # made when it is first used

    @override
    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self._closing else "open"
        return f"<{type(self).__name__} {state}, {len(self._table)} mounts, fallback {self._fallback!r}>"

    # The table.

    @property
    def mounts(self) -> Mapping[str, Mount]:
        """What is mounted now, each pattern with its `Mount`; a live view that cannot be changed."""
        return self._mounts

    def mount(self, pattern: str, app: ASGIApp | Mount) -> None:
        """Add *app* at *pattern*, or replace what is mounted there.

        The next request reaches *app*; what is in flight on the old one finishes there. Inside a `mounted()` block for
        the same pattern this lasts until the end of the block.

        Raises `ValueError` or `TypeError` as the constructor does, before anything changes.
        """
        self._check_loop()
        self._check_open()
        replaced = self._table.mount(pattern, app, copy_context())
        self._retire_outdated()
        if replaced is not None:
            self._leave(replaced).add_done_callback(_log_failure)

    async def unmount(self, pattern: str) -> None:
        """Take away what is mounted at *pattern*; the next request goes to what else matches, or elsewhere.

        Returns when what was in flight on the app has ended. Raises `KeyError` if nothing is mounted at *pattern*, and
        `RuntimeError` from inside a request to the app, which would wait for itself.
        """
        self._check_loop()
        mounted = self._table.seen_at(pattern)
        if mounted is None:
            raise KeyError(f"{pattern!r} is not mounted. {self._table.describe(pattern)}")
        _check_outside(mounted)
        self._table.unmount(pattern)
        self._retire_outdated()
        await _wait_for_leaving(self._leave(mounted))

    def mounted(self, pattern: str, app: ASGIApp | Mount) -> AbstractAsyncContextManager[None]:
        """Mount *app* at *pattern* for the block only; afterwards, what was there before is there again.

        Blocks for the same pattern may be nested, or overlap in any order: the one entered last is seen. The end of the
        block returns when what was in flight on *app* has ended. It raises `RuntimeError` from inside a request to
        *app*, which would wait for itself, and leaves *app* mounted.
        """
        return _MountedBlock(f"mounted({pattern!r}, ...)", self._mounted(pattern, app))

    @asynccontextmanager
    async def _mounted(self, pattern: str, app: ASGIApp | Mount) -> AsyncGenerator[None, None]:
        self._check_loop()
        self._check_open()
        layer, mounted = self._table.push(pattern, app, copy_context())
        self._retire_outdated()
        try:
            if self._entered:
                await mounted.lifespan.wait_started()
                self._check_open()
            yield
        finally:
            self._check_loop()
            _check_outside(mounted)
            last = self._table.remove(layer)  # another one, if mount() or unmount() was called in the block
            self._retire_outdated()
            if last is not None:
                await _wait_for_leaving(self._leave(last))
            await mounted.wait_until_unused()

    def _leave(self, mounted: MountedApp) -> _Leaving:
        """*mounted* gets no further requests: wait for those that it has, then let go of its app's lifespan.

        In a task of its own, so that it is done whoever is cancelled. Its result is what failed.
        """

        async def leave() -> LifespanError | None:
            with self._running.reporting_delay(mounted):
                await mounted.wait_until_unused()
            try:
                await self._lifespans.leave(mounted.lifespan)
            except LifespanError as exc:
                return exc
            return None

        task = asyncio.Task(leave(), loop=self._owner, context=Context())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    def _retire_outdated(self) -> None:
        """Retire each connection whose address leads to another app now than when it was made."""
        for connection in tuple(self._running.connections):
            address = connection.address
            if self._table.find(address.host, address.port, address.secure) is not connection.mounted:
                connection.retire(self._has_acquired(connection.client))

    # Connecting.

    @override
    def connect(  # pyright: ignore[reportIncompatibleMethodOverride] # to which a coroutine is not a Coroutine
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> Coroutine[Any, Any, Connection]:
        """Get a connection to where *req* goes: aiohttp calls this for each request, and awaits it at once."""
        if asyncio.get_running_loop() is not self._owner or self._closing is not None or self._has_closed():
            self._check_loop()
            self._check_open()
        task = asyncio.current_task()
        if self._replays.expected and task is not None:
            self._replays.answer(req, task)
        observation = self._observation
        if observation is None or not observation.recorder.recording:
            return self._dispatch(req, traces, timeout, task, None)
        exchange = observation.recorder.begin(req)
        if not observation.injecting:
            return self._dispatch(req, traces, timeout, task, exchange)
        return observation.connect(exchange, req, timeout, partial(self._dispatch, req, traces, timeout, task))

    async def _dispatch(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,
        task: "asyncio.Task[Any] | None",
        exchange: "LiveExchange | None",
    ) -> Connection:
        try:
            while True:
                # What is in the pool leads to what is mounted now: anything else was closed when the table changed.
                connection = await self._reuse(req, traces)
                if connection is None:
                    mounted = self._table.find(req.host, req.port, req.is_ssl())
                    if mounted is None:
                        connection = await self._connect_elsewhere(req, traces, timeout, exchange)
                        break
                    connection = await self._connect(mounted, req, traces, timeout, exchange)
                    if connection is None:
                        continue  # what is mounted may have changed meanwhile
                if self._closing is not None:
                    self._check_still_open(connection)
                if _hand_out(cast(ClientProtocol, connection.protocol), req, task, exchange):
                    break
                connection.close()  # it was lost, or its app was replaced, while a trace had the word
        except BaseException as exc:
            self._close_forgotten([connection.client for connection in self._running.connections])
            if exchange is not None:
                exchange.not_connected(exc)
            raise
        if exchange is not None:
            exchange.connected(connection)
        return connection

    def _check_still_open(self, connection: Connection) -> None:
        if not self._is_called_by_a_shutdown():
            connection.close()
            self._check_open()

    async def _connect(
        self,
        mounted: MountedApp,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,
        exchange: "LiveExchange | None",
    ) -> Connection | None:
        """Start the app if it has not been, or connect to it; `None` if the request is to be dispatched anew."""
        if exchange is not None:
            exchange.service = mounted.pattern
        if not mounted.lifespan.ready and (exchange is None or exchange.app is None):
            await self._start(mounted.lifespan, timeout)
            return None
        proxy = take_proxy(req) if req.proxy is not None else None
        try:
            return await super().connect(req, traces, timeout)
        except _UnmountedMeanwhile:
            if proxy is not None:
                req.update_proxy(*proxy)
            return None

    async def _start(self, lifespan: Lifespan, timeout: ClientTimeout) -> None:
        """Start an app, within the time that the request has for its connection."""
        if lifespan.over:
            raise ClientConnectionError(f"The app at {lifespan.name!r} has been shut down")
        limits = [limit for limit in (timeout.connect, timeout.sock_connect) if limit]
        async with asyncio.timeout(min(limits, default=None)):
            await lifespan.wait_started()
        self._check_open()

    async def _connect_elsewhere(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,
        exchange: "LiveExchange | None",
    ) -> Connection:
        if exchange is not None:
            exchange.leaves("refused" if self._fallback is None else "fallback")
            traces = [*traces, trace_reuse(exchange.connection_taken)]
        if self._fallback is None:
            raise self._refusal(req)
        if logger.isEnabledFor(logging.DEBUG):
            fallback = type(self._fallback).__name__
            logger.debug("%s %s goes to the fallback, a %s", req.method, _shown(req.url), fallback)
        return await self._fallback.connect(req, traces, timeout)

    def _refusal(self, req: ClientRequest) -> UnmountedHostError:
        """The error for a host that is not mounted. It is logged too, because its caller may catch it."""
        problem = f"No app is mounted for {req.url.origin()}, and there is no fallback."
        text = printable(f"{problem} {self._table.describe(req.host)}")
        logger.warning("%s %s is refused: %s", req.method, _shown(req.url.with_query(None)), text)
        return UnmountedHostError.at(req.connection_key, text)

    # Who called whom, and what happens when the network fails.

    def record(self, *, bodies: bool = False, max_body_size: int = _MAX_BODY_SIZE) -> "AbstractContextManager[Journal]":
        """Record what is called in the block: ``with connector.record() as journal:``.

        The journal has an `Exchange` for each request that starts in the block, to mounts and to the fallback alike,
        in the order of their start. One that is still running at the end of the block stays in it, and goes on filling
        it. Recordings may be nested, and overlap.

        Parameters:
            bodies: whether to keep the bodies, and the messages of WebSockets; `False` by default. Those of the
                fallback never are.
            max_body_size: how many bytes of each are kept; 1 MiB by default.

        Raises `TypeError` or `ValueError` for a parameter that makes no sense, and `aiohttp.ClientConnectionError` if
        the connector is closed.
        """
        return self._observe().record(bodies, max_body_size)

    def inject(
        self,
        host: str,
        fault: "Fault",
        *,
        caller: "CallerCriterion" = ...,
        method: str | None = None,
        path: "Path" = None,
        times: int | None = None,
        skip: int = 0,
        probability: float = 1.0,
        seed: int | float | str | bytes = 0,
        allow_unused: bool = False,
    ) -> "Injection":
        """Let the network fail in the block: ``with connector.inject("users.internal", faults.Reset()):``.

        What strikes is decided once for each request that matches, when it starts, whether its connection is a pooled
        one or not. Without ``times``, ``skip`` and ``probability`` the faults of bytes also reach what is open when the
        block begins. Blocks may be nested, and combine, the innermost first; of those that answer in the place of the
        app only the innermost does.

        The block gives an object whose ``matched`` and ``struck`` count requests.

        Parameters:
            host: a host pattern, as in the table of mounts, for which something is mounted.
            fault: one of `asgi_connector.faults`.
            caller: the pattern at which the calling app is mounted, `None` for calls from outside of every app; any
                caller by default.
            method: of the request; any by default.
            path: decoded and without the query, a `str` that it equals or an `re.Pattern` that matches the whole of
                it; any by default.
            times: how many requests are struck at most; all by default.
            skip: how many that match pass before; 0 by default.
            probability: of each of the others to be struck; 1 by default.
            seed: for what is left to chance, which is the same for the same seed; 0 by default.
            allow_unused: whether the block may end though no request went through it; `False` by default.

        Raises `AssertionError` at the end of a block that has struck nothing, which shows the calls there were: such a
        fault has tested nothing. That it was left to a ``probability`` is a reason.

        Raises `ValueError` for a host that is not mounted, `ValueError` or `TypeError` for a parameter that makes no
        sense, and `aiohttp.ClientConnectionError` if the connector is closed, before anything changes.
        """
        from asgi_connector._injection.injections import Odds
        from asgi_connector._journal.selector import Selector

        selector = Selector(host, caller=caller, method=method, path=path)
        odds = Odds(times=times, skip=skip, probability=probability, seed=seed)
        return self._observe().inject(selector, fault, odds, allow_unused)

    def _observe(self) -> "Observation":
        self._check_loop_or_none()
        self._check_open()
        if self._observation is None:
            from .instruments import Observation

            self._observation = Observation(self._owner, self._table, self._running.connections, self._has_acquired)
        return self._observation

    @override
    def _open_connection(self, req: ClientRequest) -> ClientProtocol:
        mounted = self._table.find(req.host, req.port, req.is_ssl())
        if mounted is None:
            raise _UnmountedMeanwhile
        address = Address(req.host, req.port, req.is_ssl())
        client = ClientProtocol(self._owner)
        client.on_app_exception = self._replays.remember
        client.server = server = ServerProtocol(client, mounted, address, self._running)
        peername, sockname = (address.host, address.port), mounted.client
        connect_pair(
            self._owner,
            client,
            server,
            client_extra={"peername": peername, "sockname": sockname},
            server_extra={"peername": sockname, "sockname": peername},
        )
        return client

    # Closing.

    @override
    async def __aenter__(self) -> Self:
        self._check_loop()
        self._check_open()
        self._entered = True
        try:
            await self._lifespans.start_all()
            self._check_open()
        except BaseException:
            try:
                await self.close()
            except (LifespanError, ExceptionGroup):
                logger.exception("Some apps failed to shut down, after others had failed to start")
            raise
        return self

    @override
    def close(self, *, abort_ssl: bool = False) -> Awaitable[None]:
        """Close: disconnect every client, let running apps end, shut their lifespans down, close the fallback.

        There are no new connections from now on, except for lifespans that are shutting down, which may still call
        other services. Running apps see a disconnect, have ``shutdown_timeout`` to end, counted from when their client
        left, and are then cancelled. Lifespans shut down in the reverse order of their startup. Awaiting it a second
        time, or from elsewhere at the same time, is harmless; cancelling it cancels the apps at once. From inside a
        request or a lifespan it starts the closing, and does not wait for it.

        Raises `LifespanError`, or an `ExceptionGroup` of several, after everything else has been closed.
        """
        if self._is_over():
            return _Waiting(_nothing)
        if self._closing is None:
            self._check_loop()
            # Not by the loop's task factory: its first step is not for the middle of an app's.
            self._closing = asyncio.Task(self._close_all(abort_ssl), loop=self._owner, context=Context())
        return _Waiting(_nothing if self._is_inside_an_app() else self._wait_closed)

    def _is_over(self) -> bool:
        """Whether there is nothing left to close, or no loop to do it in."""
        if self._closing is not None:
            return self._closing.done()
        return self.closed and (
            self._owner.is_closed() or (self._running.is_idle() and self._lifespans.is_idle() and not self._leaving)
        )

    def _is_inside_an_app(self) -> bool:
        return any(self._owns(owner) for owner in owners())

    def _is_called_by_a_shutdown(self) -> bool:
        # Or by the startup of an app that another one, while it shuts down, is the first to call.
        return any(isinstance(owner, Lifespan) and owner.changing and self._owns(owner) for owner in owners())

    def _owns(self, running: object) -> bool:
        """Whether closing this connector waits for *running*, a request or a lifespan."""
        if isinstance(running, Lifespan) and running.owner is self._lifespans:
            return True
        if isinstance(running, Cycle) and running.mounted.table is self._table:
            return True
        fallback = self._fallback if self._fallback_owner else None
        return isinstance(fallback, ASGIRoutingConnector) and fallback._owns(running)

    async def _wait_closed(self) -> None:
        self._check_loop()
        assert self._closing is not None
        self._close_awaited = True
        try:
            raise_all("Some apps failed to shut down", await asyncio.shield(self._closing))
        except asyncio.CancelledError:
            if not self._closing.done():
                self._running.hurry()
                await asyncio.wait([self._closing])
            raise

    async def _close_all(self, abort_ssl: bool) -> list[Exception]:
        """Close everything, in order; returns what failed."""
        try:
            if self._observation is not None:
                self._observation.end()
            self._lifespans.release_waiters()
            await self._running.end(self._shutdown_timeout)
            await asyncio.gather(*self._leaving)
            failures = await self._lifespans.stop_all()
            await self._running.end(self._shutdown_timeout)  # what the apps asked of each other while they shut down
        finally:
            waiters = self._close_pool(abort_ssl=abort_ssl)
            self._replays.clear()
            try:
                await asyncio.gather(*waiters, return_exceptions=True)
            finally:
                if self._fallback is not None and self._fallback_owner:
                    await self._fallback.close()
        if not self._close_awaited:
            for failure in failures:
                logger.error("An app failed to shut down", exc_info=failure)
        return failures

    @override
    def _close_now(self) -> list[Awaitable[object]]:
        if self._observation is not None:
            self._observation.end()
        waiters = self._close_pool()
        if self._fallback is not None and self._fallback_owner:
            waiters += close_now(self._fallback)
        return waiters

    def _check_loop(self) -> None:
        running = running_loop()
        if running is not self._owner:
            where = "where no event loop runs" if running is None else f"from {_describe_loop(running)}"
            belongs = f"{self!r} belongs to {_describe_loop(self._owner)}, and cannot be used {where}"
            raise RuntimeError(f"{belongs}{_hint_for_pytest()}")

    @override
    def _refuse_request(self) -> None:
        if self._has_closed():
            raise RuntimeError(
                f"Session is closed: its connector, {self!r}, has been closed, by another session maybe. The end of a "
                "session closes its connector: to share one, make each ClientSession with connector_owner=False, and "
                "close the connector yourself"
            )
        self._check_loop()

    def _check_loop_or_none(self) -> None:
        """As `_check_loop()`, but that no loop runs will do: in a fixture that is no coroutine, say."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if not self._owner.is_running():
                return
        self._check_loop()

    def _check_open(self) -> None:
        if self.closed or (self._closing is not None and not self._is_called_by_a_shutdown()):
            raise ClientConnectionError(f"Connector is closed: {self!r}")


class ASGIApplicationConnector(ASGIRoutingConnector):
    """An aiohttp connector that answers every host with one ASGI app.

    The same as an `ASGIRoutingConnector` with *app* mounted at ``*``, whose parameters it takes but for the fallback,
    of which no request is left.
    """

    __module__ = "asgi_connector"

    def __init__(
        self,
        app: ASGIApp | Mount,
        root_path: str = "",
        *,
        client: ClientAddress = _DEFAULT_CLIENT,
        raise_app_exceptions: bool = True,
        lifespan: Setting = "auto",
        inherit_context: InheritContext = "outside",
        limit: int = 0,
        limit_per_host: int = 0,
        keepalive_timeout: Any = sentinel,
        force_close: bool = False,
        shutdown_timeout: float = 2.0,
    ) -> None:
        super().__init__(
            {"*": app},
            root_path=root_path,
            client=client,
            raise_app_exceptions=raise_app_exceptions,
            lifespan=lifespan,
            inherit_context=inherit_context,
            limit=limit,
            limit_per_host=limit_per_host,
            keepalive_timeout=keepalive_timeout,
            force_close=force_close,
            shutdown_timeout=shutdown_timeout,
        )


def _hand_out(
    protocol: ClientProtocol,
    req: ClientRequest,
    task: "asyncio.Task[Any] | None",
    exchange: "LiveExchange | None",
) -> bool:
    """Tell the other end of a connection which request comes; `False` if it takes no more of them."""
    if protocol.transport is None:
        return False
    server = protocol.server
    if exchange is not None:
        exchange.handed_to(server)
    caller = current_caller.get()
    if not server.hand_out(server.mounted.context_for(caller), caller, (req, task), exchange):
        return False
    if logger.isEnabledFor(logging.DEBUG):
        where = "%s %s is answered in this process, by the app at %r"
        logger.debug(where, req.method, _shown(req.url), server.mounted.pattern)
    return True


def _shown(url: URL) -> str:
    """A URL for a log record: without secrets, and safe to print."""
    from asgi_connector._journal.redaction import redact_url

    return printable(redact_url(str(url)))


class _UnmountedMeanwhile(Exception):
    """What a request was to be connected to is not mounted any more: dispatch it anew."""


class _MountedBlock(Block):
    """What `mounted()` returns."""

    def __init__(self, call: str, block: AbstractAsyncContextManager[None]) -> None:
        self._block = block
        super().__init__(call, "async with")

    async def __aenter__(self) -> None:
        self._enter()
        await self._block.__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(exc_type, exc, traceback)


class _Waiting:
    """What `close()` returns: it may be awaited, or left alone."""

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()


async def _nothing() -> None:
    pass


async def _wait_for_leaving(task: _Leaving) -> None:
    try:
        failure = await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_log_failure)
        raise
    if failure is not None:
        raise failure


def _log_failure(task: _Leaving) -> None:
    if not task.cancelled() and (failure := task.result()) is not None:
        logger.error("An app that is mounted no more failed to shut down", exc_info=failure)


def _check_outside(mounted: MountedApp) -> None:
    for owner in owners():
        if owner is mounted.lifespan or (isinstance(owner, Cycle) and owner.mounted is mounted):
            raise RuntimeError(
                f"{mounted!r} cannot be unmounted from inside one of its own requests, or its lifespan: it would have "
                "to wait for itself"
            )


def _running_loop(name: str) -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            f"An {name} belongs to the event loop that runs when it is made, and none is running: make it in an async "
            "function, in a test in an async fixture"
        ) from None


def _hint_for_pytest() -> str:
    """What to write in a test: with pytest-asyncio, a fixture and its tests may have different loops by accident."""
    if "pytest_asyncio" not in sys.modules:
        return ""
    return (
        ". With pytest-asyncio, the fixture that makes it and each test and fixture that uses it must have the same "
        'loop_scope: @pytest_asyncio.fixture(scope="session", loop_scope="session") and '
        '@pytest.mark.asyncio(loop_scope="session"), say'
    )


def _describe_loop(loop: asyncio.AbstractEventLoop) -> str:
    return f"{loop!r} at {id(loop):#x}"  # two loops mostly look the same


def _check_fallback(fallback: BaseConnector, loop: asyncio.AbstractEventLoop) -> None:
    if not isinstance(fallback, BaseConnector):
        raise TypeError(f"fallback must be an aiohttp.BaseConnector or None, not {fallback!r}")
    if (other := loop_of(fallback)) is not loop:
        raise RuntimeError(
            f"The fallback {fallback!r} belongs to {_describe_loop(other)}, not to {_describe_loop(loop)}, which runs"
        )


def _check_pool(limit: object, limit_per_host: object, keepalive_timeout: object) -> None:
    """What aiohttp itself does not check; `None` is a value of its own for each of the three."""
    for name, value in [("limit", limit), ("limit_per_host", limit_per_host)]:
        if value is not None:
            check_int(name, value, at_least=0)
    if keepalive_timeout is not None and keepalive_timeout is not sentinel:
        check_number("keepalive_timeout", keepalive_timeout)
