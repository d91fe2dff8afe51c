"""A headless Chromium, for tests of what people see in a browser."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, async_playwright

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

CHROMIUM: Final = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
"""The program: that of the environment variable ``CHROMIUM``, or the first that is installed."""

needs_chromium: Final = pytest.mark.skipif(
    CHROMIUM is None,
    reason="Chromium is not here: apt install chromium, or name a program in the environment variable CHROMIUM",
)

_WATCH: Final = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


class Watched:
    """A page in a browser, and what it did that a page without a fault does not do."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self._url = url
        page.on("console", lambda message: self.complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.on("popup", lambda popup: self.complaints.append(f"popup: {popup.url}"))
        page.on("request", lambda request: self._note_request(request.url))

    def _note_request(self, url: str) -> None:
        if url.partition("#")[0] not in (self._url, "data:,"):
            self.complaints.append(f"request: {url}")

    async def check(self) -> None:
        """Assert that nothing was fetched, no script failed, and the page kept to its policy."""
        assert self.complaints == []
        assert await self.page.evaluate("window.violations") == []


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the browser. That takes more than a second, so tests share one."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(browser: Browser, path: Path, *, fragment: str = "", **settings: Any) -> AsyncIterator[Watched]:
    """Open a file in a new context of the browser, as in a new profile. The *settings* are those of the context."""
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    try:
        await context.add_init_script(_WATCH)
        watched = Watched(await context.new_page(), path.as_uri())
        await watched.page.goto(f"{path.as_uri()}{fragment}")
        yield watched
    finally:
        await context.close()
