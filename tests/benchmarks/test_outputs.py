"""
Tests for L{benchmarks.outputs}.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.outputs import establishedAt, parseIperf, parsePull, parseWrk
from benchmarks.processes import Failed

_WRK = """Running 2s test @ http://127.0.0.1:41245/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.21ms  523.10us  11.02ms   88.61%
    Req/Sec    26.93k     1.43k   29.44k    60.00%
  Latency Distribution
     50%    1.13ms
     75%  980.00us
     90%    1.50s
     99%    2.00m
  53652 requests in 2.00s, 60.68MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
Requests/sec:  26804.03
Transfer/sec:     30.32MB
"""

_TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt
   0: 0100007F:1E9B 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   1: 0100007F:1E9B 0100007F:C350 01 00000000:00000000 00:00000000 00000000
   2: 0100007F:C350 0100007F:1E9B 01 00000000:00000000 00:00000000 00000000
   3: 0100007F:1E9B 0100007F:C351 06 00000000:00000000 00:00000000 00000000
"""


class IperfTests(SynchronousTestCase):
    """iperf3's JSON."""

    def test_received(self) -> None:
        """What was received counts, not what was sent."""
        end = {
            "sum_sent": {"bits_per_second": 9e9, "bytes": 9},
            "sum_received": {"bits_per_second": 7.5e9, "bytes": 1875000000},
        }
        self.assertEqual(parseIperf(json.dumps({"end": end})), (7.5, 1875000000.0))

    def test_error(self) -> None:
        """Its own reason is passed on."""
        failure = self.assertRaises(
            Failed, parseIperf, '{"end": {}, "error": "the server is busy"}'
        )
        self.assertEqual(str(failure), "iperf3: the server is busy")

    def test_nothing(self) -> None:
        """Anything else is no result."""
        for text in ("", "{}", "no JSON", '{"end": 3}', "[]"):
            failure = self.assertRaises(Failed, parseIperf, text)
            self.assertEqual(str(failure), "iperf3: no result")


class WrkTests(SynchronousTestCase):
    """wrk's text."""

    def test_units(self) -> None:
        """Every unit becomes milliseconds."""
        found = parseWrk(_WRK)
        self.assertEqual(found.rate, 26804.03)
        self.assertEqual(found.total, 53652)
        self.assertEqual(
            found.percentiles, {50: 1.13, 75: 0.98, 90: 1500.0, 99: 120000.0}
        )
        self.assertEqual(found.errors, 7)

    def test_noErrors(self) -> None:
        """Errors are only spoken of when there are some."""
        text = "\n".join(line for line in _WRK.splitlines() if "errors" not in line)
        self.assertEqual(parseWrk(text).errors, 0)

    def test_nothing(self) -> None:
        """No requests are no result, and neither is a complaint."""
        for text in (_WRK.replace("53652", "0"), "unable to connect", ""):
            self.assertRaises(Failed, parseWrk, text)


class PullTests(SynchronousTestCase):
    """What our bulk visitor says."""

    def test_since(self) -> None:
        """The rate is that after the given time."""
        text = "1.0 0\n2.0 999\n3.0 1000\n5.0 250001000\n"
        self.assertAlmostEqual(parsePull(text, 2.5), 1.0)

    def test_tooLittle(self) -> None:
        """A single mark is no rate."""
        for text in ("", "1.0 5\n", "1.0 5\n2.0 9\n"):
            self.assertRaises(Failed, parsePull, text, 1.5)


class EstablishedTests(SynchronousTestCase):
    """The kernel's table of connections."""

    def test_local(self) -> None:
        """Only what is established, and at our side, counts."""
        self.assertEqual(establishedAt(_TCP, 7835), 1)
        self.assertEqual(establishedAt(_TCP, 50001), 0)
