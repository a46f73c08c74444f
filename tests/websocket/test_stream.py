"""
Tests for L{tristunnel.websocket.stream}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.websocket.stream import ByteStream


class _Speaker(Protocol):
    """
    What speaks over the stream.

    @ivar heard: What it was told.
    """

    def __init__(self) -> None:
        self.heard: list[object] = []

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.heard.append(reason.type)


class _Connection:
    """A WebSocket that does nothing."""

    paused = False
    gone = False

    def close(self) -> None:
        """Close."""

    def sendBytes(self, data: bytes) -> None:
        """Send."""


class CloseTests(SynchronousTestCase):
    """Tests of the end of a stream."""

    def setUp(self) -> None:
        self.speaker = _Speaker()
        self.stream = ByteStream(self.speaker)
        connection: Any = _Connection()
        self.stream.opened(connection)

    def test_peerCloses(self) -> None:
        """The protocol knows when the peer has closed, even if the connection itself
        ends later or never; and it is told once."""
        self.stream.bytesReceived(b"last words")
        self.stream.closeReceived(None)
        self.assertEqual(self.speaker.heard, [b"last words", ConnectionDone])
        self.stream.bytesReceived(b"after that")
        self.stream.connectionLost(TunnelError("session-lost"), Failure(Exception()))
        self.assertEqual(self.speaker.heard, [b"last words", ConnectionDone])

    def test_peerClosesWithReason(self) -> None:
        """A close with a reason is no orderly end."""
        self.stream.closeReceived(TunnelError("reset"))
        self.assertEqual(self.speaker.heard, [ConnectionLost])

    def test_weClose(self) -> None:
        """The peer's consent to our own close is not the end yet: what waits for that
        would no longer be watched."""
        self.stream.loseConnection()
        self.stream.closeReceived(None)
        self.assertEqual(self.speaker.heard, [])
        self.stream.connectionLost(None, Failure(ConnectionDone()))
        self.assertEqual(self.speaker.heard, [ConnectionDone])
