"""An order service that copes with failing payments, and a journal of who called whom.

`orders.internal` calls `payments.internal` with a timeout, and tries again after a failure (tenacity). After too many
failures it stops calling for a while (a circuit breaker, purgatory). The payments are slow, then down, then up again.
The services do not know about the faults. The faults act on the connection in memory, below HTTP, as a network does.

The example prints the journal. It also writes it as a page to look at, as a Mermaid diagram, and as a HAR file, which
the developer tools of browsers can import.

Run it:  python examples/resilience.py
     or  python examples/resilience.py DIRECTORY  to choose where the files are written
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import aiohttp
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState
from pydantic import BaseModel
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from asgi_connector import ASGIRoutingConnector, Journal, faults

# payments.internal. A retry sends the same key, so the order is not charged twice.

payments = FastAPI()
LEDGER: dict[str, int] = {}


class Charge(BaseModel):
    cents: int


@payments.post("/charges", status_code=201)
async def charge(charge: Charge, idempotency_key: Annotated[str, Header()]) -> Charge:
    LEDGER.setdefault(idempotency_key, charge.cents)
    return charge


# orders.internal

orders = FastAPI()

PATIENCE = aiohttp.ClientTimeout(total=0.5)
RECOVERY = 1.0  # seconds that the circuit breaker stays open before it tries a call


class Order(BaseModel):
    number: int
    cents: int


class Payments:
    """The client of payments.internal."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._breakers = AsyncCircuitBreakerFactory(default_threshold=3, default_ttl=RECOVERY)

    @retry(
        retry=retry_if_exception_type((aiohttp.ClientError, TimeoutError)),
        stop=stop_after_attempt(3),
        wait=wait_fixed(0.01),
        reraise=True,
    )
    async def charge(self, order: Order) -> None:
        async with (
            await self._breakers.get_breaker("payments"),
            self._session.post(
                "http://payments.internal/charges",
                json={"cents": order.cents},
                headers={"Idempotency-Key": f"order-{order.number}"},
                timeout=PATIENCE,
            ) as response,
        ):
            response.raise_for_status()


async def get_payments(request: Request) -> Payments:
    client: Payments = request.app.state.payments
    return client


@orders.post("/orders", status_code=201)
async def place_order(order: Order, payments: Annotated[Payments, Depends(get_payments)]) -> Order:
    try:
        await payments.charge(order)
    except OpenedState as exc:
        raise HTTPException(503, "the payments are down, please come back later") from exc
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise HTTPException(502, "the payment failed") from exc
    return order


# A test of such a service would do the following.


async def place(session: aiohttp.ClientSession, number: int) -> None:
    async with session.post("http://orders.internal/orders", json={"number": number, "cents": 4200}) as response:
        print(f"  order {number}: {response.status} {await response.text()}")


async def all_is_well(session: aiohttp.ClientSession) -> None:
    print("All is well")
    await place(session, 1)


async def slow(session: aiohttp.ClientSession, connector: ASGIRoutingConnector) -> None:
    print("\nThe payments are slow, once: orders tries again with the same key, and the order is charged once")
    with connector.inject("payments.internal", faults.Latency(5), caller="orders.internal", times=1) as injected:
        await place(session, 2)
    print(f"  {injected.matched} calls, {injected.affected} of them slow; the ledger: {LEDGER}")


async def down(session: aiohttp.ClientSession, connector: ASGIRoutingConnector) -> None:
    print("\nThe payments are down: three attempts, and the circuit breaker opens")
    with connector.inject("payments.internal", faults.Refuse()):
        await place(session, 3)
        print("\nIt is open: the next order is answered immediately, and payments.internal is not called")
        with connector.record() as journal:
            await place(session, 4)
        journal.assert_not_called("payments.internal")


async def back(session: aiohttp.ClientSession) -> None:
    print("\nThe payments are back, and after its recovery time the circuit breaker closes")
    await asyncio.sleep(RECOVERY + 0.05)
    await place(session, 5)


def show(journal: Journal) -> None:
    print("\nWho called whom")
    print(journal)
    journal.assert_called("payments.internal", caller="orders.internal", path="/charges", times=7)


def write(journal: Journal, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    journal.save_html(directory / "calls.html")
    (directory / "calls.mmd").write_text(journal.to_mermaid(), encoding="utf-8")
    journal.save_har(directory / "calls.har")
    print(f"\nThe page to look at is {directory / 'calls.html'}")
    print(f"The diagram is {directory / 'calls.mmd'}\nThe HAR is {directory / 'calls.har'}")


async def main(directory: Path) -> None:
    async with ASGIRoutingConnector({"orders.internal": orders, "payments.internal": payments}) as connector:
        async with aiohttp.ClientSession(connector=connector, connector_owner=False) as session:
            orders.state.payments = Payments(session)
            with connector.record(bodies=True) as journal:
                await all_is_well(session)
                await slow(session, connector)
                await down(session, connector)
                await back(session)
        show(journal)
        write(journal, directory)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="resilience-"))))
