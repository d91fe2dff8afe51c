"""Makes the pictures of the pages: ``python -m tests.docs.pictures``.

Each SVG is the diagram of the calls of a program on a page, so it shows what the program does. A test fails if a file
is older than its program. With ``--screenshots`` the command makes the screenshot too, in a headless Chromium. The
fonts of a machine change its bytes, so it is made only on request, after a change of the page that it shows.
"""

import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.docs.pages import DOCS, README, Block, blocks_of
from tests.support.browser import chromium, opened
from tests.support.programs import ROOT, pytest_arguments, run_python, try_python

STATIC: Final = DOCS / "_static"
SCREENSHOT: Final = STATIC / "failing-test.png"
SCREENSHOT_SIZE: Final = (1200, 745)  # pixels: up to the end of the timeline
SCREENSHOT_LIMIT: Final = 150_000  # bytes
FAILING: Final = "failing_orders.py"
"""The test on the README, on which the section and the screenshot are."""


@dataclass(frozen=True)
class Picture:
    """A diagram, and the program on a page whose calls it shows."""

    name: str
    page: Path
    file: str | None
    """The file name of the program, or `None` for the first program of the page, which has none."""

    @property
    def path(self) -> Path:
        return STATIC / self.name


PICTURES: Final = [
    Picture("first-example.svg", README, None),
    Picture("tutorial.svg", DOCS / "tutorial.md", "three_apps.py"),
    Picture("recording.svg", DOCS / "howto" / "recording.md", "diagram.py"),
    Picture("faults.svg", DOCS / "howto" / "faults.md", "lost_answer.py"),
]


def draw(picture: Picture) -> str:
    """Run the program of *picture* among the files above it on its page. Return the diagram of its calls, as SVG."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        program = _write_up_to(picture, directory)
        drawn = directory / "drawn.svg"
        run_python("-m", "tests.docs.recorded", program, drawn)
        return drawn.read_text("utf-8")


def _write_up_to(picture: Picture, directory: Path) -> Path:
    for block in blocks_of(picture.page):
        path = directory / (block.file or "program.py")
        path.write_text(block.source, "utf-8")
        if block.file == picture.file:
            return path
    raise LookupError(f"{picture.page} has no program {picture.file!r}")


def failing_test() -> Block:
    [block] = [block for block in blocks_of(README) if block.file == FAILING]
    return block


def take_screenshot(path: Path) -> None:
    """Run the failing test of the README, and write the beginning of its page to *path*, as PNG."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        test = directory / FAILING
        test.write_text(failing_test().source, "utf-8")
        settings = ["-o", "asyncio_default_fixture_loop_scope=function", "-o", f"asgi_journal_dir={directory}"]
        finished = try_python(*pytest_arguments(directory, *settings, test))
        pages = [page for page in directory.glob("*.html") if page.name != "index.html"]
        assert len(pages) == 1, finished.stdout + finished.stderr
        asyncio.run(_photograph(pages[0], path))


async def _photograph(page: Path, path: Path) -> None:
    width, height = SCREENSHOT_SIZE
    settings: dict[str, Any] = {"viewport": {"width": width, "height": height}, "color_scheme": "light"}
    async with chromium() as browser, opened(browser, page, **settings) as watched:
        await watched.page.screenshot(path=path)
        await watched.check()


def main(arguments: list[str]) -> None:
    for picture in PICTURES:
        picture.path.write_text(draw(picture), "utf-8")
        print(picture.path.relative_to(ROOT))
    if "--screenshots" in arguments:
        take_screenshot(SCREENSHOT)
        print(SCREENSHOT.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
