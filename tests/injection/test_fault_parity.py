"""Each fault compared with the same failure on a real network. Neither a client nor an app can tell them apart.

Every test runs over both: in memory, and over sockets of the loopback interface, with a relay that fails and a real
server behind it. What these tests assert is true for both, with each of aiohttp's parsers and on each event loop.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import aiohttp
import aiohttp.client
import aiohttp.client_proto
import aiohttp.http_parser
import pytest
from aiohttp import (
    ClientConnectionResetError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientOSError,
    ClientPayloadError,
    ClientRequest,
    ClientResponse,
    ClientTimeout,
    ConnectionTimeoutError,
    HttpVersion10,
    HttpVersion11,
    ServerDisconnectedError,
    SocketTimeoutError,
)
from aiohttp._websocket import reader_py
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import ContentLengthError, TransferEncodingError

from asgi_connector import ASGIRoutingConnector, Mount, faults
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._types import Message, Receive, Scope, Send
from tests.conftest import session_to
from tests.support.servers import HYPERCORN, IN_PROCESS, App, serving, waits
from tests.support.waiting import until

if sys.platform == "linux":
    from tests.support.relay import LOCALHOST, Relay, never_accepting, refusing
else:
    pytest.skip("the relay asks Linux what is on its way", allow_module_level=True)

REAL: Final = "real network"
WAYS: Final = (IN_PROCESS, REAL)

CutKind = type[faults.Reset] | type[faults.Close]
CUTS: Final[tuple[CutKind, ...]] = (faults.Reset, faults.Close)

SHORT: Final = 0.15  # seconds after which a client times out; what it waits for never comes
HOST: Final = "app.internal"
NOTHING: Final[Message] = {"type": "http.request", "body": b"", "more_body": False}
GONE: Final[Message] = {"type": "http.disconnect"}
SOME: Final[Message] = {"type": "http.request", "body": b"hel", "more_body": True}
PIECE: Final[Message] = {"type": "http.request", "body": b"hello", "more_body": True}
CONNECT: Final[Message] = {"type": "websocket.connect"}
LOST: Final[Message] = {"type": "websocket.disconnect", "code": 1006}

# The exception that is raised, and its cause.
RESET: Final = (ClientOSError, ConnectionResetError)
CLOSED: Final = (ServerDisconnectedError, None)
TOO_SHORT: Final = (ClientPayloadError, ContentLengthError)
NO_LAST_CHUNK: Final = (ClientPayloadError, TransferEncodingError)
NO_ERROR: Final = (None, None)
NOT_SENT: Final = (ClientConnectionResetError, None)  # of `receive()`, which could not send its close frame

Error = tuple[type[BaseException] | None, type[BaseException] | None]
Told = tuple[Message, ...]
Framing = Literal["length", "chunked", "close"]


class Answer(App):
    """Reads the request, and answers ``helloworld``. It accepts a WebSocket, and sends the same in two texts.

    Unfinished, it stops in the middle of a body, or sends no text, and waits until its client disconnects.
    """

    def __init__(self, framing: Framing = "length", *, unfinished: bool = False) -> None:
        super().__init__(self._answer)
        self.calls = 0
        self._headers = [(b"content-length", b"10")] if framing == "length" else []
        self._unfinished = unfinished

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        if scope["type"] == "websocket":
            await self._answer_websocket(receive, send)
            return
        more = True
        while more:
            if (message := await receive())["type"] == "http.disconnect":
                return
            more = message["more_body"]
        with suppress(OSError):  # the client may have gone
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            await send({"type": "http.response.body", "body": b"hello", "more_body": True})
            if not self._unfinished:
                await send({"type": "http.response.body", "body": b"world"})
        await receive()

    async def _answer_websocket(self, receive: Receive, send: Send) -> None:
        await receive()
        with suppress(OSError):
            await send({"type": "websocket.accept"})
            for text in () if self._unfinished else ("hello", "world"):
                await send({"type": "websocket.send", "text": text})
        while (await receive())["type"] != "websocket.disconnect":
            pass


class Network:
    """A client of one app over a network, which may fail.

    Attributes:
        attempts: how many times aiohttp has tried to send a request.
        end: ends the fault that the network was made with.
        cut: cuts every open connection.
    """

    session: aiohttp.ClientSession
    end: Callable[[], None]
    cut: Callable[[faults.Reset | faults.Close], Awaitable[None]]

    def __init__(self) -> None:
        self.attempts = 0

    async def count(self, req: ClientRequest, handler: aiohttp.ClientHandlerType) -> ClientResponse:
        self.attempts += 1
        return await handler(req)

    def connect(self, url: str, connector: aiohttp.BaseConnector, version: aiohttp.HttpVersion) -> None:
        self.session = aiohttp.ClientSession(url, connector=connector, version=version, middlewares=[self.count])


@asynccontextmanager
async def network(
    way: str,
    app: App,
    fault: faults.Fault | None = None,
    *,
    times: int | None = None,
    head_at: int | None = None,
    version: aiohttp.HttpVersion = HttpVersion11,
) -> AsyncIterator[Network]:
    """A network where *fault* affects the first *times* connections, or all of them.

    On the real network, *head_at* is the place in the head where it acts.
    """
    made = Network()
    if way == IN_PROCESS:
        connector = ASGIRoutingConnector({HOST: Mount(app, lifespan="off")})
        made.connect(f"http://{HOST}", connector, version)
        async with made.session:
            with ExitStack() as blocks:
                made.end = blocks.close

                async def cut(kind: faults.Reset | faults.Close) -> None:
                    with connector.inject(HOST, kind, allow_unused=True):
                        pass

                made.cut = cut
                if fault is not None:
                    blocks.enter_context(connector.inject(HOST, fault, times=times))
                yield made
        return
    async with serving(HYPERCORN, app) as direct:
        port = direct._base_url.port if direct._base_url is not None else None
        assert port is not None
        relay = Relay(port, fault, times=times, head_at=head_at)
        made.end, made.cut = relay.end, relay.cut
        async with relay.listening() as port:
            made.connect(f"http://{LOCALHOST}:{port}", relay.connector(), version)
            async with made.session:
                yield made


class Outcome(NamedTuple):
    """What a client has received of its response."""

    error: Error
    text: str
    received: bytes
    attempts: int


def kind_of(exc: BaseException | None) -> Error:
    cause = None if exc is None else exc.__cause__
    return (None if exc is None else type(exc), None if cause is None else type(cause))


async def outcome_of(net: Network, method: str = "GET", **settings: Any) -> Outcome:
    received = b""
    error: BaseException | None = None
    before = net.attempts
    try:
        async with net.session.request(method, "/", **settings) as response:
            async for piece in response.content.iter_any():
                received += piece
    except (aiohttp.ClientError, OSError) as exc:
        error = exc
    text = "" if error is None else str(error).replace(str(net.session._base_url), "")
    return Outcome(kind_of(error), text, received, net.attempts - before)


async def told_by(app: App) -> Told:
    """What the next run that ends has received. Servers differ on whether a lost WebSocket has a reason."""
    return tuple({key: value for key, value in message.items() if value != ""} for message in await app.end())


async def upload() -> AsyncIterator[bytes]:
    """The first half of a body. The other half never arrives."""
    yield b"hello"
    await asyncio.Event().wait()


async def endless() -> AsyncIterator[bytes]:
    piece = bytes(64 * 1024)
    while True:
        yield piece


@pytest.fixture(params=["C", "Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of its two parsers aiohttp uses."""
    name: str = request.param
    if name == "Python":
        monkeypatch.setattr(aiohttp.client_proto, "HttpResponseParser", aiohttp.http_parser.HttpResponseParserPy)
        monkeypatch.setattr(aiohttp.client, "WebSocketReader", reader_py.WebSocketReader)
        monkeypatch.setattr(aiohttp.client, "WebSocketDataQueue", reader_py.WebSocketDataQueue)
    elif not hasattr(aiohttp.http_parser, "HttpResponseParserC"):
        pytest.skip("this aiohttp has no extensions")
    return name


