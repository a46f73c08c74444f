"""Tests for L{tristunnel.processes.membership}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.processes.fakes import FakeReactor
from tristunnel.processes.channel import pair
from tristunnel.processes.link import Link
from tristunnel.processes.membership import Membership


class EndTests(SynchronousTestCase):
    """A member does not outlive its parent."""

    def setUp(self) -> None:
        ours, theirs = pair()
        self.addCleanup(theirs.close)
        reactor = FakeReactor()
        self.link: Any = Link(reactor, ours, lambda name: None)
        self.addCleanup(self.link.close)
        self.link.tell("begin", {"index": 1, "count": 2, "key": "k"}, b"", [])
        reactor.turn()
        self.member = Membership(theirs)
        self.stopped: list[None] = []

    def stop(self) -> None:
        self.stopped.append(None)

    def test_lost(self) -> None:
        """It stops, once."""
        self.member.obey(self.stop)
        self.assertEqual(self.stopped, [])
        self.member._parentLost(self.link)
        self.member.stopOnce()
        self.assertEqual(self.stopped, [None])

    def test_lostEarly(self) -> None:
        """It stops also if there was nothing to stop yet when the parent ended."""
        self.member._parentLost(self.link)
        self.member.obey(self.stop)
        self.assertEqual(self.stopped, [None])
