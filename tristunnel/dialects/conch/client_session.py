"""
Our client's session with a server that speaks SSH in a WebSocket.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from twisted.python.failure import Failure

from tristunnel.dialects.base.client_session import MessageClientSession
from tristunnel.dialects.conch.channel import Channel
from tristunnel.dialects.conch.client import ClientPackets, Credentials
from tristunnel.dialects.conch.connection import Connection
from tristunnel.dialects.conch.messages import AnyMessages
from tristunnel.dialects.conch.streams import ChannelStreams
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward
from tristunnel.model.observer import ClientObserver
from tristunnel.wire.ssh import Fields

__all__ = ["SSHClientSession"]


class SSHClientSession(MessageClientSession):
    """
    A session over SSH.

    @param credentials: As whom to log in.

    @cvar speaks: The dialect, as observers are told it.
    @cvar ping: The request by which the server is asked for a sign of life.
    """

    speaks: str
    ping = "ping"
    saysWhy = True

    def __init__(
        self,
        reactor: Any,
        credentials: Credentials,
        forwards: Sequence[Forward],
        observer: ClientObserver,
        host: str,
    ) -> None:
        super().__init__(reactor, forwards, observer, host)
        self.link = ClientPackets(reactor, credentials, self.judge, self._letIn)
        self.link.ended = self._over
        self._messages = AnyMessages(self.link)
        self._streams: ChannelStreams | None = None

    # Receiver

    def opened(self, connection: Any) -> None:
        self.refused = True
        super().opened(self.link)
        self._messages.opened(connection)

    def bytesReceived(self, data: bytes) -> None:
        self._messages.bytesReceived(data)

    def textReceived(self, text: bytes) -> None:
        self._messages.textReceived(text)

    def closeReceived(self, reason: TunnelError | None) -> None:
        self._messages.closeReceived(reason)

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        self._messages.connectionLost(reason, failure)

    def _over(self, reason: TunnelError) -> None:
        self.end(reason)

    # The server

    @abstractmethod
    def judge(self, key: bytes) -> None:
        """
        Say whether a server with this key is the right one.

        @param key: As it is on the wire.
        @raise TunnelError: C{bad-pin}.
        """

    @abstractmethod
    def begin(self, connection: Connection) -> None:
        """Ask the server, which has let us in, for tunnels."""

    @abstractmethod
    def forwardOf(self, kind: str, fields: Fields) -> Forward:
        """
        Find the forward for a visitor.

        @param kind: The type of the channel that the server opens.
        @raise TunnelError: If there is none.
        """

    def _letIn(self, link: ClientPackets) -> None:
        self.refused = False
        self._observer.connected(link.peerAddress)
        self._observer.acknowledged(self.speaks)
        self._streams = ChannelStreams(link, self._asked)
        connection = Connection(link, self._streams, self)
        link.setService(connection)
        self.begin(connection)

    def request(self, name: str, fields: Fields) -> bytes | None:
        """Answer the server's requests for a sign of life."""
        return b"pong" if name == "ping" else None

    def requestRefused(self, name: str, refusal: TunnelError) -> None:
        """Servers make no other requests."""

    def _asked(self, channel: Channel, kind: str, fields: Fields) -> None:
        if self._streams is None:
            return
        try:
            forward = self.forwardOf(kind, fields)
        except TunnelError as refusal:
            channel.reset(refusal)
            return
        if forward.isUDP:
            self.datagramsCome(channel, forward)
            return
        endpoint: Any = forward.endpoint
        self._connector.connect(channel, forward.target, endpoint, self._streams.accept)

    def datagramsCome(self, channel: Channel, forward: Forward) -> None:
        """Serve a channel of datagrams, where there are such."""
        channel.reset(TunnelError("not-permitted", "there is no UDP here"))

    @property
    def multiplexer(self) -> ChannelStreams | None:
        return self._streams

    def streams(self) -> int:
        return 0 if self._streams is None else len(self._streams.streams)
