"""Pure functions that make text from outside the package safe to show."""

from typing import Final

_TEXT_KEPT: Final = 10_000  # characters of an exception's text


def printable(text: str) -> str:
    """Return *text* on one line, with every invisible character and every terminal control character escaped.

    Escaped are control characters (C0, C1, ANSI escapes), line separators, surrogates, and format characters such as
    those that change the direction of text (U+202A to U+202E, U+2066 to U+2069, U+200E, U+200F). See
    `str.isprintable()`.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def text_of(error: BaseException) -> str:
    """Return the text of an exception: empty if its ``__str__`` fails, and truncated if it is very long."""
    try:
        text = str.__str__(str(error))  # `__str__` may return a subclass of str, with methods of its own
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return ""
    return text if len(text) <= _TEXT_KEPT else f"{text[:_TEXT_KEPT]}…"


def repr_of(value: object) -> str:
    """Return ``repr(value)``, or the name of its type if its ``__repr__`` fails."""
    try:
        return str.__str__(repr(value))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return f"<{type(value).__name__}>"