@dataclass(frozen=True)
class Case:
    """A connection that is cut at some place, and the result.

    `error` is `None` if it depends on the kind of the cut. `told` is what each run of the app receives, and `None` if
    the app is not called.
    """

    place: str
    on: Literal["request", "response"]
    after: int | None
    told: Told | None
    error: Error | None = None
    received: bytes = b""
    framing: Framing = "length"
    chunked_upload: bool | None = None  # None: there is no upload


CASES: Final = [
    Case("before the request", "request", None, None),
    Case("before the response", "response", None, (NOTHING, GONE)),
    Case("behind the head", "response", 0, (NOTHING, GONE), TOO_SHORT),
    Case("in a body with a length", "response", 3, (NOTHING, GONE), TOO_SHORT, b"hel"),
    Case("behind a piece of a body with a length", "response", 5, (NOTHING, GONE), TOO_SHORT, b"hello"),
    Case("in a chunk", "response", 6, (NOTHING, GONE), NO_LAST_CHUNK, b"hel", "chunked"),
    Case("behind a chunk", "response", 10, (NOTHING, GONE), NO_LAST_CHUNK, b"hello", "chunked"),
    Case("behind the head of a body without an end", "response", 0, (NOTHING, GONE), NO_ERROR, b"", "close"),
    Case("in a body without an end", "response", 3, (NOTHING, GONE), NO_ERROR, b"hel", "close"),
    Case("behind the head of an upload", "request", 0, (GONE,), chunked_upload=False),
    Case("in an upload with a length", "request", 3, (SOME, GONE), chunked_upload=False),
    Case("behind a piece of an upload with a length", "request", 5, (PIECE, GONE), chunked_upload=False),
    Case("in the size of a chunk of an upload", "request", 2, (GONE,), chunked_upload=True),
    Case("in a chunk of an upload", "request", 6, (SOME, GONE), chunked_upload=True),
    Case("behind a chunk of an upload", "request", 10, (PIECE, GONE), chunked_upload=True),
]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("case", "method"),
    [
        pytest.param(case, method, id=f"{case.place}-{method}")
        for case in CASES
        for method in (("GET", "POST") if case.chunked_upload is None else ("POST",))
    ],
)
async def test_a_cut_is_what_it_is_on_a_real_network(case: Case, method: str, cut: CutKind, parser: str) -> None:
    outcomes: list[Outcome] = []
    own_error = RESET if cut is faults.Reset else CLOSED
    attempts = 2 if method == "GET" and case.error is None else 1
    for way in WAYS:
        app = Answer(case.framing, unfinished=case.error is not None)
        version = HttpVersion10 if case.framing == "close" else HttpVersion11
        settings: dict[str, Any] = {}
        if case.chunked_upload is not None:
            settings = {"data": upload(), "headers": {} if case.chunked_upload else {"Content-Length": "10"}}
        async with network(way, app, cut(case.on, case.after), version=version) as net:
            outcome = await outcome_of(net, method, **settings)
            # While the network is up: the cut must tell the app.
            told = [] if case.told is None else [await told_by(app) for _ in range(attempts)]
        assert outcome._replace(text="") == (case.error or own_error, "", case.received, attempts), way
        assert told == ([] if case.told is None else [case.told] * attempts), way
        assert app.calls == len(told), way
        outcomes.append(outcome)
    assert outcomes[0].text == outcomes[1].text


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "1000000000"}], ids=["chunked", "length"])
async def test_a_reset_under_a_client_that_goes_on_writing_is_what_it_is_on_a_real_network(
    headers: dict[str, str],
) -> None:
    """A close (FIN) is not tested here: what a client that writes learns of it differs between event loops."""
    outcomes: list[Outcome] = []
    arrived: list[int] = []
    overhead = 0 if headers else len(b"10000\r\n\r\n10000\r\n")
    for way in WAYS:
        app = Answer()
        async with network(way, app, faults.Reset("request", 100_000)) as net:
            outcomes.append(await outcome_of(net, "POST", data=endless(), headers=headers))
            *pieces, last = await app.end()
        arrived.append(sum(len(piece["body"]) for piece in pieces))
        assert last == GONE, way
    in_process, real = arrived
    assert in_process == 100_000 - overhead
    assert 0 < real <= in_process  # a server may lose bytes that it has read ahead
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]._replace(text="") == (RESET, "", b"", 1)


