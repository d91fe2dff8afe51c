"""Where the parts of a sequence diagram stand: columns of participants, rows of arrows, bars of calls.

All numbers are pixels. They depend on the order of the events, and not on their times.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from asgi_connector._display import printable
from asgi_connector._exchange.exchange import Exchange, summary
from asgi_connector._export.diagram import (
    OUTSIDE,
    Diagram,
    Event,
    Kind,
    callee_of,
    diagram_of,
    outcome_of,
    where_raised,
)
from asgi_connector._export.readable import clean

from .markup import shortened, width_of

MARGIN: Final = 16
HEAD_HEIGHT: Final = 54
BAR_WIDTH: Final = 9
NOTE_HEIGHT: Final = 18
LOOP_WIDTH: Final = 26  # of an arrow from a participant to itself
LOOP_HEIGHT: Final = 12

_LABEL_HEIGHT: Final = 21  # from the top of a row to its arrow
_ROW_HEIGHT: Final = 30
_BOX_PADDING: Final = 14
_NARROWEST_BOX: Final = 88
_WIDEST_NAME: Final = 220
_NARROWEST_GAP: Final = 128  # between the lifelines of two neighbours
_WIDEST_TEXT: Final = 340
_AROUND_TEXT: Final = 40
_LEVEL: Final = 5  # how far the bar of a call is to the right of one that it overlaps
_LEVELS: Final = 6
_MESSAGES_DRAWN: Final = 100  # of one WebSocket
_ADDRESS: Final = re.compile(r"\bat 0x[0-9A-Fa-f]+")  # of an object, which differs in each run


@dataclass(frozen=True, slots=True)
class Column:
    """A participant: the place of its lifeline, and the text of its box."""

    x: int
    width: int
    name: str
    note: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line of text below an arrow: a fault, or an exception where it was raised."""

    is_fault: bool
    at_callee: bool
    text: str

    @property
    def shown(self) -> str:
        return f"fault: {self.text}" if self.is_fault else self.text


@dataclass(slots=True)
class Bar:
    """The time during which an app works on a call, on the lifeline of the app. It has no bottom while that goes on."""

    column: int
    level: int
    x: int
    top: int
    bottom: int | None = None

    def edge(self, *, right: bool) -> int:
        return self.x + BAR_WIDTH if right else self.x


