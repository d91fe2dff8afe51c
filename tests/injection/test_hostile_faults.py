"""Random apps and clients on a network that fails at random: every request ends, and what arrives was sent.

A case is one request: what its app does, and what its client does. Several cases share a connector, while blocks of
`inject()` and `record()` begin and end at any time. The event loop's clock jumps to the next timer, so a slow network
costs no time.
"""

import asyncio
import gc
import itertools
import logging
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import aiohttp
import pytest
from aiohttp.connector import Connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_connector import ASGIRoutingConnector, Exchange, Journal, faults
from asgi_connector._network.flow import HIGH_WATER
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import LOOPS
from tests.support.effort import examples
from tests.support.flow import content
from tests.support.waiting import settle

MAX_EXAMPLES: Final = examples(200)
UNIT: Final = 0.001
"""The unit of times: a millisecond, for loops whose clock does not jump."""
SOON: Final = 30.0
"""Seconds after which everything is over. Some slow links need so long."""
HOSTS: Final = ("a.internal", "b.internal")
SUBSTITUTE: Final = 599
"""The status of a response in place of the app's."""


class JumpingSelector(selectors.SelectSelector):
    """When there is nothing to do but wait, the clock jumps."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(0)
        if not events:
            self.now += timeout
        return events


class JumpingLoop(asyncio.SelectorEventLoop):
    """The default event loop, whose clock moves only while it waits, and then jumps."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


NEW_LOOP: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {**LOOPS, "asyncio": JumpingLoop}


class Boom(Exception):
    """The exceptions that apps raise."""


async def pause(units: int) -> None:
    await asyncio.sleep(units * UNIT)


# What an app does, and what its client does.


@dataclass(frozen=True)
class Answer:
    """An app that answers a request."""

    framing: Literal["length", "chunked", "close"]
    pieces: tuple[int, ...]
    pauses: int | None
    listens: Literal["before", "once", "never", "after"]
    status: int
    raises_after: int | None
    calls: bool
    """Whether it calls the other service first."""


@dataclass(frozen=True)
class Fetch:
    method: Literal["GET", "HEAD", "DELETE", "POST", "PUT"]
    upload: tuple[int, ...] | None
    streamed: bool
    expect100: bool
    read: int | None
    """So many bytes of the response, or all of it."""
    ending: Literal["release", "close"]
    total: int | None
    connect: int | None
    sock_read: int | None


@dataclass(frozen=True)
class Chat:
    """An app that accepts a WebSocket."""

    accepts: bool
    steps: tuple[tuple[Literal["send", "receive", "pause"], int], ...]
    ending: Literal["close", "return", "raise", "listen"]


@dataclass(frozen=True)
class Talk:
    steps: tuple[tuple[Literal["send", "receive", "pause"], int], ...]
    ending: Literal["close", "read", "drop"]
    total: int | None
    compress: bool


@dataclass(frozen=True)
class Case:
    host: int
    app: Answer | Chat
    client: Fetch | Talk
    starts: int
    cancel_after: int | None


@dataclass(frozen=True)
class Block:
    """An `inject()`, or with no fault a `record()`, that begins and ends while requests run."""

    starts: int
    lasts: int
    fault: faults.Fault | None
    host: str
    criteria: tuple[tuple[str, Any], ...]

    @property
    def heals(self) -> bool:
        """Whether every request that it affects succeeds in the end."""
        return self.fault is None or isinstance(self.fault, faults.Hang | faults.Latency | faults.Throttle)

    @property
    def cuts(self) -> bool:
        return isinstance(self.fault, faults.Reset | faults.Close)


@dataclass(frozen=True)
class Scenario:
    cases: tuple[Case, ...]
    blocks: tuple[Block, ...]
    bodies: bool | None
    """Of the recording around the whole run, if there is one."""
    raise_app_exceptions: bool
    http_10: bool
    force_close: bool
    close_after: int | None


# The results.


@dataclass
class Call:
    """One call of an app."""

    scope: Scope
    received: list[Message] = field(default_factory=list)
    sent: bytes = b""
    said: list[bytes] = field(default_factory=list)
    complete: bool = False


