"""
Visitors' flows, by a clock that is moved by hand.
"""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dataplane.test_datagrams import FlowPair, RecordingFlow
from tests.support.waiting import reserved
from tristunnel.dataplane.flows import HOLD, TableFlow
from tristunnel.dialects.framed.datagrams import SessionFlow
from tristunnel.errors import TunnelError
from tristunnel.listeners import udp
from tristunnel.listeners.udp import UDPListener, UDPListeners
from tristunnel.model.observer import ServerObserver
from tristunnel.model.options import TunnelOptions
from tristunnel.model.permissions import Identity
from tristunnel.model.ports import PortRange
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.wire.framed import MAX_DATAGRAM

_TAKEN = 4000


class FakeSocket:
    """A socket that keeps what is sent."""

    def __init__(self, port: int) -> None:
        self.address = ("::", port or 5353, 0, 0)
        self.sent: list[tuple[bytes, Any]] = []
        self.closed = False
        self.full = False

    @classmethod
    def listen(
        cls, reactor: Any, interface: str, port: int, arrived: Any, bind: Any
    ) -> Any:
        if port == _TAKEN:
            raise OSError(98, "Address already in use")
        return cls(port)

    def send(self, datagram: bytes, address: Any, local: Any) -> bool:
        if self.full:
            return False
        self.sent.append((datagram, address))
        return True

    def close(self) -> None:
        self.closed = True


def visitor(number: int) -> Any:
    """An address of a visitor, as a socket tells it."""
    return (f"::ffff:10.0.{number >> 8 & 255}.{number & 255}", 5000, 0, 0)


