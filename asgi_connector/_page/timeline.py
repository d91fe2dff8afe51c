"""The timeline: one lane for each exchange, with its parts, its messages and the pieces of its response."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from asgi_connector._exchange.exchange import Exchange

from .markup import count, escape, grouped, milliseconds
from .selection import Entry

_MARKS: Final = 200  # of one exchange
_DEEPEST: Final = 6  # levels that are indented
_TICKS: Final = 5


@dataclass(frozen=True, slots=True)
class _Scale:
    """The time of the whole page."""

    start: datetime
    seconds: float

    def place(self, seconds: float) -> str:
        """Return the place of a time, in per cent of the whole."""
        return f"{100 * min(max(seconds, 0.0) / self.seconds, 1.0):.3f}%" if self.seconds > 0 else "0%"

    def start_of(self, exchange: Exchange) -> float:
        return (exchange.started - self.start).total_seconds()


def timeline(entries: Sequence[Entry]) -> str:
    """Return the axis and the lanes, from the first start to the last end. What is still running ends now."""
    if not entries:
        return ""
    start = min(entry.exchange.started for entry in entries)
    scale = _Scale(start, 0.0)
    scale = _Scale(start, max(scale.start_of(entry.exchange) + entry.exchange.duration for entry in entries))
    ticks = "".join(f'<text x="{scale.place(each)}" y="13">{milliseconds(each)}</text>' for each in _ticks(scale))
    groups = grouped(_lane(entry, scale) for entry in entries)
    lanes = "\n".join(f'<ol class="lanes">\n{group}\n</ol>' for group in groups)
    return f'<div class="axis" aria-hidden="true"><svg width="100%" height="18">{ticks}</svg></div>\n{lanes}'


def _ticks(scale: _Scale) -> Iterator[float]:
    """Yield round times from 0 on, about five of them."""
    yield 0.0
    if scale.seconds > 0:
        least = scale.seconds / _TICKS
        unit: float = 10.0 ** math.floor(math.log10(least))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= least)
        yield from (step * number for number in range(1, _TICKS) if step * number < 0.95 * scale.seconds)


def _lane(entry: Entry, scale: _Scale) -> str:
    exchange = entry.exchange
    start = scale.start_of(exchange)
    drawn = [*_bars(exchange, start, scale), *_marks(exchange, start, scale)]
    name = f"<i>{entry.number}</i> <b>{escape(exchange.method)}</b> {escape(entry.path)}"
    return (
        f'<li class="{entry.result.value}"><a href="#{entry.anchor}" title="{escape(_title(entry))}">'
        f'<span class="what d{min(entry.depth, _DEEPEST)}">{name}</span>'
        f'<svg width="100%" height="16">{"".join(drawn)}</svg>'
        f'<span class="time">{milliseconds(exchange.duration)}</span></a></li>'
    )


def _title(entry: Entry) -> str:
    exchange = entry.exchange
    texts = [f"{entry.caller} → {entry.callee}"]
    texts += [f"{kind} until {milliseconds(end)}" for kind, end in _parts(exchange)]
    for noun, marks in (("message", exchange.messages), ("piece", exchange.pieces)):
        if marks:
            texts.append(count(len(marks), noun) + (f", the first {_MARKS} marked" if len(marks) > _MARKS else ""))
    return ", ".join(texts)


def _parts(exchange: Exchange) -> list[tuple[str, float]]:
    """The parts of an exchange, as far as they are known, each with its end in seconds."""
    duration = exchange.duration
    if exchange.connect_time is None:
        return [("waiting", duration)]
    waiting = ("waiting", min(exchange.connect_time, duration))
    if exchange.waited is None:
        return [waiting, ("request", duration)]
    return [waiting, ("request", min(exchange.waited, duration)), ("response", duration)]


def _bars(exchange: Exchange, start: float, scale: _Scale) -> Iterator[str]:
    done = 0.0
    for kind, end in _parts(exchange):
        x, width = scale.place(start + done), scale.place(end - done)
        yield f'<rect class="{kind}" x="{x}" y="3" width="{width}" height="10"/>'
        done = end


def _marks(exchange: Exchange, start: float, scale: _Scale) -> Iterator[str]:
    """Yield a line for each message, in the upper half for those of the client, and for each piece of a response."""
    for message in exchange.messages[:_MARKS]:
        seconds = (message.date - exchange.started).total_seconds()
        yield _mark(scale.place(start + seconds), 0 if message.from_client else 8)
    if len(exchange.pieces) > 1:
        for seconds in exchange.pieces[:_MARKS]:
            yield _mark(scale.place(start + seconds), 8)


def _mark(x: str, y: int) -> str:
    return f'<line class="mark" x1="{x}" x2="{x}" y1="{y}" y2="{y + 8}"/>'
