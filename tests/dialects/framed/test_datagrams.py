"""
Datagrams through a server and a client, over real sockets.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.wire import Echo

from tests.integration.udp_loopback import Party, UDPTestCase
from tests.support.listening import listenHere
from tests.support.notes import ClientNotes
from tristunnel.connect.address import Trust, parseTunnelURI
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.jsonrpc.pending import RemoteError
from tristunnel.wire.framed import MAX_DATAGRAM

_MANY = 10_000 if os.environ.get("TRISTUNNEL_LONG") else 2000


class Exchange:
    """
    Datagrams both ways at once, each paced by what the other side has heard.

    @ivar done: Fires when all are there.
    """

    def __init__(
        self, visitor: Party, service: Party, sizes: list[int], count: int
    ) -> None:
        self.done: Deferred[None] = Deferred()
        self._sizes = sizes
        self._count = count
        # As much under way as any kernel's buffer holds.
        self._room = max(1, min(32, 48 * 1024 // max(max(sizes), 1)))
        self._material = random.Random(sum(sizes)).randbytes(2 * MAX_DATAGRAM)
        self._parties = {"in": (visitor, service), "out": (service, visitor)}
        self._sent = dict.fromkeys(self._parties, 0)
        self._missing = {way: Counter[bytes]() for way in self._parties}
        self._heard = dict.fromkeys(self._parties, 0)
        self.wrong = 0
        self._address: object = None
        visitor.arrived = lambda datagram, sender: self._arrived("out", datagram)
        service.arrived = self._atService
        self._push("in")

    def _atService(self, datagram: bytes, sender: object) -> None:
        first, self._address = self._address is None, sender
        self._arrived("in", datagram)
        if first:
            self._push("out")

    def _push(self, way: str) -> None:
        source = self._parties[way][0]
        while (
            self._sent[way] < self._count
            and self._sent[way] - self._heard[way] < self._room
        ):
            number = self._sent[way]
            self._sent[way] += 1
            size = self._sizes[number % len(self._sizes)]
            head = f"{way}{number:08}".encode()
            offset = number % MAX_DATAGRAM
            datagram = (head + self._material[offset : offset + size])[:size]
            self._missing[way][datagram] += 1
            source.say(datagram, self._address if way == "out" else None)

    def _arrived(self, way: str, datagram: bytes) -> None:
        missing = self._missing[way]
        if missing[datagram] < 1:
            self.wrong += 1
        missing[datagram] -= 1
        if not missing[datagram]:
            del missing[datagram]
        self._heard[way] += 1
        for party in self._parties[way]:
            party.heard.clear()
        self._push(way)
        if not self.done.called and set(self._heard.values()) == {self._count}:
            self.done.callback(None)


class SizeTests(UDPTestCase):
    """Content and boundaries of datagrams of every size, thousands each way."""

    async def _exchange(self, sizes: list[int], count: int = _MANY) -> None:
        """Send C{count} datagrams each way and compare them."""
        service, port = await self.tunnel()
        exchange = Exchange(self.visitor(port), service, sizes, count)
        await exchange.done
        self.assertEqual(exchange.wrong, 0)
        (tunnel,) = list(self.tunnels.here)
        self.assertEqual(tunnel.datagramCounts(), {"dropped": 0, "evicted": 0})
        (stream,) = tunnel.streams
        total = sum(sizes[number % len(sizes)] for number in range(count))
        self.assertEqual((stream.bytesIn, stream.bytesOut), (total, total))

    async def test_empty(self) -> None:
        """An empty datagram is a datagram."""
        await self._exchange([0])

    async def test_tiny(self) -> None:
        """One byte."""
        await self._exchange([1])

    async def test_questions(self) -> None:
        """What DNS asks and answers."""
        await self._exchange([64, 512])

    async def test_packets(self) -> None:
        """1,420 bytes, WireGuard's packets, both ways at once."""
        await self._exchange([1420])

    async def test_fragments(self) -> None:
        """More than a network's packet has."""
        await self._exchange([1473, 8192])

    async def test_large(self) -> None:
        """32 KiB."""
        await self._exchange([32768])

    async def test_largest(self) -> None:
        """65,507 bytes, the most that UDP carries, are not clipped."""
        await self._exchange([MAX_DATAGRAM])

    async def test_mixed(self) -> None:
        """All sizes one after the other."""
        await self._exchange([0, 1, 5, 512, 1420, 8192, 32768, MAX_DATAGRAM], 2000)


