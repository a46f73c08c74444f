"""What becomes of visitors' ports when their tunnel goes to another process."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from tristunnel.model.record import TunnelRecord
from tristunnel.model.tunnel import Tunnel

__all__ = ["PortsKept"]


class PortsKept:
    """Visitors' ports that end with this process, since nobody would keep them."""

    def keep(self, tunnel: str, lease: str, listener: Any) -> None:
        """
        Make a port outlive this process.

        @param tunnel: The id of its tunnel.
        @param lease: What keeps that open.
        @param listener: The tunnel's public side, or C{None}.
        """

    def isShown(self, record: TunnelRecord) -> bool:
        """
        Whether visitors of a tunnel of this member come in at others, too.

        @param record: What the book says of it.
        """
        return False

    def keeps(self, listener: Any) -> bool:
        """Whether connections to a port can wait for another process."""
        return False

    def drop(self, tunnel: str) -> None:
        """
        Give up the port of a tunnel that needs it no more. It may be called twice.
        """

    def moved(self, record: TunnelRecord) -> None:
        """
        Note that a tunnel's client has gone to another member, which has the tunnel
        from now on.

        @param record: What the book says of it since then.
        """

    def leaves(self, record: TunnelRecord) -> Deferred[None]:
        """
        Note that a tunnel's client is about to go to another member, since this one
        stops.

        @param record: What the book says of it.
        @return: Fires when its visitors wait for that.
        """
        return succeed(None)

    def elsewhere(self, record: TunnelRecord) -> Tunnel | None:
        """
        Find what leads visitors to a tunnel of another member.

        @param record: What the book says of it.
        """
        return None

    def streams(self) -> int:
        """How many visitors are with other members."""
        return 0

    def waiting(self) -> int:
        """How many wait for a client that is on its way to another member."""
        return 0

    def handOver(self, tunnel: str, listener: Any) -> None:
        """
        Take over the port of a tunnel that another member has now, before it is closed
        here.

        @param listener: The tunnel's public side.
        """

    async def recall(self, tunnel: str) -> None:
        """
        Get the port of a tunnel that another process had.

        @raise TunnelError: If that is impossible.
        """

    def forget(self, tunnel: str) -> None:
        """Close the ports that were recalled for a tunnel and were not used."""
