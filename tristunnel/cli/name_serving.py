"""
What names need of a server: their certificates, and ports that clients and visitors
share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

from twisted.application.service import IServiceCollection
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Request

from tristunnel.acme.options import automaticCertificates
from tristunnel.dataplane.tls import serverTLSFactory
from tristunnel.dialects.base.dialect import PortProtocol
from tristunnel.model.observer import ServerObserver
from tristunnel.names.public import CertificateState, PublicNames
from tristunnel.names.site import NameSite
from tristunnel.server.bare import BareOrTLSFactory
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.hosts import SharedHTTP
from tristunnel.server.minecraft import MinecraftFactory
from tristunnel.server.names import NamesPortProtocol
from tristunnel.server.options import ServerOptions
from tristunnel.server.ports import SCHEMES, ServerPort
from tristunnel.server.postgres import PostgresFactory
from tristunnel.server.tls_names import Certificates, Served, TLSNamesFactory
from tristunnel.service.preauth import PreauthLimiter
from tristunnel.tls.named import NamedCertificates

__all__ = ["ChallengePage", "NameServing"]

_MOST = 20
"""The largest number of unused certificates that are listed."""


class ChallengePage(Resource):
    """
    The page that answers an authority's challenges.

    @param names: Knows the answers.
    """

    isLeaf = True

    def __init__(self, names: PublicNames) -> None:
        super().__init__()
        self._names = names

    def render_GET(self, request: Request) -> bytes:
        found = self._names.challenge(request.path)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        if found is None:
            request.setResponseCode(404)
            return b"no challenge waits here\n"
        return found


class NameServing:
    """
    Makes what serves the ports of clients and visitors.

    @param reactor: Tells time.
    @param options: What the server was told.
    @param names: Its names, which are told here which of them have a certificate.
    @param isMadeUp: Whether a host's name was made up here. No certificate of its own
        is asked for then: authorities give few in a week.
    @param isKept: Whether a host is reserved for a token, though it may have no tunnel
        now.

    @ivar automatic: Gets certificates; C{None} if nobody is asked for any.
    @ivar detectors: What tells dialects apart among connections for the server itself,
        at each port that was made here.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self,
        reactor: Any,
        options: ServerOptions,
        names: PublicNames,
        isMadeUp: Callable[[str], bool],
        isKept: Callable[[str], bool],
    ) -> None:
        self._isKept = isKept
        self._reactor, self._options, self._names = reactor, options, names
        ports = [*options.serverPorts, *options.namePorts]
        served = {each for port in ports for each in (port.option, *port.serves)}
        ways = [("--http", "http-01"), ("--https", "tls-alpn-01")]
        own = options.namedCertificates
        self.automatic, self._answers = automaticCertificates(
            reactor,
            options,
            options.stateDirectory,
            [way for option, way in ways if option in served],
            [options["hostname"].lower(), *options.domains],
            lambda name: own is not None and own.find(name) is not None,
        )
        self.detectors: list[ProtocolDetectorFactory] = []
        self._sources = [] if own is None else [own]
        if self.automatic is not None:
            # A name is ordered once, whichever process has its tunnel.
            membership = options.membership
            self.automatic.orders = membership is None or membership.index == 0
            self._sources.append(self.automatic.certificates)
            names.challenge = self._answers.get
            names.held = lambda host: isMadeUp(host) or self.automatic.want(host)
            names.left = self.automatic.release
            if options["hostname"]:
                self.automatic.want(options["hostname"])
        self._domains: Sequence[str] = ()
        names.liesBelow = self._liesBelow
        self._liesBelow(options.domains)
        names.offered = frozenset(each for port in ports for each in port.schemes)
        shown = [self._certificates(port) for port in ports if port.secure]
        names.isCovered = lambda host: any(each.believed(host) for each in shown)

    def _liesBelow(self, domains: Sequence[str]) -> None:
        self._domains = tuple(domains)
        if self.automatic is not None:
            self.automatic.wantDomains(domains)

    def start(self, parent: IServiceCollection) -> None:
        """
        Start what is needed beside the ports, and log which certificates nobody will
        need.
        """
        own = self._options.namedCertificates
        for problem in () if own is None else islice(own.unused(), _MOST):
            self._log.warn("{problem}", problem=problem)
        if self.automatic is not None:
            self.automatic.setServiceParent(parent)

    def states(self) -> Sequence[CertificateState]:
        """The states of the automatic certificates."""
        return [] if self.automatic is None else self.automatic.states()

    def _certificates(self, port: ServerPort) -> Certificates:
        assert port.creator is not None
        return Certificates(port.creator, tuple(self._sources))

    def _ownCertificates(self, port: ServerPort) -> Certificates:
        """The certificates shown to connections for the server itself."""
        options, creator = self._options, port.ownCreator or port.creator
        assert creator is not None
        asked = options["client-ca"], options["client-crl"] or None
        sources = self._sources
        if asked[0]:
            sources = [NamedCertificates(each.directory, *asked) for each in sources]
        return Certificates(creator, tuple(sources))

    def _isOwn(self, port: ServerPort, name: str) -> bool:
        """Whether a client's TLS is for the server itself."""
        if name in (self._options["hostname"].lower(), *self._domains):
            return bool(name) or port.serving("--port")
        return port.serving("--port") and not self.isName(name)

    def better(self, port: ServerPort) -> str:
        """
        The file of the certificate that a port shows for C{--hostname} in the place of
        its own, once there is one; empty if there will be none.
        """
        name = self._options["hostname"].lower()
        if not (name and port.serving("--https")):
            return ""
        for source in self._sources:
            if (found := source.find(name)) is not None:
                return os.path.abspath(found.path)
        if self.automatic is None:
            return ""
        live: str = self.automatic.pathFor(name)
        return os.path.abspath(live)

    def isName(self, host: str) -> bool:
        """Whether a host is a tunnel's, or could be: below a domain, or a token's."""
        if self._names.table.find("http", host) is not None:
            return True
        own = self._options["hostname"].lower().removesuffix(".")
        if host in (own, *self._domains):
            return False
        below = any(host.endswith(f".{each}") for each in self._domains)
        return below or self._isKept(host)

    def factoryFor(
        self,
        port: ServerPort,
        clients: tuple[Sequence[PortProtocol], Sequence[PortProtocol]],
        site: PortProtocol,
        hosts: NameSite,
        observer: ServerObserver,
        limiter: PreauthLimiter,
    ) -> Any:
        """
        Make what serves a port.

        @param clients: The dialects that clients speak, except HTTP; and those of them
            that need no TLS where there is some.
        @param site: The server's own pages.
        @param hosts: Serves tunnels' hosts.
        @param observer: Told of peers that are turned away.
        @param limiter: Counts connections of which nothing is known.
        """
        timeout = self._options["handshake-timeout"]
        sorting = (self._reactor, observer, limiter, timeout, port.proxied)
        table = self._names.table
        if port.option == "--minecraft":
            return MinecraftFactory(*sorting, table=table)
        if port.option == "--postgres":
            return PostgresFactory(
                *sorting,
                table=table,
                certificates=self._certificates(port) if port.creator else None,
                domains=lambda: self._domains,
            )
        spoken, bare = clients

        def detecting(protocols: Sequence[PortProtocol]) -> ProtocolDetectorFactory:
            return ProtocolDetectorFactory(
                self._reactor, protocols, observer, timeout, limiter, port.proxied
            )

        def detector(options: frozenset[str], secure: bool) -> ProtocolDetectorFactory:
            protocols: list[PortProtocol] = []
            if "--port" in options:
                protocols += spoken
            if options.isdisjoint(SCHEMES):
                protocols.append(site)
            elif "--port" in options:
                visitors = NamesPortProtocol(hosts, secure)
                shared = SharedHTTP(self._reactor, site, visitors, self.isName)
                protocols.append(shared)
            else:
                protocols.append(NamesPortProtocol(hosts, secure))
            made = detecting(protocols)
            if "--port" in options:
                self.detectors.append(made)
            return made

        if not port.serving("--https"):
            whole = detector(frozenset((port.option, *port.serves)), port.secure)
            if not port.bare or port.creator is None:
                return whole
            return BareOrTLSFactory(
                *sorting,
                beginnings=[each for spoken in bare for each in spoken.beginnings],
                bare=detecting(bare),
                secure=serverTLSFactory(port.creator, whole),
            )
        own = detector(frozenset(("--port", "--https")), True)
        visitors = detector(frozenset(("--https",)), True)
        answers = self._answers
        plain = detecting(bare) if port.bare else None
        if port.withoutTLS:
            plain = detector(port.withoutTLS, False)
            plain.protocols[:0] = bare if port.bare else ()
        return TLSNamesFactory(
            *sorting,
            table=table,
            own=Served(own, self._ownCertificates(port)),
            visitors=Served(visitors, self._certificates(port)),
            isOwn=partial(self._isOwn, port),
            challenge=(lambda name: None) if answers is None else answers.contextFor,
            plain=plain,
        )
