"""`hold()`: which messages it keeps and until when, in which order they go on, and what becomes of those dropped."""

import asyncio
import io
import re
from itertools import combinations
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientTimeout, HttpVersion10, web

from asgi_connector import ASGIRoutingConnector, faults
from asgi_connector._http1.ends import ResponseEnd
from asgi_connector._network.holding import HOLD_WINDOW, HoldStage
from asgi_connector._types import ASGIApp, Receive, Scope, Send
from tests.support.services import running
from tests.support.waiting import run_turns, settle, soon, until

PAYMENTS = "payments.internal"
SHORT_READ = ClientTimeout(sock_read=0.05)


async def test_responses_arrive_in_the_order_in_which_they_are_released() -> None:
    async with running("payments") as system:
        arrived: list[str] = []

        async def ask(name: str) -> None:
            await system.outcome("payments", f"/{name}")
            arrived.append(name)

        with system.connector.hold(PAYMENTS, on="response") as held:
            clients = [asyncio.create_task(ask(name)) for name in ("first", "second")]
            first, second = await held.wait(2)
            await settle()
            assert (arrived, system["payments"].ended) == ([], 2)
            assert [message.exchange.path for message in (first, second)] == ["/first", "/second"]
            second.release()
            await clients[1]
            first.release()
            await clients[0]
        assert arrived == ["second", "first"]


async def test_a_request_that_is_held_does_not_reach_its_app() -> None:
    async with running("payments") as system:
        with system.connector.record() as journal, system.connector.hold(PAYMENTS, on="request") as held:
            asking = system.start("payments", data=b"pay")
            [message] = await held.wait()
            await settle()
            assert system["payments"].calls == 0
            assert message.exchange is journal[0]
            assert (journal[0].via, journal[0].fault) == ("fault", faults.Held("request"))
            message.release()
            assert await soon(asking) == "payments"
        assert system["payments"].bodies == [b"pay"]
        assert (journal[0].via, journal[0].fault, journal[0].state) == ("app", faults.Held("request"), "done")
        assert "Held(on='request')" in str(journal[0])


@pytest.mark.parametrize("on", ["request", "response"])
async def test_what_is_still_held_at_the_end_is_released(on: Any) -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS, on=on) as held:
            asking = [system.start("payments", f"/{number}") for number in range(3)]
            await held.wait(3)
        assert [await soon(each) for each in asking] == ["payments"] * 3
        assert await system.outcome("payments") == "payments"


@pytest.mark.parametrize("on", ["request", "response"])
async def test_a_message_that_is_dropped_never_arrives(on: Any) -> None:
    async with running("payments") as system:
        with system.connector.record() as journal:
            with system.connector.hold(PAYMENTS, on=on) as held:
                asking = system.start("payments")
                [message] = await held.wait()
                message.drop()
                message.drop()
            # The connection is dead for good, also after the block.
            await settle()
            assert not asking.done()
            assert system["payments"].calls == (0 if on == "request" else 1)
            assert journal[0].fault == faults.Dropped(on)
            asking.cancel()
            await asyncio.wait([asking])
            assert journal[0].state == "abandoned"
        assert await system.outcome("payments") == "payments"


@pytest.mark.parametrize("on", ["request", "response"])
async def test_the_client_of_a_dropped_message_waits_until_its_timeout(on: Any) -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS, on=on) as held:
            asking = system.start("payments", timeout=SHORT_READ)
            [message] = await held.wait()
            message.drop()
            assert await soon(asking) == "SocketTimeoutError"


async def test_the_app_of_a_dropped_response_learns_that_its_client_has_gone() -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok", "more_body": True})
        told.append((await receive())["type"])

    async with running(apps={"payments": app}, lifespan="off") as system:
        with system.connector.hold(PAYMENTS) as held:
            asking = system.start("payments")
            [message] = await held.wait()
            message.drop()
            await settle()
            assert told == []
            asking.cancel()
            await until(lambda: told)
        assert told == ["http.disconnect"]


