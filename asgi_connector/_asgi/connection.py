"""The server's end of a connection: requests in, framed responses out, keep-alive, 100-continue, upgrade.

One `ServerProtocol` serves one connection, one exchange at a time. It owns everything that is bytes; what the messages
mean to an app is the cycle's.
"""

import asyncio
import enum
from collections.abc import Iterable
from contextvars import Context
from typing import Final, cast
from urllib.parse import unquote

from aiohttp import ClientConnectionError, ClientRequest

from asgi_connector._aiohttp.client_protocol import ClientProtocol
from asgi_connector._callers import Caller, name_of
from asgi_connector._exceptions import ASGIProtocolError
from asgi_connector._http1.handshake import Handshake, accept_head, read_handshake
from asgi_connector._http1.request import (
    MAX_HEAD,
    MAX_LINE,
    BadRequest,
    BodyReader,
    ChunkedReader,
    Fields,
    LengthReader,
    RequestLine,
    parse_fields,
    parse_request_line,
)
from asgi_connector._http1.response import Framing, build_head, plain_response
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._observer import Observer
from asgi_connector._services.table import MountedApp
from asgi_connector._types import ASGIApp, Bytes

from .cycle import Cycle
from .frames import Frames
from .http import RequestResponseCycle
from .in_flight import Running, Underway
from .scope import Address, http_scope, websocket_scope
from .websocket import WebSocketCycle


class _Phase(enum.Enum):
    """What the next bytes of the client are."""

    HEAD = "the head of a request"
    BODY = "the body of a request"
    FRAMES = "the frames of a WebSocket"
    NEXT = "the next request, whose turn has not come"
    CLOSED = "nothing: there are none"


_HEAD, _BODY, _FRAMES, _NEXT, _CLOSED = _Phase.HEAD, _Phase.BODY, _Phase.FRAMES, _Phase.NEXT, _Phase.CLOSED
_NO_PROTOCOL: Final = asyncio.Protocol()
_CHUNKED, _NO_BODY = Framing.CHUNKED, Framing.NO_BODY


