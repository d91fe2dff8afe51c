"""The server end that runs an ASGI app: asyncio's callbacks, one request-response cycle after another, and the upgrade.

The reader turns bytes into requests, and the writer turns responses into bytes. The cycle handles the app's messages.
"""

import asyncio
import enum
from collections.abc import Iterable
from contextvars import Context
from typing import Final
from urllib.parse import unquote

from asgi_connector._callers import name_of
from asgi_connector._http1.handshake import Handshake, accept_head, read_handshake
from asgi_connector._http1.request import BadRequest
from asgi_connector._observer import Observer
from asgi_connector._services.address import Address
from asgi_connector._services.in_flight import InFlight
from asgi_connector._services.mounted import MountedApp
from asgi_connector._services.server_end import ClientCall, ClientEnd, RequestProgress, ServerEnd, progress_of
from asgi_connector._types import ASGIApp

from .cycle import Cycle
from .flow import WriteFlow
from .frames import Frames
from .http import RequestResponseCycle
from .reader import RequestReader
from .scope import HttpScopes, websocket_scope
from .websocket import WebSocketCycle
from .writer import ResponseWriter


class _Phase(enum.Enum):
    """The meaning of the next bytes from the client."""

    HEAD = "the head of a request"
    BODY = "the body of a request"
    FRAMES = "the frames of a WebSocket"
    NEXT = "the next request, before the current one has been answered"
    CLOSED = "nothing: the connection is at its end"


_NO_REST: Final = "there must be nothing after the end of a request"
_HEAD, _BODY, _FRAMES, _NEXT, _CLOSED = _Phase.HEAD, _Phase.BODY, _Phase.FRAMES, _Phase.NEXT, _Phase.CLOSED


