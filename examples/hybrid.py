"""Apps in this process and servers on the network, in one session. For a block, an app replaces a server.

The shop under development is an ASGI app in this process. It gets its prices from a server that is not an ASGI app: an
`aiohttp.web` application that listens on loopback. It represents a server that is deployed elsewhere. Neither the shop
nor the code that calls it can tell where a host is answered.

The indented lines that begin with a method are the connector's log. It has one line for each request, which says where
the request went.

Run it:  python examples/hybrid.py
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from fastapi import FastAPI

from asgi_connector import ASGIRoutingConnector


def make_shop(session: aiohttp.ClientSession, prices_url: str) -> FastAPI:
    """The app under development. It gets the prices from the service at *prices_url*."""
    shop = FastAPI()

    @shop.get("/offers/{article}")
    async def offer(article: str) -> dict[str, str | int]:
        async with session.get(f"{prices_url}/prices/{article}") as response:
            return {"article": article, "cents": (await response.json())["cents"]}

    return shop


async def deployed_price(request: web.Request) -> web.Response:
    return web.json_response({"article": request.match_info["article"], "cents": 250})


@asynccontextmanager
async def deployed_prices() -> AsyncIterator[str]:
    """Serve the prices on a free port of loopback, and yield the URL."""
    app = web.Application()
    app.router.add_get("/prices/{article}", deployed_price)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


fake_prices = FastAPI()


@fake_prices.get("/prices/{article}")
async def fake_price(article: str) -> dict[str, str | int]:
    return {"article": article, "cents": 1}


async def ask_the_shop(session: aiohttp.ClientSession) -> None:
    async with session.get("http://shop.internal/offers/tea") as response:
        print(f"  {response.status} {await response.text()}")


async def main() -> None:
    logging.basicConfig(stream=sys.stdout, format="  %(message)s")
    logging.getLogger("asgi_connector").setLevel(logging.DEBUG)  # logs where each request went
    async with deployed_prices() as prices_url:
        connector = ASGIRoutingConnector(fallback=aiohttp.TCPConnector())
        async with aiohttp.ClientSession(connector=connector) as session:
            connector.mount("shop.internal", make_shop(session, prices_url))

            print("The shop is in this process, its prices come over the network")
            await ask_the_shop(session)

            print("\nFor a block, an app replaces the server; the shop does not know")
            async with connector.mounted(prices_url, fake_prices):
                await ask_the_shop(session)

            print("\nAfterwards the server answers again")
            await ask_the_shop(session)


if __name__ == "__main__":
    asyncio.run(main())
