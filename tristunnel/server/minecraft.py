"""
A port for several Minecraft servers: a player's first packet says which one is meant.
"""

from __future__ import annotations

from dataclasses import dataclass

from tristunnel.errors import TunnelError, printable
from tristunnel.names.table import NameTable
from tristunnel.server.sorting import Sorting, SortingFactory
from tristunnel.wire.minecraft import NotMinecraft, readHandshake, refusal

__all__ = ["MINECRAFT", "MinecraftFactory"]

MINECRAFT = "minecraft"
"""What C{openTunnel} calls such a listener."""


class _Sorting(Sorting):
    awaited = "Minecraft handshake"

    def sort(self, data: bytes) -> int:
        try:
            hello = readHandshake(data)
        except NotMinecraft as problem:
            self.refuse(TunnelError("protocol-error", f"no Minecraft: {problem}"))
            return 0
        if hello is None:
            return len(data) + 1
        route = self._parent.table.find(MINECRAFT, hello.host)
        if route is None:
            host = printable(hello.host, 100) or "this name"
            words = f"there is no server called {host} here"
            reason = TunnelError("unknown-tunnel", words)
            self.refuse(reason, refusal(hello, words.capitalize()))
        else:
            self.giveTo(route)
        return 0


@dataclass(eq=False, kw_only=True)
class MinecraftFactory(SortingFactory):
    """
    Serves such a port.

    @ivar table: The names of tunnels.
    """

    sorting = _Sorting

    table: NameTable
