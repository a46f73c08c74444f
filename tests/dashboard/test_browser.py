"""
The dashboard in a real browser, of a real server.

With the environment variable TRISTUNNEL_SCREENSHOTS, the name of a directory,
pictures for the documentation are written there.
"""

from __future__ import annotations

import json
import math
import os
import re
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody
from twisted.web.server import Site
from twisted.web.static import File

from tests.dashboard.pictures import smallPNG
from tests.support.browser import Browser, chromium
from tests.support.listening import listenHere
from tests.support.processes import Program, startTristunnel
from tristunnel.auth.token_store import TokenStore
from tristunnel.model.permissions import Permissions

reactor: Any = _reactor

PICTURES = os.environ.get("TRISTUNNEL_SCREENSHOTS", "")

if chromium() is None:
    skip = "Chromium is not installed"


class Talkative(Protocol):
    """Answers with thrice what it hears, and in pictures as a web server."""

    def connectionMade(self) -> None:
        if PICTURES:
            assert self.transport is not None
            self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data * 3)


class Visitor(Protocol):
    """Says something, and goes on as long as it is answered."""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()
        self.answered: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello" * 1000)

    def dataReceived(self, data: bytes) -> None:
        if not self.answered.called:
            self.answered.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        self.gone.callback(None)


class PendingLogin(Protocol):
    """Says what nobody understands."""

    def __init__(self, words: bytes) -> None:
        self.gone: Deferred[None] = Deferred()
        self._words = words

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._words)

    def connectionLost(self, reason: Any = None) -> None:
        self.gone.callback(None)


