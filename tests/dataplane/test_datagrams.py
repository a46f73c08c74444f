"""
Datagrams within a session, in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.memory import Pair, RecordingEnd, extendedPair
from tristunnel.dataplane.datagrams import EARLY_DATAGRAMS, FlowEnd
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.framed.datagrams import (
    QUEUE,
    STALE,
    DatagramFlows,
    SessionFlow,
    largestDatagram,
)
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.session import extensionOffer
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import (
    MAX_DATAGRAM,
    Frame,
    FrameType,
    encodeCredit,
    encodeFrame,
    encodeObject,
)

__all__ = ["FlowPair", "RecordingFlow"]


class RecordingFlow(FlowEnd):
    """
    An end whose remote is the test.

    @ivar taken: Datagrams that were sent to it.
    @ivar closings: How it and its far side ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bytes] = []
        self.closings: list[str] = []

    def send(self, datagram: bytes) -> None:
        self.taken.append(datagram)

    def flowOver(self, reason: TunnelError | None) -> None:
        pass

    def meet(self, flow: SessionFlow) -> None:
        flow.join(self, self._ended)
        self.join(flow, self._ended)

    def _ended(self, reason: TunnelError | None) -> None:
        self.closings.append(reason.code.name if reason else "")


class FlowPair:
    """
    Two sides of a session that carry datagrams.

    @ivar ends: The client's ends, by number.
    @ivar infos: What the client was told of them.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.pair: Pair = extendedPair(limits, limits)
        server, client = self.pair.server.multiplexer, self.pair.client.multiplexer
        assert isinstance(server, ExtendedMultiplexer)
        assert isinstance(client, ExtendedMultiplexer)
        self.server, self.client = server, client
        for each in (server, client):
            each.datagrams.largest = MAX_DATAGRAM
        client.datagrams.opened = self._opened
        self.ends: dict[int, RecordingFlow] = {}
        self.infos: list[dict[str, object]] = []

    def _opened(self, flow: SessionFlow, info: dict[str, object]) -> None:
        """The server opened a flow: accept it."""
        self.infos.append(info)
        self.client.datagrams.accept(flow)
        end = self.ends[flow.id] = RecordingFlow()
        end.meet(flow)

    def open(self) -> tuple[SessionFlow, RecordingFlow]:
        flow = self.server.openFlow({"visitor": "192.0.2.1:5"})
        end = RecordingFlow()
        end.meet(flow)
        return flow, end

    def backUp(self) -> None:
        """The server's connection takes nothing for now."""
        self.server.pauseProducing()


