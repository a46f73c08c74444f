"""A server, put together from what its command line says."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.web.resource import IResource

from tristunnel.auth.tokens import LOOK_INTERVAL, TokenFile
from tristunnel.cli.announcement import Announcement
from tristunnel.cli.belonging import passNames, serveAsMember
from tristunnel.cli.demo import Demo
from tristunnel.cli.name_serving import ChallengePage, NameServing
from tristunnel.cluster.service import ClusterService
from tristunnel.config.reload import Reload
from tristunnel.dashboard.pages import Watch
from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.lookups import resolveWith
from tristunnel.dialects.base.dialect import OtherPage
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.conch.hostkey import HostKey
from tristunnel.dialects.framed.datagram_path import ServerPaths
from tristunnel.dialects.table import ownerOf, portProtocols
from tristunnel.errors import TunnelError, badOption
from tristunnel.gate.attempts import Attempts
from tristunnel.gate.gate import VisitorGate
from tristunnel.gate.knocking import KnockPage
from tristunnel.gate.provider import Providers
from tristunnel.gate.seal import Seal, keyFrom
from tristunnel.hooks.certificates import CertificateWatch
from tristunnel.hooks.delivery import Hooks
from tristunnel.hooks.observers import HookedServer
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.join import JoinPage
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import Either, Health, HTTPPortProtocol, rootOf, rpcPages
from tristunnel.listeners.table import LISTENERS, ListenerSettings
from tristunnel.model.book import IBook
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.observer import ServerObserver
from tristunnel.model.quota import TunnelQuota, defaultTotal
from tristunnel.model.rendezvous import WaitingRoom
from tristunnel.names.log import AccessLog
from tristunnel.names.public import CHALLENGES, PublicNames
from tristunnel.names.site import NameSite
from tristunnel.node.spec import NodeSpec
from tristunnel.node.tunnel import NodeTunnel
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.draining import Draining
from tristunnel.server.log import LoggingServerObserver
from tristunnel.server.options import ServerOptions
from tristunnel.server.ports import ServerPort
from tristunnel.server.reload import RunningServer
from tristunnel.server.service import TunnelServerService
from tristunnel.server.websocket_pages import ROOT, webSocketPages
from tristunnel.service.caller import Listeners
from tristunnel.service.invitations import Invitations
from tristunnel.service.knocks import KNOCK_PATH
from tristunnel.service.managed import ManagedForwards
from tristunnel.service.preauth import PER_ADDRESS, TOTAL, PreauthLimiter
from tristunnel.service.siblings import Siblings
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.service.used_elsewhere import limitedTogether
from tristunnel.tls.server_context import CreatorInForce
from tristunnel.util.logs import Log
from tristunnel.util.output import LogFile
from tristunnel.util.process import (
    ReloadSignalService,
    exitWith,
    hurryOnSecondSignal,
    stopSoon,
)
from tristunnel.util.repeating import RepeatingService

__all__ = ["Serving"]

EDITED = 5.0
"""Seconds between two checks whether the file of managed tunnels was edited."""

_log = Logger(namespace="tristunnel.server")


class Serving(MultiService):
    """
    A server with its ports, and all that goes with them.

    @param reactor: Tells time, and listens.
    @param options: Its options.
    @param log: Reopened for programs that rotate log files.
    @param hooks: Told of events.
    """

    _cannot = False

    def __init__(
        self, reactor: Any, options: ServerOptions, log: Log, hooks: Hooks | None = None
    ) -> None:
        super().__init__()
        self._reactor, self._options, self._log = reactor, options, log
        self._membership = options.membership
        self._cluster: ClusterService | None = None
        self._knowing: Deferred[None] | None = None
        self._limiters: list[PreauthLimiter] = []
        self._visitorsTLS: CreatorInForce | None = None
        self._clientsTLS: CreatorInForce | None = None
        checkers = options.get("credCheckers") or ()
        self._tokenFiles = [each for each in checkers if isinstance(each, TokenFile)]
        observer = LoggingServerObserver(reactor.seconds, reactor.callLater)
        told: list[ServerObserver] = [observer]
        if hooks is not None:
            told.append(HookedServer(hooks, reactor.seconds))
            self._watchCertificates(hooks)
        self._watch = Watch(reactor, *told)
        self._names = PublicNames()
        self._naming = NameServing(
            reactor,
            options,
            self._names,
            lambda host: self._tunnels.hosts.isMadeUp(host),
            lambda host: self._tunnels.hosts.isKept(host),
        )
        self._naming.start(self)
        self._tunnels = self._makeTunnels()
        self._tunnels.decisions = options.decisions
        options.authenticator.decisions = options.decisions
        self._tunnels.managed = self._makeManaged()
        self._tunnels.invitations = self._makeInvitations()
        self._sessions = ServerSessions(
            reactor,
            self._tunnels,
            options.authenticator,
            handshakeTimeout=options["handshake-timeout"],
        )
        self._sessions.stateDirectory = options.stateDirectory
        if options["direct-udp"]:
            self._sessions.paths = ServerPaths(reactor, offset=self._index)
        self._server = self._makeServer()
        self._announcement = Announcement(
            options,
            self._server,
            self._sessions,
            self._tunnels,
            self._naming,
            self._tokenFiles,
        )
        signals = ReloadSignalService(reactor, log, lambda: self._reload.reloadLater())
        signals.setServiceParent(self)
        self._server.setServiceParent(self)
        self._tunnels.nodes = nodes = [
            self._makeNode(options, spec) for spec in options.nodes if self._index == 0
        ]
        running = RunningServer(
            options,
            self._tunnels,
            self._sessions,
            self._server,
            self._tokenFiles,
            self._makeNode,
            self,
            nodes,
            self._visitorsTLS,
            self._clientsTLS,
        )
        self._reload = Reload(options, running.change)
        self._tunnels.reload = self._reload.reload
        for node in nodes:
            node.setServiceParent(self)
        if options["demo"]:
            demo = Demo(reactor, self._server, self._announcement.dashboard)
            demo.setServiceParent(self)
        reactor.addSystemEventTrigger(
            "before", "shutdown", hurryOnSecondSignal, reactor, self._signalled
        )
        self._watch.start()
        reactor.callWhenRunning(self._begun)

    def _begun(self) -> None:
        (self._knowing or succeed(None)).addCallback(self._running)

    def _running(self, result: None) -> None:
        if self._cluster is not None:
            port = self._server.numbers.get(self._options.serverPorts[0].description)
            self._cluster.reachedAt(self._options["advertise"], port or 0)
        if self._membership is not None:
            self._membership.hurry = self._hurry
            self._membership.ready()
        if self._cannot:
            return
        if self._index == 0:
            self._announcement.tell()
        else:
            self._announcement.placeInvitations()

    @property
    def _index(self) -> int:
        """
        Which of several processes this is. The first one does what must be done once.
        """
        return 0 if self._membership is None else self._membership.index

    def _isDraining(self) -> bool:
        return self._cluster is not None and self._cluster.members.isDraining

    def _elsewhere(self) -> tuple[str, ...]:
        """Where clients may go instead: rather to another machine."""
        found = () if self._cluster is None else self._cluster.members.elsewhere()
        if self._membership is not None:
            found = found or self._membership.elsewhere()
        return found

    def _isLast(self) -> bool:
        """Whether no other member of this server goes on when this one stops."""
        if self._membership is not None and not self._membership.allStop:
            # A process that has ended is started again.
            return False
        return not self._elsewhere()

    def _watchCertificates(self, hooks: Hooks) -> None:
        options = self._options
        paths = [port.certificatePath for port in options.serverPorts]
        paths += [options["certificate"], options["visitor-certificate"]]
        known = [path for path in paths if path]
        CertificateWatch(self._reactor, hooks, known).setServiceParent(self)

    def _makeTunnels(self) -> TunnelService:
        options = self._options
        made = TunnelService(
            self._reactor,
            self._makeBook(),
            self._makeListeners(),
            self._watch.observer,
            options["hostname"],
            options["lease"],
            TunnelQuota.of(options["max-tunnels-per-caller"], options["max-tunnels"]),
            WaitingRoom(defaultTotal()),
        )
        if self._membership is not None:
            made.processes = made.siblings = Siblings(self._membership)
        if self._cluster is not None:
            self._cluster.failed = self._cannotStart
            self._knowing = self._cluster.serve(made)
        made.policies.countries = options.countries
        if made.siblings is not None:
            made.knocks.publish(made.siblings)
            limits = limitedTogether(self._reactor, made.siblings, made.rights)
            limits.setServiceParent(self)
        made.hosts.change(options.domains, options["hostname"], options.reservedNames)
        made.hosts.holders = self._keepersOf
        made.certificates = self._naming.states
        return made

    def _makeBook(self) -> IBook:
        options = self._options
        if options.cluster is None:
            if self._membership is not None:
                return self._membership.book
            return MemoryBook(self._reactor)
        self._cluster = ClusterService(
            self._reactor, options.cluster, options["grace"], self._membership
        )
        self._cluster.setServiceParent(self)
        return self._cluster.book

    def _makeManaged(self) -> ManagedForwards:
        path = self._options.stateDirectory / "managed.toml"
        made = ManagedForwards(str(path), self._tunnels.clients)
        made.machines = self._cluster is not None
        if self._tunnels.siblings is not None:
            made.shareWith(self._tunnels.siblings)
        looking = RepeatingService(self._reactor, made.refresh, EDITED)
        looking.setServiceParent(self)
        return made

    def _makeInvitations(self) -> Invitations:
        made = Invitations(self._tokenFiles)
        if self._cluster is not None:
            made.shared = shared = self._cluster.share(self._tokenFiles)
            looking = RepeatingService(self._reactor, shared.look, LOOK_INTERVAL)
            looking.setServiceParent(self)
        return made

    def _keepersOf(self, patterns: Collection[str]) -> set[str]:
        """Those who reserve names, also while no tunnel has them."""
        found = (file.holdersOf(patterns) for file in self._tokenFiles)
        return set().union(*found)

    def _makeListeners(self) -> dict[str, Listeners]:
        reactor, options = self._reactor, self._options
        here = "127.0.0.1"
        # A connection in its TLS handshake is no tunnel's visitor yet, and costs as
        # much.
        handshakes = max(64, min(TOTAL, RESERVE.size))
        if options.visitorCertificate is not None:
            self._visitorsTLS = CreatorInForce(options.visitorCertificate)
        elif options.certificate is not None:
            self._clientsTLS = CreatorInForce(options.certificate)
        settings = ListenerSettings(
            reactor,
            options["interface"] or (here if options["demo"] else ""),
            options["interface"] or here,
            options.portRange,
            options["udp-idle"],
            self._visitorsTLS or self._clientsTLS,
            lambda: PreauthLimiter(
                reactor.seconds,
                handshakes // 2,
                handshakes,
                options.forwarded.speaksFor,
            ),
            self._names if self._names.offered else None,
            (options["unix-directory"], options.unixMode),
        )
        made = {name: make(settings) for name, make in LISTENERS.items()}
        # The first one is what visitors use unless the client says otherwise.
        first = "tcp" if self._visitorsTLS is None else "tls"
        return {
            name: listeners
            for name, listeners in ({first: made[first]} | made).items()
            if listeners is not None
        }

    def _makeServer(self) -> TunnelServerService:
        made = TunnelServerService(
            self._reactor,
            self._makePorts(),
            self._sessions,
            self._tunnels,
            self._options["grace"],
            self._cannotStart,
        )
        made.names = self._names
        made.before, made.isLast = self._knowing, self._isLast
        made.unknown = lambda: sum(each.unauthenticated for each in self._limiters)
        draining = made.draining = Draining(
            self._reactor, self._sessions, self._tunnels, self._elsewhere
        )
        if self._cluster is not None:
            members, self._cluster.moving = self._cluster.members, draining.moved
            members.drained, members.numbers = draining.turn, draining.numbers
        if self._membership is not None:
            made.leaving = self._membership.leaving
        return made

    def _makePorts(self) -> list[tuple[ServerPort, Any]]:
        options, sessions = self._options, self._sessions
        limiter = self._makeLimiter(
            any(
                port.serving("--port")
                and (port.serving("--http") or port.serving("--https"))
                for port in (*options.serverPorts, *options.namePorts)
            )
        )
        callers = HTTPCallers(options.authenticator, options.forwarded, limiter)
        pages: dict[bytes, IResource] = {b"health": Health(self._isDraining)}
        calls = self._makePages(callers, limiter)
        ports: list[tuple[ServerPort, Any]] = []
        if options.rpcPort is not None:
            calling = [self._site({**pages, **calls}, callers)]
            # It has a limiter of its own, which crowds at the other ports do not fill.
            detector = self._detector(calling, self._makeLimiter(), options.rpcPort)
            ports.append((options.rpcPort, detector))
        else:
            pages.update(calls)
        sockets = webSocketPages(
            sessions,
            callers,
            options.webSocketPaths,
            options.forwarded,
            served=options.served,
        )
        if ROOT in pages and ROOT in sockets and "/" not in options.webSocketPaths:
            sockets[ROOT] = Either(sockets[ROOT], pages[ROOT])
        pages.update(sockets)
        pages[b"join"] = JoinPage(self._tunnels, callers, options.forwarded)
        pages[CHALLENGES.strip(b"/")] = ChallengePage(self._names)
        gate, knocks = self._makeGate(), self._tunnels.knocks
        pages[KNOCK_PATH] = KnockPage(
            knocks,
            callers,
            options.forwarded,
            gate.attempts,
            gate.pages,
            resolveWith(self._reactor),
        )
        found = [each.otherPage(sessions, callers) for each in options.served.values()]
        site = self._site(pages, callers, [each for each in found if each is not None])
        hosts = NameSite(self._reactor, self._names)
        hosts.proxies = options.forwarded
        hosts.gate = gate
        self._names.pages = options.pages
        self._names.redirects = not options["no-https-redirect"]
        if path := options["access-log"]:
            log = AccessLog(self._accessFile(path), options["access-log-format"])
            hosts.log = log
        others = self._makeLimiter(forVisitors=True)
        dialects = portProtocols(sessions, options.served)
        bare = portProtocols(sessions, options.served, bare=True)
        clientPorts = [
            replace(port, bare=bool(bare) and port.below is not None)
            for port in options.serverPorts
        ]
        named: list[tuple[ServerPort, Any]] = [
            (
                port,
                self._naming.factoryFor(
                    port,
                    (dialects, bare),
                    site,
                    hosts,
                    self._watch.observer,
                    # So that many visitors do not crowd clients out.
                    limiter if port.serving("--port") else others,
                ),
            )
            for port in (*clientPorts, *options.namePorts)
        ]
        for port in options.ownPorts:
            knocks.others.add(port.number)
            owner = ownerOf(port.number, options.served)
            assert owner is not None
            spoken = owner.portProtocols(sessions)
            ports.append((port, self._detector(spoken, limiter, port)))
        if self._tunnels.siblings is not None:
            sessions.isAmong(self._tunnels.siblings, self._sharedSecret)
        if self._membership is not None:
            self._knowing = serveAsMember(
                self._reactor,
                self._membership,
                sessions,
                # The first port is one for clients.
                [*self._naming.detectors, *(each for _, each in ports)],
                self._limiters,
                lambda: self._reload.reloadLater(),
                self._cluster,
            )
            passNames(sessions, hosts, [factory for _, factory in named])
        return [*named, *ports]

    def _sharedSecret(self) -> bytes:
        """Make the secret that only the members of this server know."""
        if self._options.cluster is not None:
            return self._options.cluster.secret
        key = self._sessions.kept(HostKey.inDirectory)
        return key.private.private_bytes_raw()

    def _makeGate(self) -> VisitorGate:
        options = self._options
        shared = b"" if options.cluster is None else options.cluster.secret
        seal = Seal(partial(keyFrom, options.stateDirectory, shared), time.time)
        attempts = Attempts(self._reactor, self._makeLimiter())
        providers = Providers(self._reactor, options["oidc-issuer"])
        access, siblings = self._tunnels.access, self._tunnels.siblings
        gate = VisitorGate(
            self._reactor, seal, attempts, self._names, providers, access
        )
        if siblings is not None:
            attempts.told = partial(siblings.tell, "wrongAttempt")
            siblings.publish("wrongAttempt", attempts.wrongElsewhere)
            gate.staying.told = partial(siblings.tell, "signedOut")
            siblings.publish("signedOut", gate.staying.signedOutElsewhere)
        return gate

    def _accessFile(self, path: str) -> LogFile:
        try:
            file = LogFile(path)
        except OSError as error:
            raise badOption(
                f"--access-log {path} cannot be written: {error.strerror}"
            ) from None
        self._log.take(file)
        return file

    def _makeLimiter(self, forVisitors: bool = False) -> PreauthLimiter:
        total = min(TOTAL, max(16, RESERVE.size // 4))
        made = PreauthLimiter(
            self._reactor.seconds,
            # A whole office of browsers may come from one address at once.
            total // 2 if forVisitors else PER_ADDRESS,
            total,
            speaksForOthers=self._options.forwarded.speaksFor,
        )
        self._limiters.append(made)
        return made

    def _makePages(
        self, callers: HTTPCallers, limiter: PreauthLimiter
    ) -> dict[bytes, IResource]:
        options = self._options
        names = options.hostnames if options["hostname"] else None
        watched = self._watch.pages(
            self._tunnels,
            callers,
            limiter,
            bool(options.get("credCheckers")),
            names,
            not options["no-dashboard"],
            self._tokenFiles,
            bool(options["client-ca"]),
        )
        return {**rpcPages(self._tunnels, callers, names), **watched}

    def _site(
        self,
        pages: dict[bytes, IResource],
        callers: HTTPCallers,
        others: Sequence[OtherPage] = (),
    ) -> HTTPPortProtocol:
        root = rootOf(pages, others)
        return HTTPPortProtocol(
            LimitedSite(root, reactor=self._reactor, admit=callers.admit)
        )

    def _detector(
        self, protocols: Sequence[Any], limiter: PreauthLimiter, port: ServerPort
    ) -> ProtocolDetectorFactory:
        return ProtocolDetectorFactory(
            self._reactor,
            protocols,
            self._watch.observer,
            self._options["handshake-timeout"],
            limiter,
            port.proxied,
        )

    def _makeNode(self, options: ServerOptions, spec: NodeSpec) -> NodeTunnel:
        directory = options.stateDirectory / "nodes"
        forward = "" if spec.forward is None else spec.forward.spec

        def lease() -> ClientLease:
            if not forward:
                return ClientLease()
            return ClientLease.forClient(
                directory, spec.server.where, [spec.name, forward], self._reactor
            )

        return NodeTunnel(self._reactor, spec, lease, options["grace"])

    def _signalled(self) -> None:
        """Take a second signal; of several processes, only the parent obeys it."""
        if self._membership is None:
            self._hurry()

    def _hurry(self) -> None:
        self._server.hurry()
        for node in self._tunnels.nodes:
            node.stopNow()

    def _cannotStart(self, reason: TunnelError) -> None:
        """End with one line and an exit status that says so."""
        _log.critical("Cannot start: {reason}", reason=reason)
        self._cannot = True
        exitWith(1)
        stopSoon(self._reactor)
