"""
A client's session at the server, whatever its dialect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tristunnel.dialects.base.admission import AdmittedSession
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.errors import TunnelError
from tristunnel.model.record import TunnelRecord
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.leases import Lease
from tristunnel.service.returning import maySomebodyReturn

__all__ = ["ServerSession"]


class ServerSession(AdmittedSession):
    """
    One client's session: its tunnels, and what keeps them while it is away.

    @ivar tunnels: The client's tunnels, by what the dialect knows them by.
    @ivar leases: What keeps them open until the client is back, where it can be known
        again.
    """

    __slots__ = ("_openings", "leases", "tunnels")

    def __init__(self, sessions: ServerSessions, arrival: Arrival) -> None:
        super().__init__(sessions, arrival)
        self.tunnels: dict[Any, Tunnel] = {}
        self.leases: list[Lease] = []
        self._openings = 0

    async def openFor(
        self, key: object, options: Mapping[str, object], what: str
    ) -> Tunnel:
        """
        Open a tunnel for the client, or give it back the one that is kept for it.

        @param key: What the session knows it by.
        @param what: What the client asks for, in words that it will use again.
        @raise TunnelError: Why there is none.
        """
        self._openings += 1
        try:
            if self._leaving is not None:
                raise self._leaving
            self._service.rights.checkServices(len(self.tunnels) + self._openings - 1)
            tunnel = await self._openOrReturn(options, what)
            if self.lost is not None:
                self._service.discard([tunnel], self.lost)
                raise self.lost
        finally:
            self._openings -= 1
            self._releaseLeases()
        self.tunnels[key] = tunnel
        return tunnel

    async def _openOrReturn(self, options: Mapping[str, object], what: str) -> Tunnel:
        identity = self._caller.identity
        if not maySomebodyReturn(identity):
            return await self._service.open(self._caller, options)
        returning, what = self._sessions.returning, f"{self.dialect} {what}"
        await self._sessions.endDead(self, returning.tagOf(identity, what))
        lease, elsewhere = await returning.take(identity, what, self)
        self.leases.append(lease)
        caller = replace(self._caller, lease=lease)
        await self.adopt(caller, elsewhere)
        if lease.tunnels:
            options = {**options, "resume": lease.tunnels[0].uri}
        return await self._service.open(caller, options)

    async def adopt(self, caller: Caller, records: Iterable[TunnelRecord]) -> None:
        """
        Take over tunnels of the client's from other processes, as far as that can be.

        @param caller: The client, with the lease that they are for.
        """
        for record in records:
            try:
                await self._service.adopt(caller, record)
            except TunnelError as refusal:
                # The client can get another one.
                self.noteRefusal(f"came back for {record.uri}", refusal)

    def _releaseLeases(self) -> None:
        """Give up leases that keep nothing, unless something is just being opened."""
        empty = [] if self._openings else [e for e in self.leases if not e.tunnels]
        for lease in empty:
            self.leases.remove(lease)
            self._service.leases.holderLost(lease, self)

    def keyOf(self, tunnel: Tunnel) -> Any:
        """
        Find what the session knows a tunnel by.

        @raise TunnelError: C{client-away}.
        """
        for key, each in self.tunnels.items():
            if each is tunnel:
                return key
        raise TunnelError("client-away")

    # LeaseHolder

    def displaced(self) -> None:
        """End the session, because another one has what it had."""
        self.fail(TunnelError("displaced"))

    # IClientSide

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        # None of these dialects has a message for it; without any tunnel, the session
        # ends, too.
        for key in [key for key, mine in self.tunnels.items() if mine is tunnel]:
            del self.tunnels[key]
            if self.idle and self.lost is None:
                self.fail(reason)
        self._releaseLeases()

    @property
    def idle(self) -> bool:
        """Whether the client has no tunnel, and none is being opened for it."""
        return not (self.tunnels or self._openings)

    # Going

    def comesBack(self, reason: TunnelError) -> bool:
        """Whether a client whose session is over may be expected back."""
        return reason.code.name == "session-lost"

    def letGo(self, reason: TunnelError) -> None:
        tunnels, self.tunnels = list(self.tunnels.values()), {}
        leases, self.leases = self.leases, []
        if self.comesBack(reason):
            kept = {tunnel for lease in leases for tunnel in lease.tunnels}
            tunnels = [tunnel for tunnel in tunnels if tunnel not in kept]
        self._service.discard(tunnels, reason)
        for lease in leases:
            self._service.leases.holderLost(lease, self)
