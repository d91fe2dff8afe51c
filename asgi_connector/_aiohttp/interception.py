"""Sessions that others make: what aiohttp's own connectors do when a session asks them for a connection.

`BaseConnector.connect()` and `BaseConnector._close()` are changed while a block is open. The functions get other code,
and the class keeps its attributes. So earlier references to the functions are changed too: a subclass that has kept
one, a library that has wrapped one. And what a library patches meanwhile on the class stays.
"""

# pyright: reportPrivateUsage=false

import inspect
import threading
import weakref
from collections.abc import Awaitable, Callable
from types import CodeType, FunctionType
from typing import Any, Final, Protocol, cast

from aiohttp import BaseConnector, ClientConnectionError, ClientRequest, ClientTimeout
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.helpers import ceil_timeout
from aiohttp.tracing import Trace

from asgi_connector._services.address import Address

from .pool import PoolingConnector
from .requests import address_of


class Interceptor(Protocol):
    """An open block."""

    def mounts(self, address: Address) -> bool:
        """Whether an app is mounted for *address*."""
        ...

    async def connect(
        self,
        session_connector: BaseConnector,
        address: Address,
        mounted: bool,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,
    ) -> Connection:
        """Get a connection for *req*, which a session has asked *session_connector* for.

        *mounted* is what `mounts()` has just said of its *address*.
        """
        ...


# Reentrant: the garbage collector may free a slot, which takes the lock, while this thread has it.
_lock: Final = threading.RLock()
# The innermost last. A tuple, because other threads may read it meanwhile.
_interceptors: tuple[Interceptor, ...] = ()


def add(interceptor: Interceptor) -> None:
    """Let *interceptor* answer what sessions ask their connectors for, before those that were added earlier."""
    global _interceptors
    with _lock:
        _CONNECT.check()
        _interceptors = (*_interceptors, interceptor)
        _update_patches()


def remove(interceptor: Interceptor) -> None:
    global _interceptors
    with _lock:
        _interceptors = tuple(other for other in _interceptors if other is not interceptor)
        _update_patches()


def _update_patches() -> None:
    _CONNECT.set_applied(bool(_interceptors))
    _CLOSE.set_applied(bool(_interceptors) or bool(_unlimited))


class _Patch:
    """Other code for one function."""

    def __init__(self, function: Callable[..., Any], qualname: str, replacement: Callable[..., Any]) -> None:
        self._function = cast(FunctionType, inspect.unwrap(function))
        self._qualname = qualname
        self._own_code = self._function.__code__
        self._other_code: CodeType = cast(FunctionType, replacement).__code__
        self._applied = False
        # The function as it was, under the same name in tracebacks.
        self.original = FunctionType(
            self._own_code, self._function.__globals__, self._function.__name__, self._function.__defaults__
        )
        self.original.__kwdefaults__ = self._function.__kwdefaults__
        self.original.__qualname__ = self._function.__qualname__

    def check(self) -> None:
        """Raise `RuntimeError` if a library had replaced the function before this module was imported."""
        if self._function.__module__ != "aiohttp.connector" or self._function.__qualname__ != self._qualname:
            raise RuntimeError(
                f"intercept() cannot find aiohttp's own {self._qualname}(), because {self._function.__module__!r} has "
                "replaced it: import asgi_connector before that"
            )

    def set_applied(self, applied: bool) -> None:
        if applied is not self._applied:
            self._function.__code__ = self._other_code if applied else self._own_code
            self._applied = applied


# The globals of the next two are aiohttp's: their code runs in the place of a function of aiohttp's.


async def _connect(self: Any, req: Any, traces: Any, timeout: Any) -> Any:
    from asgi_connector._aiohttp.interception import connect

    return await connect(self, req, traces, timeout)


def _close(self: Any, *, abort_ssl: bool = False) -> Any:
    from asgi_connector._aiohttp.interception import close

    return close(self, abort_ssl)


_CONNECT: Final = _Patch(BaseConnector.connect, "BaseConnector.connect", _connect)
_CLOSE: Final = _Patch(BaseConnector._close, "BaseConnector._close", _close)


async def connect(
    connector: BaseConnector, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
) -> Connection:
    """What `BaseConnector.connect()` does while a block is open."""
    interceptors = _interceptors
    if not interceptors or isinstance(connector, PoolingConnector) or _PASSES in vars(req):
        return await connect_as_always(connector, req, traces, timeout)
    address = address_of(req)
    for interceptor in reversed(interceptors):
        if interceptor.mounts(address):
            return await interceptor.connect(connector, address, True, req, traces, timeout)
    return await interceptors[-1].connect(connector, address, False, req, traces, timeout)


