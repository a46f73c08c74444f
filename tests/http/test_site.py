"""
Tests for L{tristunnel.http.site}: over memory where only time and limits count,
over real connections where closing does.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import _nameEncoder
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from tests.jsonrpc.loopback import LoopbackTestCase, call, parsed, post
from tristunnel.errors import TunnelError
from tristunnel.http.site import LimitedSite, _BodyBudget, requestKnown


class Length(Resource):
    """Tells how long a body was."""

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        assert request.content is not None
        return b"%d bytes" % len(request.content.read())


class MemoryTestCase(SynchronousTestCase):
    """A site without a network."""

    def setUp(self) -> None:
        self.clock = Clock()
        root = Resource()
        root.putChild(b"length", Length())
        self.site = LimitedSite(root, reactor=self.clock)
        self.site.maxBody, self.site.requestTime = 1000, 30
        self.visit()

    def visit(self) -> None:
        self.channel: Any = self.site.buildProtocol(None)
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        return parsed(self.transport.value())


class LimitTests(MemoryTestCase):
    """The limits of a site."""

    HEAD = b"POST /length HTTP/1.1\r\nHost: localhost\r\n"

    def test_longest(self) -> None:
        """A body of the greatest length is taken, announced or chunked."""
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
        """A body announced as too long is refused, dropped, and soon cut off."""
        self.send(self.HEAD + b"Content-Length: 1001\r\n\r\n")
        status, headers, body = self.answer()
        self.assertEqual((status, headers["connection"]), (413, "close"))
        self.assertEqual(body, b"A body may have 1000 bytes at most.\n")
        self.transport.clear()
        self.send(b"x" * 1001 + self.HEAD + b"\r\n")
        self.assertEqual(self.transport.value(), b"")
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(2)
        self.assertTrue(self.transport.disconnecting)

    def test_announcedWithBody(self) -> None:
        """It is refused once, also when the body came along."""
        self.send(self.HEAD + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001)
        self.assertEqual(self.transport.value().count(b"HTTP/1.1"), 1)

    def test_expectContinue(self) -> None:
        """A client that asks whether to go on is told not to."""
        self.send(self.HEAD + b"Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
        self.assertNotIn(b"100 Continue", self.transport.value())
        self.assertEqual(self.answer()[0], 413)

    def test_absurd(self) -> None:
        """A length that is no number any more is refused like a long one."""
        absurd = b"Content-Length: " + b"9" * 5000 + b"\r\n"
        for rest in (b"\r\n", b"X: y\r\n\r\nbody"):
            self.visit()
            self.send(self.HEAD + absurd + rest)
            self.assertEqual(self.answer()[0], 413)
            self.assertEqual(self.transport.value().count(b"HTTP/1.1"), 1)

    def test_longName(self) -> None:
        """A header's name that would be kept for ever is refused if it is long."""
        kept = _nameEncoder._canonicalHeaderCache
        for size, status in ((256, 200), (257, 400), (10_000, 400)):
            self.visit()
            name = b"a%d" % size + b"b" * (size - 1 - len(str(size)))
            self.send(self.HEAD + name + b": x\r\n\r\n")
            self.assertEqual(self.answer()[0], status)
            isKept = name.lower() in {each.lower() for each in kept}
            self.assertEqual(isKept, status == 200)

    def test_chunked(self) -> None:
        """A chunked body is counted while it comes."""
        self.send(self.HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            self.send(b"64\r\n" + b"x" * 100 + b"\r\n")
        self.assertEqual(self.transport.value(), b"")
        self.send(b"1\r\nx\r\n0\r\n\r\n" + self.HEAD + b"\r\n")
        self.assertEqual(self.answer()[0], 413)
        self.assertEqual(self.transport.value().count(b"HTTP/1.1"), 1)

    def test_lostWhileRefused(self) -> None:
        """A visitor who leaves after a refusal leaves no clock behind."""
        self.send(self.HEAD + b"Content-Length: 1001\r\n\r\n")
        self.channel.connectionLost(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.binary(max_size=2000), st.integers(1, 50))
    def test_garbage(self, data: bytes, size: int) -> None:
        """Garbage raises nothing and leaves no clock behind."""
        self.visit()
        for start in range(0, len(data), size):
            self.send(data[start : start + size])
        self.channel.connectionLost(None)
        self.clock.advance(1000)


class TimeTests(MemoryTestCase):
    """The patience of a site."""

    def test_slowRequest(self) -> None:
        """A request that comes byte by byte has to be complete in time."""
        for _ in range(29):
            self.send(b"P")
            self.clock.advance(1)
        self.assertEqual(self.transport.value(), b"")
        self.clock.advance(1)
        self.assertEqual(self.answer()[0], 408)
        self.clock.advance(2)
        self.assertTrue(self.transport.disconnecting)

    def test_eachRequest(self) -> None:
        """Each request has its own time, and silence between them is allowed."""
        request = b"POST /length HTTP/1.1\r\nContent-Length: 1\r\n\r\n"
        for _ in range(5):
            self.transport.clear()
            self.send(request)
            self.clock.advance(20)
            self.send(b"x")
            self.assertEqual(self.answer()[2], b"1 bytes")
            self.clock.advance(40)
        self.assertFalse(self.transport.disconnecting)

    def test_silence(self) -> None:
        """A connection that stays silent is closed."""
        self.clock.advance(50)
        self.assertTrue(self.transport.disconnecting)


class Counted:
    """Counts one connection, for which there may be no room to wait again."""

    waiting = True
    full = False

    def known(self) -> None:
        self.waiting = False

    def again(self) -> None:
        self.waiting = True
        if self.full:
            raise TunnelError("limit-reached")


class Page(Resource):
    """A page of ten kilobytes, and one whose answer has no end."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes | int:
        if request.path == b"/endless":
            request.write(b"x")
            return NOT_DONE_YET
        if request.path == b"/known":
            requestKnown(request)
        return b"x" * 10_000


class UnreadTests(MemoryTestCase):
    """Answers that the visitor does not take."""

    GET = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"
    LAST = (
        b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /page HTTP/1.0\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"rubbish\r\n\r\n",
    )

    def setUp(self) -> None:
        super().setUp()
        self.site.resource = Page()
        self.site.answerTime = 30

    def visit(self) -> None:
        super().visit()
        self.channel.pending = self.pending = Counted()
        write, full = self.transport.write, False

        def count(data: bytes) -> None:
            nonlocal full
            write(data)
            if not full and len(self.transport.value()) > 65536:
                full = True
                self.transport.producer.pauseProducing()

        self.patch(self.transport, "write", count)

        def taken() -> None:
            nonlocal full
            full = False
            self.transport.clear()
            self.transport.producer.resumeProducing()

        self.taken = taken

    def turns(self) -> None:
        """Answer all that is answered before anything is taken."""
        self.clock.advance(0)

    def test_turns(self) -> None:
        """Pipelined requests of several visitors are answered by turns."""
        order: list[object] = []

        def answer(request: Any) -> bytes:
            order.append(request.channel)
            return b""

        page = Page()
        self.patch(page, "render_GET", answer)
        self.site.resource = page
        one = self.channel
        self.send(self.GET * 3)
        self.assertEqual(order, [one])
        self.assertEqual(self.transport.producerState, "paused")
        self.visit()
        two = self.channel
        self.send(self.GET * 3)
        self.assertEqual(order, [one, two])
        self.clock.advance(0)
        self.assertEqual(order, [one, two] * 3)
        self.assertEqual(self.transport.producerState, "producing")
        one.connectionLost(Failure(ConnectionDone()))

    def test_leaves(self) -> None:
        """Nothing is left of a visitor who goes between its requests."""
        self.send(self.GET * 3)
        self.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pipelined(self) -> None:
        """An answer not taken keeps the next requests waiting, and none is lost."""
        self.send(self.GET * 200)
        self.turns()
        self.assertLess(len(self.transport.value()), 65536 + 20_000)
        self.assertEqual(self.transport.producerState, "paused")
        count = 0
        while self.transport.value():
            count += self.transport.value().count(b"HTTP/1.1 200")
            self.taken()
            self.turns()
        self.assertEqual(count, 200)
        self.assertEqual(self.transport.producerState, "producing")
        self.assertFalse(self.transport.disconnecting)

    def test_unreadStream(self) -> None:
        """What is pipelined behind an unread answer is not gathered without end."""
        self.send(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.transport.write(b"x" * 70_000)
        self.send(b"y" * 40_000)
        self.assertEqual(self.transport.producerState, "paused")

    def test_cutOff(self) -> None:
        """Who takes nothing is cut off, whether or not the connection is to be kept."""
        self.channel.connectionLost(Failure(ConnectionDone()))
        for last in (b"", *self.LAST):
            self.visit()
            self.send(self.GET * 200 + last)
            self.turns()
            self.clock.advance(29)
            self.assertFalse(self.transport.disconnected)
            self.clock.advance(1)
            self.assertTrue(self.transport.disconnected, last)
            self.channel.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_last(self) -> None:
        """Whose last answer is not taken is counted, and waited for no longer."""
        self.channel.connectionLost(Failure(ConnectionDone()))
        for full in (False, True):
            for last in self.LAST:
                self.visit()
                self.pending.full = full
                self.send(last)
                self.assertTrue(self.transport.disconnecting)
                self.assertTrue(self.pending.waiting)
                self.clock.advance(30)
                self.assertTrue(self.transport.disconnected)
                self.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_known(self) -> None:
        """Whoever is known is not counted for its last answer, and may be slow."""
        self.send(self.LAST[0].replace(b"/page", b"/known"))
        self.assertFalse(self.pending.waiting)
        self.assertTrue(self.channel.isKnown)

    def test_tooLong(self) -> None:
        """A line without an end is refused, and the connection gone in a while."""
        self.send(b"GET /" + b"x" * 70_000)
        self.assertEqual(self.answer()[0], 400)
        self.clock.advance(2)
        self.assertTrue(self.transport.disconnecting)
        self.clock.advance(30)
        self.assertTrue(self.transport.disconnected)


class SenderTests(MemoryTestCase):
    """Who sends a body is asked for when the head is there."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: Deferred[object] = Deferred()
        self.site.admit = lambda request: self.asked
        self.site.bodies = _BodyBudget(3000)

    HEAD = (
        b"POST /length HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Content-Length: 1000\r\n\r\n"
    )

    def test_refused(self) -> None:
        """A wrong sender is refused without any of the body."""
        for error, status, header in (
            (TunnelError("auth-refused"), 401, "www-authenticate"),
            (TunnelError("limit-reached", "wait", 20.0), 429, "retry-after"),
        ):
            self.asked = fail(error)
            self.visit()
            self.send(self.HEAD)
            answer = self.answer()
            self.assertEqual(answer[0], status)
            self.assertIn(header, answer[1])
            self.send(b"x" * 1000)
            self.assertEqual(self.transport.value().count(b"HTTP/1.1"), 1)

    def test_waits(self) -> None:
        """Nothing is read while the sender is asked for, and then all of it."""
        self.send(self.HEAD + b"x" * 500)
        self.assertEqual(self.transport.producerState, "paused")
        self.assertEqual(self.transport.value(), b"")
        self.asked.callback(None)
        self.assertEqual(self.transport.producerState, "producing")
        self.assertIn(b"100 Continue", self.transport.value())
        self.transport.clear()
        self.send(b"x" * 500)
        self.assertEqual(self.answer()[2], b"1000 bytes")

    def test_leaves(self) -> None:
        """Whoever leaves meanwhile is asked for no more."""
        left: list[object] = []
        self.asked = Deferred(left.append)
        self.send(self.HEAD)
        self.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(left, [self.asked])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_budget(self) -> None:
        """The bodies of those whom nobody knows have a bound together."""
        self.asked.callback(None)
        visits = []
        for _ in range(20):
            self.visit()
            visits.append((self.channel, self.transport))
            self.send(self.HEAD + b"x" * 900)
        self.assertLessEqual(self.site.bodies.total, 3000)
        refused = [t for _, t in visits if b"HTTP/1.1 503" in t.value()]
        self.assertEqual(len(refused), 17)
        left = [(c, t) for c, t in visits if b"HTTP/1.1 503" not in t.value()]
        for channel, transport in left:
            channel.dataReceived(b"x" * 100)
            self.assertIn(b"1000 bytes", transport.value())
        self.assertEqual(self.site.bodies.total, 0)

    def test_left(self) -> None:
        """What those had who leave is given back too."""
        self.asked.callback(None)
        self.send(self.HEAD + b"x" * 900)
        self.assertEqual(self.site.bodies.total, 900)
        self.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.site.bodies.total, 0)


