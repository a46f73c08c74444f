"""
Tests for services that are told where visitors come from, among them nginx and
HAProxy.
"""

from __future__ import annotations

import os
import shutil
from typing import Any
from unittest import skipUnless

from twisted.internet.endpoints import TCP6ClientEndpoint, connectProtocol
from twisted.internet.task import Clock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.support.loopback import LoopbackTestCase, Service, Talk
from tests.support.polling import until
from tests.support.processes import Program
from tristunnel.cli.client_tap import Options
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.listeners.tcp import TCPListeners

_PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


class OptionTests(SynchronousTestCase):
    """What is said behind a target."""

    def test_read(self) -> None:
        """Options stand behind every form of a forward, and stay in its text."""
        for spec, whole in (
            ("25565=localhost:25565,proxy=v2", "25565=localhost:25565,proxy=v2"),
            ("25565,proxy=v1", "0=localhost:25565,proxy=v1"),
            ("http://h , proxy = v2", "0=http://h:80,proxy=v2"),
            ("0=unix:/a\\,b,proxy=v1", "0=unix:/a\\,b,proxy=v1"),
            ("0=tls:h:1,proxy=v2", "0=tls:h:1,proxy=v2"),
        ):
            forward = parseForward(Clock(), spec)
            self.assertEqual(forward.options.proxy, whole[-2:])
            again = parseForward(Clock(), forward.spec)
            self.assertEqual(again.options, forward.options)
            self.assertEqual(again.target, forward.target)
            if " " not in spec:
                self.assertEqual(forward.spec, whole)
        self.assertEqual(
            forward.asked(8, "a").spec, "8:a=tls:h:1,proxy=v2", "a port is named"
        )

    def test_wrong(self) -> None:
        """What is no option, or does not go with the rest, is refused in a line."""
        for spec, why in (
            ("1=h:1,proxy=v3", "write proxy=v1 or proxy=v2"),
            ("1=h:1,proxy", "is written proxy=VALUE"),
            ("1=h:1,proxi=v2", "did you mean proxy?"),
            ("1=h:1,", "no option ''"),
            ("1=h:1,proxy=v1,proxy=v2", "given twice"),
            ("udp/1=h:1,proxy=v2", "UDP has none"),
        ):
            error = self.assertRaises(TunnelError, parseForward, Clock(), spec)
            self.assertIn(why, error.message)
            self.assertNotIn("\n", error.message)

    def test_dialects(self) -> None:
        """A dialect that does not say where visitors come from refuses it."""
        for dialect in ("vtunnel", "relay"):
            options = Options()
            arguments = ["--dialect", dialect, "--connect", "ws://localhost:1/"]
            arguments += ["--forward", "90=localhost:1,proxy=v2"]
            error = self.assertRaises(UsageError, options.parseOptions, arguments)
            self.assertIn("does not say where visitors come from", str(error))


class VisitTests(LoopbackTestCase):
    """Visitors of such a service."""

    async def test_header(self) -> None:
        """The header comes first, whole, and then what the visitor sends."""
        await self.startServer()
        service = Service()
        number = self.offer(service)
        ports = await self.startClient(
            f"0=localhost:{number},proxy=v1", f"0=localhost:{number},proxy=v2"
        )
        for version, port in zip(("v1", "v2"), ports, strict=True):
            visitor = await self.visit(port)
            visitor.say(b"hello")
            here = visitor.transport.getHost().port
            line = f"PROXY TCP4 127.0.0.1 127.0.0.1 {here} {port}\r\n".encode()
            binary = b"\x7f\0\0\1" * 2 + here.to_bytes(2) + port.to_bytes(2)
            header = line if version == "v1" else _V2 + b"\0\x0c" + binary
            talk = await service.arrivals.get()
            await talk.has(len(header) + 5)
            self.assertEqual(talk.data, header + b"hello")
            talk.say(b"you")
            await visitor.has(3)
            visitor.abort()

    async def test_beforeTLS(self) -> None:
        """To a service behind TLS it is sent in front of that, in clear text."""
        await self.startServer()
        service = Service()
        port = self.offer(service)
        (tunnel,) = await self.startClient(f"0=tls:localhost:{port},proxy=v1")
        await self.visit(tunnel)
        talk = await service.arrivals.get()
        await talk.until(lambda talk: b"\r\n\x16\x03" in talk.data)
        self.assertTrue(talk.data.startswith(b"PROXY TCP4 127.0.0.1 "))


class StockVisitTests(VisitTests):
    """The same over Twisted's own transports."""

    stock = True


_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11"

_NGINX = """
daemon off; master_process off; pid {0}/pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {0}; proxy_temp_path {0}; fastcgi_temp_path {0};
  uwsgi_temp_path {0}; scgi_temp_path {0};
  server {{
    listen unix:{0}/s proxy_protocol;
    location / {{
      return 200 "<$proxy_protocol_addr $proxy_protocol_port \
$proxy_protocol_server_addr>";
    }}
  }}
}}
"""

_HAPROXY = """
defaults
  mode http
  timeout client 10s
  timeout server 10s
  timeout connect 10s
frontend web
  bind unix@{0}/s accept-proxy
  http-request return content-type text/plain lf-string "<%[src] %[src_port] %[dst]>"
"""


class ProgramTests(LoopbackTestCase):
    """Other people's programs as the service, over IPv4 and IPv6."""

    async def started(self, name: str, text: str, *command: str) -> None:
        file = self.directory / "conf"
        file.write_text(text.format(self.directory))
        program = Program(name)
        path = shutil.which(name, path=_PATH)
        self.reactor.spawnProcess(program, path, [name, *command, str(file)], env={})
        self.addCleanup(program.stop)
        await until(lambda: (self.directory / "s").exists())

    async def told(self, interface: str, version: str) -> None:
        """Ask such a service through a tunnel who has come to it."""
        await self.startServer(listeners=TCPListeners(self.reactor, interface))
        target = f"unix:{self.directory}/s,proxy={version}"
        (port,) = await self.startClient(f"0={target}")
        visitor = Talk()
        endpoint: Any = TCP6ClientEndpoint(self.outside, interface, port)
        if ":" not in interface:
            visitor = await self.visit(port)
        else:
            await connectProtocol(endpoint, visitor)
            self.addCleanup(visitor.abort)
        visitor.say(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await visitor.ended()
        here = visitor.transport.getHost()
        wanted = f"<{here.host} {here.port} {interface}>".encode()
        self.assertIn(wanted, bytes(visitor.data))
        visitor.close()
        await self.client.stopService()

    async def all(self) -> None:
        for interface in ("127.0.0.1", "::1"):
            for version in ("v1", "v2"):
                await self.told(interface, version)

    @skipUnless(shutil.which("nginx", path=_PATH), "nginx is not installed")
    async def test_nginx(self) -> None:
        """nginx's C{proxy_protocol}."""
        await self.started("nginx", _NGINX, "-c")
        await self.all()

    @skipUnless(shutil.which("haproxy", path=_PATH), "HAProxy is not installed")
    async def test_haproxy(self) -> None:
        """HAProxy's C{accept-proxy}."""
        await self.started("haproxy", _HAPROXY, "-f")
        await self.all()
