"""What is mounted where: `Mount`, the host patterns and their precedence, and the table of both.

A pattern is ``[scheme://]host[:port]``, where host is a name, an IP literal (IPv6 in brackets), ``*.suffix`` or ``*``.
Patterns and lookups are normalised by the same function, so they can never disagree about a spelling.
A URL that consists of a scheme, a host, a port and a slash is a pattern too.
"""

import asyncio
import re
import socket
from collections.abc import Iterator, Mapping
from contextvars import Context, copy_context
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, get_args

from yarl import URL

from ._apps import check_app, close_coroutine
from ._callers import Caller
from ._hints import Spellings
from ._lifespan import Lifespans, Setting, check_setting
from ._types import ASGIApp


class _Inherit:
    """The type of `INHERIT`: "what the connector says"."""

    def __repr__(self) -> str:
        return "<as the connector>"

    def __reduce__(self) -> str:
        """A copy, also one that was pickled, is `INHERIT` itself: it is found by its name."""
        return "INHERIT"


INHERIT: Final = _Inherit()

ClientAddress = tuple[str, int] | None
InheritContext = Literal["outside", "always", "never"]


@dataclass(frozen=True, slots=True)
class Mount:
    """An app with its own settings, for the host -> app table of an `ASGIRoutingConnector`.

    Parameters:
        app: the ASGI 3 application, an ``async`` callable of ``(scope, receive, send)``.
        root_path: ``scope["root_path"]`` (`str`), see the ASGI spec, *HTTP connection scope*.
        client: ``scope["client"]``, a ``(host, port)`` pair, or `None` for "not known".
        raise_app_exceptions: whether an exception that the app does not handle is raised from the client's call
            (`True`), or becomes what a real server makes of it (`False`).
        lifespan: ``"auto"``, ``"on"`` or ``"off"``: whether the app is started and shut down, see
            `ASGIRoutingConnector`.
        inherit_context: ``"outside"``, ``"always"`` or ``"never"``: which calls run the app in a copy of the caller's
            `contextvars.Context`, see `ASGIRoutingConnector`.

    What is left out is as the connector says.

    Raises:
        TypeError: for what is no ASGI application, such as a class, a function that makes an app, a coroutine or a
            WSGI application, or for a setting of the wrong type.
        ValueError: for a ``root_path`` that does not start with a slash, or an unknown ``lifespan`` or
            ``inherit_context``.
    """

    app: ASGIApp
    _: KW_ONLY
    root_path: str | _Inherit = INHERIT
    client: ClientAddress | _Inherit = INHERIT
    raise_app_exceptions: bool | _Inherit = INHERIT
    lifespan: Setting | _Inherit = INHERIT
    inherit_context: InheritContext | _Inherit = INHERIT

    def __post_init__(self) -> None:
        check_app(self.app)
        if not isinstance(self.root_path, _Inherit):
            check_root_path(self.root_path)
        if not isinstance(self.client, _Inherit):
            check_client(self.client)
        if not isinstance(self.raise_app_exceptions, _Inherit):
            check_raise_app_exceptions(self.raise_app_exceptions)
        if not isinstance(self.lifespan, _Inherit):
            check_setting(self.lifespan)
        if not isinstance(self.inherit_context, _Inherit):
            check_inherit_context(self.inherit_context)


def check_root_path(root_path: str) -> None:
    if not isinstance(root_path, str):
        raise TypeError(f"root_path must be a str, not {root_path!r}")
    if root_path and not root_path.startswith("/"):
        raise ValueError(f"root_path must be empty or start with a slash, not {root_path!r}")


def check_client(client: ClientAddress) -> None:
    if client is None:
        return
    if not (isinstance(client, tuple) and [type(part) for part in client] == [str, int]):
        raise TypeError(f"client must be a (host, port) tuple of str and int, or None, not {client!r}")


def check_raise_app_exceptions(raise_app_exceptions: bool) -> None:
    if not isinstance(raise_app_exceptions, bool):
        raise TypeError(f"raise_app_exceptions must be a bool, not {raise_app_exceptions!r}")