async def test_a_message_goes_on_once_and_a_second_decision_is_an_error() -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS) as held:
            asking = system.start("payments", "/1")
            [first] = await held.wait()
            first.release()
            first.release()
            assert await soon(asking) == "payments"
            with pytest.raises(RuntimeError, match=r"^<HeldMessage response of POST .*, released> cannot be dropped$"):
                first.drop()
            asking = system.start("payments", "/2", timeout=SHORT_READ)
            [second] = await held.wait()
            assert second.exchange.path == "/2"
            assert repr(held) == "<Hold of each response of 'payments.internal', 1 held>"
            second.drop()
            with pytest.raises(RuntimeError, match=r"^<HeldMessage response of POST .*, dropped> cannot be released$"):
                second.release()
            assert await soon(asking) == "SocketTimeoutError"


async def test_a_response_whose_client_has_left_is_held_no_more() -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS) as held:
            asking = system.start("payments")
            [message] = await held.wait()
            asking.cancel()
            await asyncio.wait([asking])
            await settle()
            with pytest.raises(AssertionError, match="but there was none"):
                await held.wait(timeout=0)
            assert "lost with its connection" in repr(message)
            message.release()
            message.drop()


async def test_a_request_whose_client_has_left_is_on_its_way_all_the_same() -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS, on="request") as held:
            assert await system.outcome("payments", data=b"pay", timeout=SHORT_READ) == "SocketTimeoutError"
            [message] = await held.wait()
            assert system["payments"].calls == 0
            message.release()
            await until(lambda: system["payments"].ended)
        assert system["payments"].bodies == [b"pay"]


# Which messages.


async def test_only_messages_that_match_are_held() -> None:
    async with running("orders", "payments") as system:
        with system.connector.hold(PAYMENTS, caller="orders.internal", method="post", path="/") as held:
            assert await system.outcome("payments") == "payments"
            order = system.start("orders", "/via/payments")
            [message] = await held.wait()
            assert message.exchange.caller == "orders.internal"
            message.release()
            assert await soon(order) == "payments"
        assert (held.matched, held.affected) == (1, 1)


async def test_a_request_that_has_begun_before_the_block_is_not_held() -> None:
    async with running("payments") as system:
        asking = system.start("payments", "/wait")
        await system["payments"].waiting.wait()
        with system.connector.hold(PAYMENTS, allow_unused=True):
            system["payments"].go.set()
            assert await soon(asking) == "payments"


async def test_the_answer_of_a_fault_is_held_too() -> None:
    async with running("payments") as system:
        with system.connector.inject(PAYMENTS, faults.Respond(503, body="no")), system.connector.hold(PAYMENTS) as held:
            asking = system.start("payments")
            [message] = await held.wait()
            await settle()
            assert not asking.done()
            message.release()
            assert await soon(asking) == "no"


async def test_a_request_that_is_refused_has_nothing_to_hold() -> None:
    async with running("payments") as system:
        with (
            system.connector.inject(PAYMENTS, faults.Refuse()),
            system.connector.hold(PAYMENTS, allow_unused=True) as held,
        ):
            assert await system.outcome("payments") == "ClientConnectorError"
        assert (held.matched, held.affected) == (1, 0)


async def test_a_hold_comes_after_the_other_faults_on_the_way() -> None:
    async with running("payments") as system:
        hold = system.connector.hold(PAYMENTS)
        with hold as held, system.connector.inject(PAYMENTS, faults.Hang()) as hang:
            asking = system.start("payments")
            await settle()
            with pytest.raises(AssertionError, match="Not held, because the whole response has not arrived"):
                await held.wait(timeout=0)
            hang.end_fault()
            [message] = await held.wait()
            message.release()
            assert await soon(asking) == "payments"


