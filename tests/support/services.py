"""Services that call each other, each an app of its own, for tests of the failures of a system."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
from aiohttp import ClientSession, ClientTimeout

from asgi_connector import ASGIRoutingConnector, Mount
from asgi_connector._types import App, Receive, Scope, Send

NEVER = ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)


class Service:
    """An app that counts what it does.

    ``/`` answers its name. ``/via/other`` calls ``/`` of another service, and answers its result. ``/wait`` waits for
    `go`. A WebSocket echoes.
    """

    def __init__(self, name: str, system: "System") -> None:
        self.name = name
        self.system = system
        self.started = 0
        self.stopped = 0
        self.calls = 0  # of the app, for a request or a WebSocket
        self.ended = 0  # of them
        self.bodies: list[bytes] = []
        self.waiting = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.calls += 1
        try:
            if scope["type"] == "websocket":
                await _echo(receive, send)
            else:
                await self._answer(scope["path"], receive, send)
        finally:
            self.ended += 1

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self.started += 1
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.stopped += 1
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, path: str, receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        status, text = 200, self.name
        if path.startswith("/via/"):
            other = path.removeprefix("/via/")
            text = await self.system.outcome(other)
            status = 200 if text == other else 502
        elif path == "/wait":
            self.waiting.set()
            await self.go.wait()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})


async def _echo(receive: Receive, send: Send) -> None:
    await receive()
    with suppress(OSError):
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


class System:
    """Services that call each other over one session."""

    session: ClientSession
    connector: ASGIRoutingConnector

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.outcomes: Counter[str] = Counter()

    def __getitem__(self, name: str) -> Service:
        return self.services[name]

    async def outcome(self, name: str, path: str = "/", method: str = "POST", **settings: Any) -> str:
        """Ask a service. Returns the body of its response, or the name of the exception."""
        try:
            async with self.session.request(method, f"http://{name}.internal{path}", **settings) as response:
                return (await response.read()).decode()
        except (aiohttp.ClientError, TimeoutError) as exc:
            return type(exc).__name__

    def start(self, name: str, path: str = "/", method: str = "POST", **settings: Any) -> asyncio.Task[str]:
        """Ask a service in a task."""
        return asyncio.ensure_future(self.outcome(name, path, method, **settings))


@asynccontextmanager
async def running(*names: str, apps: Mapping[str, App | Mount] | None = None, **settings: Any) -> AsyncIterator[System]:
    """Run a service for each of *names*, at ``name.internal``, and other *apps*. No call has a timeout of its own."""
    system = System()
    system.services = {name: Service(name, system) for name in names}
    mounted: dict[str, Any] = {f"{name}.internal": service for name, service in system.services.items()}
    mounted |= {f"{name}.internal": app for name, app in (apps or {}).items()}
    system.connector = ASGIRoutingConnector(mounted, **settings)
    async with ClientSession(connector=system.connector, timeout=NEVER) as system.session:
        yield system
