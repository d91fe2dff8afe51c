"""The journal as a Mermaid sequence diagram: https://mermaid.js.org/syntax/sequenceDiagram.html.

The diagram depends on who called whom and in which order, and not on times. Names and labels come from URLs and apps,
so each character that may have a meaning in Mermaid is written as its number.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, unquote

from asgi_connector._exchange.exchange import Exchange, WebSocketMessage
from asgi_connector._exchange.redaction import redact_url
from asgi_connector._services.address import Address

_OUTSIDE: Final = "outside"
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9 ./_-]|^ | $")


def sequence_diagram(exchanges: Iterable[Exchange]) -> str:
    """Return the text of the diagram, which ends with a line break."""
    exchanges = list(exchanges)
    names: dict[str | None, str] = {}
    for exchange in exchanges:
        for participant in (exchange.caller, _callee(exchange)):
            names.setdefault(participant, f"p{len(names)}")
    lines = ["sequenceDiagram"]
    for participant, name in names.items():
        kind, label = ("actor", _OUTSIDE) if participant is None else ("participant", participant)
        lines.append(f"    {kind} {name} as {_escape(label)}")
    events = sorted(event for exchange in exchanges for event in _events(exchange, names))
    lines += [f"    {line}" for _, line in events]
    return "\n".join([*lines, ""])


def _callee(exchange: Exchange) -> str:
    if exchange.service is not None:
        return exchange.service
    return Address(exchange.host, exchange.port, exchange.secure).authority


def _events(exchange: Exchange, names: dict[str | None, str]) -> Iterator[tuple[int, str]]:
    """Yield the arrows of an exchange, each with its order."""
    caller, callee = names[exchange.caller], names[_callee(exchange)]
    begun, ended = exchange.order
    yield begun, f"{caller}->>{callee}: {_escape(f'{exchange.method} {_path(exchange)}')}"
    for message in exchange.messages:
        sender, receiver = (caller, callee) if message.from_client else (callee, caller)
        yield message.order, f"{sender}-){receiver}: {_escape(_describe(message))}"
    if ended is not None:
        arrow = "-->>" if exchange.state == "done" else "--x"
        yield ended, f"{callee}{arrow}{caller}: {_escape(_outcome(exchange))}"


def _path(exchange: Exchange) -> str:
    """Return the decoded path without the secrets in its matrix parameters."""
    return unquote(redact_url(exchange.url.raw_path))


def _describe(message: WebSocketMessage) -> str:
    return f"{'text' if message.is_text else 'binary'} of {message.size} bytes"


def _outcome(exchange: Exchange) -> str:
    words = [] if exchange.status is None else [str(exchange.status)]
    if exchange.state != "done":
        words.append(exchange.state)
    if exchange.error is not None:
        words.append(type(exchange.error).__name__)
    if exchange.close_code is not None:
        words.append(f"closed {exchange.close_code}")
    if exchange.fault is not None:
        words.append(repr(exchange.fault))
    return " ".join(words)


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else quote(character, errors="surrogatepass") for character in text
    )


def _escape(label: str) -> str:
    return _NOT_PLAIN.sub(lambda match: f"#{ord(match.group())};", _printable(label))
