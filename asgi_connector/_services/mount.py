"""`Mount`, which is an app with its own settings, and the checks of these settings."""

from dataclasses import KW_ONLY, dataclass
from typing import Final, Literal, get_args

from asgi_connector._types import App, Factory

from .apps import check_app, check_factory, check_root_path_for
from .lifespan import Setting, check_setting


class Inherit:
    """The type of `INHERIT`, the default of the settings: use the connector's setting."""

    def __repr__(self) -> str:
        return "<as the connector>"

    def __reduce__(self) -> str:
        """Copy and unpickle to `INHERIT` itself, by its name."""
        return "INHERIT"


INHERIT: Final = Inherit()

ClientAddress = tuple[str, int] | None
InheritContext = Literal["outside", "always", "never"]


@dataclass(frozen=True, slots=True)
class Mount:
    """An app with its own settings, for the host -> app table of an `ASGIRoutingConnector`.

    Parameters:
        app: the ASGI 3 application, an ``async`` callable of ``(scope, receive, send)``, or an
            ``aiohttp.web.Application``.
        factory: instead of ``app``, a callable without arguments, sync or async, that returns a new app for each start.
        root_path: ``scope["root_path"]`` (`str`), see the ASGI spec, *HTTP connection scope*. For ASGI only.
        client: ``scope["client"]``, a ``(host, port)`` tuple of `str` and `int`, or `None` for "not known". In an
            ``aiohttp.web.Application``, its host is ``request.remote``.
        raise_app_exceptions: whether an exception that the app does not handle is raised from the client's call
            (`True`), or is treated as a real server treats it (`False`).
        lifespan: ``"auto"``, ``"on"`` or ``"off"``: whether the app is started and shut down. See
            `ASGIRoutingConnector`.
        inherit_context: ``"outside"``, ``"always"`` or ``"never"``: which calls run the app in a copy of the caller's
            `contextvars.Context`. See `ASGIRoutingConnector`.

    The default of each setting is the connector's setting.

    Raises:
        TypeError: *app* is not an application (for example, it is a class, a function that returns an app, a coroutine
            or a WSGI application), both ``app`` and ``factory`` are given, or a setting has the wrong type.
        ValueError: ``root_path`` does not start with a slash, or is set for an ``aiohttp.web.Application``, or
            ``lifespan`` or ``inherit_context`` is unknown.
    """

    __module__ = "asgi_connector"

    app: App | None = None
    _: KW_ONLY
    factory: Factory | None = None
    root_path: str | Inherit = INHERIT
    client: ClientAddress | Inherit = INHERIT
    raise_app_exceptions: bool | Inherit = INHERIT
    lifespan: Setting | Inherit = INHERIT
    inherit_context: InheritContext | Inherit = INHERIT

    def __post_init__(self) -> None:
        if self.factory is None:
            check_app(self.app)
        elif self.app is None:
            check_factory(self.factory)
        else:
            raise TypeError(f"a Mount has an app or a factory, but not both: {self.app!r} and {self.factory!r}")
        check_root_path_for(self.app, self.root_path)
        if not isinstance(self.root_path, Inherit):
            check_root_path(self.root_path)
        if not isinstance(self.client, Inherit):
            check_client(self.client)
        if not isinstance(self.raise_app_exceptions, Inherit):
            check_raise_app_exceptions(self.raise_app_exceptions)
        if not isinstance(self.lifespan, Inherit):
            check_setting(self.lifespan)
        if not isinstance(self.inherit_context, Inherit):
            check_inherit_context(self.inherit_context)


def check_root_path(root_path: str) -> None:
    if not isinstance(root_path, str):
        raise TypeError(f"root_path must be a str, not {root_path!r}")
    if root_path and not root_path.startswith("/"):
        raise ValueError(f"root_path must be empty or start with a slash, not {root_path!r}")


def check_client(client: ClientAddress) -> None:
    if client is None:
        return
    if not (isinstance(client, tuple) and [type(part) for part in client] == [str, int]):
        raise TypeError(f"client must be a (host, port) tuple of str and int, or None, not {client!r}")


def check_raise_app_exceptions(raise_app_exceptions: bool) -> None:
    if not isinstance(raise_app_exceptions, bool):
        raise TypeError(f"raise_app_exceptions must be a bool, not {raise_app_exceptions!r}")


def check_inherit_context(inherit_context: InheritContext) -> None:
    if inherit_context not in get_args(InheritContext):
        raise ValueError(f"inherit_context must be one of 'outside', 'always' and 'never', not {inherit_context!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountDefaults:
    """The settings that a `Mount` inherits from its connector."""

    root_path: str
    client: ClientAddress
    raise_app_exceptions: bool
    lifespan: Setting
    inherit_context: InheritContext

    def __post_init__(self) -> None:
        check_root_path(self.root_path)
        check_client(self.client)
        check_raise_app_exceptions(self.raise_app_exceptions)
        check_setting(self.lifespan)
        check_inherit_context(self.inherit_context)


def as_mount(pattern: str, app: App | Mount) -> Mount:
    """Return *app* as a `Mount`. Raises `TypeError`, with the pattern in its text, if *app* is not an app."""
    if isinstance(app, Mount):
        return app
    try:
        return Mount(app)
    except TypeError as exc:
        raise TypeError(f"{pattern!r}: {exc}") from None
