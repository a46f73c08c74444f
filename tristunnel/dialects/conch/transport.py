"""
An SSH connection, by twisted.conch, with bounds, and the messages of its transport
protocol (RFC 4253, section 11).

Key exchange and ciphers are conch's. The bounds are on what an enemy may do before it
has logged in: it may send little, in time, and in the right order. There is a layer for
each idea:

  - L{tristunnel.dialects.conch.sealing}: packets as they are on the wire;
  - L{tristunnel.dialects.conch.link}: a connection that is read, and ends;
  - L{tristunnel.dialects.conch.key_exchange}: new keys, and the right order;
  - here: what a side says of the connection, which is whole with that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from twisted.conch.ssh.service import SSHService

from tristunnel.dialects.conch.key_exchange import KeyExchange
from tristunnel.dialects.conch.link import BY_APPLICATION
from tristunnel.errors import TunnelError, printable, protocolError
from tristunnel.wire.ssh import Fields, packNumbers, packTexts

__all__ = ["Packets", "Service"]

_UNIMPLEMENTED, _DEBUG = 3, 4


class Service(ABC, SSHService):
    """A service of conch's, typed as far as it is used."""

    @abstractmethod
    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """
        Take a message.

        @raise TunnelError: The connection cannot go on.
        """

    def serviceStarted(self) -> None:
        """Begin: the service has been chosen."""

    def serviceStopped(self) -> None:
        """End, with the connection."""


class Packets(KeyExchange):
    """
    Packets of an SSH connection, at either side; to be mixed into conch's transports.

    A session has it as its connection, too.

    @ivar saidGoodbye: Whether the peer has left because it wanted to.
    """

    saidGoodbye = False

    def ssh_DISCONNECT(self, packet: bytes) -> None:
        fields = Fields(packet)
        self.saidGoodbye = fields.number() == BY_APPLICATION
        said = printable(fields.data().decode("utf-8", "replace"), 200)
        self.lost = self.lost or TunnelError(
            "session-lost",
            f"the peer has left: {said}" if said else "the peer has left",
        )
        self.leave()

    def ssh_UNIMPLEMENTED(self, packet: bytes) -> None:
        """The peer claims not to know one of our messages, which is an error."""

    def ssh_DEBUG(self, packet: bytes) -> None:
        """Nobody here reads the peer's remarks."""

    def ssh_EXT_INFO(self, packet: bytes) -> None:
        """We use none of the peer's extensions."""

    def sendUnimplemented(self) -> None:
        if not self.admitted:
            raise protocolError("the peer sent a message that SSH does not have")
        latest = (self.incomingPacketSequence - 1) & 0xFFFFFFFF
        self.answer(_UNIMPLEMENTED, packNumbers(latest))

    def explain(self, text: str) -> None:
        """Send a text that the peer shows to people who want details."""
        self.answer(_DEBUG, b"\1" + packTexts(text, ""))