class FlowTests(SynchronousTestCase):
    """What a flow carries, and how it ends."""

    def setUp(self) -> None:
        self.both = FlowPair()
        self.pair = self.both.pair

    def test_bytes(self) -> None:
        """The frames are those of the specification."""
        flow, _ = self.both.open()
        flow.send(b"?")
        flow.finish()
        info = {"visitor": "192.0.2.1:5", "protocol": "udp"}
        self.assertEqual(
            self.pair.server.sink.fetch(),
            encodeFrame(2, 0x20, encodeCredit(0) + encodeObject(info))
            + b"\0\0\0\x06\0\0\0\x02\x06?"
            + b"\0\0\0\x05\0\0\0\x02\x02",
        )

    def test_bothWays(self) -> None:
        """
        Datagrams keep their boundaries, empty ones too, also before the flow
        is accepted, and credit is of no concern.
        """
        flow, visitor = self.both.open()
        flow.send(b"one")
        flow.send(b"")
        flow.send(bytes(MAX_DATAGRAM))
        self.pair.settle()
        self.assertEqual(self.both.infos[0]["protocol"], "udp")
        service = self.both.ends[2]
        self.assertEqual(service.taken, [b"one", b"", bytes(MAX_DATAGRAM)])
        for _ in range(200):
            service.passOn(bytes(10_000))
        self.pair.settle()
        self.assertEqual(visitor.taken, [bytes(10_000)] * 200)
        self.assertEqual(flow.received, 2_000_000)
        self.assertTrue(flow.answered)

    def test_notAStream(self) -> None:
        """Flows are counted apart: a stop does not wait for them."""
        self.both.open()
        self.pair.settle()
        for side in (self.both.server, self.both.client):
            self.assertEqual((len(side.streams), len(side.datagrams.flows)), (0, 1))

    def test_finish(self) -> None:
        """An orderly end at one side is one at the other."""
        flow, visitor = self.both.open()
        self.pair.settle()
        visitor.remoteOver(None)
        self.pair.settle()
        self.assertTrue(flow.over)
        self.assertEqual(visitor.closings, ["", ""])
        self.assertEqual(self.both.ends[2].closings, ["", ""])
        self.assertEqual(self.both.server.datagrams.flows, {})
        self.assertEqual(self.both.client.datagrams.flows, {})

    def test_error(self) -> None:
        """A break arrives with its reason."""
        _, visitor = self.both.open()
        self.pair.settle()
        self.both.ends[2].remoteOver(TunnelError("service-refused"))
        self.pair.settle()
        self.assertEqual(visitor.closings, ["service-refused"] * 2)

    def test_refused(self) -> None:
        """A side that offers nothing refuses."""
        self.both.client.datagrams.opened = DatagramFlows(self.both.client).opened
        _, visitor = self.both.open()
        self.pair.carry(self.pair.server)
        self.assertEqual(
            [frame.kind for frame in self.pair.client.sink.frames()],
            [FrameType.REFUSED],
        )
        _, visitor = self.both.open()
        self.pair.settle()
        self.assertEqual(visitor.closings, ["not-permitted"] * 2)

    def test_late(self) -> None:
        """Datagrams that were under way when the flow ended are counted only."""
        flow, _ = self.both.open()
        self.pair.settle()
        self.both.ends[2].passOn(b"late")
        flow.finish()
        self.pair.settle()
        self.assertEqual(self.both.server.lateFrames, 1)

    def test_early(self) -> None:
        """What comes before the service is found is held, up to a bound."""
        waiting: list[SessionFlow] = []
        self.both.client.datagrams.opened = lambda flow, info: waiting.append(flow)
        flow, _ = self.both.open()
        for number in range(EARLY_DATAGRAMS + 3):
            flow.send(b"%d" % number)
        self.pair.settle()
        service = RecordingFlow()
        service.meet(waiting[0])
        self.assertEqual(
            service.taken, [b"%d" % number for number in range(EARLY_DATAGRAMS)]
        )
        self.assertEqual(waiting[0].dropped, 3)

    def test_sessionLost(self) -> None:
        """The end of the session is the end of its flows."""
        _, visitor = self.both.open()
        self.both.server.close(TunnelError("session-lost"))
        self.assertEqual(visitor.closings, ["session-lost"] * 2)
        self.assertEqual(self.both.server.datagrams.flows, {})

    def test_limit(self) -> None:
        """Streams and flows share one limit, and no number."""
        self.both = FlowPair(Limits(streams=3))
        first, _ = self.both.open()
        self.both.pair.server.open()
        third, _ = self.both.open()
        self.assertEqual((first.id, third.id), (2, 6))
        error = self.assertRaises(TunnelError, self.both.open)
        self.assertEqual(error.code.name, "limit-reached")

    def test_numberTwice(self) -> None:
        """A peer that opens a number twice breaks the protocol."""
        info = encodeCredit(0) + encodeObject({"protocol": "udp"})
        frame = Frame(2, FrameType.OPEN, info)
        self.both.client.framesArrived([frame])
        error = self.assertRaises(TunnelError, self.both.client.framesArrived, [frame])
        self.assertEqual(error.code.name, "protocol-error")

    def test_tooLong(self) -> None:
        """
        No datagram is longer than UDP's: ours are dropped whole, a peer that
        sends one breaks the protocol.
        """
        flow, _ = self.both.open()
        flow.send(bytes(MAX_DATAGRAM + 1))
        self.assertEqual(flow.dropped, 1)
        frame = (2, FrameType.DATAGRAM, bytes(MAX_DATAGRAM + 1))
        error = self.assertRaises(TunnelError, self.both.server.framesArrived, [frame])
        self.assertEqual(error.code.name, "protocol-error")

    @given(
        st.lists(st.binary(max_size=300), max_size=30),
        st.lists(st.integers(1, 200), min_size=1, max_size=30),
    )
    def test_anyPieces(self, datagrams: list[bytes], pieces: list[int]) -> None:
        """However the connection cuts them, datagrams arrive as they were."""
        both = FlowPair()
        flow, _ = both.open()
        for datagram in datagrams:
            flow.send(datagram)
        turn = 0
        while both.pair.carry(both.pair.server, pieces[turn % len(pieces)]):
            turn += 1
        self.assertEqual(both.ends[2].taken, datagrams)


