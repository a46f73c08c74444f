"""Counting what has happened since the server started, for the metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from tristunnel.errors import TunnelError
from tristunnel.model.observer import ServerObserver
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream, Tunnel

__all__ = [
    "INTERVAL",
    "LABELS",
    "OTHER",
    "Buckets",
    "Counters",
    "RateMeter",
    "ReactorLag",
    "TunnelCounters",
    "VisitHistograms",
    "listenerOf",
]

LABELS = 100
"""Tunnels that are told apart; what is beyond them is counted together."""

OTHER = "other"
"""The label of those that are counted together."""

INTERVAL = 1.0
"""Seconds from one look to the next."""

_LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_SECONDS = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 86400.0)
_TRIPS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_BYTES = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10)


def listenerOf(tunnel: Tunnel) -> str:
    """
    What kind of public side a tunnel has: C{"tcp"}, C{"tls"}, C{"udp"},
    C{"ws"}, C{"wss"}, or C{"none"}.
    """
    return "none" if tunnel.listener is None else tunnel.listener.address[0]


class Buckets:
    """
    A histogram.

    @param bounds: The upper bounds of its buckets, ascending.

    @ivar total: The sum of all values.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.total = 0.0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self.total += value
        self._counts[bisect_left(self._bounds, value)] += 1

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """Each bound as text, and how many values are not above it."""
        count = 0
        bounds = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        for bound, more in zip(bounds, self._counts, strict=True):
            count += more
            yield bound, float(count)


class VisitHistograms:
    """
    What visits of some tunnels were like.

    @ivar lives: How long they lasted, in seconds.
    @ivar received: Bytes that each visitor sent.
    @ivar sent: Bytes that each visitor was sent.
    """

    def __init__(self) -> None:
        self.lives = Buckets(_SECONDS)
        self.received = Buckets(_BYTES)
        self.sent = Buckets(_BYTES)


@dataclass
class TunnelCounters:
    """
    What is counted for a tunnel, or for several together.

    @ivar visitors: Current visitors.
    @ivar visitorsTotal: Visitors so far.
    @ivar bytesIn: Bytes from visitors.
    @ivar bytesOut: Bytes to visitors.
    @ivar dropped: Datagrams that were dropped.
    @ivar refusals: Visitors refused, by code.
    """

    visitors: int = 0
    visitorsTotal: int = 0
    bytesIn: int = 0
    bytesOut: int = 0
    dropped: int = 0
    refusals: Counter[str] = field(default_factory=Counter)

    def add(self, tunnel: Tunnel) -> None:
        """Count a tunnel in, as it is now."""
        bytesIn, bytesOut = tunnel.countsNow()
        self.visitors += len(tunnel.streams)
        self.visitorsTotal += tunnel.visitorCount
        self.bytesIn += bytesIn
        self.bytesOut += bytesOut
        self.dropped += tunnel.datagramCounts().get("dropped", 0)
        self.refusals.update(tunnel.refusals)


