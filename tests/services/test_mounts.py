"""Host patterns, their precedence, and the table of mounts, without any connection."""

import asyncio
import contextvars
import copy
import dataclasses
import ipaddress
import pickle
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from asgi_connector import ASGIRoutingConnector, Mount
from asgi_connector._services.address import Address
from asgi_connector._services.lifespans import Lifespans
from asgi_connector._services.mount import MountDefaults
from asgi_connector._services.patterns import _normal_address, parse_pattern
from asgi_connector._services.table import MountTable
from asgi_connector._types import ASGIApp, Scope
from tests.support.effort import examples
from tests.support.programs import run_python

DEFAULTS = MountDefaults(
    root_path="", client=None, raise_app_exceptions=True, lifespan="off", inherit_context="outside"
)
CONTEXT = contextvars.Context()


def new_table(defaults: MountDefaults = DEFAULTS) -> MountTable:
    """A table alone. No lifespan in it is ever started, so the loop is not used."""
    loop = asyncio.new_event_loop()
    loop.close()
    return MountTable(defaults, Lifespans(loop, 0))


async def app(scope: Scope, receive: object, send: object) -> None:
    """An app that is mounted, and never called."""


def new_app() -> ASGIApp:
    """An app that is not equal to any other."""

    async def another(scope: Scope, receive: object, send: object) -> None: ...

    return another


def table_of(*patterns: str) -> tuple[MountTable, dict[str, ASGIApp]]:
    apps = {pattern: new_app() for pattern in patterns}
    table = new_table()
    table.add_all(apps, CONTEXT)
    return table, apps


def found(table: MountTable, url: str) -> ASGIApp | None:
    """The app that answers *url*, looked up as for a request."""
    parsed = URL(url)
    assert parsed.raw_host is not None
    mounted = table.find(Address(parsed.raw_host or "", parsed.port, parsed.scheme in {"https", "wss"}))
    return None if mounted is None else mounted.app


