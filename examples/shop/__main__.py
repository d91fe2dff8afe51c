"""Run one order through the shop, print who called whom, and write it as a page to look at.

Run it:  python -m examples.shop
     or  python -m examples.shop DIRECTORY  to choose where the page is written
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from asgi_connector import Journal

from .system import CUSTOMER, run_shop


async def main(directory: Path) -> None:
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
    write(shop.journal, directory)


def write(journal: Journal, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / "calls.html"
    journal.save_html(page)
    print(f"\nThe page to look at is {page}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as database:
        os.environ["STOCK_DATABASE"] = os.path.join(database, "stock.sqlite3")
        asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="shop-"))))
