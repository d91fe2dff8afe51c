"""A journal with a call of each kind, for the tests of pictures and pages."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import aiohttp

from asgi_connector import Journal, faults
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.messages import body, read_body, respond, start
from tests.support.sessions import connector_of, fetch

Route = Callable[[Receive, Send], Awaitable[None]]

PICTURE: Final = bytes(range(256)) * 2


class Shop:
    """Three services that call each other by one session."""

    def __init__(self) -> None:
        self.session: aiohttp.ClientSession | None = None
        self.apps: dict[str, ASGIApp] = {
            "orders.internal": self.routed({"/orders": self.place, "/missing": self.ask_nobody}),
            "stock.internal": self.routed(
                {"/items": self.items, "/events": self.events, "/picture": self.picture, "/broken": self.broken}
            ),
            "chat.internal": self.chat,
        }

    async def call(self, url: str, method: str = "GET", **settings: Any) -> bytes:
        assert self.session is not None
        return await fetch(self.session, url, method, **settings)

    def routed(self, routes: dict[str, Route]) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            route = routes.get(scope["path"])
            if route is None:
                await respond(send, b"no such thing", 404)
            else:
                await route(receive, send)

        return app

    async def place(self, receive: Receive, send: Send) -> None:
        order = json.loads(await read_body(receive))
        await self.call("http://stock.internal/items")
        if order["item"] == "broken":
            await self.call("http://stock.internal/broken")
        await self.call("http://stock.internal/none")
        await send(start(201, [(b"content-type", b"application/json"), (b"set-cookie", b"session=very-secret")]))
        await send(body(b'{"order": 7, "price": 42.00, "lines": [], "who": {"name": "Ada"}}'))

    async def ask_nobody(self, receive: Receive, send: Send) -> None:
        with suppress(aiohttp.ClientError):
            await self.call("http://ledger.internal:8080/balance")
        await respond(send)

    async def items(self, receive: Receive, send: Send) -> None:
        await respond(send, b"3 left")

    async def broken(self, receive: Receive, send: Send) -> None:
        try:
            raise KeyError("shelf")
        except KeyError as exc:
            error = LookupError("no item at http://ada:very-secret@db.internal/?token=very-secret")
            error.add_note("a note of the app")
            raise error from exc

    async def events(self, receive: Receive, send: Send) -> None:
        await send(start(200, [(b"content-type", b"text/event-stream")]))
        for number in range(3):
            await send(body(b"data: %d\n\n" % number, more=True))
        await send(body())

    async def picture(self, receive: Receive, send: Send) -> None:
        await respond(send, PICTURE)

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": (message.get("text") or "").encode() + b"\xff"})


async def shop_journal(**recording: Any) -> Journal:
    """The journal of a test in which much went wrong. The arguments are those of `record()`."""
    shop = Shop()
    async with session_to(shop.apps) as session:
        shop.session = session
        connector = connector_of(session)
        with connector.record(**{"bodies": True, **recording}) as journal:
            await shop.call("http://orders.internal/orders?token=very-secret", "POST", json={"item": "book"})
            with suppress(LookupError):
                await shop.call("http://orders.internal/orders", "POST", json={"item": "broken"})
            await shop.call("http://orders.internal/missing")
            await shop.call("http://stock.internal/events")
            await shop.call("http://stock.internal/picture")
            form = {"name": "Ada", "password": "very-secret"}
            await shop.call("http://stock.internal/items", "POST", data=form, headers={"Authorization": "very-secret"})
            with connector.inject("stock.internal", faults.Reset()), suppress(aiohttp.ClientError):
                await shop.call("http://stock.internal/items", "PUT")
            with connector.inject("stock.internal", faults.Respond(503, body="proxy")):
                await shop.call("http://stock.internal/items")
            async with session.ws_connect("http://chat.internal/room") as ws:
                await ws.send_str("hello")
                await ws.receive_bytes()
            await asyncio.sleep(0)  # the end of the connection is the server's too
    return journal
