"""aiohttp's server protocol, whose requests are answered in the context of their caller."""

# pyright: reportPrivateUsage=false

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

Answer: TypeAlias = tuple[web.StreamResponse, bool]
"""What the protocol goes on with: the response, and whether the client has gone before its end."""


class Requests(Protocol):
    """Answers the requests that the protocol has read."""

    async def answer(self, request: web.BaseRequest, handle: Callable[[], Awaitable[Answer]]) -> Answer:
        """Let the app answer *request*, by calling *handle*."""
        ...

    def refused(self) -> None:
        """What has arrived is no request, and is about to be answered 400."""

    def app_failed(self, exc: BaseException) -> bool:
        """The app has raised *exc*, which would become a 500. Returns whether to raise it from *handle* instead."""
        ...


class WebProtocol(RequestHandler):
    """aiohttp's server protocol: the same, but that each request is given to `Requests.answer()`."""

    __slots__ = ("_app_handler", "_requests")

    def __init__(self, server: web.Server, requests: Requests) -> None:
        loop, settings = server._loop, server._kwargs
        try:
            super().__init__(server, loop=loop, **settings)
        except TypeError:
            server()  # which warns of the application's `handler_args`
            known = {name: value for name, value in settings.items() if name in ("debug", "access_log_class")}
            super().__init__(server, loop=loop, **known)
        self._requests = requests
        self._app_handler = server.request_handler

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The task that answers one request after another."""
        return self._task_handler

    @property
    def has_unanswered(self) -> bool:
        """Whether a request has arrived that the task has not begun to answer."""
        return bool(self._messages)

    async def _handle_request(self, request: Any, start_time: Any, request_handler: Any) -> Any:
        handle = partial(super()._handle_request, request, start_time, request_handler)
        if request_handler is self._app_handler:
            return await self._requests.answer(request, handle)
        self._requests.refused()
        return await handle()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        failure = exc or sys.exception()  # that of a 504, a `TimeoutError`, is not passed on
        if failure is not None and self._requests.app_failed(failure):
            raise failure
        return super().handle_error(request, status, exc, message)


def is_whole(request: web.BaseRequest) -> bool:
    """Whether the response that has been started for *request* is complete by its framing."""
    writer: Any = request.writer
    return bool(writer._eof or writer.length == 0)


def make_server(app: web.Application, loop: asyncio.AbstractEventLoop) -> web.Server:
    """Make what `aiohttp.web.AppRunner` makes of an application, without its startup."""
    return app._make_handler(loop=loop)


def loop_of_app(app: web.Application) -> asyncio.AbstractEventLoop | None:
    """The event loop that an application has been started in, if it has been."""
    return app._loop


async def cancel_contexts(app: web.Application) -> list[Exception]:
    """Raise `CancelledError` where each cleanup context of a started application waits. Returns other exceptions.

    The next start begins without them: aiohttp itself would end them a second time.
    """
    contexts: list[Any] = list(app.cleanup_ctx._exits)
    app.cleanup_ctx._exits.clear()
    failures: list[Exception] = []
    for context in reversed(contexts):
        cancelled = asyncio.CancelledError("The app has crashed")
        try:
            if hasattr(context, "athrow"):  # before aiohttp 3.14, it is the generator
                await context.athrow(cancelled)
            else:
                await context.__aexit__(type(cancelled), cancelled, None)
        except (asyncio.CancelledError, StopAsyncIteration):
            pass
        except Exception as exc:
            failures.append(exc)
    for nested in app._subapps:
        failures += await cancel_contexts(nested)
    return failures
