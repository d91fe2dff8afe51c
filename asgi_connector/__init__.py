"""One `aiohttp.ClientSession` that talks to several in-process ASGI services by host name."""

from ._connector import ASGIApplicationConnector, ASGIRoutingConnector
from ._exceptions import ASGIConnectorError, ASGIProtocolError, LifespanError, UnmountedHostError
from ._mounts import Mount

__all__ = [
    "ASGIApplicationConnector",
    "ASGIConnectorError",
    "ASGIProtocolError",
    "ASGIRoutingConnector",
    "LifespanError",
    "Mount",
    "UnmountedHostError",
]

# Tracebacks, pickles and help() show the names that users import.
for _name in __all__:
    globals()[_name].__module__ = __name__
