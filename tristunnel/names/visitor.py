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
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.stock import tuneSocket
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.errors import TunnelError
from tristunnel.names.answered import AnsweredConnection
from tristunnel.names.exchange import Exchange
from tristunnel.names.gate import Answer, AtGate
from tristunnel.names.heads import ANYBODY, Guest, requestBytes, trailerBytes
from tristunnel.names.origin import Origins
from tristunnel.names.served import QUEUE
from tristunnel.names.site import NameSite, Waiting, hostOf
from tristunnel.names.table import Route
from tristunnel.names.whole import handOver
from tristunnel.wire.http import MessageEnd, RequestHead

__all__ = ["VisitorConnection"]


@implementer(IHalfCloseableProtocol)
class VisitorConnection(AnsweredConnection):
    """
    A visitor's connection.

    @param site: What is served.
    @param secure: Whether it has TLS.
    @param waiting: Counts it until it is known what it wants.
    @param remaining: Seconds in which the first head must come.
    """

    def __init__(
        self, site: NameSite, secure: bool, waiting: Waiting, remaining: float
    ) -> None:
        super().__init__(site)
        self._secure = secure
        self._waiting = waiting
        self._remaining = remaining

    # IProtocol

    def connectionMade(self) -> None:
        tuneSocket(self.transport)
        self._waiting.leave = self.breakOff
        peer = self.transport.getPeer()
        self._origins = Origins(self.site.proxies, peer, self._secure)
        self.transport.registerProducer(self, True)
        self.patience.begin(self._remaining)

    def dataReceived(self, data: bytes) -> None:
        if self.isThrough:
            if self.run is not None:
                self.run.send(data)
            return
        if self.isClosing:
            return
        self.requests.add(data)
        self.advance()

    def readConnectionLost(self) -> None:
        exchange = self.exchange
        if self.isThrough:
            if self.run is not None:
                self.run.endRequests()
        elif exchange is None or not exchange.requestDone:
            self.close()
        else:
            exchange.keepAlive = False
            self.patience.watch(lambda: exchange.sent, self.transport.abortConnection)

    def writeConnectionLost(self) -> None:
        """Our own end has been sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._waiting.known()
        run, self.run = self.run, None
        if run is not None:
            orderly = self.isThrough and reason.check(ConnectionDone)
            isIdle = self.exchange is None and not self.isThrough
            left = TunnelError("reset", "the visitor has left")
            run.leave() if orderly or isIdle else run.abandon(left)
        if self.exchange is not None:
            self.logged(0 if self.isThrough else 499)

    def late(self) -> None:
        """Handle that a request, or the rest of it, has not come in time."""
        if self.requests.isBetween:
            self.close()
        else:
            self.refuse(408, "the request did not come in time")

    # What the visitor sends

    def advance(self) -> None:
        if self.isAdvancing:
            return
        self.isAdvancing = True
        requests = self.requests
        events = requests.events
        try:
            while not (self.isClosing or self.isThrough) and (
                events or requests.read()
            ):
                if not self._take(events[0]):
                    break
                if events:
                    events.popleft()
        finally:
            self.isAdvancing = False
        if self.out:
            self.flush()
        if not (self.isClosing or self.isThrough):
            waits = requests.waits
            if waits or self.held:
                self.hold(QUEUE, waits)
            exchange = self.exchange
            if not (exchange is None or exchange.requestDone or exchange.isWatched):
                self.patience.body(exchange, lambda: self.held)

    def _take(self, event: Any) -> bool:
        """
        Handle an event.

        @return: Whether it was its turn.
        """
        exchange = self.exchange
        kind = type(event)
        if exchange is not None and exchange.reception is not None:
            return exchange.reception.take(event)
        if kind is bytes:
            if exchange is not None:
                exchange.came += len(event)
                if exchange.head.chunked:
                    self.out.append(b"%x\r\n%b\r\n" % (len(event), event))
                else:
                    self.out.append(event)
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
            self.refuse(event.status, event.reason)
        return True

    def _begin(self, head: RequestHead) -> None:
        site = self.site
        self.patience.came()
        self._waiting.known()
        host, origin = hostOf(head.host), self._origins.of(head)
        exchange = Exchange(head, host, origin, site.seconds())
        exchange.keepAlive = head.keepAlive and not site.names.isLeaving
        own = site.received(exchange)
        if own is None and site.passes(exchange, self.transport, self.requests.first):
            return
        self.exchange = exchange
        if own is not None:
            self.answer(*own)
        elif exchange.route is not None and exchange.route.gate is None:
            self._goOn(exchange, exchange.route)
        else:
            exchange.connection = self
            exchange.reception = waiting = AtGate(site.reactor, self._gateSaid)
            waiting.begin(site.gate.ask(exchange))
            if exchange.reception is not None:
                # What its service sends meanwhile does not answer this request.
                self.leaveRun()

    def _gateSaid(self, said: Guest | Answer | None) -> None:
        """Go on as a tunnel's gate has decided on the request."""
        exchange = self.exchange
        assert exchange is not None
        exchange.reception = None
        if isinstance(said, Guest) and exchange.route is not None:
            self._goOn(exchange, exchange.route, said)
            self.advance()
        elif isinstance(said, Answer):
            self.answer(said.status, said.data)
        else:
            self.refuse(500, "The sign-in of this name does not work.")

    def _goOn(self, exchange: Exchange, route: Route, guest: Guest = ANYBODY) -> None:
        head, origin = exchange.head, exchange.origin
        exchange.written = requestBytes(head, route.rules, origin, guest)
        first, self.requests.first = self.requests.first, None
        if route.options.raw:
            self._goThrough(exchange, route, first)
            return
        if self.runFor(exchange, route) is not None:
            self.out.append(exchange.written)

    def _requestDone(self, exchange: Exchange, end: MessageEnd) -> None:
        exchange.requestDone = True
        if exchange.isWatched:
            self.patience.stop()
        if exchange.head.chunked:
            self.out.append(trailerBytes(end.trailers, True))
        if exchange.responseDone:
            self.flush()
            self.exchangeDone(exchange)

    # Beyond requests

    def _goThrough(self, exchange: Exchange, route: Route, first: bytes | None) -> None:
        """Join the connection to the tunnel as bytes, after its first head."""
        if first is None:
            # Requests for another tunnel came before, and what follows has been read.
            self.refuse(421, "connect again for this name")
            return
        whole = first.lstrip(b"\r\n")
        early = exchange.written + whole[whole.find(b"\r\n\r\n") + 4 :]
        self.patience.stop()
        self.isThrough = True
        transport = self.transport
        if isinstance(transport, SocketTransport):
            transport.unregisterProducer()
            handOver(transport, self.site, exchange, route, early, self.logged)
            return
        run = self.newRun(exchange, route)
        if run is not None:
            run.send(early)
