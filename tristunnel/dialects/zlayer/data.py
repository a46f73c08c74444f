"""
Visitors of zlayer clients who wait for their data connections.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from twisted.internet.interfaces import IReactorTime

from tristunnel.dialects.base.awaited import (
    PATIENCE,
    WAITING,
    Awaited,
    AwaitingSession,
    noVisitor,
)
from tristunnel.dialects.zlayer.data_end import DataEnd, DataFlow
from tristunnel.model.ports import PortRange

if TYPE_CHECKING:
    from tristunnel.websocket.connection import Receiver

__all__ = [
    "PATIENCE",
    "PORTS",
    "WAITING",
    "ZLayerSessions",
    "connectionOf",
    "memberOfConnection",
]

PORTS = PortRange(((30000, 31000),))
"""The ports that zlayer's clients may have, unless the operator says otherwise."""


def connectionOf(path: str) -> str | None:
    """
    Find which connection a path is about: what follows C{/data/}.

    @return: C{None} if it is about none.
    """
    _, slash, name = f"/{path.strip('/')}".rpartition("/data/")
    return name if slash and "/" not in name else None


def memberOfConnection(name: str, members: int) -> int | None:
    """
    Read from a connection's id in which of several processes its visitor waits.

    @return: An index, or C{None} if it is not an id of ours.
    """
    try:
        first = UUID(name).bytes[0]
    except ValueError:
        return None
    return first if first < members else None


class ZLayerClient(AwaitingSession, Protocol):
    """The session of a client whose visitors wait."""

    def probe(self) -> None:
        """Have the client show that it lives."""


class ZLayerSessions(Awaited):
    """
    What all zlayer sessions of a server share.

    @ivar ports: Which ports may be given out; C{None} for all that the server
        gives out.
    @ivar inUse: The sessions, by their tokens' SHA-256 digests.
    """

    def __init__(self, reactor: IReactorTime, patience: float = PATIENCE) -> None:
        super().__init__(reactor, patience)
        self.ports: PortRange | None = PORTS
        self.inUse: dict[bytes, ZLayerClient] = {}

    def receive(self, name: str) -> Receiver:
        """
        Receive a data connection.

        @param name: The connection's id, as its path says.
        @raise TunnelError: C{unknown-tunnel}, if no visitor waits for it.
        """
        try:
            found = self.find(UUID(name))
        except ValueError:
            raise noVisitor() from None
        if found is None:
            raise noVisitor()
        arrived = partial(self._arrived, UUID(name))
        if found[0].tunnel.protocol == "udp":
            return DataFlow(arrived)
        return DataEnd(arrived, patient=True)

    def _arrived(self, identifier: UUID, end: Any) -> None:
        stream = self.take(identifier)
        if stream is None:
            end.reset(noVisitor())
        else:
            stream.connect(end)
