"""The files about one test: an HTML page, a HAR file and a Mermaid diagram."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Final

from asgi_connector._exchange.exchange import Exchange
from asgi_connector._export.files import replace_file

from .settings import Directory

_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9_]+")
_MAX_NAME: Final = 120  # characters; a file system takes 255 bytes
_HASH_LENGTH: Final = 10


def name_of(nodeid: str) -> str:
    """Return the name of the files about a test, without a suffix. It is the same in every run.

    It has the letters, digits and underscores of the node ID, which every file system takes, and a hash. So it is
    unique, also where names that differ in case are the same.
    """
    plain = _NOT_PLAIN.sub("-", nodeid)[-_MAX_NAME:].strip("-")
    digest = hashlib.sha256(nodeid.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{plain}-{digest[:_HASH_LENGTH]}".lstrip("-")


def write_files(exchanges: Sequence[Exchange], directory: Directory, nodeid: str, note: str) -> Iterator[str]:
    """Write the files about a test, without secrets. Yields a line about each, or about why there is none.

    *note* is a text for the page.
    """
    name = name_of(nodeid)
    shown = PurePath(directory.shown, name)
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
        _write_page(exchanges, directory.path / f"{name}.html", nodeid, note)
        yield f"page: {shown}.html"
        _write_har(exchanges, directory.path / f"{name}.har")
        yield f"HAR: {shown}.har"
        _write_diagram(exchanges, directory.path / f"{name}.mmd")
        yield f"Mermaid: {shown}.mmd"
    except OSError as exc:
        yield f"The files about this test could not be written: {exc}"


def _write_page(exchanges: Sequence[Exchange], path: Path, nodeid: str, note: str) -> None:
    from asgi_connector._page.page import page

    text = page(exchanges, title=nodeid, note=note, sensitive=False)
    replace_file(path, text.encode("utf-8", "backslashreplace"), private=False)


def _write_har(exchanges: Sequence[Exchange], path: Path) -> None:
    from asgi_connector._export.har import save

    save(exchanges, path, sensitive=False)


def _write_diagram(exchanges: Sequence[Exchange], path: Path) -> None:
    from asgi_connector._export.mermaid import sequence_diagram

    replace_file(path, sequence_diagram(exchanges).encode("utf-8", "backslashreplace"), private=False)
