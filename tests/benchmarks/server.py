"""uvicorn in its own process, on its own processor if the machine has two."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def running_server(loop: str) -> AsyncIterator[str]:
    """Serve the app on a free port of loopback. Yields its URL."""
    # It listens before the process runs. A client that connects early waits in the backlog, so no polling is needed.
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        fd = listener.fileno()
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, str(fd), loop, pass_fds=[fd])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def serve(fd: int, loop: str) -> None:
    import uvicorn  # a contender like the others, which may not be installed

    from .app import app

    config = uvicorn.Config(
        app,
        http="httptools",
        loop=loop,
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=3600,  # a contender keeps its connections while it waits for its turn
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
