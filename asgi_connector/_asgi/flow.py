"""Flow control for the writes of a server end: `asyncio.BaseProtocol.pause_writing()` for coroutines."""

import asyncio


class WriteFlow:
    """Whether writing is paused, and a way to wait until it is not."""

    __slots__ = ("_resumed", "paused")

    def __init__(self) -> None:
        self.paused = False
        self._resumed: asyncio.Event | None = None  # made when drain() first has to wait

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        if self._resumed is not None:
            self._resumed.set()

    async def drain(self) -> None:
        """Return when writing is not paused. The end of the connection ends the pause too."""
        while self.paused:
            if self._resumed is None:
                self._resumed = asyncio.Event()
            self._resumed.clear()
            await self._resumed.wait()
