"""C{tristunnel connect}: one service, by standard input and output."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from twisted.application.service import Service

from tristunnel.cli import client
from tristunnel.cli.access_tap import ACCESS_VARIABLE
from tristunnel.client.standard import StandardVisit
from tristunnel.config.help import OptionGroup
from tristunnel.connect.address import Trust, parseAccessURI
from tristunnel.connect.options import IDENTITY, WAY
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.util.command_line import LONGEST, hideExposed
from tristunnel.util.logs import Log
from tristunnel.util.output import outputOf
from tristunnel.util.process import exitWith, hurryOnSecondSignal, useMonotonicTime

__all__ = ["Options", "makeService"]

_OURS = {
    *("access", "connect", "server", "service"),
    *("dialect", "carrier", "tell", "help", "version"),
    *IDENTITY.names,
    *WAY.names,
}
"""The client's options that also apply to a visit."""


class Options(client.Options):
    """The options of C{tristunnel connect}."""

    words = "service"
    meant: ClassVar[Any] = {**client.Options.meant, "to": "write --connect HOST"}
    whichService = "which service? give its name: tristunnel connect NAME"
    synopsis = "SERVICE [--connect SERVER | --server NAME] [options]"
    longdesc = (
        "Connect standard input and output to a named service of a server, for"
        " example as OpenSSH's ProxyCommand. Messages go to the standard error output."
        " The status is 0 when both directions have ended in order, else 1. Uses the"
        " server that you joined, or the one in --connect."
    )
    examples: ClassVar[Any] = (
        "home",
        "db --connect tunnel.example.com --token-file token",
    )
    optParameters: ClassVar[Any] = [
        (
            "access",
            None,
            "",
            "The URI from grantAccess, instead of a name and a server.",
        )
    ]
    groups: ClassVar[Any] = (
        OptionGroup(
            "What to reach, and where",
            "connect=SERVER server=NAME service=NAME access=URI",
        ),
        IDENTITY,
        WAY,
        OptionGroup("Protocol", "dialect=NAME carrier=KIND tell=WHAT"),
    )

    def __init__(self) -> None:
        super().__init__()
        self._access: Mapping[str, object] | None = None
        self.longOpt = [each for each in self.longOpt if each.rstrip("=") in _OURS]
        self.docs = {name: text for name, text in self.docs.items() if name in _OURS}
        self.docs["service"] = "The service's name, which needs no option."

    def configFile(self, told: Any) -> str:
        return ""

    def check(self) -> None:
        services = self.told.get("service", [])
        if len(services) > 1:
            raise badOption(f"{printable(services[1], 60)!r} is one word too many")
        if services and "://" in services[0]:
            raise badOption("a service has a name; give the URI to --access")
        uri = self["access"]
        if not (uri or services):
            uri = os.environ.get(ACCESS_VARIABLE, "")
        if uri:
            self._takeAccess(uri)
        # The dialects look here to see who visits.
        self._listens = ["stdio:"]
        super().check()

    def _takeAccess(self, uri: str) -> None:
        if self["service"] or self["server"]:
            raise badOption("--access names a service: leave out its name and --server")
        place = parseAccessURI(ourReactor(), uri, Trust())
        self._access = place.access
        self["access"] = uri
        self["connect"] = self["connect"] or place.where

    def _makeServer(self, reactor: Any) -> None:
        super()._makeServer(reactor)
        if self._access is not None:
            self.server = replace(self.server, access=self._access)

    @property
    def knowsService(self) -> bool:
        return super().knowsService or self._access is not None

    def makeLocalEndpoint(self, reactor: Any) -> Any:
        return None


def makeService(options: Options) -> Service:
    """Make the service that connects."""
    reactor = ourReactor()
    useMonotonicTime(reactor)
    hideExposed(options.exposed)

    def over(reason: TunnelError | None, unread: bool) -> None:
        exitWith(0 if reason is None else 1)
        err = outputOf(sys.__stderr__)
        if reason is not None and not unread and err is not None:
            err.write(f"tristunnel: {printable(reason.message, LONGEST)}\n")
        reactor.callWhenRunning(reactor.stop)

    visit = StandardVisit(reactor, over)
    visit.lead(partial(options.dialect.makeRoute, reactor, options))
    reactor.addSystemEventTrigger(
        "before", "shutdown", hurryOnSecondSignal, reactor, visit.stopNow
    )
    return Log(options, warnings=True).around(visit)
