"""
Several tunnels that share their public side: one place, and a client behind it for
each of them.

Each is a tunnel like any other, with an owner, a lease, limits and counts of its own;
they only share their visitors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from twisted.internet.defer import succeed

from tristunnel.errors import badOption, printable
from tristunnel.model.tunnel import Tunnel

__all__ = ["BALANCES", "LEAST_BUSY", "Group", "SharedListener", "checkBalance"]

LEAST_BUSY = "least-busy"


def _leastBusy(group: Group, ready: Sequence[Tunnel], address: str) -> Tunnel:
    # Among those that are equally busy, they take turns.
    first = _inTurn(group, ready, address)
    return min((first, *ready), key=lambda tunnel: len(tunnel.streams))


def _inTurn(group: Group, ready: Sequence[Tunnel], address: str) -> Tunnel:
    group.turn += 1
    return ready[group.turn % len(ready)]


def _sticky(group: Group, ready: Sequence[Tunnel], address: str) -> Tunnel:
    # The highest random weight: when one leaves, only its own visitors change.
    host = address.rpartition(":")[0] or address

    def weight(tunnel: Tunnel) -> bytes:
        return blake2b(f"{tunnel.id} {host}".encode(), digest_size=8).digest()

    return max(ready, key=weight)


Balance = Callable[["Group", Sequence[Tunnel], str], Tunnel]

BALANCES: Mapping[str, Balance] = {
    LEAST_BUSY: _leastBusy,
    "round-robin": _inTurn,
    "sticky": _sticky,
}
"""How visitors are divided, by the values of C{share}: to the tunnel with the fewest
visitors, to each in turn, or by the visitor's address."""


def checkBalance(text: str) -> None:
    """
    @raise TunnelError: C{bad-option}, if visitors cannot be divided in such a way.
    """
    if text not in BALANCES:
        raise badOption(
            f"share takes {', '.join(BALANCES)}; not {printable(text, 60)!r}"
        )


@dataclass(eq=False)
class Group:
    """
    Tunnels that share a public side.

    @ivar balance: How visitors are divided: a key of L{BALANCES}.
    @ivar tunnels: Its tunnels, the oldest first.
    @ivar turn: Counts visitors.
    @ivar listener: What is shared; C{None} where visitors come by name only.
    """

    balance: str = LEAST_BUSY
    tunnels: list[Tunnel] = field(default_factory=list)
    turn: int = 0
    listener: Any = None

    def chosen(self, address: str) -> Tunnel | None:
        """
        Find the tunnel for a visitor: one whose client is there and whose service is
        well; if there is none, any of them, which will say what is wrong.

        @param address: Where the visitor comes from.
        @return: C{None} if all are closed.
        """
        ready = [tunnel for tunnel in self.tunnels if tunnel.isReady]
        if ready:
            return BALANCES[self.balance](self, ready, address)
        return self.tunnels[-1] if self.tunnels else None

    def enter(self, tunnel: Tunnel, balance: str) -> None:
        """
        Add a tunnel.

        @param balance: How visitors are to be divided; what the newest tunnel says
            counts.
        """
        self.tunnels.append(tunnel)
        self.balance = balance
        tunnel.group = self

    def leave(self, tunnel: Tunnel) -> None:
        """Remove a tunnel that is over. It may be called twice."""
        if tunnel in self.tunnels:
            self.tunnels.remove(tunnel)


class SharedListener:
    """
    The L{IListener<tristunnel.model.place.IListener>} of one tunnel of a group. Its
    attributes are those of the shared listener, which is closed with the last of these.
    """

    def __init__(self, group: Group, tunnel: Tunnel) -> None:
        self._group = group
        self._tunnel = tunnel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group.listener, name)

    @property
    def address(self) -> tuple[str, str, int]:
        """The scheme, the interface and the port."""
        address: tuple[str, str, int] = self._group.listener.address
        return address

    def close(self) -> Awaitable[object]:
        """Let visitors in for this tunnel no longer."""
        group = self._group
        group.leave(self._tunnel)
        if group.tunnels or group.listener is None:
            return succeed(None)
        closing: Awaitable[object] = group.listener.close()
        return closing
