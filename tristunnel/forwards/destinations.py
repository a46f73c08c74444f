"""
Where somebody else may have this process connect: C{HOST:PORTS}.

A name is permitted only if that very name was listed, and an address only if it, or its
network, was. What counts is the address that is dialled, whatever name has led to it:
the answer of a name server, which others may control, permits nothing. Ports at which
the process itself listens are never dialled.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IListeningPort, IProtocol, IProtocolFactory

from tristunnel.dataplane.dial import TIMEOUT, HostEndpoint
from tristunnel.dataplane.lookups import isAddress, lookUp
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.model.ports import PortRange, parsePorts
from tristunnel.util.hosts import addressOf, hostAndPort, hostName

__all__ = [
    "OWN_PORTS",
    "UNIX",
    "Destination",
    "Destinations",
    "PermittedEndpoint",
    "isOurs",
    "isOwn",
    "parseDestination",
    "plainHost",
]

UNIX = "unix:"
"""What is in front of a UNIX socket's path."""

OWN_PORTS: set[int] = set()
"""TCP ports at which this process listens: nobody is led there."""

MOST = 1000
"""Destinations that one list may have."""


def isOurs(listening: IListeningPort, yes: bool = True) -> None:
    """
    Note that a port is this process's own, or is so no longer.
    """
    number = getattr(listening.getHost(), "port", None)
    if number is not None:
        (OWN_PORTS.add if yes else OWN_PORTS.discard)(number)


def isOwn(address: str, port: int) -> bool:
    """
    Whether a port is this process's own.

    @param address: An IP address.
    """
    if port not in OWN_PORTS:
        return False
    parsed = addressOf(address)
    if parsed is None or parsed.is_loopback or parsed.is_unspecified:
        return True
    family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            # Only addresses of this machine can be bound.
            probe.bind((str(parsed), 0))
        except OSError:
            return False
    return True


_LOCALHOST = {"127.0.0.1", "::1"}


@dataclass(frozen=True)
class Destination:
    """
    A host or a network, and ports of it.

    @ivar isUDP: Whether it is about UDP services.
    @ivar host: A name or an address; empty for a network.
    @ivar network: A network, or C{None}.
    @ivar ports: Which ports, or C{None} for all.
    """

    isUDP: bool
    host: str
    network: IPv4Network | IPv6Network | None
    ports: PortRange | None

    @property
    def isName(self) -> bool:
        """Whether it is a name, whose addresses are only known later."""
        return bool(self.host) and addressOf(self.host) is None

    def covers(self, host: str, port: int) -> bool:
        """
        Whether that is one of its hosts, and one of its ports.

        @param host: A name or an address, as L{plainHost} writes it.
        """
        if self.ports is not None and port not in self.ports:
            return False
        if self.network is None:
            return host == self.host or (
                self.host == "localhost" and host in _LOCALHOST
            )
        address = addressOf(host)
        return (
            address is not None
            and address.version == self.network.version
            and address in self.network
        )


_FORM = re.compile(r"(udp/)?(\[[^\]]+\](?:/[0-9]+)?|[^\[\]:]+)(?::([0-9,*-]+))?")


def parseDestination(
    text: str,
    option: str,
    needsPorts: bool = True,
    colon: str = ":",
    sockets: bool = False,
) -> Destination:
    """
    Read C{HOST:PORTS}, C{NETWORK:PORTS}, or either behind C{udp/}.

    @param option: What it was given to, for messages.
    @param needsPorts: Whether the ports must be said; all, if they are not.
    @param colon: What is before the ports.
    @param sockets: Whether C{unix:PATH} is one, too.
    @raise TunnelError: C{bad-option}.
    """
    if sockets and text.startswith(f"{UNIX}/"):
        return Destination(False, text, None, None)
    mark = "" if colon == ":" else colon
    found = _FORM.fullmatch(
        text.strip().replace(mark, ":", 1) if mark else text.strip()
    )
    try:
        if found is None or (needsPorts and found[3] is None):
            raise ValueError("the form is HOST:PORTS")
        udp, host, ports = found.groups()
        wanted = None if ports in ("*", None) else parsePorts(ports)
        bare = host.replace("[", "").replace("]", "")
        if "/" in bare:
            return Destination(bool(udp), "", ip_network(bare, strict=False), wanted)
        return Destination(bool(udp), plainHost(hostName(host)), None, wanted)
    except (ValueError, TunnelError) as problem:
        examples = ("localhost:*", "192.168.1.0/24:22", "udp/localhost:53")
        if mark:
            examples = ("10.0.0.0/8", "[fd00::]/8", "intra.example+443")
        raise badOption(
            f"{option} {text!r} is not understood ({problem}); write for example"
            f" {', '.join(examples[:2])} or {examples[2]}"
        ) from None


def plainHost(host: str) -> str:
    """One way of writing each host: addresses without zones, names without dots."""
    address = addressOf(host)
    return str(address) if address is not None else host.removesuffix(".")


