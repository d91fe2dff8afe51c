"""Which mounted host is suggested for a misspelled one, and what it costs to find it."""

import difflib
import itertools
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_connector._services import spellings as module
from asgi_connector._services.spellings import Spellings
from tests.services.test_mounts import CONTEXT, app, new_table


def spellings_of(hosts: list[str]) -> Spellings:
    spellings = Spellings()
    for host in hosts:
        spellings.add(host)
    return spellings


def hosts_of_a_company() -> list[str]:
    """10,000 similar hosts, the same ones in each run."""
    chance = random.Random(7)
    services = ["users", "orders", "mail", "billing", "search", "basket"]
    return [
        f"{chance.choice(services)}-{chance.choice(['api', 'db', 'web'])}-{number}.{region}.internal"
        for number, region in zip(range(10_000), itertools.cycle(["eu", "us", "ap"]), strict=False)
    ]


def misspelled(host: str, chance: random.Random) -> str:
    at = chance.randrange(len(host) - 1)
    before, here, after = host[:at], host[at], host[at + 1 :]
    swapped = before + after[0] + here + after[1:]
    return chance.choice([before + after, before + "x" + here + after, before + "x" + after, swapped])


def test_among_10_000_hosts_the_one_that_is_most_alike_is_found() -> None:
    """Almost always the host that a comparison with all of them finds, for a host with two mistakes at any place."""
    hosts = hosts_of_a_company()
    spellings = spellings_of(hosts)
    chance = random.Random(7)
    worse = 0
    for meant in chance.sample(hosts, 100):
        asked = misspelled(misspelled(meant, chance), chance)
        found = spellings.closest_to(asked)
        assert found is not None
        alike = difflib.SequenceMatcher(None, meant, asked).ratio()
        worse += difflib.SequenceMatcher(None, found, asked).ratio() < alike
    assert worse <= 5


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("user.internal", "users.internal"),
        ("suers.internal", "users.internal"),
        ("users.intrenal", "users.internal"),
        ("users.local", "users.internal"),
        ("api.users.internal", "users.internal"),
        ("users.int", "users.internal"),
        ("d", "db"),
        ("127.0.0.2", "127.0.0.1"),
        ("::2", "::1"),
        ("internal", "*.internal"),
        ("somewhere.example", None),
        ("", None),
    ],
)
def test_a_few_hosts(asked: str, found: str | None) -> None:
    few = ["users.internal", "orders.eu", "db", "127.0.0.1", "::1", "*.internal"]
    assert spellings_of(few).closest_to(asked) == found


@pytest.mark.parametrize("more", ["host-{}.internal", "{}.tenants.internal", "users-api-{}.eu.internal"])
@pytest.mark.parametrize("asked", ["hots-17.internal", "elsewhere.example", "users.eu.internal"])
def test_no_more_hosts_are_compared_or_counted_among_many(
    more: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing with each of 10,000 hosts took a quarter of a second."""
    compared: list[str] = []
    counted: list[int] = []

    class Matcher(difflib.SequenceMatcher[str]):
        def set_seq1(self, a: Any) -> None:
            compared.append(a)
            super().set_seq1(a)

    class CountedCounter(Counter[str]):
        def update(self, hosts: Any = None, /, **keywords: Any) -> None:
            found = list(hosts or ())
            counted.append(len(found))
            super().update(found)

    spellings = spellings_of([more.format(number) for number in range(10_000)])
    monkeypatch.setattr(difflib, "SequenceMatcher", Matcher)
    monkeypatch.setattr(module, "Counter", CountedCounter)
    spellings.closest_to(asked)
    assert len([each for each in compared if each]) <= 16  # the class itself begins with an empty one
    assert sum(counted) <= 2000
    assert sum(counted) > 0 or asked == "elsewhere.example"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["aaaa", "aab", "a", "b.internal", "aaaa.internal"]))))
def test_hosts_may_come_and_go_in_any_order(changes: list[tuple[bool, str]]) -> None:
    spellings = Spellings()
    hosts: set[str] = set()
    for comes, host in changes:
        if comes:
            hosts.add(host)
            spellings.add(host)
        elif host in hosts:
            hosts.remove(host)
            spellings.remove(host)
    for host in hosts:
        assert spellings.closest_to(host) == host
    assert (spellings.closest_to("aaaa") in hosts) or not spellings.closest_to("aaaa")
    if not hosts:
        assert spellings._hosts_with == {}


def test_a_hint_is_about_what_is_mounted_now() -> None:
    table = new_table()
    for pattern in ["users.internal:80", "https://users.internal"]:
        table.mount(pattern, app, CONTEXT)
    layer, _ = table.push("Users.internal", app, CONTEXT)
    assert table.describe("user.internal").startswith("Did you mean 'users.internal:80'? ")
    table.unmount("users.internal:80")
    assert table.describe("user.internal").startswith("Did you mean 'https://users.internal'? ")
    table.unmount("https://users.internal")
    assert table.describe("user.internal") == "Did you mean 'Users.internal'? Mounted: 'Users.internal'."
    table.remove(layer)
    assert table.describe("user.internal") == "Nothing is mounted."
    table.mount("orders.internal", app, CONTEXT)
    assert table.describe("user.test") == "Mounted: 'orders.internal'."
