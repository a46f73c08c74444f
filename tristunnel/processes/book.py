"""
The book of a machine's members: it is the parent's, and each member asks it there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from tristunnel.model.book import IBook
from tristunnel.model.memory_book import checkFields
from tristunnel.model.record import (
    AccessRecord,
    Change,
    Claim,
    Place,
    TokenRecord,
    TunnelLimits,
    TunnelRecord,
)
from tristunnel.model.watchers import Watcher, Watchers
from tristunnel.processes.link import Asker, Link
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["ParentsBook", "answering"]

_PREFIX = "book."


def answering(book: Any) -> dict[str, Callable[..., object]]:
    """
    Make the methods by which a member asks a book.

    @param book: An L{IBook}, as that member uses it.
    """
    answers = _Answers(book)
    return {
        _PREFIX + name: getattr(answers, name)
        for name in vars(_Answers)
        if not name.startswith("_")
    }


class _Answers:
    """The methods of a book, with text and numbers for records."""

    def __init__(self, book: Any) -> None:
        self._book = book

    @returnsDeferred
    async def grant(self, asker: Asker, *given: str) -> object:
        return (await self._book.grant(*given)).asDict()

    @returnsDeferred
    async def claim(self, asker: Asker, *given: Any) -> object:
        claim = await self._book.claim(*given)
        return None if claim is None else claim.asDict()

    def away(self, asker: Asker, lease: str, place: Any, seconds: float) -> object:
        return self._book.away(lease, Place.fromDict(place), seconds)

    def open(self, asker: Asker, record: Any, limits: Any) -> object:
        return self._book.open(
            TunnelRecord.fromDict(record), TunnelLimits.fromDict(limits)
        )

    @returnsDeferred
    async def change(
        self, asker: Asker, tunnel: str, place: Any, fields: Any
    ) -> object:
        read = vars(TunnelRecord.fromDict(fields))
        known = {name: read[name] for name in fields if name in read}
        changed = await self._book.change(tunnel, Place.fromDict(place), known)
        return changed.asDict()

    def close(self, asker: Asker, tunnel: str, place: Any) -> object:
        return self._book.close(tunnel, Place.fromDict(place))

    @returnsDeferred
    async def find(self, asker: Asker, tunnel: str) -> object:
        return (await self._book.find(tunnel)).asDict()

    @returnsDeferred
    async def snapshot(self, asker: Asker) -> object:
        return [record.asDict() for record in await self._book.snapshot()]

    @returnsDeferred
    async def holder(self, asker: Asker, reserved: str) -> object:
        record = await self._book.holder(reserved)
        return None if record is None else record.asDict()

    @returnsDeferred
    async def putAccess(self, asker: Asker, record: Any, most: int) -> object:
        put = await self._book.putAccess(AccessRecord.fromDict(record), most)
        return put.asDict()

    @returnsDeferred
    async def spend(self, asker: Asker, access: str) -> object:
        return (await self._book.spend(access)).asDict()

    @returnsDeferred
    async def findAccess(self, asker: Asker, access: str) -> object:
        record = await self._book.findAccess(access)
        return None if record is None else record.asDict()

    def dropAccess(self, asker: Asker, access: str) -> object:
        return self._book.dropAccess(access)

    @returnsDeferred
    async def listAccess(self, asker: Asker) -> object:
        return [each.asDict() for each in await self._book.listAccess()]

    @returnsDeferred
    async def putToken(self, asker: Asker, record: Any) -> object:
        return (await self._book.putToken(TokenRecord.fromDict(record))).asDict()

    @returnsDeferred
    async def findToken(self, asker: Asker, name: str) -> object:
        record = await self._book.findToken(name)
        return None if record is None else record.asDict()

    @returnsDeferred
    async def tokens(self, asker: Asker) -> object:
        return [each.asDict() for each in await self._book.tokens()]


@implementer(IBook)
class ParentsBook:
    """
    The parent's book, as a member uses it.

    @param parent: The way to the parent.
    @param member: The name of this member.

    @ivar now: The time of day.
    """

    def __init__(self, parent: Link, member: str) -> None:
        self.member = member
        self.now = time.time
        self._parent = parent
        self._watchers = Watchers()

    def _ask(self, method: str, *params: object) -> Deferred[Any]:
        return self._parent.call(_PREFIX + method, params)

    def changed(self, change: Mapping[str, Any]) -> None:
        """Take a change in the book from the parent."""
        self._watchers.tell(Change.fromDict(change))

    @returnsDeferred
    async def grant(self, lease: str, secretHash: str, owner: str) -> Place:
        return Place.fromDict(await self._ask("grant", lease, secretHash, owner))

    @returnsDeferred
    async def claim(
        self, lease: str, secretHash: str, owner: str, shown: int = 0
    ) -> Claim | None:
        claim = await self._ask("claim", lease, secretHash, owner, shown)
        return None if claim is None else Claim.fromDict(claim)

    def away(self, lease: str, place: Place, seconds: float) -> Deferred[None]:
        return self._ask("away", lease, place.asDict(), seconds)

    def open(self, record: TunnelRecord, limits: TunnelLimits) -> Deferred[None]:
        return self._ask("open", record.asDict(), limits.asDict())

    @returnsDeferred
    async def change(
        self, tunnel: str, place: Place, fields: Mapping[str, object]
    ) -> TunnelRecord:
        checkFields(fields)
        changed = await self._ask("change", tunnel, place.asDict(), dict(fields))
        return TunnelRecord.fromDict(changed)

    def close(self, tunnel: str, place: Place) -> Deferred[None]:
        return self._ask("close", tunnel, place.asDict())

    @returnsDeferred
    async def find(self, tunnel: str) -> TunnelRecord:
        return TunnelRecord.fromDict(await self._ask("find", tunnel))

    @returnsDeferred
    async def snapshot(self) -> list[TunnelRecord]:
        return [TunnelRecord.fromDict(each) for each in await self._ask("snapshot")]

    @returnsDeferred
    async def holder(self, reserved: str) -> TunnelRecord | None:
        record = await self._ask("holder", reserved)
        return None if record is None else TunnelRecord.fromDict(record)

    @returnsDeferred
    async def putAccess(self, record: AccessRecord, most: int) -> AccessRecord:
        return AccessRecord.fromDict(
            await self._ask("putAccess", record.asDict(), most)
        )

    @returnsDeferred
    async def spend(self, access: str) -> AccessRecord:
        return AccessRecord.fromDict(await self._ask("spend", access))

    @returnsDeferred
    async def findAccess(self, access: str) -> AccessRecord | None:
        record = await self._ask("findAccess", access)
        return None if record is None else AccessRecord.fromDict(record)

    def dropAccess(self, access: str) -> Deferred[None]:
        return self._ask("dropAccess", access)

    @returnsDeferred
    async def listAccess(self) -> list[AccessRecord]:
        return [AccessRecord.fromDict(each) for each in await self._ask("listAccess")]

    @returnsDeferred
    async def putToken(self, record: TokenRecord) -> TokenRecord:
        return TokenRecord.fromDict(await self._ask("putToken", record.asDict()))

    @returnsDeferred
    async def findToken(self, name: str) -> TokenRecord | None:
        record = await self._ask("findToken", name)
        return None if record is None else TokenRecord.fromDict(record)

    @returnsDeferred
    async def tokens(self) -> list[TokenRecord]:
        return [TokenRecord.fromDict(each) for each in await self._ask("tokens")]

    def watch(self, changed: Watcher) -> Deferred[Callable[[], None]]:
        return succeed(self._watchers.add(changed))

    def stop(self) -> Deferred[None]:
        self._watchers.clear()
        return succeed(None)
