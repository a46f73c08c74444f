"""Tests for L{tristunnel.inspect.pages}: who sees the page, and what it answers."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.inspect.streams import aRecord, passing
from tests.jsonrpc.loopback import parsed
from tristunnel.inspect.calls import callsOf
from tristunnel.inspect.pages import COOKIE, InspectSite
from tristunnel.inspect.replay import Replays

HOST = "127.0.0.1:4040"


class PageTests(SynchronousTestCase):
    """A site with a few requests to be seen."""

    def setUp(self) -> None:
        clock = Clock()
        self.record = aRecord(clock=clock)
        for name in ("one", "a body", "another protocol"):
            passing(self.record, name)
        calls = callsOf(self.record, Replays(clock, self.record), lambda: "http://x/")
        self.site = InspectSite(clock, self.record, calls)
        self.place = f"/{self.site.place.decode()}/"
        self.cookie = f"Cookie: {COOKIE.decode()}={self.site.token}"

    def ask(
        self, path: str, *headers: str, host: str = HOST, body: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        channel: Any = self.site.buildProtocol(None)
        transport = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))
        channel.makeConnection(transport)
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1"]
        lines += [f"Host: {host}", *headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        text = "\r\n".join([*lines, "", ""]) + (body or "")
        channel.dataReceived(text.encode())
        answer = parsed(transport.value())
        channel.connectionLost()
        return answer

    def call(self, method: str, *headers: str, **params: object) -> tuple[int, Any]:
        body = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        )
        kind = "Content-Type: application/json"
        status, _, answer = self.ask(f"{self.place}rpc", kind, *headers, body=body)
        return status, json.loads(answer) if status == 200 else answer.decode()

    def test_token(self) -> None:
        """The token gives a cookie that nobody else is sent, and leads to the page."""
        status, headers, _ = self.ask(f"/?token={self.site.token}")
        self.assertEqual((status, headers["location"]), (303, self.place))
        words = [word.strip().lower() for word in headers["set-cookie"].split(";")]
        for word in ("httponly", "samesite=strict", f"path={self.place}"):
            self.assertIn(word, words)
        status, headers, page = self.ask(self.place, self.cookie)
        self.assertEqual(status, 200)
        self.assertIn(b"inspect.js", page)
        policy = headers["content-security-policy"]
        self.assertIn("script-src 'self';", policy)
        self.assertNotIn("unsafe", policy)
        self.assertNotIn(b"<script>", page)

    def test_noToken(self) -> None:
        """Without it nothing is answered but how to get it, on any path."""
        wrong = f"Cookie: {COOKIE.decode()}=wrong"
        for path in ("/", "/?token=", "/?token=wrong"):
            status, headers, text = self.ask(path)
            self.assertEqual(status, 403, path)
            self.assertNotIn("set-cookie", headers)
            self.assertIn(b"tristunnel requests page", text)
        for path in (self.place, f"{self.place}requests.har"):
            bearer = f"Authorization: Bearer {self.site.token}"
            for said in ([], [wrong], [bearer]):
                self.assertEqual(self.ask(path, *said)[0], 403)
        for said in ([], [wrong]):
            status, answer = self.call("listRequests", *said)
            self.assertEqual(status, 403)
            self.assertNotIn("GET", answer)

    def test_elsewhere(self) -> None:
        """Nor with it, for a page from elsewhere, or by a name that leads here."""
        page = (self.place, f"/?token={self.site.token}", "/inspect.js")
        for path in page:
            for header in (
                "Origin: http://evil.example",
                "Origin: null",
                "Origin: http://127.0.0.1:3000",
                "Referer: http://evil.example/",
                "Sec-Fetch-Site: cross-site",
                "Sec-Fetch-Site: same-site",
            ):
                status = self.ask(path, self.cookie, header)[0]
                self.assertEqual(status, 403, header)
            for host in ("evil.example", "evil.example:4040", "127.0.0.1.evil.example"):
                self.assertEqual(self.ask(path, self.cookie, host=host)[0], 403, host)
        for host in (HOST, "localhost:4040", "[::1]:4040"):
            self.assertEqual(self.ask(self.place, self.cookie, host=host)[0], 200, host)
        foreign = "Origin: http://evil.example"
        self.assertEqual(self.call("clearRequests", self.cookie, foreign)[0], 403)
        self.assertEqual(len(self.record.exchanges), 2)

    def test_calls(self) -> None:
        """The page's calls answer what is kept."""
        status, answer = self.call("listRequests", self.cookie, filter="status:200")
        self.assertEqual(status, 200)
        found = answer["result"]
        self.assertEqual(found["ids"], [1])
        self.assertEqual(found["requests"][0]["path"], "/a")
        self.assertEqual(found["notes"][0]["count"], 1)
        since = found["version"]
        _, answer = self.call("listRequests", self.cookie, since=since)
        self.assertEqual(answer["result"]["requests"], [])
        self.assertEqual(answer["result"]["ids"], [1, 2])
        _, answer = self.call("getRequest", self.cookie, id=2)
        self.assertEqual(answer["result"]["request"]["body"]["size"], 3)
        _, answer = self.call("requestsPage", self.cookie)
        self.assertEqual(answer["result"], "http://x/")
        _, answer = self.call("clearRequests", self.cookie)
        self.assertEqual(len(self.record.exchanges), 0)

    def test_badCalls(self) -> None:
        """Calls that make no sense are refused in words."""
        for method, params in (
            ("getRequest", {"id": 99}),
            ("getRequest", {"id": "1"}),
            ("getRequest", {"id": True}),
            ("listRequests", {"since": "x"}),
            ("listRequests", {"filter": 5}),
            ("listRequests", {"filter": "status:x"}),
            ("replayRequest", {"id": 99}),
            ("replayRequest", {"id": 1, "headers": "x"}),
            ("replayRequest", {"id": 1, "path": "http://elsewhere/"}),
        ):
            status, answer = self.call(method, self.cookie, **params)
            self.assertEqual(status, 200)
            self.assertGreater(len(answer["error"]["message"]), 5)
            self.assertNotIn("Internal", answer["error"]["message"])

    def test_archive(self) -> None:
        """The archive is a file for downloading."""
        status, headers, text = self.ask(
            f"{self.place}requests.har?filter=method:POST", self.cookie
        )
        self.assertEqual(status, 200)
        self.assertIn("attachment", headers["content-disposition"])
        entries = json.loads(text)["log"]["entries"]
        self.assertEqual([each["request"]["method"] for each in entries], ["POST"])
        self.assertEqual(
            self.ask(f"{self.place}requests.har?filter=status:x", self.cookie)[0], 403
        )
