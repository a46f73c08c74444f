"""Tunnels that cannot be opened or closed as they should, and sessions of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, fail
from twisted.logger import LogEvent, capturedLogs, formatEvent

from tests.service.rig import ALICE, ServiceTestCase, Session
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream
from tristunnel.service.caller import Caller
from tristunnel.service.listing import Listing
from tristunnel.service.patience import BOOK_PATIENCE


class FailingTests(ServiceTestCase):
    """Whatever fails, or does not answer, leaves no port open."""

    def fails(self, *arguments: object) -> Any:
        raise RuntimeError("this part is broken")

    def test_dismantling(self) -> None:
        """A tunnel is taken apart to the end, whichever part of that fails."""
        for broken in (
            lambda tunnel: patch.object(self.book, "close", self.fails),
            lambda tunnel: patch.object(
                self.book, "close", lambda *args: fail(RuntimeError())
            ),
            lambda tunnel: patch.object(self.service.rights, "forget", self.fails),
            lambda tunnel: patch.object(Stream, "reset", self.fails),
            lambda tunnel: patch.object(tunnel.clientSide, "tunnelClosed", self.fails),
            lambda tunnel: patch.object(tunnel.listener, "close", self.fails),
        ):
            self.makeService(listeners={"tcp": self.visitors})
            uri = self.open(visitors=2)
            tunnel = self.successResultOf(self.service.find(uri))
            self.visitors.at(self.address(uri)).come()
            other = self.open()
            working = tunnel.listener.close
            with broken(tunnel):
                ending = self.service.discard([tunnel], TunnelError("closed"))
                self.successResultOf(ending)
                closable = tunnel.listener.close == working
            self.assertNotIn(tunnel.clientListener.number, self.visitors.open_)
            self.assertEqual(
                tunnel.listener.number in self.visitors.open_, not closable
            )
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
            self.close(other)
            self.visitors.open_.clear()

    def test_neverForgotten(self) -> None:
        """A book that does not answer keeps no port open, neither of the tunnel nor
        of those that end with it, and nobody waits for ever."""
        for uri in (self.open(), self.open()):
            self.assertTrue(uri)
        self.book.late("close")
        ending = self.service.discard(list(self.service.here), TunnelError("closed"))
        self.assertEqual(self.visitors.open_, {})
        self.assertNoResult(ending)
        with capturedLogs() as logged:
            self.clock.advance(BOOK_PATIENCE)
        self.successResultOf(ending)
        self.assertUndone(logged, 2)

    def assertUndone(self, logged: Sequence[LogEvent], times: int) -> None:
        """What the book was not told is a line of the log each time, and no more."""
        lines = [formatEvent(each) for each in logged if "log_failure" not in each]
        self.assertEqual(times, sum("did not close" in line for line in lines), lines)
        self.assertEqual([], self.flushLoggedErrors())

    def test_stop(self) -> None:
        """The server stops although the book tells nothing."""
        self.open()
        self.book.late("close")
        stopping = Deferred.fromCoroutine(
            self.service.close(TunnelError("shutting-down"))
        )
        self.assertEqual(self.visitors.open_, {})
        with capturedLogs() as logged:
            self.clock.advance(BOOK_PATIENCE)
        self.successResultOf(stopping)
        self.assertUndone(logged, 1)

    def test_neverFound(self) -> None:
        """A call about a tunnel that the book does not find is answered."""
        uri = self.open()
        self.book.late("find")
        calls: list[Any] = [
            self.service.closeTunnel(ALICE, uri),
            self.service.getTunnelAddress(ALICE, uri),
            Listing(self.service).closeSession(ALICE, "x"),
        ]
        self.clock.advance(BOOK_PATIENCE)
        for call in calls[:2]:
            self.assertRefused("internal", call)
        self.assertRefused("unknown-session", calls[2])
        self.book.late()
        self.close(uri)

    def test_neverTakenIn(self) -> None:
        """A book that does not take a tunnel in keeps no port open either; what it
        takes in too late it has to forget."""
        self.book.late("open")
        opening = self.service.openTunnel(ALICE, {})
        self.clock.advance(BOOK_PATIENCE)
        self.assertRefused("internal", opening)
        self.assertNothingLeft()
        with patch.object(self.book, "close", self.fails):
            self.book.answer()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_leftWhileOpening(self) -> None:
        """A session that is lost while its tunnel is taken in gets none: neither where
        its lease ends with it, nor where that keeps other tunnels."""
        for method in ("open", "change"):
            for others in (0, 1):
                self.makeService()
                session = Session()
                lease, _ = self.successResultOf(
                    self.service.leases.grant(Identity("alice"), session)
                )
                caller = Caller(Identity("alice"), "server", 9000, session, lease)
                for _ in range(others):
                    self.open(caller)
                before = sorted(self.visitors.open_)
                self.book.late(method)
                opening = self.service.openTunnel(caller, {})
                self.service.leases.holderLost(lease, session)
                while self.book.asked:
                    self.book.answer()
                self.failureResultOf(opening, TunnelError)
                self.assertEqual(sorted(self.visitors.open_), before)
                self.assertEqual(len(lease.tunnels), others)
                self.clock.advance(120.0)
                self.assertEqual(self.visitors.open_, {})
                self.assertEqual(self.book._pages.tunnels, {})


class SessionTests(ServiceTestCase):
    """Tunnels that a session opens."""

    def setUp(self) -> None:
        super().setUp()
        self.session = Session()
        self.lease, self.secret = self.successResultOf(
            self.service.leases.grant(Identity("alice"), self.session)
        )
        self.caller = Caller(
            Identity("alice"), "server", 9000, self.session, self.lease
        )

    def test_own(self) -> None:
        """A session serves its tunnel itself, unless it says otherwise."""
        uri = self.open(self.caller)
        self.assertRegex(uri, r"\Aw3p://server:9000/[0-9a-f]{16}\Z")
        self.visitors.at(self.address(uri)).come()
        self.assertEqual(len(self.session.streams), 1)
        self.assertEqual([t.uri for t in self.lease.tunnels], [uri])
        self.close(uri)
        self.assertEqual(self.session.over, ["closed"])

    def test_others(self) -> None:
        """A raw tunnel or a capability that a session asks for is not served by the
        session, nor does it end with it, nor does the session get hold of it when it
        comes back."""
        self.open(self.caller)
        raw, capability = (self.open(self.caller, via=via) for via in ("tcp", "w3p"))
        self.assertEqual(len(self.lease.tunnels), 1)
        self.service.leases.holderLost(self.lease, self.session)
        back = self.successResultOf(
            self.service.leases.claim(
                self.lease.id, self.secret, Identity("alice"), Session()
            )
        )
        self.assertEqual(back, (self.lease, []))
        client = self.visitors.at(raw).come()
        visitor = self.visitors.at(self.address(raw)).come()
        self.assertIs(client.peer, visitor)
        tunnel = self.successResultOf(self.service.find(capability))
        self.assertIs(tunnel.clientSide, None)
