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
from tristunnel.model.tunnel import Stream, Tunnel
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

NAMES = "http"
"""The kind of listener for names."""

_KEY_HEAD = keyBlob(bytes(32))[:-32]


def openSession(sessions: ServerSessions, arrival: Arrival) -> Receiver:
    """
    Serve a WebSocket whose first message is SSH's.

    A client with a key accepts only one host key, which is derived from its own key. We
    must know that key before the client shows it: from the login or the C{?id=} in its
    request, or because there is only one.
    """
    key = sessions.kept(HostKey.inDirectory)
    known = _keysFor(sessions, arrival)
    if len(known) == 1:
        seed = hostSeedFor(known[0])
        key = HostKey(Ed25519PrivateKey.from_private_bytes(seed))
    return overWebSocket(sessions, arrival, key, VTunnelSSHSession)


def _keysFor(sessions: ServerSessions, arrival: Arrival) -> list[bytes]:
    who = arrival.caller.identity.name if arrival.vouched else arrival.says
    return [
        blob[len(_KEY_HEAD) :]
        for blob in sessions.authenticator.keysOf(who)
        if blob.startswith(_KEY_HEAD)
    ]


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
        self._named: dict[str, int] = {}
        self._isUnsure = len(_keysFor(sessions, arrival)) > 1

    def request(self, name: str, fields: Fields) -> Awaitable[bytes] | bytes | None:
        if name == LISTEN:
            return self._listen(Listen.unpack(fields.rest()))
        return super().request(name, fields)

    async def _listen(self, asked: Listen) -> bytes:
        if asked.domain and NAMES in self._service.listeners:
            return packPort(await self._name(asked))
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

    async def _name(self, asked: Listen) -> int:
        """
        Give a tunnel a name.

        @return: The number by which the client knows it, in place of a port.
        """
        host = asked.domain.partition(":")[0].lower()
        if host not in self._named:
            options: dict[str, object] = {
                "listener": NAMES,
                "name": host,
                "target": asked.localAddress,
                "requestHeaders": list(asked.headers),
            }
            tunnel = await self.openFor(asked, options, f"name {host}")
            del self.tunnels[asked]
            # Counted from the top, where ports are rarely asked for.
            port = next(n for n in range(65535, 0, -1) if n not in self.tunnels)
            self.tunnels[port], self._named[host] = tunnel, port
        return self._named[host]

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        super().tunnelClosed(tunnel, reason)
        self._named = {h: n for h, n in self._named.items() if n in self.tunnels}

    def sessionOver(self, reason: TunnelError) -> None:
        if self._client is None and self._isUnsure:
            reason = TunnelError(
                "auth-refused",
                "several tokens have keys, and a client with a key has to say whose it"
                " is: by ?id=NAME in its URL, with the name of its token",
            )
        super().sessionOver(reason)

    def channelFor(self, stream: Stream) -> tuple[str, bytes]:
        return CHANNEL, packPort(self.keyOf(stream.tunnel))
