"""
Certificates by themselves, with real programs: Pebble looks at a server that runs under
C{twistd}, and a browser's part is curl's. With C{TRISTUNNEL_LONG=1}.
"""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase
from twisted.web.server import Site
from twisted.web.static import Data

from tests.acme.pebble import Pebble, needsPebble
from tests.support.listening import listenHere
from tests.support.processes import Program, freePort, startTristunnel
from tristunnel.tls.certificates import fingerprintOfFile

DOMAIN = "test.example"


class ServedTests(TestCase):
    """
    A server and its certificates.

    @cvar more: What else it is told.
    """

    more: ClassVar[tuple[str, ...]] = ()
    skip = needsPebble or (None if shutil.which("curl") else "curl is not installed")
    if not os.environ.get("TRISTUNNEL_LONG"):
        skip = "set TRISTUNNEL_LONG=1 to get certificates for real programs"
    timeout = 60

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.pebble = Pebble(reactor, self.directory / "pebble", DOMAIN)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.pebble.stop()))
        page = Data(b"from home", "text/plain")
        page.isLeaf = True
        self.service = listenHere(self, reactor, Site(page))

    def start(self, command: str, *options: str) -> Program:
        process: Any = reactor
        made = startTristunnel(process, command, options, self.directory)
        self.addCleanup(made.stop)
        return made

    async def serve(self, port: int, *options: str) -> Program:
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        return self.start(
            "tunnel",
            *("--port", endpoint, "--http", endpoint, "--https", endpoint),
            *self.common(*options),
        )

    def common(self, *options: str) -> tuple[str, ...]:
        return (
            *("--domain", DOMAIN, "--hostname", DOMAIN),
            *("--state-dir", str(self.directory / "state"), "--no-dashboard"),
            *("--acme", "me@test.example", "--acme-directory", self.pebble.url),
            *("--acme-ca", str(self.pebble.ca), *self.more, *options),
        )

    async def offer(self, port: int, *forwards: str) -> Program:
        pin = fingerprintOfFile(self.directory / "state" / "server.pem")
        client = self.start(
            "tunnel-client",
            *("--connect", f"tls:127.0.0.1:{port}", "--pin", pin),
            *("--state-dir", str(self.directory / "client")),
            *(word for each in forwards for word in ("--forward", each)),
        )
        await client.says("Visitors of")
        return client

    async def curl(self, port: int, url: str, *options: str) -> str:
        host = url.partition("://")[2].partition("/")[0]
        root = self.directory / "root.pem"
        root.write_bytes(await self.pebble.root())
        out, err, code = await getProcessOutputAndValue(
            shutil.which("curl") or "",
            [
                *("-sS", "--max-time", "20", "--cacert", str(root)),
                *("--connect-to", f"{host}:443:127.0.0.1:{port}"),
                *("--connect-to", f"{host}:80:127.0.0.1:{port}", url, *options),
            ],
            env=os.environ,
        )
        self.assertEqual((code, err), (0, b""))
        return str(out.decode())

    async def test_onePort(self) -> None:
        """
        On one port a name gets its certificate and its visitors, by HTTP-01 or
        TLS-ALPN-01; the client comes by it, too; and plain HTTP is sent on.
        """
        port = freePort()
        await self.pebble.start(port, port)
        server = await self.serve(port)
        await server.says("Listening")
        await self.offer(port, f"http/blog=127.0.0.1:{self.service}")
        await server.says("New certificate for blog.test.example")
        await server.says("New certificate for test.example")
        said = await self.curl(port, "https://blog.test.example/")
        self.assertEqual(said, "from home")
        said = await self.curl(port, "http://blog.test.example/x", "-I")
        self.assertIn("301", said)
        self.assertIn(f"https://blog.test.example:{port}/x".lower(), said.lower())
        said = await self.curl(port, "https://test.example/health")
        self.assertEqual(said, "ok\n")
        self.assertFalse(os.listdir(self.directory / "state" / "challenges"))

    async def test_ownName(self) -> None:
        """
        A client comes to visitors' port by the server's own name, and believes the
        certificate without a pin; by another name it does not get in.
        """
        clear, secure = freePort(), freePort()
        await self.pebble.start(clear, secure)
        server = self.start(
            "tunnel",
            *("--port", "tcp:0:interface=127.0.0.1"),
            *("--http", f"tcp:{clear}:interface=127.0.0.1"),
            *("--https", f"tcp:{secure}:interface=127.0.0.1"),
            *self.common(),
        )
        await server.says("New certificate for test.example")
        root = self.directory / "root.pem"
        root.write_bytes(await self.pebble.root())
        for name, says in ((DOMAIN, "Visitors of"), (f"x.{DOMAIN}", "certificate")):
            where = f"tls:{name}:{secure}:endpoint=tcp\\:127.0.0.1\\:{secure}"
            client = self.start(
                "tunnel-client",
                *("--connect", where, "--ca", str(root)),
                *("--state-dir", str(self.directory / "client")),
                *("--forward", f"http/app={self.service}"),
            )
            await client.says(says)
            await client.stop()

    async def test_wildcard(self) -> None:
        """
        With DNS a domain gets a wildcard, before anybody asks for a name; a made-up
        name has it, and a TLS name none.
        """
        port = freePort()
        await self.pebble.start(1, 1)
        names = self.pebble.names
        server = await self.serve(
            port,
            *("--acme-dns-server", f"127.0.0.1:{names.port}"),
            *("--acme-dns-key", str(names.keyFile), "--acme-dns-wait", "0"),
        )
        await server.says(r"New certificate for test.example, \*.test.example")
        client = await self.offer(port, f"http/={self.service}")
        found = await client.says(r"Visitors of (https://[\w.-]+):\d+")
        said = await self.curl(port, f"{found[1]}/")
        self.assertEqual(said, "from home")

    async def test_refused(self) -> None:
        """
        What the authority refuses is in the log, and visitors get the certificate
        that there is.
        """
        port = freePort()
        await self.pebble.start(1, 1)
        server = await self.serve(port)
        await server.says("Listening")
        await self.offer(port, f"http/blog=127.0.0.1:{self.service}")
        await server.says("No certificate for blog.test.example.*connection")

        def look() -> bytes:
            return ssl.get_server_certificate(("127.0.0.1", port)).encode()

        self.assertIn(b"CERTIFICATE", await deferToThread(look))
        said = await self.curl(port, "https://blog.test.example/", "--insecure")
        self.assertEqual(said, "from home")


class SeveralProcessesTests(ServedTests):
    """The same with two processes, of which one orders and both answer."""

    more = ("--processes", "2")
