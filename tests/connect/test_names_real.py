"""
Names and ports on a machine of its own, with real programs: a name server that
never answers, one whose answer changes, and few ports to connect from.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from tests.connect import names_world
from tests.support.processes import startProgram

_NEEDED = [shutil.which(each) for each in ("unshare", "ip", "mount", "dnsmasq")]


class RealNamesTests(TestCase):
    """What visitors get."""

    timeout = 120

    if os.geteuid() or not all(_NEEDED):
        skip = "a machine of its own needs root, unshare, ip, mount and dnsmasq"

    async def see(self, kind: str) -> Any:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        program = startProgram(
            _reactor,
            kind,
            [
                *("unshare", "-m", "-n", sys.executable, names_world.__file__),
                *(kind, str(directory)),
            ],
            directory,
        )
        self.addCleanup(program.kill)
        return json.loads((await program.says("^{")).string)

    async def test_stuck(self) -> None:
        """Thirty services whose names nobody answers for stop no other."""
        seen = await self.see("stuck")
        self.assertEqual([said for said, _ in seen["visits"]], ["hello"] * 3)
        for _, took in seen["visits"]:
            self.assertLess(took, 5)

    async def test_moved(self) -> None:
        """Every visitor is at the new address, whether the old one is gone or not."""
        seen = await self.see("moved")
        self.assertEqual(seen["visits"], ["old", *["new"] * 3, *["newer"] * 3])

    async def test_itself(self) -> None:
        """Nobody gets own bytes back from a service that is down, and it can start
        again."""
        seen = await self.see("itself")
        self.assertNotIn("ping", seen["said"])
        self.assertEqual(seen["back"], "back")
