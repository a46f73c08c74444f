"""Tests for L{tristunnel.processes.book}: the parent's book, asked by two members."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.support.book import BookTestsMixin
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.record import Change
from tristunnel.processes.book import ParentsBook, answering
from tristunnel.processes.channel import pair
from tristunnel.processes.link import Link


class ParentsBookTests(BookTestsMixin, TestCase):
    """It does what every book does."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.book = MemoryBook(self.clock)
        self.book.now = self.clock.seconds
        self._parents: list[Link] = []
        self.one, self.other = self._member("one"), self._member("other")
        self.book.watch(self._tell)

    def _member(self, name: str) -> ParentsBook:
        reactor = ourReactor()
        ours, theirs = pair()
        parent = Link(reactor, ours, answering(self.book.ofMember(name)).get)
        methods: dict[str, Callable[..., object]] = {}
        member = Link(reactor, theirs, methods.get)
        made = ParentsBook(member, name)
        methods["changed"] = lambda asker, change: made.changed(change)
        made.now = self.clock.seconds
        self._parents.append(parent)
        self.addCleanup(parent.close)
        self.addCleanup(member.close)
        return made

    def _tell(self, change: Change) -> None:
        for parent in self._parents:
            parent.tell("changed", [change.asDict()])

    async def until(self, kind: str, changes: list[Change]) -> None:
        self.clock.advance(0.1)
        # What was told comes before the answer.
        await self.other.find("a").addErrback(lambda failure: None)
        self.assertIn(kind, [each.kind for each in changes])
