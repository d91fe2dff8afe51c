"""The picture of the folders on the design page is true."""

import re
import xml.etree.ElementTree as ET

from tests.docs.architecture import PACKAGE, PICTURE, draw, layers
from tests.docs.pages import DOCS
from tests.support.programs import ROOT


def test_the_picture_is_not_older_than_the_rules_and_the_docstrings() -> None:
    assert PICTURE.read_text("utf-8") == draw(), "draw it anew: python -m tests.docs.architecture"


def test_the_picture_has_everything_at_the_top_level_of_the_package() -> None:
    names = [
        path.stem for path in (ROOT / PACKAGE).iterdir() if path.name not in ("__init__.py", "__pycache__", "py.typed")
    ]
    assert sorted(box.name for layer in layers() for box in layer) == sorted(names)


def test_each_text_is_inside_of_its_box() -> None:
    """As far as can be said without a browser: no line has more characters than fit."""
    svg = "{http://www.w3.org/2000/svg}"
    right = 0.0
    for element in ET.fromstring(PICTURE.read_text("utf-8")):
        if element.get("class") in ("folder", "module"):
            right = float(element.attrib["x"]) + float(element.attrib["width"])
        elif element.tag == f"{svg}text" and right:
            character = 7.9 if element.get("class") == "name" else 6.1
            assert float(element.attrib["x"]) + character * len(element.text or "") < right


def test_the_design_shows_the_picture() -> None:
    [target] = re.findall(r"!\[[^\]]+\]\(([^)]+\.svg)\)", (DOCS / "design.md").read_text("utf-8"))
    assert DOCS / target == PICTURE
