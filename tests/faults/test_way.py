"""What the tests of cuts and faults take for granted about the way they cut."""

from __future__ import annotations

import socket
from contextlib import closing

from tests.faults.way import Link
from tests.support.loopback import LoopbackTestCase, Service, Talk
from tests.support.polling import until


class LinkTests(LoopbackTestCase):
    """A L{Link} to a service."""

    def setUp(self) -> None:
        """Lead to a service, and have three sockets to come by."""
        super().setUp()
        self.service = Service(b"hello")
        self.way = Link(self.outside, self.offer(self.service))
        self.addCleanup(self.way.stop)
        self.sockets = [socket.socket() for _ in range(3)]
        for each in self.sockets:
            self.enterContext(closing(each))
            each.bind(("127.0.0.1", 0))

    async def test_order(self) -> None:
        """
        Connections are told oldest first, whatever ports the kernel has given them: it
        does not count upwards.
        """
        ports = []
        for each in sorted(self.sockets, key=_port, reverse=True):
            each.connect(("127.0.0.1", self.way.port))
            ports.append(_port(each))
            await self.service.arrivals.get()
        await until(lambda: len(self.way.ups()) == 3)
        found = [leg.transport.getPeer().port for leg in self.way.ups()]
        self.assertEqual(found, ports)

    async def test_silence(self) -> None:
        """Who was met with silence is led on when that ends."""
        self.way.silent = True
        first, second, _ = self.sockets
        first.connect(("127.0.0.1", self.way.port))
        await until(lambda: self.way.legs)
        self.assertEqual(self.way.ups(), [])
        self.way.speak()
        second.connect(("127.0.0.1", self.way.port))
        for each in (first, second):
            talk: Talk = await self.service.arrivals.get()
            each.sendall(b"question")
            await talk.has(8)


def _port(each: socket.socket) -> int:
    number: int = each.getsockname()[1]
    return number