class WordsTests(MemoryTestCase):
    """What a site says, and what not."""

    def get(self, path: bytes, method: bytes = b"GET") -> tuple[int, dict[str, str]]:
        self.transport.clear()
        self.send(method + b" " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, headers, body = self.answer()
        self.assertNotIn(b"<", body)
        self.assertNotIn("server", headers)
        return status, headers

    def test_errors(self) -> None:
        """Errors are text, without the version of the server."""
        self.assertEqual(self.get(b"/")[0], 404)
        self.assertEqual(self.get(b"/nothing/here")[0], 404)
        self.assertEqual(self.get(b"/nothing", b"HEAD")[0], 404)
        status, headers = self.get(b"/length")
        self.assertEqual((status, headers["allow"]), (405, "HEAD, POST"))
        self.assertEqual(headers["content-type"], "text/plain; charset=utf-8")

    def test_noAccessLog(self) -> None:
        """No log is kept and no clock runs for it."""
        self.channel.connectionLost(None)
        site = LimitedSite(Resource(), reactor=self.clock)
        site.doStart()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        site.doStop()


class RealTests(LoopbackTestCase):
    """A site on the loopback interface."""

    linger = 0.1

    async def test_refusalArrives(self) -> None:
        """A client that sends all of too long a body can read the refusal."""
        status, _, _ = await self.exchange(post(call("echo").ljust(2**20)))
        self.assertEqual(status, 200)
        status, _, _ = await self.exchange(post(b"x" * (4 * 2**20)))
        self.assertEqual(status, 413)

    async def test_refusalOfChunks(self) -> None:
        """Neither does it help to send chunks."""
        chunks = (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 20
        status, _, _ = await self.exchange(
            post(b"", "Transfer-Encoding: chunked", length=False) + chunks
        )
        self.assertEqual(status, 413)

    async def test_broken(self) -> None:
        """A resource that fails is logged, and says nothing."""
        status, _, body = await self.exchange(
            b"GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        self.assertEqual((status, body), (500, b"Internal error\n"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
