"""
Draws the README's picture, both programs at work, from the client's screen and the
dashboard: C{python -m docs.images.at_work} in the checkout, with chromium installed.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.dashboard.pictures import smallPNG

HERE = Path(__file__).resolve().parent

PAGE = """<!doctype html><style>
body { margin: 0; display: flex; gap: 20px; background: #fff }
img { display: block; width: 640px }
div { width: 560px; height: 356px; overflow: hidden; border-radius: 8px;
  box-shadow: inset 0 0 0 1px #ccc; background: #f4f5f7 }
div img { width: 560px }
</style><body><img src="SCREEN"><div><img src="DASHBOARD"></div>"""


def main() -> None:
    """Take the picture."""
    page = PAGE.replace("SCREEN", (HERE.parent / "_static/screen.svg").as_uri())
    page = page.replace("DASHBOARD", (HERE / "dashboard-light.png").as_uri())
    with tempfile.TemporaryDirectory() as directory:
        source, picture = Path(directory, "page.html"), Path(directory, "picture.png")
        source.write_text(page, "utf-8")
        subprocess.run(
            [
                *("chromium", "--headless", "--no-sandbox", "--disable-gpu"),
                *("--hide-scrollbars", "--window-size=1220,356"),
                *(f"--screenshot={picture}", source.as_uri()),
            ],
            check=True,
            capture_output=True,
        )
        (HERE / "at-work.png").write_bytes(smallPNG(picture.read_bytes()))


if __name__ == "__main__":
    main()
