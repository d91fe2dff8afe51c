"""The table of mounts: which app answers for an address, what is in flight on it, and what is mounted in its place."""

from collections.abc import Iterator, Mapping
from contextvars import Context
from itertools import islice
from typing import Final

from asgi_connector._types import App

from .address import Address
from .apps import close_coroutine, is_web_app
from .lifespans import Lifespans
from .mount import Mount, MountDefaults, as_mount
from .mounted import MountedApp
from .patterns import Pattern, names_for, overlap, parse_pattern
from .spellings import Spellings


class Layer:
    """One of the mounts that lie over one another at a pattern; only the topmost is seen."""

    __slots__ = ("mounted", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.mounted: MountedApp | None = None


class MountTable:
    """Host patterns and the apps mounted there.

    At each pattern there is a stack of layers: what was mounted for good, and above it one for each block that put
    something else in its place. A block may end in any order; each takes its own layer with it.
    """

    def __init__(self, defaults: MountDefaults, lifespans: Lifespans) -> None:
        self.defaults = defaults
        self.lifespans = lifespans
        self._layers: dict[Pattern, list[Layer]] = {}
        # What is seen, by host and then by port and scheme: the cost of a lookup does not depend on the number of
        # mounts, however they are spread over hosts and ports.
        self._seen: dict[str, dict[tuple[int | None, bool | None], MountedApp]] = {}
        self._spellings = Spellings()  # of the hosts in it
        # What recent lookups found: forgotten when anything changes, and when there are too many.
        self._found: dict[Address, MountedApp | None] = {}

    def add_all(self, apps: Mapping[str, App | Mount], context: Context) -> None:
        """Mount *apps*, or none of them if one cannot be mounted or two are for the same pattern."""
        if not isinstance(apps, Mapping) or is_web_app(apps):  # which is a mapping too
            raise TypeError(f"apps must be a mapping of host patterns to ASGI apps, not {apps!r}")
        try:
            mounts = _parsed(apps)
        except (TypeError, ValueError):
            for app in apps.values():
                close_coroutine(app)  # there is an error already, and needs no warning for each
            raise
        for pattern, key, mount in mounts:
            self._put(pattern, key, mount, context)

    def mount(self, pattern: str, app: App | Mount, context: Context) -> MountedApp | None:
        """Put *app* in the place of what is seen at *pattern*, which is returned."""
        return self._put(pattern, parse_pattern(pattern), as_mount(pattern, app), context)

    def _put(self, pattern: str, key: Pattern, mount: Mount, context: Context) -> MountedApp | None:
        mounted = MountedApp(pattern, mount, self.defaults, self.lifespans, context)
        layers = self._layers.setdefault(key, [Layer(pattern)])
        replaced = layers[-1].mounted
        layers[-1].pattern = pattern
        layers[-1].mounted = mounted
        self._show(key)
        return replaced

    def unmount(self, pattern: str) -> MountedApp:
        """Take away what is seen at *pattern*; `KeyError` if nothing is."""
        key = parse_pattern(pattern)
        layers = self._layers.get(key, [])
        if not layers or (mounted := layers[-1].mounted) is None:
            raise KeyError(pattern)
        layers[-1].mounted = None
        self._show(key)
        return mounted

    def push(self, pattern: str, app: App | Mount, context: Context) -> tuple[Layer, MountedApp]:
        """Cover what is seen at *pattern* with *app*, until `remove()`."""
        key = parse_pattern(pattern)
        layer = Layer(pattern)
        layer.mounted = mounted = MountedApp(pattern, as_mount(pattern, app), self.defaults, self.lifespans, context)
        self._layers.setdefault(key, [Layer(pattern)]).append(layer)
        self._show(key)
        return layer, mounted

    def remove(self, layer: Layer) -> MountedApp | None:
        """Take away one layer, topmost or not; returns what is mounted on it."""
        key = parse_pattern(layer.pattern)
        self._layers[key].remove(layer)
        self._show(key)
        return layer.mounted

    def _show(self, key: Pattern) -> None:
        self._found.clear()
        layers = self._layers[key]
        at_host = self._seen.get(key.host)
        mounted = layers[-1].mounted
        if mounted is not None:
            if at_host is None:
                self._seen[key.host] = at_host = {}
                self._spellings.add(key.host)
            at_host[key.port, key.secure] = mounted
            return
        if at_host is not None:
            at_host.pop((key.port, key.secure), None)
            if not at_host:
                del self._seen[key.host]
                self._spellings.remove(key.host)
        if len(layers) == 1:
            del self._layers[key]

    def seen_at(self, pattern: str) -> MountedApp | None:
        """What is mounted at exactly *pattern*, in whatever spelling."""
        key = parse_pattern(pattern)
        return self._seen.get(key.host, {}).get((key.port, key.secure))

    def find(self, address: Address) -> MountedApp | None:
        """The app that answers for *address*: that of the most specific pattern which matches it."""
        try:
            return self._found[address]
        except KeyError:
            found = self._probe(address)
            if len(self._found) >= _FOUND_KEPT:
                self._found.clear()
            self._found[address] = found
            return found

    def _probe(self, address: Address) -> MountedApp | None:
        """Look an address up.

        The order of the probes *is* the precedence: the exact host, then each suffix from the longest to the shortest,
        then ``*``; for each of them, with port and scheme, with the port, with the scheme, with neither.
        """
        seen, port, secure = self._seen, address.port, address.secure
        for name in names_for(address.host):
            if (at_host := seen.get(name)) is not None:
                for key in ((port, secure), (port, None), (None, secure), (None, None)):
                    if (mounted := at_host.get(key)) is not None:
                        return mounted
        return None

    def answers(self, pattern: Pattern) -> bool:
        """Whether an app is mounted for any of the addresses that *pattern* covers."""
        return any(overlap(pattern, parse_pattern(mounted.pattern)) for mounted in self)

    def __iter__(self) -> Iterator[MountedApp]:
        for at_host in self._seen.values():
            yield from at_host.values()

    def __len__(self) -> int:
        return sum(map(len, self._seen.values()))

    def describe(self, host: str) -> str:
        """For an error message: what is mounted, and which of it is spelled most like *host*."""
        number = len(self)
        if not number:
            return "Nothing is mounted."
        closest = self._spellings.closest_to(host)
        hint = "" if closest is None else f"Did you mean {next(iter(self._seen[closest].values())).pattern!r}? "
        shown = ", ".join(repr(mounted.pattern) for mounted in islice(self, _NAMES_SHOWN))
        more = f" and {number - _NAMES_SHOWN} more" if number > _NAMES_SHOWN else ""
        return f"{hint}Mounted: {shown}{more}."


_FOUND_KEPT: Final = 1024
_NAMES_SHOWN: Final = 5


def _parsed(apps: Mapping[str, App | Mount]) -> list[tuple[str, Pattern, Mount]]:
    """What is to be mounted where; raises for what cannot be, and for two patterns that are the same."""
    spellings: dict[Pattern, str] = {}
    mounts = [(pattern, parse_pattern(pattern), as_mount(pattern, app)) for pattern, app in apps.items()]
    for pattern, key, _ in mounts:
        if (other := spellings.setdefault(key, pattern)) != pattern:
            raise ValueError(f"{pattern!r}: the same pattern as {other!r}; both are {str(key)!r}")
    return mounts


class Mounts(Mapping[str, Mount]):
    """A read-only, live view of what is mounted: pattern, as it was written, to `Mount`.

    A pattern is found in any of its spellings.
    """

    def __init__(self, table: MountTable) -> None:
        self._table = table

    def __getitem__(self, pattern: str) -> Mount:
        try:
            mounted = self._table.seen_at(pattern)
        except (TypeError, ValueError):
            mounted = None
        if mounted is None:
            raise KeyError(pattern)
        return mounted.mount

    def __iter__(self) -> Iterator[str]:
        return iter([mounted.pattern for mounted in self._table])

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"
