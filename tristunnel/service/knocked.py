"""
The addresses that have knocked: a tunnel that asks for it lets in nobody else.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_network

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.errors import TunnelError
from tristunnel.model.policy import Network
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.visitor_filter import hostOfVisitor
from tristunnel.util.hosts import addressOf

__all__ = ["MOST", "Knocked", "networkOf"]

MOST = 1000
"""Addresses that one tunnel lets in at once."""


def networkOf(host: str) -> Network | None:
    """
    Find out what is let in when somebody knocks: an IPv4 address, or an IPv6 network of
    64 bits, which one household or one machine has to itself, since the other half of
    an address changes over time (RFC 8981).

    @return: C{None}, if that is not an address.
    """
    address = addressOf(host)
    if address is None:
        return None
    bits = 64 if isinstance(address, IPv6Address) else 32
    return ip_network((int(address) if bits == 32 else address.packed, bits), False)


class Knocked:
    """
    Lets in who has knocked, for a while, and ends their streams when it is over: a
    L{VisitorFilter<tristunnel.model.tunnel.VisitorFilter>}.

    @param reactor: Tells time.
    @param tunnel: Whose visitors.

    @ivar free: Networks that need not knock.
    @ivar rules: What was asked of those who have knocked.
    """

    def __init__(self, reactor: IReactorTime, tunnel: Tunnel) -> None:
        self._reactor = reactor
        self._tunnel = tunnel
        self.free: tuple[Network, ...] = ()
        self.rules = tunnel.gate
        # Until when; who is out first stands first, since all may stay equally long.
        self._until: dict[Network, float] = {}
        self._next: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._until)

    def enter(self, stream: Stream) -> None:
        self.check(hostOfVisitor(stream.visitorAddress))

    def leave(self, stream: Stream) -> None:
        """The visitor may come again until the time is over."""

    def check(self, host: str) -> None:
        """@raise TunnelError: C{not-permitted}, if who comes from there must knock."""
        network, address = networkOf(host), addressOf(host)
        if network is None or address is None:
            raise TunnelError("not-permitted", "the visitor's address is not known")
        isIn = self._until.get(network, 0.0) > self._reactor.seconds()
        if not isIn and not any(address in each for each in self.free):
            raise TunnelError("not-permitted", f"nobody has knocked from {host}")

    def admit(self, network: Network, seconds: float) -> float:
        """
        Let an address in, or let it stay longer.

        @param seconds: For how long; an earlier, longer time is not shortened.
        @return: The same.
        @raise TunnelError: C{limit-reached}, if too many are in.
        """
        if network not in self._until and len(self._until) >= MOST:
            raise TunnelError(
                "limit-reached",
                f"{MOST} addresses have been let in, which is the limit",
            )
        self._until.pop(network, None)
        self._until[network] = self._reactor.seconds() + seconds
        self._later()
        return seconds

    def forget(self) -> None:
        """Forget all who have knocked so far."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._until.clear()

    def endStreams(self) -> None:
        """End the streams of those who would have to knock now."""
        for stream in list(self._tunnel.streams):
            try:
                self.check(hostOfVisitor(stream.visitorAddress))
            except TunnelError:
                stream.reset(TunnelError("expired", "its visitor has to knock again"))

    def _later(self) -> None:
        if self._next is None and self._until:
            left = next(iter(self._until.values())) - self._reactor.seconds()
            self._next = self._reactor.callLater(max(left, 0.0), self._sweep)

    def _sweep(self) -> None:
        self._next = None
        now = self._reactor.seconds()
        while self._until:
            network, until = next(iter(self._until.items()))
            if until > now:
                break
            del self._until[network]
        self.endStreams()
        self._later()
