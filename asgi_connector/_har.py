"""The journal as an HTTP Archive, HAR 1.2: http://www.softwareishard.com/blog/har-12-spec/.

What HAR has no place for is in fields that begin with an underscore, as the format has it: WebSockets as Chrome writes
them (``_webSocketMessages``), a failure as Chrome does too (status 0 and ``_error``), and who called (``_caller``).
"""

import base64
import json
import re
import zlib
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from multidict import CIMultiDict

from ._exchange import NO_HEADERS, Content, Exchange, WebSocketMessage

_REDACTED: Final = "[redacted]"
_SECRET_HEADERS: Final = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "private-token",
        "proxy-authorization",
        "set-cookie",
        "x-access-token",
        "x-amz-security-token",
        "x-api-key",
        "x-api-token",
        "x-auth-token",
        "x-csrf-token",
        "x-csrftoken",
        "x-goog-api-key",
        "x-session-token",
        "x-vault-token",
        "x-xsrf-token",
    }
)
_SECRET_PARAMETERS: Final = frozenset(
    {
        "access_token",
        "api_key",
        "apikey",
        "auth_token",
        "client_assertion",
        "client_secret",
        "code",
        "code_verifier",
        "id_token",
        "jwt",
        "key",
        "passwd",
        "password",
        "private_token",
        "pwd",
        "refresh_token",
        "secret",
        "session_id",
        "sessionid",
        "sig",
        "signature",
        "token",
        "x-amz-credential",
        "x-amz-security-token",
        "x-amz-signature",
        "x-goog-credential",
        "x-goog-signature",
    }
)
_URL_HEADERS: Final = frozenset({"content-location", "link", "location", "origin", "referer", "refresh"})
_NOT_KNOWN: Final = -1
_DECODED_AT_MOST: Final = 64 * 1024 * 1024  # lest a small body were a large archive


def _in_a_query(name: str) -> str:
    """The pattern of a parameter's name, each character of which may be percent-encoded."""
    return "".join(f"(?:{re.escape(c)}|%{ord(c):02x}|%{ord(c.upper()):02x})" for c in name)