@dataclass
class Result:
    """What a client got, and the calls of its app. There are more calls when aiohttp sends a request again."""

    number: int
    case: Case
    calls: list[Call] = field(default_factory=list)
    inner: list[Call] = field(default_factory=list)
    status: int | None = None
    body: bytes | None = None
    whole: bool = False
    sent: list[bytes] = field(default_factory=list)
    got: list[bytes] = field(default_factory=list)
    close_code: int | None = None
    error: BaseException | None = None
    cancelled: bool = False

    def request_body(self) -> bytes:
        assert isinstance(self.case.client, Fetch)
        return content(self.number, sum(self.case.client.upload or ()))

    def response_body(self) -> bytes:
        assert isinstance(self.case.app, Answer)
        return content(self.number + 100, sum(self.case.app.pieces))


class Programmed:
    """The app: does what the case says that the path names."""

    def __init__(self, results: list[Result]) -> None:
        self.results = results
        self.session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, kind, number = scope["path"].split("/")
        if kind == "plain":
            await self.be_plain(receive, send)
            return
        result = self.results[int(number)]
        call = Call(scope)
        if kind == "inner":
            result.inner.append(call)
            await self.be_plain(receive, send)
            return
        result.calls.append(call)
        app = result.case.app
        if isinstance(app, Chat):
            await self.chat(app, call, receive, send)
        else:
            await self.answer(app, result, call, receive, send)

    async def be_plain(self, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"plain"})

    async def listen(self, call: Call, receive: Receive) -> bool:
        """Whether more may follow."""
        message = await receive()
        call.received.append(message)
        return message["type"] == "http.request" and bool(message["more_body"])

    async def answer(self, app: Answer, result: Result, call: Call, receive: Receive, send: Send) -> None:
        if app.listens == "before":
            while await self.listen(call, receive):
                pass
        elif app.listens == "once":
            await self.listen(call, receive)
        if app.calls:
            await self.call_other(result)
        body = result.response_body()
        headers = [(b"content-length", b"%d" % len(body))] if app.framing == "length" else []
        if app.framing == "close":
            headers.append((b"connection", b"close"))
        if app.raises_after == 0:
            raise Boom
        await send({"type": "http.response.start", "status": app.status, "headers": headers})
        start = 0
        for index, size in enumerate(app.pieces, 1):
            if app.raises_after == index:
                raise Boom
            if app.pauses is not None:
                await pause(app.pauses)
            piece = body[start : start + size]
            start += size
            call.sent += piece
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
        call.complete = True
        if app.listens == "after":
            while await self.listen(call, receive):
                pass

    async def call_other(self, result: Result) -> None:
        assert self.session is not None
        try:
            url = f"http://{HOSTS[1 - result.case.host]}/inner/{result.number}"
            async with self.session.get(url) as response:
                await response.read()
        except (aiohttp.ClientError, RuntimeError):
            pass  # RuntimeError: the session is closed

    async def chat(self, app: Chat, call: Call, receive: Receive, send: Send) -> None:
        call.received.append(await receive())
        if not app.accepts:
            await send({"type": "websocket.close"})
            return
        try:
            await send({"type": "websocket.accept"})
            for kind, count in app.steps:
                if kind == "pause":
                    await pause(count)
                elif kind == "receive":
                    call.received.append(await receive())
                    if call.received[-1]["type"] == "websocket.disconnect":
                        return
                else:
                    call.said.append(content(len(call.said), count))
                    await send({"type": "websocket.send", "bytes": call.said[-1]})
            if app.ending == "close":
                await send({"type": "websocket.close", "code": 3000})
                call.complete = True
        except OSError:
            return  # the client has disconnected
        if app.ending == "raise":
            raise Boom
        while app.ending == "listen":
            call.received.append(await receive())
            if call.received[-1]["type"] == "websocket.disconnect":
                return


# The clients.


async def pieces_of(result: Result, sizes: tuple[int, ...]) -> AsyncIterator[bytes]:
    whole, start = result.request_body(), 0
    for size in sizes:
        yield whole[start : start + size]
        start += size
        await asyncio.sleep(0)


def in_seconds(units: int | None) -> float | None:
    return None if units is None else units * UNIT


