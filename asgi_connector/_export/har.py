"""The journal as an HTTP Archive, HAR 1.2: http://www.softwareishard.com/blog/har-12-spec/.

Data for which HAR has no field is in fields that begin with an underscore, as the format requires: WebSockets
(``_webSocketMessages``) and failures (status 0 and ``_error``) as Chrome writes them, and the caller (``_caller``).
"""

import base64
import json
from collections.abc import Iterable
from datetime import datetime
from http import HTTPStatus
from importlib.metadata import version
from os import PathLike
from typing import Any, Final
from urllib.parse import parse_qsl

from multidict import CIMultiDict

from asgi_connector._exchange.exchange import NO_HEADERS, Content, Exchange, WebSocketMessage
from asgi_connector._exchange.redaction import REDACTED

from .files import replace_file
from .forms import Field
from .readable import body_of, error_text, form_of, header_value, headers_of, url_of

_UNKNOWN: Final = -1


def save(exchanges: Iterable[Exchange], path: str | PathLike[str], *, sensitive: bool) -> None:
    text = json.dumps(archive(exchanges, sensitive=sensitive), ensure_ascii=False, indent=2)
    replace_file(path, f"{text}\n".encode(), private=sensitive)


def archive(exchanges: Iterable[Exchange], *, sensitive: bool) -> dict[str, Any]:
    """Return the archive. With *sensitive*, it includes cookies and credentials."""
    creator = {"name": "asgi-connector", "version": version("asgi-connector")}
    exchanges = list(exchanges)
    included = set(exchanges)
    parents = [exchange.parent if exchange.parent in included else None for exchange in exchanges]
    entries = [_entry(exchange, parent, sensitive) for exchange, parent in zip(exchanges, parents, strict=True)]
    return {"log": {"version": "1.2", "creator": creator, "entries": entries}}


def _entry(exchange: Exchange, parent: Exchange | None, sensitive: bool) -> dict[str, Any]:
    duration = exchange.duration
    waited = duration if exchange.waited is None else min(exchange.waited, duration)
    entry: dict[str, Any] = {
        "startedDateTime": _iso(exchange.started),
        "time": _milliseconds(duration),
        "request": _request(exchange, sensitive),
        "response": _response(exchange, sensitive),
        "cache": {},
        "timings": {"send": 0, "wait": _milliseconds(waited), "receive": _milliseconds(duration - waited)},
        "_caller": exchange.caller,
        "_service": exchange.service,
        "_via": exchange.via,
        "_state": exchange.state,
        "_number": exchange.number,
        "_parent": None if parent is None else parent.number,
        "_reused": exchange.reused,
    }
    if exchange.fault is not None:
        entry["_fault"] = repr(exchange.fault)
    if exchange.close_code is not None or exchange.messages or exchange.status == 101:
        entry["_resourceType"] = "websocket"
        entry["_webSocketMessages"] = [_message(message) for message in exchange.messages]
        entry["_webSocketCloseCode"] = exchange.close_code
        entry["_webSocketMessagesDropped"] = exchange.messages_dropped
    return entry


def _request(exchange: Exchange, sensitive: bool) -> dict[str, Any]:
    content = exchange.request
    headers = headers_of(content)
    cookies = [cookie for value in headers.getall("Cookie", []) for cookie in value.split(";")]
    url = url_of(exchange, sensitive=sensitive)
    request: dict[str, Any] = {
        "method": exchange.method,
        "url": url,
        "httpVersion": content.http_version,
        "cookies": _cookies(cookies, sensitive),
        "headers": _headers(headers, sensitive),
        "queryString": _query(url),
        "headersSize": _UNKNOWN,
        "bodySize": _body_size(exchange, content),
    }
    if content.body:
        request["postData"] = _post_data(content, headers, sensitive)
    return request


def _post_data(content: Content, headers: CIMultiDict[str], sensitive: bool) -> dict[str, Any]:
    """Return the body of a request, and its fields if it is a form.

    HAR 1.2 calls ``text`` and ``params`` mutually exclusive. Both are written, as Chrome does. Programs that import
    archives, such as Chrome's developer tools, read only the text. People need the fields if the text is in base64.
    The same secrets are redacted in both.
    """
    body = body_of(content, headers) or b""
    form = form_of(body, headers, sensitive=sensitive)
    # HAR has no field for the encoding of a request's body.
    text = _text(body if form is None else form.body, content, "_encoding")
    return {
        "mimeType": headers.get("Content-Type", ""),
        "params": [] if form is None else list(map(_param, form.fields)),
        **text,
    }


