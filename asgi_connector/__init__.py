"""One `aiohttp.ClientSession` that talks to several in-process ASGI services by host name."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import faults as faults
    from ._connector.application import ASGIApplicationConnector
    from ._connector.routing import ASGIRoutingConnector
    from ._exceptions import (
        ASGIConnectorError,
        ASGIProtocolError,
        LifespanError,
        UnmatchedRequestError,
        UnmountedHostError,
    )
    from ._exchange.exchange import Content, Exchange, WebSocketMessage
    from ._journal.journal import Journal
    from ._services.mount import Mount
    from ._stub.stub import Stub

    __version__: str

__all__ = [
    "ASGIApplicationConnector",
    "ASGIConnectorError",
    "ASGIProtocolError",
    "ASGIRoutingConnector",
    "Content",
    "Exchange",
    "Journal",
    "LifespanError",
    "Mount",
    "Stub",
    "UnmatchedRequestError",
    "UnmountedHostError",
    "WebSocketMessage",
    "faults",
]

# A name is imported when it is first used, so that importing the package is fast.
_MODULES = {
    "ASGIApplicationConnector": "._connector.application",
    "ASGIConnectorError": "._exceptions",
    "ASGIProtocolError": "._exceptions",
    "ASGIRoutingConnector": "._connector.routing",
    "Content": "._exchange.exchange",
    "Exchange": "._exchange.exchange",
    "Journal": "._journal.journal",
    "LifespanError": "._exceptions",
    "Mount": "._services.mount",
    "Stub": "._stub.stub",
    "UnmatchedRequestError": "._exceptions",
    "UnmountedHostError": "._exceptions",
    "WebSocketMessage": "._exchange.exchange",
    "faults": ".faults",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_MODULES[name], __name__)
    value = module if name == "faults" else getattr(module, name)
    globals()[name] = value
    return value


def _version() -> str:
    """The version of the installed distribution. Read on demand, because importing `importlib.metadata` is slow."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("asgi-connector")
    except PackageNotFoundError as exc:
        raise AttributeError("asgi_connector has no __version__, because it is not installed") from exc


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", *(name for name in globals() if name.startswith("__"))})
