"""
Tests for L{tristunnel.sessions.tickets}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.sessions.tickets import LIFETIME, Tickets


def use(arrival: Any, offer: dict[str, object]) -> bool:
    """
    What a ticket is good for.
    """
    return True


class TicketsTests(SynchronousTestCase):
    """
    A ticket is good once, for a while.
    """

    def setUp(self) -> None:
        """
        Make an office.
        """
        self.clock = Clock()
        self.tickets = Tickets(self.clock.seconds)

    def test_once(self) -> None:
        """
        The second one who shows it gets nothing.
        """
        text = self.tickets.grant(use).text
        self.assertIs(self.tickets.redeem(text), use)
        self.assertIsNone(self.tickets.redeem(text))
        self.assertEqual(len(self.tickets), 0)

    def test_expires(self) -> None:
        """
        It is void after its time.
        """
        text = self.tickets.grant(use).text
        self.clock.advance(LIFETIME)
        self.assertIsNone(self.tickets.redeem(text))

    def test_forgotten(self) -> None:
        """
        What has expired takes no room.
        """
        for _ in range(10):
            self.tickets.grant(use)
        self.clock.advance(LIFETIME + 1)
        self.tickets.grant(use)
        self.assertEqual(len(self.tickets), 1)

    def test_revoked(self) -> None:
        """
        Its session can take it back, more than once.
        """
        ticket = self.tickets.grant(use)
        self.tickets.revoke(ticket)
        self.tickets.revoke(ticket)
        self.assertIsNone(self.tickets.redeem(ticket.text))

    def test_wrongSecret(self) -> None:
        """
        A name alone is worth nothing, and a wrong guess does not spoil it.
        """
        ticket = self.tickets.grant(use)
        other = self.tickets.grant(use)
        name, _, secret = ticket.text.partition(".")
        for wrong in (name, f"{name}.", f"{name}.{secret}x", f"{other.name}.{secret}"):
            self.assertIsNone(self.tickets.redeem(wrong))
        self.assertIs(self.tickets.redeem(ticket.text), use)

    @settings(deadline=None)
    @given(st.one_of(st.text(), st.none(), st.integers(), st.lists(st.text())))
    def test_anything(self, text: object) -> None:
        """
        Whatever a stranger shows, it is answered.
        """
        self.assertIsNone(Tickets(Clock().seconds).redeem(text))
