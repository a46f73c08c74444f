"""
Datagrams: their sockets, and what the ends of flows have in common.

A I{flow} is a visitor's exchange of datagrams. It is to datagrams what a stream is to
bytes.
"""

from __future__ import annotations

import errno
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from tristunnel.errors import TunnelError
    from tristunnel.interfaces import Closed, DatagramEnd

__all__ = [
    "BURST",
    "EARLY_BYTES",
    "EARLY_DATAGRAMS",
    "DatagramSocket",
    "FlowEnd",
    "boundSocket",
    "replyFrom",
]

BURST = 64
"""Datagrams that are read in one go before other sockets get their turn. Twisted's own
port counts bytes instead, so a flood of small datagrams would hold everything up."""

EARLY_DATAGRAMS = 16
"""Datagrams held for an end that is not joined yet."""

EARLY_BYTES = 128 * 1024
"""Bytes of such datagrams."""

BUFFER = 4 * 1024 * 1024
"""Bytes of waiting datagrams that the kernel is asked to hold; it may grant less."""

_READ = 65536
"""More bytes than any datagram has, so that none is truncated."""

_AGAIN = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR}
_ANCILLARY = socket.CMSG_SPACE(20)


def replyFrom(local: Any) -> Any:
    """
    Find the address that answers to a datagram must come from: the one that it was sent
    to, but by whichever interface leads to the visitor.

    @param local: Where the datagram was sent to, as L{DatagramSocket} tells it.
    """
    if not local:
        return None
    level, kind, data = local[0]
    if data[:2] == b"\xfe\x80":
        return local
    return [(level, kind, data[:16] + bytes(len(data) - 16))]


class FlowEnd(ABC):
    """
    What the ends of flows have in common; see
    L{DatagramEnd<tristunnel.interfaces.DatagramEnd>}. The I{remote} of an end is what
    it stands for: a socket, a sender, a session's stream.

    @ivar received: Bytes of datagrams that came from the remote.
    @ivar dropped: Datagrams that this end neither sent nor passed on.
    """

    __slots__ = (
        "_closed",
        "_early",
        "_earlyBytes",
        "_over",
        "_peer",
        "dropped",
        "received",
    )

    def __init__(self) -> None:
        self.received = 0
        self.dropped = 0
        self._peer: DatagramEnd | None = None
        self._closed: Closed | None = None
        self._early: list[bytes] = []
        self._earlyBytes = 0
        self._over = False

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over

    def join(self, peer: DatagramEnd, closed: Closed) -> None:
        """Begin to pass datagrams to C{peer}."""
        if self._over:
            peer.finish()
            closed(None)
            return
        self._peer, self._closed = peer, closed
        early, self._early = self._early, []
        for datagram in early:
            peer.send(datagram)

    def passTo(self, peer: DatagramEnd) -> tuple[DatagramEnd | None, bool]:
        """
        Pass datagrams to what stands for the peer from now on.

        @return: The peer until now; and that nothing pauses this end.
        """
        before = self._peer
        if before is not None:
            self._peer = peer
        return before, False

    def whileWaiting(self, left: Closed) -> None:
        """Have C{left} called if this end is over before it is joined."""
        if self._peer is None:
            self._closed = left

    def passOn(self, datagram: bytes) -> None:
        """Pass on a datagram that came from the remote."""
        size = len(datagram)
        self.received += size
        if self._peer is not None:
            self._peer.send(datagram)
        elif (
            self._over
            or len(self._early) >= EARLY_DATAGRAMS
            or self._earlyBytes + size > EARLY_BYTES
        ):
            self.dropped += 1
        else:
            self._early.append(datagram)
            self._earlyBytes += size

    @abstractmethod
    def send(self, datagram: bytes) -> None:
        """Send a datagram to the remote, or drop it."""

    def finish(self) -> None:
        """End in order."""
        self._end(None)

    def reset(self, reason: TunnelError) -> None:
        """End because of C{reason}."""
        self._end(reason)

    def remoteOver(self, reason: TunnelError | None) -> None:
        """End the flow, because its remote is gone."""
        peer = self._peer
        if self._end(reason) and peer is not None:
            if reason is None:
                peer.finish()
            else:
                peer.reset(reason)

    def _end(self, reason: TunnelError | None) -> bool:
        """
        Release everything, once.

        @return: Whether this was the first call.
        """
        if self._over:
            return False
        self._over = True
        self._peer = None
        self._early = []
        self.flowOver(reason)
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(reason)
        return True

    @abstractmethod
    def flowOver(self, reason: TunnelError | None) -> None:
        """Called once, when the flow is over."""


