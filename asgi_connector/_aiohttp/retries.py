"""The requests that aiohttp will send a second time, because it treats an app's exception as a broken connection.

The app must not run twice. So the second `connect()` of the same call of the session raises the exception again.
"""

import asyncio
from contextvars import Context
from typing import Any

from aiohttp import ClientRequest

from asgi_connector._services.server_end import Origin

from .requests import aiohttp_will_replay, calling_task, failure_of, is_replay, set_failure


class Retries:
    """The exceptions of apps for which aiohttp would replay a request, by the task that made the request.

    Each is kept until the next `connect()` of the task, which may be aiohttp's replay, or until the end of the task.
    There is no other sign that the call is over.
    """

    def __init__(self) -> None:
        self.expected = False
        self._failed: dict[asyncio.Task[Any], tuple[ClientRequest, BaseException]] = {}

    def remember(self, origin: Origin, exc: BaseException) -> None:
        """Note that the request *origin* is about to fail with *exc*, the exception of an app."""
        req, task = origin
        key = calling_task(req) or task
        if key is not None and aiohttp_will_replay(req, exc):
            key.remove_done_callback(self._forget)  # another request of the same call may have added it
            key.add_done_callback(self._forget, context=Context())
            self._failed[key] = (req, exc)
            self.expected = True

    def answer(self, req: ClientRequest, task: asyncio.Task[Any]) -> None:
        """Raise the exception of the first try, if aiohttp is sending *req* again."""
        if (again := failure_of(req)) is not None:
            raise again
        key = calling_task(req) or task
        if (failed := self._failed.get(key)) is not None:
            earlier, exc = failed
            key.remove_done_callback(self._forget)
            self._forget(key)
            if is_replay(req, earlier):
                set_failure(req, exc)
                raise exc

    def clear(self) -> None:
        self.expected = False
        for task in self._failed:
            task.remove_done_callback(self._forget)
        self._failed.clear()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._failed.pop(task, None)
