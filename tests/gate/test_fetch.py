"""
Answers of providers over real sockets, L{tristunnel.gate.fetch}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tests.support.listening import listenHere
from tristunnel.gate import fetch
from tristunnel.gate.fetch import MOST, Fetcher, Unreachable


class _Says(Protocol):
    """Answers with what a test says, whatever it is asked."""

    factory: Any

    def dataReceived(self, data: bytes) -> None:
        self.factory.asked.append(data)
        if self.factory.answer:
            self.transport.write(self.factory.answer)
            if not self.factory.stays:
                self.transport.loseConnection()


def answer(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class FetcherTests(TestCase):
    """What comes of what a provider answers."""

    timeout = 60

    def setUp(self) -> None:
        self.reactor: Any = _reactor
        made: Any = Factory.forProtocol(_Says)
        self.provider = made
        self.provider.asked, self.provider.answer = [], b""
        self.provider.stays = False
        port = listenHere(self, self.reactor, self.provider)
        self.url = f"http://127.0.0.1:{port}/x"
        self.fetcher = Fetcher(self.reactor, True)

    async def refuses(self, words: str) -> None:
        with self.assertRaises(Unreachable) as caught:
            await self.fetcher.get(self.url)
        self.assertIn(words, str(caught.exception))

    async def test_answers(self) -> None:
        """An object of JSON is one; all else is told in a few words."""
        self.provider.answer = answer(b'{"a": 1}')
        self.assertEqual(await self.fetcher.get(self.url), {"a": 1})
        posted = await self.fetcher.post(self.url, b"a=b", {"Authorization": "x"})
        self.assertEqual(posted, {"a": 1})
        self.assertIn(b"a=b", self.provider.asked[-1])
        for data, words in (
            (answer(b"[1]"), "not a JSON object"),
            (answer(b"[" * 100_000), "not a JSON object"),
            (answer(b"{}", "302 Found"), "answered 302"),
            (answer(b"{}", "400 Bad"), "answered 400"),
            (answer(b" " * (MOST + 1)), "longer than 256 KiB"),
            (answer(b"{}")[:-1], "cut off"),
            (b"nonsense\r\n\r\n", ""),
        ):
            self.provider.answer = data
            await self.refuses(words)

    async def test_endless(self) -> None:
        """An answer without end is not read on."""
        self.provider.stays = True
        self.provider.answer = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MOST + 2)
        await self.refuses("longer than 256 KiB")

    async def test_silent(self) -> None:
        """One that does not come is not waited for."""
        self.patch(fetch, "PATIENCE", 0.05)
        await self.refuses("did not answer within")

    async def test_stalls(self) -> None:
        """Nor is the rest of one that has begun."""
        self.patch(fetch, "PATIENCE", 0.05)
        self.provider.stays = True
        self.provider.answer = answer(b"{}")[:-1]
        await self.refuses("did not answer within")

    async def test_private(self) -> None:
        """Whom the operator has not named is asked at public addresses, over TLS."""
        self.fetcher = Fetcher(self.reactor, False)
        await self.refuses("has no https://")
        self.url = self.url.replace("http:", "https:")
        for host in ("127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254"):
            self.url = f"https://{host}:{self.url.rpartition(':')[2]}"
            await self.refuses("private network")
        self.assertEqual(self.provider.asked, [])