async def connect_as_always(
    connector: BaseConnector, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
) -> Connection:
    """What `BaseConnector.connect()` does while no block is open."""
    return cast(Connection, await _CONNECT.original(connector, req, traces, timeout))


async def connect_fallback(
    fallback: BaseConnector, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
) -> Connection:
    """Call the `connect()` of *fallback*, which may be a subclass's own; no block intercepts it."""
    if not _interceptors:
        return await fallback.connect(req, traces, timeout)
    vars(req)[_PASSES] = True
    try:
        return await fallback.connect(req, traces, timeout)
    finally:
        vars(req).pop(_PASSES, None)


_PASSES: Final = "_asgi_connector_passes"


class Slot:
    """The place that an in-memory connection takes among those of a session's own connector.

    It stands in `BaseConnector._acquired` for the connection, as `aiohttp.connector._TransportPlaceholder` does.
    """

    __slots__ = ("__weakref__", "_connection", "_connector", "_freed", "_key", "_limited")

    transport = None

    def __init__(self, connector: BaseConnector, key: Any, *, limited: bool) -> None:
        """With *limited*, count among the connections that the limits of *connector* allow."""
        self._connector = connector
        self._key = key
        self._limited = limited
        self._connection: weakref.ref[Connection] | None = None
        self._freed = False
        if not limited:
            with _lock:
                _unlimited.setdefault(connector, set()).add(self)
                _update_patches()
            return
        connector._acquired.add(cast(ResponseHandler, self))
        if connector._limit_per_host:
            connector._acquired_per_host[key].add(cast(ResponseHandler, self))

    def hold(self, connection: Connection) -> None:
        """Keep the place until *connection* is released, or lost by its user."""
        self._connection = weakref.ref(connection, self._free)
        connection.add_callback(self.free)

    def free(self) -> None:
        """Give the place back, once. A request that waits for it goes on."""
        if self._freed:
            return
        self._freed = True
        self._connection = None  # its callback has nothing left to do
        if self._limited:
            self._connector._release_acquired(self._key, cast(ResponseHandler, self))
            return
        with _lock:
            slots = _unlimited.get(self._connector)
            if slots is not None:
                slots.discard(self)
                if not slots:
                    del _unlimited[self._connector]
                _update_patches()

    def _free(self, _: object) -> None:
        self.free()

    @property
    def _protocol(self) -> ResponseHandler | None:
        connection = None if self._connection is None else self._connection()
        return None if connection is None else connection.protocol

    @property
    def closed(self) -> Awaitable[object] | None:
        """What `BaseConnector._close()` waits for."""
        protocol = self._protocol
        return None if protocol is None else protocol.closed

    def close(self) -> None:
        """The session is closed: end the request, as over TCP."""
        if (protocol := self._protocol) is not None:
            protocol.close()


_unlimited: dict[BaseConnector, set[Slot]] = {}
"""The slots of blocks without limits, by the connector of the session, as long as they are not freed."""


def close(connector: BaseConnector, abort_ssl: bool) -> list[Awaitable[object]]:
    """What `BaseConnector._close()` does while a block is open, or a connection of a block without limits is."""
    waiters: list[Awaitable[object]] = []
    with _lock:
        slots = _unlimited.pop(connector, set())
        _update_patches()
    for slot in slots:
        closed = slot.closed
        slot.close()
        if closed is not None:
            waiters.append(closed)
    return [*_CLOSE.original(connector, abort_ssl=abort_ssl), *waiters]


def has_free_slot(connector: BaseConnector, key: Any) -> bool:
    """Whether the limits of *connector* allow another connection now."""
    return connector._available_connections(key) > 0


async def wait_for_slot(connector: BaseConnector, key: Any, traces: list[Trace], timeout: ClientTimeout) -> None:
    """Wait until the limits of *connector* allow another connection, as `BaseConnector.connect()` does."""
    try:
        async with ceil_timeout(timeout.connect, timeout.ceil_threshold):
            await connector._wait_for_available_connection(key, traces)
    except BaseException as exc:
        limits = f"limit={connector._limit}, limit_per_host={connector._limit_per_host}"
        exc.add_note(f"It waited for a connection of {connector!r} ({limits}); all of them were in use")
        raise


def keeps_no_connections(connector: BaseConnector) -> bool:
    """Whether *connector* closes each connection after one request."""
    return connector._force_close


def check_not_closed(connector: BaseConnector) -> None:
    """Raise what aiohttp raises if *connector* was closed while a connection was being made."""
    if connector._closed:
        raise ClientConnectionError("Connector is closed.")
