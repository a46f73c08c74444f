"""
Whose a port or a name is: what happens when it is asked for and not free.

A tunnel outlives its session for the time of its lease, and a session that is
cut off without a word takes a while to end. Until then its place is taken,
though nobody is there. The same owner gets it at once; for everybody else the
refusal says what is the matter, and clients that wait are told of the end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from tristunnel.errors import TunnelError
from tristunnel.model.options import TunnelOptions
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.clients import ConnectedClients
from tristunnel.service.registry import Leases

__all__ = ["MOST_WAITING", "Claims"]

MOST_WAITING = 64
"""Sessions that are told when a tunnel's place is free; the last ones to ask
are not."""


@runtime_checkable
class _Waits(Protocol):
    """A session that can be told that a place is free."""

    def placeFree(self, port: int, name: str) -> None:
        pass


class Claims:
    """
    Decides on places that several want.

    @param leases: What keeps tunnels open.
    @param clients: Who is connected.
    @param destroy: Ends a tunnel.
    """

    def __init__(
        self,
        leases: Leases,
        clients: ConnectedClients,
        destroy: Callable[[Tunnel, TunnelError], Awaitable[None]],
    ) -> None:
        self._leases = leases
        self._clients = clients
        self._destroy = destroy
        # By kind and number or name; to look through all tunnels would take long
        # when there are many, and somebody asks again and again.
        self._holders: dict[tuple[str, str], Tunnel] = {}
        self._places: dict[Tunnel, dict[str, str]] = {}
        # In the order in which they asked; a session that is over counts no more.
        self._waiting: WeakKeyDictionary[Tunnel, WeakKeyDictionary[_Waits, None]] = (
            WeakKeyDictionary()
        )

    async def makeWay(
        self,
        caller: Caller,
        wanted: TunnelOptions,
        refusal: TunnelError,
        displaces: bool,
    ) -> None:
        """
        Have a tunnel of the same owner's give way that nobody serves any more.

        @param refusal: Why what is wanted could not be had.
        @param displaces: Whether a tunnel may be closed for it.
        @raise TunnelError: If none has given way, with the true reason.
        """
        rival = self._rival(wanted, refusal.code.name)
        if rival is None:
            raise refusal
        displaces = displaces and self._isOwn(caller, rival)
        if displaces and not await self._isLive(rival, caller):
            await self._displace(rival)
            return
        if refusal.code.name == "limit-reached":
            raise refusal
        self._tellLater(caller, rival)
        raise self._explained(caller, wanted, refusal, rival)

    def took(self, tunnel: Tunnel) -> None:
        """A tunnel is open, and its place is its own."""
        places = {"name": tunnel.name} if tunnel.name else {}
        route = getattr(tunnel.listener, "route", None)
        if route is not None:
            places[route.kind] = f"{route.host}{route.path}"
        for kind, listener in (
            (tunnel.protocol, tunnel.listener),
            ("uri", tunnel.clientListener),
        ):
            if listener is not None and listener.address[2]:
                places[kind] = str(listener.address[2])
        self._places[tunnel] = places
        self._holders.update(dict.fromkeys(places.items(), tunnel))

    def _rival(self, wanted: TunnelOptions, code: str) -> Tunnel | None:
        port = "" if wanted.private or not wanted.port else str(wanted.port)
        protocol = "udp" if wanted.listener == "udp" else "tcp"
        name = ("name", wanted.name)
        host = (wanted.listener, f"{wanted.name}{wanted.path}")
        ports = [(protocol, port), ("uri", port if protocol == "tcp" else "")]
        places = {
            "name-taken": [name, host],
            "port-taken": ports,
            "limit-reached": [name, host, *ports],
        }
        found = (self._holders.get(place) for place in places.get(code, ()))
        return next((tunnel for tunnel in found if tunnel is not None), None)

    @staticmethod
    def _isOwn(caller: Caller, rival: Tunnel) -> bool:
        """
        Whether a tunnel is the caller's by its name: of C{anonymous} there are
        many, whom only the secret of a lease tells apart.
        """
        identity = caller.identity
        return rival.owner == identity and not (identity.anonymous or identity.issued)

    async def _isLive(self, rival: Tunnel, caller: Caller) -> bool:
        """Whether somebody serves a tunnel, or may come with its URI to do so."""
        side = rival.clientSide
        if side is None:
            return self._leases.of(rival) is None
        if side is caller.clientSide:
            return True
        isThere: Callable[[], Awaitable[bool]] | None = getattr(side, "isThere", None)
        return isThere is None or await isThere()

    async def _displace(self, rival: Tunnel) -> None:
        """End a tunnel, and the session that does not answer."""
        reason = TunnelError("displaced", "its owner has opened it elsewhere")
        side, lease = rival.clientSide, self._leases.of(rival)
        await self._destroy(rival, reason)
        if lease is not None:
            self._leases.drop(lease, rival)
        fail: Callable[[TunnelError], object] | None = getattr(side, "fail", None)
        if fail is not None:
            fail(reason)

    def _explained(
        self,
        caller: Caller,
        wanted: TunnelOptions,
        refusal: TunnelError,
        rival: Tunnel,
    ) -> TunnelError:
        place, code = f"port {wanted.port}", refusal.code.name
        cure = "choose another, or 0 for any"
        if code == "name-taken":
            place, cure = f"the name {wanted.name!r}", "choose another"
        elif wanted.listener == "udp":
            place = f"UDP {place}"
        side, own = rival.clientSide, self._isOwn(caller, rival)
        left = self._leases.timeLeft(rival)
        if side is None and left is not None:
            return TunnelError(
                code,
                f"{place} is kept for the client that had it, should it come back"
                f" with its lease, for {left:.0f} s more; wait, or {cure}",
                left,
            )
        if side is not None and side is caller.clientSide:
            return TunnelError(code, f"this client already has {place}; {cure}")
        if not own:
            return TunnelError(code, f"{place} belongs to another client; {cure}")
        for client in self._clients:
            if client.side is side and side is not None:
                return TunnelError(
                    code,
                    f"another client of {caller.identity.name} at {client.peer} has"
                    f" {place}; stop that one, or {cure}",
                )
        return TunnelError(
            code, f"your tunnel {rival.publicURI} has {place}; close it, or {cure}"
        )

    def _tellLater(self, caller: Caller, rival: Tunnel) -> None:
        side: object = caller.clientSide
        waiting = self._waiting.setdefault(rival, WeakKeyDictionary())
        if isinstance(side, _Waits) and len(waiting) < MOST_WAITING:
            waiting[side] = None

    def freed(self, tunnel: Tunnel) -> None:
        """A tunnel has its place no more: tell those who wait for it."""
        places = self._places.pop(tunnel, {})
        for place in places.items():
            if self._holders.get(place) is tunnel:
                del self._holders[place]
        port = int(places.get(tunnel.protocol, 0))
        for session in list(self._waiting.pop(tunnel, ())):
            session.placeFree(port, places.get("name", ""))
