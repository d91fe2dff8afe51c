"""`partition()`: which calls meet it, what they and open connections see of it, and what arrives when it ends."""

import asyncio
import contextlib
import re
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientTimeout, WSMsgType

from asgi_connector import ASGIApplicationConnector, ASGIRoutingConnector, faults
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import AIOHTTP
from tests.support.services import Service, System, running
from tests.support.waiting import settle, soon, until

SHORT_CONNECT = ClientTimeout(sock_connect=0.05)
SHORT_READ = ClientTimeout(sock_read=0.05)
ORDERS, PAYMENTS, MAIL = "orders.internal", "payments.internal", "mail.internal"


async def fill_pool(system: System, name: str) -> None:
    """Leave one idle connection to the service in the pool."""
    assert await system.outcome(name) == name


async def test_calls_between_groups_are_refused_in_both_directions_and_no_others() -> None:
    async with running("orders", "payments", "mail", "other") as system:
        connector = system.connector
        with connector.partition({ORDERS}, {PAYMENTS, MAIL}, fault=faults.Refuse()) as partition:
            refused = {
                "orders": [await system.outcome("orders", f"/via/{name}") for name in ("payments", "mail", "other")],
                "payments": [await system.outcome("payments", f"/via/{name}") for name in ("orders", "mail", "other")],
                "other": [await system.outcome("other", f"/via/{name}") for name in ("orders", "payments")],
            }
            error = "ClientConnectorError"
            assert refused == {
                "orders": [error, error, "other"],
                "payments": [error, "mail", "other"],
                "other": ["orders", "payments"],
            }
            assert [await system.outcome(name) for name in ("orders", "payments")] == ["orders", "payments"]
        assert (partition.matched, partition.affected) == (3, 3)
        assert await system.outcome("orders", "/via/payments") == "payments"


async def test_none_stands_for_calls_from_outside_every_app() -> None:
    async with running("orders", "payments") as system:
        with system.connector.partition({None}, {PAYMENTS}, fault=faults.Refuse()):
            assert await system.outcome("payments") == "ClientConnectorError"
            assert await system.outcome("orders", "/via/payments") == "payments"
        with system.connector.partition({None, ORDERS}, {PAYMENTS}, fault=faults.Refuse()):
            assert await system.outcome("orders", "/via/payments") == "ClientConnectorError"
            assert await system.outcome("orders") == "orders"


async def test_a_new_connection_gets_no_answer_until_the_end_of_the_block() -> None:
    async with running("payments") as system:
        with system.connector.record() as journal, system.connector.partition({None}, {PAYMENTS}):
            assert await system.outcome("payments", timeout=SHORT_CONNECT) == "ConnectionTimeoutError"
            asking = system.start("payments")
            await settle()
            assert not asking.done()
            assert system["payments"].calls == 0
            assert (journal[1].via, journal[1].fault, journal[1].state) == ("fault", faults.Hang(), "running")
        assert await soon(asking) == "payments"
        assert [each.state for each in journal] == ["abandoned", "done"]
        assert journal[1].via == "app"
        assert journal[1].reused is False


