"""Tests for L{tristunnel.util.log_limiter}, and for the log that uses it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.waiting import WaitingEnd
from tristunnel.client.log import LoggingClientObserver
from tristunnel.errors import TunnelError
from tristunnel.model.observer import ServerObserver
from tristunnel.model.permissions import ANONYMOUS_IDENTITY, Identity
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.server.log import ALL_LINES, FREELY, LINES, LoggingServerObserver
from tristunnel.util.log_limiter import ALL, INTERVAL, MOST_KINDS, LogRateLimiter
from tristunnel.util.logs import FAILURES, Log
from tristunnel.util.logs import LINES as MOST_LINES

PEER = IPv4Address("TCP", "192.0.2.1", 5)


class RepetitionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        self.quiet = LogRateLimiter(self.clock.seconds, self.clock.callLater)

    def tell(self, kind: str = "a", count: int = 1, freely: int = 1) -> None:
        for _ in range(count):
            self.quiet.log(
                (kind,),
                lambda: self.lines.append(kind),
                lambda kept, seconds: self.lines.append(f"{kept} {kind} {seconds:g}"),
                freely,
            )

    def test_first(self) -> None:
        """The first ones of each kind are told at once, more once a minute."""
        self.tell("a", 5, 2)
        self.tell("b")
        self.assertEqual(self.lines, ["a", "a", "b"])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.lines[3:], ["3 a 60"])

    def test_flood(self) -> None:
        """A flood has a line a minute; when it is over, nothing is left."""
        for _ in range(180):
            self.tell("a", 100)
            self.clock.advance(1)
        self.assertEqual(len(self.lines), 4, self.lines)
        self.clock.pump([INTERVAL] * 3)
        counted = sum(int(line.split()[0]) for line in self.lines[1:])
        self.assertEqual(counted, 180 * 100 - 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.tell("a")
        self.assertEqual(self.lines[-1], "a")

    def test_kinds(self) -> None:
        """However many kinds there are, memory and lines are bounded."""
        for number in range(5 * MOST_KINDS):
            self.tell(f"kind{number}")
        self.assertLessEqual(len(self.quiet), MOST_KINDS + 1)
        self.assertLessEqual(len(self.lines), MOST_KINDS + 1)

    def test_withoutTimer(self) -> None:
        """Without a timer the next event brings the summary."""
        self.quiet = LogRateLimiter(self.clock.seconds)
        self.tell("a", 3)
        self.clock.advance(INTERVAL)
        self.tell("b")
        self.assertEqual(self.lines, ["a", "2 a 60", "b"])


class LogTests(SynchronousTestCase):
    """L{LoggingServerObserver} under a flood."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = LoggingServerObserver(self.clock.seconds, self.clock.callLater)

    def lines(self, work: Any) -> list[str]:
        with capturedLogs() as events:
            work()
            self.clock.advance(INTERVAL)
        return [formatEvent(event) for event in events]

    def test_unauthenticated(self) -> None:
        """In quiet times each refused connection has a line; a flood has not."""
        wrong, late = TunnelError("protocol-error"), TunnelError("handshake-timeout")

        def work() -> None:
            for _ in range(1000):
                self.log.peerRefused(PEER, wrong)
            self.log.peerRefused(PEER, late)
            self.log.authenticationFailed(PEER, TunnelError("auth-refused"))

        lines = self.lines(work)
        self.assertEqual(len(lines), FREELY + 3)
        self.assertIn(f"{1000 - FREELY} more connections were refused", lines[-1])
        self.assertIn("[protocol-error]", lines[-1])
        self.assertIn("from 192.0.2.1:5 closed", lines[0])

    def test_clients(self) -> None:
        """What a client does again and again has so many lines a minute."""
        reason = TunnelError("closed")
        owner = Identity("laptop")

        def tunnelOf(who: Identity) -> Tunnel:
            return Tunnel("id", who, None, ServerObserver(), self.clock.seconds)

        def flood(event: Callable[[Identity], None]) -> None:
            for _ in range(LINES * 3):
                event(owner)
            event(Identity("other"))

        events: list[Callable[[Identity], None]] = [
            lambda who: self.log.clientConnected(PEER, who, "framed"),
            lambda who: self.log.clientGone(PEER, who, reason),
            lambda who: self.log.tunnelCreated(tunnelOf(who)),
            lambda who: self.log.tunnelDestroyed(tunnelOf(who), reason),
            lambda who: self.log.requestNoted(who, "was refused a port", True),
        ]
        for event in events:
            self.setUp()
            lines = self.lines(partial(flood, event))
            self.assertEqual(len(lines), LINES + 2, lines[-3:])
            self.assertIn(f"{LINES * 2} more lines about client laptop", lines[-1])
            self.assertIn("other", lines[-2])

    def test_manyClients(self) -> None:
        """All of them together have a bound, too."""

        def work() -> None:
            for number in range(ALL_LINES // 20):
                for _ in range(60):
                    self.log.clientGone(
                        PEER, Identity(f"c{number}"), TunnelError("closed")
                    )

        lines = self.lines(work)
        self.assertEqual(len(lines), ALL_LINES + 1)
        self.assertIn(f"{ALL_LINES * 2} more lines about clients", lines[-1])

    def test_visitors(self) -> None:
        """Refused visitors have a line for each reason, and then a summary."""
        tunnel = Tunnel(
            "id", ANONYMOUS_IDENTITY, None, ServerObserver(), self.clock.seconds
        )
        stream = Stream(tunnel, WaitingEnd(), "192.0.2.7:1", 0.0)

        def work() -> None:
            for _ in range(50):
                self.log.visitorRefused(stream, TunnelError("limit-reached"))
            self.log.visitorRefused(stream, TunnelError("not-permitted"))

        lines = self.lines(work)
        self.assertEqual(len(lines), 3, lines)
        self.assertIn("49 more visitors", lines[-1])


class ClientLogTests(SynchronousTestCase):
    """L{LoggingClientObserver} and what visitors, the server and retries can cause."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = LoggingClientObserver(None, self.clock.seconds, self.clock.callLater)

    def lines(self, *events: Callable[[int], None]) -> list[str]:
        with capturedLogs() as logged:
            for number in range(1000):
                for event in events:
                    event(number)
            self.clock.advance(INTERVAL)
        return [formatEvent(event) for event in logged]

    def test_eachEvent(self) -> None:
        """Each kind has its first lines, and then one that says how many more."""
        refused, lost = TunnelError("limit-reached"), TunnelError("session-lost")
        events: list[Callable[[int], None]] = [
            lambda number: self.log.connected(PEER),
            lambda number: self.log.acknowledged("framed"),
            lambda number: self.log.acknowledged("zlayer"),
            lambda number: self.log.tunnelFailed(f"port {number}", refused),
            lambda number: self.log.disconnected(lost),
            lambda number: self.log.reconnectQueued(1.0),
            lambda number: self.log.serviceFailed("localhost:1", refused),
            lambda number: self.log.tunnelReady("tcp://h:1", "localhost:1"),
        ]
        for event in events:
            self.setUp()
            lines = self.lines(event)
            self.assertEqual(len(lines), FREELY + 1, lines[-3:])
            last = lines[-2].replace("port 19:", "port 999:")
            self.assertEqual(
                lines[-1], f"{1000 - FREELY} more in 60 s, the last one: {last}"
            )

    def test_together(self) -> None:
        """Fifty dead services have so many lines in a minute."""
        reason = TunnelError("service-refused")
        services = [f"localhost:{port}" for port in range(50)]

        def knock(number: int) -> None:
            for each in services:
                self.log.serviceFailed(each, reason)

        lines = self.lines(knock)
        self.assertEqual(len(lines), ALL + 1)
        self.assertIn("more lines in 60 s, the last one: A visitor was", lines[-1])


class BeltTests(SynchronousTestCase):
    """Whatever else is logged again and again, L{tristunnel.util.logs}."""

    def test_everything(self) -> None:
        """A kind of line, and even more a kind of traceback, has a bound."""
        path = Path(self.mktemp())

        class Options(dict[str, Any]):
            parent: Any = None

        clock, options = Clock(), Options()
        options.parent = {"nodaemon": True, "logfile": str(path)}
        log = Log(options, seconds=clock.seconds)
        logger = Logger(namespace="anything", observer=log)
        for number in range(2 * MOST_LINES):
            logger.info("about {number}", number=number)
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                logger.failure("about {number}", number=number)
        clock.advance(60)
        logger.info("another")
        text = path.read_text()
        self.assertEqual(text.count("#info] about"), MOST_LINES)
        self.assertEqual(text.count("Traceback"), FAILURES)
        self.assertIn(f" {MOST_LINES} more lines like this one in 60 s: about", text)
