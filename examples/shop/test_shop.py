"""The shop as its customers and its operators see it."""

import asyncio
import re
from collections import Counter

import pytest

from asgi_connector import Stub, UnmountedHostError, faults

from . import stock
from .system import CUSTOMER, Shop, run_shop

CHARGE, RELEASE = re.compile(r"/charges/\w+"), re.compile(r"/reservations/\w+")


@pytest.fixture
def stripe_charges(shop: Shop) -> None:
    shop.stripe.post("/v1/charges", status=201, json={"id": "ch_1"})


@pytest.fixture
def postmark_delivers(shop: Shop) -> None:
    shop.postmark.post("/email", json={"Message": "OK"})


async def mails_of(shop: Shop, number: int) -> list[object]:
    """Wait until so many mails are sent. Orders send theirs after the response."""
    sent = await shop.journal.wait_for("api.postmarkapp.com", times=number)
    return [each.request.body for each in sent]


@pytest.mark.usefixtures("stripe_charges", "postmark_delivers")
async def test_an_order_is_reserved_then_charged_then_confirmed(shop: Shop) -> None:
    await shop.fill("tea", 5)
    status, order = await shop.order("tea", 2)
    assert (status, order["cents"]) == (201, 500)
    assert await shop.left("tea") == 3
    await mails_of(shop, 1)
    calls = shop.journal.select(caller="orders.internal")
    assert [(each.service, each.method, each.status) for each in calls] == [
        ("stock.internal", "PUT", 201),
        ("payments.internal", "PUT", 201),
        ("stock.internal", "POST", 200),
        ("notifications.internal", "POST", 202),
    ]
    [charge] = shop.journal.assert_called("api.stripe.com", caller="payments.internal", times=1)
    assert charge.request.body == b"amount=500&currency=eur&source=tok_visa"
    assert charge.request.headers["Idempotency-Key"] == order["number"]
    assert charge.request.headers["Authorization"] == "Bearer sk_test"


async def test_what_is_out_of_stock_is_not_charged(shop: Shop) -> None:
    await shop.fill("tea", 1)
    assert await shop.order("tea", 2) == (409, {"detail": "1 of tea left"})
    assert await shop.order("coffee") == (404, {"detail": "there is no coffee"})
    assert await shop.left("tea") == 1
    shop.journal.assert_not_called("payments.internal")


async def test_a_declined_payment_releases_the_goods(shop: Shop) -> None:
    await shop.fill("tea", 1)
    payments = Stub()
    payments.put(CHARGE, status=402, json={"detail": "the card has expired"})
    payments.delete(CHARGE, status=204)
    async with shop.connector.mounted("payments.internal", payments):
        assert await shop.order("tea") == (402, {"detail": "the card has expired"})
    payments.assert_all_used()
    shop.journal.assert_called("stock.internal", method="DELETE", path=RELEASE, status=204, times=1)
    assert await shop.left("tea") == 1


async def test_the_customer_is_told_why_stripe_declines_a_card(shop: Shop) -> None:
    await shop.fill("tea", 1)
    shop.stripe.post("/v1/charges", status=402, json={"error": {"message": "Your card was declined."}})
    assert await shop.order("tea") == (402, {"detail": "Your card was declined."})
    shop.journal.assert_not_called("api.stripe.com", path="/v1/refunds")
    assert await shop.left("tea") == 1


@pytest.mark.usefixtures("stripe_charges")
async def test_a_payment_that_was_made_but_came_too_late_is_refunded(shop: Shop) -> None:
    await shop.fill("tea", 1)
    shop.stripe.post("/v1/refunds", json={"id": "re_1"}, times=1)
    with shop.connector.inject("payments.internal", faults.Hang(on="response"), method="PUT"):
        assert await shop.order("tea") == (503, {"detail": "please try again later"})
    [charge] = shop.journal.assert_called("payments.internal", method="PUT", path=CHARGE, times=1)
    assert (charge.state, charge.status) == ("abandoned", None)
    [refund] = shop.journal.assert_called("api.stripe.com", path="/v1/refunds", times=1)
    assert refund.request.body == b"charge=ch_1"
    assert await shop.left("tea") == 1


async def test_a_payment_service_that_is_down_costs_nobody_anything(shop: Shop) -> None:
    await shop.fill("tea", 1)
    with shop.connector.inject("payments.internal", faults.Refuse()) as down:
        assert (await shop.order("tea"))[0] == 503
    assert down.affected == 2  # the charge, and its cancellation
    shop.journal.assert_not_called("api.stripe.com")
    assert await shop.left("tea") == 1


@pytest.mark.usefixtures("stripe_charges")
async def test_a_reservation_that_is_lost_gives_the_money_back(shop: Shop) -> None:
    await shop.fill("tea", 1)
    shop.stripe.post("/v1/refunds", json={"id": "re_1"}, times=1)
    gone = faults.Respond(410)
    with shop.connector.inject("stock.internal", gone, path=re.compile(r"/reservations/\w+/commit"), times=1):
        assert (await shop.order("tea"))[0] == 503
    assert await shop.left("tea") == 1


