"""Builders of ASGI scopes from a parsed request and its address. Pure functions."""

from typing import Any
from urllib.parse import unquote

from asgi_connector._http1.request import Fields, RequestLine
from asgi_connector._services.address import Address
from asgi_connector._services.mounted import MountedApp
from asgi_connector._types import Scope


class HttpScopes:
    """The scopes of the requests on one connection. Requests with the same head have the same scope, but for copies."""

    __slots__ = ("_address", "_line", "_mounted", "_template")

    def __init__(self, address: Address, mounted: MountedApp) -> None:
        self._address = address
        self._mounted = mounted
        self._line: RequestLine | None = None  # that of the template
        self._template: dict[str, Any] = {}

    def scope(self, line: RequestLine, fields: Fields) -> Scope:
        """Build the scope of a request. All mutable values in it belong to this request alone."""
        if line is not self._line:
            self._template = http_scope(line, fields, self._address, self._mounted)
            self._line = line
        scope = self._template.copy()
        scope["asgi"] = {"version": "3.0", "spec_version": "2.3"}
        scope["headers"] = fields.headers.copy()
        scope["state"] = self._mounted.lifespan.state.copy()
        return scope


def http_scope(line: RequestLine, fields: Fields, address: Address, mounted: MountedApp) -> dict[str, Any]:
    """Build the scope of an HTTP request (ASGI spec, *HTTP connection scope*), with uvicorn's versions.

    ``spec_version`` is 2.3, so that frameworks run the same code as in production. From 2.4 on, Starlette no longer
    listens for the disconnect of a client, so an idle stream would run on after it.

    All mutable values in the scope belong to this request alone.
    """
    raw_path, _, query_string = line.target.partition(b"?")
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": line.http_version,
        "method": line.method,
        "scheme": "https" if address.secure else "http",
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query_string,
        "root_path": mounted.root_path,
        "headers": fields.headers.copy(),
        "server": (address.host, address.port),
        "client": mounted.client,
        "state": mounted.lifespan.state.copy(),
    }


def websocket_scope(
    line: RequestLine, fields: Fields, address: Address, mounted: MountedApp, subprotocols: list[str]
) -> Scope:
    """Build the scope of a WebSocket (ASGI spec, *WebSocket connection scope*), with uvicorn's versions."""
    scope = http_scope(line, fields, address, mounted)
    del scope["method"]
    scope["type"] = "websocket"
    scope["asgi"] = {"version": "3.0", "spec_version": "2.4"}
    scope["scheme"] = "wss" if address.secure else "ws"
    scope["subprotocols"] = subprotocols
    scope["extensions"] = {"websocket.http.response": {}}
    return scope
