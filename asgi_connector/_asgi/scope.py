"""A parsed request and the address that it was sent to -> an ASGI scope. Pure functions."""

from typing import Any
from urllib.parse import unquote

from asgi_connector._http1.request import Fields, RequestLine
from asgi_connector._services.address import Address
from asgi_connector._services.mounted import MountedApp
from asgi_connector._types import Scope


def http_scope(line: RequestLine, fields: Fields, address: Address, mounted: MountedApp) -> Scope:
    """The scope of an HTTP request (ASGI spec, *HTTP connection scope*), announced as uvicorn announces it.

    With ``spec_version`` 2.3 frameworks take the paths that they take in production: from 2.4 on Starlette no longer
    listens for the disconnect of a client, and an idle stream outlives it.

    Everything mutable in it is the request's own.
    """
    raw_path, _, query_string = line.target.partition(b"?")
    path = raw_path.decode("ascii")
    scope: dict[str, Any] = {
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
    return scope


def websocket_scope(
    line: RequestLine, fields: Fields, address: Address, mounted: MountedApp, subprotocols: list[str]
) -> Scope:
    """The scope of a WebSocket (ASGI spec, *WebSocket connection scope*), announced as uvicorn announces it."""
    scope = http_scope(line, fields, address, mounted)
    del scope["method"]
    scope["type"] = "websocket"
    scope["asgi"] = {"version": "3.0", "spec_version": "2.4"}
    scope["scheme"] = "wss" if address.secure else "ws"
    scope["subprotocols"] = subprotocols
    scope["extensions"] = {"websocket.http.response": {}}
    return scope
