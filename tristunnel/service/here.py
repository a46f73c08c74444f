"""The tunnels whose visitors this process serves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from weakref import WeakSet

from tristunnel.errors import TunnelError
from tristunnel.model.record import Place, TunnelRecord
from tristunnel.model.tunnel import Tunnel

__all__ = ["Held", "Here"]


@dataclass(eq=False)
class Held:
    """
    A tunnel of this process, and what the book says of it.

    @ivar tunnel: The tunnel.
    @ivar record: What is written of it; with an empty URI until it is open.
    @ivar reserved: What it has reserved, by its use: C{"name"}, C{"visitors"},
        C{"uri"}.
    @ivar counts: Whether it is one that somebody opened; a relay's channel is not.
    @ivar hasPorts: Whether ports are open for it, and not just a name.
    """

    tunnel: Tunnel
    record: TunnelRecord
    reserved: dict[str, str] = field(default_factory=dict)
    counts: bool = True
    hasPorts: bool = False

    @property
    def place(self) -> Place:
        """As whom this process may change what is written."""
        return self.record.place

    def port(self, use: str) -> int:
        """The port that it has reserved for something; 0 for none."""
        port = self.reserved.get(use, "").partition(":")[2]
        return int(port) if port.isdecimal() else 0


class Here:
    """
    All of them, oldest first. Iteration yields those that are open, and not those that
    are still being made.

    @ivar count: How many are L{counted}.
    @ivar withPorts: How many of those have ports.
    @ivar leaving: Why other processes are to send no more visitors, or C{None}.
    @ivar dialled: What its clients have dialled: each session's is a tunnel that
        nobody finds, and that is forgotten with its streams.
    """

    def __init__(self) -> None:
        self.dialled: WeakSet[Tunnel] = WeakSet()
        self._held: dict[str, Held] = {}
        self.count = self.withPorts = 0
        self.leaving: TunnelError | None = None

    def __iter__(self) -> Iterator[Tunnel]:
        return iter([held.tunnel for held in self._held.values() if held.record.uri])

    def __len__(self) -> int:
        return len(self._held)

    @property
    def all(self) -> list[Tunnel]:
        """Those that are still being made, too."""
        return [held.tunnel for held in self._held.values()]

    @property
    def counted(self) -> list[Tunnel]:
        """Those that somebody opened, without the relay's channels."""
        return [held.tunnel for held in self._held.values() if held.counts]

    def add(self, held: Held) -> None:
        """Have a tunnel."""
        self.remove(held.record.id)
        self._held[held.record.id] = held
        self.count += held.counts
        self.withPorts += held.counts and held.hasPorts

    def getsPort(self, held: Held) -> None:
        """
        Note that a port is about to be opened for a tunnel. It may be called twice.
        """
        if not held.hasPorts:
            held.hasPorts = True
            self.withPorts += held.counts

    def remove(self, tunnel: str) -> Held | None:
        """
        Remove a tunnel.

        @param tunnel: Its id.
        @return: What was known of it; C{None}, if it was not here.
        """
        held = self._held.pop(tunnel, None)
        if held is not None:
            self.count -= held.counts
            self.withPorts -= held.counts and held.hasPorts
        return held

    def leave(self) -> list[Tunnel]:
        """
        Give up all tunnels, because the process ends. What a lease keeps stays in the
        book: its client may have it elsewhere.

        @return: All tunnels, to be ended here.
        """
        tunnels = self.all
        for held in list(self._held.values()):
            if held.record.lease:
                self.remove(held.record.id)
                # The client is not told that they are over either.
                held.tunnel.clientSide = None
        return tunnels

    def get(self, tunnel: str) -> Held | None:
        """
        Look a tunnel up.

        @param tunnel: Its id.
        """
        return self._held.get(tunnel)

    def served(self, tunnel: str) -> Tunnel:
        """
        Find the tunnel of visitors who came in at another process.

        @param tunnel: Its id.
        @raise TunnelError: C{client-away}, if its client is not here now; they may
            wait where they came in.
        """
        held = self._held.get(tunnel)
        if held is None or held.tunnel.clientSide is None:
            raise TunnelError("client-away")
        if self.leaving is not None:
            raise self.leaving
        return held.tunnel

    def of(self, tunnel: Tunnel) -> Held | None:
        """
        Find what the book says of a tunnel; C{None} if it is not here. There may be
        another one of the same id, if it has been elsewhere meanwhile and has come
        back.
        """
        held = self._held.get(tunnel.id)
        return held if held is not None and held.tunnel is tunnel else None

    def live(self, record: TunnelRecord) -> Tunnel:
        """
        The tunnel that a record is of.

        @raise TunnelError: C{unknown-tunnel}, for one that another process serves or
            that ends.
        """
        held = self._held.get(record.id)
        if held is not None:
            return held.tunnel
        raise TunnelError("unknown-tunnel")
