"""
What a port does with whoever says something wrong, or too little.

The cases are the same for a port that serves the framed protocol alone, for
one that serves HTTP too, and for both over TLS.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.dialects.framed.network import NetworkTestCase, RawPeer
from tests.tls.authority import makeAuthority
from tristunnel.dialects.framed.dialect import FramedPortProtocol
from tristunnel.dialects.framed.session import HANDSHAKE_TIMEOUT
from tristunnel.http.tree import HTTPPortProtocol
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.log import LoggingServerObserver
from tristunnel.tls.server_context import ReloadingCertificate

_TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(192)
_HTTP = b"GET / HTTP/1.1\r\nHost: server.example\r\n\r\n"


def framed(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"W3PTUNL" + size.to_bytes(4, "big") + body


class WrongBytesTests(NetworkTestCase):
    """A port that serves the framed protocol alone."""

    def setUp(self) -> None:
        super().setUp()
        self.port = self.makePort()

    def makePort(self) -> IProtocolFactory:
        return self.sessions

    def peer(self) -> RawPeer:
        peer = RawPeer()
        self.join(self.port, peer)
        return peer

    def refusals(self) -> list[tuple[Any, ...]]:
        """What the server told of peers that it turned away; it may have told nothing
        else."""
        self.assertEqual({event[0] for event in self.notes.events}, {"peerRefused"})
        return self.notes.named("peerRefused")

    def wrong(self, *words: str, says: bytes) -> RawPeer:
        """Expect that a peer which says C{says} is cut off at once, with one line that
        has all of C{words}."""
        self.notes.events.clear()
        peer = self.peer()
        peer.say(says)
        self.settle()
        self.assertIsNotNone(peer.lost)
        ((given, message),) = self.refusals()
        self.assertEqual(given, "protocol-error")
        self.assertNotIn("\n", message)
        for word in words:
            self.assertIn(word, message)
        # Nothing is left that could tick.
        self.advance(HANDSHAKE_TIMEOUT + 1)
        self.assertEqual(len(self.refusals()), 1)
        self.assertEqual(self.sessions.sessions, set())
        return peer

    def test_others(self) -> None:
        """Other protocols are named."""
        self.wrong("an SSH banner", says=b"SSH-2.0-OpenSSH_9.2\r\n")
        self.wrong("PROXY", "haproxy:tcp:", says=b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n")
        self.wrong("something unknown", says=b"\x00\x01\x02\x03")
        self.wrong("SOCKS", says=b"\x05\x01\x00")

    def test_http(self) -> None:
        """HTTP on a port that serves none."""
        self.wrong("an HTTP request", "serves no HTTP", says=_HTTP)

    def test_tlsHello(self) -> None:
        """A TLS hello where no TLS is, or TLS within TLS."""
        self.wrong("TLS hello", "tcp:", says=_TLS_HELLO)

    def test_almost(self) -> None:
        """The first byte alone does not let a peer in."""
        self.wrong(says=b"W3PTUNK" + b"x" * 100)

    def test_hugeLengths(self) -> None:
        """A length of 4 GiB, or of a megabyte, is refused before any body."""
        for length in (0xFFFFFFFF, 100 * 1024 * 1024, 64 * 1024 + 1):
            self.wrong(str(length), says=framed(b"", length))

    def test_notJSON(self) -> None:
        """A body that is no JSON object is refused."""
        self.wrong("JSON", says=framed(b""))
        self.wrong("JSON", says=framed(b"\xff\xfe\xfd"))
        self.wrong("JSON", says=framed(b'{"id": '))
        self.wrong("JSON", says=framed(b"[" * 60_000))
        self.wrong("JSON", says=framed(b'{"a":' * 12_000))
        self.wrong("JSON", says=framed(b"1" * 60_000))

    def test_notAnObject(self) -> None:
        """Credentials that are no object are refused."""
        others: list[object] = [[], "secret", 7, None, True, 1.5]
        for wrong in others:
            body = json.dumps(wrong).encode()
            self.wrong("not an object", says=framed(body))

    def test_secretsAreNotLogged(self) -> None:
        """What is wrong is told without the credentials."""
        self.wrong(says=framed(b'"hunter2"'))
        self.assertNotIn("hunter2", str(self.notes.events))

    def test_silence(self) -> None:
        """A peer that says nothing is cut off after the handshake timeout."""
        peer = self.peer()
        self.advance(HANDSHAKE_TIMEOUT - 1)
        self.assertIsNone(peer.lost)
        self.assertEqual(self.notes.events, [])
        self.advance(2)
        self.assertIsNotNone(peer.lost)
        self.assertEqual([code for code, _ in self.refusals()], ["handshake-timeout"])

    def test_oneByteASecond(self) -> None:
        """A peer that dribbles a right handshake is cut off at the same time."""
        whole = framed(b'{"id": "somebody who has much time"}')
        peer = self.peer()
        for second in range(int(HANDSHAKE_TIMEOUT) - 1):
            peer.say(whole[second : second + 1])
            self.advance(1)
            self.assertIsNone(peer.lost)
        peer.say(whole[9:11])
        self.advance(2)
        self.assertIsNotNone(peer.lost)
        self.assertEqual([code for code, _ in self.refusals()], ["handshake-timeout"])

    def test_leavesSilently(self) -> None:
        """A peer that connects and leaves, as health checks do, is no line."""
        peer = self.peer()
        peer.transport.loseConnection()
        self.settle()
        self.advance(HANDSHAKE_TIMEOUT + 1)
        self.assertEqual(self.notes.events, [])

    def test_boundedMemory(self) -> None:
        """A body of 100 MB that really comes is not kept."""
        peer = self.peer()
        tracemalloc.start()
        try:
            peer.say(framed(b"", 100 * 1024 * 1024))
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(100):
                peer.say(b"x" * 65536)
                self.settle()
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertLess(after - before, 1024 * 1024)
        self.assertIsNotNone(peer.lost)
        self.assertEqual(len(self.refusals()), 1)

    # The same test of several classes is no mistake here.
    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.differing_executors],
    )
    @given(st.binary(min_size=1, max_size=40))
    def test_randomBytes(self, data: bytes) -> None:
        """Whatever comes, the connection ends within the handshake timeout with no more
        than one line."""
        if data.startswith((b"W", *HTTPPortProtocol.beginnings)):
            return
        self.notes.events.clear()
        peer = self.peer()
        peer.say(data)
        self.settle()
        self.advance(HANDSHAKE_TIMEOUT + 1, 5)
        self.assertIsNotNone(peer.lost)
        self.assertEqual(len(self.refusals()), 1)


class WrongBytesHTTPTests(WrongBytesTests):
    """A port that serves HTTP, too."""

    def makePort(self) -> IProtocolFactory:
        root = Resource()
        root.putChild(b"", Resource())
        return ProtocolDetectorFactory(
            self.clock,
            [
                FramedPortProtocol(self.sessions),
                HTTPPortProtocol(Site(root, reactor=self.clock)),
            ],
            self.notes,
        )

    def test_http(self) -> None:
        """HTTP is served, and is no line."""
        peer = self.peer()
        for at in range(len(_HTTP)):
            peer.say(_HTTP[at : at + 1])
            self.settle()
        self.assertTrue(peer.data.startswith(b"HTTP/1.1 "))
        self.assertEqual(self.notes.events, [])
        peer.transport.loseConnection()
        self.settle()

    def test_framed(self) -> None:
        """A client comes in, in whatever pieces."""
        peer = self.peer()
        for byte in framed(b'{"id": "x"}'):
            peer.say(bytes([byte]))
            self.settle()
        self.assertIn("port", peer.handshake)
        self.advance(HANDSHAKE_TIMEOUT + 1)
        self.assertIsNone(peer.lost)

    def test_timeGoesOn(self) -> None:
        """Half of the time is gone when the dialect is known, so half is left."""
        peer = self.peer()
        self.advance(HANDSHAKE_TIMEOUT / 2)
        peer.say(b"W3PTUNL")
        self.advance(HANDSHAKE_TIMEOUT / 2 + 1)
        self.assertIsNotNone(peer.lost)
        self.assertEqual([code for code, _ in self.refusals()], ["handshake-timeout"])


class WrongBytesTLSTests(WrongBytesTests):
    """The framed protocol alone, over TLS."""

    tls = True

    def plainly(self, data: bytes) -> str:
        """Say something without TLS; the one line that the server wrote."""
        peer = RawPeer()
        self.joinUnevenly(self.port, peer)
        peer.say(data)
        self.settle()
        self.advance(HANDSHAKE_TIMEOUT + 1)
        self.assertIsNotNone(peer.lost)
        ((code, message),) = self.refusals()
        self.assertEqual(code, "protocol-error")
        self.assertNotIn("\n", message)
        return str(message)

    def test_plainClient(self) -> None:
        """A client that speaks without TLS is a line that says so."""
        message = self.plainly(framed(b'{"id": "x"}'))
        self.assertIn("did not use TLS", message)
        self.assertIn("tls:", message)

    def test_plainHTTP(self) -> None:
        """So is a browser that does."""
        self.assertIn("did not use TLS", self.plainly(_HTTP))

    def test_noise(self) -> None:
        """And noise."""
        self.assertIn("did not use TLS", self.plainly(b"\x00" * 64))

    def test_noCertificate(self) -> None:
        """A client without the certificate that is asked for is a line."""
        server, _ = self.contexts()
        ca = makeAuthority("clients").write(self.directory / "clients.pem")
        self._context = ReloadingCertificate(self.directory / "server.pem", clientCA=ca)
        peer = self.peer()
        self.settle()
        self.assertIsNotNone(peer.lost)
        ((_, message),) = self.refusals()
        self.assertIn("certificate", message)
        self.assertIsNotNone(server)

    def test_certificateRefused(self) -> None:
        """A client that does not accept our certificate is a line."""
        self.contexts()
        other = makeAuthority("another")
        certificate, key = other.issue(["server.example"])
        self._context = ReloadingCertificate(self.write("other.pem", certificate, key))
        peer = self.peer()
        self.settle()
        assert peer.lost is not None
        peer.lost.trap(SSL.Error, Exception)
        ((_, message),) = self.refusals()
        self.assertIn("certificate", message)


class WrongBytesHTTPTLSTests(WrongBytesHTTPTests, WrongBytesTLSTests):
    """HTTP and the framed protocol, over TLS."""


class LogTests(NetworkTestCase):
    """What of all this is in the log."""

    def test_oneLine(self) -> None:
        """One peer, one line, with where it came from and why."""
        observer = LoggingServerObserver(self.clock.seconds)
        port = ProtocolDetectorFactory(
            self.clock, [FramedPortProtocol(self.sessions)], observer
        )
        with self.problems() as lines:
            peer = RawPeer()
            self.join(port, peer)
            peer.say(_TLS_HELLO)
            self.settle()
            self.advance(HANDSHAKE_TIMEOUT + 1)
        (line,) = lines
        self.assertTrue(line.startswith("Connection from 203.0.113.5:40000 closed: "))
        self.assertIn("tcp: instead of tls:", line)


class _Serves:
    def __init__(self, beginnings: Sequence[bytes]) -> None:
        self.beginnings = beginnings
        self.opened = 0

    def open(self, *of: object) -> Protocol:
        self.opened += 1
        return Protocol()


class AnyBeginningTests(NetworkTestCase):
    """A port that is served to whoever begins in any way, or need not begin."""

    def test_begun(self) -> None:
        """
        What takes any beginning has the connection with its first byte, when whoever
        stands for the peer has said who that is; what takes none has it at once.
        """
        for beginnings, before in (((b"",), 0), ((), 1)):
            served = _Serves(beginnings)
            factory = ProtocolDetectorFactory(self.clock, [served], self.notes)
            peer = RawPeer()
            self.join(factory, peer)
            self.settle()
            self.assertEqual(served.opened, before)
            peer.say(b"?")
            self.settle()
            self.assertEqual(served.opened, 1)
