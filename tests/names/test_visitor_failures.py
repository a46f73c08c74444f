"""Visitors of names whose service fails, is slow, or is spoken through to."""

from __future__ import annotations

from tests.names.rig import VisitorTestCase, request, response
from tristunnel.errors import TunnelError
from tristunnel.names.patience import BODY, IDLE
from tristunnel.names.visitor import VisitorConnection


class FailureTests(VisitorTestCase):
    """Services and visitors who leave in the middle."""

    def test_noAnswer(self) -> None:
        """A service that closes without an answer is answered for."""
        for breaks in (False, True):
            visitor = self.connect()
            visitor.dataReceived(request())
            if breaks:
                self.service().run.reset(TunnelError("reset"))
            else:
                self.service().run.finish()
            self.assertIn(b"502 Bad Gateway", self.answer())
            self.assertTrue(self.transport.disconnecting)
            self.lose(visitor)

    def test_cut(self) -> None:
        """Half of a response is not taken for the whole."""
        for said in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        ):
            visitor = self.connect()
            visitor.dataReceived(request())
            self.service().say(said)
            self.service().run.finish()
            self.assertTrue(self.transport.aborted)
            self.lose(visitor, False)

    def test_nonsense(self) -> None:
        """A service that speaks no HTTP is answered for, and left."""
        for said in (
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1 101 x\r\n\r\n",
            b"HTTP/1.1 200 OK\nX",
        ):
            self.connect().dataReceived(request())
            self.service().say(said)
            answer = self.answer()
            self.assertIn(b"502 Bad Gateway", answer)
            self.assertIn(b"not proper HTTP", answer)
            self.assertIsNotNone(self.service().broken)

    def test_repeated(self) -> None:
        """
        A request that can be is sent again, if the connection to the service had gone
        when it came; once, and no other.
        """
        visitor = self.connect()
        visitor.dataReceived(request())
        self.service().say(response())
        self.answer()
        visitor.dataReceived(request(target="/2"))
        first = self.service()
        first.run.reset(TunnelError("reset"))
        second = self.service()
        self.assertIsNot(first, second)
        self.assertIn(b"GET /2 ", second.take())
        second.run.finish()
        self.assertIn(b"502", self.answer())
        # One with a body takes a new connection, unless the last one was used just now.
        visitor = self.connect()
        for wait, count in ((0.0, 3), (0.5, 3), (2.0, 4)):
            self.clock.advance(wait)
            visitor.dataReceived(request(method="POST", lines="Content-Length: 0\r\n"))
            self.service().say(response())
            self.assertEqual(len(self.services["a.example"]), count)

    def test_idleService(self) -> None:
        """A service that closes between requests is reached again for the next one."""
        visitor = self.connect()
        for _ in range(2):
            visitor.dataReceived(request())
            self.service().say(response())
            self.service().run.finish()
            self.assertEqual(self.service().closed, [None])
        self.assertEqual(len(self.services["a.example"]), 2)
        # So is one that says something unasked, which nobody believes.
        visitor.dataReceived(request())
        self.service().say(response())
        self.service().say(response(b"forged"))
        self.assertIsNotNone(self.service().broken)
        self.answer()
        visitor.dataReceived(request())
        self.assertEqual(self.answer(), b"")
        self.service().say(response(b"true") + response(b"forged"))
        self.assertTrue(self.answer().endswith(b"true"))

    def test_leaving(self) -> None:
        """A client that leaves gets no more requests, and ends those that it has."""
        idle, busy = self.connect(), self.connect()
        for visitor in (idle, busy):
            visitor.dataReceived(request())
            self.service().say(response())
        busy.dataReceived(request(target="/2"))
        first, second = self.services["a.example"]
        for each in (first, second):
            each.run.leaveSoon()
        self.assertTrue(first.finished)
        self.assertFalse(second.finished)
        second.say(response())
        self.assertTrue(self.answer().endswith(b"ok"))
        self.assertTrue(second.finished)
        busy.dataReceived(request(target="/3"))
        self.assertEqual(len(self.services["a.example"]), 3)

    def test_visitorGone(self) -> None:
        """A visitor who leaves takes the service's connection along."""
        visitor = self.connect()
        visitor.dataReceived(request())
        self.lose(visitor, False)
        self.assertIsNotNone(self.service().broken)
        visitor = self.connect()
        visitor.dataReceived(request())
        self.service().say(response())
        self.lose(visitor)
        self.assertTrue(self.service().finished)
        self.assertIsNone(self.service().broken)
        self.clock.advance(12)
        self.assertIsNotNone(self.service().broken)
        # And one who leaves while the service is dialled.
        self.joins = False
        visitor = self.connect()
        visitor.dataReceived(request())
        self.lose(visitor)
        late = self.service().joined()
        self.assertIsNotNone(late.broken)
        self.assertEqual(late.take(), b"")

    def test_halfClosed(self) -> None:
        """Who ends its direction still gets an answer, if it comes."""
        visitor = self.connect()
        visitor.dataReceived(request())
        visitor.readConnectionLost()
        self.service().say(response())
        self.assertTrue(self.answer().endswith(b"ok"))
        self.assertTrue(self.transport.disconnecting)
        visitor = self.connect()
        visitor.dataReceived(request())
        visitor.readConnectionLost()
        self.clock.pump([1.0] * 40)
        self.assertTrue(self.transport.aborted)
        for data in (b"", b"GET / HT", request(lines="Content-Length: 3\r\n") + b"a"):
            visitor = self.connect()
            visitor.dataReceived(data) if data else None
            visitor.readConnectionLost()
            self.assertTrue(self.transport.disconnecting, data)


