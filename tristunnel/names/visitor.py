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

from collections import deque
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

from tristunnel.dataplane.deadlines import Key, deadlinesOf
from tristunnel.dataplane.memory import HELD
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.stock import tuneSocket, unsent
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.errors import TunnelError
from tristunnel.names.exchange import Exchange
from tristunnel.names.heads import (
    Origin,
    requestBytes,
    responseBytes,
    trailerBytes,
)
from tristunnel.names.pages import statusOf, textOf
from tristunnel.names.run import Run
from tristunnel.names.site import NameSite, Waiting, hostOf
from tristunnel.names.table import Route
from tristunnel.util.hosts import addressOf, addressText
from tristunnel.wire.http import (
    BadMessage,
    MessageEnd,
    RequestHead,
    RequestReader,
    ResponseHead,
)

__all__ = ["VisitorConnection"]

SLICE = 8 * 1024
"""Bytes that are read at once while they are heads, so that a crowd of small requests
waits as the bytes that it came as, and not as objects."""

IDLE = 60.0
"""Seconds in which the next request's head must have come."""

FRESH = 1.0
"""Seconds after a response in which a request that cannot be repeated goes by the same
connection: a service may be about to close one that has been idle for longer."""

HALF_OPEN = 30.0
"""Seconds without a byte of the response after which a visitor has left who has ended
its direction."""

