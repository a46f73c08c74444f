"""
The page of requests in a real browser, with the worst that visitors and services write.

With the environment variable TRISTUNNEL_SCREENSHOTS, the name of a directory, a picture
for the documentation is written there.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.server import Site
from twisted.web.static import Data

from tests.dashboard.pictures import smallPNG
from tests.inspect.streams import INFO, STREAMS
from tests.support.browser import Browser, chromium
from tests.support.listening import listenHere
from tristunnel.forwards.forward import Forward, parseForward
from tristunnel.inspect.inspector import Inspector
from tristunnel.inspect.options import InspectSettings, parseInspect
from tristunnel.inspect.record import Limits
from tristunnel.inspect.tap import Tap

reactor: Any = _reactor

PICTURES = os.environ.get("TRISTUNNEL_SCREENSHOTS", "")

if chromium() is None:
    skip = "Chromium is not installed"
elif not (PICTURES or os.environ.get("TRISTUNNEL_LONG")):
    skip = "set TRISTUNNEL_LONG=1 to look at requests in a browser"

_EVIL = "<img/src=x/onerror=window.pwned=1><script>window.pwned=2</script>"
_QUOTES = "'\"><svg/onload=window.pwned=3>{{7*7}}${window.pwned=4}javascript:pwned=5"
_HOSTILE = _EVIL + _QUOTES

_SHOP = (
    ("GET", "/", 200, "text/html; charset=utf-8", "<!DOCTYPE html><title>Shop</title>"),
    ("GET", "/style.css", 200, "text/css", "body { margin: 0 }"),
    ("GET", "/api/items?page=2", 200, "application/json", '{"items":[],"next":null}'),
    ("POST", "/login", 302, "text/plain", ""),
    ("GET", "/favicon.ico", 404, "text/plain", "nothing here"),
    ("POST", "/hooks/payment?token=s3cret", 500, "text/plain", "KeyError: 'amount'"),
)


class _Service(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        body = b"again: " + data.partition(b" ")[0]
        self.transport.write(
            b"HTTP/1.1 201 Made\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )


class BrowserTests(TestCase):
    """Looking at requests, and sending them again."""

    timeout = 120

    async def setUp(self) -> None:  # type: ignore[override] # trial waits for it
        port = listenHere(self, reactor, Factory.forProtocol(_Service))
        service = f"127.0.0.1:{port}"
        self.forward: Forward = parseForward(reactor, f"8080={service}")
        place = parseInspect(reactor, "127.0.0.1:0", False)
        self.inspector = Inspector(reactor, InspectSettings(place, Limits()))
        self.inspector.startService()
        self.addCleanup(self.inspector.stopService)
        self.browser = await Browser.start(reactor, Path(self.mktemp()).absolute())
        self.addCleanup(self.browser.stop)

    def pass_(
        self, request: str, response: str, wait: Callable[[], None] = lambda: None
    ) -> Tap:
        tap = Tap(self.inspector.record, self.forward, INFO)
        tap.asked(request.encode())
        wait()
        tap.answered(response.encode())
        return tap

    def until(self, condition: str) -> Deferred[Any]:
        return self.browser.until(condition)

    async def show(self, number: int) -> None:
        await self.browser.evaluate(
            f"void document.querySelector('[data-id=\"{number}\"] button').click()"
        )
        await self.until("!document.getElementById('one').hidden")

    async def press(self, text: str) -> None:
        await self.browser.evaluate(
            "void [...document.querySelectorAll('button')]"
            f".find((each) => each.textContent.startsWith({json.dumps(text)})).click()"
        )

    async def test_hostile(self) -> None:
        """Nothing that visitors and services write is anything but text."""
        path = _HOSTILE.replace(" ", "").encode("ascii").decode()
        headers = f"X-{'A' * 20}: {_HOSTILE}\r\nHost: h\r\n"
        body = f"Content-Length: {len(_HOSTILE)}\r\n\r\n{_HOSTILE}"
        for kind in (
            "text/html",
            "application/json",
            "text/xml",
            "image/svg+xml",
            _EVIL,
        ):
            self.pass_(
                f"POST /{path}?{path} HTTP/1.1\r\n{headers}"
                f"Content-Type: {kind}\r\n{body}",
                f"HTTP/1.1 200 {_HOSTILE}\r\n{headers}Content-Type: {kind}\r\n{body}",
            )
        asked, answered, _ = STREAMS["a WebSocket"]
        payload = _HOSTILE.encode()
        tap = Tap(self.inspector.record, self.forward, INFO)
        tap.asked(asked[0])
        tap.answered(
            answered[0] + b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload
        )
        self.inspector.record.notLookedAt(self.forward, _HOSTILE)
        await self.browser.open(self.inspector.url)
        await self.until("document.querySelectorAll('#rows tr').length === 6")
        for number in range(1, 7):
            await self.show(number)
            await self.until("document.querySelector('#one h2').textContent.length")
            if number < 6:
                await self.press("Edit and send")
                await self.until("document.getElementById('edit').open")
                await self.press("Cancel")
        found = await self.browser.evaluate(
            "[window.pwned, document.querySelectorAll('img, main script').length,"
            " document.body.textContent.includes('onerror=window.pwned')]"
        )
        self.assertEqual(found, [None, 0, True])
        self.assertEqual(self.browser.complaints, [])
        for url in self.browser.requested:
            self.assertTrue(url.startswith(self.inspector.page), url)

    async def test_again(self) -> None:
        """A request is found, sent again as it was and edited; secrets stay hidden."""
        self.pass_(
            "POST /login?token=s3cret HTTP/1.1\r\nHost: h\r\nCookie: sid=hidden\r\n"
            "Content-Length: 2\r\n\r\nhi",
            "HTTP/1.1 204 No\r\n\r\n",
        )
        self.pass_("GET /other HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 404 No\r\n\r\n")
        await self.browser.open(self.inspector.url)
        await self.until("document.querySelectorAll('#rows tr').length === 2")
        await self.browser.evaluate(
            "document.getElementById('filter').value = 'method:POST';"
            "document.getElementById('filter').dispatchEvent(new Event('input'))"
        )
        await self.until("document.querySelectorAll('#rows tr').length === 1")
        await self.show(1)
        text = "document.body.innerText"
        shown = await self.browser.evaluate(text)
        self.assertIn("sid=\u2022\u2022\u2022", shown)
        self.assertNotIn("s3cret", shown)
        await self.press("Send again")
        await self.until("document.querySelectorAll('#rows tr').length === 2")
        await self.until(f"{text}.includes('again: POST')")
        await self.show(1)
        await self.press("Edit and send")
        await self.until("document.getElementById('edit').open")
        await self.browser.evaluate(
            "document.getElementById('method').value = 'PUT';"
            "document.getElementById('body').value = 'other';"
            "document.getElementById('form').requestSubmit()"
        )
        await self.until(f"{text}.includes('HTTP/1.1 201 Made')")
        await self.until("!document.getElementById('edit').open")
        _, _, _, edited = self.inspector.record.exchanges.values()
        self.assertEqual(bytes(edited.request.kept), b"other")
        self.assertEqual(edited.asked.get(b"cookie"), b"sid=hidden")
        self.assertEqual(edited.asked.target, b"/login?token=s3cret")
        await self.browser.evaluate("document.getElementById('reveal').click()")
        await self.until(f"{text}.includes('s3cret')")
        self.assertEqual(self.browser.complaints, [])

    async def test_elsewhere(self) -> None:
        """A page of another port of this machine neither reads nor does anything."""
        self.pass_(STREAMS["one"][0][0].decode(), STREAMS["one"][1][0].decode())
        await self.browser.open(self.inspector.url)
        await self.until("document.querySelectorAll('#rows tr').length === 1")
        place = await self.browser.evaluate("location.href")
        other = Site(Data(b"<!DOCTYPE html><title>evil</title>", "text/html"))
        port = listenHere(self, reactor, other)
        await self.browser.open(f"http://127.0.0.1:{port}/")
        call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "clearRequests"})
        for mode in ("cors", "no-cors"):
            outcome = await self.browser.evaluate(
                f"fetch({json.dumps(place + 'rpc')}, {{method: 'POST', mode: '{mode}',"
                f" credentials: 'include', headers: {{'Content-Type': 'text/plain'}},"
                f" body: {json.dumps(call)}}}).then((a) => a.status, () => 'refused')"
            )
            self.assertIn(outcome, (0, "refused"))
        framed = await self.browser.evaluate(
            "new Promise((done) => { const frame = document.createElement('iframe');"
            f" frame.src = {json.dumps(place)}; frame.onload = () => {{"
            " try { done(frame.contentDocument ? 'read' : 'closed'); }"
            " catch (error) { done('closed'); } }; document.body.append(frame); })"
        )
        self.assertEqual(framed, "closed")
        self.assertEqual(len(self.inspector.record.exchanges), 1)

    async def test_picture(self) -> None:
        """What the documentation shows."""
        clock = Clock()
        self.inspector.record.seconds = clock.seconds
        self.forward = parseForward(reactor, "http/shop=localhost:3000")
        for number, (method, path, status, kind, body) in enumerate(_SHOP):
            event = '{"event":"payment.done","order":{"id":4711,"lines":["tea","cup"]}}'
            data = event if method == "POST" else ""
            tap = self.pass_(
                f"{method} {path} HTTP/1.1\r\nHost: shop.t.example.com\r\n"
                "User-Agent: Mozilla/5.0\r\nX-Forwarded-Proto: https\r\n"
                f"Authorization: Bearer {number}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\n\r\n{data}",
                f"HTTP/1.1 {status} {'OK' if status < 400 else 'Error'}\r\n",
                wait=lambda: clock.advance(0.011),
            )
            clock.advance((1 + 7 * number % 11) / 500)
            tap.answered(
                f"Content-Type: {kind}\r\nSet-Cookie: sid=abc; HttpOnly\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
        await self.browser.open(self.inspector.url)
        await self.until(
            f"document.querySelectorAll('#rows tr').length === {len(_SHOP)}"
        )
        await self.show(len(_SHOP))
        if PICTURES:
            await self.browser.call(
                "Emulation.setDeviceMetricsOverride",
                **{
                    "width": 1200,
                    "height": 900,
                    "deviceScaleFactor": 1,
                    "mobile": False,
                },
            )
            picture = Path(PICTURES) / "inspect.png"
            taken = await self.browser.call("Page.captureScreenshot", format="png")
            picture.write_bytes(smallPNG(b64decode(taken["data"])))
        self.assertEqual(self.browser.complaints, [])
