"""The exception classes that the package defines."""

import errno
from typing import TYPE_CHECKING

from aiohttp import ClientConnectorError

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey


class ASGIConnectorError(Exception):
    """The base class of the package's own errors."""

    __module__ = "asgi_connector"


class UnmountedHostError(ASGIConnectorError, ClientConnectorError):
    """No app is mounted at the host of a request, and the connector has no fallback.

    It is an `aiohttp.ClientConnectorError`, so code under test handles it like any host that cannot be reached. `host`,
    `port` and `ssl` are those of the request. Neither a resolver nor a socket was used.
    """

    __module__ = "asgi_connector"

    def __init__(self, connection_key: "ConnectionKey", os_error: OSError) -> None:
        ClientConnectorError.__init__(self, connection_key, os_error)

    @classmethod
    def at(cls, connection_key: "ConnectionKey", message: str) -> "UnmountedHostError":
        """Return the error for *connection_key*, with *message* as its text."""
        return cls(connection_key, OSError(errno.EHOSTUNREACH, message))

    def __str__(self) -> str:
        return self.os_error.strerror or ""


class ASGIProtocolError(ASGIConnectorError):
    """An app broke the ASGI protocol. The message says what the app sent and what was expected.

    It is raised from the app's own `send()`, if the mistake was made in such a call. It is also raised from the
    client's call, unless the app handles it.
    """

    __module__ = "asgi_connector"


class LifespanError(ASGIConnectorError):
    """An app failed to start or to shut down, or it does not support lifespan though its mount requires it.

    The text contains the app's own message. The `__cause__` is the exception that the app raised, if any.
    """

    __module__ = "asgi_connector"


class UnmatchedRequestError(ASGIConnectorError):
    """A `Stub` has no answer to a request. The message names the nearest answers, and how the request differs.

    It is no `aiohttp.ClientError`, so that code that retries after a network error does not hide it.
    """

    __module__ = "asgi_connector"
