"""The scenarios, in the order of the run."""

from . import apps, instructions, memory, programs, requests, streams
from .scenario import Entrant, Scenario

__all__ = ["SCENARIOS", "Entrant", "Scenario"]

SCENARIOS: dict[str, Scenario] = {
    **requests.SCENARIOS,
    **instructions.SCENARIOS,
    **streams.SCENARIOS,
    **memory.SCENARIOS,
    **apps.SCENARIOS,
    **programs.SCENARIOS,
}