@pytest.mark.parametrize("on", ["request", "response"])
async def test_a_message_that_arrives_in_small_pieces_is_held_when_all_are_there(on: Any) -> None:
    async with running("payments") as system:
        slow = system.connector.inject(PAYMENTS, faults.Throttle(2000, on=on))
        with system.connector.hold(PAYMENTS, on=on) as held, slow:
            asking = system.start("payments", data=b"pay")
            [message] = await held.wait()
            message.release()
            assert await soon(asking) == "payments"
        assert system["payments"].bodies == [b"pay"]


async def test_a_response_that_is_cut_off_on_its_way_is_not_held() -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS) as held, system.connector.inject(PAYMENTS, faults.Reset(after=2)):
            assert await system.outcome("payments") in ("ClientOSError", "ClientPayloadError")
            with pytest.raises(AssertionError):
                await held.wait(timeout=0)


async def test_an_app_that_is_mounted_in_the_block_is_held_too() -> None:
    async with running("payments", "other") as system:
        with system.connector.hold(PAYMENTS) as held:
            async with system.connector.mounted(PAYMENTS, system["other"]):
                asking = system.start("payments")
                [message] = await held.wait()
                message.release()
                assert await soon(asking) == "other"


async def test_two_holds_keep_the_same_response_one_after_the_other() -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS) as outer, system.connector.hold(PAYMENTS) as inner:
            asking = system.start("payments")
            [first] = await inner.wait()
            first.release()
            [second] = await outer.wait()
            assert not asking.done()
            second.release()
            assert await soon(asking) == "payments"


# When a message is whole.


def answering(*messages: dict[str, Any]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        for message in messages:
            await send(message)

    return app


START = {"type": "http.response.start", "status": 200, "headers": []}
LENGTH = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]}
NO_CONTENT = {"type": "http.response.start", "status": 204, "headers": []}
ONE = {"type": "http.response.body", "body": b"one", "more_body": True}
TWO = {"type": "http.response.body", "body": b"two"}
EMPTY = {"type": "http.response.body", "body": b""}


@pytest.mark.parametrize(
    ("method", "messages", "version", "body"),
    [
        ("GET", (START, ONE, TWO), aiohttp.HttpVersion11, b"onetwo"),
        ("GET", (LENGTH, ONE, TWO), aiohttp.HttpVersion11, b"onetwo"),
        ("GET", (START, ONE, TWO), HttpVersion10, b"onetwo"),
        ("GET", (START, EMPTY), aiohttp.HttpVersion11, b""),
        ("GET", (NO_CONTENT, EMPTY), aiohttp.HttpVersion11, b""),
        ("HEAD", (LENGTH, EMPTY), aiohttp.HttpVersion11, b""),
    ],
    ids=["chunked", "length", "until the connection ends", "empty", "204", "HEAD"],
)
async def test_a_response_is_whole_by_its_framing(
    method: str, messages: tuple[Any, ...], version: Any, body: bytes
) -> None:
    connector = ASGIRoutingConnector({PAYMENTS: answering(*messages)}, lifespan="off")
    async with aiohttp.ClientSession(connector=connector, version=version) as session:
        with connector.hold(PAYMENTS) as held:
            asking = asyncio.ensure_future(session.request(method, f"http://{PAYMENTS}/"))
            [message] = await held.wait()
            await settle()
            assert not asking.done()
            message.release()
            async with await soon(asking) as response:
                assert await response.read() == body


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", ["asgi", "web"])
async def test_a_large_message_is_kept_whole_though_nobody_reads_it(kind: str, chunked: bool) -> None:
    """Without a wider window, the app and the client would wait at the high-water mark for each other."""
    size = 4 * 1024 * 1024
    headers = [] if chunked else [(b"content-length", b"%d" % size)]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    asgi = answering(start, {"type": "http.response.body", "body": bytes(size)})

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse()
        if chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = size
        await response.prepare(request)
        await response.write(bytes(size))
        return response

    application = web.Application(client_max_size=2 * size)
    application.router.add_post("/", handle)
    app: Any = asgi if kind == "asgi" else application

    async def pieces() -> Any:
        yield bytes(size)

    async with running(apps={"payments": app}) as system:
        with (
            system.connector.hold(PAYMENTS, on="request") as requests,
            system.connector.hold(PAYMENTS, on="response") as responses,
        ):
            asking = system.start("payments", data=pieces() if chunked else io.BytesIO(bytes(size)))
            [request] = await requests.wait()
            request.release()
            [response] = await responses.wait()
            response.release()
            assert len(await soon(asking)) == size


