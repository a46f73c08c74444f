"""Tests for L{tristunnel.webhooks}: what a service sees, and what visitors hear."""

from __future__ import annotations

import hmac
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tristunnel.forwards.verify import Verification
from tristunnel.util import log_limiter
from tristunnel.webhooks import request as requestModule
from tristunnel.webhooks.visitor import (
    HELD_REQUESTS,
    IDLE_TIMEOUT,
    LINGER,
    REQUEST_TIMEOUT,
    Rules,
    SignedVisitor,
)

SECRET = b"sesame"
_WHERE = IPv4Address("TCP", "192.0.2.1", 1)
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def aRequest(
    body: bytes = b"{}",
    chunks: int = 0,
    isGood: bool = True,
    more: bytes = b"",
    method: bytes = b"POST",
) -> bytes:
    """
    Write a request as GitHub signs it.

    @param chunks: Bytes of each chunk; 0 for a body that is counted.
    """
    signed = body if isGood else body + b"!"
    signature = hmac.digest(SECRET, signed, "sha256").hex().encode()
    head = b"%b /hook HTTP/1.1\r\nHost: a\r\nX-Hub-Signature-256: sha256=%b\r\n%b" % (
        method,
        signature,
        more,
    )
    if not chunks:
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    parts = [body[at : at + chunks] for at in range(0, len(body), chunks)]
    framed = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


class _Transport(StringTransport):
    halfClosed = False

    def loseWriteConnection(self) -> None:
        self.halfClosed = True


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """A service that keeps what it sees."""

    def __init__(self) -> None:
        self.dialled = 0
        self.isDown = False
        self.transport = _Transport()
        self.protocol: Any = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        self.dialled += 1
        if self.isDown:
            return fail(ConnectionRefusedError())
        self.protocol = protocolFactory.buildProtocol(_WHERE)
        self.protocol.makeConnection(self.transport)
        return succeed(self.protocol)

    @property
    def seen(self) -> bytes:
        return self.transport.value()


