"""
The code in C{docs/embedding.rst} runs.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo
from twisted.trial.unittest import TestCase

from tests.docs.pages import DOCS, page
from tests.support.listening import listenHere
from tests.support.protocols import Hearing

if not DOCS.is_dir():
    skip = "there is no documentation beside these tests"


def codeBlock(text: str, name: str) -> str:
    """
    @return: The code of a named C{code-block}.
    """
    lines = text.splitlines()
    start = lines.index(f"   :name: {name}") + 1
    block = []
    for line in lines[start:]:
        if line and not line.startswith("   "):
            break
        block.append(line[3:])
    return "\n".join(block)


class EmbeddingTests(TestCase):
    """The code in C{docs/embedding.rst} runs."""

    async def test_serverAndClient(self) -> None:
        """
        A visitor reaches a service through the server and the client that the
        page shows.
        """
        names: dict[str, Any] = {"print": lambda *words: None}
        for name in ("embedded-server", "embedded-client"):
            exec(codeBlock(page("docs/embedding.rst"), name), names)
        echo = listenHere(self, reactor, Factory.forProtocol(Echo))
        server = names["makeServer"](reactor, "tcp:0:interface=127.0.0.1")
        server.startService()
        self.addCleanup(server.stopService)
        at = server.listening[0].getHost().port

        ready: Deferred[str] = Deferred()
        names["Addresses"].tunnelReady = lambda self, address, target: ready.callback(
            address
        )
        client = names["makeClient"](
            reactor, f"tcp:127.0.0.1:{at}", f"0=127.0.0.1:{echo}"
        )
        client.startService()
        self.addCleanup(client.stopService)
        port = int((await ready).rpartition(":")[2])
        visitor = await connectProtocol(
            HostnameEndpoint(reactor, "127.0.0.1", port), Hearing(b"hello")
        )
        self.assertEqual((await visitor.has(5)).data, b"hello")
        visitor.abort()
