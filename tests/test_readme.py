"""What the README and the other pages say is so: code runs and prints what stands below it, and links lead on."""

import re
from pathlib import Path

import pytest

from tests.programs import ROOT, run_python

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def programs() -> list[tuple[str, str, str]]:
    """Each block of Python on any page: a name for it, the code, and what it prints according to the block below."""
    found = []
    for page in PAGES:
        pairs = re.findall(
            r"^```python\n(.*?)^```$\n\n^```text\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
        )
        found += [(f"{page.name}-{number}", code, printed) for number, (code, printed) in enumerate(pairs, 1)]
    return found


def test_every_page_shows_what_its_code_prints() -> None:
    assert len(programs()) == sum(len(blocks(page, "python")) for page in PAGES)
    assert programs()[0][0] == "README.md-1"


@pytest.mark.parametrize(("code", "printed"), [pytest.param(*rest, id=name) for name, *rest in programs()])
def test_the_code_runs_and_prints_what_the_page_shows(code: str, printed: str) -> None:
    assert run_python("-c", code) == printed


def test_the_readme_has_two_commands_of_one_line_each() -> None:
    example, tests = blocks(README, "sh")
    assert example.count("\n") == 1
    assert example.endswith("examples/microservices.py\n")
    assert tests.count("\n") == 1
    assert "pytest" in tests


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#\s]+)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).is_file()] == []
