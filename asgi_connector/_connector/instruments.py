"""`Instruments`: what records the requests of a connector, and lets them fail."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from aiohttp import ClientRequest

from asgi_connector._journal.journal import Journal
from asgi_connector._journal.recorder import Recorder
from asgi_connector._numbers import is_int
from asgi_connector._services.services import Services

if TYPE_CHECKING:
    from .injector import Injector


class Instruments:
    """The recorder of one connector, and its injector."""

    def __init__(self, services: Services, has_idle: Callable[[ClientRequest], bool]) -> None:
        """*has_idle* tells whether a request will use an idle connection of the pool."""
        self.recorder = Recorder(services.loop)
        """The recorder. It also records while only an injection is open."""
        self.injector: Injector | None = None
        """The injector. It is made for the first fault: most tests record, and inject nothing."""
        self._services = services
        self._has_idle = has_idle

    def record(self, bodies: bool, max_body_size: int) -> AbstractContextManager[Journal]:
        if not isinstance(bodies, bool):
            raise TypeError(f"bodies must be a bool, not {bodies!r}")
        if not is_int(max_body_size):
            raise TypeError(f"max_body_size must be an int, a number of bytes, not {max_body_size!r}")
        if max_body_size < 0:
            raise ValueError(f"max_body_size must not be negative, but is {max_body_size}")
        return self.recorder.record(max_body_size if bodies else None)

    def get_injector(self) -> "Injector":
        if self.injector is None:
            from .injector import Injector

            self.injector = Injector(self.recorder, self._services, self._has_idle)
        return self.injector

    def unused_faults(self) -> list[str]:
        """What is wrong with the open blocks, a text for each that has affected nothing."""
        return [] if self.injector is None else self.injector.unused_faults()

    def end_all(self) -> None:
        """Stop every fault and conclude the exchanges, because the connector closes."""
        if self.injector is not None:
            self.injector.blocks.end_all()
        self.recorder.conclude()
