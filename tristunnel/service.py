"""
The tunnel service: open a tunnel, learn its address, close it.

Every door leads here: control frames, JSON-RPC, XML-RPC and Python.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from tristunnel.auth.realm import Identity
from tristunnel.capability import viaCapability
from tristunnel.errors import TunnelError
from tristunnel.interfaces import (
    End,
    IClientSide,
    IListener,
    ITunnelRegistry,
    ITunnelService,
)
from tristunnel.observer import ServerObserver
from tristunnel.options import TunnelOptions
from tristunnel.raw import viaTCP, viaTLS
from tristunnel.registry import Lease, Leases
from tristunnel.tunnel import Tunnel, hostAndPort

__all__ = ["Caller", "Listeners", "TunnelService", "Via"]


@dataclass(frozen=True)
class Caller:
    """
    Who asks, and how they reached this server.

    @ivar identity: Who it is.
    @ivar host: The name that the caller knows this server by.
    @ivar port: The port through which the caller came; 0 if there is none.
    @ivar clientSide: The session that asks, or C{None} for other doors.
    @ivar lease: What keeps the session's tunnels open.
    @ivar limitedTo: The one tunnel that the caller may ask about, if it came
        with no more than that tunnel's URI.
    """

    identity: Identity
    host: str
    port: int = 0
    clientSide: IClientSide | None = None
    lease: Lease | None = None
    limitedTo: Tunnel | None = None


class Listeners(Protocol):
    """
    Opens one kind of public side.
    """

    def open(
        self, port: int, prefer: int, arrived: Callable[[End, str], None]
    ) -> IListener:
        """
        Listen for visitors.

        @param port: The one to listen on, 0 for any.
        @param prefer: With C{port} 0, the one to take if it is free.
        @raise TunnelError: With the reason of a refusal.
        """


Via = Callable[["TunnelService", Tunnel, Caller, TunnelOptions], None]
"""Gives a new tunnel its client side and its URI, or raises
L{TunnelError}."""


def viaSession(
    service: TunnelService, tunnel: Tunnel, caller: Caller, options: TunnelOptions
) -> None:
    """
    Serve the tunnel by the session that asks for it.
    """
    if caller.clientSide is None:
        raise TunnelError(
            "bad-option", "a tunnel by session is opened on the session itself"
        )
    tunnel.clientSide = caller.clientSide
    tunnel.visitorLimit = options.visitors
    where = hostAndPort(caller.host, caller.port)
    tunnel.uri = f"w3p://{where}/{tunnel.id}"


@implementer(ITunnelService)
class TunnelService:
    """
    The L{ITunnelService} of this process.

    @param reactor: Tells time.
    @param registry: Which tunnels exist.
    @param listeners: What can be asked for as C{listener}.
    @param observer: Told of tunnels and visitors.
    @param hostname: What URIs and addresses say; empty for the name that the
        caller used.
    @param leaseTime: Seconds that a tunnel waits for its client to return.

    @ivar via: What can be asked for as C{via}.
    @ivar clientPort: The port that clients connect to, and whether it speaks
        TLS; 0 before the server listens.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        registry: ITunnelRegistry,
        listeners: Mapping[str, Listeners],
        observer: ServerObserver | None = None,
        hostname: str = "",
        leaseTime: float = 120.0,
    ) -> None:
        self.reactor = reactor
        self.registry = registry
        self.listeners = dict(listeners)
        self.observer = observer or ServerObserver()
        self.hostname = hostname
        self.leases = Leases(reactor, self._leaseExpired, leaseTime)
        self.via: dict[str, Via] = {
            "session": viaSession,
            "tcp": viaTCP,
            "tls": viaTLS,
            "w3p": viaCapability,
        }
        self.clientPort: tuple[int, bool] = (0, False)
        self._expiries: dict[Tunnel, IDelayedCall] = {}

    # ITunnelService

    def openTunnel(
        self, caller: Caller, options: Mapping[str, object]
    ) -> Deferred[str]:
        """
        Open a tunnel.
        """
        return Deferred.fromCoroutine(self._open(caller, options))

    async def _open(self, caller: Caller, options: Mapping[str, object]) -> str:
        """
        Open a tunnel, or hand out again one that the caller's lease has kept.
        """
        wanted = TunnelOptions.fromMapping(options)
        if caller.limitedTo is not None:
            raise TunnelError(
                "not-permitted", "the URI of a tunnel is good for that tunnel only"
            )
        if wanted.resume and caller.lease is not None:
            for tunnel in caller.lease.tunnels:
                if tunnel.uri == wanted.resume:
                    return tunnel.uri
        tunnel = Tunnel(
            id=secrets.token_hex(8),
            owner=caller.identity,
            clientSide=None,
            observer=self.observer,
            seconds=self.reactor.seconds,
            hostname=self.hostname or caller.host,
            name=wanted.name,
        )
        tunnel.exhausted = self._exhausted
        self._viaFor(wanted, caller)(self, tunnel, caller, wanted)
        try:
            await self.registry.add(tunnel)
            if not wanted.private:
                tunnel.listener = self._listenersFor(wanted).open(
                    wanted.port, wanted.prefer, tunnel.visitorArrived
                )
        except TunnelError as refusal:
            await self._dismantle(tunnel, refusal)
            raise
        if wanted.ttl:
            self._expiries[tunnel] = self.reactor.callLater(
                wanted.ttl,
                self.discard,
                [tunnel],
                TunnelError("expired", f"its {wanted.ttl:g} s are over"),
            )
        if caller.lease is not None:
            caller.lease.tunnels.append(tunnel)
        self.observer.tunnelCreated(tunnel)
        return tunnel.uri

    def _viaFor(self, wanted: TunnelOptions, caller: Caller) -> Via:
        """
        Find who gives the tunnel its client side.
        """
        name = wanted.via or ("tcp" if caller.clientSide is None else "session")
        via = self.via.get(name)
        if via is None:
            raise TunnelError(
                "bad-option",
                f"via {name!r} is not known here; there is {', '.join(self.via)}",
            )
        return via

    def _listenersFor(self, wanted: TunnelOptions) -> Listeners:
        """
        Find who opens the public side; the first kind is the default one.
        """
        name = wanted.listener or next(iter(self.listeners))
        listeners = self.listeners.get(name)
        if listeners is None:
            raise TunnelError(
                "bad-option",
                f"listener {name!r} is not known here; there is"
                f" {', '.join(self.listeners)}",
            )
        return listeners

    def getTunnelAddress(self, caller: Caller, uri: str) -> Deferred[str]:
        """
        Tell the address where visitors connect.
        """
        return Deferred.fromCoroutine(self._address(caller, uri))

    async def _address(self, caller: Caller, uri: str) -> str:
        """
        Look up the address; it is public, to whoever knows the URI.
        """
        tunnel: Tunnel = await self.registry.find(uri)
        return tunnel.address

    def closeTunnel(self, caller: Caller, uri: str) -> Deferred[None]:
        """
        Close a tunnel.
        """
        return Deferred.fromCoroutine(self._close(caller, uri))

    async def _close(self, caller: Caller, uri: str) -> None:
        """
        Close a tunnel, if it is the caller's.
        """
        tunnel = await self.registry.find(uri)
        if not self.mayControl(caller, tunnel):
            # The same answer as for one that does not exist.
            raise TunnelError("unknown-tunnel")
        await self.destroy(tunnel, TunnelError("closed", "its owner closed the tunnel"))

    def listTunnels(self, caller: Caller) -> Deferred[list[dict[str, object]]]:
        """
        Describe the caller's tunnels.
        """
        return Deferred.fromCoroutine(self._list(caller))

    async def _list(self, caller: Caller) -> list[dict[str, object]]:
        """
        Describe the caller's tunnels, oldest first.
        """
        return [
            {
                "uri": tunnel.publicURI,
                "address": tunnel.address,
                "name": tunnel.name,
                "owner": tunnel.owner.name,
                "connected": tunnel.clientSide is not None,
                "visitors": len(tunnel.streams),
                "visitorsTotal": tunnel.visitorCount,
                "bytesIn": tunnel.bytesIn + sum(s.bytesIn for s in tunnel.streams),
                "bytesOut": tunnel.bytesOut + sum(s.bytesOut for s in tunnel.streams),
            }
            for tunnel in await self.registry.tunnels()
            if self.mayControl(caller, tunnel)
        ]

    def mayControl(self, caller: Caller, tunnel: Tunnel) -> bool:
        """
        Whether C{tunnel} is the caller's own. Where nobody is asked who they
        are, everybody is the same.
        """
        return caller.identity.name == tunnel.owner.name

    # The rest of the program

    async def destroy(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """
        End a tunnel: its listener, its streams, its entry.
        """
        if tunnel.closed is not None:
            return
        await self._dismantle(tunnel, reason)
        self.observer.tunnelDestroyed(tunnel, reason)

    async def _dismantle(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """
        Take apart what there is of a tunnel.
        """
        expiry = self._expiries.pop(tunnel, None)
        if expiry is not None and expiry.active():
            expiry.cancel()
        tunnel.close(reason)
        if tunnel.clientSide is not None:
            tunnel.clientSide.tunnelClosed(tunnel, reason)
        await self.registry.remove(tunnel)
        for listener in (tunnel.listener, tunnel.clientListener):
            if listener is not None:
                await listener.close()

    def _exhausted(self, tunnel: Tunnel) -> None:
        """
        All of a tunnel's visitors have come and gone.
        """
        self.discard([tunnel], TunnelError("closed", "its visitors came and went"))

    def discard(self, tunnels: list[Tunnel], reason: TunnelError) -> Deferred[None]:
        """
        End tunnels of which nobody waits to hear that they are over.
        """

        async def each() -> None:
            for tunnel in tunnels:
                await self.destroy(tunnel, reason)

        return Deferred.fromCoroutine(each())

    def _leaseExpired(self, lease: Lease) -> None:
        """
        A client did not come back for its tunnels.
        """
        self.discard(
            list(lease.tunnels),
            TunnelError("expired", "its client did not come back in time"),
        )

    async def close(self, reason: TunnelError) -> None:
        """
        End everything; the server stops.
        """
        self.leases.close()
        for tunnel in await self.registry.tunnels():
            await self.destroy(tunnel, reason)
