"""Tests for L{tristunnel.check.silence}, and for sessions that are silent."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.loopback import LoopbackTestCase
from tristunnel.check.client import ClientCheck
from tristunnel.check.report import Finding
from tristunnel.check.silence import holdSilence, unmeasured
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.pending import RemoteError


class _Session:
    def __init__(self, quiet: float, answer: Deferred[Any]) -> None:
        self.quiet = quiet
        self.over: Deferred[TunnelError] = Deferred()
        self.asked: list[str] = []
        self._answer = answer

    def whenOver(self) -> Deferred[TunnelError]:
        return self.over

    def call(self, method: str) -> Deferred[Any]:
        self.asked.append(method)
        return self._answer


class SilenceTests(SynchronousTestCase):
    """L{holdSilence}, with sessions that say something every 20 seconds."""

    def judged(
        self,
        verdict: str,
        words: str,
        seconds: float,
        ends: float | None = None,
        answer: Deferred[Any] | None = None,
    ) -> None:
        """
        Hold a session, and check what is said of it.

        @param ends: After how many seconds it is over.
        @param answer: To what is asked afterwards.
        """
        clock = Clock()
        session = _Session(seconds, succeed([]) if answer is None else answer)
        held: Any = Deferred.fromCoroutine(holdSilence(clock, session, 20.0))
        if ends is not None:
            clock.advance(ends)
            session.over.callback(TunnelError("session-lost"))
        else:
            clock.advance(seconds - 1)
            self.assertEqual(session.asked, [])
            clock.advance(1)
            self.assertEqual(session.asked, ["listTunnels"])
            clock.advance(60)
        held.addErrback(lambda failure: Finding("FAIL", failure.value.message))
        finding = self.successResultOf(held)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(finding.verdict, verdict, finding)
        self.assertIn(words, finding.message)

    def test_cancelled(self) -> None:
        """A check that is stopped meanwhile leaves nothing, not even in the log."""
        clock, session = Clock(), _Session(9, succeed([]))
        held: Any = Deferred.fromCoroutine(holdSilence(clock, session, 20.0))
        held.cancel()
        self.failureResultOf(held, CancelledError)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_alive(self) -> None:
        """A session that outlives more than sessions ever do is fine; it is said how to
        look for longer."""
        self.judged("OK", "--check-idle 100", 25.0)
        self.judged("OK", "survived 900 s", 900.0)
        self.judged("WARN", "--check-idle 25", 10.0)

    def test_refusals(self) -> None:
        """Whoever is refused an answer has got one."""
        for error in (RemoteError(-32601, "no"), TunnelError("not-permitted")):
            self.judged("OK", "survived", 25.0, answer=fail(error))

    def test_ended(self) -> None:
        """An end is told with its time, and whether it matters."""
        self.judged("FAIL", "idle sessions after 5 s", 25.0, ends=5.0)
        self.judged("FAIL", "proxy_read_timeout", 25.0, ends=20.0)
        self.judged("OK", "idle sessions after 60 s", 100.0, ends=60.0)

    def test_forgotten(self) -> None:
        """So is an end of which nobody tells."""
        self.judged("FAIL", "drops", 25.0, answer=Deferred())
        lost = fail(TunnelError("session-lost"))
        self.judged("FAIL", "NAT", 25.0, answer=lost)
        self.judged("WARN", "--check-idle 25", 100.0, answer=Deferred())

    def test_unmeasured(self) -> None:
        """Of dialects with pings of their own their interval is judged."""
        for interval, verdict in ((0.0, "WARN"), (25.0, "OK"), (55.0, "WARN")):
            self.assertEqual(unmeasured(interval).verdict, verdict)


class _Impatient(Protocol):
    """A proxy that ends what is silent, as soon as nobody asks for more."""

    transport: Any

    def __init__(self, where: Any) -> None:
        self._where = where
        self._other: Any = None
        self._said = b""

    def connectionMade(self) -> None:
        self._where.connect(Factory.forProtocol(lambda: _Back(self)))

    def reached(self, other: Any) -> None:
        self._other = other
        other.transport.write(self._said)

    def dataReceived(self, data: bytes) -> None:
        if self._other is None:
            self._said += data
        else:
            self._other.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._other is not None:
            self._other.transport.loseConnection()


class _Back(Protocol):
    transport: Any

    def __init__(self, front: _Impatient) -> None:
        self._front = front
        self._heard = b""

    def connectionMade(self) -> None:
        self._front.reached(self)

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        self._front.transport.write(data)
        if b'"quiet"' in self._heard:
            self._front.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._front.transport.loseConnection()


class SessionTests(LoopbackTestCase):
    """Real sessions that are silent."""

    def check(self, port: int, seconds: float) -> Deferred[list[Finding]]:
        connect = f"tcp:127.0.0.1:{port}"
        server = parseConnect(self.reactor, connect, Trust())
        check = ClientCheck(self.reactor, server, silence=seconds)
        return Deferred.fromCoroutine(check.look("idle"))

    async def test_alive(self) -> None:
        """Nothing in between ends it."""
        await self.startServer()
        (found,) = await self.check(self.serverPort, 0.05)
        self.assertEqual(found.verdict, "WARN")
        self.assertIn("survived 0.05 s of silence", found.message)

    async def test_ended(self) -> None:
        """What is in between ends it."""
        await self.startServer()
        where = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.serverPort)
        factory: Any = Factory.forProtocol(lambda: _Impatient(where))
        port = self.offer(factory)
        error = await self.assertFailure(self.check(port, 15.0), TunnelError)
        self.assertIn("ends idle sessions after 0 s", str(error))

    async def test_none(self) -> None:
        """Nobody looks if nobody wants that."""
        (found,) = await self.check(1, 0.0)
        self.assertEqual(found.verdict, "SKIP")
