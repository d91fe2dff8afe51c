"""Run one order through the shop, and print who called whom."""

import asyncio
import os
import tempfile

from .system import CUSTOMER, run_shop


async def main() -> None:
    async with run_shop() as shop:
        shop.stripe.post("/v1/charges", status=201, json={"id": "ch_1"})
        shop.postmark.post("/email", json={"Message": "OK"})
        await shop.fill("tea", 2)
        async with shop.session.ws_connect(f"ws://notifications.internal/listeners/{CUSTOMER}") as listener:
            status, _ = await shop.order("tea", 2)
            print(f"The order: {status}")
            message = await listener.receive_json()
            print(f"The customer reads: {message['text'].rsplit(' ', 1)[0]} ...")
        print(f"Left in stock: {await shop.left('tea')}")
    print(f"\nWho called whom:\n{shop.journal}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        os.environ["STOCK_DATABASE"] = os.path.join(directory, "stock.sqlite3")
        asyncio.run(main())
