"""A test in which a call of a service was refused fails, unless that is allowed."""

import pytest

from tests.pytest_plugin.conftest import Run

REFUSED = """
async def test():
    async with opened() as session:
        assert await get(session, REFUSED) == 200
"""


def test_the_test_fails_and_says_which_call(run: Run) -> None:
    outcome = run(REFUSED)
    assert outcome.counts == {"failed": 1}
    expected = (
        "1 call of a service was refused during the test:\n"
        "- orders.internal: GET http://user.internal/users/1\n"
        "  No app is mounted for http://user.internal, and there is no fallback. Did you mean 'users.internal'? "
        "Mounted: 'users.internal', 'orders.internal'.\n"
        'Mount these hosts, or mark the test with @pytest.mark.asgi_connector(refused="allow").\n'
    )
    assert expected in outcome.text
    [section] = outcome.sections
    assert section.startswith(
        "Refused, because no app is mounted:\n  orders.internal -> GET http://user.internal/users/1\n"
    )


def test_a_call_that_is_refused_again_and_again_is_named_once(run: Run) -> None:
    outcome = run("""
async def test():
    async with opened() as session:
        for _ in range(3):
            await get(session, REFUSED)
""")
    assert "3 calls of services were refused during the test:" in outcome.text
    report = outcome.text.partition("short test summary")[0]  # which has it again if the environment variable CI is set
    assert report.count("- orders.internal: GET http://user.internal/users/1") == 1
    assert report.count("(3 times)") == 2
    [section] = outcome.sections
    assert section.count("No app is mounted for http://user.internal") == 1


def test_only_so_many_calls_are_listed(run: Run) -> None:
    outcome = run("""
async def test():
    async with opened() as session:
        for n in range(25):
            await get(session, f"http://orders.internal/orders/{n}?host=user&handled=1")
""")
    assert "25 calls of services were refused during the test:" in outcome.text
    assert "and 5 others\n" in outcome.text
    [section] = outcome.sections
    assert "  (5 more)\n" in section


def test_a_call_of_the_test_itself_does_not_count(run: Run) -> None:
    outcome = run("""
async def test():
    async with opened() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await get(session, "http://user.internal/")
""")
    assert outcome.counts == {"passed": 1}


ALLOWED = {
    "test": """
@pytest.mark.asgi_connector(refused="allow")
async def test():
    async with opened() as session:
        await get(session, REFUSED)
""",
    "class": """
@pytest.mark.asgi_connector(refused="allow")
class TestOrders:
    @pytest.mark.asgi_connector(bodies=True)
    async def test(self):
        async with opened() as session:
            await get(session, REFUSED)
""",
    "module": f"""
pytestmark = pytest.mark.asgi_connector(refused="allow")
{REFUSED}""",
}


@pytest.mark.parametrize("level", ALLOWED)
@pytest.mark.parametrize("journal", ["on-failure", "off"])
def test_a_mark_allows_it(run: Run, level: str, journal: str) -> None:
    assert run(ALLOWED[level], f"--asgi-journal={journal}").counts == {"passed": 1}


def test_the_ini_file_allows_it(run: Run) -> None:
    assert run(REFUSED, ini="asgi_connector_refused = allow").counts == {"passed": 1}


def test_a_nearer_mark_forbids_it_again(run: Run) -> None:
    outcome = run(f"""
pytestmark = pytest.mark.asgi_connector(refused="allow")

@pytest.mark.asgi_connector(refused="fail"){REFUSED}""")
    assert outcome.counts == {"failed": 1}


def test_the_mark_forbids_what_the_ini_file_allows(run: Run) -> None:
    outcome = run(f'@pytest.mark.asgi_connector(refused="fail"){REFUSED}', ini="asgi_connector_refused = allow")
    assert outcome.counts == {"failed": 1}


def test_it_holds_without_a_journal_too(run: Run) -> None:
    outcome = run(REFUSED, "--asgi-journal=off")
    assert (outcome.counts, outcome.sections) == ({"failed": 1}, [])
    assert "1 call of a service was refused during the test:" in outcome.text


@pytest.mark.parametrize(
    ("statement", "counts"),
    [("assert 0", {"failed": 1}), ("pytest.skip('later')", {"skipped": 1}), ("pytest.xfail('later')", {"xfailed": 1})],
)
def test_a_test_that_has_ended_otherwise_is_left_alone(run: Run, statement: str, counts: dict[str, int]) -> None:
    outcome = run(f"""
@pytest.fixture
async def session():
    async with opened() as session:
        yield session

async def test(session):
    await get(session, REFUSED)
    {statement}
""")
    assert outcome.counts == counts
    assert "was refused during the test" not in outcome.text