class FlowTests(UDPTestCase):
    """One flow for each visitor's address, from its first datagram to its end."""

    async def test_visitorsApart(self) -> None:
        """
        Each visitor has a port of its own towards the service, and gets the
        answers to its own questions.
        """
        service, port = await self.tunnel()
        service.arrived = lambda datagram, sender: service.say(
            b"to " + datagram, sender
        )
        visitors = [self.visitor(port) for _ in range(20)]
        for number, visitor in enumerate(visitors):
            visitor.say(b"%d" % number)
            visitor.say(b"%d" % number)
        for number, visitor in enumerate(visitors):
            await visitor.has(2)
            answers = [datagram for datagram, _ in visitor.heard]
            self.assertEqual(answers, [b"to %d" % number] * 2)
        self.assertEqual(len({sender for _, sender in service.heard}), 20)
        (tunnel,) = list(self.tunnels.here)
        self.assertEqual(tunnel.visitorCount, 20)

    async def test_address(self) -> None:
        """The tunnel's address says C{udp}, and its list entry counts drops."""
        _, port = await self.tunnel()
        (tunnel,) = list(self.tunnels.here)
        self.assertEqual(tunnel.address, f"udp://127.0.0.1:{port}")
        session = self.client.session
        assert session is not None
        listed: Any = await session.call("listTunnels")
        (entry,) = listed
        self.assertEqual((entry["dropped"], entry["evicted"]), (0, 0))

    async def test_answersFromTheAddressSpokenTo(self) -> None:
        """
        On a machine with several addresses the answer comes from the one that
        was spoken to: a connected socket takes no other.
        """
        service, port = await self.tunnel()
        service.arrived = lambda datagram, sender: service.say(datagram, sender)
        for host in ("127.0.0.2", "127.0.0.1"):
            visitor = self.visitor(port, host)
            visitor.say(b"here")
            await visitor.has(1)

    async def test_idle(self) -> None:
        """A silent flow ends at both sides, and the next datagram begins another."""
        service, port = await self.tunnel(idle=0.2)
        service.arrived = lambda datagram, sender: service.say(datagram, sender)
        visitor = self.visitor(port)
        visitor.say(b"one")
        await visitor.has(1)
        await self.told(self.seen, "serviceGone")
        (tunnel,) = list(self.tunnels.here)
        self.assertEqual((len(tunnel.streams), tunnel.bytesIn), (0, 3))
        visitor.say(b"two")
        await visitor.has(2)
        self.assertNotEqual(service.heard[0][1], service.heard[1][1])

    async def test_nobodyListens(self) -> None:
        """Where no service is, the client says so and the flow ends."""
        gone = self.service()
        number = gone.number
        gone.port.close()
        self.startServer()
        (port,) = await self.startClient(f"udp/0=127.0.0.1:{number}")
        self.visitor(port).say(b"hello")
        target, refusal = await self.told(self.seen, "serviceFailed")
        self.assertEqual(target, f"udp:127.0.0.1:{number}")
        self.assertEqual(refusal, "service-refused")
        await self.told(self.notes, "visitorGone")

    async def test_localhost(self) -> None:
        """
        A name with several addresses leads to the one where somebody listens,
        and not a datagram is lost in finding it.
        """
        service = self.service()
        self.startServer()
        (port,) = await self.startClient(f"udp/0=localhost:{service.number}")
        visitor = self.visitor(port)
        for number in range(3):
            visitor.say(b"%d" % number)
        await service.has(3)
        self.assertEqual([each for each, _ in service.heard], [b"0", b"1", b"2"])

    async def test_sessionLost(self) -> None:
        """When the client comes back, so does the tunnel, on the same port."""
        service, port = await self.tunnel()
        service.arrived = lambda datagram, sender: service.say(datagram, sender)
        visitor = self.visitor(port)
        visitor.say(b"one")
        await visitor.has(1)
        assert self.client.session is not None
        self.client.session.transport.abortConnection()
        await self.told(self.seen, "disconnected")
        await self.told(self.seen, "tunnelReady", 2)
        again = self.visitor(port)
        again.say(b"two")
        await again.has(1)

    async def test_closed(self) -> None:
        """Closing the tunnel ends its flows and frees the port."""
        service, port = await self.tunnel()
        self.visitor(port).say(b"one")
        await service.has(1)
        session = self.client.session
        assert session is not None
        (tunnel,) = list(self.tunnels.here)
        await session.call("closeTunnel", uri=tunnel.publicURI)
        await self.told(self.seen, "serviceGone")
        self.service("127.0.0.1", port)


