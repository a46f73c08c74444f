"""Tests for L{tristunnel.service.tickets}."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.service.tickets import LIFETIME, TicketBook, Tickets


def use(arrival: Any, offer: dict[str, object]) -> bool:
    return True


class TicketsTests(SynchronousTestCase):
    """A ticket is good once, for a while."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.tickets = Tickets(self.clock.seconds)

    def test_once(self) -> None:
        """The second one who shows it gets nothing."""
        text = self.tickets.grant(use).text
        self.assertIs(self.tickets.redeem(text), use)
        self.assertIsNone(self.tickets.redeem(text))
        self.assertEqual(len(self.tickets), 0)

    def test_expires(self) -> None:
        """It is void after its time."""
        text = self.tickets.grant(use).text
        self.clock.advance(LIFETIME)
        self.assertIsNone(self.tickets.redeem(text))

    def test_forgotten(self) -> None:
        """What has expired takes no room."""
        for _ in range(10):
            self.tickets.grant(use)
        self.clock.advance(LIFETIME + 1)
        self.tickets.grant(use)
        self.assertEqual(len(self.tickets), 1)

    def test_revoked(self) -> None:
        """Its session can take it back, more than once."""
        ticket = self.tickets.grant(use)
        self.tickets.revoke(ticket)
        self.tickets.revoke(ticket)
        self.assertIsNone(self.tickets.redeem(ticket.text))

    def test_wrongSecret(self) -> None:
        """A name alone is worth nothing, and a wrong guess does not spoil it."""
        ticket = self.tickets.grant(use)
        other = self.tickets.grant(use)
        name, _, secret = ticket.text.partition(".")
        for wrong in (name, f"{name}.", f"{name}.{secret}x", f"{other.name}.{secret}"):
            self.assertIsNone(self.tickets.redeem(wrong))
        self.assertIs(self.tickets.redeem(ticket.text), use)

    @given(st.one_of(st.text(), st.none(), st.integers(), st.lists(st.text())))
    def test_anything(self, text: object) -> None:
        """Whatever an unauthenticated peer shows, it is answered."""
        self.assertIsNone(Tickets(Clock().seconds).redeem(text))


class TicketBookTests(SynchronousTestCase):
    """The tickets of one session."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.tickets = Tickets(self.clock.seconds)
        self.admitted = True
        self.book = TicketBook(self.tickets, lambda arrival: self.admitted)

    def shown(self, text: str) -> bool:
        found = self.tickets.redeem(text)
        return found is not None and found(None, {})

    def test_bounded(self) -> None:
        """There are so many of a kind; the oldest make room, and other kinds are not
        touched."""
        other = self.book.grant("other", 1, use)
        made = [self.book.grant("extra-connection", 3, use) for _ in range(10)]
        self.assertEqual((self.book.out("extra-connection"), len(self.tickets)), (3, 4))
        self.assertEqual([self.shown(t.text) for t in made], [False] * 7 + [True] * 3)
        self.assertTrue(self.shown(other.text))
        self.assertEqual((self.book.out("extra-connection"), len(self.tickets)), (0, 0))

    def test_expired(self) -> None:
        """One whose time is over is not out any more."""
        self.book.grant("extra-connection", 3, use)
        self.clock.advance(LIFETIME)
        self.assertEqual(self.book.out("extra-connection"), 0)

    def test_admits(self) -> None:
        """A ticket is good for whom the session may have when it is shown."""
        text = self.book.grant("extra-connection", 1, use).text
        self.admitted = False
        self.assertFalse(self.shown(text))

    def test_closed(self) -> None:
        """With its session every ticket is void, also one that is just shown, and there
        are no more."""
        first, second = (self.book.grant(kind, 1, use) for kind in "ab")
        shown = self.tickets.redeem(first.text)
        self.book.close()
        assert shown is not None
        self.assertFalse(shown(None, {}))
        self.assertFalse(self.shown(second.text))
        self.assertEqual(len(self.tickets), 0)
        self.assertRaises(TunnelError, self.book.grant, "a", 1, use)
