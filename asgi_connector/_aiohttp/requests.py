"""Access to private parts of aiohttp's requests, responses and traces."""

# pyright: reportPrivateUsage=false

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, Final, cast

import aiohttp.client
from aiohttp import ClientConnectorDNSError, ClientRequest, ClientResponse, ClientTimeout
from aiohttp.client_exceptions import (
    ClientConnectionError,
    ClientConnectorError,
    ClientOSError,
    ServerDisconnectedError,
)
from aiohttp.tracing import Trace, TraceConfig

from asgi_connector._services.address import Address


def address_of(req: ClientRequest) -> Address:
    """Return the address of *req*: its URL decides, not its ``Host`` header, unless a subclass says otherwise."""
    return Address(req.host or "", req.port, req.is_ssl())


def connect_timeout(timeout: ClientTimeout) -> float | None:
    """Return the seconds within which a connection must be made; `None` for no limit."""
    limits = [limit for limit in (timeout.connect, timeout.sock_connect) if limit]
    return min(limits, default=None)


async def wait_to_connect(answer: Awaitable[None], timeout: ClientTimeout) -> None:
    """Wait for *answer*. Raises `TimeoutError` as for a connection attempt that gets none in time."""
    async with asyncio.timeout(connect_timeout(timeout)):
        await answer


def connection_refused(req: ClientRequest) -> ClientConnectorError:
    """Return the error of aiohttp's own connector if no server listens at the address of *req*."""
    refused = ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed ({req.host!r}, {req.port})")
    error = ClientConnectorError(req.connection_key, refused)
    error.__cause__ = refused
    return error


def host_unknown(req: ClientRequest) -> ClientConnectorDNSError:
    """Return the error of aiohttp's own connector if the host of *req* does not exist."""
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    error = ClientConnectorDNSError(req.connection_key, unknown)
    error.__cause__ = unknown
    return error


def response_of(req: ClientRequest) -> ClientResponse | None:
    """Return the response object of *req*, if it exists."""
    return req.response


def status_of(response: ClientResponse) -> int | None:
    """Return the status of *response*; `None` until its head has arrived, which aiohttp's type does not say."""
    return response.status


def is_closed_by_client(exc: BaseException) -> bool:
    """Whether *exc* is aiohttp's error for a body that its reader abandoned, or whose session was closed."""
    return type(exc) is ClientConnectionError and exc.__cause__ is None  # with a cause, an upload has failed


def aiohttp_will_replay(req: ClientRequest, exc: BaseException) -> bool:
    """Whether `ClientSession._request` sends *req* a second time when it fails with *exc*."""
    if req.method not in _REPLAYED_METHODS:
        return False
    return isinstance(exc, ClientOSError | ServerDisconnectedError) and not isinstance(exc, ClientConnectorError)


_REPLAYED_METHODS: Final = aiohttp.client.IDEMPOTENT_METHODS  # `aiohttp` itself does not export it


def calling_task(req: ClientRequest) -> asyncio.Task[Any] | None:
    """Return the task that called the session. Client middlewares may send a request from another task.

    The timer of a request has this task, if the session's call has a timeout.
    """
    tasks: list[asyncio.Task[Any]] = getattr(req._timer, "_tasks", [])
    return tasks[0] if tasks else None


def is_replay(req: ClientRequest, earlier: ClientRequest) -> bool:
    """Whether aiohttp itself, and not user code, sends *earlier* again as *req*.

    Each call of the session has its own timer. In that call, aiohttp creates a new request object for each redirect and
    for a replay. A client middleware that tries again sends the same object.
    """
    return req is not earlier and req._timer is earlier._timer


def set_failure(req: ClientRequest, exc: BaseException) -> None:
    """Store in *req* that it fails with *exc*, however often a client middleware sends it.

    It is stored in the request itself, because the traceback of *exc* refers to the request. So both are freed when the
    call is over.
    """
    vars(req)[_FAILURE] = exc


def failure_of(req: ClientRequest) -> BaseException | None:
    """Return the exception that `set_failure()` has stored, if any."""
    failure: BaseException | None = vars(req).get(_FAILURE)
    return failure


_FAILURE: Final = "_asgi_connector_failure"


def trace_reuse(report: Callable[[bool], None]) -> Trace:
    """Return a trace that calls *report* with whether the connection of a request was used before."""
    return Trace(cast(Any, None), _REUSE, SimpleNamespace(report=report))


async def _reused(session: object, context: SimpleNamespace, params: object) -> None:
    context.report(True)


async def _created(session: object, context: SimpleNamespace, params: object) -> None:
    context.report(False)


def _reuse_config() -> TraceConfig:
    """Return the configuration that all of these traces share, because making one is slow."""
    config = TraceConfig()
    config.on_connection_reuseconn.append(_reused)
    config.on_connection_create_end.append(_created)
    config.freeze()
    return config


_REUSE: Final = _reuse_config()


def take_proxy(req: ClientRequest) -> tuple[Any, Any, Any]:
    """Remove the proxy from a request before it is written, and return it for `update_proxy()`, which restores it."""
    proxy = (req.proxy, req.proxy_auth, req.proxy_headers)
    req.update_proxy(None, None, None)
    return proxy
