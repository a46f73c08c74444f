"""
What a page refers to is there.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import DOCS, ROOT

if not DOCS.is_dir():
    skip = "there is no documentation beside these tests"


class LinkTests(SynchronousTestCase):
    """What a page refers to is there."""

    def test_files(self) -> None:
        """Relative links, and files that are included, exist."""
        patterns = (
            r"`[^`<]*<(?!https?:|#)([^`>]+)>`_",
            r"^\.\. (?:literalinclude|include|image|figure):: (\S+)",
        )
        for path in [*ROOT.glob("*.rst"), *DOCS.rglob("*.rst")]:
            for pattern in patterns:
                for target in re.findall(pattern, path.read_text("utf-8"), re.M):
                    self.assertTrue(
                        (path.parent / target).exists(), f"{path.name}: {target}"
                    )

    def test_pages(self) -> None:
        """Every page that is referred to exists."""
        for path in DOCS.rglob("*.rst"):
            for name in re.findall(r":doc:`([\w/-]+)`", path.read_text("utf-8")):
                self.assertTrue(
                    (path.parent / f"{name}.rst").exists(), f"{path.name}: {name}"
                )
