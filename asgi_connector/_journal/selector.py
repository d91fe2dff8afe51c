"""`Selector`: one set of criteria that selects exchanges, for the journal's queries and for faults."""

import re
from collections.abc import Callable, Mapping
from json import loads
from types import EllipsisType
from typing import Any, Final, NamedTuple, TypedDict, cast
from urllib.parse import unquote

from typing_extensions import Unpack
from yarl import URL

from asgi_connector._display import repr_of
from asgi_connector._exchange.exchange import Exchange
from asgi_connector._exchange.json_values import dump_json
from asgi_connector._exchange.queries import QueryGiven, parse_query, query_difference, read_query, shown_query
from asgi_connector._exchange.redaction import redact_url
from asgi_connector._numbers import is_int
from asgi_connector._services.address import Address
from asgi_connector._services.patterns import Pattern, covers, parse_pattern

from .json_criterion import JsonCriterion
from .source import shown_function

Caller = str | None | EllipsisType
Path = str | re.Pattern[str] | None

_URL: Final = re.compile(r"(?P<scheme>(?:[^/?#]*://)?)(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?")


class Call(NamedTuple):
    """The facts about an exchange that are known from its start."""

    address: Address
    caller: str | None
    method: str
    path: str
    query: str


def call_of(exchange: Exchange) -> Call:
    return Call(exchange.address, exchange.caller, exchange.method, exchange.path, exchange.url.raw_query_string)


class Criteria(TypedDict, total=False):
    """The criteria that are keyword arguments; `Journal` says what each means."""

    caller: Caller
    method: str | None
    path: Path
    query: QueryGiven | None
    status: int | None
    json: Any
    json_contains: Mapping[str, Any] | None
    where: Callable[[Exchange], object] | None


class Selector:
    """Criteria for exchanges, as in `Journal`. An invalid one raises `TypeError` or `ValueError`."""

    def __init__(self, host: str | None = None, **criteria: Unpack[Criteria]) -> None:
        if unknown := criteria.keys() - Criteria.__annotations__.keys():
            names = ", ".join(["host", *Criteria.__annotations__])
            raise TypeError(f"there is no criterion {min(unknown)!r}; the criteria are {names}")
        self.host: Pattern | None = None if host is None else _parse_host(host)
        self._caller = _read_caller(criteria.get("caller", ...))
        self._method = _read_method(criteria.get("method"))
        self._path = _read_path(criteria.get("path"))
        query = criteria.get("query")
        self._query = None if query is None else read_query(query)
        self._status = _read_status(criteria.get("status"))
        self._json = _read_json(criteria.get("json", ...), criteria.get("json_contains"))
        self._where = _read_where(criteria.get("where"))

    def __str__(self) -> str:
        parts = [] if self.host is None else [repr(str(self.host))]
        if not isinstance(self._caller, EllipsisType):
            parts.append(f"caller={None if self._caller is None else str(self._caller)!r}")
        named = {"method": self._method, "path": self._path}
        parts += [f"{name}={repr_of(value)}" for name, value in named.items() if value is not None]
        if self._query is not None:
            parts.append(f"query={shown_query(self._query)}")
        if self._status is not None:
            parts.append(f"status={repr_of(self._status)}")
        if self._json is not None:
            parts.append(str(self._json))
        if self._where is not None:
            parts.append(f"where={shown_function(self._where)}")
        return ", ".join(parts) or "anything"

    @property
    def any_call(self) -> bool:
        """Whether every call to the host matches: there is no other criterion for what is known from its start."""
        return self._caller is ... and self._method is None and self._path is None and self._query is None

    def matches(self, exchange: Exchange) -> bool:
        """Whether *exchange* matches. Raises `RuntimeError` if that depends on a body that was not recorded."""
        if self._differences_but_for_body(exchange):
            return False
        if self._json is not None:
            self._json.check_recorded(exchange)
            if self._json.differences(exchange):
                return False
        return self._where is None or self._call_where(self._where, exchange)

    def differences(self, exchange: Exchange) -> list[str]:
        """Return how *exchange* differs from the criteria; empty if it matches."""
        differences = self._differences_but_for_body(exchange)
        if self._json is not None and (clause := self._json.clause(exchange)):
            differences.append(clause)
        if self._where is not None and not differences and not self._call_where(self._where, exchange):
            differences.append("where() says no")
        return differences

    def matches_call(self, call: Call) -> bool:
        """Whether *call* matches the criteria for what is known from its start."""
        return (
            self._is_host(call.address)
            and self._is_method(call.method)
            and self._is_path(call.path)
            and self._is_caller(call.caller)
            and self._is_query(call.query)
        )

    def differences_of_call(self, call: Call) -> list[str]:
        """Return how *call* differs from the criteria for what is known from its start."""
        differences: list[str] = []
        if not self._is_host(call.address):
            differences.append(f"host is {call.address.host!r}, port {call.address.port}")
        if not self._is_caller(call.caller):
            differences.append(f"caller is {call.caller!r}")
        if not self._is_method(call.method):
            differences.append(f"method is {call.method!r}")
        if not self._is_path(call.path):
            differences.append(f"path is {redact_url(call.path)!r}")
        if self._query is not None and not self._is_query(call.query):
            differences.append(query_difference(self._query, parse_query(call.query)))
        return differences

    def distance_of_body(self, exchange: Exchange) -> float:
        """Return in how many places the body differs; 0 if there is no criterion for it."""
        return 0 if self._json is None else self._json.distance(exchange)

    def diff_of_body(self, exchange: Exchange) -> list[str]:
        """Return the lines in which the body differs; none if there is no criterion for it."""
        return [] if self._json is None else self._json.diff(exchange)

    def _differences_but_for_body(self, exchange: Exchange) -> list[str]:
        differences = self.differences_of_call(call_of(exchange))
        if self._status is not None and exchange.status != self._status:
            differences.append(f"status is {exchange.status}")
        return differences

    def _call_where(self, where: Callable[[Exchange], object], exchange: Exchange) -> bool:
        try:
            return bool(where(exchange))
        except Exception as exc:
            exc.add_note(f"where() was called with {exchange!r}")
            raise

    def _is_host(self, address: Address) -> bool:
        return self.host is None or covers(self.host, address)

    def _is_caller(self, caller: str | None) -> bool:
        if isinstance(self._caller, EllipsisType):
            return True
        return (None if caller is None else parse_pattern(caller)) == self._caller

    def _is_method(self, method: str) -> bool:
        return self._method is None or self._method.upper() == method

    def _is_path(self, path: str) -> bool:
        if isinstance(self._path, re.Pattern):
            return self._path.fullmatch(path) is not None
        return self._path is None or self._path == path

    def _is_query(self, query: str) -> bool:
        return self._query is None or parse_query(query) == self._query


