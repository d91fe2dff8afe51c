"""Facts about asyncio tasks: whether one is cancelled because its event loop ends."""

import asyncio
import inspect
from typing import Any


def ends_with_loop(exc: BaseException, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the running task is cancelled because *loop* ends. That is not a failure of the app.

    At the end of a loop, `asyncio.run()` and other runners cancel all its tasks. `asyncio.Task.cancelling()` shows
    this. It is not true of a clean-up task that was created after the cancellation. If there is one, look at the stack:
    the runners of asyncio, uvloop, anyio and hypercorn all cancel in a function of the same name.
    """
    if not isinstance(exc, asyncio.CancelledError):
        return False
    return all(task.cancelling() for task in asyncio.all_tasks(loop)) or _is_called_by("_cancel_all_tasks")


def _is_called_by(name: str) -> bool:
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back
    return False


def is_discarded(exc: BaseException, task: asyncio.Task[Any] | None, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the coroutine of *task* ends with *exc* because the garbage collector closes it.

    The garbage collector closes a coroutine by raising `GeneratorExit` in it. If the loop is closed, the app's clean-up
    may then raise another exception. *task* is `None` during the first step of an eager task. Such a task is running,
    so it is not being collected.
    """
    if not isinstance(exc, GeneratorExit) and not loop.is_closed():
        return False
    return task is not None and asyncio.current_task(loop) is not task


def discard_silently(task: asyncio.Task[Any]) -> None:
    """Stop asyncio from logging "Task was destroyed but it is pending!" for *task*.

    The log would add nothing, because aiohttp reports the session that was not closed. The attribute is private to
    asyncio, whose own `gather()` sets it for the same purpose.
    """
    task._log_destroy_pending = False  # type: ignore[attr-defined]
