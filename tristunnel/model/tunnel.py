"""The model: a tunnel, and a visitor's stream through it. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.glimpse import glimpsed
from tristunnel.dataplane.join import join
from tristunnel.dataplane.throttle import Throttle
from tristunnel.errors import TunnelError, printable
from tristunnel.interfaces import EitherEnd
from tristunnel.model.gate import GateRules
from tristunnel.model.health import Health
from tristunnel.model.permissions import Identity
from tristunnel.model.place import MeetingPlace
from tristunnel.model.policy import VisitorPolicy
from tristunnel.util.hosts import addressText

__all__ = [
    "IClientSide",
    "Stream",
    "Tunnel",
    "TunnelGroup",
    "VisitorFilter",
    "VisitorObserver",
]

_log = Logger()


class VisitorFilter(Protocol):
    """Decides on a tunnel's visitors. A tunnel asks all of its filters."""

    def enter(self, stream: Stream) -> None:
        """
        Let a visitor in; its stream is among the tunnel's already.

        @raise TunnelError: Why it is turned away.
        """

    def leave(self, stream: Stream) -> None:
        """
        Remove a visitor that this filter had let in, and that has left or was turned
        away by another one.
        """


class IClientSide(Protocol):
    """
    Where a tunnel's visitors are served: a session, or raw connections.

    It may also have C{isThere}, which returns a Deferred of whether its client
    still answers (without it, it is taken to be there); C{placeFree}, see
    L{tristunnel.service.claims}; and C{takesVisitors}: whether it would not refuse
    another visitor now.
    """

    def serve(self, stream: Stream) -> None:
        """
        Find a client end for C{stream}: call its C{connect} or C{refuse}, now
        or later.
        """

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """
        Note that C{tunnel} is over, for another reason than that this side said so.
        """


class VisitorObserver:
    """Told of a tunnel's visitors; every method does nothing."""

    def visitorConnected(self, stream: Stream) -> None:
        """A visitor came."""

    def visitorRefused(self, stream: Stream, reason: TunnelError) -> None:
        """
        A visitor was turned away. Neither its coming nor its leaving is told otherwise.
        """

    def visitorGone(self, stream: Stream) -> None:
        """
        A visitor left; C{stream} has the counts, and a C{reason} if the
        stream broke.
        """


