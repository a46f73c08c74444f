"""
Connections that come to one member and belong to another.

A plain socket is passed on itself, with the bytes that were read from it. A connection
whose TLS has begun cannot be: the member that accepted it keeps it, joins it to one of
a pair of sockets, and passes on the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from socket import socket
from typing import Any

from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate, load_certificate
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, INegotiated, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import alsoProvides

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.join import join
from tristunnel.dataplane.poller import Poller
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.errors import TunnelError
from tristunnel.processes.link import Asker
from tristunnel.processes.membership import Membership
from tristunnel.processes.passage import endOf, passage
from tristunnel.util.members import memberIn

__all__ = ["PassedTransport", "Passing", "socketBelow"]

_ADDRESSES: dict[str, Callable[..., IAddress]] = {
    "4": lambda host, port: IPv4Address("TCP", host, port),
    "6": lambda host, port: IPv6Address("TCP", host, port),
    "unix": lambda name: UNIXAddress(name.encode() or None),
}


def _written(address: Any) -> list[object]:
    """Write an address as JSON can have it."""
    if isinstance(address, IPv4Address):
        return ["4", address.host, address.port]
    if isinstance(address, IPv6Address):
        return ["6", address.host, address.port]
    name = getattr(address, "name", None) or b""
    return ["unix", name.decode("utf-8", "replace")]


def _read(address: list[Any]) -> IAddress:
    return _ADDRESSES[address[0]](*address[1:])


def socketBelow(transport: Any) -> SocketTransport | None:
    """
    Find the socket of ours beneath a transport, or C{None}.

    @param transport: Perhaps with a balancer's PROXY protocol in between.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport if isinstance(transport, SocketTransport) else None


class PassedTransport(SocketTransport):
    """
    A connection that another member has accepted.

    @param peer: Where it comes from.
    @param host: Where it was accepted.
    @param secure: Whether that member has TLS before it.
    @param certificate: What the peer has shown there, as DER, or empty.
    """

    takesTLS = False

    def __init__(
        self,
        poller: Poller,
        connection: socket,
        protocol: Any,
        peer: IAddress,
        host: IAddress,
        secure: bool,
        certificate: bytes,
    ) -> None:
        super().__init__(poller, connection, protocol, None, peer)
        self._host = host
        self._certificate = certificate
        if secure:
            alsoProvides(self, ISSLTransport, INegotiated)

    def getPeerCertificate(self) -> X509 | None:
        if not self._certificate:
            return None
        return load_certificate(FILETYPE_ASN1, self._certificate)


class Passing:
    """
    Passes connections to other members, and takes theirs.

    @param poller: Where sockets wait.
    @param membership: The other members.
    @param factory: Makes the protocol for a connection of theirs.
    @param passed: Counts those that were passed, by what they are.

    @ivar takers: What else makes protocols, by what all members call it.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self, poller: Poller, membership: Membership, factory: Any, passed: Counter[str]
    ) -> None:
        self._passed = passed
        self._poller = poller
        self._membership = membership
        self._factory = factory
        self.takers: dict[str, Any] = {}
        membership.answers["pass"] = self._take

    def mayPass(self, transport: Any) -> bool:
        """
        Whether a connection may be passed on. One that came from another member may
        not, so that none goes in circles.
        """
        below = socketBelow(transport)
        return below is not None and not isinstance(below, PassedTransport)

    def ownerOf(self, ticket: object) -> int | None:
        """Which other member has granted a ticket, or C{None}."""
        if not isinstance(ticket, str):
            return None
        owner = memberIn(ticket, self._membership.count)
        return None if owner == self._membership.index else owner

    def passOn(
        self, taker: str, transport: Any, member: int, began: bytes = b""
    ) -> bool:
        """
        Pass on a connection without TLS, if possible.

        @param taker: Which of L{takers} serves it there.
        @param began: The bytes that were read from it.
        @return: Whether it was passed on; not to a process that is about to end, which
            might not come to serve it.
        """
        link = self._membership.siblings.get(member)
        if (
            link is None
            or link.isLeaving
            or not isinstance(transport, SocketTransport)
            or not self.mayPass(transport)
            or ISSLTransport.providedBy(transport)
        ):
            return False
        transport.peek(0)
        try:
            self.give("name", transport, began, member, taker)
        except TunnelError as refusal:
            self._log.warn("A connection was lost: {refusal}", refusal=refusal)
        return True

    def give(
        self, kind: str, transport: Any, began: bytes, member: int, taker: str = ""
    ) -> None:
        """
        Pass on a connection. Its protocol here is told that it has ended.

        @param kind: What it is, as it is counted.
        @param transport: One that L{mayPass}.
        @param began: The bytes that were read from it.
        @param member: Whose it is.
        @param taker: Which of L{takers} serves it there; empty for what clients come
            to.
        @raise TunnelError: If that member is not there, or takes no more.
        """
        below = socketBelow(transport)
        assert below is not None
        link = self._membership.sibling(member)
        secure = ISSLTransport.providedBy(below)
        peer, host = transport.getPeer(), below.getHost()
        certificate = below.getPeerCertificate()
        shown = (
            b"" if certificate is None else dump_certificate(FILETYPE_ASN1, certificate)
        )
        mine = self._ofTLS(below) if secure else below.giveAway()
        head = [_written(peer), _written(host), secure, len(shown), taker]
        try:
            link.tell("pass", head, shown + began, [mine])
        finally:
            below.lost(connectionDone)
        self._passed[kind] += 1

    def _ofTLS(self, transport: SocketTransport) -> socket:
        """
        Keep a connection with TLS, and join it to one of a pair of sockets.

        @return: The other one, to be passed on.
        @raise TunnelError: C{limit-reached}, without descriptors.
        """
        ours, theirs = passage()

        def closed(reason: TunnelError | None) -> None:
            """Either end is over."""

        def arrived(end: SocketEnd) -> None:
            endOf(self._poller, ours, lambda other: join(end, other, closed))

        SocketEnd.of(transport, arrived)
        return theirs

    def _take(
        self, asker: Asker, peer: Any, host: Any, secure: bool, shown: int, taker: str
    ) -> None:
        """Take a connection from another member."""
        message = asker.message
        if not message.sockets:
            # The kernel had no descriptor for it, and has closed it.
            self._log.warn("A connection was lost: there are no descriptors left")
            return
        connection = message.sockets[0]
        try:
            RESERVE.checkSession()
            address = _read(peer)
            factory = self.takers[taker] if taker else self._factory
            protocol = factory.buildProtocol(address)
            transport = PassedTransport(
                self._poller,
                connection,
                protocol,
                address,
                _read(host),
                secure,
                message.data[:shown],
            )
            transport.takesTLS = not secure and len(message.data) == shown
            transport.begin()
        except (TunnelError, OSError) as problem:
            self._log.warn(
                "A connection of another process was closed: {problem}", problem=problem
            )
            connection.close()
            return
        if began := message.data[shown:]:
            protocol.dataReceived(began)
