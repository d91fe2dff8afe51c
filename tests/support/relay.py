"""A real network that fails, to compare the faults in memory with.

A `Relay` listens on loopback, in front of a real server, and applies a fault to the bytes. It does not depend on
timing: it cuts a connection when a number of bytes has passed and the client has read them.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any, Final

from aiohttp import TCPConnector

from asgi_connector import faults
from tests.support.waiting import until

LOCALHOST: Final = "127.0.0.1"

_AT_ONCE: Final = 64 * 1024
_END_OF_HEAD: Final = b"\r\n\r\n"
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # linger for 0 seconds


class _Part:
    """One direction of a connection: all bytes pass, or those that a fault lets through."""

    def __init__(self, fault: faults.Fault | None, on: str, head_at: int | None) -> None:
        self.fault = fault if getattr(fault, "on", None) == on else None
        self._is_cut = isinstance(self.fault, faults.Hang | faults.Reset | faults.Close)
        self._after: int | None = getattr(self.fault, "after", None)
        self._head_at = head_at
        self._seen = b""

    def passes(self, data: bytes) -> bytes:
        """Return the part of *data* that may pass."""
        if not self._is_cut:
            return data
        before = len(self._seen)
        self._seen += data
        return self._seen[before : self._limit()]

    @property
    def is_over(self) -> bool:
        """Whether no more bytes may pass."""
        return self._is_cut and len(self._seen) >= self._limit()

    def _limit(self) -> int:
        if self._head_at is not None:
            return self._head_at
        if self._after is None:
            return 0
        head = self._seen.find(_END_OF_HEAD)
        return len(self._seen) + 1 if head < 0 else head + len(_END_OF_HEAD) + self._after


class Relay:
    """Passes bytes between the clients of `connector()` and the server at the port *upstream*.

    Parameters:
        fault: the fault of each connection, or of the first *times* connections.
        head_at: the number of bytes of the head after which to cut, whatever the fault says.
    """

    def __init__(
        self, upstream: int, fault: faults.Fault | None, *, times: int | None = None, head_at: int | None = None
    ) -> None:
        self._upstream = upstream
        self._fault = fault
        self._left = times
        self._head_at = head_at
        self._over = asyncio.Event()
        self._carrying = asyncio.Event()
        self._carrying.set()
        self._listener: socket.socket | None = None
        self._clients: list[socket.socket] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._pumps: dict[socket.socket, set[asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def connector(self) -> TCPConnector:
        """Return a connector whose sockets the relay knows, so that a cut can wait until they have been read."""

        def make(address: tuple[Any, ...]) -> socket.socket:
            client = socket.socket(*address[:3])
            client.setblocking(False)
            self._clients.append(client)
            return client

        return TCPConnector(socket_factory=make)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Relay for the block; yields the port."""
        with socket.create_server((LOCALHOST, 0)) as listener:
            listener.setblocking(False)
            self._listener = listener
            self._accepting = self._start(self._accept(listener))
            try:
                yield listener.getsockname()[1]
            finally:
                while tasks := [task for task in self._tasks if not task.done()]:
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                for pair in self._pairs:
                    for each in pair:
                        each.close()
            for task in self._tasks:
                if not task.cancelled():
                    task.result()  # raise the relay's own errors

    async def cut(self, fault: faults.Reset | faults.Close) -> None:
        """Cut every connection, whatever the relay's own fault lets pass."""
        for pair in self._pairs:
            await self._cut(pair, fault)

    def fall_silent(self) -> None:
        """Carry nothing in any direction, not even the end of a connection, until `go_on()`."""
        self._carrying.clear()

    def go_on(self) -> None:
        self._carrying.set()

    async def crash(self) -> None:
        """Reset every connection, and refuse new ones."""
        assert self._listener is not None
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self._listener.close()
        await self.cut(faults.Reset())

    def end(self) -> None:
        """End every hang: pass on the held bytes and all later ones."""
        self._over.set()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        return task

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            server = socket.socket()
            server.setblocking(False)
            pair = (client, server)
            self._pairs.append(pair)
            await loop.sock_connect(server, (LOCALHOST, self._upstream))
            fault = self._fault if self._left != 0 else None
            if self._left:
                self._left -= 1
            self._pumps[client] = {
                self._start(self._pump(pair, client, server, _Part(fault, "request", None))),
                self._start(self._pump(pair, server, client, _Part(fault, "response", self._head_at))),
            }

    async def _pump(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket, part: _Part
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(source, _AT_ONCE):
                await self._carrying.wait()
                passes = data if self._over.is_set() else part.passes(data)
                await self._carry(sink, passes, part.fault)
                if isinstance(part.fault, faults.Hang) and part.is_over:
                    await self._over.wait()
                    await loop.sock_sendall(sink, data[len(passes) :])
                elif part.is_over:
                    assert isinstance(part.fault, faults.Reset | faults.Close)
                    self._start(self._cut(pair, part.fault))
                    return
            await self._carrying.wait()
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one end has disconnected; the other pump notices it too

    async def _carry(self, sink: socket.socket, data: bytes, fault: faults.Fault | None) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(fault, faults.Latency):
            await asyncio.sleep(fault.seconds)
        if not isinstance(fault, faults.Throttle):
            await loop.sock_sendall(sink, data)
            return
        for at in range(len(data)):
            await asyncio.sleep(1 / fault.bytes_per_second)
            await loop.sock_sendall(sink, data[at : at + 1])

    async def _cut(self, pair: tuple[socket.socket, socket.socket], fault: faults.Reset | faults.Close) -> None:
        pumps = self._pumps.pop(pair[0], set())
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        await self._until_read(pair)
        loop = asyncio.get_running_loop()
        for each in pair:
            if isinstance(fault, faults.Reset):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            else:
                each.shutdown(socket.SHUT_WR)
                # Closing a socket that has unread bytes would reset the connection.
                self._start(_drain(loop, each))
                continue
            each.close()

    async def _until_read(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """Wait until all sent bytes have arrived and the clients have read them."""

        def pending() -> bool:
            on_the_way = any(_pending(each, termios.TIOCOUTQ) for each in pair)
            return on_the_way or any(_pending(client, termios.FIONREAD) for client in self._clients)

        await until(lambda: not pending())


async def _drain(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    with closing(connection):
        try:
            while await loop.sock_recv(connection, _AT_ONCE):
                pass
        except OSError:
            pass


def _pending(connection: socket.socket, request: int) -> int:
    if connection.fileno() == -1:
        return 0
    return int(struct.unpack("i", fcntl.ioctl(connection, request, b"\0" * 4))[0])


@contextmanager
def refusing() -> Iterator[int]:
    """Yield a port on which no server listens during the block."""
    with socket.socket() as bound:
        bound.bind((LOCALHOST, 0))
        yield bound.getsockname()[1]


@contextmanager
def never_accepting() -> Iterator[int]:
    """Yield a port that does not answer connections, because its queue is full."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind((LOCALHOST, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        first.connect((LOCALHOST, port))
        yield port
