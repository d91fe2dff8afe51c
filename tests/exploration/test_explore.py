"""Scenarios of many kinds: what is found, what is passed on, and where an exploration ends."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession

from asgi_connector import ASGIRoutingConnector, faults
from asgi_connector._exploration.real_time import real_timeout
from asgi_connector._types import Receive, Scope, Send
from asgi_connector.faults import CallName, Plan, PlannedFault, Report, Shake
from tests.exploration.systems import SYSTEMS, ask, hello
from tests.support.explored import BUGS, TRIED, explore_in_virtual_time
from tests.support.leaks import no_task_and_no_timer_is_left
from tests.support.messages import respond
from tests.support.shaken import virtual_time
from tests.support.waiting import SOON, settle

AT_ONCE: list[faults.Fault] = [faults.Refuse(), faults.Reset(), faults.Respond(503)]
REFUSE = [faults.Refuse()]
TOO_LONG = "the scenario did not end within {} seconds of real time: give a timeout to all that may wait"

Act = Callable[[ClientSession], Coroutine[Any, Any, object]]


async def get(session: ClientSession) -> None:
    async with session.get("http://a.internal/") as response:
        await response.read()


async def with_one_app(shake: Shake, act: Act = get) -> None:
    """The calls of *act*, from outside, to an app that answers."""
    connector = ASGIRoutingConnector({"a.internal": hello, "b.internal": hello}, lifespan="off")
    async with ClientSession(connector=connector) as session:
        with shake(connector):
            await act(session)


# What is found.


@pytest.mark.parametrize("bug", BUGS)
def test_each_bug_of_the_shop_is_one_finding(bug: str) -> None:
    report = explore_in_virtual_time([bug])
    assert len(report.findings) == 1, report
    assert not report.diverged
    assert not report.untried


def test_a_sound_shop_has_no_finding() -> None:
    report = explore_in_virtual_time()
    assert report, report
    assert report.runs > 100


async def test_in_real_time_the_timeouts_of_the_system_end_a_call_without_an_answer() -> None:
    charges = 0

    async def charge(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal charges
        charges += 1
        await hello(scope, receive, send)

    async def scenario(shake: Shake) -> None:
        nonlocal charges
        charges = 0
        connector = ASGIRoutingConnector({"payments.internal": charge}, lifespan="off")
        async with ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=0.3)) as session:
            with shake(connector):
                await ask(session, "http://payments.internal/charges", "POST", attempts=2)
        assert charges == 1

    report = await faults.explore(scenario, [faults.Hang()], together=1)
    assert [str(finding.plan) for finding in report.findings] == ["Hang() on POST payments.internal/charges"]
    assert report.runs == 2


async def test_a_lasting_fault_is_found_that_a_second_attempt_heals() -> None:
    async def scenario(shake: Shake) -> None:
        await with_one_app(shake)
        assert shake.error is None

    report = await faults.explore(scenario, [faults.Reset()], together=1)
    [finding] = report.findings
    call = CallName(None, None, "a.internal", "GET", "/")
    assert finding.plan == Plan((PlannedFault(faults.Reset(), call, lasting=True),))
    assert "times" not in finding.source
    assert report.runs == 3


async def test_a_call_that_only_a_fault_causes_is_tried() -> None:
    async def act(session: ClientSession) -> None:
        try:
            await session.post("http://a.internal/")
        except aiohttp.ClientError:
            await session.post("http://b.internal/undo")

    async def scenario(shake: Shake) -> None:
        await with_one_app(shake, act)
        assert shake.error is None, shake.error

    report = await faults.explore(scenario, REFUSE)
    [finding] = report.findings
    assert str(finding.plan) == "Refuse() on POST a.internal/; Refuse() on POST b.internal/undo"
    assert [call.path for call in report.calls] == ["/", "/undo"]
    assert [str(plan) for plan in finding.plans] == [str(finding.plan)]


async def test_an_exception_that_leaves_the_block_is_kept_and_one_that_leaves_the_scenario_is_found() -> None:
    errors: list[Exception | None] = []

    async def scenario(shake: Shake) -> None:
        await with_one_app(shake)
        errors.append(shake.error)
        if shake.error is not None:
            raise LookupError("not handled")

    report = await faults.explore(scenario, REFUSE, together=1)
    assert [type(error) for error in errors] == [type(None), aiohttp.ClientConnectorError]
    assert [finding.summary for finding in report.findings] == ["LookupError: not handled"]


async def test_an_exception_of_an_app_is_kept_like_any_other() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with session.get("http://b.internal/") as response:
            if response.status == 503:
                raise LookupError("the app does not know 503")
        await respond(send)

    errors: list[Exception | None] = []
    session: ClientSession

    async def scenario(shake: Shake) -> None:
        nonlocal session
        connector = ASGIRoutingConnector({"a.internal": app, "b.internal": hello}, lifespan="off")
        async with ClientSession(connector=connector) as session:
            with shake(connector):
                await get(session)
        errors.append(shake.error)

    assert await faults.explore(scenario, [faults.Respond(503)], together=1)
    assert [type(error) for error in errors] == [type(None), type(None), LookupError]


def failing_by_hand(shake: Shake) -> Iterator[BaseException]:
    """Yield what a scenario may raise to say that it fails."""
    yield AssertionError("by hand")
    yield pytest.fail.Exception("by hand")
    yield pytest.skip.Exception("by hand")
    yield ExceptionGroup("group", [OSError(), AssertionError("by hand")])
    yield BaseExceptionGroup("group", [pytest.fail.Exception("by hand")])
    yield asyncio.CancelledError("by hand")


@pytest.mark.parametrize("inside", [True, False], ids=["in the block", "after the block"])
@pytest.mark.parametrize("number", range(6))
async def test_what_is_raised_on_purpose_is_a_finding(number: int, inside: bool) -> None:
    async def scenario(shake: Shake) -> None:
        [*errors] = failing_by_hand(shake)

        async def act(session: ClientSession) -> None:
            try:
                await get(session)
            except aiohttp.ClientError:
                if inside:
                    raise errors[number] from None

        await with_one_app(shake, act)
        if shake.plan.faults:
            raise errors[number]

    report = await faults.explore(scenario, REFUSE, together=1)
    [finding] = report.findings
    assert "by hand" in str(finding.error) or "group" in str(finding.error)


async def test_the_exception_of_an_assertion_in_an_app_is_a_finding() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with session.get("http://b.internal/") as response:
            assert response.status == 200
        await respond(send)

    session: ClientSession

    async def scenario(shake: Shake) -> None:
        nonlocal session
        connector = ASGIRoutingConnector({"a.internal": app, "b.internal": hello}, lifespan="off")
        async with ClientSession(connector=connector) as session:
            with shake(connector):
                await get(session)

    report = await faults.explore(scenario, [faults.Respond(503)], together=1)
    assert [str(finding.plan.faults[0].call.host) for finding in report.findings] == ["b.internal"]


# The first run.


@pytest.mark.parametrize("error", [LookupError("no fault yet"), AssertionError("no fault yet")])
async def test_a_scenario_must_pass_without_a_fault(error: Exception) -> None:
    async def scenario(shake: Shake) -> None:
        await with_one_app(shake)
        raise error

    with pytest.raises(type(error), match="no fault yet") as caught:
        await faults.explore(scenario, REFUSE)
    assert caught.value.__notes__ == ["explore() has not tried a fault yet: the scenario fails without one"]


async def test_an_exception_that_leaves_the_block_without_a_fault_goes_on() -> None:
    async def act(session: ClientSession) -> None:
        raise LookupError("no fault yet")

    with pytest.raises(LookupError, match="no fault yet"):
        await faults.explore(lambda shake: with_one_app(shake, act), REFUSE)


async def test_an_exception_before_the_fault_has_met_a_call_goes_on() -> None:
    async def act(session: ClientSession) -> None:
        runs.append(None)
        if len(runs) == 2:
            raise LookupError("this has nothing to do with the fault")
        await get(session)

    runs: list[None] = []
    report = await faults.explore(lambda shake: with_one_app(shake, act), REFUSE)
    assert [finding.summary for finding in report.findings] == ["LookupError: this has nothing to do with the fault"]
    assert len(report.diverged) == 1


async def test_a_scenario_without_a_block_is_refused() -> None:
    async def scenario(shake: Shake) -> None:
        await with_one_app(Shake(Plan()))

    with pytest.raises(RuntimeError, match=r"no mounted app in a shake block: write 'with shake\(connector\):'"):
        await faults.explore(scenario, REFUSE)


async def test_a_call_to_an_unmounted_host_is_no_call_to_explore() -> None:
    async def act(session: ClientSession) -> None:
        with suppress(aiohttp.ClientError):
            await session.get("http://elsewhere.internal/")

    with pytest.raises(RuntimeError, match="has called no mounted app"):
        await faults.explore(lambda shake: with_one_app(shake, act), REFUSE)


# The block.


async def test_a_connector_is_in_one_block_at_a_time() -> None:
    async def scenario(shake: Shake) -> None:
        connector = ASGIRoutingConnector({"a.internal": hello}, lifespan="off")
        async with connector:
            with (
                shake(connector),
                pytest.raises(RuntimeError, match="is in a shake block already"),
                shake(connector),
            ):
                pass
            with shake(connector):  # and again after its end
                pass
            async with ClientSession(connector=connector) as session:
                with shake(connector):
                    await get(session)

    assert await faults.explore(scenario, REFUSE)


async def test_what_is_no_connector_is_refused() -> None:
    async with ClientSession() as session:
        with (
            pytest.raises(TypeError, match="takes an ASGIRoutingConnector or an ASGIApplicationConnector, not <"),
            Shake(Plan())(session),  # type: ignore[arg-type]
        ):
            pass


async def test_a_connector_without_an_app_is_refused() -> None:
    async with ASGIRoutingConnector() as connector:
        with pytest.raises(RuntimeError, match="nothing is mounted at"), Shake(Plan())(connector):
            pass


async def test_several_blocks_and_several_connectors_are_one_run() -> None:
    seen: list[list[str]] = []

    async def scenario(shake: Shake) -> None:
        first, second = (ASGIRoutingConnector({"a.internal": hello}, lifespan="off") for _ in range(2))
        async with ClientSession(connector=first) as one, ClientSession(connector=second) as other:
            with shake(first), shake(second), suppress(aiohttp.ClientError):
                await one.post("http://a.internal/")
                await other.post("http://a.internal/")
            await one.post("http://a.internal/")  # not in a block
            with shake(first):
                await one.post("http://a.internal/")
        seen.append([f"{call}: {exchange.outcome}" for call, exchange in zip(shake.calls, shake.journal, strict=True)])

    report = await faults.explore(scenario, [faults.Respond(503)], together=1)
    assert report
    names = ["POST a.internal/", "POST a.internal/ (connector 2)", "POST a.internal/ (number 2)"]
    failed = "503 via fault [Respond(status=503)]"
    assert seen == [
        [f"{name}: {failed if number == affected else '200'}" for number, name in enumerate(names)]
        for affected in (None, 0)
    ] + [
        [f"{name}: {failed if number in affected else '200'}" for number, name in enumerate(names)]
        for affected in ((0, 2), (1,), (2,))
    ]


async def test_the_events_of_several_connectors_are_in_one_order() -> None:
    """So that a diagram of the run shows them in the order in which they happened."""

    async def scenario(shake: Shake) -> None:
        for _ in range(3):
            connector = ASGIRoutingConnector({"a.internal": hello}, lifespan="off")
            async with ClientSession(connector=connector) as session:
                with connector.record():
                    await get(session)  # events before the block
                with shake(connector):
                    await get(session)
        orders = [number for exchange in shake.journal for number in exchange.order if number is not None]
        assert len(orders) == 6
        assert orders == sorted(set(orders))

    assert await faults.explore(scenario, REFUSE, runs=1)


async def test_the_journal_of_a_run_can_be_waited_for() -> None:
    """Whichever connector the call is made on; the connector's own journal is not forgotten."""

    async def scenario(shake: Shake) -> None:
        first, second = (ASGIRoutingConnector({"a.internal": hello}, lifespan="off") for _ in range(2))
        async with ClientSession(connector=first) as one, ClientSession(connector=second) as other:
            with shake(first), shake(second), second.record() as journal:
                for session in (one, other):
                    waiting = asyncio.create_task(shake.journal.wait_for(times=len(shake.journal) + 1, timeout=SOON))
                    await settle()
                    with suppress(aiohttp.ClientError):
                        await get(session)
                    await waiting
                await journal.wait_for(timeout=SOON)

    assert await faults.explore(scenario, REFUSE)


