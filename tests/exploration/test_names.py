"""A name means the same call in every run."""

import asyncio

import pytest

from asgi_connector import faults
from asgi_connector._exploration.names import CallName, stable_path
from asgi_connector.faults import Shake
from tests.exploration.systems import SYSTEMS
from tests.support.shaken import virtual_time

UUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/orders/17", "/orders/17"),
        (f"/orders/{UUID}", "/orders/*"),
        (f"/orders/{UUID.upper()}/items", "/orders/*/items"),
        (f"/orders/{UUID}/{UUID}", "/orders/*/*"),
        (f"/orders/{UUID.replace('-', '')}", "/orders/*"),
        ("/orders/0123456789abcdef", "/orders/*"),
        ("/orders/0123456789abcde", "/orders/0123456789abcde"),
        ("/orders/1876543210987654321", "/orders/*"),
        (f"/files/{UUID}.pdf", "/files/*.pdf"),
        (f"/charges/ch_{UUID.replace('-', '')}", "/charges/ch_*"),
        ("/orders/0123456789abcdefgh", "/orders/0123456789abcdefgh"),
        ("/*/2026-11-24", "/*/2026-11-24"),
    ],
)
def test_what_looks_random_in_a_path_is_left_out(path: str, expected: str) -> None:
    assert stable_path(path) == expected


def test_a_name_as_text_tells_the_chain_of_callers() -> None:
    order = CallName(None, None, "orders.internal", "POST", "/orders", 2)
    charge = CallName(order, "orders.internal", "payments.internal:8080", "PUT", "/charges/*")
    assert str(order) == "POST orders.internal/orders (number 2)"
    assert str(charge) == (
        "PUT payments.internal:8080/charges/* by orders.internal in POST orders.internal/orders (number 2)"
    )
    again = CallName(None, None, "orders.internal", "POST", "/orders", connector=3)
    assert str(again) == "POST orders.internal/orders (connector 3)"


def test_a_name_as_text_is_safe_to_show() -> None:
    assert str(CallName(None, None, "a.internal", "GET", "/\x1b[1m\u202e")) == r"GET a.internal/\x1b[1m\u202e"


def test_a_later_call_differs_in_nothing_but_its_number() -> None:
    first, second = (CallName(None, None, "a.internal", "GET", "/", number) for number in (1, 2))
    assert first.is_before(second)
    assert not second.is_before(first)
    assert not first.is_before(first)
    assert not first.is_before(CallName(None, None, "a.internal", "GET", "/other", 2))
    assert not first.is_before(CallName(None, None, "a.internal", "GET", "/", 2, connector=2))
    assert not first.is_before(CallName(first, None, "a.internal", "GET", "/", 2))


def names_of(system: str) -> list[str]:
    """The names of the calls of a run without a fault."""
    names: list[str] = []

    async def scenario(shake: Shake) -> None:
        async with SYSTEMS[system]() as (connector, act):
            with shake(connector):
                await act()
        names.extend(map(str, shake.calls))

    with asyncio.Runner(loop_factory=virtual_time) as runner:
        runner.run(faults.explore(scenario, [faults.Refuse()], runs=1))
    return names


def test_calls_of_several_orders_at_once_have_the_order_in_their_names() -> None:
    assert sorted(names_of("several orders at once")) == sorted(
        f"{call}{order}"
        for order in ["POST orders.internal/", "POST orders.internal/ (number 2)", "POST orders.internal/ (number 3)"]
        for call in [
            "",
            "POST stock.internal/reservations by orders.internal in ",
            "POST payments.internal/charges by orders.internal in ",
        ]
    )


def test_calls_at_once_are_numbered_as_they_start() -> None:
    of_the_order = "by orders.internal in POST orders.internal/"
    assert names_of("calls at once in one order") == [
        "POST orders.internal/",
        f"POST stock.internal/tea {of_the_order}",
        f"POST stock.internal/milk {of_the_order}",
        f"POST stock.internal/tea (number 2) {of_the_order}",
    ]


def test_each_hop_of_a_redirect_is_a_call() -> None:
    assert names_of("redirects from one service to another") == [
        "POST old.internal/here",
        "POST new.internal:8443/there",
    ]


def test_a_caller_at_a_wildcard_has_the_name_of_the_pattern() -> None:
    caller = "by http://*.orders.internal:8080 in POST eu.orders.internal:8080/"
    assert names_of("hosts of all kinds") == [
        "POST eu.orders.internal:8080/",
        f"POST ada.tenants.internal/ {caller}",
        f"POST bob.tenants.internal:8080/ {caller}",
        f"POST pay.internal/ {caller}",
        f"POST pay.internal/ (number 2) {caller}",
        f"POST [::1]/ {caller}",
        f"POST [::1]:8080/ {caller}",
        f"POST 127.0.0.1/ {caller}",
        f"POST xn--bcher-kva.example/ {caller}",
        f"POST api.internal./ {caller}",
    ]


def test_a_call_of_a_lifespan_has_a_caller_and_no_parent() -> None:
    assert names_of("a call of a lifespan") == [
        "POST orders.internal/",
        "POST settings.internal/orders by orders.internal",
    ]


def test_a_call_after_the_response_belongs_to_its_request() -> None:
    assert names_of("a call after the response") == [
        "POST orders.internal/",
        "POST mail.internal/events by orders.internal in POST orders.internal/",
    ]
