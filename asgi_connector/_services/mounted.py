"""A mounted app: its settings, and the connections and requests in flight on it."""

from contextvars import Context, copy_context
from typing import Any, cast

from asgi_connector._callers import Caller
from asgi_connector._types import ASGIApp
from asgi_connector._waiters import Waiters

from .lifespan import Setting
from .lifespans import Lifespans
from .mount import ClientAddress, Inherit, InheritContext, Mount, MountDefaults


class MountedApp:
    """A mount in use, with the connector's defaults filled in. It tracks connections and requests in flight."""

    __slots__ = (
        "_context",
        "_in_flight",
        "_unused",
        "app",
        "client",
        "inherit_context",
        "lifespan",
        "mount",
        "pattern",
        "raise_app_exceptions",
        "root_path",
    )

    def __init__(
        self, pattern: str, mount: Mount, defaults: MountDefaults, lifespans: Lifespans, context: Context
    ) -> None:
        setting: Setting = _or_default(mount.lifespan, defaults.lifespan)
        self.lifespan = lifespans.add_mount(mount, setting, pattern, context)
        self.pattern = pattern
        self.mount = mount
        self.app = cast(ASGIApp, mount.app)  # set by the first connection, if a factory makes it
        self.root_path: str = _or_default(mount.root_path, defaults.root_path)
        self.client: ClientAddress = _or_default(mount.client, defaults.client)
        self.raise_app_exceptions: bool = _or_default(mount.raise_app_exceptions, defaults.raise_app_exceptions)
        self.inherit_context: InheritContext = _or_default(mount.inherit_context, defaults.inherit_context)
        self._context = context
        self._in_flight: set[object] = set()
        self._unused = Waiters()

    def anew(self, defaults: MountDefaults, lifespans: Lifespans) -> "MountedApp":
        """Return the same mount for another start of its app."""
        return MountedApp(self.pattern, self.mount, defaults, lifespans, self._context)

    def __repr__(self) -> str:
        app = self.mount.factory if self.app is None else self.app
        return f"<{type(self).__name__} {app!r} at {self.pattern!r}, {len(self._in_flight)} in flight>"

    def context_for(self, caller: Caller | None) -> Context:
        """Return the context in which the app answers the current call: a copy of its own, or of the current one.

        *caller* is the request or lifespan that makes the call, if it comes from inside an app.
        """
        if self.inherit_context == "always" or (self.inherit_context == "outside" and caller is None):
            return copy_context()
        return self._context.copy()

    def begin_use(self, user: object) -> None:
        """Note that *user*, a connection or a request, is in flight on this app until `end_use()`."""
        self._in_flight.add(user)

    def end_use(self, user: object) -> None:
        self._in_flight.discard(user)
        if not self._in_flight and self._unused:
            self._unused.wake()

    async def wait_until_unused(self) -> None:
        """Return when nothing is in flight any more. Call it only when nothing new can start."""
        while self._in_flight:
            await self._unused.wait()


def _or_default(value: Any, default: Any) -> Any:
    return default if isinstance(value, Inherit) else value
