"""`ASGIRoutingConnector`: its parameters, mounting, recording, injecting faults, and intercepting."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiohttp import BaseConnector
from aiohttp.helpers import sentinel
from typing_extensions import override

from asgi_connector._blocks import AsyncBlock
from asgi_connector._made import tell_made
from asgi_connector._numbers import check_int, check_number
from asgi_connector._services.lifespan import Setting
from asgi_connector._services.mount import ClientAddress, InheritContext, Mount, MountDefaults
from asgi_connector._services.services import Services
from asgi_connector._types import App

from .by_hand import ByHandConnector
from .kinds import lifespan_app_of
from .loops import check_fallback, check_loop, check_loop_or_none, loop_for

if TYPE_CHECKING:
    from asgi_connector._exchange.queries import QueryGiven
    from asgi_connector._injection.faults import Fault
    from asgi_connector._injection.injections import Injection
    from asgi_connector._journal.journal import Journal
    from asgi_connector._journal.selector import Caller, Path

DEFAULT_CLIENT: Final = ("127.0.0.1", 123)
_MAX_BODY_SIZE: Final = 1024 * 1024


class ASGIRoutingConnector(ByHandConnector):
    """An aiohttp connector that answers some hosts with in-process ASGI apps, and leaves the others to a fallback.

    Use it as ``ClientSession(connector=ASGIRoutingConnector({"users.internal": app}))``. Each request is dispatched by
    the host, port and scheme of its URL; its ``Host`` header does not matter. It is sent over a real HTTP/1.1
    connection, in memory.

    Parameters:
        apps: a mapping of host patterns to ASGI apps and ``aiohttp.web`` applications. A value may also be a `Mount`,
            which is an app with its own settings. A pattern is ``[scheme://]host[:port]``, where host is a name, an IP
            literal (IPv6 in brackets), ``*.suffix`` (any depth of subdomain, but not the suffix itself) or ``*``. The
            most specific pattern wins; the order does not matter.
        fallback: the connector (`aiohttp.BaseConnector`) for every other host, with its own pool, limits and TLS. With
            `None`, the default, a request to such a host raises `UnmountedHostError`, a record at ``WARNING`` is
            logged, and no network is used.
        fallback_owner: whether closing this connector closes the fallback; `True` by default.
        root_path: ``scope["root_path"]``; empty by default.
        client: ``scope["client"]``, a ``(host, port)`` pair or `None`; ``("127.0.0.1", 123)`` by default.
        raise_app_exceptions: whether an exception that an app does not handle is raised from the client's call, as the
            same object. `True` by default. With `False` the client gets what a real server sends: a 500, or a
            connection that is cut off.
        lifespan: ``"auto"``, the default: an app's startup runs once, before its first request or when the connector is
            entered, whichever comes first. Its shutdown runs when the connector closes, or when the app is no longer
            mounted anywhere. An app that does not support lifespan is served without. ``"on"``: such an app is an
            error. ``"off"``: neither startup nor shutdown is run.
        inherit_context: the context (`contextvars.Context`) in which an app answers. ``"outside"``, the default: a call
            from outside every app, such as from a test, runs the app in a copy of the caller's context. A call from
            inside an app or a lifespan runs it in a copy of the context in which it was mounted, like its lifespan,
            because a network does not carry the caller's context. ``"always"``: in a copy of the caller's context,
            also from inside an app. ``"never"``: always in a copy of the context in which it was mounted.
        limit: the number of connections in use at the same time. 0, the default, is no limit, because services call
            each other.
        limit_per_host: the same for each (host, port, scheme); 0, the default, is no limit.
        keepalive_timeout: the seconds that an idle connection is kept; 15 by default, as in aiohttp.
        force_close: whether each connection is closed after one request; `False` by default.
        shutdown_timeout: the seconds (2 by default) that `close()` gives running apps to end, from the time their
            client disconnected. Then they are cancelled, and a warning is logged. Each lifespan has the same time to
            shut down.

    ``root_path``, ``client``, ``raise_app_exceptions``, ``lifespan`` and ``inherit_context`` are defaults that a
    `Mount` may override.

    As an async context manager, it starts every app when it is entered, and closes at the end of the block.

    Raises:
        ValueError: for a pattern that is invalid or given twice, or a setting out of its range.
        TypeError: for an object that is not an ASGI application, such as a class, a function that makes an app, a
            coroutine or a WSGI application, or for a setting of the wrong type.
        RuntimeError: if no event loop runs, or if the fallback belongs to another event loop.
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
            services,
            fallback,
            fallback_owner,
            limit=limit,
            limit_per_host=limit_per_host,
            keepalive_timeout=keepalive_timeout,
            force_close=force_close,
        )
        tell_made(self)

    @override
    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self._closing.task else "open"
        return f"<{type(self).__name__} {state}, {len(self._services.table)} mounts, fallback {self._fallback!r}>"

    # The table of mounts.

    @property
    def mounts(self) -> Mapping[str, Mount]:
        """The patterns that are mounted now, each with its `Mount`: a read-only, live view."""
        return self._services.mounts

    def mount(self, pattern: str, app: App | Mount) -> None:
        """Mount *app* at *pattern*, or replace the app that is mounted there.

        The next request reaches *app*. Requests that are in flight on the old app finish there. Inside a `mounted()`
        block for the same pattern, *app* stays mounted until the end of the block.

        Raises `ValueError` or `TypeError` as the constructor does, before anything changes.
        """
        check_loop(self)
        self._check_open()
        self._services.mount(pattern, app)

    async def unmount(self, pattern: str) -> None:
        """Unmount the app at *pattern*. The next request goes to another pattern that matches, or to the fallback.

        Returns when the requests that were in flight on the app have ended. Raises `KeyError` if nothing is mounted at
        *pattern*, and `RuntimeError` from inside a request to the app, which would wait for itself.
        """
        check_loop(self)
        await self._services.unmount(pattern)

    def mounted(self, pattern: str, app: App | Mount) -> AbstractAsyncContextManager[None]:
        """Mount *app* at *pattern* for the length of a block. Afterwards the earlier mount is restored.

        Blocks for the same pattern may be nested, or overlap in any order: the app of the block entered last answers.
        The block ends when the requests that were in flight on *app* have ended. Its end raises `RuntimeError` from
        inside a request to *app*, which would wait for itself, and leaves *app* mounted.
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
        """Record the requests of a block: ``with connector.record() as journal:``.

        The journal has an `Exchange` for each request that starts in the block, to mounted apps and to the fallback,
        in the order in which they start. An exchange that is still running at the end of the block stays in the
        journal, and is updated until it ends. Recordings may be nested, and may overlap.

        Parameters:
            bodies: whether to keep bodies and the data of WebSocket messages; `False` by default.
            max_body_size: the number of bytes that are kept of each body, and of all messages of each WebSocket;
                1 MiB by default.

        Raises `TypeError` or `ValueError` for an invalid parameter, and `aiohttp.ClientConnectionError` if the
        connector is closed.
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
        query: "QueryGiven | None" = None,
        times: int | None = None,
        skip: int = 0,
        probability: float = 1.0,
        seed: int | float | str | bytes = 0,
        allow_unused: bool = False,
    ) -> "Injection":
        """Inject a fault for the length of a block: ``with connector.inject("users.internal", faults.Reset()):``.

        Whether it affects a request is decided once, when the request starts. Without ``times``, ``skip`` and
        ``probability``, a fault of bytes also affects requests in progress when the block begins. The faults of nested
        blocks combine, the innermost first, and only the innermost answers in the place of the app.

        Parameters:
            host, fault: a host pattern for which an app is mounted, and one of `asgi_connector.faults`.
            caller, method, path, query: which requests match, as in `Journal`; all by default.
            times: the greatest number of requests that are affected; no limit by default.
            skip: the number of matching requests that pass first; 0 by default.
            probability: the probability with which each later request is affected; 1 by default.
            seed: the seed of the random numbers, which depend on nothing else; 0 by default.
            allow_unused: whether the block may end without having affected a request; `False` by default.

        Raises `ValueError` or `TypeError` for an invalid parameter or a host that is not mounted, and
        `aiohttp.ClientConnectionError` if the connector is closed. The end of a block that has affected no request
        raises `AssertionError` with the calls; with ``probability`` below 1, only if no request matched.
        """
        from asgi_connector._injection.injections import Odds
        from asgi_connector._journal.selector import Selector

        selector = Selector(host, caller=caller, method=method, path=path, query=query)
        odds = Odds(times=times, skip=skip, probability=probability, seed=seed)
        return self._get_injector().inject(selector, fault, odds, allow_unused)

    def intercept(
        self, *, passthrough: bool | Iterable[str] = False, limits: bool = True, allow_refused: bool = False
    ) -> AbstractContextManager[None]:
        """Answer the requests of every `aiohttp.ClientSession` in the block: ``with connector.intercept():``.

        A session that a service or a client library makes itself reaches the apps that are mounted here, also if it was
        made before the block. Its cookies, traces, middlewares and timeouts are as ever. Its ``ssl`` and proxies mean
        nothing for a mounted host. A host that is not mounted is refused by `UnmountedHostError`, and nothing is
        resolved. Blocks may be nested, also of several connectors: the innermost that mounts a host answers.

        Parameters:
            passthrough: host patterns that are left to the session's own connector though nothing is mounted for them;
                `True` for every host, `False`, the default, for none.
            limits: whether the limits of the session's own connector hold; `True` by default.
            allow_refused: whether the block may end though a call of a service was refused; `False` by default.

        Raises `AssertionError` at the end of a block in which a call of a service was refused, because the service may
        have handled the error, and for the problems of each mounted `Stub`, as `Stub.assert_all_used` does. Raises
        `ValueError` or `TypeError` for an invalid parameter.
        """
        from .interception import Interception, Passthrough

        check_loop_or_none(self)
        self._check_open()
        return Interception(self, Passthrough(passthrough), limits, allow_refused)


def _check_pool(limit: object, limit_per_host: object, keepalive_timeout: object) -> None:
    """Check the parameters that aiohttp does not check. `None` is a valid value of each of the three."""
    for name, value in [("limit", limit), ("limit_per_host", limit_per_host)]:
        if value is not None:
            check_int(name, value, at_least=0)
    if keepalive_timeout is not None and keepalive_timeout is not sentinel:
        check_number("keepalive_timeout", keepalive_timeout)
