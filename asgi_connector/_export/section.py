"""The calls of a failed test as text: what was refused, who called whom, where it failed, and what was not used.

Pure functions. The text is for a terminal, so it has no bodies, a limited length, and lines that stand out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, cast

from asgi_connector._display import printable, text_of
from asgi_connector._exchange.exchange import Exchange, summary
from asgi_connector._exchange.redaction import redact_url
from asgi_connector._exchange.tree import in_tree
from asgi_connector._notices import Notice
from asgi_connector._places import where_it_was_raised

MAX_LINES: Final = 200
_MAX_CALL_LINES: Final = 140  # of one connector
_MAX_WIDTH: Final = 400  # characters of a line
_MAX_ERROR: Final = 320  # characters of the text of an exception; that of a stub says at its end what differs
_MAX_LISTED: Final = 20  # refused calls, or things that were not used
_MAX_RELATED: Final = 5  # exceptions that are described together: one, its causes, and those in its group
_MOUNTS_SHOWN: Final = 5
_MAX_DEPTH: Final = 40  # calls inside of each other that are indented further: a service may call itself for ever
_INDENT: Final = "  "
_GOOD_CLOSE_CODES: Final = (None, 1000, 1001)  # RFC 6455, 7.4.1


@dataclass(frozen=True, slots=True)
class Account:
    """What one connector has to tell about a test.

    Attributes:
        mounts: the patterns that are mounted.
        exchanges: the calls, in the order in which they started.
        dropped: the number of earlier calls that are not among them.
        waiting: the calls whose apps have not returned, each with the place at which its app waits or waited.
        notices: what else happened.
        unused: what was prepared and not used, as sentences.
    """

    mounts: Sequence[str]
    exchanges: Sequence[Exchange]
    dropped: int
    waiting: Mapping[object, str]
    notices: Sequence[Notice]
    unused: Sequence[str]


def describe(accounts: Sequence[Account]) -> str:
    """Return the text. With several *accounts*, each has a heading."""
    lines: list[str] = []
    for account in accounts:
        if len(accounts) > 1:
            lines.append(f"Connector of {_mounts(account)}:")
        lines += _Describer(account).lines()
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f"({len(lines) - MAX_LINES} more lines)"]
    return "\n".join(map(_cut, lines))


def _mounts(account: Account) -> str:
    names = [repr(pattern) for pattern in account.mounts[:_MOUNTS_SHOWN]]
    more = len(account.mounts) - len(names)
    names += [f"{more} more"] if more else []
    return ", ".join(names) or "nothing"


def _cut(line: str) -> str:
    return line if len(line) <= _MAX_WIDTH else f"{line[:_MAX_WIDTH]}…"


class _Describer:
    """Writes the lines of one account. It shows each exception in detail once."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._described: set[int] = set()  # the exceptions, by their identity
        # A call with the same exception as one that it made: it is described there.
        self._passed_on = {(each.parent, id(each.error)) for each in account.exchanges if each.error is not None}

    def lines(self) -> list[str]:
        account = self._account
        refused = sorted((each for each in account.exchanges if each.via == "refused"), key=_is_of_the_test)
        calls = self._calls() or [f"{_INDENT}There was no call. Mounted: {_mounts(account)}."]
        notices = [notice for notice in account.notices if id(notice.error) not in self._described]
        return [
            *_titled("Refused, because no app is mounted:", _limited(_counted(map(self._refused, refused)))),
            *_titled("Calls:", calls),
            *_titled("Also:", _limited([self._notice(notice) for notice in notices])),
            *_titled("Not used:", _limited([_paragraph(text) for text in account.unused])),
        ]

    def _refused(self, exchange: Exchange) -> list[str]:
        caller = "the test" if exchange.caller is None else exchange.caller
        lines = [f"{_INDENT}{caller} -> {_target(exchange)}"]
        if exchange.error is not None:
            self._described.add(id(exchange.error))
            lines.append(f"{_INDENT * 2}{printable(text_of(exchange.error))}")
            place = where_it_was_raised(exchange.error)
            lines += [] if place is None else [f"{_INDENT * 2}called {printable(place)}"]
        return lines

    def _notice(self, notice: Notice) -> list[str]:
        if notice.error is None:
            return _paragraph(notice.text)
        return [*_paragraph(notice.text), *self._reasons(notice.error, _INDENT * 2, named=True)]

    # The tree of calls.

    def _calls(self) -> list[str]:
        tree = [(depth, exchange, self._call(depth, exchange)) for depth, exchange in in_tree(self._account.exchanges)]
        lines = [f"{_INDENT}({self._account.dropped} earlier calls are not shown)"] if self._account.dropped else []
        skipped = 0
        kept = _most_telling(tree)
        for number, (_, _, of_call) in enumerate(tree):
            if number in kept:
                lines += [f"{_INDENT}({skipped} more calls)"] if skipped else []
                lines += of_call
                skipped = 0
            else:
                skipped += 1
        return [*lines, f"{_INDENT}({skipped} more calls)"] if skipped else lines

    def _call(self, depth: int, exchange: Exchange) -> list[str]:
        depth = min(depth, _MAX_DEPTH)
        mark = "! " if _stands_out(exchange) else _INDENT
        indent = mark + _INDENT * depth
        here = exchange.via != "refused" and (exchange, id(exchange.error)) not in self._passed_on
        caller = "" if exchange.caller is None else f"{printable(exchange.caller)} -> "
        lines = [f"{indent}{caller}{_target(exchange)}: {_outcome(exchange, in_full=here)} {_duration(exchange)}"]
        below = _INDENT * (depth + 3)
        if exchange in self._account.waiting:
            lines.append(f"{below}its app {printable(self._account.waiting[exchange])}")
        if here and exchange.error is not None:
            lines += self._reasons(exchange.error, below)
        return lines

    def _reasons(self, error: BaseException, indent: str, *, named: bool = False) -> Iterator[str]:
        """Yield where *error* was raised, and the same of its causes and of the exceptions of its group."""
        if id(error) in self._described:
            return
        for how, related in islice(_related(error), _MAX_RELATED):
            self._described.add(id(related))
            place = where_it_was_raised(related)
            parts = [f"{how}{printable(summary(related, _MAX_ERROR))}"] if how or named else []
            parts += [] if place is None else [f"raised {printable(place)}"]
            if parts:
                yield indent + ", ".join(parts)


