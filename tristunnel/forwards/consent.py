"""
What a client lets its server ask for: C{--managed HOST:PORTS}.

The server names targets; the client judges them by what its own user has said, and by
nothing else. A target is a host and a port in the plainest form: no other kind of
endpoint, no way of writing an address that only C{getaddrinfo} understands. A name is
permitted only if that very name was listed, and an address only if it, or its network,
was. Ports at which the client itself listens are never dialled, whatever name leads
there.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory

from tristunnel.dataplane.dial import ServiceEndpoint
from tristunnel.dataplane.lookups import known
from tristunnel.errors import TunnelError, printable
from tristunnel.forwards.destinations import isOwn, parseDestination, plainHost
from tristunnel.forwards.forward import Forward, placeWanted
from tristunnel.forwards.health import planOf
from tristunnel.forwards.options import ForwardOptions, splitOptions
from tristunnel.forwards.udp import UDPService
from tristunnel.model.names import HOSTS
from tristunnel.util.hosts import addressOf, parsePlace

__all__ = ["MOST", "Consent"]

MOST = 100
"""Forwards that a server may ask one client for."""

PREFIX = "managed/"
"""The beginning of such forwards' texts."""

_OPTIONS = frozenset(("host", "request", "response", "raw", "share", "health"))


class ManagedEndpoint(ServiceEndpoint):
    """A service that the server has asked for, at none of our own ports."""

    def connectNow(self) -> socket.socket | None:
        addresses = [self._host] if self._isAddress else known(self._host)
        if any(isOwn(address, self._port) for address in addresses):
            return None
        return super().connectNow()

    def dial(self, address: str, factory: IProtocolFactory) -> Deferred[IProtocol]:
        if isOwn(address, self._port):
            return fail(ConnectionRefusedError("that is the client's own port"))
        return super().dial(address, factory)


class Consent:
    """
    What a client's user has agreed to.

    @param patterns: As C{--managed} takes them.
    @raise TunnelError: C{bad-option}, if one cannot be understood.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns: Sequence[str] = tuple(patterns)
        self._patterns = [parseDestination(each, "--managed") for each in self.patterns]

    def target(self, text: str, isUDP: bool) -> tuple[str, int]:
        """
        Judge a target.

        @param text: C{HOST:PORT}.
        @return: The host and the port.
        @raise TunnelError: C{not-permitted}.
        """
        try:
            host, port = parsePlace(text)
        except ValueError:
            raise _refused(text, "it is not HOST:PORT") from None
        host = plainHost(host)
        for each in self._patterns:
            if each.isUDP == isUDP and each.covers(host, port):
                break
        else:
            raise _refused(text, "this client's --managed does not cover it")
        if not isUDP and addressOf(host) is not None and isOwn(host, port):
            raise _refused(text, "that is the client's own port")
        return host, port

    def forward(self, reactor: Any, asked: object) -> Forward:
        """
        Make the forward that a server asks for.

        @param asked: An object with C{id}, C{to}, C{port}, C{name} and C{udp}.
        @raise TunnelError: C{not-permitted}.
        """
        said = asked if isinstance(asked, dict) else {}
        identifier, to = said.get("id"), said.get("to")
        port, name, udp = said.get("port", 0), said.get("name", ""), said.get("udp")
        if not (isinstance(identifier, str) and isinstance(to, str)):
            raise _refused(to, "it has no id or no target")
        if not re.fullmatch("[0-9a-z]{1,32}", identifier):
            raise _refused(to, "its id is wrong")
        if type(port) is not int or not 0 <= port < 65536:
            raise _refused(to, "its port is wrong")
        if not isinstance(name, str):
            raise _refused(to, "its name is wrong")
        target, options = _parted(to)
        kind, place, name, path = _place(to, name)
        if kind and (udp or port):
            raise _refused(to, "its name takes the place of a port")
        host, number = self.target(target, bool(udp))
        endpoint: Any = (
            UDPService(reactor, host, number)
            if udp
            else ManagedEndpoint(reactor, host, number)
        )
        shown = printable(target)
        return Forward(
            f"{PREFIX}{identifier}={printable(to)}",
            place or port,
            name,
            f"udp:{shown}" if udp else shown,
            endpoint,
            listener=HOSTS.get(kind, ""),
            path=path,
            options=options,
            health=planOf(options.health),
        )


def _parted(to: str) -> tuple[str, ForwardOptions]:
    """
    Split a target from its options, of which only those are permitted that have nothing
    to do with files of this machine, nor with how the service is dialled.
    """
    try:
        target, options = splitOptions(to)
    except TunnelError as refusal:
        raise _refused(to, refusal.message) from None
    if said := {name for name, value in vars(options).items() if value} - _OPTIONS:
        raise _refused(to, f"{min(said)} is for --forward at the client")
    return target, options


def _place(to: str, name: str) -> tuple[str, int, str, str]:
    """Read a name as in front of a target: C{blog}, C{http/blog/api}."""
    if not name:
        return "", 0, "", ""
    try:
        place, rest = placeWanted(name, f"{name}=x")
    except TunnelError:
        rest = ""
    if rest != "x" or place[1] or place[0] == "udp":
        raise _refused(to, "its name is wrong")
    return place


def _refused(target: object, why: str) -> TunnelError:
    shown = printable(str(target), 100)
    return TunnelError("not-permitted", f"{shown} is not opened: {why}")
