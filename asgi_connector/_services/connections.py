"""The open connections of a connector, in the order in which they were opened, and by their host."""

from collections.abc import Iterator

from .patterns import Pattern, names_for
from .server_end import ServerEnd


class OpenConnections:
    """The server ends of the open connections. It may change while it is iterated over."""

    def __init__(self) -> None:
        # Dicts, not sets, here and elsewhere, so that the order does not depend on addresses in memory.
        self._all: dict[ServerEnd, None] = {}
        self._by_host: dict[str, dict[ServerEnd, None]] = {}

    def __iter__(self) -> Iterator[ServerEnd]:
        return iter(tuple(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: ServerEnd) -> None:
        self._all[connection] = None
        self._by_host.setdefault(_name_of(connection), {})[connection] = None

    def remove(self, connection: ServerEnd) -> None:
        del self._all[connection]
        name = _name_of(connection)
        del self._by_host[name][connection]
        if not self._by_host[name]:
            del self._by_host[name]

    def maybe_covered(self, pattern: Pattern) -> tuple[ServerEnd, ...]:
        """Return the connections whose hosts *pattern* may match. There may be others among them."""
        if pattern.host.startswith("*"):
            return tuple(self._all)
        return tuple(self._by_host.get(pattern.host, ()))


def _name_of(connection: ServerEnd) -> str:
    """The most specific host of a pattern that matches the connection."""
    return next(names_for(connection.address.host))
