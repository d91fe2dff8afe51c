"""Each example runs by itself, causes no warnings, and prints what it promises."""

import re
from pathlib import Path

import pytest

from tests.support.programs import ROOT, pytest_arguments, run_python

pytestmark = pytest.mark.docs

# What each example is to print, in this order: regular expressions, each of which is found in a line of its own.
TELLING_LINES = {
    "single_app.py": [
        r"^200 \{'broadcast': \"Application says 'hello'!\"\}$",
    ],
    "microservices.py": [
        r"^Place an order",
        r"POST http://orders\.internal/orders .*'orders\.internal'",
        r"GET http://users\.internal/users/1 .*'users\.internal'",
        r"POST http://payments\.internal/payments .*'payments\.internal'",
        r'200 \{"customer":"Ada","paid":4200\}',
        r"^Stream a report",
        r"GET http://payments\.internal/report\.csv .*'payments\.internal'",
        r"^  b'payer,cents\\n'",
        r"^  b'Ada,4200\\n'",
        r"^Upload a file",
        r"PUT http://users\.internal/users/1/photo .*'users\.internal'",
        r'200 \{"filename":"ada\.png","size":2000000\}',
        r"^Without a fallback",
        r"UnmountedHostError: .*http://user\.internal,.* Did you mean 'users\.internal'\?",
        r"^With a fallback",
        r"GET http://127\.0\.0\.1:\d+/rates/EUR .*fallback.*TCPConnector",
        r'200 \{"EUR":1\.25\}',
    ],
    "hybrid.py": [
        r"^The shop is in this process",
        r"GET http://shop\.internal/offers/tea .*'shop\.internal'",
        r"GET http://127\.0\.0\.1:\d+/prices/tea .*fallback.*TCPConnector",
        r'200 \{"article":"tea","cents":250\}',
        r"^For a block",
        r"GET http://127\.0\.0\.1:\d+/prices/tea .*'http://127\.0\.0\.1:\d+'",
        r'200 \{"article":"tea","cents":1\}',
        r"^Afterwards",
        r"GET http://127\.0\.0\.1:\d+/prices/tea .*fallback.*TCPConnector",
        r'200 \{"article":"tea","cents":250\}',
    ],
    "lifespan.py": [
        r"^A session is open; the app has not been started$",
        r"^Two first requests at the same time",
        r"^  startup: the database is opened$",
        r"^  request: add 'Emma'$",
        r'^  201 \{"title":"Emma","year":1815\}$',
        r"^The next request finds the same database open$",
        r"^  request: find 'Emma'$",
        r'^  200 \{"title":"Emma","year":1815\}$',
        r"^The session closes",
        r"^  shutdown: the database is closed$",
        r"^Another session",
        r"^  startup: the database is opened$",
        r"^  request: find 'Persuasion'$",
        r'^  200 \{"title":"Persuasion","year":1817\}$',
        r"^  shutdown: the database is closed$",
    ],
    "chat.py": [
        r"^Ada joins the room",
        r"^  Ada hears: Ada joins$",
        r"^  Ada hears: Grace joins$",
        r"^  Grace hears: Grace joins$",
        r"^They talk",
        r"^  Ada hears: Ada: Does it compile\?$",
        r"^  Grace hears: Ada: Does it compile\?$",
        r"^  Ada hears: Grace: It does\.$",
        r"^  Grace hears: Grace: It does\.$",
        r"^A second Grace is turned away",
        r"^  403 ",
        r"^Grace leaves",
        r"^  Ada hears: Grace leaves, to build a compiler$",
    ],
    "resilience.py": [
        r"^All is well$",
        r'^  order 1: 201 \{"number":1,"cents":4200\}$',
        r"^The payments are slow",
        r'^  order 2: 201 \{"number":2,"cents":4200\}$',
        r"^  2 calls, 1 of them slow; the ledger: \{'order-1': 4200, 'order-2': 4200\}$",
        r"^The payments are down",
        r'^  order 3: 502 \{"detail":"the payment failed"\}$',
        r"^It is open",
        r'^  order 4: 503 \{"detail":"the payments are down, please come back later"\}$',
        r"^The payments are back",
        r'^  order 5: 201 \{"number":5,"cents":4200\}$',
        r"^Who called whom$",
        r"^POST http://orders\.internal/orders: 201 in \d+ ms$",
        r"^  orders\.internal -> POST http://payments\.internal/charges: 201 in \d+ ms$",
        r"^  orders\.internal -> POST http://payments\.internal/charges: abandoned .*\[Latency\(",
        r"^  orders\.internal -> POST http://payments\.internal/charges: 201 in \d+ ms$",
        *[r"^  orders\.internal -> POST .*: failed \(ClientConnectorError: .*via fault \[Refuse\(\)\]"] * 3,
        r"^POST http://orders\.internal/orders: 503 in \d+ ms$",
        r"^  orders\.internal -> POST http://payments\.internal/charges: 201 in \d+ ms$",
        r"^The diagram is in .*orders\.mmd$",
        r"^The HAR is in .*orders\.har$",
    ],
}


SHOP = ROOT / "examples" / "shop"

# The same for the shop, which is a package.
SHOP_LINES = [
    r"^The order: 201$",
    r"^The customer reads: Thank you for your order",
    r"^Left in stock: 0$",
    r"^POST http://orders\.internal/orders: 201 in \d+ ms$",
    r"^  orders\.internal -> PUT http://stock\.internal/reservations/\w+: 201 in",
    r"^  orders\.internal -> PUT http://payments\.internal/charges/\w+: 201 in",
    r"^    payments\.internal -> POST https://api\.stripe\.com/v1/charges: 201 in",
    r"^  orders\.internal -> POST http://stock\.internal/reservations/\w+/commit: 200 in",
    r"^    stock\.internal -> POST http://notifications\.internal/events: 202 in",
    r"^      notifications\.internal -> POST https://api\.postmarkapp\.com/email: 200 in",
    r"^  orders\.internal -> POST http://notifications\.internal/events: 202 in",
]


def test_every_example_is_tested() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(TELLING_LINES)
    assert [path.parent for path in (ROOT / "examples").glob("*/__init__.py")] == [SHOP]


@pytest.mark.parametrize("name", TELLING_LINES)
def test_an_example_prints_what_it_promises_and_warns_of_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # for the files that it writes
    check_lines(run_python("-X", "dev", ROOT / "examples" / name), TELLING_LINES[name])


def test_the_shop_prints_what_it_promises_and_warns_of_nothing() -> None:
    check_lines(run_python("-X", "dev", "-m", "examples.shop"), SHOP_LINES)


@pytest.mark.parametrize(("name", "number"), [("test_shop.py", 17), ("test_failures.py", 2)])
def test_the_tests_of_the_shop_pass(name: str, number: int) -> None:
    output = run_python(*pytest_arguments(SHOP, SHOP / name))
    assert re.search(rf"^{number} passed in", output.splitlines()[-1]), output


def test_every_test_of_the_shop_runs() -> None:
    assert sorted(path.name for path in SHOP.glob("test_*.py")) == ["test_failures.py", "test_shop.py"]


@pytest.mark.parametrize("name", ["buggy", "common", "notifications", "orders", "payments", "stock"])
def test_the_services_of_the_shop_know_nothing_of_their_tests(name: str) -> None:
    assert "asgi_connector" not in (SHOP / f"{name}.py").read_text("utf-8")


def check_lines(output: str, telling: list[str]) -> None:
    lines = iter(output.splitlines())
    for expected in telling:
        assert any(re.search(expected, line) for line in lines), f"{expected!r} is missing in:\n{output}"
