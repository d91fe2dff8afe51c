"""What happens in a connector that no caller may see: the startups that fail, the apps that are cancelled."""

from collections.abc import Callable
from dataclasses import dataclass

from ._observer import Observer


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that happened.

    Attributes:
        text: what happened, as a sentence without its full stop.
        error: the exception that is its reason, if any.
        observer: the observer of the request that it happened to, if any.
        unused: whether it is about something that was prepared and not used.
    """

    text: str
    error: BaseException | None = None
    observer: Observer | None = None
    unused: bool = False


class Notices:
    """What one connector notices. Without a listener nothing is kept."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Notice], None]] = []

    def tell(self, notice: Notice) -> None:
        for listener in self.listeners:
            listener(notice)