def server_end(session: aiohttp.ClientSession) -> MemoryTransport:
    """The app's end of the only connection."""
    connector = session.connector
    assert isinstance(connector, ASGIRoutingConnector)
    (connection,) = connector._services.in_flight.connections
    return connection.transport


async def cut_in_the_head(app: App, cut: CutKind, method: str) -> Outcome:
    """In memory a head is written at once. A slow link delays it, so that the cut comes while it is in flight."""
    async with network(IN_PROCESS, app, faults.Throttle(20)) as net:  # a byte at a time
        request = asyncio.ensure_future(outcome_of(net, method))
        await until(lambda: net.attempts == 1)
        end = server_end(net.session)
        await until(lambda: end.get_write_buffer_size() > 0)
        written = end.get_write_buffer_size()
        await until(lambda: end.get_write_buffer_size() < written)
        connector = net.session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        with connector.inject(HOST, cut()):
            return await request


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_cut_in_the_head_is_what_it_is_on_a_real_network(cut: CutKind, method: str, parser: str) -> None:
    in_memory = await cut_in_the_head(Answer(), cut, method)
    async with network(REAL, Answer(), cut(), head_at=1) as net:
        real = await outcome_of(net, method)
    assert in_memory._replace(text="") == real._replace(text="")
    assert real.error == (RESET if cut is faults.Reset else CLOSED)
    assert real.attempts == (2 if method == "GET" else 1)
    if method == "POST":  # the second connection in memory is cut before its first byte has arrived
        assert in_memory.text == real.text


