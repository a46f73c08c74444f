"""Joined sockets that break, over the loopback interface."""

from __future__ import annotations

import socket
from functools import partial

from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests.dataplane.meeting import LoopbackCase, message
from tests.support.polling import until


class BreakTests(LoopbackCase):
    """Tests of connections that break."""

    async def test_resets(self) -> None:
        """
        A connection that is reset resets the one at the other end, both ways
        and over TLS as well.
        """
        for kinds in (("tcp", "tcp"), ("tls", "tcp"), ("tcp", "tls")):
            for visitorBreaks in (True, False):
                meeting = await self.meet(*kinds)
                breaking, other = meeting.visitor, meeting.service
                if not visitorBreaks:
                    breaking, other = other, breaking
                breaking.transport.write(b"x")
                await until(partial(bool, other.taken))
                breaking.transport.abortConnection()
                stream = await meeting.over()
                self.assertFalse(other.orderly)
                assert stream.reason is not None
                self.assertEqual(stream.reason.code.name, "reset")

    async def test_errno(self) -> None:
        """The other end's system reports ECONNRESET, as without a tunnel."""
        meeting = self.make()
        endpoint = await meeting.listen("tcp", meeting._visitorArrived)
        assert isinstance(endpoint, TCP4ClientEndpoint)
        raw = socket.create_connection(("127.0.0.1", endpoint._port))
        self.addCleanup(raw.close)
        raw.setblocking(False)
        endpoint = await meeting.listen("tcp", meeting._serviceArrived)
        await connectProtocol(endpoint, meeting.service)
        await until(lambda: bool(meeting.tunnel.served))
        meeting.service.transport.abortConnection()
        await until(lambda: bool(meeting.observer.gone))
        with self.assertRaises(ConnectionResetError):
            while True:
                try:
                    raw.recv(1)
                except BlockingIOError:
                    await meeting.turns(1)
                else:
                    self.fail("an orderly end came instead")

    async def test_resetAfterEnd(self) -> None:
        """A reset is passed on where one direction had ended before."""
        meeting = await self.meet()
        meeting.visitor.transport.write(b"question")
        meeting.end(meeting.visitor)
        await until(lambda: meeting.service.eof)
        meeting.service.transport.abortConnection()
        stream = await meeting.over()
        self.assertFalse(meeting.visitor.orderly)
        assert stream.reason is not None
        self.assertEqual(stream.reason.code.name, "reset")

    async def test_truncated(self) -> None:
        """
        A TLS connection that ends without saying so was cut, which is a
        reset at the other end and no orderly end.
        """
        meeting = await self.meet("tls", "tcp")
        meeting.visitor.transport.write(b"half of a messa")
        await until(lambda: bool(meeting.service.taken))
        # The TCP connection below the TLS.
        meeting.visitor.transport.transport.loseConnection()
        stream = await meeting.over()
        self.assertFalse(meeting.service.orderly)
        self.assertIsNotNone(stream.reason)

    async def test_lateBytes(self) -> None:
        """
        Bytes for a visitor that has gone altogether break the service's
        connection instead of being kept.
        """
        meeting = await self.meet("tls", "tcp")
        meeting.visitor.transport.loseConnection()
        await until(lambda: meeting.service.eof)
        if not self.stock:
            # On the socket, TLS's goodbye is the end of one direction only.
            self.assertIsNone(meeting.visitor.lost)
            meeting.visitor.transport.abortConnection()
        await until(lambda: meeting.visitor.lost is not None)
        meeting.service.transport.write(message(0))
        await meeting.over()
        self.assertFalse(meeting.service.orderly)

    async def test_goneBeforeJoin(self) -> None:
        """
        A visitor that breaks its connection before it was joined is noticed,
        and the service's connection broken.
        """
        meeting = self.make()
        meeting.joining = False
        await meeting.connect()
        meeting.visitor.transport.abortConnection()
        end = meeting.visitorEnd
        assert end is not None
        await until(lambda: end._over)
        meeting.join()
        stream = await meeting.over()
        self.assertFalse(meeting.service.orderly)
        assert stream.reason is not None
        self.assertEqual(stream.reason.code.name, "reset")


class StockBreakTests(BreakTests):
    """The same over Twisted's transports."""

    stock = True
