"""One FastAPI app behind an aiohttp session. The app answers every host, and nothing leaves the process.

Run it:  python examples/single_app.py
"""

import asyncio

import aiohttp
from fastapi import FastAPI
from pydantic import BaseModel

from asgi_connector import ASGIApplicationConnector

app = FastAPI()


class Ping(BaseModel):
    message: str


@app.post("/ping")
async def ping(body: Ping) -> dict[str, str]:
    return {"broadcast": f"Application says '{body.message}'!"}


async def main() -> None:
    connector = ASGIApplicationConnector(app)
    async with (
        aiohttp.ClientSession("http://app.internal", connector=connector) as session,
        session.post("/ping", json={"message": "hello"}) as response,
    ):
        print(response.status, await response.json())


if __name__ == "__main__":
    asyncio.run(main())
