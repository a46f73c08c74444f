"""
chisel's dialect at the server: a client's session.
"""

from __future__ import annotations

from collections.abc import Awaitable

from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.chisel.flows import ChannelFlows
from tristunnel.dialects.conch.channel import Channel
from tristunnel.dialects.conch.hostkey import HostKey
from tristunnel.dialects.conch.server import GoSession, ServerPackets, overWebSocket
from tristunnel.errors import TunnelError, badOption
from tristunnel.forwards import dialling
from tristunnel.model.tunnel import Stream
from tristunnel.util.hosts import addressOf, portNumber
from tristunnel.util.repeating import stopTimer
from tristunnel.websocket.connection import Receiver
from tristunnel.wire.chisel import (
    CHANNEL,
    CONFIG,
    PING,
    SERVER_VERSION,
    SOCKS,
    UDP,
    VERSION,
    Remote,
    unpackConfig,
)
from tristunnel.wire.ssh import Fields

__all__ = ["ChiselSession", "openSession"]

CONFIG_TIME = 10.0
"""Seconds in which a client must say what it wants, as with chisel's own server."""

LOOPBACK = "loopback"


def openSession(sessions: ServerSessions, arrival: Arrival) -> Receiver:
    """Serve a WebSocket whose first message is chisel's."""
    return overWebSocket(
        sessions, arrival, sessions.kept(HostKey.inDirectory), ChiselSession
    )


class ChiselSession(GoSession):
    """
    One chisel client's connection.

    @ivar tunnels: The client's tunnels, by its remotes.
    """

    dialect = "chisel"
    ping = PING
    carriesDatagrams = True

    def __init__(
        self, sessions: ServerSessions, arrival: Arrival, link: ServerPackets
    ) -> None:
        super().__init__(sessions, arrival, link)
        link.ourVersionString = SERVER_VERSION
        link.versions = (VERSION, *link.versions)
        self._configured = False
        self._flows: dict[Remote, ChannelFlows] = {}

    def claimed(self, fields: dict[str, object]) -> str:
        return str(fields.get("id", ""))[:64]

    def admitted(self) -> None:
        super().admitted()
        self._wait(CONFIG_TIME)

    def request(self, name: str, fields: Fields) -> Awaitable[bytes] | bytes | None:
        if name == CONFIG and not self._configured:
            self._configured = True
            stopTimer(self._late)
            return self._configure(unpackConfig(fields.rest()))
        return super().request(name, fields)

    @property
    def idle(self) -> bool:
        # A client may have only remotes of the other direction.
        return False

    async def _configure(self, remotes: list[Remote]) -> bytes:
        """
        Open all ports that a client wants, or none.

        @raise TunnelError: Why it may not have one of them; the connection ends.
        """
        try:
            for remote in remotes:
                if remote.isReverse:
                    where = f"{remote.localHost} {remote.localPort} {remote.isUDP}"
                    await self.openFor(remote, _optionsFor(remote), where)
        except TunnelError as refusal:
            # chisel's own server ends the connection, after it has said why.
            self._sessions.reactor.callLater(0, self.fail, refusal)
            raise
        return b""

    def asked(self, channel: Channel, kind: str, fields: Fields) -> None:
        """Connect a remote without C{R:} to what it names."""
        if kind != CHANNEL:
            super().asked(channel, kind, fields)
            return
        target = fields.rest()[:512].decode("utf-8", "replace")
        if target == SOCKS:
            self.dial(channel, dialling.SOCKS)
            return
        name, udp, _ = target.partition(UDP)
        host, _, port = name.rpartition(":")
        try:
            host, number = host.strip("[]"), portNumber(port)
        except ValueError as error:
            channel.reset(TunnelError("not-permitted", f"no port here: {error}"))
            return
        if udp:
            channel.accept()
            ChannelFlows(
                self._sessions.reactor,
                channel,
                lambda flow: self.reach(flow, host, number, True),
            )
        else:
            self.reach(channel, host, number)

    def serve(self, stream: Stream) -> None:
        if stream.tunnel.protocol != "udp":
            super().serve(stream)
            return
        try:
            if self.channels is None or self.lost is not None:
                raise TunnelError("client-away")
            remote: Remote = self.keyOf(stream.tunnel)
            flows = self._flows.get(remote)
            if flows is None or flows.over:
                channel = self.channels.openChannel(*self.channelFor(stream))
                flows = self._flows[remote] = ChannelFlows(
                    self._sessions.reactor, channel
                )
        except TunnelError as refusal:
            stream.refuse(refusal)
        else:
            stream.connect(flows.open(stream.visitorAddress))

    def channelFor(self, stream: Stream) -> tuple[str, bytes]:
        remote: Remote = self.keyOf(stream.tunnel)
        return CHANNEL, remote.target.encode()


def _optionsFor(remote: Remote) -> dict[str, object]:
    options: dict[str, object] = {"port": remote.localPort}
    host = remote.localHost
    address = addressOf(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        options["listener"] = LOOPBACK
    elif host and (address is None or not address.is_unspecified):
        raise badOption(
            f"{host!r} is not an address for visitors here: leave it out, or write"
            " 127.0.0.1"
        )
    options["target"] = remote.target
    if remote.isUDP:
        options["listener"] = "udp"
    return options
