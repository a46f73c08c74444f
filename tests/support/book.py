"""What every book must do, whatever keeps it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface.verify import verifyObject

from tristunnel.errors import TunnelError
from tristunnel.model.book import IBook
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.record import (
    AccessRecord,
    Change,
    Place,
    TokenRecord,
    TunnelLimits,
    TunnelRecord,
    named,
)

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Base
else:
    Base = object

NO_LIMITS = TunnelLimits()


class LateBook(MemoryBook):
    """
    A book that takes its time.

    @param late: The methods that do.

    @ivar asked: What was asked of them and not answered yet.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        book: MemoryBook | None = None,
        late: Collection[str] = (),
    ) -> None:
        super().__init__(reactor, "", None if book is None else book._pages)
        self.asked: list[tuple[Deferred[Any], Callable[[], Deferred[Any]]]] = []
        self.late(*late)

    def late(self, *methods: str) -> None:
        """Have these take their time, and no others."""
        for name in ("grant", "claim", "open", "change", "close", "find", "holder"):
            vars(self).pop(name, None)
            if name in methods:
                setattr(self, name, partial(self._later, getattr(self, name)))

    def _later(self, method: Callable[..., Deferred[Any]], *args: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((answer, partial(method, *args)))
        return answer

    def answer(self) -> None:
        """Do what was asked, and say so."""
        asked, self.asked = self.asked, []
        for answer, method in asked:
            method().chainDeferred(answer)


FIRST, SECOND = "hash of the first secret", "hash of the second secret"


class BookHelpers(Base):
    """
    What tests of books do.

    @ivar one: The book, as a member uses it.
    @ivar other: The same book, as another member uses it.
    """

    one: Any
    other: Any

    async def until(self, kind: str, changes: list[Change]) -> None:
        """Let time pass until something has happened in the book."""
        raise NotImplementedError

    async def refused(self, code: str, asked: Deferred[Any]) -> TunnelError:
        """Make sure that something is refused."""
        error = await self.assertFailure(asked, TunnelError)
        self.assertEqual(error.code.name, code)
        refusal: TunnelError = error
        return refusal

    async def opened(
        self, number: str, *reserved: str, by: Any = None, **fields: Any
    ) -> TunnelRecord:
        """Open a tunnel that no lease keeps."""
        book = by or self.one
        fields.setdefault("place", Place(book.member))
        record = TunnelRecord(number, reserved=reserved, **fields)
        await book.open(record, NO_LIMITS)
        return record

    async def leased(self) -> tuple[Place, TunnelRecord]:
        """Grant a lease, C{lease}, and open a tunnel that it keeps."""
        place = await self.one.grant("lease", FIRST, "ann")
        record = await self.opened("t", named("t"), place=place, lease="lease")
        return place, record

    async def watched(self) -> list[Change]:
        """Be told what happens from now on."""
        changes: list[Change] = []
        end = await self.other.watch(changes.append)
        self.addCleanup(end)
        return changes


class BookTestsMixin(BookHelpers):
    """One test case for all books."""

    def test_interface(self) -> None:
        """It is a book, of a member with a name of its own."""
        self.assertTrue(verifyObject(IBook, self.one))
        self.assertNotEqual(self.one.member, self.other.member)

    # Tunnels

    async def test_found(self) -> None:
        """Every member finds a tunnel by URI, by id and by what it has reserved."""
        record = await self.opened("a", "name:shop", uri="w3p://h/a", name="shop")
        for book in (self.one, self.other):
            for text in ("a", "w3p://h/a", "w3p://h/a#secret"):
                self.assertEqual(await book.find(text), record)
            self.assertEqual(await book.holder("name:shop"), record)
            self.assertIsNone(await book.holder("name:other"))
            await self.refused("unknown-tunnel", book.find("name:shop"))

    async def test_reserved(self) -> None:
        """What is reserved is one tunnel's, all of it or nothing."""
        first = await self.opened("a", "tcp:1", "name:x")
        for number, reserved, code in (
            ("b", ("tcp:2", "tcp:1"), "port-taken"),
            ("c", ("name:y", "name:x"), "name-taken"),
        ):
            await self.refused(
                code, self.opened_(number, reserved, Place(self.other.member))
            )
            await self.refused("unknown-tunnel", self.other.find(number))
        await self.opened("d", "tcp:2", "name:y", "udp:1", by=self.other)
        await self.one.close("a", first.place)
        await self.opened("e", "tcp:1", "name:x", by=self.other)

    def opened_(
        self, number: str, reserved: tuple[str, ...], place: Place
    ) -> Deferred[None]:
        record = TunnelRecord(number, place, reserved=reserved)
        asked: Deferred[None] = self.other.open(record, NO_LIMITS)
        return asked

    async def test_changed(self) -> None:
        """
        A tunnel's own member changes it; what it has no more is free, and what
        another one has it does not get.
        """
        record = await self.opened("a", "tcp:1", name="x")
        await self.opened("b", "tcp:3", uri="u:3", by=self.other)
        wanted = {"reserved": ("tcp:2",), "uri": "u:2", "name": "", "address": "z"}
        changed = await self.one.change("a", record.place, wanted)
        self.assertEqual(
            changed,
            TunnelRecord(
                "a", record.place, reserved=("tcp:2",), uri="u:2", address="z"
            ),
        )
        self.assertEqual(await self.other.find("u:2"), changed)
        await self.opened("c", "tcp:1", by=self.other)
        for fields, code in (
            ({"reserved": ("tcp:2", "tcp:3")}, "port-taken"),
            ({"uri": "u:3"}, "internal"),
            ({"place": Place("x")}, "internal"),
        ):
            await self.refused(code, self.one.change("a", record.place, fields))
        self.assertEqual(await self.one.find("a"), changed)
        await self.refused("unknown-tunnel", self.one.change("x", record.place, {}))
        strange = self.other.change("a", Place(self.other.member), {"uri": "u:9"})
        await self.refused("displaced", strange)

    async def test_closed(self) -> None:
        """Only a tunnel's own member closes it; twice is no error."""
        record = await self.opened("a", "tcp:1", uri="u:1")
        await self.other.close("a", Place(self.other.member))
        await self.other.close("nothing", Place(self.other.member))
        self.assertEqual(await self.one.find("a"), record)
        for _ in range(2):
            await self.one.close("a", record.place)
        for text in ("a", "u:1"):
            await self.refused("unknown-tunnel", self.other.find(text))
        self.assertIsNone(await self.other.holder("tcp:1"))

    async def test_openedTwice(self) -> None:
        """Who did not hear the answer asks again; that counts once."""
        record = TunnelRecord("a", Place(self.one.member), countedAs="ann")
        limits = TunnelLimits(perCaller=1)
        for _ in range(2):
            await self.one.open(record, limits)
        await self.one.close("a", record.place)
        await self.one.open(TunnelRecord("b", record.place, countedAs="ann"), limits)

    async def test_limits(self) -> None:
        """A caller, and a token, have so many tunnels at all members."""
        counted: Any
        for counted, limits, said in (
            ({"countedAs": "ann"}, TunnelLimits(perCaller=2), "max-tunnels-per-caller"),
            ({"token": "laptop"}, TunnelLimits(perToken=2), "this token allows 2"),
            ({"countedAs": "eve"}, TunnelLimits(total=2), "limit of 2 tunnels"),
        ):
            place = Place(self.one.member)
            records = [replace(TunnelRecord(x, place), **counted) for x in "abc"]
            for each in records[:2]:
                await self.one.open(each, limits)
            refusal = await self.refused(
                "limit-reached", self.one.open(records[2], limits)
            )
            self.assertIn(said, refusal.message)
            await self.one.open(TunnelRecord("d", place), limits)
            await self.one.close("a", place)
            await self.one.open(records[2], limits)
            for number in "bcd":
                await self.one.close(number, place)

    # Leases

    async def test_claimed(self) -> None:
        """
        A lease goes to another member with its tunnels, and its fence grows; who
        had it can change and end nothing any more.
        """
        place, _ = await self.leased()
        await self.one.away("lease", place, 60.0)
        claim = await self.other.claim("lease", FIRST, "ann")
        self.assertEqual(claim.previous, place)
        self.assertEqual(claim.place, Place(self.other.member, place.fence + 1))
        (moved,) = claim.records
        self.assertEqual(
            (moved.id, moved.reserved, moved.place), ("t", ("name:t",), claim.place)
        )
        self.assertEqual(await self.one.find("t"), moved)
        await self.one.close("t", place)
        await self.one.away("lease", place, 0.0)
        await self.refused("displaced", self.one.change("t", place, {"name": "y"}))
        late = TunnelRecord("late", place, "lease")
        await self.refused("displaced", self.one.open(late, NO_LIMITS))
        self.assertEqual(await self.one.find("t"), moved)
        again = await self.one.claim("lease", FIRST, "ann")
        self.assertEqual(again.place, Place(self.one.member, place.fence + 2))

    async def test_shown(self) -> None:
        """A fence is higher than any that the client has seen."""
        await self.one.grant("lease", FIRST, "ann")
        claim = await self.other.claim("lease", FIRST, "ann", 40)
        self.assertEqual(claim.place.fence, 41)
        self.assertEqual(claim.records, ())

    async def test_notClaimed(self) -> None:
        """Nothing is claimed without id, secret and owner together."""
        place, record = await self.leased()
        for lease, secret, owner in (
            ("lease", SECOND, "ann"),
            ("lease", "", "ann"),
            ("lease", FIRST, "bob"),
            ("other", FIRST, "ann"),
            ("", "", ""),
        ):
            self.assertIsNone(await self.other.claim(lease, secret, owner))
        self.assertEqual(await self.one.find("t"), record)
        await self.one.change("t", place, {"name": "y"})

    async def test_expired(self) -> None:
        """A lease that nobody comes back for is over, with its tunnels."""
        place, _ = await self.leased()
        changes = await self.watched()
        await self.one.away("lease", place, 0.05)
        await self.until("expired", changes)
        self.assertIn(Change("away", "lease", place), changes)
        self.assertIn(Change("expired", "lease", place), changes)
        self.assertIsNone(await self.other.claim("lease", FIRST, "ann"))
        await self.refused("unknown-tunnel", self.other.find("t"))
        await self.opened("new", "name:t", by=self.other)

    async def test_empty(self) -> None:
        """A lease that nobody has and that keeps no tunnel is over."""
        place = await self.one.grant("lease", FIRST, "ann")
        await self.one.away("lease", place, 60.0)
        self.assertIsNone(await self.one.claim("lease", FIRST, "ann"))
        place, _ = await self.leased()
        await self.one.away("lease", place, 60.0)
        await self.one.close("t", place)
        self.assertIsNone(await self.one.claim("lease", FIRST, "ann"))

    # Access

    async def test_access(self) -> None:
        """Access is used up at all members together, and stays taken back."""
        record = AccessRecord("a", "hash", "shop", uses=2, until=self.one.now() + 600)
        self.assertEqual(await self.one.putAccess(record, 9), record)
        self.assertEqual(await self.other.findAccess("a"), record)
        self.assertIsNone(await self.other.findAccess("b"))
        for book, used in ((self.one, 1), (self.other, 2)):
            self.assertEqual((await book.spend("a")).used, used)
        await self.refused("expired", self.one.spend("a"))
        # Somebody who has missed that says again what it knows.
        self.assertEqual((await self.other.putAccess(record, 9)).used, 2)
        await self.refused("expired", self.one.spend("a"))
        free = AccessRecord("b", "hash", "shop", until=record.until)
        await self.one.putAccess(free, 9)
        for _ in range(3):
            await self.other.spend("b")
        for access in ("b", "unknown"):
            await self.other.dropAccess(access)
            await self.refused("expired", self.one.spend(access))
        self.assertTrue((await self.one.putAccess(free, 9)).dropped)
        await self.refused("expired", self.one.spend("b"))

    async def test_accessLimit(self) -> None:
        """So much access is in force of one owner's."""
        until = self.one.now() + 600
        a, b, c = (AccessRecord(x, countedAs="ann", until=until) for x in "abc")
        for each in (a, b):
            await self.one.putAccess(each, 2)
        await self.refused("limit-reached", self.other.putAccess(c, 2))
        await self.one.putAccess(b, 2)
        await self.other.dropAccess("a")
        await self.other.putAccess(c, 2)

    async def test_accessListed(self) -> None:
        """Who comes later learns of all access, also of what is taken back."""
        until = self.one.now() + 600
        a, b = (AccessRecord(x, "hash", uses=3, until=until) for x in "ab")
        for each in (a, b):
            await self.one.putAccess(each, 9)
        await self.one.spend("a")
        await self.one.dropAccess("b")
        found = {each.id: each for each in await self.other.listAccess()}
        self.assertEqual(
            found, {"a": replace(a, used=1), "b": replace(b, dropped=True)}
        )

    # Tokens

    async def test_tokens(self) -> None:
        """The highest version of a token counts, and of two the first."""
        self.assertIsNone(await self.other.findToken("laptop"))
        first = TokenRecord("laptop", 2, "of the one")
        for record, kept in (
            (first, first),
            (TokenRecord("laptop", 2, "of the other"), first),
            (TokenRecord("laptop", 1, "older"), first),
            (first, first),
        ):
            self.assertEqual(await self.one.putToken(record), kept)
            self.assertEqual(await self.other.findToken("laptop"), kept)
        changes = await self.watched()
        news = TokenRecord("laptop", 3, 'revoked, "\u00fc"')
        self.assertEqual(await self.one.putToken(news), news)
        await self.until("token", changes)
        self.assertEqual(await self.other.tokens(), [news])

    # Watching

    async def test_watched(self) -> None:
        """Every member is told what any of them does, in that order."""
        changes = await self.watched()
        place, _ = await self.leased()
        await self.one.change("t", place, {"uri": "u"})
        claim = await self.other.claim("lease", FIRST, "ann")
        await self.other.close("t", claim.place)
        await self.until("closed", changes)
        self.assertEqual(
            [(each.kind, each.id) for each in changes if each.kind != "resynced"],
            [("opened", "t"), ("changed", "t"), ("claimed", "lease"), ("closed", "t")],
        )
