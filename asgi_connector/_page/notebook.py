"""What a notebook shows of a journal: the diagram as an image, and a small table. No script, no style of the page."""

import base64
from collections.abc import Iterable
from typing import Final

from asgi_connector._exchange.exchange import Exchange

from .markup import count, escape, milliseconds
from .selection import Entry, select
from .svg import standalone
from .table import state_of

_MOST: Final = 50  # exchanges


def summary(exchanges: Iterable[Exchange]) -> str:
    """Return HTML without secrets. The diagram is an image, so that its style does not reach the notebook."""
    selection = select(exchanges, _MOST)
    entries = selection.entries
    if not entries:
        return "<p>There was no call.</p>"
    picture = base64.b64encode(standalone(entry.exchange for entry in entries).encode()).decode("ascii")
    image = f'<img src="data:image/svg+xml;base64,{picture}" alt="Sequence diagram of {count(len(entries), "call")}">'
    heads = "".join(f"<th>{each}</th>" for each in ("#", "From → to", "Request", "Result", "Time"))
    rows = "\n".join(map(_row, entries))
    more = f"<p>{count(selection.left_out, 'more call')} not shown.</p>" if selection.left_out else ""
    return f"{image}\n<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n{more}"


def _row(entry: Entry) -> str:
    exchange = entry.exchange
    result = state_of(entry) if exchange.status is None else f"{exchange.status} {state_of(entry)}"
    texts = [
        str(entry.number),
        f"{entry.caller} → {entry.callee}",
        f"{exchange.method} {entry.path}",
        result,
        milliseconds(exchange.duration),
    ]
    return f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in texts)}</tr>"
