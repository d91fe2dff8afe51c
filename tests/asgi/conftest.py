"""Fixtures of the tests that serve one app in several ways; each module has its own fixture `way`."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.support.differences import Expected
from tests.support.servers import Part, Serve, serving


@pytest.fixture
def expected(request: pytest.FixtureRequest, way: str) -> Expected:
    return Expected(way, request.node.originalname)


@pytest.fixture
def serve(way: str) -> Serve:
    """Serve an app in the way of this test."""

    def serve(app: Part, **settings: Any) -> AbstractAsyncContextManager[ClientSession]:
        return serving(way, app, **settings)

    return serve
