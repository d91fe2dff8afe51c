"""`CallName`: a name for a call that means the same call in every run of a scenario."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final, Self

from asgi_connector._display import printable
from asgi_connector._exchange.exchange import Exchange
from asgi_connector._exchange.redaction import redact_url

RANDOM: Final = "*"
"""Stands for a part of a path that looks random."""
_LOOKS_RANDOM: Final = re.compile(
    r"(?<![0-9a-z])(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{16,})(?![0-9a-z])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class CallName:
    """The chain of callers, and which of the calls that look alike it is.

    Attributes:
        parent: the call during which this one was made; `None` if there is none, or none that was recorded.
        caller: the pattern at which the calling app is mounted; `None` for a call from outside every app.
        host: the host, with its port unless it is the default one.
        method: the method of the request.
        path: the decoded path. What looks random in it, a UUID or a hexadecimal number of 16 digits or more, is ``*``.
        number: its position, from 1, among the calls that have all other attributes in common.
        connector: the number, from 1, of its connector among those that the scenario has given to ``shake()``.
    """

    __module__ = "asgi_connector.faults"

    parent: Self | None
    caller: str | None
    host: str
    method: str
    path: str
    number: int = 1
    connector: int = 1

    def __str__(self) -> str:
        words = [f"{self.method} {self.host}{redact_url(self.path)}"]
        if self.number > 1:
            words.append(f"(number {self.number})")
        if self.connector > 1:
            words.append(f"(connector {self.connector})")
        if self.caller is not None:
            words.append(f"by {self.caller}")
        if self.parent is not None:
            words.append(f"in {self.parent}")
        return printable(" ".join(words))

    def is_before(self, other: "CallName") -> bool:
        """Whether *other* is a later call that differs in nothing but its number, such as another attempt."""
        return self.number < other.number and replace(self, number=other.number) == other


class Namer:
    """Gives each call of a run its name. Calls are named in the order in which they start."""

    def __init__(self) -> None:
        self._names: dict[Exchange, CallName] = {}
        self._alike = Counter[CallName]()

    def name(self, exchange: Exchange, connector: int) -> CallName:
        """Give *exchange*, a call on the connector of this number, its name."""
        host = exchange.address.authority
        parent = None if exchange.parent is None else self._names.get(exchange.parent)
        first = CallName(
            parent, exchange.caller, host, exchange.method, stable_path(exchange.path), connector=connector
        )
        self._alike[first] += 1
        name = replace(first, number=self._alike[first])
        self._names[exchange] = name
        return name

    def name_of(self, exchange: Exchange) -> CallName:
        """The name that *exchange* has."""
        return self._names[exchange]


def stable_path(path: str) -> str:
    """Return *path* with `RANDOM` for each part that looks random."""
    return _LOOKS_RANDOM.sub(RANDOM, path)
