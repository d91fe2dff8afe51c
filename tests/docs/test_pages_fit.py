"""No code and no table on the built pages is wider than its page, in a window of 1,400 pixels.

A headless Chromium measures. Where there is none, or no Sphinx (the extra ``docs``), this is skipped.
"""

import html
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import DOCS, PAGES, name_of
from tests.support.browser import CHROMIUM, needs_chromium
from tests.support.programs import ROOT

DOCS_EXTRA: Final = ["furo", "myst_parser", "sphinx", "sphinx_copybutton"]
WIDTH: Final = 1400

pytestmark = [
    pytest.mark.docs,
    needs_chromium,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, DOCS_EXTRA)), reason="the pages are built by what the extra docs installs"
    ),
    pytest.mark.timeout(180),  # the whole documentation is built
]

MEASURE: Final = """
<!DOCTYPE html>
<body><script>
const pages = PAGES;
const found = {};
function tooWide(page) {
  const inside = page.querySelectorAll("article :is(pre, table, .table-wrapper, dt.sig)");
  return [page.documentElement, ...inside].filter(element => element.scrollWidth > element.clientWidth + 1);
}
async function measure() {
  for (const name of pages) {
    const frame = document.createElement("iframe");
    frame.style.cssText = "width: WIDTHpx; height: 1000px; border: 0";
    frame.src = name;
    const loaded = new Promise(resolve => frame.onload = resolve);
    document.body.append(frame);
    await loaded;
    const page = frame.contentDocument;
    found[name] = tooWide(page).map(element => `${element.tagName} ${element.textContent.trim().slice(0, 80)}`);
    frame.remove();
  }
  const result = document.createElement("output");
  result.textContent = JSON.stringify(found);
  document.body.append(result);
}
measure();
</script></body>
"""


def measured(directory: Path, pages: list[str]) -> dict[str, list[str]]:
    """What is too wide on each of the *pages*, which are below *directory*."""
    assert CHROMIUM is not None
    page = directory / "measure.html"
    page.write_text(MEASURE.replace("PAGES", json.dumps(pages)).replace("WIDTH", str(WIDTH)), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    options += [f"--user-data-dir={directory / 'chromium'}", "--virtual-time-budget=600000", "--dump-dom"]
    finished = subprocess.run(
        [CHROMIUM, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    match = re.search(r"<output>(.*)</output>", finished.stdout, re.DOTALL)
    assert match is not None, finished.stdout + finished.stderr
    found: dict[str, list[str]] = json.loads(html.unescape(match[1]))
    return found


def test_what_is_too_wide_is_found(tmp_path: Path) -> None:
    (tmp_path / "wide.html").write_text(f"<article><pre style='overflow: auto'>{'x' * 300}</pre></article>", "utf-8")
    (tmp_path / "wider.html").write_text(f"<article><table><td>{'x' * 300}</table></article>", "utf-8")
    (tmp_path / "narrow.html").write_text("<article><pre>x</pre></article>", "utf-8")
    found = measured(tmp_path, ["wide.html", "wider.html", "narrow.html"])
    assert found == {"wide.html": [f"PRE {'x' * 80}"], "wider.html": [f"HTML {'x' * 80}"], "narrow.html": []}


def test_no_code_and_no_table_is_cut_off(tmp_path: Path) -> None:
    pages = [f"{name_of(page)[:-3]}.html" for page in PAGES if DOCS in page.parents]
    build = ["-m", "sphinx", "-q", "-W", "-b", "html", str(DOCS), str(tmp_path)]
    subprocess.run([sys.executable, *build], cwd=ROOT, check=True, timeout=120)
    found = measured(tmp_path, pages)
    assert list(found) == pages
    assert {name: wide for name, wide in found.items() if wide} == {}
