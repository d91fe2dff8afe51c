"""A service that answers the same as an ASGI app and as a real server."""

import asyncio

from aiohttp import web

from asgi_connector._types import Receive, Scope, Send

PIECE = bytes(64 * 1024)


class Service:
    """The service: `app` is an ASGI app, `handle` a handler for aiohttp's server. Both answer the same.

    ``/held`` waits for `may_answer`. ``/endless`` sends until `may_answer` is set. ``/early`` reads only the head of
    the request. ``/close`` asks to close the connection.
    """

    def __init__(self) -> None:
        self.arrived = 0
        self.most = 0  # the most requests at the same time
        self.now = 0
        self.held: asyncio.Queue[None] = asyncio.Queue()
        self.may_answer = asyncio.Event()

    async def work(self, path: str) -> None:
        self.arrived += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if path == "/held":
                self.held.put_nowait(None)
                await self.may_answer.wait()
        finally:
            self.now -= 1

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path != "/early":
            while (await receive())["more_body"]:
                pass
        await self.work(path)
        headers = [(b"connection", b"close")] if path == "/close" else []
        if scope["method"] == "HEAD":
            headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while path == "/endless" and not self.may_answer.is_set():
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body", "body": b"done"})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if request.method == "HEAD":
            return web.Response(body=b"done")
        if path != "/early":
            await request.read()
        await self.work(path)
        response = web.StreamResponse(headers={"Connection": "close"} if path == "/close" else {})
        await response.prepare(request)
        while path == "/endless" and not self.may_answer.is_set():
            await response.write(PIECE)
        await response.write(b"done")
        return response
