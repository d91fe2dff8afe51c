"""`Selector`: one set of criteria that selects exchanges, for the journal's queries and for faults."""

import re
from collections.abc import Callable
from types import EllipsisType
from typing import Final, NamedTuple, cast
from urllib.parse import unquote

from yarl import URL

from asgi_connector._display import repr_of
from asgi_connector._exchange.exchange import Exchange
from asgi_connector._exchange.redaction import redact_url
from asgi_connector._numbers import is_int
from asgi_connector._services.address import Address
from asgi_connector._services.patterns import Pattern, covers, parse_pattern

Caller = str | None | EllipsisType
Path = str | re.Pattern[str] | None

_URL: Final = re.compile(r"(?P<scheme>(?:[^/?#]*://)?)(?P<authority>[^/?#]*)(?P<path>[^?#]*)")


class Call(NamedTuple):
    """The facts about an exchange that are known from its start."""

    address: Address
    caller: str | None
    method: str
    path: str


def call_of(exchange: Exchange) -> Call:
    address = Address(exchange.host, exchange.port, exchange.secure)
    return Call(address, exchange.caller, exchange.method, exchange.path)


class Selector:
    """Criteria for exchanges. Each may be left out. An invalid one raises `TypeError` or `ValueError`.

    Parameters:
        host: a host pattern, as in the table of mounts.
        caller: the pattern at which the calling app is mounted; `None` for a call from outside every app.
        method: the method of the request, in upper or lower case.
        path: the decoded path, without the query: a `str` that it equals, or an `re.Pattern` that matches all of it.
        status: the status of the response.
        where: a function that takes the exchange and returns whether it matches.
    """

    def __init__(
        self,
        host: str | None = None,
        *,
        caller: Caller = ...,
        method: str | None = None,
        path: Path = None,
        status: int | None = None,
        where: Callable[[Exchange], object] | None = None,
    ) -> None:
        self.host: Pattern | None = None if host is None else _parse_host(host)
        self._caller: Pattern | EllipsisType | None = parse_pattern(caller) if isinstance(caller, str) else caller
        self._method = method
        self._path = path
        self._status = status
        self._where = where
        if not (isinstance(caller, str) or caller is None or caller is ...):
            raise TypeError(f"caller must be a host pattern, None, or left out, not {caller!r}")
        if not (method is None or isinstance(method, str)):
            raise TypeError(f"method must be a str, not {method!r}")
        if not (path is None or isinstance(path, str) or (isinstance(path, re.Pattern) and _is_of_str(path))):
            raise TypeError(f"path must be a str or a compiled pattern of str, not {path!r}")
        if isinstance(path, str) and ("?" in path or not path.startswith("/")):
            raise ValueError(f"path must start with a slash and be without a query, not {path!r}")
        if not (status is None or is_int(status)):
            raise TypeError(f"status must be an int, not {status!r}")
        if not (where is None or callable(where)):
            raise TypeError(f"where must be a function of an Exchange, not {where!r}")

    def __str__(self) -> str:
        parts = [] if self.host is None else [repr(str(self.host))]
        if not isinstance(self._caller, EllipsisType):
            parts.append(f"caller={None if self._caller is None else str(self._caller)!r}")
        criteria = {"method": self._method, "path": self._path, "status": self._status, "where": self._where}
        parts += [f"{name}={repr_of(value)}" for name, value in criteria.items() if value is not None]
        return ", ".join(parts) or "anything"

    @property
    def any_call(self) -> bool:
        """Whether every call to the host matches: there is no criterion for the caller, the method or the path."""
        return self._caller is ... and self._method is None and self._path is None

    def matches(self, exchange: Exchange) -> bool:
        return not self.differences(exchange)

    def differences(self, exchange: Exchange) -> list[str]:
        """Return how *exchange* differs from the criteria; empty if it matches."""
        differences = self.differences_of_call(call_of(exchange))
        if self._status is not None and exchange.status != self._status:
            differences.append(f"status is {exchange.status}")
        if self._where is not None and not differences and not self._where(exchange):
            differences.append("where() says no")
        return differences

    def differences_of_call(self, call: Call) -> list[str]:
        """Return how *call* differs from the criteria, except ``status`` and ``where``."""
        differences: list[str] = []
        if self.host is not None and not covers(self.host, call.address):
            differences.append(f"host is {call.address.host!r}, port {call.address.port}")
        if not isinstance(self._caller, EllipsisType) and not self._is_caller(call.caller):
            differences.append(f"caller is {call.caller!r}")
        if self._method is not None and call.method != self._method.upper():
            differences.append(f"method is {call.method!r}")
        if self._path is not None and not self._is_path(call.path):
            differences.append(f"path is {redact_url(call.path)!r}")
        return differences

    def _is_caller(self, caller: str | None) -> bool:
        return (None if caller is None else parse_pattern(caller)) == self._caller

    def _is_path(self, path: str) -> bool:
        if isinstance(self._path, re.Pattern):
            return self._path.fullmatch(path) is not None
        return path == self._path


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
    path = unquote(match["path"])
    return f"host={host!r}, path={path!r}" if path else f"host={host!r}"


def _is_of_str(pattern: re.Pattern[str]) -> bool:
    return isinstance(pattern.pattern, str)