# Parsing patterns.


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "host is missing"),
        (":80", "host is missing"),
        ("http://", "host is missing"),
        ("http://:80", "host is missing"),
        ("/", "host is missing"),
        ("http:///", "host is missing"),
        ("[]", "host is missing"),
        ("[]:80", "host is missing"),
        ("users.internal//", "no path"),
        ("users.internal/?", "no path"),
        ("users.internal/v1", "no path"),
        ("users.internal:80/v1", "no path"),
        ("https://users.internal/v1", "no path"),
        ("http:///users.internal", "no path"),
        ("//users.internal", "no path"),
        ("*/v1", "no path"),
        ("users.internal?a=1", "no query"),
        ("users.internal:80?", "no query"),
        ("users.internal#a", "no fragment"),
        ("*?a", "no query"),
        ("me@users.internal", "no user"),
        ("me:secret@users.internal", "no user"),
        ("http://me:secret@users.internal:80", "no user"),
        ("ftp://users.internal", "scheme"),
        ("://users.internal", "scheme"),
        ("http+unix://users.internal", "scheme"),
        (" http://users.internal", "scheme"),
        ("users.internal:", "port"),
        ("users.internal:0", "port"),
        ("users.internal:00", "port"),
        ("users.internal:65536", "port"),
        ("users.internal:-1", "port"),
        ("users.internal:+80", "port"),
        ("users.internal:8_0", "port"),
        ("users.internal: 80", "port"),
        ("users.internal:80 ", "port"),
        ("users.internal:http", "port"),
        ("users.internal:*", "port"),
        ("users.internal:٨٠", "port"),
        ("users.internal:²", "port"),
        ("http:users.internal", "port"),
        ("*:0", "port"),
        ("[::1]:", "port"),
        ("[::1]:70000", "port"),
        pytest.param("users.internal:" + "9" * 5000, "port", id="a port of 5000 digits"),
        ("::1", "brackets"),
        ("fe80::1:8080", "brackets"),
        ("users.internal:80:80", "brackets"),
        ("[::1", "cannot read"),
        ("::1]", "brackets"),
        ("[::1]x", "cannot read"),
        ("[[::1]]", "cannot read"),
        ("[users.internal]", "brackets"),
        ("[127.0.0.1]", "brackets"),
        ("[*]", "wildcard"),
        ("*.1", "no subdomains"),
        ("*.0.0.1", "no subdomains"),
        ("*.127.0.0.1", "no subdomains"),
        ("*.0x7f.1:80", "no subdomains"),
        ("[fe80::1%]", "not a valid host"),
        ("[1:2]", "not a valid host"),
        ("[::1::2]", "not a valid host"),
        ("[::g]", "not a valid host"),
        ("*.[::1]", "cannot read"),
        ("*.", "not a valid host"),
        ("*..", "not a valid host"),
        ("*..internal", "not a valid host"),
        ("*internal", "wildcard"),
        ("*users.internal", "wildcard"),
        ("users.*", "wildcard"),
        ("users.*.internal", "wildcard"),
        ("*.*", "wildcard"),
        ("*.*.internal", "wildcard"),
        ("**", "wildcard"),
        ("**.internal", "wildcard"),
        ("u*.internal", "wildcard"),
        (".", "not a valid host"),
        (".internal", "not a valid host"),
        ("users..internal", "not a valid host"),
        ("users.internal..", "not a valid host"),
        ("users internal", "not a valid host"),
        (" users.internal", "not a valid host"),
        ("users.internal ", "not a valid host"),
        ("users.internal\n", "not a valid host"),
        ("users\x00.internal", "not a valid host"),
        ("users\\internal", "not a valid host"),
        ("<users>", "not a valid host"),
        ("\ud800.internal", "not a valid host"),
        pytest.param("é" * 70 + ".internal", "not a valid host", id="a label that is too long in IDNA form"),
    ],
)
def test_a_bad_pattern_is_a_value_error_that_begins_with_the_pattern(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse_pattern(pattern)
    assert str(caught.value).startswith(f"{pattern!r}: ")
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("pattern", [None, 80, b"users.internal", ("users.internal", 80), URL("http://users.internal")])
def test_a_pattern_that_is_no_str_is_a_type_error_that_names_it(pattern: Any) -> None:
    with pytest.raises(TypeError) as caught:
        parse_pattern(pattern)
    assert repr(pattern) in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "normal"),
    [
        ("users.internal", "users.internal"),
        ("USERS.Internal", "users.internal"),
        ("users.internal.", "users.internal"),
        ("users.internal.:80", "users.internal:80"),
        ("localhost", "localhost"),
        ("my_service", "my_service"),
        ("a-b.c-d", "a-b.c-d"),
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4:8080", "1.2.3.4:8080"),
        ("[::1]", "[::1]"),
        ("[0:0:0:0:0:0:0:1]", "[::1]"),
        ("[2001:DB8:0:0::0A]:8080", "[2001:db8::a]:8080"),
        ("wss://[::1]:443", "https://[::1]:443"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("*.Internal.", "*.internal"),
        ("*.internal:80", "*.internal:80"),
        ("https://*.internal", "https://*.internal"),
        ("*", "*"),
        ("*:80", "*:80"),
        ("ws://*", "http://*"),
        ("http://users.internal", "http://users.internal"),
        ("ws://users.internal", "http://users.internal"),
        ("https://users.internal", "https://users.internal"),
        ("wss://users.internal", "https://users.internal"),
        ("HTTPS://users.internal", "https://users.internal"),
        ("users.internal:65535", "users.internal:65535"),
        ("users.internal:080", "users.internal:80"),
        ("http://users.internal:80", "http://users.internal:80"),
        ("https://users.internal:443", "https://users.internal:443"),
        ("users.internal/", "users.internal"),
        ("http://users.internal/", "http://users.internal"),
        ("wss://users.internal:8080/", "https://users.internal:8080"),
        ("[::1]/", "[::1]"),
        ("*.internal/", "*.internal"),
        ("*/", "*"),
        ("127.1", "127.0.0.1"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
        ("[fe80::1%eth0]", "[fe80::1%25eth0]"),
        ("*.1.2.3.4.5", "*.1.2.3.4.5"),
    ],
)
def test_a_pattern_has_one_normal_form(pattern: str, normal: str) -> None:
    assert str(parse_pattern(pattern)) == normal
    assert parse_pattern(normal) == parse_pattern(pattern)


PATTERN_LIKE = st.one_of(
    st.text(),
    st.text(alphabet="aA.*:/[]@?#18é%-_ "),
    st.from_regex(r"((http|ws|https)://)?(\*\.)?[\w.\-]{0,12}(:[0-9]{0,6})?", fullmatch=True),
    st.builds("[{}]:{}".format, st.ip_addresses(v=6), st.integers(-1, 70000)),
)


@given(PATTERN_LIKE)
@example("[::1%25eth0]")
@example("[fe80::1%eth0]")
@example("[::ffff:1.2.3.4]")
@settings(max_examples=examples(300))
def test_any_text_is_a_pattern_with_a_stable_normal_form_or_an_error_that_begins_with_it(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except ValueError as exc:
        problem = str(exc)
    else:
        assert parse_pattern(str(pattern)) == pattern
        return
    assert problem.startswith(f"{text!r}: ")


@given(st.one_of(st.text(alphabet="abAB.éÜß1-_", min_size=1), st.ip_addresses().map(str)))
@example("BÜCHER.example.")
@example("straße.example")
def test_a_host_that_is_mounted_and_asked_for_in_the_same_words_is_found(host: str) -> None:
    written = f"[{host}]" if ":" in host else host
    try:
        table, apps = table_of(written)
        url = URL(f"http://{written}/")
    except ValueError:
        return  # not a pattern, or not a URL
    assert found(table, str(url)) is apps[written]


# Addresses.

SPELLINGS_OF_ADDRESSES: dict[str, list[str]] = {
    "127.0.0.1": [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "0x7f.1",
        "0X7F.0x0.0.0x1",
        "0177.0.0.01",
        "127.0.0.000001",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "127.0x000001",
        "\N{FULLWIDTH DIGIT ONE}27.1",
        "127。0。0。1",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7F00:1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
    ],
    "0.0.0.0": ["0", "0.0", "0x0", "00", "[::ffff:0:0]"],
    "255.255.255.255": ["4294967295", "0xffffffff", "255.16777215", "255.255.65535"],
    "[::1]": ["[::1]", "[0::1]", "[0:0:0:0:0:0:0:1]", "[::0001]"],
    "[::7f00:1]": ["[::127.0.0.1]"],  # which is another address than 127.0.0.1
    "[64:ff9b::7f00:1]": ["[64:ff9b::127.0.0.1]"],
    "[fe80::1%25eth0]": ["[fe80::1%25eth0]", "[fe80::1%eth0]", "[FE80:0::1%eth0]"],
}
NAMES_LIKE_ADDRESSES = [
    "256.0.0.1",
    "127.0.0.256",
    "127.0.65536",
    "127.16777216",
    "4294967296",
    "0x100000000",
    "1.2.3.4.5",
    "08",
    "127.0.0.09",
    "0x",
    "0x.internal",
    "1.0x",
    "0xg.1",
    "0b1",
    "1e3",
    "1_0",
    "127.1.internal",
    "127-0-0-1",
]


@pytest.mark.parametrize(
    ("normal", "spelling"),
    [(normal, spelling) for normal, spellings in SPELLINGS_OF_ADDRESSES.items() for spelling in spellings],
)
def test_an_address_is_the_same_in_every_spelling(normal: str, spelling: str) -> None:
    assert str(parse_pattern(spelling)) == str(parse_pattern(normal)) == normal
    for pattern, asked in [(normal, spelling), (spelling, normal)]:
        table, apps = table_of(pattern, "*:1")
        assert found(table, f"http://{asked}:8080/") is apps[pattern]
        assert table.answers(parse_pattern(asked))
    with pytest.raises(ValueError, match="the same pattern as"):
        table_of(f"{normal}:80", f"{spelling}:0080")


@pytest.mark.parametrize("name", NAMES_LIKE_ADDRESSES)
def test_what_only_looks_like_an_address_is_a_name(name: str) -> None:
    assert str(parse_pattern(name)) == name
    table, apps = table_of(name, "127.0.0.1")
    assert found(table, f"http://{name}/") is apps[name]


@given(st.ip_addresses(v=4), st.data())
def test_an_ipv4_address_is_what_it_is_to_the_operating_system(
    address: ipaddress.IPv4Address, data: st.DataObject
) -> None:
    """aiohttp passes the host of a URL to `socket.getaddrinfo`, which asks no name server here."""
    octets = list(address.packed)
    parts = data.draw(st.integers(1, 4))
    numbers = [*octets[: parts - 1], int.from_bytes(bytes(octets[parts - 1 :]))]
    written = [data.draw(st.sampled_from(["{}", "{:#x}", "0{:o}", "{:#X}"])).format(number) for number in numbers]
    spelling = ".".join(written)
    infos = socket.getaddrinfo(spelling.lower(), 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    assert {info[4][0] for info in infos} == {str(address)}
    assert parse_pattern(spelling).host == str(address)
    table, apps = table_of(str(address))
    assert found(table, f"http://{spelling}/") is apps[str(address)]


@pytest.mark.parametrize("address", ["fe80::1%", "fe80::1%25"])
def test_an_address_without_the_zone_that_it_announces_is_an_error(address: str) -> None:
    with pytest.raises(ValueError, match="zone"):
        parse_pattern(f"[{address}]")
    with pytest.raises(ValueError, match="zone"):
        _normal_address(address)  # some versions of yarl report this first


def test_an_address_is_below_no_suffix() -> None:
    table, apps = table_of("*.internal", "*.1.2.3.4.5", "*")
    for host in ["127.0.0.1", "127.1", "[::ffff:127.0.0.1]", "[fe80::1%25eth0]", "[fe80::1%25x.internal]"]:
        assert found(table, f"http://{host}/") is apps["*"]
    assert found(table, "http://0.1.2.3.4.5/") is apps["*.1.2.3.4.5"]


# Matching.


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("users.internal", "http://users.internal"),
        ("users.internal", "https://users.internal:8443"),
        ("users.internal", "ws://users.internal"),
        ("users.internal", "http://USERS.internal"),
        ("users.internal", "http://users.internal."),
        ("users.internal.", "http://users.internal"),
        ("USERS.internal", "http://users.internal"),
        ("bücher.example", "http://bücher.example"),
        ("bücher.example", "http://xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "http://BÜCHER.example"),
        ("*.bücher.example", "http://www.xn--bcher-kva.example"),
        ("[::1]", "http://[::1]:8080"),
        ("[::1]", "http://[0:0:0::1]"),
        ("[0:0:0::1]:80", "http://[::1]"),
        ("[2001:DB8::A]", "http://[2001:db8::a]"),
        ("127.0.0.1", "http://127.0.0.1:5000"),
        ("my_service", "http://my_service"),
        ("users.internal:8080", "http://users.internal:8080"),
        ("users.internal:8080", "https://users.internal:8080"),
        ("users.internal:80", "http://users.internal"),
        ("users.internal:443", "https://users.internal"),
        ("users.internal:443", "wss://users.internal"),
        ("http://users.internal", "http://users.internal:9999"),
        ("http://users.internal", "ws://users.internal"),
        ("ws://users.internal", "http://users.internal"),
        ("https://users.internal", "https://users.internal"),
        ("https://users.internal", "wss://users.internal"),
        ("wss://users.internal", "https://users.internal"),
        ("*.internal", "http://users.internal"),
        ("*.internal", "http://a.b.c.internal"),
        ("*.tenants.internal", "https://a.b.tenants.internal:1"),
        ("*.internal:80", "http://users.internal"),
        ("*", "http://anything"),
        ("*", "http://.internal"),
        ("*", "http://users..internal"),
        ("*", "https://[::1]:8080"),
        ("*:8080", "http://anything:8080"),
        ("https://*", "https://anything"),
    ],
)
def test_a_pattern_matches(pattern: str, url: str) -> None:
    table, apps = table_of(pattern)
    assert found(table, url) is apps[pattern]


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("users.internal", "http://evilusers.internal"),
        ("users.internal", "http://users.internal.evil"),
        ("users.internal", "http://a.users.internal"),
        ("users.internal", "http://internal"),
        ("users.internal", "http://usersxinternal"),
        ("users.internal", "http://users-internal"),
        ("users.internal", "http://users.internal.."),
        ("users.internal", "http://users"),
        ("users.internal", "http://üsers.internal"),
        ("*.internal", "http://internal"),
        ("*.internal", "http://internal."),
        ("*.internal", "http://.internal"),
        ("*.internal", "http://users..internal"),
        ("*.internal", "http://users.internal.evil"),
        ("*.internal", "http://usersinternal"),
        ("*.internal", "http://evilinternal"),
        ("*.internal", "http://users.evilinternal"),
        ("*.tenants.internal", "http://tenants.internal"),
        ("*.tenants.internal", "http://eviltenants.internal"),
        ("*.tenants.internal", "http://users.internal"),
        ("users.internal:8080", "http://users.internal"),
        ("users.internal:80", "https://users.internal"),
        ("users.internal:80", "http://users.internal:8080"),
        ("*.internal:80", "https://users.internal"),
        ("*:80", "https://anything"),
        ("http://users.internal", "https://users.internal"),
        ("http://users.internal", "wss://users.internal"),
        ("https://users.internal", "http://users.internal"),
        ("https://users.internal", "http://users.internal:443"),
        ("wss://users.internal", "ws://users.internal"),
        ("https://*", "http://anything"),
        ("[::1]", "http://[::2]"),
        ("[::1]", "http://127.0.0.1"),
        ("[::1]:80", "http://[::1]:8080"),
        ("127.0.0.1", "http://localhost"),
        ("bücher.example", "http://bucher.example"),
    ],
)
def test_a_look_alike_does_not_match(pattern: str, url: str) -> None:
    table, _ = table_of(pattern)
    assert found(table, url) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("users.internal", "USERS.internal"),
        ("users.internal", "users.internal."),
        ("http://users.internal", "ws://users.internal"),
        ("https://users.internal:1", "wss://users.internal:1"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("[::1]", "[0:0:0:0:0:0:0:1]"),
        ("*.internal", "*.INTERNAL."),
        ("ws://*", "http://*"),
        ("users.internal:80", "users.internal:080"),
    ],
)
def test_two_patterns_that_are_the_same_are_a_value_error_that_names_both(first: str, second: str) -> None:
    for one, other in [(first, second), (second, first)]:
        table = new_table()
        with pytest.raises(ValueError, match="same") as caught:
            table.add_all({"other.internal": app, one: app, other: app}, CONTEXT)
        assert str(caught.value).startswith(f"{other!r}: ")
        assert repr(one) in str(caught.value)
        assert len(table) == 0


