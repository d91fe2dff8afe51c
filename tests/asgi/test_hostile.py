"""Random programs of apps and clients: no exchange affects another one, and each exchange ends.

A case is one exchange: a program of an app, which is a list of steps, and the actions of its client. Several cases
share a session, and each session has its own event loop. No test here waits for time to pass. An exchange that has not
ended after many turns of the event loop either waits for what its program says, or hangs.
"""

import array
import asyncio
import gc
import logging
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import pytest
from aiohttp.streams import EofStream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_connector import ASGIConnectorError, ASGIProtocolError, ASGIRoutingConnector
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._types import Message, Receive, Scope, Send, is_bytes
from tests.conftest import AIOHTTP, LOOPS, session_to
from tests.support.effort import examples
from tests.support.flow import content
from tests.support.waiting import run_turns, settle

MAX_EXAMPLES: Final = examples(300)
MAX_TURNS: Final = 5000
"""After so many turns, every exchange is over if neither its app nor its client waits."""
STUCK_TURNS: Final = 40
"""An app that has waited for so many turns, while its client did nothing either, waits forever."""
SOON: Final = 10.0
"""Seconds after which a test fails because something did not happen."""


class Oops(BaseException):
    """It is not an `Exception`."""


class UploadError(Exception):
    """What the body of a request raises in the middle."""


RAISES: Final[dict[str, Callable[[], BaseException]]] = {
    "ValueError": lambda: ValueError("hostile"),
    "OSError": lambda: OSError(5, "hostile"),
    "ConnectionResetError": lambda: ConnectionResetError("hostile"),
    "TimeoutError": lambda: TimeoutError("hostile"),
    "ClientOSError": lambda: aiohttp.ClientOSError(5, "hostile"),
    "ServerDisconnectedError": lambda: aiohttp.ServerDisconnectedError("hostile"),
    "ClientPayloadError": lambda: aiohttp.ClientPayloadError("hostile"),
    "EofStream": lambda: EofStream(),
    "StopIteration": lambda: StopIteration("hostile"),
    "StopAsyncIteration": lambda: StopAsyncIteration("hostile"),
    "CancelledError": lambda: asyncio.CancelledError("hostile"),
    "GeneratorExit": lambda: GeneratorExit("hostile"),
    "MemoryError": lambda: MemoryError("hostile"),
    "Oops": lambda: Oops("hostile"),
    "ExceptionGroup": lambda: ExceptionGroup("hostile", [ValueError("inner")]),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("hostile", [Oops("inner"), asyncio.CancelledError()]),
}


@dataclass(frozen=True)
class Made:
    """A value that can be used only once, or has no useful repr. It is made again for each run of its step."""

    kind: str
    data: Any = b""

    def make(self) -> Any:
        match self.kind:
            case "bytearray":
                return bytearray(self.data)
            case "memoryview":
                return memoryview(self.data)
            case "every second byte":
                return memoryview(self.data)[::2]
            case "numbers":
                return memoryview(array.array("I", self.data))
            case "released":
                released = memoryview(self.data)
                released.release()
                return released
            case "zeros":
                return bytes(self.data)
            case "generator":
                return (header for header in self.data)
            case "broken generator":
                return _raises_midway(self.data)
        raise AssertionError(self.kind)


def _raises_midway(items: list[Any]) -> Iterator[Any]:
    yield from items
    raise ZeroDivisionError


def made(value: Any) -> Any:
    if isinstance(value, Made):
        return value.make()
    if type(value) is dict:
        return {key: made(item) for key, item in value.items()}
    return value


# The steps of an app.


@dataclass(frozen=True)
class Say:
    message: Any
    catch: bool = False


@dataclass(frozen=True)
class Listen:
    pass


@dataclass(frozen=True)
class Turns:
    count: int


@dataclass(frozen=True)
class Raise:
    name: str


@dataclass(frozen=True)
class Return:
    value: Any


@dataclass(frozen=True)
class Hang:
    pass


@dataclass(frozen=True)
class Spawn:
    steps: "list[Step]"


Step = Say | Listen | Turns | Raise | Return | Hang | Spawn


# What a client does.


@dataclass(frozen=True)
class Upload:
    """A body of pieces, with some turns between them. If it raises after the last one, it raises an `UploadError`."""

    pieces: tuple[int, ...]
    streamed: bool
    raises: bool = False


