"""Targets for hosts that are not mounted: a real server on loopback, and a fallback that refuses every request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import ClientRequest, ClientTimeout
from aiohttp.connector import Connection
from aiohttp.tracing import Trace


class TCPServer:
    """A real server on loopback, which keeps the heads of the requests. It serves as an origin server or as a proxy."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.connections: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.response = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nover TCP"
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def request_lines(self) -> list[str]:
        return [head.partition("\r\n")[0] for head in self.heads]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        self.accepted += 1
        try:
            while True:
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(self.response)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def tcp_server() -> AsyncIterator[TCPServer]:
    """Run a server. The block ends when the clients have disconnected, so enter it before them."""
    tcp = TCPServer()
    server = await asyncio.start_server(tcp.serve, "127.0.0.1", 0)
    tcp.port = server.sockets[0].getsockname()[1]
    try:
        yield tcp
    finally:
        server.close()
        await asyncio.gather(*tcp.connections)
        await server.wait_closed()


class Elsewhere(aiohttp.BaseConnector):
    """A fallback that keeps each request and refuses it."""

    allowed_protocol_schema_set = frozenset({"http", "gopher"})

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[ClientRequest, list[Trace], ClientTimeout]] = []
        self.refusal = aiohttp.ClientConnectionError("nobody is there")

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        self.asked.append((req, traces, timeout))
        raise self.refusal
