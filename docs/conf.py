"""
How Sphinx builds the documentation.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from tristunnel import __version__

project = "tristunnel"
author = "The tristunnel contributors"
project_copyright = author
version = release = __version__

# The tables of docs/tables.py.
extensions = ["tables"]
exclude_patterns = ["_build"]
highlight_language = "text"
nitpicky = True
html_theme = "furo"
html_title = f"tristunnel {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
# Quotes and ellipses; two hyphens begin an option.
smartquotes_action = "qe"
html_show_copyright = False

# sphinx-build -b man docs build/man
man_pages = [
    ("reference", "tristunnel", "a self-hosted reverse tunnel", [author], 1),
    ("install", "tristunnel-install", "running a reverse tunnel", [author], 7),
    (
        "troubleshooting",
        "tristunnel-troubleshooting",
        "messages of a reverse tunnel, and what to do",
        [author],
        7,
    ),
]
