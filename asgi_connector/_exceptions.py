"""Every exception that the package raises on its own account."""

import errno
from typing import TYPE_CHECKING

from aiohttp import ClientConnectorError

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey


class ASGIConnectorError(Exception):
    """The base of the package's own errors."""

    __module__ = "asgi_connector"


class UnmountedHostError(ASGIConnectorError, ClientConnectorError):
    """No app is mounted at the host of a request, and there is no fallback to take it.

    A `aiohttp.ClientConnectorError`, so code under test treats it as what it stands for: a host that cannot be
    reached. `host`, `port` and `ssl` are those of the request. Neither a resolver nor a socket was touched.
    """

    __module__ = "asgi_connector"

    def __init__(self, connection_key: "ConnectionKey", os_error: OSError) -> None:
        ClientConnectorError.__init__(self, connection_key, os_error)

    @classmethod
    def at(cls, connection_key: "ConnectionKey", message: str) -> "UnmountedHostError":
        """The error for *connection_key*, with *message* as its text."""
        return cls(connection_key, OSError(errno.EHOSTUNREACH, message))

    def __str__(self) -> str:
        return self.os_error.strerror or ""


class ASGIProtocolError(ASGIConnectorError):
    """An app broke the ASGI protocol: what it sent, and what was expected, are in the message.

    Raised from the app's own `send()` where there is one to raise from, and from the client's call unless the app
    handles it.
    """

    __module__ = "asgi_connector"


class LifespanError(ASGIConnectorError):
    """An app failed to start or to shut down, or does not support lifespan though it must.

    The app's own message is part of the text, and the exception that it raised is the `__cause__`.
    """

    __module__ = "asgi_connector"


class UnmatchedRequestError(ASGIConnectorError):
    """A `Stub` has no answer to a request. The message names the nearest answers, and how the request differs.

    It is no `aiohttp.ClientError`, so that code that retries after a network error does not hide it.
    """

    __module__ = "asgi_connector"