@dataclass(frozen=True, slots=True)
class Row:
    """An event with its arrow, from *start* to *end* at the height *y*, and the notes below it."""

    event: Event
    start: int
    end: int
    y: int
    notes: list[Note]

    @property
    def top(self) -> int:
        return self.y - _LABEL_HEIGHT

    @property
    def is_loop(self) -> bool:
        return self.event.source == self.event.target

    @property
    def rightwards(self) -> bool:
        """Whether the texts go to the right of the event's source."""
        return self.is_loop or self.start < self.end

    @property
    def room(self) -> int:
        """The width of a text."""
        span = _WIDEST_TEXT if self.is_loop else abs(self.end - self.start) - _AROUND_TEXT // 2
        return max(span, _NARROWEST_GAP - _AROUND_TEXT // 2)


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole diagram. The height is that below the boxes of the participants."""

    columns: list[Column]
    bars: list[Bar]
    rows: list[Row]
    width: int
    height: int


def layout_of(exchanges: Iterable[Exchange]) -> Layout:
    """Return the layout of the sequence diagram of *exchanges*."""
    exchanges = list(exchanges)
    diagram = diagram_of(exchanges, messages=_MESSAGES_DRAWN, running=True)
    notes = _notes(exchanges)
    columns = _columns(diagram, exchanges, notes)
    rows = _Rows(columns, notes)
    for event in diagram.events:
        rows.add(event)
    right = max([column.x + column.width // 2 for column in columns], default=MARGIN)
    right = max([right, *map(_right_of, rows.rows)])
    return Layout(columns, rows.bars, rows.rows, right + MARGIN, rows.y + MARGIN)


def label_of(event: Event, notes: list[Note]) -> str:
    """The text above an arrow. An exception that a note names is not in it."""
    exchange = event.exchange
    if event.kind is not Kind.END:
        return event.label
    if exchange.via == "refused":
        return "refused: not mounted"
    return outcome_of(exchange, with_error=all(note.is_fault for note in notes))


def _notes(exchanges: list[Exchange]) -> dict[Exchange, list[Note]]:
    raised = where_raised(exchanges)
    notes: dict[Exchange, list[Note]] = {}
    for exchange in exchanges:
        found = notes[exchange] = []
        if exchange.fault is not None:
            found.append(Note(is_fault=True, at_callee=True, text=repr(exchange.fault)))
        if exchange in raised and exchange.error is not None:
            text = _ADDRESS.sub("at 0x…", printable(clean(summary(exchange.error))))
            found.append(Note(is_fault=False, at_callee=raised[exchange], text=text))
    return notes


def _columns(diagram: Diagram, exchanges: list[Exchange], notes: dict[Exchange, list[Note]]) -> list[Column]:
    kinds = _kinds(exchanges)
    names = [OUTSIDE if each is None else each for each in diagram.participants]
    names = [shortened(printable(clean(name)), _WIDEST_NAME) for name in names]
    widths = [max(width_of(name) + 2 * _BOX_PADDING, _NARROWEST_BOX) for name in names]
    gaps = [max(_NARROWEST_GAP, (one + other) // 2 + MARGIN) for one, other in pairwise(widths)]
    for event in diagram.events:
        left, right = sorted((event.source, event.target))
        if right - left == 1:
            below = notes[event.exchange] if event.kind is Kind.END else []
            texts = [label_of(event, below), *(note.shown for note in below)]
            gaps[left] = max(gaps[left], _AROUND_TEXT + min(_WIDEST_TEXT, max(map(width_of, texts))))
    columns: list[Column] = []
    x = MARGIN + widths[0] // 2 if widths else 0
    for name, participant, width, gap in zip(names, diagram.participants, widths, [*gaps, 0], strict=False):
        columns.append(Column(x, width, name, kinds[participant]))
        x += gap
    return columns


def _kinds(exchanges: list[Exchange]) -> dict[str | None, str]:
    """What each participant is: a word for its box. A host may be more than one; the first of these words is shown."""
    words = ("service", "network", "not mounted")
    kinds: dict[str | None, str] = {}
    for exchange in exchanges:
        kinds.setdefault(exchange.caller, "" if exchange.caller is None else words[0])
        word = {"fallback": words[1], "refused": words[2]}.get(exchange.via, words[0])
        callee = callee_of(exchange)
        kinds[callee] = min(kinds.get(callee, word), word, key=words.index)
    return kinds


class _Rows:
    """The rows so far, and the bars of the calls that are open."""

    def __init__(self, columns: list[Column], notes: dict[Exchange, list[Note]]) -> None:
        self.rows: list[Row] = []
        self.bars: list[Bar] = []
        self.y = 4
        self._columns = columns
        self._notes = notes
        self._open: dict[Exchange, Bar] = {}

    def add(self, event: Event) -> None:
        exchange = event.exchange
        y = self.y + _LABEL_HEIGHT
        if event.kind is Kind.CALL and exchange.via in ("app", "fallback"):
            self._begin_bar(event, y)
        notes = self._notes[exchange] if event.kind in (Kind.END, Kind.RUNNING) else []
        start, end = self._ends(event)
        row = Row(event, start, end, y, notes)
        self.rows.append(row)
        self.y += _ROW_HEIGHT + NOTE_HEIGHT * len(notes) + (LOOP_HEIGHT if row.is_loop else 0)
        if event.kind is Kind.END and (bar := self._open.pop(exchange, None)) is not None:
            bar.bottom = y + (LOOP_HEIGHT if row.is_loop else 0)

    def _begin_bar(self, event: Event, y: int) -> None:
        taken = {bar.level for bar in self._open.values() if bar.column == event.target}
        level = min(set(range(len(taken) + 1)) - taken)
        x = self._columns[event.target].x - BAR_WIDTH // 2 + _LEVEL * min(level, _LEVELS)
        bar = self._open[event.exchange] = Bar(event.target, level, x, y)
        self.bars.append(bar)

    def _ends(self, event: Event) -> tuple[int, int]:
        """Where the arrow starts and ends: at a bar if there is one, else at the lifeline."""
        if event.source == event.target:
            x = max(self._edge(event, event.source, right=True), self._columns[event.source].x)
            return x, x
        right = event.source < event.target
        return self._edge(event, event.source, right=right), self._edge(event, event.target, right=not right)

    def _edge(self, event: Event, column: int, *, right: bool) -> int:
        parent = event.exchange.parent
        bars = [self._open.get(each) for each in (event.exchange, parent) if each is not None]
        edges = [bar.edge(right=right) for bar in bars if bar is not None and bar.column == column]
        return edges[0] if edges else self._columns[column].x


def _right_of(row: Row) -> int:
    """How far a row reaches to the right."""
    if not row.is_loop:
        return max(row.start, row.end)
    texts = [label_of(row.event, row.notes), *(note.shown for note in row.notes)]
    return row.start + _AROUND_TEXT + min(row.room, max(map(width_of, texts)))
