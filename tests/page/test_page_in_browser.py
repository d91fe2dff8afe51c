"""The page in a real browser: what people see and do, and that nothing hostile runs or leaves."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from hypothesis import given, settings
from playwright.async_api import Browser, Page, Route, expect

from asgi_connector import Journal
from asgi_connector._page.page import page
from tests.export.recorded import shop_journal
from tests.page.test_page import HOSTILE, PIECES, hostile_journal, many
from tests.support.browser import chromium, needs_chromium, opened
from tests.support.effort import examples

pytestmark = [
    needs_chromium,
    pytest.mark.programs,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),  # the first test starts the browser
]

OPENED: Final = "article.exchange:target"


def written(directory: Path, text: str) -> Path:
    path = directory / "page.html"
    path.write_text(text, "utf-8")
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def shop(tmp_path: Path) -> Path:
    journal = await shop_journal()
    return written(tmp_path, page(journal, title="A test", note="E  assert 500 == 201", sensitive=False))


async def too_wide(page: Page) -> bool:
    return bool(await page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


async def test_a_click_in_each_view_opens_the_exchange(browser: Browser, shop: Path) -> None:
    async with opened(browser, shop) as watched:
        page = watched.page
        views = {
            ".sequence a:has(text:text-is('GET /broken'))": "exchange-5",
            ".lanes li:nth-child(10) a": "exchange-9",
            ".rows tr:nth-child(4) td:nth-child(6)": "exchange-3",
            ".problems li:nth-child(2) a": "exchange-7",
        }
        for place, name in views.items():
            await page.locator(place).first.click()
            await expect(page.locator(OPENED)).to_have_id(name)
            await expect(page.locator(OPENED)).to_be_focused()
            # Its two arrows, its lane and its row are marked.
            await expect(page.locator(".sequence .open")).to_have_count(2)
            await expect(page.locator(".lanes .open")).to_have_count(1)
            await expect(page.locator(".rows .open")).to_have_count(1)
        await page.locator(OPENED).get_by_role("link", name="Close").click()
        await expect(page.locator(OPENED)).to_have_count(0)
        await watched.check()


async def test_everything_works_with_the_keyboard(browser: Browser, shop: Path) -> None:
    async with opened(browser, shop) as watched:
        page = watched.page
        link = page.locator(".sequence a").nth(2)
        await link.focus()
        await page.keyboard.press("Enter")
        name = str(await link.get_attribute("href"))[1:]
        await expect(page.locator(f"#{name}").get_by_role("link", name="Previous")).to_be_visible()
        await page.keyboard.press("Tab")
        assert (await page.locator(f"{OPENED} a:focus").all_inner_texts()) == ["Previous"]
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator(OPENED)).not_to_have_id(name)
        await page.keyboard.press("Escape")
        await expect(page.locator(OPENED)).to_have_count(0)
        await expect(link).to_be_focused()
        await page.keyboard.press("Escape")  # when nothing is open
        assert page.url.endswith("#-")
        await watched.check()


async def test_the_filters_choose_rows_and_tell_how_many(browser: Browser, shop: Path) -> None:
    async with opened(browser, shop) as watched:
        page = watched.page
        told, rows, lanes = (page.locator(each) for each in ("output", ".rows tbody tr:visible", ".lanes li:visible"))
        await expect(told).to_have_text("15 exchanges")
        filters = {
            "Service": ("stock.internal", 10),
            "Caller": ("orders.internal", 4),
            "Path": ("TEM", 2),
            "Status": ("2xx", 2),
        }
        for label, (value, left) in filters.items():
            field = page.get_by_role("searchbox" if label == "Path" else "combobox", name=label)
            await (field.fill(value) if label == "Path" else field.select_option(value))
            await expect(told).to_have_text(f"{left} of 15 exchanges")
            await expect(rows).to_have_count(left)
            await expect(lanes).to_have_count(left)
        await page.get_by_label("Failed only").check()
        await expect(told).to_have_text("0 of 15 exchanges")
        for label in filters:
            field = page.get_by_role("searchbox" if label == "Path" else "combobox", name=label)
            await (field.fill("") if label == "Path" else field.select_option("any"))
        await expect(rows).to_have_count(6)
        await page.get_by_role("combobox", name="Status").select_option("no status")
        await expect(rows).to_have_count(5)
        await watched.check()


async def test_without_javascript_everything_can_be_read(browser: Browser, shop: Path) -> None:
    async with opened(browser, shop, java_script_enabled=False) as watched:
        page = watched.page
        for view in (".sequence svg", ".lanes", ".rows table"):
            await expect(page.locator(view).first).to_be_visible()
        await expect(page.locator(".filters")).to_be_hidden()
        await page.locator(".rows a").nth(5).click()
        await expect(page.locator(OPENED)).to_have_id("exchange-5")
        await expect(page.locator(OPENED)).to_contain_text("KeyError: 'shelf'")
        await page.locator(OPENED).get_by_role("link", name="Previous").click()
        await expect(page.locator(OPENED)).to_have_id("exchange-4")
        await page.locator(OPENED).get_by_role("link", name="Close").click()
        await expect(page.locator(OPENED)).to_have_count(0)
        assert watched.complaints == []


async def test_without_style_and_script_everything_can_be_read(browser: Browser, tmp_path: Path) -> None:
    """Some servers of artefacts forbid both. Then the page is what its HTML says."""
    text = page(await shop_journal(), title="A test", sensitive=False)
    bare = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", text, flags=re.DOTALL)
    async with opened(browser, written(tmp_path, bare)) as watched:
        await expect(watched.page.locator("article")).to_have_count(15)
        await expect(watched.page.locator("article").last).to_be_visible()
        assert await watched.page.locator(".sequence text").first.evaluate("each => getComputedStyle(each).fill") == (
            "rgb(36, 41, 47)"
        )


INSIDES: Final = """
() => Array.from(document.querySelectorAll("article"), (each) => [each.id, each.className, each.tabIndex,
  each.ariaLabel, each.innerHTML])