def check_inherit_context(inherit_context: InheritContext) -> None:
    if inherit_context not in get_args(InheritContext):
        raise ValueError(f"inherit_context must be one of 'outside', 'always' and 'never', not {inherit_context!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountDefaults:
    """What a `Mount` inherits from its connector."""

    root_path: str
    client: ClientAddress
    raise_app_exceptions: bool
    lifespan: Setting
    inherit_context: InheritContext


class Pattern(NamedTuple):
    """A normalised host pattern; equal for every spelling of the same one."""

    host: str
    port: int | None
    secure: bool | None
    """Whether ``https`` and ``wss`` are meant (`True`), ``http`` and ``ws`` (`False`), or any scheme (`None`)."""

    def __str__(self) -> str:
        scheme = {None: "", False: "http://", True: "https://"}[self.secure]
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}{host}" if self.port is None else f"{scheme}{host}:{self.port}"


_PORT: Final = re.compile(
    "0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})", re.ASCII
)
_SCHEMES: Final[Mapping[str | None, bool | None]] = {
    None: None,
    "http": False,
    "ws": False,
    "https": True,
    "wss": True,
}
_PATTERN: Final = re.compile(
    r"(?: (?P<scheme>[^:/?\#@\[\]]*) :// )?"
    r"(?P<host> \[[^\[\]/?\#@]*\] | [^:/?\#@\[\]]* )"
    r"(?: : (?P<port>[^:/?\#@\[\]]*) )?"
    r"(?P<rest> .* )",
    re.VERBOSE | re.DOTALL,
)


def parse_pattern(pattern: str) -> Pattern:
    """Read and normalise a host pattern; `ValueError` names the pattern, says what is wrong, and what to write."""
    if not isinstance(pattern, str):
        raise TypeError(f"a host pattern must be a str, not {pattern!r}")
    match = _PATTERN.fullmatch(pattern)
    assert match is not None  # the last group takes whatever the others leave
    scheme, host, port, rest = match.group("scheme", "host", "port", "rest")
    if rest not in ("", "/"):
        raise ValueError(f"{pattern!r}: {_explain_rest(rest)}")
    if scheme is not None and scheme.lower() not in _SCHEMES:
        raise ValueError(f"{pattern!r}: the scheme must be one of http, https, ws and wss, not {scheme!r}")
    if port is not None and not _PORT.fullmatch(port):
        raise ValueError(f"{pattern!r}: the port must be a number from 1 to 65535, not {port!r}")
    return Pattern(
        _pattern_host(pattern, host),
        None if port is None else int(port),
        _SCHEMES[scheme and scheme.lower()],
    )


def _explain_rest(rest: str) -> str:
    if "@" in rest:
        return "a host pattern has no user or password"
    if rest.startswith("/"):
        return "a host pattern has no path; to serve an app below one, use root_path or the app's own mounts"
    if rest.startswith(("?", "#")):
        return "a host pattern has no query and no fragment"
    if rest.startswith(":"):
        return "an IPv6 address is written in brackets, as in '[::1]:8080'"
    return f"expected [scheme://]host[:port], and cannot read {rest!r}"


def _pattern_host(pattern: str, host: str) -> str:
    if not host or host == "[]":
        raise ValueError(f"{pattern!r}: the host is missing")
    if host == "*":
        return host
    wildcard, name = ("*.", host[2:]) if host.startswith("*.") else ("", host)
    if "*" in name:
        raise ValueError(f"{pattern!r}: a wildcard is '*' alone, or '*.' before a suffix, as in '*.internal'")
    in_brackets = name.startswith("[")
    if in_brackets and (wildcard or ":" not in name):
        raise ValueError(f"{pattern!r}: only an IPv6 address is written in brackets")
    try:
        normal = normalise_host(name[1:-1] if in_brackets else name)
    except ValueError as exc:
        raise ValueError(f"{pattern!r}: {host!r} is not a valid host name ({exc})") from exc
    if wildcard and _IPV4_LIKE.fullmatch(normal):
        raise ValueError(f"{pattern!r}: a wildcard stands before a name; an IP address has no subdomains")
    return wildcard + normal


@lru_cache(maxsize=4096)
def normalise_host(host: str) -> str:
    """*host* in lower case, in IDNA form, without a trailing dot, an IP address in its one normal form.

    The rules are those of `yarl.URL`, which has applied them to the host of most requests already. In addition each
    spelling of an address that leads a real client to the same machine is the same here: see `_normal_address`.
    """
    return _normal_address(_normal_name(host))


_IPV4_LIKE: Final = re.compile(r"(?:0x[0-9a-f]+|[0-9]+)(?:\.(?:0x[0-9a-f]+|[0-9]+)){0,3}", re.ASCII)


