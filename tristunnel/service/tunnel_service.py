"""
The tunnel service: open a tunnel, learn its address, close it.

All calls lead here: by control frames, JSON-RPC, XML-RPC and from Python.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from tristunnel.errors import TunnelError
from tristunnel.model.book import IBook
from tristunnel.model.decisions import Decisions
from tristunnel.model.kept_ports import PortsKept
from tristunnel.model.observer import ServerObserver
from tristunnel.model.options import TunnelOptions, policyFrom
from tristunnel.model.place import isGuessable
from tristunnel.model.quota import TunnelQuota
from tristunnel.model.record import TunnelRecord, named
from tristunnel.model.rendezvous import WaitingRoom
from tristunnel.model.tunnel import IClientSide, Tunnel
from tristunnel.names.public import CertificateState
from tristunnel.service.access import AccessGrants, isCapability, mayReach
from tristunnel.service.caller import Caller, ITunnelService, Listeners, Via
from tristunnel.service.capability import viaCapability
from tristunnel.service.choice import (
    SESSION,
    checkGate,
    inItsPlace,
    isNamed,
    listenersFor,
    viaSession,
)
from tristunnel.service.claims import Claims
from tristunnel.service.clients import ConnectedClients
from tristunnel.service.counters import RateMeter
from tristunnel.service.description import describeTunnel
from tristunnel.service.elsewhere import Elsewhere
from tristunnel.service.ending import Expiries, dismantle, retire
from tristunnel.service.entries import BookEntries, ownerOf
from tristunnel.service.here import Held, Here
from tristunnel.service.host_rules import HostRules
from tristunnel.service.invitations import Invitations
from tristunnel.service.knocks import Knocks
from tristunnel.service.leases import Lease, Leases
from tristunnel.service.managed import ManagedForwards
from tristunnel.service.opening import askedAgain, build, made, shown
from tristunnel.service.policies import VisitorPolicies
from tristunnel.service.raw import viaTCP, viaTLS
from tristunnel.service.rights import TunnelRights
from tristunnel.service.sharing import Sharing
from tristunnel.service.siblings import ASSURED, Cluster, Siblings
from tristunnel.service.tickets import Tickets
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["TunnelService"]


class _Node(Protocol):
    """A tunnel between this server and another one."""

    def describe(self) -> dict[str, object]: ...

    def stopNow(self) -> None: ...


@implementer(ITunnelService)
class TunnelService:
    """
    The L{ITunnelService} of this process.

    @param reactor: Tells time.
    @param book: Who has which tunnels.
    @param listeners: What can be asked for as C{listener}.
    @param observer: Told of tunnels and visitors.
    @param hostname: What URIs and addresses say; empty for the name that the
        caller used.
    @param leaseTime: Seconds that a tunnel waits for its client to return.
    @param quota: How many tunnels there may be.
    @param waiting: How many ends of raw tunnels may wait for their other
        halves.

    @ivar here: The tunnels whose visitors this process serves.
    @ivar entries: What the book says of them.
    @ivar leases: Who may come back to which of them.
    @ivar expiries: Ends tunnels by timers.
    @ivar keepWhile: Ends a tunnel that nobody serves, see L{Expiries.keepWhile}.
    @ivar via: What can be asked for as C{via}.
    @ivar clientPort: The port that clients connect to, and whether it speaks
        TLS; 0 before the server listens.
    @ivar clients: Who is connected.
    @ivar certificates: Describes the certificates that are obtained automatically.
    @ivar hosts: Decides who may have which name.
    @ivar rights: What tokens let their holders do with tunnels.
    @ivar policies: The limits on the visitors of all tunnels.
    @ivar access: Who was granted access to named services for a while.
    @ivar knocks: Lets in who knocks.
    @ivar claims: Decides on ports and names that are taken.
    @ivar meter: Measures how much passes in what is listed.
    @ivar now: The time of day.
    @ivar looksAtAnswers: Whether somebody wants to know what services speak.
    @ivar nodes: The tunnels between this server and others.
    @ivar invitations: Its tokens and invitations, for operators.
    @ivar decisions: Who else has a say in what may happen, or C{None}.
    @ivar kept: Keeps ports open when this process ends.
    @ivar processes: The other processes of this machine, if the server has several.
    @ivar siblings: All others, also of other machines.
    @ivar cluster: The members of the server's cluster, if it is in one.
    @ivar leaving: Why no more tunnels are opened, or C{None}.
    @ivar reload: Reads the server's configuration again, if that can be done.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        book: IBook,
        listeners: Mapping[str, Listeners],
        observer: ServerObserver | None = None,
        hostname: str = "",
        leaseTime: float = 120.0,
        quota: TunnelQuota | None = None,
        waiting: WaitingRoom | None = None,
    ) -> None:
        self.reactor = reactor
        self.book = book
        self.here = Here()
        self.entries = BookEntries(
            reactor, book, self.here, TunnelQuota() if quota is None else quota
        )
        self.listeners = dict(listeners)
        self.observer = observer or ServerObserver()
        self.hostname = hostname
        self.leases = Leases(reactor, book, self.here, leaseTime)
        self.tickets = Tickets(reactor.seconds)
        self.via: dict[str, Via] = {
            SESSION: viaSession,
            "tcp": viaTCP,
            "tls": viaTLS,
            "w3p": viaCapability,
        }
        self.clientPort: tuple[int, bool] = (0, False)
        self.waiting = waiting or WaitingRoom()
        self.leaving: TunnelError | None = None
        self.expiries = Expiries(reactor, self.discard)
        self.keepWhile = self.expiries.keepWhile
        self.clients = ConnectedClients(reactor.seconds)
        self.policies = VisitorPolicies(reactor)
        self.hosts = HostRules()
        self.certificates: Callable[[], Sequence[CertificateState]] = tuple
        self.rights = TunnelRights(
            reactor,
            changed=lambda tunnel: self.policies.refresh(tunnel),
            hosts=self.hosts,
        )
        self.access = AccessGrants(reactor, book)
        self.knocks = Knocks(self)
        self.claims = Claims(
            self.leases, self.clients, self.here, self.entries.holder, self.destroy
        )
        self.sharing = Sharing()
        self.meter = RateMeter(reactor.seconds)
        self.now = time.time
        self.looksAtAnswers = False
        self.nodes: Sequence[_Node] = ()
        self.invitations = Invitations([])
        self.managed = ManagedForwards("", self.clients)
        self.decisions: Decisions | None = None
        self.kept = PortsKept()
        self.processes: Siblings | None = None
        self.siblings: Siblings | None = None
        self.cluster: Cluster | None = None
        self.reload: Callable[[], Deferred[dict[str, object]]] | None = None
        watching = book.watch(Elsewhere(self).changed)
        watching.addCallback(lambda end: self.access.lookThrough())

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
        wanted = self._wanted(options)
        while True:
            try:
                return await self._open(caller, wanted, options)
            except TunnelError as refusal:
                await self.claims.makeWay(caller, wanted, refusal, displaces)
                displaces = False

    def _wanted(self, options: Mapping[str, object]) -> TunnelOptions:
        wanted = TunnelOptions.fromMapping(options)
        if not wanted.private:
            kind, _ = listenersFor(self.listeners, wanted)
            wanted = replace(wanted, listener=kind)
        checkGate(self.listeners, wanted)
        return self.hosts.completed(wanted, isNamed(self.listeners, wanted))

    async def _open(
        self, caller: Caller, wanted: TunnelOptions, options: Mapping[str, object]
    ) -> Tunnel:
        if self.leaving is not None:
            raise self.leaving
        if caller.limitedTo is not None:
            raise TunnelError(
                "not-permitted", "the URI of a tunnel is only valid for that tunnel"
            )
        if wanted.resume and caller.lease is not None:
            for tunnel in caller.lease.tunnels:
                if tunnel.uri == wanted.resume:
                    # What is asked of visitors may have changed meanwhile.
                    self.policies.setByOwner(tunnel, wanted.policy)
                    if askedAgain(tunnel, wanted):
                        self.knocks.offer(tunnel, caller, wanted)
                        self.policies.refresh(tunnel)
                        await self.entries.asked(tunnel, dict(options))
                    if self.processes is None:
                        self.sharing.asked(tunnel, wanted)
                    return tunnel
        self.rights.checkOpen(caller.identity, caller.lease, wanted)
        if self.decisions is not None:
            await self.decisions.tunnel(caller.identity, wanted)
            if self.leaving is not None:
                raise self.leaving
        tunnel = self._make(secrets.token_hex(8), caller, wanted)
        text, counted = json.dumps(dict(options)), caller.countedAs
        enter = partial(self.entries.open, tunnel, countedAs=counted, options=text)
        await self._finish(tunnel, caller, wanted, enter)
        return await shown(self, tunnel)

    async def adopt(self, caller: Caller, record: TunnelRecord) -> Tunnel:
        """
        Take over a tunnel from another process: its client has come to this one.

        @param caller: The client, with its lease.
        @param record: What the book says of the tunnel.
        @raise TunnelError: Why that is impossible; then the tunnel is over.
        """
        wanted = self._wanted(json.loads(record.options))
        hasHost = isNamed(self.listeners, wanted)
        isMadeUp = hasHost and not wanted.name
        wanted = inItsPlace(wanted, record, hasHost)
        if isMadeUp:
            self.hosts.wasMadeUp(wanted.name, record)
        tunnel = self._make(record.id, caller, wanted)
        self.knocks.moved(tunnel)
        if wanted.ttl:
            tunnel.until = self.reactor.seconds() + record.until - self.now()

        async def entered(lease: Lease | None) -> Held:
            return self.entries.adopt(tunnel, record)

        try:
            await self.kept.recall(record.id)
            return await self._finish(tunnel, caller, wanted, entered, record.uri)
        finally:
            self.kept.forget(record.id)

    def _make(self, identifier: str, caller: Caller, wanted: TunnelOptions) -> Tunnel:
        tunnel = made(self, identifier, caller, wanted)
        tunnel.exhausted = self._exhausted
        self.knocks.offer(tunnel, caller, wanted)
        self.policies.setByOwner(tunnel, wanted.policy)
        return tunnel

    async def _finish(
        self,
        tunnel: Tunnel,
        caller: Caller,
        wanted: TunnelOptions,
        enter: Callable[[Lease | None], Awaitable[Held]],
        uri: str = "",
    ) -> Tunnel:
        """
        Open the parts of a tunnel.

        @param enter: Enters it in the book.
        @param uri: The URI that it has already, if it has.
        """
        try:
            await build(self, tunnel, caller, wanted, enter, uri)
        except Exception as error:
            # Also when the caller leaves meanwhile.
            refusal = error if isinstance(error, TunnelError) else None
            await dismantle(self, tunnel, refusal or TunnelError("internal"))
            raise
        self.sharing.asked(tunnel, wanted)
        self.rights.opened(tunnel, self.discard)
        if tunnel.until is not None:
            self.expiries.after(tunnel, wanted.ttl, tunnel.until)
        self.observer.tunnelCreated(tunnel)
        return tunnel

    async def enter(self, tunnel: Tunnel) -> None:
        """
        Enter a tunnel here and in the book that is open already, and does not count
        against quotas.

        @raise TunnelError: C{name-taken} or another reason.
        """
        held = await self.entries.open(tunnel)
        if tunnel.closed is None:
            await self.entries.announce(held)

    async def find(self, uri: str) -> Tunnel:
        """
        Look up a tunnel of this process by its URI or its id.

        @raise TunnelError: C{unknown-tunnel}.
        """
        return self.here.live(await self.entries.find(uri))

    @returnsDeferred
    async def getTunnelAddress(self, caller: Caller, uri: str) -> str:
        """
        Look up the address, for anybody who knows the URI; if the URI can be guessed,
        only for the owner and those whom the owner has named.
        """
        record = await self.entries.find(uri)
        limited = caller.limitedTo
        if (limited is not None and limited.id != record.id) or not (
            not isGuessable(record.uri)
            or "*" in record.lookup
            or caller.identity.name in record.lookup
            or self.rights.mayControl(caller.identity, ownerOf(record))
        ):
            raise TunnelError("unknown-tunnel")
        return record.address

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
            await retire(self, tunnel)
            return
        await self.destroy(tunnel, TunnelError("closed", "its owner closed the tunnel"))

    @returnsDeferred
    async def listTunnels(self, caller: Caller) -> list[dict[str, object]]:
        return [
            describeTunnel(tunnel)
            for tunnel in self.here
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
        Set it, if the tunnel is the caller's; an operator's policy is in force beside
        the owner's.
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
        return self.rights.mayControl(caller.identity, tunnel.owner)

    def _mayVisit(self, caller: Caller, record: TunnelRecord) -> bool:
        """
        Whether C{caller} may visit a tunnel: its own, those that it has a
        grant for, and those that everybody may.
        """
        owner = ownerOf(record)
        if mayReach(caller.identity, record.name, owner):
            return True
        if isCapability(caller.identity):
            return False
        return bool(record.address) or self.rights.mayControl(caller.identity, owner)

    # The rest of the program

    async def findNamed(self, caller: Caller, name: str) -> Tunnel:
        """
        Find the tunnel of a name, for a visitor who comes as a client; or what leads
        to it, if another process has it.

        @raise TunnelError: C{unknown-tunnel}, also for one that C{caller} may
            not visit.
        """
        if caller.identity.grant is not None:
            caller.identity.grant.check()
        record = await self.entries.holder(named(name))
        if record is not None and caller.limitedTo is None:
            held = self.here.get(record.id)
            found = self.kept.elsewhere(record) if held is None else held.tunnel
            if found is not None and self._mayVisit(caller, record):
                return found
        raise TunnelError("unknown-tunnel", f"there is no service {name!r}")

    async def destroy(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """End a tunnel: its listener, its streams, its entry."""
        if tunnel.closed is not None:
            return
        held = self.here.of(tunnel)
        await dismantle(self, tunnel, reason)
        self.observer.tunnelDestroyed(tunnel, reason)
        if held is not None:
            self.claims.freed(tunnel, held.port("visitors"), tunnel.name)

    def _exhausted(self, tunnel: Tunnel) -> None:
        self.discard([tunnel], TunnelError("closed", "it has had all of its visitors"))

    def discard(self, tunnels: list[Tunnel], reason: TunnelError) -> Deferred[None]:
        """End tunnels, without waiting for that."""
        ending = [
            Deferred.fromCoroutine(self.destroy(tunnel, reason)) for tunnel in tunnels
        ]
        return gatherResults(ending).addCallback(lambda _: None)

    def limit(self, quota: TunnelQuota) -> None:
        """Change the quota for tunnels that are opened from now on."""
        self.entries.quota = quota

    def servedBy(self, side: IClientSide | None) -> list[Tunnel]:
        """The tunnels whose visitors a session serves."""
        if side is None:
            return []
        return [tunnel for tunnel in self.tunnels if tunnel.clientSide is side]

    @property
    def tunnels(self) -> list[Tunnel]:
        """All tunnels that were opened here, without the relay's channels."""
        return self.here.counted

    def streams(self) -> int:
        """
        Count the visitors who have a client's end now, or are led to another process.
        """
        return self.kept.streams() + sum(
            stream.client is not None
            for tunnel in self.tunnels
            for stream in tunnel.streams
        )

    @returnsDeferred
    async def leave(self, reason: TunnelError) -> None:
        """
        Open no more tunnels. Visitors of a port or a name that another process can take
        over wait for that.

        @return: Fires when no more visitors come to tunnels of here, neither from
            outside nor from other processes.
        """
        self.leaving = self.here.leaving = reason
        leading = []
        for tunnel in self.here:
            if tunnel.listener is not None and self.kept.keeps(tunnel.listener):
                tunnel.listener.close()
            elif (held := self.here.get(tunnel.id)) and held.record.lease:
                leading.append(self.kept.leaves(held.record))
                tunnel.leaveSoon()
        await gatherResults(leading)
        if self.siblings is not None:
            await self.siblings.heed("leaving", self.siblings.name, patience=ASSURED)

    async def close(self, reason: TunnelError) -> None:
        """
        End everything that is here, because the process stops. Clients with leases may
        come back to another process.
        """
        self.access.close()
        await self.leases.close()
        await self.discard(self.here.leave(), reason)
        await self.book.stop()
