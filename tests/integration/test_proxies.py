"""
Behind Debian's nginx and HAProxy, with the configuration files that the
documentation shows.

The default run proves that pings pass and that they outlive a proxy's time
limit, with a limit of a second or two. C{TRISTUNNEL_LONG=1} sits through three
minutes of silence with the files as they are.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet.task import deferLater

from tests.server.test_websocket_dialects import FramedTestCase
from tests.support.loopback import Service, untilOpen
from tests.support.processes import Program, freePort, startTristunnel
from tests.tls.authority import makeAuthority
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.connect.route import ConnectOptions

_PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"

_EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "proxies"

LONG = bool(os.environ.get("TRISTUNNEL_LONG"))


class _ProxyTestCase(FramedTestCase):
    """
    A test with our server behind another program.

    @ivar front: The proxy's port.
    """

    timeout = 300 if LONG else 60

    async def startBehind(self, **changes: str) -> None:
        """
        Start our server, and a proxy before it.

        @param changes: What to change in the example, by regular expression.
        """
        self.backend = freePort()
        self.front = freePort()
        authority = makeAuthority()
        certificate, key = authority.issue(["localhost"])
        self.pem = self.directory / "both.pem"
        self.pem.write_bytes(certificate + key)
        self.ca = authority.write(self.directory / "ca.pem")
        self.trust = Trust(ca=str(self.ca))
        self.program = startTristunnel(
            self.reactor,
            "tunnel",
            [
                "--port",
                f"tcp:{self.backend}:interface=127.0.0.1",
                "--trusted-proxy",
                "127.0.0.1",
                "--state-dir",
                str(self.directory),
            ],
            self.directory,
        )
        self.addCleanup(self.program.stop)
        await self.program.says("Listening for clients")
        await self.startProxy()
        # Neither of the two says when it listens.
        await untilOpen(self.outside, self.front)

    async def startProxy(self) -> None:
        raise NotImplementedError

    def example(self, name: str, *changes: tuple[str, str]) -> str:
        """Read an example, and give it this test's ports and files."""
        text = (_EXAMPLES / name).read_text()
        for pattern, value in changes:
            text, count = re.subn(pattern, value, text)
            self.assertGreater(count, 0, pattern)
        return text

    def run_(self, *command: str) -> Program:
        program = Program(command[0])
        self.reactor.spawnProcess(
            program,
            shutil.which(command[0], path=_PATH),
            list(command),
            env=dict(os.environ),
        )
        # nginx killed the hard way would leave its workers behind.
        self.addCleanup(program.stop)
        return program

    async def client(  # type: ignore[override] # it has parameters of its own
        self, service: Service, pingInterval: float
    ) -> int:
        """Start a client that comes by the proxy; the visitors' port."""
        server = parseConnect(
            self.reactor,
            f"wss://localhost:{self.front}/tunnel",
            self.trust,
            ConnectOptions(None, {}, pingInterval),
        )
        await self.startFramed(server, f"0=127.0.0.1:{self.offer(service)}")
        return self.lastPort()

    def wss(self, path: str) -> str:
        return f"wss://localhost:{self.front}{path}"