class ListenerTests(SynchronousTestCase):
    """Flows begin, live and end."""

    def setUp(self) -> None:
        self.patch(udp, "DatagramSocket", FakeSocket)
        self.clock = Clock()
        self.arrivals: list[tuple[TableFlow, str]] = []
        self.ends: list[RecordingFlow] = []
        self.listener = self.listen()

    def listen(self, **options: Any) -> UDPListener:
        listener = UDPListener(self.clock, self._arrived, **options)
        listener.listen("", 5353)
        return listener

    def _arrived(self, flow: Any, address: str) -> None:
        self.arrivals.append((flow, address))
        end = RecordingFlow()
        end.meet(flow)
        self.ends.append(end)

    def say(self, number: int, datagram: bytes = b"?") -> None:
        self.listener.datagramArrived(datagram, visitor(number), None)

    def test_flows(self) -> None:
        """One for each address, which is written as what it is."""
        self.say(1)
        self.say(1, b"")
        self.say(2)
        self.assertEqual(
            [address for _, address in self.arrivals],
            ["10.0.0.1:5000", "10.0.0.2:5000"],
        )
        self.assertEqual(self.ends[0].taken, [b"?", b""])
        self.assertEqual(self.listener.address, ("udp", "", 5353))

    def test_idle(self) -> None:
        """A flow ends after a minute of silence; either side keeps it alive."""
        for number in (1, 2, 3):
            self.say(number)
        for _ in range(12):
            self.clock.advance(10)
            self.say(1)
            self.ends[1].passOn(b"!")
        self.assertEqual(list(self.listener.flows), [visitor(1), visitor(2)])
        self.assertEqual(self.ends[2].closings, ["", ""])
        for _ in range(14):
            self.clock.advance(5)
        self.assertEqual(len(self.listener.flows), 0)
        # Nothing is left to look after.
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_adjusted(self) -> None:
        """How long that is can be chosen, and holds to an eighth."""
        self.listener = self.listen(idle=8.0)
        self.say(1)
        for _ in range(8):
            self.clock.advance(0.99)
        self.assertEqual(len(self.listener.flows), 1)
        self.clock.advance(1.1)
        self.assertEqual(len(self.listener.flows), 0)

    def test_roomForFlows(self) -> None:
        """
        A full table makes room by ending what was never answered, the oldest
        first; visitors who are served stay.
        """
        self.listener = self.listen(most=20)
        for number in range(10):
            self.say(number)
            self.ends[number].passOn(b"!")
        for number in range(100, 1100):
            self.say(number)
        self.assertEqual(len(self.listener.flows), 20)
        self.assertEqual(self.listener.evicted, 990)
        for number in range(10):
            self.assertIn(visitor(number), self.listener.flows)
        self.assertIn(visitor(1099), self.listener.flows)

    def test_roomAmongAnswered(self) -> None:
        """Where nearly all are served, the one silent for longest makes room."""
        self.listener = self.listen(most=10)
        for number in range(10):
            self.say(number)
            self.ends[number].passOn(b"!")
        self.say(0)
        self.say(100)
        self.assertNotIn(visitor(1), self.listener.flows)
        self.assertIn(visitor(0), self.listener.flows)
        self.assertEqual(self.ends[1].closings, ["", ""])

    def test_broken(self) -> None:
        """A visitor whose flow broke is not tried again at once."""
        self.say(1)
        self.ends[0].remoteOver(TunnelError("service-refused"))
        self.say(1)
        self.assertEqual((len(self.arrivals), self.listener.dropped), (1, 1))
        self.clock.advance(HOLD)
        self.say(1)
        self.assertEqual(len(self.arrivals), 2)
        self.assertEqual(self.ends[1].taken, [b"?"])

    def test_tooLong(self) -> None:
        """IPv6 has datagrams of 20 bytes more; they are dropped and counted."""
        self.say(1, bytes(MAX_DATAGRAM))
        self.say(1, bytes(MAX_DATAGRAM + 1))
        self.assertEqual(len(self.ends[0].taken), 1)
        self.assertEqual(self.listener.dropped, 1)

    def test_fullSocket(self) -> None:
        """What the kernel does not take is dropped and counted."""
        self.say(1)
        flow, _ = self.arrivals[0]
        self.listener._socket.full = True
        self.ends[0].passOn(b"!")
        self.assertEqual(flow.dropped, 1)

    def test_close(self) -> None:
        """Nothing is left."""
        self.say(1)
        self.listener.close()
        self.assertEqual(self.ends[0].closings, ["closed"] * 2)
        self.assertEqual(len(self.listener.flows), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ports(self) -> None:
        """Ports come from the same range as others do."""
        listeners = UDPListeners(self.clock, "", PortRange(((4000, 4001),)))
        for wanted, prefer in ((4001, 0), (0, 4000), (0, 4001), (0, 0)):
            listener = self.successResultOf(
                listeners.open(
                    TunnelOptions(port=wanted, prefer=prefer), self._arrived, reserved
                )
            )
            self.assertEqual(listener.address[2], 4001)
        for ports, wanted, code in (
            (((4000, 4001),), 4000, "port-taken"),
            (((4000, 4001),), 80, "port-not-permitted"),
            (((4000, 4000),), 0, "ports-exhausted"),
        ):
            listeners = UDPListeners(self.clock, "", PortRange(ports))
            opening = listeners.open(
                TunnelOptions(port=wanted), self._arrived, reserved
            )
            error = self.failureResultOf(opening, TunnelError).value
            self.assertEqual(error.code.name, code)


class _Server:
    """
    The L{IClientSide<tristunnel.model.tunnel.IClientSide>} of a session in
    memory.
    """

    def __init__(self, both: FlowPair) -> None:
        self.both = both

    def serve(self, stream: Stream) -> None:
        stream.connect(self.both.server.openFlow({"visitor": stream.visitorAddress}))

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """Nothing to do."""


class ThousandsTests(SynchronousTestCase):
    """Five thousand flows through a listener, a tunnel and a session."""

    def setUp(self) -> None:
        self.patch(udp, "DatagramSocket", FakeSocket)
        self.clock = Clock()
        self.both = FlowPair()
        # It remembers every flow there ever was.
        self.both.pair.server.audit = self.both.pair.client.audit = None
        self.tunnel = Tunnel(
            "t",
            Identity("owner"),
            _Server(self.both),
            ServerObserver(),
            self.clock.seconds,
            protocol="udp",
        )
        self.listener = UDPListener(self.clock, self.tunnel.visitorArrived)
        self.listener.listen("", 5353)

    def _round(self) -> None:
        """Let 5,000 visitors come, be answered and fall silent."""
        for number in range(5000):
            self.listener.datagramArrived(b"question", visitor(number), None)
        self.both.pair.settle()
        for end in self.both.ends.values():
            end.passOn(b"answer")
        self.both.pair.settle()
        self.assertEqual(len(self.tunnel.streams), 5000)
        self.assertEqual(len(self.both.client.datagrams.flows), 5000)
        socket: Any = self.listener._socket
        self.assertEqual(len(socket.sent), 5000)
        for _ in range(10):
            self.clock.advance(7.5)
        self.both.pair.settle()
        self.both.ends.clear()
        self.both.infos.clear()
        socket.sent.clear()

    def test_expiry(self) -> None:
        """When they are gone nothing is left of them, neither objects nor memory."""
        kinds = (TableFlow, SessionFlow, Stream, RecordingFlow)

        def living() -> list[Any]:
            gc.collect()
            return [each for each in gc.get_objects() if isinstance(each, kinds)]

        # Other tests of the process may have left some, which are held here so that
        # none of the new ones is taken for one of them.
        others = living()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        # Tables keep the size that they once had.
        self._round()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        self._round()
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
        self.assertEqual(self.tunnel.visitorCount, 10_000)
        self.assertEqual((self.tunnel.bytesIn, self.tunnel.bytesOut), (80_000, 60_000))
        self.assertEqual(len(self.tunnel.streams) + len(self.listener.flows), 0)
        for side in (self.both.server, self.both.client):
            self.assertEqual(side.datagrams.flows, {})
        known = set(map(id, others))
        self.assertEqual([each for each in living() if id(each) not in known], [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        # A flow takes some KiB while it lives.
        self.assertGreater(peak - before, 5_000_000)
        self.assertLess(after - before, 50_000)