def _read_caller(caller: Caller) -> Pattern | EllipsisType | None:
    if isinstance(caller, str):
        return parse_pattern(caller)
    if not (caller is None or caller is ...):
        raise TypeError(f"caller must be a host pattern, None, or left out, not {caller!r}")
    return caller


def _read_method(method: str | None) -> str | None:
    if not (method is None or isinstance(method, str)):
        raise TypeError(f"method must be a str, not {method!r}")
    return method


def _read_path(path: Path) -> Path:
    if not (path is None or isinstance(path, str) or (isinstance(path, re.Pattern) and _is_of_str(path))):
        raise TypeError(f"path must be a str or a compiled pattern of str, not {path!r}")
    if isinstance(path, str) and ("?" in path or not path.startswith("/")):
        instead, _, query = path.partition("?")
        hint = f"; write path={instead!r}, query={query!r}" if query and instead.startswith("/") else ""
        raise ValueError(f"path must start with a slash and be without a query, not {path!r}{hint}")
    return path


def _read_status(status: int | None) -> int | None:
    if not (status is None or is_int(status)):
        raise TypeError(f"status must be an int, not {status!r}")
    return status


def _read_json(equal: object, contained: Mapping[str, Any] | None) -> JsonCriterion | None:
    """Read the two criteria for the body. What is given is copied, so that it may change later."""
    if contained is None:
        return None if equal is ... else JsonCriterion("json", loads(dump_json("json", equal)), subset=False)
    if equal is not ...:
        raise TypeError("write either json or json_contains, not both")
    if not isinstance(contained, Mapping):
        raise TypeError(f"json_contains must be a dict, not {contained!r}; write json= for any other JSON value")
    return JsonCriterion("json_contains", loads(dump_json("json_contains", dict(contained))), subset=True)


def _read_where(where: Callable[[Exchange], object] | None) -> Callable[[Exchange], object] | None:
    if not (where is None or callable(where)):
        raise TypeError(f"where must be a function of an Exchange, not {where!r}")
    return where


def _parse_host(host: object) -> Pattern:
    """Parse a host pattern. For a URL, the error says how to write its host and its path instead."""
    try:
        return parse_pattern(cast(str, host))  # it checks the type itself
    except (TypeError, ValueError) as exc:
        instead = _instead_of_url(str(host)) if isinstance(host, str | URL) else None
        if instead is None:
            raise
        problem = str(exc) if isinstance(host, URL) else f"{host!r}: a host pattern has no path, query or user"
        raise type(exc)(f"{problem}; write {instead}") from None


def _instead_of_url(url: str) -> str | None:
    """Return what to write instead of *url*; `None` if it has no host that is a valid pattern."""
    match = _URL.match(url)
    assert match is not None  # each part of the pattern may match nothing
    host = f"{match['scheme']}{match['authority'].rpartition('@')[2]}"
    try:
        parse_pattern(host)
    except ValueError:
        return None
    parts = {"host": host, "path": unquote(match["path"]), "query": match["query"]}
    return ", ".join(f"{name}={part!r}" for name, part in parts.items() if part)


def _is_of_str(pattern: re.Pattern[str]) -> bool:
    return isinstance(pattern.pattern, str)
