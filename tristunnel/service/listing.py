"""
What is connected, since when, from where, and with how much traffic: C{listSessions}.
"""

from __future__ import annotations

from tristunnel.errors import TunnelError
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.clients import ConnectedClient
from tristunnel.service.rights import isAdmin
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["Listing", "mayEnd"]


def mayEnd(caller: Caller, client: ConnectedClient) -> bool:
    """
    Whether a session is the caller's, or depends on access to something of the
    caller's.
    """
    identity = client.identity
    if identity == caller.identity or isAdmin(caller.identity):
        return True
    return (
        identity.grant is not None
        and not caller.identity.anonymous
        and identity.grant.permissions.servicesOf == caller.identity.name
    )


class Listing:
    """
    Lists what is open, and ends parts of it.

    @param service: Whose sessions, tunnels and visitors.
    """

    def __init__(self, service: TunnelService) -> None:
        self._service = service

    # Listing

    @returnsDeferred
    async def listSessions(self, caller: Caller) -> list[dict[str, object]]:
        """
        Describe the clients, tunnels and visitors that the caller may see:
        its own, or all for an admin.
        """
        tunnels = [
            tunnel
            for tunnel in self._service.here
            if self._service.mayControl(caller, tunnel)
        ]
        entries = [
            self._client(client, tunnels)
            for client in self._service.clients
            if mayEnd(caller, client)
        ]
        for tunnel in tunnels:
            entries.append(self._tunnel(tunnel))
            entries.extend(map(self._visitor, tunnel.streams))
        for tunnel in self._service.here.dialled:
            if self._service.mayControl(caller, tunnel):
                entries.extend(map(self._visitor, tunnel.streams))
        return entries

    def _entry(
        self,
        subject: object,
        opened: float,
        bytesIn: int,
        bytesOut: int,
        timeLeft: float | None,
    ) -> dict[str, object]:
        age = self._service.reactor.seconds() - opened
        rateIn, rateOut = self._service.meter.measure(
            subject, opened, bytesIn, bytesOut
        )
        return {
            "opened": round(self._service.now() - age, 3),
            "seconds": round(age, 3),
            "bytesIn": bytesIn,
            "bytesOut": bytesOut,
            "rateIn": round(rateIn),
            "rateOut": round(rateOut),
            "timeLeft": None if timeLeft is None else round(timeLeft, 3),
        }

    def _client(
        self, client: ConnectedClient, tunnels: list[Tunnel]
    ) -> dict[str, object]:
        own = [
            tunnel
            for tunnel in tunnels
            if client.side is not None and tunnel.clientSide is client.side
        ]
        counts = [tunnel.countsNow() for tunnel in own]
        grant = client.identity.grant
        return {
            "id": client.id,
            "kind": "client",
            "owner": client.identity.name,
            "from": client.peer,
            "client": client.facts.asDict(),
            "dialect": client.dialect,
            "tunnels": [tunnel.publicURI for tunnel in own],
            **self._entry(
                client,
                client.opened,
                sum(bytesIn for bytesIn, _ in counts),
                sum(bytesOut for _, bytesOut in counts),
                self._service.access.timeLeft(client.identity)
                if grant is None or grant.timeLeft is None
                else grant.timeLeft,
            ),
        }

    def _tunnel(self, tunnel: Tunnel) -> dict[str, object]:
        peers = [
            client.peer
            for client in self._service.clients
            if client.side is not None and tunnel.clientSide is client.side
        ]
        return {
            "id": tunnel.id,
            "kind": "tunnel",
            "owner": tunnel.owner.name,
            "from": peers[0] if peers else "",
            "tunnel": tunnel.publicURI,
            "address": tunnel.address,
            "page": tunnel.page,
            "name": tunnel.name,
            "target": tunnel.target,
            "visitors": len(tunnel.streams),
            "visitorsTotal": tunnel.visitorCount,
            **tunnel.healthNow(),
            **self._entry(
                tunnel, tunnel.opened, *tunnel.countsNow(), self._timeLeft(tunnel)
            ),
        }

    def _visitor(self, stream: Stream) -> dict[str, object]:
        tunnel = stream.tunnel
        return {
            "id": stream.id,
            "kind": "visitor",
            "owner": tunnel.owner.name,
            "from": stream.visitorAddress,
            "tunnel": tunnel.publicURI,
            "name": tunnel.name,
            "target": stream.target or tunnel.target,
            **self._entry(
                stream,
                stream.opened,
                stream.bytesIn,
                stream.bytesOut,
                self._timeLeft(tunnel),
            ),
        }

    def _timeLeft(self, tunnel: Tunnel) -> float | None:
        left = []
        if tunnel.until is not None:
            left.append(max(0.0, tunnel.until - self._service.reactor.seconds()))
        grant = tunnel.owner.grant
        if grant is not None and grant.timeLeft is not None:
            left.append(grant.timeLeft)
        return min(left, default=None)

    # Ending

    @returnsDeferred
    async def closeSession(self, caller: Caller, identifier: str) -> None:
        """
        End a client's session, a tunnel or a visitor's stream.

        @raise TunnelError: C{unknown-session}, also for somebody else's.
        """
        client = self._service.clients.find(identifier)
        if client is not None and mayEnd(caller, client):
            reason = TunnelError("closed", "the session was closed on request")
            # Also streams that have left the session and would outlive it.
            for tunnel in self._service.servedBy(client.side):
                for stream in list(tunnel.streams):
                    stream.reset(reason)
            client.end(reason)
            return
        if "." in identifier:
            await self.kick(caller, identifier)
            return
        tunnel = await self._find(caller, identifier)
        await self._service.destroy(
            tunnel, TunnelError("closed", "the tunnel was closed on request")
        )

    @returnsDeferred
    async def kick(self, caller: Caller, visitor: str) -> None:
        """
        Break a visitor's stream.

        @param visitor: Its id.
        @raise TunnelError: C{unknown-session}, also for somebody else's.
        """
        own = visitor.partition(".")[0]
        dialled = (t for t in self._service.here.dialled if t.id == own)
        tunnel = next(dialled, None)
        if tunnel is None or not self._service.mayControl(caller, tunnel):
            tunnel = await self._find(caller, own)
        for stream in tunnel.streams:
            if stream.id == visitor:
                stream.reset(TunnelError("closed", "the visitor was disconnected"))
                return
        raise TunnelError("unknown-session")

    async def _find(self, caller: Caller, identifier: str) -> Tunnel:
        try:
            tunnel: Tunnel = await self._service.find(identifier)
        except TunnelError:
            raise TunnelError("unknown-session") from None
        if not self._service.mayControl(caller, tunnel):
            raise TunnelError("unknown-session")
        return tunnel
