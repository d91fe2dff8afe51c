"""Context managers that do nothing until they are entered, and warn if they never are."""

import inspect
import warnings
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

_PACKAGE = __name__.partition(".")[0]


class Block:
    """The base class of the context managers that a connector's methods return. Each can be entered once.

    If it is never entered, a `RuntimeWarning` at the line of the call is issued when it is collected, as for a
    coroutine that is never awaited. Python shows a `RuntimeWarning` by default.
    """

    _entered = True  # until __init__() has run: no warning for an object whose construction failed

    def __init__(self, call: str, statement: str) -> None:
        """*call* is the method with its arguments, *statement* is ``with`` or ``async with``."""
        self._call = call
        self._statement = statement
        self._filename, self._line = _line_outside()
        self._entered = False

    def _enter(self) -> None:
        """Begin the block. Raises `RuntimeError` the second time."""
        if self._entered:
            method = self._call.partition("(")[0]
            raise RuntimeError(f"{self!r} has been entered before: call {method}() for each block")
        self._entered = True

    def _example(self) -> str:
        """How the block is entered."""
        method = self._call.partition("(")[0]
        return f"{self._statement} connector.{method}(...):"

    def __del__(self, _warnings: Any = warnings) -> None:
        if not self._entered:
            # If warnings are errors, this one is raised here. Then only its text can say where the call is.
            place = f"{self._filename}:{self._line}"
            text = f"{self._call} at {place} was never entered, so it did nothing: write '{self._example()}'"
            _warnings.warn_explicit(text, RuntimeWarning, self._filename, self._line, source=self)


class AsyncBlock(Block):
    """A `Block` for ``async with`` that wraps another context manager."""

    def __init__(self, call: str, block: AbstractAsyncContextManager[None]) -> None:
        self._block = block
        super().__init__(call, "async with")

    def __repr__(self) -> str:
        return self._call

    async def __aenter__(self) -> None:
        self._enter()
        await self._block.__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(exc_type, exc, traceback)


def _line_outside() -> tuple[str, int]:
    """The file and the line of the innermost caller outside this package."""
    frame = inspect.currentframe()
    assert frame is not None  # CPython has frames
    while frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
