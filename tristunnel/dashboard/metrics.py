"""
C{/metrics}: the server's state in Prometheus's words.

prometheus_client is optional: C{pip install tristunnel[metrics]}. Its own page
for Twisted runs in the reactor's thread pool; ours reads in the reactor's
thread, where the state is.
"""

from __future__ import annotations

import platform
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted import __version__ as _twistedVersion
from twisted.web.resource import IResource
from twisted.web.server import Request

from tristunnel import __version__
from tristunnel.dataplane.memory import HELD
from tristunnel.dataplane.pipes import PIPES
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dialects.framed.extended import STALLS
from tristunnel.errors import TunnelError
from tristunnel.http.plain import ErrorText
from tristunnel.http.resource import CallerPage
from tristunnel.interfaces import End
from tristunnel.service.rights import isAdmin

try:
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector

    available = True
except ImportError:
    available = False
    Collector = object  # type: ignore[assignment,misc]

if TYPE_CHECKING:
    from tristunnel.dialects.base.multiplexer import Multiplexer
    from tristunnel.http.browsers import Guard
    from tristunnel.http.callers import HTTPCallers
    from tristunnel.service.counters import Buckets, Counters
    from tristunnel.service.lag import ReactorLag
    from tristunnel.service.preauth import PreauthLimiter
    from tristunnel.service.tunnel_service import Caller, TunnelService

__all__ = ["MetricsPage", "ServerCollector", "available", "metricsPage"]

_TUNNEL = ["tunnel", "listener"]