# Of URLs as they are written: one that cannot be parsed may have a password in it too, and the others stay as they are.
_USER: Final = re.compile(r"((?:^|[:<=\s])//)[^/?#\s]*@")
_SECRET_VALUE: Final = re.compile(
    rf"((?:^|[?&;#])(?:{'|'.join(map(_in_a_query, sorted(_SECRET_PARAMETERS)))})=)[^&#]*", re.IGNORECASE
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def save(exchanges: Iterable[Exchange], path: "str | PathLike[str]", *, sensitive: bool) -> None:
    text = json.dumps(archive(exchanges, sensitive=sensitive), ensure_ascii=False, indent=2)
    Path(path).write_text(f"{text}\n", encoding="utf-8")


def archive(exchanges: Iterable[Exchange], *, sensitive: bool) -> dict[str, Any]:
    """The archive; *sensitive* says whether it has cookies and credentials."""
    creator = {"name": "asgi-connector", "version": version("asgi-connector")}
    exchanges = list(exchanges)
    here = set(exchanges)
    parents = [exchange.parent if exchange.parent in here else None for exchange in exchanges]
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
    headers = _readable(content)
    cookies = [cookie for value in headers.getall("Cookie", []) for cookie in value.split(";")]
    url = _clean(exchange.url)
    if not sensitive:
        url = _redact_url(url)
    request: dict[str, Any] = {
        "method": exchange.method,
        "url": url,
        "httpVersion": "HTTP/1.1",
        "cookies": _cookies(cookies, sensitive),
        "headers": _headers(headers, sensitive),
        "queryString": _query(url),
        "headersSize": _NOT_KNOWN,
        "bodySize": _body_size(exchange, content),
    }
    if content.body:
        # HAR has no place for the encoding of a request's body.
        text = _text(content.body, content, "_encoding")
        request["postData"] = {"mimeType": headers.get("Content-Type", ""), "params": [], **text}
    return request


def _response(exchange: Exchange, sensitive: bool) -> dict[str, Any]:
    content = exchange.response or Content(NO_HEADERS, None)
    headers = _readable(content)
    cookies = [value.partition(";")[0] for value in headers.getall("Set-Cookie", [])]
    response: dict[str, Any] = {
        "status": exchange.status or 0,
        "statusText": _reason(exchange.status),
        "httpVersion": "HTTP/1.1",
        "cookies": _cookies(cookies, sensitive),
        "headers": _headers(headers, sensitive),
        "content": {"size": content.size, "mimeType": headers.get("Content-Type", "")},
        "redirectURL": _header_value("Location", headers.get("Location", ""), sensitive),
        "headersSize": _NOT_KNOWN,
        "bodySize": _body_size(exchange, content),
    }
    if content.body is not None and exchange.via != "fallback":
        body = _decoded(content.body, headers.get("Content-Encoding", ""), content)
        if body is not content.body and not content.cut:
            response["content"] |= {"size": len(body), "compression": len(body) - content.size}
        response["content"] |= _text(body, content, "encoding")
    if exchange.state in ("failed", "abandoned"):
        error = _error(exchange)
        response["_error"] = error if sensitive else _redact_url(error)
    return response


def _reason(status: int | None) -> str:
    try:
        return HTTPStatus(status or 0).phrase
    except ValueError:
        return ""


def _error(exchange: Exchange) -> str:
    if exchange.error is None:
        return exchange.state
    return _clean(f"{exchange.state}: {type(exchange.error).__name__}: {exchange.error}")


def _body_size(exchange: Exchange, content: Content) -> int:
    return _NOT_KNOWN if exchange.via == "fallback" else content.size


def _decoded(body: bytes, encoding: str, content: Content) -> bytes:
    """The body as its reader gets it; as it was sent if it is not whole, or in an encoding of another library's."""
    if encoding.lower() in ("deflate", "gzip", "x-gzip") and not content.cut:
        with suppress(zlib.error):
            inflating = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, by its head
            decoded = inflating.decompress(body, _DECODED_AT_MOST)
            if inflating.eof:
                return decoded
    return body


def _text(body: bytes, content: Content, encoding: str) -> dict[str, Any]:
    """The body as text, or in base64 where it is none; with a comment if it was cut."""
    try:
        text: dict[str, Any] = {"text": body.decode()}
    except UnicodeDecodeError:
        text = {"text": base64.b64encode(body).decode("ascii"), encoding: "base64"}
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


def _readable(content: Content) -> CIMultiDict[str]:
    return CIMultiDict((_clean(name), _clean(value)) for name, value in content.headers.items())


def _clean(value: object) -> str:
    """Its text, as UTF-8 can have it: bytes that are none are surrogates in aiohttp's headers, and Latin-1 here."""
    return _SURROGATE.sub(_from_surrogate, str(value))


def _from_surrogate(match: re.Match[str]) -> str:
    byte = ord(match.group()) - 0xDC00
    return chr(byte) if 0x80 <= byte <= 0xFF else "\N{REPLACEMENT CHARACTER}"


def _headers(headers: CIMultiDict[str], sensitive: bool) -> list[dict[str, str]]:
    return [{"name": name, "value": _header_value(name, value, sensitive)} for name, value in headers.items()]


def _header_value(name: str, value: str, sensitive: bool) -> str:
    if sensitive:
        return value
    if name.lower() in _SECRET_HEADERS:
        return _REDACTED
    return _redact_url(value) if name.lower() in _URL_HEADERS else value


def _redact_url(text: str) -> str:
    """*text* without the user, password and secret parameters of the URL that it is, or has in it."""
    return _SECRET_VALUE.sub(r"\1%5Bredacted%5D", _USER.sub(r"\1", text))


def _query(url: str) -> list[dict[str, str]]:
    query = url.partition("#")[0].partition("?")[2]
    return [{"name": name, "value": value} for name, value in parse_qsl(query, keep_blank_values=True)]


def _cookies(cookies: Iterable[str], sensitive: bool) -> list[dict[str, str]]:
    """Those that have a name, as they are written: one that is malformed takes none of the others with it."""
    pairs = [cookie.partition("=") for cookie in cookies]
    return [
        {"name": name.strip(), "value": value.strip() if sensitive else _REDACTED}
        for name, equals, value in pairs
        if equals
    ]


def _iso(date: datetime) -> str:
    return date.isoformat(timespec="microseconds")


def _milliseconds(seconds: float) -> float:
    return round(max(seconds, 0.0) * 1000, 3)
