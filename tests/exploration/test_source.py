"""The Python of a finding affects the same calls as the plan did."""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import pytest
from aiohttp import ClientError

from asgi_connector import faults
from asgi_connector._exploration.names import stable_path
from asgi_connector._exploration.plan import Plan, PlannedFault, python_of
from asgi_connector._exploration.source import source_of
from asgi_connector.faults import CallName, Shake
from tests.exploration.systems import SYSTEMS, System
from tests.support.effort import at_most
from tests.support.explored import BUGS, TRIED, Shop, explore_in_virtual_time
from tests.support.shaken import virtual_time

RUNS = at_most(20, 200)


def with_python(source: str, **names: Any) -> Callable[[], Any]:
    """Return a coroutine function that awaits ``act()`` in the pasted ``with`` statement."""
    statement = source.removesuffix("...") + "await act()"
    lines = "\n".join(f"    {line}" for line in statement.splitlines())
    namespace: dict[str, Any] = {"faults": faults, "re": re, **names}
    exec(f"async def pasted():\n{lines}", namespace)
    pasted: Callable[[], Any] = namespace["pasted"]
    return pasted


async def replays_each_plan(system: System) -> None:
    """Run each plan, and then its Python, on systems that are new each time."""
    runs: list[tuple[Plan, str, list[str]]] = []

    async def scenario(shake: Shake) -> None:
        async with system() as (connector, act):
            with shake(connector):
                await act()
        runs.append((shake.plan, shake.source, stable_told(shake.journal)))

    assert await faults.explore(scenario, TRIED, runs=RUNS)
    assert len(runs) > 4
    for plan, source, told in runs[1:]:
        async with system() as (connector, act):
            with connector.record() as journal:
                await with_python(source, connector=connector, act=act)()
        assert stable_told(journal) == told, f"{plan}\n{source}"


def stable_told(journal: Any) -> list[str]:
    return [f"{exchange.method} {stable_path(exchange.path)} {exchange.outcome}" for exchange in journal]


@pytest.mark.parametrize("system", SYSTEMS)
def test_it_does_the_same(system: str) -> None:
    with asyncio.Runner(loop_factory=virtual_time) as runner:
        runner.run(replays_each_plan(SYSTEMS[system]))


def test_it_leads_to_the_same_finding() -> None:
    report = explore_in_virtual_time(BUGS)
    assert len(report.findings) == 4

    async def replay(finding: faults.Finding) -> AssertionError:
        shop = Shop(BUGS)
        async with shop.open() as (connector, session):

            async def act() -> None:
                with suppress(ClientError):
                    await session.post("http://orders.internal/orders")

            with connector.record() as journal:
                await with_python(finding.source, connector=connector, act=act)()
        assert stable_told(journal) == stable_told(finding.journal)
        with pytest.raises(AssertionError) as caught:
            shop.check(Shake(finding.plan))
        return caught.value

    for finding in report.findings:
        with asyncio.Runner(loop_factory=virtual_time) as runner:
            assert str(runner.run(replay(finding))) == str(finding.error)


def test_the_text_of_one_fault() -> None:
    report = explore_in_virtual_time([BUGS[0]])
    assert report.findings[0].source == (
        "with connector.inject(\n"
        '    "payments.internal",\n'
        "    faults.Reset(),\n"
        '    caller="orders.internal",\n'
        '    method="POST",\n'
        '    path="/charges",\n'
        "    times=1,\n"
        "):\n"
        "    ..."
    )


def test_no_fault_has_no_text() -> None:
    assert source_of(Plan(), []) == ""


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.Refuse(), "Refuse()"),
        (faults.Reset(on="request", after=3), "Reset(on='request', after=3)"),
        (faults.Latency(5, jitter=1.5), "Latency(5, jitter=1.5)"),
        (faults.Hang("connect"), "Hang(on='connect')"),
        (faults.Respond(503), "Respond(503)"),
        (faults.Respond(HTTPStatus.SERVICE_UNAVAILABLE), "Respond(503)"),
        (faults.Respond(503, {"X": "y"}, b"sorry"), "Respond(503, headers={'X': 'y'}, body=b'sorry')"),
    ],
    ids=repr,
)
def test_a_fault_is_written_as_its_user_would(fault: faults.Fault, expected: str) -> None:
    assert python_of(fault) == expected
    assert eval(f"faults.{expected}") == fault


def test_the_text_of_a_plan_has_no_headers_and_no_body() -> None:
    call = CallName(None, None, "a.internal", "GET", "/")
    planned = PlannedFault(faults.Respond(503, {"Set-Cookie": "secret"}, b"a large body"), call)
    assert str(planned) == "Respond(503) on GET a.internal/"


async def test_calls_of_two_connectors_are_told_apart() -> None:
    """A service that is started again answers the same calls as before, on another connector."""
    sources: dict[str, str] = {}
    opened = SYSTEMS["one order after another"]

    async def scenario(shake: Shake) -> None:
        for _ in range(2):
            async with opened() as (connector, act):
                with shake(connector):
                    await act()
        sources[str(shake.plan)] = shake.source

    assert await faults.explore(scenario, [faults.Refuse()], together=1)
    first = "Refuse() on POST orders.internal/"
    second = "Refuse() on POST orders.internal/ (connector 2)"
    assert sources[second] == sources[first].replace("connector.inject", "connector2.inject")
    assert "connector2" not in sources[first]
    assert len(sources) == 1 + 2 * 7  # of its four calls three have a later one that is alike
