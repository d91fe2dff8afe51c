"""The traceback of an exception, with its causes and notes, as text."""

from traceback import TracebackException
from typing import Final

from asgi_connector._exchange.redaction import redact_text
from asgi_connector._export.readable import clean

_MOST: Final = 200_000  # characters that are looked at
_OF_ONE_PART: Final = 10_000  # characters, of a line of the traceback or of the text of an exception
_SHARE_OF_BEGIN: Final = 4


def traceback_of(error: BaseException, limit: int, *, sensitive: bool) -> str:
    """Return the traceback, without the secrets in URLs. If it is longer than *limit* characters, its middle is cut."""
    parts = map(clean, _parts(error))
    text = "".join(parts if sensitive else (f"{redact_text(part.rstrip())}\n" for part in parts))
    if len(text) <= limit:
        return text
    begin, end = text[: limit // _SHARE_OF_BEGIN], text[len(text) - limit + limit // _SHARE_OF_BEGIN :]
    left_out = len(text) - len(begin) - len(end)
    return f"{begin}\n\n[… {left_out:,} characters are not shown …]\n\n{end}"


def _parts(error: BaseException) -> list[str]:
    """Return the frames and the texts of the exceptions; nothing if methods of the exception fail."""
    parts: list[str] = []
    size = 0
    try:
        for part in TracebackException.from_exception(error, compact=True).format():
            parts.append(part[:_OF_ONE_PART])
            size += len(parts[-1])
            if size > _MOST:
                break
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return []
    return parts
