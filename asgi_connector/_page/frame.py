"""The frame of each page: its head, and its policy, by which it fetches nothing."""

import base64
import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from string import Template

from .markup import escape
from .templates import template


def framed(
    title: str, body: str, *, style: str, inner_styles: Iterable[str] = (), script: str = "", after_script: str = ""
) -> str:
    """Return an HTML document. Its Content-Security-Policy allows these styles and this script, and nothing else.

    *inner_styles* are those of pictures in *body*, and *after_script* is what the script finds not yet parsed. *title*
    is escaped here, and the other texts are not.
    """
    policy = [
        "default-src 'none'",
        f"style-src {' '.join(map(_source_of, [style, *inner_styles]))}",
        *([f"script-src {_source_of(script)}"] if script else []),
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    if script:
        body = f"{body}\n<script>{script}</script>\n{after_script}"
    return Template(template("frame.html")).substitute(
        policy="; ".join(policy), title=escape(title), style=style, body=body
    )


def footer() -> str:
    return f'<footer class="quiet">Made by asgi-connector {escape(version("asgi-connector"))}</footer>'


def _source_of(text: str) -> str:
    """The source expression of an inline style or script (CSP Level 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
