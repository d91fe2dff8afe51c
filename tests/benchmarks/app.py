"""The app that every contender serves. It is plain ASGI, so that the time of no framework is measured."""

from asgi_connector._types import Receive, Scope, Send

CHUNK = bytes(64 * 1024)
CHUNKS_PER_MIB = 1024 * 1024 // len(CHUNK)
SMALL = b"hello"
EVENT = b"data: " + b"x" * 92 + b"\n\n"  # 100 bytes


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """``/`` answers `SMALL`, ``/download?N`` sends N MiB in chunks, ``/upload`` answers how many bytes it was sent.

    ``/events?N`` sends N server-sent events. ``/echo`` is a WebSocket that sends back what it receives.
    """
    match scope["path"]:
        case "/":
            await respond(send, SMALL)
        case "/download":
            await download(send, chunks=int(scope["query_string"]) * CHUNKS_PER_MIB)
        case "/upload":
            await respond(send, b"%d" % await body_size(receive))
        case "/events":
            await send_events(send, count=int(scope["query_string"]))
        case "/echo":
            await echo(receive, send)


async def respond(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def download(send: Send, chunks: int) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(chunks):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body"})


async def send_events(send: Send, count: int) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(count):
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})
    await send({"type": "http.response.body"})


async def body_size(receive: Receive) -> int:
    size, more_body = 0, True
    while more_body:
        message = await receive()
        size += len(message.get("body", b""))
        more_body = message.get("more_body", False)
    return size


async def echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})
