"""Ports of tunnels whose clients are at other machines: visitors come in here, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tristunnel.cluster.redis_book import RedisBook
from tristunnel.cluster.relay import askForTunnel
from tristunnel.errors import TunnelError
from tristunnel.model.kept_ports import PortsKept
from tristunnel.model.observer import ServerObserver
from tristunnel.model.options import TunnelOptions
from tristunnel.model.record import Change, TunnelRecord
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.entries import ownerOf

__all__ = ["Entries", "MemberSide"]

KINDS = ("tcp", "tls")
"""Listeners whose ports every machine opens."""

WAITING = 256
"""Visitors of a tunnel who wait for their way to be found."""

_AGAIN = 0.25
_ATTEMPTS = 12
_TURN = 0.02


class MemberSide:
    """
    The L{IClientSide<tristunnel.model.tunnel.IClientSide>} of a tunnel whose client is
    at another machine.

    @param entries: All of them.
    @param record: What the book says of the tunnel.

    @ivar record: The same; it may be replaced.
    """

    def __init__(self, entries: Entries, record: TunnelRecord) -> None:
        self.record = record
        self._entries = entries
        self._waiting = 0

    def serve(self, stream: Stream) -> None:
        """Lead a visitor to that machine."""
        if self._waiting >= WAITING:
            stream.refuse(TunnelError("limit-reached", "too many visitors wait"))
            return
        self._waiting += 1
        leading = Deferred.fromCoroutine(self._lead(stream))
        stream.visitor.whileWaiting(lambda reason: leading.cancel())
        leading.addErrback(
            lambda failure: stream.refuse(
                failure.value
                if isinstance(failure.value, TunnelError)
                else TunnelError("internal")
            )
        )

    async def _lead(self, stream: Stream) -> None:
        """
        Find the way, while it may be found. No byte of the visitor was sent before,
        so another attempt does no harm.
        """
        entries = self._entries
        end = entries.reactor.seconds() + entries.hold
        try:
            while True:
                try:
                    way = await entries.wayTo(self.record, stream.visitorAddress)
                except TunnelError:
                    if stream.over or entries.reactor.seconds() >= end:
                        raise
                else:
                    stream.connect(way)
                    return
                await deferLater(entries.reactor, _AGAIN)
                # It may have moved, and this machine not have heard of it.
                await entries.lookAgain(self)
        finally:
            self._waiting -= 1

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """Its owner says so to its client."""


class Entries(PortsKept):
    """
    Opens here what the book says is open elsewhere.

    @param reactor: Tells time.
    @param book: The book.
    @param listeners: What opens ports, by what C{openTunnel} calls it.
    @param secret: What all members of the cluster know.
    @param endpoint: Makes the way to a member of what it advertises.
    @param hold: Seconds that a visitor waits for a tunnel whose client has moved.

    @ivar unbound: Ports that cannot be had here.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self,
        reactor: Any,
        book: RedisBook,
        listeners: Mapping[str, Any],
        secret: bytes,
        endpoint: Callable[[str], IStreamClientEndpoint],
        hold: float,
    ) -> None:
        self.reactor = reactor
        self.hold = hold
        self.unbound: set[str] = set()
        self._book = book
        self._listeners = listeners
        self._secret = secret
        self._endpoint = endpoint
        self._tunnels: dict[str, tuple[Tunnel, MemberSide]] = {}
        self._looking: set[str] = set()
        self._work: set[Deferred[None]] = set()
        self._observer = ServerObserver()
        self._stopped = False

    def changed(self, change: Change) -> None:
        """Something has happened in the book."""
        if change.kind in ("opened", "changed", "closed"):
            self._look(change.id)
        elif change.kind in ("claimed", "expired"):
            for tunnel, (_, side) in list(self._tunnels.items()):
                if side.record.lease == change.id:
                    self._look(tunnel)
            if change.kind == "claimed" and change.place.member != self._book.member:
                self._lookThrough(change.id)
        elif change.kind == "resynced":
            self._lookThrough("")

    def _lookThrough(self, lease: str) -> None:
        """Look at all tunnels of a lease, or at all."""

        async def look() -> None:
            records = await self._book.snapshot()
            for tunnel in set(self._tunnels) - {each.id for each in records}:
                self._look(tunnel)
            for record in records:
                if not lease or record.lease == lease:
                    await self._follow(record)

        self._do(look())

    def _look(self, tunnel: str) -> None:
        async def look() -> None:
            try:
                record = await self._book.find(tunnel)
            except TunnelError as error:
                if error.code.name == "unknown-tunnel":
                    await self._close(tunnel)
            else:
                await self._follow(record)

        self._do(look())

    def _do(self, work: Any) -> None:
        doing: Deferred[None] = Deferred.fromCoroutine(work)
        self._work.add(doing)

        def done(result: object) -> None:
            self._work.discard(doing)

        # Without the book all stays as it is.
        doing.addErrback(lambda failure: failure.trap(TunnelError, CancelledError))
        doing.addErrback(
            lambda failure: self._log.failure("A port was not opened here", failure)
        )
        doing.addBoth(done)

    async def _follow(self, record: TunnelRecord) -> None:
        """Open or close here what belongs to a tunnel."""
        known = self._tunnels.get(record.id)
        kind, _, _ = record.address.partition("://")
        port = record.address.rpartition(":")[2]
        isElsewhere = record.place.member != self._book.member
        if not isElsewhere or kind not in KINDS or not port.isdecimal():
            await self._close(record.id)
        elif known is not None:
            known[1].record = record
        elif record.id not in self._looking and kind in self._listeners:
            self._looking.add(record.id)
            try:
                await self._open(record, kind, int(port))
            finally:
                self._looking.discard(record.id)

    async def _open(self, record: TunnelRecord, kind: str, port: int) -> None:
        side = MemberSide(self, record)
        tunnel = Tunnel(
            record.id,
            ownerOf(record),
            side,
            self._observer,
            self.reactor.seconds,
            uri=record.uri,
        )
        opening = partial(
            self._listeners[kind].open,
            TunnelOptions(port=port),
            tunnel.visitorArrived,
            _reserved,
        )
        listener = None
        for attempt in range(_ATTEMPTS):
            if self._stopped or record.id not in self._looking:
                return
            try:
                listener = await opening()
            except TunnelError as refusal:
                # It may have been this machine's own until a moment ago.
                if refusal.code.name != "port-taken" or attempt == _ATTEMPTS - 1:
                    self.unbound.add(record.address)
                    self._log.warn(
                        "Visitors of {uri} cannot come in at this machine: {refusal}",
                        uri=record.uri,
                        refusal=refusal,
                    )
                    return
                await deferLater(self.reactor, _AGAIN)
            else:
                break
        tunnel.listener = listener
        self.unbound.discard(record.address)
        self._tunnels[record.id] = tunnel, side

    # PortsKept

    async def recall(self, tunnel: str) -> None:
        """A tunnel comes to this machine, and has its port itself from now on."""
        self._looking.discard(tunnel)
        if tunnel in self._tunnels:
            await self._close(tunnel)
            # The poller closes descriptors only at the end of its turn.
            await deferLater(self.reactor, _TURN)

    async def _close(self, identifier: str) -> None:
        """Let nobody in here any more; visitors who are in stay."""
        known = self._tunnels.pop(identifier, None)
        if known is not None and known[0].listener is not None:
            await known[0].listener.close()

    async def wayTo(self, record: TunnelRecord, visitor: str) -> Any:
        """
        Connect to the machine that has a tunnel's client.

        @return: The end of the way.
        @raise TunnelError: Why that cannot be.
        """
        about = await self._book.about(record.place.member)
        endpoint = self._endpoint(str(about.get("address", "")))
        return await askForTunnel(
            self.reactor, endpoint, self._secret, record.id, visitor
        )

    async def lookAgain(self, side: MemberSide) -> None:
        """Find out where a tunnel's client is now; without the book it stays there."""
        try:
            side.record = await self._book.find(side.record.id)
        except TunnelError:
            return

    async def stop(self) -> None:
        """Close all ports."""
        self._stopped = True
        for doing in list(self._work):
            doing.cancel()
        for identifier in list(self._tunnels):
            await self._close(identifier)

    def streams(self) -> int:
        """How many visitors there are."""
        return sum(len(tunnel.streams) for tunnel, _ in self._tunnels.values())


async def _reserved(kind: str, port: int | str) -> None:
    """It is the tunnel's own in the book already."""
