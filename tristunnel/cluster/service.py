"""What makes a server a member of a cluster."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from zlib import crc32

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.auth.tokens import TokenFile
from tristunnel.cluster.address import EngineAddress
from tristunnel.cluster.changes import BLOCK
from tristunnel.cluster.entries import Entries
from tristunnel.cluster.leading import Ways
from tristunnel.cluster.links import MemberLinks
from tristunnel.cluster.members import Members
from tristunnel.cluster.redis_book import RedisBook, Times
from tristunnel.cluster.relay import VERSION, RelayFactory, RelayWays
from tristunnel.cluster.siblings import SiblingWays
from tristunnel.cluster.tokens import SharedTokens
from tristunnel.errors import TunnelError
from tristunnel.model.record import Change, TunnelRecord
from tristunnel.processes.membership import Membership
from tristunnel.processes.ports import VisitorsPorts
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.util.endpoints import cannotListen
from tristunnel.util.hosts import hostAndPort
from tristunnel.util.process import Drain

__all__ = ["KNOWING", "PORTS", "ClusterService", "ClusterSettings"]

KNOWING = 3.0
"""Seconds for which a server waits for the book before it listens; without the book, it
serves its own tunnels."""

PORTS = ("tcp", "tls", "udp")
"""Listeners whose ports every machine opens."""


class _BothWays:
    """
    The ways to processes of this machine, and to other machines.

    @param near: The former.
    @param far: The latter.
    """

    def __init__(self, near: SiblingWays, far: Ways) -> None:
        self._near = near
        self._far = far

    async def wayTo(self, record: TunnelRecord, visitor: str, host: str) -> Any:
        isNear = self._near.indexOf(record.place.member) is not None
        ways: Ways = self._near if isNear else self._far
        return await ways.wayTo(record, visitor, host)


@dataclass(frozen=True)
class ClusterSettings:
    """
    What a server was told of its cluster.

    @ivar engine: Where the book is.
    @ivar listen: Where the other members connect.
    @ivar description: The same as it was written.
    @ivar advertise: How they reach that.
    @ivar secret: What all members know.
    @ivar times: Intervals and time limits.
    @ivar hold: Seconds that a visitor waits for a tunnel whose client has moved.
    @ivar all: Whether visitors of all tunnels may come in here.
    """

    engine: EngineAddress
    listen: IStreamServerEndpoint
    description: str
    advertise: str
    secret: bytes = field(repr=False)
    times: Times
    hold: float
    all: bool


class ClusterService(Service):
    """
    A member of a cluster.

    @param reactor: Tells time, and connects.
    @param settings: What it was told.
    @param grace: Seconds that visitors of others get to finish when it stops.
    @param membership: The other processes of this machine, each of which is a member,
        too; or C{None}.

    @ivar book: The book.
    @ivar members: All members.
    @ivar knowing: Fires when L{serve} says.
    @ivar moving: Waits until clients have gone elsewhere, when it stops.
    @ivar failed: Called with the reason if it cannot be a member: the others cannot
        reach it, or the book that it finds when it begins is of another version.
    """

    _log = Logger(namespace="tristunnel.server")

    knowing: Deferred[None]

    def __init__(
        self,
        reactor: Any,
        settings: ClusterSettings,
        grace: float,
        membership: Membership | None = None,
    ) -> None:
        self._membership = membership
        # Whoever has the same is a process of the same machine.
        self._machine = secrets.token_hex(4)
        name = self._machine
        if membership is not None:
            self._machine = sha256(membership.key.encode()).hexdigest()[:8]
            name = f"{self._machine}-{membership.index}-{secrets.token_hex(2)}"
        self.settings = settings
        self._reactor = reactor
        self._grace = grace
        engine = settings.engine

        answer = settings.times.answer
        self.book = RedisBook(
            reactor,
            engine.connection(reactor, answer),
            engine.connection(reactor, BLOCK + answer),
            name,
            {"address": settings.advertise, "version": VERSION},
            settings.times,
        )
        about = {"address": settings.advertise, "version": VERSION}
        self._links = MemberLinks(
            reactor,
            self.book.member,
            settings.secret,
            lambda advertised: clientFromString(reactor, advertised),
        )
        self.members = Members(reactor, self.book, self._links, about)
        self.moving: Callable[[], Deferred[None]] = lambda: succeed(None)
        self.failed: Callable[[TunnelError], object] = lambda reason: None
        self._entries: Entries | None = None
        self._listening: IListeningPort | None = None
        self._tunnels: TunnelService | None = None

    def serve(self, tunnels: TunnelService) -> Deferred[None]:
        """
        Share a service's tunnels with the other members.

        @return: Fires when visitors may come in here, because the names of the other
            members are known.
        """
        self._tunnels = tunnels
        settings = self.settings
        ways = RelayWays(
            self._reactor,
            self.book.about,
            settings.secret,
            lambda advertised: clientFromString(self._reactor, advertised),
        )
        self._entries = Entries(
            self._reactor,
            self.book,
            {
                kind: listeners
                for kind, listeners in tunnels.listeners.items()
                if getattr(listeners, "named", False)
                or (settings.all and kind in PORTS)
            },
            tunnels.here,
            ways,
            tunnels.hosts,
            settings.hold,
        )
        self.book.watch(self._entries.changed)
        self._entries.serveFor(tunnels.listeners.values())
        tunnels.kept = self._entries
        tunnels.leases.meanwhile = self._entries.meanwhile
        self.members.siblings.publish("leaving", self._entries.memberLeaves)
        self.members.siblings.publish("show", self._entries.show)
        tunnels.siblings, tunnels.cluster = self.members.siblings, self.members
        self.knowing = self._entries.known(KNOWING)
        self.book.unlike = self._unlike
        return self.knowing

    def _unlike(self, reason: TunnelError) -> None:
        """
        Do not begin with a book of another version; later on, go on to serve what is
        here.
        """
        self.book.unlike = self.book.cannotBeUsed
        report = self.book.cannotBeUsed if self.knowing.called else self.failed
        report(reason)

    def _indexOf(self, member: str) -> int | None:
        machine, _, rest = member.partition("-")
        return (
            int(rest.partition("-")[0]) if rest and machine == self._machine else None
        )

    def isBeside(self, near: SiblingWays, ports: VisitorsPorts) -> None:
        """
        Be one of several processes of a machine. Visitors go from one to the other
        without another connection, and only one of them opens the port of a tunnel.

        @param near: The ways to the others of this machine.
        @param ports: What is kept when one of them ends.
        """
        entries, membership = self._entries, self._membership
        assert entries is not None and membership is not None
        near.indexOf = self._indexOf
        entries.ways = _BothWays(near, entries.ways)
        entries.kept = ports

        def isMine(record: TunnelRecord) -> bool:
            if self._indexOf(record.place.member) is not None:
                return False
            return crc32(record.id.encode()) % membership.count == membership.index

        entries.opensPort = isMine
        entries.near = near

        def changed(change: Change) -> None:
            if change.kind == "closed":
                ports.drop(change.id)
            elif change.kind == "expired":
                membership.parent.tell("dropOf", [change.id])

        self.book.watch(changed)

    def reachedAt(self, place: str, port: int) -> None:
        """
        Tell clients, by the other members, where they reach this one.

        @param place: C{HOST:PORT} as the user wrote it; empty for the host at which
            other members reach this one.
        @param port: The number of the first port for clients; 0 for none.
        """
        kind, _, rest = self.settings.advertise.partition(":")
        host, _, _ = rest.replace("\\:", ":").rpartition(":")
        if not place and port and kind in ("tcp", "tls") and host:
            place = hostAndPort(host, port)
        self.members.reachedAt(place)

    def share(self, files: Sequence[TokenFile]) -> SharedTokens:
        """
        Have all members agree about tokens.

        @param files: The files of this one; it is asked now and then to look at them.
        """
        shared = SharedTokens(self.book, files)
        self.book.sayFirst = shared.meet
        self.book.watch(shared.changed)
        return shared

    def startService(self) -> None:
        super().startService()
        assert self._tunnels is not None
        find = self._tunnels.here.served
        factory = RelayFactory(self._reactor, self.settings.secret, find)
        factory.linked = self._links.linked
        listening = maybeDeferred(self.settings.listen.listen, factory)
        listening.addCallbacks(self._opened, self._notOpened)
        self.book.start()
        self.members.start()

    def _opened(self, listening: IListeningPort) -> None:
        self._listening = listening
        self._log.info(
            "This is member {member} of the cluster {name}; the others reach it at"
            " {address}",
            member=self.book.member,
            name=self.settings.engine.name,
            address=self.settings.advertise,
        )

    def _notOpened(self, failure: Failure) -> None:
        what = f"--cluster-listen {self.settings.description}"
        self.failed(cannotListen(what, failure))

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self.moving()
        self.members.leaving()
        if self._entries is not None:
            await self._entries.stop()
            await Drain(self._reactor, self._entries.streams, self._grace).wait()
        self.members.stop()
        if self._listening is not None:
            await maybeDeferred(self._listening.stopListening)
