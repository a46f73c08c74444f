"""Tests for L{tristunnel.dataplane.glimpse}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.ends import KeepingEnd
from tristunnel.dataplane.glimpse import LOOKS, Speech, glimpsed
from tristunnel.dataplane.throttle import Throttle
from tristunnel.errors import TunnelError
from tristunnel.wire.first_bytes import spokenBy

HELLO = b"\x16\x03\x01\x02\x00" + bytes(80)
ALPN = b"\x00\x0c\x02h2\x08http/1.1"


def ignored(reason: TunnelError | None) -> None:
    pass


class GlimpseTests(SynchronousTestCase):
    """What a service answers is seen once, and then nothing is in the way."""

    def setUp(self) -> None:
        self.told: list[str] = []
        self.speech = Speech(heard=self.told.append)

    def joined(self, *early: bytes) -> tuple[KeepingEnd, KeepingEnd]:
        service, visitor = KeepingEnd(*early), KeepingEnd()
        one, other = glimpsed(self.speech, service, visitor, service, visitor)
        one.join(other, ignored)
        other.join(one, ignored)
        return service, visitor

    def assertDirect(self, service: KeepingEnd, visitor: KeepingEnd) -> None:
        self.assertIs(service.peer, visitor)
        self.assertIs(visitor.peer, service)

    def test_answer(self) -> None:
        """The first answer tells; no other stream is looked at after it."""
        service, visitor = self.joined()
        visitor.peer.write(b"GET / HTTP/1.1\r\n\r\n")
        service.peer.write(b"HTTP/1.1 200 OK\r\n")
        self.assertEqual(self.told, ["http"])
        self.assertEqual(service.told, [b"GET / HTTP/1.1\r\n\r\n"])
        self.assertEqual(visitor.told, [b"HTTP/1.1 200 OK\r\n"])
        self.assertDirect(service, visitor)
        self.assertDirect(*self.joined())
        self.assertEqual(self.speech.looks, LOOKS - 1)

    def test_question(self) -> None:
        """What visitors say proves nothing: scanners ask any port for web pages."""
        service, visitor = self.joined()
        visitor.peer.write(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(self.told, [])
        service.peer.write(b"SSH-2.0-OpenSSH\r\n")
        self.assertEqual(self.told, ["other"])

    def test_early(self) -> None:
        """An answer that came before the ends are joined counts, and is passed on."""
        service, visitor = self.joined(b"220 ready\r\n")
        self.assertEqual(self.told, ["other"])
        self.assertEqual(visitor.told, [b"220 ready\r\n"])
        self.assertDirect(service, visitor)

    def test_unanswered(self) -> None:
        """A large upload does not wait for an answer, and only so many streams are
        looked at."""
        for _ in range(LOOKS):
            service, visitor = self.joined()
            for _ in range(5):
                visitor.peer.write(bytes(16 * 1024))
            self.assertDirect(service, visitor)
        self.assertEqual(self.told, [])
        self.assertDirect(*self.joined())

    def test_rateLimiter(self) -> None:
        """A rate limiter that comes between meanwhile remains there."""
        service, visitor = self.joined()
        Throttle(Clock(), 1000).onto(service, visitor)
        between = service.peer, visitor.peer
        service.peer.write(b"HTTP/1.1 200 OK\r\n")
        self.assertEqual(self.told, ["http"])
        self.assertEqual((service.peer, visitor.peer), between)
        self.assertEqual(visitor.told, [b"HTTP/1.1 200 OK\r\n"])

    def test_spoken(self) -> None:
        """HTTP, HTTP within TLS if a browser asks for it, and anything else."""
        for answer, question, kind in (
            (b"HTTP/1.0 404 Not found", b"", "http"),
            (HELLO, HELLO + ALPN, "https"),
            (HELLO, HELLO, "other"),
            (HELLO, b"GET / http/1.1", "other"),
            (b"HTTP", b"", "other"),
            (b"\x00", HELLO + ALPN, "other"),
            (b"<html>", b"GET /", "other"),
        ):
            self.assertEqual(spokenBy(answer, question), kind, (answer, question))
