"""
The examples, run as they say that they are run.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from tests.loopback import Service
from tests.processes import Program, startProgram
from tests.test_taps_processes import ProcessTestCase

_EXAMPLES = Path(__file__).parent.parent / "examples"


class ExamplesTests(ProcessTestCase):
    """
    The server and the client in C{examples/}.
    """

    if not _EXAMPLES.is_dir():
        skip = "the examples are not installed"

    def run_(self, name: str, *arguments: str, **environment: str) -> Program:
        """
        Run an example.
        """
        program = startProgram(
            self.reactor,
            f"examples/{name}",
            [sys.executable, str(_EXAMPLES / name), *arguments],
            self.directory,
            environment,
        )
        self.addCleanup(program.kill)
        return program

    async def test_together(self) -> None:
        """
        The example's client comes to the example's server, and a visitor to
        its service; with a wrong secret it is turned away.
        """
        service = Service(b"hello")
        target = f"tcp:127.0.0.1:{self.offer(service)}"
        server = self.run_("server.py", "tcp:0:interface=127.0.0.1")
        listening = await server.says(r"Clients connect to .*port=(\d+)")
        where = f"tcp:127.0.0.1:{listening[1]}"

        said = (_EXAMPLES / "client.py").read_text("utf-8")
        secret = re.search(r"SECRET='(.*)'", said)
        assert secret is not None
        client = self.run_("client.py", where, target, SECRET=secret[1])
        address = await client.says(r"Visitors come to tcp://[^:]+:(\d+)$")
        self.visitors = int(address[1])
        await self.hears(service)
        await server.says(r"sent 0 bytes and got 5$")
        await client.says(f"A visitor of {re.escape(target)}")

        wrong = self.run_("client.py", where, target, SECRET="wrong")
        self.assertEqual(await self.ended(wrong), 1)
        self.assertIn("did not accept these credentials", wrong.lines[-1])
        await server.says("Turned away")

        server.signal("TERM")
        await client.says("The end: .*")
        self.assertEqual(await self.ended(client), 0)
        self.assertNotIn("Traceback", os.linesep.join(server.lines))
