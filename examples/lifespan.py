"""A FastAPI app that opens its database in its lifespan, and closes it there.

The library opens a SQLite file with aiosqlite when it starts, and closes it when it shuts down, as on any server. The
connector runs both. The startup runs once, before the first request of the session, even if several requests come at
the same time. The shutdown runs when the session closes. Each request has what the lifespan yields in `request.state`.

Run it:  python examples/lifespan.py
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypedDict

import aiohttp
import aiosqlite
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

from asgi_connector import ASGIRoutingConnector


class Book(BaseModel):
    title: str
    year: int


class State(TypedDict):
    """What the lifespan yields, for the requests."""

    database: aiosqlite.Connection


async def get_database(request: Request) -> aiosqlite.Connection:
    database: aiosqlite.Connection = request.state.database
    return database


Database = Annotated[aiosqlite.Connection, Depends(get_database)]


def make_library(path: Path) -> FastAPI:
    """The app under development. It stores its books in the file at *path*."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        print("  startup: the database is opened")
        async with aiosqlite.connect(path) as database:
            await database.execute("CREATE TABLE IF NOT EXISTS books (title TEXT PRIMARY KEY, year INTEGER)")
            yield {"database": database}
        print("  shutdown: the database is closed")

    library = FastAPI(lifespan=lifespan)

    @library.post("/books", status_code=201)
    async def add_book(book: Book, database: Database) -> Book:
        print(f"  request: add {book.title!r}")
        await database.execute("INSERT INTO books VALUES (?, ?)", (book.title, book.year))
        await database.commit()
        return book

    @library.get("/books/{title}")
    async def get_book(title: str, database: Database) -> Book:
        print(f"  request: find {title!r}")
        async with database.execute("SELECT title, year FROM books WHERE title = ?", (title,)) as cursor:
            row = await cursor.fetchone()
        if row is None:
            raise HTTPException(404, "no such book")
        return Book(title=row[0], year=row[1])

    return library


async def add(session: aiohttp.ClientSession, title: str, year: int) -> None:
    async with session.post("/books", json={"title": title, "year": year}) as response:
        print(f"  {response.status} {await response.text()}")


async def find(session: aiohttp.ClientSession, title: str) -> None:
    async with session.get(f"/books/{title}") as response:
        print(f"  {response.status} {await response.text()}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "library.db")
        connector = ASGIRoutingConnector({"library.internal": make_library(path)})
        async with aiohttp.ClientSession("http://library.internal", connector=connector) as session:
            print("A session is open; the app has not been started")

            print("\nTwo first requests at the same time: one startup, before both of them")
            await asyncio.gather(add(session, "Emma", 1815), add(session, "Persuasion", 1817))

            print("\nThe next request finds the same database open")
            await find(session, "Emma")

            print("\nThe session closes, and the app shuts down")

        print("\nAnother session, another app with the same file: the books are still there")
        connector = ASGIRoutingConnector({"library.internal": make_library(path)})
        async with aiohttp.ClientSession("http://library.internal", connector=connector) as session:
            await find(session, "Persuasion")


if __name__ == "__main__":
    asyncio.run(main())
