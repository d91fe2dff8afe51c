"""The private names of aiohttp that the package relies on. If aiohttp changes them, these tests fail first."""

import asyncio

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from asgi_connector._aiohttp.frames import run_at_once
from asgi_connector._aiohttp.requests import _REPLAYED_METHODS, failure_of, set_failure
from tests.conftest import session_to
from tests.support.raw import request_for
from tests.support.service import Service


@pytest.mark.parametrize("name", ["_create_connection", "_get", "_close", "_release_acquired"])
def test_a_connector_has_these_methods(name: str) -> None:
    assert callable(getattr(aiohttp.BaseConnector, name))


async def test_a_connector_knows_its_loop_and_what_is_in_the_pool_and_out_of_it() -> None:
    async with session_to(Service().app) as session:
        connector = session.connector
        assert connector is not None
        assert connector._loop is asyncio.get_running_loop()
        assert not connector._conns
        assert not connector._acquired
        async with session.get("/") as response:
            await response.read()
        [connections] = connector._conns.values()
        [(protocol, _)] = connections
        assert isinstance(protocol, ResponseHandler)


async def test_a_protocol_keeps_the_body_that_it_is_receiving() -> None:
    service = Service()
    async with session_to(service.app) as session, session.get("/endless") as response:
        assert response.connection is not None
        protocol = response.connection.protocol
        assert protocol is not None
        assert protocol._payload is response.content
        service.may_answer.set()


@pytest.mark.parametrize("total", [None, 60.0])
async def test_a_request_has_the_timer_of_the_call_that_it_is_part_of(total: float | None) -> None:
    timeout = aiohttp.ClientTimeout(total=total)
    async with session_to(Service().app, session_timeout=timeout) as session:
        request = await request_for(session)
        assert request._timer is not (await request_for(session))._timer
        assert hasattr(request._timer, "_tasks") is (total is not None)


def test_the_methods_that_aiohttp_repeats_are_known() -> None:
    assert {"GET", "PUT"} <= _REPLAYED_METHODS
    assert not {"POST", "PATCH"} & _REPLAYED_METHODS


async def test_a_request_keeps_what_is_noted_on_it() -> None:
    async with session_to(Service().app) as session:
        request = await request_for(session)
        assert failure_of(request) is None
        exc = LookupError()
        set_failure(request, exc)
        assert failure_of(request) is exc


async def test_a_coroutine_that_has_something_to_wait_for_is_not_run_at_once() -> None:
    with pytest.raises(RuntimeError, match="had something to wait for"):
        run_at_once(asyncio.sleep(0))
