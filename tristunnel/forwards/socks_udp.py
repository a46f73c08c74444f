"""
SOCKS 5's datagrams (RFC 1928, section 7), which come to a UDP port beside a C{socks}
forward, from visitors who have a connection there.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.logger import Logger

from tristunnel.dataplane.datagrams import DatagramSocket, FlowEnd
from tristunnel.errors import TunnelError
from tristunnel.forwards.destinations import Destinations
from tristunnel.forwards.udp import FLOWS, UDPService
from tristunnel.util.hosts import addressOf
from tristunnel.wire.socks import decodeDatagram, encodeDatagram

__all__ = ["Associations", "SocksRelay"]

MOST_PEERS = 1024
"""Other sides that one flow may talk to."""

MOST_WAITING = 16
"""Datagrams of a flow that may wait for a name."""

_ANYWHERE = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


def _hostOf(visitor: object) -> str:
    """Find the address in a server's name for a visitor; empty if there is none."""
    text = visitor if isinstance(visitor, str) else ""
    address = addressOf(text.rpartition(":")[0].strip("[]"))
    return "" if address is None else str(address)


class Associations:
    """
    Who may send datagrams: the addresses of those who have asked for it on a
    connection, for as long as that is there. A datagram of SOCKS can be recognized by
    nothing else.

    @ivar host: The address of the UDP port, if it is known: without it, SOCKS's clients
        use that of the connection.
    @ivar port: The UDP port beside; 0 if there is none.
    """

    def __init__(self) -> None:
        self.host, self.port = "0.0.0.0", 0
        self._here: Counter[str] = Counter()
        self._flows: dict[str, set[RelayFlow]] = {}

    def opened(self, address: str) -> None:
        """
        Note where the UDP port is.

        @param address: The tunnel's, C{udp://HOST:PORT}.
        """
        host, _, port = address.rpartition("://")[2].rpartition(":")
        if port.isdecimal():
            self.port = int(port)
            known = addressOf(host.strip("[]"))
            usable = known is not None and not (
                known.is_unspecified or known.is_loopback
            )
            self.host = str(known) if usable else "0.0.0.0"

    def enter(self, visitor: str) -> None:
        """Enter a visitor who has asked."""
        self._here[_hostOf(visitor)] += 1

    def leave(self, visitor: str) -> None:
        """
        Remove a visitor whose connection is over; with the last one of an address, its
        flows end.
        """
        host = _hostOf(visitor)
        self._here[host] -= 1
        if self._here[host] <= 0:
            del self._here[host]
            for flow in list(self._flows.get(host, ())):
                flow.remoteOver(None)

    def begin(self, flow: RelayFlow, host: str) -> None:
        """
        Count a flow.

        @raise TunnelError: C{not-permitted}, if nobody has asked from there.
        """
        if not host or not self._here[host]:
            raise TunnelError(
                "not-permitted", "its sender has no SOCKS connection for datagrams"
            )
        self._flows.setdefault(host, set()).add(flow)

    def end(self, flow: RelayFlow, host: str) -> None:
        """Forget a flow."""
        flows = self._flows.get(host, set())
        flows.discard(flow)
        if not flows:
            self._flows.pop(host, None)


class SocksRelay(UDPService):
    """
    Sends datagrams to wherever each of them says.

    @param reactor: Has the sockets.
    @param associations: Who may send.
    @param destinations: Where to.
    """

    def __init__(
        self, reactor: Any, associations: Associations, destinations: Destinations
    ) -> None:
        super().__init__(reactor, "localhost", 0)
        self._associations = associations
        self._destinations = destinations

    def tunnelOpened(self, address: str) -> None:
        """Note the address of the tunnel."""
        self._associations.opened(address)

    async def beginFlow(
        self, target: str, info: Mapping[str, object]
    ) -> Callable[[], FlowEnd]:
        host = _hostOf(info.get("visitor"))
        return lambda: RelayFlow(
            self.reactor, self._associations, self._destinations, host
        )


class RelayFlow(FlowEnd):
    """
    The L{DatagramEnd<tristunnel.interfaces.DatagramEnd>} of one visitor's port: a
    socket for each kind of address, unconnected, which receives only from those to whom
    the visitor has sent something.

    @param host: The visitor's address.

    @ivar talking: As for L{ServiceFlow<tristunnel.forwards.udp.ServiceFlow>}.
    @ivar answered: Whether anybody has answered.
    """

    __slots__ = (
        "_associations",
        "_destinations",
        "_host",
        "_peers",
        "_reactor",
        "_sockets",
        "_waiting",
        "answered",
        "talking",
    )

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        associations: Associations,
        destinations: Destinations,
        host: str,
    ) -> None:
        super().__init__()
        self.talking = self.answered = False
        self._reactor = reactor
        self._associations = associations
        self._destinations = destinations
        self._host = host
        # Those to whom it has sent something, the oldest first.
        self._peers: dict[tuple[str, int], None] = {}
        self._sockets: dict[int, DatagramSocket] = {}
        self._waiting = 0
        associations.begin(self, host)
        try:
            FLOWS.enter(self)
        except TunnelError:
            associations.end(self, host)
            raise

    def send(self, datagram: bytes) -> None:
        FLOWS.used(self, self.answered)
        try:
            host, port, payload = decodeDatagram(datagram)
            if addressOf(host) is not None:
                self._destinations.checkAddress(host, host, port, True)
                self._sendTo(host, port, payload)
                return
        except TunnelError:
            self.dropped += 1
            return
        if self._waiting >= MOST_WAITING:
            self.dropped += 1
            return
        self._waiting += 1
        looking = Deferred.fromCoroutine(self._find(host, port, payload))
        looking.addErrback(
            lambda failure: self._log.failure("A datagram was not sent", failure)
        )

    async def _find(self, host: str, port: int, payload: bytes) -> None:
        try:
            found = await self._destinations.find(self._reactor, host, port, True)
        except (TunnelError, DNSLookupError):
            self.dropped += 1
        else:
            if not self._over:
                self._sendTo(found[0], port, payload)
        finally:
            self._waiting -= 1

    def _sendTo(self, address: str, port: int, payload: bytes) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        place = (address, port)
        try:
            if place not in self._peers and len(self._peers) >= MOST_PEERS:
                del self._peers[next(iter(self._peers))]
            self._peers[place] = None
            if not self._socketFor(family).send(payload, place):
                self.dropped += 1
        except OSError:
            self.dropped += 1

    def _socketFor(self, family: int) -> DatagramSocket:
        if family not in self._sockets:
            made = socket.socket(family, socket.SOCK_DGRAM)
            try:
                made.bind((_ANYWHERE[socket.AddressFamily(family)], 0))
            except OSError:
                made.close()
                raise
            self._sockets[family] = DatagramSocket(self._reactor, made, self._arrived)
        return self._sockets[family]

    def _arrived(self, datagram: bytes, address: Any, local: Any) -> None:
        place = (address[0], address[1])
        if place in self._peers:
            self.answered = True
            FLOWS.used(self)
            self.passOn(encodeDatagram(address[0], address[1], datagram))

    def flowOver(self, reason: TunnelError | None) -> None:
        FLOWS.leave(self)
        self._associations.end(self, self._host)
        self._peers.clear()
        sockets, self._sockets = self._sockets, {}
        for each in sockets.values():
            with suppress(OSError):
                each.close()