class Counters(ServerObserver):
    """
    Counts what it is told.

    @param seconds: The clock of streams.
    @param most: Tunnels that are told apart at once.

    @ivar connected: Clients that were let in, by dialect.
    @ivar gone: Sessions that have ended, by code of the reason.
    @ivar loginsRefused: Clients that were not let in, by code.
    @ivar peersRefused: Connections closed before they authenticated, by code.
    @ivar opened: Tunnels that were opened, by kind of listener.
    @ivar closed: Tunnels that are over, by code.
    @ivar broken: Visitors' streams that broke, by code.
    @ivar trips: Round trips of the sessions, in seconds.
    @ivar visits: How long visitors stayed and how much they moved, by the
        tunnel's name, or L{OTHER}, and the kind of its listener.
    """

    def __init__(self, seconds: Callable[[], float], most: int = LABELS) -> None:
        self.connected: Counter[str] = Counter()
        self.gone: Counter[str] = Counter()
        self.loginsRefused: Counter[str] = Counter()
        self.peersRefused: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.trips = Buckets(_TRIPS)
        self.visits: dict[tuple[str, str], VisitHistograms] = {}
        self._seconds = seconds
        self._most = most
        self._labels: dict[Tunnel, tuple[str, str]] = {}
        self._own = 0
        # What was counted for tunnels that are over and shared a label with others: the
        # sum of a label must not fall.
        self._past: dict[str, TunnelCounters] = defaultdict(TunnelCounters)
        self._overBytes = 0

    @property
    def tunnels(self) -> list[Tunnel]:
        """The tunnels that are open."""
        return list(self._labels)

    @property
    def relayed(self) -> int:
        """Bytes that passed, either way, in all tunnels there ever were."""
        return self._overBytes + sum(sum(each.countsNow()) for each in self._labels)

    def kindOf(self, tunnel: Tunnel) -> str:
        """The kind of listener that a tunnel has, or had."""
        known = self._labels.get(tunnel)
        return listenerOf(tunnel) if known is None else known[1]

    def byLabel(self) -> dict[tuple[str, str], TunnelCounters]:
        """
        Count what is open now.

        @return: By what the tunnel is called, or its id where it has none, or
            L{OTHER}; and by the kind of its listener.
        """
        totals: dict[tuple[str, str], TunnelCounters] = defaultdict(TunnelCounters)
        for kind, past in self._past.items():
            totals[OTHER, kind] = TunnelCounters(
                0,
                past.visitorsTotal,
                past.bytesIn,
                past.bytesOut,
                past.dropped,
                Counter(past.refusals),
            )
        for tunnel, where in self._labels.items():
            totals[where].add(tunnel)
        return totals

    # ServerObserver

    def clientConnected(self, peer: IAddress, identity: Identity, dialect: str) -> None:
        self.connected[dialect] += 1

    def clientGone(
        self, peer: IAddress, identity: Identity, reason: TunnelError
    ) -> None:
        self.gone[reason.code.name] += 1

    def authenticationFailed(self, peer: IAddress, reason: TunnelError) -> None:
        self.loginsRefused[reason.code.name] += 1

    def peerRefused(self, peer: IAddress, reason: TunnelError) -> None:
        self.peersRefused[reason.code.name] += 1

    def tunnelCreated(self, tunnel: Tunnel) -> None:
        kind = listenerOf(tunnel)
        self.opened[kind] += 1
        label = tunnel.called or tunnel.id
        if self._own >= self._most or label == OTHER:
            label = OTHER
        else:
            self._own += 1
        self._labels[tunnel] = (label, kind)

    def tunnelDestroyed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        self.closed[reason.code.name] += 1
        self._overBytes += sum(tunnel.countsNow())
        label, kind = self._labels.pop(tunnel, ("", ""))
        if label == OTHER:
            self._past[kind].add(tunnel)
        elif label:
            self._own -= 1

    def visitorGone(self, stream: Stream) -> None:
        visits = self._visitsOf(stream.tunnel)
        visits.lives.add(self._seconds() - stream.opened)
        visits.received.add(stream.bytesIn)
        visits.sent.add(stream.bytesOut)
        if stream.reason is not None:
            self.broken[stream.reason.code.name] += 1

    def roundTripMeasured(self, seconds: float) -> None:
        self.trips.add(seconds)

    def _visitsOf(self, tunnel: Tunnel) -> VisitHistograms:
        """
        Where a tunnel's visits are counted: a name that comes again goes on, and
        tunnels without one are counted together, since they come and go.
        """
        where = tunnel.name or OTHER, self.kindOf(tunnel)
        visits = self.visits.get(where)
        if visits is None:
            if len(self.visits) >= self._most:
                where = OTHER, where[1]
            visits = self.visits.setdefault(where, VisitHistograms())
        return visits


_SHORTEST = 1.0

Sample = tuple[float, int, int, float, float]


class RateMeter:
    """
    Measures rates without timers: from one call to the next.

    @param seconds: The clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._samples: WeakKeyDictionary[object, Sample] = WeakKeyDictionary()

    def measure(
        self, subject: object, opened: float, bytesIn: int, bytesOut: int
    ) -> tuple[float, float]:
        """
        Tell how much passes now.

        @param subject: What is measured.
        @param opened: When it began, on the clock.
        @return: Bytes per second in and out, since the last call that is at least a
            second old, or since it began.
        """
        now = self._seconds()
        since, beforeIn, beforeOut, rateIn, rateOut = self._samples.get(
            subject, (opened, 0, 0, 0.0, 0.0)
        )
        passed = now - since
        if passed >= _SHORTEST:
            rateIn = max(0, bytesIn - beforeIn) / passed
            rateOut = max(0, bytesOut - beforeOut) / passed
            self._samples[subject] = (now, bytesIn, bytesOut, rateIn, rateOut)
        return rateIn, rateOut


class ReactorLag:
    """
    Measures how late calls are: when the process has too much to do, every visitor has
    to wait for so much longer.

    @param reactor: The one that is measured.

    @ivar seconds: What was measured.
    @ivar last: The last measure, in seconds.
    @ivar tick: Called each time, for what is to be done once a second anyway.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.seconds = Buckets(_LAGS)
        self.last = 0.0
        self.tick: Callable[[], object] = lambda: None
        self._reactor = reactor
        self._due = 0.0
        self._call: IDelayedCall | None = None

    @property
    def timers(self) -> int:
        """How many calls the reactor is to make later; what leaks, grows here."""
        return len(self._reactor.getDelayedCalls())

    def start(self) -> None:
        """Begin to measure."""
        if self._call is None:
            self._wait()

    def stop(self) -> None:
        """Stop measuring. It may be called twice."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait(self) -> None:
        # Not a LoopingCall, which would make up for what was late.
        self._due = self._reactor.seconds() + INTERVAL
        self._call = self._reactor.callLater(INTERVAL, self._look)

    def _look(self) -> None:
        self.last = max(0.0, self._reactor.seconds() - self._due)
        self.seconds.add(self.last)
        self._wait()
        self.tick()