@dataclass(frozen=True)
class Fetch:
    method: str
    upload: Upload | None
    expect100: bool
    read: int | None
    """So many bytes of the response, or all of it."""
    ending: str
    cancel_after: int | None
    total: float | None
    sock_read: float | None


@dataclass(frozen=True)
class Talk:
    """A WebSocket: what the client does until it closes."""

    steps: tuple[tuple[str, int], ...]
    ending: str
    compress: int
    cancel_after: int | None
    total: float | None


@dataclass
class Exchange:
    """One program and its client, and the result."""

    number: int
    steps: list[Step]
    client: Fetch | Talk
    calls: int = 0
    progress: int = 0
    states: list[str] = field(default_factory=list)
    """What the app does, and then what each of its child tasks does."""
    accepted: list[Any] = field(default_factory=list)
    received: list[Message] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)
    task: "asyncio.Task[Any] | None" = None
    children: list["asyncio.Task[None]"] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)
    """What the client has sent over its WebSocket."""
    upload_error: UploadError | None = None
    cancelled: bool = False
    # What the client has received.
    status: int | None = None
    raw_headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    whole: bool = False
    got: list[Any] = field(default_factory=list)
    accepted_at_head: list[Any] = field(default_factory=list)
    accepted_by_then: list[Any] = field(default_factory=list)
    """Set when the client has read what it wanted. A message that is accepted later may not have reached it."""
    error: BaseException | None = None

    def body_of_request(self) -> bytes:
        assert isinstance(self.client, Fetch)
        return b"" if self.client.upload is None else content(self.number, sum(self.client.upload.pieces))

    def is_stuck(self) -> bool:
        """Whether the app waits for an event that never comes."""
        waiting = ("hang", "receive", "send") if isinstance(self.client, Talk) else ("hang", "receive")
        if not self.states or self.states[0] not in waiting:
            return False
        return all(state in (*waiting, "done") for state in self.states)

    def response(self, accepted: list[Any]) -> tuple[Message | None, bytes, bool]:
        """What `send()` has accepted: the head, the body, and whether it is complete."""
        kinds = ("http.response.start", "http.response.body")
        if isinstance(self.client, Talk):
            kinds = ("websocket.http.response.start", "websocket.http.response.body")
        head, body, complete = None, b"", False
        for message in accepted:
            if not isinstance(message, dict):
                continue
            if head is None and message.get("type") == kinds[0]:
                head = message
            elif head is not None and message.get("type") == kinds[1] and not complete:
                body += message["body"]
                complete = not message["more_body"]
        return head, body, complete


