"""Tests for L{tristunnel.inspect.watched}: what passes is not touched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.inspect.streams import INFO, STREAMS, aForward, aRecord
from tests.support.ends import KeepingEnd
from tristunnel.dataplane.join import join
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.inspect.record import Limits, Record
from tristunnel.inspect.tap import Tap
from tristunnel.inspect.watched import WatchedEndpoint, watch


def _joined(record: Record, service: KeepingEnd, visitor: KeepingEnd) -> None:
    forward = watch(aForward(), record)
    assert isinstance(forward.endpoint, WatchedEndpoint)
    _, between = forward.endpoint.watched(INFO)
    toService, toVisitor = between(service, visitor, service, visitor)
    join(toVisitor, toService, lambda reason: None)


_DATA = st.one_of(
    st.sampled_from([data for asked, _, _ in STREAMS.values() for data in asked]),
    st.sampled_from([data for _, answers, _ in STREAMS.values() for data in answers]),
    st.binary(max_size=40),
)
_PIECES = st.lists(st.tuples(st.booleans(), _DATA, st.integers(0, 60)), max_size=12)


class PassingTests(SynchronousTestCase):
    """Both ends get what the other one sent, whatever that is."""

    @given(_PIECES)
    def test_bytes(self, pieces: list[tuple[bool, bytes, int]]) -> None:
        """Bytes come out as they went in."""
        service, visitor = KeepingEnd(), KeepingEnd()
        record = aRecord(Limits(count=3, body=10, total=3000))
        _joined(record, service, visitor)
        sent = {True: b"", False: b""}
        for fromVisitor, data, cut in pieces:
            end = visitor if fromVisitor else service
            for piece in (data[:cut], data[cut:]):
                if piece:
                    sent[fromVisitor] += piece
                    end.peer.write(piece)
        visitor.peer.finish()
        service.peer.finish()
        for end, whole in ((service, sent[True]), (visitor, sent[False])):
            *given, last = end.told
            self.assertEqual((b"".join(given), last), (whole, "finish"))
        self.assertLessEqual(len(record.exchanges), 3)

    def test_detached(self) -> None:
        """Two ends whose bytes are no HTTP pass them on by themselves from then on."""
        service, visitor = KeepingEnd(), KeepingEnd()
        _joined(aRecord(), service, visitor)
        visitor.peer.write(b"SSH-2.0-x\r\n")
        self.assertIs(visitor.peer, service)
        self.assertIs(service.peer, visitor)
        self.assertEqual(service.told, [b"SSH-2.0-x\r\n"])

    def test_detachedEarly(self) -> None:
        """So do those that had sent something before they were joined."""
        for early in (0, 1):
            ends = [KeepingEnd(), KeepingEnd()]
            ends[early] = KeepingEnd(b"SSH-2.0-x\r\n", b"more")
            _joined(aRecord(), *ends)
            self.assertIs(ends[0].peer, ends[1])
            self.assertIs(ends[1].peer, ends[0])
            self.assertEqual(b"".join(ends[1 - early].told), b"SSH-2.0-x\r\nmore")

    def test_fault(self) -> None:
        """A fault of whoever looks ends the looking, and nothing else."""

        def fail(self: Tap, data: bytes) -> None:
            raise ZeroDivisionError

        self.patch(Tap, "asked", fail)
        service, visitor = KeepingEnd(), KeepingEnd()
        record = aRecord()
        _joined(record, service, visitor)
        for data in (b"one", b"two"):
            visitor.peer.write(data)
        self.assertEqual(b"".join(service.told), b"onetwo")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("a fault", record.notes[0].reason)

    def test_reset(self) -> None:
        """A break passes, too, and is the reason why an exchange has no answer."""
        service, visitor = KeepingEnd(), KeepingEnd()
        record = aRecord()
        _joined(record, service, visitor)
        visitor.peer.write(STREAMS["one"][0][0])
        visitor.peer.reset(TunnelError("reset", "the visitor has left"))
        self.assertEqual(service.told[-1], "reset")
        self.assertEqual(record.exchanges[1].problem, "the visitor has left")

    def test_others(self) -> None:
        """Nothing stands before a UDP service, nor before a proxy of the client's."""
        for spec in ("udp/53=localhost:53", "1080=socks:allow=localhost+22"):
            forward = parseForward(Clock(), spec)
            self.assertIs(watch(forward, aRecord()), forward)
