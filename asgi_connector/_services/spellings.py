"""The mounted host that is spelled most like one that is not mounted, for error messages."""

import difflib
from collections import Counter, defaultdict
from itertools import islice
from typing import Final

_COUNTED: Final = 2000  # hosts that share a piece with the one that is asked for
_COMPARED: Final = 16  # hosts that are compared in full, which takes far longer than counting one
_PIECE: Final = 3  # characters


class Spellings:
    """The mounted hosts, by the pieces of three characters that they consist of.

    A host that is misspelled shares most of its pieces with the one that is meant. A search begins with the pieces that
    the fewest hosts have, and ends after a fixed number of hosts, so its cost does not grow with the table.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, None] = {}
        self._hosts_with: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def add(self, host: str) -> None:
        self._hosts[host] = None
        for piece in _pieces(host):
            self._hosts_with[piece][host] = None

    def remove(self, host: str) -> None:
        """Take away a host that has been added."""
        del self._hosts[host]
        for piece in _pieces(host):
            hosts = self._hosts_with[piece]
            del hosts[host]
            if not hosts:
                del self._hosts_with[piece]

    def closest_to(self, host: str) -> str | None:
        """The host that is most like *host*; `None` if none is much like it."""
        found = difflib.get_close_matches(host, self._candidates(host), n=1)
        return found[0] if found else None

    def _candidates(self, host: str) -> list[str]:
        """At most `_COMPARED` hosts: where there are more, those that share the most pieces with *host*."""
        if len(self._hosts) <= _COMPARED:
            return list(self._hosts)
        shared: Counter[str] = Counter()
        left = _COUNTED
        for hosts in sorted((self._hosts_with.get(piece, {}) for piece in _pieces(host)), key=len):
            shared.update(islice(hosts, left))
            left = max(left - len(hosts), 0)
        return [candidate for candidate, _ in shared.most_common(_COMPARED)]


def _pieces(host: str) -> set[str]:
    marked = f"^{host}$"  # what a host begins and ends with tells it from others
    return {marked[at : at + _PIECE] for at in range(len(marked) - _PIECE + 1)}
