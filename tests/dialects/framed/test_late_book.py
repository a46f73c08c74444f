"""
Clients of every dialect that are gone when a slow book answers at last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from tests.dialects.framed.network import NetworkTestCase
from tests.dialects.framed.server_rig import call, hello
from tests.dialects.vtunnel.test_vtunnel import FakeConnection as TextConnection
from tests.dialects.zlayer.rig import CLIENT_ID
from tests.dialects.zlayer.rig import FakeConnection as BinaryConnection
from tests.support.book import LateBook
from tristunnel.dialects.base.server import Arrival
from tristunnel.dialects.vtunnel.server import VTunnelServerSession
from tristunnel.dialects.zlayer.server import ZLayerServerSession
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.service.caller import Caller
from tristunnel.service.patience import BOOK_PATIENCE
from tristunnel.wire.zlayer import Auth, Register, encodeMessage

GONE = Failure(TunnelError("session-lost"))


class LateBookTests(NetworkTestCase):
    """No port stays open that nobody can close."""

    def framed(self, *messages: Any) -> Callable[[], None]:
        """Begin to open a tunnel by the framed protocol; what ends the session."""
        peer = self.dial(*messages)

        def lose() -> None:
            peer.transport.loseConnection()
            self.settle()

        return lose

    def begin(self, dialect: str) -> Callable[[], None]:
        """Begin to open a tunnel in some dialect; what ends the session."""
        if dialect == "plain":
            return self.framed({"id": "x"})
        if dialect == "extended":
            return self.framed(hello(), call(1, "openTunnel"))
        caller = Caller(Identity("laptop"), "server", 9000)
        session: Any
        if dialect == "vtunnel":
            session = VTunnelServerSession(self.sessions, Arrival(caller, True))
            session.opened(TextConnection())
            session.textReceived(b'{"type":"listen","port":9000}')
        else:
            session = ZLayerServerSession(self.sessions, Arrival(caller, True))
            session.opened(BinaryConnection())
            session.bytesReceived(encodeMessage(Auth("t", CLIENT_ID)))
            session.bytesReceived(encodeMessage(Register("", 0, 80, 30000)))
        return lambda: session.connectionLost(None, GONE)

    def test_gone(self) -> None:
        """
        Whatever the book is late with, and whether or not it answers in the end.
        """
        for dialect in ("plain", "extended", "vtunnel", "zlayer"):
            for method in ("grant", "open", "change", "holder", "close"):
                for answers in (True, False):
                    book = LateBook(self.clock, late=(method,))
                    self.makeServer(book=book)
                    lose = self.begin(dialect)
                    lose()
                    book.late()
                    if answers:
                        book.answer()
                    self.clock.advance(BOOK_PATIENCE)
                    self.clock.advance(120.0)
                    case = f"{dialect}, a late {method}, answers: {answers}"
                    self.assertEqual(self.listeners.open_, {}, case)
                    self.assertEqual(len(self.service.here), 0, case)
                    if answers:
                        pages = book._pages
                        self.assertEqual(pages.tunnels, {}, case)
                        self.assertEqual(pages.leases, {}, case)
                        self.assertEqual(pages.reserved, {}, case)
                    self.flushLoggedErrors(TunnelError)
