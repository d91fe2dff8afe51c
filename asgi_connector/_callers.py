"""Who is calling: the requests and lifespans inside of which the current code runs.

A context variable, so it reaches whatever copies the context: tasks, task groups, thread-pool helpers, generators. With
it the connector can tell what would wait for itself, and whether a call comes from inside an app.
"""

from collections.abc import Iterator
from contextvars import ContextVar

from ._observer import Observer


class Caller:
    """A request, or a lifespan, whose app may call other services.

    It lives as long as any context in which the app has run. So once the app has returned it keeps nothing but what
    the `caller` and the `parent` of a later call are told from.
    """

    __slots__ = ("__weakref__", "_parent", "name", "observer", "owner")

    def __init__(self, owner: object, name: str, observer: Observer | None, caller: "Caller | None") -> None:
        self.owner: object | None = owner
        """The request or the lifespan itself; `None` when its app has returned."""
        self.name = name
        """The pattern at which its app is mounted."""
        self.observer = observer
        """What watches the request, if anything does."""
        self._parent = caller if caller is None or caller.owner is not None else caller.parent

    @property
    def parent(self) -> "Caller | None":
        """The nearest caller around this one whose app has not returned.

        Those in between whose app has returned are cut out here, so that a chain of calls that never ends stays short.
        """
        parent = self._parent
        while parent is not None and parent.owner is None:
            parent = parent._parent
        self._parent = parent
        return parent

    def app_returned(self) -> None:
        """Its app has returned."""
        self.owner = None
        self._parent = self.parent


current_caller: ContextVar[Caller | None] = ContextVar("asgi_connector.current_caller", default=None)


def owners() -> Iterator[object]:
    """The requests and lifespans that have not ended, the innermost first."""
    caller = current_caller.get()
    while caller is not None:
        if caller.owner is not None:
            yield caller.owner
        caller = caller.parent


def name_of(caller: Caller | None) -> str | None:
    return None if caller is None else caller.name
