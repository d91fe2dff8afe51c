"""Every failure of every call, tried for you: what must hold whatever fails."""

import logging
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_connector import faults

from .system import Shop, run_shop

FAULTS: list[faults.Fault] = [
    faults.Refuse(),
    faults.Reset(),
]  # the call was not done; or it was, and its answer is lost


class Stripe:
    """What the shop needs of Stripe: the same key gets the same charge, and is not charged again."""

    def __init__(self) -> None:
        self.charges: dict[str, str] = {}
        self.refunds = Counter[str]()
        self.app = Starlette(
            routes=[
                Route("/v1/charges", self.charge, methods=["POST"]),
                Route("/v1/refunds", self.refund, methods=["POST"]),
            ]
        )

    async def charge(self, request: Request) -> Response:
        charge = self.charges.setdefault(request.headers["Idempotency-Key"], f"ch_{len(self.charges) + 1}")
        return JSONResponse({"id": charge}, 201)

    async def refund(self, request: Request) -> Response:
        async with request.form() as form:
            self.refunds[str(form["charge"])] = 1
        return JSONResponse({"id": "re_1"})


async def send_mail(request: Request) -> Response:
    return JSONResponse({"Message": "OK"})


POSTMARK = Starlette(routes=[Route("/email", send_mail, methods=["POST"])])


class Scenario:
    """A customer orders one of two pieces, and tries once more if there is no answer."""

    def __init__(self, caplog: pytest.LogCaptureFixture, *, buggy: bool) -> None:
        self._log = caplog
        self._buggy = buggy

    async def __call__(self, shake: faults.Shake) -> None:
        self._log.clear()
        stripe = Stripe()
        async with AsyncExitStack() as running:
            shop = await running.enter_async_context(run_shop(buggy=self._buggy))
            await running.enter_async_context(shop.connector.mounted("api.stripe.com", stripe.app))
            await running.enter_async_context(shop.connector.mounted("api.postmarkapp.com", POSTMARK))
            await shop.fill("tea", 2)
            status = None
            with shake(shop.connector):
                status, _ = await shop.order("tea")
                await self._is_told(shop, status)
            if status is None:
                status, _ = await shop.order("tea")
            left = await shop.left("tea")
        self._check(status == 201, stripe, left, str(shake.plan))

    async def _is_told(self, shop: Shop, status: int) -> None:
        """Wait for the call that is made after the response, so that it is made in each run."""
        if status == 201:
            await shop.journal.wait_for("notifications.internal", timeout=30)

    def _check(self, placed: bool, stripe: Stripe, left: int, plan: str) -> None:
        charged = len(stripe.charges) - stripe.refunds.total()
        assert charged <= 1, f"charged twice: {plan}"
        assert left <= 2, f"undone twice: {plan}"
        if not self._by_hand("charges"):
            assert charged == placed, f"charged, and no order: {plan}"
        if not self._by_hand("reservations"):
            assert left == 2 - placed, f"reserved, and no order: {plan}"

    def _by_hand(self, what: str) -> bool:
        """Whether the operators are told to undo it, because the shop could not."""
        return any("by hand" in message and what in message for message in self._log.messages)


@pytest.fixture(autouse=True)
def settings_of_many_runs(settings: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("STOCK_DATABASE", ":memory:")
    monkeypatch.setenv("PAYMENTS_TIMEOUT", "30")  # no fault here takes time
    caplog.set_level(logging.ERROR)


async def test_the_shop_survives_two_failures_of_any_calls(caplog: pytest.LogCaptureFixture) -> None:
    report = await faults.explore(Scenario(caplog, buggy=False), FAULTS)
    assert report, report


async def test_four_bugs_are_found(caplog: pytest.LogCaptureFixture) -> None:
    report = await faults.explore(Scenario(caplog, buggy=True), FAULTS, runs=40)
    found = [str(finding.error).partition(":")[0] for finding in report.findings]
    assert sorted(found) == ["charged twice", "charged, and no order", "reserved, and no order", "undone twice"], report
