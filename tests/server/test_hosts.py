"""The server's own pages and tunnels' hosts on one port."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.protocols import Hearing
from tests.tls.files import FileTestCase
from tristunnel.server.hosts import SharedHTTP, hostAsked
from tristunnel.server.ports import ServerPort, TLSFiles, joined, parsePort
from tristunnel.service.preauth import PendingConnection, PreauthLimiter


class HostTests(SynchronousTestCase):
    def test_hosts(self) -> None:
        """A host is found as whoever serves it will find it."""
        for head, expected in (
            (b"GET / HTTP/1.1\r\nHost: Blog.Example\r\n\r\n", "blog.example"),
            (
                b"GET / HTTP/1.1\r\nA: b\r\nhost:blog.example:443 \r\n\r\n",
                "blog.example",
            ),
            (b"GET / HTTP/1.1\nHost: blog.example.\n\n", "blog.example"),
            (b"GET / HTTP/1.1\r\nHost: [::1]:9000\r\n\r\n", "::1"),
            (b"GET http://a.example:80/x HTTP/1.1\r\nHost: b\r\n\r\n", "a.example"),
            (b"GET / HTTP/1.0\r\n\r\n", ""),
            (b"GET / HTTP/1.1\r\nHost: a/../b\r\n\r\n", ""),
            (b"GET / HTTP/1.1\r\nX: y\r\n host: a\r\n\r\n", ""),
            (b"GET / HTTP/1.1\r\nHost: blog.example\r\n", None),
            (b"G", None),
            (b"GET /" + b"x" * 20_000, ""),
        ):
            self.assertEqual(hostAsked(head), expected, head)

    @given(st.binary(max_size=300))
    def test_anything(self, data: bytes) -> None:
        """Anything at all has a host, or none, or is waited for."""
        found = hostAsked(data + b"\r\n\r\n")
        assert found is not None
        self.assertLessEqual(len(found), 400)


class _Served:
    beginnings: Sequence[bytes] = (b"GET ",)

    def __init__(self) -> None:
        self.made: list[Hearing] = []
        self.remaining = 0.0

    def open(self, address: Any, remaining: float, pending: Any) -> Any:
        self.remaining = remaining
        self.made.append(Hearing())
        return self.made[-1]


class SharedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.own, self.names = _Served(), _Served()
        shared = SharedHTTP(
            self.clock, self.own, self.names, lambda host: host == "a.example"
        )
        self.limiter = PreauthLimiter(self.clock.seconds)
        self.pending: PendingConnection = self.limiter.enter(None)
        self.transport = StringTransport()
        self.made: Any = shared.open(None, 10.0, self.pending)
        self.made.makeConnection(self.transport)

    def test_sorted(self) -> None:
        """The first request says who gets the connection, all of it."""
        for host in (b"a.example", b"b.example"):
            self.setUp()
            served = self.names if host == b"a.example" else self.own
            head = b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
            self.clock.advance(4)
            # As whoever handed it the connection knows it.
            receive = self.made.dataReceived
            receive(head[:20])
            receive(head[20:] + b"body")
            receive(b"more")
            self.made.dataReceived(b" again")
            (site,) = served.made
            self.assertEqual(site.data, head + b"bodymore again")
            self.assertEqual(served.remaining, 6.0)
            self.made.connectionLost(Failure(ConnectionError()))
            self.assertTrue(site.lost)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late(self) -> None:
        """Half a head is not waited for without end, and then forgotten."""
        self.made.dataReceived(b"GET / HTTP/1.1\r\n")
        self.assertEqual(self.limiter.unauthenticated, 1)
        self.clock.advance(11)
        self.assertTrue(self.transport.disconnected)
        self.made.connectionLost(Failure(ConnectionError()))
        self.assertEqual(self.limiter.unauthenticated, 0)


class JoinedTests(FileTestCase):
    def port(self, description: str, option: str) -> ServerPort:
        return parsePort(
            MemoryReactorClock(),
            description,
            TLSFiles(),
            Path(self.directory),
            ["localhost"],
            option,
        )

    def test_places(self) -> None:
        """Options that name the same endpoint share one port, and no others do."""
        for clients, visitors, count, plain in (
            ("tcp:443", (("tcp:443", "--http"), ("ssl:443", "--https")), 1, True),
            ("ssl:443", (("tcp:443", "--http"), ("ssl:443", "--https")), 1, False),
            ("ssl:443", (("ssl:443", "--https"),), 1, None),
            ("tcp:9000", (("tcp:80", "--http"), ("ssl:443", "--https")), 3, None),
            ("tcp:0", (("tcp:0", "--http"),), 2, None),
            ("tcp:443:interface=127.0.0.1", (("tcp:443", "--http"),), 2, None),
            ("unix:/tmp/s", (("unix:/tmp/s", "--http"),), 1, True),
        ):
            more = [self.port(*each) for each in visitors]
            ports = joined([self.port(clients, "--port")], more)
            self.assertEqual(len(ports), count, clients)
            if plain is not None:
                first = ports[0]
                self.assertEqual("--port" in first.withoutTLS, plain)
                self.assertIn("--http", first.withoutTLS)
                self.assertTrue(first.serving("--http"))
                self.assertEqual(first.description, clients)
