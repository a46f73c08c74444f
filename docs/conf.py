"""
How Sphinx builds the documentation.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tristunnel import __version__

project = "tristunnel"
author = "The tristunnel contributors"
project_copyright = author
version = release = __version__

exclude_patterns = ["_build"]
highlight_language = "text"
nitpicky = True
html_theme = "alabaster"
html_theme_options = {"description": "A self-hosted reverse tunnel"}
html_show_copyright = False

# sphinx-build -b man docs build/man
man_pages = [
    ("reference", "tristunnel", "a self-hosted reverse tunnel", [author], 1),
    ("install", "tristunnel-install", "running a reverse tunnel", [author], 7),
]