class Programmed:
    """The app. It runs the program of the exchange that the path names, or answers a plain request normally."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self.exchanges = exchanges
        self.never = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        _, kind, number = scope["path"].split("/")
        if kind == "good":
            await self.be_good(number, receive, send)
            return None
        exchange = self.exchanges[int(number)]
        exchange.calls += 1
        exchange.task = asyncio.current_task()
        expected = "websocket" if isinstance(exchange.client, Talk) else "http"
        assert scope["type"] == expected, "the request of another exchange"
        return await self.run(exchange, exchange.steps, receive, send)

    async def be_good(self, number: str, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": number.encode() + b":", "more_body": True})
        await send({"type": "http.response.body", "body": body})

    async def run(self, exchange: Exchange, steps: list[Step], receive: Receive, send: Send) -> Any:
        index = len(exchange.states)
        exchange.states.append("runs")
        try:
            for step in steps:
                exchange.progress += 1
                match step:
                    case Say():
                        exchange.states[index] = "send"
                        await self.say(exchange, step, send)
                    case Listen():
                        exchange.states[index] = "receive"
                        exchange.received.append(await receive())
                    case Turns(count):
                        for _ in range(count):
                            exchange.progress += 1
                            await asyncio.sleep(0)
                    case Raise(name):
                        exchange.raised.append(RAISES[name]())
                        raise exchange.raised[-1]
                    case Return(value):
                        return value
                    case Hang():
                        exchange.states[index] = "hang"
                        await self.never.wait()
                    case Spawn(others):
                        exchange.children.append(asyncio.create_task(self.run_child(exchange, others, receive, send)))
                exchange.states[index] = "runs"
        except BaseException as exc:
            exchange.raised.append(exc)  # an exception that send() has raised counts as the app's own
            raise
        finally:
            exchange.states[index] = "done"
            exchange.progress += 1
        return None

    async def run_child(self, exchange: Exchange, steps: list[Step], receive: Receive, send: Send) -> None:
        try:
            await self.run(exchange, steps, receive, send)
        except BaseException as exc:
            # A coroutine raises no StopIteration: Python makes a RuntimeError of it.
            assert is_from(exc, exchange) or is_from(exc.__cause__, exchange)  # noqa: PT017

    async def say(self, exchange: Exchange, step: Say, send: Send) -> None:
        message = made(step.message)
        noted = message
        if isinstance(message, dict):
            body = message.get("body", b"")
            # Use the current value. A value that is not a body is accepted only when the client has disconnected.
            with_body = is_bytes(body) and getattr(step.message.get("body"), "kind", "") != "released"
            noted = {**message, "body": bytes(body) if with_body else b"", "more_body": message.get("more_body", False)}
            if isinstance(getattr(step.message.get("headers"), "data", None), list):
                noted["headers"] = step.message["headers"].data
        try:
            await send(message)
        except Exception as exc:
            if isinstance(exc, ASGIProtocolError) and "shorter than Content-Length" in str(exc):
                # It is refused as the last message, but its body is sent, as in uvicorn.
                exchange.accepted.append({**noted, "more_body": True})
            if not step.catch:
                raise
        else:
            exchange.accepted.append(noted)


# The clients.


async def pieces_of(exchange: Exchange, upload: Upload) -> AsyncIterator[bytes]:
    whole, start = exchange.body_of_request(), 0
    for size in upload.pieces:
        yield whole[start : start + size]
        start += size
        exchange.progress += 1
        await asyncio.sleep(0)
    if upload.raises:
        exchange.upload_error = UploadError()
        raise exchange.upload_error


async def fetch(session: aiohttp.ClientSession, exchange: Exchange, client: Fetch) -> None:
    upload, data = client.upload, None
    if upload is not None:
        data = pieces_of(exchange, upload) if upload.streamed else exchange.body_of_request()
    response = await session.request(
        client.method,
        f"http://app.internal/bad/{exchange.number}",
        data=data,
        expect100=client.expect100,
        allow_redirects=False,
        # When an upload ends, aiohttp starts the second try, even after the response: on a connection of the pool.
        timeout=aiohttp.ClientTimeout(total=client.total, sock_read=None if upload else client.sock_read),
    )
    try:
        exchange.status, exchange.raw_headers = response.status, response.raw_headers
        exchange.accepted_at_head = list(exchange.accepted)
        exchange.progress += 1
        if client.read is None:
            exchange.body = await response.read()
            exchange.whole = True
        elif client.read:
            exchange.body = await response.content.read(client.read)
        if client.ending == "release":
            response.release()
    finally:
        exchange.accepted_by_then = list(exchange.accepted)
        if client.ending != "release":
            response.close()
        exchange.progress += 1
        response.release()


async def talk(session: aiohttp.ClientSession, exchange: Exchange, client: Talk, closing: asyncio.Event) -> None:
    async with session.ws_connect(
        f"ws://app.internal/bad/{exchange.number}",
        compress=client.compress,
        timeout=aiohttp.ClientWSTimeout(ws_receive=client.total),
        protocols=("chat", "other"),
    ) as websocket:
        for kind, count in client.steps:
            exchange.progress += 1
            # A large body is compressed in a thread, by a task of aiohttp that may outlive its client.
            word = content(exchange.number, min(count, 300) if client.compress else count)
            match kind:
                case "text":
                    exchange.sent.append(word.decode())
                    await websocket.send_str(word.decode())
                case "bytes":
                    exchange.sent.append(word)
                    await websocket.send_bytes(word)
                case "ping":
                    await websocket.ping(word[:125])
                case "turns":
                    await run_turns(count)
                case "receive":
                    await listen(websocket, exchange, closing)
        if client.ending == "read":
            while await listen(websocket, exchange, closing):
                exchange.progress += 1
            exchange.whole = websocket.close_code == 1000
            exchange.accepted_by_then = list(exchange.accepted)
        elif client.ending == "drop":
            websocket._response.close()


async def listen(websocket: aiohttp.ClientWebSocketResponse, exchange: Exchange, closing: asyncio.Event) -> bool:
    message = await websocket.receive()
    if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        exchange.got.append(message.data)
        return True
    if message.type is aiohttp.WSMsgType.ERROR:
        exchange.error = message.data
        # aiohttp raises another exception instead if the session closes before the client has.
        assert closing.is_set() or websocket.exception() is message.data
    return False


async def behave(session: aiohttp.ClientSession, exchange: Exchange, closing: asyncio.Event) -> None:
    """Do as the client does, and record what it gets. Never raises."""
    try:
        if isinstance(exchange.client, Talk):
            await talk(session, exchange, exchange.client, closing)
        else:
            await fetch(session, exchange, exchange.client)
    except BaseException as exc:
        exchange.error = exc


async def see_it_end(task: "asyncio.Task[None]", exchange: Exchange, closing: "asyncio.Event") -> None:
    """Return when the client has ended. It is cancelled when its time is over, or when its app waits forever."""
    last, since = -1, 0
    for turn in range(MAX_TURNS):
        if task.done():
            break
        if turn == exchange.client.cancel_after:
            exchange.cancelled = True
            task.cancel()
        if exchange.progress != last:
            last, since = exchange.progress, turn
        if exchange.is_stuck() and turn - since > STUCK_TURNS:
            exchange.cancelled = True
            task.cancel()
            break
        await asyncio.sleep(0)
    else:
        if not closing.is_set():
            raise AssertionError(f"a request hangs: {exchange}")
    done, _ = await asyncio.wait({task}, timeout=SOON)
    assert done, f"a request hangs, though it was cancelled: {exchange}"
    if task.cancelled():  # before its first step
        exchange.error = asyncio.CancelledError()
    else:
        task.result()
    await release_connection(exchange)


async def release_connection(exchange: Exchange) -> None:
    """An app that waits forever, after a response that is complete by its framing alone, must be ended.

    As on any server, its connection is in the pool then, and the next request on it waits for the app.
    """
    head, body, complete = exchange.response(exchange.accepted)
    if isinstance(exchange.client, Talk) or head is None or complete:
        return
    if exchange.client.method != "HEAD" and exchange.status not in (204, 304) and not has_length(exchange, len(body)):
        return
    for _ in range(STUCK_TURNS):
        if exchange.task is None or exchange.task.done():
            return
        await asyncio.sleep(0)
    if exchange.task is not None:
        exchange.task.cancel()


# The invariants.


def has_length(exchange: Exchange, size: int) -> bool:
    return any(name.lower() == b"content-length" and int(value) == size for name, value in exchange.raw_headers)


def is_from(exc: BaseException | None, exchange: Exchange) -> bool:
    return any(exc is raised for raised in exchange.raised)


def check_error(exchange: Exchange, raise_app_exceptions: bool, closed: bool) -> None:
    exc = exchange.error
    if exc is None:
        return
    if isinstance(exc, asyncio.CancelledError):
        assert exchange.cancelled, exchange
        return
    if closed and isinstance(exc, RuntimeError) and str(exc).startswith(("Session is closed", "Connection closed.")):
        return  # aiohttp's own exception, or ours if the connector was closed
    if closed and isinstance(exc, AssertionError) and isinstance(exchange.client, Talk):
        frames = list(traceback.walk_tb(exc.__traceback__))
        assert frames[-1][0].f_code.co_name == "_ws_connect", exchange  # aiohttp's own as well: no transport
        return
    if exc is exchange.upload_error:
        return
    if is_from(exc, exchange):
        assert raise_app_exceptions, exchange
        return
    if isinstance(exc, RuntimeError) and is_from(exc.__cause__, exchange):
        assert isinstance(exc.__cause__, StopIteration), exchange  # Python's own: no coroutine raises it
        return
    if isinstance(exc, ASGIConnectorError):
        assert raise_app_exceptions, exchange
        return
    assert isinstance(exc, aiohttp.ClientError | OSError | TimeoutError), exchange


OF_AN_APP_THAT_FAILED: Final = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"21"),
    (b"connection", b"close"),
)


def check_http(exchange: Exchange, raise_app_exceptions: bool, http_10: bool) -> None:
    client = exchange.client
    assert isinstance(client, Fetch)
    if exchange.status is not None:
        head, _, _ = exchange.response(exchange.accepted_at_head)
        _, body, complete = exchange.response(exchange.accepted_by_then)
        # The server's own response. Messages that a child task sends later, when its client has gone, change nothing.
        if head is None or exchange.raw_headers == OF_AN_APP_THAT_FAILED:
            assert not raise_app_exceptions, exchange
            assert exchange.status == 500, exchange
            text = b"" if client.method == "HEAD" else b"Internal Server Error"
            assert exchange.body == text if exchange.whole else text.startswith(exchange.body), exchange
        else:
            assert exchange.status == head["status"], exchange
            check_headers(exchange, head)
            bodyless = client.method == "HEAD" or exchange.status in (204, 304)
            whole = b"" if bodyless else body
            assert whole.startswith(exchange.body), exchange
            if exchange.whole:
                cut = http_10 and not raise_app_exceptions  # only the end of the connection ends it
                # A child task may still send after that.
                assert exchange.body == whole or cut, exchange
                by_length = has_length(exchange, len(body))
                assert complete or by_length or bodyless or cut, exchange
    # What the app has received.
    sent, got, ended = exchange.body_of_request(), b"", False
    for message in exchange.received:
        if message["type"] == "http.request":
            assert not ended, exchange
            got += message["body"]
            ended = not message["more_body"]
        else:
            assert message == {"type": "http.disconnect"}, exchange
    assert sent.startswith(got), exchange
    if ended:
        assert got == sent, exchange
        assert exchange.upload_error is None, exchange


def check_headers(exchange: Exchange, head: Message) -> None:
    """The headers that the app sent, in order, and the framing of the body."""
    ours = (b"transfer-encoding", b"connection")
    given = [
        (bytes(name), bytes(value).strip(b" \t"))
        for name, value in head.get("headers", ())
        if bytes(name).lower() not in ours
    ]
    assert [pair for pair in exchange.raw_headers if pair[0].lower() not in ours] == given, exchange


def check_websocket(exchange: Exchange) -> None:
    said = [
        (bytes(message["bytes"]) if message.get("bytes") is not None else message["text"])
        for message in exchange.accepted
        if isinstance(message, dict) and message.get("type") == "websocket.send"
    ]
    assert exchange.got == said[: len(exchange.got)], exchange
    if exchange.whole:
        assert exchange.got == said, exchange
    heard = []
    for index, message in enumerate(exchange.received):
        if message["type"] == "websocket.receive":
            heard.append(message.get("text") if message.get("bytes") is None else message["bytes"])
        else:
            expected = "websocket.disconnect" if index else "websocket.connect"
            assert message["type"] == expected, exchange
    assert heard == exchange.sent[: len(heard)], exchange
    if isinstance(exchange.error, aiohttp.WSServerHandshakeError) and exchange.error.status not in (403, 500):
        head, _, _ = exchange.response(exchange.accepted)
        assert head is not None, exchange
        assert head["status"] == exchange.error.status, exchange


def check_reports(contexts: list[dict[str, Any]], exchanges: list[Exchange], raise_app_exceptions: bool) -> None:
    """The loop's exception handler gets only exceptions that no call of a client could raise."""
    for context in contexts:
        if AIOHTTP < (3, 14, 0) and str(context.get("exception")) == "Connection lost":
            continue  # aiohttp 3.13 leaves a future on which a cancelled upload has waited
        assert context["message"].startswith("Unhandled exception in an ASGI app: "), context
        assert raise_app_exceptions, context
        exc = context["exception"]
        message = context["message"]
        assert "response complete>" in message or "over>" in message, context
        known = any(is_from(one, each) for each in exchanges for one in (exc, exc.__cause__))
        assert known or isinstance(exc, ASGIProtocolError), context


