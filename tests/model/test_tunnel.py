"""Tests for L{tristunnel.model.tunnel}."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.ends import SilentEnd
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End
from tristunnel.model.observer import ServerObserver
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream, Tunnel


class PlainEnd(SilentEnd):
    """An end that notes what is asked of it."""

    def __init__(self) -> None:
        self.received = 0
        self.peer: End | None = None
        self.closed: Closed | None = None
        self.calls: list[str] = []

    def join(self, peer: End, closed: Closed) -> None:
        self.peer, self.closed = peer, closed

    def whileWaiting(self, left: Closed) -> None:
        self.closed = left

    def reset(self, reason: TunnelError) -> None:
        self.calls.append(reason.code.name)
        if self.closed is not None:
            closed, self.closed = self.closed, None
            closed(reason)


class Side:
    """A client's side that keeps its streams."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []

    def serve(self, stream: Stream) -> None:
        self.streams.append(stream)

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        pass


class Watching(ServerObserver):
    """Notes the visitors."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Stream]] = []

    def visitorConnected(self, stream: Stream) -> None:
        self.events.append(("connected", stream))

    def visitorGone(self, stream: Stream) -> None:
        self.events.append(("gone", stream))


class Listening:
    """A listener that is only an address."""

    address = ("tcp", "", 8080)

    def close(self) -> Awaitable[object]:
        return succeed(None)


class TunnelTests(SynchronousTestCase):
    """Tests for L{Tunnel} and L{Stream}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.side = Side()
        self.observer = Watching()
        self.tunnel = Tunnel(
            "id", Identity("ann"), self.side, self.observer, self.clock.seconds
        )
        self.visitor, self.client = PlainEnd(), PlainEnd()

    def test_address(self) -> None:
        """The address is a URI; an IPv6 address stands in brackets."""
        self.assertEqual(self.tunnel.address, "")
        self.tunnel.listener = Listening()
        for host, address in (
            ("example.org", "tcp://example.org:8080"),
            ("192.0.2.1", "tcp://192.0.2.1:8080"),
            ("2001:db8::1", "tcp://[2001:db8::1]:8080"),
        ):
            self.tunnel.hostname = host
            self.assertEqual(self.tunnel.address, address)

    def test_served(self) -> None:
        """A visitor is joined to a client's end; the stream is over when both ends are,
        and counted."""
        self.clock.advance(5)
        self.tunnel.visitorArrived(self.visitor, "192.0.2.7:5000")
        (stream,) = self.side.streams
        self.assertEqual((stream.visitorAddress, stream.opened), ("192.0.2.7:5000", 5))
        self.assertEqual((stream.bytesIn, stream.bytesOut), (0, 0))
        stream.connect(self.client)
        self.assertIs(self.visitor.peer, self.client)
        self.assertIs(self.client.peer, self.visitor)
        self.visitor.received, self.client.received = 10, 20
        assert self.visitor.closed is not None and self.client.closed is not None
        self.visitor.closed(None)
        self.assertEqual(self.tunnel.streams, {stream})
        self.client.closed(None)
        self.assertEqual(self.tunnel.streams, set())
        self.assertEqual((self.tunnel.bytesIn, self.tunnel.bytesOut), (10, 20))
        self.assertEqual(self.tunnel.visitorCount, 1)
        self.assertIsNone(stream.reason)
        self.assertEqual(
            self.observer.events, [("connected", stream), ("gone", stream)]
        )

    def test_firstReason(self) -> None:
        """A broken stream has the first reason."""
        self.tunnel.visitorArrived(self.visitor, "")
        (stream,) = self.side.streams
        stream.connect(self.client)
        self.client.reset(TunnelError("stalled"))
        self.visitor.reset(TunnelError("reset"))
        assert stream.reason is not None
        self.assertEqual(stream.reason.code.name, "stalled")

    def test_refused(self) -> None:
        """A visitor that the client's side turns away is gone."""
        self.tunnel.visitorArrived(self.visitor, "")
        (stream,) = self.side.streams
        stream.refuse(TunnelError("service-refused"))
        self.assertEqual(self.visitor.calls, ["service-refused"])
        self.assertEqual(self.tunnel.streams, set())
        self.assertEqual(self.observer.events[-1], ("gone", stream))

    def test_refusedOnce(self) -> None:
        """A visitor is turned away, and counted, once."""
        self.tunnel.visitorArrived(self.visitor, "")
        (stream,) = self.side.streams
        for _ in range(2):
            stream.refuse(TunnelError("service-refused"))
        self.tunnel.close(TunnelError("closed"))
        self.assertEqual(self.visitor.calls, ["service-refused"])
        self.assertEqual(len(self.observer.events), 2)

    def test_visitorLimit(self) -> None:
        """A tunnel for some visitors takes so many, those that were turned away not
        counted, and is exhausted when the last of them has left."""
        exhausted: list[Tunnel] = []
        self.tunnel.visitorLimit = 2
        self.tunnel.exhausted = exhausted.append
        visitors = [PlainEnd() for _ in range(4)]
        self.tunnel.visitorArrived(visitors[0], "")
        self.side.streams[0].refuse(TunnelError("service-refused"))
        for visitor in visitors[1:]:
            self.tunnel.visitorArrived(visitor, "")
        self.assertEqual(visitors[3].calls, ["limit-reached"])
        for stream in self.side.streams[1:]:
            stream.connect(PlainEnd())
        late = PlainEnd()
        self.tunnel.visitorArrived(late, "")
        self.assertEqual(late.calls, ["limit-reached"])
        self.side.streams[1].reset(TunnelError("reset"))
        self.assertEqual(exhausted, [])
        self.side.streams[2].reset(TunnelError("reset"))
        self.assertEqual(exhausted, [self.tunnel])

    def test_publicURI(self) -> None:
        """What may be shown of a URI has no secret."""
        self.tunnel.uri = "tunnel://host:5/id#secret"
        self.assertEqual(self.tunnel.publicURI, "tunnel://host:5/id")

    def test_clientAway(self) -> None:
        """While the client is away visitors are turned away at once: they are
        counted by the reason, and nobody is told that they came."""
        self.tunnel.clientSide = None
        self.tunnel.visitorArrived(self.visitor, "")
        self.assertEqual(self.visitor.calls, ["client-away"])
        self.assertEqual(self.observer.events, [])
        self.assertEqual(self.tunnel.refusals, {"client-away": 1})
        self.assertEqual(self.tunnel.visitorCount, 0)

    def test_closed(self) -> None:
        """Closing breaks all streams, joined or not, and lets nobody in."""
        waiting, late = PlainEnd(), PlainEnd()
        self.tunnel.visitorArrived(self.visitor, "")
        self.side.streams[0].connect(self.client)
        self.tunnel.visitorArrived(waiting, "")
        self.tunnel.close(TunnelError("closed"))
        self.tunnel.visitorArrived(late, "")
        for end in (self.visitor, self.client, waiting, late):
            self.assertEqual(end.calls, ["closed"])
        self.assertEqual(self.tunnel.streams, set())
        self.assertEqual(len(self.side.streams), 2)
        gone = [stream for event, stream in self.observer.events if event == "gone"]
        self.assertEqual(len(gone), 2)
        for stream in gone:
            assert stream.reason is not None
            self.assertEqual(stream.reason.code.name, "closed")
