"""
The dashboard in a real browser, of a real server.

With the environment variable TRISTUNNEL_SCREENSHOTS, the name of a directory,
pictures for the documentation are written there.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.processes import Program, startTristunnel
from tests.web.browser import Browser, chromium

reactor: Any = _reactor

if chromium() is None:
    skip = "Chromium is not installed"


class Talkative(Protocol):
    """
    Answers with thrice what it hears.
    """

    def dataReceived(self, data: bytes) -> None:
        """
        Answer.
        """
        assert self.transport is not None
        self.transport.write(data * 3)


class Visitor(Protocol):
    """
    Says something, and goes on as long as it is answered.

    @ivar gone: Fires when the connection is gone.
    """

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()
        self.answered: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """
        Begin.
        """
        assert self.transport is not None
        self.transport.write(b"hello" * 1000)

    def dataReceived(self, data: bytes) -> None:
        """
        There is an answer.
        """
        if not self.answered.called:
            self.answered.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        """
        It is over.
        """
        self.gone.callback(None)


class BrowserTests(TestCase):
    """
    Logging in, watching and acting.
    """

    timeout = 240

    async def setUp(self) -> None:  # type: ignore[override]
        """
        Start a server that asks everybody, and a browser.
        """
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        clients = self.directory / "clients"
        clients.write_text("alice:open sesame\nbob:open sesame\n")
        clients.chmod(0o600)
        self.server = self.startProgram(
            "tunnel",
            *("--port", "tcp:0:interface=127.0.0.1", "--interface", "127.0.0.1"),
            *("--auth", f"clients:{clients}"),
        )
        listening = await self.server.says(r"Listening for clients on \S+:(\d+)")
        self.port = int(listening[1])
        self.browser = await Browser.start(reactor, self.directory / "browser")
        self.addCleanup(self.browser.stop)

    def startProgram(self, command: str, *options: str) -> Program:
        """
        Start a server or a client.
        """
        program = startTristunnel(
            reactor,
            command,
            [*options, "--state-dir", str(self.directory / command)],
            self.directory,
            {
                "TRISTUNNEL_CREDENTIALS": json.dumps(
                    {"id": "alice", "secret": "open sesame"}
                )
            },
        )
        self.addCleanup(program.stop)
        return program

    async def startClient(self) -> int:
        """
        Start a client.

        @return: The port for its visitors.
        """
        echo = reactor.listenTCP(
            0, Factory.forProtocol(Talkative), interface="127.0.0.1"
        )
        self.addCleanup(echo.stopListening)
        client = self.startProgram(
            "tunnel-client",
            *("--connect", f"tcp:127.0.0.1:{self.port}"),
            *("--forward", f"shop=127.0.0.1:{echo.getHost().port}"),
        )
        return int((await client.says(r"^tcp://\S+:(\d+)$"))[1])

    async def visit(self, port: int) -> Visitor:
        """
        Come as a visitor.
        """
        visitor: Visitor = await connectProtocol(
            HostnameEndpoint(reactor, "127.0.0.1", port), Visitor()
        )
        await visitor.answered
        return visitor

    async def logIn(self, name: str = "alice") -> None:
        """
        Open the dashboard.
        """
        await self.browser.open(f"http://{name}:open%20sesame@127.0.0.1:{self.port}/")
        await self.browser.until("document.getElementById('live').className === 'on'")

    def checkQuiet(self) -> None:
        """
        Nothing was complained about, and nothing was asked of others.
        """
        self.assertEqual(self.browser.complaints, [])
        for url in self.browser.requested:
            self.assertRegex(url, rf"^http://([^/@]*@)?127\.0\.0\.1:{self.port}/")

    async def test_day(self) -> None:
        """
        Log in, see a tunnel and a visitor appear, send the visitor away, close
        the tunnel, and see them go; all without a reload.
        """
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
        await self.pictures(port)

        await browser.follow(f"{visitors} a.end")
        self.assertIn("Send visitor", await browser.evaluate("document.title"))
        await browser.follow("button.danger")
        await visitor.gone
        text = await browser.evaluate("document.querySelector('.done').innerText")
        self.assertEqual(text, "The visitor was sent away.")
        await browser.until(f"!document.querySelector('{visitors}')")

        await browser.follow(f"{tunnels} a.end")
        self.assertEqual(
            await browser.evaluate("document.title"),
            "Close tunnel shop? - tristunnel",
        )
        await browser.follow("button.danger")
        await browser.until(
            f"!document.querySelector('{tunnels}')"
            " && document.querySelector('.events').innerText.includes('is closed')"
        )
        self.checkQuiet()

    async def pictures(self, port: int) -> None:
        """
        Take pictures, if they are wanted, of visitors who come and go.
        """
        where = os.environ.get("TRISTUNNEL_SCREENSHOTS")
        if not where:
            return
        visitors: list[Any] = []
        for turn in range(500):
            if turn % 120 == 0:
                visitors.append(await self.visit(port))
            for number, visitor in enumerate(visitors):
                size = 4000 * (number + 1) * (1.3 + math.sin(turn / 40 + number))
                visitor.transport.write(bytes(int(size)))
            await deferLater(reactor, 0.2)
        for name, width, dark in (
            ("dashboard-light", 1100, False),
            ("dashboard-dark", 1100, True),
            ("dashboard-narrow", 390, False),
        ):
            await self.browser.picture(Path(where) / f"{name}.png", width, dark, 1100)
        for visitor in visitors:
            visitor.transport.abortConnection()
            await visitor.gone

    async def test_keyboard(self) -> None:
        """
        What can be clicked can be reached with the keyboard, and keeps the
        focus while the page changes.
        """
        browser = self.browser
        await self.startClient()
        await self.logIn()
        await browser.until("document.querySelector('[data-list=tunnels] a.end')")
        focused = []
        for _ in range(4):
            await browser.press("Tab")
            focused.append(
                await browser.evaluate(
                    "document.activeElement.getAttribute('aria-label')"
                    " || document.activeElement.innerText"
                )
            )
        self.assertEqual(
            focused[:3], ["Skip to the content", "Pause", "Close tunnel shop"]
        )
        await browser.evaluate(
            "document.querySelector('[data-list=tunnels] a').focus()"
        )
        before = await browser.evaluate(
            "document.querySelector('[data-list=tunnels] [data-f=age]').textContent"
        )
        await browser.until(
            "document.querySelector('[data-list=tunnels] [data-f=age]').textContent"
            f" !== {json.dumps(before)}"
        )
        self.assertEqual(
            await browser.evaluate("document.activeElement.className"), "end"
        )
        self.checkQuiet()

    async def test_withoutScript(self) -> None:
        """
        Without JavaScript the page says the same.
        """
        await self.startClient()
        await self.browser.call("Emulation.setScriptExecutionDisabled", value=True)
        await self.browser.open(f"http://alice:open%20sesame@127.0.0.1:{self.port}/")
        text = await self.browser.evaluate("document.body.innerText")
        for words in ("shop", "Reload", "As of", "Client alice connected"):
            self.assertIn(words, text)
        self.assertNotIn("Pause", text)
        self.checkQuiet()

    async def test_framed(self) -> None:
        """
        A page of another origin can neither show it in a frame nor post to it.
        """
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
