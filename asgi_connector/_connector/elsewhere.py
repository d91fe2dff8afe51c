"""Where requests go for which no app is mounted: to another connector, or nowhere."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import BaseConnector, ClientRequest, ClientTimeout
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from asgi_connector._aiohttp.interception import connect_fallback

Connect: TypeAlias = Callable[[ClientRequest, list[Trace], ClientTimeout], Awaitable[Connection]]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another way to a connection, and its name; or, without one, the reason why requests are refused."""

    connect: Connect | None
    name: str = ""
    """For the log."""
    reason: str = ""
    """For the error of a refused request: a clause that follows "No app is mounted for ...,"."""
    intercepted: bool = False
    """Whether the request is one of another session, whose own connector was asked first."""


def fallback_to(fallback: BaseConnector | None) -> Elsewhere:
    """To *fallback*, which no `intercept()` block intercepts; or nowhere."""
    if fallback is None:
        return Elsewhere(None, reason="and there is no fallback.")

    async def connect(req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        return await connect_fallback(fallback, req, traces, timeout)

    return Elsewhere(connect, f"the fallback, a {type(fallback).__name__}")