class PatienceTests(VisitorTestCase):
    """Time, order and room."""

    def test_slow(self) -> None:
        """A head has to come in time, the first and all others."""
        visitor = self.connect()
        self.clock.pump([1.0] * 12)
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.answer(), b"")
        visitor = self.connect()
        visitor.dataReceived(b"GET / HTTP/1.1\r\nHost: a.example\r\n")
        self.clock.pump([1.0] * 12)
        self.assertIn(b"408", self.answer())
        visitor = self.connect()
        visitor.dataReceived(request())
        self.clock.advance(1000)
        self.service().say(response())
        self.assertFalse(self.transport.disconnecting)
        self.clock.pump([1.0] * int(IDLE + 2))
        self.assertTrue(self.transport.disconnecting)
        self.assertTrue(self.service().finished)

    def test_slowBody(self) -> None:
        """
        The rest of a body has to come in time while somebody takes it, unless its
        service is answering already; and then the next head has to.
        """

        def waits(times: int = 1) -> None:
            self.clock.pump([BODY / 2] * 3 * times)

        def begun() -> VisitorConnection:
            visitor = self.connect()
            visitor.dataReceived(
                request(method="POST", lines="Content-Length: 4\r\n") + b"a"
            )
            return visitor

        begun()
        waits()
        self.assertIn(b"408", self.answer())
        self.assertIsNotNone(self.service().broken)
        visitor = begun()
        for _ in range(2):
            self.clock.advance(BODY - 1)
            visitor.dataReceived(b"b")
        self.assertEqual(self.answer(), b"")
        self.service().run.pauseReading()
        waits(3)
        self.assertEqual(self.answer(), b"")
        self.service().run.resumeReading()
        self.service().say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        waits(3)
        self.assertFalse(self.transport.aborted)
        self.service().say(b"k")
        visitor.dataReceived(b"c")
        self.assertTrue(self.answer().endswith(b"ok"))
        self.assertFalse(self.transport.disconnecting)
        waits()
        self.assertTrue(self.transport.disconnecting)
        begun()
        self.service().say(response())
        waits()
        self.assertTrue(self.transport.aborted)

    def test_crowd(self) -> None:
        """Of too many that ask for nothing, the one that has waited longest leaves."""
        self.site.mostIdle = 2
        first = self.connect()
        transport = self.transport
        self.connect()
        first.dataReceived(b"")
        self.connect()
        self.assertTrue(transport.aborted)
        self.assertEqual(len(self.site.idle), 2)

    def test_pipelined(self) -> None:
        """Requests that come together are answered one by one, in their order."""
        visitor = self.connect()
        visitor.dataReceived(
            request(target="/1")
            + request("b.example", "/2", "Content-Length: 2\r\n", "PUT")
            + b"ab"
            + request(target="/3")
        )
        self.assertEqual(self.transport.producerState, "paused")
        self.assertNotIn("b.example", [k for k, v in self.services.items() if v])
        self.service().say(response(b"1"))
        self.assertTrue(self.service("b.example").take().endswith(b"\r\n\r\nab"))
        self.service("b.example").say(response(b"2"))
        self.assertIn(b"GET /3 ", self.service().take())
        self.assertEqual(self.transport.producerState, "producing")
        self.service().say(response(b"3"))
        self.assertEqual(
            [part[-1:] for part in self.answer().split(b"HTTP/1.1 200 OK")[1:]],
            [b"1", b"2", b"3"],
        )

    def test_answerTooMany(self) -> None:
        """What a service says unasked is no answer to the request behind."""
        visitor = self.connect()
        visitor.dataReceived(request(target="/1") + request(target="/2"))
        self.service().say(response(b"true") + response(b"forged"))
        self.assertTrue(self.answer().endswith(b"true"))
        first, second = self.services["a.example"]
        self.assertIsNotNone(first.broken)
        self.assertNotIn(b"/2", first.take())
        self.assertIn(b"GET /2 ", second.take())

    def test_manyPipelined(self) -> None:
        """What waits for its turn waits as the bytes that it came as."""
        visitor = self.connect()
        visitor.dataReceived(request() * 5000)
        self.assertLess(len(visitor.requests.events), 500)
        for number in range(5000):
            self.assertEqual(self.service().take().count(b"GET"), 1, number)
            self.service().say(response(b""))
        self.assertEqual(self.transport.producerState, "producing")

    def test_backpressure(self) -> None:
        """A slow service slows the visitor down, and a slow visitor the service."""
        visitor = self.connect()
        visitor.dataReceived(request(method="PUT", lines="Content-Length: 999\r\n"))
        self.service().run.pauseReading()
        self.assertEqual(self.transport.producerState, "paused")
        self.service().run.resumeReading()
        self.assertEqual(self.transport.producerState, "producing")
        visitor.pauseProducing()
        self.assertTrue(self.service().paused)
        visitor.resumeProducing()
        self.assertFalse(self.service().paused)
        # Before the service is reached, no more than so much waits.
        self.joins = False
        visitor = self.connect()
        visitor.dataReceived(request(method="PUT", lines="Content-Length: 99999\r\n"))
        visitor.dataReceived(b"x" * 70000)
        self.assertEqual(self.transport.producerState, "paused")
        got = self.service().joined().take()
        self.assertEqual(len(got.partition(b"\r\n\r\n")[2]), 70000)
        self.assertEqual(self.transport.producerState, "producing")


