"""Context managers that warn if no `with` statement ever enters them: they do nothing before that."""

import inspect
import warnings
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

_PACKAGE = __name__.partition(".")[0]


class Block:
    """The base of a context manager that a method of a connector returns, to be entered once.

    One that is never entered warns when it is collected, as a coroutine that is never awaited does: by a
    `RuntimeWarning`, which Python shows by default, at the line of the call.
    """

    _entered = True  # until __init__() has run: an object that is not whole has nothing to warn of

    def __init__(self, call: str, statement: str) -> None:
        """*call* is the method and its arguments, *statement* what enters it: ``with`` or ``async with``."""
        self._call = call
        self._statement = statement
        self._filename, self._line = _line_outside()
        self._entered = False

    def _enter(self) -> None:
        """The block begins; raises `RuntimeError` the second time."""
        if self._entered:
            method = self._call.partition("(")[0]
            raise RuntimeError(f"{self!r} has been entered before: call {method}() for each block")
        self._entered = True

    def __del__(self, _warnings: Any = warnings) -> None:
        if not self._entered:
            method = self._call.partition("(")[0]
            example = f"{self._statement} connector.{method}(...):"
            # Where the warning is an error, which is then raised in here, only its text says where the call is.
            place = f"{self._filename}:{self._line}"
            text = f"{self._call} at {place} was never entered, so it did nothing: write '{example}'"
            _warnings.warn_explicit(text, RuntimeWarning, self._filename, self._line, source=self)


class AsyncBlock(Block):
    """A `Block` for ``async with``, around another context manager."""

    def __init__(self, call: str, block: AbstractAsyncContextManager[None]) -> None:
        self._block = block
        super().__init__(call, "async with")

    async def __aenter__(self) -> None:
        self._enter()
        await self._block.__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(exc_type, exc, traceback)


def _line_outside() -> tuple[str, int]:
    """The file and the line, outside of this package, from where it has been called."""
    frame = inspect.currentframe()
    assert frame is not None  # CPython has frames
    while frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
