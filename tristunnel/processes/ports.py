"""
Visitors' ports that outlive the member that has opened them.
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM, socket
from typing import Any

from twisted.logger import Logger

from tristunnel.dataplane.acceptor import listeningSocket
from tristunnel.dataplane.datagrams import boundSocket
from tristunnel.errors import TunnelError
from tristunnel.processes.membership import Membership

__all__ = ["VisitorsPorts"]


class VisitorsPorts:
    """
    The ports of this member's tunnels, of which the parent has copies.

    @param membership: The way to the parent.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._recalled: dict[tuple[int, int, int], socket] = {}

    def keep(self, tunnel: str, lease: str, listener: Any) -> None:
        """
        Have the parent keep copies of a listener's sockets.

        @param tunnel: The id of its tunnel.
        @param lease: What keeps that open.
        @param listener: What visitors come to; one without sockets is no error.
        """
        sockets = getattr(listener, "sockets", ())
        if not sockets:
            return
        try:
            self._membership.keep(tunnel, lease, sockets)
        except TunnelError as refusal:
            self._log.warn(
                "The port of {tunnel} ends with this process: {refusal}",
                tunnel=tunnel,
                refusal=refusal,
            )

    def drop(self, tunnel: str) -> None:
        """Have the parent's copies closed; the tunnel needs its port no more."""
        self._membership.parent.tell("drop", [tunnel])

    async def recall(self, tunnel: str) -> None:
        """
        Take copies of the sockets of a tunnel that another member had: L{listen} and
        L{bind} find them.

        @param tunnel: Its id.
        @raise TunnelError: If the parent does not answer.
        """
        for each in await self._membership.copies(tunnel):
            key = (int(each.type), int(each.family), int(each.getsockname()[1]))
            self._close(self._recalled.pop(key, None))
            self._recalled[key] = each

    def forget(self) -> None:
        """Close what was recalled and nobody has asked for."""
        for key in list(self._recalled):
            self._close(self._recalled.pop(key))

    @staticmethod
    def _close(connection: socket | None) -> None:
        if connection is not None:
            connection.close()

    def _take(self, kind: int, interface: str, port: int) -> socket | None:
        family = AF_INET6 if ":" in interface else AF_INET
        return self._recalled.pop((int(kind), int(family), port), None)

    def listen(self, interface: str, port: int) -> socket:
        """
        Listen on a TCP port, as L{listeningSocket} does.

        @raise OSError: If it cannot be had.
        """
        recalled = self._take(SOCK_STREAM, interface, port)
        return listeningSocket(interface, port) if recalled is None else recalled

    def bind(self, interface: str, port: int) -> socket:
        """
        Have a UDP port, as L{boundSocket} does.

        @raise OSError: If it cannot be had.
        """
        recalled = self._take(SOCK_DGRAM, interface, port)
        return boundSocket(interface, port) if recalled is None else recalled
