"""`hold()` blocks: messages that are kept at the end of their way, until the test lets them go on."""

import asyncio
import enum
from collections.abc import Iterable
from contextvars import Context
from typing import Final

from aiohttp import ClientConnectionError
from typing_extensions import override

from asgi_connector._exchange.exchange import Exchange
from asgi_connector._http1.ends import RequestEnd, ResponseEnd
from asgi_connector._journal.journal import count
from asgi_connector._journal.live import LiveExchange
from asgi_connector._journal.selector import Call, Selector
from asgi_connector._network.holding import HoldStage
from asgi_connector._network.impairments import Stage
from asgi_connector._network.transport import MemoryTransport
from asgi_connector._numbers import check_int, check_number
from asgi_connector._waiters import Waiters

from .blocks import Calls, Effect, FaultBlock, OpenBlocks
from .effects import cut
from .faults import Dropped, Held, Part, Reset

_PARTS: Final = ("request", "response")


class _State(enum.Enum):
    ARRIVING = "arriving"
    HELD = "held"
    RELEASED = "released"
    DROPPED = "dropped"
    LOST = "lost with its connection"


class HeldMessage:
    """A request or a response that a `hold()` block keeps at the end of its way.

    Attributes:
        exchange: the `Exchange` that the message belongs to.
        on: ``"request"`` or ``"response"``: which message of the exchange it is.
    """

    __module__ = "asgi_connector.faults"

    def __init__(self, exchange: LiveExchange, on: Part) -> None:
        self.exchange: Exchange = exchange
        self.on: Part = on
        self.state = _State.ARRIVING
        self._stage: HoldStage | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.on} of {self.exchange}, {self.state.value}>"

    def begin(self, stage: HoldStage) -> None:
        """Keep the message in *stage*."""
        self._stage = stage

    def release(self) -> None:
        """Let the message arrive now. The second time, and if its connection has ended, nothing happens.

        Raises `RuntimeError` if it was dropped.
        """
        if self.state is _State.DROPPED:
            raise RuntimeError(f"{self!r} cannot be released")
        if self.state is not _State.LOST:
            self.state = _State.RELEASED
            assert self._stage is not None
            self._stage.end_fault()

    def drop(self) -> None:
        """Lose the message: it never arrives, and neither end is told. Its connection delivers nothing any more.

        The other end waits until its own timeout. The second time, and if the connection has ended, nothing happens.
        Raises `RuntimeError` if the message was released.
        """
        if self.state is _State.RELEASED:
            raise RuntimeError(f"{self!r} cannot be dropped")
        if self.state is not _State.LOST:
            self.state = _State.DROPPED
            self.exchange.fault = Dropped(self.on)
            assert self._stage is not None
            self._stage.lose()

    def lost(self) -> None:
        """Note that the connection has ended, and the message with it."""
        if self.state in (_State.ARRIVING, _State.HELD):
            self.state = _State.LOST


class Hold(FaultBlock):
    """An open `hold()` block.

    Attributes:
        on: ``"request"`` or ``"response"``: which messages it keeps.
        matched: the number of requests that have matched its criteria.
        affected: the number of messages that it has kept, or will keep.
    """

    __module__ = "asgi_connector.faults"

    def __init__(self, blocks: OpenBlocks, selector: Selector, on: Part, allow_unused: bool) -> None:
        """Raises `TypeError` or `ValueError` for an invalid parameter."""
        if on not in _PARTS:
            raise ValueError(f"on must be one of {', '.join(map(repr, _PARTS))}, not {on!r}")
        blocks.check_host(selector)
        self.on: Part = on
        self._selector = selector
        self._arriving: dict[HeldMessage, None] = {}
        self._held: list[HeldMessage] = []  # in the order of their arrival
        self._waiters = Waiters()
        self._closed: ClientConnectionError | None = None  # why the connector has ended the block
        super().__init__(blocks, f"hold({str(selector.host)!r}, on={on!r})", allow_unused)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of each {self.on} of {self._selector}, {len(self._now())} held>"

    async def wait(self, number: int = 1, *, timeout: float | None = 1.0) -> list[HeldMessage]:
        """Wait until *number* messages are held at the same time, each of them whole. Returns the first of them.

        Parameters:
            number: how many messages; 1 by default.
            timeout: the seconds to wait; 1 by default, `None` for no limit.

        Raises `AssertionError` after the timeout, `RuntimeError` outside of the block, and
        `aiohttp.ClientConnectionError` if the connector closes.
        """
        __tracebackhide__ = True  # pytest shows the line of the caller
        check_int("number", number, at_least=1)
        if timeout is not None:
            check_number("timeout", timeout, unlimited=True)
        calls = self._calls_in_block()
        try:
            async with asyncio.timeout(timeout):
                while len(held := self._now()) < number:
                    await self._waiters.wait()
                    self._calls_in_block()
        except TimeoutError:
            raise AssertionError(self._explain_wait(number, timeout, calls)) from None
        return held[:number]

    def _calls_in_block(self) -> Calls:
        if self._closed is not None:
            raise self._closed
        if self._calls is None or self.over:
            raise RuntimeError(f"{self!r} holds nothing outside of its block")
        return self._calls

    def _now(self) -> list[HeldMessage]:
        self._held = [message for message in self._held if message.state is _State.HELD]
        return list(self._held)

    @override
    def end_fault(self, error: ClientConnectionError | None = None) -> None:
        self.over = True
        self._closed = error
        if error is None:
            for message in [*self._now(), *self._arriving]:
                message.release()
        self._waiters.wake(error)

    @override
    def effect_on(self, call: Call, exchange: LiveExchange | None) -> Effect | None:
        if not self._selector.matches_call(call):
            return None
        self.matched += 1
        return Effect(self, Held(self.on))

    @override
    def stages(
        self, effect: Effect, exchange: LiveExchange, client: MemoryTransport
    ) -> Iterable[tuple[MemoryTransport, Stage]]:
        pipe = client if self.on == "request" else client.peer
        end = RequestEnd() if self.on == "request" else ResponseEnd(exchange.method)
        message = HeldMessage(exchange, self.on)
        self._arriving[message] = None
        loop = self._blocks.loop

        def arrived() -> None:
            del self._arriving[message]
            message.state = _State.HELD
            self._held.append(message)
            self._waiters.wake()

        def lost() -> None:
            self._arriving.pop(message, None)
            message.lost()

        stage = HoldStage(end, arrived, lost, lambda: loop.call_soon(cut, pipe, Reset(), None, context=Context()))
        message.begin(stage)
        yield pipe, stage

    @override
    def affect_open_connections(self) -> None:
        """Do nothing: a message that is on its way already may have arrived in part."""

    @override
    def _describe_unused(self) -> str:
        return f"{self._call} has affected nothing: there was no request to {self._selector} while it was open."

    @override
    def _explain_unused(self, calls: Calls, problem: str) -> str:
        return calls.explain_unused(problem, self._selector)

    def _explain_wait(self, number: int, timeout: float | None, calls: Calls) -> str:
        held = self._now()
        were = "was 1:" if len(held) == 1 else f"were {len(held)}:" if held else "was none."
        lines = [f"Waited {timeout} s for {count(number, self.on)} of {self._selector} to be held, but there {were}"]
        lines += [f"  {message.exchange}" for message in held]
        if self._arriving:
            lines.append(f"Not held, because the whole {self.on} has not arrived:")
            lines += [f"  {message.exchange}" for message in self._arriving]
        if not (held or self._arriving):
            return calls.explain(lines[0], self._selector)
        return "\n".join(lines)
