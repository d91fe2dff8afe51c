"""Three FastAPI services in one process. They call each other through the same session that calls them.

To place an order, `orders.internal` calls `users.internal` and `payments.internal` inside its own request, with an
ordinary `aiohttp.ClientSession`. The session's connector answers these hosts in the process. Requests to other hosts go
to its fallback, and so to the network: here to a fourth service, behind a real uvicorn on loopback.

The indented lines that begin with a method are the connector's log. It has one line for each request, which says where
the request went.

Run it:  python examples/microservices.py
"""

import asyncio
import io
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import aiohttp
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from asgi_connector import ASGIRoutingConnector, UnmountedHostError

# users.internal

users = FastAPI()


class User(BaseModel):
    id: int
    name: str


class Photo(BaseModel):
    filename: str
    size: int


USERS = {1: User(id=1, name="Ada")}


@users.get("/users/{user_id}")
async def get_user(user_id: int) -> User:
    if user_id not in USERS:
        raise HTTPException(404, "no such user")
    return USERS[user_id]


@users.put("/users/{user_id}/photo")
async def put_photo(user_id: int, photo: UploadFile) -> Photo:
    return Photo(filename=photo.filename or "unnamed", size=len(await photo.read()))


# payments.internal

payments = FastAPI()


class Payment(BaseModel):
    payer: str
    cents: int


LEDGER: list[Payment] = []


@payments.post("/payments")
async def pay(payment: Payment) -> Payment:
    LEDGER.append(payment)
    return payment


@payments.get("/report.csv")
async def report() -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        yield "payer,cents\n"
        for payment in LEDGER:
            yield f"{payment.payer},{payment.cents}\n"

    return StreamingResponse(lines(), media_type="text/csv")


# orders.internal needs the other two. It gets a session, and does not know how the session reaches them.

orders = FastAPI()


class Order(BaseModel):
    user_id: int
    cents: int


class Confirmation(BaseModel):
    customer: str
    paid: int


async def get_session(request: Request) -> aiohttp.ClientSession:
    session: aiohttp.ClientSession = request.app.state.session
    return session


@orders.post("/orders")
async def place_order(order: Order, session: Annotated[aiohttp.ClientSession, Depends(get_session)]) -> Confirmation:
    async with session.get(f"http://users.internal/users/{order.user_id}") as response:
        user = User.model_validate(await response.json())
    payment = Payment(payer=user.name, cents=order.cents)
    async with session.post("http://payments.internal/payments", json=payment.model_dump()) as response:
        receipt = Payment.model_validate(await response.json())
    return Confirmation(customer=user.name, paid=receipt.cents)


# The session reaches this service over the network.

rates = FastAPI()


@rates.get("/rates/{currency}")
async def get_rate(currency: str) -> dict[str, float]:
    return {currency: 1.25}


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serve *app* with uvicorn on a free port of loopback, and yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning", ws="none"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


SERVICES = {"users.internal": users, "orders.internal": orders, "payments.internal": payments}


async def order_something(session: aiohttp.ClientSession) -> None:
    print("Place an order; orders.internal calls the other two inside its own request")
    async with session.post("http://orders.internal/orders", json={"user_id": 1, "cents": 4200}) as response:
        print(f"  {response.status} {await response.text()}")


async def stream_report(session: aiohttp.ClientSession) -> None:
    print("\nStream a report from payments.internal, line by line")
    async with session.get("http://payments.internal/report.csv") as response:
        async for line in response.content:
            print(f"  {line!r}")


async def upload_photo(session: aiohttp.ClientSession) -> None:
    print("\nUpload a file to users.internal")
    form = aiohttp.FormData()
    form.add_field("photo", io.BytesIO(b"\x89PNG" * 500_000), filename="ada.png", content_type="image/png")
    async with session.put("http://users.internal/users/1/photo", data=form) as response:
        print(f"  {response.status} {await response.text()}")


async def ask_for_an_unmounted_host() -> None:
    print("\nWithout a fallback, a host that is not mounted is refused; no DNS, no socket")
    async with aiohttp.ClientSession(connector=ASGIRoutingConnector(SERVICES)) as session:
        try:
            await session.get("http://user.internal/users/1")
        except UnmountedHostError as exc:
            print(f"  {type(exc).__name__}: {exc}")


async def ask_the_network(session: aiohttp.ClientSession, url: str) -> None:
    print("\nWith a fallback, the same session as above reaches a real server over TCP")
    async with session.get(f"{url}/rates/EUR") as response:
        print(f"  {response.status} {await response.text()}")


async def main() -> None:
    logging.basicConfig(stream=sys.stdout, format="  %(message)s")
    logging.getLogger("asgi_connector").setLevel(logging.DEBUG)  # logs where each request went
    async with served(rates) as rates_url:
        connector = ASGIRoutingConnector(SERVICES, fallback=aiohttp.TCPConnector())
        async with aiohttp.ClientSession(connector=connector) as session:
            orders.state.session = session
            await order_something(session)
            await stream_report(session)
            await upload_photo(session)
            await ask_for_an_unmounted_host()
            await ask_the_network(session, rates_url)


if __name__ == "__main__":
    asyncio.run(main())
