"""ASGI "websocket": one WebSocket from its handshake to its end, as messages for the app."""

import asyncio
import enum
from typing import Final, NoReturn

from aiohttp import WSCloseCode, WSMsgType

from asgi_connector._exceptions import ASGIProtocolError
from asgi_connector._http1.request import RequestLine
from asgi_connector._log import logger
from asgi_connector._numbers import is_int
from asgi_connector._services.server_end import ClientCall
from asgi_connector._types import Message, Scope, is_bytes

from .cycle import Connection, Cycle, checked_body, checked_status
from .frames import MAX_REASON, Frames, client_gone


class _State(enum.Enum):
    """The messages that are expected from the app, as uvicorn's errors name them."""

    CONNECTING = "'websocket.accept', 'websocket.close', or 'websocket.http.response.start'"
    OPEN = "'websocket.send' or 'websocket.close',"
    DENYING = "'websocket.http.response.body'"
    OVER = "none"


# The codes below 3000 that may be sent: those of RFC 6455, 7.4.1, except 1004, 1005, 1006 and 1015, and codes that were
# registered later. aiohttp's reader treats all others as protocol errors.
_DEFINED_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_OWN_CODES: Final = range(3000, 5000)  # RFC 6455, 7.4.2: for libraries, frameworks and applications


class WebSocketCycle(Cycle):
    """One WebSocket."""

    __slots__ = ("_connect_reported", "_disconnect_reported", "_frames", "_state")

    def __init__(self, connection: Connection, line: RequestLine, scope: Scope, call: ClientCall) -> None:
        super().__init__(connection, line, scope, call)
        self._connect_reported = False
        self._disconnect_reported = False
        self._state = _State.CONNECTING
        self._frames: Frames | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}, {self._state.name.lower()}>"

    @property
    def url(self) -> str:
        return f"ws{super().url.removeprefix('http')}"

    def end(self) -> None:
        super().end()
        self._connection.websocket_app_ended()

    # What the app calls.

    async def receive(self) -> Message:
        """Wait for the next event (ASGI spec, *Connect*, *Receive* and *Disconnect - receive event*)."""
        if not self._connect_reported:
            self._connect_reported = True
            return {"type": "websocket.connect"}
        while self._frames is None:
            if self.disconnected_at is not None or self._state is _State.OVER:
                return await self._disconnect(WSCloseCode.ABNORMAL_CLOSURE, "")
            await self._wait_for_change()
        message = await self._frames.receive()
        if message is None:
            return await self._disconnect(self._frames.close_code, self._frames.close_reason)
        if message.type is WSMsgType.TEXT:
            return {"type": "websocket.receive", "text": message.data}
        return {"type": "websocket.receive", "bytes": message.data}

    async def _disconnect(self, code: int, reason: str) -> Message:
        if self._disconnect_reported:
            await asyncio.sleep(0)  # an app that ignores the disconnect must not starve the event loop
        self._disconnect_reported = True
        return {"type": "websocket.disconnect", "code": int(code), "reason": reason}

    async def send(self, message: Message) -> None:
        """Take the app's next message (ASGI spec, *Accept*, *Send*, *Close*, *Denial Response*).

        Raises `OSError` if the client has disconnected, as in the spec since 2.4.
        """
        try:
            kind = message["type"]
        except (TypeError, KeyError, IndexError):
            raise ASGIProtocolError(f"Expected an ASGI message, a dict with a 'type', but got {message!r}.") from None
        if self._state is _State.OPEN:
            await self._send_open(kind, message)
        elif self._state is _State.CONNECTING:
            self._check_client()
            self._send_connecting(kind, message)
        elif self._state is _State.DENYING:
            if self._flow.paused:
                await self._flow.drain()
            self._check_client()
            self._send_denial(kind, message)
        else:
            raise ASGIProtocolError(
                f"Unexpected ASGI message '{kind}', after sending 'websocket.close' or response already completed."
            )

    def _check_client(self) -> None:
        if self.disconnected_at is not None:
            raise client_gone()

    def _send_connecting(self, kind: str, message: Message) -> None:
        if kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._writer.start(403, [(b"content-length", b"0")], hold=False)
            self._writer.write_body(b"", more_body=False)
            self._complete_response()
        elif kind == "websocket.http.response.start":
            status = checked_status(message)
            self._writer.start(status, message.get("headers", ()), hold=False)
            self._state = _State.DENYING
        else:
            self._refuse(kind)

    def _accept(self, message: Message) -> None:
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and not isinstance(subprotocol, str):
            raise ASGIProtocolError(
                f"Expected the 'subprotocol' of 'websocket.accept' to be a str or None, but got {subprotocol!r}."
            )
        self._frames = self._connection.upgrade(subprotocol, message.get("headers", ()))
        self._state = _State.OPEN
        self._wake()

    def _send_denial(self, kind: str, message: Message) -> None:
        if kind != "websocket.http.response.body":
            self._refuse(kind)
        more_body = message.get("more_body", False)
        self._writer.write_body(checked_body(message), more_body)
        if not more_body:
            self._complete_response()

    def _complete_response(self) -> None:
        self._state = _State.OVER
        self._connection.complete_response()
        self._wake()

    async def _send_open(self, kind: str, message: Message) -> None:
        assert self._frames is not None
        if kind == "websocket.send":
            payload, opcode = _content(message)
            self._check_client()
            await self._frames.send(payload, opcode)
        elif kind == "websocket.close":
            code, reason = _closing(message)
            self._check_client()
            await self._frames.close(code, reason)
            self._state = _State.OVER
            self._connection.forget_cycle()
        else:
            self._refuse(kind)

    def _refuse(self, kind: str) -> NoReturn:
        raise ASGIProtocolError(f"Expected ASGI message {self._state.value} but got '{kind}'.")

    # The end of the app's task.

    def _finish(self) -> str | None:
        if self._state is _State.CONNECTING:
            return "ASGI callable returned without sending handshake."
        if self._state is _State.DENYING:
            return "ASGI callable returned without completing response."
        self._close_now(WSCloseCode.OK)
        return None

    def _cut_off(self, exc: BaseException) -> None:
        if self._state is not _State.OVER:
            self._tell_observer(exc)
        if self._state is _State.CONNECTING or self._state is _State.DENYING:
            self._state = _State.OVER
            self._connection.answer_500()
        else:
            self._close_now(WSCloseCode.INTERNAL_ERROR)

    def _close_now(self, code: int) -> None:
        if self._state is _State.OPEN:
            assert self._frames is not None
            self._state = _State.OVER
            self._frames.close_now(code, "")

    def _raise(self, exc: BaseException) -> None:
        state, self._state = self._state, _State.OVER
        if state is _State.OVER:
            self.report(exc, client_gone=False)
            return
        exc = self.raisable(exc)
        if state is _State.OPEN:
            self._log(exc, "after its WebSocket was accepted")
            self._call_exception_handler(exc)
            self._tell_observer(exc)
            self._connection.raise_from_frames(exc)
        elif self._connection.raise_from_client(exc):
            self._tell_observer(exc)
        else:
            # The denial response was complete by its framing, but the app had not completed it yet.
            self._complete_response()
            self.report(exc, client_gone=False)

    def report(self, exc: BaseException, *, client_gone: bool) -> None:
        if client_gone:
            # A WebSocket app learns of the disconnect by an exception, from send() or its framework: not an error.
            logger.debug("An app ended after its client had gone: %s %s", self.method, self.url, exc_info=exc)
        else:
            self._log(exc, "after it had closed its WebSocket" if self._frames else "after its response was complete")
            self._call_exception_handler(exc)


