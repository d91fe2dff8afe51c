"""What the files show of an exchange: text that UTF-8 can encode, decoded bodies, and no secrets unless asked for."""

import re
from typing import Final

from multidict import CIMultiDict

from asgi_connector._display import text_of
from asgi_connector._exchange.encodings import decoded_or_as_sent
from asgi_connector._exchange.exchange import Content, Exchange
from asgi_connector._exchange.redaction import redact_header, redact_text, redact_url

from .forms import Form, read_form

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def clean(value: object) -> str:
    """Return the text of *value* in a form that UTF-8 can encode.

    aiohttp decodes header bytes that are not UTF-8 to surrogates. They become the Latin-1 characters of the bytes.
    """
    return _SURROGATE.sub(_from_surrogate, str(value))


def _from_surrogate(match: re.Match[str]) -> str:
    byte = ord(match.group()) - 0xDC00
    return chr(byte) if 0x80 <= byte <= 0xFF else "\N{REPLACEMENT CHARACTER}"


def url_of(exchange: Exchange, *, sensitive: bool) -> str:
    url = clean(exchange.url)
    return url if sensitive else redact_url(url)


def headers_of(content: Content) -> CIMultiDict[str]:
    """Return the headers, with their secrets."""
    return CIMultiDict((clean(name), clean(value)) for name, value in content.headers.items())


def header_value(name: str, value: str, *, sensitive: bool) -> str:
    return value if sensitive else redact_header(name, value)


def body_of(content: Content, headers: CIMultiDict[str]) -> bytes | None:
    """Return the body, decoded from gzip or deflate unless it was cut; `None` if bodies were not recorded."""
    body = content.body
    return decoded_or_as_sent(body, headers.get("Content-Encoding", "")) if body and not content.cut else body


def form_of(body: bytes, headers: CIMultiDict[str], *, sensitive: bool) -> Form | None:
    """Return the form that is the body of a request, without its secrets; `None` if it is no form."""
    return read_form(headers.get("Content-Type", ""), body, redacted=not sensitive)


def error_text(error: BaseException, *, sensitive: bool) -> str:
    """Return the type of an exception and its text."""
    text = text_of(error)
    shown = clean(f"{type(error).__name__}{text and ': '}{text}")
    return shown if sensitive else redact_text(shown)
