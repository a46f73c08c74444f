"""Tests for L{tristunnel.cluster.redis_book}, on a real server."""

from __future__ import annotations

import os
from dataclasses import replace
from secrets import token_hex
from typing import Any, NoReturn

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.book import FIRST, NO_LIMITS, BookHelpers, BookTestsMixin
from tests.support.polling import until
from tests.support.redis import RedisServer
from tristunnel.cluster import asking, redis_book
from tristunnel.cluster.engine import Engine, engineAway
from tristunnel.cluster.grouped import Grouped
from tristunnel.cluster.redis_book import RedisBook, Times, otherVersion
from tristunnel.model.record import AccessRecord, Change, Place, TunnelRecord


class RedisTestCase(TestCase):
    """A test with a server, and a book in it that two members share."""

    if not RedisServer.isThere():
        skip = "redis-server is not installed"
    timeout = 60

    def setUp(self) -> Any:
        return Deferred.fromCoroutine(self.begin())

    async def begin(self) -> None:
        self.server = self.engine()
        self.name = token_hex(8)
        self.books: list[RedisBook] = []
        self.one, self.other = await self.join("one"), await self.join("other")

    def engine(self) -> RedisServer:
        return RedisServer.shared()

    def endpoint(self) -> Any:
        return UNIXClientEndpoint(reactor, str(self.server.path))

    async def join(self, member: str, **more: Any) -> RedisBook:
        engine = Engine(self.endpoint(), self.name)
        reader = Engine(self.endpoint(), self.name, patience=None)
        times = {"beat": 0.05, "memberTTL": 1.0, "grace": 0.0, **more}
        book = RedisBook(reactor, engine, reader, member, times=Times(**times))
        book.start()
        self.books.append(book)
        self.addCleanup(book.stop)
        await until(lambda: engine.isUp and book._syncing.isDone)
        return book

    async def until(self, kind: str, changes: list[Change]) -> None:
        await until(lambda: kind in [each.kind for each in changes])


class RedisBookTests(RedisTestCase, BookTestsMixin):
    """What every book must do."""


