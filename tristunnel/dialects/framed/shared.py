"""What the sessions of the framed protocol share at a server."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorTime

from tristunnel.dataplane.endings import EndAcknowledgements
from tristunnel.dialects.framed.session import FramedProtocol
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.leases import Lease

__all__ = ["FramedShared"]


class FramedShared:
    """
    What all of them share.

    @param reactor: Tells time.

    @ivar coming: Connections, until it is known what they are for.
    @ivar dispatcher: Answers the clients' calls; set with the first connection.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.coming: set[FramedProtocol] = set()
        self.dispatcher: Dispatcher | None = None
        self._reactor = reactor
        self._confirmations: WeakKeyDictionary[Lease | Tunnel, EndAcknowledgements]
        self._confirmations = WeakKeyDictionary()

    def confirmationsOf(self, whose: Lease | Tunnel) -> EndAcknowledgements:
        """
        Find the acknowledgements of the ends of somebody's streams that have left their
        session, which last over one session and the next.
        """
        made = EndAcknowledgements(self._reactor)
        return self._confirmations.setdefault(whose, made)

    def close(self) -> None:
        """The server stops."""
        for connection in list(self.coming):
            connection.fail(TunnelError("shutting-down"))
        for each in list(self._confirmations.values()):
            each.close()