@pytest.mark.parametrize(
    "patterns",
    [
        ("users.internal", "users.internal:80"),
        ("http://users.internal", "http://users.internal:80"),
        ("http://users.internal", "https://users.internal"),
        ("https://users.internal", "https://users.internal:443"),
        ("*", "*:80", "http://*"),
        ("internal", "*.internal"),
    ],
)
def test_a_default_port_or_scheme_that_is_written_makes_another_pattern(patterns: tuple[str, ...]) -> None:
    table, _ = table_of(*patterns)
    assert len(table) == len(patterns)


# Precedence, compared with an oracle that does not use a table.


@dataclasses.dataclass(frozen=True)
class Spec:
    """The parts of a pattern."""

    wildcard: bool
    labels: tuple[str, ...]
    port: int | None
    secure: bool | None

    def written(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> str:
        """One of the pattern's spellings."""
        scheme = {None: [""], False: ["http://", "ws://", "HTTP://"], True: ["https://", "wss://", "Wss://"]}
        host = ".".join((["*"] if self.wildcard else []) + list(self.labels))
        if self.labels:
            host = draw(st.sampled_from([host, host.upper(), host.title(), host + "."]))
        port = "" if self.port is None else f":{self.port}"
        return f"{draw(st.sampled_from(scheme[self.secure]))}{host}{port}"

    def matches(self, host: tuple[str, ...], port: int, secure: bool) -> bool:
        if self.wildcard:
            # "*" is a wildcard without a suffix.
            host_matches = len(host) > len(self.labels) and host[len(host) - len(self.labels) :] == self.labels
        else:
            host_matches = host == self.labels
        return host_matches and self.port in {None, port} and self.secure in {None, secure}

    @property
    def specificity(self) -> tuple[object, ...]:
        return not self.wildcard, len(self.labels), self.port is not None, self.secure is not None


LABELS = st.lists(st.sampled_from(["a", "b", "internal"]), min_size=1, max_size=4).map(tuple)
PORTS = st.sampled_from([80, 443, 8080])
SPECS = st.builds(
    Spec,
    wildcard=st.just(False),
    labels=LABELS,
    port=st.none() | PORTS,
    secure=st.sampled_from([None, False, True]),
) | st.builds(
    Spec,
    wildcard=st.just(True),
    labels=st.just(()) | LABELS,
    port=st.none() | PORTS,
    secure=st.sampled_from([None, False, True]),
)


@given(st.data())
@settings(max_examples=examples(300))
def test_the_most_specific_pattern_wins_whatever_the_order_of_insertion(data: st.DataObject) -> None:
    specs: list[Spec] = data.draw(st.lists(SPECS, unique=True, max_size=12))
    apps = {spec: new_app() for spec in specs}
    table = new_table()
    table.add_all({spec.written(data.draw): apps[spec] for spec in specs}, CONTEXT)
    host: tuple[str, ...] = data.draw(
        LABELS if not specs else LABELS | st.sampled_from(specs).map(lambda spec: spec.labels or ("a",))
    )
    port: int = data.draw(PORTS)
    secure: bool = data.draw(st.booleans())
    matching = sorted((spec for spec in specs if spec.matches(host, port, secure)), key=lambda spec: spec.specificity)
    asked = data.draw(st.sampled_from([".".join(host), ".".join(host).upper(), ".".join(host) + "."]))
    mounted = table.find(Address(asked, port, secure))
    assert (None if mounted is None else mounted.app) is (apps[matching[-1]] if matching else None)


@given(st.permutations(["users.a.internal", "*.a.internal", "*.internal", "*"]), st.data())
def test_hosts_decide_before_ports_and_ports_before_schemes(hosts: list[str], data: st.DataObject) -> None:
    ranked = [
        written.format(host)
        for host in ["users.a.internal", "*.a.internal", "*.internal", "*"]
        for written in ["http://{}:80", "{}:80", "http://{}", "{}"]
    ]
    table, apps = table_of(*data.draw(st.permutations(ranked)))
    for pattern in ranked:
        assert found(table, "http://users.a.internal") is apps[pattern]
        table.unmount(pattern)
    assert found(table, "http://users.a.internal") is None


# The cost of a lookup.


@contextmanager
def counting_instructions() -> Iterator[list[int]]:
    """Count the bytecode instructions that run: the same work gives the same number on any machine."""
    count = [0]

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        frame.f_trace = trace  # before the next line, which has no effect without it
        frame.f_trace_opcodes = True
        count[0] += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


def costs_of_lookups(table: MountTable, host: str) -> tuple[int, int]:
    """The cost of the first lookup of an address, and of a repeated one."""
    costs = []
    for port in [79, 80, 80]:  # with 79, the host is normalised and Python prepares the code
        with counting_instructions() as count:
            table.find(Address(host, port, False))
        costs.append(count[0])
    return costs[1], costs[2]


@pytest.mark.parametrize(
    "more",
    ["host-{}.internal", "users.internal:{}", "https://users.internal:{}", "{}.tenants.internal", "*.s{}.internal"],
)
def test_a_lookup_costs_the_same_with_10_000_mounts_as_with_one(more: str) -> None:
    few, _ = table_of("users.internal", "*.tenants.internal", more.format(1000))
    many, _ = table_of("users.internal", "*.tenants.internal", *(more.format(1000 + n) for n in range(10_000)))
    for host in ["users.internal", "a.b.tenants.internal", "nobody.example", "users.internal.evil"]:
        expected = costs_of_lookups(few, host)
        assert min(expected) > 5
        assert costs_of_lookups(many, host) == expected


def test_lookups_of_ever_new_hosts_find_what_is_mounted() -> None:
    table, apps = table_of("*.internal", "users.internal")
    for number in range(5000):
        assert found(table, f"http://{number}.internal") is apps["*.internal"]
        assert found(table, f"http://{number}.example") is None
    assert found(table, "http://users.internal") is apps["users.internal"]


# Mounting, overriding and unmounting.


def test_what_is_mounted_again_takes_the_place_of_what_was_there() -> None:
    table, _ = table_of("users.internal")
    other = new_app()
    table.mount("USERS.internal.", other, CONTEXT)
    assert found(table, "http://users.internal") is other
    assert [mounted.pattern for mounted in table] == ["USERS.internal."]


def test_what_is_unmounted_uncovers_the_next_less_specific_pattern() -> None:
    table, apps = table_of("*", "*.internal", "users.internal", "users.internal:80")
    for pattern in ["users.internal:80", "users.internal", "*.internal", "*"]:
        assert found(table, "http://users.internal") is apps[pattern]
        assert table.unmount(pattern).app is apps[pattern]
    assert found(table, "http://users.internal") is None
    assert len(table) == 0


@pytest.mark.parametrize(
    "pattern", ["orders.internal", "users.internal:80", "http://users.internal", "*.internal", "*"]
)
def test_unmounting_what_is_not_there_is_a_key_error(pattern: str) -> None:
    table, apps = table_of("users.internal")
    with pytest.raises(KeyError) as caught:
        table.unmount(pattern)
    assert pattern in str(caught.value)
    assert found(table, "http://users.internal") is apps["users.internal"]


@pytest.mark.parametrize(
    ("apps", "error"),
    [
        ({"a.internal": app, "b.internal/v1": app}, ValueError),
        ({"a.internal": app, "A.internal": app}, ValueError),
        ({"a.internal": app, "b.internal": "not an app"}, TypeError),
        ({"a.internal": app, 5: app}, TypeError),
    ],
)
def test_where_one_app_cannot_be_mounted_none_is(apps: Any, error: type[Exception]) -> None:
    table = new_table()
    with pytest.raises(error):
        table.add_all(apps, CONTEXT)
    assert list(table) == []
    assert found(table, "http://a.internal") is None


def test_what_cannot_be_mounted_changes_nothing() -> None:
    table, apps = table_of("users.internal")
    for change in [table.mount, table.push]:
        with pytest.raises(TypeError):
            change("users.internal", "not an app", CONTEXT)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no path"):
            change("users.internal/v1", app, CONTEXT)
    assert found(table, "http://users.internal") is apps["users.internal"]
    table.unmount("users.internal")
    assert len(table) == 0


SPELLINGS = {
    "users.internal": ["users.internal", "Users.Internal", "users.internal."],
    "https://users.internal": ["https://users.internal", "wss://users.internal"],
    "*.internal": ["*.internal", "*.INTERNAL"],
}
OPERATIONS = st.tuples(
    st.sampled_from(["mount", "unmount", "push", "remove"]),
    st.sampled_from(sorted(SPELLINGS)),
    st.integers(0, 7),
)


@given(st.lists(OPERATIONS, max_size=40))
@settings(max_examples=examples(200))
def test_layers_can_be_pushed_and_removed_in_any_order(operations: list[tuple[str, str, int]]) -> None:
    """Compared with a model: for each pattern a stack of slots. Only the topmost slot is visible."""
    table = new_table()
    model: dict[str, list[list[ASGIApp | None]]] = {pattern: [[None]] for pattern in SPELLINGS}
    layers: list[tuple[str, list[ASGIApp | None], Any]] = []
    for operation, pattern, number in operations:
        spelling = SPELLINGS[pattern][number % len(SPELLINGS[pattern])]
        stack = model[pattern]
        if operation == "mount":
            stack[-1][0] = another = new_app()
            table.mount(spelling, another, CONTEXT)
        elif operation == "push":
            another = new_app()
            stack.append([another])
            layers.append((pattern, stack[-1], table.push(spelling, another, CONTEXT)[0]))
        elif operation == "unmount" and stack[-1][0] is None:
            with pytest.raises(KeyError):
                table.unmount(spelling)
        elif operation == "unmount":
            assert table.unmount(spelling).app is stack[-1][0]
            stack[-1][0] = None
        elif layers:
            at, slot, layer = layers.pop(number % len(layers))
            model[at] = [kept for kept in model[at] if kept is not slot]
            table.remove(layer)
        seen = {at: slots[-1][0] for at, slots in model.items()}
        assert {at: (None if (it := table.visible_at(at)) is None else it.app) for at in SPELLINGS} == seen
        assert sorted(map(id, (mounted.app for mounted in table))) == sorted(map(id, filter(None, seen.values())))
        assert len(table) == sum(it is not None for it in seen.values())
        assert found(table, "http://users.internal") is (seen["users.internal"] or seen["*.internal"])
        assert found(table, "https://users.internal") is (
            seen["https://users.internal"] or seen["users.internal"] or seen["*.internal"]
        )


# The read-only mapping of a connector.


async def test_mounts_maps_each_pattern_as_it_was_written_to_its_mount() -> None:
    mount = Mount(app, root_path="/v1")
    async with ASGIRoutingConnector({"Users.internal.": app, "wss://[0::1]:443": mount}) as connector:
        assert list(connector.mounts) == ["Users.internal.", "wss://[0::1]:443"]
        assert dict(connector.mounts) == {"Users.internal.": Mount(app), "wss://[0::1]:443": mount}
        assert connector.mounts["wss://[0::1]:443"] is mount
        assert len(connector.mounts) == 2


async def test_mounts_finds_a_pattern_in_any_spelling_and_nothing_else() -> None:
    mount = Mount(app)
    async with ASGIRoutingConnector({"*.Bücher.example": mount}) as connector:
        for spelling in ["*.Bücher.example", "*.bücher.example.", "*.xn--bcher-kva.example"]:
            assert spelling in connector.mounts
            assert connector.mounts[spelling] is mount
        for other in ["www.bücher.example", "bücher.example", "*", "http://*.bücher.example", "not/a/pattern", "", 5]:
            assert other not in connector.mounts
            with pytest.raises(KeyError) as caught:
                connector.mounts[other]  # type: ignore[index]
            assert caught.value.args == (other,)


async def test_mounts_is_live_and_stays_what_it_was() -> None:
    async with ASGIRoutingConnector() as connector:
        mounts = connector.mounts
        assert dict(mounts) == {}
        connector.mount("users.internal", app)
        assert dict(mounts) == {"users.internal": Mount(app)}
        async with connector.mounted("USERS.internal", Mount(app, client=None)):
            assert dict(mounts) == {"USERS.internal": Mount(app, client=None)}
        assert dict(mounts) == {"users.internal": Mount(app)}
        await connector.unmount("users.internal")
        assert dict(mounts) == {}


async def test_mounts_may_be_changed_while_it_is_iterated_over() -> None:
    async with ASGIRoutingConnector({f"{name}.internal": app for name in "abc"}) as connector:
        for pattern in connector.mounts:
            await connector.unmount(pattern)
        assert len(connector.mounts) == 0


async def test_mounts_cannot_be_written_to() -> None:
    async with ASGIRoutingConnector({"users.internal": app}) as connector:
        assert isinstance(connector.mounts, Mapping)
        assert not isinstance(connector.mounts, MutableMapping)
        with pytest.raises(TypeError):
            connector.mounts["orders.internal"] = Mount(app)  # type: ignore[index]
        with pytest.raises(TypeError):
            del connector.mounts["users.internal"]  # type: ignore[attr-defined]
        with pytest.raises(AttributeError):
            connector.mounts = {}  # type: ignore[misc]
        assert dict(connector.mounts) == {"users.internal": Mount(app)}


async def test_mounts_shows_what_is_mounted() -> None:
    async with ASGIRoutingConnector({"users.internal": app}) as connector:
        assert "'users.internal'" in repr(connector.mounts)
        assert repr(app) in repr(connector.mounts)


# A mount.


def test_a_mount_is_frozen() -> None:
    mount = Mount(app, root_path="/v1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        mount.root_path = "/v2"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del mount.app
    with pytest.raises((AttributeError, TypeError)):
        mount.other = 1  # type: ignore[attr-defined]
    assert mount.root_path == "/v1"


def test_equal_mounts_are_equal_and_hash_alike() -> None:
    assert Mount(app, client=None) == Mount(app, client=None)
    assert hash(Mount(app, client=None)) == hash(Mount(app, client=None))
    assert Mount(app) != Mount(app, client=None)
    assert Mount(app) != Mount(new_app())


def load_elsewhere(mount: Mount) -> Mount:
    """*mount*, sent through another process, which changes one setting. The setting is changed back here."""
    program = f"""
import dataclasses, pickle
mount = pickle.loads({pickle.dumps(mount)!r})
print(pickle.dumps(dataclasses.replace(mount, raise_app_exceptions=False)).hex())
"""
    loaded: Mount = pickle.loads(bytes.fromhex(run_python("-c", program)))
    return dataclasses.replace(loaded, raise_app_exceptions=mount.raise_app_exceptions)


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        dataclasses.replace,
        *(lambda mount, protocol=protocol: pickle.loads(pickle.dumps(mount, protocol)) for protocol in range(2, 6)),
        pytest.param(load_elsewhere, marks=pytest.mark.programs),
    ],
)
@pytest.mark.parametrize("mount", [Mount(app), Mount(app, root_path="/v1", client=None, lifespan="on")])
def test_a_mount_that_is_copied_or_pickled_equals_the_original(
    mount: Mount, duplicate: Callable[[Mount], Mount]
) -> None:
    twin = duplicate(mount)
    assert twin == mount
    assert hash(twin) == hash(mount)
    assert repr(twin) == repr(mount)


