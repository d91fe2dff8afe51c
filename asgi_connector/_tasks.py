"""What asyncio knows of a task: whether it ends because its event loop does, and where it waits."""

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
    """Whether the running task is cancelled because *loop* ends, which is no failure of the app.

    `asyncio.run()` cancels every task of its loop then, and so do other runners. `asyncio.Task.cancelling()` tells. A
    task that was made after that, to clean up, is not cancelled; then the stack shows who cancels: the runners of
    asyncio, uvloop, anyio and hypercorn all do it in a function of the same name.
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


def is_discarded(exc: BaseException, task: "asyncio.Task[Any] | None", loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the coroutine of *task* ends with *exc* because the garbage collector has found it, and not by running.

    It closes a coroutine by a `GeneratorExit`; what the app does then may raise something else, if the loop is closed.
    *task* is `None` during the first step of an eager task, which does run.
    """
    if not isinstance(exc, GeneratorExit) and not loop.is_closed():
        return False
    return task is not None and asyncio.current_task(loop) is not task


def discard_silently(task: "asyncio.Task[Any]") -> None:
    """Do not log "Task was destroyed but it is pending!" for *task*: the session that was not closed is reported.

    The attribute is private to asyncio, whose own `gather()` sets it for the same purpose.
    """
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def where_it_waits(task: "asyncio.Task[Any]") -> str:
    """Where *task* stands, for people to read: file, line, function and source of the innermost frame of the user.

    That is the innermost frame outside of the standard library and of what is installed. If there is none, it is the
    innermost one outside of the standard library.
    """
    frames = list(_frames(task))
    own = [frame for frame in frames if not _is_stdlib(frame) and not _is_installed(frame)]
    found = own or [frame for frame in frames if not _is_stdlib(frame)] or frames
    return _describe(found[-1]) if found else "at an unknown place"


def _frames(task: "asyncio.Task[Any]") -> Iterator[FrameType]:
    """The frames of a suspended task, the outermost first; `Task.get_stack()` has only that one."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame, awaited = _step_into(awaited)
        if frame is not None:
            yield frame


def _step_into(awaited: Any) -> tuple[FrameType | None, Any]:
    """The frame of what is awaited, if it has one, and what it awaits itself."""
    for frame, inside in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
        if hasattr(awaited, frame):
            return getattr(awaited, frame), getattr(awaited, inside)
    # What `__anext__()` and `__await__()` return: only the garbage collector can see what it stands for.
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
