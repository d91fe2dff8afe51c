"""Facts about asyncio tasks: whether one is cancelled because its event loop ends, and where it waits."""

import asyncio
import gc
import inspect
import linecache
import os
import sysconfig
from collections.abc import Iterator
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

_SUSPENDABLE: Final = (AsyncGeneratorType, CoroutineType, GeneratorType)
_PACKAGE: Final = os.path.dirname(__file__)
_STDLIB: Final = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), "<frozen")


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


def where_it_waits(task: asyncio.Task[Any]) -> str:
    """Describe where *task* is suspended: file, line, function and source line of the innermost frame of user code.

    User code is what belongs neither to the standard library nor to an installed package. If no frame is user code, the
    innermost frame outside the standard library is described.
    """
    frames = list(_frames(task))
    own = [frame for frame in frames if not _is_stdlib(frame) and not _is_installed(frame)]
    found = own or [frame for frame in frames if not _is_stdlib(frame)] or frames
    return _describe(found[-1]) if found else "at an unknown place"


def _frames(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """Yield the frames of a suspended task, the outermost first. `Task.get_stack()` returns only the outermost."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame, awaited = _step_into(awaited)
        if frame is not None:
            yield frame


def _step_into(awaited: Any) -> tuple[FrameType | None, Any]:
    """Return the frame of an awaited object, if it has one, and the object that it awaits itself."""
    for frame, inside in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
        if hasattr(awaited, frame):
            return getattr(awaited, frame), getattr(awaited, inside)
    # The objects that `__anext__()` and `__await__()` return: only the garbage collector shows what they wrap.
    found: list[Any] = [each for each in gc.get_referents(awaited) if isinstance(each, _SUSPENDABLE)]
    return None, found[0] if found else None


def _is_installed(frame: FrameType) -> bool:
    filename = frame.f_code.co_filename
    return filename.startswith(_PACKAGE) or "site-packages" in filename or "dist-packages" in filename


def _is_stdlib(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_STDLIB) and not _is_installed(frame)


def _describe(frame: FrameType) -> str:
    code = frame.f_code
    source = linecache.getline(code.co_filename, frame.f_lineno).strip()
    place = f"at {code.co_filename}:{frame.f_lineno} in {code.co_name}"
    return f"{place}: {source}" if source else place
