"""The kinds of apps: those of ASGI, and those of aiohttp.web, whose half of the package is imported when it is used."""

import asyncio
from typing import cast

from asgi_connector._asgi.connection import ServerProtocol
from asgi_connector._services.address import Address
from asgi_connector._services.apps import is_web_app
from asgi_connector._services.in_flight import InFlight
from asgi_connector._services.mounted import MountedApp
from asgi_connector._services.server_end import ClientEnd, ServerEnd
from asgi_connector._services.sources import as_it_is
from asgi_connector._types import App, ASGIApp


def lifespan_app_of(app: App, loop: asyncio.AbstractEventLoop) -> ASGIApp:
    """Return what runs the lifespan of *app*."""
    if not is_web_app(app):
        return as_it_is(app, loop)
    from asgi_connector._web.service import WebService

    return WebService(app, loop)


def open_server_end(client: ClientEnd, mounted: MountedApp, address: Address, in_flight: InFlight) -> ServerEnd:
    """Return the server end of a new connection to *mounted*, of the kind that its app needs."""
    lifespan = mounted.lifespan
    # An app that has not started is not asked: something answers in its place, which is an app of ASGI.
    if lifespan.ready:
        app = lifespan.source.app
        if is_web_app(app):
            from asgi_connector._web.connection import open_web_server_end

            return open_web_server_end(client, mounted, address, in_flight)
        mounted.app = cast(ASGIApp, app)
    return ServerProtocol(client, mounted, address, in_flight)
