"""The ASGI types that this package uses.

ASGI itself does not type messages and scopes: each is a `dict` whose values depend on its ``type``. So they are `Any`,
here and nowhere else.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from typing_extensions import TypeIs

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

# Wide on purpose: frameworks define these types differently, and callables are contravariant in their parameters.
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]

Headers: TypeAlias = list[tuple[bytes, bytes]]
Bytes: TypeAlias = bytes | bytearray | memoryview


def is_bytes(value: object) -> TypeIs[Bytes]:
    return isinstance(value, (bytes, bytearray, memoryview))
