"""What the user wants: the options of the command line and of the ini file, and the marks of a test."""

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

MARK: Final = "asgi_connector"
FIXTURE: Final = "asgi_journal"


class When(StrEnum):
    """When the calls of a test are shown."""

    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    OFF = "off"


class Refused(StrEnum):
    """What becomes of a test in which a call of a service was refused."""

    FAIL = "fail"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Directory:
    """Where files are written: the path, and how the user wrote it."""

    path: Path
    shown: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a pytest run."""

    journal: When
    directory: Directory | None
    refused: Refused
    root: str
    """The directory of the project, with a separator at its end."""
    in_junit_xml: bool
    """Whether pytest writes JUnit XML, which has no sections of reports."""

    def shorten_paths(self, text: str) -> str:
        """Return *text* with each path below the directory of the project relative to it.

        The path of a URL is left as it is: it may begin like the directory, such as /app in a container.
        """
        return re.sub(rf"(?<!\S){re.escape(self.root)}", "", text)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What one test wants: its marks, and whether it uses the fixture."""

    refused: Refused
    bodies: bool
    fixture: bool


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("asgi-connector", "asgi-connector: who called whom")
    group.addoption(
        "--asgi-journal",
        choices=list(When),
        help="when to show the calls between services in the report of a test (default: on-failure)",
    )
    group.addoption(
        "--asgi-journal-dir",
        metavar="DIR",
        help="write an HTML page, a HAR file and a Mermaid diagram for each test that is shown, and an index.html",
    )
    parser.addini("asgi_journal", "as --asgi-journal: on-failure (default), always or off", default=When.ON_FAILURE)
    parser.addini("asgi_journal_dir", "as --asgi-journal-dir, relative to the rootdir", default="")
    parser.addini(
        "asgi_connector_refused",
        "what becomes of a test in which a call of a service was refused: fail (default) or allow",
        default=Refused.FAIL,
    )


def read_settings(config: pytest.Config) -> Settings:
    """Read the options. Raises `pytest.UsageError` for an invalid value."""
    return Settings(
        journal=_parse("asgi_journal", When, config.getoption("asgi_journal") or config.getini("asgi_journal")),
        directory=_directory(config),
        refused=_parse("asgi_connector_refused", Refused, config.getini("asgi_connector_refused")),
        root=f"{config.rootpath}{os.sep}",
        in_junit_xml=bool(config.getoption("xmlpath", None)),
    )


def _directory(config: pytest.Config) -> Directory | None:
    given: str | None = config.getoption("asgi_journal_dir")
    if given:
        return Directory(config.invocation_params.dir / given, given)
    in_file: str = config.getini("asgi_journal_dir")
    return Directory(config.rootpath / in_file, in_file) if in_file else None


_Value = TypeVar("_Value", bound=StrEnum)


def _parse(name: str, values: type[_Value], value: str) -> _Value:
    try:
        return values(value)
    except ValueError:
        allowed = ", ".join(values)
        raise pytest.UsageError(f"{name} = {value} is not valid: write one of {allowed}") from None


def wishes_of(item: pytest.Item, settings: Settings) -> Wishes:
    """Read the marks of a test. For each argument the nearest mark that has it counts. Raises `ValueError`."""
    arguments: dict[str, Any] = {}
    for mark in item.iter_markers(MARK):
        _check(mark)
        arguments = {**mark.kwargs, **arguments}
    return Wishes(
        refused=Refused(arguments.get("refused", settings.refused)),
        bodies=arguments.get("bodies", False),
        fixture=FIXTURE in getattr(item, "fixturenames", ()),
    )


def _check(mark: pytest.Mark) -> None:
    known = not mark.args and set(mark.kwargs) <= {"bodies", "refused"}
    refused, bodies = mark.kwargs.get("refused", Refused.FAIL), mark.kwargs.get("bodies", False)
    if not known or refused not in list(Refused) or not isinstance(bodies, bool):
        given = [*map(repr, mark.args), *(f"{name}={value!r}" for name, value in mark.kwargs.items())]
        raise ValueError(
            f"@pytest.mark.{MARK}({', '.join(given)}) is not valid: write @pytest.mark.{MARK}(bodies=True) to record "
            f'bodies, or @pytest.mark.{MARK}(refused="allow") to allow that calls of services are refused'
        )
