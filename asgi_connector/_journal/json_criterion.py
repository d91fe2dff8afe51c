"""`JsonCriterion`: what the JSON body of a request must equal, or contain."""

from dataclasses import dataclass

from asgi_connector._exchange.exchange import Exchange
from asgi_connector._exchange.json_diff import diff_lines
from asgi_connector._exchange.json_values import differences, shown_json

_SHOWN = 3  # differences


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
        if not exchange.request.size and exchange.via in ("refused", "fault"):
            return ["no body arrived"]
        if exchange.request.body is None:
            return ["body is empty"]
        try:
            actual = exchange.request.json()
        except ValueError as exc:
            return [str(exc)]
        return [f"body: {each}" for each in differences(self.expected, actual, subset=self.subset)]

    def clause(self, exchange: Exchange) -> str:
        """The differences in a few words; empty if there is none."""
        found = self.differences(exchange)
        more = [f"body: {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        return "; ".join(found[:_SHOWN] + more)

    def diff(self, exchange: Exchange) -> list[str]:
        """The differences line by line; none if the body is not JSON, or not known."""
        if _why_unknown(exchange) is not None or not exchange.request.body:
            return []
        try:
            actual = exchange.request.json()
        except ValueError:
            return []
        return diff_lines(self.expected, actual, subset=self.subset)


def _why_unknown(exchange: Exchange) -> str | None:
    """Why the body cannot be compared, and what to write; `None` if it can."""
    content = exchange.request
    if exchange.via == "refused" or (content.body is None and not content.size and exchange.via != "fallback"):
        return None  # its size is known to be 0
    return content.why_unreadable