class BrowserTests(TestCase):
    """Logging in, watching and acting."""

    timeout = 240
    # Pictures show what a reader's own server has.
    host = "tunnel.example.com" if PICTURES else "127.0.0.1"
    kind, way, web = ("ssl", "tls", "https") if PICTURES else ("tcp", "tcp", "http")
    toServer = ("--insecure",) if PICTURES else ()

    async def setUp(self) -> None:  # type: ignore[override] # trial waits for it
        self.programs: list[Program] = []
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        clients = self.directory / "clients"
        clients.write_text("alice:open sesame\nbob:open sesame\n")
        clients.chmod(0o600)
        self.store = TokenStore(self.directory / "tokens")
        self.operator = self.store.create(
            "operator", Permissions(may=frozenset({"admin"}))
        )
        self.store.create("laptop", Permissions(maxTunnels=5, rate=10_000_000))
        self.server = self.startProgram(
            "tunnel",
            *("--port", f"{self.kind}:0:interface=127.0.0.1"),
            *("--interface", "127.0.0.1", "--hostname", self.host),
            *("--auth", f"clients:{clients}"),
            *("--auth", f"tokens:{self.directory / 'tokens'}"),
        )
        listening = await self.server.says(r"Listening for clients on \S+:(\d+)")
        self.port = int(listening[1])
        self.browser = await Browser.start(reactor, self.directory / "browser")
        self.addCleanup(self.browser.stop)

    def startProgram(self, command: str, *options: str, state: str = "") -> Program:
        program = startTristunnel(
            reactor,
            command,
            [*options, "--state-dir", str(self.directory / (state or command))],
            self.directory,
            {
                "TRISTUNNEL_CREDENTIALS": json.dumps(
                    {"id": "alice", "secret": "open sesame"}
                )
            },
        )
        self.addCleanup(program.stop)
        self.programs.append(program)
        return program

    async def startClient(self) -> int:
        echo = listenHere(self, reactor, Factory.forProtocol(Talkative))
        client = self.startProgram(
            "tunnel-client",
            *("--connect", f"{self.way}:127.0.0.1:{self.port}", *self.toServer),
            *("--forward", f"shop=127.0.0.1:{echo}"),
        )
        return int((await client.says(r"^tcp://\S+:(\d+)$"))[1])

    async def visit(self, port: int) -> Visitor:
        visitor: Visitor = await connectProtocol(
            HostnameEndpoint(reactor, "127.0.0.1", port), Visitor()
        )
        await visitor.answered
        return visitor

    async def logIn(self, name: str = "alice", password: str = "open%20sesame") -> None:
        where = f"{name}:{password}@{self.host}:{self.port}"
        await self.browser.open(f"{self.web}://{where}/")
        await self.browser.until("document.getElementById('live').className === 'on'")

    def checkQuiet(self) -> None:
        self.assertEqual(self.browser.complaints, [])
        for url in self.browser.requested:
            place = rf"{re.escape(self.host)}:{self.port}"
            self.assertRegex(url, rf"^{self.web}://([^/@]*@)?{place}/")

    async def test_day(self) -> None:
        """Log in, see a tunnel and a visitor come and go, without a reload."""
        browser = self.browser
        await self.logIn()
        tunnels, visitors = "[data-list=tunnels] tr", "[data-list=visitors] tr"
        self.assertFalse(
            await browser.evaluate(f"!!document.querySelector('{tunnels}')")
        )
        port = await self.startClient()
        await browser.until(f"document.querySelector('{tunnels}')")
        row = await browser.evaluate(f"document.querySelector('{tunnels}').innerText")
        self.assertIn("shop", row)
        visitor = await self.visit(port)
        await browser.until(f"document.querySelector('{visitors}')")

        await browser.follow(f"{visitors} a.end")
        self.assertIn("Disconnect visitor", await browser.evaluate("document.title"))
        await browser.follow("button.danger")
        await visitor.gone
        text = await browser.evaluate("document.querySelector('.done').innerText")
        self.assertEqual(text, "The visitor was disconnected.")
        await browser.until(f"!document.querySelector('{visitors}')")

        await browser.follow(f"{tunnels} a.end")
        self.assertEqual(
            await browser.evaluate("document.title"), "Close tunnel shop? - tristunnel"
        )
        await browser.follow("button.danger")
        await browser.until(
            f"!document.querySelector('{tunnels}')"
            " && document.querySelector('.events').innerText.includes('is closed')"
        )
        self.checkQuiet()

    async def test_operator(self) -> None:
        """An operator grants, takes back and revokes by the keyboard alone."""
        browser = self.browser
        await self.logIn("operator", self.operator)
        await self.picture("dashboard-empty", 1100)
        port = await self.startClient()
        tunnel = "[data-list=tunnels] a.grant"
        await browser.until(f"document.querySelector('{tunnel}')")
        await browser.evaluate(f"document.querySelector('{tunnel}').focus()")
        await self.turnPage("Enter")
        self.assertEqual(
            await browser.evaluate("document.title"),
            "Grant access to shop - tristunnel",
        )
        focused = []
        for text in ("", "127.0.0.0/8", "", "3"):
            await browser.press("Tab")
            focused.append(
                await browser.evaluate("document.activeElement.labels[0].innerText")
            )
            if text:
                await browser.enter(text)
        self.assertEqual(
            focused,
            [
                "For how long",
                "From which address or network",
                "Only with the token of",
                "For how many sessions",
            ],
        )
        await self.picture("dashboard-grant", 700)
        await self.turnPage("Enter")
        text = await browser.evaluate("document.body.innerText")
        self.assertIn("Access to shop is granted", text)
        self.assertRegex(text, r"w3ps?://[\w.]+:\d+/access/\w+#[\w-]+")

        await browser.follow("a[href='../']")
        access, tokens = "[data-list=access] tr", "[data-list=tokens] tr"
        row = await browser.evaluate(f"document.querySelector('{access}').innerText")
        for words in ("shop", "operator", "127.0.0.0/8", "3"):
            self.assertIn(words, row)
        await self.crowd(port)
        await browser.follow(f"{access} a.end")
        await browser.follow("button.danger")
        await browser.until(f"!document.querySelector('{access}')")
        self.assertFalse(
            await browser.evaluate("!!document.querySelector('#access').offsetParent"),
            "an empty section is shown",
        )

        await browser.follow(f'{tokens}[data-id="token:laptop"] a.end')
        self.assertIn("Revoke the token of laptop", await self.titleOf())
        await browser.follow("button.danger")
        await browser.until(
            f"document.querySelector('{tokens}[data-id=\"token:laptop\"]')"
            ".innerText.includes('revoked')"
        )
        self.assertIsNotNone(self.store.read().byName["laptop"].revoked)
        self.checkQuiet()

    async def titleOf(self) -> str:
        title: str = await self.browser.evaluate("document.title")
        return title

    async def turnPage(self, key: str) -> None:
        await self.browser.during(
            "Page.loadEventFired",
            lambda: Deferred.fromCoroutine(self.browser.press(key)),
        )

    async def picture(self, name: str, width: int, dark: bool = False) -> None:
        if PICTURES:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            path = Path(PICTURES) / f"{name}.png"
            await self.browser.picture(path, width, dark, 1760)
            # At the end, since it takes a while.
            self.addCleanup(lambda: path.write_bytes(smallPNG(path.read_bytes())))

    async def crowd(self, port: int) -> None:
        if not PICTURES:
            return
        for probe in (b"ssh-2.0\r\n", b"\x16\x03\x01"):
            pending = await connectProtocol(
                HostnameEndpoint(reactor, "127.0.0.1", self.port), PendingLogin(probe)
            )
            await pending.gone
        site = Site(File(str(self.directory)))
        web = listenHere(self, reactor, site)
        blog = self.startProgram(
            "tunnel-client",
            *("--connect", f"{self.way}:127.0.0.1:{self.port}", *self.toServer),
            *("--tell", "host,target"),
            *("--forward", f"blog=http://localhost:{web}"),
            *("--max-visitors", "100"),
            state="blog",
        )
        page = (await blog.says(r"^(http://\S+)$"))[1].replace(self.host, "127.0.0.1")
        (self.directory / "photo").write_bytes(bytes(200_000))

        async def look() -> None:
            got = await Agent(reactor).request(b"GET", f"{page}/photo".encode())
            await readBody(got)
            await deferLater(reactor, 3 * abs(math.sin(reactor.seconds())))

        looking = LoopingCall(lambda: Deferred.fromCoroutine(look()))
        looking.start(1.0)
        self.addCleanup(looking.stop)
        visitors: list[Any] = []
        turns = count()

        def speak() -> None:
            turn = next(turns)
            for number, visitor in enumerate(visitors):
                size = 4000 * (number + 1) * (1.3 + math.sin(turn / 40 + number))
                visitor.transport.write(bytes(int(size)))

        speaking = LoopingCall(speak)
        speaking.start(0.2)
        for _ in range(5):
            visitors.append(await self.visit(port))
            await deferLater(reactor, 25)
        for name, width, dark in (
            ("dashboard-light", 1100, False),
            ("dashboard-dark", 1100, True),
            ("dashboard-phone", 390, False),
        ):
            await self.picture(name, width, dark)
        await self.browser.follow("[data-list=tunnels] tr:nth-child(2) a.name")
        await self.picture("dashboard-tunnel", 1100)
        await self.browser.follow("h1 a")
        speaking.stop()
        for visitor in visitors:
            visitor.transport.abortConnection()
            await visitor.gone

    async def test_keyboard(self) -> None:
        """What can be clicked can be reached with the keyboard, and keeps the focus."""
        browser = self.browser
        await self.startClient()
        await self.logIn()
        await browser.until("document.querySelector('[data-list=tunnels] a.end')")
        focused = []
        for _ in range(9):
            await browser.press("Tab")
            focused.append(
                await browser.evaluate(
                    "document.activeElement.getAttribute('aria-label')"
                    " || document.activeElement.innerText"
                )
            )
        self.assertEqual(
            focused,
            [
                "Skip to the content",
                "Pause",
                "2 minutes",
                "hour",
                "day",
                "shop",
                "Copy",
                "Grant access to shop",
                "Close tunnel shop",
            ],
        )
        await browser.evaluate(
            "document.querySelector('[data-list=tunnels] a.grant').focus()"
        )
        before = await browser.evaluate(
            "document.querySelector('[data-list=tunnels] [data-f=age]').textContent"
        )
        await browser.until(
            "document.querySelector('[data-list=tunnels] [data-f=age]').textContent"
            f" !== {json.dumps(before)}"
        )
        self.assertEqual(
            await browser.evaluate("document.activeElement.className"), "grant"
        )
        self.checkQuiet()

    async def test_copy(self) -> None:
        """What a button copies is in the clipboard then, and the button says so."""
        browser = self.browser
        await self.startClient()
        await self.logIn()
        await browser.until("document.querySelector('[data-list=tunnels] button.copy')")
        for origin in (f"http://127.0.0.1:{self.port}",):
            await browser.call(
                "Browser.grantPermissions",
                origin=origin,
                permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
            )
        button = "document.querySelector('[data-list=tunnels] button.copy')"
        await browser.evaluate(f"void {button}.click()")
        await browser.until(f"{button}.textContent === 'Copied'")
        address = await browser.evaluate(f"{button}.dataset.copies")
        self.assertRegex(address, r"^tcp://127\.0\.0\.1:\d+$")
        self.assertEqual(
            await browser.evaluate("navigator.clipboard.readText()"), address
        )
        self.checkQuiet()

    async def test_tunnelPage(self) -> None:
        """A tunnel's page is kept up to date, looks back as far as one likes, and says
        when the tunnel is gone."""
        browser = self.browser
        port = await self.startClient()
        await self.logIn()
        await browser.until("document.querySelector('[data-list=tunnels] a.name')")
        await browser.follow("[data-list=tunnels] a.name")
        self.assertEqual(await self.titleOf(), "Tunnel shop - tristunnel")
        visitor = await self.visit(port)
        await browser.until("document.querySelector('[data-list=visitors] tr')")
        await browser.follow("figcaption nav a:nth-child(2)")
        text = await browser.evaluate("document.body.innerText")
        self.assertIn("-45 min", text)
        await browser.until("document.querySelector('[data-list=visitors] tr')")
        await browser.until("document.getElementById('live').className === 'on'")
        client = self.programs[-1]
        client.signal("TERM")
        await browser.until(
            "document.querySelector('.facts').innerText.includes('client away')"
        )
        await visitor.gone
        self.checkQuiet()

    async def test_demo(self) -> None:
        """The demonstration's page shows what to run, and leads to the dashboard."""
        demo = self.startProgram("tunnel", "--demo", state="demo")
        (address,) = (await demo.says(r"^(http://\S+)$")).groups()
        browser = self.browser
        await browser.open(address)
        await self.picture("demo", 760)
        await browser.evaluate("void document.querySelector('button.copy').click()")
        await browser.until(
            "document.querySelector('button.copy').textContent !== 'Copy'"
        )
        await browser.follow("main a")
        await browser.until("document.getElementById('live').className === 'on'")
        text = await browser.evaluate("document.body.innerText")
        self.assertIn("Anybody who reaches this server", text)
        self.assertEqual(browser.complaints, [])

    async def test_hostile(self) -> None:
        """What a client says of itself stays text also on a page that is open."""
        server = self.startProgram(
            "tunnel",
            *("--port", "tcp:0:interface=127.0.0.1", "--interface", "127.0.0.1"),
            state="open",
        )
        port = (await server.says(r"Listening for clients on \S+:(\d+)"))[1]
        browser = self.browser
        await browser.open(f"http://127.0.0.1:{port}/")
        await browser.until("document.getElementById('live').className === 'on'")
        hostile = "<img src=x onerror=alert(1)>"
        client = self.startProgram(
            "tunnel-client",
            *("--connect", f"tcp:127.0.0.1:{port}", "--credentials", f"id={hostile}"),
            *("--tell", "host,target", "--forward", "shop=unix:/<s>target</s>"),
        )
        await client.says(r"^tcp://\S+$")
        await browser.until("document.querySelector('[data-list=tunnels] a.name')")
        await browser.until(
            f"document.querySelector('[data-list=clients] tr').innerText.includes"
            f"({json.dumps(hostile)})"
        )
        await browser.follow("[data-list=tunnels] a.name")
        await browser.until("document.getElementById('live').className === 'on'")
        target = await browser.evaluate(
            "document.querySelector('[data-total=target]').innerText"
        )
        self.assertEqual(target, "unix:/<s>target</s>")
        self.assertFalse(await browser.evaluate("!!document.querySelector('img, s')"))
        self.assertEqual(browser.complaints, [])

    async def test_touch(self) -> None:
        """With fingers, all that can be touched is at least 44 pixels high and wide."""
        browser = self.browser
        await self.startClient()
        await browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
        await browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=390,
            height=800,
            deviceScaleFactor=1,
            mobile=True,
        )
        await self.logIn("operator", self.operator)
        await browser.until("document.querySelector('[data-list=tunnels] a.end')")
        small = """[...document.querySelectorAll('a, button, input, select')]
          .filter(e => e.offsetParent && !e.matches('.skip'))
          .map(e => [e.outerHTML, e.getBoundingClientRect()])
          .filter(([, box]) => box.width < 44 || box.height < 44)
          .map(([html, box]) => html.slice(0, 60) + box.width + 'x' + box.height)"""
        self.assertTrue(
            await browser.evaluate("matchMedia('(pointer: coarse)').matches")
        )
        self.assertEqual(await browser.evaluate(small), [])
        for selector in ("[data-list=tunnels] a.name", "a.grant"):
            await browser.follow(selector)
            self.assertEqual(await browser.evaluate(small), [], selector)

    async def test_withoutScript(self) -> None:
        """Without JavaScript the page says the same."""
        await self.startClient()
        await self.browser.call("Emulation.setScriptExecutionDisabled", value=True)
        await self.browser.open(f"http://alice:open%20sesame@127.0.0.1:{self.port}/")
        text = await self.browser.evaluate("document.body.innerText")
        for words in ("shop", "Reload", "As of", "Client alice connected"):
            self.assertIn(words, text)
        self.assertNotIn("Pause", text)
        self.checkQuiet()

    async def test_framed(self) -> None:
        """A page of another origin can neither show it in a frame nor post to it."""
        await self.startClient()
        await self.logIn()
        browser = self.browser
        # Of another origin, with the password known to the browser.
        await browser.open(f"http://localhost:{self.port}/health")
        await browser.evaluate(
            f"""void (() => {{
              const form = document.createElement('form');
              form.method = 'post';
              form.action = 'http://127.0.0.1:{self.port}/dashboard/act';
              document.body.append(form);
            }})()"""
        )
        await browser.during(
            "Page.loadEventFired",
            lambda: Deferred.fromCoroutine(
                browser.evaluate("void document.querySelector('form').submit()")
            ),
        )
        text = await browser.evaluate("document.body.innerText")
        self.assertIn("A page from another site may not call this server", text)
