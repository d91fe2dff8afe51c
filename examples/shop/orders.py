"""Places orders. It reserves the goods, charges the customer and commits the reservation; a failed step undoes them.

Run it:  uvicorn --factory examples.shop.orders:create_app
"""

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any
from uuid import uuid4

import aiohttp
from fastapi import APIRouter, BackgroundTasks, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, Field

from .common import RequestIds, passing_on_request_ids, url_of

logger = logging.getLogger(__name__)
router = APIRouter()


class NewOrder(BaseModel):
    customer: str
    card: str
    item: str
    quantity: int = Field(1, gt=0)


class Order(BaseModel):
    number: str
    item: str
    quantity: int
    cents: int


class Checkout:
    """The steps of an order, in calls to the other services."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._stock, self._payments, self._notifications = map(url_of, ("stock", "payments", "notifications"))
        self._patience = aiohttp.ClientTimeout(float(os.environ.get("PAYMENTS_TIMEOUT", "3")))
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._placed: dict[str, Order] = {}

    async def place_once(self, key: str, new: NewOrder) -> tuple[Order, bool]:
        """Place an order, unless *key* has placed one. Returns the order, and whether it is new."""
        async with self._locks[key]:
            if key in self._placed:
                return self._placed[key], False
            self._placed[key] = order = await self._place(new)
            return order, True

    async def _place(self, new: NewOrder) -> Order:
        number = uuid4().hex
        reservation, charge = f"{self._stock}/reservations/{number}", f"{self._payments}/charges/{number}"
        async with AsyncExitStack() as undo:
            wanted = {"item": new.item, "quantity": new.quantity}
            cents = (await self._step(undo, reservation, json=wanted))["cents"]
            await self._step(undo, charge, json={"cents": cents, "card": new.card}, timeout=self._patience)
            await self._call("POST", f"{reservation}/commit")
            undo.pop_all()
        return Order(number=number, item=new.item, quantity=new.quantity, cents=cents)

    async def _step(self, undo: AsyncExitStack, url: str, **settings: Any) -> Any:
        """Make a call that is undone if it fails, or a later one does.

        It is undone even if there is no answer, because it may have been done.
        """
        undo.push_async_callback(self._attempt, "DELETE", url)
        return await self._call("PUT", url, **settings)

    async def notify(self, customer: str, order: Order) -> None:
        """Tell the customer. The order stands, even if that fails."""
        event = {"to": customer, "text": f"Thank you for your order {order.number}"}
        await self._attempt("POST", f"{self._notifications}/events", json=event)

    async def _attempt(self, method: str, url: str, **settings: Any) -> None:
        """Make a call whose failure is not the customer's. The log has it, for the operators."""
        try:
            await self._call(method, url, **settings)
        except HTTPException:
            logger.exception("This has to be done by hand: %s %s", method, url)

    async def _call(self, method: str, url: str, **settings: Any) -> Any:
        try:
            async with self._session.request(method, url, **settings) as response:
                if response.status in (402, 404, 409):  # the customer can do something about these
                    raise HTTPException(response.status, (await response.json())["detail"])
                response.raise_for_status()
                return None if response.status == 204 else await response.json()
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise HTTPException(503, "please try again later") from exc


@router.post("/orders", status_code=201)
async def place_order(
    new: NewOrder, idempotency_key: Annotated[str, Header()], request: Request, later: BackgroundTasks
) -> Order:
    checkout: Checkout = request.app.state.checkout
    order, is_new = await checkout.place_once(idempotency_key, new)
    if is_new:
        later.add_task(checkout.notify, new.customer, order)
    return order


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(trace_configs=[passing_on_request_ids()]) as session:
        app.state.checkout = app.state.make_checkout(session)
        yield


def create_app(*, buggy: bool = False) -> FastAPI:
    from .buggy import BuggyCheckout  # which imports this module

    app = FastAPI(lifespan=lifespan)
    app.state.make_checkout = BuggyCheckout if buggy else Checkout
    app.add_middleware(RequestIds)
    app.include_router(router)
    return app