@pytest.mark.usefixtures("stripe_charges")
async def test_a_customer_who_listens_is_told_at_once(shop: Shop) -> None:
    await shop.fill("tea", 2)
    async with shop.session.ws_connect(f"http://notifications.internal/listeners/{CUSTOMER}") as listener:
        _, order = await shop.order("tea")
        assert await listener.receive_json() == {"text": f"Thank you for your order {order['number']}"}
    shop.journal.assert_not_called("api.postmarkapp.com")


@pytest.mark.usefixtures("stripe_charges")
async def test_the_others_get_a_mail(shop: Shop) -> None:
    await shop.fill("tea", 1)  # so that the buyers are told too
    mails = [("buyers@shop.example", "tea is sold out"), (CUSTOMER, "Thank you for your order")]
    for to, _ in mails:
        shop.postmark.post("/email", json={"To": to})
    await shop.order("tea")
    for sent, (to, text) in zip(await mails_of(shop, 2), mails, strict=True):
        assert isinstance(sent, bytes)
        assert to in sent.decode()
        assert text in sent.decode()


@pytest.mark.usefixtures("stripe_charges")
async def test_an_order_stands_though_the_customer_is_not_told(shop: Shop) -> None:
    await shop.fill("tea", 2)
    with shop.connector.inject("notifications.internal", faults.Reset(on="request")):
        assert (await shop.order("tea"))[0] == 201
        await shop.journal.wait_for("notifications.internal", times=1)
    assert await shop.left("tea") == 1


@pytest.mark.usefixtures("stripe_charges", "postmark_delivers")
async def test_a_second_try_with_the_same_key_is_the_same_order(shop: Shop) -> None:
    await shop.fill("tea", 5)
    tries = await asyncio.gather(*(shop.order("tea", key="k") for _ in range(3)))
    assert len({str(order) for _, order in tries}) == 1
    assert [status for status, _ in tries] == [201, 201, 201]
    await mails_of(shop, 1)
    shop.journal.assert_called("api.stripe.com", times=1)
    assert await shop.left("tea") == 4


@pytest.mark.usefixtures("stripe_charges", "postmark_delivers")
async def test_of_twenty_customers_one_gets_the_last_piece(shop: Shop) -> None:
    await shop.fill("tea", 1)
    orders = await asyncio.gather(*(shop.order("tea", key=str(number)) for number in range(20)))
    assert Counter(status for status, _ in orders) == {201: 1, 409: 19}
    await mails_of(shop, 2)
    shop.journal.assert_called("api.stripe.com", times=1)
    assert await shop.left("tea") == 0


@pytest.mark.usefixtures("stripe_charges", "postmark_delivers")
async def test_the_stock_is_restarted_and_nothing_is_lost(shop: Shop) -> None:
    await shop.fill("tea", 5)
    assert (await shop.order("tea", key="1"))[0] == 201
    shop.connector.mount("stock.internal", stock.create_app())
    assert (await shop.order("tea", key="2"))[0] == 201
    assert await shop.left("tea") == 3
    await mails_of(shop, 2)


@pytest.mark.usefixtures("stripe_charges", "postmark_delivers")
async def test_the_id_of_a_request_goes_all_the_way_to_stripe(shop: Shop) -> None:
    await shop.fill("tea", 5)
    await shop.order("tea", headers={"X-Request-ID": "trace-me"})
    await mails_of(shop, 1)
    hosts = [each.service for each in shop.journal if each.request.headers.get("X-Request-ID") == "trace-me"]
    assert Counter(hosts) == {
        "orders.internal": 1,
        "stock.internal": 2,
        "payments.internal": 1,
        "api.stripe.com": 1,
        "notifications.internal": 1,
        "api.postmarkapp.com": 1,
    }


async def test_a_bug_of_a_service_is_raised_here_with_its_traceback(shop: Shop) -> None:
    with pytest.raises(KeyError, match="'cents'") as caught:
        await shop.session.put("http://stock.internal/items/tea", json={"available": 5})
    assert caught.traceback[-1].name == "put_item"


async def test_a_wrong_setting_does_not_pass_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCK_URL", "http://stok.internal")
    refused = r"2 calls of services were refused(.|\n)*orders\.internal: PUT http://stok\.internal/reservations"
    with pytest.raises(AssertionError, match=refused) as caught:
        async with run_shop() as shop:
            assert (await shop.order("tea"))[0] == 503  # the service has handled the error
    assert "Did you mean 'stock.internal'?" in str(caught.value)


async def test_nothing_leaves_this_process(shop: Shop) -> None:
    with pytest.raises(UnmountedHostError):
        await shop.session.get("https://www.example.org/")