def _normal_address(name: str) -> str:
    """The one form of an IP address, and any other *name* as it is.

    ``127.1``, ``0x7f.1`` and ``2130706433`` are ``127.0.0.1`` to `socket.inet_aton`, to `socket.getaddrinfo`, and so to
    aiohttp. What they do not take for an address, such as ``256.1.1.1`` or ``1.2.3.4.5``, is a name. An IPv4 address
    that is mapped into IPv6 (RFC 4291, 2.5.5.2) is that IPv4 address. A zone follows ``%25`` (RFC 6874) or ``%``.
    """
    if ":" in name:
        written, percent, zone = name.partition("%")
        address = IPv6Address(written)
        if not percent:
            return str(address.ipv4_mapped or address)
        zone = zone.removeprefix("25")
        if not zone:  # which yarl before 1.25 lets through
            raise ValueError("the zone is missing")
        return f"{address}%25{zone}"
    if _IPV4_LIKE.fullmatch(name):
        try:
            return socket.inet_ntoa(socket.inet_aton(name))
        except OSError:
            pass
    return name


def _normal_name(host: str) -> str:
    name = host.removesuffix(".")
    normal = URL.build(scheme="http", host=name).raw_host if name else None
    if not normal or any(not label for label in normal.split(".")):
        raise ValueError("empty label")
    if normal != name:
        URL.build(scheme="http", host=normal)  # yarl before 1.25 lets through what becomes 'xn-- -xbb'
    return normal.lower()


class MountedApp:
    """A mount in use: its settings, with the connector's defaults filled in, and what is in flight on it."""

    __slots__ = (
        "_context",
        "_in_flight",
        "_unused",
        "app",
        "client",
        "inherit_context",
        "lifespan",
        "mount",
        "pattern",
        "raise_app_exceptions",
        "root_path",
        "table",
    )

    def __init__(self, pattern: str, mount: Mount, table: "MountTable", context: Context) -> None:
        defaults = table.defaults
        self.lifespan = table.lifespans.join(mount.app, table.setting_of(mount), pattern, context)
        self.pattern = pattern
        self.mount = mount
        self.table = table
        self.app = mount.app
        self.root_path: str = _or_default(mount.root_path, defaults.root_path)
        self.client: ClientAddress = _or_default(mount.client, defaults.client)
        self.raise_app_exceptions: bool = _or_default(mount.raise_app_exceptions, defaults.raise_app_exceptions)
        self.inherit_context: InheritContext = _or_default(mount.inherit_context, defaults.inherit_context)
        self._context = context
        self._in_flight: set[object] = set()
        self._unused: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.app!r} at {self.pattern!r}, {len(self._in_flight)} in flight>"

    def context_for(self, caller: Caller | None) -> Context:
        """The context in which the app answers the call that is being made: a copy of its own, or of the current one.

        *caller* is the app that makes the call, if it comes from inside of one.
        """
        if self.inherit_context == "always" or (self.inherit_context == "outside" and caller is None):
            return copy_context()
        return self._context.copy()

    def acquire(self, user: object) -> None:
        """*user*, a connection or a request, is in flight on this app until `release()`."""
        self._in_flight.add(user)

    def release(self, user: object) -> None:
        self._in_flight.discard(user)
        if self._unused is not None and not self._in_flight:
            self._unused.set()

    async def wait_until_unused(self) -> None:
        """Return when nothing is in flight any more; of use once nothing new can come."""
        while self._in_flight:
            if self._unused is None:
                self._unused = asyncio.Event()
            self._unused.clear()
            await self._unused.wait()


def _or_default(value: Any, default: Any) -> Any:
    return default if isinstance(value, _Inherit) else value


