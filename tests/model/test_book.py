"""Tests for L{tristunnel.model.memory_book} and L{tristunnel.model.record}."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.book import FIRST, BookTestsMixin
from tristunnel.errors import TunnelError
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.record import (
    AccessRecord,
    Change,
    Claim,
    Place,
    TunnelLimits,
    TunnelRecord,
)

RECORDS = (
    Place("k3f9", 7),
    TunnelRecord("a", Place("m", 2), uri="w3p://h/a", reserved=("tcp:1", "name:x")),
    TunnelLimits(1, 2),
    Claim(Place("m", 2), Place("n", 1), (TunnelRecord("a"), TunnelRecord("b"))),
    AccessRecord("a", uses=3, until=1.5, dropped=True),
    Change("opened", "a", Place("m")),
)


class MemoryBookTests(BookTestsMixin, TestCase):
    """The book in memory, which two members of a machine use."""

    def setUp(self) -> None:
        self.clock = Clock()
        book = MemoryBook(self.clock)
        book.now = self.clock.seconds
        self.one, self.other = book.ofMember("one"), book.ofMember("other")

    async def until(self, kind: str, changes: list[Change]) -> None:
        self.clock.advance(0.1)
        self.assertIn(kind, [each.kind for each in changes])

    async def test_stopped(self) -> None:
        """It leaves no timers behind, neither after its end nor before."""
        place, _ = await self.leased()
        await self.one.away("lease", place, 60.0)
        await self.one.putAccess(AccessRecord("a", until=50.0), 9)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        await self.one.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_accessOver(self) -> None:
        """Access is forgotten when its time is over, also if it was taken back."""
        for access in "ab":
            await self.one.putAccess(AccessRecord(access, until=5.0), 2)
        await self.one.dropAccess("a")
        self.clock.advance(5.0)
        for access in "ab":
            await self.refused("expired", self.one.spend(access))
            await self.one.putAccess(AccessRecord(access, until=9.0), 2)
            await self.one.spend(access)

    async def test_memberLost(self) -> None:
        """
        What no lease keeps ends with its member; leases wait, and what others have
        stays.
        """
        await self.leased()
        await self.opened("gone", "tcp:1")
        kept = await self.opened("kept", "tcp:2", by=self.other)
        changes = await self.watched()
        self.one.memberLost("one", 60.0)
        await self.refused("unknown-tunnel", self.other.find("gone"))
        self.assertEqual(await self.other.find("kept"), kept)
        self.clock.advance(59.0)
        self.assertEqual([each.kind for each in changes], ["closed", "away"])
        self.clock.advance(1.0)
        self.assertIsNone(await self.other.claim("lease", FIRST, "ann"))


class RecordTests(SynchronousTestCase):
    """Records go through JSON."""

    def test_written(self) -> None:
        """What is written is read again."""
        for record in RECORDS:
            text = json.dumps({**record.asDict(), "later": 1})
            self.assertEqual(type(record).fromDict(json.loads(text)), record)

    @given(
        st.sampled_from(RECORDS),
        st.data(),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.lists(st.integers(), min_size=1)
        | st.dictionaries(st.text(), st.none(), min_size=1),
    )
    def test_strange(self, record: Any, data: Any, value: object) -> None:
        """Values of another kind are refused, and nothing else happens."""
        values = record.asDict()
        values[data.draw(st.sampled_from(sorted(values)))] = value
        for each in (values, value):
            try:
                read = type(record).fromDict(each)
            except TunnelError as error:
                self.assertEqual(error.code.name, "protocol-error")
            else:
                self.assertEqual(type(record).fromDict(read.asDict()), read)
