"""`LiveExchange`: an exchange that is updated from both ends of its connection.

The client's end reports what arrived and when the exchange ended, for an app and for the fallback alike. The server's
end, which reports to it as to an `Observer`, adds what only it knows: bodies, messages, and the app's exception.
"""

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import ClientRequest, ClientResponse, ServerTimeoutError
from aiohttp.connector import Connection
from multidict import CIMultiDictProxy
from typing_extensions import override

from asgi_connector._aiohttp.client_protocol import ClientProtocol
from asgi_connector._aiohttp.requests import is_closed_by_client, response_of, status_of
from asgi_connector._callers import Caller
from asgi_connector._exchange.exchange import Clock, Exchange, State, Via, WebSocketMessage
from asgi_connector._services.server_end import ServerEnd
from asgi_connector._types import ASGIApp, Bytes

if TYPE_CHECKING:
    from asgi_connector._aiohttp.tap import Kept, Tap

MESSAGES_KEPT: Final = 10_000  # of one WebSocket
_PIECES_KEPT: Final = 1_000  # of one response: their times
_SWITCHING_PROTOCOLS: Final = 101
_ABNORMAL_CLOSURE: Final = 1006  # RFC 6455, 7.1.5


class ExchangeOwner(Protocol):
    """The recorder, to its exchanges."""

    clock: Clock
    max_body_size: int | None

    def release(self, exchange: "LiveExchange") -> None:
        """The client has released the connection of *exchange*: `conclude()` may be called soon."""

    def exchange_failed(self) -> None:
        """An exchange has ended without a connection."""


