"""
Tests for L{benchmarks.pictures}.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.contestant import HAPROXY
from benchmarks.pictures import PICTURES, draw, main

_MEDIANS = {
    "bulk": {
        HAPROXY: {"up 1 Gbit/s": 8.0},
        "tristunnel tcp": {"up 1 Gbit/s": 9.0, "CPU s/GiB": 0.5},
    },
    "idle": {"rathole": {"KiB/visitor": 17.5}},
}


class PicturesTests(SynchronousTestCase):
    """Pictures are drawn of what there is."""

    if find_spec("matplotlib") is None:
        skip = "matplotlib is not here: pip install 'tristunnel[benchmarks]'"

    def setUp(self) -> None:
        self.place = Path(self.mktemp())

    def test_drawn(self) -> None:
        """Loads that were not measured have no picture."""
        written = draw(_MEDIANS, self.place)
        self.assertEqual(
            [path.name for path in written],
            ["benchmark-bulk.svg", "benchmark-processor.svg", "benchmark-memory.svg"],
        )
        for path in written:
            self.assertTrue(ElementTree.parse(path).getroot().tag.endswith("svg"))

    def test_page(self) -> None:
        """The page shows through: nothing white is painted."""
        for path in draw(_MEDIANS, self.place):
            text = path.read_text()
            self.assertNotIn("fill: #ffffff", text)
            self.assertNotIn("#000000", text)

    def test_same(self) -> None:
        """The same figures make the same files."""
        first = {path.name: path.read_bytes() for path in draw(_MEDIANS, self.place)}
        again = {path.name: path.read_bytes() for path in draw(_MEDIANS, self.place)}
        self.assertEqual(first, again)

    def test_fromFile(self) -> None:
        """The program reads what C{--json} wrote."""
        self.place.mkdir()
        results = self.place / "results.json"
        results.write_text(json.dumps({"medians": _MEDIANS}))
        self.patch(__import__("builtins"), "print", lambda *words: None)
        main([str(results), str(self.place / "images")])
        self.assertEqual(len(list((self.place / "images").glob("*.svg"))), 3)

    def test_noFile(self) -> None:
        """Anything else is refused in a line."""
        ended = self.assertRaises(SystemExit, main, ["/nowhere", str(self.place)])
        self.assertIn("/nowhere is no file of figures", str(ended))

    def test_metrics(self) -> None:
        """A panel has one metric, or two with names."""
        for panels in PICTURES.values():
            for panel in panels:
                self.assertEqual(len(panel.labels) or 1, len(panel.parts))
