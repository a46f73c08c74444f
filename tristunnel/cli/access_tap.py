"""C{twistd tunnel-access}: the command line of on-demand access."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import MultiService, Service

from tristunnel.client.access import AccessService
from tristunnel.client.control import ClientControl, accessSocket
from tristunnel.client.local import localEndpoint, makeLocalPort
from tristunnel.client.log import LoggingClientObserver
from tristunnel.config.help import OptionGroup
from tristunnel.config.numbers import readOption, seconds
from tristunnel.config.options import CheckedOptions
from tristunnel.connect.address import ServerAddress, parseAccessURI, parseConnect
from tristunnel.connect.credentials import (
    CREDENTIALS_VARIABLE,
    TOKEN_VARIABLE,
    givenCredentials,
    givenToken,
)
from tristunnel.connect.options import (
    IDENTITY,
    WAY,
    ConnectOptionsMixin,
    connectOptionsOf,
    trustOf,
)
from tristunnel.connect.route import PROXY_VARIABLE
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.dialect import bySession
from tristunnel.errors import TunnelError, badOption
from tristunnel.util.command_line import exposedSecrets, hideExposed
from tristunnel.util.endpoints import checkBeforeFork
from tristunnel.util.files import stateDirectory
from tristunnel.util.logs import Log
from tristunnel.util.output import outputOf
from tristunnel.util.process import (
    ReloadSignalService,
    exitWith,
    hurryOnSecondSignal,
    useMonotonicTime,
)
from tristunnel.util.quantities import parseDuration

__all__ = ["ACCESS_VARIABLE", "Options", "makeService"]

ACCESS_VARIABLE = "TRISTUNNEL_ACCESS"
"""The environment variable that may hold a capability URI."""

LONGEST = 30 * 86400.0
"""The longest time that a port stays open, in seconds."""


class Options(ConnectOptionsMixin, CheckedOptions):
    """The options of C{twistd tunnel-access}."""

    synopsis = "--connect ENDPOINT --service NAME [--listen ENDPOINT] [--ttl TIME]"
    examples = ("--connect tunnel.example.com --service db --ttl 2h",)
    groups: ClassVar[Any] = (
        OptionGroup(
            "What to open, and for how long",
            "connect=SERVER service=NAME listen=ENDPOINT ttl=TIME access=URI",
        ),
        IDENTITY,
        WAY,
        OptionGroup("This program", "state-dir=DIRECTORY grace=SECONDS"),
    )
    longdesc = (
        "Opens a local port to a named service of a server for a limited time, and"
        " closes it again. 'tristunnel access' lists open ports and closes them early."
        " Keep secrets off the command line, which every user of this machine can"
        " read: use --token-file, --credentials-file, or the environment"
        f" ({TOKEN_VARIABLE}, {CREDENTIALS_VARIABLE}, {ACCESS_VARIABLE})."
    )

    optParameters = [
        (
            "connect",
            None,
            "",
            "The server: tls:HOST:PORT, tcp:HOST:PORT, wss://HOST/PATH.",
        ),
        ("service", None, "", "The name of the service to reach."),
        (
            "access",
            None,
            "",
            "The URI from grantAccess, instead of --connect and --service.",
        ),
        ("listen", None, "tcp:0:interface=127.0.0.1", "The local port; or udp:PORT."),
        ("ttl", None, "1h", "How long to stay open: 45s, 90m, 12h, 1h30m, up to 30d."),
        (
            "state-dir",
            None,
            None,
            "Directory where 'tristunnel access' finds this program.",
        ),
        seconds("grace", 0.0, "Seconds that open streams get to finish on exit."),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.server: ServerAddress
        self.endpoint: Any = None
        self.credentials: dict[str, object] = {}
        self.ttl = 0.0
        self.stateDirectory = Path()

    def check(self) -> None:
        reactor = ourReactor()

        self.exposed = exposedSecrets(self)
        self["access"] = self["access"] or os.environ.get(ACCESS_VARIABLE, "")
        if not self["access"] and not (self["connect"] and self["service"]):
            raise badOption(
                "which service? give --connect ENDPOINT and --service NAME, or"
                " --access URI"
            )
        self.ttl = readOption("ttl", parseDuration, self["ttl"])
        if self.ttl > LONGEST:
            raise badOption("--ttl takes up to 30d")
        self.credentials = givenCredentials(self["credentials-file"])
        token = givenToken(self["token-file"])
        if token and (self["token-file"] or not self.credentials):
            self.credentials["token"] = token
        trust = trustOf(self)
        self["proxy"] = self["proxy"] or os.environ.get(PROXY_VARIABLE, "")
        route = connectOptionsOf(reactor, self, dict(self.get("header", [])))
        if self["access"]:
            self.server = parseAccessURI(
                reactor, self["access"], trust, self["connect"], route
            )
        else:
            self.server = parseConnect(reactor, self["connect"], trust, route)
        self.endpoint = localEndpoint(reactor, self["listen"])
        self.stateDirectory = stateDirectory(self["state-dir"])


def makeService(options: Options) -> Service:
    """Make the client."""
    reactor = ourReactor()

    checkBeforeFork(
        getattr(options, "parent", None),
        [(f"--listen {options['listen']}", options.endpoint)],
    )
    log = Log(options)
    return log.around(_make(reactor, options, log))


def _make(reactor: Any, options: Options, log: Log) -> Service:
    useMonotonicTime(reactor)
    hideExposed(options.exposed)
    options.server.route.log(options.server.where)
    access: AccessService
    # The address of the port is for pasting.
    out = outputOf(sys.__stdout__)
    observer = LoggingClientObserver(out, reactor.seconds, reactor.callLater)
    client = TunnelClientService(
        reactor,
        options.server,
        [],
        options.credentials,
        observer,
        grace=options["grace"],
        gaveUp=lambda reason: access.end(reason),
    )
    name = options["service"] or "the service"
    port = makeLocalPort(
        reactor,
        options.endpoint,
        options["listen"],
        bySession(client, options["service"]),
        name,
        options["grace"],
        lambda reason: access.end(reason),
        True,
    )
    port.observer = observer
    access = AccessService(
        reactor,
        client,
        port,
        options.server.where,
        options.ttl,
        lambda reason: _end(reactor, reason),
    )
    together = MultiService()
    access.setServiceParent(together)
    socket = accessSocket(reactor, options.stateDirectory, access.id)
    ClientControl(reactor, socket, access.methods).setServiceParent(together)
    ReloadSignalService(reactor, log).setServiceParent(together)
    reactor.addSystemEventTrigger(
        "before", "shutdown", hurryOnSecondSignal, reactor, access.stopNow
    )
    return together


def _end(reactor: Any, reason: TunnelError) -> None:
    """End with an exit status that says how it went: 0 if its time is over."""
    exitWith(0 if reason.code.name in ("expired", "closed") else 1)
    reactor.callWhenRunning(reactor.stop)