async def check_that_all_is_well(session: aiohttp.ClientSession, number: int) -> None:
    for method, data in (("GET", None), ("POST", b"x" * 1000)):
        async with session.request(method, f"http://app.internal/good/{number}", data=data) as response:
            assert response.status == 200
            assert await response.read() == b"%d:%b" % (number, data or b"")


@dataclass(frozen=True)
class Scenario:
    """Exchanges on one session, at the same time or one after another."""

    exchanges: list[tuple[list[Step], Fetch | Talk]]
    together: bool
    raise_app_exceptions: bool
    http_10: bool
    close_after: int | None
    """The turn in which the session is closed, whatever is running then."""


async def run_scenario(scenario: Scenario) -> None:
    loop = asyncio.get_running_loop()
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    exchanges = [Exchange(number, steps, client) for number, (steps, client) in enumerate(scenario.exchanges)]
    app = Programmed(exchanges)
    connector = ASGIRoutingConnector(
        {"app.internal": app},
        raise_app_exceptions=scenario.raise_app_exceptions,
        lifespan="off",
        shutdown_timeout=0,
    )
    version = aiohttp.HttpVersion10 if scenario.http_10 else aiohttp.HttpVersion11
    session = aiohttp.ClientSession(connector=connector, version=version, auto_decompress=False)
    closing = asyncio.Event()

    async def close_early(turns: int) -> None:
        await run_turns(turns)
        closing.set()
        await session.close()

    closer = None if scenario.close_after is None else asyncio.create_task(close_early(scenario.close_after))
    try:
        async with asyncio.timeout(3 * SOON):
            if scenario.together:
                tasks = [asyncio.create_task(behave(session, exchange, closing)) for exchange in exchanges]
                await asyncio.gather(*(see_it_end(*each, closing) for each in zip(tasks, exchanges, strict=True)))
            else:
                for exchange in exchanges:
                    await see_it_end(asyncio.create_task(behave(session, exchange, closing)), exchange, closing)
            if closer is None:
                await check_that_all_is_well(session, 7)
            else:
                await closer
            await session.close()
            await check_that_nothing_is_left(app, exchanges, connector)
    finally:
        app.never.set()
        await session.close()
    for exchange in exchanges:
        assert exchange.calls <= 1, exchange
        check_error(exchange, scenario.raise_app_exceptions, closer is not None)
        if isinstance(exchange.client, Talk):
            check_websocket(exchange)
        else:
            check_http(exchange, scenario.raise_app_exceptions, scenario.http_10)
    exchanges_before, error = exchanges, None
    del exchange, error
    gc.collect(1)
    check_reports(contexts, exchanges_before, scenario.raise_app_exceptions)


