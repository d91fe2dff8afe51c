"""The plugin beside other plugins, other kinds of tests and other ways to run them."""

import xml.etree.ElementTree as ET

import pytest

from tests.pytest_plugin.conftest import Run

CALLS = (
    "Calls:\n"
    "  GET http://orders.internal/orders/1: 200 in 0 s\n"
    "    orders.internal -> GET http://users.internal/users/1: 200 in 0 s\n"
)

KINDS = {
    "pytest-asyncio, strict": """
@pytest_asyncio.fixture
async def session():
    async with opened() as session:
        yield session

@pytest.mark.asyncio
async def test(session):
    await get(session)
    assert 0
""",
    "anyio": """
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def session(anyio_backend):
    async with opened() as session:
        yield session

async def test(session):
    await get(session)
    assert 0
""",
    "unittest": """
import unittest

class TestOrders(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.session = await self.enterAsyncContext(opened())

    async def test(self):
        await get(self.session)
        assert 0
""",
    "a class": """
class TestOrders:
    @pytest.mark.asyncio
    async def test(self):
        async with opened() as session:
            await get(session)
            assert 0
""",
    "asyncio.run": """
def test():
    async def main():
        async with opened() as session:
            await get(session)
            assert 0
    asyncio.run(main())
""",
    "a loop in another thread": """
import threading

@pytest.fixture(scope="module")
def loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()

@pytest.fixture(scope="module")
def session(loop):
    block = opened()
    yield asyncio.run_coroutine_threadsafe(block.__aenter__(), loop).result()
    asyncio.run_coroutine_threadsafe(block.__aexit__(None, None, None), loop).result()

def test_before(session, loop):
    assert asyncio.run_coroutine_threadsafe(get(session, "http://users.internal/users/2"), loop).result() == 200

def test(session, loop):
    asyncio.run_coroutine_threadsafe(get(session), loop).result()
    assert 0
""",
    "a subtest": """
@pytest.mark.asyncio
async def test(subtests):
    async with opened() as session:
        with subtests.test("an order"):
            await get(session)
            assert 0
""",
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_test_shows_its_calls(run: Run, kind: str) -> None:
    if kind == "a subtest":
        pytest.importorskip("pytest", "9.0", reason="pytest has subtests from 9.0 on")
    outcome = run(KINDS[kind], "-o", "asyncio_mode=strict")
    assert outcome.counts["failed"] >= 1, outcome.text
    assert set(outcome.sections) == {CALLS}


WIDE = """
@pytest_asyncio.fixture(scope={scope!r}, loop_scope={scope!r})
async def session():
    async with opened() as session:
        await get(session, "http://users.internal/users/7")
        yield session

pytestmark = pytest.mark.asyncio(loop_scope={scope!r})

async def test_one(session):
    await get(session, "http://users.internal/users/1")
    assert 0

async def test_passes(session):
    await get(session, "http://users.internal/users/2")

async def test_other(session):
    await get(session, "http://users.internal/users/3")
    assert 0
"""


@pytest.mark.parametrize("scope", ["module", "session"])
def test_a_test_has_only_its_own_calls_of_a_shared_connector(run: Run, scope: str) -> None:
    outcome = run(WIDE.format(scope=scope))
    assert outcome.counts == {"passed": 1, "failed": 2}
    assert [section.count("/users/") for section in outcome.sections] == [2, 1]
    assert "/users/7: 200" in outcome.sections[0]  # the setup of the fixture is a part of the first test
    assert outcome.sections[1] == "Calls:\n  GET http://users.internal/users/3: 200 in 0 s\n"


def test_junit_xml_has_the_section_in_the_failure(run: Run, pytester: pytest.Pytester) -> None:
    outcome = run(
        """
async def test():
    async with opened() as session:
        await get(session)
        assert 0
""",
        "--junit-xml=report.xml",
    )
    assert outcome.sections == [CALLS]  # and once in the terminal
    [failure] = ET.parse(pytester.path / "report.xml").iter("failure")
    assert "orders.internal -> GET http://users.internal/users/1: 200" in (failure.text or "")


def test_junit_xml_of_a_failure_without_a_traceback(run: Run) -> None:
    outcome = run(
        """
async def test():
    async with opened() as session:
        await get(session)
    pytest.fail("as text", pytrace=False)
""",
        "--junit-xml=report.xml",
        "--tb=native",
    )
    assert outcome.sections == [CALLS]


def test_last_failed_runs_the_test_that_failed_for_a_refused_call(run: Run, pytester: pytest.Pytester) -> None:
    source = """
async def test_passes():
    pass

async def test_refused():
    async with opened() as session:
        await get(session, REFUSED)
"""
    assert run(source).counts == {"passed": 1, "failed": 1}
    assert run(source, "--lf").counts == {"failed": 1}


def test_pytest_runs_without_the_plugin(run: Run) -> None:
    outcome = run(
        """
async def test():
    async with opened() as session:
        await get(session, REFUSED)

async def test_fails():
    async with opened() as session:
        await get(session)
        assert 0
""",
        "-p",
        "no:asgi_connector",
    )
    assert (outcome.counts, outcome.sections) == ({"passed": 1, "failed": 1}, [])


def test_collecting_alone_runs_nothing(run: Run) -> None:
    outcome = run(
        "@pytest.mark.asgi_connector(bodies=True)\nasync def test(asgi_journal):\n    pass\n", "--collect-only"
    )
    assert "1 test collected" in outcome.text


def test_doctests_run(run: Run) -> None:
    outcome = run('def add():\n    """\n    >>> 1 + 1\n    3\n    """\n', "--doctest-modules")
    assert outcome.counts == {"failed": 1}


def test_a_test_that_is_run_again_begins_anew(run: Run) -> None:
    """As pytest-rerunfailures does it: the phases of an item, a second time."""
    outcome = run(
        """
runs = []

async def test(asgi_journal):
    async with opened() as session:
        runs.append(1)
        await get(session, f"http://users.internal/users/{len(runs)}")
        assert len(asgi_journal) == 1
        assert len(runs) == 2
""",
        conftest="""
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in runtestprotocol(item, nextitem=nextitem, log=False):
        item.ihook.pytest_runtest_logreport(report=report)
    item._initrequest()
    runtestprotocol(item, nextitem=nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
""",
    )
    assert outcome.counts == {"passed": 1, "failed": 1}
    [section] = outcome.sections
    assert section == "Calls:\n  GET http://users.internal/users/1: 200 in 0 s\n"


def test_a_connector_that_is_gone_or_closed_is_not_watched(run: Run) -> None:
    outcome = run("""
import gc

kept = []

async def test_makes_them():
    async with opened() as session:
        kept.append(session.connector)
    async with opened():
        pass
    gc.collect()

async def test_is_not_recorded():
    assert kept[0].closed
    assert not kept[0]._instruments.recorder.recording

async def test_fails():
    assert 0
""")
    assert outcome.counts == {"passed": 2, "failed": 1}
    assert outcome.sections == []


def test_a_stub_of_an_earlier_test_is_not_told(run: Run) -> None:
    outcome = run("""
stub = Stub()
stub.get("/of-the-module")
kept = [stub]

async def test_makes_one():
    kept.append(Stub())
    kept[1].get("/of-a-test")

async def test_fails():
    async with opened() as session:
        await get(session)
        assert 0
""")
    assert outcome.counts == {"passed": 1, "failed": 1}
    assert outcome.sections == [CALLS]


def test_a_connector_that_a_test_forgets_is_shown(run: Run) -> None:
    outcome = run("""
import gc

@pytest.mark.filterwarnings("ignore")
def test():
    async def main():
        async with opened() as session:
            await get(session)
        orders.connector = None
    asyncio.run(main())
    gc.collect()
    assert 0
""")
    assert outcome.sections == [CALLS]


def test_a_shared_connector_that_a_test_does_not_use_is_not_shown(run: Run) -> None:
    outcome = run("""
@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def shared():
    async with opened():
        yield

async def test_before():
    pass

async def test():
    async with opened() as session:
        await get(session)
        assert 0
""")
    assert outcome.counts == {"passed": 1, "failed": 1}
    assert outcome.sections == [CALLS]


def test_a_connector_that_is_older_than_the_first_test_is_watched(run: Run) -> None:
    outcome = run("""
loop = asyncio.new_event_loop()
block = opened()
session = loop.run_until_complete(block.__aenter__())

def teardown_module():
    loop.run_until_complete(block.__aexit__(None, None, None))
    loop.close()

def test():
    loop.run_until_complete(get(session))
    assert 0
""")
    assert outcome.sections == [CALLS]


def test_a_run_inside_of_a_test_is_on_its_own(run: Run) -> None:
    """As in the tests of a pytest plugin that uses connectors."""
    outcome = run(
        """
def test_outer(pytester, asgi_journal):
    pytester.makepyfile('''
from system import *

def test_inner():
    async def main():
        async with opened() as session:
            await get(session, REFUSED)
    asyncio.run(main())
''')
    pytester.makeini("[pytest]\\nasyncio_default_fixture_loop_scope = function")
    result = pytester.runpytest_inprocess("-p", "no:looptime_plugin", "-p", "no:faker")
    result.assert_outcomes(failed=1)

    async def main():
        async with opened() as session:
            await get(session)
    asyncio.run(main())
    assert len(asgi_journal) == 2
""",
        "-p",
        "pytester",
    )
    assert outcome.counts == {"passed": 1}, outcome.text
