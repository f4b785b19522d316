"""Configuration of Sphinx; the version comes from the package."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = "bytestag"
author = "The bytestag developers"
copyright = author
release = re.search(r'__version__ = "(.+)"', (ROOT / "bytestag" / "__init__.py").read_text())[1]
version = release

extensions = []
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"bytestag {release}"
html_show_copyright = False
nitpicky = True
