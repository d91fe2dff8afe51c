"""aiohttp's client protocol, extended so that a client's call can raise the exception of an app."""

# pyright: reportPrivateUsage=false

from collections.abc import Callable, Set
from typing import Any, Protocol, cast

from aiohttp import ClientError
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import WebSocketError, WebSocketReader
from aiohttp.streams import EofStream

from asgi_connector._display import repr_of
from asgi_connector._exceptions import ASGIConnectorError
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._services.server_end import Origin, ServerEnd

from .close_frames import CloseFrameFinder


class ConnectionObserver(Protocol):
    """Watches one exchange from the client's end of its connection."""

    def connection_released(self) -> None:
        """Called when the connection has been lost, after aiohttp's own `connection_lost()`."""

    def websocket_closed(self, code: int) -> None:
        """Called with the code of the close frame that has arrived, or of the error that makes aiohttp close."""


class ClientProtocol(ResponseHandler):
    """aiohttp's own client protocol, with two additions that are impossible over a socket.

    First, it takes the exception that ended an app, and the client's call raises it. Second, `close()` in the middle of
    an exchange resets the connection, so that neither end waits for the other: aiohttp's own `close()` waits without a
    limit until all bytes are delivered. But messages sent on a WebSocket are delivered, because its app reads on.
    """

    server: ServerEnd
    """The server end. Deleted when the connection is lost, so that a kept response does not keep the app alive."""
    acquired: Set[object] = frozenset()
    """The protocols that requests hold, so that they are not back in the pool."""
    on_app_exception: Callable[[Origin, BaseException], None]
    """Called with the origin of a request, and the app's exception that its call is about to raise."""
    observer: ConnectionObserver | None = None
    """The observer of the exchange on this connection."""
    _app_exception: BaseException | None = None
    _app_exception_raised = False
    _frames_exception: BaseException | None = None
    _frames_ended = False
    _frames_queue: WebSocketDataQueue | None = None

    @property
    def connected(self) -> bool:
        """Whether the client has not closed its end."""
        return self.transport is not None

    @property
    def in_use(self) -> bool:
        """Whether a request holds this connection, so that it is not back in the pool."""
        return self in self.acquired

    def close(self) -> None:
        if self._loop.is_closed():
            return  # called by a finaliser, when no callback can reach either end any more
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
        """Fail the body, because the server has ended the connection. After aiohttp's `close()` its reader hangs."""
        payload = self._payload
        if payload is not None and self._frames_queue is None and not payload.is_eof() and payload.exception() is None:
            exc = self._app_exception
            unfinished = ClientPayloadError("Response payload is not completed")
            payload.set_exception(unfinished if exc is None else _raisable_from_body(exc))

    def give_up(self, exc: BaseException) -> None:
        """Close, and make calls that wait for this connection fail with *exc*. After `close()` they would wait on."""
        payload, transport = self._payload, self.transport
        is_websocket = self._frames_queue is not None
        self.close()  # first, because it discards the exception of set_exception()
        if is_websocket:
            pass  # receive() sees the end of the connection, and releases it
        elif payload is not None and not payload.is_eof():
            payload.set_exception(exc)
        elif transport is not None:
            self.set_exception(exc)

    def raise_from_request(self, exc: BaseException, origin: Origin) -> None:
        """Raise *exc* from the call that waits for the head of the response to the request *origin*."""
        self.on_app_exception(origin, exc)
        self.set_exception(_raisable_from_request(exc))
        self._app_exception_raised = True

    def raise_from_body(self, exc: BaseException) -> None:
        """Raise *exc* from reading the body, after all earlier bytes and the end have arrived."""
        self._app_exception = exc

    def raise_from_frames(self, exc: BaseException) -> None:
        """Make a WebSocket's `receive()` return *exc*, after all earlier bytes and the end have arrived."""
        self._frames_exception = _raisable_from_frames(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override] # as in asyncio.Protocol
        if self._frames_exception is None:
            return super().eof_received()
        # Keep the connection open, so that the client can close it. Otherwise `receive()` loses the exception.
        self._frames_ended = True
        self._raise_frames_exception()
        return True

    def set_parser(self, parser: Any, payload: Any, *args: Any, **kwargs: Any) -> None:
        if self.observer is not None:
            parser = _WatchedReader(parser, payload, self.observer.websocket_closed)
        super().set_parser(parser, payload, *args, **kwargs)
        self._frames_queue = payload
        self._raise_frames_exception()

    def _raise_frames_exception(self) -> None:
        """Raise the exception, if the end has arrived and the client has set its reader of frames."""
        if self._frames_ended and self._frames_queue is not None and self._frames_exception is not None:
            self._frames_queue.set_exception(self._frames_exception)

    def set_exception(self, exc: BaseException, *args: Any, **kwargs: Any) -> None:
        # The app's exception has ended the connection. A write that fails because of that must not replace it.
        if not self._app_exception_raised:
            super().set_exception(exc, *args, **kwargs)

    def connection_lost(self, exc: BaseException | None) -> None:
        payload = self._payload
        if self._app_exception is not None and payload is not None and not payload.is_eof():
            payload.set_exception(_raisable_from_body(self._app_exception))
            self._app_exception = None
            # aiohttp would set its own error for a lost connection on the body that it finds here.
            self._payload = None
        self._give_up_exception()
        self._frames_exception = self._frames_queue = None
        super().connection_lost(exc)
        del self.server
        if self.observer is not None:
            self.observer.connection_released()

    def _give_up_exception(self) -> None:
        """Report the app's exception, which no reader will get: the body is complete, or the client has left."""
        if (exc := self._app_exception) is not None:
            self._app_exception = None
            complete = self._payload is None or self._payload.is_eof()
            self.server.failure_undelivered(exc, client_gone=not complete)


class _WatchedReader:
    """aiohttp's reader of frames in the client of a recorded WebSocket, which also reports the close frame.

    aiohttp itself does not store whether a close frame has arrived.
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
    """Wrap `StopIteration`, because the client's call waits for a future, and futures do not accept it."""
    if isinstance(exc, StopIteration):
        return _wrapped(exc, "before its response had started")
    return exc


def _raisable_from_body(exc: BaseException) -> BaseException:
    """Wrap exceptions that iterators treat as the end of the body, so that a truncated body does not look complete."""
    if isinstance(exc, EofStream | StopAsyncIteration | StopIteration):
        return _wrapped(exc, "while its response was being read")
    return exc


def _raisable_from_frames(exc: BaseException) -> BaseException:
    """Wrap exceptions that `ClientWebSocketResponse.receive()` swallows, raises or treats as the end."""
    swallowed = ClientError | EofStream | TimeoutError | WebSocketError | StopAsyncIteration | StopIteration
    if isinstance(exc, swallowed) or not isinstance(exc, Exception):
        return _wrapped(exc, "after it had accepted the WebSocket")
    return exc


def _wrapped(exc: BaseException, when: str) -> ASGIConnectorError:
    wrapped = ASGIConnectorError(f"The app raised {repr_of(exc)} {when}")
    wrapped.__cause__ = exc
    return wrapped
