"""The client's side: forwards, lookups, and sockets towards services."""

from __future__ import annotations

import errno
import socket
from typing import Any, ClassVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.dataplane.test_datagrams import FlowPair
from tests.support.notes import ClientNotes
from tests.support.processes import freePort
from tristunnel.dataplane.datagrams import DatagramSocket
from tristunnel.dataplane.descriptors import Reserve
from tristunnel.dataplane.lookups import FRESH
from tristunnel.errors import TunnelError
from tristunnel.forwards import udp
from tristunnel.forwards.forward import parseForward
from tristunnel.forwards.udp import UDPConnector, UDPService

_V6, _V4 = ("::1", 53), ("127.0.0.1", 53)


class NamingClock(Clock):
    """
    A reactor that tells time and looks names up.

    @ivar lookups: Who waits for an answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lookups: list[Any] = []
        self.nameResolver = self

    def resolveHostName(
        self, receiver: Any, host: str, port: int, **options: object
    ) -> None:
        self.lookups.append(receiver)

    def answer(self, *addresses: Any) -> None:
        receiver = self.lookups.pop(0)
        for address in addresses:
            receiver.addressResolved(address)
        receiver.resolutionComplete()

    def answerBoth(self) -> None:
        self.answer(IPv6Address("UDP", *_V6), IPv4Address("UDP", *_V4))


class FakeSocket:
    """
    A connected socket, in memory.

    @cvar made: All there are.
    @cvar refusal: Why there can be no more, or C{None}.
    """

    made: ClassVar[list[FakeSocket]] = []
    refusal: OSError | None = None

    def __init__(self, address: Any, arrived: Any, failed: Any) -> None:
        self.address = address
        self.arrived = arrived
        self.failed = failed
        self.sent: list[bytes] = []
        self.closed = False

    @classmethod
    def connect(
        cls, reactor: Any, family: int, address: Any, arrived: Any, failed: Any
    ) -> FakeSocket:
        if cls.refusal is not None:
            raise cls.refusal
        cls.made.append(cls(address, arrived, failed))
        return cls.made[-1]

    def send(self, datagram: bytes) -> bool:
        self.sent.append(datagram)
        return True

    def close(self) -> None:
        self.closed = True


class ForwardTests(SynchronousTestCase):
    """C{--forward} for UDP."""

    def test_parse(self) -> None:
        """Ports and names as for TCP."""
        for spec, port, name, target in (
            ("udp/5353=localhost:53", 5353, "", "udp:localhost:53"),
            ("udp/dns=[::1]:53", 0, "dns", "udp:[::1]:53"),
            ("udp/=h:1", 0, "", "udp:h:1"),
            ("5353=udp/localhost:53", 5353, "", "udp:localhost:53"),
            ("5353=udp/53", 5353, "", "udp:localhost:53"),
            ("0=udp:localhost:53", 0, "", "udp:localhost:53"),
        ):
            forward = parseForward(Clock(), spec)
            self.assertTrue(forward.isUDP)
            self.assertEqual(
                (forward.port, forward.name, forward.target), (port, name, target)
            )

    def test_wrong(self) -> None:
        """What is wrong is named, with an example."""
        for spec in ("udp/1=h", "udp/1=h:0", "udp/1=:x", "udp/1=unix:x"):
            error = self.assertRaises(TunnelError, parseForward, Clock(), spec)
            self.assertEqual(error.code.name, "bad-option")
            self.assertIn("udp/5353=localhost:53", error.message)


class SocketTests(SynchronousTestCase):
    """A service's socket."""

    def test_itself(self) -> None:
        """A socket that was given the port that it is to reach would hear itself:
        nobody is there."""
        here = ("127.0.0.1", freePort())

        class Bound(socket.socket):
            def connect(self, address: Any) -> None:
                self.bind(address)
                super().connect(address)

        self.patch(socket, "socket", Bound)
        error = self.assertRaises(
            ConnectionRefusedError,
            DatagramSocket.connect,
            MemoryReactorClock(),
            socket.AF_INET,
            here,
            lambda *arrived: None,
            lambda error: None,
        )
        self.assertEqual(error.errno, errno.ECONNREFUSED)


class LookupTests(SynchronousTestCase):
    """Names lead to places."""

    def setUp(self) -> None:
        self.clock = NamingClock()
        self.service = UDPService(self.clock, "dns.test", 53)

    def test_address(self) -> None:
        """An address needs no lookup."""
        for host in ("127.0.0.1", "::1"):
            service = UDPService(self.clock, host, 53)
            (place,) = self.successResultOf(service.whereIs())
            self.assertEqual(place[1], (host, 53))
        self.assertEqual(self.clock.lookups, [])

    def test_moveOn(self) -> None:
        """The address at which nobody listens comes last from then on."""
        for expected in ([_V6, _V4], [_V4, _V6]):
            asking = self.service.whereIs()
            self.clock.answerBoth()
            places = self.successResultOf(asking)
            self.assertEqual([address for _, address in places], expected)
            self.service.moveOn(places[0])
            self.clock.advance(FRESH)

    def test_nothing(self) -> None:
        """A name without addresses is an error."""
        asking = self.service.whereIs()
        self.clock.answer()
        self.failureResultOf(asking, DNSLookupError)


