"""
Ports where the first bytes of a connection name the tunnel that it is for. Nothing that
belongs to the service is taken from it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.python.failure import Failure

from tristunnel.dataplane.peek import Peeking
from tristunnel.dataplane.stock import tuneSocket
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.dataplane.transport_end import Arriving
from tristunnel.dataplane.tuning import resetIfKilled
from tristunnel.dialects.base.unauthenticated import HANDSHAKE_TIMEOUT
from tristunnel.errors import TunnelError
from tristunnel.model.observer import ServerObserver
from tristunnel.names.table import Route
from tristunnel.service.preauth import PendingConnection, PreauthLimiter
from tristunnel.util.hosts import addressText
from tristunnel.util.repeating import stopTimer

__all__ = ["Sorting", "SortingFactory"]


class Sorting(Peeking):
    """
    Waits for the bytes that name a tunnel, which a subclass reads in L{sort}.

    @param parent: What is served here.
    @param address: Where the connection comes from.
    @param pending: Counts it among those of whom nothing is known.

    @cvar awaited: What must come in time, for messages.
    """

    awaited: ClassVar[str]

    def __init__(
        self, parent: Any, address: IAddress | None, pending: PendingConnection
    ) -> None:
        super().__init__(parent.reactor)
        self._parent = parent
        self._address = address
        self._pending = pending
        self._proxied = parent.proxied
        self._deadline: IDelayedCall | None = None

    @abstractmethod
    def sort(self, data: bytes) -> int:
        """
        For subclasses: take bytes.

        @param data: All of them so far.
        @return: How many there must be for another call to make sense.
        """

    # For subclasses to call

    def giveTo(self, route: Route) -> None:
        """Give the connection to a tunnel."""
        if not self.passOn(route):
            self.handOn(self.arrivingAt(route))

    def passOn(self, route: Route) -> bool:
        """
        Pass the connection on to another process, if that has the tunnel.

        @return: Whether it was passed on.
        """
        member = route.member
        return member is not None and self._parent.passOn(self.transport, member)

    def arrivingAt(self, route: Route) -> Arriving:
        """Make what lets a connection arrive at a tunnel, as this visitor's."""
        text, arrived = addressText(self.transport.getPeer()), route.arrived
        if isinstance(self.transport, SocketTransport):
            resetIfKilled(self.transport.connection)
        return Arriving(self._parent.reactor, lambda end: arrived(end, text))

    def handOn(self, protocol: Any) -> None:
        """Hand the connection to a protocol that counts it, if need be."""
        self.forget()
        if protocol is None:
            self.transport.abortConnection()
        else:
            self.handOver(protocol)

    def refuse(self, reason: TunnelError, lastWords: bytes = b"") -> None:
        """
        End the connection.

        @param lastWords: What the peer is told; empty to cut the connection.
        """
        stopTimer(self._deadline)
        self.tell(reason)
        if not lastWords:
            self.transport.abortConnection()
            return
        # Bytes that are left unread would turn the end into a reset, and lose the
        # words.
        self.skip()
        self.transport.write(lastWords)
        self.transport.loseConnection()

    def tell(self, reason: TunnelError) -> None:
        """Log why the connection is turned away."""
        self._parent.observer.peerRefused(self.transport.getPeer(), reason)

    def forget(self) -> None:
        """Count the connection no longer among those of which nothing is known."""
        stopTimer(self._deadline)
        self._pending.known()

    # Peeking

    def connectionMade(self) -> None:
        tuneSocket(self.transport)
        self._pending.leave = self._makeRoom
        self._deadline = self._parent.reactor.callLater(
            self._parent.timeout, self._late
        )
        super().connectionMade()

    def seen(self, data: bytes) -> int:
        if self._proxied:
            # The PROXY header has been read by now, and tells who it is.
            self._proxied = False
            try:
                self._pending.comesFrom(self.transport.getPeer())
            except TunnelError as refusal:
                self.refuse(refusal)
                return 0
        return self.sort(data)

    def left(self, reason: Failure) -> None:
        self.forget()

    def _late(self) -> None:
        self._deadline = None
        seconds = self._parent.timeout
        self.refuse(
            TunnelError(
                "handshake-timeout",
                f"the peer sent no whole {self.awaited} in {seconds:g} s",
            )
        )

    def _makeRoom(self) -> None:
        self.refuse(
            TunnelError("limit-reached", "it was replaced by a newer connection")
        )


class _RejectedConnection(Protocol):
    transport: Any

    def connectionMade(self) -> None:
        self.transport.abortConnection()


@dataclass(eq=False)
class SortingFactory(ServerFactory):
    """
    Serves such a port.

    @ivar reactor: Tells time.
    @ivar observer: Told of peers that are turned away.
    @ivar limiter: Counts connections of which nothing is known.
    @ivar timeout: Seconds in which the first bytes must be there.
    @ivar proxied: Whether a balancer's address is seen before the peer's own.
    @ivar passOn: Passes a connection on to another process, if no bytes of it were
        taken; returns whether it did.
    @cvar sorting: What waits for them.
    """

    sorting: ClassVar[type[Sorting]]
    noisy = False

    reactor: Any
    observer: ServerObserver
    limiter: PreauthLimiter
    timeout: float = HANDSHAKE_TIMEOUT
    proxied: bool = False
    passOn: Callable[[Any, int], bool] = lambda *passed: False

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        try:
            pending = self.limiter.enter(None if self.proxied else addr)
        except TunnelError as refusal:
            if addr is not None:
                self.observer.peerRefused(addr, refusal)
            return _RejectedConnection()
        return self.sorting(self, addr, pending)
