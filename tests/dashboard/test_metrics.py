"""Tests for L{tristunnel.dashboard.metrics}."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest import skipIf

from tests.dashboard.watched import PEER, WatchedTestCase
from tests.service.rig import Session
from tristunnel.dataplane.pipes import PIPES
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity

ROOT = Path(__file__).resolve().parents[2]
DOCS, CONTRIB = ROOT / "docs" / "metrics.rst", ROOT / "contrib"

HERE = "192.0.2.1:9000"
"""An address, which nobody's name server can point elsewhere."""


class MetricsTestCase(WatchedTestCase):
    """A server with a little of everything."""

    def fill(self) -> None:
        identity = Identity("alice")
        session: Any = Session()
        session.multiplexer = _Multiplexer()
        self.service.clients.enter(
            identity, "192.0.2.1:1", "framed", lambda reason: None, session
        )
        observer = self.watch.observer
        observer.clientConnected(PEER, identity, "framed")
        observer.clientGone(PEER, identity, TunnelError("session-lost"))
        observer.authenticationFailed(PEER, TunnelError("auth-refused"))
        observer.peerRefused(PEER, TunnelError("protocol-error"))
        observer.roundTripMeasured(0.02)
        self.open(self.owner(), name="shop", visitors=9)
        self.visit(sent=1000)
        self.visit(sent=30).leave(TunnelError("reset"))
        (tunnel,) = self.watch.counters.tunnels
        tunnel.refusals["limit-reached"] += 1
        self.clock.advance(3)
        self.close(self.open(self.owner()), self.owner())

    def scrape(self, *headers: str) -> str:
        status, _, body = self.ask("/metrics", *headers, host=HERE)
        self.assertEqual(status, 200, body)
        return body


class _Window:
    """Credit."""

    available = 0


class _Stream:
    """A stream that waits for credit."""

    outgoing = (b"12345", b"678")
    sendWindow = _Window()


class _Datagrams:
    """Datagrams that wait."""

    queued = 7


class _Multiplexer:
    """A session that was measured."""

    roundTrip = 0.25
    sendWindow = _Window()
    datagrams = _Datagrams()
    unsent = 5

    def __init__(self) -> None:
        self.streams = {1: _Stream()}


class PageTests(MetricsTestCase):
    """C{/metrics}."""

    def test_values(self) -> None:
        """What happened is there, by tunnel and by listener."""
        self.fill()
        lines = self.scrape().splitlines()
        for line in (
            'tristunnel_clients{dialect="framed"} 1.0',
            'tristunnel_clients_connected_total{dialect="framed"} 1.0',
            'tristunnel_clients_gone_total{code="session-lost"} 1.0',
            'tristunnel_tunnels{listener="tcp"} 1.0',
            'tristunnel_tunnels_opened_total{listener="tcp"} 2.0',
            'tristunnel_tunnels_closed_total{code="closed"} 1.0',
            'tristunnel_visitors{listener="tcp",tunnel="shop"} 1.0',
            'tristunnel_visitors_served_total{listener="tcp",tunnel="shop"} 2.0',
            'tristunnel_bytes_total{direction="in",listener="tcp",tunnel="shop"}'
            " 1030.0",
            'tristunnel_bytes_total{direction="out",listener="tcp",tunnel="shop"} 0.0',
            'tristunnel_visitors_refused_total{code="limit-reached",listener="tcp",'
            'tunnel="shop"} 1.0',
            'tristunnel_logins_refused_total{code="auth-refused"} 1.0',
            'tristunnel_connections_refused_total{code="protocol-error"} 1.0',
            'tristunnel_streams_broken_total{code="reset"} 1.0',
            'tristunnel_visitor_seconds_count{listener="tcp",tunnel="shop"} 1.0',
            'tristunnel_visitor_received_bytes_bucket{le="100.0",listener="tcp",'
            'tunnel="shop"} 1.0',
            'tristunnel_session_round_trip_seconds_bucket{le="0.025"} 1.0',
            "tristunnel_session_round_trip_seconds_sum 0.02",
            'tristunnel_session_last_round_trip_seconds{which="median"} 0.25',
            "tristunnel_streams_out_of_credit 1.0",
            "tristunnel_sessions_out_of_credit 1.0",
            'tristunnel_session_queued_bytes{what="stream"} 8.0',
            'tristunnel_session_queued_bytes{what="datagram"} 7.0',
            'tristunnel_session_queued_bytes{what="control"} 5.0',
            'tristunnel_streams{carrier="waiting"} 1.0',
            "tristunnel_unauthenticated_connections 0.0",
        ):
            self.assertIn(line, lines)

    def test_formats(self) -> None:
        """Prometheus's text, or OpenMetrics where that is asked for."""
        _, headers, body = self.ask("/metrics", host=HERE)
        self.assertTrue(headers["content-type"].startswith("text/plain; version="))
        self.assertEqual(headers["cache-control"], "no-store")
        _, headers, body = self.ask(
            "/metrics", "Accept: application/openmetrics-text; version=1.0.0", host=HERE
        )
        self.assertIn("application/openmetrics-text", headers["content-type"])
        self.assertTrue(body.endswith("# EOF\n"))

    def test_bounded(self) -> None:
        """However many tunnels there are, the number of series has a bound."""
        self.watch.counters._most = 1
        for name in ("one", "two"):
            self.open(self.owner(), name=name)
        labels = set(re.findall(r'tunnel="([^"]*)"', self.scrape()))
        self.assertEqual(labels, {"one", "other"})

    def test_boundedHistograms(self) -> None:
        """Visits count by the tunnel's name, and together where it has none."""
        self.watch.counters._most = 2
        for name in ("one", "one", "", "two", ""):
            uri = self.open(self.owner(), name=name)
            self.visit().leave(None)
            if self.watch.counters.tunnels:
                self.close(uri, self.owner())
        page = self.scrape()
        counts = dict(
            re.findall(r'visitor_seconds_count{.*tunnel="(\w+)"} (\S+)', page)
        )
        self.assertEqual(counts, {"one": "2.0", "other": "3.0"})

    def test_relayed(self) -> None:
        """What was not spliced was copied, also in tunnels that are over."""
        self.patch(PIPES, "moved", 400)
        uri = self.open(self.owner(), visitors=5)
        self.visit(sent=600)
        self.visit(sent=300)
        for _ in range(2):
            lines = self.scrape().splitlines()
            self.assertIn('tristunnel_relayed_bytes_total{by="copy"} 500.0', lines)
            self.assertIn('tristunnel_relayed_bytes_total{by="splice"} 400.0', lines)
            if self.watch.counters.tunnels:
                self.close(uri, self.owner())


