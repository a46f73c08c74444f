"""What becomes of what is here when the book changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tristunnel.errors import TunnelError
from tristunnel.model.book import IBook
from tristunnel.model.record import Change, TunnelRecord
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.access import AccessGrants
from tristunnel.service.here import Here
from tristunnel.service.leases import Leases

__all__ = ["Elsewhere"]


class Elsewhere:
    """
    Obeys the book: what time ends, or another process has taken over, ends here.

    @param book: The book.
    @param here: The tunnels of this process.
    @param leases: Its leases.
    @param access: Its access.
    @param discard: Ends tunnels.
    @param moved: Told of each tunnel whose client is at another process now.
    """

    def __init__(
        self,
        book: IBook,
        here: Here,
        leases: Leases,
        access: AccessGrants,
        discard: Callable[[list[Tunnel], TunnelError], object],
        moved: Callable[[TunnelRecord], object],
    ) -> None:
        self._book = book
        self._here = here
        self._leases = leases
        self._access = access
        self._discard = discard
        self._moved = moved

    def changed(self, change: Change) -> None:
        """Something has happened in the book, maybe by another process."""
        if change.kind == "access":
            self._access.changed(change.id)
        elif change.kind == "resynced":
            self._access.lookThrough()
        elif change.kind == "closed":
            self._tunnelClosed(change)
        elif change.kind == "expired":
            reason = TunnelError("expired", "its client did not reconnect in time")
            self._leaseLost(change, reason)
        elif change.kind == "claimed" and change.place.member != self._book.member:
            self._leaseLost(change, TunnelError("displaced"))

    def _tunnelClosed(self, change: Change) -> None:
        held = self._here.get(change.id)
        if held is not None and held.place == change.place:
            # The book had to forget it, and has given to another what it had.
            reason = TunnelError("port-taken", "its port or name is another one's now")
            self._discard([held.tunnel], reason)

    def _leaseLost(self, change: Change, reason: TunnelError) -> None:
        lease = self._leases.find(change.id)
        if lease is None or change.place.fence < lease.place.fence:
            return
        self._leases.forget(lease.id)
        holder, lease.holder = lease.holder, None
        if holder is not None:
            holder.displaced()
        if change.kind == "claimed":
            for tunnel in lease.tunnels:
                held = self._here.get(tunnel.id)
                if held is not None:
                    self._moved(replace(held.record, place=change.place))
        self._discard(list(lease.tunnels), reason)
