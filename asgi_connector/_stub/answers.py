"""An answer of a stub: which requests it is for, and the response."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, cast
from urllib.parse import unquote, urlsplit

from yarl import URL

from asgi_connector._exchange.bodies import read_json
from asgi_connector._exchange.json_values import differences, dump_json, shown_json
from asgi_connector._exchange.queries import Query, QueryGiven, query_difference, read_query, shown_query
from asgi_connector._exchange.redaction import redact_url
from asgi_connector._injection.faults import Respond

from .asked import Asked

Path = str | re.Pattern[str]

_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 9.1
_PERCENT_ENCODED: Final = re.compile("%[0-9A-Fa-f]{2}")
_DIFFERENCES_SHOWN: Final = 5  # of two JSON values


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a request must have. Answers with the same criteria are given one after another.

    Parameters:
        method: in upper case.
        path: decoded: a `str` that it equals, or a pattern that matches it whole.
        query: `None` if any query will do.
        request_json: JSON text that the body is equal to, as a value; `None` if any body will do.
    """

    method: str
    path: Path
    query: Query | None
    request_json: str | None

    def __str__(self) -> str:
        path = self.path if isinstance(self.path, str) else self.path.pattern
        shown = [f"{self.method} {_shown_path(path)}"]
        if isinstance(self.path, re.Pattern):
            shown = [f"{self.method} re.compile({_shown_path(path)})"]
        if self.query is not None:
            shown.append(f"query={shown_query(self.query)}")
        if self.request_json is not None:
            shown.append(f"request_json={shown_json(json.loads(self.request_json))}")
        return ", ".join(shown)

    def is_path(self, path: str) -> bool:
        if isinstance(self.path, str):
            return path == self.path
        return self.path.fullmatch(path) is not None

    def differences(self, asked: Asked) -> list[str]:
        """What there is of a request that is not asked for here; empty if it matches."""
        found: list[str] = []
        if asked.method != self.method:
            found.append(f"method is {asked.method!r}")
        if not self.is_path(asked.path):
            found.append(f"path is {_shown_path(asked.path)}")
        if self.query is not None and asked.query != self.query:
            found.append(query_difference(self.query, asked.query))
        if self.request_json is not None:
            found += self._differences_in_body(asked, json.loads(self.request_json))
        return found

    def _differences_in_body(self, asked: Asked, expected: object) -> Iterator[str]:
        try:
            actual = read_json(asked.body, asked.content_type)
        except ValueError as exc:
            yield f"body {exc}"
            return
        found = differences(expected, actual)
        yield from (f"body: {each}" for each in islice(found, _DIFFERENCES_SHOWN))
        if more := sum(1 for _ in found):
            yield f"body: {more} more"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and the requests that it is for.

    Parameters:
        times: how many requests it answers; `None`: the last answer with its criteria stays, and another is for one.
    """

    criteria: Criteria
    response: Respond
    times: int | None

    def __str__(self) -> str:
        return str(self.criteria) if self.times is None else f"{self.criteria}, times={self.times}"


def read_criteria(method: str, path: Path, query: QueryGiven | None, request_json: object) -> Criteria:
    """Check what a user gives, and say what to write if it cannot be meant so. *request_json* is `...` if left out."""
    return Criteria(
        method=_read_method(method),
        path=_read_path(path),
        query=None if query is None else read_query(query),
        request_json=None if request_json is ... else dump_json("request_json", request_json),
    )


def read_response(
    status: int,
    headers: Mapping[str, str] | Sequence[tuple[str | bytes, str | bytes]],
    json: object,
    text: str | None,
    body: bytes | None,
) -> Respond:
    """Check a response and encode its body. *json* is `...` if left out; no body at all is an empty one."""
    given = {"json": json is not ..., "text": text is not None, "body": body is not None}
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise TypeError(f"a response has one body: write one of {', '.join(names)}")
    if text is not None:
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {text!r}; write json= for a JSON value, or body= for bytes")
        content, kind = text.encode(), b"text/plain; charset=utf-8"
    elif body is not None:
        if not isinstance(body, bytes):
            raise TypeError(f"body must be bytes, not {body!r}; write text= for a str, or json= for a JSON value")
        content, kind = body, b"application/octet-stream"
    elif json is not ...:
        content, kind = dump_json("json", json).encode(), b"application/json"
    else:
        return Respond(status, headers)
    response = Respond(status, headers, content)
    if any(name.lower() == b"content-type" for name, _ in response.raw_headers):
        return response
    return Respond(status, [*response.raw_headers, (b"content-type", kind)], content)


def _read_method(method: object) -> str:
    if not isinstance(method, str):
        raise TypeError(f"method must be a str, not {method!r}")
    if not _METHOD.fullmatch(method):
        raise ValueError(f"method must be one word, such as 'PROPFIND', not {method!r}")
    return method.upper()


def _read_path(path: Path) -> Path:
    if isinstance(path, re.Pattern) and _is_of_str(path):
        return path
    if not isinstance(path, str):
        instead = _path_of_url(str(path)) if isinstance(cast(object, path), URL) else ""
        raise TypeError(f"path must be a str or a compiled pattern of str, not {path!r}{instead}")
    if not path.startswith("/"):
        instead = _path_of_url(path) if "://" in path else f"; write {f'/{path}'!r}"
        raise ValueError(f"path must start with a slash, but is {path!r}{instead}")
    for sign, name in (("?", "a query"), ("#", "a fragment")):
        if sign in path:
            raise ValueError(f"path must be without {name}, but is {path!r}{_path_of_url(path)}")
    if _PERCENT_ENCODED.search(path):
        raise ValueError(f"path is compared decoded, but {path!r} is percent-encoded; write {unquote(path)!r}")
    return path


def _is_of_str(pattern: re.Pattern[str]) -> bool:
    return isinstance(pattern.pattern, str)


def _path_of_url(url: str) -> str:
    """What to write for a URL; the host is where the stub is mounted."""
    split = urlsplit(url)
    query = f", query={split.query!r}" if split.query else ""
    return f"; write {unquote(split.path) or '/'!r}{query}"


def _shown_path(path: str) -> str:
    return repr(redact_url(path))
