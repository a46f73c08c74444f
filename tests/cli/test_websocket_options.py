"""The command lines' WebSocket parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.python.usage import UsageError

from tests.cli.test_taps_options import OptionsTestCase
from tristunnel.cli import client_tap, server_tap
from tristunnel.client.fleet import makeClient
from tristunnel.client.visitor import VisitorService
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.relay.client_service import RelayHostService
from tristunnel.dialects.vtunnel.client import VTunnelClientService
from tristunnel.forwards.forward import parseForward
from tristunnel.model.observer import ClientObserver
from tristunnel.server import websocket_pages


class ClientTests(OptionsTestCase):
    """C{twistd tunnel-client}."""

    tap = client_tap

    def make(self, line: str) -> Any:
        options = self.parse(*line.split())
        return makeClient(
            MemoryReactorClock(), options, ClientObserver(), lambda reason: None
        )

    def test_dialects(self) -> None:
        """Each dialect has a service of its own."""
        ws = "--connect ws://h:1/host"
        for kind, line in (
            (TunnelClientService, ws),
            (TunnelClientService, "--connect wss://h/tunnel --insecure"),
            (VTunnelClientService, f"{ws} --dialect vtunnel --forward 9=localhost:3"),
            (RelayHostService, f"{ws} --dialect relay --forward =localhost:25565"),
            (VisitorService, f"{ws} --listen tcp:25565:interface=127.0.0.1"),
            (VisitorService, "--connect tcp:h:1 --listen 5432 --service db"),
        ):
            service = self.make(line)
            self.assertIs(kind, type(service))
            service.lease = None

    def test_wrong(self) -> None:
        """What does not go together is refused with what would."""
        ws = "--connect ws://h:1/tunnel"
        for words, line in (
            ("there is chisel, framed, relay, vtunnel", f"{ws} --dialect x"),
            ("ws://", "--connect tcp:h:1 --dialect vtunnel"),
            ("--service NAME", "--connect tcp:h:1 --listen 5432"),
            ("goes with --listen", f"{ws} --service db"),
            ("9000=localhost:3000", f"{ws} --dialect vtunnel --forward 3000"),
            ("UDP", f"{ws} --dialect vtunnel --forward udp/5353=localhost:53"),
            ("a single end", f"{ws} --dialect relay --forward =a:1 --forward =b:1"),
            ("NAME=TARGET", f"{ws} --private --forward 80=localhost:80"),
            ("is not a valid endpoint", f"{ws} --listen nonsense:1"),
            ("--header needs a WebSocket", "--connect tcp:h:1 --header A=b"),
            ("wss://", f"{ws} --insecure"),
            ("the host is missing", "--connect ws://"),
            ("'99999' is not a port", "--connect ws://h:99999/"),
            ("--proxy names a SOCKS 4", f"{ws} --proxy socks4://h:1"),
            ("--proxy takes", f"{ws} --proxy ftp://h:1"),
            ("--ping-interval", f"{ws} --ping-interval -1"),
            ("--header takes", f"{ws} --header A"),
        ):
            self.wrong(line, words)

    def test_credentials(self) -> None:
        """Dialects without a handshake say credentials in a header; the framed one does
        not need to."""
        base = "--connect ws://h/host --forward 9=localhost:1"
        other = "--dialect vtunnel"
        user = "--credentials id=me --credentials secret=x"
        for expected, line in (
            ({}, user),
            ({"Authorization": "Basic bWU6eA=="}, f"{other} {user}"),
            ({"Authorization": "Bearer t"}, f"{other} --credentials token=t"),
            ({"authorization": "mine"}, f"{other} {user} --header authorization=mine"),
        ):
            options = self.parse(*f"{base} {line}".split())
            self.assertEqual(expected, options.server.endpoint._headers)

    def test_tlsTarget(self) -> None:
        """A target may be written as vtunnel's users do."""
        reactor = MemoryReactorClock()
        forward = parseForward(reactor, "8085=tls://host.example:443")
        self.assertEqual(
            type(parseForward(reactor, "8085=tls:host.example:443").endpoint),
            type(forward.endpoint),
        )
        self.assertEqual("tls://host.example:443", forward.target)


class ServerTests(OptionsTestCase):
    """C{twistd tunnel}."""

    tap = server_tap

    def test_port(self) -> None:
        """A platform's port is taken unless another is given."""
        self.patch(os, "environ", {"PORT": "12345"})
        (port,) = self.parse().serverPorts
        self.assertEqual("tcp:12345", port.description)
        (port,) = self.parse("--port", "tcp:1").serverPorts
        self.assertEqual("tcp:1", port.description)
        self.patch(os, "environ", {"PORT": "x"})
        self.assertRaises(UsageError, self.parse)
        self.patch(os, "environ", {})
        (port,) = self.parse().serverPorts
        self.assertEqual("tcp:9000", port.description)

    def test_paths(self) -> None:
        """Clients' paths are paths, and nobody else's."""
        options = self.parse("--websocket-path", "/", "--websocket-path", "/a/b")
        self.assertEqual(["/", "/a/b"], options.webSocketPaths)
        for path in ("tunnel", "/host/x", "/rpc", "/health", "//"):
            self.assertRaises(UsageError, self.parse, "--websocket-path", path)

    def test_proxies(self) -> None:
        """Trusted proxies are addresses."""
        self.parse("--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "unix")
        self.assertRaises(UsageError, self.parse, "--trusted-proxy", "x")

    def test_masker(self) -> None:
        """An operator is warned where autobahn is slow, and not elsewhere."""
        events: list[Any] = []
        note = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        for fast, count in ((True, 0), (False, 1)):
            self.patch(websocket_pages, "USES_NVX", fast)
            events.clear()
            websocket_pages.warnIfSlow()
            slow = [
                event
                for event in events
                if event["log_level"] == LogLevel.warn
                and "autobahn" in str(event["log_format"])
            ]
            self.assertEqual(count, len(slow))

    def test_examples(self) -> None:
        """The proxies' examples name the paths that there are."""
        for name in ("nginx.conf", "haproxy.cfg"):
            text = (_DOCS / "proxies" / name).read_text()
            for path in ("tunnel", "host", "client", "rpc", "RPC2", "health"):
                self.assertIn(path, text)


_DOCS = Path(__file__).parent.parent.parent / "docs"
