"""What is written and counted of requests."""

from __future__ import annotations

import json
from pathlib import Path

from tests.names.rig import VisitorTestCase, request, response
from tristunnel.names.counters import MOST_COUNTED, OTHERS, NameCounters
from tristunnel.names.log import AccessLog
from tristunnel.util.output import LogFile


class AccessLogTests(VisitorTestCase):
    """A line for each request."""

    def begin(self, form: str) -> Path:
        path = Path(self.mktemp())
        self.site.log = AccessLog(LogFile(str(path)), form, lambda: 1_800_000_000.25)
        self.site.counters = NameCounters()
        return path

    def ask(self) -> None:
        visitor = self.connect()
        lines = 'Referer: http://x/"y\r\nUser-Agent: a\\\xe9\x7f\r\n'.replace(
            "\x7f", "b"
        )
        visitor.dataReceived(request(target='/x"?y', lines=lines))
        self.clock.advance(0.5)
        self.service().say(response(b"hello"))
        visitor.dataReceived(request("c.example"))

    def test_combined(self) -> None:
        """As web servers write it; nothing of a visitor's ends the quotation."""
        path = self.begin("combined")
        self.ask()
        self.assertEqual(
            path.read_text().splitlines(),
            [
                "192.0.2.7 - - [15/Jan/2027:08:00:00 +0000]"
                ' "GET /x\\x22?y HTTP/1.1" 200 5 "http://x/\\x22y" "a\\x5c\\xc3\\xa9b"',
                "192.0.2.7 - - [15/Jan/2027:08:00:00 +0000]"
                ' "GET / HTTP/1.1" 404 0 "-" "-"',
            ],
        )

    def test_json(self) -> None:
        """As an object, with the name and how long it took."""
        path = self.begin("json")
        self.ask()
        first, second = map(json.loads, path.read_text().splitlines())
        self.assertEqual(first["target"], '/x"?y')
        self.assertEqual(
            (first["host"], first["status"], first["bytes"], first["seconds"]),
            ("a.example", 200, 5, 0.5),
        )
        self.assertEqual((second["host"], second["status"]), ("c.example", 404))

    def test_left(self) -> None:
        """A visitor who does not wait for the answer is noted, too."""
        path = self.begin("json")
        visitor = self.connect()
        visitor.dataReceived(request())
        self.lose(visitor)
        self.assertEqual(json.loads(path.read_text())["status"], 499)

    def test_counters(self) -> None:
        """Names with a tunnel are counted by themselves, so many of them."""
        self.begin("json")
        for number in range(MOST_COUNTED + 5):
            host = f"n{number}.example"
            self.route(host)
            visitor = self.connect()
            visitor.dataReceived(request(host))
            self.service(host).say(response(b"12"))
            visitor.dataReceived(request("unknown.example"))
        counters = self.site.counters
        self.assertEqual(counters.requests["n0.example"], {"2xx": 1})
        self.assertEqual(counters.sent["n0.example"], 2)
        self.assertEqual(len(counters.requests), MOST_COUNTED + 1)
        self.assertEqual(counters.requests[OTHERS]["4xx"], MOST_COUNTED + 5)
        self.assertGreater(counters.requests[OTHERS]["2xx"], 0)
