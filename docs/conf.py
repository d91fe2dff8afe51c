"""Sphinx: ``sphinx-build -W --keep-going -b html docs docs/_build/html``.

Nothing here needs the network.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The reference is that of this checkout, installed or not.
sys.path.insert(0, str(ROOT))

_metadata = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
project = _metadata["name"]
version = release = _metadata["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
# No intersphinx: it reads the inventories of Python and aiohttp from the network.
# Without a network the build would warn, which is an error.

myst_heading_anchors = 3  # the anchors of headings that GitHub has too
# A name in single backticks in a docstring is a link, if the package has such a name.
default_role = "py:obj"

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True

# Code has a copy button, and what it prints has none.
copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = f"{project} {version}"
exclude_patterns = ["_build"]
