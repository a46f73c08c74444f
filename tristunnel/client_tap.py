"""
C{twistd tunnel-client}: the client's command line.
"""

from __future__ import annotations

import os
import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from twisted.application.service import Service
from twisted.python import usage

from tristunnel.check import CheckService
from tristunnel.client.check import ClientCheck
from tristunnel.client.connect import (
    ServerAddress,
    Trust,
    parseConnect,
    parseTunnelURI,
)
from tristunnel.client.credentials import CREDENTIALS_VARIABLE, givenCredentials
from tristunnel.client.direct import CARRIERS, Carrier
from tristunnel.client.forward import DEFAULT_FORWARD, Forward, parseForward
from tristunnel.client.lease import ClientLease
from tristunnel.client.log import LoggingClientObserver
from tristunnel.client.proxy import parseProxy
from tristunnel.client.relay import RelayHostService
from tristunnel.client.service import TunnelClientService
from tristunnel.client.token import TOKEN_VARIABLE, givenToken
from tristunnel.client.visitor import (
    LocalPort,
    Route,
    VisitorService,
    bySession,
    byWebSocket,
    localEndpoint,
)
from tristunnel.client.vtunnel import VTunnelClientService
from tristunnel.client.way import Way, parseHeader
from tristunnel.client.zlayer import ZLayerClientService, tokenOf
from tristunnel.client.zlayer import backoff as zlayerBackoff
from tristunnel.errors import TunnelError
from tristunnel.observer import ClientObserver
from tristunnel.process.drain import exitWith, hurryOnSecondSignal
from tristunnel.process.hide import exposedSecrets, hideExposed
from tristunnel.process.jsonlog import checkFormat, logged
from tristunnel.process.paths import defaultStateDirectory
from tristunnel.rules.policy import VisitorPolicy
from tristunnel.rules.policy_options import (
    PolicyOptionsMixin,
    policyOf,
    tunnelOptionsOf,
)
from tristunnel.rules.quota import raiseDescriptorLimit
from tristunnel.sessions.direct import MOST_SPARES
from tristunnel.sessions.lanes import MOST_LANES
from tristunnel.text.numbers import decimalOf, wholeOf
from tristunnel.tls.certificates import parseFingerprint

__all__ = ["Options", "makeService"]

_TUNNEL = "TRISTUNNEL_TUNNEL"
_PROXY = "TRISTUNNEL_PROXY"


