"""A request to an aiohttp.web application that a fault answers in its place: see `Observer.app`."""

from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

from asgi_connector._aiohttp.web_protocol import Answer
from asgi_connector._asgi.writer import ResponseWriter
from asgi_connector._http1.request import RequestLine
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._services.server_end import ClientCall
from asgi_connector._types import Message

from .exchange import Connection, WebExchange


class SubstituteExchange(WebExchange):
    """One request, which an app of ASGI answers without reading it. The connection ends with the response."""

    __slots__ = ("_writer",)

    def __init__(
        self,
        connection: Connection,
        request: web.BaseRequest,
        call: ClientCall,
        handle: Callable[[], Awaitable[Answer]],
    ) -> None:
        super().__init__(connection, request, call, handle)
        self._writer = ResponseWriter(cast(MemoryTransport, connection.outgoing))
        line = RequestLine(request.method, b"", "1.1")
        self._writer.begin(line, None, keep_alive=False, message="http.response.start")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._writer.start(message["status"], message["headers"], hold=False)
        else:
            self._writer.write_body(message["body"], more_body=False)

    def result(self) -> Answer:
        return web.Response(), False  # it has not been prepared, so the connection is closed
