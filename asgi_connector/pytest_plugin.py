"""A pytest plugin: a test that fails shows who called whom; see docs/howto/pytest.md.

pytest loads it at its start, so it imports the package only when a test makes a connector. It learns of connectors when
they are made. It has no async fixture, and touches no event loop.
"""

import weakref
from collections.abc import Generator
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

from ._made import listeners
from ._pytest.settings import FIXTURE, MARK, Refused, Settings, When, Wishes, add_options, read_settings, wishes_of

if TYPE_CHECKING:
    from ._journal.journal import Journal
    from ._pytest.watch import Watch

SECTION: Final = "who called whom"
_T = TypeVar("_T")


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f'{MARK}(bodies=False, refused="fail"): whether the journal of the test has bodies, and whether the test fails '
        'if a call of a service is refused ("fail" or "allow")',
    )
    settings = read_settings(config)
    config.stash[_TESTS] = tests = Tests(settings)
    config.pluginmanager.register(tests, "asgi_connector.tests")
    is_worker = hasattr(config, "workerinput")  # of pytest-xdist
    if settings.directory is not None and settings.journal is not When.OFF and not is_worker:
        from ._pytest.index import Index

        config.pluginmanager.register(Index(settings.directory), "asgi_connector.index")


@pytest.fixture(name=FIXTURE)
def asgi_journal(request: pytest.FixtureRequest) -> "Journal":
    """The journal of this test: the calls of all its connectors, from the setup of its fixtures on."""
    return request.config.stash[_TESTS].journal()


class Tests:
    """Follows the tests of one run, one after another."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: list[weakref.ref[object]] = []  # connectors and stubs
        self._wishes: Wishes | None = None  # of the test that runs
        self._watch: Watch | None = None  # of the test that runs, once it has a connector
        self._shown: int | None = None  # the size of the watch when a report has shown it
        listeners.append(self.made)

    def pytest_unconfigure(self) -> None:
        self._end()
        listeners.remove(self.made)

    # What a test makes.

    def made(self, made: object) -> None:
        """Called with each new connector and stub."""
        self._made.append(weakref.ref(made))
        if self._wishes is not None:
            self._watch_of(self._wishes).add(made, is_new=True)

    def journal(self) -> "Journal":
        """Return the journal of the test that runs."""
        assert self._wishes is not None
        return self._watch_of(self._wishes).journal()

    def _watch_of(self, wishes: Wishes) -> "Watch":
        if self._watch is None:
            from ._pytest.watch import Watch

            recording = self._settings.journal is not When.OFF or wishes.fixture
            self._watch = Watch(recording=recording, bodies=wishes.bodies)
        return self._watch

    def _begin(self, item: pytest.Item) -> None:
        self._end()
        try:
            self._wishes = wishes_of(item, self._settings)
        except ValueError as exc:
            pytest.fail(str(exc), pytrace=False)
        made = [reference() for reference in self._made]
        # Connectors that are closed and not collected yet may be many.
        made = [each for each in made if each is not None and not getattr(each, "closed", False)]
        self._made = [weakref.ref(each) for each in made]
        for each in made:
            self._watch_of(self._wishes).add(each, is_new=False)

    def _end(self) -> None:
        if self._watch is not None:
            self._watch.end()
        self._wishes = self._watch = self._shown = None

    # The phases of a test.

    @pytest.hookimpl(tryfirst=True)  # before the fixtures
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._begin(item)

    @pytest.hookimpl(wrapper=True, trylast=True)  # for other plugins, the test itself fails
    def pytest_runtest_call(self) -> Generator[None, _T, _T]:
        __tracebackhide__ = True  # pytest shows the test
        result = yield
        self._fail_if_refused()
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # after the fixtures
    def pytest_runtest_teardown(self) -> Generator[None, _T, _T]:
        __tracebackhide__ = True  # pytest shows the test
        result = yield
        self._fail_if_refused()
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # the outcome of an xfail is known
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if self._watch is not None and self._settings.journal is not When.OFF:
            if call.excinfo is not None:
                self._watch.take_refused()  # the section shows them: they are no second failure
            self._show(self._watch, report, item.nodeid)
        if report.when == "teardown":
            self._end()
        return report

    def _fail_if_refused(self) -> None:
        if self._watch is None or self._wishes is None:
            return
        refused = self._watch.take_refused()
        if refused and self._wishes.refused is Refused.FAIL:
            from ._connector.refusals import describe_refused

            hint = f'Mount these hosts, or mark the test with @pytest.mark.{MARK}(refused="allow").'
            pytest.fail("\n".join([*describe_refused(refused, "during the test"), hint]), pytrace=False)

    def _show(self, watch: "Watch", report: pytest.TestReport, nodeid: str) -> None:
        """Put the section on the report, and write the files, if this is to be shown and was not shown yet."""
        always = self._settings.journal is When.ALWAYS and report.when == "call"
        if (not report.failed and not always and self._shown is None) or watch.size == self._shown or watch.is_empty:
            return
        text = self._settings.shorten_paths(watch.describe())
        files = self._write(watch, report, nodeid, text)
        if report.failed or always:
            _add_section(report, "\n".join([text, *files]), self._settings.in_junit_xml)
        self._shown = watch.size

    def _write(self, watch: "Watch", report: pytest.TestReport, nodeid: str, text: str) -> list[str]:
        """Write the files about a test. Returns a line about each."""
        if self._settings.directory is None:
            return []
        from ._pytest.files import name_of, write_files
        from ._pytest.index import Entry, attach

        attach(Entry(nodeid, report.outcome, len(watch.exchanges), name_of(nodeid)), report)
        return list(write_files(watch.exchanges, self._settings.directory, nodeid, text))


_TESTS: Final = pytest.StashKey[Tests]()


def _add_section(report: pytest.TestReport, text: str, in_junit_xml: bool) -> None:
    add_to_failure = getattr(report.longrepr, "addsection", None)  # a string has none
    if in_junit_xml and add_to_failure is not None:
        add_to_failure(SECTION, text)
    else:
        report.sections.append((SECTION, text))
