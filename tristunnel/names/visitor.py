"""
A visitor's connection to the ports that names share: its requests, one after another,
each to the tunnel of its own host and path.

A connection is in one of these states::

    ========= ================================ ======================================
    state     what comes from the visitor      left when
    ========= ================================ ======================================
    idle      the head of a request            it is complete
    exchange  the request's body; what is      request and response are complete: to
              behind it waits, and reading     idle, or to closing; the service
              pauses                           agrees to an upgrade: to through
    through   goes to the service as it is     either side has ended
    closing   is thrown away                   the visitor has what it was sent
    ========= ================================ ======================================
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.memory import HELD
from tristunnel.dataplane.stock import tuneSocket, unsent
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.errors import TunnelError
from tristunnel.names.exchange import Exchange
from tristunnel.names.gate import Answer, AtGate
from tristunnel.names.heads import ANYBODY, Guest, requestBytes, trailerBytes
from tristunnel.names.origin import Origins
from tristunnel.names.pages import statusOf, textOf
from tristunnel.names.patience import Patience
from tristunnel.names.queue import RequestQueue
from tristunnel.names.run import Run
from tristunnel.names.site import NameSite, Waiting, hostOf
from tristunnel.names.table import Route
from tristunnel.names.whole import handOver
from tristunnel.wire.http import Event, MessageEnd, RequestHead

__all__ = ["VisitorConnection"]

FRESH = 1.0
"""Seconds after a response in which a request that cannot be repeated may use the same
connection: a service may be about to close one that has been idle for longer."""

QUEUE, RUN = 1, 2
"""Reasons why reading is held: something waits for its turn; the service takes no
more."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class VisitorConnection(Protocol):
    """
    A visitor's connection.

    @param site: What is served.
    @param secure: Whether it has TLS.
    @param waiting: Counts it until it is known what it wants.
    @param remaining: Seconds in which the first head must come.
    """

    transport: Any

    def __init__(
        self, site: NameSite, secure: bool, waiting: Waiting, remaining: float
    ) -> None:
        self._site = site
        self._secure = secure
        self._waiting = waiting
        self._remaining = remaining
        self._requests = RequestQueue()
        self._patience = Patience(site, self._late, self.breakOff)
        self._out: list[bytes] = []
        self._exchange: Exchange | None = None
        self._run: Run | None = None
        self._held = 0
        self._full = self._through = self._closing = self._over = False
        self._advancing = False

    # IProtocol

    def makeConnection(self, transport: ITransport) -> None:
        if isinstance(transport, SocketTransport):
            # This avoids a call in between, and half-closes get here.
            transport.protocol = self
        super().makeConnection(transport)

    def connectionMade(self) -> None:
        tuneSocket(self.transport)
        self._waiting.leave = self.breakOff
        peer = self.transport.getPeer()
        self._origins = Origins(self._site.proxies, peer, self._secure)
        self.transport.registerProducer(self, True)
        self._patience.begin(self._remaining)

    def dataReceived(self, data: bytes) -> None:
        if self._through:
            if self._run is not None:
                self._run.send(data)
            return
        if self._closing:
            return
        self._requests.add(data)
        self._advance()

    def readConnectionLost(self) -> None:
        exchange = self._exchange
        if self._through:
            if self._run is not None:
                self._run.endRequests()
        elif exchange is None or not exchange.requestDone:
            self._close()
        else:
            exchange.keepAlive = False
            self._patience.watch(lambda: exchange.sent, self.transport.abortConnection)

    def writeConnectionLost(self) -> None:
        """Our own end has been sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = self._closing = True
        self._patience.stop()
        self._waiting.known()
        HELD.releaseAll(self)
        run, self._run = self._run, None
        if run is not None:
            orderly = self._through and reason.check(ConnectionDone)
            isIdle = self._exchange is None and not self._through
            left = TunnelError("reset", "the visitor has left")
            run.leave() if orderly or isIdle else run.abandon(left)
        self._logged(0 if self._through else 499)

    def _late(self) -> None:
        """Handle that a request, or the rest of it, has not come in time."""
        if self._requests.isBetween:
            self._close()
        else:
            self._refuse(408, "the request did not come in time")

    def breakOff(self) -> None:
        """Close at once, perhaps to make room."""
        self._closing = True
        self._patience.stop()
        self.transport.abortConnection()

    # What the visitor sends

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        requests = self._requests
        events = requests.events
        try:
            while not (self._closing or self._through) and (events or requests.read()):
                if not self._take(events[0]):
                    break
                if events:
                    events.popleft()
        finally:
            self._advancing = False
        if self._out:
            self._flush()
        if not (self._closing or self._through):
            waits = requests.waits
            if waits or self._held:
                self._hold(QUEUE, waits)
            exchange = self._exchange
            if not (exchange is None or exchange.requestDone or exchange.isWatched):
                self._patience.body(exchange, lambda: self._held)

    def _take(self, event: Any) -> bool:
        """
        Handle an event.

        @return: Whether it was its turn.
        """
        exchange = self._exchange
        kind = type(event)
        if exchange is not None and exchange.reception is not None:
            return exchange.reception.take(event)
        if kind is bytes:
            if exchange is not None:
                exchange.came += len(event)
                if exchange.head.chunked:
                    self._out.append(b"%x\r\n%b\r\n" % (len(event), event))
                else:
                    self._out.append(event)
        elif kind is RequestHead:
            if exchange is not None:
                return False
            self._begin(event)
        elif kind is MessageEnd:
            if exchange is not None:
                self._requestDone(exchange, event)
        else:
            if exchange is not None and exchange.requestDone:
                return False
            self._refuse(event.status, event.reason)
        return True

    def _begin(self, head: RequestHead) -> None:
        site = self._site
        self._patience.came()
        self._waiting.known()
        host, origin = hostOf(head.host), self._origins.of(head)
        exchange = Exchange(head, host, origin, site.seconds())
        exchange.keepAlive = head.keepAlive and not site.names.isLeaving
        own = site.received(exchange)
        if own is None and site.passes(exchange, self.transport, self._requests.first):
            return
        self._exchange = exchange
        if own is not None:
            self._answer(*own)
        elif exchange.route is not None and exchange.route.gate is None:
            self._goOn(exchange, exchange.route)
        else:
            exchange.connection = self
            exchange.reception = waiting = AtGate(site.reactor, self._gateSaid)
            waiting.begin(site.gate.ask(exchange))
            if exchange.reception is not None:
                # What its service sends meanwhile does not answer this request.
                self._leaveRun()

    def _gateSaid(self, said: Guest | Answer | None) -> None:
        """Go on as a tunnel's gate has decided on the request."""
        exchange = self._exchange
        assert exchange is not None
        exchange.reception = None
        if isinstance(said, Guest) and exchange.route is not None:
            self._goOn(exchange, exchange.route, said)
            self._advance()
        elif isinstance(said, Answer):
            self._answer(said.status, said.data)
        else:
            self._refuse(500, "The sign-in of this name does not work.")

    def _goOn(self, exchange: Exchange, route: Route, guest: Guest = ANYBODY) -> None:
        head, origin = exchange.head, exchange.origin
        exchange.written = requestBytes(head, route.rules, origin, guest)
        first, self._requests.first = self._requests.first, None
        if route.options.raw:
            self._goThrough(exchange, route, first)
            return
        if self._runFor(exchange, route) is not None:
            self._out.append(exchange.written)

    def _runFor(self, exchange: Exchange, route: Route) -> Run | None:
        """
        Find the run for a request: the one that this connection has, if it leads there
        and may be used again, or a new one.

        @return: C{None} if the request was refused.
        """
        run, now = self._run, exchange.began
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
        self._leaveRun()
        return self._newRun(exchange, route)

    def _newRun(self, exchange: Exchange, route: Route) -> Run | None:
        reactor, here = self._site.reactor, self.transport.getHost()
        self._run = run = Run(self, route, reactor, exchange.origin.address, here)
        run.reader.toHead = exchange.head.method == b"HEAD"
        if self._full:
            run.pauseAnswers()
        route.arrived(run, exchange.origin.peer)
        return self._run

    def _requestDone(self, exchange: Exchange, end: MessageEnd) -> None:
        exchange.requestDone = True
        if exchange.isWatched:
            self._patience.stop()
        if exchange.head.chunked:
            self._out.append(trailerBytes(end.trailers, True))
        if exchange.responseDone:
            self._flush()
            self._exchangeDone(exchange)

    def _flush(self) -> None:
        if self._out:
            out, self._out = self._out, []
            if self._run is not None:
                self._run.send(out[0] if len(out) == 1 else b"".join(out))

    # What the service sends

    def answered(self, run: Run, data: bytes) -> None:
        if self._through:
            if self._exchange is not None:
                self._logged(0)
            self.transport.write(data)
            return
        # The next request waits until it is known that nothing follows this response.
        advancing, self._advancing = self._advancing, True
        try:
            self._takeAnswers(run, run.reader.feed(data))
        finally:
            self._advancing = advancing
        if self._held or self._requests.waits:
            self._advance()

    def _takeAnswers(self, run: Run, events: list[Event]) -> None:
        for event in events:
            exchange = self._exchange
            if run is not self._run or self._through:
                return
            if exchange is None:
                # It was not asked for, so this service cannot be relied on.
                self._leaveRun(TunnelError("protocol-error", "an answer too many"))
                return
            try:
                data = exchange.answered(event)
            except TunnelError as reason:
                self._broken(exchange, reason)
                return
            if data:
                self.transport.write(data)
            if exchange.isUpgraded:
                self._upgraded(run)
            elif exchange.responseDone and exchange.requestDone:
                self._exchangeDone(exchange)

    def answersEnded(self, run: Run) -> None:
        if run is not self._run:
            return
        if self._through:
            # It ends its direction of a connection that was upgraded.
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()
            return
        exchange = self._exchange
        self._takeAnswers(run, run.reader.ended())
        if self._run is not run:
            return
        if exchange is not None and self._exchange is exchange:
            if exchange.responseDone:
                # It does not want the rest of the request.
                self._close()
            else:
                why = "the service closed the connection without an answer"
                self._broken(exchange, TunnelError("reset", why))
            return
        self._leaveRun()

    def runBroke(self, run: Run, reason: TunnelError) -> None:
        if run is not self._run:
            return
        self._run = None
        self._hold(RUN, False)
        if self._through and self._exchange is None:
            self._over = True
            self.transport.abortConnection()
        elif self._exchange is not None:
            self._through = False
            self._broken(self._exchange, reason)

    def runLeaves(self, run: Run) -> None:
        if run is self._run and self._exchange is None and not self._through:
            self._leaveRun()

    def runFull(self, run: Run, isFull: bool) -> None:
        if run is self._run:
            self._hold(RUN, isFull)

    def _broken(self, exchange: Exchange, reason: TunnelError) -> None:
        """Handle that a response breaks off, or never came."""
        self._leaveRun(reason)
        self._out = []
        if exchange.response is not None:
            if exchange.responseDone:
                self._close()
            else:
                # A visitor who has half of it must not take that for the whole.
                self._logged(502)
                self.breakOff()
        elif exchange.mayRepeat and exchange.route is not None:
            exchange.reused = False
            run = self._newRun(exchange, exchange.route)
            if run is not None:
                run.send(exchange.written)
        else:
            self._refuse(statusOf(reason), textOf(reason), reason.retryAfter)

    def _exchangeDone(self, exchange: Exchange) -> None:
        run, now = self._run, self._site.seconds()
        response = exchange.response
        self._logged(0)
        if run is not None:
            run.heardAt = now
            if not (run.isUsable and response is not None and response.keepAlive):
                self._leaveRun()
        if self._over:
            return
        if not exchange.keepAlive:
            self._close()
            return
        self._requests.declined()
        self._patience.begin()
        self._advance()

    # Beyond requests

    def _upgraded(self, run: Run) -> None:
        """Pass bytes both ways from now on, since the service has agreed."""
        self._through = True
        self._patience.stop()
        self._logged(0)
        if run.reader.rest:
            self.transport.write(run.reader.rest)
        early = self._requests.rest()
        self._hold(QUEUE, False)
        self._flush()
        if early:
            run.send(early)

    def _goThrough(self, exchange: Exchange, route: Route, first: bytes | None) -> None:
        """Join the connection to the tunnel as bytes, after its first head."""
        if first is None:
            # Requests for another tunnel came before, and what follows has been read.
            self._refuse(421, "connect again for this name")
            return
        whole = first.lstrip(b"\r\n")
        early = exchange.written + whole[whole.find(b"\r\n\r\n") + 4 :]
        self._patience.stop()
        self._through = True
        transport = self.transport
        if isinstance(transport, SocketTransport):
            transport.unregisterProducer()
            handOver(transport, self._site, exchange, route, early, self._logged)
            return
        run = self._newRun(exchange, route)
        if run is not None:
            run.send(early)

    # The end

    def _logged(self, status: int) -> None:
        """
        Note how a request has ended, once.

        @param status: The status if there was no response.
        """
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            if exchange.reception is not None:
                exchange.reception.cancel()
            self._site.ended(exchange, status)

    def _refuse(self, status: int, text: str, retryAfter: float | None = None) -> None:
        """Answer in the service's place, and close the connection."""
        exchange = self._exchange
        head = None if exchange is None else exchange.head
        if exchange is not None and exchange.response is not None:
            self.breakOff()
            return
        if exchange is not None and not exchange.requestDone:
            # The service must not take what it has of the request for the whole.
            self._leaveRun(TunnelError("protocol-error", text))
        self._answer(status, self._site.page(head, status, text, retryAfter))

    def _answer(self, status: int, written: bytes) -> None:
        """Answer with what the server has itself, and close the connection."""
        self.transport.write(written)
        self._logged(status)
        self._close()

    def _close(self) -> None:
        if self._over:
            return
        self._closing = True
        self._patience.stop()
        exchange = self._exchange
        if exchange is not None and not exchange.responseDone:
            self._leaveRun(TunnelError("reset", "the visitor has left"))
        self._leaveRun()
        self._logged(499)
        self._requests.clear()
        self._out = []
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _leaveRun(self, reason: TunnelError | None = None) -> None:
        """Leave a service: in good order, or at once."""
        run, self._run = self._run, None
        if run is not None:
            run.leave() if reason is None else run.abandon(reason)
            self._hold(RUN, False)

    # Backpressure

    def _hold(self, why: int, yes: bool) -> None:
        """
        Hold reading for a reason, or release it; reading goes on when there is no other
        reason.
        """
        before = self._held
        self._held = before | why if yes else before & ~why
        if self._over or self._closing:
            return
        if self._held and not before:
            self.transport.pauseProducing()
        elif before and not self._held:
            self.transport.resumeProducing()

    def pauseProducing(self) -> None:
        self._full = True
        HELD.hold(self, unsent(self.transport), self._evict)
        if self._run is not None:
            self._run.pauseAnswers()

    def resumeProducing(self) -> None:
        self._full = False
        HELD.releaseAll(self)
        if self._run is not None:
            self._run.resumeAnswers()

    def stopProducing(self) -> None:
        """The transport is gone; L{connectionLost} follows."""

    def _evict(self, reason: TunnelError) -> None:
        self._leaveRun(reason)
        self.breakOff()