def _isSpecial(address: str) -> bool:
    """
    Whether an address belongs to this machine or its link. A name that somebody else
    can define must not lead there, where metadata services are.
    """
    parsed = addressOf(address)
    return parsed is None or (
        parsed.is_loopback
        or parsed.is_link_local
        or parsed.is_unspecified
        or parsed.is_multicast
        or str(parsed) == "255.255.255.255"
    )


class Destinations:
    """
    A list of what somebody may reach; if it is empty, that is nothing.

    @param listed: What it is made of.
    @param option: The option that would permit more, for messages.
    @param separatesUDP: Whether TCP and UDP services are listed each by themselves.
    """

    def __init__(
        self, listed: Iterable[Destination], option: str, separatesUDP: bool = False
    ) -> None:
        self._listed: Sequence[Destination] = tuple(listed)
        self._option = option
        self._separates = separatesUDP
        if len(self._listed) > MOST:
            raise badOption(f"{option}: {MOST} destinations are enough")

    def __bool__(self) -> bool:
        return bool(self._listed)

    def _about(self, isUDP: bool) -> list[Destination]:
        return [
            each for each in self._listed if each.isUDP == isUDP or not self._separates
        ]

    def lists(self, host: str, port: int, isUDP: bool = False) -> bool:
        """
        Whether the request itself is enough to permit dialling a port: it has an
        address that is covered, or a name that is listed.
        """
        plain = plainHost(host)
        return any(each.covers(plain, port) for each in self._about(isUDP))

    def checkAsked(self, host: str, port: int, isUDP: bool = False) -> None:
        """
        Judge what somebody asks for, before anything is looked up.

        @param host: A name or an address.
        @raise TunnelError: C{not-permitted}.
        """
        plain = plainHost(host)
        isName = addressOf(plain) is None
        for each in self._about(isUDP):
            network = each.network
            sample = each.host if network is None else str(network.network_address)
            # A name leads to an address, which is judged when it is known.
            if each.covers(plain, port) or (
                isName and not each.isName and each.covers(sample, port)
            ):
                return
        raise self._refusal(host, port)

    def checkAddress(
        self, host: str, address: str, port: int, isUDP: bool = False
    ) -> None:
        """
        Judge an address that is about to be dialled.

        @param host: What was asked for: a name, or the address.
        @raise TunnelError: C{not-permitted}.
        """
        plain = plainHost(address)
        asked = plainHost(host)
        listed = self._about(isUDP)
        covered = any(
            each.covers(plain, port)
            and not (each.isName and asked not in (each.host, plain))
            for each in listed
        ) or (
            not _isSpecial(plain)
            and any(each.isName and each.covers(asked, port) for each in listed)
        )
        if not covered or (not isUDP and isOwn(plain, port)):
            raise self._refusal(host, port, plain)

    def _refusal(self, host: str, port: int, address: str = "") -> TunnelError:
        where = printable(hostAndPort(host, port), 100)
        leads = f", which is {address}," if address not in ("", plainHost(host)) else ""
        return TunnelError(
            "not-permitted", f"{where}{leads} is not among what {self._option} allows"
        )

    def checkPath(self, target: str) -> None:
        """
        Judge a UNIX socket.

        @param target: C{unix:PATH}, which must be listed in the same form.
        @raise TunnelError: C{not-permitted}.
        """
        if all(each.host != target for each in self._listed):
            shown = printable(target, 100)
            raise TunnelError(
                "not-permitted", f"{shown} is not among what {self._option} allows"
            )

    async def find(
        self, reactor: Any, host: str, port: int, isUDP: bool = False
    ) -> list[str]:
        """
        Find the addresses of a host that may be dialled.

        @return: At least one.
        @raise TunnelError: C{not-permitted}, if there is none.
        @raise DNSLookupError: If the name does not exist.
        """
        self.checkAsked(host, port, isUDP)
        addresses = (
            [host] if isAddress(host) else (await lookUp(reactor, host)).addresses
        )
        good: list[str] = []
        refusal: TunnelError | None = None
        for address in addresses:
            try:
                self.checkAddress(host, address, port, isUDP)
            except TunnelError as error:
                refusal = error
            else:
                good.append(address)
        if not good:
            raise refusal or self._refusal(host, port)
        return good


class PermittedEndpoint(HostEndpoint):
    """
    A TCP port of a host that somebody else has asked for. Each address that its name
    leads to is judged right when it is dialled, so that nothing can change in between.

    @raise TunnelError: C{not-permitted}.
    @raise ValueError: If that is not a host, with the reason.
    """

    def __init__(
        self, reactor: Any, host: str, port: int, destinations: Destinations
    ) -> None:
        super().__init__(reactor, host, port, TIMEOUT)
        self._destinations = destinations
        destinations.checkAsked(self._host, port)

    def dial(self, address: str, factory: IProtocolFactory) -> Deferred[IProtocol]:
        try:
            self._destinations.checkAddress(self._host, address, self._port)
        except TunnelError as refusal:
            return fail(refusal)
        return super().dial(address, factory)