class TunnelGroup(Protocol):
    """
    Tunnels that share their public side.

    @ivar tunnels: All of them.
    """

    tunnels: list[Tunnel]

    def chosen(self, address: str) -> Tunnel | None:
        """Find the tunnel that a visitor is for; C{None} if all are closed."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Tunnel(MeetingPlace):
    """
    A meeting place, with whoever is at its two ends.

    @ivar id: Short, unique and public.
    @ivar owner: Who opened it.
    @ivar clientSide: Serves visitors now; C{None} while the client is away.
    @ivar meanwhile: Has visitors wait for the client while it is away; C{None} if they
        are turned away.
    @ivar observer: Told of visitors.
    @ivar seconds: The clock.
    @ivar lookup: Who may ask for its address besides its owner: names, or
        C{"*"} for all.
    @ivar visitorLimit: Visitors after whom the tunnel is over; 0 for none.
    @ivar visitorCount: Visitors so far.
    @ivar served: Visitors who reached a client's end.
    @ivar exhausted: Called when the last visitor has left.
    @ivar checks: Called with a visitor's stream, before L{filters}; raise
        L{TunnelError}, if it is turned away.
    @ivar filters: Who decides on visitors, and wants to know of their leaving; all must
        agree.
    @ivar ask: Decides on visitors when all others have agreed, or C{None}.
    @ivar policy: The limits on visitors; L{filters} apply it.
    @ivar refusals: How many visitors were turned away, by the code of the reason.
    @ivar throttle: Limits the rate of all streams of its owner's, or C{None}.
    @ivar ownThrottle: Limits the rate of its own streams, or C{None}.
    @ivar opened: When, in seconds of its clock.
    @ivar health: Whether its service is well; C{None} where nobody looks.
    @ivar group: Who shares its public side with it, or C{None}.
    @ivar until: When it will be over, or C{None}.
    @ivar gate: How visitors say who they are; the listener asks them.
    @ivar knockLink: Where visitors knock, which is for its owner to give away; empty
        where they need not.
    @ivar isLeft: Whether another member has it now, so that here it ends with the last
        of its visitors.
    @ivar tellsDestination: Whether the client learns at which address of the
        server each visitor came.
    @ivar dropped: Datagrams that did not go through, of flows that are over.
    @ivar bytesIn: Bytes from visitors, of streams that are over.
    @ivar bytesOut: Bytes to visitors, of streams that are over.
    """

    id: str
    owner: Identity
    clientSide: IClientSide | None
    observer: VisitorObserver
    seconds: Callable[[], float]
    lookup: tuple[str, ...] = ()
    visitorLimit: int = 0
    visitorCount: int = 0
    served: int = 0
    bytesIn: int = 0
    bytesOut: int = 0
    tellsDestination: bool = False
    dropped: int = 0
    streams: set[Stream] = field(default_factory=set)
    closed: TunnelError | None = None
    exhausted: Callable[[Tunnel], None] = lambda tunnel: None
    checks: list[Callable[[Stream], object]] = field(default_factory=list)
    filters: list[VisitorFilter] = field(default_factory=list)
    ask: Callable[[Stream], Deferred[None]] | None = None
    policy: VisitorPolicy = field(default_factory=VisitorPolicy)
    refusals: Counter[str] = field(default_factory=Counter)
    throttle: Throttle | None = None
    ownThrottle: Throttle | None = None
    opened: float = field(init=False)
    until: float | None = None
    gate: GateRules = field(default_factory=GateRules)
    knockLink: str = field(default="", repr=False)
    isLeft: bool = False
    meanwhile: IClientSide | None = field(default=None, repr=False)
    health: Health | None = None
    group: TunnelGroup | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.opened = self.seconds()

    def datagramCounts(self) -> dict[str, int]:
        """
        Count what did not get through; nothing for a tunnel of bytes.

        @return: C{dropped} datagrams, and flows C{evicted} to make room.
        """
        if self.protocol != "udp":
            return {}
        strays = getattr(self.listener, "dropped", 0)
        return {
            "dropped": self.dropped + strays + sum(s.dropped for s in self.streams),
            "evicted": getattr(self.listener, "evicted", 0),
        }

    def setChecked(self, isChecked: bool) -> None:
        """Set whether its client checks the service's health."""
        if not isChecked:
            self.health = None
        elif self.health is None:
            self.health = Health()

    def healthNow(self) -> dict[str, object]:
        """
        How its service is, as plain data.

        @return: C{health}, if anybody looks, and C{shared}, if others may be at the
            same place.
        """
        told: dict[str, object] = {"shared": True} if self.group is not None else {}
        if self.health is not None:
            told["health"] = self.health.describe(self.seconds())
        return told

    @property
    def isReady(self) -> bool:
        """Whether a visitor who comes now is likely to be served."""
        return (
            self.closed is None
            and self.clientSide is not None
            and getattr(self.clientSide, "takesVisitors", True)
            and (self.health is None or self.health.isWell)
        )

    def countsNow(self) -> tuple[int, int]:
        """Bytes from and to visitors, of all streams."""
        return (
            self.bytesIn + sum(stream.bytesIn for stream in self.streams),
            self.bytesOut + sum(stream.bytesOut for stream in self.streams),
        )

    def visitorArrived(
        self, visitor: EitherEnd, address: str, *filters: VisitorFilter
    ) -> None:
        """
        Serve a visitor, here or by another tunnel at the same place.

        @param visitor: Its end, not yet joined.
        @param address: Where it came from, as C{HOST:PORT}.
        @param filters: Who decides on this one, beside the tunnel's own filters.
        """
        if self.group is not None:
            chosen = self.group.chosen(address) or self
            chosen._visited(visitor, address, filters)
        else:
            self._visited(visitor, address, filters)

    def _visited(
        self, visitor: EitherEnd, address: str, filters: tuple[VisitorFilter, ...]
    ) -> None:
        stream = Stream(self, visitor, printable(address), self.seconds())
        self.streams.add(stream)
        servedBy = getattr(visitor, "servedBy", None)
        if servedBy is not None:
            servedBy(self)
        try:
            side = self._letIn(stream, filters)
        except TunnelError as refusal:
            self._turnAway(stream, refusal)
            return
        if self.ask is None:
            self._serve(stream, side)
        else:
            self._decide(stream, self.ask(stream))

    def leaveSoon(self) -> None:
        """
        Have visitors take their next requests elsewhere whose ends can do so: those
        that have C{servedBy}, which is told of the tunnel, and C{leaveSoon}.
        """
        for stream in list(self.streams):
            leave = getattr(stream.visitor, "leaveSoon", None)
            if leave is not None:
                leave()

    def _serve(self, stream: Stream, side: IClientSide) -> None:
        self.visitorCount = stream.number = self.visitorCount + 1
        self.observer.visitorConnected(stream)
        side.serve(stream)

    def _decide(self, stream: Stream, asking: Deferred[None]) -> None:
        """Wait for whoever decides on a visitor; what it sends waits, too."""

        def allowed(result: None) -> None:
            side = self.clientSide or self.meanwhile
            if self.closed is not None or side is None:
                self._turnAway(stream, self.closed or TunnelError("client-away"))
            else:
                self._serve(stream, side)

        def refused(failure: Failure) -> None:
            why = failure.value
            if failure.check(CancelledError):
                # It has left.
                why = TunnelError("closed", "the visitor left")
            if not isinstance(why, TunnelError):
                why = TunnelError("internal")
            self._turnAway(stream, why)

        stream.visitor.whileWaiting(lambda reason: asking.cancel())
        asking.addCallbacks(allowed, refused)

    def _letIn(self, stream: Stream, filters: tuple[VisitorFilter, ...]) -> IClientSide:
        """
        Ask whoever has a say whether a visitor may come in.

        @return: Where it is to be served.
        @raise TunnelError: Why it may not.
        """
        if self.closed is not None:
            raise self.closed
        for check in self.checks:
            check(stream)
        if self.filters or filters:
            for each in (*self.filters, *filters):
                each.enter(stream)
                stream.filters.append(each)
        if self.visitorLimit and self._expected() > self.visitorLimit:
            raise TunnelError("limit-reached", "the tunnel has had all of its visitors")
        side = self.clientSide or self.meanwhile
        if side is None:
            raise TunnelError("client-away")
        if self.health is not None and not self.health.isWell:
            raise TunnelError("service-unreachable", self.health.reason)
        return side

    def _turnAway(self, stream: Stream, refusal: TunnelError) -> None:
        """A visitor may not come in. Nobody is told that it came."""
        self.streams.discard(stream)
        self.refusals[refusal.code.name] += 1
        self.observer.visitorRefused(stream, refusal)
        stream.turnAway(refusal)

    def _expected(self) -> int:
        """How many visitors there will have been when those who wait are served."""
        return self.served + sum(each.client is None for each in self.streams)

    def streamOver(self, stream: Stream) -> None:
        """Count a stream that is over."""
        self.streams.discard(stream)
        stream.leaveFilters()
        bytesIn, bytesOut = stream.bytesIn, stream.bytesOut
        self.bytesIn += bytesIn
        self.bytesOut += bytesOut
        if self.protocol == "udp":
            self.dropped += stream.dropped
        if not (bytesIn or bytesOut) and stream.client is not None and self.isGuessable:
            # Ports are scanned: who came and said nothing uses up no visit, if
            # nobody said anything either.
            self.served -= 1
        self.observer.visitorGone(stream)
        isOver = self.visitorLimit and self.served >= self.visitorLimit
        if (isOver or self.isLeft) and not self.streams:
            self.exhausted(self)

    def close(self, reason: TunnelError) -> None:
        """Break every stream, whatever another one's end raises, and take no more."""
        self.closed = reason
        for stream in list(self.streams):
            try:
                stream.reset(reason)
            except Exception:
                _log.failure("A visitor's end failed as its tunnel was closed")


