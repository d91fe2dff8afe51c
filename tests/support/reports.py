"""Reports of exceptions that no caller can catch: calls of the loop's exception handler, and log records."""

import asyncio
import logging
from typing import Any

import pytest

Report = dict[str, Any]


class Reports:
    """The calls of the loop's exception handler."""

    def __init__(self) -> None:
        self.all: list[Report] = []
        self._news = asyncio.Event()

    def handle(self, loop: asyncio.AbstractEventLoop, context: Report) -> None:
        self.all.append(context)
        self._news.set()

    async def one(self) -> Report:
        """Wait for the first report and return it."""
        async with asyncio.timeout(5):
            await self._news.wait()
        return self.all[0]

    @property
    def exceptions(self) -> list[BaseException | None]:
        return [context.get("exception") for context in self.all]


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the package's log records above the level INFO."""
    return [record for record in caplog.records if record.name == "asgi_connector" and record.levelno > logging.INFO]


def assert_logged(caplog: pytest.LogCaptureFixture, exc: BaseException, request: str) -> None:
    """Assert that *exc* was logged once, as an error with its traceback. The message ends with *request*."""
    (record,) = records(caplog)
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is exc
    message = record.getMessage()
    assert message.endswith(request), message


def collect_reports() -> list[Report]:
    """What the loop's exception handler is called with from now on."""
    reports: list[Report] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
    return reports


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Level and message of what the package has logged above DEBUG."""
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == "asgi_connector" and record.levelno > logging.DEBUG
    ]


def logged_messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages of `logged()`."""
    return [message for _, message in logged(caplog)]