class NegotiationTests(SynchronousTestCase):
    """An older peer is left alone."""

    def test_offered(self) -> None:
        """Either side says that it takes datagrams of any size."""
        self.assertEqual(extensionOffer(Limits())["datagrams"], MAX_DATAGRAM)

    def test_older(self) -> None:
        """A peer that says nothing of datagrams is sent no frame of them."""
        both = FlowPair()
        both.server.datagrams.largest = largestDatagram({})
        error = self.assertRaises(TunnelError, both.open)
        self.assertEqual(error.code.name, "not-permitted")
        self.assertEqual(both.pair.server.sink.fetch(), b"")

    def test_smaller(self) -> None:
        """What is longer than the peer takes is dropped."""
        both = FlowPair()
        both.server.datagrams.largest = largestDatagram({"datagrams": 10})
        flow, _ = both.open()
        flow.send(bytes(10))
        flow.send(bytes(11))
        both.pair.settle()
        self.assertEqual(both.ends[2].taken, [bytes(10)])
        self.assertEqual((flow.dropped, both.server.datagrams.dropped), (1, 1))

    def test_noSize(self) -> None:
        """
        Anything but a size breaks the protocol; more than there is, is as much
        as there is.
        """
        self.assertEqual(largestDatagram({"datagrams": 1 << 80}), MAX_DATAGRAM)
        values: Iterable[Any] = (-1, True, "1", None, 1.5, [])
        for value in values:
            error = self.assertRaises(
                TunnelError, largestDatagram, {"datagrams": value}
            )
            self.assertEqual(error.code.name, "protocol-error")


