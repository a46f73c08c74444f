"""
What a server is told, whatever command line or file it comes from.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from tristunnel.acme.settings import AuthoritySettings, DomainSettings
from tristunnel.auth.realm import Authenticator
from tristunnel.cluster.service import ClusterSettings
from tristunnel.config.options import ConfiguredOptions
from tristunnel.config.settings import redacted, tomlValue
from tristunnel.dialects.table import DIALECTS, Served
from tristunnel.forwards.dialling import dialDestinations
from tristunnel.http.forwarded import Forwarded
from tristunnel.model.decisions import Decisions
from tristunnel.model.policy import VisitorPolicy
from tristunnel.model.ports import UNPRIVILEGED, PortRange
from tristunnel.names.pages import Pages
from tristunnel.node.spec import NodeSpec
from tristunnel.processes.membership import Membership
from tristunnel.server.ports import ServerPort
from tristunnel.service.countries import CountryDatabase
from tristunnel.service.host_rules import RESERVED
from tristunnel.tls.named import NamedCertificates
from tristunnel.tls.server_context import ReloadingCertificate
from tristunnel.wire.invitation import Invitation

__all__ = ["ServerOptions"]


class ServerOptions(ConfiguredOptions):
    """
    Options of a server, and what their check has made of them.

    @ivar serverPorts: Where clients connect.
    @ivar ownPorts: Where clients connect that know only one port, see
        L{Dialect.ownPort<tristunnel.dialects.base.dialect.Dialect>}.
    @ivar namePorts: Where visitors of names connect.
    @ivar unixMode: Who may connect to UNIX sockets for visitors.
    @ivar pages: The pages for visitors of names who cannot be served.
    @ivar namedCertificates: Certificates by name, or C{None}.
    @ivar authority: The authority that is asked for others, or C{None}.
    @ivar changesDomains: How it is proved that a domain is ours.
    @ivar domains: The domains below which names are given out.
    @ivar reservedNames: Names that no tunnel may have.
    @ivar rpcPort: Where calls are answered; C{None} for all of those.
    @ivar portRange: Which ports visitors may get.
    @ivar certificate: The one of all ports, or C{None}.
    @ivar visitorCertificate: The one that visitors see, or C{None}.
    @ivar authenticator: Says who a client is.
    @ivar decisions: Who else has a say in what may happen, or C{None}.
    @ivar destinations: What it dials for clients.
    @ivar forwarded: Whom proxies speak for.
    @ivar policy: The limits on visitors.
    @ivar countries: Knows the countries of addresses, or C{None}.
    @ivar nodes: The tunnels with other servers.
    @ivar webSocketPaths: Where clients connect by WebSocket.
    @ivar served: The dialects that clients may speak.
    @ivar memory: Bytes that may be held for slow readers; 0 for any number.
    @ivar stateDirectory: Its state directory.
    @ivar membership: This process's links to the others of the same server, if it is
        one of several.
    @ivar cluster: What it was told of other machines; C{None} if there are none.
    @ivar invites: Shows the invitation of the first client, where there is no
        token yet; C{None} to make none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.serverPorts: list[ServerPort] = []
        self.ownPorts: list[ServerPort] = []
        self.cluster: ClusterSettings | None = None
        self.namePorts: list[ServerPort] = []
        self.namedCertificates: NamedCertificates | None = None
        self.authority: AuthoritySettings | None = None
        self.changesDomains = DomainSettings()
        self.unixMode = 0
        self.domains: list[str] = []
        self.pages = Pages()
        self.reservedNames: frozenset[str] = RESERVED
        self.rpcPort: ServerPort | None = None
        self.portRange: PortRange = UNPRIVILEGED
        self.certificate: ReloadingCertificate | None = None
        self.visitorCertificate: ReloadingCertificate | None = None
        self.authenticator = Authenticator()
        self.decisions: Decisions | None = None
        self.forwarded = Forwarded()
        self.policy = VisitorPolicy()
        self.countries: CountryDatabase | None = None
        self.destinations = dialDestinations(())
        self.nodes: list[NodeSpec] = []
        self.webSocketPaths: list[str] = ["/tunnel"]
        self.served: Served = DIALECTS
        self.memory = 0
        self.stateDirectory = Path()
        self.membership: Membership | None = None
        self.invites: Callable[[Invitation], object] | None = None

    @property
    def processes(self) -> int:
        """How many processes serve."""
        asked: int = self["processes"]
        if asked:
            return asked
        mine: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
        return (os.cpu_count() or 1) if mine is None else len(mine(0))

    def valueShown(self, name: str) -> str:
        """Write an option's value for the log, without secrets."""
        return tomlValue(redacted(name, self.inForce()[name].value))

    def share(self, amount: float) -> float:
        """Find one process's share of something that the whole server has."""
        return amount / self.processes

    @property
    def allPorts(self) -> list[ServerPort]:
        """All ports: for clients, for names, and for calls."""
        rpc = [] if self.rpcPort is None else [self.rpcPort]
        return [*self.serverPorts, *self.ownPorts, *self.namePorts, *rpc]

    @property
    def hostnames(self) -> list[str]:
        """The names that this server may be known by."""
        names = [self["hostname"]] if self["hostname"] else [socket.gethostname()]
        return [*names, "localhost", "127.0.0.1", "::1"]
