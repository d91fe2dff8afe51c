"""The body of a request or a response as HTML: indented JSON, text, the fields of a form, or bytes."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Final

from asgi_connector._exchange.exchange import Content
from asgi_connector._export.forms import Field
from asgi_connector._export.readable import body_of, form_of, headers_of

from .markup import count, escape, preformatted, within

_FORM_TO_TEXT: Final = 4  # how many times as long as a text a form may be
_BYTES_SHOWN: Final = 256
_BYTES_OF_LINE: Final = 16
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')


def request_body(content: Content, limit: int, *, sensitive: bool) -> str:
    """Return the body of a request, which may be a form. At most *limit* characters of it are shown."""
    headers = headers_of(content)
    body = body_of(content, headers)
    form = form_of(body, headers, sensitive=sensitive) if body else None
    if form is None or not form.fields:
        return _body(content, body if form is None else form.body, limit)
    rows = within(_FORM_TO_TEXT * limit, (_field(field, limit) for field in form.fields))
    left_out = len(form.fields) - len(rows)
    more = f'<p class="cut">{count(left_out, "more field")} not shown.</p>' if left_out else ""
    return f'{_size(content, body)}<table class="fields"><tbody>{"".join(rows)}</tbody></table>{more}'


def response_body(content: Content, limit: int) -> str:
    """Return the body of a response. At most *limit* characters of it are shown."""
    return _body(content, body_of(content, headers_of(content)), limit)


def text_block(text: str, limit: int) -> str:
    """Return *text*, and a sentence if more than *limit* characters of it are left out."""
    if len(text) <= limit:
        return preformatted(text)
    return f'{preformatted(text[:limit])}<p class="cut">Only the first {limit:,} characters are shown.</p>'


def bytes_block(data: bytes) -> str:
    """Return the first bytes as hexadecimal numbers and as text."""
    shown = data[:_BYTES_SHOWN]
    lines = [shown[start : start + _BYTES_OF_LINE] for start in range(0, len(shown), _BYTES_OF_LINE)]
    dump = "\n".join(f"{number * _BYTES_OF_LINE:04x}  {_hex_line(line)}" for number, line in enumerate(lines))
    left_out = len(data) - len(shown)
    more = f'<p class="cut">{count(left_out, "more byte")} not shown.</p>' if left_out else ""
    return preformatted(dump) + more


def _body(content: Content, body: bytes | None, limit: int) -> str:
    size = _size(content, body)
    if not body:
        return size
    text = _text_of(body, cut=bool(content.cut))
    if text is None:
        return size + bytes_block(body)
    if _is_json(text, headers_of(content).get("Content-Type", "")):
        text = _indented(text, limit)
    return size + text_block(text, limit)


def _size(content: Content, body: bytes | None) -> str:
    """Return a sentence about the size of a body, and about what is missing."""
    if content.cut:
        text = f"The first {content.size - content.cut:,} of {count(content.size, 'byte')} were recorded"
    elif body is None:
        size = count(content.size, "byte") if content.size else "Body"
        return f'<p class="quiet">{size} not recorded. <code>record(bodies=True)</code> keeps bodies.</p>'
    elif not body:
        text = "No body"
    elif len(body) != content.size and "Content-Encoding" in content.headers:
        encoding = escape(headers_of(content)["Content-Encoding"])
        text = f"{count(len(body), 'byte')}, decoded from {count(content.size, 'byte')} of {encoding}"
    else:
        text = count(content.size, "byte")
    return f'<p class="quiet">{text}</p>'


def _field(field: Field, limit: int) -> str:
    about = ", ".join(each for each in (field.file_name, field.content_type) if each is not None)
    text = _text_of(field.value, cut=False)
    shown = bytes_block(field.value) if text is None else text_block(text, limit)
    note = f' <span class="quiet">{escape(about)}</span>' if about else ""
    return f'<tr><th scope="row">{escape(field.name)}{note}</th><td>{shown}</td></tr>'


def _text_of(body: bytes, *, cut: bool) -> str | None:
    """Return the text of *body* if it is UTF-8. If it was *cut*, its last character may be incomplete."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(body, final=not cut)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _hex_line(line: bytes) -> str:
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
    return f"{line.hex(' '):<{3 * _BYTES_OF_LINE}} {text}"


def _is_json(text: str, content_type: str) -> bool:
    if "json" not in content_type.lower() and (content_type or text[:1] not in ("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _indented(text: str, limit: int) -> str:
    """Return JSON with its values spelled as they are, in a line for each member, up to about *limit* characters."""
    parts: list[str] = []
    size = 0
    for part in _json_parts(text):
        parts.append(part)
        size += len(part)
        if size > limit:
            break
    return "".join(parts)


def _json_parts(text: str) -> Iterator[str]:
    depth, previous = 0, ""
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in ("]", "}"):
            depth -= 1
            if previous not in ("[", "{"):
                yield _new_line(depth)
        elif previous in ("[", "{", ","):
            yield _new_line(depth)
        yield f"{token} " if token == ":" else token
        if token in ("[", "{"):
            depth += 1
        previous = token


def _new_line(depth: int) -> str:
    return f"\n{'  ' * depth}"
