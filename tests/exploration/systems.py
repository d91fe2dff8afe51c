"""Small systems in which calls are made in many ways."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final
from uuid import uuid4

import aiohttp
from aiohttp import ClientError, ClientSession, WSServerHandshakeError, web

from asgi_connector import ASGIApplicationConnector, ASGIRoutingConnector
from asgi_connector._types import Receive, Scope, Send
from tests.support.messages import read_body, respond

Act = Callable[[], Awaitable[object]]
System = Callable[[], AbstractAsyncContextManager[tuple[ASGIRoutingConnector, Act]]]

SYSTEMS: Final[dict[str, System]] = {}


def system(open_system: Callable[[], AsyncIterator[tuple[ASGIRoutingConnector, Act]]]) -> System:
    """Note a system: an async generator of its connector and of what is done with it."""
    opened: System = asynccontextmanager(open_system)
    SYSTEMS[open_system.__name__.replace("_", " ")] = opened
    return opened


Opened = AsyncGenerator[tuple[ASGIRoutingConnector, Act]]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await read_body(receive)
    await respond(send)


async def ask(session: ClientSession, url: str, method: str = "GET", attempts: int = 1) -> int:
    """The status of the response; 0 if there is none, in all attempts."""
    for _ in range(attempts):
        with suppress(ClientError, TimeoutError):
            async with session.request(method, url) as response:
                await response.read()
                if response.status < 400:
                    return response.status
    return 0


def calling(session: Callable[[], ClientSession], *urls: str, method: str = "POST", attempts: int = 2) -> Any:
    """An app that makes these calls, one after another, and then answers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        statuses = [await ask(session(), url, method, attempts) for url in urls]
        await respond(send, status=200 if all(statuses) else 502)

    return app


@asynccontextmanager
async def session_of(connector: ASGIRoutingConnector) -> AsyncIterator[ClientSession]:
    async with ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


@system
async def a_call_that_aiohttp_tries_again() -> Opened:
    connector = ASGIRoutingConnector({"a.internal": hello}, lifespan="off")
    async with session_of(connector) as session:
        yield connector, lambda: ask(session, "http://a.internal/")


@system
async def several_orders_at_once() -> Opened:
    """Each of them makes the same calls, so that only the chain of callers tells them apart."""
    urls = ["http://stock.internal/reservations", "http://payments.internal/charges"]
    apps = {"orders.internal": calling(lambda: session, *urls), "stock.internal": hello, "payments.internal": hello}
    connector = ASGIRoutingConnector(apps, lifespan="off")
    async with session_of(connector) as session:
        yield connector, lambda: asyncio.gather(*(ask(session, "http://orders.internal/", "POST") for _ in range(3)))


@system
async def one_order_after_another() -> Opened:
    apps = {"orders.internal": calling(lambda: session, "http://stock.internal/reservations"), "stock.internal": hello}
    connector = ASGIRoutingConnector(apps, lifespan="off")

    async def act() -> None:
        for _ in range(2):
            await ask(session, "http://orders.internal/", "POST")

    async with session_of(connector) as session:
        yield connector, act


@system
async def calls_at_once_in_one_order() -> Opened:
    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        urls = ["http://stock.internal/tea", "http://stock.internal/milk", "http://stock.internal/tea"]
        await asyncio.gather(*(ask(session, url, "POST", attempts=2) for url in urls))
        await respond(send)

    connector = ASGIRoutingConnector({"orders.internal": orders, "stock.internal": hello}, lifespan="off")
    async with session_of(connector) as session:
        yield connector, lambda: ask(session, "http://orders.internal/", "POST")


@system
async def a_hedged_call() -> Opened:
    """A second request is sent if the first one takes long; the slower one is cancelled."""

    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        first = asyncio.create_task(ask(session, "http://prices.internal/", "POST"))
        done, _ = await asyncio.wait([first], timeout=1)
        tasks = [first] if done else [first, asyncio.create_task(ask(session, "http://prices.internal/", "POST"))]
        _, slower = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in slower:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await respond(send)

    connector = ASGIRoutingConnector({"orders.internal": orders, "prices.internal": hello}, lifespan="off")
    async with session_of(connector) as session:
        yield connector, lambda: ask(session, "http://orders.internal/", "POST")


@system
async def a_call_after_the_response() -> Opened:
    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send)
        await ask(session, "http://mail.internal/events", "POST", attempts=2)
        told.set()

    told = asyncio.Event()
    connector = ASGIRoutingConnector({"orders.internal": orders, "mail.internal": hello}, lifespan="off")

    async def act() -> None:
        if await ask(session, "http://orders.internal/", "POST"):
            await told.wait()

    async with session_of(connector) as session:
        yield connector, act


