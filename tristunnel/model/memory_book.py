"""The book of a server that is one process, or of the members of one machine."""

from __future__ import annotations

import hmac
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from tristunnel.errors import TunnelError
from tristunnel.model.book import IBook
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
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.repeating import stopTimer

__all__ = ["MOST_ACCESS", "MemoryBook", "checkFields", "limitReached", "taken"]

MOST_ACCESS = 100_000
"""Grants of access in all."""

_FIXED = {"id", "place", "lease", "countedAs", "token"}


def taken(reserved: str) -> TunnelError:
    """Make the refusal of something that is reserved already."""
    kind, _, what = reserved.partition(":")
    if kind == "name":
        return TunnelError(
            "name-taken", f"the name {what!r} is already in use; choose another"
        )
    if not what.isdecimal():
        return TunnelError(
            "name-taken", f"the name {what} is already in use; choose another"
        )
    port = f"{'UDP ' * (kind == 'udp')}port {what}"
    return TunnelError(
        "port-taken", f"{port} is in use on the server; choose another, or 0 for any"
    )


def limitReached(kind: str, most: int) -> TunnelError:
    """
    Make the refusal of something of which there is the maximum already.

    @param kind: C{caller}, C{token}, C{total} or C{access}.
    """
    return TunnelError(
        "limit-reached",
        {
            "caller": f"a caller may have {most} tunnels; close one, or"
            " raise the server's --max-tunnels-per-caller",
            "total": f"this server has reached its limit of {most} tunnels; try again"
            " later, or raise its --max-tunnels",
            "token": f"this token allows {most} tunnels at once; close one",
            "access": f"{most} of your grants are in force; revoke some"
            " (revokeAccess), or grant access for less time",
        }[kind],
    )


def checkFields(fields: Mapping[str, object]) -> None:
    """@raise TunnelError: C{internal}, for what must not be changed."""
    wrong = _FIXED.intersection(fields)
    if wrong:
        raise TunnelError("internal", f"{', '.join(sorted(wrong))} cannot be changed")


@dataclass(eq=False)
class _Lease:
    """
    A lease.

    @ivar tunnels: What it keeps open, oldest first.
    @ivar expiry: Ends it, while nobody has it.
    """

    id: str
    secretHash: str
    owner: str
    place: Place
    tunnels: dict[str, None] = field(default_factory=dict)
    expiry: IDelayedCall | None = None

    def stopExpiry(self) -> None:
        stopTimer(self.expiry)
        self.expiry = None


@dataclass(eq=False)
class _Pages:
    """The contents of the book, which the members of a machine share."""

    leases: dict[str, _Lease] = field(default_factory=dict)
    tunnels: dict[str, TunnelRecord] = field(default_factory=dict)
    byURI: dict[str, str] = field(default_factory=dict)
    reserved: dict[str, str] = field(default_factory=dict)
    counted: int = 0
    callers: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    access: dict[str, AccessRecord] = field(default_factory=dict)
    granted: Counter[str] = field(default_factory=Counter)
    over: dict[str, IDelayedCall] = field(default_factory=dict)
    named: dict[str, TokenRecord] = field(default_factory=dict)
    watchers: Watchers = field(default_factory=Watchers)


