"""The members of a cluster on the dashboard."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred, succeed

from tests.dashboard.watched import WatchedTestCase

HERE = "localhost:9000"


class Cluster:
    """Members of which one does not answer."""

    isDraining = False
    engineIsUp = True
    count = 2

    def elsewhere(self) -> tuple[str, ...]:
        return ()

    def describe(self, caller: object) -> Deferred[list[dict[str, object]]]:
        return succeed(
            [
                {
                    "member": "a1",
                    "state": "draining",
                    "engine": "away",
                    "clientAddress": "10.0.0.1:9000",
                    "version": "1<b>",
                    "clients": 3,
                    "tunnels": 4,
                    "streams": 5,
                    "load": 0.25,
                    "seconds": 120.0,
                },
                {"member": "b2", "state": "silent", "address": "tcp:10.0.0.2:9001"},
            ]
        )

    def drain(self, caller: object, member: str, on: bool) -> Deferred[Any]:
        raise NotImplementedError


class MembersTests(WatchedTestCase):
    """What is shown of them, and to whom."""

    def page(self, *headers: str) -> str:
        status, _, body = self.ask("/", *headers, host=HERE)
        self.assertEqual(status, 200, body)
        return body

    def row(self, member: str, page: str) -> str:
        found = re.search(rf'<tr[^>]*data-id="member:{member}".*?</tr>', page, re.S)
        return "" if found is None else re.sub("<[^>]*>", " ", found[0])

    def test_shown(self) -> None:
        """Each member has a row; of one that does not answer there is less to say."""
        page = self.page()
        self.assertEqual(self.row("a1", page), "")
        self.service.cluster = Cluster()
        page = self.page()
        first = self.row("a1", page).split()
        self.assertEqual(first[:2], ["a1", "draining,"])
        for text in ("10.0.0.1:9000", "1&lt;b&gt;", "3", "4", "5", "0.25"):
            self.assertIn(text, first)
        self.assertEqual(
            self.row("b2", page).split(), ["b2", "silent", "tcp:10.0.0.2:9001"]
        )

    def test_owners(self) -> None:
        """Who has only tunnels is not told of them; an operator is."""
        self.build(asked=True)
        self.service.cluster = Cluster()
        self.assertEqual(self.row("a1", self.page(self.basic("alice"))), "")
        self.promote("admin")
        self.assertIn("draining", self.row("a1", self.page(self.basic("alice"))))