async def fetch(session: aiohttp.ClientSession, result: Result, client: Fetch) -> None:
    data: Any = None
    if client.upload is not None:
        data = pieces_of(result, client.upload) if client.streamed else result.request_body()
    response = await session.request(
        client.method,
        f"http://{HOSTS[result.case.host]}/r/{result.number}",
        data=data,
        expect100=client.expect100,
        timeout=aiohttp.ClientTimeout(
            total=in_seconds(client.total),
            connect=in_seconds(client.connect),
            sock_read=in_seconds(client.sock_read),
        ),
    )
    try:
        result.status = response.status
        result.body = b""
        if client.read is None:
            # In pieces, so that what came before a failure is known.
            while piece := await response.content.readany():
                result.body += piece
            result.whole = True
        elif client.read:
            result.body = await response.content.read(client.read)
    finally:
        if client.ending == "close":
            response.close()
        response.release()


async def talk(session: aiohttp.ClientSession, result: Result, client: Talk) -> None:
    async with session.ws_connect(
        f"ws://{HOSTS[result.case.host]}/r/{result.number}",
        timeout=aiohttp.ClientWSTimeout(ws_receive=in_seconds(client.total or 60), ws_close=60 * UNIT),
        compress=15 if client.compress else 0,
    ) as websocket:
        result.status = 101
        try:
            for kind, count in client.steps:
                if kind == "pause":
                    await pause(count)
                elif kind == "receive":
                    if not await receive_one(websocket, result):
                        return
                else:
                    result.sent.append(content(result.number, count))
                    await websocket.send_bytes(result.sent[-1])
            if client.ending == "read":
                while await receive_one(websocket, result):
                    pass
                result.whole = True
            elif client.ending == "drop":
                websocket._response.close()
        finally:
            result.close_code = websocket.close_code


async def receive_one(websocket: aiohttp.ClientWebSocketResponse, result: Result) -> bool:
    message = await websocket.receive()
    if message.type is aiohttp.WSMsgType.BINARY:
        result.got.append(message.data)
        return True
    if message.type is aiohttp.WSMsgType.ERROR:
        raise message.data
    return False


async def behave(session: aiohttp.ClientSession, result: Result) -> None:
    """Do as the client does, and record what it gets. Never raises."""
    try:
        if isinstance(result.case.client, Talk):
            await talk(session, result, result.case.client)
        else:
            await fetch(session, result, result.case.client)
    except BaseException as exc:
        result.error = exc


async def run_case(session: aiohttp.ClientSession, result: Result) -> None:
    await pause(result.case.starts)
    task = asyncio.create_task(behave(session, result))
    if result.case.cancel_after is not None:
        await asyncio.wait({task}, timeout=result.case.cancel_after * UNIT)
        result.cancelled = task.cancel()
    await asyncio.wait({task})
    if task.cancelled():  # before its first step
        result.error = asyncio.CancelledError()


# The network, and what is known about it.