# WebSockets: how far they get, and how they end.


class Ending(NamedTuple):
    """What a client has received of its WebSocket."""

    error: Error  # of the handshake
    text: str
    messages: list[str]
    close_code: int | None
    exception: Error
    attempts: int


async def ending_of(net: Network, then: Callable[[aiohttp.ClientWebSocketResponse], Awaitable[None]]) -> Ending:
    try:
        async with net.session.ws_connect("/") as websocket:
            await then(websocket)
            messages = [message.data async for message in websocket]
            exception = kind_of(websocket.exception())
    except (aiohttp.ClientError, OSError) as exc:
        return Ending(kind_of(exc), str(exc), [], None, NO_ERROR, net.attempts)
    return Ending(NO_ERROR, "", messages, websocket.close_code, exception, net.attempts)


async def say_hello(websocket: aiohttp.ClientWebSocketResponse) -> None:
    await websocket.send_str("hello")


async def say_nothing(websocket: aiohttp.ClientWebSocketResponse) -> None:
    pass


@dataclass(frozen=True)
class Socket:
    """A WebSocket that is cut somewhere."""

    place: str
    on: Literal["request", "response"]
    after: int | None
    told: Told | None
    messages: tuple[str, ...] | None = ()  # None: there is no WebSocket
    unfinished: bool = True
    then: Callable[[aiohttp.ClientWebSocketResponse], Awaitable[None]] = say_nothing


HELLO: Final[Message] = {"type": "websocket.receive", "text": "hello"}

SOCKETS: Final = [
    Socket("before the handshake", "request", None, None, None),
    Socket("before the answer to the handshake", "response", None, (CONNECT, LOST), None),
    Socket("behind the handshake", "response", 0, (CONNECT, LOST)),
    Socket("in the head of a frame", "response", 1, (CONNECT, LOST), unfinished=False),
    Socket("in a frame", "response", 4, (CONNECT, LOST), unfinished=False),
    Socket("behind a frame", "response", 7, (CONNECT, LOST), ("hello",), unfinished=False),
    Socket("in a second frame", "response", 11, (CONNECT, LOST), ("hello",), unfinished=False),
    Socket("in a frame of the client", "request", 4, (CONNECT, LOST), then=say_hello),
    Socket("behind a frame of the client", "request", 11, (CONNECT, HELLO, LOST), then=say_hello),
]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("case", SOCKETS, ids=lambda case: case.place)
async def test_a_cut_websocket_is_what_it_is_on_a_real_network(case: Socket, cut: CutKind, parser: str) -> None:
    endings: list[Ending] = []
    own_error = RESET if cut is faults.Reset else CLOSED
    for way in WAYS:
        app = Answer(unfinished=case.unfinished)
        async with network(way, app, cut(case.on, case.after)) as net:
            ending = await ending_of(net, case.then)
            told = [] if case.told is None else [await told_by(app) for _ in range(ending.attempts)]
        endings.append(ending)
        if case.messages is None:
            expected = Ending(own_error, "", [], None, NO_ERROR, 2)
        else:
            expected = Ending(NO_ERROR, "", list(case.messages), 1006, NOT_SENT, 1)
        assert ending._replace(text="") == expected, way
        assert told == ([] if case.told is None else [case.told] * expected.attempts), way
        assert app.calls == len(told), way
    assert endings[0].text == endings[1].text