class Options(PolicyOptionsMixin, usage.Options):
    """
    The options of C{twistd tunnel-client}.
    """

    synopsis = "--connect ENDPOINT [--forward [PORT|NAME]=TARGET ...]"
    longdesc = (
        "A reverse tunnel client. It connects to a server (twistd tunnel) and offers"
        " services that it can reach to that server's visitors. Credentials are best"
        f" given in the environment variable {TOKEN_VARIABLE} or"
        f" {CREDENTIALS_VARIABLE}, or with --token-file or --credentials-file:"
        " everybody on this machine can read a command line."
    )

    optFlags = [
        ("check", None, "Look at everything on the way to the server, and end."),
        ("insecure", None, "Accept any certificate: anybody can pose as the server."),
        ("private", None, "Visitors come by --listen and --service, not by a port."),
    ]
    optParameters = [
        ("connect", None, None, "tcp:HOST:PORT, tls:..., ws://HOST/PATH, unix:PATH."),
        ("proxy", None, "", "HTTP proxy to go through: http://USER:PW@HOST:PORT."),
        (
            "ping-interval",
            None,
            30.0,
            "Seconds between WebSocket pings, or 0.",
            decimalOf("ping-interval"),
        ),
        ("tunnel", None, None, "Serve the tunnel of this URI, without credentials."),
        ("to", None, None, "With --tunnel: the service, HOST:PORT or an endpoint."),
        ("dialect", None, "framed", "framed, vtunnel, zlayer or relay."),
        ("listen", None, None, "Visit: a local endpoint, tcp:PORT:interface=ADDRESS."),
        ("service", None, None, "With --listen: the name of the tunnel to visit."),
        ("ca", None, "", "PEM file or directory: authorities to trust instead."),
        ("credentials-file", None, None, "JSON file that says who we are."),
        ("token-file", None, "", "File with our token; - to be asked for it."),
        ("state-dir", None, None, "Where this client keeps what it must remember."),
        ("log-format", None, "text", "How the log is written: text or json."),
        ("carrier", None, "auto", "How visitors travel: session, direct, or auto."),
        (
            "sessions",
            None,
            1,
            "Connections that share the visitors.",
            wholeOf("sessions"),
        ),
        (
            "spares",
            None,
            0,
            "Connections to dial ahead of direct visitors.",
            wholeOf("spares"),
        ),
        (
            "grace",
            None,
            10.0,
            "Seconds for streams to finish at a stop.",
            decimalOf("grace"),
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self["forward"] = []
        self["pin"] = []
        self["header"] = []
        self["credentials"] = {}
        self.server: ServerAddress
        self.localEndpoint: Any = None
        self.forwards: list[Forward] = []
        self.policy = VisitorPolicy()
        self.exposed: dict[str, tuple[str, list[str]]] = {}
        self.stateDirectory = Path()

    def opt_forward(self, spec: str) -> None:
        """
        A service to offer: PORT=TARGET, 0=TARGET for any port, NAME=TARGET
        for a named tunnel on any port. TARGET is HOST:PORT or a client
        endpoint (tcp:, unix:, tls:). For a UDP service write udp/ in front:
        udp/5353=localhost:53. May be given several times.
        [default: 0=localhost:8080]
        """
        self["forward"].append(spec)

    def opt_header(self, header: str) -> None:
        """
        NAME=VALUE of the HTTP request that opens a WebSocket, for example
        Authorization=Bearer TOKEN. May be given several times.
        """
        try:
            self["header"].append(parseHeader(header))
        except TunnelError as error:
            raise usage.UsageError(error.message) from None

    def opt_pin(self, fingerprint: str) -> None:
        """
        SHA-256 fingerprint of the server's certificate: accept this one and
        no other. May be given several times.
        """
        try:
            self["pin"].append(parseFingerprint(fingerprint))
        except TunnelError as error:
            raise usage.UsageError(f"--pin: {error.message}") from None

    def opt_credentials(self, pair: str) -> None:
        """
        KEY=VALUE of the credentials. May be given several times.
        """
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise usage.UsageError(
                "--credentials takes KEY=VALUE, for example id=laptop"
            )
        self["credentials"][key] = value

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

        checkFormat(self["log-format"])
        self.exposed = exposedSecrets(self)
        self["tunnel"] = self["tunnel"] or os.environ.get(_TUNNEL, "")
        self["proxy"] = self["proxy"] or os.environ.get(_PROXY, "")
        if not (self["connect"] or self["tunnel"]):
            raise TunnelError(
                "bad-option",
                "which server? give --connect tcp:HOST:PORT or tls:HOST:PORT",
            )
        if bool(self["tunnel"]) != bool(self["to"]):
            raise TunnelError("bad-option", "--tunnel URI and --to TARGET go together")
        if self["tunnel"] and self["forward"]:
            raise TunnelError(
                "bad-option", "--tunnel serves one tunnel: leave out --forward"
            )
        if self["carrier"] not in CARRIERS:
            raise TunnelError(
                "bad-option", f"--carrier takes one of {', '.join(CARRIERS)}"
            )
        if not 1 <= self["sessions"] <= MOST_LANES + 1:
            raise TunnelError(
                "bad-option", f"--sessions takes a number from 1 to {MOST_LANES + 1}"
            )
        if not 0 <= self["spares"] <= MOST_SPARES:
            raise TunnelError(
                "bad-option", f"--spares takes a number from 0 to {MOST_SPARES}"
            )
        if not 0 <= self["grace"] < 1e6:
            raise TunnelError("bad-option", "--grace takes seconds, from 0 up")
        if self["insecure"] and (self["pin"] or self["ca"]):
            raise TunnelError(
                "bad-option", "--insecure checks nothing: leave out --pin and --ca"
            )
        self["credentials"] = {
            **givenCredentials(self["credentials-file"]),
            **self["credentials"],
        }
        token = "" if self["tunnel"] else givenToken(self["token-file"])
        if token and (self["token-file"] or not self["credentials"]):
            self["credentials"]["token"] = token
        self._checkDialect(reactor)
        trust = Trust(tuple(self["pin"]), self["ca"], bool(self["insecure"]))
        if not 0 <= self["ping-interval"] < 1e6:
            raise TunnelError("bad-option", "--ping-interval takes seconds, from 0 up")
        way = Way(
            parseProxy(reactor, self["proxy"]) if self["proxy"] else None,
            self._headers(),
            self["ping-interval"],
        )
        if self["tunnel"]:
            self.server = parseTunnelURI(
                reactor, self["tunnel"], trust, self["connect"] or "", way
            )
            self["forward"] = [f"0={self['to']}"]
        else:
            self.server = parseConnect(reactor, self["connect"], trust, way)
        specs = self["forward"] or ([] if self["listen"] else [DEFAULT_FORWARD])
        self.forwards = [
            replace(parseForward(reactor, spec), private=bool(self["private"]))
            for spec in specs
        ]
        seen: set[str] = set()
        taken: set[str] = set()
        for forward in self.forwards:
            if forward.spec in seen:
                raise TunnelError(
                    "bad-option", f"--forward {forward.spec} is there twice"
                )
            seen.add(forward.spec)
            wanted = forward.wanted
            if (forward.port or forward.name) and wanted in taken:
                raise TunnelError(
                    "bad-option", f"two --forward ask for {wanted}; 0= takes any port"
                )
            taken.add(wanted)
        self._checkForwards()
        self.policy = policyOf(self)
        if self.policy != VisitorPolicy() and (
            self["dialect"] != "framed" or self["tunnel"] or self["listen"]
        ):
            raise TunnelError(
                "bad-option",
                "--allow and other options about visitors go with --forward, and with"
                " no other dialect",
            )
        self.stateDirectory = Path(self["state-dir"] or defaultStateDirectory())

    def _checkDialect(self, reactor: Any) -> None:
        """
        @raise TunnelError: C{bad-option}, if options do not go together.
        """
        dialect = self["dialect"]
        if self["listen"]:
            self.localEndpoint = localEndpoint(reactor, self["listen"])
            if not self["service"]:
                dialect = self["dialect"] = "relay"
        if dialect not in _DIALECTS:
            raise TunnelError(
                "bad-option", f"--dialect is one of {', '.join(_DIALECTS)}"
            )
        if self["service"] and (not self["listen"] or dialect != "framed"):
            raise TunnelError(
                "bad-option", "--service NAME goes with --listen ENDPOINT, by session"
            )
        if dialect == "framed":
            return
        if self["tunnel"]:
            raise TunnelError("bad-option", "--tunnel has a dialect of its own")
        if "://" not in self["connect"]:
            raise TunnelError(
                "bad-option",
                "give --service NAME, or a relay: --connect ws://HOST/client"
                if self["listen"]
                else f"--dialect {dialect} needs --connect ws://HOST/PATH or wss://...",
            )
        if self["private"]:
            raise TunnelError("bad-option", f"--dialect {dialect} has no --private")

    def _checkForwards(self) -> None:
        """
        @raise TunnelError: C{bad-option}, for what a dialect cannot do.
        """
        dialect = self["dialect"]
        for forward in self.forwards:
            if dialect not in ("framed", "zlayer") and forward.isUDP:
                raise TunnelError("bad-option", f"--dialect {dialect} knows no UDP")
            if dialect == "vtunnel" and not forward.port:
                raise TunnelError(
                    "bad-option",
                    "vtunnel's ports are chosen: --forward PORT=TARGET, for example"
                    " 9000=localhost:3000",
                )
            if forward.private and not forward.name:
                raise TunnelError(
                    "bad-option",
                    "--private tunnels have names: --forward NAME=TARGET, for example"
                    " db=localhost:5432",
                )
        if dialect == "zlayer":
            tokenOf(self["credentials"])
        if dialect == "relay" and len(self.forwards) > 1 - bool(self["listen"]):
            raise TunnelError(
                "bad-option",
                "--dialect relay has one end: --forward =TARGET, or --listen ENDPOINT",
            )

    def _headers(self) -> dict[str, str]:
        """
        What is said to open a WebSocket. Dialects whose handshake has no room
        for credentials say them here.
        """
        headers = dict(self["header"])
        named = {name.lower() for name in headers}
        fields = self["credentials"]
        if self["dialect"] == "framed" or "authorization" in named or not fields:
            return headers
        if "token" in fields and "id" not in fields:
            headers["Authorization"] = f"Bearer {fields['token']}"
        else:
            secret = fields.get("secret") or fields.get("password") or ""
            pair = f"{fields.get('id', '')}:{secret}".encode()
            headers["Authorization"] = f"Basic {b64encode(pair).decode('ascii')}"
        return headers


def makeService(options: Options) -> Service:
    """
    Make the client.
    """
    from twisted.internet import reactor

    return logged(_make(reactor, options), options)


def _make(reactor: Any, options: Options) -> Service:
    """
    Put the client together.
    """
    raiseDescriptorLimit()
    hideExposed(options.exposed)
    if options["check"]:
        look = ClientCheck(
            reactor,
            options.server,
            options.forwards,
            options["credentials"],
            options["dialect"],
        )
        return CheckService(reactor, look.inquiry(), sys.__stdout__)
    # twistd sends sys.stdout to the log; the addresses are for pasting.
    observer = LoggingClientObserver(sys.__stdout__)
    client = _DIALECTS[options["dialect"]](reactor, options, observer)
    reactor.addSystemEventTrigger(
        "before", "shutdown", hurryOnSecondSignal, reactor, client.stopNow
    )
    return cast(Service, client)


def _framed(reactor: Any, options: Options, observer: ClientObserver) -> Any:
    """
    A client of our own server, or of W3P's.
    """
    lease = ClientLease()
    if not (options["tunnel"] or options["listen"]):
        lease = ClientLease.forClient(
            options.stateDirectory,
            options.server.where,
            [forward.spec for forward in options.forwards],
        )
    client = TunnelClientService(
        reactor,
        options.server,
        options.forwards,
        options["credentials"],
        observer,
        lease,
        options["grace"],
        lambda reason: _giveUp(reactor),
        carrier=Carrier(_carrierOf(options), options["spares"], options["sessions"]),
    )
    client.tunnelOptions = tunnelOptionsOf(options.policy)
    if not options["listen"]:
        return client
    route = bySession(client, options["service"])
    return VisitorService(client, _port(reactor, options, route, options["service"]))


def _carrierOf(options: Options) -> str:
    """
    How streams travel. A proxy need not pass on that one direction of a
    connection is over, so by itself none is used for single streams.
    """
    if options["proxy"] and options["carrier"] == "auto":
        return "session"
    return str(options["carrier"])


def _vtunnel(reactor: Any, options: Options, observer: ClientObserver) -> Any:
    """
    A client of a vtunnel server.
    """
    return VTunnelClientService(
        reactor,
        options.server,
        options.forwards,
        observer=observer,
        grace=options["grace"],
        gaveUp=lambda reason: _giveUp(reactor),
    )


def _zlayer(reactor: Any, options: Options, observer: ClientObserver) -> Any:
    """
    A client of a zlayer server.
    """
    return ZLayerClientService(
        reactor,
        options.server,
        options.forwards,
        options["credentials"],
        observer,
        grace=options["grace"],
        gaveUp=lambda reason: _giveUp(reactor),
        delay=zlayerBackoff,
    )


def _relay(reactor: Any, options: Options, observer: ClientObserver) -> Any:
    """
    Either side of a relay.
    """
    if options["listen"]:
        where = options.server.where
        route = byWebSocket(options.server)
        return VisitorService(None, _port(reactor, options, route, where))
    return RelayHostService(
        reactor,
        options.server,
        options.forwards[0],
        observer,
        options["grace"],
        lambda reason: _giveUp(reactor),
    )


def _port(reactor: Any, options: Options, route: Route, what: str) -> LocalPort:
    """
    The port of local visitors.
    """
    return LocalPort(
        reactor,
        options.localEndpoint,
        options["listen"],
        route,
        what,
        options["grace"],
        lambda reason: _giveUp(reactor),
    )


_DIALECTS: dict[str, Callable[[Any, Options, ClientObserver], Any]] = {
    "framed": _framed,
    "vtunnel": _vtunnel,
    "zlayer": _zlayer,
    "relay": _relay,
}


def _giveUp(reactor: Any) -> None:
    """
    End with an exit status that says so.
    """
    exitWith(1)
    if reactor.running:
        reactor.stop()
