"""
bore's dialect at the server, over the loopback interface, with a client in the test's
process.
"""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.loopback import LoopbackTestCase, Talk
from tests.support.polling import until
from tristunnel.auth.clients_file import ClientsFile
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.dialects.bore.dialect import BoreDialect
from tristunnel.dialects.bore.server import BoreVisitors
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.errors import TunnelError
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.service.preauth import PreauthLimiter
from tristunnel.service.tunnel_service import TunnelService


class ProofTests(SynchronousTestCase):
    """Who can prove something."""

    def shown(self, *checkers: Any) -> str:
        authenticator = Authenticator(portalFor(checkers) if checkers else None)
        service = TunnelService(Clock(), MemoryBook(Clock()), {})
        sessions = TunnelServerFactory(Clock(), service, authenticator)
        return BoreDialect().keyShown(sessions)

    def test_nobody(self) -> None:
        """That all are refused is an error, which a server tells when it starts."""
        users = InMemoryUsernamePasswordDatabaseDontUse(laptop=b"secret")
        with self.assertRaises(TunnelError) as raised:
            self.shown(users)
        self.assertIn("--auth tokens: or clients:", raised.exception.message)
        path = Path(self.mktemp())
        path.write_text("laptop:secret\n")
        path.chmod(0o600)
        self.assertEqual(self.shown(users, ClientsFile(path)), "")
        self.assertEqual(self.shown(), "")


class BoreTestCase(LoopbackTestCase):
    """A server with bore's port."""

    secrets = ""

    async def begin(self) -> None:
        self.tunnels = TunnelService(
            self.reactor,
            MemoryBook(self.reactor),
            {"tcp": TCPListeners(self.reactor, "127.0.0.1")},
            self.notes,
            "127.0.0.1",
        )
        authenticator = None
        if self.secrets:
            path = Path(self.directory, "clients")
            path.write_text(self.secrets)
            path.chmod(0o600)
            authenticator = Authenticator(portalFor([ClientsFile(path)]))
        self.sessions = TunnelServerFactory(self.reactor, self.tunnels, authenticator)
        self.limiter = PreauthLimiter(self.reactor.seconds)
        spoken = BoreDialect().portProtocols(self.sessions)
        factory = ProtocolDetectorFactory(
            self.reactor, spoken, self.notes, limiter=self.limiter
        )
        self.startListening(factory)

    async def message(self, talk: Talk) -> Any:
        """Read the next message that is no heartbeat."""
        while True:
            await talk.until(lambda talk: b"\0" in talk.data)
            text, _, rest = bytes(talk.data).partition(b"\0")
            talk.data[:] = rest
            read = json.loads(text)
            if read != "Heartbeat":
                return read

    async def login(self, secret: bytes) -> Talk:
        talk = await self.visit(self.serverPort)
        challenge = UUID((await self.message(talk))["Challenge"])
        key = sha256(secret).digest()
        tag = hmac.digest(key, challenge.bytes, "sha256").hex()
        self.say(talk, {"Authenticate": tag})
        return talk

    @staticmethod
    def say(talk: Talk, message: object) -> None:
        talk.say(json.dumps(message).encode() + b"\0")


class Passes:
    """Passes connections to another server of the same process."""

    def __init__(self) -> None:
        self.takers: dict[str, Any] = {}
        self.passed: list[Any] = []
        self.isFull = False

    def mayPass(self, transport: Any) -> bool:
        """Only once."""
        return transport not in self.passed

    def ownerOf(self, ticket: str) -> int | None:
        return 1 if ticket == "1." else None

    def give(
        self, kind: str, transport: Any, began: bytes, member: int, taker: str
    ) -> None:
        if self.isFull:
            raise TunnelError("limit-reached", "no room")
        self.passed.append(transport)
        taking = self.takers[taker].buildProtocol(None)
        before, transport.protocol = transport.protocol, taking
        before.connectionLost(connectionDone)
        taking.makeConnection(transport)
        taking.dataReceived(began)