class WatchedConnector(ASGIRoutingConnector):
    """Counts what the journal must show, and knows the connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked: list[tuple[str, str, str]] = []
        self.ends: list[MemoryTransport] = []

    async def connect(self, req: aiohttp.ClientRequest, traces: Any, timeout: aiohttp.ClientTimeout) -> Connection:
        if self._closing.task is None and not self.closed:
            self.asked.append((req.method, str(req.host), req.url.path))
        return await super().connect(req, traces, timeout)

    def _open_connection(self, req: aiohttp.ClientRequest) -> Any:
        client = super()._open_connection(req)
        assert isinstance(client.transport, MemoryTransport)
        self.ends += [client.transport, client.transport.peer]
        return client


async def run_block(connector: WatchedConnector, block: Block, journals: list[Journal], *, all_heal: bool) -> None:
    await pause(block.starts)
    if connector._closing.task is not None:
        with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
            connector.record()
        return
    if block.fault is None:
        with connector.record(**dict(block.criteria)) as journal:
            await pause(block.lasts)
        journals.append(journal)
        return
    criteria = dict(block.criteria)
    injection = connector.inject(block.host, block.fault, allow_unused=True, **criteria)
    with connector.record() as journal, injection:
        await pause(block.lasts)
    asked = {name: criteria[name] for name in ("caller", "method", "path") if name in criteria}
    started = len(journal.select(block.host, **asked))
    assert 0 <= injection.affected <= injection.matched, (block, injection)
    counted = "times" in criteria or criteria.get("skip", 0) > 0 or criteria.get("probability", 1) < 1
    if counted:  # it ignores what is open when the block begins
        assert injection.matched == started, (block, injection, str(journal))
        assert injection.affected <= criteria.get("times", injection.matched), (block, injection)
        if criteria.get("probability", 1) == 1 and all_heal:  # a refused connection has no bytes to delay
            at_most = max(0, started - criteria.get("skip", 0))
            assert injection.affected == min(criteria.get("times", at_most), at_most), (block, injection)
    else:
        assert injection.matched >= started, (block, injection, str(journal))
    journals.append(journal)


# The invariants.


def is_own_answer(status: int | None, body: bytes, raise_app_exceptions: bool) -> bool:
    return status == 500 and not raise_app_exceptions and b"Internal Server Error".startswith(body)


def check_error(result: Result, scenario: Scenario) -> None:
    exc = result.error
    if exc is None:
        return
    if isinstance(exc, asyncio.CancelledError):
        assert result.cancelled, result
    elif isinstance(exc, Boom):
        assert scenario.raise_app_exceptions, result
    elif scenario.close_after is not None and isinstance(exc, RuntimeError | AssertionError):
        pass  # aiohttp's own error, of a session that is closed
    else:
        assert isinstance(exc, aiohttp.ClientError | OSError | TimeoutError), (result, repr(exc))


def may_fail(result: Result, scenario: Scenario) -> bool:
    """Whether anything in *scenario* may keep the client from the complete response of its app."""
    case = result.case
    if scenario.close_after is not None or result.cancelled or not all(block.heals for block in scenario.blocks):
        return True
    if isinstance(case.client, Fetch):
        assert isinstance(case.app, Answer)
        limits = (case.client.total, case.client.connect, case.client.sock_read)
        if case.client.upload is not None and case.app.listens != "before":
            return True  # a response may end the connection while the client still writes
        return case.app.raises_after is not None or any(limit is not None for limit in limits)
    assert isinstance(case.app, Chat)
    return not case.app.accepts or case.app.ending == "raise" or isinstance(result.error, TimeoutError)


def check_fetch(result: Result, scenario: Scenario) -> None:
    app, client = result.case.app, result.case.client
    assert isinstance(app, Answer)
    assert isinstance(client, Fetch)
    for call in result.calls:
        sent, got, ended = result.request_body(), b"", False
        for message in call.received:
            if message["type"] == "http.request":
                assert not ended, result
                got += message["body"]
                ended = not message["more_body"]
        assert sent.startswith(got), result
        assert not ended or got == sent, result
    if result.status == SUBSTITUTE:
        assert any(isinstance(block.fault, faults.Respond) for block in scenario.blocks), result
        expected = b"" if client.method == "HEAD" else b"substitute"
    else:
        expected = b"" if client.method == "HEAD" else result.response_body()
    if result.body is not None:
        own = is_own_answer(result.status, result.body, scenario.raise_app_exceptions)
        assert expected.startswith(result.body) or own, result
        if result.whole and not own:
            # Only the end of the connection ends it, so a cut or an app that fails may look like that end.
            may_be_cut = scenario.http_10 and result.status != SUBSTITUTE and app.framing != "length"
            cut = any(block.cuts for block in scenario.blocks) or scenario.close_after is not None
            failed = app.raises_after is not None and not scenario.raise_app_exceptions
            assert result.body == expected or (may_be_cut and (cut or failed)), result
    if not may_fail(result, scenario):
        assert result.error is None, (result, repr(result.error))
        assert result.status == app.status, result
        assert len(result.calls) == 1, result
        if client.read is None:
            assert result.body == expected, result


def check_talk(result: Result, scenario: Scenario) -> None:
    app, client = result.case.app, result.case.client
    assert isinstance(app, Chat)
    assert isinstance(client, Talk)
    for call in result.calls:
        heard = [message["bytes"] for message in call.received if message["type"] == "websocket.receive"]
        assert heard == result.sent[: len(heard)], result
    if result.status == 101:
        (*_, last) = result.calls
        assert result.got == last.said[: len(result.got)], result
    if result.whole and not may_fail(result, scenario):
        assert result.got == result.calls[-1].said, result
        assert result.close_code in (1000, 3000), result


def check_exchange(exchange: Exchange, results: list[Result]) -> None:
    assert exchange.state in ("done", "failed", "abandoned"), exchange
    assert exchange.duration >= 0
    if exchange.state == "failed":
        assert exchange.error is not None, exchange
    if exchange.state == "done":
        assert exchange.status is not None, exchange
    _, kind, number = exchange.path.split("/")
    if kind != "r":
        return
    result = results[int(number)]
    assert exchange.host == HOSTS[result.case.host]
    assert exchange.caller is None
    if isinstance(result.case.client, Talk):
        assert len(exchange.messages) <= len(result.sent) + max((len(call.said) for call in result.calls), default=0)
        return
    assert exchange.request.size <= len(result.request_body()), exchange
    if exchange.request.body is not None:
        assert result.request_body().startswith(exchange.request.body), exchange
        assert len(exchange.request.body) + exchange.request.cut == exchange.request.size, exchange
    if exchange.response is None or exchange.status in (500, SUBSTITUTE):
        return
    assert exchange.response.size <= max(len(call.sent) for call in result.calls), exchange
    if exchange.response.body is not None:
        assert result.response_body().startswith(exchange.response.body), exchange
        assert len(exchange.response.body) + exchange.response.cut == exchange.response.size, exchange


def check_journal(journal: Journal, asked: list[tuple[str, str, str]], results: list[Result]) -> None:
    told = [(exchange.method, exchange.host, exchange.path) for exchange in journal]
    assert told == asked
    for exchange in journal:
        if exchange.path.startswith("/inner/"):
            result = results[int(exchange.path.removeprefix("/inner/"))]
            assert exchange.caller == HOSTS[result.case.host]
            parent = exchange.parent
            assert parent is not None
            assert any(parent is each for each in journal)
            assert parent.path == f"/r/{result.number}"
    for result in results:
        mine = [exchange for exchange in journal if exchange.path == f"/r/{result.number}"]
        if result.whole and isinstance(result.case.client, Fetch):
            assert mine[-1].status == result.status, (mine, result)
            if result.body == result.response_body():
                assert mine[-1].state == "done", (mine, result)
        if result.status is None and result.error is not None and mine:
            assert mine[-1].state != "done" or mine[-1].status is not None, (mine, result)


def check_order(journal: Journal) -> None:
    numbers = [exchange.number for exchange in journal]
    assert numbers == sorted(set(numbers))
    starts = [exchange.order[0] for exchange in journal]
    assert starts == sorted(starts)
    for exchange in journal:
        start, end = exchange.order
        assert end is None or end > start
    assert len(journal.to_har()["log"]["entries"]) == len(journal)
    assert journal.to_mermaid()
    assert len(str(journal).splitlines()) == max(1, len(journal))


async def check_that_all_is_well(
    session: aiohttp.ClientSession, connector: WatchedConnector, *, keeps_alive: bool
) -> None:
    for host, method in itertools.product(HOSTS, ("GET", "POST")):
        data = b"x" * 1000 if method == "POST" else None
        async with session.request(method, f"http://{host}/plain/0", data=data) as response:
            assert (response.status, await response.read()) == (200, b"plain")
    # Not those in use: an app whose client has left may still wait for the other service's late response.
    pooled = [protocol.transport for protocols in connector._conns.values() for protocol, _ in protocols]
    assert keeps_alive is bool(pooled)
    for client in pooled:
        assert isinstance(client, MemoryTransport)
        for end in (client, client.peer):
            assert end.medium is None
            assert end.get_write_buffer_limits() == (HIGH_WATER // 4, HIGH_WATER)


async def check_that_nothing_is_left(connector: WatchedConnector) -> None:
    await settle()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not tasks, tasks
    assert connector._services.in_flight.is_idle()
    assert not connector._services.in_flight.connections
    assert not connector._acquired
    for end in connector.ends:
        assert end.is_closing(), end
        assert end.get_write_buffer_size() == 0, end
        assert not end._chunks, end
        assert not end._kept, end
        assert end.medium is None or end.medium.idle, end
    timers = [
        handle
        for handle in getattr(asyncio.get_running_loop(), "_scheduled", ())
        if not handle.cancelled() and "asgi_connector" in repr(handle._callback)
    ]
    assert not timers, timers


def is_aiohttps(context: dict[str, Any]) -> bool:
    """Whether no task awaits this failure in aiohttp, on a real network too."""
    exc = context.get("exception")
    # An upload whose last piece had been written when its connection ended: nothing awaits the task that writes it.
    writes = "ClientRequest.write_bytes" in repr(context.get("future"))
    # A WebSocket whose sender was cancelled while it waited. Some versions shield the task from that.
    waited = type(exc) is ConnectionError and str(exc) == "Connection lost"
    return waited or (writes and isinstance(exc, aiohttp.ClientConnectionResetError))


async def run_scenario(scenario: Scenario) -> str:
    """Returns the journal, if there is one."""
    loop = asyncio.get_running_loop()
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    results = [Result(number, case) for number, case in enumerate(scenario.cases)]
    app = Programmed(results)
    connector = WatchedConnector(
        dict.fromkeys(HOSTS, app),
        raise_app_exceptions=scenario.raise_app_exceptions,
        lifespan="off",
        shutdown_timeout=0.01,
        force_close=scenario.force_close,
    )
    version = aiohttp.HttpVersion10 if scenario.http_10 else aiohttp.HttpVersion11
    session = app.session = aiohttp.ClientSession(connector=connector, version=version)
    journals: list[Journal] = []
    told = ""

    async def run_all() -> None:
        all_heal = all(block.heals for block in scenario.blocks)
        blocks = [
            asyncio.create_task(run_block(connector, block, journals, all_heal=all_heal)) for block in scenario.blocks
        ]
        cases = [asyncio.create_task(run_case(session, result)) for result in results]
        try:
            if scenario.close_after is not None:
                await pause(scenario.close_after)
                await session.close()
            await asyncio.gather(*blocks, *cases)
        finally:
            for task in (*blocks, *cases):
                task.cancel()
            await asyncio.gather(*blocks, *cases, return_exceptions=True)

    async with session, asyncio.timeout(SOON):
        if scenario.bodies is None:
            await run_all()
        else:
            with connector.record(bodies=scenario.bodies, max_body_size=100) as journal:
                await run_all()
                asked = list(connector.asked)
            journals.append(journal)
        if scenario.close_after is None:
            keeps_alive = not (scenario.force_close or scenario.http_10)
            await check_that_all_is_well(session, connector, keeps_alive=keeps_alive)
        await session.close()
        await check_that_nothing_is_left(connector)
    if scenario.bodies is not None:
        check_journal(journals[-1], asked, results)
        told = f"{journals[-1]}\n{journals[-1].to_mermaid()}"
    for each in journals:
        check_order(each)
        for exchange in each:
            check_exchange(exchange, results)
    for result in results:
        check_error(result, scenario)
        if isinstance(result.case.client, Talk):
            check_talk(result, scenario)
        else:
            check_fetch(result, scenario)
        result.error = None
    gc.collect(1)
    for context in contexts:
        assert isinstance(context.get("exception"), Boom) or is_aiohttps(context), context
    return told


# Cases to draw from.

SIZES: Final = st.lists(st.sampled_from([0, 1, 5, 100, 100, 2000, 70_000, 150_000]), max_size=4).map(tuple)
TIMES: Final = st.integers(0, 30)
RARELY: Final = st.none() | st.none() | st.none() | st.sampled_from([1, 5, 20])

ANSWER: Final = st.builds(
    Answer,
    framing=st.sampled_from(["length", "chunked", "close"]),
    pieces=SIZES,
    pauses=st.none() | st.integers(0, 5),
    listens=st.sampled_from(["before", "before", "once", "never", "after"]),
    status=st.sampled_from([200, 200, 200, 500, 503]),
    raises_after=st.none() | st.none() | st.none() | st.integers(0, 3),
    calls=st.sampled_from([False, False, False, True]),
)

FETCH: Final = st.builds(
    Fetch,
    method=st.sampled_from(["GET", "HEAD", "DELETE"]),
    upload=st.none(),
    streamed=st.just(False),
    expect100=st.just(False),
    read=st.none() | st.none() | st.integers(0, 5),
    ending=st.sampled_from(["release", "close"]),
    total=RARELY,
    connect=RARELY,
    sock_read=RARELY,
) | st.builds(
    Fetch,
    method=st.sampled_from(["POST", "POST", "PUT"]),
    upload=SIZES,
    streamed=st.booleans(),
    expect100=st.sampled_from([False, False, True]),
    read=st.none() | st.none() | st.integers(0, 5),
    ending=st.sampled_from(["release", "close"]),
    total=RARELY,
    connect=RARELY,
    # When an upload ends, aiohttp starts the second try, even after the response: on a connection of the pool.
    sock_read=st.none(),
)


def frames(sizes: list[int]) -> "st.SearchStrategy[tuple[tuple[str, int], ...]]":
    step = st.one_of(
        st.tuples(st.just("send"), st.sampled_from(sizes)),
        st.tuples(st.just("pause"), st.integers(0, 10)),
        st.just(("receive", 0)),
    )
    return st.lists(step, max_size=5).map(tuple)


def websocket(sizes: list[int], *, compress: bool) -> "st.SearchStrategy[Case]":
    chat = st.builds(
        Chat,
        accepts=st.sampled_from([True, True, True, True, False]),
        steps=frames(sizes),
        ending=st.sampled_from(["close", "return", "raise", "listen"]),
    )
    talk = st.builds(
        Talk,
        steps=frames(sizes),
        ending=st.sampled_from(["close", "read", "drop"]),
        total=RARELY,
        compress=st.just(compress),
    )
    return st.builds(Case, st.integers(0, 1), chat, talk, TIMES, CANCEL)


CANCEL: Final = st.none() | st.none() | st.none() | st.integers(0, 20)
HTTP: Final = st.builds(Case, st.integers(0, 1), ANSWER, FETCH, TIMES, CANCEL)
# A large body is compressed in a thread. If the clock jumps, the timeouts would be over before the thread is done.
WEBSOCKET: Final = websocket([0, 1, 5, 300, 70_000], compress=False) | websocket([0, 1, 5, 300, 900], compress=True)

PART: Final = st.sampled_from(["request", "response"])
AFTER: Final = st.none() | st.sampled_from([0, 1, 10, 100, 1000, 70_000])


def slow(rates: list[float]) -> "st.SearchStrategy[faults.Fault]":
    return st.builds(faults.Throttle, st.sampled_from(rates), on=PART)


LATENCY: Final = st.sampled_from([0, 1, 5, 20]).flatmap(
    lambda units: st.builds(faults.Latency, st.just(units * UNIT), st.sampled_from([0, units * UNIT]), PART)
)
HANG: Final = st.builds(faults.Hang, PART, AFTER) | st.just(faults.Hang(on="connect"))
CUT: Final = st.builds(faults.Reset, PART, AFTER) | st.builds(faults.Close, PART, AFTER)
NO_ANSWER: Final = st.sampled_from(
    [faults.Refuse(), faults.Unresolvable(), faults.Respond(SUBSTITUTE, body=b"substitute")]
)

CRITERIA: Final = st.fixed_dictionaries(
    {},
    optional={
        "caller": st.sampled_from([None, *HOSTS]),
        "method": st.sampled_from(["GET", "POST", "PUT"]),
        "path": st.sampled_from(["/r/0", "/r/1", "/inner/0"]),
        "times": st.integers(1, 3),
        "skip": st.integers(0, 2),
        "probability": st.sampled_from([0.2, 0.7, 1.0]),
        "seed": st.integers(0, 3),
    },
)
FEW_CRITERIA: Final = st.one_of(st.just({}), st.just({}), CRITERIA).map(lambda criteria: tuple(criteria.items()))
RECORDINGS: Final = st.fixed_dictionaries({"bodies": st.booleans(), "max_body_size": st.sampled_from([0, 10, 10**6])})


def blocks(fault: "st.SearchStrategy[faults.Fault]") -> "st.SearchStrategy[tuple[Block, ...]]":
    block = st.builds(
        Block, TIMES, st.integers(0, 60), fault, st.sampled_from([*HOSTS, "*.internal", "a.internal"]), FEW_CRITERIA
    )
    recording = st.builds(
        Block, TIMES, st.integers(0, 60), st.none(), st.just("*"), RECORDINGS.map(lambda each: tuple(each.items()))
    )
    return st.lists(st.one_of(block, block, block, recording), max_size=5).map(tuple)


def scenarios(rates: list[float]) -> "st.SearchStrategy[Scenario]":
    healing = st.one_of(HANG, LATENCY, slow(rates))
    return st.builds(
        Scenario,
        cases=st.lists(st.one_of(HTTP, HTTP, WEBSOCKET), min_size=1, max_size=6).map(tuple),
        blocks=st.one_of(blocks(healing), blocks(st.one_of(healing, CUT, CUT, NO_ANSWER))),
        bodies=st.sampled_from([None, False, True, True]),
        raise_app_exceptions=st.booleans(),
        http_10=st.just(False),
        force_close=st.sampled_from([False, False, False, True]),
        close_after=st.none() | st.none() | st.none() | st.integers(0, 40),
    ).flatmap(lambda scenario: st.sampled_from([scenario, scenario, scenario, without_websockets(scenario)]))


def without_websockets(scenario: Scenario) -> Scenario:
    # An HTTP/1.0 server does not answer an expectation, and aiohttp waits for the answer.
    cases = tuple(
        replace(case, client=replace(case.client, expect100=False))
        for case in scenario.cases
        if isinstance(case.client, Fetch)
    )
    return replace(scenario, cases=cases, http_10=True) if cases else scenario


RATES: Final[dict[str, list[float]]] = {"asyncio": [3e3, 1e5, 1e8], "uvloop": [1e7, 1e8]}
"""In bytes a second. If the clock does not jump, slow links take too long."""


class Errors(logging.Handler):
    """The package's log records of errors. `caplog` would keep thousands of records, and all they refer to."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def errors() -> Iterator[Errors]:
    package, handler = logging.getLogger("asgi_connector"), Errors()
    package.addHandler(handler)
    package.propagate = False
    yield handler
    package.propagate = True
    package.removeHandler(handler)


