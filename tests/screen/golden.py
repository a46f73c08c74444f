"""
Screens as files: C{golden/*.txt}. This makes them anew, for C{git diff} to show:

    TRISTUNNEL_GOLDEN=1 .venv/bin/trial tests.screen.test_draw
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from unittest import TestCase

__all__ = ["assertGolden"]

_DIRECTORY = Path(__file__).with_name("golden")


def assertGolden(case: TestCase, name: str, lines: Sequence[str]) -> None:
    path = _DIRECTORY / f"{name}.txt"
    text = "".join(f"{line}\n" for line in lines)
    if os.environ.get("TRISTUNNEL_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    case.assertEqual(text, path.read_text("utf-8"))
