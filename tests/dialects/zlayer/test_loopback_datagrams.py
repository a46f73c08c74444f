"""zlayer's datagrams and PROXY headers, over the loopback interface."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

from tests.dialects.zlayer.rig import ZLayerTestCase
from tests.integration.udp_loopback import Party
from tests.support.loopback import Service
from tests.websocket.rig import Recorder
from tristunnel.dialects.zlayer.data_end import DATA_SUBPROTOCOL
from tristunnel.wire.zlayer import UDP, Connect


class DatagramTests(ZLayerTestCase):
    """UDP through our server and our client, or a client by hand."""

    async def test_echo(self) -> None:
        """Datagrams of every size arrive whole and apart, an empty one too."""
        await self.startServer()
        service = self.party(Party.service)
        service.arrived = lambda datagram, sender: service.say(datagram, sender)
        (port,) = await self.startClient(f"udp/dns=127.0.0.1:{service.number}")
        visitor = self.party(Party.visitor, port)
        sizes = [1, 0, 512, 1400, 9000, 65000, 65507]
        sent = [os.urandom(size) for size in sizes]
        for number, datagram in enumerate(sent, 1):
            visitor.say(datagram)
            await visitor.has(number)
        self.assertEqual([datagram for datagram, _ in visitor.heard], sent)

    async def test_flows(self) -> None:
        """Each visitor has a connection of its own."""
        await self.startServer()
        service = self.party(Party.service)
        service.arrived = lambda datagram, sender: service.say(datagram, sender)
        (port,) = await self.startClient(f"udp/dns=127.0.0.1:{service.number}")
        visitors = [self.party(Party.visitor, port) for _ in range(20)]
        for number, visitor in enumerate(visitors):
            visitor.say(b"%d" % number)
        for number, visitor in enumerate(visitors):
            await visitor.has(1)
            self.assertEqual(visitor.heard[0][0], b"%d" % number)
        self.assertEqual(len({sender for _, sender in service.heard}), 20)

    async def test_byHand(self) -> None:
        """A datagram is a message, and a message is a datagram."""
        await self.startServer()
        peer = await self.loggedIn()
        _, port = await self.register(peer, "dns", UDP)
        visitor = self.party(Party.visitor, port)
        visitor.say(b"one")
        visitor.say(b"two")
        connect = await peer.next(Connect)
        data = Recorder()
        endpoint: Any = self.server(f"{self.path}/data/{connect.connectionId}").endpoint
        await endpoint.open(data, [DATA_SUBPROTOCOL])
        self.addCleanup(self._leave, data)
        await data.until(lambda it: len(it.messages) >= 2)
        self.assertEqual(data.messages, [b"one", b"two"])
        data.connection.sendWhole(b"three")
        data.connection.sendWhole(b"")
        await visitor.has(2)
        self.assertEqual([datagram for datagram, _ in visitor.heard], [b"three", b""])
        self.assertIsInstance(connect.connectionId, UUID)

    async def test_flood(self) -> None:
        """What the way does not take is dropped and counted, not kept; a stream goes on
        meanwhile."""
        await self.startServer()
        heard = self.party(Party.service)
        service = Service()
        ports = await self.startClient(
            f"udp/sink=127.0.0.1:{heard.number}", f"web=127.0.0.1:{self.offer(service)}"
        )
        flooder = self.party(Party.visitor, ports[0])
        visitor, arrival = await self.pair(ports[1], service)
        for _ in range(2000):
            flooder.say(bytes(8000))
        visitor.say(b"still here")
        await arrival.has(10)
        await heard.has(1)


class ProxyHeaderTests(ZLayerTestCase):
    """Services of our client that expect a PROXY header."""

    async def test_header(self) -> None:
        """It says where a visitor comes from; zlayer does not say where it came to."""
        await self.startServer()
        service = Service()
        (port,) = await self.startClient(f"0=localhost:{self.offer(service)},proxy=v1")
        visitor, at = await self.pair(port, service)
        visitor.say(b"hello")
        here = visitor.transport.getHost().port
        header = f"PROXY TCP4 127.0.0.1 0.0.0.0 {here} 0\r\n".encode()
        await at.has(len(header) + 5)
        self.assertEqual(at.data, header + b"hello")
