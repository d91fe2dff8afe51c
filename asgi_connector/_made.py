"""Who is told of each connector and stub that is made: a plugin of a test runner. Imports nothing of the package."""

from collections.abc import Callable
from typing import Final

listeners: Final[list[Callable[[object], None]]] = []
"""The innermost test run is the last, and the only one that is told: pytest can run inside of pytest."""


def tell_made(made: object) -> None:
    """Called with each new object, at the end of its construction."""
    if listeners:
        listeners[-1](made)