class LiveExchange(Exchange):
    """An exchange that is being recorded.

    Attributes:
        app: answers in the place of the mounted app; `None` if the mounted app answers.
    """

    __slots__ = (
        "_closed",
        "_closed_at_client",
        "_connection",
        "_cut_off",
        "_kept_messages",
        "_kept_size",
        "_last_error",
        "_last_response",
        "_max_body_size",
        "_owner",
        "_req",
        "_tap",
        "_unread",
        "app",
    )

    def __init__(self, req: ClientRequest, caller: Caller | None, owner: ExchangeOwner) -> None:
        super().__init__(req, caller, owner.clock, owner.max_body_size)
        self.app: ASGIApp | None = None
        self._owner = owner
        self._max_body_size = owner.max_body_size
        self._kept_messages: list[WebSocketMessage] | None = None
        self._kept_size = 0  # bytes of messages
        self._req: ClientRequest | None = req
        self._connection: Connection | None = None
        self._closed: asyncio.Future[None] | None = None  # of the fallback's protocol
        self._tap: Tap | None = None  # observes the fallback's bodies
        self._unread: Kept | None = None  # what the tap has seen, after the exchange
        # The client's state when it released the connection.
        self._last_response: ClientResponse | None = None
        self._last_error: BaseException | None = None
        self._cut_off: BaseException | None = None
        self._closed_at_client: int | None = None  # the close code that the client has

    # The client's end.

    def not_connected(self, exc: BaseException) -> None:
        """End the exchange: it got no connection."""
        self._end = self._clock.time()
        self._end_order = self._clock.next_order()
        if not isinstance(exc, asyncio.CancelledError):
            self._error = exc
        self._keep_request_headers()
        self._finish("abandoned" if isinstance(exc, asyncio.CancelledError | TimeoutError) else "failed")
        self._owner.exchange_failed()

    def goes_elsewhere(self, via: Via) -> None:
        """Note that no app is called: another connector connects, or the request is refused."""
        self.via = via
        self.service = None
        if via == "refused":
            self._request.keep_no_body()
            self._response.keep_no_body()

    def handed_to(self, server: ServerEnd) -> None:
        """Note that an app is called, on this connection."""
        self.reused = server.used
        self.service = server.mounted.pattern

    def connection_taken(self, reused: bool) -> None:
        self.reused = reused

    def connected(self, connection: Connection) -> None:
        """Follow *connection*, on which the request is about to be sent."""
        protocol = connection.protocol
        assert protocol is not None
        self._connection = connection
        self._connected = self._clock.time()
        connection.add_callback(self.connection_released)
        if isinstance(protocol, ClientProtocol) and self.via != "fallback":
            protocol.observer = self
            return
        if self._max_body_size is not None:
            from asgi_connector._aiohttp.tap import Tap

            self._tap = Tap(connection, self.method, self, upgrade="Upgrade" in self._request.headers)
        if (closed := protocol.closed) is not None:
            # Reading `closed` creates the future. It outlives this exchange on a connection that is kept alive.
            closed.remove_done_callback(_retrieve_exception)
            closed.add_done_callback(_retrieve_exception, context=self._clock.context)
            closed.add_done_callback(self._connection_lost, context=self._clock.context)
            self._closed = closed

    def cut_off(self, exc: BaseException) -> None:
        """Note that a fault has ended the connection."""
        self._cut_off = exc

    def _connection_lost(self, closed: asyncio.Future[None]) -> None:
        if not closed.cancelled():  # by other code that awaited it
            self.connection_released()

    def websocket_closed(self, code: int) -> None:
        """Note the close code: the client has received a close frame, or has failed the WebSocket itself."""
        self._closed_at_client = code

    def connection_released(self) -> None:
        """Note that the client has released the connection, or that it was lost.

        The result is not known yet: a response that arrives at once releases the connection before its status is set.
        So the result is determined later, or when an attribute is read.
        """
        connection = self._connection
        if connection is None:  # it was released before, or the exchange has ended
            return
        if self._last_response is None:
            self._last_response = self._client_response()
        if self._response_start is None:
            self._keep_request_headers()
        protocol = connection.protocol
        assert protocol is not None  # aiohttp runs the callbacks before it takes the protocol away
        self._last_error = protocol.exception()
        if self._tap is not None:
            self._unread = self._tap.remove()
        if isinstance(protocol, ClientProtocol) and self.via != "fallback":
            protocol.observer = None
        self._connection = None  # it would keep a connector alive that its user has forgotten
        self._end = self._clock.time()
        self._end_order = self._clock.next_order()
        self._owner.release(self)

    def _client_response(self) -> ClientResponse | None:
        """Return the client's response on this connection. A request that is sent again gets another response."""
        if self._last_response is not None or self._end is not None or self._req is None:
            return self._last_response
        response = response_of(self._req)
        return None if response is None or response.connection is not self._connection else response

    @override
    def _settle(self) -> None:
        if self._state != "running":
            return
        if self._end is not None:
            self.conclude()
        else:
            self._update_from(self._client_response())

    @override
    def _read_bodies(self) -> None:
        if self._unread is not None:
            self._unread.read(self)
            self._unread = None
        elif self._tap is not None:
            self._tap.read()

    def _update_from(self, response: ClientResponse | None) -> None:
        if self._status is not None or response is None:
            return
        self._status = status_of(response)
        if self._status is not None:
            self._response.set_head(response.headers, response.version)

    def conclude(self) -> None:
        """Determine how the exchange has ended."""
        if self._state != "running":
            return
        response, error = self._last_response, self._last_error
        self._update_from(response)
        if self._status == _SWITCHING_PROTOCOLS:
            self._conclude_websocket()
        elif self._is_complete(response):
            self._finish("done")
        else:
            if self._status is not None and response is not None:
                error = response.content.exception() or error
            self._conclude_failure(error)

    def _is_complete(self, response: ClientResponse | None) -> bool:
        if self._status is None or response is None or not response.content.is_eof():
            return False
        failure = response.content.exception()
        if failure is not None and not is_closed_by_client(failure):
            return False
        if self._cut_off is None and self._error is None:
            return True
        # A response without a length ends when its connection ends (RFC 9112, 6.3), so a cut one looks complete.
        headers = response.headers
        return "Content-Length" in headers or "Transfer-Encoding" in headers or not self._response.size

    def _conclude_failure(self, error: BaseException | None) -> None:
        given_up = error is None or is_closed_by_client(error)
        if self._error is None and self._cut_off is None and given_up:
            self._finish("abandoned")
            return
        if self._error is None:
            self._error = self._cut_off if given_up else error
        self._finish("abandoned" if isinstance(error, ServerTimeoutError) else "failed")

    def _conclude_websocket(self) -> None:
        if self.via == "fallback" and self._tap is None:  # its frames are not observed
            self._finish("done")
            return
        # Only a close frame that reached the client counts. The app's close frame, or its reply to one, may be lost.
        self._close_code = self._closed_at_client or _ABNORMAL_CLOSURE
        if self._error is None and self._closed_at_client is not None:
            self._finish("done")
            return
        if self._error is None:
            self._error = self._cut_off
        self._finish("abandoned" if self._error is None else "failed")

    def _finish(self, state: State) -> None:
        self._state = state
        if self._closed is not None:
            self._closed.remove_done_callback(self._connection_lost)
        self._req = self._connection = self._closed = self._tap = self._last_response = self._last_error = None

    # The server's end: see `Observer`.

    def app_called(self) -> None:
        self.via = "app"

    def request_body(self, data: bytes) -> None:
        self._request.add(data)

    def response_started(self) -> None:
        self._response_start = self._clock.time()
        if self._state == "running":
            self._last_response = self._client_response()
            self._keep_request_headers()

    def _keep_request_headers(self) -> None:
        """Copy the headers, because the user may now change the request and send it again."""
        self._request.headers = CIMultiDictProxy(self._request.headers.copy())

    def response_body(self, data: Bytes, time: float | None = None) -> None:
        """A piece has arrived at *time*, now by default."""
        self._response.add(data)
        if not len(data):
            return
        if time is None:
            time = self._clock.time()
        if self._pieces is None:
            self._pieces = [time]
        elif len(self._pieces) < _PIECES_KEPT:
            self._pieces.append(time)

    def message(self, data: str | bytes, *, from_client: bool) -> None:
        if self._kept_messages is None:
            self.messages = self._kept_messages = []
        if len(self._kept_messages) == MESSAGES_KEPT:
            self.messages_dropped += 1
            return
        is_text = isinstance(data, str)
        size = len(data.encode()) if isinstance(data, str) else len(data)
        kept = self._max_body_size is not None and self._kept_size + size <= self._max_body_size
        if kept:
            self._kept_size += size
        date = self._clock.date_of(self._clock.time())
        order = self._clock.next_order()
        self._kept_messages.append(WebSocketMessage(from_client, is_text, size, data if kept else None, date, order))

    def closed(self, code: int, reason: str) -> None:
        if self._state == "running":
            self._close_code = code

    def app_failed(self, exc: BaseException) -> None:
        if self._state == "running":
            self._error = exc


def _retrieve_exception(closed: asyncio.Future[None]) -> None:
    """Mark the exception as retrieved, so that asyncio does not log it. It is reported elsewhere."""
    if not closed.cancelled():
        closed.exception()
