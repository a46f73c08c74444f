"""
The pages about the protocol, and the code, agree.
"""

from __future__ import annotations

import re
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import DOCS, page
from tests.support.wire_example import wireExample
from tristunnel.wire.framed import FrameType

if not DOCS.is_dir():
    skip = "there is no documentation beside these tests"


class ProtocolTests(SynchronousTestCase):
    """C{docs/protocol.rst} and the code agree."""

    def test_example(self) -> None:
        """The bytes of the worked example are those that the code writes."""
        self.assertEqual(
            page("docs/protocol-example.txt"),
            wireExample(),
            "python -m tests.support.wire_example > docs/protocol-example.txt"
            " makes it anew",
        )

    def test_frameTypes(self) -> None:
        """The table has every type of frame."""
        rows = re.findall(
            r"^   \* - (0x[0-9a-f]{2})\n     - (\w+)$", page("docs/protocol.rst"), re.M
        )
        self.assertEqual(
            [(int(code, 16), name) for code, name in rows],
            [(int(kind), kind.name.lower()) for kind in FrameType],
        )

    def test_limits(self) -> None:
        """The limits in the table are those in the code."""
        rows = re.findall(
            r"^   \* - .*\n     - ([0-9,]+)\n     - ([a-z]+\.[a-z]+)\.([A-Z_]+)$",
            page("docs/protocol.rst"),
            re.M,
        )
        self.assertTrue(rows)
        for value, module, name in rows:
            actual = getattr(import_module(f"tristunnel.{module}"), name)
            self.assertEqual(int(value.replace(",", "")), actual, name)
