"""A search for the mounted host whose spelling is closest to an unmounted host, for error messages."""

import difflib
from collections import Counter, defaultdict
from itertools import islice
from typing import Final

_COUNTED: Final = 2000  # hosts that share a piece with the searched host
_COMPARED: Final = 16  # hosts that are compared in full, which is much slower than counting shared pieces
_PIECE: Final = 3  # characters


class Spellings:
    """The mounted hosts, indexed by their pieces of three characters.

    A misspelled host shares most of its pieces with the intended host. A search begins with the pieces that the fewest
    hosts have, and ends after a fixed number of hosts. So its cost does not grow with the table.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, None] = {}
        self._hosts_with: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def add(self, host: str) -> None:
        self._hosts[host] = None
        for piece in _pieces(host):
            self._hosts_with[piece][host] = None

    def remove(self, host: str) -> None:
        """Remove a host that was added."""
        del self._hosts[host]
        for piece in _pieces(host):
            hosts = self._hosts_with[piece]
            del hosts[host]
            if not hosts:
                del self._hosts_with[piece]

    def closest_to(self, host: str) -> str | None:
        """Return the host most similar to *host*; `None` if no host is similar enough."""
        found = difflib.get_close_matches(host, self._candidates(host), n=1)
        return found[0] if found else None

    def _candidates(self, host: str) -> list[str]:
        """Return at most `_COMPARED` hosts. If there are more, return those that share the most pieces with *host*."""
        if len(self._hosts) <= _COMPARED:
            return list(self._hosts)
        shared: Counter[str] = Counter()
        left = _COUNTED
        for hosts in sorted((self._hosts_with.get(piece, {}) for piece in _pieces(host)), key=len):
            shared.update(islice(hosts, left))
            left = max(left - len(hosts), 0)
        return [candidate for candidate, _ in shared.most_common(_COMPARED)]


def _pieces(host: str) -> set[str]:
    marked = f"^{host}$"  # its beginning and its end distinguish a host from others
    return {marked[at : at + _PIECE] for at in range(len(marked) - _PIECE + 1)}
