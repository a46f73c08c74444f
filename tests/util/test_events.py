"""
Tests for L{tristunnel.util.events}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.util.events import KEPT, RecentEvents


class EventTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events = RecentEvents(self.clock.seconds)

    def test_crowd(self) -> None:
        """Thousands of visitors neither take memory nor drive out the rest."""
        self.events.add("session", "connected")
        for number in range(3 * KEPT):
            self.clock.advance(1)
            self.events.add("visitor", str(number))
        found = self.events.latest(10)
        self.assertEqual(found[0].text, str(3 * KEPT - 1))
        self.assertEqual(found[-1].text, "connected")
        self.assertEqual(len(found), 10)
        self.assertEqual(len(self.events.latest(10 * KEPT)), KEPT + 1)

    def test_repeated(self) -> None:
        """What is said again is said once, with the time of the last."""
        for text in ("a", "b", "a", "a"):
            self.clock.advance(1)
            self.events.add("log", text, "warn", same=text)
        self.assertEqual(
            [(e.text, e.count, e.time) for e in self.events.latest(9)],
            [("a", 3, 4.0), ("b", 1, 2.0)],
        )

    def test_lazy(self) -> None:
        """A text is made when it is read."""
        made: list[None] = []

        def text() -> str:
            made.append(None)
            return "text"

        self.events.add("visitor", text)
        self.assertEqual(made, [])
        self.assertEqual(self.events.latest(1)[0].line(), "text")
        self.events.latest(1)[0].describe()
        self.assertEqual(len(made), 1)

    def test_owners(self) -> None:
        """Somebody sees his own events, of which a flood repeats the newest."""
        events = RecentEvents(self.clock.seconds, "refusal")
        events.add("event", "opened", "good", "ann")
        events.add("event", "opened", "good", "bob")
        for number in range(3):
            events.add("refusal", f"no {number}", "bad", "ann", same=("ann", 1))
        self.assertEqual(
            [(e.text, e.count, e.number) for e in events.latest(9, "ann")],
            [("no 2", 3, 5), ("opened", 1, 1)],
        )
        self.assertEqual(len(events.latest(9)), 3)
