"""Startups that wait for other startups, and the detection of circular waits, which would never end."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Generator
from contextlib import contextmanager
from itertools import groupby
from typing import Protocol

from asgi_connector._callers import owners
from asgi_connector._exceptions import LifespanError
from asgi_connector._observer import Observer


class Outage(Protocol):
    """The time in which an app is down, and refuses its callers."""

    def refuse(self, observer: Observer | None) -> None:
        """Note that a request was refused; *observer* is its observer, if there is one."""


class Startup:
    """The startup of an app, for which other startups may wait."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.predecessor: Startup | None = None
        """The previous lifespan of the same app. It must have shut down before this startup begins."""
        self.stopped = asyncio.Event()
        """Set when the app has shut down, or will never start."""
        self.outage: Outage | None = None
        """Set as long as the app is down. It does not start before the end of that."""
        self.restarting = asyncio.Lock()
        """Held while the app restarts, also by later startups of the app."""
        self._waits_for: list[Startup] = []  # what code inside this lifespan, or a request to its app, waits for

    @contextmanager
    def being_awaited(self) -> Generator[None, None, None]:
        """Note that the block waits for this startup. Raises `LifespanError` if the startup waits for the block."""
        inside = [startup for owner in owners() if (startup := _startup_of(owner)) is not None]
        if circle := self._find_circle(inside):
            # A restart waits for what was there before, which has the same name.
            names = [repr(name) for name, _ in groupby(startup.name for startup in circle)]
            path = " waits for ".join(names if len(names) > 1 else names * 2)
            raise LifespanError(f"The startups wait for each other in a circle: {path}")
        for startup in inside:
            startup._waits_for.append(self)
        try:
            yield
        finally:
            for startup in inside:
                startup._waits_for.remove(self)

    def _find_circle(self, inside: Collection["Startup"]) -> list["Startup"]:
        """Return the path from this startup to one of *inside*, which will wait for it; empty if there is none."""
        ways: list[list[Startup]] = [[self]]
        seen: set[Startup] = {self}
        while ways:
            way = ways.pop()
            if way[-1] in inside:
                return [way[-1], *way]
            predecessor = way[-1].predecessor
            for startup in [*way[-1]._waits_for, *([predecessor] if predecessor else [])]:
                if startup not in seen:
                    seen.add(startup)
                    ways.append([*way, startup])
        return []


class UserOfApp(ABC):
    """What an app waits for before it shuts down: a request to it."""

    __slots__ = ()

    @property
    @abstractmethod
    def startup(self) -> Startup:
        """The startup of the app."""
        ...


def _startup_of(owner: object) -> Startup | None:
    if isinstance(owner, UserOfApp):
        return owner.startup
    return owner if isinstance(owner, Startup) else None
