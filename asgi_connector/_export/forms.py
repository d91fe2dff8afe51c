"""Parsing the fields of a form, urlencoded or multipart, from the body of a request. Pure functions."""

import re
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from email.utils import collapse_rfc2231_value
from typing import Final
from urllib.parse import parse_qsl

from asgi_connector._exchange.redaction import REDACTED, is_secret, redact_form, redact_text

_END_OF_HEADERS: Final = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form. Only a field of a ``multipart/form-data`` form has a file name and a content type."""

    name: str
    value: bytes
    file_name: str | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form in the order in which they were sent, and the body that contains them."""

    fields: list[Field]
    body: bytes


def read_form(content_type: str, body: bytes, *, redacted: bool) -> Form | None:
    """Read a form from a body, which may be cut. Returns `None` if its Content-Type is not that of a form.

    With *redacted*, the values of secrets are redacted in the fields and in the body.
    """
    header = Message()
    header["Content-Type"] = content_type
    kind, boundary = header.get_content_type(), header.get_boundary()
    if kind == "application/x-www-form-urlencoded":
        return _read_urlencoded(body, redacted)
    if kind == "multipart/form-data" and boundary:
        return _read_multipart(body, boundary.encode(errors="replace"), redacted)
    return None


def _read_urlencoded(body: bytes, redacted: bool) -> Form:
    if redacted:
        body = redact_form(body.decode("latin-1")).encode("latin-1")  # Latin-1 keeps every byte
    pairs = parse_qsl(body.decode(errors="replace"), keep_blank_values=True)
    return Form([Field(name, value.encode(errors="replace")) for name, value in pairs], body)


def _read_multipart(body: bytes, boundary: bytes, redacted: bool) -> Form:
    """Read a multipart form (RFC 7578). Its parts are delimited as in RFC 2046, 5.1.1."""
    delimiter = re.compile(rb"(?:\A|\r?\n)--" + re.escape(boundary) + rb"(?P<last>--)?[ \t]*(?=\r?\n|\Z)")
    fields: list[Field] = []
    kept: list[bytes] = []
    done = 0
    found = list(delimiter.finditer(body))
    for match, end in zip(found, [*(each.start() for each in found[1:]), len(body)], strict=False):
        if match["last"] is not None:
            break
        headers = _END_OF_HEADERS.search(body, match.end(), end)
        if headers is None:
            continue
        field = _read_part(body[match.end() : headers.start()], body[headers.end() : end], redacted)
        fields.append(field)
        kept += body[done : headers.end()], field.value
        done = end
    return Form(fields, b"".join([*kept, body[done:]]))


def _read_part(head: bytes, value: bytes, redacted: bool) -> Field:
    headers = HeaderParser().parsestr(_text_of(head).strip())
    name = _parameter(headers, "name") or ""
    file_name = _parameter(headers, "filename")
    if redacted:
        value = _redact(name, value, is_file=file_name is not None)
    return Field(name, value, file_name, headers.get("Content-Type"))


def _redact(name: str, value: bytes, *, is_file: bool) -> bytes:
    if is_secret(name):
        return REDACTED.encode()
    # Only secrets in URLs are replaced. Latin-1 keeps every other byte.
    return value if is_file else redact_text(value.decode("latin-1")).encode("latin-1")


def _parameter(headers: "Message[str, str]", name: str) -> str | None:
    value = headers.get_param(name, header="Content-Disposition")
    return None if value is None else collapse_rfc2231_value(value)


def _text_of(head: bytes) -> str:
    try:
        return head.decode()
    except UnicodeDecodeError:
        return head.decode("latin-1")
