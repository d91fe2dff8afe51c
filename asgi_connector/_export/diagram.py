"""The participants and the events of a sequence diagram, in order, in no syntax."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final
from urllib.parse import unquote

from aiohttp import ClientError

from asgi_connector._exchange.exchange import Clock, Exchange, WebSocketMessage
from asgi_connector._exchange.redaction import redact_url

OUTSIDE: Final = "outside"
"""The label of the participant that is no app."""


class Kind(Enum):
    """What an event is."""

    CALL = "call"
    MESSAGE = "message"
    MORE = "more"
    """In the place of all further messages of a WebSocket."""
    END = "end"
    RUNNING = "running"
    """A call that has not ended. It has no arrow back, and stands at the end of the diagram."""


@dataclass(frozen=True, slots=True)
class Event:
    """An arrow from one participant to another; both are positions in `Diagram.participants`."""

    kind: Kind
    exchange: Exchange
    source: int
    target: int
    label: str


@dataclass(frozen=True, slots=True)
class Diagram:
    """Who takes part, and what happens. The participant `None` is the code outside every app."""

    participants: list[str | None]
    events: list[Event]


def diagram_of(exchanges: Iterable[Exchange], *, messages: int | None = None, running: bool = False) -> Diagram:
    """Return the diagram of *exchanges*, with at most *messages* of each WebSocket (all of them with `None`).

    With *running*, a call that has not ended has an event at the end, of the kind `Kind.RUNNING`.
    """
    exchanges = list(exchanges)
    places: dict[str | None, int] = {}
    for exchange in exchanges:
        for participant in (exchange.caller, callee_of(exchange)):
            places.setdefault(participant, len(places))
    by_clock: dict[Clock, list[_Moment]] = {}
    for exchange in exchanges:
        source, target = places[exchange.caller], places[callee_of(exchange)]
        by_clock.setdefault(exchange.clock, []).extend(_moments(exchange, source, target, messages))
    for moments in by_clock.values():
        moments.sort(key=lambda moment: moment.order)
    # The order of events is known for each connector. Those of several connectors are merged by their dates.
    merged = heapq.merge(*map(_dated, by_clock.values()), key=lambda dated: dated[0])
    events = [moment.event for _, moment in merged]
    if running:
        unended = [exchange for exchange in exchanges if not exchange.ended]
        events += [
            Event(Kind.RUNNING, each, places[callee_of(each)], places[each.caller], each.state) for each in unended
        ]
    return Diagram(list(places), events)


def callee_of(exchange: Exchange) -> str:
    """The pattern of the service that was called, or the address if no app is mounted there."""
    if exchange.service is not None:
        return exchange.service
    return exchange.address.authority


def path_of(exchange: Exchange) -> str:
    """Return the decoded path without the secrets in its matrix parameters."""
    return unquote(redact_url(exchange.url.raw_path))


def where_raised(exchanges: Iterable[Exchange]) -> dict[Exchange, bool]:
    """The exchanges in which an exception appeared first, and whether the app that was called raised it.

    If it did not, the client's call raised it: the connection was refused or broken, or the time was up. An exception
    that an app does not handle ends the exchanges around it too. They are not in the result.
    """
    exchanges = list(exchanges)
    passed_on = {(exchange.parent, id(exchange.error)) for exchange in exchanges if exchange.error is not None}
    found: dict[int, Exchange] = {}
    for exchange in exchanges:
        if exchange.error is not None and (exchange, id(exchange.error)) not in passed_on:
            found.setdefault(id(exchange.error), exchange)
    return {exchange: _is_by_app(exchange) for exchange in found.values()}


def _is_by_app(exchange: Exchange) -> bool:
    if exchange.via != "app" or exchange.state == "abandoned":
        return False
    # aiohttp's own errors, which tell of a broken connection, are all of this type.
    return exchange.fault is None or not isinstance(exchange.error, OSError | ClientError)


@dataclass(frozen=True, slots=True)
class _Moment:
    order: int
    date: datetime
    event: Event


def _dated(moments: list[_Moment]) -> Iterator[tuple[datetime, _Moment]]:
    """Yield each with the latest date so far: dates are rounded, and must not change the order."""
    latest = moments[0].date
    for moment in moments:
        latest = max(latest, moment.date)
        yield latest, moment


def _moments(exchange: Exchange, source: int, target: int, kept: int | None) -> Iterator[_Moment]:
    """Yield the arrows of an exchange."""
    begun, ended = exchange.order
    started = exchange.started
    call = Event(Kind.CALL, exchange, source, target, f"{exchange.method} {path_of(exchange)}")
    yield _Moment(begun, started, call)
    for message in exchange.messages[:kept]:
        sender, receiver = (source, target) if message.from_client else (target, source)
        event = Event(Kind.MESSAGE, exchange, sender, receiver, _describe(message))
        yield _Moment(message.order, message.date, event)
    if kept is not None and len(exchange.messages) > kept:
        first = exchange.messages[kept]
        left = len(exchange.messages) - kept + exchange.messages_dropped
        more = Event(Kind.MORE, exchange, source, target, f"and {left} more {'message' if left == 1 else 'messages'}")
        yield _Moment(first.order, first.date, more)
    if ended is not None:
        end = Event(Kind.END, exchange, target, source, outcome_of(exchange))
        yield _Moment(ended, started + timedelta(seconds=exchange.duration), end)


def _describe(message: WebSocketMessage) -> str:
    return f"{'text' if message.is_text else 'binary'} of {message.size} bytes"


def outcome_of(exchange: Exchange, *, with_error: bool = True) -> str:
    """The result in a few words: status, state unless it is done, type of the exception, close code."""
    words = [] if exchange.status is None else [str(exchange.status)]
    if exchange.state != "done":
        words.append(exchange.state)
    if with_error and exchange.error is not None:
        words.append(type(exchange.error).__name__)
    if exchange.close_code is not None:
        words.append(f"closed {exchange.close_code}")
    return " ".join(words)
