"""The files from which pages and pictures are made: HTML, CSS and JavaScript."""

from functools import cache
from importlib.resources import files


@cache
def template(name: str) -> str:
    """The text of a file of this folder."""
    return files(__name__).joinpath(name).read_text("utf-8")
