"""Where the app of a lifespan comes from: it is there, or a factory makes a new one for each start."""

import asyncio
import inspect
from collections.abc import Callable
from typing import TypeAlias, cast

from asgi_connector._types import App, ASGIApp, Factory

from .apps import check_app, check_root_path_for

Adapt: TypeAlias = Callable[[App, asyncio.AbstractEventLoop], ASGIApp]
"""Returns what runs the lifespan of an app of any kind."""


class AppSource:
    """The app of one lifespan.

    Attributes:
        key: what makes it the same app as another one.
        app: the app as it was mounted, or as the factory has made it; `None` before.
        lifespan_app: what runs its lifespan; `None` as long as ``app`` is.
    """

    __slots__ = ("_adapt", "_factory", "_loop", "_root_path", "app", "key", "lifespan_app")

    def __init__(
        self,
        key: object,
        app: App | None,
        factory: Factory | None,
        root_path: object,
        adapt: Adapt,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.key = key
        self._factory = factory
        self._root_path = root_path
        self._adapt = adapt
        self._loop = loop
        self.app = app
        self.lifespan_app: ASGIApp | None = None if app is None else adapt(app, loop)

    def anew(self) -> "AppSource":
        """Return a source for another start: of the same app, or of a new one if there is a factory."""
        app = self.app if self._factory is None else None
        return AppSource(self.key, app, self._factory, self._root_path, self._adapt, self._loop)

    async def get(self) -> ASGIApp:
        """Return what runs the lifespan of the app, which is made now if there is a factory."""
        if self.lifespan_app is None:
            assert self._factory is not None
            made = self._factory()
            app = await made if inspect.isawaitable(made) else made
            try:
                check_app(app)
            except TypeError as exc:
                raise TypeError(f"the factory {self._factory!r} has not returned an app: {exc}") from None
            check_root_path_for(app, self._root_path)
            self.app = app
            self.lifespan_app = self._adapt(app, self._loop)
        return self.lifespan_app


def as_it_is(app: App, loop: asyncio.AbstractEventLoop) -> ASGIApp:
    """Return *app*: an ASGI app runs its lifespan itself."""
    return cast(ASGIApp, app)
