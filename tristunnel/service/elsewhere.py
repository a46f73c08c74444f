"""What becomes of tunnels and leases of this process when the book changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from tristunnel.errors import TunnelError
from tristunnel.model.book import IBook
from tristunnel.model.kept_ports import PortsKept
from tristunnel.model.record import Change, Place
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.access import AccessGrants
from tristunnel.service.here import Here
from tristunnel.service.host_rules import HostRules
from tristunnel.service.leases import Leases

__all__ = ["Elsewhere"]


class _Service(Protocol):
    """What of a tunnel service the book's word is about."""

    book: IBook
    here: Here
    leases: Leases
    access: AccessGrants
    hosts: HostRules
    kept: PortsKept

    def discard(self, tunnels: list[Tunnel], reason: TunnelError) -> object: ...


class Elsewhere:
    """
    Obeys the book: what has expired, or has been taken over by another process, ends
    here.

    @param service: What is here.
    """

    def __init__(self, service: _Service) -> None:
        self._service = service

    def changed(self, change: Change) -> None:
        """Take a change in the book, which another process may have made."""
        if change.kind == "access":
            self._service.access.changed(change.id)
        elif change.kind == "resynced":
            self._service.access.lookThrough()
        elif change.kind == "closed":
            self._tunnelClosed(change)
        elif change.kind == "expired":
            reason = TunnelError("expired", "its client did not reconnect in time")
            self._service.discard(self._leaseLost(change), reason)
        elif change.kind == "claimed":
            self._claimed(change)

    def _claimed(self, change: Change) -> None:
        if change.place.member != self._service.book.member:
            for tunnel in self._leaseLost(change):
                self._giveUp(tunnel, change.place)

    def _tunnelClosed(self, change: Change) -> None:
        held = self._service.here.get(change.id)
        if held is not None and held.place == change.place:
            # The book had to forget it, and has given its place to another one.
            reason = TunnelError("port-taken", "its port or name is another one's now")
            self._service.discard([held.tunnel], reason)

    def _leaseLost(self, change: Change) -> list[Tunnel]:
        """
        Give up a lease that this process no longer has.

        @return: The tunnels that it kept open here.
        """
        lease = self._service.leases.find(change.id)
        if lease is None or change.place.fence < lease.place.fence:
            return []
        self._service.leases.forget(lease.id)
        holder, lease.holder = lease.holder, None
        if holder is not None:
            holder.displaced()
        return list(lease.tunnels)

    def _giveUp(self, tunnel: Tunnel, place: Place) -> None:
        """
        Give up a tunnel that another member has now; here it ends with the last
        visitor.
        """
        held = self._service.here.remove(tunnel.id)
        kept = self._service.kept
        self._service.hosts.release(tunnel)
        tunnel.clientSide, tunnel.isLeft = None, True
        listener, tunnel.listener = tunnel.listener, None
        if listener is not None:
            kept.handOver(tunnel.id, listener)
            listener.close()
        if held is not None:
            kept.moved(replace(held.record, place=place))
        tunnel.leaveSoon()
        if not tunnel.streams:
            self._service.discard([tunnel], TunnelError("displaced"))