async def check_that_nothing_is_left(
    app: Programmed, exchanges: list[Exchange], connector: ASGIRoutingConnector
) -> None:
    app.never.set()  # the child tasks belong to the app, and only the app can hold them up
    children = [child for exchange in exchanges for child in exchange.children]
    if children:
        _, left = await asyncio.wait(children, timeout=SOON)
        assert not left, left
    for exchange in exchanges:
        for child in exchange.children:
            assert child.exception() is None
    await settle()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not tasks, tasks
    assert connector._services.in_flight.is_idle()
    assert not connector._services.in_flight.connections
    assert not connector._acquired
    timers = [
        handle
        for handle in getattr(asyncio.get_running_loop(), "_scheduled", ())
        if not handle.cancelled() and "asgi_connector" in repr(handle._callback)
    ]
    assert not timers, timers


# Programs and clients to draw from.

ANYTHING: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**30, -(10**30), 2**63, 1.5, float("nan")]),
    st.sampled_from(["", "text", "\ud800", b"", b"bytes"]),
    st.sampled_from([[], [1], {}, (), object]),
    st.builds(Made, st.sampled_from(["bytearray", "memoryview", "every second byte", "released"]), st.just(b"abcdef")),
)

BODY: Final = st.one_of(
    st.binary(max_size=6),
    st.builds(
        Made, st.sampled_from(["bytearray", "memoryview", "every second byte", "released"]), st.binary(max_size=6)
    ),
    st.builds(Made, st.just("numbers"), st.just([1, 2])),
    st.builds(Made, st.just("zeros"), st.sampled_from([70_000, 200_000])),
)

