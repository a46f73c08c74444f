"""
Tests for L{benchmarks.__main__}: who takes part, and what is kept.
"""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import __main__ as program
from benchmarks.__main__ import Results
from benchmarks.contestants import CONTESTANTS
from benchmarks.loads import LOADS
from benchmarks.processes import Failed

_BULK, _LONG = (load for load in LOADS if load.name in ("bulk", "long"))
_FIRST, _SECOND = CONTESTANTS[:2]


class ResultsTests(SynchronousTestCase):
    """Tests for L{Results}."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def make(self, resume: bool = True, seconds: float = 2.0) -> Results:
        return Results(self.path, {"seconds": seconds}, resume)

    def test_resume(self) -> None:
        """Rounds that are over are not measured again; what failed is."""
        results = self.make()
        results.add(_BULK, _FIRST, {"up 1 Gbit/s": 1.0})
        results.add(_BULK, _FIRST, {"up 1 Gbit/s": 3.0})
        results.failed(_BULK, _SECOND, "it broke")
        self.assertGreater(results.done(_BULK, _SECOND), 100)
        again = self.make()
        self.assertEqual(again.done(_BULK, _FIRST), 2)
        self.assertEqual(again.done(_BULK, _SECOND), 0)
        self.assertEqual(again.done(_LONG, _FIRST), 0)
        self.assertEqual(again.medians(), {"bulk": {_FIRST.name: {"up 1 Gbit/s": 2.0}}})

    def test_afresh(self) -> None:
        """Without C{--resume}, nothing is taken over."""
        self.make().add(_BULK, _FIRST, {"up 1 Gbit/s": 1.0})
        self.assertEqual(self.make(False).figures, {})

    def test_settings(self) -> None:
        """Figures of different lengths do not go together."""
        self.make().add(_BULK, _FIRST, {"up 1 Gbit/s": 1.0})
        failure = self.assertRaises(Failed, self.make, True, 5.0)
        self.assertIn("another --seconds", str(failure))

    def test_file(self) -> None:
        """The file has figures, medians, ratios and what was to be reached."""
        results = self.make()
        ours = next(each for each in CONTESTANTS if each.name == "tristunnel tls")
        results.add(_LONG, ours, {"Mbit/s": 960.0})
        written = json.loads(self.path.read_text())
        self.assertEqual(written["figures"]["long"][ours.name], [{"Mbit/s": 960.0}])
        self.assertEqual(written["medians"]["long"][ours.name], {"Mbit/s": 960.0})
        self.assertEqual(written["ratios"]["long"][ours.name], {"Mbit/s": {}})
        (target,) = written["targets"]
        self.assertTrue(target["met"])


class ChoiceTests(SynchronousTestCase):
    """What the options choose."""

    def test_loads(self) -> None:
        """A load that does not exist is refused, with those that do."""
        self.assertEqual(program._loads("long,beside")[0].name, "beside")
        failure = self.assertRaises(Failed, program._loads, "bulky")
        self.assertIn("no load bulky; there are bulk, requests", str(failure))

    def test_contestants(self) -> None:
        """Parts of names choose, and leave out."""
        chosen = program._present("direct path,tristunnel", "wss,tls")
        self.assertEqual(
            [each.name for each in chosen],
            [
                "direct path",
                "tristunnel tcp",
                "tristunnel direct",
                "tristunnel session",
            ],
        )

    def test_kinds(self) -> None:
        """Everybody's names differ, and every mode of ours is marked as such."""
        names = [each.name for each in CONTESTANTS]
        self.assertEqual(len(set(names)), len(names))
        for each in CONTESTANTS:
            self.assertEqual(
                each.kind == "ours",
                each.name.startswith("tristunnel") or each.name.endswith("at ours"),
            )
