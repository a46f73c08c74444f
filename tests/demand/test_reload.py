"""Starting a service for its visitors because a changed file says so."""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from tests.support.loopback import comeTo
from tests.support.processes import freePort, startTristunnel
from tests.support.short import shortDirectory

_FILE = """
connect = "tcp:127.0.0.1:{port}"
state-dir = "{directory}"
{more}
[[forward]]
to = "127.0.0.1:{place}"
"""


class ReloadTests(TestCase):
    """A real client."""

    timeout = 60

    async def test_added(self) -> None:
        """Its visitors count from then on, as those of one that was there before."""
        reactor: Any = _reactor
        directory = shortDirectory(self)
        port, place = freePort(), freePort()
        server = startTristunnel(
            reactor,
            "tunnel",
            [
                *("--port", f"tcp:{port}:interface=127.0.0.1"),
                *("--state-dir", str(directory / "server")),
            ],
            directory,
        )
        self.addCleanup(server.kill)
        await server.says("ANYBODY MAY CONNECT")
        path = directory / "client.toml"

        def write(more: str = "") -> None:
            text = _FILE.format(port=port, place=place, directory=directory, more=more)
            path.write_text(text)

        write()
        words = ["--config", str(path)]
        client = startTristunnel(reactor, "tunnel-client", words, directory)
        # Only a client that is asked to end takes with it what it has started.
        self.addCleanup(client.stop)
        address = await client.says(r"^tcp://127\.0\.0\.1:(\d+)$")
        run = f"{sys.executable} -m http.server --bind 127.0.0.1 {place}"
        write(f"start = {json.dumps(run)}")
        client.signal("HUP")
        await client.says("The configuration was reloaded")
        visitor = await comeTo(reactor, int(address[1]))
        visitor.say(b"GET / HTTP/1.0\r\n\r\n")
        await visitor.ended()
        visitor.close()
        self.assertIn(b" 200 OK", visitor.data)
        await client.says(f"127.0.0.1:{place} is being started")
        await client.says(f"127.0.0.1:{place} has started")
