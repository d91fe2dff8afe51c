"""A scenario, and those who enter it. The result is always a cost: less is better."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from tests.benchmarks.contenders import CONTENDERS, Contender, Stage
from tests.benchmarks.sizes import Sizes

Measure = Callable[[Stage], Awaitable[float]]


@dataclass(frozen=True, kw_only=True)
class Entrant:
    title: str
    measure: Measure
    distributions: tuple[str, ...] = ()
    """The packages that it needs and this package does not. Each has one module, with the same name."""
    needs_server: bool = False

    @property
    def missing(self) -> list[str]:
        """The distributions that are not installed."""
        return [name for name in self.distributions if find_spec(name.replace("-", "_")) is None]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    title: Callable[[Sizes], str]
    entrants: Mapping[str, Entrant]
    """Those that can run it. The others are compared with the first."""
    unit: str
    show: Callable[[float, Sizes], str]
    """A cost, in the unit."""
    is_absolute: bool = False
    """Whether the page shows the costs too, because the ratios alone say little."""


def contenders(measure: Callable[[Contender, Stage], Awaitable[float]], *names: str) -> dict[str, Entrant]:
    """Contenders that do the same."""
    return {
        name: Entrant(
            title=CONTENDERS[name].title,
            measure=partial(measure, CONTENDERS[name]),
            distributions=CONTENDERS[name].distributions,
            needs_server=CONTENDERS[name].needs_server,
        )
        for name in names
    }


def microseconds(cost: float, sizes: Sizes) -> str:
    return f"{cost * 1e6:.1f}"


def milliseconds(cost: float, sizes: Sizes) -> str:
    return f"{cost * 1e3:.1f}"


def seconds(cost: float, sizes: Sizes) -> str:
    return f"{cost:.2f}"


def mib_per_second(cost: float, sizes: Sizes) -> str:
    return f"{sizes.mib / cost:.0f}"


def mib(cost: float, sizes: Sizes) -> str:
    return f"{cost / 2**20:.2f}"