class ServerProtocol(asyncio.Protocol):
    """Serves one mounted app on one connection."""

    __slots__ = (
        "_awaited",
        "_body_left",
        "_body_reader",
        "_buffer",
        "_caller",
        "_client",
        "_cycle",
        "_fields",
        "_fields_bytes",
        "_frames",
        "_framing",
        "_handshake",
        "_keep_alive",
        "_line",
        "_head_bytes",
        "_loop",
        "_observer",
        "_phase",
        "_retired",
        "_running",
        "_start_message",
        "_tail_written",
        "_transport",
        "_writable",
        "address",
        "mounted",
        "used",
        "write_paused",
    )

    _transport: MemoryTransport

    def __init__(self, client: ClientProtocol, mounted: MountedApp, address: Address, running: Running) -> None:
        self.mounted = mounted
        self.address = address
        self._client = client
        self._running = running
        self._loop = running.loop
        self._phase = _HEAD
        self._buffer = b""  # bytes that cannot be used yet: part of a head, or the next request
        # Handed out, and nothing has arrived since: the context for the app, the caller, the client's name for it.
        self._awaited: tuple[Context, Caller | None, object] | None = None
        self._retired = False
        self.used = False
        # Requests on one connection are much alike, byte for byte: what the last one's bytes meant is kept.
        self._head_bytes: bytes = b""
        self._line = RequestLine("", b"", "")
        self._fields_bytes: bytes | None = None
        self._fields = Fields([])
        # The current exchange.
        self._cycle: Cycle | None = None
        self._observer: Observer | None = None
        self._caller: str | None = None  # the name of who made it
        self._body_reader: BodyReader | None = None
        self._keep_alive = True
        self._framing: Framing | None = None  # None until the response starts
        self._body_left: int | None = None  # of the content-length that the app announced
        self._tail_written = 0  # bytes written since the response's head
        self.write_paused = False
        self._writable: asyncio.Event | None = None  # made when a send() first has to wait
        # A WebSocket is the last exchange of its connection.
        self._start_message = "http.response.start"  # which starts a response
        self._handshake: Handshake | None = None
        self._frames: Frames | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}, expects {self._phase.value}>"

    # The connector's view: handing out, retiring.

    def hand_out(self, context: Context, caller: Caller | None, origin: object, observer: Observer | None) -> bool:
        """The client is about to send a request here; `False` if this connection takes no more of them.

        The app will run in *context*, inside of *caller*. *origin* is what the client knows the request by.
        """
        if self._retired or self._transport.is_closing():
            return False
        self.used = True
        self._awaited = (context, caller, origin)
        self._observer = observer
        if not self.mounted.lifespan.ready:
            self.retire(True)  # something else answers in the place of the app, which the next request is to start
        return True

    @property
    def transport(self) -> MemoryTransport:
        return self._transport

    @property
    def client(self) -> ClientProtocol:
        """The other end."""
        return self._client

    def retire(self, acquired: bool) -> None:
        """Serve no request after the current one, or the one that this connection has been handed out for.

        *acquired* says whether it is out of the pool: what was handed out may have been given back unused.
        """
        self._retired = True
        self._keep_alive = False
        self._client.force_close()  # so that it is not pooled again
        if not (acquired and self._awaited) and not self.busy:
            self._transport.close()
        elif self._transport.peer_lost:
            self._end_without_client()

    @property
    def retired(self) -> bool:
        return self._retired

    @property
    def busy(self) -> bool:
        """Whether a request is unfinished, or a response undelivered; a WebSocket is until its connection ends."""
        unfinished = self._cycle is not None or self._frames is not None or bool(self._buffer)
        return unfinished or self._transport.get_write_buffer_size() > 0

    def underway(self) -> Underway | None:
        method, path = self._line.method, self._line.target.partition(b"?")[0].decode("ascii")
        caller_name = self._caller
        awaited = self._awaited is not None
        if self._awaited is not None:
            _, caller, origin = self._awaited
            req, _ = cast("tuple[ClientRequest, object]", origin)
            method, path, caller_name = req.method, req.url.raw_path, name_of(caller)
        elif not self.busy:
            return None
        answered = not awaited and (self._framing is not None or self._frames is not None)
        head_waits = self._framing is not None and self._transport.get_write_buffer_size() > self._tail_written
        return Underway(
            method=method,
            path=unquote(path),
            caller=caller_name,
            observer=self._observer,
            request_begun=not awaited or bool(self._buffer),
            request_head_passed=not awaited,
            response_begun=answered,
            response_head_passed=answered and not head_waits,
        )

    @property
    def receiving(self) -> bool:
        """Whether this is a WebSocket, whose app is to receive what the client has sent, also when it has gone."""
        return self._frames is not None and self._frames.open

    def close_client(self) -> None:
        """End the connection as its client would, whose calls fail."""
        self._client.give_up(ClientConnectionError("Connector is closed"))
        if self._transport.peer_lost:
            self._end_without_client()

    def _end_without_client(self) -> None:
        """The client has left, and this end may never read on to where it would learn of it."""
        self.client_left()
        self._transport.abort()

    def failure_undelivered(self, exc: BaseException, *, client_gone: bool) -> None:
        assert self._cycle is not None
        self._cycle.report(exc, client_gone=client_gone)

    def client_left(self) -> None:
        if self._frames is not None:
            self._frames.read_on()
        if self._cycle is not None:
            self._cycle.disconnect()
        self._end_write_pause()

    # asyncio's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(MemoryTransport, transport)
        self._running.connections[self] = None
        self.mounted.acquire(self)

    def data_received(self, data: bytes) -> None:
        if self._phase is _HEAD:
            self._read_head(data)
        elif self._phase is _BODY:
            self._read_body(data)
        elif self._phase is _FRAMES:
            assert self._frames is not None
            self._frames.feed(data)
        else:
            self._keep(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = _CLOSED
        self._buffer = b""
        self._awaited = None
        self._observer = None
        if self._frames is not None:
            self._frames.lost()
        if self._cycle is not None:
            self._cycle.disconnect()
        self._end_write_pause()
        self._running.connections.pop(self, None)
        self.mounted.release(self)
        self._transport.set_protocol(_NO_PROTOCOL)  # so that a kept transport does not keep the app

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self._end_write_pause()
        if self._frames is not None:
            self._frames.writable()

    def _end_write_pause(self) -> None:
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()

    # Requests.

    def _read_head(self, data: bytes) -> None:
        if self._awaited is None:
            # aiohttp sends a request when it has been handed a connection, and then one. Bytes that come otherwise are
            # the rest of one whose framing was false, and must not become another.
            self._phase = _CLOSED
            self._transport.close()
            return
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if data == self._head_bytes:
            self._start_exchange(b"")
            return
        end = data.find(b"\r\n\r\n")
        try:
            if end > MAX_LINE or (end < 0 and len(data) > MAX_LINE):
                _check_size(data.removesuffix(b"\r") if end < 0 else data[:end])
            if end < 0:
                self._buffer = data
                return
            self._parse_head(data[:end])
        except BadRequest as exc:
            self._refuse(exc, to_head=data.startswith(b"HEAD "))
            return
        self._head_bytes = data[: end + 4]
        self._start_exchange(data[end + 4 :])

    def _parse_head(self, head: bytes) -> None:
        start, _, block = head.partition(b"\r\n")
        self._line = parse_request_line(start)
        if block != self._fields_bytes:
            self._fields = parse_fields(block)
            self._fields_bytes = block

    def _start_exchange(self, rest: bytes) -> None:
        line, fields = self._line, self._fields
        assert self._awaited is not None
        context, caller, origin = self._awaited
        self._awaited = None
        self._caller = name_of(caller)
        observer = self._observer
        http_11 = line.http_version == "1.1"
        self._keep_alive = http_11 and not fields.close and not self._retired
        self._framing = None
        self._tail_written = 0
        if fields.websocket and fields.upgrade and http_11:
            self._start_websocket(context, caller, origin, observer, rest)
            return
        self._cycle = cycle = RequestResponseCycle(
            self,
            http_scope(line, fields, self.address, self.mounted),
            line,
            self.address,
            self._loop,
            self.mounted,
            origin,
            observer,
            fields.expect_continue and http_11,  # RFC 9110, 10.1.1
        )
        if fields.chunked or fields.content_length:
            self._phase = _BODY
            self._body_reader = ChunkedReader() if fields.chunked else LengthReader(fields.content_length)
            if rest:
                self._read_body(rest)
        else:
            self._end_request(rest)
        # Last, because the app may run, answer, raise or call another service before start() returns.
        if self._phase is not _CLOSED:
            app = self.mounted.app if observer is None else self._observed_app(observer)
            self._running.start(cycle, app, context, caller)

    def _observed_app(self, observer: Observer) -> ASGIApp:
        """The app that is mounted, unless something else is to answer in its place."""
        if observer.app is not None:
            return observer.app
        observer.app_called()
        return self.mounted.app

    def _start_websocket(
        self, context: Context, caller: Caller | None, origin: object, observer: Observer | None, rest: bytes
    ) -> None:
        line = self._line
        try:
            self._handshake = handshake = read_handshake(line, self._fields)
        except BadRequest as exc:
            self._refuse(exc, to_head=line.method == "HEAD")
            return
        self._keep_alive = False  # for whatever is not an upgrade
        self._start_message = "websocket.http.response.start"
        self._phase = _NEXT
        if rest:
            self._keep(rest)
        scope = websocket_scope(line, self._fields, self.address, self.mounted, list(handshake.subprotocols))
        self._cycle = cycle = WebSocketCycle(
            self, scope, line, self.address, self._loop, self.mounted, origin, observer
        )
        app = self.mounted.app if observer is None else self._observed_app(observer)
        self._running.start(cycle, app, context, caller)
        if cycle.ended:
            self._end_websocket()

    def _end_websocket(self) -> None:
        """The app has returned. The connection may go on for a while, until its client closes it too."""
        if self._frames is not None:
            self.forget_cycle()
            self.mounted.release(self)

    def _read_body(self, data: bytes) -> None:
        cycle, reader = self._cycle, self._body_reader
        assert isinstance(cycle, RequestResponseCycle)
        assert reader is not None
        try:
            body, rest = reader.feed(data)
        except BadRequest as exc:
            self._refuse(exc, to_head=False)
            return
        if body:
            if cycle.observer is not None:
                cycle.observer.request_body(body)
            if not cycle.feed_body(body):
                self._transport.pause_reading()
        if reader.complete:
            self._end_request(rest)

    def _end_request(self, rest: bytes) -> None:
        if rest:
            self._refuse(BadRequest(400, "there must be nothing after the end of a request"), to_head=False)
            return
        cycle = self._cycle
        assert isinstance(cycle, RequestResponseCycle)
        self._phase = _NEXT
        self._body_reader = None
        cycle.feed_end()

    def _keep(self, data: bytes) -> None:
        """Bytes of the next request, whose turn has not come: nothing more is read until then.

        The client sends one when by its framing the last response was complete, though the app had not said so. Or they
        are frames for an app that has not accepted them yet.
        """
        if self._awaited is None and self._handshake is None:
            self._keep_alive = False  # see _read_head()
            return
        self._buffer += data
        self._transport.pause_reading()

    def _refuse(self, problem: BadRequest, *, to_head: bool) -> None:
        """Answer bytes that are no request, and close; what follows them cannot be understood either."""
        if self._framing is None:
            text = f"{problem.reason}\n"
            self._write_plain_response(
                plain_response(problem.status, text, to_head=to_head, headers=problem.headers), self._observer
            )
        self._phase = _CLOSED
        self._transport.close()

    # What the cycle asks for.

    def send_continue(self) -> None:
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def resume_request(self) -> None:
        self._transport.resume_reading()

    def start_response(self, status: int, headers: Iterable[Iterable[bytes]], hold: bool) -> None:
        line = self._line
        head, self._framing, self._body_left, close = build_head(
            status, headers, line.method, line.http_version, not self._keep_alive, self._start_message
        )
        self._keep_alive = not close
        if hold:
            self._transport.hold_writes()
        self._transport.write(head)
        if self._observer is not None:
            self._observer.response_started()

    def write_body(self, body: Bytes, more_body: bool) -> None:
        if type(body) is not bytes:
            body = bytes(body)
        assert self._cycle is not None
        observer = self._cycle.observer  # that of the connection may be the next request's
        if self._framing is _CHUNKED:
            self._write_chunk(body, more_body)
            if observer is not None:
                observer.response_body(body)
            return
        if self._framing is _NO_BODY:
            # RFC 9112, 6.3. The body that a GET route sends to HEAD is dropped, as in uvicorn. One after a status of
            # 204 or 304 is a mistake, as there.
            if body and self._line.method != "HEAD":
                raise ASGIProtocolError(
                    "Response content longer than Content-Length: a response with status 204 or 304 has no body, but "
                    f"{len(body)} bytes were sent."
                )
            return
        if body:
            if self._body_left is not None:
                self._count(len(body), self._body_left)
            self._transport.write(body)
            self._tail_written += len(body)
            if observer is not None:
                observer.response_body(body)
        if self._body_left and not more_body:
            raise ASGIProtocolError(
                f"Response content shorter than Content-Length: it ends when {self._body_left} bytes are left."
            )

    def _count(self, size: int, left: int) -> None:
        if size > left:
            raise ASGIProtocolError(
                f"Response content longer than Content-Length: {size} bytes were sent when {left} were left."
            )
        self._body_left = left - size

    def _write_chunk(self, body: bytes, more_body: bool) -> None:
        transport = self._transport
        if size := len(body):
            size_line = b"%x\r\n" % size
            transport.write(size_line)
            transport.write(body)
            transport.write(b"\r\n")
            self._tail_written += len(size_line) + size + 2
        if not more_body:
            transport.write(b"0\r\n\r\n")
            self._tail_written += 5

    def release_response(self) -> None:
        self._transport.release_writes()

    def complete_response(self) -> None:
        cycle, self._cycle = self._cycle, None
        if self._keep_alive and isinstance(cycle, RequestResponseCycle) and cycle.request_ended:
            self._phase = _HEAD
            self._framing = None
            if self._buffer:
                self._loop.call_soon(self._go_on, context=Context())
            else:
                self._transport.resume_reading()
        else:
            # A request that was not read to its end: the rest of its body must never be parsed as a request.
            self._phase = _CLOSED
            self._transport.close()

    def _go_on(self) -> None:
        """The next request had arrived before its turn."""
        data, self._buffer = self._buffer, b""
        self._transport.resume_reading()
        if data and self._phase is _HEAD:
            self._read_head(data)

    def upgrade(self, subprotocol: str | None, headers: Iterable[Iterable[bytes]]) -> Frames:
        handshake = self._handshake
        assert handshake is not None
        self._transport.write(accept_head(handshake, subprotocol, headers))
        self._phase = _FRAMES
        self._frames = frames = Frames(
            self,
            self._transport,
            self._loop,
            compress=handshake.compress,
            no_context_takeover=handshake.no_context_takeover,
            observer=self._observer,
        )
        if self._observer is not None:
            self._observer.response_started()
        early, self._buffer = self._buffer, b""
        self._transport.resume_reading()
        if early:
            frames.feed(early)
        return frames

    def forget_cycle(self) -> None:
        self._cycle = None

    def raise_from_frames(self, exc: BaseException) -> None:
        assert self._frames is not None
        self._client.raise_from_frames(exc)
        self._frames.end_with_exception()
        self._transport.write_eof()

    def raise_from_client(self, exc: BaseException) -> bool:
        undelivered = self._transport.get_write_buffer_size()
        before_head = self._framing is None or undelivered > self._tail_written
        if not before_head and not undelivered and self._is_whole():
            return False
        assert self._cycle is not None
        self._phase = _CLOSED
        if self._client.transport is None:
            self.failure_undelivered(exc, client_gone=True)
        elif before_head:
            self._client.raise_from_request(exc, self._cycle.origin)
        else:
            self._client.raise_from_body(exc)
        if before_head:
            self._transport.abort()  # nothing of a head that is still here may arrive
        else:
            self._transport.close()
        return True

    def _is_whole(self) -> bool:
        """Whether the response is complete by its framing, whatever the app has still to say."""
        return self._framing is _NO_BODY or (self._framing is Framing.LENGTH and self._body_left == 0)

    def answer_500(self) -> None:
        if self._framing is None:
            assert self._cycle is not None
            to_head = self._line.method == "HEAD"
            response = plain_response(500, "Internal Server Error", to_head=to_head)
            self._write_plain_response(response, self._cycle.observer)
        self._phase = _CLOSED
        self._transport.release_writes()
        self._transport.close()

    def _write_plain_response(self, response: bytes, observer: Observer | None) -> None:
        """Write a whole response of the server's own."""
        self._transport.write(response)
        if observer is not None:
            observer.response_started()
            observer.response_body(response.partition(b"\r\n\r\n")[2])

    def cycle_ended(self, cycle: Cycle) -> None:
        if isinstance(cycle, WebSocketCycle):  # and not the background task of an earlier request
            self._end_websocket()
        self._running.ended(cycle)

    async def drain(self) -> None:
        while self.write_paused:
            if self._writable is None:
                self._writable = asyncio.Event()
            self._writable.clear()
            await self._writable.wait()


def _check_size(head: bytes) -> None:
    if len(head) > MAX_HEAD:
        raise BadRequest(431, f"the head of a request must not be larger than {MAX_HEAD} bytes")
    if any(len(line) > MAX_LINE for line in head.split(b"\r\n")):
        raise BadRequest(431, f"a line in the head of a request must not be longer than {MAX_LINE} bytes")
