"""The report as a page: one HTML file that fetches nothing and has no script. Everything in it is escaped here."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from os import PathLike
from string import Template
from typing import Final

from asgi_connector._export.files import replace_file
from asgi_connector._page.markup import escape, preformatted
from asgi_connector._page.svg import standalone
from asgi_connector._page.templates import template

from .findings import Finding, lines_of
from .plan import Plan

_PAGE: Final = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src $hashes; img-src data:; \
base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<header class="top">
<h1>$title</h1>
$contents
</header>
$sections
<footer class="quiet">Made by asgi-connector $version</footer>
</main>
</body>
</html>
""")


def save(
    path: str | PathLike[str],
    title: str,
    findings: Sequence[Finding],
    lists: Iterable[tuple[str, Sequence[Plan]]],
    *,
    sensitive: bool,
) -> None:
    """Write the page. *lists* are plans, each list with its title."""
    style = template("page.css")
    styles = [style, template("diagram.css")]  # each diagram has the second
    sections = [_section(number, finding, sensitive) for number, finding in enumerate(findings, 1)]
    text = _PAGE.substitute(
        hashes=" ".join(f"'sha256-{_hash_of(each)}'" for each in styles),
        style=style,
        title=escape(title),
        contents=_contents(findings),
        sections="\n".join([*sections, *(_list(*each) for each in lists)]),
        version=escape(version("asgi-connector")),
    )
    replace_file(path, text.encode(), private=sensitive)


def _hash_of(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


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
