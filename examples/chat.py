"""A chat with two clients, all in one process: WebSockets without a server.

The chat is a Starlette app. It sends each message of a member to all members of the same chat room. Ada and Grace each
have an `aiohttp` WebSocket to it, opened by the same session. They exchange real WebSocket frames, with an opening and
a closing handshake. Only the network is missing.

Run it:  python examples/chat.py
"""

import asyncio
from contextlib import suppress

import aiohttp
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_connector import ASGIRoutingConnector


class Room:
    """The members of a chat room, by name."""

    def __init__(self) -> None:
        self.members: dict[str, WebSocket] = {}

    async def broadcast(self, text: str) -> None:
        for member in list(self.members.values()):
            with suppress(WebSocketDisconnect):  # this member is leaving; join() handles it
                await member.send_json({"text": text})


def make_chat() -> Starlette:
    """The app under development: one chat room for each name in the path."""
    rooms: dict[str, Room] = {}

    async def join(websocket: WebSocket) -> None:
        name = websocket.query_params["name"]
        room = rooms.setdefault(websocket.path_params["room"], Room())
        if name in room.members:
            await websocket.close()  # before the accept: the client gets a 403
            return
        await websocket.accept()
        room.members[name] = websocket
        await room.broadcast(f"{name} joins")
        try:
            while True:
                words = await websocket.receive_json()
                await room.broadcast(f"{name}: {words['text']}")
        except WebSocketDisconnect as goodbye:
            del room.members[name]
            await room.broadcast(f"{name} leaves, {goodbye.reason}")

    return Starlette(routes=[WebSocketRoute("/rooms/{room}", join)])


async def hear(**listeners: aiohttp.ClientWebSocketResponse) -> None:
    """Print the next message that each of the *listeners* receives."""
    for name, websocket in listeners.items():
        print(f"  {name} hears: {(await websocket.receive_json())['text']}")


async def main() -> None:
    connector = ASGIRoutingConnector({"chat.internal": make_chat()})
    async with aiohttp.ClientSession("ws://chat.internal", connector=connector) as session:
        print("Ada joins the room, and Grace after her")
        ada = await session.ws_connect("/rooms/compilers?name=Ada")
        await hear(Ada=ada)
        grace = await session.ws_connect("/rooms/compilers?name=Grace")
        await hear(Ada=ada, Grace=grace)

        print("\nThey talk; both members receive each message")
        await ada.send_json({"text": "Does it compile?"})
        await hear(Ada=ada, Grace=grace)
        await grace.send_json({"text": "It does."})
        await hear(Ada=ada, Grace=grace)

        print("\nA second Grace is turned away with a 403")
        try:
            await session.ws_connect("/rooms/compilers?name=Grace")
        except aiohttp.WSServerHandshakeError as exc:
            print(f"  {exc.status} {exc.message}")

        print("\nGrace leaves, and Ada sees it")
        await grace.close(message=b"to build a compiler")
        await hear(Ada=ada)
        await ada.close()


if __name__ == "__main__":
    asyncio.run(main())
