"""The protocol of observers, which watch an exchange or answer it in place of its app.

Modules that must not import the journal use it.
"""

from typing import Protocol

from ._types import ASGIApp, Bytes


class Observer(Protocol):
    """Watches one exchange from the server's end of its connection."""

    @property
    def app(self) -> ASGIApp | None:
        """The app that answers in place of the mounted app; `None` if the mounted app answers."""
        ...

    def app_called(self) -> None:
        """Called when the head of the request has arrived, just before the app is called."""

    def request_body(self, data: bytes) -> None:
        """Called when a piece of the request's body has arrived."""

    def response_started(self) -> None:
        """Called when the head of the response has been written."""

    def response_body(self, data: Bytes) -> None:
        """Called when a piece of the response's body has been written."""

    def message(self, data: str | bytes, *, from_client: bool) -> None:
        """Called when a WebSocket message has arrived or has been written."""

    def closed(self, code: int, reason: str) -> None:
        """Called with the code and the reason of a WebSocket's first close frame, sent by either end."""

    def app_failed(self, exc: BaseException) -> None:
        """Called when the app has failed before its response was complete, or while its WebSocket was open."""
