"""The table of mounts, which finds the app for an address, and mounts apps above others for a while."""

from collections.abc import Iterator, Mapping
from contextvars import Context
from itertools import islice
from typing import Final

from asgi_connector._types import App

from .address import Address
from .apps import close_coroutine, is_web_app
from .lifespan import Lifespan
from .lifespans import Lifespans
from .mount import Mount, MountDefaults, as_mount
from .mounted import MountedApp
from .patterns import Pattern, names_for, overlap, parse_pattern
from .spellings import Spellings


class Layer:
    """One layer in the stack of mounts at a pattern. Only the topmost layer is visible."""

    __slots__ = ("mounted", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.mounted: MountedApp | None = None


class MountTable:
    """Host patterns and the apps mounted there.

    Each pattern has a stack of layers: the app that was mounted permanently, and above it one layer for each block that
    replaces it for a while. Blocks may end in any order. Each removes its own layer.
    """

    def __init__(self, defaults: MountDefaults, lifespans: Lifespans) -> None:
        self.defaults = defaults
        self.lifespans = lifespans
        self._layers: dict[Pattern, list[Layer]] = {}
        # The visible mounts, by host and then by port and scheme. So the cost of a lookup does not depend on the number
        # of mounts, however they are spread over hosts and ports.
        self._visible: dict[str, dict[tuple[int | None, bool | None], MountedApp]] = {}
        self._spellings = Spellings()  # of the hosts with a visible mount
        # The results of recent lookups. They are cleared when a mount changes, and when there are too many.
        self._found: dict[Address, MountedApp | None] = {}

    def add_all(self, apps: Mapping[str, App | Mount], context: Context) -> None:
        """Mount all *apps*, or none of them if one cannot be mounted or two have the same pattern."""
        if not isinstance(apps, Mapping) or is_web_app(apps):  # an `aiohttp.web.Application` is a mapping too
            raise TypeError(f"apps must be a mapping of host patterns to ASGI apps, not {apps!r}")
        try:
            mounts = _parsed(apps)
        except (TypeError, ValueError):
            for app in apps.values():
                close_coroutine(app)  # the error is enough, without a warning for each
            raise
        for pattern, key, mount in mounts:
            self._put(pattern, key, mount, context)

    def mount(self, pattern: str, app: App | Mount, context: Context) -> MountedApp | None:
        """Replace the visible app at *pattern* by *app*. Returns the replaced app, if there was one."""
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
        """Remove the visible app at *pattern*. Raises `KeyError` if there is none."""
        key = parse_pattern(pattern)
        layers = self._layers.get(key, [])
        if not layers or (mounted := layers[-1].mounted) is None:
            raise KeyError(pattern)
        layers[-1].mounted = None
        self._show(key)
        return mounted

    def push(self, pattern: str, app: App | Mount, context: Context) -> tuple[Layer, MountedApp]:
        """Put a layer with *app* on top at *pattern*, until `remove()`."""
        key = parse_pattern(pattern)
        layer = Layer(pattern)
        layer.mounted = mounted = MountedApp(pattern, as_mount(pattern, app), self.defaults, self.lifespans, context)
        self._layers.setdefault(key, [Layer(pattern)]).append(layer)
        self._show(key)
        return layer, mounted

    def remove(self, layer: Layer) -> MountedApp | None:
        """Remove one layer, topmost or not. Returns the app that is mounted on it, if any."""
        key = parse_pattern(layer.pattern)
        self._layers[key].remove(layer)
        self._show(key)
        return layer.mounted

    def renew(self, lifespan: Lifespan) -> list[MountedApp]:
        """Mount the app of *lifespan* anew wherever it is mounted, visible or not. Returns the replaced mounts."""
        replaced: list[MountedApp] = []
        for key, layers in self._layers.items():
            for layer in layers:
                if layer.mounted is not None and layer.mounted.lifespan is lifespan:
                    replaced.append(layer.mounted)
                    layer.mounted = layer.mounted.anew(self.defaults, self.lifespans)
            self._show(key)
        return replaced

    def _show(self, key: Pattern) -> None:
        self._found.clear()
        layers = self._layers[key]
        at_host = self._visible.get(key.host)
        mounted = layers[-1].mounted
        if mounted is not None:
            if at_host is None:
                self._visible[key.host] = at_host = {}
                self._spellings.add(key.host)
            at_host[key.port, key.secure] = mounted
            return
        if at_host is not None:
            at_host.pop((key.port, key.secure), None)
            if not at_host:
                del self._visible[key.host]
                self._spellings.remove(key.host)
        if len(layers) == 1:
            del self._layers[key]

    def visible_at(self, pattern: str) -> MountedApp | None:
        """Return the visible app at exactly *pattern*, in any spelling."""
        key = parse_pattern(pattern)
        return self._visible.get(key.host, {}).get((key.port, key.secure))

    def find(self, address: Address) -> MountedApp | None:
        """Return the app for *address*: the one with the most specific pattern that matches it."""
        try:
            return self._found[address]
        except KeyError:
            found = self._probe(address)
            if len(self._found) >= _FOUND_KEPT:
                self._found.clear()
            self._found[address] = found
            return found

    def _probe(self, address: Address) -> MountedApp | None:
        """Look an address up without the cache.

        The order of the lookups *is* the precedence: the exact host, then each suffix from the longest to the shortest,
        then ``*``. For each of them: with port and scheme, with the port only, with the scheme only, with neither.
        """
        visible, port, secure = self._visible, address.port, address.secure
        for name in names_for(address.host):
            if (at_host := visible.get(name)) is not None:
                for key in ((port, secure), (port, None), (None, secure), (None, None)):
                    if (mounted := at_host.get(key)) is not None:
                        return mounted
        return None

    def answers(self, pattern: Pattern) -> bool:
        """Whether an app is mounted for any address that *pattern* matches."""
        return any(overlap(pattern, parse_pattern(mounted.pattern)) for mounted in self)

    def __iter__(self) -> Iterator[MountedApp]:
        for at_host in self._visible.values():
            yield from at_host.values()

    def __len__(self) -> int:
        return sum(map(len, self._visible.values()))

    def describe(self, host: str) -> str:
        """Return a text for error messages: the mounted patterns, and the one spelled most like *host*."""
        number = len(self)
        if not number:
            return "Nothing is mounted."
        closest = self._spellings.closest_to(host)
        hint = "" if closest is None else f"Did you mean {next(iter(self._visible[closest].values())).pattern!r}? "
        shown = ", ".join(repr(mounted.pattern) for mounted in islice(self, _NAMES_SHOWN))
        more = f" and {number - _NAMES_SHOWN} more" if number > _NAMES_SHOWN else ""
        return f"{hint}Mounted: {shown}{more}."


_FOUND_KEPT: Final = 1024
_NAMES_SHOWN: Final = 5


def _parsed(apps: Mapping[str, App | Mount]) -> list[tuple[str, Pattern, Mount]]:
    """Parse *apps*. Raises for an app or a pattern that is not valid, and for two patterns that are the same."""
    spellings: dict[Pattern, str] = {}
    mounts = [(pattern, parse_pattern(pattern), as_mount(pattern, app)) for pattern, app in apps.items()]
    for pattern, key, _ in mounts:
        if (other := spellings.setdefault(key, pattern)) != pattern:
            raise ValueError(f"{pattern!r}: the same pattern as {other!r}; both are {str(key)!r}")
    return mounts


class Mounts(Mapping[str, Mount]):
    """A read-only, live mapping of the visible patterns, as they were written, to `Mount`.

    A pattern is found by any of its spellings.
    """

    def __init__(self, table: MountTable) -> None:
        self._table = table

    def __getitem__(self, pattern: str) -> Mount:
        try:
            mounted = self._table.visible_at(pattern)
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
