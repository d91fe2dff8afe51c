"""The callers of the current code: the requests and lifespans whose apps run it.

They are kept in a context variable, so they are known wherever the context is copied: in tasks, task groups,
thread-pool helpers and generators. With them the connector detects code that would wait for itself, and calls that come
from inside an app.
"""

from collections.abc import Iterator
from contextvars import ContextVar

from ._observer import Observer


class Caller:
    """A request or a lifespan whose app may call other services.

    It lives as long as any context in which the app has run. So when the app has returned, it keeps only what later
    calls need: its name, its observer and its parent.
    """

    __slots__ = ("__weakref__", "_parent", "name", "observer", "owner")

    def __init__(self, owner: object, name: str, observer: Observer | None, caller: "Caller | None") -> None:
        self.owner: object | None = owner
        """The request or the lifespan itself; `None` after its app has returned."""
        self.name = name
        """The pattern at which its app is mounted."""
        self.observer = observer
        """The observer of the request, if there is one."""
        self._parent = caller if caller is None or caller.owner is not None else caller.parent

    @property
    def parent(self) -> "Caller | None":
        """The nearest caller around this one whose app has not returned.

        Callers whose app has returned are removed from the chain here, so that an endless chain of calls stays short.
        """
        parent = self._parent
        while parent is not None and parent.owner is None:
            parent = parent._parent
        self._parent = parent
        return parent

    def app_returned(self) -> None:
        """Release the owner, because its app has returned."""
        self.owner = None
        self._parent = self.parent


current_caller: ContextVar[Caller | None] = ContextVar("asgi_connector.current_caller", default=None)


def owners() -> Iterator[object]:
    """Yield the requests and lifespans around the current code that have not ended, the innermost first."""
    caller = current_caller.get()
    while caller is not None:
        if caller.owner is not None:
            yield caller.owner
        caller = caller.parent


def name_of(caller: Caller | None) -> str | None:
    return None if caller is None else caller.name
