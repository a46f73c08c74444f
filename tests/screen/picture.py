"""
The picture of the screen in the documentation:

    python -m tests.screen.picture > docs/_static/screen.svg
"""

from __future__ import annotations

import io
import os
import sys
import time

from rich.console import Console
from rich.text import Text

from tests.screen.example import clientStatus
from tristunnel.screen.draw import Pen, drawPage
from tristunnel.screen.model import clientPage

__all__ = ["SIZE", "picture"]

SIZE = (92, 24)
"""Columns and lines."""

# Without the fonts that rich would have browsers fetch from elsewhere.
_FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})"
 clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def picture() -> str:
    """Draw it. @return: SVG."""
    width, height = SIZE
    page = clientPage(clientStatus(), ("q stops", "c QR code"))
    pen = Pen(environment={"TERM": "xterm-256color"})
    console = Console(
        record=True,
        width=width,
        file=io.StringIO(),
        force_terminal=True,
        legacy_windows=False,
        _environ={"TERM": "xterm-256color"},
    )
    for line in drawPage(pen, page, width, height):
        console.print(Text.from_ansi(line), no_wrap=True, crop=True)
    made = console.export_svg(
        title="tristunnel client", code_format=_FORMAT, unique_id="screen"
    )
    return "".join(f"{line.rstrip()}\n" for line in made.splitlines() if line.strip())


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    time.tzset()
    sys.stdout.write(picture())
