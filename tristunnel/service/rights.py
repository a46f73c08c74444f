"""
What a grant lets its holder do with tunnels, checked each time.

Somebody without a grant (no C{--auth}, or a checker that knows no permissions) may do
what the server offers to everybody, but is never an admin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.interfaces import IReactorTime

from tristunnel.dataplane.throttle import Throttle
from tristunnel.errors import TunnelError
from tristunnel.model.options import TunnelOptions
from tristunnel.model.permissions import Changed, Ended, Grant, Identity, protocolOf
from tristunnel.model.place import IListener
from tristunnel.model.ports import Reserve
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.caller import Listeners
from tristunnel.service.clients import SERVICES
from tristunnel.service.host_rules import HostRules
from tristunnel.service.leases import Lease

__all__ = ["TunnelRights", "isAdmin"]


def isAdmin(identity: Identity) -> bool:
    """Whether somebody may see and end what belongs to others."""
    grant = identity.grant
    return grant is not None and "admin" in grant.permissions.may


class TunnelRights:
    """
    Applies grants to tunnels.

    @param reactor: Tells time.
    @param changed: Told of each tunnel whose owner is permitted something else.
    @param hosts: Decides on names.

    @ivar services: Tunnels that one client's session may have; 0 for any
        number.
    @ivar elsewhere: How many visitors the tunnels of a token's holder have at other
        members of the server.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        services: int = SERVICES,
        changed: Callable[[Tunnel], None] = lambda tunnel: None,
        hosts: HostRules | None = None,
    ) -> None:
        self.services = services
        self.elsewhere: Callable[[str], int] = lambda holder: 0
        self._reactor = reactor
        self._changed = changed
        self._hosts = hosts or HostRules()
        self._tunnels: dict[Grant, dict[Tunnel, tuple[Ended, Changed]]] = {}

    def mayControl(self, identity: Identity, owner: Identity) -> bool:
        """Whether somebody may see and end a tunnel of C{owner}'s."""
        return identity == owner or isAdmin(identity)

    # Opening

    def checkOpen(
        self, identity: Identity, lease: Lease | None, wanted: TunnelOptions
    ) -> None:
        """@raise TunnelError: Why somebody may not open a tunnel now."""
        if lease is not None:
            self.checkServices(len(lease.tunnels))
        grant = identity.grant
        if grant is None:
            return
        grant.check("open")
        permissions = grant.permissions
        most = permissions.maxTunnels
        if most is not None and len(self._tunnels.get(grant, ())) >= most:
            raise TunnelError(
                "limit-reached", f"this token allows {most} tunnels at once; close one"
            )
        if wanted.port and not wanted.private:
            permissions.checkPort(wanted.port)

    def checkServices(self, count: int) -> None:
        """
        @param count: The tunnels that a session has already.
        @raise TunnelError: C{limit-reached}.
        """
        if self.services and count >= self.services:
            raise TunnelError(
                "limit-reached",
                f"a client may have {self.services} tunnels; start another client,"
                " or raise the server's --max-services",
            )

    def checkChannel(self, identity: Identity) -> None:
        """
        @raise TunnelError: Why somebody may not have a relay channel, which is a tunnel
            as well.
        """
        self.checkOpen(identity, None, TunnelOptions())
        if identity.grant is not None:
            identity.grant.permissions.checkListener("ws")

    async def openListener(
        self,
        identity: Identity,
        kind: str,
        listeners: Listeners,
        options: TunnelOptions,
        arrived: Any,
        reserve: Reserve,
    ) -> IListener:
        """
        Open a tunnel's public side, on a port that its owner may have.

        @param kind: What C{listeners} opens.
        @param reserve: Reserves a port.
        @raise TunnelError: With the reason of a refusal.
        """
        grant = identity.grant
        if grant is None:
            return await listeners.open(options, arrived, reserve)
        grant.permissions.checkListener(kind)
        ports = grant.permissions.ports
        portless = getattr(listeners, "named", False) or getattr(
            listeners, "portless", False
        )
        if portless or protocolOf(kind) == "ws":
            # Its visitors come to a port that is the server's.
            ports, options = None, replace(options, port=0)
        if options.port or ports is None:
            if options.port:
                grant.permissions.checkPort(options.port)
            return await listeners.open(options, arrived, reserve)
        refusal = TunnelError(
            "ports-exhausted", f"all ports of this token ({ports}) are taken"
        )
        candidates = list(ports.shuffled())
        if options.prefer in ports:
            candidates.insert(0, options.prefer)
        for candidate in candidates:
            try:
                wanted = replace(options, port=candidate, prefer=0)
                return await listeners.open(wanted, arrived, reserve)
            except TunnelError as error:
                if error.code.name not in ("port-taken", "port-not-permitted"):
                    raise
                if error.code.name == "port-not-permitted":
                    refusal = error
        raise refusal

    # While it is open

    def opened(
        self, tunnel: Tunnel, discard: Callable[[list[Tunnel], TunnelError], object]
    ) -> None:
        """
        Watch over a tunnel from now on.

        @param discard: Ends it when its owner's grant does.
        """
        if self.check not in tunnel.checks:
            tunnel.checks.append(self.check)
        grant = tunnel.owner.grant
        if grant is None:
            return
        if grant.ended is not None:
            # While the tunnel was made.
            discard([tunnel], grant.ended)
            return

        def ended(reason: TunnelError) -> None:
            discard([tunnel], reason)

        def changed() -> None:
            self._limit(tunnel, grant)
            if tunnel.throttle is not None:
                for stream in tunnel.streams:
                    stream.slowDown(tunnel.throttle)
            self._changed(tunnel)

        self._tunnels.setdefault(grant, {})[tunnel] = ended, changed
        grant.watch(ended)
        grant.follow(changed)
        self._limit(tunnel, grant)

    def forget(self, tunnel: Tunnel) -> None:
        """Stop watching a tunnel that is over. It may be called twice."""
        grant = tunnel.owner.grant
        if grant is None or grant not in self._tunnels:
            return
        tunnels = self._tunnels[grant]
        told = tunnels.pop(tunnel, None)
        if told is not None:
            ended, changed = told
            grant.unwatch(ended)
            grant.unfollow(changed)
        if not tunnels:
            del self._tunnels[grant]

    def check(self, stream: Stream) -> None:
        """
        Decide on a visitor, by what the tunnel's owner may do now.

        @raise TunnelError: Why it is turned away.
        """
        tunnel = stream.tunnel
        grant = tunnel.owner.grant
        if grant is None:
            return
        grant.expire()
        if grant.ended is not None:
            raise grant.ended
        permissions = grant.permissions
        if "open" not in permissions.may:
            raise TunnelError(
                "not-permitted", "this token may not open any more tunnels"
            )
        if tunnel.listener is not None:
            kind, _, port = tunnel.listener.address
            permissions.checkListener(kind)
            if host := getattr(tunnel.listener, "host", ""):
                self._hosts.check(tunnel.owner, host)
            elif port and protocolOf(kind) != "ws":
                permissions.checkPort(port)
        most = permissions.maxVisitors
        # The new one is among them.
        now = self._visitors(grant) + self.elsewhere(tunnel.owner.name)
        if most is not None and now > most:
            raise TunnelError(
                "limit-reached", f"this token allows {most} visitors at once"
            )
        self._limit(tunnel, grant)

    def _visitors(self, grant: Grant) -> int:
        return sum(len(each.streams) for each in self._tunnels.get(grant, ()))

    def visitors(self) -> dict[str, int]:
        """
        Count the visitors here of those token holders whom all members limit together,
        by name; those without any are left out.
        """
        limited = (
            (next(iter(tunnels)).owner.name, self._visitors(grant))
            for grant, tunnels in self._tunnels.items()
            if tunnels and (grant.permissions.maxVisitors or grant.permissions.rate)
        )
        return {name: count for name, count in limited if count}

    def shareRates(self) -> None:
        """
        Give this member the share of each holder's rate that corresponds to its share
        of the visitors.
        """
        for grant, tunnels in self._tunnels.items():
            if tunnels and grant.throttle is not None:
                grant.throttle.change(self._rate(next(iter(tunnels)), grant))

    def _rate(self, tunnel: Tunnel, grant: Grant) -> int:
        rate = grant.permissions.rate or 0
        others = self.elsewhere(tunnel.owner.name)
        here = max(1, self._visitors(grant))
        return max(1, rate * here // (here + others)) if rate and others else rate

    def share(self, tunnel: Tunnel) -> None:
        """Have a tunnel share its owner's rate that was not opened like the others."""
        if tunnel.owner.grant is not None:
            self._limit(tunnel, tunnel.owner.grant)

    def _limit(self, tunnel: Tunnel, grant: Grant) -> None:
        """Have the tunnel's streams share their owner's rate."""
        rate = self._rate(tunnel, grant)
        if grant.throttle is not None:
            grant.throttle.change(rate)
        elif rate:
            grant.throttle = Throttle(self._reactor, rate)
        tunnel.throttle = grant.throttle if rate else None
