"""The sequence diagram as SVG, alone or inside of a page.

The light colours are attributes, so that the picture can be read where no style is applied. The style adds the dark
ones. No element has an id, so that several pictures can be on one page.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from asgi_connector._exchange.exchange import Exchange
from asgi_connector._export.diagram import OUTSIDE, Kind, callee_of

from .layout import (
    BAR_WIDTH,
    HEAD_HEIGHT,
    LOOP_HEIGHT,
    LOOP_WIDTH,
    MARGIN,
    NOTE_HEIGHT,
    Bar,
    Column,
    Layout,
    Note,
    Row,
    label_of,
    layout_of,
)
from .markup import count, cut, escape, shortened
from .results import Result, result_of
from .templates import template

Link: TypeAlias = Callable[[Exchange], str]
"""Returns the address of an exchange on the page."""

_FONT: Final = 'font-family="system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif" font-size="12"'
_COLOURS: Final = {
    "call": "#24292f",
    Result.GOOD.value: "#57606a",
    Result.DENIED.value: "#8a5a00",
    Result.FAILED.value: "#b42318",
    Result.ABANDONED.value: "#8a5a00",
    Result.RUNNING.value: "#3450c4",
    "fault": "#8a5a00",
}
_THICK: Final = 'stroke-width="1.6"'
_ROWS_OF_BLOCK: Final = 100
_LONGEST_TITLE: Final = 300  # characters
_BESIDE_LABEL: Final = 9
_ABOVE_ARROW: Final = 6


@dataclass(frozen=True, slots=True)
class Drawing:
    """The parts of a diagram, one below the other: the boxes of the participants, and blocks of rows.

    A browser lays out only the blocks that are in view.
    """

    head: str
    blocks: list[str]


def standalone(exchanges: Iterable[Exchange]) -> str:
    """Return the diagram as a file of its own, which ends with a line break."""
    exchanges = list(exchanges)
    layout = layout_of(exchanges)
    height = HEAD_HEIGHT + layout.height
    title = _title_of(exchanges)
    return "\n".join(
        [
            _opening(title, layout.width, 0, height, role="img"),
            f"<title>{title}</title>",
            f"<style>{template('diagram.css')}</style>",
            f'<rect class="paper" fill="#ffffff" width="{layout.width}" height="{height}" rx="6"/>',
            *map(_box, layout.columns),
            f'<g transform="translate(0 {HEAD_HEIGHT})">',
            *_lines(layout, 0, layout.height),
            *(_row(row, None) for row in layout.rows),
            "</g>",
            "</svg>\n",
        ]
    )


def drawing(exchanges: Iterable[Exchange], link: Link) -> Drawing:
    """Return the diagram for a page, whose style has ``diagram.css``. Each call is a link."""
    exchanges = list(exchanges)
    layout = layout_of(exchanges)
    head = [_opening("Participants", layout.width, 0, HEAD_HEIGHT, role="img"), *map(_box, layout.columns), "</svg>"]
    starts = range(0, len(layout.rows), _ROWS_OF_BLOCK)
    tops = [layout.rows[start].top if start else 0 for start in starts]
    title = _title_of(exchanges)
    blocks: list[str] = []
    for start, top, bottom in zip(starts, tops, [*tops[1:], layout.height], strict=True):
        block = [_opening(title, layout.width, top, bottom - top, role="group"), *_lines(layout, top, bottom)]
        block += [_row(row, link) for row in layout.rows[start : start + _ROWS_OF_BLOCK]]
        blocks.append("\n".join([*block, "</svg>"]))
        title = "Continued"
    return Drawing("\n".join(head), blocks)


def _title_of(exchanges: list[Exchange]) -> str:
    return f"Sequence diagram of {count(len(exchanges), 'call')}"


def _opening(title: str, width: int, top: int, height: int, *, role: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="asgi-sequence" width="{width}" height="{height}" '
        f'viewBox="0 {top} {width} {height}" role="{role}" aria-label="{title}" fill="currentColor" {_FONT}>'
    )


def _box(column: Column) -> str:
    dashes = "" if column.note == "service" else ' stroke-dasharray="4 3"'
    left, y = column.x - column.width // 2, 24 if column.note else 31
    place = f'x="{left}" y="8" width="{column.width}" height="38" rx="5"'
    name = f'<text x="{column.x}" y="{y}" text-anchor="middle" font-weight="600">{escape(column.name)}</text>'
    kind = f'<text class="kind" x="{column.x}" y="39" text-anchor="middle" font-size="10" fill="#57606a">'
    return (
        f'<g class="box" color="#24292f"><rect {place} fill="#f2f4f8" stroke="#8a94a6"{dashes}/>{name}'
        f"{f'{kind}{column.note}</text>' if column.note else ''}</g>"
    )


def _lines(layout: Layout, top: int, bottom: int) -> list[str]:
    """The lifelines, and the bars that are at least in part between *top* and *bottom*."""
    end = layout.height - MARGIN // 2
    lifelines = [f'<path d="M {column.x} -8 V {end}" stroke-dasharray="3 4"/>' for column in layout.columns]
    bars = [_bar(bar, end) for bar in layout.bars if bar.top < bottom and (bar.bottom is None or bar.bottom > top)]
    return [
        f'<g class="lifelines" stroke="#b8c0cc">{"".join(lifelines)}</g>',
        f'<g class="bars" fill="#e4e9f5" stroke="#7585ad">{"".join(bars)}</g>',
    ]


def _bar(bar: Bar, end: int) -> str:
    """A bar, which is open at the bottom if the call is still running at the *end* of the diagram."""
    if bar.bottom is None:
        return f'<path d="M {bar.x} {end} V {bar.top} h {BAR_WIDTH} V {end}"/>'
    return f'<path d="M {bar.x} {bar.bottom} V {bar.top} h {BAR_WIDTH} V {bar.bottom} z"/>'


def _row(row: Row, link: Link | None) -> str:
    kind, exchange = row.event.kind, row.event.exchange
    tone = result_of(exchange).value if kind in (Kind.END, Kind.RUNNING) else "call"
    parts = [f"<title>{escape(_title(row))}</title>"]
    if kind is not Kind.RUNNING:
        parts.append(_arrow(row))
    parts.append(_text(row, row.start, row.y - _ABOVE_ARROW, row.rightwards, label_of(row.event, row.notes)))
    parts += [_note(row, note, place) for place, note in enumerate(row.notes, 1)]
    group = f'<g class="{tone}" color="{_COLOURS[tone]}">{"".join(parts)}</g>'
    if link is None:
        return group
    # One stop for the Tab key is enough for each exchange.
    stop = "" if kind is Kind.CALL else ' tabindex="-1"'
    return f'<a href="{escape(link(exchange))}"{stop}>{_touch_area(row)}{group}</a>'


def _title(row: Row) -> str:
    exchange = row.event.exchange
    caller = OUTSIDE if exchange.caller is None else exchange.caller
    texts = [f"{caller} → {callee_of(exchange)}", row.event.label, *(note.shown for note in row.notes)]
    return cut(", ".join(texts), _LONGEST_TITLE)


def _touch_area(row: Row) -> str:
    left, right = sorted((row.start, row.end))
    height = 26 + NOTE_HEIGHT * len(row.notes)
    return f'<rect class="area" x="{left}" y="{row.y - 19}" width="{right - left + 1}" height="{height}" fill="none"/>'


def _arrow(row: Row) -> str:
    end = row.event.kind is Kind.END
    dashes = ' stroke-dasharray="5 3"' if end else ""
    y, direction = row.y, 1 if row.start < row.end else -1
    if row.is_loop:
        line, y, direction = f"M {row.start} {y} h {LOOP_WIDTH} v {LOOP_HEIGHT} H {row.end}", y + LOOP_HEIGHT, -1
    else:
        line = f"M {row.start} {y} H {row.end}"
    lost = end and row.event.exchange.state != "done"
    head = _cross(row.end - 7 * direction, y) if lost else _arrowhead(row, y, direction)
    return f'<path d="{line}" fill="none" stroke="currentColor" stroke-width="1.3"{dashes}/>{head}'


def _arrowhead(row: Row, y: int, direction: int) -> str:
    x, back = row.end, -8 * direction
    if row.event.kind is Kind.CALL:
        return f'<path d="M {x} {y} l {back} -4 v 8 z"/>'
    return f'<path d="M {x + back} {y - 4} L {x} {y} l {back} 4" fill="none" stroke="currentColor" stroke-width="1.3"/>'


def _cross(x: int, y: int) -> str:
    return f'<path d="M {x - 5} {y - 5} l 10 10 m 0 -10 l -10 10" stroke="currentColor" stroke-width="2"/>'


def _text(row: Row, x: int, y: int, rightwards: bool, text: str) -> str:
    x += _BESIDE_LABEL if rightwards else -_BESIDE_LABEL
    if row.is_loop:
        x += LOOP_WIDTH
    anchor = "" if rightwards else ' text-anchor="end"'
    return f'<text x="{x}" y="{y}"{anchor}>{escape(shortened(text, row.room))}</text>'


def _note(row: Row, note: Note, place: int) -> str:
    """A line below the arrow, with its mark on the lifeline at which it happened."""
    x, rightwards = (row.start, row.rightwards) if note.at_callee else (row.end, not row.rightwards or row.is_loop)
    y = row.y + NOTE_HEIGHT * place + (LOOP_HEIGHT if row.is_loop else 0)
    text = _text(row, x + (8 if rightwards else -8), y, rightwards, note.shown)
    if note.is_fault:
        flash = f'<path d="M {x + 1} {y - 12} l -6 8 h 4 l -2 6 l 7 -9 h -4 l 3 -5 z"/>'
        return f'<g class="fault" color="{_COLOURS["fault"]}">{flash}{text}</g>'
    burst = f'<circle cx="{x}" cy="{y - 4}" r="6"/><path d="M {x} {y - 8} v 5 m 0 2 v 1.5" stroke="#ffffff" {_THICK}/>'
    return f'<g class="failed raised" color="{_COLOURS[Result.FAILED.value]}">{burst}{text}</g>'
