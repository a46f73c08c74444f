"""What a server says once it listens: its addresses, and how clients come to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from twisted.logger import Logger

from tristunnel.auth.tokens import TokenFile
from tristunnel.cli.name_serving import NameServing
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.table import DIALECTS
from tristunnel.errors import TunnelError
from tristunnel.server.options import ServerOptions
from tristunnel.server.service import TunnelServerService
from tristunnel.server.websocket_pages import warnIfSlow
from tristunnel.service.invitations import ServerPlace, addressFor
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.util.hosts import hostAndPort
from tristunnel.wire.invitation import PLACEHOLDER

__all__ = ["Announcement"]

_log = Logger(namespace="tristunnel.server")


@dataclass(eq=False, repr=False)
class Announcement:
    """
    Tells an operator of a server.

    @ivar options: What the server was told.
    @ivar server: Has the ports, and their numbers once they are open.
    @ivar sessions: Has the host keys.
    @ivar tunnels: Has the invitations.
    @ivar naming: Knows which ports show a better certificate than their own.
    @ivar tokenFiles: Where the tokens of invited clients are kept.
    """

    options: ServerOptions
    server: TunnelServerService
    sessions: ServerSessions
    tunnels: TunnelService
    naming: NameServing
    tokenFiles: Sequence[TokenFile]

    def tell(self) -> None:
        """Say what an operator must know, and invite the first client."""
        options, numbers = self.options, self.server.numbers
        if numbers:
            self._tellOfDialects()
        for port in options.serverPorts:
            known = port.fingerprint and port.description in numbers
            # Clients that connect by name are shown a better certificate, which no pin
            # matches.
            if known and not self.naming.better(port):
                _log.info(
                    "{path} is a self-signed certificate; its SHA-256 fingerprint is"
                    " {fingerprint}",
                    path=port.certificatePath,
                    fingerprint=port.fingerprint,
                )
                where = hostAndPort(options.hostnames[0], numbers[port.description])
                _log.info(
                    "Clients pin it: {client}{where} --pin {fingerprint}",
                    client="tristunnel http 3000 --to "
                    if options.program.startswith("tristunnel")
                    else "twistd -n --pidfile= tunnel-client --connect tls:",
                    where=where,
                    fingerprint=port.fingerprint,
                )
        if url := self.dashboard():
            _log.info("The dashboard is at {url}", url=url)
        warnIfSlow()
        # Last, where people look first.
        if (shared := self.tunnels.invitations.shared) is None:
            self._invite()
        else:
            shared.whenMet().addCallback(lambda met: self._invite())
        asked = options.get("credCheckers") or options["client-ca"]
        if not asked and not options["demo"]:
            _log.warn("ANYBODY MAY CONNECT AND OPEN TUNNELS: no --auth was given")

    def _tellOfDialects(self) -> None:
        """
        Say which dialects are spoken, and what clients of other projects need to know.
        """
        served = self.options.served
        say = _log.debug if len(served) == len(DIALECTS) else _log.info
        say("Clients may speak {names}", names=", ".join(served))
        keys = []
        for name, dialect in served.items():
            try:
                key = dialect.keyShown(self.sessions)
            except TunnelError as problem:
                _log.error("{problem}", problem=problem.message)
            else:
                keys += [f"{key} for {name}"] if key else []
        if keys:
            _log.info("The host key's fingerprint is {keys}", keys=", ".join(keys))

    def dashboard(self) -> str:
        """Where the dashboard is; empty if there is none, or it does not listen yet."""
        options = self.options
        port = options.rpcPort or options.serverPorts[0]
        number = self.server.numbers.get(port.description)
        if options["no-dashboard"] or not number:
            return ""
        if options.rpcPort is None and "/" in options.webSocketPaths:
            return ""
        scheme = "https" if port.secure else "http"
        # Without a login, the page answers only to the host names it was told of.
        asked = options["hostname"] or options.get("credCheckers")
        host = options.hostnames[0] if asked else "localhost"
        return f"{scheme}://{hostAndPort(host, number)}/"

    def placeInvitations(self) -> ServerPlace | None:
        """
        Find out which address invitations name.

        @return: C{None} if nobody can be invited.
        """
        options, numbers = self.options, self.server.numbers
        ports = [port for port in options.serverPorts if numbers.get(port.description)]
        if not ports or not self.tokenFiles:
            return None
        port = next((port for port in ports if port.shown), ports[0])
        number = numbers[port.description]
        place = self.tunnels.invitations.place = ServerPlace(
            options["hostname"] or addressFor(self.server.listening, number),
            number,
            os.path.abspath(port.shown) if port.shown else "",
            self.tokenFiles[0].path,
            self.naming.better(port),
        )
        return place

    def _invite(self) -> None:
        """Say which address invitations name, and invite the first client."""
        options, place = self.options, self.placeInvitations()
        if place is None:
            return
        try:
            # A server that was told the place of each file makes no directory.
            if place.certificate or options.stateDirectory.exists():
                place.write(options.stateDirectory)
            if options.invites is not None and (
                made := self.tunnels.invitations.first()
            ):
                options.invites(made)
                if not place.host:
                    _log.warn(
                        "This machine has no public address: put the"
                        " server's name or address in place of {placeholder} in the"
                        " invitation, or give --hostname",
                        placeholder=PLACEHOLDER,
                    )
        except TunnelError as problem:
            say = _log.info if options.invites is None else _log.error
            say("No invitations: {problem}", problem=problem)
