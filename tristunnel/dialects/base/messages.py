"""
A session over a connection, and one over the messages of a WebSocket: what both ends
share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from twisted.python.failure import Failure

from tristunnel.errors import TunnelError

__all__ = ["ConnectedSession", "EndsOnce", "MessageSession"]


class EndsOnce:
    """
    A session, whatever carries it.

    @ivar lost: Why the session is over, or is about to be, or C{None}.
    """

    lost: TunnelError | None = None
    _ended = False

    def end(self, reason: TunnelError) -> None:
        """Let go of everything, once."""
        if not self._ended:
            self._ended = True
            self.lost = self.lost or reason
            self.sessionOver(self.lost)

    def sessionOver(self, reason: TunnelError) -> None:
        """End what depends on the session; called once."""
        return


class ConnectedSession(EndsOnce):
    """
    A session on a connection.

    @ivar connection: What carries it, once it is open: it has C{fail}, C{close},
        C{pauseReading}, C{resumeReading}, C{probe} and C{peerAddress}.
    """

    connection: Any = None

    def opened(self, connection: Any) -> None:
        self.connection = connection

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """
        End the session because of C{reason}, and say so.

        @param code: The close code, if it is not the reason's.
        """
        self.lost = self.lost or reason
        if self.connection is not None:
            self.connection.fail(reason, code)
        self.end(reason)


class MessageSession(ConnectedSession, ABC):
    """
    The L{Receiver<tristunnel.websocket.connection.Receiver>} of a session's
    connection, which is a WebSocket.
    """

    @abstractmethod
    def bytesReceived(self, data: bytes) -> None:
        """A piece of a binary message came."""

    @abstractmethod
    def textReceived(self, text: bytes) -> None:
        """A text message came."""

    def closeReceived(self, reason: TunnelError | None) -> None:
        """The connection's end follows."""
        return

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        self.end(reason or TunnelError("session-lost", "the peer has left"))
