"""What tests do with a session again and again."""

from typing import Any

from aiohttp import ClientSession
from yarl import URL

from asgi_connector import ASGIRoutingConnector


def connector_of(session: ClientSession) -> ASGIRoutingConnector:
    """The routing connector of a session that has one."""
    assert isinstance(session.connector, ASGIRoutingConnector)
    return session.connector


async def fetch(session: ClientSession, url: str | URL = "/", method: str = "GET", **settings: Any) -> bytes:
    """The body of the response, whatever its status."""
    async with session.request(method, url, **settings) as response:
        return await response.read()