@system
async def a_call_of_a_lifespan() -> Opened:
    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await ask(session, "http://settings.internal/orders", "POST", attempts=2)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await respond(send)

    connector = ASGIRoutingConnector({"orders.internal": orders, "settings.internal": hello})
    async with session_of(connector) as session:
        yield connector, lambda: ask(session, "http://orders.internal/", "POST")


@system
async def sessions_of_the_services_themselves() -> Opened:
    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        async with ClientSession() as own:
            await ask(own, "http://stock.internal/reservations", "POST", attempts=2)
        await respond(send)

    async with ASGIRoutingConnector({"orders.internal": orders, "stock.internal": hello}, lifespan="off") as connector:
        with connector.intercept():
            async with ClientSession() as session:
                yield connector, lambda: ask(session, "http://orders.internal/", "POST")


@system
async def redirects_from_one_service_to_another() -> Opened:
    async def old(scope: Scope, receive: Receive, send: Send) -> None:
        location = (b"location", b"https://new.internal:8443/there")
        await send({"type": "http.response.start", "status": 307, "headers": [location, (b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    connector = ASGIRoutingConnector({"old.internal": old, "https://new.internal:8443": hello}, lifespan="off")
    async with session_of(connector) as session:
        yield connector, lambda: ask(session, "http://old.internal/here", "POST")


@system
async def a_websocket() -> Opened:
    async def news(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "news"})
        await send({"type": "websocket.close", "code": 1000})

    async def act() -> None:
        for _ in range(2):
            with suppress(WSServerHandshakeError, ClientError):
                async with session.ws_connect("ws://news.internal/today") as websocket:
                    assert [message.data async for message in websocket] in (["news"], [])

    connector = ASGIRoutingConnector({"news.internal": news}, lifespan="off")
    async with session_of(connector) as session:
        yield connector, act


@system
async def hosts_of_all_kinds() -> Opened:
    urls = [
        "http://ada.tenants.internal/",
        "http://bob.tenants.internal:8080/",
        "https://pay.internal/",
        "http://pay.internal/",
        "http://[::1]/",
        "http://[::1]:8080/",
        "http://127.0.0.1/",
        "http://b\u00fccher.example/",
        "http://API.internal./",
    ]
    apps = {
        "*.tenants.internal": hello,
        "pay.internal": hello,
        "[::1]": hello,
        "127.0.0.1": hello,
        "b\u00fccher.example": hello,
        "api.internal": hello,
        "http://*.orders.internal:8080": calling(lambda: session, *urls, attempts=1),
    }
    connector = ASGIRoutingConnector(apps, lifespan="off")
    async with session_of(connector) as session:
        yield connector, lambda: ask(session, "http://eu.orders.internal:8080/", "POST")


@system
async def one_app_for_all_hosts() -> Opened:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/orders":
            await ask(session, "http://stock.internal/reservations", "POST", attempts=2)
        await respond(send)

    connector = ASGIApplicationConnector(app, lifespan="off")
    async with session_of(connector) as session:
        yield connector, lambda: ask(session, "http://orders.internal/orders", "POST")


@system
async def paths_of_all_kinds() -> Opened:
    """A part that looks random is another one in every run."""

    async def act() -> None:
        for path in [
            "/a%20b/c",
            "/what%3Fnow",
            "/%22quoted%22/it's",
            "/back%5Cslash",
            "/caf%C3%A9/%E2%80%AE",
            "/*/a.b",
            f"/in-order/{uuid4()}/c",
            f"/charges/ch_{uuid4().hex}",
            f"/files/{uuid4()}.pdf",
            "/charges/all",
            "/charges/all",
            "/",
        ]:
            await ask(session, f"http://files.internal{path}", "POST")

    connector = ASGIRoutingConnector({"files.internal": hello}, lifespan="off")
    async with session_of(connector) as session:
        yield connector, act


@system
async def an_aiohttp_web_application() -> Opened:
    async def place(request: web.Request) -> web.Response:
        await ask(session, "http://stock.internal/reservations", "POST", attempts=2)
        return web.Response()

    orders = web.Application()
    orders.router.add_post("/", place)
    connector = ASGIRoutingConnector({"orders.internal": orders, "stock.internal": hello})
    async with session_of(connector) as session:
        yield connector, lambda: ask(session, "http://orders.internal/", "POST")
