"""One port for every dialect: the first bytes of a connection tell which it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from typing import Protocol as Structure

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.stock import tuneSocket
from tristunnel.dialects.base.dialect import PortProtocol
from tristunnel.dialects.base.unauthenticated import HANDSHAKE_TIMEOUT, whyNotFramed
from tristunnel.errors import TunnelError
from tristunnel.model.observer import ServerObserver
from tristunnel.service.preauth import PendingConnection, PreauthLimiter
from tristunnel.tls.explanation import whyNoTLS

__all__ = [
    "HERE",
    "Deciding",
    "OtherProcesses",
    "ProtocolDetector",
    "ProtocolDetectorFactory",
]

HERE = -1
"""This process, whichever it is."""


class OtherProcesses(Structure):
    """Knows which connections belong to another process of this server."""

    def whose(self, began: bytes) -> int | None:
        """
        Find out whose a connection is from what was read of it.

        @return: The index of the process, L{HERE}, or C{None} if more must be read.
        """

    def mayPass(self, transport: Any) -> bool:
        """Whether a connection may be passed on."""

    def give(self, kind: str, transport: Any, began: bytes, member: int) -> None:
        """
        Pass a connection.

        @raise TunnelError: If it cannot be passed.
        """


class Deciding(Protocol):
    """
    Waits for the bytes that tell whose a connection is, and hands it on with all that
    came.

    @param reactor: Tells time.
    @param address: Where the connection comes from, or the balancer before it.
    @param pending: Counts it among those that have not said who they are.
    """

    transport: Any

    def __init__(
        self, reactor: Any, address: IAddress | None, pending: PendingConnection
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._pending = pending
        self._began = b""
        self._inner: IProtocol | None = None
        self._deadline: IDelayedCall | None = None

    def _within(self, seconds: float, late: Callable[[], object]) -> None:
        self._deadline = self._reactor.callLater(seconds, late)

    def _inTime(self) -> float:
        """
        End the time limit.

        @return: Seconds that are left.
        """
        deadline, self._deadline = self._deadline, None
        if deadline is None or not deadline.active():
            return 0.0
        deadline.cancel()
        left: float = deadline.getTime() - self._reactor.seconds()
        return max(left, 0.0)

    def _handOver(self, protocol: PortProtocol) -> None:
        """Hand the connection to a protocol, from its first byte on."""
        inner = protocol.open(self._address, self._inTime(), self._pending)
        if inner is None:
            self.transport.abortConnection()
            return
        self._inner = inner
        # This avoids a call in between for all that follows.
        self.dataReceived = inner.dataReceived  # type: ignore[method-assign] # as said
        inner.makeConnection(self.transport)
        began, self._began = self._began, b""
        inner.dataReceived(began)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._inTime()
        self._pending.known()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)


class ProtocolDetector(Deciding):
    """
    Waits for a connection's first bytes and hands it on.

    @param parent: What is served here, and how long that may take.
    @param address: As for L{Deciding}.
    @param pending: Likewise.
    """

    def __init__(
        self,
        parent: ProtocolDetectorFactory,
        address: IAddress | None,
        pending: PendingConnection,
    ) -> None:
        super().__init__(parent.reactor, address, pending)
        self._parent = parent
        self._proxied = parent.proxied

    def connectionMade(self) -> None:
        tuneSocket(self.transport)
        self._pending.leave = self._makeRoom
        self._within(self._parent.timeout, self._late)
        if self._parent.first is not None:
            self._handOver(self._parent.first)

    def dataReceived(self, data: bytes) -> None:
        if self._proxied:
            # The PROXY header has been read by now, and tells who it is.
            self._proxied = False
            try:
                self._pending.comesFrom(self.transport.getPeer())
            except TunnelError as refusal:
                self._refuse(refusal)
                return
        self._began += data
        possible = False
        for protocol in self._parent.protocols:
            for beginning in protocol.beginnings:
                if self._began.startswith(beginning):
                    self._found(protocol)
                    return
                possible = possible or beginning.startswith(self._began)
        if not possible:
            self._refuse(whyNotFramed(self._began))

    def _found(self, protocol: PortProtocol) -> None:
        """
        Go on, when the protocol is known: it must also be known whose the connection
        is.
        """
        elsewhere = self._parent.elsewhere
        if elsewhere is None or not elsewhere.mayPass(self.transport):
            self._handOver(protocol)
            return
        member = elsewhere.whose(self._began)
        if member == HERE:
            self._handOver(protocol)
        elif member is not None:
            self._inTime()
            try:
                elsewhere.give("page", self.transport, self._began, member)
            except TunnelError as refusal:
                self._refuse(refusal)

    def _late(self) -> None:
        said = f"only {self._began!r}" if self._began else "nothing"
        seconds = self._parent.timeout
        self._refuse(
            TunnelError("handshake-timeout", f"the peer sent {said} for {seconds:g} s")
        )

    def _makeRoom(self) -> None:
        self._refuse(
            TunnelError("limit-reached", "it was replaced by a newer connection")
        )

    def _refuse(self, reason: TunnelError) -> None:
        self._inTime()
        self._parent.observer.peerRefused(self.transport.getPeer(), reason)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        known = self._inner is not None
        super().connectionLost(reason)
        if not known and (broken := whyNoTLS(reason)) is not None:
            self._parent.observer.peerRefused(self.transport.getPeer(), broken)


class _RejectedConnection(Protocol):
    """A connection that is rejected."""

    isRejection = True
    """TLS is not begun for it."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.abortConnection()


@implementer(IProtocolNegotiationFactory)
class ProtocolDetectorFactory(ServerFactory):
    """
    Serves several protocols on a port.

    @param reactor: Tells time.
    @param protocols: What is served, in this order.
    @param observer: Told of peers that are turned away.
    @param timeout: Seconds in which a peer must have said who it is.
    @param limiter: Counts those who have not.
    @param proxied: Whether a balancer's address is seen before the peer's own.

    @ivar first: The protocol for everybody, where clients need not speak first.
    @ivar elsewhere: Knows what belongs to another process of this server, if there are
        several.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        protocols: Sequence[PortProtocol],
        observer: ServerObserver,
        timeout: float = HANDSHAKE_TIMEOUT,
        limiter: PreauthLimiter | None = None,
        proxied: bool = False,
    ) -> None:
        self.proxied = proxied
        self.elsewhere: OtherProcesses | None = None
        self._limiter = limiter or PreauthLimiter(reactor.seconds)
        self.reactor = reactor
        self.protocols = list(protocols)
        self.first = next((e for e in protocols if not e.beginnings), None)
        self.observer = observer
        self.timeout = timeout

    def acceptableProtocols(self) -> list[bytes]:
        # There is no HTTP/2 here; a client that offers no protocols gets none.
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        try:
            pending = self._limiter.enter(None if self.proxied else addr)
        except TunnelError as refusal:
            if addr is not None:
                self.observer.peerRefused(addr, refusal)
            # Not None: Twisted's TLS and PROXY layers would wrap that.
            return _RejectedConnection()
        return ProtocolDetector(self, addr, pending)
