"""
A visitor's connection, and what it is answered: by a service, or in its place.
"""

from __future__ import annotations

from tristunnel.errors import TunnelError
from tristunnel.names.exchange import Exchange
from tristunnel.names.pages import statusOf, textOf
from tristunnel.names.queue import RequestQueue
from tristunnel.names.run import Run
from tristunnel.names.served import QUEUE, RUN, ServedConnection
from tristunnel.names.site import NameSite
from tristunnel.wire.http import Event

__all__ = ["AnsweredConnection"]


class AnsweredConnection(ServedConnection):
    """
    A visitor's connection with one exchange at a time, whose request a subclass reads.

    Each exchange is counted and logged once, whatever ends it. An answer in the
    service's place is the last one that the visitor gets; an answer that has begun and
    does not go on is broken off, so that it is not taken for a whole one.

    @param site: As for L{ServedConnection}.

    @ivar requests: What has come, of which the rest waits while there is an exchange.
    @ivar exchange: The request that is to be answered, or C{None}.
    @ivar isThrough: Whether bytes pass as they are from now on.
    @ivar isAdvancing: Whether L{advance} runs already, or is not to run yet.
    """

    exchange: Exchange | None = None
    isThrough = False
    isAdvancing = False

    def __init__(self, site: NameSite) -> None:
        super().__init__(site)
        self.requests = RequestQueue()

    def advance(self) -> None:
        """Called when the next request may be taken."""

    # What the service sends

    def answered(self, run: Run, data: bytes) -> None:
        if self.isThrough:
            if self.exchange is not None:
                self.logged(0)
            self.transport.write(data)
            return
        # The next request waits until it is known that nothing follows this response.
        advancing, self.isAdvancing = self.isAdvancing, True
        try:
            self._takeAnswers(run, run.reader.feed(data))
        finally:
            self.isAdvancing = advancing
        if self.held or self.requests.waits:
            self.advance()

    def _takeAnswers(self, run: Run, events: list[Event]) -> None:
        for event in events:
            exchange = self.exchange
            if run is not self.run or self.isThrough:
                return
            if exchange is None:
                # It was not asked for, so this service cannot be relied on.
                self.leaveRun(TunnelError("protocol-error", "an answer too many"))
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
                self.exchangeDone(exchange)

    def answersEnded(self, run: Run) -> None:
        if run is not self.run:
            return
        if self.isThrough:
            # It ends its direction of a connection that was upgraded.
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()
            return
        exchange = self.exchange
        self._takeAnswers(run, run.reader.ended())
        if self.run is not run:
            return
        if exchange is not None and self.exchange is exchange:
            if exchange.responseDone:
                # It does not want the rest of the request.
                self.close()
            else:
                why = "the service closed the connection without an answer"
                self._broken(exchange, TunnelError("reset", why))
            return
        self.leaveRun()

    def runBroke(self, run: Run, reason: TunnelError) -> None:
        if run is not self.run:
            return
        self.run = None
        self.hold(RUN, False)
        if self.isThrough and self.exchange is None:
            self.isLost = True
            self.transport.abortConnection()
        elif self.exchange is not None:
            self.isThrough = False
            self._broken(self.exchange, reason)

    def runLeaves(self, run: Run) -> None:
        if run is self.run and self.exchange is None and not self.isThrough:
            self.leaveRun()

    def _broken(self, exchange: Exchange, reason: TunnelError) -> None:
        """Handle that a response breaks off, or never came."""
        self.leaveRun(reason)
        self.out = []
        if exchange.response is not None:
            if exchange.responseDone:
                self.close()
            else:
                # A visitor who has half of it must not take that for the whole.
                self.logged(502)
                self.breakOff()
        elif exchange.mayRepeat and exchange.route is not None:
            exchange.reused = False
            run = self.newRun(exchange, exchange.route)
            if run is not None:
                run.send(exchange.written)
        else:
            self.refuse(statusOf(reason), textOf(reason), reason.retryAfter)

    def exchangeDone(self, exchange: Exchange) -> None:
        """Go on to the next request, if there may be one, after a whole response."""
        run, now = self.run, self.site.seconds()
        response = exchange.response
        self.logged(0)
        if run is not None:
            run.heardAt = now
            if not (run.isUsable and response is not None and response.keepAlive):
                self.leaveRun()
        if self.isLost:
            return
        if not exchange.keepAlive:
            self.close()
            return
        self.requests.declined()
        self.patience.begin()
        self.advance()

    def _upgraded(self, run: Run) -> None:
        """Pass bytes both ways from now on, since the service has agreed."""
        self.isThrough = True
        self.patience.stop()
        self.logged(0)
        if run.reader.rest:
            self.transport.write(run.reader.rest)
        early = self.requests.rest()
        self.hold(QUEUE, False)
        self.flush()
        if early:
            run.send(early)

    # How an exchange ends

    def logged(self, status: int) -> None:
        """
        Note how a request has ended, once.

        @param status: The status if there was no response.
        """
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            if exchange.reception is not None:
                exchange.reception.cancel()
            self.site.ended(exchange, status)

    def refuse(self, status: int, text: str, retryAfter: float | None = None) -> None:
        """
        Answer with a page in the service's place, and close the connection.

        @param text: What is the matter, in a sentence.
        @param retryAfter: Seconds after which to ask again, if that is known.
        """
        exchange = self.exchange
        head = None if exchange is None else exchange.head
        if exchange is not None and exchange.response is not None:
            self.breakOff()
            return
        if exchange is not None and not exchange.requestDone:
            # The service must not take what it has of the request for the whole.
            self.leaveRun(TunnelError("protocol-error", text))
        self.answer(status, self.site.page(head, status, text, retryAfter))

    def answer(self, status: int, written: bytes) -> None:
        """
        Answer with what the server has itself, and close the connection.

        @param status: For the log.
        @param written: The whole response.
        """
        self.transport.write(written)
        self.logged(status)
        self.close()

    def close(self) -> None:
        """Close the connection when the visitor has what was sent to it."""
        if self.isLost:
            return
        self.isClosing = True
        self.patience.stop()
        exchange = self.exchange
        if exchange is not None:
            if not exchange.responseDone:
                self.leaveRun(TunnelError("reset", "the visitor has left"))
            self.logged(499)
        self.leaveRun()
        self.requests.clear()
        self.out = []
        self.transport.unregisterProducer()
        self.transport.loseConnection()
