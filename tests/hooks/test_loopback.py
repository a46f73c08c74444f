"""Hooks of real programs: a web server, and commands."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredQueue
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.hooks.test_target import anEvent
from tests.support.listening import listenHere
from tristunnel.hooks.delivery import Hooks
from tristunnel.hooks.target import NotTaken, parseTarget

reactor: Any = _reactor
SECRET = b"a secret of sixteen letters"


async def _failing(delivering: Deferred[None]) -> BaseException:
    try:
        await delivering
    except (NotTaken, CancelledError) as error:
        return error
    raise AssertionError("it was taken")


class _Hook(Resource):
    """Answers as told, and keeps what it got."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.codes = [200]
        self.got: DeferredQueue[tuple[Any, bytes]] = DeferredQueue()

    def render_POST(self, request: Any) -> bytes:
        self.got.put((request.requestHeaders, request.content.read()))
        request.setResponseCode(self.codes.pop(0) if len(self.codes) > 1 else 200)
        return b"whatever " * 10000


class PostTests(TestCase):
    """C{--on-event http://...}."""

    def setUp(self) -> None:
        self.hook = _Hook()
        port = listenHere(self, reactor, Site(self.hook))
        self.url = f"http://127.0.0.1:{port}/secret/path"

    async def test_signed(self) -> None:
        """The body is JSON, and its signature holds."""
        receiver = parseTarget(self.url).makeReceiver(reactor, SECRET)
        await receiver.deliver(anEvent(client="laptop"), 1234.5)
        headers, body = await self.hook.got.get()
        self.assertEqual(json.loads(body)["client"], "laptop")
        digest = hmac.new(SECRET, b"1234." + body, hashlib.sha256).hexdigest()
        (given,) = headers.getRawHeaders("Tristunnel-Signature")
        self.assertEqual(given, f"t=1234,v1={digest}")
        self.assertEqual(headers.getRawHeaders("Tristunnel-Event"), ["client-up"])
        self.assertEqual(headers.getRawHeaders("Tristunnel-Delivery"), ["an-id"])

    async def test_reasons(self) -> None:
        """What went wrong is told in words; what is called off is told as that."""
        came: Deferred[None] = Deferred()

        class Wrong(Protocol):
            def dataReceived(self, data: bytes) -> None:
                if b"/garbage" in data:
                    self.transport.write(b"\x00 garbage\r\n\r\n")
                elif b"/closes" in data:
                    self.transport.loseConnection()
                elif not came.called:
                    came.callback(None)

        port = listenHere(self, reactor, Factory.forProtocol(Wrong))
        url = f"http://127.0.0.1:{port}"
        for path, words in (("garbage", "not HTTP"), ("closes", "closed cleanly")):
            receiver = parseTarget(f"{url}/{path}").makeReceiver(reactor, b"")
            error = await _failing(receiver.deliver(anEvent(), 0))
            self.assertIn(words, str(error))
            self.assertNotIn("Failure", str(error))
        silent = parseTarget(f"{url}/silent").makeReceiver(reactor, b"")
        delivering = silent.deliver(anEvent(), 0)
        await came
        delivering.cancel()
        self.assertIsInstance(await _failing(delivering), CancelledError)

    async def test_shapes(self) -> None:
        """Slack and ntfy get what they understand."""
        for shape, expected in (
            ("slack", b'{"text": "Client laptop is up"}'),
            ("ntfy", b"Client laptop is up"),
        ):
            target = parseTarget(f"{shape}+{self.url}")
            await target.makeReceiver(reactor, b"").deliver(anEvent(), 0)
            headers, body = await self.hook.got.get()
            self.assertEqual(body, expected)
            self.assertFalse(headers.hasHeader("Tristunnel-Signature"))

    async def test_refused(self) -> None:
        """An answer that is no success says so, and when to come again."""
        receiver = parseTarget(self.url).makeReceiver(reactor, b"")
        for code in (301, 404, 500, 204):
            self.hook.codes = [code, 200]
            asked = receiver.deliver(anEvent(), 0)
            if code == 204:
                await asked
            else:
                error = await _failing(asked)
                self.assertIn(str(code), str(error))

    async def test_back(self) -> None:
        """A receiver that refused and is back gets everything, in order."""
        hooks = Hooks(reactor, [parseTarget(self.url)], b"", "server")
        self.hook.codes = [503, 200, 200, 200]
        for text in "abc":
            hooks.tell("client-up", text)
        texts = []
        for _ in range(4):
            texts.append(json.loads((await self.hook.got.get())[1])["text"])
        self.assertEqual(texts, ["a", "a", "b", "c"])
        await hooks.stop()

    async def test_endless(self) -> None:
        """A body that never ends, or a lie about its length, holds up nothing."""

        class Endless(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                head = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\nx"
                self.transport.write(head)

        port = listenHere(self, reactor, Factory.forProtocol(Endless))
        url = f"http://127.0.0.1:{port}/"
        await parseTarget(url).makeReceiver(reactor, b"").deliver(anEvent(), 0)

    async def test_nobody(self) -> None:
        """Where nobody listens the reason is one line."""
        receiver = parseTarget("http://127.0.0.1:1/").makeReceiver(reactor, b"")
        error = await _failing(receiver.deliver(anEvent(), 0))
        self.assertIn("refused", str(error))


class CommandTests(TestCase):
    """C{--on-event exec:...}."""

    def command(self, code: str) -> Callable[[], Deferred[None]]:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(code)
        target = parseTarget(f"exec:{sys.executable} {os.path.abspath(path)}")
        receiver = target.makeReceiver(reactor, b"")
        return lambda: receiver.deliver(anEvent(client="laptop; rm -rf /"), 0)

    async def test_told(self) -> None:
        """The event is in the environment and on standard input; no secret of ours."""
        out = os.path.abspath(self.mktemp())
        os.environ["TRISTUNNEL_TOKEN"] = "secret"
        self.addCleanup(os.environ.pop, "TRISTUNNEL_TOKEN")
        await self.command(
            "import json, os, sys\n"
            "mine = {k: v for k, v in os.environ.items() if 'TRISTUNNEL' in k}\n"
            f"json.dump([mine, json.load(sys.stdin)], open({out!r}, 'w'))\n"
        )()
        with open(out) as file:
            variables, event = json.load(file)
        self.assertEqual(event["client"], "laptop; rm -rf /")
        self.assertEqual(variables["TRISTUNNEL_EVENT_CLIENT"], event["client"])
        self.assertNotIn("TRISTUNNEL_TOKEN", variables)

    async def test_status(self) -> None:
        """Another status than 0 is no success; what it said is told in one line."""
        run = self.command("import sys; sys.exit('no\\x1b[31m room')")
        error = await _failing(run())
        self.assertEqual(str(error), "it ended with status 1: no?[31m room")

    async def test_unread(self) -> None:
        """One that reads nothing, or writes without end, is no trouble."""
        await self.command("import os; os.write(1, b'x' * 1000000)")()

    async def test_cancelled(self) -> None:
        """One that takes too long is killed."""
        running = self.command("import time; time.sleep(1000)")()
        reactor.callLater(0.1, running.cancel)
        error = await _failing(running)
        self.assertIsInstance(error, CancelledError)
