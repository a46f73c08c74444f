"""
The threat model names tests that there are.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]

if not (ROOT / "docs").is_dir():
    skip = "there is no documentation beside these tests"


class ThreatModelTests(SynchronousTestCase):
    """C{docs/threat-model.rst} and C{SECURITY.md}."""

    def test_named(self) -> None:
        """Every promise names a test, and each of those exists."""
        text = (ROOT / "docs" / "threat-model.rst").read_text("utf-8")
        table = text.partition("What is promised")[2].partition("What is not")[0]
        rows = re.split(r"^   \* - ", table, flags=re.M)[2:]
        self.assertGreater(len(rows), 10)
        for row in rows:
            named = re.findall(r"``([a-z_.]*(?:test_[a-z_]+|fuzz))``", row)
            self.assertTrue(named, row)
            for name in named:
                self.assertIsNotNone(find_spec(f"tests.{name}"), name)

    def test_links(self) -> None:
        """What the security policy refers to is there."""
        text = (ROOT / "SECURITY.md").read_text("utf-8")
        found = re.findall(r"\]\(([^)]+)\)|`((?:docs|tests)/[\w/.-]+)`", text)
        self.assertTrue(found)
        for link, path in found:
            self.assertTrue((ROOT / (link or path)).exists(), link or path)
