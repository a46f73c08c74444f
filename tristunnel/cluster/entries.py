"""
Ports and names of tunnels whose clients are at other members: visitors can connect
here, too, and are led to the one member that has the client.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from socket import socket
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tristunnel.cluster.grouped import Grouped
from tristunnel.cluster.leading import AGAIN, HOLD, MemberSide, Ways
from tristunnel.cluster.siblings import SiblingWays
from tristunnel.errors import TunnelError
from tristunnel.model.book import IBook
from tristunnel.model.kept_ports import PortsKept
from tristunnel.model.observer import ServerObserver
from tristunnel.model.options import TunnelOptions
from tristunnel.model.record import Change, TunnelRecord
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.processes.ports import RecalledPorts
from tristunnel.service.entries import ownerOf
from tristunnel.service.here import Here
from tristunnel.service.host_rules import HostRules
from tristunnel.service.siblings import ASSURED
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["Entries"]

RETOLD = 3.0
"""Seconds in which members tell a book that was lost again what they have."""

_ATTEMPTS = 12
_TURN = 0.02


class Entries(RecalledPorts):
    """
    Opens here what the book says is open elsewhere.

    @param reactor: Tells time.
    @param book: The book.
    @param listeners: What opens ports and names here, by what C{openTunnel} calls it.
    @param here: The tunnels of this member itself.
    @param ways: Lead to the other members.
    @param hosts: Knows whose a name is.
    @param hold: Seconds that a visitor waits for a tunnel whose client has moved.
    @param kept: What else becomes of this member's own ports; the same attribute.

    @ivar unbound: Ports that cannot be had here.
    @ivar opensPort: Whether this member opens the port of a tunnel, by its record;
        others of the same machine open the rest.
    @ivar near: The other processes of this machine, to which connections can be passed;
        C{None} if there are none.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self,
        reactor: Any,
        book: IBook,
        listeners: Mapping[str, Any],
        here: Here,
        ways: Ways,
        hosts: HostRules,
        hold: float = HOLD,
        kept: PortsKept | None = None,
    ) -> None:
        super().__init__()
        self.reactor = reactor
        self.holdTime = hold
        self.ways = ways
        self.unbound: set[str] = set()
        self._book = book
        self._listeners = listeners
        self._here = here
        self._hosts = hosts
        self.kept = kept or PortsKept()
        self.near: SiblingWays | None = None
        self.opensPort: Callable[[TunnelRecord], bool] = lambda record: True
        self._tunnels: Grouped[tuple[Tunnel, MemberSide]] = Grouped(
            lambda known: known[1].record.lease
        )
        self._all: WeakSet[Tunnel] = WeakSet()
        # What is being opened, and who waits for that.
        self._looking: set[str] = set()
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._work: set[Deferred[None]] = set()
        self._observer = ServerObserver()
        self._stopped = False
        self._known: Deferred[None] | None = None

    @returnsDeferred
    async def begin(self) -> None:
        """Follow the book from now on, and open what is in it."""
        watching = self._book.watch(self.changed)
        try:
            await watching
            await self._lookAround()
        except TunnelError as refusal:
            self._log.error(
                "Not all names and ports are known yet: {refusal}", refusal=refusal
            )

    def changed(self, change: Change) -> None:
        """Take a change in the book."""
        if change.kind in ("opened", "changed", "closed"):
            self._look(change.id)
        elif change.kind in ("claimed", "expired"):
            for tunnel in self._tunnels.of(change.id):
                self._look(tunnel)
        elif change.kind == "resynced":
            self._do(self._lookAround())

    async def _lookAround(self) -> None:
        """Look at all tunnels in the book."""
        records = await self._book.snapshot()
        for tunnel in set(self._tunnels) - {each.id for each in records}:
            # The book may have been lost, and its member be about to say it again.
            self._look(tunnel, RETOLD)
        for record in records:
            await self._follow(record)
        known, self._known = self._known, None
        if known is not None:
            known.callback(None)

    def known(self, seconds: float) -> Deferred[None]:
        """
        Wait until everything is open here, for the first time, that the book says is
        open elsewhere.

        @param seconds: How long to wait at most, since the book may be away.
        """
        known: Deferred[None] = Deferred()
        self._known = known

        def late(result: object, seconds: float) -> None:
            self._known = None

        return known.addTimeout(seconds, self.reactor, late)

    def _look(self, tunnel: str, seconds: float = 0.0) -> None:
        async def look() -> None:
            if seconds:
                await deferLater(self.reactor, seconds)
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
        """Open, change or close the public side of a tunnel here."""
        known = self._tunnels.get(record.id)
        wanted = self._publicSide(record)
        isOurs = record.place.member == self._book.member
        if isOurs and wanted is not None and (wanted.name or known is not None):
            # Either this member was killed, and the visitors wait here until the client
            # has come back; or the client is just arriving, and they wait until the
            # tunnel is open.
            isOurs = self._here.get(record.id) is not None and known is None
        if isOurs or wanted is None:
            if known is not None:
                known[1].learn(record)
            await self._close(record.id)
            if not isOurs:
                # Another process of this machine has what is kept of its port.
                super().forget(record.id)
        elif known is not None:
            known[1].learn(record)
            # Something else may be asked of visitors.
            changed = getattr(known[0].listener, "changed", None)
            if changed is not None:
                changed(wanted)
            self._passTo(known[0].listener, record)
        else:
            await self._openOnce(record, wanted)

    async def _openOnce(self, record: TunnelRecord, wanted: TunnelOptions) -> None:
        if record.id in self._looking:
            return
        self._looking.add(record.id)
        try:
            await self._open(record, wanted)
        finally:
            self._looking.discard(record.id)
            self.forget(record.id)
            for waiting in self._waiting.pop(record.id, ()):
                waiting.callback(None)

    @returnsDeferred
    async def show(self, caller: object, tunnel: str) -> None:
        """
        Let visitors of a tunnel in that another member has just opened.

        @param tunnel: Its id.
        @return: Fires when they can come, or it is known that they cannot come here.
        @raise TunnelError: By the Deferred, if there is no such tunnel.
        """
        await self._follow(await self._book.find(tunnel))
        await self._looked(tunnel)

    def _looked(self, tunnel: str) -> Deferred[None]:
        """Wait until it is known whether a tunnel can have its public side here."""
        if tunnel not in self._looking:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.setdefault(tunnel, []).append(waiting)
        return waiting

    def _take(self, kind: int, interface: str, port: int) -> socket | None:
        found = super()._take(kind, interface, port)
        if found is None and isinstance(self.kept, RecalledPorts):
            found = self.kept._take(kind, interface, port)
        return found

    def _publicSide(self, record: TunnelRecord) -> TunnelOptions | None:
        """
        Find the port or the name by which a tunnel's visitors may come in here.

        @return: C{None} if they may not.
        """
        if not record.address:
            return None
        for kind, _, name in (each.partition(":") for each in record.reserved):
            if getattr(self._listeners.get(kind), "named", False):
                asked = TunnelOptions.fromMapping(json.loads(record.options or "{}"))
                host, slash, path = name.partition("/")
                return replace(asked, listener=kind, name=host, path=slash + path)
        kind, _, _ = record.address.partition("://")
        port = record.address.rpartition(":")[2]
        if kind in self._listeners and port.isdecimal() and self.opensPort(record):
            return TunnelOptions(listener=kind, port=int(port))
        return None

    def _leadingTo(self, record: TunnelRecord) -> tuple[Tunnel, MemberSide]:
        """Make the stand-in for a tunnel of another member."""
        side = MemberSide(self, record)
        tunnel = Tunnel(
            record.id,
            ownerOf(record),
            side,
            self._observer,
            self.reactor.seconds,
            uri=record.uri,
            name=record.name,
            protocol=record.protocol,
        )
        self._all.add(tunnel)
        return tunnel, side

    def elsewhere(self, record: TunnelRecord) -> Tunnel | None:
        known = self._tunnels.get(record.id)
        return (known or self._leadingTo(record))[0]

    async def _open(self, record: TunnelRecord, wanted: TunnelOptions) -> None:
        tunnel, side = self._leadingTo(record)
        opening = partial(
            self._listeners[wanted.listener].open,
            wanted,
            tunnel.visitorArrived,
            _reserved,
        )
        if wanted.name:
            self._hosts.isElsewhere(tunnel, record, wanted.name)
            if not json.loads(record.options or "{}").get("name"):
                self._hosts.wasMadeUp(wanted.name, record)
        else:
            await self.kept.recall(record.id)
        listener = None
        for attempt in range(_ATTEMPTS):
            if self._stopped or record.id not in self._looking:
                return
            try:
                listener = await opening()
            except TunnelError as refusal:
                # The port may have been this member's own until a moment ago.
                if refusal.code.name != "port-taken" or attempt == _ATTEMPTS - 1:
                    self.unbound.add(record.address)
                    self._log.warn(
                        "Visitors of {uri} cannot come in at this member: {refusal}",
                        uri=record.uri,
                        refusal=refusal,
                    )
                    return
                await deferLater(self.reactor, AGAIN)
            else:
                break
        tunnel.listener = listener
        self._passTo(listener, record)
        self.kept.keep(record.id, record.lease, listener)
        self.unbound.discard(record.address)
        self._tunnels[record.id] = tunnel, side

    def _passTo(self, listener: Any, record: TunnelRecord) -> None:
        """Set to which other process the connections for a name may be passed."""
        route = getattr(listener, "route", None)
        if route is not None and self.near is not None:
            route.member = self.near.otherThanThis(record.place.member)

    # PortsKept

    def isShown(self, record: TunnelRecord) -> bool:
        kinds = {each.partition(":")[0] for each in record.reserved}
        return bool(record.address) and not kinds.isdisjoint(self._listeners)

    def keep(self, tunnel: str, lease: str, listener: Any) -> None:
        # It is open here.
        self._do(self._close(tunnel))
        self.kept.keep(tunnel, lease, listener)

    def keeps(self, listener: Any) -> bool:
        return self.kept.keeps(listener)

    def drop(self, tunnel: str) -> None:
        self.kept.drop(tunnel)

    def forget(self, tunnel: str) -> None:
        super().forget(tunnel)
        self.kept.forget(tunnel)

    def handOver(self, tunnel: str, listener: Any) -> None:
        """
        Keep the port of a tunnel that goes to another member: visitors still come in
        here.
        """
        kind = listener.address[0]
        if kind in self._listeners and not self._stopped:
            self._keepOpen(tunnel, listener)

    def _keepOpen(self, tunnel: str, listener: Any) -> None:
        """Hold a port, so that nobody is refused until it is listened on again."""
        try:
            copies = [each.dup() for each in getattr(listener, "sockets", ())]
        except OSError:
            # Without a descriptor to spare, it has to be opened anew.
            return
        self.hold(tunnel, copies)

    def moved(self, record: TunnelRecord) -> None:
        self._do(self._follow(record))

    def leaves(self, record: TunnelRecord) -> Deferred[None]:
        wanted = self._publicSide(record)
        if wanted is not None and wanted.name and record.id not in self._tunnels:
            self._do(self._openOnce(record, wanted))
        return self._looked(record.id).addTimeout(
            ASSURED, self.reactor, lambda result, seconds: None
        )

    def memberLeaves(self, caller: object, member: str) -> None:
        """Another member stops: its visitors take their next requests elsewhere."""
        if self.near is not None:
            self.near.memberLeaves(member)
        for tunnel, side in self._tunnels.values():
            if side.record.place.member == member:
                tunnel.leaveSoon()

    async def recall(self, tunnel: str) -> None:
        """
        Give up the port of a tunnel that comes to this member, and opens it itself.
        """
        self._looking.discard(tunnel)
        known = self._tunnels.get(tunnel)
        if known is not None:
            # Those who wait need not try where it was.
            record = known[1].record
            here = replace(record.place, member=self._book.member)
            known[1].learn(replace(record, place=here))
        if known is not None and known[0].listener is not None:
            port = known[0].listener.address[2]
            if port:
                self._keepOpen(tunnel, known[0].listener)
                await self._close(tunnel)
                # The poller closes descriptors only at the end of its turn.
                await deferLater(self.reactor, _TURN)
        await self.kept.recall(tunnel)

    async def _close(self, identifier: str) -> None:
        """Let nobody in here any more; the visitors who are here stay."""
        known = self._tunnels.pop(identifier, None)
        if known is not None:
            known[1].moved()
            self._hosts.release(known[0])
            if known[0].listener is not None:
                await known[0].listener.close()

    async def lookAgain(self, side: MemberSide) -> None:
        """
        Find out where a tunnel's client is now; without the book, nothing changes. All
        who wait for it ask together.
        """
        now = self.reactor.seconds()
        if now - side.asked < AGAIN / 2:
            return
        side.asked = now
        try:
            record = await self._book.find(side.record.id)
        except TunnelError:
            return
        side.learn(record)

    def checkIsHere(self, record: TunnelRecord) -> None:
        """
        Make sure that the client of a tunnel of this member is here.

        @raise TunnelError: C{client-away}.
        """
        if record.place.member == self._book.member:
            self._here.served(record.id)

    def meanwhile(self, tunnel: Tunnel) -> MemberSide | None:
        """
        Have visitors wait for a tunnel whose client has just left this member: it may
        come back, here or elsewhere.
        """
        held = self._here.of(tunnel)
        if held is None:
            return None
        return MemberSide(self, held.record, self.reactor.seconds() + self.holdTime)

    async def stop(self) -> None:
        """Close all ports."""
        self._stopped = True
        for tunnel in {whose for whose, _ in self._recalled.values()}:
            super().forget(tunnel)
        for doing in list(self._work):
            doing.cancel()
        for identifier in list(self._tunnels):
            await self._close(identifier)

    def streams(self) -> int:
        return sum(stream.client is not None for stream in self._streams())

    def waiting(self) -> int:
        return sum(stream.client is None for stream in self._streams())

    def _streams(self) -> Iterator[Stream]:
        for tunnel in self._all:
            yield from tunnel.streams


async def _reserved(kind: str, port: int | str) -> None:
    """The book has it as the tunnel's own already."""
