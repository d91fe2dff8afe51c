"""A small shop with planted bugs, and a scenario that explores it.

``python -m tests.support.explored`` prints the report about the shop with all bugs, in virtual time.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from asgi_connector import ASGIRoutingConnector, faults
from asgi_connector._types import Receive, Scope, Send
from asgi_connector.faults import Report, Shake
from tests.support.messages import read_body, respond
from tests.support.shaken import virtual_time

CHARGED_TWICE: Final = "a retry charges a second time"
NOT_REFUNDED: Final = "a charge without an answer is not refunded"
LEAKED: Final = "a reservation without an answer is not released"
UNDONE_TWICE: Final = "a retry releases a second time"
BUGS: Final = [CHARGED_TWICE, NOT_REFUNDED, LEAKED, UNDONE_TWICE]

TRIED: Final[list[faults.Fault]] = [faults.Refuse(), faults.Reset(), faults.Respond(503), faults.Latency(5)]

PATIENCE: Final = aiohttp.ClientTimeout(total=1)  # of the services; the customer waits for ever


class Failed(Exception):
    """A call of a service has failed in all attempts."""


class Shop:
    """Three services: orders reserves at stock and charges at payments, and undoes both if a step fails.

    What cannot be undone is noted for people, in `by_hand`.
    """

    def __init__(self, bugs: Collection[str] = ()) -> None:
        self._bugs = bugs
        self.available = 1
        self.charges: list[str] = []
        self.placed = 0
        self.by_hand: list[str] = []
        self._cancelled: set[str] = set()
        self._reserved: set[str] = set()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[tuple[ASGIRoutingConnector, aiohttp.ClientSession]]:
        apps = {"orders.internal": self.orders, "payments.internal": self.payments, "stock.internal": self.stock}
        connector = ASGIRoutingConnector(apps, lifespan="off")
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout()) as self._session:
            yield connector, self._session

    async def orders(self, scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        try:
            await self._place()
        except Failed:
            await respond(send, b"try again later", 503)
        else:
            await respond(send, b"placed", 201)

    async def _place(self) -> None:
        charge = ("POST", "payments.internal/charges") if CHARGED_TWICE in self._bugs else None
        steps = [
            (("PUT", "stock.internal/reservations/1"), LEAKED),
            (charge or ("PUT", "payments.internal/charges/1"), NOT_REFUNDED),
        ]
        undo: list[str] = []
        try:
            for (method, url), bug in steps:
                undone = url if url.endswith("/1") else f"{url}/1"
                if bug not in self._bugs:
                    undo.append(undone)  # even if there is no answer: it may have been done
                await self._call(method, url)
                if bug in self._bugs:
                    undo.append(undone)
        except Failed:
            for url in reversed(undo):
                await self._undo(url)
            raise
        self.placed += 1

    async def _undo(self, url: str) -> None:
        try:
            await self._call("DELETE", url)
        except Failed:
            self.by_hand.append(url)

    async def _call(self, method: str, url: str) -> None:
        """Make a call, in two attempts."""
        for _ in range(2):
            try:
                async with self._session.request(method, f"http://{url}", timeout=PATIENCE) as response:
                    if response.status < 400:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
        raise Failed(f"{method} {url}")

    async def payments(self, scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        if scope["method"] == "DELETE":
            self._cancelled.add("charge")
            self.charges.clear()
        elif "charge" not in self._cancelled and (scope["method"] == "POST" or not self.charges):
            self.charges.append(scope["method"])
        await respond(send)

    async def stock(self, scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        if scope["method"] == "DELETE":
            if "reservation" in self._reserved or UNDONE_TWICE in self._bugs:
                self.available += 1
            self._reserved.discard("reservation")
            self._cancelled.add("reservation")
        elif not self._reserved | self._cancelled & {"reservation"}:
            self.available -= 1
            self._reserved.add("reservation")
        await respond(send)

    def check(self, shake: Shake) -> None:
        """Check what holds whatever fails. The plan is in the message, so that it is other text in each run."""
        assert len(self.charges) <= 1, f"charged {len(self.charges)} times: {shake.plan}"
        assert self.available <= 1, f"{self.available} available of 1: {shake.plan}"
        charge_is_known = self.placed or any("charges" in url for url in self.by_hand)
        assert not self.charges or charge_is_known, f"charged without an order: {shake.plan}"
        reservation_is_known = self.placed or any("reservations" in url for url in self.by_hand)
        assert self.available or reservation_is_known, f"reserved without an order: {shake.plan}"


def explore_in_virtual_time(bugs: Collection[str] = ()) -> Report:
    async def scenario(shake: Shake) -> None:
        shop = Shop(bugs)
        async with shop.open() as (connector, session):
            with shake(connector):
                await session.post("http://orders.internal/orders")
            shop.check(shake)

    async def explore() -> Report:
        return await faults.explore(scenario, TRIED)

    with asyncio.Runner(loop_factory=virtual_time) as runner:
        return runner.run(explore())


if __name__ == "__main__":
    print(explore_in_virtual_time(BUGS))