async def test_a_fault_that_the_scenario_injects_itself_stays() -> None:
    async def act(session: ClientSession) -> None:
        assert isinstance(session.connector, ASGIRoutingConnector)
        with session.connector.inject("b.internal", faults.Respond(418)):
            async with session.get("http://b.internal/") as response:
                assert response.status == 418
        with suppress(aiohttp.ClientError):
            await get(session)

    assert await faults.explore(lambda shake: with_one_app(shake, act), REFUSE)


# Divergence.


async def test_a_scenario_that_does_not_repeat_its_calls_diverges() -> None:
    runs = iter(range(100))

    async def act(session: ClientSession) -> None:
        with suppress(aiohttp.ClientError):
            await session.post(f"http://a.internal/{next(runs)}")

    report = await faults.explore(lambda shake: with_one_app(shake, act), REFUSE)
    assert not report
    assert report.findings == []
    assert [str(plan) for plan in report.diverged] == ["Refuse() on POST a.internal/0"]
    assert [call.path for call in report.calls] == ["/0", "/1"]


# Bounds.


async def test_the_number_of_runs_is_bounded() -> None:
    report = await faults.explore(with_one_app, AT_ONCE, runs=2)
    assert report.runs == 2
    assert [str(plan) for plan in report.untried] == [
        "Reset() on GET a.internal/",
        "Respond(503) on GET a.internal/",
    ]
    report = await faults.explore(with_one_app, AT_ONCE, runs=1)
    assert len(report.untried) == 3


