"""Sphinx: ``sphinx-build -W --keep-going -b html docs docs/_build/html``. Nothing here needs the network."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the reference is that of this checkout, installed or not

_metadata = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
project = _metadata["name"]
version = release = _metadata["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
# No intersphinx: the inventories of Python and aiohttp are had from the network only, and without it the build would
# warn, which is an error.

myst_heading_anchors = 3  # the anchors of headings that GitHub has too
default_role = "py:obj"  # a single-backtick name in a docstring is a link, where the package has such a name

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True

copybutton_exclude = ".linenos, .gp, .go"  # prompts and output are not copied
copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"  # code, and not what it prints

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = f"{project} {version}"
exclude_patterns = ["_build"]
