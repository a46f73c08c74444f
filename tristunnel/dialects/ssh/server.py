"""
A client that is OpenSSH's, at the server: C{tcpip-forward} and what goes with it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from twisted.internet.interfaces import INegotiated

from tristunnel.auth.certificate import certificateName
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.conch.hostkey import HostKey
from tristunnel.dialects.conch.server import (
    ServerPackets,
    SSHServerSession,
    serverPackets,
)
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.model.tunnel import Stream
from tristunnel.service.caller import Caller
from tristunnel.service.preauth import PendingConnection, sourceOf
from tristunnel.util.hosts import addressOf
from tristunnel.wire.ssh import Fields, packNumbers, packText

__all__ = ["OpenSSHSession", "openSession"]

EVERYWHERE = ("", "*", "localhost", "0.0.0.0", "::")
"""What clients write for the interface that the server gives to tunnels. OpenSSH's own
server takes C{localhost}, which is what C{-R PORT:...} says, for loopback; here a
tunnel that nobody can reach would be of no use."""

LOOPBACK = "loopback"
"""The kind of listener for C{127.0.0.1} and C{::1}."""


def openSession(
    sessions: ServerSessions, remaining: float, pending: PendingConnection
) -> ServerPackets:
    """
    Serve a connection that begins as SSH does.

    @param remaining: Seconds that are left of the time for handshakes.
    @param pending: Told when it is known who it is, and of failed logins.
    """

    def make(link: ServerPackets) -> OpenSSHSession:
        here, peer = link.transport.getHost(), link.peerAddress
        caller = Caller(
            ANONYMOUS_IDENTITY,
            str(getattr(here, "host", "localhost")),
            int(getattr(here, "port", 0)),
            address=sourceOf(peer),
            secure=INegotiated.providedBy(link.transport),
            certificate=certificateName(link.transport),
        )
        arrival = Arrival(caller, False, pending, remaining=remaining)
        return OpenSSHSession(sessions, arrival, link)

    return serverPackets(sessions, sessions.kept(HostKey.inDirectory), make)


@dataclass(frozen=True)
class Forward:
    """
    What a client has asked for.

    @ivar address: Where visitors come, in its own words.
    @ivar port: Likewise; 0 for any.
    """

    address: str
    port: int

    def options(self) -> dict[str, object]:
        """
        The options of C{openTunnel}.

        @raise TunnelError: C{bad-option}, for an address that is none of ours.
        """
        options: dict[str, object] = {"port": self.port}
        if self.address in EVERYWHERE:
            return options
        address = addressOf(self.address)
        if address is not None and address.is_loopback:
            options["listener"] = LOOPBACK
            return options
        raise badOption(
            f"{self.address!r} is no address for visitors here: leave it out, or write"
            " 127.0.0.1"
        )


class OpenSSHSession(SSHServerSession):
    """
    One client's connection.

    @ivar tunnels: The client's tunnels, by what it has asked for.
    """

    dialect = "ssh"

    def __init__(
        self, sessions: ServerSessions, arrival: Arrival, link: ServerPackets
    ) -> None:
        super().__init__(sessions, arrival, link)
        self._requests = {
            "tcpip-forward": self._forward,
            "cancel-tcpip-forward": self._cancel,
        }

    def claimed(self, fields: dict[str, object]) -> str:
        return str(fields.get("id", ""))[:64]

    def request(self, name: str, fields: Fields) -> Awaitable[bytes] | bytes | None:
        take = self._requests.get(name)
        return None if take is None else take(fields)

    @property
    def idle(self) -> bool:
        # A client need not have a tunnel.
        return False

    async def _forward(self, fields: Fields) -> bytes:
        asked = Forward(fields.text(256), fields.port())
        if asked.port and asked in self.tunnels:
            raise TunnelError("port-taken", "this client has that tunnel already")
        tunnel = await self.openFor(asked, asked.options())
        if asked.port or tunnel.listener is None:
            return b""
        # From now on the client calls it by its port.
        port = tunnel.listener.address[2]
        self.tunnels[Forward(asked.address, port)] = self.tunnels.pop(asked)
        return packNumbers(port)

    def _cancel(self, fields: Fields) -> bytes | None:
        forward = Forward(fields.text(256), fields.port())
        tunnel = self.tunnels.pop(forward, None)
        if tunnel is None:
            return None
        reason = TunnelError("closed", "its owner closed the tunnel")
        self._service.discard([tunnel], reason)
        return b""

    def channelFor(self, stream: Stream) -> tuple[str, bytes]:
        forward = self.keyOf(stream.tunnel)
        host, _, port = stream.visitorAddress.rpartition(":")
        number = int(port) if port.isdecimal() else 0
        return "forwarded-tcpip", (
            packText(forward.address)
            + packNumbers(forward.port)
            + packText(host.strip("[]"))
            + packNumbers(number)
        )
