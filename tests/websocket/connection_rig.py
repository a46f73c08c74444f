"""A connection of WebSocket whose peer is the test."""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.websocket.frames import BINARY, CLOSE, Frame, frame, readFrames, upgrade
from tests.websocket.rig import Recorder
from tristunnel.websocket.connection import LINGER
from tristunnel.websocket.page import PreparedFactory
from tristunnel.websocket.roles import ServerConnection


class _Transport(StringTransport):
    """A transport whose ends are noted."""

    aborted = False

    def writeSequence(self, data: Any) -> None:
        # As a socket's: each piece has to be bytes.
        for piece in data:
            self.write(piece)

    def unregisterProducer(self) -> None:
        self.producer = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError("there is one already")
        self.producer = producer

    def abortConnection(self) -> None:
        self.aborted = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Do nothing."""


class ConnectionTestCase(SynchronousTestCase):
    """A server's connection in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.receiver, self.connection, self.transport = self.connect()

    def connect(
        self, pingInterval: float = 0.0
    ) -> tuple[Recorder, ServerConnection, Any]:
        receiver = Recorder()
        connection = ServerConnection()
        connection.configure(self.clock, receiver, pingInterval)
        connection.factory = PreparedFactory(self.clock)
        transport = _Transport()
        connection.makeConnection(transport)
        connection.dataReceived(upgrade())
        self.assertIs(receiver.connection, connection)
        transport.clear()
        return receiver, connection, transport

    def come(self, *frames: bytes) -> None:
        for each in frames:
            self.connection.dataReceived(each)

    def sent(self) -> list[Frame]:
        return readFrames(self.transport.value())

    def assertClosed(self, code: int, words: str) -> None:
        """Check that the connection was closed with a code and a reason, that nothing
        is heard any more, and that it ends by the clock."""
        close = self.sent()[-1]
        self.assertEqual(CLOSE, close.opcode)
        self.assertEqual(code, struct.unpack("!H", close.payload[:2])[0])
        self.assertIn(words, close.payload[2:].decode())
        before = bytes(self.receiver.data), list(self.receiver.texts)
        noise = frame(BINARY, b"x" * 60000)
        for _ in range(20):
            self.connection.dataReceived(noise)
        self.assertEqual(before, (bytes(self.receiver.data), self.receiver.texts))
        self.assertLess(len(self.connection.data), 70000)
        self.clock.advance(LINGER)
        self.assertTrue(self.transport.disconnecting)
        self.clock.advance(LINGER * 10)
        self.assertTrue(self.transport.aborted)
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual("protocol-error", self.receiver.reason)
