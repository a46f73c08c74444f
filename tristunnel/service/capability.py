"""
Tunnels whose URI is all that a client needs: C{w3p://server:9000/ID#SECRET}.

A control plane opens them, and hands the URI to the machine that has the service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tristunnel.errors import TunnelError, badOption
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import Reserve
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller, OpensVia
from tristunnel.util.hosts import hostAndPort
from tristunnel.util.secret import isSecret, newSecret

__all__ = ["UNCLAIMED", "claimTunnel", "viaCapability"]

UNCLAIMED = 3600.0
"""Seconds that such a tunnel without C{ttl} stays open, at least, while no
client serves it; at most twice as long."""


async def viaCapability(
    service: OpensVia,
    tunnel: Tunnel,
    caller: Caller,
    options: TunnelOptions,
    reserve: Reserve,
) -> None:
    """Make a tunnel that waits for whoever has its URI."""
    port, secure = service.clientPort
    if not port:
        raise badOption("via 'w3p' needs a TCP --port that clients can reach")
    secret, tunnel.secretHash = newSecret()
    tunnel.visitorLimit = options.visitors
    scheme = "w3ps" if secure else "w3p"
    where = hostAndPort(tunnel.hostname, port)
    tunnel.uri = f"{scheme}://{where}/{tunnel.id}#{secret}"
    if not options.ttl:
        service.keepWhile(tunnel, UNCLAIMED, lambda: tunnel.clientSide is not None)


async def claimTunnel(
    find: Callable[[str], Awaitable[Tunnel]], claim: dict[str, object]
) -> Tunnel:
    """
    Find the tunnel of a capability.

    @param find: Finds a tunnel by its id.
    @param claim: C{id} and C{secret}, as the client gave them.
    @raise TunnelError: C{auth-refused}, if there is no such tunnel or the
        secret is not its own.
    """
    identifier, secret = claim.get("id"), claim.get("secret")
    tunnel: Tunnel | None = None
    if isinstance(identifier, str) and isinstance(secret, str):
        try:
            tunnel = await find(identifier)
        except TunnelError:
            tunnel = None
        if not isSecret(secret, tunnel.secretHash if tunnel else None):
            tunnel = None
    if tunnel is None:
        raise TunnelError(
            "auth-refused",
            "this tunnel does not exist or has been closed; ask for a new one",
        )
    return tunnel