# Open and idle connections.


def pooled(session: aiohttp.ClientSession) -> ResponseHandler:
    """The only connection in the pool."""
    assert session.connector is not None
    ((connection,),) = session.connector._conns.values()
    return connection[0]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("way", WAYS)
async def test_an_idle_websocket_that_is_cut_ends_without_a_word(way: str, cut: CutKind, parser: str) -> None:
    app = Answer(unfinished=True)
    async with network(way, app) as net:

        async def cut_it(websocket: aiohttp.ClientWebSocketResponse) -> None:
            await net.cut(cut())

        assert await ending_of(net, cut_it) == Ending(NO_ERROR, "", [], 1006, NOT_SENT, 1)
        assert await told_by(app) == (CONNECT, LOST)


@pytest.mark.parametrize("cut", CUTS)
async def test_an_idle_connection_that_is_cut_leaves_the_pool_unnoticed(cut: CutKind, parser: str) -> None:
    errors: list[str] = []
    for way in WAYS:
        async with network(way, Answer()) as net:
            assert await outcome_of(net) == Outcome(NO_ERROR, "", b"helloworld", 1)
            closed = pooled(net.session).closed
            assert closed is not None
            await net.cut(cut())
            await asyncio.wait([closed])
            exc = closed.exception()
            assert kind_of(exc) == ((aiohttp.ClientConnectionError, RESET[1]) if cut is faults.Reset else NO_ERROR)
            errors.append(str(exc))
            assert await outcome_of(net, "POST") == Outcome(NO_ERROR, "", b"helloworld", 1)
    assert errors[0] == errors[1]


# Connections that are never made.


@asynccontextmanager
async def unreachable(
    way: str, fault: faults.Fault, host: str, port: AbstractContextManager[int]
) -> AsyncIterator[Network]:
    """A network where *fault* keeps a client from connecting to *host*. The real network uses the *port* for this."""
    made = Network()
    with port as number:
        url = f"http://{host}:{number}"
        if way == REAL:
            made.connect(url, aiohttp.TCPConnector(), HttpVersion11)
            async with made.session:
                yield made
            return
        connector = ASGIRoutingConnector({f"{host}:{number}": Answer()}, lifespan="off")
        made.connect(url, connector, HttpVersion11)
        async with made.session:
            with connector.inject(host, fault):
                yield made


NO_CONNECTION: Final = [
    (faults.Refuse(), LOCALHOST, refusing, (ClientConnectorError, ConnectionRefusedError)),
    (faults.Unresolvable(), "nobody.invalid", refusing, (ClientConnectorDNSError, socket.gaierror)),
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("fault", "host", "port", "error"), NO_CONNECTION, ids=[type(each[0]).__name__ for each in NO_CONNECTION]
)
async def test_no_connection_is_what_it_is_on_a_real_network(
    fault: faults.Fault, host: str, port: Callable[[], AbstractContextManager[int]], error: Error, method: str
) -> None:
    errors: list[ClientConnectorError] = []
    for way in WAYS:
        async with unreachable(way, fault, host, port()) as net:
            with pytest.raises(ClientConnectorError) as caught:
                await net.session.request(method, "/")
            exc = caught.value
            assert kind_of(exc) == error, way
            assert exc.os_error is exc.__cause__, way
            assert exc.host == host, way
            assert net.attempts == 1, way
            errors.append(exc)
    in_memory, real = errors
    if real.errno != socket.EAI_AGAIN:  # where no resolver is available
        assert in_memory.errno == real.errno
        assert str(in_memory).replace(str(in_memory.port), "") == str(real).replace(str(real.port), "")


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (ClientTimeout(sock_connect=SHORT), (ConnectionTimeoutError, TimeoutError)),
        (ClientTimeout(connect=SHORT), (ConnectionTimeoutError, TimeoutError)),
        (ClientTimeout(total=SHORT), (TimeoutError, asyncio.CancelledError)),
    ],
    ids=["sock_connect", "connect", "total"],
)
async def test_a_connection_that_is_not_answered_is_what_it_is_on_a_real_network(
    timeout: ClientTimeout, error: Error
) -> None:
    outcomes: list[Outcome] = []
    for way in WAYS:
        async with unreachable(way, faults.Hang("connect"), LOCALHOST, never_accepting()) as net:
            outcomes.append(await outcome_of(net, timeout=timeout))
    assert outcomes[0] == outcomes[1]
    assert (outcomes[0].error, outcomes[0].attempts) == (error, 1)


