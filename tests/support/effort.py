"""How many cases a test tries that searches or enumerates: a share by default, all of them with ``--thorough``."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

_SHARE: Final = 5
_FEWEST: Final = 20
_STRIDE: Final = 61  # a prime number, so that a sample of a product has each value at each place

thorough = False
"""Set by conftest.py before the test modules are imported."""


def examples(count: int) -> int:
    """How many examples Hypothesis draws: *count* if thorough, else a fifth, but not below twenty."""
    return count if thorough else min(count, max(_FEWEST, count // _SHARE))


def sample(cases: Iterable[T]) -> Iterator[T]:
    """All of *cases* if thorough, else one in sixty-one, spread evenly over them."""
    return iter(cases) if thorough else islice(cases, 0, None, _STRIDE)


def at_most(quick: int, whole: int) -> int:
    """*whole* if thorough, else *quick*: the size of a transfer, or a number of repetitions."""
    return whole if thorough else quick
