"""
Tests for L{tristunnel.rpc.site}: over memory where only time and limits count,
over real connections where closing does.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import _nameEncoder
from twisted.web.resource import Resource
from twisted.web.server import Request

from tests.rpc.loopback import LoopbackTestCase, call, parsed, post
from tristunnel.rpc.site import LimitedSite, limitedSite


class Length(Resource):
    """
    Tells how long a body was.
    """

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        """
        Answer with the length, in words of one letter.
        """
        assert request.content is not None
        return b"%d bytes" % len(request.content.read())


class MemoryTestCase(SynchronousTestCase):
    """
    A site without a network.
    """

    def setUp(self) -> None:
        """
        Build a site.
        """
        self.clock = Clock()
        root = Resource()
        root.putChild(b"length", Length())
        self.site = LimitedSite(
            root,
            reactor=self.clock,
            maxBody=1000,
            idle=60,
            requestTime=30,
            linger=2,
        )
        self.visit()

    def visit(self) -> None:
        """
        Connect.
        """
        self.channel: Any = self.site.buildProtocol(None)
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """
        Send bytes to the site.
        """
        self.channel.dataReceived(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """
        What came back.
        """
        return parsed(self.transport.value())


class LimitTests(MemoryTestCase):
    """
    The limits of a site.
    """

    HEAD = b"POST /length HTTP/1.1\r\nHost: localhost\r\n"

    def test_longest(self) -> None:
        """
        A body of the greatest length is taken, announced or chunked.
        """
        self.send(self.HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000)
        self.assertEqual(self.answer()[2], b"1000 bytes")
        self.transport.clear()
        self.send(
            self.HEAD
            + b"Transfer-Encoding: chunked\r\n\r\n1f4\r\n"
            + b"x" * 500
            + b"\r\n1f4\r\n"
            + b"x" * 500
            + b"\r\n0\r\n\r\n"
        )
        self.assertEqual(self.answer()[2], b"1000 bytes")

    def test_announced(self) -> None:
        """
        A body that is announced to be too long is refused before it comes; what
        still comes is dropped, and the connection closed in a while.
        """
        self.send(self.HEAD + b"Content-Length: 1001\r\n\r\n")
        status, headers, body = self.answer()
        self.assertEqual((status, headers["connection"]), (413, "close"))
        self.assertEqual(body, b"A body may have 1000 bytes, not more.\n")
        self.transport.clear()
        self.send(b"x" * 1001 + self.HEAD + b"\r\n")
        self.assertEqual(self.transport.value(), b"")
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(2)
        self.assertTrue(self.transport.disconnecting)

    def test_announcedWithBody(self) -> None:
        """
        It is refused once, also when the body came along.
        """
        self.send(self.HEAD + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001)
        self.assertEqual(self.transport.value().count(b"HTTP/1.1"), 1)

    def test_expectContinue(self) -> None:
        """
        A client that asks whether to go on is told not to.
        """
        self.send(self.HEAD + b"Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
        self.assertNotIn(b"100 Continue", self.transport.value())
        self.assertEqual(self.answer()[0], 413)

    def test_absurd(self) -> None:
        """
        A length that is no number any more is refused like a long one, wherever
        the header stands.
        """
        absurd = b"Content-Length: " + b"9" * 5000 + b"\r\n"
        for rest in (b"\r\n", b"X: y\r\n\r\nbody"):
            self.visit()
            self.send(self.HEAD + absurd + rest)
            self.assertEqual(self.answer()[0], 413)
            self.assertEqual(self.transport.value().count(b"HTTP/1.1"), 1)

    def test_longName(self) -> None:
        """
        A header whose name is too long is refused: such names would be kept for
        ever.
        """
        kept = _nameEncoder._canonicalHeaderCache
        for size, status in ((256, 200), (257, 400), (10_000, 400)):
            self.visit()
            name = b"a%d" % size + b"b" * (size - 1 - len(str(size)))
            self.send(self.HEAD + name + b": x\r\n\r\n")
            self.assertEqual(self.answer()[0], status)
            isKept = name.lower() in {each.lower() for each in kept}
            self.assertEqual(isKept, status == 200)

    def test_chunked(self) -> None:
        """
        A chunked body is counted while it comes.
        """
        self.send(self.HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            self.send(b"64\r\n" + b"x" * 100 + b"\r\n")
        self.assertEqual(self.transport.value(), b"")
        self.send(b"1\r\nx\r\n0\r\n\r\n" + self.HEAD + b"\r\n")
        self.assertEqual(self.answer()[0], 413)
        self.assertEqual(self.transport.value().count(b"HTTP/1.1"), 1)

    def test_lostWhileRefused(self) -> None:
        """
        A visitor who leaves after a refusal leaves no clock behind.
        """
        self.send(self.HEAD + b"Content-Length: 1001\r\n\r\n")
        self.channel.connectionLost(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @settings(deadline=None)
    @given(st.binary(max_size=2000), st.integers(1, 50))
    def test_garbage(self, data: bytes, size: int) -> None:
        """
        Garbage raises nothing and leaves no clock behind.
        """
        self.visit()
        for start in range(0, len(data), size):
            self.send(data[start : start + size])
        self.channel.connectionLost(None)
        self.clock.advance(1000)


class TimeTests(MemoryTestCase):
    """
    The patience of a site.
    """

    def test_slowRequest(self) -> None:
        """
        A request that comes byte by byte has to be complete in time.
        """
        for _ in range(29):
            self.send(b"P")
            self.clock.advance(1)
        self.assertEqual(self.transport.value(), b"")
        self.clock.advance(1)
        self.assertEqual(self.answer()[0], 408)
        self.clock.advance(2)
        self.assertTrue(self.transport.disconnecting)

    def test_eachRequest(self) -> None:
        """
        Each request has its own time, and silence between them is allowed.
        """
        request = b"POST /length HTTP/1.1\r\nContent-Length: 1\r\n\r\n"
        for _ in range(5):
            self.transport.clear()
            self.send(request)
            self.clock.advance(20)
            self.send(b"x")
            self.assertEqual(self.answer()[2], b"1 bytes")
            self.clock.advance(50)
        self.assertFalse(self.transport.disconnecting)

    def test_silence(self) -> None:
        """
        A connection that stays silent is closed.
        """
        self.clock.advance(60)
        self.assertTrue(self.transport.disconnecting)


class WordsTests(MemoryTestCase):
    """
    What a site says, and what not.
    """

    def get(self, path: bytes, method: bytes = b"GET") -> tuple[int, dict[str, str]]:
        """
        Ask for a path.
        """
        self.transport.clear()
        self.send(method + b" " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, headers, body = self.answer()
        self.assertNotIn(b"<", body)
        self.assertNotIn("server", headers)
        return status, headers

    def test_errors(self) -> None:
        """
        Errors are text, without the version of the server.
        """
        self.assertEqual(self.get(b"/")[0], 404)
        self.assertEqual(self.get(b"/nothing/here")[0], 404)
        self.assertEqual(self.get(b"/nothing", b"HEAD")[0], 404)
        status, headers = self.get(b"/length")
        self.assertEqual((status, headers["allow"]), (405, "HEAD, POST"))
        self.assertEqual(headers["content-type"], "text/plain; charset=utf-8")

    def test_noAccessLog(self) -> None:
        """
        No log is kept and no clock runs for it.
        """
        self.channel.connectionLost(None)
        site = limitedSite(Resource(), reactor=self.clock)
        site.doStart()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        site.doStop()


class RealTests(LoopbackTestCase):
    """
    A site on the loopback interface.
    """

    linger = 0.1

    async def test_refusalArrives(self) -> None:
        """
        A client that sends all of a body that is too long can read why it was
        refused, though nobody reads the body.
        """
        status, _, _ = await self.exchange(post(call("echo").ljust(2**20)))
        self.assertEqual(status, 200)
        status, _, _ = await self.exchange(post(b"x" * (4 * 2**20)))
        self.assertEqual(status, 413)

    async def test_refusalOfChunks(self) -> None:
        """
        Neither does it help to send chunks.
        """
        chunks = (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 20
        status, _, _ = await self.exchange(
            post(b"", "Transfer-Encoding: chunked", length=False) + chunks
        )
        self.assertEqual(status, 413)

    async def test_broken(self) -> None:
        """
        A resource that fails is logged, and says nothing.
        """
        status, _, body = await self.exchange(
            b"GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        self.assertEqual((status, body), (500, b"Internal error\n"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
