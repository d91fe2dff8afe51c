"""`Journal`: the recorded calls, to inspect, assert on, wait for, and write to a file."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence, Set
from os import PathLike
from typing import Any, Final, overload

from typing_extensions import Unpack, override

from asgi_connector._exchange.exchange import Exchange
from asgi_connector._exchange.tree import in_tree
from asgi_connector._numbers import check_number, is_int
from asgi_connector._waiters import Waiters

from .explanation import explain
from .selector import Criteria, Selector

_RECENT: Final = 100  # exchanges that a `RecentJournal` keeps at least


class Journal(Sequence[Exchange]):
    """The exchanges of a recording, in the order in which they started; see `ASGIRoutingConnector.record`.

    A journal grows while its recording is open. An exchange that is still running after that is updated until it ends.
    A query returns the exchanges that it selects as a journal too, which does not grow.

    `select`, `assert_called`, `assert_not_called` and `wait_for` take the same criteria. Each may be left out. All
    except the first are keyword arguments:

    - ``host`` (`str`): a host pattern, as in the table of mounts;
    - ``caller`` (`str` or `None`): the pattern at which the calling app is mounted, or `None` for a call from outside
      every app;
    - ``method`` (`str`): the method of the request, in upper or lower case;
    - ``path`` (`str` or `re.Pattern`): the decoded path, without the query; a pattern must match all of it;
    - ``query`` (`str` or a mapping such as aiohttp's ``params``): the whole query, in any order;
    - ``status`` (`int`): the status of the response;
    - ``json``: a JSON value that the body of the request equals; 1 and 1.0 are equal, `True` and 1 are not;
    - ``json_contains`` (`dict`): members that the JSON object in the body of the request has. It may have others, and
      so may each object inside of it. An array has the same number of items, and each contains the expected one;
    - ``where``: a function that takes an `Exchange` and returns whether it matches. It is called last, for an exchange
      that matches the other criteria.

    An invalid criterion raises `TypeError` or `ValueError`. ``json`` and ``json_contains`` need
    ``record(bodies=True)``: an exchange that matches the other criteria except ``where``, and whose body was not
    recorded, or was cut, raises `RuntimeError`. A body that is compressed by gzip or deflate is decoded first.
    """

    __module__ = "asgi_connector"

    def __init__(self, exchanges: Iterable[Exchange] = (), *, waiters: Waiters | None = None) -> None:
        self._exchanges = list(exchanges)
        self._waiters = Waiters() if waiters is None else waiters  # for the end of an exchange

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
        """Return one line for each exchange. Calls made during an exchange are below it, indented."""
        lines = [f"{'  ' * depth}{exchange} in {exchange.duration * 1000:.0f} ms" for depth, exchange in in_tree(self)]
        return "\n".join(lines) or "(no calls)"

    def select(self, host: str | None = None, **criteria: Unpack[Criteria]) -> "Journal":
        """Return the exchanges that match now."""
        return self._select(Selector(host, **criteria))

    def assert_called(
        self, host: str | None = None, *, times: int | None = None, **criteria: Unpack[Criteria]
    ) -> "Journal":
        """Assert that exactly *times* calls match (with `None`, the default, at least one). Returns these calls.

        Raises `AssertionError`. It shows the recorded calls, the most similar first, and how each differs.
        """
        __tracebackhide__ = True  # pytest shows the line of the caller
        _check_times(times)
        selector = Selector(host, **criteria)
        found = self._select(selector)
        if len(found) == times or (times is None and found):
            return found
        expected = "a call" if times is None else count(times, "call")
        text = _expected(f"Expected {expected} of {selector}", found)
        raise AssertionError(explain(text, selector, self, found, diff=len(found) < (1 if times is None else times)))

    def assert_not_called(self, host: str | None = None, **criteria: Unpack[Criteria]) -> "Journal":
        """Assert that no call matches, not even a failed one. Returns the empty journal.

        Raises `AssertionError`. It shows the calls that match, and how the others differ.
        """
        __tracebackhide__ = True  # pytest shows the line of the caller
        selector = Selector(host, **criteria)
        found = self._select(selector)
        if found:
            text = _expected(f"Expected no call of {selector}", found)
            raise AssertionError(explain(text, selector, self, found))
        return found

    async def wait_for(
        self,
        host: str | None = None,
        *,
        times: int | None = None,
        timeout: float | None = 1.0,
        **criteria: Unpack[Criteria],
    ) -> "Journal":
        """Wait until *times* calls that match (with `None`, the default, one) have ended, in any state. Returns them.

        Raises `AssertionError` after *timeout* seconds (1 by default, `None` for no limit). It shows the recorded
        calls, the most similar first, and how each differs.
        """
        __tracebackhide__ = True  # pytest shows the line of the caller
        _check_times(times)
        if timeout is not None:
            check_number("timeout", timeout, unlimited=True)
        selector = Selector(host, **criteria)
        needed = 1 if times is None else times
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                await self._wait_for_ended(selector, needed)
        except TimeoutError:
            if not limit.expired():
                raise
            found = self._select(selector)
            text = _expected(f"Waited {timeout} s for {count(needed, 'call')} of {selector} to end", found)
            raise AssertionError(explain(text, selector, self, found, diff=len(found) < needed)) from None
        return self._select_ended(selector)

    async def _wait_for_ended(self, selector: Selector, needed: int) -> None:
        """Return when *needed* exchanges that match have ended. An exchange is not checked again after its end."""
        matched = seen = 0
        running: list[Exchange] = []
        while True:
            checked = [*running, *self._exchanges[seen:]]
            seen = len(self._exchanges)
            matched += sum(selector.matches(each) for each in checked if each.ended)
            running = [each for each in checked if not each.ended]
            if matched >= needed:
                return
            await self._waiters.wait()

    def to_mermaid(self) -> str:
        """Return a Mermaid sequence diagram of the calls: who called whom, in order, and with which result.

        The diagram has no times, so that the same run gives the same text.
        """
        from asgi_connector._export.mermaid import sequence_diagram

        return sequence_diagram(self)

    def to_har(self, *, sensitive: bool = False) -> dict[str, Any]:
        """Return the exchanges as an HTTP Archive (HAR 1.2), which the developer tools of browsers can read.

        Cookies, and values whose names say that they are secret, are redacted in headers, URLs and the fields of forms.
        With *sensitive* (`False` by default) they are included. Other bodies and messages are not redacted. Bodies are
        decoded from gzip and deflate.
        """
        from asgi_connector._export.har import archive

        return archive(self, sensitive=sensitive)

    def save_har(self, path: str | PathLike[str], *, sensitive: bool = False) -> None:
        """Write `to_har()` to a file, as JSON.

        An existing file is replaced only when the new one is complete. If writing fails, it is unchanged. With
        *sensitive*, only the owner of the file may read it.
        """
        from asgi_connector._export.har import save

        save(self, path, sensitive=sensitive)

    def to_svg(self) -> str:
        """Return a sequence diagram as SVG, for documentation and commits. It can be read in light and in dark.

        The diagram has no times, so that the same run gives the same text, unless the text of an exception differs.
        """
        from asgi_connector._page.svg import standalone

        return standalone(self)

    def save_html(self, path: str | PathLike[str], *, sensitive: bool = False) -> None:
        """Write a page to look at: a sequence diagram, a timeline, a table, and everything that was recorded.

        The page is one file, which fetches nothing. It shows at most 1,000 exchanges, those that failed before the
        others. Secrets are redacted as in `to_har()`, unless *sensitive* is set (`False` by default). The file is
        replaced as by `save_har()`.
        """
        from asgi_connector._page.page import save

        save(self, path, sensitive=sensitive)

    def _repr_html_(self) -> str:
        """Return the diagram and a small table; called by notebooks."""
        from asgi_connector._page.notebook import summary

        return summary(self)

    def add(self, exchange: Exchange) -> None:
        """Add an exchange; called by an open recording."""
        self._exchanges.append(exchange)

    def leave_out(self, explored: Set[Exchange]) -> None:
        """Called with the calls of an exploration, which has a report of its own. Journals of users keep them."""

    def _select(self, selector: Selector) -> "Journal":
        return Journal(filter(selector.matches, self), waiters=self._waiters)

    def _select_ended(self, selector: Selector) -> "Journal":
        return Journal((each for each in self if each.ended and selector.matches(each)), waiters=self._waiters)


class RecentJournal(Journal):
    """A journal of only the latest exchanges, so that it may stay open for a long time."""

    @override
    def add(self, exchange: Exchange) -> None:
        exchanges = self._exchanges
        exchanges.append(exchange)
        if len(exchanges) == 2 * _RECENT:
            del exchanges[:_RECENT]


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
