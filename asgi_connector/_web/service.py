"""The startup and the shutdown of an aiohttp.web application, in the terms of an ASGI lifespan."""

import asyncio
from typing import Final

from aiohttp import web

from asgi_connector._aiohttp.web_protocol import cancel_contexts, loop_of_app, make_server
from asgi_connector._log import logger
from asgi_connector._types import Receive, Scope, Send

# The requests of the application have ended when it shuts down, or have been given up.
_SHUTDOWN_TIMEOUT: Final = 0.1


class WebService:
    """An aiohttp.web application and its server, which makes the protocols of connections.

    To be called as an ASGI app is for its lifespan; an `aiohttp.web.AppRunner` does what there is to do.
    """

    def __init__(self, app: web.Application, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop
        self._server: web.Server | None = None

    @property
    def server(self) -> web.Server:
        """The server; made now if the application is served without its startup."""
        if self._server is None:
            self._check_loop()
            self._server = make_server(self._app, self._loop)
        return self._server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        self._check_loop()
        runner = web.AppRunner(self._app, shutdown_timeout=_SHUTDOWN_TIMEOUT)
        try:
            await runner.setup()
        except BaseException:
            await self._clean_up(runner)
            raise
        self._server = runner.server
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        except asyncio.CancelledError:
            await self._cancel_contexts()
            raise
        await runner.cleanup()
        await send({"type": "lifespan.shutdown.complete"})

    async def _clean_up(self, runner: web.AppRunner) -> None:
        """End what the failed startup had begun, as `aiohttp.web.run_app()` does."""
        try:
            await runner.cleanup()
        except Exception:
            logger.exception("%r has failed to start, and then to clean up", self._app)

    async def _cancel_contexts(self) -> None:
        """End the cleanup contexts as a cancelled lifespan ends: their `finally` runs, and no signal is sent."""
        for failure in await cancel_contexts(self._app):
            logger.error("A cleanup context of %r has failed when it was cancelled", self._app, exc_info=failure)

    def _check_loop(self) -> None:
        loop = loop_of_app(self._app)
        if loop is not None and loop is not self._loop:
            raise RuntimeError(
                f"{self._app!r} has been started in another event loop, and an aiohttp.web.Application stays in one: "
                "write Mount(factory=create_app), where create_app() returns a new application for each start"
            )