def _content(message: Message) -> tuple[bytes, WSMsgType]:
    """Return the payload and its type: the bytes, or the text if there are no bytes, as in uvicorn."""
    data, text = message.get("bytes"), message.get("text")
    if is_bytes(data):
        return bytes(data), WSMsgType.BINARY
    if data is None and isinstance(text, str):
        try:
            return text.encode(), WSMsgType.TEXT
        except UnicodeEncodeError as exc:
            raise ASGIProtocolError(f"Expected the 'text' of 'websocket.send' to be Unicode: {exc}.") from None
    raise ASGIProtocolError(
        f"Expected 'websocket.send' to have 'bytes' in bytes, or 'text' in a str, but got {data!r} and {text!r}."
    )


def _closing(message: Message) -> tuple[int, str]:
    """Return the code and the reason of a close. They must be valid in a close frame (RFC 6455, 5.5.1 and 7.4)."""
    code, reason = message.get("code", WSCloseCode.OK), message.get("reason") or ""
    if not is_int(code) or not (code in _DEFINED_CODES or code in _OWN_CODES):
        raise ASGIProtocolError(
            "Expected the 'code' of 'websocket.close' to be an int that may be sent, from 1000 to 1003, from 1007 to "
            f"1014 or from 3000 to 4999 (RFC 6455, 7.4), but got {code!r}."
        )
    if not isinstance(reason, str) or not _fits(reason):
        raise ASGIProtocolError(
            f"Expected the 'reason' of 'websocket.close' to be a str of at most {MAX_REASON} bytes, but got {reason!r}."
        )
    return int(code), reason


def _fits(reason: str) -> bool:
    try:
        return len(reason.encode()) <= MAX_REASON
    except UnicodeEncodeError:
        return False