async def test_the_real_time_is_bounded() -> None:
    """The second run begins before the limit and ends after it."""
    runs = 0

    async def scenario(shake: Shake) -> None:
        nonlocal runs
        runs += 1
        await with_one_app(shake)
        await asyncio.sleep(0.5 if runs == 1 else 0.6)

    report = await faults.explore(scenario, AT_ONCE, seconds=1)
    assert report.runs == 2
    assert len(report.untried) == 2


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, virtual_time])
def test_a_run_that_hangs_is_a_finding(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def scenario(shake: Shake) -> None:
        await with_one_app(shake)
        if shake.error is not None:
            await asyncio.Event().wait()

    async def explore() -> Report:
        return await faults.explore(scenario, REFUSE, seconds=1)

    with asyncio.Runner(loop_factory=loop) as runner:
        [finding] = runner.run(explore()).findings
    assert finding.summary == f"TimeoutError: {TOO_LONG.format(1)}"
    assert isinstance(finding.error.__cause__, TimeoutError)


async def test_a_run_that_hangs_without_a_fault_is_raised() -> None:
    async def scenario(shake: Shake) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match=re.escape(TOO_LONG.format(0.1))):
        await faults.explore(scenario, REFUSE, seconds=0.1)


async def test_a_run_that_is_not_ended_by_its_cancellation_is_a_finding_too() -> None:
    async def scenario(shake: Shake) -> None:
        await with_one_app(shake)
        if shake.error is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    report = await faults.explore(scenario, REFUSE, seconds=1)
    assert [finding.summary for finding in report.findings] == [f"TimeoutError: {TOO_LONG.format(1)}"]


