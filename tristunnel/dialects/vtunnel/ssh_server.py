"""
vtunnel over SSH at the server: a client's session.
"""

from __future__ import annotations

from collections.abc import Awaitable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.conch.hostkey import HostKey
from tristunnel.dialects.conch.server import GoSession, ServerPackets, overWebSocket
from tristunnel.dialects.vtunnel.server import LISTENER
from tristunnel.errors import TunnelError
from tristunnel.model.tunnel import Stream
from tristunnel.websocket.connection import Receiver
from tristunnel.wire.ssh import Fields
from tristunnel.wire.vtunnel_ssh import (
    CHANNEL,
    LISTEN,
    Listen,
    hostSeedFor,
    keyBlob,
    packPort,
)

__all__ = ["VTunnelSSHSession", "openSession"]

VERSION = b"SSH-2.0-Go"

_KEY_HEAD = keyBlob(bytes(32))[:-32]


def openSession(sessions: ServerSessions, arrival: Arrival) -> Receiver:
    """
    Serve a WebSocket whose first message is SSH's.

    A client with a key accepts one host key only, which is made of its own. Whose
    that is we must know before it says so: from the login or the C{?id=} in its
    request, or because there is no other.
    """
    key = sessions.kept(HostKey.inDirectory)
    who = arrival.caller.identity.name if arrival.vouched else arrival.says
    known = [
        blob[len(_KEY_HEAD) :]
        for blob in sessions.authenticator.keysOf(who)
        if blob.startswith(_KEY_HEAD)
    ]
    if len(known) == 1:
        seed = hostSeedFor(known[0])
        key = HostKey(Ed25519PrivateKey.from_private_bytes(seed))
    return overWebSocket(sessions, arrival, key, VTunnelSSHSession)


class VTunnelSSHSession(GoSession):
    """
    One vtunnel client's connection.

    @ivar tunnels: The client's tunnels, by the ports that it knows them by.
    """

    dialect = "vtunnel-ssh"

    def __init__(
        self, sessions: ServerSessions, arrival: Arrival, link: ServerPackets
    ) -> None:
        super().__init__(sessions, arrival, link)
        link.ourVersionString = VERSION

    def request(self, name: str, fields: Fields) -> Awaitable[bytes] | bytes | None:
        if name == LISTEN:
            return self._listen(Listen.unpack(fields.rest()))
        return super().request(name, fields)

    async def _listen(self, asked: Listen) -> bytes:
        if asked.port and asked.port in self.tunnels:
            return packPort(asked.port)
        options: dict[str, object] = {"port": asked.port, "target": asked.localAddress}
        if LISTENER in self._service.listeners:
            options["listener"] = LISTENER
        tunnel = await self.openFor(asked, options, f"port {asked.port}")
        del self.tunnels[asked]
        if tunnel.listener is None:
            raise TunnelError("closed")
        port = tunnel.listener.address[2]
        self.tunnels[port] = tunnel
        return packPort(port)

    def channelFor(self, stream: Stream) -> tuple[str, bytes]:
        return CHANNEL, packPort(self.keyOf(stream.tunnel))
