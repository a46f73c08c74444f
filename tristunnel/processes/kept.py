"""
The parent's copies of visitors' ports.

A member opens a port itself, and gives a copy to the parent. So the port outlives a
member that is killed: connections wait in the kernel until another member takes over
the tunnel and asks for a copy.
"""

from __future__ import annotations

from socket import socket

from tristunnel.errors import TunnelError

__all__ = ["KeptPorts"]


class KeptPorts:
    """
    Copies of listening sockets, by the tunnel whose visitors come there.
    """

    def __init__(self) -> None:
        self._sockets: dict[str, list[socket]] = {}
        self._tunnels: dict[str, set[str]] = {}
        self._leases: dict[str, str] = {}

    def __len__(self) -> int:
        return sum(map(len, self._sockets.values()))

    def keep(self, tunnel: str, lease: str, sockets: list[socket]) -> None:
        """
        Keep copies, in place of earlier ones.

        @param tunnel: The id of the tunnel.
        @param lease: What keeps it open.
        """
        self.drop(tunnel)
        self._sockets[tunnel] = sockets
        self._leases[tunnel] = lease
        self._tunnels.setdefault(lease, set()).add(tunnel)

    def copies(self, tunnel: str) -> list[socket]:
        """
        Make copies for another member; none, if nothing is kept.

        @raise TunnelError: C{limit-reached}, without a descriptor for them.
        """
        made: list[socket] = []
        try:
            made.extend(each.dup() for each in self._sockets.get(tunnel, ()))
        except OSError as error:
            for each in made:
                each.close()
            raise TunnelError(
                "limit-reached", f"the parent process: {error.strerror}"
            ) from None
        return made

    def drop(self, tunnel: str) -> None:
        """
        Close the copies. The port is then free, unless another process still has it.
        """
        for each in self._sockets.pop(tunnel, ()):
            each.close()
        lease = self._leases.pop(tunnel, None)
        if lease is not None:
            left = self._tunnels[lease]
            left.discard(tunnel)
            if not left:
                del self._tunnels[lease]

    def dropOf(self, lease: str) -> None:
        """A lease is over: close the copies of all of its tunnels."""
        for tunnel in list(self._tunnels.get(lease, ())):
            self.drop(tunnel)

    def close(self) -> None:
        """Close all."""
        for tunnel in list(self._sockets):
            self.drop(tunnel)