class CapabilityTests(UDPTestCase):
    """A tunnel whose URI is all that its client has."""

    async def test_given(self) -> None:
        """One who has the URI serves visitors over UDP."""
        await self.tunnel()
        self.tunnels.clientPort = (self.serverPort, False)
        session = self.client.session
        assert session is not None
        uri = str(await session.call("openTunnel", listener="udp", via="w3p"))
        address = str(await session.call("getTunnelAddress", uri=uri))
        service = self.service()
        service.arrived = lambda datagram, sender: service.say(datagram, sender)
        seen = ClientNotes()
        client = TunnelClientService(
            self.reactor,
            parseTunnelURI(self.reactor, uri, Trust()),
            [parseForward(self.reactor, f"0=udp:127.0.0.1:{service.number}")],
            observer=seen,
            grace=0.0,
        )
        client.startService()
        self.addCleanup(client.stopService)
        await self.told(seen, "tunnelReady")
        visitor = self.visitor(int(address.rpartition(":")[2]))
        visitor.say(b"?")
        await visitor.has(1)


class RefusalTests(UDPTestCase):
    """What cannot be had is refused with a reason."""

    async def _refused(self, **options: object) -> str:
        """Ask a session for a tunnel; the refusal's code."""
        session = self.client.session
        assert session is not None
        try:
            await session.call("openTunnel", listener="udp", **options)
        except (TunnelError, RemoteError) as error:
            return str(error)
        self.fail("it was opened")

    async def test_raw(self) -> None:
        """A raw tunnel carries bytes."""
        await self.tunnel()
        said = await self._refused(via="tcp")
        self.assertIn("cannot carry UDP", said)
        self.assertIn("bad-option", said)

    async def test_portTaken(self) -> None:
        """A port that is taken, and one that is not given out."""
        service, _ = await self.tunnel()
        self.assertIn("port-taken", await self._refused(port=service.number))
        self.assertIn("port-not-permitted", await self._refused(port=53))

    async def test_olderClient(self) -> None:
        """
        A client that does not say that it takes datagrams gets no UDP tunnel,
        and a clear answer.
        """
        await self.tunnel()
        (session,) = self.sessions.sessions
        session.multiplexer.datagrams.largest = 0
        self.assertIn("update the client", await self._refused())


class FloodTests(UDPTestCase):
    """A flood of datagrams beside a stream."""

    async def test_streamGoesOn(self) -> None:
        """
        While one tunnel is flooded as fast as this process can, a stream of the
        same session carries its questions and answers, every byte of them.
        """
        sink = self.service()
        echo = listenHere(self, self.reactor, Factory.forProtocol(Echo))
        self.startServer()
        flooded, port = await self.startClient(
            f"udp/0=127.0.0.1:{sink.number}", f"0=127.0.0.1:{echo}"
        )
        visitor = self.visitor(flooded)
        sink.arrived = lambda datagram, sender: sink.heard.clear()
        flooding = True

        def flood() -> None:
            for _ in range(200):
                visitor.say(bytes(1420))
            if flooding:
                self.reactor.callLater(0, flood)

        flood()
        await sink.has(1000)
        asker = Asker(50, 20_000)
        self.reactor.connectTCP("127.0.0.1", port, asker)
        before = sink.count
        await asker.done
        flooding = False
        self.assertEqual(asker.heard, 50 * 20_000)
        self.assertGreater(sink.count, before)


class Asker(Factory):
    """
    Asks one question after the other.

    @ivar heard: Bytes of answers.
    """

    noisy = False

    def __init__(self, count: int, size: int) -> None:
        self.done: Deferred[None] = Deferred()
        self.heard = 0
        self._left = count
        self._size = size
        self._due = 0

    def startedConnecting(self, connector: object) -> None:
        """Under way."""

    def clientConnectionLost(self, connector: object, reason: object) -> None:
        """It is over."""

    def buildProtocol(self, addr: object) -> Protocol:
        factory = self

        class Asking(Protocol):
            """The connection."""

            def connectionMade(self) -> None:
                self.ask()

            def ask(self) -> None:
                assert self.transport is not None
                if not factory._left:
                    self.transport.loseConnection()
                    factory.done.callback(None)
                    return
                factory._left -= 1
                factory._due = factory._size
                self.transport.write(bytes(factory._size))

            def dataReceived(self, data: bytes) -> None:
                factory.heard += len(data)
                factory._due -= len(data)
                if not factory._due:
                    self.ask()

        return Asking()
