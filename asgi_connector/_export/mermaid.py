"""The journal as a Mermaid sequence diagram: https://mermaid.js.org/syntax/sequenceDiagram.html.

The diagram depends on who called whom and in which order, and not on times. Names and labels come from URLs and apps,
so each character that may have a meaning in Mermaid is written as its number.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from asgi_connector._exchange.exchange import Exchange

from .diagram import OUTSIDE, Event, Kind, diagram_of

_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9 ./_-]|^ | $")


def sequence_diagram(exchanges: Iterable[Exchange]) -> str:
    """Return the text of the diagram, which ends with a line break."""
    diagram = diagram_of(exchanges)
    lines = ["sequenceDiagram"]
    for place, participant in enumerate(diagram.participants):
        kind, label = ("actor", OUTSIDE) if participant is None else ("participant", participant)
        lines.append(f"    {kind} p{place} as {_escape(label)}")
    lines += [f"    p{each.source}{_arrow(each)}p{each.target}: {_escape(_label(each))}" for each in diagram.events]
    return "\n".join([*lines, ""])


def _arrow(event: Event) -> str:
    if event.kind is Kind.END:
        return "-->>" if event.exchange.state == "done" else "--x"
    return "->>" if event.kind is Kind.CALL else "-)"


def _label(event: Event) -> str:
    fault = event.exchange.fault if event.kind is Kind.END else None
    return event.label if fault is None else f"{event.label} {fault!r}"


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else quote(character, errors="surrogatepass") for character in text
    )


def _escape(label: str) -> str:
    return _NOT_PLAIN.sub(lambda match: f"#{ord(match.group())};", _printable(label))