class _Proxied:
    """The tests, the same with every proxy."""

    async def test_traffic(self: Any) -> None:
        """
        Much both ways, half-close included; and the server knows who it is
        that the proxy speaks for.
        """
        await self.startBehind()
        service = Service()
        port = await self.client(service, 30.0)
        await self.exchange(port, service)
        await self.program.says(r"connected from 127\.0\.0\.1:0 \(framed\)")

    async def test_relay(self: Any) -> None:
        """A relay pair."""
        await self.startBehind()
        host = await self.open(self.wss("/host/room"))
        guest = await self.open(self.wss("/client/room"))
        guest.connection.sendBytes(b"x" * 1_000_000)
        await host.until(lambda it: len(it.data) == 1_000_000)
        host.connection.close()
        await guest.gone()
        self.assertEqual("", guest.reason)
        await self.program.says(rf"wss://localhost:{self.front}/host/room")

    async def test_routing(self: Any) -> None:
        """What is not ours is the site's."""
        await self.startBehind()
        error = await self.assertFailure(
            self.coroutine(self.open(self.wss("/elsewhere"))), Exception
        )
        self.assertIn("404", str(error))

    async def test_silence(self: Any) -> None:
        """
        The proxy's limit on silence is outlived; without pings it is not,
        so it is the pings that did it.
        """
        self.limit = "2s"
        await self.startBehind()
        quiet = await self.open(self.wss("/host/quiet"))
        service = Service()
        port = await self.client(service, 0.5)
        await quiet.gone()
        await deferLater(self.reactor, 2.5)
        await self.exchange(port, service)
        self.assertEqual([], self.seen.named("disconnected"))

    @skipUnless(LONG, "set TRISTUNNEL_LONG=1 to wait for three minutes")
    async def test_threeMinutes(self: Any) -> None:
        """
        Three minutes of silence, with everything as it is by default: a
        framed client, and a relay pair that only the server pings.
        """
        await self.startBehind()
        service = Service()
        port = await self.client(service, 30.0)
        host = await self.open(self.wss("/host/room"))
        guest = await self.open(self.wss("/client/room"))
        visitor, at = await self.pair(port, service)
        await deferLater(self.reactor, 185)
        guest.connection.sendBytes(b"still here")
        await host.until(lambda it: it.data == b"still here")
        visitor.say(b"still here")
        await at.has(10)
        await self.exchange(port, service)
        self.assertEqual([], self.seen.named("disconnected"))

    limit = ""

    def coroutine(self: Any, awaitable: Any) -> Any:
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(awaitable)


class NginxTests(_Proxied, _ProxyTestCase):
    """Behind nginx."""

    if shutil.which("nginx", path=_PATH) is None:
        skip = "nginx is not installed"

    more = ""

    async def startProxy(self) -> None:
        """Start nginx, without root, a log or a daemon."""
        text = self.example(
            "nginx.conf",
            (r"listen 443", f"listen 127.0.0.1:{self.front}"),
            (r"127\.0\.0\.1:9000", f"127.0.0.1:{self.backend}"),
            (r"tunnel\.example\.com", "localhost"),
            (r"/etc/ssl/tunnel\.(pem|key)", str(self.pem)),
            (r"worker_processes auto", "worker_processes 1"),
            (r"http \{", f"http {{ access_log off; {self._temporary()} {self.more}"),
            (
                r"# proxy_read_timeout 60s;",
                f"proxy_read_timeout {self.limit};" if self.limit else "#",
            ),
        )
        path = self.directory / "nginx.conf"
        path.write_text(f"daemon off; pid {self.directory}/nginx.pid;\n{text}")
        self.run_("nginx", "-c", str(path), "-p", str(self.directory), "-e", "stderr")

    def _temporary(self) -> str:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        return "".join(f"{kind}_temp_path {self.directory}/{kind};" for kind in kinds)


class BufferingNginxTests(_ProxyTestCase):
    """
    Behind an nginx that keeps requests and answers to itself until it has all
    of them, which must not touch WebSockets.
    """

    skip = NginxTests.__dict__.get("skip")
    more = "proxy_buffering on; proxy_request_buffering on; proxy_buffers 64 64k;"
    limit = ""
    startProxy = NginxTests.startProxy
    _temporary = NginxTests._temporary

    async def test_keystrokes(self) -> None:
        """Single bytes come through one by one."""
        await self.startBehind()
        service = Service()
        visitor, at = await self.pair(await self.client(service, 30.0), service)
        for number in range(1, 20):
            visitor.say(b"x")
            await at.has(number)
            at.say(b"y")
            await visitor.has(number)


class HAProxyTests(_Proxied, _ProxyTestCase):
    """Behind HAProxy."""

    if shutil.which("haproxy", path=_PATH) is None:
        skip = "haproxy is not installed"

    async def startProxy(self) -> None:
        text = self.example(
            "haproxy.cfg",
            (r"bind :443", f"bind 127.0.0.1:{self.front}"),
            (r"127\.0\.0\.1:9000", f"127.0.0.1:{self.backend}"),
            (r"/etc/ssl/tunnel-with-key\.pem", str(self.pem)),
            (r"timeout tunnel +60s", f"timeout tunnel {self.limit or '60s'}"),
        )
        path = self.directory / "haproxy.cfg"
        path.write_text(text)
        self.run_("haproxy", "-db", "-f", str(path))
