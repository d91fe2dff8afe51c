"""Charges cards at Stripe: once for each order, and not at all for an order that was cancelled.

Run it:  python -m aiohttp.web examples.shop.payments:create_app
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from .common import keep_request_id, passing_on_request_ids

routes = web.RouteTableDef()


class Stripe:
    """What the payments use of Stripe's API."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def charge(self, order: str, form: dict[str, str]) -> str:
        """Charge a card, once for each order: Stripe gives the same answer again to the same key. Returns the id.

        Raises `Declined`, or `aiohttp.ClientError` if there is no answer.
        """
        async with self._session.post("/v1/charges", data=form, headers={"Idempotency-Key": order}) as response:
            answer = await response.json()
            if response.status == 402:
                raise Declined(answer["error"]["message"])
            response.raise_for_status()
            charge: str = answer["id"]
            return charge

    async def refund(self, order: str, charge: str) -> None:
        headers = {"Idempotency-Key": f"{order}-refund"}
        async with self._session.post("/v1/refunds", data={"charge": charge}, headers=headers) as response:
            response.raise_for_status()


class Declined(Exception):
    """Stripe declines the card."""


@dataclass
class Charge:
    form: dict[str, str] | None = None
    """What Stripe was asked; `None` if it was not, or if it has declined."""
    id: str | None = None
    cancelled: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


STRIPE = web.AppKey("STRIPE", Stripe)
MAKE_STRIPE: web.AppKey[Callable[[aiohttp.ClientSession], Stripe]] = web.AppKey("MAKE_STRIPE")
CHARGES = web.AppKey("CHARGES", defaultdict[str, Charge])


async def charge_once(app: web.Application, order: str, charge: Charge) -> None:
    """Charge the card, or ask again if there was no answer. Raises what `Stripe.charge` raises."""
    if charge.id is None and charge.form is not None:
        try:
            charge.id = await app[STRIPE].charge(order, charge.form)
        except Declined:
            charge.form = None
            raise


@routes.put("/charges/{order}")
async def charge(request: web.Request) -> web.Response:
    order, wanted = request.match_info["order"], await request.json()
    charge = request.app[CHARGES][order]
    async with charge.lock:
        if charge.cancelled:
            return web.json_response({"detail": "the order was cancelled"}, status=409)
        charge.form = {"amount": str(wanted["cents"]), "currency": "eur", "source": wanted["card"]}
        try:
            await charge_once(request.app, order, charge)
        except Declined as exc:
            return web.json_response({"detail": str(exc)}, status=402)
        except aiohttp.ClientError as exc:
            raise web.HTTPBadGateway(text="Stripe does not answer") from exc
    return web.json_response({"charge": charge.id}, status=201)


@routes.delete("/charges/{order}")
async def cancel(request: web.Request) -> web.Response:
    order = request.match_info["order"]
    charge = request.app[CHARGES][order]
    async with charge.lock:  # a charge that is being made ends first
        if not charge.cancelled:
            try:
                with suppress(Declined):
                    await charge_once(request.app, order, charge)
                if charge.id is not None:
                    await request.app[STRIPE].refund(order, charge.id)
            except aiohttp.ClientError as exc:
                raise web.HTTPBadGateway(text="Stripe does not answer") from exc
            charge.cancelled = True
    return web.Response(status=204)


async def connect_to_stripe(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(
        os.environ.get("STRIPE_URL", "https://api.stripe.com"),
        headers={"Authorization": f"Bearer {os.environ.get('STRIPE_KEY', '')}"},
        trace_configs=[passing_on_request_ids()],
    ) as session:
        app[STRIPE] = app[MAKE_STRIPE](session)
        yield


def create_app(argv: list[str] | None = None, *, buggy: bool = False) -> web.Application:
    from .buggy import BuggyStripe  # which imports this module

    app = web.Application(middlewares=[keep_request_id])
    app[CHARGES] = defaultdict(Charge)
    app[MAKE_STRIPE] = BuggyStripe if buggy else Stripe
    app.add_routes(routes)
    app.cleanup_ctx.append(connect_to_stripe)
    return app