class ServerProtocol(ServerEnd):
    """Serves one ASGI app on one connection."""

    __slots__ = (
        "_caller",
        "_cycle",
        "_frames",
        "_handshake",
        "_phase",
        "_reader",
        "_scopes",
        "flow",
        "in_flight",
        "writer",
    )

    writer: ResponseWriter

    def __init__(self, client: ClientEnd, mounted: MountedApp, address: Address, in_flight: InFlight) -> None:
        super().__init__(client, mounted, address, in_flight.connections)
        self.flow = WriteFlow()
        self.in_flight = in_flight
        self._phase = _HEAD
        self._reader = RequestReader()
        self._scopes = HttpScopes(address, mounted)
        self._caller: str | None = None  # of the current request
        self._cycle: Cycle | None = None
        # A WebSocket is the last exchange of its connection.
        self._handshake: Handshake | None = None
        self._frames: Frames | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}, expects {self._phase.value}>"

    # The contract of a server end.

    def retire(self) -> None:
        self.writer.keep_alive = False
        super().retire()

    @property
    def busy(self) -> bool:
        unfinished = self._cycle is not None or self._frames is not None or bool(self._reader.early)
        return unfinished or self.transport.get_write_buffer_size() > 0

    @property
    def receiving(self) -> bool:
        return self._frames is not None and self._frames.open

    def progress(self) -> RequestProgress | None:
        if self._expected is not None:
            return progress_of(self._expected, bool(self._reader.early), False, False, False)
        if not self.busy:
            return None
        line, writer = self._reader.line, self.writer
        path, _, query = line.target.decode("ascii").partition("?")
        answered = writer.started or self._frames is not None
        passed = (True, True, answered, answered and not writer.head_waits)
        return RequestProgress(line.method, unquote(path), query, self._caller, writer.observer, *passed)

    def end_websocket(self) -> None:
        if self._frames is not None:
            self._frames.restart()

    def client_left(self) -> None:
        if self._frames is not None:
            self._frames.read_on()
        if self._cycle is not None:
            self._cycle.disconnect()
        self.flow.resume()

    def failure_undelivered(self, exc: BaseException, *, client_gone: bool) -> None:
        assert self._cycle is not None
        self._cycle.report(exc, client_gone=client_gone)

    # asyncio's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.writer = ResponseWriter(self.transport)

    def data_received(self, data: bytes) -> None:
        if self._phase is _HEAD:
            self._read_head(data)
        elif self._phase is _BODY:
            self._read_body(data)
        elif self._phase is _FRAMES:
            assert self._frames is not None
            self._frames.feed(data)
        else:
            self._keep_early(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = _CLOSED
        self._reader.early = b""
        self.writer.observer = None
        if self._frames is not None:
            self._frames.lost()
        if self._cycle is not None:
            self._cycle.disconnect()
        self.flow.resume()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self.flow.pause()

    def resume_writing(self) -> None:
        self.flow.resume()
        if self._frames is not None:
            self._frames.writable()

    # Requests.

    def _read_head(self, data: bytes) -> None:
        call = self._expected
        if call is None:
            # aiohttp sends one request each time that it gets a connection from the pool. Any other bytes are the rest
            # of a request whose framing was wrong. They must not become another request.
            self._end()
            return
        try:
            rest = self._reader.read_head(data)
        except BadRequest as exc:
            self._refuse(exc, call.observer)
            return
        if rest is not None:
            self._expected = None
            self._start_exchange(call, rest)

    def _start_exchange(self, call: ClientCall, rest: bytes) -> None:
        line, fields = self._reader.line, self._reader.fields
        self._caller = name_of(call.caller)
        http_11 = line.http_version == "1.1"
        if fields.websocket and fields.upgrade and http_11:
            self._start_websocket(call, rest)
            return
        keep_alive = http_11 and not fields.close and not self.retired
        self.writer.begin(line, call.observer, keep_alive=keep_alive, message="http.response.start")
        scope = self._scopes.scope(line, fields)
        expect_continue = fields.expect_continue and http_11  # RFC 9110, 10.1.1
        self._cycle = cycle = RequestResponseCycle(self, line, scope, call, expect_continue)
        if self._reader.begin_body():
            self._phase = _BODY
            if rest:
                self._read_body(rest)
        elif rest:
            self._refuse(BadRequest(400, _NO_REST), call.observer)
        else:
            self._phase = _NEXT
            cycle.request_ended = True
        # Last, because the app may run, answer, raise or call another service before this returns.
        if self._phase is not _CLOSED:
            self.in_flight.start(cycle, _app_for(call, self.mounted), call.context, call.caller)

    def _start_websocket(self, call: ClientCall, rest: bytes) -> None:
        line, fields = self._reader.line, self._reader.fields
        self.writer.begin(line, call.observer, keep_alive=False, message="websocket.http.response.start")
        try:
            self._handshake = handshake = read_handshake(line, fields)
        except BadRequest as exc:
            exc.to_head = line.method == "HEAD"
            self._refuse(exc, call.observer)
            return
        self._phase = _NEXT
        if rest:
            self._keep_early(rest)
        scope = websocket_scope(line, fields, self.address, self.mounted, list(handshake.subprotocols))
        self._cycle = cycle = WebSocketCycle(self, line, scope, call)
        self.in_flight.start(cycle, _app_for(call, self.mounted), call.context, call.caller)

    def _read_body(self, data: bytes) -> None:
        cycle, reader = self._cycle, self._reader
        assert isinstance(cycle, RequestResponseCycle)
        try:
            body, rest = reader.read_body(data)
        except BadRequest as exc:
            self._refuse(exc, cycle.observer)
            return
        if body:
            if cycle.observer is not None:
                cycle.observer.request_body(body)
            if not cycle.feed_body(body):
                self.transport.pause_reading()
        if reader.body_complete and rest:
            self._refuse(BadRequest(400, _NO_REST), cycle.observer)
        elif reader.body_complete:
            reader.end_body()
            self._phase = _NEXT
            cycle.feed_end()

    def _keep_early(self, data: bytes) -> None:
        """Keep early bytes, and read nothing more until they can be used.

        They may belong to the next request: its client saw by the framing that the response was complete, but the app
        has not completed it yet. Or they are frames of a WebSocket that the app has not accepted yet.
        """
        if self._expected is None and self._handshake is None:
            self.writer.keep_alive = False  # see _read_head()
            return
        self._reader.early += data
        self.transport.pause_reading()

    def _refuse(self, problem: BadRequest, observer: Observer | None) -> None:
        """Answer invalid bytes with an error, and close, because the bytes after them cannot be parsed either."""
        self.writer.refuse(problem, observer)
        self._end()

    def _end(self) -> None:
        """Close the connection, after the bytes that were written."""
        self._phase = _CLOSED
        self.transport.close()

    # What the cycle asks for.

    def resume_request(self) -> None:
        """Read on, because the app has received the buffered part of the request's body."""
        self.transport.resume_reading()

    def complete_response(self) -> None:
        """End the exchange, and begin the next one or close."""
        cycle, self._cycle = self._cycle, None
        if self.writer.keep_alive and isinstance(cycle, RequestResponseCycle) and cycle.request_ended:
            self._phase = _HEAD
            self.writer.end()
            if self._reader.early:
                self.in_flight.loop.call_soon(self._go_on, context=Context())
            else:
                self.transport.resume_reading()
        else:
            # If the request was not read to its end, the rest of its body must never be parsed as a request.
            self._end()

    def _go_on(self) -> None:
        """Read a request that arrived before the previous response was complete."""
        data = self._reader.take_early()
        self.transport.resume_reading()
        if data and self._phase is _HEAD:
            self._read_head(data)

    def upgrade(self, subprotocol: str | None, headers: Iterable[Iterable[bytes]]) -> Frames:
        """Write the head that accepts a WebSocket. After it, both directions carry frames."""
        handshake, observer = self._handshake, self.writer.observer
        assert handshake is not None
        self.transport.write(accept_head(handshake, subprotocol, headers))
        self._phase = _FRAMES
        self._frames = frames = Frames(
            self.transport, self.in_flight.loop, self.flow, handshake, observer, self.client_left
        )
        if observer is not None:
            observer.response_started()
        early = self._reader.take_early()
        self.transport.resume_reading()
        if early:
            frames.feed(early)
        return frames

    def forget_cycle(self) -> None:
        """Forget the cycle, whose app has closed its WebSocket and need not be told that the client closes it too."""
        self._cycle = None

    def websocket_app_ended(self) -> None:
        """Release the app, which has returned. The connection may stay open until its client closes it too."""
        if self._frames is not None:
            self.forget_cycle()
            self.mounted.end_use(self)

    def raise_from_client(self, exc: BaseException) -> bool:
        """Cut the response off, and raise *exc* from the client's call. Returns `False` if there is no such call."""
        writer, undelivered = self.writer, self.transport.get_write_buffer_size()
        before_head = writer.head_waits or not writer.started
        if not before_head and not undelivered and writer.is_whole:
            return False
        assert self._cycle is not None
        self._phase = _CLOSED
        if not self.client.connected:
            self.failure_undelivered(exc, client_gone=True)
        elif before_head:
            assert self._cycle.call is not None
            self.client.raise_from_request(exc, self._cycle.call.origin)
        else:
            self.client.raise_from_body(exc)
        if before_head:
            self.transport.abort()  # an undelivered head must not arrive
        else:
            self.transport.close()
        return True

    def raise_from_frames(self, exc: BaseException) -> None:
        """Make the client's `receive()` return *exc*, after the messages that were sent before."""
        assert self._frames is not None
        self.client.raise_from_frames(exc)
        self._frames.end_with_exception()
        self.transport.write_eof()

    def answer_500(self) -> None:
        """Answer as a real server whose app failed: with a plain 500, or by cutting off a response that has started."""
        self.writer.write_500()
        self.writer.release()
        self._end()


def _app_for(call: ClientCall, mounted: MountedApp) -> ASGIApp:
    """Return the app that answers *call*: the observer's app, or else the mounted app."""
    observer = call.observer
    if observer is None:
        return mounted.app
    if observer.app is not None:
        return observer.app
    observer.app_called()
    return mounted.app
