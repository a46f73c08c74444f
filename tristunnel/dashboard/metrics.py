"""
C{/metrics}: the server's state in the format of Prometheus.

prometheus_client's own page for Twisted runs in the reactor's thread pool; ours
reads in the reactor's thread, where the state is.
"""

from __future__ import annotations

import platform
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from twisted import __version__ as _twistedVersion
from twisted.web.resource import IResource
from twisted.web.server import Request

from tristunnel.dashboard.certificates import certificateCounts
from tristunnel.dataplane.memory import HELD
from tristunnel.dataplane.pipes import PIPES
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.framed.credit import STALLS
from tristunnel.errors import TunnelError
from tristunnel.http.resource import CallerPage
from tristunnel.names.counters import REQUESTS
from tristunnel.service.counters import Buckets
from tristunnel.service.rights import isAdmin
from tristunnel.version import VERSION

if TYPE_CHECKING:
    from tristunnel.dialects.base.multiplexer import Multiplexer
    from tristunnel.http.browsers import Guard
    from tristunnel.http.callers import HTTPCallers
    from tristunnel.service.caller import Caller
    from tristunnel.service.counters import Counters, ReactorLag
    from tristunnel.service.preauth import PreauthLimiter
    from tristunnel.service.siblings import Siblings
    from tristunnel.service.tunnel_service import TunnelService

__all__ = ["METRICS", "MetricsPage", "ServerCollector", "metricsPage"]

Samples = Mapping[Any, float] | Mapping[Any, Buckets]
"""Numbers and histograms, by the values of their labels."""


def _valuesOf(
    service: TunnelService, counted: Counters, lag: ReactorLag, limiter: PreauthLimiter
) -> dict[str, float | Buckets | Samples]:
    dialects = Counter(client.dialect for client in service.clients)
    kinds = Counter(map(counted.kindOf, counted.tunnels))
    tunnels = counted.byLabel().items()
    visits = counted.visits.items()
    sessions: list[Multiplexer] = [
        multiplexer
        for client in service.clients
        if (multiplexer := getattr(client.side, "multiplexer", None)) is not None
    ]
    streams = [each for session in sessions for each in session.streams.values()]
    sending = [stream for stream in streams if stream.outgoing]
    trips = [getattr(session, "roundTrip", 0.0) for session in sessions]
    trips = [trip for trip in trips if trip > 0]
    datagrams = [getattr(session, "datagrams", None) for session in sessions]
    ways = Counter({"session": 0, "copy": 0, "splice": 0, "waiting": 0})
    for tunnel in counted.tunnels:
        ways.update(_wayOf(each.visitor, each.client) for each in tunnel.streams)
    cluster = service.cluster
    certificates, now = service.certificates(), time.time()
    return {
        "build_info": {_VERSIONS: 1},
        "clients": {each: dialects[each] for each in {*dialects, *counted.connected}},
        "clients_connected": counted.connected,
        "clients_gone": counted.gone,
        "access_grants": len(service.access),
        "tunnels": {each: kinds[each] for each in {*kinds, *counted.opened}},
        "tunnels_client_away": sum(t.clientSide is None for t in counted.tunnels),
        "tunnels_opened": counted.opened,
        "tunnels_closed": counted.closed,
        "visitors": {where: each.visitors for where, each in tunnels},
        "visitors_served": {where: each.visitorsTotal for where, each in tunnels},
        "bytes": {
            (*where, direction): number
            for where, each in tunnels
            for direction, number in (("in", each.bytesIn), ("out", each.bytesOut))
        },
        "visitors_refused": {
            (*where, code): number
            for where, each in tunnels
            for code, number in each.refusals.items()
        },
        "datagrams_dropped": {
            where: each.dropped for where, each in tunnels if where[1] == "udp"
        },
        "visitor_seconds": {where: each.lives for where, each in visits},
        "visitor_received_bytes": {where: each.received for where, each in visits},
        "visitor_sent_bytes": {where: each.sent for where, each in visits},
        "streams_broken": counted.broken,
        "logins_refused": counted.loginsRefused,
        "connections_refused": counted.peersRefused,
        "connections_passed": {}
        if service.processes is None
        else service.processes.passed,
        "cluster_members": {} if cluster is None else {(): cluster.count},
        "cluster_engine_up": {} if cluster is None else {(): cluster.engineIsUp},
        "cluster_draining": {} if cluster is None else {(): cluster.isDraining},
        "unauthenticated_connections": limiter.unauthenticated,
        "session_round_trip_seconds": counted.trips,
        "session_last_round_trip_seconds": {
            "shortest": min(trips),
            "median": statistics.median(trips),
            "longest": max(trips),
        }
        if trips
        else {},
        "streams_out_of_credit": sum(s.sendWindow.available <= 0 for s in sending),
        "sessions_out_of_credit": sum(s.sendWindow.available <= 0 for s in sessions),
        "window_stalls": STALLS,
        "session_queued_bytes": {
            "stream": sum(sum(map(len, stream.outgoing)) for stream in sending),
            "datagram": sum(each.queued for each in datagrams if each is not None),
            "control": sum(session.unsent for session in sessions),
        },
        "held_bytes": HELD.total,
        "streams_evicted": HELD.evicted,
        "rendezvous_waiting": service.waiting.taken,
        "streams": ways,
        "splice_pipes": PIPES.opened,
        "relayed_bytes": {
            "splice": PIPES.moved,
            "copy": max(0, counted.relayed - PIPES.moved),
        },
        "http_requests": {
            (name, each): number
            for name, classes in REQUESTS.requests.items()
            for each, number in classes.items()
        },
        "http_response_bytes": REQUESTS.sent,
        "certificates": certificateCounts(certificates, now) if certificates else {},
        "certificate_seconds_left": {
            (): min(each.until - now for each in certificates if each.until)
        }
        if any(each.until for each in certificates)
        else {},
        "reactor_lag_seconds": lag.seconds,
        "reactor_timers": lag.timers,
    }