class VisitorTests(SynchronousTestCase):
    """One connection."""

    def setUp(self) -> None:
        self.addCleanup(lambda: self.assertEqual(HELD_REQUESTS.total, 0))
        self.begin()

    def begin(self) -> None:
        self.clock = Clock()
        self.service = _Endpoint()
        self.transport = _Transport()
        self.visitor = self.another(self.transport)

    def another(self, transport: StringTransport) -> SignedVisitor:
        rules = Rules(self.clock, "app", Verification("github", "", (b"old", SECRET)))
        made = SignedVisitor(rules, self.service, {"visitor": "192.0.2.9:1"})
        made.makeConnection(transport)
        self.addCleanup(made.connectionLost, Failure(ConnectionDone()))
        return made

    @property
    def heard(self) -> bytes:
        return self.transport.value()

    def refused(self, status: int, words: str = "") -> None:
        last = self.heard.rpartition(b"HTTP/1.1 ")[2].decode()
        self.assertTrue(last.startswith(f"{status} "), self.heard)
        self.assertIn(words, last)
        self.assertTrue(self.transport.halfClosed)

    def test_good(self) -> None:
        """A request comes as it was, and so does the answer."""
        for request in (
            aRequest(),
            aRequest(b""),
            aRequest(b"\r\n\r\n0\r\n\r\n" * 9),
            aRequest(b"\r\n\r\n0\r\n\r\n" * 9, 5),
            aRequest(b"x" * 200_000, 5000),
        ):
            self.begin()
            self.visitor.dataReceived(request[:-1])
            self.assertEqual(self.service.dialled, 0)
            self.visitor.dataReceived(request[-1:])
            self.assertEqual(self.service.seen, request)
            self.service.protocol.dataReceived(_OK)
            self.assertEqual(self.heard, _OK)
            self.assertFalse(self.transport.halfClosed)

    def test_refused(self) -> None:
        """What is not signed, not HTTP or not only HTTP never reaches the service."""
        good = aRequest()
        unsigned = good.replace(b"X-Hub-Signature-256", b"X-Other")
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        for status, words, sent in (
            (401, "the signature is wrong", aRequest(isGood=False)),
            (401, "the signature is wrong", aRequest(b"abc", 2, isGood=False)),
            (401, "not 0", unsigned),
            (400, "another protocol", aRequest(b"", more=upgrade)),
            (501, "", b"SSH-2.0-x\r\n\r\n"),
            (400, "", good.replace(b"Host: a\r\n", b"")),
            (400, "", good.replace(b"\r\n", b"\n")),
            (501, "", b"NONSENSE / HTTP/1.1\r\n\r\n"),
            (413, "bytes", good.replace(b"Length: 2", b"Length: 99999999")),
        ):
            self.begin()
            self.visitor.dataReceived(sent)
            self.refused(status, words)
            self.visitor.dataReceived(good)
            self.assertEqual((self.service.dialled, self.service.seen), (0, b""))

    def test_early(self) -> None:
        """A head without a signature is refused before its body comes."""
        request = aRequest(b"x" * 5000).replace(b"X-Hub", b"X-Other")
        self.visitor.dataReceived(request[: request.index(b"xxx")])
        self.refused(401, "WWW-Authenticate")
        self.clock.advance(LINGER)
        self.assertTrue(self.transport.disconnecting)

    def test_tooLarge(self) -> None:
        """Chunks are bounded together, with what is around them."""
        self.patch(requestModule, "MOST_BODY", 100_000)
        for size in (1, 1000):
            self.begin()
            head, _, _ = aRequest(b"x", 1).partition(b"1;a=b")
            self.visitor.dataReceived(head)
            for _ in range(200):
                part = b"%x;%b\r\n%b\r\n" % (size, b"y" * 900, b"x" * size)
                self.visitor.dataReceived(part)
            self.refused(413)
            self.assertLess(HELD_REQUESTS.total, 1)

    def test_expect(self) -> None:
        """Who waits for a word to send the body gets it, if the head is good."""
        request = aRequest(b"body", more=b"Expect: 100-continue\r\n")
        self.visitor.dataReceived(request[:-4])
        self.assertEqual(self.heard, _CONTINUE)
        self.visitor.dataReceived(request[-4:])
        self.service.protocol.dataReceived(_CONTINUE + _OK)
        self.assertEqual(self.heard, _CONTINUE * 2 + _OK)
        self.visitor.dataReceived(aRequest())
        self.assertEqual(self.service.seen, request + aRequest())
        self.begin()
        self.visitor.dataReceived(request[:-4].replace(b"X-Hub", b"X-Other"))
        self.assertNotIn(_CONTINUE, self.heard)

    def test_order(self) -> None:
        """A refusal comes behind the answers to the requests before it."""
        sent = aRequest() + aRequest(b"b") + aRequest(isGood=False) + aRequest()
        self.visitor.dataReceived(sent)
        self.assertEqual(self.service.seen, aRequest())
        self.service.protocol.dataReceived(_OK)
        self.assertEqual(self.service.seen, aRequest() + aRequest(b"b"))
        self.assertEqual(self.heard, _OK)
        self.service.protocol.dataReceived(_OK)
        self.assertTrue(self.heard.startswith(_OK * 2 + b"HTTP/1.1 401 "))
        self.refused(401)
        self.assertEqual(self.service.seen, aRequest() + aRequest(b"b"))
        self.assertEqual(self.service.dialled, 1)

    def test_head(self) -> None:
        """The answer to HEAD has no body, whatever it says; nor has its refusal."""
        self.visitor.dataReceived(aRequest(b"", method=b"HEAD"))
        self.service.protocol.dataReceived(_OK[:-2])
        self.visitor.dataReceived(aRequest(b"", isGood=False, method=b"HEAD"))
        self.refused(401)
        self.assertTrue(self.heard.endswith(b"\r\n\r\n"))

    def test_close(self) -> None:
        """The last answer is the last."""
        self.visitor.dataReceived(aRequest(more=b"Connection: close\r\n"))
        self.service.protocol.dataReceived(_OK)
        self.assertTrue(self.transport.halfClosed)
        self.begin()
        self.visitor.dataReceived(aRequest())
        self.service.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        self.assertFalse(self.transport.halfClosed)
        self.service.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.transport.halfClosed)
        self.assertTrue(self.heard.endswith(b"until the end"))

    def test_halfClosed(self) -> None:
        """Who has said its last gets its answer."""
        self.visitor.dataReceived(aRequest())
        self.visitor.readConnectionLost()
        self.assertFalse(self.transport.disconnecting)
        self.service.protocol.dataReceived(_OK)
        self.assertTrue(self.transport.disconnecting)
        self.begin()
        self.visitor.dataReceived(aRequest()[:-1])
        self.visitor.readConnectionLost()
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.service.dialled, 0)

    def test_services(self) -> None:
        """A service that is not there, or leaves without a word, is told."""
        self.service.isDown = True
        self.visitor.dataReceived(aRequest())
        self.refused(502, "was not reached")
        self.begin()
        self.visitor.dataReceived(aRequest())
        self.service.protocol.connectionLost(Failure(ConnectionDone()))
        self.refused(502, "too early")

    def test_left(self) -> None:
        """With the visitor goes its connection to the service."""
        self.visitor.dataReceived(aRequest())
        self.visitor.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.service.transport.disconnecting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unasked(self) -> None:
        """What a service says that was not asked is not passed on."""
        self.visitor.dataReceived(aRequest())
        self.service.protocol.dataReceived(_OK)
        self.service.protocol.dataReceived(_OK)
        self.assertEqual(self.heard, _OK)
        self.assertTrue(self.transport.halfClosed)

    def test_late(self) -> None:
        """A request has so long to come, and a connection to have another one."""
        request = aRequest()
        for place in range(4):
            self.visitor.dataReceived(request[place : place + 1])
            self.clock.advance(REQUEST_TIMEOUT / 4)
        self.refused(408)
        self.begin()
        self.clock.advance(IDLE_TIMEOUT)
        self.assertEqual(self.heard, b"")
        self.assertTrue(self.transport.halfClosed)

    def test_tooMuchInAll(self) -> None:
        """Those that hold much and are slow give way to others."""
        self.patch(HELD_REQUESTS, "most", 100_000)
        self.patch(HELD_REQUESTS, "_seconds", self.clock.seconds)
        slow = []
        for _ in range(4):
            transport = _Transport()
            slow.append(transport)
            self.another(transport).dataReceived(aRequest(b"x" * 24_000)[:-1])
        self.clock.advance(2)
        request = aRequest(b"y" * 10_000)
        self.visitor.dataReceived(request)
        self.assertEqual(self.service.seen, request)
        given = [each.value()[:12] for each in slow]
        self.assertIn(b"HTTP/1.1 503", given)
        self.assertLessEqual(HELD_REQUESTS.total, 100_000)

    def test_pipelined(self) -> None:
        """Who sends on without end while it waits is not read any more."""
        self.visitor.dataReceived(aRequest())
        for _ in range(20):
            self.visitor.dataReceived(aRequest(b"x" * 9000))
            if self.transport.producerState == "paused":
                break
        self.assertEqual(self.transport.producerState, "paused")
        while self.transport.producerState == "paused":
            self.service.protocol.dataReceived(_OK)

    def test_logged(self) -> None:
        """Refusals are logged, and not without bounds."""
        written: list[LogEvent] = []

        @implementer(ILogObserver)
        class Written:
            def __call__(self, event: LogEvent) -> None:
                written.append(event)

        rules = self.visitor._rules
        self.patch(SignedVisitor, "_log", Logger(observer=Written()))
        for _ in range(log_limiter.FREELY * 2):
            made = SignedVisitor(rules, self.service, {})
            made.makeConnection(_Transport())
            made.dataReceived(aRequest(isGood=False))
            made.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(written), log_limiter.FREELY)

    @given(
        st.lists(
            st.tuples(
                st.binary(max_size=30) | st.sampled_from([b"\r\n\r\n", b"0\r\n\r\nGE"]),
                st.integers(0, 7),
                st.integers(0, 9).map(bool),
            ),
            max_size=5,
        ),
        st.lists(st.integers(1, 60), max_size=40),
        st.binary(max_size=10),
    )
    def test_anyPieces(
        self, requests: list[tuple[bytes, int, bool]], cuts: list[int], rest: bytes
    ) -> None:
        """
        However it comes, the service sees the bytes of the requests before the first
        bad one and no others.
        """
        self.begin()
        made = [aRequest(body, chunks, good) for body, chunks, good in requests]
        good = [each[2] for each in requests]
        count = good.index(False) if False in good else len(good)
        sent, wanted = b"".join(made) + rest, b"".join(made[:count])
        for cut in [*cuts, len(sent)]:
            self.visitor.dataReceived(sent[:cut])
            sent = sent[cut:]
            self.assertTrue(wanted.startswith(self.service.seen))
        for _ in range(count):
            self.service.protocol.dataReceived(_OK)
        self.assertEqual(self.service.seen, wanted)
        self.assertTrue(self.heard.startswith(_OK * count))
        if count < len(good):
            self.refused(401)
        self.visitor.connectionLost(Failure(ConnectionDone()))
