"""Fixtures for the tests that run an aiohttp.web application in process, and by a `web.TCPSite`."""

from functools import partial

import pytest

from tests.support.web_servers import WAYS, ServeWeb, serving_web


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve(way: str) -> ServeWeb:
    """Serve an application in the way of this test."""
    return partial(serving_web, way)