def _wayOf(visitor: Any, client: Any) -> str:
    if client is None:
        return "waiting"
    if isinstance(client, SessionStream) and not client.hasMoved:
        return "session"
    return "splice" if getattr(visitor, "splices", False) else "copy"


METRICS = """\
gauge build_info{version,python,twisted} Always 1; the versions are in the labels.
gauge clients{dialect} Clients that are connected.
counter clients_connected{dialect} Clients that have connected.
counter clients_gone{code} Sessions that have ended, by code of the reason.
gauge access_grants Active grants of access.
gauge tunnels{listener} Tunnels that are open.
gauge tunnels_client_away Tunnels waiting for their client to reconnect.
counter tunnels_opened{listener} Tunnels that were opened.
counter tunnels_closed{code} Tunnels that were closed, by code of the reason.
gauge visitors{tunnel,listener} Current visitors.
counter visitors_served{tunnel,listener} Visitors so far.
counter bytes{tunnel,listener,direction} Bytes from visitors (in) and to visitors (out).
counter visitors_refused{tunnel,listener,code} Visitors refused, by code.
counter datagrams_dropped{tunnel,listener} Datagrams that were dropped.
histogram visitor_seconds{tunnel,listener} How long visitors stayed.
histogram visitor_received_bytes{tunnel,listener} Bytes that each visitor sent.
histogram visitor_sent_bytes{tunnel,listener} Bytes that each visitor was sent.
counter streams_broken{code} Visitors' streams that broke, by code of the reason.
counter logins_refused{code} Clients refused, by code of the reason.
counter connections_refused{code} Connections closed before they authenticated, by code.
counter connections_passed{kind} Connections passed to other processes of the server.
gauge cluster_members Members of the cluster, with this one.
gauge cluster_engine_up Whether the cluster's book can be asked.
gauge cluster_draining Whether this member sends its clients elsewhere.
gauge unauthenticated_connections Connections that have not authenticated yet.
histogram session_round_trip_seconds Round trips of the sessions, as measured by pings.
gauge session_last_round_trip_seconds{which} The latest round trips of sessions.
gauge streams_out_of_credit Streams with bytes to send and no credit from the peer.
gauge sessions_out_of_credit Sessions that have no credit from the peer.
counter window_stalls{of} Times that a stream or a session had to wait for credit.
gauge session_queued_bytes{what} Bytes waiting to be sent by their sessions.
gauge held_bytes Bytes held for slow readers.
counter streams_evicted Streams ended because too much was held for them.
gauge rendezvous_waiting Ends of raw tunnels waiting for their counterparts.
gauge streams{carrier} Streams, by what carries their bytes.
gauge splice_pipes Pipes open for splicing.
counter relayed_bytes{by} Bytes moved within the kernel (splice) or copied.
counter http_requests{name,status} Requests for names, by class of the status.
counter http_response_bytes{name} Bytes of the bodies of responses to them.
gauge certificates{state} Certificates that are got by themselves.
gauge certificate_seconds_left Until the first of them ends.
histogram reactor_lag_seconds How late the reactor was, measured once a second.
gauge reactor_timers Calls scheduled in the reactor.
"""
"""Each metric's kind, name without C{tristunnel_}, labels and help."""

