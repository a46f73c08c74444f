"""
What a connection tells of itself in Twisted's words: the methods of C{ITransport},
C{ITCPTransport}, C{ISSLTransport} and C{INegotiated} that move no bytes.
"""

from __future__ import annotations

from contextlib import suppress
from socket import IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_NODELAY
from typing import Any

from OpenSSL.crypto import X509
from twisted.internet.interfaces import IAddress

from tristunnel.dataplane.addresses import hostOf, noAddress, peerOf
from tristunnel.dataplane.leaving import LeavableSocket

__all__ = ["DescribedSocket"]


class DescribedSocket(LeavableSocket):
    """
    A connection that tells its addresses, its options, and what TLS has agreed on. The
    addresses can be had even when it is gone, if somebody has asked for them before.
    """

    _peer: IAddress | None = None
    _host: IAddress | None = None

    def getPeer(self) -> Any:
        """The other side's address."""
        if self._peer is None:
            self._peer = peerOf(self.connection) or noAddress(self.connection)
        return self._peer

    def getHost(self) -> Any:
        """This side's address."""
        if self._host is None:
            self._host = hostOf(self.connection) or noAddress(self.connection)
        return self._host

    def getTcpNoDelay(self) -> bool:
        """Whether small pieces are sent at once."""
        return self._option(IPPROTO_TCP, TCP_NODELAY)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Send small pieces at once, or not."""
        self._setOption(IPPROTO_TCP, TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        """Whether the kernel probes a silent peer."""
        return self._option(SOL_SOCKET, SO_KEEPALIVE)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Have the kernel probe a silent peer, or not."""
        self._setOption(SOL_SOCKET, SO_KEEPALIVE, enabled)

    def _option(self, level: int, name: int) -> bool:
        """Read a socket option."""
        return bool(self.connection.getsockopt(level, name))

    def _setOption(self, level: int, name: int, value: bool) -> None:
        """Set a socket option if the socket has it; UNIX sockets do not."""
        with suppress(OSError):
            self.connection.setsockopt(level, name, value)

    def getHandle(self) -> Any:
        """
        What is below, as in Twisted: the socket, or TLS on it.
        """
        return self._tls or self.connection

    def getPeerCertificate(self) -> X509 | None:
        """The certificate that the other side has shown, if there is TLS."""
        return None if self._tls is None else self._tls.get_peer_certificate()

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """What ALPN has chosen, if anything."""
        return (self._tls and self._tls.get_alpn_proto_negotiated()) or None
