"""The events of a sequence diagram, in no syntax: their order, and where an exception was raised."""

import asyncio
from contextlib import suppress

import aiohttp
import pytest

from asgi_connector import Journal, faults
from asgi_connector._export.diagram import Diagram, Kind, diagram_of, where_raised
from asgi_connector._types import Receive, Scope, Send
from tests.conftest import session_to
from tests.export.recorded import shop_journal
from tests.support.messages import respond
from tests.support.sessions import connector_of, fetch


def lines_of(diagram: Diagram) -> list[str]:
    return [
        f"{event.kind.value} {diagram.participants[event.source]} {diagram.participants[event.target]} {event.label}"
        for event in diagram.events
    ]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send)


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    for _ in range(5):
        await send({"type": "websocket.send", "text": "é"})
    await send({"type": "websocket.close"})


async def test_events_are_in_the_order_in_which_they_happened() -> None:
    journal = await shop_journal()
    assert lines_of(diagram_of(journal[:3])) == [
        "call None orders.internal POST /orders",
        "call orders.internal stock.internal GET /items",
        "end stock.internal orders.internal 200",
        "call orders.internal stock.internal GET /none",
        "end stock.internal orders.internal 404",
        "end orders.internal None 201",
    ]


@pytest.mark.parametrize(
    ("kept", "last"),
    [(4, "more None app.internal and 1 more message"), (2, "more None app.internal and 3 more messages"), (5, None)],
)
async def test_the_messages_after_the_first_ones_are_one_event(kept: int, last: str | None) -> None:
    async with session_to(chat) as session:
        with connector_of(session).record() as journal:
            async with session.ws_connect("/") as ws:
                while (await ws.receive()).type is not aiohttp.WSMsgType.CLOSE:
                    pass
        await asyncio.sleep(0)
    lines = lines_of(diagram_of(journal, messages=kept))
    assert lines.count("message app.internal None text of 2 bytes") == kept
    assert ("more None" in lines[-2]) == (last is not None)
    assert last is None or lines[-2] == last


async def test_a_call_that_has_not_ended_is_an_event_at_the_end_if_asked_for() -> None:
    called = asyncio.Event()

    async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
        called.set()
        await receive()
        await receive()

    async with session_to(hanging) as session:
        with connector_of(session).record() as journal:
            call = asyncio.create_task(fetch(session))
            await called.wait()
            assert lines_of(diagram_of(journal)) == ["call None app.internal GET /"]
            assert lines_of(diagram_of(journal, running=True))[1:] == ["running app.internal None running"]
            call.cancel()
            await asyncio.wait([call])


async def test_the_events_of_several_connectors_are_merged_by_their_dates() -> None:
    async with session_to({"a.internal": app}) as one, session_to({"b.internal": app}) as other:
        with connector_of(one).record() as first, connector_of(other).record() as second:
            for _ in range(3):
                await fetch(one, "http://a.internal/")
                await asyncio.sleep(0.002)  # more than the resolution of the clocks
                await fetch(other, "http://b.internal/")
                await asyncio.sleep(0.002)
    both = diagram_of(Journal([*first, *second]))
    ends = [both.participants[event.source] for event in both.events if event.kind is Kind.END]
    assert ends == ["a.internal", "b.internal"] * 3


async def test_an_exception_is_raised_in_the_innermost_call_that_it_ended() -> None:
    journal = await shop_journal()
    raised = {(each.method, each.path): by_app for each, by_app in where_raised(journal).items()}
    assert raised == {
        ("GET", "/broken"): True,  # and not in POST /orders, which it ended too
        ("GET", "/balance"): False,  # refused: the caller's exception
        ("PUT", "/items"): False,  # reset by a fault
    }


async def test_an_exception_that_answers_two_attempts_is_raised_in_the_first() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise aiohttp.ServerDisconnectedError  # which makes aiohttp try again

    async with session_to(failing) as session:
        with connector_of(session).record() as journal, suppress(aiohttp.ClientError):
            await fetch(session)
    assert len({id(each.error) for each in journal}) == 1
    assert list(where_raised(journal).items()) == [(journal[0], True)]


async def test_who_raised_an_exception_is_known_with_a_fault_too() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("of the app")

    async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    async with session_to({"a.internal": failing, "b.internal": hanging}) as session:
        connector = connector_of(session)
        with connector.record() as journal:
            with connector.inject("a.internal", faults.Latency(0)), pytest.raises(LookupError):
                await fetch(session, "http://a.internal/")
            with pytest.raises(aiohttp.ServerTimeoutError):
                await fetch(session, "http://b.internal/", timeout=aiohttp.ClientTimeout(sock_read=0.001))
    assert list(where_raised(journal).values()) == [True, False]
