"""What becomes of visitors' ports when their tunnel goes to another process."""

from __future__ import annotations

from typing import Any

from tristunnel.model.record import TunnelRecord
from tristunnel.model.tunnel import Tunnel

__all__ = ["PortsKept"]


class PortsKept:
    """They end with it: there is nobody who would keep them."""

    def keep(self, tunnel: str, lease: str, listener: Any) -> None:
        """
        Have a port outlive this process.

        @param tunnel: The id of its tunnel.
        @param lease: What keeps that open.
        @param listener: What visitors come to; C{None} without a public side.
        """

    def isShown(self, record: TunnelRecord) -> bool:
        """
        Whether visitors of a tunnel of this member come in at others, too.

        @param record: What the book says of it.
        """
        return False

    def keeps(self, listener: Any) -> bool:
        """Whether those who come to a port can wait for another process."""
        return False

    def drop(self, tunnel: str) -> None:
        """A tunnel needs its port no more; doing it twice is no error."""

    def moved(self, record: TunnelRecord) -> None:
        """
        A tunnel's client has come to another member, whose it is from now on.

        @param record: What the book says of it since then.
        """

    def leaves(self, record: TunnelRecord) -> None:
        """
        This member stops, and a tunnel's client is about to go to another one.

        @param record: What the book says of it.
        """

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
        Another member has a tunnel now, and its port here is about to be closed.

        @param listener: What visitors came to.
        """

    async def recall(self, tunnel: str) -> None:
        """
        Have the port of a tunnel at hand that another process had.

        @raise TunnelError: If that cannot be had.
        """

    def forget(self, tunnel: str) -> None:
        """Close what was recalled for a tunnel and nobody has asked for."""
