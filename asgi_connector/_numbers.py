"""Checks of the numbers that users give: a bad one is an error at once, and not where it is used."""

import math
import sys

from typing_extensions import TypeIs


def is_int(value: object) -> TypeIs[int]:
    """Whether *value* is an `int`. A `bool` is none, though it is one to Python."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeIs[int | float]:
    """Whether *value* is an `int` or a `float`, and no `bool`."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_number(name: str, value: object, *, unlimited: bool = False) -> None:
    """Raise unless *value* is an `int` or a `float` that is not negative; infinity is one only if *unlimited*.

    Raises `TypeError` for another type, `bool` too, and `ValueError` for a negative number, for NaN, and for an `int`
    that no `float` can hold: event loops and clocks count in floats.
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
    """Raise `TypeError` unless *value* is an `int` and no `bool`, and `ValueError` if it is less than *at_least*."""
    if not is_int(value):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be {at_least} or more, not {shown(value)}")


def shown(value: object) -> str:
    """The `repr()` of *value*; also of an `int` with more digits than Python converts to text."""
    try:
        return repr(value)
    except ValueError:
        return "an int of too many digits to be shown"