async def test_a_response_without_an_end_is_never_whole_and_does_not_stop_the_event_loop() -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(START)
        while sent < 2 * HOLD_WINDOW:
            await send({"type": "http.response.body", "body": bytes(1024 * 1024), "more_body": True})
            sent += 1024 * 1024

    async with running(apps={"payments": app}, lifespan="off") as system:
        with system.connector.hold(PAYMENTS) as held:
            asking = system.start("payments")
            with pytest.raises(AssertionError) as caught:
                await held.wait(timeout=0.1)
            assert HOLD_WINDOW <= sent < 2 * HOLD_WINDOW
            asking.cancel()
        assert str(caught.value) == (
            "Waited 0.1 s for 1 response of 'payments.internal' to be held, but there was none.\n"
            "Not held, because the whole response has not arrived:\n"
            "  POST http://payments.internal/: running [Held(on='response')]"
        )


async def test_a_response_that_breaks_off_is_not_held() -> None:
    connector = ASGIRoutingConnector({PAYMENTS: answering(LENGTH, ONE)}, lifespan="off", raise_app_exceptions=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        with connector.hold(PAYMENTS):
            async with session.get(f"http://{PAYMENTS}/") as response:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.read()


async def test_an_exception_of_the_app_is_raised_though_its_response_is_held() -> None:
    failure = ZeroDivisionError()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise failure

    async with running(apps={"payments": app}, lifespan="off") as system:
        with system.connector.hold(PAYMENTS), pytest.raises(ZeroDivisionError) as caught:
            await system.outcome("payments")
        assert caught.value is failure


@pytest.mark.parametrize("on", ["request", "response"])
async def test_a_request_that_waits_for_a_continue_is_its_head(on: Any) -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS, on=on) as held:
            asking = system.start("payments", data=b"pay", expect100=True)
            [message] = await held.wait()
            assert system["payments"].bodies == ([] if on == "request" else [b"pay"])
            message.release()
            assert await soon(asking) == "payments"
        assert system["payments"].bodies == [b"pay"]


async def test_a_continue_passes_though_it_arrives_in_small_pieces() -> None:
    async with running("payments") as system:
        slow = system.connector.inject(PAYMENTS, faults.Throttle(200, on="response"))
        with system.connector.hold(PAYMENTS) as held, slow:
            asking = system.start("payments", data=b"pay", expect100=True)
            [message] = await held.wait()
            assert system["payments"].bodies == [b"pay"]
            message.release()
            assert await soon(asking) == "payments"


def test_a_continue_is_told_from_a_response_wherever_their_bytes_are_split() -> None:
    interim, final = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\ncontent-length: 1\r\n\r\nx"
    message = interim + final
    for first, second in combinations(range(len(message) + 1), 2):
        stage, passed, wholes = stage_of_a_response()
        for piece in (message[:first], message[first:second], message[second:]):
            stage.carry(piece)
        assert (b"".join(passed), wholes) == (interim, ["whole"])
        assert not stage.idle
        stage.end_fault()
        assert (b"".join(passed), stage.idle) == (message, True)
        stage.carry(b"later")
        assert (b"".join(passed), stage.idle) == (message + b"later", True)