async def test_a_timeout_of_the_scenario_itself_is_not_taken_for_one_of_the_exploration() -> None:
    with pytest.raises(TimeoutError, match="its own"):
        async with real_timeout(SOON):
            raise TimeoutError("its own")
    with pytest.raises(LookupError, match="its own"):
        async with real_timeout(SOON):
            raise LookupError("its own")


# Cancellation.


@pytest.mark.parametrize("swallows", [False, True], ids=["it ends", "it goes on"])
@pytest.mark.parametrize("first", [True, False], ids=["first run", "later run"])
async def test_an_exploration_can_be_cancelled(first: bool, swallows: bool) -> None:
    waiting = asyncio.Event()
    runs = 0

    async def scenario(shake: Shake) -> None:
        nonlocal runs
        runs += 1
        await with_one_app(shake)
        if first or shake.plan.faults:
            waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not swallows:
                    raise

    exploration = asyncio.create_task(faults.explore(scenario, AT_ONCE))
    await waiting.wait()
    exploration.cancel()
    await asyncio.wait([exploration])
    assert exploration.cancelled()
    assert runs == (1 if first else 2)


async def test_a_timeout_around_an_exploration_ends_it() -> None:
    async def scenario(shake: Shake) -> None:
        await with_one_app(shake)
        if shake.plan.faults:
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await faults.explore(scenario, REFUSE)


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a group"])
@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_is_no_finding(leaving: type[BaseException], grouped: bool) -> None:
    async def scenario(shake: Shake) -> None:
        await with_one_app(shake)
        if shake.plan.faults:
            raise BaseExceptionGroup("group", [ValueError(), leaving()]) if grouped else leaving

    async def explore() -> None:
        with pytest.raises(BaseExceptionGroup if grouped else leaving):
            await faults.explore(scenario, REFUSE)

    asyncio.run(explore())