# A response that is not the app's.


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_an_answer_in_the_place_of_the_app_is_what_it_is_on_a_real_network(method: str) -> None:
    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"retry-after", b"1"), (b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"busy"})

    answers: list[tuple[object, ...]] = []
    app = Answer()
    fault = faults.Respond(503, {"retry-after": "1"}, "busy")
    for net in (network(IN_PROCESS, app, fault), network(REAL, App(busy))):
        async with net as made, made.session.request(method, "/") as response:
            names = ("Retry-After", "Content-Length")
            headers = [response.headers[name] for name in names]
            answers.append((response.status, headers, await response.read(), made.attempts))
    assert answers[0] == answers[1] == (503, ["1", "4"], b"" if method == "HEAD" else b"busy", 1)
    assert app.calls == 0


# Hanging connections.

NO_BYTE: Final = (SocketTimeoutError, None)
IN_ALL: Final = (TimeoutError, asyncio.CancelledError)


@pytest.mark.parametrize(
    ("fault", "calls", "timeout", "error", "received"),
    [
        pytest.param(faults.Hang("request"), 0, ClientTimeout(sock_read=SHORT), NO_BYTE, b"", id="request-sock_read"),
        pytest.param(faults.Hang("request"), 0, ClientTimeout(total=SHORT), IN_ALL, b"", id="request-total"),
        pytest.param(faults.Hang(), 1, ClientTimeout(sock_read=SHORT), NO_BYTE, b"", id="response-sock_read"),
        pytest.param(faults.Hang(), 1, ClientTimeout(total=SHORT), IN_ALL, b"", id="response-total"),
        pytest.param(faults.Hang(after=0), 1, ClientTimeout(sock_read=SHORT), NO_BYTE, b"", id="head-sock_read"),
        pytest.param(faults.Hang(after=3), 1, ClientTimeout(sock_read=SHORT), NO_BYTE, b"hel", id="body-sock_read"),
        pytest.param(faults.Hang(after=3), 1, ClientTimeout(total=SHORT), IN_ALL, b"hel", id="body-total"),
    ],
)
async def test_silence_is_what_it_is_on_a_real_network(
    fault: faults.Hang, calls: int, timeout: ClientTimeout, error: Error, received: bytes
) -> None:
    outcomes: list[Outcome] = []
    for way in WAYS:
        app = Answer()
        async with network(way, app, fault) as net:
            outcomes.append(await outcome_of(net, timeout=timeout))
            assert app.calls == calls, way
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]._replace(text="") == (error, "", received, 1)


@pytest.mark.parametrize("way", WAYS)
async def test_what_waits_in_a_response_goes_through_when_the_silence_ends(way: str) -> None:
    async with network(way, Answer(), faults.Hang(after=3)) as net, net.session.get("/") as response:
        assert await response.content.readexactly(3) == b"hel"
        assert await waits(response.content.read(1))
        net.end()
        assert await response.read() == b"loworld"


@pytest.mark.parametrize("way", WAYS)
async def test_what_waits_in_an_upload_goes_through_when_the_silence_ends(way: str) -> None:
    app = Answer()
    async with network(way, app, faults.Hang("request", after=3)) as net:
        request = asyncio.ensure_future(outcome_of(net, "POST", data=b"hello"))
        assert await waits(asyncio.shield(request))
        net.end()
        assert await request == Outcome(NO_ERROR, "", b"helloworld", 1)
        pieces = await app.end()
    assert b"".join(piece.get("body", b"") for piece in pieces) == b"hello"
    assert pieces[-1] == GONE


# A slow link.