class ThroughTests(VisitorTestCase):
    """Connections that are more than requests."""

    ASK = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
    YES = (
        b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\n"
    )

    def test_upgrade(self) -> None:
        """A service agrees, and bytes pass both ways."""
        visitor = self.connect()
        visitor.dataReceived(request(lines=self.ASK) + b"early")
        got = self.service().take()
        self.assertIn(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", got)
        self.assertNotIn(b"early", got)
        self.service().say(self.YES + b"\x81hello")
        self.assertEqual(
            self.answer(),
            b"HTTP/1.1 101 Go\r\nX: y\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"\r\n\x81hello",
        )
        self.assertEqual(self.service().take(), b"early")
        visitor.dataReceived(request("b.example"))
        self.assertEqual(self.service().take(), request("b.example"))
        self.service().say(b"HTTP/1.1 500 no")
        self.assertEqual(self.answer(), b"HTTP/1.1 500 no")
        visitor.readConnectionLost()
        self.assertTrue(self.service().finished)
        self.service().run.finish()
        self.assertTrue(self.transport.disconnecting)
        self.lose(visitor)
        self.assertEqual(self.service().closed, [None])

    def test_declined(self) -> None:
        """A service declines, and what came behind is the next request."""
        visitor = self.connect()
        visitor.dataReceived(request(lines=self.ASK) + request("b.example"))
        self.service().say(response(b"no", "", "426 Upgrade Required"))
        self.assertIn(b"426", self.answer())
        self.assertIn(b"GET / ", self.service("b.example").take())

    def test_otherHTTP(self) -> None:
        """Nobody gets to another version of HTTP, whose requests nobody would see."""
        for name in ("h2c", "HTTP/2.0", "TLS/1.0"):
            visitor = self.connect()
            lines = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {name}\r\n"
            visitor.dataReceived(request(lines=lines + "HTTP2-Settings: x\r\n"))
            got = self.service().take().lower()
            self.assertNotIn(b"upgrade", got)
            self.assertNotIn(b"settings", got)
            self.service().say(self.YES)
            self.assertIn(b"502", self.answer())

    def test_raw(self) -> None:
        """Behind the first head of a raw tunnel's connection, nothing is read."""
        self.route("r.example", raw=True)
        visitor = self.connect()
        visitor.dataReceived(b"\r\n" + request("r.example") + b"\x00rest")
        got = self.service("r.example").take()
        self.assertIn(b"X-Forwarded-For: 192.0.2.7\r\n", got)
        self.assertTrue(got.endswith(b"\r\n\r\n\x00rest"))
        visitor.dataReceived(request("b.example"))
        self.assertEqual(self.service("r.example").take(), request("b.example"))
        self.service("r.example").say(b"what it says")
        self.assertEqual(self.answer(), b"what it says")
        # Where nobody serves it, a page says so.
        self.refusal = TunnelError("client-away")
        self.connect().dataReceived(request("r.example"))
        self.assertIn(b"503 ", self.answer())
        self.assertTrue(self.transport.disconnecting)
        self.refusal = None
        # Not behind another tunnel's requests.
        visitor = self.connect()
        visitor.dataReceived(request())
        self.service().say(response())
        self.answer()
        visitor.dataReceived(request("r.example"))
        self.assertIn(b"421 ", self.answer())