# What is left.


@pytest.mark.parametrize("system", SYSTEMS)
async def test_nothing_is_left_after_an_exploration(system: str) -> None:
    async def scenario(shake: Shake) -> None:
        async with SYSTEMS[system]() as (connector, act):
            with shake(connector):
                await act()

    assert await faults.explore(scenario, [faults.Refuse(), faults.Reset(on="request")], runs=20)
    await settle()
    no_task_and_no_timer_is_left()


async def test_a_task_that_a_scenario_leaves_behind_does_not_change_later_runs() -> None:
    left: list[asyncio.Task[None]] = []

    async def scenario(shake: Shake) -> None:
        async def calls_later(session: ClientSession) -> None:
            await asyncio.sleep(0)
            with suppress(aiohttp.ClientError, RuntimeError):
                await get(session)

        async def act(session: ClientSession) -> None:
            await get(session)
            left.append(asyncio.create_task(calls_later(session)))

        await with_one_app(shake, act)

    report = await faults.explore(scenario, REFUSE)
    assert report
    assert [str(call) for call in report.calls] == ["GET a.internal/"]
    await asyncio.gather(*left)


# Parameters.


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"faults": []}, ValueError, "faults must have a fault at least, such as faults.Reset()"),
        ({"faults": faults.Reset()}, TypeError, "faults must be a list, such as [faults.Refuse(), faults.Reset()]"),
        ({"faults": None}, TypeError, "faults must be a list"),
        ({"faults": [faults.Reset]}, TypeError, "faults must be of asgi_connector.faults, such as faults.Reset()"),
        ({"faults": ["Reset"]}, TypeError, "not 'Reset'"),
        ({"scenario": None}, TypeError, "scenario must be an async function that takes a Shake, not None"),
        ({"together": 0}, ValueError, "together must be 1 or more, not 0"),
        ({"together": 1.0}, TypeError, "together must be an int, not 1.0"),
        ({"runs": 0}, ValueError, "runs must be 1 or more, not 0"),
        ({"seconds": 0}, ValueError, "seconds must be more than 0"),
        ({"seconds": "30"}, TypeError, "seconds must be an int or a float, not '30'"),
        ({"seconds": float("inf")}, ValueError, "seconds must not be negative, nor infinite, but is inf"),
    ],
)
async def test_a_parameter_is_checked_before_the_first_run(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    async def scenario(shake: Shake) -> None:
        raise AssertionError("it has run")

    arguments = {"scenario": scenario, "faults": REFUSE, **settings}
    with pytest.raises(error, match=re.escape(message)):
        await faults.explore(**arguments)


async def test_a_scenario_that_is_not_async_is_refused() -> None:
    def scenario(shake: Shake) -> int:
        return 1

    with pytest.raises(TypeError, match="scenario must be an async function, but it has returned 1"):
        await faults.explore(scenario, REFUSE)  # type: ignore[arg-type]


def test_an_exploration_outside_of_asyncio_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"explore\(\) runs in an event loop of asyncio, and none is running"):
        faults.explore(with_one_app, REFUSE).send(None)


async def test_the_faults_may_come_from_a_generator_and_twice() -> None:
    report = await faults.explore(with_one_app, (fault for fault in [*REFUSE, *REFUSE]))
    assert report.runs == 2


def test_faults_of_all_kinds_can_be_explored() -> None:
    """In virtual time, where one that takes long costs nothing."""
    tried: list[faults.Fault] = [
        *TRIED,
        faults.Unresolvable(),
        faults.Close(after=3),
        faults.Hang(),
        faults.Hang(on="connect"),
        faults.Throttle(1),
    ]

    async def scenario(shake: Shake) -> None:
        async with SYSTEMS["one order after another"]() as (connector, act):
            with shake(connector):
                await act()

    async def explore() -> Report:
        return await faults.explore(scenario, tried, together=1)

    with asyncio.Runner(loop_factory=virtual_time) as runner:
        report = runner.run(explore())
    assert report, report
    assert report.runs > 4 * len(tried)
