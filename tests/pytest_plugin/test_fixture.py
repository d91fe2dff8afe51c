"""The fixture `asgi_journal`, and the arguments of the mark."""

import pytest

import asgi_connector._pytest.watch
from tests.pytest_plugin.conftest import Run


@pytest.mark.parametrize("journal", ["on-failure", "off"])
def test_the_fixture_is_the_journal_of_the_test(run: Run, journal: str) -> None:
    outcome = run(
        """
@pytest.fixture
async def session():
    async with opened() as session:
        await get(session, "http://users.internal/users/1")
        yield session

@pytest.mark.parametrize("number", [1, 2])
async def test(session, asgi_journal, number):
    assert [exchange.path for exchange in asgi_journal] == ["/users/1"]
    await get(session)
    asgi_journal.assert_called("users.internal", caller="orders.internal", times=1)
    assert len(asgi_journal) == 3
""",
        f"--asgi-journal={journal}",
    )
    assert outcome.counts == {"passed": 2}


@pytest.mark.parametrize("journal", ["on-failure", "off"])
def test_it_has_the_calls_of_all_connectors_in_the_order_of_their_start(run: Run, journal: str) -> None:
    outcome = run(
        """
async def test(asgi_journal):
    assert not asgi_journal
    async with opened() as one, opened() as other:
        for number, session in enumerate([one, other, one]):
            await get(session, f"http://users.internal/users/{number}")
    assert [exchange.path for exchange in asgi_journal] == ["/users/0", "/users/1", "/users/2"]
""",
        f"--asgi-journal={journal}",
    )
    assert outcome.counts == {"passed": 1}


def test_it_can_wait_for_a_call_through_any_of_them(run: Run) -> None:
    """The call ends in the turn in which the client reads it, and no later request wakes who waits."""
    outcome = run("""
async def test(asgi_journal):
    async with opened() as one, opened() as other:
        for number, session in enumerate([one, other]):
            call = asyncio.create_task(get(session, f"http://users.internal/users/{number}"))
            [found] = await asgi_journal.wait_for(path=f"/users/{number}", timeout=30)
            assert found.status == 200
            await call
""")
    assert outcome.counts == {"passed": 1}


def test_a_test_may_ask_for_it_late(run: Run) -> None:
    """Without a journal for reports, nothing was recorded before."""
    outcome = run(
        """
async def test(request):
    async with opened() as session:
        await get(session, "http://users.internal/users/1")
        journal = request.getfixturevalue("asgi_journal")
        await get(session, "http://users.internal/users/2")
        assert [exchange.path for exchange in journal] == ["/users/2"]
""",
        "--asgi-journal=off",
    )
    assert outcome.counts == {"passed": 1}


def test_the_own_recording_of_a_test_is_not_affected(run: Run) -> None:
    outcome = run("""
async def test(asgi_journal):
    async with opened() as session:
        await get(session, "http://users.internal/users/1")
        with session.connector.record(bodies=True) as journal:
            await get(session, "http://users.internal/users/2")
        [exchange] = journal
        assert exchange.response.body == b'{"name":"Ada"}'
        assert len(asgi_journal) == 2
""")
    assert outcome.counts == {"passed": 1}


def test_bodies_are_recorded_where_the_mark_says_so(run: Run) -> None:
    outcome = run("""
async def test_without(asgi_journal):
    async with opened() as session:
        await get(session, "http://users.internal/users/1")
    assert asgi_journal[0].response.body is None

@pytest.mark.asgi_connector(bodies=True)
class TestWith:
    @pytest.mark.asgi_connector(refused="allow")
    async def test(self, asgi_journal):
        async with opened() as session:
            await get(session, "http://users.internal/users/1")
        assert asgi_journal[0].response.body == b'{"name":"Ada"}'
""")
    assert outcome.counts == {"passed": 2}


def test_a_connector_may_be_gone_before_a_test_asks(run: Run) -> None:
    outcome = run(
        """
import gc

@pytest.mark.filterwarnings("ignore")
def test(request):
    async def main():
        async with opened() as session:
            await get(session)
        orders.connector = None
    asyncio.run(main())
    gc.collect()
    assert len(request.getfixturevalue("asgi_journal")) == 0
""",
        "--asgi-journal=off",
    )
    assert outcome.counts == {"passed": 1}


MANY = """
async def test({fixture}):
    async with opened() as session:
        for number in range(10):
            await get(session, f"http://users.internal/users/{{number}}")
    {check}
    assert 0
"""


def test_a_report_needs_only_the_latest_calls(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_connector._pytest.watch, "_KEPT", 3)
    [section] = run(MANY.format(fixture="", check="")).sections
    assert "(6 earlier calls are not shown)\n" in section
    assert "/users/5:" not in section
    assert "/users/6:" in section


def test_what_many_connectors_leave_behind_is_not_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception keeps the variables of the function that has raised it, such as a database of the system."""
    monkeypatch.setattr(asgi_connector._pytest.watch, "_KEPT", 3)
    [section] = run("""
import gc
import weakref

class Database:
    pass

async def use(databases, number):
    database = Database()
    databases.add(database)
    async with opened() as session:
        with pytest.raises(LookupError):
            await get(session, f"http://users.internal/users/500?number={number}")

async def test():
    databases = weakref.WeakSet()
    for number in range(10):
        await use(databases, number)
    gc.collect()
    assert len(databases) == 4
    assert 0, "all is well"
""").sections
    assert "number=5:" not in section
    assert section.count("number=") == section.count("Connector of ") == 4


def test_the_fixture_has_all_calls(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_connector._pytest.watch, "_KEPT", 3)
    outcome = run(MANY.format(fixture="asgi_journal", check="assert len(asgi_journal) == 10, 'some are missing'"))
    assert outcome.counts == {"failed": 1}
    assert "some are missing" not in outcome.text.partition("short test summary")[2]


@pytest.mark.parametrize(
    "arguments",
    ["bodies=1", "'bodies'", "body=True", 'refused="no"', "refused=True", "refused=['allow']"],
)
def test_an_argument_that_the_mark_does_not_have_is_an_error_of_the_test(run: Run, arguments: str) -> None:
    outcome = run(f"""
@pytest.mark.asgi_connector({arguments})
async def test():
    async with opened() as session:
        await get(session)

async def test_after():
    pass
""")
    assert outcome.counts == {"passed": 1, "error": 1}
    written = arguments.replace('"', "'")
    assert f"@pytest.mark.asgi_connector({written}) is not valid: write @pytest.mark.asgi_connector(bodies=True)" in (
        outcome.text
    )


def test_the_mark_is_known(run: Run) -> None:
    outcome = run("@pytest.mark.asgi_connector(bodies=True)\ndef test():\n    pass\n", "--strict-markers")
    assert outcome.counts == {"passed": 1}
    assert "@pytest.mark.asgi_connector(bodies=False, refused=" in run("", "--markers").text
