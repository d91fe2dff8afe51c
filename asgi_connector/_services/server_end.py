"""A server end: the end of an in-memory connection at which an app answers.

The pool, the journal and the faults use a connection only through `ServerEnd`. So there can be several kinds of server
ends.
"""

import asyncio
from abc import abstractmethod
from contextvars import Context
from typing import Any, Final, NamedTuple, Protocol, cast
from urllib.parse import unquote

from aiohttp import ClientConnectionError, ClientRequest

from asgi_connector._callers import Caller, name_of
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._observer import Observer

from .address import Address
from .mounted import MountedApp

_NO_PROTOCOL: Final = asyncio.Protocol()


class Origin(NamedTuple):
    """The client's view of a request: aiohttp's request object, and the task that made it."""

    request: ClientRequest
    task: asyncio.Task[Any] | None
    """The task that called `connect()`."""


class ClientCall(NamedTuple):
    """A request that the client is about to send.

    A named tuple, because one is made for each request, and making a frozen dataclass takes three times as long.
    """

    request: ClientRequest
    task: asyncio.Task[Any] | None
    """The task that called `connect()`."""
    caller: Caller | None
    """The request or lifespan whose app makes the call; `None` for a call from outside every app."""
    context: Context
    """The context in which the app runs."""
    observer: Observer | None
    """The observer of the request, if there is one."""

    @property
    def origin(self) -> Origin:
        return Origin(self.request, self.task)


class RequestProgress(NamedTuple):
    """The progress of the request on a connection. It is known for requests without an observer too."""

    method: str
    path: str
    query: str
    caller: str | None
    observer: Observer | None
    request_begun: bool
    request_head_passed: bool
    response_begun: bool
    response_head_passed: bool


def progress_of(call: ClientCall, *passed: bool) -> RequestProgress:
    """Return the progress of *call*. *passed* are the last four fields of the result."""
    url = call.request.url
    path, query = unquote(url.raw_path), url.raw_query_string
    return RequestProgress(call.request.method, path, query, name_of(call.caller), call.observer, *passed)


class ClientEnd(Protocol):
    """The client's end of the connection, with methods that make the client's call fail."""

    @property
    def connected(self) -> bool:
        """Whether the client has not closed its end."""
        ...

    @property
    def in_use(self) -> bool:
        """Whether a request holds this connection, so that it is not back in the pool."""
        ...

    def force_close(self) -> None:
        """Keep this connection out of the pool from now on."""

    def close(self) -> None:
        """Close this end."""

    def give_up(self, exc: BaseException) -> None:
        """Close this end, and make every call that waits for this connection fail with *exc*."""

    def raise_from_request(self, exc: BaseException, origin: Origin) -> None:
        """Raise *exc* from the call that waits for the head of the response to the request *origin*."""

    def raise_from_body(self, exc: BaseException) -> None:
        """Raise *exc* from reading the body, after all bytes that were written before."""

    def raise_from_frames(self, exc: BaseException) -> None:
        """Make a WebSocket's `receive()` return *exc*, after all messages that were written before."""


class Connections(Protocol):
    """The open connections."""

    def add(self, connection: "ServerEnd") -> None: ...

    def remove(self, connection: "ServerEnd") -> None: ...


class ServerEnd(asyncio.Protocol):
    """The server's end of one connection, which serves one request after another.

    `hand_out()` is called before each request is sent. A subclass serves the requests, and clears `_expected` when it
    begins to read one.
    """

    __slots__ = ("_connections", "_expected", "address", "client", "mounted", "retired", "transport", "used")

    transport: MemoryTransport
    """The transport of this end, from `connection_made()` on."""

    def __init__(self, client: ClientEnd, mounted: MountedApp, address: Address, connections: "Connections") -> None:
        """*connections* contains this end as long as the connection is open."""
        self.client = client
        self.mounted = mounted
        self.address = address
        self.used = False
        """Whether a request has been sent on this connection."""
        self.retired = False
        """Whether it accepts no further request."""
        self._connections = connections
        self._expected: ClientCall | None = None  # handed out for this call, which is not read yet

    def hand_out(self, call: ClientCall) -> bool:
        """Expect *call*, which the client is about to send. Returns `False` if no further request is accepted."""
        if self.retired or self.transport.is_closing():
            return False
        ready = self.mounted.lifespan.ready
        if not ready and (call.observer is None or call.observer.app is None):
            return False  # while the request waited for a connection, the app crashed, restarted or was replaced
        self.used = True
        self._expected = call
        if not ready:
            self.retire()  # an observer answers in place of the app; the next request shall start the app
        return True

    def retire(self) -> None:
        """Accept no request after the current one, or after the one that the connection was handed out for."""
        self.retired = True
        self.client.force_close()
        # A connection that was handed out may have been returned unused.
        if not (self._expected is not None and self.client.in_use) and not self.busy:
            self.transport.close()
        elif self.transport.peer_lost:
            self._end_without_client()

    @abstractmethod
    def end_websocket(self) -> None:
        """Close the WebSocket, if it is one, with the code 1012 of a server that restarts."""

    def close_client(self) -> None:
        """Close the client's end. The client's calls fail, and the app sees a disconnect."""
        self.client.give_up(ClientConnectionError("Connector is closed"))
        if self.transport.peer_lost:
            self._end_without_client()

    def _end_without_client(self) -> None:
        """End this end now. The client has left, and this end may never read far enough to notice it."""
        self.client_left()
        self.transport.abort()

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a request is unfinished, or a response undelivered. A WebSocket is busy until its connection ends."""
        ...

    @property
    @abstractmethod
    def receiving(self) -> bool:
        """Whether it is an open WebSocket. Its app receives all messages that the client sent before it left."""
        ...

    @abstractmethod
    def progress(self) -> RequestProgress | None:
        """Return the progress of the current request; `None` if the connection is idle."""
        ...

    @abstractmethod
    def client_left(self) -> None:
        """Called when the client closes its end during an exchange. The app may see that before `connection_lost()`."""

    @abstractmethod
    def failure_undelivered(self, exc: BaseException, *, client_gone: bool) -> None:
        """Called when the app has ended with *exc*, but no call of the client can raise it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(MemoryTransport, transport)
        self._connections.add(self)
        self.mounted.begin_use(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expected = None
        self._connections.remove(self)
        self.mounted.end_use(self)
        self.transport.set_protocol(_NO_PROTOCOL)  # so that a reference to the transport does not keep the app alive
