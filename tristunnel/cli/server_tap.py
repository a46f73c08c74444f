"""C{twistd tunnel}: the server's command line."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, ClassVar

from twisted.application.service import Service
from twisted.cred import strcred
from twisted.python import usage

from tristunnel.acme.options import ACME
from tristunnel.auth.checkers import SUPPORTED_INTERFACES
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.cli.cluster_options import CLUSTER, ClusterOptionsMixin
from tristunnel.cli.name_options import NAMES, NameOptionsMixin
from tristunnel.cli.own_ports import takeOwnPorts
from tristunnel.cli.processes import MOST_PROCESSES, checkProcesses, makeParent
from tristunnel.cli.server_check import checkService
from tristunnel.cli.serving import Serving
from tristunnel.config.help import OptionGroup
from tristunnel.config.keys import Key
from tristunnel.config.numbers import count, readOption, seconds
from tristunnel.config.policy_options import VISITORS, PolicyOptionsMixin, policyOf
from tristunnel.config.settings import DEFAULT, Setting
from tristunnel.connect.credentials import TOKEN_PREFIX
from tristunnel.dataplane.flows import IDLE
from tristunnel.dataplane.memory import defaultMemory
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.dialects.table import DIALECTS, parseDialects
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.forwards.dialling import dialDestinations
from tristunnel.hooks.options import ASK, HOOKS, AskOptionsMixin, decisionsOf, hooksOf
from tristunnel.http.forwarded import Forwarded
from tristunnel.listeners.unix import MODE, checkDirectory, parseMode
from tristunnel.model.ports import parsePorts
from tristunnel.model.quota import PER_CALLER
from tristunnel.node.spec import NODE_FIELDS, nodeText, parseNode
from tristunnel.server.options import ServerOptions
from tristunnel.server.ports import ServerPort, TLSFiles, numberIn, parsePort
from tristunnel.server.websocket_pages import parsePaths
from tristunnel.service.clients import CLIENTS, SERVICES
from tristunnel.service.countries import CountryDatabase
from tristunnel.service.preauth import ACCEPT_RATE
from tristunnel.tls.server_context import ReloadingCertificate
from tristunnel.util.descriptor_limit import raiseDescriptorLimit
from tristunnel.util.endpoints import checkBeforeFork, listenInFull, tellOfDaemon
from tristunnel.util.files import stateDirectory, stateVariable
from tristunnel.util.hosts import parseHost
from tristunnel.util.logs import Log, checkFormat
from tristunnel.util.process import GRACE, tuneCollector, useMonotonicTime
from tristunnel.util.quantities import parseSize
from tristunnel.util.words import checkChoice

__all__ = ["Options", "makeService"]


class Options(
    PolicyOptionsMixin,
    AskOptionsMixin,
    NameOptionsMixin,
    ClusterOptionsMixin,
    ServerOptions,
    strcred.AuthOptionMixin,
):
    """The options of C{twistd tunnel}."""

    synopsis = "[options]"
    meant: ClassVar[Mapping[str, str]] = {
        "token": "tokens are in a file: --auth tokens:FILE",
        **dict.fromkeys(("tls", "ssl"), "write --port ssl:9000 for TLS"),
        **dict.fromkeys(("tls-cert", "tls-crt"), "write --certificate FILE"),
        "tls-key": "write --private-key FILE",
        "c": "write --config FILE",
        "no-tls": "write --port tcp:9000 for no TLS",
        "bind": "write --port ADDRESS:PORT",
    }
    examples: ClassVar[Any] = (
        "--port ssl:9000 --auth tokens:FILE",
        "--hostname tunnel.example.com --port tls:/etc/certificates:port=443",
        "--demo",
    )
    groups: ClassVar[Any] = (
        OptionGroup(
            "Where clients and visitors connect",
            "port=ENDPOINT hostname=NAME ports=RANGES interface=ADDRESS",
        ),
        NAMES,
        OptionGroup(
            "Who may connect",
            "auth=KIND[:ARGUMENT] client-ca=FILE client-crl=FILE dialects=NAMES",
        ),
        OptionGroup(
            "Certificates",
            "certificate=FILE private-key=FILE visitor-certificate=FILE"
            " visitor-key=FILE",
        ),
        ACME,
        VISITORS,
        OptionGroup(
            "Limits",
            "max-tunnels=NUMBER max-tunnels-per-caller=NUMBER max-clients=NUMBER"
            " max-services=NUMBER accept-rate=NUMBER max-memory=SIZE"
            " handshake-timeout=SECONDS lease=SECONDS udp-idle=SECONDS"
            " country-database=FILE",
        ),
        OptionGroup(
            "Watching and testing", "check demo print-config no-dashboard rpc=ENDPOINT"
        ),
        OptionGroup(
            "This program",
            "config=FILE state-dir=DIRECTORY log-format=FORMAT grace=SECONDS",
        ),
        HOOKS,
        ASK,
        OptionGroup(
            "Proxies, other servers, UDP, and processors",
            "trusted-proxy=ADDRESS websocket-path=PATH node=SPEC direct-udp"
            " dial-allow=HOST:PORTS"
            " processes=NUMBER",
        ),
        CLUSTER,
    )
    longdesc = (
        "A reverse tunnel server. Clients (twistd tunnel-client) connect to its"
        " --port, and it opens public ports for their services."
    )
    supportedInterfaces = SUPPORTED_INTERFACES
    secure: ClassVar[bool] = False
    """Whether a port that is given by its number alone speaks TLS."""

    optFlags = [
        ("check", None, "Test everything that the server needs, then exit."),
        ("demo", None, "Run a server, a client and a sample page in one process."),
        (
            "direct-udp",
            None,
            "Accept clients' datagrams over UDP, on the same port number.",
        ),
        ("no-dashboard", None, "Turn the web dashboard off."),
    ]
    optParameters = [
        (
            "interface",
            None,
            "",
            "Open visitors' ports only on this address of the machine.",
        ),
        ("ports", None, None, "Ports that tunnels may use, such as 30000-31000,8080."),
        ("hostname", None, "", "The server's public name, used in tunnels' addresses."),
        ("certificate", None, "", "PEM file with a certificate: TLS on every --port."),
        ("private-key", None, "", "PEM file with the key of --certificate."),
        (
            "client-ca",
            None,
            "",
            "PEM file: clients must show a certificate signed by it.",
        ),
        ("client-crl", None, "", "PEM file with lists of revoked client certificates."),
        (
            "dialects",
            None,
            None,
            f"Let clients speak only these protocols: {', '.join(DIALECTS)}.",
        ),
        (
            "visitor-certificate",
            None,
            "",
            "PEM file with a certificate: TLS for visitors.",
        ),
        ("visitor-key", None, "", "PEM file with the key of --visitor-certificate."),
        (
            "country-database",
            None,
            "",
            "File that maps addresses to countries, in MaxMind's format (.mmdb).",
        ),
        (
            "unix-directory",
            None,
            "",
            "Let tunnels have UNIX sockets in this directory, for local visitors.",
        ),
        ("unix-mode", None, MODE, "Mode of those sockets, as for chmod."),
        (
            "rpc",
            None,
            None,
            "Serve remote calls and the dashboard here, not on --port.",
        ),
        (
            "state-dir",
            None,
            None,
            "Directory for the certificate and other saved state.",
        ),
        ("log-format", None, "text", "Format of the log: text or json."),
        seconds("grace", GRACE, "Seconds that open streams get to finish on exit."),
        seconds(
            "handshake-timeout", 10.0, "Seconds that a connection has to authenticate."
        ),
        seconds(
            "lease", 120.0, "Seconds that a lost client's tunnels are kept for it."
        ),
        seconds(
            "udp-idle",
            IDLE,
            "Seconds of silence after which a UDP visitor has left.",
            0.1,
        ),
        count(
            "max-tunnels",
            0,
            "Maximum tunnels (0 = as many as this process can handle).",
        ),
        count(
            "max-tunnels-per-caller",
            PER_CALLER,
            "Maximum tunnels of one caller (0 = unlimited).",
        ),
        count(
            "processes",
            1,
            "Processes that share the work (0 = one per processor).",
            0,
            MOST_PROCESSES,
        ),
        count("max-clients", CLIENTS, "Maximum connected clients (0 = unlimited)."),
        count(
            "max-services", SERVICES, "Maximum tunnels of one client (0 = unlimited)."
        ),
        count(
            "accept-rate",
            ACCEPT_RATE,
            "Maximum new clients per second (0 = unlimited).",
            0,
            None,
            1e6,
            float,
        ),
        (
            "max-memory",
            None,
            "",
            "Maximum memory held for slow readers, such as 2GiB (0 = unlimited).",
        ),
    ]

    fields: ClassVar[Mapping[str, Mapping[str, Key]]] = {"node": NODE_FIELDS}

    def __init__(self) -> None:
        super().__init__()
        self["port"] = []
        self["websocket-path"] = []
        self["trusted-proxy"] = []
        self["dial-allow"] = []
        self["node"] = []

    def opt_websocket_path(self, path: str) -> None:
        """
        URL path where clients connect by WebSocket. Can be repeated.
        [default: /tunnel]
        """
        self["websocket-path"].append(path)

    def opt_trusted_proxy(self, address: str) -> None:
        """
        A reverse proxy whose X-Forwarded-For and X-Forwarded-Proto headers, or
        PROXY header on a haproxy: port, are trusted: an address, a network
        such as 10.0.0.0/8, or "unix". Can be repeated.
        """
        self["trusted-proxy"].append(address)

    def opt_dial_allow(self, pattern: str) -> None:
        """
        Connect clients' streams to these services (tunnel-client --listen
        PORT=HOST:PORT): HOST:PORTS, for example 10.0.0.0/8:443, localhost:5432,
        udp/localhost:53 or unix:/PATH. Nothing by default. Can be repeated.
        """
        self["dial-allow"].append(pattern)

    def opt_node(self, spec: str) -> None:
        """
        A tunnel to another server. NAME=ENDPOINT,forward=PORT=TARGET gives a
        local service a port there; NAME=ENDPOINT,listen=ENDPOINT,service=NAME
        gives a service there a local port. Add token-file=FILE, pin=SHA256 and
        the like. Can be repeated.
        """
        self["node"].append(spec)

    def table_node(self, table: Mapping[str, Any]) -> None:
        """The same, as a table of a file."""
        self["node"].append(nodeText(table))

    def opt_port(self, description: str) -> None:
        """
        Where clients connect: ssl:9000, tcp:9000, tls:DIR:port=443, unix:PATH
        or another Twisted server endpoint. Can be repeated.
        [default: tcp:$PORT, or tcp:9000]
        """
        self["port"].append(description)

    def opt_auth(self, description: str) -> None:
        """
        Who may connect: tokens:FILE, clients:FILE and other kinds, which
        --help-auth lists. Can be repeated.
        """
        kind, _, argument = description.partition(":")
        known = {each.authType for each in self._checkerFactoriesForOptHelpAuth()}
        try:
            checkChoice("auth", kind, known)
        except TunnelError as error:
            raise usage.UsageError(error.message) from None
        if argument.startswith(TOKEN_PREFIX) and not os.path.exists(argument):
            raise usage.UsageError(
                f"--auth {kind}: takes the name of a file, not a token"
            )
        if kind == "file" and not os.path.isfile(argument):
            # Twisted's own default checker would refuse everybody.
            raise usage.UsageError(f"--auth file: cannot find the file {argument!r}")
        try:
            self.addChecker(strcred.makeChecker(description))
        except Exception as error:
            # Checkers of other packages may raise anything.
            why = getattr(error, "message", None) or error
            raise usage.UsageError(f"--auth {kind}: {why}") from None

    def settingsAround(self, settings: dict[str, Setting]) -> dict[str, Setting]:
        around = super().settingsAround(settings)
        if os.environ.get("PORT") and not (self.told.keys() & {"demo", "port"}):
            port = self.written(_defaultPort())
            around["port"] = Setting([port], "environment PORT")
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
        reactor = ourReactor()

        if not self["handshake-timeout"]:
            raise badOption("--handshake-timeout takes more than 0")
        _checkInterface(self["interface"])
        checkFormat(self["log-format"])
        for key, other in (
            ("private-key", "certificate"),
            ("visitor-key", "visitor-certificate"),
            ("client-crl", "client-ca"),
        ):
            if self[key] and not self[other]:
                raise badOption(f"--{key} goes with --{other}")
        self.stateDirectory = stateDirectory(self["state-dir"])
        if self["ports"]:
            self.portRange = readOption("ports", parsePorts, self["ports"])
        if self["hostname"] or "hostname" in self.told:
            _checkHostname(self["hostname"])
        self.visitorCertificate = self._certificateIn(
            "visitor-certificate", "visitor-key"
        )
        self.certificate = self._certificateIn("certificate", "private-key")
        if self.get("credCheckers"):
            self.authenticator = Authenticator(portalFor(self["credCheckers"]))
        self.nodes = [parseNode(reactor, spec) for spec in self["node"]]
        if len({node.name for node in self.nodes}) < len(self.nodes):
            raise badOption("two --node have the same name")
        self.webSocketPaths = parsePaths(self["websocket-path"] or ["/tunnel"])
        self.served = parseDialects(
            self["dialects"],
            [numberIn(port) for port in self["port"]],
            bool(self.get("credCheckers")),
            bool(self["client-ca"]),
        )
        self.forwarded = Forwarded(self["trusted-proxy"])
        self.destinations = dialDestinations(self["dial-allow"])
        self.policy = policyOf(self)
        if path := self["country-database"]:
            self.countries = CountryDatabase(path, reactor.seconds)
        elif self.policy.countries:
            raise badOption(
                "--countries needs --country-database FILE, such as"
                " GeoLite2-Country.mmdb"
            )
        self.checkHooks()
        self.decisions = decisionsOf(reactor, self)
        self.memory = defaultMemory()
        if self["max-memory"] == "0":
            self.memory = 0
        elif size := self["max-memory"]:
            self.memory = readOption("max-memory", parseSize, size)
        if self["unix-directory"]:
            checkDirectory(self["unix-directory"])
        self.unixMode = parseMode(self["unix-mode"])
        self.checkNames()
        self.makePorts(
            reactor if self.membership is None else self.membership.join(reactor)
        )
        checkProcesses(self)
        index = 0 if self.membership is None else self.membership.index
        self.checkCluster(reactor, self.told, index)

    def written(self, port: str) -> str:
        """Write a port in full; one without a kind may be given TLS."""
        return listenInFull(port, "ssl" if self.secure else "tcp")

    def _certificateIn(self, file: str, key: str) -> ReloadingCertificate | None:
        if not self[file]:
            return None
        return ReloadingCertificate(self[file], self[key] or None)

    def makePorts(self, reactor: Any) -> None:
        """
        Make the ports that clients connect to.

        @param reactor: Will listen.
        @raise TunnelError: C{bad-option}.
        """
        authority, revoked = self["client-ca"], self["client-crl"]
        default = "tcp:0:interface=127.0.0.1" if self["demo"] else _defaultPort()
        descriptions, self.ownPorts = takeOwnPorts(
            reactor,
            [self.written(port) for port in self["port"] or [default]],
            self["port"],
            self.served,
        )
        for description in (
            descriptions if authority and not self["certificate"] else ()
        ):
            if not description.startswith(("ssl:", "tls:")):
                raise badOption(
                    f"--client-ca needs TLS: give --certificate for {description}"
                )

        def port(
            description: str, option: str, certificate: str = "", key: str = ""
        ) -> ServerPort:
            return parsePort(
                reactor,
                description,
                # Clients that are asked for a certificate at one port are asked at all
                # of them.
                TLSFiles(certificate, key, authority, revoked),
                self.stateDirectory,
                self.hostnames,
                option,
                self.forwarded.speaksFor,
            )

        if self["rpc"]:
            self.rpcPort = port(self["rpc"], "--rpc")
            asked = self.rpcPort.secure or self.get("credCheckers")
            if authority and not asked:
                raise badOption(
                    f"--rpc {self['rpc']} would admit everybody, because"
                    " --client-ca only works with TLS: give --auth, or write --rpc"
                    " ssl:PORT"
                )
        files = self["certificate"], self["private-key"]
        self.serverPorts = [port(each, "--port", *files) for each in descriptions]
        self.makeNamePorts(reactor)


def _checkHostname(name: str) -> None:
    if not name:
        # A shell variable that is not set.
        raise badOption("--hostname is empty; write the server's name after it")
    if parseHost(name) is None or name.startswith("*"):
        raise badOption(
            f"--hostname {printable(name, 60)!r} is not a host; write its name or"
            " address, for example tunnel.example.com"
        )


def _checkInterface(interface: str) -> None:
    """Find out now, and not at the first tunnel, whether ports can be opened there."""
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
            f"--interface {interface!r} is not an address of this machine; write one of"
            " its addresses, for example 127.0.0.1, or leave it out for all of them"
        ) from None


def _defaultPort() -> str:
    """The port that a platform gives to its programs, or our own."""
    port = os.environ.get("PORT", "")
    if not port:
        return "9000"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise badOption(f"the variable PORT is {port!r}, which is not a port")
    return port


def makeService(options: Options) -> Service:
    """Make the server, or the demonstration."""
    reactor = ourReactor()

    checkBeforeFork(
        getattr(options, "parent", None),
        [
            *(
                (f"{port.option} {port.description}", port.endpoint)
                for port in options.allPorts
            ),
            *(
                (f"--node {node.name}: {node.listen}", node.endpoint)
                for node in options.nodes
                if node.endpoint is not None
            ),
        ],
        options.stateDirectory if options["state-dir"] else None,
    )
    useMonotonicTime(reactor)
    raiseDescriptorLimit()
    tuneCollector()
    log = Log(options)
    # Only when nothing can fail any more.
    port = next(iter(options.serverPorts)).description
    tellOfDaemon(
        getattr(options, "parent", None), "server", f"clients connect to {port}"
    )
    options.warnOfSecrets()
    if options["check"]:
        return log.around(checkService(reactor, options))
    if options.processes > 1 and options.membership is None:
        return log.around(makeParent(reactor, options, log))
    hooks = hooksOf(reactor, options, "server")
    serving = Serving(reactor, options, log, hooks)
    return log.around(serving if hooks is None else hooks.around(serving))
