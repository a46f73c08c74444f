"""
C{twistd tunnel}: the server's command line.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.cred import strcred
from twisted.logger import Logger
from twisted.python import usage
from twisted.web.resource import IResource

from tristunnel.auth.checker_chain import SUPPORTED_INTERFACES
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.demo import makeDemo
from tristunnel.drain import exitWith, hurryOnSecondSignal
from tristunnel.errors import TunnelError
from tristunnel.listeners.ports import UNPRIVILEGED, PortRange, parsePorts
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.paths import defaultStateDirectory
from tristunnel.registry import MemoryRegistry
from tristunnel.rpc.site import limitedSite
from tristunnel.server.doors import DoorFactory, FramedDoor
from tristunnel.server.log import LoggingServerObserver
from tristunnel.server.ports import ServerPort, TLSFiles, parsePort
from tristunnel.server.service import TunnelServerService
from tristunnel.service import Listeners, TunnelService
from tristunnel.sessions.server import TunnelServerFactory
from tristunnel.tls.server_context import ReloadingCertificate
from tristunnel.web.callers import HTTPCallers
from tristunnel.web.tree import Health, HTTPDoor, rootOf, rpcPages

__all__ = ["Options", "makeService"]

_log = Logger(namespace="tristunnel.server")


class Options(usage.Options, strcred.AuthOptionMixin):
    """
    The options of C{twistd tunnel}.
    """

    synopsis = "[options]"
    longdesc = (
        "A reverse tunnel server. Clients (twistd tunnel-client) connect to its"
        " --port and have it open ports for the visitors of their services."
    )
    supportedInterfaces = SUPPORTED_INTERFACES

    optFlags = [
        ("demo", None, "Run a server, a client and a sample page in one process."),
    ]
    optParameters = [
        ("interface", None, "", "The address that visitors' ports are opened on."),
        ("ports", None, None, "Which ports visitors may get: 30000-31000,8080."),
        ("hostname", None, "", "The name that tunnels' addresses say."),
        ("certificate", None, "", "PEM file: puts TLS over every --port."),
        ("private-key", None, "", "PEM file with the certificate's key."),
        ("client-ca", None, "", "PEM file: clients must show a certificate of it."),
        ("visitor-certificate", None, "", "PEM file: visitors speak TLS."),
        ("visitor-key", None, "", "PEM file with that certificate's key."),
        ("rpc", None, None, "Serve RPC on this endpoint instead of on every --port."),
        ("state-dir", None, None, "Where this server keeps what it must remember."),
        ("grace", None, 10.0, "Seconds for streams to finish at a stop.", float),
        ("handshake-timeout", None, 10.0, "Seconds for a client's login.", float),
        ("lease", None, 120.0, "Seconds that a client's ports wait for it.", float),
    ]

    def __init__(self) -> None:
        super().__init__()
        self["port"] = []
        self.portRange: PortRange = UNPRIVILEGED
        self.serverPorts: list[ServerPort] = []
        self.rpcPort: ServerPort | None = None
        self.visitorCertificate: ReloadingCertificate | None = None
        self.certificate: ReloadingCertificate | None = None
        self.authenticator = Authenticator()
        self.stateDirectory = Path()

    def opt_port(self, description: str) -> None:
        """
        Where clients connect, a server endpoint: tcp:9000, ssl:9000,
        tls:DIR:port=443, unix:PATH, systemd:..., haproxy:tcp:9000. May be
        given several times. [default: tcp:9000]
        """
        self["port"].append(description)

    def postOptions(self) -> None:
        """
        Check everything that can be checked before the start.
        """
        try:
            self._check()
        except TunnelError as error:
            raise usage.UsageError(error.message) from None

    def _check(self) -> None:
        """
        @raise TunnelError: C{bad-option}.
        """
        from twisted.internet import reactor

        for option in ("grace", "handshake-timeout", "lease"):
            if not 0 <= self[option] < 1e6:
                raise TunnelError("bad-option", f"--{option} takes seconds, from 0 up")
        for key, other in (
            ("private-key", "certificate"),
            ("visitor-key", "visitor-certificate"),
        ):
            if self[key] and not self[other]:
                raise TunnelError("bad-option", f"--{key} goes with --{other}")
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
        files = TLSFiles(self["certificate"], self["private-key"], self["client-ca"])
        default = "tcp:0:interface=127.0.0.1" if self["demo"] else "tcp:9000"
        descriptions = self["port"] or [default]
        if files.clientCA and not files.certificate:
            for description in descriptions:
                if not description.startswith(("ssl:", "tls:")):
                    raise TunnelError(
                        "bad-option",
                        f"--client-ca needs TLS: give --certificate for {description}",
                    )
        if self["rpc"]:
            self.rpcPort = parsePort(
                reactor,
                self["rpc"],
                TLSFiles(),
                self.stateDirectory,
                self.hostnames,
                "--rpc",
            )
        self.serverPorts = [
            parsePort(reactor, description, files, self.stateDirectory, self.hostnames)
            for description in descriptions
        ]

    @property
    def hostnames(self) -> list[str]:
        """
        The names that this server may be known by.
        """
        names = [self["hostname"]] if self["hostname"] else [socket.gethostname()]
        return [*names, "localhost", "127.0.0.1", "::1"]


def makeService(options: Options) -> Service:
    """
    Make the server, or the demonstration.
    """
    from twisted.internet import reactor

    return _make(reactor, options)


def _make(reactor: Any, options: Options) -> Service:
    """
    Put the server together.
    """
    observer = LoggingServerObserver(reactor.seconds)
    interface = options["interface"] or ("127.0.0.1" if options["demo"] else "")
    listeners: dict[str, Listeners] = {
        "tcp": TCPListeners(reactor, interface, options.portRange)
    }
    if options.visitorCertificate is not None:
        overTLS = TCPListeners(
            reactor, interface, options.portRange, options.visitorCertificate
        )
        # The first one is what visitors get unless the client says otherwise.
        listeners = {"tls": overTLS, **listeners}
    elif options.certificate is not None:
        listeners["tls"] = TCPListeners(
            reactor, interface, options.portRange, options.certificate
        )
    tunnels = TunnelService(
        reactor,
        MemoryRegistry(),
        listeners,
        observer,
        options["hostname"],
        options["lease"],
    )
    sessions = TunnelServerFactory(
        reactor,
        tunnels,
        options.authenticator,
        handshakeTimeout=options["handshake-timeout"],
    )
    callers = HTTPCallers(options.authenticator)
    hostnames = options.hostnames if options["hostname"] else None
    rpc = rpcPages(tunnels, callers, hostnames)
    pages: dict[bytes, IResource] = {b"health": Health()}
    ports: list[tuple[ServerPort, Any]] = []
    if options.rpcPort is not None:
        elsewhere = limitedSite(rootOf({**pages, **rpc}), reactor=reactor)
        ports.append((options.rpcPort, elsewhere))
    else:
        pages.update(rpc)
    site = limitedSite(rootOf(pages), reactor=reactor)
    doors = DoorFactory(
        reactor,
        [FramedDoor(sessions), HTTPDoor(site)],
        observer,
        options["handshake-timeout"],
    )
    server = TunnelServerService(
        reactor,
        [*((port, doors) for port in options.serverPorts), *ports],
        sessions,
        tunnels,
        options["grace"],
        lambda reason: _cannotStart(reactor, reason),
    )
    reactor.addSystemEventTrigger(
        "before", "shutdown", hurryOnSecondSignal, reactor, server.hurry
    )
    reactor.callWhenRunning(_announce, options)
    if not options["demo"]:
        return server
    together = MultiService()
    server.setServiceParent(together)
    makeDemo(reactor, server).setServiceParent(together)
    return together


def _cannotStart(reactor: Any, reason: TunnelError) -> None:
    """
    End with one line and an exit status that says so.
    """
    _log.critical("Cannot start: {reason}", reason=reason)
    exitWith(1)
    reactor.callWhenRunning(reactor.stop)


def _announce(options: Options) -> None:
    """
    Say what an operator must know from the start.
    """
    for port in options.serverPorts:
        if port.fingerprint:
            _log.info(
                "{path} is a self-signed certificate; its SHA-256 fingerprint is"
                " {fingerprint}",
                path=port.certificatePath,
                fingerprint=port.fingerprint,
            )
            _log.info(
                "Clients pin it: twistd -n tunnel-client --connect {connect}"
                " --pin {fingerprint}",
                connect=f"tls:{options.hostnames[0]}:{_portOf(port)}",
                fingerprint=port.fingerprint,
            )
    if not options.get("credCheckers") and not options["demo"]:
        _log.warn("ANYBODY MAY CONNECT AND OPEN TUNNELS: no --auth was given")


def _portOf(port: ServerPort) -> str:
    """
    The number in an C{ssl:} description.
    """
    return port.description.split(":")[1].removeprefix("port=")
