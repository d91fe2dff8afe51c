"""The table of exchanges, and the filters for it."""

from collections.abc import Iterable, Sequence
from typing import Final

from .markup import count, escape, grouped, milliseconds
from .results import is_failure
from .selection import Entry

_STATUSES: Final = {"1": "1xx", "2": "2xx", "3": "3xx", "4": "4xx", "5": "5xx and more", "": "no status"}
_TITLES: Final = ("#", "From → to", "Method", "Path", "Status", "State", "Time")


def filters(entries: Sequence[Entry]) -> str:
    """Return the fields by which the script filters the table and the timeline. They are hidden without it."""
    found = {_status_class(entry) for entry in entries}
    statuses = [(key, text) for key, text in _STATUSES.items() if key in found]
    return (
        '<div class="filters" role="search" aria-label="Filter the exchanges" hidden>\n'
        f"{_choice('service', 'Service', _names(entry.callee for entry in entries))}\n"
        f"{_choice('caller', 'Caller', _names(entry.caller for entry in entries))}\n"
        '<label>Path <input type="search" name="path" placeholder="part of it" autocomplete="off" spellcheck="false">'
        "</label>\n"
        f"{_choice('status', 'Status', statuses)}\n"
        '<label class="check"><input type="checkbox" name="failed"> Failed only</label>\n'
        f'<output aria-live="polite">{count(len(entries), "exchange")}</output>\n</div>'
    )


def table(entries: Sequence[Entry]) -> str:
    """Return the table; a sentence if there is no exchange."""
    if not entries:
        return '<p class="quiet">There was no call.</p>'
    head = "".join(f'<th role="columnheader" scope="col">{title}</th>' for title in _TITLES)
    groups = "\n".join(f'<tbody role="rowgroup">\n{rows}\n</tbody>' for rows in grouped(map(_row, entries)))
    return f'<table role="table">\n<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n{groups}\n</table>'


def badge(entry: Entry) -> str:
    """Return the status, or a dash, marked by the kind of the result."""
    status = entry.exchange.status
    text = "\N{EN DASH}" if status is None else str(status)
    return f'<span class="badge {entry.result.value}">{text}</span>'


def state_of(entry: Entry) -> str:
    """Return how an exchange ended, in words."""
    exchange = entry.exchange
    words: list[str] = ["refused" if exchange.via == "refused" else exchange.state]
    if exchange.close_code is not None:
        words.append(f"closed {exchange.close_code}")
    if exchange.error is not None:
        words.append(type(exchange.error).__name__)
    if exchange.fault is not None:
        words.append("fault")
    return ", ".join(words)


def _row(entry: Entry) -> str:
    exchange = entry.exchange
    failed = " data-failed" if is_failure(exchange) else ""
    cells = [
        str(entry.number),
        f'{escape(entry.caller)} <span class="to">→</span> {escape(entry.callee)}',
        escape(exchange.method),
        f'<a href="#{entry.anchor}">{escape(entry.path)}</a>',
        badge(entry),
        escape(state_of(entry)),
        milliseconds(exchange.duration),
    ]
    row = "".join(f'<td role="cell">{cell}</td>' for cell in cells)
    return (
        f'<tr role="row" class="{entry.result.value}" data-service="{escape(entry.callee)}" '
        f'data-caller="{escape(entry.caller)}" data-status="{_status_class(entry)}"{failed}>'
        f"{row}</tr>"
    )


def _status_class(entry: Entry) -> str:
    status = entry.exchange.status
    return "" if status is None else str(min(status // 100, 5))


def _names(names: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, name) for name in sorted(set(names))]


def _choice(name: str, label: str, options: Sequence[tuple[str, str]]) -> str:
    found = "".join(f'<option value="={escape(value)}">{escape(text)}</option>' for value, text in options)
    return f'<label>{label} <select name="{name}"><option value="">any</option>{found}</select></label>'