"""


async def test_the_details_have_no_elements_until_they_are_opened_or_printed(browser: Browser, shop: Path) -> None:
    async with opened(browser, shop, java_script_enabled=False) as watched:
        elements = await watched.page.evaluate(INSIDES)
        assert len(elements) == 15
        assert all(inside.startswith("<header><h3>") for *_, inside in elements)
    async with opened(browser, shop) as watched:
        page = watched.page
        assert await page.evaluate(INSIDES) == [[*about, ""] for *about, _ in elements]
        await page.locator(".rows a").nth(5).click()
        await expect(page.locator(OPENED)).to_contain_text("KeyError: 'shelf'")
        await page.locator(".rows a").nth(7).click()
        await expect(page.locator(OPENED)).to_contain_text("UnmountedHostError")  # an exchange gets its elements later
        await page.go_back()
        await expect(page.locator(OPENED)).to_have_id("exchange-5")
        filled = [[*about, inside if about[0] in ("exchange-5", "exchange-7") else ""] for *about, inside in elements]
        assert await page.evaluate(INSIDES) == filled
        await page.pdf()
        assert await page.evaluate(INSIDES) == elements
        await watched.check()


@pytest.mark.parametrize("media", ["screen", "print"])
async def test_a_page_that_opens_with_an_exchange_shows_it(browser: Browser, shop: Path, media: Any) -> None:
    async with opened(browser, shop) as watched:
        page = watched.page
        await page.goto("about:blank")
        await page.emulate_media(media=media)
        await page.goto(f"{shop.as_uri()}#exchange-5")
        await expect(page.locator(OPENED)).to_contain_text("KeyError: 'shelf'")
        await expect(page.locator(OPENED)).to_be_focused()
        await expect(page.locator("article > header")).to_have_count(15 if media == "print" else 1)
        await watched.check()


@pytest.mark.parametrize("policy", ["script-src 'none'", "default-src 'none'", "sandbox; default-src 'none'"])
async def test_everything_can_be_read_where_a_server_forbids_the_script(
    browser: Browser, tmp_path: Path, policy: str
) -> None:
    text = page(await shop_journal(), title="A test", sensitive=False)
    async with opened(browser, written(tmp_path, text)) as watched:

        async def answer(route: Route) -> None:
            headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
            await route.fulfill(body=text, headers=headers)

        await watched.page.route("http://artefacts.test/*", answer)
        await watched.page.goto("http://artefacts.test/page.html#exchange-5")
        await expect(watched.page.locator("article > header")).to_have_count(15)
        await expect(watched.page.locator(OPENED)).to_contain_text("KeyError: 'shelf'")
        await expect(watched.page.locator(OPENED)).to_be_visible()
        await expect(watched.page.locator(".filters")).to_be_hidden()


@pytest.mark.parametrize("fragment", ["", "#exchange-5"])
async def test_a_phone_scrolls_down_only(browser: Browser, shop: Path, fragment: str) -> None:
    async with opened(browser, shop, fragment=fragment, viewport={"width": 360, "height": 740}) as watched:
        assert not await too_wide(watched.page)
        if fragment:
            box = await watched.page.locator(OPENED).bounding_box()
            assert box is not None
            assert (box["x"], box["width"]) == (0, 360)
        await watched.check()


CONTRAST: Final = """
() => {
  const luminance = ([r, g, b]) => [r, g, b].map((each) => each / 255)
    .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
    .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const numbers = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  function behind(element) {
    for (let each = element; each !== null; each = each.parentElement) {
      const colour = numbers(getComputedStyle(each).backgroundColor);
      if (colour.length === 3) return colour;
    }
    return [255, 255, 255];
  }
  const low = [];
  for (const element of document.querySelectorAll("main *, article:target *")) {
    const isSvg = element instanceof SVGElement;
    const hasText = [...element.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
    if (!hasText || !element.checkVisibility() || element.tagName === "title") continue;
    const style = getComputedStyle(element);
    const box = isSvg ? element.closest("g.box") : null;
    const back = box === null ? behind(element) : numbers(getComputedStyle(box.querySelector("rect")).fill);
    const [one, other] = [luminance(numbers(isSvg ? style.fill : style.color)), luminance(back)].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${element.tagName} ${element.textContent.trim().slice(0, 40)}`);
  }
  return low;
}
"""


CUT: Final = """
() => [...document.querySelectorAll(".box, pre")]
  .filter((each) => each.scrollHeight > each.clientHeight + 1 && getComputedStyle(each).overflowY !== "visible")
  .map((each) => each.textContent)
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_has_enough_contrast(browser: Browser, shop: Path, scheme: Any) -> None:
    """At least 4.5 to 1, as WCAG 2.2 asks for at the level AA."""
    async with opened(browser, shop, fragment="#exchange-5", color_scheme=scheme) as watched:
        background = await watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(244, 245, 248)", "dark": "rgb(15, 17, 21)"}[scheme]
        assert await watched.page.evaluate(CONTRAST) == []
        await watched.check()


async def test_a_printed_page_is_light_and_has_everything(browser: Browser, shop: Path) -> None:
    async with opened(browser, shop, color_scheme="dark", viewport={"width": 700, "height": 900}) as watched:
        page = watched.page
        await page.emulate_media(media="print")
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not await too_wide(page)
        await expect(page.locator("article:visible > header")).to_have_count(15)
        await expect(page.locator(".filters")).to_be_hidden()
        assert await page.evaluate(CUT) == []
        assert (await page.pdf()).startswith(b"%PDF-")
        await watched.check()


async def test_the_picture_alone_is_light_or_dark_and_loads_nothing(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "calls.svg"
    path.write_text((await shop_journal()).to_svg(), "utf-8")
    for scheme, colour in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 25, 31)")):
        settings: dict[str, Any] = {"color_scheme": scheme}
        async with opened(browser, path, **settings) as watched:
            paper = watched.page.locator(".paper")
            assert await paper.evaluate("element => getComputedStyle(element).fill") == colour
            await watched.check()


async def test_no_text_of_the_picture_is_wider_than_it_was_estimated(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "calls.svg"
    path.write_text((await shop_journal()).to_svg(), "utf-8")
    inside = """
      () => [...document.querySelectorAll("text")].filter((text) => {
        const picture = document.documentElement.viewBox.baseVal;
        const box = text.getBBox();
        return box.x < 0 || box.x + box.width > picture.width;
      }).map((text) => text.textContent)
    """
    async with opened(browser, path) as watched:
        assert await watched.page.evaluate(inside) == []


async def test_of_a_thousand_exchanges_only_those_in_view_are_laid_out(browser: Browser, tmp_path: Path) -> None:
    path = written(tmp_path, page(await many(1_000, 10), title="A test", sensitive=False))
    async with opened(browser, path) as watched:
        laid_out = """
          (place) => [...document.querySelectorAll(place)]
            .filter((each) => each.checkVisibility({ contentVisibilityAuto: true })).length
        """
        assert await watched.page.locator("article *").count() == 0
        for place in (".lanes li", ".rows tbody tr"):
            assert await watched.page.evaluate(laid_out, place) < 500
        await watched.page.get_by_label("Failed only").check()
        await expect(watched.page.locator("output")).to_have_text("10 of 1000 exchanges")
        await expect(watched.page.locator(".rows tbody tr:visible")).to_have_count(10)
        await watched.check()


TOUCH_ALL: Final = """
() => {
  for (const element of document.querySelectorAll("body *")) {
    for (const name of ["mouseover", "pointerenter", "focusin"]) {
      element.dispatchEvent(new Event(name, { bubbles: true }));
    }
  }
}
"""


def hostile_texts() -> list[str]:
    """Some hostile texts, drawn by hypothesis."""
    found: list[str] = []

    @settings(max_examples=examples(100), database=None)
    @given(HOSTILE)
    def collect(text: str) -> None:
        found.append(text)

    collect()
    return [*PIECES, *found]


async def test_no_hostile_text_runs_a_script_or_sends_a_request(browser: Browser, tmp_path: Path) -> None:
    journals = [await hostile_journal(text) for text in hostile_texts()]
    journal = Journal(exchange for each in journals for exchange in each)
    text = page(journal, title="".join(PIECES), note="".join(PIECES), sensitive=True)
    path = written(tmp_path, text.encode().decode())
    async with opened(browser, path) as watched:
        for name in ("output", ".rows tbody tr", ".lanes li"):
            await expect(watched.page.locator(name)).not_to_have_count(0)
        await watched.page.emulate_media(media="print")  # this makes elements of the details
        await expect(watched.page.locator("article > header")).to_have_count(len(journal))
        await watched.page.emulate_media(media="screen")
        await watched.page.evaluate(TOUCH_ALL)
        await watched.page.locator(".rows tbody tr").first.click()
        await watched.check()
        scripts = await watched.page.evaluate("document.scripts.length")
        assert scripts == 1
