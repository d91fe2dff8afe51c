"""`ASGIApplicationConnector`: one app at every host."""

from typing import Any

from aiohttp.helpers import sentinel

from asgi_connector._services.lifespan import Setting
from asgi_connector._services.mount import ClientAddress, InheritContext, Mount
from asgi_connector._types import App

from .routing import DEFAULT_CLIENT, ASGIRoutingConnector


class ASGIApplicationConnector(ASGIRoutingConnector):
    """An aiohttp connector that answers every host with one ASGI app.

    The same as an `ASGIRoutingConnector` with *app* mounted at ``*``. Takes the same parameters, except ``fallback``:
    every host is answered by the app.
    """

    __module__ = "asgi_connector"

    def __init__(
        self,
        app: App | Mount,
        root_path: str = "",
        *,
        client: ClientAddress = DEFAULT_CLIENT,
        raise_app_exceptions: bool = True,
        lifespan: Setting = "auto",
        inherit_context: InheritContext = "outside",
        limit: int = 0,
        limit_per_host: int = 0,
        keepalive_timeout: Any = sentinel,
        force_close: bool = False,
        shutdown_timeout: float = 2.0,
    ) -> None:
        super().__init__(
            {"*": app},
            root_path=root_path,
            client=client,
            raise_app_exceptions=raise_app_exceptions,
            lifespan=lifespan,
            inherit_context=inherit_context,
            limit=limit,
            limit_per_host=limit_per_host,
            keepalive_timeout=keepalive_timeout,
            force_close=force_close,
            shutdown_timeout=shutdown_timeout,
        )
