"""A list of coroutines that wait for the same event."""

import asyncio


class Waiters:
    """Coroutines that wait for the same event, in the order of their arrival."""

    def __init__(self) -> None:
        self._futures: dict[asyncio.Future[None], None] = {}
        self._followers: list[Waiters] = []

    def __bool__(self) -> bool:
        return bool(self._futures) or any(self._followers)

    def follow(self, other: "Waiters") -> None:
        """Wake these too when *other* is woken, until `unfollow()`."""
        other._followers.append(self)

    def unfollow(self, other: "Waiters") -> None:
        other._followers.remove(self)

    async def wait(self) -> None:
        """Return at the next `wake()`, or raise the exception that it was called with."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures[future] = None
        try:
            await future
        finally:
            self._futures.pop(future, None)

    def wake(self, exc: BaseException | None = None) -> None:
        """Wake current waiters, or let them fail with *exc*; later ones wait as usual."""
        for future in self._futures:
            if future.done() or future.get_loop().is_closed():
                continue
            if exc is None:
                future.set_result(None)
            else:
                future.set_exception(exc)
        for follower in self._followers:
            follower.wake(exc)
