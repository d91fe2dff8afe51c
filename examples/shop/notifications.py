"""Tells people what happens to their orders: over a WebSocket while they listen, and with a mail otherwise.

Run it:  uvicorn --factory examples.shop.notifications:create_app
"""

import os
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import aiohttp
from litestar import Litestar, WebSocket, post, websocket
from litestar.datastructures import State
from litestar.exceptions import HTTPException, WebSocketDisconnect
from litestar.params import Body

from .common import RequestIds, passing_on_request_ids

Listener: TypeAlias = WebSocket[Any, Any, Any]


@dataclass
class Event:
    to: str
    text: str


@post("/events", status_code=202)
async def publish(data: Annotated[Event, Body()], state: State) -> dict[str, str]:
    listeners: set[Listener] = state.listeners[data.to]
    for socket in list(listeners):
        await socket.send_json({"text": data.text})
    if listeners:
        return {"told": "at once"}
    session: aiohttp.ClientSession = state.session
    mail = {"From": "shop@shop.example", "To": data.to, "Subject": "Your shop", "TextBody": data.text}
    try:
        async with session.post("/email", json=mail) as response:
            response.raise_for_status()
    except aiohttp.ClientError as exc:
        raise HTTPException("the mail was not sent", status_code=502) from exc
    return {"told": "by mail"}


@websocket("/listeners/{address:str}")
async def listen(socket: Listener, state: State) -> None:
    listeners = state.listeners[socket.path_params["address"]]
    await socket.accept()
    listeners.add(socket)
    try:
        while True:
            await socket.receive_text()  # they only listen; this ends when they leave
    except WebSocketDisconnect:
        pass
    finally:
        listeners.discard(socket)


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncGenerator[None, None]:
    async with aiohttp.ClientSession(
        os.environ.get("POSTMARK_URL", "https://api.postmarkapp.com"),
        headers={"X-Postmark-Server-Token": os.environ.get("POSTMARK_TOKEN", "")},
        trace_configs=[passing_on_request_ids()],
    ) as session:
        app.state.session = session
        app.state.listeners = defaultdict(set)
        yield


def create_app() -> Litestar:
    return Litestar(
        [publish, listen], lifespan=[lifespan], middleware=[RequestIds], openapi_config=None, logging_config=None
    )
