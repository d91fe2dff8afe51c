"""Text and numbers as they are written into HTML and SVG. Pure functions."""

import html
import unicodedata
from collections.abc import Iterable
from typing import Final

from asgi_connector._display import printable
from asgi_connector._export.readable import clean

_LINES_OF_GROUP: Final = 50
# Widths in pixels of a sans-serif font of 12 pixels. They are generous, because fonts differ.
_NARROW: Final = 4.0
_MEDIUM: Final = 6.9
_BROAD: Final = 9.6
_WIDE: Final = 13.0
_NARROW_CHARACTERS: Final = frozenset("fijlrtI.,:;|!'`()[]{}/\\- ")
_BROAD_CHARACTERS: Final = frozenset("mwMWGOQCDHNU@%&…")


def escape(value: object) -> str:
    """Return the text of *value* on one line, safe inside of an element and of a quoted attribute."""
    return html.escape(printable(clean(value)))


def escape_lines(text: str) -> str:
    """Return *text* with its lines and tabs, safe inside of an element. Other invisible characters are escaped."""
    text = clean(text).replace("\r\n", "\n")
    lines = text.split("\n")
    return html.escape("\n".join("\t".join(map(printable, line.split("\t"))) for line in lines))


def preformatted(text: str, kind: str = "") -> str:
    """Return the lines of *text* as an element, of the class *kind*."""
    opening = f'<pre class="{kind}">' if kind else "<pre>"
    return f"{opening}\n{escape_lines(text)}</pre>"  # HTML drops one line break after the opening


def width_of(text: str) -> int:
    """Estimate the width of *text* in pixels."""
    return round(sum(map(_width_of_character, text)))


def _width_of_character(character: str) -> float:
    if character in _NARROW_CHARACTERS:
        return _NARROW
    if character in _BROAD_CHARACTERS:
        return _BROAD
    if character.isascii():
        return _MEDIUM
    return _WIDE if unicodedata.east_asian_width(character) in "WF" else _BROAD


def cut(text: str, length: int) -> str:
    """Return *text*, cut with an ellipsis so that it has not many more than *length* characters."""
    return text if len(text) <= length else f"{text[:length]}…"


def shortened(text: str, width: int) -> str:
    """Return *text*, cut with an ellipsis so that it is not wider than *width* pixels."""
    left = float(width)
    for place, character in enumerate(text):
        left -= _width_of_character(character)
        if left < 0:
            return _cut(text[:place], width)
    return text


def _cut(text: str, width: int) -> str:
    """Return *text* and an ellipsis, without the characters at its end for which there is no room."""
    while text and width_of(text) + _BROAD > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def grouped(lines: Iterable[str]) -> list[str]:
    """Return *lines* in groups. A browser lays out only the groups that are in view."""
    everything = list(lines)
    starts = range(0, len(everything), _LINES_OF_GROUP)
    return ["\n".join(everything[start : start + _LINES_OF_GROUP]) for start in starts]


def within(budget: int, parts: Iterable[str]) -> list[str]:
    """Return the first of *parts*: so many that they have about *budget* characters."""
    found: list[str] = []
    for part in parts:
        if budget <= 0:
            break
        budget -= len(part)
        found.append(part)
    return found


def milliseconds(seconds: float) -> str:
    """Return a duration as people read it: ``0.42 ms``, ``12.3 ms``, ``1,234 ms``."""
    value = max(seconds, 0.0) * 1000
    if not value:
        return "0 ms"
    digits = 2 if value < 1 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} ms"