@pytest.mark.parametrize("arrived", [b"HTTP", b"HTTP/1.1 100 Conti", b"HTTP/1.1 200 OK\r\n"])
def test_a_message_of_which_little_has_arrived_is_released_or_lost_as_it_is(arrived: bytes) -> None:
    for end in (HoldStage.end_fault, HoldStage.carry_eof, HoldStage.lose, HoldStage.drop):
        stage, passed, wholes = stage_of_a_response()
        stage.carry(arrived)
        assert not stage.idle
        end(stage)
        expected = [arrived] if end in (HoldStage.end_fault, HoldStage.carry_eof) else []
        assert ([each for each in passed if each], wholes, stage.idle) == (expected, [], True)


def stage_of_a_response() -> tuple[HoldStage, list[bytes], list[str]]:
    """A stage, what has passed it, and a word for each message that was whole."""
    passed: list[bytes] = []
    wholes: list[str] = []

    class Passed:
        def carry(self, data: bytes) -> None:
            passed.append(data)

        def carry_eof(self) -> None:
            passed.append(b"")

    stage = HoldStage(ResponseEnd("GET"), lambda: wholes.append("whole"), lambda: None, lambda: None)
    stage.next = Passed()
    return stage, passed, wholes


@pytest.mark.parametrize("on", ["request", "response"])
async def test_of_a_websocket_the_handshake_is_held(on: Any) -> None:
    async with running("chat") as system:
        with system.connector.hold("chat.internal", on=on) as held:
            connecting = asyncio.ensure_future(system.session.ws_connect("http://chat.internal/"))
            [message] = await held.wait()
            await settle()
            assert not connecting.done()
            message.release()
            async with await soon(connecting) as websocket:
                await websocket.send_str("hello")
                assert await websocket.receive_str() == "hello"


async def test_behind_a_handshake_that_was_dropped_nothing_arrives() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()
        await send({"type": "websocket.send", "text": "hello"})
        sent.set()
        assert (await receive())["type"] == "websocket.disconnect"

    go_on, sent = asyncio.Event(), asyncio.Event()
    async with running(apps={"chat": app}, lifespan="off") as system:
        with system.connector.hold("chat.internal") as held:
            connecting = asyncio.ensure_future(system.session.ws_connect("http://chat.internal/"))
            [message] = await held.wait()
            message.drop()
            go_on.set()
            await sent.wait()
        await settle()
        assert not connecting.done()
        connecting.cancel()
        await asyncio.wait([connecting])


async def test_an_upload_that_breaks_off_is_not_held() -> None:
    async def upload() -> Any:
        yield b"pay"
        await asyncio.Event().wait()

    async with running("payments") as system:
        with system.connector.hold(PAYMENTS, on="request") as held:
            assert await system.outcome("payments", data=upload(), timeout=ClientTimeout(total=0.05)) == "TimeoutError"
            await until(lambda: system["payments"].ended)
            with pytest.raises(AssertionError):
                await held.wait(timeout=0)
        assert system["payments"].bodies == [b"pay"]


async def test_a_request_that_cannot_be_read_is_held_as_it_is() -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS, on="request") as held:
            asking = system.start("payments", headers={"Na me": "x"})
            [message] = await held.wait()
            message.release()
            assert "header" in await soon(asking)


# Waiting.


async def test_wait_returns_the_first_that_are_held() -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS) as held:
            asking = [system.start("payments", f"/{number}") for number in range(3)]
            await held.wait(3)
            assert [message.exchange.path for message in await held.wait(2)] == ["/0", "/1"]
            [first] = await held.wait()
            first.release()
            [second] = await held.wait(timeout=None)
            assert second.exchange.path == "/1"
        await asyncio.wait(asking)


async def test_wait_says_what_there_was_instead() -> None:
    async with running("orders", "payments") as system:
        with system.connector.hold(PAYMENTS, path="/pay") as held:
            asking = system.start("payments", "/pay")
            await held.wait()
            await system.outcome("orders")
            with pytest.raises(AssertionError) as caught:
                await held.wait(2, timeout=0.01)
        assert str(caught.value) == (
            "Waited 0.01 s for 2 responses of 'payments.internal', path='/pay' to be held, but there was 1:\n"
            "  POST http://payments.internal/pay: running [Held(on='response')]"
        )
        await asking


