"""Who is calling: the requests and lifespans inside of which the current code runs.

A context variable, so it reaches whatever copies the context: tasks, task groups, thread-pool helpers, generators. With
it the connector can tell what would wait for itself.
"""

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol

from ._observer import Observer


class Caller(Protocol):
    """A request, or a lifespan, whose app may call other services."""

    @property
    def name(self) -> str:
        """The pattern at which its app is mounted."""
        ...

    @property
    def observer(self) -> Observer | None:
        """Who watches the request, if anybody does."""
        ...

    @property
    def parent(self) -> "Caller | None":
        """The caller inside of which this one was made."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the app has returned."""
        ...


current_caller: ContextVar[Caller | None] = ContextVar("asgi_connector.current_caller", default=None)


def callers() -> Iterator[Caller]:
    """The callers that have not ended, the innermost first."""
    caller = current_caller.get()
    while caller is not None:
        if not caller.ended:
            yield caller
        caller = caller.parent