@pytest.mark.parametrize(
    ("mark", "counts"), [("", {"xfailed": 1}), ("strict=True", {"xfailed": 1}), ("raises=KeyError", {"failed": 1})]
)
def test_it_is_a_failure_that_can_be_expected(run: Run, mark: str, counts: dict[str, int]) -> None:
    assert run(f"@pytest.mark.xfail({mark}){REFUSED}").counts == counts


@pytest.mark.parametrize(("phase", "counts"), [("setup", {"failed": 1}), ("teardown", {"passed": 1, "error": 1})])
def test_calls_of_fixtures_count_too(run: Run, phase: str, counts: dict[str, int]) -> None:
    outcome = run(f"""
@pytest.fixture
async def session():
    async with opened() as session:
        if {phase!r} == "setup":
            await get(session, REFUSED)
        yield session
        if {phase!r} == "teardown":
            await get(session, REFUSED)

async def test(session):
    pass
""")
    assert outcome.counts == counts
    assert len(outcome.sections) == 1


def test_a_refusal_is_reported_for_its_test_only(run: Run) -> None:
    outcome = run(
        """
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session():
    async with opened() as session:
        yield session

pytestmark = pytest.mark.asyncio(loop_scope="module")

async def test_before(session):
    await get(session)

async def test_refused(session):
    await get(session, REFUSED)

async def test_after(session):
    await get(session)
""",
        "-rA",
    )
    assert outcome.counts == {"passed": 2, "failed": 1}
    assert "FAILED test_it.py::test_refused" in outcome.text


INTERCEPTING = """
@pytest.fixture
async def session():
    async with opened() as session:
        with session.connector.intercept({settings}):
            yield session

async def test(session):
    await get(session, REFUSED)
"""


def test_an_intercept_block_of_the_test_reports_its_own_calls(run: Run) -> None:
    outcome = run("""
async def test():
    async with opened() as session:
        with session.connector.intercept():
            await get(session, REFUSED)
""")
    assert outcome.counts == {"failed": 1}
    assert "1 call of a service was refused in an intercept() block:" in outcome.text
    assert "during the test" not in outcome.text


def test_the_call_in_the_block_of_a_fixture_is_the_failure_of_the_test(run: Run) -> None:
    """It is not an error of the fixture as well."""
    outcome = run(INTERCEPTING.format(settings=""))
    assert outcome.counts == {"failed": 1}
    assert "in an intercept() block" not in outcome.text


def test_a_block_that_allows_it_allows_it(run: Run) -> None:
    assert run(INTERCEPTING.format(settings="allow_refused=True")).counts == {"passed": 1}


def test_a_block_for_all_tests_names_the_test(run: Run) -> None:
    outcome = run(
        """
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session():
    async with opened() as session:
        with session.connector.intercept():
            yield session

pytestmark = pytest.mark.asyncio(loop_scope="module")

async def test_refused(session):
    await get(session, REFUSED)

@pytest.mark.asgi_connector(refused="allow")
async def test_allowed(session):
    await get(session, REFUSED)

async def test_skipped(session):
    await get(session, REFUSED)
    pytest.skip("later")

async def test_after(session):
    await get(session)
""",
        "-rA",
    )
    assert outcome.counts == {"passed": 2, "skipped": 1, "failed": 1}
    assert "FAILED test_it.py::test_refused" in outcome.text


def test_without_the_journal_a_failed_test_leaves_the_call_to_its_block(run: Run) -> None:
    outcome = run(f"{INTERCEPTING.format(settings='')}    assert 0\n", "--asgi-journal=off")
    assert outcome.counts == {"failed": 1, "error": 1}
    assert "1 call of a service was refused in an intercept() block:" in outcome.text


def test_the_fallback_of_a_connector_refuses_too(run: Run) -> None:
    outcome = run("""
async def test():
    inner = ASGIRoutingConnector({"mail.internal": users})
    async with opened(fallback=inner) as session:
        await get(session, REFUSED)
""")
    assert outcome.counts == {"failed": 1}
    assert "Mounted: 'mail.internal'." in outcome.text
