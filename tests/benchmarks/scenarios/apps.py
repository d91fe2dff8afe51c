"""Many apps in one connector: the cost of each must not grow with their number."""

import gc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from statistics import fmean
from time import perf_counter
from typing import Literal

from asgi_connector import ASGIRoutingConnector
from asgi_connector._types import Receive, Scope, Send
from tests.benchmarks.contenders import Stage
from tests.benchmarks.sizes import Sizes

from .scenario import Entrant, Scenario, microseconds

FEWER = 10
"""The apps are compared with so many times fewer apps, which are measured so many times."""

Phase = Literal["mounted", "started", "closed"]


@dataclass(frozen=True)
class Times:
    """Seconds."""

    mounted: float
    started: float
    closed: float


async def _serve_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def app() -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return a new app object, as an app that is mounted twice starts once."""
    return partial(_serve_lifespan)


async def run_apps(count: int) -> Times:
    apps = {f"app-{number}.internal": app() for number in range(count)}
    gc.collect()
    connector = ASGIRoutingConnector()
    begin = perf_counter()
    for host, each in apps.items():
        connector.mount(host, each)
    mounted = perf_counter()
    await connector.__aenter__()  # starts all apps
    started = perf_counter()
    await connector.close()
    return Times(mounted - begin, started - mounted, perf_counter() - started)


async def run_managers(count: int) -> Times:
    """The lifespans alone, by asgi-lifespan, as httpx and httpx2 start none."""
    manager = import_module("asgi_lifespan").LifespanManager
    apps = [app() for _ in range(count)]
    gc.collect()
    async with AsyncExitStack() as stack:
        begin = perf_counter()
        for each in apps:
            await stack.enter_async_context(manager(each))
        started = perf_counter()
    return Times(0, started - begin, perf_counter() - started)


def number_of_fewer(sizes: Sizes) -> int:
    return max(1, sizes.apps // FEWER)


async def fewer(phase: Phase, stage: Stage) -> float:
    count = number_of_fewer(stage.sizes)
    return fmean([getattr(await run_apps(count), phase) / count for _ in range(FEWER)])


async def all_apps(phase: Phase, stage: Stage) -> float:
    return float(getattr(await run_apps(stage.sizes.apps), phase)) / stage.sizes.apps


async def all_managers(phase: Phase, stage: Stage) -> float:
    return float(getattr(await run_managers(stage.sizes.apps), phase)) / stage.sizes.apps


def scenario(phase: Phase) -> Scenario:
    entrants = {
        "fewer-apps": Entrant(title="asgi-connector, a tenth of the apps", measure=partial(fewer, phase)),
        "all-apps": Entrant(title="asgi-connector, all of them", measure=partial(all_apps, phase)),
    }
    if phase != "mounted":
        entrants["asgi-lifespan"] = Entrant(
            title="asgi-lifespan, all of them",
            measure=partial(all_managers, phase),
            distributions=("asgi-lifespan",),
        )
    return Scenario(
        title=lambda sizes: f"{sizes.apps:,} apps {phase}, cost of each",
        entrants=entrants,
        unit="µs an app",
        show=microseconds,
        is_absolute=True,
    )


SCENARIOS = {
    "apps-mounted": scenario("mounted"),
    "apps-started": scenario("started"),
    "apps-closed": scenario("closed"),
}