def _param(field: Field) -> dict[str, str]:
    param = {"name": field.name}
    try:
        param["value"] = field.value.decode()
    except UnicodeDecodeError:
        param["comment"] = f"{len(field.value)} bytes that are no text"
    if field.file_name is not None:
        param["fileName"] = field.file_name
    if field.content_type is not None:
        param["contentType"] = field.content_type
    return param


def _response(exchange: Exchange, sensitive: bool) -> dict[str, Any]:
    content = exchange.response or Content(NO_HEADERS, None)
    headers = headers_of(content)
    cookies = [value.partition(";")[0] for value in headers.getall("Set-Cookie", [])]
    response: dict[str, Any] = {
        "status": exchange.status or 0,
        "statusText": _reason(exchange.status),
        "httpVersion": content.http_version,
        "cookies": _cookies(cookies, sensitive),
        "headers": _headers(headers, sensitive),
        "content": {"size": content.size, "mimeType": headers.get("Content-Type", "")},
        "redirectURL": header_value("Location", headers.get("Location", ""), sensitive=sensitive),
        "headersSize": _UNKNOWN,
        "bodySize": _body_size(exchange, content),
    }
    body = body_of(content, headers)
    if body is not None:
        if not content.cut and len(body) != content.size:
            response["content"] |= {"size": len(body), "compression": len(body) - content.size}
        response["content"] |= _text(body, content, "encoding")
    if exchange.state in ("failed", "abandoned"):
        response["_error"] = _error(exchange, sensitive)
    return response


def _reason(status: int | None) -> str:
    try:
        return HTTPStatus(status or 0).phrase
    except ValueError:
        return ""


def _error(exchange: Exchange, sensitive: bool) -> str:
    error = exchange.error
    return exchange.state if error is None else f"{exchange.state}: {error_text(error, sensitive=sensitive)}"


def _body_size(exchange: Exchange, content: Content) -> int:
    return _UNKNOWN if exchange.via == "fallback" and content.body is None else content.size


def _text(body: bytes, content: Content, encoding: str) -> dict[str, Any]:
    """Return the body as text, or in base64 if it is not UTF-8, with a comment if it was cut."""
    try:
        text: dict[str, Any] = {"text": body.decode()}
    except UnicodeDecodeError:
        text = {"text": base64.b64encode(body).decode("ascii"), encoding: "base64"}
    if content.cut:
        text["comment"] = f"the first {content.size - content.cut} of {content.size} bytes"
    return text


def _message(message: WebSocketMessage) -> dict[str, Any]:
    data = message.data
    return {
        "type": "send" if message.from_client else "receive",
        "time": message.date.timestamp(),
        "opcode": 1 if message.is_text else 2,
        "data": base64.b64encode(data).decode("ascii") if isinstance(data, bytes) else data or "",
        "_size": message.size,
    }


def _headers(headers: CIMultiDict[str], sensitive: bool) -> list[dict[str, str]]:
    return [{"name": name, "value": header_value(name, value, sensitive=sensitive)} for name, value in headers.items()]


def _query(url: str) -> list[dict[str, str]]:
    query = url.partition("#")[0].partition("?")[2]
    return [{"name": name, "value": value} for name, value in parse_qsl(query, keep_blank_values=True)]


def _cookies(cookies: Iterable[str], sensitive: bool) -> list[dict[str, str]]:
    """Return the cookies that have a name, as they are written. A malformed one does not affect the others."""
    pairs = [cookie.partition("=") for cookie in cookies]
    return [
        {"name": name.strip(), "value": value.strip() if sensitive else REDACTED}
        for name, equals, value in pairs
        if equals
    ]


def _iso(date: datetime) -> str:
    return date.isoformat(timespec="microseconds")


def _milliseconds(seconds: float) -> float:
    return round(max(seconds, 0.0) * 1000, 3)
