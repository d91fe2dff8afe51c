"""What aiohttp is about to send a second time, because an app raised what it takes for a broken connection.

The app must not run twice. So the second `connect()` of the same call of the session raises the exception again.
"""

import asyncio
from typing import Any, cast
from weakref import WeakKeyDictionary

from aiohttp import ClientRequest

from ._aiohttp import calling_task, is_replay, makes_aiohttp_replay


class Replays:
    """The exceptions of apps that aiohttp would replay a request for, by the task that made the request."""

    def __init__(self) -> None:
        self.expected = False
        self._failed: WeakKeyDictionary[asyncio.Task[Any], tuple[ClientRequest, BaseException]] = WeakKeyDictionary()

    def remember(self, origin: object, exc: BaseException) -> None:
        """The request *origin* is about to fail with *exc*, an app's."""
        req, task = cast("tuple[ClientRequest, asyncio.Task[Any] | None]", origin)
        key = calling_task(req) or task
        if key is not None and makes_aiohttp_replay(exc):
            self.expected = True
            self._failed[key] = (req, exc)

    def answer(self, req: ClientRequest, task: asyncio.Task[Any]) -> None:
        """Raise what *req* has failed with before, if aiohttp is sending it again."""
        key = calling_task(req) or task
        if (failed := self._failed.get(key)) is not None:
            earlier, exc = failed
            if is_replay(req, earlier):
                raise exc
            del self._failed[key]

    def clear(self) -> None:
        self.expected = False
        self._failed.clear()
