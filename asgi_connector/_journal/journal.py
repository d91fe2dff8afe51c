"""The journal: who called whom, to be looked at, asserted on, waited for, and written to a file."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from typing import Any, Final, overload

from typing_extensions import override

from asgi_connector._numbers import check_number, is_int
from asgi_connector._waiters import Waiters

from .exchange import Exchange
from .selector import Caller, Path, Selector

_SHOWN: Final = 10  # calls in the message of a failing assertion
_RECENT: Final = 100


class Journal(Sequence[Exchange]):
    """The exchanges of a recording, in the order of their start; see `ASGIRoutingConnector.record`.

    It grows as long as the recording is open, and what was still running then goes on until it ends. The exchanges that
    a question selects are a journal too, of those that there were when it was asked.

    Each question takes the same criteria, all of which may be left out, and all but the first are keywords:

    - ``host`` (`str`), a host pattern, as in the table of mounts;
    - ``caller`` (`str`), the pattern at which the calling app is mounted, or `None` for a call from outside of every
      app;
    - ``method`` (`str`), in any case;
    - ``path``, decoded and without the query: a `str` that it equals, or an `re.Pattern` that matches the whole of it;
    - ``status`` (`int`), that of the response;
    - ``where``, a function of the `Exchange` that says whether it is meant.

    One that makes no sense is a `TypeError` or a `ValueError`.
    """

    __module__ = "asgi_connector"

    def __init__(self, exchanges: Iterable[Exchange] = (), *, waiters: Waiters | None = None) -> None:
        self._exchanges = list(exchanges)
        self._waiters = Waiters() if waiters is None else waiters  # for an exchange to end

    @overload
    def __getitem__(self, index: int) -> Exchange: ...

    @overload
    def __getitem__(self, index: slice) -> "Journal": ...

    @override
    def __getitem__(self, index: int | slice) -> "Exchange | Journal":
        if isinstance(index, slice):
            return Journal(self._exchanges[index], waiters=self._waiters)
        return self._exchanges[index]

    @override
    def __len__(self) -> int:
        return len(self._exchanges)

    @override
    def __iter__(self) -> Iterator[Exchange]:
        return iter(self._exchanges)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {count(len(self), 'exchange')}>"

    def __str__(self) -> str:
        """One line for each exchange, and below it, to the right, those that were made inside of it."""
        inside: dict[Exchange | None, list[Exchange]] = {}
        here = set(self)
        for exchange in self:
            inside.setdefault(exchange.parent if exchange.parent in here else None, []).append(exchange)
        lines: list[str] = []
        ahead = [(0, exchange) for exchange in reversed(inside.get(None, []))]
        while ahead:
            depth, exchange = ahead.pop()
            lines.append(f"{'  ' * depth}{exchange} in {exchange.duration * 1000:.0f} ms")
            ahead += [(depth + 1, each) for each in reversed(inside.get(exchange, []))]
        return "\n".join(lines) or "(no calls)"

    def select(
        self,
        host: str | None = None,
        *,
        caller: Caller = ...,
        method: str | None = None,
        path: Path = None,
        status: int | None = None,
        where: Callable[[Exchange], object] | None = None,
    ) -> "Journal":
        """The exchanges that match, as they are now."""
        return self._select(Selector(host, caller=caller, method=method, path=path, status=status, where=where))

    def assert_called(
        self,
        host: str | None = None,
        *,
        caller: Caller = ...,
        method: str | None = None,
        path: Path = None,
        status: int | None = None,
        where: Callable[[Exchange], object] | None = None,
        times: int | None = None,
    ) -> "Journal":
        """Assert that there were calls that match: *times* of them, or, with `None`, at least one. Returns them.

        Raises `AssertionError` that shows the calls there were, the nearest first, and how each differs.
        """
        __tracebackhide__ = True  # pytest shows the line that asks
        _check_times(times)
        selector = Selector(host, caller=caller, method=method, path=path, status=status, where=where)
        found = self._select(selector)
        if len(found) == times or (times is None and found):
            return found
        expected = "a call" if times is None else count(times, "call")
        raise AssertionError(self.explain(selector, _expected(f"Expected {expected} of {selector}", found), found))

    def assert_not_called(
        self,
        host: str | None = None,
        *,
        caller: Caller = ...,
        method: str | None = None,
        path: Path = None,
        status: int | None = None,
        where: Callable[[Exchange], object] | None = None,
    ) -> "Journal":
        """Assert that there was no call that matches, also none that failed; returns the empty journal.

        Raises `AssertionError` that shows those that there were.
        """
        __tracebackhide__ = True  # pytest shows the line that asks
        selector = Selector(host, caller=caller, method=method, path=path, status=status, where=where)
        found = self._select(selector)
        if found:
            raise AssertionError(self.explain(selector, _expected(f"Expected no call of {selector}", found), found))
        return found

    async def wait_for(
        self,
        host: str | None = None,
        *,
        caller: Caller = ...,
        method: str | None = None,
        path: Path = None,
        status: int | None = None,
        where: Callable[[Exchange], object] | None = None,
        times: int | None = None,
        timeout: float | None = 1.0,
    ) -> "Journal":
        """Wait until *times* calls that match (with `None`, one) have ended, in whatever way; returns them.

        Raises `AssertionError` after *timeout* seconds (1 by default, `None` for no limit), which shows the calls there
        were, the nearest first, and how each differs.
        """
        __tracebackhide__ = True  # pytest shows the line that asks
        _check_times(times)
        if timeout is not None:
            check_number("timeout", timeout, unlimited=True)
        selector = Selector(host, caller=caller, method=method, path=path, status=status, where=where)
        needed = 1 if times is None else times
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                await self._wait_for_ended(selector, needed)
        except TimeoutError:
            if not limit.expired():
                raise
            found = self._select(selector)
            waited = f"Waited {timeout} s for {count(needed, 'call')} of {selector} to end"
            raise AssertionError(self.explain(selector, _expected(waited, found), found)) from None
        return self._select_ended(selector)

    async def _wait_for_ended(self, selector: Selector, needed: int) -> None:
        """Look at each exchange until it has ended, and not again."""
        matched = seen = 0
        running: list[Exchange] = []
        while True:
            looked_at = [*running, *self._exchanges[seen:]]
            seen = len(self._exchanges)
            matched += sum(selector.matches(each) for each in looked_at if each.ended)
            running = [each for each in looked_at if not each.ended]
            if matched >= needed:
                return
            await self._waiters.wait()

    def to_mermaid(self) -> str:
        """A Mermaid sequence diagram of the calls: who called whom, in order, and what was answered.

        It has no times in it, so that the same run gives the same text.
        """
        from .mermaid import sequence_diagram

        return sequence_diagram(self)

    def to_har(self, *, sensitive: bool = False) -> dict[str, Any]:
        """The exchanges as an HTTP Archive (HAR 1.2), which the developer tools of browsers can read.

        Cookies, and what is a secret by its name, are left out of headers, URLs and the fields of forms, unless
        *sensitive* is true. Other bodies and messages have what they had, without their gzip or deflate.
        """
        from .har import archive

        return archive(self, sensitive=sensitive)

    def save_har(self, path: "str | PathLike[str]", *, sensitive: bool = False) -> None:
        """Write `to_har()` to a file, in JSON.

        An old file is replaced when the new one is complete, and stays as it was if that fails. With *sensitive* only
        the owner of the file may read it.
        """
        from .har import save

        save(self, path, sensitive=sensitive)

    def add(self, exchange: Exchange) -> None:
        """A recording goes on."""
        self._exchanges.append(exchange)

    def _select(self, selector: Selector) -> "Journal":
        return Journal(filter(selector.matches, self), waiters=self._waiters)

    def _select_ended(self, selector: Selector) -> "Journal":
        return Journal((each for each in self if each.ended and selector.matches(each)), waiters=self._waiters)

    def explain(self, selector: Selector, text: str, found: "Journal") -> str:
        """*text*, the calls that were *found*, and the others, the nearest first, each with what differs."""
        shown = [f"  {exchange}" for exchange in found[:_SHOWN]]
        others = sorted(
            ((differences, exchange) for exchange in self if (differences := selector.differences(exchange))),
            key=lambda other: len(other[0]),
        )
        lines = [text, *shown]
        if len(found) > _SHOWN:
            lines.append(f"  and {len(found) - _SHOWN} more")
        if others:
            lines.append(f"{'Other' if shown else 'The'} calls there were, the nearest first:")
            lines += [f"  {exchange}\n    {', '.join(differences)}" for differences, exchange in others[:_SHOWN]]
        if len(others) > _SHOWN:
            lines.append(f"  and {len(others) - _SHOWN} more")
        if not self:
            lines.append("There was no call at all.")
        return "\n".join(lines)


class RecentJournal(Journal):
    """The latest exchanges only, so that it may be open for long."""

    @override
    def add(self, exchange: Exchange) -> None:
        super().add(exchange)
        if len(self) == 2 * _RECENT:
            del self._exchanges[:_RECENT]


def _expected(expected: str, found: Journal) -> str:
    were = "was 1:" if len(found) == 1 else f"were {len(found)}:" if found else "was none."
    return f"{expected}, but there {were}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _check_times(times: int | None) -> None:
    if times is not None and not is_int(times):
        raise TypeError(f"times must be an int or None, not {times!r}")
    if times is not None and times < 0:
        raise ValueError(f"times must not be negative, but is {times}")