@implementer(IBook)
class MemoryBook:
    """
    A book in memory, which answers at once.

    @param reactor: Tells time.
    @param member: The name of the member that uses it.
    @param pages: The contents, shared with the books of other members.
    """

    def __init__(
        self, reactor: IReactorTime, member: str = "", pages: _Pages | None = None
    ) -> None:
        self.member = member
        self.now = time.time
        self._reactor = reactor
        self._pages = _Pages() if pages is None else pages

    def ofMember(self, member: str) -> MemoryBook:
        """The same book, as another member uses it."""
        book = MemoryBook(self._reactor, member, self._pages)
        book.now = self.now
        return book

    def _tell(self, kind: str, identifier: str, place: Place) -> None:
        self._pages.watchers.tell(Change(kind, identifier, place))

    # Leases

    @returnsDeferred
    async def grant(self, lease: str, secretHash: str, owner: str) -> Place:
        place = Place(self.member, 1)
        self._pages.leases[lease] = _Lease(lease, secretHash, owner, place)
        return place

    @returnsDeferred
    async def claim(
        self, lease: str, secretHash: str, owner: str, shown: int = 0
    ) -> Claim | None:
        known = self._pages.leases.get(lease)
        kept = "" if known is None else known.secretHash
        isRight = hmac.compare_digest(secretHash.encode(), kept.encode())
        if known is None or not isRight or known.owner != owner:
            return None
        previous = known.place
        known.stopExpiry()
        known.place = Place(self.member, max(previous.fence, shown) + 1)
        tunnels = self._pages.tunnels
        for each in known.tunnels:
            tunnels[each] = replace(tunnels[each], place=known.place)
        self._tell("claimed", lease, known.place)
        records = tuple(tunnels[each] for each in known.tunnels)
        return Claim(known.place, previous, records)

    @returnsDeferred
    async def away(self, lease: str, place: Place, seconds: float) -> None:
        known = self._pages.leases.get(lease)
        if known is not None and known.place == place and known.expiry is None:
            self._away(known, seconds)

    def _away(self, lease: _Lease, seconds: float) -> None:
        if not lease.tunnels:
            del self._pages.leases[lease.id]
            return
        lease.expiry = self._reactor.callLater(seconds, self._expire, lease)
        self._tell("away", lease.id, lease.place)

    def _expire(self, lease: _Lease) -> None:
        lease.expiry = None
        self._pages.leases.pop(lease.id, None)
        for each in list(lease.tunnels):
            self._forget(self._pages.tunnels[each])
        self._tell("expired", lease.id, lease.place)

    # Tunnels

    @returnsDeferred
    async def open(self, record: TunnelRecord, limits: TunnelLimits) -> None:
        pages = self._pages
        self._checkPlace(record)
        known = pages.tunnels.get(record.id)
        if known is not None:
            if known.place != record.place:
                raise TunnelError("displaced")
            return
        if record.countedAs and 0 < limits.total <= pages.counted:
            raise limitReached("total", limits.total)
        if 0 < limits.perToken <= pages.tokens[record.token] and record.token:
            raise limitReached("token", limits.perToken)
        if 0 < limits.perCaller <= pages.callers[record.countedAs]:
            raise limitReached("caller", limits.perCaller)
        self._reserve(record)
        pages.counted += bool(record.countedAs)
        pages.callers[record.countedAs] += 1
        pages.tokens[record.token] += 1
        if record.lease:
            pages.leases[record.lease].tunnels[record.id] = None
        self._tell("opened", record.id, record.place)

    def _checkPlace(self, record: TunnelRecord) -> None:
        if record.lease:
            lease = self._pages.leases.get(record.lease)
            if lease is None or lease.place != record.place:
                raise TunnelError("displaced")

    def _reserve(self, record: TunnelRecord) -> None:
        """
        Enter a tunnel.

        @raise TunnelError: If another tunnel has something that it wants; then nothing
            has changed.
        """
        pages, mine = self._pages, (None, record.id)
        for each in record.reserved:
            if pages.reserved.get(each) not in mine:
                raise taken(each)
        if record.uri and pages.byURI.get(record.uri) not in mine:
            raise TunnelError("internal", "another tunnel has the same URI")
        self._release(record.id)
        pages.tunnels[record.id] = record
        pages.reserved.update(dict.fromkeys(record.reserved, record.id))
        if record.uri:
            pages.byURI[record.uri] = record.id

    def _release(self, tunnel: str) -> None:
        known = self._pages.tunnels.get(tunnel)
        if known is not None:
            self._pages.byURI.pop(known.uri, None)
            for each in known.reserved:
                self._pages.reserved.pop(each, None)

    @returnsDeferred
    async def change(
        self, tunnel: str, place: Place, fields: Mapping[str, object]
    ) -> TunnelRecord:
        checkFields(fields)
        known = self._pages.tunnels.get(tunnel)
        if known is None:
            raise TunnelError("unknown-tunnel")
        if known.place != place:
            raise TunnelError("displaced")
        record = known.changed(fields)
        self._reserve(record)
        self._tell("changed", tunnel, place)
        return record

    @returnsDeferred
    async def close(self, tunnel: str, place: Place) -> None:
        known = self._pages.tunnels.get(tunnel)
        if known is None or known.place != place:
            return
        self._forget(known)
        lease = self._pages.leases.get(known.lease)
        if lease is not None and lease.expiry is not None and not lease.tunnels:
            lease.stopExpiry()
            del self._pages.leases[lease.id]
        self._tell("closed", tunnel, place)

    def _forget(self, record: TunnelRecord) -> None:
        pages = self._pages
        self._release(record.id)
        del pages.tunnels[record.id]
        pages.counted -= bool(record.countedAs)
        _uncount(pages.callers, record.countedAs)
        _uncount(pages.tokens, record.token)
        lease = pages.leases.get(record.lease)
        if lease is not None:
            lease.tunnels.pop(record.id, None)

    @returnsDeferred
    async def find(self, tunnel: str) -> TunnelRecord:
        pages = self._pages
        record = pages.tunnels.get(pages.byURI.get(tunnel.partition("#")[0], tunnel))
        if record is None:
            raise TunnelError("unknown-tunnel")
        return record

    @returnsDeferred
    async def snapshot(self) -> list[TunnelRecord]:
        return list(self._pages.tunnels.values())

    @returnsDeferred
    async def holder(self, reserved: str) -> TunnelRecord | None:
        return self._pages.tunnels.get(self._pages.reserved.get(reserved, ""))

    # Access

    @returnsDeferred
    async def putAccess(self, record: AccessRecord, most: int) -> AccessRecord:
        pages = self._pages
        known = pages.access.get(record.id)
        if known is not None:
            record = replace(
                record,
                used=max(known.used, record.used),
                dropped=known.dropped or record.dropped,
            )
        elif len(pages.access) >= MOST_ACCESS:
            raise TunnelError(
                "limit-reached", f"{MOST_ACCESS} grants of access are active"
            )
        elif not record.dropped and pages.granted[record.countedAs] >= most:
            raise limitReached("access", most)
        left = record.until - self.now()
        if known is None and left > 0:
            forget = self._reactor.callLater(left, self._forgetAccess, record.id)
            pages.over[record.id] = forget
        if left > 0:
            self._putAccess(record)
        return record

    def _putAccess(self, record: AccessRecord) -> None:
        pages = self._pages
        known = pages.access.get(record.id)
        if known is not None and not known.dropped:
            _uncount(pages.granted, known.countedAs)
        pages.access[record.id] = record
        if not record.dropped:
            pages.granted[record.countedAs] += 1
        self._tell("access", record.id, Place(self.member))

    def _forgetAccess(self, access: str) -> None:
        del self._pages.over[access]
        known = self._pages.access.pop(access)
        if not known.dropped:
            _uncount(self._pages.granted, known.countedAs)

    @returnsDeferred
    async def spend(self, access: str) -> AccessRecord:
        known = self._pages.access.get(access)
        if known is None or known.dropped or 0 < known.uses <= known.used:
            raise TunnelError("expired")
        spent = replace(known, used=known.used + 1)
        self._putAccess(spent)
        return spent

    @returnsDeferred
    async def findAccess(self, access: str) -> AccessRecord | None:
        return self._pages.access.get(access)

    @returnsDeferred
    async def dropAccess(self, access: str) -> None:
        known = self._pages.access.get(access)
        if known is not None and not known.dropped:
            self._putAccess(replace(known, dropped=True))

    @returnsDeferred
    async def listAccess(self) -> list[AccessRecord]:
        return list(self._pages.access.values())

    # Tokens

    @returnsDeferred
    async def putToken(self, record: TokenRecord) -> TokenRecord:
        known = self._pages.named.get(record.name)
        if known is not None and known.version >= record.version:
            return known
        self._pages.named[record.name] = record
        self._tell("token", record.name, Place(self.member))
        return record

    @returnsDeferred
    async def findToken(self, name: str) -> TokenRecord | None:
        return self._pages.named.get(name)

    @returnsDeferred
    async def tokens(self) -> list[TokenRecord]:
        return list(self._pages.named.values())

    # Members

    def watch(self, changed: Watcher) -> Deferred[Callable[[], None]]:
        return succeed(self._pages.watchers.add(changed))

    def memberLost(self, member: str, seconds: float) -> None:
        """
        Clean up after a member that has died: its leases wait for their clients, and
        its other tunnels are over.

        @param seconds: For how long.
        """
        pages = self._pages
        for record in list(pages.tunnels.values()):
            if record.place.member == member and not record.lease:
                self._forget(record)
                self._tell("closed", record.id, record.place)
        for lease in list(pages.leases.values()):
            if lease.place.member == member and lease.expiry is None:
                self._away(lease, seconds)

    def stop(self) -> Deferred[None]:
        return self._stop(self._pages.over.values())

    @returnsDeferred
    async def _stop(self, timers: Iterable[IDelayedCall]) -> None:
        for lease in self._pages.leases.values():
            lease.stopExpiry()
        for timer in timers:
            stopTimer(timer)
        self._pages.over.clear()


def _uncount(counts: Counter[str], whose: str) -> None:
    counts[whose] -= 1
    if counts[whose] <= 0:
        del counts[whose]
