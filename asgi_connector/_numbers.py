"""Checks of the numbers that users pass, so that a bad one raises immediately and not where it is used later."""

import math
import sys

from typing_extensions import TypeIs


def is_int(value: object) -> TypeIs[int]:
    """Whether *value* is an `int`. A `bool` does not count, though it is a subclass of `int`."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeIs[int | float]:
    """Whether *value* is an `int` or a `float`. A `bool` does not count."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_number(name: str, value: object, *, unlimited: bool = False) -> None:
    """Raise unless *value* is an `int` or a `float` that is not negative. Infinity is allowed only if *unlimited*.

    Raises `TypeError` for any other type, including `bool`. Raises `ValueError` for a negative number, for NaN, and for
    an `int` too large for a `float`, because event loops and clocks count in floats.
    """
    if not is_number(value):
        raise TypeError(f"{name} must be an int or a float, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be from 0 to {sys.float_info.max:.1e}, not {shown(value)}") from None
    if unlimited and not number >= 0:
        raise ValueError(f"{name} must not be negative, but is {value!r}")
    if not unlimited and not 0 <= number < math.inf:
        raise ValueError(f"{name} must not be negative, nor infinite, but is {value!r}")


def check_int(name: str, value: object, *, at_least: int) -> None:
    """Raise `TypeError` unless *value* is an `int` (not a `bool`), and `ValueError` if it is less than *at_least*."""
    if not is_int(value):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be {at_least} or more, not {shown(value)}")


def shown(value: object) -> str:
    """Return `repr(value)`, or a short text for an `int` with more digits than Python converts to text."""
    try:
        return repr(value)
    except ValueError:
        return "an int of too many digits to be shown"
