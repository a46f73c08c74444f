"""Tests for L{tristunnel.dashboard}, over HTTP."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.dashboard.rig import HERE, DashboardTestCase
from tests.dashboard.watched import PEER
from tristunnel.dashboard import render, view
from tristunnel.dashboard.history import KEPT, Series, path, top
from tristunnel.dashboard.policies import policyWords
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.model.policy import POLICY_OPTIONS, VisitorPolicy, parseNetworks
from tristunnel.service.clients import ClientFacts


class PathTests(SynchronousTestCase):
    def test_path(self) -> None:
        """The newest value is at the right edge, the greatest at the top."""
        self.assertEqual(path([], 0, 10, 5, 3), "M0 5H10")
        self.assertEqual(path([0, 4], 4, 10, 5, 3), "M5.0 5.0L10.0 1.0")
        self.assertEqual(
            path([9, 0, 0, 4], 4, 10, 5, 3, True), "M0.0 5.0L5.0 5.0L10.0 1.0V5H0.0Z"
        )
        self.assertEqual(path([0, 0], 0, 10, 5, 2), "M0.0 5.0L10.0 5.0")


class HistoryTests(SynchronousTestCase):
    """What passed in each span, in bounded memory."""

    def test_spans(self) -> None:
        """Samples of two seconds, and means of a minute and of 24 minutes, of which the
        last is not over yet."""
        series = Series()
        for number in range(2 * 86400 // 2):
            series.add((1000.0 * (number % 2), 10.0), 2.0)
        series.add((3000.0, 10.0), 2.0)
        for span, last in (("2min", 3000.0), ("1h", 3000.0), ("1d", 3000.0)):
            values = series.over(span)
            self.assertEqual(len(values), KEPT)
            self.assertEqual(values[-1], (last, 10.0))
            means = {1000.0, 0.0} if span == "2min" else {500.0}
            self.assertEqual({value for value, _ in values[:-1]}, means)
        self.assertEqual(series.last, (3000.0, 10.0))

    def test_late(self) -> None:
        """Samples that come late count for as long as they took."""
        series = Series()
        for passed in (58.0, 2.2, 61.0):
            series.add((100.0, 0.0), passed)
        self.assertEqual(series.over("1h"), [(100.0, 0.0)] * 2)

    def test_top(self) -> None:
        """The top of a graph is round, and not much above the greatest value."""
        for most, expected in (
            *((0, 0), (1, 1), (1.1, 2), (150, 200), (201, 400), (999, 1000)),
            *((1000, 1000), (5e6, 6e6), (1e9, 1e9), (0.02, 0.02)),
        ):
            self.assertAlmostEqual(top(most), expected)


class PolicyTests(SynchronousTestCase):
    def test_words(self) -> None:
        """All that can be asked of visitors can be said."""
        networks = parseNetworks(("192.0.2.0/24", "2001:db8::1"))
        for name, option in POLICY_OPTIONS.items():
            value: Any = networks if isinstance(option.default, tuple) else 7
            words = policyWords(VisitorPolicy(**{name: value}))
            self.assertRegex(words, "7|192.0.2.0/24, 2001:db8::1")
        self.assertEqual(policyWords(VisitorPolicy()), "nothing")


class TemplateTests(SynchronousTestCase):
    """The page and its script agree."""

    def test_slots(self) -> None:
        """The rows that the script fills have the fields that the template has."""
        for file in ("page.xml", "tunnel.xml"):
            template = render.partOf(file) + render.partOf("visitors.xml")
            for name, part in re.findall(
                rf't:render="({"|".join(view.SLOTS)})">(.*?)</(?:tbody|ol)>',
                template.decode(),
                re.S,
            ):
                slots = set(re.findall(r'data-f="(\w+)"', part))
                for pairs in re.findall(r'data-attr="([^"]*)"', part):
                    slots.update(pair.partition("=")[2] for pair in pairs.split())
                self.assertEqual(slots, set(view.SLOTS[name].split()), name)

    def test_selfContained(self) -> None:
        """Nothing is fetched from elsewhere, nor does the policy forbid any of it."""
        names = {path.name for path in files(render.__package__).iterdir()}
        for name in names:
            if not name.endswith((".xml", ".css", ".js")):
                continue
            text = render.partOf(name).decode()
            text = text.replace("http://twistedmatrix.com/ns/twisted.web.template", "")
            self.assertNotRegex(text, r"https?:|//[a-z]|@import|innerHTML|eval\(")
            self.assertNotRegex(text, r"<style|\sstyle=|\son[a-z]+=\"|<script>")


class ReadingTests(DashboardTestCase):
    """The page itself."""

    def test_empty(self) -> None:
        """Where nothing is, the page says what to do."""
        page = self.page()
        command = "tristunnel http 3000 --to tcp:127.0.0.1:9000"
        self.assertIn(f"<code>{command}</code>", page)
        self.assertIn("on port 3000 of your machine, for example, run:", page)
        self.assertRegex(page, r'<p class="note" data-note="tunnels" hidden')
        self.assertNotRegex(page, r'data-none="tunnels" hidden')

    def test_everything(self) -> None:
        """It shows clients, tunnels, visitors, refusals and events."""
        self.enter()
        self.open(self.owner(), name="shop")
        self.visit(sent=12345)
        self.watch.observer.peerRefused(PEER, TunnelError("protocol-error"))
        self.clock.advance(20)
        page = self.page()
        for text in (
            "203.0.113.5:40000",
            '<b data-f="title">shop</b>',
            "tcp://server:8011",
            "192.0.2.7:50000",
            "12.3 kB",
            "20 s",
            ' data-f="code">protocol-error</td>',
            "Tunnel shop of anonymous is open at tcp://server:8011",
            f"dashboard/end?id={self.tunnelId()}",
        ):
            self.assertIn(text, page)

    def test_hostile(self) -> None:
        """What unauthenticated peers can have written on the page is text."""
        reason = TunnelError("protocol-error", 'said <script>alert(1)</script> & "x"')
        self.watch.observer.peerRefused(PEER, reason)
        _, _, body = self.ask("/", host=HERE)
        self.assertNotIn("<script>alert", body)
        self.assertIn("&lt;script&gt;alert(1)", body)
        _, _, body = self.ask("/?done=<script>", host=HERE)
        self.assertNotIn("done=", body)
        self.assertNotIn('class="done"', body)

    def test_hostileClient(self) -> None:
        """So is what a client says of itself and of its tunnels."""
        hostile = '"><script>alert(1)</script>\u202e javascript:alert(2)'
        client, _ = self.enter()
        client.facts = ClientFacts.said({"host": hostile, "program": hostile}, hostile)
        self.open(self.owner(), name="shop", target=hostile)
        (tunnel,) = self.watch.counters.tunnels
        tunnel.clientSide = client.side
        for path_ in ("/", f"/?tunnel={tunnel.id}", "/?tunnel=%22%3E%3Cscript%3E"):
            _, _, body = self.ask(path_, host=HERE)
            self.assertNotIn("<script>", body)
            self.assertNotIn("\u202e", body)
            self.assertNotRegex(
                body, r'href="(?!\./|dashboard/|http://|style|icon|#|")'
            )
        page = self.page(path=f"/?tunnel={tunnel.id}")
        self.assertIn('<dd data-total="target">"><script>', page)

    def test_tunnel(self) -> None:
        """A tunnel has a page: where it leads, whose it is, what is asked of visitors,
        and a graph."""
        client, _ = self.enter()
        client.facts = ClientFacts("alice", "den", "tristunnel 0")
        owner = replace(
            self.owner(), identity=replace(ANONYMOUS_IDENTITY, claimed="alice")
        )
        asked = {"maxVisitors": 5, "allow": ["192.0.2.0/24"]}
        self.open(owner, name="shop", target="localhost:3000", **asked)
        (tunnel,) = self.watch.counters.tunnels
        tunnel.clientSide = client.side
        self.visit(sent=12345)
        index = self.page()
        self.assertIn(f'href="./?tunnel={tunnel.id}"', index)
        self.assertIn("alice (unproven)", index)
        self.assertIn(">den, tristunnel 0<", index)
        for span, tick in (("2min", "-90 s"), ("1h", "-45 min"), ("1d", "-18 h")):
            page = self.page(path=f"/?tunnel={tunnel.id}&span={span}")
            for text in (
                "localhost:3000",
                "alice (unproven)",
                "den, tristunnel 0, 203.0.113.5:40000",
                "only from 192.0.2.0/24; at most 5 visitors at once",
                "tcp://server:8011",
                f">{tick}<",
                f"dashboard/end?id={tunnel.id}.1",
            ):
                self.assertIn(text, page)
        self.assertEqual(self.ask("/?tunnel=nosuch", host=HERE)[0], 404)

    def test_foreignTunnel(self) -> None:
        """Nobody sees the page of somebody else's tunnel."""
        self.build(asked=True)
        self.open(self.owner("alice"), name="shop")
        path_ = f"/?tunnel={self.tunnelId()}"
        for name, status in (("alice", 200), ("bob", 404)):
            self.assertEqual(self.ask(path_, self.basic(name))[0], status, name)

    def test_webSite(self) -> None:
        """The address of a web site is a link, with a QR code on its page: where its
        answers are HTTP, or its name or target say so."""
        for options, kind, link in (
            ({"scheme": "http"}, "", "http://server:8011/"),
            ({"scheme": "https"}, "", "https://server:8011/"),
            ({"scheme": "http"}, "other", ""),
            ({"name": "www.shop"}, "", "http://server:8011/"),
            ({"target": "http://localhost:3000"}, "", "http://server:8011/"),
            ({}, "http", "http://server:8011/"),
            ({}, "https", "https://server:8011/"),
            ({"name": "shop"}, "", ""),
            ({"name": "web"}, "other", ""),
        ):
            uri = self.open(self.owner(), **options)
            (tunnel,) = self.watch.counters.tunnels
            assert tunnel.speech is not None
            tunnel.speech.kind = kind
            page = self.page(path=f"/?tunnel={tunnel.id}")
            self.assertEqual(f'href="{link}"' in page, True, (options, kind))
            self.assertEqual('class="qr"' in page, bool(link))
            self.assertIn(f'data-copies="{link or "tcp://server:8011"}"', page)
            if not kind:
                # Nobody knew more when it was opened.
                self.assertIn(
                    f"is open at {link or 'tcp://server:8011'}</", self.page()
                )
            self.close(uri, self.owner())

    def test_warnings(self) -> None:
        """A banner says so if anybody may connect, or there is no TLS."""
        for options, tls, words in (
            ({}, False, ["Anybody", "no TLS"]),
            ({}, True, ["Anybody"]),
            ({"certificates": True}, True, []),
            ({"asked": True}, True, []),
            ({"asked": True}, False, ["no TLS"]),
        ):
            self.build(**options)
            self.service.clientPort = 9000, tls
            page = self.page(self.basic("alice"))
            found = re.findall(r"<li>([^<]*)</li>", page.partition("<section")[0])
            self.assertEqual(len(found), len(words), found)
            for text, word in zip(found, words, strict=True):
                self.assertIn(word, text)

    def test_headers(self) -> None:
        """Browsers are told to let nobody else have a hand in it."""
        for path_ in ("/", "/dashboard/copy.js", "/dashboard/style.css"):
            _, headers, _ = self.ask(path_, host=HERE)
            policy = headers["content-security-policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(headers["x-frame-options"], "DENY")
            self.assertEqual(headers["x-content-type-options"], "nosniff")
        self.assertEqual(self.ask("/", method="HEAD", host=HERE)[0], 200)

    def test_bounded(self) -> None:
        """With many visitors, those who have moved the most are shown."""
        self.patch(view, "VISITORS", 2)
        self.open(self.owner(), visitors=10)
        for sent in (1, 5000, 2, 4000):
            self.visit(sent=sent)
        page = self.page()
        self.assertIn("2 of 4 are shown", page)
        self.assertIn("5.0 kB", page)
        self.assertIn("4.0 kB", page)
        self.assertNotIn(f"{self.tunnelId()}.3", page)

    def test_rates(self) -> None:
        """The graphs' beat measures what passes."""
        self.open(self.owner())
        visitor = self.visit()
        self.watch.lag.start()
        self.clock.advance(1)
        for _ in range(4):
            visitor.received += 500
            self.clock.advance(1)
        self.watch.lag.stop()
        page = self.page()
        self.assertIn('<dd data-total="rateIn">500 B/s</dd>', page)

    def test_repetitions(self) -> None:
        """A flood of refusals is counted, and pushes out no other event."""
        self.open(self.owner(), name="shop")
        for number in range(1000):
            reason = TunnelError("protocol-error", f"number {number}")
            self.watch.observer.peerRefused(PEER, reason)
        page = self.page()
        self.assertIn("1,000 times", page)
        self.assertIn("Tunnel shop of anonymous is open", page)

    def test_off(self) -> None:
        """Without a dashboard there is nothing."""
        self.build(dashboard=False)
        for where in ("/", "/dashboard/live.js", "/dashboard/events"):
            self.assertEqual(self.ask(where, host=HERE)[0], 404)
        self.assertEqual(self.ask("/metrics", host=HERE)[0], 200)

    def test_rebinding(self) -> None:
        """A page of another name that was made to lead here reads nothing."""
        for host in ("evil.example", "evil.example:9000"):
            for where in ("/", "/metrics", "/dashboard/events", "/dashboard/end?id=x"):
                status, _, body = self.ask(where, host=host)
                self.assertEqual(status, 403)
                self.assertIn("--hostname", body)
        self.build(names=["Tunnel.example"])
        for host in ("tunnel.example:9000", "localhost", "[::1]:9000"):
            self.assertEqual(self.ask("/", host=host)[0], 200)
            self.assertEqual(self.ask("/metrics", host=host)[0], 200)


class ActingTests(DashboardTestCase):
    """Ending something."""

    def test_tunnel(self) -> None:
        """A tunnel is closed, after a question."""
        self.open(self.owner(), name="shop")
        page = self.page(path=f"/dashboard/end?id={self.tunnelId()}")
        self.assertIn("Close tunnel shop?", page)
        status, headers, _ = self.end(self.tunnelId())
        self.assertEqual((status, headers["location"]), (303, "../?done=tunnel"))
        self.assertEqual(self.watch.counters.tunnels, [])
        self.assertIn("The tunnel is closed.", self.page(path="/?done=tunnel"))

    def test_visitor(self) -> None:
        """A visitor is sent away."""
        self.open(self.owner())
        visitor = self.visit()
        status, headers, _ = self.end(f"{self.tunnelId()}.1")
        self.assertEqual((status, headers["location"]), (303, "../?done=visitor"))
        self.assertEqual(visitor.refused, "closed")

    def test_client(self) -> None:
        """A client is disconnected."""
        client, ended = self.enter()
        status, headers, _ = self.end(client.id)
        self.assertEqual((status, headers["location"]), (303, "../?done=client"))
        self.assertEqual(ended, ["closed"])

    def test_gone(self) -> None:
        """What is over already cannot be ended."""
        for identifier in ("nothing", "x.1", "", "%00", "cffffffffffff"):
            status, _, body = self.ask(f"/dashboard/end?id={identifier}", host=HERE)
            self.assertEqual(status, 404)
            self.assertIn("It has already ended", body)
        self.open(self.owner())
        identifier = self.tunnelId()
        cookie, fields = self.question(identifier)
        self.end(identifier)
        status, _, body = self.post(fields, f"Cookie: {cookie}")
        self.assertEqual(status, 404)

    def test_forged(self) -> None:
        """A form is taken with its own cookie and token only, by its own server."""
        self.open(self.owner())
        cookie, fields = self.question(self.tunnelId())
        for form, *headers in (
            (fields,),
            (fields, "Cookie: tristunnel_form=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            (fields, "Cookie: tristunnel_form="),
            ({**fields, "form": "0" * 64}, f"Cookie: {cookie}"),
            ({**fields, "form": "\u2603"}, f"Cookie: {cookie}"),
            ({"id": fields["id"]}, f"Cookie: {cookie}"),
            ({str(n): "x" for n in range(20)}, f"Cookie: {cookie}"),
        ):
            status, _, body = self.post(form, *headers)
            self.assertEqual(status, 403)
            self.assertIn("Nothing was done", body)
        self.assertEqual(len(self.watch.counters.tunnels), 1)

    def test_crossSite(self) -> None:
        """A page of another site can post nothing, even if it knew it all."""
        self.open(self.owner())
        cookie, fields = self.question(self.tunnelId())
        for headers, host in (
            (["Origin: https://evil.example"], HERE),
            (["Origin: null"], HERE),
            (["Sec-Fetch-Site: cross-site"], HERE),
            (["Sec-Fetch-Site: same-site"], HERE),
            (["Origin: http://evil.example"], "evil.example"),
        ):
            status, _, _ = self.post(
                fields, f"Cookie: {cookie}", *headers, host=str(host)
            )
            self.assertEqual(status, 403)
        self.assertEqual(len(self.watch.counters.tunnels), 1)

    def test_byLink(self) -> None:
        """Nothing is ended by a link, or by any other kind of body."""
        status, headers, _ = self.ask("/dashboard/act?id=x", host=HERE)
        self.assertEqual((status, headers["allow"]), (405, "POST"))
        status, _, _ = self.ask(
            "/dashboard/act", "Content-Type: text/plain", method="POST", host=HERE
        )
        self.assertEqual(status, 415)
