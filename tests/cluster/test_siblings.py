"""Tests for what a process knows of the others of its machine."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.processes.fakes import FakeReactor
from tristunnel.cluster.entries import Entries
from tristunnel.cluster.siblings import SiblingWays
from tristunnel.model.memory_book import MemoryBook
from tristunnel.processes.channel import pair
from tristunnel.processes.link import Link
from tristunnel.service.here import Here
from tristunnel.service.host_rules import HostRules


class Member:
    """What L{SiblingWays} asks of a membership."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.answers: dict[str, Any] = {}
        self.siblings: dict[int, Link] = {}


class LeavingTests(SynchronousTestCase):
    """The second of three processes hears that another one is about to end."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.member: Any = Member(1)
        here = Here()
        ways = SiblingWays(None, self.member, here.served)  # type: ignore[arg-type] # it passes nothing
        book = MemoryBook(self.reactor, "1")
        self.entries = Entries(self.reactor, book, {}, here, ways, HostRules())
        self.entries.near = ways
        for index in (0, 2):
            self.meet(index)

    def meet(self, index: int) -> None:
        """Have another process begin."""
        ends = pair()
        self.addCleanup(ends[1].close)
        made = Link(self.reactor, ends[0], self.member.answers.get, index=index)
        self.addCleanup(made.close)
        self.member.siblings[index] = made

    def leaving(self) -> list[int]:
        """Which of them end."""
        known = self.member.siblings.items()
        return [index for index, link in known if link.isLeaving]

    def test_leaves(self) -> None:
        """It is known of that one, and not of its successor."""
        self.entries.memberLeaves(None, "0")
        for other in ("1", "3"):
            self.entries.memberLeaves(None, other)
        self.assertEqual(self.leaving(), [0])
        self.meet(0)
        self.assertEqual(self.leaving(), [])
