"""Host patterns: how they are parsed and normalised, and which addresses they match.

A pattern is ``[scheme://]host[:port]``, where host is a name, an IP literal (IPv6 in brackets), ``*.suffix`` or ``*``.
A URL that consists of a scheme, a host, a port and a slash is a pattern too. One function normalises both patterns and
the hosts of requests, so all spellings of a host match.
"""

import re
import socket
from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final, NamedTuple

from yarl import URL

from .address import Address

_IPV4_LIKE: Final = re.compile(r"(?:0x[0-9a-f]+|[0-9]+)(?:\.(?:0x[0-9a-f]+|[0-9]+)){0,3}", re.ASCII)


class Pattern(NamedTuple):
    """A normalised host pattern. All spellings of a pattern are equal."""

    host: str
    port: int | None
    secure: bool | None
    """`True` for ``https`` and ``wss``, `False` for ``http`` and ``ws``, `None` for any scheme."""

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
    """Parse and normalise a host pattern. The `ValueError` names the pattern, the mistake, and what to write."""
    if not isinstance(pattern, str):
        raise TypeError(f"a host pattern must be a str, not {pattern!r}")
    match = _PATTERN.fullmatch(pattern)
    assert match is not None  # the last group matches any rest
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
    """Return *host* in lower case, in IDNA form, without a trailing dot, and an IP address in its normal form.

    The rules are those of `yarl.URL`, which has already applied them to the host of most requests. In addition, all
    spellings of an IP address that lead a real client to the same machine are equal. See `_normal_address()`.
    """
    return _normal_address(_normal_name(host))


def _normal_address(name: str) -> str:
    """Return the normal form of an IP address, and any other *name* unchanged.

    `socket.inet_aton`, `socket.getaddrinfo` and therefore aiohttp read ``127.1``, ``0x7f.1`` and ``2130706433`` as
    ``127.0.0.1``. A text that they do not accept as an address, such as ``256.1.1.1`` or ``1.2.3.4.5``, is a name. An
    IPv4 address mapped into IPv6 (RFC 4291, 2.5.5.2) is that IPv4 address. A zone follows ``%25`` (RFC 6874) or ``%``.
    """
    if ":" in name:
        written, percent, zone = name.partition("%")
        address = IPv6Address(written)
        if not percent:
            return str(address.ipv4_mapped or address)
        zone = zone.removeprefix("25")
        if not zone:  # yarl before 1.25 accepts it
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
        URL.build(scheme="http", host=normal)  # yarl before 1.25 accepts hosts that become 'xn-- -xbb'
    return normal.lower()


@lru_cache(maxsize=1024)  # each request asks, in the block of a fault
def covers(pattern: Pattern, address: Address) -> bool:
    """Whether *pattern* matches *address*."""
    if pattern.host not in names_for(address.host):
        return False
    return pattern.port in (None, address.port) and pattern.secure in (None, address.secure)


def overlap(one: Pattern, other: Pattern) -> bool:
    """Whether an address may exist that both patterns match."""
    ports = one.port is None or other.port in (None, one.port)
    schemes = one.secure is None or other.secure in (None, one.secure)
    return ports and schemes and (_reaches(one.host, other.host) or _reaches(other.host, one.host))


def _reaches(wide: str, narrow: str) -> bool:
    return wide in ("*", narrow) or (wide.startswith("*.") and narrow.endswith(wide[1:]))


def names_for(host: str) -> Iterator[str]:
    """Yield the host parts of all patterns that match *host*, the most specific first."""
    try:
        name = normalise_host(host)
    except ValueError:
        yield "*"  # no pattern can name this host, and no suffix covers it
        return
    yield name
    # The zone of an IPv6 address may contain dots. An IPv4 address does, but no pattern matches a part of it.
    while ":" not in name and (dot := name.find(".")) >= 0:
        name = name[dot + 1 :]
        yield "*." + name
    yield "*"
