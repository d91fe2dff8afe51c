"""Who may watch an exchange, and answer in the place of its app: a protocol, for rooms that know no journal."""

from typing import Protocol

from ._types import ASGIApp, Bytes


class Observer(Protocol):
    """Watches one exchange from the server's end of its connection."""

    @property
    def app(self) -> ASGIApp | None:
        """What answers in the place of the app that is mounted, if anything does."""
        ...

    def app_called(self) -> None:
        """The head of the request has arrived, and the app is about to be called."""

    def request_body(self, data: bytes) -> None:
        """A piece of the request's body has arrived."""

    def response_started(self) -> None:
        """The head of the response has been written."""

    def response_body(self, data: Bytes) -> None:
        """A piece of the response's body has been written."""

    def message(self, data: str | bytes, *, from_client: bool) -> None:
        """A message of a WebSocket has arrived, or been written."""

    def closed(self, code: int, reason: str) -> None:
        """A WebSocket is being closed: this is its first close frame, whoever sent it."""

    def app_failed(self, exc: BaseException) -> None:
        """The app has failed before its response was complete, or while its WebSocket was open."""
