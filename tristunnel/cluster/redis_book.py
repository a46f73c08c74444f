"""The book of several machines, in Redis or Valkey."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.cluster.asking import VERSION, unlikeBook
from tristunnel.cluster.changes import Changes, runOf
from tristunnel.cluster.engine import ANSWER, Engine, engineAway
from tristunnel.cluster.granted import GrantedInRedis
from tristunnel.cluster.grouped import Grouped
from tristunnel.cluster.troubles import doubts
from tristunnel.errors import TunnelError
from tristunnel.model.book import IBook
from tristunnel.model.memory_book import checkFields
from tristunnel.model.record import Change, Claim, Place, TunnelLimits, TunnelRecord
from tristunnel.model.watchers import Watcher
from tristunnel.util.deferreds import Coalesced, returnsDeferred
from tristunnel.util.log_limiter import BoundedLog

__all__ = ["RedisBook", "Times", "membersIn", "otherVersion"]

_MOST_KNOWN = 1000


@dataclass(frozen=True)
class Times:
    """
    Intervals and time limits, in seconds.

    @ivar beat: Between two signs of life of a member.
    @ivar memberTTL: After its last sign of life, until a member counts as dead.
    @ivar grace: For which no tunnel is opened after an engine has come up anew: members
        say first what they have.
    @ivar lease: In which clients of a dead member may come back.
    @ivar answer: In which the engine must answer.
    """

    beat: float = 1.5
    memberTTL: float = 6.0
    grace: float = 3.0
    lease: float = 120.0
    answer: float = ANSWER


async def _nothing() -> None:
    """There is nothing to be said first."""


async def membersIn(engine: Engine, ttl: float = 0.0) -> dict[str, Any]:
    """
    Find the members of a cluster, with what they say of themselves.

    @param ttl: Seconds in which they must have given a sign of life; 0 for those whom
        nobody has found dead yet.
    @raise TunnelError: C{cluster-away}.
    """
    words = await engine.command("HGETALL", engine.key("members"))
    known = dict(zip(words[::2], words[1::2], strict=False))
    alive = list(known)
    if ttl:
        seconds, _ = await engine.command("TIME")
        since = int(seconds) * 1000 - int(ttl * 1000)
        alive = await engine.command(
            "ZRANGEBYSCORE", engine.key("beats"), since, "+inf"
        )
    return {name: json.loads(known[name]) for name in alive if name in known}


async def otherVersion(engine: Engine) -> str:
    """
    Find out whether members are there whose book is of another version.

    @return: A line that says so, or empty.
    @raise TunnelError: C{cluster-away}.
    """
    version = await engine.command("HGET", engine.key("epoch"), "version")
    if not version or version == str(VERSION):
        return ""
    isUsed = await engine.command("ZCARD", engine.key("beats"))
    return unlikeBook(version).message if isUsed else ""


@implementer(IBook)
class RedisBook(GrantedInRedis):
    """
    A book in an engine that several machines share.

    The engine need not store anything on disk: this member says again what it has
    whenever the engine may have lost it.

    @param reactor: Tells time.
    @param engine: For questions.
    @param reader: For hearing of changes; a connection of its own, since it waits.
    @param member: The name of this member.
    @param about: What others are told of it.
    @param times: Intervals and time limits.

    @ivar now: The time of day.
    @ivar sayFirst: Says, before anything else, who may come in.
    @ivar unlike: Called with the reason, again and again, while the engine has a book
        of another version.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self,
        reactor: IReactorTime,
        engine: Engine,
        reader: Engine,
        member: str,
        about: Mapping[str, object] | None = None,
        times: Times | None = None,
    ) -> None:
        self.times = times or Times()
        super().__init__(engine, member, self.times.grace)
        self.sayFirst: Callable[[], Awaitable[object]] = _nothing
        self._about = json.dumps(dict(about or {}))
        self._run = ""
        # What this member has, to be said again: tunnels, and leases with their
        # secrets and owners.
        self._tunnels: Grouped[TunnelRecord] = Grouped(lambda record: record.lease)
        self._leases: dict[str, tuple[str, str, Place]] = {}
        # Those that no session has here.
        self._away: set[str] = set()
        self._known: dict[str, Mapping[str, object]] = {}
        self._syncing = Coalesced(self._sayAll, self._notSaid)
        # Whether the engine knows all that is here.
        self._isSaid = False
        # Whether who may come in is known as all members know it.
        self._mayAdmit = False
        # Whether the log says that the book can be used.
        self._isTold = False
        self._stopped = False
        self._beats = LoopingCall(self._tick)
        self._beats.clock = reactor
        self._changes = Changes(reactor, reader)
        engine.whenUp, self._changes.missed = self._up, self._resync
        engine.whenTroubled = self._troubled
        self.unlike: Callable[[TunnelError], object] = self.cannotBeUsed
        self._told = BoundedLog(reactor.seconds)

    def start(self) -> None:
        """Connect, and be a member."""
        self._engine.start()
        self._changes.start()
        self._beats.start(self.times.beat, False)

    @returnsDeferred
    async def stop(self) -> None:
        self._stopped = True
        if self._beats.running:
            self._beats.stop()
        await self._changes.stop()
        await self._engine.stop()

    # Being a member

    def tellOf(self, about: Mapping[str, object]) -> None:
        """Change what others are told of this member, as soon as possible."""
        self._about = json.dumps(dict(about))
        if self._isSaid:
            self._tick()

    @returnsDeferred
    async def _tick(self) -> None:
        if self._engine.isReplica:
            # By now the Sentinels may know which engine is the primary one.
            self._engine.drop()
            return
        if not self._isSaid and self._engine.isUp:
            # The engine has not taken what is here: it was starting, for example.
            if self._syncing.isDone:
                self._resync()
            return
        try:
            await self._beatNow()
        except TunnelError:
            # The connection is lost; the rest is said when there is another one.
            if self._isSaid and not self._stopped:
                self._isSaid = False
                self._log.warn(
                    "The cluster's book does not answer: what is open goes on, and"
                    " nothing new is opened"
                )
        except Exception:
            self._log.failure("The cluster's book failed")

    def cannotBeUsed(self, reason: TunnelError) -> None:
        """
        Log why the book cannot be used, once as long as the reason stays the same.
        """
        self._engine.troubled(reason.message)

    def _troubled(self, why: str) -> None:
        self._told(self._log.error, "The cluster's book cannot be used: {why}", why=why)

    async def _beatNow(self) -> None:
        await self._ask(
            "beat",
            self.member,
            self._about,
            self._run,
            int(self.times.memberTTL * 1000),
            int(self.times.lease * 1000),
            VERSION,
        )

    def _up(self) -> None:
        self._isTold = False
        self._resync()

    def _resync(self) -> None:
        """
        Tell the engine again what this member has, and learn what others have taken
        over.
        """
        self._isSaid = self._mayAdmit = False
        self._syncing.ask()

    def _notSaid(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, TunnelError):
            self._log.failure("The cluster's book does not know all of this", failure)
        elif error.code.name == "protocol-error":
            self.unlike(error)
        elif error.code.name != "cluster-away":
            self.cannotBeUsed(error)

    async def _sayAll(self) -> None:
        self._isSaid = self._mayAdmit = False
        info = str(await self._engine.command("INFO", "server"))
        self._run = runOf(info)
        self._changes.follow(self._run)
        info += str(await self._engine.command("INFO", "memory"))
        for doubt in doubts(info):
            risk = "The cluster's book is at risk: {doubt}"
            self._told(self._log.warn, risk, doubt=doubt)
        await self._beatNow()
        await self.sayFirst()
        self._mayAdmit = True
        await self.sayGranted()
        await self.sayOwed()
        for lease, (secret, owner, place) in list(self._leases.items()):
            await self._sayLease(lease, secret, owner, place)
        for record in list(self._tunnels.values()):
            if not record.lease or record.lease in self._leases:
                await self._sayTunnel(record)
        self._isSaid = True
        self._engine.isWell()
        if not self._isTold:
            self._isTold = True
            self._log.info("The cluster's book is there")
        self._changes.tell(Change("resynced"))

    async def _sayLease(
        self, lease: str, secret: str, owner: str, place: Place
    ) -> None:
        fields = (lease, secret, owner, place.member, place.fence)
        answer = await self._engine.run("grant", *fields)
        if answer[0] == "refused":
            member, _, fence = answer[2].partition("\0")
            self._lostLease(lease, Place(member, int(fence)))

    def _lostLease(self, lease: str, place: Place) -> None:
        self._forgetLease(lease)
        self._changes.tell(Change("claimed", lease, place))

    def _hasStill(self, change: Change) -> bool:
        """Whether something is over in the book that this member has not given up."""
        if change.kind == "closed":
            record = self._tunnels.get(change.id)
            return record is not None and record.place == change.place
        lease = self._leases.get(change.id)
        return (
            change.kind == "expired"
            and lease is not None
            and lease[2] == change.place
            and change.id not in self._away
        )

    def _forgetLease(self, lease: str) -> None:
        self._leases.pop(lease, None)
        self._away.discard(lease)
        for tunnel in self._tunnels.of(lease):
            del self._tunnels[tunnel]

    async def _sayTunnel(self, record: TunnelRecord) -> None:
        try:
            await self._write("assert", record, TunnelLimits())
        except TunnelError as error:
            if error.code.name == "cluster-away":
                raise
            # Somebody else has its port or its name now.
            self._tunnels.pop(record.id, None)
            self._changes.tell(Change("closed", record.id, record.place))

    # Leases

    @returnsDeferred
    async def grant(self, lease: str, secretHash: str, owner: str) -> Place:
        if not self._mayAdmit:
            raise engineAway()
        place = Place(self.member, 1)
        await self._ask("grant", lease, secretHash, owner, self.member, 1)
        self._leases[lease] = secretHash, owner, place
        return place

    @returnsDeferred
    async def claim(
        self, lease: str, secretHash: str, owner: str, shown: int = 0
    ) -> Claim | None:
        try:
            if not self._mayAdmit:
                raise engineAway()
            fields = (lease, secretHash, owner, shown, self.member, self._grace)
            answer = await self._ask("claim", *fields)
        except TunnelError:
            return self._claimHere(lease, secretHash, owner, shown)
        if answer[0] != "done":
            return None
        _, fence, member, before, *texts = answer
        place = Place(self.member, int(fence))
        records = tuple(
            replace(TunnelRecord.fromDict(json.loads(text)), place=place)
            for text in texts
        )
        self._leases[lease] = secretHash, owner, place
        self._owed.pop(f"lease {lease}", None)
        self._away.discard(lease)
        for record in records:
            if record.id in self._tunnels or member == self.member:
                self._tunnels[record.id] = record
        return Claim(place, Place(member, int(before)), records)

    def _claimHere(self, lease: str, secretHash: str, owner: str, shown: int) -> Claim:
        """
        While the engine is away, a lease that this member has can be claimed here.

        @raise TunnelError: C{cluster-away}.
        """
        secret, whose, previous = self._leases.get(lease, ("", "", Place()))
        if not secret or (secret, whose) != (secretHash, owner):
            raise engineAway()
        place = Place(self.member, max(previous.fence, shown) + 1)
        self._leases[lease] = secret, whose, place
        self._owed.pop(f"lease {lease}", None)
        self._away.discard(lease)
        records = []
        for tunnel in self._tunnels.of(lease):
            self._tunnels[tunnel] = replace(self._tunnels[tunnel], place=place)
            records.append(self._tunnels[tunnel])
        return Claim(place, previous, tuple(records))

    @returnsDeferred
    async def away(self, lease: str, place: Place, seconds: float) -> None:
        if not self._tunnels.of(lease):
            self._leases.pop(lease, None)
        else:
            self._away.add(lease)
        fields = (lease, place.member, place.fence, int(seconds * 1000))
        await self._say(f"lease {lease}", "away", *fields)

    # Tunnels

    @returnsDeferred
    async def open(self, record: TunnelRecord, limits: TunnelLimits) -> None:
        if not self._isSaid:
            # Also to a book of another version nothing is added.
            raise engineAway()
        await self._write("open", record, limits)
        # What was opened before stays as it was.
        self._tunnels.setdefault(record.id, record)

    def _write(
        self, mode: str, record: TunnelRecord, limits: TunnelLimits
    ) -> Deferred[list[Any]]:
        return self._ask(
            "write",
            mode,
            record.id,
            json.dumps(record.asDict()),
            record.place.member,
            record.place.fence,
            record.lease,
            record.countedAs,
            record.token,
            limits.perCaller,
            limits.perToken,
            self._grace,
            limits.total,
        )

    @returnsDeferred
    async def change(
        self, tunnel: str, place: Place, fields: Mapping[str, object]
    ) -> TunnelRecord:
        checkFields(fields)
        known = self._tunnels.get(tunnel)
        if known is None:
            known = await self.find(tunnel)
        if known.place != place:
            raise TunnelError("displaced")
        record = known.changed(fields)
        await self._write("change", record, TunnelLimits())
        self._tunnels[tunnel] = record
        return record

    @returnsDeferred
    async def close(self, tunnel: str, place: Place) -> None:
        known = self._tunnels.get(tunnel)
        if known is not None and known.place == place:
            del self._tunnels[tunnel]
        await self._say(f"tunnel {tunnel}", "close", tunnel, place.member, place.fence)

    @returnsDeferred
    async def find(self, tunnel: str) -> TunnelRecord:
        found = await self._find("uri", tunnel.partition("#")[0])
        if found is None:
            raise TunnelError("unknown-tunnel")
        return found

    def holder(self, reserved: str) -> Deferred[TunnelRecord | None]:
        return self._find("reserved", reserved)

    @returnsDeferred
    async def _find(self, kind: str, what: str) -> TunnelRecord | None:
        answer = await self._ask("find", kind, what)
        if answer[0] != "done":
            return None
        _, text, member, fence = answer
        record = TunnelRecord.fromDict(json.loads(text))
        return replace(record, place=Place(member, int(fence)))

    @returnsDeferred
    async def snapshot(self) -> list[TunnelRecord]:
        return [
            replace(
                TunnelRecord.fromDict(json.loads(text)), place=Place(member, int(fence))
            )
            for text, member, fence in await self._ask("all")
        ]

    @returnsDeferred
    async def about(self, member: str) -> Mapping[str, object]:
        """
        What a member says of itself. Once known, that needs no engine: a member that
        starts anew has another name.

        @raise TunnelError: C{client-away}, if there is no such member.
        """
        if member not in self._known:
            key = self._engine.key("members")
            text = await self._engine.command("HGET", key, member)
            if not text:
                raise TunnelError("client-away", "the tunnel's server has left")
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[member] = json.loads(text)
        return self._known[member]

    @returnsDeferred
    async def members(self) -> dict[str, Mapping[str, object]]:
        """
        All members, with what they say of themselves.

        @raise TunnelError: C{cluster-away}.
        """
        return await membersIn(self._engine)

    # Watching

    def watch(self, changed: Watcher) -> Deferred[Callable[[], None]]:
        return self._changes.watch(self._noting(changed))

    def _noting(self, changed: Watcher) -> Watcher:
        def noted(change: Change) -> None:
            """Keep in mind what this member has no longer."""
            if self._hasStill(change):
                # The others took it for dead. What nobody else has by now it keeps.
                self._resync()
                return
            lease = self._leases.get(change.id)
            if lease is not None and change.place.fence >= lease[2].fence:
                expired = change.kind == "expired"
                elsewhere = change.place.member != self.member
                if expired or (change.kind == "claimed" and elsewhere):
                    self._forgetLease(change.id)
            changed(change)

        return noted
