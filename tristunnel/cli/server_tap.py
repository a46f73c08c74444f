"""C{twistd tunnel}: the server's command line."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from autobahn.websocket import USES_NVX
from twisted.application.service import MultiService, Service
from twisted.cred import strcred
from twisted.logger import Logger
from twisted.web.resource import IResource

from tristunnel.auth.checkers import SUPPORTED_INTERFACES
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.auth.tokens import TokenFile
from tristunnel.check.report import CheckService
from tristunnel.check.server import ServerCheck
from tristunnel.cli.demo import makeDemo
from tristunnel.config.keys import Key
from tristunnel.config.numbers import count, seconds
from tristunnel.config.policy_options import PolicyOptionsMixin, policyOf
from tristunnel.config.reload import Reload
from tristunnel.config.settings import DEFAULT, Setting
from tristunnel.dashboard.operators import Watch
from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.memory import HELD, defaultMemory
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.framed.datagram_path import ServerPaths
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.dialects.table import DIALECTS
from tristunnel.errors import TunnelError, badOption
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.forwarded import Forwarded
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import Health, HTTPPortProtocol, rootOf, rpcPages
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.listeners.udp import IDLE, UDPListeners
from tristunnel.model.ports import parsePorts
from tristunnel.model.quota import (
    PER_CALLER,
    TunnelQuota,
    defaultTotal,
    raiseDescriptorLimit,
)
from tristunnel.model.rendezvous import WaitingRoom
from tristunnel.node.spec import NODE_FIELDS, NodeSpec, nodeText, parseNode
from tristunnel.node.tunnel import NodeTunnel
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.log import LoggingServerObserver
from tristunnel.server.options import ServerOptions
from tristunnel.server.ports import ServerPort, TLSFiles, parsePort
from tristunnel.server.reload import RunningServer
from tristunnel.server.service import TunnelServerService
from tristunnel.server.websocket_pages import parsePaths, webSocketPages
from tristunnel.service.caller import Listeners
from tristunnel.service.clients import CLIENTS, SERVICES
from tristunnel.service.preauth import ACCEPT_RATE, TOTAL, PreauthLimiter
from tristunnel.service.registry import MemoryRegistry
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.tls.pem import loadCertificates
from tristunnel.tls.server_context import CreatorInForce, ReloadingCertificate
from tristunnel.util.endpoints import checkBeforeFork
from tristunnel.util.files import defaultStateDirectory, stateVariable
from tristunnel.util.hosts import hostAndPort
from tristunnel.util.logs import Log, checkFormat
from tristunnel.util.process import (
    GRACE,
    ReloadSignalService,
    exitWith,
    hurryOnSecondSignal,
    tuneCollector,
    useMonotonicTime,
)
from tristunnel.util.quantities import parseSize

__all__ = ["Options", "makeService"]

_log = Logger(namespace="tristunnel.server")


class Options(PolicyOptionsMixin, ServerOptions, strcred.AuthOptionMixin):
    """The options of C{twistd tunnel}."""

    synopsis = "[options]"
    longdesc = (
        "A reverse tunnel server. Clients (twistd tunnel-client) connect to its"
        " --port and have it open ports for the visitors of their services."
    )
    supportedInterfaces = SUPPORTED_INTERFACES

    optFlags = [
        ("check", None, "Look at everything that a server needs, and end."),
        ("demo", None, "Run a server, a client and a sample page in one process."),
        ("direct-udp", None, "Let clients' datagrams come by UDP to the same port."),
        ("no-dashboard", None, "Show no page about what happens here."),
    ]
    optParameters = [
        ("interface", None, "", "The address that visitors' ports are opened on."),
        ("ports", None, None, "Which ports visitors may get: 30000-31000,8080."),
        ("hostname", None, "", "The name that tunnels' addresses say."),
        ("certificate", None, "", "PEM file: puts TLS over every --port."),
        ("private-key", None, "", "PEM file with the certificate's key."),
        ("client-ca", None, "", "PEM file: clients must show a certificate of it."),
        ("client-crl", None, "", "PEM file: certificates of clients that are revoked."),
        ("visitor-certificate", None, "", "PEM file: visitors speak TLS."),
        ("visitor-key", None, "", "PEM file with that certificate's key."),
        ("rpc", None, None, "Serve RPC on this endpoint instead of on every --port."),
        ("state-dir", None, None, "Where this server keeps what it must remember."),
        ("log-format", None, "text", "How the log is written: text or json."),
        seconds("grace", GRACE, "Seconds for streams to finish at a stop."),
        seconds("handshake-timeout", 10.0, "Seconds for a client's login."),
        seconds("lease", 120.0, "Seconds that a client's ports wait for it."),
        seconds("udp-idle", IDLE, "Seconds until a silent UDP visitor is gone.", 0.1),
        count("max-tunnels", 0, "Tunnels in all; 0: as descriptors allow."),
        count("max-tunnels-per-caller", PER_CALLER, "Tunnels of one caller."),
        count("max-clients", CLIENTS, "Clients at once; 0: any number."),
        count("max-services", SERVICES, "Tunnels of one client; 0: any."),
        count(
            "accept-rate",
            ACCEPT_RATE,
            "Clients let in per second; 0: any.",
            0,
            None,
            1e6,
            float,
        ),
        ("max-memory", None, "", "Bytes held for slow readers: 2GiB; 0: any number."),
    ]

    fields: ClassVar[Mapping[str, Mapping[str, Key]]] = {"node": NODE_FIELDS}

    def __init__(self) -> None:
        super().__init__()
        self["port"] = []
        self["websocket-path"] = []
        self["trusted-proxy"] = []
        self["node"] = []

    def opt_websocket_path(self, path: str) -> None:
        """
        Where clients connect by WebSocket. May be given several times.
        [default: /tunnel]
        """
        self["websocket-path"].append(path)

    def opt_trusted_proxy(self, address: str) -> None:
        """
        A reverse proxy whose X-Forwarded-For and -Proto are believed, and
        behind haproxy: its PROXY header: an address, a network such as
        10.0.0.0/8, or "unix". May be given several times.
        """
        self["trusted-proxy"].append(address)

    def opt_node(self, spec: str) -> None:
        """
        A tunnel with another server: NAME=ENDPOINT,forward=PORT=TARGET offers
        a service of this side at a port of that one, and
        NAME=ENDPOINT,listen=ENDPOINT,service=NAME the other way round. With
        token-file=FILE, pin=SHA256 and others. May be given several times.
        """
        self["node"].append(spec)

    def table_node(self, table: Mapping[str, Any]) -> None:
        """The same, as a table of a file."""
        self["node"].append(nodeText(table))

    def opt_port(self, description: str) -> None:
        """
        Where clients connect, a server endpoint: tcp:9000, ssl:9000,
        tls:DIR:port=443, unix:PATH, systemd:..., haproxy:tcp:9000. May be
        given several times. [default: tcp:$PORT, or tcp:9000]
        """
        self["port"].append(description)

    def settingsAround(self, settings: dict[str, Setting]) -> dict[str, Setting]:
        around = super().settingsAround(settings)
        if os.environ.get("PORT") and not (self.told.keys() & {"demo", "port"}):
            around["port"] = Setting([_defaultPort()], "environment PORT")
        return around

    def derived(self) -> dict[str, Setting]:
        variable = stateVariable()
        origin = f"environment {variable}" if variable else DEFAULT
        return {
            "port": Setting([port.description for port in self.serverPorts], DEFAULT),
            "state-dir": Setting(str(self.stateDirectory), origin),
            "websocket-path": Setting(self.webSocketPaths, DEFAULT),
        }

    def check(self) -> None:
        from twisted.internet import reactor

        if not self["handshake-timeout"]:
            raise badOption("--handshake-timeout takes more than 0")
        _checkInterface(self["interface"])
        checkFormat(self["log-format"])
        for key, other in (
            ("private-key", "certificate"),
            ("visitor-key", "visitor-certificate"),
        ):
            if self[key] and not self[other]:
                raise badOption(f"--{key} goes with --{other}")
        self.stateDirectory = Path(self["state-dir"] or defaultStateDirectory())
        if self["ports"]:
            self.portRange = parsePorts(self["ports"])
        if self["visitor-certificate"]:
            self.visitorCertificate = ReloadingCertificate(
                self["visitor-certificate"], self["visitor-key"] or None
            )
        if self.get("credCheckers"):
            self.authenticator = Authenticator(portalFor(self["credCheckers"]))
        if self["certificate"]:
            self.certificate = ReloadingCertificate(
                self["certificate"], self["private-key"] or None
            )
        self.nodes = [parseNode(reactor, spec) for spec in self["node"]]
        if len({node.name for node in self.nodes}) < len(self.nodes):
            raise badOption("two --node have the same name")
        self.webSocketPaths = parsePaths(self["websocket-path"] or ["/tunnel"])
        self.forwarded = Forwarded(self["trusted-proxy"])
        self.policy = policyOf(self)
        self.memory = defaultMemory()
        if self["max-memory"]:
            size = self["max-memory"]
            self.memory = 0 if size == "0" else parseSize(size)
        if self["client-crl"] and not self["client-ca"]:
            raise badOption("--client-crl goes with --client-ca")
        files = TLSFiles(
            self["certificate"],
            self["private-key"],
            self["client-ca"],
            self["client-crl"],
        )
        default = "tcp:0:interface=127.0.0.1" if self["demo"] else _defaultPort()
        descriptions = self["port"] or [default]
        if files.clientCA and not files.certificate:
            for description in descriptions:
                if not description.startswith(("ssl:", "tls:")):
                    raise badOption(
                        f"--client-ca needs TLS: give --certificate for {description}"
                    )
        if self["rpc"]:
            self.rpcPort = parsePort(
                reactor,
                self["rpc"],
                # Who is asked for a certificate at one port is so at all of them.
                TLSFiles(clientCA=files.clientCA, clientCRL=files.clientCRL),
                self.stateDirectory,
                self.hostnames,
                "--rpc",
                self.forwarded.speaksFor,
            )
            asked = self.rpcPort.secure or self.get("credCheckers")
            if files.clientCA and not asked:
                raise badOption(
                    f"--rpc {self['rpc']} would ask nobody who they are, since"
                    " --client-ca guards TLS alone: give --auth, or write --rpc"
                    " ssl:PORT"
                )
        self.serverPorts = [
            parsePort(
                reactor,
                description,
                files,
                self.stateDirectory,
                self.hostnames,
                trusts=self.forwarded.speaksFor,
            )
            for description in descriptions
        ]

    @property
    def hostnames(self) -> list[str]:
        """The names that this server may be known by."""
        names = [self["hostname"]] if self["hostname"] else [socket.gethostname()]
        return [*names, "localhost", "127.0.0.1", "::1"]


def _checkInterface(interface: str) -> None:
    """Find out now, not with the first tunnel, if ports can be opened there."""
    if not interface:
        return
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            address = socket.getaddrinfo(
                interface, 0, family, flags=socket.AI_NUMERICHOST
            )[0][4]
            probe.bind(address)
    except OSError:
        raise badOption(
            f"--interface {interface!r} is no address of this machine; write one of"
            " its addresses, for example 127.0.0.1, or leave it out for all of them"
        ) from None


def _defaultPort() -> str:
    """The port that a platform gives to its programs, or our own."""
    port = os.environ.get("PORT", "")
    if not port:
        return "tcp:9000"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise badOption(f"the variable PORT is {port!r}, no port")
    return f"tcp:{port}"


def makeService(options: Options) -> Service:
    """Make the server, or the demonstration."""
    from twisted.internet import reactor

    ports = [*options.serverPorts, *([options.rpcPort] if options.rpcPort else [])]
    checkBeforeFork(
        getattr(options, "parent", None),
        [
            *((f"{port.option} {port.description}", port.endpoint) for port in ports),
            *(
                (f"--node {node.name}: {node.listen}", node.endpoint)
                for node in options.nodes
                if node.endpoint is not None
            ),
        ],
        options.stateDirectory if options["state-dir"] else None,
    )
    log = Log(options)
    return log.around(_make(reactor, options, log))


def _make(reactor: Any, options: Options, log: Log) -> Service:
    useMonotonicTime(reactor)
    raiseDescriptorLimit()
    tuneCollector()
    HELD.most = options.memory
    options.warnOfSecrets()
    if options["check"]:
        return _check(reactor, options)
    watch = Watch(reactor, LoggingServerObserver(reactor.seconds, reactor.callLater))
    observer = watch.observer
    interface = options["interface"] or ("127.0.0.1" if options["demo"] else "")
    listeners: dict[str, Listeners] = {
        "tcp": TCPListeners(reactor, interface, options.portRange)
    }
    visitorsTLS = clientsTLS = None
    if options.visitorCertificate is not None:
        visitorsTLS = CreatorInForce(options.visitorCertificate)
        overTLS = TCPListeners(reactor, interface, options.portRange, visitorsTLS)
        # The first one is what visitors get unless the client says otherwise.
        listeners = {"tls": overTLS, **listeners}
    elif options.certificate is not None:
        clientsTLS = CreatorInForce(options.certificate)
        listeners["tls"] = TCPListeners(
            reactor, interface, options.portRange, clientsTLS
        )
    # TLS that is not up yet is no tunnel's visitor, and costs as much.
    handshakes = max(64, min(TOTAL, RESERVE.size))
    for each in listeners.values():
        if isinstance(each, TCPListeners):
            each.handshakes = PreauthLimiter(
                reactor.seconds,
                handshakes // 2,
                handshakes,
                options.forwarded.speaksFor,
            )
    listeners["udp"] = UDPListeners(
        reactor, interface, options.portRange, options["udp-idle"]
    )
    listeners["loopback"] = TCPListeners(
        reactor, options["interface"] or "127.0.0.1", options.portRange
    )
    tunnels = TunnelService(
        reactor,
        MemoryRegistry(),
        listeners,
        observer,
        options["hostname"],
        options["lease"],
        TunnelQuota(
            options["max-tunnels-per-caller"], options["max-tunnels"] or defaultTotal()
        ),
        WaitingRoom(defaultTotal()),
    )
    tunnels.house.policy = options.policy
    tunnels.clients.limit = options["max-clients"]
    tunnels.clients.ramp.rate = options["accept-rate"]
    tunnels.rights.services = options["max-services"]
    sessions = TunnelServerFactory(
        reactor,
        tunnels,
        options.authenticator,
        handshakeTimeout=options["handshake-timeout"],
    )
    if options["direct-udp"]:
        sessions.paths = ServerPaths(reactor)
    places = min(TOTAL, max(16, RESERVE.size // 4))
    trusts = options.forwarded.speaksFor
    gate = PreauthLimiter(reactor.seconds, total=places, speaksForOthers=trusts)
    callers = HTTPCallers(options.authenticator, options.forwarded, gate)
    hostnames = options.hostnames if options["hostname"] else None
    checkers = options.get("credCheckers") or ()
    tokenFiles = [each for each in checkers if isinstance(each, TokenFile)]
    rpc = {
        **rpcPages(tunnels, callers, hostnames),
        **watch.pages(
            tunnels,
            callers,
            gate,
            bool(checkers),
            hostnames,
            not options["no-dashboard"],
            tokenFiles,
        ),
    }
    pages: dict[bytes, IResource] = {b"health": Health()}
    ports: list[tuple[ServerPort, Any]] = []
    if options.rpcPort is not None:
        elsewhere = LimitedSite(
            rootOf({**pages, **rpc}), reactor=reactor, admit=callers.admit
        )
        # A gate of its own: strangers at the other ports do not fill it.
        operators = ProtocolDetectorFactory(
            reactor,
            [HTTPPortProtocol(elsewhere)],
            observer,
            options["handshake-timeout"],
            PreauthLimiter(reactor.seconds, total=places, speaksForOthers=trusts),
            options.rpcPort.proxied,
        )
        ports.append((options.rpcPort, operators))
    else:
        pages.update(rpc)
    pages.update(
        webSocketPages(sessions, callers, options.webSocketPaths, options.forwarded)
    )
    site = LimitedSite(rootOf(pages), reactor=reactor, admit=callers.admit)
    protocols = [
        protocol
        for dialect in DIALECTS.values()
        for protocol in dialect.portProtocols(sessions)
    ]
    doors = {
        proxied: ProtocolDetectorFactory(
            reactor,
            [*protocols, HTTPPortProtocol(site)],
            observer,
            options["handshake-timeout"],
            gate,
            proxied,
        )
        for proxied in (False, True)
    }
    server = TunnelServerService(
        reactor,
        [*((port, doors[port.proxied]) for port in options.serverPorts), *ports],
        sessions,
        tunnels,
        options["grace"],
        lambda reason: _cannotStart(reactor, reason),
    )
    nodes = [_node(reactor, options, spec) for spec in options.nodes]
    tunnels.nodes = nodes

    def hurry() -> None:
        server.hurry()
        for node in tunnels.nodes:
            node.stopNow()

    reactor.addSystemEventTrigger(
        "before", "shutdown", hurryOnSecondSignal, reactor, hurry
    )
    watch.start()
    reactor.callWhenRunning(_announce, options, server)
    together = MultiService()
    server.setServiceParent(together)
    running = RunningServer(
        options,
        tunnels,
        sessions,
        server,
        options.authenticator,
        options.forwarded,
        tokenFiles,
        lambda options, spec: _node(reactor, options, spec),
        together,
    )
    running.running = nodes
    running.visitorsTLS, running.clientsTLS = visitorsTLS, clientsTLS
    running.describePorts(options)
    reload = Reload(options, running.change)
    tunnels.reload = reload.reload
    ReloadSignalService(reactor, log, reload.reloadLater).setServiceParent(together)
    for node in nodes:
        node.setServiceParent(together)
    if options["demo"]:
        makeDemo(reactor, server).setServiceParent(together)
    return together


def _node(reactor: Any, options: ServerOptions, spec: NodeSpec) -> NodeTunnel:
    directory = options.stateDirectory / "nodes"
    forward = "" if spec.forward is None else spec.forward.spec

    def lease() -> ClientLease:
        if not forward:
            return ClientLease()
        return ClientLease.forClient(
            directory, spec.server.where, [spec.name, forward], reactor
        )

    return NodeTunnel(reactor, spec, lease, options["grace"])


def _check(reactor: Any, options: Options) -> Service:
    interface = options["interface"]
    shown = (
        ("--certificate", options.certificate),
        ("--visitor-certificate", options.visitorCertificate),
    )
    certificates = [
        (option, creator.certificate) for option, creator in shown if creator
    ]
    certificates += [
        (port.description, loadCertificates(port.certificatePath)[0])
        for port in options.serverPorts
        if port.certificatePath
    ]
    look = ServerCheck(
        reactor,
        [*options.serverPorts, *([options.rpcPort] if options.rpcPort else [])],
        TCPListeners(reactor, interface, options.portRange),
        certificates,
        options["hostname"],
        options.stateDirectory,
        len(options.get("credCheckers") or ()) + bool(options["client-ca"]),
        options.memory,
    )
    return CheckService(reactor, look, sys.__stdout__)


def _cannotStart(reactor: Any, reason: TunnelError) -> None:
    _log.critical("Cannot start: {reason}", reason=reason)
    exitWith(1)
    reactor.callWhenRunning(reactor.stop)


def _warnIfSlow() -> None:
    if not USES_NVX:
        _log.warn(
            "autobahn runs without its C code: WebSockets will be slow; install its"
            " wheel, and leave AUTOBAHN_USE_NVX unset"
        )


def _announce(options: Options, server: TunnelServerService) -> None:
    for port in options.serverPorts:
        if port.fingerprint and port.description in server.numbers:
            _log.info(
                "{path} is a self-signed certificate; its SHA-256 fingerprint is"
                " {fingerprint}",
                path=port.certificatePath,
                fingerprint=port.fingerprint,
            )
            _log.info(
                "Clients pin it: twistd -n --pidfile= tunnel-client --connect {connect}"
                " --pin {fingerprint}",
                connect="tls:"
                + hostAndPort(options.hostnames[0], server.numbers[port.description]),
                fingerprint=port.fingerprint,
            )
    _warnIfSlow()
    asked = options.get("credCheckers") or options["client-ca"]
    if not asked and not options["demo"]:
        _log.warn("ANYBODY MAY CONNECT AND OPEN TUNNELS: no --auth was given")
