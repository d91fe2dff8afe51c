"""The report as a page."""

import hashlib
import re
from base64 import b64encode
from pathlib import Path

import pytest

from asgi_connector import Journal
from asgi_connector._exploration.plan import Plan, PlannedFault
from asgi_connector.faults import CallName, Finding, Refuse, Report
from tests.page.test_page import Reader
from tests.support.explored import BUGS, explore_in_virtual_time

CALLS = [CallName(None, None, "a.internal", "GET", f"/<{number}>") for number in (1, 2)]
PLANS = [Plan((PlannedFault(Refuse(), call),)) for call in CALLS]


def test_the_page_shows_each_finding(tmp_path: Path) -> None:
    report = explore_in_virtual_time(BUGS)
    report.save_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    text = "".join(Reader(page).texts)
    assert "4 failures in" in text
    for finding in report.findings:
        assert text.count(finding.summary) >= 3  # in the list, as the heading, and as the exception
        assert finding.source in text
        for planned in finding.plan.faults:
            assert str(planned) in text
    assert page.count("<svg") == 4
    others = [len(finding.plans) - 1 for finding in report.findings if len(finding.plans) > 1]
    assert re.findall(r"Other runs with the same outcome \((\d+)\)", text) == list(map(str, others))
    assert "<script" not in page


def test_the_style_of_the_page_is_the_only_one_that_is_allowed(tmp_path: Path) -> None:
    Report([Finding(PLANS[0], LookupError(), Journal(), "with ...")], 2, [], [], []).save_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text("utf-8")
    allowed = set(re.findall(r"'sha256-([^']+)'", page))
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    hashes = [b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in styles]
    assert set(hashes) == allowed


def test_what_is_shown_is_no_markup_and_secrets_are_redacted(tmp_path: Path) -> None:
    error = AssertionError("<b>no</b> http://a.internal/?token=secret")
    report = Report([Finding(PLANS[0], error, Journal(), "with <x>:")], 2, [], [], PLANS)
    report.save_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text("utf-8")
    assert "<b>" not in page
    assert "secret" not in page
    assert "with &lt;x&gt;:" in page
    assert "/&lt;2&gt;" in page
    report.save_html(tmp_path / "b.html", sensitive=True)
    assert "token=secret" in (tmp_path / "b.html").read_text("utf-8")
    assert (tmp_path / "b.html").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("diverged", "untried"), [(PLANS, []), ([], PLANS), ([], [])])
def test_a_page_without_a_finding(tmp_path: Path, diverged: list[Plan], untried: list[Plan]) -> None:
    Report([], 3, [], diverged, untried).save_html(tmp_path / "a.html")
    text = "".join(Reader((tmp_path / "a.html").read_text("utf-8")).texts)
    assert "no failure in 3 runs" in text
    assert ("Plans that met no call, so the scenario" in text) == bool(diverged)
    assert ("Plans not tried, because a limit was reached (2)" in text) == bool(untried)