def boundSocket(interface: str, port: int) -> socket.socket:
    """
    Make a socket for the datagrams that come to a port.

    @param interface: An IP address; with C{"::"} also for IPv4.
    @raise OSError: If the port is not available.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        interface, port, type=socket.SOCK_DGRAM
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        anywhere = interface == "::"
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not anywhere)
        made.bind(address)
        if anywhere:
            # A machine with several addresses must answer from the one that a datagram
            # was sent to: nobody accepts an answer from another.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    except OSError:
        made.close()
        raise
    return made


@implementer(IReadDescriptor)
class DatagramSocket:
    """
    A UDP socket in the reactor.

    C{reactor.listenUDP} will not do: its port writes two log lines for each socket
    (and there is one for each flow), parses the address for each datagram, loses the
    scope of an address, and does not tell which of this machine's addresses a datagram
    was sent to.

    @param reactor: Has an C{addReader}.
    @param skt: The socket, bound or connected.
    @param arrived: Called with each datagram, its sender's address, and the local
        address that it was sent to, both in the form that L{send} takes.
    @param failed: Called with the errors that the kernel reports, for example that
        nobody listens on the other side. It reports them to connected sockets only.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        skt: socket.socket,
        arrived: Callable[[bytes, Any, Any], None],
        failed: Callable[[OSError], None] = lambda error: None,
    ) -> None:
        self._reactor = reactor
        self._socket: socket.socket | None = skt
        self._arrived = arrived
        self._failed = failed
        self._tellsLocal = False
        skt.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with suppress(OSError):
                skt.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        reactor.addReader(self)

    @classmethod
    def listen(
        cls,
        reactor: Any,
        interface: str,
        port: int,
        arrived: Callable[[bytes, Any, Any], None],
        bind: Callable[[str, int], socket.socket] | None = None,
    ) -> DatagramSocket:
        """
        Listen on a port.

        @param interface: An IP address; with C{"::"} also for IPv4.
        @param bind: Makes the socket; another one than L{boundSocket} if there is a
            socket already.
        @raise OSError: If the port is not available.
        """
        self = cls(reactor, (bind or boundSocket)(interface, port), arrived)
        self._tellsLocal = interface == "::"
        return self

    @classmethod
    def connect(
        cls,
        reactor: Any,
        family: int,
        address: Any,
        arrived: Callable[[bytes, Any, Any], None],
        failed: Callable[[OSError], None],
    ) -> DatagramSocket:
        """
        Make a socket that is connected to one address.

        @raise OSError: If the address cannot be reached, or no descriptor is left.
        """
        skt = socket.socket(family, socket.SOCK_DGRAM)
        try:
            skt.connect(address)
            if skt.getsockname() == skt.getpeername():
                # Nobody is there: the kernel gave us the very port that we wanted to
                # reach, so we would talk to ourselves.
                raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        except OSError:
            skt.close()
            raise
        return cls(reactor, skt, arrived, failed)

    @property
    def socket(self) -> socket.socket | None:
        """The socket itself; C{None} when it is closed."""
        return self._socket

    @property
    def address(self) -> Any:
        """The local address."""
        return None if self._socket is None else self._socket.getsockname()

    def send(self, datagram: bytes, address: Any = None, local: Any = None) -> bool:
        """
        Send a datagram at once, or drop it.

        @param address: Where to; C{None} if the socket is connected.
        @param local: The local address to send it from, as C{arrived} was told.
        @return: Whether the kernel has taken it.
        """
        skt = self._socket
        if skt is None:
            return False
        try:
            if address is None:
                skt.send(datagram)
            elif local is None:
                skt.sendto(datagram, address)
            else:
                skt.sendmsg((datagram,), local, 0, address)
        except OSError as error:
            if address is None and error.errno not in _AGAIN:
                self._failed(error)
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        skt, self._socket = self._socket, None
        if skt is not None:
            self._reactor.removeReader(self)
            skt.close()

    # IReadDescriptor

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def doRead(self) -> None:
        for _ in range(BURST):
            skt, local = self._socket, None
            if skt is None:
                return
            try:
                if self._tellsLocal:
                    datagram, local, _, address = skt.recvmsg(_READ, _ANCILLARY)
                else:
                    datagram, address = skt.recvfrom(_READ)
            except OSError as error:
                if error.errno not in _AGAIN:
                    self._failed(error)
                return
            try:
                self._arrived(datagram, address, local)
            except Exception:
                self._log.failure("A datagram was not passed on")

    def connectionLost(self, reason: Failure) -> None:
        """
        Keep the socket in the reactor. A polling reactor takes the kernel's report on a
        single datagram for the end of the socket.
        """
        skt = self._socket
        if skt is None:
            return
        self._reactor.addReader(self)
        number = skt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._failed(OSError(number, os.strerror(number)))

    def logPrefix(self) -> str:
        return "UDP"