def _is_of_the_test(exchange: Exchange) -> bool:
    return exchange.caller is None


def _related(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    """Yield *error*, its causes, and what is in its group, each with what it is to the one before."""
    queue: list[tuple[str, BaseException]] = [("", error)]
    seen: set[int] = set()
    while queue:
        how, each = queue.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield how, each
        if isinstance(each, BaseExceptionGroup):
            group = cast(BaseExceptionGroup[BaseException], each)
            queue += [("in the group: ", inner) for inner in group.exceptions]
        if each.__cause__ is not None:
            queue.append(("caused by ", each.__cause__))


def _target(exchange: Exchange) -> str:
    return printable(f"{exchange.method} {redact_url(str(exchange.url))}")


def _outcome(exchange: Exchange, *, in_full: bool) -> str:
    """The result of a call, with the text of its exception if that is *in_full*."""
    if exchange.via == "refused":
        return "refused"
    if exchange.error is None:
        return exchange.outcome
    return exchange.outcome_with(summary(exchange.error, _MAX_ERROR) if in_full else type(exchange.error).__name__)


def _stands_out(exchange: Exchange) -> bool:
    """Whether a reader who looks for a failure wants to see the call."""
    return (
        exchange.state != "done"
        or exchange.error is not None
        or exchange.fault is not None
        or (exchange.status is not None and exchange.status >= 400)
        or exchange.close_code not in _GOOD_CLOSE_CODES
    )


def _duration(exchange: Exchange) -> str:
    seconds = exchange.duration
    shown = f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    return f"for {shown} so far" if exchange.state == "running" else f"in {shown}"


def _most_telling(tree: Sequence[tuple[int, Exchange, list[str]]]) -> set[int]:
    """Return the positions of the calls to show: those that stand out with their callers, then the latest.

    Of the last one that fits only in part, the nearest callers are shown.
    """
    kept: set[int] = set()
    positions = {exchange: number for number, (_, exchange, _) in enumerate(tree)}
    room = _MAX_CALL_LINES
    standing_out = [exchange for _, exchange, _ in tree if _stands_out(exchange)]
    for exchange in [*standing_out, *(exchange for _, exchange, _ in reversed(tree))]:
        needed: list[int] = []
        caller: Exchange | None = exchange
        while caller is not None and caller in positions and positions[caller] not in kept:
            needed.append(positions[caller])
            caller = caller.parent
        for number in needed:
            room -= len(tree[number][2])
            if room < 0:
                return kept
            kept.add(number)
    return kept


def _limited(paragraphs: Sequence[list[str]]) -> list[str]:
    lines = [line for paragraph in paragraphs[:_MAX_LISTED] for line in paragraph]
    more = len(paragraphs) - _MAX_LISTED
    return [*lines, f"{_INDENT}({more} more)"] if more > 0 else lines


def _counted(paragraphs: Iterable[list[str]]) -> list[list[str]]:
    """Return each paragraph once, with how often there is the same one."""
    counts = Counter(map(tuple, paragraphs))
    return [
        list(paragraph) if times == 1 else [*paragraph, f"{_INDENT * 2}({times} times)"]
        for paragraph, times in counts.items()
    ]


def _titled(title: str, lines: Sequence[str]) -> list[str]:
    return [title, *lines] if lines else []


def _paragraph(text: str) -> list[str]:
    first, *others = text.splitlines()
    return [f"{_INDENT}{printable(first)}", *(f"{_INDENT * 2}{printable(line)}" for line in others)]
