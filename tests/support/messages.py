"""ASGI messages, and the apps that send and receive them in the usual way."""

from typing import Any

from asgi_connector._types import Message, Receive, Send


def start(status: Any = 200, headers: Any = ()) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: Any = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def respond(send: Send, data: bytes = b"ok", status: int = 200) -> None:
    """A response whose length is known."""
    await send(start(status, [(b"content-length", b"%d" % len(data))]))
    await send(body(data))


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request."""
    data = bytearray()
    more = True
    while more:
        message = await receive()
        data += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(data)
