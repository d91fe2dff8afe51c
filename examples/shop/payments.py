"""Charges cards at Stripe: once for each order, and not at all for an order that was cancelled.

Run it:  python -m aiohttp.web examples.shop.payments:create_app
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from .common import keep_request_id, passing_on_request_ids

routes = web.RouteTableDef()


@dataclass
class Charge:
    id: str | None = None
    cancelled: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


SESSION = web.AppKey("SESSION", aiohttp.ClientSession)
CHARGES = web.AppKey("CHARGES", defaultdict[str, Charge])


@routes.put("/charges/{order}")
async def charge(request: web.Request) -> web.Response:
    order, wanted = request.match_info["order"], await request.json()
    charge = request.app[CHARGES][order]
    async with charge.lock:
        if charge.cancelled:
            return web.json_response({"detail": "the order was cancelled"}, status=409)
        if charge.id is None:
            form = {"amount": str(wanted["cents"]), "currency": "eur", "source": wanted["card"]}
            try:
                async with request.app[SESSION].post(
                    "/v1/charges", data=form, headers={"Idempotency-Key": order}
                ) as response:
                    answer = await response.json()
                    if response.status == 402:
                        return web.json_response({"detail": answer["error"]["message"]}, status=402)
                    response.raise_for_status()
            except aiohttp.ClientError as exc:
                raise web.HTTPBadGateway(text="Stripe does not answer") from exc
            charge.id = answer["id"]
    return web.json_response({"charge": charge.id}, status=201)


@routes.delete("/charges/{order}")
async def cancel(request: web.Request) -> web.Response:
    charge = request.app[CHARGES][request.match_info["order"]]
    async with charge.lock:  # a charge that is being made ends first
        if charge.id is not None and not charge.cancelled:
            async with request.app[SESSION].post("/v1/refunds", data={"charge": charge.id}) as response:
                response.raise_for_status()
        charge.cancelled = True
    return web.Response(status=204)


async def stripe(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(
        os.environ.get("STRIPE_URL", "https://api.stripe.com"),
        headers={"Authorization": f"Bearer {os.environ.get('STRIPE_KEY', '')}"},
        trace_configs=[passing_on_request_ids()],
    ) as app[SESSION]:
        yield


def create_app(argv: list[str] | None = None) -> web.Application:
    app = web.Application(middlewares=[keep_request_id])
    app[CHARGES] = defaultdict(Charge)
    app.add_routes(routes)
    app.cleanup_ctx.append(stripe)
    return app
