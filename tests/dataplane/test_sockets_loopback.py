"""
Tests for L{tristunnel.dataplane.sockets} on real sockets of this machine: what no
transport in memory does.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tests.dataplane.meeting import SIZE, LoopbackCase, message
from tests.support.polling import until


class OrdersMixin:
    """Every order of closing, for one pair of transports."""

    visitorKind: ClassVar[str]
    serviceKind: ClassVar[str]

    async def _first(self, visitorFirst: bool, answer: bytes) -> None:
        """One side says all and ends; the other one then does the same."""
        case: Any = self
        meeting = await case.meet(self.visitorKind, self.serviceKind)
        first, second = meeting.visitor, meeting.service
        firstKind = self.visitorKind
        if not visitorFirst:
            first, second = second, first
            firstKind = self.serviceKind
        question = message(0)
        first.transport.write(question)
        meeting.end(first)
        await until(lambda: second.ended)
        case.assertEqual(bytes(second.taken), question)
        if firstKind != "tls" and second.lost is None:
            second.transport.write(answer)
        meeting.end(second)
        stream = await meeting.over()
        if firstKind != "tls" and (visitorFirst, self.serviceKind) != (False, "tls"):
            secondKind = self.serviceKind if visitorFirst else self.visitorKind
            if secondKind != "tls":
                case.assertEqual(bytes(first.taken), answer)
        case.assertIsNone(stream.reason)
        case.assertTrue(first.orderly)
        case.assertTrue(second.orderly)
        sizes = (stream.bytesIn, stream.bytesOut)
        if not visitorFirst:
            sizes = sizes[::-1]
        case.assertEqual(sizes, (len(question), len(first.taken)))

    async def test_visitorFirst(self) -> None:
        """The visitor ends first, and still gets a long answer."""
        await self._first(True, message(1 << 20))

    async def test_serviceFirst(self) -> None:
        """The service ends first, and still takes a long upload."""
        await self._first(False, message(1 << 20))

    async def test_noAnswer(self) -> None:
        """Neither has anything more to say."""
        await self._first(True, b"")

    async def test_together(self) -> None:
        """Both say all and end at once."""
        case: Any = self
        meeting = await case.meet(self.visitorKind, self.serviceKind)
        if "tls" in meeting.kinds:
            # A TLS program that has closed takes nothing any more, so that
            # only one that is told first can have everything.
            meeting.visitor.transport.write(b"question")
            await until(lambda: bool(meeting.service.taken))
            meeting.service.transport.write(message(0))
            meeting.end(meeting.service)
            await until(lambda: len(meeting.visitor.taken) == SIZE)
        else:
            for far in (meeting.visitor, meeting.service):
                far.transport.write(message(0))
                meeting.end(far)
            await meeting.over()
            case.assertEqual(bytes(meeting.service.taken), message(0))
        case.assertEqual(bytes(meeting.visitor.taken), message(0))
        meeting.end(meeting.visitor)
        stream = await meeting.over()
        case.assertIsNone(stream.reason)

    async def test_early(self) -> None:
        """What both said, and ended, before they were joined is not lost."""
        case: Any = self
        meeting = case.make(self.visitorKind, self.serviceKind)
        meeting.joining = False
        await meeting.connect()
        visitorSays = message(0)
        meeting.visitor.transport.write(visitorSays)
        meeting.end(meeting.visitor)
        await meeting.turns()
        end = meeting.visitorEnd
        assert end is not None
        case.assertGreater(end.received, 0)
        case.assertLessEqual(end.received, 4 * 64 * 1024)
        meeting.join()
        await until(lambda: meeting.service.ended)
        case.assertEqual(bytes(meeting.service.taken), visitorSays)
        meeting.end(meeting.service)
        stream = await meeting.over()
        case.assertIsNone(stream.reason)

    async def test_shortEarly(self) -> None:
        """
        The same with so little that the end itself comes before the join,
        from the service.
        """
        case: Any = self
        meeting = case.make(self.visitorKind, self.serviceKind)
        meeting.joining = False
        await meeting.connect()
        meeting.service.transport.write(b"220 hello\r\n")
        meeting.end(meeting.service)
        await meeting.turns()
        meeting.join()
        await until(lambda: meeting.visitor.ended)
        case.assertEqual(bytes(meeting.visitor.taken), b"220 hello\r\n")
        meeting.end(meeting.visitor)
        stream = await meeting.over()
        case.assertIsNone(stream.reason)

    async def test_backpressure(self) -> None:
        """
        A service that reads nothing holds the visitor: only so much is taken
        as the connections' buffers hold. Then it reads, and all of it comes.
        """
        case: Any = self
        meeting = await case.meet(self.visitorKind, self.serviceKind)
        service, visitor = meeting.service, meeting.visitor
        service.transport.pauseProducing()
        end = meeting.visitorEnd
        assert end is not None
        offered = 32 * 1024 * 1024
        visitor.offer(offered)
        before = -1
        while end.received != before:
            before = end.received
            await meeting.turns()
        case.assertGreater(visitor.offered, offered // 4)
        case.assertLess(before, offered // 2)
        service.transport.resumeProducing()
        await until(lambda: len(service.taken) == offered)
        meeting.end(visitor)
        await until(lambda: service.ended)
        meeting.end(service)
        stream = await meeting.over()
        case.assertEqual(len(service.taken), offered)
        case.assertEqual(stream.bytesIn, offered)


class TCPToTCPTests(OrdersMixin, LoopbackCase):
    """TCP on both sides."""

    visitorKind = "tcp"
    serviceKind = "tcp"


class TCPToUNIXTests(OrdersMixin, LoopbackCase):
    """A visitor over TCP and a service on a UNIX socket."""

    visitorKind = "tcp"
    serviceKind = "unix"


class UNIXToTCPTests(OrdersMixin, LoopbackCase):
    """The other way round."""

    visitorKind = "unix"
    serviceKind = "tcp"


class TLSToTCPTests(OrdersMixin, LoopbackCase):
    """A visitor over TLS and a service over TCP."""

    visitorKind = "tls"
    serviceKind = "tcp"


class TCPToTLSTests(OrdersMixin, LoopbackCase):
    """The other way round."""

    visitorKind = "tcp"
    serviceKind = "tls"


class TLSToTLSTests(OrdersMixin, LoopbackCase):
    """TLS on both sides."""

    visitorKind = "tls"
    serviceKind = "tls"


class StockTCPToTCPTests(TCPToTCPTests):
    """TCP over Twisted's transports."""

    stock = True


class StockTCPToUNIXTests(TCPToUNIXTests):
    """UNIX sockets, too."""

    stock = True


class StockTLSToTCPTests(TLSToTCPTests):
    """TLS in Twisted's memory."""

    stock = True


class StockTCPToTLSTests(TCPToTLSTests):
    """The other way round."""

    stock = True
