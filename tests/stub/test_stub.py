"""`Stub`: which answer a request gets, what it looks like on the wire, and what is reported at the end."""

import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from asgi_connector import ASGIApplicationConnector, ASGIConnectorError, ASGIRoutingConnector, Stub
from asgi_connector import UnmatchedRequestError, faults
from asgi_connector._stub.asked import Asked, parse_query
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.servers import serve_with_uvicorn


async def text_of(session: aiohttp.ClientSession, path: str = "/", method: str = "GET", **settings: Any) -> str:
    async with session.request(method, path, **settings) as response:
        return await response.text()


async def error_of(session: aiohttp.ClientSession, path: str = "/", method: str = "GET", **settings: Any) -> str:
    with pytest.raises(UnmatchedRequestError) as raised:
        await session.request(method, path, **settings)
    return str(raised.value)
