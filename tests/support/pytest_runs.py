"""Runs of pytest inside of a test, and what they have shown."""

import re
from dataclasses import dataclass
from typing import Final

import pytest

ONLY_NEEDED: Final = (
    "--disable-plugin-autoload",
    *(argument for name in ("asyncio", "anyio", "asgi_connector") for argument in ("-p", name)),
    *("-W", "ignore:Module already imported so cannot be rewritten"),  # by the tests around the run
)
"""Arguments that load the plugins by name. To look for all that are installed takes half of the time of a run."""

_SECTION: Final = re.compile(
    r"^-+ who called whom -+\n(.*?)(?=^[-_=]|^Who called whom in|^The index of|\Z)", re.MULTILINE | re.DOTALL
)
_COUNT: Final = re.compile(r"(\d+) (passed|failed|skipped|xfailed|xpassed|errors?|deselected)\b")
_DURATION: Final = re.compile(r"\b(in|for) [0-9.]+ m?s\b")


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest has printed."""

    counts: dict[str, int]
    """How many tests have passed, failed and so on, by the last line."""
    sections: list[str]
    """The texts about who called whom, in their order. All calls have taken ``0 s``."""
    text: str


def outcome_of(result: pytest.RunResult) -> Outcome:
    text = result.stdout.str()
    sections = [_DURATION.sub(r"\1 0 s", section) for section in _SECTION.findall(text)]
    counts = _COUNT.findall(result.outlines[-1] if result.outlines else "")
    return Outcome({name: int(number) for number, name in counts}, sections, text + result.stderr.str())
