"""The whole shop in this process: each service at its host name, and a stub for each of the two that others run."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from asgi_connector import ASGIRoutingConnector, Journal, Stub

from . import notifications, orders, payments, stock

CUSTOMER = "ada@example.org"


@dataclass(frozen=True)
class Shop:
    connector: ASGIRoutingConnector
    journal: Journal
    session: aiohttp.ClientSession
    stripe: Stub
    postmark: Stub

    async def fill(self, item: str, available: int, cents: int = 250) -> None:
        """Put goods into the stock."""
        url = f"http://stock.internal/items/{item}"
        async with self.session.put(url, json={"cents": cents, "available": available}) as response:
            assert response.status == 204

    async def left(self, item: str) -> int:
        """How much of *item* the stock has."""
        async with self.session.get(f"http://stock.internal/items/{item}") as response:
            found: dict[str, int] = await response.json()
            return found["available"]

    async def order(
        self, item: str, quantity: int = 1, *, key: str = "1", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, object]]:
        """Place an order. Returns the status and the body of the answer."""
        order = {"customer": CUSTOMER, "card": "tok_visa", "item": item, "quantity": quantity}
        async with self.session.post(
            "http://orders.internal/orders", json=order, headers={"Idempotency-Key": key, **(headers or {})}
        ) as response:
            return response.status, await response.json()


@asynccontextmanager
async def run_shop(*, buggy: bool = False) -> AsyncIterator[Shop]:
    """Start the services. Until the end of the block, the requests of all sessions are answered in this process.

    With *buggy* (`False` by default) they have the bugs of ``buggy.py``.
    """
    stripe, postmark = Stub(), Stub()
    connector = ASGIRoutingConnector(
        {
            "orders.internal": orders.create_app(buggy=buggy),
            "stock.internal": stock.create_app(buggy=buggy),
            "payments.internal": payments.create_app(buggy=buggy),
            "notifications.internal": notifications.create_app(),
            "api.stripe.com": stripe,
            "api.postmarkapp.com": postmark,
        }
    )
    async with connector:
        with connector.record(bodies=True) as journal, connector.intercept():
            async with aiohttp.ClientSession() as session:
                yield Shop(connector, journal, session, stripe, postmark)
