"""
A visitor's connection, and the run that leads from it to a service.

Neither side is read faster than the other one takes its bytes, and what a visitor does
not take is counted: a connection that holds too much of it is broken off.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.memory import HELD
from tristunnel.dataplane.stock import unsent
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.errors import TunnelError
from tristunnel.names.exchange import Exchange
from tristunnel.names.patience import Patience
from tristunnel.names.run import Run
from tristunnel.names.site import NameSite
from tristunnel.names.table import Route

__all__ = ["QUEUE", "RUN", "ServedConnection"]

FRESH = 1.0
"""Seconds after a response in which a request that cannot be repeated may use the same
connection: a service may be about to close one that has been idle for longer."""

QUEUE, RUN = 1, 2
"""Reasons why reading is held: something waits for its turn; the service takes no
more."""


@implementer(IPushProducer)
class ServedConnection(Protocol):
    """
    A visitor's connection with one run at a time. Subclasses decide what is asked, and
    what becomes of the answers: they are the run's L{Asker
    <tristunnel.names.run.Asker>}.

    @param site: What is served.

    @ivar site: The same.
    @ivar patience: How long it may be idle, or make no progress.
    @ivar run: The run, or C{None}.
    @ivar out: What is gathered for it, until L{flush}.
    @ivar held: Why nothing is read from the visitor: L{QUEUE}, L{RUN}, both, or 0.
    @ivar isClosing: Whether what the visitor sends is thrown away.
    @ivar isLost: Whether nothing reaches the visitor any more.
    """

    transport: Any
    run: Run | None = None
    held = 0
    isClosing = False
    isLost = False
    _isFull = False

    def __init__(self, site: NameSite) -> None:
        self.site = site
        self.patience = Patience(site, self.late, self.breakOff)
        self.out: list[bytes] = []

    def makeConnection(self, transport: ITransport) -> None:
        if isinstance(transport, SocketTransport):
            # This avoids a call in between, and half-closes get here.
            transport.protocol = self
        super().makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.isLost = self.isClosing = True
        self.patience.stop()
        if self._isFull:
            HELD.releaseAll(self)

    def breakOff(self) -> None:
        """Close at once, perhaps to make room."""
        self.isClosing = True
        self.patience.stop()
        self.transport.abortConnection()

    # For subclasses

    def late(self) -> None:
        """Called when a request, or the rest of it, has not come in time."""

    def answered(self, run: Run, data: bytes) -> None:
        """Called with bytes from the service."""

    def answersEnded(self, run: Run) -> None:
        """Called when the service sends no more."""

    def runBroke(self, run: Run, reason: TunnelError) -> None:
        """Called when the way to the service is broken, or was refused."""

    def runLeaves(self, run: Run) -> None:
        """Called when no more requests may be sent this way."""

    # The run

    def runFor(self, exchange: Exchange, route: Route) -> Run | None:
        """
        Find the run for a request: the one that this connection has, if it leads there
        and may be used again, or a new one.

        @return: C{None} if the request was refused.
        """
        run, now = self.run, exchange.began
        if (
            run is not None
            and run.route is route
            and run.isUsable
            and run.visitor == exchange.origin.address
            and (exchange.isRepeatable or now - run.heardAt < FRESH)
        ):
            exchange.reused = True
            run.reader.toHead = exchange.head.method == b"HEAD"
            return run
        self.leaveRun()
        return self.newRun(exchange, route)

    def newRun(self, exchange: Exchange, route: Route) -> Run | None:
        """
        Begin a run with a request.

        @return: C{None} if that was refused.
        """
        reactor, here = self.site.reactor, self.transport.getHost()
        self.run = run = Run(self, route, reactor, exchange.origin.address, here)
        run.reader.toHead = exchange.head.method == b"HEAD"
        if self._isFull:
            run.pauseAnswers()
        route.arrived(run, exchange.origin.peer)
        return self.run

    def leaveRun(self, reason: TunnelError | None = None) -> None:
        """
        Leave the service.

        @param reason: Why that is done at once; C{None} to do it in good order.
        """
        run, self.run = self.run, None
        if run is not None:
            run.leave() if reason is None else run.abandon(reason)
            self.hold(RUN, False)

    def flush(self) -> None:
        """Send what is gathered."""
        if self.out:
            out, self.out = self.out, []
            if self.run is not None:
                self.run.send(out[0] if len(out) == 1 else b"".join(out))

    # Backpressure

    def hold(self, why: int, yes: bool) -> None:
        """
        Hold reading for a reason, or release it; reading goes on when there is no other
        reason.

        @param why: L{QUEUE} or L{RUN}.
        """
        before = self.held
        self.held = before | why if yes else before & ~why
        if self.isLost or self.isClosing:
            return
        if self.held and not before:
            self.transport.pauseProducing()
        elif before and not self.held:
            self.transport.resumeProducing()

    def runFull(self, run: Run, isFull: bool) -> None:
        if run is self.run:
            self.hold(RUN, isFull)

    def pauseProducing(self) -> None:
        self._isFull = True
        HELD.hold(self, unsent(self.transport), self._evict)
        if self.run is not None:
            self.run.pauseAnswers()

    def resumeProducing(self) -> None:
        self._isFull = False
        HELD.releaseAll(self)
        if self.run is not None:
            self.run.resumeAnswers()

    def stopProducing(self) -> None:
        """The transport is gone; L{connectionLost} follows."""

    def _evict(self, reason: TunnelError) -> None:
        self.leaveRun(reason)
        self.breakOff()
