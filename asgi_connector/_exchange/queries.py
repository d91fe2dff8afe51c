"""Queries of URLs: reading what a user gives, and comparing without regard to the order. Pure functions."""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlencode

from yarl import URL

from .redaction import redact_url

Query = tuple[tuple[str, str], ...]
"""The names and values of a query, decoded. They are sorted, because their order does not matter."""

QueryValue = str | int | float
QueryGiven = str | Mapping[str, QueryValue | Sequence[QueryValue]]
"""A whole query as a user writes it: as in a URL, or a mapping such as aiohttp's ``params``."""


def parse_query(query: str) -> Query:
    """Decode a query string. A name without a value has an empty one."""
    return tuple(sorted(parse_qsl(query, keep_blank_values=True, errors="replace")))


def read_query(query: QueryGiven) -> Query:
    """Check what a user gives. Raises `TypeError` or `ValueError`, which says what to write."""
    if isinstance(query, str):
        if query.startswith("?"):
            raise ValueError(f"query must be without the question mark, but is {query!r}; write {query[1:]!r}")
        return parse_query(query)
    if not isinstance(query, Mapping):
        raise TypeError(f"query must be a str or a mapping, not {query!r}")
    try:
        # aiohttp's `params` are encoded by the same function.
        url = URL("/").with_query(query)
    except (TypeError, ValueError) as exc:
        raise type(exc)(f"query must be such as aiohttp takes for params: {exc}") from None
    return parse_query(url.raw_query_string)


def query_difference(expected: Query, actual: Query) -> str:
    """Say what *actual* is instead of *expected*."""
    shown = shown_query(actual)
    return f"query is {shown}" if shown != shown_query(expected) else f"query is {shown}, with another secret"


def shown_query(query: Query) -> str:
    """A query to show, without the values of secrets."""
    return repr(redact_url(urlencode(query)))
