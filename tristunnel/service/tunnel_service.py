"""
The tunnel service: open a tunnel, learn its address, close it.

Every door leads here: control frames, JSON-RPC, XML-RPC and Python.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NoReturn, Protocol, TypeVar

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from tristunnel.dataplane.glimpse import Speech
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.decisions import Decisions
from tristunnel.model.health import Health
from tristunnel.model.observer import ServerObserver
from tristunnel.model.options import TunnelOptions, policyFrom
from tristunnel.model.quota import TunnelQuota
from tristunnel.model.rendezvous import Rendezvous, WaitingRoom
from tristunnel.model.tunnel import IClientSide, Tunnel
from tristunnel.service.access import AccessGrants, isCapability, mayReach
from tristunnel.service.caller import Caller, ITunnelService, Listeners, OpensVia, Via
from tristunnel.service.capability import viaCapability
from tristunnel.service.claims import Claims
from tristunnel.service.clients import ConnectedClients
from tristunnel.service.counters import RateMeter
from tristunnel.service.host_rules import HostRules
from tristunnel.service.invitations import Invitations
from tristunnel.service.managed import ManagedForwards
from tristunnel.service.policies import VisitorPolicies
from tristunnel.service.raw import viaTCP, viaTLS
from tristunnel.service.registry import ITunnelRegistry, Lease, Leases
from tristunnel.service.rights import TunnelRights
from tristunnel.service.sharing import Sharing
from tristunnel.service.siblings import Siblings
from tristunnel.service.tickets import Tickets
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.hosts import hostAndPort

__all__ = ["REGISTRY_PATIENCE", "TunnelService"]

REGISTRY_PATIENCE = 10.0
"""Seconds in which the registry must answer; no port waits for it longer."""

_T = TypeVar("_T")


class _Node(Protocol):
    """A tunnel between this server and another one."""

    def describe(self) -> dict[str, object]: ...

    def stopNow(self) -> None: ...


def viaSession(
    service: OpensVia, tunnel: Tunnel, caller: Caller, options: TunnelOptions
) -> None:
    """Serve the tunnel by the session that asks for it."""
    if caller.clientSide is None:
        raise badOption("a tunnel via 'session' must be opened on the session itself")
    tunnel.clientSide = caller.clientSide
    tunnel.visitorLimit = options.visitors
    port = caller.port or service.clientPort[0]
    where = hostAndPort(tunnel.hostname, port) if port else tunnel.hostname
    tunnel.uri = f"w3p://{where}/{tunnel.id}"


def _checkDatagrams(wanted: TunnelOptions, caller: Caller) -> None:
    """
    @raise TunnelError: C{bad-option}, if the tunnel's client side would carry
        bytes only.
    """
    side = caller.clientSide
    via = wanted.via or ("tcp" if side is None else "session")
    if via not in ("session", "w3p"):
        raise badOption(
            f"a tunnel via {via[:64]!r} cannot carry UDP: open it on a session"
            " (tunnel-client --forward udp/PORT=HOST:PORT), or via 'w3p'"
        )
    if via == "session" and not getattr(side, "carriesDatagrams", False):
        raise badOption("this client's protocol cannot carry UDP; update the client")


def _isServed(tunnel: Tunnel) -> bool:
    side = tunnel.clientSide
    if isinstance(side, Rendezvous) and not side.waitingClients:
        return any(stream.client is not None for stream in tunnel.streams)
    return side is not None


async def _wait(begin: Callable[[], Awaitable[object] | None]) -> None:
    waiting = begin()
    if waiting is not None:
        await waiting


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
    @param quota: How many tunnels there may be.
    @param waiting: How many ends of raw tunnels may wait for their other
        halves.

    @ivar via: What can be asked for as C{via}.
    @ivar clientPort: The port that clients connect to, and whether it speaks
        TLS; 0 before the server listens.
    @ivar clients: Who is connected.
    @ivar hosts: Who may have which name, and has.
    @ivar rights: What tokens let their holders do with tunnels.
    @ivar house: What is asked of the visitors of all tunnels.
    @ivar access: Who was granted access to named services for a while.
    @ivar claims: Decides on ports and names that are taken.
    @ivar meter: Measures how much passes in what is listed.
    @ivar now: The time of day.
    @ivar looksAtAnswers: Whether somebody wants to know what services speak.
    @ivar nodes: The tunnels between this server and others.
    @ivar invitations: Its tokens and invitations, for operators.
    @ivar decisions: Who else has a say in what may happen, or C{None}.
    @ivar siblings: The other processes of the server, if it has several.
    @ivar reload: Reads the server's configuration again, if that can be done.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self,
        reactor: IReactorTime,
        registry: ITunnelRegistry,
        listeners: Mapping[str, Listeners],
        observer: ServerObserver | None = None,
        hostname: str = "",
        leaseTime: float = 120.0,
        quota: TunnelQuota | None = None,
        waiting: WaitingRoom | None = None,
    ) -> None:
        self.reactor = reactor
        self.registry = registry
        self.listeners = dict(listeners)
        self.observer = observer or ServerObserver()
        self.hostname = hostname
        self.leases = Leases(reactor, self._leaseExpired, leaseTime)
        self.tickets = Tickets(reactor.seconds)
        self.via: dict[str, Via] = {
            "session": viaSession,
            "tcp": viaTCP,
            "tls": viaTLS,
            "w3p": viaCapability,
        }
        self.clientPort: tuple[int, bool] = (0, False)
        self._quota = TunnelQuota() if quota is None else quota
        self.waiting = waiting or WaitingRoom()
        self._leaving: TunnelError | None = None
        self._expiries: dict[Tunnel, IDelayedCall] = {}
        self.clients = ConnectedClients(reactor.seconds)
        self.policies = VisitorPolicies(reactor)
        self.hosts = HostRules()
        self.rights = TunnelRights(
            reactor,
            changed=lambda tunnel: self.policies.refresh(tunnel),
            hosts=self.hosts,
        )
        self.access = AccessGrants(reactor)
        self.claims = Claims(self.leases, self.clients, self.destroy)
        self.sharing = Sharing(self._rename)
        self.meter = RateMeter(reactor.seconds)
        self.now = time.time
        self.looksAtAnswers = False
        self.nodes: Sequence[_Node] = ()
        self.invitations = Invitations([])
        self.managed = ManagedForwards("", self.clients)
        self.decisions: Decisions | None = None
        self.siblings: Siblings | None = None
        self.reload: Callable[[], Deferred[dict[str, object]]] | None = None

    # ITunnelService

    @returnsDeferred
    async def openTunnel(self, caller: Caller, options: Mapping[str, object]) -> str:
        return (await self.open(caller, options)).uri

    async def open(
        self, caller: Caller, options: Mapping[str, object], displaces: bool = True
    ) -> Tunnel:
        """
        Open a tunnel.

        @param displaces: Whether a tunnel of the same owner's that nobody serves
            any more gives way to it.
        @raise TunnelError: With the reason of a refusal.
        """
        wanted = self._completed(TunnelOptions.fromMapping(options))
        while True:
            try:
                return await self._open(caller, wanted)
            except TunnelError as refusal:
                await self.claims.makeWay(caller, wanted, refusal, displaces)
                displaces = False

    async def _open(self, caller: Caller, wanted: TunnelOptions) -> Tunnel:
        if self._leaving is not None:
            raise self._leaving
        if caller.limitedTo is not None:
            raise TunnelError(
                "not-permitted", "the URI of a tunnel is only valid for that tunnel"
            )
        if wanted.resume and caller.lease is not None:
            for tunnel in caller.lease.tunnels:
                if tunnel.uri == wanted.resume:
                    # What is asked of visitors may have changed meanwhile.
                    self.policies.setByOwner(tunnel, wanted.policy)
                    tunnel.scheme, tunnel.target = wanted.scheme, wanted.target
                    tunnel.tellsDestination = wanted.destination
                    tunnel.setChecked(wanted.health)
                    return tunnel
        self.rights.checkOpen(caller.identity, caller.lease, wanted)
        if self.decisions is not None:
            await self.decisions.tunnel(caller.identity, wanted)
            if self._leaving is not None:
                raise self._leaving
        tunnel = Tunnel(
            id=secrets.token_hex(8),
            owner=caller.identity,
            clientSide=None,
            observer=self.observer,
            seconds=self.reactor.seconds,
            hostname=self.hostname or caller.host,
            name="" if self._isNamed(wanted) else wanted.name,
            scheme=wanted.scheme,
            target=wanted.target,
            tellsDestination=wanted.destination,
            health=Health() if wanted.health else None,
            speech=Speech() if self.looksAtAnswers else None,
            web=caller.web,
        )
        tunnel.exhausted = self._exhausted
        if self.decisions is not None:
            tunnel.ask = self.decisions.visitor
        self.policies.setByOwner(tunnel, wanted.policy)
        self._quota.count(tunnel, caller.countedAs)
        try:
            await self._build(tunnel, caller, wanted)
        except Exception as error:
            # Also when the caller leaves meanwhile.
            refusal = error if isinstance(error, TunnelError) else None
            await self._dismantle(tunnel, refusal or TunnelError("internal"))
            raise
        if wanted.share and tunnel.group is None:
            self.sharing.begin(tunnel, wanted)
        self.rights.opened(tunnel, self.discard)
        if wanted.ttl:
            tunnel.until = self.reactor.seconds() + wanted.ttl
            self._expiries[tunnel] = self.reactor.callLater(
                wanted.ttl,
                self.discard,
                [tunnel],
                TunnelError(
                    "expired",
                    f"the {wanted.ttl:g} s that it was opened for have passed",
                ),
            )
        if caller.lease is not None and tunnel.clientSide is caller.clientSide:
            self.leases.keep(caller.lease, tunnel)
        self.claims.took(tunnel)
        self.observer.tunnelCreated(tunnel)
        return tunnel

    async def _build(
        self, tunnel: Tunnel, caller: Caller, wanted: TunnelOptions
    ) -> None:
        if wanted.listener == "udp":
            tunnel.protocol = "udp"
            _checkDatagrams(wanted, caller)
        self._viaFor(wanted, caller)(self, tunnel, caller, wanted)
        group = self.sharing.find(caller.identity, wanted) if wanted.share else None
        if group is not None:
            # The group has its name.
            tunnel.name = ""
        await self.enter(tunnel)
        if tunnel.closed is not None:
            raise tunnel.closed
        if caller.lease is not None and caller.lease.holder is not caller.clientSide:
            # The answer would reach nobody, so nobody would know of the tunnel.
            raise TunnelError("session-lost")
        joins = group is not None and bool(group.tunnels)
        if self._isNamed(wanted) and joins:
            self.hosts.join(tunnel, caller.identity, wanted.name)
        elif self._isNamed(wanted):
            wanted = self.hosts.claim(tunnel, caller, wanted)
        if group is not None and joins:
            tunnel.listener = self.sharing.join(group, tunnel, wanted.share)
        elif not wanted.private:
            tunnel.listener = self.rights.openListener(
                caller.identity,
                wanted.listener,
                self._listenersFor(wanted),
                wanted,
                tunnel.visitorArrived,
            )

    def enter(self, tunnel: Tunnel) -> Deferred[None]:
        """
        Have the registry take a tunnel in. What it takes in when nobody waits
        for that any more, it is asked to forget again.

        @raise TunnelError: By the Deferred, C{name-taken} or another reason.
        """

        def entered(result: None) -> None:
            if tunnel.closed is not None:
                self._forget(tunnel).addErrback(
                    lambda failure: self._log.failure(
                        "The registry still has a tunnel that was closed", failure
                    )
                )

        entering = maybeDeferred(self.registry.add, tunnel)
        return self._inTime(entering.addCallback(entered))

    def _rename(self, tunnel: Tunnel, name: str) -> None:
        async def renamed() -> None:
            await self._forget(tunnel)
            tunnel.name = name
            await self.enter(tunnel)

        Deferred.fromCoroutine(renamed()).addErrback(
            lambda failure: self._log.failure(
                "A name was not passed on to another client", failure
            )
        )

    def find(self, uri: str) -> Deferred[Tunnel]:
        """
        Look a tunnel up by its URI or its id.

        @raise TunnelError: By the Deferred, C{unknown-tunnel}.
        """
        return self._inTime(maybeDeferred(self.registry.find, uri))

    def _forget(self, tunnel: Tunnel) -> Deferred[None]:
        return self._inTime(maybeDeferred(self.registry.remove, tunnel))

    def _inTime(self, asked: Deferred[_T]) -> Deferred[_T]:
        """
        Wait for the registry, but not for ever. It is not interrupted: what it
        does in the end is what counts.
        """

        def late(_: object, seconds: float) -> NoReturn:
            raise TunnelError(
                "internal", f"the registry did not answer within {seconds:g} s"
            )

        told: Deferred[_T] = Deferred()
        asked.chainDeferred(told)
        return told.addTimeout(REGISTRY_PATIENCE, self.reactor, late)

    def _viaFor(self, wanted: TunnelOptions, caller: Caller) -> Via:
        name = wanted.via or ("tcp" if caller.clientSide is None else "session")
        via = self.via.get(name)
        if via is None:
            raise badOption(
                f"via {name[:64]!r} is not known here; choose from"
                f" {', '.join(self.via)}"
            )
        for option in ("lookup", "openerOnly", "firstLine"):
            if getattr(wanted, option) and name not in ("tcp", "tls"):
                raise badOption(f"option {option} only works via 'tcp' or 'tls'")
        return via

    def _listenersFor(self, wanted: TunnelOptions) -> Listeners:
        name = wanted.listener or next(iter(self.listeners))
        listeners = self.listeners.get(name)
        if listeners is None:
            raise badOption(
                f"listener {name[:64]!r} is not known here; choose from"
                f" {', '.join(self.listeners)}"
            )
        return listeners

    def _completed(self, wanted: TunnelOptions) -> TunnelOptions:
        """
        Say what is meant by what was left out.

        @raise TunnelError: If there is no such listener, or it has no such name.
        """
        if wanted.private:
            return self.hosts.completed(wanted, False)
        listeners = self._listenersFor(wanted)
        # The first one of its names: some stand for what a server has of several.
        kind = next(k for k, each in self.listeners.items() if each is listeners)
        wanted = replace(wanted, listener=kind)
        return self.hosts.completed(wanted, self._isNamed(wanted))

    def _isNamed(self, wanted: TunnelOptions) -> bool:
        """Whether visitors ask for a tunnel by its name."""
        listeners = self.listeners.get(wanted.listener)
        return not wanted.private and getattr(listeners, "named", False)

    @returnsDeferred
    async def getTunnelAddress(self, caller: Caller, uri: str) -> str:
        """
        Look up the address, which is for whoever knows the URI; if anybody could
        know that, it is the owner's, and theirs whom the owner has named.
        """
        tunnel: Tunnel = await self.find(uri)
        if caller.limitedTo not in (None, tunnel) or not (
            not tunnel.isGuessable
            or "*" in tunnel.lookup
            or caller.identity.name in tunnel.lookup
            or self.mayControl(caller, tunnel)
        ):
            raise TunnelError("unknown-tunnel")
        return tunnel.address

    def closeTunnel(
        self, caller: Caller, uri: str, finish: bool = False
    ) -> Deferred[None]:
        told: Deferred[None] = Deferred()
        Deferred.fromCoroutine(self._close(caller, uri, finish)).chainDeferred(told)
        return told

    async def _close(self, caller: Caller, uri: str, finish: bool) -> None:
        tunnel = await self.find(uri)
        if not self.mayControl(caller, tunnel):
            # The same answer as for one that does not exist.
            raise TunnelError("unknown-tunnel")
        if finish and tunnel.streams and tunnel.closed is None:
            await self._retire(tunnel)
            return
        await self.destroy(tunnel, TunnelError("closed", "its owner closed the tunnel"))

    async def _retire(self, tunnel: Tunnel) -> None:
        """Free a tunnel's port and name; it ends with the last of its visitors."""
        tunnel.visitorLimit = max(1, tunnel.served)
        # The last visitor may leave meanwhile, and a port is closed only once.
        listener, tunnel.listener = tunnel.listener, None
        if listener is not None:
            await listener.close()
        self.hosts.release(tunnel)
        await self._forget(tunnel)
        self.sharing.left(tunnel)
        tunnel.name = ""
        await self.enter(tunnel)
        self.claims.freed(tunnel)

    @returnsDeferred
    async def listTunnels(self, caller: Caller) -> list[dict[str, object]]:
        return [
            {
                "uri": tunnel.publicURI,
                "address": tunnel.address,
                "name": tunnel.name,
                "owner": tunnel.owner.name,
                "connected": _isServed(tunnel),
                "visitors": len(tunnel.streams),
                "visitorsTotal": tunnel.visitorCount,
                "refusals": dict(tunnel.refusals),
                "bytesIn": tunnel.countsNow()[0],
                "bytesOut": tunnel.countsNow()[1],
                "policy": tunnel.policy.describe(),
                **tunnel.datagramCounts(),
                **tunnel.healthNow(),
            }
            for tunnel in await self.registry.tunnels()
            if self.mayControl(caller, tunnel)
        ]

    @returnsDeferred
    async def setPolicy(
        self,
        caller: Caller,
        uri: str,
        policy: Mapping[str, object],
        endDenied: bool = False,
    ) -> dict[str, object]:
        """
        Ask it, if the tunnel is the caller's; what an operator asks holds beside
        what its owner does.
        """
        if caller.identity.grant is not None:
            caller.identity.grant.check()
        wanted = policyFrom(policy)
        tunnel: Tunnel = await self.find(uri)
        if caller.limitedTo is not None or not self.mayControl(caller, tunnel):
            # The same answer as for one that does not exist.
            raise TunnelError("unknown-tunnel")
        if caller.identity == tunnel.owner:
            self.policies.setByOwner(tunnel, wanted)
        else:
            self.policies.setByOperator(tunnel, wanted)
        ended = self.policies.endDenied(tunnel) if endDenied else 0
        self.observer.requestNoted(
            caller.identity,
            f"changed the limits on visitors of {tunnel.publicURI}:"
            f" {json.dumps(tunnel.policy.describe())};"
            f" {ended} of them were disconnected",
            False,
        )
        return tunnel.policy.describe()

    def reportHealth(self, caller: Caller, uri: str, isWell: bool, reason: str) -> None:
        """
        Take a client's word for the health of its service.

        @param reason: Why the service is not well.
        @raise TunnelError: C{unknown-tunnel}, if the session has no such tunnel, or
            none whose health it wanted to tell.
        """
        if caller.identity.grant is not None:
            caller.identity.grant.check()
        kept = [] if caller.lease is None else caller.lease.tunnels
        tunnel = next((each for each in kept if each.publicURI == uri), None)
        if tunnel is None or tunnel.health is None:
            raise TunnelError("unknown-tunnel")
        before = tunnel.health.isWell
        tunnel.health.told(isWell, reason, self.reactor.seconds())
        if isWell is not before:
            self.observer.healthChanged(tunnel)

    def mayControl(self, caller: Caller, tunnel: Tunnel) -> bool:
        """
        Whether C{tunnel} is the caller's own. Where nobody is asked who they
        are, everybody is the same.
        """
        return self.rights.mayControl(caller.identity, tunnel)

    def mayVisit(self, caller: Caller, tunnel: Tunnel) -> bool:
        """
        Whether C{caller} may visit C{tunnel}: its own, those that it has a
        grant for, and those that everybody may.
        """
        if mayReach(caller.identity, tunnel.name, tunnel.owner):
            return True
        if isCapability(caller.identity):
            return False
        return tunnel.listener is not None or self.mayControl(caller, tunnel)

    # The rest of the program

    async def findNamed(self, caller: Caller, name: str) -> Tunnel:
        """
        Find the tunnel of a name, for a visitor who comes as a client.

        @raise TunnelError: C{unknown-tunnel}, also for one that C{caller} may
            not visit.
        """
        if caller.identity.grant is not None:
            caller.identity.grant.check()
        tunnel = await self.registry.findNamed(name)
        if caller.limitedTo is not None or not self.mayVisit(caller, tunnel):
            raise TunnelError("unknown-tunnel", f"there is no service {name!r}")
        return tunnel

    async def destroy(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """End a tunnel: its listener, its streams, its entry."""
        if tunnel.closed is not None:
            return
        await self._dismantle(tunnel, reason)
        self.observer.tunnelDestroyed(tunnel, reason)
        self.claims.freed(tunnel)

    async def _dismantle(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """
        Take apart what there is of a tunnel. All of it begins to close before
        anything is waited for, so that what fails or does not answer keeps
        nothing else open.
        """
        expiry = self._expiries.pop(tunnel, None)
        if expiry is not None and expiry.active():
            expiry.cancel()
        parts: list[Callable[[], Awaitable[object] | None]] = [
            partial(self._quota.forget, tunnel),
            partial(self.rights.forget, tunnel),
            partial(self.hosts.release, tunnel),
            partial(tunnel.close, reason),
        ]
        if tunnel.clientSide is not None:
            parts.append(partial(tunnel.clientSide.tunnelClosed, tunnel, reason))
        for listener in (tunnel.listener, tunnel.clientListener):
            if listener is not None:
                parts.append(listener.close)
        parts.append(partial(self._forget, tunnel))
        closing = [Deferred.fromCoroutine(_wait(part)) for part in parts]
        for each in closing:
            each.addErrback(
                lambda failure: self._log.failure(
                    "A part of {uri} did not close", failure, uri=tunnel.publicURI
                )
            )
        for each in closing:
            await each
        self.sharing.left(tunnel)

    def _exhausted(self, tunnel: Tunnel) -> None:
        self.discard([tunnel], TunnelError("closed", "it has had all of its visitors"))

    def keepWhile(
        self, tunnel: Tunnel, seconds: float, served: Callable[[], bool]
    ) -> None:
        """
        Look at a tunnel now and then, and end it if nobody serves it.

        @param seconds: From one look to the next.
        """

        def look() -> None:
            if served():
                self.keepWhile(tunnel, seconds, served)
            else:
                reason = f"no client connected to its URI for {seconds:g} s"
                self.discard([tunnel], TunnelError("expired", reason))

        self._expiries[tunnel] = self.reactor.callLater(seconds, look)

    def discard(self, tunnels: list[Tunnel], reason: TunnelError) -> Deferred[None]:
        """End tunnels of which nobody waits to hear that they are over."""
        ending = [
            Deferred.fromCoroutine(self.destroy(tunnel, reason)) for tunnel in tunnels
        ]
        return gatherResults(ending).addCallback(lambda _: None)

    def _leaseExpired(self, lease: Lease) -> None:
        self.discard(
            list(lease.tunnels),
            TunnelError("expired", "its client did not reconnect in time"),
        )

    def limit(self, perCaller: int, total: int) -> None:
        """
        Have other limits for tunnels that come from now on.

        @param perCaller: Tunnels that one caller may have; 0 for any number.
        @param total: Tunnels in all, likewise.
        """
        self._quota.limit(perCaller, total)

    def servedBy(self, side: IClientSide | None) -> list[Tunnel]:
        """The tunnels whose visitors a session serves."""
        if side is None:
            return []
        return [tunnel for tunnel in self.tunnels if tunnel.clientSide is side]

    @property
    def tunnels(self) -> list[Tunnel]:
        """All tunnels that were opened here, without the relay's channels."""
        return list(self._quota)

    def streams(self) -> int:
        """How many visitors have a client's end now."""
        return sum(
            stream.client is not None
            for tunnel in self.tunnels
            for stream in tunnel.streams
        )

    def leave(self, reason: TunnelError) -> None:
        """Open no more tunnels."""
        self._leaving = reason

    async def close(self, reason: TunnelError) -> None:
        """End everything; the server stops."""
        self.access.close()
        self.leases.close()
        await self.discard(self.tunnels, reason)
        # Channels are in the registry only.
        try:
            channels = await self._inTime(self.registry.tunnels())
        except Exception:
            self._log.failure("The registry does not say which tunnels are left")
        else:
            await self.discard(channels, reason)
