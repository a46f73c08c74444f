"""What the book says of the tunnels of this process, and how that gets there."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from tristunnel.model.book import IBook
from tristunnel.model.permissions import Identity
from tristunnel.model.quota import TunnelQuota
from tristunnel.model.record import (
    Place,
    TunnelLimits,
    TunnelRecord,
    named,
    reservedFor,
)
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.here import Held, Here
from tristunnel.service.leases import Lease
from tristunnel.service.patience import inTime

__all__ = ["BookEntries", "ownerOf"]


def ownerOf(record: TunnelRecord) -> Identity:
    """Who opened a tunnel, without what that lets them do."""
    return Identity(record.owner, record.anonymous, issued=record.issued)


class BookEntries:
    """
    The entries of this process in the book. A tunnel's entry is made before anything is
    opened for it, and does not say where it is until everything is open.

    @param reactor: Tells time.
    @param book: The book.
    @param here: The tunnels of this process.
    @param quota: How many there may be.

    @ivar now: The time of day.
    """

    def __init__(
        self, reactor: IReactorTime, book: IBook, here: Here, quota: TunnelQuota
    ) -> None:
        self.quota = quota
        self.now = time.time
        self._reactor = reactor
        self._book = book
        self._here = here

    async def open(
        self,
        tunnel: Tunnel,
        lease: Lease | None = None,
        countedAs: str = "",
        options: str = "",
    ) -> Held:
        """
        Enter a tunnel, and reserve its name.

        @param lease: What keeps it open.
        @param countedAs: Whose tunnels it is counted with; empty for a tunnel that
            does not count.
        @param options: What it is opened with, as JSON.
        @raise TunnelError: C{limit-reached}, C{name-taken} or another reason.
        """
        owner, token, most = tunnel.owner, "", None
        if countedAs:
            self.quota.check(self._here.count)
            grant = owner.grant
            most = None if grant is None else grant.permissions.maxTunnels
            token = "" if most is None else owner.name
        reserved = {"name": named(tunnel.name)} if tunnel.name else {}
        record = TunnelRecord(
            tunnel.id,
            Place(self._book.member) if lease is None else lease.place,
            "" if lease is None else lease.id,
            owner.name,
            owner.anonymous,
            owner.issued,
            name=tunnel.name,
            reserved=tuple(reserved.values()),
            countedAs=countedAs,
            token=token,
            options=options,
        )
        held = Held(tunnel, record, reserved, bool(countedAs))
        self._here.add(held)
        quota = self.quota
        limits = TunnelLimits()
        if countedAs:
            limits = TunnelLimits(quota.perCaller, most or 0, quota.everywhere)
        await inTime(
            self._reactor,
            self._book.open(record, limits),
            lambda _: self._book.close(record.id, record.place),
        )
        return held

    def adopt(self, tunnel: Tunnel, record: TunnelRecord) -> Held:
        """
        Take over an entry that is in the book already, and is this process's now.

        @param record: What is written of the tunnel.
        """
        reserved = {
            use
            if (use := each.partition(":")[0]) in ("name", "host")
            else "visitors": each
            for each in record.reserved
        }
        held = Held(tunnel, record, reserved, bool(record.countedAs))
        held.hasPorts = bool(held.port("visitors"))
        self._here.add(held)
        return held

    async def reserve(self, held: Held, use: str, kind: str, what: int | str) -> None:
        """
        Reserve a port or a host for one tunnel alone, in place of the one that it had
        for the same use.

        @param use: C{"visitors"} or C{"uri"}.
        @param kind: C{"tcp"}, C{"udp"}, C{"loopback"}, or that of a listener of names.
        @raise TunnelError: C{port-taken}, C{name-taken}, C{limit-reached}, or if the
            book cannot be asked.
        """
        wanted = {**held.reserved, use: reservedFor(kind, what)}
        if wanted == held.reserved:
            return
        if isinstance(what, int) and not held.hasPorts:
            if held.counts:
                self.quota.checkPorts(self._here.withPorts)
            self._here.getsPort(held)
        held.record = await self._change(held, {"reserved": tuple(wanted.values())})
        held.reserved = wanted

    async def announce(self, held: Held) -> None:
        """
        Announce where a tunnel is and whose, when it is open or has changed.

        @raise TunnelError: C{displaced}, or if the book cannot be asked.
        """
        tunnel, until = held.tunnel, 0.0
        if tunnel.until is not None:
            until = self.now() + tunnel.until - self._reactor.seconds()
        held.record = await self._change(
            held,
            {
                "owner": tunnel.owner.name,
                "anonymous": tunnel.owner.anonymous,
                "issued": tunnel.owner.issued,
                "uri": tunnel.publicURI,
                "secretHash": tunnel.secretHash.hex(),
                "name": tunnel.name,
                "reserved": tuple(held.reserved.values()),
                "protocol": tunnel.protocol,
                "address": tunnel.address,
                "lookup": tunnel.lookup,
                "until": until,
            },
        )

    async def asked(self, tunnel: Tunnel, options: Mapping[str, object]) -> None:
        """
        Record that the limits on a tunnel's visitors have changed, who come in at other
        processes, too.

        @param options: What it is opened with from now on.
        @raise TunnelError: If the book cannot be asked.
        """
        held = self._here.get(tunnel.id)
        if held is not None:
            held.record = await self._change(held, {"options": json.dumps(options)})

    async def inherit(self, heir: Held, left: Held) -> None:
        """
        Have one tunnel of a group take over what another one had reserved that has left
        the group.

        @raise TunnelError: If the book cannot be asked, or somebody was faster.
        """
        had = {use: it for use, it in left.reserved.items() if use != "uri"}
        if not had:
            return
        if left.tunnel.closed is None:
            # It goes on for a while, but gets no more visitors.
            left.reserved = {
                use: it for use, it in left.reserved.items() if use == "uri"
            }
            await self._change(left, {"reserved": tuple(left.reserved.values())})
        heir.reserved = {**heir.reserved, **had}
        if "name" in had:
            heir.tunnel.name = had["name"].removeprefix(named(""))
        await self.announce(heir)

    def _change(self, held: Held, fields: dict[str, object]) -> Deferred[TunnelRecord]:
        changing = self._book.change(held.record.id, held.place, fields)
        return inTime(self._reactor, changing)

    def forget(self, tunnel: str) -> Deferred[None]:
        """
        Remove a tunnel that is over, if it was entered.

        @param tunnel: Its id.
        """
        held = self._here.remove(tunnel)
        if held is None:
            return succeed(None)
        return inTime(self._reactor, self._book.close(tunnel, held.place))

    def find(self, uri: str) -> Deferred[TunnelRecord]:
        """
        Look a tunnel up by its URI or its id, wherever it is.

        @raise TunnelError: By the Deferred, C{unknown-tunnel}.
        """
        return inTime(self._reactor, self._book.find(uri))

    def holder(self, reserved: str) -> Deferred[TunnelRecord | None]:
        """Find out whose something is, wherever that is; see L{IBook.holder}."""
        return inTime(self._reactor, self._book.holder(reserved))
