"""Which reports have a section, and what it says."""

import re

import pytest

from tests.pytest_plugin.conftest import Run


def test_a_failing_test_shows_the_calls(run: Run) -> None:
    outcome = run("""
async def test():
    async with opened() as session:
        await get(session)
        assert 0
""")
    assert outcome.counts == {"failed": 1}
    [section] = outcome.sections
    assert re.fullmatch(
        r"Calls:\n"
        r"  GET http://orders\.internal/orders/1: 200 in 0 s\n"
        r"    orders\.internal -> GET http://users\.internal/users/1: 200 in 0 s\n",
        section,
    )


REASONS = {
    "a host that is not mounted": (
        "await get(session, 'http://orders.internal/orders/1?host=user')",
        r"""Refused, because no app is mounted:
  orders\.internal -> GET http://user\.internal/users/1
    No app is mounted for http://user\.internal, .* Did you mean 'users\.internal'\? .*
    called at system\.py:\d+ in get_order: async with session\.get\(.*
Calls:
! GET http://orders\.internal/orders/1\?host=user: failed \(UnmountedHostError\) in 0 s
!   orders\.internal -> GET http://user\.internal/users/1: refused in 0 s
""",
    ),
    "an exception": (
        "await get(session, 'http://orders.internal/orders/500')",
        r"""Calls:
! GET http://orders\.internal/orders/500: failed \(LookupError\) in 0 s
!   orders\.internal -> GET http://users\.internal/users/500: failed \(LookupError: no such user\) in 0 s
        raised at system\.py:\d+ in get_user: raise LookupError\("no such user"\)
""",
    ),
    "a fault": (
        """
        with session.connector.inject("users.internal", faults.Refuse()):
            await get(session)
""",
        r"""Calls:
! GET http://orders\.internal/orders/1: failed \(ClientConnectorError\) in 0 s
!   orders\.internal -> GET http://users\.internal/users/1: failed \(ClientConnectorError: .*\) via fault \[Refuse.*
        raised at system\.py:\d+ in get_order: async with session\.get\(.*
        caused by ConnectionRefusedError: .*
""",
    ),
    "a call that hangs": (
        "await get(session, 'http://orders.internal/orders/3600', timeout=aiohttp.ClientTimeout(total=0.1))",
        r"""Calls:
! GET http://orders\.internal/orders/3600: abandoned in 0 s
!   orders\.internal -> GET http://users\.internal/users/3600: abandoned in 0 s
        its app waited at system\.py:\d+ in get_user: await asyncio\.sleep\(number\), and was cancelled
""",
    ),
    "a status deep in the tree": (
        "assert await get(session, 'http://orders.internal/orders/404') == 404",
        r"""Calls:
  GET http://orders\.internal/orders/404: 200 in 0 s
!   orders\.internal -> GET http://users\.internal/users/404: 404 in 0 s
""",
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_the_section_alone_shows_the_reason(run: Run, reason: str) -> None:
    statement, expected = REASONS[reason]
    outcome = run(f"""
async def test():
    async with opened() as session:
        {statement}
""")
    assert outcome.counts == {"failed": 1}
    [section] = outcome.sections
    assert re.fullmatch(expected, section), section


def test_an_app_that_still_waits_is_shown_with_its_place(run: Run) -> None:
    """The fixture closes the connector after the report."""
    outcome = run("""
@pytest.fixture
async def session():
    async with opened() as session:
        yield session

async def test(session):
    await get(session, 'http://orders.internal/orders/3600', timeout=aiohttp.ClientTimeout(total=0.1))
""")
    [section] = outcome.sections
    assert re.search(
        r"!   orders\.internal -> GET http://users\.internal/users/3600: running for 0 s so far\n"
        r"        its app waits at system\.py:\d+ in get_user: await asyncio\.sleep\(number\)\n",
        section,
    ), section


LIFESPAN = """
@asynccontextmanager
async def lifespan(app):
    if {fails_at!r} == "startup":
        raise OSError("no database")
    yield
    raise OSError("no database")

async def test():
    async with opened(apps={{"mail.internal": FastAPI(lifespan=lifespan)}}):
        pass
"""


@pytest.mark.parametrize(("fails_at", "failed"), [("startup", "to start"), ("shutdown", "to shut down")])
def test_a_lifespan_that_fails_is_told(run: Run, fails_at: str, failed: str) -> None:
    outcome = run(LIFESPAN.format(fails_at=fails_at))
    [section] = outcome.sections
    assert re.fullmatch(
        r"Calls:\n"
        r"  There was no call\. Mounted: 'users\.internal', 'orders\.internal', 'mail\.internal'\.\n"
        r"Also:\n"
        rf"  The app at 'mail\.internal' failed {failed}\n"
        r"    OSError: no database, raised at test_it\.py:\d+ in lifespan: raise OSError\(\"no database\"\)\n",
        section,
    ), section


def test_the_failure_of_a_lifespan_is_told_once(run: Run) -> None:
    """The request that waited for the startup tells of it."""
    outcome = run("""
@asynccontextmanager
async def lifespan(app):
    raise OSError("no database")
    yield

async def test():
    connector = ASGIRoutingConnector({"mail.internal": FastAPI(lifespan=lifespan)})
    async with aiohttp.ClientSession(connector=connector) as session:
        await get(session, "http://mail.internal/")
""")
    [section] = outcome.sections
    assert "Also:" not in section
    assert re.search(r"failed \(LifespanError: The app at 'mail\.internal' failed to start\)", section), section
    assert re.search(r"caused by OSError: no database, raised at test_it\.py:\d+ in lifespan", section), section


NO_REQUEST = "(on='response', after=None) has affected no request: there was no request to"


def test_what_was_not_used_is_told(run: Run) -> None:
    outcome = run("""
def stub_of(*paths):
    stub = Stub()
    for path in paths:
        stub.get(path)
    return stub

async def test():
    async with opened(apps={"mail.internal": stub_of("/inbox")}) as session:
        with session.connector.inject("users.internal", faults.Reset(), allow_unused=True):
            async with session.connector.mounted("bank.internal", stub_of("/account")):
                nowhere, open_block = stub_of("/nowhere"), session.connector.inject("users.internal", faults.Close())
                open_block.__enter__()
                with session.connector.inject("orders.internal", faults.Hang()):
                    assert 0
""")
    [section] = outcome.sections
    assert section.partition("Not used:\n")[2].splitlines() == [
        f"  Hang{NO_REQUEST} 'orders.internal' while it was injected.",
        f"  Close{NO_REQUEST} 'users.internal' while it was injected.",
        "  The Stub at 'mail.internal': never asked for: GET '/inbox'",
        "  A Stub that is not mounted now: never asked for: GET '/account'",
        "  A Stub that is not mounted now: never asked for: GET '/nowhere'",
    ]


def test_several_connectors_have_a_heading_each(run: Run) -> None:
    outcome = run("""
async def test():
    async with opened() as session, opened(apps={f"{n}.internal": users for n in range(6)}) as other:
        await get(session, "http://users.internal/users/1")
        await get(other, "http://5.internal/users/2")
        assert 0
""")
    [section] = outcome.sections
    assert re.fullmatch(
        r"Connector of 'users\.internal', 'orders\.internal':\n"
        r"Calls:\n  GET http://users\.internal/users/1: 200 in 0 s\n"
        r"Connector of 'users\.internal', 'orders\.internal', '0\.internal', '1\.internal', '2\.internal', 3 more:\n"
        r"Calls:\n  GET http://5\.internal/users/2: 200 in 0 s\n",
        section,
    ), section


PHASES = """
@pytest.fixture
async def session():
    async with opened() as session:
        await get(session, "http://users.internal/users/1")
        assert {phase!r} != "setup"
        yield session
        await get(session, "http://users.internal/users/3")
        assert {phase!r} != "teardown"

async def test(session):
    await get(session, "http://users.internal/users/2")
    assert {phase!r} != "call"
"""


@pytest.mark.parametrize(
    ("phase", "counts", "calls"),
    [
        ("setup", {"error": 1}, ["1"]),
        ("call", {"failed": 1}, ["1", "2"]),
        ("teardown", {"passed": 1, "error": 1}, ["1", "2", "3"]),
        ("none", {"passed": 1}, None),
    ],
)
def test_each_phase_that_fails_shows_the_calls_so_far(
    run: Run, phase: str, counts: dict[str, int], calls: list[str] | None
) -> None:
    outcome = run(PHASES.format(phase=phase))
    assert outcome.counts == counts
    shown = [re.findall(r"/users/(\d): 200", section) for section in outcome.sections]
    assert shown == ([] if calls is None else [calls])


def test_a_second_failure_shows_the_calls_only_if_there_are_more(run: Run) -> None:
    outcome = run("""
@pytest.fixture(params=[0, 1])
async def session(request):
    async with opened() as session:
        yield session
        if request.param:
            await get(session)
        assert "teardown" == 0

async def test(session):
    assert "call" == 0
""")
    assert outcome.counts == {"failed": 2, "errors": 2}
    assert len(outcome.sections) == 3


def test_a_test_that_does_not_fail_has_no_section(run: Run) -> None:
    outcome = run(
        """
@pytest.fixture(autouse=True)
async def session():
    async with opened() as session:
        yield session

async def test_passes(session):
    await get(session)

async def test_skips(session):
    pytest.skip("later")

@pytest.mark.xfail
async def test_xfails(session):
    assert 0
""",
        "-rA",
    )
    assert (outcome.counts, outcome.sections) == ({"passed": 1, "skipped": 1, "xfailed": 1}, [])


def test_an_unexpected_pass_that_is_strict_has_a_section(run: Run) -> None:
    outcome = run("""
@pytest.mark.xfail(strict=True)
async def test():
    async with opened() as session:
        await get(session)
""")
    assert (outcome.counts, len(outcome.sections)) == ({"failed": 1}, 1)


def test_a_test_without_a_connector_has_no_section(run: Run) -> None:
    outcome = run("""
@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def session():
    async with opened() as session:
        yield session

def test():
    assert 0

def test_also():
    assert 0
""")
    assert outcome.counts == {"failed": 2}
    assert len(outcome.sections) == 1  # the first test has set the fixture up


def test_always_means_each_test(run: Run) -> None:
    outcome = run(
        """
async def test():
    async with opened() as session:
        await get(session)

def test_nothing():
    pass
""",
        "-rP",
        "--asgi-journal=always",
    )
    assert (outcome.counts, len(outcome.sections)) == ({"passed": 2}, 1)


FAILS = """
async def test():
    async with opened() as session:
        await get(session)
        assert 0
"""


@pytest.mark.parametrize(("arguments", "ini"), [(["--asgi-journal=off"], ""), ([], "asgi_journal = off")])
def test_off_means_no_section(run: Run, arguments: list[str], ini: str) -> None:
    outcome = run(FAILS, *arguments, ini=ini)
    assert (outcome.counts, outcome.sections) == ({"failed": 1}, [])


def test_the_command_line_counts_more_than_the_ini_file(run: Run) -> None:
    assert len(run(FAILS, "--asgi-journal=on-failure", ini="asgi_journal = off").sections) == 1


@pytest.mark.parametrize(
    ("ini", "message"),
    [
        ("asgi_journal = never", "asgi_journal = never is not valid: write one of on-failure, always, off"),
        ("asgi_connector_refused = no", "asgi_connector_refused = no is not valid: write one of fail, allow"),
    ],
)
def test_an_invalid_setting_is_an_error(run: Run, ini: str, message: str) -> None:
    outcome = run(FAILS, ini=ini)
    assert f"ERROR: {message}" in outcome.text
    assert outcome.counts == {}


def test_secrets_are_redacted_and_control_characters_escaped(run: Run) -> None:
    outcome = run("""
async def test():
    async with opened() as session:
        await get(session, "http://users.internal/users/1?token=s3cret")
        await get(session, "http://ada:s3cret@user.internal/%1b%0a")
""")
    [section] = outcome.sections
    assert "s3cret" not in section.replace("?token=s3cret", "")
    assert "\x1b" not in section


def test_only_paths_are_shown_without_the_directory_of_the_project(run: Run, pytester: pytest.Pytester) -> None:
    """The path of a URL may begin like the directory, such as /app in a container."""
    root = pytester.path.as_posix()
    outcome = run(f"""
async def test():
    async with opened() as session:
        await get(session, "http://users.internal{root}/x?next={root}/y")
        await get(session, "http://users.internal/users/500")
""")
    [section] = outcome.sections
    assert f"! GET http://users.internal{root}/x?next={root}/y: 404 in" in section
    assert "      raised at system.py:" in section


def test_the_difference_to_the_answer_of_a_stub_is_not_cut(run: Run) -> None:
    """The service handles the exception, so the section alone says what differs."""
    outcome = run("""
@orders.post("/charge")
async def charge():
    async with aiohttp.ClientSession(connector=orders.connector, connector_owner=False) as session:
        try:
            await session.post("https://api.stripe.com/v1/charges", json={"amount": 42, "currency": "eur"})
        except Exception:
            raise HTTPException(500) from None

async def test():
    stripe = Stub()
    stripe.post("/v1/charges", request_json={"amount": 4200, "currency": "eur"}, json={"id": "ch_1"})
    async with opened(apps={"api.stripe.com": stripe}) as session:
        async with session.post("http://orders.internal/charge") as response:
            assert response.status == 200
""")
    [section] = outcome.sections
    assert "body: $.amount is 42, not 4200)" in section


EXPLORING = """
async def scenario(shake):
    async with opened(raise_app_exceptions=False) as session:
        with shake(session.connector):
            await get(session)
        assert not shake.plan.faults, "found"
"""


def test_the_runs_of_an_exploration_are_left_out_because_its_report_tells_of_them(
    run: Run, pytester: pytest.Pytester
) -> None:
    outcome = run(
        f"""
{EXPLORING}
async def test():
    async with opened() as session:
        await get(session, "http://users.internal/users/1")
        report = await faults.explore(scenario, [faults.Respond(503)])
        assert report, report
""",
        "--asgi-journal-dir=report",
    )
    assert outcome.counts == {"failed": 1}
    [section] = outcome.sections
    assert section.startswith("Calls:\n  GET http://users.internal/users/1: 200 in 0 s\n")
    assert section.count("GET") == 1
    [diagram] = (pytester.path / "report").glob("*.mmd")
    assert diagram.read_text().count("GET") == 1


def test_a_test_that_only_explores_has_no_section(run: Run) -> None:
    outcome = run(f"""
{EXPLORING}
async def test():
    report = await faults.explore(scenario, [faults.Respond(503)])
    assert report, report
""")
    assert outcome.counts == {"failed": 1}
    assert outcome.sections == []


def test_a_scenario_that_fails_without_a_fault_has_its_section(run: Run) -> None:
    outcome = run("""
async def scenario(shake):
    async with opened(raise_app_exceptions=False) as session:
        with shake(session.connector):
            assert await get(session) == 201

async def test():
    await faults.explore(scenario, [faults.Respond(503)])
""")
    assert outcome.counts == {"failed": 1}
    [section] = outcome.sections
    assert section.count("GET") == 2


def test_the_journal_of_a_test_has_the_calls_of_explorations_too(run: Run) -> None:
    outcome = run(f"""
{EXPLORING}
async def test(asgi_journal):
    await faults.explore(scenario, [faults.Respond(503)])
    assert len(asgi_journal) > 2
""")
    assert outcome.counts == {"passed": 1}
