"""The failures of a system that a test makes by hand: partitions, held messages, crashes and restarts."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Literal

from asgi_connector._blocks import AsyncBlock

from .closing import ClosingConnector
from .loops import check_loop, check_loop_or_none

if TYPE_CHECKING:
    from asgi_connector._injection.faults import Hang, Refuse
    from asgi_connector._injection.hold import Hold
    from asgi_connector._injection.partition import Partition
    from asgi_connector._journal.selector import Caller, Path

    from .injector import Injector
    from .instruments import Instruments


class ByHandConnector(ClosingConnector):
    """A connector whose network can be parted, whose messages can be held, and whose apps can crash and restart."""

    def partition(
        self, *groups: Iterable[str | None], fault: "Hang | Refuse | None" = None, allow_unused: bool = False
    ) -> "Partition":
        """Part the network for the length of a block: ``with connector.partition({"a.internal"}, {"b.internal"}):``.

        A call from one group to another meets the fault, in both directions, also on a connection that is open when the
        block begins. Calls inside one group, and from and to hosts in no group, do not. At the end of the block, what
        was held up arrives. Blocks may be nested, and combine with `inject()`.

        Parameters:
            groups: two or more sets of host patterns, each of a mounted app; `None` in one of them stands for calls
                from outside every app.
            fault: ``faults.Hang()``, the default: nothing passes, no end is told, and a new connection gets no answer.
                ``faults.Refuse()``: open connections are reset, and new ones are refused.
            allow_unused: whether the block may end without having affected a request; `False` by default.

        Raises `ValueError` or `TypeError` for an invalid parameter, and `aiohttp.ClientConnectionError` if the
        connector is closed. The end of a block that has affected no request raises `AssertionError`.
        """
        from asgi_connector._injection.faults import Hang

        return self._get_injector().partition(groups, Hang() if fault is None else fault, allow_unused)

    def hold(
        self,
        host: str,
        *,
        on: Literal["request", "response"] = "response",
        caller: "Caller" = ...,
        method: str | None = None,
        path: "Path" = None,
        allow_unused: bool = False,
    ) -> "Hold":
        """Hold messages for the length of a block: ``with connector.hold("payments.internal") as held:``.

        Each request, or each response, that matches is kept whole at the end of its way: the app is not called with the
        request, or the client gets no byte of the response. ``await held.wait(2)`` returns two of them, and each is
        released or dropped, in any order. At the end of the block, all others are released. Only requests that start in
        the block count.

        Parameters:
            host: a host pattern for which an app is mounted.
            on: ``"request"``, or ``"response"``, the default.
            caller, method, path: which requests match, as in `Journal`; all by default.
            allow_unused: whether the block may end without having held a message; `False` by default.

        Raises `ValueError` or `TypeError` for an invalid parameter or a host that is not mounted, and
        `aiohttp.ClientConnectionError` if the connector is closed. The end of a block in which no request matched
        raises `AssertionError`, which shows the calls.
        """
        from asgi_connector._journal.selector import Selector

        selector = Selector(host, caller=caller, method=method, path=path)
        return self._get_injector().hold(selector, on, allow_unused)

    def crashed(self, pattern: str, *, allow_unused: bool = False) -> AbstractAsyncContextManager[None]:
        """Let the app at *pattern* crash, and be down for a block: ``async with connector.crashed("a.internal"):``.

        When the block begins, each connection to the app is reset, and its requests and its lifespan are cancelled,
        without a shutdown event. They have 2 seconds to clean up. In the block, callers are refused. At its end, the
        app starts again: a new one if the `Mount` has a ``factory``, else the same object, with what it keeps. An app
        that is mounted at several patterns is down at all of them.

        Parameters:
            pattern: a host pattern at which an app is mounted.
            allow_unused: whether the block may end if the app had not started and was not called; `False` by default.

        Raises `ValueError` if nothing is mounted at *pattern*. Raises `RuntimeError` if the app is down already, and
        from inside one of its requests. The end of the block raises `LifespanError` if the app fails to start, and
        `AssertionError` if there was nothing to affect.
        """
        return AsyncBlock(f"crashed({pattern!r})", self._crashed(pattern, allow_unused))

    @asynccontextmanager
    async def _crashed(self, pattern: str, allow_unused: bool) -> AsyncGenerator[None, None]:
        __tracebackhide__ = True  # pytest shows the block
        check_loop(self)
        async with self._get_injector().crash(pattern, allow_unused, self._is_usable):
            yield

    async def restart(self, pattern: str) -> None:
        """Restart the app at *pattern* in order, as when a new version is deployed.

        New requests wait from now on. When those in flight have ended, the app shuts down and starts again: a new one
        if the `Mount` has a ``factory``, else the same object. Its connections are closed, and a WebSocket gets the
        close code 1012. An app that is mounted at several patterns restarts at all of them.

        Raises `ValueError` if nothing is mounted at *pattern*, and `LifespanError` if the shutdown or the startup
        fails. Raises `RuntimeError` if the app is down, and from inside one of its requests, which would wait for
        itself.
        """
        from asgi_connector._services.restarts import Restarts

        check_loop(self)
        self._check_open()
        await Restarts(self._services).restart(pattern)

    def _get_instruments(self) -> "Instruments":
        check_loop_or_none(self)
        self._check_open()
        return self._own_instruments()

    def _get_injector(self) -> "Injector":
        return self._get_instruments().get_injector()

    def _own_instruments(self) -> "Instruments":
        if self._instruments is None:
            from .instruments import Instruments

            self._instruments = Instruments(self._services, self._has_idle)
        return self._instruments
