"""The ASGI types that this package uses.

ASGI itself does not type messages and scopes: each is a `dict` whose values depend on its ``type``. So they are `Any`,
here and nowhere else.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

from typing_extensions import TypeIs

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

# Wide on purpose: frameworks define these types differently, and callables are contravariant in their parameters.
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]


class WebApplication(Protocol):
    """What tells an `aiohttp.web.Application` from other objects: to import the class for its name would be slow."""

    @property
    def on_response_prepare(self) -> Any: ...

    @property
    def cleanup_ctx(self) -> Any: ...

    def add_subapp(self, prefix: str, subapp: Any) -> Any: ...


App: TypeAlias = ASGIApp | WebApplication
"""What can be mounted."""
Factory: TypeAlias = Callable[[], App | Awaitable[App]]

Headers: TypeAlias = list[tuple[bytes, bytes]]
Bytes: TypeAlias = bytes | bytearray | memoryview


def is_bytes(value: object) -> TypeIs[Bytes]:
    return isinstance(value, (bytes, bytearray, memoryview))
