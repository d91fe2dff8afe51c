"""What the services share: where the others are, and the id of a request, which they pass on to each other."""

import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web

HEADER = "X-Request-ID"
REQUEST_ID: ContextVar[str] = ContextVar("request_id")


def url_of(service: str) -> str:
    """The URL of a service: the environment variable ``STOCK_URL``, for example, or ``http://stock.internal``."""
    return os.environ.get(f"{service.upper()}_URL", f"http://{service}.internal")


class RequestIds:
    """ASGI middleware that keeps the id of the request. A request without one gets a new id."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            given = dict(scope["headers"]).get(HEADER.lower().encode())
            REQUEST_ID.set(given.decode("ascii") if given else uuid4().hex)
        await self._app(scope, receive, send)


@web.middleware
async def keep_request_id(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The same for `aiohttp.web`."""
    REQUEST_ID.set(request.headers.get(HEADER) or uuid4().hex)
    return await handler(request)


async def _add_request_id(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams
) -> None:
    if (current := REQUEST_ID.get(None)) is not None:
        params.headers[HEADER] = current


def passing_on_request_ids() -> aiohttp.TraceConfig:
    """For a client session: its requests get the id of the request that is being answered."""
    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(_add_request_id)
    return trace
