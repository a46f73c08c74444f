"""
Tests for how a connection of the framed protocol begins and ends.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.dialects.framed.introduction import IntroducedProtocol
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import encodeHandshake


class Transport(StringTransport):
    """A transport that does not mind that it has no producer."""

    def unregisterProducer(self) -> None:
        self.producer = None


class Introduced(IntroducedProtocol):
    """
    A connection that does nothing else.

    @ivar messages: What the peer said first.
    @ivar ends: Why it ended, each time.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, 10)
        self.messages: list[dict[str, object]] = []
        self.ends: list[str] = []

    def handshakeReceived(self, message: dict[str, object]) -> None:
        self.messages.append(message)
        if message.get("wrong"):
            raise TunnelError("not-permitted")

    def sessionOver(self, reason: TunnelError) -> None:
        self.ends.append(reason.code.name)


class IntroducedProtocolTests(SynchronousTestCase):
    """One connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = Transport()
        self.connection = Introduced(self.clock)
        self.connection.makeConnection(self.transport)

    def test_whole(self) -> None:
        """The message may come in pieces, and what is behind it is kept."""
        for byte in encodeHandshake({"id": "a"}):
            self.assertEqual([], self.connection.messages)
            self.connection.dataReceived(bytes([byte]))
        self.connection.dataReceived(b"more")
        self.connection.dataReceived(b" of it")
        self.assertEqual([{"id": "a"}], self.connection.messages)
        self.assertEqual(b"more of it", self.connection.taken())
        self.assertEqual(b"", self.connection.taken())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_refused(self) -> None:
        """What makes no sense, or comes too late, ends the connection once."""
        for said, code in (
            (b"GET / HTTP/1.1\r\n", "protocol-error"),
            (encodeHandshake({"wrong": True}), "not-permitted"),
            (encodeHandshake({})[:-1], "handshake-timeout"),
        ):
            with self.subTest(code):
                self.setUp()
                self.connection.dataReceived(said)
                if code == "handshake-timeout":
                    self.clock.advance(10)
                self.assertEqual([code], self.connection.ends)
                self.assertTrue(self.transport.disconnecting)
                self.connection.dataReceived(encodeHandshake({"late": True}))
                self.connection.close()
                self.connection.connectionLost(Failure(ConnectionDone()))
                self.assertEqual([code], self.connection.ends)
                self.assertNotIn({"late": True}, self.connection.messages)
                self.assertEqual([], self.clock.getDelayedCalls())

    def test_cutOff(self) -> None:
        """A peer that does not take the goodbye is cut off."""
        self.connection.close()
        self.assertFalse(self.transport.disconnected)
        self.clock.advance(10)
        self.assertTrue(self.transport.disconnected)

    def test_lost(self) -> None:
        """A connection that the peer ends is over with its reason."""
        self.connection.connectionLost(Failure(ConnectionDone("bye")))
        self.assertEqual(["session-lost"], self.connection.ends)
        self.assertIn("bye", str(self.connection.lost))
        self.assertEqual([], self.clock.getDelayedCalls())
