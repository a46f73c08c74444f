"""Tests for L{tristunnel.processes.passing}, with two members in one process."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from tests.processes.fakes import descriptors
from tests.support.loopback import Talk
from tests.support.polling import until
from tests.support.short import shortDirectory
from tests.tls.authority import makeAuthority
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.poller import pollerOf
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.errors import TunnelError
from tristunnel.processes import channel
from tristunnel.processes.channel import pair
from tristunnel.processes.link import Link
from tristunnel.processes.passing import PassedTransport, Passing
from tristunnel.server.ports import TLSFiles, parsePort


class Member:
    """What L{Passing} asks of a membership."""

    def __init__(self, index: int) -> None:
        self.index, self.count = index, 2
        self.answers: dict[str, Any] = {}
        self.siblings: dict[int, Link] = {}

    def sibling(self, index: int) -> Link:
        if index not in self.siblings:
            raise TunnelError("session-lost")
        return self.siblings[index]


class Server(Talk):
    """
    One side of a connection at a member.

    @ivar giveTo: To whom it is passed at its first bytes, or C{None}.
    """

    def __init__(self, test: PassingTestCase, giveTo: int | None) -> None:
        super().__init__()
        self._test = test
        self._giveTo = giveTo

    def connectionMade(self) -> None:
        self._test.served.append(self)

    def dataReceived(self, data: bytes) -> None:
        if self._giveTo is None or not self._test.one.mayPass(self.transport):
            super().dataReceived(data)
            return
        try:
            self._test.one.give("page", self.transport, data, self._giveTo)
        except TunnelError as refusal:
            self._test.refusals.append(refusal.code.name)
            self.transport.abortConnection()


class PassingTestCase(TestCase):
    """A port of one member, whose connections belong to another one."""

    timeout = 60
    scheme, options = "tcp", ""

    def setUp(self) -> None:
        self.reactor: Any = ourReactor()
        self.served: list[Server] = []
        self.refusals: list[str] = []
        self.passed: Counter[str] = Counter()
        poller = pollerOf(self.reactor)
        assert poller is not None
        self.members = Member(0), Member(1)
        ends = pair()
        for member, end, other in zip(
            self.members, ends, reversed(self.members), strict=True
        ):
            link = Link(self.reactor, end, member.answers.get, index=other.index)
            member.siblings[other.index] = link
            self.addCleanup(link.close)
        factories: list[Any] = [
            Factory.forProtocol(partial(Server, self, giveTo)) for giveTo in (1, None)
        ]
        here: Any = self.members[0]
        there: Any = self.members[1]
        self.one = Passing(poller, here, factories[0], self.passed)
        Passing(poller, there, factories[1], self.passed)
        self.port = self._listen(factories[0])

    def _listen(self, factory: Any) -> int:
        directory = shortDirectory(self)
        self.trust = Trust()
        files = TLSFiles()
        if self.scheme != "tcp":
            authority = makeAuthority()
            certificate, key = authority.issue(["localhost"])
            path = directory / "server.pem"
            path.write_bytes(certificate + key)
            self.trust = Trust(ca=str(authority.write(directory / "ca.pem")))
            files = TLSFiles(str(path))
        where = parsePort(
            self.reactor, "tcp:0:interface=127.0.0.1", files, directory, ["localhost"]
        )
        listening: Any = self.successResultOf(where.endpoint.listen(factory))
        self.addCleanup(listening.stopListening)
        number: int = listening.getHost().port
        return number

    async def come(self) -> Talk:
        where = f"{self.scheme}:localhost:{self.port}"
        endpoint: Any = parseConnect(self.reactor, where, self.trust).endpoint
        talk = Talk()
        await connectProtocol(endpoint, talk)
        return talk

    async def test_passed(self) -> None:
        """
        Both directions go on at the other member, which knows where the connection
        comes from; bytes are whole, and nothing is left when it is over.
        """
        for number in range(3):
            peer = await self.come()
            peer.say(b"GET ")
            await until(lambda number=number: len(self.served) >= 2 * number + 2)
            first, served = self.served[-2:]
            self.assertIsInstance(served.transport, PassedTransport)
            await served.has(4)
            secure = ISSLTransport.providedBy(served.transport)
            self.assertEqual(secure, self.scheme != "tcp")
            here = peer.transport.getHost()
            self.assertEqual(served.transport.getPeer().port, here.port)
            self.assertEqual(served.transport.getHost().port, self.port)
            self.assertIsNotNone(first.lost)
            served.say(b"x" * 1_000_000)
            await peer.has(1_000_000)
            peer.say(b"rest")
            await served.has(8)
            self.assertEqual(bytes(served.data), b"GET rest")
            served.close()
            await peer.ended()
            peer.close()
            await peer.gone()
            await served.gone()
            if not number:
                before = descriptors()
        await until(lambda: descriptors() <= before)
        self.assertEqual(self.passed["page"], 3)

    async def test_leaving(self) -> None:
        """Nothing is passed on to a member that is about to end."""
        peer = await self.come()
        await until(lambda: self.served)
        first, link = self.served[0], self.members[0].siblings[1]
        link.isLeaving = True
        self.assertFalse(self.one.passOn("", first.transport, 1))
        link.isLeaving = False
        isPlain = self.scheme == "tcp"
        self.assertEqual(self.one.passOn("", first.transport, 1), isPlain)
        if isPlain:
            await until(lambda: len(self.served) >= 2)
        self.served[-1].close()
        await peer.ended()
        peer.close()
        await peer.gone()
        await self.served[-1].gone()

    async def test_refused(self) -> None:
        """
        A connection for a member that is not there, or does not keep up, is closed.
        """
        self.patch(channel, "MOST_WAITING", 0)
        await self._closed()
        self.members[0].siblings.clear()
        await self._closed()
        self.assertEqual(self.refusals, ["limit-reached", "session-lost"])
        self.assertEqual(self.passed["page"], 0)

    async def _closed(self) -> None:
        peer = await self.come()
        peer.say(b"GET ")
        await peer.ended()
        peer.close()
        await peer.gone()

    async def test_withoutDescriptors(self) -> None:
        """What the other member has no room for is closed there, and by it."""

        def refuse() -> None:
            raise TunnelError("limit-reached", "no descriptors")

        self.patch(RESERVE, "checkSession", refuse)
        await self._closed()
        self.assertEqual(len(self.served), 1)


class TLSPassingTests(PassingTestCase):
    """The same over TLS, which stays with who has accepted it."""

    scheme = "tls"