class OpenTests(BoreTestCase):
    """Where anybody may connect."""

    async def test_visitors(self) -> None:
        """
        A visitor's connection is told by a number; what the client says before, with
        and behind its acceptance comes to the visitor, and each direction ends apart.
        """
        await self.begin()
        client = await self.visit(self.serverPort)
        self.say(client, {"Hello": 0})
        port = (await self.message(client))["Hello"]
        visitor = await self.visit(port)
        visitor.say(b"question")
        number = (await self.message(client))["Connection"]
        data = await self.visit(self.serverPort)
        data.say(json.dumps({"Accept": number}).encode() + b"\0" + b"220 ready\r\n")
        await data.has(8)
        visitor.finish()
        await data.ended()
        data.say(b"answer")
        data.finish()
        await visitor.ended()
        self.assertEqual(b"question", bytes(data.data))
        self.assertEqual(b"220 ready\r\nanswer", bytes(visitor.data))
        self.assertEqual(0, self.limiter.unauthenticated)

    async def test_breaks(self) -> None:
        """A client whose port is not opened, by an error of ours, is told so."""
        await self.begin()

        async def broken(*arguments: object) -> object:
            raise ZeroDivisionError

        self.patch(self.tunnels, "open", broken)
        client = await self.visit(self.serverPort)
        self.say(client, {"Hello": 0})
        self.assertIn("internal error", (await self.message(client))["Error"])
        await client.ended()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_twice(self) -> None:
        """A number is good once; one that nobody waits for is refused."""
        await self.begin()
        client = await self.visit(self.serverPort)
        self.say(client, {"Hello": 0})
        await self.visit((await self.message(client))["Hello"])
        number = (await self.message(client))["Connection"]
        self.say(await self.visit(self.serverPort), {"Accept": number})
        await until(lambda: not len(self.sessions.shared(BoreVisitors)))
        for other in (number, str(uuid4())):
            data = await self.visit(self.serverPort)
            self.say(data, {"Accept": other})
            self.assertIn("no visitor", (await self.message(data))["Error"])
            await data.ended()

    async def test_passed(self) -> None:
        """A connection that comes to another process is passed on, with all of it."""
        await self.begin()
        far, farPort = self.sessions, self.serverPort
        far.shared(BoreVisitors).member = 1
        await self.begin()
        self.sessions.passing = passing = Passes()  # type: ignore[assignment] # a fake
        far.passing = passing  # type: ignore[assignment] # a fake
        BoreDialect().isMember(far, 1)
        client = await self.visit(farPort)
        self.say(client, {"Hello": 0})
        visitor = await self.visit((await self.message(client))["Hello"])
        number = (await self.message(client))["Connection"]
        data = await self.visit(self.serverPort)
        data.say(json.dumps({"Accept": number}).encode() + b"\0" + b"220 ready\r\n")
        await visitor.has(11)
        visitor.say(b"question")
        await data.has(8)
        self.assertEqual(b"220 ready\r\n", bytes(visitor.data))
        # What that process does not take is refused.
        passing.isFull = True
        other = await self.visit(self.serverPort)
        self.say(other, {"Accept": number})
        self.assertIn("no room", (await self.message(other))["Error"])
        await other.ended()
        passing.isFull = False
        # What nobody waits for is not passed for ever.
        data = await self.visit(self.serverPort)
        self.say(data, {"Accept": number})
        self.assertIn("no visitor", (await self.message(data))["Error"])

    async def test_leaves(self) -> None:
        """A client that leaves takes its tunnel along, and who waits."""
        await self.begin()
        client = await self.visit(self.serverPort)
        self.say(client, {"Hello": 0})
        visitor = await self.visit((await self.message(client))["Hello"])
        await self.message(client)
        client.abort()
        await visitor.gone()
        await until(lambda: not self.tunnels.tunnels)
        self.assertEqual(0, len(self.sessions.shared(BoreVisitors)))
        self.assertEqual(0, self.sessions.streams())

    async def test_wrong(self) -> None:
        """What is none of its messages, or comes too late, ends the connection."""
        await self.begin()
        for said in (b"GET / HTTP/1.0\0", b"x" * 300, b'{"Authenticate":"00"}\0'):
            talk = await self.visit(self.serverPort)
            talk.say(said)
            self.assertIn("Error", await self.message(talk))
            await talk.ended()
        client = await self.visit(self.serverPort)
        self.say(client, {"Hello": 0})
        await self.message(client)
        self.say(client, {"Hello": 0})
        self.assertIn("not send anything more", (await self.message(client))["Error"])
        await until(lambda: not self.tunnels.tunnels)

    async def test_taken(self) -> None:
        """A port that is taken is refused with the reason."""
        await self.begin()
        client = await self.visit(self.serverPort)
        self.say(client, {"Hello": self.serverPort})
        self.assertIn("port-taken", (await self.message(client))["Error"])
        await client.ended()


class StockOpenTests(OpenTests):
    """The same over Twisted's own transports."""

    stock = True


class SecretTests(BoreTestCase):
    """Where a secret is asked for."""

    secrets = "ann:right\nbob:other\neve:*\n"

    async def test_secret(self) -> None:
        """Who proves a secret is known by its id, and keeps its port for a while."""
        await self.begin()
        client = await self.login(b"right")
        self.say(client, {"Hello": 0})
        port = (await self.message(client))["Hello"]
        self.assertIn(("clientConnected", "ann", "bore"), self.notes.events)
        client.abort()
        await until(lambda: self.tunnels.tunnels[0].clientSide is None)
        client = await self.login(b"right")
        self.say(client, {"Hello": 0})
        self.assertEqual(port, (await self.message(client))["Hello"])

    async def test_wrong(self) -> None:
        """Another secret, an empty one and none are refused; the first two count."""
        await self.begin()
        for secret in (b"wrong", b""):
            talk = await self.login(secret)
            self.assertIn("auth-refused", (await self.message(talk))["Error"])
            await talk.ended()
        talk = await self.visit(self.serverPort)
        await self.message(talk)
        self.say(talk, {"Hello": 0})
        self.assertIn("--secret", (await self.message(talk))["Error"])
        for _ in range(2):
            await (await self.login(b"wrong")).ended()
        talk = await self.visit(self.serverPort)
        await talk.ended()
        self.assertNotIn(b"Challenge", talk.data)
        self.assertEqual([], self.tunnels.tunnels)

    async def test_others(self) -> None:
        """Nobody accepts another client's visitor."""
        await self.begin()
        client = await self.login(b"right")
        self.say(client, {"Hello": 0})
        await self.visit((await self.message(client))["Hello"])
        number = (await self.message(client))["Connection"]
        other = await self.login(b"other")
        self.say(other, {"Accept": number})
        self.assertIn("no visitor", (await self.message(other))["Error"])
        self.assertEqual(1, len(self.sessions.shared(BoreVisitors)))
