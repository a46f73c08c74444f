"""
Visitors' ports that outlive the member that has opened them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM, socket
from typing import Any
from weakref import WeakSet

from twisted.logger import Logger

from tristunnel.dataplane.acceptor import listeningSocket
from tristunnel.dataplane.datagrams import boundSocket
from tristunnel.errors import TunnelError
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.listeners.udp import UDPListeners
from tristunnel.model.kept_ports import PortsKept
from tristunnel.processes.membership import Membership

__all__ = ["RecalledPorts", "VisitorsPorts"]


class RecalledPorts(PortsKept):
    """
    Holds the sockets of visitors' ports until somebody listens on them again.
    Meanwhile, connections wait in the kernel.
    """

    def __init__(self) -> None:
        # By kind, family and port: whose they are.
        self._recalled: dict[tuple[int, int, int], tuple[str, socket]] = {}

    def hold(self, tunnel: str, sockets: Sequence[socket]) -> None:
        """
        Hold sockets.

        @param tunnel: The id of the tunnel that they are for.
        @param sockets: Owned by this object from now on.
        """
        for each in sockets:
            key = (int(each.type), int(each.family), int(each.getsockname()[1]))
            _, before = self._recalled.pop(key, ("", None))
            if before is not None:
                before.close()
            self._recalled[key] = tunnel, each

    def forget(self, tunnel: str) -> None:
        for key, (whose, each) in list(self._recalled.items()):
            if whose == tunnel:
                del self._recalled[key]
                each.close()

    def _take(self, kind: int, interface: str, port: int) -> socket | None:
        family = AF_INET6 if ":" in interface else AF_INET
        _, found = self._recalled.pop((int(kind), int(family), port), ("", None))
        return found

    def listen(self, interface: str, port: int) -> socket:
        """
        Listen on a TCP port, as L{listeningSocket} does.

        @raise OSError: If it cannot be had.
        """
        recalled = self._take(SOCK_STREAM, interface, port)
        return listeningSocket(interface, port) if recalled is None else recalled

    def bind(self, interface: str, port: int) -> socket:
        """
        Open a UDP port, as L{boundSocket} does.

        @raise OSError: If it cannot be had.
        """
        recalled = self._take(SOCK_DGRAM, interface, port)
        return boundSocket(interface, port) if recalled is None else recalled

    def serveFor(self, listeners: Iterable[object]) -> None:
        """Have listeners open their ports here."""
        for each in listeners:
            if isinstance(each, TCPListeners):
                each.bind = self.listen
            elif isinstance(each, UDPListeners):
                each.bind = self.bind


class VisitorsPorts(RecalledPorts):
    """
    The ports of this member's tunnels, of which the parent has copies.

    @param membership: The way to the parent.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(self, membership: Membership) -> None:
        super().__init__()
        self._membership = membership
        self._kept: WeakSet[Any] = WeakSet()

    def keep(self, tunnel: str, lease: str, listener: Any) -> None:
        sockets = getattr(listener, "sockets", ())
        if not sockets:
            return
        try:
            self._membership.keep(tunnel, lease, sockets)
            if all(each.type == SOCK_STREAM for each in sockets):
                # The present visitors of a UDP port depend on its socket.
                self._kept.add(listener)
        except TunnelError as refusal:
            self._log.warn(
                "The port of {tunnel} ends with this process: {refusal}",
                tunnel=tunnel,
                refusal=refusal,
            )

    def keeps(self, listener: Any) -> bool:
        return listener in self._kept

    def drop(self, tunnel: str) -> None:
        self._membership.parent.tell("drop", [tunnel])

    async def recall(self, tunnel: str) -> None:
        self.hold(tunnel, await self._membership.copies(tunnel))
