"""The journal as an HTTP Archive, HAR 1.2: http://www.softwareishard.com/blog/har-12-spec/.

What HAR has no place for is in fields that begin with an underscore, as the format has it: WebSockets as Chrome writes
them (``_webSocketMessages``), a failure as Chrome does too (status 0 and ``_error``), and who called (``_caller``).
"""

import base64
import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, Final

from multidict import CIMultiDictProxy
from yarl import URL

from ._exchange import NO_HEADERS, Content, Exchange, WebSocketMessage

_REDACTED: Final = "[redacted]"
_SECRET_HEADERS: Final = frozenset(
    {"authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key", "x-auth-token", "x-csrf-token"}
)
_SECRET_PARAMETERS: Final = frozenset(
    {
        "access_token",
        "api_key",
        "apikey",
        "client_secret",
        "code",
        "id_token",
        "key",
        "password",
        "refresh_token",
        "secret",
        "sig",
        "signature",
        "token",
        "x-amz-credential",
        "x-amz-security-token",
        "x-amz-signature",
    }
)
_URL_HEADERS: Final = frozenset({"content-location", "location", "origin", "referer"})
_NOT_KNOWN: Final = -1


def save(exchanges: Iterable[Exchange], path: "str | PathLike[str]", *, sensitive: bool) -> None:
    text = json.dumps(archive(exchanges, sensitive=sensitive), ensure_ascii=False, indent=2)
    Path(path).write_text(f"{text}\n", encoding="utf-8")


def archive(exchanges: Iterable[Exchange], *, sensitive: bool) -> dict[str, Any]:
    """The archive; *sensitive* says whether it has cookies and credentials."""
    creator = {"name": "asgi-connector", "version": version("asgi-connector")}
    entries = [_entry(exchange, sensitive) for exchange in exchanges]
    return {"log": {"version": "1.2", "creator": creator, "entries": entries}}


def _entry(exchange: Exchange, sensitive: bool) -> dict[str, Any]:
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
        "_parent": None if exchange.parent is None else exchange.parent.number,
        "_reused": exchange.reused,
    }
    if exchange.fault is not None:
        entry["_fault"] = repr(exchange.fault)
    if exchange.close_code is not None or exchange.messages or exchange.status == 101:
        entry["_resourceType"] = "websocket"
        entry["_webSocketMessages"] = [_message(message) for message in exchange.messages]
        entry["_webSocketCloseCode"] = exchange.close_code
    return entry


def _request(exchange: Exchange, sensitive: bool) -> dict[str, Any]:
    content = exchange.request
    url = exchange.url if sensitive else _redact_url(exchange.url)
    request: dict[str, Any] = {
        "method": exchange.method,
        "url": str(url),
        "httpVersion": "HTTP/1.1",
        "cookies": _cookies(content.headers.getall("Cookie", []), sensitive),
        "headers": _headers(content.headers, sensitive),
        "queryString": [{"name": name, "value": value} for name, value in url.query.items()],
        "headersSize": _NOT_KNOWN,
        "bodySize": _body_size(exchange, content),
    }
    if content.body:
        request["postData"] = {"mimeType": content.headers.get("Content-Type", ""), "params": [], **_text(content)}
    return request


def _response(exchange: Exchange, sensitive: bool) -> dict[str, Any]:
    content = exchange.response or Content(NO_HEADERS, None)
    response: dict[str, Any] = {
        "status": exchange.status or 0,
        "statusText": _reason(exchange.status),
        "httpVersion": "HTTP/1.1",
        "cookies": _cookies(content.headers.getall("Set-Cookie", []), sensitive),
        "headers": _headers(content.headers, sensitive),
        "content": {"size": content.size, "mimeType": content.headers.get("Content-Type", "")},
        "redirectURL": _header_value("Location", content.headers.get("Location", ""), sensitive),
        "headersSize": _NOT_KNOWN,
        "bodySize": _body_size(exchange, content),
    }
    if content.body is not None:
        response["content"] |= _text(content)
    if exchange.state != "done":
        response["_error"] = _error(exchange)
    return response


def _reason(status: int | None) -> str:
    try:
        return HTTPStatus(status or 0).phrase
    except ValueError:
        return ""


def _error(exchange: Exchange) -> str:
    if exchange.error is None:
        return exchange.state
    return f"{exchange.state}: {type(exchange.error).__name__}: {exchange.error}"


def _body_size(exchange: Exchange, content: Content) -> int:
    return _NOT_KNOWN if exchange.via == "fallback" else content.size


def _text(content: Content) -> dict[str, Any]:
    """The body as text, or in base64 where it is none; with a comment if it was cut."""
    body = content.body or b""
    try:
        text: dict[str, Any] = {"text": body.decode()}
    except UnicodeDecodeError:
        text = {"text": base64.b64encode(body).decode("ascii"), "encoding": "base64"}
    if content.cut:
        text["comment"] = f"the first {len(body)} of {content.size} bytes"
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


def _headers(headers: CIMultiDictProxy[str], sensitive: bool) -> list[dict[str, str]]:
    return [{"name": name, "value": _header_value(name, value, sensitive)} for name, value in headers.items()]


def _header_value(name: str, value: str, sensitive: bool) -> str:
    if sensitive:
        return value
    if name.lower() in _SECRET_HEADERS:
        return _REDACTED
    return str(_redact_url(URL(value))) if name.lower() in _URL_HEADERS and value else value


def _redact_url(url: URL) -> URL:
    if url.user is not None or url.password is not None:
        url = url.with_user(None)
    if any(name.lower() in _SECRET_PARAMETERS for name in url.query):
        query = [
            (name, _REDACTED if name.lower() in _SECRET_PARAMETERS else value) for name, value in url.query.items()
        ]
        url = url.with_query(query)
    return url


def _cookies(headers: Iterable[str], sensitive: bool) -> list[dict[str, str]]:
    cookies: list[dict[str, str]] = []
    for header in headers:
        with suppress(CookieError):
            cookies += [
                {"name": name, "value": morsel.value if sensitive else _REDACTED}
                for name, morsel in SimpleCookie(header).items()
            ]
    return cookies


def _iso(date: datetime) -> str:
    return date.isoformat(timespec="microseconds")


def _milliseconds(seconds: float) -> float:
    return round(max(seconds, 0.0) * 1000, 3)
