"""What aiohttp is about to send a second time, because an app raised what it takes for a broken connection.

The app must not run twice. So the second `connect()` of the same call of the session raises the exception again.
"""

import asyncio
from contextvars import Context
from typing import Any

from aiohttp import ClientRequest

from asgi_connector._services.server_end import Origin

from .requests import calling_task, failure_of, is_replay, let_fail_again, makes_aiohttp_replay


class Retries:
    """The exceptions of apps that aiohttp would replay a request for, by the task that made the request.

    One is kept until aiohttp's second try, or any other `connect()` of the task, or the end of the task: nothing else
    tells that the call is over.
    """

    def __init__(self) -> None:
        self.expected = False
        self._failed: dict[asyncio.Task[Any], tuple[ClientRequest, BaseException]] = {}

    def remember(self, origin: Origin, exc: BaseException) -> None:
        """The request *origin* is about to fail with *exc*, an app's."""
        req, task = origin
        key = calling_task(req) or task
        if key is not None and makes_aiohttp_replay(req, exc):
            key.remove_done_callback(self._forget)  # there may be one for another request that the same call has made
            key.add_done_callback(self._forget, context=Context())
            self._failed[key] = (req, exc)
            self.expected = True

    def answer(self, req: ClientRequest, task: asyncio.Task[Any]) -> None:
        """Raise what *req* has failed with before, if aiohttp is sending it again."""
        if (again := failure_of(req)) is not None:
            raise again
        key = calling_task(req) or task
        if (failed := self._failed.get(key)) is not None:
            earlier, exc = failed
            key.remove_done_callback(self._forget)
            self._forget(key)
            if is_replay(req, earlier):
                let_fail_again(req, exc)
                raise exc

    def clear(self) -> None:
        self.expected = False
        for task in self._failed:
            task.remove_done_callback(self._forget)
        self._failed.clear()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._failed.pop(task, None)
