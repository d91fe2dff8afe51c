"""`ASGIRoutingConnector`: the parameters, the table of mounts, recordings and faults, and closing."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from aiohttp import BaseConnector
from aiohttp.helpers import sentinel
from typing_extensions import override

from asgi_connector._aiohttp.pool import close_now
from asgi_connector._aiohttp.retries import Retries
from asgi_connector._blocks import AsyncBlock
from asgi_connector._exceptions import LifespanError
from asgi_connector._log import logger
from asgi_connector._numbers import check_int, check_number
from asgi_connector._services.lifespan import Setting
from asgi_connector._services.mount import ClientAddress, InheritContext, Mount, MountDefaults
from asgi_connector._services.services import Services
from asgi_connector._types import App

from .closing import Closing, Waiting
from .dispatch import DispatchingConnector
from .kinds import lifespan_app_of
from .loops import check_fallback, check_loop, check_loop_or_none, loop_for

if TYPE_CHECKING:
    from asgi_connector._injection.faults import Fault
    from asgi_connector._injection.injections import Injection
    from asgi_connector._journal.journal import Journal
    from asgi_connector._journal.selector import Caller, Path

    from .instruments import Instruments

DEFAULT_CLIENT: Final = ("127.0.0.1", 123)
_MAX_BODY_SIZE: Final = 1024 * 1024


class ASGIRoutingConnector(DispatchingConnector):
    """An aiohttp connector that answers some hosts with in-process ASGI apps, and leaves the others to a fallback.

    ``ClientSession(connector=ASGIRoutingConnector({"users.internal": app}))`` is all that it takes. Each request is
    dispatched by the host, port and scheme of its URL, whatever its ``Host`` header says, over a real HTTP/1.1
    connection that happens to be in memory.

    Parameters:
        apps: host pattern to ASGI app, to ``aiohttp.web.Application``, or to a `Mount`, which is an app with its own
            settings. A pattern is ``[scheme://]host[:port]``, where host is a name, an IP literal (IPv6 in brackets),
            ``*.suffix`` (any depth of subdomain, but not the suffix itself) or ``*``. The most specific pattern wins,
            whatever the order.
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
        apps: Mapping[str, App | Mount] | None = None,
        *,
        fallback: BaseConnector | None = None,
        fallback_owner: bool = True,
        root_path: str = "",
        client: ClientAddress = DEFAULT_CLIENT,
        raise_app_exceptions: bool = True,
        lifespan: Setting = "auto",
        inherit_context: InheritContext = "outside",
        limit: int = 0,
        limit_per_host: int = 0,
        keepalive_timeout: Any = sentinel,  # the type of aiohttp's default is private
        force_close: bool = False,
        shutdown_timeout: float = 2.0,
    ) -> None:
        defaults = MountDefaults(
            root_path=root_path,
            client=client,
            raise_app_exceptions=raise_app_exceptions,
            lifespan=lifespan,
            inherit_context=inherit_context,
        )
        check_number("shutdown_timeout", shutdown_timeout, unlimited=True)
        _check_pool(limit, limit_per_host, keepalive_timeout)
        loop = loop_for(type(self).__name__)
        services = Services(loop, defaults, shutdown_timeout, {} if apps is None else apps, lifespan_app_of)
        if fallback is not None:
            check_fallback(fallback, loop)
        super().__init__(
            limit=limit, limit_per_host=limit_per_host, keepalive_timeout=keepalive_timeout, force_close=force_close
        )
        if fallback is not None:
            self.allowed_protocol_schema_set = self.allowed_protocol_schema_set | fallback.allowed_protocol_schema_set
        self._services = services
        self._fallback, self._fallback_owner = fallback, fallback_owner
        self._retries = Retries()
        self._closing = Closing(services)
        self._entered = False

    @override
    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self._closing.task else "open"
        return f"<{type(self).__name__} {state}, {len(self._services.table)} mounts, fallback {self._fallback!r}>"

    # The table of mounts.

    @property
    def mounts(self) -> Mapping[str, Mount]:
        """What is mounted now, each pattern with its `Mount`; a live view that cannot be changed."""
        return self._services.mounts

    def mount(self, pattern: str, app: App | Mount) -> None:
        """Add *app* at *pattern*, or replace what is mounted there.

        The next request reaches *app*; what is in flight on the old one finishes there. Inside a `mounted()` block for
        the same pattern this lasts until the end of the block.

        Raises `ValueError` or `TypeError` as the constructor does, before anything changes.
        """
        check_loop(self)
        self._check_open()
        self._services.mount(pattern, app)

    async def unmount(self, pattern: str) -> None:
        """Take away what is mounted at *pattern*; the next request goes to what else matches, or elsewhere.

        Returns when what was in flight on the app has ended. Raises `KeyError` if nothing is mounted at *pattern*, and
        `RuntimeError` from inside a request to the app, which would wait for itself.
        """
        check_loop(self)
        await self._services.unmount(pattern)

    def mounted(self, pattern: str, app: App | Mount) -> AbstractAsyncContextManager[None]:
        """Mount *app* at *pattern* for the block only; afterwards, what was there before is there again.

        Blocks for the same pattern may be nested, or overlap in any order: the one entered last is seen. The end of the
        block returns when what was in flight on *app* has ended. It raises `RuntimeError` from inside a request to
        *app*, which would wait for itself, and leaves *app* mounted.
        """
        return AsyncBlock(f"mounted({pattern!r}, ...)", self._mounted(pattern, app))

    @asynccontextmanager
    async def _mounted(self, pattern: str, app: App | Mount) -> AsyncGenerator[None, None]:
        check_loop(self)
        self._check_open()
        layer, mounted = self._services.cover(pattern, app)
        try:
            if self._entered:
                await mounted.lifespan.wait_started()
                self._check_open()
            yield
        finally:
            check_loop(self)
            await self._services.uncover(layer, mounted)

    # Recordings and faults.

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
        return self._get_instruments().record(bodies, max_body_size)

    def inject(
        self,
        host: str,
        fault: "Fault",
        *,
        caller: "Caller" = ...,
        method: str | None = None,
        path: "Path" = None,
        times: int | None = None,
        skip: int = 0,
        probability: float = 1.0,
        seed: int | float | str | bytes = 0,
        allow_unused: bool = False,
    ) -> "Injection":
        """Let the network fail in the block: ``with connector.inject("users.internal", faults.Reset()):``.

        Whether the fault affects a request is decided once, when the request starts, for pooled connections too.
        Without ``times``, ``skip`` and ``probability``, faults of bytes also affect requests that are under way when
        the block begins. Blocks may be nested, and combine, the innermost first. Only the innermost of those that
        answer in the place of the app does so. The block gives a `faults.Injection`, which counts requests.

        Parameters:
            host: a host pattern, as in the table of mounts, for which something is mounted.
            fault: one of `asgi_connector.faults`.
            caller, method, path: which requests match, as in `Journal`; any by default.
            times: how many requests are affected at most; all by default.
            skip: how many that match pass before; 0 by default.
            probability: of each of the others to be affected; 1 by default. It depends on ``seed`` only, 0 by default.
            allow_unused: whether the block may end without having affected a request; `False` by default.

        Raises `AssertionError`, which shows the calls, at the end of a block that has affected no request, unless
        ``probability`` is below 1. Before anything changes, raises `ValueError` or `TypeError` for a bad parameter or a
        host that is not mounted, and `aiohttp.ClientConnectionError` if the connector is closed.
        """
        from asgi_connector._injection.injections import Odds
        from asgi_connector._journal.selector import Selector

        selector = Selector(host, caller=caller, method=method, path=path)
        odds = Odds(times=times, skip=skip, probability=probability, seed=seed)
        return self._get_instruments().inject(selector, fault, odds, allow_unused)

    def _get_instruments(self) -> "Instruments":
        check_loop_or_none(self)
        self._check_open()
        if self._instruments is None:
            from .instruments import Instruments

            self._instruments = Instruments(self._services)
        return self._instruments

    # Closing.

    @override
    async def __aenter__(self) -> Self:
        check_loop(self)
        self._check_open()
        self._entered = True
        try:
            await self._services.lifespans.start_all()
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
            return Waiting(None)
        if self._closing.task is None:
            check_loop(self)
            self._closing.begin(self._close_all(abort_ssl))
        return Waiting(None if self._is_called_by_an_app() else self._wait_closed)

    async def _wait_closed(self) -> None:
        check_loop(self)
        await self._closing.wait()

    def _is_over(self) -> bool:
        """Whether there is nothing left to close, or no loop to do it in."""
        if self._closing.task is not None:
            return self._closing.task.done()
        return self.closed and (self._services.loop.is_closed() or self._services.is_idle())

    async def _close_all(self, abort_ssl: bool) -> list[Exception]:
        """Close everything, in order; returns what failed."""
        try:
            if self._instruments is not None:
                self._instruments.end_all()
            failures = await self._services.close()
        finally:
            waiters = self._close_pool(abort_ssl=abort_ssl)
            self._retries.clear()
            try:
                await asyncio.gather(*waiters, return_exceptions=True)
            finally:
                if self._fallback is not None and self._fallback_owner:
                    await self._fallback.close()
        self._closing.log_unless_awaited(failures)
        return failures

    @override
    def _close_now(self) -> list[Awaitable[object]]:
        if self._instruments is not None:
            self._instruments.end_all()
        waiters = self._close_pool()
        if self._fallback is not None and self._fallback_owner:
            waiters += close_now(self._fallback)
        return waiters


def _check_pool(limit: object, limit_per_host: object, keepalive_timeout: object) -> None:
    """Check what aiohttp itself does not check; `None` is a value of its own for each of the three."""
    for name, value in [("limit", limit), ("limit_per_host", limit_per_host)]:
        if value is not None:
            check_int(name, value, at_least=0)
    if keepalive_timeout is not None and keepalive_timeout is not sentinel:
        check_number("keepalive_timeout", keepalive_timeout)
