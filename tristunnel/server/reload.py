"""Putting other options in force at a running server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tristunnel.auth.realm import portalFor
from tristunnel.auth.tokens import TokenFile
from tristunnel.config.keys import keysOf
from tristunnel.config.policy_options import PolicyOptionsMixin
from tristunnel.config.reload import Changes, differing
from tristunnel.dataplane.memory import HELD
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.table import DIALECTS
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.listeners.udp import UDPListeners
from tristunnel.model.quota import TunnelQuota
from tristunnel.node.spec import NodeSpec
from tristunnel.node.tunnel import NodeTunnel
from tristunnel.server.options import ServerOptions
from tristunnel.server.service import TunnelServerService
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.tls.server_context import CreatorInForce

__all__ = ["RESTART", "RunningServer"]

RESTART = frozenset(
    (
        "access-log",
        "access-log-format",
        "acme",
        "acme-ca",
        "acme-directory",
        "acme-dns-hook",
        "acme-dns-key",
        "acme-dns-server",
        "acme-dns-wait",
        "acme-eab",
        "ask",
        "ask-default",
        "ask-timeout",
        "certificates",
        "check",
        "demo",
        "dialects",
        "direct-udp",
        "advertise",
        "country-database",
        "event-secret-file",
        "handshake-timeout",
        "hostname",
        "http",
        "https",
        "minecraft",
        "postgres",
        "interface",
        "log-format",
        "no-dashboard",
        "oidc-issuer",
        "on-event",
        "port",
        "processes",
        "cluster",
        "cluster-advertise",
        "cluster-listen",
        "cluster-ports",
        "cluster-token-file",
        "hold",
        "member-ttl",
        "rpc",
        "state-dir",
        "unix-directory",
        "unix-mode",
        "websocket-path",
    )
)
"""Options that only take effect after a restart."""

_POLICY = frozenset(keysOf(PolicyOptionsMixin))
_TLS = frozenset(("certificate", "private-key", "client-ca", "client-crl"))
_VISITORS_TLS = frozenset(("visitor-certificate", "visitor-key"))
_Applier = Callable[[ServerOptions, ServerOptions], object]


@dataclass(eq=False)
class RunningServer:
    """
    The parts of a server whose options may change.

    @ivar options: Those it was started with, with its ports, and those who say who
        a client is and whom proxies speak for.
    @ivar tunnels: The clients' tunnels.
    @ivar sessions: The clients' sessions.
    @ivar server: What listens.
    @ivar tokenFiles: The files of tokens.
    @ivar makeNode: Makes a tunnel with another server.
    @ivar parent: Runs those tunnels.
    @ivar nodes: Those tunnels.
    @ivar visitorsTLS: The certificate that visitors see, if they have one of their own.
    @ivar clientsTLS: The one that they see if it is the clients'.
    """

    _log = Logger(namespace="tristunnel.config")

    options: ServerOptions
    tunnels: TunnelService
    sessions: ServerSessions
    server: TunnelServerService
    tokenFiles: list[TokenFile]
    makeNode: Callable[[ServerOptions, NodeSpec], NodeTunnel]
    parent: MultiService
    nodes: list[NodeTunnel]
    visitorsTLS: CreatorInForce | None = None
    clientsTLS: CreatorInForce | None = None

    def __post_init__(self) -> None:
        self._checkers = list(self.options.get("credCheckers") or ())
        self.appliers: dict[frozenset[str], _Applier] = {
            _POLICY: self._policy,
            _TLS: self._certificate,
            _VISITORS_TLS: self._visitorCertificate,
            frozenset(("auth",)): self._auth,
            frozenset(("ports",)): self._portRange,
            frozenset(("udp-idle",)): self._udpIdle,
            frozenset(("grace",)): self._grace,
            frozenset(("lease",)): self._lease,
            frozenset(("max-tunnels", "max-tunnels-per-caller")): self._quota,
            frozenset(("max-clients",)): self._maxClients,
            frozenset(("max-services",)): self._maxServices,
            frozenset(("accept-rate",)): self._acceptRate,
            frozenset(("max-memory",)): self._maxMemory,
            frozenset(("trusted-proxy",)): self._trustedProxies,
            frozenset(("dial-allow",)): self._dials,
            frozenset(("node",)): self._changeNodes,
            frozenset(("domain", "reserved-name")): self._names,
            frozenset(("error-pages", "no-https-redirect")): self._publicNames,
        }
        # What the parts were not made with.
        for apply in (
            self._policy,
            self._maxClients,
            self._maxServices,
            self._acceptRate,
            self._maxMemory,
            self._givePorts,
            self._dials,
        ):
            apply(self.options, self.options)

    async def change(self, old: ServerOptions, new: ServerOptions) -> Changes:
        """
        Put other options in force.

        @param old: Those that are in force.
        @param new: Others, which have been checked.
        """
        different = differing(old, new)
        changes = Changes(restart=sorted(different & RESTART))
        for names, apply in self.appliers.items():
            concerned = different & names
            if not concerned:
                continue
            if apply(old, new) is False:
                changes.restart += sorted(concerned)
            else:
                changes.applied += [
                    f"{name} = {new.valueShown(name)}" for name in sorted(concerned)
                ]
        return changes

    # What visitors are asked, and how many there may be

    def _policy(self, old: ServerOptions, new: ServerOptions) -> None:
        self.tunnels.policies.change(new.policy)

    def _quota(self, old: ServerOptions, new: ServerOptions) -> None:
        self.tunnels.limit(
            TunnelQuota.of(new["max-tunnels-per-caller"], new["max-tunnels"])
        )

    def _maxClients(self, old: ServerOptions, new: ServerOptions) -> None:
        self.tunnels.clients.limit = new["max-clients"]

    def _maxServices(self, old: ServerOptions, new: ServerOptions) -> None:
        self.tunnels.rights.services = new["max-services"]

    def _acceptRate(self, old: ServerOptions, new: ServerOptions) -> None:
        self.tunnels.clients.acceptLimiter.rate = self.options.share(new["accept-rate"])

    def _maxMemory(self, old: ServerOptions, new: ServerOptions) -> None:
        HELD.most = int(self.options.share(new.memory))

    # Time

    def _grace(self, old: ServerOptions, new: ServerOptions) -> None:
        self.server.grace = new["grace"]

    def _lease(self, old: ServerOptions, new: ServerOptions) -> None:
        self.tunnels.leases.seconds = new["lease"]

    def _udpIdle(self, old: ServerOptions, new: ServerOptions) -> None:
        for listeners in self.tunnels.listeners.values():
            if isinstance(listeners, UDPListeners):
                listeners.idle = new["udp-idle"]

    # Ports

    def _portRange(self, old: ServerOptions, new: ServerOptions) -> None:
        for listeners in self.tunnels.listeners.values():
            if isinstance(listeners, TCPListeners | UDPListeners):
                listeners.ports = new.portRange
        self._givePorts(old, new)

    def _givePorts(self, old: ServerOptions, new: ServerOptions) -> None:
        given = new.portRange if new["ports"] else None
        for dialect in DIALECTS.values():
            dialect.portsGiven(self.sessions, given)

    # Who is who

    def _auth(self, old: ServerOptions, new: ServerOptions) -> bool:
        """
        Change the checkers, from the next login on. A checker that stays is the same
        object, since it knows who uses its tokens.

        @return: C{False} if this would change whether anybody has to log in at all,
            which takes more than other checkers.
        """
        before: Sequence[str] = old.inForce()["auth"].value
        after: Sequence[str] = new.inForce()["auth"].value
        if bool(before) != bool(after):
            return False
        known = dict(zip(before, self._checkers, strict=False))
        made: Iterable[Any] = new["credCheckers"]
        self._checkers = [
            known.get(spec, checker) for spec, checker in zip(after, made, strict=False)
        ]
        self.options.authenticator.askAt(portalFor(self._checkers))
        self.tokenFiles[:] = [c for c in self._checkers if isinstance(c, TokenFile)]
        return True

    def _trustedProxies(self, old: ServerOptions, new: ServerOptions) -> None:
        self.options.forwarded.trust(new["trusted-proxy"])

    def _dials(self, old: ServerOptions, new: ServerOptions) -> None:
        self.sessions.destinations = new.destinations
        anybody = self.options.authenticator.admitsAnybody and not new["client-ca"]
        if new.destinations and anybody:
            self._log.warn(
                "Whoever connects may have this server connect to what --dial-allow"
                " names; --auth says who may"
            )

    def _names(self, old: ServerOptions, new: ServerOptions) -> None:
        self.tunnels.hosts.change(new.domains, new["hostname"], new.reservedNames)
        self.server.names.liesBelow(new.domains)

    def _publicNames(self, old: ServerOptions, new: ServerOptions) -> None:
        names = self.server.names
        names.pages, names.redirects = new.pages, not new["no-https-redirect"]

    # Certificates

    def _certificate(self, old: ServerOptions, new: ServerOptions) -> bool:
        """
        Change certificates, for new connections.

        @return: C{False} if a port that spoke TLS would not any more, or vice versa.
        """
        if bool(old["certificate"]) != bool(new["certificate"]):
            return False
        ports = (*new.serverPorts, *new.namePorts)
        fresh = {port.description: port for port in ports}
        for port in (*self.options.serverPorts, *self.options.namePorts):
            after = fresh.get(port.description)
            if after is None:
                continue
            for mine, other in (
                (port.creator, after.creator),
                (port.ownCreator, after.ownCreator),
            ):
                if mine is not None and other is not None:
                    mine.creator = other.creator
        if self.clientsTLS is not None and new.certificate is not None:
            self.clientsTLS.creator = new.certificate
        return True

    def _visitorCertificate(self, old: ServerOptions, new: ServerOptions) -> bool:
        if self.visitorsTLS is None or new.visitorCertificate is None:
            return False
        self.visitorsTLS.creator = new.visitorCertificate
        return True

    # Other servers

    def _changeNodes(self, old: ServerOptions, new: ServerOptions) -> None:
        if self.options.membership is not None and self.options.membership.index:
            # The first process has all of them.
            return
        wanted = dict(zip(new["node"], new.nodes, strict=True))
        running = dict(zip(old["node"], self.nodes, strict=True))
        stopping: dict[str, Deferred[Any]] = {}
        for text, node in running.items():
            if text not in wanted:
                node.forGood = True
                stopping[node.spec.name] = self._stopNode(node)
        fresh: list[NodeTunnel] = []
        self.tunnels.nodes = self.nodes = []
        for text, spec in wanted.items():
            node = running.get(text)
            if node is None:
                node = self.makeNode(new, spec)
                fresh.append(node)
            self.nodes.append(node)
        for node in fresh:
            before = stopping.get(node.spec.name)
            if before is None:
                self._startNode(None, node)
            else:
                before.addCallback(self._startNode, node)

    def _stopNode(self, node: NodeTunnel) -> Deferred[Any]:
        stopping: Deferred[Any] = Deferred.fromCoroutine(_disown(node))
        stopping.addErrback(
            lambda failure: self._log.failure("A node's tunnel did not stop", failure)
        )
        return stopping

    def _startNode(self, result: object, node: NodeTunnel) -> None:
        if node in self.nodes:
            node.setServiceParent(self.parent)


async def _disown(node: NodeTunnel) -> None:
    stopping: Any = node.disownServiceParent()
    if stopping is not None:
        await stopping