async def test_a_timeout_that_is_not_its_own_passes_through_wait() -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS, allow_unused=True) as held, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await held.wait(timeout=60)


async def test_wait_fails_when_the_connector_closes() -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS, allow_unused=True) as held:
            waiting = asyncio.ensure_future(held.wait())
            await settle()
            await system.connector.close()
            with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
                await soon(waiting)


async def test_wait_ends_whenever_the_connector_closes() -> None:
    """A message that has woken `wait()` may be lost before `wait()` can return it."""
    outcomes: list[str] = []
    while "held" not in outcomes:
        async with running("payments") as system:
            with system.connector.hold(PAYMENTS, allow_unused=True) as held:
                waiting = asyncio.ensure_future(held.wait(timeout=None))
                asking = system.start("payments")
                await run_turns(len(outcomes))
                await system.connector.close()
                try:
                    await soon(waiting)
                    outcomes.append("held")
                except aiohttp.ClientConnectionError as exc:
                    outcomes.append(str(exc))
                with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
                    await held.wait()
                await soon(asking)
    assert outcomes == ["Connector is closed"] * (len(outcomes) - 1) + ["held"]
    assert len(outcomes) > 1


async def test_wait_fails_when_the_block_ends() -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS, allow_unused=True) as held:
            waiting = asyncio.ensure_future(held.wait(timeout=None))
            await settle()
        with pytest.raises(RuntimeError, match="holds nothing outside of its block"):
            await soon(waiting)


@pytest.mark.parametrize("on", ["request", "response"])
async def test_closing_the_connector_ends_what_is_held(on: Any) -> None:
    async with running("payments") as system:
        with system.connector.hold(PAYMENTS, on=on) as held:
            asking = system.start("payments")
            [message] = await held.wait()
            await system.connector.close()
            assert await soon(asking) in ("ClientConnectionError", "ServerDisconnectedError")
            message.release()


async def test_wait_is_for_the_block() -> None:
    async with running("payments") as system:
        block = system.connector.hold(PAYMENTS, allow_unused=True)
        with pytest.raises(RuntimeError, match="holds nothing outside of its block"):
            await block.wait()
        with block as held:
            for number, error in [(0, ValueError), ("2", TypeError)]:
                with pytest.raises(error, match="number must be"):
                    await held.wait(number)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="timeout must not be negative"):
                await held.wait(timeout=-1)
        with pytest.raises(RuntimeError, match="holds nothing outside of its block"):
            await held.wait()


MISTAKES: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ("paymets.internal", {}, ValueError, "'paymets.internal' is not mounted, and the fallback cannot be shaken. Did"),
    (None, {}, TypeError, "host must be a host pattern, not None"),
    (PAYMENTS, {"on": "connect"}, ValueError, "on must be one of 'request', 'response', not 'connect'"),
    (PAYMENTS, {"path": "pay"}, ValueError, "path must start with a slash and be without a query, not 'pay'"),
]


@pytest.mark.parametrize(("host", "settings", "error", "message"), MISTAKES, ids=[each[3] for each in MISTAKES])
async def test_a_hold_that_makes_no_sense_is_refused(
    host: Any, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    async with running("payments") as system:
        with pytest.raises(error, match=f"^{re.escape(message)}"):
            system.connector.hold(host, **settings)


async def test_a_hold_that_holds_nothing_fails() -> None:
    async with running("orders", "payments") as system:
        with pytest.raises(AssertionError) as caught, system.connector.hold(PAYMENTS):
            await system.outcome("orders")
        assert str(caught.value) == (
            "hold('payments.internal', on='response') has affected nothing: there was no request to "
            "'payments.internal' while it was open.\n"
            "The calls there were, the nearest first:\n"
            "  POST http://orders.internal/: 200\n"
            "    host is 'orders.internal', port 80\n"
            "A block that affects nothing has tested nothing; allow_unused=True permits it."
        )
