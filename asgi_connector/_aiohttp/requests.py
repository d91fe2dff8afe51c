"""What aiohttp keeps private of a request, its response and its traces."""
# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final, cast

import aiohttp.client
from aiohttp import (
    ClientRequest,
    ClientResponse,
    ClientTimeout,
)
from aiohttp.client_exceptions import (
    ClientConnectionError,
    ClientConnectorError,
    ClientOSError,
    ServerDisconnectedError,
)
from aiohttp.tracing import Trace, TraceConfig

from asgi_connector._services.address import Address


def address_of(req: ClientRequest) -> Address:
    """Where *req* goes, by its URL, and not by its ``Host`` header."""
    return Address(req.host or "", req.port, req.is_ssl())


def connect_timeout(timeout: ClientTimeout) -> float | None:
    """The seconds in which a connection has to be made; `None` for no limit."""
    limits = [limit for limit in (timeout.connect, timeout.sock_connect) if limit]
    return min(limits, default=None)


def response_of(req: ClientRequest) -> ClientResponse | None:
    """What has been made for the response to *req*, which has no status before the head has arrived."""
    return req.response


def is_closed_by_client(exc: BaseException) -> bool:
    """Whether *exc* is what aiohttp fails a body with that its reader has given up, or whose session has closed."""
    return type(exc) is ClientConnectionError and exc.__cause__ is None  # else an upload has failed by itself


def makes_aiohttp_replay(req: ClientRequest, exc: BaseException) -> bool:
    """Whether aiohttp sends *req* a second time when it fails with *exc* (`ClientSession._request`)."""
    if req.method not in _REPLAYED_METHODS:
        return False
    return isinstance(exc, ClientOSError | ServerDisconnectedError) and not isinstance(exc, ClientConnectorError)


_REPLAYED_METHODS: Final = aiohttp.client.IDEMPOTENT_METHODS  # which `aiohttp` itself does not export


def calling_task(req: ClientRequest) -> asyncio.Task[Any] | None:
    """The task that called the session; client middlewares may send a request from another one.

    A request's timer knows it, where the session's call has a timeout.
    """
    tasks: list[asyncio.Task[Any]] = getattr(req._timer, "_tasks", [])
    return tasks[0] if tasks else None


def is_replay(req: ClientRequest, earlier: ClientRequest) -> bool:
    """Whether aiohttp, and not its user, sends *earlier* again as *req*.

    A timer belongs to one call of the session. aiohttp makes a new request object in it for each redirect and for its
    replay; a client middleware that tries again sends the same one.
    """
    return req is not earlier and req._timer is earlier._timer


def let_fail_again(req: ClientRequest, exc: BaseException) -> None:
    """Note on *req* that it fails with *exc*, however often a client middleware sends it.

    On the request itself, since *exc* refers to it by its traceback: so both go when the call is over.
    """
    vars(req)[_FAILURE] = exc


def failure_of(req: ClientRequest) -> BaseException | None:
    """What `let_fail_again()` has noted."""
    failure: BaseException | None = vars(req).get(_FAILURE)
    return failure


_FAILURE: Final = "_asgi_connector_failure"


def trace_reuse(report: Callable[[bool], None]) -> Trace:
    """A trace for a connector that tells whether the connection which it takes has been used before."""
    config = TraceConfig()

    async def reused(session: object, context: object, params: object) -> None:
        report(True)

    async def created(session: object, context: object, params: object) -> None:
        report(False)

    config.on_connection_reuseconn.append(reused)
    config.on_connection_create_end.append(created)
    config.freeze()
    return Trace(cast(Any, None), config, SimpleNamespace())


def take_proxy(req: ClientRequest) -> tuple[Any, Any, Any]:
    """Take the proxy away from a request, before it is written, which depends on it; `update_proxy()` gives it back."""
    proxy = (req.proxy, req.proxy_auth, req.proxy_headers)
    req.update_proxy(None, None, None)
    return proxy
