"""Draws the folders of the package as a picture: ``python -m tests.docs.architecture`` writes it.

The layers are those that import-linter checks, from ``pyproject.toml``, and the text in a box is the first sentence of
the docstring of its folder or module. So the picture says what the rules and the code say. A test fails if the file is
older than they are.
"""

import ast
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from tests.support.programs import ROOT

PICTURE: Final = ROOT / "docs" / "_static" / "architecture.svg"
PACKAGE: Final = "asgi_connector"

# In pixels.
_WIDTH: Final = 760
_MARGIN: Final = 20
_ARROW: Final = 34  # the column of the arrow, on the left
_GAP: Final = 10
_PADDING: Final = 12
_NAME_HEIGHT: Final = 18
_LINE_HEIGHT: Final = 16
_CHARACTER: Final = 6.1  # a generous width of a character of the text

_STYLE: Final = """
  text { font: 11.5px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #3d4450 }
  .name { font: 600 13px ui-monospace, Menlo, "DejaVu Sans Mono", monospace; fill: #10141a }
  .page { fill: #ffffff; stroke: #d5dae1 }
  .folder { fill: #e8f0fe; stroke: #5b8def }
  .module { fill: #f4f5f7; stroke: #b3bac5 }
  .arrow { fill: none; stroke: #7a8494; stroke-width: 1.5 }
  .head { fill: #7a8494 }
  @media (prefers-color-scheme: dark) {
    text { fill: #b9c1cd }
    .name { fill: #f0f3f7 }
    .page { fill: #16191e; stroke: #363c46 }
    .folder { fill: #1b2a45; stroke: #5b8def }
    .module { fill: #23272e; stroke: #565e6b }
    .arrow { stroke: #8b95a4 }
    .head { fill: #8b95a4 }
  }
"""


@dataclass(frozen=True)
class Box:
    """A folder or a module at the top level of the package."""

    name: str
    is_folder: bool
    job: str


def layers() -> list[list[Box]]:
    """The folders and modules, from the outside to the inside; those of one layer are side by side."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    [contract] = [each for each in settings["contracts"] if each["type"] == "layers"]
    return [[_box(name.strip()) for name in layer.replace("|", ":").split(":")] for layer in contract["layers"]]


def _box(name: str) -> Box:
    folder = ROOT / PACKAGE / name
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    return Box(name, folder.is_dir(), _first_sentence(path))


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert docstring is not None, f"{path} has no docstring"
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".").replace("`", "")


def draw() -> str:
    """The picture, as SVG."""
    boxes: list[str] = []
    top = _MARGIN
    for layer in layers():
        drawn, height = _draw_layer(layer, top)
        boxes += drawn
        top += height + _GAP
    bottom = top - _GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + _MARGIN}" role="img">',
            "<title>The folders and modules of the package. Each may import those below it.</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{bottom + _MARGIN - 1}" rx="8"/>',
            *_draw_arrow(_MARGIN, bottom),
            *boxes,
            "</svg>\n",
        ]
    )


def _draw_arrow(top: int, bottom: int) -> Iterator[str]:
    x = _MARGIN + 8
    yield f'<path class="arrow" d="M {x} {top} V {bottom - 6}"/>'
    yield f'<path class="head" d="M {x - 5} {bottom - 9} h 10 L {x} {bottom} z"/>'
    middle = (top + bottom) // 2
    yield f'<rect class="page" x="{x - 9}" y="{middle - 48}" width="18" height="96" style="stroke: none"/>'
    yield f'<text text-anchor="middle" transform="translate({x + 4} {middle}) rotate(-90)">may import</text>'


def _draw_layer(layer: list[Box], top: int) -> tuple[list[str], int]:
    """The boxes of a layer, side by side, and their height."""
    left = _MARGIN + _ARROW
    width = (_WIDTH - left - _MARGIN - _GAP * (len(layer) - 1)) // len(layer)
    texts = [textwrap.wrap(box.job, int((width - 2 * _PADDING) / _CHARACTER)) for box in layer]
    height = 2 * _PADDING + _NAME_HEIGHT + _LINE_HEIGHT * max(map(len, texts)) - 4
    drawn: list[str] = []
    for number, (box, lines) in enumerate(zip(layer, texts, strict=True)):
        x = left + number * (width + _GAP)
        kind = "folder" if box.is_folder else "module"
        drawn.append(f'<rect class="{kind}" x="{x}" y="{top}" width="{width}" height="{height}" rx="5"/>')
        y = top + _PADDING + 11
        drawn.append(f'<text class="name" x="{x + _PADDING}" y="{y}">{escape(box.name)}</text>')
        for line in lines:
            y += _NAME_HEIGHT if line is lines[0] else _LINE_HEIGHT
            drawn.append(f'<text x="{x + _PADDING}" y="{y}">{escape(line)}</text>')
    return drawn, height


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
    print(PICTURE.relative_to(ROOT))
