"""Who may see a dashboard, and how it is kept up to date."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.dashboard.rig import HERE, DashboardTestCase
from tests.dashboard.watched import PEER, Connection
from tristunnel.dashboard import live, view
from tristunnel.errors import TunnelError


class AuthTests(DashboardTestCase):
    """With C{--auth}."""

    def setUp(self) -> None:
        super().setUp()
        self.build(asked=True)
        for name in ("alice", "bob"):
            self.open(self.owner(name), name=f"of-{name}")
            self.enter(name)

    def test_login(self) -> None:
        """Whoever does not say who it is is asked to, and sees nothing."""
        for where in ("/", "/dashboard/events", "/dashboard/end?id=x"):
            for headers in ([], [self.basic("alice", "wrong")]):
                status, answer, body = self.ask(where, *headers, host=HERE)
                self.assertEqual(status, 401)
                self.assertTrue(answer["www-authenticate"].startswith("Basic"))
                self.assertNotIn("of-alice", body)
        status, _, _ = self.post({"id": self.tunnelId()})
        self.assertEqual(status, 401)

    def test_own(self) -> None:
        """Everybody sees and ends what is theirs."""
        self.watch.observer.peerRefused(PEER, TunnelError("protocol-error"))
        page = self.page(self.basic("alice"))
        self.assertIn("of-alice", page)
        self.assertNotIn("bob", page)
        self.assertNotIn("protocol-error", page)
        other = self.tunnelId(1)
        status, _, _ = self.ask(
            f"/dashboard/end?id={other}", self.basic("alice"), host=HERE
        )
        self.assertEqual(status, 404)
        cookie, fields = self.question(self.tunnelId(), self.basic("alice"))
        status, _, _ = self.post(
            {**fields, "id": other}, f"Cookie: {cookie}", self.basic("alice")
        )
        self.assertEqual(status, 404)
        status, _, _ = self.post(fields, f"Cookie: {cookie}", self.basic("bob"))
        self.assertEqual(status, 403)
        self.assertEqual(len(self.watch.counters.tunnels), 2)
        self.assertEqual(self.end(self.tunnelId(), self.basic("alice"))[0], 303)
        self.assertEqual(len(self.watch.counters.tunnels), 1)

    def test_admin(self) -> None:
        """An admin sees and ends everything."""
        self.promote("admin")
        self.watch.observer.peerRefused(PEER, TunnelError("protocol-error"))
        page = self.page(self.basic("alice"))
        for text in ("of-alice", "of-bob", "protocol-error", "Client bob connected"):
            self.assertIn(text, page)
        self.assertEqual(self.end(self.tunnelId(1), self.basic("alice"))[0], 303)

    def test_anyName(self) -> None:
        """With a password, the server may be called what it likes, also by forms."""
        cookie, fields = self.question(self.tunnelId(), self.basic("alice"))
        status, _, _ = self.post(
            fields,
            f"Cookie: {cookie}",
            "Origin: http://tunnel.example",
            "Sec-Fetch-Site: same-origin",
            self.basic("alice"),
            host="tunnel.example",
        )
        self.assertEqual(status, 303)


class LiveTests(DashboardTestCase):
    """C{/dashboard/events}."""

    def listen(self, *headers: str) -> Connection:
        connection = Connection(self.site)
        connection.channel.dataReceived(
            self.request("/dashboard/events", *headers, host=HERE)
        )
        return connection

    def snapshots(self, connection: Connection) -> list[Any]:
        lines = re.findall(rb"^data: (.*)$", connection.said(), re.M)
        return [json.loads(line) for line in lines]

    def test_live(self) -> None:
        """A tunnel appears and goes, within a second."""
        page = self.listen()
        first = page.said()
        self.assertIn(b"text/event-stream", first)
        self.assertIn(b"Cache-Control: no-store", first)
        self.assertIn(b'"tunnels":[]', first)
        uri = self.open(self.owner(), name="shop")
        self.clock.advance(live.EVERY)
        (snapshot,) = self.snapshots(page)
        self.assertEqual(snapshot["lists"]["tunnels"][0]["title"], "shop")
        self.assertEqual(snapshot["totals"]["tunnels"], "1")
        self.close(uri, self.owner())
        self.clock.advance(live.EVERY)
        (snapshot,) = self.snapshots(page)
        self.assertEqual(snapshot["lists"]["tunnels"], [])
        page.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shared(self) -> None:
        """A snapshot is made once a second for all pages, and none for none."""
        views: list[object] = []
        make = view.Board.view

        async def counted(board: view.Board, *shown: Any) -> view.View:
            views.append(shown)
            return await make(board, *shown)

        self.patch(view.Board, "view", counted)
        pages = [self.listen() for _ in range(3)]
        views.clear()
        self.clock.advance(1)
        self.assertEqual(len(views), 1)
        for page in pages:
            self.assertEqual(len(self.snapshots(page)) > 0, True)
            page.leave()
        self.clock.advance(1)
        self.assertEqual(len(views), 1)

    def test_slow(self) -> None:
        """A page that takes nothing gets nothing more, until it does."""
        page = self.listen()
        page.said()
        page.channel.pauseProducing()
        self.clock.pump([1.0] * 100)
        self.assertEqual(page.said(), b"")
        page.channel.resumeProducing()
        self.clock.advance(1)
        self.assertEqual(len(self.snapshots(page)), 1)
        page.leave()

    def test_limits(self) -> None:
        """A caller can have so many pages open, and all of them so many."""
        pages = [self.listen() for _ in range(live.PER_CALLER)]
        status, headers, _ = self.ask("/dashboard/events", host=HERE)
        self.assertEqual((status, headers["retry-after"]), (429, "30"))
        pages.pop().leave()
        pages.append(self.listen())
        self.assertIn(b"text/event-stream", pages[-1].said())
        for page in pages:
            page.leave()
        self.patch(live, "LISTENERS", 0)
        self.assertEqual(self.ask("/dashboard/events", host=HERE)[0], 429)

    def test_crossSite(self) -> None:
        """A page of another site cannot even have it sent."""
        status, _, _ = self.ask(
            "/dashboard/events", "Sec-Fetch-Site: cross-site", host=HERE
        )
        self.assertEqual(status, 403)

    def test_revoked(self) -> None:
        """When somebody's grant is over, so is what is sent."""
        self.build(asked=True)
        self.promote("admin")
        page = self.listen(self.basic("alice"))
        self.assertIn(b'"tunnels":', page.said())
        caller = self.successResultOf(
            self.callers.identify(self.basic("alice").split(" ", 1)[1].encode(), PEER)
        )
        assert caller.grant is not None
        caller.grant.end(TunnelError("token-revoked"))
        self.clock.advance(1)
        self.assertTrue(page.said().endswith(b"0\r\n\r\n"))
        self.clock.advance(1)
        page.leave()

    def test_keptAlive(self) -> None:
        """Where nothing changes, a line is sent now and then."""
        make = view.Board.view
        same: list[view.View] = []

        async def still(board: view.Board, *shown: Any) -> view.View:
            if not same:
                same.append(await make(board, *shown))
            return same[0]

        self.patch(view.Board, "view", still)
        page = self.listen()
        page.said()
        self.clock.pump([1.0] * live.ALIVE)
        self.assertIn(b":\n\n", page.said())
        page.leave()

    def test_failed(self) -> None:
        """A snapshot that fails is logged, and the pages may ask again."""

        async def broken(board: view.Board, *shown: Any) -> view.View:
            raise ZeroDivisionError

        page = self.listen()
        self.patch(view.Board, "view", broken)
        self.clock.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(page.said().endswith(b"0\r\n\r\n"))
        status, _, body = self.ask("/", host=HERE)
        self.assertEqual((status, body), (500, "Internal error\n"))
        self.flushLoggedErrors(ZeroDivisionError)