HEADER: Final = st.one_of(
    st.tuples(st.just(b"x-header"), st.sampled_from([b"", b"value", b" padded\t", b"\xe9", b"a" * 100, b"b" * 9000])),
    st.tuples(st.just(b"content-length"), st.sampled_from([b"0", b"1", b"3", b"6", b"006", b"70000"])),
    st.sampled_from(
        [
            (b"content-length", b"9" * 19),
            (b"content-length", b"-1"),
            (b"Content-Length", b"+5"),
            (b"transfer-encoding", b"chunked"),
            (b"Transfer-Encoding", b"gzip"),
            (b"connection", b"close"),
            (b"connection", b"keep-alive"),
            (b"connection", b"upgrade"),
            (b"upgrade", b"websocket"),
            (b"content-encoding", b"gzip"),
            (b"content-type", b"\xff/;;="),
            (b"set-cookie", b"a=b; expires=never"),
            (b"location", b"http://elsewhere.internal/"),
            (b"x-split", b"a\r\nb: c"),
            (b"x split", b"a"),
            (b"", b""),
            ("x-text", "text"),
            (b"x-list",),
            [b"x-list", b"value"],
            None,
            5,
        ]
    ),
)

HEADERS: Final = st.one_of(
    st.lists(HEADER, max_size=3),
    st.builds(Made, st.sampled_from(["generator", "generator", "broken generator"]), st.lists(HEADER, max_size=2)),
    ANYTHING,
)