_ROW = re.compile(r"(\w+) (\w+)(?:\{(.*?)\})? (.*)")
_VERSIONS = (VERSION, platform.python_version(), _twistedVersion)


class ServerCollector(Collector):
    """
    Reads a server's state when metrics are collected; in the reactor's thread.

    @param service: The tunnels and the clients.
    @param counted: What happened.
    @param lag: How late the reactor is.
    @param limiter: Counts the unauthenticated connections.
    """

    def __init__(
        self,
        service: TunnelService,
        counted: Counters,
        lag: ReactorLag,
        limiter: PreauthLimiter,
    ) -> None:
        self._sources = service, counted, lag, limiter

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        families = {
            "gauge": GaugeMetricFamily,
            "counter": CounterMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        values = _valuesOf(*self._sources)
        for kind, name, labels, text in _ROW.findall(METRICS):
            value = values[name]
            samples = value if isinstance(value, Mapping) else {(): value}
            family = families[kind](
                f"tristunnel_{name}", text, labels=labels.split(",") if labels else ()
            )
            for key, each in sorted(samples.items()):
                where = [key] if isinstance(key, str) else key
                if isinstance(each, Buckets):
                    family.add_metric(where, list(each.cumulative()), each.total)
                else:
                    family.add_metric(where, each)
            yield family


def _written(registry: CollectorRegistry) -> list[Any]:
    """Write a registry's content in a form for JSON, which L{_JoinedMetrics} reads."""
    return [
        [
            family.name,
            family.documentation,
            family.type,
            [[each.name, dict(each.labels), each.value] for each in family.samples],
        ]
        for family in registry.collect()
    ]


class _JoinedMetrics(Collector):
    """
    The metrics of several processes of a server, told apart by C{process}.

    @param parts: The name of each, and what L{_written} returned there.
    """

    def __init__(self, parts: Iterable[tuple[str, list[Any]]]) -> None:
        self._parts = list(parts)

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for process, part in self._parts:
            for name, text, kind, samples in part:
                family = families.setdefault(name, Metric(name, text, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, {**labels, "process": process}, value)
        return iter(families.values())


class MetricsPage(CallerPage):
    """
    Shows a registry to those who may see it: admins; everybody, if nobody is asked to
    log in; and those admitted by a checker that knows no permissions.

    @param callers: Finds out who asks.
    @param guard: Judges browsers' requests.
    @param registry: What to show.
    @param siblings: The other processes of this machine, if the server has several.
    """

    def __init__(
        self,
        callers: HTTPCallers,
        guard: Guard,
        registry: CollectorRegistry,
        siblings: Siblings | None = None,
    ) -> None:
        super().__init__(callers, guard)
        self._registry = registry
        self._siblings = siblings
        if siblings is not None:
            siblings.publish("metrics", lambda caller: _written(registry))

    async def answer(self, request: Request, caller: Caller) -> bytes:
        identity = caller.identity
        if identity.grant is not None:
            identity.grant.check()
            if not isAdmin(identity):
                raise TunnelError(
                    "not-permitted", "metrics require a token created with --may admin"
                )
        accept = (request.getHeader(b"accept") or b"").decode("latin-1")
        try:
            encode, kind = choose_encoder(accept)
        except (TypeError, ValueError):
            # It compares versions that are not numbers.
            encode, kind = choose_encoder("")
        request.setHeader("Content-Type", kind)
        request.setHeader("Cache-Control", "no-store")
        return bytes(encode(await self._everybodys()))

    async def _everybodys(self) -> Any:
        if self._siblings is None:
            return self._registry
        others = await self._siblings.gather("metrics", None)
        own = (self._siblings.name, _written(self._registry))
        return _JoinedMetrics(sorted([own, *others.answers]))


def metricsPage(
    callers: HTTPCallers,
    service: TunnelService,
    counted: Counters,
    lag: ReactorLag,
    limiter: PreauthLimiter,
    guard: Guard,
) -> IResource:
    """
    Make the page.
    """
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(ServerCollector(service, counted, lag, limiter))
    return MetricsPage(callers, guard, registry, service.processes)
