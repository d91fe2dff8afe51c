"""The transport that aiohttp's server protocol writes to: it notes how far the response has come."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from asgi_connector._network.transport import MemoryTransport

from .watch import ExchangeWatch

_SWITCHING: Final = b"HTTP/1.1 101"


class Outgoing(asyncio.Transport):
    """The server's end of a connection, as an aiohttp.web application has it in ``request.transport``.

    Attributes:
        started: whether the head of the response has been written.
        upgraded: whether it accepts a WebSocket.
        closed: whether the server has closed the connection.
        stays_open: whether it shall not, for the client is to.
    """

    __slots__ = ("_tail", "_transport", "_watch", "closed", "started", "stays_open", "upgraded")

    def __init__(self, transport: MemoryTransport, extra: dict[str, object]) -> None:
        super().__init__(extra)
        self._transport = transport
        self._tail = 0  # bytes written after the head of the response
        self._watch: ExchangeWatch | None = None
        self.started = False
        self.upgraded = False
        self.closed = False
        self.stays_open = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._transport!r}>"

    def begin(self, watch: ExchangeWatch | None) -> None:
        """Expect the next response, which is told to *watch*."""
        self._watch = watch
        self._tail = 0
        self.started = False

    @property
    def head_waits(self) -> bool:
        """Whether bytes of the head have been written and not delivered."""
        return self.started and self._transport.get_write_buffer_size() > self._tail

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.started:
            self._tail += len(data)
        else:
            self._note_head(bytes(data))
        self._transport.write(data)
        if self._watch is not None:
            self._watch.sent(bytes(data))

    def _note_head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        self.upgraded = data.startswith(_SWITCHING)
        if end >= 0 and (self.upgraded or not data.startswith(b"HTTP/1.1 1")):
            self.started = True
            self._tail = len(data) - end - 4

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self.closed = True
        if not self.stays_open:
            self._transport.close()

    def abort(self) -> None:
        self.closed = True
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    @property
    def _sendfile_compatible(self) -> NoReturn:
        """Asked for by `loop.sendfile()`, which has no way to send a file here that it could fall back to.

        It is aiohttp that falls back: as it does for an event loop without `sendfile()`, which raises this.
        """
        raise NotImplementedError

    # The rest is that of the transport.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = super().get_extra_info(name)
        return self._transport.get_extra_info(name, default) if found is None else found

    def write_eof(self) -> None:
        self._transport.write_eof()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)