class EngineTests(RedisTestCase, BookHelpers):
    """What becomes of a book whose engine is lost."""

    def engine(self) -> RedisServer:
        server = RedisServer()
        self.addCleanup(server.stop)
        server.start()
        return server

    async def restart(self) -> None:
        """Have an engine that knows nothing, in place of the one there is."""
        self.server.kill()
        for book in self.books:
            await until(lambda book=book: not book._engine.isUp)
        self.server.start()
        for book in self.books:
            await until(lambda book=book: book._engine.isUp and book._syncing.isDone)

    async def test_away(self) -> None:
        """
        Without an engine all is refused at once, but for a lease that is here; what
        ends is over as soon as there is one again.
        """
        place, _ = await self.leased()
        gone = await self.opened("gone", "tcp:1")
        self.server.kill()
        await until(lambda: not self.one._engine.isUp)
        for asked in (
            self.one.find("t"),
            self.one.holder("name:t"),
            self.one.grant("new", FIRST, "ann"),
            self.one.open(TunnelRecord("x", Place("one")), NO_LIMITS),
            self.other.claim("lease", FIRST, "ann"),
        ):
            await self.refused("cluster-away", asked)
        await self.one.close("gone", gone.place)
        claim = await self.one.claim("lease", FIRST, "ann")
        self.assertEqual([each.id for each in claim.records], ["t"])
        self.server.start()
        await until(lambda: self.one._engine.isUp and self.one._syncing.isDone)
        await until(lambda: self.other._engine.isUp)
        found = await self.other.find("t")
        self.assertEqual(found.place, claim.place)
        self.assertGreater(found.place.fence, place.fence)
        await self.refused("unknown-tunnel", self.other.find("gone"))

    async def test_empty(self) -> None:
        """An engine that comes back empty is told by everybody what there is."""
        place, record = await self.leased()
        mine = await self.opened("mine", "tcp:1", by=self.other)
        changes: list[Change] = []
        self.addCleanup(await self.one.watch(changes.append))
        await self.restart()
        self.assertEqual(await self.other.find("t"), record)
        self.assertEqual(await self.one.holder("tcp:1"), mine)
        claim = await self.other.claim("lease", FIRST, "ann")
        self.assertEqual(claim.place.fence, place.fence + 1)
        await self.until("claimed", changes)
        self.assertIn("resynced", [each.kind for each in changes])

    async def test_starting(self) -> None:
        """
        An engine that refuses for a while, since it is starting or has another
        password, is tried again, and then learns of all.
        """
        ask = self.one._engine._ask
        self.patch(self.one._engine, "_ask", lambda *words: fail(engineAway()))
        self.one._resync()
        await until(lambda: self.one._syncing.isDone)
        record = TunnelRecord("x", Place("one"))
        await self.refused("cluster-away", self.one.open(record, NO_LIMITS))
        self.patch(self.one._engine, "_ask", ask)
        await until(lambda: self.one._isSaid)
        await self.one.open(record, NO_LIMITS)
        config = self.one._engine.command
        await config("CONFIG", "SET", "requirepass", "sesame")
        late = Engine(self.endpoint(), self.name, password="wrong")
        self.addCleanup(late.stop)
        late.start()
        await until(lambda: late._factory.slots[0].rejected)
        await config("CONFIG", "SET", "requirepass", "wrong")
        await until(lambda: late.isUp)

    async def test_grace(self) -> None:
        """While they say so, nobody opens anything."""
        late = await self.join("late", grace=60.0)
        record = TunnelRecord("x", Place("late"))
        refusal = await self.refused("cluster-away", late.open(record, NO_LIMITS))
        self.assertIsNotNone(refusal.retryAfter)
        # Nor is a lease unknown whose member has not spoken yet.
        await self.refused("cluster-away", late.claim("lease", FIRST, "ann"))

    async def test_spent(self) -> None:
        """
        What was spent of access, or taken back, stays so in an engine that comes up
        empty, whoever speaks first; before that nothing is spent.
        """
        until = self.one.now() + 600
        for access in ("spent", "dropped", "left"):
            record = AccessRecord(access, "hash", "shop", uses=2, until=until)
            await self.one.putAccess(record, 9)
        await self.other.listAccess()
        for _ in range(2):
            await self.one.spend("spent")
        await self.one.spend("left")
        await self.one.dropAccess("dropped")
        await self.one._engine.command("DEL", *self.one._engine._keys)
        late = await self.join("late", grace=60.0)
        for access in ("spent", "unknown"):
            await self.refused("cluster-away", late.spend(access))
        for book in (self.other, self.one):
            await book._sayAll()
        for access in ("spent", "dropped"):
            await self.refused("expired", self.other.spend(access))
        await self.other.spend("left")
        await self.refused("expired", self.one.spend("left"))

    async def test_first(self) -> None:
        """Nobody comes in before it is agreed who may."""
        agreed: Deferred[None] = Deferred()
        self.one.sayFirst = lambda: agreed
        await self.one.grant("lease", FIRST, "ann")
        self.one._leases.clear()
        self.one._resync()
        await self.refused("cluster-away", self.one.grant("new", FIRST, "ann"))
        await self.refused("cluster-away", self.one.claim("lease", FIRST, "ann"))
        agreed.callback(None)
        await until(lambda: self.one._isSaid)
        self.assertIsNotNone(await self.one.claim("lease", FIRST, "ann"))

    async def test_behind(self) -> None:
        """
        A member that says again what it had, before whoever has it since, is told
        when that one speaks.
        """
        place, record = await self.leased()
        changes: list[Change] = []
        self.addCleanup(await self.one.watch(changes.append))
        claim = await self.other.claim("lease", FIRST, "ann", 40)
        await self.one._engine.command("DEL", *self.one._engine._keys)
        # As if it had missed that.
        changes.clear()
        self.one._leases["lease"] = FIRST, "ann", place
        self.one._tunnels["t"] = record
        await self.one._sayAll()
        self.assertEqual((await self.one.find("t")).place, place)
        await self.other._sayAll()
        await until(lambda: Change("claimed", "lease", claim.place) in changes)
        self.assertEqual((await self.one.find("t")).place, claim.place)
        await self.refused("displaced", self.one.change("t", place, {"name": "y"}))

    async def test_taken(self) -> None:
        """
        After an engine has lost what it knew, the first who says that it has a port
        keeps it; another one is told that it has it no longer.
        """
        place, record = await self.leased()
        claim = await self.other.claim("lease", FIRST, "ann")
        first: list[Change] = []
        self.addCleanup(await self.one.watch(first.append))
        mine = await self.opened("mine", "tcp:1")
        # As if it had missed that.
        self.one._leases["lease"] = FIRST, "ann", place
        self.one._tunnels["t"] = record
        self.other._tunnels["theirs"] = theirs = TunnelRecord(
            "theirs", Place("other"), reserved=("tcp:1",)
        )
        await self.one._sayAll()
        await self.other._sayAll()
        self.assertIn(Change("claimed", "lease", claim.place), first)
        self.assertEqual(await self.one.holder("tcp:1"), mine)
        self.assertNotIn("theirs", self.other._tunnels)
        await self.refused("unknown-tunnel", self.one.find(theirs.id))

    async def test_version(self) -> None:
        """A member of another version writes nothing beside those that are there."""
        ours = asking.VERSION
        for module in (asking, redis_book):
            self.patch(module, "VERSION", ours + 1)
        engine = Engine(self.endpoint(), self.name)
        reader = Engine(self.endpoint(), self.name, patience=None)
        book = RedisBook(reactor, engine, reader, "new", times=Times(grace=0.0))
        self.addCleanup(book.stop)
        self.troubles: list[str] = []
        engine.whenTroubled = self.troubles.append
        book.start()
        await until(lambda: engine.isUp and book._syncing.isDone)
        record = TunnelRecord("x", Place("new"))
        await self.refused("cluster-away", book.open(record, NO_LIMITS))
        for _ in range(3):
            book._resync()
            await until(lambda: book._syncing.isDone)
        (said,) = self.troubles
        self.assertIn("the same version", said)
        self.assertEqual(await otherVersion(engine), said)
        for module in (asking, redis_book):
            self.patch(module, "VERSION", ours)
        self.assertEqual(await otherVersion(engine), "")
        await book._sayAll()
        await book.open(record, NO_LIMITS)

    async def test_dead(self) -> None:
        """What a dead member had is over; its leases wait for their clients."""
        for book in self.books:
            book.times = replace(book.times, lease=0.3)
        dead = await self.join("dead", lease=0.3)
        place = await dead.grant("lease", FIRST, "ann")
        await self.opened("t", "name:t", place=place, lease="lease", by=dead)
        await self.opened("gone", "tcp:1", by=dead)
        kept = await self.opened("kept", "tcp:2")
        changes = await self.watched()
        await dead.stop()
        await self.until("closed", changes)
        await self.refused("unknown-tunnel", self.one.find("gone"))
        await self.until("expired", changes)
        self.assertIsNone(await self.one.claim("lease", FIRST, "ann"))
        self.assertEqual(await self.other.find("kept"), kept)

    async def test_tookForDead(self) -> None:
        """
        A member that was cut off, and that others took for dead, has what nobody else
        has got meanwhile; what it hears of its own end is no news.
        """
        cut = await self.join("cut", lease=0.1)
        place = await cut.grant("lease", FIRST, "ann")
        await self.opened("t", "name:t", place=place, lease="lease", by=cut)
        mine = await self.opened("mine", "tcp:1", by=cut)
        taken = await self.opened("taken", "tcp:2", by=cut)
        told: list[Change] = []
        self.addCleanup(await cut.watch(told.append))
        for book in (self.one, self.other):
            book.times = replace(book.times, memberTTL=0.3, lease=0.1)
        changes = await self.watched()
        say = cut._beatNow
        self.patch(cut, "_beatNow", lambda: fail(engineAway()))
        cut._changes._reader.drop()
        self.patch(cut._changes, "_place", lambda: fail(engineAway()))
        await self.until("expired", changes)
        await until(lambda: Change("closed", "taken", taken.place) in changes)
        other = await self.opened("other", "tcp:2")
        vars(cut._changes).pop("_place")
        self.patch(cut, "_beatNow", say)
        await until(lambda: Change("closed", "taken", taken.place) in told)
        self.assertEqual(await self.one.holder("tcp:2"), other)
        self.assertEqual(await self.one.find("mine"), mine)
        self.assertEqual((await self.one.find("t")).place, place)
        self.assertEqual({each.id for each in told if each.kind == "expired"}, set())

    async def test_lostAnswer(self) -> None:
        """
        An answer that did not come may have been a yes: what is asked again counts
        once.
        """
        record = TunnelRecord("a", Place("one"), reserved=("tcp:1",), countedAs="ann")
        run = self.one._engine.run

        def deaf(script: str, *args: object) -> Deferred[list[Any]]:
            return run(script, *args).addCallback(lambda answer: self.fails())

        self.patch(self.one._engine, "run", deaf)
        await self.refused("cluster-away", self.one.open(record, NO_LIMITS))
        await self.one.close("a", record.place)
        self.patch(self.one._engine, "run", run)
        await self.one._sayAll()
        self.assertIsNone(await self.other.holder("tcp:1"))
        await self.one.open(record, NO_LIMITS)
        await self.one.open(record, NO_LIMITS)
        await self.one.close("a", record.place)
        counts = await self.one._engine.command(
            "HGETALL", self.one._engine.key("counts")
        )
        self.assertEqual(counts, [])

    def fails(self) -> NoReturn:
        raise engineAway()


