"""C{twistd tunnel-client}: the client's command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar

from twisted.python import usage

from tristunnel.cli.offering import makeService
from tristunnel.client.control import OFF, parseControl
from tristunnel.client.dials import NO_DIALS, DialOptionsMixin
from tristunnel.client.local import localEndpoint
from tristunnel.client.options import (
    FORWARD_FIELDS,
    ClientOptions,
    checkForwards,
    expanded,
    forwardOf,
)
from tristunnel.client.service_options import (
    DEMAND,
    HEALTH,
    DemandOptionsMixin,
    HealthOptionsMixin,
)
from tristunnel.config.file import ConfigFile
from tristunnel.config.help import OptionGroup
from tristunnel.config.keys import Key, valuesIn
from tristunnel.config.numbers import count, seconds
from tristunnel.config.policy_options import VISITORS, PolicyOptionsMixin, policyOf
from tristunnel.config.servers import KnownServer, ServerStore
from tristunnel.config.settings import DEFAULT, Setting, settingsOf, shownSettings
from tristunnel.connect.address import parseConnect, parseTunnelURI
from tristunnel.connect.credentials import (
    CREDENTIALS_VARIABLE,
    TOKEN_VARIABLE,
    givenCredentials,
    givenToken,
)
from tristunnel.connect.greeting import AUTO, GREETINGS, NEVER
from tristunnel.connect.options import (
    IDENTITY,
    WAY,
    ConnectOptionsMixin,
    connectOptionsOf,
    trustOf,
)
from tristunnel.connect.route import PROXY_VARIABLE
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.dialects.base.dialect import Dialect
from tristunnel.dialects.framed.dialect import parseTell
from tristunnel.dialects.framed.extra_connections import MOST_EXTRA_CONNECTIONS
from tristunnel.dialects.framed.moves import CARRIERS
from tristunnel.dialects.framed.session import MOST_QUIET
from tristunnel.dialects.framed.standby import MOST_STANDBYS
from tristunnel.dialects.table import DEFAULT as DIALECT
from tristunnel.dialects.table import ours
from tristunnel.errors import TunnelError, badOption
from tristunnel.forwards.consent import Consent
from tristunnel.forwards.forward import Forward
from tristunnel.hooks.options import HOOKS, HookOptionsMixin
from tristunnel.inspect.options import INSPECT, InspectOptionsMixin
from tristunnel.model.policy import VisitorPolicy
from tristunnel.util.command_line import exposedSecrets
from tristunnel.util.files import stateDirectory, stateVariable
from tristunnel.util.hosts import basicLogin
from tristunnel.util.logs import checkFormat
from tristunnel.util.process import GRACE
from tristunnel.util.words import checkChoice

__all__ = ["NEEDS_NAME", "ONE_SERVER", "Options", "makeService"]

_IDENTITY = {"credentials", "credentials-file", "token-file"}
"""Options that say who we are. If the environment says so, all of them in a file are
ignored."""

ONE_SERVER = (
    *("connect", "server", "tunnel", "to", "listen", "service", "forward"),
    *("credentials", "credentials-file", "token-file"),
)
"""Options that are about one server."""

NEEDS_NAME = "write --forward NAME=TARGET, for example db=localhost:5432"
"""The cure where a private tunnel has no name."""


class Options(
    DialOptionsMixin,
    PolicyOptionsMixin,
    HealthOptionsMixin,
    DemandOptionsMixin,
    InspectOptionsMixin,
    ConnectOptionsMixin,
    HookOptionsMixin,
    ClientOptions,
):
    """The options of C{twistd tunnel-client}."""

    synopsis = "--connect SERVER [--forward] SERVICE ... [options]"
    words = "forward"
    meant: ClassVar[Mapping[str, str]] = {
        "port": "the public port is written in front, for example 8080=3000",
        "host": "a service on another machine is written HOST:PORT",
        "local-host": "a service on another machine is written HOST:PORT",
        "c": "write --config FILE",
    }
    examples: ClassVar[Any] = (
        "--connect tunnel.example.com 3000",
        "--connect tunnel.example.com --forward 8081=localhost:3000",
        "--connect tunnel.example.com --token-file token udp/5353=localhost:53",
    )
    groups: ClassVar[Any] = (
        OptionGroup(
            "What to share, and where",
            "connect=SERVER server=NAME forward=[PORT|NAME=]SERVICE private"
            " managed=HOST:PORTS",
        ),
        IDENTITY,
        VISITORS,
        HEALTH,
        DEMAND,
        INSPECT,
        OptionGroup(
            "Visiting a service, or serving one tunnel",
            "listen=ENDPOINT service=NAME dial-allow=HOST:PORTS tunnel=URI to=SERVICE",
        ),
        OptionGroup(
            "Finding out what is wrong", "check check-idle=SECONDS print-config"
        ),
        OptionGroup(
            "This program",
            "config=FILE state-dir=DIRECTORY no-screen tell=WHAT log-format=FORMAT"
            " rpc=ENDPOINT grace=SECONDS",
        ),
        HOOKS,
        WAY,
        OptionGroup(
            "Protocol",
            "dialect=NAME host-key=FINGERPRINT carrier=KIND sessions=NUMBER"
            " standby=NUMBER extension=WHEN",
        ),
    )
    longdesc = (
        "A reverse tunnel client. It connects to a server (twistd tunnel) and makes"
        " services that it can reach available to that server's visitors. Keep secrets"
        " off the command line, which every user of this machine can read: use"
        f" --token-file, --credentials-file, or the environment ({TOKEN_VARIABLE},"
        f" {CREDENTIALS_VARIABLE})."
    )

    optFlags = [
        ("check", None, "Test the connection to the server step by step, then exit."),
        ("no-screen", None, "Write log lines instead of showing a live screen."),
        ("private", None, "Open no public port; visitors need --listen and --service."),
    ]
    optParameters = [
        ("connect", None, None, "The server: HOST, HOST:PORT, https://HOST, tcp:..."),
        ("server", None, "", "The name of a server that you joined."),
        (
            "host-key",
            None,
            "",
            "SHA-256 fingerprint of the server's SSH key, with --dialect chisel.",
        ),
        ("tunnel", None, None, "Serve the tunnel with this URI; needs no credentials."),
        ("to", None, None, "With --tunnel: the service to offer, HOST:PORT."),
        ("dialect", None, DIALECT, f"The server's protocol: {', '.join(ours())}."),
        ("service", None, None, "With --listen: the name of the service to visit."),
        ("state-dir", None, None, "Directory for leases and other saved state."),
        seconds(
            "check-idle",
            None,
            "With --check: seconds to keep a session idle (0 = skip).",
            0,
            MOST_QUIET,
        ),
        ("rpc", None, None, "Answer remote calls here: unix:PATH or tcp:PORT; or off."),
        ("log-format", None, "text", "Format of the log: text or json."),
        (
            "extension",
            None,
            AUTO,
            "Offer tristunnel's extension of W3P: auto, always, never.",
        ),
        (
            "tell",
            None,
            "host",
            "What the server may show of this client: host, target, nothing.",
        ),
        (
            "carrier",
            None,
            "auto",
            "How visitors' data travels: auto, session or direct.",
        ),
        count(
            "sessions",
            1,
            "Number of connections to spread visitors over.",
            1,
            MOST_EXTRA_CONNECTIONS + 1,
        ),
        count(
            "standby",
            0,
            "Number of other cluster members that stand by to take over.",
            0,
            MOST_STANDBYS,
        ),
        seconds("grace", GRACE, "Seconds that open streams get to finish on exit."),
    ]

    toServer: ClassVar[str] = "--connect"
    """The option that names a server, for messages."""

    whichService: ClassVar[str] = "give --service NAME"
    """What to do if a visitor has named no service."""

    usesDefault: ClassVar[bool] = False
    """Whether this user's default server is meant if none is named."""

    variables: ClassVar[Mapping[str, str]] = {
        "tunnel": "TRISTUNNEL_TUNNEL",
        "proxy": PROXY_VARIABLE,
    }
    fields: ClassVar[Mapping[str, Mapping[str, Key]]] = {"forward": FORWARD_FIELDS}

    def __init__(self) -> None:
        super().__init__()
        self["forward"] = []
        self["credentials"] = {}
        self.noDials()
        # Which [[client]] of the file this is, of how many; 0 for the whole.
        self.section = 0
        self.count = 0
        self.dialect: Dialect
        self.known: KnownServer | None = None

    def opt_forward(self, spec: str) -> None:
        """
        A service to offer: SERVICE on any public port, PORT=SERVICE on this
        one, NAME=SERVICE for a named tunnel on any port. SERVICE is PORT,
        HOST:PORT, http://HOST:PORT, unix:PATH or tls:HOST:PORT. For UDP put
        udp/ in front: udp/5353=localhost:53. Where the server has names,
        http/NAME[/PATH]=SERVICE is a web site, and tls/NAME=SERVICE passes
        TLS on. Can be repeated.
        """
        self["forward"].append(spec)

    def table_forward(self, table: Mapping[str, Any]) -> None:
        """The same, as a table of a file."""
        self["forward"].append(table)

    def opt_managed(self, pattern: str) -> None:
        """
        Let the server's operator open tunnels to these services: HOST:PORTS, for
        example localhost:*, 192.168.1.0/24:22 or udp/localhost:53. Can be
        repeated.
        """
        self["managed"] = [*self.get("managed", []), pattern]

    def opt_credentials(self, pair: str) -> None:
        """KEY=VALUE of the credentials. Can be repeated."""
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise usage.UsageError(
                "--credentials takes KEY=VALUE, for example id=laptop"
            )
        self["credentials"][key] = value

    # Several clients in one file

    def settingsIn(
        self, file: ConfigFile, told: Mapping[str, list[str]]
    ) -> dict[str, Setting]:
        keys = self.configKeys()
        inner = {k: key for k, key in keys.items() if k not in self.processWide}
        tables = file.table.get("client")
        for index, table in enumerate(tables if isinstance(tables, list) else ()):
            for name in self.processWide & set(table):
                raise file.wrong(
                    ("client", index, name),
                    f"{name!r} applies to the whole program: write it above the first"
                    " [[client]]",
                )
        keys["client"] = Key("client", "", True, fields=inner)
        values = valuesIn(file, (), file.table, keys)
        sections = values.pop("client", [])
        self.count = len(sections)
        settings = settingsOf(file, (), values)
        if self.section:
            index = self.section - 1
            own = settingsOf(file, ("client", index), sections[index])
            if _IDENTITY & set(own):
                settings = {k: s for k, s in settings.items() if k not in _IDENTITY}
            settings.update(own)
        if self.count > 1:
            for name in ONE_SERVER:
                if name in told:
                    raise badOption(
                        f"--{name} applies to one client, and there are {self.count} in"
                        f" {file.shown}: write it in one of its [[client]] tables"
                    )
        return settings

    def settingsAround(self, settings: dict[str, Setting]) -> dict[str, Setting]:
        """Its secrets are for one server; with several, nobody knows which."""
        around = super().settingsAround(settings)
        if self.count > 1:
            around.pop("tunnel", None)
        elif os.environ.get(TOKEN_VARIABLE) or os.environ.get(CREDENTIALS_VARIABLE):
            for name in _IDENTITY:
                settings.pop(name, None)
        return around

    @property
    def isInner(self) -> bool:
        return bool(self.section)

    def derived(self) -> dict[str, Setting]:
        variable = stateVariable()
        origin = f"environment {variable}" if variable else DEFAULT
        found = {"state-dir": Setting(str(self.stateDirectory), origin)}
        if self.known is not None:
            found["connect"] = Setting(self.known.connect, f"server {self.known.name}")
        return found

    def shown(self) -> list[str]:
        if self.each == [self]:
            lines = super().shown()
            for variable in (TOKEN_VARIABLE, CREDENTIALS_VARIABLE):
                if os.environ.get(variable) and self.count <= 1:
                    lines.append(f"# who we are  # environment {variable}")
            return lines
        wide = self.processWide
        lines = shownSettings({k: s for k, s in self.inForce().items() if k in wide})
        for client in self.each:
            settings = {k: s for k, s in client.inForce().items() if k not in wide}
            lines += ["", "[[client]]", *shownSettings(settings)]
        return lines

    def openSecrets(self) -> list[str]:
        own = super().openSecrets()
        inner = (each.openSecrets() for each in self.each if each is not self)
        return sorted({*own, *chain.from_iterable(inner)})

    # Checking

    def check(self) -> None:
        reactor = ourReactor()

        checkFormat(self["log-format"])
        self.checkHooks()
        self.stateDirectory = stateDirectory(self["state-dir"])
        if self["rpc"] and self["rpc"] != OFF:
            self.control = parseControl(reactor, self["rpc"])
        self.checkInspect(reactor)
        told = {name: self[name] for name in self.told if name in self}
        self.exposed = exposedSecrets(told)
        if self.count and not self.section:
            self.each = [
                self.another(file=self.file, section=number + 1)
                for number in range(self.count)
            ]
            return
        self["tunnel"] = self["tunnel"] or ""
        self.checkDials(reactor)
        self._checkTogether()
        self._findIdentity()
        self._checkDialect(reactor)
        self._makeServer(reactor)
        self._makeForwards(reactor)
        if self.get("managed"):
            if not self.dialect.hasExtension or self["tunnel"] or self["listen"]:
                raise badOption("--managed goes with --connect, and no other dialect")
            self.managed = Consent(self["managed"])

    def _checkTogether(self) -> None:
        tunnel = self["tunnel"]
        for name in {"connect", "server", "to"} & set(self.told):
            # An unset shell variable must not turn into the default server.
            if not all(map(str.strip, self.told[name])):
                raise badOption(f"--{name} is empty; write a server's name after it")
        if self["server"] and (self["connect"] or tunnel):
            raise badOption("--server names a server: leave out --connect and --tunnel")
        if not (self["connect"] or tunnel):
            self._takeKnown()
        if bool(tunnel) != bool(self["to"]):
            raise badOption("--tunnel URI and --to TARGET go together")
        if tunnel and self["forward"]:
            raise badOption("--tunnel serves one tunnel: leave out --forward")
        for name, choices in (("carrier", CARRIERS), ("extension", GREETINGS)):
            checkChoice(name, self[name], choices)
        parseTell(self["tell"])
        if self["standby"] and (tunnel or self["listen"]):
            raise badOption("--standby is for offering services: use it with --forward")
        if self["inspect"] and self["listen"]:
            raise badOption("--inspect is for services that you share: leave it out")
        if self["check-idle"] is not None and not self["check"]:
            raise badOption("--check-idle goes with --check")

    def _takeKnown(self) -> None:
        if not (self["server"] or self.usesDefault):
            raise badOption(
                "which server? use --connect HOST, for example: twistd -n"
                " tunnel-client --connect tunnel.example.com --forward 3000"
            )
        self.known = known = ServerStore().read().find(self["server"], self.toServer)
        self["connect"] = known.connect
        if not (self.get("pin") or self["ca"] or self["insecure"]):
            for pin in known.pins:
                self.opt_pin(pin)

    def _findIdentity(self) -> None:
        environment = {} if self.count > 1 else os.environ
        self["credentials"] = {
            **givenCredentials(self["credentials-file"], environment),
            **self["credentials"],
        }
        token = "" if self["tunnel"] else self._token(environment)
        if not (token or self["credentials"]) and self.known is not None:
            token = self.known.token
        if token and (self["token-file"] or not self["credentials"]):
            self["credentials"]["token"] = token

    def _token(self, environment: Mapping[str, str]) -> str:
        path = self["token-file"]
        if path != "-":
            return givenToken(path, environment)
        if path not in self.typed:
            self.typed[path] = givenToken(path)
        return self.typed[path]

    def _checkDialect(self, reactor: Any) -> None:
        if self["listen"]:
            self.localEndpoint = self.makeLocalEndpoint(reactor)
            if not self.knowsService:
                self["dialect"] = next(
                    name for name, each in ours().items() if each.visitsAlone
                )
        name = self["dialect"]
        checkChoice("dialect", name, ours())
        self.dialect = ours()[name]
        hasExtension = self.dialect.hasExtension
        if (self.dials or self.destinations) and not hasExtension:
            raise badOption(f"--dialect {name} {NO_DIALS}")
        if self["service"] and not hasExtension:
            raise badOption(f"--dialect {name} has no named services: leave it out")
        if self["service"] and not self["listen"]:
            raise badOption("--service NAME goes with --listen PORT, to visit it there")
        offers = hasExtension and not (self["tunnel"] or self["service"])
        if self["extension"] == NEVER and not offers:
            raise badOption("--extension never goes with --forward, at a W3P server")
        if hasExtension:
            return
        if self["tunnel"]:
            raise badOption("--tunnel works only with its own dialect")
        if self.dialect.needsURL and "://" not in self["connect"]:
            raise badOption(
                f"{self.whichService}, or a relay: --connect ws://HOST/client"
                if self["listen"]
                else f"--dialect {name} needs --connect ws://HOST/PATH or wss://..."
            )
        if self["standby"]:
            raise badOption(
                f"--dialect {name} does not support --standby: leave it out"
            )
        if self["private"]:
            raise badOption(f"--dialect {name} has no --private")

    @property
    def knowsService(self) -> bool:
        """Whether a service to visit is given."""
        return bool(self["service"])

    def makeLocalEndpoint(self, reactor: Any) -> Any:
        """
        Make the endpoint that listens for visitors; C{None} if they come another way.
        """
        return localEndpoint(reactor, self["listen"])

    def _makeServer(self, reactor: Any) -> None:
        trust = trustOf(self)
        route = connectOptionsOf(reactor, self, self._headers())
        route = replace(route, greeting=self["extension"])
        if self["tunnel"]:
            self.server = parseTunnelURI(
                reactor, self["tunnel"], trust, self["connect"] or "", route
            )
            self["forward"] = [f"0={self['to']}"]
        else:
            self.server = parseConnect(reactor, self["connect"], trust, route)

    def _makeForwards(self, reactor: Any) -> None:
        self.forwards = [
            forward
            for index, each in enumerate(self["forward"])
            for own in self._forwardsOf(reactor, index, each)
            for forward in (own, own.beside)
            if forward is not None and (forward is own or self.dialect.carriesDatagrams)
        ]
        names = [forward for forward in self.forwards if forward.name]
        if self["private"] and self.forwards and not names:
            raise badOption(f"--private tunnels have names: {NEEDS_NAME}")
        checkForwards(self.forwards)
        for forward in self.forwards:
            self.dialect.checkForward(forward)
            if forward.private and forward.hasHost:
                raise badOption(
                    f"--private is for services without a public address, and"
                    f" {forward.wanted} is one: offer it by another client"
                )
            if forward.private and not forward.name:
                raise badOption(f"--private tunnels have names: {NEEDS_NAME}")
        self.dialect.checkForwards(self)
        self.policy = policyOf(self)
        policies = (self.policy, *(forward.policy for forward in self.forwards))
        hasForwards = self.dialect.hasExtension and not (
            self["tunnel"] or self["listen"]
        )
        if any(policy != VisitorPolicy() for policy in policies) and not hasForwards:
            raise badOption(
                "--allow and other options about visitors go with --forward, and with"
                " no other dialect"
            )

    def _forwardsOf(self, reactor: Any, index: int, wanted: Any) -> list[Forward]:
        try:
            return [self._forward(reactor, each) for each in expanded(wanted)]
        except TunnelError as error:
            setting = self.settings.get("forward")
            if setting is None or setting.file is None:
                raise
            raise badOption(f"{setting.placeOf(index)}: {error.message}") from None

    def _forward(self, reactor: Any, wanted: Any) -> Forward:
        return forwardOf(reactor, wanted, self)

    def _headers(self) -> dict[str, str]:
        """
        The headers of the request for a WebSocket. Dialects whose handshake has no room
        for credentials put them here.
        """
        headers = dict(self.get("header", []))
        named = {name.lower() for name in headers}
        fields = self["credentials"]
        says = fields.keys() & {"id", "secret", "password", "token"}
        if "authorization" in named or not (says and self.dialect.loginInHeaders):
            return headers
        if "token" in fields and "id" not in fields:
            headers["Authorization"] = f"Bearer {fields['token']}"
        else:
            secret = fields.get("secret") or fields.get("password") or ""
            pair = f"{fields.get('id', '')}:{secret}"
            headers["Authorization"] = basicLogin(pair)
        return headers
