"""How much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a run."""

    requests: int
    concurrency: int
    at_once: int
    mib: int
    events: int
    uploads: int
    mounts: int
    connections: int
    apps: int
    tests: int


FULL = Sizes(
    requests=1000,
    concurrency=50,
    at_once=1000,
    mib=256,
    events=10_000,
    uploads=10,
    mounts=10_000,
    connections=1000,
    apps=1000,
    tests=500,
)
QUICK = Sizes(
    requests=20,
    concurrency=5,
    at_once=20,
    mib=2,
    events=20,
    uploads=1,
    mounts=100,
    connections=20,
    apps=20,
    tests=2,
)
