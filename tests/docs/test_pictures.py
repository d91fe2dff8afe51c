"""The pictures on the pages show what the programs of the pages do."""

import re
import struct
from pathlib import Path

import pytest

from tests.docs.architecture import PICTURE as ARCHITECTURE
from tests.docs.pages import PAGES, README
from tests.docs.pictures import (
    PICTURES,
    SCREENSHOT,
    SCREENSHOT_LIMIT,
    SCREENSHOT_SIZE,
    STATIC,
    Picture,
    draw,
    take_screenshot,
)
from tests.support.browser import needs_chromium

pytestmark = pytest.mark.docs

SHOWN = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")


def shown_on(page: Path) -> list[Path]:
    return [(page.parent / target).resolve() for target in SHOWN.findall(page.read_text("utf-8"))]


def size_of(png: Path) -> tuple[int, int]:
    """The width and the height, which a PNG has at a fixed place."""
    start = png.read_bytes()[:24]
    assert start.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", start[16:])
    return width, height


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_is_not_older_than_its_program(picture: Picture) -> None:
    assert picture.path.read_text("utf-8") == draw(picture), "draw it anew: python -m tests.docs.pictures"


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_is_on_the_page_of_its_program(picture: Picture) -> None:
    assert picture.path in shown_on(picture.page)


def test_a_picture_of_a_program_that_is_not_on_the_page_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"README\.md has no program 'missing\.py'"):
        draw(Picture("missing.svg", README, "missing.py"))


def test_every_picture_is_made_by_a_command_and_shown() -> None:
    made = {ARCHITECTURE, SCREENSHOT, *(picture.path for picture in PICTURES)}
    assert {path for path in STATIC.iterdir() if path.suffix != ".css"} == made
    assert {path for page in PAGES for path in shown_on(page)} == made


def test_the_screenshot_is_small() -> None:
    assert size_of(SCREENSHOT) == SCREENSHOT_SIZE
    assert SCREENSHOT.stat().st_size < SCREENSHOT_LIMIT


@needs_chromium
@pytest.mark.timeout(180)  # a browser starts
def test_the_screenshot_can_be_taken_again(tmp_path: Path) -> None:
    """The fonts of the machine decide about its bytes, so these are not compared."""
    path = tmp_path / "again.png"
    take_screenshot(path)
    assert size_of(path) == SCREENSHOT_SIZE
    assert path.stat().st_size < SCREENSHOT_LIMIT