def _counter(
    name: str, what: str, label: str, counts: Mapping[str, int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, what, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=value)


def _histogram(
    name: str,
    what: str,
    labels: Sequence[str],
    series: Mapping[tuple[str, ...], Buckets],
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, what, labels=labels)
    for values, buckets in sorted(series.items()):
        family.add_metric(values, list(buckets.cumulative()), buckets.total)
    return family


class ServerCollector(Collector):
    """
    Reads a server's state when it is asked for it; in the reactor's thread.

    @param service: The tunnels and the clients.
    @param tally: What happened.
    @param lag: How late the reactor is.
    @param gate: Who is at the door.
    """

    def __init__(
        self,
        service: TunnelService,
        tally: Counters,
        lag: ReactorLag,
        gate: PreauthLimiter,
    ) -> None:
        self._service = service
        self._tally = tally
        self._lag = lag
        self._gate = gate

    def describe(self) -> Iterable[Metric]:
        """
        Nothing, so that the registry need not collect for the names.
        """
        return []

    def collect(self) -> Iterator[Metric]:
        """
        Everything there is.
        """
        build = GaugeMetricFamily(
            "tristunnel_build_info",
            "Always 1; the versions are in the labels.",
            labels=["version", "python", "twisted"],
        )
        build.add_metric([__version__, platform.python_version(), _twistedVersion], 1)
        yield build
        yield from self._clients()
        yield from self._tunnels()
        yield from self._visitors()
        yield from self._refusals()
        yield from self._sessions()
        yield from self._streams()
        yield from self._process()

    def _clients(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "tristunnel_clients", "Clients that are connected.", labels=["dialect"]
        )
        now = Counter(client.dialect for client in self._service.clients)
        for dialect in sorted({*now, *self._tally.connected}):
            family.add_metric([dialect], now[dialect])
        yield family
        yield _counter(
            "tristunnel_clients_connected",
            "Clients that were let in.",
            "dialect",
            self._tally.connected,
        )
        yield _counter(
            "tristunnel_clients_gone",
            "Sessions that are over, by the code of the reason.",
            "code",
            self._tally.gone,
        )
        yield _gauge(
            "tristunnel_access_grants",
            "Grants of access for a time that are in force.",
            len(self._service.access),
        )

    def _tunnels(self) -> Iterator[Metric]:
        tunnels = self._tally.tunnels
        family = GaugeMetricFamily(
            "tristunnel_tunnels", "Tunnels that are open.", labels=["listener"]
        )
        now = Counter(map(self._tally.kindOf, tunnels))
        for kind in sorted({*now, *self._tally.opened}):
            family.add_metric([kind], now[kind])
        yield family
        yield _gauge(
            "tristunnel_tunnels_client_away",
            "Tunnels that wait for their client to come back.",
            sum(tunnel.clientSide is None for tunnel in tunnels),
        )
        yield _counter(
            "tristunnel_tunnels_opened",
            "Tunnels that were opened.",
            "listener",
            self._tally.opened,
        )
        yield _counter(
            "tristunnel_tunnels_closed",
            "Tunnels that are over, by the code of the reason.",
            "code",
            self._tally.closed,
        )

    def _visitors(self) -> Iterator[Metric]:
        now = GaugeMetricFamily(
            "tristunnel_visitors", "Visitors who are here.", labels=_TUNNEL
        )
        total = CounterMetricFamily(
            "tristunnel_visitors_served", "Visitors so far.", labels=_TUNNEL
        )
        passed = CounterMetricFamily(
            "tristunnel_bytes",
            "Bytes from visitors (in) and to visitors (out).",
            labels=[*_TUNNEL, "direction"],
        )
        refused = CounterMetricFamily(
            "tristunnel_visitors_refused",
            "Visitors turned away at the door, by the code of the reason.",
            labels=[*_TUNNEL, "code"],
        )
        dropped = CounterMetricFamily(
            "tristunnel_datagrams_dropped",
            "Datagrams that did not go through.",
            labels=_TUNNEL,
        )
        for (label, kind), totals in sorted(self._tally.byLabel().items()):
            where = [label, kind]
            now.add_metric(where, totals.visitors)
            total.add_metric(where, totals.visitorsTotal)
            passed.add_metric([*where, "in"], totals.bytesIn)
            passed.add_metric([*where, "out"], totals.bytesOut)
            if kind == "udp":
                dropped.add_metric(where, totals.dropped)
            for code, count in sorted(totals.refusals.items()):
                refused.add_metric([*where, code], count)
        yield from (now, total, passed, refused, dropped)
        visits = self._tally.visits
        yield _histogram(
            "tristunnel_visitor_seconds",
            "How long visitors stayed.",
            _TUNNEL,
            {where: each.lives for where, each in visits.items()},
        )
        yield _histogram(
            "tristunnel_visitor_received_bytes",
            "Bytes that each visitor sent.",
            _TUNNEL,
            {where: each.received for where, each in visits.items()},
        )
        yield _histogram(
            "tristunnel_visitor_sent_bytes",
            "Bytes that each visitor was sent.",
            _TUNNEL,
            {where: each.sent for where, each in visits.items()},
        )
        yield _counter(
            "tristunnel_streams_broken",
            "Visitors' streams that broke, by the code of the reason.",
            "code",
            self._tally.broken,
        )

    def _refusals(self) -> Iterator[Metric]:
        yield _counter(
            "tristunnel_logins_refused",
            "Clients that were not let in, by the code of the reason.",
            "code",
            self._tally.loginsRefused,
        )
        yield _counter(
            "tristunnel_connections_refused",
            "Connections closed before anybody was known, by the code of the reason.",
            "code",
            self._tally.peersRefused,
        )
        yield _gauge(
            "tristunnel_strangers",
            "Connections that have not said yet who they are.",
            self._gate.strangers,
        )

    def _sessions(self) -> Iterator[Metric]:
        multiplexers: list[Multiplexer] = [
            multiplexer
            for client in self._service.clients
            if (multiplexer := getattr(client.side, "multiplexer", None)) is not None
        ]
        trips = sorted(
            trip
            for multiplexer in multiplexers
            if (trip := getattr(multiplexer, "roundTrip", 0.0)) > 0
        )
        yield _histogram(
            "tristunnel_session_round_trip_seconds",
            "Round trips of the sessions, each time that they are measured.",
            [],
            {(): self._tally.trips},
        )
        family = GaugeMetricFamily(
            "tristunnel_session_last_round_trip_seconds",
            "Round trips of the sessions, as last measured.",
            labels=["which"],
        )
        if trips:
            family.add_metric(["shortest"], trips[0])
            family.add_metric(["median"], statistics.median(trips))
            family.add_metric(["longest"], trips[-1])
        yield family
        stalled = sessions = 0
        queued = Counter({"stream": 0, "datagram": 0, "control": 0})
        for multiplexer in multiplexers:
            queued["control"] += multiplexer.unsent
            datagrams = getattr(multiplexer, "datagrams", None)
            if datagrams is not None:
                queued["datagram"] += datagrams.queued
            sessions += multiplexer.sendWindow.available <= 0
            for stream in multiplexer.streams.values():
                if stream.outgoing:
                    queued["stream"] += sum(map(len, stream.outgoing))
                    stalled += stream.sendWindow.available <= 0
        yield _gauge(
            "tristunnel_streams_out_of_credit",
            "Streams with bytes to send for which the peer has given no credit.",
            stalled,
        )
        yield _gauge(
            "tristunnel_sessions_out_of_credit",
            "Sessions that may send nothing until the peer gives credit.",
            sessions,
        )
        yield _counter(
            "tristunnel_window_stalls",
            "Times that a stream or a session had bytes to send and had to wait"
            " for the peer's credit.",
            "of",
            STALLS,
        )
        family = GaugeMetricFamily(
            "tristunnel_session_queued_bytes",
            "Bytes that wait to be sent by their sessions.",
            labels=["what"],
        )
        for what, amount in sorted(queued.items()):
            family.add_metric([what], amount)
        yield family
        yield _gauge(
            "tristunnel_held_bytes",
            "Bytes held for readers that stand still.",
            HELD.total,
        )
        shed = CounterMetricFamily(
            "tristunnel_streams_shed", "Streams ended since too much was held for them."
        )
        shed.add_metric([], HELD.shed)
        yield shed
        yield _gauge(
            "tristunnel_rendezvous_waiting",
            "Ends of raw tunnels that wait for their other halves.",
            self._service.waiting.taken,
        )

    def _streams(self) -> Iterator[Metric]:
        ways = Counter({"session": 0, "copy": 0, "splice": 0, "waiting": 0})
        for tunnel in self._tally.tunnels:
            for stream in tunnel.streams:
                ways[_wayOf(stream.visitor, stream.client)] += 1
        family = GaugeMetricFamily(
            "tristunnel_streams",
            "Streams now: through a session, copied or spliced from socket to"
            " socket, or waiting for the client's end.",
            labels=["way"],
        )
        for way, count in sorted(ways.items()):
            family.add_metric([way], count)
        yield family
        yield _gauge(
            "tristunnel_splice_pipes", "Pipes open for splicing.", PIPES.opened
        )
        moved = PIPES.moved
        yield _counter(
            "tristunnel_relayed_bytes",
            "Bytes that were moved within the kernel (splice), or copied.",
            "by",
            {"splice": moved, "copy": max(0, self._tally.relayed - moved)},
        )

    def _process(self) -> Iterator[Metric]:
        yield _histogram(
            "tristunnel_reactor_lag_seconds",
            "How late the reactor was, once a second.",
            [],
            {(): self._lag.seconds},
        )
        yield _gauge(
            "tristunnel_reactor_timers",
            "Calls that the reactor is to make later.",
            self._lag.timers,
        )


def _wayOf(visitor: Any, client: End | Any) -> str:
    if client is None:
        return "waiting"
    if not (isinstance(visitor, SocketEnd) and isinstance(client, SocketEnd)):
        return "session"
    return "splice" if visitor.splices or client.splices else "copy"


class MetricsPage(CallerPage):
    """
    Shows a registry to whoever may see it: an admin; where nobody is asked who
    they are, everybody; and whoever was let in by a checker that knows no
    permissions.

    @param callers: Finds out who asks.
    @param guard: Judges browsers' requests.
    @param registry: What to show.
    """

    def __init__(
        self, callers: HTTPCallers, guard: Guard, registry: CollectorRegistry
    ) -> None:
        super().__init__(callers, guard)
        self._registry = registry

    async def answer(self, request: Request, caller: Caller) -> bytes:
        """
        Write what there is, in the format that is asked for.
        """
        identity = caller.identity
        if identity.grant is not None:
            identity.grant.check()
            if not isAdmin(identity):
                raise TunnelError(
                    "not-permitted",
                    "metrics are for admins: use a token made with --may admin",
                )
        accept = (request.getHeader(b"accept") or b"").decode("latin-1")
        try:
            encode, kind = choose_encoder(accept)
        except (TypeError, ValueError):
            # It compares versions that are no numbers.
            encode, kind = choose_encoder("")
        request.setHeader("Content-Type", kind)
        request.setHeader("Cache-Control", "no-store")
        return bytes(encode(self._registry))


def metricsPage(
    callers: HTTPCallers,
    service: TunnelService,
    tally: Counters,
    lag: ReactorLag,
    gate: PreauthLimiter,
    guard: Guard,
) -> IResource:
    """
    Make the page.

    @return: Without prometheus_client, a page that says how to get it.
    """
    if not available:
        return ErrorText(
            404, "There are no metrics here: pip install 'tristunnel[metrics]'."
        )
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(ServerCollector(service, tally, lag, gate))
    return MetricsPage(callers, guard, registry)