@pytest.mark.parametrize("on", ["request", "response"])
async def test_a_late_answer_is_what_it_is_on_a_real_network(on: Literal["request", "response"]) -> None:
    outcomes: list[Outcome] = []
    for way in WAYS:
        async with network(way, Answer(), faults.Latency(60, on=on)) as net:
            outcomes.append(await outcome_of(net, timeout=ClientTimeout(sock_read=SHORT)))
        async with network(way, Answer(), faults.Latency(0.01, on=on)) as net:
            assert await outcome_of(net) == Outcome(NO_ERROR, "", b"helloworld", 1), way
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]._replace(text="") == (NO_BYTE, "", b"", 1)


@pytest.mark.parametrize("on", ["request", "response"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_slow_link_brings_everything_and_only_total_bounds_it(
    way: str, on: Literal["request", "response"]
) -> None:
    app = Answer()
    async with network(way, app, faults.Throttle(5000, on=on)) as net:
        assert await outcome_of(net, "POST", data=b"hello") == Outcome(NO_ERROR, "", b"helloworld", 1)
    async with network(way, app, faults.Throttle(20, on=on)) as net:
        # The next byte always comes before the timeout, and the last one never does.
        timeout = ClientTimeout(sock_read=60, total=SHORT)
        assert await outcome_of(net, "POST", data=b"hello", timeout=timeout) == Outcome(IN_ALL, "", b"", 1)


# Surprising cases.


@pytest.mark.parametrize("fault", [cut(on) for cut in CUTS for on in ("request", "response")], ids=repr)
@pytest.mark.parametrize("way", WAYS)
async def test_what_is_tried_a_second_time_heals_a_cut_unseen(way: str, fault: faults.Reset | faults.Close) -> None:
    calls = 2 if fault.on == "response" else 1
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        app = Answer()
        async with network(way, app, fault, times=1) as net:
            received = b"" if method == "HEAD" else b"helloworld"
            assert await outcome_of(net, method) == Outcome(NO_ERROR, "", received, 2), method
        assert app.calls == calls, method
    app = Answer()
    async with network(way, app, fault, times=1) as net:
        async with net.session.ws_connect("/") as websocket:
            assert await websocket.receive_str() == "hello"
        assert net.attempts == 2
    assert app.calls == calls
    for method in ("POST", "PATCH"):
        app = Answer()
        async with network(way, app, fault, times=1) as net:
            outcome = await outcome_of(net, method)
        own_error = RESET if isinstance(fault, faults.Reset) else CLOSED
        assert outcome._replace(text="") == (own_error, "", b"", 1), method
        assert app.calls == calls - 1, method


@pytest.mark.parametrize("way", WAYS)
async def test_an_upload_that_nobody_reads_is_not_bounded_by_sock_read(way: str) -> None:
    app = Answer()
    async with network(way, app, faults.Hang("request", after=0)) as net:
        timeout = ClientTimeout(sock_read=SHORT / 10, total=SHORT)
        outcome = await outcome_of(net, "POST", data=endless(), timeout=timeout)
    assert outcome == Outcome(IN_ALL, "", b"", 1)
    assert app.calls == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_reset_in_a_body_without_an_end_looks_like_its_end(way: str) -> None:
    reset = faults.Reset(after=8)
    async with (
        network(way, Answer("close"), reset, version=HttpVersion10) as net,
        net.session.get("/") as response,
    ):
        assert await response.read() == b"hellowor"


async def test_a_failure_of_an_app_in_a_body_without_an_end_is_raised() -> None:
    failure = ZeroDivisionError()
    read = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        await read.wait()
        raise failure

    async with session_to(app, session_version=HttpVersion10) as session:
        connector = session.connector
        assert isinstance(connector, ASGIRoutingConnector)
        # A reset that came later would not change this.
        with connector.inject(HOST, faults.Reset(after=8)):
            async with session.get("/") as response:
                assert await response.content.readexactly(5) == b"hello"
                read.set()
                with pytest.raises(ZeroDivisionError) as caught:
                    await response.read()
    assert caught.value is failure


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_cut_websocket_ends_its_iteration_without_a_word(way: str, cut: CutKind) -> None:
    async with network(way, Answer(), cut(after=8)) as net, net.session.ws_connect("/") as websocket:
        assert [message.data async for message in websocket] == ["hello"]
        assert websocket.close_code == 1006
