"""Real programs by way of a client that is a proxy, and a client behind one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from tests.support.listening import listenHere
from tests.support.loopback import LoopbackTestCase, Service
from tests.support.processes import freePort, startProgram
from tristunnel.connect.route import connectOptionsBy
from tristunnel.dialects.framed.moves import Carrier

LONG = bool(os.environ.get("TRISTUNNEL_LONG"))


def programAt(name: str) -> str:
    """@return: Its path; it must be there."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        raise SkipTest(f"there is no {name}")
    return path


class GatewayTests(LoopbackTestCase):
    """C{socks:} and C{proxy:}."""

    timeout = 90

    async def begin(self) -> None:
        """Serve a page within, and a proxy of each kind. C{self.ports}: their ports."""
        root = Resource()
        root.putChild(b"", Data(b"<p>within</p>", "text/html"))
        self.page = listenHere(self, self.outside, Site(root))
        (self.directory / "pw").write_text("s3cret")
        login = f"user=me:password=@{self.directory / 'pw'}"
        await self.startServer()
        self.ports = await self.startClient(
            f"0=socks:allow=127.0.0.1+{self.page}:{login}",
            f"0=proxy:allow=127.0.0.1+{self.page}:{login}",
            f"0=socks:allow=127.0.0.1+{self.page}:open=yes",
        )

    async def curl(self, *words: str) -> tuple[str, int]:
        """@return: What it prints, and its status."""
        out, err, status = await getProcessOutputAndValue(
            programAt("curl"),
            ["-sS", "-m", "20", "-w", "%{http_code}", *words],
            reactor=self.outside,
        )
        return (out + err).decode(), status

    async def test_curl(self) -> None:
        """curl, with a password, with a wrong one, and to what is not allowed."""
        await self.begin()
        good = f"http://127.0.0.1:{self.page}/"
        for scheme, port in (("socks5h", 0), ("socks5", 0), ("http", 1)):
            proxy = f"{scheme}://me:s3cret@127.0.0.1:{self.ports[port]}"
            said, status = await self.curl("-x", proxy, good)
            self.assertEqual((said, status), ("<p>within</p>200", 0))
        tunnelled = f"http://me:s3cret@127.0.0.1:{self.ports[1]}"
        said, _ = await self.curl("-p", "-x", tunnelled, good)
        self.assertEqual(said, "<p>within</p>200")
        socks = f"socks5h://me:s3cret@127.0.0.1:{self.ports[0]}"
        # 97 is curl's word for a SOCKS proxy's refusal.
        for proxy, url, words, code in (
            (socks, f"http://127.0.0.1:{self.serverPort}/", "(2)", 97),
            (socks.replace("s3cret", "no"), good, "rejected", 97),
            (tunnelled, f"http://127.0.0.1:{self.serverPort}/", "403", 0),
            (tunnelled.replace("s3cret", "no"), good, "407", 0),
        ):
            said, status = await self.curl("-x", proxy, url)
            self.assertIn(words, said)
            self.assertEqual(status, code)

    async def test_chromium(self) -> None:
        """A browser."""
        if not LONG:
            raise SkipTest("set TRISTUNNEL_LONG=1 to run Chromium")
        await self.begin()
        out, _, _ = await getProcessOutputAndValue(
            programAt("chromium"),
            [
                *("--headless", "--no-sandbox", "--disable-gpu"),
                f"--user-data-dir={self.directory / 'profile'}",
                f"--proxy-server=socks5://127.0.0.1:{self.ports[2]}",
                "--proxy-bypass-list=<-loopback>",
                *("--dump-dom", f"http://127.0.0.1:{self.page}/"),
            ],
            env=dict(os.environ),
            reactor=self.outside,
        )
        self.assertIn(b"<p>within</p>", out)

    async def test_behindSSH(self) -> None:
        """A client reaches its server by C{ssh -D}, whoever looks the name up."""
        if not LONG:
            raise SkipTest("set TRISTUNNEL_LONG=1 to run sshd")
        sshd = programAt("sshd")
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name],
                cwd=self.directory,
                check=True,
            )
        there, here = freePort(), freePort()
        directory = Path(self.directory)
        daemon = startProgram(
            self.outside,
            "sshd",
            [
                *(sshd, "-D", "-e", "-f", "/dev/null", "-p", str(there)),
                *("-h", f"{directory}/host", "-o", "ListenAddress=127.0.0.1"),
                *("-o", f"AuthorizedKeysFile={directory}/user.pub"),
                *("-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PidFile=none"),
            ],
            directory,
        )
        self.addCleanup(daemon.stop)
        await daemon.says("Server listening")
        ssh = startProgram(
            self.outside,
            "ssh",
            [
                *("ssh", "-N", "-v", "-i", "user", "-p", str(there)),
                *("-D", f"127.0.0.1:{here}", "-o", "StrictHostKeyChecking=no"),
                *("-o", f"UserKnownHostsFile={directory}/known", "127.0.0.1"),
            ],
            directory,
        )
        self.addCleanup(ssh.stop)
        await ssh.says("Entering interactive session")
        await self.startServer()
        self.carrier = Carrier("session")
        for scheme in ("socks5h", "socks5"):
            around = {"ALL_PROXY": f"{scheme}://127.0.0.1:{here}"}
            self.route = connectOptionsBy(self.reactor, "", environment=around)
            service = Service(b"hello")
            (port,) = await self.startClient(f"0=127.0.0.1:{self.offer(service)}")
            visitor = await self.visit(port)
            await visitor.has(5)
            await self.client.stopService()

    async def test_refusesQuickly(self) -> None:
        """Who says nothing that is SOCKS is refused, and others are served."""
        await self.begin()
        raw: Any = await deferToThread(
            socket.create_connection, ("127.0.0.1", self.ports[2])
        )
        with raw:
            raw.settimeout(20)
            raw.sendall(b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00")
            self.assertEqual(await deferToThread(raw.recv, 10), b"")
        proxy = f"socks5h://127.0.0.1:{self.ports[2]}"
        said, _ = await self.curl("-x", proxy, f"http://127.0.0.1:{self.page}/")
        self.assertEqual(said, "<p>within</p>200")