QUEUE, RUN = 1, 2
"""Why reading is held: something waits for its turn; the service takes no more."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class VisitorConnection(Protocol):
    """
    A visitor's connection.

    @param site: What is served.
    @param secure: Whether it has TLS.
    @param waiting: Counts it as long as nobody knows what it wants.
    @param remaining: Seconds in which the first head must come.
    """

    transport: Any

    def __init__(
        self, site: NameSite, secure: bool, waiting: Waiting, remaining: float
    ) -> None:
        self._site = site
        self._scheme = b"https" if secure else b"http"
        self._byProxy = False
        self._waiting = waiting
        self._remaining = remaining
        self._reader = RequestReader()
        self._events: deque[Any] = deque()
        self._input = b""
        self._first: bytes | None = b""
        self._out: list[bytes] = []
        self._exchange: Exchange | None = None
        self._run: Run | None = None
        self._origin: Origin | None = None
        self._peer = self._host = ""
        self._held = 0
        self._full = self._through = self._closing = self._over = False
        self._advancing = False
        self._deadline: Key | None = None
        self._until = 0.0

    # IProtocol

    def makeConnection(self, transport: ITransport) -> None:
        if isinstance(transport, SocketTransport):
            # No calls in between, and half-closes are ours to see.
            transport.protocol = self
        super().makeConnection(transport)

    def connectionMade(self) -> None:
        tuneSocket(self.transport)
        self._waiting.leave = self._makeRoom
        peer = self.transport.getPeer()
        self._peer = addressText(peer)
        host = getattr(peer, "host", None) or "unknown"
        # Of a port that has both families, an address of IPv4 is still one.
        self._host = str(addressOf(host) or host)
        self._byProxy = self._site.proxies.speaksFor(self._host)
        self.transport.registerProducer(self, True)
        self._awaitHead(self._remaining)

    def dataReceived(self, data: bytes) -> None:
        if self._through:
            if self._run is not None:
                self._run.send(data)
            return
        if self._closing:
            return
        if self._first is not None:
            self._first += data
        self._input = self._input + data if self._input else data
        self._advance()

    def readConnectionLost(self) -> None:
        """The visitor sends no more, but may still listen."""
        exchange = self._exchange
        if self._through:
            if self._run is not None:
                self._run.endRequests()
        elif exchange is None or not exchange.requestDone:
            self._close()
        else:
            exchange.keepAlive = False
            self._stopWaiting()
            self._awaitBytes(exchange, exchange.sent)

    def writeConnectionLost(self) -> None:
        """Our end is on its way."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = self._closing = True
        self._stopWaiting()
        self._waiting.known()
        HELD.letGo(self)
        run, self._run = self._run, None
        if run is not None:
            orderly = self._through and reason.check(ConnectionDone)
            if orderly or (self._exchange is None and not self._through):
                run.leave()
            else:
                run.abandon(TunnelError("reset", "the visitor has left"))
        self._logged(499)

    # Time

    def _awaitHead(self, seconds: float) -> None:
        site = self._site
        self._until = site.reactor.seconds() + seconds
        site.idle[self] = None
        if len(site.idle) > site.mostIdle:
            next(iter(site.idle))._makeRoom()
        if self._deadline is None:
            self._deadline = deadlinesOf(site.reactor).add(seconds, self._late)

    def _stopWaiting(self) -> None:
        self._site.idle.pop(self, None)
        if self._deadline is not None:
            deadlinesOf(self._site.reactor).cancel(self._deadline)
            self._deadline = None

    def _late(self) -> None:
        """
        Look whether a head is overdue. One look lasts for all requests that come until
        then, so that none of them costs a deadline of its own.
        """
        self._deadline = None
        if self not in self._site.idle:
            # It is being answered; then its next head is awaited anew.
            return
        left = self._until - self._site.reactor.seconds()
        if left > 0:
            self._deadline = deadlinesOf(self._site.reactor).add(left, self._late)
        elif self._reader.isBetween:
            self._close()
        else:
            self._refuse(408, "the request did not come in time")

    def _makeRoom(self) -> None:
        """Leave, for somebody else."""
        self._closing = True
        self._stopWaiting()
        self.transport.abortConnection()

    def _awaitBytes(self, exchange: Exchange, sent: int) -> None:
        def late() -> None:
            self._deadline = None
            if self._exchange is exchange and not self._over:
                if exchange.sent == sent:
                    self.transport.abortConnection()
                else:
                    self._awaitBytes(exchange, exchange.sent)

        self._deadline = deadlinesOf(self._site.reactor).add(HALF_OPEN, late)

    # What the visitor sends

    def _advance(self) -> None:
        """Go as far as what has come allows."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while not (self._closing or self._through):
                if self._events:
                    if not self._take(self._events[0]):
                        break
                    if self._events:
                        self._events.popleft()
                elif self._input:
                    self._readSome()
                else:
                    break
        finally:
            self._advancing = False
        self._flush()
        if self._closing or self._through:
            return
        rest = self._reader.rest
        self._hold(QUEUE, bool(self._events or self._input or (rest and len(rest))))

    def _readSome(self) -> None:
        data = self._input
        if len(data) > SLICE and not self._reader.inBody:
            data, self._input = data[:SLICE], data[SLICE:]
        else:
            self._input = b""
        self._events.extend(self._reader.feed(data))

    def _take(self, event: Any) -> bool:
        """
        Do what an event asks for.

        @return: Whether it was its turn.
        """
        exchange = self._exchange
        kind = type(event)
        if kind is bytes:
            if exchange is not None:
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
        """A request's head is there."""
        site = self._site
        site.idle.pop(self, None)
        self._waiting.known()
        host = hostOf(head.host)
        visitor, scheme = self._host, self._scheme
        if self._byProxy:
            visitor = site.visitorOf(visitor, head)
            scheme = site.schemeOf(head, scheme)
        now = site.reactor.seconds()
        self._exchange = exchange = Exchange(head, host, visitor, now, scheme)
        exchange.keepAlive = head.keepAlive
        own = site.ownAnswer(exchange)
        if own is not None:
            self._answer(own)
            return
        route = site.names.table.find("http", host, head.target.decode("ascii"))
        if route is None:
            self._refuse(404, f"No tunnel of this server has the name {host}.")
            return
        exchange.route = route
        own = site.redirect(exchange)
        if own is not None:
            self._answer(own)
            return
        exchange.written = requestBytes(head, route.rules, self._originOf(exchange))
        first, self._first = self._first, None
        if route.options.raw:
            self._goThrough(exchange, route, first)
            return
        run = self._runFor(exchange, route)
        if run is not None:
            self._out.append(exchange.written)

    def _originOf(self, exchange: Exchange) -> Origin:
        origin = self._origin
        if origin is None or self._byProxy:
            said = exchange.head.get(b"x-forwarded-for") if self._byProxy else b""
            address = self._host if said else exchange.visitor
            self._origin = origin = Origin(address, exchange.scheme, said)
        return origin

    def _runFor(self, exchange: Exchange, route: Route) -> Run | None:
        """
        Find the way to a service: the one that this connection has, if it leads there
        and may be used again, or another.

        @return: C{None} if the request was refused.
        """
        run, now = self._run, exchange.began
        if (
            run is not None
            and run.route is route
            and run.isUsable
            and run.visitor == exchange.visitor
            and (exchange.isRepeatable or now - run.heardAt < FRESH)
        ):
            exchange.reused = True
            run.reader.toHead = exchange.head.method == b"HEAD"
            return run
        self._leaveRun()
        return self._newRun(exchange, route)

    def _newRun(self, exchange: Exchange, route: Route) -> Run | None:
        reactor = self._site.reactor
        here = self.transport.getHost()
        run = Run(self, route, reactor, exchange.visitor, here)
        run.reader.toHead = exchange.head.method == b"HEAD"
        if self._full:
            run.pauseAnswers()
        self._run = run
        address = self._peer
        if exchange.visitor != self._host:
            # A proxy speaks for it, and does not say its port.
            address = self._site.addressText(exchange.visitor)
        route.arrived(run, address)
        return self._run

    def _requestDone(self, exchange: Exchange, end: MessageEnd) -> None:
        exchange.requestDone = True
        if exchange.head.chunked:
            self._out.append(trailerBytes(end.trailers, True))
        if exchange.responseDone:
            self._flush()
            self._exchangeDone(exchange)

    def _flush(self) -> None:
        """Send to the service what was gathered for it."""
        if self._out:
            out, self._out = self._out, []
            if self._run is not None:
                self._run.send(out[0] if len(out) == 1 else b"".join(out))

    # What the service sends

    def answered(self, run: Run, data: bytes) -> None:
        if self._through:
            self.transport.write(data)
            return
        for event in run.reader.feed(data):
            exchange = self._exchange
            if run is not self._run or self._through:
                return
            if exchange is None or exchange.responseDone:
                # More than was asked for: nobody knows what to make of this service.
                self._dropRun(TunnelError("protocol-error", "an answer too many"))
                if exchange is not None:
                    self._close()
                return
            self._takeAnswer(exchange, event)

    def _takeAnswer(self, exchange: Exchange, event: Any) -> None:
        kind = type(event)
        if kind is bytes:
            exchange.sent += len(event)
            if exchange.chunks:
                event = b"%x\r\n%b\r\n" % (len(event), event)
            self.transport.write(event)
        elif kind is MessageEnd:
            if exchange.isInterim:
                exchange.isInterim = False
                return
            if exchange.chunks:
                self.transport.write(trailerBytes(event.trailers, False))
            exchange.responseDone = True
            if exchange.requestDone:
                self._exchangeDone(exchange)
        elif kind is BadMessage:
            self._broken(exchange, TunnelError("protocol-error", event.reason))
        else:
            self._responseBegins(exchange, event)

    def _responseBegins(self, exchange: Exchange, head: ResponseHead) -> None:
        route, scheme = exchange.route, exchange.scheme
        assert route is not None
        if head.status == 101:
            if not (head.upgrade and exchange.head.upgrade):
                why = "the service has upgraded without being asked"
                self._broken(exchange, TunnelError("protocol-error", why))
                return
            exchange.response = head
            written = responseBytes(head, route.rules, exchange.head, scheme, b"")
            self.transport.write(written)
            self._upgraded(exchange)
            return
        if head.isInterim:
            exchange.isInterim = True
            if exchange.head.version == "1.1":
                self.transport.write(
                    responseBytes(head, route.rules, exchange.head, scheme, b"")
                )
            return
        framing = exchange.framed(head)
        self.transport.write(
            responseBytes(head, route.rules, exchange.head, scheme, framing)
        )

    def answersEnded(self, run: Run) -> None:
        if run is not self._run:
            return
        if self._through:
            self._endThrough()
            return
        exchange = self._exchange
        for event in run.reader.ended():
            if exchange is not None and self._run is run:
                self._takeAnswer(exchange, event)
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
        if self._through:
            self._over = True
            self.transport.abortConnection()
        elif self._exchange is not None:
            self._broken(self._exchange, reason)

    def runFull(self, run: Run, isFull: bool) -> None:
        if run is self._run:
            self._hold(RUN, isFull)

    def _broken(self, exchange: Exchange, reason: TunnelError) -> None:
        """There is no more of a response, or never was any."""
        self._dropRun(reason)
        self._out = []
        if exchange.response is not None:
            if exchange.responseDone:
                self._close()
            else:
                # Whoever has half of it must not take that for the whole.
                self._logged(502)
                self._closing = True
                self.transport.abortConnection()
        elif exchange.mayRepeat and exchange.route is not None:
            exchange.reused = False
            run = self._newRun(exchange, exchange.route)
            if run is not None:
                run.send(exchange.written)
        else:
            headers = b""
            if reason.retryAfter is not None:
                headers = b"Retry-After: %d\r\n" % max(1, round(reason.retryAfter))
            self._refuse(statusOf(reason), textOf(reason), headers)

    def _exchangeDone(self, exchange: Exchange) -> None:
        """Request and response are complete."""
        run, now = self._run, self._site.reactor.seconds()
        response = exchange.response
        self._logged(0)
        if run is not None:
            run.heardAt = now
            if run.ended or response is None or not response.keepAlive:
                self._leaveRun()
        if self._over:
            return
        if not exchange.keepAlive:
            self._close()
            return
        if self._reader.rest is not None:
            # There was no upgrade.
            self._events.extend(self._reader.goOn())
        self._awaitHead(IDLE)
        self._advance()

    # Beyond requests

    def _upgraded(self, exchange: Exchange) -> None:
        """The service agrees: bytes from now on, both ways."""
        run = self._run
        assert run is not None
        self._through = True
        self._stopWaiting()
        self._logged(0)
        if run.reader.rest:
            self.transport.write(run.reader.rest)
        rest, self._reader.rest = self._reader.rest, None
        early, self._input = (rest or b"") + self._input, b""
        self._hold(QUEUE, False)
        self._flush()
        if early:
            run.send(early)

    def _goThrough(self, exchange: Exchange, route: Route, first: bytes | None) -> None:
        """Join the connection as bytes, behind its first head."""
        if first is None:
            # Another tunnel's requests came before, and what follows was read.
            self._refuse(421, "connect again for this name")
            return
        whole = first.lstrip(b"\r\n")
        early = exchange.written + whole[whole.find(b"\r\n\r\n") + 4 :]
        self._logged(0)
        self._stopWaiting()
        self._through = True
        transport, peer = self.transport, self._peer
        transport.unregisterProducer()
        if isinstance(transport, SocketTransport):

            def arrived(end: SocketEnd) -> None:
                end.begunBy(early)
                route.arrived(end, peer)

            SocketEnd.of(transport, arrived)
            return
        reactor, here = self._site.reactor, transport.getHost()
        self._run = run = Run(self, route, reactor, exchange.visitor, here)
        route.arrived(run, peer)
        run.send(early)
        transport.registerProducer(self, True)

    def _endThrough(self) -> None:
        """The service ends its direction of a connection that was upgraded."""
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()

    # The end

    def _logged(self, status: int) -> None:
        """
        Note how a request has ended, once.

        @param status: What counts if there was no response.
        """
        exchange = self._exchange
        if exchange is not None:
            self._site.ended(exchange, status)
            self._exchange = None

    def _refuse(self, status: int, text: str, headers: bytes = b"") -> None:
        """Answer in the service's place, and close the connection."""
        exchange = self._exchange
        head = None if exchange is None else exchange.head
        if exchange is not None and exchange.response is not None:
            self._closing = True
            self.transport.abortConnection()
            return
        if exchange is not None and not exchange.requestDone:
            # What the service has of it must not be taken for the whole.
            self._dropRun(TunnelError("protocol-error", text))
        accept = b"" if head is None else head.get(b"accept")
        written = self._site.names.pages.response(
            status,
            text,
            accept,
            headers + b"Connection: close\r\n",
            head is None or head.method != b"HEAD",
        )
        self.transport.write(written)
        self._logged(status)
        self._close()

    def _answer(self, written: tuple[int, bytes]) -> None:
        """Answer with what the server has itself, and close the connection."""
        self.transport.write(written[1])
        self._logged(written[0])
        self._close()

    def _close(self) -> None:
        """Close the connection behind what was sent."""
        if self._over:
            return
        self._closing = True
        self._stopWaiting()
        exchange = self._exchange
        if exchange is not None and not exchange.responseDone:
            self._dropRun(TunnelError("reset", "the visitor has left"))
        self._leaveRun()
        self._logged(499)
        self._events.clear()
        self._input, self._out = b"", []
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _leaveRun(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.leave()
            self._hold(RUN, False)

    def _dropRun(self, reason: TunnelError) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.abandon(reason)
            self._hold(RUN, False)

    # Backpressure

    def _hold(self, why: int, yes: bool) -> None:
        """Read no more for now, or again if nothing else speaks against it."""
        before = self._held
        self._held = before | why if yes else before & ~why
        if self._over or self._closing:
            return
        if self._held and not before:
            self.transport.pauseProducing()
        elif before and not self._held:
            self.transport.resumeProducing()

    def pauseProducing(self) -> None:
        """The visitor takes no more for now."""
        self._full = True
        HELD.hold(self, unsent(self.transport), self._shed)
        if self._run is not None:
            self._run.pauseAnswers()

    def resumeProducing(self) -> None:
        """The visitor takes more."""
        self._full = False
        HELD.letGo(self)
        if self._run is not None:
            self._run.resumeAnswers()

    def stopProducing(self) -> None:
        """The transport is gone; L{connectionLost} follows."""

    def _shed(self, reason: TunnelError) -> None:
        """The memory is needed that is kept for this visitor."""
        self._dropRun(reason)
        self._closing = True
        self.transport.abortConnection()
