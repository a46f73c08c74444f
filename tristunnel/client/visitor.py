"""
The visitors' side: a local port whose connections go through a tunnel that
has no port of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.join import join
from tristunnel.dataplane.transport_end import EndFactory
from tristunnel.dialects.base.dialect import Route
from tristunnel.errors import TunnelError
from tristunnel.forwards.destinations import isOurs
from tristunnel.model.observer import ClientObserver, Visit
from tristunnel.util.endpoints import cannotListen
from tristunnel.util.hosts import addressText
from tristunnel.util.log_limiter import BoundedLog
from tristunnel.util.process import FAREWELL, GRACE, Drain

__all__ = ["LocalPort", "LocalVisit", "VisitorService"]


class LocalVisit(Visit):
    """
    A visitor of a local port who has reached the service.

    @ivar place: Its number among the port's visits, from 1.
    @ivar since: When it came, by the port's clock.
    """

    __slots__ = ("_ends", "_port", "place", "since")

    def __init__(
        self, port: LocalPort, place: int, since: float, visitor: Any, far: Any
    ) -> None:
        self._port, self.place, self.since = port, place, since
        self._ends = far, visitor
        info = {"visitor": port.addressOf(visitor)}
        super().__init__(port.what, far, visitor, info, port.observer)

    def reset(self, reason: TunnelError) -> None:
        """End it now."""
        for end in self._ends:
            end.reset(reason)

    def over(self, reason: TunnelError | None) -> None:
        self._port.left(self, reason)
        super().over(reason)


@dataclass(eq=False, repr=False)
class LocalPort(Service):
    """
    Listens for visitors on this machine.

    @ivar reactor: Listens and tells time.
    @ivar endpoint: Where to listen.
    @ivar description: The same, as the user wrote it.
    @ivar route: Finds their far ends.
    @ivar what: What visitors reach, as messages name it.
    @ivar grace: Seconds that they get to finish when the service stops.
    @ivar failed: Called with the reason if the port cannot be had.
    @ivar logs: Whether the log has a line for each of them, up to a number.

    @ivar listening: The port, once it is open.
    @ivar observer: Told of the port and its visitors.
    @ivar visits: The visits that have reached the service, by number.
    @ivar total: How many have reached it so far.
    @ivar bytesIn: Bytes from visitors who have left.
    @ivar bytesOut: Bytes to them.
    """

    _log = Logger(namespace="tristunnel.client")

    reactor: Any
    endpoint: IStreamServerEndpoint
    description: str
    route: Route
    what: str
    grace: float = GRACE
    failed: Callable[[TunnelError], None] = lambda reason: None
    logs: bool = False

    def __post_init__(self) -> None:
        self.listening: IListeningPort | None = None
        self.observer = ClientObserver()
        self.visits: dict[int, LocalVisit] = {}
        self.total = self.bytesIn = self.bytesOut = 0
        self._bounded = BoundedLog(self.reactor.seconds, self.reactor.callLater)
        # The visitors who wait for their far end.
        self._waiting: set[Any] = set()
        self._drain: Drain | None = None

    def startService(self) -> None:
        super().startService()
        opening = maybeDeferred(self.listen)
        opening.addCallbacks(self._opened, self._notOpened)

    def listen(self) -> Any:
        """Let visitors in; may return a Deferred."""
        return self.endpoint.listen(EndFactory(self.reactor, self.arrived))

    def addressOf(self, visitor: Any) -> str:
        """Find where a visitor comes from."""
        return addressText(visitor.peerAddress)

    def _opened(self, listening: IListeningPort) -> None:
        self.listening = listening
        isOurs(listening)
        here = addressText(listening.getHost())
        self._log.info("Visitors of {here} reach {what}", here=here, what=self.what)
        self.observer.portReady(here, self.what)

    def _notOpened(self, failure: Failure) -> None:
        reason = cannotListen(f"--listen {self.description}", failure)
        self._log.critical("Cannot start: {reason}", reason=reason)
        self.failed(reason)

    def _find(self, visitor: Any) -> Deferred[Any]:
        RESERVE.checkVisitor()
        return self.route(visitor)

    def arrived(self, visitor: Any) -> None:
        """
        Take a visitor.

        @param visitor: Its end.
        """
        self._waiting.add(visitor)
        finding = maybeDeferred(self._find, visitor)

        def left(reason: TunnelError | None) -> None:
            self._waiting.discard(visitor)
            finding.cancel()

        def found(far: Any) -> None:
            if visitor not in self._waiting:
                far.reset(TunnelError("reset", "the visitor has left"))
                return
            self._waiting.discard(visitor)
            self.total += 1
            now = self.reactor.seconds()
            visit = LocalVisit(self, self.total, now, visitor, far)
            self.visits[visit.place] = visit
            # It is over when both ends are: a WebSocket's close takes a round trip.
            join(far, visitor, visit.ended)

        def refused(failure: Failure) -> None:
            if visitor in self._waiting:
                self._waiting.discard(visitor)
                visitor.whileWaiting(lambda reason: None)
                visitor.reset(self._refused(failure))

        visitor.whileWaiting(left)
        finding.addCallbacks(found, refused)
        finding.addErrback(lambda f: self._log.failure("A visitor failed", f))

    def _refused(self, failure: Failure) -> TunnelError:
        error = failure.value
        if not isinstance(error, TunnelError):
            self._bounded(
                self._log.failure, "A visitor was not served", failure=failure
            )
            error = TunnelError("internal")
        self._bounded(
            self._log.warn,
            "A visitor was turned away: {reason}",
            error.code.name,
            reason=error,
        )
        self.observer.visitorRefused(self.what, error)
        return error

    def left(self, visit: LocalVisit, reason: TunnelError | None) -> None:
        """Count a visitor who has left; called by the visit."""
        del self.visits[visit.place]
        self.bytesIn += visit.bytesIn
        self.bytesOut += visit.bytesOut
        if self.logs:
            self._bounded(
                self._log.info,
                "Visitor {number} from {origin} left after {seconds:.3f} s, {bytesIn}"
                " bytes to the service, {bytesOut} bytes from it{why}",
                number=visit.place,
                origin=visit.visitor,
                seconds=self.reactor.seconds() - visit.since,
                bytesIn=visit.bytesIn,
                bytesOut=visit.bytesOut,
                why=f": {reason}" if reason else "",
            )

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        listening, self.listening = self.listening, None
        if listening is not None:
            isOurs(listening, False)
            await maybeDeferred(listening.stopListening)

        def here() -> int:
            return len(self._waiting) + len(self.visits)

        self._drain = Drain(self.reactor, here, self.grace)
        await self._drain.wait()
        self.sendAway(TunnelError("shutting-down", "the client stops"))
        await Drain(self.reactor, here, FAREWELL).wait()
        self.observer.stopped()

    def sendAway(self, reason: TunnelError) -> None:
        """End all visits now."""
        for visit in list(self.visits.values()):
            visit.reset(reason)
        for visitor in list(self._waiting):
            visitor.reset(reason)

    def stopNow(self) -> None:
        """Stop waiting for visitors."""
        if self._drain is not None:
            self._drain.hurry()


class VisitorService(MultiService):
    """
    A client and the local ports of its visitors, who leave first.

    @param client: Stays connected; C{None} if every visitor makes a connection.
    @param port: The local port.
    @param others: More of them.

    @ivar client: The client.
    """

    def __init__(self, client: Any, port: LocalPort, *others: LocalPort) -> None:
        super().__init__()
        self.client = client
        self.port = port
        self._ports = (port, *others)
        if client is not None:
            client.setServiceParent(self)
        for each in self._ports:
            each.setServiceParent(self)

    def stopService(self) -> Deferred[None]:
        self.running = False
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await gatherResults([each.stopService() for each in self._ports])
        if self.client is not None:
            await self.client.stopService()

    def stopNow(self) -> None:
        """Stop waiting for visitors."""
        for each in self._ports:
            each.stopNow()
        if self.client is not None:
            self.client.stopNow()
