"""What C{listTunnels} says of a tunnel."""

from __future__ import annotations

from tristunnel.model.rendezvous import Rendezvous
from tristunnel.model.tunnel import Tunnel

__all__ = ["describeTunnel"]


def describeTunnel(tunnel: Tunnel) -> dict[str, object]:
    """Describe a tunnel to whoever may see it, as C{docs/reference.rst} has it."""
    bytesIn, bytesOut = tunnel.countsNow()
    return {
        "uri": tunnel.publicURI,
        "address": tunnel.address,
        "name": tunnel.name,
        "owner": tunnel.owner.name,
        "connected": _isServed(tunnel),
        "visitors": len(tunnel.streams),
        "visitorsTotal": tunnel.visitorCount,
        "refusals": dict(tunnel.refusals),
        "bytesIn": bytesIn,
        "bytesOut": bytesOut,
        "policy": tunnel.policy.describe(),
        "gate": tunnel.gate.describe(),
        **tunnel.datagramCounts(),
        **tunnel.healthNow(),
    }


def _isServed(tunnel: Tunnel) -> bool:
    side = tunnel.clientSide
    if isinstance(side, Rendezvous) and not side.waitingClients:
        return any(stream.client is not None for stream in tunnel.streams)
    return side is not None
