"""The one place that touches what aiohttp keeps private.

It is the same in every aiohttp from 3.13 to 3.14; the tests in ``tests/test_aiohttp.py`` fail if it moves.
"""
# pyright: reportPrivateUsage=false

import asyncio
import inspect
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import Context
from types import SimpleNamespace
from typing import Any, Final, Protocol, cast

import aiohttp.client
import aiohttp.http
from aiohttp import (
    BaseConnector,
    ClientError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    WSCloseCode,
    WSMessage,
    WSMsgType,
)
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_exceptions import (
    ClientConnectionError,
    ClientConnectorError,
    ClientOSError,
    ClientPayloadError,
    ServerDisconnectedError,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.compression_utils import ZLibBackend, ZLibCompressor
from aiohttp.connector import Connection
from aiohttp.http import WebSocketError, WebSocketReader, WebSocketWriter
from aiohttp.streams import EofStream
from aiohttp.tracing import Trace, TraceConfig

from ._callers import Caller
from ._close_frames import CloseFrameFinder
from ._display import repr_of
from ._exceptions import ASGIConnectorError
from ._mounts import MountedApp
from ._observer import Observer
from ._transport import MemoryTransport


class ServerEnd(Protocol):
    """What the client's end of a connection needs to know of the other one."""

    def hand_out(self, context: Context, caller: Caller | None, origin: object, observer: Observer | None) -> bool:
        """The client is about to send a request; `False` if this connection takes no more of them.

        *context* is for the app to run in, *caller* says inside of which app the request is made.
        """
        ...

    used: bool
    """Whether it has been handed out before."""

    def retire(self, acquired: bool) -> None:
        """Serve no request after the current one, or the one that it has been handed out for."""

    @property
    def retired(self) -> bool:
        """Whether it serves no further request."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a request is unfinished, or a response undelivered."""
        ...

    @property
    def receiving(self) -> bool:
        """Whether this is a WebSocket, whose app is to receive what the client has sent, also when it has gone."""
        ...

    @property
    def mounted(self) -> MountedApp:
        """The app that answers."""
        ...

    def client_left(self) -> None:
        """The client is closing its end in the middle of an exchange; the app may know before `connection_lost()`."""

    def failure_undelivered(self, exc: BaseException, *, client_gone: bool) -> None:
        """The exception could not be raised from any call of the client."""


class ClientProtocol(ResponseHandler):
    """aiohttp's own client protocol, with two things that no socket can do for it.

    It can be told of the exception that ended an app, which the client's call then raises; and closing it in the middle
    of an exchange resets the connection, so that neither end waits for the other (aiohttp's own `close()` waits until
    everything is delivered, without a limit). What was sent on a WebSocket is delivered, for its app reads on.
    """

    server: ServerEnd
    """The other end, until the connection has been lost: whoever keeps a response keeps this, and not the app too."""
    on_app_exception: Callable[[object, BaseException], None]
    """Called with the origin of a request whose call is about to raise the exception."""
    on_lost: Callable[[], None] | None = None
    """Called when the connection has been lost, and aiohttp knows it."""
    on_websocket_closed: Callable[[int], None] | None = None
    """Called with the code of the close frame that has arrived, or of the error for which aiohttp closes by itself."""
    _app_exception: BaseException | None = None
    _app_exception_raised = False
    _frames_exception: BaseException | None = None
    _frames_ended = False
    _frames_queue: WebSocketDataQueue | None = None

    def close(self) -> None:
        if self._loop.is_closed():
            return  # a finaliser closes what is left: neither end can be told any more
        transport = self.transport
        if transport is not None and transport.is_closing():
            self._cut_body_off()
        self._give_up_exception()
        if transport is not None:
            server = self.server
            deliver = server.receiving or not (server.busy or transport.get_write_buffer_size())
            if cast(MemoryTransport, transport).hang_up(deliver=deliver, at_once=server.retired):
                server.client_left()
        super().close()

    def _cut_body_off(self) -> None:
        """The server has ended the connection. aiohttp, which closes it here, would let its reader wait for ever."""
        payload = self._payload
        if payload is not None and self._frames_queue is None and not payload.is_eof() and payload.exception() is None:
            exc = self._app_exception
            unfinished = ClientPayloadError("Response payload is not completed")
            payload.set_exception(unfinished if exc is None else _raisable_from_body(exc))

    def give_up(self, exc: BaseException) -> None:
        """Close, and let what waits for this connection fail with *exc*; `close()` alone would leave it waiting."""
        payload, transport = self._payload, self.transport
        is_websocket = self._frames_queue is not None
        self.close()  # first, for it forgets what set_exception() was told
        if is_websocket:
            pass  # receive() sees the end of the connection, and lets go of it
        elif payload is not None and not payload.is_eof():
            payload.set_exception(exc)
        elif transport is not None:
            self.set_exception(exc)

    def raise_from_request(self, exc: BaseException, origin: object) -> None:
        """Raise *exc* from the call that waits for the head of the response to the request *origin*."""
        self.on_app_exception(origin, exc)
        self.set_exception(_raisable_from_request(exc))
        self._app_exception_raised = True

    def raise_from_body(self, exc: BaseException) -> None:
        """Raise *exc* from reading the body, when all that was written before it has arrived, and the end."""
        self._app_exception = exc

    def raise_from_frames(self, exc: BaseException) -> None:
        """Let a WebSocket's `receive()` answer *exc*, when all that was written before it has arrived, and the end."""
        self._frames_exception = _raisable_from_frames(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override] # as in asyncio.Protocol
        if self._frames_exception is None:
            return super().eof_received()
        # The connection stays open, for the client is to close it: `receive()` keeps the exception only if it can.
        self._frames_ended = True
        self._raise_frames_exception()
        return True

    def set_parser(self, parser: Any, payload: Any, *args: Any, **kwargs: Any) -> None:
        if self.on_websocket_closed is not None:
            parser = _WatchedReader(parser, payload, self.on_websocket_closed)
        super().set_parser(parser, payload, *args, **kwargs)
        self._frames_queue = payload
        self._raise_frames_exception()

    def _raise_frames_exception(self) -> None:
        """Once the end has arrived, and the client has taken over what comes before it."""
        if self._frames_ended and self._frames_queue is not None and self._frames_exception is not None:
            self._frames_queue.set_exception(self._frames_exception)

    def set_exception(self, exc: BaseException, *args: Any, **kwargs: Any) -> None:
        # A write that fails on the connection which the app's exception has just ended comes second.
        if not self._app_exception_raised:
            super().set_exception(exc, *args, **kwargs)

    def connection_lost(self, exc: BaseException | None) -> None:
        payload = self._payload
        if self._app_exception is not None and payload is not None and not payload.is_eof():
            payload.set_exception(_raisable_from_body(self._app_exception))
            self._app_exception = None
            # In the place of what aiohttp makes of a lost connection: it sets that on the body that it finds here.
            self._payload = None
        self._give_up_exception()
        self._frames_exception = self._frames_queue = None
        super().connection_lost(exc)
        del self.server
        if self.on_lost is not None:
            self.on_lost()

    def _give_up_exception(self) -> None:
        """The body is complete, or the client goes before it is: nobody will read the exception from it."""
        if (exc := self._app_exception) is not None:
            self._app_exception = None
            complete = self._payload is None or self._payload.is_eof()
            self.server.failure_undelivered(exc, client_gone=not complete)


class _WatchedReader:
    """aiohttp's reader of frames, in the client of a WebSocket that is recorded, and what it is told of closing.

    aiohttp itself does not keep whether a close frame has arrived.
    """

    def __init__(self, reader: WebSocketReader, queue: WebSocketDataQueue, on_closed: Callable[[int], None]) -> None:
        self._reader = reader
        self._queue = queue
        self._on_closed = on_closed
        self._finder = CloseFrameFinder()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        failed, rest = self._reader.feed_data(data)
        code = self._finder.feed(data)
        if failed and isinstance(error := self._queue.exception(), WebSocketError):
            code = error.code
        if code is not None:
            self._on_closed(code)
        return failed, rest

    def feed_eof(self) -> None:
        self._reader.feed_eof()


def _raisable_from_request(exc: BaseException) -> BaseException:
    """A future, on which the call waits, takes no `StopIteration`."""
    if isinstance(exc, StopIteration):
        return _wrapped(exc, "before its response had started")
    return exc


def _raisable_from_body(exc: BaseException) -> BaseException:
    """Iterators take these for the end of the body; a truncated one must not pass for whole."""
    if isinstance(exc, EofStream | StopAsyncIteration | StopIteration):
        return _wrapped(exc, "while its response was being read")
    return exc


def _raisable_from_frames(exc: BaseException) -> BaseException:
    """`ClientWebSocketResponse.receive()` swallows or raises these, or takes them for the end."""
    swallowed = ClientError | EofStream | TimeoutError | WebSocketError | StopAsyncIteration | StopIteration
    if isinstance(exc, swallowed) or not isinstance(exc, Exception):
        return _wrapped(exc, "after it had accepted the WebSocket")
    return exc


def _wrapped(exc: BaseException, when: str) -> ASGIConnectorError:
    wrapped = ASGIConnectorError(f"The app raised {repr_of(exc)} {when}")
    wrapped.__cause__ = exc
    return wrapped


class ReadingFlow(BaseProtocol):
    """What a `WebSocketDataQueue` pauses and resumes; it is the protocol of no transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        super().__init__(loop)
        self.transport = transport
        self._upgraded = True  # since 3.14: there is no parser of HTTP to pause

    def release(self) -> None:
        """Read on, whatever the queue says from now on."""
        if self._reading_paused:
            self.resume_reading()
        self.transport = None


class FrameListener(Protocol):
    """Who is told of the frames that are not messages."""

    def pinged(self, payload: bytes) -> None:
        """A ping has arrived."""

    def closed_by_client(self, code: int, reason: str) -> None:
        """A close frame has arrived; *code* is 0 if it has none."""

    def failed(self, exc: BaseException) -> None:
        """What has arrived is not a WebSocket's."""


class FrameReader(WebSocketDataQueue):
    """aiohttp's reader of frames, and the queue of messages that it fills.

    At more than *limit* bytes of messages it stops reading from *transport*. Control frames do not wait in the queue:
    they are the *listener*'s as they arrive.
    """

    def __init__(
        self,
        listener: FrameListener,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        *,
        limit: int,
        max_size: int,
        compress: bool,
        observer: Observer | None,
    ) -> None:
        self._listener = listener
        self._observer = observer
        self._max_size = max_size
        self._kept: deque[WSMessage] = deque()
        self._ended = False
        self.flow = ReadingFlow(loop, transport)
        super().__init__(self.flow, limit // 2, loop=loop)  # it doubles it
        self._parser = WebSocketReader(self, max_size + 1, compress, **_DECODE_TEXT)  # the first size that is too big

    def feed(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._parser.feed_data(data)

    def read_on(self) -> None:
        """Do not stop reading any more, however much there is: the client has sent all that it will."""
        self.flow.release()

    def end(self) -> None:
        """Take no further message; those that have arrived are still to be read.

        They are moved out of aiohttp's way: its reader stops before the client's close frame while it has too many.
        """
        while self._buffer:
            self._kept.append(run_at_once(super().read()))
        self._ended = True
        self.read_on()
        self.feed_eof()

    async def read(self) -> Any:
        """The next message; raises `EofStream` after the last one."""
        if not self._kept:
            try:
                return await super().read()
            except EofStream:
                if not self._kept:  # end() may have come while it waited
                    raise
        return self._kept.popleft()

    def feed_data(self, data: Any, size: int) -> None:
        message: WSMessage = data
        if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
            if size > self._max_size:  # inflated, it may be larger by one than aiohttp's reader is told to take
                self.set_exception(
                    WebSocketError(WSCloseCode.MESSAGE_TOO_BIG, f"Message size {size} exceeds limit {self._max_size}")
                )
            elif not self._ended:
                super().feed_data(message, size)
                if self._observer is not None:
                    self._observer.message(message.data, from_client=True)
        elif message.type is WSMsgType.PING:
            self._listener.pinged(message.data)
        elif message.type is WSMsgType.CLOSE:
            self._listener.closed_by_client(message.data, message.extra or "")

    def set_exception(self, exc: BaseException, *args: Any, **kwargs: Any) -> None:
        self.feed_eof()
        self._listener.failed(exc)


_DECODE_TEXT: Final[Any] = {"decode_text": True} if hasattr(aiohttp.http, "WSMessageTextBytes") else {}
"""Since 3.14, where there are text messages in bytes, the reader's C form asks for it, and has no default."""


class FrameWriter(WebSocketWriter):
    """aiohttp's writer of frames, of a server: one that never waits.

    When there is room is asked before. And what is compressed is compressed at once: aiohttp leaves large messages to a
    thread, from where one would follow a close frame, and outlive the app that sent it.
    """

    def __init__(
        self, protocol: BaseProtocol, transport: asyncio.Transport, *, compress: int, no_context_takeover: bool
    ) -> None:
        super().__init__(protocol, transport, limit=sys.maxsize, compress=compress, notakeover=no_context_takeover)
        if compress:
            # The same as its own, which it makes when it has none, without the size from which on a thread is used.
            self._compressobj = ZLibCompressor(
                level=ZLibBackend.Z_BEST_SPEED, wbits=-compress, max_sync_chunk_size=None
            )

    def write(self, payload: bytes, kind: WSMsgType) -> None:
        """Write a frame; raises `aiohttp.ClientConnectionResetError` if there is nobody to read it."""
        if self.compress and kind < WSMsgType.CLOSE and hasattr(self, "_send_compressed_frame_sync"):
            # Since 3.13.3. Before, send_frame() has nothing to wait for; now it has a task for what is large.
            self._send_compressed_frame_sync(payload, kind, None)
        else:
            run_at_once(self.send_frame(payload, kind))


def run_at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} had something to wait for")


def response_of(req: ClientRequest) -> ClientResponse | None:
    """What has been made for the response to *req*, which has no status before the head has arrived."""
    return req.response


def is_closed_by_client(exc: BaseException) -> bool:
    """Whether *exc* is what aiohttp fails a body with that its reader has given up, or whose session has closed."""
    return type(exc) is ClientConnectionError and exc.__cause__ is None  # else an upload has failed by itself


def makes_aiohttp_replay(req: ClientRequest, exc: BaseException) -> bool:
    """Whether aiohttp sends *req* a second time when it fails with *exc* (`ClientSession._request`)."""
    if req.method not in _REPLAYED_METHODS:
        return False
    return isinstance(exc, ClientOSError | ServerDisconnectedError) and not isinstance(exc, ClientConnectorError)


_REPLAYED_METHODS: Final = aiohttp.client.IDEMPOTENT_METHODS  # which `aiohttp` itself does not export


def calling_task(req: ClientRequest) -> asyncio.Task[Any] | None:
    """The task that called the session; client middlewares may send a request from another one.

    A request's timer knows it, where the session's call has a timeout.
    """
    tasks: list[asyncio.Task[Any]] = getattr(req._timer, "_tasks", [])
    return tasks[0] if tasks else None


def is_replay(req: ClientRequest, earlier: ClientRequest) -> bool:
    """Whether aiohttp, and not its user, sends *earlier* again as *req*.

    A timer belongs to one call of the session. aiohttp makes a new request object in it for each redirect and for its
    replay; a client middleware that tries again sends the same one.
    """
    return req is not earlier and req._timer is earlier._timer


def let_fail_again(req: ClientRequest, exc: BaseException) -> None:
    """Note on *req* that it fails with *exc*, however often a client middleware sends it.

    On the request itself, since *exc* refers to it by its traceback: so both go when the call is over.
    """
    vars(req)[_FAILURE] = exc


def failure_of(req: ClientRequest) -> BaseException | None:
    """What `let_fail_again()` has noted."""
    failure: BaseException | None = vars(req).get(_FAILURE)
    return failure


_FAILURE: Final = "_asgi_connector_failure"


def trace_reuse(report: Callable[[bool], None]) -> Trace:
    """A trace for a connector that tells whether the connection which it takes has been used before."""
    config = TraceConfig()

    async def reused(session: object, context: object, params: object) -> None:
        report(True)

    async def created(session: object, context: object, params: object) -> None:
        report(False)

    config.on_connection_reuseconn.append(reused)
    config.on_connection_create_end.append(created)
    config.freeze()
    return Trace(cast(Any, None), config, SimpleNamespace())


def take_proxy(req: ClientRequest) -> tuple[Any, Any, Any]:
    """Take the proxy away from a request, before it is written, which depends on it; `update_proxy()` gives it back."""
    proxy = (req.proxy, req.proxy_auth, req.proxy_headers)
    req.update_proxy(None, None, None)
    return proxy


class PoolingConnector(BaseConnector):
    """aiohttp's connector and its pool, whole; what a subclass needs of the private part is named here.

    `BaseConnector` calls `_create_connection()` for a new connection, and third parties call `_close()`, from
    finalisers and on loops that are closed.
    """

    @property
    def closed(self) -> bool:
        """Whether the connector is closed."""
        if (self._closed or running_loop() is not self._loop) and _is_asked_by_a_request():
            self._refuse_request()
        return self._closed

    def _has_closed(self) -> bool:
        """The same, at less cost."""
        return self._closed

    def _refuse_request(self) -> None:
        """A session makes a request through a connector that is closed, or of another loop: raise what is wrong.

        aiohttp would say it in words that do not help.
        """
        raise NotImplementedError

    def _open_connection(self, req: ClientRequest) -> ClientProtocol:
        """Make a new connection for *req*."""
        raise NotImplementedError

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ClientProtocol:
        return self._open_connection(req)

    async def _reuse(self, req: ClientRequest, traces: list[Trace]) -> Connection | None:
        """An idle connection from the pool, if there is one: how `connect()` begins, without the rest of it."""
        return await self._get(req.connection_key, traces)

    def _close_forgotten(self, protocols: Iterable[ClientProtocol]) -> None:
        """Close what the pool has lost: when a trace raises or is cancelled, `connect()` drops the connection it has.

        It may be that one which is being connected by another call is closed too; that call takes another one.
        """
        pooled = {protocol for connections in self._conns.values() for protocol, _ in connections}
        for protocol in protocols:
            if protocol not in pooled and protocol not in self._acquired:
                protocol.close()

    def _has_acquired(self, protocol: ClientProtocol) -> bool:
        """Whether the pool has given this connection away, and not got it back."""
        return protocol in self._acquired

    def _close_pool(self, *, abort_ssl: bool = False) -> list[Awaitable[object]]:
        """Close every connection that is pooled or in use; `closed` is true from now on."""
        return super()._close(abort_ssl=abort_ssl)

    def _close_now(self) -> list[Awaitable[object]]:
        """Close all that there is to close without waiting; what could be waited for is returned."""
        raise NotImplementedError

    def _close(self, *, abort_ssl: bool = False) -> list[Awaitable[object]]:
        return self._close_now()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs here, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _is_asked_by_a_request() -> bool:
    """Whether it is a session's request that reads `PoolingConnector.closed`, and not a user.

    `ClientSession._request` begins by reading `ClientSession.closed`, which is that of its connector. Then it says
    "Session is closed", of a new session too if another one has closed the connector. In another loop it goes on, and
    says "Timeout context manager should be used inside a task". Of a session that has been closed itself, the connector
    is not asked.
    """
    frame = inspect.currentframe()
    for _ in range(3):  # this function, `PoolingConnector.closed`, `ClientSession.closed`
        frame = frame and frame.f_back
    return frame is not None and frame.f_code is ClientSession._request.__code__


def close_now(connector: BaseConnector) -> list[Awaitable[object]]:
    """Close a connector and its connections without waiting; what could be waited for is returned."""
    return connector._close()


def loop_of(connector: BaseConnector) -> asyncio.AbstractEventLoop:
    return connector._loop