class GroupedTests(SynchronousTestCase):
    """L{tristunnel.cluster.grouped.Grouped}."""

    def test_groups(self) -> None:
        """What is put in, replaced and taken out is found by its group."""
        table = Grouped[str](lambda value: value[0])
        table["x"], table["y"], table["z"] = "a1", "b1", "a2"
        table["x"] = "a3"
        self.assertEqual(table.setdefault("y", "b2"), "b1")
        self.assertEqual(table.of("a"), ["x", "z"])
        self.assertEqual(table.pop("z"), "a2")
        self.assertIsNone(table.pop("z", None))
        del table["x"]
        self.assertEqual((table.of("a"), table.of("b")), ([], ["y"]))
        self.assertEqual(list(table._groups), ["b"])


class LateTests(RedisBookTests):
    """The same, with an engine that is far away."""

    if not os.environ.get("TRISTUNNEL_LONG"):
        skip = "set TRISTUNNEL_LONG=1 to have an engine that is 50 ms away"

    async def begin(self) -> None:
        # What is under way when a book is stopped is so for a while.
        self.addCleanup(deferLater, reactor, 0.1)
        await super().begin()

    async def join(self, member: str, **more: Any) -> RedisBook:
        book = await super().join(member, **more)
        ask = book._engine._ask

        def slowly(*words: Any) -> Deferred[Any]:
            return deferLater(reactor, 0.05, lambda: ask(*words))

        self.patch(book._engine, "_ask", slowly)
        return book
