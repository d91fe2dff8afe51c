"""Keeps the goods in a sqlite database, and reserves them for orders.

Run it:  uvicorn --factory examples.shop.stock:create_app
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import aiosqlite
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .common import RequestIds, passing_on_request_ids, url_of

logger = logging.getLogger(__name__)
RESERVED, COMMITTED, RELEASED = "reserved", "committed", "released"
SCHEMA = """
CREATE TABLE IF NOT EXISTS items (name TEXT PRIMARY KEY, cents INTEGER, available INTEGER);
CREATE TABLE IF NOT EXISTS reservations (id TEXT PRIMARY KEY, item TEXT, quantity INTEGER, state TEXT);
"""


@asynccontextmanager
async def transaction(request: Request) -> AsyncIterator[aiosqlite.Connection]:
    """Give the connection to sqlite to one transaction at a time."""
    connection: aiosqlite.Connection = request.state.connection
    async with request.state.lock:
        try:
            yield connection
            await connection.commit()
        finally:
            await connection.rollback()  # does nothing after a commit


async def one(connection: aiosqlite.Connection, query: str, *values: object) -> Any:
    async with connection.execute(query, values) as cursor:
        return await cursor.fetchone()


async def put_item(request: Request) -> Response:
    item = await request.json()
    values = (request.path_params["name"], item["cents"], item["available"])
    async with transaction(request) as connection:
        await connection.execute("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", values)
    return Response(status_code=204)


async def get_item(request: Request) -> Response:
    async with transaction(request) as connection:
        row = await one(connection, "SELECT cents, available FROM items WHERE name = ?", request.path_params["name"])
    return JSONResponse({"cents": row[0], "available": row[1]} if row else {}, 200 if row else 404)


async def reserve(request: Request) -> Response:
    """Reserve goods, once for each key: a second request with it has the same answer."""
    wanted, key = await request.json(), request.path_params["key"]
    item, quantity = wanted["item"], wanted["quantity"]
    async with transaction(request) as connection:
        row = await one(connection, "SELECT cents, available FROM items WHERE name = ?", item)
        if row is None:
            return JSONResponse({"detail": f"there is no {item}"}, 404)
        reserved = await one(connection, "SELECT state FROM reservations WHERE id = ?", key)
        if reserved == (RELEASED,):
            return JSONResponse({"detail": "the order was cancelled"}, 409)
        if reserved is None:
            if row[1] < quantity:
                return JSONResponse({"detail": f"{row[1]} of {item} left"}, 409)
            await connection.execute("UPDATE items SET available = available - ? WHERE name = ?", (quantity, item))
            await connection.execute("INSERT INTO reservations VALUES (?, ?, ?, ?)", (key, item, quantity, RESERVED))
    return JSONResponse({"cents": row[0] * quantity}, 201)


async def commit(request: Request) -> Response:
    values = (COMMITTED, request.path_params["key"], RELEASED)
    async with transaction(request) as connection:
        query = "UPDATE reservations SET state = ? WHERE id = ? AND state != ? RETURNING item"
        row = await one(connection, query, *values)
        if row is None:
            return JSONResponse({"detail": "no such reservation"}, 410)
        [left] = await one(connection, "SELECT available FROM items WHERE name = ?", row[0])
    if left == 0:
        event = {"to": "buyers@shop.example", "text": f"{row[0]} is sold out"}
        try:
            async with request.state.session.post(f"{url_of('notifications')}/events", json=event):
                pass
        except aiohttp.ClientError:
            logger.exception("The buyers were not told: %s", event["text"])
    return JSONResponse({"left": left})


async def release(request: Request) -> Response:
    """Release goods, once for each key, and also if they are committed: its order was not told so, and was cancelled.

    If nothing is reserved yet, the request for it is late, and is refused when it comes.
    """
    key = request.path_params["key"]
    async with transaction(request) as connection:
        query = "UPDATE reservations SET state = ? WHERE id = ? AND state != ? RETURNING quantity, item"
        if row := await one(connection, query, RELEASED, key, RELEASED):
            await connection.execute("UPDATE items SET available = available + ? WHERE name = ?", tuple(row))
        else:
            await connection.execute("INSERT OR IGNORE INTO reservations VALUES (?, '', 0, ?)", (key, RELEASED))
    return Response(status_code=204)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with (
        aiosqlite.connect(os.environ.get("STOCK_DATABASE", "stock.sqlite3")) as connection,
        aiohttp.ClientSession(raise_for_status=True, trace_configs=[passing_on_request_ids()]) as session,
    ):
        await connection.executescript(SCHEMA)
        yield {"session": session, "connection": connection, "lock": asyncio.Lock()}


def create_app(*, buggy: bool = False) -> Starlette:
    from .buggy import buggy_release  # which imports this module

    routes = [
        Route("/items/{name}", get_item),
        Route("/items/{name}", put_item, methods=["PUT"]),
        Route("/reservations/{key}", reserve, methods=["PUT"]),
        Route("/reservations/{key}/commit", commit, methods=["POST"]),
        Route("/reservations/{key}", buggy_release if buggy else release, methods=["DELETE"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(RequestIds)], lifespan=lifespan)
