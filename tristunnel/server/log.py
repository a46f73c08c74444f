"""
What the server writes to its log: one line for each thing that happened.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from tristunnel.auth.realm import Identity
from tristunnel.errors import TunnelError
from tristunnel.listeners.tcp import addressText
from tristunnel.observer import ServerObserver
from tristunnel.tunnel import Stream, Tunnel

__all__ = ["LoggingServerObserver"]


class LoggingServerObserver(ServerObserver):
    """
    Writes to the log.

    @param seconds: The clock of streams.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds

    def serverStarted(self, port: str, address: IAddress) -> None:
        """
        A port is open.
        """
        self._log.info(
            "Listening for clients on {address} ({port})",
            port=port,
            address=addressText(address),
        )

    def clientConnected(self, peer: IAddress, identity: Identity, dialect: str) -> None:
        """
        A client was let in.
        """
        self._log.info(
            "Client {client} connected from {peer} ({dialect})",
            client=identity.name,
            peer=addressText(peer),
            dialect=dialect,
        )

    def clientGone(
        self, peer: IAddress, identity: Identity, reason: TunnelError
    ) -> None:
        """
        A session is over.
        """
        self._log.info(
            "Client {client} at {peer} left: {reason}",
            client=identity.name,
            peer=addressText(peer),
            reason=reason,
        )

    def authenticationFailed(self, peer: IAddress, reason: TunnelError) -> None:
        """
        A client was not let in.
        """
        self._log.warn(
            "Client at {peer} was turned away: {reason}",
            peer=addressText(peer),
            reason=reason,
        )

    def tunnelCreated(self, tunnel: Tunnel) -> None:
        """
        A tunnel is open.
        """
        self._log.info(
            "Tunnel {uri} of {client} is open at {address}",
            uri=tunnel.publicURI,
            client=tunnel.owner.name,
            address=tunnel.address or "no public address",
        )

    def tunnelDestroyed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """
        A tunnel is over.
        """
        self._log.info(
            "Tunnel {uri} is closed after {visitors} visitors, {bytesIn} bytes in,"
            " {bytesOut} bytes out: {reason}",
            uri=tunnel.publicURI,
            visitors=tunnel.visitorCount,
            bytesIn=tunnel.bytesIn,
            bytesOut=tunnel.bytesOut,
            reason=reason,
        )

    def visitorGone(self, stream: Stream) -> None:
        """
        A visitor's whole life, in one line.
        """
        self._log.debug(
            "Visitor {visitor} of {address} left after {seconds:.3f} s,"
            " {bytesIn} bytes in, {bytesOut} bytes out{why}",
            visitor=stream.visitorAddress,
            address=stream.tunnel.address,
            seconds=self._seconds() - stream.opened,
            bytesIn=stream.bytesIn,
            bytesOut=stream.bytesOut,
            why=f": {stream.reason}" if stream.reason else "",
        )

    def peerRefused(self, peer: IAddress, reason: TunnelError) -> None:
        """
        A connection was closed before anybody was known.
        """
        self._log.warn(
            "Connection from {peer} closed: {reason}",
            peer=addressText(peer),
            reason=reason,
        )