class BackedUpTests(SynchronousTestCase):
    """A connection that takes less than comes."""

    def setUp(self) -> None:
        """Make a session whose connection is backed up, with two flows in it."""
        self.both = FlowPair()
        self.flows = [self.both.open()[0] for _ in range(2)]
        self.both.pair.settle()
        self.both.backUp()
        self.datagrams = self.both.server.datagrams

    def _fill(self, flow: SessionFlow, size: int = 1000) -> int:
        """Send until a datagram is dropped; how many were not."""
        before, sent = flow.dropped, 0
        while flow.dropped == before:
            flow.send(bytes(size))
            sent += 1
        return sent - 1

    def test_bounded(self) -> None:
        """
        A flood is dropped and counted; one flow takes no more than half of
        what is free, and the next one finds room.
        """
        first = self._fill(self.flows[0])
        second = self._fill(self.flows[1])
        self.assertLessEqual(first * 1064, QUEUE // 2)
        self.assertGreater(first * 1064, QUEUE // 2 - 2000)
        self.assertGreater(second * 1064, QUEUE // 4 - 2000)
        for _ in range(1000):
            self.flows[0].send(bytes(1000))
        self.assertLess(self.datagrams.queued, QUEUE)
        self.assertEqual(self.datagrams.dropped, 1002)
        self.assertEqual(self.flows[0].dropped, 1001)
        self.assertEqual(self.both.pair.server.sink.fetch(), b"")

    def test_largestFits(self) -> None:
        """Also the largest datagram finds room."""
        self.assertGreaterEqual(self._fill(self.flows[0], MAX_DATAGRAM), 3)
        self.assertGreaterEqual(self._fill(self.flows[1], MAX_DATAGRAM), 1)

    def test_inTurn(self) -> None:
        """What waited goes one of each flow at a time."""
        for number in range(3):
            self.flows[0].send(b"a%d" % number)
        self.flows[1].send(b"b0")
        self.both.server.resumeProducing()
        sent = [frame.payload for frame in self.both.pair.server.sink.frames()]
        self.assertEqual(sent, [b"a0", b"b0", b"a1", b"a2"])
        self.assertEqual((self.datagrams.queued, self.datagrams.waiting), (0, False))

    def test_stale(self) -> None:
        """What has waited for too long is not sent any more."""
        self.flows[0].send(b"old")
        self.both.pair.clock.advance(STALE + 0.1)
        self.flows[0].send(b"new")
        self.both.server.resumeProducing()
        sent = [frame.payload for frame in self.both.pair.server.sink.frames()]
        self.assertEqual(sent, [b"new"])
        self.assertEqual(self.flows[0].dropped, 1)

    def test_openWaits(self) -> None:
        """
        New flows wait in the same bounded queue, and one that is over before
        it was announced costs no frame at all.
        """
        gone, _ = self.both.open()
        gone.finish()
        kept, _ = self.both.open()
        kept.send(b"x")
        self.assertEqual(self.both.pair.server.sink.fetch(), b"")
        for _ in range(20_000):
            try:
                self.both.open()
            except TunnelError as refusal:
                self.assertEqual(refusal.code.name, "limit-reached")
                break
        else:
            self.fail("there is no bound")
        self.assertLessEqual(self.datagrams.queued, QUEUE)
        self.both.server.resumeProducing()
        frames = self.both.pair.server.sink.frames()
        self.assertNotIn(gone.id, {frame.stream for frame in frames})
        self.assertEqual(
            [frame.kind for frame in frames if frame.stream == kept.id],
            [FrameType.OPEN, FrameType.DATAGRAM],
        )

    def test_endGivesRoom(self) -> None:
        """A flow that ends takes what it had waiting with it."""
        self._fill(self.flows[0])
        self.flows[0].finish()
        self.assertEqual(self.datagrams.queued, 0)
        self.both.server.resumeProducing()
        self.assertEqual(
            [frame.kind for frame in self.both.pair.server.sink.frames()],
            [FrameType.CLOSE],
        )

    def test_streamsGoOn(self) -> None:
        """
        However many datagrams come, a stream that has something to send gets
        at least half of what the connection takes.
        """
        self.both.server.resumeProducing()
        end = self.both.pair.server.open()
        self.both.pair.settle()
        self._sayMuch(end)
        sent = {FrameType.DATA: 0, FrameType.DATAGRAM: 0}
        for _ in range(50):
            # What a connection does: it takes some and then has enough.
            self.both.backUp()
            for flow in self.flows:
                for _ in range(300):
                    flow.send(bytes(1420))
            sink = self.both.pair.server.sink
            self._takeUntil(64 * 1024)
            for frame in sink.frames():
                sent[FrameType(frame.kind)] += len(frame.payload)
        self.assertGreaterEqual(sent[FrameType.DATA], sent[FrameType.DATAGRAM])
        self.assertGreater(sent[FrameType.DATAGRAM], 0)

    def _sayMuch(self, end: RecordingEnd) -> None:
        """Give a stream more to send than will go, and the credit for it."""
        stream = end.stream
        assert stream is not None
        stream.sendWindow.grant(1 << 30)
        self.both.server.sendWindow.grant(1 << 30)
        for _ in range(200):
            stream.write(bytes(64 * 1024))

    def _takeUntil(self, amount: int) -> None:
        server, sink = self.both.server, self.both.pair.server.sink
        write = sink.writeSequence

        def some(data: Any) -> None:
            write(data)
            if len(sink.held) >= amount:
                server.pauseProducing()

        self.patch(sink, "writeSequence", some)
        server.resumeProducing()
        self.patch(sink, "writeSequence", write)