def run_on(loop: str, scenario: Scenario, errors: Errors) -> str:
    errors.records.clear()
    with asyncio.Runner(loop_factory=NEW_LOOP[loop]) as runner:
        told = runner.run(run_scenario(scenario))
    for record in errors.records:
        assert record.exc_info is not None, record
        assert isinstance(record.exc_info[1], Boom), record
    errors.records.clear()
    return told


def drawn(examples: int) -> settings:
    too_much = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, suppress_health_check=too_much, database=None)


@pytest.mark.timeout(300)  # a failure is shrunk before it is shown
@pytest.mark.parametrize("loop", NEW_LOOP)
def test_whatever_a_network_does_every_request_ends_and_what_arrives_was_sent(
    loop: str, record_property: Callable[[str, object], None], errors: Errors
) -> None:
    cases: Counter[str] = Counter()

    @drawn(MAX_EXAMPLES if loop == "asyncio" else MAX_EXAMPLES // 5)
    @given(scenario=scenarios(RATES[loop]))
    def run(scenario: Scenario) -> None:
        cases["run"] += len(scenario.cases)
        run_on(loop, scenario, errors)

    run()
    record_property("hostile cases", cases["run"])


@pytest.mark.timeout(300)
def test_the_same_run_on_the_same_network_is_told_in_the_same_words(
    record_property: Callable[[str, object], None], errors: Errors
) -> None:
    """The journal, with its times, and the diagram."""
    cases: Counter[str] = Counter()

    @drawn(MAX_EXAMPLES // 10)
    @given(scenario=scenarios(RATES["asyncio"]))
    def run(scenario: Scenario) -> None:
        cases["run"] += len(scenario.cases)
        told = [run_on("asyncio", replace(scenario, bodies=True), errors) for _ in range(2)]
        assert told[0] == told[1]

    run()
    record_property("hostile cases", cases["run"])
