"""Everything about one exchange, as HTML: its facts, its exception, both directions, and its messages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from asgi_connector._exchange.exchange import Content, WebSocketMessage
from asgi_connector._export.readable import error_text, header_value, headers_of, url_of

from .bodies import bytes_block, request_body, response_body, text_block
from .markup import count, cut, escape, escape_lines, milliseconds, preformatted, within
from .selection import Entry
from .table import badge, state_of
from .tracebacks import traceback_of

_MESSAGES: Final = 500  # of one exchange
_MESSAGES_TO_BODY: Final = 4  # how many times as long as a body all of them may be
_CALLS: Final = 50
_LONGEST_ERROR: Final = 2_000  # characters
_KNOWN_STATUSES: Final = frozenset(HTTPStatus)
_ANSWERED_BY: Final = {
    "fallback": "the network, through the fallback",
    "refused": "nothing: the host is not mounted, and there is no fallback",
    "fault": "a fault; the app was not called",
}


@dataclass(frozen=True, slots=True)
class Details:
    """What the details of all exchanges have in common.

    At most *limit* characters are shown of a body, a message or a traceback. *origins* has, by the identity of each
    exception, the exchange in which it was raised. It shows the traceback if it is *traced*.
    """

    limit: int
    sensitive: bool
    origins: dict[int, Entry]
    traced: frozenset[Entry]

    def article(self, entry: Entry, before: Entry | None, after: Entry | None) -> str:
        """Return everything about an exchange, with links to the ones *before* and *after* it."""
        exchange = entry.exchange
        beside = {"Previous": before, "Next": after}
        links = [f'<a href="#{each.anchor}">{text}</a>' for text, each in beside.items() if each is not None]
        parts = [
            f'<article id="{entry.anchor}" class="exchange" tabindex="-1" aria-label="Exchange {entry.number}">',
            f"<header><h3>{entry.number} <b>{escape(exchange.method)}</b> {escape(entry.path)} {badge(entry)}</h3>",
            f'<nav>{"".join(links)}<a class="close" href="#-">Close</a></nav></header>',
            self._facts(entry),
            self._exception(entry),
            self._direction("Request", exchange.request, self._request_body(exchange.request)),
        ]
        if exchange.response is not None:
            body = response_body(exchange.response, self.limit)
            parts.append(self._direction("Response", exchange.response, body))
        if exchange.messages:
            parts.append(self._messages(exchange.messages, exchange.messages_dropped))
        return "".join([*parts, "</article>"])

    def _request_body(self, content: Content) -> str:
        return request_body(content, self.limit, sensitive=self.sensitive)

    def _facts(self, entry: Entry) -> str:
        exchange = entry.exchange
        facts = {
            "URL": f"<code>{escape(cut(url_of(exchange, sensitive=self.sensitive), self.limit))}</code>",
            "From → to": f"{escape(entry.caller)} → {escape(entry.callee)}",
            "Result": " ".join([*_status_texts(exchange.status), escape(state_of(entry))]),
        }
        if exchange.fault is not None:
            facts["Fault"] = f"<code>{escape(repr(exchange.fault))}</code>"
        if exchange.via in _ANSWERED_BY:
            facts["Answered by"] = _ANSWERED_BY[exchange.via]
        if exchange.reused is not None:
            facts["Connection"] = "reused" if exchange.reused else "new"
        facts["Started"] = f"{exchange.started:%Y-%m-%d %H:%M:%S.%f} UTC"
        facts["Time"] = ", ".join(_times(entry))
        if entry.parent is not None:
            facts["During"] = _link(entry.parent)
        if entry.calls:
            more = [f"and {len(entry.calls) - _CALLS} more"] if len(entry.calls) > _CALLS else []
            facts["Its calls"] = "<br>".join([*map(_link, entry.calls[:_CALLS]), *more])
        rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
        return f'<dl class="facts">{rows}</dl>'

    def _exception(self, entry: Entry) -> str:
        error = entry.exchange.error
        if error is None:
            return ""
        text = error_text(error, sensitive=self.sensitive)
        shown = escape_lines(cut(text, _LONGEST_ERROR))
        origin = self.origins.get(id(error), entry)
        if origin is not entry:
            more = f"<p>It was raised in {_link(origin)}.</p>"
        elif entry in self.traced:
            more = preformatted(traceback_of(error, self.limit, sensitive=self.sensitive))
        else:
            more = f'<p class="cut">Only the first {len(self.traced):,} exceptions have their tracebacks here.</p>'
        return f'<section class="exception"><h4>Exception</h4><p class="error">{shown}</p>{more}</section>'

    def _direction(self, title: str, content: Content, body: str) -> str:
        headers = within(
            self.limit,
            (
                f"{escape(name)}: {escape(header_value(name, value, sensitive=self.sensitive))}"
                for name, value in headers_of(content).items()
            ),
        )
        if len(headers) < len(content.headers):
            headers.append(f"(and {len(content.headers) - len(headers)} more)")
        lines = "\n".join(headers)
        about = ", ".join(filter(None, [count(len(content.headers), "header"), content.http_version]))
        return (
            f"<section><h4>{title}</h4><details open><summary>{about}</summary>"
            f'<pre class="headers">{lines}</pre></details>{body}</section>'
        )

    def _messages(self, messages: Sequence[WebSocketMessage], dropped: int) -> str:
        texts = (_message(message, self.limit) for message in messages[:_MESSAGES])
        shown = within(_MESSAGES_TO_BODY * self.limit, texts)
        left_out = len(messages) - len(shown) + dropped
        more = f'<p class="cut">{count(left_out, "more message")} not shown.</p>' if left_out else ""
        return f'<section><h4>Messages</h4><ol class="messages">{"".join(shown)}</ol>{more}</section>'


def _link(entry: Entry) -> str:
    name = f"{entry.number} {entry.exchange.method} {entry.path}"
    return f'<a href="#{entry.anchor}">{escape(name)}</a> ({escape(entry.callee)})'


def _status_texts(status: int | None) -> Iterator[str]:
    if status is not None:
        known = status in _KNOWN_STATUSES
        yield f"{status} {HTTPStatus(status).phrase}," if known else f"{status},"


def _times(entry: Entry) -> Iterator[str]:
    exchange = entry.exchange
    yield milliseconds(exchange.duration) + ("" if exchange.ended else " until now")
    if exchange.connect_time is not None:
        yield f"connected after {milliseconds(exchange.connect_time)}"
    if exchange.waited is not None:
        yield f"the head of the response after {milliseconds(exchange.waited)}"


def _message(message: WebSocketMessage, limit: int) -> str:
    kind = "text" if message.is_text else "binary"
    sender = "client" if message.from_client else "app"
    about = f"{sender}: {kind} of {count(message.size, 'byte')}"
    if isinstance(message.data, str):
        data = text_block(message.data, limit)
    else:
        data = "" if message.data is None else bytes_block(message.data)
    return f'<li class="by-{sender}"><span class="quiet">{about}</span>{data}</li>'
