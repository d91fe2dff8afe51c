"""The page that links the files about all tests of a run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Final

import pytest

from asgi_connector._export.files import replace_file

from .settings import Directory

NAME: Final = "index.html"
_ATTRIBUTE: Final = "asgi_journal_entry"
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"  # no script runs, and nothing is fetched
_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #8886; padding: .4rem .6rem; text-align: left; vertical-align: top }
td:first-child { overflow-wrap: anywhere }
.failed { color: light-dark(#b3261e, #ff8a80); font-weight: 600 }
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of one test."""

    nodeid: str
    outcome: str
    calls: int
    name: str
    """The name of its files, without a suffix."""


def attach(entry: Entry, report: pytest.TestReport) -> None:
    """Put *entry* on a report. It is plain data, so that pytest-xdist sends it from a worker to the controller."""
    setattr(report, _ATTRIBUTE, [entry.nodeid, entry.outcome, entry.calls, entry.name])


class Index:
    """Writes the index at the end of the run: a pytest plugin of the process that prints the results."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._entries: dict[str, Entry] = {}
        self._problem: OSError | None = None  # the reason why the index could not be written

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        values: Any = getattr(report, _ATTRIBUTE, None)
        if values is not None:
            # Since the entry was made, a plugin that runs tests again may have given the report another outcome.
            entry = replace(Entry(*values), outcome=report.outcome)
            before = self._entries.get(entry.nodeid)
            has_failed = before is not None and before.outcome == "failed"  # the teardown may pass
            self._entries[entry.nodeid] = replace(entry, outcome="failed") if has_failed else entry

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        path = self._directory.path / NAME
        if not self._entries and not path.exists():
            return
        try:  # also without an entry: the index of an earlier run says what is not true any more
            replace_file(path, "".join(self._lines()).encode("utf-8", "backslashreplace"), private=False)
        except OSError as exc:
            self._problem = exc

    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:  # since pytest 8.4
        if self._problem is not None:
            terminalreporter.write_line(f"The index of who called whom could not be written: {self._problem}")
        elif self._entries:
            number = len(self._entries)
            tests = "1 test" if number == 1 else f"{number} tests"
            terminalreporter.write_line(f"Who called whom in {tests}: {self._directory.path / NAME}")

    def _lines(self) -> Iterator[str]:
        yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        yield f"<title>Who called whom</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Who called whom</h1>\n"
        if not self._entries:
            yield "<p>No test of the latest run is shown.</p>\n"
        else:
            yield "<table>\n<thead><tr><th>Test</th><th>Outcome</th><th>Calls</th><th>Files</th></tr></thead>\n"
            yield "<tbody>\n"
            yield from map(_row, self._entries.values())
            yield "</tbody>\n</table>\n"
        yield "</body>\n</html>\n"


def _row(entry: Entry) -> str:
    nodeid, outcome = escape(entry.nodeid), escape(entry.outcome)
    har, diagram = f'<a href="{entry.name}.har">HAR</a>', f'<a href="{entry.name}.mmd">Mermaid</a>'
    return (
        f'<tr><td><a href="{entry.name}.html">{nodeid}</a></td><td class="{outcome}">{outcome}</td>'
        f"<td>{entry.calls}</td><td>{har} {diagram}</td></tr>\n"
    )
