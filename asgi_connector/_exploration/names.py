"""`CallName`: a name for a call that means the same call in every run of a scenario."""

import re
from collections import Counter
from typing import Final, NamedTuple

from asgi_connector._display import printable
from asgi_connector._exchange.exchange import Exchange
from asgi_connector._exchange.redaction import redact_url
from asgi_connector._services.address import Address

RANDOM: Final = "*"
"""Stands for a segment of a path that looks random."""
_LOOKS_RANDOM: Final = re.compile(
    r"(?<=/)(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{16,})(?=/|$)", re.IGNORECASE
)


class CallName(NamedTuple):
    """The chain of callers, and which of the calls that look alike it is.

    Attributes:
        parent: the call during which this one was made; `None` if there is none, or none that was recorded.
        caller: the pattern at which the calling app is mounted; `None` for a call from outside every app.
        host: the host, with its port unless it is the default one.
        method: the method of the request.
        path: the decoded path. A segment that looks random, a UUID or a long hexadecimal number, is written ``*``.
        number: its position, from 1, among the calls of the same parent, caller, host, method and path.
    """

    parent: "CallName | None"
    caller: str | None
    host: str
    method: str
    path: str
    number: int

    def __str__(self) -> str:
        words = [f"{self.method} {self.host}{redact_url(self.path)}"]
        if self.number > 1:
            words.append(f"(number {self.number})")
        if self.caller is not None:
            words.append(f"by {self.caller}")
        if self.parent is not None:
            words.append(f"in {self.parent}")
        return printable(" ".join(words))

    def alike(self, other: "CallName") -> bool:
        """Whether *other* differs in nothing but its number."""
        return self._replace(number=other.number) == other


class Namer:
    """Gives each call of a run its name. Calls are named in the order in which they start."""

    def __init__(self) -> None:
        self._names: dict[Exchange, CallName] = {}
        self._alike = Counter[CallName]()

    def name(self, exchange: Exchange) -> CallName:
        """The name of *exchange*, which is a new one if it has none yet."""
        if exchange in self._names:
            return self._names[exchange]
        host = Address(exchange.host, exchange.port, exchange.secure).authority
        parent = None if exchange.parent is None else self._names.get(exchange.parent)
        first = CallName(parent, exchange.caller, host, exchange.method, stable_path(exchange.path), 1)
        self._alike[first] += 1
        name = first._replace(number=self._alike[first])
        self._names[exchange] = name
        return name


def stable_path(path: str) -> str:
    """Return *path* with `RANDOM` for each segment that looks random."""
    return _LOOKS_RANDOM.sub(RANDOM, path)
