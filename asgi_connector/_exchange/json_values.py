"""Where two JSON values differ. Pure functions.

Numbers are compared by their value, as JSON has one kind of number: 1 and 1.0 are the same. `True` and 1 are not.
"""

import json
from collections.abc import Iterator
from typing import Final

from typing_extensions import TypeIs

from asgi_connector._display import printable

from .redaction import REDACTED, is_secret

_SHOWN: Final = 80  # characters of a value
LEVELS_SHOWN: Final = 20  # of objects and arrays inside of each other


def dump_json(name: str, value: object) -> str:
    """*value* as JSON text, for the parameter *name*. Raises `TypeError` or `ValueError` if it is not JSON."""
    try:
        return json.dumps(value, allow_nan=False)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply, or contains itself") from None
    except (TypeError, ValueError) as exc:
        raise type(exc)(f"{name} must be a JSON value: {exc}") from None


def differences(expected: object, actual: object, *, subset: bool = False) -> Iterator[str]:
    """Each place at which *actual* differs from *expected*, in the order of *expected*.

    With *subset*, the objects in *actual* may have further members. Arrays have the same number of items.
    """
    pairs: list[tuple[str, bool, object, object]] = [("$", False, expected, actual)]
    while pairs:
        place, secret, one, other = pairs.pop()
        if is_object(one) and is_object(other):
            inner, texts = _in_objects(place, secret, one, other, subset)
        elif is_array(one) and is_array(other):
            inner, texts = _in_arrays(place, secret, one, other)
        else:
            inner, texts = [], [] if is_same(one, other) else [_unequal(place, secret, one, other)]
        yield from texts
        pairs += reversed(inner)


_Found = tuple[list[tuple[str, bool, object, object]], list[str]]
"""The pairs of values inside of two values that still have to be compared, and the differences that are known."""


def _in_objects(place: str, secret: bool, one: dict[str, object], other: dict[str, object], subset: bool) -> _Found:
    inside = {name: (_member(place, name), secret or is_secret(name)) for name in one | other}
    inner = [(*inside[name], one[name], other[name]) for name in one if name in other]
    missing = [f"{inside[name][0]} is missing" for name in one if name not in other]
    more = [f"{inside[name][0]} is not expected" for name in other if name not in one and not subset]
    return inner, missing + more


def _in_arrays(place: str, secret: bool, one: list[object], other: list[object]) -> _Found:
    inner = [(f"{place}[{n}]", secret, *pair) for n, pair in enumerate(zip(one, other, strict=False))]
    if len(one) == len(other):
        return inner, []
    return inner, [f"{place} has {len(other)} {'item' if len(other) == 1 else 'items'}, not {len(one)}"]


def is_same(one: object, other: object) -> bool:
    """Whether two values are the same, and one of them at least is neither an object nor an array."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _unequal(place: str, secret: bool, one: object, other: object) -> str:
    return f"{place} differs: {REDACTED}" if secret else f"{place} is {shown_json(other)}, not {shown_json(one)}"


def _member(place: str, name: str) -> str:
    return f"{place}.{name}" if name.isidentifier() else f"{place}[{printable(json.dumps(name, ensure_ascii=False))}]"


def shown_json(value: object) -> str:
    """*value* as JSON text to show: cut if it is long, and without the values of members that are secrets."""
    text = printable(json.dumps(redacted(value), ensure_ascii=False))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def redacted(value: object, levels: int = LEVELS_SHOWN) -> object:
    """*value* without the values of members that are secrets, and without what is nested deeply."""
    if levels == 0 and isinstance(value, dict | list):
        return "…"
    if is_object(value):
        return {name: REDACTED if is_secret(name) else redacted(each, levels - 1) for name, each in value.items()}
    if is_array(value):
        return [redacted(each, levels - 1) for each in value]
    return value


def is_object(value: object) -> TypeIs[dict[str, object]]:
    return isinstance(value, dict)


def is_array(value: object) -> TypeIs[list[object]]:
    return isinstance(value, list)
