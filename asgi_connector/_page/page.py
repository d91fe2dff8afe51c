"""The page: one HTML file that fetches nothing, with a diagram, a timeline, a table and all details.

Everything is written here and escaped here. The script filters the table, moves the focus, and keeps the details as one
text until they are opened or printed: a browser opens the page in half the time. Without it everything can be read too.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from os import PathLike
from string import Template
from typing import Final

from asgi_connector._exchange.exchange import Exchange
from asgi_connector._export.diagram import where_raised
from asgi_connector._export.files import replace_file
from asgi_connector._export.readable import error_text

from .details import Details
from .frame import footer, framed
from .markup import count, cut, escape, milliseconds, preformatted
from .results import Result, is_failure, result_of
from .selection import Entry, Selection, select
from .svg import drawing
from .table import badge, filters, state_of, table
from .templates import template
from .timeline import timeline

_TITLE: Final = "Who called whom"
_MOST: Final = 1_000  # exchanges
_PROBLEMS: Final = 20
_TRACEBACKS: Final = 100  # each takes some milliseconds
_TOLD: Final = (Result.FAILED, Result.ABANDONED, Result.RUNNING)
_LONGEST_REASON: Final = 300  # characters
_TEXT_OF_ALL: Final = 2_000_000  # characters: about the size of the largest page
_TEXT_OF_ONE: Final = range(2_000, 16_000)  # characters of a body: never fewer, never more
_SECRETS: Final = {
    False: "Values whose names say that they are secret are redacted; other bodies and messages are not.",
    True: "This page shows secrets: it was made with sensitive=True.",
}


def save(exchanges: Iterable[Exchange], path: str | PathLike[str], *, sensitive: bool) -> None:
    text = page(exchanges, title=_TITLE, sensitive=sensitive)
    replace_file(path, text.encode(), private=sensitive)


def page(exchanges: Iterable[Exchange], *, title: str, note: str = "", sensitive: bool) -> str:
    """Return the page. *title* is its heading, and *note* a preformatted text above the diagram."""
    exchanges = list(exchanges)
    selection = select(exchanges, _MOST)
    entries = selection.entries
    origins = _origins(entries)
    style = f"{template('diagram.css')}\n{template('page.css')}"
    body = Template(template("page.html")).substitute(
        title=escape(title),
        summary=_summary(exchanges),
        left_out=_left_out(selection),
        secrets_class="warning" if sensitive else "quiet",
        secrets=_SECRETS[sensitive],
        note=preformatted(note, "note") if note else "",
        problems=_problems(entries, origins, sensitive),
        diagram=_diagram(entries),
        timeline=timeline(entries),
        filters=filters(entries),
        table=table(entries),
        footer=footer(),
    )
    details = _details(entries, origins, sensitive)
    text = framed(title, body, style=style, script=template("page.js"), after_script=details)
    return text.replace("→", "&rarr;").replace("\N{EN DASH}", "&ndash;")  # browsers read ASCII in less time


def _origins(entries: Sequence[Entry]) -> dict[int, Entry]:
    """The exchange in which each exception was raised, by the identity of the exception."""
    raised = where_raised(entry.exchange for entry in entries)
    return {id(entry.exchange.error): entry for entry in entries if entry.exchange in raised}


def _summary(exchanges: Sequence[Exchange]) -> str:
    """Return the number of calls, of services, and of results, in one sentence."""
    if not exchanges:
        return "There was no call."
    services = len({exchange.service for exchange in exchanges if exchange.service is not None})
    results = Counter(map(result_of, exchanges))
    words = [f"{results[each]:,} {each.value}" for each in _TOLD if results[each]]
    start = min(exchange.started for exchange in exchanges)
    seconds = max((exchange.started - start).total_seconds() + exchange.duration for exchange in exchanges)
    text = f"{count(len(exchanges), 'call')} of {count(services, 'service')} in {milliseconds(seconds)}"
    return f"{text}: {', '.join(words)}." if words else f"{text}. None failed."


def _left_out(selection: Selection) -> str:
    if not selection.left_out:
        return ""
    kept = "all that failed, and the first of the others"
    if selection.left_out_failures:
        kept = f"the first that failed; {selection.left_out_failures:,} that failed too are left out"
    shown = f"{len(selection.entries):,} of {len(selection.entries) + selection.left_out:,} exchanges are shown"
    return f'<p class="warning">{shown}: {kept}.</p>'


def _problems(entries: Sequence[Entry], origins: dict[int, Entry], sensitive: bool) -> str:
    """Return what failed first: an exception that was only passed on is not in the list."""
    found = [
        entry
        for entry in entries
        if is_failure(entry.exchange) and origins.get(id(entry.exchange.error), entry) is entry
    ]
    if not found:
        return ""
    items = "\n".join(f"<li>{_problem(entry, sensitive)}</li>" for entry in found[:_PROBLEMS])
    more = f"<p>And {count(len(found) - _PROBLEMS, 'more')}</p>" if len(found) > _PROBLEMS else ""
    return (
        f'<section class="problems" aria-labelledby="problems"><h2 id="problems">What failed</h2>\n<ol>\n{items}\n</ol>'
        f"{more}</section>"
    )


def _problem(entry: Entry, sensitive: bool) -> str:
    exchange = entry.exchange
    name = f"{entry.caller} → {entry.callee} {exchange.method} {entry.path}"
    why = state_of(entry) if exchange.error is None else error_text(exchange.error, sensitive=sensitive)
    shown = "" if exchange.status is None else f"{badge(entry)} "
    reason = escape(cut(" ".join(why.split()), _LONGEST_REASON))
    return f'<a href="#{entry.anchor}">{entry.number} {escape(name)}</a> {shown}{reason}'


def _diagram(entries: Sequence[Entry]) -> str:
    if not entries:
        return ""
    anchors = {entry.exchange: f"#{entry.anchor}" for entry in entries}
    picture = drawing(anchors, anchors.__getitem__)
    return "\n".join([f'<div class="head">{picture.head}</div>', *picture.blocks])


def _details(entries: Sequence[Entry], origins: dict[int, Entry], sensitive: bool) -> str:
    limit = _TEXT_OF_ALL // max(len(entries), 1)
    limit = min(max(limit, _TEXT_OF_ONE.start), _TEXT_OF_ONE.stop)
    details = Details(limit, sensitive, origins, frozenset(islice(origins.values(), _TRACEBACKS)))
    beside: list[Entry | None] = [None, *entries, None]
    articles = "\n".join(map(details.article, entries, beside, beside[2:]))
    return f'<div class="details">\n{articles}\n</div>'
