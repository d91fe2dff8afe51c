"""A package is as if it were not installed, for the length of a block."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from unittest.mock import patch

_SUFFIX = "_which_is_not_installed"


class _Finder:
    """Searches ``sys.path`` as Python does, so that a failed search takes the time that it takes."""

    def __init__(self, hidden: str) -> None:
        self._hidden = hidden

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name + _SUFFIX if name == self._hidden else name, path, target)


@contextmanager
def hidden(module: str) -> Iterator[None]:
    finders = [_Finder(module) if finder is PathFinder else finder for finder in sys.meta_path]
    loaded = sys.modules.pop(module, None)
    try:
        with patch.object(sys, "meta_path", finders):
            yield
    finally:
        if loaded is not None:
            sys.modules[module] = loaded