@dataclass(eq=False, slots=True, weakref_slot=True)
class Stream:
    """
    One visitor's conversation: two byte directions, each with its own end.

    @ivar tunnel: Where it belongs.
    @ivar visitor: The visitor's end.
    @ivar client: The client's end, once there is one.
    @ivar visitorAddress: Where the visitor came from.
    @ivar opened: When, in seconds of the tunnel's clock.
    @ivar number: Which of the tunnel's visitors it is, from 1.
    @ivar target: Where it is led, if that is its visitor's to say; else empty.
    @ivar filters: Who has let it in.
    @ivar reason: Why it broke, or C{None}.
    """

    tunnel: Tunnel
    visitor: EitherEnd
    visitorAddress: str
    opened: float
    number: int = 0
    client: EitherEnd | None = field(default=None, init=False)
    target: str = field(default="", init=False)
    filters: list[VisitorFilter] = field(default_factory=list, init=False)
    reason: TunnelError | None = field(default=None, init=False)
    _throttles: tuple[Throttle, ...] = field(default=(), init=False)
    _slowed: tuple[Callable[[], None], ...] = field(default=(), init=False)
    # Ends that are not over; one while it is not connected.
    _open: int = field(default=1, init=False)

    @property
    def over(self) -> bool:
        """Whether both ends are through."""
        return self._open == 0

    @property
    def bytesIn(self) -> int:
        """Bytes that the visitor sent."""
        return self.visitor.received

    @property
    def bytesOut(self) -> int:
        """Bytes that the client's end sent."""
        return 0 if self.client is None else self.client.received

    @property
    def id(self) -> str:
        """Unique and public: the tunnel's id and a number."""
        return f"{self.tunnel.id}.{self.number}"

    @property
    def info(self) -> dict[str, object]:
        """What the client is told of the visitor, as C{docs/protocol.rst} has it."""
        told: dict[str, object] = {
            # As C{publicURI} has it, but for each visitor.
            "tunnel": self.tunnel.uri.partition("#")[0],
            "visitor": self.visitorAddress,
        }
        if self.tunnel.tellsDestination:
            here = getattr(self.visitor, "hostAddress", None)
            told["destination"] = addressText(here)
            host = getattr(self.tunnel.listener, "host", "")
            if host and not host.startswith("*"):
                told["host"] = host
        return told

    @property
    def dropped(self) -> int:
        """Datagrams that did not go through; 0 for bytes, which always do."""
        if self.tunnel.protocol != "udp":
            return 0
        return sum(getattr(end, "dropped", 0) for end in (self.visitor, self.client))

    def connect(self, client: EitherEnd) -> None:
        """
        Join the visitor's end to the client's, unless the visitor was disconnected
        while that was found.
        """
        if not self._open:
            client.reset(self.reason or TunnelError("reset", "the visitor has left"))
            return
        self.client = client
        self.tunnel.served += 1
        self._open = 2
        visitor, tunnel = self.visitor, self.tunnel
        for throttle in (tunnel.ownThrottle, tunnel.throttle):
            if throttle is not None:
                datagrams = tunnel.protocol == "udp"
                client, visitor = throttle.between(client, visitor, datagrams)
                self._throttles += (throttle,)
        speech = tunnel.speech
        if speech is not None and not speech.kind and tunnel.protocol != "udp":
            client, visitor = glimpsed(
                speech, self.client, self.visitor, client, visitor
            )
        join(client, visitor, self._endClosed)

    def slowDown(self, throttle: Throttle) -> None:
        """
        Have a throttle hold for this stream, though it may run already; asking
        twice is no error.
        """
        if self.client is None or self.over or throttle in self._throttles:
            return
        self._throttles += (throttle,)
        datagrams = self.tunnel.protocol == "udp"
        self._slowed += (throttle.onto(self.client, self.visitor, datagrams),)

    def refuse(self, reason: TunnelError) -> None:
        """Turn the visitor away; there is no client end for it."""
        if self._open:
            self.visitor.whileWaiting(lambda _: None)
            self.visitor.reset(reason)
            self._endClosed(reason)

    def turnAway(self, reason: TunnelError) -> None:
        """Turn away a visitor that never came in."""
        self._open = 0
        self.reason = reason
        self.leaveFilters()
        self.visitor.whileWaiting(lambda _: None)
        self.visitor.reset(reason)

    def leaveFilters(self) -> None:
        """Tell those who have let the visitor in that it is gone."""
        if self.filters:
            filters, self.filters = self.filters, []
            for each in filters:
                each.leave(self)

    def reset(self, reason: TunnelError) -> None:
        """Break the stream, wherever it is."""
        if self.client is None:
            self.refuse(reason)
        else:
            self.reason = self.reason or reason
            self.client.reset(reason)
            self.visitor.reset(reason)

    def _endClosed(self, reason: TunnelError | None) -> None:
        self.reason = self.reason or reason
        self._open -= 1
        if self._open == 0:
            for stop in self._slowed:
                stop()
            self.tunnel.streamOver(self)
