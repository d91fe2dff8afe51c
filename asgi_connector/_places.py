"""Which line of the user's code: the one at which a task waits, and the one at which an exception was raised.

User code is what belongs neither to the standard library nor to an installed package.
"""

import asyncio
import gc
import linecache
import os
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final, TypeAlias

Place: TypeAlias = tuple[CodeType, int]
"""A line of a function."""

_SUSPENDABLE: Final = (AsyncGeneratorType, CoroutineType, GeneratorType)
_PACKAGE: Final = os.path.dirname(__file__)
_STDLIB: Final = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), "<frozen")


def where_it_waits(task: asyncio.Task[Any]) -> str:
    """Describe where *task* is suspended: file, line, function and source line of the innermost frame of user code.

    If no frame is user code, the innermost frame outside the standard library is described.
    """
    places = [(frame.f_code, frame.f_lineno) for frame in _frames(task)]
    found = _own(places) or [place for place in places if not _is_stdlib(place)] or places
    return _describe(found[-1]) if found else "at an unknown place"


def where_it_was_raised(error: BaseException) -> str | None:
    """Describe where *error* was raised, by the innermost frame of user code in its traceback.

    If no frame is user code, the innermost one of an installed package is described, since services may be installed.
    aiohttp and this package are none of these: they only pass errors on. `None` if there is no such frame.
    """
    places = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    found = _own(places) or [place for place in places if not _is_stdlib(place) and not _passes_errors_on(place)]
    return _describe(found[-1]) if found else None


def _own(places: Sequence[Place]) -> list[Place]:
    return [place for place in places if not _is_stdlib(place) and not _is_installed(place)]


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


def _is_installed(place: Place) -> bool:
    filename = place[0].co_filename
    return filename.startswith(_PACKAGE) or "site-packages" in filename or "dist-packages" in filename


def _passes_errors_on(place: Place) -> bool:
    filename = place[0].co_filename
    return filename.startswith(_PACKAGE) or f"{os.sep}aiohttp{os.sep}" in filename


def _is_stdlib(place: Place) -> bool:
    return place[0].co_filename.startswith(_STDLIB) and not _is_installed(place)


def _describe(place: Place) -> str:
    code, line = place
    source = linecache.getline(code.co_filename, line).strip()
    where = f"at {code.co_filename}:{line} in {code.co_name}"
    return f"{where}: {source}" if source else where
