"""A service of the example is broken in several ways. Each time the section alone shows the reason."""

import importlib
import os
import re

import pytest

from tests.pytest_plugin.conftest import Run
from tests.support.programs import ROOT

importlib.import_module("examples.shop.conftest")  # now, for the reason that conftest.py gives

CONFTEST = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from examples.shop.conftest import settings, shop
"""

WAYS = {
    "a wrong host in a setting": (
        """
@pytest.fixture
def settings(settings, monkeypatch):
    monkeypatch.setenv("STOCK_URL", "http://stocks.internal")

async def test(shop):
    status, _ = await shop.order("tea")
    assert status == 201
""",
        r"""Refused, because no app is mounted:
  orders\.internal -> PUT http://stocks\.internal/reservations/\w+
    No app is mounted for http://stocks\.internal, .* Did you mean 'stock\.internal'\? .*
    called at examples/shop/orders\.py:\d+ in _call: async with self\._session\.request\(.*
  orders\.internal -> DELETE http://stocks\.internal/reservations/\w+
    No app is mounted for http://stocks\.internal, .*
    called at examples/shop/orders\.py:\d+ in _call: .*
Calls:
! POST http://orders\.internal/orders: 503 in 0 s
!   orders\.internal -> PUT http://stocks\.internal/reservations/\w+: refused in 0 s
!   orders\.internal -> DELETE http://stocks\.internal/reservations/\w+: refused in 0 s
""",
    ),
    "an exception": (
        """
from examples.shop import stock

async def one(connection, query, *values):
    raise KeyError("available")

async def test(shop, monkeypatch):
    monkeypatch.setattr(stock, "one", one)
    await shop.order("tea")
""",
        r"""Calls:
! POST http://orders\.internal/orders: failed \(KeyError\) in 0 s
!   orders\.internal -> PUT http://stock\.internal/reservations/\w+: failed \(KeyError: 'available'\) in 0 s
        raised at test_it\.py:\d+ in one: raise KeyError\("available"\)
!   orders\.internal -> DELETE http://stock\.internal/reservations/\w+: failed \(KeyError: 'available'\) in 0 s
        raised at test_it\.py:\d+ in one: raise KeyError\("available"\)
""",
    ),
    "a fault": (
        """
async def test(shop):
    with shop.connector.inject("stock.internal", faults.Respond(502)):
        status, _ = await shop.order("tea")
    assert status == 201
""",
        r"""Calls:
! POST http://orders\.internal/orders: 503 in 0 s
!   orders\.internal -> PUT http://stock\.internal/reservations/\w+: 502 via fault \[Respond\(status=502\)\] in 0 s
!   orders\.internal -> DELETE http://stock\.internal/reservations/\w+: 502 via fault \[Respond\(status=502\)\] in 0 s
""",
    ),
    "a call that hangs": (
        """
async def hang(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.Event().wait()

async def test(shop):
    await shop.fill("tea", 5)
    shop.connector.mount("api.stripe.com", hang)
    async with asyncio.timeout(1):
        await shop.order("tea")
""",
        r"""Calls:
  PUT http://stock\.internal/items/tea: 204 in 0 s
! POST http://orders\.internal/orders: abandoned in 0 s
      its app waits at examples/shop/orders\.py:\d+ in _call: async with self\._session\.request\(.*
    orders\.internal -> PUT http://stock\.internal/reservations/\w+: 201 in 0 s
!   orders\.internal -> PUT http://payments\.internal/charges/\w+: abandoned in 0 s
        its app waits at examples/shop/payments\.py:\d+ in charge: async with self\._session\.post\(.*
!     payments\.internal -> POST https://api\.stripe\.com/v1/charges: running for 0 s so far
          its app waits at test_it\.py:\d+ in hang: await asyncio\.Event\(\)\.wait\(\)
!   orders\.internal -> DELETE http://payments\.internal/charges/\w+: running for 0 s so far
        its app waits at examples/shop/payments\.py:\d+ in cancel: async with charge\.lock: .*
""",
    ),
    "a status of the service behind the service": (
        """
async def test(shop):
    shop.stripe.post("/v1/charges", status=500, json={"error": "try later"})
    await shop.fill("tea", 5)
    status, _ = await shop.order("tea")
    assert status == 201
""",
        r"""Calls:
  PUT http://stock\.internal/items/tea: 204 in 0 s
! POST http://orders\.internal/orders: 503 in 0 s
    orders\.internal -> PUT http://stock\.internal/reservations/\w+: 201 in 0 s
!   orders\.internal -> PUT http://payments\.internal/charges/\w+: 502 in 0 s
!     payments\.internal -> POST https://api\.stripe\.com/v1/charges: 500 in 0 s
!   orders\.internal -> DELETE http://payments\.internal/charges/\w+: 502 in 0 s
!     payments\.internal -> POST https://api\.stripe\.com/v1/charges: 500 in 0 s
    orders\.internal -> DELETE http://stock\.internal/reservations/\w+: 204 in 0 s
""",
    ),
    "a startup that fails": (
        """
@pytest.fixture
def settings(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("STOCK_DATABASE", str(tmp_path / "missing" / "stock.sqlite3"))

async def test(shop):
    pass
""",
        r"""Calls:
  There was no call\. Mounted: 'orders\.internal', .*
Also:
  The app at 'stock\.internal' failed to start
    OperationalError: unable to open database file, raised at examples/shop/stock\.py:\d+ in lifespan: .*
""",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_section_alone_shows_the_reason(run: Run, way: str) -> None:
    source, expected = WAYS[way]
    outcome = run(source, conftest=CONFTEST)
    [section] = outcome.sections
    assert re.fullmatch(expected, section.replace(f"{ROOT}{os.sep}", "")), section
