"""The report as a page: one HTML file that fetches nothing and has no script. Everything in it is escaped here."""

from collections.abc import Iterable, Sequence
from os import PathLike

from asgi_connector._export.files import replace_file
from asgi_connector._page.frame import footer, framed
from asgi_connector._page.markup import escape, preformatted
from asgi_connector._page.svg import standalone
from asgi_connector._page.templates import template

from .findings import Finding, lines_of
from .plan import Plan


def save(
    path: str | PathLike[str],
    title: str,
    findings: Sequence[Finding],
    lists: Iterable[tuple[str, Sequence[Plan]]],
    *,
    sensitive: bool,
) -> None:
    """Write the page. *lists* are plans, each list with its title."""
    sections = [_section(number, finding, sensitive) for number, finding in enumerate(findings, 1)]
    body = "\n".join(
        [
            "<main>",
            '<header class="top">',
            f"<h1>{escape(title)}</h1>",
            _contents(findings),
            "</header>",
            *sections,
            *(_list(*each) for each in lists),
            footer(),
            "</main>",
        ]
    )
    # Each diagram has a style of its own.
    text = framed(title, body, style=template("page.css"), inner_styles=[template("diagram.css")])
    replace_file(path, text.encode(), private=sensitive)


def _contents(findings: Sequence[Finding]) -> str:
    lines = [
        f'<li><a href="#{number}">{number}. {escape(finding.summary)}</a></li>'
        for number, finding in enumerate(findings, 1)
    ]
    return '<div class="problems"><ol>\n' + "\n".join(lines) + "\n</ol></div>" if lines else ""


def _section(number: int, finding: Finding, sensitive: bool) -> str:
    return "\n".join(
        [
            f'<section aria-labelledby="{number}">',
            f'<h2 id="{number}">{number}. {escape(finding.summary)}</h2>',
            preformatted("\n".join(lines_of(finding.error, sensitive=sensitive)), "error"),
            "<h4>With</h4>",
            _lines(finding.plan.faults),
            "<h4>Calls</h4>",
            f'<div class="box sequence" tabindex="0" role="region" aria-labelledby="{number}">',
            standalone(finding.journal),
            "</div>",
            "<h4>Python</h4>",
            preformatted(finding.source),
            _list("Other runs with the same outcome", [plan for plan in finding.plans if plan != finding.plan]),
            "</section>",
        ]
    )


def _list(title: str, plans: Sequence[Plan]) -> str:
    if not plans:
        return ""
    return f"<details>\n<summary>{escape(title)} ({len(plans)})</summary>\n{_lines(plans)}\n</details>"


def _lines(shown: Iterable[object]) -> str:
    return preformatted("\n".join(map(str, shown)))
