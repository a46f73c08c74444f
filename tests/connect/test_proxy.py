"""Tests of L{tristunnel.connect.proxy} and of the ways through it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.server.test_websocket_dialects import FramedTestCase
from tests.support.loopback import Service, Talk
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.connect.proxy import ProxiedEndpoint, parseProxy
from tristunnel.connect.route import ConnectOptions, parseHeader
from tristunnel.dialects.framed.moves import Carrier
from tristunnel.errors import LONGEST_HINT, TunnelError


class _Proxy(Factory):
    """
    An HTTP proxy, as small as it can be.

    @ivar asked: The requests that came.
    @ivar answer: What is answered; empty to connect.
    """

    noisy = False

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.asked: list[str] = []
        self.answer = b""
        self.talks: list[Any] = []

    def buildProtocol(self, addr: object) -> Protocol:
        proxied = _Proxied(self)
        self.talks.append(proxied)
        return proxied


class _Far(Protocol):
    near: Any

    def dataReceived(self, data: bytes) -> None:
        self.near.transport.write(data)

    def connectionLost(self, reason: object = None) -> None:
        self.near.transport.loseConnection()


class _Proxied(Talk):
    far: Any = None

    def __init__(self, proxy: _Proxy) -> None:
        super().__init__()
        self._proxy = proxy
        self._waiting = b""
        self._asked = False

    def dataReceived(self, data: bytes) -> None:
        if self.far is not None:
            self.far.transport.write(data)
            return
        self._waiting += data
        head, end, self._waiting = self._waiting.partition(b"\r\n\r\n")
        if self._asked or not end:
            self._waiting = head + end + self._waiting
            return
        self._asked = True
        self._proxy.asked.append(head.decode())
        if self._proxy.answer:
            self.say(self._proxy.answer)
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        endpoint = HostnameEndpoint(self._proxy.reactor, host.strip("[]"), int(port))
        connectProtocol(endpoint, _Far()).addCallback(self._connected)

    def _connected(self, far: _Far) -> None:
        far.near, self.far = self, far
        self.say(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        if self.far is not None:
            self.far.transport.loseConnection()


class ProxyTests(FramedTestCase):
    """Clients behind a proxy."""

    async def through(self, where: str, user: str = "") -> None:
        service = Service()
        proxy = parseProxy(self.reactor, f"http://{user}127.0.0.1:{self.proxyPort}")
        server = parseConnect(self.reactor, where, self.trust, ConnectOptions(proxy))
        # A proxy need not pass on that one direction is over.
        await self.startFramed(
            server, f"0=127.0.0.1:{self.offer(service)}", carrier=Carrier("session")
        )
        await self.exchange(self.lastPort(), service)

    async def startAll(self) -> None:
        await self.startServer()
        self.proxy = _Proxy(self.reactor)
        self.proxyPort = self.offer(self.proxy)

    async def failure(self, endpoint: Any) -> TunnelError:
        opening: Deferred[Any] = connectProtocol(endpoint, Talk())
        return await self.assertFailure(opening, TunnelError)

    async def test_everyTransport(self) -> None:
        """The framed protocol by TCP or TLS, and by WebSocket."""
        await self.startAll()
        kind = "tls" if self.tls else "tcp"
        await self.through(f"{kind}:localhost:{self.serverPort}")
        await self.through(self.url("/tunnel"))
        self.assertEqual(
            [f"CONNECT localhost:{self.serverPort} HTTP/1.1"] * 2,
            [asked.partition("\r\n")[0] for asked in self.proxy.asked],
        )

    async def test_credentials(self) -> None:
        """The proxy is told who we are, and nobody else is."""
        await self.startAll()
        await self.through(self.url("/tunnel"), "me:s%40cret@")
        self.assertIn("Proxy-Authorization: Basic bWU6c0BjcmV0", self.proxy.asked[0])

    async def test_refusals(self) -> None:
        """What a proxy refuses is told with its words."""
        await self.startAll()
        proxy = parseProxy(self.reactor, f"http://127.0.0.1:{self.proxyPort}")
        for answer, code, words in (
            (b"HTTP/1.1 407 Who are you\r\n\r\n", "auth-refused", "407 Who are you"),
            (b"HTTP/1.1 503 No\r\n\r\n", "session-lost", "503 No"),
            (b"SSH-2.0-x\r\n\r\n", "protocol-error", "not an HTTP proxy"),
            (b"x" * 70_000, "protocol-error", "no HTTP answer"),
        ):
            self.proxy.answer = answer
            endpoint = ProxiedEndpoint(self.reactor, proxy, "far.example", 1)
            error = await self.failure(endpoint)
            self.assertEqual(code, error.code.name)
            self.assertIn(words, error.message)

    async def test_refusedLater(self) -> None:
        """Whatever stands between answers for a while, a client that was in comes back:
        by WebSocket or not, over TLS or not."""
        await self.startAll()
        proxy = parseProxy(self.reactor, f"http://127.0.0.1:{self.proxyPort}")
        kind = "tls" if self.tls else "tcp"
        for where in (f"{kind}:localhost:{self.serverPort}", self.url("/tunnel")):
            service = Service()
            server = parseConnect(
                self.reactor, where, self.trust, ConnectOptions(proxy)
            )
            client = await self.startFramed(
                server, f"0=127.0.0.1:{self.offer(service)}", carrier=Carrier("session")
            )
            for status in (401, 403, 407, 302, 429, 503):
                again: Deferred[None] = Deferred()
                ready = len(self.seen.named("tunnelReady"))
                refused = len(self.seen.named("disconnected"))

                def told(
                    event: tuple[Any, ...],
                    again: Deferred[None] = again,
                    ready: int = ready,
                    refused: int = refused,
                ) -> None:
                    if len(self.seen.named("disconnected")) > refused + 1:
                        self.proxy.answer = b""
                    here = len(self.seen.named("tunnelReady")) > ready
                    if here and not again.called:
                        again.callback(None)

                self.seen.listeners.append(told)
                self.proxy.answer = b"HTTP/1.1 %d X\r\nRetry-After: 5\r\n\r\n" % status
                self.proxy.talks[-1].abort()
                await again
                self.seen.listeners.remove(told)
            self.assertEqual(self.seen.named("gaveUp"), [])
            await client.stopService()

    async def test_retryAfter(self) -> None:
        """A proxy's or server's hint is believed, within bounds."""
        await self.startAll()
        proxy = parseProxy(self.reactor, f"http://127.0.0.1:{self.proxyPort}")
        for said, hint in (("17", 17.0), ("9" * 5000, LONGEST_HINT), ("0", None)):
            self.proxy.answer = (
                f"HTTP/1.1 503 X\r\nretry-after: {said}\r\n\r\n".encode()
            )
            for endpoint in (
                ProxiedEndpoint(self.reactor, proxy, "far.example", 1),
                parseConnect(
                    self.reactor, f"ws://127.0.0.1:{self.proxyPort}/", Trust()
                ).endpoint,
            ):
                error = await self.failure(endpoint)
                self.assertEqual(error.retryAfter, hint, error)
                self.assertFalse(error.stated)

    async def test_nobody(self) -> None:
        """A proxy that is not there, or goes away, is named."""
        await self.startAll()
        proxy = parseProxy(self.reactor, "http://127.0.0.1:1")
        endpoint = ProxiedEndpoint(self.reactor, proxy, "far.example", 1)
        error = await self.failure(endpoint)
        self.assertIn("the proxy 127.0.0.1:1 was not reached", error.message)

    async def test_silent(self) -> None:
        """A proxy that does not answer is given up."""
        await self.startAll()
        proxy = parseProxy(self.reactor, f"http://127.0.0.1:{self.offer(Service())}")
        endpoint = ProxiedEndpoint(self.reactor, proxy, "far.example", 1, 0.05)
        error = await self.failure(endpoint)
        self.assertIn("did not answer", error.message)


class SecureProxyTests(ProxyTests):
    """The same with TLS within what the proxy connects."""

    tls = True


class OptionTests(SynchronousTestCase):
    """What the options take."""

    def test_proxy(self) -> None:
        """A proxy is an HTTP URL; a wrong one is not repeated, for its password."""
        for url in ("", "https://u:pw@h:1", "http://", "h:1", "http://u:pw@h:x"):
            error = self.assertRaises(TunnelError, parseProxy, None, url)
            self.assertNotIn("pw", error.message)
        proxy = parseProxy(MemoryReactorClock(), "http://u:pw@h:1")
        self.assertEqual(proxy.login, ("u", "pw"))
        self.assertNotIn("pw", repr(ProxiedEndpoint(Clock(), proxy, "a.example", 1)))

    def test_header(self) -> None:
        """A header has a name and a value, on one line."""
        for text in ("Authorization=Bearer a=b:c", "Authorization: Bearer a=b:c"):
            self.assertEqual(("Authorization", "Bearer a=b:c"), parseHeader(text))
        for text in ("", "=x", "x", "a b=c", "A=b\r\nC: d", "Host=x", "Upgrade=x"):
            self.assertRaises(TunnelError, parseHeader, text)
        secret = self.assertRaises(TunnelError, parseHeader, "A=sec\nret")
        self.assertNotIn("ret", secret.message)