class _Layer:
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
        self._layers: dict[Pattern, list[_Layer]] = {}
        # What is seen, by host and then by port and scheme: the cost of a lookup does not depend on the number of
        # mounts, however they are spread over hosts and ports.
        self._seen: dict[str, dict[tuple[int | None, bool | None], MountedApp]] = {}
        self._spellings = Spellings()  # of the hosts in it
        # What recent lookups found: forgotten when anything changes, and when there are too many.
        self._found: dict[tuple[str, int | None, bool], MountedApp | None] = {}

    def setting_of(self, mount: Mount) -> Setting:
        setting: Setting = _or_default(mount.lifespan, self.defaults.lifespan)
        return setting

    def add_all(self, apps: Mapping[str, ASGIApp | Mount], context: Context) -> None:
        """Mount *apps*, or none of them if one cannot be mounted or two are for the same pattern."""
        if not isinstance(apps, Mapping):
            raise TypeError(f"apps must be a mapping of host patterns to ASGI apps, not {apps!r}")
        try:
            mounts = _parsed(apps)
        except (TypeError, ValueError):
            for app in apps.values():
                close_coroutine(app)  # there is an error already, and needs no warning for each
            raise
        for pattern, key, mount in mounts:
            self._put(pattern, key, mount, context)

    def mount(self, pattern: str, app: ASGIApp | Mount, context: Context) -> MountedApp | None:
        """Put *app* in the place of what is seen at *pattern*, which is returned."""
        return self._put(pattern, parse_pattern(pattern), as_mount(pattern, app), context)

    def _put(self, pattern: str, key: Pattern, mount: Mount, context: Context) -> MountedApp | None:
        mounted = MountedApp(pattern, mount, self, context)
        layers = self._layers.setdefault(key, [_Layer(pattern)])
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

    def push(self, pattern: str, app: ASGIApp | Mount, context: Context) -> tuple[_Layer, MountedApp]:
        """Cover what is seen at *pattern* with *app*, until `remove()`."""
        key = parse_pattern(pattern)
        layer = _Layer(pattern)
        layer.mounted = mounted = MountedApp(pattern, as_mount(pattern, app), self, context)
        self._layers.setdefault(key, [_Layer(pattern)]).append(layer)
        self._show(key)
        return layer, mounted

    def remove(self, layer: _Layer) -> MountedApp | None:
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

    def find(self, host: str, port: int | None, secure: bool) -> MountedApp | None:
        """The app that answers for an address: that of the most specific pattern which matches it."""
        address = (host, port, secure)
        try:
            return self._found[address]
        except KeyError:
            found = self._probe(host, port, secure)
            if len(self._found) >= _FOUND_KEPT:
                self._found.clear()
            self._found[address] = found
            return found

    def _probe(self, host: str, port: int | None, secure: bool) -> MountedApp | None:
        """Look an address up.

        The order of the probes *is* the precedence: the exact host, then each suffix from the longest to the shortest,
        then ``*``; for each of them, with port and scheme, with the port, with the scheme, with neither.
        """
        seen = self._seen
        for name in _names_for(host):
            if (at_host := seen.get(name)) is not None:
                for key in ((port, secure), (port, None), (None, secure), (None, None)):
                    if (mounted := at_host.get(key)) is not None:
                        return mounted
        return None

    def answers(self, pattern: Pattern) -> bool:
        """Whether an app is mounted for any of the addresses that *pattern* covers."""
        return any(_overlap(pattern, parse_pattern(mounted.pattern)) for mounted in self)

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


def covers(pattern: Pattern, host: str, port: int | None, secure: bool) -> bool:
    """Whether *pattern* matches an address."""
    if pattern.host not in _names_for(host):
        return False
    return pattern.port in (None, port) and pattern.secure in (None, secure)


def _overlap(one: Pattern, other: Pattern) -> bool:
    """Whether there may be an address that both match."""
    ports = one.port is None or other.port in (None, one.port)
    schemes = one.secure is None or other.secure in (None, one.secure)
    return ports and schemes and (_reaches(one.host, other.host) or _reaches(other.host, one.host))


def _reaches(wide: str, narrow: str) -> bool:
    return wide in ("*", narrow) or (wide.startswith("*.") and narrow.endswith(wide[1:]))


def _names_for(host: str) -> Iterator[str]:
    try:
        name = normalise_host(host)
    except ValueError:
        yield "*"  # no pattern can name this host, and it is below no suffix
        return
    yield name
    # The zone of an IPv6 address may have dots in it. An IPv4 address has some, but no pattern is for a part of it.
    while ":" not in name and (dot := name.find(".")) >= 0:
        name = name[dot + 1 :]
        yield "*." + name
    yield "*"


def as_mount(pattern: str, app: ASGIApp | Mount) -> Mount:
    """*app* with its settings; `TypeError`, which begins with the pattern, if it is no app."""
    if isinstance(app, Mount):
        return app
    try:
        return Mount(app)
    except TypeError as exc:
        raise TypeError(f"{pattern!r}: {exc}") from None


def _parsed(apps: Mapping[str, ASGIApp | Mount]) -> list[tuple[str, Pattern, Mount]]:
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