class Slow(Service):
    """A service whose startup and first request wait for `go`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self.calls == 0:
            self.waiting.set()
            if scope["type"] == "http":
                self.calls += 1
            await self.go.wait()
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("fault", [faults.Hang(), faults.Refuse()], ids=["hang", "refuse"])
@pytest.mark.parametrize("reason", ["a startup", "a free connection", "an idle connection", "another partition"])
async def test_a_request_that_still_waits_for_its_connection_when_the_network_is_parted_meets_it(
    reason: str, fault: Any, recorded: bool
) -> None:
    settings: dict[str, Any] = {"a free connection": {"limit": 1}, "an idle connection": {"limit_per_host": 1}}
    slow = Slow("slow", System())
    async with running("orders", "mail", apps={"slow": slow}, **settings.get(reason, {})) as system:
        with contextlib.ExitStack() as first, contextlib.ExitStack() as recording:
            others: list[asyncio.Task[str]] = []
            journal = recording.enter_context(system.connector.record()) if recorded else None
            if reason == "a free connection":
                others.append(system.start("mail", "/wait"))
            elif reason == "an idle connection":
                others.append(system.start("orders", "/via/slow"))
            elif reason == "another partition":
                first.enter_context(system.connector.partition({None}, {"slow.internal"}))
            await settle()
            asking = system.start("slow")
            await settle()
            with system.connector.partition({None}, {"slow.internal"}, fault=fault) as partition:
                slow.go.set()
                system["mail"].go.set()
                first.close()
                await settle()
                assert slow.bodies == [b""] * (reason == "an idle connection")
                assert asking.done() == isinstance(fault, faults.Refuse)
                assert (partition.matched, partition.affected) == (1, 1)
            assert await soon(asking) == ("slow" if isinstance(fault, faults.Hang) else "ClientConnectorError")
            for other in others:
                assert await soon(other) in ("mail", "slow")
        assert journal is None or [call.fault for call in journal if call.caller is None][-1] == fault


async def test_an_idle_connection_is_used_and_is_silent() -> None:
    """As on a network: a client that has an idle connection does not know of the partition."""
    async with running("payments") as system:
        await fill_pool(system, "payments")
        with system.connector.record() as journal, system.connector.partition({None}, {PAYMENTS}):
            asking = system.start("payments")
            await settle()
            assert not asking.done()
            assert journal[0].reused is True
            assert system["payments"].calls == 1  # the one before
        assert await soon(asking) == "payments"
        assert (journal[0].state, journal[0].fault) == ("done", faults.Hang())


async def test_a_timeout_to_connect_does_not_end_a_request_on_an_idle_connection() -> None:
    async with running("payments") as system:
        await fill_pool(system, "payments")
        with system.connector.partition({None}, {PAYMENTS}):
            assert await system.outcome("payments", timeout=SHORT_READ) == "SocketTimeoutError"
            # Its connection is closed, and the next request has to connect.
            assert await system.outcome("payments", timeout=SHORT_CONNECT) == "ConnectionTimeoutError"


async def test_an_idle_connection_that_has_expired_is_not_used() -> None:
    async with running("payments", keepalive_timeout=0) as system:
        await fill_pool(system, "payments")
        with system.connector.partition({None}, {PAYMENTS}):
            assert await system.outcome("payments", timeout=SHORT_CONNECT) == "ConnectionTimeoutError"


@pytest.mark.skipif(AIOHTTP < (3, 14, 0), reason="aiohttp 3.13 knows no pool without a keepalive_timeout")
async def test_an_idle_connection_without_a_limit_of_its_age_is_used() -> None:
    async with running("payments", keepalive_timeout=None) as system:
        await fill_pool(system, "payments")
        with system.connector.partition({None}, {PAYMENTS}):
            assert await system.outcome("payments", timeout=SHORT_READ) == "SocketTimeoutError"


async def test_what_was_sent_in_a_partition_arrives_after_it_though_its_client_has_gone() -> None:
    """As the kernel of a client goes on sending what was written to a socket that has been closed."""
    async with running("payments") as system:
        await fill_pool(system, "payments")
        with system.connector.partition({None}, {PAYMENTS}):
            assert await system.outcome("payments", data=b"pay", timeout=SHORT_READ) == "SocketTimeoutError"
            await settle()
            assert system["payments"].calls == 1
        await until(lambda: system["payments"].ended == 2)
        assert system["payments"].bodies == [b"", b"pay"]


async def test_a_request_in_progress_goes_silent_and_its_response_arrives_late() -> None:
    async with running("payments") as system:
        payments = system["payments"]
        asking = system.start("payments", "/wait")
        await payments.waiting.wait()
        with system.connector.partition({None}, {PAYMENTS}) as partition:
            payments.go.set()
            await until(lambda: payments.ended == 1)
            await settle()
            assert not asking.done()
            assert partition.affected == 1
        assert await soon(asking) == "payments"


async def test_a_request_in_progress_is_reset_if_the_partition_refuses() -> None:
    async with running("payments") as system:
        with system.connector.record() as journal:
            asking = system.start("payments", "/wait")
            await system["payments"].waiting.wait()
            with system.connector.partition({None}, {PAYMENTS}, fault=faults.Refuse()):
                assert await soon(asking) == "ClientOSError"
            assert journal[0].fault == faults.Refuse()
            assert isinstance(journal[0].error, aiohttp.ClientOSError)
            system["payments"].go.set()


async def test_a_client_that_leaves_in_a_partition_is_noticed_only_after_it() -> None:
    gone = asyncio.Event()
    asked = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        asked.set()
        await receive()
        gone.set()

    async with running(apps={"payments": app}, lifespan="off") as system:
        asking = system.start("payments")
        await asked.wait()
        with system.connector.partition({None}, {PAYMENTS}):
            asking.cancel()
            await settle()
            assert not gone.is_set()
        await soon(gone.wait())


async def test_an_open_websocket_goes_silent_and_its_messages_arrive_late() -> None:
    async with running("chat") as system, system.session.ws_connect("http://chat.internal/") as websocket:
        with system.connector.partition({None}, {"chat.internal"}) as partition:
            await websocket.send_str("late")
            receiving = asyncio.ensure_future(websocket.receive_str())
            await settle()
            assert not receiving.done()
        assert await soon(receiving) == "late"
        assert partition.affected == 1


async def test_an_open_websocket_is_cut_if_the_partition_refuses() -> None:
    async with running("chat") as system, system.session.ws_connect("http://chat.internal/") as websocket:
        with system.connector.partition({None}, {"chat.internal"}, fault=faults.Refuse()):
            assert (await soon(websocket.receive())).type is WSMsgType.CLOSED
            assert websocket.close_code == 1006
            await until(lambda: system["chat"].ended == 1)


async def test_a_stream_that_goes_silent_in_its_middle_loses_nothing() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async with (
        running(apps={"news": app}, lifespan="off") as system,
        system.session.get("http://news.internal/") as response,
    ):
        assert await response.content.readexactly(3) == b"one"
        with system.connector.partition({None}, {"news.internal"}):
            go_on.set()
            reading = asyncio.ensure_future(response.read())
            await settle()
            assert not reading.done()
        assert await soon(reading) == b"two"


async def test_a_continue_does_not_pass_a_partition() -> None:
    async with running("payments") as system:
        await fill_pool(system, "payments")
        with system.connector.partition({None}, {PAYMENTS}):
            asking = system.start("payments", data=b"pay", expect100=True)
            await settle()
            assert not asking.done()
        assert await soon(asking) == "payments"
        assert system["payments"].bodies == [b"", b"pay"]


async def test_an_app_that_replaces_another_one_is_in_its_group() -> None:
    async with running("orders", "payments", "other") as system:
        with system.connector.partition({ORDERS}, {PAYMENTS}, fault=faults.Refuse()):
            async with system.connector.mounted(PAYMENTS, system["other"]):
                assert await system.outcome("orders", "/via/payments") == "ClientConnectorError"
            await system.connector.unmount(PAYMENTS)
            assert await system.outcome("orders", "/via/payments") == "UnmountedHostError"


async def test_a_request_to_an_app_that_is_mounted_no_more_is_in_no_group() -> None:
    async with running("orders", "payments") as system:
        asking = system.start("payments", "/wait")
        await system["payments"].waiting.wait()
        unmounting = asyncio.ensure_future(system.connector.unmount(PAYMENTS))
        await settle()
        with system.connector.partition({None}, {ORDERS}, allow_unused=True):
            system["payments"].go.set()
            assert await soon(asking) == "payments"
        await unmounting


async def test_the_group_is_that_of_the_mount_that_answers() -> None:
    async with running("orders", "payments", apps={"*.payments": _ok}, lifespan="off") as system:
        with system.connector.partition({ORDERS}, {"*.payments.internal"}, fault=faults.Refuse()):
            assert await system.outcome("orders", "/via/eu.payments") == "ClientConnectorError"
            assert await system.outcome("orders", "/via/payments") == "payments"


async def _ok(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_partitions_overlap_and_each_heals_its_own() -> None:
    async with running("orders", "payments", "mail") as system:
        first = system.connector.partition({ORDERS}, {PAYMENTS}, fault=faults.Refuse())
        second = system.connector.partition({ORDERS, PAYMENTS}, {MAIL}, fault=faults.Refuse())
        first.__enter__()
        second.__enter__()
        assert await system.outcome("orders", "/via/payments") == "ClientConnectorError"
        assert await system.outcome("orders", "/via/mail") == "ClientConnectorError"
        first.__exit__(None, None, None)
        assert await system.outcome("orders", "/via/payments") == "payments"
        assert await system.outcome("orders", "/via/mail") == "ClientConnectorError"
        second.__exit__(None, None, None)
        assert await system.outcome("orders", "/via/mail") == "mail"


async def test_a_partition_and_an_injected_fault_combine() -> None:
    async with running("orders", "payments") as system:
        connector = system.connector
        with connector.partition({ORDERS}, {PAYMENTS}), connector.inject(PAYMENTS, faults.Reset(), allow_unused=True):
            asking = system.start("orders", "/via/payments")
            await settle()
            assert not asking.done()
        assert await soon(asking) == "payments"
        with connector.inject(PAYMENTS, faults.Reset()), connector.partition({ORDERS}, {PAYMENTS}, allow_unused=True):
            assert await system.outcome("payments") == "ClientOSError"


async def test_a_session_that_is_intercepted_meets_the_partition() -> None:
    async with running("payments") as system, aiohttp.ClientSession() as other:
        with (
            system.connector.intercept(),
            system.connector.partition({None}, {PAYMENTS}, fault=faults.Refuse()),
            pytest.raises(aiohttp.ClientConnectorError),
        ):
            await other.get(f"http://{PAYMENTS}/")


async def test_a_refused_call_is_as_that_of_a_server_that_does_not_listen() -> None:
    async with running("payments") as system:
        with (
            system.connector.partition({None}, {PAYMENTS}, fault=faults.Refuse()),
            pytest.raises(aiohttp.ClientConnectorError, match="Connect call failed") as caught,
        ):
            await system.session.get(f"http://{PAYMENTS}/")
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert caught.value.os_error is caught.value.__cause__


async def test_closing_the_connector_ends_what_waits_in_a_partition() -> None:
    async with running("payments") as system:
        with system.connector.partition({None}, {PAYMENTS}):
            connecting = system.start("payments")
            await settle()
            await system.connector.close()
            assert await soon(connecting) == "ClientConnectionError"


async def test_with_one_app_for_every_host_it_is_parted_from_the_outside() -> None:
    connector = ASGIApplicationConnector(_ok, lifespan="off")
    async with aiohttp.ClientSession(connector=connector) as session:
        with connector.partition({None}, {"*"}, fault=faults.Refuse()), pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://any.internal/")


# Mistakes.

MISTAKES: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ((), {}, ValueError, "a partition needs two groups or more, not 0: "),
    (({ORDERS},), {}, ValueError, "a partition needs two groups or more, not 1: {'orders.internal'}"),
    (({ORDERS}, set()), {}, ValueError, "each group must have a host: {'orders.internal'}, {}"),
    (
        (ORDERS, PAYMENTS),
        {},
        TypeError,
        "a group must be a set of host patterns, not 'orders.internal': write {'orders.internal'}",
    ),
    (({ORDERS}, {1}), {}, TypeError, "a group has host patterns and None, not 1"),
    (({ORDERS}, None), {}, TypeError, "a group must be a set of host patterns, not None"),
    (
        ({ORDERS}, {PAYMENTS, ORDERS.upper()}),
        {},
        ValueError,
        "'ORDERS.INTERNAL' is in two groups: {'orders.internal'}, {'ORDERS.INTERNAL', 'payments.internal'}",
    ),
    (({None}, {None, ORDERS}), {}, ValueError, "None is in two groups: {None}, {None, 'orders.internal'}"),
    (
        ({ORDERS}, {"paymets.internal"}),
        {},
        ValueError,
        "'paymets.internal' is not mounted. Did you mean 'payments.internal'? Mounted: 'orders.internal', ",
    ),
    (({ORDERS}, {"*"}), {}, ValueError, "'*' is not mounted. Mounted: 'orders.internal', 'payments.internal'."),
    (({ORDERS}, {"a/b"}), {}, ValueError, "'a/b': a host pattern has no path; "),
    *(
        (
            ({ORDERS}, {PAYMENTS}),
            {"fault": fault},
            ValueError,
            f"the fault of a partition must be faults.Hang() or faults.Refuse(), not {fault!r}",
        )
        for fault in (faults.Reset(), faults.Hang("request"), faults.Hang(after=3), faults.Hang, "Hang")
    ),
]


@pytest.mark.parametrize(
    ("groups", "settings", "error", "message"), MISTAKES, ids=[message for _, _, _, message in MISTAKES]
)
async def test_a_partition_that_makes_no_sense_is_refused(
    groups: tuple[Any, ...], settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    async with running("orders", "payments") as system:
        with pytest.raises(error, match=f"^{re.escape(message)}"):
            system.connector.partition(*groups, **settings)


async def test_groups_may_be_any_iterable_and_a_host_may_be_named_twice_in_one() -> None:
    async with running("orders", "payments") as system:
        with system.connector.partition([ORDERS, ORDERS], iter([PAYMENTS]), fault=faults.Refuse()) as partition:
            assert repr(partition) == (
                "<Partition {'orders.internal', 'orders.internal'}, {'payments.internal'}, Refuse(), 0 affected>"
            )
            assert await system.outcome("orders", "/via/payments") == "ClientConnectorError"


async def test_a_partition_that_affects_nothing_fails() -> None:
    async with running("orders", "payments") as system:
        with pytest.raises(AssertionError) as caught, system.connector.partition({ORDERS}, {PAYMENTS}):
            await system.outcome("orders")
        assert str(caught.value) == (
            "partition({'orders.internal'}, {'payments.internal'}) has affected nothing: there was no request from one "
            "group to another while it was open.\n"
            "  POST http://orders.internal/: 200\n"
            "A block that affects nothing has tested nothing; allow_unused=True permits it."
        )
        with system.connector.partition({ORDERS}, {PAYMENTS}, allow_unused=True):
            pass
        with pytest.raises(ZeroDivisionError), system.connector.partition({ORDERS}, {PAYMENTS}):
            raise ZeroDivisionError


async def test_a_partition_that_is_not_entered_does_nothing_and_warns() -> None:
    async with running("orders", "payments") as system:
        with pytest.warns(RuntimeWarning, match=r"partition\(\{'orders.internal'\}, .* was never entered"):
            system.connector.partition({ORDERS}, {PAYMENTS})


async def test_a_closed_connector_cannot_be_parted() -> None:
    connector = ASGIRoutingConnector({ORDERS: _ok, PAYMENTS: _ok}, lifespan="off")
    await connector.close()
    with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
        connector.partition({ORDERS}, {PAYMENTS})