class AccessTests(MetricsTestCase):
    """Who may see metrics."""

    def setUp(self) -> None:
        super().setUp()
        self.build(asked=True)

    def test_nobody(self) -> None:
        """Who does not say who it is is asked to."""
        for headers in ([], [self.basic("alice", "wrong")]):
            status, answer, body = self.ask("/metrics", *headers, host=HERE)
            self.assertEqual(status, 401)
            self.assertIn("Basic", answer["www-authenticate"])
            self.assertNotIn("tristunnel_", body)

    def test_withoutPermissions(self) -> None:
        """Who was let in by a checker that knows no permissions sees them."""
        self.assertIn("tristunnel_tunnels", self.scrape(self.basic("alice")))

    def test_notAdmin(self) -> None:
        """Whose permissions are known must be an admin."""
        self.promote("open")
        status, _, body = self.ask("/metrics", self.basic("alice"))
        self.assertEqual(status, 403)
        self.assertIn("--may admin", body)

    def test_admin(self) -> None:
        """An admin sees them."""
        self.promote("admin")
        self.assertIn("tristunnel_tunnels", self.scrape(self.basic("alice")))


@skipIf(not DOCS.is_file(), "there is no documentation beside these tests")
class DocumentationTests(MetricsTestCase):
    """What is written about the metrics."""

    def names(self) -> set[str]:
        self.fill()
        found = re.findall(r"^# TYPE (tristunnel_\w+)", self.scrape(), re.M)
        return set(found)

    def test_documented(self) -> None:
        """C{docs/metrics.rst} has every metric, and no other."""
        text = DOCS.read_text("utf-8")
        told = set(re.findall(r"^``(tristunnel_\w+)``", text, re.M))
        self.assertEqual(told, self.names())

    def assertKnown(self, text: str) -> None:
        names = self.names()
        asked = set(re.findall(r"\btristunnel_\w+", text))
        self.assertTrue(asked)
        for name in asked:
            bare = re.sub(r"_(bucket|sum|count)$", "", name)
            self.assertTrue({name, bare} & names, name)

    def test_dashboard(self) -> None:
        """The dashboard for Grafana is JSON and asks for metrics that exist."""
        text = (CONTRIB / "grafana-dashboard.json").read_text("utf-8")
        board = json.loads(text)
        made = runpy.run_path(str(CONTRIB / "grafana_dashboard.py"))["BOARD"]
        self.assertEqual(board, made, "make it anew with contrib/grafana_dashboard.py")
        self.assertEqual(
            len({panel["id"] for panel in board["panels"]}), len(board["panels"])
        )
        self.assertKnown(
            "\n".join(
                target["expr"]
                for panel in board["panels"]
                for target in panel.get("targets", [])
            )
        )

    def test_alerts(self) -> None:
        """So do the alert rules."""
        rules = (CONTRIB / "prometheus-alerts.yml").read_text("utf-8")
        self.assertKnown("\n".join(re.findall(r"expr: (.*)", rules)))

    def test_promtool(self) -> None:
        """Prometheus's own tool finds nothing wrong with metrics and rules."""
        promtool = shutil.which("promtool")
        if promtool is None:
            self.skipTest("promtool is not installed")
        self.fill()
        for command, data in (
            (["check", "metrics"], self.scrape().encode()),
            (["check", "rules", str(CONTRIB / "prometheus-alerts.yml")], b""),
        ):
            done = subprocess.run(
                [promtool, *command], input=data, capture_output=True, timeout=60
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
