"""
Tests for L{tristunnel.connect.address}: what is written for a server, and what
the name server, the kernel, TLS and C{Host} get of it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.connect.address import Trust, parseConnect
from tristunnel.connect.proxy import parseProxy
from tristunnel.connect.route import ConnectOptions


class NotingReactor(MemoryReactorClock):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        resolver = self.nameResolver

        class Noting:
            @staticmethod
            def resolveHostName(receiver: Any, host: str, port: int = 0) -> None:
                self.asked.append(host)
                resolver.resolveHostName(receiver, host, port)

        self.nameResolver: Any = Noting()


class NamesTests(SynchronousTestCase):
    """One place makes names."""

    def head(self, where: str, proxy: str = "") -> tuple[list[str], list[str]]:
        reactor: Any = NotingReactor()
        route = ConnectOptions(parseProxy(reactor, proxy) if proxy else None)
        server = parseConnect(
            reactor, where, Trust(insecure=where.startswith(("tls:", "wss:"))), route
        )
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        server.endpoint.connect(factory).addErrback(lambda failure: None)
        host, port, client = reactor.tcpClients[0][:3]
        transport: Any = StringTransport()
        protocol = client.buildProtocol(None)
        protocol.makeConnection(transport)
        self.addCleanup(protocol.connectionLost, Failure(ConnectionDone()))
        hosts = reactor.asked or [host]
        return [*hosts, str(port)], transport.value().decode("latin-1").split("\r\n")

    def test_webSocket(self) -> None:
        """C{Host} has brackets around IPv6 and never the usual port; names are asked
        for in ASCII."""
        for url, where, host, path in (
            ("ws://[::1]:9000/tunnel", ["::1", "9000"], "[::1]:9000", "/tunnel"),
            ("ws://[::1]", ["::1", "80"], "[::1]", "/"),
            ("ws://[fe80::1%25lo]:9", ["fe80::1%lo", "9"], "[fe80::1]:9", "/"),
            ("WS://A.TEST.:80/x?y", ["a.test.", "80"], "a.test", "/x?y"),
            ("ws://a.test:443/", ["a.test", "443"], "a.test:443", "/"),
            (
                "ws://BÜCHER.test/ü%20?ä=%C3",
                ["xn--bcher-kva.test", "80"],
                "xn--bcher-kva.test",
                "/%C3%BC%20?%C3%A4=%C3",
            ),
            ("ws://my_db--x.xn--ls8ha:1/", ["my_db--x.xn--ls8ha", "1"], None, "/"),
        ):
            asked, head = self.head(url)
            self.assertEqual(asked, where)
            self.assertEqual(head[0], f"GET {path} HTTP/1.1")
            (said,) = [line for line in head if line.startswith("Host:")]
            self.assertEqual(said, f"Host: {host or ':'.join(where)}")

    def test_tcp(self) -> None:
        """Endpoint strings take the same hosts."""
        for where, asked in (
            ("tcp:[::1]:9000", ["::1", "9000"]),
            ("tcp:\\:\\:1:9000", ["::1", "9000"]),
            ("tcp:[fe80::1%lo]:9", ["fe80::1%lo", "9"]),
            ("tcp:BÜCHER.test:9", ["xn--bcher-kva.test", "9"]),
            ("tcp:Host.Test.:9", ["host.test.", "9"]),
            ("tcp:my_db:9:timeout=3", ["my_db", "9"]),
            ("tcp:host=[::1]:port=9", ["::1", "9"]),
            ("tls:[::1]:9", ["::1", "9"]),
            ("tls:ab--cd.test:9:timeout=3", ["ab--cd.test", "9"]),
        ):
            self.assertEqual(self.head(where)[0], asked)

    def test_proxy(self) -> None:
        """A proxy is told the same."""
        for where, host in (
            ("ws://BÜCHER.test/", "xn--bcher-kva.test:80"),
            ("tcp:[::1]:9", "[::1]:9"),
        ):
            asked, head = self.head(where, "http://my_proxy:3128")
            self.assertEqual(asked, ["my_proxy", "3128"])
            self.assertEqual(head[:2], [f"CONNECT {host} HTTP/1.1", f"Host: {host}"])
