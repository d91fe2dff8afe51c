"""`JsonCriterion`: what the JSON body of a request must equal, or contain."""

import math
from dataclasses import dataclass
from typing import Any, Final

from asgi_connector._exchange.exchange import Exchange
from asgi_connector._exchange.json_diff import diff_lines
from asgi_connector._exchange.json_values import differences, is_array, is_object, shown_json

_SHOWN: Final = 3  # differences


@dataclass(frozen=True, slots=True)
class JsonCriterion:
    """A criterion for the body of a request.

    Parameters:
        name: as the user writes it, for messages.
        expected: a JSON value.
        subset: whether the objects in the body may have further members.
    """

    name: str
    expected: object
    subset: bool

    def __str__(self) -> str:
        return f"{self.name}={shown_json(self.expected)}"

    def check_recorded(self, exchange: Exchange) -> None:
        """Raise `RuntimeError` if the body of *exchange* is not there to be compared."""
        if (problem := _why_unknown(exchange)) is not None:
            raise RuntimeError(f"{self.name}= needs the body of each call that may match, but of {exchange}, {problem}")

    def differences(self, exchange: Exchange) -> list[str]:
        """How the body differs; empty if it matches, and if it is not known."""
        if _why_unknown(exchange) is not None:
            return []
        try:
            actual = _json_of(exchange)
        except ValueError as exc:
            return [str(exc)]
        return [f"body: {each}" for each in differences(self.expected, actual, subset=self.subset)]

    def clause(self, exchange: Exchange) -> str:
        """The differences in a few words; empty if there is none."""
        found = self.differences(exchange)
        more = [f"body: {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        return "; ".join(found[:_SHOWN] + more)

    def distance(self, exchange: Exchange) -> float:
        """The number of differences. It is infinite if the body is no JSON value of the same kind."""
        if _why_unknown(exchange) is None and not self._is_comparable(exchange):
            return math.inf
        return len(self.differences(exchange))

    def diff(self, exchange: Exchange) -> list[str]:
        """The differences line by line; none if the body is not a JSON value of the same kind, or is not known."""
        if _why_unknown(exchange) is not None or not self._is_comparable(exchange):
            return []
        return diff_lines(self.expected, _json_of(exchange), subset=self.subset)

    def _is_comparable(self, exchange: Exchange) -> bool:
        """Whether the body and what is expected are both objects, or both arrays, so that their parts are compared."""
        try:
            actual = _json_of(exchange)
        except ValueError:
            return False
        return (is_object(actual) and is_object(self.expected)) or (is_array(actual) and is_array(self.expected))


def _json_of(exchange: Exchange) -> Any:
    """The JSON value in the body. Raises `ValueError` that says what the body is instead."""
    content = exchange.request
    if not content.size and exchange.via in ("refused", "fault"):
        raise ValueError("no body arrived")
    if content.body is None:
        raise ValueError("body is empty")
    return content.json()


def _why_unknown(exchange: Exchange) -> str | None:
    """Why the body cannot be compared, and what to write; `None` if it can."""
    content = exchange.request
    if exchange.via == "refused" or (content.body is None and not content.size and exchange.via != "fallback"):
        return None  # its size is known to be 0
    return content.why_unreadable
