"""Visitors of a tunnel whose client is at another member, or on its way to one."""

from __future__ import annotations

import math
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tristunnel.dataplane.carried import CarriedFlow
from tristunnel.errors import TunnelError
from tristunnel.model.record import TunnelRecord
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.util.hosts import addressText

__all__ = ["AGAIN", "HOLD", "Leads", "MemberSide", "Ways"]

HOLD = 5.0
"""Seconds that a visitor waits for a tunnel whose client is moving."""

WAITING = 256
"""Visitors of a tunnel who wait for their way to be found."""

MOVING = ("client-away", "session-lost", "unknown-tunnel")
"""How a member refuses that no longer has a tunnel, or does not have it yet."""

LEAVING = "shutting-down"
"""How a member refuses that is stopping: then its clients go to others."""

AGAIN = 0.25
"""Seconds between two attempts."""


class Ways(Protocol):
    """How visitors get to other members."""

    async def wayTo(self, record: TunnelRecord, visitor: str, host: str) -> Any:
        """
        Lead a visitor to the member that has a tunnel's client.

        @param visitor: Where it comes from.
        @param host: Where it came to; empty if that is not known.
        @return: The end of the way, once the visitor is served there.
        @raise TunnelError: Why it is not. None of its bytes were sent then.
        """


class Leads(Protocol):
    """
    What a L{MemberSide} needs of L{Entries<tristunnel.cluster.entries.Entries>}.

    @ivar reactor: Tells time.
    @ivar holdTime: Seconds that a visitor waits for a tunnel whose client is moving.
    @ivar ways: Lead to the other members.
    """

    reactor: Any
    holdTime: float
    ways: Ways

    def checkIsHere(self, record: TunnelRecord) -> None: ...

    async def lookAgain(self, side: MemberSide) -> None: ...


class MemberSide:
    """
    The L{IClientSide<tristunnel.model.tunnel.IClientSide>} of a tunnel whose client is
    at another member.

    @param entries: Knows the ways.
    @param record: What the book says of the tunnel.
    @param until: When its client will not come back any more, in seconds of the
        clock, if that is known.

    @ivar record: What the book has said last, see L{learn}.
    @ivar asked: When it was asked for that last, in the same seconds.
    """

    def __init__(
        self, entries: Leads, record: TunnelRecord, until: float = math.inf
    ) -> None:
        self.record = record
        self._entries = entries
        self._until = until
        self.asked = -math.inf
        self._waiting = 0
        # Ways that are being made, and those who wait for them.
        self._making: dict[Deferred[Any], Deferred[Any]] = {}

    def moved(self) -> None:
        """Give up the ways to a member that the client has left."""
        making, self._making = self._making, {}
        for way, waiting in making.items():
            way.cancel()
            waiting.errback(TunnelError("client-away", "the tunnel's client has moved"))

    def learn(self, record: TunnelRecord) -> None:
        """Take what the book says of the tunnel now."""
        before, self.record = self.record, record
        if before.place != record.place:
            self.moved()

    def _way(self, visitor: str, host: str) -> Deferred[Any]:
        """
        Make a way to the client's member; it is given up if the client moves.

        @raise TunnelError: If that is this member, and the client is not here yet.
        """
        entries = self._entries
        entries.checkIsHere(self.record)
        way = Deferred.fromCoroutine(entries.ways.wayTo(self.record, visitor, host))
        waiting: Deferred[Any] = Deferred(lambda cancelled: way.cancel())
        self._making[way] = waiting

        def made(result: object) -> None:
            if self._making.pop(way, None) is not None and not waiting.called:
                waiting.callback(result)

        way.addBoth(made)
        return waiting

    def serve(self, stream: Stream) -> None:
        """Lead a visitor to that member."""
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
        Find the way, while it may be found: the tunnel's client may be on its way from
        one member to another. No byte of the visitor was sent before, so another
        attempt does no harm.
        """
        entries = self._entries
        end = min(entries.reactor.seconds() + entries.holdTime, self._until)
        place = getattr(stream.visitor, "hostAddress", None)
        host = "" if place is None else addressText(place)
        try:
            while True:
                back = stream.tunnel.clientSide
                if back is not None and back is not self:
                    back.serve(stream)
                    return
                try:
                    way = await self._way(stream.visitorAddress, host)
                except TunnelError as refusal:
                    code, before = refusal.code.name, self.record.place
                    # It may have moved without this member having heard of it.
                    await entries.lookAgain(self)
                    isLate = code in MOVING and entries.reactor.seconds() >= end
                    if (
                        stream.over
                        or (isLate and self.record.place == before)
                        or code not in (*MOVING, LEAVING)
                    ):
                        raise
                else:
                    isUDP = self.record.protocol == "udp"
                    stream.connect(CarriedFlow(way) if isUDP else way)
                    return
                await deferLater(entries.reactor, AGAIN)
        finally:
            self._waiting -= 1

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """The member that has the client tells it."""