STATUS: Final = st.one_of(
    st.sampled_from([200, 200, 200, 201, 204, 205, 299, 304, 307, 404, 500, 503, 599, 999]),
    st.sampled_from([0, 99, 100, 101, 103, 199, 1000, -200, 10**30, True, "200", None, 200.0]),
    st.integers(),
)

KINDS: Final = st.one_of(
    st.sampled_from(
        [
            "http.response.start",
            "http.response.body",
            "http.response.trailers",
            "http.response.push",
            "http.disconnect",
            "websocket.accept",
            "websocket.send",
            "websocket.close",
            "websocket.http.response.start",
            "websocket.http.response.body",
            "lifespan.startup.complete",
        ]
    ),
    ANYTHING,
)

WILD: Final = st.one_of(
    st.fixed_dictionaries(
        {"type": KINDS},
        optional={
            "status": STATUS,
            "headers": HEADERS,
            "body": BODY | ANYTHING,
            "more_body": ANYTHING,
            "text": ANYTHING,
            "bytes": ANYTHING,
            "code": ANYTHING,
            "reason": ANYTHING,
            "subprotocol": ANYTHING,
            "trailers": ANYTHING,
        },
    ),
    ANYTHING,
)


def response(prefix: str) -> "list[st.SearchStrategy[Any]]":
    start = {"type": st.just(f"{prefix}http.response.start"), "status": STATUS}
    plain = {"type": st.just(f"{prefix}http.response.start"), "status": st.sampled_from([200, 200, 404, 500])}
    return [
        st.fixed_dictionaries(start, optional={"headers": HEADERS}),
        st.fixed_dictionaries(plain, optional={"headers": st.lists(HEADER, max_size=1)}),
        st.fixed_dictionaries(
            {"type": st.just(f"{prefix}http.response.body"), "body": BODY}, optional={"more_body": st.booleans()}
        ),
        st.fixed_dictionaries(
            {"type": st.just(f"{prefix}http.response.body")}, optional={"body": BODY, "more_body": st.just(True)}
        ),
    ]


HTTP_MESSAGE: Final = st.one_of(*response(""), WILD)

WEBSOCKET_MESSAGE: Final = st.one_of(
    st.just({"type": "websocket.accept"}),
    st.fixed_dictionaries(
        {"type": st.just("websocket.accept")}, optional={"headers": HEADERS, "subprotocol": st.just("chat") | ANYTHING}
    ),
    st.fixed_dictionaries({"type": st.just("websocket.send"), "text": st.text(max_size=5)}),
    st.fixed_dictionaries({"type": st.just("websocket.send"), "bytes": BODY}, optional={"text": ANYTHING}),
    st.fixed_dictionaries(
        {"type": st.just("websocket.close")},
        optional={
            "code": st.sampled_from([1000, 1001, 1005, 1006, 3000, 4999, 5000, -1]) | ANYTHING,
            "reason": st.sampled_from(["", "why", "x" * 123, "x" * 124, None]) | ANYTHING,
        },
    ),
    *response("websocket."),
    WILD,
)


def program(message: "st.SearchStrategy[Any]") -> "st.SearchStrategy[list[Step]]":
    say = st.builds(Say, message, st.booleans())
    common = [
        say,
        say,
        say,
        st.builds(Listen),
        st.builds(Turns, st.integers(1, 5)),
        st.builds(Raise, st.sampled_from(sorted(RAISES))),
    ]
    rare = [st.builds(Return, ANYTHING), st.builds(Hang)]
    child = st.lists(st.one_of(*common), max_size=5)
    step: st.SearchStrategy[Step] = st.one_of(*common, *common, *rare, st.builds(Spawn, child))
    return st.lists(step, max_size=9)


def answering(start: Any, steps: "list[Step]", *, last: bool) -> "list[Step]":
    """What a normal app does first, and then what this one does."""
    return [Say(start), *steps, *([Say({"type": "http.response.body", "body": b"end"})] if last else [])]


HTTP_PROGRAM: Final = st.one_of(
    program(HTTP_MESSAGE),
    st.builds(
        answering,
        st.fixed_dictionaries(
            {"type": st.just("http.response.start"), "status": st.sampled_from([200, 500])},
            optional={
                "headers": st.lists(st.sampled_from([(b"content-length", b"%d" % n) for n in range(9)]), max_size=1)
            },
        ),
        program(st.one_of(*response("")[2:], HTTP_MESSAGE)),
        last=st.booleans(),
    ),
)

