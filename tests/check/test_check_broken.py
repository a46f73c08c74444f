"""
What L{tristunnel.check.client} says of things that are broken: each has its own
line, with the cure.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import DNSLookupError
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.listening import listenHere
from tests.support.processes import freePort
from tests.tls.authority import makeAuthority
from tristunnel.check.client import ClientCheck
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.connect.proxy import parseProxy
from tristunnel.connect.route import ConnectOptions
from tristunnel.errors import TunnelError
from tristunnel.tls.server_context import ReloadingCertificate

_NOW = 1_800_000_000.0


class _Answering(Protocol):
    """Answers whatever is asked in the same way, and hangs up."""

    transport: Any
    answer = b""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self.answer)
        self.transport.loseConnection()


def _answering(answer: bytes) -> Factory:
    factory = Factory.forProtocol(type("Answers", (_Answering,), {"answer": answer}))
    factory.noisy = False
    return factory


class _Status(Resource):
    isLeaf = True

    def __init__(self, status: int) -> None:
        super().__init__()
        self._status = status

    def render(self, request: Any) -> bytes:
        request.setResponseCode(self._status)
        return b""


class BrokenTests(TestCase):
    """One thing is broken in each."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)
        self.authority = makeAuthority()

    def listen(self, factory: Any) -> int:
        return listenHere(self, self.reactor, factory)

    async def wrong(
        self, look: str, connect: str, *words: str, route: Any = None, **more: Any
    ) -> None:
        ca = str(self.authority.write(self.directory / "ca.pem"))
        trust = more.pop("trust", None) or Trust(
            ca=ca if connect.startswith(("tls", "wss")) else ""
        )
        server = parseConnect(self.reactor, connect, trust, route)
        check = ClientCheck(self.reactor, server, **more)
        looking = Deferred.fromCoroutine(check.look(look))
        error = await self.assertFailure(looking, TunnelError)
        message = str(error)
        self.assertNotIn("\n", message)
        for word in words:
            self.assertIn(word, message)

    async def test_name(self) -> None:
        """A name that does not exist."""
        await self.wrong(
            "name",
            "tcp:nobody.example:9",
            "there is no address for nobody.example",
            "check the spelling",
            resolve=lambda host: fail(DNSLookupError(f"nobody knows {host}")),
        )

    async def test_route(self) -> None:
        """A port where nobody listens."""
        where = f"tcp:127.0.0.1:{freePort()}"
        await self.wrong("route", where, "refuses", "is the server running")

    async def test_proxy(self) -> None:
        """A proxy that does not let us through."""
        for status, cure in (
            ("403 Forbidden", "have it allowed, or use 443"),
            ("407 Proxy Authentication Required", "--proxy http://USER:PASSWORD@"),
            ("502 Bad Gateway", "check the server's name and port"),
        ):
            port = self.listen(_answering(f"HTTP/1.1 {status}\r\n\r\n".encode()))
            proxy = parseProxy(self.reactor, f"http://127.0.0.1:{port}")
            route = ConnectOptions(proxy)
            await self.wrong("proxy", "tcp:far.example:9000", status, cure, route=route)

    def tlsPort(self, *names: str, until: datetime | None = None) -> int:
        pem, key = self.authority.issue(names, notAfter=until)
        path = self.directory / f"{len(list(self.directory.iterdir()))}.pem"
        path.write_bytes(pem + key)
        creator = ReloadingCertificate(path)
        return self.listen(TLSMemoryBIOFactory(creator, False, _answering(b"")))

    async def test_tls(self) -> None:
        """A certificate that is too old, for another name, or of nobody we trust; and a
        port without TLS."""
        past = datetime.now(UTC) - timedelta(days=1)
        expired = self.tlsPort("localhost", until=past)
        await self.wrong("tls", f"tls:localhost:{expired}", "expired", "renew it")
        other = self.tlsPort("other.example")
        await self.wrong(
            "tls",
            f"wss://localhost:{other}/tunnel",
            "is for other.example, not for localhost",
            "connect to one of its names",
        )
        own = self.tlsPort("localhost")
        await self.wrong(
            "tls",
            f"tls:localhost:{own}",
            "is pinned",
            "compare the fingerprint",
            trust=Trust(pins=[bytes(32)]),
        )
        plain = self.listen(_answering(b"hello\r\n"))
        await self.wrong("tls", f"tls:localhost:{plain}", "write tcp:")

    async def test_webSocket(self) -> None:
        """A path that is none, a proxy that hands no upgrade on, one that reaches
        nobody, and a server that is none of HTTP."""
        for status, cure in (
            (404, "check the path"),
            (401, "give it credentials"),
            (426, "Upgrade and Connection"),
            (502, "is it running"),
        ):
            port = self.listen(Site(_Status(status)))
            await self.wrong("websocket", f"ws://localhost:{port}/x", cure)
        port = self.listen(_answering(b""))
        await self.wrong("websocket", f"ws://localhost:{port}/x", "does it serve HTTP")

    async def test_clock(self) -> None:
        """A clock that is wrong here or there."""
        for skew, words in ((-7200, "7200 s ahead of"), (7200, "7200 s behind")):
            date = formatdate(_NOW + skew, usegmt=True)
            answer = f"HTTP/1.1 200 OK\r\nDate: {date}\r\n\r\n".encode()
            await self.wrong(
                "clock",
                f"tcp:127.0.0.1:{self.listen(_answering(answer))}",
                words,
                "set both by NTP",
                now=lambda: _NOW,
            )

    async def test_credential(self) -> None:
        """A server that closes the connection instead of an answer."""
        port = self.listen(_answering(b""))
        await self.wrong("credential", f"tcp:127.0.0.1:{port}", "closed the connection")
