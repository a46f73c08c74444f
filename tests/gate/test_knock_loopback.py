"""
Knocking at ports of a server and a client, over TCP, UDP, IPv4 and IPv6.

With TRISTUNNEL_LONG=1 a browser knocks, too; with TRISTUNNEL_SCREENSHOTS, the name of a
directory, there are pictures of what it saw.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from unittest import skipIf

from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from tests.integration.udp_loopback import Party, UDPTestCase
from tests.support.browser import Browser, chromium
from tests.support.listening import listenHere
from tests.support.loopback import Service, Talk
from tristunnel.auth.realm import Authenticator
from tristunnel.dataplane.lookups import resolveWith
from tristunnel.gate.attempts import Attempts
from tristunnel.gate.knocking import KnockPage
from tristunnel.gate.pages import GatePages
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.forwarded import Forwarded
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import rootOf
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.tunnel import Tunnel
from tristunnel.names.public import PublicNames
from tristunnel.service.knocks import KNOCK_PATH
from tristunnel.service.preauth import PreauthLimiter

HOSTS = ("127.0.0.1", "::1")
PICTURES = os.environ.get("TRISTUNNEL_SCREENSHOTS", "")


class KnockLoopbackTests(UDPTestCase):
    """A tunnel of TCP and one of UDP, and the page."""

    async def setUp(self) -> None:  # type: ignore[override] # trial waits for it
        super().setUp()
        self.startServer()
        self.tunnels.listeners["tcp"] = TCPListeners(self.reactor, "")
        callers = HTTPCallers(Authenticator())
        limiter = PreauthLimiter(self.reactor.seconds)
        page = KnockPage(
            self.tunnels.knocks,
            callers,
            Forwarded(),
            Attempts(self.reactor, limiter),
            GatePages(PublicNames()),
            resolveWith(self.reactor),
        )
        site = LimitedSite(rootOf({KNOCK_PATH: page}), reactor=self.reactor)
        self.pages: dict[str, int] = {}
        for host in HOSTS:
            port = self.reactor.listenTCP(0, site, interface=host)
            self.addCleanup(port.stopListening)
            self.pages[host] = port.getHost().port
        service = Service(b"hello")
        tcp = listenHere(self, self.reactor, service)
        self.echo = Party.service(self.reactor)
        self.addCleanup(self.echo.port.close)
        self.echo.arrived = self.echo.say
        await self.startClient(
            f"0=127.0.0.1:{tcp},knock=1m",
            f"udp/0=127.0.0.1:{self.echo.number},knock=1m",
        )
        self.tcp, self.udp = sorted(self.tunnels.tunnels, key=lambda it: it.protocol)

    async def talk(self, host: str, port: int) -> Talk:
        talk = Talk()
        where = HostnameEndpoint(self.reactor, host, port)
        await connectProtocol(where, talk)
        self.addCleanup(talk.close)
        return talk

    async def ask(self, tunnel: Tunnel, host: str, method: str) -> str:
        talk = await self.talk(host, self.pages[host])
        path = tunnel.knockLink.partition("/knock/")[2]
        talk.say(
            f"{method} /knock/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        await talk.ended()
        return talk.data.decode()

    async def comes(self, host: str) -> Talk:
        talk = await self.talk(host, portOf(self.tcp))
        await talk.has(5)
        visitor = Party.visitor(self.reactor, portOf(self.udp), host)
        self.addCleanup(visitor.port.close)
        visitor.say(b"ping")
        await visitor.has(1)
        self.assertEqual(visitor.heard[0][0], b"ping")
        return talk

    async def isRefused(self, host: str) -> None:
        before = len(self.notes.named("visitorRefused"))
        visitor = Party.visitor(self.reactor, portOf(self.udp), host)
        self.addCleanup(visitor.port.close)
        visitor.say(b"ping")
        talk = Talk()
        where = HostnameEndpoint(self.reactor, host, portOf(self.tcp))
        connecting = connectProtocol(where, talk)
        connecting.addErrback(lambda failure: None)
        await self.told(self.notes, "visitorRefused", before + 2)
        await connecting
        self.assertEqual((talk.data, visitor.heard), (b"", []))
        if talk.connected:
            talk.close()

    async def test_inAndOut(self) -> None:
        """Whoever knocks is in, over the kind of address of that, until the time is
        over; whoever only looks is not."""
        for host in HOSTS:
            await self.isRefused(host)
            for tunnel in (self.tcp, self.udp):
                for method in ("GET", "HEAD"):
                    await self.ask(tunnel, host, method)
            await self.isRefused(host)
        talks = []
        for tunnel in (self.tcp, self.udp):
            # Shorter than anybody can ask for, to see the end of it.
            tunnel.gate = replace(tunnel.gate, knock=2.0)
            self.tunnels.policies.refresh(tunnel)
        for host in HOSTS:
            for tunnel in (self.tcp, self.udp):
                self.assertIn("200 OK", await self.ask(tunnel, host, "POST"))
            talks.append(await self.comes(host))
            if host == HOSTS[0]:
                await self.isRefused(HOSTS[1])
        for talk in talks:
            await talk.gone()
        for host in HOSTS:
            await self.isRefused(host)
        self.assertIn("expired", str(self.notes.named("visitorGone")))

    @skipIf(
        chromium() is None or not (PICTURES or os.environ.get("TRISTUNNEL_LONG")),
        "set TRISTUNNEL_LONG=1, with Chromium, to knock in a browser",
    )
    async def test_browser(self) -> None:
        """A browser shows what will happen, and then what has."""
        browser = await Browser.start(self.reactor, Path(self.mktemp()))
        self.addCleanup(browser.stop)
        path = self.tcp.knockLink.partition("/knock/")[2]
        for host in HOSTS:
            shown = f"[{host}]" if ":" in host else host
            await browser.open(f"http://{shown}:{self.pages[host]}/knock/{path}")
            if PICTURES:
                await browser.picture(Path(PICTURES) / "knock.png", 500)
            await self.isRefused(host)
            await browser.follow("button")
            text = await browser.evaluate("document.body.innerText")
            self.assertIn("are let in to", text)
            if PICTURES:
                await browser.picture(Path(PICTURES) / "knocked.png", 500)
            talk = await self.talk(host, portOf(self.tcp))
            await talk.has(5)
        self.assertEqual(browser.complaints, [])


def portOf(tunnel: Tunnel) -> int:
    return int(tunnel.address.rpartition(":")[2])
