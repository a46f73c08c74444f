"""
A server with the SSH door, and clients of it: one in the test's own process, and
OpenSSH's.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests.support.loopback import LoopbackTestCase
from tests.support.processes import Program, startProgram
from tristunnel.auth.realm import Authenticator
from tristunnel.dataplane.tls import serverTLSFactory
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.conch.channel import Channel
from tristunnel.dialects.conch.client import ClientPackets, Credentials
from tristunnel.dialects.conch.connection import KEEPALIVE, Connection
from tristunnel.dialects.conch.streams import ChannelStreams
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.dialects.table import portProtocols
from tristunnel.errors import TunnelError
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.server.bare import BareOrTLSFactory
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.service import TunnelServerService
from tristunnel.service.preauth import PreauthLimiter
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.wire.ssh import BEGINNING, Fields, Message, packNumbers, packText

__all__ = ["SSH", "Peer", "SSHTestCase"]

SSH = shutil.which("ssh")


class Peer:
    """
    An SSH client in the test's process.

    @ivar link: Its connection.
    @ivar channels: The channels that the server has opened.
    @ivar lost: Fires with the reason when the connection is over.
    """

    ping = KEEPALIVE
    saysWhy = False

    def __init__(
        self, reactor: Any, credentials: Credentials, limits: Limits | None = None
    ) -> None:
        self.limits = limits
        self.channels: list[tuple[Channel, str, bytes]] = []
        self.keys: list[bytes] = []
        self.admitted: Deferred[Peer] = Deferred()
        self.lost: Deferred[TunnelError] = Deferred()
        self.link = ClientPackets(reactor, credentials, self.keys.append, self._letIn)
        self.link.ended = self._over
        self.taken = self.accept

    def _over(self, reason: TunnelError) -> None:
        if not self.admitted.called:
            self.admitted.errback(reason)
        self.lost.callback(reason)

    def _letIn(self, link: ClientPackets) -> None:
        self.streams = ChannelStreams(link, self._asked, self.limits)
        self.connection = Connection(link, self.streams, self)
        link.setService(self.connection)
        self.admitted.callback(self)

    def request(self, name: str, fields: Fields) -> bytes | None:
        """Grant nothing; any answer is a sign of life."""
        return None

    def requestRefused(self, name: str, refusal: TunnelError) -> None:
        """Nothing is refused, since nothing is known."""

    def _asked(self, channel: Channel, kind: str, fields: Fields) -> None:
        self.channels.append((channel, kind, fields.rest()))
        self.taken(channel)

    def accept(self, channel: Channel) -> None:
        self.streams.accept(channel)

    def forward(self, address: str, port: int) -> Deferred[bytes]:
        asked = packText(address) + packNumbers(port)
        return self.connection.ask("tcpip-forward", asked)

    async def listen(self, address: str = "localhost") -> int:
        """Ask for a tunnel at any port, and say at which it is."""
        return Fields(await self.forward(address, 0)).number()

    def send(self, kind: Message, *numbers: int, rest: bytes = b"") -> None:
        """Send a message, whether it makes sense or not."""
        self.link.sendPacket(kind, packNumbers(*numbers) + rest)


class SSHTestCase(LoopbackTestCase):
    """
    A test with a server that SSH clients can use.

    @ivar authenticator: Who may connect.
    """

    authenticator = Authenticator()
    limits: Limits | None = None

    async def startServer(
        self,
        port: str = "tcp:0:interface=127.0.0.1",
        grace: float = 0.2,
        listeners: Any = None,
    ) -> TunnelServerService:
        self.tunnels = TunnelService(
            self.reactor,
            MemoryBook(self.reactor),
            listeners
            or {
                "tcp": TCPListeners(self.reactor, "127.0.0.1"),
                "loopback": TCPListeners(self.reactor, "127.0.0.1"),
            },
            self.notes,
            "127.0.0.1",
        )
        self.sessions = TunnelServerFactory(
            self.reactor, self.tunnels, self.authenticator, self.limits
        )
        factory: Any = ProtocolDetectorFactory(
            self.reactor, portProtocols(self.sessions), self.notes
        )
        where = self.portAt(port)
        creator = where.creator
        if creator is not None:
            # As a server does at a port with TLS.
            where = replace(where, bare=True)
            factory = BareOrTLSFactory(
                self.reactor,
                self.notes,
                PreauthLimiter(self.reactor.seconds),
                beginnings=[BEGINNING],
                bare=ProtocolDetectorFactory(
                    self.reactor, portProtocols(self.sessions, bare=True), self.notes
                ),
                secure=serverTLSFactory(creator, factory),
            )
        return self.startListening(factory, where, grace)

    async def come(
        self, credentials: Credentials | None = None, limits: Limits | None = None
    ) -> Peer:
        """Connect an SSH client, and have the server let it in."""
        peer = Peer(self.reactor, credentials or Credentials("test"), limits)
        where = TCP4ClientEndpoint(self.outside, "127.0.0.1", self.serverPort)
        await connectProtocol(where, peer.link)
        self.addCleanup(self._leave, peer)
        await peer.admitted
        return peer

    async def _leave(self, peer: Peer) -> None:
        if not peer.link.gone:
            peer.link.close()
        if not peer.lost.called:
            await peer.lost

    def ssh(self, *options: str) -> Program:
        assert SSH is not None
        command = [
            SSH,
            "-F",
            "none",
            "-p",
            str(self.serverPort),
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            f"UserKnownHostsFile={self.directory}/known_hosts",
            "-o",
            "BatchMode=yes",
            *options,
            "me@127.0.0.1",
        ]
        program = startProgram(self.outside, "ssh", command, self.directory)
        self.addCleanup(program.stop)
        return program
