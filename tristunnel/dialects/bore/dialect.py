"""
bore's dialect, as the program asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.interfaces import IAddress, IProtocol

from tristunnel.dialects.base.dialect import Dialect, PortProtocol, WebSocketPath
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.bore.server import (
    PASSED,
    BoreConnection,
    BoreVisitors,
    PassedConnection,
)
from tristunnel.errors import badOption
from tristunnel.forwards.inner import OneProtocol
from tristunnel.http.callers import HTTPCallers, uncounted
from tristunnel.service.preauth import PendingConnection
from tristunnel.wire.bore import CONTROL_PORT

__all__ = ["BoreDialect"]


class BorePortProtocol:
    """
    What bore's clients connect to.

    @param sessions: The server's sessions.
    """

    # They may wait to be asked for a proof of their secret.
    beginnings: Sequence[bytes] = ()

    def __init__(self, sessions: ServerSessions) -> None:
        self._sessions = sessions

    def open(
        self, address: IAddress | None, remaining: float, pending: PendingConnection
    ) -> IProtocol:
        """Make what serves a connection."""
        return BoreConnection(self._sessions, remaining, pending)


class BoreDialect(Dialect):
    """bore's client, which has no TLS and can show no certificate."""

    name = "bore"
    hasClient = False
    showsCertificate = False
    ownPort = CONTROL_PORT

    def portProtocols(self, sessions: ServerSessions) -> Sequence[PortProtocol]:
        return [BorePortProtocol(sessions)]

    def pages(
        self, sessions: ServerSessions, callers: HTTPCallers
    ) -> Mapping[str, WebSocketPath]:
        callers.expect(sessions.shared(BoreVisitors).awaited)
        return {}

    def isMember(self, sessions: ServerSessions, member: int) -> None:
        sessions.shared(BoreVisitors).member = member
        assert sessions.passing is not None
        sessions.passing.takers[PASSED] = OneProtocol(
            lambda: PassedConnection(sessions, sessions.handshakeTimeout, uncounted())
        )

    def keyShown(self, sessions: ServerSessions) -> str:
        asks = sessions.authenticator
        if not (asks.admitsAnybody or asks.takesProofs):
            raise badOption(
                "bore's clients are all refused: they can only prove a secret of"
                " --auth tokens: or clients:"
            )
        return ""