class ConnectorTests(SynchronousTestCase):
    """A flow finds its service."""

    def setUp(self) -> None:
        self.patch(udp, "DatagramSocket", FakeSocket)
        self.patch(FakeSocket, "made", [])
        self.clock = NamingClock()
        self.service = UDPService(self.clock, "dns.test", 53)
        self.both = FlowPair()
        self.seen = ClientNotes()
        connector = UDPConnector(self.seen)
        self.both.client.datagrams.opened = lambda flow, info: connector.connect(
            flow, "udp:localhost:53", self.service, self.both.client.datagrams.accept
        )
        self.flow, self.visitor = self.both.open()
        self.flow.send(b"one")
        self.both.pair.settle()

    def test_waits(self) -> None:
        """The first datagrams wait for the lookup."""
        self.clock.answerBoth()
        (socket,) = FakeSocket.made
        self.assertEqual((socket.address, socket.sent), (_V6, [b"one"]))
        socket.arrived(b"answer", _V6, None)
        self.both.pair.settle()
        self.assertEqual(self.visitor.taken, [b"answer"])

    def test_noHost(self) -> None:
        """A name that leads nowhere refuses the flow."""
        self.clock.answer()
        self.both.pair.settle()
        self.assertEqual(self.visitor.closings, ["service-unreachable"] * 2)

    def test_leavesMeanwhile(self) -> None:
        """A visitor who is gone when the name is found leaves no socket behind."""
        self.flow.finish()
        self.both.pair.settle()
        self.clock.answerBoth()
        self.assertEqual(FakeSocket.made, [])

    def test_nextAddress(self) -> None:
        """Where nobody listens at the first address, the second one hears everything;
        later flows go there at once."""
        self.clock.answerBoth()
        FakeSocket.made[0].failed(OSError(111, "Connection refused"))
        first, second = FakeSocket.made
        self.assertTrue(first.closed)
        self.assertEqual((second.address, second.sent), (_V4, [b"one"]))
        self.both.open()
        self.both.pair.settle()
        self.assertEqual(FakeSocket.made[2].address, _V4)

    def test_nobody(self) -> None:
        """Where nobody listens at all, the flow ends with the reason."""
        self.clock.answerBoth()
        for _ in range(2):
            FakeSocket.made[-1].failed(OSError(111, "Connection refused"))
        self.both.pair.settle()
        self.assertEqual(self.visitor.closings, ["service-refused"] * 2)
        self.assertTrue(all(each.closed for each in FakeSocket.made))
        self.assertEqual(
            self.seen.named("serviceFailed"), [("udp:localhost:53", "service-refused")]
        )

    def test_oneDatagram(self) -> None:
        """A report on one datagram only does not end the flow."""
        self.clock.answerBoth()
        FakeSocket.made[0].failed(OSError(90, "Message too long"))
        self.assertFalse(FakeSocket.made[0].closed)

    def test_noDescriptor(self) -> None:
        """A client that can open no more sockets refuses the flow and says so."""
        self.patch(FakeSocket, "refusal", OSError(24, "Too many open files"))
        self.clock.answerBoth()
        self.both.pair.settle()
        self.assertEqual(self.visitor.closings, ["limit-reached"] * 2)

    def test_crowd(self) -> None:
        """Flows have half of what there is for visitors, and no more. Made-up visitors
        make room for new ones; those stay who went on when they were answered, until
        there is nobody else."""
        flows = udp.ServiceFlows(Reserve(lambda: 40, lambda: 3))
        self.patch(udp, "FLOWS", flows)
        self.clock.answerBoth()
        self.flow.send(b"not answered yet")
        talking: list[Any] = []
        for answered in (True, False):
            for number in range(100):
                flow, _ = self.both.open()
                flow.send(b"hello")
                self.both.pair.settle()
                if answered and len(talking) < 5:
                    FakeSocket.made[-1].arrived(b"answer", _V6, None)
                    self.both.pair.settle()
                    flow.send(b"again")
                    self.both.pair.settle()
                    talking.append(flow)
                self.assertFalse(FakeSocket.made[-1].closed, number)
                here = [each for each in FakeSocket.made if not each.closed]
                self.assertLessEqual(len(here), 15)
                self.assertLessEqual(len(flows), 15)
        self.assertEqual([flow for flow in talking if flow.over], [])
        self.assertEqual(self.seen.named("serviceFailed"), [])
        for _ in range(20):
            flow, _ = self.both.open()
            for datagram in (b"hello", b"again"):
                flow.send(datagram)
                self.both.pair.settle()
                FakeSocket.made[-1].arrived(b"answer", _V6, None)
                self.both.pair.settle()
        self.assertTrue(all(flow.over for flow in talking))
        self.both.client.close(TunnelError("session-lost"))
        self.assertEqual(len(flows), 0)

    def test_low(self) -> None:
        """Where others have used the descriptors up, a flow takes another's place, and
        none of the reserve."""
        used = 0
        self.patch(udp, "FLOWS", udp.ServiceFlows(Reserve(lambda: 40, lambda: used)))
        self.clock.answerBoth()
        used = 30
        _, visitor = self.both.open()
        self.both.pair.settle()
        self.assertTrue(FakeSocket.made[0].closed)
        self.assertEqual(visitor.closings, ["limit-reached"] * 2)
        self.assertEqual(len(FakeSocket.made), 1)

    def test_sessionLost(self) -> None:
        """The end of the session closes the sockets."""
        self.clock.answerBoth()
        self.both.client.close(TunnelError("session-lost"))
        self.assertTrue(FakeSocket.made[0].closed)
        self.assertEqual(
            [event[1:3] for event in self.seen.named("serviceGone")], [(0, 3)]
        )
