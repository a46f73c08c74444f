"""
Whose a port or a name is: what happens when it is asked for and not free.

A tunnel outlives its session for the time of its lease, and a session that is cut off
without a word takes a while to end. Until then its place is taken, though nobody serves
it. The same owner gets it at once; for everybody else the refusal says what the reason
is, and clients that wait are told when it becomes free.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from tristunnel.errors import TunnelError
from tristunnel.model.options import TunnelOptions
from tristunnel.model.record import TunnelRecord, named
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.clients import ConnectedClients
from tristunnel.service.entries import ownerOf
from tristunnel.service.here import Here
from tristunnel.service.leases import Leases

__all__ = ["MOST_WAITING", "Claims"]

MOST_WAITING = 64
"""Sessions that are told when a tunnel's place is free; the last ones to ask
are not."""


@runtime_checkable
class _Waits(Protocol):
    """A session that can be told that a place is free."""

    def placeFree(self, port: int, name: str) -> None:
        pass


@dataclass(eq=False)
class Claims:
    """
    Decides on places that several want.

    @ivar leases: What keeps tunnels open.
    @ivar clients: Who is connected.
    @ivar here: The tunnels of this process.
    @ivar holder: Finds out whose something is, as the book does.
    @ivar destroy: Ends a tunnel.
    """

    leases: Leases
    clients: ConnectedClients
    here: Here
    holder: Callable[[str], Awaitable[TunnelRecord | None]]
    destroy: Callable[[Tunnel, TunnelError], Awaitable[None]]
    # In the order in which they asked; a session that is over does not count any more.
    _waiting: WeakKeyDictionary[Tunnel, WeakKeyDictionary[_Waits, None]] = field(
        init=False, default_factory=WeakKeyDictionary
    )

    async def makeWay(
        self,
        caller: Caller,
        wanted: TunnelOptions,
        refusal: TunnelError,
        displaces: bool,
    ) -> None:
        """
        Have a tunnel give way that belongs to the same owner and that nobody serves any
        more.

        @param refusal: Why what is wanted could not be had.
        @param displaces: Whether a tunnel may be closed for it.
        @raise TunnelError: If none has given way, with the true reason.
        """
        record = await self._rival(wanted, refusal.code.name)
        if record is None or not record.uri:
            # It is nobody's here, or belongs to one that is just being opened.
            raise refusal
        held = self.here.get(record.id)
        rival = None if held is None else held.tunnel
        displaces = displaces and self._isOwn(caller, record)
        if displaces and rival and not await self._isLive(rival, caller):
            await self._displace(rival)
            return
        if refusal.code.name == "limit-reached":
            raise refusal
        if rival is not None:
            self._tellLater(caller, rival)
        raise self._explained(caller, wanted, refusal, record, rival)

    async def _rival(self, wanted: TunnelOptions, code: str) -> TunnelRecord | None:
        name = []
        if wanted.name:
            host = f"{wanted.listener}:{wanted.name}{wanted.path}"
            name = [named(wanted.name), host]
        ports = []
        if wanted.port and not wanted.private:
            kinds = ["udp"] if wanted.listener == "udp" else ["tcp", "loopback"]
            ports = [f"{kind}:{wanted.port}" for kind in kinds]
        places = {
            "name-taken": name,
            "port-taken": ports,
            "limit-reached": [*name, *ports],
        }
        for place in places.get(code, ()):
            record = await self.holder(place)
            if record is not None:
                return record
        return None

    @staticmethod
    def _isOwn(caller: Caller, rival: TunnelRecord) -> bool:
        """
        Whether a tunnel is the caller's by its name: of C{anonymous} there are
        many, whom only the secret of a lease tells apart.
        """
        identity = caller.identity
        own = ownerOf(rival) == identity
        return own and not (identity.anonymous or identity.issued)

    async def _isLive(self, rival: Tunnel, caller: Caller) -> bool:
        """Whether somebody serves a tunnel, or may come with its URI to do so."""
        side = rival.clientSide
        if side is None:
            return self.leases.of(rival) is None
        if side is caller.clientSide:
            return True
        isThere: Callable[[], Awaitable[bool]] | None = getattr(side, "isThere", None)
        return isThere is None or await isThere()

    async def _displace(self, rival: Tunnel) -> None:
        reason = TunnelError("displaced", "its owner has opened it elsewhere")
        side = rival.clientSide
        await self.destroy(rival, reason)
        fail: Callable[[TunnelError], object] | None = getattr(side, "fail", None)
        if fail is not None:
            fail(reason)

    def _explained(
        self,
        caller: Caller,
        wanted: TunnelOptions,
        refusal: TunnelError,
        record: TunnelRecord,
        rival: Tunnel | None,
    ) -> TunnelError:
        place, code = f"port {wanted.port}", refusal.code.name
        cure = "choose another, or 0 for any"
        if code == "name-taken":
            place, cure = f"the name {wanted.name!r}", "choose another"
        elif wanted.listener == "udp":
            place = f"UDP {place}"
        own = self._isOwn(caller, record)
        side = None if rival is None else rival.clientSide
        left = None if rival is None else self.leases.timeLeft(rival)
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
        if wanted.share and rival is None:
            return TunnelError(
                code,
                f"{place} is shared by clients at another machine of this server, and"
                f" all of a group have to be at one: connect to that one, or {cure}",
            )
        for client in self.clients:
            if client.side is side and side is not None:
                return TunnelError(
                    code,
                    f"another client of {caller.identity.name} at {client.peer} has"
                    f" {place}; stop that one, or {cure}",
                )
        return TunnelError(
            code, f"your tunnel {record.uri} has {place}; close it, or {cure}"
        )

    def _tellLater(self, caller: Caller, rival: Tunnel) -> None:
        side: object = caller.clientSide
        waiting = self._waiting.setdefault(rival, WeakKeyDictionary())
        if isinstance(side, _Waits) and len(waiting) < MOST_WAITING:
            waiting[side] = None

    def freed(self, tunnel: Tunnel, port: int, name: str) -> None:
        """
        Tell those who wait for a tunnel's place that it is free.

        @param port: The one for visitors; 0 if it had none.
        @param name: Its name, or empty.
        """
        for session in list(self._waiting.pop(tunnel, ())):
            session.placeFree(port, name)
