"""One `aiohttp.ClientSession` that talks to several in-process ASGI services by host name."""

import importlib
from typing import TYPE_CHECKING, Any

from ._connector import ASGIApplicationConnector, ASGIRoutingConnector
from ._exceptions import ASGIConnectorError, ASGIProtocolError, LifespanError, UnmountedHostError
from ._mounts import Mount

if TYPE_CHECKING:
    from . import faults as faults
    from ._exchange import Content, Exchange, WebSocketMessage
    from ._journal import Journal

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
    "UnmountedHostError",
    "WebSocketMessage",
    "faults",
]

# What few programs need is imported when it is first asked for.
_LATER = {
    "Content": "._exchange",
    "Exchange": "._exchange",
    "Journal": "._journal",
    "WebSocketMessage": "._exchange",
    "faults": ".faults",
}

# Tracebacks, pickles and help() show the names that users import.
for _name in __all__:
    if _name not in _LATER:
        globals()[_name].__module__ = __name__


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_LATER[name], __name__)
    if name == "faults":
        value: Any = module
    else:
        value = getattr(module, name)
        value.__module__ = __name__
    globals()[name] = value
    return value


def _version() -> str:
    """The version of the installed distribution: read when it is asked for, because importing what reads it is slow."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("asgi-connector")
    except PackageNotFoundError as exc:
        raise AttributeError("asgi_connector has no __version__, because it is not installed") from exc


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", *(name for name in globals() if name.startswith("__"))})