def test_a_table_of_mounts_may_be_copied() -> None:
    table = {"users.internal": Mount(app), "orders.internal": Mount(app, client=None)}
    assert copy.deepcopy(table) == table


def test_a_mount_that_is_pickled_still_inherits() -> None:
    """Through one process or another, settings that were left out stay left out."""
    table = new_table(
        MountDefaults(
            root_path="/v1",
            client=("10.0.0.1", 1),
            raise_app_exceptions=False,
            lifespan="off",
            inherit_context="never",
        )
    )
    table.mount("users.internal", pickle.loads(pickle.dumps(Mount(app))), CONTEXT)
    mounted = table.find(Address("users.internal", 80, False))
    assert mounted is not None
    assert (mounted.root_path, mounted.client, mounted.raise_app_exceptions) == ("/v1", ("10.0.0.1", 1), False)
    assert mounted.inherit_context == "never"


def test_the_settings_of_a_mount_are_given_by_keyword() -> None:
    make: Callable[..., Mount] = Mount
    with pytest.raises(TypeError):
        make(app, "/v1")


@pytest.mark.parametrize("not_an_app", [None, "main:app", 5, {}, Mount(app)])
def test_an_app_that_cannot_be_called_is_a_type_error_that_shows_it(not_an_app: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Mount(not_an_app)
    assert repr(not_an_app) in str(caught.value)


@pytest.mark.parametrize(
    ("mount_settings", "error"),
    [
        ({"root_path": None}, TypeError),
        ({"root_path": b"/v1"}, TypeError),
        ({"root_path": "v1"}, ValueError),
        ({"client": "127.0.0.1"}, TypeError),
        ({"client": ("127.0.0.1",)}, TypeError),
        ({"client": ("127.0.0.1", "80")}, TypeError),
        ({"client": ("127.0.0.1", 80, 0, 0)}, TypeError),
        ({"client": (b"127.0.0.1", 80)}, TypeError),
        ({"client": ["127.0.0.1", 80]}, TypeError),
        ({"client": ()}, TypeError),
        ({"client": False}, TypeError),
        ({"raise_app_exceptions": None}, TypeError),
        ({"raise_app_exceptions": "no"}, TypeError),
        ({"inherit_context": None}, ValueError),
        ({"inherit_context": True}, ValueError),
        ({"inherit_context": "inside"}, ValueError),
        ({"inherit_context": ["always"]}, ValueError),
    ],
)
async def test_a_bad_setting_is_an_error_that_names_it_and_shows_the_value(
    mount_settings: dict[str, Any], error: type[Exception]
) -> None:
    """The same for a mount and for the connector's defaults."""
    (name, value) = next(iter(mount_settings.items()))
    makers: list[Callable[[], object]] = [
        lambda: Mount(app, **mount_settings),
        lambda: ASGIRoutingConnector({"users.internal": app}, **mount_settings),
    ]
    for make in makers:
        with pytest.raises(error, match=name) as caught:
            make()
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        (Mount(app), ("/default", ("10.0.0.1", 1), False, "outside")),
        (Mount(app, root_path=""), ("", ("10.0.0.1", 1), False, "outside")),
        (Mount(app, root_path="/v1"), ("/v1", ("10.0.0.1", 1), False, "outside")),
        (Mount(app, client=None), ("/default", None, False, "outside")),
        (Mount(app, client=("10.0.0.2", 2)), ("/default", ("10.0.0.2", 2), False, "outside")),
        (Mount(app, raise_app_exceptions=True), ("/default", ("10.0.0.1", 1), True, "outside")),
        (Mount(app, inherit_context="never"), ("/default", ("10.0.0.1", 1), False, "never")),
    ],
)
def test_what_a_mount_leaves_out_is_inherited(mount: Mount, expected: tuple[object, ...]) -> None:
    table = new_table(
        MountDefaults(
            root_path="/default",
            client=("10.0.0.1", 1),
            raise_app_exceptions=False,
            lifespan="off",
            inherit_context="outside",
        )
    )
    table.mount("users.internal", mount, CONTEXT)
    mounted = table.find(Address("users.internal", 80, False))
    assert mounted is not None
    settings = (mounted.root_path, mounted.client, mounted.raise_app_exceptions, mounted.inherit_context)
    assert settings == expected
