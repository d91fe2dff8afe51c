"""A request, as far as a stub can tell one from another."""

from dataclasses import dataclass
from urllib.parse import quote

from asgi_connector._display import printable
from asgi_connector._exchange.encodings import decoded_or_as_sent
from asgi_connector._exchange.queries import Query, parse_query
from asgi_connector._exchange.redaction import redact_url
from asgi_connector._types import Scope


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to a stub.

    Parameters:
        method: in upper case. The handshake of a WebSocket is a GET.
        url: the whole URL as text to show: without the values of secrets, and without control characters.
        path: decoded.
        query: decoded.
        body: the whole of it, decoded from gzip and deflate.
        content_type: the value of the header; empty if there is none.
    """

    method: str
    url: str
    path: str
    query: Query
    body: bytes
    content_type: str

    def __str__(self) -> str:
        return f"{self.method} {self.url}"


def asked_by(scope: Scope, body: bytes) -> Asked:
    """The request of an ASGI scope, with its *body*."""
    query: str = scope["query_string"].decode("latin-1")
    return Asked(
        method=scope.get("method", "GET"),
        url=_shown_url(scope, query),
        path=scope["path"],
        query=parse_query(query),
        body=decoded_or_as_sent(body, _header(scope, b"content-encoding")),
        content_type=_header(scope, b"content-type"),
    )


def _shown_url(scope: Scope, query: str) -> str:
    path: str = quote(scope["path"], safe="/:@!$&'()*+,;=~")
    url = f"{scope['scheme']}://{_header(scope, b'host')}{path}{'?' if query else ''}{query}"
    return printable(redact_url(url))


def _header(scope: Scope, name: bytes) -> str:
    """The first header of that *name*, which is in lower case; empty if there is none."""
    return next((value.decode("latin-1") for each, value in scope["headers"] if each == name), "")
