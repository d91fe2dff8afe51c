"""The body of a request or a response, as text and as JSON. Pure functions.

Each raises `ValueError`, whose text continues a sentence that begins with "body", if a body cannot be read so.
"""

import json
from email.message import Message
from typing import Any, Final

from .redaction import redact_text

_BEGINNING: Final = 60  # characters of a body that an error shows
_SEARCHED: Final = 4096  # bytes of it that are searched for secrets


def read_text(body: bytes, content_type: str, encoding: str | None = None) -> str:
    """Decode *body* from *encoding*; by default, from the charset of *content_type*, or else from UTF-8."""
    name = encoding if encoding is not None else _media_type(content_type).get_content_charset() or "utf-8"
    try:
        return body.decode(name)
    except UnicodeError as exc:
        raise ValueError(f"is not text in the encoding {name!r}: {exc}; write text(encoding=...)") from None
    except (LookupError, ValueError):  # `ValueError`: the name contains a null character
        raise ValueError(
            f"cannot be decoded from {name!r}, because Python has no such text encoding; "
            "write one that it has, such as text(encoding='utf-8')"
        ) from None


def read_json(body: bytes, content_type: str) -> Any:
    """Parse *body* as JSON, in UTF-8, UTF-16 or UTF-32. *content_type* only says more about a body that is not JSON."""
    if not body:
        raise ValueError("is empty")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        kind = f" of {content_type!r}" if content_type else ""
        size = f"{len(body)} {'byte' if len(body) == 1 else 'bytes'}"
        raise ValueError(f"is not JSON, but {size}{kind}{_details(body, content_type, exc)}") from None


def _details(body: bytes, content_type: str, exc: Exception) -> str:
    """What may be shown of a body that is not JSON: the beginning of a text. In anything else may be secrets."""
    media_type = _media_type(content_type)
    if content_type and media_type.get_content_maintype() == "text":
        text = redact_text(body[:_SEARCHED].decode(errors="replace"))
        return f", which are {text!r}" if len(text) <= _BEGINNING else f", which begin with {text[:_BEGINNING]!r}"
    is_json = media_type.get_content_subtype().rpartition("+")[2] == "json"
    return f": {exc}" if is_json else ""


def _media_type(content_type: str) -> "Message[str, str]":
    header: Message[str, str] = Message()
    header["Content-Type"] = content_type
    return header
