"""The scenarios, in the order of the run."""

from . import apps, memory, programs, requests, streams
from .scenario import Entrant, Scenario

__all__ = ["SCENARIOS", "Entrant", "Scenario"]

SCENARIOS: dict[str, Scenario] = {
    **requests.SCENARIOS,
    **streams.SCENARIOS,
    **memory.SCENARIOS,
    **apps.SCENARIOS,
    **programs.SCENARIOS,
}
