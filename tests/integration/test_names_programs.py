"""
Names with other people's programs: Flask, Chromium, curl and git. With
C{TRISTUNNEL_LONG=1} only; C{TRISTUNNEL_PICTURES} names a directory for screenshots.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from subprocess import check_call
from typing import Any

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.support.browser import Browser, chromium
from tests.support.processes import Program, freePort, startProgram, startTristunnel
from tests.support.short import shortDirectory

GIB = 1 << 30
_SERVICES = Path(__file__).parents[1] / "names" / "services.py"


class NamesProgramsTests(TestCase):
    """What people have behind their names, and before them."""

    timeout = 900

    if importlib.util.find_spec("flask") is None:
        skip = "the package flask is not installed"
    if not os.environ.get("TRISTUNNEL_LONG"):
        skip = "set TRISTUNNEL_LONG=1 to run web applications, git and a browser"

    async def _begin(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = shortDirectory(self)
        self.repositories = self.directory / "git"
        self.repositories.mkdir()
        port, self.http, self.https = freePort(), freePort(), freePort()
        behind = self._start("services", str(_SERVICES), str(self.repositories))
        found = await behind.says(r"ready (\d+) (\d+) (\d+)")
        web, sockets, git = found.groups()
        state = str(self.directory / "state")
        here = "interface=127.0.0.1"
        server = startTristunnel(
            self.reactor,
            "tunnel",
            [
                *("--port", f"tcp:{port}:{here}", "--http", f"tcp:{self.http}:{here}"),
                *("--https", f"tcp:{self.https}:{here}", "--domain", "localhost"),
                *("--state-dir", state, "--access-log", str(self.directory / "log")),
            ],
            self.directory,
        )
        self.addCleanup(server.kill)
        await server.says("ANYBODY MAY CONNECT")
        forwards = (
            f"http/shop=127.0.0.1:{web}",
            f"http/shop/ws=127.0.0.1:{sockets}",
            f"http/press=127.0.0.1:{web},host=app.lan:8000",
            f"http/git=127.0.0.1:{git}",
            f"http/raw=127.0.0.1:{web},raw",
        )
        client = startTristunnel(
            self.reactor,
            "tunnel-client",
            [
                *("--connect", f"tcp:127.0.0.1:{port}", "--state-dir", f"{state}-c"),
                *(word for each in forwards for word in ("--forward", each)),
            ],
            self.directory,
        )
        self.addCleanup(client.kill)
        await client.says(rf"^http://raw.localhost:{self.http}$")

    def _start(self, name: str, *command: str) -> Program:
        program = startProgram(
            self.reactor, name, [sys.executable, *command], self.directory
        )
        self.addCleanup(program.kill)
        return program

    async def run_(self, *command: str) -> str:
        path = shutil.which(command[0])
        assert path is not None, command[0]
        out, err, status = await getProcessOutputAndValue(
            path, command[1:], {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        )
        self.assertEqual(status, 0, (command, out[-500:], err[-2000:]))
        return str(out.decode())

    def curl(self, *arguments: str) -> Any:
        every = ("--resolve", f"*:{self.http}:127.0.0.1", "-k", "-s", "-f", "-L")
        secure = ("--resolve", f"*:{self.https}:127.0.0.1")
        return self.run_("curl", *every, *secure, *arguments)

    async def test_curl(self) -> None:
        """Bodies in every way, large ones among them, and what a service is told."""
        await self._begin()
        plain = f"http://shop.localhost:{self.http}"
        told = json.loads(
            await self.curl(f"{plain}/told", "-H", "Forwarded: for=1.2.3.4")
        )
        self.assertEqual(told["X-Forwarded-For"], "127.0.0.1")
        self.assertNotIn("1.2.3.4", told["Forwarded"])
        big = self.directory / "big"
        with big.open("wb") as file:
            file.truncate(5 * GIB)
        for host in ("shop", "raw"):
            url = f"http://{host}.localhost:{self.http}/count"
            self.assertEqual(await self.curl("-T", str(big), url), str(5 * GIB))
        chunked = ("-H", "Transfer-Encoding: chunked", "-X", "POST")
        await self._sized(GIB)
        secure = f"https://shop.localhost:{self.https}/count"
        for url in (f"{plain}/count", secure):
            size = await self.curl(*chunked, "-T", str(self.directory / "size"), url)
            self.assertEqual(size, str(GIB))
        for url in (plain, f"http://raw.localhost:{self.http}"):
            got = await self.curl(
                f"{url}/zeros/{5 * GIB}", "-o", "/dev/null", "-w", "%{size_download}"
            )
            self.assertEqual(got, str(5 * GIB))
        press = f"https://press.localhost:{self.https}"
        jar = str(self.directory / "jar")
        page = await self.curl(f"{press}/login", "-c", jar, "-b", jar)
        self.assertIn('<p id="who">anna</p>', page)
        log = (self.directory / "log").read_text()
        self.assertIn('"GET /login HTTP/1.1" 302', log)

    async def _sized(self, size: int) -> None:
        with (self.directory / "size").open("wb") as file:
            file.truncate(size)

    async def test_git(self) -> None:
        """A repository is cloned, changed and pushed, large files and all."""
        await self._begin()
        bare = self.repositories / "project.git"
        check_call(["git", "init", "-q", "--bare", str(bare)])
        check_call(["git", "-C", str(bare), "config", "http.receivepack", "true"])
        url = f"http://git.localhost:{self.http}/project.git"
        work = self.directory / "work"
        await self.run_("git", "clone", "-q", url, str(work))
        (work / "large").write_bytes(os.urandom(30_000_000))
        name = ("-c", "user.name=a", "-c", "user.email=a@localhost")
        await self.run_("git", "-C", str(work), "add", "large")
        await self.run_("git", *name, "-C", str(work), "commit", "-qm", "Large")
        await self.run_("git", "-C", str(work), "push", "-q", "origin", "HEAD:main")
        again = self.directory / "again"
        await self.run_("git", "clone", "-q", "-b", "main", url, str(again))
        self.assertEqual((again / "large").read_bytes(), (work / "large").read_bytes())

    async def test_browser(self) -> None:
        """
        A browser follows a redirect, keeps its session, hears events, and speaks over a
        WebSocket whose path is another service's; and is told what is missing.
        """
        if chromium() is None:
            self.skipTest("there is no Chromium")
        await self._begin()
        browser = await Browser.start(self.reactor, self.directory / "browser")
        self.addCleanup(browser.stop)
        await browser.open(f"http://shop.localhost:{self.http}/login")
        await browser.until(
            "document.body.innerText.includes('events 012')"
            " && document.body.innerText.includes('socket hello')"
        )
        text = await browser.evaluate("document.body.innerText")
        self.assertIn("anna", text)
        await self._picture(browser, "shop")
        await browser.open(f"http://nobody.localhost:{self.http}/")
        text = await browser.evaluate("document.body.innerText")
        self.assertIn("404 Not Found", text)
        await self._picture(browser, "nobody")

    async def _picture(self, browser: Browser, name: str) -> None:
        if place := os.environ.get("TRISTUNNEL_PICTURES"):
            await browser.picture(Path(place) / f"{name}.png", 800)
