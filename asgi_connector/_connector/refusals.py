"""`Refusals`: the calls of services that were refused, until they are reported."""

from collections import Counter
from typing import Final

_SHOWN: Final = 20  # calls that are shown


class Refusals:
    """The refused calls of an open `intercept()` block, or of a test.

    A service may handle the error. So each call is reported once, by the end of the block or by the end of the test.
    """

    def __init__(self, *, allowed: bool = False) -> None:
        self._allowed = allowed
        self._calls: Counter[str] = Counter()

    def __bool__(self) -> bool:
        """Whether there are calls that are not reported yet."""
        return bool(self._calls)

    def note(self, caller: str, method: str, url: str, problem: str) -> None:
        """Note that a call of the service *caller* was refused."""
        if not self._allowed:
            self._calls[f"- {caller}: {method} {url}\n  {problem}"] += 1

    def take(self) -> Counter[str]:
        """Return the calls that are not reported yet, each with its number. The caller reports them."""
        taken, self._calls = self._calls, Counter()
        return taken


def describe_refused(calls: Counter[str], where: str) -> list[str]:
    """Describe calls that were refused *where*, one paragraph each."""
    number = calls.total()
    were = "1 call of a service was" if number == 1 else f"{number} calls of services were"
    lines = [f"{were} refused {where}:"]
    lines += [text if times == 1 else f"{text}\n  ({times} times)" for text, times in list(calls.items())[:_SHOWN]]
    if len(calls) > _SHOWN:
        lines.append(f"and {len(calls) - _SHOWN} others")
    return lines