WEBSOCKET_PROGRAM: Final = st.one_of(
    program(WEBSOCKET_MESSAGE),
    st.builds(answering, st.just({"type": "websocket.accept"}), program(WEBSOCKET_MESSAGE), last=st.just(False)),
)

CANCEL_AFTER: Final = st.none() | st.none() | st.integers(0, 12)
TIMEOUT: Final = st.none() | st.none() | st.none() | st.sampled_from([1e-9, 1e-4])

UPLOAD: Final = st.builds(
    Upload,
    st.lists(st.sampled_from([0, 1, 5, 100, 70_000, 150_000]), max_size=3).map(tuple),
    streamed=st.booleans(),
    raises=st.booleans(),
)

FETCH: Final = st.builds(
    Fetch,
    method=st.sampled_from(["GET", "POST", "HEAD", "GET", "POST"]),
    upload=st.none() | UPLOAD,
    expect100=st.sampled_from([False, False, True]),
    read=st.none() | st.none() | st.integers(0, 5),
    ending=st.sampled_from(["release", "release", "close"]),
    cancel_after=CANCEL_AFTER,
    total=TIMEOUT,
    sock_read=TIMEOUT,
)

TALK: Final = st.builds(
    Talk,
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["text", "bytes"]), st.sampled_from([0, 1, 5, 300, 70_000])),
            st.tuples(st.sampled_from(["ping", "turns"]), st.integers(0, 5)),
            st.just(("receive", 0)),
        ),
        max_size=5,
    ).map(tuple),
    ending=st.sampled_from(["close", "read", "drop"]),
    compress=st.sampled_from([0, 15]),
    cancel_after=CANCEL_AFTER,
    total=TIMEOUT,
)

HTTP_CASE: Final = st.tuples(HTTP_PROGRAM, FETCH)
WEBSOCKET_CASE: Final = st.tuples(WEBSOCKET_PROGRAM, TALK)


def scenario(case: "st.SearchStrategy[Any]", *, http_10: bool) -> "st.SearchStrategy[Scenario]":
    return st.builds(
        Scenario,
        exchanges=st.lists(case, min_size=1, max_size=6),
        together=st.booleans(),
        raise_app_exceptions=st.booleans(),
        http_10=st.sampled_from([False, False, False, http_10]),
        close_after=st.none() | st.none() | st.integers(0, 15),
    )


SCENARIOS: Final = {
    "http": scenario(HTTP_CASE, http_10=True),
    "websocket": scenario(WEBSOCKET_CASE, http_10=False),
    "both": scenario(HTTP_CASE | WEBSOCKET_CASE, http_10=False),
}


@pytest.mark.timeout(300)  # a failure is shrunk before it is shown
@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("kind", SCENARIOS)
def test_whatever_an_app_and_its_client_do_every_exchange_ends_and_harms_no_other(
    kind: str,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    record_property: Callable[[str, object], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "asgi_connector")  # thousands of records, and all they refer to
    cases: Counter[str] = Counter()

    @settings(max_examples=MAX_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(scenario=SCENARIOS[kind])
    def run(scenario: Scenario) -> None:
        cases["run"] += len(scenario.exchanges)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(run_scenario(scenario))

    run()
    gc.collect()
    left = [found for found in gc.get_objects() if type(found) is MemoryTransport and not found.is_closing()]
    assert not left, left
    record_property("hostile cases", cases["run"])


@pytest.mark.parametrize("raise_app_exceptions", [True, False])
@pytest.mark.parametrize("pieces", range(1, 9))
async def test_a_response_that_is_cut_off_at_any_moment_of_an_upload_is_an_exception(
    pieces: int, raise_app_exceptions: bool
) -> None:
    """If a write fails then, the reader of the response must still be known."""
    error = ValueError("hostile")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise error

    async def upload() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield b"x"
            await asyncio.sleep(0)

    async with session_to(app, raise_app_exceptions=raise_app_exceptions) as session, asyncio.timeout(SOON):
        response = await session.post("/", data=upload())
        with pytest.raises((ValueError, aiohttp.ClientError)) as caught:
            await response.read()
    assert not raise_app_exceptions or caught.value is error
